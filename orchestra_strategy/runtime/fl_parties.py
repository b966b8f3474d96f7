"""Questions of the driver to the parties' workers."""

import logging
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from typing import Any

from orchestra_strategy import host
from orchestra_strategy.algorithms.trial_pass import refuse_unfit
from orchestra_strategy.config import parse_config
from orchestra_strategy.data.arrays import check_parties
from orchestra_strategy.errors import DataError
from orchestra_strategy.runtime.checks import built_once, federated_values
from orchestra_strategy.runtime.fl_wiring import Wiring
from orchestra_strategy.runtime.traffic import Exchange, exchange_of
from orchestra_strategy.runtime.visibility import seen_by

__all__ = ["AskedParties", "shape_in"]

_log = logging.getLogger(__name__)

# Starting a worker takes seconds (it imports SecretFlow), on a busy machine minutes.
_START_SECONDS = 300.0


def shape_in(reports: Mapping[str, Mapping[str, Any]]) -> tuple[int, ...]:
    """Return the shape of a sample, the same in all of the parties' reports."""
    return tuple(next(iter(reports.values()))["sample_shape"])


class AskedParties(host.FLModel):  # type: ignore[misc]
    """FLModel with what our driver asks of the workers; see :class:`OrchestraFLModel`."""

    _wiring: Wiring
    _restored: bool
    _in_call: bool
    _known_shapes: Set[tuple[int, ...]] = frozenset()
    strategy_config: Any

    @property
    def workers(self) -> Mapping[Any, Any]:
        """The parties' workers by PYU: SecretFlow's proxies, whose methods return references."""
        return host.workers_of(self)

    def restored(self) -> None:
        """Say that all parties have just been put where they were at the end of a round."""
        self._restored = True

    def initialize_weights(self) -> Any:
        """Let all parties start from their average; FLModel calls it at the start of ``fit``.

        Not after a checkpoint has been read: they have the average already, and fixed-point
        arithmetic would move its last bits.
        """
        if self._restored:
            self._restored = False
            return None
        return super().initialize_weights()

    def check_data(
        self, x: Any, y: Any = None, min_samples: int | None = None
    ) -> dict[str, dict[str, Any]]:
        """Ask every party for the size and type of its data, and refuse what cannot be used.

        Args:
            x: As in :meth:`fit`.
            y: The same, or None.
            min_samples: Of each party; by default what training needs.

        Returns:
            Per party: number of samples, shape and dtype of one, whether all are finite.
        """
        x, y = federated_values(x), None if y is None else federated_values(y)
        return self._described(x, y, min_samples)

    def _described(
        self, x: Any, y: Any = None, min_samples: int | None = None
    ) -> dict[str, dict[str, Any]]:
        """Check FedNdarrays; see :meth:`check_data`."""
        for name, federated in (("x", x), ("y", y)):
            if federated is not None and set(federated.partitions) != set(self.workers):
                raise DataError(
                    f"Expected `{name}` to have one partition per device of `device_list`, got "
                    f"{sorted(d.party for d in federated.partitions)} for "
                    f"{sorted(d.party for d in self.workers)}."
                )
        stage = "train" if min_samples is None else "eval"
        described = {
            device.party: worker.describe_data(
                x.partitions[device], None if y is None else y.partitions[device], stage
            )
            for device, worker in self.workers.items()
        }
        reports = host.reveal_within(described, _START_SECONDS, "a description of the data")
        if min_samples is None:
            min_samples = getattr(self.strategy_config, "k_min", 1)
        check_parties(reports, min_samples)
        self._check_shape(shape_in(reports))
        return reports

    def _check_shape(self, shape: tuple[int, ...]) -> None:
        """Refuse samples that the model cannot take, once for each shape of them."""
        if shape not in self._known_shapes:
            refuse_unfit(built_once(self._wiring.model), shape)
            self._known_shapes = {*self._known_shapes, shape}

    def manifest(self) -> list[dict[str, Any]]:
        """Return all that leaves a party in a round, one dictionary per entry."""
        worker = next(iter(self.workers.values()))
        rows: list[dict[str, Any]] = host.reveal(worker.manifest_rows())
        parties = [d.party for d in self.workers]
        server = getattr(self.server, "party", "")
        if self._wiring.chosen:
            server += " (the first of `device_list`, since no server was given)"
        wide = host.bytes_per_number(self._aggregator) // 4
        return [
            {
                **row,
                "bytes": row["bytes"] * (wide if row["to"] == "aggregator" else 1),
                "seen_by": seen_by(row, server, self._aggregator, parties),
            }
            for row in rows
        ]

    def exchange(self, manifest: Sequence[Mapping[str, Any]]) -> Exchange:
        """Return the bytes of a party's exchanges.

        Args:
            manifest: What :meth:`manifest` returns.
        """
        return exchange_of(self.workers, manifest, self._aggregator)

    def left_out(self) -> dict[str, dict[int, str]]:
        """Return the parties that were left out of rounds, by round and with the reason."""
        answers = host.reveal({d.party: w.left_out_of() for d, w in self.workers.items()})
        return {party: rounds for party, rounds in answers.items() if rounds}

    @contextmanager
    def _configured(self, overrides: Mapping[str, Any]) -> Iterator[None]:
        """Let the parties have this call's parameters for the length of a block."""
        self._configure(overrides)
        self._in_call = True
        try:
            yield
        finally:
            self._in_call = False
        # Not after an error, which may be of this process alone (Ctrl-C): the others would not
        # answer. The next call sets all parameters anew.
        self._configure({})

    def _configure(self, overrides: Mapping[str, Any]) -> None:
        """Hand every party its name and this call's parameters, and wait for it."""
        answers = {
            d.party: w.configure({**overrides, "party": d.party}) for d, w in self.workers.items()
        }
        host.reveal_within(answers, _START_SECONDS, "the workers to start")

    def _parsed(self, overrides: Mapping[str, Any]) -> Any:
        """Return the parameters of one call, or refuse them."""
        known = self._wiring.parameters
        return parse_config(self._wiring.strategy_class.config_class, {**known, **overrides})

    def _why_stopped(self) -> str | None:
        """Ask the parties why training ended early, and warn if it did."""
        found: dict[str, str | None] = host.reveal(
            {d.party: w.collapse_found() for d, w in self.workers.items()}
        )
        reasons = {party: reason for party, reason in found.items() if reason is not None}
        if len(reasons) < self.consensus_num:
            return None
        party, reason = next(iter(reasons.items()))
        told = (
            f"Training stopped: the encoder has collapsed at {len(reasons)} of {len(found)} "
            f"parties; {party}: {reason} Lower `lr`, or set `stop_on_collapse=False` to go on."
        )
        _log.warning("%s", told)
        return told
