"""Rules for settings and mappings: what would lose rows, hide errors or come out wrong at the target, each with its reason.

A rule that needs facts of the source's tables, and was not given them, holds what it cannot see against the spec, or is about settings
alone. A spec may override a rule by its id with a reason. Sources: DMS user guide, pages of task settings, of the MySQL source and of
each target.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from dbops.dms import endpoints, mappings, settings
from dbops.dms.mappings import OBJECT_MAPPING, SELECTION, TABLE_SETTINGS, Table
from dbops.dms.spec import RELATIONAL, DmsSpec
from dbops.mysql import Column

Level = Literal["error", "warning"]
LOB_TYPES = frozenset(
    {"tinytext", "text", "mediumtext", "longtext", "tinyblob", "blob", "mediumblob", "longblob", "json"}
)
BINARY_TYPES = frozenset({"tinyblob", "blob", "mediumblob", "longblob", "binary", "varbinary", "geometry"})
KIB = 1024
_SILENT = frozenset({"LOG_ERROR", "IGNORE_RECORD"})
_DATA = ("IGNORE_RECORD", "LOG_ERROR", "SUSPEND_TABLE", "STOP_TASK")
_ESCALATION = ("SUSPEND_TABLE", "STOP_TASK")
_VALUES: dict[str, tuple[str | None, ...]] = {
    "ErrorBehavior.DataErrorPolicy": _DATA,
    "ErrorBehavior.DataTruncationErrorPolicy": _DATA,
    "ErrorBehavior.DataErrorEscalationPolicy": _ESCALATION,
    "ErrorBehavior.TableErrorPolicy": _ESCALATION,
    "ErrorBehavior.TableErrorEscalationPolicy": _ESCALATION,
    "ErrorBehavior.ApplyErrorDeletePolicy": _DATA,
    "ErrorBehavior.ApplyErrorInsertPolicy": (*_DATA, "INSERT_RECORD", "UPDATE_RECORD"),
    "ErrorBehavior.ApplyErrorUpdatePolicy": (*_DATA, "INSERT_RECORD", "UPDATE_RECORD"),
    "ErrorBehavior.ApplyErrorEscalationPolicy": ("LOG_ERROR", *_ESCALATION),
    "FullLoadSettings.TargetTablePrepMode": ("DO_NOTHING", "DROP_AND_CREATE", "TRUNCATE_BEFORE_LOAD"),
    "BeforeImageSettings.ColumnFilter": ("pk-only", "non-lob", "all", None),
}
_RANGES: dict[str, dict[str, tuple[int, int]]] = {
    "FullLoadSettings.MaxFullLoadSubTasks": {"": (1, 49)},
    "FullLoadSettings.CommitRate": {"": (1, 50_000)},
    "TargetMetadata.LobMaxSize": {"": (1, 102_400)},
    "TargetMetadata.ParallelLoadThreads": {"dynamodb": (0, 200), "kinesis": (0, 32)},
    "TargetMetadata.ParallelApplyThreads": {"kinesis": (0, 32)},
}
"""Limits of a number, by engine of the target; "" for any."""


@dataclass(frozen=True)
class TableFacts:
    """A table of the source. ``longest_bytes`` is measured, by column; None when nobody measured."""

    table: Table
    columns: tuple[Column, ...]
    primary_key: tuple[str, ...] = ()
    longest_bytes: Mapping[str, int] | None = None

    @property
    def lobs(self) -> tuple[Column, ...]:
        """Columns that DMS takes for large objects."""
        return tuple(column for column in self.columns if column.data_type.lower() in LOB_TYPES)


@dataclass(frozen=True)
class Facts:
    """What is known beside the spec; None where nobody asked."""

    tables: tuple[TableFacts, ...] | None = None
    """Every table of the source."""
    target_settings: Mapping[str, Any] | None = None
    """Settings of a target endpoint that exists, as AWS answers them."""


@dataclass(frozen=True)
class Finding:
    """What a rule holds against the spec. ``overridden`` is the reason that the spec gives, "" when it stands."""

    rule: str
    level: Level
    where: str
    text: str
    reason: str
    fix: str
    overridden: str = ""

    @property
    def stops(self) -> bool:
        """Whether the task must not be started like this."""
        return self.level == "error" and not self.overridden


@dataclass(frozen=True)
class _Subject:
    spec: DmsSpec
    facts: Facts
    settings: Mapping[str, Any]
    rules: tuple[dict[str, Any], ...]
    selected: tuple[TableFacts, ...] | None
    target: Mapping[str, Any]
    """Settings of the target endpoint; empty when they are unknown."""

    @property
    def engine(self) -> str:
        return self.spec.target_engine

    def get(self, path: str) -> Any:
        return settings.get(self.settings, path)


Hits = Iterator[tuple[str, str]]
"""Where, and what is there."""


@dataclass(frozen=True)
class Rule:
    """One rule: why it matters, and what to do."""

    id: str
    level: Level
    reason: str
    fix: str
    look: Callable[[_Subject], Hits]


RULES: list[Rule] = []


def _rule(rule_id: str, level: Level, reason: str, fix: str) -> Callable[[Callable[[_Subject], Hits]], None]:
    def add(look: Callable[[_Subject], Hits]) -> None:
        RULES.append(Rule(rule_id, level, reason, fix, look))

    return add


def lint(spec: DmsSpec, facts: Facts = Facts()) -> tuple[Finding, ...]:
    """What speaks against the spec, errors first."""
    chosen = None
    if facts.tables is not None:
        taken = set(mappings.selected(spec.rules, [each.table for each in facts.tables]))
        chosen = tuple(each for each in facts.tables if each.table in taken)
    target = spec.target
    held = (facts.target_settings or {}) if target.kind == "existing" else endpoints.settings(target)
    subject = _Subject(spec, facts, settings.effective(spec.settings), spec.rules, chosen, held)
    found = [
        Finding(rule.id, rule.level, where, text, rule.reason, rule.fix, spec.overrides.get(rule.id, ""))
        for rule in RULES
        for where, text in rule.look(subject)
    ]
    return tuple(sorted(found, key=lambda one: (not one.stops, one.level)))


def unknown_overrides(spec: DmsSpec, others: Iterable[str] = ()) -> tuple[str, ...]:
    """Overrides of rules that do not exist; `others` are ids of checks that are made elsewhere."""
    return tuple(sorted(set(spec.overrides) - {rule.id for rule in RULES} - set(others)))


# Settings ------------------------------------------------------------------------------------------------------------


@_rule("unknown-value", "error", "DMS refuses the task, or takes its default without a word", "Write one of the values")
def _unknown_value(subject: _Subject) -> Hits:
    for path, allowed in _VALUES.items():
        if (value := subject.get(path)) not in allowed:
            yield path, f"{value!r} is none of {', '.join(one for one in allowed if one)}"


@_rule("out-of-range", "error", "DMS refuses the task, or cuts the number to its own limit", "Keep to the limits")
def _out_of_range(subject: _Subject) -> Hits:
    for path, by_engine in _RANGES.items():
        limits = by_engine.get(subject.engine) or by_engine.get("")
        value = subject.get(path)
        if limits and not (isinstance(value, int) and limits[0] <= value <= limits[1]):
            yield path, f"{value!r} is not between {limits[0]} and {limits[1]}"


@_rule(
    "truncation-silent", "error", "A value that is cut is only written to the log, and the row counts as loaded",
    "Set it to STOP_TASK or SUSPEND_TABLE",
)  # fmt: skip
def _truncation(subject: _Subject) -> Hits:
    yield from _silent(subject, "ErrorBehavior.DataTruncationErrorPolicy")


@_rule(
    "data-error-silent", "error", "A row that cannot be converted is left out, and the task goes on as if it were there",
    "Set it to SUSPEND_TABLE or STOP_TASK",
)  # fmt: skip
def _data_error(subject: _Subject) -> Hits:
    yield from _silent(subject, "ErrorBehavior.DataErrorPolicy")


@_rule(
    "apply-error-silent", "error", "A change that the target refuses is lost, and the task goes on",
    "Set it to SUSPEND_TABLE or STOP_TASK; for a target that may have the row already, to UPDATE_RECORD or INSERT_RECORD",
)  # fmt: skip
def _apply_error(subject: _Subject) -> Hits:
    if subject.spec.has_cdc:
        yield from _silent(subject, "ErrorBehavior.ApplyErrorInsertPolicy")
        yield from _silent(subject, "ErrorBehavior.ApplyErrorUpdatePolicy")


@_rule(
    "delete-error-silent", "warning", "A DELETE that finds no row is left out: a row that came by another key stays for ever",
    "Set it to SUSPEND_TABLE, or say in overrides why it may be missing",
)  # fmt: skip
def _delete_error(subject: _Subject) -> Hits:
    if subject.spec.has_cdc:
        yield from _silent(subject, "ErrorBehavior.ApplyErrorDeletePolicy")


def _silent(subject: _Subject, path: str) -> Hits:
    if subject.get(path) in _SILENT:
        yield path, f"is {subject.get(path)}{_by_default(subject, path)}"


def _by_default(subject: _Subject, path: str) -> str:
    return "" if settings.get(subject.spec.settings, path) is not None else ", the default"


@_rule(
    "no-tables-captured", "error", "Mappings that match no table are a task that runs and moves nothing",
    "Set ErrorBehavior.FailOnNoTablesCaptured to true",
)  # fmt: skip
def _no_tables(subject: _Subject) -> Hits:
    path = "ErrorBehavior.FailOnNoTablesCaptured"
    if subject.get(path) is not True:
        yield path, f"is {subject.get(path)}{_by_default(subject, path)}"


@_rule(
    "unbounded-restarts", "error", "A task that restarts for ever is running on every page and replicates nothing",
    "Set a limit, for example 20",
)  # fmt: skip
def _unbounded(subject: _Subject) -> Hits:
    path = "ErrorBehavior.RecoverableErrorCount"
    value = subject.get(path)
    if not isinstance(value, int) or value < 0:
        yield path, f"is {value!r}{_by_default(subject, path)}, without a limit"


@_rule(
    "logging-off", "warning", "Without the log nobody can say why a table failed", "Set Logging.EnableLogging to true"
)
def _logging(subject: _Subject) -> Hits:
    if subject.get("Logging.EnableLogging") is not True:
        yield "Logging.EnableLogging", f"is {subject.get('Logging.EnableLogging')}"


@_rule(
    "stops-contradict", "error", "DMS can stop before or after it applies cached changes, not both", "Keep one of them",
)  # fmt: skip
def _stops(subject: _Subject) -> Hits:
    names = ("StopTaskCachedChangesApplied", "StopTaskCachedChangesNotApplied")
    if all(subject.get(f"FullLoadSettings.{name}") is True for name in names):
        yield "FullLoadSettings", f"{names[0]} and {names[1]} are both true"


@_rule(
    "empties-target", "warning", "Every load and reload first drops or empties the tables of the target",
    "Set FullLoadSettings.TargetTablePrepMode to DO_NOTHING for a target that others read or write",
)  # fmt: skip
def _empties(subject: _Subject) -> Hits:
    path = "FullLoadSettings.TargetTablePrepMode"
    if empties_target(subject.spec):
        yield path, f"is {subject.get(path)}{_by_default(subject, path)}"


def empties_target(spec: DmsSpec) -> bool:
    """Whether a load of this task drops or empties tables of the target before it writes."""
    mode = settings.get(settings.effective(spec.settings), "FullLoadSettings.TargetTablePrepMode")
    return spec.has_load and spec.target_engine in {*RELATIONAL, "dynamodb", "s3"} and mode != "DO_NOTHING"


@_rule(
    "ddl-follows", "warning", "What is dropped or emptied at the source is dropped or emptied at the target",
    "Set it to false while the target must outlive the source",
)  # fmt: skip
def _ddl(subject: _Subject) -> Hits:
    for name in ("HandleSourceTableDropped", "HandleSourceTableTruncated"):
        path = f"ChangeProcessingDdlHandlingPolicy.{name}"
        if subject.spec.has_cdc and subject.engine in RELATIONAL and subject.get(path) is not False:
            yield path, f"is {subject.get(path)}{_by_default(subject, path)}"


@_rule(
    "duplicate-rows", "error", "A load into a table that keeps its rows writes those without a key once more at every repetition",
    "Add a primary key, or set TargetTablePrepMode to TRUNCATE_BEFORE_LOAD",
)  # fmt: skip
def _duplicates(subject: _Subject) -> Hits:
    if subject.engine not in RELATIONAL or empties_target(subject.spec) or not subject.spec.has_load:
        return
    for each in subject.selected or ():
        if not each.primary_key:
            yield str(each.table), "has no primary key, and TargetTablePrepMode is DO_NOTHING"


@_rule(
    "validation-unsupported", "error", "DMS validates relational targets and S3 only; elsewhere the setting proves nothing",
    "Set it to false; rows are compared by the run",
)  # fmt: skip
def _validation(subject: _Subject) -> Hits:
    if subject.get("ValidationSettings.EnableValidation") is True and subject.engine not in {*RELATIONAL, "s3"}:
        yield "ValidationSettings.EnableValidation", f"is true with a target of engine {subject.engine}"


@_rule(
    "no-canary",
    "warning",
    "Latencies are 0 too when nothing is read: only a row that arrives proves that changes do",
    "Declare a canary",
)
def _no_canary(subject: _Subject) -> Hits:
    if subject.spec.has_cdc and subject.spec.canary is None:
        yield "canary", "is not declared"


# Large objects -------------------------------------------------------------------------------------------------------


def lob_limit(rules: Iterable[Mapping[str, Any]], effective: Mapping[str, Any], table: Table) -> int | None:
    """Bytes to which a large object of the table is cut; None when it is carried whole, 0 when not at all.

    Args:
        rules: of the mappings
        effective: settings of the task, with their defaults
        table: of the source
    """
    for rule in mappings.of_table(rules, TABLE_SETTINGS, table):
        own = rule.get("lob-settings") or {}
        if own.get("mode") == "unlimited":
            return None
        if own.get("mode") == "limited":
            return int(own.get("max-size") or own.get("bulk-max-size") or 0) * KIB
        if own.get("mode") == "none":
            return 0
    if settings.get(effective, "TargetMetadata.SupportLobs") is not True:
        return 0
    if settings.get(effective, "TargetMetadata.FullLobMode") is True:
        return None
    size = settings.get(effective, "TargetMetadata.LobMaxSize")
    return size * KIB if isinstance(size, int) else 0


def _lob_limit(subject: _Subject, table: Table) -> int | None:
    return lob_limit(subject.rules, subject.settings, table)


@_rule(
    "lob-cut", "error", "Limited LOB mode cuts larger values, with a warning in the log only",
    "Raise TargetMetadata.LobMaxSize above the longest value, or give the table lob-settings",
)  # fmt: skip
def _lob_cut(subject: _Subject) -> Hits:
    for each in subject.selected or ():
        limit = _lob_limit(subject, each.table)
        for column in each.lobs:
            longest = (each.longest_bytes or {}).get(column.name)
            if limit and longest is not None and longest > limit:
                yield f"{each.table}.{column.name}", f"holds {longest:,} bytes, and {limit:,} are carried"


@_rule(
    "lob-unmeasured", "warning", "Whether limited LOB mode cuts a value depends on the longest one, which nobody has measured",
    "Let the preflight measure it",
)  # fmt: skip
def _lob_unmeasured(subject: _Subject) -> Hits:
    if subject.selected is None:
        if subject.get("TargetMetadata.SupportLobs") is True and subject.get("TargetMetadata.FullLobMode") is not True:
            size = subject.get("TargetMetadata.LobMaxSize")
            yield "TargetMetadata.LobMaxSize", f"is {size} KB, and the tables are unknown"
        return
    for each in subject.selected:
        if _lob_limit(subject, each.table):
            for column in each.lobs:
                if column.name not in (each.longest_bytes or {}):
                    yield f"{each.table}.{column.name}", "was not measured"


@_rule("lob-dropped", "error", "Large objects are not carried at all", "Set TargetMetadata.SupportLobs to true")
def _lob_dropped(subject: _Subject) -> Hits:
    for each in subject.selected or ():
        if _lob_limit(subject, each.table) == 0:
            for column in each.lobs:
                yield f"{each.table}.{column.name}", f"is {column.data_type}, and large objects are switched off"


@_rule(
    "lob-of-kinesis", "error", "Kinesis takes no full LOB mode, and no record above 1 MB",
    "Use limited LOB mode, and leave columns out that are longer",
)  # fmt: skip
def _lob_kinesis(subject: _Subject) -> Hits:
    if subject.engine != "kinesis":
        return
    if subject.get("TargetMetadata.FullLobMode") is True:
        yield "TargetMetadata.FullLobMode", "is true with a target of engine kinesis"
    for each in subject.selected or ():
        for name, longest in (each.longest_bytes or {}).items():
            if longest > KIB * KIB:
                yield f"{each.table}.{name}", f"holds {longest:,} bytes"


# Mappings ------------------------------------------------------------------------------------------------------------


@_rule("nothing-selected", "error", "A task without a table moves nothing", "Correct the selection rules")
def _nothing(subject: _Subject) -> Hits:
    if not _including(subject):
        yield "mappings", "have no rule that includes a table"
    elif subject.facts.tables is not None and not subject.selected:
        yield "mappings", f"select none of the {len(subject.facts.tables)} tables of the source"


@_rule(
    "rule-matches-nothing", "warning", "A rule that matches no table is a table that somebody expects and does not get",
    "Correct its schema-name and table-name (case matters, and _ is a wildcard)",
)  # fmt: skip
def _rule_matches_nothing(subject: _Subject) -> Hits:
    tables = [each.table for each in subject.facts.tables or ()]
    for rule in _including(subject) if subject.facts.tables is not None else ():
        if not mappings.selected([rule], tables):
            where = rule["object-locator"]
            yield f"rule {rule['rule-id']}", f"{where.get('schema-name')}.{where.get('table-name')} matches no table"


@_rule("every-schema", "warning", "Schemas that are made later, and those of tools, come along", "Name the schemas")
def _every_schema(subject: _Subject) -> Hits:
    for rule in _including(subject):
        if rule["object-locator"]["schema-name"] == "%":
            yield f"rule {rule['rule-id']}", "takes every schema of the server"


def _including(subject: _Subject) -> list[dict[str, Any]]:
    return [rule for rule in subject.rules if rule["rule-type"] == SELECTION and rule["rule-action"] != "exclude"]


# Kinesis -------------------------------------------------------------------------------------------------------------


def _partition_keys(subject: _Subject) -> Iterator[tuple[str, str]]:
    """Where a partition key is decided, and its type; the default is by table."""
    seen = False
    for rule in subject.rules if subject.engine == "kinesis" else ():
        if rule["rule-type"] == OBJECT_MAPPING:
            seen = True
            given = (rule.get("mapping-parameters") or {}).get("partition-key-type") or "schema-table"
            yield f"rule {rule['rule-id']}", str(given)
    if subject.engine == "kinesis" and not seen:
        yield "mappings", "schema-table"


@_rule(
    "one-shard", "warning", "All rows of a table go to one shard, which takes 1 MB and 1,000 records a second",
    "Add an object-mapping rule with partition-key-type primary-key",
)  # fmt: skip
def _one_shard(subject: _Subject) -> Hits:
    for where, kind in _partition_keys(subject):
        if kind in ("schema-table", "constant"):
            yield where, f"partition by {kind}"


@_rule(
    "order-lost", "error", "Changes of one row go to different shards, whose order is lost",
    "Use partition-key-type primary-key",
)  # fmt: skip
def _order_lost(subject: _Subject) -> Hits:
    for where, kind in _partition_keys(subject):
        if kind not in ("schema-table", "constant", "primary-key", "attribute-name"):
            yield where, f"partition by {kind}"


@_rule(
    "order-by-attribute", "warning", "When the attribute of a row changes, the row goes to another shard and order is lost",
    "Use partition-key-type primary-key, unless the attribute never changes",
)  # fmt: skip
def _order_attribute(subject: _Subject) -> Hits:
    for where, kind in _partition_keys(subject):
        if kind == "attribute-name":
            yield where, f"partition by {kind}"


@_rule(
    "bigint-scientific", "error", "A BIGINT of more than 16 digits arrives in scientific notation, and keys collide",
    "Set UseLargeIntegerValue (use_large_integer_value) at the target endpoint",
)  # fmt: skip
def _bigint(subject: _Subject) -> Hits:
    if subject.engine != "kinesis" or subject.target.get("UseLargeIntegerValue") is True:
        return
    if subject.selected is None:
        yield "target", "UseLargeIntegerValue is not set, and the columns are unknown"
    for each in subject.selected or ():
        for column in each.columns:
            if column.data_type.lower() == "bigint":
                yield f"{each.table}.{column.name}", f"is {column.column_type}, and UseLargeIntegerValue is not set"


@_rule(
    "tables-share-keys", "warning", "Rows of different tables with the same key have one partition key, and go to one shard",
    "Set PartitionIncludeSchemaTable at the target endpoint",
)  # fmt: skip
def _shared_keys(subject: _Subject) -> Hits:
    by_key = any(kind == "primary-key" for _, kind in _partition_keys(subject))
    if by_key and subject.target.get("PartitionIncludeSchemaTable") is not True:
        yield "target", f"PartitionIncludeSchemaTable is {subject.target.get('PartitionIncludeSchemaTable', 'not set')}"


@_rule(
    "no-before-image", "error",
    "An UPDATE that changes the primary key arrives under the new key only: the row stays under the old one for ever",
    'Set BeforeImageSettings to {"EnableBeforeImage": true, "FieldName": "before-image", "ColumnFilter": "pk-only"}',
)  # fmt: skip
def _no_before_image(subject: _Subject) -> Hits:
    if subject.engine != "kinesis" or not subject.spec.has_cdc:
        return
    path = "BeforeImageSettings.EnableBeforeImage"
    if subject.get(path) is not True:
        yield path, f"is {'not set' if subject.get(path) is None else subject.get(path)}"
    elif not subject.get("BeforeImageSettings.FieldName"):
        yield "BeforeImageSettings.FieldName", "is not set, and DMS has no default for it"


_KINESIS: tuple[tuple[str, str, Level, str], ...] = (
    ("no-version", "IncludeTransactionDetails", "error",
     "Without commit time and log position a consumer cannot tell the older of two changes, and older ones overwrite newer"),
    ("null-looks-absent", "IncludeNullAndEmpty", "error", "A column that became NULL looks like one that was not changed"),
    ("no-control-records", "IncludeControlDetails", "warning", "A consumer does not see which tables and columns there are"),
    ("no-alter-records", "IncludeTableAlterOperations", "warning",
     "A consumer does not see that a table was dropped, emptied or altered: rows that TRUNCATE took stay at the target"),
)  # fmt: skip


def _kinesis_flag(flag: str) -> Callable[[_Subject], Hits]:
    def look(subject: _Subject) -> Hits:
        if subject.engine == "kinesis" and subject.target.get(flag) is not True:
            yield "target", f"{flag} is {subject.target.get(flag, 'not set')}"

    return look


for _id, _flag, _level, _why in _KINESIS:
    _rule(_id, _level, _why, f"Set {_flag} at the target endpoint")(_kinesis_flag(_flag))


@_rule("batch-apply", "error", "AWS warns that batches lose changes on the way to a stream", "Set it to false")
def _batch_apply(subject: _Subject) -> Hits:
    if subject.engine == "kinesis" and subject.get("TargetMetadata.BatchApplyEnabled") is True:
        yield "TargetMetadata.BatchApplyEnabled", "is true with a target of engine kinesis"


# DynamoDB ------------------------------------------------------------------------------------------------------------


@_rule(
    "dynamodb-key", "error", "Without a rule DMS takes the single column of the primary key for the key of the item",
    "Add an object-mapping rule with partition-key-name and, where needed, sort-key-name",
)  # fmt: skip
def _dynamodb_key(subject: _Subject) -> Hits:
    if subject.engine != "dynamodb":
        return
    for rule in subject.rules:
        parameters = rule.get("mapping-parameters") or {}
        if rule["rule-type"] == OBJECT_MAPPING and not parameters.get("partition-key-name"):
            yield f"rule {rule['rule-id']}", "has no partition-key-name"
    for each in subject.selected or ():
        if len(each.primary_key) != 1 and not mappings.of_table(subject.rules, OBJECT_MAPPING, each.table):
            key = f"the primary key ({', '.join(each.primary_key)})" if each.primary_key else "no primary key"
            yield str(each.table), f"has {key} and no object-mapping rule"


@_rule(
    "dynamodb-binary", "error", "DMS carries no binary column to DynamoDB: the attribute is missing without a word",
    "Leave the column out with exclude-columns, or send the table by way of Kinesis",
)  # fmt: skip
def _dynamodb_binary(subject: _Subject) -> Hits:
    for each in subject.selected or () if subject.engine == "dynamodb" else ():
        left_out = _excluded(subject, each.table)
        for column in each.columns:
            if column.data_type.lower() in BINARY_TYPES and column.name not in left_out:
                yield f"{each.table}.{column.name}", f"is {column.column_type}"


@_rule(
    "dynamodb-digits", "error", "A number of DynamoDB has at most 38 digits",
    "Map the column to a string in attribute-mappings",
)  # fmt: skip
def _dynamodb_digits(subject: _Subject) -> Hits:
    for each in subject.selected or () if subject.engine == "dynamodb" else ():
        text = _mapped_as_text(subject, each.table)
        for column in each.columns:
            if (
                column.data_type.lower() == "decimal"
                and (column.numeric_precision or 0) > 38
                and column.name not in text
            ):
                yield f"{each.table}.{column.name}", f"is {column.column_type}"


@_rule(
    "unconditional-writes", "warning", "DMS writes items without a condition: what an application has written meanwhile is overwritten",
    "Use it for tables that nobody else writes; else send the changes by way of Kinesis",
)  # fmt: skip
def _unconditional(subject: _Subject) -> Hits:
    if subject.engine == "dynamodb":
        yield "target", "is DynamoDB without a stream in between"


def _excluded(subject: _Subject, table: Table) -> set[str]:
    rules = mappings.of_table(subject.rules, OBJECT_MAPPING, table)
    return {str(name) for rule in rules for name in (rule.get("mapping-parameters") or {}).get("exclude-columns") or ()}


def _mapped_as_text(subject: _Subject, table: Table) -> set[str]:
    rules = mappings.of_table(subject.rules, OBJECT_MAPPING, table)
    mapped = [one for rule in rules for one in (rule.get("mapping-parameters") or {}).get("attribute-mappings") or ()]
    values = [str(one.get("value")) for one in mapped if one.get("attribute-sub-type") == "string"]
    return {value[2:-1] for value in values if value.startswith("${") and value.endswith("}")}
