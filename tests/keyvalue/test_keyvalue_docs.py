"""docs/keyvalue.md: its examples run, its table is the one that is proved."""

from __future__ import annotations

import ast
import doctest
import os
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

from dbops.keyvalue.repository import ALWAYS
from tests.keyvalue.test_keyvalue_interleavings import RULES

PAGE = Path(__file__).resolve().parents[2] / "docs" / "keyvalue.md"


def test_the_examples_run() -> None:
    found = doctest.testfile(str(PAGE), module_relative=False, optionflags=doctest.ELLIPSIS)
    assert found.failed == 0
    assert found.attempted > 20


def test_blocks_that_need_servers_are_python_whose_imports_are_there() -> None:
    found = [
        ast.parse(block)
        for block in re.findall(r"^```python\n(?!>>>)(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    ]
    imports = [node for tree in found for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert {"dbops.backfill.source", "dbops.keyvalue.counting"} <= {node.module for node in imports}
    for node in imports:
        for alias in node.names:
            pkgutil.resolve_name(f"{node.module}.{alias.name}")  # raises where it is not there


def test_the_view_of_a_spec_needs_no_airflow() -> None:
    code = "import sys, dbops.backfill.source, dbops.backfill.spec, dbops.keyvalue.repository, dbops.keyvalue.counting"
    shown = subprocess.run(
        [sys.executable, "-c", f"{code}\nprint(sorted({{'airflow', 'sqlalchemy'}} & sys.modules.keys()))"],
        env={**os.environ, "PYTHONPATH": str(PAGE.parents[1] / "plugins")}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert shown.stdout.strip() == "[]"


def test_the_rule_table_is_the_one_that_is_proved() -> None:
    rows = re.findall(r"^\| (.+?) \| (safe|unsafe) \|$", PAGE.read_text(), re.MULTILINE)
    assert rows == [(rule.name, "safe" if rule.is_safe else "unsafe") for rule in RULES]


def test_every_counter_has_a_meaning() -> None:
    table = PAGE.read_text().split("| counter | meaning |")[1].split("\n\n")[0]
    assert set(ALWAYS) <= set(re.findall(r"`(\w+)`", table)) | {"writes", "deletes"}
