"""Table mappings: which tables a task takes, what they are called on the target, and how they become objects."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from lab.config import LabError

RULE_TYPES = ("selection", "transformation", "object-mapping", "table-settings")
SELECTING = ("include", "exclude", "explicit")
AFFIXES = {
    "add-prefix": lambda name, value, _: value + name,
    "add-suffix": lambda name, value, _: name + value,
    "remove-prefix": lambda name, value, _: name.removeprefix(value),
    "remove-suffix": lambda name, value, _: name.removesuffix(value),
    "replace-prefix": lambda name, value, old: value + name[len(old) :] if name.startswith(old) else name,
    "replace-suffix": lambda name, value, old: name[: -len(old)] + value if name.endswith(old) else name,
    "convert-lowercase": lambda name, _, __: name.lower(),
    "convert-uppercase": lambda name, _, __: name.upper(),
    "rename": lambda _, value, __: value,
}
COLUMN_ONLY = ("remove-column", "include-column")
COMPARE = {
    "eq": ("= %s", lambda value, low, _: value == low),
    "noteq": ("<> %s", lambda value, low, _: value != low),
    "ste": ("<= %s", lambda value, low, _: value <= low),
    "gte": (">= %s", lambda value, low, _: value >= low),
    "between": ("BETWEEN %s AND %s", lambda value, low, high: low <= value <= high),
    "notbetween": ("NOT BETWEEN %s AND %s", lambda value, low, high: not low <= value <= high),
}


@dataclass(frozen=True)
class Filter:
    """A source filter: the row is taken when any of the conditions on its column holds."""

    column: str
    conditions: tuple[tuple[str, str, str], ...]  # operator, value or start value, end value

    def sql(self) -> tuple[str, list[str]]:
        parts, args = [], []
        for operator, low, high in self.conditions:
            if operator in {"null", "notnull"}:
                parts.append(f"`{self.column}` IS {'NOT ' if operator == 'notnull' else ''}NULL")
            else:
                parts.append(f"`{self.column}` {COMPARE[operator][0]}")
                args += [low, high] if "between" in operator else [low]
        return f"({' OR '.join(parts)})", args

    def holds(self, row: Mapping[str, Any]) -> bool:
        return any(_holds(row.get(self.column), *condition) for condition in self.conditions)


def _holds(value: Any, operator: str, low: str, high: str) -> bool:
    if operator in {"null", "notnull"}:
        return (value is None) == (operator == "null")
    if value is None:
        return False
    if isinstance(value, int | float | Decimal):
        return bool(COMPARE[operator][1](Decimal(str(value)), Decimal(low), Decimal(high or "0")))
    return bool(COMPARE[operator][1](str(value), low, high))


@dataclass
class Names:
    """What a table and its columns are called on the target; a column that is not here does not go there."""

    schema: str
    table: str
    columns: dict[str, str] = field(default_factory=dict)


class Mappings:
    """The rules of one task.

    Raises:
        LabError: the text is not what DMS takes; with the reason
    """

    def __init__(self, text: str) -> None:
        try:
            rules = json.loads(text)["rules"]
        except (ValueError, KeyError, TypeError) as error:
            raise LabError(f"Error in mapping rules. The JSON is invalid: {error!r}") from error
        seen: set[str] = set()
        for rule in rules:
            _require(rule)
            if rule["rule-id"] in seen:
                raise LabError(f"Error in mapping rules. Rule with ruleId = {rule['rule-id']} is not unique")
            seen.add(str(rule["rule-id"]))
        self.selections = [rule for rule in rules if rule["rule-type"] == "selection"]
        self.transformations = [rule for rule in rules if rule["rule-type"] == "transformation"]
        self.objects = [rule for rule in rules if rule["rule-type"] == "object-mapping"]
        self.table_settings = [rule for rule in rules if rule["rule-type"] == "table-settings"]
        if not any(rule["rule-action"] in {"include", "explicit"} for rule in self.selections):
            raise LabError("Error in mapping rules. At least one selection rule with the action include is needed")

    def takes(self, schema: str, table: str) -> bool:
        """An exclude rule outranks every include rule."""
        found = {rule["rule-action"] for rule in self.selections if _covers(rule, schema, table)}
        return bool(found) and "exclude" not in found

    def filters(self, schema: str, table: str) -> list[Filter]:
        taking = [r for r in self.selections if r["rule-action"] != "exclude" and _covers(r, schema, table)]
        return [_filter(each) for rule in taking for each in rule.get("filters", ())]

    def names(self, schema: str, table: str, columns: list[str]) -> Names:
        made = Names(schema, table, {column: column for column in columns})
        including = [r for r in self.transformations if r["rule-action"] == "include-column"]
        if kept := [r for r in including if _covers(r, schema, table)]:
            made.columns = {c: c for c in columns if any(_like(c, r["object-locator"]["column-name"]) for r in kept)}
        for rule in self.transformations:
            if rule["rule-action"] != "include-column" and _covers(rule, schema, table):
                _transform(made, rule)
        return made

    def object(self, schema: str, table: str) -> dict[str, Any] | None:
        """The object-mapping rule of a table."""
        return next((rule for rule in self.objects if _covers(rule, schema, table)), None)

    def lob(self, schema: str, table: str) -> dict[str, Any]:
        """Its LOB settings where they differ from those of the task."""
        rules = (rule for rule in self.table_settings if _covers(rule, schema, table))
        return next((rule["lob-settings"] for rule in rules if "lob-settings" in rule), {})


def _require(rule: dict[str, Any]) -> None:
    for key in ("rule-type", "rule-id", "rule-name", "object-locator"):
        if key not in rule and not (key == "object-locator" and rule.get("rule-action") == "explicit"):
            raise LabError(f"Error in mapping rules. A rule has no {key}")
    kind, action = rule["rule-type"], rule.get("rule-action")
    if kind not in RULE_TYPES:
        raise LabError(f"Error in mapping rules. Rule with ruleId = {rule['rule-id']} has an invalid rule-type {kind}")
    allowed = {"selection": SELECTING, "transformation": (*AFFIXES, *COLUMN_ONLY)}.get(kind)
    if allowed is not None and action not in allowed:
        raise LabError(
            f"Error in mapping rules. Rule with ruleId = {rule['rule-id']} failed validation: rule-action {action}"
        )


def _covers(rule: Mapping[str, Any], schema: str, table: str) -> bool:
    locator = rule["object-locator"]
    return _like(schema, locator.get("schema-name", "%")) and _like(table, locator.get("table-name", "%"))


def _like(name: str, pattern: str) -> bool:
    """DMS knows the wildcard ``%`` alone: ``_`` is itself."""
    return re.fullmatch(".*".join(re.escape(part) for part in pattern.split("%")), name, re.DOTALL) is not None


def _filter(given: Mapping[str, Any]) -> Filter:
    conditions = []
    for each in given["filter-conditions"]:
        operator = each["filter-operator"]
        if operator not in {*COMPARE, "null", "notnull"}:
            raise LabError(f"Error in mapping rules. Invalid filter-operator {operator}")
        low = str(each.get("value", each.get("start-value", "")))
        conditions.append((operator, low, str(each.get("end-value", ""))))
    return Filter(given["column-name"], tuple(conditions))


def _transform(made: Names, rule: Mapping[str, Any]) -> None:
    action, target = rule["rule-action"], rule.get("rule-target")
    value, old = rule.get("value") or "", rule.get("old-value") or ""
    if target == "schema":
        made.schema = AFFIXES[action](made.schema, value, old)
    elif target == "table":
        made.table = AFFIXES[action](made.table, value, old)
    else:
        pattern = rule["object-locator"].get("column-name", "%")
        for column in [name for name in made.columns if _like(name, pattern)]:
            if action == "remove-column":
                del made.columns[column]
            else:
                made.columns[column] = AFFIXES[action](made.columns[column], value, old)
