"""`make demo-migration`: the whole move before the eyes of a DBA, in a minute or two, and what the oracle says of it."""

from __future__ import annotations

import logging
import shutil
import signal
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from dbops.backfill.records import FAILING, Class
from lab import aws, config
from lab.config import LabError
from lab.migration import oracle
from lab.migration.move import Copied, Move
from lab.migration.oracle import Finding, Verdict
from lab.migration.scene import PAYMENTS, RIDES, SUBJECTS, Subject
from lab.migration.sides import DynamoSide, RedisSide, Side
from lab.migration.worker import Arm

ROWS = {"rides": 4000, "payments": 2000}
KILLS = 2
"""Of workers; the DAG is killed once."""
LOSE = 0.05
"""Part of the dual writes."""
SHORT = "its reports begin at"
"""What the gate says of an application that has been heard of for too short a time."""


@dataclass
class Result:
    """What there is to print."""

    arm: Arm
    sides: dict[str, str]
    copied: list[Copied] = field(default_factory=list)
    verified: dict[str, Counter[Class]] = field(default_factory=dict)
    after_copy: dict[str, Verdict] = field(default_factory=dict)
    at_end: dict[str, Verdict] = field(default_factory=dict)
    operations: Counter[str] = field(default_factory=Counter)
    repaired: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    fall_backs: tuple[int, int] = (0, 0)
    """Until the gate, and while it was watched."""
    gate: list[str] = field(default_factory=list)
    """What keeps the gate of the DAG closed."""
    reports: dict[str, Path] = field(default_factory=dict)
    """By what each is of."""

    @property
    def findings(self) -> list[Finding]:
        found = [
            each
            for verdicts in (self.after_copy, self.at_end)
            for verdict in verdicts.values()
            for each in verdict.findings
        ]
        found += [Finding("wrong answer", text) for text in self.wrong]
        for name, classes in self.verified.items():
            found += [Finding(f"verification: {each}", f"{name}: {classes[each]}") for each in FAILING if classes[each]]
        if self.repaired["never"]:
            found.append(Finding("lost", f"{self.repaired['never']} dual writes never arrived"))
        return found


def run(rows: dict[str, int] | None = None, arm: Arm = "conditional") -> Result:
    """Make the move and print what came of it.

    Raises:
        LabError: the oracle found something, or a step did not come to its end
    """
    logging.getLogger("alembic").setLevel(logging.WARNING)
    began = time.monotonic()
    schema = f"carshare_{uuid.uuid4().hex[:8]}"
    sides: list[Side] = [DynamoSide(schema, [RIDES]), RedisSide(schema, [PAYMENTS])]
    move = Move(schema, sides, config.home() / "move" / schema, rows or ROWS)

    def told(text: str) -> None:
        print(f"{time.monotonic() - began:6.1f} s  {text}", flush=True)

    result = Result(arm, {subject.name: move.side(subject).name for subject in SUBJECTS})
    told(f"schema {schema}, files in {move.folder}")
    with _ended_by_sigterm():
        try:
            _make(move, result, told)
        finally:
            move.end()
    show(result)
    told("done")
    if found := result.findings:
        raise LabError(f"the oracle found {len(found)} faults, see above; logs are in {move.folder}")
    shutil.rmtree(move.folder)
    return result


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """SIGTERM ends it as Ctrl-C does, so that nothing is left behind."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _make(move: Move, result: Result, told: Callable[[str], None]) -> None:
    move.begin()
    told(f"{sum(move.rows.values()):,} old rows; change stream and dual writes are live, reads fall back to MySQL")
    move.work(150)
    if result.arm == "unconditional":
        for subject in SUBJECTS:
            _by_workers(move, result, subject, told)
        _judge(move, result.after_copy)
        move.traffic.resume()
        _collect(move, result)
        return
    copied = move.copy_by_dag(RIDES, told, lambda: _by_workers(move, result, PAYMENTS, told))
    result.reports["backfill"] = aws.newest_report()
    _told(result, copied, move.verified(copied.plan_id), told)
    with move.gate(RIDES, told) as closed_for:
        _judge(move, result.after_copy)
        told("writes held for a moment: MySQL and the store compared")
        before, move.traffic.lose = move.fall_backs(), 0.0
        move.traffic.resume()
        result.gate = closed_for()
    result.reports["gate"] = aws.newest_report()
    told(f"the gate is closed: {result.gate[0]}")
    if not any(SHORT in reason for reason in result.gate):
        raise LabError(f"the gate does not say that seconds are too short a time: {result.gate}")
    move.work(100)
    result.fall_backs = before, move.fall_backs() - before
    if result.fall_backs[1]:
        raise LabError(
            f"{result.fall_backs[1]} reads fell back although everything is copied: reads must not be switched"
        )
    move.switch_reads()
    told("no read has fallen back since; let that stand for the days: reads switched, MySQL is still written first")
    move.traffic.lose = LOSE
    move.work(300)
    move.traffic.pause()
    move.drain()
    move.traffic.phase = "store first"
    told("MySQL takes no writes any more, the stream is drained: the store is written first")
    move.traffic.resume()
    move.work(400)
    _judge(move, result.at_end, is_store_first=True)
    _collect(move, result)


def _by_workers(move: Move, result: Result, subject: Subject, told: Callable[[str], None]) -> None:
    copied = move.copy(subject, result.arm, kills=KILLS)
    verified = move.verify(subject, copied.plan_id) if result.arm == "conditional" else None
    _told(result, copied, verified, told)


def _told(result: Result, copied: Copied, verified: Counter[Class] | None, told: Callable[[str], None]) -> None:
    name = copied.subject
    result.copied.append(copied)
    told(
        f"{name}: {copied.tally.read:,} rows copied by {copied.by}, killed {copied.kills} times, in {copied.seconds:.1f} s"
    )
    if verified is not None:
        result.verified[name] = verified
        failed = sum(verified[each] for each in FAILING)
        told(f"{name}: verified in both directions while writes go on, {failed} differences")


def _judge(move: Move, verdicts: dict[str, Verdict], *, is_store_first: bool = False) -> None:
    move.traffic.pause()
    if not is_store_first:
        move.drain()
    for subject in SUBJECTS:
        truth = move.traffic.record.truth[subject.name] if is_store_first else None
        verdicts[subject.name] = move.judge(subject, truth)


def _collect(move: Move, result: Result) -> None:
    result.operations = move.traffic.record.counts
    result.wrong = move.traffic.record.wrong
    result.repaired = move.repaired()


def show(result: Result) -> None:
    """A table that a DBA understands."""
    names = [each.name for each in SUBJECTS]
    copied = {each.subject: each for each in result.copied}
    last = result.at_end or result.after_copy

    def line(text: str, values: list[object]) -> None:
        print(
            f"  {text:<58}" + "".join(f"{value:>12,}" if isinstance(value, int) else f"{value:>12}" for value in values)
        )

    print()
    line("", list(names))
    line("moved to", [result.sides[name] for name in names])
    line("copied by", [copied[name].by for name in names])
    line("rows copied", [copied[name].tally.read for name in names])
    line("items in the store at the end, with tombstones", [last[name].items for name in names])
    line("  of them tombstones", [last[name].tombstones for name in names])
    line("chunks of the journal", [copied[name].chunks for name in names])
    line("rows read back and found right at once", [copied[name].tally.checked for name in names])
    line("kill -9 survived", [copied[name].kills for name in names])
    line("refused: a newer item was there", [copied[name].tally.newer for name in names])
    line("refused: the row was deleted meanwhile", [copied[name].tally.tombstones for name in names])
    line("  of both, staged between reading and writing", [2 * copied[name].staged for name in names])
    for each in oracle.CLASSES:
        if each != "equal":
            line(f"differences: {each}", [last[name].classes[each] for name in names])
    line("states that items went through, all looked at", [last[name].states for name in names])
    counts = result.operations
    writes = sum(counts[name] for name in ("insert", "update", "delete"))
    print(f"\n  {writes:,} writes to MySQL first, {sum(v for k, v in counts.items() if k.startswith('read_')):,} reads, "
          f"{counts['crossing']} dual writes that came late and were refused")  # fmt: skip
    print(f"  {counts['lost']} dual writes lost: repaired by the stream or a read {result.repaired['unstamped']}, by the backfill "
          f"{result.repaired['by the backfill']}, overtaken by a newer write {result.repaired['overtaken']}, "
          f"never {result.repaired['never']}")  # fmt: skip
    print(
        f"  {result.fall_backs[0]:,} reads fell back to MySQL before the gate, {result.fall_backs[1]} while it was watched"
    )
    stored = sum(counts[f"store_{name}"] for name in ("create", "update", "delete"))
    print(f"  {stored:,} writes and {counts['store_read']:,} reads with the store first, {len(result.wrong)} wrong")
    print(f"  the oracle: {len(result.findings)} faults")
    for what, count in Counter(each.what for each in result.findings).most_common():
        example = next(each for each in result.findings if each.what == what)
        print(f"    {count:>6,} {what}, such as {example.key} {example.detail}".rstrip())
    if result.gate:
        print("  backfill_gate keeps the gate closed, as it has heard of the application for too short a time:")
        for reason in result.gate:
            print(f"    {reason}")
    for what, path in result.reports.items():
        print(f"  report of {what}: {path}")
    print()
