"""Which statements may be sent, and what differs between two plans."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbops.blue_green import compare


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT 1",
        " (select a from t) union (select 'for update; into :=')  ;",
        "WITH x AS (SELECT 1) SELECT * FROM x",
        "SELECT SQL_CACHE a FROM t GROUP BY a DESC",
        "SELECT REPLACE(a, 'x', 'y'), INSERT('Quadratic', 3, 4, 'What'), `sleep`, `into` FROM t -- why ?",
        "SELECT /*+ MAX_EXECUTION_TIME(1) */ a /* plain */ FROM t",
        "SELECT 5 - -1 FROM t",
    ],
)
def test_what_only_reads_is_sent(statement: str) -> None:
    assert compare.refusal(statement) == ""


@pytest.mark.parametrize(
    ("statement", "why"),
    [
        ("DELETE FROM t", "begins with DELETE"),
        ("", "begins with nothing"),
        ("CALL p()", "begins with CALL"),
        ("EXPLAIN SELECT 1", "begins with EXPLAIN"),
        ("SELECT 1; DELETE FROM t", "more than one"),
        ("WITH x AS (SELECT 1) DELETE FROM t", "has DELETE"),
        ("WITH x AS (SELECT 1) UPDATE t SET a = 1", "has UPDATE"),
        ("SELECT a FROM t INTO OUTFILE 'x'", "writes its rows"),
        ("SELECT a INTO @x FROM t", "writes its rows"),
        ("SELECT @a := 1", "assigns"),
        ("SELECT a FROM t WHERE id = ?", "placeholders"),
        ("SELECT a FROM t FOR\nUPDATE", "locks"),
        ("SELECT a FROM t FOR SHARE", "locks"),
        ("SELECT a FROM t LOCK IN SHARE MODE", "locks"),
        ("SELECT SLEEP (9)", "SLEEP"),
        ("SELECT get_lock('a', 1)", "GET_LOCK"),
        ("SELECT 1 /*! INTO @x */", "comment"),
        ("SELECT 1 --1 INTO @x", "writes its rows"),
        ("SELECT 'open", "cannot be read"),
    ],
)
def test_what_might_do_more_is_not_sent(statement: str, why: str) -> None:
    assert why in compare.refusal(statement)


@given(
    st.lists(
        st.sampled_from(["SELECT", "a", "'x'", "`y`", "(", ")", "/*", "*/", "--", "#", "\n", ";", "1"]), max_size=12
    )
)
def test_no_text_makes_the_reader_fail(words: list[str]) -> None:
    assert isinstance(compare.refusal(" ".join(words)), str)


def table(name: str, access: str, key: str | None, rows: int) -> dict[str, Any]:
    return {
        "table": {"table_name": name, "access_type": access, "rows_examined_per_scan": rows}
        | ({"key": key} if key else {})
    }


def test_what_differs_between_plans_is_said() -> None:
    blue = {"query_block": {"nested_loop": [table("a", "ref", "k", 10), table("b", "eq_ref", "PRIMARY", 1)]}}
    assert compare.plan_differences(blue, blue) == []
    green = {
        "query_block": {
            "ordering_operation": {
                "using_filesort": True,
                "using_temporary_table": True,
                "nested_loop": [table("b", "ALL", None, 5000), table("a", "ref", "k", 12)],
            }
        }
    }
    assert compare.plan_differences(blue, green) == [
        "tables in order a b -> b a",
        "b: access eq_ref -> ALL",
        "b: key PRIMARY -> none",
        "b: rows 1 -> 5000",
        "filesort: 0 -> 1",
        "temporary table: 0 -> 1",
    ]
