"""Pipelines of commands to a server of the Redis protocol or to all nodes of a cluster, without ever raising for a part of them.

redis-py's own pipeline of a cluster sends 6,000 commands a second where this sends 50,000: it parses each command anew to find its node.
Connections, logins, TLS and the parser of answers are redis-py's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from redis.crc import key_slot
from redis.exceptions import (
    AskError,
    ConnectionError,
    MovedError,
    RedisError,
    ResponseError,
    SlotNotCoveredError,
)

Command = Sequence[bytes | str]
_UNSENT = (ConnectionError, TimeoutError, OSError, RedisError)


@dataclass(frozen=True)
class Node:
    """A server that takes writes."""

    name: str
    """``host:port``."""
    client: Any
    """redis-py's client of this server alone."""


class Wire:
    """The way to the servers. Safe to use from several threads: each pipeline takes a connection of its own."""

    def __init__(self, client: Any) -> None:
        self.client = client
        """Of `dbops.connections.redis`."""
        self.is_cluster = hasattr(client, "nodes_manager")

    def send(self, commands: Sequence[Command], keys: Sequence[bytes]) -> list[Any]:
        """Send commands at once, each on one key; an error stands in the place of its answer.

        An error of the connection says nothing about what the server has done: the command may have been carried out.

        Args:
            commands: name and arguments
            keys: the key of each command, which decides about its node
        """
        answers: list[Any] = [None] * len(commands)
        try:
            groups = self._by_node(keys)
        except RedisError as error:  # a slot that no node has
            self.look_again()
            return [error] * len(commands)
        sent = [
            (client, places, self._write(client, [commands[place] for place in places])) for client, places in groups
        ]
        for client, places, connection in sent:
            is_broken = isinstance(connection, Exception)
            found = [connection] * len(places) if is_broken else self._read(connection, client, len(places))
            for place, answer in zip(places, found, strict=True):
                answers[place] = answer
        if self.is_cluster:
            self._redirect(commands, answers)
        return answers

    def load(self, script: str) -> None:
        """Make a script known to every node.

        Raises:
            redis.exceptions.RedisError: a node does not answer
        """
        for node in self.nodes():
            node.client.script_load(script)

    def nodes(self) -> list[Node]:
        """The servers that take writes, in the order of their names."""
        if not self.is_cluster:
            arguments = self.client.connection_pool.connection_kwargs
            return [Node(f"{arguments.get('host')}:{arguments.get('port')}", self.client)]
        found = sorted(self.client.get_primaries(), key=lambda node: str(node.name))
        return [Node(node.name, self.client.get_redis_connection(node)) for node in found]

    def look_again(self) -> None:
        """Ask which node has which slots, and connect anew; a cluster that does not answer stays as it was known."""
        if not self.is_cluster:
            # A name may stand for another server by now. Connections in use are left to the threads that use them.
            self.client.connection_pool.disconnect(inuse_connections=False)
            return
        try:
            self.client.nodes_manager.initialize()
        except _UNSENT:
            return

    def slots(self) -> list[tuple[int, int, str]]:
        """Ranges of slots and the node that has each, as the servers say now; empty without a cluster.

        Raises:
            redis.exceptions.RedisError: no node answers
        """
        if not self.is_cluster:
            return []
        self.client.nodes_manager.initialize()
        owners = [(slot, nodes[0].name) for slot, nodes in sorted(self.client.nodes_manager.slots_cache.items())]
        return list(_ranges(owners))

    def _by_node(self, keys: Sequence[bytes]) -> list[tuple[Any, list[int]]]:
        if not self.is_cluster:
            return [(self.client, list(range(len(keys))))]
        slots, found = self.client.nodes_manager.slots_cache, dict[str, tuple[Any, list[int]]]()
        for place, key in enumerate(keys):
            if not (owners := slots.get(key_slot(key))):
                raise SlotNotCoveredError("no node has the slot of a key")
            node = owners[0]
            if node.name not in found:
                found[node.name] = (self.client.get_redis_connection(node), [])
            found[node.name][1].append(place)
        return list(found.values())

    def _write(self, client: Any, commands: Sequence[Command]) -> Any:
        """The connection that waits for the answers, or the error."""
        pool, connection = client.connection_pool, None
        try:
            connection = pool.get_connection()
            connection.send_packed_command([packed(commands)])
        except _UNSENT as error:
            if connection is not None:
                connection.disconnect()
                pool.release(connection)
            return error
        return connection

    def _read(self, connection: Any, client: Any, count: int) -> list[Any]:
        found: list[Any] = []
        try:
            while len(found) < count:
                try:
                    found.append(connection.read_response())
                except ResponseError as error:
                    found.append(error)
        except _UNSENT as error:
            connection.disconnect()
            found += [error] * (count - len(found))
        finally:
            client.connection_pool.release(connection)
        return found

    def _redirect(self, commands: Sequence[Command], answers: list[Any]) -> None:
        """Send what another node has to where it is; slots move while a cluster grows."""
        moved = [place for place, answer in enumerate(answers) if isinstance(answer, AskError)]  # MOVED is one too
        if any(isinstance(answers[place], MovedError) for place in moved):
            self.look_again()
        for place in moved:
            try:
                answers[place] = self.client.execute_command(*commands[place])
            except _UNSENT as error:
                answers[place] = error


def packed(commands: Iterable[Command]) -> bytes:
    """Commands in the Redis protocol."""
    made: list[bytes] = []
    for command in commands:
        words = [word if isinstance(word, bytes) else word.encode() for word in command]
        made.append(b"*%d\r\n" % len(words))
        made += [b"$%d\r\n%b\r\n" % (len(word), word) for word in words]
    return b"".join(made)


def _ranges(owners: Iterable[tuple[int, str]]) -> Iterable[tuple[int, int, str]]:
    first, last, owner = -1, -1, ""
    for slot, name in owners:
        if name != owner or slot != last + 1:
            if owner:
                yield first, last, owner
            first, owner = slot, name
        last = slot
    if owner:
        yield first, last, owner
