"""Workers of the races: `python -m tests.lab.journal_worker <mode> ...` in a process of its own, which may be killed at any moment.

copy PLAN OWNER           claims chunks and keeps checkpoints until none is planned; prints what it lost
spend RESOURCE RATE FILE SECONDS  spends units by several threads; appends "<monotonic> <units>" to the file
dies SPEC                 does all that the journal does, dies at each statement in turn and goes on; prints how often it died
"""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
import time
import traceback

import sqlalchemy as sa

from dbops import connections
from dbops.backfill import journal, pacing
from dbops.backfill.records import Compared, Difference, Event, Rejected, Tally
from dbops.keyvalue.items import Digest
from tests.backfill.journal_kit import a_plan, some_chunks

LEASE_S = 0.6


def tally_of(low: int, high: int) -> Tally:
    """Of the rows whose keys are above `low`, up to `high`."""
    numbers = range(low + 1, high + 1)
    return Tally(read=len(numbers), units=1.0 * len(numbers), digest=Digest.of(7**n % 2**64 for n in numbers))


def copy(plan_id: str, owner: str) -> None:
    kept, lost = journal.Journal.open(connections.engine()), 0
    while (wait := kept.until_free(plan_id)) is not None:
        chunk = kept.claim(plan_id, owner, LEASE_S)
        if chunk is None:
            time.sleep(min(wait, 0.05))
            continue
        try:
            at = int(chunk.begin[0]) if chunk.begin else 0
            while at < int(chunk.high[0]) - 2:
                time.sleep(random.uniform(0, 0.01))
                chunk = kept.checkpoint(chunk, owner, (str(at + 2),), tally_of(at, at + 2), LEASE_S)
                at += 2
            kept.finish(chunk, owner, tally_of(at, int(chunk.high[0])))
            print("done", chunk.number, flush=True)
        except journal.LeaseLost as error:
            lost += 1
            print("lost", error, flush=True)


def spend(resource: str, rate: str, file: str, seconds: str) -> None:
    bucket = pacing.Bucket(connections.engine(), resource, float(rate), tasks=3)
    end = time.monotonic() + float(seconds)
    log = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def thread() -> None:
        while time.monotonic() < end:
            units = random.choice([1, 7, 25, 25, 60])
            bucket.spend(units)
            os.write(log, f"{time.monotonic()} {units}\n".encode())

    threads = [threading.Thread(target=thread) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()


def whole_story(engine: sa.Engine, spec: str) -> None:
    """Everything from a plan to its end, from wherever a dead one left it."""
    kept, owner = journal.Journal.open(engine), f"worker {os.getpid()}"
    found = kept.open_plan(spec) or next(iter(kept.plans(spec)), None)
    if found is None:
        found = a_plan(spec, 3, state="planned")
        kept.begin(found, some_chunks(3), 7)
    plan_id = found.plan_id
    assert [(c.number, c.planned_rows) for c in kept.chunks(plan_id)] == [(0, 10), (1, 10), (2, 10)]
    if found.state in ("planned", "copying"):
        kept.set_state(plan_id, "copying", expected=["planned", "copying"])
        while (wait := kept.until_free(plan_id)) is not None:
            chunk = kept.claim(plan_id, owner, 0.02)
            if chunk is None:
                time.sleep(wait)
                continue
            begin, end = (int(key[0]) if key else 0 for key in (chunk.begin, chunk.high))
            middle = end - 5
            if begin < middle:
                kept.reject(plan_id, chunk.number, [Rejected((str(middle),), "too large")])
                chunk = kept.checkpoint(chunk, owner, (str(middle),), tally_of(begin, middle), 0.05)
            kept.finish(chunk, owner, tally_of(max(begin, middle), end))
        kept.set_state(plan_id, "copied", expected=["copying"])
    if kept.plan(plan_id).state == "copied":
        verification = kept.begin_verification(plan_id, "r", "full")
        difference = Difference("k1", "target_newer", "1", "2", "")
        kept.add_classes(
            verification, Compared("forward", 0, {"equal": 29, "target_newer": 1}, differences=(difference,))
        )
        kept.end_verification(verification, "clean")
        kept.note(plan_id, Event("wait", "lag"))
        kept.set_state(plan_id, "verified", expected=["copied"])
    if kept.plan(plan_id).state == "verified":
        bucket = pacing.Bucket(engine, spec, 1e6)
        bucket.spend(5)
        while (chunk := kept.claim_roll_back(plan_id, owner, 0.02)) or kept.counts(plan_id)["done"]:
            if chunk:
                kept.rolled_back(chunk, owner, 10, 0)
        kept.set_state(plan_id, "rolled_back", expected=["verified"])
    assert kept.plan(plan_id).state == "rolled_back"
    total = kept.tally(plan_id)
    assert (total.read, total.digest) == (30, tally_of(0, 30).digest), total
    assert [c.removed for c in kept.chunks(plan_id)] == [10, 10, 10]
    found_there = kept.verification(plan_id)
    assert found_there is not None
    assert found_there.counts["forward"]["equal"] == 29
    assert len(kept.differences(plan_id)) == 1
    assert sorted(each.key for each in kept.rejects(plan_id)) == [("15",), ("25",), ("5",)]


def dies(spec: str, stride: str) -> None:
    """For each statement: a child that dies before it is sent, or after it was carried out, and another that goes on from there."""
    with connections.engine().connect():  # what it imports is there in every child then
        pass
    deaths = number = 0
    while True:
        number += int(stride)
        if not os.WIFSIGNALED(_child(f"{spec}{number}", number)):
            break
        assert _child(f"{spec}{number}", None) == 0, f"nobody could go on after a death at {number}"
        deaths += 1
    print(deaths)


def _child(spec: str, dies_at: int | None) -> int:
    """Status of a child that tells the whole story."""
    if child := os.fork():
        return os.waitpid(child, 0)[1]
    seen = 0

    def count(*_: object) -> None:
        nonlocal seen
        seen += 1
        if seen == dies_at:
            os.kill(os.getpid(), signal.SIGKILL)

    sa.event.listen(sa.engine.Engine, "before_cursor_execute", count)
    sa.event.listen(sa.engine.Engine, "after_cursor_execute", count)
    try:
        whole_story(connections.engine(), spec)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


if __name__ == "__main__":
    {"copy": copy, "spend": spend, "dies": dies}[sys.argv[1]](*sys.argv[2:])
