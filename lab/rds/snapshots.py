"""Snapshots and clones of the backend: each is a dump of what the writer held when the call was made."""

from __future__ import annotations

import itertools
import shutil
import threading
from datetime import datetime
from pathlib import Path
from typing import Any

import MySQLdb
from moto.rds import models
from moto.rds.exceptions import InvalidParameterCombination, InvalidParameterValue, RDSClientError

from lab.rds import clone
from lab.rds.server import Server

READY_S = 3600
_numbers = itertools.count(1)


class Stored:
    """A dump that several snapshots, and clusters without instances as yet, may hold; its files go with the last of them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.holders, self.error = folder / f"dump-{next(_numbers)}", 1, ""
        self.ready, self._lock = threading.Event(), threading.Lock()

    def take(self, source: Server) -> None:
        """Write the dump; never raises, the reason of a failure is kept for whoever loads it."""
        try:
            clone.dump(source, self.folder)
        except (MySQLdb.Error, OSError) as error:
            self.error = str(error)
        self.ready.set()

    def load(self, target: Server) -> None:
        """Load it into a fresh server once it is whole.

        Raises:
            OSError: it could not be written
        """
        if not self.ready.wait(READY_S) or self.error:
            raise OSError(f"the snapshot could not be taken: {self.error or 'it is not ready'}")
        clone.load(self.folder, target)

    def hold(self) -> Stored:
        with self._lock:
            self.holders += 1
        return self

    def release(self) -> None:
        with self._lock:
            self.holders -= 1
            gone = self.holders == 0
        if gone:
            shutil.rmtree(self.folder, ignore_errors=True)


class Snapshots(models.RDSBackend):
    """The part of the backend that takes and restores snapshots."""

    plane: Any
    in_background: Any
    restoring: Any  # of this thread: the dump with which the next cluster or instance begins

    # Automated backups go with their instance or cluster, and nothing here restores one.
    def create_auto_cluster_snapshot(self, *_: Any, **__: Any) -> Any:
        return None

    def create_auto_snapshot(self, *_: Any, **__: Any) -> Any:
        return None

    def create_db_cluster_snapshot(self, *args: Any, **kwargs: Any) -> Any:
        snapshot = super().create_db_cluster_snapshot(*args, **kwargs)
        cluster = self.clusters[snapshot.db_cluster_identifier]
        return self._store(snapshot, cluster.writer, self.cluster_snapshots, snapshot.db_cluster_snapshot_identifier)

    def create_db_snapshot(self, *args: Any, **kwargs: Any) -> Any:
        snapshot = super().create_db_snapshot(*args, **kwargs)
        database = self.databases[snapshot.db_instance_identifier]
        if database.db_cluster_identifier:
            del self.database_snapshots[snapshot.db_snapshot_identifier]
            raise InvalidParameterValue("The DB instance belongs to a DB cluster: use CreateDBClusterSnapshot.")
        return self._store(snapshot, database, self.database_snapshots, snapshot.db_snapshot_identifier)

    def _store(self, snapshot: Any, database: Any, held: Any, name: str) -> Any:
        if database is None or database.status != "available":
            del held[name]
            raise _not_available(snapshot)
        snapshot.status, snapshot.percent_progress = "creating", 0
        snapshot.stored = stored = Stored(self.plane.folder)

        def take() -> None:
            stored.take(self.plane.servers[database.dbi_resource_id])
            snapshot.percent_progress = 100
            snapshot.status = "failed" if stored.error else "available"

        self.in_background(take)
        return snapshot

    def copy_db_cluster_snapshot(self, source_db_cluster_snapshot_identifier: str, *args: Any, **kwargs: Any) -> Any:
        snapshot = super().copy_db_cluster_snapshot(source_db_cluster_snapshot_identifier, *args, **kwargs)
        snapshot.stored = self.get_db_cluster_snapshot(source_db_cluster_snapshot_identifier).stored.hold()
        return snapshot

    def copy_db_snapshot(self, source_db_snapshot_identifier: str, *args: Any, **kwargs: Any) -> Any:
        snapshot = super().copy_db_snapshot(source_db_snapshot_identifier, *args, **kwargs)
        snapshot.stored = self.get_db_snapshot(source_db_snapshot_identifier).stored.hold()
        return snapshot

    def delete_db_cluster_snapshot(self, db_snapshot_identifier: str) -> Any:
        snapshot = super().delete_db_cluster_snapshot(db_snapshot_identifier)
        snapshot.stored.release()
        return snapshot

    def delete_db_snapshot(self, db_snapshot_identifier: str) -> Any:
        snapshot = super().delete_db_snapshot(db_snapshot_identifier)
        snapshot.stored.release()
        return snapshot

    def restore_db_cluster_from_snapshot(self, from_snapshot_id: str, overrides: Any) -> Any:
        snapshot = self.describe_db_cluster_snapshots(None, from_snapshot_id.rpartition(":")[2])[0]
        _require_ready(snapshot)
        with self._begin_with(snapshot.stored):
            cluster = super().restore_db_cluster_from_snapshot(snapshot.db_cluster_snapshot_identifier, overrides)
        cluster.tags = overrides.get("tags")  # and not those of its source
        return cluster

    def restore_db_instance_from_db_snapshot(self, from_snapshot_id: str, overrides: Any) -> Any:
        snapshot = self.describe_db_snapshots(None, from_snapshot_id.rpartition(":")[2])[0]
        _require_ready(snapshot)
        with self._begin_with(snapshot.stored):
            database = super().restore_db_instance_from_db_snapshot(snapshot.db_snapshot_identifier, overrides)
        database.tags = overrides.get("tags")
        return database

    def restore_db_cluster_to_point_in_time(
        self,
        db_cluster_identifier: str,
        source_db_cluster_identifier: str,
        restore_type: str = "full-copy",
        restore_to_time: datetime | None = None,
        use_latest_restorable_time: bool = False,
        **overrides: Any,
    ) -> Any:
        source = self.describe_db_clusters(source_db_cluster_identifier.rpartition(":")[2])[0]
        if restore_to_time is not None or not use_latest_restorable_time:
            raise InvalidParameterCombination("The lab keeps no past states: use UseLatestRestorableTime.")
        if source.writer is None or source.writer.status != "available":
            raise _not_available(source)
        stored = Stored(self.plane.folder)
        with self._begin_with(stored):
            cluster = super().restore_db_cluster_to_point_in_time(
                db_cluster_identifier,
                source.db_cluster_identifier,
                restore_type,
                use_latest_restorable_time=use_latest_restorable_time,
                **overrides,
            )
        cluster.tags = overrides.get("tags")
        server = self.plane.servers[source.writer.dbi_resource_id]
        self.in_background(lambda: (stored.take(server), stored.release()))
        return cluster

    def restore_db_instance_to_point_in_time(
        self, source_db_identifier: str, target_db_identifier: str, overrides: Any
    ) -> Any:
        source = self.describe_db_instances(source_db_identifier)[0]
        if source.status != "available":
            raise _not_available(source)
        stored = Stored(self.plane.folder)
        with self._begin_with(stored):
            database = super().restore_db_instance_to_point_in_time(
                source_db_identifier, target_db_identifier, overrides
            )
        database.tags = overrides.get("tags")
        server = self.plane.servers[source.dbi_resource_id]
        self.in_background(lambda: (stored.take(server), stored.release()))
        return database

    def _begin_with(self, stored: Stored) -> _Beginning:
        return _Beginning(self.restoring, stored)


class _Beginning:
    """While a restore runs, the cluster or instance that it makes begins with a dump."""

    def __init__(self, local: Any, stored: Stored) -> None:
        self.local, self.stored = local, stored

    def __enter__(self) -> None:
        self.local.stored = self.stored

    def __exit__(self, *_: Any) -> None:
        self.local.stored = None


def _require_ready(snapshot: Any) -> None:
    if snapshot.status != "available":
        what = "InvalidDBClusterSnapshotStateFault" if hasattr(snapshot, "cluster") else "InvalidDBSnapshotStateFault"
        raise RDSClientError(what, f"The snapshot is {snapshot.status}, not available.")


def _not_available(resource: Any) -> RDSClientError:
    cluster = isinstance(resource, models.DBCluster | models.DBClusterSnapshot)
    what = "InvalidDBClusterStateFault" if cluster else "InvalidDBInstanceStateFault"
    return RDSClientError(what, f"{resource.arn} has no available writer to copy from.")
