"""What a rehearsal comes to: figures, what is left and what it costs, and the verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from itertools import zip_longest
from typing import Any

from dbops.blue_green import cost, estimate, findings, lag, outages, recording
from dbops.blue_green.findings import Conclusion, Finding
from dbops.blue_green.journal import Journal
from dbops.blue_green.recording import SECOND
from dbops.blue_green.resources import Resource
from dbops.blue_green.steps import (
    GREEN_LANE,
    READER_LANE,
    REFUSED_LANE,
    RESOLVE_LANE,
    Services,
    recording_paths,
    spec_of,
)

MEASURES = (("write", "blue_write"), ("read", "blue_read"), ("connect", "blue_write"))
READER = ("reader", READER_LANE)
"""Measured as well where the cluster has readers."""
CHANGES = (("address_change_s", RESOLVE_LANE), ("server_change_s", "blue_read"))
"""When blue's name led to another address, and when another server answered to it."""
AROUND_S = 15
"""Seconds before the call and after the end that a chart of an attempt shows."""


def measure(services: Services, name: str) -> dict[str, Any]:
    """Compute every figure from the recordings; they stay in the store for the rehearsals to come."""
    journal = services.journal(name)
    steps = journal.steps()
    seen = recording.read([path for path in recording_paths(services, name).values() if path.exists()])
    downtime: dict[str, dict[str, Any]] = {}
    found: list[Finding] = []
    if seen.boots > 1:
        found.append(
            Finding(
                "measured", "warning",
                f"the worker's machine booted {seen.boots - 1} times: nobody probed meanwhile, and times before it are by the wall clock",
            )
        )  # fmt: skip
    for number, (since, until) in spans(seen, steps).items():
        rows = downtime[str(number)] = {}
        for what, lane in (*MEASURES, *([READER] if READER_LANE in seen.kinds else [])):
            if not outages.was_probed(seen, lane, since, until):
                found.append(Finding("measured", "blocker", f"attempt {number}: no probe looked ({what})"))
                continue
            measured = "read" if what == READER[0] else what
            down = outages.measure(seen, lane, measured, since=since, until=until)  # type: ignore[arg-type]
            rows[what] = {k: v for k, v in asdict(down).items() if k != "outages"}
            if not down.is_over:
                found.append(
                    Finding(
                        "measured", "blocker", f"attempt {number}: {what} was still down when the last probe was sent"
                    )
                )
            if down.blind_s > 1:
                found.append(
                    Finding("measured", "warning", f"attempt {number}: nobody looked for {down.blind_s:.1f} s ({what})")
                )
    over = taken_over_at(seen, steps)
    known = [s for s in lag.samples(seen, GREEN_LANE) if over is None or s.at < over]
    behind = lag.summary(known)
    if accepted := [a for a in outages.accepted_writes(seen, REFUSED_LANE) if over is None or a.sent < over]:
        phase = seen.phase_at(accepted[0].sent)
        found.append(
            Finding("measured", "blocker", f"green accepted {len(accepted)} writes of a plain user, first in: {phase}")
        )
    figures = _figures(steps, downtime, behind) | _changes(seen, steps)
    document = {
        "period_ms": seen.period / 1e6, "downtime": downtime, "lag": asdict(behind), "torn_lines": seen.torn_lines,
        "addresses": addresses(seen), "figures": figures, "findings": findings.documents(found),
    }  # fmt: skip
    journal.put("measured", document, services.now())
    journal.keep_figures(figures)
    return document


def addresses(seen: recording.Recording) -> list[dict[str, Any]]:
    """Each time that blue's name began to lead elsewhere, or could not be looked up: the phase, and the address ("" = none)."""
    found: list[dict[str, Any]] = []
    for attempt in seen.lanes.get(RESOLVE_LANE, ()):
        address = attempt.server or ""
        if not found or found[-1]["address"] != address:
            found.append(
                {"phase": seen.phase_at(attempt.sent), "wall": attempt.sent + seen.wall_offset, "address": address}
            )
    return found


def _figures(steps: Mapping[str, Any], downtime: Mapping[str, Any], behind: lag.LagSummary) -> dict[str, float]:
    found: dict[str, float] = {}
    for number, of in downtime.items():
        if steps[f"attempt_{number}"]["outcome"] == "COMPLETED":
            found["switchover_s"] = steps[f"attempt_{number}"]["duration_s"]
            found |= {f"{what}_downtime_s": down["longest_s"] for what, down in of.items()}
    if "green" in steps:
        found["green_creation_s"] = steps["green"]["creation_s"]
    for figure, value in (("lag_p95_s", behind.p95_s), ("lag_max_s", behind.max_s)):
        if value is not None:
            found[figure] = value
    if arrivals := [a["seconds"] for a in steps.get("replication", {}).get("arrivals", ()) if a["seconds"] is not None]:
        found["slowest_arrival_s"] = max(arrivals)
    return found


def _changes(seen: recording.Recording, steps: Mapping[str, Any]) -> dict[str, float]:
    """Seconds from the call that succeeded until clients were led to the new version; what did not change is not in it."""
    if (called := taken_over_at(seen, steps)) is None:
        return {}
    found = {}
    for figure, lane in CHANGES:
        known = [a for a in seen.lanes.get(lane, ()) if a.ok and a.server is not None]
        before = next((a.server for a in reversed(known) if a.sent < called), None)
        changed = next((a.done for a in known if a.sent >= called and a.server != before), None)
        if before is not None and changed is not None:
            found[figure] = (changed - called) / SECOND
    return found


def account_for(
    services: Services, name: str, left: Sequence[Resource], errors: Sequence[str], *, keep: bool
) -> dict[str, Any]:
    """After the teardown: what stands and what an hour of it costs; the hours that were really paid for."""
    journal = services.journal(name)
    spec, steps, today = spec_of(journal), journal.steps(), services.now().date()
    prices = cost.load()
    found = []
    if left and not keep:
        listed = ", ".join(f"{r.kind} {r.identifier}" for r in left)
        found.append(Finding("teardown", "blocker", f"{len(left)} resources are left: {listed}"))
    found += [Finding("teardown", "blocker", error) for error in errors]
    paid = None
    before = steps.get("teardown")
    if before is not None and not before["left"] and not left:
        paid = before["actual"]  # it was gone by then
    elif "provision" in steps:
        # AWS bills blue from its creation on, not from the day on which this document was first written.
        hours = [_hours(at, services.now()) for at in _since(journal)]
        source = steps["plan"]["source"]
        actual = estimate.actual(
            spec, prices, today, hours[0], hours[1], source_gb=source["gigabytes"], blue_version=source["version"]
        )
        paid = {"total": actual.total, "items": [list(i) for i in actual.items], "currency": actual.currency}
    document = {
        "left": [{**asdict(r), "created_at": None, "tags": dict(r.tags)} for r in left],
        "per_hour": estimate.left_per_hour(left, spec.placement.region, prices),
        "kept": keep,
        "actual": paid,
        "findings": findings.documents(found),
    }
    journal.put("teardown", document, services.now())
    return document


def _since(journal: Journal) -> tuple[datetime | None, datetime | None]:
    """When blue and green began to be billed."""
    phases = {phase: at for at, phase in reversed(journal.phases())}
    return phases.get("provision"), phases.get("creating green")


def _hours(since: datetime | None, now: datetime) -> float:
    return 0.0 if since is None else (now - since).total_seconds() / 3600


def conclude(journal: Journal) -> Conclusion:
    """The verdict on what the journal holds."""
    return findings.conclude(journal.steps())


def spans(seen: recording.Recording, steps: Mapping[str, Any]) -> dict[int, tuple[int, int]]:
    """Number of an attempt -> [begin, end) on the probes' clock: with what lies around it, but nothing of its neighbours."""
    numbers = sorted(int(name.removeprefix("attempt_")) for name in steps if name.startswith("attempt_"))
    found: dict[int, tuple[int, int]] = {}
    before = None
    for number, after in zip_longest(numbers, numbers[1:]):
        called = _called(seen, steps[f"attempt_{number}"])
        until = called + int((steps[f"attempt_{number}"]["duration_s"] + AROUND_S) * SECOND)
        if after is not None:
            until = min(until, _called(seen, steps[f"attempt_{after}"]))
        since = called - AROUND_S * SECOND
        found[number] = (since if before is None else max(since, before), until)
        before = until
    return found


def taken_over_at(seen: recording.Recording, steps: Mapping[str, Any]) -> int | None:
    """When the call that succeeded was made: from then on nothing replicates to the name that green had. None: no success."""
    ends = [
        _called(seen, d) for name, d in steps.items() if name.startswith("attempt_") and d["outcome"] == "COMPLETED"
    ]
    return min(ends, default=None)


def _called(seen: recording.Recording, document: Mapping[str, Any]) -> int:
    return int(datetime.fromisoformat(document["called_at"]).timestamp() * SECOND) - seen.wall_offset
