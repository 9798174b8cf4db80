"""A filled table of a bench whose every row is known, and the flow of s3_archive over it, also in processes that die."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import archive_kit
import pytest
import tenacity
import worker
from archive_kit import RUN_AFTER, Bench
from worker import Kill

from dbops.archive import purge, restore, steps
from dbops.archive.spec import ArchiveSpec

STAGES = ("plan", "export", "publish", "verify", "purge", "reconcile")
ROWS, BATCH_ROWS = 3000, 100
Row = tuple[Any, ...]

DDL = """(
  id BIGINT UNSIGNED NOT NULL, day DATETIME(3) NOT NULL, amount DECIMAL(12,2) NULL, note VARCHAR(80) NULL, speed DOUBLE NULL,
  PRIMARY KEY (id), KEY day (day)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4"""
COLUMNS = "id, day, amount, note, speed"


def row(i: int) -> Row:
    """Row i: ids have gaps, two cold months alternate, and every tenth row (the last one too) is warm."""
    day = "2026-06-30" if i % 10 == 9 else ("2026-01-15", "2026-02-20")[i % 2]
    note = None if i % 7 == 0 else ("" if i % 11 == 0 else f"Straße {i} 😀")
    return (3 * i + 10, f"{day} 10:20:30.{i % 1000:03}", None if i % 13 == 0 else f"{i}.{i % 100:02}", note, i / 7)


class Source:
    """A filled table of a bench, what it held, and what must have become of it."""

    def __init__(self, bench: Bench, **over: Any) -> None:
        self.bench, self.services = bench, bench.services
        bench.fresh_table(DDL, (row(i) for i in range(ROWS)))
        bench.sql("ANALYZE TABLE t")
        limits = {
            "batch_rows": BATCH_ROWS,
            "transaction_ms": 5,
            "lock_wait_s": 1,
            "max_wait_s": 1,
            **over.pop("purge", {}),
        }
        self.spec = bench.spec(
            chunk_bytes=65536,
            purge=limits,
            target={"namespace": bench.namespace, "partitioning": ["month(day)"]},
            **over,
        )
        self.expected = self.live()
        assert len(self.expected) == ROWS

    @property
    def source_table(self) -> str:
        return self.spec.full_name

    def live(self, where: str = "TRUE") -> dict[int, Row]:
        return {r[0]: r for r in self.bench.sql(f"SELECT {COLUMNS} FROM t WHERE {where}")}

    def archived(self, table: str = "t") -> list[Row]:
        return [
            (int(r[0]), *r[1:])
            for r in self.bench.trino(f'SELECT {COLUMNS} FROM lake."{self.bench.namespace}"."{table}"')
        ]

    def change(self, statement: str) -> None:
        """Change the source, and with it what is expected: only for rows that are in MySQL."""
        before = self.live()
        assert self.bench.root.cursor().execute(statement), f"no row was changed by {statement}"
        self.forget(before)

    def forget(self, before: dict[int, Row]) -> None:
        after = self.live()
        self.expected = {k: v for k, v in self.expected.items() if k not in before} | after

    def to(
        self, last: str = "reconcile", *, services: steps.Services | None = None, abandon: bool = False
    ) -> str | None:
        """Run the flow up to and including stage `last`, resuming; the plan's id, None when no row is cold."""
        self.plan_id = flow(services or self.services, self.spec, last, abandon=abandon)
        return self.plan_id

    def batches(self) -> dict[str, int]:
        """Batches per state, of the table's newest plan."""
        return self._states("archive_batch")

    def chunks(self) -> dict[str, int]:
        """Chunks per state, of the table's newest plan."""
        return self._states("archive_chunk")

    def _states(self, table: str) -> dict[str, int]:
        found = self.bench.sql(
            f"SELECT x.state, COUNT(*) FROM dbops_archive.{table} AS x INNER JOIN ("
            " SELECT plan_id FROM dbops_archive.archive_plan WHERE source_table = %s ORDER BY created_at DESC LIMIT 1"
            ") AS p ON p.plan_id = x.plan_id GROUP BY x.state",
            (self.source_table,),
        )
        return {state: int(count) for state, count in found}

    def plans(self) -> list[str]:
        """States of the table's plans, oldest first."""
        found = self.bench.sql(
            "SELECT state FROM dbops_archive.archive_plan WHERE source_table = %s ORDER BY created_at",
            (self.source_table,),
        )
        return [state for (state,) in found]

    def is_partly_purged(self) -> bool:
        """Some rows are gone, some are there, and the ledger counts exactly those that are gone."""
        cold, there = len(self.cold()), len(self.live("day < '2026-06-30'"))
        return 0 < there < cold and there + self.told()[0] == cold

    def change_one(self) -> bool:
        """Change the first cold row that is still in MySQL."""
        self.change("UPDATE t SET amount = COALESCE(amount, 0) + 1 WHERE day < '2026-06-30' ORDER BY id LIMIT 1")
        return True

    def cold(self) -> set[int]:
        return {k for k, v in self.expected.items() if v[1] < datetime(2026, 6, 30)}

    def told(self) -> tuple[int, int]:
        """Rows that left by the ledger: deleted from MySQL, and proven in the lake."""
        found = self.bench.sql(
            "SELECT COALESCE(SUM(b.deleted_rows), 0), COALESCE(SUM(b.lake_n), 0) FROM dbops_archive.archive_batch AS b"
            " INNER JOIN dbops_archive.archive_plan AS p ON p.plan_id = b.plan_id"
            " WHERE p.source_table = %s AND b.state = 'done'",
            (self.source_table,),
        )
        return int(found[0][0]), int(found[0][1])

    def assert_nothing_lost(self, when: str) -> None:
        """Every row is in MySQL or, where it left, in the lake with the same values (a copy of a row that stays may be there too)."""
        live = self.live()
        gone = {k: v for k, v in self.expected.items() if k not in live}
        assert {k: self.expected[k] for k in live} == live, when
        if gone:
            archived = {r[0]: r for r in self.archived()}
            assert {k: archived.get(k) for k in gone} == gone, when

    def assert_whole(self, *, cold_stay: frozenset[int] = frozenset(), tables: tuple[str, ...] = ("t",)) -> None:
        """Each row exactly once, unchanged; cold ones in the lake (but those in `cold_stay`), warm ones in MySQL; ledger agrees."""
        live, archived = self.live(), [r for table in tables for r in self.archived(table)]
        ids = [r[0] for r in archived]
        assert len(ids) == len(set(ids)), "rows are double in the lake"
        assert not live.keys() & set(ids), "rows are both in MySQL and in the lake"
        assert {**live, **{r[0]: r for r in archived}} == self.expected
        assert set(ids) == self.cold() - cold_stay
        assert self.told() == (len(ids), len(ids)), "the ledger does not explain the lake"


def flow(
    services: steps.Services, spec: ArchiveSpec, last: str = "reconcile", *, abandon: bool = False, check: bool = True
) -> str | None:
    """The steps of s3_archive in order, as far as `last`; resumes from the ledger like the next run."""
    refusals = steps.check(services, spec, purging=True) if check else []
    assert not refusals, [str(r) for r in refusals]
    planned = steps.make_plan(services, spec, RUN_AFTER, dry_run=False, abandon_open=abandon)
    assert not planned.refusals, [str(r) for r in planned.refusals]
    if planned.plan is None:
        return None
    plan_id, spans = planned.plan.plan_id, steps.groups(planned.chunks)
    actions: list[tuple[str, Callable[[], Any]]] = [
        *(("export", lambda s=s: steps.export_group(services, spec, plan_id, s)) for s in spans),
        ("publish", lambda: steps.publish_plan(services, plan_id)),
        *(("verify", lambda s=s: steps.verify_group(services, plan_id, s)) for s in spans),
        *(("purge", lambda s=s: steps.purge_group(services, spec, plan_id, s, confirm=spec.full_name)) for s in spans),
        ("reconcile", lambda: steps.reconcile(services, plan_id)),
    ]
    for stage, act in actions:
        if STAGES.index(stage) <= STAGES.index(last):
            act()
    return plan_id


def flow_in_worker(conn_id: str, spec: dict[str, Any], allowed: tuple[str, ...], abandon: bool) -> None:
    """What a worker process runs."""
    services = archive_kit.services(conn_id, purge_allowed=allowed, run="worker")
    flow(services, ArchiveSpec.model_validate(spec), check=False, abandon=abandon)


def start_worker(source: Source, kill: Kill | None = None, *, abandon: bool = False) -> Any:
    spec = source.spec.model_dump(mode="json", by_alias=True)
    allowed = tuple(source.services.purge_allowed)
    return worker.start(flow_in_worker, source.bench.conn_id, spec, allowed, abandon, kill=kill)


def finish_worker(source: Source, process: Any) -> int:
    """Wait for the process, and for MySQL to have dropped its sessions; returns the exit code."""
    process.join(60)
    assert process.exitcode is not None, "the worker hangs"
    attempts = tenacity.Retrying(stop=tenacity.stop_after_delay(10), wait=tenacity.wait_fixed(0.02), reraise=True)
    for attempt in attempts:
        with attempt:
            left = source.bench.sql(
                "SELECT PROCESSLIST_ID FROM performance_schema.session_connect_attrs WHERE ATTR_NAME = '_pid' AND ATTR_VALUE = %s",
                (str(process.pid),),
            )
            assert not left, "MySQL still has sessions of the dead worker"
    return int(process.exitcode)


@contextmanager
def filled(over: dict[str, Any]) -> Iterator[Source]:
    """A source on `conn_id` (default mysql_default); `over` replaces fields of its spec."""
    with archive_kit.bench(over.pop("conn_id", "mysql_default")) as bench:
        yield Source(bench, **over)


def nth_call(n: int, act: Callable[[], None], original: Callable[..., Any]) -> Callable[..., Any]:
    """`original`, with `act` before its nth call."""
    calls = [0]

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        calls[0] += 1
        if calls[0] == n:
            act()
        return original(*args, **kwargs)

    return wrapper


def abandon(source: Source) -> None:
    """Another run that gives the plan up and makes a new one."""
    steps.make_plan(source.services, source.spec, RUN_AFTER, dry_run=False, abandon_open=True)


def purge_all(source: Source, **limits: Any) -> purge.Outcome:
    spec = source.spec.model_copy(update={"purge": source.spec.purge.model_copy(update=limits)})
    _, outcome = steps.purge_group(source.services, spec, source.plan_id, (0, 99), confirm=spec.full_name)
    return outcome


def stop_midway(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    """Verify, then purge a few batches and fail."""

    def fail() -> None:
        raise OSError("the machine is going down")

    source.to("verify")
    with monkeypatch.context() as patch:
        patch.setattr(purge.Purger, "_adjacent", staticmethod(nth_call(4, fail, purge.Purger._adjacent)))
        with pytest.raises(OSError, match="going down"):
            purge_all(source, workers=1)
    assert source.is_partly_purged()


def restored(source: Source) -> dict[int, Row]:
    """Every row that the archive gives back, over all plans."""
    everything = restore.selection(chunks=[], column=None, low=None, high=None)
    rows: dict[int, Row] = {}
    for _, done in steps.restore_rows(source.services, source.spec, everything, plan_id=None, suffix="all"):
        assert done.equal
        schema, table = done.scratch
        rows |= {r[0]: r for r in source.bench.sql(f"SELECT {COLUMNS} FROM `{schema}`.`{table}`")}
    return rows
