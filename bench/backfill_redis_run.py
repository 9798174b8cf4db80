"""Write items into the lab's Redis with the target of the backfill, in one process. Started by bench.backfill_redis; JSON both ways."""

from __future__ import annotations

import json
import sys
import time
import uuid
from decimal import Decimal
from typing import Any

from dbops import connections
from dbops.backfill.redis_target import RedisTarget
from dbops.backfill.target import Pressure
from dbops.keyvalue import rules, views
from dbops.keyvalue.stores import RedisStore
from dbops.keyvalue.views import Loaded
from dbops.mysql import Column

TYPES = {
    "id": "bigint(20) unsigned", "user_id": "int(11)", "car_id": "int(11)", "status": "varchar(20)", "started_at": "datetime(6)",
    "ended_at": "datetime(6)", "price": "decimal(10,2)", "distance_km": "decimal(8,3)", "note": "varchar(200)", "city": "varchar(40)",
}  # fmt: skip
PAGE = 5_000


class Free:
    """A pace without a limit."""

    def spend(self, units: float) -> None:
        """Nothing to wait for."""

    def eased(self, pressure: Pressure, refused_units: float) -> None:
        """The store of the bench turns nothing away."""
        raise AssertionError(pressure)


def plain_script(client: Any, items: int) -> dict[str, Any]:
    """What a script does: redis-py's pipeline of SET with the row as JSON, without any condition."""
    client.flushall()
    cpu, began = time.process_time(), time.perf_counter()
    for start in range(0, items, PAGE):
        pipeline = client.pipeline(transaction=False)
        for number in range(start, min(start + PAGE, items)):
            pipeline.set(f"bench:{number}", json.dumps(row(number), default=str))
        assert all(pipeline.execute())
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    client.flushall()
    return {"items_per_s": items / seconds, "client_cpu_s": cpu}


def main() -> None:
    arguments: dict[str, Any] = json.load(sys.stdin)
    items, layout = arguments["items"], arguments["layout"]
    if layout == "script":
        print(json.dumps(plain_script(connections.redis(), items)))
        return
    view = views.view(
        [Column(name, kind.split("(")[0], kind, nullable=name != "id") for name, kind in TYPES.items()], {"key": "{id}"}
    )
    client = connections.redis(connections=arguments["threads"] + 1)
    target = RedisTarget(RedisStore(client, view, f"bench{uuid.uuid4().hex[:8]}:", layout), arguments["threads"])
    writes = [view.write(Loaded(row(number), 1), stamp="bench") for number in range(items)]
    command = target.store.put_command(writes[0])
    client.flushall()
    cpu, began = time.process_time(), time.perf_counter()
    for start in range(0, items, PAGE):
        sent = target.write(writes[start : start + PAGE], Free())
        assert all(each.is_written for each in sent.outcomes)
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    assert sum(node.client.dbsize() for node in target._wire.nodes()) == items
    client.flushall()
    words = [word if isinstance(word, str) else word.decode() for word in command]
    size = len(target.store._text(rules.document(writes[0], view.names)))
    print(json.dumps({"items_per_s": items / seconds, "client_cpu_s": cpu, "command": words, "bytes": size}))


def row(number: int) -> dict[str, Any]:
    """A ride."""
    return {
        "id": number, "user_id": number % 1000, "car_id": number % 77, "status": "finished", "started_at": "2026-01-02 03:04:05.000006",
        "ended_at": "2026-01-02 04:04:05.000006", "price": Decimal("12.50"), "distance_km": Decimal("7.125"), "note": "x" * 60,
        "city": "Köln",
    }  # fmt: skip


if __name__ == "__main__":
    main()
