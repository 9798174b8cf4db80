"""The journal: steps are whole and replaced whole, a run keeps its rehearsal, figures come back in order."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

import pytest
import sqlalchemy as sa

from dbops.blue_green.journal import Journal, JournalError

NOW = datetime(2026, 5, 1, 12, 0, 0, 250_000)


@pytest.fixture
def engine() -> Iterator[sa.Engine]:
    made = sa.create_engine("sqlite://", poolclass=sa.StaticPool)
    yield made
    made.dispose()


def test_a_step_is_replaced_whole_and_steps_come_in_order(engine: sa.Engine) -> None:
    journal = Journal(engine, "dbops-r-1")
    journal.begin("shop", "blue_green_rehearsal/manual", NOW)
    journal.put("load", {"rows": 5, "tables": ["a"]}, NOW)
    journal.put("attempt_1", {"outcome": "ROLLED_BACK"}, NOW + timedelta(seconds=1))
    journal.put("load", {"rows": 6}, NOW + timedelta(seconds=2))
    assert journal.steps() == {"attempt_1": {"outcome": "ROLLED_BACK"}, "load": {"rows": 6}}
    assert list(journal.steps()) == ["attempt_1", "load"]
    assert journal.get("verify") is None
    with pytest.raises(JournalError, match="step verify has left nothing"):
        journal.require("verify")
    assert Journal(engine, "dbops-r-2").steps() == {}


def test_a_repeated_task_keeps_the_rehearsal_and_another_run_cannot_take_it(engine: sa.Engine) -> None:
    journal = Journal(engine, "dbops-r-1")
    first = journal.begin("shop", "dag/run 1", NOW)
    assert journal.begin("shop", "dag/run 1", NOW + timedelta(hours=1)) == first == journal.begun()
    with pytest.raises(JournalError, match="belongs to dag/run 1, not to dag/run 2"):
        journal.begin("shop", "dag/run 2", NOW)
    with pytest.raises(JournalError, match="first task did not end"):
        Journal(engine, "dbops-r-9").begun()


def test_figures_of_earlier_rehearsals_of_the_same_spec(engine: sa.Engine) -> None:
    for number, (spec, seconds) in enumerate([("shop", 4.0), ("other", 99.0), ("shop", 6.0), ("shop", 5.0)]):
        journal = Journal(engine, f"dbops-r-{number}")
        journal.begin(spec, f"dag/{number}", NOW + timedelta(days=number))
        journal.keep_figures({"write_downtime_s": 1.0})
        journal.keep_figures({"write_downtime_s": seconds})
    assert Journal(engine, "dbops-r-3").past("shop") == {"write_downtime_s": [4.0, 6.0]}
    assert Journal(engine, "dbops-r-0").past("shop") == {}


def test_phases_come_in_the_order_of_their_times(engine: sa.Engine) -> None:
    journal = Journal(engine, "dbops-r-1")
    journal.begin("shop", "dag/run", NOW)
    for seconds, phase in ((5, "switchover 1"), (0, "load"), (9, "verify")):
        journal.enter(phase, NOW + timedelta(seconds=seconds))
    assert [phase for _, phase in journal.phases()] == ["load", "switchover 1", "verify"]
    assert journal.phases()[0][0] == NOW
