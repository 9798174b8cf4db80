"""Advice by rules with evidence, "not decidable" below the limit, and the graph of tables that belong together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbops.inventory import fit, tables
from dbops.inventory.model import Program, Statement
from tests.inventory.shop import CATALOG, NOW, io, ref, statement

BARE = replace(CATALOG, programs=(), references=())
DAY = timedelta(days=1)
LIMITS = {"cold_after": 30 * DAY, "coverage_limit": 99.0}


def advise(name: str, statements: Sequence[Statement], percent: float = 99.5, catalog: Any = BARE) -> fit.Advice:
    window = tables.Window(NOW - 35 * DAY, NOW, NOW - 35 * DAY, percent)
    heats = tables.activity(statements, catalog, [io("heap", fetched=1)], window, **LIMITS)  # type: ignore[arg-type]
    found = fit.advise(statements, catalog, heats, coverage_percent=percent, coverage_limit=99.0)
    assert len(found) == len(catalog.tables)
    return next(a for a in found if a.table == ref(name))


def run(*weighed: tuple[int, str], catalog: Any = BARE) -> list[Statement]:
    return [statement(text, executions, catalog=catalog) for executions, text in weighed]


KEY_LOOKUPS = (
    (900, "SELECT * FROM order_items WHERE order_id = ? AND line = ?"),
    (300, "SELECT * FROM order_items WHERE order_id = ?"),
    (100, "INSERT INTO order_items (order_id, line, sku, qty) VALUES (?, ?, ?, ?)"),
    (50, "UPDATE order_items SET qty = ? WHERE order_id = ? AND line = ?"),
)
CART = (
    (950, "SELECT body FROM carts WHERE token = ?"),
    (50, "INSERT INTO carts (token, body, expires_at) VALUES (?, ?, ?)"),
)
SERIES = (
    (700, "INSERT INTO metrics (sensor, at, value) VALUES (?, ?, ?)"),
    (290, "SELECT AVG(value) FROM metrics WHERE sensor = ? AND at BETWEEN ? AND ?"),
    (10, "SELECT value FROM metrics WHERE sensor = ? ORDER BY at DESC LIMIT ?"),
)
GRAPH = (
    (60, "SELECT followee FROM follows WHERE follower = ?"),
    (40, "SELECT b.followee FROM follows a JOIN follows b ON b.follower = a.followee WHERE a.follower = ?"),
)


@pytest.mark.parametrize(
    ("table", "weighed", "store"),
    [
        ("order_items", KEY_LOOKUPS, "dynamodb"),
        ("order_items", (*KEY_LOOKUPS, (200, "SELECT SUM(qty) FROM order_items WHERE sku = ?")), "relational"),
        ("order_items", (*KEY_LOOKUPS, (200, "SELECT * FROM order_items WHERE qty > ?")), "relational"),
        ("order_items", (*KEY_LOOKUPS, (200, "SELECT i.qty FROM orders o JOIN order_items i ON i.order_id = o.id WHERE o.id = ?")),
         "relational"),
        ("carts", CART, "memcached"),
        ("carts", (*CART, (100, "UPDATE carts SET hits = hits + 1 WHERE token = ?")), "redis"),
        ("carts", (*CART, (400, "DELETE FROM carts WHERE expires_at < ?")), "redis"),
        ("carts", (*CART, (400, "SELECT COUNT(*) FROM carts")), "relational"),
        ("metrics", SERIES, "timeseries"),
        ("metrics", (*SERIES, (100, "UPDATE metrics SET value = ? WHERE sensor = ? AND at = ?")), "relational"),
        # a range over all keys is no range within one
        ("carts", (*CART, (400, "SELECT * FROM carts WHERE expires_at < ?")), "relational"),
        ("order_items", (*KEY_LOOKUPS, (200, "SELECT * FROM order_items WHERE order_id > ?")), "relational"),
        ("order_items", (*KEY_LOOKUPS, (200, "SELECT * FROM order_items WHERE order_id = ? AND line > ?")), "dynamodb"),
        ("order_items", (*KEY_LOOKUPS, (200, "SELECT * FROM order_items WHERE order_id = ? OR sku = ?")), "relational"),
        ("follows", GRAPH, "graph"),
        ("follows", GRAPH[:1], "dynamodb"),
        ("archive_2019", (), "s3_archive"),
        ("products", ((5, "SELECT * FROM products WHERE name LIKE '%x%'"),), "relational"),
    ],
)  # fmt: skip
def test_advice(table: str, weighed: tuple[tuple[int, str], ...], store: str) -> None:
    found = advise(table, run(*weighed))
    assert found.store == store, (found.evidence, found.rejected)
    assert found.evidence
    assert found.counter
    assert {s for s, _ in found.rejected} == {r.store for r in fit.RULES if r.requirements} - {store} - _also(found)


def _also(found: fit.Advice) -> set[str]:
    """Stores whose requirements are met too, behind the one that is advised."""
    return {r.store for r in fit.RULES if r.requirements and all(q.met(found.features) for q in r.requirements)}


def test_evidence_shows_figures_and_limits() -> None:
    found = advise("order_items", run(*KEY_LOOKUPS))
    assert found.evidence[0] == "by key, or by a range within one: 100 % (at least 95)"
    assert "key sets: 2 sets (at most 5)" in found.evidence
    assert found.evidence[-1] == "99.5 % of executions are explained; 1,350 on this table"
    assert dict(found.rejected)["timeseries"] == "an index ends or begins with a time: no"
    assert dict(found.rejected)["s3_archive"] == "cold for the whole watched window: no"


def test_features_are_weighed_by_executions() -> None:
    measured = advise(
        "order_items", run((90, "SELECT * FROM order_items WHERE order_id = ?"), (10, "SELECT * FROM order_items"))
    ).features
    assert (measured.executions, measured.reads, measured.writes) == (100, 100, 0)
    assert (measured.keyed, measured.scanned, measured.key_sets) == (90.0, 10.0, 1)


def test_a_foreign_key_keeps_a_table_relational() -> None:
    weighed = run(*KEY_LOOKUPS, catalog=CATALOG)
    found = advise("order_items", weighed, catalog=CATALOG)
    assert found.store == "relational"
    assert dict(found.rejected)["dynamodb"] == "foreign keys: 1 keys (at most 0)"


@pytest.mark.parametrize(
    ("weighed", "percent", "reason"),
    [
        (KEY_LOOKUPS, 98.9, "98.9 % of executions are explained, 99 % are needed"),
        (
            (*KEY_LOOKUPS, (100, "SELECT * FROM order_items WHERE order_id = ? AND MATCHES ((")),
            99.5,
            "have no readable pattern",
        ),
        (((0, "SELECT * FROM order_items"),), 50, "50.0 % of executions are explained"),
    ],
)
def test_not_decidable(weighed: tuple[tuple[int, str], ...], percent: float, reason: str) -> None:
    found = advise("order_items", run(*weighed), percent)
    assert found.store == "not decidable"
    assert reason in found.evidence[0]
    assert (found.counter, found.rejected) == ("", ())


def test_a_table_that_only_rows_touch_is_not_decidable() -> None:
    window = tables.Window(NOW - 35 * DAY, NOW, NOW - 35 * DAY, 99.9)
    heats = tables.activity([], BARE, [io("products", fetched=9)], window, **LIMITS)  # type: ignore[arg-type]
    found = fit.advise([], BARE, heats, coverage_percent=99.9, coverage_limit=99.0)
    assert {a.store for a in found if a.table == ref("products")} == {"not decidable"}


def test_a_table_that_somebody_unknown_changes_is_not_decidable() -> None:
    statements = run(*KEY_LOOKUPS)
    window = tables.Window(NOW - 35 * DAY, NOW, NOW - 35 * DAY, 99.9)
    heats = tables.activity(statements, BARE, [io("heap", fetched=1)], window, **LIMITS)  # type: ignore[arg-type]
    found = fit.advise(statements, BARE, heats, coverage_percent=99.9, coverage_limit=99.0, holes={ref("order_items")})
    (advice,) = [a for a in found if a.table == ref("order_items")]
    assert (advice.store, advice.evidence) == ("not decidable", ("its rows change and nobody is known to do it",))


POOL = [statement(text, 1, catalog=BARE) for _, text in (*KEY_LOOKUPS, *CART, *SERIES, *GRAPH)]


@given(
    executions=st.lists(st.integers(0, 10_000), min_size=len(POOL), max_size=len(POOL)),
    percent=st.floats(0, 100, allow_nan=False),
    limit=st.floats(0, 100, allow_nan=False),
    watched=st.integers(0, 60),
)
def test_below_the_limit_nothing_is_ever_advised(
    executions: list[int], percent: float, limit: float, watched: int
) -> None:
    statements = [
        replace(s, activity=replace(s.activity, executions=n, last_seen=NOW if n else None))
        for s, n in zip(POOL, executions, strict=True)
    ]
    window = tables.Window(NOW - 60 * DAY, NOW, NOW - watched * DAY, percent)
    heats = tables.activity(
        statements, BARE, [io("heap", fetched=1)], window, cold_after=30 * DAY, coverage_limit=limit
    )
    found = fit.advise(statements, BARE, heats, coverage_percent=percent, coverage_limit=limit)
    for advice in found:
        if percent < limit:
            assert advice.store == "not decidable"
        if advice.store not in ("not decidable", "s3_archive"):
            assert advice.features.executions > 0
        if advice.store == "s3_archive":
            assert watched >= 30
        assert advice.evidence
        assert bool(advice.counter) is (advice.store != "not decidable")


def test_rules_are_data_with_a_counter_argument_each() -> None:
    assert {r.store for r in fit.RULES} == {
        "relational",
        "dynamodb",
        "redis",
        "memcached",
        "timeseries",
        "graph",
        "s3_archive",
    }
    assert fit.RULES[-1].requirements == ()
    for rule in fit.RULES:
        assert rule.counter
        assert all((r.at_least is None) is not (r.at_most is None) for r in rule.requirements)


# -- the graph ---------------------------------------------------------------------------------------------------------------


def test_edges_and_groups() -> None:
    statements = run(
        (10, "SELECT o.id FROM orders o JOIN order_items i ON i.order_id = o.id"),
        (5, "SELECT * FROM orders WHERE id IN (SELECT order_id FROM order_items WHERE sku = ?)"),
        (3, "INSERT INTO audit (order_id) SELECT id FROM orders"),
        (8, "SELECT * FROM carts WHERE token = ?"),
        (2, "UPDATE orders SET status = ? WHERE id = ?"),
        catalog=CATALOG,
    )
    found = fit.edges(statements, CATALOG)
    assert [(str(e.a), str(e.b), set(e.ties), e.executions) for e in found] == [
        ("shop.order_items", "shop.orders", {"join", "foreign key"}, 15),
        ("shop.audit", "shop.orders", {"write", "trigger"}, 5),
        ("shop.customers", "shop.orders", {"foreign key"}, 0),
    ]
    assert found[0].statements == tuple(sorted((statements[0].id, statements[1].id)))
    grouped = fit.groups(CATALOG.tables, found)
    assert grouped[0] == tuple(map(ref, ("audit", "customers", "order_items", "orders")))
    assert sorted(len(g) for g in grouped[1:]) == [1] * (len(CATALOG.tables) - 4)


def test_what_a_function_or_a_trigger_s_procedure_touches_is_tied() -> None:
    programs = (
        Program("function", "shop", "price_of", "RETURN (SELECT price FROM products WHERE sku = a)"),
        Program("trigger", "shop", "t", "CALL note(NEW.sku)", ref("order_items"), "INSERT"),
        Program("procedure", "shop", "note", "INSERT INTO audit (what) VALUES (a)"),
        Program("procedure", "shop", "both", "BEGIN SELECT 1 FROM heap; SELECT 1 FROM metrics; END"),
    )
    catalog = replace(BARE, programs=programs)
    statements = run(
        (4, "SELECT price_of(name) FROM customers"), (3, "INSERT INTO order_items (sku) VALUES (?)"), (2, "CALL both()"), catalog=catalog
    )  # fmt: skip
    assert [(str(e.a), str(e.b), set(e.ties), e.executions) for e in fit.edges(statements, catalog)] == [
        ("shop.customers", "shop.products", {"join"}, 4),
        ("shop.audit", "shop.order_items", {"trigger"}, 3),
    ]


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=20))
def test_groups_are_the_connected_components(pairs: list[tuple[int, int]]) -> None:
    nodes = [ref(f"t{n}") for n in range(10)]
    ties = [fit.Edge(nodes[a], nodes[b], frozenset({"join"}), 1, ()) for a, b in pairs if a != b]
    found = fit.groups(nodes, ties)
    assert sorted(t for g in found for t in g) == sorted(nodes)
    place = {t: i for i, g in enumerate(found) for t in g}
    assert all(place[e.a] == place[e.b] for e in ties)
    # nothing is joined that no chain of edges joins
    for group in found:
        reached = {group[0]}
        while grown := {t for e in ties for t in (e.a, e.b) if {e.a, e.b} & reached} - reached:
            reached |= grown
        assert reached == set(group)
