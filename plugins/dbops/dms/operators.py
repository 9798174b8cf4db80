"""The room's face in Airflow: each operator opens services, calls the domain, and leaves what it found in the ledger."""

from __future__ import annotations

import logging
import os
import re
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowSkipException

from dbops import operators, specs
from dbops.operators import CORRECT_FORM, UNTOUCHED, Stopped

if TYPE_CHECKING:
    from airflow.sdk import Context

    from dbops.dms.carry import Waiting
    from dbops.dms.control import Action, Services, Wanted
    from dbops.dms.spec import DmsSpec

AnyFailureOperator = operators.AnyFailureOperator
ACTIONS = ("ensure", "start", "stop", "resume", "reload_tables", "reload_target", "drain", "status", "delete")
APPROVE, REJECT = "Approve", "Reject"
QUIET = timedelta(hours=12)
"""A scheduled run does not alert again about the same thing within this time; its report shows it in each run."""
STANDING = "The steps of the plan that are done are in the ledger (dms_step); the others were not called."
AGAIN = "Repair what is named, then clear this task: it looks first, and goes on with the step that is not done."
LEFT = "The task at AWS was left as it is; nothing but the canary row was written."
READ = "The task at AWS was left as it is; rows were only read."
ITEMS = "look"
"""Id of the task that lists the specs."""


class _DmsOperator(operators.RoomOperator["DmsSpec"]):
    room = "dms"

    def model(self) -> type[DmsSpec]:
        """The spec's class."""
        from dbops.dms.spec import DmsSpec

        return DmsSpec

    def refusals(self) -> tuple[type[Exception], ...]:
        """Errors that repeating the task cannot cure."""
        from dbops.dms.carry import CarryError
        from dbops.dms.control import ControlError
        from dbops.dms.ledger import LedgerError
        from dbops.dms.plan import PlanError

        return (CarryError, ControlError, LedgerError, PlanError)

    def target(self, spec: DmsSpec) -> str:
        """What a run of this spec works on, for alerts."""
        return f"DMS task {spec.task_identifier}"

    def services(self, spec: DmsSpec) -> Services:
        """How a task reaches AWS, servers and ledger."""
        from dbops.dms import hook

        return hook.services(spec.aws_connection, spec.region)

    def claim(self, context: Context, services: Services, spec: DmsSpec, wait: timedelta = timedelta()) -> None:
        """Renew this run's claim on the spec, for as long as the task may wait. Raises Claimed when another run works on it."""
        from dbops.dms.control import CLAIM

        now = services.now()
        services.ledger.claim(spec.name, operators.run_label(context), now + wait + CLAIM, now)


class LookOperator(_DmsOperator):
    """Look at every task once, decide, and keep each plan in the ledger. Changes nothing.

    :param watch: True for the scheduled run of all enabled specs; False for an action on one
    """

    def __init__(self, *, watch: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.watch = watch

    def execute(self, context: Context) -> list[dict[str, Any]]:
        """The specs that have something to be done, compared or proven, each with what that is."""
        chosen, wanted = self.asked(context)
        items: list[dict[str, Any]] = []
        if chosen:
            self.start_run(context, None if self.watch else chosen[0], chosen[0].aws_connection)
        for members in by_account(chosen):
            with self.explained(members[0], UNTOUCHED, "Clear this task."):
                items += self._group(context, members, wanted)
        self.log.info("%d of %d specs have something to do", len(items), len(chosen))
        return items

    def asked(self, context: Context) -> tuple[list[DmsSpec], Wanted]:
        """The specs and the action. Raises Stopped for wrong parameters, before anything is asked."""
        from dbops.dms.control import CONFIRMED, Wanted

        chosen, params = self.chosen(context), context["params"]
        if self.watch:
            return chosen, Wanted(is_watch=True)
        if not params.get("spec"):
            known = ", ".join(specs.names(self.room)) or "none"
            self._wrong(f"spec is empty: name one; known specs: {known}")
        action: Action = params["action"]
        is_confirmed = params.get("confirm") == chosen[0].name
        if action in CONFIRMED and not params["dry_run"] and not is_confirmed:
            self._wrong(f"confirm is {params.get('confirm')!r}: type {chosen[0].name!r} to let this run {action}")
        tables = tuple(self._table(text) for text in params.get("tables") or ())
        drain_at = context["dag_run"].start_date if action == "drain" else None
        is_looking = bool(params["dry_run"] or action == "status")
        return chosen, Wanted(action, tables, is_confirmed=is_confirmed, drain_at=drain_at, is_looking=is_looking)

    def _wrong(self, text: str) -> None:
        raise Stopped(text, happened=UNTOUCHED, safe_next=CORRECT_FORM)

    def _table(self, text: str) -> Any:
        from dbops.dms.mappings import Table

        schema, dot, name = text.partition(".")
        if not (schema and dot and name):
            self._wrong(f"tables: {text!r} is not schema.table")
        return Table(schema, name)

    def _group(self, context: Context, members: list[DmsSpec], wanted: Wanted) -> list[dict[str, Any]]:
        """The specs of one account and region: everything is asked for once."""
        from dbops import asking
        from dbops.dms import account, control, health

        services, run = self.services(members[0]), operators.run_label(context)

        def over(other: str) -> bool:
            return is_over(context, other)

        names, refused = [spec.name for spec in members], None
        # Claimed before it is looked at: what is seen is not changed by another run any more.
        if self.watch:
            now = services.now()
            refused = services.ledger.claim_many(names, run, now + control.CLAIM, now)
            refused = {
                name: error
                for name, error in refused.items()
                if not control.is_taken_over(services, name, run, error, over)
            }
        elif not wanted.is_looking:
            control.claim(services, members[0], run, over)
        held = asking.ask(services.dms, account.look(members))
        services.ledger.saw({spec.name: held.task(spec) for spec in members}, services.now())
        following = [spec for spec in members if spec.has_cdc and held.task(spec).arn]
        minutes = max((health.window(spec) for spec in following), default=0)
        tasks = [held.task(spec) for spec in following]
        measured = {}
        if tasks:
            question = health.latencies(tasks, held.instances, until=services.now(), minutes=minutes)
            measured = asking.ask(services.cloudwatch, question)
        documents = control.look(services, members, held, wanted, run, measured, refused=refused)
        items = []
        for name in names:
            self.log.info("%s: %s", name, control.headline(documents[name]))
            item = {"spec": name, **{key: documents[name][key] for key in ("carry", "compare", "prove")}}
            if not self.watch or any(item[key] for key in ("carry", "compare", "prove")):
                items.append(item)
        # What needs nothing is free for others at once; the rest is this run's until its report.
        services.ledger.release_claims(sorted({*names} - {item["spec"] for item in items}), run)
        return items


class _ItemOperator(_DmsOperator):
    """Works on one spec of the run.

    :param item: what the look says of it (templated)
    :param watch: True in the scheduled run of all enabled specs
    """

    template_fields = ("item",)

    def __init__(self, *, item: Any, watch: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.item = item
        self.watch = watch

    def opened(self, context: Context) -> tuple[DmsSpec, Services, dict[str, Any]]:
        """The spec, its services, and the plan of this run."""
        spec = self.load(self.item["spec"])
        services = self.services(spec)
        document = services.ledger.plan(operators.run_label(context), spec.name)
        if document is None:
            raise Stopped(
                f"this run has kept no plan for {spec.name}",
                happened=UNTOUCHED,
                safe_next="Start a new run.",
                target=spec.name,
            )
        return spec, services, document

    def is_dry(self, context: Context) -> bool:
        """Whether this run changes nothing."""
        params = context["params"]
        return bool(params.get("dry_run", not self.watch) or params.get("action") == "status")

    def stop(
        self, context: Context, services: Services, spec: DmsSpec, text: str, happened: str, safe_next: str
    ) -> None:
        """Fail with an alert; in a scheduled run only once in a while for the same thing."""
        from dbops.store import kept_text

        run = operators.run_label(context)
        if self.watch:
            about = _about(kept_text(text))
            told = services.ledger.events(spec.name, kind="alert", since=services.now() - QUIET)
            if any(_about(one.reason) == about and one.run != run for one in told):
                raise AirflowSkipException(f"alerted before, not again: {text}")
        services.ledger.note(spec.name, run, "alert", text)
        raise Stopped(text, happened=happened, safe_next=safe_next, target=self.target(spec))


class CarryOutOperator(_ItemOperator):
    """Carry out the plan step by step, waiting in the triggerer.

    :param asking_task_id, approval_task_id: tasks of the approval; None where the DAG has none
    """

    def __init__(
        self, *, asking_task_id: str | None = None, approval_task_id: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.asking_task_id = asking_task_id
        self.approval_task_id = approval_task_id

    def execute(self, context: Context, event: dict[str, Any] | None = None) -> list[str]:
        """What was done. Raises Stopped when the plan is refused, or nobody has approved what needs it."""
        from dbops.dms import carry, control

        spec, services, document = self.opened(context)
        run = operators.run_label(context)
        if self.is_dry(context):
            raise AirflowSkipException(f"dry run: {control.headline(document)}")
        self._require(context, services, spec, document)
        steps = [carry.step_of(one) for one in document["steps"]]
        if not steps:
            if not self.watch:
                control.remember_hand(services, spec, run, document)
            raise AirflowSkipException(control.headline(document))
        with self.explained(spec, STANDING, AGAIN):
            self.claim(context, services, spec)
            if begun := services.ledger.steps(run, spec.name):
                control.require_same(services, spec, document, begun)
            else:
                control.require_unchanged(services, spec, document)
            waiting = carry.advance(services.dms, services.ledger, spec, run, steps, services.now)
            if waiting is not None:
                self._wait(context, services, spec, waiting)
            if not self.watch:
                control.remember_hand(services, spec, run, document)
        return [f"{step}" for step in steps]

    def _require(self, context: Context, services: Services, spec: DmsSpec, document: dict[str, Any]) -> None:
        if document.get("error"):
            self.stop(
                context, services, spec, document["error"], UNTOUCHED, "Repair what is named; the next run looks again."
            )
        if refusals := document["refusals"]:
            self.stop(
                context,
                services,
                spec,
                control_text(document, refusals),
                UNTOUCHED,
                document["decision"]["next_step"] or AGAIN,
            )
        if approvals := document["approvals"]:
            answer = self._answer(context)
            if answer != document["digest"]:
                told = "nobody has approved it" if not answer else "what was approved is another plan"
                self.stop(
                    context, services, spec, control_text(document, [*approvals, told]), UNTOUCHED,
                    f"Run dms_task_control with spec {spec.name}, dry_run false, and approve its plan.",
                )  # fmt: skip

    def _answer(self, context: Context) -> str:
        """Digest of the plan that a person approved, "" when nobody did."""
        if not (self.asking_task_id and self.approval_task_id):
            return ""
        ti = context["ti"]
        asked = ti.xcom_pull(task_ids=self.asking_task_id, key="asked") or []
        for index, one in enumerate(asked):
            answer = ti.xcom_pull(task_ids=self.approval_task_id, map_indexes=index) or {}
            if one["spec"] == self.item["spec"] and (answer.get("chosen_options") or []) == [APPROVE]:
                who = answer.get("responded_by_user") or {}
                self.log.info("approved by %s", who.get("name") or who.get("id") or "unknown")
                return str(one["digest"])
        return ""

    def _wait(self, context: Context, services: Services, spec: DmsSpec, waiting: Waiting) -> None:
        from dbops.dms import carry
        from dbops.dms.triggers import DmsStepTrigger

        left = waiting.deadline - services.now()
        self.claim(context, services, spec, left)
        self.log.info("%s: %s; waiting in the triggerer", waiting.step, waiting.progress.text)
        self.defer(
            trigger=DmsStepTrigger(
                spec=spec.model_dump(mode="json"),
                step=carry.step_document(waiting.step),
                note=waiting.note,
                deadline=waiting.deadline.isoformat(),
                poll_s=poll_s(),
            ),
            method_name="execute",
        )


class ListApprovalsOperator(_DmsOperator):
    """Subject and body of the approval that the plan needs; none for a dry run, and none for a plan that is refused anyway."""

    def execute(self, context: Context) -> list[dict[str, str]]:
        """``[{"subject", "body"}]`` for the approval task; specs and digests go to XCom ``asked``."""
        requests, asked = [], []
        for item in context["ti"].xcom_pull(task_ids=ITEMS) or []:
            spec = self.load(item["spec"])
            document = self.services(spec).ledger.plan(operators.run_label(context), spec.name) or {}
            if context["params"]["dry_run"] or document.get("refusals") or not document.get("approvals"):
                continue
            steps = "\n".join(f"- {one['kind']} {one['subject']}: {one['why']}" for one in document["steps"])
            why = "\n".join(f"- {one}" for one in document["approvals"])
            asked.append({"spec": spec.name, "digest": document["digest"]})
            requests.append(
                {
                    "subject": f"{document['action']} of {self.target(spec)}?",
                    "body": f"{why}\n\nWhat is done when you approve:\n\n{steps}\n\nDigest of this plan: `{document['digest']}`",
                }
            )
        context["ti"].xcom_push(key="asked", value=asked)
        return requests


class AwaitTaskOperator(_ItemOperator):
    """Wait in the triggerer until the load has ended, or the draining task has stopped."""

    def execute(self, context: Context, event: dict[str, Any] | None = None) -> str:
        """How it ended. Raises Stopped when it ended badly, or not in time."""
        from dbops import asking
        from dbops.dms import canary, carry, control, proving
        from dbops.dms.triggers import DmsTaskTrigger

        spec, services, document = self.opened(context)
        what = control.awaited(spec, document)
        if self.is_dry(context) or not what:
            raise AirflowSkipException("there is nothing to wait for")
        run = operators.run_label(context)
        steps = services.ledger.steps(run, spec.name)
        if any((steps.get(n) or {}).get("state") != "done" for n in range(len(document["steps"]))):
            raise AirflowSkipException("the plan was not carried out to its end")
        with self.explained(spec, STANDING, AGAIN):
            found = asking.ask(services.dms, carry.WAITS[what](spec))
            self.log.info("%s: %s (%s)", what, found.state, found.text)
            if found.state == "done":
                services.ledger.note(spec.name, run, what, found.text)
                return found.text
            begun = max((one["noted_at"] for one in steps.values()), default=services.now())
            deadline = begun + timedelta(hours=spec.limits.load_hours)
            if found.state == "failed" or services.now() > deadline:
                late = "" if found.state == "failed" else f" (limits.load_hours is {spec.limits.load_hours:g})"
                services.ledger.note(spec.name, run, "failed", found.text)
                raise Stopped(
                    f"{what}: {found.text}{late}", happened="The task at AWS was left as it is.",
                    safe_next="Read the report: it names cause and action for each table. Then run ensure, or reload_tables.",
                    target=self.target(spec),
                )  # fmt: skip
            self.claim(context, services, spec, deadline - services.now())
            if what == "drained" and spec.canary:
                # DMS stops at the first commit after its stop position: a source where nobody writes has none.
                with services.connect(spec.connection) as connection:
                    canary.write(
                        connection, spec, proving.token(f"{run} drained", context["ti"].try_number), services.now()
                    )
            self.defer(
                trigger=DmsTaskTrigger(
                    spec=spec.model_dump(mode="json"), what=what, deadline=deadline.isoformat(), poll_s=poll_s()
                ),
                method_name="execute",
            )


class ReconcileOperator(_ItemOperator):
    """Compare rows of source and target after a load, whatever DMS says of it."""

    def execute(self, context: Context) -> list[str]:
        """The comparison of each table. Raises Stopped when rows differ."""
        from dbops.dms import hook, reconciling

        spec, services, _ = self.opened(context)
        if self.is_dry(context):
            raise AirflowSkipException("dry run: nothing is compared")
        if self.watch and not self.item["compare"]:
            raise AirflowSkipException("no load has ended since the last comparison")
        with self.explained(spec, READ, "Clear this task: it goes on with the tables that are not compared yet."):
            if not (tables := reconciling.due(services, spec)):
                raise AirflowSkipException("no load has ended since the last comparison")
            run = operators.run_label(context)
            self.claim(context, services, spec, timedelta(hours=spec.limits.load_hours))
            found = reconciling.compare(
                services, spec, run, tables, lambda service: hook.client(service, spec), hook.existing_target(spec)
            )
        lines = [reconciling.text(one) for one in found]
        for line in lines:
            self.log.info("%s", line)
        if bad := [reconciling.text(one) for one in found if one.status in ("differ", "unsettled")]:
            self.stop(
                context, services, spec, "; ".join(bad), READ,
                f"Run dms_task_control with spec {spec.name} and action ensure: it reloads tables that differ, with an approval where"
                " the spec is protected. One that is unsettled is compared again by the next run.",
            )  # fmt: skip
        return lines


class HealthOperator(_ItemOperator):
    """Prove that replication lives: write the canary, and wait in the triggerer until it is seen at the target.

    :param wait_for_latency: wait for latencies that are known and small as well (after a start they are not known for minutes)
    """

    def __init__(self, *, wait_for_latency: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.wait_for_latency = wait_for_latency

    def execute(self, context: Context) -> dict[str, Any]:
        """The verdict. Raises Stopped when it is unhealthy."""
        from dbops.dms import proving
        from dbops.dms.triggers import DmsLatencyTrigger

        spec, services, document = self.opened(context)
        if self.is_dry(context) or not proving.is_running(spec, document):
            raise AirflowSkipException("there is nothing to prove: no task runs that follows changes")
        with self.explained(spec, LEFT, "Clear this task."):
            if self.wait_for_latency or self._is_other(document):
                deadline = services.now() + proving.metrics_patience(spec)
                self.claim(context, services, spec, deadline - services.now())
                self.defer(
                    trigger=DmsLatencyTrigger(
                        spec=spec.model_dump(mode="json"), deadline=deadline.isoformat(), poll_s=poll_s()
                    ),
                    method_name="measured",
                )
        return self.measured(context)

    def _is_other(self, document: dict[str, Any]) -> bool:
        """Whether the steps of a run over many have made the task another one than its look saw."""
        return self.watch and bool(document["steps"])

    def measured(self, context: Context, event: dict[str, Any] | None = None) -> dict[str, Any]:
        """Write the canary, and wait for it."""
        from dbops.dms import canary, proving
        from dbops.dms.triggers import DmsCanaryTrigger

        spec, services, _ = self.opened(context)
        with self.explained(spec, LEFT, "Clear this task."):
            if spec.canary:
                token, written_at = (
                    proving.token(operators.run_label(context), context["ti"].try_number),
                    services.now(),
                )
                with services.connect(spec.connection) as connection:
                    canary.write(connection, spec, token, written_at)
                deadline = written_at + timedelta(seconds=spec.canary.max_age_s)
                self.claim(context, services, spec, deadline - written_at)
                self.defer(
                    trigger=DmsCanaryTrigger(
                        spec=spec.model_dump(mode="json"), deadline=deadline.isoformat(), token=token,
                        written_at=written_at.isoformat(), poll_s=poll_s(),
                    ),
                    method_name="proven",
                )  # fmt: skip
        return self.proven(context, {})

    def proven(self, context: Context, event: dict[str, Any]) -> dict[str, Any]:
        """Judge with what the trigger saw: one about many goes by its look, unless its steps changed the task; else it is asked anew."""
        from dbops.dms import hook, proving

        spec, services, document = self.opened(context)
        with self.explained(spec, LEFT, "Clear this task."):
            seen = proving.seen(event)
            if self.watch and not self._is_other(document):
                found = proving.combined(spec, document["health"], seen)
            else:
                found = proving.judge(services, spec, seen)
            if spec.consumer:
                stream = hook.stream_arn(spec)
                found = proving.with_consumer(
                    spec, found, stream, lambda service: hook.client(service, spec), services.now()
                )
        text = "; ".join(found.reasons)
        self.log.info("%s: %s", found.verdict, text)
        services.ledger.note(spec.name, operators.run_label(context), "health", f"{found.verdict}: {text}")
        if found.verdict == "unhealthy":
            self.stop(
                context, services, spec, f"unhealthy: {text}", LEFT,
                "Read the report: charts of both latencies, tables and failures with what to do. The source is not at risk.",
            )  # fmt: skip
        return {"spec": spec.name, "verdict": found.verdict, "reasons": list(found.reasons)}


class ReportOperator(_DmsOperator):
    """One report of the run, from a look at its end; ends the run's claims."""

    def __init__(self, *, watch: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.watch = watch

    def execute(self, context: Context) -> None:
        """Raises nothing of what the run found: the tasks before it are red for that."""
        from dbops.dms import reporting, summary

        chosen, params = self.chosen(context), context["params"]
        if not chosen:
            raise AirflowSkipException("no spec is enabled")
        run = operators.run_label(context)
        judged = context["ti"].xcom_pull(task_ids="health") or []
        # Of one mapped task Airflow gives its value, of several a sequence.
        proven = {one["spec"]: one for one in ([judged] if isinstance(judged, dict) else judged) if one}
        found = []
        with self.explained(chosen[0], "Every step before this one is in the ledger.", "Clear this task."):
            for members in by_account(chosen):
                services = self.services(members[0])
                services.ledger.release_claims([spec.name for spec in members], run)
                found += reporting.standings(services, members, run, proven, is_watch=self.watch)
            common = self.common(context, chosen[0].aws_connection, {})
            if self.watch:
                services.ledger.tidy(services.now())
                report = summary.report_many(found, common)
            else:
                report = summary.report(found[0], common, action=params["action"], dry_run=params["dry_run"])
            self.publish(context, report, chosen[0].aws_connection)


def is_over(context: Context, run: str) -> bool:
    """Whether a run (``dag_id/run_id``) has ended, by what Airflow says; one that Airflow does not know is taken for alive."""
    dag_id, _, run_id = run.partition("/")
    try:
        state = context["ti"].get_dagrun_state(dag_id=dag_id, run_id=run_id)
    except Exception as error:  # whatever the API raises: the claim then holds until it expires
        logging.getLogger(__name__).warning("state of %s is unknown: %s", run, error)
        return False
    return str(getattr(state, "value", state)) in ("success", "failed")


def by_account(chosen: list[DmsSpec]) -> list[list[DmsSpec]]:
    """The specs of each account and region."""
    groups: dict[tuple[str, str | None], list[DmsSpec]] = {}
    for spec in chosen:
        groups.setdefault((spec.aws_connection, spec.region), []).append(spec)
    return list(groups.values())


def control_text(document: dict[str, Any], reasons: list[str]) -> str:
    """Why a plan is not carried out, with the failures that were recognised."""
    return "; ".join([*reasons, *(one["text"] for one in document["failures"])])


def _about(text: str) -> str:
    """What an alert is about: a latency or an age that differs each time does not make it another one, a name does."""
    return re.sub(r"(?<![\w.#-])\d[\d.,:]*(?![\w-])", "#", text)


def poll_s() -> float:
    """Seconds between two looks of a trigger (DBOPS_POLL_S, default 15)."""
    return float(os.environ.get("DBOPS_POLL_S", "15"))
