"""A rehearsal without servers: its journal is in SQLite, its RDS in memory, and its clock stands still until it is told otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import sqlalchemy as sa
from conftest import ACCOUNT, REGION

from dbops.blue_green import recording
from dbops.blue_green.blue import Member, Side
from dbops.blue_green.journal import Journal
from dbops.blue_green.recording import SECOND, Attempt, Recording
from dbops.blue_green.steps import Services
from tests.blue_green.fake_rds import AwsError, FakeRds
from tests.blue_green.rds_kit import spec

NAME, RUN = "dbops-shop-00000001", "blue_green_rehearsal/manual"
BEGAN = datetime(2026, 3, 1, 3, 0)
PERIOD = SECOND // 10


class Clock:
    """Naive UTC that goes on when somebody sleeps."""

    def __init__(self) -> None:
        self.at = BEGAN

    def __call__(self) -> datetime:
        return self.at

    def sleep(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)


class Cursor:
    """Of a server that takes everything and answers 1."""

    def __enter__(self) -> Cursor:
        return self

    def __exit__(self, *_: Any) -> None:
        pass

    def execute(self, *_: Any) -> None:
        pass

    def fetchall(self) -> list[Any]:
        return []

    def fetchone(self) -> tuple[int]:
        return (1,)


class Conn:
    """A connection to it."""

    def cursor(self, *_: Any) -> Cursor:
        return Cursor()

    def rollback(self) -> None:
        pass

    def close(self) -> None:
        pass


class Kit:
    """Services over made-up parts, and the rehearsal that uses them."""

    def __init__(self, folder: Path, **of_spec: Any) -> None:
        self.clock, self.rds, self.spec = Clock(), FakeRds(), spec(**of_spec)
        self.rds.exceptions = SimpleNamespace(ClientError=AwsError)  # type: ignore[attr-defined]
        self.rds.meta = SimpleNamespace(region_name=REGION)  # type: ignore[attr-defined]
        self.store = sa.create_engine("sqlite://", poolclass=sa.StaticPool)
        self.services = Services(
            rds=self.rds, once=self.rds, cloudwatch=None, account=ACCOUNT, connect=lambda _: Conn(), login=("root", "pw"),
            ssl=None, store=self.store, recordings=folder, run=RUN, now=self.clock, sleep=self.clock.sleep,
        )  # fmt: skip
        self.journal = Journal(self.store, NAME)
        self.journal.begin("shop", RUN, BEGAN)
        expires = (BEGAN + timedelta(hours=self.spec.max_hours)).isoformat()
        self.put("begin", {"spec": self.spec.model_dump(mode="json"), "dry_run": False, "expires_at": expires})

    def put(self, step: str, document: dict[str, Any]) -> None:
        self.journal.put(step, document, self.clock())

    def forget(self, step: str) -> None:
        """As if the step had been killed before it could write."""
        with self.store.begin() as connection:
            connection.execute(sa.text("DELETE FROM rehearsal_step WHERE step = :step"), {"step": step})

    def standing(self) -> None:
        """Blue and green are there, as far as the journal knows."""
        self.put("plan", {"source": {"gigabytes": 0.0, "version": "5.7"}, "estimate": {"total": 1.0}, "findings": []})
        self.put("provision", {"blue": side("blue").document()})
        self.put("deployment", {"id": "bgd-1", "asked_at": BEGAN.isoformat()})
        self.put("green", {"green": side("green").document(), "creation_s": 60.0, "findings": []})


def side(name: str) -> Side:
    """A cluster of one instance."""
    arn = f"arn:aws:rds:{REGION}:{ACCOUNT}"
    member = Member(f"{name}-1", f"db-{name}", f"{arn}:db:{name}-1", f"{name}-1.example.com", 3306, is_writer=True)
    return Side(
        name, f"cluster-{name}", f"{arn}:cluster:{name}", f"{name}.example.com", 3306, "5.7", (member,), f"{name}-group"
    )


def recorded(
    lanes: dict[str, Sequence[Attempt]], *, phases: Sequence[tuple[int, str]] = (), errors: dict[int, str] | None = None
) -> Recording:
    """A recording whose monotonic clock began at BEGAN."""
    kinds: dict[str, recording.Kind] = {lane: "write" if "write" in lane else "read" for lane in lanes}
    offset = int(BEGAN.replace(tzinfo=UTC).timestamp() * SECOND)
    return Recording(
        NAME, PERIOD, {k: tuple(v) for k, v in lanes.items()}, kinds, tuple(phases), errors or {}, offset, ended=True
    )


def attempts(seconds: float, down: Sequence[tuple[float, float]] = (), since: float = 0.0) -> list[Attempt]:
    """An attempt every period; those sent within a stretch of `down` failed."""
    found = []
    for number in range(round(since * 10), round(seconds * 10)):
        sent = number * PERIOD
        is_down = any(begin <= number / 10 < end for begin, end in down)
        found.append(Attempt(number, sent, sent + 1, sent + SECOND // 1000, 2013 if is_down else 0))
    return found
