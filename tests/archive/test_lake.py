"""The Iceberg side on a catalog in SQLite and on (simulated) Glue: create, publish once, evolve, begin a generation, show all."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyiceberg.catalog import Catalog
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.exceptions import CommitFailedException

from dbops import connections
from dbops.archive import codec, export, lake
from dbops.archive.lake import LakeError
from dbops.archive.ledger import File
from dbops.mysql import Column

FACTS: dict[str, tuple[str, dict[str, Any]]] = {
    "int": ("int(11)", {}), "bigint": ("bigint(20)", {}), "date": ("date", {}), "float": ("float", {}), "double": ("double", {}),
    "varchar": ("varchar(9)", {"max_octets": 36}), "blob": ("blob", {}), "timestamp": ("timestamp", {}),
}  # fmt: skip


def codecs(**kinds: str) -> list[codec.Codec]:
    """Codecs of columns by name; `decimal 10 2` is DECIMAL(10,2)."""
    made = []
    for name, kind in kinds.items():
        if kind.startswith("decimal"):
            _, precision, scale = kind.split()
            column = Column(
                name, "decimal", "decimal", nullable=True, numeric_precision=int(precision), numeric_scale=int(scale)
            )
        else:
            column_type, more = FACTS[kind]
            column = Column(name, kind, column_type, nullable=True, **more)
        made.append(codec.codec_for(column))
    return made


@pytest.fixture(params=["sqlite", "glue"])
def catalog(request: pytest.FixtureRequest, tmp_path: Path) -> Catalog:
    if request.param == "sqlite":
        return SqlCatalog("lake", uri=f"sqlite:///{tmp_path}/catalog.db", warehouse=f"file://{tmp_path}/warehouse")
    request.getfixturevalue("aws")
    patch: pytest.MonkeyPatch = request.getfixturevalue("monkeypatch")
    extra = {"catalog": "lake", "warehouse": "s3://dbops-lake/warehouse"}
    patch.setenv("AIRFLOW_CONN_ICEBERG_DEFAULT", json.dumps({"conn_type": "generic", "extra": extra}))
    connections.aws_client("s3").create_bucket(
        Bucket="dbops-lake", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"}
    )
    return connections.iceberg_catalog()


Write = Callable[..., File]


@pytest.fixture
def write(catalog: Catalog) -> Write:
    """Write a Parquet file as the export does, and describe it as the ledger does."""

    def write(
        table: Any, columns: list[codec.Codec], rows: list[dict[str, Any]], *, number: int = 0, plan: str = "p1"
    ) -> File:
        own = {"_archive_plan": plan, "_archive_chunk": number, "_archive_batch": 0, "_archive_at": None}
        data = pa.Table.from_pylist([{**row, **own} for row in rows], schema=export.lake_schema(columns))
        uri = f"{export.plan_prefix(lake.data_uri(table), plan)}chunk={number:06d}-000.parquet"
        with table.io.new_output(uri).create(overwrite=True) as stream:
            pq.write_table(data, stream)
        return File(number, 0, uri, "", 0, len(rows))

    return write


def make(catalog: Catalog, columns: list[codec.Codec], partition: tuple[str, str] | None = None) -> Any:
    target = lake.choose_target(catalog, "shop", "t", columns, partition)
    return lake.ensure_table(catalog, target, columns, partition)


def published(table: Any, files: list[File]) -> list[tuple[list[int], int]]:
    return [
        ([f.chunk_no for f in group], snapshot) for group, snapshot in lake.publish(table, files, {"dbops.plan": "p1"})
    ]


@pytest.mark.parametrize(
    ("old", "new", "change"),
    [
        ("int32", "int32", "same"), ("int32", "int64", "widen"), ("int64", "int32", "incompatible"), ("float32", "float64", "widen"),
        ("float64", "float32", "incompatible"), ("decimal(10,2)", "decimal(12,2)", "widen"), ("decimal(10,2)", "decimal(10,2)", "same"),
        ("decimal(12,2)", "decimal(10,2)", "incompatible"), ("decimal(10,2)", "decimal(12,4)", "incompatible"),
        ("decimal(9,2)", "decimal(10,3)", "incompatible"), ("int32", "decimal(20,0)", "incompatible"), ("int64", "decimal(20,0)",
        "incompatible"),
        ("string", "int32", "incompatible"), ("int32", "string", "incompatible"), ("string", "binary", "incompatible"),
        ("date32", "timestamp", "incompatible"), ("timestamp", "timestamptz", "incompatible"), ("int32", "float64", "incompatible"),
    ],
)  # fmt: skip
def test_what_a_changed_type_means(old: str, new: str, change: str) -> None:
    assert lake.compare(old, new) == change


@pytest.mark.parametrize(
    "name", ["int32", "int64", "decimal(20,0)", "decimal(38,30)", "float32", "float64", "date32", "timestamp", "timestamptz", "string",
    "binary"]
)  # fmt: skip
def test_the_short_name_of_a_type_comes_back(name: str) -> None:
    assert lake.short_type(codec.iceberg_type(name)) == name


def test_a_new_table_has_the_columns_the_partition_and_the_format(catalog: Catalog) -> None:
    columns = codecs(id="int", Day="date", v="varchar")
    target = lake.choose_target(catalog, "shop", "t", columns, ("month", "day"))
    assert (target.table, target.generation, target.exists, target.reason) == ("t", 1, False, "")
    assert not catalog.table_exists(("shop", "t")), "choosing only reads"
    table = lake.ensure_table(catalog, target, columns, ("month", "day"))
    assert [(f.name, lake.short_type(f.field_type), f.required) for f in table.schema().fields] == [
        ("id", "int32", False), ("Day", "date32", False), ("v", "string", False), ("_archive_plan", "string", False),
        ("_archive_chunk", "int32", False), ("_archive_batch", "int32", False), ("_archive_at", "timestamptz", False),
    ]  # fmt: skip
    assert [(str(f.transform), f.name) for f in table.spec().fields] == [("month", "Day_month")]
    assert table.metadata.format_version == 2
    again = lake.choose_target(catalog, "shop", "t", columns, ("month", "DAY"))
    assert (again.exists, again.adds, again.widens) == (True, (), ())
    assert lake.ensure_table(catalog, again, columns, ("month", "DAY")).metadata.table_uuid == table.metadata.table_uuid


def test_a_publish_that_is_repeated_adds_nothing(
    catalog: Catalog, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lake, "FILES_PER_COMMIT", 2)
    columns = codecs(id="int", v="varchar")
    table = make(catalog, columns)
    with pytest.raises(LakeError, match="has no snapshot"):
        lake.snapshot_id(table)
    assert lake.referenced(table) == set()
    files = [write(table, columns, [{"id": n, "v": f"é{n}"}], number=n) for n in range(5)]
    # The answer to the second commit is lost: the caller sees one group and dies.
    stream = lake.publish(table, files, {"dbops.plan": "p1"})
    group, _ = next(stream)
    assert [f.chunk_no for f in group] == [0, 1]
    with pytest.raises(ZeroDivisionError):
        stream.throw(ZeroDivisionError())
    table.add_files([f.uri for f in files[2:4]])

    again = published(catalog.load_table(("shop", "t")), files)

    assert [chunks for chunks, _ in again] == [[0, 1, 2, 3], [4]]
    final = catalog.load_table(("shop", "t"))
    assert again[-1][1] == lake.snapshot_id(final)
    assert sorted(final.scan().to_arrow()["id"].to_pylist()) == [0, 1, 2, 3, 4]
    assert len(final.snapshots()) == 3
    assert final.current_snapshot().summary["dbops.plan"] == "p1"
    assert final.current_snapshot().summary["dbops.chunks"] == "[4, 4]"
    assert published(final, files) == [([0, 1, 2, 3, 4], lake.snapshot_id(final))]
    assert published(final, []) == []


def test_files_of_one_plan_are_told_from_those_of_another(catalog: Catalog, write: Write) -> None:
    columns = codecs(id="int", v="varchar")
    table = make(catalog, columns)
    plans = ["orders_very_long_name-20260101-aaaaaaaa", "orders_very_long_name-20260101-bbbbbbbb"]
    files = [write(table, columns, [{"id": n, "v": "x"}], number=n, plan=plan) for n, plan in enumerate(plans)]
    published(table, files)
    table = catalog.load_table(("shop", "t"))
    assert [lake.referenced(table, plan) for plan in plans] == [{f.uri} for f in files]
    assert lake.referenced(table) == {f.uri for f in files}
    assert lake.referenced(table, "orders_very_long_name-20260101-ab") == set()


def test_columns_are_added_and_widened_in_place(catalog: Catalog, write: Write) -> None:
    columns = codecs(id="int", n="int", f="float", m="decimal 10 2", gone="int")
    table = make(catalog, columns)
    published(table, [write(table, columns, [{"id": 1, "n": 2**31 - 1, "f": 0.5, "m": None, "gone": 7}])])
    wider = codecs(id="int", n="bigint", f="double", m="decimal 12 2", **{"new.col": "varchar", "added": "date"})
    target = lake.choose_target(catalog, "shop", "t", wider, None)
    assert (target.table, target.adds, target.widens) == ("t", ("new.col", "added"), ("n", "f", "m"))
    table = lake.ensure_table(catalog, target, wider, None)
    published(table, [write(table, wider, [{"id": 2, "n": 2**40, "f": 0.1, "new.col": "x"}], number=1)])
    rows = {r["id"]: r for r in catalog.load_table(("shop", "t")).scan().to_arrow().to_pylist()}
    assert (rows[1]["n"], rows[1]["f"], rows[1]["gone"], rows[1]["new.col"]) == (2**31 - 1, 0.5, 7, None)
    assert (rows[2]["n"], rows[2]["f"], rows[2]["gone"], rows[2]["new.col"]) == (2**40, 0.1, None, "x")
    after = lake.choose_target(catalog, "shop", "t", wider, None)
    assert (after.adds, after.widens) == ((), ())


@pytest.mark.parametrize(
    ("kinds", "partition", "reason"),
    [
        ({"id": "int", "v": "int"}, None, "column v was string and is int32"),
        ({"id": "int", "V": "varchar"}, None, "column v is now written V"),
        ({"id": "int", "v": "varchar", "day": "date"}, ("month", "day"), "it is partitioned by nothing"),
    ],
)  # fmt: skip
def test_what_cannot_be_taken_begins_a_generation(
    catalog: Catalog, kinds: dict[str, str], partition: Any, reason: str
) -> None:
    make(catalog, codecs(id="int", v="varchar"))
    columns = codecs(**kinds)
    target = lake.choose_target(catalog, "shop", "t", columns, partition)
    assert (target.table, target.generation, target.exists) == ("t_g2", 2, False)
    assert target.reason == f"t cannot take the rows: {reason}"
    lake.ensure_table(catalog, target, columns, partition)
    assert lake.choose_target(catalog, "shop", "t", columns, partition).table == "t_g2"
    third = lake.choose_target(catalog, "shop", "t", codecs(id="varchar"), None)
    assert (third.table, third.generation) == ("t_g3", 3)
    assert [name for name, _ in lake.generations(catalog, "shop", "t")] == ["t", "t_g2"]


def test_generations_of_a_table_that_is_not_there(catalog: Catalog) -> None:
    assert lake.generations(catalog, "shop", "t") == []


def test_the_view_joins_generations_by_name_and_makes_types_equal() -> None:
    found = [
        ("t", {"id": "int32", "code": "string", "raw": "binary", "n": "int64", "old": "int32"}),
        ("t_g2", {"id": "int32", "code": "int32", "raw": "string", "N": "int64", 'ne"w': "date32"}),
    ]
    assert lake.all_generations_view("lake", "shop", "t", found) == (
        "-- One view over all generations of an archived table.\n"
        'CREATE OR REPLACE VIEW "lake"."shop"."t_all" AS\n'
        'SELECT "id", CAST("code" AS varchar) AS "code", to_hex("raw") AS "raw", "n" AS "N", "old", NULL AS "ne""w"\n'
        'FROM "lake"."shop"."t"\n'
        "UNION ALL\n"
        'SELECT "id", CAST("code" AS varchar) AS "code", CAST("raw" AS varchar) AS "raw", "N", NULL AS "old", "ne""w"\n'
        'FROM "lake"."shop"."t_g2"'
    )


def test_a_late_commit_fails_after_a_fence(catalog: Catalog, write: Write) -> None:
    columns = codecs(id="int")
    table = make(catalog, columns)
    assert table.properties["commit.retry.num-retries"] == "0"
    late = catalog.load_table(("shop", "t"))
    lake.fence(table, {"dbops.plan": "p1"})
    head = table.current_snapshot()
    assert head is not None
    with pytest.raises(CommitFailedException):
        published(late, [write(late, columns, [{"id": 1}])])
    assert lake.snapshot_id(catalog.load_table(("shop", "t"))) == head.snapshot_id
    published(table, [write(table, columns, [{"id": 1}])])
    assert lake.snapshot_id(table) != head.snapshot_id


def test_a_table_that_was_made_without_the_property_gets_it(catalog: Catalog) -> None:
    columns = codecs(id="int")
    table = make(catalog, columns)
    with table.transaction() as change:
        change.remove_properties("commit.retry.num-retries")
    target = lake.choose_target(catalog, "shop", "t", columns, None)
    assert lake.ensure_table(catalog, target, columns, None).properties["commit.retry.num-retries"] == "0"


def test_plans_and_their_files_are_known_by_the_bounds_of_the_files(catalog: Catalog, write: Write) -> None:
    columns = codecs(id="int")
    table = make(catalog, columns)
    assert (lake.plan_ids(table), lake.held(table, "p1")) == (set(), [])
    plans = ["positions-20260101-00000001", "positions-20260101-00000002"]
    for number, plan in enumerate(plans):
        published(table, [write(table, columns, [{"id": number}], number=number, plan=plan)])
    assert lake.plan_ids(table) == set(plans)
    (file,) = lake.held(table, plans[1])
    assert (file.alone, file.deletes) == (True, ())
    assert plans[1] in file.uri
    assert file.file_bytes > 0
    # Somebody rewrote both into one file.
    merged = table.scan().to_arrow()
    table.overwrite(merged)
    assert lake.plan_ids(table) == set(plans)
    assert [f.alone for f in lake.held(table, plans[0])] == [False]


def test_a_table_that_is_not_there_is_none_and_a_catalog_that_fails_is_not(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert lake.load(catalog, ("shop", "t")) is None
    make(catalog, codecs(id="int"))
    assert lake.load(catalog, ("shop", "t")) is not None

    def fails(identifier: Any) -> Any:
        raise OSError("the catalog is away")

    monkeypatch.setattr(catalog, "load_table", fails)
    with pytest.raises(OSError, match="away"):
        lake.load(catalog, ("shop", "t"))


def test_filters_quote_what_they_are_given() -> None:
    assert lake.plan_filter("p'1") == "\"_archive_plan\" = 'p''1'"
    assert lake.chunk_filter("p", [1, 2]) == '"_archive_plan" = \'p\' AND "_archive_chunk" IN (1, 2)'
