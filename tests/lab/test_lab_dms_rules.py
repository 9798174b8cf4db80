"""What the simulated DMS makes of mappings, settings, values and positions; no server is asked."""

from __future__ import annotations

import datetime as dt
import json
import time
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from moto.cloudwatch.models import CloudWatchBackend

from lab.config import LabError
from lab.dms import faults, metrics
from lab.dms.mappings import Filter, Mappings
from lab.dms.serverless import ON_THE_WAY, on_the_way
from lab.dms.settings import DEFAULTS, expanded
from lab.dms.source import Change, Column, FatalError, Follower, Position, Source, Table, Transaction
from lab.dms.state import State, TableState
from lab.dms.targets import Mapped
from lab.dms.targets.dynamodb import DynamoDBTarget
from lab.dms.targets.kinesis import KinesisTarget
from lab.dms.worker import seconds


def mappings(*rules: dict[str, Any]) -> Mappings:
    numbered = [{"rule-id": str(n), "rule-name": str(n), **rule} for n, rule in enumerate(rules)]
    return Mappings(json.dumps({"rules": numbered}))


def selection(action: str, schema: str, table: str, **more: Any) -> dict[str, Any]:
    locator = {"schema-name": schema, "table-name": table}
    return {"rule-type": "selection", "rule-action": action, "object-locator": locator, **more}


def transformation(action: str, target: str, value: str = "", **locator: str) -> dict[str, Any]:
    return {
        "rule-type": "transformation",
        "rule-action": action,
        "rule-target": target,
        "value": value,
        "object-locator": {"schema-name": "%", "table-name": "%", **locator},
    }


ALL = selection("include", "shop", "%")


@pytest.mark.parametrize(
    ("pattern", "name", "is_taken"),
    [
        ("%", "orders", True),
        ("order%", "orders", True),
        ("%s", "orders", True),
        ("o_ders", "orders", False),  # an underscore is itself
        ("Orders", "orders", False),
        ("or.*", "orders", False),
    ],
)
def test_a_wildcard_is_a_percent_sign(pattern: str, name: str, is_taken: bool) -> None:
    assert mappings(selection("include", "shop", pattern)).takes("shop", name) is is_taken


def test_an_exclusion_outranks_every_inclusion() -> None:
    made = mappings(selection("exclude", "shop", "log%"), ALL, selection("include", "shop", "log1"))
    assert made.takes("shop", "orders")
    assert not made.takes("shop", "log1")
    assert not made.takes("other", "orders")


def test_names_change_in_the_order_of_the_rules() -> None:
    made = mappings(
        ALL,
        transformation("convert-uppercase", "schema"),
        transformation("add-prefix", "table", "new_"),
        transformation("rename", "table", "bills", **{"table-name": "invoices"}),
        transformation("remove-column", "column", **{"column-name": "secret%"}),
        transformation("add-suffix", "column", "_c", **{"column-name": "a"}),
    )
    names = made.names("shop", "orders", ["id", "a", "secret_1"])
    assert (names.schema, names.table, names.columns) == ("SHOP", "new_orders", {"id": "id", "a": "a_c"})
    assert made.names("shop", "invoices", []).table == "bills"


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ([], "At least one selection rule"),
        ([selection("exclude", "shop", "%")], "At least one selection rule"),
        ([selection("take", "shop", "%")], "rule-action take"),
        ([ALL, {**ALL, "rule-id": "0"}], "not unique"),
        ([{**ALL, "rule-type": "choice"}], "invalid rule-type"),
        ([ALL, transformation("encrypt", "column")], "rule-action encrypt"),
    ],
)
def test_wrong_mappings_are_refused(rules: list[Any], message: str) -> None:
    with pytest.raises(LabError, match=message):
        mappings(*rules)


def test_text_that_is_no_json_is_refused() -> None:
    for text in ("{", "[]", "{}", "7"):
        with pytest.raises(LabError, match="JSON is invalid"):
            Mappings(text)
    with pytest.raises(LabError, match="not an object"):
        expanded("[]")


@pytest.mark.parametrize(
    ("operator", "low", "high", "sql", "held"),
    [
        ("eq", "5", "", "(`n` = %s)", [5]),
        ("noteq", "5", "", "(`n` <> %s)", [4, 6]),
        ("gte", "5", "", "(`n` >= %s)", [5, 6]),
        ("ste", "5", "", "(`n` <= %s)", [4, 5]),
        ("between", "5", "6", "(`n` BETWEEN %s AND %s)", [5, 6]),
        ("notbetween", "5", "6", "(`n` NOT BETWEEN %s AND %s)", [4]),
        ("null", "", "", "(`n` IS NULL)", [None]),
        ("notnull", "", "", "(`n` IS NOT NULL)", [4, 5, 6]),
    ],
)
def test_a_filter_says_the_same_of_a_load_and_of_a_change(
    operator: str, low: str, high: str, sql: str, held: list[Any]
) -> None:
    made = Filter("n", ((operator, low, high),))
    text, args = made.sql()
    assert text == sql
    assert len(args) == text.count("%s")
    assert [value for value in (None, 4, 5, 6) if made.holds({"n": value})] == held


def test_settings_come_back_with_all_that_was_not_given() -> None:
    first = expanded('{"ErrorBehavior": {"TableErrorPolicy": "STOP_TASK"}}')
    second = expanded('{"Logging": {"EnableLogging": true}}', first)
    assert second["ErrorBehavior"]["TableErrorPolicy"] == "STOP_TASK"
    assert second["ErrorBehavior"]["DataErrorPolicy"] == "LOG_ERROR"
    assert second["Logging"]["EnableLogging"] is True
    assert DEFAULTS["Logging"]["EnableLogging"] is False
    with pytest.raises(LabError, match="not a known section"):
        expanded('{"Errors": {}}')


def column(data_type: str, column_type: str = "", charset: str | None = None, precision: int = 0) -> Column:
    return Column("c", data_type, column_type or data_type, charset, precision)


@pytest.mark.parametrize(
    ("made", "raw", "value"),
    [
        (column("datetime", precision=3), dt.datetime(2024, 2, 29, 1, 2, 3, 456000), "2024-02-29 01:02:03.456"),
        (column("datetime"), dt.datetime(99, 1, 1), "0099-01-01 00:00:00"),
        (column("timestamp", precision=6), dt.datetime(2024, 2, 29), "2024-02-29 00:00:00.000000"),
        (column("date"), dt.date(2024, 2, 29), "2024-02-29"),
        (column("time"), dt.timedelta(hours=838, minutes=59, seconds=59), "838:59:59"),
        (column("time", precision=1), -dt.timedelta(seconds=1, microseconds=500000), "-00:00:01.5"),
        (column("year"), 1900, 0),
        (column("bit"), "101", 5),
        (column("set", "set('a','b','c')"), {"c", "a"}, "a,c"),
        (column("binary", "binary(4)"), b"\1", b"\1\0\0\0"),
        (column("json"), {b"k": [1, b"\xc3\xbc", None]}, '{"k": [1, "ü", null]}'),
        (column("int"), -1, -1),
    ],
)
def test_values_of_the_log_are_those_of_a_select(made: Column, raw: Any, value: Any) -> None:
    assert made.value(raw) == value


def test_what_the_log_reader_cannot_show_is_not_null() -> None:
    assert column("date").value(None, is_null=False) == "0000-00-00"
    assert column("datetime", precision=2).value(None, is_null=False) == "0000-00-00 00:00:00.00"
    assert column("set", "set('a')").value(None, is_null=False) == ""
    assert column("set", "set('a')").value(None) is None
    assert column("enum", "enum('a','b''c')").members == ["a", "b'c"]


def test_a_position_is_ordered_and_reads_back() -> None:
    position = Position("binlog.000024", 373)
    assert Position.parse(position.checkpoint()) == Position.parse("binlog.000024:373") == position
    assert Position("binlog.000009", 9999) < Position("binlog.000010", 4)
    assert (
        Transaction(end=Position("binlog.000009", 9999)).number < Transaction(end=Position("binlog.000010", 4)).number
    )
    for text in ("binlog:4", "checkpoint:V2#1#binlog.000001:4", "2024-01-01T00:00:00", ""):
        with pytest.raises(LabError):
            Position.parse(text)


def test_times_are_utc_unless_they_say_otherwise() -> None:
    assert seconds("1970-01-01T00:01:00") == seconds("1970-01-01T01:01:00+01:00") == 60


def orders(rule: Any = None, lob_bytes: int | None = None) -> Mapped:
    columns = tuple(
        Column(n, d, d, "utf8mb4" if d == "text" else None, 0)
        for n, d in (("id", "bigint"), ("a", "decimal"), ("x", "text"))
    )
    table = Table("shop", "orders", columns, ("id",))
    return Mapped(table, mappings(ALL).names("shop", "orders", ["id", "a", "x"]), rule, (), lob_bytes)


def test_long_values_are_cut_and_said_to_be() -> None:
    row, cut = orders(lob_bytes=4).row({"id": 1, "a": None, "x": "12345"})
    assert row == {"id": 1, "a": None, "x": "1234"}
    assert cut == ["Value of column 'x' in table 'shop.orders' was truncated to 4 bytes, actual length: 5 bytes"]
    assert orders().row({"id": 1, "a": None, "x": "12345"}) == ({"id": 1, "a": None, "x": "12345"}, [])


class Calls:
    """A client of AWS that notes what it is asked."""

    def __init__(self) -> None:
        self.made: list[tuple[str, dict[str, Any]]] = []

    def __getattr__(self, name: str) -> Any:
        def call(**arguments: Any) -> dict[str, Any]:
            self.made.append((name, arguments))
            return {"FailedRecordCount": 0}

        return call


def sent(settings: dict[str, Any], row: dict[str, Any], before_image: Any = None) -> tuple[str, str]:
    calls = Calls()
    target = KinesisTarget(calls, {"StreamArn": "arn", **settings}, "task", before_image)
    target.begin(Transaction(committed_s=60, end=Position("binlog.000001", 500)))
    change = Change("update", "shop", "orders", Position("binlog.000001", 400))
    target.apply(orders(), change, {**row, "a": Decimal(0)}, row, tolerant=False)
    target.commit()
    ((_, arguments),) = calls.made
    (record,) = arguments["Records"]
    return record["PartitionKey"], record["Data"].decode()


@pytest.mark.parametrize(
    ("settings", "number", "text"),
    [
        ({}, 2**64 - 1, '"id": 1.844674407370955E19'),
        ({}, -(10**16), '"id": -1.000000000000000E16'),
        ({}, 10**16 - 1, '"id": 9999999999999999,'),
        ({"UseLargeIntegerValue": True}, 2**64 - 1, '"id": 18446744073709551615,'),
    ],
)
def test_numbers_of_more_than_sixteen_digits_lose_some(settings: dict[str, Any], number: int, text: str) -> None:
    assert text in sent(settings, {"id": number, "a": Decimal("1.50"), "x": None})[1]


def test_a_record_has_null_only_when_it_is_told_to() -> None:
    row = {"id": 1, "a": Decimal("1.50"), "x": None}
    key, text = sent({}, row)
    assert key == "shop.orders"
    assert '"data": {"id": 1, "a": 1.50}' in text
    details = {"IncludeNullAndEmpty": True, "IncludeTransactionDetails": True, "MessageFormat": "json-unformatted"}
    text = sent(details, row)[1]
    assert text.endswith("}\n")
    record = json.loads(text)
    assert record["data"]["x"] is None
    assert "before-image" not in record
    assert record["metadata"]["commit-timestamp"] == "1970-01-01T00:01:00.000000Z"
    assert record["metadata"]["stream-position"] == f"binlog.000001:400:-1:400:{(1 << 36) + 500}:binlog.000001:500"


@pytest.mark.parametrize(
    ("before_image", "name", "expected"),
    [
        ({"EnableBeforeImage": False}, "before-image", None),
        ({"EnableBeforeImage": True}, "before-image", {}),  # the key has not changed
        ({"EnableBeforeImage": True, "ColumnFilter": "non-lob", "FieldName": "old"}, "old", {"a": 0}),
        ({"EnableBeforeImage": True, "ColumnFilter": "all"}, "before-image", {"a": 0}),
    ],
)
def test_what_was_before_is_said_when_the_task_asks_for_it(before_image: Any, name: str, expected: Any) -> None:
    row = {"id": 1, "a": Decimal("1.50"), "x": "text"}
    assert json.loads(sent({}, row, before_image)[1]).get(name) == expected


def test_an_item_may_be_a_document() -> None:
    rule = {
        "rule-action": "map-record-to-document",
        "target-table-name": "things",
        "mapping-parameters": {
            "partition-key-name": "pk",
            "attribute-mappings": [
                {
                    "target-attribute-name": "pk",
                    "attribute-type": "scalar",
                    "attribute-sub-type": "string",
                    "value": "O#${id}",
                }
            ],
        },
    }
    calls = Calls()
    DynamoDBTarget(calls).load(orders(rule), [{"id": 7, "a": Decimal("1.5"), "x": None}])
    assert calls.made == [
        (
            "put_item",
            {"TableName": "things", "Item": {"pk": {"S": "O#7"}, "_doc": {"M": {"id": {"N": "7"}, "a": {"N": "1.5"}}}}},
        )
    ]


def test_a_state_outlives_its_process(tmp_path: Path) -> None:
    state = State(tmp_path / "state.json")
    state.tables["s.t"] = TableState("s", "t", loaded_until=["binlog.000001", 4])
    state.checkpoint = ["binlog.000001", 8]
    state.save()
    read = State.load(tmp_path / "state.json")
    assert (read.tables, read.checkpoint) == (state.tables, state.checkpoint)
    assert "loaded_until" not in read.tables["s.t"].described()
    assert State.load(tmp_path / "none.json").tables == {}


def test_a_switch_may_be_of_one_task(tmp_path: Path) -> None:
    faults.set_faults(tmp_path, lag_s={"orders": 5}, stuck=True)
    assert faults.value(tmp_path, "lag_s", "orders") == 5
    assert faults.value(tmp_path, "lag_s", "other") == 0
    assert faults.value(tmp_path, "stuck", "other") is True
    with pytest.raises(LabError, match="no fault switch"):
        faults.set_faults(tmp_path, banana=1)
    faults.set_faults(tmp_path)
    assert faults.value(tmp_path, "stuck") is False


def test_a_switch_holds_from_the_moment_at_which_it_is_set(tmp_path: Path) -> None:
    seen = faults.Switches(tmp_path, "orders")
    for value in (5, 0, 7, 7.5):
        faults.set_faults(tmp_path, lag_s=value)
        assert seen["lag_s"] == value
    (tmp_path / "faults.json").unlink()
    assert seen["lag_s"] == 0


def test_states_of_a_serverless_start_come_in_their_order() -> None:
    shown = list(dict.fromkeys(on_the_way(part / 100) for part in range(300)))
    assert shown == list(ON_THE_WAY)


def served(*names: str, measured_s: float, **more: Any) -> Any:
    """A backend with running tasks of these names."""
    state = SimpleNamespace(tables={}, phase="cdc", metrics={"CDCLatencyTarget": 3.0}, measured_s=measured_s)
    tasks = [
        SimpleNamespace(
            id=n, arn=n, status="running", state=state, dimensions=lambda n=n: {"ReplicationTaskIdentifier": n}
        )
        for n in names
    ]
    instance = SimpleNamespace(id="lab", allocated_storage=50)
    switches = {"drop_metrics": False, "instance_full": False, **more}
    return SimpleNamespace(
        tasks={t.id: t for t in tasks}, replications={}, replication_instances={"lab": instance}, account_id="123456789012",
        region_name="eu-central-1", fault=lambda name, task="": switches[name],
    )  # fmt: skip


@pytest.fixture
def put(monkeypatch: pytest.MonkeyPatch) -> CloudWatchBackend:
    """An empty CloudWatch, to which the lab puts its metrics."""
    store = CloudWatchBackend("eu-central-1", "123456789012")
    monkeypatch.setattr(metrics, "cloudwatch_backends", {"123456789012": {"eu-central-1": store}})
    return store


def test_a_task_that_has_not_measured_itself_has_no_metrics(put: CloudWatchBackend) -> None:
    metrics._put_all(served("fresh", measured_s=time.time()), {})
    metrics._put_all(served("hung", measured_s=time.time() - metrics.FRESH_S - 1), {})
    metrics._put_all(served("off", measured_s=time.time(), drop_metrics=True), {})
    names = {each.dimensions[0].value for each in put.metric_data}
    assert names == {"fresh", "lab"}
    assert {each.name for each in put.metric_data} == {
        "CDCLatencyTarget", "CDCThroughputRowsSource", "CDCThroughputRowsTarget", "FullLoadThroughputRowsTarget",
        "FreeStorageSpace", "SwapUsage",
    }  # fmt: skip


def test_old_metrics_of_the_lab_are_forgotten(put: CloudWatchBackend) -> None:
    old, now = metrics.utcnow() - 2 * metrics.KEPT, metrics.utcnow()
    for at in (old, old, now):
        put.put_metric_data("AWS/DMS", [{"MetricName": "m", "Value": 1, "Timestamp": at}])
    metrics._put_all(served(measured_s=0), {})
    assert [each.timestamp for each in put.metric_data if each.name == "m"] == [now]


def test_points_are_those_of_all_dimensions_by_period_and_in_pages(put: CloudWatchBackend) -> None:
    begin = metrics.utcnow().replace(microsecond=0)
    pairs = [
        {"Name": "ReplicationTaskIdentifier", "Value": "T"},
        {"Name": "ReplicationInstanceIdentifier", "Value": "I"},
    ]
    for second in range(0, 180, 30):
        datum = {
            "MetricName": "m",
            "Value": second,
            "Timestamp": begin + dt.timedelta(seconds=second),
            "Dimensions": pairs,
        }
        put.put_metric_data("AWS/DMS", [datum, {**datum, "Dimensions": pairs[:1], "Value": 999}])
    queries = [
        {
            "Id": name,
            "MetricStat": {
                "Metric": {"Namespace": "AWS/DMS", "MetricName": "m", "Dimensions": pairs[::order]},
                "Period": 60,
                "Stat": "Maximum",
            },
        }
        for name, order in (("a", 1), ("b", -1))
    ]
    given: dict[str, Any] = {
        "MetricDataQueries": queries,
        "StartTime": begin,
        "EndTime": begin + dt.timedelta(minutes=5),
    }
    found = list(metrics.series(put, {**given, "ScanBy": "TimestampAscending"}))
    assert [each["values"] for each in found] == [[30, 90, 150], [30, 90, 150]]
    assert [each["values"] for each in metrics.series(put, given)] == [[150, 90, 30], [150, 90, 30]]
    token, pages = None, []
    while token != "":
        answer = metrics.page({"MaxDatapoints": 2, "NextToken": token}, found)
        pages.append([(each["id"], each["values"], each["status_code"]) for each in answer["MetricDataResults"]])
        token = answer.get("NextToken", "")
    assert pages == [
        [("a", [30, 90], "PartialData")],
        [("a", [150], "Complete"), ("b", [30], "PartialData")],
        [("b", [90, 150], "Complete")],
    ]


class Scripted(Source):
    """A source whose variables are given."""

    def __init__(self, replica: bool = False, **variables: str) -> None:
        self.replica, self.variables = replica, variables

    def query(self, statement: str, args: Any = None) -> list[dict[str, Any]]:
        if statement == "SHOW SLAVE STATUS":
            return [{"Slave_IO_Running": "Yes"}] if self.replica else []
        return [{"Variable_name": name, "Value": v} for name, v in self.variables.items() if f"'{name}'" in statement]


@pytest.mark.parametrize(
    ("variables", "word"),
    [
        ({"log_bin": "OFF"}, "log_bin"),
        ({"binlog_format": "STATEMENT"}, "binlog_format"),
        ({"binlog_row_image": "MINIMAL"}, "binlog_row_image"),
        ({"binlog_checksum": "CRC32"}, "binlog_checksum"),
        ({"log_slave_updates": "OFF", "replica": True}, "log_slave_updates"),
        ({"log_slave_updates": "OFF"}, None),
    ],
)
def test_a_source_that_does_not_log_as_changes_need_it_is_fatal(variables: dict[str, Any], word: str | None) -> None:
    good = {"log_bin": "ON", "binlog_format": "ROW", "binlog_row_image": "FULL", "binlog_checksum": "NONE"}
    source = Scripted(**{**good, "log_slave_updates": "ON", **variables})
    if word is None:
        source.require_cdc()
    else:
        with pytest.raises(FatalError, match=word):
            source.require_cdc()


@pytest.mark.parametrize(
    ("statement", "place"),
    [
        ("INSERT INTO s.t VALUES (1)", ("s", "t")),
        ("insert ignore into `t` (a) values (1)", ("db", "t")),
        ("UPDATE `s`.`t` SET a = 1", ("s", "t")),
        ("UPDATE LOW_PRIORITY t SET a = 1", ("db", "t")),
        ("DELETE QUICK FROM t WHERE a = 1", ("db", "t")),
        ("REPLACE t VALUES (1)", ("db", "t")),
        ("BEGIN", None),
        ("CREATE TABLE t (a INT)", None),
    ],
)
def test_a_statement_in_the_place_of_rows_is_told(statement: str, place: tuple[str, str] | None) -> None:
    told: list[Any] = []
    follower = Follower(Scripted(), Position("binlog.000001", 4), 1, lambda *_: None)
    follower.ignored = lambda schema, table, text: told.append((schema, table))
    follower._query(SimpleNamespace(query=statement, schema=b"db"), Transaction(), Position("binlog.000001", 9))
    assert told == ([place] if place else [])
