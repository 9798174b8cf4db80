"""The Iceberg side: tables and their generations, publishing files, and asking which files a snapshot holds."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from dbops.archive import codec
from dbops.archive.export import ARCHIVE_COLUMNS, CHUNK_COLUMN, PLAN_COLUMN
from dbops.archive.ledger import File

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog
    from pyiceberg.table import Table as IcebergTable

# Files of one commit; a commit reads the footer of each, so this bounds its memory and the time that a crash can cost.
FILES_PER_COMMIT = 200

Change = Literal["same", "add", "widen", "incompatible"]
_WIDER = {("int32", "int64"), ("float32", "float64")}


_NO_RETRIES = {
    # PyIceberg would repeat a commit that came too late on the head that overtook it. Whoever lost the commit lock must fail instead.
    "commit.retry.num-retries": "0",
}
_PROPERTIES = {
    "format-version": "2",
    **_NO_RETRIES,
    # The default keeps 16 characters of a bound, which are the same for many plans: every verification would read old files.
    f"write.metadata.metrics.column.{PLAN_COLUMN}": "full",
}


class LakeError(RuntimeError):
    """The lake is not in the state that a step needs; nothing was changed."""


@dataclass(frozen=True)
class HeldFile:
    """A data file of the current snapshot that may hold rows of a plan, with its size and its delete files (URI, size)."""

    uri: str
    file_bytes: int
    alone: bool
    """Whether it certainly holds rows of no other plan."""
    deletes: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True)
class Target:
    """Which generation of the Iceberg table a plan writes to, and what must happen to it first."""

    namespace: str
    table: str
    generation: int
    exists: bool
    adds: tuple[str, ...] = ()
    widens: tuple[str, ...] = ()
    reason: str = ""


def compare(old: str, new: str) -> Change:
    """What a column of archived type `old` must undergo to hold values of type `new` (short names of :mod:`codec`).

    int -> long, float -> double and a decimal of the same scale and more digits widen; everything else is incompatible. PyIceberg
    0.12 would also accept another decimal scale, which changes the values' text.
    """
    if old == new:
        return "same"
    if (old, new) in _WIDER:
        return "widen"
    if old.startswith("decimal(") and new.startswith("decimal("):
        (p0, s0), (p1, s1) = (tuple(map(int, t[8:-1].split(","))) for t in (old, new))
        return "widen" if s0 == s1 and p1 > p0 else "incompatible"
    return "incompatible"


def short_type(kind: Any) -> str:
    """The short name of an Iceberg type, as used by the codecs."""
    from pyiceberg import types

    if isinstance(kind, types.DecimalType):
        return f"decimal({kind.precision},{kind.scale})"
    names = {
        types.IntegerType: "int32",
        types.LongType: "int64",
        types.FloatType: "float32",
        types.DoubleType: "float64",
        types.DateType: "date32",
        types.TimestampType: "timestamp",
        types.TimestamptzType: "timestamptz",
        types.StringType: "string",
        types.BinaryType: "binary",
    }
    return names.get(type(kind), str(kind))


def choose_target(
    catalog: Catalog, namespace: str, table: str, codecs: Sequence[codec.Codec], partition: tuple[str, str] | None
) -> Target:
    """The newest generation if it can take these columns, else the next generation. Reads only."""
    generation = 1
    while catalog.table_exists((namespace, _generation(table, generation + 1))):
        generation += 1
    name = _generation(table, generation)
    if not catalog.table_exists((namespace, name)):
        return Target(namespace, name, generation, exists=False)
    existing = catalog.load_table((namespace, name))
    fields = {f.name: short_type(f.field_type) for f in existing.schema().fields}
    by_lower = {n.lower(): n for n in fields}
    adds, widens, reasons = [], [], []
    if _spec_text(existing) != (partition and f"{partition[0]}({partition[1].lower()})"):
        reasons.append(f"it is partitioned by {_spec_text(existing) or 'nothing'}")
    for c in codecs:
        old_name = by_lower.get(c.name.lower())
        if old_name is None:
            adds.append(c.name)
        elif old_name != c.name:
            reasons.append(f"column {old_name} is now written {c.name}")
        elif (change := compare(fields[c.name], c.arrow)) == "widen":
            widens.append(c.name)
        elif change == "incompatible":
            reasons.append(f"column {c.name} was {fields[c.name]} and is {c.arrow}")
    if reasons:
        new = _generation(table, generation + 1)
        return Target(
            namespace, new, generation + 1, exists=False, reason=f"{name} cannot take the rows: {'; '.join(reasons)}"
        )
    return Target(namespace, name, generation, exists=True, adds=tuple(adds), widens=tuple(widens))


def ensure_table(
    catalog: Catalog, target: Target, codecs: Sequence[codec.Codec], partition: tuple[str, str] | None
) -> IcebergTable:
    """Create or evolve the target; safe to repeat."""
    from pyiceberg.exceptions import NamespaceAlreadyExistsError, TableAlreadyExistsError

    with suppress(NamespaceAlreadyExistsError):
        catalog.create_namespace(target.namespace)
    identifier = (target.namespace, target.table)
    if not catalog.table_exists(identifier):
        with suppress(TableAlreadyExistsError):  # another run was faster
            return catalog.create_table(identifier, **_definition(codecs, partition))
    table = catalog.load_table(identifier)
    present = {f.name: short_type(f.field_type) for f in table.schema().fields}
    with table.update_schema() as update:
        for c in codecs:
            if c.name not in present:
                update.add_column((c.name,), c.iceberg_type)  # a tuple: text is split at dots
            elif compare(present[c.name], c.arrow) == "widen":
                update.update_column((c.name,), c.iceberg_type)
    forbid_retries(table)
    return table.refresh()


def forbid_retries(table: IcebergTable) -> None:
    """Let every commit to the table fail that was prepared on a snapshot which is no longer the current one; safe to repeat.

    `table` may be at a newer snapshot afterwards.
    """
    if any(table.properties.get(name) != value for name, value in _NO_RETRIES.items()):
        with table.transaction() as change:
            change.set_properties(_NO_RETRIES)


def data_uri(table: IcebergTable) -> str:
    """Where data files of the table belong."""
    return f"{table.location().rstrip('/')}/data"


def publish(table: IcebergTable, files: Sequence[File], properties: dict[str, str]) -> Iterator[tuple[list[File], int]]:
    """Make the files part of the table, at most FILES_PER_COMMIT in one commit; yields (files, snapshot id) after each commit.

    A file that the current snapshot holds already is not added again: that is how a publish resumes whose answer was lost.
    Callers hold the table's commit lock, because not every catalog rejects a concurrent commit. A caller that lost it without knowing
    gets CommitFailedException as soon as somebody else has committed since `table` was loaded, or since the last yield; that holds for
    a table that went through :func:`forbid_retries` before.
    """
    present = referenced(table)
    done = [f for f in files if f.uri in present]
    if done:
        yield done, _snapshot_id(table)
    missing = [f for f in files if f.uri not in present]
    for start in range(0, len(missing), FILES_PER_COMMIT):
        group = missing[start : start + FILES_PER_COMMIT]
        chunks = sorted({f.chunk_no for f in group})
        table.add_files(
            [f.uri for f in group],
            snapshot_properties={**properties, "dbops.chunks": json.dumps([chunks[0], chunks[-1]])},
        )
        table.refresh()
        yield group, _snapshot_id(table)


def referenced(table: IcebergTable, plan_id: str | None = None) -> set[str]:
    """URIs of the data files in the table's current snapshot (of one plan, by the files' column bounds)."""
    from pyiceberg.expressions import AlwaysTrue, EqualTo

    if table.current_snapshot() is None:
        return set()
    row_filter = EqualTo(term=PLAN_COLUMN, value=plan_id) if plan_id else AlwaysTrue()
    return {task.file.file_path for task in table.scan(row_filter=row_filter).plan_files()}


def held(table: IcebergTable, plan_id: str) -> list[HeldFile]:
    """The data files of the current snapshot that may hold rows of a plan, by the files' column bounds."""
    from pyiceberg.expressions import EqualTo

    if table.current_snapshot() is None:
        return []
    tasks = table.scan(row_filter=EqualTo(term=PLAN_COLUMN, value=plan_id)).plan_files()
    return [
        HeldFile(
            uri=task.file.file_path,
            file_bytes=task.file.file_size_in_bytes,
            alone=_plan_bounds(table, task.file) == (plan_id, plan_id),
            deletes=tuple((d.file_path, d.file_size_in_bytes) for d in task.delete_files),
        )
        for task in tasks
    ]


def plan_ids(table: IcebergTable) -> set[str]:
    """Plans of which the current snapshot has rows, as far as the files' column bounds tell; no data is read.

    A file that somebody rewrote may hold more plans than its two bounds, and a bound may be cut short: callers look for whole names.
    """
    if table.current_snapshot() is None:
        return set()
    bounds = (_plan_bounds(table, task.file) for task in table.scan().plan_files())
    return {bound for pair in bounds for bound in pair if bound is not None}


def _plan_bounds(table: IcebergTable, file: Any) -> tuple[str | None, str | None]:
    number = table.schema().find_field(PLAN_COLUMN).field_id
    low, high = (bounds.get(number) if bounds else None for bounds in (file.lower_bounds, file.upper_bounds))
    return (low and low.decode("utf-8", "replace")), (high and high.decode("utf-8", "replace"))


def fence(table: IcebergTable, properties: dict[str, str]) -> None:
    """Commit a snapshot that changes nothing: a commit that somebody prepared on the one before it fails from here on."""
    forbid_retries(table)
    with table.transaction() as change, change.update_snapshot(snapshot_properties=properties).fast_append():
        pass
    table.refresh()


def load(catalog: Catalog, identifier: Sequence[str]) -> IcebergTable | None:
    """The table of that (namespace, name), or None when the catalog has none."""
    from pyiceberg.exceptions import NoSuchTableError

    try:
        return catalog.load_table(tuple(identifier))
    except NoSuchTableError:
        return None


def drop_files(table: IcebergTable, uris: set[str], properties: dict[str, str]) -> int:
    """Take these data files out of the table without reading them, so that a lost or damaged object can be given up; returns how many.

    Files that the current snapshot does not hold are left out, so it is harmless to repeat. Callers hold the table's commit lock.
    """
    if table.current_snapshot() is None:
        return 0
    dropped = [task.file for task in table.scan().plan_files() if task.file.file_path in uris]
    if dropped:
        with (
            table.transaction() as change,
            change.update_snapshot(snapshot_properties=properties).overwrite() as update,
        ):
            for file in dropped:
                update.delete_data_file(file)
    return len(dropped)


def snapshot_id(table: IcebergTable) -> int:
    """Id of the current snapshot. Raises LakeError for a table without one."""
    return _snapshot_id(table)


def generations(catalog: Catalog, namespace: str, table: str) -> list[tuple[str, dict[str, str]]]:
    """(table name, {column: short type}) of every generation that exists, oldest first."""
    found: list[tuple[str, dict[str, str]]] = []
    while catalog.table_exists((namespace, name := _generation(table, len(found) + 1))):
        fields = catalog.load_table((namespace, name)).schema().fields
        found.append((name, {f.name: short_type(f.field_type) for f in fields}))
    return found


def all_generations_view(
    trino_catalog: str, namespace: str, table: str, found: Sequence[tuple[str, dict[str, str]]]
) -> str:
    """Trino SQL of the view ``<table>_all`` over all generations.

    A column that a generation lacks is NULL there; one whose type differs between generations is text in the view. Names are compared
    without case, as Trino does; the newest spelling counts.
    """
    from dbops import sql

    parts = [(name, {column.lower(): (column, kind) for column, kind in own.items()}) for name, own in found]
    columns = {lower: column for _, own in parts for lower, (column, _) in own.items()}
    kinds = {lower: {own[lower][1] for _, own in parts if lower in own} for lower in columns}

    def expression(lower: str, own: dict[str, tuple[str, str]]) -> str:
        name = sql.ident_trino(columns[lower])
        if lower not in own:
            return f"NULL AS {name}"
        value, kind = sql.ident_trino(own[lower][0]), own[lower][1]
        if len(kinds[lower]) > 1:
            value = f"to_hex({value})" if kind == "binary" else f"CAST({value} AS varchar)"
        return value if value == name else f"{value} AS {name}"

    return sql.render(
        "archive/all_generations_view",
        view=(trino_catalog, namespace, f"{table}_all"),
        selects=[
            ((trino_catalog, namespace, name), [expression(lower, own) for lower in columns]) for name, own in parts
        ],
    )


def plan_filter(plan_id: str) -> str:
    """Trino condition for the rows of a plan."""
    from dbops.sql import lit_trino

    return f'"{PLAN_COLUMN}" = {lit_trino(plan_id)}'


def chunk_filter(plan_id: str, chunk_nos: Sequence[int]) -> str:
    """Trino condition for the rows of those chunks."""
    return f'{plan_filter(plan_id)} AND "{CHUNK_COLUMN}" IN ({", ".join(map(str, chunk_nos))})'


def _generation(table: str, number: int) -> str:
    return table if number == 1 else f"{table}_g{number}"


def _snapshot_id(table: IcebergTable) -> int:
    current = table.current_snapshot()
    if current is None:
        raise LakeError(f"Iceberg table {'.'.join(table.name())} has no snapshot")
    return current.snapshot_id


def _spec_text(table: IcebergTable) -> str | None:
    fields = table.spec().fields
    if not fields:
        return None
    return f"{fields[0].transform}({table.schema().find_column_name(fields[0].source_id)})".lower()


def _definition(codecs: Sequence[codec.Codec], partition: tuple[str, str] | None) -> dict[str, Any]:
    from pyiceberg.partitioning import UNPARTITIONED_PARTITION_SPEC, PartitionField, PartitionSpec
    from pyiceberg.schema import Schema
    from pyiceberg.transforms import parse_transform
    from pyiceberg.types import NestedField

    kinds = [(c.name, c.iceberg_type) for c in codecs]
    kinds += [(name, codec.iceberg_type(kind)) for name, kind in ARCHIVE_COLUMNS.items()]
    schema = Schema(*(NestedField(i, name, kind, required=False) for i, (name, kind) in enumerate(kinds, start=1)))
    spec = UNPARTITIONED_PARTITION_SPEC
    if partition:
        transform, column = partition
        source = next(f for f in schema.fields if f.name.lower() == column.lower())
        spec = PartitionSpec(
            PartitionField(source.field_id, 1000, parse_transform(transform), f"{source.name}_{transform}")
        )
    return {"schema": schema, "partition_spec": spec, "properties": {**_PROPERTIES}}
