"""The file that probes write: append-only lines of JSON, each written by one call of the kernel.

A kill -9 of the prober or of whoever started it loses nothing that was written; a line that it tore is recognised and dropped. Times are
nanoseconds of CLOCK_MONOTONIC, which every process of one machine shares until it boots again; each header ties them to the wall clock.
What was written before the machine booted again is carried over to the clock of the last boot by the wall clock.

    ["h", monotonic, wall, boot, pid, run, period, {lane: kind}]          a prober began
    ["a", lane, seq, sent, connected, done, errno, server, beat]          an attempt ended; errno 0 = it succeeded
    ["s", number, text]                                                   what a server number of an attempt stands for
    ["e", errno, text]                                                    first text of an error number
    ["m", monotonic, wall, boot, phase]                                   the rehearsal entered a phase
    ["q", monotonic]                                                      the prober ended as it was told to
"""

from __future__ import annotations

import itertools
import json
import os
import time
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

SECOND = 1_000_000_000
NO_PHASE = "before the first phase"
_DAMAGED = "not a line of a recording; the file was changed or its disk failed"
OTHER_ERROR = -1
"""Error number of what is not the server's or the client library's own error (a name that does not resolve)."""

Kind = Literal["write", "read", "refused_write", "resolve"]


class RecordingError(ValueError):
    """A recording cannot be read or written; the text names file, line and what to do."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt of a lane. Times in ns of the monotonic clock; ``connected`` is None when no connection was made.

    ``server`` names who answered (reads) or the address (resolve); ``beat`` is the send time of the newest write that a read saw.
    """

    seq: int
    sent: int
    connected: int | None
    done: int
    errno: int
    server: str | None = None
    beat: int | None = None

    @property
    def ok(self) -> bool:
        """It did what it tried to do."""
        return self.errno == 0


@dataclass(frozen=True)
class Recording:
    """Everything that the files of one rehearsal hold."""

    run: str
    period: int
    """Longest period of the probers, ns: the resolution of what is computed from the recording."""
    lanes: dict[str, tuple[Attempt, ...]]
    """Attempts by lane, in order of sending."""
    kinds: dict[str, Kind]
    phases: tuple[tuple[int, str], ...]
    """(monotonic ns, name) in order."""
    errors: dict[int, str]
    wall_offset: int
    """Wall clock minus monotonic clock, ns, when the first prober of the last boot began."""
    ended: bool
    """Every prober ended as it was told to; False when one was killed or still runs."""
    torn_lines: int = 0
    boots: int = 1
    """Boots of the machine that it spans. Nobody probed between them, and their times compare only as well as the wall clock was kept."""

    def phase_at(self, instant: int) -> str:
        """Name of the phase at a monotonic instant."""
        at = bisect_right(self.phases, (instant, "\U0010ffff"))
        return self.phases[at - 1][1] if at else NO_PHASE

    def of_kind(self, kind: Kind) -> list[str]:
        """Names of the lanes of this kind."""
        return [name for name, its in self.kinds.items() if its == kind]


class Writer:
    """Appends lines; safe to share between threads and, for lines of this size, between processes of one machine."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        size = os.fstat(self._fd).st_size
        if size and _last_byte(path, size) != b"\n":  # the line that a kill tore gets an end of its own
            os.write(self._fd, b"\n")

    def line(self, *values: Any) -> None:
        """Append one line. Raises RecordingError when the disk took only a part of it."""
        data = json.dumps(values, separators=(",", ":")).encode() + b"\n"
        if (written := os.write(self._fd, data)) != len(data):
            raise RecordingError(
                f"{self.path}: only {written} of {len(data)} bytes were written; free space on its disk"
            )

    def fileno(self) -> int:
        """The descriptor, for a lock on the file."""
        return self._fd

    def close(self) -> None:
        """Close the file; what was written stays."""
        os.close(self._fd)


def mark(path: Path, phase: str) -> None:
    """Note in the recording that the rehearsal entered a phase now; any process may do so."""
    writer = Writer(path)
    try:
        writer.line("m", time.monotonic_ns(), time.time_ns(), boot_id(), phase)
    finally:
        writer.close()


def boot_id() -> str:
    """Identity of this boot of this machine: monotonic times of two processes compare only when it is equal."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


@dataclass
class _Lines:
    headers: list[list[Any]] = field(default_factory=list)
    attempts: dict[tuple[str, str], list[Attempt]] = field(default_factory=dict)
    """By boot and lane."""
    boot: str = ""
    servers: dict[int, str] = field(default_factory=dict)
    errors: dict[int, str] = field(default_factory=dict)
    marks: list[list[Any]] = field(default_factory=list)
    ends: int = 0
    torn: int = 0

    def take(self, line: list[Any]) -> None:
        match line:
            case ["h", int(), int(), str(), int(), str(), int(), dict()]:
                self.headers.append(line)
                self.boot = line[3]
                self.servers = {}  # numbers are a prober's own
            case ["a", str(lane), int(seq), int(sent), connected, int(done), int(errno), server, beat]:
                known = None if server is None else self.servers[server]
                its = self.attempts.setdefault((self.boot, lane), [])
                its.append(Attempt(seq, sent, connected, done, errno, known, beat))
            case ["s", int(number), str(text)]:
                self.servers[number] = text
            case ["e", int(errno), str(text)]:
                self.errors.setdefault(errno, text)
            case ["m", int(), int(), str(), str()]:
                self.marks.append(line)
            case ["q", int()]:
                self.ends += 1
            case _:
                raise ValueError(f"no line of a recording: {line!r}")


def read(paths: Iterable[Path]) -> Recording:
    """Read the recordings of one rehearsal (blue's and green's probers have a file each); they may still be written to.

    Raises:
        RecordingError: a file is missing, empty, or damaged elsewhere than where a kill tears it; or they are not of one run and machine
    """
    files = [_lines(path) for path in paths]
    headers = [header for each in files for header in each.headers]
    if not headers:
        raise RecordingError("no prober has begun; start one, or name its file")
    if len(found := {header[5] for header in headers}) > 1:
        raise RecordingError(f"recordings of {len(found)} runs ({', '.join(sorted(found))}); read those of one run")
    boots = _boots(files, headers)
    last = boots[-1].header
    attempts: dict[str, list[Attempt]] = {}
    for boot in boots:
        for lane, its in boot.attempts:
            attempts.setdefault(lane, []).extend(its if len(boots) == 1 else boot.carried_over(its, last, boots[0]))
    phases = sorted((_instant(m, last), m[4]) for each in files for m in each.marks)
    return Recording(
        run=last[5],
        period=max(header[6] for header in headers),
        lanes={lane: tuple(sorted(its, key=lambda a: (a.sent, a.seq))) for lane, its in attempts.items()},
        kinds={lane: kind for header in headers for lane, kind in header[7].items()},
        phases=tuple(phases),
        errors={errno: text for each in files for errno, text in each.errors.items()},
        wall_offset=last[2] - last[1],
        ended=sum(each.ends for each in files) == len(headers),
        torn_lines=sum(each.torn for each in files),
        boots=len(boots),
    )


@dataclass(frozen=True)
class _Boot:
    """What was recorded between two boots; `header` is of the prober that began first."""

    header: list[Any]
    attempts: list[tuple[str, list[Attempt]]]

    def wall_ends(self) -> tuple[int, int]:
        """First and last instant by the wall clock, ns."""
        offset = self.header[2] - self.header[1]
        return self.header[2], offset + max((a.done for _, its in self.attempts for a in its), default=self.header[1])

    def carried_over(self, its: Iterable[Attempt], last: Sequence[Any], first: _Boot) -> Iterator[Attempt]:
        """The attempts on the clock of the last boot. A beat of a boot before means nothing on this one's clock, and becomes unknown."""
        shift, since = (self.header[2] - self.header[1]) - (last[2] - last[1]), self.header[1]
        for each in its:
            is_ours = each.beat is not None and (self is first or since <= each.beat <= each.done)
            yield replace(
                each, sent=each.sent + shift, done=each.done + shift,
                connected=None if each.connected is None else each.connected + shift,
                beat=each.beat + shift if is_ours and each.beat is not None else None,
            )  # fmt: skip


def _boots(files: Sequence[_Lines], headers: Sequence[list[Any]]) -> list[_Boot]:
    """Boots in their order. Raises RecordingError when two were up at once: then they are two machines, whose clocks nobody compares."""
    found = []
    for boot in {header[3] for header in headers}:
        first = min((header for header in headers if header[3] == boot), key=lambda header: header[1])
        its = [(lane, a) for each in files for (of, lane), a in each.attempts.items() if of == boot]
        found.append(_Boot(first, its))
    found.sort(key=lambda boot: boot.wall_ends())
    for before, after in itertools.pairwise(found):
        if before.wall_ends()[1] >= after.wall_ends()[0]:
            names = ", ".join(sorted(boot.header[3] for boot in found))
            raise RecordingError(
                f"recordings of {len(found)} boots ({names}), two of them at one time: every task of a rehearsal must run on one machine"
            )
    return found


def _instant(mark: Sequence[Any], header: Sequence[Any]) -> int:
    """Monotonic time of a mark; one from another machine (or boot) is carried over by the wall clock."""
    return int(mark[1] if mark[3] == header[3] else mark[2] - header[2] + header[1])


def _lines(path: Path) -> _Lines:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise RecordingError(f"{path}: {error.strerror}; name the file of a prober") from error
    found = _Lines()
    raw = data.split(b"\n")
    torn: int | None = None
    for number, line in enumerate(raw, start=1):
        if not line:
            continue
        try:
            values = json.loads(line)
            if number == len(raw):
                raise ValueError("its end is missing")
            found.take(values)
        except (ValueError, KeyError) as error:
            if torn is not None:
                raise RecordingError(f"{path}:{torn}: {_DAMAGED}") from error
            torn = number
            continue
        if torn is not None:
            # A kill tears the last line of a prober; what follows is the next prober's header, or a mark that somebody set.
            if values[0] not in ("h", "m"):
                raise RecordingError(f"{path}:{torn}: {_DAMAGED}")
            torn, found.torn = None, found.torn + 1
    found.torn += torn is not None
    return found


def _last_byte(path: Path, size: int) -> bytes:
    with path.open("rb") as file:
        file.seek(size - 1)
        return file.read(1)
