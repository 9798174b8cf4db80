"""What every step of an archive run shares: how to reach its servers, how to say what it moved, and which plan is its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dbops import guardrails, mysql
from dbops.archive.ledger import Event, Ledger, Plan

if TYPE_CHECKING:
    from MySQLdb.connections import Connection
    from pyiceberg.catalog import Catalog
    from trino.dbapi import Connection as TrinoConnection

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
class Moved:
    """Rows and bytes that a step moved, in how many seconds."""

    rows: int
    bytes: int
    seconds: float
    message: str = ""


def note(services: Services, book: Ledger, plan_id: str, stage: str, moved: Moved) -> None:
    """Append a finished step to the plan's events."""
    book.note(plan_id, Event(stage, moved.seconds, moved.rows, moved.bytes, moved.message, services.run))


def assert_own(conn: Connection, plan: Plan) -> None:
    """Raise guardrails.Refused when another server made the plan.

    A clone has the ledger's open plan too, and would take the original's rows out of the lake that both refer to.
    """
    here = mysql.read_server(conn).server_uuid
    if here != plan.server_uuid:
        raise guardrails.Refused(
            f"plan {plan.plan_id} was made on server {plan.server_uuid}, this is {here}: a clone, or the writer after a failover."
            f" Nothing was changed. Only if the other server is gone for good: run once with adopt_server: {here}"
        )


@contextmanager
def committing(book: Ledger, lake_table: str) -> Iterator[None]:
    """Be the only committer of a lake table among the runs of this server. Raises StepError after COMMIT_WAIT_S.

    The lock ends with the session that holds it, unnoticed: what is committed under it must also fail on a head that has moved.
    """
    with book.exclusive(f"commit:{lake_table}", COMMIT_WAIT_S) as mine:
        if not mine:
            raise StepError(f"another run has been committing to {lake_table} for {COMMIT_WAIT_S} s; try again")
        yield
