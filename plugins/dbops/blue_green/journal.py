"""The journal of rehearsals in the store (tables ``rehearsal*``): a task that is repeated goes on from it, and the report is made of it.

A step writes one document, whole; writing it again replaces it. Figures stay, so that a rehearsal can be compared with those before it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from dbops import store

MIGRATIONS = Path(__file__).parent / "migrations"
VERSION_TABLE = "dbops_blue_green_version"

_rehearsal = sa.table("rehearsal", *map(sa.column, ("rehearsal", "spec", "run")), sa.column("began_at", sa.DateTime))
_step = sa.table(
    "rehearsal_step", *map(sa.column, ("rehearsal", "step")), sa.column("written_at", sa.DateTime), sa.column("document", sa.JSON)
)  # fmt: skip
_phase = sa.table("rehearsal_phase", sa.column("rehearsal"), sa.column("began_at", sa.DateTime), sa.column("phase"))
_figure = sa.table("rehearsal_figure", *map(sa.column, ("rehearsal", "figure", "value")))


@dataclass(frozen=True)
class Rehearsal:
    """One rehearsal: ``name`` is unique and begins its AWS identifiers; ``run`` is ``dag_id/run_id``; ``began_at`` is naive UTC."""

    name: str
    spec: str
    run: str
    began_at: datetime


class JournalError(RuntimeError):
    """The journal lacks what a step needs, or has it otherwise."""


class Journal:
    """Reads and writes the journal of one rehearsal. Every time is naive UTC. Instances are cheap; the engine pools the connections."""

    def __init__(self, engine: sa.Engine, rehearsal: str) -> None:
        self.engine, self.rehearsal = engine, rehearsal

    def begin(self, spec: str, run: str, at: datetime) -> Rehearsal:
        """Enter the rehearsal; when it is there already (a repeated task), as it is.

        Raises:
            JournalError: another run has begun a rehearsal of this name
        """
        store.migrate(self.engine, MIGRATIONS, VERSION_TABLE)
        with self.engine.begin() as connection:
            found = self._begun(connection)
            if found is None:
                connection.execute(
                    sa.insert(_rehearsal).values(rehearsal=self.rehearsal, spec=spec, run=run, began_at=at)
                )
                found = Rehearsal(self.rehearsal, spec, run, at)
        if found.run != run:
            raise JournalError(f"rehearsal {self.rehearsal} belongs to {found.run}, not to {run}")
        return found

    def begun(self) -> Rehearsal:
        """The rehearsal. Raises JournalError when it never began."""
        with self.engine.connect() as connection:
            found = self._begun(connection)
        if found is None:
            raise JournalError(f"rehearsal {self.rehearsal} is not in the store; its first task did not end")
        return found

    def _begun(self, connection: sa.Connection) -> Rehearsal | None:
        row = connection.execute(sa.select(_rehearsal).where(_rehearsal.c.rehearsal == self.rehearsal)).one_or_none()
        return None if row is None else Rehearsal(row.rehearsal, row.spec, row.run, row.began_at)

    def put(self, step: str, document: Mapping[str, Any], at: datetime) -> None:
        """Keep what a step found; a document that is there is replaced."""
        key = (_step.c.rehearsal == self.rehearsal) & (_step.c.step == step)
        with self.engine.begin() as connection:
            connection.execute(sa.delete(_step).where(key))
            connection.execute(
                sa.insert(_step).values(rehearsal=self.rehearsal, step=step, written_at=at, document=dict(document))
            )

    def get(self, step: str) -> dict[str, Any] | None:
        """What the step found, or None when it has not ended."""
        return self.steps().get(step)

    def require(self, step: str) -> dict[str, Any]:
        """The same. Raises JournalError when it has not ended."""
        if (found := self.get(step)) is None:
            raise JournalError(f"rehearsal {self.rehearsal}: step {step} has left nothing; clear its task first")
        return found

    def steps(self) -> dict[str, dict[str, Any]]:
        """Every step's document by its name, in the order in which they were written."""
        query = sa.select(_step.c.step, _step.c.document).where(_step.c.rehearsal == self.rehearsal)
        with self.engine.connect() as connection:
            rows = connection.execute(query.order_by(_step.c.written_at, _step.c.step)).all()
        return {row.step: row.document for row in rows}

    def enter(self, phase: str, at: datetime) -> None:
        """Note that a phase begins."""
        with self.engine.begin() as connection:
            connection.execute(sa.insert(_phase).values(rehearsal=self.rehearsal, began_at=at, phase=phase))

    def phases(self) -> list[tuple[datetime, str]]:
        """(when it began, name) of every phase, in order."""
        query = sa.select(_phase.c.began_at, _phase.c.phase).where(_phase.c.rehearsal == self.rehearsal)
        with self.engine.connect() as connection:
            return [(row.began_at, row.phase) for row in connection.execute(query.order_by(_phase.c.began_at))]

    def keep_figures(self, figures: Mapping[str, float]) -> None:
        """Replace the figures of this rehearsal."""
        with self.engine.begin() as connection:
            connection.execute(sa.delete(_figure).where(_figure.c.rehearsal == self.rehearsal))
            if figures:
                rows = [
                    {"rehearsal": self.rehearsal, "figure": name, "value": value} for name, value in figures.items()
                ]
                connection.execute(sa.insert(_figure), rows)

    def past(self, spec: str) -> dict[str, list[float]]:
        """Figures of every rehearsal of the spec that began before this one, oldest first."""
        query = (
            sa.select(_figure.c.figure, _figure.c.value)
            .join(_rehearsal, _rehearsal.c.rehearsal == _figure.c.rehearsal)
            .where(_rehearsal.c.spec == spec, _rehearsal.c.began_at < self.begun().began_at)
            .order_by(_rehearsal.c.began_at)
        )
        found: dict[str, list[float]] = {}
        with self.engine.connect() as connection:
            for name, value in connection.execute(query):
                found.setdefault(name, []).append(value)
        return found
