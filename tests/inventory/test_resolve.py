from __future__ import annotations

from dataclasses import replace

import pytest

from dbops import mysql
from dbops.inventory.model import Catalog, ColumnUse, Program, Reference, TableRef
from dbops.inventory.parse import analyse
from dbops.inventory.resolve import resolve


def ref(name: str) -> TableRef:
    schema, _, table = name.rpartition(".")
    return TableRef(schema or "shop", table)


def table(name: str, columns: str) -> tuple[TableRef, mysql.Table]:
    key = ref(name)
    listed = tuple(mysql.Column(column, "int", "int", False) for column in columns.split())
    return key, mysql.Table(key.schema, key.table, "InnoDB", 0, 0, 0, 0, 0, listed, ())


def trigger(name: str, on: str, event: str, body: str) -> Program:
    return Program("trigger", "shop", name, body, ref(on), event)


CATALOG = Catalog(
    tables=dict([
        table("customers", "id name city"),
        table("orders", "id customer_id status total"),
        table("items", "order_id line sku qty"),
        table("audit", "id what"),
        table("stock", "sku amount"),
        table("follows", "follower followee"),
        table("Mixed", "A b"),
        table("two", "x"),
        table("TWO", "y"),
        table("grand", "id parent"),
        table("crm.people", "id email"),
    ]),
    views={
        ref("open_orders"): "select `shop`.`orders`.`id` AS `id`,`shop`.`orders`.`total` AS `amount` from `shop`.`orders` where (`shop`.`orders`.`status` = 'open')",  # noqa: E501
        ref("big_orders"): "select `o`.`id` AS `id` from `shop`.`open_orders` `o` where (`o`.`amount` > 100)",
        ref("named"): "select `c`.`name` AS `name`,`o`.`total` AS `total` from (`shop`.`customers` `c` join `shop`.`orders` `o` on((`o`.`customer_id` = `c`.`id`)))",  # noqa: E501
        ref("secret"): "",
    },
    programs=(
        trigger("log_change", "orders", "UPDATE", "INSERT INTO audit (id, what) VALUES (NEW.id, 'changed')"),
        trigger("log_items", "items", "DELETE", "BEGIN UPDATE stock SET amount = amount + OLD.qty WHERE sku = OLD.sku; END"),
        trigger("log_new", "stock", "INSERT", "CALL note('x')"),
        Program("procedure", "shop", "note", "INSERT INTO audit (what) VALUES (a)"),
        Program("procedure", "shop", "close_all", "BEGIN UPDATE orders SET status = 'x'; CALL Note('y'); CALL close_all(); CALL gone; END"),
        Program("procedure", "crm", "forget", "DELETE FROM people WHERE id = a"),
        Program("procedure", "shop", "build", "BEGIN SET @s = 'x'; PREPARE q FROM @s; EXECUTE q; END"),
        Program("procedure", "shop", "hidden", ""),
        Program("function", "shop", "tax", "RETURN (SELECT MAX(total) FROM orders WHERE customer_id = a)"),
    ),
    references=(
        Reference("items_of", ref("items"), ref("orders"), "CASCADE", "CASCADE", ("order_id",), ("id",)),
        Reference("orders_of", ref("orders"), ref("customers"), "SET NULL", "RESTRICT", ("customer_id",), ("id",)),
        Reference("grand_of", ref("grand"), ref("items"), "CASCADE", "RESTRICT", ("parent",), ("order_id",)),
        Reference("self", ref("grand"), ref("grand"), "CASCADE", "RESTRICT", ("parent",), ("id",)),
    ),
    folds_case=False,
)  # fmt: skip


def uses(text: str, schema: str | None = "shop", catalog: Catalog = CATALOG, **how: bool) -> set[str]:
    """Uses as "table access" or "table access via ..."."""
    found, _, _ = resolve(analyse(text, **how), schema, catalog)
    short = {(str(u.table).removeprefix("shop."), u.access, u.via) for u in found}
    return {f"{name} {access}" + (f" via {via}" if via else "") for name, access, via in short}


def columns(text: str, schema: str | None = "shop") -> set[str]:
    _, found, _ = resolve(analyse(text), schema, CATALOG)
    return {f"{str(c.table).removeprefix('shop.')}.{c.column} {c.role}" for c in found}


def unresolved(text: str, schema: str | None = "shop") -> tuple[str, ...]:
    return resolve(analyse(text), schema, CATALOG)[2]


# -- names -------------------------------------------------------------------------------------------------------------------


def test_the_schema_of_the_session_and_of_the_text():
    assert uses("SELECT 1 FROM orders, crm.people") == {"orders read", "crm.people read"}
    assert uses("SELECT 1 FROM people", "crm") == {"crm.people read"}
    assert uses("SELECT 1 FROM orders", None) == set()
    assert unresolved("SELECT 1 FROM orders", None) == ("orders",)
    assert unresolved("SELECT 1 FROM tmp, crm.orders JOIN orders") == ("shop.tmp", "crm.orders")
    assert unresolved("WITH tmp AS (SELECT 1) SELECT * FROM tmp") == ()


def test_letter_case():
    assert uses("SELECT a FROM mixed") == {"Mixed read"}
    assert uses("SELECT `FOLLOWER` FROM FOLLOWS", is_digest=True) == {"follows read"}
    # Two tables: only the exact name will do.
    assert uses("SELECT x FROM two") == {"two read"}
    assert uses("SELECT x FROM TWO") == {"TWO read"}
    assert unresolved("SELECT x FROM Two") == ("shop.Two",)
    folding = replace(CATALOG, tables=dict([table("mixed", "a")]), folds_case=True)
    assert uses("SELECT a FROM SHOP.MIXED", "shop", folding) == {"mixed read"}


# -- what follows ------------------------------------------------------------------------------------------------------------


def test_views_lead_to_base_tables():
    assert uses("SELECT id FROM open_orders") == {"open_orders read", "orders read via view shop.open_orders"}
    assert uses("SELECT id FROM big_orders") == {
        "big_orders read", "open_orders read via view shop.big_orders", "orders read via view shop.open_orders",
    }  # fmt: skip
    assert unresolved("SELECT 1 FROM secret") == ("definition of view shop.secret",)


def test_writes_through_views():
    assert uses("DELETE FROM open_orders WHERE id = 1") == {
        "open_orders write", "orders write via view shop.open_orders", "items write via foreign key items_of",
        "grand write via foreign key grand_of", "grand write via foreign key self",
    }  # fmt: skip
    found = uses("UPDATE named SET name = 'x'")
    assert "customers write via view shop.named" in found
    assert "orders read via view shop.named" in found
    # Which of the two owns the column cannot be told: both may be written.
    assert {"customers write via view shop.named", "orders write via view shop.named"} <= uses(
        "UPDATE named SET renamed = 'x'"
    )


def test_a_view_may_call_its_columns_by_the_names_of_others():
    catalog = replace(CATALOG, views={
        **CATALOG.views,
        ref("renamed"): "select `o`.`id` AS `total`,`c`.`name` AS `status` from (`shop`.`customers` `c` join `shop`.`orders` `o` on((1 = 1)))",  # noqa: E501
        ref("nested"): "select `shop`.`renamed`.`total` AS `name` from `shop`.`renamed`",
        ref("lately"): "select `shop`.`orders`.`id` AS `id` from `shop`.`orders` where `shop`.`orders`.`customer_id` in (select `shop`.`customers`.`id` from `shop`.`customers`)",  # noqa: E501
    })  # fmt: skip
    through = uses("UPDATE renamed SET status = 'x'", "shop", catalog)
    assert {u for u in through if "write" in u} == {"renamed write", "customers write via view shop.renamed"}
    # It is the key that changes, so rows of other tables do too.
    key = uses("UPDATE nested SET name = 7", "shop", catalog)
    assert {"orders write via view shop.renamed", "items write via foreign key items_of"} <= key
    assert "customers read via view shop.renamed" in key
    gone = uses("DELETE FROM lately", "shop", catalog)
    assert {"orders write via view shop.lately", "customers read via view shop.lately"} <= gone
    assert not any(u.startswith("customers write") for u in gone)
    _, found, _ = resolve(analyse("SELECT 1 FROM nested WHERE name = 1"), "shop", catalog)
    assert ColumnUse(ref("orders"), "id", "filtered") in found
    assert {c.table.table for c in found if c.role == "filtered"} == {"nested", "renamed", "orders"}


@pytest.mark.parametrize(
    ("text", "fired"),
    [
        ("UPDATE orders SET status = 'x'", True),
        ("INSERT INTO orders (id) VALUES (1)", False),
        ("INSERT INTO orders (id) VALUES (1) ON DUPLICATE KEY UPDATE status = 'x'", True),
        ("DELETE FROM orders", False),
        ("SELECT status FROM orders", False),
        ("TRUNCATE orders", False),
        ("ALTER TABLE orders ADD x INT", False),
    ],
)
def test_triggers_fire_on_their_event(text, fired):
    assert ("audit write via trigger shop.log_change" in uses(text)) == fired


def test_replace_deletes_and_a_trigger_may_call():
    assert "stock write via trigger shop.log_items" in uses("REPLACE INTO items VALUES (1, 2, 'a', 3)")
    assert "audit write via procedure shop.note" in uses("LOAD DATA INFILE 'x' INTO TABLE stock")
    assert "stock write via trigger shop.log_items" in uses("LOAD DATA INFILE 'x' REPLACE INTO TABLE items")
    assert "stock write via trigger shop.log_items" not in uses("LOAD DATA INFILE 'x' IGNORE INTO TABLE items")


def test_foreign_keys_delete_and_update():
    found = uses("DELETE FROM orders WHERE id = 1")
    assert "items write via foreign key items_of" in found
    assert "grand write via foreign key grand_of" in found
    # Rows that a foreign key deletes fire no trigger.
    assert not any("log_items" in use for use in found)
    assert uses("DELETE FROM customers") == {"customers write", "orders write via foreign key orders_of"}
    assert (
        ColumnUse(ref("orders"), "customer_id", "written")
        in resolve(analyse("DELETE FROM customers"), "shop", CATALOG)[1]
    )
    # ON UPDATE CASCADE acts on the key only.
    assert "items write via foreign key items_of" in uses("UPDATE orders SET id = 5")
    assert "items write via foreign key items_of" not in uses("UPDATE orders SET total = 5")
    upsert = "INSERT INTO orders (id, total) VALUES (1, 2) ON DUPLICATE KEY UPDATE "
    assert "items write via foreign key items_of" in uses(upsert + "id = id + 1")
    assert "items write via foreign key items_of" not in uses(upsert + "total = VALUES(total)")
    assert uses("TRUNCATE items") == {"items write"}
    assert uses("INSERT INTO orders VALUES (1, 2, 3, 4)") == {"orders write"}


def test_routines_are_followed_once():
    assert uses("CALL close_all()") == {
        "orders write via procedure shop.close_all",
        "audit write via trigger shop.log_change",
        "audit write via procedure shop.note",
    }
    assert unresolved("CALL close_all()") == ("procedure gone",)
    assert uses("CALL crm.forget(1)") == {"crm.people write via procedure crm.forget"}
    assert uses("CALL forget(1)", "crm") == {"crm.people write via procedure crm.forget"}
    assert unresolved("CALL forget(1)") == ("procedure forget",)
    assert unresolved("CALL build()") == ("dynamic SQL in procedure shop.build",)
    assert unresolved("CALL hidden()") == ("body of procedure shop.hidden",)


def test_what_a_later_statement_of_a_body_sets_off_is_not_lost():
    bodies = (
        Program("procedure", "shop", "renew", "BEGIN INSERT INTO items (sku) VALUES (1); DELETE FROM items; END"),
        Program("procedure", "shop", "move", "BEGIN UPDATE orders SET id = 5; DELETE FROM orders; END"),
    )
    catalog = replace(CATALOG, programs=(*CATALOG.programs, *bodies))
    assert uses("CALL renew()", "shop", catalog) == {
        "items write via procedure shop.renew", "stock write via trigger shop.log_items", "grand write via foreign key grand_of",
        "grand write via foreign key self",
    }  # fmt: skip
    found = resolve(analyse("CALL move()"), "shop", catalog)[0]
    assert {u.on for u in found if u.via == "foreign key items_of"} == {"UPDATE", "DELETE"}
    # Only the rows that the DELETE takes with it cascade on to the grandchildren.
    assert {u.on for u in found if u.via == "foreign key grand_of"} == {"DELETE"}


def test_stored_functions():
    for text in ("SELECT tax(id) FROM customers", "SELECT shop.Tax (id) FROM customers"):
        assert uses(text) == {"customers read", "orders read via function shop.tax"}
    assert uses("SET @a = tax(1)") == {"orders read via function shop.tax"}
    assert uses("SELECT tax FROM customers") == {"customers read"}


def test_unqualified_columns_of_a_multi_table_update():
    assert uses("UPDATE customers c, items i SET qty = 1, sku = 2 WHERE c.id = i.order_id") == {
        "customers read",
        "items write",
    }
    assert {"customers write", "items write"} <= uses("UPDATE customers c, items i SET qty = 1, c.name = 2")
    assert {"customers write", "items write"} <= uses("UPDATE customers c, items i SET unknown = 1")


# -- columns -----------------------------------------------------------------------------------------------------------------


def test_columns_are_found_through_the_catalog():
    assert columns("SELECT NAME, total n FROM customers c JOIN orders o ON o.customer_id = c.ID WHERE city = 1 ORDER BY n") == {
        "customers.name read", "orders.total read", "orders.customer_id joined", "customers.id joined", "customers.city filtered",
    }  # fmt: skip
    assert columns("SELECT * FROM stock") == {"stock.sku read", "stock.amount read"}
    assert columns("INSERT INTO stock VALUES (1, 2)") >= {"stock.sku written", "stock.amount written"}
    assert columns("SELECT 1 FROM stock WHERE EXISTS (SELECT 1 FROM items WHERE sku = amount)") == {
        "items.sku filtered", "stock.amount filtered",
    }  # fmt: skip
    assert columns("SELECT x FROM nowhere") == set()


def test_columns_of_views():
    found = columns("SELECT id FROM open_orders WHERE amount > 5")
    assert found >= {
        "open_orders.id read",
        "open_orders.amount filtered",
        "orders.id read",
        "orders.total read",
        "orders.status filtered",
    }


def test_every_statement_of_one_catalog_shares_its_index():
    """10,000 statements against 2,000 tables in seconds: the catalog is indexed once."""
    import time

    big = replace(CATALOG, tables=dict(table(f"t{n}", "id a b c d e f g") for n in range(2_000)))
    analyses = [analyse(f"SELECT a, b FROM t{n} WHERE id = 1") for n in range(2_000)] * 5
    started = time.perf_counter()
    for analysis in analyses:
        assert len(resolve(analysis, "shop", big)[0]) == 1
    assert time.perf_counter() - started < 10
