"""Facts of a source that passes every check, and tables to change them with."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from dbops import mysql
from dbops.dms.facts import Account, BinaryLog, Login, SourceFacts, SourceTable
from dbops.mysql import Column, Index
from tests.dms.dms_kit import SAFE

GB = 10**9
GOOD_VARIABLES = {
    "version": "8.0.36", "log_bin": "ON", "binlog_format": "ROW", "binlog_row_image": "FULL", "binlog_checksum": "NONE",
    "binlog_row_value_options": "", "binlog_transaction_compression": "OFF", "binlog_expire_logs_seconds": "259200",
    "server_id": "7", "gtid_mode": "ON", "log_replica_updates": "ON", "log_slave_updates": "ON", "innodb_read_only": "OFF",
    "max_allowed_packet": "67108864", "max_execution_time": "0", "net_read_timeout": "300", "net_write_timeout": "300",
    "wait_timeout": "28800", "require_secure_transport": "OFF", "time_zone": "SYSTEM", "system_time_zone": "UTC",
    "lower_case_table_names": "0",
}  # fmt: skip
PRIMARY = Index("PRIMARY", ("id",), unique=True, nullable=False, has_prefix=False, index_type="BTREE")
ID = Column("id", "bigint", "bigint unsigned", nullable=False)
GRANTS = ("GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO `dms`@`%`", "GRANT SELECT ON `shop`.* TO `dms`@`%`")
CANARY = {"schema_name": "shop", "table": "dms_canary"}
BY_KEY = {
    "rule-type": "object-mapping", "rule-id": "9", "rule-name": "9", "rule-action": "map-record-to-record",
    "object-locator": {"schema-name": "shop", "table-name": "%"},
}  # fmt: skip
BY_PRIMARY_KEY = {**BY_KEY, "mapping-parameters": {"partition-key-type": "primary-key"}}
AURORA = {"aurora_version": "3.04.0"}


def column(name: str, kind: str, **more: Any) -> Column:
    return Column(name, kind.split("(")[0].split(" ")[0], kind, nullable=True, **more)


def table(
    name: str,
    *columns: Column,
    indexes: tuple[Index, ...] = (PRIMARY,),
    engine: str = "InnoDB",
    size: int = GB,
    **more: Any,
) -> SourceTable:
    shape = mysql.Table("shop", name, engine, 10, size, 0, 0, 100, (ID, *columns), indexes)
    return SourceTable(shape, **more)


ORDERS = table("orders", column("note", "varchar(20)", charset="utf8mb4"))
CANARY_TABLE = table("dms_canary", column("token", "varchar(64)"), column("written_at", "datetime(6)"), size=0)


def facts(*tables: SourceTable, variables: Mapping[str, str | None] | None = None, **more: Any) -> SourceFacts:
    chosen = tuple(sorted(tables or (ORDERS, CANARY_TABLE), key=lambda one: one.table))
    held = {name: value for name, value in {**GOOD_VARIABLES, **(variables or {})}.items() if value is not None}
    given: dict[str, Any] = {
        "version": held["version"], "variables": held, "is_managed": False, "tables": tuple(one.table for one in chosen),
        "selected": chosen, "logs": (BinaryLog("binlog.000007", 10**6),), "log_filters": ((), ()), "retention_hours": 72.0,
        "is_replica": False, "log_bytes_per_s": 1000.0, "own_grants": ("GRANT SELECT ON `shop`.* TO `dbops`@`%`",),
        "login": Login("dms", (Account("'dms'@'%'", GRANTS),)),
    }  # fmt: skip
    return SourceFacts(**{**given, **more})


def settings(path: str, value: Any) -> dict[str, Any]:
    changed = copy.deepcopy(SAFE)
    group, _, key = path.partition(".")
    changed.setdefault(group, {})[key] = value
    return changed
