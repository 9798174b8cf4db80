"""Endpoints: stable TCP addresses in front of servers that come and go, as DNS names are in AWS."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from lab.config import HOST

READER_HOST = "127.0.0.2"  # a cluster has one Port for both endpoints, so they differ by address
CALL_S = 10
BUFFER_BYTES = 2**16
T = TypeVar("T")


class Endpoint:
    """One listening address; methods may be called from any thread and return when they have taken effect."""

    def __init__(self, loop: asyncio.AbstractEventLoop, host: str) -> None:
        self.loop, self.host, self.port = loop, host, 0
        self.target = 0  # port of the server; 0: there is none
        self.refusing = False
        self.serving = asyncio.Event()
        self.serving.set()
        self.clients: set[asyncio.StreamWriter] = set()
        self.listener: asyncio.Server | None = None

    async def listen(self, port: int) -> None:
        self.listener = await asyncio.start_server(self._serve, self.host, port)
        self.port = int(self.listener.sockets[0].getsockname()[1])

    def retarget(self, port: int) -> None:
        """Lead new connections to another server; open ones stay where they are."""
        self._call(self._set(target=port))

    def refuse(self) -> int:
        """Cut every connection and end every new one at once; returns how many were cut."""
        return self._call(self._refuse())

    def pause(self) -> None:
        """Accept new connections, but let them wait until `serve`."""
        self._call(self._pause())

    def serve(self) -> None:
        """Let new connections through."""
        self._call(self._resume())

    def drop(self) -> int:
        """Cut every connection; new ones are let through."""
        return self._call(self._drop())

    def close(self) -> None:
        self._call(self._close())

    def _call(self, what: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(what, self.loop).result(CALL_S)

    async def _set(self, target: int) -> None:
        self.target = target

    async def _pause(self) -> None:
        self.serving.clear()

    async def _resume(self) -> None:
        self.refusing = False
        self.serving.set()

    async def _refuse(self) -> int:
        self.refusing = True
        self.serving.set()
        return await self._drop()

    async def _drop(self) -> int:
        count = len(self.clients)
        for client in self.clients:
            client.transport.abort()
        return count

    async def _close(self) -> None:
        await self._refuse()
        if self.listener is not None:
            self.listener.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.clients.add(writer)
        server: asyncio.StreamWriter | None = None
        try:
            await self.serving.wait()
            if not self.refusing and self.target:
                answers, server = await asyncio.open_connection(HOST, self.target)
                # Nobody may slip through who connected before the cut and reached the server after it.
                if not self.refusing:
                    ways = [asyncio.create_task(_pump(reader, server)), asyncio.create_task(_pump(answers, writer))]
                    await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
                    for way in ways:
                        way.cancel()
        except OSError:
            pass  # the server is down, which is what the client is to see
        finally:
            self.clients.discard(writer)
            for side in (writer, server):
                if side is not None:
                    side.transport.abort() if self.refusing else side.close()


class Endpoints:
    """The loop of all endpoints, in a thread of its own."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, name="endpoints", daemon=True).start()

    def open(self, host: str = HOST, port: int = 0) -> Endpoint:
        """A new endpoint without a target; port 0 takes a free one.

        Raises:
            OSError: the port is taken
        """
        endpoint = Endpoint(self.loop, host)
        asyncio.run_coroutine_threadsafe(endpoint.listen(port), self.loop).result(CALL_S)
        return endpoint


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await source.read(BUFFER_BYTES):
            sink.write(data)
            await sink.drain()
