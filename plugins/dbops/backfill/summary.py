"""The reports of a backfill: dry run, copy and verification, roll-back, gate.

Every verdict is fail-closed: a chunk that nobody finished, a row without an outcome, a direction that was not read, a count that is unknown
is no OK. Keys are data of customers: they are shown where a DBA has to find a row (rejects, differences, chunks that are not done), and
not in reasons, of which alerts are made. Values of other columns are never shown. What AWS and MySQL have said is masked, because it may
quote a login.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, get_args

from dbops import reports
from dbops.alerting import mask
from dbops.backfill import charts
from dbops.backfill.charts import Sample
from dbops.backfill.estimate import Estimate
from dbops.backfill.findings import Finding
from dbops.backfill.gate import Gate
from dbops.backfill.preflight import TypeRow
from dbops.backfill.records import (
    FAILING,
    Chunk,
    Class,
    Compared,
    Difference,
    Direction,
    Event,
    Plan,
    Rejected,
    Tally,
    Verification,
)
from dbops.backfill.spec import BackfillSpec
from dbops.backfill.target import TargetFacts
from dbops.reports import Verdict

SHOWN = 100
"""Rows of a long table on the page; the CSV file beside the report has all that the report has."""
MAX_ROWS = 1_000
"""Rows of rejects, differences and chunks in a report; the journal has all, the report says how many it left out."""
MAX_EVENTS = 200
MAX_REASONS = 30
_KNOWN: tuple[str, ...] = get_args(Class)
_QUOTED = re.compile(r"""'(?:[^'\\]|\\.|'')*'|"(?:[^"\\]|\\.)*\"""")
MEANING: Mapping[str, str] = {
    "equal": "same content, same version",
    "target_newer": "the store has a newer write, which came by another way",
    "source_newer": "MySQL has a newer row, and the store did not get it in the time to drain: dual write and stream have both lost it",
    "missing": "the row has no item: not copied, or removed by somebody outside of the rules",
    "extra": "the item lives, its row is gone: a delete was lost, or a row was raised from the dead",
    "converter": "one version, two contents: somebody converts differently, or wrote without raising the version",
    "unversioned": "the item has no version, or one of another kind: somebody writes outside of the rules",
    "ahead": "the item's version stays above the row's, so it hides the row: the version of a row went down",
}
"""What each class says."""
REPAIR: Mapping[str, str] = {
    "source_newer": "a run with `copy: false, repair: true` writes it under the condition; then find which writer lost it",
    "missing": "a run with `copy: false, repair: true` writes it under the condition",
    "extra": "see that the stream delivers; then a run with `copy: false, repair: true, bury_extra: true` writes a tombstone in its place",
    "converter": "repair writes nothing here, as no version is newer: find the writer, correct it, raise the version of these rows",
    "unversioned": "find the writer that leaves out the version; correct it, then write these items again under a version",
    "ahead": "find what lowered the version (a key inserted again from 1, a joined row deleted); raise it above the item's in MySQL",
}


@dataclass(frozen=True)
class Standing:
    """What a run knows of one spec when it ends; None or empty where it did not ask."""

    spec: BackfillSpec
    plan: Plan | None = None
    findings: tuple[Finding, ...] = ()
    """Of the preflight."""
    types: tuple[TypeRow, ...] = ()
    facts: TargetFacts | None = None
    estimate: Estimate | None = None
    approved_by: str | None = None
    """Who approved this very plan."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """Chunks of the plan by state."""
    tally: Tally = field(default_factory=Tally)
    chunks: tuple[Chunk, ...] = ()
    held: str = ""
    """Why the copy ended early on purpose: a pause, the window, a limit."""
    rejects: tuple[Rejected, ...] = ()
    reject_count: int | None = None
    """None: not counted, which is not 0."""
    verification: Verification | None = None
    parts: tuple[Compared, ...] = ()
    """Of the verification: chunks, segments of the store, strata of a sample."""
    differences: tuple[Difference, ...] = ()
    difference_count: int | None = None
    samples: tuple[Sample, ...] = ()
    events: tuple[Event, ...] = ()
    """Oldest first."""
    kept_by: Mapping[str, int] = field(default_factory=dict)
    """Of a roll-back: why items stay (`roll_back.RolledBack`)."""
    swept: int = 0
    """Of a roll-back: items removed whose row has gone since, so that no chunk counts them."""

    @property
    def done(self) -> int:
        """Chunks that are done."""
        return self.counts.get("done", 0)

    @property
    def refusals(self) -> list[Finding]:
        """What stands against it."""
        return [one for one in self.findings if one.stops]

    @property
    def warnings(self) -> list[Finding]:
        """What a person should know."""
        return [one for one in self.findings if not one.stops]

    @property
    def spent_usd(self) -> float | None:
        """What the copy cost by the write units that it used, at the estimate's price: reads are in the proportion of the estimate."""
        if self.estimate is None or not self.estimate.units:
            return None
        return self.estimate.usd * self.tally.units / (self.estimate.units * self.estimate.index_factor)


# Verdicts ------------------------------------------------------------------------------------------------------------


def judge(of: Standing, *, dry_run: bool = False) -> tuple[Verdict, list[str]]:
    """The verdict on a run, and its reasons, never none.

    FAILED: something is wrong, unfinished or unknown; REFUSED: it must not begin, or waits for an approval; DRY_RUN: nothing was written;
    WARNING: it is right, and a person should look; OK: every row has its item, proven in both directions.
    """
    if against := _against(of):
        return Verdict.REFUSED, _masked_all(against)
    if dry_run:
        told = ["dry run: nothing was written to the store"]
        return Verdict.DRY_RUN, _masked_all([*told, *(f"warning: {one.id}: {one.text}" for one in of.warnings)])
    doubts = _doubts(of)
    if wrong := _wrong(of):
        return Verdict.FAILED, _masked_all([*wrong, *doubts])
    if doubts:
        return Verdict.WARNING, _masked_all(doubts)
    return Verdict.OK, [
        f"all {of.plan.rows if of.plan else 0:,} rows are in the store or superseded there; compared in both directions, nothing differs"
    ]


def _against(of: Standing) -> list[str]:
    found = [f"refused: {one.id}: {one.text}; {one.fix}" for one in of.refusals]
    limits, estimate = of.spec.limits, of.estimate
    if estimate is None:
        return (
            found
            if of.plan is not None
            else [*found, "refused: there is no estimate, so the budget is not known to hold"]
        )
    if not estimate.hours <= limits.max_hours:  # NaN is over every limit
        found.append(
            f"refused: it would take {estimate.hours:,.1f} h, limits.max_hours is {limits.max_hours:g} "
            f"(limited by {estimate.limited_by}); raise what limits it, or max_hours"
        )
    if not estimate.usd <= limits.budget_usd and not of.approved_by:
        found.append(
            f"approval: it would cost {estimate.usd:,.2f} USD, limits.budget_usd is {limits.budget_usd:g}; "
            "approve this plan, or raise the budget"
        )
    return found


def _wrong(of: Standing) -> list[str]:
    if of.plan is None:
        return ["there is no plan: nothing was copied"]
    if of.plan.state in ("rolled_back", "abandoned"):
        return [f"plan {of.plan.plan_id} is {of.plan.state.replace('_', ' ')}: the store is not complete"]
    unfinished = [] if of.held else _unfinished(of, of.plan)
    return [
        *unfinished,
        *_accounts(of),
        *_rejects_wrong(of),
        *([] if unfinished or of.held else _unproven(of, of.plan)),
    ]


def _unfinished(of: Standing, plan: Plan) -> list[str]:
    if of.done == plan.chunks and sum(of.counts.values()) == plan.chunks:
        return []
    states = ", ".join(f"{number:,} {state}" for state, number in sorted(of.counts.items())) or "none counted"
    return [
        f"plan {plan.plan_id} is unfinished: of {plan.chunks:,} chunks {states}; the next run goes on from its checkpoints"
    ]


def _accounts(of: Standing) -> list[str]:
    """Every row that was read has one outcome."""
    tally = of.tally
    told = (
        tally.written + tally.buried + tally.equal + tally.newer + tally.tombstones + tally.unversioned + tally.rejected
    )
    if told == tally.read:
        return []
    return [
        f"the journal counts {tally.read:,} rows read and {told:,} outcomes: rows are unaccounted for; copy these chunks again"
    ]


def _rejects_wrong(of: Standing) -> list[str]:
    allowed = of.spec.rejects
    if of.reject_count is None:
        return ["the rejected rows were not counted"]
    count = max(of.reject_count, len(of.rejects))
    if count and allowed.policy == "stop":
        return [f"{_count(count, 'row')} cannot be an item, and rejects.policy is stop"]
    if count > allowed.max_rows:
        return [
            f"{_count(count, 'row')} cannot be an item, rejects.max_rows is {allowed.max_rows:,}; the table has keys and reasons"
        ]
    return []


def _unproven(of: Standing, plan: Plan) -> list[str]:
    """What is missing for a proof, and what the proof has found."""
    proof = of.verification
    if proof is None:
        return ["the copy is done and was not verified: run again with copy: false"]
    if proof.ended_at is None:
        return ["the verification did not come to its end: clear the tasks that are red, or run again with copy: false"]
    found = _differing(proof)
    parts = {one.part for one in of.parts if one.direction == "forward"}
    if proof.mode == "full" and of.parts and len(parts) < plan.chunks:
        found.append(
            f"{len(parts):,} of {plan.chunks:,} chunks were compared: clear the tasks that are red, or run again with copy: false"
        )
    last = max((chunk.done_at for chunk in of.chunks if chunk.done_at is not None), default=None)
    if last is not None and proof.began_at < last:
        found.append(
            f"chunks were written after the verification began at {proof.began_at:%Y-%m-%d %H:%M:%S}: verify again"
        )
    if not _total(_rows(proof)) and plan.rows > (of.reject_count or 0):
        found.append("the verification compared no row")
    if of.spec.verify.reverse and "reverse" not in proof.counts:
        found.append(
            "verify.reverse is set, and the store was not read against MySQL: items without a row would not be noticed"
        )
    found += _sample_too_small(of, plan, proof)
    if not found and proof.verdict != "clean":
        found.append(
            f"the verification ended as {proof.verdict or 'unknown'}, not as clean: see its parts, and run again with copy: false"
        )
    if not found and plan.state != "verified" and not _is_sample_for_full(of, proof):
        found.append(f"the verification is clean, but the plan is {plan.state}: the run did not close it")
    return found


def _differing(proof: Verification) -> list[str]:
    found = []
    for what, counts in (("row", _rows(proof)), ("item", proof.counts.get("reverse"))):
        for name, number in sorted((counts or {}).items()):
            if number and _fails(name):
                found.append(f"{_count(number, what)} {name}: {MEANING.get(name, 'a class that nobody here knows')}")
    return found


def _sample_too_small(of: Standing, plan: Plan, proof: Verification) -> list[str]:
    wanted, mode = of.spec.verify, str(proof.mode)
    if mode == "full":
        return []
    if mode != "sample":
        return [f"verification of mode {mode!r} is unknown"]
    asked, compared = min(wanted.sample_rows, plan.rows - (of.reject_count or 0)), _total(_rows(proof))
    found = [f"the sample has {compared:,} rows of {asked:,} that were asked for"] if compared < asked else []
    return found if proof.bound is not None else [*found, "the sample states no bound"]


def _doubts(of: Standing) -> list[str]:
    found = []
    if of.estimate is None:
        found.append("there is no estimate, so the cost was not compared with the budget")
    if of.held:
        found.append(
            f"the copy stopped on purpose at {of.done:,} of {of.plan.chunks if of.plan else 0:,} chunks: {of.held}"
        )
    found += [f"warning: {one.id}: {one.text}" for one in of.warnings]
    if of.reject_count:
        found.append(
            f"{_count(of.reject_count, 'row')} cannot be an item and stayed in MySQL only (allowed: {of.spec.rejects.max_rows:,})"
        )
    if of.tally.unversioned:
        found.append(
            f"{of.tally.unversioned:,} items without version were met and left as they were: somebody writes outside of the rules"
        )
    found += _weak_proof(of)
    if (
        of.estimate is not None
        and of.spent_usd is not None
        and of.spent_usd > of.spec.limits.budget_usd
        and not of.approved_by
    ):
        found.append(f"it cost {of.spent_usd:,.2f} USD, limits.budget_usd is {of.spec.limits.budget_usd:g}")
    return found


def _weak_proof(of: Standing) -> list[str]:
    proof = of.verification
    if proof is None or of.held:
        return []
    found = []
    if not of.spec.verify.reverse and "reverse" not in proof.counts:
        found.append("verify.reverse is off: items whose row is gone would not be noticed")
    if _is_sample_for_full(of, proof):
        found.append("verify.mode is full, and only a sample was compared: the plan is not verified by it")
    if proof.mode == "sample" and proof.bound is not None:
        found.append(
            f"a sample of {_total(_rows(proof)):,} rows: with 95 % confidence at most "
            f"{proof.bound:.3g} of all rows are wrong, which is no proof of none"
        )
    return found


def _is_sample_for_full(of: Standing, proof: Verification) -> bool:
    return proof.mode == "sample" and of.spec.verify.mode == "full"


def _rows(proof: Verification) -> Mapping[Any, int]:
    """Rows by class: all of them, or those of the sample."""
    return proof.counts.get("sample" if proof.mode == "sample" else "forward") or {}


def _total(counts: Mapping[Any, int] | None) -> int:
    return sum((counts or {}).values())


# Dry run -------------------------------------------------------------------------------------------------------------


def preflight_report(of: Standing, common: Mapping[str, Any], *, dry_run: bool = True) -> reports.Report:
    """The report of a dry run, or of a run that was refused before anything was written.

    Args:
        of: what the run knows
        common: dag_id, run_id, parameters, versions and provenance
        dry_run: nothing was to be written
    """
    verdict, reasons = judge(of, dry_run=dry_run)
    sections = [*_checks(of), *_estimate(of), *_types(of), *_facts(of), _spec(of)]
    return reports.Report(
        title=f"Backfill {of.spec.name}{' (dry run)' if dry_run else ''}", spec=of.spec.name, verdict=verdict, reasons=_bounded(reasons),
        figures=_preflight_figures(of), sections=sections, **common,
    )  # fmt: skip


def _preflight_figures(of: Standing) -> list[reports.Figure]:
    found = [
        reports.Figure(label="Refusals", value=f"{len(of.refusals):,}", note=_count(len(of.warnings), "warning")),
    ]
    if of.estimate is None:
        return found
    made, limits = of.estimate, of.spec.limits
    return [
        reports.Figure(label="Rows", value=f"{made.rows:,}"),
        reports.Figure(label="Write units", value=f"{made.units:,.0f}", note="one per KB and item, indexes included"),
        reports.Figure(label="Cost", value=f"{made.usd:,.2f} USD", note=f"budget {limits.budget_usd:g} USD"),
        reports.Figure(label="Time", value=f"{made.hours:,.2f} h", note=f"limited by {made.limited_by}"),
        *found,
    ]


def _checks(of: Standing) -> list[reports.Section]:
    rows = [["refused", one.id, one.text, one.fix] for one in of.refusals]
    rows += [["warning", one.id, one.text, one.fix] for one in of.warnings]
    if not rows:
        return [reports.Text(title="Preflight", body="Nothing stands against it.")]
    return [_table("Preflight", ["", "check", "found", "fix"], rows, file="preflight", shown=SHOWN)]


def _estimate(of: Standing) -> list[reports.Section]:
    if of.estimate is None:
        return []
    made, limits = of.estimate, of.spec.limits
    rows: list[list[Any]] = [
        ["rows", f"{made.rows:,}"],
        ["item size: half, 99 %, all up to", f"{made.p50_bytes:,}, {made.p99_bytes:,}, {made.max_bytes:,} bytes"],
        ["write units", f"{made.units:,.0f} x {made.index_factor:g} for the table and its indexes"],
        [
            "limits of the spec",
            f"{limits.units_per_s:,} write and {limits.read_units_per_s:,} read units/s over {limits.tasks} tasks"
            f" of {limits.threads} threads",
        ],
        ["cost", f"{made.usd:,.2f} USD of {limits.budget_usd:g} USD"],
        *([f"cost: {name}", f"{usd:,.2f} USD"] for name, usd in made.items),
        ["time", f"{made.hours:,.2f} h of {limits.max_hours:g} h"],
        ["limited by", made.limited_by],
        ["verification after it", f"{made.verify_hours:,.2f} h by limits.read_units_per_s"],
    ]
    note = "A write that is refused by its condition costs units as well, so a second attempt is not free."
    note += "".join(f" Note: {warning}." for warning in made.warnings)
    return [_table("Estimate", ["", ""], rows, note=note)]


def _types(of: Standing) -> list[reports.Section]:
    if not of.types:
        return []
    rows = [[one.column, one.mysql_type, one.form, one.how] for one in of.types]
    return [_table("Columns as attributes", ["column", "MySQL", "attribute", "how"], rows)]


def _facts(of: Standing) -> list[reports.Section]:
    facts = of.facts
    if facts is None:
        return []
    rows: list[list[Any]] = [
        ["exists", facts.exists], ["state", facts.state], ["key", ", ".join(f"{n} {t}" for n, t in facts.key) or None],
        ["billing", facts.billing or None], ["write units a second that it takes", facts.write_capacity],
        ["indexes", ", ".join(f"{one.name} {one.status}" for one in facts.indexes) or None],
        ["point-in-time recovery", facts.point_in_time_recovery], ["TTL attribute", facts.ttl_attribute or None],
        ["replicas in other regions", facts.replicas], ["items, about", facts.items],
        ["memory used", facts.memory_used], ["memory limit", facts.memory_limit], ["eviction", facts.eviction or None],
    ]  # fmt: skip
    target = of.spec.target.resource
    return [_table(f"Target {target}", ["", ""], [row for row in rows if row[1] is not None])]


# Copy and verification -----------------------------------------------------------------------------------------------


def run_report(of: Standing, common: Mapping[str, Any], *, action: str = "copy") -> reports.Report:
    """The report of a run that had a plan to work on.

    Args:
        of: what the run knows
        common: dag_id, run_id, parameters, versions and provenance
        action: what was asked for
    """
    verdict, reasons = judge(of)
    sections: list[reports.Section] = [
        *_outcomes(of), *_proof(of), *_differences(of), *_rejects(of), *_progress(of), *_pressures(of), *_chunks(of),
        *(_checks(of) if of.refusals or of.warnings else []), *_plan(of), *_events(of), _spec(of),
    ]  # fmt: skip
    return reports.Report(
        title=f"Backfill {of.spec.name}: {action}", spec=of.spec.name, verdict=verdict, reasons=_bounded(reasons),
        figures=_figures(of), sections=sections, **common,
    )  # fmt: skip


def _figures(of: Standing) -> list[reports.Figure]:
    tally, plan = of.tally, of.plan
    saved = tally.newer + tally.tombstones
    chunks = plan.chunks if plan else 0
    found = [
        reports.Figure(label="Chunks done", value=f"{of.done:,}", note=f"of {chunks:,}"),
        reports.Figure(label="Rows read", value=f"{tally.read:,}", note=f"of {plan.rows if plan else 0:,} that the walk counted"),
        reports.Figure(label="Written", value=f"{tally.written + tally.buried:,}", note=f"{tally.checked:,} read back and right"),
        reports.Figure(
            label="Saved by the condition", value=f"{saved:,}", note="newer items and tombstones that a plain write would have destroyed"
        ),
        reports.Figure(label="Rejected", value="unknown" if of.reject_count is None else f"{of.reject_count:,}"),
        reports.Figure(label="Rate", value=_rate(of), note="over the time between first and last sample"),
    ]  # fmt: skip
    if of.spent_usd is not None and of.estimate is not None:
        found.append(
            reports.Figure(label="Cost", value=f"{of.spent_usd:,.2f} USD", note=f"estimate {of.estimate.usd:,.2f} USD")
        )
    else:
        found.append(
            reports.Figure(label="Write units", value=f"{tally.units:,.0f}", note="no estimate to price them by")
        )
    return found


def _rate(of: Standing) -> str:
    if len(of.samples) < 2:
        return "n/a"
    first, last = of.samples[0], of.samples[-1]
    seconds, rows = (last.at - first.at).total_seconds(), last.rows_done - first.rows_done
    return f"{rows / seconds:,.0f} rows/s" if seconds > 0 and rows > 0 else "n/a"


def _outcomes(of: Standing) -> list[reports.Section]:
    tally = of.tally
    rows: list[list[Any]] = [
        ["written", tally.written, "a live item"],
        ["buried", tally.buried, "a tombstone: the row stands for a deletion"],
        ["equal", tally.equal, "this version was there: another attempt, or a dual write"],
        ["newer", tally.newer, "a newer item stays: a write without condition would have put an older value over it"],
        [
            "tombstones",
            tally.tombstones,
            "deleted meanwhile, stays so: a write without condition would have raised it from the dead",
        ],
        ["unversioned", tally.unversioned, "an item without version stays: somebody writes outside of the rules"],
        ["rejected", tally.rejected, "cannot be an item"],
    ]
    note = f"{tally.read:,} rows were read; {tally.requests:,} requests, {tally.refused_requests:,} of them turned away and sent again."
    return [_table("What became of the rows", ["outcome", "rows", "meaning"], rows, note=note)]


def _proof(of: Standing) -> list[reports.Section]:
    proof = of.verification
    if proof is None:
        return [reports.Text(title="Verification", body="The store was not compared with MySQL yet.")]
    directions = [name for name in get_args(Direction) if name in proof.counts]
    names = [*_KNOWN, *sorted({name for counts in proof.counts.values() for name in counts} - set(_KNOWN))]
    rows = [
        [name, *(proof.counts[each].get(name, 0) for each in directions), "fails" if _fails(name) else "fine",  # type: ignore[call-overload]
         MEANING.get(name, "a class that nobody here knows"), REPAIR.get(name)]
        for name in names
    ]  # fmt: skip
    ended = (
        "not ended"
        if proof.ended_at is None
        else f"ended {proof.ended_at:%Y-%m-%d %H:%M:%S} UTC as {proof.verdict or 'unknown'}"
    )
    note = f"Mode {proof.mode}, began {proof.began_at:%Y-%m-%d %H:%M:%S} UTC, {ended}. {proof.rejected:,} rows cannot be items. "
    note += "Forward and sample: rows against their items; reverse: items against their rows"
    note += (
        f", {proof.foreign:,} items of other views left out." if "reverse" in proof.counts else ", which was not read."
    )
    if proof.bound is not None:
        note += f" With 95 % confidence at most {proof.bound:.3g} of all rows are wrong."
    return [_table("Verification", ["class", *directions, "", "meaning", "what to do"], rows, note=note), *_strata(of)]


def _strata(of: Standing) -> list[reports.Section]:
    """Parts of a sample, and parts with differences: the rest is in the sums."""
    chosen = [one for one in of.parts if one.name or one.failing or one.unread]
    if not chosen:
        return []
    chosen.sort(key=lambda one: (-one.failing, one.direction, one.part))
    rows = [
        [one.direction, one.part, one.name or None, one.seen, one.failing, one.rejected, one.unread, one.looked_again, one.note or None]
        for one in chosen[:MAX_ROWS]
    ]  # fmt: skip
    columns = [
        "direction",
        "part",
        "stratum",
        "compared",
        "failing",
        "rejected",
        "gone when read",
        "looked at again",
        "note",
    ]
    note = _left_out(len(rows), len(chosen), "part", "backfill_verification_part")
    return [_table("Parts of the verification", columns, rows, file="parts", shown=SHOWN, note=note)]


def _fails(name: str) -> bool:
    return name in FAILING or name not in _KNOWN


def _differences(of: Standing) -> list[reports.Section]:
    if not of.differences:
        return []
    order = {name: number for number, name in enumerate(reversed(_KNOWN))}
    chosen = sorted(of.differences, key=lambda one: (order.get(one.classed, -1), one.key))[:MAX_ROWS]
    rows = [
        [one.classed, one.key, one.source_version or None, one.target_version or None, one.detail, one.looks]
        for one in chosen
    ]
    columns = ["class", "key", "version in MySQL", "in the store", "attributes that differ", "looks"]
    count = max(of.difference_count or 0, len(of.differences))
    note = _left_out(len(chosen), count, "difference", "backfill_difference")
    return [_table("Rows and items that differ", columns, rows, file="differences", shown=SHOWN, note=note)]


def _rejects(of: Standing) -> list[reports.Section]:
    if not of.rejects:
        return []
    kinds = Counter(re.sub(r"\d+(?:[,.]\d+)*", "n", one.reason) for one in of.rejects)
    summed = ", ".join(f"{number:,} x {_masked(reason)}" for reason, number in kinds.most_common(5))
    rows = [[", ".join(one.key), one.reason] for one in of.rejects[:MAX_ROWS]]
    note = _left_out(len(rows), max(of.reject_count or 0, len(of.rejects)), "reject", "backfill_reject")
    return [
        _table(
            "Rows that cannot be items",
            ["key", "reason"],
            rows,
            file="rejects",
            shown=SHOWN,
            note=f"{note} Most often: {summed}",
        )
    ]


def _progress(of: Standing) -> list[reports.Section]:
    spent = charts.time_spent(of.tally)
    return [charts.progress(of.samples, of.spec.limits.units_per_s), *([spent] if spent else [])]


def _pressures(of: Standing) -> list[reports.Section]:
    told: Counter[str] = Counter()
    for event in of.events:
        if event.kind == "pressure":
            told[without_values(event.reason)] += max(1, event.count)
    if not told:
        return []
    rows = [[what, number] for what, number in sorted(told.items(), key=lambda pair: (-pair[1], pair[0]))][:MAX_ROWS]
    note = "KeyRange: one partition is hot, chunks are shuffled against that. "
    note += "Provisioned, OnDemand, Account: the table or the account is at its limit."
    return [_table("What the store turned away", ["reason and resource", "requests"], rows, note=note)]


def _chunks(of: Standing) -> list[reports.Section]:
    """Chunks that are not done first, with their keys; then those that took longest."""
    if not of.chunks:
        return []
    ordered = sorted(of.chunks, key=lambda one: (one.state == "done", not one.error, -_seconds(one.tally), one.number))
    chosen = ordered[:MAX_ROWS]
    total = sum((one.tally for one in of.chunks), Tally())
    rows = [
        [
            "all",
            f"{of.done:,} done",
            None,
            sum(one.planned_rows for one in of.chunks),
            *_of_tally(total),
            None,
            None,
            None,
            None,
        ]
    ]
    rows += [_chunk(one) for one in chosen]
    columns = [
        "chunk", "state", "cold", "rows planned", "read", "written", "buried", "equal", "newer", "tombstones", "rejected", "units",
        "refused",
        "reading, s", "writing, s", "waiting, s", "attempts", "keys after", "keys up to", "last error",
    ]  # fmt: skip
    note = _left_out(len(chosen), len(of.chunks), "chunk", "backfill_chunk")
    note += " Those that are not done first, then the slowest; the first row is the sum of all. Quoted values of errors are left out."
    return [_table("Chunks", columns, rows, file="chunks", shown=SHOWN, note=note)]


def _of_tally(tally: Tally) -> list[Any]:
    return [
        tally.read, tally.written, tally.buried, tally.equal, tally.newer, tally.tombstones, tally.rejected, round(tally.units),
        tally.refused_requests, f"{tally.read_s:,.2f}", f"{tally.write_s:,.2f}", f"{tally.waited_s:,.2f}",
    ]  # fmt: skip


def _chunk(one: Chunk) -> list[Any]:
    is_open = one.state == "planned"
    begin = ", ".join(one.begin) if is_open and one.begin is not None else None
    return [
        one.number, one.state, one.is_cold, one.planned_rows, *_of_tally(one.tally), one.attempt, begin,
        ", ".join(one.high) if is_open else None, without_values(one.error) or None,
    ]  # fmt: skip


def _plan(of: Standing) -> list[reports.Section]:
    if of.plan is None:
        return []
    plan = of.plan
    rows: list[list[Any]] = [
        ["plan", plan.plan_id], ["state", plan.state], ["made", plan.made_at], ["closed", plan.closed_at], ["server", plan.server_uuid],
        ["position in the binary log", plan.log_position], ["digest of the rules", plan.rule_digest], ["approved by", of.approved_by],
        ["dual writes and stream since", of.spec.live_since()], ["stamp on the items", f"_bf = {plan.stamp}"],
    ]  # fmt: skip
    return [_table("Plan", ["", ""], rows)]


def _events(of: Standing) -> list[reports.Section]:
    if not of.events:
        return []
    newest = list(reversed(of.events))[:MAX_EVENTS]
    rows = [
        [one.at, one.kind, without_values(one.reason), round(one.seconds, 1), one.count, one.run or None]
        for one in newest
    ]
    note = _left_out(len(rows), len(of.events), "event", "backfill_event")
    return [_table("Events, newest first", ["when, UTC", "kind", "reason", "seconds", "count", "run"], rows, note=note)]


def _spec(of: Standing) -> reports.Section:
    import yaml

    document = of.spec.model_dump(mode="json", exclude_unset=True)
    body = _masked(str(yaml.safe_dump(document, sort_keys=False, allow_unicode=True)))
    return reports.Code(title="The spec as it ran", language="yaml", body=body)


# Roll-back -----------------------------------------------------------------------------------------------------------


def judge_roll_back(of: Standing, *, dry_run: bool = False) -> tuple[Verdict, list[str]]:
    """The verdict on a roll-back, and its reasons, never none. OK: every chunk is rolled back, and no item of the plan is left."""
    if of.plan is None:
        return Verdict.FAILED, ["there is no plan to roll back"]
    if against := [f"refused: {one.id}: {one.text}; {one.fix}" for one in of.refusals]:
        return Verdict.REFUSED, _masked_all(against)
    if dry_run:
        return Verdict.DRY_RUN, [
            f"dry run: at most {of.tally.written:,} items bear the stamp {of.plan.stamp}; those that are unchanged would be removed"
        ]
    back, chunks = of.counts.get("rolled_back", 0), of.plan.chunks
    if back != chunks or sum(of.counts.values()) != chunks:
        return Verdict.FAILED, [
            f"{back:,} of {chunks:,} chunks are rolled back; clear the task roll_back, which goes on"
        ]
    if of.plan.state != "rolled_back":
        return Verdict.FAILED, [
            f"every chunk is rolled back, but the plan is {of.plan.state}: the run did not close it"
        ]
    removed, kept = _removed(of)
    told = f"{removed:,} items removed; {kept:,} stay, because others have written them or they are tombstones"
    if changed := sum(number for why, number in of.kept_by.items() if why in _CHANGED):
        return Verdict.WARNING, [
            f"{changed:,} items stay though they bear the stamp: the store has changes that MySQL has not",
            told,
        ]
    return Verdict.OK, [told]


_CHANGED = frozenset({"newer", "overtaken"})


def _removed(of: Standing) -> tuple[int, int]:
    return sum(one.removed for one in of.chunks) + of.swept, sum(one.kept for one in of.chunks)


def roll_back_report(of: Standing, common: Mapping[str, Any], *, dry_run: bool = False) -> reports.Report:
    """The report of a roll-back.

    Args:
        of: what the run knows; `kept_by` says why items stay
        common: dag_id, run_id, parameters, versions and provenance
        dry_run: nothing was to be removed
    """
    verdict, reasons = judge_roll_back(of, dry_run=dry_run)
    removed, kept = _removed(of)
    figures = [
        reports.Figure(label="Removed", value=f"{removed:,}", note=f"of {of.tally.written:,} that the plan wrote"),
        reports.Figure(
            label="Stay", value=f"{kept:,}", note="written by others since, tombstones, changed in the store"
        ),
        reports.Figure(
            label="Chunks",
            value=f"{of.counts.get('rolled_back', 0):,}",
            note=f"of {of.plan.chunks if of.plan else 0:,}",
        ),
    ]
    why = [[name, number] for name, number in sorted(of.kept_by.items())]
    ordered = sorted(of.chunks, key=lambda one: (one.state == "rolled_back", not one.error, one.number))[:MAX_ROWS]
    rows: list[list[Any]] = [["all", None, removed, kept, None, None]]
    rows += [
        [one.number, one.state, one.removed, one.kept, one.attempt, without_values(one.error) or None]
        for one in ordered
    ]
    sections: list[reports.Section] = [
        *([_table("Why items stay", ["reason", "items"], why)] if why else []),
        _table(
            "Chunks, those that are not rolled back first", ["chunk", "state", "removed", "stay", "attempts", "last error"], rows,
            file="chunks", shown=SHOWN, note=_left_out(len(ordered), len(of.chunks), "chunk", "backfill_chunk"),
        ),
        *(_checks(of) if of.findings else []), *_plan(of), *_events(of), _spec(of),
    ]  # fmt: skip
    return reports.Report(
        title=f"Roll-back of backfill {of.spec.name}{' (dry run)' if dry_run else ''}", spec=of.spec.name, verdict=verdict,
        reasons=_bounded(reasons), figures=figures, sections=sections, **common,
    )  # fmt: skip


# Gate ----------------------------------------------------------------------------------------------------------------


def gate_report(spec: BackfillSpec, plan: Plan | None, found: Gate, common: Mapping[str, Any]) -> reports.Report:
    """Whether reads may leave MySQL. A closed gate is no failure: that is the state of every move until its end.

    Args:
        spec: its applications and quiet days
        plan: the newest of the spec
        found: what the gate has decided
        common: dag_id, run_id, parameters, versions and provenance
    """
    days, told = spec.gate.quiet_days, found.applications
    reasons = _masked_all([*found.reasons, *found.notes])
    if found.opens_at is not None and not found.is_open:
        reasons.append(
            f"if no read falls back until then, the reports allow it from {found.opens_at:%Y-%m-%d %H:%M} UTC on"
        )
    rows = [
        [one.application, one.last_heard, one.reads, one.fallback_hits, one.last_fallback, one.lost_writes, one.processes,
         ", ".join(one.silent) or None]
        for one in told
    ]  # fmt: skip
    columns = [
        "application", "last heard, UTC", "reads", "fall-back hits", "last of them, UTC", "lost dual writes", "processes", "fell silent",
    ]  # fmt: skip
    opened = [f"open: no read fell back to MySQL for {_count(days, 'day')}, in {_count(len(rows), 'application')}"]
    return reports.Report(
        title=f"Gate of backfill {spec.name}", spec=spec.name, verdict=Verdict.OK if found.is_open else Verdict.WARNING,
        reasons=_bounded([*(opened if found.is_open else []), *reasons]),
        figures=[
            reports.Figure(label="Gate", value="open" if found.is_open else "closed", note=f"after {_count(days, 'quiet day')}"),
            reports.Figure(label="Plan", value=plan.state if plan else "none", note=plan.plan_id if plan else ""),
        ],
        sections=[
            _table("Applications in these days", columns, rows),
            reports.Text(
                title="What comes after an open gate",
                body="Set falls_back=False in every application. End the writes to MySQL, wait until the change stream has delivered "
                "everything, and only then write the store first. Tombstones may expire from then on.",
            ),
        ],
        **common,
    )  # fmt: skip


# Small things --------------------------------------------------------------------------------------------------------


def without_values(text: str) -> str:
    """A text of MySQL or AWS without what it quotes, which may be a value of a row; the task's log has all of it."""
    return _QUOTED.sub("'...'", text)


def _table(title: str, columns: list[str], rows: Sequence[Sequence[Any]], **more: Any) -> reports.Table:
    return reports.Table(title=title, columns=columns, rows=[_masked_all(row) for row in rows], **more)


def _left_out(shown: int, count: int, what: str, table: str) -> str:
    if shown >= count:
        return f"{_count(count, what)}."
    return f"{shown:,} of {_count(count, what)}; all of them are in {table} of the store."


def _bounded(reasons: list[str]) -> list[str]:
    if len(reasons) <= MAX_REASONS:
        return reasons
    return [*reasons[:MAX_REASONS], f"and {len(reasons) - MAX_REASONS:,} more reasons"]


def _seconds(tally: Tally) -> float:
    return tally.read_s + tally.write_s + tally.waited_s


def _masked(value: str) -> str:
    return str(mask(value))


def _masked_all(values: Iterable[Any]) -> list[Any]:
    return [_masked(value) if isinstance(value, str) else value for value in values]


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
