"""What a run may touch, and when: allow-lists, typed confirmations, windows and throttles.

Everything here fails closed.
"""

from __future__ import annotations

import logging
import math
import time as _time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time
from fnmatch import fnmatchcase
from zoneinfo import ZoneInfo, available_timezones

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

log = logging.getLogger(__name__)


class Refused(Exception):
    """A guardrail said no. `reason` says what was asked, what is allowed and how to allow it."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def refuse_unknown_conf(conf: Mapping[str, object] | None, allowed: Iterable[str]) -> None:
    """Refuse a run whose conf has keys outside `allowed`: Airflow accepts them silently, so a typo would be ignored."""
    known = sorted(allowed)
    if unknown := sorted(set(conf or {}) - set(known)):
        raise Refused(f"unknown conf key {', '.join(map(repr, unknown))}; allowed: {', '.join(known) or 'none'}")


def require_confirmation(given: str | None, expected: str) -> None:
    """Refuse unless the typed confirmation equals the name of what would change, to the letter."""
    if not expected or given != expected:
        raise Refused(f"confirmation is {given!r}; type {expected!r} exactly to allow this change")


def require_allowed(resource: str, patterns: Iterable[str], where: str) -> None:
    """Refuse unless `resource` matches one of the shell patterns (case matters).

    `where` names the place of the allow-list.
    """
    listed = [patterns] if isinstance(patterns, str) else list(patterns)
    if not resource or not any(fnmatchcase(resource, pattern) for pattern in listed):
        raise Refused(
            f"{resource!r} is not on the allow-list in {where} ({', '.join(listed) or 'empty'}); "
            "add it there to allow it"
        )


class Window(BaseModel):
    """A daily window of wall-clock time, [start, end) in `timezone`; with start after end it crosses midnight."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    start: str = Field(description="HH:MM, inclusive")
    end: str = Field(description="HH:MM, exclusive")
    timezone: str = Field(default="UTC", description="IANA name, for example Europe/Berlin")

    @field_validator("start", "end")
    @classmethod
    def _hh_mm(cls, value: str) -> str:
        try:
            if len(value) == 5:
                datetime.strptime(value, "%H:%M")
                return value
        except ValueError:
            pass
        raise ValueError("expected HH:MM between 00:00 and 23:59")

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        if value not in available_timezones():
            raise ValueError("expected an IANA time zone, for example UTC or Europe/Berlin")
        return value

    @model_validator(mode="after")
    def _not_empty(self) -> Window:
        if self.start == self.end:
            raise ValueError(f"start and end are both {self.start}; leave the window out to allow any time")
        return self

    def contains(self, now: datetime) -> bool:
        """Whether the aware instant `now` lies in the window."""
        if now.tzinfo is None:
            raise ValueError(f"now={now.isoformat()} has no time zone; pass an aware datetime")
        clock = now.astimezone(ZoneInfo(self.timezone)).time()
        start, end = time.fromisoformat(self.start), time.fromisoformat(self.end)
        return start <= clock < end if start < end else clock >= start or clock < end

    def __str__(self) -> str:
        return f"{self.start}-{self.end} {self.timezone}"


@dataclass(frozen=True)
class Signal:
    """One measurement of a server: it blocks above `limit`, and when `value` is None (could not be measured)."""

    name: str
    value: float | None
    limit: float
    unit: str = ""

    @property
    def reason(self) -> str | None:
        """Why this signal blocks, or None."""
        unit = f" {self.unit}" if self.unit else ""
        if self.value is None or math.isnan(self.value):
            return f"{self.name} is unknown (limit {self.limit:g}{unit})"
        if self.value > self.limit:
            return f"{self.name} is {self.value:g}{unit}, limit {self.limit:g}{unit}"
        return None


@dataclass(frozen=True)
class ThrottleEvent:
    """A stretch of waiting: when it began, how many seconds it lasted, and the reasons seen at its start."""

    began_at: datetime
    seconds: float
    reasons: tuple[str, ...]


@dataclass
class Throttle:
    """Asks before each chunk or batch whether the servers can take it.

    probes   each returns a Signal; one that raises counts as unknown
    window   time of day in which work is allowed; None = any time
    paused   true while a person has stopped the work (a Variable, a sentinel row)
    clock    the aware current time; sleep: seconds; poll_s: seconds between two looks
    """

    probes: Sequence[Callable[[], Signal]] = ()
    window: Window | None = None
    paused: Callable[[], bool] = lambda: False
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    sleep: Callable[[float], None] = _time.sleep
    poll_s: float = 5.0

    def check(self) -> list[str]:
        """Reasons not to go on now; empty = go."""
        reasons = []
        now = self.clock()
        if self.window and not self.window.contains(now):
            reasons.append(
                f"outside the window {self.window} (now {now.astimezone(ZoneInfo(self.window.timezone)):%H:%M})"
            )
        try:
            if self.paused():
                reasons.append("paused by a person")
        except Exception as error:
            log.warning("pause switch could not be read", exc_info=True)
            reasons.append(f"pause switch is unknown ({type(error).__name__})")
        for probe in self.probes:
            try:
                reason = probe().reason
            except Exception as error:
                name = getattr(probe, "__name__", type(probe).__name__)
                log.warning("probe %s failed", name, exc_info=True)
                reason = f"{name} is unknown ({type(error).__name__}: {error})"
            if reason:
                reasons.append(reason)
        return reasons

    def wait(self, deadline_s: float) -> list[ThrottleEvent]:
        """Return the stretches of waiting once check() is empty.

        Raises Refused when still blocked after `deadline_s` seconds.
        """
        began = self.clock()
        events: list[ThrottleEvent] = []
        stretch: tuple[datetime, tuple[str, ...]] | None = None
        while True:
            reasons = self.check()
            now = self.clock()
            # Values move at every look, so a new stretch begins only when another signal blocks, not when a number
            # changes.
            if stretch and _subjects(reasons) != _subjects(stretch[1]):
                events.append(ThrottleEvent(stretch[0], (now - stretch[0]).total_seconds(), stretch[1]))
                stretch = None
            if not reasons:
                return events
            stretch = stretch or (now, tuple(reasons))
            left = deadline_s - (now - began).total_seconds()
            if left <= 0:
                raise Refused(f"still blocked after {deadline_s:g} s: {'; '.join(reasons)}")
            log.info("waiting: %s", "; ".join(reasons))
            self.sleep(min(self.poll_s, left))


def _subjects(reasons: Iterable[str]) -> list[str]:
    return [reason.split(" is ")[0].split(" (")[0] for reason in reasons]
