"""The steps of an archive run, each resumable from the ledger alone.

Operators, tests and benchmarks call these functions; they take the spec, the plan's name and a :class:`Services` that opens
connections. A step that is repeated finds in the ledger what is done and does the rest.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from dbops import guardrails, mysql, sql
from dbops.archive import codec, keys, lake, ledger, manifest, preflight, verify
from dbops.archive import export as exporting
from dbops.archive import plan as planning
from dbops.archive import restore as restoring
from dbops.archive.ledger import Event, Ledger, LedgerError, Plan
from dbops.archive.preflight import Refusal
from dbops.archive.purge import Outcome, Purger
from dbops.archive.spec import ArchiveSpec
from dbops.archive.throttle import Brake

if TYPE_CHECKING:
    from MySQLdb.connections import Connection
    from pyiceberg.catalog import Catalog
    from trino.dbapi import Connection as TrinoConnection

# Chunks that one Trino query verifies: bounds both its result (a row a batch) and what a lost Trino costs.
CHUNKS_PER_QUERY = 50
# Mapped tasks of one stage and spec at most; more chunks make larger groups (Airflow maps 1024 at most over all specs).
MAX_GROUPS = 32
# A task works on two chunks at a time by default, so a group of one would leave a worker idle.
MIN_GROUP_CHUNKS = 8
COMMIT_WAIT_S = 600


class StepError(RuntimeError):
    """A step could not be finished; the message says what state it left."""


@dataclass(frozen=True)
class Services:
    """How to reach what a run needs. Every function opens a new connection or client."""

    source: Callable[[], Connection]
    """The writer, autocommit on."""
    source_transactional: Callable[[], Connection]
    """The writer, autocommit off."""
    reader: Callable[[], Connection]
    """Where plan and export read (the writer or a replica), values as bytes."""
    lag_source: Callable[[], Connection | None]
    """Where replica lag is seen; None when nowhere."""
    trino: Callable[[], TrinoConnection]
    s3: Callable[[], Any]
    catalog: Callable[[], Catalog]
    trino_catalog: str
    migrate: Callable[[], None]
    """Bring the ledger's schema up to date."""
    purge_allowed: Sequence[str] = ()
    """Allow-list of ``schema.table`` patterns that the source connection carries."""
    run: str = ""
    """dag_id/run_id, for the audit."""


@dataclass(frozen=True)
class Planned:
    """What planning found. ``plan`` is None in a dry run, when something was refused, and when no row is cold."""

    plan: Plan | None
    resumed: bool
    rows: int
    chunks: int
    predicate: str
    refusals: list[Refusal]
    target: lake.Target | None
    notes: list[str] = field(default_factory=list)
    bytes: int = 0
    """About how many bytes of the source table the rows take, by InnoDB's mean row length; 0 for a continued plan."""


@dataclass(frozen=True)
class Moved:
    """Rows and bytes that a step moved, in how many seconds."""

    rows: int
    bytes: int
    seconds: float
    message: str = ""


def check(services: Services, spec: ArchiveSpec, *, purging: bool, dry_run: bool = False) -> list[Refusal]:
    """Everything that can be refused without looking at rows: services first, then table and server.

    A dry run only reads: it neither creates the ledger's tables nor tries to write to S3.
    """
    refusals = preflight.check_services(_service_probes(services, spec, dry_run=dry_run))
    if any(r.check == "source" for r in refusals):
        return refusals
    with _closing(services.source()) as conn:
        refusals += preflight.check_table(conn, spec, purging=purging)
        if purging:
            refusals += _check_purge(services, spec, conn)
    return refusals


def _service_probes(
    services: Services, spec: ArchiveSpec, *, dry_run: bool
) -> list[tuple[str, str, Callable[[], Any]]]:
    def source() -> None:
        with _closing(services.source()) as conn:
            mysql.scalar(conn, "SELECT 1")

    def trino() -> None:
        with _closing(services.trino()) as conn:
            verify.trino_rows(conn, f"SHOW SCHEMAS FROM {sql.ident_trino(services.trino_catalog)}")

    def ledger_schema() -> None:
        if not dry_run:
            services.migrate()
            return
        with _closing(services.source()) as conn:
            found = mysql.scalar(
                conn, "SELECT 1 FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = %s", (ledger.SCHEMA,)
            )
        if not found:
            raise StepError(f"schema {ledger.SCHEMA} does not exist on the source, or this user may not see it")

    def s3() -> None:
        where = urlsplit(str(services.catalog().properties["warehouse"]))
        client, name = services.s3(), f"{where.path.strip('/')}/_dbops_probe_{uuid.uuid4().hex}"
        if dry_run:
            client.list_objects_v2(Bucket=where.netloc, Prefix=name, MaxKeys=1)
            return
        client.put_object(Bucket=where.netloc, Key=name, Body=b"")
        client.delete_object(Bucket=where.netloc, Key=name)

    return [
        ("source", f"check the Airflow connection {spec.connection!r} and the server", source),
        (
            "ledger",
            f"CREATE DATABASE {ledger.SCHEMA} on the source and GRANT ALL on it to the archive's user",
            ledger_schema,
        ),
        ("trino", f"check {spec.trino_connection!r} and that Trino has the catalog {services.trino_catalog!r}", trino),
        (
            "iceberg",
            f"check the Airflow connection {spec.iceberg_connection!r}",
            lambda: services.catalog().list_namespaces(),
        ),
        ("s3", f"check {spec.aws_connection!r}: s3:PutObject and s3:DeleteObject on the warehouse", s3),
    ]


def _check_purge(services: Services, spec: ArchiveSpec, conn: Connection) -> list[Refusal]:
    refusals = []
    try:
        guardrails.require_allowed(
            spec.full_name, services.purge_allowed, f"extra dbops_purge_allow of connection {spec.connection!r}"
        )
    except guardrails.Refused as refused:
        refusals.append(Refusal("allow_list", refused.reason, "let the owner of the connection add the table"))
    if spec.purge.max_lag_s is not None:
        lag_source = services.lag_source()
        lag = None
        if lag_source is not None:
            with _closing(lag_source) as lag_conn:
                lag = mysql.replica_lag_seconds(lag_conn)
        if lag is None:
            refusals.append(
                Refusal(
                    "lag", "replica lag cannot be seen, so the purge could not be slowed down",
                    "define mysql_replica (or purge.lag_connection), or state that no replica exists: purge.max_lag_s: null",
                )
            )  # fmt: skip
    return refusals


def make_plan(
    services: Services,
    spec: ArchiveSpec,
    run_after: datetime,
    *,
    dry_run: bool,
    abandon_open: bool = False,
    adopt_server: str | None = None,
) -> Planned:
    """Continue the table's open plan, or walk the table and store a new one (whole or not at all).

    `adopt_server` is the server_uuid that may continue a plan of another server. Raises guardrails.Refused when an open plan was made on
    another server, or under other rules and `abandon_open` is false.
    """
    with _closing(services.source()) as conn, _closing(services.reader()) as reader:
        book = Ledger(conn)
        existing = None if dry_run else book.open_plan(spec.full_name)
        if existing:
            existing = _adopted(services, book, existing, adopt_server)
        if existing and (abandon_open or existing.state == "abandoning"):
            _abandon(services, book, existing)
            existing = None
        if existing:
            _assert_same_rules(existing, spec)
            return Planned(
                existing, True, existing.planned_rows, existing.planned_chunks, existing.predicate, [], None,
                [f"continues plan {existing.plan_id} of {existing.created_at:%Y-%m-%d %H:%M} UTC"],
            )  # fmt: skip
        return _new_plan(services, spec, run_after, conn, reader, dry_run=dry_run)


def _adopted(services: Services, book: Ledger, plan: Plan, adopt_server: str | None) -> Plan:
    """The plan, handed over to this server when `adopt_server` names it; refused when the plan belongs to another one."""
    here = mysql.read_server(book.conn).server_uuid
    if adopt_server == here != plan.server_uuid:
        book.adopt(plan.plan_id, here)
        _note(services, book, plan.plan_id, "adopt", Moved(0, 0, 0.0, f"server {plan.server_uuid} -> {here}"))
        return book.plan(plan.plan_id)
    _assert_own(book.conn, plan)
    return plan


def _assert_own(conn: Connection, plan: Plan) -> None:
    """A clone has the ledger's open plan too, and would take the original's rows out of the lake that both refer to."""
    here = mysql.read_server(conn).server_uuid
    if here != plan.server_uuid:
        raise guardrails.Refused(
            f"plan {plan.plan_id} was made on server {plan.server_uuid}, this is {here}: a clone, or the writer after a failover."
            f" Nothing was changed. Only if the other server is gone for good: run once with adopt_server: {here}"
        )


def _abandon(services: Services, book: Ledger, plan: Plan) -> None:
    """Take out of the lake what did not leave MySQL, prove that, and close the plan; a repeat goes on where it ended."""
    book.begin_abandon(plan.plan_id)
    _withdraw(services, book, plan, ("exported", "verified", "refused", "changed"))
    deleted = book.batch_totals(plan.plan_id).get("done", {}).get("deleted_rows", 0)
    with _closing(services.trino()) as trino:
        left = _lake_rows(trino, plan)
    if left != deleted:
        raise StepError(
            f"plan {plan.plan_id} stays `abandoning`: {plan.lake_table} holds {left} rows of it, MySQL deleted {deleted}."
            " No row is lost; find who else writes to the table, then run again"
        )
    _sweep(services, book, plan)
    if deleted:
        _write_manifest(services, book, plan)
    book.close_plan(plan.plan_id, "abandoned")


def _lake_rows(trino: TrinoConnection, plan: Plan) -> int:
    statement = f"SELECT count(*) FROM {sql.ident_trino(plan.lake)} WHERE {lake.plan_filter(plan.plan_id)}"
    return int(verify.trino_rows(trino, statement)[0][0])


def _assert_same_rules(existing: Plan, spec: ArchiveSpec) -> None:
    if existing.rule_digest != spec.rule_digest():
        raise guardrails.Refused(
            f"plan {existing.plan_id} of {existing.source_table} is open, but spec {spec.name!r} has other rules now (cold, where, hold,"
            " target or conversions); run once with abandon_open_plan: true to give it up (nothing is deleted), or restore the old rules"
        )


def _new_plan(
    services: Services, spec: ArchiveSpec, run_after: datetime, conn: Connection, reader: Connection, *, dry_run: bool
) -> Planned:
    table = mysql.read_table(conn, spec.schema_name, spec.table)
    if table is None:
        raise StepError(f"{spec.full_name} does not exist any more; preflight saw it")
    key = keys.row_key(table)
    codecs = tuple(
        codec.codecs(table, zero_dates_as_text=spec.zero_dates_as_text, lossy_as_binary=spec.lossy_text_as_binary)
    )
    children = mysql.referencing_keys(conn, table.schema, table.name)
    cutoff = spec.cold.cutoff(run_after)
    predicate, notes = _predicate(conn, spec, table, cutoff, children)
    chunk_rows = planning.rows_per_chunk(table, spec.chunk_bytes, spec.purge.batch_rows)
    checks = preflight.row_checks(table, spec, children)
    conditions = [check.condition for check in checks]
    walk = planning.walk(reader, table, key, predicate, chunk_rows=chunk_rows, conditions=conditions)
    refusals = preflight.row_refusals(reader, table, key, predicate, checks, walk.chunks, walk.failed)
    catalog = services.catalog()
    target = lake.choose_target(catalog, spec.target.namespace, spec.target_table, codecs, spec.target.partition)
    if target.reason:
        notes.append(target.reason)
    size = walk.rows * table.average_row_bytes
    if dry_run or refusals or not walk.chunks:
        return Planned(None, False, walk.rows, len(walk.chunks), predicate, refusals, target, notes, size)
    lake.ensure_table(catalog, target, codecs, spec.target.partition)
    if target.generation > 1:
        notes.append(_refresh_view(services, catalog, spec))
    now = ledger.utcnow()
    plan = Plan(
        plan_id=f"{spec.name}-{cutoff:%Y%m%d}-{uuid.uuid4().hex[:8]}",
        spec=spec.name,
        source_table=spec.full_name,
        state="open",
        rule_digest=spec.rule_digest(),
        server_uuid=mysql.read_server(conn).server_uuid,
        cutoff=cutoff,
        predicate=predicate,
        codecs=codecs,
        create_table=mysql.rows(conn, f"SHOW CREATE TABLE {sql.ident((table.schema, table.name))}")[0]["Create Table"],
        lake_table=f"{services.trino_catalog}.{target.namespace}.{target.table}",
        planned_rows=walk.rows,
        planned_chunks=len(walk.chunks),
        source_bytes=table.data_bytes + table.index_bytes,
        created_by=services.run,
        created_at=now,
    )
    Ledger(conn).create_plan(plan, walk.chunks)
    return Planned(Ledger(conn).plan(plan.plan_id), False, walk.rows, len(walk.chunks), predicate, [], target, notes)


def _refresh_view(services: Services, catalog: Catalog, spec: ArchiveSpec) -> str:
    """Make the view over all generations anew and say so; a catalog without views does not stop the archive."""
    from trino.exceptions import TrinoQueryError

    name, namespace = spec.target_table, spec.target.namespace
    view = f"{services.trino_catalog}.{namespace}.{name}_all"
    generations = lake.generations(catalog, namespace, name)
    try:
        with _closing(services.trino()) as trino:
            verify.trino_rows(trino, lake.all_generations_view(services.trino_catalog, namespace, name, generations))
    except TrinoQueryError as error:
        return f"view {view} over all generations could not be made: {error.message}"
    return f"view {view} shows all {len(generations)} generations"


def _predicate(
    conn: Connection, spec: ArchiveSpec, table: mysql.Table, cutoff: datetime, children: Sequence[mysql.ForeignKey]
) -> tuple[str, list[str]]:
    predicate, notes = spec.predicate(cutoff), []
    if spec.referenced_rows == "skip":
        predicate += "".join(f" AND NOT {preflight.referenced(table, child)}" for child in children)
    counter = next((c.name for c in table.columns if c.is_auto_increment), None)
    if counter and mysql.read_server(conn).version_tuple < (8,):
        # Before 8.0 a restart sets the counter to MAX + 1: without its highest row MySQL would give an archived id to a new row.
        highest = mysql.scalar(conn, f"SELECT MAX({sql.ident(counter)}) FROM {sql.ident((table.schema, table.name))}")
        if highest is not None:
            predicate += f" AND {sql.ident(counter)} < {int(highest)}"
            notes.append(
                f"the row with the highest {counter} ({highest}) stays, so that MySQL {spec.connection} does not reuse ids"
            )
    return predicate, notes


def groups(chunk_count: int) -> list[tuple[int, int]]:
    """Cut chunks 0..n-1 into at most MAX_GROUPS ranges [first, last] of about equal size.

    None but the last is smaller than MIN_GROUP_CHUNKS.
    """
    size = max(MIN_GROUP_CHUNKS, -(-chunk_count // MAX_GROUPS))
    return [(first, min(first + size, chunk_count) - 1) for first in range(0, chunk_count, size)]


def export_group(services: Services, spec: ArchiveSpec, plan_id: str, span: tuple[int, int]) -> Moved:
    """Export the planned chunks of a group, `spec.export_workers` at a time."""
    began = time.monotonic()
    with _closing(services.source()) as conn:
        book = Ledger(conn)
        plan = _open(book, plan_id)
        chunks = book.chunks(plan_id, ["planned"], span)
        if not chunks:
            return Moved(0, 0, 0.0, "nothing left to export")
        _, key = _source_table(conn, plan)
        uri, s3 = lake.data_uri(services.catalog().load_table(plan.lake[1:])), services.s3()

        def one(chunk: ledger.Chunk) -> exporting.Exported | None:
            with (
                _closing(services.reader()) as reader,
                _closing(services.source()) as writer,
                Ledger(writer).exclusive(f"x{chunk.chunk_no}:{plan_id}") as mine,
            ):
                if not mine:
                    raise StepError(
                        f"chunk {chunk.chunk_no} of {plan_id} is being exported by another run; let it finish"
                    )
                if not Ledger(writer).chunks(plan_id, ["planned"], (chunk.chunk_no, chunk.chunk_no)):
                    return None  # another run has exported it since the chunks were listed
                done = exporting.export_chunk(
                    reader,
                    s3,
                    plan,
                    chunk,
                    key,
                    batch_rows=spec.purge.batch_rows,
                    partition=spec.target.partition,
                    data_uri=uri,
                )
                Ledger(writer).record_export(plan_id, chunk.chunk_no, done.files, done.batches, done.wire_bytes)
            return done

        with ThreadPoolExecutor(max_workers=spec.export_workers, thread_name_prefix="export") as pool:
            done = [exported for exported in pool.map(one, chunks) if exported]
        moved = Moved(
            sum(d.rows for d in done), sum(d.wire_bytes for d in done), time.monotonic() - began,
            f"chunks {span[0]}-{span[1]}: {sum(len(d.files) for d in done)} files,"
            f" {sum(f.file_bytes for d in done for f in d.files)} bytes of Parquet",
        )  # fmt: skip
        _note(services, book, plan_id, "export", moved)
    return moved


def publish_plan(services: Services, plan_id: str) -> Moved:
    """Commit every exported chunk's files to the Iceberg table; one committer a table."""
    began = time.monotonic()
    with _closing(services.source()) as conn:
        book = Ledger(conn)
        plan = _open(book, plan_id)
        if unexported := book.chunks(plan_id, ["planned"]):
            raise StepError(
                f"{len(unexported)} chunks of {plan_id} are not exported; run the export again, then publish"
            )
        with book.exclusive(f"commit:{plan.lake_table}", COMMIT_WAIT_S) as mine:
            if not mine:
                raise StepError(
                    f"another run has been committing to {plan.lake_table} for {COMMIT_WAIT_S} s; try again"
                )
            plan = _open(book, plan_id)  # again, now that no abandon can be under way
            waiting = [c.chunk_no for c in book.chunks(plan_id, ["exported"])]
            files = book.files(plan_id, waiting)
            # A chunk whose rows all vanished since the plan has no file and needs no commit.
            left = {n: sum(1 for f in files if f.chunk_no == n) for n in waiting}
            table = services.catalog().load_table(plan.lake[1:])
            rows = size = commits = 0
            for published, snapshot in lake.publish(table, files, {"dbops.plan": plan_id, "dbops.run": services.run}):
                for file in published:
                    left[file.chunk_no] -= 1
                    rows, size = rows + file.file_rows, size + file.file_bytes
                commits += 1
                whole = [n for n, count in left.items() if count == 0]
                if whole:
                    book.record_published(plan_id, whole, snapshot)
                    left = {n: count for n, count in left.items() if count}
            if left and not files:
                book.record_published(plan_id, list(left), lake.snapshot_id(table) if table.current_snapshot() else 0)
        moved = Moved(rows, size, time.monotonic() - began, f"{len(files)} files in {commits} commits")
        if waiting:
            _note(services, book, plan_id, "publish", moved)
    return moved


def verify_group(services: Services, plan_id: str, span: tuple[int, int]) -> Moved:
    """Compare every batch of the published chunks of a group with what Trino reads; refuse and explain those that differ."""
    began = time.monotonic()
    rows = refused_batches = 0
    with _closing(services.source()) as conn, _closing(services.trino()) as trino:
        book = Ledger(conn)
        plan = _open(book, plan_id)
        chunks = book.chunks(plan_id, ["published"], span)
        if not chunks:
            return Moved(0, 0, 0.0, "nothing left to verify")
        _, key = _source_table(conn, plan)
        table = services.catalog().load_table(plan.lake[1:])
        # Without a snapshot every row vanished between plan and export: there are no batches, and nothing to read.
        snapshot = lake.snapshot_id(table) if table.current_snapshot() else 0
        for start in range(0, len(chunks), CHUNKS_PER_QUERY):
            numbers = [c.chunk_no for c in chunks[start : start + CHUNKS_PER_QUERY]]
            batches = {n: book.batches(plan_id, n) for n in numbers}
            found = verify.lake_checksums(trino, plan, plan.lake, numbers, snapshot) if any(batches.values()) else {}
            if unknown := verify.strangers([b for of_chunk in batches.values() for b in of_chunk], found):
                raise StepError(
                    f"{plan.lake_table} holds rows of {plan_id} that the ledger does not know, in (chunk, batch) {unknown[:10]};"
                    " nothing was deleted; abandon the plan"
                )
            for number in numbers:
                verdicts = verify.judge(batches[number], found)
                refused = {
                    batch.batch_no: verify.explain(conn, trino, plan, key, batch, plan.lake, snapshot)
                    for batch, _, state in verdicts
                    if state == "refused"
                }
                book.record_verified(plan_id, number, verdicts, refused)
                rows += sum(batch.source.n for batch, _, state in verdicts if state == "verified")
                refused_batches += len(refused)
        message = f"chunks {span[0]}-{span[1]} at snapshot {snapshot}: {refused_batches} batches refused"
        moved = Moved(rows, 0, time.monotonic() - began, message)
        _note(services, book, plan_id, "verify", moved)
    return moved


def purge_group(
    services: Services, spec: ArchiveSpec, plan_id: str, span: tuple[int, int], *, confirm: str | None
) -> tuple[Moved, Outcome]:
    """Delete the verified batches of a group, after every guardrail has said yes once more.

    Raises guardrails.Refused (confirmation, allow-list, approval, throttle) or StepError (archive not in place); rows that are not
    `done` in the ledger are then still in MySQL.
    """
    began = time.monotonic()
    with _closing(services.source()) as conn:
        book = Ledger(conn)
        plan = _open(book, plan_id)
        guardrails.require_confirmation(confirm, spec.full_name)
        guardrails.require_allowed(
            plan.source_table, services.purge_allowed, f"extra dbops_purge_allow of {spec.connection!r}"
        )
        _assert_same_rules(plan, spec)
        _assert_approved(book, spec, plan)
        # Again: the preflight may be hours old, and a key or trigger made since then would carry the DELETE elsewhere.
        if refusals := preflight.check_table(conn, spec, purging=True):
            raise guardrails.Refused(f"{plan.source_table} may not be purged: " + " | ".join(map(str, refusals)))
        chunks = [
            c.chunk_no
            for c in book.chunks(plan_id, ["verified"], span)
            if book.batches(plan_id, c.chunk_no, ["verified"])
        ]
        if not chunks:
            return Moved(0, 0, 0.0, "nothing left to purge"), Outcome()
        _, key = _source_table(conn, plan)
        assert_archived(services, book, plan, chunks)
        lag_source = services.lag_source() if spec.purge.max_lag_s is not None else None
        outcome = Outcome()
        with _closing(services.source()) as watcher, _closing(lag_source) as lag:
            brake = Brake(spec.purge, plan.source_table, watcher, lag)
            purger = Purger(
                plan=plan,
                key=key,
                server=mysql.read_server(conn),
                connect=services.source_transactional,
                deleted_by=services.run,
                before_transaction=brake,
                on_commit=brake.committed,
                target_ms=spec.purge.transaction_ms,
                max_rows=spec.purge.max_transaction_rows,
                isolation=spec.purge.isolation,
                lock_wait_s=spec.purge.lock_wait_s,
            )
            try:
                purger.run(chunks, spec.purge.workers, outcome)
            finally:
                moved = Moved(outcome.rows, 0, time.monotonic() - began, _purge_message(span, outcome, brake))
                with _closing(services.source()) as fresh:  # the first connection may be the one that was lost
                    _note(services, Ledger(fresh), plan_id, "purge", moved)
    return moved, outcome


def _purge_message(span: tuple[int, int], outcome: Outcome, brake: Brake) -> str:
    waits = "; ".join(f"{w.seconds:.0f} s: {', '.join(w.reasons)}" for w in brake.waited)
    return (
        f"chunks {span[0]}-{span[1]}: {outcome.batches} batches in {outcome.transactions} transactions,"
        f" {len(outcome.changed)} changed, {len(outcome.busy)} busy" + (f"; waited {waits}" if waits else "")
    )


def assert_archived(services: Services, book: Ledger, plan: Plan, chunk_nos: Sequence[int]) -> None:
    """The chunks' files are in the current snapshot and the objects exist with the recorded SHA-256. Raises StepError."""
    import base64

    table = services.catalog().load_table(plan.lake[1:])
    present = lake.referenced(table, plan.plan_id)
    s3 = services.s3()
    for file in book.files(plan.plan_id, chunk_nos):
        problem = None
        if file.uri not in present:
            problem = "is not in the current snapshot"
        else:
            where = urlsplit(file.uri)
            try:
                head = s3.head_object(Bucket=where.netloc, Key=where.path.lstrip("/"), ChecksumMode="ENABLED")
            except s3.exceptions.ClientError as error:
                problem = f"cannot be read: {error}"
            else:
                expected = base64.b64encode(bytes.fromhex(file.sha256)).decode()
                if head["ContentLength"] != file.file_bytes or head.get("ChecksumSHA256") != expected:
                    problem = "has another length or SHA-256 than the exported file"
        if problem:
            raise StepError(
                f"file {file.uri} of chunk {file.chunk_no} {problem}; nothing was deleted from {plan.source_table} in this step."
                " Restore the object or the snapshot, or run once with abandon_open_plan: true"
            )


def _assert_approved(book: Ledger, spec: ArchiveSpec, plan: Plan) -> None:
    if not spec.purge.approval:
        return
    if not plan.approved_digest:
        raise guardrails.Refused(f"plan {plan.plan_id} needs an approval (purge.approval: true) and has none")
    if plan.approved_digest != book.verified_digest(plan.plan_id):
        raise guardrails.Refused(f"plan {plan.plan_id} changed after {plan.approved_by} approved it; approve it again")


@dataclass(frozen=True)
class Reconciled:
    """Source, lake and ledger held against each other at the end of a run."""

    plan: Plan
    closed: bool
    totals: dict[str, dict[str, int]]
    """Per batch state: batches, source_rows, deleted_rows."""
    chunk_states: dict[str, int]
    lake_rows: int
    """Rows of this plan that Trino sees now."""
    source_rows: int
    """Rows in MySQL that meet the plan's predicate now: refused, changed, not yet purged, or new since."""
    table: mysql.Table
    file_bytes: int
    wire_bytes: int
    refused: list[dict[str, Any]]
    events: list[Event]
    problems: list[str]


def reconcile(services: Services, plan_id: str) -> Reconciled:
    """Close the plan when nothing of it is left to do, and compare source, lake and ledger. Repeating it is harmless."""
    with _closing(services.source()) as conn, _closing(services.trino()) as trino:
        book = Ledger(conn)
        plan = book.plan(plan_id)
        if plan.state in ("open", "abandoning"):
            _assert_own(conn, plan)
        totals = book.batch_totals(plan_id)
        chunk_states = book.chunk_states(plan_id)
        waiting = sum(totals.get(s, {}).get("batches", 0) for s in ("exported", "verified"))
        finished = set(chunk_states) <= {"verified"} and waiting == 0
        if finished and plan.state == "open":
            _withdraw(services, book, plan, ("refused", "changed"))
        lake_rows = _lake_rows(trino, plan)
        deleted = totals.get("done", {}).get("deleted_rows", 0)
        source_rows = int(
            mysql.scalar(conn, f"SELECT COUNT(*) FROM {sql.ident(plan.source)} WHERE {plan.predicate}") or 0
        )
        problems = []
        if finished and lake_rows != deleted:
            problems.append(f"the lake holds {lake_rows} rows of the plan, the ledger deleted {deleted}")
        staying = sum(totals.get(s, {}).get("source_rows", 0) for s in ("refused", "verified", "exported"))
        if source_rows < staying:
            problems.append(
                f"{staying} rows should still be in MySQL, {source_rows} are: something else deletes from {plan.source_table}"
            )
        if finished and not problems and plan.state == "open":
            _sweep(services, book, plan)
            _write_manifest(services, book, plan)
            book.close_plan(plan_id, "done")
        table = mysql.read_table(conn, *plan.source)
        if table is None:
            raise StepError(f"{plan.source_table} does not exist any more")
        sizes = book.sizes(plan_id)
        return Reconciled(
            plan=plan, closed=finished and not problems, totals=totals, chunk_states=chunk_states, lake_rows=lake_rows,
            source_rows=source_rows, table=table, file_bytes=sizes[0], wire_bytes=sizes[1],
            refused=book.refused_rows(plan_id), events=book.events(plan_id), problems=problems,
        )  # fmt: skip


def ask_approval(services: Services, plan_id: str) -> str:
    """Forget an earlier approval and return the digest to approve: whoever asks must be told by this answer, not by an older one."""
    with _closing(services.source()) as conn:
        book = Ledger(conn)
        book.withdraw_approval(plan_id)
        return book.verified_digest(plan_id)


def reject(services: Services, plan_id: str) -> None:
    """Record a no, or no answer: the purge refuses."""
    with _closing(services.source()) as conn:
        Ledger(conn).withdraw_approval(plan_id)


def approve(services: Services, plan_id: str, by: str, digest: str) -> None:
    """Record an approval of that digest. Raises guardrails.Refused when the plan's digest is another one by now."""
    with _closing(services.source()) as conn:
        book = Ledger(conn)
        if book.verified_digest(plan_id) != digest:
            raise guardrails.Refused(f"plan {plan_id} is no longer what {by} approved; approve it again")
        book.approve(plan_id, by, digest)


def restore_rows(
    services: Services, spec: ArchiveSpec, selection: restoring.Selection, *, plan_id: str | None, suffix: str
) -> list[tuple[Plan, restoring.Restored]]:
    """Restore the selected rows of one plan, or of every finished plan of the spec, each into a scratch table of its own.

    The scratch table is ``<restore_schema>.<table>_<suffix>_<n>`` and is made anew when the step is repeated. Raises RestoreError.
    """
    with _closing(services.source()) as conn, _closing(services.trino()) as trino:
        book = Ledger(conn)
        plans = [book.plan(plan_id)] if plan_id else book.closed_plans(spec.name)
        if not plans:
            raise restoring.RestoreError(f"spec {spec.name!r} has no closed plan that deleted rows: nothing to restore")
        if selection.chunks and len(plans) > 1:
            raise restoring.RestoreError("chunks are numbered within a plan; give plan_id as well")
        restored = []
        for number, plan in enumerate(plans, start=1):
            if plan.spec != spec.name:
                raise restoring.RestoreError(f"plan {plan.plan_id} belongs to spec {plan.spec!r}, not {spec.name!r}")
            if plan.state not in ("done", "abandoned"):
                raise restoring.RestoreError(
                    f"plan {plan.plan_id} is {plan.state}; only closed plans are restored, run s3_archive to the end"
                )
            manifest = None if selection.column else book.done_checksum(plan.plan_id, selection.chunks)
            scratch = (spec.scratch_schema, f"{spec.table}_{suffix}_{number}"[:64])
            table = services.catalog().load_table(plan.lake[1:])
            restored.append((plan, restoring.restore(conn, trino, table, plan, scratch, selection, manifest)))
        return restored


def _withdraw(services: Services, book: Ledger, plan: Plan, states_that_stay: Sequence[str]) -> int:
    """Remove from the lake the batches of these states, whose rows did not leave MySQL, so that no row is in both; returns how many.

    Whole chunks go as files, which are not read: their objects may be lost or damaged. What is left of them, because somebody rewrote
    the files (Trino's ``optimize``), and chunks of which some rows were purged go row by row, as a DELETE in Trino. All under the commit
    lock, and harmless to repeat.
    """
    unfinished = {s: pairs for s, pairs in book.unfinished(plan.plan_id).items() if s in states_that_stay}
    states = {c.chunk_no: c.state for c in book.chunks(plan.plan_id)}
    by_chunk: dict[int, list[int]] = {}
    for chunk_no, batch_no in sorted(pair for pairs in unfinished.values() for pair in pairs):
        by_chunk.setdefault(chunk_no, []).append(batch_no)
    purged = {n for n in by_chunk if book.batches(plan.plan_id, n, ["done"])}
    with book.exclusive(f"commit:{plan.lake_table}", COMMIT_WAIT_S) as mine, _closing(services.trino()) as trino:
        if not mine:
            raise StepError(f"another run has been committing to {plan.lake_table} for {COMMIT_WAIT_S} s; try again")
        # A chunk that the ledger still calls exported may be published already (killed between the two).
        whole = [n for n in by_chunk if n not in purged and states[n] != "planned"]
        if whole:
            uris = {f.uri for f in book.files(plan.plan_id, whole)}
            table = services.catalog().load_table(plan.lake[1:])
            lake.drop_files(table, uris, {"dbops.plan": plan.plan_id, "dbops.run": services.run})
            for start in range(0, len(whole), CHUNKS_PER_QUERY):
                where = lake.chunk_filter(plan.plan_id, whole[start : start + CHUNKS_PER_QUERY])
                counted = verify.trino_rows(trino, f"SELECT count(*) FROM {sql.ident_trino(plan.lake)} WHERE {where}")
                if counted[0][0]:
                    verify.trino_rows(trino, f"DELETE FROM {sql.ident_trino(plan.lake)} WHERE {where}")
        conditions = [
            f'({lake.chunk_filter(plan.plan_id, [n])} AND "{exporting.BATCH_COLUMN}" IN ({", ".join(map(str, by_chunk[n]))}))'
            for n in by_chunk if n in purged
        ]  # fmt: skip
        for start in range(0, len(conditions), CHUNKS_PER_QUERY):
            where = " OR ".join(conditions[start : start + CHUNKS_PER_QUERY])
            verify.trino_rows(trino, f"DELETE FROM {sql.ident_trino(plan.lake)} WHERE {where}")
    return sum(map(len, by_chunk.values()))


def _write_manifest(services: Services, book: Ledger, plan: Plan) -> None:
    proven = book.done_checksums(plan.plan_id)
    files = book.files(plan.plan_id, sorted(proven))
    content = manifest.document(plan, files, proven, ledger.utcnow().isoformat() + "Z")
    target = manifest.uri(str(services.catalog().properties["warehouse"]), plan)
    if manifest.write(services.s3(), target, content):
        _note(services, book, plan.plan_id, "manifest", Moved(0, 0, 0.0, target))


def _sweep(services: Services, book: Ledger, plan: Plan) -> int:
    """Delete the plan's objects that a killed export left behind; returns how many.

    Every object of a plan lies under a prefix of its own. What the ledger records or the table refers to stays.
    """
    table = services.catalog().load_table(plan.lake[1:])
    chunk_nos = [c.chunk_no for c in book.chunks(plan.plan_id)]
    # By bucket and key: the table's location may be written s3a://.
    uris = {f.uri for f in book.files(plan.plan_id, chunk_nos)} | lake.referenced(table)
    keep = {tuple(uri.split("://", 1)[-1].split("/", 1)) for uri in uris}
    where, s3 = urlsplit(exporting.plan_prefix(lake.data_uri(table), plan.plan_id)), services.s3()
    swept = 0
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=where.netloc, Prefix=where.path.lstrip("/"))
    for page in pages:
        for entry in page.get("Contents", ()):
            if (where.netloc, entry["Key"]) not in keep:
                s3.delete_object(Bucket=where.netloc, Key=entry["Key"])
                swept += 1
    if swept:
        _note(services, book, plan.plan_id, "sweep", Moved(0, 0, 0.0, f"{swept} objects of killed exports deleted"))
    return swept


def _open(book: Ledger, plan_id: str) -> Plan:
    plan = book.plan(plan_id)
    if plan.state != "open":
        raise LedgerError(f"plan {plan_id} is {plan.state}; a new run makes a new plan")
    _assert_own(book.conn, plan)
    return plan


def _source_table(conn: Connection, plan: Plan) -> tuple[mysql.Table, keys.RowKey]:
    """The source as it is now; guardrails.Refused when its columns are no longer those of the plan."""
    table = mysql.read_table(conn, *plan.source)
    if table is None:
        raise StepError(f"{plan.source_table} does not exist any more")
    arguments = {
        "zero_dates_as_text": [c.name for c in plan.codecs if c.arrow == "string"],
        "lossy_as_binary": [c.name for c in plan.codecs if c.form == "long_binary"],
    }
    if tuple(codec.codecs(table, **arguments)) != plan.codecs:
        raise guardrails.Refused(
            f"{plan.source_table} was altered after plan {plan.plan_id} was made; run once with abandon_open_plan: true"
            " (nothing is deleted), then the next run plans the new columns"
        )
    return table, keys.row_key(table)


def _note(services: Services, book: Ledger, plan_id: str, stage: str, moved: Moved) -> None:
    book.note(plan_id, Event(stage, moved.seconds, moved.rows, moved.bytes, moved.message, services.run))


class _closing:
    """contextlib.closing for connections that may be lost: the step's own error matters more than that of closing."""

    def __init__(self, resource: Any) -> None:
        self.resource = resource

    def __enter__(self) -> Any:
        return self.resource

    def __exit__(self, *exc: object) -> None:
        with suppress(Exception):
            if self.resource is not None:
                self.resource.close()
