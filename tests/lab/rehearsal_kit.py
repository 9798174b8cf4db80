"""The steps of a rehearsal without Airflow, on the lab, also in a process that dies after so many calls that change something."""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import MySQLdb
import sqlalchemy as sa

from dbops.blue_green import attempts, results, steps, waits
from dbops.blue_green.spec import RehearsalSpec
from dbops.blue_green.steps import Services
from lab import aws, config

RUN = "blue_green_rehearsal/test"
FAILURE = "failure.txt"
STEPS: dict[str, Callable[[Services, str], Any]] = {
    "plan": steps.plan,
    "provision": steps.provision,
    "check": steps.check,
    "fill": lambda services, name: steps.fill(services, name, lambda *_: None),
    "start_probes": steps.start_probes,
    "create_green": steps.create_green,
    "await_green": waits.await_green,
    "green_ready": steps.green_ready,
    "replicate": steps.replicate,
    "compare_sides": steps.compare_sides,
    "gate": lambda services, name: attempts.gate(services, name, 1),
    "call": lambda services, name: attempts.call(services, name, 1),
    "await_switchover": lambda services, name: waits.await_switchover(services, name, 1),
    "examine": lambda services, name: attempts.examine(services, name, 1),
    "conclude_ladder": attempts.conclude_ladder,
    "verify": attempts.verify,
    "watch": steps.watch,
    "measure": lambda services, name: (steps.stop_probes(services, name), results.measure(services, name)),
    "tear_down": waits.tear_down,
}
"""In the order of the DAG."""


def connect(address: tuple[str, int]) -> Any:
    host, port = address
    return MySQLdb.connect(
        host=host, port=port, user=config.RDS_USER, password=config.MYSQL_PASSWORD, autocommit=True, charset="utf8mb4"
    )


def services(folder: Path) -> Services:
    """Services over the running lab; the store is a file of the folder."""
    rds = aws.client("rds")
    return Services(
        rds=rds, once=rds, cloudwatch=aws.client("cloudwatch"), account=config.AWS_ACCOUNT, connect=connect,
        login=(config.RDS_USER, config.MYSQL_PASSWORD), ssl=None, store=sa.create_engine(f"sqlite:///{folder / 'store.db'}"),
        recordings=folder / "recordings", run=RUN, now=lambda: datetime.now(UTC).replace(tzinfo=None), poll_s=0.2, deadline_s=300,
    )  # fmt: skip


def spec(**over: Any) -> RehearsalSpec:
    values = {
        "name": "steps", "description": "a test", "owner": "tests",
        "source": {"kind": "synthetic", "engine_version": "5.7.mysql_aurora.2.11.4"},
        "target": {"engine_version": "8.0.mysql_aurora.3.08.2"},
        "placement": {"region": config.AWS_REGION, "accounts": [config.AWS_ACCOUNT], "instance_class": "db.r6g.large"},
        "data": {"gigabytes": 0.005, "tables": 2, "connections": 5}, "ladder": [180], "max_cost_usd": 50,
        "gate": {"max_transaction_s": 6, "wait_minutes": 2}, "post_run_minutes": 0.01, **over,
    }  # fmt: skip
    return RehearsalSpec.model_validate(values)


def die_after(made: Services, calls: int) -> None:
    """Kill this process with the answer of the so manyeth call that changes something, before anything can be noted."""
    seen = 0

    def count(model: Any, http_response: Any, **_: Any) -> None:
        nonlocal seen
        if not model.name.startswith(("Describe", "List", "Download")) and http_response.status_code == 200:
            seen += 1
            if seen >= calls:
                os.kill(os.getpid(), signal.SIGKILL)

    made.rds.meta.events.register("after-call.rds", count)


def step_in_worker(folder: Path, name: str, step: str, calls: int) -> None:
    """What a worker process runs (`tests.lab.worker`): a step, to its end or to its death."""
    mine = services(folder)
    die_after(mine, calls)
    try:
        STEPS[step](mine, name)
    except BaseException:
        (folder / FAILURE).write_text(traceback.format_exc())
        raise


def failure_in_worker(folder: Path) -> str:
    """How a step failed there."""
    kept = folder / FAILURE
    return kept.read_text() if kept.is_file() else "it has not ended"
