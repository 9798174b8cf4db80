"""The decision over its whole input space: there always is one, it is what AWS allows, and nothing is emptied without an approval.

The space has 31 million points, but the function reads few of the values on each of its ways. So it is given a thing that
answers one value at a time and is asked again with every other value that it might have read: each way is followed once, and stands for
every point that agrees with what was read on it (the function is pure and has nothing else to read).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, get_args, get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dbops.dms import decision, states
from dbops.dms.decision import Action, Decision, Known
from dbops.dms.mappings import Table
from dbops.dms.states import PLANNED_STOPS, TRANSIENT
from tests.dms.dms_kit import table_row, task_row


def domain(kind: Any) -> tuple[Any, ...]:
    return (False, True) if kind is bool else get_args(kind)


DOMAINS = {name: domain(kind) for name, kind in get_type_hints(Known).items()}
Path = dict[str, Any]


class _Unread(Exception):
    """A value is read that the way has not fixed yet."""


class _Lazy:
    def __init__(self, fixed: Mapping[str, Any]) -> None:
        self.fixed = fixed

    def __getattr__(self, name: str) -> Any:
        if name not in self.fixed:
            raise _Unread(name)
        return self.fixed[name]


def ways() -> Iterator[tuple[Path, Decision]]:
    """Every way through the function, with the values that it has read."""
    open_ways: list[Path] = [{}]
    while open_ways:
        fixed = open_ways.pop()
        try:
            found = decision.decide(_Lazy(fixed))  # type: ignore[arg-type]
        except _Unread as unread:
            name = str(unread)
            open_ways += [{**fixed, name: value} for value in DOMAINS[name]]
        else:
            yield fixed, found


@pytest.fixture(scope="module")
def everything() -> list[tuple[Path, Decision]]:
    return list(ways())


def test_the_ways_are_the_whole_space(everything: list[tuple[Path, Decision]]) -> None:
    """Each way stands for the product of what it has not read; together that is every point, none twice."""
    points = 1
    for values in DOMAINS.values():
        points *= len(values)
    covered = 0
    for path, _ in everything:
        share = points
        for name in path:
            share //= len(DOMAINS[name])
        covered += share
    assert covered == points
    assert points == 30_965_760
    assert {found.action for _, found in everything} == set(get_args(Action))


def test_always_a_decision_with_a_reason(everything: list[tuple[Path, Decision]]) -> None:
    for path, found in everything:
        assert isinstance(found, Decision), path
        assert len(found.reason) > 10, path
        assert (found.action != "refuse") or found.next_step, path
        assert (found.proposed is None) or found.action == "refuse", path


def test_nothing_is_emptied_without_an_approval(everything: list[tuple[Path, Decision]]) -> None:
    for path, found in everything:
        if found.action == "reload_target" or (found.is_destructive and found.action != "refuse"):
            assert path.get("approved") is True, (path, found)
        if (
            found.action in ("start", "reload_tables")
            and path.get("approved") is not True
            and path["task_type"] != "cdc"
        ):
            assert path["empties"] is False, (path, found)
            if found.action == "start":
                assert path["position"] == "none", (path, found)
        if found.proposed is not None:
            assert path["approved"] is False, (path, found)


def test_an_approval_only_ever_turns_a_refusal_into_what_it_proposed(everything: list[tuple[Path, Decision]]) -> None:
    for path, found in everything:
        if "approved" in path:
            unapproved = decision.decide(_Lazy({**path, "approved": False}))  # type: ignore[arg-type]
            approved = decision.decide(_Lazy({**path, "approved": True}))  # type: ignore[arg-type]
            assert (unapproved.action, unapproved.proposed) == ("refuse", approved.action), (path, found)
            assert approved.is_destructive


def test_only_what_aws_allows(everything: list[tuple[Path, Decision]]) -> None:
    standing = ("ready", "stopped", "failed")
    for path, found in everything:
        status, action = path["status"], found.action
        if action in ("start", "cdc_from_checkpoint"):
            assert status in standing, path
            assert path["has_run"] is False, path
        if action in ("resume", "reload_target"):
            assert status in standing, path
            assert path["has_run"] is True, path
        if action == "reload_tables":
            assert status == "running", path
            assert path["task_type"] != "cdc", path
        if action in ("reload_target", "reload_tables"):
            assert path["task_type"] != "cdc", path
        if action == "cdc_from_checkpoint":
            assert path["task_type"] == "cdc", path
        if action == "resume" and path["task_type"] == "full-load":
            assert path["is_serverless"] is False, path


def test_a_transient_status_is_waited_for_and_an_unknown_one_is_refused(
    everything: list[tuple[Path, Decision]],
) -> None:
    for path, found in everything:
        if path["status"] in TRANSIENT:
            assert found.action == "wait", path
        if path["status"] in ("unknown", "missing", "deleting", "failed-move"):
            assert (found.action, found.proposed) == ("refuse", None), path
        if found.action == "wait":
            assert path["status"] in TRANSIENT or (path["status"], path["tables"]) == ("running", "loading"), path


def test_nothing_to_do_is_said_only_of_what_is_known_to_be_right(everything: list[tuple[Path, Decision]]) -> None:
    for path, found in everything:
        if found.action != "none" or path["wanted_stopped"]:
            continue
        if path["status"] == "running":
            assert path["tables"] == "complete", path
        elif path["task_type"] == "full-load":
            assert path["tables"] == "complete", path
            assert path["load_finished"] is True, path
        else:
            assert path["stop_reason"] in PLANNED_STOPS, path


def test_changes_are_not_read_on_over_a_gap(everything: list[tuple[Path, Decision]]) -> None:
    for path, found in everything:
        if found.action in ("resume", "cdc_from_checkpoint") and path["task_type"] != "full-load":
            asked = path["wish"] in ("start", "resume")
            unloaded = path["task_type"] == "full-load-and-cdc" and path.get("load_finished") is False
            allowed = {"covered", *(["unknown"] if asked else []), *(["none"] if unloaded else [])}
            assert path["position"] in allowed, path
        if path.get("position") == "purged":
            assert found.action not in ("resume", "cdc_from_checkpoint"), path


def test_what_fails_again_and_again_comes_to_a_person(everything: list[tuple[Path, Decision]]) -> None:
    for path, found in everything:
        if found.action == "resume" and path["wish"] == "ensure":
            assert path["may_restart"] is True, path
        if path.get("hindrance") == "fix_first" and path["wish"] == "ensure":
            assert found.action not in ("start", "resume", "reload_tables", "cdc_from_checkpoint"), path
        if path.get("hindrance") == "from_beginning" and path["status"] != "running":
            assert found.action not in ("resume", "cdc_from_checkpoint"), path


POINTS = st.builds(Known, **{name: st.sampled_from(values) for name, values in DOMAINS.items()})


@settings(max_examples=500, deadline=None)
@given(POINTS)
def test_any_point_is_on_one_of_the_ways(point: Known) -> None:
    given_ = dataclasses.asdict(point)
    found = decision.decide(point)
    assert found == decision.decide(_Lazy(given_))  # type: ignore[arg-type]
    matching = [expected for path, expected in _all() if all(given_[name] == value for name, value in path.items())]
    assert matching == [found]


_CACHE: list[tuple[Path, Decision]] = []


def _all() -> list[tuple[Path, Decision]]:
    if not _CACHE:
        _CACHE.extend(ways())
    return _CACHE


BASE = {
    "wish": "ensure", "task_type": "full-load-and-cdc", "is_serverless": False, "wanted_stopped": False,
    "status": "running", "has_run": True, "stop_reason": "", "load_finished": True, "position": "covered",
    "tables": "complete", "hindrance": "none", "may_restart": True, "empties": True, "approved": False,
}  # fmt: skip
FAILED = {"status": "failed", "stop_reason": "FATAL_ERROR"}
STOPPED = {"status": "stopped", "stop_reason": "NORMAL"}
NEW = {"status": "ready", "has_run": False, "load_finished": False, "position": "none", "tables": "unknown"}


@pytest.mark.parametrize(
    ("changed", "action", "word"),
    [
        ({}, "none", "every table is complete"),
        ({"tables": "failed"}, "refuse", "nobody has approved"),
        ({"tables": "failed", "empties": False}, "reload_tables", "without tables that failed"),
        ({"tables": "failed", "task_type": "cdc"}, "refuse", "loads no table"),
        ({"tables": "quarantined"}, "refuse", "too often"),
        ({"tables": "differ", "empties": False}, "reload_tables", "rows of source and target differ"),
        ({"tables": "differ", "task_type": "cdc"}, "refuse", "loads no table"),
        ({"tables": "failed", "empties": False, "hindrance": "fix_first"}, "refuse", "not repaired"),
        ({"tables": "failed", "empties": False, "hindrance": "fix_first", "wish": "reload_tables"}, "reload_tables", "asked for"),
        ({**STOPPED, "task_type": "full-load", "tables": "differ"}, "refuse", "differ"),
        ({**STOPPED, "task_type": "full-load", "tables": "differ", "approved": True}, "reload_target", "differ"),
        ({**FAILED, "hindrance": "fix_first", "wish": "resume"}, "resume", "has the log"),
        ({"tables": "loading"}, "wait", "loads tables"),
        ({"tables": "unknown"}, "refuse", "unknown"),
        ({"wanted_stopped": True}, "none", "plan stops it"),
        ({"wish": "reload_target", "approved": True}, "refuse", "needs a task that stands"),
        ({**NEW, "empties": False}, "start", "never run"),
        ({**NEW}, "refuse", "nobody has approved"),
        ({**NEW, "approved": True}, "start", "approved"),
        ({**NEW, "empties": False, "position": "covered"}, "refuse", "a task before it"),
        ({**NEW, "task_type": "cdc"}, "start", "from now on"),
        ({**NEW, "task_type": "cdc", "position": "covered"}, "cdc_from_checkpoint", "has the log"),
        ({**NEW, "task_type": "cdc", "position": "purged"}, "refuse", "lost"),
        ({**NEW, "task_type": "cdc", "position": "unknown"}, "refuse", "nobody knows"),
        ({**NEW, "task_type": "cdc", "position": "unknown", "wish": "start"}, "cdc_from_checkpoint", "a person asks"),
        ({**NEW, "wish": "resume"}, "refuse", "never run"),
        ({**STOPPED}, "resume", "has the log"),
        ({**STOPPED, "stop_reason": "STOPPED_AT_COMMIT_TIME"}, "none", "as it was told"),
        ({**STOPPED, "stop_reason": "STOPPED_AT_COMMIT_TIME", "wish": "resume"}, "resume", "has the log"),
        ({**STOPPED, "stop_reason": "STOPPED_DUE_TO_LOW_DISK"}, "refuse", "LOW_DISK"),
        ({**STOPPED, "stop_reason": "unknown"}, "refuse", "not known here"),
        ({**STOPPED, "status": "ready", "stop_reason": ""}, "resume", "has the log"),
        ({**STOPPED, "wanted_stopped": True}, "none", "it stands"),
        ({**STOPPED, "wish": "reload_target"}, "refuse", "nobody has approved"),
        ({**STOPPED, "wish": "reload_target", "approved": True}, "reload_target", "approved"),
        ({**STOPPED, "wish": "reload_target", "approved": True, "task_type": "cdc"}, "refuse", "loads nothing"),
        ({**STOPPED, "wish": "reload_tables"}, "refuse", "while the task runs"),
        ({**STOPPED, "position": "none", "load_finished": False}, "resume", "within its load"),
        ({**FAILED}, "resume", "FATAL_ERROR"),
        ({**FAILED, "may_restart": False}, "refuse", "too often"),
        ({**FAILED, "may_restart": False, "wish": "resume"}, "resume", "FATAL_ERROR"),
        ({**FAILED, "position": "purged"}, "refuse", "purged"),
        ({**FAILED, "position": "purged", "approved": True}, "reload_target", "purged"),
        ({**FAILED, "position": "none"}, "refuse", "no position is known"),
        ({**FAILED, "hindrance": "from_beginning", "approved": True}, "reload_target", "cannot be passed"),
        ({**FAILED, "hindrance": "fix_first"}, "refuse", "would fail again"),
        ({**STOPPED, "task_type": "full-load", "stop_reason": "FULL_LOAD_ONLY_FINISHED"}, "none", "finished"),
        ({**STOPPED, "task_type": "full-load", "tables": "failed"}, "resume", "complete ones are kept"),
        ({**STOPPED, "task_type": "full-load", "tables": "failed", "is_serverless": True}, "refuse", "cannot be resumed"),
        ({**FAILED, "task_type": "full-load"}, "refuse", "Compare|complete"),
        ({**NEW, "empties": False, "wish": "resume"}, "refuse", "nothing to go on with"),
        ({**NEW, "task_type": "cdc", "wish": "reload_target"}, "refuse", "loads nothing"),
        ({**STOPPED, "task_type": "full-load", "tables": "unknown"}, "refuse", "states of its tables are unknown"),
        ({**STOPPED, "task_type": "full-load", "tables": "quarantined"}, "refuse", "too often"),
        ({**FAILED, "position": "unknown"}, "refuse", "nobody knows"),
        ({**FAILED, "position": "unknown", "wish": "resume"}, "resume", "a person asks"),
        ({**STOPPED, "stop_reason": ""}, "refuse", "no reason"),
        ({**STOPPED, "status": "ready", "stop_reason": "unknown"}, "refuse", "not known here"),
        ({"status": "deleting"}, "refuse", "being deleted"),
        ({"status": "missing"}, "refuse", "does not exist"),
        ({"status": "failed-move"}, "refuse", "move"),
    ],
)  # fmt: skip
def test_cases(changed: dict[str, Any], action: str, word: str) -> None:
    import re

    found = decision.decide(Known(**{**BASE, **changed}))
    assert (found.action, bool(re.search(word, found.reason))) == (action, True), found


def rows(*pairs: tuple[str, str]) -> list[states.TableStatistics]:
    return [states.table_statistics(table_row(name, state)) for name, state in pairs]


A, B = Table("shop", "a"), Table("shop", "b")
DONE, BAD, LOADING = "Table completed", "Table error", "Full load"


@pytest.mark.parametrize(
    ("seen", "quarantined", "errored", "expected"),
    [
        (None, (), 0, "unknown"), ([], (), 0, "unknown"), (rows(("a", DONE)), (), None, "unknown"),
        (rows(("a", DONE)), (), 2, "unknown"), (rows(("a", DONE), ("b", "Table suspended")), (), 0, "unknown"),
        (rows(("a", DONE), ("b", DONE)), (), 0, "complete"), (rows(("a", DONE), ("b", LOADING)), (), 0, "loading"),
        (rows(("a", BAD), ("b", LOADING)), (), 1, "failed"), (rows(("a", BAD), ("b", LOADING)), (A,), 1, "loading"),
        (rows(("a", BAD), ("b", DONE)), (A,), 1, "quarantined"), (rows(("a", BAD), ("b", BAD)), (A,), 2, "failed"),
        (rows(("a", "Table does not exist")), (), 1, "failed"), (rows(("a", "Table cancelled")), (), 1, "failed"),
    ],
)  # fmt: skip
def test_all_tables_as_one_word(seen: Any, quarantined: Any, errored: int | None, expected: str) -> None:
    assert decision.tables(seen, quarantined, errored) == expected


def test_tables_to_reload() -> None:
    assert decision.to_reload(rows(("b", BAD), ("a", BAD), ("c", DONE)), [A]) == (B,)
    assert decision.to_reload(rows(("b", DONE), ("a", BAD)), [A], [A, B]) == (B,)


def test_tables_that_differ() -> None:
    done = rows(("a", DONE), ("b", DONE))
    assert decision.tables(done, (), 0, [A]) == "differ"
    assert decision.tables(done, [A], 0, [A]) == "quarantined"
    assert decision.tables(rows(("a", DONE), ("b", LOADING)), (), 0, [A]) == "loading"


CHECKPOINT = "checkpoint:V1#27#mysql-bin-changelog.157832:1975:-1:2002:677883278264080:mysql-bin-changelog.157832:1876#0#0#*#0#93"


@pytest.mark.parametrize(
    ("checkpoint", "logs", "expected"),
    [
        ("", ["mysql-bin.000001"], "none"), (CHECKPOINT, None, "unknown"), (CHECKPOINT, [], "unknown"),
        (CHECKPOINT, ["mysql-bin-changelog.157831", "mysql-bin-changelog.157833"], "covered"),
        (CHECKPOINT, ["mysql-bin-changelog.157833", "mysql-bin-changelog.157834"], "purged"),
        (CHECKPOINT, ["mysql-bin-changelog.157830"], "unknown"), (CHECKPOINT, ["binlog.157832"], "unknown"),
        ("mysql-bin.000024:373", ["mysql-bin.000024"], "covered"), ("2026-03-01T12:00:00", ["mysql-bin.000024"], "unknown"),
        ("mysql-bin.999999:4", ["mysql-bin.999999", "mysql-bin.1000000"], "covered"),
        ("mysql-bin.999998:4", ["mysql-bin.999999", "mysql-bin.1000000"], "purged"),
    ],
)  # fmt: skip
def test_position(checkpoint: str, logs: list[str] | None, expected: str) -> None:
    assert decision.position(checkpoint, logs) == expected


def test_what_is_known_of_a_task() -> None:
    task = states.task(task_row(Status="failed", StopReason="Stop Reason FATAL_ERROR", RecoveryCheckpoint=CHECKPOINT))
    found = decision.known(
        task, "full-load-and-cdc", statistics=rows(("a", DONE)), logs=["mysql-bin-changelog.157832"], empties=False,
        start_at="mysql-bin.000001:4",
    )  # fmt: skip
    assert (found.status, found.has_run, found.stop_reason, found.position) == (
        "failed",
        True,
        "FATAL_ERROR",
        "covered",
    )
    assert (found.tables, found.load_finished) == ("complete", False)
    fresh = states.task(task_row(Status="ready", ReplicationTaskStats={}))
    found = decision.known(
        fresh, "cdc", statistics=None, logs=["mysql-bin.000002"], empties=False, start_at="mysql-bin.000001:4"
    )
    assert (found.has_run, found.position, found.tables) == (False, "purged", "unknown")
