"""The reports of a backfill: dry run, copy and verification, roll-back, gate.

Keys are data of customers: they are shown where a DBA has to find a row (rejects, differences, chunks that are not done). Values of other
columns are never shown. What AWS and MySQL have said is masked, because it may quote a login.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, get_args

from dbops import reports
from dbops.alerting import mask
from dbops.backfill import charts
from dbops.backfill.gate import Gate
from dbops.backfill.records import Chunk, Direction, Plan, Tally
from dbops.backfill.spec import BackfillSpec
from dbops.backfill.verdict import CLASSES, MEANING, REPAIR, Standing, counted, fails, judge, judge_roll_back
from dbops.reports import Verdict

SHOWN = 100
"""Rows of a long table on the page; the CSV file beside the report has all that the report has."""
MAX_ROWS = 1_000
"""Rows of rejects, differences and chunks in a report; the journal has all, the report says how many it left out."""
MAX_EVENTS = 200
MAX_REASONS = 30
_QUOTED = re.compile(r"""'(?:[^'\\]|\\.|'')*'|"(?:[^"\\]|\\.)*\"""")
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
        title=f"Backfill {of.spec.name}{' (dry run)' if dry_run else ''}", spec=of.spec.name, verdict=verdict, reasons=_told(reasons),
        figures=_preflight_figures(of), sections=sections, **common,
    )  # fmt: skip


def _preflight_figures(of: Standing) -> list[reports.Figure]:
    found = [
        reports.Figure(label="Refusals", value=f"{len(of.refusals):,}", note=counted(len(of.warnings), "warning")),
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
    target = of.spec.target.resource()
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
        title=f"Backfill {of.spec.name}: {action}", spec=of.spec.name, verdict=verdict, reasons=_told(reasons),
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
    names = [*CLASSES, *sorted({name for counts in proof.counts.values() for name in counts} - set(CLASSES))]
    rows = [
        [name, *(proof.counts[each].get(name, 0) for each in directions), "fails" if fails(name) else "fine",  # type: ignore[call-overload]
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


def _differences(of: Standing) -> list[reports.Section]:
    if not of.differences:
        return []
    order = {name: number for number, name in enumerate(reversed(CLASSES))}
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


def roll_back_report(of: Standing, common: Mapping[str, Any], *, dry_run: bool = False) -> reports.Report:
    """The report of a roll-back.

    Args:
        of: what the run knows; `kept_by` says why items stay
        common: dag_id, run_id, parameters, versions and provenance
        dry_run: nothing was to be removed
    """
    verdict, reasons = judge_roll_back(of, dry_run=dry_run)
    figures = [
        reports.Figure(label="Removed", value=f"{of.removed:,}", note=f"of {of.tally.written:,} that the plan wrote"),
        reports.Figure(
            label="Stay", value=f"{of.kept:,}", note="written by others since, tombstones, changed in the store"
        ),
        reports.Figure(
            label="Chunks",
            value=f"{of.counts.get('rolled_back', 0):,}",
            note=f"of {of.plan.chunks if of.plan else 0:,}",
        ),
    ]
    why = [[name, number] for name, number in sorted(of.kept_by.items())]
    ordered = sorted(of.chunks, key=lambda one: (one.state == "rolled_back", not one.error, one.number))[:MAX_ROWS]
    rows: list[list[Any]] = [["all", None, of.removed, of.kept, None, None]]
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
        reasons=_told(reasons), figures=figures, sections=sections, **common,
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
    reasons = [*found.reasons, *found.notes]
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
    opened = [f"open: no read fell back to MySQL for {counted(days, 'day')}, in {counted(len(rows), 'application')}"]
    return reports.Report(
        title=f"Gate of backfill {spec.name}", spec=spec.name, verdict=Verdict.OK if found.is_open else Verdict.WARNING,
        reasons=_told([*(opened if found.is_open else []), *reasons]),
        figures=[
            reports.Figure(label="Gate", value="open" if found.is_open else "closed", note=f"after {counted(days, 'quiet day')}"),
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
        return f"{counted(count, what)}."
    return f"{shown:,} of {counted(count, what)}; all of them are in {table} of the store."


def _told(reasons: Sequence[str]) -> list[str]:
    """Reasons as a report tells them: masked, and not too many."""
    told = _masked_all(reasons[:MAX_REASONS])
    return told if len(reasons) <= MAX_REASONS else [*told, f"and {len(reasons) - MAX_REASONS:,} more reasons"]


def _seconds(tally: Tally) -> float:
    return tally.read_s + tally.write_s + tally.waited_s


def _masked(value: str) -> str:
    return str(mask(value))


def _masked_all(values: Iterable[Any]) -> list[Any]:
    return [_masked(value) if isinstance(value, str) else value for value in values]
