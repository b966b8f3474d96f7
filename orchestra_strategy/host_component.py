"""SecretFlow's components, seen from here: the names that a plug-in is made of.

Components with a variable number of tables exist since SecretFlow 1.12; whoever imports this file
has asked :func:`~orchestra_strategy.component.plugin` first.
"""

import importlib
from collections.abc import Sequence
from typing import Any

__all__ = [
    "Component",
    "DistData",
    "DistDataType",
    "Field",
    "Input",
    "Interval",
    "ObjectFile",
    "Output",
    "Reporter",
    "StorageType",
    "UnionGroup",
    "VTable",
    "VTableField",
    "VTableFieldKind",
    "VTableParty",
    "VTableSchema",
    "Version",
    "read_arrow",
    "register",
    "write_arrow",
]

_core: Any = importlib.import_module("secretflow.component.core")

Component: Any = _core.Component
DistData: Any = importlib.import_module("secretflow_spec.v1.data_pb2").DistData
DistDataType: Any = _core.DistDataType
Field: Any = _core.Field
Input: Any = _core.Input
Interval: Any = _core.Interval
ObjectFile: Any = _core.ObjectFile
Output: Any = _core.Output
Reporter: Any = _core.Reporter
StorageType: Any = _core.StorageType
UnionGroup: Any = _core.UnionGroup
VTable: Any = _core.VTable
VTableField: Any = _core.VTableField
VTableFieldKind: Any = _core.VTableFieldKind
VTableParty: Any = _core.VTableParty
VTableSchema: Any = _core.VTableSchema
Version: Any = _core.Version
register: Any = _core.register


def arrow_schema(schema: Any) -> Any:
    """Return a pyarrow Schema of a VTableSchema."""
    return _core.VTableUtils.to_arrow_schema(schema)


def read_arrow(storage: Any, part: Any) -> Any:
    """Return one party's part of a table, a pyarrow Table; called at that party.

    Args:
        storage: The platform's, as this party sees it.
        part: A VTableParty: where it is, its format and its columns.
    """
    schema = arrow_schema(part.schema)
    with storage.get_reader(part.uri) as stream:
        if part.format == "orc":
            return _core.read_orc(stream, schema)
        return _core.read_csv(stream, schema, _core.CSVReadOptions(null_values=part.null_strs))


def write_arrow(storage: Any, part: Any, columns: Sequence[Any]) -> None:
    """Write one party's part of a table; called at that party.

    Args:
        storage: The platform's, as this party sees it.
        part: A VTableParty: where it goes, its format and its columns.
        columns: An array for each of them, pyarrow's or numpy's.
    """
    arrow = importlib.import_module("pyarrow")
    table = arrow.table(list(columns), schema=arrow_schema(part.schema))
    with storage.get_writer(part.uri) as stream:
        if part.format == "orc":
            _core.write_orc(table, stream)
        else:
            _core.write_csv(table, stream)
