"""Assessment runs against the simulated DMS, which looks at a real source; and a task of it that works with the least grants."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import MySQLdb
import pytest
from botocore.exceptions import ClientError

from dbops import sql
from dbops.asking import ask
from dbops.dms import assessment, source
from dbops.dms.assessment import Assessed
from dbops.dms.spec import Assessment, DmsSpec
from lab import config
from tests.dms.dms_kit import SELECT_ALL, spec
from tests.lab import dms_kit
from tests.lab.dms_kit import ROLE, Dms

pytestmark = pytest.mark.lab

PASSWORD = "not secret here"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dms]:
    with dms_kit.account(tmp_path_factory.mktemp("dms")) as made:
        made.client("s3").create_bucket(
            Bucket="assessments", CreateBucketConfiguration={"LocationConstraint": config.AWS_REGION}
        )
        yield made


def given(bucket: str = "assessments") -> Assessment:
    return Assessment(bucket=bucket, folder="dms", role_arn=ROLE)


def ended(lab: Dms, run: str) -> Assessed:
    found: list[Assessed] = []

    def has_ended() -> bool:
        found.append(ask(lab.dms, assessment.judging(run)))
        return found[-1].verdict != "open"

    lab.until(has_ended)
    return found[-1]


def test_a_run_is_started_once_and_passes(lab: Dms) -> None:
    task = lab.task(lab.schema("CREATE TABLE {s}.t (id INT PRIMARY KEY)"))
    first = ask(lab.dms, assessment.start(task, "first-start", given()))
    again = ask(lab.dms, assessment.start(task, "first-start", given()))
    found = ended(lab, first)
    assert first == again
    assert (found.verdict, found.name, found.wrong) == ("passed", "first-start", ())
    assert "mysql-check-binlog-row-image: passed" in {str(one) for one in found.findings}
    assert ask(lab.dms, assessment.last(task, "first-start")) == found
    assert ask(lab.dms, assessment.last(task, "another")) is None


def test_a_warning_names_the_assessment(lab: Dms) -> None:
    task = lab.task(lab.schema("CREATE TABLE {s}.t (id INT)"))
    found = ended(lab, ask(lab.dms, assessment.start(task, "first-start", given())))
    assert (found.verdict, found.reason) == ("warning", "table-with-primary-key-or-unique-index: warning")


def test_a_source_that_lacks_what_changes_need_fails(lab: Dms) -> None:
    task = lab.task(lab.schema("CREATE TABLE {s}.t (id INT PRIMARY KEY)"))
    lab.source.sql("SET GLOBAL binlog_row_image = MINIMAL")
    try:
        found = ended(lab, ask(lab.dms, assessment.start(task, "first-start", given())))
    finally:
        lab.source.sql("SET GLOBAL binlog_row_image = FULL")
    assert found.verdict == "failed"
    assert [str(one) for one in found.wrong] == ["mysql-check-binlog-row-image: failed"]
    assert found.reason == "the run is failed (mysql-check-binlog-row-image: failed)"
    repeated = ask(lab.dms, assessment.start(task, "first-start", given(), again=True))
    assert ended(lab, repeated).verdict == "passed"
    assert ask(lab.dms, assessment.last(task, "first-start")).name == "first-start-2"


def test_a_bucket_that_is_missing_and_statuses_that_are_no_success(lab: Dms) -> None:
    schema = lab.schema("CREATE TABLE {s}.t (id INT PRIMARY KEY)")
    task = lab.task(schema)
    found = ended(lab, ask(lab.dms, assessment.start(task, "nowhere", given("no-such-bucket"))))
    assert (found.status, found.verdict) == ("error-provisioning", "failed")
    for status in ("error-executing", "invalid state", "cancelling", "something new"):
        with lab.faults(assessment=status):
            found = ended(lab, ask(lab.dms, assessment.start(task, status.replace(" ", "-"), given())))
        assert (found.status, found.verdict) == (status, "failed")


def test_a_task_that_runs_cannot_be_assessed(lab: Dms) -> None:
    task = lab.task(lab.schema("CREATE TABLE {s}.t (id INT PRIMARY KEY)"))
    lab.run(task)
    lab.replicating(task)
    with pytest.raises(ClientError, match="InvalidResourceState"):
        ask(lab.dms, assessment.start(task, "first-start", given()))
    lab.stop(task)


def test_a_task_works_with_the_least_grants_that_the_checks_ask_for(lab: Dms) -> None:
    schema = lab.schema("CREATE TABLE {s}.t (id INT PRIMARY KEY, v VARCHAR(20))")
    lab.write(f"INSERT INTO {schema}.t VALUES (1, 'loaded')")
    ours, theirs = (f"{name}_{uuid.uuid4().hex[:8]}" for name in ("ours", "dms"))
    for name in (ours, theirs):
        lab.source.sql(f"CREATE USER '{name}'@'%' IDENTIFIED WITH mysql_native_password BY '{PASSWORD}'")
    text = sql.render(
        "dms/grants", ours=f"'{ours}'@'%'", theirs=f"'{theirs}'@'%'", schemas=[schema], follows=True, is_managed=True, canary=None,
        assessed=True, has_roles=False, target_schemas=[],
    )  # fmt: skip
    for statement in "\n".join(line for line in text.splitlines() if not line.startswith("--")).split(";"):
        if statement.strip():
            lab.source.sql(statement)
    by = of(schema)
    with closing(_connect(lab, ours)) as connection:
        facts = source.gather(connection, by, login=theirs)
    assert [str(one) for one in source.check(by, facts) if one.stops and one.id != "retention"] == []
    arn = lab.make_endpoint(
        "source", EngineName="mysql", ServerName=config.HOST, Port=lab.source.port, Username=theirs, Password=PASSWORD
    )
    task = lab.task(schema, source=arn)
    lab.run(task)
    lab.replicating(task)
    lab.write(f"INSERT INTO {schema}.t VALUES (2, 'followed')")
    lab.until(lambda: not lab.differences(schema, "t"))
    lab.stop(task)


def of(schema: str) -> DmsSpec:
    rule: dict[str, Any] = {**SELECT_ALL, "object-locator": {"schema-name": schema, "table-name": "%"}}
    return spec(mappings=[rule])


def _connect(lab: Dms, user: str) -> Any:
    return MySQLdb.connect(
        host=config.HOST, port=lab.source.port, user=user, password=PASSWORD, charset="utf8mb4", autocommit=True
    )
