"""The archive's reports: what a run did, proved, refused and left."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from dbops.archive.ending import Loss
from dbops.archive.lake import plan_filter
from dbops.archive.ledger import Plan
from dbops.archive.preflight import Refusal
from dbops.archive.restore import Restored
from dbops.archive.spec import ArchiveSpec
from dbops.archive.steps import Planned, Reconciled
from dbops.reports import Chart, Code, Figure, Report, Section, Table, Text, Verdict
from dbops.sql import ident, ident_trino

STAGES = ("export", "publish", "verify", "purge")
# Athena, on-demand price per TB scanned; aws.amazon.com/athena/pricing.
ATHENA_USD_PER_TB = 5.0
MAX_LISTED = 200


def size(count: float) -> str:
    """Bytes for people: 12.3 MiB."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(count) < 1024 or unit == "TiB":
            return f"{count:,.0f} {unit}" if unit == "B" else f"{count:,.1f} {unit}"
        count /= 1024
    raise AssertionError("unreachable")


def rate(rows: int, seconds: float) -> str:
    """Rows per second, or n/a when nothing was timed."""
    return f"{rows / seconds:,.0f}" if seconds > 0 and rows else "n/a"


def preflight_report(
    spec: ArchiveSpec, refusals: Sequence[Refusal], planned: Planned | None, common: dict[str, Any], *, dry_run: bool
) -> Report:
    """The report of a dry run, or of a run that was refused before anything was written."""
    refused = list(refusals) + (planned.refusals if planned else [])
    verdict = Verdict.REFUSED if refused else Verdict.DRY_RUN if dry_run else Verdict.OK
    figures = [Figure(label="Refusals", value=str(len(refused)))]
    sections: list[Section] = []
    if planned:
        figures = [
            Figure(label="Cold rows", value=f"{planned.rows:,}"),
            Figure(label="Bytes in MySQL", value=size(planned.bytes), note="rows x InnoDB's mean row length"),
            Figure(label="Chunks", value=str(planned.chunks), note=f"about {size(spec.chunk_bytes)} of source each"),
            *figures,
        ]
        sections.append(
            Code(
                title="Rows that would leave",
                body=f"SELECT *\nFROM {ident((spec.schema_name, spec.table))}\nWHERE {planned.predicate}",
            )
        )
        if planned.target:
            to = planned.target
            changes = [f"adds column {c}" for c in to.adds] + [f"widens column {c}" for c in to.widens]
            sections.append(
                Text(
                    title="Lake table",
                    body=f"{to.namespace}.{to.table} ({'exists' if to.exists else 'will be created'})"
                    + "".join(f"; {c}" for c in changes) + (f"; {to.reason}" if to.reason else ""),
                )
            )  # fmt: skip
        if planned.notes:
            sections.append(Text(title="Notes", body="\n\n".join(planned.notes)))
    if refused:
        sections.insert(0, _refusals(refused))
    return Report(
        title=f"Archive of {spec.full_name}", verdict=verdict, reasons=[str(r) for r in refused] or _dry_reasons(planned, dry_run),
        figures=figures, sections=sections, spec=spec.name, **common,
    )  # fmt: skip


def _dry_reasons(planned: Planned | None, dry_run: bool) -> list[str]:
    if dry_run:
        return ["dry run: nothing was written to MySQL, S3 or the catalog"]
    return ["no row is cold: nothing to do"] if planned and not planned.rows else []


def _refusals(refused: Sequence[Refusal]) -> Table:
    return Table(
        title="Refusals",
        columns=["Check", "Column", "Rows", "First key", "What is wrong", "Fix"],
        rows=[[r.check, r.column, r.rows, r.sample_key, r.message, r.fix] for r in refused],
    )


def run_report(spec: ArchiveSpec, found: Reconciled, *, purging: bool, common: dict[str, Any]) -> Report:
    """The report of a run that had a plan to work on."""
    verdict, reasons = judge(spec, found, purging=purging)
    return Report(
        title=f"Archive of {spec.full_name}", verdict=verdict, reasons=reasons, figures=_figures(found), spec=spec.name,
        sections=_sections(spec, found), **common,
    )  # fmt: skip


def judge(spec: ArchiveSpec, found: Reconciled, *, purging: bool) -> tuple[Verdict, list[str]]:
    """Verdict and its reasons. FAILED: something is wrong or unfinished; WARNING: some rows stay; OK: all proven (and purged)."""
    if found.problems:
        return Verdict.FAILED, found.problems
    if found.plan.state == "abandoning":
        return Verdict.FAILED, [
            f"plan {found.plan.plan_id} is being given up, which is unfinished; the next run finishes it"
        ]
    if found.plan.state == "abandoned":
        deleted = found.totals.get("done", {}).get("deleted_rows", 0)
        return Verdict.WARNING, [
            f"plan {found.plan.plan_id} was given up: {deleted:,} rows left MySQL and are in the lake, all others are in MySQL"
        ]
    refused, changed, verified = (found.totals.get(s, {}) for s in ("refused", "changed", "verified"))
    open_chunks = {s: n for s, n in found.chunk_states.items() if s != "verified"}
    if open_chunks:
        listed = ", ".join(f"{n} {s}" for s, n in sorted(open_chunks.items()))
        return Verdict.FAILED, [f"plan {found.plan.plan_id} is unfinished: chunks {listed}; the next run continues it"]
    reasons = list(found.warnings)
    if refused:
        reasons.append(
            f"{refused['source_rows']:,} rows in {refused['batches']} batches were refused: the lake did not give them back equal"
        )
    if changed:
        reasons.append(
            f"{changed['source_rows']:,} rows in {changed['batches']} batches changed after their export; they stay for the next run"
        )
    if verified and purging:
        reasons.append(
            f"{verified['source_rows']:,} proven rows are still in MySQL (locked or throttled); the next run purges them"
        )
    if verified and not purging:
        return (Verdict.WARNING if reasons else Verdict.OK), [
            *reasons,
            f"{verified['source_rows']:,} rows are proven and wait: purge them with dry_run: false and confirm: {spec.full_name}",
        ]
    if refused:
        return Verdict.FAILED, reasons
    return (Verdict.WARNING, reasons) if reasons else (Verdict.OK, ["every row was proven equal before it was deleted"])


def loss_report(spec: ArchiveSpec, loss: Loss, common: dict[str, Any]) -> Report:
    """The report of a run that closed a plan although purged rows of it are lost: FAILED, because a loss is never silent."""
    plan, found = loss.plan, loss.standing
    chunks = {c.chunk_no: c for c in loss.chunks}
    lost = [(number, rows, "missing") for number, rows in found.missing.items()]
    lost += [(number, rows, "other values than when they were purged") for number, rows in found.changed.items()]
    return Report(
        title=f"Loss in the archive of {spec.full_name}",
        verdict=Verdict.FAILED,
        reasons=[f"plan {plan.plan_id} is {plan.state} with a loss that was accepted: {found.loss()}"],
        figures=[
            Figure(label="Rows purged from MySQL", value=f"{found.deleted:,}"),
            Figure(label="Missing in the lake", value=f"{sum(found.missing.values()):,}"),
            Figure(label="Changed in the lake", value=f"{sum(found.changed.values()):,}", note="rows of the chunks with changed rows"),
        ],
        sections=[
            Table(
                title="Lost rows by chunk",
                columns=["Chunk", "Keys above", "Keys up to", "Rows", "What"],
                rows=[
                    [number, _key(chunks[number].lower), _key(chunks[number].upper), rows, what]
                    for number, rows, what in sorted(lost)
                    if number in chunks
                ],
                note="of each chunk the rows that met the predicate",
            ),
            Code(title="Predicate", body=plan.predicate),
        ],
        spec=spec.name,
        **common,
    )  # fmt: skip


def _key(key: Sequence[str] | None) -> str | None:
    return None if key is None else ", ".join(key)


def _figures(found: Reconciled) -> list[Figure]:
    done = found.totals.get("done", {})
    before, now = found.plan.source_bytes, found.table.data_bytes + found.table.index_bytes
    ratio = f"{found.wire_bytes / found.file_bytes:.1f} : 1" if found.file_bytes else "n/a"
    per_scan = found.file_bytes / 1e12 * ATHENA_USD_PER_TB
    return [
        Figure(label="Rows purged from MySQL", value=f"{done.get('deleted_rows', 0):,}", note=f"of {found.plan.planned_rows:,} planned"),
        Figure(label="Rows in the lake", value=f"{found.lake_rows:,}", note="as Trino counts them now"),
        Figure(label="Parquet", value=size(found.file_bytes), note=f"compression {ratio} against the text that MySQL sent"),
        Figure(label="Table in MySQL", value=size(now), note=f"before {size(before)}; InnoDB's estimate"),
        Figure(label="OPTIMIZE would free", value=size(found.table.free_bytes), note="free extents inside the tablespace"),
        Figure(
            label="Athena would cost",
            value=f"{per_scan:,.4f} USD" if per_scan >= 0.0001 else "under 0.0001 USD",
            note=f"a full scan: {ATHENA_USD_PER_TB:g} USD/TB, at least 10 MB a query; Trino avoids it",
        ),
    ]  # fmt: skip


def _sections(spec: ArchiveSpec, found: Reconciled) -> list[Section]:
    plan = found.plan
    sections: list[Section] = [_stages(found)]
    if any(e.event_rows for e in found.events if e.stage in STAGES):
        sections.append(_stage_chart(found))
    sections.append(
        Table(
            title="Batches",
            columns=["State", "Batches", "Rows", "Deleted"],
            rows=[[s, t["batches"], t["source_rows"], t["deleted_rows"]] for s, t in sorted(found.totals.items())],
            note="done: proven under lock and deleted in one transaction. changed, refused: still in MySQL, taken out of the lake.",
        )
    )
    if found.refused:
        listed = found.refused[:MAX_LISTED]
        sections.append(
            Table(
                title="Rows that stay, and why",
                columns=["Chunk", "Batch", "Key", "Column", "Reason"],
                rows=[[r["chunk_no"], r["batch_no"], r["row_key"], r["column_name"], r["reason"]] for r in listed],
                note=f"{len(listed)} of {len(found.refused)}; all of them: SELECT * FROM dbops_archive.archive_refusal",
            )
        )
    sections += [
        Table(
            title="Ledger",
            columns=["UTC", "Stage", "Rows", "Seconds", "What"],
            rows=[[e.at, e.stage, e.event_rows, f"{e.seconds:,.2f}", e.message] for e in found.events[-MAX_LISTED:]],
        ),
        Code(
            title="Read the archive in Trino",
            body=f"SELECT *\nFROM {ident_trino(plan.lake)}\nWHERE {plan_filter(plan.plan_id)}\nLIMIT 100",
        ),
        Code(title="Rows of this plan in MySQL", body=f"SELECT *\nFROM {ident(plan.source)}\nWHERE {plan.predicate}"),
        Code(title="Source table at plan time", body=plan.create_table),
    ]
    return sections


def stage_totals(found: Reconciled) -> list[tuple[str, int, float, int]]:
    """(stage, rows, seconds summed over tasks, tasks) in the order of the flow."""
    return [
        (stage, sum(e.event_rows for e in events), sum(e.seconds for e in events), len(events))
        for stage in STAGES
        if (events := [e for e in found.events if e.stage == stage])
    ]


def _stages(found: Reconciled) -> Table:
    return Table(
        title="Stages",
        columns=["Stage", "Rows", "Seconds", "Rows/s", "Tasks"],
        rows=[
            [stage, rows, f"{seconds:,.2f}", rate(rows, seconds), tasks]
            for stage, rows, seconds, tasks in stage_totals(found)
        ],
        note="seconds are summed over tasks, which may run side by side",
    )


def _stage_chart(found: Reconciled) -> Chart:
    import altair as alt

    data = [
        {"stage": e.stage, "begin": _iso(e.at, e.seconds), "end": _iso(e.at, 0), "rows": e.event_rows}
        for e in found.events
        if e.at is not None and e.stage in STAGES
    ]
    chart = (
        alt.Chart(alt.Data(values=data))
        .mark_bar(height=14)
        .encode(
            x=alt.X(
                "begin:T",
                title="time (UTC)",
                scale=alt.Scale(type="utc"),
                axis=alt.Axis(format="%H:%M:%S", tickCount=8),
            ),
            x2="end:T",
            y=alt.Y("stage:N", sort=list(STAGES), title=None),
            color=alt.Color("stage:N", legend=None, sort=list(STAGES)),
        )
        .properties(width=860, height=110)
    )
    return Chart(title="When each stage worked", vega=chart.to_dict())


def _iso(at: datetime | None, seconds_before: float) -> str:
    from datetime import timedelta

    return "" if at is None else (at - timedelta(seconds=seconds_before)).isoformat()


def restore_report(spec: ArchiveSpec, restored: Sequence[tuple[Plan, Restored]], common: dict[str, Any]) -> Report:
    """The report of s3_archive_restore."""
    wrong = [plan.plan_id for plan, r in restored if not r.equal]
    conflicts = sum(r.conflicts for _, r in restored)
    verdict = Verdict.FAILED if wrong else Verdict.WARNING if conflicts else Verdict.OK
    reasons = [f"plan {p}: the scratch table is not equal to the archive" for p in wrong]
    if conflicts:
        reasons.append(f"{conflicts:,} restored keys exist in {spec.full_name} as well; live rows were not touched")
    return Report(
        title=f"Restore of {spec.full_name}",
        verdict=verdict,
        reasons=reasons or ["every restored row is equal to the archive"],
        figures=[
            Figure(label="Rows restored", value=f"{sum(r.rows for _, r in restored):,}"),
            Figure(label="Conflicts", value=f"{conflicts:,}", note="keys that are live as well"),
        ],
        sections=[
            Table(
                title="Scratch tables",
                columns=["Plan", "Scratch table", "Rows", "Equal to lake", "Equal to ledger", "Conflicts"],
                rows=[
                    [
                        plan.plan_id, ".".join(r.scratch), r.rows, r.in_mysql == r.in_lake,
                        None if r.manifest is None else r.in_mysql == r.manifest, r.conflicts,
                    ]
                    for plan, r in restored
                ],
            ),
            *(
                Table(title=f"Conflicting keys of {plan.plan_id}", columns=["Key"], rows=[[k] for k in r.sample_conflicts])
                for plan, r in restored
                if r.sample_conflicts
            ),
            *(
                Code(
                    title=f"Move {'.'.join(r.scratch)} back (after your own checks)",
                    body=f"INSERT INTO {ident(plan.source)}\nSELECT * FROM {ident(r.scratch)}; -- leaves generated columns to you",
                )
                for plan, r in restored
            ),
        ],
        spec=spec.name,
        **common,
    )  # fmt: skip
