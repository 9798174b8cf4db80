"""Preflight: what would make a copy slow, wrong or unprovable is found before anything is written.

Each check gives findings: a refusal stops the run, a warning is for the reader. What cannot be looked at is a refusal: unknown is not good.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlglot import exp

from dbops import mysql, sql
from dbops.backfill import estimate as estimates
from dbops.backfill import liveness
from dbops.backfill.estimate import Estimate, Sample
from dbops.backfill.findings import Check, Finding, refusal, run, warning
from dbops.backfill.records import Beat
from dbops.backfill.source import Source, ViewError, open_source
from dbops.backfill.spec import BackfillSpec
from dbops.backfill.target import TargetFacts
from dbops.keys import Key
from dbops.keyvalue import keys as templates
from dbops.keyvalue.codec import ColumnCodec
from dbops.keyvalue.rules import Version
from dbops.keyvalue.views import View

VERSIONS_SAMPLED = 1000
_FORMS = {
    "integer": "N", "decimal": "N", "decimal_text": "S", "float": "N", "double": "N", "date": "S", "moment": "S", "time": "S", "text": "S",
    "enum": "S", "binary": "B", "json": "M, L, S, N, BOOL or NULL", "set": "SS",
}  # fmt: skip
_DATES = ("date", "moment")


@dataclass(frozen=True)
class TypeRow:
    """How a column becomes an attribute."""

    column: str
    mysql_type: str
    form: str
    """Type of DynamoDB."""
    how: str
    """``exact``, or what a policy does with single values."""


# --- the view -----------------------------------------------------------------------------------------------------------


def check_plan(conn: Any, source: Source) -> Iterator[Finding]:
    """How MySQL would read a page in the middle: a range of the driving table's key, no sort, no scan of what is joined."""
    low = source.nth_key(conn, None, source.spec.limits.page_rows)
    high = source.nth_key(conn, low, source.spec.limits.page_rows) or source.last_key(conn, low)
    if high is None:  # the first page, if there is one, ends with the last row
        low, high = None, low
    if high is None:
        yield warning(
            "empty",
            f"{source.table.full_name} has no row to copy",
            "correct view.table or cold.where if it should have",
        )
        return
    yield from judge_plan(source, mysql.rows(conn, f"EXPLAIN {source.page_sql(low, high)}"))


def judge_plan(source: Source, plan: Sequence[Mapping[str, Any]]) -> Iterator[Finding]:
    """What lines of EXPLAIN say, in the order of MySQL's joins."""
    first = plan[0]
    how = f"{first['table']} by {first['type']} of {first['key'] or 'no key'}"
    if (first["table"], first["key"]) != (source.key.alias, source.key.index) or first["type"] not in (
        "range",
        "const",
        "eq_ref",
    ):
        yield refusal(
            "range_access", f"MySQL begins a page with {how}, not with a range of {source.key.index} of {source.key.alias}",
            "leave the condition out that keeps it from the range (a function of the key, a constant that matches no row)",
        )  # fmt: skip
    extra = "; ".join(str(row["Extra"] or "") for row in plan)
    if "temporary" in extra or "filesort" in extra or any(row["select_type"] == "DERIVED" for row in plan):
        yield refusal(
            "sorted_pages",
            f"MySQL sorts each page or writes it to a temporary table ({extra})",
            "simplify the joins of view.sql",
        )
    for row in plan[1:]:
        if row["type"] in ("ALL", "index") and not row["possible_keys"]:
            yield refusal(
                "join_scan",
                f"{row['table']} is read from end to end for each row of a page",
                f"add an index of the columns that join {row['table']}",
            )
        elif row["type"] not in ("eq_ref", "const", "ALL"):
            yield warning(
                "join_unique", f"{row['table']} is joined by {row['type']} of {row['key']}, which may find several rows",
                "join by a unique key; the walk counts rows and keys",
            )  # fmt: skip


def check_view(conn: Any, source: Source) -> Iterator[Finding]:
    """What of the view depends on what applications do."""
    for sentence in templates.traps(source.view.codecs, source.view.keys.columns):
        yield warning(
            "collation", sentence, "look keys up in MySQL before they are made of what a user typed, as Repository does"
        )
    others = [name for name in source.view.keys.columns if name not in source.outputs]
    if others:
        yield warning(
            "key_changes", f"the store's key has {', '.join(others)}, which an UPDATE may change: the old item would stay",
            "write a tombstone under the old key with each such UPDATE, or take the column out of the template",
        )  # fmt: skip
    if source.query.has_filter:
        yield warning(
            "view_filter", "view.sql leaves rows out, by WHERE or by an inner join: a row that comes to be left out keeps its item",
            "write a tombstone with each change that takes a row out of the view",
        )  # fmt: skip
    yield from _joins(conn, source)


def _joins(conn: Any, source: Source) -> Iterator[Finding]:
    if len(source.query.tables) > 1:
        yield warning(
            "version_order",
            "the view joins tables: where versions are drawn in another order than commits, an item keeps what the join had before",
            "draw from a row that stays locked until the commit, before rows are read; AUTO_INCREMENT and clocks are no such thing",
        )
        yield warning(
            "join_stream", "the view joins tables: cdc_apply and cdc_redis make an item of one table's row, not of a join",
            "let what carries the changes read the view's row, of every item that a joined row is in",
        )  # fmt: skip
    for joined in source.query.tables[1:]:
        yield warning(
            "join_delete",
            f"a row of {joined.schema}.{joined.table} that is deleted takes its version with it: the view's may fall",
            f"raise the version of its rows of {source.table.name} in the transaction that deletes it",
        )
    for table in {each.full_name: each for each in source.tables.values()}.values():
        for row in mysql.rows(conn, sql.render("backfill/cascades"), {"schema": table.schema, "table": table.name}):
            yield refusal(
                "cascade",
                f"foreign key {row['name']} of {table.full_name} is ON DELETE {row['delete_rule']} ON UPDATE {row['update_rule']}: "
                "InnoDB changes such rows without triggers, versions or events in the binary log",
                "change it to RESTRICT and let the application write these rows",
            )


def check_version(conn: Any, source: Source) -> Iterator[Finding]:
    """Whether each column of which the version is made rises with every write and over the life of a key."""
    spec = source.spec
    selected = next(each for each in source.query.selected if each.name == spec.version.column)
    for column in {(each.table, each.name): each for each in selected.expression.find_all(exp.Column)}.values():
        yield from _raised(conn, source, column)
    driving = source.tables[source.key.alias]
    key_column = driving.column(source.key.names[0])
    is_automatic = len(source.key.names) == 1 and key_column is not None and key_column.is_auto_increment
    if not is_automatic and not spec.version.raised_by:
        yield warning(
            "version_reinsert", f"a key of {driving.full_name} may come back after a deletion: its version has to exceed the tombstone's",
            "take versions from a sequence or a time, not 1 for each new row; say so in version.raised_by",
        )  # fmt: skip


def _raised(conn: Any, source: Source, column: exp.Column) -> Iterator[Finding]:
    table = source.tables[column.table]
    names = {"schema": table.schema, "table": table.name}
    name = f"{table.full_name}.{column.name}"
    (found,) = mysql.rows(conn, sql.render("backfill/column_extra"), {**names, "column": column.name})
    if "on update current_timestamp" in str(found["extra"]):
        yield from _of_time(name, int(found["seconds_scale"] or 0))
        return
    bodies = [row for row in mysql.rows(conn, sql.render("backfill/triggers"), names) if row["timing"] == "BEFORE"]
    sets = re.compile(rf"\bNEW\s*\.\s*`?{re.escape(column.name)}`?\s*:?=", re.IGNORECASE)
    if any(row["event"] == "UPDATE" and sets.search(str(row["body"])) for row in bodies):
        return
    if source.spec.version.raised_by:
        yield warning(
            "version_declared", f"nothing in MySQL raises {name} with each UPDATE; {source.spec.version.raised_by!r} is declared to do so",
            "look at every statement that writes the table, also those of people and jobs",
        )  # fmt: skip
        return
    if not mysql.has_privilege(conn, "TRIGGER", table.schema, table.name):
        yield refusal(
            "version_raised",
            f"this login cannot see whether a trigger of {table.full_name} raises {column.name}",
            "GRANT TRIGGER",
        )
        return
    yield refusal(
        "version_raised", f"nothing in MySQL raises {name} with each UPDATE: an item would stay old under an equal version",
        f"add a BEFORE UPDATE trigger (SET NEW.{column.name} = OLD.{column.name} + 1), or name who raises it in version.raised_by",
    )  # fmt: skip


def _of_time(name: str, scale: int) -> Iterator[Finding]:
    if scale < 6:
        yield refusal(
            "version_ties", f"{name} has {scale} decimals of a second: two writes within one get one version, and the later one is lost",
            "make it TIMESTAMP(6), or better a number that a trigger raises",
        )  # fmt: skip
        return
    yield warning(
        "version_time", f"{name} is a time: ties, a clock that steps back or a statement that sets it break the order",
        "a number that a trigger raises has none of these",
    )  # fmt: skip


def versions(conn: Any, source: Source, sampled: Sequence[Key]) -> dict[Key, Version]:
    """Versions of rows by key; those without an item are left out."""
    return {key: row.write.version for key, row in source.rows(conn, sampled).items() if row.write is not None}


def judge_versions(before: Mapping[Key, Version], after: Mapping[Key, Version]) -> Iterator[Finding]:
    """What two looks at the same rows say, the first one earlier."""
    fell = [key for key, version in before.items() if key in after and after[key] < version]
    if fell:
        yield refusal(
            "version_falls", f"the version of {len(fell)} of {len(before)} rows went down between two looks (key {', '.join(fell[0])})",
            "find who sets it, or takes it from a sequence that is not common to all writers",
        )  # fmt: skip


# --- items and target ---------------------------------------------------------------------------------------------------


def type_report(source: Source) -> list[TypeRow]:
    """How every column becomes an attribute, in the order of the view."""
    return [TypeRow(codec.name, codec.column.column_type, _form(codec), _how(codec)) for codec in source.view.codecs]


def _form(codec: ColumnCodec) -> str:
    if codec.kind == "bit":
        return "BOOL" if codec.digits == 1 else "N"
    if codec.kind == "json" and codec.policy.json == "text":
        return "S"
    return _FORMS[codec.kind]


def _how(codec: ColumnCodec) -> str:
    said = []
    if codec.column.nullable:
        said.append("NULL is left out" if codec.policy.nulls == "omit" else "NULL is written as NULL")
    if codec.kind in _DATES:
        said.append(
            {"reject": "zero dates reject the row", "null": "zero dates become NULL", "text": "zero dates are text"}[
                codec.policy.zero_dates
            ]
        )
    if codec.kind == "enum":
        said.append("index 0 rejects the row" if codec.policy.enum_error == "reject" else "index 0 is the empty text")
    if codec.kind == "set":
        said.append("the empty set is an empty L" if codec.policy.empty_set == "list" else "the empty set becomes NULL")
    if codec.kind in ("float", "double"):
        said.append("S beyond 1E-130 to 9.99E+125")
    return "; ".join(["exact", *said])


def check_sample(spec: BackfillSpec, sample: Sample) -> Iterator[Finding]:
    """Rows of the sample that cannot be items."""
    count = sum(sample.rejects.values())
    if not count:
        return
    reasons = "; ".join(f"{rows} rows: {reason}" for reason, rows in list(sample.rejects.items())[:5])
    fix = (
        "declare a policy for the column in view.policies, leave it out, or correct the rows; or raise rejects.max_rows"
    )
    made = refusal if count > spec.rejects.allowed else warning
    yield made("rejects", f"{count} of {sample.rows} sampled rows cannot be items ({reasons})", fix)


def check_target(
    source: Source, facts: TargetFacts, estimate: Estimate | None, *, is_own: bool = False
) -> Iterator[Finding]:
    """Whether the store can take the items, and keeps them; of an import, whether the table is that of the plan that goes on."""
    spec = source.spec
    if spec.target.kind == "redis":
        yield from _redis(facts, estimate)
        return
    if spec.engine == "import":
        if facts.exists and not is_own:
            yield refusal(
                "target",
                f"table {spec.target.table} exists: ImportTable makes a new one",
                "name another table, or use engine put",
            )
        return
    if not facts.exists or facts.state != "ACTIVE":
        yield refusal(
            "target",
            f"table {spec.target.table} is {facts.state if facts.exists else 'not there'}",
            f"create it with the key {_key_text(_wanted_key(source))}, as target.key makes it, and wait",
        )
        return
    yield from _table(source, facts)


def _table(source: Source, facts: TargetFacts) -> Iterator[Finding]:
    wanted = _wanted_key(source)
    if facts.key != wanted:
        yield refusal(
            "target_key",
            f"the table's key is {_key_text(facts.key)}, target.key makes {_key_text(wanted)}",
            "correct target.key, or the table",
        )
    if facts.ttl_attribute == source.names.expires:
        yield refusal(
            "target_ttl", f"TTL is on for {facts.ttl_attribute}: tombstones that go before the move is over let deleted rows come back",
            "switch TTL on only after the gate",
        )  # fmt: skip
    elif facts.ttl_attribute:
        yield warning(
            "target_ttl",
            f"TTL is on for {facts.ttl_attribute}: items that expire are missing for the verification",
            "switch it off meanwhile",
        )
    if not facts.point_in_time_recovery:
        yield warning(
            "target_pitr",
            "point-in-time recovery is off, or not known",
            "switch it on: it is the way back from a wrong write",
        )
    for index in facts.indexes:
        if index.status != "ACTIVE":
            yield refusal(
                "target_index",
                f"index {index.name} is {index.status}: it takes capacity from the copy",
                "wait until it is ACTIVE",
            )
    if facts.replicas and source.spec.engine != "put":
        yield refusal(
            "target_replicas",
            f"the table has {facts.replicas} replicas in other regions: engine {source.spec.engine} does not reach them",
            "use engine put",
        )


def _redis(facts: TargetFacts, estimate: Estimate | None) -> Iterator[Finding]:
    if not facts.exists:
        yield refusal("target", f"the server is not there: {facts.state}", "correct the connection")
        return
    if facts.eviction != "noeviction":
        yield refusal(
            "target_eviction",
            f"maxmemory-policy is {facts.eviction or 'not known'}: keys would vanish when memory is short",
            "set noeviction",
        )
    if not facts.memory_limit:
        yield warning(
            "target_memory", "the server has no memory limit, or does not tell it", "see to it that the items fit"
        )
    elif estimate is not None and facts.memory_limit - (facts.memory_used or 0) < estimate.bytes:
        yield refusal(
            "target_memory",
            f"{facts.memory_limit - (facts.memory_used or 0):,} bytes are free, the items have {estimate.bytes:,}",
            "take larger nodes",
        )


def _wanted_key(source: Source) -> tuple[tuple[str, str], ...]:
    return tuple((name, template.kind) for name, template in source.view.keys.parts)


def _key_text(key: Iterable[tuple[str, str]]) -> str:
    return ", ".join(f"{name} ({kind})" for name, kind in key) or "nothing"


def check_estimate(spec: BackfillSpec, estimate: Estimate) -> Iterator[Finding]:
    """Time above the limit refuses, cost above the budget asks for an approval."""
    if estimate.hours > spec.limits.max_hours:
        yield refusal(
            "hours", f"about {estimate.hours:.1f} h, above limits.max_hours {spec.limits.max_hours:g}; limited by {estimate.limited_by}",
            "raise that limit, or max_hours",
        )  # fmt: skip
    if estimate.usd > spec.limits.budget_usd:
        yield warning(
            "budget",
            f"about {estimate.usd:.2f} {estimate.currency}, above limits.budget_usd",
            "the copy needs an approval",
        )
    for doubt in estimate.warnings:
        yield warning("estimate", doubt, "see include/prices/dynamodb.yaml")


# --- all of it ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Services:
    """How to reach what is looked at. Functions open a new connection or client."""

    writer: Callable[[], Any]
    """Of `dbops.connections.mysql`, values decoded."""
    reader: Callable[[], Any]
    """Where plan and copy read; may be the writer."""
    facts: Callable[[View], TargetFacts]
    """Of the store, opened for the items of the view."""
    dms: Callable[[], Any]
    cloudwatch: Callable[[], Any]
    beats: Callable[[], Iterable[Beat]]
    """What the applications have reported, from the journal."""
    now: Callable[[], datetime]
    region: str = ""
    """Of the target, where the spec names none: for prices."""
    is_importing: Callable[[], bool] = lambda: False
    """Whether the open plan, with which the run goes on, has asked for an import."""
    monotonic: Callable[[], float] = time.monotonic
    replica_wait_s: float = liveness.REPLICA_WAIT_S


@dataclass(frozen=True)
class Preflight:
    """Everything that was found before a copy."""

    findings: tuple[Finding, ...]
    """Refusals first."""
    types: tuple[TypeRow, ...] = ()
    sample: Sample | None = None
    estimate: Estimate | None = None
    facts: TargetFacts | None = None

    @property
    def refusals(self) -> tuple[Finding, ...]:
        """What stops the run."""
        return tuple(finding for finding in self.findings if finding.stops)


def check(services: Services, spec: BackfillSpec, *, rows: int | None = None) -> Preflight:
    """Look at everything; reads only.

    Args:
        services: of the run
        spec: what a DBA declared
        rows: of a walk; None: InnoDB's estimate, which may be wrong by half
    """
    with closing(services.writer()) as writer, closing(services.reader()) as reader:
        try:
            source = open_source(reader, spec)
        except ViewError as error:
            return Preflight((refusal("view", str(error), "correct the spec"),))
        seen: dict[str, Any] = {}
        checks: dict[str, Check] = {
            "sample": lambda: _sampled(services, source, reader, seen),
            "target": lambda: _targeted(services, source, rows, seen),
            "plan": lambda: check_plan(reader, source),
            "view": lambda: check_view(writer, source),
            "version": lambda: check_version(writer, source),
            "replica": lambda: liveness.check_replica(
                writer, reader, spec.live.since, services.now, services.replica_wait_s
            ),
            "dual_write": lambda: _dual_writes(services, spec),
            "stream": lambda: _streamed(services, spec),
            "binlog": lambda: liveness.check_log(writer, _hours(seen)),
            "versions": lambda: _compared(source, reader, seen["sample"]),
        }
        findings = run(checks)
    return Preflight(
        tuple(findings), tuple(type_report(source)), seen.get("sample"), seen.get("estimate"), seen.get("facts")
    )


def _sampled(services: Services, source: Source, reader: Any, seen: dict[str, Any]) -> list[Finding]:
    lows = estimates.spread(reader, source)
    seen["sample"] = estimates.measure(reader, source, lows, monotonic=services.monotonic)
    return list(check_sample(source.spec, seen["sample"]))


def _targeted(services: Services, source: Source, rows: int | None, seen: dict[str, Any]) -> list[Finding]:
    facts = seen["facts"] = services.facts(source.view)
    if "sample" in seen:
        seen["estimate"] = estimates.estimate(
            source.spec,
            seen["sample"],
            facts,
            rows=source.table.row_estimate if rows is None else rows,
            region=services.region,
            today=services.now().date(),
        )
    made = seen.get("estimate")
    found = list(check_target(source, facts, made, is_own=facts.exists and services.is_importing()))
    return found if made is None else [*found, *check_estimate(source.spec, made)]


def _compared(source: Source, reader: Any, sample: Sample) -> Iterator[Finding]:
    """The same rows again, some seconds after the sample: with writes between, versions that fall show themselves."""
    before = dict(list(sample.versions.items())[:VERSIONS_SAMPLED])
    yield from judge_versions(before, versions(reader, source, list(before)))


def _streamed(services: Services, spec: BackfillSpec) -> Iterator[Finding]:
    needed = spec.live.replication_task is not None
    dms, cloudwatch = (services.dms(), services.cloudwatch()) if needed else (None, None)
    yield from liveness.check_stream(spec, dms, cloudwatch, services.now())


def _dual_writes(services: Services, spec: BackfillSpec) -> Iterable[Finding]:
    """An import makes the table itself, so dual writes begin after it; the stream holds what happens meanwhile."""
    return () if spec.engine == "import" else liveness.check_applications(spec, services.beats(), services.now())


def _hours(seen: Mapping[str, Any]) -> float | None:
    made = seen.get("estimate")
    return None if made is None else made.hours
