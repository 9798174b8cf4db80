"""The oracle that judges whole moves: it must find each fault, and share no code with what it judges."""

from __future__ import annotations

import ast
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from lab.migration import oracle, replica

ROW = {"name": {"S": "Ann"}, "balance": {"N": "12.50"}}


def item(version: int | None, *, deleted: bool = False, **more: Any) -> oracle.Item:
    marks = {"pk": {"S": "USER#7"}, **({"_v": {"N": str(version)}} if version is not None else {})}
    return {**marks, "_deleted": {"BOOL": True}} if deleted else {**marks, "_bf": {"S": "x"}, **ROW, **more}


@pytest.mark.parametrize(
    ("there", "classed"),
    [
        (item(3), "equal"),
        (item(3, balance={"N": "12.5"}), "equal"),
        (item(3, balance={"N": "12.51"}), "converter"),
        (item(3, extra={"S": ""}), "converter"),
        (item(2), "source_newer"),
        (item(2, deleted=True), "source_newer"),
        (item(3, deleted=True), "missing"),
        (item(4), "target_newer"),
        (item(None), "unversioned"),
        (None, "missing"),
    ],
)
def test_a_row_and_its_item(there: oracle.Item | None, classed: str) -> None:
    assert oracle.classify(ROW, 3, there, ["pk"]) == classed


@pytest.mark.parametrize(("there", "classed"), [(None, "equal"), (item(3, deleted=True), "equal"), (item(3), "extra")])
def test_no_row_and_what_is_there(there: oracle.Item | None, classed: str) -> None:
    assert oracle.classify(None, 0, there, ["pk"]) == classed


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        (None, item(1), None),
        (item(1), item(2), None),
        (item(2), item(2, deleted=True), None),
        (item(2, deleted=True), item(3), None),
        (item(2), item(1), "older over newer"),
        (item(2), item(1, deleted=True), "older over newer"),
        (item(2), item(2), "rewritten"),
        (item(2, deleted=True), item(2), "resurrected"),
        (item(2, deleted=True), item(1), "resurrected"),
        (item(2), None, "removed"),
        (item(2), item(None), "unversioned write"),
    ],
)
def test_a_change_of_an_item(old: oracle.Item | None, new: oracle.Item | None, what: str | None) -> None:
    assert [each.what for each in oracle.past([("USER#7", old, new)])] == ([what] if what else [])


def test_a_state_that_mysql_never_had() -> None:
    states = {("USER#7", 2): ROW}
    assert oracle.strange([("USER#7", None, item(2)), ("USER#7", None, item(9, deleted=True))], states, ["pk"]) == []
    for wrong in (item(3), item(2, name={"S": "Bob"})):
        assert [each.what for each in oracle.strange([("USER#7", None, wrong)], states, ["pk"])] == ["never in MySQL"]


def test_findings_of_both_sides_and_of_the_past_make_the_verdict() -> None:
    verdict = oracle.judge({"USER#7": (ROW, 3), "USER#8": (ROW, 1)}, {"USER#7": item(3), "USER#9": item(1)}, [], ["pk"])
    assert {(each.what, each.key) for each in verdict.findings} == {("missing", "USER#8"), ("extra", "USER#9")}
    assert oracle.judge({"USER#7": (ROW, None)}, {"USER#7": item(12)}, [], ["pk"]).findings == ()


@pytest.mark.parametrize(
    ("kind", "value", "made"),
    [
        ("number", Decimal("1.50"), {"N": "1.5"}),
        ("number", 1e20, {"N": "100000000000000000000"}),
        ("string", datetime(2024, 1, 2, 3, 4, 5), {"S": "2024-01-02T03:04:05.000000Z"}),
        ("string", "2024-01-02 03:04:05.000000", {"S": "2024-01-02T03:04:05.000000Z"}),
        ("set", "", None),
        ("set", "b,a", {"SS": ["a", "b"]}),
        ("boolean", b"\x01", {"BOOL": True}),
        ("json", '{"a": [1.50, null]}', {"M": {"a": {"L": [{"N": "1.5"}, {"NULL": True}]}}}),
    ],
)
def test_a_value(kind: str, value: Any, made: Any) -> None:
    assert oracle.attribute(kind, value) == made


def test_it_shares_nothing_with_what_it_judges() -> None:
    for module in (oracle, replica):
        tree = ast.parse(Path(str(module.__file__)).read_text())
        imported = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        imported += [each.name for node in ast.walk(tree) if isinstance(node, ast.Import) for each in node.names]
        assert not [name for name in imported if name.split(".")[0] in ("dbops", "redis")]
