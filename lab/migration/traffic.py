"""Applications that never stop: reads, inserts, updates, deletes, rows that come back; some lose a dual write, some write theirs late.

What they lose and delay they do in a fixed order, not by luck: a *lost* write ends after MySQL's commit, as a process does that is killed
there; a *crossing* one holds its write back until a newer one of the same row is in the store.
"""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from dbops.keyvalue import views
from dbops.keyvalue.codec import Policy
from dbops.keyvalue.items import Item, canonical
from dbops.keyvalue.repository import Counters, Repository
from dbops.keyvalue.rules import Change, Condition, Outcome, Version, Write
from dbops.keyvalue.stores import Store
from dbops.keyvalue.views import Loaded, View
from dbops.mysql import read_table
from dbops.sql import ident
from lab import mysql
from lab.migration.scene import DRAW, VERSION, Key, Row, Subject, connect

PAUSE_S = 0.02
"""Of a worker between two operations: what is being tested shares the machine with it."""
KEY_PICKS = 20
MOVED = 10**6
Phase = Literal["mysql first", "store first", "reads only"]


def make_view(schema: str, subject: Subject, keys: Mapping[str, str], server: str = "mysql57") -> View:
    """The view of an application; the version is no column of it."""
    with closing(mysql.root_connection(server)) as connection:
        table = read_table(connection, schema, subject.name)
    assert table is not None, f"{schema}.{subject.name}"
    columns = [column for column in table.columns if column.name != VERSION]
    return views.view(columns, keys, policy=Policy(empty_set="null"))


class Pool:
    """Keys, of which any one is found at once."""

    def __init__(self) -> None:
        self.keys: list[Key] = []
        self.places: dict[Key, int] = {}

    def add(self, key: Key) -> None:
        self.places[key] = len(self.keys)
        self.keys.append(key)

    def remove(self, key: Key) -> None:
        place, last = self.places.pop(key), self.keys.pop()
        if last != key:
            self.keys[place], self.places[last] = last, place

    def pick(self, one: random.Random, mine: Callable[[Key], bool]) -> Key | None:
        for _ in range(KEY_PICKS if self.keys else 0):
            if mine(key := one.choice(self.keys)):
                return key
        return None


class Keys:
    """Which rows there are. A key that one worker's transaction uses is in no pool, so that no other takes it meanwhile."""

    def __init__(self, subject: Subject, rows: int) -> None:
        self.subject, self.made, self.moved = subject, rows, 0
        self.alive, self.gone = Pool(), Pool()
        for number in range(rows):
            self.alive.add(subject.key(number))
        self._lock = threading.Lock()

    def new(self) -> Key:
        with self._lock:
            self.made += 1
            return self.subject.key(self.made - 1)

    def unused(self) -> int:
        """A number that no key begins with."""
        with self._lock:
            self.moved += 1
            return MOVED + self.moved

    def take(self, pool: Pool, one: random.Random, mine: Callable[[Key], bool] = lambda key: True) -> Key | None:
        with self._lock:
            if (key := pool.pick(one, mine)) is not None:
                pool.remove(key)
            return key

    def look(self, one: random.Random, mine: Callable[[Key], bool] = lambda key: True) -> Key | None:
        """Some key that is there or has been."""
        with self._lock:
            return (self.gone if one.random() < 0.2 else self.alive).pick(one, mine)

    def reserve(self, key: Key) -> bool:
        """Take a row away from the traffic for good; False when it is not there, or in use."""
        with self._lock:
            if key not in self.alive.places:
                return False
            self.alive.remove(key)
            return True

    def give(self, pool: Pool, key: Key) -> None:
        with self._lock:
            pool.add(key)


@dataclass
class Interrupted:
    """A store before whose next write something else happens."""

    store: Store
    meanwhile: Callable[[], object]
    is_done: bool = False

    def get(self, key: Item) -> Item | None:
        return self.store.get(key)

    def change(self, asked: Change) -> Outcome:
        return self.store.change(asked)

    def put(self, write: Write, condition: Condition = Condition.NEWER, seen: Version | None = None) -> Outcome:
        if not self.is_done:
            self.is_done = True
            self.meanwhile()
        return self.store.put(write, condition, seen)


@dataclass(frozen=True)
class Lost:
    """A dual write that never came: MySQL has it."""

    subject: str
    key: Key
    version: int


@dataclass
class Record:
    """What the traffic knows that nobody else does; shared by its workers."""

    counts: Counter[str] = field(default_factory=Counter)
    lost: list[Lost] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    """Answers of the store that cannot be: the truth was known."""
    committed: dict[str, dict[tuple[Key, int], Row]] = field(default_factory=dict)
    """Every state that MySQL has had since the start, by key and version."""
    truth: dict[str, dict[Key, Row | None]] = field(default_factory=dict)
    """Store first: rows as they were acknowledged, None for deleted ones; each row has one worker then."""
    failure: BaseException | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def add(self, name: str) -> None:
        with self._lock:
            self.counts[name] += 1


@dataclass
class Application:
    """One table as one application has it: its rows in MySQL, and a repository."""

    schema: str
    subject: Subject
    view: View
    store: Store
    keys: Keys
    counters: Counters = field(default_factory=Counters)
    falls_back: bool = True
    server: str = "mysql57"

    def repository(self, load: Callable[[Any], Loaded | None]) -> Repository:
        return Repository(self.view, self.store, load, self.falls_back, self.counters)


class Session:
    """A worker's connection to MySQL, and what it does there."""

    def __init__(self, application: Application, record: Record | None = None) -> None:
        self.application, self.subject = application, application.subject
        self.committed = record.committed[self.subject.name] if record else {}
        self.connection = connect(application.schema, application.server)
        expressions = [codec.select_sql for codec in application.view.codecs]
        where = " AND ".join(f"{ident(name)} = %s" for name in self.subject.key_columns)
        self._where = where
        self._select = (
            f"SELECT {', '.join(expressions)}, {ident(VERSION)} FROM {ident(self.subject.name)} WHERE {where}"
        )

    def load(self, row: Mapping[str, Any]) -> Loaded | None:
        """A row as MySQL has it."""
        try:
            return self._load(tuple(row[name] for name in self.subject.key_columns))
        finally:
            self.connection.commit()  # the next look sees what was committed meanwhile

    def write(self, kind: str, key: Key, values: Row) -> Loaded:
        """Insert or update a row in a transaction; what is there then, with its version."""
        with self.connection.cursor() as cursor:
            version = self._draw(cursor)
            if kind == "insert":
                row = dict(zip(self.subject.key_columns, key, strict=True)) | values | {VERSION: version}
                names = ", ".join(map(ident, row))
                statement = f"INSERT INTO {ident(self.subject.name)} ({names}) VALUES ({', '.join(['%s'] * len(row))})"
                done = cursor.execute(statement, list(row.values()))
            else:
                sets = ", ".join(f"{ident(name)} = %s" for name in (*values, VERSION))
                statement = f"UPDATE {ident(self.subject.name)} SET {sets} WHERE {self._where}"
                done = cursor.execute(statement, [*values.values(), version, *key])
            assert done == 1, (kind, key, done)
        return self._commit(key)

    def move(self, key: Key, to: Key) -> tuple[Row, Loaded]:
        """Give a row another key: the old key's columns, and the row under the new one."""
        with self.connection.cursor() as cursor:
            version = self._draw(cursor)
            sets = ", ".join(f"{ident(name)} = %s" for name in (*self.subject.key_columns, VERSION))
            statement = f"UPDATE {ident(self.subject.name)} SET {sets} WHERE {self._where}"
            done = cursor.execute(statement, [*to, version, *key])
            assert done == 1, (key, to)
        return dict(zip(self.subject.key_columns, key, strict=True)), self._commit(to)

    def roll_back(self, key: Key, values: Row) -> None:
        """Change a row and think better of it: nobody may ever see that."""
        with self.connection.cursor() as cursor:
            self._draw(cursor)
            sets = ", ".join(f"{ident(name)} = %s" for name in values)
            cursor.execute(
                f"UPDATE {ident(self.subject.name)} SET {sets} WHERE {self._where}", [*values.values(), *key]
            )
        self.connection.rollback()

    def _commit(self, key: Key) -> Loaded:
        found = self._load(key)
        assert found is not None, key
        assert isinstance(found.version, int)
        self.committed[key, found.version] = dict(found.row)  # before anybody can see it
        self.connection.commit()
        return found

    def delete(self, key: Key) -> tuple[Row, object]:
        """Delete a row; its key and its last version, which the tombstone takes."""
        with self.connection.cursor() as cursor:
            self._draw(cursor)
            found = self._load(key)
            done = cursor.execute(f"DELETE FROM {ident(self.subject.name)} WHERE {self._where}", key)
            assert found is not None, key
            assert done == 1, key
        self.connection.commit()
        return dict(zip(self.subject.key_columns, key, strict=True)), found.version

    def _draw(self, cursor: Any) -> int:
        cursor.execute(DRAW.format(s=ident(self.application.schema)))
        return int(self.connection.insert_id())

    def _load(self, key: Key) -> Loaded | None:
        with self.connection.cursor() as cursor:
            cursor.execute(self._select, key)
            found = cursor.fetchone()
        if found is None:
            return None
        *values, version = found
        return Loaded(dict(zip(self.application.view.by_name, values, strict=True)), version)


class Traffic:
    """Workers, each in a thread with connections of its own, over all applications.

    Args:
        applications: what they use
        seed: of what they choose
        workers: how many
        lose: part of the writes that never reach the store
        cross: part of the writes that reach it after a newer one
    """

    def __init__(
        self, applications: list[Application], seed: int, workers: int = 3, lose: float = 0.05, cross: float = 0.05
    ) -> None:
        self.applications, self.workers, self.lose, self.cross = applications, workers, lose, cross
        self.phase: Phase = "mysql first"
        names = [each.subject.name for each in applications]
        self.record = Record(committed={name: {} for name in names}, truth={name: {} for name in names})
        self._ended, self._resumed = threading.Event(), threading.Event()
        self._resumed.set()
        self._idle = threading.Semaphore(0)
        self._threads = [
            threading.Thread(target=self._run, args=(number, random.Random(seed * 1000 + number)), daemon=True)
            for number in range(workers)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def pause(self) -> None:
        """Return when no operation is under way, and none begins."""
        self._resumed.clear()
        for _ in self._threads:
            self._idle.acquire()
        self.check()

    def resume(self) -> None:
        self._resumed.set()

    def stop(self) -> None:
        """End the workers.

        Raises:
            BaseException: what one of them raised
        """
        self._ended.set()
        self._resumed.set()
        for thread in self._threads:
            thread.join()
        self.check()

    def check(self) -> None:
        """Raise what a worker raised."""
        if self.record.failure is not None:
            raise self.record.failure

    def operations(self) -> int:
        """Since the start."""
        return sum(self.record.counts.values())

    def _run(self, number: int, one: random.Random) -> None:
        sessions: list[Session] = []
        try:
            sessions = [Session(each, self.record) for each in self.applications]
            while not self._ended.wait(PAUSE_S):
                if not self._resumed.is_set():
                    self._idle.release()
                    self._resumed.wait()
                    continue
                worker = Worker(one.choice(sessions), self, number, one)
                worker.step()
        except BaseException as error:
            self.record.failure = self.record.failure or error
            self._idle.release(10**6)
        finally:
            for session in sessions:
                session.connection.close()


@dataclass(frozen=True)
class Worker:
    """One operation of one worker."""

    session: Session
    traffic: Traffic
    number: int
    one: random.Random

    def step(self) -> None:
        if self.traffic.phase == "mysql first":
            self._mysql_first()
        elif self.traffic.phase == "store first":
            self._store_first()
        else:
            self._read()

    @property
    def _application(self) -> Application:
        return self.session.application

    @property
    def _repository(self) -> Repository:
        return self._application.repository(self.session.load)

    def _row(self, key: Key) -> Row:
        return dict(zip(self.session.subject.key_columns, key, strict=True))

    def _values(self) -> Row:
        return self.session.subject.values(self.one)

    def _some_values(self) -> Row:
        values = self._values()
        return {name: values[name] for name in self.one.sample(sorted(values), self.one.randint(1, 3))}

    def _count(self, name: str) -> None:
        self.traffic.record.add(name)

    # MySQL first

    def _mysql_first(self) -> None:
        choice, keys = self.one.random(), self._application.keys
        if choice < 0.4:
            self._read()
        elif choice < 0.5:
            self._insert(keys.new())
        elif choice < 0.57 and (key := keys.take(keys.gone, self.one)) is not None:
            self._insert(key)
        elif (key := keys.take(keys.alive, self.one)) is not None:
            if choice < 0.67:
                self._delete(key)
            elif choice < 0.72 and len(key) > 1:
                self._move(key)
            elif choice < 0.74:
                self._roll_back(key)
            elif choice < 0.8:
                self._read_late(key)
            else:
                self._update(key)

    def _read(self) -> None:
        if (key := self._application.keys.look(self.one)) is not None:
            found = self._repository.look(self._row(key))
            self._count(f"read_{found.how}")

    def _read_late(self, key: Key) -> None:
        """A read that misses and brings the row to the store: between its reading MySQL and its writing, the row changes or goes."""
        keys, plain = self._application.keys, self._repository
        deletes = self.one.random() < 0.5

        def meanwhile() -> None:
            if deletes:
                plain.remove(lambda: self.session.delete(key))
            else:
                plain.save(lambda: self.session.write("update", key, self._some_values()))

        store = Interrupted(self._application.store, meanwhile)
        found = replace(plain, store=store).look(self._row(key))
        self._count(f"read_{found.how}")
        if store.is_done:
            self._count("delete" if deletes else "update")
            self._count("late_read")
            if found.written is None or found.written.is_written:
                self._is_wrong(key, "a late write of a read was taken")
        keys.give(keys.gone if store.is_done and deletes else keys.alive, key)

    def _move(self, key: Key) -> None:
        keys = self._application.keys
        to = (keys.unused(), *key[1:])
        old, loaded = self.session.move(key, to)
        self._count("move")
        if not self._loses(to, loaded.version):
            self._repository.remove(lambda: (old, loaded.version))
            self._repository.save(lambda: loaded)
        keys.give(keys.gone, key)
        keys.give(keys.alive, to)

    def _roll_back(self, key: Key) -> None:
        self.session.roll_back(key, self._some_values())
        self._count("roll_back")
        self._application.keys.give(self._application.keys.alive, key)

    def _is_wrong(self, key: Key, text: str) -> None:
        self.traffic.record.wrong.append(f"{self.session.subject.name} {key}: {text}")

    def _insert(self, key: Key) -> None:
        loaded = self.session.write("insert", key, self._values())
        self._count("insert")
        if not self._loses(key, loaded.version):
            self._repository.save(lambda: loaded)
        self._application.keys.give(self._application.keys.alive, key)  # nobody knows it before the answer

    def _update(self, key: Key) -> None:
        loaded = self.session.write("update", key, self._some_values())
        self._count("update")
        if self.one.random() < self.traffic.cross:
            self._cross(key, loaded)
            return
        self._application.keys.give(self._application.keys.alive, key)
        if not self._loses(key, loaded.version):
            self._repository.save(lambda: loaded)

    def _cross(self, key: Key, late: Loaded) -> None:
        """This write reaches the store after a newer one of its row."""
        keys = self._application.keys
        if self.one.random() < 0.5:
            newer = self.session.write("update", key, self._some_values())
            keys.give(keys.alive, key)
            self._repository.save(lambda: newer)
        else:
            gone = self.session.delete(key)
            keys.give(keys.gone, key)
            self._repository.remove(lambda: gone)
        outcome = self._repository.save(lambda: late)
        self._count("crossing")
        if outcome.is_written:
            self._is_wrong(key, "a late dual write was taken")

    def _delete(self, key: Key) -> None:
        gone = self.session.delete(key)
        self._application.keys.give(self._application.keys.gone, key)
        self._count("delete")
        if not self._loses(key, gone[1]):
            self._repository.remove(lambda: gone)

    def _loses(self, key: Key, version: object) -> bool:
        if self.one.random() >= self.traffic.lose:
            return False
        assert isinstance(version, int)
        self.traffic.record.lost.append(Lost(self.session.subject.name, key, version))
        self._count("lost")
        return True

    # store first

    def _mine(self, key: Key) -> bool:
        """Each row has one worker, so that what it has to be is known."""
        return hash(key) % self.traffic.workers == self.number

    def _store_first(self) -> None:
        choice, keys = self.one.random(), self._application.keys
        if choice < 0.4:
            self._check()
        elif choice < 0.5:
            self._create(keys.new())
        elif choice < 0.57 and (key := keys.take(keys.gone, self.one, self._mine)) is not None:
            self._create(key)
        elif choice < 0.67 and (key := keys.take(keys.alive, self.one, self._mine)) is not None:
            self._acknowledged(self._repository.delete(self._row(key)).reason, "delete", key)
            self._truth[key] = None
            keys.give(keys.gone, key)
        elif (key := keys.take(keys.alive, self.one, self._mine)) is not None:
            self._change(key)

    @property
    def _truth(self) -> dict[Key, Row | None]:
        return self.traffic.record.truth[self.session.subject.name]

    def _acknowledged(self, reason: str | None, what: str, key: Key) -> None:
        self._count(f"store_{what}")
        if reason is not None:
            self._is_wrong(key, f"{what} was refused: {reason}")

    def _create(self, key: Key) -> None:
        row = self._row(key) | self._as_mysql(self._values())
        self._acknowledged(self._repository.create(row).reason, "create", key)
        self._truth[key] = row
        self._application.keys.give(self._application.keys.alive, key)

    def _change(self, key: Key) -> None:
        before = self._known(key)
        values = self._as_mysql(self._some_values())
        self._acknowledged(self._repository.update(self._row(key), values).reason, "update", key)
        self._truth[key] = before | values
        self._application.keys.give(self._application.keys.alive, key)

    def _known(self, key: Key) -> Row:
        """The row as it has to be: as it was acknowledged, or as MySQL froze it."""
        if (known := self._truth.get(key)) is not None:
            return dict(known)
        loaded = self.session.load(self._row(key))
        assert loaded is not None, key
        return dict(loaded.row)

    def _check(self) -> None:
        """A read whose answer is known."""
        keys = self._application.keys
        if (key := keys.take(keys.alive, self.one, self._mine)) is None:
            return
        expected, found = self._known(key), self._repository.look(self._row(key))
        keys.give(keys.alive, key)
        self._count("store_read")
        view = self._application.view
        if found.row is None or canonical(view.item(found.row)) != canonical(view.item(expected)):
            self._is_wrong(key, f"read as {found.how}, not as it is")

    def _as_mysql(self, values: Row) -> Row:
        """Values in the types in which the driver gives them."""
        made = dict(values)
        if "shared" in made:
            made["shared"] = bytes([made["shared"]])
        return made
