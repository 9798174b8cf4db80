"""Every check of a MySQL target: what it holds against it, and a target that passes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from dbops import mysql
from dbops.dms import target
from dbops.dms.facts import Account, Check, Login, SourceTable, TargetFacts, TargetTable
from dbops.dms.mappings import Table
from dbops.mysql import Column
from tests.dms.dms_kit import MYSQL_TARGET, TARGET_ARN, spec
from tests.dms.source_kit import ID, PRIMARY, column, facts, settings, table

GOOD = {
    "version": "8.0.36", "foreign_key_checks": "ON", "innodb_read_only": "OFF", "local_infile": "ON", "lower_case_table_names": "0",
    "max_allowed_packet": "67108864", "net_read_timeout": "300", "net_write_timeout": "300", "read_only": "OFF",
    "sql_mode": "STRICT_TRANS_TABLES", "super_read_only": "OFF", "wait_timeout": "28800",
}  # fmt: skip
GRANTS = ("GRANT ALL PRIVILEGES ON `shop`.* TO `dms`@`%`", "GRANT ALL PRIVILEGES ON `awsdms_control`.* TO `dms`@`%`")
NOTE = column("note", "varchar(20)", charset="utf8mb4", max_chars=20)
ORDERS = table("orders", NOTE)
MAKES = settings("FullLoadSettings.TargetTablePrepMode", "DROP_AND_CREATE")


def there(of: SourceTable = ORDERS, *columns: Column, **more: Any) -> TargetTable:
    shape = mysql.Table(
        "shop", of.table.name, "InnoDB", 0, 0, 0, 0, 0, (ID, *(columns or of.shape.columns[1:])), (PRIMARY,)
    )
    given = {"columns": {one.name: one.name for one in of.shape.columns}, "shape": shape, **more}
    return TargetTable(of.table, more.pop("table", of.table), **{k: v for k, v in given.items() if k != "table"})


def held(one: TargetTable | None = None, variables: dict[str, str | None] | None = None, **more: Any) -> TargetFacts:
    merged = {name: value for name, value in {**GOOD, **(variables or {})}.items() if value is not None}
    given = {"login": Login("dms", (Account("'dms'@'%'", GRANTS),)), **more}
    return TargetFacts("8.0.36", merged, (one or there(),), **given)


def checked(of: TargetFacts, source: SourceTable = ORDERS, known: Any = None, **by: Any) -> list[Check]:
    return [one for one in target.check(spec(**by), facts(source), of, target_settings=known) if one.status != "ok"]


def test_a_good_target_passes_and_every_check_says_what_it_found() -> None:
    found = target.check(spec(), facts(ORDERS), held())
    assert [str(one) for one in found if one.status != "ok"] == []
    assert {one.id for one in found} == target.ids()


WIDER = table("orders", column("n", "bigint(20) unsigned"))
STAMP = table("orders", column("at", "datetime"))
CAPITALS = table("Orders")
LONG = table("orders", column("doc", "longtext"), longest={"doc": 67108865})
NO_KEY = there(shape=replace(ORDERS.shape, indexes=()))
KEYED = there(foreign_keys=("fk to users",))
WRONG: list[tuple[str, str | None, TargetFacts, dict[str, Any], str]] = [
    ("target-writable", "stop", held(variables={"read_only": "ON"}), {}, "read_only is ON"),
    ("target-writable", "stop", held(variables={"innodb_read_only": "ON"}), {}, "at the writer"),
    ("target-local-infile", "stop", held(variables={"local_infile": "OFF"}), {}, "LOAD DATA LOCAL"),
    ("target-local-infile", "stop", held(variables={"local_infile": None}), {}, "unknown"),
    ("target-local-infile", None, held(variables={"local_infile": "OFF"}), {"task_type": "cdc"}, ""),
    ("target-tables", "warning", held(there(shape=None)), {}, "without secondary indexes"),
    ("target-tables", "stop", held(there(shape=None)), {"task_type": "cdc"}, "does not exist"),
    ("target-tables", None, held(there(shape=None)), {"settings": MAKES}, ""),
    ("target-key", "stop", held(NO_KEY), {}, "doubles rows"),
    ("target-key", "warning", held(NO_KEY), {"task_type": "full-load"}, "doubles rows"),
    ("target-key", None, held(NO_KEY), {"settings": MAKES}, ""),
    ("target-columns", "stop", held(there(ORDERS, column("other", "int"))), {}, "lacks note, which shop.orders has"),
    ("target-columns", None, held(there(ORDERS, column("other", "int"), columns={"id": "id"})), {}, ""),
    ("target-columns", None, held(there(ORDERS, column("text", "varchar(20)"), columns={"id": "id", "note": "text"})), {}, ""),
    ("target-generated", "stop", held(there(ORDERS, replace(NOTE, is_generated=True))), {}, "Leave note out"),
    ("target-narrower", "stop", held(there(ORDERS, replace(NOTE, max_chars=19))), {}, "cut or refused"),
    ("target-narrower", None, held(there(ORDERS, replace(NOTE, max_chars=21))), {}, ""),
    ("target-narrower", "stop", held(there(ORDERS, replace(NOTE, charset="latin1"))), {}, "latin1 lacks"),
    ("target-narrower", "stop", held(there(ORDERS, replace(NOTE, charset="utf8mb3"))), {}, "four bytes"),
    ("target-foreign-keys", "stop", held(KEYED), {}, "FOREIGN_KEY_CHECKS=0"),
    ("target-foreign-keys", None, held(KEYED), {"task_type": "cdc"}, ""),
    ("target-foreign-keys", None, held(KEYED, {"foreign_key_checks": "OFF"}), {}, ""),
    ("target-foreign-keys", None, held(KEYED),
     {"target": {**MYSQL_TARGET, "settings": {"AfterConnectScript": "set foreign_key_checks = 0"}}}, ""),
    ("target-triggers", "stop", held(there(triggers=("BEFORE INSERT t",))), {}, "BEFORE INSERT t"),
    ("target-triggers", "stop", held(there(triggers=None)), {}, "GRANT TRIGGER ON `shop`.*"),
    ("target-sql-mode", "warning", held(variables={"sql_mode": "ANSI_QUOTES"}), {}, "not strict"),
    ("target-sql-mode", "warning", held(variables={"sql_mode": None}), {}, "not strict"),
    ("target-timeouts", "warning", held(variables={"net_write_timeout": "60"}), {}, "net_write_timeout is 60 s"),
    ("target-engine", "warning", held(there(shape=replace(ORDERS.shape, engine="MyISAM"))), {}, "is MyISAM"),
    ("target-grants", "warning", held(login=None), {}, "is not named"),
    ("target-grants", "warning", held(login=Login("dms", None, "denied")), {}, "denied"),
    ("target-grants", "stop", held(login=Login("dms", (), "no account")), {}, "does not exist"),
    ("target-grants", "stop", held(login=Login("dms", (Account("'dms'@'%'", GRANTS[:1]),))), {}, "lacks CREATE on awsdms_control"),
    ("target-grants", "stop", held(login=Login("dms", (Account("'dms'@'%'", (GRANTS[1], "GRANT SELECT, INSERT ON `shop`.* TO x")),))),
     {}, "lacks ALTER, CREATE, DROP, INDEX, UPDATE, DELETE on shop"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "status", "of", "by", "text"), WRONG)
def test_a_target_that_does_not_take_the_rows(
    name: str, status: str | None, of: TargetFacts, by: dict[str, Any], text: str
) -> None:
    found = [one for one in checked(of, **by) if one.id == name]
    assert [one.status for one in found] == ([status] if status else []), [str(one) for one in found]
    assert all(text in str(one) and one.fix for one in found), [str(one) for one in found]


OF_SOURCE: list[tuple[str, str | None, SourceTable, TargetFacts, str]] = [
    ("target-sql-mode", "warning", STAMP, held(there(STAMP), {"sql_mode": "TRADITIONAL"}), "zero date of shop.orders.at"),
    ("target-sql-mode", None, ORDERS, held(there(), {"sql_mode": "TRADITIONAL"}), ""),
    ("target-packet", "stop", LONG, held(there(LONG)), "134217730"),
    ("target-packet", None, LONG, held(there(LONG), {"max_allowed_packet": "67108865"}), ""),
    ("target-case", "warning", CAPITALS, held(there(CAPITALS), {"lower_case_table_names": "1"}), "convert-lowercase"),
    ("target-case", None, ORDERS, held(there(), {"lower_case_table_names": "1"}), ""),
    ("target-narrower", "stop", WIDER, held(there(WIDER, column("n", "bigint(20)"))), "larger values"),
    ("target-narrower", "stop", WIDER, held(there(WIDER, column("n", "int(10) unsigned"))), "larger values"),
    ("target-narrower", None, WIDER, held(there(WIDER, column("n", "bigint unsigned"))), ""),
]  # fmt: skip


@pytest.mark.parametrize(("name", "status", "source", "of", "text"), OF_SOURCE)
def test_a_target_that_does_not_fit_the_source(
    name: str, status: str | None, source: SourceTable, of: TargetFacts, text: str
) -> None:
    found = [one for one in checked(of, source) if one.id == name]
    assert [one.status for one in found] == ([status] if status else []), [str(one) for one in found]
    assert all(text in str(one) for one in found), [str(one) for one in found]


DECIMALS = [
    ((10, 2), (10, 2), False),
    ((10, 2), (12, 2), False),
    ((10, 2), (12, 4), False),
    ((10, 2), (10, 4), True),
    ((10, 2), (12, 1), True),
]


@pytest.mark.parametrize(("left", "right", "loses"), DECIMALS)
def test_digits_of_decimals(left: tuple[int, int], right: tuple[int, int], loses: bool) -> None:
    of, to = (
        column("sum", f"decimal({digits},{scale})", numeric_precision=digits, numeric_scale=scale)
        for digits, scale in (left, right)
    )
    source = table("orders", of)
    found = checked(held(there(source, to)), source)
    assert [one.id for one in found] == (["target-narrower"] if loses else [])


def test_of_an_endpoint_that_exists_aws_tells_whether_keys_are_checked() -> None:
    by = {"target": {"kind": "existing", "arn": TARGET_ARN, "engine": "mysql"}}
    assert {one.id for one in checked(held(KEYED), **by)} == {"target-foreign-keys"}
    known = {"ExtraConnectionAttributes": "initstmt=SET FOREIGN_KEY_CHECKS=0"}
    assert checked(held(KEYED), known=known, **by) == []


def test_a_reason_in_the_spec_turns_a_stop_into_a_warning() -> None:
    (found,) = checked(held(there(triggers=("AFTER INSERT t",))), overrides={"target-triggers": "it only counts"})
    assert (found.status, found.overridden) == ("warning", "it only counts")


def test_names_are_those_of_the_source_unless_a_rule_changes_them() -> None:
    names = target.unchanged(Table("shop", "orders"), ["id", "note"])
    assert (names.schema, names.table, dict(names.columns)) == ("shop", "orders", {"id": "id", "note": "note"})


def test_every_check_was_seen_to_fire() -> None:
    assert target.ids() == {row[0] for row in WRONG if row[1]} | {row[0] for row in OF_SOURCE if row[1]}
