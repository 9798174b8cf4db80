"""The report of a rehearsal: figures, charts, tables, and the runbook for production."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from dbops import reports
from dbops.blue_green import estimate, recording, timeline
from dbops.blue_green.findings import Conclusion
from dbops.blue_green.journal import Journal
from dbops.blue_green.results import MEASURES, conclude, spans, taken_over_at
from dbops.blue_green.steps import GREEN_LANE, Services, recording_paths, spec_of

_VERDICTS = {"GO": reports.Verdict.OK, "GO WITH WARNINGS": reports.Verdict.WARNING, "NO-GO": reports.Verdict.FAILED}


def report(services: Services, name: str, common: Mapping[str, Any]) -> reports.Report:
    """The report of a rehearsal; of a dry run its plan and price."""
    journal = services.journal(name)
    steps, spec = journal.steps(), spec_of(journal)
    if steps["begin"]["dry_run"] and "provision" not in steps:
        return _dry(spec, steps, common)
    conclusion = conclude(journal)
    sections = [
        *_charts(services, journal, steps),
        *_of_attempts(steps),
        *_of_preflight(steps),
        *_of_creation(steps),
        *_of_replication(steps),
        *_of_comparison(steps),
        *_of_cost(steps),
        *_history(journal, spec.name, steps),
        *_runbook(spec, steps, conclusion),
        reports.Code(title="The spec as it ran", language="yaml", body=_yaml(steps["begin"]["spec"])),
    ]
    return reports.Report(
        title=f"Blue/Green rehearsal {spec.name}", spec=spec.name, verdict=_VERDICTS[conclusion.verdict],
        reasons=[conclusion.verdict, *conclusion.reasons], figures=_headline(steps), sections=sections, **common,
    )  # fmt: skip


def _dry(spec: Any, steps: Mapping[str, Any], common: Mapping[str, Any]) -> reports.Report:
    plan = steps.get("plan")
    if plan is None:
        return reports.Report(
            title=f"Blue/Green rehearsal {spec.name}", spec=spec.name, verdict=reports.Verdict.REFUSED,
            reasons=["the plan did not end; see its task"], **common,
        )  # fmt: skip
    priced = plan["estimate"]
    return reports.Report(
        title=f"Blue/Green rehearsal {spec.name}: plan", spec=spec.name, verdict=reports.Verdict.DRY_RUN,
        reasons=["nothing was created", *[f"{f['step']}: {f['text']}" for f in plan["findings"]]],
        figures=[
            reports.Figure(label="Estimate", value=f"{priced['total']:.2f} {priced['currency']}", note=f"{estimate.hours(spec):g} hours"),
            reports.Figure(label="Budget", value=f"{spec.max_cost_usd:.2f} USD"),
            reports.Figure(label="Ladder", value=", ".join(f"{t} s" for t in spec.ladder)),
        ],
        sections=[
            reports.Table(title="Estimate", columns=["item", priced["currency"]], rows=[[n, round(v, 2)] for n, v in priced["items"]]),
            _results_table("Checks through the API", plan["results"], "plan_checks"),
            reports.Code(title="The spec as it would run", language="yaml", body=_yaml(steps["begin"]["spec"])),
        ],
        **common,
    )  # fmt: skip


def _headline(steps: Mapping[str, Any]) -> list[reports.Figure]:
    found = []
    success = next(
        (d for name, d in steps.items() if name.startswith("attempt_") and d["outcome"] == "COMPLETED"), None
    )
    number = next((name[8:] for name, d in steps.items() if d is success and name.startswith("attempt_")), "")
    down = steps.get("measured", {}).get("downtime", {}).get(number, {})
    for what in ("write", "read", "connect", "reader"):
        if what in down:
            one = down[what]
            found.append(
                reports.Figure(
                    label=f"{what.capitalize()} downtime",
                    value=f"{one['longest_s'] * 1000:,.0f} ms",
                    note=f"+- {one['longest_error_s'] * 1000:,.0f} ms; longest outage of attempt {number}",
                )
            )
    if success:
        found.append(
            reports.Figure(
                label="Switchover by the API",
                value=f"{success['duration_s']:.1f} s",
                note=f"timeout {success['timeout_s']} s",
            )
        )
    if "ladder" in steps:
        advice = steps["ladder"]
        found.append(
            reports.Figure(
                label="Recommended SwitchoverTimeout",
                value="none" if advice["recommended_s"] is None else f"{advice['recommended_s']} s",
                note=advice["rule"],
            )
        )
    if "verify" in steps:
        counted = steps["verify"]["acknowledged"]
        found.append(
            reports.Figure(
                label="Acknowledged writes",
                value=f"{counted['acknowledged']:,}",
                note=f"lost {len(counted['lost'])}, duplicate {len(counted['duplicated'])}",
            )
        )
    if "green" in steps:
        found.append(reports.Figure(label="Green created in", value=f"{steps['green']['creation_s'] / 60:.1f} min"))
    if "fill" in steps:
        filled = steps["fill"]
        found.append(
            reports.Figure(
                label="Made-up data",
                value=f"{filled['bytes'] / 1e9:.2f} GB",
                note=f"{filled['rows']:,} rows in {len(filled['tables'])} tables",
            )
        )
    if actual := steps.get("teardown", {}).get("actual"):
        found.append(
            reports.Figure(
                label="Cost",
                value=f"{actual['total']:.2f} {actual['currency']}",
                note=f"estimate {steps['plan']['estimate']['total']:.2f}",
            )
        )
    return found


def _charts(services: Services, journal: Journal, steps: Mapping[str, Any]) -> list[reports.Section]:
    paths = [path for path in recording_paths(services, journal.rehearsal).values() if path.exists()]
    if not paths:
        return []
    seen = recording.read(paths)
    stamps = [a.sent for lane in seen.lanes.values() for a in (lane[0], lane[-1]) if lane]
    if not stamps:
        return []
    over = taken_over_at(seen, steps)
    found: list[reports.Section] = [
        reports.Chart(
            title="The whole rehearsal: phases, what probes saw, lag of green",
            vega=timeline.chart(seen, min(stamps), max(stamps) + 1, green_lane=GREEN_LANE, lag_until=over),
            note=f"A probe every {seen.period / 1e6:g} ms a lane. Each stretch shows the worst that was seen in it.",
        )
    ]
    for number, (since, until) in spans(seen, steps).items():
        document = steps[f"attempt_{number}"]
        found.append(
            reports.Chart(
                title=f"Attempt {number}: SwitchoverTimeout {document['timeout_s']} s, {document['outcome']}",
                vega=timeline.chart(seen, since, until, green_lane=GREEN_LANE, lag_until=over),
                note=document["reason"],
            )
        )
    return found


def _of_attempts(steps: Mapping[str, Any]) -> list[reports.Section]:
    tried = [(name[8:], d) for name, d in steps.items() if name.startswith("attempt_")]
    if not tried:
        return []
    measured = steps.get("measured", {}).get("downtime", {})
    rows, phases, causes = [], [], []
    for number, d in tried:
        down = measured.get(number, {})
        figures = [
            f"{down[what]['longest_s'] * 1000:,.0f} +- {down[what]['longest_error_s'] * 1000:,.0f}"
            if what in down
            else None
            for what, _ in MEASURES
        ]
        seen = d["evidence"]
        rows.append([
            int(number), d["timeout_s"], d["outcome"], round(d["duration_s"], 1), *figures, seen.get("max_lag_s"),
            seen.get("longest_transaction_s"), seen.get("connections"), d["reason"],
        ])  # fmt: skip
        phases += [
            [int(number), p["what"], round(p["from_s"], 2), None if p["to_s"] is None else round(p["to_s"], 2), round(p["error_s"], 2),
             "; ".join(f"{text} ({count})" for text, count in p["errors"]) or "answers came late"]
            for p in d["phases"]
        ]  # fmt: skip
        causes += [[int(number), c["name"], c["weight"], c["text"]] for c in d["causes"]]
    columns = ["attempt", "timeout s", "outcome", "API s", "write down ms", "read down ms", "connect down ms", "lag max s", "transaction s",
               "connections", "reason"]  # fmt: skip
    found: list[reports.Section] = [reports.Table(title="Attempts", columns=columns, rows=rows, file="attempts")]
    found.append(
        reports.Table(
            title="What clients saw, in seconds from the call",
            columns=["attempt", "what", "from", "to", "+-", "errors"], rows=phases, file="outages", shown=40,
            note="The downtime of clients is not the duration that the API shows; both are reported.",
        )
    )  # fmt: skip
    if len(led := steps.get("measured", {}).get("addresses", ())) > 1:
        rows = [
            [str(datetime.fromtimestamp(a["wall"] / 1e9, UTC))[:23], a["phase"], a["address"] or "not found"]
            for a in led
        ]
        title = "Where blue's name led, as the worker's resolver saw it"
        found.append(
            reports.Table(title=title, columns=["from, UTC", "phase", "address"], rows=rows, file="addresses", shown=20)
        )
    if causes:
        found.append(
            reports.Table(
                title="Why attempts were rolled back, strongest evidence first", columns=["attempt", "cause", "weight", "evidence"],
                rows=causes, note="Weight: share of the timeout that the cause could use up, doubled when AWS's own reason names it.",
            )
        )  # fmt: skip
    return found


def _of_preflight(steps: Mapping[str, Any]) -> list[reports.Section]:
    late = {r["id"]: r for r in steps.get("green", {}).get("results", ())}  # asked again with green's own list of words
    found = [*steps.get("plan", {}).get("results", ()), *steps.get("preflight", {}).get("results", ())]
    found = [late.get(result["id"], result) for result in found]
    sections: list[reports.Section] = [_results_table("Preflight", found, "preflight")] if found else []
    if told := steps.get("green", {}).get("prechecks"):
        rows = [
            [
                p["seen_by"],
                p["aurora"],
                p["ours"],
                p["level"],
                ", ".join((*p["both"], *p["only_aurora"], *p["only_ours"])),
                p["note"],
            ]
            for p in told
        ]
        columns = ["seen by", "Aurora's check", "our check", "level", "objects", "note"]
        sections.append(
            reports.Table(
                title="Aurora's own prechecks of green against the preflight",
                columns=columns,
                rows=rows,
                file="prechecks",
                shown=40,
            )
        )
    return sections


def _of_creation(steps: Mapping[str, Any]) -> list[reports.Section]:
    if not (tasks := steps.get("green", {}).get("tasks")):
        return []
    rows = [[t["name"], t["status"], None if t["seconds"] is None else round(t["seconds"] / 60, 1)] for t in tasks]
    return [
        reports.Table(
            title="How green was created", columns=["task", "status", "minutes"], rows=rows,
            note="Between two looks; empty: its begin or its end was not seen.",
        )
    ]  # fmt: skip


def _results_table(title: str, results: Sequence[Mapping[str, Any]], file: str) -> reports.Table:
    order = ["error", "unknown", "overridden", "warning", "notice", "ok", "not applicable"]
    rows = []
    for result in sorted(results, key=lambda r: order.index(r["verdict"])):
        for name, detail in result["objects"] or [("", "")]:
            rows.append(
                [
                    result["id"],
                    result["verdict"],
                    name,
                    detail,
                    result["note"] or ("" if result["verdict"] == "ok" else result["fix"]),
                ]
            )
    return reports.Table(
        title=title, columns=["check", "verdict", "object", "detail", "fix or note"], rows=rows, file=file, shown=100
    )


def _of_replication(steps: Mapping[str, Any]) -> list[reports.Section]:
    if (document := steps.get("replication")) is None:
        return []
    rows = [[a["name"], a["kind"], a["seconds"], a["error"], a["statement"][:200]] for a in document["arrivals"]]
    found: list[reports.Section] = [
        reports.Table(
            title="Changes on blue, and when green showed them", columns=["change", "kind", "seconds", "error", "statement"], rows=rows,
            file="arrivals", note=f"Green refuses the write of a plain user: {'yes' if document['green_refuses_writes'] else 'NO'}.",
        )
    ]  # fmt: skip
    if breaking := steps.get("breaking"):
        rows = [
            [b["name"], b["side"], b["verdict"], b["error"], b["repaired"], b["statement"][:200]]
            for b in breaking["tried"]
        ]
        columns = ["change", "side", "verdict", "error", "repaired", "statement"]
        found.append(
            reports.Table(
                title="Changes that are known to break replication, tried on purpose", columns=columns, rows=rows
            )
        )
    return found


def _of_comparison(steps: Mapping[str, Any]) -> list[reports.Section]:
    if (document := steps.get("compare")) is None:
        return []
    order = ["broken", "different", "worse", "not compared", "order only", "better", "same"]
    compared = sorted(document["comparisons"], key=lambda c: order.index(c["verdict"]))
    rows = [
        [c["name"], c["verdict"], c["rows"], c["time_ratio"] and round(c["time_ratio"], 2), c["error_blue"], c["error_green"],
         "; ".join(c["warnings_green"]), "; ".join(c["plan_differences"]), c["note"]]
        for c in compared
    ]  # fmt: skip
    columns = [
        "statement",
        "verdict",
        "rows",
        "time ratio",
        "error on blue",
        "error on green",
        "warnings on green",
        "plan differences",
        "note",
    ]
    found: list[reports.Section] = [
        reports.Table(title="Statements on green against blue", columns=columns, rows=rows, file="comparison", shown=60)
    ]
    if document["left_out"]:
        found.append(
            reports.Table(
                title="Statements that were not compared",
                columns=["statement", "why"],
                rows=document["left_out"],
                file="left_out",
                shown=20,
            )
        )
    return found


def _of_cost(steps: Mapping[str, Any]) -> list[reports.Section]:
    if "plan" not in steps:
        return []
    priced = steps["plan"]["estimate"]
    document = steps.get("teardown", {})
    paid = dict(map(tuple, (document.get("actual") or {}).get("items", ())))
    rows = [[name, round(value, 2), round(paid[name], 2) if name in paid else None] for name, value in priced["items"]]
    found: list[reports.Section] = [
        reports.Table(
            title="Cost", columns=["item", f"estimate, {priced['currency']}", f"by actual hours, {priced['currency']}"],
            rows=[*rows, ["total", round(priced["total"], 2), round(sum(paid.values()), 2) if paid else None]],
            note="; ".join(priced["warnings"]),
        )
    ]  # fmt: skip
    if left := document.get("left"):
        rows = [[r["kind"], r["identifier"], r["resource_id"], r["status"]] for r in left]
        found.append(
            reports.Table(
                title=f"What stands, at {document['per_hour']:.2f} {priced['currency']} an hour",
                columns=["kind", "identifier", "resource id", "status"], rows=rows,
            )
        )  # fmt: skip
    return found


def _history(journal: Journal, spec: str, steps: Mapping[str, Any]) -> list[reports.Section]:
    past, now = journal.past(spec), steps.get("measured", {}).get("figures", {})
    if not now:
        return []
    rows = []
    for name, value in now.items():
        every = sorted([*past.get(name, ()), value])
        rows.append(
            [name, round(value, 3), len(every), round(every[math.ceil(0.95 * len(every)) - 1], 3), round(every[-1], 3)]
        )
    return [
        reports.Table(
            title="Against earlier rehearsals of this spec",
            columns=["figure", "now", "rehearsals", "p95", "largest"],
            rows=rows,
        )
    ]


def _runbook(spec: Any, steps: Mapping[str, Any], conclusion: Conclusion) -> list[reports.Section]:
    advice = steps.get("ladder", {}).get("recommended_s")
    if advice is None:
        return []
    down = steps.get("measured", {}).get("figures", {})
    blockers = [f.text for f in conclusion.findings if f.weight == "blocker"]
    parameters = f" with {spec.target.parameters}" if spec.target.parameters else ""
    lines = [
        f"Do not go on before these are gone: {'; '.join(blockers)}."
        if blockers
        else "The rehearsal shows no blocker.",
        f"Create the deployment with target version {spec.target.engine_version} and a parameter group of its own{parameters}; "
        "event_scheduler is OFF on green until the switchover.",
        f"Wait until every task and member is available (here: {_told(down, 'green_creation_s', 60, '.0f min')}), then warm green with "
        "the statements of the report.",
        f"Before the call: replica lag of at most {spec.gate.max_lag_s:g} s by heartbeat and by CloudWatch, {spec.gate.samples} samples "
        f"in a row; no transaction or DDL older than {spec.gate.max_transaction_s} s; batch jobs stopped; DMS tasks stopped, because "
        "they cannot resume by themselves.",
        f"Call SwitchoverBlueGreenDeployment with SwitchoverTimeout {advice}. Expect writes to fail for about "
        f"{_told(down, 'write_downtime_s', 1, '.1f s')} and the API to take about {_told(down, 'switchover_s', 1, '.0f s')}. Clients "
        "must use cluster endpoints and look names up again within 5 s.",
        "A roll-back leaves blue as it was; look for the reason in the events 0249 and 0261 before the next call. Never repeat the "
        "call blindly.",
        "Afterwards: every member SWITCHOVER_COMPLETED; @@version through the old endpoint; one write; event_scheduler ON where it "
        "was; autoscaling policies, IAM roles of the cluster, alarms and tags attached again; the binary log's coordinates given to "
        "its consumers.",
        "There is no way back but a restore, or a reverse replication that was set up before the call. The old side stays, is billed, "
        "and is deleted by hand.",
    ]
    return [
        reports.Text(
            title="Runbook for production", body="\n\n".join(f"{n}. {line}" for n, line in enumerate(lines, start=1))
        )
    ]


def _told(figures: Mapping[str, float], name: str, by: float, form: str) -> str:
    """A figure in a sentence; one that was not measured is not 0."""
    digits, unit = form.split()
    return f"{figures[name] / by:{digits}} {unit}" if name in figures else "(not measured)"


def _yaml(value: Mapping[str, Any]) -> str:
    import yaml

    return yaml.safe_dump(dict(value), sort_keys=False, allow_unicode=True)
