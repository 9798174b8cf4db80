"""The docs say what is true: links lead somewhere, commands exist, examples are accepted, references do not drift."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any
from xml.etree import ElementTree

import boto3
import pytest
import yaml

from dbops import connections
from dbops.archive import codec
from dbops.archive.spec import ArchiveSpec
from dbops.backfill import query
from dbops.backfill.spec import BackfillSpec
from dbops.blue_green.spec import RehearsalSpec
from dbops.dms import lint
from dbops.dms.ledger import Ledger
from dbops.dms.spec import DmsSpec
from dbops.inventory.spec import InventorySpec
from dbops.mysql import Column
from lab import config, examples, mysql, trino

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]
MAKEFILE = (ROOT / "Makefile").read_text()
TEXTS = {page: page.read_text() for page in PAGES}


def blocks(page: Path, language: str) -> list[str]:
    """Code blocks of a page in that language."""
    return re.findall(rf"^```{language}\n(.*?)^```", TEXTS[page], re.MULTILINE | re.DOTALL)


def anchors(text: str) -> set[str]:
    """Anchors of the headings of a page, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def spec_docs() -> ModuleType:
    found = importlib.util.spec_from_file_location("spec_docs", ROOT / "tools" / "spec_docs.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def dags() -> dict[str, Any]:
    from airflow.dag_processing.dagbag import DagBag

    bag = DagBag(dag_folder=str(ROOT / "dags"))
    assert bag.import_errors == {}
    return dict(bag.dags)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", TEXTS[page]) if not re.match(r"https?://", link)]
    broken = []
    for link in links:
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        if not target.exists() or (anchor and anchor not in anchors(target.read_text())):
            broken.append(link)
    assert broken == []


def test_readme_links_every_page_and_the_images_are_images() -> None:
    for page in (ROOT / "docs").glob("*.md"):
        assert f"docs/{page.name}" in TEXTS[README], page.name
    assert (ROOT / "docs/images/report.png").read_bytes().startswith(b"\x89PNG\r\n")
    assert ElementTree.parse(ROOT / "docs/images/architecture.svg").getroot().tag.endswith("svg")  # noqa: S314 - ours


def test_make_targets_that_are_named_exist() -> None:
    targets = set(re.findall(r"^([a-z][a-z-]*):", MAKEFILE, re.MULTILINE))
    places = [*TEXTS.values(), *(f.read_text() for f in (ROOT / "plugins").rglob("*.py"))]
    named = {
        t for text in places for t in re.findall(r"(?:`|^)make (?:[A-Z]+=\S+ )?([a-z][a-z-]*)", text, re.MULTILINE)
    }
    assert {"demo", "test", "bench", "bench-readers"} <= named
    assert named <= targets


def test_lab_commands_that_are_named_exist() -> None:
    known = set(re.findall(r'add_parser\(\s*"(\w+)"', (ROOT / "lab/__main__.py").read_text()))
    named = {c for text in TEXTS.values() for c in re.findall(r"python -m lab (\w+)", text)}
    assert "seed" in named
    assert named <= known


def run_confs() -> list[tuple[str, dict[str, Any]]]:
    """Every conf that the docs show for a DAG run, with its DAG."""
    found = []
    for text in TEXTS.values():
        for dag_id, conf in re.findall(r"airflow dags test (\w+) -c '(\{.*?\})'", text):
            found.append((dag_id, json.loads(conf)))
    for page in (README, ROOT / "docs/archive.md"):
        for block in blocks(page, "json"):
            conf = json.loads(block)
            if "spec" in conf:
                restores = {"column", "plan_id"} & set(conf)
                found.append(("s3_archive_restore" if restores else "s3_archive", conf))
    return found


def test_confs_are_accepted_by_the_dags(dags: dict[str, Any]) -> None:
    confs = run_confs()
    assert len(confs) >= 6
    for dag_id, conf in confs:
        dag = dags[dag_id]
        assert set(conf) <= set(dag.params), f"{dag_id}: {conf}"
        for name, value in conf.items():
            dag.params.get_param(name).resolve(value)  # raises when the schema does not take it
        rooms = {
            "s3_archive": "archive",
            "query_inventory": "inventory",
            "blue_green": "blue_green",
            "backfill": "backfill",
        }
        (room,) = [folder for prefix, folder in rooms.items() if dag_id.startswith(prefix)]
        assert (ROOT / f"include/specs/{room}/{conf['spec']}.yaml").exists(), conf


def test_every_json_block_is_json() -> None:
    for page in PAGES:
        for block in blocks(page, "json"):
            json.loads(block)


def test_every_dag_is_in_the_readme_and_planned_ones_are_called_so(dags: dict[str, Any]) -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \|[^|]*\| (here|planned) \|$", TEXTS[README], re.MULTILINE))
    assert {name for name, state in rows.items() if state == "here"} == set(dags)
    assert {"query_inventory", "blue_green_rehearsal", "dms_task_control", "backfill"} <= set(rows)


def test_grants_are_those_that_the_lab_gives_and_so_tests() -> None:
    sql = "\n".join(blocks(README, "sql"))
    assert f"GRANT {mysql.SERVER_PRIVILEGES} ON *.* TO 'dbops'@'%';" in sql
    assert "GRANT SELECT ON performance_schema.* TO 'dbops'@'%';" in sql
    assert f"GRANT {mysql.SOURCE_PRIVILEGES} ON `{config.SOURCE_SCHEMA}`.* TO 'dbops'@'%';" in sql
    for schema in config.MYSQL57.schemas:
        assert f"GRANT ALL PRIVILEGES ON `{schema}`.* TO 'dbops'@'%';" in sql


def test_example_connections_can_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    examples = re.findall(r"`AIRFLOW_CONN_(\w+)`[^\n]*:\n\n```json\n(.*?)```", TEXTS[README], re.DOTALL)
    assert {name.lower() for name, _ in examples} == {
        connections.AWS, connections.MYSQL, connections.TRINO, connections.ICEBERG, connections.STORE, connections.REDIS,
    }  # fmt: skip
    for name, text in examples:
        monkeypatch.setenv(f"AIRFLOW_CONN_{name}", text)
        assert connections.is_defined(name.lower())
        assert connections.extra(name.lower()) == json.loads(text)["extra"]
    assert connections.iceberg_trino_catalog() == "lake"
    assert connections.aws_provenance() == connections.REAL_AWS


def test_iam_policies_have_the_actions_of_the_clients_that_the_code_opens() -> None:
    policies = [json.loads(block) for block in blocks(README, "json") if '"Statement"' in block]
    services = [{a.split(":")[0] for s in p["Statement"] for a in _list(s["Action"])} for p in policies]
    assert services == [
        {"s3", "glue", "sns"}, {"s3", "glue", "sns"}, {"s3", "sns", "rds", "logs"}, {"s3", "sns", "rds", "cloudwatch"},
        {"s3", "sns", "dms", "cloudwatch", "iam", "dynamodb", "kinesis", "lambda", "sqs"},
        {"s3", "sns", "dynamodb", "dms", "cloudwatch", "logs"},
    ]  # fmt: skip
    inventory = {a for s in policies[2]["Statement"] for a in _list(s["Action"])}
    calls = {"rds:DescribeDBLogFiles", "rds:DownloadDBLogFilePortion", "logs:FilterLogEvents"}
    assert inventory == calls | {"s3:PutObject", "sns:Publish"}
    restore = {a for s in policies[1]["Statement"] for a in _list(s["Action"])}
    assert not {a for a in restore if re.search("Delete|Update|Create", a)}, "a restore only reads the lake"


def test_the_policy_of_a_rehearsal_has_every_call_and_changes_only_what_is_tagged() -> None:
    policy = [json.loads(block) for block in blocks(README, "json") if '"Statement"' in block][3]
    allowed = {a: s for s in policy["Statement"] for a in _list(s["Action"])}
    code = "\n".join(f.read_text() for f in (ROOT / "plugins/dbops/blue_green").glob("*.py"))
    verbs = "create|modify|delete|restore|reboot|switchover|add|list|download"
    called = set(re.findall(rf"\.((?:{verbs})_[a-z_]+)\(", code)) & set(
        dir(boto3.client("rds", region_name="eu-central-1"))
    )
    actions = {
        "rds:" + "".join(w if w in ("DB",) else w.capitalize() for w in c.replace("db", "DB").split("_"))
        for c in called
    }
    assert len(actions) > 15
    assert actions <= set(allowed)
    for action, statement in allowed.items():
        if re.match("rds:(Modify|Delete|Reboot|Switchover|Promote)", action):
            assert statement["Condition"]["StringEquals"] == {"aws:ResourceTag/dbops:rehearsal": "true"}, action


# Calls to other services in the room of DMS, which ask for the rows of a target.
READING = {
    "get_metric_statistics": "cloudwatch:GetMetricStatistics", "list_event_source_mappings": "lambda:ListEventSourceMappings",
    "get_queue_attributes": "sqs:GetQueueAttributes",
    "get_metric_data": "cloudwatch:GetMetricData", "list_metrics": "cloudwatch:ListMetrics", "get_item": "dynamodb:GetItem",
    "batch_get_item": "dynamodb:BatchGetItem", "scan": "dynamodb:Scan", "describe_table": "dynamodb:DescribeTable",
    "list_shards": "kinesis:ListShards", "get_shard_iterator": "kinesis:GetShardIterator", "get_records": "kinesis:GetRecords",
    "describe_stream": "kinesis:DescribeStream", "list_objects_v2": "s3:ListBucket", "get_object": "s3:GetObject",
    "get_secret_value": "secretsmanager:GetSecretValue", "filter_log_events": "logs:FilterLogEvents", "get_log_events": "logs:GetLogEvents",
}  # fmt: skip


def test_the_policy_of_dms_has_every_call_that_the_code_makes_and_passes_roles_to_dms_only() -> None:
    policy = [json.loads(block) for block in blocks(README, "json") if '"Statement"' in block][4]
    allowed = {a: s for s in policy["Statement"] for a in _list(s["Action"])}
    code = "\n".join(f.read_text() for f in (ROOT / "plugins/dbops/dms").rglob("*.py"))
    client = boto3.client("dms", region_name="eu-central-1")
    methods = {method: operation for method, operation in client.meta.method_to_api_mapping.items() if "_" in method}
    # quoted in a question and in the table of steps, or called at a client; the words are ours where they name kinds of steps
    named = set(re.findall(r'"([a-z_]+)"', code)) | set(re.findall(r"\.([a-z_]+)\(", code))
    called = {f"dms:{methods[one]}" for one in named & set(methods)}
    called |= {READING[one] for one in set(re.findall(r"\.([a-z_0-9]+)\(", code)) & set(READING)}
    called |= {READING[one] for one in set(re.findall(r'yield "([a-z_0-9]+)"', code)) & set(READING)}
    assert len(called) > 20
    missing = {one for one in called if one not in allowed and not one.startswith("dms:Describe")}
    assert missing == set()
    assert allowed["dms:Describe*"]["Resource"] == "*"
    assert {one for one in allowed if re.match("dms:(?!Describe)", one)} <= called, "an action that no code calls"
    assert allowed["iam:PassRole"]["Condition"] == {"StringLike": {"iam:PassedToService": "dms*.amazonaws.com"}}


# Calls of a backfill whose action has another name.
ACTIONS = {
    "dynamodb:BatchExecuteStatement": "dynamodb:PartiQLInsert", "s3:HeadObject": "s3:GetObject", "s3:CopyObject": "s3:PutObject",
    "s3:ListObjectsV2": "s3:ListBucket",
}  # fmt: skip
# What ImportTable writes its log with, as the caller (DynamoDB's guide, "Requesting a table import").
IMPORT_LOG = {
    "CreateLogGroup", "CreateLogStream", "DescribeLogGroups", "DescribeLogStreams", "PutLogEvents", "PutRetentionPolicy",
}  # fmt: skip


def test_the_policy_of_a_backfill_has_every_call_that_the_code_makes() -> None:
    policy = [json.loads(block) for block in blocks(README, "json") if '"Statement"' in block][5]
    allowed = {a for s in policy["Statement"] for a in _list(s["Action"])}
    code = "\n".join(f.read_text() for f in (ROOT / "plugins/dbops/backfill").glob("*.py"))
    named = set(re.findall(r"\.([a-z_0-9]+)\(", code)) | set(re.findall(r'get_paginator\("([a-z_0-9]+)"\)', code))
    named |= set(re.findall(r'"(describe_[a-z_]+|[a-z]+_item)"', code))  # asked for by name
    named -= {"query", "list_parts"}  # ours
    called = {f"logs:{action}" for action in IMPORT_LOG}
    for service in ("dynamodb", "s3", "logs", "dms", "cloudwatch"):
        methods = boto3.client(service, region_name="eu-central-1").meta.method_to_api_mapping
        found = {f"{service}:{methods[one]}" for one in named & set(methods)}
        assert found, service
        called |= {ACTIONS.get(one, one) for one in found}
    assert called - allowed == set()
    assert {one for one in allowed if one.startswith("logs:")} <= called, "an action that no code calls"


def _list(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def test_trino_properties_differ_from_the_lab_by_the_catalog_kind_only() -> None:
    ours = dict(line.split("=", 1) for line in blocks(README, "properties")[0].splitlines())
    labs = trino._configuration()[f"catalog/{config.CATALOG}.properties"]
    shared = {
        name for name in ours if not name.startswith(("hive.metastore.glue.", "iceberg.catalog.type", "s3.region"))
    }
    assert {name: ours[name] for name in shared} == {name: labs[name] for name in shared}
    assert ours["iceberg.catalog.type"] == "glue"


def test_pools_are_those_of_the_lab_and_of_the_dags() -> None:
    shown = re.findall(r'airflow pools set (\w+) (\d+) "([^"]+)"', TEXTS[README])
    assert {name: (int(slots), text) for name, slots, text in shown} == config.POOLS


def test_lab_ports_and_variables() -> None:
    text = TEXTS[ROOT / "docs/lab.md"]
    for name, port in config.DEFAULT_PORTS.items():
        assert re.search(rf"\| {port} \| `{config.port_variable(name)}` \|", text), name


def test_the_spec_of_the_docs_is_a_spec() -> None:
    (block,) = blocks(ROOT / "docs/archive.md", "yaml")
    spec = ArchiveSpec.model_validate({"name": "payments", **yaml.safe_load(block)})
    assert spec.full_name == "carshare.payments"


def test_the_backfill_specs_of_the_docs_are_specs_whose_view_can_be_read() -> None:
    found = blocks(ROOT / "docs/backfill.md", "yaml")
    assert found
    for block in found:
        query.parse(BackfillSpec.model_validate({"name": "rides", **yaml.safe_load(block)}).view)


def test_the_inventory_spec_of_the_docs_is_a_spec() -> None:
    (block,) = blocks(ROOT / "docs/inventory.md", "yaml")
    spec = InventorySpec.model_validate({"name": "shop", **yaml.safe_load(block)})
    assert [i.name for i in spec.instances] == ["shop-1", "shop-2"]


def test_the_rehearsal_spec_of_the_docs_is_a_spec() -> None:
    (block,) = blocks(ROOT / "docs/blue_green.md", "yaml")
    spec = RehearsalSpec.model_validate({"name": "shop", **yaml.safe_load(block)})
    assert spec.source.kind == "snapshot"


def test_the_dms_spec_of_the_docs_is_a_spec_that_the_linter_stops_not() -> None:
    (block,) = blocks(ROOT / "docs/dms.md", "yaml")
    spec = DmsSpec.model_validate({"name": "shop_orders", **yaml.safe_load(block)})
    assert [one.rule for one in lint.lint(spec) if one.stops] == []


def test_grants_of_dms_are_those_that_the_lab_gives() -> None:
    sql = next(block for block in blocks(ROOT / "docs/dms.md", "sql") if "REPLICATION SLAVE" in block)
    ours = next(block for block in blocks(ROOT / "docs/dms.md", "sql") if "'dbops'@'%'" in block)
    given = {grant.format(user="'dms'@'%'") for grant in (*examples.SOURCE_GRANTS, *examples.TARGET_GRANTS)}
    assert {line.rstrip(";") for line in sql.splitlines() if line.startswith("GRANT")} == given
    for grant in (g for grants in examples.OUR_GRANTS.values() for g in grants):
        assert f"{grant.format(user=chr(39) + 'dbops' + chr(39) + '@' + chr(39) + '%' + chr(39))};" in ours


@pytest.mark.lab
def test_the_statements_of_the_docs_run_on_the_ledger() -> None:
    engine = connections.engine()
    Ledger.open(engine)
    told = [block for block in blocks(ROOT / "docs/dms.md", "sql") if "dbops.dms_" in block]
    statements = [one for block in told for one in block.split(";") if one.strip()]
    assert len(statements) >= 7
    with engine.connect() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)
        connection.rollback()
    engine.dispose()


@pytest.mark.parametrize("name", ["ARCHIVE", "INVENTORY", "BLUE_GREEN", "DMS", "BACKFILL"])
def test_what_the_code_declares_does_not_drift(name: str) -> None:
    tool = spec_docs()
    page = getattr(tool, name)
    assert tool.page(page, TEXTS[page]) == TEXTS[page], "run: python tools/spec_docs.py"


@pytest.mark.parametrize(
    ("name", "fewest"), [("ARCHIVE", 40), ("INVENTORY", 25), ("BLUE_GREEN", 45), ("DMS", 60), ("BACKFILL", 60)]
)
def test_every_spec_field_has_a_meaning(name: str, fewest: int) -> None:
    tool = spec_docs()
    rows = [line for line in tool.parts(getattr(tool, name))["fields"].splitlines() if line.startswith("| `")]
    assert len(rows) > fewest
    assert [row for row in rows if row.endswith("|  |")] == []


SAMPLES = {
    "TINYINT": ["tinyint"], "SMALLINT": ["smallint"], "MEDIUMINT": ["mediumint"], "INT": ["int"], "YEAR": ["year"],
    "the first three UNSIGNED": ["tinyint unsigned", "smallint unsigned", "mediumint unsigned"],
    "INT UNSIGNED": ["int unsigned"], "BIGINT": ["bigint"], "BIGINT UNSIGNED": ["bigint unsigned"], "BIT(n)": ["bit"],
    "FLOAT": ["float"], "DOUBLE": ["double"], "DATE": ["date"], "DATETIME(n)": ["datetime"], "TIMESTAMP(n)": ["timestamp"],
    "TIME(n)": ["time"], "CHAR": ["char"], "VARCHAR": ["varchar"], "ENUM": ["enum"], "SET": ["set"], "JSON": ["json"],
    "TEXT family": ["tinytext", "text", "mediumtext", "longtext"], "BINARY": ["binary"], "VARBINARY": ["varbinary"],
    "BLOB family": ["tinyblob", "blob", "mediumblob", "longblob"], "geometry types": sorted(codec.GEOMETRIES),
    "DECIMAL(p,s), p up to 38": ["decimal(38,4)"], "DECIMAL(p,s), p above 38": ["decimal(39,4)"],
}  # fmt: skip


def column(kind: str) -> Column:
    digits = re.search(r"\((\d+),(\d+)\)", kind)
    return Column(
        "c", kind.split(" ")[0].split("(")[0], kind, nullable=True, charset="utf8mb4", max_octets=40,
        numeric_precision=int(digits[1]) if digits else None, numeric_scale=int(digits[2]) if digits else None,
    )  # fmt: skip


def test_type_mapping_is_that_of_the_code() -> None:
    section = TEXTS[ROOT / "docs/archive.md"].split("\n## Type mapping\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (.+?) \| (\S+) \| (\S+) \| .*\|$", section, re.MULTILINE)
    seen = set()
    for names, arrow, iceberg in rows[1:]:  # after the rule
        for name in [names] if names in SAMPLES else re.split(r", and |, ", names):
            for kind in SAMPLES[name]:
                found = codec.codec_for(column(kind))
                generic = "decimal(p,s)" if kind.startswith("decimal") and found.arrow != "string" else found.arrow
                assert arrow == generic, kind
                shown = "decimal(p,s)" if generic == "decimal(p,s)" else str(found.iceberg_type).replace(" ", "")
                assert iceberg == shown, kind
            seen.add(name)
    assert seen == set(SAMPLES)


def test_benchmarks_page_shows_what_the_command_prints() -> None:
    """A number in the page comes from the block that a run printed; the prose repeats none that it does not contain."""
    text = TEXTS[ROOT / "docs/benchmarks.md"]
    blocks = re.findall(r"^```text\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    printed = "".join(blocks)
    for heading in ("== archive:", "== readers:", "== dag-import:", "ratio of rows/s", "CPU seconds", "Peak RSS"):
        assert heading in printed, heading
    prose = text
    for block in blocks:
        prose = prose.replace(block, "")
    for number in re.findall(r"\d+\.\d+", re.sub(r"`[^`]*`", "", prose)):
        assert number in printed, number
