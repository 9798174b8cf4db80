"""Fill the schema carshare: the same rows for the same request, only shifted in time so that *cold* stays cold.

A table is topped up to a number of cold and of hot rows, so that a demo can be repeated after rows were archived. New
rows always get new ids: an id that was used once is never used again, even when its row is gone.
"""

from __future__ import annotations

import datetime as dt
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import MySQLdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lab import config, mysql
from lab.config import LabError
from lab.schema import TABLES

SEED = 20_240_229
CHUNK_ROWS = 100_000
COLD_AFTER_DAYS = {"positions": 90, "rides": 365, "payments": 365}
TIME_COLUMN = {"positions": "recorded_at", "rides": "started_at", "payments": "paid_at"}
COLD_SPAN_DAYS = 365
# Cold rows keep a day's distance, so that a cut-off at the last midnight finds them, too.
MARGIN_DAYS = 1

Columns = Mapping[str, pa.Array]
CITIES = np.array(
    [(52.520, 13.405), (48.137, 11.575), (53.551, 9.994), (50.938, 6.960), (48.857, 2.352), (-33.449, -70.669)]
)
FIRST_NAMES = (
    "Anna",
    "Jürgen",
    "Zoë",
    "Øyvind",
    "Łucja",
    "Дмитрий",
    "美咲",
    "Aïcha",
    "Seán",
    "Maria",
    "Lars",
    "Noor 🌻",
    "Kim",
    "İpek",
)
LAST_NAMES = (
    "Müller",
    "Nuñez",
    "O'Brien",
    "van der Berg",
    "Kowalska",
    "Иванов",
    "田中",
    "Smith-Jones",
    "d'Arc",
    "Çelik",
    "Ng",
)
MODELS = ("Renault Zoe", "VW ID.3", "Fiat 500e", "Citroën ë-C3", "Škoda Enyaq", "Tesla Model 3")
COMMENTS = (
    "",
    "👍",
    "Great car 🚗💨",
    "smelled of smoke",
    'the "new" app is slow',
    "Türgriff klemmt",
    "50% battery\tonly",
    "素晴らしい",
    "C:\\temp\nsecond line",
)


@dataclass(frozen=True)
class Period:
    """Rows to make between two instants (UTC, naive)."""

    rows: int
    begin: dt.datetime
    end: dt.datetime


def seed(server: str, rows: int, hot_rows: int | None = None, *, now: dt.datetime | None = None) -> dict[str, int]:
    """Create the tables and top them up.

    Args:
        server: ``mysql57`` or ``mysql80``
        rows: cold rows that positions shall have; the other tables follow in proportion
        hot_rows: hot rows that positions shall have; default a tenth of ``rows``
        now: UTC; what cold and hot are relative to, default the clock

    Returns:
        Number of new rows by table.

    Raises:
        LabError: the server is down, or it did not take a row as it was sent
    """
    if rows < 1 or (hot_rows is not None and hot_rows < 0):
        raise LabError(f"--rows {rows} --hot-rows {hot_rows}: at least one cold row, and no negative number")
    started = time.monotonic()
    now = (now or dt.datetime.now(dt.UTC)).replace(tzinfo=None, microsecond=0)
    hot_rows = rows // 10 if hot_rows is None else hot_rows
    with _Loader(server) as loader:
        made = _fill(loader, now, rows, hot_rows)
    new = ", ".join(f"{count:,} {table}" for table, count in made.items() if count) or "nothing, it has enough rows"
    print(f"seeded {server}.{config.SOURCE_SCHEMA} in {time.monotonic() - started:.1f} s: {new}")
    return made


def _fill(loader: _Loader, now: dt.datetime, rows: int, hot_rows: int) -> dict[str, int]:
    half = max(rows // 100, 10)
    targets = {"positions": (rows, hot_rows), "rides": (half, half), "payments": (half, half)}
    made = {
        "members": _fill_plain(loader, "members", max(rows // 500, 50), _members),
        "cars": _fill_plain(loader, "cars", min(max(rows // 2000, 20), 5000), _cars),
    }
    member_ids, car_ids = loader.ids("members"), loader.ids("cars")
    made["rides"] = sum(
        loader.load("rides", period, partial(_rides, members=member_ids, cars=car_ids))
        for period in _missing(loader, "rides", now, *targets["rides"])
    )
    ride_ids = loader.ids("rides")
    made["payments"] = 0
    for period in _missing(loader, "payments", now, *targets["payments"]):
        made["payments"] += loader.load("payments", period, partial(_payments, rides=loader.rides_between(period)))
    made["positions"] = sum(
        loader.load("positions", period, partial(_positions, cars=car_ids, rides=ride_ids))
        for period in _missing(loader, "positions", now, *targets["positions"])
    )
    for table in (table for table, count in made.items() if count):
        loader.execute(f"ANALYZE TABLE `{table}`")
    return made


def _fill_plain(loader: _Loader, table: str, target: int, make: Callable[..., Columns]) -> int:
    missing = target - loader.scalar(f"SELECT COUNT(*) FROM `{table}`")
    epoch = dt.datetime(2021, 1, 1)
    return loader.load(table, Period(missing, epoch, epoch + dt.timedelta(days=900)), make) if missing > 0 else 0


def _missing(loader: _Loader, table: str, now: dt.datetime, cold: int, hot: int) -> Iterator[Period]:
    """Cold first: ids grow with time, as in life."""
    cut_off = now - dt.timedelta(days=COLD_AFTER_DAYS[table])
    margin, span = dt.timedelta(days=MARGIN_DAYS), dt.timedelta(days=COLD_SPAN_DAYS)
    have_cold = loader.scalar(f"SELECT COUNT(*) FROM `{table}` WHERE `{TIME_COLUMN[table]}` < %s", cut_off)
    have_hot = loader.scalar(f"SELECT COUNT(*) FROM `{table}` WHERE `{TIME_COLUMN[table]}` >= %s", cut_off)
    for period in (
        Period(cold - have_cold, cut_off - margin - span, cut_off - margin),
        Period(hot - have_hot, cut_off + margin, now),
    ):
        if period.rows > 0:
            yield period


class _Loader:
    """Loads generated columns with LOAD DATA LOCAL, and hands out ids that were never used."""

    def __init__(self, server: str) -> None:
        self._server = server
        try:
            self._connection = mysql.root_connection(server, config.SOURCE_SCHEMA)
        except MySQLdb.OperationalError as error:
            raise LabError(f"{server} does not answer ({error}): run `python -m lab up`") from error
        self._used_ids_file = config.home() / server / f"seed-ids-{config.SOURCE_SCHEMA}.json"
        for statement in TABLES.values():
            self.execute(statement)

    def __enter__(self) -> _Loader:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def execute(self, sql: str, *arguments: object) -> tuple[tuple[Any, ...], ...]:
        with self._connection.cursor() as cursor:
            cursor.execute(sql, arguments or None)
            return cursor.fetchall()

    def scalar(self, sql: str, *arguments: object) -> int:
        return int(self.execute(sql, *arguments)[0][0] or 0)

    def ids(self, table: str) -> np.ndarray:
        return np.array([row[0] for row in self.execute(f"SELECT id FROM `{table}` ORDER BY id")], dtype=np.int64)

    def rides_between(self, period: Period) -> list[tuple[Any, ...]]:
        """Id, start and price of the rides that payments of this period can belong to; any ride when it has none."""
        select = "SELECT id, started_at, price FROM rides"
        rows = self.execute(f"{select} WHERE started_at BETWEEN %s AND %s ORDER BY id", period.begin, period.end)
        return list(rows or self.execute(f"{select} ORDER BY id"))

    def load(
        self, table: str, period: Period, make: Callable[[Period, np.ndarray, np.random.Generator], Columns]
    ) -> int:
        """Make and load the rows of a period; the next chunk is generated while MySQL takes the last one."""
        rng = np.random.default_rng([SEED, list(TABLES).index(table), first := self._first_free_id(table)])
        ids = first + np.cumsum(_gaps(rng, period.rows)) - 1
        self._remember(table, int(ids[-1]))
        seconds = (period.end - period.begin).total_seconds()
        with tempfile.TemporaryDirectory(prefix="seed-") as folder, ThreadPoolExecutor(1) as pool:
            loading = None
            for number, offset in enumerate(range(0, period.rows, CHUNK_ROWS)):
                chunk = ids[offset : offset + CHUNK_ROWS]
                begin, end = (
                    period.begin + dt.timedelta(seconds=seconds * edge / period.rows)
                    for edge in (offset, offset + len(chunk))
                )
                columns = {"id": pa.array(chunk), **make(Period(len(chunk), begin, end), chunk, rng)}
                file = Path(folder) / f"{number % 2}.tsv"
                file.write_bytes(_tsv(columns))
                if loading:
                    loading.result()
                loading = pool.submit(self._load_file, table, file, list(columns), len(chunk))
            if loading:
                loading.result()
        return period.rows

    def _load_file(self, table: str, file: Path, columns: list[str], rows: int) -> None:
        names = ", ".join(f"`{name}`" if name != "reference" else "@reference" for name in columns)
        binary = " SET `reference` = UNHEX(@reference)" if "reference" in columns else ""
        with self._connection.cursor() as cursor:
            loaded = cursor.execute(
                f"LOAD DATA LOCAL INFILE %s INTO TABLE `{table}` CHARACTER SET utf8mb4 ({names}){binary}", (str(file),)
            )
            # LOCAL turns errors such as a duplicate key into warnings.
            cursor.execute("SHOW WARNINGS LIMIT 5")
            warnings = cursor.fetchall()
        if loaded != rows or warnings:
            raise LabError(f"{self._server}.{table} took {loaded} of {rows} rows; warnings: {warnings}")

    def _first_free_id(self, table: str) -> int:
        if self._connection.get_server_info().startswith("8."):
            self.execute("SET SESSION information_schema_stats_expiry = 0")
        counter = self.scalar(
            "SELECT auto_increment FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name = %s",
            table,
        )
        # MySQL 5.7 forgets the counter when it restarts, and then reuses the ids of deleted rows.
        return max(counter, self._used_ids().get(table, 0) + 1)

    def _used_ids(self) -> dict[str, int]:
        return json.loads(self._used_ids_file.read_text()) if self._used_ids_file.is_file() else {}

    def _remember(self, table: str, last_id: int) -> None:
        self._used_ids_file.write_text(json.dumps({**self._used_ids(), table: last_id}))


def _members(period: Period, ids: np.ndarray, rng: np.random.Generator) -> Columns:
    n = period.rows
    preferences = [
        json.dumps({"lang": lang, "push": push, "radius_km": km})
        for lang in ("de", "en", "fr")
        for push in (True, False)
        for km in (1, 5)
    ]
    names = [f"{first} {last}" for first in FIRST_NAMES for last in LAST_NAMES]
    return {
        "email": pc.binary_join_element_wise("member", pa.array(ids).cast(pa.string()), "@example.com", ""),
        "full_name": _pick(rng, names, n),
        "born_on": _with_nulls(rng, pa.array(rng.integers(-10_000, 12_000, n), pa.int32()).cast(pa.date32()), 0.05),
        "status": _pick(rng, ("active", "suspended", "closed"), n, (0.9, 0.04, 0.06)),
        "licence": _pick(rng, ("B", "B,BE", "B,C", "A,B"), n, (0.8, 0.08, 0.04, 0.08)),
        "balance": _decimal(rng.normal(5, 40, n), 2),
        "preferences": _with_nulls(rng, _pick(rng, preferences, n), 0.3),
        "created_at": _times(rng, period, "s"),
    }


def _cars(period: Period, ids: np.ndarray, rng: np.random.Generator) -> Columns:
    n = period.rows
    return {
        "vin": pa.array([f"WDBOPS{car:011d}" for car in ids]),
        "plate": pa.array([f"B-CS {car % 9000 + 1000}E" for car in ids]),
        "model": _pick(rng, MODELS, n),
        "equipment": _pick(rng, ("", "child_seat", "roof_box,tow_bar", "winter_tyres"), n),
        "odometer_km": _decimal(rng.gamma(4, 9000, n), 1),
        "bought_in": pa.array(rng.integers(2016, 2025, n)),
        "retired_on": _with_nulls(rng, pa.array(rng.integers(19_000, 20_000, n), pa.int32()).cast(pa.date32()), 0.93),
    }


def _rides(period: Period, ids: np.ndarray, rng: np.random.Generator, members: np.ndarray, cars: np.ndarray) -> Columns:
    n = period.rows
    started = _times(rng, period, "ms")
    minutes = rng.gamma(2, 18, n)
    distance = minutes * rng.uniform(0.2, 0.9, n)
    ended = pc.add(started, pa.array((minutes * 60_000).astype(np.int64)).cast(pa.duration("ms")))
    finished = pa.array(rng.random(n) < 0.93)
    return {
        "member_id": pa.array(rng.choice(members, n)),
        "car_id": pa.array(rng.choice(cars, n)),
        "status": pc.if_else(finished, "finished", "cancelled"),
        "started_at": started,
        "ended_at": pc.if_else(finished, ended, None),
        "distance_km": pc.if_else(finished, _decimal(distance, 3), None),
        "price": pc.if_else(finished, _decimal(1 + minutes * 0.29, 2), "0.00"),
        "rating": _with_nulls(rng, pa.array(rng.integers(-1, 6, n)), 0.6),
        "comment": _with_nulls(rng, _pick(rng, COMMENTS, n), 0.8),
    }


def _payments(period: Period, ids: np.ndarray, rng: np.random.Generator, rides: list[tuple[Any, ...]]) -> Columns:
    n = period.rows
    # Rides in order of time; more payments than rides means that some were paid in two parts.
    chosen = np.sort(rng.permutation(np.arange(n) % len(rides)))
    paid = _times(rng, period, "s")
    return {
        "ride_id": pa.array([rides[i][0] for i in chosen]),
        "amount": pa.array([str(rides[i][2]) for i in chosen]),
        "currency": _pick(rng, ("EUR", "CHF", "CLP"), n, (0.9, 0.07, 0.03)),
        "method": _pick(rng, ("card", "sepa", "wallet", "voucher"), n, (0.6, 0.25, 0.1, 0.05)),
        "reference": pa.array(_hex(rng, n)),
        "paid_at": paid,
        "refunded_at": _with_nulls(rng, pc.add(paid, pa.scalar(86_400, pa.duration("s"))), 0.97),
    }


def _positions(
    period: Period, ids: np.ndarray, rng: np.random.Generator, cars: np.ndarray, rides: np.ndarray
) -> Columns:
    n = period.rows
    car = rng.choice(cars, n)
    centre = CITIES[car % len(CITIES)]
    raw = [
        json.dumps({"fw": f"4.{minor}", "sats": sats, "hdop": hdop / 10, "cell": "lte" if sats % 3 else "nr"})
        for minor in range(5)
        for sats in range(4, 14)
        for hdop in range(6, 20)
    ]
    driving = rng.random(n) < 0.4
    return {
        "car_id": pa.array(car),
        "ride_id": pa.array(rng.choice(rides, n), mask=~driving),
        "recorded_at": _times(rng, period, "ms"),
        "latitude": _decimal(centre[:, 0] + rng.normal(0, 0.04, n), 6),
        "longitude": _decimal(centre[:, 1] + rng.normal(0, 0.06, n), 6),
        "speed_kmh": pa.array(rng.gamma(5, 7, n).astype(np.float32), mask=~driving | (rng.random(n) < 0.02)),
        "heading": pa.array(rng.integers(0, 360, n), mask=rng.random(n) < 0.1),
        "battery_pct": pa.array(rng.integers(3, 101, n)),
        "state": pc.if_else(
            pa.array(driving),
            "driving",
            _pick(rng, ("parked", "reserved", "charging", "service"), n, (0.7, 0.1, 0.18, 0.02)),
        ),
        "flags": _pick(
            rng,
            ("", "ignition", "door_open", "door_open,ignition", "low_signal,roaming"),
            n,
            (0.5, 0.3, 0.1, 0.05, 0.05),
        ),
        "raw": _with_nulls(rng, _pick(rng, raw, n), 0.4),
    }


def _gaps(rng: np.random.Generator, n: int) -> np.ndarray:
    """Distance of each id from the one before: mostly 1, at times more, as after a roll-back."""
    return np.where(rng.random(n) < 0.01, rng.integers(2, 40, n), 1)


def _times(rng: np.random.Generator, period: Period, unit: str) -> pa.Array:
    """Instants that rise through the period with late arrivals in between, none outside of it."""
    step = (period.end - period.begin) / max(period.rows, 1)
    seconds = np.arange(period.rows) * step.total_seconds() - rng.exponential(30, period.rows)
    instants = np.datetime64(period.begin, "ms") + (np.maximum(seconds, 0) * 1000).astype(np.int64).astype(
        "timedelta64[ms]"
    )
    return pa.array(instants.astype(f"datetime64[{unit}]"))


def _pick(
    rng: np.random.Generator, values: tuple[str, ...] | list[str], n: int, p: tuple[float, ...] | None = None
) -> pa.Array:
    return pa.array(values).take(pa.array(rng.choice(len(values), n, p=p)))


def _with_nulls(rng: np.random.Generator, values: pa.Array, share: float) -> pa.Array:
    return pc.if_else(pa.array(rng.random(len(values)) < share), None, values)


def _decimal(values: np.ndarray, scale: int) -> pa.Array:
    return pa.array(values.round(scale)).cast(pa.decimal128(38, scale), safe=False).cast(pa.string())


def _hex(rng: np.random.Generator, n: int) -> list[str]:
    text = rng.bytes(16 * n).hex()
    return [text[start : start + 32] for start in range(0, len(text), 32)]


def _tsv(columns: Columns) -> bytes:
    """Columns in the default format of LOAD DATA: tab, newline, backslash escapes, \\N for NULL."""
    texts = []
    for values in columns.values():
        text = values.cast(pa.string())
        if pa.types.is_string(values.type):
            for plain, escaped in (("\\", "\\\\"), ("\t", "\\t"), ("\n", "\\n")):
                text = pc.replace_substring(text, plain, escaped)
        texts.append(text)
    lines = pc.binary_join_element_wise(*texts, "\t", null_handling="replace", null_replacement="\\N")
    whole = pc.binary_join(pa.ListArray.from_arrays(pa.array([0, len(lines)], pa.int32()), lines), "\n")
    return whole[0].as_buffer().to_pybytes() + b"\n"
