"""Made-up data on real servers: after a kill, again, on another version, as a master user of RDS."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from conftest import ROOT

from dbops.blue_green import load
from dbops.blue_green.spec import Data
from tests.lab.replica_kit import MASTER, PASSWORD, Side, one

pytestmark = pytest.mark.lab
DATA = Data(gigabytes=0.1, tables=8, seed=7)  # two chunks a table
FILLER = f"""
import os, sys, MySQLdb
from dbops.blue_green import load
from dbops.blue_green.spec import Data
def connect():
    return MySQLdb.connect(host="127.0.0.1", port=int(sys.argv[1]), user="{MASTER}", password=os.environ["PASSWORD"], charset="utf8mb4")
load.fill(connect, Data.model_validate_json(sys.argv[2]), "killed", lambda made, wanted: print(made, flush=True))
"""


@pytest.fixture(scope="module")
def blue(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Side]:
    with one(tmp_path_factory.mktemp("load57"), "5.7.22") as side:
        yield side


def test_a_kill_in_the_middle_leaves_what_an_undisturbed_run_makes_on_another_version(
    blue: Side, tmp_path: Path
) -> None:
    search = os.pathsep.join([str(ROOT / "plugins"), str(ROOT)])
    child = subprocess.Popen(
        [sys.executable, "-c", FILLER, str(blue.server.port), DATA.model_dump_json()],
        env={**os.environ, "PYTHONPATH": search, "PASSWORD": PASSWORD},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    with child.stdout:
        before = int([child.stdout.readline() for _ in range(4)][-1])
        child.send_signal(signal.SIGKILL)
        child.wait()
    seen: list[tuple[int, int]] = []
    filled = load.fill(blue.connect, DATA, "killed", lambda *progress: seen.append(progress))
    assert 0 < before < filled.rows
    assert seen[0][0] > before, "made anew what was there"
    assert seen[-1] == (filled.rows, filled.rows)
    assert 0.9 * DATA.gigabytes < filled.bytes / load.GIGABYTE < 1.25 * DATA.gigabytes
    with one(tmp_path / "load80", "8.0.15") as green:
        load.fill(green.connect, DATA, "whole")
        with closing(blue.connect()) as old, closing(green.connect()) as new:
            on_blue, on_green = load.checksums(old, "killed"), load.checksums(new, "whole")
    assert {name: on_blue[name] for name in [table.name for table in filled.tables]} == {
        table.name: load.Checksum(table.rows, on_green[table.name].crc) for table in filled.tables
    }
    assert len(on_blue) == DATA.tables + 2
    again = load.fill(blue.connect, DATA, "killed")
    assert (again.tables, again.rows) == (filled.tables, filled.rows)


def test_other_settings_in_the_same_schema_are_refused(blue: Side) -> None:
    small = Data(gigabytes=0.001, tables=2)
    load.fill(blue.connect, small, "twice")
    with pytest.raises(load.LoadError, match=r"seed=1 gigabytes=0.001 .* not of seed=2 .* drop the schema"):
        load.fill(blue.connect, small.model_copy(update={"seed": 2}), "twice")


def test_another_seed_makes_other_rows_of_the_same_number(blue: Side) -> None:
    for seed in (1, 2):
        load.fill(blue.connect, Data(gigabytes=0.001, tables=2, seed=seed), f"seed{seed}")
    with closing(blue.connect()) as conn:
        first, second = (load.checksums(conn, f"seed{seed}") for seed in (1, 2))
    for name in load.plan(Data(gigabytes=0.001, tables=2)):
        assert first[name.name].rows == second[name.name].rows
        assert first[name.name].crc != second[name.name].crc


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE types.t SET a = 'x,', b = 'y' WHERE id = 1",
        "UPDATE types.t SET a = NULL WHERE id = 2",
        "UPDATE types.t SET f = f * 1.000001 WHERE id = 1",
        "UPDATE types.t SET j = JSON_SET(j, '$.k', 2) WHERE id = 1",
        "UPDATE types.t SET p = POINT(1, 3) WHERE id = 1",
        "UPDATE types.t SET bits = bits + 1 WHERE id = 1",
        "INSERT INTO types.t SELECT 3, a, b, f, j, p, bits FROM types.t WHERE id = 1",
        "DELETE FROM types.t WHERE id = 1",
        "UPDATE types.t SET id = 5 - id",
    ],
)
def test_a_checksum_sees_every_change(blue: Side, change: str) -> None:
    blue.run(
        "DROP DATABASE IF EXISTS types", "CREATE DATABASE types CHARACTER SET utf8mb4",
        "CREATE TABLE types.t (id INT, a VARCHAR(9), b VARCHAR(9), f FLOAT, j JSON, p POINT, bits BIT(9))",
        "INSERT INTO types.t VALUES (1, 'x', ',y', 1000.001, '{\"k\": 1}', POINT(1, 2), 3), (2, '', '', NULL, NULL, NULL, NULL)",
    )  # fmt: skip
    with closing(blue.connect()) as conn:
        before = load.checksums(conn, "types")
        assert load.checksums(conn, "types") == before
        blue.run(change)
        assert load.checksums(conn, "types") != before


def test_rows_that_have_no_checksum_are_an_error(blue: Side) -> None:
    blue.run(
        "CREATE DATABASE long_rows", "CREATE TABLE long_rows.t (a LONGTEXT, b LONGTEXT)",
        "INSERT INTO long_rows.t VALUES (REPEAT('a', 40000000), REPEAT('b', 40000000))",
    )  # fmt: skip
    with closing(blue.connect()) as conn, pytest.raises(load.LoadError, match=r"long_rows.t: 1 rows .*packet"):
        load.checksums(conn, "long_rows")
