"""Every rule: a spec that it holds something against, and the repaired one that it lets pass."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest

from dbops.dms import lint
from dbops.dms.lint import Facts, TableFacts
from dbops.dms.mappings import Table
from dbops.mysql import Column
from tests.dms.dms_kit import DYNAMODB, KINESIS, MYSQL_TARGET, SAFE, SELECT_ALL, TARGET_ARN, spec

README = Path(__file__).resolve().parents[2] / "include" / "lambda" / "cdc_apply" / "README.md"
IMAGE = {"EnableBeforeImage": True, "FieldName": "before-image", "ColumnFilter": "pk-only"}
STREAMED = {**SAFE, "BeforeImageSettings": IMAGE}
CANARY = {"schema_name": "shop", "table": "dms_canary"}
BY_KEY = {
    "rule-type": "object-mapping", "rule-id": "2", "rule-name": "2", "rule-action": "map-record-to-record",
    "object-locator": {"schema-name": "shop", "table-name": "%"}, "mapping-parameters": {"partition-key-type": "primary-key"},
}  # fmt: skip
ITEM = {
    **BY_KEY, "mapping-parameters": {
        "partition-key-name": "pk", "exclude-columns": ["photo"], "attribute-mappings": [
            {"target-attribute-name": "huge", "attribute-type": "scalar", "attribute-sub-type": "string", "value": "${huge}"}],
    },
}  # fmt: skip


def column(name: str, kind: str, **more: Any) -> Column:
    return Column(name, kind.split("(")[0].split(" ")[0], kind, nullable=True, **more)


def table(
    name: str, *columns: Column, key: tuple[str, ...] = ("id",), longest: dict[str, int] | None = None
) -> TableFacts:
    return TableFacts(Table("shop", name), (column("id", "int(11)"), *columns), key, longest)


PLAIN = Facts((table("orders"), table("dms_canary")))
NOTE = Facts((table("orders", column("note", "text"), longest={"note": 40_000}),))


def changed(path: str, value: Any, **more: Any) -> Any:
    settings = copy.deepcopy(SAFE)
    group, _, key = path.partition(".")
    settings.setdefault(group, {})[key] = value
    return spec(settings=settings, canary=CANARY, **more)


def without(path: str, **more: Any) -> Any:
    settings = copy.deepcopy(SAFE)
    group, _, key = path.partition(".")
    settings[group].pop(key)
    return spec(settings=settings, canary=CANARY, **more)


def found(of: Any, facts: Facts = PLAIN) -> dict[str, list[str]]:
    hits: dict[str, list[str]] = {}
    for one in lint.lint(of, facts):
        hits.setdefault(one.rule, []).append(f"{one.where}: {one.text}")
    return hits


def test_a_careful_spec_has_nothing_against_it() -> None:
    assert found(spec(canary=CANARY)) == {}
    assert found(spec(canary=CANARY, target=KINESIS, mappings=[SELECT_ALL, BY_KEY], settings=STREAMED)) == {}
    assert found(spec(canary=CANARY, target=DYNAMODB, overrides={"unconditional-writes": "nobody else writes"})) == {
        "unconditional-writes": ["target: is DynamoDB without a stream in between"]
    }


def test_a_spec_that_decides_nothing_is_held_to_the_defaults() -> None:
    defaults = found(spec(settings={}), Facts())
    assert set(defaults) == {
        "truncation-silent", "data-error-silent", "apply-error-silent", "delete-error-silent", "no-tables-captured",
        "unbounded-restarts", "logging-off", "empties-target", "ddl-follows", "no-canary", "lob-unmeasured",
    }  # fmt: skip
    assert defaults["truncation-silent"] == ["ErrorBehavior.DataTruncationErrorPolicy: is LOG_ERROR, the default"]


KEY = {"mappings": [SELECT_ALL, BY_KEY]}
CASES: list[tuple[str, Any, Facts, str]] = [
    ("unknown-value", changed("ErrorBehavior.DataErrorPolicy", "STOP"), PLAIN, "'STOP' is none of"),
    ("out-of-range", changed("FullLoadSettings.MaxFullLoadSubTasks", 50), PLAIN, "between 1 and 49"),
    ("out-of-range", changed("TargetMetadata.ParallelLoadThreads", 33, target=KINESIS), PLAIN, "between 0 and 32"),
    ("truncation-silent", without("ErrorBehavior.DataTruncationErrorPolicy"), PLAIN, "the default"),
    ("truncation-silent", changed("ErrorBehavior.DataTruncationErrorPolicy", "IGNORE_RECORD"), PLAIN, "is IGNORE_RECORD"),
    ("data-error-silent", changed("ErrorBehavior.DataErrorPolicy", "LOG_ERROR"), PLAIN, "is LOG_ERROR"),
    ("apply-error-silent", without("ErrorBehavior.ApplyErrorUpdatePolicy"), PLAIN, "UpdatePolicy: is LOG_ERROR"),
    ("delete-error-silent", without("ErrorBehavior.ApplyErrorDeletePolicy"), PLAIN, "is IGNORE_RECORD"),
    ("no-tables-captured", without("ErrorBehavior.FailOnNoTablesCaptured"), PLAIN, "is False"),
    ("unbounded-restarts", changed("ErrorBehavior.RecoverableErrorCount", -1), PLAIN, "without a limit"),
    ("logging-off", changed("Logging.EnableLogging", False), PLAIN, "is False"),
    ("stops-contradict", spec(settings={**SAFE, "FullLoadSettings": {
        "TargetTablePrepMode": "DO_NOTHING", "StopTaskCachedChangesApplied": True, "StopTaskCachedChangesNotApplied": True}}),
     PLAIN, "both true"),
    ("empties-target", changed("FullLoadSettings.TargetTablePrepMode", "TRUNCATE_BEFORE_LOAD"), PLAIN, "is TRUNCATE"),
    ("empties-target", without("FullLoadSettings.TargetTablePrepMode", target=DYNAMODB), PLAIN, "DROP_AND_CREATE, the default"),
    ("ddl-follows", without("ChangeProcessingDdlHandlingPolicy.HandleSourceTableDropped"), PLAIN, "is True, the default"),
    ("duplicate-rows", spec(), Facts((table("log", key=()),)), "shop.log: has no primary key"),
    ("validation-unsupported", changed("ValidationSettings.EnableValidation", True, target=KINESIS), PLAIN, "kinesis"),
    ("no-canary", spec(), PLAIN, "not declared"),
    ("lob-cut", spec(), NOTE, "shop.orders.note: holds 40,000 bytes, and 32,768 are carried"),
    ("lob-unmeasured", spec(), Facts((table("orders", column("note", "text")),)), "was not measured"),
    ("lob-unmeasured", spec(), Facts(), "32 KB, and the tables are unknown"),
    ("lob-dropped", changed("TargetMetadata.SupportLobs", False), NOTE, "switched off"),
    ("lob-of-kinesis", changed("TargetMetadata.FullLobMode", True, target=KINESIS), PLAIN, "is true"),
    ("lob-of-kinesis", spec(target=KINESIS), Facts((table("a", longest={"x": 2_000_000}),)), "2,000,000 bytes"),
    ("nothing-selected", spec(mappings=[{**SELECT_ALL, "rule-action": "exclude"}]), PLAIN, "no rule that includes"),
    ("nothing-selected", spec(mappings=[{**SELECT_ALL, "object-locator": {"schema-name": "x", "table-name": "%"}}]), PLAIN,
     "none of the 2 tables"),
    ("rule-matches-nothing", spec(mappings=[SELECT_ALL, {**SELECT_ALL, "rule-id": "2", "rule-name": "2",
     "object-locator": {"schema-name": "shop", "table-name": "Orders"}}]), PLAIN, "rule 2: shop.Orders matches no table"),
    ("every-schema", spec(mappings=[{**SELECT_ALL, "object-locator": {"schema-name": "%", "table-name": "%"}}]), PLAIN, "every schema"),
    ("one-shard", spec(target=KINESIS), PLAIN, "mappings: partition by schema-table"),
    ("one-shard", spec(target=KINESIS, mappings=[SELECT_ALL, {**BY_KEY, "mapping-parameters": {}}]), PLAIN, "rule 2"),
    ("order-lost", spec(target=KINESIS, mappings=[SELECT_ALL, {
        **BY_KEY, "mapping-parameters": {"partition-key-type": "transaction-id"}}]), PLAIN, "transaction-id"),
    ("order-by-attribute", spec(target=KINESIS, mappings=[SELECT_ALL, {
        **BY_KEY, "mapping-parameters": {"partition-key-type": "attribute-name"}}]), PLAIN, "attribute-name"),
    ("bigint-scientific", spec(target={**KINESIS, "use_large_integer_value": False}),
     Facts((table("orders", column("n", "bigint(20) unsigned")),)), "shop.orders.n: is bigint(20) unsigned"),
    ("bigint-scientific", spec(target={**KINESIS, "use_large_integer_value": False}), Facts(), "columns are unknown"),
    ("no-version", spec(target={**KINESIS, "include_transaction_details": False}), PLAIN, "is False"),
    ("no-version", spec(target={"kind": "existing", "arn": TARGET_ARN, "engine": "kinesis"}), PLAIN, "is not set"),
    ("null-looks-absent", spec(target={**KINESIS, "include_null_and_empty": False}), PLAIN, "IncludeNullAndEmpty"),
    ("no-control-records", spec(target={**KINESIS, "include_control_details": False}), PLAIN, "IncludeControlDetails"),
    ("no-alter-records", spec(target={**KINESIS, "include_table_alter_operations": False}), PLAIN, "IncludeTableAlterOperations"),
    ("tables-share-keys", spec(target={**KINESIS, "partition_include_schema_table": False}, **KEY), PLAIN, "is False"),
    ("no-before-image", spec(target=KINESIS), PLAIN, "EnableBeforeImage: is not set"),
    ("no-before-image", spec(target=KINESIS, settings={**SAFE, "BeforeImageSettings": {**IMAGE, "EnableBeforeImage": False}}),
     PLAIN, "is False"),
    ("no-before-image", spec(target=KINESIS, settings={**SAFE, "BeforeImageSettings": {"EnableBeforeImage": True}}), PLAIN, "FieldName"),
    ("unknown-value", spec(target=KINESIS, settings={**SAFE, "BeforeImageSettings": {**IMAGE, "ColumnFilter": "pk"}}), PLAIN,
     "'pk' is none of pk-only, non-lob, all"),
    ("batch-apply", changed("TargetMetadata.BatchApplyEnabled", True, target=KINESIS), PLAIN, "is true"),
    ("dynamodb-key", spec(target=DYNAMODB), Facts((table("a", key=("id", "x")),)), "the primary key (id, x)"),
    ("dynamodb-key", spec(target=DYNAMODB), Facts((table("a", key=()),)), "no primary key"),
    ("dynamodb-key", spec(target=DYNAMODB, mappings=[SELECT_ALL, BY_KEY]), PLAIN, "no partition-key-name"),
    ("dynamodb-binary", spec(target=DYNAMODB), Facts((table("a", column("photo", "blob")),)), "shop.a.photo: is blob"),
    ("dynamodb-digits", spec(target=DYNAMODB), Facts((table("a", column("huge", "decimal(65,30)", numeric_precision=65)),)), "huge"),
    ("unconditional-writes", spec(target=DYNAMODB), PLAIN, "without a stream"),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "of", "facts", "word"), CASES)
def test_what_a_rule_finds(rule: str, of: Any, facts: Facts, word: str) -> None:
    hits = found(of, facts)
    assert rule in hits, hits
    assert any(word in hit for hit in hits[rule]), hits[rule]


def test_every_rule_has_a_case_a_reason_and_a_name_of_its_own() -> None:
    ids = [rule.id for rule in lint.RULES]
    assert sorted(set(ids)) == sorted(ids)
    assert {case[0] for case in CASES} == set(ids)
    assert all(len(rule.reason) > 20 and len(rule.fix) > 5 for rule in lint.RULES)


def test_what_is_repaired_passes() -> None:
    facts = Facts(
        (table("a", column("photo", "blob"), column("huge", "decimal(65,30)", numeric_precision=65), key=("id", "x")),)
    )
    hits = found(spec(target=DYNAMODB, mappings=[SELECT_ALL, ITEM], settings={
        **SAFE, "TargetMetadata": {"FullLobMode": True, "SupportLobs": True}}), facts)  # fmt: skip
    assert set(hits) == {"unconditional-writes", "no-canary"}
    own = {**SELECT_ALL, "rule-type": "table-settings", "rule-id": "9", "rule-name": "9"}
    assert "lob-cut" not in found(spec(mappings=[SELECT_ALL, {**own, "lob-settings": {"mode": "unlimited"}}]), NOTE)
    assert "lob-cut" in found(
        spec(mappings=[SELECT_ALL, {**own, "lob-settings": {"mode": "limited", "max-size": 39}}]), NOTE
    )
    assert "lob-dropped" in found(spec(mappings=[SELECT_ALL, {**own, "lob-settings": {"mode": "none"}}]), NOTE)
    assert "duplicate-rows" not in found(
        changed("FullLoadSettings.TargetTablePrepMode", "DROP_AND_CREATE"), Facts((table("l", key=()),))
    )


def test_an_endpoint_that_exists_is_judged_by_what_aws_says() -> None:
    existing = spec(
        target={"kind": "existing", "arn": TARGET_ARN, "engine": "kinesis"},
        mappings=[SELECT_ALL, BY_KEY],
        canary=CANARY,
        settings=STREAMED,
    )
    held = dict.fromkeys(
        ("IncludeTransactionDetails", "IncludeNullAndEmpty", "IncludeControlDetails", "IncludeTableAlterOperations",
         "PartitionIncludeSchemaTable", "UseLargeIntegerValue"), True,
    )  # fmt: skip
    assert found(existing, Facts(PLAIN.tables, held)) == {}
    assert set(found(existing, Facts())) >= {"no-version", "null-looks-absent", "bigint-scientific"}


def test_what_the_function_behind_a_stream_wants_of_dms_is_held_against_a_spec_that_lacks_it() -> None:
    table = README.read_text().partition("What DMS has to be told:")[2].partition("\n\n`pk-only`")[0]
    rows = [line.split(" | ") for line in table.splitlines() if line.startswith(("| endpoint", "| task"))]
    named = [re.findall(r"`([a-z-]+)`", row[-1]) for row in rows]
    assert len(named) == 7
    assert all(named)
    assert {rule for row in named for rule in row} <= {rule.id for rule in lint.RULES}
    careless = found(
        spec(
            target={"kind": "existing", "arn": TARGET_ARN, "engine": "kinesis"},
            mappings=[SELECT_ALL, {**BY_KEY, "mapping-parameters": {"partition-key-type": "schema-table"}}],
        ),
        Facts((table_of("orders", "bigint(20)", "text"),)),
    )
    assert all(set(row) & careless.keys() for row in named if "tables-share-keys" not in row), careless
    assert {"one-shard"} <= careless.keys()


def table_of(name: str, *kinds: str) -> TableFacts:
    return table(name, *(column(f"c{number}", kind) for number, kind in enumerate(kinds)))


def test_a_stream_without_changes_needs_no_before_image() -> None:
    assert "no-before-image" not in found(spec(target=KINESIS, task_type="full-load"))


def test_an_override_keeps_the_finding_and_lets_it_pass() -> None:
    of = spec(
        settings={**SAFE, "Logging": {"EnableLogging": True}},
        overrides={"lob-cut": "the column is not read", "nonsense": "x"},
    )
    (cut,) = [one for one in lint.lint(of, NOTE) if one.rule == "lob-cut"]
    assert (cut.stops, cut.overridden) == (False, "the column is not read")
    assert lint.unknown_overrides(of) == ("nonsense",)
    (cut,) = [one for one in lint.lint(spec(), NOTE) if one.rule == "lob-cut"]
    assert cut.stops
    assert lint.lint(spec(settings={}), NOTE)[0].stops


def test_only_parts_that_the_task_has_are_judged() -> None:
    load = found(spec(task_type="full-load", settings={}), PLAIN)
    assert not {"apply-error-silent", "delete-error-silent", "ddl-follows", "no-canary"} & load.keys()
    cdc = found(spec(task_type="cdc", settings={}, target=MYSQL_TARGET), Facts((table("log", key=()),)))
    assert not {"empties-target", "duplicate-rows"} & cdc.keys()
