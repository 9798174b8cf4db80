"""Table mappings of a task: parsed with every error named, canonical JSON, difference, and the tables that they select.

Source: DMS user guide, "Specifying table selection and transformations rules using JSON" and "Wildcards in table mapping".
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

SELECTION, OBJECT_MAPPING, TABLE_SETTINGS = "selection", "object-mapping", "table-settings"
TRANSFORMATION = "transformation"
RULE_TYPES = (SELECTION, TRANSFORMATION, TABLE_SETTINGS, OBJECT_MAPPING)
SELECTION_ACTIONS = ("include", "exclude", "explicit")
OBJECT_ACTIONS = ("map-record-to-record", "map-record-to-document")
_EMPTY = ("filters",)
"""Keys that mean nothing when they are empty."""


class Table(NamedTuple):
    """A table of the source."""

    schema: str
    name: str

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}"


class MappingError(ValueError):
    """Table mappings that DMS would refuse or misread; one line per error."""


@dataclass(frozen=True)
class Change:
    """One rule that differs. `wanted` and `found` are canonical JSON, None where the side has no such rule."""

    rule: str
    wanted: str | None
    found: str | None

    def __str__(self) -> str:
        if self.found is None:
            return f"rule {self.rule} is added: {self.wanted}"
        if self.wanted is None:
            return f"rule {self.rule} is removed: {self.found}"
        return f"rule {self.rule} becomes {self.wanted}, was {self.found}"


def parse(mappings: str | Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> tuple[dict[str, Any], ...]:
    """Rules of the mappings in canonical order, ids and names as text.

    Args:
        mappings: JSON as AWS answers it, the object ``{"rules": [...]}``, or the list of rules

    Raises:
        MappingError: naming every error
    """
    try:
        value: Any = json.loads(mappings) if isinstance(mappings, str) else mappings
    except ValueError as error:
        raise MappingError(f"mappings are not JSON: {error}") from error
    rules = value.get("rules") if isinstance(value, Mapping) else value
    if not isinstance(rules, Sequence) or isinstance(rules, str) or not all(isinstance(r, Mapping) for r in rules):
        raise MappingError('mappings are a list of rules, or {"rules": [...]}')
    plain = [_plain(rule) for rule in rules]
    errors = [error for number, rule in enumerate(plain, 1) for error in _errors(number, rule)]
    for key in ("rule-id", "rule-name"):
        given = [str(rule[key]) for rule in plain if rule.get(key)]
        errors += [f"{key} {one!r} is used twice; each rule needs its own" for one in _twice(given)]
    if errors:
        raise MappingError("\n".join(errors))
    return tuple(sorted(plain, key=lambda rule: (RULE_TYPES.index(rule["rule-type"]), int(rule["rule-id"]))))


def canonical(mappings: str | Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> str:
    """JSON of the mappings that is equal for equal mappings. Raises MappingError."""
    return _json({"rules": list(parse(mappings))})


def diff(wanted: Sequence[Mapping[str, Any]], found: str | Mapping[str, Any]) -> tuple[Change, ...]:
    """Rules that differ, in order. What AWS holds and cannot be read is one change of everything."""
    ours = {rule["rule-id"]: _json(rule) for rule in parse(wanted)}
    try:
        theirs = {rule["rule-id"]: _json(rule) for rule in parse(found)}
    except MappingError:
        return (Change("*", canonical(wanted), found if isinstance(found, str) else _json(found)),)
    ids = sorted({*ours, *theirs}, key=int)
    return tuple(Change(one, ours.get(one), theirs.get(one)) for one in ids if ours.get(one) != theirs.get(one))


def selected(rules: Iterable[Mapping[str, Any]], tables: Iterable[Table]) -> tuple[Table, ...]:
    """Those of the tables that the selection rules take, sorted. An excluded table is out, whatever includes it."""
    selecting = [rule for rule in rules if rule["rule-type"] == SELECTION]
    return tuple(sorted(table for table in tables if _is_selected(selecting, table)))


def of_table(rules: Iterable[Mapping[str, Any]], rule_type: str, table: Table) -> tuple[Mapping[str, Any], ...]:
    """Rules of a type whose object-locator matches the table."""
    return tuple(rule for rule in rules if rule["rule-type"] == rule_type and _matches(rule, table))


@dataclass(frozen=True)
class Names:
    """What a table of the source is called on the target; a column that is not in `columns` does not go there."""

    schema: str
    table: str
    columns: Mapping[str, str]


def resolve(
    rules: Iterable[Mapping[str, Any]], table: Table, columns: Sequence[str], *, target_schema: str = ""
) -> Names:
    """Names of a table and of its columns on the target, after the transformation rules in their order.

    Rules that add something or change a type leave names as they are.

    Args:
        rules: of the task
        table: of the source
        columns: those of the table, in order
        target_schema: TargetMetadata.TargetSchema of the task settings, which outranks the rules
    """
    own = of_table(rules, TRANSFORMATION, table)
    kept = [str(_locator(rule).get("column-name", "%")) for rule in own if rule.get("rule-action") == "include-column"]
    named = {one: one for one in columns if not kept or any(matches(pattern, one) for pattern in kept)}
    schema, name = table
    for rule in own:
        change = _RENAMES.get(str(rule.get("rule-action")))
        value, old = str(rule.get("value") or ""), str(rule.get("old-value") or "")
        if rule.get("rule-target") == "column":
            pattern = str(_locator(rule).get("column-name", "%"))
            for one in [column for column in named if matches(pattern, column)]:
                if rule.get("rule-action") == "remove-column":
                    del named[one]
                elif change:
                    named[one] = change(named[one], value, old)
        elif change and rule.get("rule-target") == "schema":
            schema = change(schema, value, old)
        elif change and rule.get("rule-target") == "table":
            name = change(name, value, old)
    return Names(target_schema or schema, name, named)


def object_rule(rules: Iterable[Mapping[str, Any]], table: Table) -> Mapping[str, Any] | None:
    """The object-mapping rule of a table; None when it has none."""
    return next(iter(of_table(rules, OBJECT_MAPPING, table)), None)


_RENAMES: Mapping[str, Callable[[str, str, str], str]] = {
    "rename": lambda _, value, __: value,
    "add-prefix": lambda name, value, _: value + name,
    "add-suffix": lambda name, value, _: name + value,
    "remove-prefix": lambda name, value, _: name.removeprefix(value),
    "remove-suffix": lambda name, value, _: name.removesuffix(value),
    "replace-prefix": lambda name, value, old: value + name[len(old) :] if name.startswith(old) else name,
    "replace-suffix": lambda name, value, old: name[: len(name) - len(old)] + value if name.endswith(old) else name,
    "convert-lowercase": lambda name, _, __: name.lower(),
    "convert-uppercase": lambda name, _, __: name.upper(),
}
"""What a rule makes of a name, given its value and old-value."""


def _locator(rule: Mapping[str, Any]) -> Mapping[str, Any]:
    return rule.get("object-locator") or {}


def matches(pattern: str, name: str) -> bool:
    """Whether a name matches a pattern: ``%`` any characters, ``_`` one of any kind, ``[_]``, ``[ab]`` and ``[a-d]`` one of a set."""
    return _compiled(pattern).fullmatch(name) is not None


def has_wildcard(pattern: str) -> bool:
    """Whether the pattern can match more than one name."""
    return any(mark in re.sub(r"\[_\]", "", pattern) for mark in "%_[")


@lru_cache(maxsize=512)
def _compiled(pattern: str) -> re.Pattern[str]:
    parts = re.findall(r"\[[^\]]+\]|.", pattern, re.DOTALL)
    return re.compile("".join(_regex(part) for part in parts), re.DOTALL)


def _regex(part: str) -> str:
    if len(part) > 1:
        first, dash, last = part[1:2], part[2:3], part[3:4]
        if len(part) == 5 and dash == "-":
            return f"[{re.escape(first)}-{re.escape(last)}]" if first <= last else r"(?!)"
        return f"[{re.escape(part[1:-1])}]"
    return {"%": ".*", "_": "."}.get(part) or re.escape(part)


def _is_selected(selecting: list[Mapping[str, Any]], table: Table) -> bool:
    actions = {rule["rule-action"] for rule in selecting if _matches(rule, table)}
    return "exclude" not in actions and bool(actions)


def _matches(rule: Mapping[str, Any], table: Table) -> bool:
    where = rule.get("object-locator") or {}
    schema, name = where.get("schema-name"), where.get("table-name", "%")
    if schema is None:
        return False
    if rule.get("rule-action") == "explicit":
        return (schema, name) == table
    return matches(str(schema), table.schema) and matches(str(name), table.name)


def _plain(rule: Mapping[str, Any]) -> dict[str, Any]:
    """The rule as plain JSON values: numbers that DMS takes for text become text, empty lists that mean nothing go."""
    plain: dict[str, Any] = json.loads(json.dumps(rule))
    for key in ("rule-id", "rule-name"):
        if isinstance(plain.get(key), int):
            plain[key] = str(plain[key])
    if "rule-name" not in plain and "rule-id" in plain:
        plain["rule-name"] = plain["rule-id"]
    return {key: value for key, value in plain.items() if not (key in _EMPTY and not value)}


def _errors(number: int, rule: Mapping[str, Any]) -> list[str]:
    kind, found = rule.get("rule-type"), []
    name = f"rule {rule.get('rule-id') or number}"
    if kind not in RULE_TYPES:
        found.append(f"{name}: rule-type {kind!r} is not one of {', '.join(RULE_TYPES)}")
        return found
    if not re.fullmatch(r"[0-9]+", str(rule.get("rule-id", ""))):
        found.append(f"{name}: rule-id {rule.get('rule-id')!r} is not a number")
    where = rule.get("object-locator")
    if not (isinstance(where, Mapping) and where.get("schema-name")):
        found.append(f"{name}: object-locator needs a schema-name")
        return found
    if kind == SELECTION:
        found += _selection_errors(name, rule, dict(where))
    if kind == OBJECT_MAPPING:
        found += _object_errors(name, rule)
    return found


def _selection_errors(name: str, rule: Mapping[str, Any], where: Mapping[str, Any]) -> list[str]:
    action, found = rule.get("rule-action"), []
    if action not in SELECTION_ACTIONS:
        found.append(f"{name}: rule-action {action!r} is not one of {', '.join(SELECTION_ACTIONS)}")
    if not where.get("table-name") and not where.get("table-type"):
        found.append(f"{name}: object-locator needs a table-name (% for every table)")
    if action == "explicit" and "%" in f"{where.get('schema-name')}{where.get('table-name')}":
        found.append(f"{name}: an explicit rule names one table and takes no wildcard")
    return found


def _object_errors(name: str, rule: Mapping[str, Any]) -> list[str]:
    action = rule.get("rule-action")
    if action not in OBJECT_ACTIONS:
        return [f"{name}: rule-action {action!r} is not one of {', '.join(OBJECT_ACTIONS)}"]
    return []


def _twice(values: list[str]) -> list[str]:
    return sorted({value for value in values if values.count(value) > 1})


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
