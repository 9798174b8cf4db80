"""Trials, analyses and alarms in the store: tables ``inventory_trial``, ``inventory_analysis`` and ``inventory_alarm``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from dbops.inventory.stored import insert_new
from dbops.inventory.trials import Key, Trial

_trial = sa.table(
    "inventory_trial", *map(sa.column, ("spec", "fingerprint", "schema_name", "target")), sa.column("tried_at", sa.DateTime()),
    sa.column("plan", sa.JSON(none_as_null=True)), sa.column("findings", sa.JSON()),
)  # fmt: skip
_analysis = sa.table(
    "inventory_analysis",
    sa.column("spec"),
    sa.column("run"),
    sa.column("until", sa.DateTime()),
    sa.column("document", sa.JSON()),
)

_alarm = sa.table(
    "inventory_alarm", *map(sa.column, ("spec", "fingerprint", "schema_name", "table_name", "run")), sa.column("until", sa.DateTime())
)  # fmt: skip

Alarm = tuple[str, str, str]
"""(fingerprint, default schema or '', table that it writes)."""


LOG_ONLY = " (log)"
"""End of the target of trials that a log's texts had between two full snapshots: they have no plan."""


class Results:
    """Reads and writes them; :meth:`dbops.inventory.history.History.migrate` makes the tables."""

    def __init__(self, engine: sa.Engine) -> None:
        self.engine = engine

    def add_trials(self, spec: str, at: datetime, target: str, trials: Mapping[Key, Trial]) -> None:
        """Add what was tried at that moment, with the version of the 8.0 server that was asked ('' = rules only)."""
        rows = [
            {
                "spec": spec,
                "fingerprint": print_,
                "schema_name": schema,
                "tried_at": at,
                "target": target,
                **trial.document(),
            }
            for (print_, schema), trial in trials.items()
        ]
        if rows:
            with self.engine.begin() as connection:
                connection.execute(sa.insert(_trial), rows)

    def tried(self, spec: str, since: datetime, target: str) -> set[Key]:
        """Statements that were tried after that moment against that server: a plan and a verdict get old."""
        query = sa.select(_trial.c.fingerprint, _trial.c.schema_name).where(
            _trial.c.spec == spec, _trial.c.tried_at > since, _trial.c.target == target
        )
        with self.engine.connect() as connection:
            return {(row.fingerprint, row.schema_name) for row in connection.execute(query)}

    def trials(self, spec: str) -> dict[Key, Trial]:
        """The newest trial of every statement, with the plan of the last that looked for one."""
        query = sa.select(_trial).where(_trial.c.spec == spec).order_by(_trial.c.tried_at)
        with self.engine.connect() as connection:
            rows = connection.execute(query).mappings().all()
        found: dict[Key, Trial] = {}
        for row in rows:
            key, trial = (row["fingerprint"], row["schema_name"]), Trial.of(row["plan"], row["findings"])
            if row["target"].endswith(LOG_ONLY) and key in found:
                trial = replace(trial, plan=found[key].plan)
            found[key] = trial
        return found

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

    def alarmed(self, spec: str) -> set[Alarm]:
        """New writes that somebody was told of."""
        query = sa.select(_alarm.c.fingerprint, _alarm.c.schema_name, _alarm.c.table_name).where(_alarm.c.spec == spec)
        with self.engine.connect() as connection:
            return {(row.fingerprint, row.schema_name, row.table_name) for row in connection.execute(query)}

    def add_alarmed(self, spec: str, run: str, until: datetime, alarms: Iterable[Alarm]) -> None:
        """Remember of what a run told somebody; what is remembered stays as it is."""
        names = ("fingerprint", "schema_name", "table_name")
        rows = [{"spec": spec, "run": run, "until": until, **dict(zip(names, a, strict=True))} for a in sorted(alarms)]
        with self.engine.begin() as connection:
            insert_new(connection, _alarm, rows)
