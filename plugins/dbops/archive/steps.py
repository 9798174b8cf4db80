"""The steps of an archive run, each resumable from the ledger alone.

Operators, tests and benchmarks call these functions; they take the spec, the plan's name and a :class:`Services` that opens
connections. A step that is repeated finds in the ledger what is done and does the rest.
"""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from dbops import guardrails, keys, mysql, sql
from dbops.archive import codec, ending, lake, ledger, preflight, proof, verify
from dbops.archive import export as exporting
from dbops.archive import plan as planning
from dbops.archive import restore as restoring
from dbops.archive.ending import Loss
from dbops.archive.ledger import Event, Ledger, LedgerError, Plan
from dbops.archive.preflight import Refusal
from dbops.archive.proof import CHUNKS_PER_QUERY
from dbops.archive.purge import Outcome, Purger
from dbops.archive.services import Moved, Services, StepError, assert_own, committing, note
from dbops.archive.spec import ArchiveSpec
from dbops.archive.throttle import Brake
from dbops.connections import closing

if TYPE_CHECKING:
    from MySQLdb.connections import Connection
    from pyiceberg.catalog import Catalog
    from trino.dbapi import Connection as TrinoConnection

# Mapped tasks of one stage and spec at most; more chunks make larger groups (Airflow maps 1024 at most over all specs).
MAX_GROUPS = 32
# A task works on two chunks at a time by default, so a group of one would leave a worker idle.
MIN_GROUP_CHUNKS = 8


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


def check(services: Services, spec: ArchiveSpec, *, purging: bool, dry_run: bool = False) -> list[Refusal]:
    """Everything that can be refused without looking at rows: services first, then table and server."""
    refusals = check_services(services, spec, dry_run=dry_run)
    if any(r.check == "source" for r in refusals):
        return refusals
    return refusals + check_table(services, spec, purging=purging)


def check_services(services: Services, spec: ArchiveSpec, *, dry_run: bool = False) -> list[Refusal]:
    """Whether everything answers, and the ledger is there.

    A dry run only reads: it neither creates the ledger's tables nor tries to write to S3.
    """
    return preflight.check_services(_service_probes(services, spec, dry_run=dry_run))


def check_table(services: Services, spec: ArchiveSpec, *, purging: bool) -> list[Refusal]:
    """What the definition of the table and the settings of its server forbid."""
    with closing(services.source()) as conn:
        refusals = preflight.check_table(conn, spec, purging=purging)
        if purging:
            refusals += _check_purge(services, spec, conn)
    return refusals


def _service_probes(
    services: Services, spec: ArchiveSpec, *, dry_run: bool
) -> list[tuple[str, str, Callable[[], Any]]]:
    def source() -> None:
        with closing(services.source()) as conn:
            mysql.scalar(conn, "SELECT 1")

    def trino() -> None:
        with closing(services.trino()) as conn:
            verify.trino_rows(conn, f"SHOW SCHEMAS FROM {sql.ident_trino(services.trino_catalog)}")

    def ledger_schema() -> None:
        if not dry_run:
            services.migrate()
            return
        with closing(services.source()) as conn:
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
            with closing(lag_source) as lag_conn:
                lag = mysql.replica_lag_seconds(lag_conn)
        if lag is None:
            refusals.append(
                Refusal(
                    "lag", "replica lag cannot be seen, so the purge could not be slowed down",
                    "define mysql_replica (or purge.lag_connection), or state that no replica exists: purge.max_lag_s: null",
                )
            )  # fmt: skip
    return refusals


def settle_open_plan(
    services: Services,
    spec: ArchiveSpec,
    *,
    abandon_open: bool = False,
    adopt_server: str | None = None,
    accept_loss: str | None = None,
) -> Loss | None:
    """Before anything else looks at the table: finish an abandon that was begun or is asked for, and close a plan whose loss is accepted.

    The table need not exist any more. Returns what was lost, None when nothing was. Raises guardrails.Refused when `accept_loss` does not
    name the open plan, and StepError when the plan cannot be closed.
    """
    with closing(services.source()) as conn:
        book = Ledger(conn)
        plan = book.open_plan(spec.full_name)
        if accept_loss and (plan is None or plan.plan_id != accept_loss):
            return ending.accepted(services, book, accept_loss, spec.full_name)
        if plan is None or not (abandon_open or accept_loss or plan.state == "abandoning"):
            return None
        plan = _adopted(services, book, plan, adopt_server)
        if accept_loss:
            return ending.accept_loss(services, book, plan, give_up=abandon_open)
        ending.abandon(services, book, plan)
        return None


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

    `adopt_server` is the server_uuid that may go on where another server ended. Raises guardrails.Refused when the table's last plan was
    made on another server or is open under other rules (and `abandon_open` is false), when the spec has an open plan of another table,
    and when the lake holds rows of this spec that the ledger does not know.
    """
    if not dry_run:
        settle_open_plan(services, spec, abandon_open=abandon_open, adopt_server=adopt_server)
    with closing(services.source()) as conn, closing(services.reader()) as reader:
        if dry_run:
            return _new_plan(services, spec, run_after, conn, reader, dry_run=True)
        book = Ledger(conn)
        _assert_no_other_table(book, spec)
        newest = book.newest_plan(spec.full_name)
        notes = []
        if newest:
            before, newest = newest.server_uuid, _adopted(services, book, newest, adopt_server)
            if before != newest.server_uuid:
                notes.append(f"this server goes on where {before} ended")
        if newest is None or newest.state in ("done", "abandoned"):
            planned = _new_plan(services, spec, run_after, conn, reader, dry_run=False)
            return replace(planned, notes=notes + planned.notes)
        _assert_same_rules(newest, spec)
        return Planned(
            newest, True, newest.planned_rows, newest.planned_chunks, newest.predicate, [], None,
            [*notes, f"continues plan {newest.plan_id} of {newest.created_at:%Y-%m-%d %H:%M} UTC"],
        )  # fmt: skip


def _adopted(services: Services, book: Ledger, plan: Plan, adopt_server: str | None) -> Plan:
    """The plan, handed over to this server when `adopt_server` names it; refused when the plan belongs to another one."""
    here = mysql.read_server(book.conn).server_uuid
    if adopt_server == here != plan.server_uuid:
        book.adopt(plan.plan_id, here)
        note(services, book, plan.plan_id, "adopt", Moved(0, 0, 0.0, f"server {plan.server_uuid} -> {here}"))
        return book.plan(plan.plan_id)
    assert_own(book.conn, plan)
    return plan


def _assert_no_other_table(book: Ledger, spec: ArchiveSpec) -> None:
    """After a change of `schema` or `table` the old table's plan would stay open, with its rows in MySQL and in the lake."""
    for other in book.open_plans(spec.name):
        if other.source_table != spec.full_name:
            raise guardrails.Refused(
                f"spec {spec.name!r} is for {spec.full_name} now, but its plan {other.plan_id} of {other.source_table} is {other.state}:"
                f" set schema and table back to {other.source_table} and finish or abandon that plan first"
            )


def _assert_known_to_ledger(services: Services, book: Ledger, spec: ArchiveSpec, catalog: Catalog) -> None:
    """A clone, or a server restored from a backup, has rows again that another one (or its later self) moved to the lake already."""
    for name, _ in lake.generations(catalog, spec.target.namespace, spec.target_table):
        found = lake.plan_ids(catalog.load_table((spec.target.namespace, name)))
        mine = {plan_id for plan_id in found if re.fullmatch(rf"{re.escape(spec.name)}-\d{{8}}-[0-9a-f]{{8}}", plan_id)}
        if not (unknown := sorted(mine - book.known_plans(mine))):
            continue
        table = (services.trino_catalog, spec.target.namespace, name)
        column, listed = sql.ident_trino(exporting.PLAN_COLUMN), ", ".join(map(sql.lit_trino, unknown))
        where = f"FROM {sql.ident_trino(table)} WHERE {column} IN ({listed})"
        with closing(services.trino()) as trino:  # a file may be there of which every row was deleted
            rows = int(verify.trino_rows(trino, f"SELECT count(*) {where}")[0][0])
        if rows:
            raise guardrails.Refused(
                f"{'.'.join(table)} holds {rows} rows of {', '.join(unknown)}, which {ledger.SCHEMA} of this server does not know: a"
                " clone, or a server restored from a backup, would archive them once more. Restore the ledger, or point the spec at the"
                f" server that has it; only if these rows are in MySQL again, take them out of the lake: DELETE {where}"
            )


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
    if not dry_run:
        _assert_known_to_ledger(services, Ledger(conn), spec, catalog)
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
        with closing(services.trino()) as trino:
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
    with closing(services.source()) as conn:
        book = Ledger(conn)
        plan = _open(book, plan_id)
        chunks = book.chunks(plan_id, ["planned"], span)
        if not chunks:
            return Moved(0, 0, 0.0, "nothing left to export")
        _, key = _source_table(conn, plan)
        uri, s3 = lake.data_uri(services.catalog().load_table(plan.lake[1:])), services.s3()

        def one(chunk: ledger.Chunk) -> exporting.Exported | None:
            with (
                closing(services.reader()) as reader,
                closing(services.source()) as writer,
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
        note(services, book, plan_id, "export", moved)
    return moved


def publish_plan(services: Services, plan_id: str) -> Moved:
    """Commit every exported chunk's files to the Iceberg table; one committer a table."""
    began = time.monotonic()
    with closing(services.source()) as conn:
        book = Ledger(conn)
        plan = _open(book, plan_id)
        if unexported := book.chunks(plan_id, ["planned"]):
            raise StepError(
                f"{len(unexported)} chunks of {plan_id} are not exported; run the export again, then publish"
            )
        with committing(book, plan.lake_table):
            table = services.catalog().load_table(plan.lake[1:])
            lake.forbid_retries(table)
            # Again, and after the table was loaded: an abandon that begins later moves the table's head, and our commit fails.
            plan = _open(book, plan_id)
            waiting = [c.chunk_no for c in book.chunks(plan_id, ["exported"])]
            files = book.files(plan_id, waiting)
            # A chunk whose rows all vanished since the plan has no file and needs no commit.
            left = {n: sum(1 for f in files if f.chunk_no == n) for n in waiting}
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
                _open(book, plan_id)
            if left and not files:
                book.record_published(plan_id, list(left), lake.snapshot_id(table) if table.current_snapshot() else 0)
        moved = Moved(rows, size, time.monotonic() - began, f"{len(files)} files in {commits} commits")
        if waiting:
            note(services, book, plan_id, "publish", moved)
    return moved


def verify_group(services: Services, plan_id: str, span: tuple[int, int]) -> Moved:
    """Compare every batch of the published chunks of a group with what Trino reads; refuse and explain those that differ."""
    began = time.monotonic()
    rows = refused_batches = 0
    with closing(services.source()) as conn, closing(services.trino()) as trino:
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
        note(services, book, plan_id, "verify", moved)
    return moved


def purge_group(
    services: Services, spec: ArchiveSpec, plan_id: str, span: tuple[int, int], *, confirm: str | None
) -> tuple[Moved, Outcome]:
    """Delete the verified batches of a group, after every guardrail has said yes once more.

    Raises guardrails.Refused (confirmation, allow-list, approval, throttle) or StepError (archive not in place); rows that are not
    `done` in the ledger are then still in MySQL.
    """
    began = time.monotonic()
    with closing(services.source()) as conn:
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
        proof.assert_archived(services, book, plan, chunks)
        lag_source = services.lag_source() if spec.purge.max_lag_s is not None else None
        outcome = Outcome()
        with closing(services.source()) as watcher, closing(lag_source) as lag:
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
                with closing(services.source()) as fresh:  # the first connection may be the one that was lost
                    note(services, Ledger(fresh), plan_id, "purge", moved)
    return moved, outcome


def _purge_message(span: tuple[int, int], outcome: Outcome, brake: Brake) -> str:
    waits = "; ".join(f"{w.seconds:.0f} s: {', '.join(w.reasons)}" for w in brake.waited)
    return (
        f"chunks {span[0]}-{span[1]}: {outcome.batches} batches in {outcome.transactions} transactions,"
        f" {len(outcome.changed)} changed, {len(outcome.busy)} busy" + (f"; waited {waits}" if waits else "")
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
    warnings: list[str] = field(default_factory=list)
    """What a person should know, although nothing is wrong with the archive."""


def reconcile(services: Services, plan_id: str) -> Reconciled:
    """Close the plan when nothing of it is left to do, and compare source, lake and ledger. Repeating it is harmless."""
    with closing(services.source()) as conn, closing(services.trino()) as trino:
        book = Ledger(conn)
        plan = book.plan(plan_id)
        if plan.state in ("open", "abandoning"):
            assert_own(conn, plan)
        found = None
        if plan.state == "open" and ending.is_finished(book, plan_id):
            found = ending.settle(services, book, plan, giving_up=False)
            if found.whole:
                ending.close(services, book, plan, "done", found)
        elif plan.state in ("done", "abandoned"):
            found = proof.standing(services, book, plan)
        totals = book.batch_totals(plan_id)
        source_rows = int(
            mysql.scalar(conn, f"SELECT COUNT(*) FROM {sql.ident(plan.source)} WHERE {plan.predicate}") or 0
        )
        table = mysql.read_table(conn, *plan.source)
        if table is None:
            raise StepError(f"{plan.source_table} does not exist any more")
        sizes = book.sizes(plan_id)
        after = book.plan(plan_id)
        return Reconciled(
            plan=after, closed=after.state in ("done", "abandoned"), totals=totals, chunk_states=book.chunk_states(plan_id),
            lake_rows=found.rows if found else _lake_rows(services, trino, plan), source_rows=source_rows, table=table,
            file_bytes=sizes[0], wire_bytes=sizes[1], refused=book.refused_rows(plan_id), events=book.events(plan_id),
            problems=found.problems(plan) if found else [], warnings=_too_few(plan, totals, source_rows),
        )  # fmt: skip


def _lake_rows(services: Services, trino: TrinoConnection, plan: Plan) -> int:
    if lake.load(services.catalog(), plan.lake[1:]) is None:
        return 0
    statement = f"SELECT count(*) FROM {sql.ident_trino(plan.lake)} WHERE {lake.plan_filter(plan.plan_id)}"
    return int(verify.trino_rows(trino, statement)[0][0])


def _too_few(plan: Plan, totals: dict[str, dict[str, int]], source_rows: int) -> list[str]:
    """Rows that nobody purged and that are gone: nothing of the archive is wrong, but somebody should know. Only while the plan is open."""
    staying = sum(totals.get(s, {}).get("source_rows", 0) for s in ("refused", "verified", "exported"))
    if plan.state != "open" or source_rows >= staying:
        return []
    return [
        f"{staying} rows were not purged, of which {source_rows} are in {plan.source_table} still: others deleted or changed the rest"
    ]


def ask_approval(services: Services, plan_id: str) -> tuple[str, str]:
    """Forget an earlier approval and begin a new question; returns the digest to approve and what names this question.

    Whoever asks must be told by the answer to this question, not by one to an earlier question about the same digest.
    """
    with closing(services.source()) as conn:
        book = Ledger(conn)
        nonce = uuid.uuid4().hex
        book.withdraw_approval(plan_id, nonce)
        return book.verified_digest(plan_id), nonce


def reject(services: Services, plan_id: str) -> None:
    """Record a no, or no answer: the purge refuses, also after a yes that comes late."""
    with closing(services.source()) as conn:
        Ledger(conn).withdraw_approval(plan_id)


def approve(services: Services, plan_id: str, by: str, digest: str, nonce: str) -> None:
    """Record an approval of that digest, given to that question.

    Raises guardrails.Refused when the plan's digest is another one by now, or when somebody has asked again or said no since.
    """
    with closing(services.source()) as conn:
        book = Ledger(conn)
        if book.verified_digest(plan_id) != digest:
            raise guardrails.Refused(f"plan {plan_id} is no longer what {by} approved; approve it again")
        if not book.approve(plan_id, by, digest, nonce):
            raise guardrails.Refused(
                f"the approval of plan {plan_id} by {by} came too late: the question was asked again or answered with no since; approve"
                " the new question"
            )


def restore_rows(
    services: Services, spec: ArchiveSpec, selection: restoring.Selection, *, plan_id: str | None, suffix: str
) -> list[tuple[Plan, restoring.Restored]]:
    """Restore the selected rows of one plan, or of every plan of the spec that deleted rows, each into a scratch table of its own.

    Only rows that left MySQL are restored, whatever the state of the plan; the source table need not exist any more. The scratch table is
    ``<restore_schema>.<table>_<suffix>_<n>`` and is made anew when the step is repeated. Raises RestoreError.
    """
    with closing(services.source()) as conn, closing(services.trino()) as trino:
        book = Ledger(conn)
        plans = [book.plan(plan_id)] if plan_id else book.plans_with_deleted(spec.name)
        if not plans:
            raise restoring.RestoreError(f"spec {spec.name!r} has no plan that deleted rows: nothing to restore")
        if selection.chunks and len(plans) > 1:
            raise restoring.RestoreError("chunks are numbered within a plan; give plan_id as well")
        restored = []
        for number, plan in enumerate(plans, start=1):
            if plan.spec != spec.name:
                raise restoring.RestoreError(f"plan {plan.plan_id} belongs to spec {plan.spec!r}, not {spec.name!r}")
            done = [
                b for b in book.done_batches(plan.plan_id) if not selection.chunks or b.chunk_no in selection.chunks
            ]
            if not done:
                raise restoring.RestoreError(
                    f"plan {plan.plan_id} deleted no rows of this selection: nothing to restore"
                )
            proven = None if selection.column else ledger.joined(done)
            scratch = (spec.scratch_schema, restoring.scratch_name(spec.table, f"_{suffix}_{number}"))
            table = services.catalog().load_table(plan.lake[1:])
            # In a plan that is not closed the lake also has rows that are in MySQL.
            only = None if plan.state in ("done", "abandoned") else restoring.batch_ranges(done)
            restored.append((plan, restoring.restore(conn, trino, table, plan, scratch, selection, proven, only)))
        return restored


def _open(book: Ledger, plan_id: str) -> Plan:
    plan = book.plan(plan_id)
    if plan.state != "open":
        raise LedgerError(f"plan {plan_id} is {plan.state}; a new run makes a new plan")
    assert_own(book.conn, plan)
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
