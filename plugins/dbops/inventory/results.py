"""Trials and analyses in the store: tables ``inventory_trial`` and ``inventory_analysis``."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from dbops.inventory.trials import Key, Trial

_trial = sa.table(
    "inventory_trial", *map(sa.column, ("spec", "fingerprint", "schema_name")), sa.column("tried_at", sa.DateTime()),
    sa.column("plan", sa.JSON(none_as_null=True)), sa.column("findings", sa.JSON()),
)  # fmt: skip
_analysis = sa.table(
    "inventory_analysis",
    sa.column("spec"),
    sa.column("run"),
    sa.column("until", sa.DateTime()),
    sa.column("document", sa.JSON()),
)


class Results:
    """Reads and writes them; :meth:`dbops.inventory.history.History.migrate` makes the tables."""

    def __init__(self, engine: sa.Engine) -> None:
        self.engine = engine

    def add_trials(self, spec: str, at: datetime, trials: Mapping[Key, Trial]) -> None:
        """Add what was tried at that moment."""
        rows = [
            {"spec": spec, "fingerprint": print_, "schema_name": schema, "tried_at": at, **trial.document()}
            for (print_, schema), trial in trials.items()
        ]
        if rows:
            with self.engine.begin() as connection:
                connection.execute(sa.insert(_trial), rows)

    def trials(self, spec: str, since: datetime | None = None) -> dict[Key, Trial]:
        """The newest trial of every statement, of those after `since` when it is given."""
        query = sa.select(_trial).where(_trial.c.spec == spec).order_by(_trial.c.tried_at)
        if since is not None:
            query = query.where(_trial.c.tried_at > since)
        with self.engine.connect() as connection:
            rows = connection.execute(query).mappings().all()
        return {(row["fingerprint"], row["schema_name"]): Trial.of(row["plan"], row["findings"]) for row in rows}

    def save_analysis(self, spec: str, run: str, until: datetime, document: Mapping[str, Any]) -> None:
        """Keep what a run concluded; the same run again replaces it."""
        with self.engine.begin() as connection:
            connection.execute(sa.delete(_analysis).where(_analysis.c.spec == spec, _analysis.c.run == run))
            connection.execute(
                sa.insert(_analysis), [{"spec": spec, "run": run, "until": until, "document": dict(document)}]
            )

    def analysis_before(self, spec: str, run: str, until: datetime) -> tuple[datetime, dict[str, Any]] | None:
        """(end of its window, document) of the last analysis by another run whose window ended before that moment."""
        query = (
            sa.select(_analysis.c.until, _analysis.c.document)
            .where(_analysis.c.spec == spec, _analysis.c.run != run, _analysis.c.until < until)
            .order_by(_analysis.c.until.desc())
            .limit(1)
        )
        with self.engine.connect() as connection:
            row = connection.execute(query).first()
        return (row.until, dict(row.document)) if row else None
