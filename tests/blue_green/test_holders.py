"""How a statement is shown to people, and how several looks become one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbops.blue_green import holders
from dbops.blue_green.ladder import Evidence


@pytest.mark.parametrize(
    ("statement", "shown"),
    [
        ("UPDATE t SET a = 'O''Brien', b = 12.5e3 WHERE id=7", "UPDATE t SET a = ?, b = ? WHERE id=?"),
        ('SELECT "x\\"y", 0xFF, t1.c2 FROM `my 1\'st`', "SELECT ?, ?, t1.c2 FROM `my 1'st`"),
        ("/* user 42 */ INSERT  INTO t\nVALUES (1) -- secret\n, (2) # more", "INSERT INTO t VALUES (?) , (?)"),
        ("INSERT INTO t VALUES ('a secret that the server cut o", "INSERT INTO t VALUES (?"),
        ("", ""),
    ],
)
def test_a_statement_is_shown_without_its_values(statement: str, shown: str) -> None:
    assert holders.masked(statement) == shown


@given(st.text("ab '\"\\`#-/*7\n", max_size=400))
def test_no_quoted_text_and_no_number_survives_and_it_is_short(text: str) -> None:
    shown = holders.masked(f"SELECT '{text.replace(chr(92), '').replace(chr(39), '')}SECRET' , 12345, `c`")
    assert "SECRET" not in shown
    assert "12345" not in shown
    assert len(holders.masked(text)) <= holders.STATEMENT_LENGTH


def test_the_worst_of_several_looks() -> None:
    looks = [Evidence(1.0, 5.0, None, 10, None), Evidence(0.5, 8.0, None, 9, 7)]
    assert holders.worst(looks) == Evidence(1.0, 8.0, None, 10, 7)
    assert holders.worst([]) == Evidence()


def test_a_holder_reads_as_a_sentence() -> None:
    found = holders.Holder(7, "app", "10.0.0.1:5", "transaction", 61, 3, "")
    assert str(found) == "connection 7 of app@10.0.0.1:5, transaction for 61 s, 3 rows: idle"
    assert "XA RECOVER" in str(holders.Holder(0, "", "", "xa", 61, 3, ""))
