"""What a run of a backfill may know when it ends: a plan that is copied and proven, and one that is rolled back."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from dbops.backfill.estimate import Estimate
from dbops.backfill.findings import refusal, warning
from dbops.backfill.records import Chunk, Plan, Tally, Verification
from dbops.backfill.spec import BackfillSpec
from dbops.backfill.verdict import Standing

NOW = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)


def spec(**more: Any) -> BackfillSpec:
    return BackfillSpec.model_validate(
        {
            "name": "rides", "description": "rides", "owner": "dba",
            "view": {"sql": "SELECT r.id, r.version FROM carshare.rides AS r WHERE {chunk}", "table": "carshare.rides", "alias": "r"},
            "version": {"column": "version"}, "target": {"kind": "dynamodb", "table": "rides", "key": {"pk": "RIDE#{id}"}},
            "live": {"since": "2026-04-01T00:00:00Z", "applications": ["app"], "replication_task": "rides-cdc"}, **more,
        }
    )  # fmt: skip


REFUSAL = refusal("binlog_format", "the binary log has format MIXED", "set binlog_format to ROW")
WARNING = warning("indexes", "index by_user is CREATING", "wait until it is ACTIVE")
ESTIMATE = Estimate(
    rows=100, p50_bytes=120, p99_bytes=900, max_bytes=400_000, bytes=20_000, units=100.0, index_factor=1.0, usd=1.0,
    items=(("writes", 0.75), ("verification", 0.25)), hours=0.5, limited_by="limits.units_per_s", warnings=("prices are 200 days old",),
)  # fmt: skip
PROOF = Verification(
    7, "rides-20260501-0a1b2c3d", "backfill/r1", "full", NOW, NOW + timedelta(minutes=5), "clean",
    {"forward": {"equal": 97, "target_newer": 3}, "reverse": {"equal": 100}},
)  # fmt: skip
TALLY = Tally(
    read=100, written=90, buried=2, equal=3, newer=4, tombstones=1, checked=100, units=100.0, requests=10, write_s=2.0
)
PLAN = Plan(
    "rides-20260501-0a1b2c3d", "rides", "d" * 64, "verified", NOW - timedelta(hours=2), "uuid", "gtid:1-9", 100, 2
)


def chunk(number: int, **more: Any) -> Chunk:
    given: dict[str, Any] = {
        "plan_id": PLAN.plan_id, "number": number, "position": number, "low": None, "high": ("50",), "planned_rows": 50, "is_cold": True,
        "state": "done", "reached": ("50",), "tally": Tally(read=50, written=50), "attempt": 1, "owner": None, "leased_until": None,
        "done_at": NOW - timedelta(minutes=1), **more,
    }  # fmt: skip
    return Chunk(**given)


def standing(**more: Any) -> Standing:
    """A plan that is copied and proven."""
    given: dict[str, Any] = {
        "spec": spec(), "plan": PLAN, "estimate": ESTIMATE, "counts": {"done": 2}, "tally": TALLY, "chunks": (chunk(0), chunk(1)),
        "reject_count": 0, "verification": PROOF, "difference_count": 0, **more,
    }  # fmt: skip
    return Standing(**given)


def proof(**more: Any) -> Verification:
    """A clean verification, but for this; a direction that is None was not read."""
    counts = {name: more.pop(name, PROOF.counts.get(name)) for name in ("forward", "reverse", "sample")}
    return replace(PROOF, counts={name: found for name, found in counts.items() if found is not None}, **more)


ROLLED = replace(PLAN, state="rolled_back")
BACK = (chunk(0, state="rolled_back", removed=45, kept=2), chunk(1, state="rolled_back", removed=40, kept=3))


def rolled_back(**more: Any) -> Standing:
    return standing(
        **{
            "plan": ROLLED,
            "counts": {"rolled_back": 2, "done": 0},
            "chunks": BACK,
            "kept_by": {"tombstones": 5},
            **more,
        }
    )
