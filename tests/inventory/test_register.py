"""The dual-write register: every way in which rows change, its hazards, and what does not add up."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dbops.inventory import register
from dbops.inventory.model import Catalog, Program, TableRef
from tests.inventory.shop import CATALOG, NOW, io, ref, statement

BARE = replace(CATALOG, programs=(), references=(), views={**CATALOG.views, ref("hidden_view"): ""})


def ways(text: str, table: str, catalog: Catalog = BARE) -> list[tuple[str, str]]:
    """(operation, via) of the writers of a table that one statement makes."""
    found = register.writers([statement(text, catalog=catalog)], catalog).of(ref(table))
    return [(w.operation, w.via) for w in found if not w.programs]


@pytest.mark.parametrize(
    ("text", "table", "operation"),
    [
        ("INSERT INTO orders (customer_id) VALUES (?)", "orders", "insert"),
        ("INSERT INTO orders SET customer_id = ?", "orders", "insert"),
        ("INSERT INTO audit (order_id) SELECT id FROM orders", "audit", "insert-select"),
        ("INSERT INTO carts (token, hits) VALUES (?, 1) ON DUPLICATE KEY UPDATE hits = hits + 1", "carts", "upsert"),
        ("REPLACE INTO carts (token) VALUES (?)", "carts", "replace"),
        ("UPDATE orders SET status = ? WHERE id = ?", "orders", "update"),
        ("UPDATE orders o JOIN customers c ON c.id = o.customer_id SET o.status = ?, c.name = ? WHERE c.id = ?", "orders", "update"),
        ("UPDATE orders o JOIN customers c ON c.id = o.customer_id SET o.status = ?, c.name = ? WHERE c.id = ?", "customers", "update"),
        ("DELETE FROM orders WHERE id = ?", "orders", "delete"),
        ("DELETE o, i FROM orders o JOIN order_items i ON i.order_id = o.id WHERE o.id = ?", "orders", "delete"),
        ("DELETE o, i FROM orders o JOIN order_items i ON i.order_id = o.id WHERE o.id = ?", "order_items", "delete"),
        ("DELETE FROM i USING orders o JOIN order_items i ON i.order_id = o.id WHERE o.id = ?", "order_items", "delete"),
        ("LOAD DATA INFILE ? INTO TABLE metrics", "metrics", "load"),
        ("TRUNCATE TABLE carts", "carts", "truncate"),
        # Neither a row counter nor a trigger tells of these.
        ("ALTER TABLE metrics DROP PARTITION p2019", "metrics", "truncate"),
        ("ALTER TABLE metrics TRUNCATE PARTITION p2019, p2020", "metrics", "truncate"),
        ("ALTER TABLE metrics EXCHANGE PARTITION p2019 WITH TABLE heap", "metrics", "truncate"),
        ("ALTER TABLE metrics EXCHANGE PARTITION p2019 WITH TABLE heap", "heap", "truncate"),
    ],
)  # fmt: skip
def test_every_writing_statement_is_a_writer(text: str, table: str, operation: str) -> None:
    assert ways(text, table) == [(operation, "")]


@pytest.mark.parametrize(
    ("text", "table"),
    [
        ("UPDATE orders o JOIN customers c ON c.id = o.customer_id SET o.status = ?", "customers"),
        ("DELETE i FROM orders o JOIN order_items i ON i.order_id = o.id", "orders"),
        ("INSERT INTO audit (order_id) SELECT id FROM orders", "orders"),
        ("SELECT * FROM orders FOR UPDATE", "orders"),
        ("DROP TABLE orders", "orders"),
        ("ALTER TABLE orders ADD PARTITION (PARTITION p2020 VALUES LESS THAN (5))", "orders"),
    ],
)
def test_what_is_only_read_has_no_writer(text: str, table: str) -> None:
    assert ways(text, table) == []


def test_writes_without_a_statement_of_their_own() -> None:
    found = register.writers([statement("DELETE FROM customers WHERE id = ?")], CATALOG)
    by_table = {(w.table.table, w.operation) for w in found.writers if not w.programs}
    assert by_table == {("customers", "delete"), ("orders", "cascade delete"), ("order_items", "cascade delete")}
    update = register.writers([statement("UPDATE orders SET status = ? WHERE id = ?")], CATALOG)
    assert {(w.table.table, w.operation) for w in update.writers if not w.programs} == {
        ("orders", "update"),
        ("audit", "program"),
    }
    (audit,) = [w for w in update.of(ref("audit")) if not w.programs]
    assert "orders_audit" in audit.via
    view = register.writers([statement("UPDATE open_orders SET total = ? WHERE id = ?")], CATALOG)
    (through,) = [w for w in view.of(ref("orders")) if not w.programs]
    assert through.operation == "update"
    assert "open_orders" in through.via


def test_set_null_and_cascade_of_updates() -> None:
    references = tuple(replace(r, delete_rule="SET NULL", update_rule="CASCADE") for r in CATALOG.references)
    catalog = replace(CATALOG, programs=(), references=references)
    assert [o for o, _ in ways("DELETE FROM customers WHERE id = ?", "orders", catalog)] == ["set null"]
    assert [o for o, _ in ways("UPDATE customers SET id = ? WHERE id = ?", "orders", catalog)] == ["cascade update"]


def test_a_cascade_that_a_program_sets_off_is_named_for_what_it_does() -> None:
    erase = Program("procedure", "shop", "erase", "BEGIN UPDATE customers SET name = 'x'; DELETE FROM customers; END")
    renumber = Program("procedure", "shop", "renumber", "UPDATE customers SET id = id + 1")
    references = (
        replace(CATALOG.references[0], update_rule="CASCADE"),
        replace(CATALOG.references[0], name="customer", delete_rule="SET NULL"),
        CATALOG.references[1],
    )
    catalog = replace(CATALOG, programs=(erase, renumber), references=references)
    assert ways("CALL erase()", "orders", catalog) == [
        ("set null", "foreign key customer"), ("cascade delete", "foreign key orders_customer"),
    ]  # fmt: skip
    assert ways("CALL erase()", "order_items", catalog) == [("cascade delete", "foreign key items_order")]
    assert ways("CALL renumber()", "orders", catalog) == [("cascade update", "foreign key orders_customer")]


def test_bodies_of_programs_are_in_the_register_though_nothing_ran() -> None:
    found = register.writers([], CATALOG)
    assert {(w.table.table, w.operation, *w.programs) for w in found.writers if not w.via} == {
        ("audit", "insert", "trigger shop.orders_audit"),
        ("orders", "update", "procedure shop.close_order"),
        ("carts", "delete", "procedure shop.close_order"),
        ("carts", "delete", "event shop.expire_carts"),
    }
    assert {w.executions for w in found.writers} == {0}
    (blind, *others) = found.blind
    assert blind.programs == {"procedure shop.build"}
    assert "SQL that it builds itself" in blind.why
    assert {b.programs for b in others} <= {frozenset({"procedure shop.build"})}


def test_a_body_that_the_history_knows_is_listed_once() -> None:
    known = statement("DELETE FROM carts WHERE expires_at < NOW()", 96, programs=frozenset({"event shop.expire_carts"}))
    found = [w for w in register.writers([known], CATALOG).writers if "event shop.expire_carts" in w.programs]
    assert [(w.statement, w.executions) for w in found] == [(known.id, 96)]


def test_call_leads_to_the_tables_of_the_body() -> None:
    call = statement("CALL close_order(?, ?)", 7)
    found = [w for w in register.writers([call], CATALOG).writers if w.statement == call.id]
    assert {(w.table.table, w.operation) for w in found} >= {("orders", "program"), ("carts", "program")}
    assert all(w.executions == 7 and "close_order" in w.via for w in found if w.table.table == "carts")


HAZARDS = [
    ("UPDATE orders SET status = ? WHERE id = ?", "orders", []),
    ("UPDATE orders SET status = ? WHERE id IN (?, ?)", "orders", []),
    ("DELETE FROM order_items WHERE order_id = ? AND line = ?", "order_items", []),
    ("UPDATE orders SET status = ? WHERE customer_id = ?", "orders", ["rows by condition, not by key (prefix on customer)"]),
    ("DELETE FROM orders WHERE placed_at < ?", "orders", ["rows by condition, not by key (scan)"]),
    ("UPDATE customers SET name = ? WHERE email = ?", "customers", ["rows by condition, not by key (point on email)"]),
    ("UPDATE order_items SET qty = qty + ? WHERE order_id = ? AND line = ?", "order_items", ["reads what it writes"]),
    ("UPDATE orders SET placed_at = NOW() WHERE id = ?", "orders", ["a value that differs"]),
    ("UPDATE order_items SET line = ? WHERE order_id = ? AND line = ?", "order_items", ["changes the key (line)"]),
    ("INSERT INTO orders (customer_id, total) VALUES (?, ?)", "orders", ["the server gives id (AUTO_INCREMENT)"]),
    ("INSERT INTO orders (id, customer_id) VALUES (?, ?)", "orders", []),
    ("INSERT INTO follows (follower, followee) VALUES (?, ?), (?, ?)", "follows", ["several rows in one statement"]),
    ("REPLACE INTO carts (token) VALUES (?)", "carts", ["deletes a row that is there"]),
    ("INSERT INTO carts (token, hits) VALUES (?, 1) ON DUPLICATE KEY UPDATE hits = VALUES(hits)", "carts", ["insert or update"]),
    ("INSERT INTO follows (follower, followee) SELECT followee, ? FROM follows", "follows",
     ["the rows are not in the statement", "reads what it writes"]),
    ("DELETE FROM carts WHERE expires_at < ? LIMIT ?", "carts",
     ["rows by condition, not by key (range on expires)", "LIMIT without ORDER BY"]),
    ("DELETE FROM carts WHERE expires_at < ? ORDER BY token LIMIT ?", "carts", ["rows by condition, not by key (range on expires)"]),
    ("DELETE i FROM order_items i JOIN orders o ON o.id = i.order_id WHERE o.status = ?", "order_items",
     ["rows by condition, not by key (prefix on PRIMARY)", "which rows depends on other tables"]),
    ("TRUNCATE TABLE carts", "carts", ["all rows go"]),
    ("ALTER TABLE metrics DROP PARTITION p2019", "metrics", ["all rows of a partition go"]),
    ("INSERT INTO heap (a, b) VALUES (?, ?)", "heap", ["the table has no key"]),
]  # fmt: skip


@pytest.mark.parametrize(("text", "table", "hazards"), HAZARDS)
def test_hazards(text: str, table: str, hazards: list[str]) -> None:
    (writer,) = register.writers([statement(text, catalog=BARE)], BARE).of(ref(table))
    assert len(writer.hazards) == len(hazards), writer.hazards
    for expected in hazards:
        assert any(h.startswith(expected) for h in writer.hazards), (expected, writer.hazards)


def test_side_effects_are_hazards() -> None:
    found = register.writers(
        [statement("UPDATE orders SET status = ? WHERE id = ?"), statement("DELETE FROM customers WHERE id = ?")],
        CATALOG,
    )
    by_operation = {w.operation: w.hazards for w in found.writers if not w.programs and not w.via}
    assert by_operation["update"] == ("fires orders_audit",)
    assert by_operation["delete"] == ("changes rows of shop.orders through foreign keys",)
    (cascade,) = [w for w in found.of(ref("orders")) if w.operation == "cascade delete"]
    assert cascade.hazards == ("no statement names these rows: InnoDB changes them for the foreign key",)


def test_a_writer_says_who_and_when() -> None:
    who = {
        "users": frozenset({"app@10.0.0.1"}),
        "callers": frozenset({"controller=orders"}),
        "instances": frozenset({"writer"}),
    }
    (writer,) = register.writers([statement("DELETE FROM heap WHERE a = ?", 12, catalog=BARE, **who)], BARE).writers
    assert (writer.executions, writer.last_seen) == (12, NOW)
    assert {"users": writer.users, "callers": writer.callers, "instances": writer.instances} == who


def test_a_table_with_writes_and_no_known_writer_is_a_hole() -> None:
    found = register.writers([], BARE, [io("heap", inserted=5, fetched=9), io("carts", fetched=100)])
    assert [str(h) for h in found.holes] == ["shop.heap: 5 rows inserted, and no writer is known"]


@pytest.mark.parametrize(
    ("text", "moved", "holes"),
    [
        ("INSERT INTO heap (a) VALUES (?)", {"inserted": 5}, []),
        ("INSERT INTO heap (a) VALUES (?)", {"inserted": 5, "deleted": 2}, ["deleted"]),
        ("INSERT INTO heap (a) VALUES (?) ON DUPLICATE KEY UPDATE a = ?", {"inserted": 5, "updated": 2}, []),
        ("REPLACE INTO heap (a) VALUES (?)", {"inserted": 5, "deleted": 2}, []),
        ("DELETE FROM heap WHERE a = ?", {"updated": 1}, ["updated"]),
        ("TRUNCATE heap", {"deleted": 1}, ["deleted"]),  # it moves no row counter
        ("SELECT * FROM heap", {"inserted": 1}, ["inserted"]),
    ],
)
def test_holes_by_what_changed(text: str, moved: dict[str, int], holes: list[str]) -> None:
    found = register.writers(
        [statement(text, catalog=BARE)], BARE, [io("heap", **moved), io("heap", "PRIMARY", **moved)]
    )
    assert [h.counter for h in found.holes] == holes
    writes = 0 if text.startswith("SELECT") else 1
    assert all(h.writers == writes for h in found.holes)


def test_counters_of_instances_add_up_and_system_tables_do_not_count() -> None:
    foreign = replace(io("x", inserted=3), table=TableRef("mysql", "slow_log"))
    found = register.writers([], BARE, [io("heap", updated=2), io("heap", updated=3), foreign])
    assert [(h.table, h.rows) for h in found.holes] == [(ref("heap"), 5)]


@pytest.mark.parametrize(
    ("text", "how", "why"),
    [
        ("DELETE FROM gone WHERE id = ?", {}, "its target is not in the catalog"),
        ("UPDATE `orders` SET `status` = ? WHERE `i", {"truncated": True}, "the text is cut"),
        ("CALL nowhere.to_be_found()", {}, "the routine is not in the catalog"),
        ("UPDATE hidden_view SET a = 1", {}, "its target is not in the catalog: definition of view shop.hidden_view"),
        (
            "DELETE o, g FROM orders o JOIN gone g ON g.id = o.id",
            {},
            "one of its targets is not in the catalog: shop.gone",
        ),
        ("SELECT * FROM gone", {}, None),
        ("INSERT INTO heap (a) VALUES (?)", {}, None),
    ],
)
def test_writes_that_cannot_be_told_are_listed(text: str, how: dict[str, bool], why: str | None) -> None:
    found = register.writers([statement(text, catalog=BARE, **how)], BARE).blind
    assert [w.why[: len(why or "")] for w in found] == ([why] if why else [])


def test_a_body_that_is_hidden_may_write_anything() -> None:
    hidden = (
        Program("trigger", "shop", "t", "", ref("heap"), "INSERT"),
        Program("function", "shop", "f", ""),
        Program("procedure", "shop", "p", "SELECT f(a) FROM temporary_table"),
    )
    catalog = replace(BARE, programs=hidden)
    for text, what in (
        ("INSERT INTO heap (a) VALUES (?)", "trigger shop.t"),
        ("SELECT f(a) FROM heap", "function shop.f"),
        ("CALL p()", "function shop.f"),
    ):
        found = register.writers([statement(text, catalog=catalog)], catalog).blind
        assert [b.why for b in found if not b.programs] == [f"what it sets off cannot be read: body of {what}"]


def test_a_trigger_that_writes_its_own_schema_only_when_named() -> None:
    program = Program("procedure", "shop", "other", "UPDATE elsewhere.t SET a = 1", None)
    found = register.writers([], replace(BARE, programs=(program,)))
    assert found.writers == ()
    assert [b.why for b in found.blind] != []
