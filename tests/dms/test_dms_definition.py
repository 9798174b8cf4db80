"""What a task is made of and which starts AWS allows: only what is declared is compared, and a refusal names the right way."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dbops.dms import starting, states
from dbops.dms.definition import Definition, creation, differences, modification
from dbops.dms.settings import SettingsError
from tests.dms.dms_kit import INSTANCE_ARN, SAFE, SELECT_ALL, SOURCE_ARN, TARGET_ARN, TASK_ARN, task_row, validate

CONFIG_ARN = "arn:aws:dms:eu-central-1:123456789012:replication-config:SHOP"
DECLARED = Definition(
    "shop-orders",
    SOURCE_ARN,
    TARGET_ARN,
    "full-load-and-cdc",
    [SELECT_ALL],
    {"Logging": {"EnableLogging": True}},
    INSTANCE_ARN,
)
SERVERLESS = Definition(
    "shop-orders",
    SOURCE_ARN,
    TARGET_ARN,
    "cdc",
    [SELECT_ALL],
    {"Logging": {"EnableLogging": True}},
    None,
    {"MaxCapacityUnits": 8},
)


def task(**more: Any) -> states.Task:
    return states.task(task_row(**more))


def replication(**more: Any) -> states.Task:
    config = {
        "ReplicationConfigArn": CONFIG_ARN, "ReplicationConfigIdentifier": "shop-orders", "ReplicationType": "cdc",
        "SourceEndpointArn": SOURCE_ARN, "TargetEndpointArn": TARGET_ARN, "TableMappings": json.dumps({"rules": [SELECT_ALL]}),
        "ReplicationSettings": json.dumps(SAFE), "ComputeConfig": {"MaxCapacityUnits": 8, "MultiAZ": False},
    }  # fmt: skip
    return states.serverless(config, more)


def test_what_is_as_declared_differs_in_nothing() -> None:
    assert differences(DECLARED, task()) == ()
    assert differences(SERVERLESS, replication()) == ()
    # AWS answers mappings in its own order and settings with every default.
    other = {**SELECT_ALL, "filters": []}
    assert differences(DECLARED, task(TableMappings=json.dumps({"rules": [other]}))) == ()
    assert differences(Definition("shop-orders"), task(MigrationType="cdc")) == ()


@pytest.mark.parametrize(
    ("row", "text", "cure"),
    [
        ({"SourceEndpointArn": "other"}, "source endpoint is other", "new"),
        ({"TargetEndpointArn": "other"}, "target endpoint is other", "new"),
        ({"MigrationType": "cdc"}, "type is cdc", "new"),
        ({"ReplicationInstanceArn": "other"}, "replication instance is other", "move"),
        ({"TableMappings": json.dumps({"rules": []})}, "rule 1 is added", "modify"),
        ({"ReplicationTaskSettings": "{}"}, "Logging.EnableLogging becomes true", "modify"),
    ],
)
def test_each_difference_is_named_with_its_cure(row: dict[str, Any], text: str, cure: str) -> None:
    (only,) = differences(DECLARED, task(**row))
    assert (text in str(only), only.cure) == (True, cure)


def test_creation_and_modification_are_calls_of_the_api() -> None:
    for declared, method in ((DECLARED, "create_replication_task"), (SERVERLESS, "create_replication_config")):
        name, given = creation(declared)
        assert name == method
        validate(name, given)
    name, given = modification(DECLARED, task(ReplicationTaskSettings='{"Logging": {"LogComponents": []}}'))
    validate(name, given)
    assert (name, set(given)) == ("modify_replication_task", {"ReplicationTaskArn", "ReplicationTaskSettings"})
    assert json.loads(given["ReplicationTaskSettings"]) == {"Logging": {"EnableLogging": True, "LogComponents": []}}
    larger = Definition("shop-orders", compute={"MaxCapacityUnits": 16})
    name, given = modification(larger, replication())
    validate(name, given)
    assert given["ComputeConfig"] == {"MaxCapacityUnits": 16, "MultiAZ": False}
    assert modification(DECLARED, task())[1] == {"ReplicationTaskArn": TASK_ARN}


def test_settings_that_cannot_be_read_are_told() -> None:
    with pytest.raises(SettingsError, match="CloudWatchLogGroup is set by AWS"):
        creation(
            Definition("x", task_settings={"Logging": {"CloudWatchLogGroup": "mine"}}, table_mappings=[SELECT_ALL])
        )


def of(status: str, kind: str = "full-load-and-cdc", *, ran: bool = True, serverless: bool = False) -> states.Task:
    stats = {"StopReason": "Stop Reason NORMAL"} if ran and status == "stopped" else {}
    row: dict[str, Any] = {"Status": status, "MigrationType": kind, **stats}
    if not serverless:
        return states.task({**task_row(**row), "ReplicationTaskStats": {}})
    config = {"ReplicationConfigArn": CONFIG_ARN, "ReplicationConfigIdentifier": "shop", "ReplicationType": kind}
    return states.serverless(config, {"Status": "created" if status == "ready" else status, **stats})


@pytest.mark.parametrize(
    ("standing", "start_type", "position", "text"),
    [
        (of("ready"), "start-replication", False, ""),
        (of("ready", "cdc"), "start-replication", True, ""),
        (of("ready"), "resume-processing", False, "use start-replication"),
        (of("ready"), "reload-target", False, "use start-replication"),
        (of("ready"), "begin", False, "is not one of start-replication, resume-processing, reload-target"),
        (of("ready", "full-load"), "start-replication", True, "a position is only for"),
        (of("stopped"), "resume-processing", False, ""),
        (of("stopped"), "reload-target", False, ""),
        (of("failed"), "resume-processing", False, ""),
        (of("stopped"), "start-replication", False, "use resume-processing, or reload-target"),
        (of("stopped"), "start-replication", True, "use resume-processing, or reload-target"),
        (of("stopped", "cdc"), "start-replication", False, "use resume-processing, or give a position"),
        (of("stopped", "cdc"), "start-replication", True, ""),
        (of("stopped", "cdc"), "reload-target", False, "use resume-processing"),
        (of("stopped"), "resume-processing", True, "a position is only for"),
        (of("stopped", "full-load", serverless=True), "resume-processing", False, "use reload-target"),
        (of("stopped", "full-load", serverless=True), "start-replication", False, "use reload-target"),
        (of("stopped", serverless=True), "resume-processing", False, ""),
        (of("running"), "resume-processing", False, "the task is running; only one that is ready, stopped, failed"),
        (of("modifying"), "start-replication", False, "the task is modifying"),
        (of("a new word"), "start-replication", False, "the task is a new word"),
    ],
)
def test_starts_that_aws_allows(standing: states.Task, start_type: str, position: bool, text: str) -> None:
    found = starting.refusal(standing, start_type, has_position=position)
    assert (found == "") if not text else (text in found), found
