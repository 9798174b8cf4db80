"""A teardown leaves nothing of its own and touches nothing of others, whatever AWS answers."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from dbops.blue_green import resources, teardown
from dbops.blue_green.teardown import Removal
from tests.blue_green import rds_kit
from tests.blue_green.fake_rds import AwsError, FakeRds, Thing
from tests.blue_green.rds_kit import EXPIRES, NAME, OTHER, TAGS

SWITCHED = "SWITCHOVER_COMPLETED"


def rehearsal(rds: FakeRds, name: str = "blue", tags: list[dict[str, str]] = TAGS) -> dict[str, Thing]:
    """A cluster with a reader, its groups and a snapshot."""
    rds.add("cluster-pg", f"{name}-pg", tags)
    rds.add("pg", f"{name}-ipg", tags)
    cluster = rds.add("cluster", name, tags, group=f"{name}-pg")
    writer = rds.add("db", f"{name}-1", tags, cluster=cluster, writer=True, group=f"{name}-ipg")
    reader = rds.add("db", f"{name}-2", tags, cluster=cluster, group=f"{name}-ipg")
    rds.add("cluster-snapshot", f"{name}-s", tags)
    return {"cluster": cluster, "writer": writer, "reader": reader}


def deploy(rds: FakeRds, blue: Thing, status: str = "AVAILABLE", tags: list[dict[str, str]] = TAGS) -> dict[str, Thing]:
    """A green side without tags, as AWS makes it."""
    green = rds.add("cluster", f"{blue.name}-green-abcdef", [])
    writer = rds.add("db", f"{blue.name}-1-green-abcdef", [], cluster=green, writer=True)
    deployment = rds.add("deployment", f"{blue.name}-bg", tags, source=blue, target=green, status=status)
    return {"deployment": deployment, "green": green, "green_writer": writer}


def switch(blue: dict[str, Thing], made: dict[str, Thing]) -> None:
    """What a switchover does to names."""
    for old, new in ((blue["cluster"], made["green"]), (blue["writer"], made["green_writer"])):
        old.name, new.name = f"{old.name}-old1", old.name
    made["deployment"].status = SWITCHED


def remove(rds: FakeRds, minutes: float = 30, **more: Any) -> Removal:
    return teardown.remove(rds, NAME, rds.now, rds.wait, rds.now() + timedelta(minutes=minutes), **more)


def order(rds: FakeRds) -> list[str]:
    return [call for call in rds.calls if call.startswith("delete")]


def test_nothing_there_is_nothing_done() -> None:
    rds = FakeRds()
    rds.wait = pytest.fail  # type: ignore[method-assign,assignment]
    assert remove(rds) == Removal((), (), ())


def test_everything_goes_in_order_and_others_stay() -> None:
    rds = FakeRds()
    blue = rehearsal(rds)
    made = deploy(rds, blue["cluster"])
    rehearsal(rds, "other", OTHER)
    rehearsal(rds, "bystander", [])
    removal = remove(rds)
    assert (removal.left, removal.errors, removal.is_complete) == ((), (), True)
    assert {r.identifier for r in removal.removed} == {
        "blue", "blue-1", "blue-2", "blue-s", "blue-pg", "blue-ipg", "blue-bg", "blue-green-abcdef", "blue-1-green-abcdef",
    }  # fmt: skip
    assert all(name.startswith(("other", "bystander")) for name in rds.names())
    assert len(rds.names()) == 12
    assert order(rds) == [
        f"delete_blue_green_deployment {made['deployment'].id}",
        "delete_db_instance blue-2",
        "delete_db_instance blue-1",
        "delete_db_cluster blue",
        "delete_db_cluster_snapshot blue-s",
        "delete_db_cluster_parameter_group blue-pg",
        "delete_db_parameter_group blue-ipg",
    ]
    assert remove(rds) == Removal((), (), ())


def test_after_a_completed_switchover_both_sides_go_one_by_one() -> None:
    rds = FakeRds()
    blue = rehearsal(rds)
    made = deploy(rds, blue["cluster"])
    switch(blue, made)
    removal = remove(rds)
    assert (removal.is_complete, rds.names()) == (True, set())
    assert {"blue-old1", "blue-1-old1", "blue", "blue-1"} <= {r.identifier for r in removal.removed}
    first = order(rds)[0]
    assert first == f"delete_blue_green_deployment {made['deployment'].id}"


def test_a_green_side_without_tags_is_tagged_before_the_proof_of_it_goes() -> None:
    rds = FakeRds()
    blue = rehearsal(rds)
    made = deploy(rds, blue["cluster"])
    switch(blue, made)
    rds.fail("add_tags_to_resource", "Throttling", times=3)
    remove(rds)
    assert rds.names() == set()
    deletion = rds.calls.index(f"delete_blue_green_deployment {made['deployment'].id}")
    tagged = [call for call in rds.calls[:deletion] if call.startswith("add_tags")]
    assert len(tagged) >= 5  # three refused, then the cluster and its instance


def test_tags_that_show_late_are_waited_for() -> None:
    """Right after AddTagsToResource a description may still be without them."""
    rds = FakeRds()
    blue = rehearsal(rds)
    made = deploy(rds, blue["cluster"])
    made["green"].protected = True

    def late(arguments: dict[str, Any]) -> None:
        arguments["Tags"] = []

    rds.script("add_tags_to_resource", late, late)
    assert remove(rds).is_complete
    assert rds.names() == set()


def test_a_name_that_moved_since_the_listing_is_followed() -> None:
    """The listing says blue-2; then it is blue-2-old1, and blue-2 is somebody else's."""
    rds = FakeRds()
    blue = rehearsal(rds)

    def rename(_: dict[str, Any]) -> None:
        blue["reader"].name = "blue-2-old1"
        rds.add("db", "blue-2", [])

    # Instances are described once for the list and, once the clusters were read, again for the first deletion.
    rds.script("describe_db_instances", None, rename)
    removal = remove(rds)
    assert "delete_db_instance blue-2-old1" in rds.calls
    assert "delete_db_instance blue-2" not in rds.calls
    assert (removal.is_complete, rds.names()) == (True, {"blue-2"})


@pytest.mark.parametrize("change", ["tags", "name", "production"])
def test_what_stops_being_ours_between_list_and_deletion_is_left_alone(change: str) -> None:
    rds = FakeRds()
    blue = rehearsal(rds)

    def taken(_: dict[str, Any]) -> None:
        reader = blue["reader"]
        if change == "tags":
            reader.tags.clear()
        elif change == "name":
            reader.tags[resources.NAME] = "other-1"
        else:
            reader.tags["env"] = "prod"

    rds.script("describe_db_instances", None, taken)
    removal = remove(rds, minutes=5)
    assert not any("blue-2" in call for call in rds.calls)
    assert {"blue", "blue-2"} <= rds.names()  # a cluster cannot go while a member stays
    assert "blue-1" not in rds.names()
    assert any("blue-2" in text for text in removal.errors)
    assert not removal.is_complete
    if change == "tags":
        assert "instance blue-2 has lost its tags meanwhile and is left alone" in removal.errors


@pytest.mark.parametrize("status", ["PROVISIONING", "SWITCHOVER_IN_PROGRESS"])
def test_a_deployment_at_work_is_waited_for_and_nothing_is_pulled_away(status: str) -> None:
    rds = FakeRds()
    blue = rehearsal(rds)
    made = deploy(rds, blue["cluster"], status)

    def done() -> None:
        assert order(rds) == []
        if status == "SWITCHOVER_IN_PROGRESS":
            assert rds.calls == []  # not even a tag is changed
        if status == "PROVISIONING":
            made["deployment"].status = "AVAILABLE"
        else:
            switch(blue, made)

    rds.waits = [lambda: None, lambda: None, done]
    assert remove(rds).is_complete
    assert rds.names() == set()


@pytest.mark.parametrize("status", ["PROVISIONING", "SWITCHOVER_IN_PROGRESS"])
@pytest.mark.parametrize("refused", [False, True])
def test_a_deployment_that_stays_at_work_is_left_whole_at_the_deadline(status: str, refused: bool) -> None:
    rds = FakeRds()
    made = deploy(rds, rehearsal(rds)["cluster"], status)
    if refused:  # not even an error that is given up may lead to deletions beside it
        made["deployment"].tags["env"] = "prod"
    before = rds.names()
    removal = remove(rds, minutes=2)
    assert (order(rds), rds.names()) == ([], before)
    assert rds.now() - rds_kit.NOW == timedelta(minutes=2)
    assert len(removal.left) >= 7
    assert any("never touches production" if refused else f"is {status}" in text for text in removal.errors)


def test_a_switchover_that_begins_just_before_the_deletion_is_waited_for() -> None:
    rds = FakeRds()
    blue = rehearsal(rds)
    made = deploy(rds, blue["cluster"])
    for thing in (made["green"], made["green_writer"]):
        thing.tags |= {tag["Key"]: tag["Value"] for tag in TAGS}

    def begins(_: dict[str, Any]) -> None:
        made["deployment"].status = "SWITCHOVER_IN_PROGRESS"

    rds.script("delete_blue_green_deployment", begins)
    rds.waits = [lambda: None, lambda: switch(blue, made)]
    assert remove(rds).is_complete
    assert rds.names() == set()
    assert sum("delete_blue_green_deployment" in call for call in rds.calls) == 2


@pytest.mark.parametrize("status", ["INVALID_CONFIGURATION", "SWITCHOVER_FAILED", "AVAILABLE"])
def test_green_goes_with_its_deployment_before_a_switchover(status: str) -> None:
    rds = FakeRds()
    deploy(rds, rehearsal(rds)["cluster"], status)
    remove(rds)
    assert rds.names() == set()
    assert not any("-green-" in call for call in order(rds))


def test_a_target_of_somebody_else_keeps_its_deployment() -> None:
    rds = FakeRds()
    made = deploy(rds, rehearsal(rds)["cluster"])
    made["green"].tags = {"env": "prod"}
    removal = remove(rds, minutes=5)
    assert {"blue-bg", "blue-green-abcdef", "blue-1-green-abcdef"} <= rds.names()
    assert any("env=prod" in text for text in removal.errors)


def test_nothing_is_tagged_for_a_deployment_that_is_not_to_be_touched() -> None:
    rds = FakeRds()
    made = deploy(rds, rehearsal(rds)["cluster"])
    made["deployment"].tags["env"] = "prod"
    removal = remove(rds, minutes=5)
    assert not any(call.startswith("add_tags") for call in rds.calls)
    assert {"blue-bg", "blue-green-abcdef"} <= rds.names()
    assert any("never touches production" in text for text in removal.errors)


def test_a_throttled_last_look_is_taken_again() -> None:
    rds = FakeRds()
    rehearsal(rds)
    looks = 0

    def at_the_end(_: dict[str, Any]) -> None:
        nonlocal looks
        looks += not rds.names()
        if looks in (2, 3):  # the first one ended the rounds
            raise AwsError("Throttling")

    rds.script("describe_db_parameter_groups", *[at_the_end] * 100)
    assert remove(rds).is_complete
    assert looks == 4


def test_deletion_protection_of_ours_is_lifted() -> None:
    rds = FakeRds()
    blue = rehearsal(rds)
    made = deploy(rds, blue["cluster"])
    made["green"].protected = blue["cluster"].protected = True
    rds.add("db", "solo", TAGS, writer=True, protected=True)
    bystander = rehearsal(rds, "bystander", [])["cluster"]
    bystander.protected = True
    assert remove(rds).is_complete
    assert bystander.protected
    assert rds.names() == {f"bystander{end}" for end in ("", "-1", "-2", "-s", "-pg", "-ipg")}


@pytest.mark.parametrize(
    "call",
    [
        "describe_blue_green_deployments", "describe_db_clusters", "describe_db_instances", "describe_db_cluster_snapshots",
        "list_tags_for_resource", "delete_blue_green_deployment", "delete_db_instance", "delete_db_cluster",
        "delete_db_cluster_snapshot", "delete_db_cluster_parameter_group", "add_tags_to_resource",
    ],
)  # fmt: skip
@pytest.mark.parametrize("code", ["Throttling", "ThrottlingException", "RequestLimitExceeded", "ServiceUnavailable"])
def test_throttling_of_any_call_only_takes_time(call: str, code: str) -> None:
    rds = FakeRds()
    deploy(rds, rehearsal(rds)["cluster"])
    rds.fail(call, code, times=7)
    removal = remove(rds)
    assert (removal.errors, rds.names()) == ((), set())


def test_an_api_that_never_answers_is_no_success() -> None:
    rds = FakeRds()
    rehearsal(rds)
    rds.fail("describe_db_snapshots", "Throttling", times=1000)
    removal = remove(rds, minutes=2)
    assert not removal.is_complete
    assert "Throttling" in removal.errors[0]
    assert order(rds) == []


def test_a_writer_waits_for_readers_that_cannot_go_yet() -> None:
    rds = FakeRds()
    blue = rehearsal(rds)
    blue["reader"].status = "modifying"

    def settle() -> None:
        assert blue["writer"].status == "available"
        blue["reader"].status = "available"

    rds.waits = [lambda: None, lambda: None, settle]
    assert remove(rds).is_complete
    assert rds.names() == set()


def test_an_api_that_refuses_is_not_asked_for_an_hour() -> None:
    rds = FakeRds()
    rehearsal(rds)
    rds.fail("describe_db_clusters", "AccessDenied", times=1000)
    removal = remove(rds)
    assert "AccessDenied" in removal.errors[0]
    assert rds.now() - rds_kit.NOW < timedelta(minutes=2)


def test_tags_of_parameter_groups_are_not_asked_for_while_something_uses_them() -> None:
    rds = FakeRds()
    rehearsal(rds)["writer"].rounds = 10

    def early(_: dict[str, Any]) -> None:
        assert not rds.of("db")

    rds.script("list_tags_for_resource", *[early] * 100)
    assert remove(rds).is_complete


def test_states_that_pass_are_waited_for() -> None:
    rds = FakeRds()
    blue = rehearsal(rds)
    blue["writer"].status, blue["cluster"].status = "modifying", "backing-up"

    def settle() -> None:
        blue["writer"].status = blue["cluster"].status = "available"

    rds.waits = [lambda: None, lambda: None, lambda: None, lambda: None, lambda: None, settle]
    assert remove(rds).is_complete
    assert rds.names() == set()


def test_an_error_of_one_does_not_keep_the_others() -> None:
    rds = FakeRds()
    blue = rehearsal(rds)
    rds.fail("delete_db_cluster_snapshot", "AccessDenied", times=1000)
    removal = remove(rds)
    assert rds.names() == {"blue-s"}
    assert [r.identifier for r in removal.left] == ["blue-s"]
    assert removal.errors[0].startswith("cluster snapshot blue-s: AccessDenied")
    assert rds.now() - rds_kit.NOW < timedelta(minutes=2)  # given up, not waited for
    assert blue["cluster"] not in rds.things


def test_a_reader_that_cannot_go_keeps_its_cluster_but_not_the_writer() -> None:
    rds = FakeRds()
    rehearsal(rds)

    def no(arguments: dict[str, Any]) -> None:
        if arguments["DBInstanceIdentifier"] == "blue-2":
            raise AwsError("AccessDenied")

    rds.script("delete_db_instance", *[no] * 100)
    removal = remove(rds)
    assert rds.names() == {"blue", "blue-2", "blue-pg", "blue-ipg"}
    assert len(removal.errors) == 4
    assert "cluster blue cannot go before instance blue-2" in removal.errors
    assert rds.now() - rds_kit.NOW < timedelta(minutes=2)


def test_an_instance_of_others_in_our_cluster_is_named() -> None:
    rds = FakeRds()
    blue = rehearsal(rds)
    rds.add("db", "their-reader", [], cluster=blue["cluster"])
    removal = remove(rds, minutes=5)
    assert any("instance their-reader is in it" in text for text in removal.errors)
    assert rds.names() == {"blue", "their-reader", "blue-pg", "blue-ipg"}


def test_a_replica_goes_before_its_source() -> None:
    rds = FakeRds()
    source = rds.add("db", "a-source", TAGS)
    rds.add("db", "b-replica", TAGS, source=source)
    assert remove(rds).is_complete
    assert order(rds) == ["delete_db_instance b-replica", "delete_db_instance a-source"]


def test_what_others_deleted_meanwhile_is_no_error() -> None:
    rds = FakeRds()
    blue = rehearsal(rds)
    rds.script("delete_db_instance", lambda _: rds.things.remove(blue["reader"]))
    assert remove(rds).is_complete
    assert rds.names() == set()


def test_a_slow_deletion_is_reported_at_the_deadline() -> None:
    rds = FakeRds()
    writer = rehearsal(rds)["writer"]
    writer.rounds = 1000

    def lost(_: dict[str, Any]) -> None:
        writer.status = "deleting"
        raise TimeoutError("the answer to the deletion was lost")

    rds.script("delete_db_instance", None, lost)
    removal = remove(rds, minutes=2)
    assert {r.identifier: r.status for r in removal.left if r.kind == "instance"} == {"blue-1": "deleting"}
    assert "instance blue-1 is deleting at the end" in removal.errors
    assert "blue-2" in {r.identifier for r in removal.removed}


@pytest.mark.parametrize(("expiry", "goes"), [("any", True), ("past", False)])
def test_the_janitors_way_spares_what_has_not_expired(expiry: Any, goes: bool) -> None:
    rds = FakeRds()
    rehearsal(rds)
    before = rds.names()
    removal = remove(rds, minutes=2, expiry=expiry)
    assert (rds.names() == set()) is goes
    if not goes:
        assert rds.names() == before
        assert any("expires only at 2026-03-01 09:00 UTC" in text for text in removal.errors)
    rds.clock = EXPIRES
    assert remove(rds, expiry=expiry).is_complete
    assert rds.names() == set()


def test_a_teardown_that_is_killed_anywhere_is_finished_by_the_next() -> None:
    class KilledError(BaseException):
        pass

    def kill(_: dict[str, Any]) -> None:
        raise KilledError

    deletions = 7
    for point in range(deletions):
        rds = FakeRds()
        deploy(rds, rehearsal(rds)["cluster"])
        count = 0
        begin = rds._begin

        def counting(
            call: str, arguments: dict[str, Any], begin: Callable[..., None] = begin, point: int = point
        ) -> None:
            nonlocal count
            begin(call, arguments)
            if call.startswith("delete"):
                count += 1
                if count == point + 1:
                    kill(arguments)

        rds._begin = counting  # type: ignore[method-assign]
        with pytest.raises(KilledError):
            remove(rds)
        assert remove(rds).is_complete
        assert rds.names() == set()


def test_left_lists_what_stands() -> None:
    rds = FakeRds()
    rehearsal(rds)
    rehearsal(rds, "other", OTHER)
    assert {r.identifier for r in teardown.left(rds, NAME)} == {
        "blue",
        "blue-1",
        "blue-2",
        "blue-s",
        "blue-pg",
        "blue-ipg",
    }
    assert replace(teardown.left(rds, NAME)[0], status="x").identifier == "blue"


def test_with_motos_rds_nothing_is_left() -> None:
    with rds_kit.moto_rds() as rds:
        arn = rds_kit.cluster(rds, "blue", TAGS)
        rds_kit.cluster(rds, "foreign", OTHER, members=1)
        rds.modify_db_cluster(DBClusterIdentifier="blue", DeletionProtection=True)
        rds.create_db_cluster_snapshot(DBClusterIdentifier="blue", DBClusterSnapshotIdentifier="blue-s", Tags=TAGS)
        rds.create_db_instance(
            DBInstanceIdentifier="solo", Engine="mysql", EngineVersion="5.7.44", DBInstanceClass="db.r5.large",
            AllocatedStorage=20, MasterUsername="master", MasterUserPassword="a-password", Tags=TAGS,
        )  # fmt: skip
        rds.create_db_snapshot(DBInstanceIdentifier="solo", DBSnapshotIdentifier="solo-s", Tags=TAGS)
        rds.create_blue_green_deployment(
            BlueGreenDeploymentName="blue-bg", Source=arn, TargetEngineVersion=rds_kit.NEW, Tags=TAGS
        )
        minutes = itertools.count()
        removal = teardown.remove(
            rds,
            NAME,
            lambda: rds_kit.NOW + timedelta(minutes=next(minutes)),
            lambda: None,
            rds_kit.NOW + timedelta(hours=1),
        )
        assert removal.errors == ()
        assert resources.found(rds, NAME) == []
        assert [c["DBClusterIdentifier"] for c in rds.describe_db_clusters()["DBClusters"]] == ["foreign"]
