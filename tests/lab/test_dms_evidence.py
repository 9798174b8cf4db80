"""Health, canary and comparison of rows on MySQL 5.7 and 8.0, and behind tasks of the simulated DMS."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dbops import asking
from dbops.dms import canary, health, reconcile, states
from dbops.dms.mappings import Table
from dbops.dms.reconcile import Comparison, Patience
from dbops.dms.spec import DmsSpec
from tests.dms import dms_kit as specs
from tests.lab import dms_kit
from tests.lab.dms_kit import Dms

pytestmark = pytest.mark.lab
SESSION = "SET time_zone = '+00:00', sql_mode = '', sql_log_bin = 0"
AT_ONCE = Patience(settle_s=0)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dms]:
    with dms_kit.account(tmp_path_factory.mktemp("dms")) as made:
        yield made


@contextmanager
def both(lab: Dms) -> Iterator[tuple[Any, Any]]:
    with (
        closing(lab.source.connect(init_command=SESSION)) as source,
        closing(lab.sink.connect(init_command=SESSION)) as target,
    ):
        yield source, target


def run(connection: Any, *statements: str) -> None:
    with connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


def select(schema: str, **more: Any) -> dict[str, Any]:
    where = {"schema-name": schema, "table-name": "%"}
    return {**specs.SELECT_ALL, "object-locator": where, **more}


def spec(schema: str, *rules: dict[str, Any], **more: Any) -> DmsSpec:
    return specs.spec(mappings=[more.pop("selection", None) or select(schema), *rules], **more)


def compare(lab: Dms, of: DmsSpec, *tables: Table, patience: Patience = AT_ONCE, rows: int = 7) -> list[Comparison]:
    with both(lab) as (source, target):
        return list(reconcile.compare(of, tables, source=source, target=target, patience=patience, chunk_rows=rows))


def one(lab: Dms, of: DmsSpec, table: Table, **more: Any) -> Comparison:
    return compare(lab, of, table, **more)[0]


@pytest.fixture
def schema(lab: Dms) -> Iterator[str]:
    """A schema of one name on both sides."""
    name = f"e_{time.time_ns():x}"
    with both(lab) as sides:
        for side in sides:
            run(side, f"CREATE DATABASE {name} CHARACTER SET utf8mb4")
        yield name
        for side in sides:
            run(side, f"DROP DATABASE {name}")


TYPES = """CREATE TABLE {s}.types (
    id BIGINT UNSIGNED NOT NULL PRIMARY KEY, i INT(8) ZEROFILL, small TINYINT, flag BIT(3), y YEAR, d DECIMAL(65,30),
    money DECIMAL(10,2), f FLOAT, g DOUBLE, day DATE, at DATETIME(6), stamp TIMESTAMP(3) NULL, span TIME(6), c CHAR(9),
    v VARCHAR(99) CHARACTER SET {charset}, e ENUM('one', 'two'), s SET('a', 'b'), t LONGTEXT, b VARBINARY(9), raw LONGBLOB,
    j JSON, place POINT)"""
ROW = """({id}, 42, -128, b'101', 0, 0.000000000000000000000000000001, -1.50, 16777216, -0.0, '1000-01-01', '9999-12-31 23:59:59.999999',
    '2038-01-19 03:14:07.999', '-838:59:58.999999', 'a ', 'é|N', 'two', 'b', REPEAT('é', 40000), X'00FF', REPEAT(X'00', 70000),
    '{{"bb": 1.0, "a": [-0.0, 1e20, "x"]}}', POINT(1, 2))"""
EMPTY = """({id}, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, '0000-00-00', '0000-00-00 00:00:00', NULL, NULL, '', '', NULL,
    '', '', '', '', NULL, NULL)"""
NULLS = f"({{id}}{', NULL' * 21})"
CHANGES = [
    "i = 43", "small = 1", "flag = 1", "y = 2001", "d = d + 0.000000000000000000000000000001", "money = -1.51", "f = 16777218",
    "g = 5e-324", "day = '1000-01-02'", "at = '9999-12-31 23:59:59.999998'", "stamp = '2038-01-19 03:14:07.998'",
    "span = '-838:59:58.999998'", "c = 'A'", "v = 'e|N'", "v = 'é|N '", "e = 'one'", "s = ''", "t = CONCAT(t, ' ')", "b = X'00FE'",
    "raw = X''", """j = '{"bb": 1.5, "a": [0, 1e20, "x"]}'""", "place = POINT(2, 1)", "v = NULL", "v = 'N'", "j = NULL",
]  # fmt: skip


def fill_types(lab: Dms, schema: str, count: int = 30) -> None:
    with both(lab) as (source, target):
        for side, charset in ((source, "latin1"), (target, "utf8mb4")):
            run(side, TYPES.format(s=schema, charset=charset))
            for i in range(0, count * 3, 3):
                rows = ", ".join(text.format(id=i + n) for n, text in enumerate((ROW, EMPTY, NULLS)))
                run(side, f"INSERT INTO {schema}.types VALUES {rows}")


def test_every_type_is_equal_on_both_versions(lab: Dms, schema: str) -> None:
    fill_types(lab, schema)
    found = one(lab, spec(schema), Table(schema, "types"))
    assert found == Comparison(Table(schema, "types"), "equal", 90, 90)


@pytest.mark.parametrize("change", CHANGES)
def test_one_value_of_each_type(lab: Dms, schema: str, change: str) -> None:
    fill_types(lab, schema, count=4)
    with both(lab) as (_, target):
        run(target, f"UPDATE {schema}.types SET {change} WHERE id = 6")
    found = one(lab, spec(schema), Table(schema, "types"))
    assert (found.status, found.differing, found.missing, found.extra) == ("differ", 1, 0, 0)
    assert found.sample == ("differing 6",)


KEYS = {
    "number": ("id INT NOT NULL, PRIMARY KEY (id)", [str(i * 3) for i in range(-20, 20)]),
    "pair": ("a SMALLINT NOT NULL, b VARCHAR(9) NOT NULL, PRIMARY KEY (a, b)", [f"{i % 5}, 'k{i}'" for i in range(40)]),
    "text": ("k VARCHAR(20) NOT NULL PRIMARY KEY", [f"'{chr(97 + i % 26)}_{i} é\"'" for i in range(40)]),
    "bytes": ("k BINARY(2) NOT NULL PRIMARY KEY", [f"X'{i:04x}'" for i in range(40)]),
    "time": ("k DATETIME(3) NOT NULL PRIMARY KEY", [f"'2024-01-01 00:00:{i:02d}.5'" for i in range(40)]),
    "unique": ("k DECIMAL(9,3) NOT NULL, x INT, UNIQUE (k)", [f"{i}.125, NULL" for i in range(40)]),
}


@pytest.mark.parametrize("kind", KEYS)
@pytest.mark.parametrize("rows", [1, 7, 10, 1000])
def test_classes_over_every_kind_of_key(lab: Dms, schema: str, kind: str, rows: int) -> None:
    columns, values = KEYS[kind]
    with both(lab) as (source, target):
        for side, left_out in ((source, {3, 38}), (target, {0, 20, 21, 39})):
            run(side, f"CREATE TABLE {schema}.t ({columns}, v INT)")
            kept = [f"({value}, {n})" for n, value in enumerate(values) if n not in left_out]
            run(side, f"INSERT INTO {schema}.t VALUES {', '.join(kept)}")
        run(target, f"UPDATE {schema}.t SET v = -1 WHERE v IN (7, 8)")
    found = one(lab, spec(schema), Table(schema, "t"), rows=rows)
    assert (found.status, found.source_rows, found.target_rows) == ("differ", 38, 36)
    assert (found.missing, found.extra, found.differing, found.unsettled) == (4, 2, 2, 0)
    assert len(found.sample) == 8


def test_a_text_key_in_another_order_on_the_target(lab: Dms, schema: str) -> None:
    names = ["a", "A1", "b", "B1", "ö", "Ö1", "z", "Z1", "_", "9"]
    with both(lab) as (source, target):
        for side, collation in ((source, "utf8mb4_general_ci"), (target, "utf8mb4_bin")):
            run(side, f"CREATE TABLE {schema}.t (k VARCHAR(20) COLLATE {collation} NOT NULL PRIMARY KEY, v INT)")
            for name in names:
                run(side, f"INSERT INTO {schema}.t VALUES ('{name}', 1)")
        run(source, f"INSERT INTO {schema}.t VALUES ('Q', 1)")
        run(target, f"INSERT INTO {schema}.t VALUES ('A', 1)")  # only the case differs from a row of the source
    found = one(lab, spec(schema), Table(schema, "t"), rows=2)
    assert (found.source_rows, found.target_rows, found.missing, found.extra, found.differing) == (11, 11, 1, 1, 0)
    assert "another collation" in found.reason


def test_names_types_and_columns_of_the_mappings(lab: Dms, schema: str) -> None:
    def rule(number: int, target: str, action: str, column: str = "", **more: Any) -> dict[str, Any]:
        where = {"schema-name": schema, "table-name": "t", **({"column-name": column} if column else {})}
        return {
            "rule-type": "transformation", "rule-id": str(number), "rule-name": str(number), "rule-target": target,
            "rule-action": action, "object-locator": where, **more,
        }  # fmt: skip

    rules = [
        rule(2, "table", "rename", value="renamed"), rule(3, "column", "rename", "id", value="number"),
        rule(4, "column", "remove-column", "secret"),
    ]  # fmt: skip
    filtered = select(
        schema,
        filters=[{"filter-type": "source", "column-name": "v", "filter-conditions": [{"filter-operator": "gte", "value": "10"}]}],
    )  # fmt: skip
    with both(lab) as (source, target):
        run(source, f"CREATE TABLE {schema}.t (id INT PRIMARY KEY, v INT, secret INT, twice INT AS (v * 2), lost INT)")
        run(source, f"INSERT INTO {schema}.t (id, v, secret) VALUES (1, 9, 1), (2, 10, 1), (3, 11, 1), (4, 10, 1)")
        run(target, f"CREATE TABLE {schema}.renamed (number BIGINT PRIMARY KEY, v DECIMAL(9,2), own INT)")
        run(target, f"INSERT INTO {schema}.renamed VALUES (2, 10, 5), (3, 11, 6), (4, 10, 7)")
    found = one(lab, spec(schema, *rules, selection=filtered), Table(schema, "t"), rows=2)
    assert (found.source_rows, found.target_rows, found.missing, found.extra, found.differing) == (3, 3, 0, 0, 0)
    assert found.status == "differ"
    assert found.reason == "the target has no column lost"
    assert found.not_compared == ("secret: the mappings remove it", "twice: generated, and not on the target")
    with both(lab) as (source, target):
        run(source, f"ALTER TABLE {schema}.t DROP COLUMN lost")
        run(target, f"INSERT INTO {schema}.renamed VALUES (1, 9, 5)")  # the filter keeps it out
    found = one(lab, spec(schema, *rules, selection=filtered), Table(schema, "t"), rows=2)
    assert (found.status, found.extra, found.sample) == ("differ", 1, ("extra 1",))


def test_a_table_without_a_key(lab: Dms, schema: str) -> None:
    with both(lab) as (source, target):
        for side in (source, target):
            run(side, f"CREATE TABLE {schema}.t (a INT, b VARCHAR(9))")
            run(side, f"INSERT INTO {schema}.t VALUES (1, 'x'), (1, 'x'), (2, 'y')")
        found = one(lab, spec(schema), Table(schema, "t"))
        assert (found.status, found.source_rows, found.target_rows) == ("equal", 3, 3)
        assert "no key" in found.reason
        run(target, f"UPDATE {schema}.t SET b = 'z' WHERE a = 2")
        found = one(lab, spec(schema), Table(schema, "t"))
        assert (found.status, found.missing, found.extra) == ("differ", 0, 0)
        run(target, f"DELETE FROM {schema}.t WHERE a = 1 LIMIT 1")
        found = one(lab, spec(schema), Table(schema, "t"))
        assert (found.status, found.missing, found.extra, found.target_rows) == ("differ", 1, 0, 2)


def test_tables_that_are_not_there(lab: Dms, schema: str) -> None:
    with both(lab) as (source, _):
        run(source, f"CREATE TABLE {schema}.t (id INT PRIMARY KEY)", f"INSERT INTO {schema}.t VALUES (1), (2)")
    there, nowhere = compare(lab, spec(schema), Table(schema, "t"), Table(schema, "gone"))
    assert (there.status, there.source_rows, there.target_rows, there.missing) == ("differ", 2, 0, 2)
    assert "the target has no table" in there.reason
    assert nowhere.status == "not comparable"


def test_a_row_twice_on_a_target_without_the_key(lab: Dms, schema: str) -> None:
    with both(lab) as (source, target):
        run(
            source,
            f"CREATE TABLE {schema}.t (id INT PRIMARY KEY, v INT)",
            f"INSERT INTO {schema}.t VALUES (1, 1), (2, 2)",
        )
        run(
            target,
            f"CREATE TABLE {schema}.t (id INT, v INT, KEY (id))",
            f"INSERT INTO {schema}.t VALUES (1, 1), (2, 2), (2, 2)",
        )
    found = one(lab, spec(schema), Table(schema, "t"))
    assert (found.status, found.differing, found.sample) == ("differ", 1, ("differing 2",))
    assert (found.source_rows, found.target_rows) == (2, 3)


def test_a_target_that_is_behind_while_rows_change(lab: Dms, schema: str) -> None:
    """An applier that lags: every row differs at first, and one is never right."""
    count = 600
    with both(lab) as (source, target):
        for side, value in ((source, 1), (target, 0)):
            run(side, f"CREATE TABLE {schema}.t (id INT PRIMARY KEY, v INT)")
            run(side, f"INSERT INTO {schema}.t VALUES {', '.join(f'({i}, {value})' for i in range(count))}")
    stop = threading.Event()

    def apply() -> None:
        with both(lab) as (source, target):
            n = 0
            while not stop.is_set():
                n += 1
                run(source, f"UPDATE {schema}.t SET v = {n} WHERE id = 5")
                run(
                    target,
                    f"UPDATE {schema}.t SET v = 1 WHERE id BETWEEN {n * 50} AND {n * 50 + 49} AND id NOT IN (5, 77)",
                )
                stop.wait(0.02)

    thread = threading.Thread(target=apply)
    thread.start()
    try:
        with both(lab) as (_, target):
            run(target, f"UPDATE {schema}.t SET v = 1 WHERE id < 50 AND id <> 5")
        found = one(lab, spec(schema), Table(schema, "t"), patience=Patience(settle_s=8), rows=100)
    finally:
        stop.set()
        thread.join()
    assert (found.status, found.differing, found.sample[:1]) == ("differ", 1, ("differing 77",))
    assert (found.unsettled, found.sample[1:]) == (1, ("unsettled 5",))


# Other targets


def items(lab: Dms, table: str) -> Any:
    client = lab.client("dynamodb")
    return client, client.scan(TableName=table)["Items"]


WIDE = """CREATE TABLE {s}.wide (
    id BIGINT UNSIGNED NOT NULL PRIMARY KEY, n INT NULL, d DECIMAL(30,8), f FLOAT, g DOUBLE, day DATE, at DATETIME(6),
    stamp TIMESTAMP(3) NULL, span TIME, v VARCHAR(99), t TEXT, j JSON, e ENUM('a', 'b'), raw VARBINARY(9))"""
WIDE_ROWS = """(18446744073709551615, -5, 1234567890123456789012.12345678, 16777216, 0.1, '2024-02-29', '2024-05-06 07:08:09.123456',
    '2024-05-06 07:08:09.5', '-25:00:01', 'é', 'long', '{"a": [1.0, 2]}', 'b', x'00ff'),
    (1, NULL, 0, 1.1, 5e-100, NULL, '2024-05-06 07:08:09', NULL, NULL, '', '', 'null', NULL, NULL),
    (2, 0, -0.5, -0.0, 1e100, '1000-01-01', NULL, NULL, '00:00:00', 'x', NULL, NULL, 'a', x'')"""
ITEM_CHANGES = {
    "n": {"N": "-6"}, "d": {"N": "1234567890123456789012.12345679"}, "f": {"N": "16777218"}, "g": {"N": "0.10000000000000002"},
    "day": {"S": "2024-02-28"}, "at": {"S": "2024-05-06 07:08:09.123457"}, "stamp": {"S": "2024-05-06 07:08:09"},
    "span": {"S": "25:00:01"}, "v": {"S": "e"}, "t": {"N": "1"}, "j": {"S": '{"a": [1, 3]}'}, "e": None,
}  # fmt: skip
ITEM_SAME = {
    "at": {"S": "2024-05-06T07:08:09.123456Z"}, "day": {"S": "2024-02-29T00:00:00Z"}, "j": {"S": '{"a":[1,2.0]}'}, "own": {"S": "x"},
    "d": {"S": "1234567890123456789012.123456780"},
}  # fmt: skip


@pytest.fixture(scope="module")
def wide(lab: Dms) -> tuple[DmsSpec, Table]:
    """A table that a task of the simulated DMS has copied to DynamoDB."""
    name = lab.schema(WIDE)
    lab.write(f"INSERT INTO {name}.wide VALUES {WIDE_ROWS}")
    target = lab.make_endpoint("target", EngineName="dynamodb", DynamoDbSettings={"ServiceAccessRoleArn": dms_kit.ROLE})
    task = lab.task(name, target, "full-load")
    lab.run(task)
    lab.ended(task)
    assert lab.table(task)["FullLoadErrorRows"] == 0, lab.events(task)
    return spec(name, target=specs.DYNAMODB, task_type="full-load"), Table(name, "wide")


def compare_items(lab: Dms, of: DmsSpec, table: Table, settle_s: float = 0) -> Comparison:
    with both(lab) as (source, _):
        (found,) = reconcile.compare(
            of, [table], source=source, target=lab.client("dynamodb"), patience=Patience(settle_s=settle_s)
        )
    return found


def test_items_that_dms_wrote(lab: Dms, wide: tuple[DmsSpec, Table]) -> None:
    found = compare_items(lab, *wide)
    assert (found.status, found.source_rows, found.target_rows, found.reason) == ("equal", 3, 3, "")
    assert found.not_compared == ("raw: DMS carries no varbinary(9) to DynamoDB",)


@pytest.mark.parametrize("attribute", [*ITEM_CHANGES, *(f"same {name}" for name in ITEM_SAME)])
def test_one_attribute(lab: Dms, wide: tuple[DmsSpec, Table], attribute: str) -> None:
    client, name = lab.client("dynamodb"), attribute.removeprefix("same ")
    key = {"id": {"N": "18446744073709551615"}}
    before = client.get_item(TableName="wide", Key=key)["Item"]
    changed = {**before, name: (ITEM_SAME if name != attribute else ITEM_CHANGES)[name]}
    client.put_item(TableName="wide", Item={k: v for k, v in changed.items() if v is not None})
    try:
        found = compare_items(lab, *wide)
    finally:
        client.put_item(TableName="wide", Item=before)
    if name != attribute:
        assert found.status == "equal"
    else:
        assert (found.status, found.differing, found.sample) == ("differ", 1, ("differing 18446744073709551615",))


def test_missing_and_extra_items_and_attributes_that_should_be_null(lab: Dms, wide: tuple[DmsSpec, Table]) -> None:
    client = lab.client("dynamodb")
    one_item, two = (client.get_item(TableName="wide", Key={"id": {"N": n}})["Item"] for n in ("1", "2"))
    client.delete_item(TableName="wide", Key={"id": {"N": "2"}})
    client.put_item(TableName="wide", Item={"id": {"N": "77"}})
    client.put_item(TableName="wide", Item={**one_item, "n": {"N": "0"}})
    try:
        found = compare_items(lab, *wide)
        assert (found.missing, found.extra, found.differing, found.target_rows) == (1, 1, 1, 3)
        assert set(found.sample) == {"missing 2", "extra 77", "differing 1"}
    finally:
        client.put_item(TableName="wide", Item=two)
        client.put_item(TableName="wide", Item=one_item)
        client.delete_item(TableName="wide", Key={"id": {"N": "77"}})


def attribute(name: str, value: Any, kind: str = "string") -> dict[str, Any]:
    return {"target-attribute-name": name, "attribute-type": "scalar", "attribute-sub-type": kind, "value": value}


def test_items_of_an_object_mapping(lab: Dms) -> None:
    name = lab.schema("CREATE TABLE {s}.t (city VARCHAR(9), n INT, label VARCHAR(9), more INT, PRIMARY KEY (city, n))")
    lab.write(f"INSERT INTO {name}.t VALUES ('rome', 1, 'a', 5), ('rome', 2, NULL, 6), ('oslo#1', 1, 'b', NULL)")
    rule = {
        "rule-type": "object-mapping", "rule-id": "5", "rule-name": "5", "rule-action": "map-record-to-document",
        "object-locator": {"schema-name": name, "table-name": "t"}, "target-table-name": f"{name}_items",
        "mapping-parameters": {
            "partition-key-name": "pk", "sort-key-name": "sk", "exclude-columns": ["city", "n"],
            "attribute-mappings": [attribute("pk", "CITY#${city}"), attribute("sk", "${n}", "number"),
                                   attribute("both", "${label}/${more}")],
        },
    }  # fmt: skip
    of = spec(name, rule, target=specs.DYNAMODB, task_type="full-load")
    assert compare_items(lab, of, Table(name, "t")).reason == f"DynamoDB has no table {name}_items"
    target = lab.make_endpoint("target", EngineName="dynamodb", DynamoDbSettings={"ServiceAccessRoleArn": dms_kit.ROLE})
    task = lab.task(name, target, "full-load", rules=[rule])
    lab.run(task)
    lab.ended(task)
    found = compare_items(lab, of, Table(name, "t"))
    assert (found.status, found.source_rows, found.target_rows) == ("equal", 3, 3), found
    client = lab.client("dynamodb")
    client.put_item(TableName=f"{name}_items", Item={"pk": {"S": "CITY#bonn"}, "sk": {"N": "1"}})
    client.update_item(
        TableName=f"{name}_items", Key={"pk": {"S": "CITY#rome"}, "sk": {"N": "1"}}, UpdateExpression="SET #d.#l = :v",
        ExpressionAttributeNames={"#d": "_doc", "#l": "label"}, ExpressionAttributeValues={":v": {"S": "z"}},
    )  # fmt: skip
    client.delete_item(TableName=f"{name}_items", Key={"pk": {"S": "CITY#oslo#1"}, "sk": {"N": "1"}})
    found = compare_items(lab, of, Table(name, "t"))
    assert (found.missing, found.extra, found.differing) == (1, 1, 1)


@pytest.mark.parametrize("settings", [{}, {"IncludeOpForFullLoad": True}])
def test_files_of_a_full_load(lab: Dms, settings: dict[str, Any]) -> None:
    s3, bucket = lab.client("s3"), f"lake-{time.time_ns():x}"
    s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": s3.meta.region_name})
    name = lab.schema("CREATE TABLE {s}.t (a VARCHAR(20), b DATETIME(3), v TEXT, PRIMARY KEY (a, b))")
    rows = [f"('k,{i}\"\n', '2024-01-01 00:00:00.{i % 10}', 'some, text')" for i in range(300)]
    lab.write(f"INSERT INTO {name}.t VALUES {', '.join(rows)}")
    given = {"BucketName": bucket, "BucketFolder": "f", "ServiceAccessRoleArn": dms_kit.ROLE, **settings}
    task = lab.task(name, lab.make_endpoint("target", EngineName="s3", S3Settings=given), "full-load")
    lab.run(task)
    lab.ended(task)
    of = spec(name, target={**specs.S3, "bucket": bucket, "folder": "f", "settings": settings}, task_type="full-load")

    def found() -> Comparison:
        with both(lab) as (source, _):
            return reconcile.compare(of, [Table(name, "t")], source=source, target=s3, chunk_rows=70)[0]

    assert (found().status, found().source_rows, found().target_rows) == ("equal", 300, 300)
    lab.write(f"DELETE FROM {name}.t WHERE a LIKE 'k,7_\"%'", f"INSERT INTO {name}.t VALUES ('new', '2024-01-01', '')")
    after = found()
    assert (after.status, after.missing, after.extra, after.source_rows) == ("differ", 1, 10, 291)
    assert sum(one.startswith("extra k,7") for one in after.sample) == 10
    assert any(one.startswith("missing _utf8mb4 X'6e6577'".upper()[:7].lower()) for one in after.sample)
    with_changes = spec(name, target={**specs.S3, "bucket": bucket})
    with both(lab) as (source, _):
        (refused,) = reconcile.compare(with_changes, [Table(name, "t")], source=source, target=s3)
    assert refused.status == "not comparable"


# Behind a running task


def canary_spec(schema: str, target: dict[str, Any], **more: Any) -> DmsSpec:
    declared = {"schema_name": schema, "table": "canary"}
    document = specs.document(target=target, mappings=[select(schema)], canary=declared, **more)
    return DmsSpec.model_validate({**document, "target_connection": "green"})


def make_canary(lab: Dms) -> str:
    name = lab.schema("CREATE TABLE {s}.orders (id INT PRIMARY KEY AUTO_INCREMENT, v INT)")
    lab.write(canary.ddl(canary_spec(name, specs.MYSQL_TARGET)), f"INSERT INTO {name}.orders (v) VALUES (1), (2)")
    return name


def seen(lab: Dms, of: DmsSpec, token: str) -> canary.Seen:
    """Write the row and look for it until it is there."""
    since = datetime.now(UTC)
    with closing(
        lab.source.connect(init_command="SET time_zone = '+00:00', sql_log_bin = 1", autocommit=False)
    ) as source:
        canary.write(source, of, token, since)
    reader = canary.reader(
        of, since=since, now=lambda: datetime.now(UTC), connect=lambda _: lab.sink.connect(init_command=SESSION),
        client=lab.client,
    )  # fmt: skip
    assert reader.seen("never written") is None
    found: list[canary.Seen | None] = [None]

    def look() -> bool:
        found[0] = reader.seen(token)
        return found[0] is not None

    lab.until(look)
    made = found[0]
    assert made is not None
    assert made.token == token
    assert abs(made.written_at - since) < timedelta(milliseconds=1)
    assert made.seen_at >= since
    return made


def look_at(lab: Dms, of: DmsSpec, arn: str, token: canary.Seen | None) -> health.Health:
    task = asking.ask(lab.dms, states.one_task(lab.described(arn)["ReplicationTaskIdentifier"]))
    instances = asking.ask(lab.dms, states.instances())
    now = datetime.now(UTC)
    question = health.latencies([task], instances, until=now, minutes=5)
    measured = asking.ask(lab.client("cloudwatch"), question).get(arn)
    return health.judge(
        of, task, measured, tables=asking.ask(lab.dms, states.statistics(task)), canary=token, now=datetime.now(UTC)
    )


def test_mysql_from_load_to_health(lab: Dms) -> None:
    name = make_canary(lab)
    of = canary_spec(name, specs.MYSQL_TARGET, limits={"samples": 1})
    arn = lab.task(name)
    lab.run(arn)
    lab.replicating(arn)
    token = seen(lab, of, "first")
    seen(lab, of, "second")
    found: list[health.Health] = []

    def is_healthy() -> bool:
        found.append(look_at(lab, of, arn, token))
        return found[-1].verdict == "healthy"

    lab.until(is_healthy)
    assert look_at(lab, of, arn, None).verdict == "unhealthy"

    def is_suspended() -> bool:
        lab.write(f"INSERT INTO {name}.orders (v) VALUES (3)")  # a task sees the switch a moment later
        return bool(lab.tables(arn)["orders"]["TableState"] == "Table error")

    with lab.faults(table_error=[f"{name}.orders"]):
        lab.until(is_suspended)
    broken = look_at(lab, of, arn, token)
    assert broken.verdict == "unhealthy"
    assert f"table {name}.orders is in state Table error" in broken.reasons
    compared = one(lab, of, Table(name, "orders"))
    assert compared.status == "differ"
    assert compared.missing == compared.source_rows - compared.target_rows > 0
    lab.stop(arn)
    assert look_at(lab, of, arn, token).verdict == "unhealthy"


def test_rows_settle_behind_a_task_that_lags(lab: Dms) -> None:
    name = make_canary(lab)
    arn = lab.task(name)
    lab.run(arn)
    lab.replicating(arn)
    with lab.faults(lag_s=3):
        for begin in range(0, 200, 50):
            lab.write(f"INSERT INTO {name}.orders (v) VALUES {', '.join(f'({n})' for n in range(begin, begin + 50))}")
        at_once = one(lab, spec(name), Table(name, "orders"), rows=20)
        assert at_once.status in ("differ", "unsettled")
        settled = one(lab, spec(name), Table(name, "orders"), patience=Patience(settle_s=45), rows=20)
    assert (settled.status, settled.source_rows) == ("equal", 202)
    lab.stop(arn)


def test_the_canary_of_each_other_target(lab: Dms) -> None:
    kinesis, s3, bucket = lab.client("kinesis"), lab.client("s3"), f"canary-{time.time_ns():x}"
    kinesis.create_stream(StreamName=bucket, ShardCount=3)
    stream = kinesis.describe_stream_summary(StreamName=bucket)["StreamDescriptionSummary"]["StreamARN"]
    s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": s3.meta.region_name})
    role = {"ServiceAccessRoleArn": dms_kit.ROLE}
    to_stream = {"StreamArn": stream, "MessageFormat": "json-unformatted", **role}
    to_files = {"BucketName": bucket, "BucketFolder": "f", **role}
    targets: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({**specs.KINESIS, "stream_arn": stream}, {"EngineName": "kinesis", "KinesisSettings": to_stream}),
        ({**specs.S3, "bucket": bucket, "folder": "f"}, {"EngineName": "s3", "S3Settings": to_files}),
        (specs.DYNAMODB, {"EngineName": "dynamodb", "DynamoDbSettings": role}),
    ]
    name = make_canary(lab)
    for declared, endpoint in targets:
        arn = lab.task(name, lab.make_endpoint("target", **endpoint))
        lab.run(arn)
        lab.replicating(arn)
        seen(lab, canary_spec(name, declared), f"token {declared['kind']}")
        lab.stop(arn)


def test_serverless_metrics_are_found(lab: Dms) -> None:
    name = make_canary(lab)
    made = lab.dms.create_replication_config(
        ReplicationConfigIdentifier=f"r-{time.time_ns():x}", SourceEndpointArn=lab.made["mysql57"],
        TargetEndpointArn=lab.made["mysql80"], ComputeConfig={"MaxCapacityUnits": 2}, ReplicationType="full-load-and-cdc",
        TableMappings=dms_kit.mappings(name),
    )["ReplicationConfig"]  # fmt: skip
    arn = made["ReplicationConfigArn"]
    lab.dms.start_replication(ReplicationConfigArn=arn, StartReplicationType="start-replication")

    def measured() -> Any:
        tasks = [task for task in asking.ask(lab.dms, states.replications()).values() if task.arn == arn]
        question = health.latencies(tasks, (), until=datetime.now(UTC), minutes=5)
        return asking.ask(lab.client("cloudwatch"), question).get(arn)

    lab.until(lambda: (found := measured()) is not None and found.latency_source)
    lab.dms.stop_replication(ReplicationConfigArn=arn)
