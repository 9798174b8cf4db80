"""What is waited for in DMS, as frozen values: a look gives the next value, and its outcome is open, good or bad with reasons.

A wait holds what it needs and what it remembers, and goes through JSON (:func:`dump`, :func:`load`), so a sensor's poke, an operator's
loop and a trigger drive the same judgement. Fail-closed: what is unknown is never good. A call that fails for a while ends no wait, one
that is refused does.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from dbops.dms.waits.base import Outcome, Seen, TaskWait, Wait, is_serverless, iso, passes, seeing
from dbops.dms.waits.checks import Assessed, Connected, assessment_runs
from dbops.dms.waits.latency import CdcHealthy
from dbops.dms.waits.tables import Loaded, Reloaded, Reloading, Validated
from dbops.dms.waits.task import Ended, Gone, Standing, Started, Stopped

__all__ = [
    "Assessed", "CdcHealthy", "Connected", "Ended", "Gone", "Loaded", "Outcome", "Reloaded", "Reloading", "Seen", "Standing", "Started",
    "Stopped", "TaskWait", "Validated", "Wait", "assessment_runs", "dump", "is_serverless", "iso", "load", "passes", "seeing",
]  # fmt: skip

_KINDS: dict[str, type[Wait]] = {
    kind.__name__: kind
    for kind in (Assessed, CdcHealthy, Connected, Ended, Gone, Loaded, Reloaded, Standing, Started, Stopped, Validated)
}


def dump(wait: Wait) -> dict[str, Any]:
    """The wait as JSON values."""
    plain: dict[str, Any] = json.loads(json.dumps(asdict(wait)))
    return {"kind": type(wait).__name__, **plain}


def load(document: Mapping[str, Any]) -> Any:
    """The wait that :func:`dump` gave. Raises ValueError for a kind that there is not."""
    kind = _KINDS.get(str(document.get("kind")))
    if kind is None:
        raise ValueError(f"wait {document.get('kind')!r} is not one of {', '.join(sorted(_KINDS))}")
    given = {name: value for name, value in document.items() if name != "kind"}
    known = {one.name for one in fields(kind)}
    if other := sorted(set(given) - known):
        raise ValueError(f"a wait of kind {kind.__name__} has no {', '.join(other)}")
    return kind(**{name: value if name == "told" else _frozen(value) for name, value in given.items()})


def _frozen(value: Any) -> Any:
    return tuple(_frozen(one) for one in value) if isinstance(value, list) else value
