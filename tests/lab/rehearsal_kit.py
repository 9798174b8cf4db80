"""The steps of a rehearsal without Airflow, on the lab; as a command, a process that dies after so many calls that change something.

``python -m tests.lab.rehearsal_kit <folder> <name> <step> <calls>``: exit status -9 when it died, 0 when the step ended before that.
"""

from __future__ import annotations

import os
import signal
import sys
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


if __name__ == "__main__":
    folder, name, step, calls = Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])
    mine = services(folder)
    die_after(mine, calls)
    STEPS[step](mine, name)
