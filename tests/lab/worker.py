"""A worker process of its own for the steps of an archive, which can be told to die (SIGKILL) at a named point.

It is forked from a warm server, so a worker costs tenths of a second instead of the seconds that importing Airflow takes. The parent
sees nothing but its exit code, as a scheduler would.
"""

from __future__ import annotations

import functools
import importlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    [
        "airflow.providers.amazon.aws.hooks.base_aws", "airflow.providers.mysql.hooks.mysql", "airflow.providers.trino.hooks.trino",
        "airflow.dag_processing.dagbag", "alembic.command", "pyarrow.csv", "pyarrow.parquet", "pyiceberg.catalog.sql", "pyiceberg.table",
        "pytest", "sqlalchemy.dialects.mysql.mysqldb", "tests.lab.warm", "trino.dbapi",
    ]
)  # fmt: skip


@dataclass(frozen=True)
class Kill:
    """SIGKILL before or after the nth call of a function, written ``module:qualified.name``.

    With `inside`, only calls that the same thread makes within that other function count. `settings` are module constants to replace.
    """

    at: str
    when: str
    nth: int = 1
    inside: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    def install(self) -> None:
        for name, value in self.settings.items():
            owner, attribute = _locate(name)
            setattr(owner, attribute, value)
        within = threading.local()
        if self.inside:
            _wrap(self.inside, functools.partial(_marking, within))
        calls, lock = [0], threading.Lock()

        def dying(original: Callable[..., Any]) -> Callable[..., Any]:
            @functools.wraps(original)
            def wrapper(*args: Any, **kwargs: Any) -> Any:
                if self.inside and not getattr(within, "depth", 0):
                    return original(*args, **kwargs)
                with lock:
                    calls[0] += 1
                    mine = calls[0] == self.nth
                if mine and self.when == "before":
                    os.kill(os.getpid(), signal.SIGKILL)
                result = original(*args, **kwargs)
                if mine:
                    os.kill(os.getpid(), signal.SIGKILL)
                return result

            return wrapper

        _wrap(self.at, dying)


def _marking(within: threading.local, original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        within.depth = getattr(within, "depth", 0) + 1
        try:
            return original(*args, **kwargs)
        finally:
            within.depth -= 1

    return wrapper


def _locate(name: str) -> tuple[Any, str]:
    module, _, path = name.partition(":")
    owner: Any = importlib.import_module(module)
    *parents, attribute = path.split(".")
    for parent in parents:
        owner = getattr(owner, parent)
    return owner, attribute


def _wrap(name: str, wrapping: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    owner, attribute = _locate(name)
    setattr(owner, attribute, wrapping(getattr(owner, attribute)))


def start(target: Callable[..., None], *args: Any, kill: Kill | None = None) -> Any:
    """Run ``target(*args)`` in a new process; returns the process."""
    environment = {
        k: v for k, v in os.environ.items() if k.startswith(("AIRFLOW", "LAB_", "DBOPS_")) or k.lower() == "no_proxy"
    }
    process = _CONTEXT.Process(target=_main, args=(environment, kill, target, args))
    process.start()
    return process


def _main(environment: dict[str, str], kill: Kill | None, target: Callable[..., None], args: tuple[Any, ...]) -> None:
    os.environ.update(environment)
    if kill:
        kill.install()
    target(*args)
