"""What a DBA may declare, and that no secret stands in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from dbops import specs
from dbops.dms.mappings import Table
from dbops.dms.spec import ROOM, DmsSpec
from dbops.specs import SpecError
from tests.dms import dms_kit
from tests.dms.dms_kit import DYNAMODB, KINESIS, MYSQL, MYSQL_TARGET, S3, SELECT_ALL, SOURCE_ARN, spec

SERVERLESS = {"kind": "serverless", "max_dcu": 8}
EXISTING = {"kind": "existing", "arn": SOURCE_ARN, "engine": "mysql"}


@pytest.mark.parametrize("target", [MYSQL_TARGET, DYNAMODB, KINESIS, S3, {**EXISTING, "engine": "kinesis"}])
@pytest.mark.parametrize("compute", [{"kind": "instance", "identifier": "dms-one"}, SERVERLESS])
def test_what_may_be_declared(target: dict[str, Any], compute: dict[str, Any]) -> None:
    found = spec(target=target, compute=compute)
    assert found.target_engine == target.get("engine", target["kind"])
    assert found.task_identifier == "shop-orders"
    assert (found.has_load, found.has_cdc, found.protected, found.wanted) == (True, True, True, "running")


def test_parts_by_task_type_and_canary() -> None:
    load = spec(task_type="full-load", canary={"schema_name": "shop", "table": "dms_canary"})
    assert (load.has_load, load.has_cdc, load.canary_table) == (True, False, Table("shop", "dms_canary"))
    cdc = spec(task_type="cdc", cdc_start="mysql-bin.000024:373")
    assert (cdc.has_load, cdc.has_cdc, cdc.canary_table) == (False, True, None)
    for position in ("checkpoint:V1#27#mysql-bin-changelog.157832:1975:-1:2#2", "2026-03-01T12:00:00"):
        assert spec(task_type="cdc", cdc_start=position).cdc_start == position


@pytest.mark.parametrize(
    ("more", "word"),
    [
        ({"password": "x"}, "password"),
        ({"source": {**MYSQL, "settings": {"Password": "x"}}}, "Password does not belong in a spec"),
        ({"target": {**S3, "settings": {"aws_secret_key": "x"}}}, "does not belong in a spec"),
        ({"source": {**MYSQL, "settings": {"ServerName": "db.example.com"}}}, "ServerName is in the secret"),
        ({"source": {**MYSQL, "secret_arn": "hunter2"}}, "secret_arn"),
        ({"source": {**MYSQL, "identifier": "1a"}}, "a letter first"),
        ({"source": {**MYSQL, "identifier": "a--b"}}, "single hyphens"),
        ({"identifier": "a-"}, "no hyphen at the end"),
        ({"source": {**EXISTING, "engine": "kinesis"}}, "is no MySQL"),
        ({"source": KINESIS}, "does not match any of the expected tags"),
        ({"target": MYSQL}, "it is the source"),
        ({"source": EXISTING, "target": EXISTING}, "it is the source"),
        ({"cdc_start": "mysql-bin.000024:373"}, "only a task of task_type cdc"),
        ({"task_type": "cdc", "cdc_start": "yesterday"}, "no position"),
        ({"task_type": "incremental"}, "full-load"),
        ({"mappings": []}, "mappings"),
        ({"mappings": [{**SELECT_ALL, "rule-action": "take"}]}, "rule-action 'take'"),
        ({"settings": {"Logging": 1}}, "a group of keys"),
        ({"canary": {"schema_name": "ops", "table": "canary"}}, "no rule of mappings selects ops.canary"),
        ({"compute": {**SERVERLESS, "max_dcu": 3}}, "3 is not one of"),
        ({"compute": {**SERVERLESS, "min_dcu": 16}}, "more than max_dcu"),
        ({"overrides": {"lob-cut": " "}}, "has no reason"),
    ],
)
def test_what_may_not(more: dict[str, Any], word: str) -> None:
    with pytest.raises(ValidationError, match=word):
        dms_kit.spec(**more)


YAML = """
description: orders to the new store
owner: shop-dba
task_type: full-load-and-cdc
compute: {kind: instance, identifier: dms-one}
source:
  kind: aurora
  identifier: shop-blue
  secret_arn: arn:aws:secretsmanager:eu-central-1:123456789012:secret:shop-dms
  secret_role_arn: arn:aws:iam::123456789012:role/dms
target:
  kind: kinesis
  identifier: shop-kinesis
  role_arn: arn:aws:iam::123456789012:role/dms
  stream_arn: arn:aws:kinesis:eu-central-1:123456789012:stream/shop
mappings:
  - rule-type: selection
    rule-id: 1
    rule-action: include
    object-locator: {schema-name: shop, table-name: orders}
settings:
  ErrorBehavior: {FailOnNoTablesCaptured: true, RecoverableErrorCount: 20}
"""


def test_a_file_is_read_and_its_errors_name_the_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DBOPS_SPECS_DIR", str(tmp_path))
    (tmp_path / ROOM).mkdir()
    (tmp_path / ROOM / "shop_orders.yaml").write_text(YAML)
    found = specs.load(ROOM, "shop_orders", DmsSpec)
    assert (found.task_identifier, found.source.kind, found.settings["ErrorBehavior"]["RecoverableErrorCount"]) == (
        "shop-orders",
        "aurora",
        20,
    )
    (tmp_path / ROOM / "shop_orders.yaml").write_text(YAML.replace("role_arn: arn:aws:iam", "password: arn:aws:iam"))
    with pytest.raises(SpecError) as caught:
        specs.load(ROOM, "shop_orders", DmsSpec)
    assert "shop_orders.yaml:10: " in str(caught.value)
    assert "unknown key" in str(caught.value)
