"""Operators of the rehearsal without a lab: names, the form over the spec, what is refused, what a killed task does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from airflow.sdk.exceptions import AirflowSkipException
from conftest import ROOT

from dbops.blue_green import attempts, operators, waits
from dbops.blue_green.spec import RehearsalSpec
from dbops.operators import Stopped
from tests.blue_green.steps_kit import NAME, Kit


@pytest.fixture
def spec() -> RehearsalSpec:
    path = ROOT / "include/specs/blue_green/shop_upgrade.yaml"
    return RehearsalSpec.model_validate({"name": "shop_upgrade", **yaml.safe_load(path.read_text())})


def begin() -> operators.BeginOperator:
    return operators.BeginOperator(task_id="begin")


@pytest.mark.parametrize("spec_name", ["a", "shop_upgrade", "x" * 100, "a_very_long_name_of_a_rehearsal_"])
def test_a_name_is_one_that_rds_takes_with_all_that_it_appends(spec_name: str) -> None:
    name = operators.rehearsal_name(spec_name, "blue_green_rehearsal/manual__2026-01-01")
    assert len(f"{name}-1-green-abcdef-old12") <= 63
    assert name.replace("-", "").isalnum()
    assert name == name.lower()
    assert "--" not in name
    assert name != operators.rehearsal_name(spec_name, "blue_green_rehearsal/manual__2026-01-02")


def test_the_form_replaces_values_of_the_spec(spec: RehearsalSpec) -> None:
    form: dict[str, Any] = {
        "source": {"kind": "snapshot", "snapshot": "shop-1"}, "target_version": "8.0.mysql_aurora.3.10.0", "gigabytes": 0.5,
        "tables": 3, "connections": 0, "ladder": [30, 90], "max_cost_usd": 5, "max_hours": 3, "keep_old": True,
        "instance_class": "db.r5.large",
    }  # fmt: skip
    merged = begin().merged(spec, form)
    assert merged.source.kind == "snapshot"
    assert (merged.target.engine_version, merged.placement.instance_class) == (form["target_version"], "db.r5.large")
    assert (merged.data.gigabytes, merged.data.tables, merged.data.connections) == (0.5, 3, 0)
    assert (merged.ladder, merged.max_cost_usd, merged.max_hours, merged.keep_old) == ([30, 90], 5, 3, True)
    assert begin().merged(spec, dict.fromkeys(operators.FORM)) == spec, "an empty form changes nothing"


@pytest.mark.parametrize(
    ("form", "field"),
    [
        ({"ladder": [20]}, "ladder"), ({"gigabytes": -1}, "gigabytes"), ({"source": {"kind": "dump"}}, "source"),
        ({"max_hours": 0.5}, "expected_hours"),
    ],
)  # fmt: skip
def test_a_form_that_makes_no_spec_names_its_field(spec: RehearsalSpec, form: dict[str, Any], field: str) -> None:
    with pytest.raises(Stopped, match=field):
        begin().merged(spec, form)


def test_every_parameter_of_the_form_is_one_of_the_dag_and_leads_to_a_field(spec: RehearsalSpec) -> None:
    from airflow.dag_processing.dagbag import DagBag

    dag = DagBag(dag_folder=str(ROOT / "dags" / "blue_green_rehearsal.py")).dags["blue_green_rehearsal"]
    assert set(dag.params) == {*operators.FORM, "spec", "dry_run", "confirm"}
    plain = spec.model_dump()
    for path in operators.FORM.values():
        place = plain
        for part in path:
            place = place[part]


def test_the_dag_has_a_group_for_every_rung_that_a_spec_may_have() -> None:
    from airflow.dag_processing.dagbag import DagBag

    from dbops.blue_green.spec import MAX_ATTEMPTS

    dag = DagBag(dag_folder=str(ROOT / "dags" / "blue_green_rehearsal.py")).dags["blue_green_rehearsal"]
    gates = [task for task in dag.tasks if task.task_id.endswith(".gate")]
    assert [task.number for task in gates] == list(range(1, MAX_ATTEMPTS + 1))
    assert dag.get_task("teardown").is_teardown
    assert dag.get_task("begin").is_setup


def test_killing_a_switchover_calls_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any) -> None:
        raise AssertionError("a killed switchover must not reach for AWS")

    monkeypatch.setattr(operators, "build_services", never)
    operators.SwitchoverOperator(task_id="switchover", number=1, deferrable=False).on_kill()


def test_a_switchover_that_aws_did_not_begin_ends_its_task_without_a_retry(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    kit = Kit(tmp_path)
    switchover = operators.SwitchoverOperator(task_id="switchover", number=1, deferrable=True)
    for name, value in (("chosen_spec", kit.spec), ("services", kit.services), ("name", NAME)):
        monkeypatch.setattr(switchover, name, lambda *_, value=value: value)
    monkeypatch.setattr(attempts, "call", lambda *_: None)
    monkeypatch.setattr(waits, "await_switchover", lambda *_: pytest.fail("there is nothing to wait for"))
    assert switchover.execute({}) == "REFUSED"  # type: ignore[typeddict-item]


def test_recordings_are_in_one_folder_for_every_task(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path))
    monkeypatch.delenv(operators.RECORDINGS_VARIABLE, raising=False)
    assert operators.recordings_folder() == tmp_path / "dbops" / "recordings"
    monkeypatch.setenv(operators.RECORDINGS_VARIABLE, "/var/lib/dbops")
    assert operators.recordings_folder() == Path("/var/lib/dbops")


@pytest.mark.parametrize("spec_name", ["shop__upgrade", "shop_", "a" * 23 + "__b", "0__0"])
def test_a_name_never_has_two_hyphens_in_a_row(spec_name: str) -> None:
    """RDS takes none, and would say so only after the parameter groups are made."""
    name = operators.rehearsal_name(spec_name, "blue_green_rehearsal/manual__2026-01-01")
    assert "--" not in name
    assert name.startswith("dbops-")


def test_a_place_that_cannot_be_reached_keeps_the_janitor_from_no_other(
    spec: RehearsalSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = spec.model_copy(update={"placement": spec.placement.model_copy(update={"region": "us-east-1"})})
    swept = []

    def services(of: RehearsalSpec, _: str) -> Any:
        if of is away:
            raise ConnectionError("no route to us-east-1")
        return of

    def sweep(of: Any, **_: Any) -> list[str]:
        swept.append(of)
        return []

    monkeypatch.setattr(operators.specs, "load_all", lambda *_: [away, spec])
    monkeypatch.setattr(operators, "build_services", services)
    monkeypatch.setattr(waits, "sweep", sweep)
    monkeypatch.setattr(operators.operators, "refuse_unknown_conf", lambda _: None)
    monkeypatch.setattr(operators.operators, "is_scheduled", lambda _: True)
    monkeypatch.setattr(operators.operators, "run_label", lambda _: "blue_green_janitor/x")
    with pytest.raises(Stopped, match="us-east-1: ConnectionError: no route"):
        operators.SweepOperator(task_id="sweep").execute({"params": {"dry_run": True}})  # type: ignore[typeddict-item]
    assert swept == [spec]


def test_a_spec_whose_file_is_changed_or_removed_meanwhile_is_run_to_its_end_as_it_began(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Else the teardown would look in another region, find nothing, and call it removed."""
    kit = Kit(tmp_path)
    monkeypatch.setattr(operators.connections, "engine", lambda _: kit.store)
    monkeypatch.setenv("DBOPS_SPECS_DIR", str(tmp_path))
    teardown = operators.TeardownOperator(task_id="teardown")
    monkeypatch.setattr(teardown, "name", lambda _: NAME)
    assert teardown.chosen_spec({"params": {"spec": "shop"}}) == kit.spec  # type: ignore[typeddict-item]
    kit.forget("begin")
    with pytest.raises(Stopped, match="shop"):
        teardown.chosen_spec({"params": {"spec": "shop"}})  # type: ignore[typeddict-item]
    with pytest.raises(Stopped, match="spec is empty"):
        teardown.chosen_spec({"params": {}})  # type: ignore[typeddict-item]


def test_a_rehearsal_that_was_refused_has_no_report_and_no_second_alert(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    kit = Kit(tmp_path)
    kit.forget("begin")
    monkeypatch.setattr(operators.connections, "engine", lambda _: kit.store)
    report = operators.ReportOperator(task_id="report")
    monkeypatch.setattr(report, "name", lambda _: NAME)
    for params in ({"spec": "shop"}, {"spec": "no_such_spec"}, {"spec": None}):
        with pytest.raises(AirflowSkipException, match="did not begin"):
            report.execute({"params": params})  # type: ignore[typeddict-item]
