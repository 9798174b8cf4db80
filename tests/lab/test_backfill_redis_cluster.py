"""The lab's Redis, one node in cluster mode, through its Airflow connection."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from dbops.backfill import redis_target, spec
from dbops.backfill.redis_target import RedisTarget
from dbops.keyvalue.items import canonical
from dbops.keyvalue.rules import Names, Version, document
from tests.backfill import redis_kit as kit

pytestmark = pytest.mark.lab


@pytest.fixture(params=["hash", "string"])
def target(request: Any) -> Iterator[RedisTarget]:
    declared = spec.RedisTarget(kind="redis", prefix=f"{uuid.uuid4().hex}:", layout=request.param, key="USER#{id}")
    made = redis_target.open_target(declared, kit.VIEW, threads=4)
    yield made
    for page in made.scan(0, 1):
        for item in page.items:
            made.store.client.delete(made.store.key({"pk": item["pk"]}))
    made.close()


def test_writes_reads_scans_and_removes_through_the_connection(target: RedisTarget) -> None:
    writes = [kit.write(n, 2) for n in range(2000)]
    sent = target.write(writes, kit.Steady())
    assert all(each.is_written for each in sent.outcomes)
    assert {each.reason for each in target.write(writes, kit.Steady()).outcomes} == {"equal"}
    expected = [canonical(document(each, Names())) for each in writes]
    assert [canonical(each or {}) for each in target.read([each.key for each in writes])] == expected
    assert {canonical(item) for page in target.scan(0, 1) for item in page.items} == {*expected}
    assert target.remove(writes[0].key, Version(2), "plan-1")
    assert target.read([writes[0].key]) == [None]


def test_facts(target: RedisTarget) -> None:
    facts = target.facts()
    assert (facts.exists, facts.state, facts.eviction) == (True, "ACTIVE", "noeviction")
    assert 0 < (facts.memory_used or 0) < (facts.memory_limit or 0)
