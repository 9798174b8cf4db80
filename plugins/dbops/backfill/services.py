"""What every step of a backfill shares: how to reach its servers, and what it may write."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

from dbops.backfill.journal import Journal
from dbops.backfill.target import Pace, Target
from dbops.connections import closing
from dbops.keyvalue.views import View

if TYPE_CHECKING:
    import sqlalchemy as sa
    from MySQLdb.connections import Connection


class StepError(RuntimeError):
    """A step could not be finished; the message says what state it left."""


class OpenTarget(Protocol):
    """Opens the spec's store for the items of a view; the caller closes what it gets."""

    def __call__(
        self, view: View, *, threads: int, reads: Pace | None = None, pause: Callable[[float], object] | None = None
    ) -> Any:
        """A `target.Target` with ``close``.

        Args:
            view: whose items
            threads: requests under way at once
            reads: pace of the reads; None: nobody limits them
            pause: waits so many seconds before a write is sent again; ends early when the work is to stop
        """


@dataclass(frozen=True)
class Services:
    """How to reach what a run needs. Every function opens a new connection or client."""

    source: Callable[[], Connection]
    """The writer: autocommit, values decoded."""
    reader: Callable[[], Connection]
    """Where plan and copy read: the writer or a replica."""
    lag_source: Callable[[], Connection | None]
    """Where replica lag is seen; None when nowhere."""
    engine: Callable[[], sa.Engine]
    """Of the store."""
    target: OpenTarget
    aws: Callable[[str], Any]
    """A client of a service in the target's account."""
    region: str = ""
    """Of the target, for prices."""
    allowed: tuple[str, ...] = ()
    """Patterns of tables or prefixes that backfills may write, from the target's connection."""
    allowed_where: str = ""
    """Name of that list, for messages."""
    run: str = ""
    """dag_id/run_id."""

    @cached_property
    def pool(self) -> sa.Engine:
        """The engine of the store, one for all steps of this task."""
        return self.engine()

    @cached_property
    def journal(self) -> Journal:
        """The journal, migrated."""
        return Journal.open(self.pool)


@contextmanager
def opened(
    services: Services,
    view: View,
    *,
    threads: int,
    reads: Pace | None = None,
    pause: Callable[[float], object] | None = None,
) -> Iterator[Target]:
    """The store, for the items of a view."""
    with closing(services.target(view, threads=threads, reads=reads, pause=pause)) as target:
        yield target
