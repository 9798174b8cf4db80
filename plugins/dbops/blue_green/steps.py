"""The steps of a rehearsal up to the first switchover. Each goes on from the journal, and may be repeated at any time.

A step takes :class:`Services` and the rehearsal's name, writes one document to the journal and returns it. Whatever changes something in
AWS asks the rails first, by resource id.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from dbops.blue_green import (
    arms,
    checks,
    compare,
    control,
    cost,
    estimate,
    findings,
    lag,
    load,
    prechecks,
    preflight,
    probes,
    rails,
    readiness,
    recording,
    replication,
    resources,
    statements,
)
from dbops.blue_green import (
    blue as blue_side,
)
from dbops.blue_green.blue import SCHEMA, Maker, Side
from dbops.blue_green.findings import Finding
from dbops.blue_green.journal import Journal
from dbops.blue_green.preflight import Result
from dbops.blue_green.recording import Kind
from dbops.blue_green.spec import RehearsalSpec

RESOLVE_LANE, READER_LANE = "blue_resolve", "blue_reader"
BLUE_LANES: dict[str, Kind] = {"blue_write": "write", "blue_read": "read", RESOLVE_LANE: "resolve"}
GREEN_LANE, REFUSED_LANE = "green_read", "green_refused"
GREEN_LANES: dict[str, Kind] = {GREEN_LANE: "read", REFUSED_LANE: "refused_write"}
WRITTEN = (probes.TABLE, arms.TABLE)
"""Tables of the schema that are written to all the time."""
ARRIVAL_S = 120
"""A change that green does not show by then counts as lost."""
MUCH_SLOWER = 3.0
"""A statement that takes so many times as long on green is a blocker; one that is worse at all, a warning."""


class StepError(RuntimeError):
    """A step cannot go on; repeating it does not help before the cause is gone."""


@dataclass(frozen=True)
class Services:
    """How a rehearsal reaches the world. Times are naive UTC.

    rds, cloudwatch   boto3 clients
    once              a client of RDS that repeats no call by itself
    account           of the AWS connection
    connect           (host, port) -> a connection as blue's master user, autocommit
    login             user and password of that user
    ssl               as mysqlclient takes it, for connections as the probes' user
    store             engine of the store
    recordings        folder for what probes write: a local disk of the machine on which every task of a rehearsal runs
    run               ``dag_id/run_id``
    """

    rds: Any
    once: Any
    cloudwatch: Any
    account: str
    connect: Callable[[tuple[str, int]], Any]
    login: tuple[str, str]
    ssl: dict[str, str] | None
    store: sa.Engine
    recordings: Path
    run: str
    now: Callable[[], datetime]
    sleep: Callable[[float], None] = time.sleep
    poll_s: float = 5.0
    deadline_s: float = 3 * 3600

    def endpoint(self, address: tuple[str, int], name: str) -> probes.Endpoint:
        """An address for the probes' user of a rehearsal."""
        host, port = address
        password = blue_side.probe_password(self.login, name)
        return probes.Endpoint(host=host, port=port, user=blue_side.PROBE_USER, password=password, ssl=self.ssl)

    def master(self, address: tuple[str, int]) -> probes.Endpoint:
        """An address for blue's master user."""
        host, port = address
        return probes.Endpoint(host=host, port=port, user=self.login[0], password=self.login[1], ssl=self.ssl)

    def connect_plainly(self, address: tuple[str, int], name: str) -> Any:
        """A connection as the probes' user, whom read_only holds."""
        return probes.connect(self.endpoint(address, name))

    def journal(self, name: str) -> Journal:
        """The rehearsal's journal."""
        return Journal(self.store, name)

    def waiting(self, what: str) -> Callable[[], None]:
        """A call that waits a little, and raises StepError when it has been called for too long."""
        end = time.monotonic() + self.deadline_s

        def wait() -> None:
            if time.monotonic() > end:
                raise StepError(
                    f"{what}: not done after {self.deadline_s / 3600:g} h; see the RDS events of this rehearsal"
                )
            self.sleep(self.poll_s)

        return wait


def spec_of(journal: Journal) -> RehearsalSpec:
    """The spec as this rehearsal runs it: what the form changed is in it."""
    return RehearsalSpec.model_validate(journal.require("begin")["spec"])


def expires_at(journal: Journal) -> datetime:
    """When the janitor takes it away."""
    return datetime.fromisoformat(journal.require("begin")["expires_at"])


def begin(services: Services, name: str, spec: RehearsalSpec, *, dry_run: bool) -> dict[str, Any]:
    """Enter the rehearsal in the journal. Repeating it keeps the first begin, and so the expiry.

    Raises:
        JournalError: another run has a rehearsal of this name
    """
    journal, at = services.journal(name), services.now()
    entered = journal.begin(spec.name, services.run, at)
    if (found := journal.get("begin")) is not None:
        return found
    document = {
        "spec": spec.model_dump(mode="json"),
        "dry_run": dry_run,
        "expires_at": (entered.began_at + timedelta(hours=spec.max_hours)).isoformat(),
    }
    journal.put("begin", document, at)
    journal.enter("plan", at)
    return document


def plan(services: Services, name: str) -> dict[str, Any]:
    """What it would cost, and whether AWS would take it; nothing is changed.

    Raises:
        RailError: account, budget or an open rehearsal forbids it
    """
    journal = services.journal(name)
    spec, today = spec_of(journal), services.now().date()
    rails.require_placement(services.account, services.rds.meta.region_name, spec.placement)
    control.require_known_overrides(spec.overrides)
    size, version = control.source_facts(services.rds, spec)
    priced = estimate.estimate(spec, cost.load(), today, source_gb=size, blue_version=version)
    rails.require_budget(priced, spec)
    if "provision" not in {phase for _, phase in journal.phases()}:  # else this run has begun to make it
        rails.require_free(services.rds, name)
    found = control.before_spending(services.rds, spec, name=name, login=services.login[0])
    document = {
        "source": {"gigabytes": size, "version": version},
        "estimate": _cost(priced),
        "results": [_result(result) for result in found],
        "findings": findings.documents([*_of_control(found), *_of_prices(priced)]),
    }
    journal.put("plan", document, services.now())
    _require(found, "plan")
    return document


def provision(services: Services, name: str) -> dict[str, Any]:
    """Make blue, and wait until it serves."""
    journal = services.journal(name)
    require_standing(journal)
    spec = spec_of(journal)
    journal.enter("provision", services.now())
    maker = maker_of(services, journal)
    version = blue_side.source_version(services.rds, spec)
    maker.parameter_groups(version)
    maker.create(services.login)
    made = maker.settle()
    maker.let_in(made, services.login, services.connect)
    password = blue_side.probe_password(services.login, name)
    with closing(services.connect(made.address)) as conn:
        blue_side.prepare(conn, password)
    document = {"blue": made.document(), "began_at": services.now().isoformat()}
    journal.put("provision", document, services.now())
    return document


def maker_of(services: Services, journal: Journal) -> Maker:
    """The maker of this rehearsal's resources."""
    spec = spec_of(journal)
    tags = resources.tags(journal.rehearsal, spec.owner, expires_at(journal))
    return Maker(services.rds, spec, journal.rehearsal, tags, services.waiting("blue"), services.now)


def require_standing(journal: Journal) -> None:
    """Refuse to go on with a rehearsal that is being, or has been, removed: its journal is of resources that are gone. Raises StepError."""
    if not spec_of(journal).keep_old and "teardown" in {phase for _, phase in journal.phases()}:
        raise StepError(f"the teardown of {journal.rehearsal} has begun, so it cannot go on; start a new run")


def blue_of(journal: Journal) -> Side:
    """Blue as it was before any switchover. Raises StepError when the teardown has begun to take it away."""
    require_standing(journal)
    return blue_side.side(journal.require("provision")["blue"])


def check(services: Services, name: str) -> dict[str, Any]:
    """Preflight: through the API, and by SQL on blue. Errors that the spec does not override stop the rehearsal."""
    journal = services.journal(name)
    spec, blue = spec_of(journal), blue_of(journal)
    journal.enter("preflight", services.now())
    of_api = control.before_creating(services.rds, spec, blue.identifier, target_group=f"{name}-green")
    with closing(services.connect(blue.address)) as conn:
        found = [*of_api, *preflight.run(conn, overrides=spec.overrides, others=control.IDS)]
    document = {"results": [_result(r) for r in found], "findings": findings.documents(findings.of_preflight(found))}
    journal.put("preflight", document, services.now())
    _require(found, "preflight")
    return document


def fill(services: Services, name: str, on_progress: Callable[[int, int], None]) -> dict[str, Any]:
    """Add the made-up data to blue; `on_progress` gets rows made and rows wanted."""
    journal = services.journal(name)
    spec, blue = spec_of(journal), blue_of(journal)
    journal.enter("fill", services.now())
    filled = load.fill(lambda: services.connect(blue.address), spec.data, SCHEMA, on_progress)
    document = asdict(filled)
    journal.put("fill", document, services.now())
    return document


def recording_paths(services: Services, name: str) -> dict[str, Path]:
    """Files of the two probers."""
    return {side: services.recordings / f"{name}-{side}.jsonl" for side in ("blue", "green")}


def mark(services: Services, name: str, phase: str) -> None:
    """Enter a phase, in the journal and in what the probers record."""
    services.journal(name).enter(phase, services.now())
    for path in recording_paths(services, name).values():
        if path.exists():
            recording.mark(path, phase)


def probe(services: Services, name: str, side: str, target: Side) -> dict[str, Any]:
    """Start the prober of a side, unless it runs already."""
    journal = services.journal(name)
    spec = spec_of(journal)
    path = recording_paths(services, name)[side]
    endpoint = services.endpoint(target.address, name)
    kinds = BLUE_LANES if side == "blue" else GREEN_LANES
    lanes = [probes.Lane(name=lane, kind=kind, endpoint=endpoint) for lane, kind in kinds.items()]
    if side == "blue" and target.reader is not None:
        lanes.append(probes.Lane(name=READER_LANE, kind="read", endpoint=services.endpoint(target.reader, name)))
    if not probes.is_running(path):
        left = (expires_at(journal) - services.now()).total_seconds()
        probes.start(
            probes.Settings(
                run=name,
                path=path,
                schema_name=SCHEMA,
                lanes=tuple(lanes),
                period_ms=spec.probe_period_ms,
                max_seconds=max(60, int(left)),
            )
        )
    document = {"path": str(path), "lanes": {lane.name: lane.kind for lane in lanes}}
    journal.put(f"probes_{side}", document, services.now())
    return document


def start_probes(services: Services, name: str) -> dict[str, Any]:
    """Probe blue from here to the end."""
    document = probe(services, name, "blue", blue_of(services.journal(name)))
    mark(services, name, "probing blue")
    return document


def stop_probes(services: Services, name: str) -> None:
    """End both probers; harmless when none runs."""
    for path in recording_paths(services, name).values():
        if path.exists():
            probes.stop(path)


def create_green(services: Services, name: str) -> dict[str, Any]:
    """Ask AWS for the deployment, or take up the one that is there under this name and of this blue."""
    journal = services.journal(name)
    spec, blue = spec_of(journal), blue_of(journal)
    if (found := journal.get("deployment")) is not None:
        return found
    mark(services, name, "creating green")
    kind = blue_side.kind_of(spec)
    rails.require_ours(services.rds, kind, blue.resource_id, name, services.now())
    answer = services.rds.describe_blue_green_deployments(
        Filters=[{"Name": "blue-green-deployment-name", "Values": [name]}]
    )
    known = [d for d in answer["BlueGreenDeployments"] if d["BlueGreenDeploymentName"] == name]
    if known and known[0]["Source"] != blue.arn:
        raise StepError(
            f"deployment {name} exists for {known[0]['Source']}, not for {blue.arn}; delete it, or rename the spec"
        )
    if known:
        made = known[0]
    else:
        group = "TargetDBClusterParameterGroupName" if kind == "cluster" else "TargetDBParameterGroupName"
        made = services.rds.create_blue_green_deployment(
            BlueGreenDeploymentName=name, Source=blue.arn, TargetEngineVersion=spec.target.engine_version,
            Tags=resources.tags(name, spec.owner, expires_at(journal)), **{group: f"{name}-green"},
        )["BlueGreenDeployment"]  # fmt: skip
    asked = made.get("CreateTime") if known else None  # who asked for it was killed before it could note when
    at = services.now() if asked is None else resources.utc(asked).replace(tzinfo=None)
    document = {"id": made["BlueGreenDeploymentIdentifier"], "asked_at": at.isoformat()}
    journal.put("deployment", document, services.now())
    return document


def adopt(services: Services, name: str) -> None:
    """Tag the green members that AWS has made by now, so that rails and janitor know them."""
    journal = services.journal(name)
    tags = resources.tags(name, spec_of(journal).owner, expires_at(journal))
    rails.adopt(services.rds, journal.require("deployment")["id"], name, tags)


def deployment(services: Services, journal: Journal) -> dict[str, Any]:
    """DescribeBlueGreenDeployments of this rehearsal's deployment. Raises StepError when it is gone."""
    found = services.rds.describe_blue_green_deployments(
        BlueGreenDeploymentIdentifier=journal.require("deployment")["id"]
    )["BlueGreenDeployments"]
    if not found:
        raise StepError("the deployment does not exist any more; somebody deleted it")
    return dict(found[0])


def green_ready(services: Services, name: str) -> dict[str, Any]:
    """Green is available: note where it is, and probe it."""
    journal = services.journal(name)
    spec, blue = spec_of(journal), blue_of(journal)
    adopt(services, name)
    found = deployment(services, journal)
    green = blue_side.of_arn(services.rds, found["Target"], spec.form == "cluster")
    asked = datetime.fromisoformat(journal.require("deployment")["asked_at"])
    probe(services, name, "green", green)
    mark(services, name, "green available")
    with closing(services.connect(green.address)) as conn:
        words = preflight.reserved_words(conn)
    with closing(services.connect(blue.address)) as conn:
        reserved = preflight.run(conn, words=words, overrides=spec.overrides, others=control.IDS)
    late = [result for result in reserved if result.id == "reservedKeywords"]
    aurora, told = _prechecks(services, green, reserved) if spec.form == "cluster" else ([], [])
    kept = journal.get("readiness")
    took = readiness.durations(readiness.load(kept)) if kept else {}
    known = journal.require("preflight")["results"]
    told += [
        replace(each, step="green") for each in findings.of_preflight([r for r in late if _result(r) not in known])
    ]
    if green.engine_version != spec.target.engine_version:
        told.append(Finding("green", "blocker", f"green runs {green.engine_version}, not {spec.target.engine_version}"))
    document = {
        "prechecks": aurora,
        "green": green.document(),
        "tasks": [{"name": t["Name"], "status": t["Status"], "seconds": took.get(t["Name"])} for t in found.get("Tasks") or ()],
        # A task that is repeated hours later has seen nothing of the creation.
        "creation_s": (journal.get("green") or {}).get("creation_s", (services.now() - asked).total_seconds()),
        "results": [_result(result) for result in late],
        "findings": findings.documents(told),
    }  # fmt: skip
    journal.put("green", document, services.now())
    return document


def _prechecks(services: Services, green: Side, ours: Sequence[Result]) -> tuple[list[dict[str, Any]], list[Finding]]:
    """What Aurora's own prechecks saw on green, against our preflight: a surprise there is a hole here."""
    writer = next((member for member in green.members if member.is_writer), green.members[0])
    try:
        log = prechecks.parse(prechecks.download(services.rds, writer.identifier))
    except prechecks.PrechecksError as error:
        return [], [Finding("green", "warning", f"Aurora's prechecks are unknown: {error}")]
    found = prechecks.compare(log, ours)
    surprises = [each for each in found if each.is_surprise]
    told = [
        Finding("green", "blocker", f"Aurora's {e.aurora} is an error, and we had not seen it: {e.note}")
        for e in surprises
    ]
    return [{**asdict(each), "is_surprise": each.is_surprise} for each in found], told


def green_of(journal: Journal) -> Side:
    """Green as it was before any switchover."""
    return blue_side.side(journal.require("green")["green"])


def replicate(services: Services, name: str) -> dict[str, Any]:
    """Changes of blue arrive on green, each in its time; afterwards both sides hold the same, and green refuses to be written to."""
    journal = services.journal(name)
    spec, blue, green = spec_of(journal), blue_of(journal), green_of(journal)
    mark(services, name, "replication tests")
    with closing(services.connect(blue.address)) as on_blue, closing(services.connect(green.address)) as on_green:
        arrivals = replication.run(on_blue, on_green, SCHEMA, ARRIVAL_S)
    same = checks.same_data(
        lambda: services.connect(blue.address), lambda: services.connect(green.address), SCHEMA,
        deadline_s=spec.gate.wait_minutes * 60, exclude=WRITTEN,
    )  # fmt: skip
    with closing(services.connect_plainly(green.address, name)) as conn:
        refused = checks.refuses_writes(conn, SCHEMA, arms.TABLE)
    with closing(services.connect(blue.address)) as conn:
        sums = data_of(conn)
    missing = [a for a in arrivals if a.seconds is None]
    found = [
        Finding("replication", "blocker", f"{a.name} did not arrive on green: {a.error or 'not in time'}")
        for a in missing
    ]
    found += [Finding("replication", "blocker", str(difference)) for difference in same.differences]
    if not refused:
        found.append(Finding("replication", "blocker", "green accepted the write of a plain user"))
    document = {
        "arrivals": [asdict(a) for a in arrivals], "same": asdict(same), "green_refuses_writes": refused, "data": sums,
        "findings": findings.documents(found),
    }  # fmt: skip
    journal.put("replication", document, services.now())
    return document


def data_of(conn: Any) -> dict[str, list[str]]:
    """Table -> rows and checksum of the made-up data, which nobody changes while it is rehearsed. As text: JSON would round them."""
    sums = load.checksums(conn, SCHEMA)
    return {table: [str(each.rows), str(each.crc)] for table, each in sums.items() if table.startswith(load.PREFIX)}


def compare_sides(services: Services, name: str) -> dict[str, Any]:
    """The same SELECTs on both sides: results, errors, warnings, times, plans."""
    journal = services.journal(name)
    spec, blue, green = spec_of(journal), blue_of(journal), green_of(journal)
    mark(services, name, "comparison")
    chosen = statements.choose(spec.compare, services.store)
    with closing(services.connect(blue.address)) as on_blue, closing(services.connect(green.address)) as on_green:
        for conn in (on_blue, on_green):
            with conn.cursor() as cursor:  # as an application would have it
                cursor.execute("SET SESSION sql_mode = @@GLOBAL.sql_mode")
        compared = compare.compare(on_blue, on_green, chosen.statements, spec.compare.repeats, spec.compare.limit_s)
    document = {
        "comparisons": [asdict(c) for c in compared],
        "left_out": [list(pair) for pair in chosen.left_out],
        "findings": findings.documents(_of_comparisons(compared, chosen.left_out)),
    }
    journal.put("compare", document, services.now())
    return document


def break_replication(services: Services, name: str) -> dict[str, Any]:
    """The opt-in arm: changes that are known to break replication to green. No switchover is tried after it."""
    journal = services.journal(name)
    blue, green = blue_of(journal), green_of(journal)
    mark(services, name, "breaking DDL")
    with closing(services.connect(blue.address)) as on_blue, closing(services.connect(green.address)) as on_green:
        tried = replication.breaking(on_blue, on_green, SCHEMA, ARRIVAL_S)
    document = {
        "tried": [asdict(each) for each in tried],
        "findings": findings.documents([
            Finding("ladder", "blocker", "this rehearsal broke replication on purpose (breaking_ddl): no switchover was shown")
        ]),
    }  # fmt: skip
    journal.put("breaking", document, services.now())
    return document


def watch(services: Services, name: str) -> dict[str, Any]:
    """Look at the new version under the probes' load for as long as the spec says: errors, and latency against before."""
    journal = services.journal(name)
    spec = spec_of(journal)
    mark(services, name, "post-run")
    began = time.monotonic_ns()
    services.sleep(spec.post_run_minutes * 60)  # the time itself is what is measured
    path = recording_paths(services, name)["blue"]
    seen = recording.read([path])
    before = [
        a
        for a in seen.lanes["blue_write"]
        if seen.phase_at(a.sent) in ("probing blue", "comparison", "green available")
    ]
    after = [a for a in seen.lanes["blue_write"] if a.sent >= began]
    old, new = _median([a.done - a.sent for a in before if a.ok]), _median([a.done - a.sent for a in after if a.ok])
    failed = sum(not a.ok for a in after)
    found = []
    if after and failed == len(after):
        found.append(Finding("watch", "blocker", f"none of {failed} writes was taken after the switchover"))
    elif failed:
        found.append(Finding("watch", "warning", f"{failed} of {len(after)} writes failed after the switchover"))
    if not after and spec.post_run_minutes:
        found.append(
            Finding("watch", "blocker", "no probe wrote after the switchover, so nothing is known of the new version")
        )
    document = {
        "minutes": spec.post_run_minutes, "writes": len(after), "failed": failed,
        "latency_before_ms": old and old / 1e6, "latency_after_ms": new and new / 1e6,
        "findings": findings.documents(found),
    }  # fmt: skip
    journal.put("watch", document, services.now())
    return document


def lag_now(services: Services, name: str) -> float | None:
    """Seconds that green is behind by heartbeat; None when unknown."""
    journal = services.journal(name)
    blue, green = blue_of(journal), green_of(journal)
    with closing(services.connect(blue.address)) as on_blue, closing(services.connect(green.address)) as on_green:
        return lag.now(on_blue, on_green, SCHEMA, name)


def _require(results: Sequence[Result], step: str) -> None:
    stopping = [result for result in results if result.stops]
    if stopping:
        lines = [
            f"{r.id} is {r.verdict}: {', '.join(' '.join(o) for o in r.objects[:5]) or r.note}; {r.fix}"
            for r in stopping
        ]
        raise StepError(f"{step}: {len(stopping)} checks stop it:\n" + "\n".join(lines))


def _result(result: Result) -> dict[str, Any]:
    """The result as JSON gives it back."""
    return {**asdict(result), "objects": [list(each) for each in result.objects]}


def _cost(priced: cost.Cost) -> dict[str, Any]:
    return {**asdict(priced), "items": [list(each) for each in priced.items], "warnings": list(priced.warnings)}


def _of_control(results: Sequence[Result]) -> list[Finding]:
    return [replace(finding, step="plan") for finding in findings.of_preflight(results)]


def _of_prices(priced: cost.Cost) -> list[Finding]:
    return [Finding("plan", "warning", text) for text in priced.warnings]


def _of_comparisons(compared: Sequence[Any], left_out: Sequence[tuple[str, str]]) -> list[Finding]:
    found = []
    for each in compared:
        if each.verdict in ("broken", "different"):
            why = each.error_green or each.note or "other rows"
            found.append(Finding("compare", "blocker", f"{each.name} is {each.verdict} on green: {why}"))
        elif each.verdict == "worse" and each.time_ratio is None:  # stopped at the limit, so there is no time
            found.append(Finding("compare", "blocker", f"{each.name} is worse on green: {each.note}"))
        elif each.verdict == "worse":
            weight = "blocker" if each.time_ratio >= MUCH_SLOWER else "warning"
            found.append(Finding("compare", weight, f"{each.name} takes {each.time_ratio:.2f} times as long on green"))  # type: ignore[arg-type]
        elif each.verdict == "not compared":
            found.append(Finding("compare", "warning", f"{each.name} was not compared: {each.note}"))
        elif each.verdict == "order only":
            found.append(Finding("compare", "warning", f"{each.name} gives its rows in another order"))
    if not compared:
        found.append(
            Finding("compare", "warning", "no statement was compared; name queries or an inventory in the spec")
        )
    if left_out:
        found.append(Finding("compare", "warning", f"{len(left_out)} statements could not be compared; see the table"))
    return found


def _median(values: Sequence[int]) -> float | None:
    ordered = sorted(values)
    return float(ordered[len(ordered) // 2]) if ordered else None
