"""The inventory's report: what runs, how much of the truth that is, what it touches, and what it means for a move."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from dbops.inventory.analysis import Change, Inventory, classes, watched
from dbops.inventory.model import Gap, Statement, TableRef
from dbops.reports import Chart, Code, Figure, Report, Section, Table, Text, Verdict

SHOWN = 200
"""Rows of a table on the page; the CSV file beside the report has all."""
# Of the heat map, so that it can be read; the table below it has every table.
MAX_BARS = 40
_KINDS = ("select", "insert", "replace", "update", "delete", "load", "truncate", "call", "ddl", "other")


def report(found: Inventory, common: dict[str, Any]) -> Report:
    """The report of one analysis."""
    verdict, reasons = judge(found)
    return Report(
        title=f"Query inventory of {found.spec.name}", spec=found.spec.name, verdict=verdict, reasons=reasons,
        figures=_figures(found), sections=_sections(found), **common,
    )  # fmt: skip


_MISSING = ("definitions of tables", "definitions (", "schemas ", "under_migration ")
"""Gaps that keep tables from being judged at all."""


def judge(found: Inventory) -> tuple[Verdict, list[str]]:
    """FAILED: nothing could be measured; WARNING: something is unexplained, unknown or dangerous; OK: everything is explained."""
    if not found.intervals:
        return Verdict.FAILED, ["no snapshot lies in the window: let query_inventory_snapshot run, then analyse again"]
    reasons = [f"new write on a table under migration: {_places(a.writes)}: {a.text[:200]}" for a in found.alarms]
    reasons += [f"rows change and nobody is known to do it: {hole}" for hole in found.writers.holes]
    if found.window.coverage_percent < found.spec.coverage_limit:
        reasons.append(
            f"{found.window.coverage_percent:.2f} % of executions are explained by named statements, {found.spec.coverage_limit:g} % are"
            " demanded: nothing is advised; the gaps below name each remedy"
        )
    reasons += [_unseen(found, name) for name in found.unseen]
    reasons += [f"{gap.what}: {gap.why}" for gap in found.gaps if gap.what.startswith(_MISSING)]
    breaking = sum(any(f.severity == "breaks" for f in findings) for findings in found.findings.values())
    if breaking:
        reasons.append(f"{breaking} statements break in MySQL 8.0")
    if reasons:
        return Verdict.WARNING, reasons
    return Verdict.OK, [f"{found.window.coverage_percent:.2f} % of executions are explained by named statements"]


def _unseen(found: Inventory, name: str) -> str:
    newest = max((i for i in found.intervals if i.instance == name), key=lambda i: i.until, default=None)
    if newest is None or newest.coverage.measured:
        return f"instance {name} has no snapshot near the end of the window"
    why = "; ".join(f"{gap.what}: {gap.why}" for gap in newest.coverage.gaps if gap.blind)
    return f"instance {name} does not count all that it runs: {why or 'see the gaps'}"


def _figures(found: Inventory) -> list[Figure]:
    ledger = found.coverage
    lost = f"; {ledger.unmeasured_s / 60:,.0f} minutes before restarts were not counted" if ledger.unmeasured_s else ""
    writes = sum(1 for s in found.statements if s.tables("write"))
    cold = sum(1 for h in found.heats if h.verdict == "cold")
    return [
        Figure(
            label="Coverage",
            value=f"{found.window.coverage_percent:.2f} %",
            note=f"{ledger.explained:,} of {ledger.executions_total:,} executions, {ledger.own:,} of our own subtracted{lost}",
        ),
        Figure(
            label="Statements",
            value=f"{len(found.statements):,}",
            note=f"{writes:,} write, {len(found.unparsed):,} not fully parsed",
        ),
        Figure(label="Tables", value=f"{len(found.heats):,}", note=f"{cold:,} cold"),
        Figure(
            label="Writers",
            value=f"{len(found.writers.writers):,}",
            note=f"{len(found.writers.holes):,} holes, {len(found.writers.blind):,} blind spots",
        ),
        Figure(
            label="Window",
            value=f"{found.window.watched.total_seconds() / 86400:,.1f} days",
            note=f"until {found.window.until:%Y-%m-%d %H:%M} UTC",
        ),
        Figure(
            label="Changes",
            value="first analysis" if found.compared_with is None else f"{len(found.changes):,}",
            note="" if found.compared_with is None else f"since {found.compared_with:%Y-%m-%d %H:%M} UTC",
        ),
    ]


def _sections(found: Inventory) -> list[Section]:
    sections: list[Section] = [_coverage_chart(found), _gaps(found.gaps)]
    if found.compared_with is not None:
        sections.append(_changes(found.changes))
    sections += [
        _heat_map(found),
        _tables(found),
        _timeline(found),
        _statements(found),
        _triples(found),
        _writers(found),
    ]
    if found.writers.holes or found.writers.blind:
        sections.append(_holes(found))
    sections += [_advice(found), _join_graph(found), _groups(found), _upgrade(found), _unused(found)]
    if found.unused.not_judged:
        sections.append(
            Text(title="Not judged for unused indexes and columns", body="\n\n".join(found.unused.not_judged))
        )
    if found.unparsed:
        sections.append(_unparsed(found))
    sections += [
        Code(title=f"Proposed spec: include/specs/{p.room}/{p.name}.yaml", language="yaml", body=p.yaml)
        for p in found.proposals
    ]
    sections.append(_ledger(found))
    return sections


# -- coverage --------------------------------------------------------------------------------------------------------------------


def _coverage_chart(found: Inventory) -> Chart:
    import altair as alt

    rows: list[dict[str, Any]] = []
    by_instance: dict[str, Counter[str]] = {}
    for interval in watched(found.intervals):
        ledger = interval.coverage
        counts = by_instance.setdefault(interval.instance, Counter())
        counts["named statements"] += ledger.explained
        named: Counter[str] = Counter()
        for gap in ledger.gaps:
            named[gap.what] += gap.executions or 0
        counts.update(named)
        if rest := ledger.executions_total - ledger.explained - named.total():
            counts["other gaps"] += max(rest, 0)
    for instance, counts in by_instance.items():
        rows += [{"instance": instance, "what": what, "executions": n} for what, n in counts.items() if n]
    chart = (
        alt.Chart(alt.Data(values=rows))
        .mark_bar(height=18)
        .encode(
            x=alt.X("executions:Q", stack="normalize", title="share of executions", axis=alt.Axis(format="%")),
            y=alt.Y("instance:N", title=None),
            color=alt.Color("what:N", title=None, legend=alt.Legend(orient="bottom", columns=2, labelLimit=400)),
        )
        .properties(width=820, height=alt.Step(26))
    )
    return Chart(
        title="Coverage: which executions have a name", vega=chart.to_dict(),
        note="counted by the server itself (events_statements_summary_global_by_event_name), summed over the intervals of the figure above",
    )  # fmt: skip


def _gaps(gaps: Sequence[Gap]) -> Table:
    return Table(
        title="Gaps: what this inventory cannot see",
        columns=["What", "Why", "Executions", "Remedy", "Cost"],
        rows=[
            [g.what, g.why, g.executions, g.remedy, g.cost] for g in sorted(gaps, key=lambda g: -(g.executions or 0))
        ],
        note="an empty number: not countable",
        file="gaps",
        shown=SHOWN,
    )


def _ledger(found: Inventory) -> Table:
    return Table(
        title="Ledger of every interval",
        columns=[
            "Instance",
            "Since",
            "Until",
            "Executions",
            "Explained",
            "%",
            "Digests",
            "Prepared",
            "In programs",
            "NULL row",
            "Errors",
            "Own",
            "Resets",
        ],
        rows=[
            [
                i.instance,
                i.since,
                i.until,
                i.coverage.executions_total,
                i.coverage.explained,
                f"{i.coverage.explained_percent:.2f}",
                i.coverage.named_digest,
                i.coverage.prepared,
                i.coverage.in_programs,
                i.coverage.null_row,
                i.coverage.errors,
                i.coverage.own,
                "; ".join(i.coverage.resets),
            ]
            for i in reversed(found.intervals)
        ],
        note="since is empty for the first snapshot of an instance: counted since the server began to count",
        file="ledger",
        shown=50,
    )


# -- statements ------------------------------------------------------------------------------------------------------------------


def _changes(changes: Sequence[Change]) -> Table:
    return Table(
        title="Changes since the last analysis",
        columns=["Change", "Statement or table", "Writes", "Was", "Is", "Text"],
        rows=[[c.kind, c.what, _places(c.writes), c.was, c.now, c.text] for c in changes],
        file="changes",
        shown=SHOWN,
    )


def _kind(statement: Statement) -> str:
    return statement.analysis.kind if statement.analysis.kind in _KINDS else "other"


def _heat_map(found: Inventory) -> Chart:
    import altair as alt

    counts: Counter[tuple[str, str]] = Counter()
    executions: Counter[tuple[str, str]] = Counter()
    for statement in found.statements:
        for table in statement.tables():
            cell = (str(table), _kind(statement))
            counts[cell] += 1
            executions[cell] += statement.activity.executions
    busiest = [t for t, _ in _by_table(executions).most_common(MAX_BARS)]
    rows = [
        {"table": t, "kind": k, "statements": n, "executions": executions[t, k]}
        for (t, k), n in counts.items()
        if t in set(busiest)
    ]
    base = alt.Chart(alt.Data(values=rows)).encode(
        x=alt.X("kind:N", sort=list(_KINDS), title=None, axis=alt.Axis(orient="top", labelAngle=0)),
        y=alt.Y("table:N", sort=busiest, title=None, axis=alt.Axis(labelLimit=300)),
    )
    cells = base.mark_rect(stroke="#8888", strokeWidth=0.5).encode(
        color=alt.Color("executions:Q", scale=alt.Scale(type="symlog", scheme="blues"), title="executions")
    )
    chart = (cells + base.mark_text(fontSize=11).encode(text="statements:Q")).properties(width=640, height=alt.Step(20))
    left = len(_by_table(executions)) - len(busiest)
    return Chart(
        title="Statements by table and kind", vega=chart.to_dict(),
        note="number: statements; colour: executions" + (f"; {left} quieter tables are in the table below" if left > 0 else ""),
    )  # fmt: skip


def _by_table(executions: Counter[tuple[str, str]]) -> Counter[str]:
    total: Counter[str] = Counter()
    for (table, _), count in executions.items():
        total[table] += count
    return total


def _statements(found: Inventory) -> Table:
    rows = []
    for s in sorted(found.statements, key=lambda s: -s.activity.executions):
        a, witnesses = s.activity, found.witnesses[s.fingerprint, s.schema or ""]
        rows.append([
            s.id, s.schema, s.analysis.kind, s.analysis.method, _uses(s), _shown(classes(witnesses)),
            "; ".join(sorted({d for w in witnesses for d in w.differences})), a.executions, a.peak_per_second,
            a.gauges.get("p95_ms"), a.counters.get("rows_examined"), a.counters.get("rows_sent"), a.first_seen, a.last_seen,
            ", ".join(sorted(a.sources)), ", ".join(sorted(a.instances)), ", ".join(sorted(a.programs)),
            ", ".join(sorted(a.users)), "; ".join(sorted(a.callers)), s.text,
        ])  # fmt: skip
    return Table(
        title="Statements, the busiest first",
        columns=[
            "Id", "Schema", "Kind", "Method", "Touches", "Access", "Witnesses differ", "Executions", "Peak/s", "p95 ms", "Examined", "Sent",
            "First seen", "Last seen", "Sources", "Instances", "Programs", "Users", "Callers", "Text (masked)",
        ],
        rows=rows,
        note="Access: what a key-value store would be asked for; Witnesses differ: where MySQL's plan or its counters say otherwise."
        " Peak/s is the highest mean rate between two snapshots. Schema is that of the session."
        " Programs: where a body holds the statement; of a view: this is the digest of its body, for any statement over the view.",
        file="statements",
        shown=SHOWN,
    )  # fmt: skip


def _triples(found: Inventory) -> Table:
    rows = []
    for s in found.statements:
        by_role: dict[tuple[TableRef, str], list[str]] = {}
        for c in sorted(s.columns):
            by_role.setdefault((c.table, c.role), []).append(c.column)
        for use in sorted(s.uses):
            roles = [
                ", ".join(by_role.get((use.table, role), ()))
                for role in ("read", "written", "filtered", "joined", "sorted")
            ]
            rows.append([s.id, s.schema, str(use.table), use.access, use.via, *roles])
        rows += [[s.id, s.schema, name, "unresolved", "", "", "", "", "", ""] for name in s.unresolved]
    return Table(
        title="What each statement touches",
        columns=["Id", "Schema", "Table", "Access", "Via", "Columns read", "written", "filtered", "joined", "sorted"],
        rows=rows,
        note="Via: the view, stored program or foreign key that leads there. unresolved: a name that the catalog does not have.",
        file="triples",
        shown=50,
    )


def _unparsed(found: Inventory) -> Table:
    return Table(
        title="Not fully parsed",
        columns=["Id", "Method", "Reason", "Executions", "Tables found by rules", "Text (masked)"],
        rows=[
            [s.id, s.analysis.method, s.analysis.reason, s.activity.executions, _uses(s), s.text]
            for s in found.unparsed
        ],
        file="unparsed",
        shown=SHOWN,
    )


def _uses(statement: Statement) -> str:
    return ", ".join(f"{'RWD'[('read', 'write', 'ddl').index(u.access)]} {u.table}" for u in sorted(statement.uses))


# -- tables ----------------------------------------------------------------------------------------------------------------------


def _tables(found: Inventory) -> Table:
    return Table(
        title="Tables: hot or cold",
        columns=[
            "Table", "Verdict", "Why", "Rows", "Bytes", "Reads", "Writes", "Last read", "Last write", "Rows read", "Rows written",
            "Counters moved (read)", "Counters moved (written)", "Family",
        ],
        rows=[
            [
                str(h.table), h.verdict, h.reason, h.row_estimate, h.size_bytes, h.reads, h.writes, h.last_read, h.last_write, h.rows_read,
                h.rows_written, h.rows_last_read, h.rows_last_written, h.family if h.family != h.table.table else "",
            ]
            for h in found.heats
        ],
        note="Reads and writes: executions of statements; rows: by the server's own counters. no evidence is not cold.",
        file="tables",
        shown=SHOWN,
    )  # fmt: skip


def _timeline(found: Inventory) -> Chart:
    import altair as alt

    def shown(at: datetime | None) -> str | None:
        return max(at, found.window.since).isoformat() if at else None

    touched = sorted((h for h in found.heats if h.last_touched), key=lambda h: h.last_touched or found.window.since)
    rows = [
        {"table": str(h.table), "event": event, "at": moment, "verdict": h.verdict}
        for h in touched[:MAX_BARS]
        for event, at in (("read", max(filter(None, (h.last_read, h.rows_last_read)), default=None)),
                          ("write", max(filter(None, (h.last_write, h.rows_last_written)), default=None)))
        if (moment := shown(at))
    ]  # fmt: skip
    chart = (
        alt.Chart(alt.Data(values=rows))
        .mark_point(filled=True, size=60)
        .encode(
            x=alt.X("at:T", title="last touched (UTC)", scale=alt.Scale(
                type="utc", domain=[found.window.since.isoformat(), found.window.until.isoformat()])),
            y=alt.Y("table:N", sort=[str(h.table) for h in touched], title=None, axis=alt.Axis(labelLimit=300)),
            shape=alt.Shape("event:N", title=None),
            color=alt.Color("verdict:N", title=None),
        )
        .properties(width=640, height=alt.Step(18))
    )  # fmt: skip
    left = len(touched) - MAX_BARS
    return Chart(
        title="When each table was last touched, the coldest first", vega=chart.to_dict(),
        note=f"{left} hotter tables are in the table above" if left > 0 else "",
    )  # fmt: skip


def _writers(found: Inventory) -> Table:
    return Table(
        title="Dual-write register: every writer of every table",
        columns=[
            "Table",
            "Operation",
            "Statement",
            "Via",
            "Programs",
            "Key",
            "Hazards",
            "Executions",
            "Last seen",
            "Users",
            "Callers",
            "Text (masked)",
        ],
        rows=[
            [
                str(w.table),
                w.operation,
                w.statement,
                w.via,
                ", ".join(sorted(w.programs)),
                ", ".join(w.key),
                "; ".join(w.hazards),
                w.executions,
                w.last_seen,
                ", ".join(sorted(w.users)),
                "; ".join(sorted(w.callers)),
                w.text,
            ]
            for w in sorted(found.writers.writers, key=lambda w: (w.table, -w.executions))
        ],
        note="a move of a table needs all of them to write twice",
        file="writers",
        shown=SHOWN,
    )


def _holes(found: Inventory) -> Table:
    rows: list[list[Any]] = [[str(h.table), f"{h.rows:,} rows {h.counter}", str(h)] for h in found.writers.holes]
    rows += [[b.statement, b.why, b.text] for b in found.writers.blind]
    return Table(
        title="Holes and blind spots of the register",
        columns=["Table or statement", "What", "Detail"],
        rows=rows,
        file="holes",
        shown=SHOWN,
    )


def _advice(found: Inventory) -> Table:
    return Table(
        title="Which store fits each table",
        columns=["Table", "Store", "Evidence", "What speaks against it", "Why not the others"],
        rows=[
            [
                str(a.table),
                a.store,
                "; ".join(a.evidence),
                a.counter,
                "; ".join(f"{store}: {why}" for store, why in a.rejected),
            ]
            for a in found.advice
        ],
        note=f"Rules and limits: docs/inventory.md. Below {found.spec.coverage_limit:g} % coverage nothing is decidable.",
        file="advice",
        shown=SHOWN,
    )


def _join_graph(found: Inventory) -> Chart:
    import altair as alt

    tied = [g for g in found.groups if len(g) > 1]
    order = [table for group in tied for table in group]
    place = {
        t: (math.cos(2 * math.pi * i / len(order)), math.sin(2 * math.pi * i / len(order))) for i, t in enumerate(order)
    }
    number = {t: i for i, group in enumerate(tied, start=1) for t in group}
    advice = {a.table: a.store for a in found.advice}
    nodes = [
        {"table": str(t), "x": x, "y": y, "group": f"group {number[t]}", "label": f"{t.table} ({advice.get(t, '?')})"}
        for t, (x, y) in place.items()
    ]
    lines = [
        {"x": place[e.a][0], "y": place[e.a][1], "x2": place[e.b][0], "y2": place[e.b][1], "executions": e.executions,
         "tie": ", ".join(sorted(e.ties))}
        for e in found.edges
        if e.a in place and e.b in place
    ]  # fmt: skip
    hidden = alt.Axis(labels=False, ticks=False, grid=False, domain=False)
    room = alt.Scale(domain=[-1.3, 1.3])
    graph = (
        alt.Chart(alt.Data(values=lines))
        .mark_rule(opacity=0.6)
        .encode(
            x=alt.X("x:Q", axis=hidden, title=None, scale=room), y=alt.Y("y:Q", axis=hidden, title=None, scale=room), x2="x2:Q", y2="y2:Q",
            size=alt.Size("executions:Q", scale=alt.Scale(type="symlog", range=[1, 8]), title="executions"),
            color=alt.Color("tie:N", title="tie"),
        )
    )  # fmt: skip
    points = alt.Chart(alt.Data(values=nodes)).encode(x="x:Q", y="y:Q")
    chart = (
        graph
        + points.mark_point(filled=True, size=120).encode(shape=alt.Shape("group:N", title=None))
        + points.mark_text(dy=-12, fontSize=11).encode(text="label:N")
    )
    return Chart(
        title="Join graph: tables that must move together", vega=chart.properties(width=720, height=560).to_dict(),
        note="tables that nothing ties are left out; every group is in the table below",
    )  # fmt: skip


def _groups(found: Inventory) -> Table:
    advice = {a.table: a.store for a in found.advice}
    return Table(
        title="Groups of tables that move together",
        columns=["Group", "Tables", "Stores advised"],
        rows=[
            [i, ", ".join(map(str, g)), ", ".join(sorted({advice.get(t, "?") for t in g}))]
            for i, g in enumerate(found.groups, start=1)
        ],
        file="groups",
        shown=SHOWN,
    )


def _upgrade(found: Inventory) -> Table:
    order = {"breaks": 0, "changes": 1, "needs raw text": 2, "not checked": 3, "deprecated": 4}
    rows = [
        [f.severity, f.rule, s.id, s.activity.executions, f.evidence, f.fix, f.by, s.text]
        for s in found.statements
        for f in found.findings[s.fingerprint, s.schema or ""]
    ]
    return Table(
        title="MySQL 8.0: what breaks or changes",
        columns=["Severity", "Rule", "Statement", "Executions", "Evidence", "Fix", "By", "Text (masked)"],
        rows=sorted(rows, key=lambda r: (order[r[0]], -r[3])),
        note="needs raw text: only a digest is known, in which the difference cannot be seen",
        file="upgrade",
        shown=SHOWN,
    )


def _unused(found: Inventory) -> Table:
    return Table(
        title="Indexes and columns that nobody uses",
        columns=["Table", "Kind", "Name", "Finding", "Before you drop it"],
        rows=[[str(u.table), u.kind, u.name, u.finding, u.caveat] for u in found.unused.items],
        file="unused",
        shown=SHOWN,
    )


def _places(places: Iterable[TableRef]) -> str:
    return ", ".join(map(str, places))


def _shown(by_table: dict[str, str]) -> str:
    return ", ".join(f"{table}: {kind}" if len(by_table) > 1 else kind for table, kind in sorted(by_table.items()))
