"""What the operator that calls a switchover and the sensor that watches one have in common: where the memory is kept, and how it ends."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.amazon.aws.utils import validate_execute_complete_event
from airflow.providers.common.compat.sdk import AirflowFailException

from dbops.blue_green import attempt, switchover
from dbops.blue_green.attempt import Keeper
from dbops.blue_green.aws.triggers import BlueGreenSwitchoverTrigger
from dbops.blue_green.switchover import Memory, utc_now

if TYPE_CHECKING:
    from airflow.sdk import Context

# The judge's own deadline ends a switchover; a deferred task waits a little longer, should the triggerer be late.
DEFER_MARGIN = timedelta(minutes=5)


class TaskStateKeeper:
    """Keeps a document in the task state store, which outlives retries and worker crashes of the task instance."""

    def __init__(self, store: Any, key: str) -> None:
        self.store, self.key = store, key

    def load(self) -> dict[str, Any] | None:
        """The document, or None when nothing was saved yet."""
        found = self.store.get(self.key)
        return dict(found) if found else None

    def save(self, document: dict[str, Any]) -> None:
        """Replace the document."""
        self.store.set(self.key, document)


class SwitchoverMixin:
    """For a task that has the attributes below, besides those of every AWS operator."""

    blue_green_deployment_identifier: str
    switchover_timeout: int | str
    store: Keeper | Callable[[Context], Keeper] | None
    fail_on_rollback: bool

    if TYPE_CHECKING:
        aws_conn_id: str | None
        region_name: str | None
        verify: bool | str | None
        botocore_config: dict[str, Any] | None
        log: Any
        defer: Any

    def execute_complete(self, context: Context, event: dict[str, Any] | None = None) -> dict[str, Any]:
        """Keep what the trigger saw; go on waiting, or tell the outcome."""
        seen = attempt.load(validate_execute_complete_event(event)["attempt"])
        self._keeper(context).save(attempt.dump(seen))
        if not seen.memory.is_over:
            self._wait_deferred(seen)
        return self._end(seen.memory)

    def _delay(self) -> float:
        raise NotImplementedError

    def _wait_deferred(self, seen: attempt.Attempt) -> None:
        left = seen.memory.deadline - utc_now()
        self.defer(
            trigger=BlueGreenSwitchoverTrigger(
                attempt=attempt.dump(seen),
                waiter_delay=self._delay(),
                aws_conn_id=self.aws_conn_id,
                region_name=self.region_name,
                verify=self.verify,
                botocore_config=self.botocore_config,
            ),
            method_name="execute_complete",
            timeout=max(left, timedelta(0)) + DEFER_MARGIN,
        )

    def _end(self, memory: Memory) -> dict[str, Any]:
        told = f"Switchover of {self.blue_green_deployment_identifier}: {memory.outcome} ({memory.reason})"
        if memory.outcome == "STUCK" or (memory.outcome == "ROLLED_BACK" and self.fail_on_rollback):
            # A retry would find the same memory, and may not call again.
            raise AirflowFailException(told)
        self.log.info(told)
        plain: dict[str, Any] = json.loads(json.dumps(switchover.dump(memory)))
        return plain

    def _keeper(self, context: Context) -> Keeper:
        if callable(self.store):
            return self.store(context)
        if self.store is not None:
            return self.store
        kept = context.get("task_state_store")
        if kept is None:
            raise AirflowFailException(
                "store: there is no task state store here, so a crash could make the switchover forgotten; pass a store"
            )
        return TaskStateKeeper(kept, f"switchover-{self.blue_green_deployment_identifier}-{self.switchover_timeout}")
