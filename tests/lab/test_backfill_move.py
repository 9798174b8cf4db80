"""The whole move, judged by an oracle of its own; and that the oracle finds what writes without condition destroy."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis
from conftest import ROOT

from dbops.keyvalue import rules
from lab import aws, config, dynamodb, mysql
from lab.config import LabError
from lab.migration import demo, oracle, scene
from lab.migration.move import VICTIMS, Move
from lab.migration.scene import RIDES, SUBJECTS
from lab.migration.sides import DynamoSide, RedisSide
from lab.migration.stream import Stream, until
from lab.migration.traffic import Application, Keys, Session, make_view
from lab.migration.worker import Arm

pytestmark = pytest.mark.lab
ARMS: tuple[Arm, ...] = ("conditional", "unconditional")


@contextmanager
def moving(folder: Path, side: type[DynamoSide | RedisSide], **rows: int) -> Iterator[Move]:
    schema = f"carshare_{uuid.uuid4().hex[:8]}"
    move = Move(schema, [side(schema)], folder, rows)
    try:
        move.begin()
        yield move
    finally:
        move.end()


@pytest.fixture(params=[DynamoSide, RedisSide], ids=["dynamodb", "redis"])
def side(request: pytest.FixtureRequest) -> Any:
    return request.param


def test_dual_writes_and_the_stream_end_right_without_a_backfill(side: Any, tmp_path: Path) -> None:
    with moving(tmp_path, side, rides=0, payments=1) as move:
        move.work(800)
        move.traffic.pause()
        move.drain()
        for subject in SUBJECTS:
            verdict = move.judge(subject)
            assert verdict.findings == ()
            assert verdict.classes["equal"] > 20
        assert move.traffic.record.wrong == []
        assert move.repaired()["never"] == 0 < move.repaired()["unstamped"]


def test_writes_without_condition_fail_before_the_oracle_where_conditional_ones_hold(side: Any, tmp_path: Path) -> None:
    found = {}
    with moving(tmp_path, side, rides=600, payments=600) as move:
        copied = {subject.name: move.copy(subject, arm) for subject, arm in zip(SUBJECTS, ARMS, strict=True)}
        move.traffic.pause()
        move.drain()
        for subject in SUBJECTS:
            found[subject.name] = move.judge(subject)
    held, destroyed = (found[subject.name] for subject in SUBJECTS)
    assert held.findings == ()
    assert copied["rides"].tally.newer >= VICTIMS <= copied["rides"].tally.tombstones
    what = Counter(each.what for each in destroyed.findings)
    assert what["older over newer"] >= VICTIMS <= what["source_newer"]
    assert what["resurrected"] >= VICTIMS <= what["extra"]


def test_a_whole_move_with_a_dag_that_is_killed_loses_nothing_and_its_gate_stays_closed() -> None:
    result = demo.run({"rides": 2000, "payments": 800})  # it raises for whatever the oracle or a verification has found
    assert result.findings == []
    copied = {each.subject: each for each in result.copied}
    assert (copied["rides"].by, copied["rides"].kills, copied["payments"].kills) == ("the DAG", 1, 2)
    assert copied["payments"].tally.newer >= VICTIMS <= copied["payments"].tally.tombstones
    for subject in SUBJECTS:
        assert sum(result.verified[subject.name].values()) >= copied[subject.name].tally.read
        assert result.at_end[subject.name].classes["equal"] > copied[subject.name].tally.read / 2
    assert any(demo.SHORT in reason for reason in result.gate)
    assert all(path.is_file() for path in result.reports.values())
    assert result.operations["lost"] > 0 < result.fall_backs[0]


def left_of(schema: str, key: str = config.AWS_KEY) -> list[str]:
    """What there still is of a move."""
    found = []
    for server in ("mysql57", "mysql80"):
        with closing(mysql.root_connection(server)) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT schema_name FROM information_schema.schemata WHERE schema_name = %s", (schema,))
            found += [f"schema on {server}" for _ in cursor.fetchall()]
            cursor.execute("SELECT user FROM mysql.db WHERE db = %s", (schema,))
            found += [f"grant of {user} on {server}" for (user,) in cursor.fetchall()]
    found += [f"table {name}" for name in dynamodb.client(key).list_tables()["TableNames"] if schema in name]
    with closing(redis.Redis(config.HOST, config.port("redis"))) as client:
        found += [f"key {name}" for name in client.scan_iter(f"*{schema}*", 1000)]
    dms, name = aws.client("dms"), schema.replace("_", "-")
    tasks = dms.describe_replication_tasks()["ReplicationTasks"]
    found += [f"task {task['Status']}" for task in tasks if name in task["ReplicationTaskIdentifier"]]
    found += [f"stream {each}" for each in aws.client("kinesis").list_streams()["StreamNames"] if name in each]
    for process in psutil.process_iter(["cmdline", "environ"]):
        said = " ".join([*(process.info["cmdline"] or ()), *(process.info["environ"] or {}).values()])
        if process.pid != os.getpid() and (schema in said or name in said):
            found.append(f"process {process.pid}: {said[:200]}")
    return found


def has_made(schema: str, what: str) -> bool:
    return any(what in each for each in left_of(schema))


@pytest.mark.parametrize(
    ("begun", "there", "number"),
    [("dual writes are live", "task running", "SIGTERM"), ("airflow dags test", "dags test backfill", "SIGINT")],
)
def test_a_move_that_is_broken_off_leaves_nothing_behind(begun: str, there: str, number: str) -> None:
    # Where the tests themselves run in the background, a shell has let them ignore Ctrl-C, and children inherit that.
    command = ["env", "--default-signal=INT", sys.executable, "-m", "lab", "migration"]
    moving = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    said, schema = "", ""
    with moving:
        assert moving.stdout is not None
        for line in moving.stdout:
            said += line
            if not schema and (found := re.search(r"schema (\w+)", line)):
                schema = found[1]
            if begun in line:
                until(partial(has_made, schema, there), f"there is no {there}")
                # Ctrl-C reaches every process of the terminal's group.
                os.killpg(moving.pid, signal.Signals[number]) if number == "SIGINT" else moving.terminate()
                break
        said += moving.stdout.read()
    assert moving.returncode == 130, said
    assert left_of(schema) == [], said
    shutil.rmtree(config.home() / "move" / schema)


def test_a_move_that_cannot_begin_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(self: Stream) -> None:
        raise LabError("no function today")

    monkeypatch.setattr(Stream, "_serve", refused)
    schema = f"carshare_{uuid.uuid4().hex[:8]}"
    side = DynamoSide(schema)
    move = Move(schema, [side], tmp_path, {"rides": 1, "payments": 1})
    with pytest.raises(LabError, match="no function today"):
        move.begin()
    assert len(left_of(schema, side.key)) > 3
    move.end()
    assert left_of(schema, side.key) == []


def test_the_oracle_knows_every_state_that_a_key_of_redis_had(tmp_path: Path) -> None:
    schema = f"carshare_{uuid.uuid4().hex[:8]}"
    side = RedisSide(schema)
    scene.build(schema, {"rides": 3, "payments": 0}, seed=1)
    try:
        side.make()
        rides = Application(
            schema,
            RIDES,
            view := make_view(schema, RIDES, side.template(RIDES)),
            side.store(RIDES, view),
            Keys(RIDES, 3),
        )
        session = Session(rides)
        repository = rides.repository(session.load)
        old = session.load(dict(zip(RIDES.key_columns, RIDES.key(0), strict=True)))
        assert old is not None
        for number in range(3):
            repository.read(dict(zip(RIDES.key_columns, RIDES.key(number), strict=True)))
        assert judge(schema, side) == ()
        repository.save(lambda: session.write("update", RIDES.key(0), RIDES.values(random.Random(1))))
        repository.remove(lambda: session.delete(RIDES.key(1)))
        assert judge(schema, side) == ()
        late = view.write(old)
        key = side.store(RIDES, view).key(late.key)
        side.client.hset(key, mapping={"_v": rules.token(late.version)})
        side.client.hdel(side.prefix(RIDES) + key_of(side.template(RIDES), RIDES, 1), "_deleted")
        side.client.delete(side.prefix(RIDES) + key_of(side.template(RIDES), RIDES, 2))
        what = {each.what for each in judge(schema, side)}
        assert what == {"older over newer", "source_newer", "resurrected", "extra", "removed", "missing"}
        session.connection.close()
    finally:
        side.remove()
        scene.drop(schema)


def key_of(template: Mapping[str, str], subject: scene.Subject, number: int) -> str:
    return oracle.key_of(template, dict(zip(subject.key_columns, subject.key(number), strict=True)))


def judge(schema: str, side: RedisSide) -> tuple[oracle.Finding, ...]:
    return Move(schema, [side], Path(), {}).judge(RIDES, {}).findings
