from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbops.inventory import text
from dbops.inventory.fingerprint import fingerprint
from tests.inventory.corpus import CASES


@pytest.mark.parametrize(
    ("statement", "kind"),
    [
        ("SELECT 1", "select"),
        ("  /* a */ -- b\n # c\n ( ( select 1", "select"),
        ("/*!40001 SELECT */ 1", "select"),
        ("WITH x AS (SELECT 1) SELECT 2", "select"),
        ("WITH x (a) AS (DELETE FROM y), z AS (SELECT 1) UPDATE t SET a = 1", "update"),
        ("WITH RECURSIVE x AS (SELECT 1) DELETE FROM t", "delete"),
        ("WITH x AS (SELECT", "select"),
        ("table t", "select"),
        ("REPLACE INTO t VALUES (1)", "replace"),
        ("LOAD DATA INFILE 'x' INTO TABLE t", "load"),
        ("XA START 'x'", "transaction"),
        ("begin", "transaction"),
        ("desc t", "show"),
        ("EXECUTE `s1` USING @?", "prepared"),
        ("OPTIMIZE TABLE t", "admin"),
        ("`SELECT` 1", "other"),
        ("'SELECT'", "other"),
        ("", "other"),
        (" /* only a comment", "other"),
    ],
)
def test_kind(statement, kind):
    assert text.kind_of(statement) == kind


def test_tokens_follow_the_lexer_of_mysql():
    pieces = [
        (t.kind, t.text)
        for t in text.tokens(
            "a`b``c`'d''e\\'f'\"g\"@h@'i'@@j:=5--1<=>.5e3,0x1F x'1f' 2nd->>'$.k'#l\n-- m\n/*n*/ /*+ o */?"
        )
    ]
    assert pieces == [
        ("word", "a"), ("name", "`b``c`"), ("string", "'d''e\\'f'"), ("string", '"g"'), ("variable", "@h"), ("variable", "@'i'"),
        ("op", "@@"), ("word", "j"), ("op", ":="), ("number", "5"), ("op", "-"), ("op", "-"), ("number", "1"), ("op", "<=>"),
        ("number", ".5e3"), ("op", ","), ("number", "0x1F"), ("string", "x'1f'"), ("word", "2nd"), ("op", "->>"), ("string", "'$.k'"),
        ("comment", "#l"), ("comment", "-- m"), ("comment", "/*n*/"), ("hint", "/*+ o */"), ("mark", "?"),
    ]  # fmt: skip


def test_versioned_comments_are_code():
    found = [t.text for t in text.tokens("SELECT /*!40001 SQL_NO_CACHE */ 1 /*!50000 , 2 /*! , 3 */")]
    assert found[:3] == ["SELECT", "SQL_NO_CACHE", "1"]
    assert "2" in found


@pytest.mark.parametrize(
    ("statement", "masked"),
    [
        ("SELECT * FROM t WHERE a = 'x' AND b=-1.5e3", "SELECT * FROM t WHERE a = ? AND b=-?"),
        ("SELECT  *\n\tFROM\n`my t`", "SELECT * FROM `my t`"),
        ("a IN (1,2,3,4)", "a IN (?, ?)"),
        ("a IN (1, 'b')", "a IN (?, ?)"),
        ("a IN (1)", "a IN (?)"),
        ("INSERT INTO t VALUES (1,'a'),(2,NULL),(3,'c'),(4,'d')", "INSERT INTO t VALUES (?,?),(?,NULL)"),
        ("INSERT INTO t VALUES (1,NOW()),(2,NOW()),(3,NOW())", "INSERT INTO t VALUES (?,NOW()),(?,NOW())"),
        ("INSERT INTO t VALUES (1,NOW()),(2,a),(3,b)", "INSERT INTO t VALUES (?,NOW()),(?,a),(?,b)"),
        ("SELECT f(1), (2), (3)", "SELECT f(?), (?), (?)"),
        ("a LIKE 'x%' OR a LIKE '%y' OR a LIKE '_z_' OR a LIKE 'w' OR a LIKE 'v\\%'",
         "a LIKE '?%' OR a LIKE '%?' OR a LIKE '%?%' OR a LIKE ? OR a LIKE ?"),
        ("SELECT _utf8'x', N'y', x'00', 0x00, b'1', \\N, @a, @'b', @@c", "SELECT ?, ?, ?, ?, ?, NULL, @a, @?, @@c"),
        ("GRANT ALL ON a.* TO 'u'@'10.0.0.1' IDENTIFIED BY 'pw'", "GRANT ALL ON a.* TO ?@? IDENTIFIED BY ?"),
        ("SELECT /*+ MAX_EXECUTION_TIME(1000) */ 1 /* card 4111 */", "SELECT /*+ MAX_EXECUTION_TIME(?) */ ?"),
        ("SELECT 'cut in a str", "SELECT ?"),
        ("SELECT 'cut after a backslash\\", "SELECT ?"),
        ("INSERT INTO `t` VALUES (...) /* , ... */", "INSERT INTO `t` VALUES (...) /* , ... */"),
        ("SELECT t1.c2 FROM 2020_t", "SELECT t1.c2 FROM 2020_t"),
        ("SELECT 0XAB, a FROM t WHERE b = (1).5", "SELECT ?, a FROM t WHERE b = (?)?"),
        ("", ""),
    ],
)  # fmt: skip
def test_mask(statement, masked):
    assert text.mask_literals(statement) == masked


@pytest.mark.parametrize(
    ("refused", "kept"),
    [
        ("SELECT * FROM u WHERE n = 'O'Brien' AND m = 'D'Angelo'", "SELECT * FROM u WHERE n = ?"),
        ("INSERT INTO t VALUES (1, 'it's Tom's', 2)", "INSERT INTO t VALUES (?, ?"),
        ("UPDATE t SET size = '5'10 tall' WHERE a = 'x'", "UPDATE t SET size = ?"),
        ("SELECT * FROM u WHERE email = bob.smith@example.com AND x = 1", "SELECT * FROM u WHERE email = ?"),
        ("CREATE USER bob@localhost IDENTIFIED BY hunter", "CREATE USER bob@localhost IDENTIFIED BY ?"),
        ("SET PASSWORD FOR bob@localhost = hunter", "SET PASSWORD FOR bob@localhost = ?"),
        ("SET PASSWORD=hunter", "SET PASSWORD= ?"),
        ("CHANGE MASTER TO MASTER_PASSWORD = hunter, MASTER_PORT = 3", "CHANGE MASTER TO MASTER_PASSWORD = ?"),
    ],
)  # fmt: skip
def test_a_value_out_of_its_quotes_is_not_stored(refused, kept):
    """MySQL refuses such statements, and the slow log has them."""
    assert text.storable(refused) == (kept, False)


@pytest.mark.parametrize(
    "valid",
    [
        *(case.sql for case in CASES),
        "SELECT 'a' x, 'b'AS y FROM t WHERE a='x'AND b IN('y')ORDER BY c", "SELECT@a:=1,@b", "UPDATE t SET a='x'WHERE b=@c",
        "SELECT 'a' COLLATE utf8_bin, _utf8'b', N'c', DATE'2026-01-01'", "GRANT SELECT ON a.* TO bob@localhost IDENTIFIED BY 'x'",
        "SET PASSWORD FOR bob@localhost = PASSWORD('x')", "CREATE USER bob@'%' IDENTIFIED BY PASSWORD '*A'",
        "CREATE DEFINER=bob@localhost PROCEDURE p() SELECT 'a'", "SELECT * FROM t WHERE password = other AND a = 'x'",
    ],
)  # fmt: skip
def test_what_mysql_takes_is_stored_whole(valid):
    stored, whole = text.storable(valid)
    assert whole or "\\" in valid or "'" in valid or '"' in valid, stored


# Letters and digits that stand in no template: whatever of them is in a masked text has come from a literal.
_SECRET = st.text("жщюяЖЩ0123456789", min_size=1, max_size=12)
_DIGITS = st.text("0123456789", min_size=1, max_size=9)
_QUOTED = st.builds(
    lambda parts, quote: quote + "".join(p if p != "QUOTE" else quote * 2 for p in parts) + quote,
    st.lists(
        st.one_of(
            _SECRET, st.sampled_from(["QUOTE", "\\'", '\\"', "\\\\", "%", "_", " -- ", "/*", "*/", "#", "`", "?", "\n"])
        )
    ),
    st.sampled_from("'\""),
)
_LITERAL = st.one_of(
    _QUOTED,
    st.builds(
        "{}{}".format,
        st.sampled_from(["x", "X", "b", "N", "n", "_ascii", "_binary "]),
        st.builds("'{}'".format, _SECRET),
    ),
    _DIGITS,
    st.builds("-{}.{}".format, _DIGITS, _DIGITS),
    st.builds("{}e{}{}".format, _DIGITS, st.sampled_from(["", "-", "+"]), _DIGITS),
    st.builds(".{}".format, _DIGITS),
    st.builds("0x{}".format, st.text("0123456789abcdefABCDEF", min_size=1)),
)
_TEMPLATE = st.sampled_from([
    "SELECT * FROM t WHERE a = {} AND b IN ({}, {},{}) ORDER BY c LIMIT {}",
    "INSERT INTO t (a, b) VALUES ({}, {}), ({}, NOW()) ON DUPLICATE KEY UPDATE a = {}",
    "UPDATE `t` SET a={},b=a+{} WHERE c LIKE {} OR d NOT LIKE {} ESCAPE {}",
    "/* жщ 7 ' */ DELETE FROM t WHERE a BETWEEN {} AND {} # 'ю5",
    "SELECT /*+ SET_VAR(x = {}) */ f({},{}), {} {} FROM t -- 9 щ\"",
    "SET PASSWORD FOR {}@{} = PASSWORD({})",
    "CALL p({}, @a, @{}) /*! , {} */",
    "SELECT a->{}, {}/{}, {}*-{} FROM t",
    "LOAD DATA INFILE {} INTO TABLE t FIELDS TERMINATED BY {} SET a = {}",
])  # fmt: skip


@st.composite
def _statements(draw):
    template = draw(_TEMPLATE)
    whole = template.format(*(draw(_LITERAL) for _ in range(template.count("{}"))))
    cut = draw(st.one_of(st.just(len(whole)), st.integers(0, len(whole))))
    return whole[:cut]


@given(_statements())
def test_no_literal_survives_masking(statement):
    masked = text.mask_literals(statement)
    assert not re.search("[жщюяЖЩ0-9]", masked), (statement, masked)


@given(st.one_of(_statements(), st.text(), st.sampled_from([case.sql for case in CASES])))
def test_masking_twice_is_masking_once(statement):
    masked = text.mask_literals(statement)
    assert text.mask_literals(masked) == masked


@given(st.one_of(_statements(), st.sampled_from([case.sql for case in CASES])))
def test_masking_keeps_the_fingerprint(statement):
    assert fingerprint(text.mask_literals(statement)) == fingerprint(statement)


def test_truncation_is_judged_by_the_token_buffer():
    assert text.digest_bytes("SELECT `ab` , ? ") == 2 + (4 + 2) + 2 + 2
    assert text.digest_bytes("INSERT INTO `t` VALUES (...) /* , ... */ ") == 2 + 2 + (4 + 1) + 2 + 2
    assert text.digest_bytes("`a` IN (...) AND `b` IN (?) LIMIT ?, ...") == 5 + 2 + 2 + 2 + 5 + 2 + 2 + 2 + 2
    whole = "SELECT `a` FROM `t` WHERE `b` = ?"
    size = text.digest_bytes(whole)
    assert not text.is_truncated(whole, size + 12)
    assert text.is_truncated(whole, size + 11)
    # An identifier of up to 64 characters did not fit.
    for unfinished in (
        "SELECT `a` ,",
        "SELECT `a` FROM `t` WHERE (",
        "SELECT `a` FROM",
        "SELECT `t` .",
        "SELECT ( `a` )  + ( ( ?",
    ):
        assert text.is_truncated(unfinished, text.digest_bytes(unfinished) + 195)
        assert not text.is_truncated(unfinished, text.digest_bytes(unfinished) + 196)


def test_caller_reads_comments():
    found = text.caller(
        "/* job 7 */ SELECT '/* no */' FROM t /*action='show%20all',controller='it\\'s'*/ -- by hand\n /*!40000 x */ /*+ y */ # z"
    )
    assert found.tags == (("action", "show all"), ("controller", "it's"))
    assert found.comments == ("job 7", "by hand", "z")
    assert text.caller("INSERT INTO t VALUES (...) /* , ... */") == text.Caller()
    assert text.caller(f"SELECT 1 {text.own_comment()}").tags == (("dbops", "inventory"),)


@given(st.text())
def test_nothing_raises(anything):
    for function in (text.mask_literals, text.kind_of, text.caller, text.undo_digest, text.digest_bytes, text.plain):
        function(anything)


def test_a_comment_with_a_version_ends_where_mysql_ends_it():
    assert text.plain("/*!50003 CREATE /* why */ TABLE t (a INT) */ x").split() == [
        "CREATE",
        "/*",
        "why",
        "*/",
        "TABLE",
        "t",
        "(a",
        "INT)",
        "x",
    ]
    assert text.plain("SELECT /*!50000 'a*/b', */ 2").split() == ["SELECT", "'a*/b',", "2"]
    assert text.plain("SELECT /*! 1 */*/* x */2").split() == ["SELECT", "1", "*/*", "x", "*/2"]


@pytest.mark.parametrize("piece", ["/*! 1 ", "/*!", "(", "'/*", "\\'", "(a,1),"])
def test_a_cut_text_of_a_megabyte_is_read(piece):
    long = f"INSERT INTO t VALUES ('a', \"{piece * (1_000_000 // len(piece))}"
    for statement in (long, long.replace('"', "'"), long.replace('"', "")):
        assert text.storable(statement)[0].startswith("INSERT INTO t VALUES (")
        assert text.callers(statement) == ()
