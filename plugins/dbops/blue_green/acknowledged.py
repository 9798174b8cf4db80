"""Whether every write that was acknowledged to a probe is there afterwards, once.

An attempt that failed on the client's side may have been committed all the same (the answer was lost): such a write may be there or not,
and is counted apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dbops import sql
from dbops.blue_green.probes import TABLE
from dbops.blue_green.recording import Recording


@dataclass(frozen=True)
class AcknowledgedCheck:
    """Numbers (``seq``) of the writes of one run: what was promised against what is there."""

    acknowledged: int
    lost: tuple[int, ...]
    """Acknowledged and not there."""
    duplicated: tuple[int, ...]
    """There more than once."""
    unknown_committed: int
    """Not acknowledged (failed, or the prober was killed before it wrote the acknowledgement down), yet there."""
    last_acknowledged: int | None
    last_present: int | None

    @property
    def sound(self) -> bool:
        """Nothing lost, nothing twice, and there was something to lose."""
        return self.acknowledged > 0 and not self.lost and not self.duplicated


def check(conn: Any, recording: Recording, schema: str) -> AcknowledgedCheck:
    """Compare the recording's writes with the probe's table as `conn` (the new production) has it. Run it when no prober writes any more.

    Raises MySQLdb.Error when the table cannot be read: then nothing is known.
    """
    promised = {a.seq for lane in recording.of_kind("write") for a in recording.lanes.get(lane, ()) if a.ok}
    with conn.cursor() as cursor:
        cursor.execute(sql.render("blue_green/probe_writes", table=(schema, TABLE)), {"run": recording.run})
        present = {int(seq): int(copies) for seq, copies in cursor.fetchall()}
    return AcknowledgedCheck(
        acknowledged=len(promised),
        lost=tuple(sorted(promised - present.keys())),
        duplicated=tuple(seq for seq, copies in present.items() if copies > 1),
        unknown_committed=len(present.keys() - promised),
        last_acknowledged=max(promised, default=None),
        last_present=max(present, default=None),
    )
