"""A small shop for the tests of the judging modules: its catalog, and statements on it as the inventory would hold them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from dbops import mysql
from dbops.inventory import fingerprint, parse, resolve
from dbops.inventory import text as sqltext
from dbops.inventory.model import Activity, Catalog, Program, Reference, Statement, TableRef

SCHEMA = "shop"
NOW = datetime(2026, 7, 1)


def ref(name: str) -> TableRef:
    return TableRef(SCHEMA, name)


def table(
    name: str,
    columns: str,
    *,
    unique: tuple[str, ...] = (),
    indexes: tuple[str, ...] = (),
    fulltext: tuple[str, ...] = (),
    rows: int = 1000,
    row_bytes: int = 100,
    **over: Any,
) -> mysql.Table:
    """``columns`` as "id int auto, name varchar null"; an index as "name: column, column" (the first unique one is the key)."""
    parsed = tuple(
        mysql.Column(words[0], words[1], words[1], "null" in words, is_auto_increment="auto" in words)
        for words in (column.split() for column in columns.split(","))
    )
    nullable = {c.name for c in parsed if c.nullable}

    def index(text: str, is_unique: bool, kind: str = "BTREE") -> mysql.Index:
        label, _, names = text.partition(":")
        parts = tuple(n.strip() for n in names.split(","))
        return mysql.Index(label, parts, is_unique, bool(nullable & set(parts)), False, kind)

    listed = (
        *(index(u, True) for u in unique), *(index(i, False) for i in indexes), *(index(f, False, "FULLTEXT") for f in fulltext)
    )  # fmt: skip
    return mysql.Table(**{
        "schema": SCHEMA, "name": name, "engine": "InnoDB", "row_estimate": rows, "data_bytes": rows * row_bytes, "index_bytes": 0,
        "free_bytes": 0, "average_row_bytes": row_bytes, "columns": parsed, "indexes": listed, **over,
    })  # fmt: skip


TABLES = (
    table("customers", "id int auto,email varchar,name varchar,created_at datetime", unique=("PRIMARY: id", "email: email")),
    table(
        "orders", "id int auto,customer_id int,status varchar,total decimal,placed_at datetime,coupon varchar null,note text null",
        unique=("PRIMARY: id",), indexes=("customer: customer_id, placed_at", "coupon: coupon"), fulltext=("note: note",),
    ),
    table("order_items", "order_id int,line int,sku varchar,qty int", unique=("PRIMARY: order_id, line",), indexes=("sku: sku",)),
    table("audit", "id bigint auto,order_id int,what varchar,at datetime", unique=("PRIMARY: id",), indexes=("at: at",)),
    table("carts", "token varchar,body blob,hits int,expires_at datetime", unique=("PRIMARY: token",), indexes=("expires: expires_at",)),
    table("metrics", "sensor int,at datetime,value double", unique=("PRIMARY: sensor, at",), rows=9_000_000),
    table("follows", "follower int,followee int", unique=("PRIMARY: follower, followee",), indexes=("back: followee, follower",)),
    table("products", "sku varchar,name varchar,price decimal", unique=("PRIMARY: sku",)),
    table("heap", "a int,b int"),
    table("archive_2019", "id int auto,placed_at datetime", unique=("PRIMARY: id",), indexes=("placed: placed_at",), rows=5_000_000),
)  # fmt: skip
PROGRAMS = (
    Program(
        "trigger", SCHEMA, "orders_audit", "INSERT INTO audit (order_id, what, at) VALUES (NEW.id, 'changed', NOW())",
        ref("orders"), "UPDATE",
    ),
    Program(
        "procedure", SCHEMA, "close_order",
        "BEGIN UPDATE orders SET status = 'closed' WHERE id = p_id; DELETE FROM carts WHERE token = p_token; END",
    ),
    Program("procedure", SCHEMA, "build", "BEGIN SET @s = CONCAT('DELETE FROM ', p_table); PREPARE x FROM @s; EXECUTE x; END"),
    Program("event", SCHEMA, "expire_carts", "DELETE FROM carts WHERE expires_at < NOW()"),
)  # fmt: skip
REFERENCES = (
    Reference("orders_customer", ref("orders"), ref("customers"), "CASCADE", "RESTRICT", ("customer_id",), ("id",)),
    Reference("items_order", ref("order_items"), ref("orders"), "CASCADE", "RESTRICT", ("order_id",), ("id",)),
)
CATALOG = Catalog(
    tables={ref(t.name): t for t in TABLES},
    views={
        ref("open_orders"): "select `shop`.`orders`.`id` AS `id`,`shop`.`orders`.`total` AS `total`,`shop`.`orders`.`status` AS `status`"
        " from `shop`.`orders` where (`shop`.`orders`.`status` = 'open')"
    },
    programs=PROGRAMS,
    references=REFERENCES,
    folds_case=False,
)  # fmt: skip


def statement(
    text: str,
    executions: int = 1,
    *,
    catalog: Catalog = CATALOG,
    is_digest: bool = False,
    truncated: bool = False,
    **activity: Any,
) -> Statement:
    """A statement of the window, run `executions` times, last seen now unless `activity` says otherwise."""
    analysis = parse.analyse(text, is_digest=is_digest, truncated=truncated)
    uses, columns, unresolved = resolve.resolve(analysis, SCHEMA, catalog)
    return Statement(
        fingerprint.fingerprint(text, is_digest=is_digest, truncated=truncated), SCHEMA, sqltext.mask_literals(text), is_digest, analysis,
        uses, columns, unresolved, Activity(**{"executions": executions, "last_seen": NOW if executions else None, **activity}),
    )  # fmt: skip


@dataclass(frozen=True)
class Io:
    """A row of History.table_io."""

    table: TableRef
    index: str | None = None
    fetched: int = 0
    inserted: int = 0
    updated: int = 0
    deleted: int = 0
    moved: Mapping[str, tuple[datetime, datetime]] = field(default_factory=dict)


def io(name: str, index: str | None = None, ago: timedelta = timedelta(0), **rows: int) -> Io:
    """Rows of one table or index that moved, the last time `ago`."""
    return Io(
        ref(name), index, **rows, moved={counter: (NOW - ago - timedelta(minutes=15), NOW - ago) for counter in rows}
    )
