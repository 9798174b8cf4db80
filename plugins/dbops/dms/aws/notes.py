"""What a task has to find again after a crash: noted before a call whose second time could do harm."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow.sdk import Context

log = logging.getLogger(__name__)


class Notes:
    """A document in the task state store, which outlives retries and worker crashes of a task instance. Without a store it is forgotten."""

    def __init__(self, context: Context, key: str) -> None:
        self.store: Any = context.get("task_state_store")
        self.key = key

    def load(self) -> dict[str, Any]:
        """The document; empty when nothing is noted."""
        found = self.store.get(self.key) if self.store is not None else None
        return dict(found) if found else {}

    def save(self, document: dict[str, Any]) -> None:
        """Replace the document."""
        if self.store is None:
            log.warning("There is no task state store here; a retry after a crash judges by what AWS shows alone")
            return
        self.store.set(self.key, document)

    def clear(self) -> None:
        """What was noted is over."""
        if self.store is not None and self.load():
            self.store.set(self.key, {})
