"""What a copy costs and how long it takes: from a sample of rows over the whole range of keys, the limits of the spec, and dated prices."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date, datetime
from pathlib import Path
from typing import Any

from pydantic import Field

from dbops import prices as prices_of
from dbops.backfill.source import Source, SourceRow
from dbops.backfill.spec import BackfillSpec
from dbops.backfill.target import TargetFacts
from dbops.guardrails import Window
from dbops.keys import Key
from dbops.keyvalue.items import READ_UNIT_BYTES, WRITE_UNIT_BYTES, item_size
from dbops.keyvalue.rules import Names, Version, document
from dbops.prices import PriceError, PriceFile, Strict

FILE = "dynamodb"
POINTS, ROWS_A_POINT = 50, 40
GB = 10**9
_STAMP_BYTES = len("-20260101-00000000")
_WHOLE = {"tinyint", "smallint", "mediumint", "int", "bigint"}


class RegionPrices(Strict):
    """Prices of one region."""

    write_million: float = Field(ge=0)
    read_million: float = Field(ge=0)
    write_hour: float = Field(ge=0)
    read_hour: float = Field(ge=0)
    import_gb: float = Field(ge=0)
    bulk_gb: float | None = Field(ge=0)


Prices = PriceFile[RegionPrices]
WRITTEN = "reads after each write"
"""Names the reads that are part of the copy."""


@dataclass(frozen=True)
class Sample:
    """Rows from all over the range of keys, as items."""

    rows: int
    """Of the view that were read."""
    sizes: tuple[int, ...]
    """Bytes of the items, ascending; tombstones too."""
    tombstones: int
    rejects: Mapping[str, int]
    """Rows by the reason for which they have no item."""
    seconds: float
    """That reading and converting took, on one connection."""
    versions: Mapping[Key, Version] = field(default_factory=dict, repr=False)
    """Of its rows, to be looked at again."""

    @property
    def rows_per_s(self) -> float:
        """Of one reader; 0 when nothing was read."""
        return self.rows / self.seconds if self.seconds > 0 else 0.0

    def percentile(self, share: float) -> int:
        """The size that so much of the items do not exceed (nearest rank); 0 without items."""
        if not self.sizes:
            return 0
        return self.sizes[max(0, math.ceil(share * len(self.sizes)) - 1)]

    def mean_units(self, unit_bytes: int) -> float:
        """Mean units an item: each is rounded up alone, also within a batch. 1.0 without items."""
        if not self.sizes:
            return 1.0
        return sum(max(1, -(-size // unit_bytes)) for size in self.sizes) / len(self.sizes)

    @property
    def mean_bytes(self) -> float:
        """Of an item; 0.0 without items."""
        return sum(self.sizes) / len(self.sizes) if self.sizes else 0.0


@dataclass(frozen=True)
class Estimate:
    """Of one copy with its proof. Upper bounds: every write is counted in every index."""

    rows: int
    p50_bytes: int
    p99_bytes: int
    max_bytes: int
    bytes: int
    """Of all items."""
    units: float
    """Write units of the table for all rows; refused writes cost the same."""
    index_factor: float
    """1, and 1 more for each global secondary index."""
    usd: float
    items: tuple[tuple[str, float], ...]
    """Parts of `usd`."""
    hours: float
    """Of wall clock, with the hours outside of the window."""
    limited_by: str
    """What would have to be raised: ``limits.units_per_s``, ``limits.read_units_per_s``, ``table`` or ``source``."""
    verify_hours: float = 0.0
    """Of wall clock for the verification after it, as far as ``limits.read_units_per_s`` and the window decide."""
    currency: str = "USD"
    warnings: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """For the journal."""
        return asdict(self)


def load(path: Path | None = None) -> Prices:
    """Read ``include/prices/dynamodb.yaml``, or another file. Raises PriceError."""
    return prices_of.load(FILE, Prices, path)


def spread(conn: Any, source: Source, points: int = POINTS) -> list[Key | None]:
    """Keys all over the range, each the exclusive beginning of a page; () for an empty table.

    A key of one whole number is cut into equal parts between its ends. Of any other key the index is read once from end to end, in steps.
    """
    first, last = source.nth_key(conn, None, 1), source.last_key(conn)
    if first is None or last is None:
        return []
    column = source.table.column(source.key.names[0])
    if len(source.key.names) == 1 and column is not None and column.data_type in _WHOLE:
        low, high = int(first[0]), int(last[0])
        keys = dict.fromkeys(low + (high - low) * point // points for point in range(1, points))
        return [None, *((str(key),) for key in keys if low <= key < high)]
    step = max(1, source.table.row_estimate // points)
    made: list[Key | None] = [None]
    while (key := source.nth_key(conn, made[-1], step)) is not None:
        made.append(key)
    return made


def measure(
    conn: Any,
    source: Source,
    lows: Sequence[Key | None],
    *,
    rows_a_point: int = ROWS_A_POINT,
    monotonic: Callable[[], float] = time.monotonic,
) -> Sample:
    """Read a few rows after each key and make items of them. No row counts twice."""
    stamp = source.spec.name + "x" * _STAMP_BYTES
    found: dict[Key, SourceRow] = {}
    seconds = 0.0
    for low in lows:
        end = source.nth_key(conn, low, rows_a_point) or source.last_key(conn, low)
        if end is not None:
            begin = monotonic()
            found |= {row.key: row for row in source.page(conn, low, end, rows_a_point, stamp).rows}
            seconds += monotonic() - begin
    writes = [row.write for row in found.values() if row.write is not None]
    names: Names = source.names
    sizes = sorted(item_size(document(write, names)) for write in writes)
    return Sample(
        rows=len(found),
        sizes=tuple(sizes),
        tombstones=sum(write.is_tombstone for write in writes),
        rejects=Counter(row.reject for row in found.values() if row.write is None),
        seconds=seconds,
        versions={key: row.write.version for key, row in found.items() if row.write is not None},
    )


def estimate(
    spec: BackfillSpec,
    sample: Sample,
    facts: TargetFacts,
    *,
    rows: int,
    region: str = "",
    prices: Prices | None = None,
    today: date | None = None,
) -> Estimate:
    """Cost and time of copying so many rows.

    Args:
        spec: its limits, engine, verification
        sample: of :func:`measure`
        facts: of the target
        rows: of the view, from a walk
        region: of the table where the spec names none
        prices: default: the file
        today: to tell the age of the prices

    Raises:
        PriceError: no price for the region or engine
    """
    per_item = sample.mean_units(WRITE_UNIT_BYTES)
    units, size = rows * per_item, round(rows * sample.mean_bytes)
    factor = 1.0 + len(facts.indexes) if spec.engine == "put" and spec.target.kind == "dynamodb" else 1.0
    reads = _read_units(spec, sample, rows, size)
    hours, limited_by = _hours(spec, sample, facts, rows, units, reads[WRITTEN])
    proof_s = sum(amount for what, amount in reads.items() if what != WRITTEN) / spec.limits.read_units_per_s
    made = Estimate(
        rows=rows,
        p50_bytes=sample.percentile(0.5),
        p99_bytes=sample.percentile(0.99),
        max_bytes=sample.percentile(1),
        bytes=size,
        units=units,
        index_factor=factor,
        usd=0.0,
        items=(),
        hours=hours,
        limited_by=limited_by,
        verify_hours=proof_s / 3600 / open_share(spec.limits.window),
    )
    return made if spec.target.kind == "redis" else _priced(made, spec, reads, facts, region, prices or load(), today)


def _hours(
    spec: BackfillSpec, sample: Sample, facts: TargetFacts, rows: int, units: float, reads: float
) -> tuple[float, str]:
    """Hours of wall clock, and what limits them."""
    seconds = {
        "limits.units_per_s": units / spec.limits.units_per_s,
        "limits.read_units_per_s": reads / spec.limits.read_units_per_s,
    }
    if facts.write_capacity:
        seconds["table"] = units / facts.write_capacity
    if sample.rows_per_s:
        seconds["source"] = rows / (sample.rows_per_s * spec.limits.tasks)
    limited_by = max(seconds, key=lambda name: seconds[name])
    return seconds[limited_by] / 3600 / open_share(spec.limits.window), limited_by


def open_share(window: Window | None) -> float:
    """The part of a day in which the window is open."""
    if window is None:
        return 1.0
    start, end = (datetime.strptime(text, "%H:%M") for text in (window.start, window.end))
    return ((end - start).total_seconds() % 86_400) / 86_400


def _priced(
    made: Estimate,
    spec: BackfillSpec,
    reads: Mapping[str, float],
    facts: TargetFacts,
    region: str,
    prices: Prices,
    today: date | None,
) -> Estimate:
    where = (spec.target.region if spec.target.kind == "dynamodb" else None) or region
    of_region = prices_of.of_region(FILE, prices, where)
    items = (*_writes(made, spec, facts, of_region), *_reads(reads, facts, of_region))
    return Estimate(
        **{
            **made.__dict__,
            "usd": sum(amount for _, amount in items),
            "items": items,
            "currency": prices.currency,
            "warnings": tuple(_doubts(prices, today, facts)),
        }
    )


def _writes(
    made: Estimate, spec: BackfillSpec, facts: TargetFacts, prices: RegionPrices
) -> tuple[tuple[str, float], ...]:
    if spec.engine == "import":
        return (("import", made.bytes / GB * prices.import_gb),)
    if spec.engine == "bulk":
        if prices.bulk_gb is None:
            raise PriceError("no price of engine bulk; set bulk_gb in include/prices/dynamodb.yaml")
        return (("bulk put", made.bytes / GB * prices.bulk_gb),)
    units = made.units * made.index_factor
    if facts.billing == "PROVISIONED":
        return (("writes", units / 3600 * prices.write_hour),)
    return (("writes", units / 1e6 * prices.write_million),)


def _read_units(spec: BackfillSpec, sample: Sample, rows: int, size: int) -> dict[str, float]:
    """Consistent reads: each row after it was written, in the verification, and by a scan for items without row."""
    per_item = sample.mean_units(READ_UNIT_BYTES)
    checked = rows if spec.verify.mode == "full" else min(rows, spec.verify.sample_rows)
    # SCAN of Redis gives keys only: each is read like any other.
    scanned = size / READ_UNIT_BYTES if spec.target.kind == "dynamodb" else rows * per_item
    return {
        WRITTEN: rows * per_item if spec.engine == "put" else 0.0,
        "verification": checked * per_item,
        "scan for extra items": scanned if spec.verify.reverse else 0.0,
    }


def _reads(reads: Mapping[str, float], facts: TargetFacts, prices: RegionPrices) -> tuple[tuple[str, float], ...]:
    price = prices.read_hour / 3600 if facts.billing == "PROVISIONED" else prices.read_million / 1e6
    return tuple((name, units * price) for name, units in reads.items())


def _doubts(prices: Prices, today: date | None, facts: TargetFacts) -> list[str]:
    found = prices_of.doubts(prices, today)
    if facts.billing == "PROVISIONED":
        found.append("the table's capacity is provisioned: the cost is the share of it that the copy uses")
    if facts.indexes:
        found.append(f"each write is counted in all of {len(facts.indexes)} indexes, whatever they project")
    return found
