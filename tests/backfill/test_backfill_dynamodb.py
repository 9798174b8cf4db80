"""The target DynamoDB: outcomes are those of the rules whatever the service does meanwhile; limits, pressures, rejects."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from dbops.backfill import dynamodb
from dbops.backfill.dynamodb import DynamoTarget
from dbops.backfill.target import Overloaded, Pressure, TargetError
from dbops.keyvalue import rules
from dbops.keyvalue.items import Item, canonical
from dbops.keyvalue.rules import Condition, Outcome, Version, Write
from tests.backfill import dynamo_kit as kit
from tests.backfill.dynamo_kit import NAMES, FakeDynamo, Purse, client_error, refused, statements, tombstone, write

THROTTLED = ("ProvisionedThroughputExceeded", "The level of configured provisioned throughput was exceeded")


@pytest.fixture
def client() -> FakeDynamo:
    return FakeDynamo()


@pytest.fixture
def users(client: FakeDynamo) -> Iterator[DynamoTarget]:
    with kit.target(client) as made:
        yield made


def there(number: int) -> st.SearchStrategy[Item | None]:
    live = st.builds(
        lambda version, name: rules.document(write(number, version, name), NAMES),
        st.integers(1, 4),
        st.sampled_from("AB"),
    )
    dead = st.builds(lambda version: rules.document(tombstone(number, version), NAMES), st.integers(1, 4))
    odd = st.sampled_from([kit.key(number), {**kit.key(number), "_v": {"S": "000001"}}])
    return st.none() | live | dead | odd


CASES = st.integers(1, 60).flatmap(
    lambda count: st.tuples(
        st.tuples(*[there(number) for number in range(count)]),
        st.tuples(*[st.sampled_from([write(n, 2), write(n, 3, "B"), tombstone(n, 2)]) for n in range(count)]),
    )
)
BATCH_FAULTS = st.sampled_from([
    refused("ThrottlingException"), refused("RequestLimitExceeded"), refused("InternalServerError", status=500),
    kit.lost_answer, kit.broken,
    statements({0: THROTTLED, 3: ("InternalServerError", ""), 4: ("ThrottlingError", "")}), statements({1: ("TransactionConflict", "")}),
    statements({2: ("ConditionalCheckFailed", "")}),
])  # fmt: skip
PUT_FAULTS = st.sampled_from([
    refused("ProvisionedThroughputExceededException", reasons=[("TableWriteKeyRangeThroughputExceeded", "arn:aws:dynamodb:::table/users")]),
    refused("InternalServerError", status=500), kit.lost_answer, kit.broken,
])  # fmt: skip
READ_FAULTS = st.sampled_from([refused("ThrottlingException"), refused("InternalServerError", status=500), kit.broken])


@settings(max_examples=100, deadline=None, phases=[Phase.explicit, Phase.generate])
@given(
    CASES,
    st.lists(BATCH_FAULTS, max_size=4),
    st.lists(PUT_FAULTS, max_size=4),
    st.lists(READ_FAULTS, max_size=3),
)
def test_whatever_the_service_does_the_outcomes_are_those_of_the_rules(
    case: tuple[tuple[Item | None, ...], tuple[Write, ...]],
    batches: list[kit.Fault], puts: list[kit.Fault], reads: list[kit.Fault],
) -> None:  # fmt: skip
    before, writes = case
    client = FakeDynamo()
    for item in before:
        if item is not None:
            client.seed(item)
    for operation, faults in (("batch_execute_statement", batches), ("put_item", puts), ("batch_get_item", reads)):
        client.faults[operation].extend(faults)
    with kit.target(client) as users:
        sent = users.write(writes, Purse())
    for number, (item, asked, found) in enumerate(zip(before, writes, sent.outcomes, strict=True)):
        after, expected = rules.put(Condition.NEWER, item, asked, NAMES)
        assert canonical(client.item(number) or {}) == canonical(after or {})
        # Where the very item was there before, nobody can tell whether a write whose answer was lost has made it.
        was_there = item is not None and canonical(item) == canonical(rules.document(asked, NAMES))
        assert found.reason == expected.reason or (was_there and found.is_written), (item, asked, found)
    assert len(sent.outcomes) == len(writes)
    assert not sent.rejects
    for states in client.history.values():
        assert len(states) <= 1  # nothing is written twice, however often it was sent


def test_calls_have_25_statements_and_are_cut_by_bytes(
    client: FakeDynamo, users: DynamoTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    users.write([write(number) for number in range(60)], Purse())
    assert sorted(client.sizes) == [10, 25, 25]
    client.sizes.clear()
    monkeypatch.setattr(dynamodb, "BATCH_BYTES", 10_000)
    users.write([write(100 + number, name="x" * 4_000) for number in range(5)], Purse())
    assert sorted(client.sizes) == [1, 2, 2]


def test_a_statement_that_would_be_too_long_is_put(client: FakeDynamo, users: DynamoTarget) -> None:
    wide = Write(kit.key(1), Version(1), {f"attribute_{number:03d}": {"S": "x"} for number in range(500)})
    assert users.write([wide, write(2)], Purse()).outcomes == [Outcome(), Outcome()]
    assert client.calls == {"batch_execute_statement": 1, "put_item": 1}


def test_an_item_that_is_too_large_is_rejected_and_never_sent(client: FakeDynamo, users: DynamoTarget) -> None:
    sent = users.write([write(1), write(2, name="x" * 410_000), write(3)], Purse())
    assert [outcome.reason for outcome in sent.outcomes] == [None, "missing", None]
    assert sent.rejects.keys() == {1}
    assert "410," in sent.rejects[1]
    assert client.sizes == [2]


@pytest.mark.parametrize("place", [0, 12, 24])
def test_one_malformed_item_of_25_does_not_take_the_others_with_it(
    client: FakeDynamo, users: DynamoTarget, place: int
) -> None:
    writes = [write(number) for number in range(25)]
    writes[place] = Write(kit.key(place), Version(1), {"name": {"N": "1e400"}})
    sent = users.write(writes, Purse())
    assert {number for number, outcome in enumerate(sent.outcomes) if not outcome.is_written} == {place}
    assert sent.rejects == {place: "DynamoDB refuses the item: ValidationException (Number overflow)"}
    assert len(client.items) == 24


def test_the_reason_of_a_reject_has_no_value_of_the_row(client: FakeDynamo, users: DynamoTarget) -> None:
    client.faults["batch_execute_statement"].append(
        statements({0: ("ValidationError", "The parameter cannot be converted to a numeric value: secret")})
    )
    (reason,) = users.write([write(1)], Purse()).rejects.values()
    assert reason == "DynamoDB refuses the item: ValidationError (cannot be converted to a numeric value)"


def test_two_rows_of_one_key_are_refused_before_anything_is_written(client: FakeDynamo, users: DynamoTarget) -> None:
    with pytest.raises(TargetError, match=r"two rows of one page have the key .*USER#7"):
        users.write([*(write(number) for number in range(30)), write(7, 2)], Purse())
    assert not client.calls


def test_a_row_that_is_turned_away_inside_a_batch_is_asked_for_its_reason(
    client: FakeDynamo, users: DynamoTarget
) -> None:
    client.faults["batch_execute_statement"].append(statements({1: THROTTLED, 2: THROTTLED}))
    client.faults["put_item"].append(
        refused(
            "ProvisionedThroughputExceededException",
            reasons=[
                ("TableWriteKeyRangeThroughputExceeded", "arn:aws:dynamodb:eu-central-1:123456789012:table/users")
            ],
        )
    )
    purse = Purse()
    sent = users.write([write(number) for number in range(4)], purse)
    assert all(outcome.is_written for outcome in sent.outcomes)
    told = Pressure("key_range", "TableWriteKeyRangeThroughputExceeded", "users")
    assert sent.pressures == {Pressure("table", "ProvisionedThroughputExceeded", "users"): 2, told: 1}
    assert [pressure.kind for pressure, _ in purse.eased_by] == ["table", "key_range"]
    assert client.calls["put_item"] == 2


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("TableWriteProvisionedThroughputExceeded", "table"),
        ("TableWriteKeyRangeThroughputExceeded", "key_range"),
        ("TableWriteAccountLimitExceeded", "account"),
        ("TableWriteMaxOnDemandThroughputExceeded", "on_demand_limit"),
        ("IndexWriteProvisionedThroughputExceeded", "index"),
        ("IndexWriteKeyRangeThroughputExceeded", "index"),
    ],
    ids=str,
)
def test_each_reason_has_its_kind(client: FakeDynamo, users: DynamoTarget, reason: str, kind: str) -> None:
    client.faults["batch_execute_statement"].append(refused("ThrottlingException", reasons=[(reason, "users")]))
    sent = users.write([write(1)], Purse())
    assert [(pressure.kind, pressure.reason) for pressure in sent.pressures] == [(kind, reason)]


def test_a_store_that_takes_nothing_is_overloaded_after_a_while(client: FakeDynamo) -> None:
    client.faults["batch_execute_statement"].extend([refused("ThrottlingException")] * 1000)
    client.faults["put_item"].extend([refused("ThrottlingException")] * 1000)
    with (
        kit.target(client, max_wait_s=30) as users,
        pytest.raises(Overloaded, match="2 writes were turned away") as told,
    ):
        users.write([write(1), write(2)], Purse())
    assert told.value.pressure.reason == "ThrottlingException"
    assert client.calls["batch_execute_statement"] < 30  # the pauses grow


def test_progress_gives_a_batch_more_time(client: FakeDynamo) -> None:
    slow = [statements(dict.fromkeys(range(1, left), THROTTLED)) for left in range(25, 1, -1)]
    client.faults["batch_execute_statement"].extend(
        itertools.chain.from_iterable((refused("ThrottlingException"), each) for each in slow)
    )
    with kit.target(client, max_wait_s=1) as users:
        assert all(
            outcome.is_written for outcome in users.write([write(number) for number in range(25)], Purse()).outcomes
        )


@pytest.mark.parametrize(
    "fault", [kit.lost_answer, kit.broken, refused("InternalServerError", status=500)], ids=["lost", "broken", "500"]
)
def test_a_write_that_nobody_heard_of_counts_once(client: FakeDynamo, users: DynamoTarget, fault: kit.Fault) -> None:
    client.faults["batch_execute_statement"].append(fault)
    sent = users.write([write(number) for number in range(10)], Purse())
    assert all(outcome.is_written for outcome in sent.outcomes)
    assert {len(states) for states in client.history.values()} == {1}


def test_somebody_elses_item_of_the_same_version_is_not_ours_after_a_lost_answer(
    client: FakeDynamo, users: DynamoTarget
) -> None:
    client.seed(rules.document(write(1, stamp="another run"), NAMES))
    client.faults["batch_execute_statement"].append(kit.lost_answer)
    assert users.write([write(1)], Purse()).outcomes[0].reason == "equal"


def test_a_page_that_is_written_again_costs_reads_only(client: FakeDynamo, users: DynamoTarget) -> None:
    page = [write(number) for number in range(50)]
    users.write(page, Purse())
    client.calls.clear()
    assert {outcome.reason for outcome in users.write(page, Purse()).outcomes} == {"equal"}
    assert client.calls == {"batch_execute_statement": 2, "batch_get_item": 2}


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("AccessDeniedException", "not authorized to perform dynamodb:PartiQLInsert"),
        ("ResourceNotFoundException", "Cannot do operations on a non-existent table"),
        ("ValidationException", "One or more parameter values were invalid: Type mismatch for key"),
    ],
    ids=lambda text: str(text).split(" ")[0],
)
def test_a_table_that_cannot_be_written_ends_the_copy(
    client: FakeDynamo, users: DynamoTarget, code: str, message: str
) -> None:
    client.faults["batch_execute_statement"].append(refused(code, message))
    with pytest.raises(TargetError, match=code):
        users.write([write(1)], Purse())


def test_indexes_raise_what_is_asked_of_the_pace(client: FakeDynamo, users: DynamoTarget) -> None:
    def twice(arguments: kit.Answer, carry_out: object) -> kit.Answer:
        return {**carry_out(), "ConsumedCapacity": [{"CapacityUnits": 2.0 * len(arguments["Statements"])}]}  # type: ignore[operator]

    client.faults["batch_execute_statement"].extend([twice] * 40)
    first, last = Purse(), Purse()
    sent = users.write([write(number) for number in range(25)], first)
    assert (sent.units, first.units) == (50.0, 25.0)
    for page in range(1, 30):
        last = Purse()
        users.write([write(100 * page + number) for number in range(25)], last)
    assert 49 < last.units <= 50


def test_reads_keep_the_order_of_the_keys(client: FakeDynamo, users: DynamoTarget) -> None:
    for number in range(0, 250, 2):
        client.seed(rules.document(write(number), NAMES))

    def half(arguments: kit.Answer, carry_out: object) -> kit.Answer:
        keys = arguments["RequestItems"]["users"]["Keys"]
        arguments["RequestItems"] = {"users": {"Keys": keys[:50], "ConsistentRead": True}}
        return {**carry_out(), "UnprocessedKeys": {"users": {"Keys": keys[50:]}}}  # type: ignore[operator]

    client.faults["batch_get_item"].extend([half, refused("ThrottlingException"), kit.broken])
    found = users.read([kit.key(number) for number in range(250)])
    assert [item is not None for item in found] == [number % 2 == 0 for number in range(250)]
    assert all(item["id"] == {"N": str(number)} for number, item in enumerate(found) if item)


def test_each_read_pays_for_those_before_it(client: FakeDynamo) -> None:
    """With what the service says they cost, and by the size of what came where it says nothing."""
    large = {**rules.document(write(0), NAMES), "text": {"S": "x" * 9_000}}  # 3 read units
    client.seed(large)

    def priced(units: float) -> kit.Fault:
        return lambda arguments, carry_out: {**carry_out(), "ConsumedCapacity": {"CapacityUnits": units}}

    reads = Purse()
    with kit.target(client, reads=reads) as users:
        client.faults["batch_get_item"].append(priced(70.5))
        users.read([kit.key(number) for number in range(150)])  # 100 for 70.5, and 50 that are not there
        assert reads.spent == [70.5]
        users.read([kit.key(0), kit.key(1)])
        client.faults["scan"].append(priced(8))
        list(users.scan(0, 1))
        list(users.scan(0, 1))
        users.read([kit.key(1)])
    assert reads.spent == [70.5, 50, 4, 8, 3]


def test_reads_that_are_turned_away_slow_all_readers(client: FakeDynamo) -> None:
    reads = Purse()
    client.faults["batch_get_item"].append(refused(*THROTTLED))
    with kit.target(client, reads=reads) as users:
        users.read([kit.key(1)])
    assert [pressure.kind for pressure, _ in reads.eased_by] == ["table"]


def test_reads_that_are_turned_away_for_good_end(client: FakeDynamo) -> None:
    client.faults["batch_get_item"].extend([refused("ThrottlingException")] * 1000)
    with kit.target(client, max_wait_s=5) as users, pytest.raises(Overloaded, match="reads were turned away"):
        users.read([kit.key(1)])


def test_a_mistake_of_our_own_is_not_retried(client: FakeDynamo, users: DynamoTarget) -> None:
    def wrong(arguments: kit.Answer, carry_out: object) -> kit.Answer:
        raise KeyError("ours")

    client.faults["batch_execute_statement"].append(wrong)
    with pytest.raises(KeyError, match="ours"):
        users.write([write(1)], Purse())


def test_a_refused_condition_of_put_is_final(client: FakeDynamo, users: DynamoTarget) -> None:
    client.seed(rules.document(write(1, 1), NAMES))

    def overtaken(arguments: kit.Answer, carry_out: object) -> kit.Answer:
        client.seed(newer := rules.document(write(1, 9), NAMES))
        raise client_error("ConditionalCheckFailedException", item=newer)

    client.faults["put_item"].append(overtaken)
    sent = users.write([write(1, 2)], Purse())
    assert sent.outcomes[0].reason == "newer"
    assert client.item(1) == rules.document(write(1, 9), NAMES)


def test_a_scan_goes_on_after_it_was_turned_away(client: FakeDynamo, users: DynamoTarget) -> None:
    users.write([write(1)], Purse())
    client.faults["scan"].extend([refused(*THROTTLED), kit.broken])
    assert [page.items for page in users.scan(0, 1)] == [list(client.items.values())]
    client.faults["scan"].extend([refused(*THROTTLED)] * 100)
    with kit.target(client, max_wait_s=5) as hasty, pytest.raises(Overloaded, match="reads were turned away"):
        list(hasty.scan(0, 1))


@pytest.mark.parametrize(
    "fault", [refused(*THROTTLED), kit.broken, kit.lost_answer], ids=["throttled", "broken", "lost"]
)
def test_a_removal_is_sent_again_and_counts_once(client: FakeDynamo, users: DynamoTarget, fault: kit.Fault) -> None:
    users.write([write(1)], Purse())
    client.faults["delete_item"].append(fault)
    assert users.remove(kit.key(1), Version(1), "run")
    assert not client.items
    assert not users.remove(kit.key(1), Version(1), "run"), "nothing was there"


def test_what_was_written_after_a_lost_answer_was_not_removed(client: FakeDynamo, users: DynamoTarget) -> None:
    users.write([write(1)], Purse())

    def overtaken(arguments: kit.Answer, carry_out: object) -> kit.Answer:
        client.seed(rules.document(write(1, 2), NAMES))
        return kit.broken(arguments, dict)

    client.faults["delete_item"].append(overtaken)
    assert not users.remove(kit.key(1), Version(1), "run")
    assert client.item(1) == rules.document(write(1, 2), NAMES)
