"""A test authority and certificates for a job's parties, to try mutual TLS with."""

import os
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from orchestra_strategy.errors import ClusterError

__all__ = ["make_certificates"]

_Key = ec.EllipticCurvePrivateKey


def make_certificates(folder: str | Path, parties: Sequence[str], days: int = 90) -> list[Path]:
    """Write a new authority's certificate, and a certificate and key for each party.

    The authority's own key is not kept: nobody can sign more with it, and a new party means new
    files for all. For real deployments use your organisation's authority instead.

    Args:
        folder: Gets ``ca.pem`` and, for each party, ``PARTY.pem`` and ``PARTY.key``.
        parties: Their names, which stand as DNS names in the certificates.
        days: How long they are valid.

    Returns:
        The files written.

    Raises:
        ClusterError: One of the files is there already; nothing is written.
    """
    folder = Path(folder)
    files = ["ca.pem", *(f"{p}{end}" for p in parties for end in (".pem", ".key"))]
    there = [name for name in files if (folder / name).exists()]
    if there:
        raise ClusterError(
            f"Expected `out` to be a folder without {there[0]!r}, got {str(folder)!r}; keys are "
            "never written over: name another folder."
        )
    folder.mkdir(parents=True, exist_ok=True)
    authority = ec.generate_private_key(ec.SECP256R1())
    ca = _signed("orchestra test authority", authority, authority, days, issuer=None)
    (folder / "ca.pem").write_bytes(ca.public_bytes(Encoding.PEM))
    for party in parties:
        key = ec.generate_private_key(ec.SECP256R1())
        cert = _signed(party, key, authority, days, issuer=ca.subject)
        (folder / f"{party}.pem").write_bytes(cert.public_bytes(Encoding.PEM))
        _write_key(folder / f"{party}.key", key)
    return [folder / name for name in files]


def _write_key(path: Path, key: _Key) -> None:
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(pem)


def _signed(
    name: str, key: _Key, authority: _Key, days: int, issuer: x509.Name | None
) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(timezone.utc)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer or subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        # Clocks of different machines differ by some minutes.
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
    )
    if issuer is not None:
        both_ways = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        builder = builder.add_extension(
            x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False
        ).add_extension(x509.ExtendedKeyUsage(both_ways), critical=False)
    return builder.sign(authority, SHA256())
