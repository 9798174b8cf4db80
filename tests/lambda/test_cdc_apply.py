"""The function that applies DMS's Kinesis records to DynamoDB."""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import cdc_kit
import pytest
from cdc_apply import apply, changes, handler, values
from cdc_apply.settings import KINDS, Settings, SettingsError, Table, parse, position, read
from cdc_apply.values import RejectError
from cdc_kit import FakeDynamo, Kept, change, load
from moto import mock_aws

from lab import dynamodb

ROW = {"id": 5, "city": "Köln", "price": 12.5}


def version(at: int, record: int = 1, epoch: int = 0) -> dict[str, str]:
    return {"S": f"{epoch:04d}.0000000007.{at:012d}.{record:010d}"}


def tombstone(at: int, key: str = "5") -> dict[str, Any]:
    return {"pk": {"N": key}, "_v": version(at), "_deleted": {"BOOL": True}}


def response(batch: Any) -> list[str]:
    return [each["itemIdentifier"] for each in batch.response["batchItemFailures"]]


@pytest.fixture(scope="module")
def own_account() -> Any:
    return dynamodb.client(f"test{uuid.uuid4().hex}")


@pytest.fixture(params=["fake", pytest.param("dynamodb", marks=pytest.mark.lab)])
def client(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Both have to agree, so that what is played with the fake alone, because it takes so many writes, holds for the store."""
    if request.param == "fake":
        yield FakeDynamo()
        return
    store = cdc_kit.Store(request.getfixturevalue("own_account"))
    with store.table():
        yield store


# --- what the rule says -----------------------------------------------------------------------------------------------


def test_a_row_becomes_an_item_and_its_end_a_tombstone(client: Any) -> None:
    batch = cdc_kit.apply(client, [change("insert", 100, ROW)], cdc_kit.settings())
    assert client.item({"N": "5"}) == {
        "pk": {"N": "5"}, "id": {"N": "5"}, "city": {"S": "Köln"}, "price": {"N": "12.5"}, "_v": version(100),
    }  # fmt: skip
    assert response(batch) == []
    cdc_kit.apply(client, [change("delete", 200, ROW)], cdc_kit.settings())
    assert client.item({"N": "5"}) == tombstone(200)


def test_older_never_overwrites_newer(client: Any) -> None:
    using = cdc_kit.settings()
    cdc_kit.apply(client, [change("update", 300, {**ROW, "city": "Ulm"})], using)
    late = [change("insert", 100, ROW), change("delete", 200, ROW), change("update", 300, {**ROW, "city": "Ulm"})]
    outcomes = [cdc_kit.apply(client, [each], using).counts["shop.rides"] for each in late]
    assert [(c["Older"], c["Same"], c["Written"]) for c in outcomes] == [(1, 0, 0), (1, 0, 0), (0, 1, 0)]
    assert (client.item({"N": "5"}) or {})["city"] == {"S": "Ulm"}


def test_a_deleted_row_is_not_resurrected_but_a_new_one_replaces_the_tombstone(client: Any) -> None:
    using = cdc_kit.settings()
    for late in (change("delete", 200, ROW), change("insert", 100, ROW), load(ROW)):
        cdc_kit.apply(client, [late], using)
        assert client.item({"N": "5"}) == tombstone(200)
    cdc_kit.apply(client, [change("insert", 300, ROW)], using)
    assert "_deleted" not in (client.item({"N": "5"}) or {})


def test_an_attribute_that_is_gone_from_the_row_is_gone_from_the_item(client: Any) -> None:
    using = cdc_kit.settings()
    cdc_kit.apply(client, [change("insert", 100, ROW)], using)
    cdc_kit.apply(client, [change("update", 200, {**ROW, "city": None})], using)
    assert "city" not in (client.item({"N": "5"}) or {})


def test_two_changes_in_one_event_are_told_apart_by_their_record(client: Any) -> None:
    first = change("update", 100, {**ROW, "city": "a"})
    second = change("update", 100, {**ROW, "city": "b"}, **{"transaction-record-id": 2})
    cdc_kit.apply(client, [second], cdc_kit.settings())
    cdc_kit.apply(client, [first], cdc_kit.settings())
    assert (client.item({"N": "5"}) or {})["city"] == {"S": "b"}


def test_the_log_after_the_last_of_six_digits_is_newer() -> None:
    def ranked(place: str) -> Any:
        said = changes.record(
            json.dumps(change("insert", 1, ROW, **{"stream-position": place})).encode(), cdc_kit.settings()
        )
        return changes.writes(said, cdc_kit.settings())[0].rank

    places = ["bin.000009:900", "bin.000010:4", "bin.000010:4000", "bin.999999:5", "bin.1000000:5"]
    assert [*map(ranked, places)] == sorted(map(ranked, places))


def test_a_changed_primary_key_leaves_a_tombstone_under_the_old_one(client: Any) -> None:
    using = cdc_kit.settings()
    cdc_kit.apply(client, [change("insert", 100, ROW)], using)
    cdc_kit.apply(client, [change("update", 200, {**ROW, "id": 6}, {"id": 5})], using)
    assert client.item({"N": "5"}) == tombstone(200)
    assert (client.item({"N": "6"}) or {})["_v"] == version(200)


def test_an_update_without_before_image_is_refused_unless_that_is_accepted(client: Any) -> None:
    said = change("update", 100, ROW)
    del said["before-image"]
    kept = Kept()
    cdc_kit.apply(client, [said], cdc_kit.settings(), kept)
    assert "BeforeImageSettings" in next(iter(kept.found.values()))
    cdc_kit.apply(client, [said], cdc_kit.settings(before_image=""))
    assert client.item({"N": "5"})


def test_another_server_needs_another_epoch(client: Any) -> None:
    cdc_kit.apply(client, [change("insert", 900, ROW)], cdc_kit.settings())
    after = [change("update", 100, {**ROW, "city": "new"})]
    cdc_kit.apply(client, after, cdc_kit.settings())
    assert (client.item({"N": "5"}) or {})["city"] == {"S": "Köln"}
    cdc_kit.apply(client, after, cdc_kit.settings(epoch=1))
    assert (client.item({"N": "5"}) or {})["_v"] == version(100, epoch=1)


# --- the full load ----------------------------------------------------------------------------------------------------


def test_a_loaded_row_never_overwrites_a_change(client: Any) -> None:
    using = cdc_kit.settings()
    cdc_kit.apply(client, [change("update", 4, {**ROW, "city": "new"})], using)
    cdc_kit.apply(client, [load(ROW)], using)
    assert (client.item({"N": "5"}) or {})["city"] == {"S": "new"}


def test_of_two_loads_the_later_read_wins_in_any_order(client: Any) -> None:
    using = cdc_kit.settings()
    times = [
        "2026-11-29T10:00:00Z",
        "2026-11-29T10:00:00.5Z",
        "2026-11-29T11:00:00+01:00",
        "2026-11-29T09:59:59.999999Z",
    ]
    for at in times:
        cdc_kit.apply(client, [load({**ROW, "city": at}, at)], using)
    assert (client.item({"N": "5"}) or {})["city"] == {"S": times[1]}


def test_a_reload_repairs_what_was_lost_before_it_and_loses_to_what_came_after(client: Any) -> None:
    using = cdc_kit.settings({"load_position": "mysql-bin-changelog.000007:500"})
    cdc_kit.apply(client, [change("delete", 100, ROW), change("update", 600, {**ROW, "id": 6, "city": "after"})], using)
    cdc_kit.apply(client, [load({**ROW, "city": "reloaded"}), load({**ROW, "id": 6, "city": "reloaded"})], using)
    assert [(client.item({"N": key}) or {})["city"]["S"] for key in "56"] == ["reloaded", "after"]
    cdc_kit.apply(client, [change("update", 500, {**ROW, "city": "first change"})], using)
    assert (client.item({"N": "5"}) or {})["city"] == {"S": "first change"}


# --- versions of the row ----------------------------------------------------------------------------------------------

BY_COLUMN = {"version": {"column": "rev"}}


def test_the_version_can_be_a_column_and_then_also_orders_the_load(client: Any) -> None:
    using = cdc_kit.settings(BY_COLUMN)
    for rev in (9, 10, 2):
        cdc_kit.apply(client, [load({**ROW, "rev": rev})], using)
    assert (client.item({"N": "5"}) or {})["_v"] == {"N": "10"}


def test_the_end_of_a_row_beats_the_row_of_the_same_version_and_repeats_itself_without_effect(
    client: Any,
) -> None:
    using = cdc_kit.settings(BY_COLUMN)
    row = {**ROW, "rev": 3}
    cdc_kit.apply(client, [change("insert", 1, row)], using)
    first, again = (cdc_kit.apply(client, [change("delete", 2, row)], using).counts["shop.rides"] for _ in range(2))
    assert (first["Tombstones"], again["Same"]) == (1, 1)
    cdc_kit.apply(client, [change("update", 1, row)], using)
    assert "_deleted" in (client.item({"N": "5"}) or {})


def test_a_time_as_version_is_compared_as_time(client: Any) -> None:
    using = cdc_kit.settings({"version": {"column": "at", "kind": "timestamp"}})
    for at in ("2026-11-29T10:00:00Z", "2026-11-29T10:00:00.25Z", "2026-11-29T10:00:00.1Z"):
        cdc_kit.apply(client, [change("update", 1, {**ROW, "at": at})], using)
    assert (client.item({"N": "5"}) or {})["_v"] == {"N": "1795946400250000"}


@pytest.mark.parametrize("there", [{}, {"_v": {"N": "1"}}, {"_v": {"BOOL": False}}])
def test_an_item_of_somebody_else_stays(client: Any, there: dict[str, Any]) -> None:
    item = {"pk": {"N": "5"}, **there}
    client.hold(item)
    batch = cdc_kit.apply(client, [change("insert", 1, ROW), change("delete", 2, ROW)], cdc_kit.settings())
    assert client.item({"N": "5"}) == item
    assert batch.counts["shop.rides"]["Foreign"] == 1
    assert "kept an item" in batch.out.getvalue()  # type: ignore[attr-defined]


# --- values -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "text", "expected"),
    [
        ("integer", "18446744073709551615", {"N": "18446744073709551615"}),
        ("integer", "1.8446744073709551615E+19", {"N": "18446744073709551615"}),
        ("integer", '"9223372036854775807"', {"N": "9223372036854775807"}),
        ("integer", "1.8446744073709552E+19", "scientific notation"),
        ("integer", "9.223372036854775E+18", "scientific notation"),
        ("integer", "1.2345678901234568E+16", "scientific notation"),
        ("integer", "1.0E+16", "scientific notation"),
        ("integer", "1.234567E+6", {"N": "1234567"}),
        ("integer", "1.5", "no whole number"),
        ("integer", '"1_0"', "no whole number"),
        ("integer", "true", "no whole number"),
        ("", "1.8446744073709552E+19", "scientific notation"),
        ("", "12345678901234567.5", {"N": "12345678901234567.5"}),
        ("", "-0.00", {"N": "-0"}),
        ("", "true", {"BOOL": True}),
        ("", '"text"', {"S": "text"}),
        ("", '{"a": [1, null]}', {"M": {"a": {"L": [{"N": "1"}, {"NULL": True}]}}}),
        ("number", "1.8446744073709552E+19", {"N": "18446744073709552000"}),
        ("number", "1.7976931348623157E+308", "beyond"),
        ("number", "1.5E-200", "beyond"),
        ("number", '"12.50"', {"N": "12.5"}),
        ("number", '"NaN"', "no number"),
        ("number", "1" * 39, "more than 38 digits"),
        ("number", "1" + "0" * 60, {"N": "1E+60"}),
        ("string", "1" * 65, {"S": "1" * 65}),
        ("string", "12.50", {"S": "12.50"}),
        ("string", "1.8446744073709552E+19", "rounded"),
        ("string", "[]", "no text"),
        ("boolean", "1", {"BOOL": True}),
        ("boolean", '"\\u0000"', {"BOOL": False}),
        ("boolean", "2", "neither"),
        ("binary", '"0xDEADBEEF"', {"B": b"\xde\xad\xbe\xef"}),
        ("binary", '"dead"', {"B": b"\xde\xad"}),
        ("binary", '"dea"', "hexadecimal"),
        ("json", '"{\\"a\\": 1.10, \\"b\\": 1e20}"', {"M": {"a": {"N": "1.1"}, "b": {"N": "100000000000000000000"}}}),
        ("json", '"{"', "not JSON"),
        ("json", '"{\\"\\": 1}"', "without a name"),
        ("json", json.dumps("[" * 32 + "]" * 32), "nested"),
        ("", "[" * 32 + "]" * 32, "nested"),
        ("set", "1", "no SET"),
        ("set", '"b,a"', {"SS": ["a", "b"]}),
        ("set", '""', None),
    ],
)  # fmt: skip
def test_a_value_is_exact_or_refused(kind: str, text: str, expected: Any) -> None:
    value = values.loads(text)
    if isinstance(expected, str):
        with pytest.raises(RejectError, match=expected) as caught:
            values.convert(value, kind, "c")
        assert len(text) < 5 or text.strip('"') not in str(caught.value)
    else:
        assert values.convert(value, kind, "c") == expected


@pytest.mark.parametrize("text", ["", "{", "NaN", "[Infinity]", '"\\ud800"', b"\xff\xfe", "[" * 100_000, "1" * 5000])
def test_what_is_no_json_is_refused(text: str | bytes) -> None:
    with pytest.raises(RejectError):
        values.loads(text)


def test_a_rounded_number_is_never_part_of_a_key_or_a_version(client: Any) -> None:
    said = json.dumps(change("insert", 1, {**ROW, "id": 0, "rev": 0}))
    kept = Kept()
    for table, name in (
        ({}, "id"),
        ({"key": {"pk": "R#{id}"}}, "id"),
        ({"key": {"pk": "R#{id:20}"}}, "id"),
        (BY_COLUMN, "rev"),
    ):
        text = said.replace(f'"{name}": 0', f'"{name}": 1.844674407370955E+19')
        cdc_kit.apply(client, [text], cdc_kit.settings({"columns": {name: "number"}, **table}), kept)
    assert ["scientific" in reason for reason in kept.found.values()] == [True] * 4
    assert client.puts == 0


@pytest.mark.parametrize(
    ("size", "is_cut"), [(1024, True), (1022, True), (1020, False), (5000, True), (0, False)]
)  # fmt: skip
def test_a_lob_that_reaches_the_limit_may_be_cut(client: Any, size: int, is_cut: bool) -> None:
    kept = Kept()
    using = cdc_kit.settings({"lobs": {"body": 1, "blob": 1}, "columns": {"blob": "binary"}, "absent": "omit"})
    text, binary = {**ROW, "body": "x" * size}, {**ROW, "blob": "0x" + "ab" * size}
    cdc_kit.apply(client, [change("insert", 1, text)], using, kept)
    assert [("LOB" in reason) for reason in kept.found.values()] == [True] * is_cut
    cdc_kit.apply(client, [change("insert", 2, binary)], using, kept := Kept())
    assert bool(kept.found) == (size >= 1024)


def test_a_lob_that_is_not_carried_does_not_empty_the_item(client: Any) -> None:
    using = cdc_kit.settings({"columns": {"body": "string"}})
    kept = Kept()
    cdc_kit.apply(client, [change("insert", 1, {**ROW, "body": "long"}), change("update", 2, ROW)], using, kept)
    assert (client.item({"N": "5"}) or {})["body"] == {"S": "long"}
    assert ["it lacks body" in reason for reason in kept.found.values()] == [True]


def test_null_is_left_out_or_kept_as_the_table_says(client: Any) -> None:
    row = {**ROW, "city": None, "tags": ""}
    table = {"columns": {"tags": "set"}, "nulls": "null", "rename": {"city": "town"}, "exclude": ["price"]}
    cdc_kit.apply(client, [change("insert", 1, row)], cdc_kit.settings(table))
    expected = {"pk": {"N": "5"}, "id": {"N": "5"}, "town": {"NULL": True}, "tags": {"NULL": True}, "_v": version(1)}
    assert client.item({"N": "5"}) == expected


# --- keys -------------------------------------------------------------------------------------------------------------


def test_a_key_is_text_with_values_that_cannot_be_mistaken() -> None:
    using = cdc_kit.settings({"key": {"pk": "USER#{user}", "sk": "R#{kind}#{id:6}"}})

    def key(**row: Any) -> Any:
        found = changes.writes(changes.record(json.dumps(change("delete", 1, row)).encode(), using), using)
        return tuple(each["S"] for each in found[0].key.values())

    assert key(user="a#b", kind="k", id=42) == ("USER#a#b", "R#k#000042")
    assert key(user="ä", kind="x#y%", id=7) == ("USER#ä", "R#x%23y%25#000007")
    assert key(user=1, kind="x%23y", id=7) != key(user=1, kind="x#y", id=7)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"user": None, "id": 1}, "lacks the key column user"),
        ({"id": 1}, "lacks the key column user"),
        ({"user": "a", "id": -1}, "does not fit"),
        ({"user": "a", "id": 1000}, "does not fit"),
        ({"user": "x" * 2049, "id": 1}, "has 2049 bytes"),
        ({"user": "", "id": 1}, "has 0 bytes"),
        ({"user": True, "id": 1}, "neither string"),
    ],
)
def test_a_row_without_a_sound_key_is_refused(client: Any, row: dict[str, Any], reason: str) -> None:
    kept = Kept()
    batch = cdc_kit.apply(
        client, [change("insert", 1, row)], cdc_kit.settings({"key": {"pk": "{user}", "sk": "{id:3}"}}), kept
    )
    assert [reason in each for each in kept.found.values()] == [True]
    assert response(batch) == []


# --- records that are no change of a row ------------------------------------------------------------------------------


def control(operation: str, table: str = "shop.rides", **more: Any) -> Any:
    return {"control": {}, "metadata": cdc_kit.metadata(operation, table, **{"record-type": "control", **more})}


def test_control_records_write_nothing_and_what_changes_rows_is_refused(client: Any) -> None:
    kept = Kept()
    harmless = [control(each) for each in ("create-table", "drop-table", "add-column")]
    harmless.append(control("create-table", ".awsdms_apply_exceptions"))
    others = [control(each) for each in ("truncate-table", "rename-table", "drop-column", "something-new")]
    others.append(control("drop-table", **{"stream-position": "bin.000007:9"}))
    batch = cdc_kit.apply(client, harmless + others, cdc_kit.settings(), kept)
    assert client.puts == 0
    assert [each.partition(":")[0] for each in kept.found.values()] == [
        "control record truncate-table", "control record rename-table", "control record drop-column", "control record something-new",
        "control record drop-table",
    ]  # fmt: skip
    assert batch.counts["shop.rides"]["Control"] == 3
    assert response(batch) == []


def test_what_dms_could_not_apply_is_counted(client: Any) -> None:
    said = change("insert", 1, {"ERROR": "secret"}, **{"schema-name": "", "table-name": "awsdms_apply_exceptions"})
    batch = cdc_kit.apply(client, [said], cdc_kit.settings())
    assert batch.counts[".awsdms_apply_exceptions"]["ApplyExceptions"] == 1
    assert "secret" not in batch.out.getvalue()  # type: ignore[attr-defined]


def test_an_unknown_table_is_refused_or_ignored(client: Any) -> None:
    said, kept = change("insert", 1, ROW, **{"table-name": "other"}), Kept()
    cdc_kit.apply(client, [said], cdc_kit.settings(), kept)
    assert [*kept.found.values()] == ["the settings have no such table"]
    assert response(cdc_kit.apply(client, [said], cdc_kit.settings(unmapped="ignore"))) == []
    assert client.puts == 0


@pytest.mark.parametrize(
    "said",
    [
        "{", "[]", "{}", '{"metadata": {}}', {"metadata": cdc_kit.metadata("insert"), "data": []},
        change("upsert", 1, ROW), change("insert", 1, ROW, **{"stream-position": "?"}), change("insert", 1, ROW, **{"record-type": "x"}),
        change("insert", 1, ROW, **{"transaction-record-id": None}), {**change("update", 1, ROW), "before-image": []},
    ],
)  # fmt: skip
def test_what_is_no_record_of_dms_is_refused(client: Any, said: Any) -> None:
    kept = Kept()
    good = cdc_kit.event(change("insert", 1, ROW))
    batch = cdc_kit.apply(client, [said, good], cdc_kit.settings(), kept)
    assert (len(kept.found), response(batch), client.puts) == (1, [], 1)
    batch = cdc_kit.apply(client, [cdc_kit.event(said, 11), good], cdc_kit.settings())
    assert response(batch) == ["11"]  # without a place for rejects the mapping has to give up on it


# --- batches ----------------------------------------------------------------------------------------------------------


def test_of_one_item_only_the_newest_version_is_written(client: Any) -> None:
    records = [change("update", at, {**ROW, "city": str(at)}) for at in (300, 100, 900, 200)]
    batch = cdc_kit.apply(client, records, cdc_kit.settings())
    assert (client.puts, batch.counts["shop.rides"]["Superseded"]) == (1, 3)
    assert (client.item({"N": "5"}) or {})["city"] == {"S": "900"}


class Failing(FakeDynamo):
    """Fails for items of a city."""

    def __init__(self, city: str, error: Exception) -> None:
        super().__init__()
        self.city, self.error = city, error

    def put_item(self, **asked: Any) -> None:
        if asked["Item"].get("city") == {"S": self.city}:
            raise self.error
        super().put_item(**asked)


def test_every_record_of_an_item_that_was_not_written_is_reported() -> None:
    client = Failing("bad", cdc_kit.error("ProvisionedThroughputExceededException", "slow down"))
    rows = [(10, 5, "a"), (11, 6, "a"), (12, 5, "bad"), (13, 7, "a")]
    events = [cdc_kit.event(change("insert", at, {"id": key, "city": city}), at) for at, key, city in rows]
    batch = cdc_kit.apply(client, events, cdc_kit.settings(), Kept())
    assert response(batch) == ["10", "12"]
    assert len(client.items) == 2
    client.city = "none"
    assert response(cdc_kit.apply(client, events, cdc_kit.settings(), Kept())) == []
    assert (client.item({"N": "5"}) or {})["city"] == {"S": "bad"}


def test_an_item_that_is_too_large_is_refused_and_the_version_before_it_written() -> None:
    client, kept = (
        Failing("bad", cdc_kit.error("ValidationException", "Item size has exceeded the maximum allowed size")),
        Kept(),
    )
    events = [cdc_kit.event(change("insert", at, {"id": 5, "city": city}), at) for at, city in ((10, "a"), (11, "bad"))]
    assert response(cdc_kit.apply(client, events, cdc_kit.settings(), kept)) == []
    assert [*kept.found] == ["11"]
    assert (client.item({"N": "5"}) or {})["city"] == {"S": "a"}


@pytest.mark.parametrize(
    "failure", [cdc_kit.error("ValidationException", "Type mismatch for key pk"), OSError("no network")]
)
def test_what_the_settings_or_the_network_cause_is_no_reject(failure: Exception) -> None:
    kept = Kept()
    batch = cdc_kit.apply(
        Failing("Köln", failure), [cdc_kit.event(change("insert", 1, ROW), 11)], cdc_kit.settings(), kept
    )
    assert (response(batch), kept.found) == (["11"], {})


def test_without_time_left_no_write_begins(client: Any) -> None:
    left = iter([10_000, 10_000, 2_000, 1_000])
    events = [cdc_kit.event(change("insert", 1, {"id": key}), key) for key in range(10, 14)]
    batch = cdc_kit.apply(client, events, cdc_kit.settings(threads=1), remaining_ms=lambda: next(left))
    assert (response(batch), client.puts) == (["12", "13"], 2)


def test_a_reject_that_cannot_be_kept_is_reported(client: Any) -> None:
    class Broken:
        def put(self, *_: Any) -> None:
            raise OSError("no bucket")

    batch = cdc_kit.apply(client, [cdc_kit.event("{", 11)], cdc_kit.settings(), Broken())
    assert response(batch) == ["11"]


def test_the_lines_are_json_say_numbers_and_hold_no_value_of_a_row(client: Any) -> None:
    row = {**ROW, "city": "classified"}
    bad = {**row, "id": None}
    batch = cdc_kit.apply(
        client,
        [change("insert", 1, row), change("insert", 2, bad), change("delete", 3, row)],
        cdc_kit.settings(),
        Kept(),
    )
    text = batch.out.getvalue()  # type: ignore[attr-defined]
    lines = [json.loads(line) for line in text.splitlines()]
    (metrics,) = (line for line in lines if "_aws" in line)
    assert {k: v for k, v in metrics.items() if k != "_aws"} == {
        "Table": "shop.rides", "Records": 2, "Rejected": 1, "Written": 1, "Tombstones": 1, "Superseded": 1, "CommitToApply": 10_000.0,
    }  # fmt: skip
    named = {metric["Name"] for metric in metrics["_aws"]["CloudWatchMetrics"][0]["Metrics"]}
    assert named == metrics.keys() - {"_aws", "Table"}
    assert "classified" not in text


# --- settings ---------------------------------------------------------------------------------------------------------


def test_every_error_of_the_settings_is_said_at_once() -> None:
    with pytest.raises(SettingsError) as caught:
        parse(
            {
                "tables": {
                    "shop.rides": {
                        "target": "", "key": {"pk": "{a}{b}"}, "columns": {"a": "float"}, "version": {"kind": "time"},
                        "load_position": "today", "typo": 1,
                    },
                    "rides": {"target": "t", "key": {}},
                },
                "epoch": -1, "unmapped": "maybe", "rejects": "bucket", "more": True, "version": "_deleted",
            }
        )  # fmt: skip
    text = str(caught.value)
    for said in (
        "shop.rides.target", "text between", "columns.a", "version.column", "version.kind", "load_position", "unknown typo",
        "tables.rides: expected schema.table", "tables.rides.key", "epoch", "unmapped", "rejects", "unknown more", "three different",
    ):  # fmt: skip
        assert said in text, said


@pytest.mark.parametrize("template", ["{}", "{id!r}", "{id:x}", "{id:0}", "plain", "{id", "", "{id}%{car}"])
def test_a_template_that_is_none_is_refused(template: str) -> None:
    with pytest.raises(SettingsError, match=r"tables\.shop\.rides\.key\.pk"):
        cdc_kit.settings({"key": {"pk": template}})


def test_settings_may_be_a_file_of_the_package(tmp_path: Any) -> None:
    text = json.dumps({"tables": {"shop.rides": {"target": "t", "key": {"pk": "{id}"}}}})
    (tmp_path / "rides.json").write_text(text)
    assert read("rides.json", tmp_path) == read(text, tmp_path)
    for wrong in ("", "none.json", "{"):
        with pytest.raises(SettingsError, match="CDC_SETTINGS"):
            read(wrong, tmp_path)


def test_the_example_of_the_readme_is_read_and_names_every_setting() -> None:
    readme = (Path(handler.__file__).parent / "README.md").read_text()
    plain = json.loads(readme.partition("```json\n")[2].partition("```")[0])
    assert parse(plain).tables["shop.rides"].load_position == (24, 373)
    assert plain.keys() == Settings.__dataclass_fields__.keys()
    assert {*plain["tables"]["shop.rides"], "version_column", "version_kind"} - {"version"} == {
        *Table.__dataclass_fields__
    }
    assert all(f"`{kind}`" in readme for kind in KINDS)


def test_a_column_that_would_hide_an_attribute_of_the_function_stops_it(client: Any) -> None:
    for row, table in (({**ROW, "_v": 1}, {}), ({**ROW, "pk": 9}, {})):
        with pytest.raises(SettingsError, match="rename or exclude it"):
            cdc_kit.apply(client, [change("insert", 1, row)], cdc_kit.settings(table))
    assert client.puts == 0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mysql-bin-changelog.000024:373", (24, 373)),
        ("mysql-bin-changelog.157832:1975:-1:2002:677883278264080:mysql-bin-changelog.157832:1876#0#0#*#0#93", (157832, 1975)),
        ("binlog.000007.1234.8", (7, 1234)),
        ("my.host.name-bin.000007:9", (7, 9)),
        ("00000002/7C007178.3.00000002/7C007178", None),
        ("2026-11-29T10:00:00", None),
        ("", None),
    ],
)  # fmt: skip
def test_a_position_is_the_number_of_the_log_and_the_offset(text: str, expected: Any) -> None:
    assert position(text) == expected


# --- the entry point, against an account ------------------------------------------------------------------------------


class Context:
    def get_remaining_time_in_millis(self) -> int:
        return 60_000


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    table = {"target": "rides", "key": {"pk": "{id}"}}
    monkeypatch.setenv("CDC_SETTINGS", json.dumps({"tables": {"shop.rides": table}, "rejects": "s3://rejects/cdc"}))
    handler._resources.cache_clear()
    with mock_aws():
        dynamodb, s3 = boto3.client("dynamodb"), boto3.client("s3")
        dynamodb.create_table(
            TableName="rides", BillingMode="PAY_PER_REQUEST", KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "N"}],
        )  # fmt: skip
        s3.create_bucket(Bucket="rejects", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
        yield dynamodb, s3
    handler._resources.cache_clear()


def test_the_entry_point_applies_a_batch(account: Any, capsys: pytest.CaptureFixture[str]) -> None:
    dynamodb, s3 = account
    poison = cdc_kit.event("{", 12)
    large = cdc_kit.event(change("insert", 3, {"id": 6, "city": "x" * 420_000}), 13)
    event = {"Records": [cdc_kit.event(change("insert", 1, ROW), 11), poison, large]}
    for _ in range(2):
        assert handler.lambda_handler(event, Context()) == {"batchItemFailures": []}
    found = [base64.b64decode(json.loads(s3.get_object(Bucket="rejects", Key=each["Key"])["Body"].read())["event"]["kinesis"]["data"])
             for each in s3.list_objects_v2(Bucket="rejects", Prefix="cdc/")["Contents"]]  # fmt: skip
    assert sorted(len(each) for each in found) == [1, len(base64.b64decode(large["kinesis"]["data"]))]
    assert [item["pk"] for item in dynamodb.scan(TableName="rides")["Items"]] == [{"N": "5"}]
    assert capsys.readouterr().out.count('"Rejected": 1') == 4


def test_the_condition_means_the_same_to_an_account_as_to_the_fake(account: Any) -> None:
    dynamodb, _ = account
    using = cdc_kit.settings()
    log = [{"S": "a"}, {"S": "b"}, {"N": "9"}, {"N": "10"}]
    there = [None, {}, *({"_v": each} for each in log), *({"_v": each, "_deleted": {"BOOL": True}} for each in log)]
    for number, item in enumerate(there):
        for wanted in log:
            for attributes in ({}, None):
                key = {"pk": {"N": str(number)}}
                fake, outcomes = FakeDynamo(), []
                dynamodb.delete_item(TableName="rides", Key=key)
                if item is not None:
                    dynamodb.put_item(TableName="rides", Item={**key, **item})
                    fake.items["rides", json.dumps([key["pk"]])] = {**key, **item}
                write = changes.Write("shop.rides", using.tables["shop.rides"], key, wanted, attributes)
                outcomes = [apply.put(each, write, using, 0.0) for each in (dynamodb, fake)]
                assert outcomes[0] == outcomes[1], (item, wanted, attributes)
                assert dynamodb.get_item(TableName="rides", Key=key)["Item"] == fake.item(key["pk"])


def test_a_tombstone_expires_only_when_that_is_asked_for() -> None:
    plain, expiring = (cdc_kit.settings(table) for table in ({}, {"tombstone_days": 2}))
    for using, expected in ((plain, None), (expiring, {"N": str(1000 + 2 * 86_400)})):
        write = changes.Write("shop.rides", using.tables["shop.rides"], {"pk": {"N": "1"}}, {"S": "v"}, None)
        assert apply.request(write, using, 1000.9)["Item"].get("_exp") == expected


def test_nothing_is_applied_by_a_function_without_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CDC_SETTINGS", raising=False)
    handler._resources.cache_clear()
    with pytest.raises(SettingsError, match="CDC_SETTINGS is empty"):
        handler.lambda_handler({"Records": []}, Context())


@pytest.mark.parametrize("zeros", [36, 37, 38, 39, 125])
def test_a_power_of_ten_is_read_back_by_the_client_of_the_store(zeros: int) -> None:
    from boto3.dynamodb.types import TypeDeserializer

    assert TypeDeserializer().deserialize(values.number(10**zeros, "fare")) == 10**zeros
