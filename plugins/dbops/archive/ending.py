"""The end of a plan: take out of the lake what stayed in MySQL, prove that the rest is there, and close it; or accept that it is not.

A plan closes when the lake holds exactly the rows that MySQL deleted, by checksum. An abandon is the same with more to take out. Every
part may be repeated: a killed close is finished by the next run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from dbops import guardrails, sql
from dbops.archive import export as exporting
from dbops.archive import lake, ledger, manifest, proof, verify
from dbops.archive.ledger import Chunk, Ledger, Plan
from dbops.archive.proof import CHUNKS_PER_QUERY, Standing
from dbops.archive.services import Moved, Services, StepError, committing, note
from dbops.connections import closing

if TYPE_CHECKING:
    from pyiceberg.table import Table as IcebergTable
    from trino.dbapi import Connection as TrinoConnection

# Batches in these states are taken out of the lake: of a plan that was worked off, and of one that is given up.
_STAYED = ("refused", "changed")
_UNPURGED = ("exported", "verified", *_STAYED)
LOSS = "loss"
"""Stage of the events that record what was lost."""


@dataclass(frozen=True)
class Loss:
    """A plan that was closed although purged rows of it are lost: what is missing, and the key range of each chunk."""

    plan: Plan
    standing: Standing
    chunks: list[Chunk]


def is_finished(book: Ledger, plan_id: str) -> bool:
    """Whether nothing is left to export, publish, verify or purge."""
    totals = book.batch_totals(plan_id)
    waiting = sum(totals.get(state, {}).get("batches", 0) for state in ("exported", "verified"))
    return set(book.chunk_states(plan_id)) <= {"verified"} and waiting == 0


def abandon(services: Services, book: Ledger, plan: Plan, *, accept_loss: bool = False) -> Standing:
    """Take out of the lake what did not leave MySQL, prove that, and close the plan; a repeat goes on where it ended.

    Raises StepError when the lake does not hold exactly what MySQL deleted; with `accept_loss` only when it holds more.
    """
    book.begin_abandon(plan.plan_id)
    found = settle(services, book, plan, giving_up=True, accept_loss=accept_loss)
    if not (found.whole or (accept_loss and found.lossy)):
        raise StepError(f"plan {plan.plan_id} stays `abandoning`: " + "; ".join(found.problems(plan)))
    close(services, book, plan, "abandoned", found)
    return found


def settle(services: Services, book: Ledger, plan: Plan, *, giving_up: bool, accept_loss: bool = False) -> Standing:
    """Take the batches that stay in MySQL out of the lake, and say how the plan stands then. Closes nothing.

    Files first: Trino cannot delete rows of a file that it cannot read, and what it has in its cache is no proof. Where one is broken,
    nothing is taken out, unless no purged row can be in it or `accept_loss` says to give it up.
    """
    table = lake.load(services.catalog(), plan.lake[1:])
    if table is not None:
        broken = proof.broken_files(services, book, plan, table)
        done = book.done_checksums(plan.plan_id)
        if broken and (accept_loss or not done):
            _give_up(services, book, plan, broken, LOSS if done else "drop")
        elif broken:
            readable = sum(c.n for n, c in done.items() if n not in {file.chunk_no for file in broken})
            return Standing(readable, sum(c.n for c in done.values()), broken=tuple(broken))
        withdraw(services, book, plan, giving_up=giving_up)
    return proof.standing(services, book, plan)


def close(services: Services, book: Ledger, plan: Plan, state: str, found: Standing) -> None:
    """Delete left-over objects, write the manifest, record an accepted loss, and mark the plan `state`."""
    table = lake.load(services.catalog(), plan.lake[1:])
    if table is not None:
        sweep(services, book, plan, table)
    if found.deleted or state == "done":
        write_manifest(services, book, plan, found)
    if not found.whole:
        _note_once(services, book, plan, LOSS, f"{found.loss()}; accepted")
    book.close_plan(plan.plan_id, state)


def accept_loss(services: Services, book: Ledger, plan: Plan, *, give_up: bool) -> Loss | None:
    """Close a plan that is abandoning (or, with `give_up`, open) or finished, although purged rows of it are missing or unreadable.

    None when nothing turns out to be lost; the plan is closed then as well. Raises guardrails.Refused, and StepError when the lake holds
    more than was purged.
    """
    if give_up or plan.state == "abandoning":
        found = abandon(services, book, plan, accept_loss=True)
    elif is_finished(book, plan.plan_id):
        found = settle(services, book, plan, giving_up=False, accept_loss=True)
        if not (found.whole or found.lossy):
            raise StepError(f"plan {plan.plan_id} stays open: " + "; ".join(found.problems(plan)))
        close(services, book, plan, "done", found)
    else:
        raise guardrails.Refused(
            f"accept_loss is {plan.plan_id}, which is open and unfinished; set abandon_open_plan: true as well to give it up, or let it"
            " finish first"
        )
    return None if found.whole else _loss(book, plan.plan_id, found)


def accepted(services: Services, book: Ledger, plan_id: str, source_table: str) -> Loss:
    """The loss that this very run accepted before it was killed. Raises guardrails.Refused for any other plan."""
    plan = book.plan(plan_id)
    mine = any(e.stage == LOSS and e.run == services.run for e in book.events(plan_id))
    if plan.source_table != source_table or plan.state not in ("done", "abandoned") or not mine:
        raise guardrails.Refused(
            f"accept_loss is {plan_id!r}, a plan of {plan.source_table} that is {plan.state}; it must name the open plan of"
            f" {source_table}. Leave it empty to go on"
        )
    return _loss(book, plan_id, proof.standing(services, book, plan))


def _loss(book: Ledger, plan_id: str, found: Standing) -> Loss:
    return Loss(book.plan(plan_id), found, book.chunks(plan_id))


def _note_once(services: Services, book: Ledger, plan: Plan, stage: str, message: str) -> None:
    if not any(e.stage == stage and e.message == message[:2000] for e in book.events(plan.plan_id)):
        note(services, book, plan.plan_id, stage, Moved(0, 0, 0.0, message))


def _give_up(services: Services, book: Ledger, plan: Plan, broken: Sequence[proof.Broken], stage: str) -> None:
    """Take files that cannot be read out of the table. Raises StepError when one may hold rows of another plan."""
    for file in broken:
        if not file.alone:
            raise StepError(
                f"{file}, and may hold rows of other plans than {plan.plan_id}, because somebody rewrote it: restore the object; it is"
                " not given up with this plan"
            )
    with committing(book, plan.lake_table):
        table = services.catalog().load_table(plan.lake[1:])
        lake.drop_files(table, {file.uri for file in broken}, _properties(services, plan))
    for file in broken:
        _note_once(services, book, plan, stage, f"{file}; taken out of the table")


def withdraw(services: Services, book: Ledger, plan: Plan, *, giving_up: bool) -> int:
    """Remove from the lake the batches whose rows did not leave MySQL, so that no row is in both; returns how many.

    Whole chunks go as files, which are not read: their objects may be lost or damaged. What is left of them, because somebody rewrote
    the files (Trino's ``optimize``), and chunks of which some rows were purged go row by row, as a DELETE in Trino. All under the commit
    lock, and harmless to repeat.
    """
    stay = _UNPURGED if giving_up else _STAYED
    unfinished = {s: pairs for s, pairs in book.unfinished(plan.plan_id).items() if s in stay}
    states = {c.chunk_no: c.state for c in book.chunks(plan.plan_id)}
    by_chunk: dict[int, list[int]] = {}
    for chunk_no, batch_no in sorted(pair for pairs in unfinished.values() for pair in pairs):
        by_chunk.setdefault(chunk_no, []).append(batch_no)
    purged = {n for n in by_chunk if book.batches(plan.plan_id, n, ["done"])}
    with committing(book, plan.lake_table), closing(services.trino()) as trino:
        table = services.catalog().load_table(plan.lake[1:])
        if giving_up:
            # A publisher that lost the commit lock with its session may still be about to commit files of this plan: not any more.
            lake.fence(table, _properties(services, plan))
        # A chunk that the ledger still calls exported may be published already (killed between the two).
        whole = [n for n in by_chunk if n not in purged and states[n] != "planned"]
        if whole:
            uris = {f.uri for f in book.files(plan.plan_id, whole)}
            lake.drop_files(table, uris, _properties(services, plan))
            _delete_rest(trino, plan, whole)
        conditions = [
            f'({lake.chunk_filter(plan.plan_id, [n])} AND "{exporting.BATCH_COLUMN}" IN ({", ".join(map(str, by_chunk[n]))}))'
            for n in by_chunk if n in purged
        ]  # fmt: skip
        for start in range(0, len(conditions), CHUNKS_PER_QUERY):
            where = " OR ".join(conditions[start : start + CHUNKS_PER_QUERY])
            verify.trino_rows(trino, f"DELETE FROM {sql.ident_trino(plan.lake)} WHERE {where}")
    return sum(map(len, by_chunk.values()))


def _delete_rest(trino: TrinoConnection, plan: Plan, chunk_nos: Sequence[int]) -> None:
    for start in range(0, len(chunk_nos), CHUNKS_PER_QUERY):
        where = lake.chunk_filter(plan.plan_id, chunk_nos[start : start + CHUNKS_PER_QUERY])
        counted = verify.trino_rows(trino, f"SELECT count(*) FROM {sql.ident_trino(plan.lake)} WHERE {where}")
        if counted[0][0]:
            verify.trino_rows(trino, f"DELETE FROM {sql.ident_trino(plan.lake)} WHERE {where}")


def _properties(services: Services, plan: Plan) -> dict[str, str]:
    return {"dbops.plan": plan.plan_id, "dbops.run": services.run}


def write_manifest(services: Services, book: Ledger, plan: Plan, found: Standing) -> None:
    """Write the manifest of what was deleted and proven, and of what of it is lost, unless it is there."""
    proven = book.done_checksums(plan.plan_id)
    files = book.files(plan.plan_id, sorted(proven))
    content = manifest.document(plan, files, proven, ledger.utcnow().isoformat() + "Z", lost=found.loss())
    target = manifest.uri(str(services.catalog().properties["warehouse"]), plan)
    if manifest.write(services.s3(), target, content):
        note(services, book, plan.plan_id, "manifest", Moved(0, 0, 0.0, target))


def sweep(services: Services, book: Ledger, plan: Plan, table: IcebergTable) -> int:
    """Delete the plan's objects that a killed export left behind; returns how many.

    Every object of a plan lies under a prefix of its own. What the ledger records or the table refers to stays.
    """
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
        note(services, book, plan.plan_id, "sweep", Moved(0, 0, 0.0, f"{swept} objects of killed exports deleted"))
    return swept
