"""backfill as Airflow runs it: a dry run, a copy, its proof, repair, roll-back and gate; held back, refused, killed and repeated."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab import backfill_stage
from tests.lab.backfill_stage import Stage, states

pytestmark = pytest.mark.lab


@pytest.fixture(params=["dynamodb", "redis"])
def stage(
    request: pytest.FixtureRequest, tmp_path: Path, run_dag: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Stage]:
    monkeypatch.setenv("DBOPS_SPECS_DIR", str(tmp_path))
    with backfill_stage.stage(tmp_path, run_dag, request.param, rows=350) as made:
        yield made


def test_a_dry_run_writes_nothing_and_says_what_would_be(stage: Stage) -> None:
    run = stage.run()
    assert str(run.state) == "success", states(run)
    assert stage.items() == {}
    assert stage.journal.plans(stage.name) == []
    report = stage.report()
    assert report["verdict"] == "DRY_RUN", report["reasons"]


def test_a_copy_is_whole_proven_and_repeated_without_a_change(stage: Stage) -> None:
    run = stage.copy()
    assert str(run.state) == "success", (states(run), stage.report()["reasons"])
    assert stage.versions() == dict(stage.rows())
    assert stage.plan().state == "verified"
    report = stage.report()
    assert report["verdict"] in ("OK", "WARNING"), report["reasons"]
    tally = stage.journal.tally(stage.plan().plan_id)
    assert (tally.read, tally.written, tally.checked) == (350, 350, 350)
