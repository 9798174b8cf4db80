"""Access patterns from conditions and indexes, plans, counters, and how their differences are named."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dbops import mysql
from dbops.inventory import access
from dbops.inventory.model import Activity
from tests.inventory.shop import CATALOG, ref, statement


@pytest.mark.parametrize(
    ("text", "table", "access_class", "index", "key", "flags"),
    [
        ("SELECT * FROM orders WHERE id = ?", "orders", "point", "PRIMARY", ("id",), ()),
        ("SELECT * FROM customers WHERE email = ?", "customers", "point", "email", ("email",), ()),
        ("SELECT * FROM order_items WHERE line = ? AND order_id = ?", "order_items", "point", "PRIMARY", ("order_id", "line"), ()),
        ("SELECT * FROM orders WHERE id = ? AND (status = ? OR total > ?)", "orders", "point", "PRIMARY", ("id",), ("or-condition",)),
        ("SELECT * FROM orders WHERE id IN (?, ?)", "orders", "multi-point", "PRIMARY", ("id",), ("multi",)),
        ("SELECT * FROM orders WHERE id = ? OR id = ?", "orders", "multi-point", "PRIMARY", ("id",), ("multi", "or-condition")),
        ("SELECT * FROM order_items WHERE order_id = ?", "order_items", "prefix", "PRIMARY", ("order_id",), ()),
        ("SELECT * FROM orders WHERE customer_id = ? AND placed_at = ?", "orders", "prefix", "customer", ("customer_id", "placed_at"), ()),
        ("SELECT * FROM orders WHERE customer_id IN (?, ?)", "orders", "prefix", "customer", ("customer_id",), ("multi",)),
        ("SELECT * FROM orders WHERE coupon IS NULL", "orders", "prefix", "coupon", ("coupon",), ()),
        ("SELECT * FROM orders WHERE customer_id = ? AND placed_at > ?", "orders", "range", "customer", ("customer_id", "placed_at"), ()),
        ("SELECT * FROM orders WHERE id BETWEEN ? AND ?", "orders", "range", "PRIMARY", ("id",), ()),
        ("SELECT * FROM order_items WHERE sku LIKE 'a%'", "order_items", "range", "sku", ("sku",), ()),
        ("SELECT * FROM orders WHERE id = ? OR coupon = ?", "orders", "range", None, ("coupon", "id"),
         ("multi", "index-merge", "or-condition")),
        ("SELECT * FROM orders WHERE id = ? OR status = ?", "orders", "scan", None, (), ("or-condition",)),
        ("SELECT * FROM orders WHERE placed_at > ?", "orders", "scan", None, (), ()),
        ("SELECT * FROM orders WHERE id + 0 = ?", "orders", "scan", None, (), ()),
        ("SELECT * FROM orders WHERE NOT (id = ?)", "orders", "scan", None, (), ()),
        ("SELECT * FROM order_items WHERE sku LIKE '%a'", "order_items", "scan", None, (), ()),
        ("SELECT * FROM orders WHERE MATCH (note) AGAINST (?)", "orders", "fulltext", "note", ("note",), ()),
        ("SELECT status, COUNT(*) FROM orders GROUP BY status", "orders", "scan", None, (), ("aggregate",)),
        ("SELECT * FROM orders WHERE customer_id = ? ORDER BY id LIMIT ?", "orders", "prefix", "customer", ("customer_id",),
         ("sort", "limit")),
        ("SELECT o.id FROM orders o JOIN order_items i ON i.order_id = o.id WHERE o.customer_id = ?", "order_items", "prefix", "PRIMARY",
         ("order_id",), ("join",)),
        ("UPDATE orders SET status = ? WHERE id = ?", "orders", "point", "PRIMARY", ("id",), ()),
        ("DELETE FROM carts WHERE expires_at < ?", "carts", "range", "expires", ("expires_at",), ()),
        ("INSERT INTO orders (customer_id) VALUES (?)", "orders", "insert", None, (), ()),
        ("INSERT INTO audit (order_id) SELECT id FROM orders WHERE id = ?", "orders", "point", "PRIMARY", ("id",), ()),
        ("SELECT * FROM open_orders WHERE id = ?", "orders", "indirect", None, (), ()),
        ("SELECT * FROM heap WHERE a = ?", "heap", "scan", None, (), ()),
        ("TRUNCATE TABLE heap", "heap", "scan", None, (), ()),
    ],
)  # fmt: skip
def test_pattern(
    text: str, table: str, access_class: str, index: str | None, key: tuple[str, ...], flags: tuple[str, ...]
) -> None:
    found = access.pattern(statement(text), ref(table), CATALOG)
    assert (found.access_class, found.index, found.key, found.flags) == (access_class, index, key, frozenset(flags))


@pytest.mark.parametrize(
    "text",
    [
        # a column of the same row is no value to look up
        "SELECT * FROM orders WHERE id = customer_id",
        "SELECT * FROM orders o WHERE o.id > o.customer_id",
        "SELECT * FROM orders WHERE id IN (customer_id, ?)",
        # conditions that need not hold
        "SELECT * FROM orders WHERE ? IS NULL OR id = ?",
        "SELECT * FROM orders WHERE id = ? OR ?",
        "SELECT * FROM orders WHERE id = ? OR EXISTS (SELECT 1 FROM carts WHERE token = ?)",
        "SELECT * FROM orders WHERE id = ? XOR status = ?",
        "SELECT * FROM orders WHERE CASE WHEN id = ? THEN ? ELSE ? END",
        "SELECT * FROM orders WHERE IF(id = ?, ?, ?)",
        "SELECT * FROM orders WHERE (id = ?) = ?",
        "SELECT * FROM orders WHERE (id = ?) IS FALSE",
        "SELECT * FROM orders WHERE id IS TRUE",
        "SELECT * FROM orders WHERE (id = ? OR (coupon = ? AND (status = ? OR id = ?))) OR total > ?",
        "SELECT customer_id, COUNT(*) FROM orders GROUP BY customer_id HAVING customer_id = ?",
        "SELECT * FROM orders WHERE MATCH (note) AGAINST (?) OR status = ?",
        "SELECT MATCH (note) AGAINST (?) FROM orders",
        "SELECT * FROM orders WHERE MATCH (note, coupon) AGAINST (?)",
        # values that the index is not ordered by
        "SELECT * FROM orders WHERE (customer_id, placed_at) > (?, ?)",
        "SELECT * FROM orders WHERE coupon = ? COLLATE utf8mb4_unicode_ci",
        "SELECT * FROM orders WHERE customer_id LIKE '1%'",
        # one of the places of the table is read as a whole
        "SELECT id FROM orders WHERE id = ? UNION ALL SELECT id FROM orders",
        "SELECT * FROM orders WHERE total = (SELECT MAX(total) FROM orders WHERE id = ?)",
        "SELECT * FROM orders o WHERE o.id = (SELECT MAX(i.order_id) FROM order_items i WHERE i.qty = o.total)",
        "INSERT INTO orders (customer_id) SELECT customer_id FROM orders WHERE status = ?",
        # a join begins somewhere
        "SELECT * FROM orders o JOIN customers c ON c.id = o.customer_id",
        "SELECT * FROM orders o, customers c WHERE c.id = o.customer_id",
        "SELECT * FROM orders o JOIN customers c ON c.id <> o.id AND c.email LIKE o.status",
        "SELECT * FROM orders o LEFT JOIN customers c ON c.id = o.customer_id AND o.id = ? WHERE c.id IS NULL",
        "SELECT * FROM customers c RIGHT JOIN orders o ON c.id = o.customer_id AND o.id = ?",
        "SELECT * FROM orders o JOIN order_items i ON i.order_id = o.id OR i.qty = o.total WHERE i.order_id = ?",
        "DELETE o FROM orders o LEFT JOIN order_items i ON i.order_id = o.id WHERE i.order_id IS NULL",
    ],
)  # fmt: skip
def test_what_reads_the_whole_table_is_a_scan(text: str) -> None:
    assert access.pattern(statement(text), ref("orders"), CATALOG).access_class == "scan"


@pytest.mark.parametrize(
    ("text", "table", "access_class"),
    [
        ("SELECT * FROM orders o JOIN customers c ON c.id = o.customer_id", "customers", "point"),
        ("SELECT * FROM orders o LEFT JOIN customers c USING (id) WHERE o.customer_id = ?", "customers", "point"),
        ("SELECT * FROM orders o LEFT JOIN customers c USING (id) WHERE o.customer_id = ?", "orders", "prefix"),
        ("SELECT * FROM orders o LEFT JOIN order_items i ON i.order_id = o.id WHERE o.id = ?", "order_items", "prefix"),
        ("SELECT * FROM orders o LEFT JOIN customers c ON c.id = o.customer_id WHERE c.email = ?", "orders", "prefix"),
        ("SELECT * FROM (SELECT MAX(id) AS id FROM orders) m JOIN customers c ON c.id = m.id", "customers", "point"),
        ("SELECT * FROM customers c WHERE EXISTS (SELECT 1 FROM orders WHERE customer_id = c.id)", "orders", "prefix"),
        ("SELECT * FROM orders o WHERE (o.customer_id = ? AND o.placed_at = ?) OR o.id = ?", "orders", "range"),
        ("SELECT * FROM orders WHERE (customer_id = ? AND placed_at > ?) OR (customer_id = ?)", "orders", "range"),
        ("SELECT * FROM order_items WHERE (order_id = ? AND line = ?) OR (order_id = ? AND line = ?)", "order_items", "multi-point"),
        ("SELECT * FROM orders WHERE coupon = ? COLLATE utf8mb4_bin", "orders", "range"),
        ("SELECT * FROM orders WHERE coupon = BINARY ?", "orders", "range"),
        ("SELECT * FROM orders WHERE MATCH (note) AGAINST (?) > ? AND (status = ? OR total = ?)", "orders", "fulltext"),
        ("SELECT * FROM orders WHERE MATCH (note) AGAINST (?) AND id = ?", "orders", "point"),
        ("SELECT * FROM orders WHERE id <=> ?", "orders", "point"),
        ("SELECT * FROM orders WHERE id = p_id AND status = p_status", "orders", "point"),  # what no table has is a variable
        ("UPDATE order_items SET qty = ? WHERE (order_id, line) = (?, ?)", "order_items", "point"),
        ("UPDATE orders JOIN customers ON customers.id = customer_id SET status = ? WHERE email = ?", "orders", "prefix"),
    ],
)  # fmt: skip
def test_what_an_index_serves_once_the_other_rows_are_there(text: str, table: str, access_class: str) -> None:
    assert access.pattern(statement(text), ref(table), CATALOG).access_class == access_class


def test_an_index_on_text_is_of_no_use_for_another_collation_or_type() -> None:
    def text_column(name: str, collation: str | None) -> mysql.Column:
        kind = "varchar" if collation else "int"
        return mysql.Column(name, kind, kind, False, collation and collation.split("_")[0], collation)

    def joined(left: str | None, right: str | None) -> str:
        tables = {
            ref("lefts"): replace(CATALOG.tables[ref("heap")], name="lefts", columns=(text_column("l", left),)),
            ref("rights"): replace(
                CATALOG.tables[ref("heap")],
                name="rights",
                columns=(text_column("r", right),),
                indexes=(mysql.Index("PRIMARY", ("r",), True, False, False, "BTREE"),),
            ),
        }
        catalog = replace(CATALOG, tables=tables, programs=(), references=())
        found = statement("SELECT * FROM lefts JOIN rights ON l = r", catalog=catalog)
        return access.pattern(found, ref("rights"), catalog).access_class

    assert joined("utf8mb4_general_ci", "utf8mb4_general_ci") == "point"
    assert joined("utf8_general_ci", "utf8mb4_general_ci") == "point"  # the left is converted
    assert joined("utf8mb4_general_ci", "utf8_general_ci") == "scan"
    assert joined(None, "utf8mb4_general_ci") == "scan"
    assert joined("utf8mb4_general_ci", None) == "point"
    assert joined("utf8mb4_bin", "utf8mb4_general_ci") == "scan"
    assert joined("utf8mb4_general_ci", "utf8mb4_bin") == "point"


def test_a_hash_index_serves_its_whole_key_only_and_null_is_not_unique() -> None:
    heap = replace(CATALOG.tables[ref("heap")], indexes=(mysql.Index("h", ("a", "b"), True, True, False, "HASH"),))
    catalog = replace(CATALOG, tables={**CATALOG.tables, ref("heap"): heap})

    def served(condition: str) -> str:
        return access.pattern(statement(f"SELECT * FROM heap WHERE {condition}"), ref("heap"), catalog).access_class

    assert [served(c) for c in ("a = ? AND b = ?", "a = ?", "a > ?", "a = ? AND b > ?", "a = ? AND b <=> ?")] == [
        "point", "scan", "scan", "scan", "prefix",
    ]  # fmt: skip


def test_a_plan_is_found_by_the_alias_and_the_costlier_of_two_counts() -> None:
    plan = access.read_plan({"query_block": {"nested_loop": [
        {"table": {"table_name": "a", "access_type": "ALL", "rows_examined_per_scan": 9}},
        {"table": {"table_name": "b", "access_type": "eq_ref", "key": "PRIMARY"}},
        {"table": {"table_name": "orders", "access_type": "ref", "key": "x"}},
    ]}})  # fmt: skip
    text = "SELECT 1 FROM orders a JOIN orders b ON b.id = a.customer_id JOIN customers orders ON orders.id = b.customer_id"
    found = access.pattern(statement(text), ref("orders"), CATALOG)
    assert found.access_class == "scan"
    witnesses = access.witnesses(found, plan, Activity())
    assert witnesses.agree
    assert witnesses.plan is not None
    assert (witnesses.plan.name, witnesses.plan.access_type) == ("a", "ALL")


def test_counters_of_a_statement_say_nothing_of_one_of_its_tables() -> None:
    activity = Activity(executions=100, counters={"no_index_used": 100})
    text = "SELECT * FROM orders o JOIN customers c ON c.id = o.customer_id"
    for table, index_class in (("orders", "scan"), ("customers", "point")):
        found = access.witnesses(access.pattern(statement(text), ref(table), CATALOG), None, activity)
        assert (found.pattern.access_class, found.counters, found.differences) == (index_class, "scan", ())


def test_what_cannot_be_read_is_unknown_and_what_is_not_touched_is_an_error() -> None:
    cut = statement("SELECT * FROM `orders` WHERE `id` = ? AND `sta", truncated=True)
    assert access.pattern(cut, ref("orders"), CATALOG).access_class == "unknown"
    with pytest.raises(ValueError, match=r"shop.carts: statement \w+ does not touch it; give one of \['shop.orders'\]"):
        access.pattern(statement("SELECT 1 FROM orders"), ref("carts"), CATALOG)


PLAN = {
    "query_block": {
        "ordering_operation": {
            "nested_loop": [
                {"table": {"table_name": "o", "access_type": "const", "key": "PRIMARY", "used_key_parts": ["id"],
                           "possible_keys": ["PRIMARY", "x"], "rows_examined_per_scan": 1}},
                {"table": {"table_name": "order_items", "access_type": "index", "key": "sku", "rows_examined_per_scan": 9,
                           "using_index": True}},
                {"table": {"insert": True, "table_name": "audit", "access_type": "ALL"}},
            ]
        },
        "optimized_away_subqueries": [{"query_block": {"message": "No tables used"}}],
    }
}  # fmt: skip


def test_read_plan_and_find_a_table_in_it() -> None:
    plan = access.read_plan(PLAN)
    assert [(t.name, t.access_type, t.key, t.rows, t.covering) for t in plan.tables] == [
        ("o", "const", "PRIMARY", 1, False), ("order_items", "index", "sku", 9, True), ("audit", "ALL", None, 0, False),
    ]  # fmt: skip
    assert plan.message == "No tables used"
    found = plan.of(ref("order_items"))
    assert found is not None
    assert found.access_type == "index"
    assert plan.of(ref("orders")) is None  # it is there under an alias: nothing is guessed


def plan_of(access_type: str, **over: object) -> access.Plan:
    table = {"table_name": "orders", "access_type": access_type, "rows_examined_per_scan": 50_000, **over}
    return access.read_plan({"query_block": {"table": table}})


@pytest.mark.parametrize(
    ("text", "plan", "difference"),
    [
        ("SELECT * FROM orders WHERE id = ?", plan_of("const", key="PRIMARY"), ""),
        ("SELECT * FROM orders WHERE id IN (?, ?)", plan_of("range", key="PRIMARY"), ""),
        ("SELECT * FROM orders WHERE customer_id IN (?, ?)", plan_of("range", key="customer"), ""),
        ("SELECT * FROM orders", plan_of("index", key="customer"), ""),
        ("SELECT * FROM orders WHERE id = ?", plan_of("ALL", possible_keys=["PRIMARY"]), "not with this value"),
        ("SELECT * FROM orders WHERE id > ?", plan_of("ALL", possible_keys=["PRIMARY"]), "reading the table is cheaper"),
        ("SELECT * FROM orders WHERE customer_id = ? AND coupon = ?", plan_of("ref", key="coupon"), ""),
        ("SELECT * FROM orders WHERE id > ? AND coupon = ?", plan_of("range", key="PRIMARY"), "prefers another index"),
        ("SELECT DISTINCT status FROM orders", plan_of("range", key="x", using_index_for_group_by=True), "groups are skipped through"),
        ("SELECT * FROM orders WHERE id = ?", access.read_plan({"query_block": {"message": "Impossible WHERE"}}),
         "MySQL needs no table: Impossible WHERE"),
        ("SELECT * FROM orders", plan_of("fulltext"), "unexplained"),
    ],
)  # fmt: skip
def test_differences_between_pattern_and_plan_have_names(text: str, plan: access.Plan, difference: str) -> None:
    found = access.witnesses(access.pattern(statement(text), ref("orders"), CATALOG), plan, Activity())
    if difference:
        assert len(found.differences) == 1
        assert difference in found.differences[0]
    assert found.agree is not bool(difference)


@pytest.mark.parametrize(
    ("no_index_used", "observed", "agree"),
    [(100, "scan", False), (95, "scan", False), (50, "unclear", True), (0, "index", True)],
)
def test_counters_are_the_third_witness(no_index_used: int, observed: str, agree: bool) -> None:
    activity = Activity(executions=100, counters={"no_index_used": no_index_used})
    found = access.witnesses(
        access.pattern(statement("SELECT * FROM orders WHERE id = ?"), ref("orders"), CATALOG), None, activity
    )
    assert (found.counters, found.agree) == (observed, agree)
    scan = access.witnesses(access.pattern(statement("SELECT * FROM heap"), ref("heap"), CATALOG), None, activity)
    assert scan.agree is (observed != "index")


def test_no_counters_are_no_witness() -> None:
    assert access.observed(Activity(executions=5)) is None
    assert access.observed(Activity(executions=0, counters={"no_index_used": 0})) is None


@pytest.mark.parametrize(
    ("text", "can"),
    [
        ("SELECT 1", True), ("/* x */ (SELECT 1)", True), ("SELECT 'what?' FROM t", True), ("UPDATE t SET a = 1", False),
        ("SELECT 1 FROM t WHERE LAMBDA_SYNC('arn', '{}') = 1", False), ("SELECT lambda FROM t", True),
        ("SELECT SLEEP(8)", False), ("SELECT `GET_LOCK`('a', 0)", False), ("DELETE FROM t WHERE id = f()", False),
        ("WITH c AS (SELECT 1) SELECT * FROM c", True),
        ("SELECT ? FROM t", False), ("CALL p()", False), ("SELECT `a` FROM `t` WHERE `b` IN (...)", False), ("SELECT 'cut...", False),
    ],
)  # fmt: skip
def test_explainable(text: str, can: bool) -> None:
    assert access.explainable(text) is can
