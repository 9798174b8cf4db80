"""The example specs: they load, pass the linter with the tables of the lab, and are planned from nothing; what they share is one thing."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from conftest import ROOT

from dbops import specs
from dbops.dms import decision, endpoints, lint, mappings, plan, settings, states
from dbops.dms.mappings import Table
from dbops.dms.spec import DmsSpec
from dbops.mysql import Column
from lab import config, env, examples
from lab.schema import TABLES
from tests.dms import dms_kit

SPECS = {spec.name: spec for spec in specs.load_all("dms", DmsSpec)}
CDC_APPLY = ROOT / "include/lambda/cdc_apply/README.md"


def column(line: str) -> Column:
    name, kind = re.match(r"  (\w+)\s+(\w+(?:\([^)]*\))?(?: UNSIGNED)?)", line).groups()
    digits = re.search(r"\((\d+),(\d+)\)", kind)
    return Column(
        name, re.match(r"\w+", kind)[0].lower(), kind.lower(), nullable="NOT NULL" not in line,
        numeric_precision=int(digits[1]) if digits else None, numeric_scale=int(digits[2]) if digits else None,
    )  # fmt: skip


def facts() -> lint.Facts:
    """The tables of the lab, from their own DDL, and the canaries."""
    ddl = {Table(config.SOURCE_SCHEMA, name): text for name, text in TABLES.items()}
    ddl |= {Table("dbops_canary", name): examples.CANARY.format(schema="s", table=name) for name in examples.CANARIES}
    found = []
    for table, text in ddl.items():
        columns = tuple(column(line) for line in text.splitlines() if re.match(r"  [a-z]\w* ", line))
        held = lint.TableFacts(table, columns, ("id",))
        found.append(lint.TableFacts(table, columns, ("id",), {one.name: 900 for one in held.lobs}))
    return lint.Facts(tuple(found))


def test_there_is_one_of_each_kind() -> None:
    kinds = {(spec.compute.kind, spec.target_engine) for spec in SPECS.values() if spec.enabled}
    assert kinds == {("instance", "dynamodb"), ("instance", "kinesis"), ("instance", "mysql")}
    assert {(spec.compute.kind, spec.enabled) for spec in SPECS.values() if spec.compute.kind != "instance"} == {
        ("serverless", False)
    }
    for spec in SPECS.values():
        assert spec.canary
        assert spec.assessment or spec.compute.kind == "serverless"


def test_the_facts_are_those_of_the_lab() -> None:
    tables = {str(one.table): one for one in facts().tables or ()}
    assert [one.name for one in tables["carshare.members"].lobs] == ["preferences"]
    assert len(tables["carshare.rides"].columns) == 10
    assert tables["dbops_canary.rides_kinesis"].columns[0].column_type == "int"


@pytest.mark.parametrize("name", SPECS)
def test_the_linter_stops_none_and_no_override_is_idle(name: str) -> None:
    spec = SPECS[name]
    for known in (lint.Facts(), facts()):
        found = lint.lint(spec, known)
        assert [f"{one.where} {one.text}" for one in found if one.stops] == []
    assert [str(one) for one in found if not one.overridden] == [], "with the tables known, each warning is answered"
    assert set(spec.overrides) == {one.rule for one in found}


@pytest.mark.parametrize("name", SPECS)
def test_every_call_of_its_first_plan_is_one_that_botocore_sends(name: str) -> None:
    spec = SPECS[name]
    world = plan.World(states.missing(spec.task_identifier), ())
    if spec.compute.kind == "instance":
        held = states.Instance(spec.compute.identifier, dms_kit.INSTANCE_ARN, "available")
        world = plan.World(world.task, (), (held,))
    known = decision.known(
        world.task, spec.task_type, statistics=None, logs=None, empties=spec.protected and lint.empties_target(spec)
    )
    made = plan.make(spec, world, known, findings=lint.lint(spec, facts()))
    assert not made.is_blocked, (made.refusals, made.approvals)
    kinds = [step.kind for step in made.steps]
    assert kinds[0] == "create_endpoint"
    assert kinds[-1] == "start_task"
    assert ("assess" in kinds) == (spec.assessment is not None)
    arns = {
        plan.SOURCE: dms_kit.SOURCE_ARN, plan.TARGET: dms_kit.TARGET_ARN, plan.INSTANCE: dms_kit.INSTANCE_ARN,
        plan.TASK: dms_kit.TASK_ARN,
    }  # fmt: skip
    for step in made.steps:
        dms_kit.validate(*plan.call(step, arns))


def test_an_endpoint_that_two_specs_name_is_declared_alike() -> None:
    """Else each run of one would change it back for the other."""
    declared: dict[str, Any] = {}
    for spec in SPECS.values():
        for side, end in (("source", spec.source), ("target", spec.target)):
            given = endpoints.arguments(end, side)
            assert declared.setdefault(given["EndpointIdentifier"], given) == given


def test_no_two_specs_write_one_canary_row() -> None:
    canaries = [spec.canary_table for spec in SPECS.values()]
    assert len(set(canaries)) == len(canaries)
    assert {table.name for table in canaries} == set(examples.CANARIES)
    assert {table.schema for table in canaries} == {examples.CANARY_SCHEMA}


def test_they_name_what_the_lab_makes() -> None:
    for spec in SPECS.values():
        assert {spec.connection, spec.aws_connection} | {spec.target_connection or "mysql80"} <= set(env.connections())
        for end in (spec.source, spec.target):
            if end.kind == "mysql":
                assert end.secret_arn.rpartition(":")[2] in examples.SECRETS
        if spec.compute.kind == "instance":
            assert spec.compute.identifier == examples.INSTANCE
        if spec.assessment:
            assert spec.assessment.bucket == config.REPORTS_BUCKET
    assert SPECS["rides_kinesis"].target.stream_arn.endswith(f"stream/{examples.STREAM}")
    assert settings.get(SPECS["fleet_mysql80"].settings, "TargetMetadata.TargetSchema") == examples.TARGET_SCHEMA
    taken = {
        table for spec in SPECS.values() for table in mappings.selected(spec.rules, [one.table for one in facts().tables])
    }  # fmt: skip
    assert {table.name for table in taken if table.schema == config.SOURCE_SCHEMA} == set(TABLES)


def test_the_stream_is_as_cdc_apply_demands_it() -> None:
    """Every setting that the README of the function names in its table of what DMS has to be told."""
    spec = SPECS["rides_kinesis"]
    table = CDC_APPLY.read_text().split("What DMS has to be told:")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (endpoint, mapping|endpoint|mapping|task) \| (.*?) \|", table, re.MULTILINE)
    assert len(rows) == 7
    given = endpoints.settings(spec.target)
    for _, text in (row for row in rows if row[0] == "endpoint"):
        for key in re.findall(r"`(\w+)`", text):
            assert given[key] is True, key
    assert given["PartitionIncludeSchemaTable"] is True
    for one in mappings.selected(spec.rules, [one.table for one in facts().tables]):
        (rule,) = mappings.of_table(spec.rules, mappings.OBJECT_MAPPING, one)
        assert rule["mapping-parameters"]["partition-key-type"] == "primary-key"
    image = json.loads(re.search(r"`BeforeImageSettings` `(\{.*?\})`", table)[1])
    assert spec.settings["BeforeImageSettings"] == image
    assert settings.get(spec.settings, "TargetMetadata.FullLobMode") is False
