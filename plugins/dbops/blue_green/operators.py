"""The rehearsal's face in Airflow: each operator opens services, calls a step, and leaves what it found in the journal."""

from __future__ import annotations

import hashlib
import os
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator, conf
from airflow.sdk.exceptions import AirflowSkipException

from dbops import alerting, connections, guardrails, operators, reports, specs
from dbops.operators import CORRECT_FORM, UNTOUCHED, Stopped

if TYPE_CHECKING:
    from airflow.sdk import Context

    from dbops.blue_green.spec import RehearsalSpec
    from dbops.blue_green.steps import Services
    from dbops.blue_green.switchover import Memory

AnyFailureOperator = operators.AnyFailureOperator
RECORDINGS_VARIABLE = "DBOPS_RECORDINGS"
STANDING = "What the rehearsal has made stands until its teardown, which runs next; the source was only read."
CLEAR = (
    "If the spec says keep_old, clear the red task before the rehearsal expires: it goes on from the journal. "
    "Else the teardown takes all away; start a new run."
)
UNHARMED = "AWS ends a switchover by itself, or rolls it back; this task only looks. Nothing was called twice."
EXPIRED = "expired"
MAX_PREFIX = 30
"""Characters of a rehearsal's name that come from its spec; AWS adds ``-green-xxxxxx`` and ``-old1`` to 63."""


class _RehearsalOperator(operators.RoomOperator["RehearsalSpec"]):
    room = "blue_green"

    def model(self) -> type[RehearsalSpec]:
        """The spec's class."""
        from dbops.blue_green.spec import RehearsalSpec

        return RehearsalSpec

    def refusals(self) -> tuple[type[Exception], ...]:
        """Errors that repeating the task cannot cure."""
        from dbops.blue_green.blue import BlueError
        from dbops.blue_green.journal import JournalError
        from dbops.blue_green.rails import RailError
        from dbops.blue_green.steps import StepError
        from dbops.prices import PriceError

        return (StepError, RailError, JournalError, BlueError, PriceError)

    def chosen_spec(self, context: Context) -> RehearsalSpec:
        """The spec as this run has begun it, whatever became of its file since; before that, the one that the conf names."""
        return self._begun(context) or self.named_spec(context)

    def _begun(self, context: Context) -> RehearsalSpec | None:
        from sqlalchemy.exc import DBAPIError

        from dbops.blue_green.journal import Journal

        if not context["params"].get("spec"):
            return None
        try:
            found = Journal(connections.engine(connections.STORE), self.name(context)).get("begin")
        except DBAPIError:  # no rehearsal ever began here, or the store is away, which the step itself will say
            return None
        return None if found is None else self.model().model_validate(found["spec"])

    def named_spec(self, context: Context) -> RehearsalSpec:
        """The spec of the file that the conf names. Raises Stopped when there is none."""
        name = context["params"].get("spec")
        if not name:
            known = ", ".join(specs.names(self.room)) or "none"
            raise Stopped(
                f"spec is empty: name one rehearsal; known specs: {known}", happened=UNTOUCHED, safe_next=CORRECT_FORM
            )
        return self.load(name)

    def name(self, context: Context) -> str:
        """Name of this run's rehearsal: the same for every task of the run, and for no other run."""
        return rehearsal_name(str(context["params"]["spec"]), operators.run_label(context))

    def services(self, context: Context, spec: RehearsalSpec) -> Services:
        """How this run reaches AWS and its servers."""
        return build_services(spec, operators.run_label(context))

    def step(self, context: Context, work: Any, *arguments: Any) -> Any:
        """Call a step with services and the rehearsal's name; what it raises says what stands."""
        spec = self.chosen_spec(context)
        with self.explained(spec, STANDING, CLEAR):
            return work(self.services(context, spec), self.name(context), *arguments)


def rehearsal_name(spec: str, run: str) -> str:
    """``dbops-<spec>-<8 hex digits of the run>``: an identifier that RDS takes, also with what it appends."""
    stem = f"dbops-{re.sub('_+', '-', spec)}"[:MAX_PREFIX].rstrip("-")
    return f"{stem}-{hashlib.sha256(run.encode()).hexdigest()[:8]}"


def recordings_folder() -> Path:
    """Where probes write: DBOPS_RECORDINGS, or a folder of AIRFLOW_HOME. It must be one folder for every task of a rehearsal."""
    given = os.environ.get(RECORDINGS_VARIABLE)
    return (
        Path(given)
        if given
        else Path(os.environ.get("AIRFLOW_HOME", "~/airflow")).expanduser() / "dbops" / "recordings"
    )


def build_services(spec: RehearsalSpec, run: str) -> Services:
    """Services over the Airflow connections that the spec names."""
    from dbops.blue_green.aws.hook import RdsBlueGreenHook
    from dbops.blue_green.steps import Services

    region = spec.placement.region
    hook = RdsBlueGreenHook(aws_conn_id=spec.aws_connection, region_name=region)
    account = connections.aws_client("sts", spec.aws_connection, region).get_caller_identity()["Account"]
    return Services(
        rds=connections.audited(hook.conn),
        once=connections.audited(hook.once),
        cloudwatch=connections.aws_client("cloudwatch", spec.aws_connection, region),
        account=account,
        connect=lambda address: connections.mysql(spec.connection, schema="", address=address),
        login=connections.login(spec.connection),
        ssl=connections.extra(spec.connection).get("ssl"),
        store=connections.engine(connections.STORE),
        recordings=recordings_folder(),
        run=run,
        now=_now,
        poll_s=float(os.environ.get("DBOPS_POLL_S", "5")),
    )


class BeginOperator(_RehearsalOperator):
    """Validate the conf, put the form's values into the spec, and enter the rehearsal in the journal."""

    def execute(self, context: Context) -> str:
        """Name of the rehearsal. Raises Stopped for unknown keys, wrong values, and a run that spends without its confirmation."""
        from dbops.blue_green import steps

        params = context["params"]
        self.require_known_conf(context)
        spec = self.merged(self.named_spec(context), params)
        if not params["dry_run"] and params.get("confirm") != spec.name:
            raise Stopped(
                f"confirm is {params.get('confirm')!r}: type {spec.name!r} to let this run create, switch over and delete",
                happened=UNTOUCHED, safe_next=CORRECT_FORM,
            )  # fmt: skip
        with self.explained(spec, UNTOUCHED, "Clear this task."):
            self.start_run(context, spec, spec.aws_connection)
            steps.begin(self.services(context, spec), self.name(context), spec, dry_run=bool(params["dry_run"]))
        return self.name(context)

    def merged(self, spec: RehearsalSpec, params: Any) -> RehearsalSpec:
        """The spec with what the form says instead. Raises Stopped when the whole is not a spec any more."""
        from pydantic import ValidationError

        plain = spec.model_dump(mode="json")
        for key, path in FORM.items():
            if (value := params.get(key)) is not None:
                place = plain
                for part in path[:-1]:
                    place = place[part]
                place[path[-1]] = value
        try:
            return self.model().model_validate(plain)
        except ValidationError as error:
            lines = [f"{'.'.join(map(str, e['loc'])) or 'spec'}: {e['input']!r}: {e['msg']}" for e in error.errors()]
            raise Stopped("; ".join(lines), happened=UNTOUCHED, safe_next=CORRECT_FORM, target=spec.name) from error


FORM: dict[str, tuple[str, ...]] = {
    "source": ("source",),
    "target_version": ("target", "engine_version"),
    "instance_class": ("placement", "instance_class"),
    "gigabytes": ("data", "gigabytes"),
    "tables": ("data", "tables"),
    "connections": ("data", "connections"),
    "ladder": ("ladder",),
    "max_cost_usd": ("max_cost_usd",),
    "max_hours": ("max_hours",),
    "keep_old": ("keep_old",),
}
"""Parameter of the form -> field of the spec that it replaces."""


class PlanOperator(_RehearsalOperator):
    """Price and checks before anything is made; a dry run ends here."""

    def execute(self, context: Context) -> None:
        """Raises Stopped when account, budget or a check forbids the rehearsal."""
        from dbops.blue_green import steps

        spec = self.chosen_spec(context)
        with self.explained(spec, UNTOUCHED, "Correct what is named, and start a new run."):
            planned = steps.plan(self.services(context, spec), self.name(context))
        self.log.info("estimate: %.2f %s", planned["estimate"]["total"], planned["estimate"]["currency"])
        if context["params"]["dry_run"]:
            raise AirflowSkipException("dry run: nothing is created; see the report")


class ProvisionOperator(_RehearsalOperator):
    """Make blue."""

    def execute(self, context: Context) -> None:
        """Repeating it takes up what is there."""
        from dbops.blue_green import steps

        self.step(context, steps.provision)


class PreflightOperator(_RehearsalOperator):
    """Ask blue, and AWS about blue, what would break."""

    def execute(self, context: Context) -> None:
        """Raises Stopped for errors that the spec does not override."""
        from dbops.blue_green import steps

        self.step(context, steps.check)


class FillOperator(_RehearsalOperator):
    """Add the made-up data."""

    def execute(self, context: Context) -> None:
        """Repeating it goes on where it ended."""
        from dbops.blue_green import steps

        shown = 0

        def progress(made: int, wanted: int) -> None:
            nonlocal shown
            if (tenth := 10 * made // max(1, wanted)) > shown:
                shown = tenth
                self.log.info("%d of %d rows", made, wanted)

        self.step(context, steps.fill, progress)


class StartProbesOperator(_RehearsalOperator):
    """Start what a client of blue would see, in a process of its own."""

    def execute(self, context: Context) -> None:
        """Repeating it keeps the prober that runs."""
        from dbops.blue_green import steps

        self.step(context, steps.start_probes)


class CreateGreenOperator(_RehearsalOperator):
    """Ask AWS for the Blue/Green deployment."""

    def execute(self, context: Context) -> None:
        """Repeating it finds the deployment by its name."""
        from dbops.blue_green import steps

        self.step(context, steps.create_green)


class _WaitingOperator(_RehearsalOperator):
    """Waits in the triggerer when `deferrable`, else in the worker."""

    def __init__(self, *, deferrable: bool | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        wanted = conf.getboolean("operators", "default_deferrable", fallback=False)
        self.deferrable = wanted if deferrable is None else deferrable


class AwaitGreenOperator(_WaitingOperator):
    """Wait until AWS says that green is available with all its members, and start to probe it."""

    def execute(self, context: Context) -> None:
        """Raises Stopped when the creation fails, with AWS's reason."""
        from dbops.blue_green import waits

        spec = self.chosen_spec(context)
        with self.explained(spec, STANDING, CLEAR):
            services = self.services(context, spec)
            if self.deferrable:
                waits.adopt_early(services, self.name(context))
                self.defer(trigger=waits.green_trigger(services, self.name(context), spec), method_name="available")
            waits.await_green(services, self.name(context))
        self.available(context)

    def available(self, context: Context, event: dict[str, Any] | None = None) -> None:
        """Go on once it is there."""
        from dbops.blue_green import readiness, steps, waits

        spec = self.chosen_spec(context)
        with self.explained(spec, STANDING, CLEAR):
            services, name = self.services(context, spec), self.name(context)
            if event is not None:
                waits.keep_green(services, name, event["state"])
                waits.require_green(readiness.load(event["state"]))
            steps.green_ready(services, name)


class ReplicateOperator(_RehearsalOperator):
    """Changes of blue, and when green shows them."""

    def execute(self, context: Context) -> None:
        """What does not arrive is a finding, not a failure."""
        from dbops.blue_green import steps

        self.step(context, steps.replicate)


class CompareOperator(_RehearsalOperator):
    """The same statements on both sides."""

    def execute(self, context: Context) -> None:
        """Differences are findings, not failures."""
        from dbops.blue_green import steps

        self.step(context, steps.compare_sides)


class BreakReplicationOperator(_RehearsalOperator):
    """The opt-in arm of breaking DDL."""

    def execute(self, context: Context) -> None:
        """Skips unless the spec asks for it."""
        from dbops.blue_green import steps

        spec = self.chosen_spec(context)
        with self.explained(spec, STANDING, CLEAR):
            services = self.services(context, spec)
            if not steps.spec_of(services.journal(self.name(context))).breaking_ddl:
                raise AirflowSkipException("the spec does not ask for breaking DDL")
            steps.break_replication(services, self.name(context))


class _AttemptOperator(_WaitingOperator):
    """A task of one rung of the ladder."""

    def __init__(self, *, number: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.number = number


class GateOperator(_AttemptOperator):
    """Wait until nothing stands in the way of the attempt."""

    def execute(self, context: Context) -> None:
        """Skips when this rung is not needed; raises Stopped with each offender when the gate does not open."""
        from dbops.blue_green import attempts

        spec = self.chosen_spec(context)
        with self.explained(spec, STANDING, CLEAR):
            services = self.services(context, spec)
            if not attempts.is_due(services.journal(self.name(context)), self.number):
                raise AirflowSkipException("an earlier attempt succeeded, or the ladder has no such rung")
            attempts.gate(services, self.name(context), self.number)


class SwitchoverOperator(_AttemptOperator):
    """Ask for the switchover, once, and look until it is over. Killing the task does nothing to AWS."""

    def execute(self, context: Context) -> str:
        """How it ended. A roll-back is a result, not a failure, and so is what AWS did not begin: repeating it would take a new gate."""
        from dbops.blue_green import attempts, waits

        spec = self.chosen_spec(context)
        with self.explained(spec, f"{STANDING} {UNHARMED}", CLEAR):
            services, name = self.services(context, spec), self.name(context)
            memory = attempts.call(services, name, self.number)
            if memory is None:
                return attempts.REFUSED
            self._wait_on(services, name, spec, memory)
            return waits.await_switchover(services, name, self.number).outcome

    def over(self, context: Context, event: dict[str, Any] | None = None) -> str:
        """Keep what the trigger saw, and wait on while the switchover runs."""
        from dbops.blue_green import waits

        spec = self.chosen_spec(context)
        with self.explained(spec, f"{STANDING} {UNHARMED}", CLEAR):
            services, name = self.services(context, spec), self.name(context)
            if event is not None:
                memory = waits.keep_attempt(services, name, self.number, event["attempt"])
                self._wait_on(services, name, spec, memory)
            return waits.await_switchover(services, name, self.number).outcome

    def _wait_on(self, services: Services, name: str, spec: RehearsalSpec, memory: Memory) -> None:
        from dbops.blue_green import waits

        if self.deferrable and not memory.is_over:
            self.defer(trigger=waits.switchover_trigger(services, name, self.number, spec), method_name="over")

    def on_kill(self) -> None:
        """Leave AWS alone: a switchover that began ends by itself, and half of one would be worse than either."""
        self.log.warning("killed while a switchover may be under way; AWS was not called. %s", UNHARMED)


class ExamineOperator(_AttemptOperator):
    """What the attempt shows, and proof of the state that it left."""

    def execute(self, context: Context) -> None:
        """Raises Stopped when the attempt is stuck: nothing more is tried then."""
        from dbops.blue_green import attempts

        document = self.step(context, attempts.examine, self.number)
        self.log.info(
            "attempt %d: %s after %.1f s: %s",
            self.number,
            document["outcome"],
            document["duration_s"],
            document["reason"],
        )
        if document["outcome"] == "STUCK":
            raise Stopped(
                f"attempt {self.number} is stuck: {document['reason']}", happened=STANDING,
                safe_next="Look at the deployment in the RDS console. The teardown waits for it, and lists what it cannot take away.",
            )  # fmt: skip


class ConcludeLadderOperator(_RehearsalOperator):
    """The SwitchoverTimeout that follows from the attempts."""

    def execute(self, context: Context) -> None:
        """Repeating it computes the same."""
        from dbops.blue_green import attempts

        self.step(context, attempts.conclude_ladder)


class VerifyOperator(_RehearsalOperator):
    """Proof of the state after a success."""

    def execute(self, context: Context) -> None:
        """Skips when no attempt succeeded."""
        from dbops.blue_green import attempts

        spec = self.chosen_spec(context)
        with self.explained(spec, STANDING, CLEAR):
            services = self.services(context, spec)
            steps_so_far = services.journal(self.name(context)).steps()
            if not any(k.startswith("attempt_") and d["outcome"] == "COMPLETED" for k, d in steps_so_far.items()):
                raise AirflowSkipException("no attempt succeeded: there is no new production to verify")
            attempts.verify(services, self.name(context))


class WatchOperator(_RehearsalOperator):
    """The new version under the probes' load."""

    def execute(self, context: Context) -> None:
        """Takes as long as the spec says."""
        from dbops.blue_green import steps

        self.step(context, steps.watch)


class MeasureOperator(_RehearsalOperator):
    """Stop the probes and compute every figure."""

    def execute(self, context: Context) -> None:
        """Skips when nothing was probed."""
        from dbops.blue_green import results, steps

        spec = self.chosen_spec(context)
        with self.explained(spec, STANDING, CLEAR):
            services, name = self.services(context, spec), self.name(context)
            if not any(path.exists() for path in steps.recording_paths(services, name).values()):
                raise AirflowSkipException("nothing was probed")
            steps.stop_probes(services, name)
            results.measure(services, name)


class TeardownOperator(_RehearsalOperator):
    """Take everything away that the rehearsal made, by resource id, and say what is left and what an hour of it costs."""

    def execute(self, context: Context) -> None:
        """Raises Stopped when something is left that should be gone, or when that is not known."""
        from dbops.blue_green import waits

        spec = self.chosen_spec(context)
        with self.explained(
            spec, "Some of what the rehearsal made may stand; it is tagged, and the janitor removes it when it expires.",
            "Clear this task; it goes on with what is left.",
        ):  # fmt: skip
            services, name = self.services(context, spec), self.name(context)
            document = waits.tear_down(services, name)
        for found in document["left"]:
            self.log.warning("left: %s %s (%s)", found["kind"], found["identifier"], found["resource_id"])
        if document["findings"]:
            told = "; ".join(each["text"] for each in document["findings"])
            raise Stopped(
                f"{len(document['left'])} resources are left, at {document['per_hour']:.2f} USD an hour: {told}",
                happened="The others are gone.", safe_next="Clear this task, or let the janitor go on.", target=spec.name,
            )  # fmt: skip


class ReportOperator(_RehearsalOperator):
    """The verdict, and the report."""

    def execute(self, context: Context) -> str:
        """The report's verdict. A NO-GO is an answer, and fails nothing. Skips when the form was refused: there is nothing to tell."""
        from dbops.blue_green import summary

        if (spec := self._begun(context)) is None:
            raise AirflowSkipException("the rehearsal did not begin; its first task says why")
        with self.explained(spec, "The rehearsal is over; only its report is missing.", "Clear this task."):
            services = self.services(context, spec)
            report = summary.report(
                services,
                self.name(context),
                self.common(context, spec.aws_connection, _versions(services, self.name(context))),
            )
            self.publish(context, report, spec.aws_connection)
            if not context["params"]["dry_run"]:
                self._tell(spec, report)
        return report.verdict.value

    def _tell(self, spec: RehearsalSpec, report: reports.Report) -> None:
        """One message at the end; that it could not be sent is logged and fails nothing."""
        figures = [f"{f.label}: {f.value} {f'({f.note})' if f.note else ''}".rstrip() for f in report.figures]
        alerting.notify(
            "INFO" if report.verdict is reports.Verdict.OK else "WARNING",
            f"blue_green_rehearsal {spec.name}: {report.reasons[0]}",
            "\n".join([*report.reasons[1:], "", *figures]),
            spec.aws_connection,
        )


class SweepOperator(BaseOperator):
    """Remove rehearsals that are expired, of every spec's account and region."""

    def execute(self, context: Context) -> None:
        """Raises Stopped when something expired is left, or a place could not be looked at."""
        from dbops.blue_green import waits

        params = context["params"]
        try:
            operators.refuse_unknown_conf(context)
            if not operators.is_scheduled(context) and not params["dry_run"] and params.get("confirm") != EXPIRED:
                raise guardrails.Refused(
                    f"confirm is {params.get('confirm')!r}: type {EXPIRED!r} to let this run delete what is expired"
                )
        except guardrails.Refused as error:
            raise Stopped(str(error), happened=UNTOUCHED, safe_next=CORRECT_FORM) from error
        from dbops.blue_green.spec import ROOM, RehearsalSpec

        dry_run = bool(params["dry_run"]) and not operators.is_scheduled(context)
        found = specs.load_all(ROOM, RehearsalSpec)
        places = {(spec.aws_connection, spec.placement.region): spec for spec in found}
        left: list[str] = []
        for spec in places.values():
            try:
                services = build_services(spec, operators.run_label(context))
                left += waits.sweep(services, dry_run=dry_run, say=lambda text: self.log.info("%s", text))
            except Exception as error:  # the other places still have to be swept
                left.append(f"{spec.aws_connection} in {spec.placement.region}: {type(error).__name__}: {error}")
        if left:
            raise Stopped(
                f"left: {'; '.join(left)}", happened="Everything else that is expired is gone.",
                safe_next="Look at what is named in the RDS console; the next sweep tries again.",
            )  # fmt: skip


def _now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)


def _versions(services: Services, name: str) -> dict[str, str]:
    from importlib.metadata import version

    steps = services.journal(name).steps()
    found = {p: version(p) for p in ("apache-airflow", "apache-airflow-providers-amazon")}
    for side, step in (("blue", "provision"), ("green", "green")):
        if step in steps:
            found[f"engine of {side}"] = steps[step][side]["engine_version"]
    return found
