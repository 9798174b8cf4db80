from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from dbops.backfill import compare, redis_target
from dbops.backfill.target import Overloaded, TargetError
from dbops.keyvalue import rules
from dbops.keyvalue.items import canonical
from dbops.keyvalue.rules import Names, Version, document
from dbops.keyvalue.stores import MemoryStore
from tests.backfill import redis_kit as kit

NAMES = Names()
LAYOUTS = ["hash", "string"]


@pytest.fixture(scope="module")
def server() -> Iterator[kit.Server]:
    with kit.server("--maxmemory", "64mb", "--maxmemory-policy", "noeviction") as made:
        yield made


@pytest.fixture
def client(server: kit.Server) -> Iterator[Any]:
    made = server.client()
    made.config_set("maxmemory", "64mb")
    made.flushall()
    yield made
    made.close()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_many_writes_come_to_what_the_rules_say_of_each(client: Any, layout: str) -> None:
    target, memory, pace = kit.target(client, "u:", layout), MemoryStore(), kit.Steady()
    steps = list(itertools.product(range(40), (2, 1, 3, 3), (False, True)))
    rounds = [steps[start::8] for start in range(8)]  # no key twice in one call
    for step in rounds:
        writes = [kit.tombstone(n, v) if gone else kit.write(n, v, f"name {v}") for n, v, gone in step]
        sent = target.write(writes, pace)
        expected = [memory.put(each) for each in writes]
        assert [each.reason for each in sent.outcomes] == [each.reason for each in expected]
        for one, other in zip(sent.outcomes, expected, strict=True):
            assert canonical(one.there or {}) == canonical(other.there or {})
    keys = [kit.write(n).key for n in range(41)]
    assert [canonical(each or {}) for each in target.read(keys)] == [canonical(memory.get(key) or {}) for key in keys]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_read_pays_for_those_before_it(client: Any, layout: str) -> None:
    reads = kit.Steady()
    target = kit.target(client, "u:", layout, reads=reads)
    target.write([kit.write(1), kit.write(2, name="x" * 9_000)], kit.Steady())
    target.read([kit.write(n).key for n in (1, 2, 3)])
    assert reads.units == 0
    assert len([item for page in target.scan(0, 1) for item in page.items]) == 2
    assert reads.units == 1 + 3 + 1  # a key that is not there costs one too
    target.read([kit.write(3).key])
    assert reads.units == 5 + 4


@pytest.mark.parametrize("layout", LAYOUTS)
def test_large_calls_are_cut_into_pipelines_and_keep_their_order(client: Any, layout: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(redis_target, "PIPELINE_KEYS", 7)
    target, pace = kit.target(client, "u:", layout), kit.Steady()
    target.write([kit.write(n, 5) for n in range(0, 100, 3)], pace)
    sent = target.write([kit.write(n, 4) for n in range(100)], pace)
    assert [n for n, each in enumerate(sent.outcomes) if not each.is_written] == list(range(0, 100, 3))
    assert {each.reason for each in sent.outcomes} == {None, "newer"}
    assert sent.requests >= 100 // 7
    assert sent.units == pytest.approx(pace.units - 34)
    assert not sent.pressures


def test_a_write_costs_a_unit_for_each_kilobyte(client: Any) -> None:
    target = kit.target(client, "u:")
    target.write([kit.write(0)], kit.Steady())  # a server that does not know the script yet is asked twice
    assert target.write([kit.write(1)], kit.Steady()).units == 1
    assert target.write([kit.write(2, name="x" * 10_300)], kit.Steady()).units == 11


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_server_that_has_forgotten_the_script_is_told_it(client: Any, layout: str) -> None:
    target = kit.target(client, "u:", layout)
    target.write([kit.write(n, 2) for n in range(5)], kit.Steady())
    client.script_flush()
    sent = target.write([kit.write(n, 3) for n in range(10)], kit.Steady())
    assert all(each.is_written for each in sent.outcomes)
    assert not sent.pressures, "nothing was turned away: the server was only told something"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_full_server_is_overloaded_at_once_and_nothing_is_lost(client: Any, layout: str) -> None:
    target, pace = kit.target(client, "u:", layout), kit.Steady()
    target.write([kit.write(n, 1) for n in range(50)], pace)
    before = target.read([kit.write(n).key for n in range(50)])
    client.config_set("maxmemory", str(client.info("memory")["used_memory"] // 2))
    began = time.monotonic()
    with pytest.raises(Overloaded, match="memory is full") as caught:
        target.write([kit.write(n, 2, "newer") for n in range(100)], pace)
    assert time.monotonic() - began < 5
    assert (caught.value.pressure.kind, caught.value.pressure.reason) == ("server", "OOM")
    assert pace.pressures == [caught.value.pressure]
    after = target.read([kit.write(n).key for n in range(50)])
    for n, (old, new) in enumerate(zip(before, after, strict=True)):
        whole = document(kit.write(n, 2, "newer"), NAMES)
        assert canonical(new or {}) in (canonical(old or {}), canonical(whole)), "each item is a whole one"
    client.config_set("maxmemory", "64mb")
    sent = target.write([kit.write(n, 2, "newer") for n in range(100)], pace)
    assert all(each.reason in (None, "equal") for each in sent.outcomes)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_server_that_dies_in_a_pipeline_is_written_to_again_when_it_is_back(layout: str) -> None:
    with kit.server() as server:
        target, pace, stop = kit.target(server.client(), "u:", layout), kit.Steady(), threading.Event()
        writes = [kit.write(n, 1, "x" * 2000) for n in range(3000)]
        outcomes: list[Any] = []

        def copy() -> None:
            while not stop.is_set():
                outcomes.append(target.write(writes, pace))

        worker = threading.Thread(target=copy)
        worker.start()
        for _ in range(3):
            while not server.client().dbsize():
                time.sleep(0.001)
            server.kill()
            server.start()
        stop.set()
        worker.join(60)
        target.write(
            writes, pace
        )  # the server came back empty: what was written before it died is written by whoever comes again
        assert pace.pressures
        assert {each.reason for each in pace.pressures} <= {"ConnectionError", "LOADING", "TimeoutError"}
        assert {each.reason for sent in outcomes for each in sent.outcomes} <= {None, "equal"}
        found = target.read([each.key for each in writes])
        assert [canonical(each or {}) for each in found] == [canonical(document(each, NAMES)) for each in writes]


def test_a_server_that_stays_away_is_overloaded_after_the_patience() -> None:
    now = [0.0]
    with kit.server() as server:
        target = kit.target(
            server.client(retry=None), "u:", monotonic=lambda: now[0], sleep=lambda s: now.__setitem__(0, now[0] + 1)
        )
        server.kill()
        with pytest.raises(Overloaded, match=r"redis u:\*: 2 writes were turned away for 20 s") as caught:
            target.write([kit.write(1), kit.write(2)], kit.Steady())
        with pytest.raises(Overloaded, match="reads were turned away"):
            target.read([kit.write(1).key])
        with pytest.raises(TargetError, match="cannot be asked"):
            target.facts()
        server.start()
    assert caught.value.pressure.kind == "server"


def test_a_user_that_may_not_write_is_an_error_and_no_pressure(client: Any, server: kit.Server) -> None:
    client.execute_command("ACL SETUSER", "reader", "on", ">pw", "~*", "+@read", "+info", "+script|load")
    target = kit.target(server.client(username="reader", password="pw"), "u:", "string")
    with pytest.raises(TargetError, match="NoPermissionError") as caught:
        target.write([kit.write(1)], kit.Steady())
    assert "Ann" not in str(caught.value)
    wrong = kit.target(server.client(username="reader", password="no"), "u:")
    with pytest.raises(TargetError, match="AuthenticationError"):
        wrong.write([kit.write(1)], kit.Steady())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_somebody_elses_key_stays_and_is_unversioned(client: Any, layout: str) -> None:
    client.lpush("u:USER#1", "mine")
    client.set("u:USER#2", "mine")
    client.hset("u:USER#3", "a", "mine")
    target = kit.target(client, "u:", layout)
    sent = target.write([kit.write(n) for n in (1, 2, 3)], kit.Steady())
    assert [each.reason for each in sent.outcomes] == ["unversioned"] * 3
    assert [set(each or {}) for each in target.read([kit.write(n).key for n in (1, 2, 3)])] == [{"pk"}] * 3
    assert (client.lrange("u:USER#1", 0, -1), client.get("u:USER#2"), client.hgetall("u:USER#3")) == (
        [b"mine"],
        b"mine",
        {b"a": b"mine"},
    )


@pytest.mark.parametrize("layout", LAYOUTS)
def test_values_that_no_writer_of_the_view_makes_hold_nobody_up(client: Any, layout: str) -> None:
    target, version = kit.target(client, "u:", layout), rules.token(Version(5))
    broken = {"id": "one", "score": "high", "profile": "{", "photo": "\udcff", "_v": version, "_null": "{"}
    fields = {name: value.encode("utf-8", "surrogateescape") for name, value in broken.items()}
    for number in (1, 2):
        if layout == "hash":
            client.hset(f"u:USER#{number}", mapping=fields)
        else:
            client.set(f"u:USER#{number}", json.dumps({**broken, "photo": "!", "active": [1]}))
    older, newer = kit.write(1, version=5), kit.write(2, version=6)
    assert [each.reason for each in target.write([older, newer], kit.Steady()).outcomes] == ["equal", None]
    left, made = target.read([older.key, newer.key])
    assert left is not None
    assert left["id"] == {"S": "one"}
    assert compare.classify(older, left, target.names, "N") == "converter"
    assert compare.classify(newer, made, target.names, "N") == "equal"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_only_the_live_unchanged_item_of_the_run_is_removed(client: Any, layout: str) -> None:
    target = kit.target(client, "u:", layout)
    pace = kit.Steady()
    target.write([kit.write(1, 5), kit.write(2, 5, stamp="other"), kit.write(3, 6), kit.tombstone(4, 5)], pace)
    client.lpush("u:USER#5", "mine")
    removed = [target.remove(kit.write(n).key, Version(5), "plan-1") for n in range(1, 7)]
    assert removed == [True, False, False, False, False, False]
    assert client.exists("u:USER#1") == 0
    assert client.exists(*(f"u:USER#{n}" for n in (2, 3, 4, 5))) == 4
    assert not target.remove(kit.write(2).key, Version(5), "")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_scan_finds_every_item_of_the_prefix_and_goes_on_where_it_was(client: Any, layout: str) -> None:
    target = kit.target(client, "u[1]*:", layout)
    writes = [kit.write(n) for n in range(1500)] + [kit.tombstone(n) for n in range(1500, 1600)]
    target.write(writes, kit.Steady())
    client.set("other:1", "x")
    client.set("u1x:USER#1", "the pattern must not take it")
    pages = list(target.scan(0, 1))
    assert found(pages) == {canonical(document(each, NAMES)) for each in writes}
    assert [page.next for page in pages][-1] is None
    assert None not in [page.next for page in pages][:-1]
    assert found(pages[:2]) | found(target.scan(0, 1, pages[1].next)) == found(pages)
    assert [list(target.scan(each, 3)) != [] for each in range(3)] == [True, False, False], "one node is one segment"


def found(pages: Any) -> set[str]:
    return {canonical(item) for page in pages for item in page.items}


def test_a_scan_over_a_restart_is_refused(client: Any) -> None:
    with kit.server() as server:
        target = kit.target(server.client(), "u:")
        target.write([kit.write(n) for n in range(3000)], kit.Steady())
        pages = target.scan(0, 1)
        place = next(pages).next
        server.kill()
        server.start()
        with pytest.raises(TargetError, match="started anew"):
            list(target.scan(0, 1, place))
        with pytest.raises(TargetError, match=r"started anew|broke off"):
            list(pages)


def test_facts(client: Any) -> None:
    target = kit.target(client, "u:")
    target.write([kit.write(n) for n in range(10)], kit.Steady())
    facts = target.facts()
    assert (facts.exists, facts.state, facts.eviction, facts.memory_limit) == (True, "ACTIVE", "noeviction", 64 << 20)
    assert (facts.items, facts.key) == (10, (("pk", "S"),))
    assert 0 < (facts.memory_used or 0) < 64 << 20
    client.config_set("maxmemory", "0")
    client.config_set("maxmemory-policy", "allkeys-lru")
    try:
        assert (target.facts().memory_limit, target.facts().eviction) == (None, "allkeys-lru")
    finally:
        client.config_set("maxmemory-policy", "noeviction")


def test_a_replica_is_no_place_to_write() -> None:
    with kit.server() as primary, kit.server("--replicaof", "127.0.0.1", str(primary.port)) as replica:
        target = kit.target(replica.client(), "u:", patience_s=0.2)
        assert "takes no writes" in target.facts().state
        with pytest.raises(Overloaded) as caught:
            target.write([kit.write(1)], kit.Steady())
        assert caught.value.pressure.reason in ("READONLY", "MASTERDOWN")


# --- a cluster --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def nodes() -> Iterator[list[kit.Server]]:
    with kit.cluster(3) as made:
        yield made


@pytest.fixture
def cluster(nodes: list[kit.Server]) -> Iterator[Any]:
    for each in nodes:
        each.client().flushall()
    made = redis.RedisCluster("127.0.0.1", nodes[0].port, socket_timeout=5)
    yield made
    made.close()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_cluster_takes_the_writes_of_all_its_nodes_in_one_call(
    cluster: Any, nodes: list[kit.Server], layout: str
) -> None:
    target = kit.target(cluster, "u:", layout)
    writes = [kit.write(n, 2) for n in range(900)]
    sent = target.write(writes, kit.Steady())
    assert all(each.is_written for each in sent.outcomes)
    assert all(each.client().dbsize() > 200 for each in nodes)
    assert target.facts().items == 900
    older = target.write([kit.write(n, 1) for n in range(900)], kit.Steady())
    assert {each.reason for each in older.outcomes} == {"newer"}
    assert [canonical(each or {}) for each in target.read([each.key for each in writes])] == [
        canonical(document(each, NAMES)) for each in writes
    ]
    parts = [found(target.scan(segment, 2)) for segment in range(2)]
    assert not parts[0] & parts[1]
    assert parts[0] | parts[1] == {canonical(document(each, NAMES)) for each in writes}
    assert target.remove(writes[0].key, Version(2), "plan-1")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_slots_that_move_while_it_writes(cluster: Any, nodes: list[kit.Server], layout: str) -> None:
    """MOVED, ASK and keys that are in one place or the other: each write is made once, where the key is."""
    target, pace = kit.target(cluster, "m:", layout), kit.Steady()
    target.write([kit.write(n, 1) for n in range(400)], pace)
    pages = target.scan(0, 1)
    next(pages)
    ended, failure = threading.Event(), []

    def copy() -> None:
        version = 2
        while not ended.is_set():
            try:
                target.write([kit.write(n, version) for n in range(400)], pace)
            except Exception as error:
                failure.append(error)
                return
            version += 1

    worker = threading.Thread(target=copy)
    worker.start()
    slots = sorted({cluster.keyslot(f"m:USER#{n}") for n in range(400)})[:40]
    for slot in slots:
        move(nodes, slot, cluster)
    ended.set()
    worker.join(60)
    assert not failure, [failure[0].__cause__.args, failure[0].__cause__.__context__]
    final = [kit.write(n, 10**9) for n in range(400)]
    sent = target.write(final, pace)
    assert all(each.is_written for each in sent.outcomes)
    assert [canonical(each or {}) for each in target.read([each.key for each in final])] == [
        canonical(document(each, NAMES)) for each in final
    ]
    with pytest.raises(TargetError, match="slots moved"):
        list(pages)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_write_to_a_slot_that_is_moving_away_never_loses_the_item(
    cluster: Any, nodes: list[kit.Server], layout: str
) -> None:
    target, old = kit.target(cluster, "w:", layout), kit.write(1, 1)
    target.write([old], kit.Steady())
    slot = cluster.keyslot("w:USER#1")
    at = [each.port for each in nodes].index(cluster.nodes_manager.get_node_from_slot(slot).port)
    here, there = nodes[at].client(), nodes[(at + 1) % len(nodes)].client()
    there.execute_command("CLUSTER SETSLOT", slot, "IMPORTING", here.execute_command("CLUSTER MYID"))
    here.execute_command("CLUSTER SETSLOT", slot, "MIGRATING", there.execute_command("CLUSTER MYID"))
    try:
        new = kit.write(1, 2, "Bob")
        assert [each.is_written for each in target.write([new], kit.Steady()).outcomes] == [True]
        assert canonical(target.read([new.key])[0] or {}) == canonical(document(new, NAMES))
        assert here.exists("w:USER#1"), "where it was, so that the migration takes it along"
        assert target.write([kit.tombstone(1, 2)], kit.Steady()).outcomes[0].is_written
    finally:
        here.execute_command("CLUSTER SETSLOT", slot, "STABLE")
        there.execute_command("CLUSTER SETSLOT", slot, "STABLE")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_row_that_comes_back_does_not_expire_with_its_tombstone(client: Any, layout: str) -> None:
    target = kit.target(client, "u:", layout)
    gone = kit.VIEW.tombstone({"id": 1}, 2, expires_s=int(time.time()) + 3600)
    target.write([gone], kit.Steady())
    assert client.ttl("u:USER#1") > 3500
    target.write([kit.write(1, 3)], kit.Steady())
    assert client.ttl("u:USER#1") == -1
    target.write([kit.tombstone(1, 3)], kit.Steady())
    assert (client.ttl("u:USER#1"), set(target.read([gone.key])[0] or {})) == (-1, {"pk", "_v", "_deleted"})


def test_one_node_of_a_cluster_alone_is_no_place_to_write(nodes: list[kit.Server]) -> None:
    target = kit.target(nodes[0].client(), "u:", "string")
    with pytest.raises(TargetError, match="set extra 'cluster' of the connection to true"):
        target.write([kit.write(n) for n in range(50)], kit.Steady())


def move(nodes: list[kit.Server], slot: int, cluster: Any) -> None:
    """Move a slot from its node to the next, key by key, as a resharding does."""
    clients = [each.client() for each in nodes]
    ids = [client.execute_command("CLUSTER MYID").decode() for client in clients]
    at = [each.port for each in nodes].index(cluster.nodes_manager.get_node_from_slot(slot).port)
    to = (at + 1) % len(nodes)
    clients[to].execute_command("CLUSTER SETSLOT", slot, "IMPORTING", ids[at])
    clients[at].execute_command("CLUSTER SETSLOT", slot, "MIGRATING", ids[to])
    while keys := clients[at].execute_command("CLUSTER GETKEYSINSLOT", slot, 100):
        for key in keys:
            clients[at].execute_command("MIGRATE", "127.0.0.1", nodes[to].port, key, 0, 5000)
    for each in (to, at, *(n for n in range(len(nodes)) if n not in (to, at))):
        clients[each].execute_command("CLUSTER SETSLOT", slot, "NODE", ids[to])
