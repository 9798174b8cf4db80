"""The move, step by step, as `docs/keyvalue.md` orders it."""

from __future__ import annotations

import multiprocessing
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from dbops.backfill import plan
from dbops.backfill.journal import Journal
from dbops.backfill.records import FAILING, Class, Tally
from dbops.backfill.source import open_source
from dbops.backfill.spec import BackfillSpec
from dbops.backfill.verify import Verifier, spans
from dbops.keyvalue.counting import Reporter
from dbops.keyvalue.items import Item, canonical
from dbops.keyvalue.stores import Store
from dbops.mysql import read_server
from lab import config, mysql
from lab.config import LabError
from lab.migration import oracle, scene, worker
from lab.migration.oracle import Verdict
from lab.migration.runs import RUN_S, Runs
from lab.migration.scene import SUBJECTS, Key, Subject
from lab.migration.sides import Side
from lab.migration.stream import Stream, position, until
from lab.migration.traffic import Application, Keys, Session, Traffic, make_view
from lab.migration.worker import Arm

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload([worker.__name__])  # a worker begins at once, however long its imports take
VICTIMS = 3
"""Rows that are changed, and as many that are deleted, between the worker's reading and its writing."""
WORKER_S = 240
REPORT_S = 1.0
"""Between two reports of the applications' counters."""
RUN_UNITS_PER_S = 600
"""Of a copy by the DAG: it takes seconds, so that it can be killed within them."""
RUN_KILLED_AT = 0.25
"""Part of the rows that it has copied by then."""


@dataclass(frozen=True)
class Copied:
    """What the backfill of one table came to."""

    subject: str
    plan_id: str
    tally: Tally
    chunks: int
    kills: int
    seconds: float
    staged: int = 0
    """Rows that were changed, and as many that were deleted, between reading and writing."""
    by: str = "workers"


@dataclass
class Move:
    """One move of both tables.

    Args:
        schema: of the source; made here
        sides: the stores; each table moves to one of them
        folder: for files of the processes
        rows: first rows by table
        seed: of the traffic
    """

    schema: str
    sides: Sequence[Side]
    folder: Path
    rows: Mapping[str, int]
    seed: int = 7
    since: datetime = field(init=False)
    first: dict[str, dict[tuple[str, int], oracle.Item]] = field(init=False, repr=False)
    """Rows from before the dual writes, by key and version."""
    journal: Journal = field(init=False)
    streams: list[Stream] = field(init=False, default_factory=list)
    applications: dict[str, Application] = field(init=False, default_factory=dict)
    traffic: Traffic = field(init=False)
    reporters: list[Reporter] = field(init=False, default_factory=list)
    runs: Runs = field(init=False)

    def begin(self) -> None:
        """Old rows are there; then the change stream; then dual writes with reads that fall back."""
        self.folder.mkdir(parents=True, exist_ok=True)
        first = PROCESSES.Process(target=worker.imported, daemon=True)
        first.start()
        mysql.execute("mysql80", [f"CREATE DATABASE {self.schema}"])
        self.journal = Journal.open(sa.create_engine(self.store_url))
        scene.build(self.schema, self.rows, self.seed)
        self.first = {each.name: {(key, version): item for key, item, version in self._rows(each)} for each in SUBJECTS}
        first.join()
        for side in self.sides:
            side.make()
            stream = Stream(self.schema, self.folder / side.name, side.consumer(), side.subjects)
            self.streams.append(stream)
            stream.start(position())
        for subject in SUBJECTS:
            side = self.side(subject)
            view = make_view(self.schema, subject, side.template(subject))
            keys = Keys(subject, self.rows[subject.name])
            self.applications[subject.name] = Application(self.schema, subject, view, side.store(subject, view), keys)
        for marker in self.markers:
            assert self.applications[marker.name].keys.reserve(marker.key(0)), "a table needs a row to begin with"
        self.traffic = Traffic(list(self.applications.values()), self.seed)
        self.reporters = [self._reporter(application) for application in self.applications.values()]
        self.traffic.start()
        self.since = datetime.now(UTC)
        for reporter in self.reporters:
            reporter.start()
        specs = [self.spec(each) for each in SUBJECTS]
        for spec in specs:
            spec["limits"] |= {"units_per_s": RUN_UNITS_PER_S}
        (key,) = {side.key for side in self.sides if side.key} or {config.AWS_KEY}
        self.runs = Runs(self.folder / "runs", self.schema, specs, key)

    def _reporter(self, application: Application) -> Reporter:
        return Reporter(
            application.counters, partial(mysql.root_connection, "mysql80", self.schema), application=scene.APPLICATION,
            spec=self.spec_name(application.subject), every_s=REPORT_S,
        )  # fmt: skip

    def spec_name(self, subject: Subject) -> str:
        """Of the backfill of a table."""
        return f"{self.schema}_{subject.name}"

    @property
    def store_url(self) -> str:
        """The store, in a schema of its own."""
        return f"mysql+mysqldb://root@{config.HOST}:{config.port('mysql80')}/{self.schema}?charset=utf8mb4"

    def end(self) -> None:
        """End and remove everything, also after a failure in the middle of `begin`."""
        with ExitStack() as last_first:  # each of them, whatever another one raises
            for server in ("mysql57", "mysql80"):
                last_first.callback(scene.drop, self.schema, server)
            if hasattr(self, "journal"):
                last_first.callback(self.journal.engine.dispose)
            for side in self.sides:
                last_first.callback(side.remove)
            for stream in self.streams:
                last_first.callback(stream.stop)
            for reporter in self.reporters:
                last_first.callback(reporter.close)
            if hasattr(self, "traffic"):
                last_first.callback(self.traffic.stop)

    def work(self, operations: int, seconds: float = 60) -> None:
        """Let the traffic go on for so many operations."""
        begin = self.traffic.operations()
        until(
            lambda: self.traffic.operations() >= begin + operations,
            "the traffic stands still",
            seconds,
            self.traffic.check,
        )

    # the change stream

    def drain(self) -> None:
        """Wait until the stores have everything that MySQL had committed. A row that nobody writes to the store tells it, one a stream."""
        versions = {}
        for marker in self.markers:
            session = Session(self.applications[marker.name], self.traffic.record)
            try:
                versions[marker.name] = session.write("update", marker.key(0), {}).version
            finally:
                session.connection.close()
        for marker, stream in zip(self.markers, self.streams, strict=True):
            application = self.applications[marker.name]
            key = application.view.key(dict(zip(marker.key_columns, marker.key(0), strict=True)))
            stream.drain(partial(_has, application.store, key, {"N": str(versions[marker.name])}))
            if lost := stream.lost():
                raise LabError(f"the change stream gave up {lost} records: see {stream.folder}/function.log")

    @property
    def markers(self) -> list[Subject]:
        """A table of each stream; the traffic leaves its first row alone."""
        return [side.subjects[-1] for side in self.sides]

    def side(self, subject: Subject) -> Side:
        """Where a table moves to."""
        (found,) = [each for each in self.sides if subject in each.subjects]
        return found

    # the backfill

    def copy(self, subject: Subject, arm: Arm = "conditional", *, kills: int = 0) -> Copied:
        """Backfill a table while the traffic goes on.

        Once, between the worker's reading of a page and its writing, rows of that page are changed and deleted, and the stream is
        drained: what it writes then is old, every time. Its worker is killed after a page was read, and after one was written but before
        the checkpoint.

        Args:
            subject: the table
            arm: ``unconditional`` for what must not be done
            kills: 0 to 2
        """
        begin, done = time.monotonic(), 0
        plan_id = self.make_plan(subject)
        for stop in ("read:2", "written:2")[:kills]:
            with self._worker(subject, plan_id, arm, [stop]) as running:
                running.said(stop)
                running.end()
                done += 1
        with self._worker(subject, plan_id, arm, ["read:1"]) as running:
            self.overtake(subject, running.said("read:1")["keys"])
            running.go_on()
            told = running.said("done")
        if told["done"] != "done":
            raise LabError(f"the copy of {subject.name} ended early: {told['done']}, {told['reason']}")
        self.journal.set_state(plan_id, "copied", expected=["planned", "copying"])
        chunks = self.journal.counts(plan_id)["done"]
        tally, seconds = self.journal.tally(plan_id), time.monotonic() - begin
        return Copied(subject.name, plan_id, tally, chunks, done, seconds, VICTIMS)

    def copy_by_dag(
        self, subject: Subject, told: Callable[[str], object] = print, meanwhile: Callable[[], object] = lambda: None
    ) -> Copied:
        """Backfill and verify a table while the traffic goes on, by the DAG: its process is killed in the middle, and it is run again.

        Args:
            subject: the table
            told: is told what happens
            meanwhile: is done while the second run goes on

        Raises:
            LabError: the DAG failed, made a second plan, or did not find everything right
        """
        begin, name = time.monotonic(), self.spec_name(subject)
        conf = {"spec": name, "dry_run": False, "confirm": name}
        with self.runs.run("backfill", conf, told) as run:
            until(lambda: self._is_in_the_middle(name), "the DAG did not copy", RUN_S, run.require_alive)
            run.kill()
        (plan,) = self.journal.plans(name)
        counts = self.journal.counts(plan.plan_id)
        if not counts.get("planned"):
            raise LabError(f"the copy of {name} was over before it was killed: {counts}")
        told(f"{subject.name}: kill -9 with {self.journal.tally(plan.plan_id).read:,} of {plan.rows:,} rows copied")
        with self.runs.run("backfill", conf, told) as run:
            meanwhile()
            run.wait()
        (plan,) = self.journal.plans(name)
        if plan.state != "verified":
            raise LabError(f"plan {plan.plan_id} is {plan.state}, not verified")
        tally, chunks = self.journal.tally(plan.plan_id), self.journal.counts(plan.plan_id)["done"]
        return Copied(subject.name, plan.plan_id, tally, chunks, 1, time.monotonic() - begin, by="the DAG")

    def _is_in_the_middle(self, name: str) -> bool:
        self.traffic.check()
        found = self.journal.plans(name)
        return bool(found) and self.journal.tally(found[0].plan_id).read >= found[0].rows * RUN_KILLED_AT

    def verified(self, plan_id: str) -> Counter[Class]:
        """What the newest verification of a plan has found."""
        proof = self.journal.verification(plan_id)
        if proof is None:
            raise LabError(f"plan {plan_id} has no verification")
        found: Counter[Class] = Counter()
        for part in self.journal.compared(proof.verification_id):
            found.update(part.counts)
        return found

    def make_plan(self, subject: Subject) -> str:
        """Cut a table into chunks, and keep the plan in the journal; returns its id."""
        declared = BackfillSpec.model_validate(self.spec(subject))
        with closing(worker.connect()) as connection:
            source, where = open_source(connection, declared), position()
            walk = plan.walk(connection, source, declared.limits.chunk_rows)
            server = read_server(connection)
        made = plan.new_plan(
            declared, walk, server_uuid=server.server_uuid, log_position=where, now=datetime.now(UTC), estimate={}
        )
        self.journal.begin(made, walk.chunks, self.seed)
        return made.plan_id

    def verify(self, subject: Subject, plan_id: str) -> Counter[Class]:
        """The verification of the backfill, in both directions, while the traffic goes on."""
        declared = BackfillSpec.model_validate(self.spec(subject))
        with closing(worker.connect()) as connection:
            source = open_source(connection, declared)
            with worker.opened(source, self.side(subject).key) as target:
                checked = Verifier(source, target, connection, drain_s=scene.DRAIN_S)
                parts = spans(self.journal.chunks(plan_id), source.last_key(connection))
                found: Counter[Class] = Counter()
                number = self.journal.begin_verification(plan_id, self.schema, "full")
                for compared in (*checked.forward(parts), *checked.reverse([0], 1)):
                    self.journal.add_classes(number, compared)
                    found.update(compared.counts)
        is_clean = not any(found[each] for each in FAILING)
        self.journal.end_verification(number, "clean" if is_clean else "differences")
        if is_clean:
            self.journal.set_state(plan_id, "verified", expected=["copied"])
        return found

    def overtake(self, subject: Subject, keys: list[str]) -> None:
        """Change and delete rows of a page that has been read but not written; the stream has all of that when this returns."""
        application, found = self.applications[subject.name], self._taken(subject, keys)
        if len(found) < 2 * VICTIMS:
            raise LabError(f"{subject.name}: a page of {len(keys)} rows has {len(found)} that the traffic does not use")
        session = Session(application, self.traffic.record)
        try:
            repository, one = application.repository(session.load), random.Random(self.seed)
            for key in found[:VICTIMS]:
                values = subject.values(one)
                repository.save(lambda key=key, values=values: session.write("update", key, values))  # type: ignore[misc]
            for key in found[VICTIMS:]:
                repository.remove(lambda key=key: session.delete(key))  # type: ignore[misc]
        finally:
            session.connection.close()
        self.drain()

    def _taken(self, subject: Subject, keys: list[str]) -> list[Key]:
        application, wanted = self.applications[subject.name], set(keys)
        found: list[Key] = []
        for number in range(application.keys.made):
            key = subject.key(number)
            if len(found) == 2 * VICTIMS:
                break
            row = dict(zip(subject.key_columns, key, strict=True))
            if canonical(application.view.key(row)) in wanted and application.keys.reserve(key):
                found.append(key)
        return found

    def spec(self, subject: Subject) -> dict[str, Any]:
        """The spec of its backfill, as a DBA writes it."""
        return scene.spec(self.schema, subject, self.side(subject).target(subject), self.since)

    @contextmanager
    def _worker(self, subject: Subject, plan_id: str, arm: Arm, stops: list[str]) -> Iterator[Running]:
        job = {
            "spec": self.spec(subject), "arm": arm, "stops": stops, "key": self.side(subject).key, "plan": plan_id,
            "journal": self.store_url, "lease_s": scene.LEASE_S,
        }  # fmt: skip
        running = Running(job, self.folder / f"worker-{subject.name}.log")
        try:
            yield running
        finally:
            running.end()

    # the gate and the switches

    def fall_backs(self) -> int:
        """Reads that MySQL had to answer, over all applications."""
        return sum(each.counters.snapshot()["fallback_hits"] for each in self.applications.values())

    @contextmanager
    def gate(self, subject: Subject, told: Callable[[str], object] = print) -> Iterator[Callable[[], list[str]]]:
        """Run backfill_gate. What is yielded waits for its end, and returns what its report says of a gate that is closed.

        Raises:
            LabError: the DAG failed, or its gate is open
        """
        name = self.spec_name(subject)
        with self.runs.run("backfill_gate", {"spec": name, "stream_is_drained": True}, told) as run:

            def reasons() -> list[str]:
                run.wait()
                document = self.runs.report(self.journal.engine, "backfill_gate", name)
                if document["verdict"] != "WARNING":
                    raise LabError(f"backfill_gate says {document['verdict']} after seconds: {document['reasons']}")
                return list(document["reasons"])

            yield reasons

    def switch_reads(self) -> None:
        """MySQL is not asked any more."""
        for application in self.applications.values():
            application.falls_back = False

    # the verdict

    def judge(self, subject: Subject, truth: Mapping[Key, Any] | None = None) -> Verdict:
        """What the oracle says; nothing may be under way.

        Args:
            subject: the table
            truth: rows that were written to the store only, None for deleted ones
        """
        template = self.side(subject).template(subject)
        kinds = {name: kind for name, kind in subject.columns.items() if name not in template}
        expected: dict[str, tuple[oracle.Item, int | None]] = {
            key: (item, version) for key, item, version in self._rows(subject)
        }
        for key, row in (truth or {}).items():
            name = oracle.key_of(template, dict(zip(subject.key_columns, key, strict=True)))
            if row is None:
                expected.pop(name, None)
            else:
                expected[name] = oracle.item_of(row, kinds), None
        history = self.side(subject).history(subject)
        verdict = oracle.judge(expected, self.side(subject).items(subject), history, template)
        if truth is not None:
            return verdict
        strange = oracle.strange(history, self._states(subject, kinds), template)
        return replace(verdict, findings=(*verdict.findings, *strange))

    def _states(self, subject: Subject, kinds: oracle.Kinds) -> dict[tuple[str, int], oracle.Item]:
        """Every state that MySQL has had."""
        template, found = self.side(subject).template(subject), dict(self.first[subject.name])
        for (key, version), row in list(self.traffic.record.committed[subject.name].items()):
            name = oracle.key_of(template, dict(zip(subject.key_columns, key, strict=True)))
            found[name, version] = oracle.item_of(row, kinds)
        return found

    def _rows(self, subject: Subject) -> Iterator[tuple[str, oracle.Item, int]]:
        """Rows of MySQL: key, attributes, version."""
        template = self.side(subject).template(subject)
        kinds = {name: kind for name, kind in subject.columns.items() if name not in template}
        for row in oracle.rows(self.schema, subject.name, subject.columns, config.port("mysql57")):
            yield oracle.key_of(template, row), oracle.item_of(row, kinds), int(row[scene.VERSION])

    def repaired(self) -> Counter[str]:
        """Lost dual writes: how they came to the store all the same, and those that did not.

        ``unstamped`` were brought by the stream or, where the store had nothing, by a read that fell back: their items look alike.
        """
        found: Counter[str] = Counter()
        for subject in SUBJECTS:
            items = self.side(subject).items(subject)
            states = {
                (key, new["_v"]["N"]): "_bf" in new
                for key, _, new in self.side(subject).history(subject)
                if new and "_v" in new
            }
            for lost in self.traffic.record.lost:
                if lost.subject != subject.name:
                    continue
                row = dict(zip(subject.key_columns, lost.key, strict=True))
                key = oracle.key_of(self.side(subject).template(subject), row)
                there = items.get(key)
                if (by_backfill := states.get((key, str(lost.version)))) is not None:
                    found["by the backfill" if by_backfill else "unstamped"] += 1
                elif there is not None and int(there["_v"]["N"]) >= lost.version:
                    found["overtaken"] += 1
                else:
                    found["never"] += 1
        return found


def _has(store: Store, key: Item, version: Any) -> bool:
    item = store.get(key)
    return item is not None and item.get("_v") == version


class Running:
    """A worker's process."""

    def __init__(self, job: dict[str, Any], log: Path) -> None:
        self.log = log
        self.pipe, theirs = PROCESSES.Pipe()
        self.process = PROCESSES.Process(target=worker.serve, args=(job, theirs, str(log)), daemon=True)
        self.process.start()
        theirs.close()

    def said(self, what: str) -> dict[str, Any]:
        """Wait until it is at a step, or done.

        Raises:
            LabError: it ended before, or did not get there in time
        """
        while self.pipe.poll(WORKER_S):
            try:
                told: dict[str, Any] = self.pipe.recv()
            except EOFError:
                break
            if told.get("at") == what or what in told:
                return told
        raise LabError(f"the worker did not get to {what}:\n{self.log.read_text()[-2000:]}")

    def go_on(self) -> None:
        self.pipe.send(None)

    def end(self) -> None:
        """SIGKILL, unless it has ended."""
        self.process.kill()
        self.process.join()
        self.pipe.close()
