"""The archive's face in Airflow: each operator reads its arguments, opens services, calls a step, and returns a small reference."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowSkipException

from dbops import connections, guardrails, operators, reports, specs
from dbops.operators import CORRECT_FORM, UNTOUCHED, Stopped

if TYPE_CHECKING:
    from airflow.sdk import Context

    from dbops.archive.preflight import Refusal
    from dbops.archive.services import Services
    from dbops.archive.spec import ArchiveSpec
    from dbops.archive.steps import Planned

APPROVE, REJECT = "Approve", "Reject"
PURGE_ALLOW_EXTRA = "dbops_purge_allow"

AnyFailureOperator = operators.AnyFailureOperator


class _ArchiveOperator(operators.RoomOperator["ArchiveSpec"]):
    """What the archive's operators share: spec, services, and who allowed what."""

    room = "archive"

    def model(self) -> type[ArchiveSpec]:
        """The spec's class."""
        from dbops.archive.spec import ArchiveSpec

        return ArchiveSpec

    def refusals(self) -> tuple[type[Exception], ...]:
        """Errors that repeating the task cannot cure."""
        from dbops.archive.ledger import LedgerError
        from dbops.archive.restore import RestoreError

        return (LedgerError, RestoreError)

    def target(self, spec: ArchiveSpec) -> str:
        """The source table."""
        return spec.full_name

    def dry_run_of(self, context: Context) -> bool:
        """Scheduled runs work, all others only with dry_run false."""
        return not operators.is_scheduled(context) and bool(context["params"]["dry_run"])

    def confirmation(self, context: Context, spec: ArchiveSpec) -> str | None:
        """What stands for the typed confirmation: the parameter, or in a scheduled run the spec's purge.allowed."""
        if operators.is_scheduled(context):
            return spec.full_name if spec.purge.allowed else None
        return context["params"]["confirm"]

    def services(self, context: Context, spec: ArchiveSpec) -> Services:
        """How this run reaches the spec's servers."""
        return build_services(spec, run=operators.run_label(context))

    def report(self, context: Context, spec: ArchiveSpec, report: reports.Report) -> None:
        """Publish a report through the spec's AWS connection."""
        self.publish(context, report, spec.aws_connection)

    def fields(self, context: Context, spec: ArchiveSpec) -> dict[str, Any]:
        """Fields that every report of this run has."""
        return self.common(context, spec.aws_connection, _versions(spec))


def build_services(spec: ArchiveSpec, *, run: str) -> Services:
    """Services over the Airflow connections that the spec names."""
    from functools import partial

    from dbops import store
    from dbops.archive import ledger
    from dbops.archive.services import Services

    return Services(
        source=partial(connections.mysql, spec.connection),
        source_transactional=partial(connections.mysql, spec.connection, autocommit=False),
        reader=partial(connections.mysql, spec.read_connection or spec.connection, raw=True),
        lag_source=partial(connections.lag_source, spec.connection, spec.purge.lag_connection),
        trino=partial(connections.trino, spec.trino_connection),
        s3=partial(connections.aws_client, "s3", spec.aws_connection),
        catalog=partial(connections.iceberg_catalog, spec.iceberg_connection, spec.aws_connection),
        trino_catalog=connections.iceberg_trino_catalog(spec.iceberg_connection),
        migrate=lambda: store.migrate(
            connections.engine(spec.connection, schema=ledger.SCHEMA), ledger.MIGRATIONS, ledger.VERSION_TABLE
        ),
        purge_allowed=connections.patterns(spec.connection, PURGE_ALLOW_EXTRA),
        run=run,
    )


class ChooseSpecsOperator(_ArchiveOperator):
    """Validate the run's conf and return the names of the specs to work on: the one asked for, or all that are enabled."""

    def execute(self, context: Context) -> list[str]:
        """Names of specs. Raises Stopped for unknown keys, unknown or wrong specs, and a purge that names no single table."""
        params = context["params"]
        try:
            operators.refuse_unknown_conf(context)
            if not params.get("spec") and not self.dry_run_of(context) and not operators.is_scheduled(context):
                raise guardrails.Refused(
                    "spec is empty and dry_run is false: name one spec, or leave dry_run true to look at all"
                )
        except guardrails.Refused as error:
            raise Stopped(str(error), happened=UNTOUCHED, safe_next=CORRECT_FORM) from error
        found = self.chosen(context)
        if not found:
            raise AirflowSkipException("no spec is enabled")
        return [spec.name for spec in found]


class PreflightOperator(_ArchiveOperator):
    """Finish a plan that is being given up, then refuse what may not be archived before anything is written; returns the spec's name."""

    template_fields = ("spec",)

    def __init__(self, *, spec: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.spec = spec

    def execute(self, context: Context) -> str:
        """Check services, definitions, settings and grants. Raises Stopped with every refusal, after reporting them.

        Raises Stopped as well when this run accepted a loss, after reporting it: it does nothing else.
        """
        from dbops.archive import steps

        spec, dry_run = self.load(self.spec), self.dry_run_of(context)
        purging = not dry_run and bool(self.confirmation(context, spec))
        with self.explained(spec, UNTOUCHED, "Run again when the cause is gone."):
            self.start_run(context, spec, spec.aws_connection)
            services = self.services(context, spec)
            refusals = steps.check_services(services, spec, dry_run=dry_run)
            if purging:
                guardrails.require_confirmation(self.confirmation(context, spec), spec.full_name)
        if not refusals and not dry_run:
            # Before the table is looked at: what is wrong with it, or that it is gone, must not keep a plan open.
            self._settle(context, spec, services)
        with self.explained(spec, UNTOUCHED, "Run again when the cause is gone."):
            if not any(r.check == "source" for r in refusals):
                # A dry run foresees what the purge would refuse.
                refusals += steps.check_table(services, spec, purging=purging or (dry_run and spec.purge.allowed))
        if refusals:
            self._report_refusals(context, spec, refusals)
        return spec.name

    def _settle(self, context: Context, spec: ArchiveSpec, services: Services) -> None:
        from dbops.archive import steps, summary

        params = context["params"]
        with self.explained(
            spec, "No row was deleted from MySQL. A plan that was being given up stays `abandoning`, with its unpurged rows in MySQL.",
            "Do what the message says, then run again: an abandon goes on where it ended.",
        ):  # fmt: skip
            loss = steps.settle_open_plan(
                services, spec, abandon_open=bool(params["abandon_open_plan"]), adopt_server=params["adopt_server"],
                accept_loss=params["accept_loss"],
            )  # fmt: skip
            if loss is None:
                return
            report = summary.loss_report(spec, loss, self.fields(context, spec))
            self.report(context, spec, report)
        raise Stopped(
            "; ".join(report.reasons), happened=f"The plan is {loss.plan.state}; no row was deleted from MySQL.",
            safe_next="Keep the report. Run again without accept_loss: the archive goes on.", target=spec.full_name,
        )  # fmt: skip

    def _report_refusals(self, context: Context, spec: ArchiveSpec, refusals: list[Refusal]) -> None:
        from dbops.archive import summary

        common = self.fields(context, spec)
        self.report(context, spec, summary.preflight_report(spec, refusals, None, common, dry_run=False))
        raise Stopped(
            f"{len(refusals)} refusals: " + " | ".join(map(str, refusals)),
            happened=UNTOUCHED, safe_next="Apply the fixes that the report names, then run again.", target=spec.full_name,
        )  # fmt: skip


class PlanOperator(_ArchiveOperator):
    """Continue or make the plan; returns ``{"spec", "plan_id", "groups"}`` with plan_id None when there is nothing to do."""

    template_fields = ("spec",)

    def __init__(self, *, spec: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.spec = spec

    def execute(self, context: Context) -> dict[str, Any]:
        """Walk the table. Raises Stopped when rows are refused, after reporting them."""
        from dbops.archive import steps

        spec, dry_run = self.load(self.spec), self.dry_run_of(context)
        with self.explained(
            spec, "No row was exported, or deleted from MySQL, by this step; a plan is stored whole or not at all. One that another run"
            " was giving up is taken out of the lake first, and stays `abandoning` when that failed.", "Run again.",
        ):  # fmt: skip
            # What is to be abandoned is abandoned by the preflight: a repeat of this task must not give up the plan that it made.
            planned = steps.make_plan(
                self.services(context, spec),
                spec,
                _run_date(context),
                dry_run=dry_run,
                adopt_server=context["params"]["adopt_server"],
            )
        self.log.info("%s rows in %s chunks meet: %s", planned.rows, planned.chunks, planned.predicate)
        for note in planned.notes:
            self.log.info("%s", note)
        if planned.plan is None:
            self._report_no_plan(context, spec, planned, dry_run)
            return {"spec": spec.name, "plan_id": None, "groups": []}
        return {
            "spec": spec.name,
            "plan_id": planned.plan.plan_id,
            "groups": [list(span) for span in steps.groups(planned.chunks)],
        }

    def _report_no_plan(self, context: Context, spec: ArchiveSpec, planned: Planned, dry_run: bool) -> None:
        from dbops.archive import summary

        self.report(
            context, spec, summary.preflight_report(spec, [], planned, self.fields(context, spec), dry_run=dry_run)
        )
        if planned.refusals:
            raise Stopped(
                f"{len(planned.refusals)} refusals: " + " | ".join(map(str, planned.refusals)),
                happened=UNTOUCHED, safe_next="Apply the fixes that the report names, then run again.", target=spec.full_name,
            )  # fmt: skip


class ListGroupsOperator(_ArchiveOperator):
    """Flatten the plans into ``{"spec", "plan_id", "span"}``, one for each group of chunks."""

    template_fields = ("plans",)

    def __init__(self, *, plans: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.plans = plans

    def execute(self, context: Context) -> list[dict[str, Any]]:
        """One entry a group, over all specs."""
        return [{"spec": p["spec"], "plan_id": p["plan_id"], "span": span} for p in self.plans for span in p["groups"]]


class _GroupOperator(_ArchiveOperator):
    template_fields = ("group",)

    def __init__(self, *, group: dict[str, Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.group = group

    @property
    def span(self) -> tuple[int, int]:
        first, last = self.group["span"]
        return int(first), int(last)


class ExportOperator(_GroupOperator):
    """Export the chunks of one group to S3."""

    def execute(self, context: Context) -> None:
        """Resumes: chunks that the ledger calls exported are not read again."""
        from dbops.archive import steps

        spec = self.load(self.group["spec"])
        with self.explained(
            spec, "Rows were only read; finished chunks are recorded, their files are not part of the table yet.",
            "Clear this task: it goes on with the chunks that are missing.",
        ):  # fmt: skip
            moved = steps.export_group(self.services(context, spec), spec, self.group["plan_id"], self.span)
        self.log.info("exported %s rows in %.1f s; %s", moved.rows, moved.seconds, moved.message)


class _PlanOperator(_ArchiveOperator):
    template_fields = ("plan",)

    def __init__(self, *, plan: dict[str, Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.plan = plan

    @property
    def plan_id(self) -> str:
        if self.plan["plan_id"] is None:
            raise AirflowSkipException(f"spec {self.plan['spec']}: no plan in this run")
        return str(self.plan["plan_id"])


class PublishOperator(_PlanOperator):
    """Commit the exported files of one plan to its Iceberg table."""

    def execute(self, context: Context) -> None:
        """Resumes: files that the current snapshot holds are not added again."""
        from dbops.archive import steps

        spec, plan_id = self.load(self.plan["spec"]), self.plan_id
        with self.explained(
            spec, "Files that were committed are part of the table; MySQL still has every row.",
            "Clear the failed export first, if there is one, then this task; nothing is added twice.",
        ):  # fmt: skip
            moved = steps.publish_plan(self.services(context, spec), plan_id)
        self.log.info("published %s rows in %.1f s; %s", moved.rows, moved.seconds, moved.message)


class VerifyOperator(_GroupOperator):
    """Prove the published chunks of one group through Trino."""

    def execute(self, context: Context) -> None:
        """Reads only, except for the verdicts in the ledger; repeating it is harmless."""
        from dbops.archive import steps

        spec = self.load(self.group["spec"])
        with self.explained(
            spec, "Nothing was deleted; MySQL still has every row.", "Clear this task when Trino and S3 answer again."
        ):
            moved = steps.verify_group(self.services(context, spec), self.group["plan_id"], self.span)
        self.log.info("verified %s rows in %.1f s; %s", moved.rows, moved.seconds, moved.message)


class ListApprovalsOperator(_ArchiveOperator):
    """Subject and body of the approvals that this run needs, with the digest of what was proven."""

    template_fields = ("plans",)

    def __init__(self, *, plans: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.plans = plans

    def execute(self, context: Context) -> list[dict[str, str]]:
        """``[{"subject", "body"}]`` for the approval tasks; plans and digests go to XCom ``asked``."""
        from dbops.archive import steps

        requests, asked = [], []
        for ref in self.plans:
            spec = self.load(ref["spec"])
            if ref["plan_id"] is None or not spec.purge.approval or not self.confirmation(context, spec):
                continue
            digest, nonce = steps.ask_approval(self.services(context, spec), ref["plan_id"])
            asked.append({"spec": spec.name, "plan_id": ref["plan_id"], "digest": digest, "nonce": nonce})
            requests.append(
                {
                    "subject": f"Purge {spec.full_name}?",
                    "body": f"Plan `{ref['plan_id']}` is archived and verified. Approving deletes its proven rows from"
                    f" `{spec.full_name}`.\n\nDigest of what was proven: `{digest}`",
                }
            )
        context["ti"].xcom_push(key="asked", value=asked)
        return requests


class RecordApprovalsOperator(_ArchiveOperator):
    """Write the answers into the ledger; an answer that is missing or not "Approve" leaves none, and the purge refuses."""

    def __init__(self, *, asking_task_id: str, approval_task_id: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.asking_task_id = asking_task_id
        self.approval_task_id = approval_task_id

    def execute(self, context: Context) -> None:
        """Raises Stopped when the plan is no longer what was approved."""
        from dbops.archive import steps

        ti = context["ti"]
        for index, asked in enumerate(ti.xcom_pull(task_ids=self.asking_task_id, key="asked") or []):
            answer = ti.xcom_pull(task_ids=self.approval_task_id, map_indexes=index) or {}
            chosen, who = answer.get("chosen_options") or [], answer.get("responded_by_user") or {}
            by = str(who.get("name") or who.get("id") or "unknown")
            self.log.info("plan %s: %s by %s", asked["plan_id"], chosen or "no answer", by)
            spec = self.load(asked["spec"])
            with self.explained(spec, UNTOUCHED, "Run again and approve the new digest."):
                if chosen == [APPROVE]:
                    services = self.services(context, spec)
                    steps.approve(services, asked["plan_id"], by, asked["digest"], asked["nonce"])
                else:
                    steps.reject(self.services(context, spec), asked["plan_id"])


class PurgeOperator(_GroupOperator):
    """Delete the proven batches of one group from MySQL."""

    def execute(self, context: Context) -> None:
        """Skips without a confirmation. Resumes: the ledger says which batches are gone."""
        from dbops.archive import steps

        spec = self.load(self.group["spec"])
        confirm = self.confirmation(context, spec)
        if not confirm:
            raise AirflowSkipException(f"not confirmed: rows stay in MySQL; to purge set confirm to {spec.full_name}")
        with self.explained(
            spec, "Batches that the ledger calls done are deleted and proven; all others are untouched in MySQL.",
            "Clear this task, or start a new run: it goes on with the batches that are left.",
        ):  # fmt: skip
            moved, outcome = steps.purge_group(
                self.services(context, spec), spec, self.group["plan_id"], self.span, confirm=confirm
            )
        self.log.info("purged %s rows in %.1f s; %s", moved.rows, moved.seconds, moved.message)
        if outcome.changed:
            self.log.warning("batches changed since the export: %s", outcome.changed[:20])


class ReconcileOperator(_PlanOperator):
    """Hold source, lake and ledger against each other, close the plan, report."""

    def execute(self, context: Context) -> str:
        """The verdict. Raises Stopped when it is FAILED, after reporting."""
        from dbops.archive import steps, summary

        spec, plan_id = self.load(self.plan["spec"]), self.plan_id
        with self.explained(
            spec,
            "The ledger says for every batch whether its rows are deleted.",
            "Clear this task; repeating it is harmless.",
        ):
            found = steps.reconcile(self.services(context, spec), plan_id)
            purging = bool(self.confirmation(context, spec))
            report = summary.run_report(spec, found, purging=purging, common=self.fields(context, spec))
            for stage, rows, seconds, tasks in summary.stage_totals(found):
                self.log.info(
                    "%-8s %12s rows %8.2f s %12s rows/s %4d tasks",
                    stage,
                    rows,
                    seconds,
                    summary.rate(rows, seconds),
                    tasks,
                )
            self.report(context, spec, report)
        if report.verdict is reports.Verdict.FAILED:
            raise Stopped(
                "; ".join(report.reasons), happened="The report lists what was deleted and what stayed.",
                safe_next="Read the report. Rows that are not done are still in MySQL; a new run continues the plan.",
                target=spec.full_name,
            )  # fmt: skip
        return report.verdict.value


class RestoreOperator(_ArchiveOperator):
    """Restore archived rows into a scratch table and prove them equal; never writes to the live table."""

    def execute(self, context: Context) -> list[str]:
        """Names of the scratch tables. Raises Stopped for a wrong selection or unequal rows."""
        import hashlib

        from dbops.archive import restore, steps, summary

        params = context["params"]
        try:
            operators.refuse_unknown_conf(context)
            if not params["spec"]:
                raise guardrails.Refused(f"spec is empty; known specs: {', '.join(specs.names('archive'))}")
        except guardrails.Refused as refused:
            raise Stopped(refused.reason, happened=UNTOUCHED, safe_next="Correct the trigger form.") from refused
        spec = self.load(params["spec"])
        with self.explained(spec, "Live rows were not touched.", "Correct the selection and run again."):
            selection = restore.selection(
                chunks=params["chunks"], column=params["column"], low=params["from"], high=params["to"]
            )
            suffix = "r" + hashlib.sha256(context["run_id"].encode()).hexdigest()[:8]
            restored = steps.restore_rows(
                self.services(context, spec), spec, selection, plan_id=params["plan_id"], suffix=suffix
            )
            report = summary.restore_report(spec, restored, self.fields(context, spec))
            self.report(context, spec, report)
        if report.verdict is reports.Verdict.FAILED:
            raise Stopped(
                "; ".join(report.reasons), happened="The scratch tables hold what the lake gave; live rows were not touched.",
                safe_next="Do not use the scratch tables. Compare them with the lake as the report shows.", target=spec.full_name,
            )  # fmt: skip
        return [".".join(r.scratch) for _, r in restored]


def _run_date(context: Context) -> datetime:
    """The date that the cut-off counts from: as_of, else the run's own date; never the present time."""
    as_of = context["params"].get("as_of")
    run_after = context["dag_run"].run_after
    if not as_of:
        return run_after
    chosen = datetime.fromisoformat(as_of).replace(tzinfo=UTC)
    if chosen > run_after:
        raise guardrails.Refused(
            f"as_of is {as_of}, later than the run ({run_after:%Y-%m-%d}): rows that are not cold yet would go"
        )
    return chosen


def _versions(spec: ArchiveSpec) -> dict[str, str]:
    from importlib.metadata import version

    from dbops import mysql
    from dbops.archive import verify

    source, trino = connections.mysql(spec.connection), None
    found = {p: version(p) for p in ("apache-airflow", "pyiceberg", "pyarrow")}
    try:
        found["MySQL source"] = mysql.read_server(source).version
        trino = connections.trino(spec.trino_connection)
        found["Trino"] = str(verify.trino_rows(trino, "SELECT version()")[0][0])
    except Exception as error:  # a report about a server that is down must still appear
        found["unreachable"] = f"{type(error).__name__}: {error}"[:200]
    finally:
        source.close()
        if trino is not None:
            trino.close()
    return found
