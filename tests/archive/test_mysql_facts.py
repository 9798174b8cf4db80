"""Facts about servers and tables that are read from text: grants, keys, versions, InnoDB's names."""

from __future__ import annotations

from types import TracebackType
from typing import Any

import pytest

from dbops import mysql
from dbops.mysql import Column, Index, MySqlFactError, Server, Table


class Answers:
    """A connection whose answers are listed by a part of the statement."""

    def __init__(self, **answers: Any) -> None:
        self.answers, self.asked = {"aurora_version": [], **answers}, list[tuple[str, Any]]()
        self.description: list[tuple[str]] = []
        self.found: list[tuple[Any, ...]] = []

    def cursor(self) -> Answers:
        return self

    def __enter__(self) -> Answers:
        return self

    def __exit__(self, *exc: type[BaseException] | BaseException | TracebackType | None) -> None:
        return None

    def execute(self, statement: str, args: Any = None) -> None:
        self.asked.append((statement, args))
        for part, rows in self.answers.items():
            if part.lower() in statement.lower().replace(" ", "_"):
                if isinstance(rows, Exception):
                    raise rows
                self.description = [(name,) for name in rows[0]] if rows else []
                self.found = [tuple(row.values()) for row in rows]
                return
        self.description, self.found = [], []

    def fetchall(self) -> list[tuple[Any, ...]]:
        return self.found

    def fetchone(self) -> tuple[Any, ...] | None:
        return self.found[0] if self.found else None


def server(version: str) -> dict[str, Any]:
    return {"version": version, "server_uuid": "u", "read_only": 0, "innodb_read_only": 0, "log_bin": 1, "binlog_format": "ROW",
            "max_allowed_packet": 4194304}  # fmt: skip


GRANTED = [
    "GRANT ALL PRIVILEGES ON *.* TO 'u'@'%'", "GRANT SELECT, TRIGGER ON *.* TO 'u'@'%'", "GRANT TRIGGER ON `shop`.* TO 'u'@'%'",
    "GRANT SELECT, TRIGGER ON `shop`.`orders` TO 'u'@'%'", "GRANT trigger ON `sh%`.* TO `u`@`%`", "GRANT TRIGGER ON `s_op`.* TO 'u'@'%'",
    "GRANT ALL PRIVILEGES ON `shop`.* TO 'u'@'%' WITH GRANT OPTION", "GRANT TRIGGER ON TABLE `shop`.`orders` TO 'u'@'%'",
]  # fmt: skip
NOT_GRANTED = [
    "GRANT USAGE ON *.* TO 'u'@'%'", "GRANT SELECT ON *.* TO 'u'@'%'", "GRANT TRIGGER ON `other`.* TO 'u'@'%'",
    "GRANT TRIGGER ON `shop`.`orders2` TO 'u'@'%'", "GRANT TRIGGER ON `shop`.`%` TO 'u'@'%'", "GRANT TRIGGER ON `s\\_op`.* TO 'u'@'%'",
    "GRANT TRIGGER ON `sh\\%`.* TO 'u'@'%'", "GRANT PROXY ON ''@'' TO 'u'@'%'", "GRANT EXECUTE ON PROCEDURE `shop`.`orders` TO 'u'@'%'",
    "GRANT `trigger`@`%` TO `u`@`%`", "GRANT TRIGGER ON `Shop`.* TO 'u'@'%'", "GRANT TRIGGER ON `shop`.`Orders` TO 'u'@'%'",
]  # fmt: skip


@pytest.mark.parametrize(("grant", "expected"), [(g, True) for g in GRANTED] + [(g, False) for g in NOT_GRANTED])
def test_a_privilege_is_read_from_show_grants(grant: str, expected: bool) -> None:
    answers = Answers(
        version=[server("5.7.22-log")], show_grants=[{"g": "GRANT USAGE ON *.* TO 'u'@'%'"}, {"g": grant}]
    )
    assert mysql.has_privilege(answers, "TRIGGER", "shop", "orders") is expected


def test_roles_that_are_active_count() -> None:
    answers = Answers(
        aurora=[],
        **{
            "version": [server("8.0.15")],
            "current_role": [{"r": "`r`@`%`"}],
            "show_grants": [{"g": "GRANT TRIGGER ON *.* TO x"}],
        },
    )
    assert mysql.has_privilege(answers, "TRIGGER", "shop", "orders")
    assert answers.asked[-1][0] == "SHOW GRANTS FOR CURRENT_USER() USING `r`@`%`"


PARTLY = ["GRANT SELECT, TRIGGER ON *.* TO `u`@`%`", "REVOKE SELECT ON `shop`.* FROM `u`@`%`"]


def test_what_is_revoked_in_a_schema_is_not_granted_there() -> None:
    assert not mysql.granted(PARTLY, "SELECT", "shop", "orders")
    assert mysql.granted(PARTLY, "SELECT", "other", "orders")
    assert mysql.granted(PARTLY, "TRIGGER", "shop", "orders")
    assert mysql.granted([*PARTLY, "GRANT SELECT ON `shop`.`orders` TO `u`@`%`"], "SELECT", "shop", "orders")


@pytest.mark.parametrize(
    ("grant", "expected"),
    [
        ("GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO 'u'@'%'", True),
        ("GRANT ALL PRIVILEGES ON *.* TO 'u'@'%' WITH GRANT OPTION", True),
        ("GRANT ALL PRIVILEGES ON `%`.* TO 'u'@'%'", False),
        ("GRANT REPLICATION SLAVE ON *.* TO 'u'@'%'", False),
    ],
)
def test_a_privilege_of_the_server(grant: str, expected: bool) -> None:
    assert mysql.granted_on_server(["GRANT USAGE ON *.* TO 'u'@'%'", grant], "REPLICATION CLIENT") is expected


def index(name: str, *, unique: bool = True, nullable: bool = False, prefix: bool = False) -> Index:
    return Index(name, ("a",), unique, nullable, prefix, "BTREE")


@pytest.mark.parametrize(
    ("indexes", "expected"),
    [
        ([index("PRIMARY"), index("u")], "PRIMARY"),
        ([index("n", nullable=True), index("p", prefix=True), index("x", unique=False), index("u")], "u"),
        ([index("n", nullable=True)], None),
        ([], None),
    ],
)  # fmt: skip
def test_the_index_that_names_each_row(indexes: list[Index], expected: str | None) -> None:
    found = Table("s", "t", "InnoDB", 0, 0, 0, 0, 0, (), tuple(indexes)).row_key
    assert (found and found.name) == expected


def test_columns_are_found_without_case() -> None:
    table = Table("s", "t", "InnoDB", 0, 0, 0, 0, 0, (Column("Id", "int", "int(10) UNSIGNED", nullable=False),), ())
    assert table.column("iD") is table.columns[0]
    assert table.column("x") is None
    assert table.columns[0].unsigned


@pytest.mark.parametrize(
    ("version", "expected"), [("5.7.22-log", (5, 7, 22)), ("8.0.15", (8, 0, 15)), ("5.7.mysql_aurora.2.11.1", None),
    ("8.0.mysql_aurora.3.04.0", None)]
)  # fmt: skip
def test_versions(version: str, expected: tuple[int, ...] | None) -> None:
    made = Server(version, "u", False, True, "ROW", 1, False)
    if expected is None:
        assert made.version_tuple[:2] in ((5, 7), (8, 0))
    else:
        assert made.version_tuple == expected


@pytest.mark.parametrize(
    ("version", "dictionary"), [("5.7.22", "INNODB_SYS_FOREIGN "), ("8.0.15", "INNODB_FOREIGN ")]
)  # fmt: skip
def test_hidden_foreign_keys_are_looked_up_under_the_names_of_the_files(version: str, dictionary: str) -> None:
    answers = Answers(version=[server(version)], innodb_=[{"n": 3}])
    assert mysql.hidden_foreign_keys(answers, "shop", "a$b") == 3
    statement, args = next((s, a) for s, a in answers.asked if "REF_NAME" in s)
    assert dictionary in statement
    assert args == (["shop/a$b", "shop/a@0024b"],)


def test_foreign_keys_that_cannot_be_listed_are_an_error_not_none() -> None:
    import MySQLdb

    answers = Answers(
        version=[server("5.7.22")], innodb_=MySQLdb.OperationalError(1227, "Access denied; you need PROCESS")
    )
    with pytest.raises(
        MySqlFactError,
        match=r"INNODB_SYS_FOREIGN is not readable: Access denied; you need PROCESS; GRANT PROCESS ON \*\.\*",
    ):
        mysql.hidden_foreign_keys(answers, "s", "t")


@pytest.mark.parametrize(
    ("status", "expected"),
    [([], None), ([{"Seconds_Behind_Master": None}], None), ([{"Seconds_Behind_Master": 0}], 0.0), ([{"Seconds_Behind_Master": 12}], 12.0)],
)  # fmt: skip
def test_lag_that_cannot_be_seen_is_not_zero(status: list[dict[str, Any]], expected: float | None) -> None:
    assert mysql.replica_lag_seconds(Answers(show_slave_status=status, version=[server("5.7.22")])) == expected
