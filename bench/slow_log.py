"""A slow log as a busy MySQL 5.7 writes it: some 550 statements with different values, and a tail of statements that run once.

The same seed gives the same bytes. Styles are mixed as in real logs: an ORM that quotes every name and comments each statement, reports
over several lines, hand-written SQL, multi-row INSERTs, long IN lists, administrative commands, several users and schemas.
"""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Callable, Iterator
from itertools import accumulate, repeat
from pathlib import Path

SCHEMAS = ("shop", "billing", "fleet")
ENTITIES = (
    "orders", "order_item", "customer", "address", "invoice", "payment", "refund", "product", "price", "stock", "warehouse", "shipment",
    "carrier", "vehicle", "driver", "trip", "position", "fuel_card", "contract", "tariff", "coupon", "cart", "session", "login", "role",
    "permission", "message", "template", "job", "job_run", "audit", "setting", "country", "currency", "tax_rate", "review", "image",
    "tag", "wishlist", "event",
)  # fmt: skip
COLUMNS = (
    "name",
    "status",
    "owner_id",
    "amount",
    "currency",
    "note",
    "code",
    "weight",
    "email",
    "kind",
    "rank_no",
    "parent_id",
)
ONE_OFF_EVERY = 60
"""One entry in so many is a statement that no other entry repeats."""

Make = Callable[[random.Random], str]


def write(path: Path, entries: int, seed: int = 4) -> int:
    """Write a log of that many entries; returns the number of different shapes that were used (one-off statements are one each)."""
    rng = random.Random(seed)
    shapes = [*statements()]
    rng.shuffle(shapes)
    chosen = rng.choices(
        range(len(shapes)), cum_weights=[*accumulate(1 / (i + 5) for i in range(len(shapes)))], k=entries
    )
    chosen[: len(shapes)] = range(min(len(shapes), entries))
    rng.shuffle(chosen)
    sessions = [
        (rng.choice(("app", "web", "report", "batch")), f"10.0.{rng.randrange(4)}.{rng.randrange(1, 40)}")
        for _ in range(60)
    ]
    at, schema, used = dt.datetime(2026, 7, 1, tzinfo=dt.UTC), "", set()
    with path.open("w", encoding="utf-8") as file:
        file.write("/usr/sbin/mysqld, Version: 5.7.22-log (MySQL Community Server (GPL)). started with:\n")
        file.write(
            "Tcp port: 3306  Unix socket: /var/run/mysqld/mysqld.sock\nTime                 Id Command    Argument\n"
        )
        for number, shape in enumerate(chosen):
            one_off = number % ONE_OFF_EVERY == ONE_OFF_EVERY - 1
            used.add(-number if one_off else shape)
            text = once(rng, number) if one_off else shapes[shape](rng)
            session = rng.randrange(len(sessions))
            wanted = SCHEMAS[session % 7 % len(SCHEMAS)]
            at += dt.timedelta(microseconds=rng.randrange(1, 40_000))
            user, host = sessions[session]
            file.write(
                f"# Time: {at:%Y-%m-%dT%H:%M:%S.%fZ}\n# User@Host: {user}[{user}] @  [{host}]  Id: {session + 11:5}\n"
                f"# Query_time: {rng.expovariate(200):.6f}  Lock_time: {rng.random() / 5000:.6f}"
                f" Rows_sent: {rng.randrange(50)}  Rows_examined: {rng.randrange(5000)}\n"
                + (f"use {wanted};\n" if wanted != schema else "")
                + f"SET timestamp={int(at.timestamp())};\n{text};\n"
            )
            schema = wanted
    return len(used)


def statements() -> Iterator[Make]:
    """The repeated statements: twelve a table, and what every session sends."""
    for number, entity in enumerate(ENTITIES):
        other = ENTITIES[(number + 7) % len(ENTITIES)]
        mine = [COLUMNS[(number + step * 5) % len(COLUMNS)] for step in range(4)]
        yield from of_table(entity, other, mine)
    for text in ("BEGIN", "COMMIT", "ROLLBACK", "SELECT 1", "SET NAMES utf8mb4", "SET autocommit=0", "SET autocommit=1",
                 "SHOW VARIABLES LIKE 'sql_mode'", "SELECT @@version_comment LIMIT 1", "# administrator command: Ping",
                 "# administrator command: Prepare", "# administrator command: Close stmt", "# administrator command: Quit"):  # fmt: skip
        yield _fixed(text)
    for name in ("close_month", "recount", "move_cold"):
        yield _call(name, 0)
        yield _call(name, 1)
    for month in range(1, 13):
        yield _shard(f"position_2026_{month:02}")
    for entity in ENTITIES[:5]:
        yield _rows(entity, "")
        yield _rows(entity, " ON DUPLICATE KEY UPDATE note = VALUES(note)")
        yield _flagged(entity, "TRUE")
        yield _flagged(entity, "FALSE")
        yield _sorted(entity, "")
        yield _sorted(entity, " ASC")


def _fixed(text: str) -> Make:
    return lambda r: text


def _call(name: str, numbers: int) -> Make:
    return lambda r: f"CALL {name}({', '.join([*(str(r.randrange(10**6)) for _ in range(numbers)), quoted(r)])})"


def _shard(table: str) -> Make:
    return lambda r: (
        f"INSERT INTO {table} (vehicle_id, lat, lon) VALUES ({r.randrange(999)}, {r.random():.6f}, -{r.random():.6f})"
    )


def _rows(t: str, then: str) -> Make:
    def make(r: random.Random) -> str:
        rows = ", ".join(f"({r.randrange(10**6)}, {quoted(r)})" for _ in range(2 + many(r) // 4))
        return f"INSERT INTO {t} (id, note) VALUES {rows}{then}"

    return make


def _flagged(t: str, value: str) -> Make:
    return lambda r: f"SELECT id FROM {t} WHERE is_open = {value} AND kind = {quoted(r)}"


def _sorted(t: str, how: str) -> Make:
    return lambda r: f"SELECT id, code FROM {t} WHERE kind = {quoted(r)} ORDER BY code{how} LIMIT {r.randrange(50)}, 50"


def of_table(t: str, o: str, columns: list[str]) -> tuple[Make, ...]:
    """Twelve statements on table `t`, joined with `o`, with four columns."""
    a, b, d, e = columns
    listed = ", ".join(f"`{t}`.`{column}`" for column in ("id", *columns, "created_at"))
    return (
        lambda r: f"SELECT * FROM {t} WHERE id = {r.randrange(10**7)}",
        lambda r: f"SELECT {listed} FROM `{t}` WHERE `{t}`.`{a}` = {quoted(r)} AND `{t}`.`deleted_at` IS NULL"
        f" ORDER BY `{t}`.`id` DESC LIMIT {r.choice((1, 10, 50))} {commenter(r, t)}",
        lambda r: f"SELECT id, {a}, {b} FROM {t} WHERE id IN ({', '.join(str(r.randrange(10**7)) for _ in repeat(0, many(r)))})",
        lambda r: f"SELECT o.id, o.{a},\n       COUNT(*) AS n,\n       SUM(t.{d}) AS total\n  FROM {t} t\n  JOIN {o} o ON o.id = t.{o}_id\n"
        f" WHERE t.created_at >= '{day(r)}'\n   AND t.created_at < '{day(r)}'\n GROUP BY o.id, o.{a}\n"
        f"HAVING total > {r.random() * 100:.2f}\n ORDER BY n DESC",
        lambda r: f"INSERT INTO `{t}` (`{a}`, `{b}`, `{d}`, `{e}`, `created_at`) VALUES ({row(r)})",
        lambda r: f"INSERT INTO {t} ({a}, {b}, {d}, {e}, created_at) VALUES "
        + ", ".join(f"({row(r)})" for _ in repeat(0, 1 + many(r) // 4)),
        lambda r: f"/* {t}.touch */ UPDATE {t} SET {a} = {a} + {r.randrange(1, 9)}, updated_at = NOW() WHERE id = {r.randrange(10**7)}",
        lambda r: f"DELETE FROM {t} WHERE created_at < '{day(r)}' LIMIT {r.choice((100, 1000, 5000))}",
        lambda r: f"INSERT INTO {t} ({a}, {b}) VALUES ({quoted(r)}, {r.randrange(100)})"
        f" ON DUPLICATE KEY UPDATE {b} = VALUES({b}), {d} = {quoted(r)}",
        lambda r: f"select count(*) from {t} where {a} like '%{word(r)}%' and {d} between {r.randrange(50)} and {r.random() * 1000:.3f}",
        lambda r: f"SELECT x.id FROM {t} x WHERE x.{b} <> {quoted(r)} AND EXISTS"
        f" (SELECT 1 FROM {o} y WHERE y.{t}_id = x.id AND y.{d} > {r.random():.4f} AND y.{e} IN ({quoted(r)}, {quoted(r)}))",
        lambda r: f"SELECT id FROM {t} WHERE {a} = {quoted(r)}\nUNION ALL\n"
        f"SELECT {o}_id FROM {t} WHERE {b} = -{r.randrange(100)} -- {t} feed\nLIMIT 20",
    )  # fmt: skip


def once(r: random.Random, number: int) -> str:
    """A statement whose combination of names nothing repeats."""
    t, o = r.sample(ENTITIES, 2)
    columns = r.sample(COLUMNS, r.randrange(2, 7))
    tests = " AND ".join(f"{column} {r.choice(('=', '>', '<', '<>'))} {quoted(r)}" for column in r.sample(COLUMNS, 2))
    return r.choice((
        f"SELECT {', '.join(columns)} AS c_{number} FROM {t} WHERE {tests}",
        f"CREATE TEMPORARY TABLE tmp_{number} AS\nSELECT {', '.join(columns)}\n  FROM {t}\n WHERE {tests}",
        f"UPDATE {t} JOIN {o} ON {o}.id = {t}.{o}_id SET {t}.{columns[0]} = {quoted(r)}"
        f" WHERE {t}.{columns[1]} = 'v' /* fix {number} */ AND {o}.note_{number} IS NULL",
        f"select {columns[0]} from `{t}` where {tests} and batch_{number} = {r.randrange(99)}"
        f" order by {columns[1]} limit {r.randrange(9)}, 10",
    ))  # fmt: skip


def word(r: random.Random) -> str:
    return "".join(r.choices("abcdefghijklmnoprstuvwxyz", k=r.randrange(3, 12)))


def quoted(r: random.Random) -> str:
    """A string as applications write it; one in fifty holds what makes a tokenizer stumble."""
    if r.random() < 0.02:
        return r.choice((
            f"'it\\'s {word(r)}'", f"'{word(r)}''s'", f"'{word(r)};\\n# {word(r)}'", f"'/* {word(r)} */'", f"'{word(r)} -- {word(r)}'",
            f"'`{word(r)}'", "'\\\\'", "''", f"'say \"{word(r)}\"'",
        ))  # fmt: skip
    return r.choice(
        (
            f"'{word(r)}'",
            f"'{word(r)} {word(r)}'",
            f'"{word(r)}"',
            f"'{word(r)}@example.com'",
            f"'Zürich {r.randrange(99)}'",
        )
    )


def row(r: random.Random) -> str:
    return f"{quoted(r)}, {r.choice(('NULL', str(r.randrange(1000))))}, {r.random() * 100:.2f}, {r.choice(('NULL', quoted(r)))}, '{day(r)}'"


def day(r: random.Random) -> str:
    return f"2026-{r.randrange(1, 13):02}-{r.randrange(1, 29):02} {r.randrange(24):02}:00:00"


def many(r: random.Random) -> int:
    """Mostly few, sometimes hundreds."""
    return min(500, 1 + int(r.paretovariate(0.9)))


def commenter(r: random.Random, t: str) -> str:
    """A comment in the sqlcommenter format, different for every request."""
    trace = f"{r.getrandbits(128):032x}-{r.getrandbits(64):016x}"
    return f"/*action='{r.choice(('show', 'index', 'export'))}',controller='{t}s',traceparent='00-{trace}-01'*/"
