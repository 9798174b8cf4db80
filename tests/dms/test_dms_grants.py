"""The grants of docs and lab: nothing is granted to the login of DMS that it does not need, and our login may write the canary alone."""

from __future__ import annotations

from typing import Any

import pytest

from dbops import sql

BASE: dict[str, Any] = {
    "ours": "'dbops'@'%'", "theirs": "'dms'@'%'", "schemas": ["shop"], "follows": True, "is_managed": False, "canary": None,
    "assessed": False, "has_roles": True, "target_schemas": [],
}  # fmt: skip


def grants(whose: str, **more: Any) -> list[str]:
    text = "\n".join(
        line for line in sql.render("dms/grants", **{**BASE, **more}).splitlines() if not line.startswith("--")
    )
    statements = [" ".join(statement.split()) for statement in text.split(";") if statement.strip()]
    assert all(statement.startswith("GRANT ") for statement in statements)
    return [
        one.removeprefix("GRANT ").removesuffix(f" TO {whose}") for one in statements if one.endswith(f" TO {whose}")
    ]


def test_of_our_login() -> None:
    read = [
        "REPLICATION CLIENT ON *.*",
        "SELECT ON `shop`.*",
        "SELECT ON `performance_schema`.*",
        "SELECT ON `mysql`.*",
    ]
    assert grants("'dbops'@'%'") == read
    assert grants("'dbops'@'%'", is_managed=True, canary=("shop", "dms_canary")) == [
        *read, "SELECT ON `mysql`.`rds_configuration`", "SELECT, INSERT, UPDATE ON `shop`.`dms_canary`",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({}, ["REPLICATION CLIENT, REPLICATION SLAVE ON *.*", "SELECT ON `shop`.*"]),
        ({"follows": False, "schemas": ["shop", "a`b"]}, ["SELECT ON `shop`.*", "SELECT ON `a``b`.*"]),
        (
            {"follows": False, "assessed": True, "has_roles": False},
            ["SELECT ON `shop`.*", "SELECT ON `mysql`.`user`", "SELECT ON `mysql`.`db`", "SELECT ON `mysql`.`tables_priv`",
             "SELECT ON `performance_schema`.`replication_connection_status`"],
        ),
        (
            {"target_schemas": ["store"]},
            ["ALTER, CREATE, DROP, INDEX, INSERT, UPDATE, DELETE, SELECT ON `store`.*", "ALL PRIVILEGES ON `awsdms_control`.*"],
        ),
    ],
)  # fmt: skip
def test_of_the_login_of_dms(more: dict[str, Any], expected: list[str]) -> None:
    assert grants("'dms'@'%'", **more) == expected
