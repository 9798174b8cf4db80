"""The journal and the pace on MySQL 8.0, with processes that race, stop, come back and are killed at any moment."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from dbops import connections
from dbops.backfill import journal, pacing
from dbops.backfill.records import Chunk, Tally
from lab.config import ROOT
from tests.backfill.journal_kit import a_plan, begun, empty, some_chunks
from tests.backfill.pacing_kit import excess
from tests.lab.journal_worker import tally_of

pytestmark = pytest.mark.lab


@pytest.fixture
def engine() -> Iterator[sa.Engine]:
    found = connections.engine()
    journal.Journal.open(found)
    empty(found)
    yield found
    found.dispose()


def worker(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.lab.journal_worker", *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONPATH": f"{ROOT / 'plugins'}:{ROOT}"},
    )  # fmt: skip


def stopped_with(kept: journal.Journal, plan_id: str, process: subprocess.Popen[str], owner: str) -> Chunk:
    """Stop a worker while it has a chunk."""
    while True:
        process.send_signal(signal.SIGSTOP)
        for chunk in kept.chunks(plan_id, states=["planned"]):
            if chunk.owner == owner and chunk.leased_until is not None:
                return chunk
        process.send_signal(signal.SIGCONT)
        time.sleep(0.02)


def is_taken_over(kept: journal.Journal, had: Chunk) -> bool:
    """Wait until another worker has the chunk. False when the last statement of its owner has finished it after all."""
    while True:
        chunk = kept.chunks(had.plan_id)[had.number]
        if chunk.attempt > had.attempt:
            return True
        if chunk.state == "done":
            return False
        time.sleep(0.05)


def test_workers_that_are_killed_and_stopped_count_each_row_once(engine: sa.Engine) -> None:
    """A stopped worker is a zombie: it comes back when others have taken what it had."""
    kept, plan = begun(engine, chunks=60)
    workers = [worker("copy", plan.plan_id, "w0")]
    lines: list[str] = []
    try:
        had = stopped_with(kept, plan.plan_id, workers[0], "w0")
        workers.append(worker("copy", plan.plan_id, "w1"))
        while not is_taken_over(kept, had):
            workers[0].send_signal(signal.SIGCONT)
            had = stopped_with(kept, plan.plan_id, workers[0], "w0")
        stopped_with(kept, plan.plan_id, workers[1], "w1")
        workers[1].kill()
        lines += workers.pop().communicate()[0].splitlines()
        workers.append(worker("copy", plan.plan_id, "w2"))
        workers[0].send_signal(signal.SIGCONT)
        for each in workers:
            lines += each.communicate(timeout=120)[0].splitlines()
            assert each.returncode == 0
    finally:
        for each in workers:
            each.kill()
    chunks = kept.chunks(plan.plan_id)
    assert {chunk.state for chunk in chunks} == {"done"}
    for chunk in chunks:
        low, high = (int(key[0]) if key else 0 for key in (chunk.low, chunk.high))
        assert (chunk.tally.read, chunk.tally.digest) == (10, tally_of(low, high).digest)
    assert kept.tally(plan.plan_id).read == 600
    finished = [line.split()[1] for line in lines if line.startswith("done")]
    assert len(finished) == len(set(finished))
    # What the killed one had is taken by its successor, or by the zombie.
    assert any(line.startswith("lost") and "has taken it" in line for line in lines)
    kept.set_state(plan.plan_id, "copied", expected=["copying"])


def test_a_death_at_any_statement_leaves_something_to_go_on_from(engine: sa.Engine) -> None:
    process = worker("dies", "s", "7")
    out, _ = process.communicate(timeout=500)
    assert process.returncode == 0
    assert int(out.split()[-1]) > 20


def test_threads_that_claim_at_once_never_get_the_same(engine: sa.Engine) -> None:
    kept, plan = begun(engine, chunks=120)
    barrier = threading.Barrier(8)

    def take(owner: int) -> list[int]:
        mine, own = [], journal.Journal(kept.engine)
        barrier.wait()
        while (chunk := own.claim(plan.plan_id, f"w{owner}", 60)) is not None:
            mine.append(chunk.number)
        return mine

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(take, range(8)))
    taken = [number for mine in found for number in mine]
    assert sorted(taken) == [*range(120)]
    assert {chunk.attempt for chunk in kept.chunks(plan.plan_id)} == {1}
    assert kept.live_leases(plan.plan_id) == 120


def test_of_plans_that_begin_at_once_one_is_kept_whole(engine: sa.Engine) -> None:
    plans = [a_plan(chunks=300) for _ in range(6)]
    barrier = threading.Barrier(6)

    def begin(plan: Any) -> str:
        own = journal.Journal(engine)
        barrier.wait()
        try:
            own.begin(plan, some_chunks(300), 7)
        except journal.PlanExists as error:
            return error.plan_id
        return plan.plan_id

    with ThreadPoolExecutor(6) as pool:
        (winner,) = set(pool.map(begin, plans))
    kept = journal.Journal(engine)
    assert [plan.plan_id for plan in kept.plans("rides")] == [winner]
    assert [len(kept.chunks(plan.plan_id)) for plan in plans] == [300 * (plan.plan_id == winner) for plan in plans]


def test_a_plan_that_is_abandoned_while_it_is_copied_keeps_nothing_afterwards(engine: sa.Engine) -> None:
    kept, plan = begun(engine, chunks=4)
    chunks = [kept.claim(plan.plan_id, f"w{n}", 60) for n in range(4)]
    barrier = threading.Barrier(5)

    def go_on(chunk: Any) -> int:
        own, count = journal.Journal(engine), 0
        barrier.wait()
        try:
            while True:
                chunk = own.checkpoint(chunk, chunk.owner, chunk.high, Tally(read=1), 60)
                count += 1
        except journal.LeaseLost as error:
            return count if "the plan is abandoned" in str(error) else -1

    with ThreadPoolExecutor(4) as pool:
        found = [pool.submit(go_on, chunk) for chunk in chunks]
        barrier.wait()
        time.sleep(0.3)
        kept.set_state(plan.plan_id, "abandoned", expected=["copying"])
        at_the_end = kept.tally(plan.plan_id).read
        counts = [each.result() for each in found]
    assert kept.tally(plan.plan_id).read == at_the_end == sum(counts)
    assert min(counts) > 0


def test_leases_follow_the_time_of_the_database(engine: sa.Engine) -> None:
    kept, plan = begun(engine, chunks=1)
    chunk = kept.claim(plan.plan_id, "a", 0.3)
    assert chunk is not None
    assert 0 < (kept.until_free(plan.plan_id) or 0) <= 0.3
    assert kept.claim(plan.plan_id, "b", 60) is None
    time.sleep(0.3)
    taken = kept.claim(plan.plan_id, "b", 60)
    assert taken is not None
    with pytest.raises(journal.LeaseLost):
        kept.beat(chunk, "a", 60)


def test_a_lost_connection_is_opened_again_and_nothing_counts_twice(engine: sa.Engine) -> None:
    kept, plan = begun(engine, chunks=1)
    chunk = kept.claim(plan.plan_id, "a", 60)
    assert chunk is not None
    rng, killed = random.Random(3), 0
    acknowledged = sa.event.listens_for(engine, "after_cursor_execute")

    @acknowledged
    def kill(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        """The statement was carried out, but its acknowledgement never came."""
        nonlocal killed
        if statement.startswith("UPDATE backfill_chunk") and rng.random() < 0.5:
            killed += 1
            raise sa.exc.OperationalError(
                statement, None, Exception(2013, "Lost connection to MySQL server during query")
            )

    for at in range(1, 11):
        chunk = kept.checkpoint(chunk, "a", (str(at),), tally_of(at - 1, at), 60)
    kept.finish(chunk, "a", Tally())
    assert killed > 2
    assert (kept.tally(plan.plan_id).read, kept.tally(plan.plan_id).digest) == (10, tally_of(0, 10).digest)


def test_the_rate_holds_over_processes_and_threads_of_which_one_is_killed(engine: sa.Engine, tmp_path: Path) -> None:
    file, rate, seconds = tmp_path / "spent", 2_000, 6
    workers = [worker("spend", "dynamodb::races", str(rate), str(file), str(seconds)) for _ in range(3)]
    try:
        while not file.exists() or file.stat().st_size < 2_000:
            time.sleep(0.05)
        time.sleep(2)
        workers[0].kill()
        for each in workers[1:]:
            each.communicate(timeout=60)
            assert each.returncode == 0
    finally:
        for each in workers:
            each.kill()
            each.communicate()
    spent = sorted(tuple(map(float, line.split())) for line in file.read_text().splitlines())
    total, took = sum(units for _, units in spent), spent[-1][0] - spent[0][0]
    largest = rate * pacing.GRANT_S / 3
    print(
        f"{total / took:.0f} units/s of {rate}, excess {excess(spent, rate):.0f} of {rate * pacing.HOLD_S + largest:.0f}"
    )
    assert excess(spent, rate) <= rate * pacing.HOLD_S + largest
    assert total >= 0.8 * rate * took
    (state, _) = pacing.Bucket(engine, "dynamodb::races", rate).state() or (None, None)
    assert state is not None
    assert state.granted_units >= total


def test_no_grant_is_lost_among_tasks_that_draw_at_once(engine: sa.Engine) -> None:
    """Two that read the same row may not both move it on."""
    rate, draws = 1e6, 30
    units = rate * pacing.SMALLEST_GRANT_S
    buckets = [pacing.Bucket(engine, "dynamodb::crowd", rate, tasks=1_000) for _ in range(6)]
    barrier = threading.Barrier(6)

    def draw(bucket: pacing.Bucket) -> None:
        barrier.wait()
        for _ in range(draws):
            bucket.spend(units)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(draw, buckets))
    found = buckets[0].state()
    assert found is not None
    assert found[0].granted_units == pytest.approx(6 * draws * units)


def test_the_statements_of_the_documentation_run(engine: sa.Engine) -> None:
    """Also, every table is described."""
    text = (ROOT / "docs" / "backfill.md").read_text().split("## Tables", 1)[1].split("\n## ")[0]
    tables = [name for name in sa.inspect(engine).get_table_names() if "backfill" in name]
    assert {name for name in tables if f"| `{name}` |" not in text} == set()
    begun(engine)
    with engine.connect() as connection:
        for statement in text.split("```sql")[1].split("```")[0].split(";\n"):
            if statement.strip():
                connection.exec_driver_sql(statement)
