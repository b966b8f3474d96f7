"""The tables that a component is given: whose they are, and which of their columns are used."""

from collections.abc import Mapping, Sequence
from typing import Any

from orchestra_strategy.component.forms import Samples
from orchestra_strategy.component.party_data import ImageColumn, NumberColumns
from orchestra_strategy.errors import DataError, ParameterError, did_you_mean
from orchestra_strategy.host_component import VTable, VTableFieldKind

__all__ = [
    "chosen_samples",
    "one_of_each_party",
    "only_columns",
    "readers_of",
    "refuse_unfit",
]


def one_of_each_party(tables: Sequence[Any]) -> dict[str, Any]:
    """Return SecretFlow's descriptions of individual tables by their party.

    Args:
        tables: DistData of individual tables.

    Raises:
        DataError: Two are of one party, or there are fewer than two.
    """
    found: dict[str, Any] = {}
    for table in tables:
        for party, part in VTable.from_distdata(table).parties.items():
            if party in found:
                raise DataError(
                    f"Expected `input_ds` to have one table of each party, got two of {party}: "
                    "join them first."
                )
            found[party] = part
    if len(found) < 2:
        raise DataError(
            f"Expected `input_ds` to have tables of at least 2 parties, got {len(found)}."
        )
    return found


def chosen_samples(
    parts: Mapping[str, Any], features: Sequence[str], image_column: Sequence[str], images: Any
) -> Samples:
    """Return what is read of each party's table.

    Args:
        parts: By party.
        features: Columns of numbers; none takes all features of the tables.
        image_column: The column of paths, or none.
        images: How images are read.

    Raises:
        ParameterError: Both are given.
        DataError: Parties have other columns, or one does not hold what is needed.
    """
    if not image_column:
        return Samples(columns=_number_columns(parts, features or []))
    if features:
        raise ParameterError(
            f"Expected `features` or `image_column`, got both ({len(features)} columns and "
            f"{image_column[0]!r}); leave one out."
        )
    samples = Samples(image_column=image_column[0], mode=images.mode, image_size=images.image_size)
    for party, part in parts.items():
        refuse_unfit(party, part, samples)
    return samples


def refuse_unfit(party: str, part: Any, samples: Samples) -> None:
    """Refuse a table that lacks a column, or has another kind of values in it.

    Raises:
        DataError: Naming the column and the party.
    """
    columns = [samples.image_column] if samples.image_column else samples.columns
    for name in columns:
        if name not in part.schema:
            raise DataError(
                f"Expected the table of {party} to have column `{name}`, got none: "
                f"{did_you_mean(name, part.columns)}."
            )
    kinds = {name: part.schema[name].type for name in columns}
    if samples.image_column:
        if not kinds[samples.image_column].is_string():
            raise DataError(
                f"Expected `{samples.image_column}` of {party} to hold paths of images, got "
                f"{kinds[samples.image_column]}."
            )
        return
    texts = [name for name, kind in kinds.items() if kind.is_string()]
    if texts:
        raise DataError(
            f"Expected columns of numbers, got text in `{'`, `'.join(texts)}` of {party}: make it "
            "numbers first, for example by SecretFlow's `onehot_encode`, or choose others by "
            "`features`."
        )


def readers_of(
    parts: Mapping[str, Any], samples: Samples, standardise: bool, storage: Any, root: str
) -> dict[str, NumberColumns | ImageColumn]:
    """Return what reads each party's samples, by party.

    Args:
        parts: By party.
        samples: What is read.
        standardise: Whether columns of numbers are scaled.
        storage: The platform's.
        root: Its folder, if it is one on disk.
    """
    found: dict[str, NumberColumns | ImageColumn] = {}
    for party, part in parts.items():
        if samples.image_column:
            only = only_columns(part, [samples.image_column])
            found[party] = ImageColumn(storage, only, samples, root)
        else:
            only = only_columns(part, samples.columns)
            found[party] = NumberColumns(storage, only, samples.columns, standardise)
    return found


def _number_columns(parts: Mapping[str, Any], chosen: Sequence[str]) -> list[str]:
    """Return the columns of numbers to train on, the same at all parties."""
    columns = list(chosen) or _all_features(parts)
    if len(set(columns)) < len(columns):
        raise DataError(f"Expected `features` to be different columns, got {columns}.")
    for party, part in parts.items():
        refuse_unfit(party, part, Samples(columns=columns))
    return columns


def _all_features(parts: Mapping[str, Any]) -> list[str]:
    """Return the features of the first party, if the others have the same, in any order."""
    of = {
        party: [n for n, kind in part.kinds.items() if kind == VTableFieldKind.FEATURE]
        for party, part in parts.items()
    }
    first, *others = of
    if not of[first]:
        raise DataError(f"Expected the table of {first} to have features, got none.")
    for party in others:
        differ = set(of[party]) ^ set(of[first])
        if differ:
            name = sorted(differ)[0]
            has, lacks = (party, first) if name in of[party] else (first, party)
            raise DataError(
                f"Expected all tables to have the same features, got `{name}` at {has} and not at "
                f"{lacks}: choose those that all have by `features`."
            )
    return of[first]


def only_columns(part: Any, columns: Sequence[str]) -> Any:
    """Return a description of some columns of a party's table."""
    return type(part)(
        party=part.party,
        uri=part.uri,
        format=part.format,
        null_strs=part.null_strs,
        schema=part.schema.select(list(columns)),
    )
