"""What the operators of every room share: spec, run, report, and errors that say what has happened and what is safe now."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from dbops import connections, guardrails, reports, specs
from dbops.alerting import Explained

if TYPE_CHECKING:
    from airflow.sdk import Context

UNTOUCHED = "Nothing was written or deleted by this step."
CORRECT_FORM = "Correct the trigger form or the spec."

S = TypeVar("S", bound=specs.Spec)


class Stopped(Explained, AirflowFailException):
    """A refusal: repeating the task cannot help, so it is not retried."""


class RoomOperator(BaseOperator, Generic[S]):
    """Base of a room's operators. A room sets `room` and `model`, and may say more by `refusals` and `target`."""

    operator_extra_links = (reports.ReportLink(),)
    room: ClassVar[str]

    def model(self) -> type[S]:
        """The spec's class; imported late, because DAG files import operators."""
        raise NotImplementedError

    def refusals(self) -> tuple[type[Exception], ...]:
        """Errors of this room that repeating the task cannot cure."""
        return ()

    def target(self, spec: S) -> str:
        """What a run of this spec works on, for alerts."""
        return spec.name

    def load(self, name: str) -> S:
        """The spec of that name. Raises Stopped with every error in the file."""
        try:
            return specs.load(self.room, name, self.model())
        except specs.SpecError as error:
            raise Stopped(
                str(error), happened=UNTOUCHED, safe_next="Correct the spec and run again.", target=name
            ) from error

    def chosen(self, context: Context) -> list[S]:
        """The spec that the conf names, or all that are enabled. Raises Stopped for unknown keys, and for unknown or wrong specs."""
        try:
            refuse_unknown_conf(context)
            if name := context["params"].get("spec"):
                return [self.load(name)]
            return specs.load_all(self.room, self.model(), enabled_only=True)
        except (guardrails.Refused, specs.SpecError) as error:
            raise Stopped(str(error), happened=UNTOUCHED, safe_next=CORRECT_FORM) from error

    def require_known_conf(self, context: Context) -> None:
        """Raise Stopped for a key of the conf that the DAG does not declare."""
        try:
            refuse_unknown_conf(context)
        except guardrails.Refused as error:
            raise Stopped(str(error), happened=UNTOUCHED, safe_next=CORRECT_FORM) from error

    def start_run(self, context: Context, spec: S | None, aws_connection: str) -> None:
        """Note in the store that this run works on the spec; None for a run whose one report is about many."""
        from dbops.store import Store

        name = spec.name if spec else ""
        Store.open().start_run(
            context["dag_run"].dag_id, context["run_id"], name, connections.aws_provenance(aws_connection)
        )

    def publish(self, context: Context, report: reports.Report, aws_connection: str) -> None:
        """Publish a report to S3 and the store, link it to this task and log its headline."""
        from dbops.store import Store

        published = reports.publish(
            report,
            s3_client=connections.aws_client("s3", aws_connection),
            uri=str(connections.extra(connections.STORE).get("reports_s3_uri") or ""),
            store=Store.open(),
        )
        context["ti"].xcom_push(key=reports.REPORT_ID_KEY, value=published.report_id)
        self.log.info(
            "%s %s: %s; report %s", report.verdict.value, report.title, "; ".join(report.reasons), published.s3_uri
        )
        for figure in report.figures:
            self.log.info("  %s: %s %s", figure.label, figure.value, f"({figure.note})" if figure.note else "")

    def common(self, context: Context, aws_connection: str, versions: dict[str, str]) -> dict[str, Any]:
        """Fields that every report of this run has."""
        return {
            "dag_id": context["dag_run"].dag_id,
            "run_id": context["run_id"],
            "parameters": {**dict(context["params"]), "scheduled": is_scheduled(context)},
            "versions": versions,
            "provenance": connections.aws_provenance(aws_connection),
        }

    @contextmanager
    def explained(self, spec: S, happened: str, safe_next: str) -> Iterator[None]:
        """Turn what a step raises into an alert that says what happened and what is safe now; refusals are not retried."""
        refused: tuple[type[Exception], ...] = (guardrails.Refused, *self.refusals())
        try:
            yield
        except (AirflowSkipException, Explained):
            raise
        except refused as error:
            raise Stopped(str(error), happened=happened, safe_next=safe_next, target=self.target(spec)) from error
        except Exception as error:
            what = f"{type(error).__name__}: {error}"
            raise Explained(what, happened=happened, safe_next=safe_next, target=self.target(spec)) from error


class AnyFailureOperator(BaseOperator):
    """Fails when a task before it failed (trigger rule one_failed), so that the run is red although later steps went on."""

    def execute(self, context: Context) -> None:
        """Always raises."""
        raise Stopped(
            "at least one task of this run failed", happened="Steps of other specs went on; see the tasks that are red.",
            safe_next="Nothing by itself: the alert of the failed task says what to do.",
        )  # fmt: skip


def refuse_unknown_conf(context: Context) -> None:
    """Raise guardrails.Refused for a key of the conf that the DAG does not declare."""
    # Airflow adds every key of conf to context["params"]; what the DAG declares is in the DAG.
    guardrails.refuse_unknown_conf(context["dag_run"].conf, context["dag"].params)


def is_scheduled(context: Context) -> bool:
    """Whether the scheduler made this run, not a person, an API call or `airflow dags test`."""
    return str(getattr(context["dag_run"].run_type, "value", context["dag_run"].run_type)) == "scheduled"


def run_label(context: Context) -> str:
    """``dag_id/run_id``, at most 300 characters: what audits and stores call this run."""
    return f"{context['dag_run'].dag_id}/{context['run_id']}"[:300]
