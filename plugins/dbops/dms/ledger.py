"""The ledger of DMS tasks in the store (tables ``dms_*``): what was decided and why, and all that a killed run goes on from.

Every method may be repeated, and two runs may call it at the same time: a row is entered once under a key that says what it is, and
what changes is changed by one conditional statement. Times are kept as naive UTC; those that are given may have a zone, those that are
given back have UTC. Events, reasons and comparisons are masked before they are kept, because the messages of DMS may quote a login. Plans
and steps are kept as they are, since a run goes on from them: they name secrets by ARN only.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

import sqlalchemy as sa
import tenacity

from dbops import store
from dbops.alerting import mask
from dbops.dms.mappings import Table
from dbops.dms.states import TableStatistics, Task
from dbops.store import aware, is_duplicate, kept_text, naive

MIGRATIONS = Path(__file__).parent / "migrations"
VERSION_TABLE = "dbops_dms_version"
MAX_RESTARTS = 200
"""So many restarts are looked back at; more than a spec can allow."""
QUIET = timedelta(hours=1)
"""So long a table has to have gone without a failure, before a finished load ends its row of failures."""
PLANS_KEPT, EVENTS_KEPT = timedelta(days=14), timedelta(days=90)
"""A run every ten minutes over many specs keeps a plan of each, which nobody needs for long; why something was done is asked later."""
TIDY = "*"
"""In place of a spec: the event of the daily deletion."""
HELD, FREED = "held", "freed"
"""Kinds of the events by which a person takes a task out of the scheduled runs' hands, and gives it back."""
StepState = Literal["noted", "called", "done"]
_STATES: tuple[StepState, ...] = get_args(StepState)

_claim = sa.table(
    "dms_claim", *map(sa.column, ("spec", "run")), *(sa.column(n, sa.DateTime) for n in ("claimed_at", "claimed_until"))
)
_event = sa.table(
    "dms_event", *map(sa.column, ("event_id", "event_key", "spec")), sa.column("noted_at", sa.DateTime),
    *map(sa.column, ("run", "kind", "subject", "reason")), sa.column("document", sa.JSON),
)  # fmt: skip
_plan = sa.table(
    "dms_plan", *map(sa.column, ("run", "spec")), sa.column("made_at", sa.DateTime), sa.column("document", sa.JSON)
)
_step = sa.table(
    "dms_step", *map(sa.column, ("run", "spec", "number", "state")),
    *(sa.column(n, sa.DateTime) for n in ("noted_at", "done_at")), sa.column("document", sa.JSON),
)  # fmt: skip
_checkpoint = sa.table(
    "dms_checkpoint", sa.column("spec"), sa.column("saved_at", sa.DateTime),
    *map(sa.column, ("task", "source_arn", "status", "stop_reason", "checkpoint")), sa.column("statistics", sa.JSON(none_as_null=True)),
)  # fmt: skip
_restart = sa.table(
    "dms_restart", *map(sa.column, ("spec", "restart_id", "checkpoint")), sa.column("restarted_at", sa.DateTime)
)
_failure = sa.table(
    "dms_table_failure", *map(sa.column, ("spec", "table_schema", "table_name", "failure_id", "reason", "cleared_by")),
    *(sa.column(n, sa.DateTime) for n in ("failed_at", "cleared_at")),
)  # fmt: skip
_COUNTS = ("source_rows", "target_rows", "missing", "extra", "differing")
_comparison = sa.table(
    "dms_comparison", *map(sa.column, ("spec", "table_schema", "table_name", "status", *_COUNTS, "reason")),
    sa.column("compared_at", sa.DateTime), sa.column("sample", sa.JSON),
)  # fmt: skip


class LedgerError(RuntimeError):
    """The ledger refuses what is asked for: what it holds does not allow it. Nothing was changed."""


class Claimed(LedgerError):
    """Another run works on the spec; ``run`` names it, ``until`` is when its claim expires."""

    def __init__(self, spec: str, run: str, until: datetime) -> None:
        super().__init__(
            f"spec {spec} is being worked on by {run} until {until:%Y-%m-%d %H:%M:%S} UTC; wait for it, or for that time. If that"
            " run is dead, mark it as failed in Airflow: its claim ends with it"
        )
        self.run, self.until = run, until


class Compared(Protocol):
    """A comparison of rows, as :mod:`dbops.dms.reconcile` makes it. Counts are None where nobody counted."""

    @property
    def table(self) -> Table: ...  # noqa: D102
    @property
    def status(self) -> str: ...  # noqa: D102
    @property
    def source_rows(self) -> int | None: ...  # noqa: D102
    @property
    def target_rows(self) -> int | None: ...  # noqa: D102
    @property
    def missing(self) -> int | None: ...  # noqa: D102
    @property
    def extra(self) -> int | None: ...  # noqa: D102
    @property
    def differing(self) -> int | None: ...  # noqa: D102
    @property
    def sample(self) -> Sequence[str]: ...  # noqa: D102
    @property
    def reason(self) -> str: ...  # noqa: D102


@dataclass(frozen=True)
class KeptComparison:
    """A comparison as it was kept."""

    table: Table
    status: str
    source_rows: int | None
    target_rows: int | None
    missing: int | None
    extra: int | None
    differing: int | None
    sample: tuple[str, ...]
    reason: str


@dataclass(frozen=True)
class Event:
    """A line of the event log."""

    event_id: int
    at: datetime
    run: str
    kind: str
    subject: str
    reason: str
    document: dict[str, Any]


@dataclass(frozen=True)
class TableFailure:
    """A failure of a table that counts for its quarantine; the newest one, with how many there are in a row."""

    table: Table
    failures: int
    failed_at: datetime
    reason: str


def utcnow() -> datetime:
    """Now."""
    return datetime.now(UTC)


def failure_id(table: TableStatistics, task: Task | None = None) -> str:
    """What makes a failure of a table one failure: its state, and the load in which it came.

    Args:
        table: its statistics
        task: its start stands in for that of the load, where the table has none (one that does not exist)
    """
    began = table.load_started_at or (task.started_at if task else None)
    return f"{table.raw_state or table.state} since {naive(began).isoformat() if began else 'ever'}"


class Ledger:
    """Reads and writes the ledger. Instances are cheap; the engine pools the connections.

    Args:
        engine: of the store
        clock: for the times of what happens in the ledger itself
    """

    def __init__(self, engine: sa.Engine, clock: Callable[[], datetime] = utcnow) -> None:
        self.engine, self.clock = engine, clock

    @classmethod
    def open(cls, engine: sa.Engine, clock: Callable[[], datetime] = utcnow) -> Ledger:
        """The ledger with its tables made or upgraded; one query when they are current."""
        store.migrate(engine, MIGRATIONS, VERSION_TABLE)
        return cls(engine, clock)

    # One run works on a spec at a time ----------------------------------------------------------------------------------

    def claim(self, spec: str, run: str, until: datetime, now: datetime) -> None:
        """Claim a spec for a run; the same run renews its claim, and one that has expired is taken over.

        Raises:
            Claimed: another run works on it
            ValueError: `until` is not after `now`
        """
        if naive(until) <= naive(now):
            raise ValueError(f"until {until} is not after now ({now}); a claim has to last")
        values = {"run": run, "claimed_at": naive(now), "claimed_until": naive(until)}
        free = (_claim.c.run == run) | (_claim.c.claimed_until <= naive(now))
        for _ in range(3):  # whoever holds it may give it back between two looks
            if self._change(sa.update(_claim).where(_claim.c.spec == spec, free).values(**values)):
                return
            if self._enter(_claim, {"spec": spec, **values}):
                return
            held = self._first(sa.select(_claim.c.run, _claim.c.claimed_until).where(_claim.c.spec == spec))
            if held is not None and held.run != run and held.claimed_until > naive(now):
                raise Claimed(spec, held.run, aware(held.claimed_until))
        raise LedgerError(f"spec {spec} changes hands again and again; try later")

    def claim_many(self, specs: Sequence[str], run: str, until: datetime, now: datetime) -> dict[str, Claimed]:
        """Claim many specs for a run, with a few statements; returns why, for those that it does not get."""
        values = {"run": run, "claimed_at": naive(now), "claimed_until": naive(until)}
        free = (_claim.c.run == run) | (_claim.c.claimed_until <= naive(now))
        self._change(sa.update(_claim).where(_claim.c.spec.in_(specs), free).values(**values))
        known = {str(row.spec) for row in self._all(sa.select(_claim.c.spec).where(_claim.c.spec.in_(specs)))}
        self._enter_all((_claim, [{"spec": spec, **values} for spec in specs if spec not in known]))
        refused: dict[str, Claimed] = {}
        mine = sa.select(_claim.c.spec).where(_claim.c.spec.in_(specs), _claim.c.run == run)
        for spec in sorted({*specs} - {str(row.spec) for row in self._all(mine)}):
            try:
                self.claim(spec, run, until, now)
            except Claimed as error:
                refused[spec] = error
        return refused

    def release_claim(self, spec: str, run: str) -> None:
        """Give a spec back; nothing happens when the run has no claim on it."""
        self.release_claims([spec], run)

    def release_claims(self, specs: Sequence[str], run: str) -> None:
        """Give specs back; nothing happens with those on which the run has no claim."""
        self._change(sa.delete(_claim).where(_claim.c.spec.in_(specs), _claim.c.run == run))

    # The event log ------------------------------------------------------------------------------------------------------

    def note(
        self, spec: str, run: str, kind: str, reason: str, *, subject: str = "", document: Mapping[str, Any] | None = None
    ) -> int:  # fmt: skip
        """Enter a decision, or what else happened, into the event log.

        The same of the same run is entered once: a task that is tried again says it again.

        Args:
            spec: name of the spec
            run: ``dag_id/run_id``
            kind: a word, such as decision, step, failure, quarantine
            reason: why
            subject: the table or step it is about; "" for the task
            document: what it was decided from

        Returns:
            Id of the event.
        """
        values = self._event(spec, run, kind, reason, subject, document)
        self._enter(_event, values)
        return int(self._one(sa.select(_event.c.event_id).where(_event.c.event_key == values["event_key"])))

    def _event(
        self, spec: str, run: str, kind: str, reason: str, subject: str = "", document: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        said, about = kept_text(reason), str(mask(subject))[:255]
        key = hashlib.sha256("\0".join((run, spec, kind, about, said)).encode()).hexdigest()
        return {
            "event_key": key, "spec": spec, "noted_at": naive(self.clock()), "run": run, "kind": kind, "subject": about,
            "reason": said, "document": _plain(document),
        }  # fmt: skip

    def events(self, spec: str, limit: int = 50, *, kind: str = "", since: datetime | None = None) -> tuple[Event, ...]:
        """The newest events of a spec, newest first; of one kind, and after a moment, if those are given."""
        query = sa.select(_event).where(_event.c.spec == spec).order_by(_event.c.event_id.desc()).limit(limit)
        if kind:
            query = query.where(_event.c.kind == kind)
        if since is not None:
            query = query.where(_event.c.noted_at > naive(since))
        return tuple(
            Event(int(r.event_id), aware(r.noted_at), r.run, r.kind, r.subject, r.reason, r.document)
            for r in self._all(query)
        )

    def count_events(self, spec: str) -> int:
        """How many events the spec has."""
        return int(self._one(sa.select(sa.func.count()).select_from(_event).where(_event.c.spec == spec)))

    # Plans, and what of them is done ------------------------------------------------------------------------------------

    def keep_plan(self, run: str, spec: str, document: Mapping[str, Any]) -> None:
        """Keep the plan of a run; another one replaces it as long as no step of it was noted.

        Raises:
            LedgerError: a step of another plan was noted
        """
        values = {"made_at": naive(self.clock()), "document": _json(document)}
        if self._enter(_plan, {"run": run, "spec": spec, **values}):
            return
        if self.plan(run, spec) == values["document"]:
            return
        begun = sa.select(_step.c.number).where(_step.c.run == run, _step.c.spec == spec).exists()
        mine = (_plan.c.run == run) & (_plan.c.spec == spec)
        if not self._change(sa.update(_plan).where(mine, ~begun).values(**values)):
            raise LedgerError(
                f"run {run} has begun another plan for spec {spec}; go on with that one, or start a new run"
            )

    def keep_plans(self, run: str, plans: Mapping[str, tuple[Mapping[str, Any], str]]) -> None:
        """Keep plans of many specs, each with its decision in the event log, all in one transaction.

        Args:
            run: ``dag_id/run_id``
            plans: name of a spec -> its plan, whose ``decision`` becomes the document of the event; and the reason

        Raises:
            LedgerError: a step of another plan was noted
        """
        made = naive(self.clock())
        kept = [
            {"run": run, "spec": spec, "made_at": made, "document": _json(document)}
            for spec, (document, _) in plans.items()
        ]
        said = [
            self._event(spec, run, "decision", reason, document=document["decision"])
            for spec, (document, reason) in plans.items()
        ]
        if self._enter_all((_plan, kept), (_event, said)):
            return
        for spec, (document, reason) in plans.items():  # the run has looked before
            self.keep_plan(run, spec, document)
            self.note(spec, run, "decision", reason, document=document["decision"])

    def plan(self, run: str, spec: str) -> dict[str, Any] | None:
        """The plan of a run, None when it has kept none."""
        return self.plans(run, [spec]).get(spec)

    def plans(self, run: str, specs: Sequence[str]) -> dict[str, dict[str, Any]]:
        """The plans of a run by spec; those without one are missing."""
        query = sa.select(_plan.c.spec, _plan.c.document).where(_plan.c.run == run, _plan.c.spec.in_(specs))
        return {str(row.spec): dict(row.document) for row in self._all(query)}

    def step(
        self, run: str, spec: str, number: int, state: StepState, document: Mapping[str, Any] | None = None
    ) -> None:
        """Note a step before it is carried out, when AWS took its call, and when it is done. What was kept first stays.

        So the document of ``noted`` still tells what was there before, when a killed run notes the step anew.

        Args:
            run: ``dag_id/run_id``
            spec: name of the spec
            number: of the step in the plan
            state: noted, then called, then done; only :meth:`uncalled` goes back
            document: what is known; with ``called`` and ``done`` it is put over what is kept
        """
        now = naive(self.clock())
        key = {"run": run, "spec": spec, "number": number}
        done = {"done_at": now} if state == "done" else {}
        if self._enter(_step, {**key, "state": state, "noted_at": now, "document": _json(document), **done}):
            return
        if earlier := _STATES[: _STATES.index(state)]:
            before = self.steps(run, spec)[number]["document"]
            mine = sa.and_(*(_step.c[name] == value for name, value in key.items()), _step.c.state.in_(earlier))
            values = {"state": state, **done, "document": {**before, **_json(document)}}
            self._change(sa.update(_step).where(mine).values(**values))

    def uncalled(self, run: str, spec: str, number: int) -> None:
        """A step whose call led to nothing is as before the call; one that is done stays done."""
        kept = self.steps(run, spec).get(number)
        if kept and kept["state"] == "called":
            left = {name: value for name, value in kept["document"].items() if name not in ("called", "called_at")}
            mine = (_step.c.run == run) & (_step.c.spec == spec) & (_step.c.number == number)
            self._change(sa.update(_step).where(mine, _step.c.state == "called").values(state="noted", document=left))

    def steps(self, run: str, spec: str) -> dict[int, dict[str, Any]]:
        """Number of a step -> its ``state``, ``document``, ``noted_at`` and ``done_at``; steps that were never noted are missing."""
        return self.steps_of(run, [spec]).get(spec, {})

    def steps_of(self, run: str, specs: Sequence[str]) -> dict[str, dict[int, dict[str, Any]]]:
        """The steps of a run by spec, as :meth:`steps` gives them; those that have begun none are missing."""
        query = sa.select(_step).where(_step.c.run == run, _step.c.spec.in_(specs)).order_by(_step.c.number)
        found: dict[str, dict[int, dict[str, Any]]] = {}
        for row in self._all(query):
            found.setdefault(str(row.spec), {})[int(row.number)] = {
                "state": row.state,
                "document": row.document,
                "noted_at": aware(row.noted_at),
                "done_at": aware(row.done_at) if row.done_at else None,
            }
        return found

    # Checkpoints and restarts -------------------------------------------------------------------------------------------

    def save_checkpoint(
        self, spec: str, task: Task, statistics: Iterable[TableStatistics] | None, at: datetime
    ) -> None:
        """Keep where a task has come to, and the statistics of its tables; the same moment is kept once."""
        self._enter(_checkpoint, self._place(spec, task, statistics, at))

    def saw(self, tasks: Mapping[str, Task], at: datetime) -> None:
        """Keep where tasks have come to, once an hour each: who deletes one in the console saves no checkpoint.

        Args:
            tasks: name of a spec -> its task; one that never ran is left out
            at: when they were seen
        """
        hour = naive(at).replace(minute=0, second=0, microsecond=0)
        seen = sa.select(_checkpoint.c.spec).where(_checkpoint.c.spec.in_(list(tasks)), _checkpoint.c.saved_at == hour)
        there = {row.spec for row in self._all(seen)}
        rows = [
            self._place(spec, task, None, hour)
            for spec, task in tasks.items()
            if spec not in there and task.arn and task.has_run
        ]
        if not rows:
            return
        try:
            self._change(sa.insert(_checkpoint), rows)
        except sa.exc.IntegrityError as error:  # another run entered some of them meanwhile
            if not is_duplicate(error):
                raise
            for row in rows:
                self._enter(_checkpoint, row)

    @staticmethod
    def _place(spec: str, task: Task, statistics: Iterable[TableStatistics] | None, at: datetime) -> dict[str, Any]:
        counted = None if statistics is None else {str(one.table): _statistics(one) for one in statistics}
        return {
            "spec": spec, "saved_at": naive(at), "task": task.identifier, "source_arn": task.source_arn,
            "status": task.raw_status or task.status,
            "stop_reason": task.raw_stop_reason or task.stop_reason, "checkpoint": task.checkpoint, "statistics": counted,
        }  # fmt: skip

    def last_checkpoint(self, spec: str) -> str:
        """The newest checkpoint that a task of the spec had, "" when none ever had one."""
        query = sa.select(_checkpoint.c.checkpoint).where(_checkpoint.c.spec == spec, _checkpoint.c.checkpoint != "")
        found = self._first(query.order_by(_checkpoint.c.saved_at.desc()).limit(1))
        return "" if found is None else str(found.checkpoint)

    def checkpoint_source(self, spec: str) -> str:
        """ARN of the source endpoint to which :meth:`last_checkpoint` belongs, "" when it is not known."""
        query = sa.select(_checkpoint.c.source_arn).where(_checkpoint.c.spec == spec, _checkpoint.c.checkpoint != "")
        found = self._first(query.order_by(_checkpoint.c.saved_at.desc()).limit(1))
        return "" if found is None else str(found.source_arn)

    def has_run(self, spec: str) -> bool:
        """Whether a task of the spec was ever seen that had been started."""
        ran = _checkpoint.c.status.not_in(("creating", "ready", "created")) | (_checkpoint.c.checkpoint != "")
        query = sa.select(_checkpoint.c.spec).where(_checkpoint.c.spec == spec, ran)
        return self._first(query.limit(1)) is not None

    def restarted(self, spec: str, checkpoint: str, at: datetime, *, restart_id: str = "") -> None:
        """Note that the task was resumed from a checkpoint.

        Args:
            spec: name of the spec
            checkpoint: RecoveryCheckpoint before it; "" within a load
            at: when
            restart_id: what makes it one restart, for example run and number of the step; by default its time
        """
        key = _key(restart_id or naive(at).isoformat())
        self._enter(_restart, {"spec": spec, "restart_id": key, "restarted_at": naive(at), "checkpoint": checkpoint})

    def restarts(self, spec: str, checkpoint: str) -> int:
        """How many restarts in a row began at this checkpoint: restarts without progress, when it is the task's own."""
        query = sa.select(_restart.c.checkpoint).where(_restart.c.spec == spec)
        query = query.order_by(_restart.c.restarted_at.desc(), _restart.c.restart_id.desc()).limit(MAX_RESTARTS)
        for number, row in enumerate(rows := self._all(query)):
            if row.checkpoint != checkpoint:
                return number
        return len(rows)

    # Tables that fail ---------------------------------------------------------------------------------------------------

    def table_failed(self, spec: str, table: Table, reason: str, at: datetime, *, failure_id: str = "") -> int:
        """Count a failure of a table.

        Args:
            spec: name of the spec
            table: the table
            reason: what is wrong with it
            at: when it was seen
            failure_id: from :func:`failure_id`: however often a failure is seen, it counts once, also after the table was released;
                by default each time is a failure of its own

        Returns:
            Its failures in a row.
        """
        key = _key(failure_id or naive(at).isoformat())
        values = {
            "spec": spec, "table_schema": table.schema, "table_name": table.name, "failure_id": key, "failed_at": naive(at),
            "reason": kept_text(reason),
        }  # fmt: skip
        self._enter(_failure, values)
        counted = sa.select(sa.func.count()).select_from(_failure).where(_counting(spec), _of_table(table))
        return int(self._one(counted))

    def table_loaded(self, spec: str, table: Table, at: datetime | None = None) -> None:
        """A table is loaded, so its row of failures has an end.

        With `at` only when the last of them was seen longer than QUIET before: a table that loads each time, and fails as soon as
        changes are applied, fails in a row, too.
        """
        mine = sa.and_(_counting(spec), _of_table(table))
        if at is not None:
            since = naive(at) - QUIET
            newest = self._one(sa.select(sa.func.max(_failure.c.failed_at)).where(mine))
            if newest is None or newest > since:
                return
        self._change(sa.update(_failure).where(mine).values(cleared_at=naive(at or self.clock()), cleared_by="loaded"))

    def failing(self, spec: str) -> tuple[TableFailure, ...]:
        """Tables with failures in a row, most of them first."""
        return self.failing_of([spec]).get(spec, ())

    def failing_of(self, specs: Sequence[str]) -> dict[str, tuple[TableFailure, ...]]:
        """Tables with failures in a row by spec; specs without one are missing."""
        query = sa.select(_failure).where(_failure.c.spec.in_(specs), _failure.c.cleared_at.is_(None))
        found: dict[str, dict[Table, list[Any]]] = {}
        for row in self._all(query.order_by(_failure.c.failed_at, _failure.c.failure_id)):
            of_spec = found.setdefault(str(row.spec), {})
            of_spec.setdefault(Table(row.table_schema, row.table_name), []).append(row)
        return {spec: _in_a_row(tables) for spec, tables in found.items()}

    def quarantined(self, spec: str, after: int) -> tuple[Table, ...]:
        """Tables that failed `after` times in a row or more: they are left to a person."""
        return quarantined(self.failing(spec), after)

    def release(self, spec: str, table: Table, by: str) -> None:
        """Take a table out of quarantine; the failures that are known count no more, and the event log says who did it."""
        values = {"cleared_at": naive(self.clock()), "cleared_by": by[:300]}
        gone = self._change(sa.update(_failure).where(_counting(spec), _of_table(table)).values(**values))
        if gone:
            reason = f"{by} released it at {values['cleared_at']:%Y-%m-%d %H:%M:%S} UTC, after {gone} failures in a row"
            self.note(spec, by, "release", reason, subject=str(table))

    # Comparisons --------------------------------------------------------------------------------------------------------

    def save_comparison(self, spec: str, comparisons: Iterable[Compared], at: datetime) -> None:
        """Keep what a comparison of rows found; of the same moment what was kept first."""
        for one in comparisons:
            values = {
                "spec": spec, "table_schema": one.table.schema, "table_name": one.table.name, "compared_at": naive(at),
                "status": one.status, **{name: getattr(one, name) for name in _COUNTS}, "sample": _plain(list(one.sample)),
                "reason": kept_text(said(one)),
            }  # fmt: skip
            self._enter(_comparison, values)

    def differing(self, spec: str, loaded_at: Mapping[Table, datetime] | None = None) -> tuple[Table, ...]:
        """Tables whose rows were found to differ and were not found equal since; a comparison without a result changes nothing.

        Args:
            spec: name of the spec
            loaded_at: when the load of a table began last: what was compared before says nothing of it now
        """
        return differing(self.differing_of([spec]).get(spec, {}), loaded_at)

    def differing_of(self, specs: Sequence[str]) -> dict[str, dict[Table, datetime]]:
        """Tables that differ by spec, each with when that was found; specs without one are missing."""
        known = (_comparison.c.spec.in_(specs), _comparison.c.status.in_(("equal", "differ")))
        of = (_comparison.c.spec, *_TABLE)
        newest = (
            sa.select(sa.func.max(_comparison.c.compared_at).label("at"), *of).where(*known).group_by(*of).subquery()
        )
        same = sa.and_(newest.c.at == _comparison.c.compared_at, *(newest.c[column.name] == column for column in of))
        query = sa.select(*of, _comparison.c.compared_at).join_from(_comparison, newest, same)
        found: dict[str, dict[Table, datetime]] = {}
        for row in self._all(query.where(_comparison.c.status == "differ")):
            at = aware(row.compared_at)
            found.setdefault(str(row.spec), {})[Table(row.table_schema, row.table_name)] = at
        return found

    def compared(self, spec: str) -> dict[Table, datetime]:
        """When rows of a table were compared last, with any result but ``unsettled``: that one is looked at again."""
        query = (
            sa.select(*_TABLE, sa.func.max(_comparison.c.compared_at).label("at"))
            .where(_comparison.c.spec == spec, _comparison.c.status != "unsettled")
            .group_by(*_TABLE)
        )
        return {Table(row.table_schema, row.table_name): aware(row.at) for row in self._all(query)}

    def comparisons(self, spec: str, since: datetime) -> tuple[KeptComparison, ...]:
        """Comparisons since a moment, the newest of each table, sorted by table."""
        return self.comparisons_of([spec], since).get(spec, ())

    def comparisons_of(self, specs: Sequence[str], since: datetime) -> dict[str, tuple[KeptComparison, ...]]:
        """Comparisons since a moment by spec; specs without one are missing."""
        query = sa.select(_comparison).where(_comparison.c.spec.in_(specs), _comparison.c.compared_at >= naive(since))
        newest: dict[str, dict[Table, KeptComparison]] = {}
        for row in self._all(query.order_by(_comparison.c.compared_at)):
            table = Table(row.table_schema, row.table_name)
            counts = {name: getattr(row, name) for name in _COUNTS}
            newest.setdefault(str(row.spec), {})[table] = KeptComparison(
                table, row.status, **counts, sample=tuple(row.sample or ()), reason=row.reason
            )
        return {spec: tuple(found[table] for table in sorted(found)) for spec, found in newest.items()}

    # What decisions about many specs are made from ------------------------------------------------------------------------

    def recall(self, specs: Sequence[str]) -> Recall:
        """What the ledger holds for decisions about these specs: a few queries, however many they are."""
        ended = (_comparison.c.spec.in_(specs), _comparison.c.status != "unsettled")
        compared = sa.select(_comparison.c.spec, sa.func.max(_comparison.c.compared_at).label("at")).where(*ended)
        newest = (
            sa.select(_restart.c.spec, sa.func.max(_restart.c.restarted_at).label("at"))
            .where(_restart.c.spec.in_(specs))
            .group_by(_restart.c.spec)
            .subquery()
        )
        same = (newest.c.spec == _restart.c.spec) & (newest.c.at == _restart.c.restarted_at)
        last = sa.select(_restart.c.spec, _restart.c.checkpoint).join_from(_restart, newest, same)
        return Recall(
            self,
            failing=self.failing_of(specs),
            differ_since=self.differing_of(specs),
            last_compared={str(row.spec): aware(row.at) for row in self._all(compared.group_by(_comparison.c.spec))},
            restarted_at={
                str(row.spec): str(row.checkpoint) for row in self._all(last.order_by(_restart.c.restart_id))
            },
            held=self.held(specs),
        )

    def tidy(self, now: datetime) -> int:
        """Delete, once a day, plans and steps older than PLANS_KEPT, the rest after EVENTS_KEPT; returns the number of rows."""
        last = self.events(TIDY, 1)
        if last and last[0].at > now - timedelta(days=1):
            return 0
        self.note(TIDY, f"tidy/{naive(now):%Y-%m-%d %H}", "tidy", "old plans, steps and events are deleted")
        old = ((_step, _step.c.noted_at), (_plan, _plan.c.made_at))
        gone = sum(self._change(sa.delete(table).where(at < naive(now - PLANS_KEPT))) for table, at in old)
        return gone + self.prune(now - EVENTS_KEPT)

    def held(self, specs: Sequence[str]) -> dict[str, str]:
        """Specs whose task a person has stopped, drained or deleted, and has not given back since -> what was done, when, by which run."""
        newest = (
            sa.select(sa.func.max(_event.c.event_id).label("id"))
            .where(_event.c.spec.in_(specs), _event.c.kind.in_((HELD, FREED)))
            .group_by(_event.c.spec)
            .subquery()
        )
        query = sa.select(_event.c.spec, _event.c.run, _event.c.reason, _event.c.noted_at, _event.c.kind)
        rows = self._all(query.join_from(_event, newest, newest.c.id == _event.c.event_id))
        return {
            str(row.spec): f"{row.reason} at {row.noted_at:%Y-%m-%d %H:%M} UTC by {row.run}"
            for row in rows
            if row.kind == HELD
        }

    def prune(self, before: datetime) -> int:
        """Delete events, plans, steps and failures that count no more, from before a moment; returns how many rows.

        Of checkpoints the newest of each spec, and the newest that is not empty, stay. Restarts and comparisons stay: they are few, and
        decisions are made from them however old they are.
        """
        old = (
            (_step, _step.c.noted_at),
            (_plan, _plan.c.made_at),
            (_failure, _failure.c.cleared_at),
        )
        gone = sum(self._change(sa.delete(table).where(column < naive(before))) for table, column in old)
        # What a person has taken into his hands stays there, however long ago.
        events = sa.delete(_event).where(_event.c.noted_at < naive(before), _event.c.kind.not_in((HELD, FREED)))
        gone += self._change(events)
        newest = sa.select(_checkpoint.c.spec, sa.func.max(_checkpoint.c.saved_at).label("at")).group_by(
            _checkpoint.c.spec
        )
        kept = {row.spec: row.at for row in self._all(newest)}
        kept |= {row.spec: row.at for row in self._all(newest.where(_checkpoint.c.checkpoint != ""))}
        for spec, at in kept.items():
            limit = min(at, naive(before))
            gone += self._change(
                sa.delete(_checkpoint).where(_checkpoint.c.spec == spec, _checkpoint.c.saved_at < limit)
            )
        return gone

    # How it is kept -----------------------------------------------------------------------------------------------------

    def _enter(self, table: sa.TableClause, values: Mapping[str, Any]) -> bool:
        """Insert a row; False when there is one of its key."""
        try:
            self._change(sa.insert(table).values(**values))
        except sa.exc.IntegrityError as error:
            if is_duplicate(error):
                return False
            raise
        return True

    def _enter_all(self, *rows: tuple[sa.TableClause, list[dict[str, Any]]]) -> bool:
        """Insert rows in one transaction; False, and none of them is, when there is one of the key of any."""
        try:
            for attempt in _retrying():
                with attempt, self.engine.begin() as connection:
                    for table, values in rows:
                        if values:
                            connection.execute(sa.insert(table), values)
        except sa.exc.IntegrityError as error:
            if is_duplicate(error):
                return False
            raise
        return True

    def _change(self, statement: Any, rows: Sequence[Mapping[str, Any]] | None = None) -> int:
        """Rows that the statement found, in a transaction of its own; a deadlock rolls it back, so it is tried again."""
        for attempt in _retrying():
            with attempt, self.engine.begin() as connection:
                return int(connection.execute(statement, rows).rowcount)
        raise AssertionError("unreachable")

    def _all(self, query: sa.Select[Any]) -> Sequence[Any]:
        with self.engine.connect() as connection:
            return connection.execute(query).all()

    def _first(self, query: sa.Select[Any]) -> Any:
        with self.engine.connect() as connection:
            return connection.execute(query).first()

    def _one(self, query: sa.Select[Any]) -> Any:
        with self.engine.connect() as connection:
            return connection.execute(query).scalar_one()


_TABLE = (_comparison.c.table_schema, _comparison.c.table_name)


@dataclass(frozen=True)
class Recall:
    """What decisions about many specs are made from, as it was at one time; what few of them need is asked for when they do."""

    ledger: Ledger
    failing: Mapping[str, tuple[TableFailure, ...]]
    differ_since: Mapping[str, Mapping[Table, datetime]]
    last_compared: Mapping[str, datetime]
    """When rows of any table of a spec were compared last, with a result."""
    restarted_at: Mapping[str, str]
    """Checkpoint of a spec's last restart."""
    held: Mapping[str, str]
    """As :meth:`Ledger.held`."""

    def quarantined(self, spec: str, after: int) -> tuple[Table, ...]:
        """As :meth:`Ledger.quarantined`."""
        return quarantined(self.failing.get(spec, ()), after)

    def differing(self, spec: str, loaded_at: Mapping[Table, datetime] | None = None) -> tuple[Table, ...]:
        """As :meth:`Ledger.differing`."""
        return differing(self.differ_since.get(spec, {}), loaded_at)

    def compared(self, spec: str) -> tuple[KeptComparison, ...]:
        """The newest comparison of each table, whenever it was."""
        return self.ledger.comparisons(spec, datetime(1970, 1, 2, tzinfo=UTC))

    def restarts(self, spec: str, checkpoint: str) -> int:
        """As :meth:`Ledger.restarts`."""
        return self.ledger.restarts(spec, checkpoint) if self.restarted_at.get(spec) == checkpoint else 0


def quarantined(failing: Iterable[TableFailure], after: int) -> tuple[Table, ...]:
    """Tables that failed `after` times in a row or more."""
    return tuple(sorted(one.table for one in failing if one.failures >= after))


def differing(
    differ_since: Mapping[Table, datetime], loaded_at: Mapping[Table, datetime] | None = None
) -> tuple[Table, ...]:
    """Tables that were found to differ since their load began."""
    began = loaded_at or {}
    return tuple(
        sorted(table for table, at in differ_since.items() if table not in began or naive(at) >= naive(began[table]))
    )


def _in_a_row(tables: Mapping[Table, list[Any]]) -> tuple[TableFailure, ...]:
    found = [
        TableFailure(table, len(rows), aware(rows[-1].failed_at), rows[-1].reason) for table, rows in tables.items()
    ]
    return tuple(sorted(found, key=lambda one: (-one.failures, one.table)))


def said(one: Compared) -> str:
    """The reason of a comparison, with the columns that it could not compare: equal without them is not all equal."""
    left_out = tuple(getattr(one, "not_compared", ()))
    return "; ".join(filter(None, (one.reason, f"not compared: {', '.join(left_out)}" if left_out else "")))


def _counting(spec: str) -> sa.ColumnElement[bool]:
    return sa.and_(_failure.c.spec == spec, _failure.c.cleared_at.is_(None))


def _of_table(table: Table) -> sa.ColumnElement[bool]:
    return sa.and_(_failure.c.table_schema == table.schema, _failure.c.table_name == table.name)


def _retrying() -> tenacity.Retrying:
    return tenacity.Retrying(
        retry=tenacity.retry_if_exception(_is_conflict),
        wait=tenacity.wait_random_exponential(multiplier=0.05, max=2),
        stop=tenacity.stop_after_attempt(8),
        reraise=True,
    )


def _is_conflict(error: BaseException) -> bool:
    """Lock wait timeout or deadlock of MySQL, or a locked SQLite file: nothing of the statement was done."""
    if not isinstance(error, sa.exc.OperationalError):
        return False
    return getattr(error.orig, "args", (None,))[0] in (1205, 1213) or "database is locked" in str(error.orig)


def _key(value: str) -> str:
    """The value as a key; a long one by its digest."""
    return value if len(value) <= 190 else hashlib.sha256(value.encode()).hexdigest()


def _plain(document: Any) -> Any:
    """The document as masked JSON values."""
    return mask(_json(document))


def _json(document: Any) -> Any:
    """The document as JSON values: times as text, frozen values as objects, what is no number as null."""
    text = json.dumps(document if document is not None else {}, default=_default)
    return json.loads(text, parse_constant=lambda _: None)


def _default(value: Any) -> Any:
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else str(value)


def _statistics(one: TableStatistics) -> Any:
    return _plain({name: value for name, value in asdict(one).items() if name != "table" and value not in ("", None)})
