"""``ml.predict/orchestra_embed``: a trained encoder and a party's table -> a table of features."""

from collections.abc import Sequence
from typing import Any

from orchestra_strategy import host
from orchestra_strategy.component.forms import Waiting, limits_from
from orchestra_strategy.component.input_tables import only_columns, readers_of, refuse_unfit
from orchestra_strategy.component.model_file import (
    MODEL_TYPE,
    About,
    about_of,
    load_at_party,
)
from orchestra_strategy.component.party_data import NumberColumns, read_party_table
from orchestra_strategy.component.platform_job import platform_job
from orchestra_strategy.errors import DataError
from orchestra_strategy.evaluation import extract_features
from orchestra_strategy.host_component import (
    Component,
    DistDataType,
    Field,
    Input,
    Interval,
    Output,
    VTable,
    VTableField,
    VTableFieldKind,
    VTableParty,
    VTableSchema,
    register,
    write_arrow,
)

__all__ = ["OrchestraEmbed"]

_PREFIX = "orchestra_"


@register(domain="ml.predict", version="0.0.1", name="orchestra_embed")
class OrchestraEmbed(Component):  # type: ignore[misc]
    """Turn a party's table or images into features, by an encoder that orchestra_train has made.

    Nothing leaves the party. Ids and labels are taken over, so that other components go on.
    """

    keep: list[str] = Field.table_column_attr(
        "input_ds",
        desc="Columns that are taken over as they are, beside ids and labels.",
        limit=Interval.closed(0, None),
    )
    waiting: Waiting = Field.struct_attr(desc="How long a party waits for the others.")
    input_model: Input = Field.input(desc="The trained encoder.", types=[MODEL_TYPE])
    input_ds: Input = Field.input(
        desc="A table of a party that has taken part in the training, with the columns of it.",
        types=[DistDataType.INDIVIDUAL_TABLE],
    )
    output_ds: Output = Field.output(
        desc="Ids, labels and features, one row for each of the table.",
        types=[DistDataType.INDIVIDUAL_TABLE],
    )

    def evaluate(self, ctx: Any) -> None:
        """Embed; SecretFlow calls it at every party, and the table's alone has work."""
        with platform_job(ctx, limits_from(self.waiting)), ctx.trace_running():
            about, uris = about_of(self.input_model)
            parts = VTable.from_distdata(self.input_ds).parties
            ((party, part),) = parts.items()
            if party not in uris:
                raise DataError(
                    "Expected `input_ds` to be of a party that has a copy of the model "
                    f"({', '.join(uris)}), got one of {party}: let it take part in the training."
                )
            refuse_unfit(party, part, about.samples)
            source = readers_of(parts, about.samples, True, ctx.storage, ctx.data_dir)[party]
            kept, out = self._columns(part, about)
            device = host.PYU(party)
            rows = host.reveal(device(_embed_at_party)(ctx.storage, uris[party], source, kept, out))
            self.output_ds.data = VTable(
                name=self.output_ds.uri,
                parties=[out],
                line_count=int(rows),
                system_info=self.input_ds.system_info,
            ).to_distdata()

    def _columns(self, part: Any, about: About) -> tuple[Any, Any]:
        """Return what is taken over of a party's table, and the description of the result."""
        kept = _kept(part, self.keep or [])
        names = [f"{_PREFIX}{i}" for i in range(about.feature_dim)]
        taken = [name for name in kept if name in names]
        if taken:
            raise DataError(
                f"Expected `keep` to be columns of other names than the features', got "
                f"`{taken[0]}`: rename it first."
            )
        features = [VTableField(name, "float32", VTableFieldKind.FEATURE) for name in names]
        out = VTableParty(
            party=part.party,
            uri=self.output_ds.uri,
            format="orc",
            schema=VTableSchema([*(part.schema[name] for name in kept), *features]),
        )
        return only_columns(part, kept), out


def _kept(part: Any, chosen: Sequence[str]) -> list[str]:
    """Return the names of ids, labels, and what was chosen."""
    unknown = [name for name in chosen if name not in part.schema]
    if unknown:
        raise DataError(
            f"Expected `keep` to be columns of `input_ds`, got `{unknown[0]}`, which is none."
        )
    features = VTableFieldKind.FEATURE
    own = [name for name, kind in part.kinds.items() if kind != features]
    return list(dict.fromkeys([*own, *chosen]))


def _embed_at_party(storage: Any, model_uri: str, source: Any, kept: Any, out: Any) -> int:
    """Read, embed and write; called at the party alone. Returns the number of rows."""
    encoder, scales = load_at_party(storage, model_uri)
    data = source(scales) if isinstance(source, NumberColumns) else source()
    features = extract_features(encoder.model, data.samples)
    columns = list(features.T)
    if kept.columns:
        columns = [*read_party_table(storage, kept).columns, *columns]
    write_arrow(storage, out, columns)
    return len(features)
