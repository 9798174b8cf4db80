"""``python -m bench switchovers``: the downtime that probes measure, against the lab's own log of when writes were really refused.

One instance is switched over again and again, each time to a fresh green side. A seed decides how long each attempt refuses writes,
at which moment between two probes it begins, and how many other clients write meanwhile; every fourth attempt is rolled back.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles
from tempfile import TemporaryDirectory
from typing import Any

import MySQLdb
from botocore.exceptions import ClientError

from bench import measure
from dbops.blue_green import outages, probes, recording
from lab import aws, config
from lab.config import LabError
from lab.rds import plane

NAME, SCHEMA, PROBER, LANE = "bench-switchover", "bench", "prober", "blue_write"
OLD, NEW = "5.7.44", "8.0.40"
PERIOD_MS = 50
PERIODS = 2  # so far may a measured downtime be from the truth
MARGIN_S = 1.0  # probes go on for so long before and after an attempt
WAIT_S = 300
POLL_S = 0.1
ROLL_BACKS = 4  # every fourth attempt does not catch up within its timeout


@dataclass(frozen=True)
class Attempt:
    """One switchover: what really happened, and what the probes make of it. Times in seconds."""

    number: int
    rolled_back: bool
    writers: int
    truth_s: float
    measured_s: float
    error_s: float
    start_off_s: float
    end_off_s: float

    @property
    def off_periods(self) -> float:
        """Measured minus true downtime, in probe periods."""
        return (self.measured_s - self.truth_s) * 1000 / PERIOD_MS

    @property
    def is_inside(self) -> bool:
        """Whether the truth lies within the error that the measurement states itself."""
        return abs(self.measured_s - self.truth_s) <= self.error_s


def bench(count: int, seed: int) -> dict[str, Any]:
    """Switch over so often, print the distribution, and return every attempt.

    Raises:
        LabError: an attempt did not end as it was to, or a measured downtime is off by more than PERIODS probe periods
    """
    print(f"\n== switchovers: {count} of an instance with probes every {PERIOD_MS} ms, seed {seed} ==", flush=True)
    rds, chance = aws.client("rds"), random.Random(seed)
    _remove(rds)
    try:
        _create(rds)
        attempts = [_attempt(rds, number, chance) for number in range(1, count + 1)]
    finally:
        plane.set_faults(plane.folder())
        _remove(rds)
    _print(attempts)
    off = [a.number for a in attempts if abs(a.off_periods) > PERIODS]
    if off:
        raise LabError(
            f"attempts {off} are off by more than {PERIODS} probe periods; is something else using the machine?"
        )
    return {
        "period_ms": PERIOD_MS,
        "seed": seed,
        "attempts": [vars(a) | {"off_periods": a.off_periods} for a in attempts],
    }


def _attempt(rds: Any, number: int, chance: random.Random) -> Attempt:
    rolled_back, writers = number % ROLL_BACKS == 0, chance.choice([0, 1, 4])
    length, offset = chance.uniform(0.1, 2.5), chance.uniform(0, 3 * PERIOD_MS / 1000)
    made = rds.create_blue_green_deployment(
        BlueGreenDeploymentName=NAME, Source=_database(rds)["DBInstanceArn"], TargetEngineVersion=NEW
    )
    deployment = made["BlueGreenDeployment"]["BlueGreenDeploymentIdentifier"]
    _until(lambda: _status(rds, deployment) == "AVAILABLE")
    faults: dict[str, Any] = {"rename_s": length}
    if rolled_back:  # green is held back by more than the whole timeout, of which a second lasts so long
        faults = {"replica_lag_s": 30, "timeout_scale": length / 30}
    with TemporaryDirectory() as folder, _probing(rds, Path(folder) / "probes.jsonl") as path:
        plane.set_faults(plane.folder(), **faults)
        with _writing(rds, writers):
            time.sleep(MARGIN_S + offset)
            rds.switchover_blue_green_deployment(BlueGreenDeploymentIdentifier=deployment, SwitchoverTimeout=30)
            _until(lambda: _status(rds, deployment) != "SWITCHOVER_IN_PROGRESS")
            ended = _status(rds, deployment)
            time.sleep(MARGIN_S)
        probes.stop(path)
        read = recording.read([path])
    plane.set_faults(plane.folder())
    if ended != ("AVAILABLE" if rolled_back else "SWITCHOVER_COMPLETED"):
        raise LabError(f"attempt {number} ended as {ended}")
    _forget(rds, deployment, rolled_back)
    return _judge(number, rolled_back, writers, deployment, read)


def _judge(number: int, rolled_back: bool, writers: int, deployment: str, read: recording.Recording) -> Attempt:
    log = {entry["event"]: entry for entry in plane.read_truth(plane.folder()) if entry["deployment"] == deployment}
    began, ended = log["writes_stopping"]["monotonic_s"], log["writes_allowed"]["monotonic_s"]
    seen = outages.measure(read, LANE, "write")
    worst = max(seen.outages, key=lambda outage: outage.seconds or 0.0, default=None)
    if worst is None or worst.end is None:
        raise LabError(
            f"attempt {number}: the probes saw no outage that ended, although writes were refused for {ended - began:.2f} s"
        )
    return Attempt(
        number, rolled_back, writers, ended - began, seen.longest_s, seen.longest_error_s,
        worst.start / 1e9 - began, worst.end / 1e9 - ended,
    )  # fmt: skip


def _create(rds: Any) -> None:
    rds.create_db_instance(
        DBInstanceIdentifier=NAME, Engine="mysql", EngineVersion=OLD, MasterUsername=config.RDS_USER, DBName=SCHEMA,
        MasterUserPassword=config.MYSQL_PASSWORD, DBInstanceClass="db.r6g.large", AllocatedStorage=20,
    )  # fmt: skip
    _until(lambda: _database(rds)["DBInstanceStatus"] == "available")
    with _connect(rds) as connection:
        probes.create_table(connection, SCHEMA)
        for statement in (
            f"CREATE TABLE {SCHEMA}.load_rows (id BIGINT PRIMARY KEY AUTO_INCREMENT, filler VARCHAR(200))",
            f"CREATE USER {PROBER}@'%' IDENTIFIED BY '{config.MYSQL_PASSWORD}'",
            f"GRANT SELECT, INSERT ON {SCHEMA}.* TO {PROBER}@'%'",
        ):
            connection.query(statement)


@contextmanager
def _probing(rds: Any, path: Path) -> Iterator[Path]:
    address = _database(rds)["Endpoint"]
    endpoint = probes.Endpoint(
        host=address["Address"], port=address["Port"], user=PROBER, password=config.MYSQL_PASSWORD
    )
    lane = probes.Lane(name=LANE, kind="write", endpoint=endpoint)
    run = f"bench-{time.monotonic_ns()}"
    probes.start(
        probes.Settings(run=run, path=path, schema_name=SCHEMA, lanes=(lane,), period_ms=PERIOD_MS, max_seconds=WAIT_S)
    )
    try:
        yield path
    finally:
        probes.stop(path)


@contextmanager
def _writing(rds: Any, count: int) -> Iterator[None]:
    """Other clients, which write as fast as they are served and connect again when they are cut."""
    ended = threading.Event()

    def write() -> None:
        while not ended.wait(0.01):
            with suppress(MySQLdb.Error), _connect(rds, PROBER) as connection:
                while not ended.wait(0.005):
                    connection.query(f"INSERT INTO {SCHEMA}.load_rows (filler) VALUES (REPEAT('x', 200))")

    threads = [threading.Thread(target=write) for _ in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        for thread in threads:
            thread.join()


@contextmanager
def _connect(rds: Any, user: str = config.RDS_USER) -> Iterator[Any]:
    address = _database(rds)["Endpoint"]
    connection = MySQLdb.connect(
        host=address["Address"],
        port=address["Port"],
        user=user,
        password=config.MYSQL_PASSWORD,
        connect_timeout=5,
        autocommit=True,
    )
    try:
        yield connection
    finally:
        connection.close()


def _database(rds: Any) -> Any:
    return rds.describe_db_instances(DBInstanceIdentifier=NAME)["DBInstances"][0]


def _status(rds: Any, deployment: str) -> str:
    found = rds.describe_blue_green_deployments(BlueGreenDeploymentIdentifier=deployment)["BlueGreenDeployments"][0]
    return str(found["Status"])


def _forget(rds: Any, deployment: str, with_target: bool) -> None:
    """Delete a deployment and the side that is not in service."""
    rds.delete_blue_green_deployment(BlueGreenDeploymentIdentifier=deployment, DeleteTarget=with_target)
    if not with_target:
        rds.delete_db_instance(DBInstanceIdentifier=f"{NAME}-old1", SkipFinalSnapshot=True)


def _remove(rds: Any) -> None:
    """Everything of this bench, also what one left that was killed."""
    for each in rds.describe_blue_green_deployments()["BlueGreenDeployments"]:
        if each["BlueGreenDeploymentName"] == NAME:
            _until(
                lambda name=each["BlueGreenDeploymentIdentifier"]: (
                    _status(rds, name) not in ("PROVISIONING", "SWITCHOVER_IN_PROGRESS")
                )
            )
            rds.delete_blue_green_deployment(BlueGreenDeploymentIdentifier=each["BlueGreenDeploymentIdentifier"])
    for each in rds.describe_db_instances()["DBInstances"]:
        if each["DBInstanceIdentifier"].startswith(NAME):
            with suppress(ClientError):
                rds.delete_db_instance(DBInstanceIdentifier=each["DBInstanceIdentifier"], SkipFinalSnapshot=True)


def _until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + WAIT_S
    while not holds():
        if time.monotonic() > end:
            raise LabError(f"the simulated RDS did not come to the expected state within {WAIT_S} s")
        time.sleep(POLL_S)


def _print(attempts: Sequence[Attempt]) -> None:
    print(
        measure.table(
            ["attempt", "ended", "writers", "true s", "measured s", "+- s", "start off ms", "end off ms", "off in periods"],
            [
                [a.number, "rolled back" if a.rolled_back else "switched", a.writers, a.truth_s, a.measured_s, a.error_s,
                 a.start_off_s * 1000, a.end_off_s * 1000, a.off_periods]
                for a in attempts
            ],
        )
    )  # fmt: skip
    off = sorted(a.off_periods for a in attempts)
    cuts = quantiles(off, n=20, method="inclusive") if len(off) > 1 else off * 19
    within = sum(abs(value) <= PERIODS for value in off)
    print(f"\noff, in probe periods of {PERIOD_MS} ms: min {off[0]:.2f}, p5 {cuts[0]:.2f}, median {cuts[9]:.2f}, "
          f"p95 {cuts[18]:.2f}, max {off[-1]:.2f}")  # fmt: skip
    for low in range(-PERIODS, PERIODS):
        share = sum(low <= value < low + 1 for value in off)
        print(f"  {low:>3} to {low + 1:>2}  {'#' * share} {share}")
    print(
        f"within {PERIODS} periods of the truth: {within} of {len(off)}; "
        f"the truth inside the stated error: {sum(a.is_inside for a in attempts)} of {len(off)}"
    )
