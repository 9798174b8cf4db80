"""The timeout ladder: what each attempt at a switchover shows, why it may have been rolled back, and which SwitchoverTimeout follows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from dbops.blue_green.switchover import MAX_TIMEOUT_S, Outcome

FLOOR_S, FACTOR, STEP_S = 180, 3, 30
SECONDS_PER_CONNECTION = 60 / 1000
"""AWS: dropping connections took up to 60 s per 1,000 of them in older engine versions."""
MANY_TABLES = 12_000
"""So many are used by a public test of metadata overhead. No time a table is known, so they never weigh more than half a timeout."""
FEW_TABLES = 1_000
"""Fewer are no candidate."""


@dataclass(frozen=True)
class Evidence:
    """What was seen on blue and green during an attempt; None = not measured."""

    max_lag_s: float | None = None
    longest_transaction_s: float | None = None
    longest_ddl_s: float | None = None
    connections: int | None = None
    writes_without_key: int | None = None
    """Rows changed in tables without a primary key."""
    tables: int | None = None


@dataclass(frozen=True)
class Attempt:
    """One rung: SwitchoverTimeout, how it ended, seconds from the call to its end, AWS's reason, and what was seen."""

    timeout_s: int
    outcome: Outcome | Literal["REFUSED"]
    duration_s: float
    reason: str = ""
    evidence: Evidence = Evidence()


@dataclass(frozen=True)
class Cause:
    """A candidate; `weight` is its share of the timeout (1 = enough to use it up), doubled when AWS's reason names it."""

    name: str
    weight: float
    text: str


@dataclass(frozen=True)
class Recommendation:
    """SwitchoverTimeout in seconds, or None when no attempt succeeded; `rule` has the numbers."""

    timeout_s: int | None
    rule: str


_NAMED = {
    "lag": ("lag",),
    "transaction": ("transaction", "write"),
    "ddl": ("ddl",),
    "connections": ("connection",),
    "no key": ("primary key",),
    "tables": ("table count", "many tables"),
}


def causes(attempt: Attempt) -> list[Cause]:
    """Candidates for a roll back, strongest first; empty when nothing measured points anywhere, which is to be said and not guessed."""
    seen, limit, text = attempt.evidence, attempt.timeout_s, attempt.reason.lower()
    tables = seen.tables or 0
    found = [
        ("lag", seen.max_lag_s, f"green was up to {seen.max_lag_s} s behind"),
        ("transaction", seen.longest_transaction_s, f"a transaction was open for {seen.longest_transaction_s} s"),
        ("ddl", seen.longest_ddl_s, f"DDL ran for {seen.longest_ddl_s} s"),
        ("connections", seen.connections and seen.connections * SECONDS_PER_CONNECTION, f"{seen.connections} connections to drop"),
        # No time per row is known, so it only counts as far as there was lag as well.
        ("no key", seen.writes_without_key and (seen.max_lag_s or 0) * 0.9, f"{seen.writes_without_key} row changes without a key"),
        ("tables", limit / 2 * min(1, tables / MANY_TABLES) if tables >= FEW_TABLES else None, f"blue has {tables} tables"),
    ]  # fmt: skip
    ranked = [
        Cause(name, round(seconds / limit * (2 if any(word in text for word in _NAMED[name]) else 1), 3), words)
        for name, seconds, words in found
        if seconds
    ]
    return sorted(ranked, key=lambda cause: (-cause.weight, cause.name))


def recommend(attempts: Sequence[Attempt]) -> Recommendation:
    """max(180, 3 x p95 of the successful durations, one step above the longest rolled-back timeout), in steps of 30 s, at most 3600.

    Durations run from the call to the end that the API shows, not the downtime of clients. A step above a rolled-back timeout counts only
    up to the shortest timeout that succeeded: that one is known to suffice.
    """
    took = sorted(a.duration_s for a in attempts if a.outcome == "COMPLETED")
    if not took:
        return Recommendation(
            None,
            f"no success in {len(attempts)} attempts: remove the cause and rehearse again",
        )
    p95 = took[math.ceil(0.95 * len(took)) - 1]
    rolled = max((a.timeout_s for a in attempts if a.outcome == "ROLLED_BACK"), default=0)
    enough = min(a.timeout_s for a in attempts if a.outcome == "COMPLETED")
    above = min(rolled + STEP_S, max(enough, rolled)) if rolled else 0
    wanted = max(FLOOR_S, FACTOR * p95, above)
    chosen = min(MAX_TIMEOUT_S, math.ceil(wanted / STEP_S) * STEP_S)
    rule = (
        f"max({FLOOR_S}, {FACTOR} x p95 {p95:.1f} s of {len(took)} successes, above the {rolled} s rolled back) = {wanted:.0f} s, "
        f"in steps of {STEP_S} s: {chosen} s"
    )
    return Recommendation(chosen, rule if wanted <= MAX_TIMEOUT_S else f"{rule} (the most that AWS takes)")
