"""The steps of a backfill, each resumable from the journal alone.

Operators, tests and benchmarks call these functions with a spec and a :class:`Services`. A step that is repeated finds in the journal what
is done and does the rest.
"""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, date, datetime, timedelta
from itertools import chain
from random import Random
from typing import Any, Literal

from dbops import guardrails, mysql
from dbops.backfill import bulk, copying, importing, liveness, preflight, sampling, verify
from dbops.backfill import estimate as estimates
from dbops.backfill import gate as gating
from dbops.backfill import plan as planning
from dbops.backfill import repair as repairing
from dbops.backfill.brake import Brake, Held
from dbops.backfill.charts import Sample
from dbops.backfill.estimate import Estimate
from dbops.backfill.findings import Finding, refusal, warning
from dbops.backfill.gate import Gate, StreamState
from dbops.backfill.journal import JournalError, PlanExists
from dbops.backfill.pacing import Bucket
from dbops.backfill.preflight import Preflight
from dbops.backfill.records import CLOSED, Compared, Direction, Event, Plan, PlanState, Tally, Verification
from dbops.backfill.roll_back import Remover, RolledBack
from dbops.backfill.services import Services, StepError, opened
from dbops.backfill.source import Source, open_source
from dbops.backfill.spec import BackfillSpec
from dbops.backfill.target import TargetError, TargetFacts
from dbops.backfill.verdict import Standing
from dbops.backfill.verify import TooManyDifferences, Verifier
from dbops.backfill.worker import Copied
from dbops.connections import closing
from dbops.keyvalue.views import View

Numbers = tuple[int, int]
"""Positions, or numbers, [first, end)."""
SEGMENTS_PER_TASK = 2
ROLL_BACK_LEASE_S = 600.0
"""It is renewed once a page, and a page takes as long as the pace lets it."""
KEPT_DAYS = 30
"""So long reports of applications are kept beyond the days that the gate looks at."""
HOLDS = ("pause", "window", "limit", "overloaded")
"""Kinds of the events with which a copy ended on purpose before it was done."""


def look(services: Services, spec: BackfillSpec, *, rows: int | None = None, goes_on: bool = True) -> Preflight:
    """Everything that can be found before a copy; reads only.

    Args:
        services: of the run
        spec: of the backfill
        rows: of the view, where a walk has counted them; None: InnoDB's estimate
        goes_on: with an open plan, so that the table of its import is its own; else the run gives it up
    """
    if spec.engine == "bulk":
        try:
            bulk.require(services.aws("dynamodb"))
        except bulk.NotSupported as error:
            return Preflight((refusal("engine", str(error), "use engine put, or import for a new table"),))
    found = preflight.check(preflight_services(services, spec, goes_on=goes_on), spec, rows=rows)
    return replace(found, findings=(*found.findings, *_unallowed(services, spec)))


def _unallowed(services: Services, spec: BackfillSpec) -> list[Finding]:
    """A run that writes is refused before it looks; a dry run tells of it."""
    try:
        guardrails.require_allowed(spec.target.allow_name, services.allowed, services.allowed_where)
    except guardrails.Refused as error:
        return [warning("target_allowed", error.reason, "a run that writes is refused until then")]
    return []


def preflight_services(services: Services, spec: BackfillSpec, *, goes_on: bool = True) -> preflight.Services:
    """How the preflight reaches what it looks at."""

    def facts(view: View) -> TargetFacts:
        with opened(services, view, threads=1) as target:
            return target.facts()

    return preflight.Services(
        writer=services.source,
        reader=services.reader,
        facts=facts,
        dms=lambda: services.aws("dms"),
        cloudwatch=lambda: services.aws("cloudwatch"),
        beats=lambda: services.journal.beats(spec.name),
        now=lambda: datetime.now(UTC),
        region=services.region,
        is_importing=lambda: goes_on and _is_importing(services, spec),
    )


def _is_importing(services: Services, spec: BackfillSpec) -> bool:
    """Whether the spec's open plan has asked for an import: the table is its own then."""
    plan = services.journal.open_plan(spec.name)
    if plan is None or spec.engine != "import":
        return False
    return importing.kept(services.aws("s3"), importing.folder(spec, plan.plan_id)) is not None


# --- plan ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Planned:
    """What planning came to."""

    plan: Plan
    estimate: Estimate
    is_resumed: bool
    needs_approval: bool

    @property
    def digest(self) -> str:
        """Names this very plan at this price, for approvals."""
        said = f"{self.plan.plan_id} {self.plan.rule_digest} {self.estimate.usd:.2f} {self.estimate.units:.0f}"
        return hashlib.sha256(said.encode()).hexdigest()


def estimated(plan: Plan) -> Estimate:
    """The estimate that the plan was made with."""
    return Estimate(**{**plan.estimate, "items": tuple(map(tuple, plan.estimate["items"]))})


def planned(spec: BackfillSpec, plan: Plan, *, is_resumed: bool = True) -> Planned:
    """A plan with its estimate, and whether a person has to approve it."""
    made = estimated(plan)
    return Planned(plan, made, is_resumed, made.usd > spec.limits.budget_usd)


def make_plan(
    services: Services, spec: BackfillSpec, *, abandon_before: datetime | None = None, today: date | None = None
) -> Planned:
    """Go on with the spec's open plan, or walk the table and keep a new one, whole or not at all.

    Of an open plan that has more rejects than are allowed, the chunks with rejects are copied once more.

    Args:
        services: of the run
        spec: of the backfill
        abandon_before: give up a plan that was open at this moment first; what it wrote stays. A plan that was made later is this run's
            own, when the step is repeated
        today: to tell the age of the prices

    Raises:
        Refused: the open plan was made under other rules, or on another server; or the estimate is above limits.max_hours
        StepError: the table has no rows, or a row of it has several rows in the view
    """
    journal = services.journal
    with closing(services.source()) as writer, closing(services.reader()) as reader:
        source = open_source(writer, spec)
        if (there := journal.open_plan(spec.name)) is not None:
            if abandon_before is None or there.made_at >= abandon_before:
                return _continued(services, spec, there, mysql.read_server(writer).server_uuid)
            journal.set_state(there.plan_id, "abandoned", expected=("planned", "copying", "copied"), run=services.run)
        server = mysql.read_server(writer)
        position = _position(writer)
        walk = planning.walk(reader, source, spec.limits.chunk_rows)
        _check_walk(spec, walk)
        sample = estimates.measure(reader, source, estimates.spread(reader, source))
    with opened(services, source.view, threads=1) as target:
        facts = target.facts()
    made = estimates.estimate(spec, sample, facts, rows=walk.view_rows, region=services.region, today=today)
    if made.hours > spec.limits.max_hours:
        raise guardrails.Refused(
            f"the copy would take about {made.hours:.1f} h, limits.max_hours is {spec.limits.max_hours:g}; it is limited by "
            f"{made.limited_by}. Raise one of them"
        )
    plan = planning.new_plan(
        spec,
        walk,
        server_uuid=server.server_uuid,
        log_position=position,
        now=datetime.now(UTC),
        estimate=made.as_json(),
    )
    try:
        journal.begin(plan, walk.chunks, shuffle_seed=int(hashlib.sha256(plan.plan_id.encode()).hexdigest()[:8], 16))
    except PlanExists as error:  # another run was faster
        return _continued(services, spec, journal.plan(error.plan_id), server.server_uuid)
    return planned(spec, plan, is_resumed=False)


def _continued(services: Services, spec: BackfillSpec, plan: Plan, server_uuid: str) -> Planned:
    if plan.rule_digest != spec.rule_digest():
        raise guardrails.Refused(
            f"plan {plan.plan_id} is open under other rules (view, key, version, target or engine have changed since). "
            "Take the change back, or run once with abandon_open_plan: what it wrote stays, unless backfill_roll_back removes it before"
        )
    if plan.server_uuid != server_uuid:
        raise guardrails.Refused(
            f"plan {plan.plan_id} was made on server {plan.server_uuid}, this is {server_uuid}: a clone, or the writer after a failover. "
            "Correct the connection; after a failover run once with abandon_open_plan: what was copied is found equal, not written again"
        )
    journal = services.journal
    count = journal.reject_count(plan.plan_id)
    if count > spec.rejects.allowed:
        journal.reopen_rejected(plan.plan_id)  # they ended a run before, and rows or spec may be corrected by now
    return planned(spec, journal.plan(plan.plan_id))


def _check_walk(spec: BackfillSpec, walk: planning.Walk) -> None:
    if not walk.chunks:
        raise StepError(
            f"{spec.view.table} has no row that is to be copied: nothing was planned. Correct view.table or cold.where"
        )


def _position(conn: Any) -> str:
    """Where the binary log of the writer is: its GTID set, or file:position."""
    status = mysql.log_status(conn) or {}
    if gtids := str(status.get("Executed_Gtid_Set") or "").replace("\n", ""):
        return gtids
    return f"{status.get('File', '')}:{status.get('Position', '')}" if status else ""


def newest_plan(services: Services, spec: BackfillSpec) -> Plan:
    """The newest plan of the spec, open or not. Raises StepError without one."""
    found = services.journal.plans(spec.name, limit=1)
    if not found:
        raise StepError(f"spec {spec.name} has no plan: nothing was copied")
    return found[0]


def spans(services: Services, spec: BackfillSpec, plan: Plan) -> list[Numbers]:
    """Positions of the chunks that are left to copy, for as many tasks as the spec allows."""
    return planning.groups(services.journal.chunks(plan.plan_id), spec.limits.tasks)


def approve(services: Services, plan_id: str, digest: str, who: str) -> None:
    """Keep a person's yes to this very plan."""
    services.journal.approve(plan_id, digest, who)


# --- copy ---------------------------------------------------------------------------------------------------------------


def require_leave(services: Services, spec: BackfillSpec, confirm: str | None) -> None:
    """Refuse unless the target is on the allow-list and the spec's name was typed out."""
    guardrails.require_confirmation(confirm, spec.name)
    guardrails.require_allowed(spec.target.allow_name, services.allowed, services.allowed_where)


def require_approval(services: Services, spec: BackfillSpec, plan: Plan) -> None:
    """Refuse a plan that is above the budget and that nobody has approved."""
    made = planned(spec, plan)
    if made.needs_approval and services.journal.approved(plan.plan_id, made.digest) is None:
        raise guardrails.Refused(
            f"plan {plan.plan_id} costs about {made.estimate.usd:.2f} {made.estimate.currency}, limits.budget_usd is "
            f"{spec.limits.budget_usd:g}, and nobody has approved it. Run again and approve it, or raise the budget"
        )


def copy_span(
    services: Services,
    spec: BackfillSpec,
    plan_id: str,
    span: Numbers,
    owner: str,
    *,
    confirm: str | None,
    stop: threading.Event,
) -> Copied:
    """Copy the chunks of one task, then help the others. Repeated, it goes on where any attempt has ended.

    Args:
        services: of the run
        spec: of the backfill
        plan_id: of its open plan
        span: positions of this task
        owner: names this attempt
        confirm: the spec's name, typed out
        stop: ends it after the page under way

    Raises:
        Refused: no confirmation, allow-list or approval
        JournalError: the plan is closed
        Unsound: the store does not hold what it acknowledged
    """
    require_leave(services, spec, confirm)
    plan = services.journal.plan(plan_id)
    require_approval(services, spec, plan)
    if not _begin_copy(services, plan):
        return Copied("done", "", Tally(), 0)
    with working(services, spec, stop) as (source, target, brake):
        pace = _bucket(services, spec, stop)
        try:
            if spec.engine == "import":
                done = importing.stage(
                    services.journal, source, services.reader, services.aws("s3"), importing.folder(spec, plan_id), plan_id, owner, span,
                    brake=brake, stop=stop, lease_s=spec.limits.lease_s,
                )  # fmt: skip
            else:
                done = copying.copy(
                    services.journal, source, services.reader, target, pace, brake, plan_id, owner, span, stop=stop,
                    lease_s=spec.limits.lease_s,
                )  # fmt: skip
        finally:
            for event in brake.waited:
                services.journal.note(
                    plan_id, Event("wait", "; ".join(event.reasons), event.seconds, 1, event.began_at, services.run)
                )
    if done.reason:
        services.journal.note(plan_id, Event(done.end, done.reason, run=services.run))
    if spec.engine != "import":  # staged objects are no table yet
        finish_copy(services, plan_id)
    return done


def import_table(services: Services, spec: BackfillSpec, plan: Plan) -> bool:
    """Import what was staged into a new table, or look how far that is. Whether it has ended, whole.

    Raises:
        TargetError: chunks are missing, the table exists, or the import did not take every item
    """
    if plan.state in ("copied", "verified"):
        return True
    s3, dynamodb, where = services.aws("s3"), services.aws("dynamodb"), importing.folder(spec, plan.plan_id)
    with closing(services.source()) as conn:
        view = open_source(conn, spec).view
    sealed = importing.seal(services.journal, s3, where, plan.plan_id)
    assert spec.target.kind == "dynamodb"  # noqa: S101 - the spec refuses other targets of this engine
    found = importing.look(dynamodb, importing.start(dynamodb, s3, where, spec.target.table, view, sealed))
    if found.status in ("IN_PROGRESS", "CANCELLING"):
        return False
    refused = importing.refusals(services.aws("logs"), found) if found.errors else []
    try:
        importing.check(found, sealed, refused)
    except TargetError:
        importing.give_up(s3, where)
        raise
    return finish_copy(services, plan.plan_id)


def _begin_copy(services: Services, plan: Plan) -> bool:
    """Whether chunks of the plan may be left to copy; another task may have begun it, or ended it, at any time."""
    journal, ended = services.journal, ("copied", "verified")
    if plan.state == "planned":
        try:
            journal.set_state(plan.plan_id, "copying", expected=("planned", "copying"), run=services.run)
        except JournalError:
            if journal.plan(plan.plan_id).state not in ended:
                raise
            return False
    return plan.state not in ended


def finish_copy(services: Services, plan_id: str) -> bool:
    """Note that every chunk is done, if it is so. Whether it is."""
    journal = services.journal
    counts = journal.counts(plan_id)
    if counts.get("planned"):
        return False
    if journal.plan(plan_id).state in ("planned", "copying"):
        journal.sample(plan_id, exactly=True)
        journal.set_state(plan_id, "copied", expected=("planned", "copying", "copied"), run=services.run)
    return True


@contextmanager
def working(services: Services, spec: BackfillSpec, stop: threading.Event) -> Iterator[tuple[Source, Any, Brake]]:
    """Source, target and brake of a task, closed in the end."""
    with ExitStack() as stack:
        first = stack.enter_context(closing(services.source()))
        source = open_source(first, spec)
        lag = stack.enter_context(closing(services.lag_source() if spec.limits.max_lag_s is not None else None))
        target = stack.enter_context(
            opened(
                services, source.view, threads=spec.limits.threads, reads=_bucket(services, spec, stop, "read"), pause=stop.wait
            )
        )  # fmt: skip
        yield source, target, Brake(spec.limits, first, lag, lambda: services.journal.paused(spec.name), stop=stop)


# --- verify -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Part:
    """What one task of a verification compares: numbers [first, end) of chunks, of segments of the store, or the sample."""

    verification_id: int
    direction: Direction
    first: int
    end: int
    of: int
    """How many there are of them: chunks of the plan, segments of the store."""

    def as_json(self) -> dict[str, Any]:
        """For XCom."""
        return asdict(self)


def list_parts(services: Services, spec: BackfillSpec, plan: Plan, mode: str) -> list[Part]:
    """Begin the verification of this run, or go on with it.

    Raises:
        StepError: the copy has not come to its end
    """
    journal = services.journal
    if journal.plan(plan.plan_id).state not in ("copied", "verified"):
        counts = ", ".join(f"{count} {state}" for state, count in sorted(journal.counts(plan.plan_id).items()))
        raise StepError(f"plan {plan.plan_id} is {plan.state} ({counts} chunks): copy it first. Nothing was compared")
    number = journal.begin_verification(plan.plan_id, services.run, mode)
    if mode == "sample":
        strata = len(sampling.STRATA)
        parts = [Part(number, "sample", 0, strata, strata)]
    else:
        total = plan.chunks + 1  # and what was inserted behind the last chunk
        parts = [Part(number, "forward", first, end, total) for first, end in _cut(total, spec.limits.tasks)]
    if spec.verify.reverse:
        segments = spec.limits.tasks * SEGMENTS_PER_TASK
        parts += [Part(number, "reverse", first, end, segments) for first, end in _cut(segments, spec.limits.tasks)]
    return parts


def verify_part(services: Services, spec: BackfillSpec, plan: Plan, part: Part, *, stop: threading.Event) -> str:
    """Compare what one task has to; repeated, it leaves out what the journal has. What was found, for the log.

    Raises:
        Held: paused, outside of the window, or the servers cannot take it; what is compared is kept
        StepError: there are more differences than verify.max_differences
    """
    journal = services.journal
    has = {
        one.part
        for one in journal.compared(part.verification_id)
        if one.direction == part.direction
        and (part.direction != "reverse" or one.name == verify.segment_name(one.part, part.of))
    }
    wanted = {*range(part.first, part.end)} - has
    with verifying_with(services, spec, stop) as (source, verifier, conn):
        totals = _keep(services, part, _compare(services, spec, plan, part, wanted, source, verifier, conn))
    return f"{part.direction} {part.first}-{part.end - 1} of {part.of}: {dict(totals) or 'nothing was left to compare'}"


def _keep(services: Services, part: Part, compared: Iterator[Compared]) -> Counter[str]:
    """Keep what comes; how many of each class came."""
    journal, totals = services.journal, Counter[str]()
    try:
        for found in compared:
            journal.add_classes(part.verification_id, found)
            totals.update(found.counts)
    except TooManyDifferences as error:
        journal.set_differences(part.verification_id, part.direction, error.found.part, error.found.differences)
        raise StepError(f"{error}; the rest was not compared. Find the cause before you verify again") from error
    return totals


def _compare(
    services: Services, spec: BackfillSpec, plan: Plan, part: Part, wanted: Collection[int], source: Source, verifier: Verifier, conn: Any
) -> Iterator[Compared]:  # fmt: skip
    if part.direction == "reverse":
        yield from verifier.reverse(wanted, part.of)
        return
    found = verify.spans(services.journal.chunks(plan.plan_id), source.last_key(conn))
    if part.direction == "forward":
        yield from verifier.forward(span for span in found if span.number in wanted)
        if plan.chunks in wanted and found[-1].number < plan.chunks:
            yield Compared("forward", plan.chunks, note="nothing was inserted behind the last chunk")
        return
    # Seeded by the verification, so that a task that is repeated draws the same keys.
    for stratum in sampling.draw(source, conn, found, spec.verify.sample_rows, Random(part.verification_id)):  # noqa: S311
        if stratum.number in wanted:
            yield verifier.keys(stratum.number, stratum.wanted, name=stratum.name, note=stratum.note)


@contextmanager
def verifying_with(
    services: Services, spec: BackfillSpec, stop: threading.Event
) -> Iterator[tuple[Source, Verifier, Any]]:
    """Source, verifier and its connection to the writer, closed in the end."""
    with working(services, spec, stop) as (source, target, brake), closing(services.source()) as conn:
        wanted = spec.verify
        verifier = Verifier(
            source, target, conn, drain_s=wanted.drain_s, page_rows=spec.limits.page_rows, shared_table=wanted.shared_table,
            max_differences=wanted.max_differences, hold=lambda: _hold(brake), sleep=lambda seconds: _wait(stop, seconds),
        )  # fmt: skip
        yield source, verifier, conn


def _hold(brake: Brake) -> None:
    brake()


def _wait(stop: threading.Event, seconds: float) -> None:
    if stop.wait(seconds):
        raise Held("stop", "the worker was asked to end")


def _cut(total: int, tasks: int) -> list[Numbers]:
    """[first, end) of at most so many tasks, about equal."""
    count = max(1, min(total, tasks))
    return [(total * number // count, total * (number + 1) // count) for number in range(count)]


def end_verification(services: Services, spec: BackfillSpec, plan: Plan) -> str:
    """End the verification of this run with its verdict; a plan of which all is right becomes ``verified``.

    Returns:
        ``clean`` or ``differences``

    Raises:
        StepError: parts of it were not compared
    """
    journal = services.journal
    proof = journal.verification(plan.plan_id, services.run)
    if proof is None:
        raise StepError(f"plan {plan.plan_id} has no verification by this run: run again")
    parts = journal.compared(proof.verification_id)
    if missing := _missing(spec, plan, proof, parts):
        raise StepError(
            f"verification {proof.verification_id}: {missing} were not compared; clear the task that is red"
        )
    bound = None
    if proof.mode == "sample":
        uniform = next(part for part in parts if part.name == sampling.STRATA[0])
        bound = sampling.bound_of(uniform, plan.rows).upper
    left = journal.differences(plan.plan_id, run=services.run)
    failing = left or any(part.failing for part in parts) or _too_many_rejects(services, spec, plan, parts)
    verdict: Literal["clean", "differences"] = "differences" if failing else "clean"
    journal.end_verification(proof.verification_id, verdict, bound)
    if verdict == "clean" and proof.mode in ("full", spec.verify.mode):  # a sample proves no more than the spec lets it
        journal.set_state(plan.plan_id, "verified", expected=("copied", "verified"), run=services.run)
    return verdict


def _too_many_rejects(services: Services, spec: BackfillSpec, plan: Plan, parts: Collection[Compared]) -> bool:
    """Whether more rows are in MySQL alone than the spec allows, by the copy or by what was compared."""
    # A row may be in several strata of a sample, so only the evenly drawn ones are counted.
    seen = sum(part.rejected for part in parts if part.direction == "forward" or part.name == sampling.STRATA[0])
    return max(seen, services.journal.reject_count(plan.plan_id)) > spec.rejects.allowed


def _missing(spec: BackfillSpec, plan: Plan, proof: Verification, parts: Collection[Compared]) -> str:
    """Which parts a verification lacks; empty when it has all, with what was inserted behind the last chunk."""
    lacking = []
    chunks = {part.part for part in parts if part.direction == "forward"}
    if proof.mode == "full" and (left := {*range(plan.chunks + 1)} - chunks):
        lacking.append(f"{len(left)} of {plan.chunks + 1} chunks")
    strata = {part.name for part in parts if part.direction == "sample"}
    if proof.mode == "sample" and (undrawn := [name for name in sampling.STRATA if name not in strata]):
        lacking.append(f"{', '.join(undrawn)} of the sample")
    segments = spec.limits.tasks * SEGMENTS_PER_TASK
    scanned = {part.name for part in parts if part.direction == "reverse"}
    unscanned = {verify.segment_name(number, segments) for number in range(segments)} - scanned
    if spec.verify.reverse and unscanned:
        lacking.append(f"{len(unscanned)} of {segments} segments of the store")
    return " and ".join(lacking)


# --- repair -------------------------------------------------------------------------------------------------------------


def repair(
    services: Services,
    spec: BackfillSpec,
    plan: Plan,
    *,
    confirm: str | None,
    bury_extra: bool = False,
    stop: threading.Event,
) -> str:
    """Put the differences that this run has found right, where the condition allows it, and compare those parts once more.

    Args:
        services: of the run
        spec: of the backfill
        plan: that was verified
        confirm: the spec's name, typed out
        bury_extra: a person has said that items whose row is gone become tombstones
        stop: ends it

    Returns:
        what was done, in a line

    Raises:
        Refused: no confirmation or allow-list
        Held: paused, outside of the window, or the servers cannot take it; repeat it
    """
    require_leave(services, spec, confirm)
    journal, plan_id = services.journal, plan.plan_id
    proof, left = journal.verification(plan_id, services.run), journal.differences(plan_id, run=services.run)
    if proof is None or not left:
        return "there are no differences"
    with verifying_with(services, spec, stop) as (source, verifier, conn):
        done = repairing.repair(
            source,
            verifier.target,
            conn,
            left,
            _bucket(services, spec, stop),
            stamp=plan.stamp,
            may_bury=bury_extra,
            hold=verifier.hold,
        )
        journal.note(
            plan_id, Event("repair", repairing.summary(done), count=done.written + done.buried, run=services.run)
        )
        for part in _failing_parts(services, spec, plan, proof):
            _keep(
                services,
                part,
                _compare(services, spec, plan, part, range(part.first, part.end), source, verifier, conn),
            )
    return repairing.summary(done)


def _failing_parts(services: Services, spec: BackfillSpec, plan: Plan, proof: Verification) -> Iterator[Part]:
    """What has to be compared once more after a repair. A sample stands for rows that were not repaired, so it stays what it was."""
    segments = spec.limits.tasks * SEGMENTS_PER_TASK
    for each in services.journal.compared(proof.verification_id):
        if each.failing and each.direction != "sample":
            total = segments if each.direction == "reverse" else plan.chunks + 1
            yield Part(proof.verification_id, each.direction, each.part, each.part + 1, total)


# --- roll back ----------------------------------------------------------------------------------------------------------


def begin_roll_back(services: Services, spec: BackfillSpec, plan_id: str | None) -> list[Numbers]:
    """Close the plan whose items go, so that nobody copies it any more.

    Returns:
        positions of its chunks, for as many tasks as the spec allows

    Raises:
        Refused: no plan is named, it is another spec's, or it was made under other rules
    """
    journal = services.journal
    known = {plan.plan_id: plan for plan in journal.plans(spec.name)}
    if plan_id is None or plan_id not in known:
        raise guardrails.Refused(f"plan_id is {plan_id!r}; plans of {spec.name}: {', '.join(known) or 'none'}")
    plan = known[plan_id]
    if plan.rule_digest != spec.rule_digest():
        raise guardrails.Refused(
            f"plan {plan_id} was made under other rules (view, key, version, target or engine have changed since), so its items are not "
            "where the spec looks now. Take the change back, roll back, then make the change again. Nothing was removed"
        )
    # A verified one, too: the gate must not open over what is removed.
    if plan.state not in ("abandoned", "rolled_back"):
        expected: tuple[PlanState, ...] = ("planned", "copying", "copied", "verified", "abandoned")
        journal.set_state(plan_id, "abandoned", expected=expected, run=services.run)
    _doubt_newest(services, spec, plan_id)
    return _cut(plan.chunks, spec.limits.tasks)


def _doubt_newest(services: Services, spec: BackfillSpec, plan_id: str) -> None:
    """A newer plan has found items of this one equal and left them as they were: what was proven of it holds no more."""
    (newest,) = services.journal.plans(spec.name, limit=1)
    if newest.plan_id != plan_id and newest.state == "verified":
        reason = f"items of plan {plan_id}, which it had found equal, are rolled back: verify again"
        services.journal.set_state(newest.plan_id, "copied", expected=[newest.state], run=services.run, reason=reason)


def _copy_newest_again(services: Services, spec: BackfillSpec, plan_id: str) -> None:
    """Chunks of a newer plan that is open and had found items equal are not done any more: the next run would only find them missing."""
    journal = services.journal
    (newest,) = journal.plans(spec.name, limit=1)
    if newest.plan_id == plan_id or newest.state in CLOSED or spec.engine != "put":
        return
    if doubted := [each.number for each in journal.chunks(newest.plan_id, ["done"]) if each.tally.equal]:
        journal.reopen(newest.plan_id, doubted)


def roll_back_span(
    services: Services,
    spec: BackfillSpec,
    plan_id: str,
    span: Numbers,
    owner: str,
    *,
    confirm: str | None,
    stop: threading.Event,
) -> RolledBack:
    """Remove the unchanged items of some chunks of a plan. Repeated, it goes on with the chunks that are left.

    Raises:
        Refused: no confirmation or allow-list
        Held: paused, outside of the window, or the servers cannot take it; repeat it
    """
    require_leave(services, spec, confirm)
    with verifying_with(services, spec, stop) as (source, verifier, conn):
        remover = _remover(services, spec, plan_id, source, verifier, conn, stop)
        done = remover.chunks(services.journal, plan_id, owner, lease_s=ROLL_BACK_LEASE_S, span=span)
    if done != RolledBack():  # other tasks had all chunks
        services.journal.note(plan_id, Event("roll_back", _kept_by(done), count=done.removed, run=services.run))
    return done


def end_roll_back(
    services: Services, spec: BackfillSpec, plan_id: str, *, confirm: str | None, stop: threading.Event
) -> Standing:
    """When every chunk is rolled back: sweep items whose rows have gone since, and close the plan.

    Raises:
        Refused: no confirmation or allow-list
        Held: paused, outside of the window, or the servers cannot take it; repeat it
    """
    require_leave(services, spec, confirm)
    journal = services.journal
    counts, plan = journal.counts(plan_id), journal.plan(plan_id)
    swept = RolledBack()
    if counts["rolled_back"] == plan.chunks:
        try:
            with verifying_with(services, spec, stop) as (source, verifier, conn):
                remover = _remover(services, spec, plan_id, source, verifier, conn, stop)
                for segment in range(spec.limits.tasks):
                    for found, _ in remover.sweep(segment, spec.limits.tasks):
                        swept += found
        finally:  # an attempt that is held back finds these no more
            if swept.removed:
                journal.note(plan_id, Event("sweep", _kept_by(swept), count=swept.removed, run=services.run))
        journal.set_state(plan_id, "rolled_back", expected=(*CLOSED,), run=services.run)
        _doubt_newest(services, spec, plan_id)
        _copy_newest_again(services, spec, plan_id)
    events = tuple(journal.events(plan_id))
    return Standing(
        spec, journal.plan(plan_id), counts=counts, tally=journal.tally(plan_id), chunks=tuple(journal.chunks(plan_id)),
        events=events, kept_by={name: count for name, count in asdict(swept).items() if name in _STAY and count},
        swept=sum(event.count for event in events if event.kind == "sweep"),
    )  # fmt: skip


def written(services: Services, spec: BackfillSpec, plan_id: str | None) -> Standing:
    """What a plan has written, the newest one where none is named: for the dry run of a roll-back."""
    journal = services.journal
    found = [plan for plan in journal.plans(spec.name) if plan_id in (None, plan.plan_id)]
    if not found:
        return Standing(spec)
    plan = found[0]
    return Standing(
        spec, plan, counts=journal.counts(plan.plan_id), tally=journal.tally(plan.plan_id), chunks=tuple(journal.chunks(plan.plan_id)),
        events=tuple(journal.events(plan.plan_id)),
    )  # fmt: skip


def _remover(
    services: Services, spec: BackfillSpec, plan_id: str, source: Source, verifier: Verifier, conn: Any, stop: threading.Event
) -> Remover:  # fmt: skip
    return Remover(
        source, verifier.target, conn, plan_id, _bucket(services, spec, stop), spec.limits.threads, verifier.hold,
        wait=lambda seconds: _wait(stop, seconds),
    )  # fmt: skip


_STAY = ("newer", "overtaken")


def _kept_by(done: RolledBack) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in asdict(done).items() if count) or "nothing was there"


def _bucket(
    services: Services, spec: BackfillSpec, stop: threading.Event, kind: Literal["write", "read"] = "write"
) -> Bucket:
    """The pace that everything which writes, or reads, the spec's target shares."""
    limits, resource = spec.limits, spec.target.resource(services.region)
    limit = limits.units_per_s if kind == "write" else limits.read_units_per_s
    return Bucket(
        services.pool, resource, limit, kind=kind, tasks=limits.tasks, max_wait_s=limits.max_wait_s, wait=stop.wait
    )  # fmt: skip


# --- gate ---------------------------------------------------------------------------------------------------------------


def decide_gate(
    services: Services, spec: BackfillSpec, *, gone: Collection[str] = (), stream_is_drained: bool = False
) -> tuple[Gate, Plan | None]:
    """Whether reads may leave MySQL, and the plan that it is about.

    Args:
        services: of the run
        spec: of the backfill
        gone: processes of applications of which a person says that they are dead
        stream_is_drained: a person says that the stream without a DMS task runs and has delivered everything
    """
    journal, now = services.journal, datetime.now(UTC)
    plans = journal.plans(spec.name)
    plan = plans[0] if plans else None
    since = now - timedelta(days=spec.gate.quiet_days, hours=1)
    if spec.live.replication_task is None:
        stream = StreamState(0.0, is_running=True, name=spec.live.stream) if stream_is_drained else None
    else:
        stream = liveness.stream_state(spec, services.aws("dms"), services.aws("cloudwatch"), now)
    proof = journal.verification(plan.plan_id) if plan else None
    # A process that fell silent before these days may still serve reads, of which nobody hears.
    silent = [beat for beat in journal.unended(spec.name, since) if beat.application in spec.live.applications]
    beats = chain(silent, journal.beats(spec.name, since))
    found = gating.decide(spec, plan, proof, beats, stream, now, gone=gone)
    journal.forget_beats(spec.name, since - timedelta(days=KEPT_DAYS))
    reasons = [f"plan {each.plan_id} is being rolled back" for each in plans if _is_half_gone(services, each)]
    return (replace(found, is_open=False, reasons=(*found.reasons, *reasons)) if reasons else found), plan


def _is_half_gone(services: Services, plan: Plan) -> bool:
    """Whether a roll-back of the plan has begun and not ended: items that a newer plan has found equal may go."""
    return plan.state != "rolled_back" and bool(services.journal.counts(plan.plan_id)["rolled_back"])


# --- report -------------------------------------------------------------------------------------------------------------


def standing_before(services: Services, spec: BackfillSpec, found: Preflight) -> Standing:
    """What a run knows before it writes."""
    return Standing(
        spec, services.journal.open_plan(spec.name), found.findings, tuple(found.types), found.facts, found.estimate
    )


def standing(services: Services, spec: BackfillSpec, plan: Plan) -> Standing:
    """What the journal knows of a plan, with the verification of this run."""
    journal, plan_id = services.journal, plan.plan_id
    made, now = planned(spec, plan), journal.plan(plan.plan_id)
    proof = journal.verification(plan_id, services.run)
    differences = journal.differences(plan_id, run=services.run)
    events = journal.events(plan_id)
    counts = journal.counts(plan_id)
    held = next((each.reason for each in reversed(events) if each.kind in HOLDS), "") if counts.get("planned") else ""
    if spec.engine == "import" and proof is None and now.state == "copied":
        held = (
            held or "the table is imported: switch the change stream and the dual writes on, then run with copy: false"
        )
    return Standing(
        spec,
        now,
        estimate=made.estimate,
        approved_by=journal.approved(plan_id, made.digest),
        counts=counts,
        tally=journal.tally(plan_id),
        chunks=tuple(journal.chunks(plan_id)),
        held=held,
        rejects=tuple(journal.rejects(plan_id)),
        reject_count=journal.reject_count(plan_id),
        verification=proof,
        parts=tuple(journal.compared(proof.verification_id)) if proof else (),
        differences=tuple(differences),
        difference_count=len(differences),
        samples=tuple(Sample(*each) for each in journal.series(plan_id)),
        events=tuple(events),
    )
