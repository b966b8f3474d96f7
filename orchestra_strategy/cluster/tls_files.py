"""A party's key files, checked before anything starts; no message shows what is in them."""

from datetime import datetime, timezone
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)

from orchestra_strategy.cluster.settings import TlsFiles
from orchestra_strategy.errors import ClusterError

__all__ = ["TlsBytes", "read_tls"]


class TlsBytes(NamedTuple):
    """What is in the files."""

    ca: bytes
    cert: bytes
    key: bytes


def read_tls(files: TlsFiles, party: str) -> TlsBytes:
    """Read a party's key files.

    Args:
        files: Their paths.
        party: Whose certificate it has to be.

    Raises:
        ClusterError: A file is missing or no PEM file, the key is not that of the certificate, or
            the certificate is another party's, out of date, or of another authority.
    """
    read = TlsBytes(*(_bytes_of(name, getattr(files, name)) for name in ("ca", "cert", "key")))
    ca, cert = _certificate("ca", files.ca, read.ca), _certificate("cert", files.cert, read.cert)
    _check_key(files, read.key, cert)
    _check_certificate(files, cert, ca, party)
    return read


def _bytes_of(name: str, path: str) -> bytes:
    if "-----BEGIN" in path or "\n" in path:
        # The value may be a private key: it must not be shown.
        raise ClusterError(
            f"Expected `tls.{name}` to be the path of a PEM file, got the text of one (not shown "
            "here); write it to a file that only you can read, and give its path."
        )
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ClusterError(
            f"Expected `tls.{name}` to be a file that can be read, got {path!r}: "
            f"{error.strerror}; `orchestra-fl certs` makes such files."
        ) from None


def _certificate(name: str, path: str, data: bytes) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(data)
    except ValueError:
        raise ClusterError(
            f"Expected `tls.{name}` to be a certificate in PEM form, got {path!r}, which "
            "holds none."
        ) from None


def _check_key(files: TlsFiles, key: bytes, cert: x509.Certificate) -> None:
    try:
        public = load_pem_private_key(key, password=None).public_key()
    except (TypeError, ValueError):
        raise ClusterError(
            "Expected `tls.key` to be a private key in PEM form without a password, got "
            f"{files.key!r}, which holds none."
        ) from None
    form = Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    if public.public_bytes(*form) != cert.public_key().public_bytes(*form):
        raise ClusterError(
            f"Expected `tls.key` to be the key of `tls.cert`, got {files.key!r} beside "
            f"{files.cert!r}: they are not a pair."
        )


def _check_certificate(
    files: TlsFiles, cert: x509.Certificate, ca: x509.Certificate, party: str
) -> None:
    names = alternative_names(cert)
    if party not in names:
        raise ClusterError(
            f"Expected `tls.cert` to name `{party}` among its subject's alternative names, got "
            f"{files.cert!r} for {names}: it is another party's."
        )
    now = _now()
    if not cert.not_valid_before_utc <= now <= cert.not_valid_after_utc:
        raise ClusterError(
            f"Expected `tls.cert` to be valid now, got {files.cert!r}, which is valid from "
            f"{cert.not_valid_before_utc:%Y-%m-%d} to {cert.not_valid_after_utc:%Y-%m-%d}; make a "
            "new one, or set this machine's clock."
        )
    try:
        cert.verify_directly_issued_by(ca)
    except (InvalidSignature, TypeError, ValueError):
        raise ClusterError(
            f"Expected `tls.cert` to be signed by `tls.ca`, got {files.cert!r} beside "
            f"{files.ca!r}: it is of another authority."
        ) from None


def _now() -> datetime:
    return datetime.now(timezone.utc)


def alternative_names(cert: x509.Certificate) -> list[str]:
    """Return the DNS names that a certificate is for."""
    try:
        found = cert.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return []
    names: list[str] = found.value.get_values_for_type(x509.DNSName)
    return names
