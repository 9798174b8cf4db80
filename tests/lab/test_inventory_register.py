"""The dual-write register against row counters of real servers: what was run explains what changed, and what is hidden leaves a hole."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dbops.inventory import catalog, fingerprint, parse, register, resolve
from dbops.inventory.model import Activity, Catalog, Statement, TableIo, TableRef
from lab import mysql

pytestmark = pytest.mark.lab
SCHEMA = "inventory_register"
DDL = (
    "CREATE TABLE customers (id INT PRIMARY KEY AUTO_INCREMENT, name VARCHAR(20))",
    "CREATE TABLE orders (id INT PRIMARY KEY AUTO_INCREMENT, customer_id INT, status VARCHAR(10) DEFAULT 'new',"
    " CONSTRAINT to_customer FOREIGN KEY (customer_id) REFERENCES customers (id) ON DELETE CASCADE)",
    "CREATE TABLE items (order_id INT, line INT, qty INT DEFAULT 1, PRIMARY KEY (order_id, line),"
    " CONSTRAINT to_order FOREIGN KEY (order_id) REFERENCES orders (id) ON DELETE CASCADE)",
    "CREATE TABLE audit (id INT PRIMARY KEY AUTO_INCREMENT, order_id INT)",
    "CREATE TABLE carts (token CHAR(4) PRIMARY KEY, hits INT DEFAULT 0)",
    "CREATE TABLE copies (id INT PRIMARY KEY, name VARCHAR(20))",
    "CREATE TABLE loaded (id INT PRIMARY KEY)",
    "CREATE TABLE emptied (id INT PRIMARY KEY)",
    "CREATE VIEW open_orders AS SELECT id, status FROM orders WHERE status <> 'closed'",
    "CREATE TRIGGER orders_audit AFTER UPDATE ON orders FOR EACH ROW INSERT INTO audit (order_id) VALUES (NEW.id)",
    "CREATE PROCEDURE tidy(p CHAR(4)) BEGIN DELETE FROM carts WHERE token = p; UPDATE copies SET name = 'x' WHERE id = 1; END",
    "INSERT INTO emptied VALUES (1)",
)
WORKLOAD = (
    "INSERT INTO customers (name) VALUES ('a'), ('b'), ('c')",
    "INSERT INTO orders (customer_id) SELECT id FROM customers",
    "INSERT INTO items (order_id, line) VALUES (1, 1), (1, 2), (2, 1), (3, 1)",
    "REPLACE INTO carts (token) VALUES ('aaaa')",
    "REPLACE INTO carts (token, hits) VALUES ('aaaa', 5)",
    "INSERT INTO carts (token) VALUES ('aaaa') ON DUPLICATE KEY UPDATE hits = hits + 1",
    "INSERT INTO copies SELECT id, name FROM customers",
    "LOAD DATA LOCAL INFILE '{file}' INTO TABLE loaded",
    "UPDATE orders o JOIN items i ON i.order_id = o.id SET o.status = 'paid', i.qty = 2 WHERE o.id = 2",
    "UPDATE open_orders SET status = 'sent' WHERE id = 3",
    "CALL tidy('aaaa')",
    "DELETE o, i FROM orders o JOIN items i ON i.order_id = o.id WHERE o.id = 3",
    "DELETE FROM customers WHERE id = 1",
    "TRUNCATE TABLE emptied",
)
COUNTERS = ("fetched", "inserted", "updated", "deleted")


@pytest.fixture(params=["mysql57", "mysql80"])
def conn(request: pytest.FixtureRequest) -> Iterator[Any]:
    made = mysql.root_connection(request.param)
    # The schema's own name, so that counters of an earlier run of this test are not there.
    for statement in (f"DROP DATABASE IF EXISTS {SCHEMA}", f"CREATE DATABASE {SCHEMA}", f"USE {SCHEMA}", *DDL):
        made.query(statement)
    yield made
    made.query(f"DROP DATABASE {SCHEMA}")
    made.close()


def counters(conn: Any) -> dict[str, tuple[int, ...]]:
    with conn.cursor() as cursor:
        cursor.execute(
            "SELECT object_name, count_fetch, count_insert, count_update, count_delete"
            " FROM performance_schema.table_io_waits_summary_by_table WHERE object_schema = %s",
            (SCHEMA,),
        )
        return {name: tuple(map(int, counts)) for name, *counts in cursor.fetchall()}


def seen(text: str, definitions: Catalog) -> Statement:
    analysis = parse.analyse(text)
    uses, columns, unresolved = resolve.resolve(analysis, SCHEMA, definitions)
    assert unresolved == (), text
    return Statement(
        fingerprint.fingerprint(text), SCHEMA, text, False, analysis, uses, columns, unresolved, Activity(executions=1)
    )


def run(conn: Any, folder: Path) -> tuple[Catalog, list[Statement], list[TableIo]]:
    """The workload, run; its statements, and the rows that the server counted."""
    definitions, gaps = catalog.read(conn, [SCHEMA])
    assert gaps == []
    (folder / "rows").write_text("1\n2\n")
    texts = [text.format(file=folder / "rows") for text in WORKLOAD]
    before = counters(conn)
    for text in texts:
        with conn.cursor() as cursor:
            cursor.execute(text)
    after = counters(conn)
    zero = (0, 0, 0, 0)
    moved = {name: [a - b for a, b in zip(now, before.get(name, zero), strict=True)] for name, now in after.items()}
    rows = [TableIo(TableRef(SCHEMA, n), None, **dict(zip(COUNTERS, m, strict=True))) for n, m in moved.items()]
    return definitions, [seen(text, definitions) for text in texts], rows


def test_what_was_run_explains_every_row_that_changed(conn: Any, tmp_path: Path) -> None:
    definitions, statements, rows = run(conn, tmp_path)
    found = register.writers(statements, definitions, rows)
    assert found.holes == ()
    assert found.blind == ()
    written = {w.table.table for w in found.writers}
    assert written == {"customers", "orders", "items", "audit", "carts", "copies", "loaded", "emptied"}
    changed = {io.table.table for io in rows if io.inserted + io.updated + io.deleted}
    assert changed == written - {"emptied"}  # TRUNCATE moves no row counter
    ways = {(w.table.table, w.operation, w.via) for w in found.writers if not w.programs}
    via_order, via_customer = "foreign key to_order", "foreign key to_customer"
    assert {way for way in ways if way[2]} >= {
        ("orders", "cascade delete", via_customer), ("items", "cascade delete", via_order),
        ("orders", "update", f"view {SCHEMA}.open_orders"), ("audit", "program", f"trigger {SCHEMA}.orders_audit"),
        ("carts", "program", f"procedure {SCHEMA}.tidy"), ("copies", "program", f"procedure {SCHEMA}.tidy"),
    }  # fmt: skip


def test_a_hidden_writer_leaves_a_hole(conn: Any, tmp_path: Path) -> None:
    definitions, statements, rows = run(conn, tmp_path)

    def holes(*hidden: str, of: Catalog = definitions) -> set[tuple[str, str, int]]:
        known = [s for s in statements if not s.text.startswith(hidden)]
        return {(h.table.table, h.counter, h.writers) for h in register.writers(known, of, rows).holes}

    assert holes("LOAD DATA") == {("loaded", "inserted", 0)}
    assert holes("INSERT INTO customers", "DELETE FROM customers") == {
        ("customers", "inserted", 0),
        ("customers", "deleted", 0),
    }
    assert holes("UPDATE orders o") == {
        ("items", "updated", 3)
    }  # orders are also updated through the view and by the procedure's
    assert holes("INSERT INTO items", "DELETE o, i") == {("items", "inserted", 2), ("orders", "deleted", 4)}
    # The parent went first, so the foreign key removed the items, and what InnoDB does for a foreign key moves no row counter.
