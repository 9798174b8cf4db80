"""The backfill's face in Airflow: each operator reads its arguments, opens services, calls a step, and returns a small reference."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowSkipException

from dbops import connections, operators, reports, specs
from dbops.operators import CORRECT_FORM, UNTOUCHED, Stopped

if TYPE_CHECKING:
    from airflow.sdk import Context

    from dbops.backfill.records import Plan
    from dbops.backfill.services import Services
    from dbops.backfill.spec import BackfillSpec
    from dbops.backfill.worker import Copied

APPROVE, REJECT = "Approve", "Reject"
PLAN_TASK, PLAN_KEY = "plan", "plan_id"
READ_TIMEOUT_S = 900
"""A server that is gone without a word must not hold a lease that is renewed; the longest statement reads one chunk."""
ALLOW_EXTRA = "dbops_backfill_allow"
SAFE_COPY = "MySQL was only read. What is written stays right: every write is conditional."
SAFE_ROLL_BACK = "Items that were removed have their rows in MySQL; readers fall back to them."
GO_ON = "Clear this task, or start a new run: it goes on with the chunks that are not done."

AnyFailureOperator = operators.AnyFailureOperator


class _BackfillOperator(operators.RoomOperator["BackfillSpec"]):
    """What the backfill's operators share: spec, services, plan."""

    room = "backfill"

    def model(self) -> type[BackfillSpec]:
        """The spec's class."""
        from dbops.backfill.spec import BackfillSpec

        return BackfillSpec

    def refusals(self) -> tuple[type[Exception], ...]:
        """Errors that repeating the task cannot cure."""
        from dbops.backfill.copying import Unsound
        from dbops.backfill.journal import JournalError
        from dbops.backfill.services import StepError
        from dbops.backfill.source import ViewError
        from dbops.backfill.target import TargetError

        return (JournalError, StepError, TargetError, Unsound, ViewError)

    def target(self, spec: BackfillSpec) -> str:
        """What is written."""
        return spec.target.resource()

    def named(self, context: Context) -> BackfillSpec:
        """The spec that the conf names. Raises Stopped without one."""
        name = context["params"].get("spec")
        if not name:
            raise Stopped(
                f"spec is empty; known specs: {', '.join(specs.names(self.room)) or 'none'}",
                happened=UNTOUCHED, safe_next=CORRECT_FORM,
            )  # fmt: skip
        return self.load(name)

    def services(self, context: Context, spec: BackfillSpec) -> Services:
        """How this run reaches the spec's servers."""
        return build_services(spec, run=operators.run_label(context))

    def aws(self, spec: BackfillSpec) -> str:
        """The AWS connection that reports are written through."""
        return spec.target.connection if spec.target.kind == "dynamodb" else connections.AWS

    def report(self, context: Context, spec: BackfillSpec, report: reports.Report) -> None:
        """Publish a report."""
        self.publish(context, report, self.aws(spec))

    def fields(self, context: Context, spec: BackfillSpec) -> dict[str, Any]:
        """Fields that every report of this run has."""
        return self.common(context, self.aws(spec), _versions(spec))

    def look_again(self, spec: BackfillSpec, by: str, reason: str) -> None:
        """Defer. Raises TaskDeferred."""
        from airflow.providers.standard.triggers.temporal import TimeDeltaTrigger

        self.log.info("held back (%s): %s; looking again in %g s", by, reason, spec.limits.look_again_s)
        self.defer(trigger=TimeDeltaTrigger(timedelta(seconds=spec.limits.look_again_s)), method_name="execute")

    def plan(self, context: Context, services: Services) -> Plan:
        """The plan of this run, as it is now: a newer one, of another run, is not mixed in. Raises AirflowSkipException without one."""
        return services.journal.plan(plan_id_of(context))


def plan_id_of(context: Context) -> str:
    """The plan of this run. Raises AirflowSkipException when it has none."""
    plan_id = context["ti"].xcom_pull(task_ids=PLAN_TASK, key=PLAN_KEY)
    if not plan_id:
        raise AirflowSkipException("this run has no plan: see the tasks before")
    return str(plan_id)


def failed_before(context: Context, task_ids: list[str] | None = None) -> bool:
    """Whether a task of this run, or one of these, has failed, so that an alert tells of it."""
    ti = context["ti"]
    found = ti.get_task_states(dag_id=ti.dag_id, run_ids=[context["run_id"]], task_ids=task_ids)
    return any(
        str(getattr(state, "value", state)) == "failed" for states in found.values() for state in states.values()
    )


def build_services(spec: BackfillSpec, *, run: str) -> Services:
    """Services over the Airflow connections that the spec names."""
    from functools import partial

    from dbops.backfill.services import Services

    def lag_source() -> Any:
        # A declared replica counts before the reader of the copy, and before Aurora's own view.
        declared = connections.MYSQL_REPLICA if connections.is_defined(connections.MYSQL_REPLICA) else None
        return connections.lag_source(spec.connection, declared or spec.read_connection)

    account = spec.target.connection if spec.target.kind == "dynamodb" else connections.AWS
    region = spec.target.region if spec.target.kind == "dynamodb" else None
    return Services(
        source=partial(connections.mysql, spec.connection, read_timeout_s=READ_TIMEOUT_S),
        reader=partial(connections.mysql, spec.reader, read_timeout_s=READ_TIMEOUT_S),
        lag_source=lag_source,
        engine=connections.engine,
        target=partial(open_target, spec),
        aws=lambda service: connections.aws_client(service, account, region),
        region=region or str(connections.extra(account).get("region_name") or ""),
        allowed=connections.patterns(spec.target.connection, ALLOW_EXTRA),
        allowed_where=f"extra {ALLOW_EXTRA} of connection {spec.target.connection!r}",
        run=run,
    )


def open_target(spec: BackfillSpec, view: Any, *, threads: int, reads: Any = None, pause: Any = None) -> Any:
    """The spec's store, for items of a view."""
    if spec.target.kind == "dynamodb":
        from dbops.backfill import dynamodb

        client = connections.aws_client(
            "dynamodb", spec.target.connection, spec.target.region, dynamodb.client_config(threads)
        )
        return dynamodb.DynamoTarget(client, spec.target.table, view, threads=threads, reads=reads, pause=pause)
    from dbops.backfill import redis_target

    return redis_target.open_target(spec.target, view, threads, reads)


class ChooseSpecsOperator(_BackfillOperator):
    """Validate the run's conf and return the names of the specs to look at: the one asked for, or all that are enabled."""

    def execute(self, context: Context) -> list[str]:
        """Names of specs. Raises Stopped for unknown keys, and unknown or wrong specs."""
        found = self.chosen(context)
        if not found:
            raise AirflowSkipException("no spec is enabled")
        return [spec.name for spec in found]


class LookOperator(_BackfillOperator):
    """Look at everything before a copy: refuse what cannot end right, measure items, estimate cost and time."""

    def execute(self, context: Context) -> str:
        """The spec's name. Raises Stopped with every refusal, after reporting them."""
        from dbops.backfill import steps, summary

        self.require_known_conf(context)
        spec, params = self.named(context), context["params"]
        if params["bury_extra"] and not params["repair"]:
            raise Stopped(
                "bury_extra is true and repair is not, so nothing would be buried: add repair, or leave bury_extra out",
                happened=UNTOUCHED, safe_next=CORRECT_FORM, target=self.target(spec),
            )  # fmt: skip
        dry_run, copies = bool(params["dry_run"]), bool(params["copy"])
        with self.explained(spec, UNTOUCHED, "Run again when the cause is gone."):
            services = self.services(context, spec)
            self.start_run(context, spec, self.aws(spec))
            if not dry_run and (copies or params["repair"]):
                steps.require_leave(services, spec, params["confirm"])
            if not dry_run and not copies:
                return spec.name
            found = steps.look(services, spec, goes_on=not params["abandon_open_plan"])
            standing = steps.standing_before(services, spec, found)
            if dry_run or found.refusals:
                report = summary.preflight_report(standing, self.fields(context, spec), dry_run=dry_run)
                self.report(context, spec, report)
        for finding in found.findings:
            self.log.info("%s", finding)
        if found.refusals:
            raise Stopped(
                f"{len(found.refusals)} refusals: " + " | ".join(map(str, found.refusals)),
                happened=UNTOUCHED, safe_next="Apply the fixes that the report names, then run again.", target=self.target(spec),
            )  # fmt: skip
        return spec.name


class PlanOperator(_BackfillOperator):
    """Continue or make the plan; returns the spans of chunks, one for each task, none in a dry run and without a copy.

    The id of the plan goes to XCom, for every step of this run.
    """

    def execute(self, context: Context) -> list[list[int]]:
        """``[[first, end], ...]``: positions in the order in which chunks are taken. Raises Stopped when there is nothing to verify."""
        from dbops.backfill import steps

        spec, params = self.named(context), context["params"]
        if params["dry_run"]:
            return []
        if not params["copy"]:
            with self.explained(spec, UNTOUCHED, "Run the copy first."):
                found = steps.newest_plan(self.services(context, spec), spec)
            context["ti"].xcom_push(key=PLAN_KEY, value=found.plan_id)
            return []
        with self.explained(
            spec, "MySQL was only read; a plan is kept whole or not at all. Nothing was written to the target by this step.", "Run again."
        ):  # fmt: skip
            services = self.services(context, spec)
            made = steps.make_plan(
                services,
                spec,
                abandon_before=context["dag_run"].start_date if params["abandon_open_plan"] else None,
                today=context["dag_run"].run_after.date(),
            )
            spans = steps.spans(services, spec, made.plan)
        plan = made.plan
        context["ti"].xcom_push(key=PLAN_KEY, value=plan.plan_id)
        self.log.info(
            "plan %s (%s): %s rows in %s chunks, about %.2f %s and %.2f h, limited by %s", plan.plan_id,
            "continued" if made.is_resumed else "new", plan.rows, plan.chunks, made.estimate.usd, made.estimate.currency,
            made.estimate.hours, made.estimate.limited_by,
        )  # fmt: skip
        return [list(span) for span in spans]


class ListApprovalsOperator(_BackfillOperator):
    """Subject and body of the approval that the plan needs, with the digest of plan and price."""

    def execute(self, context: Context) -> list[dict[str, str]]:
        """``[{"subject", "body"}]`` for the approval task, [] when none is needed; the digest goes to XCom ``asked``."""
        from dbops.backfill import steps

        spec, params = self.named(context), context["params"]
        if params["dry_run"] or not params["copy"]:
            return []
        with self.explained(spec, UNTOUCHED, "Run again."):
            services = self.services(context, spec)
            made = steps.planned(spec, self.plan(context, services))
            if not made.needs_approval or services.journal.approved(made.plan.plan_id, made.digest):
                return []
        context["ti"].xcom_push(key="asked", value={"plan_id": made.plan.plan_id, "digest": made.digest})
        estimate = made.estimate
        parts = "".join(f"\n- {name}: {amount:.2f} {estimate.currency}" for name, amount in estimate.items)
        price = f"about {estimate.usd:.2f} {estimate.currency}"
        return [
            {
                "subject": f"Copy {made.plan.rows:,} rows into {self.target(spec)} for {price}?",
                "body": f"Plan `{made.plan.plan_id}` of spec `{spec.name}`: {estimate.units:,.0f} write units, {estimate.hours:.1f} h, "
                f"{price}; the budget is {spec.limits.budget_usd:g}.\n{parts}\n\nDigest of plan and price: `{made.digest}`",
            }
        ]


class RecordApprovalsOperator(_BackfillOperator):
    """Write the answer into the journal, and refuse to go on where one is needed and is missing or not "Approve"."""

    def __init__(self, *, asking_task_id: str, approval_task_id: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.asking_task_id = asking_task_id
        self.approval_task_id = approval_task_id

    def execute(self, context: Context) -> None:
        """Keeps who said yes. Raises Stopped when nobody did: once, not in each task of the copy."""
        from dbops.backfill import steps

        ti = context["ti"]
        asked = ti.xcom_pull(task_ids=self.asking_task_id, key="asked")
        if not asked:  # a skip here would skip the copy
            return
        answer = ti.xcom_pull(task_ids=self.approval_task_id, map_indexes=0) or {}
        chosen, who = answer.get("chosen_options") or [], answer.get("responded_by_user") or {}
        by = str(who.get("name") or who.get("id") or "unknown")
        self.log.info("plan %s: %s by %s", asked["plan_id"], chosen or "no answer", by)
        spec = self.named(context)
        with self.explained(spec, UNTOUCHED, "Run again and answer."):
            services = self.services(context, spec)
            if chosen == [APPROVE]:
                steps.approve(services, asked["plan_id"], asked["digest"], by)
            steps.require_approval(services, spec, services.journal.plan(asked["plan_id"]))


class _WorkOperator(_BackfillOperator):
    """A task that works for hours, and ends after the page under way when it is killed."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._stop = threading.Event()

    def on_kill(self) -> None:
        """End after the page under way."""
        self._stop.set()

    @contextmanager
    def held(self, spec: BackfillSpec) -> Iterator[None]:
        """Give the worker away, and look again later, when something holds the work back."""
        from dbops.backfill.brake import Held

        try:
            yield
        except Stopped as error:
            if not isinstance(error.__cause__, Held) or error.__cause__.by == "stop":
                raise
            self.look_again(spec, error.__cause__.by, error.__cause__.reason)

    def worker(self, context: Context) -> str:
        """Names this attempt in the journal."""
        ti = context["ti"]
        return f"{operators.run_label(context)}/{ti.task_id}[{ti.map_index}].{ti.try_number}/{ti.id}"[:300]


class CopyOperator(_WorkOperator):
    """Copy the chunks of one span, then help the others. Gives its worker away while it is held back."""

    template_fields = ("span",)

    def __init__(self, *, span: list[int], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.span = span

    def execute(self, context: Context, event: Any = None) -> None:
        """Resumes: chunks that the journal calls done are not read again.

        Raises:
            TaskDeferred: paused, outside of the window, or the servers cannot take it: it looks again later
            Stopped: too many rejects, or the store does not hold what it acknowledged
            AirflowSkipException: too many rejects, which another task of this run has told
        """
        from dbops.backfill import steps

        spec = self.named(context)
        with self.explained(spec, SAFE_COPY, GO_ON):
            services = self.services(context, spec)
            plan = self.plan(context, services)
            first, end = self.span
            done = steps.copy_span(
                services, spec, plan.plan_id, (int(first), int(end)), self.worker(context), confirm=context["params"]["confirm"],
                stop=self._stop,
            )  # fmt: skip
        self._log(done)
        if done.end == "done":
            return
        if done.end == "rejects" and failed_before(context, [self.task_id]):
            raise AirflowSkipException(f"another task of this run has failed for it: {done.reason}")
        if done.end in ("rejects", "stop"):
            correct = "Correct the rows or the spec (table backfill_reject names them), then run again."
            raise Stopped(
                done.reason, happened=SAFE_COPY, safe_next=correct if done.end == "rejects" else GO_ON, target=self.target(spec)
            )  # fmt: skip
        self.look_again(spec, done.end, done.reason)

    def _log(self, done: Copied) -> None:
        tally = done.tally
        self.log.info(
            "%s chunks, %s rows read: %s written, %s equal, %s newer, %s deleted meanwhile, %s rejected; %.0f units, %s turned away",
            done.chunks, tally.read, tally.written + tally.buried, tally.equal, tally.newer, tally.tombstones, tally.rejected, tally.units,
            tally.refused_requests,
        )  # fmt: skip


class ImportTableOperator(_BackfillOperator):
    """Engine import: one ImportTable of what was staged. Waits without a worker."""

    def execute(self, context: Context, event: Any = None) -> None:
        """Resumes: an import that was started is found again.

        Raises:
            TaskDeferred: it goes on
        """
        from dbops.backfill import steps

        spec, params = self.named(context), context["params"]
        if params["dry_run"] or not params["copy"] or spec.engine != "import":
            raise AirflowSkipException("nothing is imported")
        with self.explained(
            spec, "MySQL was only read. The objects are kept; a table that is not whole is named.", "Do what it says, then clear this task."
        ):  # fmt: skip
            services = self.services(context, spec)
            has_ended = steps.import_table(services, spec, self.plan(context, services))
        if not has_ended:
            self.look_again(spec, "import", "the import goes on")


class ListPartsOperator(_BackfillOperator):
    """Begin the verification, or go on with it; returns its parts, one for each task."""

    def execute(self, context: Context) -> list[dict[str, Any]]:
        """``[{"verification_id", "direction", "first", "end"}]``."""
        from dbops.backfill import steps

        spec, params = self.named(context), context["params"]
        if params["dry_run"]:
            raise AirflowSkipException("a dry run verifies nothing")
        if params["copy"] and spec.engine == "import":
            raise AirflowSkipException("the stream and the dual writes come first: then run with copy: false")
        with self.explained(spec, "Rows and items were only read by this step.", "Clear this task."):
            services = self.services(context, spec)
            plan = self.plan(context, services)
            parts = steps.list_parts(services, spec, plan, params["verify"] or spec.verify.mode)
        return [part.as_json() for part in parts]


class VerifyOperator(_WorkOperator):
    """Compare rows and items of some parts; a difference is looked at until it has drained."""

    template_fields = ("part",)

    def __init__(self, *, part: dict[str, Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.part = part

    def execute(self, context: Context, event: Any = None) -> None:
        """Resumes: parts that the journal has are not read again. Finding differences is no error of this task.

        Raises:
            TaskDeferred: paused, outside of the window, or the servers cannot take it: it looks again later
        """
        from dbops.backfill import steps

        spec = self.named(context)
        with self.held(spec), self.explained(spec, "Rows and items were only read by this step.", "Clear this task."):
            services = self.services(context, spec)
            plan = self.plan(context, services)
            found = steps.verify_part(services, spec, plan, steps.Part(**self.part), stop=self._stop)
        self.log.info("%s", found)


class SettleOperator(_WorkOperator):
    """Repair where the run asks for it, and end the verification with its verdict."""

    def execute(self, context: Context, event: Any = None) -> str:
        """``clean`` or ``differences``.

        Raises:
            TaskDeferred: a repair is held back: it looks again later
        """
        from dbops.backfill import steps

        spec, params = self.named(context), context["params"]
        if params["dry_run"] or (params["copy"] and spec.engine == "import"):
            raise AirflowSkipException("nothing was verified")
        with self.held(spec), self.explained(
            spec, "A repair writes only on the condition that holds for every writer; the journal has what was found.", "Clear this task."
        ):  # fmt: skip
            services = self.services(context, spec)
            plan = self.plan(context, services)
            if params["repair"]:
                done = steps.repair(
                    services,
                    spec,
                    plan,
                    confirm=params["confirm"],
                    bury_extra=bool(params["bury_extra"]),
                    stop=self._stop,
                )
                self.log.info("%s", done)
            verdict = steps.end_verification(services, spec, plan)
        return verdict


class ReportOperator(_BackfillOperator):
    """Report what this run has come to; red when a verdict is FAILED or REFUSED and no task before it is red for that."""

    def execute(self, context: Context) -> str:
        """The verdict. Raises Stopped when it is bad, after reporting it."""
        from dbops.backfill import steps, summary

        plan_id_of(context)
        spec, params = self.named(context), context["params"]
        with self.explained(spec, SAFE_COPY, "Clear this task; repeating it is harmless."):
            services = self.services(context, spec)
            plan = self.plan(context, services)
            standing = steps.standing(services, spec, plan)
            action = "copy" if params["copy"] else "repair" if params["repair"] else "verify"
            report = summary.run_report(standing, self.fields(context, spec), action=action)
            self.report(context, spec, report)
        if report.verdict in (reports.Verdict.FAILED, reports.Verdict.REFUSED) and not failed_before(context):
            raise Stopped(
                "; ".join(report.reasons), happened=SAFE_COPY, target=self.target(spec),
                safe_next="Read the report. Do not switch reads.",
            )  # fmt: skip
        return report.verdict.value


class ChoosePlanOperator(_BackfillOperator):
    """The plan whose items go, as spans of its chunks; a dry run reports what it has written and returns none."""

    def execute(self, context: Context) -> list[list[int]]:
        """``[[first, end], ...]``. Raises Stopped without a plan or a confirmation."""
        from dbops.backfill import steps, summary

        self.require_known_conf(context)
        spec, params = self.named(context), context["params"]
        with self.explained(spec, UNTOUCHED, CORRECT_FORM):
            services = self.services(context, spec)
            self.start_run(context, spec, self.aws(spec))
            if params["dry_run"]:
                found = steps.written(services, spec, params["plan_id"])
                self.report(context, spec, summary.roll_back_report(found, self.fields(context, spec), dry_run=True))
                return []
            steps.require_leave(services, spec, params["confirm"])
            return [list(span) for span in steps.begin_roll_back(services, spec, params["plan_id"])]


class RollBackOperator(_WorkOperator):
    """Remove the unchanged items of some chunks of a plan. Gives its worker away while it is held back."""

    template_fields = ("span",)

    def __init__(self, *, span: list[int], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.span = span

    def execute(self, context: Context, event: Any = None) -> None:
        """Resumes: chunks that the journal calls rolled back are not looked at again.

        Raises:
            TaskDeferred: paused, outside of the window, or the servers cannot take it: it looks again later
        """
        from dbops.backfill import steps

        spec, params = self.named(context), context["params"]
        with self.held(spec), self.explained(spec, SAFE_ROLL_BACK, "Clear this task."):
            services = self.services(context, spec)
            first, end = self.span
            done = steps.roll_back_span(
                services, spec, str(params["plan_id"]), (int(first), int(end)), self.worker(context), confirm=params["confirm"],
                stop=self._stop,
            )  # fmt: skip
            self.log.info("%s", done)


class RollBackReportOperator(_WorkOperator):
    """Close the plan when every chunk is rolled back, and report what was removed and what stayed."""

    def __init__(self, *, choosing_task_id: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.choosing_task_id = choosing_task_id

    def execute(self, context: Context, event: Any = None) -> str:
        """The verdict. Raises Stopped when it is FAILED, after reporting."""
        from dbops.backfill import steps, summary

        spec, params = self.named(context), context["params"]
        if params["dry_run"]:
            raise AirflowSkipException("the dry run has its report")
        if context["ti"].xcom_pull(task_ids=self.choosing_task_id) is None:
            raise AirflowSkipException("nothing was to be rolled back")
        with self.held(spec), self.explained(spec, SAFE_ROLL_BACK, "Clear this task."):
            services = self.services(context, spec)
            rolled = steps.end_roll_back(
                services, spec, str(params["plan_id"]), confirm=params["confirm"], stop=self._stop
            )
            report = summary.roll_back_report(rolled, self.fields(context, spec))
            self.report(context, spec, report)
        if report.verdict is reports.Verdict.FAILED and not failed_before(context):
            raise Stopped(
                "; ".join(report.reasons), happened=SAFE_ROLL_BACK, safe_next="Clear roll_back: it goes on with the chunks that are left.",
                target=self.target(spec),
            )  # fmt: skip
        return report.verdict.value


class GateOperator(_BackfillOperator):
    """May reads of one spec leave MySQL? Reports it."""

    template_fields = ("spec",)

    def __init__(self, *, spec: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.spec = spec

    def execute(self, context: Context) -> bool:
        """Whether the gate is open. A closed gate is no failure."""
        from dbops.backfill import steps, summary

        spec, params = self.load(self.spec), context["params"]
        with self.explained(spec, "Only the store was read.", "Clear this task."):
            services = self.services(context, spec)
            self.start_run(context, spec, self.aws(spec))
            found, plan = steps.decide_gate(
                services, spec, gone=params["gone"] or (), stream_is_drained=bool(params["stream_is_drained"])
            )
            self.report(context, spec, summary.gate_report(spec, plan, found, self.fields(context, spec)))
        for reason in found.reasons:
            self.log.info("closed: %s", reason)
        return found.is_open


def _versions(spec: BackfillSpec) -> dict[str, str]:
    from importlib.metadata import version

    from dbops import mysql

    found = {name: version(name) for name in ("apache-airflow", "boto3", "redis")}
    try:
        with connections.closing(connections.mysql(spec.connection)) as source:
            found["MySQL source"] = mysql.read_server(source).version
    except Exception as error:  # a report about a server that is down must still appear
        found["unreachable"] = f"{type(error).__name__}: {error}"[:200]
    return found
