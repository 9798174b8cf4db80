"""Every check of a source: facts that it holds something against, the fix that it names, and good facts that all pass."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from dbops.dms import checks, source, states
from dbops.dms.facts import NEVER, Account, BinaryLog, Check, Login, SourceFacts, SourceTable
from dbops.dms.mappings import Table
from dbops.dms.spec import DmsSpec
from tests.dms.dms_kit import DYNAMODB, KINESIS, MYSQL, S3, SELECT_ALL, SOURCE_ARN, spec
from tests.dms.source_kit import (
    AURORA,
    BY_KEY,
    BY_PRIMARY_KEY,
    CANARY,
    CANARY_TABLE,
    GB,
    GRANTS,
    ORDERS,
    PRIMARY,
    column,
    facts,
    settings,
    table,
)


def good(**more: Any) -> DmsSpec:
    return spec(**{"canary": CANARY, **more})


def checked(of: SourceFacts, by: DmsSpec | None = None, **known: Any) -> list[Check]:
    return [one for one in source.check(by or good(), of, **known) if one.status != "ok"]


def only(found: list[Check], name: str, status: str, *parts: str) -> Check:
    mine = [one for one in found if one.id == name]
    assert [(one.id, one.status) for one in mine] == [(name, status)], [str(one) for one in found]
    assert [part for part in parts if part not in str(mine[0])] == [], str(mine[0])
    assert mine[0].fix
    return mine[0]


def test_good_facts_pass_and_every_check_says_what_it_found() -> None:
    found = source.check(good(), facts())
    assert [str(one) for one in found if one.status != "ok"] == []
    assert {one.id for one in found} == checks.ids()
    assert all(one.found and not one.fix for one in found)


def test_a_check_reads_as_a_sentence() -> None:
    (found,) = checked(facts(variables={"binlog_format": "MIXED"}))
    assert str(found) == (
        "[binlog-format] binlog_format is MIXED: the log has statements, in which DMS finds no rows. "
        "SET GLOBAL binlog_format = ROW, and set it in my.cnf; then end every session that began before."
    )


HELD: list[tuple[str, str, dict[str, Any], tuple[str, ...]]] = [
    ("source-version", "stop", {"variables": {"version": "5.5.61"}}, ("5.5.61", "Upgrade")),
    ("log-bin", "stop", {"variables": {"log_bin": "OFF"}}, ("log_bin is OFF", "my.cnf")),
    ("log-bin", "stop", {"variables": {"log_bin": None}, "is_managed": True}, ("not set", "automatic backups")),
    ("log-bin", "stop", {"variables": {"log_bin": "OFF", **AURORA}, "is_managed": True}, ("cluster parameter group",)),
    ("binlog-format", "stop", {"variables": {"binlog_format": "STATEMENT"}, "is_managed": True},
     ("is STATEMENT", "in the parameter group")),
    ("binlog-format", "stop", {"variables": {"binlog_format": None}}, ("is unknown",)),
    ("binlog-row-image", "stop", {"variables": {"binlog_row_image": "MINIMAL"}}, ("is MINIMAL", "FULL")),
    ("binlog-row-image", "stop", {"variables": {"binlog_row_image": None}}, ("is unknown",)),
    ("binlog-json", "stop", {"variables": {"binlog_row_value_options": "PARTIAL_JSON"}}, ("PARTIAL_JSON", "''")),
    ("binlog-checksum", "stop", {"variables": {"binlog_checksum": "CRC32"}}, ("CRC32", "its version is unknown", "NONE")),
    ("binlog-compression", "stop", {"variables": {"binlog_transaction_compression": "ON"}}, ("compressed",)),
    ("aurora-enhanced-binlog", "stop", {"variables": {"aurora_enhanced_binlog": "1", **AURORA}}, ("enhanced", "reboot")),
    ("server-id", "stop", {"variables": {"server_id": "0"}}, ("is 0",)),
    ("server-id", "stop", {"variables": {"server_id": None}}, ("is unknown",)),
    ("binlog-filters", "stop", {"log_filters": (("crm",), ())}, ("shop", "binlog_do_db")),
    ("binlog-filters", "stop", {"log_filters": ((), ("shop",))}, ("shop", "binlog_ignore_db")),
    ("binlog-filters", "stop", {"log_filters": None}, ("cannot be read", "GRANT REPLICATION CLIENT ON *.*")),
    ("log-replica-updates", "stop",
     {"is_replica": True, "replica_lag_s": 0.0, "variables": {"log_replica_updates": None, "log_slave_updates": "OFF"}},
     ("log_slave_updates is OFF", "is a replica", "Set log_slave_updates = ON")),
    ("log-replica-updates", "stop", {"is_replica": None, "variables": {"log_replica_updates": "OFF", "log_slave_updates": "OFF"}},
     ("may be a replica", "GRANT REPLICATION CLIENT")),
    ("aurora-reader", "stop", {"variables": {"innodb_read_only": "ON", **AURORA}}, ("no binary log", "writer endpoint")),
    ("replica-source", "stop", {"is_replica": True}, ("does not run",)),
    ("replica-source", "warning", {"is_replica": True, "replica_lag_s": 4.0}, ("4 s behind", "can be missing")),
    ("replica-source", "warning", {"is_replica": None}, ("cannot be read", "GRANT REPLICATION CLIENT")),
    ("retention", "stop", {"retention_hours": None, "is_managed": True}, ("cannot be read", "GRANT SELECT ON mysql.rds_configuration")),
    ("retention", "stop", {"retention_hours": 0.0, "is_managed": True},
     ("purged as soon as possible", "CALL mysql.rds_set_configuration('binlog retention hours', 24)")),
    ("retention", "warning", {"retention_hours": 23.0}, ("is 23 h, less than 24 h", "binlog_expire_logs_seconds = 86400")),
    ("retention", "warning", {"retention_hours": 23.0, "variables": {"binlog_expire_logs_seconds": None}}, ("expire_logs_days = 1",)),
    ("binlog-files", "stop", {"logs": None}, ("cannot be listed", "GRANT REPLICATION CLIENT")),
    ("binlog-files", "warning", {"logs": (BinaryLog("binlog.000009", 5 * 2**30),)}, ("binlog.000009", "4 GB")),
    ("secure-transport", "stop", {"variables": {"require_secure_transport": "ON"}}, ("source.ssl_mode is none", "verify-ca")),
    ("grants", "warning", {"login": None}, ("is not named", "docs/dms.md")),
    ("grants", "warning", {"login": Login("dms", None, "denied")}, ("cannot be asked", "denied", "GRANT SELECT ON mysql.*")),
    ("grants", "stop", {"login": Login("dsm", (), "no such account")}, ("dsm does not exist",)),
    ("visibility", "warning", {"own_grants": ("GRANT SELECT ON `shop`.`orders` TO `dbops`@`%`",)},
     ("rule 1 selects shop.%", "hidden", "GRANT SELECT ON shop.*")),
]  # fmt: skip


@pytest.mark.parametrize(("name", "status", "changed", "parts"), HELD)
def test_a_server_that_cannot_be_read(name: str, status: str, changed: dict[str, Any], parts: tuple[str, ...]) -> None:
    by = good(source={**MYSQL, "ssl_mode": "none"}) if name == "secure-transport" else good()
    only(checked(facts(**changed), by), name, status, *parts)


LACKING = [
    (GRANTS[1:], ["lacks REPLICATION CLIENT", "lacks REPLICATION SLAVE"]),
    (GRANTS[:1], ["lacks SELECT on shop.dms_canary, shop.orders"]),
    ((*GRANTS[:1], "GRANT SELECT ON `shop`.`orders` TO `dms`@`%`"), ["lacks SELECT on shop.dms_canary: "]),
    ((*GRANTS[:1], "GRANT SELECT (`id`) ON `shop`.`orders` TO `dms`@`%`"), ["lacks SELECT on shop.dms_canary, shop.orders"]),
    (("GRANT ALL PRIVILEGES ON *.* TO `dms`@`%`",), []),
    (("GRANT ALL PRIVILEGES ON `shop`.* TO `dms`@`%`",), ["lacks REPLICATION CLIENT", "lacks REPLICATION SLAVE"]),
]  # fmt: skip


@pytest.mark.parametrize(("grants", "lacks"), LACKING)
def test_grants_that_the_login_of_dms_lacks(grants: tuple[str, ...], lacks: list[str]) -> None:
    login = Login("dms", (Account("'dms'@'10.%'", grants),))
    found = checked(facts(login=login))
    assert [(one.id, one.status) for one in found] == [("grants", "stop")] * len(lacks)
    assert all(part in one.found for part, one in zip(lacks, found, strict=True)), [str(one) for one in found]
    assert all("TO 'dms'@'10.%'" in one.fix for one in found)


def test_each_account_of_a_login_needs_the_grants_because_any_may_be_the_one_that_comes_in() -> None:
    accounts = (Account("'dms'@'%'", GRANTS), Account("'dms'@'10.%'", ()))
    found = checked(facts(login=Login("dms", accounts)))
    assert {one.where for one in found if one.stops} == {"'dms'@'10.%'"}


def test_a_load_alone_needs_no_binary_log() -> None:
    bare = facts(
        variables={"log_bin": "OFF", "binlog_format": "STATEMENT", "innodb_read_only": "ON", **AURORA}, logs=None,
        log_filters=None, retention_hours=None, login=Login("dms", (Account("'dms'@'%'", GRANTS[1:]),)),
    )  # fmt: skip
    assert checked(bare, good(task_type="full-load", canary=None)) == []


@pytest.mark.parametrize(
    ("version", "compute", "stops"),
    [
        ("3.4.7", "instance", True), ("3.4.8", "instance", False), ("3.5.4", "instance", False), ("3.10.0", "instance", False),
        ("", "instance", True), ("2.4.5", "instance", True), ("", "serverless", False),
    ],
)  # fmt: skip
def test_checksums_are_read_by_later_versions_of_dms(version: str, compute: str, stops: bool) -> None:
    on = {"kind": "serverless", "max_dcu": 2} if compute == "serverless" else {"kind": "instance", "identifier": "one"}
    found = checked(facts(variables={"binlog_checksum": "CRC32"}), good(compute=on), engine_version=version)
    assert any(one.id == "binlog-checksum" and one.stops for one in found) is stops


# Time and size -------------------------------------------------------------------------------------------------------

# 5 MB/s is assumed: 18 GB an hour.
LOADS = [
    ("full-load-and-cdc", 20, 72.0, None, None),
    ("full-load-and-cdc", 20 * 18, 72.0, None, None),
    ("full-load-and-cdc", 20 * 18, 29.0, None, "stop"),
    ("full-load-and-cdc", 20 * 18, 30.0, None, None),
    ("full-load-and-cdc", 18, 23.9, None, "warning"),
    ("full-load-and-cdc", 18, 1.4, None, "stop"),
    ("full-load-and-cdc", 20 * 18, 24.0, 50e6, None),
    ("full-load-and-cdc", 20 * 18, 24.0, 1e6, "stop"),
    ("full-load-and-cdc", 10**6, NEVER, None, None),
    ("cdc", 10**6, 24.0, None, None),
    ("cdc", 10**6, 23.0, None, "warning"),
    ("cdc", 10**6, 0.0, None, "stop"),
]


@pytest.mark.parametrize(("kind", "gigabytes", "hours", "rate", "status"), LOADS)
def test_logs_are_kept_for_longer_than_a_load(
    kind: str, gigabytes: int, hours: float, rate: float | None, status: str | None
) -> None:
    of = facts(table("orders", size=gigabytes * GB), CANARY_TABLE, retention_hours=hours)
    found = [one for one in source.check(good(task_type=kind), of, bytes_per_s=rate) if one.id == "retention"]
    assert [one.status for one in found] == [status or "ok"]
    assert bool(found[0].fix) is bool(status)


def test_a_limit_of_the_load_that_is_longer_wants_longer_retention() -> None:
    found = checked(facts(retention_hours=72.0), good(limits={"load_hours": 100}))
    only(found, "retention", "warning", "less than 100 h", "360000")


def test_a_load_that_takes_longer_than_it_may() -> None:
    of = facts(table("orders", size=500 * GB), CANARY_TABLE)
    only(checked(of), "load-time", "warning", "27.8 h at an assumed 5 MB/s", "limits.load_hours is 24")
    only(checked(of, bytes_per_s=4e6), "load-time", "stop", "34.7 h at 4.0 MB/s as measured")
    assert [one.id for one in checked(of, bytes_per_s=50e6)] == []


def test_sessions_of_a_long_load_are_not_cut() -> None:
    short, long = table("orders", size=GB), table("orders", size=4 * GB)
    slow = {"net_read_timeout": "30", "net_write_timeout": "60"}
    assert checked(facts(short, CANARY_TABLE, variables=slow)) == []
    found = checked(facts(long, CANARY_TABLE, variables=slow))
    assert [(one.id, one.where) for one in found] == [
        ("timeouts", "net_read_timeout"),
        ("timeouts", "net_write_timeout"),
    ]
    assert "SET GLOBAL net_read_timeout = 300" in found[0].fix
    found = checked(facts(long, CANARY_TABLE, variables={"wait_timeout": None}))
    only(found, "timeouts", "warning", "wait_timeout is unknown")


def test_a_server_that_ends_long_statements() -> None:
    of = facts(table("orders", size=18 * GB), CANARY_TABLE, variables={"max_execution_time": "7200000"})
    only(checked(of), "statement-limit", "warning", "7200000 ms", "max_execution_time = 0")
    of = facts(table("orders", size=36 * GB), CANARY_TABLE, variables={"max_execution_time": "7200000"})
    only(checked(of), "statement-limit", "stop", "about 2.00 h")


def test_age_and_size_of_the_logs_are_told() -> None:
    logs = tuple(BinaryLog(f"binlog.{number:06d}", 36 * 10**5) for number in (3, 4))
    (found,) = [one for one in source.check(good(), facts(logs=logs)) if one.id == "binlog-files"]
    assert (
        found.found
        == "2 files of 7,200,000 bytes; the oldest, binlog.000003, is about 2.0 h old, by the rate of writing"
    )
    (found,) = [one for one in source.check(good(), facts(logs=(), log_bytes_per_s=None)) if one.id == "binlog-files"]
    assert found.found == "0 files of 0 bytes; the oldest, none, is of unknown age"


STAMPS = table("orders", column("at", "timestamp"))
ZONES: list[tuple[str, str, Any, str | None]] = [
    ("SYSTEM", "UTC", {}, None), ("+00:00", "CEST", {}, None), ("UTC", "CEST", {"ServerTimezone": "UTC"}, None),
    ("SYSTEM", "UTC", {"ServerTimezone": "Etc/UTC"}, None), ("Asia/Tokyo", "UTC", {"ServerTimezone": "asia/tokyo"}, None),
    ("Asia/Tokyo", "UTC", {}, "stop"), ("SYSTEM", "CEST", {}, "stop"), ("UTC", "UTC", {"ServerTimezone": "US/Pacific"}, "stop"),
    ("SYSTEM", "CEST", {"ServerTimezone": "Europe/Berlin"}, "warning"), ("+02:00", "UTC", {"ServerTimezone": "+03:00"}, "stop"),
    ("", "", {}, "stop"),
]  # fmt: skip


@pytest.mark.parametrize(("zone", "system", "given", "status"), ZONES)
def test_the_zone_of_the_server_is_that_of_the_endpoint(zone: str, system: str, given: Any, status: str | None) -> None:
    of = facts(STAMPS, CANARY_TABLE, variables={"time_zone": zone, "system_time_zone": system})
    found = checked(of, good(source={**MYSQL, "settings": given}))
    assert [(one.id, one.status) for one in found] == ([("time-zone", status)] if status else [])
    without = facts(variables={"time_zone": zone, "system_time_zone": system})
    assert checked(without, good(source={**MYSQL, "settings": given})) == []


def test_of_an_endpoint_that_exists_aws_tells_the_zone() -> None:
    by = good(source={"kind": "existing", "arn": SOURCE_ARN, "engine": "mysql"})
    of = facts(STAMPS, CANARY_TABLE, variables={"time_zone": "Asia/Tokyo"})
    only(checked(of, by), "time-zone", "warning", "of the endpoint is unknown", "Set ServerTimezone to Asia/Tokyo")
    only(checked(of, by, source_settings={}), "time-zone", "stop", "is not set", "timestamps would be shifted")
    assert checked(of, by, source_settings={"ServerTimezone": "Asia/Tokyo"}) == []


# Tables --------------------------------------------------------------------------------------------------------------

NO_KEY = table("orders", indexes=())
PARTLY = table(
    "orders", indexes=(replace(PRIMARY, name="u", has_prefix=True), replace(PRIMARY, name="n", nullable=True))
)
UNIQUE = table("orders", indexes=(replace(PRIMARY, name="u"),))
TO_DYNAMODB = {"target": DYNAMODB}
ITEM = {**BY_KEY, "mapping-parameters": {"partition-key-name": "pk"}}
KEYS = [
    (NO_KEY, {}, "stop"), (PARTLY, {}, "stop"), (UNIQUE, {}, None), (ORDERS, {}, None),
    (NO_KEY, {"task_type": "full-load", "settings": settings("FullLoadSettings.TargetTablePrepMode", "TRUNCATE_BEFORE_LOAD")}, "warning"),
    (NO_KEY, {"target": S3}, "warning"), (NO_KEY, {"target": KINESIS}, "warning"),
    (NO_KEY, {"target": KINESIS, "mappings": [SELECT_ALL, BY_PRIMARY_KEY]}, "stop"),
    (NO_KEY, TO_DYNAMODB, "stop"), (NO_KEY, {**TO_DYNAMODB, "mappings": [SELECT_ALL, ITEM]}, "warning"),
]  # fmt: skip


@pytest.mark.parametrize(("of", "by", "status"), KEYS)
def test_a_table_without_a_key(of: SourceTable, by: dict[str, Any], status: str | None) -> None:
    found = [one for one in checked(facts(of, CANARY_TABLE), good(**by)) if one.id == "row-key"]
    assert [(one.status, one.where) for one in found] == ([(status, "shop.orders")] if status else [])


MAKES = settings("FullLoadSettings.TargetTablePrepMode", "DROP_AND_CREATE")
WITHOUT = {
    "rule-type": "transformation", "rule-id": "5", "rule-name": "5", "rule-target": "column", "rule-action": "remove-column",
    "object-locator": {"schema-name": "shop", "table-name": "orders", "column-name": "full%"},
}  # fmt: skip
KEPT = {
    **WITHOUT,
    "rule-action": "include-column",
    "object-locator": {**WITHOUT["object-locator"], "column-name": "id"},
}  # type: ignore[dict-item]
GENERATED = table("orders", column("full_name", "varchar(40)", is_generated=True))
HIDDEN = table("orders", column("full_name", "int"), invisible=("full_name",))
PARTITIONED = table("orders", is_partitioned=True)
CHILD = table("orders", cascades=("fk_user (ON DELETE CASCADE)",))
OF_TABLES: list[tuple[str, str | None, SourceTable, dict[str, Any], tuple[str, ...]]] = [
    ("engine", "warning", table("orders", engine="MyISAM"), {}, ("is MyISAM", "ALTER TABLE `shop`.`orders` ENGINE = InnoDB")),
    ("engine", "warning", table("orders", engine=""), {}, ("of unknown engine",)),
    ("names", "stop", table("it's"), {}, ("it's",)),
    ("names", "stop", table("orders", column("a`b", "int")), {}, ("a`b", "Rename")),
    ("generated-columns", "warning", GENERATED, {}, ("shop.orders.full_name", "remove-column")),
    ("generated-columns", "stop", GENERATED, {"settings": MAKES}, ("ordinary column", "TRUNCATE_BEFORE_LOAD")),
    ("generated-columns", "stop", GENERATED, {"target": KINESIS}, ("keeps the value of the load",)),
    ("generated-columns", None, GENERATED, {"target": KINESIS, "mappings": [SELECT_ALL, WITHOUT]}, ()),
    ("generated-columns", None, GENERATED, {"target": KINESIS, "mappings": [SELECT_ALL, KEPT]}, ()),
    ("invisible-columns", "stop", HIDDEN, {}, ("without a word", "ALTER COLUMN `full_name` SET VISIBLE")),
    ("invisible-columns", None, HIDDEN, {"mappings": [SELECT_ALL, WITHOUT]}, ()),
    ("partitions", "warning", PARTITIONED, {}, ("suspends", "skipTableSuspensionForPartitionDdl")),
    ("partitions", "warning", PARTITIONED, {"settings": MAKES, "task_type": "full-load"}, ("without partitions", "by hand")),
    ("cascades", "stop", CHILD, {}, ("fk_user (ON DELETE CASCADE)", "binary log", "same key")),
    ("cascades", "stop", CHILD, {"target": KINESIS}, ("RESTRICT",)),
    ("cascades", None, CHILD, {"task_type": "full-load"}, ()),
    ("charsets", "warning", table("orders", column("a", "text", charset="utf16")), {}, ("shop.orders.a is utf16", "utf8mb4")),
    ("charsets", None, table("orders", column("a", "varchar(9)", charset="latin1")), {}, ()),
    ("types", "stop", table("orders", column("flags", "bit(8)", numeric_precision=8)), TO_DYNAMODB, ("bit(8)", "exclude-columns")),
    ("types", None, table("orders", column("flag", "bit(1)", numeric_precision=1)), TO_DYNAMODB, ()),
    ("types", "stop", table("orders", column("at", "point")), TO_DYNAMODB, ("point",)),
    ("types", "warning", table("orders", column("at", "point")), {}, ("carries as a BLOB",)),
    ("types", None, table("orders", column("e", "enum('a')"), column("s", "set('a')"), column("y", "year")), {}, ()),
    ("max-allowed-packet", "stop", table("orders", column("doc", "longblob"), longest={"doc": 67108865}), {}, ("67,108,865", "134217730")),
    ("lob-measured", "warning", table("orders", column("doc", "text"), unmeasured={"doc": "it takes longer"}), {}, ("it takes longer",)),
    ("lob-measured", "warning", table("orders", column("doc", "text"), unmeasured={"doc": "it takes longer"}, newest={"doc": 32768}), {},
     ("the newest rows hold 32,768 bytes at most",)),
    ("lob-measured", "stop", table("orders", column("doc", "text"), unmeasured={"doc": "it takes longer"}, newest={"doc": 32769}), {},
     ("holds 32,769 bytes or more, and 32,768 are carried", "Raise LobMaxSize")),
    ("lob-headroom", "warning", table("orders", column("doc", "text"), longest={"doc": 16385}), {}, ("16,385 bytes, and 32,768",)),
    ("lob-headroom", None, table("orders", column("doc", "text"), longest={"doc": 16384}), {}, ()),
    ("lob-cut", "stop", table("orders", column("doc", "text"), longest={"doc": 32769}), {}, ("32,769", "LobMaxSize")),
    ("lob-cut", None, table("orders", column("doc", "text"), longest={"doc": 32769}),
     {"settings": settings("TargetMetadata.LobMaxSize", 64)}, ()),
    ("lob-of-kinesis", "stop", table("orders", column("doc", "longtext"), longest={"doc": 2**20 + 1}),
     {"target": KINESIS, "settings": settings("TargetMetadata.LobMaxSize", 2048)}, ("1,048,577",)),
    ("dynamodb-binary", "stop", table("orders", column("doc", "varbinary(9)")), TO_DYNAMODB, ("varbinary(9)",)),
    ("dynamodb-digits", "stop", table("orders", column("sum", "decimal(39,2)", numeric_precision=39)), TO_DYNAMODB, ("38 digits",)),
    ("bigint-scientific", "stop", table("orders", column("n", "bigint(20)")),
     {"target": {**KINESIS, "use_large_integer_value": False}, "mappings": [{**SELECT_ALL, "object-locator": {
         "schema-name": "shop", "table-name": "orders"}}], "canary": None}, ("scientific",)),
]  # fmt: skip


@pytest.mark.parametrize(("name", "status", "of", "by", "parts"), OF_TABLES)
def test_a_table_that_does_not_arrive_as_it_is(
    name: str, status: str | None, of: SourceTable, by: dict[str, Any], parts: tuple[str, ...]
) -> None:
    canary = {} if "canary" in by else {"canary": CANARY}
    found = [one for one in checked(facts(of, CANARY_TABLE), spec(**{**canary, **by})) if one.id == name]
    if status is None:
        assert [str(one) for one in found] == []
    else:
        assert {one.status for one in found} == {status}
        assert [part for part in parts if part not in str(found[0])] == [], str(found[0])
        assert found[0].fix


def test_partitions_that_are_added_do_not_suspend_a_table_when_the_endpoint_says_so() -> None:
    row = {
        "EndpointIdentifier": "shop",
        "MySQLSettings": {},
        "ExtraConnectionAttributes": "a=b; SkipTableSuspensionForPartitionDDL=true",
    }
    by = good(source={"kind": "existing", "arn": SOURCE_ARN, "engine": "mysql"})
    known = source.endpoint_settings(states.endpoint(row))
    assert [one.id for one in checked(facts(PARTITIONED, CANARY_TABLE), by, source_settings={})] == ["partitions"]
    assert checked(facts(PARTITIONED, CANARY_TABLE), by, source_settings=known) == []


@pytest.mark.parametrize(
    ("given", "value"),
    [
        ({"ServerTimezone": "US/Pacific"}, "US/Pacific"), ({"serverTimezone": None}, ""), ({}, ""),
        ({checks.EXTRA: "eventsPollInterval=5;serverTimezone=US/Pacific"}, "US/Pacific"), ({checks.EXTRA: None}, ""),
    ],
)  # fmt: skip
def test_a_setting_of_an_endpoint_may_be_an_extra_attribute(given: dict[str, Any], value: str) -> None:
    assert checks.attribute(given, "ServerTimezone") == value


def test_notes_of_types_name_the_columns() -> None:
    of = facts(table("orders", column("e", "enum('a')"), column("j", "json"), longest={"j": 9}), CANARY_TABLE)
    found = [str(one) for one in source.check(good(), of) if one.id == "types"]
    assert found == [
        "[types] shop.orders.e ENUM is carried as text.",
        "[types] shop.orders.j JSON is carried as a large object: what is cut is no JSON any more.",
    ]


def test_mappings_that_select_no_table_or_too_many() -> None:
    nothing = facts(selected=(), tables=(Table("crm", "users"),), login=None)
    found = checked(nothing, good(canary=None))
    only(found, "nothing-selected", "stop", "select none of the 1 tables")
    only(found, "rule-matches-nothing", "warning", "shop.%")
    many = tuple(table(f"t{number}", size=0) for number in range(10_001))
    only(checked(facts(*many, CANARY_TABLE)), "table-count", "warning", "10,002 tables")


CANARIES: list[tuple[SourceTable, str]] = [
    (table("other"), "does not exist"),
    (table("dms_canary", column("token", "int")), "has no column written_at"),
    (replace(CANARY_TABLE, shape=replace(CANARY_TABLE.shape, indexes=())), "has the primary key (), not (id)"),
    (replace(CANARY_TABLE, shape=replace(CANARY_TABLE.shape, indexes=(replace(PRIMARY, columns=("id", "token")),))), "(id, token)"),
]  # fmt: skip


@pytest.mark.parametrize(("of", "text"), CANARIES)
def test_the_table_of_the_canary(of: SourceTable, text: str) -> None:
    only(checked(facts(ORDERS, of)), "canary", "stop", "shop.dms_canary", text, "canary.sql")


WILDCARDS = [
    ("shop", "orders", "GRANT SELECT ON `shop`.`orders` TO x", True), ("shop", "ord%", "GRANT SELECT ON `shop`.`orders` TO x", False),
    ("shop", "ord%", "GRANT SELECT ON `shop`.* TO x", True), ("sh%", "orders", "GRANT SELECT ON `shop`.* TO x", False),
    ("%", "%", "GRANT SELECT ON *.* TO x", True), ("shop[_]eu", "%", "GRANT SELECT ON `shop\\_eu`.* TO x", True),
    ("shop[_]eu", "%", "GRANT SELECT ON `shop`.* TO x", False),
]  # fmt: skip


@pytest.mark.parametrize(("schema", "name", "grant", "sees"), WILDCARDS)
def test_tables_that_are_hidden_from_our_login(schema: str, name: str, grant: str, sees: bool) -> None:
    rule = {**SELECT_ALL, "object-locator": {"schema-name": schema, "table-name": name}}
    found = checked(facts(own_grants=(grant,)), good(mappings=[rule], canary=None))
    assert ("visibility" not in {one.id for one in found}) is sees


# Order, overrides, what the linter says -------------------------------------------------------------------------------


def test_a_reason_in_the_spec_turns_a_stop_into_a_warning() -> None:
    by = good(overrides={"cascades": "the application deletes by itself", "lob-cut": "nobody reads the rest"})
    of = facts(
        table("orders", column("doc", "text"), cascades=("fk (ON DELETE CASCADE)",), longest={"doc": 40_000}),
        CANARY_TABLE,
    )
    found = {one.id: one for one in checked(of, by)}
    assert not any(one.stops for one in found.values())
    assert "Overridden: the application deletes by itself." in str(found["cascades"])
    assert found["lob-cut"].overridden == "nobody reads the rest"


def test_stops_come_first() -> None:
    of = facts(NO_KEY, CANARY_TABLE, variables={"log_bin": "OFF"}, retention_hours=23.0, login=None)
    found = [one.status for one in source.check(good(), of)]
    assert found == sorted(found, key=("stop", "warning", "ok").index)
    assert found[:2] == ["stop", "stop"]
    assert "warning" in found


def test_what_the_linter_says_of_settings_alone_is_left_to_it() -> None:
    by = good(settings={}, target=DYNAMODB)
    assert {one.id for one in source.check(by, facts())} == checks.ids()


def test_every_check_was_seen_to_fire() -> None:
    """A check that no test makes fire may as well not be there."""
    seen = {row[0] for row in HELD} | {row[0] for row in OF_TABLES if row[1]}
    seen |= {
        "load-time",
        "timeouts",
        "statement-limit",
        "time-zone",
        "row-key",
        "table-count",
        "canary",
    }  # tests of their own
    assert checks.ids() - seen == {"gtid"}  # which only tells
