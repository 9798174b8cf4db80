"""Waits of the room, in the triggerer: no worker slot is held while AWS works.

An event only says that it is worth looking again; the task looks itself, and decides by what it sees. So a lost or repeated event does
no harm.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

MAX_ERRORS = 10
"""So many failed looks in a row end a wait: the task then fails with the last one, and Airflow tries it again."""


class _DmsTrigger(BaseTrigger):
    """Looks every `poll_s` seconds until there is something to tell, or the deadline has passed.

    :param spec: the spec's document
    :param deadline: ISO time in UTC
    :param poll_s: seconds between two looks
    """

    def __init__(self, *, spec: dict[str, Any], deadline: str, poll_s: float = 15) -> None:
        super().__init__()
        self.spec, self.deadline, self.poll_s = spec, deadline, poll_s

    def fields(self) -> dict[str, Any]:
        """Further arguments."""
        return {}

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Path of the class, and the arguments of which it can be made again."""
        path = f"{type(self).__module__}.{type(self).__qualname__}"
        return path, {"spec": self.spec, "deadline": self.deadline, "poll_s": self.poll_s, **self.fields()}

    async def look(self, spec: Any) -> dict[str, Any] | None:
        """What is to be told, None to look again."""
        raise NotImplementedError

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look until there is something to tell."""
        from dbops import asking
        from dbops.dms.hook import utc_now
        from dbops.dms.spec import DmsSpec

        spec, errors = DmsSpec.model_validate(self.spec), 0
        while True:
            try:
                told = await self.look(spec)
                errors = 0
            except Exception as error:
                if not asking.is_failure(error):
                    raise
                errors += 1
                self.log.warning("Look %d in a row failed: %s", errors, asking.text(error))
                told = {"state": "unknown", "text": asking.text(error)} if errors >= MAX_ERRORS else None
            if told is None and utc_now() > datetime.fromisoformat(self.deadline):
                told = {"state": "late", "text": f"the deadline {self.deadline} has passed"}
            if told is not None:
                yield TriggerEvent(told)
                return
            await asyncio.sleep(self.poll_s)


class DmsStepTrigger(_DmsTrigger):
    """Waits for the effect of a step that was called.

    :param step: document of the step
    :param note: what was kept before it
    """

    def __init__(self, *, step: dict[str, Any], note: dict[str, Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.step, self.note = step, note

    def fields(self) -> dict[str, Any]:
        """Further arguments."""
        return {"step": self.step, "note": self.note}

    async def look(self, spec: Any) -> dict[str, Any] | None:
        """Look at what the step should change."""
        from dbops import asking
        from dbops.dms import carry
        from dbops.dms.hook import async_client

        async with await async_client("dms", spec) as client:
            found = await asking.ask_async(client, carry.progress(spec, carry.step_of(self.step), self.note))
        self.log.info("%s: %s (%s)", self.step["kind"], found.state, found.text)
        return {"state": found.state, "text": found.text} if found.state in ("done", "failed") else None


class DmsTaskTrigger(_DmsTrigger):
    """Waits until a load has ended (``loaded``), or until a draining task has stopped (``drained``).

    :param what: loaded or drained
    """

    def __init__(self, *, what: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.what = what

    def fields(self) -> dict[str, Any]:
        """Further arguments."""
        return {"what": self.what}

    async def look(self, spec: Any) -> dict[str, Any] | None:
        """Look at the task and its tables."""
        from dbops import asking
        from dbops.dms import carry
        from dbops.dms.hook import async_client

        async with await async_client("dms", spec) as client:
            found = await asking.ask_async(client, carry.WAITS[self.what](spec))
        self.log.info("%s: %s (%s)", self.what, found.state, found.text)
        return {"state": found.state, "text": found.text} if found.state in ("done", "failed") else None


class DmsLatencyTrigger(_DmsTrigger):
    """Waits until tables and latencies of a task are known and good; after a start they are not known for minutes."""

    async def look(self, spec: Any) -> dict[str, Any] | None:
        """Look at the task, its tables and CloudWatch."""
        from dbops import asking
        from dbops.dms import account, health, proving, states
        from dbops.dms.hook import async_client, utc_now

        async with await async_client("dms", spec) as client:
            held = await asking.ask_async(client, account.one(spec))
            task = held.task(spec)
            tables = await asking.ask_async(client, states.statistics(task)) if task.arn else None
        async with await async_client("cloudwatch", spec) as client:
            question = health.latencies([task], held.instances, until=utc_now(), minutes=health.window(spec))
            measured = await asking.ask_async(client, question)
        found = proving.preliminary(spec, task, measured.get(task.arn), tables, utc_now())
        self.log.info("%s: %s", found.verdict, "; ".join(found.reasons))
        # No point of a metric makes a table or a task good that is not.
        is_lost = found.verdict == "unhealthy" and (
            task.status != "running" or any(one.is_failed for one in tables or ())
        )
        is_known = found.verdict in ("healthy", "standing") or is_lost
        return {"state": "done", "text": found.verdict} if is_known else None


class DmsCanaryTrigger(_DmsTrigger):
    """Waits until the canary is seen at the target.

    :param token: of the canary
    :param written_at: when it was written, ISO time in UTC
    """

    def __init__(self, *, token: str, written_at: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.token, self.written_at = token, written_at
        self._reader: Any = None

    def fields(self) -> dict[str, Any]:
        """Further arguments."""
        return {"token": self.token, "written_at": self.written_at}

    async def look(self, spec: Any) -> dict[str, Any] | None:
        """Look at the target."""
        from dbops.dms import hook

        since = datetime.fromisoformat(self.written_at)
        self._reader = self._reader or await asyncio.to_thread(hook.canary_reader, spec, since)
        seen = await asyncio.to_thread(self._reader.seen, self.token)
        if seen is None:
            return None
        times = {"written_at": seen.written_at.isoformat(), "seen_at": seen.seen_at.isoformat()}
        return {"state": "done", "text": "seen", "token": seen.token, **times}
