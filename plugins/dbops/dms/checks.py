"""What decides whether a MySQL server can be the source of DMS: one function a question, each with its reason and fix.

Pure: facts come from :mod:`source`. Fail-closed: what could not be read stops, and the fix names the grant. Sources: DMS user guide, "Using
a MySQL-compatible database as a source", "MySQL assessments", and the pages of each target.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from dbops import mysql
from dbops.dms import lint, mappings, settings
from dbops.dms.facts import NEVER, Check, CheckStatus, Login, SourceFacts, SourceTable
from dbops.dms.mappings import OBJECT_MAPPING, SELECTION
from dbops.dms.spec import RELATIONAL, DmsSpec
from dbops.mysql import Column
from dbops.sql import ident

ASSUMED_BYTES_PER_S = 5_000_000.0
"""How fast a load reads when nobody has measured it: the slow end of what is published for DMS (210 GB in 10 to 15 hours)."""
HEADROOM = 1.5
"""Binary logs are kept so many times as long as a load takes."""
DAY_H = 24
"""AWS's own least retention, in hours."""
TIMEOUT_S = 300
"""AWS's own least net_read_timeout, net_write_timeout and wait_timeout."""
LONG_LOAD_H = 10 / 60
MOST_TABLES = 10_000
LARGEST_LOG = 4 * 2**30
"""DMS reads no binary log that is larger, in bytes."""
CHECKSUM_SINCE = (3, 4, 8)
"""First version of DMS that reads logs with checksums."""
SPATIAL = frozenset({
    "geometry", "point", "linestring", "polygon", "multipoint", "multilinestring", "multipolygon", "geomcollection",
    "geometrycollection",
})  # fmt: skip
CHARSETS = frozenset({"ascii", "binary", "latin1", "utf8", "utf8mb3", "utf8mb4"})
EXTRA = "ExtraConnectionAttributes"
_UTC = frozenset({"UTC", "+00:00", "-00:00", "ETC/UTC", "GMT", "ETC/GMT", "UCT", "Z"})
_LOG_GRANT = "GRANT REPLICATION CLIENT ON *.* to our login"
_BY_HAND = "Make the target's table by hand, and set TargetTablePrepMode to TRUNCATE_BEFORE_LOAD"
_NAMED = 5

Hits = Iterator[tuple[CheckStatus, str, str, str]]
"""Status, where, what is there, and the fix."""


@dataclass(frozen=True)
class Subject:
    """What a question is asked of."""

    spec: DmsSpec
    facts: SourceFacts
    source: Mapping[str, Any] | None
    """Settings of the source endpoint; None when they are unknown."""
    target: Mapping[str, Any] | None
    engine_version: str
    bytes_per_s: float | None
    rules: tuple[dict[str, Any], ...]
    settings: Mapping[str, Any]
    """Of the task, with their defaults."""

    @property
    def load_hours(self) -> float:
        """How long a load will take, from the bytes to read; 0 when nothing is loaded."""
        speed = self.bytes_per_s or ASSUMED_BYTES_PER_S
        return self.facts.bytes_to_load / speed / 3600 if self.spec.has_load else 0.0

    @property
    def speed(self) -> str:
        """At which speed that is."""
        if self.bytes_per_s:
            return f"{self.bytes_per_s / 1e6:,.1f} MB/s as measured"
        return f"an assumed {ASSUMED_BYTES_PER_S / 1e6:g} MB/s"

    @property
    def is_relational(self) -> bool:
        """Whether the target is MySQL."""
        return self.spec.target_engine in RELATIONAL

    @property
    def makes_tables(self) -> bool:
        """Whether DMS makes the tables of a MySQL target anew, with what it takes for their definition."""
        mode = settings.get(self.settings, "FullLoadSettings.TargetTablePrepMode")
        return self.is_relational and self.spec.has_load and mode == "DROP_AND_CREATE"

    def columns(self, *data_types: str) -> Iterator[tuple[SourceTable, Column]]:
        """Columns of the selected tables, of any of the types."""
        for one in self.facts.selected:
            for column in one.shape.columns:
                if not data_types or column.data_type in data_types:
                    yield one, column


@dataclass(frozen=True)
class Question:
    """One question. ``good`` is said of it when nothing speaks against it."""

    id: str
    good: str
    look: Callable[[Subject], Hits]
    needs: Callable[[DmsSpec], bool]


QUESTIONS: list[Question] = []
Look = Callable[[Subject], Hits]


def _check(question: str, good: str, needs: Callable[[DmsSpec], bool] = lambda spec: True) -> Callable[[Look], Look]:
    def add(look: Look) -> Look:
        QUESTIONS.append(Question(question, good, look, needs))
        return look

    return add


def _cdc(spec: DmsSpec) -> bool:
    return spec.has_cdc


def _load(spec: DmsSpec) -> bool:
    return spec.has_load


def of_source(
    spec: DmsSpec,
    facts: SourceFacts,
    *,
    source_settings: Mapping[str, Any] | None = None,
    target_settings: Mapping[str, Any] | None = None,
    engine_version: str = "",
    bytes_per_s: float | None = None,
) -> tuple[Check, ...]:
    """See :func:`dbops.dms.source.check`."""
    declared = source_settings if spec.source.kind == "existing" else spec.source.settings
    effective = settings.effective(spec.settings)
    subject = Subject(spec, facts, declared, target_settings, engine_version, bytes_per_s, spec.rules, effective)
    found = [
        Check(question.id, *hit)
        for question in QUESTIONS
        if question.needs(spec)
        for hit in list(question.look(subject)) or [("ok", "", question.good, "")]
    ]
    return ordered([*(overridden(spec, one) for one in found), *_of_lint(subject)])


def ids() -> frozenset[str]:
    """Ids that a spec may override beside those of the linter's rules."""
    return frozenset(question.id for question in QUESTIONS)


def overridden(spec: DmsSpec, one: Check) -> Check:
    """A stop that the spec gives a reason to pass is a warning."""
    reason = spec.overrides.get(one.id, "")
    return replace(one, status="warning", overridden=reason) if reason and one.stops else one


def ordered(found: list[Check]) -> tuple[Check, ...]:
    """Stops first, then warnings, in their order otherwise."""
    return tuple(sorted(found, key=lambda one: ("stop", "warning", "ok").index(one.status)))


def _of_lint(subject: Subject) -> Iterator[Check]:
    """What the linter says because of the tables, and would not say without knowing them."""
    spec = subject.spec
    blind = {(one.rule, one.where, one.text) for one in lint.lint(spec, lint.Facts(None, subject.target))}
    for one in lint.lint(spec, subject.facts.lint_facts(subject.target)):
        # Of what was not measured lob-measured says why.
        if (one.rule, one.where, one.text) not in blind and one.rule != "lob-unmeasured":
            status: CheckStatus = "stop" if one.stops else "warning"
            yield Check(one.rule, status, one.where, f"{one.text}: {_small(one.reason)}", one.fix, one.overridden)


def _small(text: str) -> str:
    return text[:1].lower() + text[1:]


def named(names: list[str]) -> str:
    """The first of many names."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def attribute(given: Mapping[str, Any], name: str) -> str:
    """A setting of an endpoint by its name in any case, also out of its extra connection attributes; "" when there is none."""
    for key, value in given.items():
        if key.lower() == name.lower():
            return str(value or "")
    for part in str(given.get(EXTRA) or "").split(";"):
        key, _, text = part.partition("=")
        if key.strip().lower() == name.lower():
            return text.strip()
    return ""


# The binary log ------------------------------------------------------------------------------------------------------


def _set(subject: Subject, variable: str, value: str) -> str:
    """How a variable is set on this server."""
    if subject.facts.is_managed:
        kind = "cluster parameter group" if subject.facts.is_aurora else "parameter group"
        return f"Set {variable} = {value} in the {kind}"
    return f"SET GLOBAL {variable} = {value}, and set it in my.cnf"


@_check("source-version", "DMS reads changes of this version", _cdc)
def _version(subject: Subject) -> Hits:
    if subject.facts.version_tuple < (5, 6):
        yield "stop", "version", f"is {subject.facts.version}, of which DMS reads no changes", "Upgrade to 5.7 or later"


@_check("log-bin", "a binary log is written", _cdc)
def _log_bin(subject: Subject) -> Hits:
    facts = subject.facts
    if not facts.is_on("log_bin"):
        fix = "Set log_bin and server_id in my.cnf, and restart"
        if facts.is_managed:
            fix = "Switch automatic backups on"
        if facts.is_aurora:
            fix = "Set binlog_format = ROW in the cluster parameter group, and reboot the writer"
        yield "stop", "log_bin", f"is {facts.value('log_bin') or 'not set'}: there are no changes to read", fix


@_check("binlog-format", "binlog_format is ROW", _cdc)
def _format(subject: Subject) -> Hits:
    value = subject.facts.value("binlog_format")
    if value.upper() != "ROW":
        text = f"is {value or 'unknown'}: the log has statements, in which DMS finds no rows"
        fix = f"{_set(subject, 'binlog_format', 'ROW')}; then end every session that began before"
        yield "stop", "binlog_format", text, fix


@_check("binlog-row-image", "binlog_row_image is FULL", _cdc)
def _row_image(subject: Subject) -> Hits:
    value = subject.facts.value("binlog_row_image")
    if value.upper() != "FULL":
        text = f"is {value or 'unknown'}: changes lack the columns that were not changed"
        yield "stop", "binlog_row_image", text, _set(subject, "binlog_row_image", "FULL")


@_check("binlog-json", "JSON is logged whole", _cdc)
def _partial_json(subject: Subject) -> Hits:
    value = subject.facts.value("binlog_row_value_options")
    if "PARTIAL_JSON" in value.upper():
        text = f"is {value}: a change of a document is logged in part, and DMS needs the whole"
        yield "stop", "binlog_row_value_options", text, _set(subject, "binlog_row_value_options", "''")


@_check("binlog-checksum", "DMS reads the log's checksums, or there are none", _cdc)
def _checksum(subject: Subject) -> Hits:
    value = subject.facts.value("binlog_checksum")
    if value.upper() == "NONE" or _is_newer(subject):
        return
    version = (
        f"DMS {subject.engine_version}" if subject.engine_version else "DMS before 3.4.8, and its version is unknown,"
    )
    fix = f"{_set(subject, 'binlog_checksum', 'NONE')}, or use an instance of a later engine version"
    yield "stop", "binlog_checksum", f"is {value or 'unknown'}: {version} reads no log with checksums", fix


def _is_newer(subject: Subject) -> bool:
    if subject.spec.compute.kind == "serverless":  # younger than that version
        return True
    numbers = tuple(int(part) for part in re.findall(r"\d+", subject.engine_version))
    return numbers >= CHECKSUM_SINCE


@_check("binlog-compression", "transactions are logged without compression", _cdc)
def _compression(subject: Subject) -> Hits:
    if subject.facts.is_on("binlog_transaction_compression"):
        text = "is ON: DMS reads no compressed transactions"
        fix = _set(subject, "binlog_transaction_compression", "OFF")
        yield "stop", "binlog_transaction_compression", text, fix


@_check("aurora-enhanced-binlog", "the binary log is an ordinary one", _cdc)
def _enhanced(subject: Subject) -> Hits:
    if subject.facts.is_on("aurora_enhanced_binlog"):
        text = "is on: DMS does not read Aurora's enhanced binary log"
        yield (
            "stop",
            "aurora_enhanced_binlog",
            text,
            "Set it to 0 in the cluster parameter group, and reboot the writer",
        )


@_check("server-id", "the server has an id", _cdc)
def _server_id(subject: Subject) -> Hits:
    value = subject.facts.value("server_id")
    if not (value.isdigit() and int(value) >= 1):
        text = f"is {value or 'unknown'}: nobody may follow a server without an id"
        yield "stop", "server_id", text, _set(subject, "server_id", "1 or more")


@_check("gtid", "", _cdc)
def _gtid(subject: Subject) -> Hits:
    mode = subject.facts.value("gtid_mode") or "OFF"
    text = f"is {mode}; DMS goes by log file and position, so after a failover to another server its position is lost"
    yield "ok", "gtid_mode", text, ""


@_check("binlog-filters", "every selected schema is logged", _cdc)
def _filters(subject: Subject) -> Hits:
    facts = subject.facts
    if facts.log_filters is None:
        yield "stop", "binlog_do_db, binlog_ignore_db", "cannot be read", _LOG_GRANT
        return
    only, without = facts.log_filters
    for schema in sorted({one.table.schema for one in facts.selected}):
        if schema in without or (only and schema not in only):
            text = "is left out of the binary log (binlog_do_db, binlog_ignore_db): its changes are nowhere"
            yield "stop", schema, text, "Take the filter out of my.cnf, and restart"


@_check("log-replica-updates", "what a replica applies is in its log", _cdc)
def _replica_updates(subject: Subject) -> Hits:
    facts = subject.facts
    if facts.is_replica is False or facts.is_on("log_replica_updates", "log_slave_updates"):
        return
    kind = "is a replica" if facts.is_replica else "may be a replica (its status cannot be read)"
    name = "log_replica_updates" if facts.value("log_replica_updates") else "log_slave_updates"
    fix = f"Set {name} = ON, and restart" + ("" if facts.is_replica else f"; or {_LOG_GRANT}")
    yield "stop", name, f"is {facts.value(name) or 'unknown'}: this server {kind}, whose log lacks what it applies", fix


@_check("aurora-reader", "it is not a reader of an Aurora cluster", _cdc)
def _reader(subject: Subject) -> Hits:
    if subject.facts.is_aurora_reader:
        text = "is ON: a reader of an Aurora cluster has no binary log"
        yield (
            "stop",
            "innodb_read_only",
            text,
            "Use the cluster's writer endpoint, for a task of type full-load only a reader will do",
        )


@_check("replica-source", "it is a primary server")
def _replica(subject: Subject) -> Hits:
    facts = subject.facts
    if facts.is_replica is None:
        yield "warning", "replication", "of this server cannot be read", _LOG_GRANT
    elif facts.is_replica and facts.replica_lag_s is None:
        yield (
            "stop",
            "replication",
            "of this replica does not run: it shows rows of the past",
            "Start it, or use the primary",
        )
    elif facts.is_replica:
        lag = f"is a replica, {facts.replica_lag_s:g} s behind"
        if subject.spec.has_load and subject.spec.has_cdc:
            text = f"{lag}: a transaction that arrives while the task starts can be missing at the target"
            yield "warning", "source", text, "Use the primary, or stop writes while the task starts"
        else:
            yield "ok", "source", lag, ""


@_check("retention", "", _cdc)
def _retention(subject: Subject) -> Hits:
    hours = subject.facts.retention_hours
    least = max(DAY_H, subject.spec.limits.load_hours if subject.spec.has_load else 0, subject.load_hours * HEADROOM)
    fix = _keep(subject, math.ceil(least))
    if hours is None:
        grant = "GRANT SELECT ON mysql.rds_configuration to our login"
        yield "stop", "retention", "of the binary log cannot be read", grant
        return
    if hours == NEVER:
        yield "ok", "retention", "of the binary log has no end; watch the server's disk", ""
        return
    load = (
        f"a load takes about {subject.load_hours:,.1f} h at {subject.speed}"
        if subject.spec.has_load
        else "nothing is loaded"
    )
    kept = (
        f"of the binary log is {hours:g} h"
        if hours
        else "of the binary log is not set: it is purged as soon as possible"
    )
    if hours == 0 or hours < subject.load_hours * HEADROOM:
        yield "stop", "retention", f"{kept}, and {load}; a task that stops for longer cannot go on", fix
    elif hours < least:
        yield "warning", "retention", f"{kept}, less than {least:g} h; {load}", fix
    else:
        yield "ok", "retention", f"{kept}; {load}", ""


def _keep(subject: Subject, hours: int) -> str:
    if subject.facts.is_managed:
        return f"CALL mysql.rds_set_configuration('binlog retention hours', {hours})"
    if "binlog_expire_logs_seconds" in subject.facts.variables:
        return f"SET GLOBAL binlog_expire_logs_seconds = {hours * 3600}, and set it in my.cnf"
    return f"SET GLOBAL expire_logs_days = {math.ceil(hours / 24)}, and set it in my.cnf"


@_check("binlog-files", "", _cdc)
def _files(subject: Subject) -> Hits:
    facts = subject.facts
    if facts.logs is None:
        yield "stop", "binary logs", "cannot be listed", _LOG_GRANT
        return
    for log in facts.logs:
        if log.size_bytes > LARGEST_LOG:
            text = f"has {log.size_bytes:,} bytes, and DMS reads no log of more than 4 GB"
            yield "warning", log.name, text, "Write smaller transactions; begin after this log"
    age = facts.oldest_log_hours
    told = "of unknown age" if age is None else f"about {age:,.1f} h old, by the rate of writing"
    size = sum(log.size_bytes for log in facts.logs)
    oldest = facts.logs[0].name if facts.logs else "none"
    yield "ok", "binary logs", f"{len(facts.logs)} files of {size:,} bytes; the oldest, {oldest}, is {told}", ""


# The server ----------------------------------------------------------------------------------------------------------


@_check("load-time", "", _load)
def _load_time(subject: Subject) -> Hits:
    hours, most = subject.load_hours, subject.spec.limits.load_hours
    text = f"of {subject.facts.bytes_to_load:,} bytes takes about {hours:,.1f} h at {subject.speed}"
    if hours <= most:
        yield "ok", "load", text, ""
        return
    fix = "Raise limits.load_hours, or divide the tables among tasks"
    yield "stop" if subject.bytes_per_s else "warning", "load", f"{text}, and limits.load_hours is {most:g}", fix


@_check("timeouts", "sessions of a long load are not cut", _load)
def _timeouts(subject: Subject) -> Hits:
    if subject.load_hours <= LONG_LOAD_H:
        return
    for name in ("net_read_timeout", "net_write_timeout", "wait_timeout"):
        value = subject.facts.value(name)
        if not value.isdigit() or int(value) < TIMEOUT_S:
            text = f"is {value or 'unknown'} s, which cuts a load that takes about {subject.load_hours:,.1f} h"
            yield "warning", name, text, _set(subject, name, str(TIMEOUT_S))


@_check("statement-limit", "no statement of a load is ended by the server", _load)
def _statement_limit(subject: Subject) -> Hits:
    value = subject.facts.value("max_execution_time")
    limit_h = int(value) / 3_600_000 if value.isdigit() else 0.0
    if not limit_h:
        return
    largest = max((one.shape.data_bytes for one in subject.facts.selected), default=0)
    hours = largest / (subject.bytes_per_s or ASSUMED_BYTES_PER_S) / 3600
    text = f"is {value} ms: the server ends every SELECT after that, and the largest table takes about {hours:,.2f} h"
    yield (
        "stop" if hours >= limit_h else "warning",
        "max_execution_time",
        text,
        _set(subject, "max_execution_time", "0"),
    )


@_check("max-allowed-packet", "the longest value fits into a packet")
def _packet(subject: Subject) -> Hits:
    value = subject.facts.value("max_allowed_packet")
    most = int(value) if value.isdigit() else 0
    for one in subject.facts.selected:
        for name, longest in one.longest.items():
            if longest > most:
                text = f"holds {longest:,} bytes, and max_allowed_packet is {most:,}"
                yield "stop", f"{one.table}.{name}", text, _set(subject, "max_allowed_packet", str(2 * longest))


@_check("secure-transport", "the endpoint may connect as it is declared")
def _transport(subject: Subject) -> Hits:
    source = subject.spec.source
    if source.kind != "existing" and source.ssl_mode == "none" and subject.facts.is_on("require_secure_transport"):
        text = "is none, and the server refuses connections without TLS (require_secure_transport)"
        yield "stop", "source.ssl_mode", text, "Set it to require, verify-ca or verify-full"


@_check("time-zone", "times are read as they are written")
def _time_zone(subject: Subject) -> Hits:
    """Rows of a load come in the zone of the session, those of the log in UTC: both are the same only if DMS knows the server's."""
    if not any(subject.columns("timestamp")):
        return
    facts = subject.facts
    is_system = facts.value("time_zone").upper() == "SYSTEM"
    zone = facts.value("system_time_zone" if is_system else "time_zone")
    where, is_utc = "ServerTimezone", zone.upper() in _UTC
    fix = f"Set ServerTimezone to {zone or 'the zone of the server'} in the settings of the source endpoint"
    if subject.source is None:
        status: CheckStatus = "warning"
        yield status, where, f"of the endpoint is unknown, and the server's zone is {zone or 'unknown'}", fix
        return
    given = attribute(subject.source, "ServerTimezone")
    if (is_utc and given.upper() in {"", *_UTC}) or (zone and given.upper() == zone.upper()):
        return
    text = f"is {given or 'not set'}, and the zone of the server is {zone or 'unknown'}"
    if is_system and given and not is_utc:  # an abbreviation such as CEST, which names no zone
        yield (
            "warning",
            where,
            f"{text}; whether they are the same is not known",
            "Set time_zone of the server to a named zone",
        )
    else:
        remove = "Remove ServerTimezone from the settings of the source endpoint"
        yield "stop", where, f"{text}: timestamps would be shifted", remove if is_utc else fix


# Login ---------------------------------------------------------------------------------------------------------------


@_check("grants", "")
def _grants(subject: Subject) -> Hits:
    login = subject.facts.login
    if login is None:
        text = "is not named, so nobody knows what it is granted"
        yield "warning", "login of DMS", text, "Name it in the run, and see docs/dms.md for what it needs"
        return
    if login.accounts is None:
        text = f"cannot be asked for its grants: {login.reason}"
        yield "warning", login.name, text, "GRANT SELECT ON mysql.* to our login, or look at SHOW GRANTS yourself"
        return
    if not login.accounts:
        yield (
            "stop",
            login.name,
            f"does not exist: {login.reason}",
            "CREATE USER, and see docs/dms.md for what it needs",
        )
        return
    lacking = list(_lacking(subject, login))
    yield from lacking
    if not lacking:
        yield "ok", login.name, f"({named([one.name for one in login.accounts])}) is granted what DMS needs", ""


def _lacking(subject: Subject, login: Login) -> Hits:
    for account in login.accounts or ():
        for privilege in ("REPLICATION CLIENT", "REPLICATION SLAVE") if subject.spec.has_cdc else ():
            if not mysql.granted_on_server(account.grants, privilege):
                yield "stop", account.name, f"lacks {privilege}", f"GRANT {privilege} ON *.* TO {account.name}"
        hidden = [
            one.table for one in subject.facts.selected if not mysql.granted(account.grants, "SELECT", *one.table)
        ]
        if hidden:
            first = f"GRANT SELECT ON {ident(tuple(hidden[0]))} TO {account.name}"
            more = ", and on each of the others" if len(hidden) > 1 else ""
            text = f"lacks SELECT on {named([str(one) for one in hidden])}: DMS does not see them, and goes on without"
            yield "stop", account.name, text, first + more


@_check("visibility", "our login sees every table that the mappings can select")
def _visibility(subject: Subject) -> Hits:
    """information_schema shows a login only what it is granted: a rule with a wildcard may select more than we see."""
    for rule in subject.rules:
        if rule["rule-type"] != SELECTION or rule.get("rule-action") == "exclude":
            continue
        schema, name = (str(rule["object-locator"].get(key) or "%") for key in ("schema-name", "table-name"))
        literal = [part.replace("[_]", "_") for part in (schema, name)]
        wanted = [
            "*" if mappings.has_wildcard(part) else plain for part, plain in zip((schema, name), literal, strict=True)
        ]
        if rule.get("rule-action") == "explicit":
            wanted = [schema, name]
        if wanted[0] == "*":
            sees = mysql.granted_on_server(subject.facts.own_grants, "SELECT")
        else:
            sees = mysql.granted(subject.facts.own_grants, "SELECT", *wanted)
        if not sees:
            text = f"selects {schema}.{name}, and our login is not granted SELECT on all of that: tables can be hidden from it"
            yield "warning", f"rule {rule['rule-id']}", text, f"GRANT SELECT ON {'.'.join(wanted)} to our login"


# Tables --------------------------------------------------------------------------------------------------------------


@_check("table-count", "the number of tables is one that a task takes")
def _count(subject: Subject) -> Hits:
    if (tables := len(subject.facts.selected)) > MOST_TABLES:
        yield "warning", "mappings", f"select {tables:,} tables, more than {MOST_TABLES:,}", "Divide them among tasks"


@_check("row-key", "every table has a key that names its rows")
def _row_key(subject: Subject) -> Hits:
    engine, fix = subject.spec.target_engine, "Add a PRIMARY KEY"
    for one in subject.facts.selected:
        if one.shape.row_key is not None:
            continue
        text = "has neither a primary key nor a unique one of whole columns that are NOT NULL"
        if engine == "kinesis" and subject.spec.has_cdc and _by_key(subject, one):
            yield "stop", str(one.table), f"{text}, and its changes are partitioned by key", fix
        elif subject.is_relational and subject.spec.has_cdc:
            yield "stop", str(one.table), f"{text}: a change that is applied twice doubles or loses rows", fix
        elif engine == "dynamodb" and not mappings.of_table(subject.rules, OBJECT_MAPPING, one.table):
            yield "stop", str(one.table), f"{text}, of which an item's key could be made", fix
        else:
            yield "warning", str(one.table), f"{text}: nobody can tell two equal rows apart", fix


def _by_key(subject: Subject, one: SourceTable) -> bool:
    rules = mappings.of_table(subject.rules, OBJECT_MAPPING, one.table)
    return any((rule.get("mapping-parameters") or {}).get("partition-key-type") == "primary-key" for rule in rules)


@_check("engine", "every table is InnoDB")
def _engine(subject: Subject) -> Hits:
    for one in subject.facts.selected:
        if one.shape.engine.lower() != "innodb":
            text = (
                f"is {one.shape.engine or 'of unknown engine'}: it is read while it changes, without one point in time"
            )
            yield "warning", str(one.table), text, f"ALTER TABLE {ident(tuple(one.table))} ENGINE = InnoDB"


@_check("names", "no name has a quote in it")
def _names(subject: Subject) -> Hits:
    for one in subject.facts.selected:
        for name in (*one.table, *(column.name for column in one.shape.columns)):
            if "`" in name or "'" in name:
                yield "stop", str(one.table), f"has the name {name!r}: DMS takes none with a quote", "Rename it"


@_check("generated-columns", "no column is generated")
def _generated(subject: Subject) -> Hits:
    for one, column in subject.columns():
        if not column.is_generated or _is_left_out(subject, one, column.name):
            continue
        where, text = f"{one.table}.{column.name}", "is generated: DMS captures no change of it"
        if not subject.is_relational:
            yield "stop", where, f"{text}, so the target keeps the value of the load", _leave_out(column.name)
        elif subject.makes_tables:
            yield "stop", where, f"{text}, and makes an ordinary column of it", _BY_HAND
        else:
            yield "warning", where, text, f"{_leave_out(column.name)}, and generate it at the target"


def _leave_out(name: str) -> str:
    return f"Leave {name} out by a rule with remove-column (exclude-columns for DynamoDB)"


def _is_left_out(subject: Subject, one: SourceTable, name: str) -> bool:
    """Whether a rule of the mappings keeps the column from the target."""
    rules = mappings.of_table(subject.rules, "transformation", one.table)
    named = [
        (rule.get("rule-action"), str((rule.get("object-locator") or {}).get("column-name", "%"))) for rule in rules
    ]
    kept = [pattern for action, pattern in named if action == "include-column"]
    if kept and not any(mappings.matches(pattern, name) for pattern in kept):
        return True
    if any(action == "remove-column" and mappings.matches(pattern, name) for action, pattern in named):
        return True
    objects = mappings.of_table(subject.rules, OBJECT_MAPPING, one.table)
    return any(name in ((rule.get("mapping-parameters") or {}).get("exclude-columns") or ()) for rule in objects)


@_check("invisible-columns", "every column is visible")
def _invisible(subject: Subject) -> Hits:
    for one in subject.facts.selected:
        for name in one.invisible:
            if not _is_left_out(subject, one, name):
                alter = f"ALTER TABLE {ident(tuple(one.table))} ALTER COLUMN {ident(name)} SET VISIBLE"
                yield "stop", f"{one.table}.{name}", "is invisible: DMS leaves it out without a word", alter


@_check("partitions", "no table is partitioned")
def _partitions(subject: Subject) -> Hits:
    skips = attribute(subject.source or {}, "skipTableSuspensionForPartitionDdl").lower() == "true"
    for one in subject.facts.selected:
        if one.is_partitioned and subject.makes_tables:
            text = "is partitioned: DMS makes the target's table without partitions"
            yield "warning", str(one.table), text, _BY_HAND
        if one.is_partitioned and subject.spec.has_cdc and not skips:
            fix = (
                "Add skipTableSuspensionForPartitionDdl=true to the extra connection attributes of the source endpoint"
            )
            yield "warning", str(one.table), "is partitioned: adding or dropping a partition suspends the table", fix


@_check("cascades", "no row changes by a foreign key", _cdc)
def _cascades(subject: Subject) -> Hits:
    for one in subject.facts.selected:
        for key in one.cascades:
            text = f"has the foreign key {key}: InnoDB changes its rows without writing that to the binary log, so it is lost"
            fix = "Change the rows in the application, and make the key RESTRICT"
            if subject.is_relational:
                fix += "; or give the target the same key and leave its foreign key checks on"
            yield "stop", str(one.table), text, fix


@_check("charsets", "every text is of a character set that is carried")
def _charsets(subject: Subject) -> Hits:
    odd: dict[str, list[str]] = {}
    for one, column in subject.columns():
        if column.charset and column.charset.lower() not in CHARSETS:
            odd.setdefault(column.charset, []).append(f"{one.table}.{column.name}")
    for charset, where in sorted(odd.items()):
        text = f"{'is' if len(where) == 1 else 'are'} {charset}, which DMS converts: letters can be lost"
        yield "warning", named(where), text, "Compare its rows after the load, or convert the column to utf8mb4"


@_check("types", "every type arrives as what it is")
def _types(subject: Subject) -> Hits:
    is_dynamodb, notes = subject.spec.target_engine == "dynamodb", dict[str, list[str]]()
    for one, column in subject.columns("bit", *SPATIAL, *_NOTES):
        if _is_left_out(subject, one, column.name):
            continue
        where = f"{one.table}.{column.name}"
        if column.data_type in _NOTES:
            notes.setdefault(column.data_type, []).append(where)
        elif is_dynamodb and (column.data_type != "bit" or (column.numeric_precision or 1) > 1):
            text = f"is {column.column_type}, which DMS takes for bytes and does not carry to DynamoDB"
            yield "stop", where, text, _leave_out(column.name)
        elif column.data_type != "bit":
            text = f"is {column.column_type}, which DMS carries as a BLOB"
            yield "warning", where, text, "Compare its rows after the load"
    for kind, columns in sorted(notes.items()):
        yield "ok", named(columns), _NOTES[kind], ""


_NOTES = {
    "enum": "ENUM is carried as text", "set": "SET is carried as text with commas",
    "json": "JSON is carried as a large object: what is cut is no JSON any more", "time": "TIME is carried as text",
    "year": "YEAR is carried as a number",
}  # fmt: skip


# Large objects -------------------------------------------------------------------------------------------------------


@_check("lob-measured", "the longest value of every large column is known")
def _measured(subject: Subject) -> Hits:
    for one in subject.facts.selected:
        limit = lint.lob_limit(subject.rules, subject.settings, one.table)
        for name, why in one.unmeasured.items():
            where, newest = f"{one.table}.{name}", one.newest.get(name)
            if limit and newest is not None and newest > limit:
                text = f"holds {newest:,} bytes or more, and {limit:,} are carried"
                yield "stop", where, text, "Raise LobMaxSize above the longest value"
            else:
                seen = "" if newest is None else f"; the newest rows hold {newest:,} bytes at most"
                yield (
                    "warning",
                    where,
                    f"was not measured: {why}{seen}",
                    "Give it more time, or measure it on a replica",
                )


@_check("lob-headroom", "large columns have room to grow")
def _headroom(subject: Subject) -> Hits:
    """A cut value is a stop of the linter; a longest value that is close to the limit will be one."""
    for one in subject.facts.selected:
        limit = lint.lob_limit(subject.rules, subject.settings, one.table) or 0
        for name, longest in one.longest.items():
            if limit / 2 < longest <= limit:
                text = f"holds {longest:,} bytes, and {limit:,} are carried: a value twice as long would be cut"
                yield "warning", f"{one.table}.{name}", text, "Raise LobMaxSize"


# Canary --------------------------------------------------------------------------------------------------------------


@_check("canary", "the canary's table is as it must be", lambda spec: spec.canary is not None)
def _canary(subject: Subject) -> Hits:
    wanted = subject.spec.canary_table
    found = next((one for one in subject.facts.selected if one.table == wanted), None)
    fix = "Create it as include/sql/dms/canary.sql says"
    if found is None:
        yield "stop", str(wanted), "does not exist, or our login may not see it", fix
        return
    missing = [column for column in ("id", "token", "written_at") if found.shape.column(column) is None]
    if missing:
        yield "stop", str(wanted), f"has no column {', '.join(missing)}", fix
    elif [column.lower() for column in found.primary_key] != ["id"]:
        yield "stop", str(wanted), f"has the primary key ({', '.join(found.primary_key)}), not (id)", fix
