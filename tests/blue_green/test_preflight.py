"""What counts as an unquoted use of a word that only 8.0 reserves (the SQL is tested on a real server)."""

from __future__ import annotations

import pytest

from dbops.blue_green import preflight


@pytest.mark.parametrize(
    ("text", "used"),
    [
        ("SELECT rank FROM t", ["RANK"]),
        ("select Groups.a, LEAD from groups", ["GROUPS", "LEAD"]),
        ("SELECT `rank` FROM t", []),
        ("SELECT t.rank, t . `rank` FROM t", []),
        ("SELECT 'rank', \"window\", 'it''s rank', 'a\\'rank' FROM t", []),
        ("SELECT 1 /* rank */ -- window\n # lag\n", []),
        ("SELECT 1 /*! , rank */ FROM t", ["RANK"]),
        ("SET @rank = 1, my_rank = 2, rank_my = 3, $rank = 4", []),
        ("SELECT ROW(1, 2) = (SELECT 1, 2); DROP FUNCTION f", []),
        ("SELECT FOUND_ROWS()", []),
        ("SELECT a AS 'x', rank, 'y' FROM t", ["RANK"]),
    ],
)
def test_reserved_words_in_programs(text: str, used: list[str]) -> None:
    found = preflight._reserved_uses([("procedure a.b", text)], preflight.RESERVED_BY_8_0)
    assert [detail for _, detail in found] == ([f"uses {', '.join(used)} without quotes"] if used else [])


def test_the_words_of_a_server_narrow_them_and_views_are_quoted_by_the_server() -> None:
    program = [("procedure a.b", "SELECT rank, lag FROM t"), ("view a.v", "select rank from t")]
    assert preflight._reserved_uses(program, {"RANK", "SELECT", "FROM"}) == (
        ("procedure a.b", "uses RANK without quotes"),
    )
