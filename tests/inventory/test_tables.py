"""Hot, quiet, cold or no evidence; unused indexes and columns; proposals that the other rooms can read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from dbops import mysql
from dbops.archive.spec import ArchiveSpec
from dbops.inventory import register, resolve, tables
from dbops.inventory.model import Catalog, Program, Reference, Statement
from dbops.inventory.tables import Window
from tests.inventory.shop import CATALOG, NOW, Io, io, ref, statement, table

DAY = timedelta(days=1)
LIMITS = {"cold_after": 30 * DAY, "coverage_limit": 99.0}
SOME = (io("products", fetched=1),)
WATCHED = Window(NOW - 35 * DAY, NOW, NOW - 35 * DAY, 99.9)


def heat_of(
    name: str, statements: Sequence[Statement] = (), rows: Sequence[Io] = SOME, window: Window = WATCHED
) -> tables.TableHeat:
    found = tables.activity(statements, CATALOG, rows, window, **LIMITS)
    assert len(found) == len(CATALOG.tables)
    return next(h for h in found if h.table == ref(name))


def read(ago: timedelta, executions: int = 1) -> Statement:
    return statement("SELECT * FROM carts WHERE token = ?", executions, last_seen=NOW - ago if executions else None)


@pytest.mark.parametrize(
    ("ago", "verdict"),
    [
        (timedelta(0), "hot"),
        (timedelta(hours=23), "hot"),
        (DAY, "quiet"),
        (29 * DAY, "quiet"),
        (30 * DAY, "cold"),
        (34 * DAY, "cold"),
    ],
)
def test_verdict_by_statement_and_by_counter(ago: timedelta, verdict: str) -> None:
    assert heat_of("carts", [read(ago)]).verdict == verdict
    assert heat_of("carts", [], [io("carts", ago=ago, fetched=3)]).verdict == verdict
    assert heat_of("carts", [], [io("carts", ago=ago, deleted=3)]).verdict == verdict
    assert (
        heat_of("carts", [read(34 * DAY)], [io("carts", ago=ago, fetched=3)]).verdict == verdict
    )  # the later witness counts


@pytest.mark.parametrize(
    ("window", "rows", "reason"),
    [
        (replace(WATCHED, watched_since=NOW - 10 * DAY), SOME, "watched for 10 days of the 30 days"),
        (replace(WATCHED, watched_since=None), SOME, "watched for 0 hours"),
        (replace(WATCHED, coverage_percent=92.4), SOME, "92.4 % of executions are explained, 99 % are needed"),
        (WATCHED, [], "row counters are not available"),
    ],
)
def test_silence_is_no_evidence_when_nobody_could_have_heard(window: Window, rows: Sequence[Io], reason: str) -> None:
    found = heat_of("carts", [], rows, window)
    assert found.verdict == "no evidence"
    assert reason in found.reason
    assert heat_of("carts", [read(timedelta(0))], rows, window).verdict == "hot"  # what was seen was seen


def test_a_statement_that_never_ran_warms_nothing() -> None:
    assert heat_of("carts", [read(timedelta(0), executions=0)]).verdict == "cold"


def test_a_statement_that_ran_nobody_knows_how_often_warms_too() -> None:
    seen = statement("SELECT * FROM carts WHERE token = ?", 0, last_seen=NOW - DAY)
    assert heat_of("carts", [seen]).verdict == "quiet"


@pytest.mark.parametrize(
    "ddl", ["RENAME TABLE carts_new TO carts", "CREATE TABLE carts (a INT)", "ALTER TABLE carts ADD x INT"]
)
def test_a_name_that_is_younger_than_the_silence_is_not_cold(ddl: str) -> None:
    found = heat_of("carts", [statement(ddl, last_seen=NOW - 3 * DAY)])
    assert (found.verdict, "created, renamed or altered on 2026-06-28" in found.reason) == ("no evidence", True)
    assert heat_of("carts", [statement(ddl, last_seen=NOW - 31 * DAY)]).verdict == "cold"
    assert heat_of("carts", [statement("ANALYZE TABLE carts", last_seen=NOW)]).verdict == "cold"
    monthly = statement("ALTER TABLE carts ADD PARTITION (PARTITION p9 VALUES LESS THAN (9))", last_seen=NOW)
    assert heat_of("carts", [monthly]).verdict == "cold"


def test_a_statement_whose_schema_nobody_knows_may_have_touched_the_table() -> None:
    def vague(text: str, ago: timedelta) -> Statement:
        """From a log that was read from its middle."""
        seen = statement(text, last_seen=NOW - ago)
        uses, columns, unresolved = resolve.resolve(seen.analysis, None, CATALOG)
        return replace(seen, schema=None, uses=uses, columns=columns, unresolved=unresolved)

    found = heat_of("carts", [vague("SELECT * FROM Carts WHERE token = ?", 3 * DAY)])
    assert (found.verdict, "default schema is not known" in found.reason) == ("no evidence", True)
    assert heat_of("carts", [vague("SELECT * FROM carts WHERE token = ?", 31 * DAY)]).verdict == "cold"
    assert heat_of("carts", [vague("SELECT * FROM other.carts", DAY)]).verdict == "cold"
    parts = unused([*ORDERS, vague("SELECT status, note FROM orders", DAY)], ORDER_IO)
    assert {u.kind for u in parts.items} == {"index"}  # their counters are kept by table, whoever asks
    assert any("default schema is not known" in why for why in parts.not_judged)


def test_figures_and_order() -> None:
    statements = [
        statement("SELECT * FROM orders WHERE id = ?", 100, last_seen=NOW - DAY),
        statement("SELECT COUNT(*) FROM orders", 7, last_seen=NOW - 2 * DAY),
        statement("UPDATE orders SET status = ? WHERE id = ?", 30, last_seen=NOW - 3 * DAY),
    ]
    rows = [io("orders", fetched=500, updated=30), io("orders", "PRIMARY", fetched=400), io("orders", fetched=1)]
    found = heat_of("orders", statements, rows)
    assert (found.reads, found.writes, found.rows_read, found.rows_written) == (107, 30, 501, 30)
    assert (found.last_read, found.last_write, found.last_touched) == (NOW - DAY, NOW - 3 * DAY, NOW)
    assert found.readers == (statements[0].id, statements[1].id)
    assert found.writers == (statements[2].id,)
    assert heat_of("archive_2019").family == "archive_#"
    order = [h.verdict for h in tables.activity(statements, CATALOG, rows, WATCHED, **LIMITS)]
    assert order == sorted(order, key=["hot", "quiet", "no evidence", "cold"].index)


@given(
    watched=st.timedeltas(timedelta(0), 60 * DAY),
    percent=st.floats(0, 100),
    ago=st.none() | st.timedeltas(timedelta(0), 60 * DAY),
    has_counters=st.booleans(),
)
def test_cold_only_after_silence_that_somebody_watched(
    watched: timedelta, percent: float, ago: timedelta | None, has_counters: bool
) -> None:
    window = Window(NOW - 60 * DAY, NOW, NOW - watched, percent)
    found = heat_of("carts", [read(ago)] if ago is not None else [], SOME if has_counters else [], window)
    silent = ago is None or ago >= 30 * DAY
    assert (found.verdict == "cold") is (silent and watched >= 30 * DAY and percent >= 99.0 and has_counters)
    assert found.verdict != "cold" or found.last_touched is None or NOW - found.last_touched >= 30 * DAY


# -- unused ------------------------------------------------------------------------------------------------------------------

ORDERS = [
    statement("SELECT id, total FROM orders WHERE customer_id = ? ORDER BY placed_at", 10),
    statement("INSERT INTO orders (customer_id, status, total, placed_at, note) VALUES (?, ?, ?, ?, ?)", 10),
]
ORDER_IO = [
    io("orders", fetched=10, inserted=10),
    io("orders", "customer", fetched=10),
    io("orders", "PRIMARY", fetched=10),
]


def unused(statements: Sequence[Statement], rows: Sequence[Io], window: Window = WATCHED) -> tables.UnusedParts:
    return tables.unused(statements, CATALOG, rows, window, **LIMITS)


def test_unused_index_and_columns() -> None:
    found = unused(ORDERS, ORDER_IO)
    assert {(u.kind, u.name) for u in found.items} == {
        ("index", "coupon"),
        ("column", "status"),
        ("column", "coupon"),
        ("column", "note"),
    }
    (index,) = [u for u in found.items if u.kind == "index"]
    assert index.caveat == ""
    assert all(u.table == ref("orders") for u in found.items)
    assert any("no row was read or written in the window" in why and "shop.carts" in why for why in found.not_judged)


def test_what_a_foreign_key_needs_is_not_unused() -> None:
    rows = [io("orders", fetched=10), io("orders", "PRIMARY", fetched=10)]
    by_id = [statement("SELECT id, total FROM orders WHERE id = ?", 10)]
    found = unused(by_id, rows).items
    assert {u.name for u in found if u.kind == "index"} == {"coupon"}  # `customer` is the only one that serves the key
    assert "customer_id" not in {u.name for u in found}
    # Neither a full-text index nor one on the beginning of the value can take its place.
    by_note = replace(CATALOG.tables[ref("orders")], indexes=(
        *CATALOG.tables[ref("orders")].indexes, mysql.Index("short", ("customer_id",), False, False, True, "BTREE"),
    ))  # fmt: skip
    shorter = replace(CATALOG, tables={**CATALOG.tables, ref("orders"): by_note})
    assert "customer" not in {u.name for u in tables.unused(by_id, shorter, rows, WATCHED, **LIMITS).items}
    unknown = replace(CATALOG, references=tuple(replace(r, child_columns=()) for r in CATALOG.references))
    indexes = {
        u.name: u.caveat for u in tables.unused(by_id, unknown, rows, WATCHED, **LIMITS).items if u.kind == "index"
    }
    assert indexes == dict.fromkeys(("customer", "coupon"), "a foreign key of this table may need it")


def test_select_star_reads_every_column_but_only_so() -> None:
    found = unused([*ORDERS, statement("SELECT * FROM orders WHERE id = ?")], ORDER_IO)
    assert {u.finding for u in found.items if u.name == "note"} == {"only read by SELECT *"}
    named = unused([*ORDERS, statement("SELECT note FROM orders WHERE id = ?")], ORDER_IO)
    assert "note" not in {u.name for u in named.items}


def test_an_index_that_conditions_ask_for_says_so() -> None:
    wanted = statement("SELECT id FROM orders WHERE coupon = ?", 5)
    (index,) = [u for u in unused([*ORDERS, wanted], ORDER_IO).items if u.kind == "index"]
    assert f"the conditions of {wanted.id} would allow it" in index.caveat


def test_nothing_is_unused_without_evidence() -> None:
    short = unused(ORDERS, ORDER_IO, replace(WATCHED, watched_since=NOW - DAY))
    assert short.items == ()
    assert short.not_judged == ("no table: watched for 24 hours of the 30 days that silence must last",)
    assert unused(ORDERS, ORDER_IO, replace(WATCHED, coverage_percent=50)).items == ()
    assert unused(ORDERS, []).items == ()
    cut = unused([*ORDERS, statement("SELECT * FROM `orders` WHERE `sta", truncated=True)], ORDER_IO)
    assert [u.kind for u in cut.items] == ["index"]  # columns of that statement are not known
    assert any("columns: statements whose columns are not known" in why for why in cut.not_judged)


def test_a_part_that_is_younger_than_the_silence_is_not_unused() -> None:
    young = statement("CREATE INDEX coupon ON orders (coupon)", last_seen=NOW - 3 * DAY)
    found = unused([*ORDERS, young], ORDER_IO)
    assert found.items == ()
    assert any("created, renamed or altered on 2026-06-28" in why and "shop.orders" in why for why in found.not_judged)
    assert (
        unused([*ORDERS, replace(young, activity=replace(young.activity, last_seen=NOW - 31 * DAY))], ORDER_IO).items
        != ()
    )


def test_what_triggers_views_and_generated_columns_ask_for_is_not_unused() -> None:
    def columns(*more: Statement, catalog: Catalog = CATALOG) -> dict[str, str]:
        found = tables.unused([*ORDERS, *more], catalog, ORDER_IO, WATCHED, **LIMITS).items
        return {u.name: f"{u.finding}; {u.caveat}" for u in found if u.kind == "column"}

    assert "status" in columns()
    trigger = Program("trigger", "shop", "t", "SET NEW.`coupon` = UPPER(OLD . status)", ref("orders"), "UPDATE")
    assert columns(catalog=replace(CATALOG, programs=(trigger,))).keys() == {"note"}
    assert "status" not in columns(statement("SELECT id FROM open_orders"))  # the view filters by it
    assert columns(statement("HANDLER orders READ FIRST")) == {}
    generated = replace(CATALOG.tables[ref("orders")].columns[3], is_generated=True)
    listed = tuple(generated if c.name == "total" else c for c in CATALOG.tables[ref("orders")].columns)
    catalog = replace(
        CATALOG, tables={**CATALOG.tables, ref("orders"): replace(CATALOG.tables[ref("orders")], columns=listed)}
    )
    assert "a generated column may be computed from it" in columns(catalog=catalog)["note"]


def test_what_another_table_s_foreign_key_needs_is_not_unused() -> None:
    rows = [io("orders", fetched=10), io("orders", "PRIMARY", fetched=10)]
    parent = Reference("by_coupon", ref("carts"), ref("orders"), "RESTRICT", "RESTRICT", ("token",), ("coupon",))
    found = tables.unused(
        ORDERS, replace(CATALOG, references=(*CATALOG.references, parent)), rows, WATCHED, **LIMITS
    ).items
    assert "coupon" not in {u.name for u in found}


# -- proposals ---------------------------------------------------------------------------------------------------------------


def archive_spec(proposal: tables.Proposal) -> ArchiveSpec:
    return ArchiveSpec.model_validate({"name": proposal.name, **yaml.safe_load(proposal.yaml)})


def test_proposed_archive_is_a_valid_spec_of_that_room() -> None:
    heats = tables.activity([], CATALOG, [io("products", fetched=1)], WATCHED, **LIMITS)
    (metrics, archive) = sorted(
        tables.propose_archive(heats, [], CATALOG, WATCHED, **LIMITS), key=lambda p: p.name, reverse=True
    )
    spec = archive_spec(archive)
    assert (spec.full_name, spec.cold.column, spec.cold.older_than_days, spec.full_scan) == (
        "shop.archive_2019",
        "placed_at",
        35,
        False,
    )
    assert spec.target.partition == ("month", "placed_at")
    assert not spec.enabled
    assert not spec.purge.allowed
    assert "cold: not touched since 2026-05-27; watched for 35 days, 99.9 % explained" in archive.why
    assert archive.yaml.startswith("# Proposed because cold")
    assert archive_spec(metrics).full_scan  # its time is the second column of the key
    assert "reads the whole table" in metrics.yaml


def test_archive_is_proposed_for_a_large_table_that_only_grows_and_no_other() -> None:
    grows = statement("INSERT INTO metrics (sensor, at, value) VALUES (?, ?, ?)", 1000)
    rows = [io(t.table, fetched=1) for t in CATALOG.tables]

    def proposed(*statements: Statement, window: Window = WATCHED, more: Sequence[Io] = ()) -> list[str]:
        heats = tables.activity(statements, CATALOG, [*rows, *more], window, **LIMITS)
        found = tables.propose_archive(heats, statements, CATALOG, window, [*rows, *more], **LIMITS)
        return [p.name for p in found]

    assert proposed(grows) == ["shop_metrics"]
    assert proposed(grows, statement("UPDATE metrics SET value = ? WHERE sensor = ?")) == []
    assert proposed(statement("INSERT INTO audit (what) VALUES (?)")) == []  # too small to be worth it
    upsert = statement("INSERT INTO metrics (sensor, at) VALUES (?, ?) ON DUPLICATE KEY UPDATE value = ?")
    assert proposed(grows, upsert) == []
    assert proposed(grows, statement("LOAD DATA INFILE ? REPLACE INTO TABLE metrics")) == []
    assert proposed(grows, statement("INSERT INTO `metrics` VALUES (...) ON DUP", truncated=True)) == []
    assert proposed(grows, more=[io("metrics", updated=1)]) == []  # nobody is known to do it, and it happened
    assert proposed(grows, window=replace(WATCHED, coverage_percent=60)) == []
    assert proposed(grows, window=replace(WATCHED, watched_since=NOW - DAY)) == []


def test_odd_names_give_a_valid_spec_or_none() -> None:
    odd = table("Big Table", "id int auto,at datetime", unique=("PRIMARY: id",), rows=10_000_000)
    catalog = replace(CATALOG, tables={ref("Big Table"): odd, ref("Big$T"): replace(odd, name="Big$T")})
    heats = tables.activity([], catalog, [io("x", fetched=1)], WATCHED, **LIMITS)
    (only,) = tables.propose_archive(heats, [], catalog, WATCHED, **LIMITS)
    assert archive_spec(only).target.table == "big_t"
    dollar = table("odd", "id int auto,at$ datetime", unique=("PRIMARY: id",), rows=10_000_000)
    catalog = replace(CATALOG, tables={ref("odd"): dollar})
    (only,) = tables.propose_archive(
        tables.activity([], catalog, SOME, WATCHED, **LIMITS), [], catalog, WATCHED, **LIMITS
    )
    assert (archive_spec(only).cold.column, archive_spec(only).target.partition) == ("at$", None)


def test_backfill_lists_what_must_move_together() -> None:
    statements = [
        statement("UPDATE orders SET total = total + ? WHERE id = ?"),
        statement("INSERT INTO order_items (order_id, line) VALUES (?, ?)"),
    ]
    known = register.writers(statements, CATALOG, [io("orders", deleted=4)])
    proposal = tables.propose_backfill("orders", [ref("orders"), ref("order_items")], CATALOG, known)
    listed = yaml.safe_load(proposal.yaml)["tables"]
    assert [(t["table"], t["key"]) for t in listed] == [("order_items", ["order_id", "line"]), ("orders", ["id"])]
    assert "reads what it writes: the result depends on the row's present value" in listed[1]["hazards"]
    assert statements[0].id in listed[1]["writers"]
    assert "# shop.orders: 4 rows deleted, and its" in proposal.yaml
