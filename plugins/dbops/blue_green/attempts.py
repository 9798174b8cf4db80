"""The ladder of switchovers: a gate before each attempt, the attempt itself, and what it shows; then the proof of what it left."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from dbops import mysql
from dbops.blue_green import (
    acknowledged,
    arms,
    attempt,
    checks,
    companion,
    findings,
    holders,
    ladder,
    lag,
    metrics,
    outages,
    probes,
    rails,
    recording,
    switchover,
    witness,
)
from dbops.blue_green import blue as blue_side
from dbops.blue_green.blue import SCHEMA, Side
from dbops.blue_green.findings import Finding
from dbops.blue_green.journal import Journal
from dbops.blue_green.recording import Recording
from dbops.blue_green.steps import (
    GREEN_LANE,
    Services,
    StepError,
    blue_of,
    data_of,
    green_of,
    lag_now,
    mark,
    probe,
    recording_paths,
    spec_of,
)

GRACE_S = 900
"""So long after its timeout a switchover whose end is not certain counts as stuck."""
LAG_BEFORE = 60 * recording.SECOND
REFUSED = "REFUSED"
"""Outcome of an attempt that AWS did not begin; no timeout was tried by it."""
FAULT_SPARE_S = 60
"""A fault outlives the timeout, and what the gate tolerates, by so much, and then ends by itself."""


class Kept:
    """The memory of one attempt in the journal: what the pure judge needs to go on after a crash."""

    def __init__(self, journal: Journal, number: int, now: datetime) -> None:
        self.journal, self.step, self.now = journal, f"memory_{number}", now
        self.end = f"over_{number}"

    def load(self) -> dict[str, Any] | None:
        """The memory, or None before the call."""
        return self.journal.get(self.step)

    def save(self, document: dict[str, Any]) -> None:
        """Keep the memory, and when it was first seen to be over: a task that is repeated later must not move that."""
        self.journal.put(self.step, document, self.now)
        if attempt.load(document).memory.is_over and self.journal.get(self.end) is None:
            self.journal.put(self.end, {"at": self.now.isoformat()}, self.now)


def is_due(journal: Journal, number: int) -> bool:
    """Whether this rung is to be tried: the ladder has it, no earlier one succeeded, and replication was not broken on purpose."""
    steps = journal.steps()
    if "compare" not in steps or "breaking" in steps or number > len(spec_of(journal).ladder):
        return False  # a dry run has compared nothing
    for earlier in range(1, number):
        document = steps.get(f"attempt_{earlier}")
        if document is None:
            raise StepError(
                f"attempt {earlier} has left nothing, so attempt {number} cannot begin; clear its tasks first"
            )
        if document["outcome"] == "STUCK":
            raise StepError(
                f"attempt {earlier} is stuck: {document['reason']}; look at the deployment before anything else is tried"
            )
        if document["outcome"] == "COMPLETED":
            return False
    return True


def was_called(journal: Journal, number: int) -> bool:
    """Whether AWS may have begun this attempt."""
    document = journal.get(f"memory_{number}")
    return document is not None and attempt.load(document).called != "refused"


def refusal(journal: Journal, number: int) -> dict[str, Any] | None:
    """When and why AWS did not begin this attempt; None while it may be called, or was."""
    return None if was_called(journal, number) else journal.get(f"refused_{number}") or None


def gate(services: Services, name: str, number: int) -> dict[str, Any]:
    """Wait until green is close and nobody stands in the way; the document says what was waited for.

    Raises:
        StepError: still not after the spec's ``gate.wait_minutes``; names each offender
    """
    journal = services.journal(name)
    if was_called(journal, number):
        return {"passed": True}  # there is nothing to hold back any more
    spec = spec_of(journal)
    for side, target in (("blue", blue_of(journal)), ("green", green_of(journal))):
        probe(services, name, side, target)  # one that was killed since is needed for the heartbeat
    mark(services, name, f"gate {number}")
    began, streak, waited = services.now(), 0, set[str]()
    end = began + timedelta(minutes=spec.gate.wait_minutes)
    while True:
        reasons = obstacles(services, name)
        streak = 0 if reasons else streak + 1
        if streak >= spec.gate.samples:
            break
        waited.update(reason.split(":")[0] for reason in reasons)
        if services.now() >= end:
            raise StepError(
                f"gate of attempt {number}: not open after {spec.gate.wait_minutes} min: {'; '.join(reasons) or 'too few samples'}. "
                "Nothing was switched. Ask the owners to end what is named, or raise the limits in the spec"
            )
        services.sleep(min(services.poll_s, 1.0))
    if refusal(journal, number) is not None:  # somebody has cleared this task, to have it called again
        journal.put(f"refused_{number}", {}, services.now())
    document = {"passed": True, "waited_s": (services.now() - began).total_seconds(), "waited_for": sorted(waited)}
    journal.put(f"gate_{number}", document, services.now())
    return document


def obstacles(services: Services, name: str) -> list[str]:
    """What holds the gate shut now; what cannot be measured does."""
    journal = services.journal(name)
    spec, blue, green = spec_of(journal), blue_of(journal), green_of(journal)
    limit, found = spec.gate.max_lag_s, []
    for what, seconds in (
        ("lag by heartbeat", lag_now(services, name)),
        ("lag by CloudWatch", metrics.replica_lag(services.cloudwatch, green, spec.form == "cluster", services.now())),
    ):
        if seconds is None:
            found.append(f"{what}: unknown")
        elif seconds > limit:
            found.append(f"{what}: {seconds:.1f} s, limit {limit:g} s")
    with closing(services.connect(blue.address)) as conn:
        # One that has only read is cut and rolled back like any other client; it holds nothing up.
        standing = [h for h in holders.in_the_way(conn, spec.gate.max_transaction_s) if h.writes]
    return found + [f"{h.kind}: {h}" for h in standing]


def call(services: Services, name: str, number: int) -> switchover.Memory | None:
    """Ask for the switchover, once: a repeated step finds the memory and only looks.

    None: AWS did not begin it. That ends the attempt, as what the gate saw is of a moment ago only: the next rung has a gate of
    its own, and this one is called again when its gate has been.

    Raises:
        RailError: blue or the deployment is not this rehearsal's
    """
    journal = services.journal(name)
    spec, blue = spec_of(journal), blue_of(journal)
    keeper = Kept(journal, number, services.now())
    if refusal(journal, number) is not None:
        return None
    if not was_called(journal, number):
        rails.require_ours(services.rds, blue_side.kind_of(spec), blue.resource_id, name, services.now())
        rails.require_ours(services.rds, "deployment", journal.require("deployment")["id"], name, services.now())
        hold(services, name, number)
        with closing(services.connect(blue.address)) as conn:
            tables = int(
                mysql.scalar(conn, "SELECT COUNT(*) FROM information_schema.TABLES WHERE TABLE_TYPE = 'BASE TABLE'")
            )
            seen = replace(holders.evidence(conn), tables=tables)
        journal.put(f"evidence_{number}", asdict(seen), services.now())
        if (head := blue_side.describe(services.rds, blue.identifier, spec.form == "cluster")) is not None:
            journal.put("carried", _carried(head), services.now())
        mark(services, name, f"attempt {number}")
    deployment, timeout_s = journal.require("deployment")["id"], spec.ladder[number - 1]
    try:
        return attempt.begin(services.once, keeper, deployment, timeout_s, GRACE_S, services.now())
    except attempt.RefusedError as error:
        journal.put(f"refused_{number}", {"at": services.now().isoformat(), "reason": str(error)}, services.now())
        release(services, name)
        return None


def look(services: Services, name: str, number: int) -> switchover.Memory:
    """One more answer of AWS about this attempt."""
    journal = services.journal(name)
    at = services.now()
    return attempt.look(services.rds, Kept(journal, number, at), journal.require("deployment")["id"], at)


def hold(services: Services, name: str, number: int) -> None:
    """Open the idle connections and the fault that this attempt is to meet, and look at blue all along; each ends by itself."""
    journal = services.journal(name)
    spec, blue = spec_of(journal), blue_of(journal)
    release(services, name)  # what an attempt that was refused has left
    files, seconds = companions(services, name), spec.ladder[number - 1] + spec.gate.max_transaction_s + FAULT_SPARE_S
    endpoint = services.master(blue.address)
    trouble = next((fault.kind for fault in spec.faults if fault.attempt == number), None)
    if trouble is not None or spec.data.connections:
        arms.start(
            arms.Settings(
                path=files["arms"], endpoint=endpoint, schema_name=SCHEMA, connections=spec.data.connections,
                trouble=trouble, max_seconds=seconds,
            )
        )  # fmt: skip
    if trouble is not None:
        _await_fault(services, blue, spec.gate.max_transaction_s, files["arms"])
    witness.start(witness.Settings(path=files["witness"], endpoint=endpoint, max_seconds=seconds + GRACE_S))


def _await_fault(services: Services, blue: Side, age_s: int, arms_file: Path) -> None:
    """Wait until the fault is as old as what the gate holds back: a young transaction is cut by the switchover, and delays nothing.

    Raises:
        companion.CompanionError: the process that holds it has ended, so it will never be as old; repeating the step begins it anew
    """
    wait = services.waiting("the fault of the spec")
    with closing(services.connect(blue.address)) as conn:
        while not holders.in_the_way(conn, age_s):
            if not companion.is_running(arms_file):
                raise companion.CompanionError(
                    f"the process that held the fault of the spec ended before it was {age_s} s old: "
                    f"{companion.tail(companion.log_path(arms_file))}; nothing was switched, clear this task"
                )
            wait()


def companions(services: Services, name: str) -> dict[str, Path]:
    """Files of the processes that go along with an attempt."""
    return {what: services.recordings / f"{name}-{what}.jsonl" for what in ("arms", "witness")}


def release(services: Services, name: str) -> None:
    """End what :func:`hold` began; harmless when it has ended."""
    files = companions(services, name)
    if files["arms"].exists():
        arms.stop(files["arms"])
    witness.stop(files["witness"])


def examine(services: Services, name: str, number: int) -> dict[str, Any]:
    """What the attempt shows, and the proof of the state that it left. A rolled-back blue must be as it was."""
    journal = services.journal(name)
    if (refused := refusal(journal, number)) is not None:
        return _examine_refused(services, journal, number, refused)
    kept = attempt.load(journal.require(f"memory_{number}"))
    memory = kept.memory
    if not memory.is_over:
        raise StepError(f"attempt {number} is not over: {memory.reason}; clear its switchover task first")
    if (known := journal.get(f"attempt_{number}")) is not None and was_called(journal, number + 1):
        return known  # what blue is now, a later attempt has made
    release(services, name)
    mark(services, name, f"after attempt {number}")
    seen = recording.read(list(recording_paths(services, name).values()))
    called, over = _monotonic(seen, kept.asked_at), _monotonic(seen, _end_of(memory, journal, number))
    document: dict[str, Any] = {
        "timeout_s": spec_of(journal).ladder[number - 1],
        "outcome": memory.outcome,
        "reason": memory.reason,
        "called_at": kept.asked_at.isoformat(),
        "duration_s": (over - called) / recording.SECOND,
        "members": [list(pair) for pair in memory.members],
        "events": [{"id": e.event_id, "at": e.at.isoformat(), "message": e.message} for e in memory.events],
        "evidence": _evidence(services, journal, number, seen, (called, over)),
        "phases": _phases(seen, called, over),
    }
    found: list[Finding] = []
    if not outages.was_probed(seen, "blue_write", called, over):
        found.append(Finding("ladder", "blocker", f"no probe wrote during attempt {number}: its downtime is unknown"))
    if memory.outcome == "COMPLETED":  # green has given up its name
        probes.stop(recording_paths(services, name)["green"])
    if memory.outcome == "ROLLED_BACK":
        found += _rolled_back(services, journal)
    elif memory.outcome == "STUCK":
        found.append(Finding("ladder", "blocker", f"attempt {number} is stuck: {memory.reason}"))
    document["causes"] = (
        [asdict(cause) for cause in ladder.causes(_attempt(document))] if memory.outcome == "ROLLED_BACK" else []
    )
    document["findings"] = findings.documents(found)
    journal.put(f"attempt_{number}", document, services.now())
    return document


def _examine_refused(services: Services, journal: Journal, number: int, refused: Mapping[str, Any]) -> dict[str, Any]:
    """The attempt that was none: what AWS said, and nothing else."""
    timeout_s, reason = spec_of(journal).ladder[number - 1], str(refused["reason"])
    told = Finding(
        "ladder", "warning", f"attempt {number}: AWS began nothing, so {timeout_s} s was not tried: {reason}"
    )
    document = {
        "timeout_s": timeout_s, "outcome": REFUSED, "reason": reason, "duration_s": 0.0, "members": [], "events": [],
        "called_at": _aware(datetime.fromisoformat(refused["at"])).isoformat(), "evidence": {}, "phases": [], "causes": [],
        "findings": findings.documents([told]),
    }  # fmt: skip
    journal.put(f"attempt_{number}", document, services.now())
    return document


def _end_of(memory: switchover.Memory, journal: Journal, number: int) -> datetime:
    """When AWS said that it was over: by its last event, or, where none came, when that was first seen."""
    ends = [e.at for e in memory.events if e.event_id in switchover.COMPLETED_EVENTS | switchover.CANCELED_EVENTS]
    return max(ends) if ends else _aware(datetime.fromisoformat(journal.require(f"over_{number}")["at"]))


def _evidence(
    services: Services, journal: Journal, number: int, seen: Recording, span: tuple[int, int]
) -> dict[str, Any]:
    """The largest of each figure over the attempt, and the lag from a minute before it."""
    since, until = span
    known = [
        s.seconds
        for s in lag.samples(seen, GREEN_LANE)
        if s.seconds is not None and since - LAG_BEFORE <= s.at <= until
    ]
    found = holders.worst(
        [
            ladder.Evidence(**journal.require(f"evidence_{number}")),
            *witness.seen(companions(services, journal.rehearsal)["witness"], since, until),
        ]
    )
    return asdict(replace(found, max_lag_s=max(known, default=None)))


def _phases(seen: Recording, called: int, over: int) -> list[dict[str, Any]]:
    """Seconds from the call at which clients saw something change, by the probes' own clock."""
    found: list[dict[str, Any]] = []
    until = over + 60 * recording.SECOND
    for lane, what in (("blue_write", "write"), ("blue_read", "read"), ("blue_write", "connect")):
        if not outages.was_probed(seen, lane, called, until):
            continue
        down = outages.measure(seen, lane, what, since=called, until=until)  # type: ignore[arg-type]
        found += [
            {
                "what": what, "from_s": (o.start - called) / recording.SECOND, "to_s": o.end and (o.end - called) / recording.SECOND,
                "error_s": o.error_s, "errors": [[seen.errors.get(number, str(number)), count] for number, count in o.errors],
            }
            for o in down.outages
        ]  # fmt: skip
    return found


def _rolled_back(services: Services, journal: Journal) -> list[Finding]:
    """Blue must be writable, under its names, with its data."""
    blue, spec = blue_of(journal), spec_of(journal)
    found = []
    now = blue_side.describe(services.rds, blue.identifier, spec.form == "cluster")
    names = {} if now is None else blue_side.to_side(now, spec.form == "cluster").resource_ids
    if names != blue.resource_ids:
        found.append(
            Finding(
                "ladder", "blocker", f"after the roll-back names lead elsewhere: {names}, before: {blue.resource_ids}"
            )
        )
    with closing(services.connect(blue.address)) as conn:
        if not checks.is_writable(conn, SCHEMA, arms.TABLE):
            found.append(Finding("ladder", "blocker", "after the roll-back blue is not writable"))
        counted = acknowledged.check(
            conn, recording.read(list(recording_paths(services, journal.rehearsal).values())), SCHEMA
        )
        if counted.lost or counted.duplicated:
            found.append(
                Finding(
                    "ladder",
                    "blocker",
                    f"after the roll-back {len(counted.lost)} writes are lost, {len(counted.duplicated)} doubled",
                )
            )
        before, after = journal.require("replication")["data"], data_of(conn)
    if changed := sorted(table for table in before | after if before.get(table) != after.get(table)):
        found.append(
            Finding("ladder", "blocker", f"after the roll-back tables differ from before: {', '.join(changed)}")
        )
    return found


def conclude_ladder(services: Services, name: str) -> dict[str, Any]:
    """Every attempt, and the SwitchoverTimeout that follows."""
    journal = services.journal(name)
    steps = journal.steps()
    tried = [steps[f"attempt_{n}"] for n in range(1, len(spec_of(journal).ladder) + 1) if f"attempt_{n}" in steps]
    advice = ladder.recommend([_attempt(document) for document in tried])
    found = [Finding(**each) for document in tried for each in document["findings"]]
    expected = {fault.attempt for fault in spec_of(journal).faults}
    for number, document in enumerate(tried, start=1):
        if document["outcome"] == "ROLLED_BACK" and number not in expected:
            why = document["causes"][0]["text"] if document["causes"] else "no cause was measured"
            found.append(
                Finding("ladder", "warning", f"{document['timeout_s']} s was not enough: {document['reason']} ({why})")
            )
    if advice.timeout_s is None:
        found.append(Finding("ladder", "blocker", advice.rule))
    document = {"recommended_s": advice.timeout_s, "rule": advice.rule, "findings": findings.documents(found)}
    journal.put("ladder", document, services.now())
    return document


def verify(services: Services, name: str) -> dict[str, Any]:
    """After a success: old names lead to the new version, writable, with every acknowledged write; the old side is read-only."""
    journal = services.journal(name)
    spec, blue, green = spec_of(journal), blue_of(journal), green_of(journal)
    is_cluster = spec.form == "cluster"
    seen = blue_side.describe(services.rds, blue.identifier, is_cluster)
    if seen is None:
        raise StepError(f"{blue.identifier} does not exist after the switchover; look at the RDS events")
    new = blue_side.to_side(seen, is_cluster)
    with closing(services.connect(blue.address)) as conn:
        version = str(mysql.scalar(conn, "SELECT @@version"))
        writable = checks.is_writable(conn, SCHEMA, arms.TABLE)
        counted = acknowledged.check(conn, recording.read(list(recording_paths(services, name).values())), SCHEMA)
    old, refusal = _old_side(services, journal, blue, is_cluster)
    wanted = spec.target.engine_version.split(".")[:2]
    lost, doubled = len(counted.lost), len(counted.duplicated)
    staying = {m.resource_id for m in green.members} - {m.resource_id for m in new.members}
    facts = [
        (
            new.resource_id != green.resource_id,
            f"{blue.identifier} is {new.resource_id}, not green's {green.resource_id}",
        ),
        (new.address != blue.address, f"the endpoint moved from {blue.address} to {new.address}"),
        (staying, f"members of green are not in the new production: {', '.join(sorted(staying))}"),
        (not writable, "the new production is not writable"),
        (
            version.split(".")[:2] != wanted,
            f"the old endpoint answers with version {version}, not {'.'.join(wanted)}",
        ),
        (lost or doubled, f"{lost} acknowledged writes are lost, {doubled} are there more than once"),
        (not counted.acknowledged, "no write was acknowledged, so nothing is proven about lost writes"),
        (
            re.fullmatch(rf"{re.escape(blue.identifier)}-old\d+", old.identifier) is None,
            f"the old side is called {old.identifier}, not {blue.identifier}-oldN",
        ),
        (not refusal, f"the old side {old.identifier} accepts writes"),
    ]
    found = [Finding("verify", "blocker", text) for wrong, text in facts if wrong]
    found += _not_carried(journal.get("carried"), _carried(seen))
    coordinates = [e["message"] for n in range(1, len(spec.ladder) + 1) for e in (journal.get(f"attempt_{n}") or {}).get("events", ())
                   if "Binary log coordinates" in e["message"]]  # fmt: skip
    document = {
        "version": version, "old": old.identifier, "old_refuses_writes": refusal, "acknowledged": asdict(counted),
        "binlog_coordinates": coordinates, "parameter_group": new.parameter_group, "new": new.document(),
        "findings": findings.documents(found),
    }  # fmt: skip
    journal.put("verify", document, services.now())
    return document


def _carried(head: Mapping[str, Any]) -> dict[str, list[str]]:
    """What is attached to blue's name, not to its data, and has to be attached to the new production as well."""
    tags = [f"{tag['Key']}={tag['Value']}" for tag in head.get("TagList") or ()]
    roles = [f"{role['RoleArn']} {role.get('FeatureName') or ''}".strip() for role in head.get("AssociatedRoles") or ()]
    return {"tags": sorted(tag for tag in tags if not tag.startswith("aws:")), "IAM roles": sorted(roles)}


def _not_carried(before: Mapping[str, list[str]] | None, now: Mapping[str, list[str]]) -> list[Finding]:
    lost = {what: sorted(set(each) - set(now[what])) for what, each in (before or {}).items()}
    return [
        Finding("verify", "warning", f"{what} of blue that the new production lacks: {', '.join(missing)}")
        for what, missing in lost.items()
        if missing
    ]


def _old_side(services: Services, journal: Journal, blue: Side, is_cluster: bool) -> tuple[Side, bool]:
    """The old side by its resource id, and whether it refuses the write of a plain user."""
    kind = blue_side.kind_of(spec_of(journal))
    found = rails.require_ours(services.rds, kind, blue.resource_id, journal.rehearsal, services.now())
    old = blue_side.of_arn(services.rds, found.arn, is_cluster)
    writer = next((m for m in old.members if m.is_writer), old.members[0])
    with closing(services.connect_plainly((writer.host, writer.port), journal.rehearsal)) as conn:
        return old, checks.refuses_writes(conn, SCHEMA, arms.TABLE)


def _attempt(document: Mapping[str, Any]) -> ladder.Attempt:
    evidence = {k: v for k, v in document["evidence"].items() if k in ladder.Evidence.__dataclass_fields__}
    return ladder.Attempt(
        document["timeout_s"],
        document["outcome"],
        document["duration_s"],
        document["reason"],
        ladder.Evidence(**evidence),
    )


def _aware(at: datetime) -> datetime:
    return at.replace(tzinfo=UTC)


def _monotonic(seen: Recording, at: datetime) -> int:
    """An aware time on the probes' clock."""
    return int(at.timestamp() * recording.SECOND) - seen.wall_offset
