"""Access patterns beside the plans that real servers make over real rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from dbops import mysql as facts
from dbops.inventory import access, parse, resolve
from dbops.inventory.catalog import read as definitions_of
from dbops.inventory.model import Activity, Catalog, ColumnUse, Statement, TableRef, Use
from dbops.inventory.trials import Explainer
from lab import mysql

pytestmark = pytest.mark.lab
SCHEMA = "inventory_access"
TABLES = (
    """CREATE TABLE orders (
        id INT PRIMARY KEY AUTO_INCREMENT, customer_id INT NOT NULL, status VARCHAR(10) NOT NULL, placed_at DATETIME NOT NULL,
        total DECIMAL(10,2) NOT NULL, code CHAR(12) NOT NULL, coupon VARCHAR(10), note TEXT, UNIQUE KEY code (code),
        KEY customer (customer_id, placed_at), KEY placed (placed_at), KEY coupon (coupon), FULLTEXT KEY note (note))""",
    """CREATE TABLE items (
        order_id INT NOT NULL, line INT NOT NULL, sku VARCHAR(10) NOT NULL, qty INT NOT NULL,
        PRIMARY KEY (order_id, line), KEY sku (sku, qty))""",
    """CREATE TABLE texts (
        id INT NOT NULL, code VARCHAR(12) CHARACTER SET utf8mb4 NOT NULL, latin VARCHAR(12) CHARACTER SET latin1 NOT NULL,
        number INT NOT NULL, PRIMARY KEY (id), UNIQUE KEY code (code), UNIQUE KEY latin (latin))""",
)
DIGITS = f"({' UNION '.join(f'SELECT {n} AS d' for n in range(10))})"
NUMBERS = f"""(SELECT a.d + 10 * b.d + 100 * c.d + 1000 * e.d + 10000 * f.d AS n
    FROM {DIGITS} a, {DIGITS} b, {DIGITS} c, {DIGITS} e, {DIGITS} f WHERE f.d < 5)"""
ROWS = (
    f"""INSERT INTO orders (id, customer_id, status, placed_at, total, code, coupon, note)
        SELECT n + 1, n % 5000, ELT(1 + n % 4, 'new', 'paid', 'sent', 'void'), '2026-01-01' + INTERVAL n MINUTE, n % 97, LPAD(n, 12, '0'),
               IF(n % 50 = 0, CONCAT('c', n % 200), NULL), CONCAT('note ', MD5(n))
        FROM {NUMBERS} AS numbers""",
    f"""INSERT INTO items
        SELECT n + 1, line, CONCAT('s', (n * line) % 900), 1 + n % 5
        FROM {NUMBERS} AS numbers, (SELECT 1 AS line UNION SELECT 2 UNION SELECT 3) AS l WHERE n < 20000""",
    f"INSERT INTO texts SELECT n, CONCAT('t', n), CONCAT('t', n), n FROM {NUMBERS} AS numbers WHERE n < 5000",
    "ANALYZE TABLE orders, items, texts",
)
SELECTS = (
    "SELECT * FROM orders WHERE id = 7",
    "SELECT total FROM orders WHERE id = 7 AND status = 'paid'",
    "SELECT * FROM orders WHERE code = '000000000007'",
    "SELECT * FROM orders WHERE 7 = id",
    "SELECT * FROM items WHERE order_id = 7 AND line = 2",
    "SELECT * FROM items WHERE line = 2 AND order_id = 7",
    "SELECT * FROM orders WHERE id = 7 LIMIT 1",
    "SELECT * FROM orders WHERE id = 7 FOR UPDATE",
    "SELECT COUNT(*) FROM orders WHERE id = 7",
    "SELECT * FROM orders WHERE id = 7 AND (status = 'paid' OR total > 5)",
    "SELECT * FROM orders WHERE id IN (7, 8, 9)",
    "SELECT * FROM orders WHERE code IN ('000000000007', '000000000008')",
    "SELECT * FROM orders WHERE id = 7 OR id = 8",
    "SELECT * FROM items WHERE order_id = 7 AND line IN (1, 2)",
    "SELECT * FROM orders WHERE customer_id = 42",
    "SELECT * FROM orders WHERE customer_id = 42 AND status = 'paid'",
    "SELECT * FROM orders WHERE customer_id = 42 ORDER BY placed_at DESC LIMIT 10",
    "SELECT * FROM orders WHERE customer_id = 42 AND placed_at = '2026-01-01 00:42:00'",
    "SELECT COUNT(*) FROM orders WHERE customer_id = 42",
    "SELECT status, SUM(total) FROM orders WHERE customer_id = 42 GROUP BY status",
    "SELECT * FROM items WHERE order_id = 7",
    "SELECT * FROM items WHERE sku = 's7'",
    "SELECT * FROM items WHERE sku = 's7' AND qty = 2",
    "SELECT qty FROM items WHERE sku = 's7' ORDER BY qty",
    "SELECT * FROM orders WHERE coupon = 'c50'",
    "SELECT * FROM orders WHERE coupon <=> 'c50'",
    "SELECT * FROM orders WHERE customer_id IN (42, 43)",
    "SELECT * FROM items WHERE sku IN ('s7', 's8')",
    "SELECT * FROM orders WHERE customer_id = 42 AND placed_at > '2026-01-20'",
    "SELECT * FROM orders WHERE customer_id = 42 AND placed_at BETWEEN '2026-01-05' AND '2026-01-20'",
    "SELECT * FROM orders WHERE placed_at BETWEEN '2026-01-05' AND '2026-01-06'",
    "SELECT COUNT(*) FROM orders WHERE placed_at < '2026-01-02'",
    "SELECT * FROM orders WHERE placed_at >= '2026-01-05' AND placed_at < '2026-01-06'",
    "SELECT * FROM orders WHERE id > 49990",
    "SELECT * FROM orders WHERE id > 100 ORDER BY id LIMIT 50",
    "SELECT * FROM orders WHERE id BETWEEN 10 AND 20",
    "SELECT * FROM orders WHERE code LIKE '00000000001%'",
    "SELECT * FROM items WHERE order_id = 7 AND line > 1",
    "SELECT * FROM items WHERE sku LIKE 's77%'",
    "SELECT * FROM items WHERE sku = 's7' AND qty > 3",
    "SELECT * FROM orders WHERE id < 20 AND status = 'paid'",
    "SELECT customer_id, COUNT(*) FROM orders WHERE placed_at < '2026-01-02' GROUP BY customer_id",
    "SELECT * FROM orders",
    "SELECT COUNT(*) FROM orders",
    "SELECT * FROM orders WHERE status = 'paid'",
    "SELECT * FROM orders WHERE total > 90",
    "SELECT * FROM orders WHERE status = 'paid' OR total > 90",
    "SELECT * FROM orders WHERE id = 7 OR status = 'paid'",
    "SELECT * FROM orders WHERE code LIKE '%7'",
    "SELECT * FROM orders WHERE note LIKE '%abc%'",
    "SELECT * FROM orders WHERE YEAR(placed_at) = 2026",
    "SELECT * FROM orders WHERE id + 0 = 7",
    "SELECT * FROM orders WHERE NOT (id = 7)",
    "SELECT * FROM orders WHERE status <> 'paid'",
    "SELECT * FROM items WHERE line = 2",
    "SELECT * FROM items WHERE qty = 2",
    "SELECT status, COUNT(*) FROM orders GROUP BY status",
    "SELECT * FROM orders ORDER BY total LIMIT 10",
    "SELECT * FROM orders ORDER BY id LIMIT 10",
    "SELECT * FROM orders ORDER BY placed_at DESC LIMIT 10",
    "SELECT customer_id, MAX(placed_at) FROM orders GROUP BY customer_id",
    "SELECT DISTINCT customer_id FROM orders",
    "SELECT DISTINCT status FROM orders",
    "SELECT MAX(total) FROM orders",
    "SELECT AVG(total) FROM orders WHERE status IN ('paid', 'sent')",
    "SELECT * FROM orders WHERE MATCH (note) AGAINST ('abc')",
    # where MySQL does otherwise, and why
    "SELECT * FROM orders WHERE placed_at > '2025-01-01'",
    "SELECT * FROM orders WHERE code = 7",
    "SELECT * FROM orders WHERE coupon IS NULL",
    "SELECT * FROM orders WHERE id = 999999999",
    "SELECT MAX(id) FROM orders",
    "SELECT * FROM orders WHERE (id, status) IN ((7, 'paid'), (8, 'sent'))",
    "SELECT * FROM orders WHERE id = 7 OR code = '000000000009'",
    "SELECT * FROM orders WHERE customer_id = 42 AND placed_at > '2026-01-20' OR id = 3",
    "SELECT * FROM orders WHERE coupon IS NOT NULL",
)  # fmt: skip


# Texts that name a key and read the whole table all the same, and joins; the table of the first FROM or JOIN is judged.
WHOLE = (
    "SELECT * FROM orders WHERE id = customer_id",
    "SELECT * FROM orders WHERE id IN (customer_id, 7)",
    "SELECT * FROM orders WHERE id = 7 OR RAND() > 2",
    "SELECT * FROM orders WHERE id = 7 XOR status = 'paid'",
    "SELECT * FROM orders WHERE CASE WHEN id = 7 THEN total ELSE 0 END",
    "SELECT * FROM orders WHERE (id = 7) = total",
    "SELECT * FROM orders WHERE (id = 7) IS FALSE",
    "SELECT * FROM orders WHERE id IS TRUE",
    "SELECT * FROM orders WHERE (id, customer_id) > (7, 8)",
    "SELECT * FROM orders WHERE code = '000000000007' COLLATE utf8mb4_unicode_ci",
    "SELECT * FROM orders WHERE customer_id LIKE '42%'",
    "SELECT id, COUNT(*) FROM orders GROUP BY id HAVING id = 7",
    "SELECT * FROM orders o WHERE o.id = (SELECT MAX(i.line) FROM items i WHERE i.order_id = o.total)",
    "SELECT id FROM orders WHERE id = 7 UNION ALL SELECT total FROM orders",
    "SELECT * FROM orders o LEFT JOIN items i ON i.order_id = o.id AND o.id = 7",
    "SELECT * FROM orders o LEFT JOIN items i ON i.order_id = o.id WHERE i.order_id IS NULL",
    "SELECT * FROM orders o JOIN texts t ON t.latin = o.code AND t.number = 5",
    "SELECT t.* FROM texts t JOIN orders o ON o.customer_id = t.code",
)
LOOKED_UP = (
    "SELECT * FROM orders WHERE code = '000000000007' COLLATE utf8mb4_bin",
    "SELECT * FROM orders WHERE code = BINARY '000000000007'",
    "SELECT i.* FROM items i JOIN orders o ON o.id = i.order_id WHERE o.code = '000000000007'",
    "SELECT o.* FROM orders o LEFT JOIN items i ON i.order_id = o.id WHERE o.id = 7",
    "SELECT o.* FROM orders o JOIN items i ON i.order_id = o.id WHERE i.order_id = 7 AND i.line = 2",
    "SELECT i.* FROM items i JOIN texts t ON t.number = i.order_id WHERE t.code = 't7'",
    "SELECT * FROM orders WHERE (customer_id = 42 AND placed_at > '2026-01-20') OR customer_id = 43",
    "SELECT * FROM items WHERE (order_id = 7 AND line = 1) OR (order_id = 8 AND line = 2)",
    "SELECT * FROM items WHERE (order_id, line) = (7, 1)",
)


@pytest.fixture(scope="module", params=["mysql57", "mysql80"])
def server(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def explain(server: str, conn: Any) -> Iterator[Explainer]:
    with Explainer(lambda: mysql.root_connection(server)) as explainer:
        yield explainer


@pytest.fixture(scope="module")
def conn(server: str) -> Iterator[Any]:
    made = mysql.root_connection(server)
    with made.cursor() as cursor:
        for statement in (
            f"DROP DATABASE IF EXISTS {SCHEMA}",
            f"CREATE DATABASE {SCHEMA}",
            f"USE {SCHEMA}",
            *TABLES,
            *ROWS,
        ):
            cursor.execute(statement)
            cursor.fetchall()
    yield made
    made.query(f"DROP DATABASE {SCHEMA}")
    made.close()


def catalog_of(conn: Any) -> Catalog:
    tables = {TableRef(SCHEMA, t): facts.read_table(conn, SCHEMA, t) for t in ("orders", "items", "texts")}
    return Catalog({ref: t for ref, t in tables.items() if t}, {}, (), (), False)


def statement(text: str, activity: Activity | None = None) -> Statement:
    """A single-table statement as the inventory would hold it."""
    analysis = parse.analyse(text)
    ((name, how),) = analysis.uses
    table = TableRef(SCHEMA, name.table)
    columns = frozenset(ColumnUse(table, column, role) for _, column, role in analysis.columns)
    return Statement(
        "f" * 64, SCHEMA, text, False, analysis, frozenset({Use(table, how)}), columns, (), activity or Activity()
    )


def judge(explain: Explainer, catalog: Catalog, text: str) -> access.Witnesses:
    found = statement(text)
    (table,) = found.tables()
    plan = explain(text, SCHEMA)
    assert plan is not None, text
    return access.witnesses(access.pattern(found, table, catalog), plan, found.activity)


def test_patterns_agree_with_the_plans_of_a_server_and_every_difference_is_explained(
    conn: Any, explain: Explainer
) -> None:
    catalog = catalog_of(conn)
    judged = {text: judge(explain, catalog, text) for text in SELECTS}
    agreed = [text for text, w in judged.items() if w.agree]
    different = {text: w.differences for text, w in judged.items() if not w.agree}
    assert len(SELECTS) >= 60
    assert len(agreed) / len(SELECTS) >= 0.85, different
    assert [d for d in different.values() if "unexplained" in str(d)] == [], different
    classes = Counter(w.pattern.access_class for w in judged.values())
    assert set(classes) == {"point", "multi-point", "prefix", "range", "scan", "fulltext"}, classes


def test_no_scan_is_taken_for_a_lookup(conn: Any, explain: Explainer) -> None:
    catalog = catalog_of(conn)

    def found(text: str) -> list[access.Witnesses]:
        analysis = parse.analyse(text)
        uses, columns, _ = resolve.resolve(analysis, SCHEMA, catalog)
        whole = Statement("f" * 64, SCHEMA, text, False, analysis, uses, columns)
        plan = explain(text, SCHEMA)
        assert plan is not None, text
        return [access.witnesses(access.pattern(whole, t, catalog), plan, Activity()) for t in sorted(whole.tables())]

    judged = {text: found(text) for text in (*WHOLE, *LOOKED_UP)}
    assert [(text, w.differences) for text, ws in judged.items() for w in ws if not w.agree] == []
    for text, tables in judged.items():
        scans = [w.plan.access_type for w in tables if w.plan and w.pattern.access_class == "scan"]
        assert len(scans) == (text in WHOLE), (text, tables)
        assert set(scans) <= {"ALL", "index"}, (text, tables)


def test_an_index_that_the_optimizer_may_not_use_serves_nothing(server: str, conn: Any, explain: Explainer) -> None:
    if server == "mysql57":
        return  # it has none; that the definitions can be read there is shown by every other test
    with conn.cursor() as cursor:
        cursor.execute(
            "CREATE TABLE hidden (id INT PRIMARY KEY, a INT NOT NULL, b INT NOT NULL, KEY a (a) INVISIBLE, KEY b (b))"
        )
    try:
        definitions, _ = definitions_of(conn, [SCHEMA])
        for text, access_class in (
            ("SELECT * FROM hidden WHERE a = 1", "scan"),
            ("SELECT * FROM hidden WHERE b = 1", "prefix"),
        ):
            witnesses = judge(explain, definitions, text)
            assert (witnesses.pattern.access_class, witnesses.differences) == (access_class, ())
    finally:
        conn.query("DROP TABLE hidden")


def test_writes_have_a_pattern_and_are_never_explained(conn: Any, explain: Explainer) -> None:
    catalog = catalog_of(conn)
    writes = (
        "UPDATE orders SET total = 0 WHERE id = 7", "DELETE FROM orders WHERE customer_id = 42",
        "DELETE FROM items WHERE order_id IN (1, 2)",
        "UPDATE items SET qty = 9 WHERE sku LIKE 's77%'", "UPDATE orders SET total = 1 WHERE status = 'paid'",
    )  # fmt: skip
    before = checksum(conn)
    found = [statement(text) for text in writes]
    classes = [access.pattern(s, *s.tables(), catalog).access_class for s in found]
    assert classes == ["point", "prefix", "prefix", "range", "scan"]
    for text in (*writes, "INSERT INTO items VALUES (90000, 1, 'x', 1)", "REPLACE INTO items VALUES (7, 1, 'x', 1)"):
        assert explain(text, SCHEMA) is None, text
    assert checksum(conn) == before


def checksum(conn: Any) -> tuple[Any, ...]:
    with conn.cursor() as cursor:
        cursor.execute(f"CHECKSUM TABLE {SCHEMA}.orders, {SCHEMA}.items")
        return tuple(cursor.fetchall())


def test_what_cannot_be_explained_has_no_plan(explain: Explainer) -> None:
    for text in ("SELECT * FROM orders WHERE id = ?", "SELECT * FROM gone", "COMMIT", "SELECT * FROM `orders` WHERE `id` IN (...)",
                 "SELECT * FROM orders WHERE note = 'cut here..."):  # fmt: skip
        assert explain(text, SCHEMA) is None, text
    assert explain("SELECT 1 FROM orders", "no_such_schema") is None
