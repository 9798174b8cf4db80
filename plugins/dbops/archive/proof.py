"""Is what was archived still as it was proven? Files by their objects in S3, rows by the checksums that Trino reads now.

Others may write to the lake table between verify and purge, and between purge and close: a DELETE, an UPDATE, a dropped column, a
rolled-back snapshot, a lost object. So the purge asks again before its first DELETE, and a plan closes only on the answer.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from dbops.archive import lake, verify
from dbops.archive.checksum import Checksum, total
from dbops.archive.ledger import Ledger, Plan
from dbops.archive.services import Services, StepError
from dbops.connections import closing

if TYPE_CHECKING:
    from pyiceberg.table import Table as IcebergTable

# Chunks that one Trino query looks at: bounds both its result (a row a batch) and what a lost Trino costs.
CHUNKS_PER_QUERY = 50
_HEADS = 8


@dataclass(frozen=True)
class Broken:
    """A data file whose object is lost or damaged. `alone`: it holds rows of no other plan; `chunk_no` where the ledger knows it."""

    uri: str
    problem: str
    alone: bool
    chunk_no: int | None = None

    def __str__(self) -> str:
        of_chunk = "" if self.chunk_no is None else f" of chunk {self.chunk_no}"
        return f"file {self.uri}{of_chunk} {self.problem}"


@dataclass(frozen=True)
class Standing:
    """What the lake holds of a plan, against the rows that left MySQL; rows a chunk."""

    rows: int
    deleted: int
    extra: dict[int, int] = field(default_factory=dict)
    missing: dict[int, int] = field(default_factory=dict)
    changed: dict[int, int] = field(default_factory=dict)
    """Chunks with as many rows as were deleted, but other values."""
    broken: tuple[Broken, ...] = ()

    @property
    def whole(self) -> bool:
        """The lake holds exactly the rows that MySQL deleted."""
        return not (self.extra or self.missing or self.changed or self.broken)

    @property
    def lossy(self) -> bool:
        """Purged rows are missing or no longer what they were, and nothing else is wrong: what a person may accept."""
        return bool(self.missing or self.changed) and not (self.extra or self.broken)

    def loss(self) -> str:
        """The missing and the changed rows, by chunk."""
        parts = (
            [f"{sum(self.missing.values())} purged rows are missing, by chunk {self.missing}"] if self.missing else []
        )
        if self.changed:
            parts.append(
                f"chunks {sorted(self.changed)} have other values than the {sum(self.changed.values())} rows that were purged"
            )
        return "; ".join(parts)

    def problems(self, plan: Plan) -> list[str]:
        """What is wrong, one sentence each, and what may be done about it."""
        gone = f"if they are gone for good, run once with accept_loss: {plan.plan_id}"
        found = [f"{file}: restore the object; {gone}" for file in self.broken]
        if self.extra:
            safe = "" if self.missing or self.changed else "no row is lost; "
            found.append(
                f"{plan.lake_table} holds {self.rows} rows of it, MySQL deleted {self.deleted}, too many by chunk {self.extra}:"
                f" {safe}find who else writes to the table and remove them, then run again"
            )
        if self.missing:
            found.append(
                f"{sum(self.missing.values())} purged rows are missing from {plan.lake_table}, by chunk {self.missing}: if a snapshot was"
                f" rolled back, roll it forward before it expires; {gone}"
            )
        if self.changed:
            found.append(
                f"purged rows have other values in {plan.lake_table} than when they were deleted, in chunks {sorted(self.changed)}: roll"
                f" back what changed them; {gone}"
            )
        return found


def assert_archived(services: Services, book: Ledger, plan: Plan, chunk_nos: Sequence[int]) -> None:
    """What the chunks' verified batches were proven by is still there. Raises StepError.

    Files: in the current snapshot, the objects with the recorded length and SHA-256. Rows: what Trino reads at the current snapshot and
    schema. Both, because Trino may answer from its cache when an object is gone, and an object tells nothing of a later DELETE.
    """
    table = services.catalog().load_table(plan.lake[1:])
    present = lake.referenced(table, plan.plan_id)
    files = book.files(plan.plan_id, chunk_nos)
    problems = _object_problems(services.s3(), [(f.uri, f.file_bytes, f.sha256) for f in files if f.uri in present])
    advice = (
        f"nothing was deleted from {plan.source_table} in this step. Restore the object or the snapshot, or give the plan up:"
        f" abandon_open_plan: true (and accept_loss: {plan.plan_id}, if rows that were purged already are lost with it)"
    )
    for file in files:
        problem = problems.get(file.uri) if file.uri in present else "is not in the current snapshot"
        if problem:
            raise StepError(f"file {file.uri} of chunk {file.chunk_no} {problem}; {advice}")
    with closing(services.trino()) as trino:
        for start in range(0, len(chunk_nos), CHUNKS_PER_QUERY):
            numbers = chunk_nos[start : start + CHUNKS_PER_QUERY]
            try:
                found = verify.lake_checksums(trino, plan, plan.lake, numbers, None)
            except verify.ColumnGone as error:
                raise StepError(f"{plan.lake_table} lost a column of the plan ({error}); {advice}") from error
            for number in numbers:
                for batch in book.batches(plan.plan_id, number, ["verified"]):
                    if found.get((number, batch.batch_no)) != batch.lake:
                        raise StepError(
                            f"batch {batch.batch_no} of chunk {number} is no longer in {plan.lake_table} as it was verified; {advice}"
                        )


def broken_files(services: Services, book: Ledger, plan: Plan, table: IcebergTable) -> list[Broken]:
    """Files of the current snapshot that may hold purged rows of the plan and whose object is lost or damaged.

    A file that somebody rewrote has no recorded SHA-256; its length must be what the snapshot says. Raises StepError when S3 does not say.
    """
    done = book.done_checksums(plan.plan_id)
    recorded = {f.uri: f for f in book.files(plan.plan_id, [c.chunk_no for c in book.chunks(plan.plan_id)])}
    held = [f for f in lake.held(table, plan.plan_id) if f.uri not in recorded or recorded[f.uri].chunk_no in done]
    asked: list[tuple[str, int, str | None]] = []
    for file in held:
        asked.append((file.uri, file.file_bytes, recorded[file.uri].sha256 if file.uri in recorded else None))
        asked += [(uri, size, None) for uri, size in file.deletes]
    problems = _object_problems(services.s3(), asked)
    broken = []
    for file in held:
        of_deletes = (f"has a delete file {uri} that {problems[uri]}" for uri, _ in file.deletes if uri in problems)
        if problem := problems.get(file.uri) or next(of_deletes, None):
            chunk_no = recorded[file.uri].chunk_no if file.uri in recorded else None
            broken.append(Broken(file.uri, problem, file.alone or file.uri in recorded, chunk_no))
    return broken


def standing(services: Services, book: Ledger, plan: Plan) -> Standing:
    """What Trino reads of the plan now, against the checksums of the rows that were deleted."""
    done = book.done_checksums(plan.plan_id)
    if lake.load(services.catalog(), plan.lake[1:]) is None:
        return compare(done, {})
    with closing(services.trino()) as trino:
        return compare(done, verify.plan_checksums(trino, plan))


def compare(done: Mapping[int, Checksum], found: Mapping[int, Checksum]) -> Standing:
    """The standing of a plan whose deleted rows are `done`, and of which the lake gives `found`; both a chunk."""
    extra, missing, changed = {}, {}, {}
    for number in sorted(done.keys() | found.keys()):
        left, there = done.get(number, Checksum()), found.get(number, Checksum())
        if there.n > left.n:
            extra[number] = there.n - left.n
        elif there.n < left.n:
            missing[number] = left.n - there.n
        elif there != left:
            changed[number] = left.n
    return Standing(total(found.values()).n, total(done.values()).n, extra, missing, changed)


def _object_problems(s3: Any, files: Sequence[tuple[str, int, str | None]]) -> dict[str, str]:
    """{URI: what is wrong} of the objects that are lost, or have another length or (where one is given) SHA-256."""
    with ThreadPoolExecutor(max_workers=_HEADS, thread_name_prefix="head") as pool:
        answers = pool.map(lambda file: _object_problem(s3, *file), files)
        return {file[0]: problem for file, problem in zip(files, answers, strict=True) if problem}


def _object_problem(s3: Any, uri: str, size: int, sha256: str | None) -> str | None:
    where = urlsplit(uri)
    name = {"Bucket": where.netloc, "Key": where.path.lstrip("/")}
    try:
        head = s3.head_object(**name, ChecksumMode="ENABLED")
        if head["ContentLength"] != size:
            return f"has {head['ContentLength']} bytes instead of {size}: another length than the exported file"
        if sha256 is None:
            return None
        stored = head.get("ChecksumSHA256")
        # An object that was copied back by other hands may have no checksum of its own.
        found = base64.b64decode(stored).hex() if stored else _sha256(s3.get_object(**name)["Body"])
    except s3.exceptions.ClientError as error:
        if error.response["Error"]["Code"] in ("404", "NoSuchKey", "NotFound"):
            return "cannot be read: the object does not exist"
        # Overload or a missing permission says nothing about the object.
        raise StepError(f"object {uri} cannot be read at present: {error}; nothing was deleted, try again") from error
    return None if found == sha256 else "has another SHA-256 than the exported file"


def _sha256(body: Any) -> str:
    digest = hashlib.sha256()
    for part in body.iter_chunks(1024**2):
        digest.update(part)
    return digest.hexdigest()
