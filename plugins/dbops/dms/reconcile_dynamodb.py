"""Source MySQL, target DynamoDB: one row is one item, by the object mapping of the table.

Two walks: rows of the source are looked for as items (BatchGetItem, eventually consistent: half a read unit for each item of up to
4 KB), and items are looked for as rows (Scan of the keys, which costs read units for whole items). What looks different is read again by
its key, consistently. The extra attributes of an item that no column makes are not judged.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from dbops import asking, mysql, sql
from dbops.dms import forms, values
from dbops.dms.mappings import Names, Table
from dbops.dms.reconcile import Comparison, Patience, judged, not_comparable
from dbops.dms.settling import Settling
from dbops.dms.values import Value
from dbops.keys import Key, KeyColumn, RowKey, from_row
from dbops.mysql import Column

PAGE_ROWS = 500
GET_KEYS = 100
"""Keys of one BatchGetItem."""
MAX_TRIES = 12
"""Of a BatchGetItem that leaves keys unprocessed, with pauses that double."""
DOCUMENT = "_doc"
_PLACE = re.compile(r"\$\{([^}]+)\}")

Item = Mapping[str, Mapping[str, Any]]
Row = Mapping[str, "Value | None"]
"""Values of a row by the names of the source."""
ItemKey = tuple[tuple[str, str, str], ...]
"""(attribute, type, value as text) of partition and sort key."""


@dataclass(frozen=True)
class _Id:
    """A row and its item; they go by the key of the item."""

    item: ItemKey
    row: Key = field(compare=False)


@dataclass(frozen=True)
class _Template:
    """An attribute that the object mapping makes of columns; `value` is text or a document of DynamoDB JSON with places."""

    name: str
    value: Any
    columns: tuple[str, ...]


class _Unknown(ValueError):
    """The item of a row cannot be named, or its attributes cannot be told; the message says why."""


def compare(
    table: Table,
    described: mysql.Table,
    names: Names,
    where: str,
    rule: Mapping[str, Any] | None,
    *,
    source: Any,
    target: Any,
    patience: Patience,
) -> Comparison:
    """Compare one table; see :func:`dbops.dms.reconcile.compare`. `target` is a client of DynamoDB."""
    place = str((rule or {}).get("target-table-name") or names.table)
    key = _row_key(described)
    if key is None:
        return not_comparable(table, "the source has no key that can be walked, so a row has no item of its own")
    try:
        shown = target.describe_table(TableName=place)["Table"]
    except Exception as error:
        if not asking.is_missing(error):
            raise
        rows = int(mysql.scalar(source, f"SELECT COUNT(*) FROM {sql.ident(table)} WHERE {where}"))
        return Comparison(table, "differ", rows, 0, missing=rows, reason=f"DynamoDB has no table {place}")
    types = {one["AttributeName"]: one["AttributeType"] for one in shown["AttributeDefinitions"]}
    keys = {one["AttributeName"]: types[one["AttributeName"]] for one in shown["KeySchema"]}
    try:
        shape = _Shape.of(described, names, rule, keys)
    except _Unknown as error:
        return not_comparable(table, str(error))
    walk = _Walk(table, described, shape, key, where, source, _Items(target, place, shape, patience), patience)
    return walk.compare()


def _row_key(described: mysql.Table) -> RowKey | None:
    index = described.row_key
    columns = []
    for name in index.columns if index else ():
        column = described.column(name)
        literal = forms.key_literal(column, column, column) if column else None
        if column is None or literal is None:
            return None
        columns.append(KeyColumn(column.name, literal))
    return RowKey(index.name, tuple(columns)) if index and columns else None


@dataclass(frozen=True)
class _Shape:
    """What the item of a row looks like."""

    keys: Mapping[str, str]
    """Key attributes and their types."""
    templates: tuple[_Template, ...]
    plain: Mapping[str, str]
    """Attribute -> column of the source, for those that are taken as they are."""
    is_document: bool
    columns: Mapping[str, Column]
    """Columns of the source that are read."""
    not_compared: tuple[str, ...]

    @classmethod
    def of(
        cls, described: mysql.Table, names: Names, rule: Mapping[str, Any] | None, keys: Mapping[str, str]
    ) -> _Shape:
        """From the mappings. Raises _Unknown."""
        given = (rule or {}).get("mapping-parameters") or {}
        by_name = {column.name: column for column in described.columns}
        by_any = {**{target: name for name, target in names.columns.items()}, **{name: name for name in by_name}}
        templates = [_template(one, by_any) for one in given.get("attribute-mappings") or ()]
        plain, not_compared = _plain_attributes(by_name, names, templates, set(given.get("exclude-columns") or ()))
        loose = {one.name: column for one in templates if (column := _loose(one, by_name))}
        not_compared += [
            f"{column}: how DMS writes it into the attribute {name} is not documented" for name, column in loose.items()
        ]
        for key in keys:
            bad = loose.get(key) or next(
                (one for one in (plain.get(key),) if one and forms.kind(by_name[one]) not in _EXACT_TEXT), None
            )
            if bad:
                raise _Unknown(f"the key attribute {key} is made of {bad}, whose text is not documented")
            if key not in plain and all(key != one.name for one in templates):
                raise _Unknown(f"the mappings give the key attribute {key} of the table no value")
        compared = tuple(one for one in templates if one.name not in loose)
        used = {*plain.values(), *(name for one in compared for name in one.columns)}
        used |= set(described.row_key.columns if described.row_key else ())
        columns = {name: column for name, column in by_name.items() if name in used}
        is_document = (rule or {}).get("rule-action") == "map-record-to-document"
        return cls(keys, compared, plain, is_document, columns, tuple(not_compared))

    def key(self, row: Row) -> ItemKey | None:
        """The key of a row's item; None when a part of it is NULL, so that there can be no item."""
        made = []
        for name, kind in self.keys.items():
            template = next((one for one in self.templates if one.name == name), None)
            if template is not None:
                text = _rendered(template.value, row)
            else:
                value = row[self.plain[name]]
                text = None if value is None else value.text
            if text is None:
                return None
            made.append((name, kind, values.canonical("number", text) if kind == "N" else text))
        return tuple(made)

    def is_same(self, row: Row, item: Item) -> bool:
        """Whether an item is what DMS makes of a row."""
        held: Mapping[str, Any] = item.get(DOCUMENT, {}).get("M", {}) if self.is_document else item
        for name, column in self.plain.items():
            if not values.is_same(row[column], item.get(name) if name in self.keys else held.get(name)):
                return False
        return all(self._is_template_same(one, row, item) for one in self.templates)

    def _is_template_same(self, template: _Template, row: Row, item: Item) -> bool:
        found = item.get(template.name)
        if not isinstance(template.value, str):
            nulls = any(row[column] is None for column in template.columns)
            return nulls or _plain(found) == _plain(_filled(template.value, row))
        if _PLACE.fullmatch(template.value):
            return values.is_same(row[template.columns[0]], found)
        text = _rendered(template.value, row)
        if text is None:  # what DMS makes of a NULL in the middle of a text is not documented
            return True
        kind, held = next(iter((found or {"": None}).items()))
        return (
            values.canonical("number", str(held)) == values.canonical("number", text) if kind == "N" else held == text
        )

    def row_texts(self, item: Item, wanted: Sequence[str]) -> dict[str, str] | None:
        """Texts of columns of the source as an item has them; None when it does not have them all."""
        found: dict[str, str] = {}
        document = item.get(DOCUMENT, {}).get("M", {})
        for name, column in self.plain.items():
            attribute = item.get(name) or document.get(name)
            if attribute and (text := attribute.get("N", attribute.get("S"))) is not None:
                found[column] = str(text)
        for template in self.templates:
            attribute = item.get(template.name) or {}
            text = attribute.get("N", attribute.get("S"))
            if text is not None and isinstance(template.value, str):
                found = {**_reversed(template, str(text), self.columns), **found}
        return {name: found[name] for name in wanted} if all(name in found for name in wanted) else None


_KINDS = frozenset({"number", "float", "time", "duration", "json", "text"})
_EXACT_TEXT = frozenset({"number", "text"})
"""Kinds whose text is the same wherever it is written."""


def _plain_attributes(
    by_name: Mapping[str, Column], names: Names, templates: Sequence[_Template], left_out: set[str]
) -> tuple[dict[str, str], list[str]]:
    """Attribute -> column of those that are taken as they are, and columns that cannot be compared with the reason."""
    plain: dict[str, str] = {}
    not_compared = []
    for name, column in by_name.items():
        target, kind = names.columns.get(name), forms.kind(column)
        if target is None:
            not_compared.append(f"{name}: the mappings remove it")
        elif kind not in _KINDS:
            not_compared.append(f"{name}: DMS carries no {column.column_type} to DynamoDB")
        elif {name, target} & left_out:
            if not any(name in one.columns for one in templates):
                not_compared.append(f"{name}: the object mapping leaves it out")
        elif all(target != one.name for one in templates):
            plain[target] = name
    return plain, not_compared


def _template(given: Mapping[str, Any], by_any: Mapping[str, str]) -> _Template:
    name, value = str(given.get("target-attribute-name")), given.get("value")
    used = _PLACE.findall(value if isinstance(value, str) else json.dumps(value))
    if unknown := [one for one in used if one not in by_any]:
        raise _Unknown(f"the attribute {name} is made of {unknown[0]}, which is no column of the source")
    return _Template(name, value, tuple(by_any[one] for one in used))


def _loose(template: _Template, by_name: Mapping[str, Column]) -> str | None:
    """A column of a template whose text is not documented. Alone in its attribute, it is compared by its value."""
    if isinstance(template.value, str) and _PLACE.fullmatch(template.value):
        return next((name for name in template.columns if forms.kind(by_name[name]) not in _KINDS), None)
    return next((name for name in template.columns if forms.kind(by_name[name]) not in _EXACT_TEXT), None)


def _rendered(text: str, row: Row) -> str | None:
    """A template with the values of a row; None when one of them is NULL."""
    parts = [row.get(name) for name in _PLACE.findall(text)]
    if any(part is None for part in parts):
        return None
    filled = iter(part for part in parts if part is not None)
    return _PLACE.sub(lambda _: next(filled).raw, text)


def _filled(value: Any, row: Row) -> Any:
    if isinstance(value, Mapping):
        return {name: _filled(each, row) for name, each in value.items()}
    if isinstance(value, list):
        return [_filled(each, row) for each in value]
    return _rendered(value, row) if isinstance(value, str) else value


def _plain(value: Any) -> Any:
    """DynamoDB JSON with numbers that are equal when their values are."""
    if isinstance(value, Mapping):
        if set(value) == {"N"}:
            return {"N": values.canonical("number", str(value["N"]))}
        return {name: _plain(each) for name, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list) else value


def _reversed(template: _Template, text: str, columns: Mapping[str, Column]) -> dict[str, str]:
    """Texts of the columns that made a text; nothing when more than one of them may hold anything."""
    is_number = [forms.kind(columns[name]) == "number" for name in template.columns]
    if is_number.count(False) > 1:
        return {}
    numbers = iter(is_number)
    pieces = re.split(r"(\$\{[^}]+\})", template.value)
    pattern = "".join(
        (r"(-?[0-9.]+)" if next(numbers) else "(.*)") if _PLACE.fullmatch(one) else re.escape(one) for one in pieces
    )
    found = re.fullmatch(pattern, text, re.DOTALL)
    return dict(zip(template.columns, found.groups(), strict=True)) if found else {}


@dataclass(frozen=True)
class _Items:
    """The table of DynamoDB."""

    client: Any
    table: str
    shape: _Shape
    patience: Patience

    def get(self, keys: Sequence[ItemKey], *, is_consistent: bool) -> dict[ItemKey, Item]:
        """Items by their keys; those that are not there are left out. Raises RuntimeError when DynamoDB does not give them."""
        found: dict[ItemKey, Item] = {}
        unique = list(dict.fromkeys(keys))
        for begin in range(0, len(unique), GET_KEYS):
            asked = [{name: {kind: text} for name, kind, text in key} for key in unique[begin : begin + GET_KEYS]]
            request: Any = {self.table: {"Keys": asked, "ConsistentRead": is_consistent}}
            for attempt in range(MAX_TRIES):
                answer = self.client.batch_get_item(RequestItems=request)
                for item in answer["Responses"].get(self.table, ()):
                    found[self.key(item)] = item
                if not (request := answer.get("UnprocessedKeys")):
                    break
                self.patience.wait(min(5.0, 0.05 * 2**attempt))
            else:
                raise RuntimeError(
                    f"DynamoDB table {self.table} leaves keys unprocessed after {MAX_TRIES} tries: it is throttled"
                )
        return found

    def key(self, item: Item) -> ItemKey:
        """The key of an item, numbers in one form."""
        made = []
        for name, kind in self.shape.keys.items():
            text = str(item[name][kind])
            made.append((name, kind, values.canonical("number", text) if kind == "N" else text))
        return tuple(made)

    def scan(self, wanted: Sequence[str]) -> Iterator[list[Item]]:
        """Keys of every item, with these attributes, page by page."""
        names = {f"#{number}": name for number, name in enumerate(dict.fromkeys([*self.shape.keys, *wanted]))}
        arguments = {
            "TableName": self.table,
            "ProjectionExpression": ", ".join(names),
            "ExpressionAttributeNames": names,
        }
        while True:
            answer = self.client.scan(**arguments)
            yield answer["Items"]
            if not (last := answer.get("LastEvaluatedKey")):
                return
            arguments = {**arguments, "ExclusiveStartKey": last}


@dataclass(frozen=True)
class _Walk:
    """One table there and back."""

    table: Table
    described: mysql.Table
    shape: _Shape
    key: RowKey
    filter: str
    source: Any
    items: _Items
    patience: Patience

    def compare(self) -> Comparison:
        settling = Settling(
            self._look, lambda one: ", ".join(one.row), self.patience.settle_s, self.patience.wait, self.patience.clock
        )
        rows, nameless = 0, 0
        for page in self._rows():
            rows += len(page)
            nameless += sum(one.item == () for one, _ in page)
            got = self.items.get([one.item for one, _ in page if one.item], is_consistent=False)
            settling.suspect(one for one, row in page if one.item and not self._is_same(row, got.get(one.item)))
        count, unknown = 0, 0
        for items in self.items.scan(self._attributes()):
            count += len(items)
            strangers, lost = self._strangers(items)
            unknown += lost
            settling.suspect(strangers)
        outcome = settling.finish()
        notes = []
        if nameless:
            notes.append(f"{nameless} rows have NULL in the key of their item, so they can have none")
        if unknown:
            notes.append(f"{unknown} items do not hold the key of their row, so extra ones among them are not found")
        found = judged(self.table, outcome, rows, count, self.patience, notes, self.shape.not_compared)
        return found if not nameless else _with_nameless(found, nameless)

    def _select(self) -> list[str]:
        return [values.select(column) for column in self.shape.columns.values()]

    def _literals(self) -> list[str]:
        return [column.literal_sql for column in self.key.columns]

    def _rows(self) -> Iterator[list[tuple[_Id, Row]]]:
        low: Key | None = None
        while True:
            statement = sql.render(
                "dms/key_page", table=self.table, index=self.key.index, literals=self._literals(), values=self._select(),
                where=f"{self.key.above(low)} AND {self.filter}", order_by=self.key.order_by, chunk_rows=PAGE_ROWS,
            )  # fmt: skip
            page = self._read(statement)
            if page:
                yield page
            if len(page) < PAGE_ROWS:
                return
            low = page[-1][0].row

    def _by_key(self, keys: Sequence[Key]) -> list[tuple[_Id, Row]]:
        statement = sql.render(
            "dms/rows_by_key", table=self.table, names=[sql.ident(name) for name in self.key.names],
            literals=self._literals(), values=self._select(), keys=[f"({', '.join(key)})" for key in keys],
            filter=self.filter,
        )  # fmt: skip
        return self._read(statement)

    def _read(self, statement: str) -> list[tuple[_Id, Row]]:
        width = len(self.key.columns)
        found: list[tuple[_Id, Row]] = []
        with self.source.cursor() as cursor:
            cursor.execute(statement)
            for read in cursor.fetchall():
                given = zip(self.shape.columns.items(), read[width:], strict=True)
                row = {name: values.read(column, value) for (name, column), value in given}
                found.append((_Id(self.shape.key(row) or (), from_row(read[:width])), row))
        return found

    def _attributes(self) -> list[str]:
        """Attributes from which the key of the row can be told."""
        wanted = {attribute for attribute, column in self.shape.plain.items() if column in self.key.names}
        wanted |= {one.name for one in self.shape.templates if set(one.columns) & set(self.key.names)}
        return sorted(wanted | ({DOCUMENT} if self.shape.is_document else set()))

    def _strangers(self, items: Sequence[Item]) -> tuple[list[_Id], int]:
        """Items whose row is not at the source, and how many do not say which row is theirs."""
        ids, unknown = [], 0
        for item in items:
            texts = self.shape.row_texts(item, self.key.names)
            literals = [_literal(self.shape.columns[name], text) for name, text in (texts or {}).items()]
            if not literals or None in literals:
                unknown += 1
            else:
                ids.append(_Id(self.items.key(item), tuple(str(one) for one in literals)))
        strangers = []
        for begin in range(0, len(ids), PAGE_ROWS):
            some = ids[begin : begin + PAGE_ROWS]
            there = {one.item for one, _ in self._by_key([one.row for one in some])}
            strangers += [one for one in some if one.item not in there]
        return strangers, unknown

    def _look(self, ids: Sequence[_Id]) -> dict[_Id, tuple[Any, Any]]:
        """Source and item of each row as they are now; equal states when the item is what DMS makes of the row."""
        rows = {one.item: row for one, row in self._by_key([one.row for one in ids])}
        items = self.items.get([one.item for one in ids], is_consistent=True)
        found: dict[_Id, tuple[Any, Any]] = {}
        for one in ids:
            row, item = rows.get(one.item), items.get(one.item)
            ours = None if row is None else tuple((value.kind, value.text) if value else None for value in row.values())
            theirs = None if item is None else json.dumps(item, sort_keys=True, default=repr)
            found[one] = (ours, ours if row is not None and self._is_same(row, item) else theirs)
        return found

    def _is_same(self, row: Row, item: Item | None) -> bool:
        return item is not None and self.shape.is_same(row, item)


def _with_nameless(found: Comparison, count: int) -> Comparison:
    return replace(found, status="differ", missing=found.missing + count)


def _literal(column: Column, text: str) -> str | None:
    """SQL literal of a key column from the text of an attribute; None for a type whose text is not documented."""
    kind = forms.kind(column)
    if kind == "number":
        number = values.canonical("number", text)
        return number if re.fullmatch(r"-?\d+(\.\d+)?", number) else None
    return f"_utf8mb4 X'{text.encode().hex()}'" if kind == "text" else None
