"""docs/keyvalue.md: its examples run, its table is the one that is proved."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

from dbops.keyvalue.repository import ALWAYS
from tests.keyvalue.test_keyvalue_interleavings import RULES

PAGE = Path(__file__).resolve().parents[2] / "docs" / "keyvalue.md"


def test_the_examples_run() -> None:
    found = doctest.testfile(str(PAGE), module_relative=False, optionflags=doctest.ELLIPSIS)
    assert found.failed == 0
    assert found.attempted > 20


def test_the_rule_table_is_the_one_that_is_proved() -> None:
    rows = re.findall(r"^\| (.+?) \| (safe|unsafe) \|$", PAGE.read_text(), re.MULTILINE)
    assert rows == [(rule.name, "safe" if rule.is_safe else "unsafe") for rule in RULES]


def test_every_counter_has_a_meaning() -> None:
    table = PAGE.read_text().split("| counter | meaning |")[1].split("\n\n")[0]
    assert set(ALWAYS) <= set(re.findall(r"`(\w+)`", table)) | {"writes", "deletes"}
