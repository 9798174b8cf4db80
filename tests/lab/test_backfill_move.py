"""The whole move, judged by an oracle of its own; and that the oracle finds what writes without condition destroy."""

from __future__ import annotations

import random
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from dbops.keyvalue import rules
from lab.migration import demo, oracle, scene
from lab.migration.move import VICTIMS, Move
from lab.migration.scene import RIDES, SUBJECTS
from lab.migration.sides import DynamoSide, RedisSide
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
