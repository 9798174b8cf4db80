"""Services over a journal in a file, and a store in memory: steps without servers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from dbops.backfill import steps, verify
from dbops.backfill.estimate import Estimate
from dbops.backfill.journal import Journal
from dbops.backfill.records import Plan, Tally
from dbops.backfill.services import Services
from dbops.backfill.spec import BackfillSpec
from tests.backfill import journal_kit, verify_kit

SPEC = BackfillSpec.model_validate(
    {
        "name": "rides",
        "description": "rides", "owner": "dba",
        "view": {"sql": "SELECT r.id, r.v FROM carshare.rides r WHERE {chunk}", "table": "carshare.rides", "alias": "r"},
        "version": {"column": "v"},
        "target": {"kind": "dynamodb", "table": "rides", "key": {"pk": "RIDE#{id}"}},
        "live": {"since": "2026-11-01T00:00:00Z", "applications": ["shop"], "replication_task": "rides-cdc"},
    }
)  # fmt: skip


def estimate(rows: int) -> Estimate:
    """Of a cheap copy."""
    return Estimate(rows, 100, 200, 300, 1000, 20.0, 1.0, 0.5, (("writes", 0.5),), 0.1, "table")


@dataclass
class Stage:
    """A journal, and what the steps reach."""

    services: Services
    rows: verify_kit.Rows = field(default_factory=verify_kit.Rows)
    target: verify_kit.MemoryTarget = field(default_factory=verify_kit.MemoryTarget)

    @property
    def journal(self) -> Journal:
        return self.services.journal

    def planned(self, chunks: int = 2, **changes: Any) -> Plan:
        """A plan that is being copied."""
        own = {"rule_digest": SPEC.rule_digest(), "estimate": estimate(10 * chunks).as_json(), **changes}
        plan = journal_kit.a_plan("rides", chunks, **own)
        self.journal.begin(plan, journal_kit.some_chunks(chunks), 7)
        return plan

    def copied(self, chunks: int = 2, **changes: Any) -> Plan:
        """A plan whose chunks are done."""
        plan = self.planned(chunks, **changes)
        while (chunk := self.journal.claim(plan.plan_id, "worker", 60)) is not None:
            self.journal.finish(chunk, "worker", Tally(read=10, written=10))
        steps.finish_copy(self.services, plan.plan_id)
        return plan

    def verified(self, chunks: int = 2, **changes: Any) -> Plan:
        """A plan that was proven."""
        plan = self.copied(chunks, **changes)
        self.journal.set_state(plan.plan_id, "verified", expected=("copied",))
        return plan

    def roll_back_chunks(self, plan_id: str) -> None:
        """Every chunk of a plan that is closed."""
        while (chunk := self.journal.claim_roll_back(plan_id, "worker", 60)) is not None:
            self.journal.rolled_back(chunk, "worker", 1, 0)


def stage(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    """Steps whose source and target are in memory."""
    engine = sa.create_engine(f"sqlite:///{folder / 'journal.db'}", connect_args={"timeout": 30})

    def nowhere(*_: Any, **__: Any) -> Any:
        raise AssertionError("this step is not meant to go there")

    made = Stage(
        Services(
            nowhere, nowhere, nowhere, engine=lambda: engine, target=nowhere, aws=nowhere, allowed=("*",), run="dag/run"
        )
    )

    @contextmanager
    def verifying_with(*_: Any) -> Iterator[tuple[Any, Any, Any]]:
        yield made.rows, verify.Verifier(made.rows, made.target, None, sleep=lambda _: None), None

    monkeypatch.setattr(steps, "verifying_with", verifying_with)
    return made
