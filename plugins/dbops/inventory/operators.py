"""The inventory's face in Airflow."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowSkipException

from dbops import alerting, connections, operators, reports
from dbops.operators import Stopped

if TYPE_CHECKING:
    from airflow.sdk import Context

    from dbops.inventory.analysis import Inventory
    from dbops.inventory.spec import InventorySpec
    from dbops.inventory.steps import Services

AnyFailureOperator = operators.AnyFailureOperator
READ_ONLY = "The instance was only read; a snapshot is stored whole or not at all."


class _InventoryOperator(operators.RoomOperator["InventorySpec"]):
    room = "inventory"

    def model(self) -> type[InventorySpec]:
        """The spec's class."""
        from dbops.inventory.spec import InventorySpec

        return InventorySpec

    def refusals(self) -> tuple[type[Exception], ...]:
        """One server under two names stays one."""
        from dbops.inventory.history import SecondNameError

        return (SecondNameError,)

    def services(self, spec: InventorySpec) -> Services:
        """How this run reaches the spec's servers."""
        return build_services(spec)


def build_services(spec: InventorySpec) -> Services:
    """Services over the Airflow connections that the spec names."""
    from functools import partial

    from dbops.inventory import steps

    return steps.Services(
        instance=connections.mysql,
        engine=partial(connections.engine, connections.STORE),
        client=partial(connections.aws_client, conn_id=spec.aws_connection),
    )


class ListInstancesOperator(_InventoryOperator):
    """Validate the conf; ``{"spec", "instance"}`` for every instance of the chosen specs."""

    def execute(self, context: Context) -> list[dict[str, str]]:
        """Raises Stopped for unknown keys and unknown or wrong specs; skips when none is enabled."""
        found = self.chosen(context)
        if not found:
            raise AirflowSkipException("no spec is enabled")
        return [{"spec": spec.name, "instance": instance.name} for spec in found for instance in spec.instances]


class SnapshotOperator(_InventoryOperator):
    """Read one instance and its logs into the history. `full` also reads bodies and tries raw texts."""

    template_fields = ("target_instance",)

    def __init__(self, *, target_instance: dict[str, str], full: bool, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.target_instance = target_instance
        self.full = full

    def execute(self, context: Context) -> None:
        """A repeated task takes another snapshot: the history then has one interval more, and counts nothing twice."""
        from dbops.inventory import steps

        spec, name = self.load(self.target_instance["spec"]), self.target_instance["instance"]
        with self.explained(
            spec,
            READ_ONLY,
            "Clear this task when the instance answers. What ran until then is still in its counters, unless it restarts.",
        ):
            taken = steps.take_snapshot(self.services(spec), spec, name, _now, full=self.full)
        if not taken.recorded.is_new:
            self.log.warning("dropped: a newer snapshot of %s is in the history already", name)
        ledger = taken.recorded.coverage
        self.log.info(
            "%s: %d sightings, %d new statements, %.2f %% of %d executions explained, %d tried",
            name, taken.sightings, taken.recorded.new_statements, ledger.explained_percent, ledger.executions_total, taken.tried,
        )  # fmt: skip
        for reset in taken.recorded.resets:
            self.log.warning("reset of %s", reset)
        for gap in taken.gaps:
            self.log.warning("gap: %s: %s; remedy: %s", gap.what, gap.why, gap.remedy)


class CloseWindowOperator(_InventoryOperator):
    """``{"spec", "until"}`` for every spec to analyse: the window ends here, however often the analysis is repeated."""

    def execute(self, context: Context) -> list[dict[str, str]]:
        """Raises Stopped as :class:`ListInstancesOperator`."""
        return [{"spec": spec.name, "until": _now().isoformat()} for spec in self.chosen(context)]


class AnalyseOperator(_InventoryOperator):
    """Judge what the history of the window holds, report it, and alert about new writes on tables under migration."""

    template_fields = ("window",)

    def __init__(self, *, window: dict[str, str], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.window = window

    def execute(self, context: Context) -> str:
        """The verdict. Repeating it for the same run replaces the report."""
        from dbops.inventory import steps, summary

        spec = self.load(self.window["spec"])
        run = operators.run_label(context)
        with self.explained(spec, "Nothing but the store was written.", "Clear this task; repeating it is harmless."):
            self.start_run(context, spec, spec.aws_connection)
            services = self.services(spec)
            found = steps.analyse(
                services, spec, run, datetime.fromisoformat(self.window["until"]),
                window_days=context["params"]["window_days"],
            )  # fmt: skip
            report = summary.report(found, self.common(context, spec.aws_connection, _versions(found)))
            # In this order: what is kept is what the next analysis calls known, and nobody may have missed it.
            self._alarm(services, found, run)
            self.publish(context, report, spec.aws_connection)
            if report.verdict is not reports.Verdict.FAILED:  # or every writer would be new to the next analysis
                steps.keep(services, found, run)
        if report.verdict is reports.Verdict.FAILED:
            raise Stopped(
                "; ".join(report.reasons), happened="Nothing was changed.",
                safe_next="See the red snapshot tasks: without a snapshot there is nothing to analyse.", target=spec.name,
            )  # fmt: skip
        return report.verdict.value

    def _alarm(self, services: Services, found: Inventory, run: str) -> None:
        """Tell of what nobody was told of yet: a task that is repeated, for whatever came after this, tells nobody twice."""
        from dbops.inventory import steps

        spec, changes = found.spec, steps.untold(services, found)
        if not changes:
            return
        lines = [f"{', '.join(map(str, a.writes))}: {a.text[:300]} (statement {a.what})" for a in changes]
        sent = alerting.notify(
            "WARNING",
            f"query_inventory {spec.name}: {len(lines)} new write statements on tables under migration",
            "\n".join(
                ["These are new since the last analysis. Each must write twice before its table moves on.", "", *lines]
            ),
            spec.aws_connection,
        )
        if sent:
            steps.told(services, found, run, changes)
        elif connections.extra(spec.aws_connection).get(alerting.TOPIC_EXTRA):
            raise RuntimeError(
                f"SNS did not take the alert about {len(lines)} new writes; it is sent again when this task is repeated"
            )


def _now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)


def _versions(found: Inventory) -> dict[str, str]:
    from importlib.metadata import version

    servers = {f"MySQL {i.instance}": i.version for i in found.intervals if i.version}
    return {**{p: version(p) for p in ("apache-airflow", "sqlglot")}, **servers}
