"""The example specs run in the lab as they are: both dry runs, and a whole copy of one."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest
from conftest import ROOT

from dbops import connections
from dbops.backfill.journal import Journal
from dbops.store import Store
from lab import dynamodb, mysql
from lab.migration import examples
from tests.lab.backfill_stage import states

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module", autouse=True)
def provisioned(lab_is_up: None) -> None:
    examples.provision()


def run(run_dag: Callable[..., Any], spec: str, **conf: Any) -> dict[str, Any]:
    """A run of the DAG, which has to end well; its report."""
    from airflow.dag_processing.dagbag import DagBag

    bag = DagBag(dag_folder=str(ROOT / "dags" / "backfill.py"))
    assert not bag.import_errors
    done = run_dag(bag.dags["backfill"], run_conf={"spec": spec, **conf})
    found = Store.open().latest("backfill", spec)
    assert found is not None
    assert str(done.state) == "success", (states(done), found.document["reasons"])
    return found.document


def count(statement: str) -> int:
    with closing(mysql.root_connection("mysql57", examples.SCHEMA)) as connection, connection.cursor() as cursor:
        cursor.execute(statement)
        return int(cursor.fetchone()[0])


def test_making_them_again_changes_no_number_of_rows() -> None:
    before = [count(f"SELECT COUNT(*) FROM {name}") for name in examples.ROWS]
    assert before == list(examples.ROWS.values())
    examples.provision()
    assert [count(f"SELECT COUNT(*) FROM {name}") for name in examples.ROWS] == before


@pytest.mark.parametrize("spec", sorted(examples.SPECS))
def test_a_dry_run_of_an_example_finds_nothing_to_refuse(spec: str, run_dag: Callable[..., Any]) -> None:
    report = run(run_dag, spec)
    assert report["verdict"] == "DRY_RUN", report["reasons"]


def test_a_copy_of_an_example_is_whole_and_proven(run_dag: Callable[..., Any]) -> None:
    report = run(run_dag, "rides_dynamodb", dry_run=False, confirm="rides_dynamodb")
    assert report["verdict"] in ("OK", "WARNING"), report["reasons"]
    journal = Journal.open(connections.engine(connections.STORE))
    (plan,) = journal.plans("rides_dynamodb", limit=1)
    assert plan.state == "verified"
    tally = journal.tally(plan.plan_id)
    assert tally.read == examples.ROWS["rides"]
    assert tally.rejected == tally.newer == tally.tombstones == 0 < tally.equal, "the dual writes are there already"
    pages = dynamodb.client().get_paginator("scan").paginate(TableName="carshare_rides_items", ConsistentRead=True)
    found = {(item["pk"]["S"], item["sk"]["S"]): int(item["_v"]["N"]) for page in pages for item in page["Items"]}
    with closing(mysql.root_connection("mysql57", examples.SCHEMA)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT user_id, id, row_version FROM rides")
        rows = {(f"USER#{user}", f"RIDE#{number:020}"): version for user, number, version in cursor.fetchall()}
    assert found == rows
