"""The verdict follows from findings and from what is missing; the chart shows the worst of each stretch and renders."""

from __future__ import annotations

from typing import Any

import pytest

from dbops import reports
from dbops.blue_green import findings, timeline
from dbops.blue_green.findings import Finding
from dbops.blue_green.preflight import Result
from dbops.blue_green.recording import SECOND, Attempt, Kind, Recording

PERIOD = 50_000_000


def steps(**found: list[Finding]) -> dict[str, dict[str, Any]]:
    return {name: {"findings": findings.documents(found.get(name, []))} for name in findings.PROOFS}


def test_a_go_needs_every_proof_and_no_finding() -> None:
    assert findings.conclude(steps()).verdict == "GO"
    without = steps()
    del without["verify"]
    assert findings.conclude(without).verdict == "NO-GO"
    assert findings.conclude(without).reasons == ["verify: this step did not end, so nothing is known of it"]


def test_blockers_come_first_and_decide() -> None:
    slow, lost = Finding("compare", "warning", "q1 is slower"), Finding("measured", "blocker", "3 writes were lost")
    assert findings.conclude(steps(compare=[slow])).verdict == "GO WITH WARNINGS"
    both = findings.conclude(steps(compare=[slow], measured=[lost]))
    assert both.verdict == "NO-GO"
    assert both.reasons == ["measured: 3 writes were lost", "compare: q1 is slower"]


@pytest.mark.parametrize(
    ("verdict", "weight"),
    [
        ("error", "blocker"),
        ("unknown", "blocker"),
        ("warning", "warning"),
        ("overridden", "warning"),
        ("ok", None),
        ("notice", None),
    ],
)
def test_what_a_preflight_verdict_weighs(verdict: Any, weight: str | None) -> None:
    found = findings.of_preflight(
        [Result("engine", verdict, tuple((f"a.t{n}", "MyISAM") for n in range(5)), "ALTER it", "")]
    )
    assert [f.weight for f in found] == ([weight] if weight else [])
    if found:
        assert found[0].text == "engine (5: a.t0, a.t1, a.t2, ...): ALTER it"


def recorded(down: range) -> Recording:
    """120 s of two lanes; writes fail in the seconds of `down`, when green stops refusing them."""
    writes, refused, reads = [], [], []
    for seq in range(2400):
        at = seq * PERIOD
        failed = at // SECOND in down
        writes.append(Attempt(seq, at, None if failed else at, at + PERIOD // 10, 2013 if failed else 0))
        refused.append(Attempt(seq, at, at, at + PERIOD // 10, 0 if at // SECOND >= down.stop else 1290))
        reads.append(Attempt(seq, at, at, at + PERIOD // 10, 0, "8.0", max(0, at - SECOND // 4)))
    lanes = {"blue_write": tuple(writes), "green_refused": tuple(refused), "green_read": tuple(reads)}
    kinds: dict[str, Kind] = {"blue_write": "write", "green_refused": "refused_write", "green_read": "read"}
    return Recording("run", PERIOD, lanes, kinds, ((10 * SECOND, "load"), (60 * SECOND, "switchover 1")), {}, 0, True)


def test_the_chart_shows_when_writes_failed_and_which_phase_it_was() -> None:
    vega = timeline.chart(recorded(range(62, 66)), 0, 120 * SECOND, green_lane="green_read")
    phases, lanes, lag = (panel["data"]["values"] for panel in vega["vconcat"])
    assert [(bar["phase"], bar["from"], bar["to"]) for bar in phases] == [
        ("before the first phase", 0, 10), ("load", 10, 60), ("switchover 1", 60, 120),
    ]  # fmt: skip
    of = {lane: [bar for bar in lanes if bar["lane"] == lane] for lane in ("blue_write", "green_refused", "green_read")}
    assert [bar["state"] for bar in of["blue_write"]] == ["answered", "failed", "answered"]
    failed = of["blue_write"][1]
    assert abs(failed["from"] - 62) <= 0.3
    assert abs(failed["to"] - 66) <= 0.3
    assert [bar["state"] for bar in of["green_refused"]] == ["refused as it must be", "failed"]
    assert all(0.2 <= point["lag"] <= 0.3 for point in lag if 1 < point["at"] < 60)
    html = reports.render_html(
        reports.Report(title="t", dag_id="d", run_id="r", verdict=reports.Verdict.OK, provenance="p",
                       sections=[reports.Chart(title="Timeline", vega=vega)])
    )  # fmt: skip
    assert "switchover 1" in html


def test_nobody_looked_is_no_bar_and_an_empty_stretch_is_refused() -> None:
    whole = recorded(range(0))
    gap = tuple(a for a in whole.lanes["blue_write"] if not 30 * SECOND <= a.sent < 40 * SECOND)
    partly = Recording("run", PERIOD, {"blue_write": gap}, {"blue_write": "write"}, (), {}, 0, True)
    bars = timeline.chart(partly, 0, 120 * SECOND)["vconcat"][1]["data"]["values"]
    assert [bar["state"] for bar in bars] == ["answered", "answered"]
    assert abs(bars[0]["to"] - 30) <= 0.3
    assert abs(bars[1]["from"] - 40) <= 0.3
    with pytest.raises(ValueError, match="the stretch of time is empty"):
        timeline.chart(partly, 5, 5)
