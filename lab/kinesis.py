"""moto's Kinesis for more than one client at a time.

moto's shards say of themselves that they are not safe for concurrency: of two records that are put at once one is lost, and a read beside a
write fails. They also go through all records of a shard at every call.
"""

from __future__ import annotations

import threading

from moto.kinesis import models

_lock = threading.RLock()


class Shard(models.Shard):
    """The same shard, one call at a time. Its sequence numbers are 1, 2, 3."""

    def get_records(self, last_sequence_id: str, limit: int | None) -> tuple[list[models.Record], int, int]:
        last = int(last_sequence_id)
        with _lock:
            newest = self.get_max_sequence_number()
            until = newest if limit is None else min(newest, last + limit)
            found = [self.records[number] for number in range(last + 1, until + 1)]
            behind_s = self.records[newest].created_at - found[-1].created_at if found else 0.0
        return found, last + len(found), int(behind_s * 1000)

    def put_record(self, partition_key: str, data: str, explicit_hash_key: str) -> str:
        with _lock:
            return super().put_record(partition_key, data, explicit_hash_key)

    def get_min_sequence_number(self) -> int:
        return next(iter(self.records), 0)

    def get_max_sequence_number(self) -> int:
        return next(reversed(self.records), 0)


def install() -> None:
    """Use it for every stream that is made from now on in this process."""
    models.Shard = Shard  # type: ignore[misc]
