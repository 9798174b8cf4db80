from __future__ import annotations

import time

import pytest

from dbops.inventory import parse
from dbops.inventory import text as sqltext
from dbops.inventory.model import Analysis, TableName
from dbops.inventory.parse import analyse, split_body
from dbops.inventory.scan import scan
from tests.inventory.corpus import CASES, Case

DML = ("select", "insert", "replace", "update", "delete")


def triples(found: Analysis) -> frozenset[tuple[str | None, str, str]]:
    return frozenset((name.schema, name.table, how) for name, how in found.uses)


def columns(found: Analysis) -> set[str]:
    """Columns as "table.column role", `?` for an owner that only the catalog knows."""
    return {f"{name.table if name else '?'}.{column} {role}" for name, column, role in found.columns}


def predicates(found: Analysis) -> set[str]:
    return {f"{p.table.table if p.table else '?'}.{p.column} {p.operator}" for p in found.predicates}


# -- tables ------------------------------------------------------------------------------------------------------------------


def test_the_corpus_is_large_and_varied():
    kinds = {sqltext.kind_of(case.sql) for case in CASES}
    assert len(CASES) >= 290
    assert {
        *DML,
        "load",
        "truncate",
        "call",
        "handler",
        "ddl",
        "lock",
        "transaction",
        "set",
        "show",
        "do",
        "admin",
        "prepared",
    } <= kinds


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.sql[:60])
def test_full_text(case: Case):
    """Every one right; the same for the masked text that the history keeps."""
    for text in (case.sql, sqltext.mask_literals(case.sql)):
        found = analyse(text)
        assert (triples(found), found.routines) == (case.uses, case.routines)
        assert found.method != "unparsed" or found.reason


def test_methods():
    assert analyse("SELECT a FROM t WHERE b = 1").method == "ast"
    assert analyse("REPLACE INTO t VALUES (1)").method == "ast-normalised"
    assert analyse("DELETE QUICK FROM t").method == "ast-normalised"
    assert analyse("TRUNCATE t").method == "command-regex"
    assert analyse("SELECT a FROM t WHERE b =", truncated=True).method == "truncated-regex"
    broken = analyse("SELECT a FROM t WHERE b = = 1")
    assert broken.method == "unparsed"
    assert "Col" in broken.reason
    assert broken.tables("read") == {TableName(None, "t")}


@pytest.mark.parametrize(
    "text",
    [
        "DELETE FROM t WHERE ((a = 1) AND",
        "DELETE FROM t WHERE a === 1",
        "DELETE QUICK IGNORE FROM t WHERE )",
        "DELETE x FROM t AS x JOIN y ON (",
        "DELETE FROM x USING t x JOIN y ON (",
        "/* c */ DELETE t.* FROM t, y WHERE (((",
        "WITH q AS (SELECT 1) DELETE FROM t WHERE (",
    ],
)
def test_a_delete_that_no_parser_reads_is_not_lost(text):
    for found in (analyse(text), analyse(text, truncated=True)):
        assert found.kind == "delete"
        assert found.tables("write") == {TableName(None, "t")}
        assert found.reason


def test_the_scan_alone_is_nearly_as_good():
    """What stands behind the parser: tables by the words before them."""
    cases = [case for case in CASES if sqltext.kind_of(case.sql) in DML]
    wrong = [
        c.sql
        for c in cases
        if triples(scan(sqltext.mask_literals(c.sql), sqltext.kind_of(c.sql), "unparsed", "")) != c.uses
    ]
    assert len(wrong) <= 0.02 * len(cases), wrong
    assert not any("DELETE" in sql for sql in wrong)


def test_cut_text_shows_what_stands_before_the_cut():
    found = analyse(
        "UPDATE `a` , `b` JOIN `c` SET `a` . `x` = ? , `b` . `y` = `c` . `z` WHERE EXISTS ( SELECT ? FROM `d` WHERE `e",
        truncated=True,
    )
    assert triples(found) == {(None, "a", "write"), (None, "b", "write"), (None, "c", "read"), (None, "d", "read")}
    assert found.flags >= {"truncated"}
    before_set = analyse("UPDATE `a` , `b`", truncated=True)
    assert triples(before_set) == {(None, "a", "write"), (None, "b", "write")}
    assert "ambiguous-target" in before_set.flags


# -- columns -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "SELECT o.id, c.name FROM orders o JOIN customers c ON c.id=o.customer_id WHERE o.status = 'x' GROUP BY o.day ORDER BY c.id",
            "orders.id read, customers.name read, customers.id joined, orders.customer_id joined, orders.status filtered,"
            " orders.day sorted, customers.id sorted",
        ),
        ("SELECT a FROM t JOIN u USING (k) WHERE b = 1", "t.k joined, u.k joined, ?.a read, ?.b filtered"),
        ("SELECT t.*, u.x FROM t, u WHERE t.i = u.i", "t.* read, u.x read, t.i joined, u.i joined"),
        ("SELECT COUNT(*) FROM t", ""),
        ("SELECT * FROM t", "t.* read"),
        ("SELECT q.x FROM (SELECT a AS x FROM t WHERE b > 2) q", "t.a read, t.b filtered, ?.x read"),
        (
            "SELECT (SELECT MAX(x) FROM u WHERE u.i = t.i) FROM t WHERE EXISTS (SELECT 1 FROM v WHERE v.i = t.i AND v.k = 3)",
            "u.x read, u.i joined, t.i joined, v.i joined, v.k filtered",
        ),
        (
            "SELECT x.a FROM t x WHERE x.b IN (SELECT x.c FROM u x WHERE x.d = 1)",
            "t.a read, t.b filtered, u.c read, u.d filtered",
        ),
        ("INSERT INTO t (a, b) VALUES (1, 2)", "t.a written, t.b written"),
        ("INSERT INTO t VALUES (1, 2)", "t.* written"),
        ("INSERT INTO t SET a = 1, b = 2", "t.a written, t.b written"),
        ("INSERT INTO t (a) SELECT x FROM u WHERE y = 1", "t.a written, u.x read, u.y filtered"),
        (
            "INSERT INTO t (k, n) VALUES (1, 1) ON DUPLICATE KEY UPDATE n = n + VALUES(n)",
            "t.k written, t.n written, t.n read",
        ),
        ("REPLACE INTO t (a) VALUES (1)", "t.a written"),
        ("UPDATE t SET a = b + 1 WHERE c = 1 ORDER BY d LIMIT 1", "t.a written, t.b read, t.c filtered, t.d sorted"),
        (
            "UPDATE t x JOIN u y ON y.i = x.i SET x.a = y.b WHERE y.c = 1",
            "t.a written, u.b read, u.i joined, t.i joined, u.c filtered",
        ),
        ("DELETE FROM t WHERE a = 1 AND b < 2", "t.a filtered, t.b filtered"),
        ("UPDATE t SET a = NEW.x WHERE b = OLD.y", "t.a written, t.b filtered"),
        (
            "SELECT STATUS , `value` FROM FOLLOWS WHERE NAME = ?",
            "FOLLOWS.STATUS read, FOLLOWS.value read, FOLLOWS.NAME filtered",
        ),
    ],
)
def test_columns(text, expected):
    assert columns(analyse(text)) == set(filter(None, expected.split(", ")))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("UPDATE t a JOIN t b ON b.i = a.p SET a.x = b.y", {(None, "t", "write"), (None, "t", "read")}),
        ("DELETE a FROM t a JOIN t b ON b.i = a.p", {(None, "t", "write"), (None, "t", "read")}),
        ("DELETE a, b FROM t a JOIN t b ON b.i = a.p", {(None, "t", "write")}),
        ("DELETE t FROM t JOIN u ON u.i = t.i", {(None, "t", "write"), (None, "u", "read")}),
        ("UPDATE old.t JOIN new.t ON old.t.i = new.t.i SET new.t.x = old.t.x", {("new", "t", "write"), ("old", "t", "read")}),
    ],
)  # fmt: skip
def test_a_target_that_is_joined_with_itself_is_read_too(text, expected):
    found = analyse(text)
    assert triples(found) == expected
    assert ("self-reference" in found.flags) == (len({name for name, _ in found.uses}) < len(found.uses))


def test_tables_of_one_name_in_two_schemas_are_told_apart():
    found = analyse("SELECT old.t.x, t.z FROM old.t JOIN new.t ON old.t.i = new.t.j WHERE new.t.y = ?")
    assert {(f"{n.schema}.{n.table}" if n else "", column, role) for n, column, role in found.columns} >= {
        ("old.t", "x", "read"), ("old.t", "i", "joined"), ("new.t", "j", "joined"), ("new.t", "y", "filtered"),
    }  # fmt: skip
    assert len({o.alias for o in found.occurrences}) == 2


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("a = 1 AND 2 = b", "a =, b ="),
        ("a <=> 1", "a <=>"),
        ("a IN (1, 2)", "a in"),
        ("(a, b) IN ((1, 2), (3, 4))", "a in, b in"),
        ("a IN (SELECT x FROM u)", "a other"),
        ("a NOT IN (1, 2)", "a other"),
        ("a <> 1", "a other"),
        ("a > 1 AND b <= 2", "a range, b range"),
        ("a BETWEEN 1 AND 2", "a range"),
        ("a NOT BETWEEN 1 AND 2", "a other"),
        ("a LIKE 'x%'", "a prefix"),
        ("a LIKE '%x'", "a like"),
        ("a LIKE '%x%'", "a like"),
        ("a NOT LIKE 'x%'", "a other"),
        ("a IS NULL", "a null"),
        ("a IS NOT NULL", "a other"),
        ("DATE(a) = '2020-01-01'", "a other"),
        ("a + 1 = 2", "a other"),
        ("((a)) = 1", "a ="),
    ],
)
def test_predicates(condition, expected):
    for text in (f"SELECT z FROM t WHERE {condition}", f"DELETE FROM t WHERE {condition}"):
        found = {p for p in predicates(analyse(text)) if not p.startswith("u.")}
        assert found == {f"t.{part}" for part in expected.split(", ")}
        assert {p for p in predicates(analyse(sqltext.mask_literals(text))) if not p.startswith("u.")} == found


@pytest.mark.parametrize(
    ("text", "flags"),
    [
        ("SELECT a FROM t JOIN u ON t.i = u.i", "join"),
        ("SELECT DISTINCT a FROM t ORDER BY b LIMIT 3", "distinct sort limit"),
        ("SELECT COUNT(*) FROM t GROUP BY a", "aggregate"),
        ("SELECT a FROM t UNION SELECT b FROM u", "union"),
        ("SELECT a FROM t WHERE b IN (SELECT c FROM (SELECT c FROM u) q) OR d = 1", "subquery or-condition"),
        ("WITH RECURSIVE c AS (SELECT 1) SELECT * FROM c", "cte recursive star"),
        ("SELECT a FROM t FOR UPDATE", "lock"),
        ("SELECT a FROM t LOCK IN SHARE MODE", "lock"),
        ("SELECT a FROM t WHERE MATCH(b) AGAINST ('x')", "fulltext"),
        ("SELECT ROW_NUMBER() OVER (ORDER BY a) FROM t", "window sort"),
        ("SELECT /*+ NO_ICP(t) */ a FROM t", "hint"),
        ("INSERT INTO t VALUES (1), (2)", "multi-row"),
        ("INSERT INTO `t` VALUES (...) /* , ... */", "multi-row"),
        ("INSERT INTO t VALUES (1)", ""),
        ("INSERT INTO t (a) VALUES (1) ON DUPLICATE KEY UPDATE b = 2", "upsert"),
        ("INSERT INTO t (a) VALUES (1) ON DUPLICATE KEY UPDATE a = a + 1", "upsert self-reference"),
        ("INSERT INTO t SELECT a FROM u", "insert-select"),
        ("INSERT INTO t SELECT a FROM t", "insert-select self-reference"),
        ("UPDATE t SET a = a + 1", "self-reference"),
        ("UPDATE t SET a = 1 WHERE a = 2", ""),
        ("UPDATE t JOIN u ON t.i = u.i SET t.a = u.b", "join"),
        ("UPDATE t JOIN u ON t.i = u.i SET a = 1", "join ambiguous-target"),
        ("UPDATE t SET a = NOW(), b = UUID()", "nondeterministic"),
        ("UPDATE t SET a = CURRENT_TIMESTAMP", "nondeterministic"),
        ("UPDATE t SET now = 1", ""),
        ("LOAD DATA INFILE 'x' REPLACE INTO TABLE t", "replace"),
        ("EXECUTE s", "dynamic-sql"),
    ],
)
def test_flags(text, flags):
    interesting = {
        *flags.split(),
        "multi-row",
        "upsert",
        "self-reference",
        "nondeterministic",
        "ambiguous-target",
        "insert-select",
    }
    assert analyse(text, is_digest="..." in text).flags & interesting == set(flags.split())


def test_functions():
    found = analyse(
        "SELECT MD5(a), `Sha1` (b), shop.tax(c), COUNT(*), CURRENT_DATE FROM t WHERE a IN (1) AND EXISTS (SELECT 1)"
    )
    assert found.functions == {"MD5", "SHA1", "shop.tax", "COUNT", "CURRENT_DATE"}


# -- bodies ------------------------------------------------------------------------------------------------------------------

BODY = """\
main: BEGIN
  DECLARE done, n INT DEFAULT (SELECT COUNT(*) FROM t0);
  DECLARE c CURSOR FOR SELECT id FROM orders WHERE a = 1;
  DECLARE CONTINUE HANDLER FOR NOT FOUND, SQLSTATE VALUE '02000', 1062 SET done = 1;
  DECLARE EXIT HANDLER FOR SQLEXCEPTION BEGIN ROLLBACK; INSERT INTO errors VALUES ('a;b'); END;
  OPEN c;
  again: LOOP
    FETCH c INTO n;
    IF done THEN LEAVE again; END IF;
    IF n > CASE WHEN done THEN 1 ELSE 2 END AND EXISTS (SELECT 1 FROM customers WHERE id = n) THEN
      UPDATE orders SET s = IF(a, 1, 2) WHERE id = n; -- not; here
    ELSEIF f(n) THEN DELETE FROM orders WHERE id = n;
    ELSE BEGIN TRUNCATE t9; END;
    END IF;
  END LOOP again;
  WHILE (SELECT MAX(a) FROM w) < 3 DO REPLACE INTO w VALUES (1); END WHILE;
  REPEAT CALL q(n); UNTIL n > (SELECT 1 FROM un) END REPEAT;
  CASE n WHEN 1 THEN DELETE FROM c1; WHEN 2 THEN DELETE FROM c2; ELSE SELECT a, b INTO n, done FROM c3; END CASE;
  CASE WHEN n = 1 THEN INSERT INTO c4 SELECT CASE a WHEN 1 THEN 2 END FROM c5; END CASE;
  CLOSE c;
END"""


def test_split_body():
    assert split_body(BODY) == [
        "DO (SELECT COUNT(*) FROM t0)",
        "SELECT id FROM orders WHERE a = 1",
        "SET done = 1",
        "ROLLBACK",
        "INSERT INTO errors VALUES ('a;b')",
        "DO n > CASE WHEN done THEN 1 ELSE 2 END AND EXISTS (SELECT 1 FROM customers WHERE id = n)",
        "UPDATE orders SET s = IF(a, 1, 2) WHERE id = n",
        "DO f(n)",
        "DELETE FROM orders WHERE id = n",
        "TRUNCATE t9",
        "DO (SELECT MAX(a) FROM w) < 3",
        "REPLACE INTO w VALUES (1)",
        "CALL q(n)",
        "DO n > (SELECT 1 FROM un)",
        "DELETE FROM c1",
        "DELETE FROM c2",
        "SELECT a, b INTO n, done FROM c3",
        "INSERT INTO c4 SELECT CASE a WHEN 1 THEN 2 END FROM c5",
    ]


@pytest.mark.parametrize(
    ("body", "statements"),
    [
        ("UPDATE t SET a = NEW.a WHERE id = OLD.id", ["UPDATE t SET a = NEW.a WHERE id = OLD.id"]),
        ("RETURN (SELECT MAX(a) FROM t)", ["DO (SELECT MAX(a) FROM t)"]),
        ("RETURN a + 1", []),
        ("BEGIN END", []),
        ("BEGIN", []),
        ("", []),
        ("IF a THEN", []),
        ("DECLARE EXIT HANDLER FOR", []),
        ("SET NEW.a = 1; SET @b = (SELECT 1 FROM t)", ["SET NEW.a = 1", "SET @b = (SELECT 1 FROM t)"]),
        ("BEGIN /*!50000 DELETE FROM t */; END", ["DELETE FROM t"]),
    ],
)
def test_split_small_bodies(body, statements):
    assert split_body(body) == statements


# -- bad and big input ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [400, 4_000, 40_000])
def test_nested_parentheses(depth):
    text = f"DELETE FROM t WHERE {'(' * depth}a = 1{')' * depth}"
    assert analyse(text).tables("write") == {TableName(None, "t")}


def test_a_parser_that_gives_up_is_a_reason_not_an_error(monkeypatch):
    def deep(*_: object, **__: object) -> None:
        raise RecursionError

    monkeypatch.setattr(parse.sqlglot, "parse", deep)
    found = analyse("DELETE FROM t WHERE a = 1")
    assert (found.method, found.reason) == ("unparsed", "nested too deeply for the parser")
    assert triples(found) == {(None, "t", "write")}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("INSERT INTO t VALUES " + ",".join(f"({n},'abc {n}',NULL)" for n in range(45_000)), {(None, "t", "write")}),
        ("DELETE FROM t WHERE id IN (" + ",".join(map(str, range(160_000))) + ")", {(None, "t", "write")}),
        ("UPDATE t SET a = '" + "x''\\'" * 250_000 + "' WHERE id = 1", {(None, "t", "write")}),
        ("SELECT * FROM t WHERE " + " OR ".join(f"(a={n} AND b={n})" for n in range(45_000)), {(None, "t", "read")}),
        (" UNION ALL ".join(f"SELECT {n} FROM t" for n in range(36_000)), {(None, "t", "read")}),
    ],
    ids=["rows", "in", "string", "or", "union"],
)
def test_one_megabyte(text, expected):
    assert len(text) > 1_000_000
    started = time.perf_counter()
    assert triples(analyse(text)) == expected
    assert time.perf_counter() - started < 30


@pytest.mark.parametrize(
    "odd",
    ["", " ", "\0", "\ufffd\ufffd", "\ud800", "';", "`", "(", ")", "/*", "--", "?", "SELECT", "DELETE", "DELETE FROM", "UPDATE SET",
     "INSERT INTO", "WITH", "SELECT 1; DELETE FROM t", "LOCK TABLES", "RENAME TABLE a", "CREATE", "ALTER TABLE", "CALL", "()" * 9999],
)  # fmt: skip
def test_odd_text_never_raises(odd):
    for is_digest in (False, True):
        for truncated in (False, True):
            found = analyse(odd, is_digest=is_digest, truncated=truncated)
            assert found.method != "unparsed" or found.reason
    split_body(odd)


def test_text_that_is_not_utf8_is_read():
    text = b"DELETE FROM `gr\xf6\xdfe` WHERE name = 'M\xfcller'".decode(errors="replace")
    assert triples(analyse(text)) == {(None, "gr\ufffd\ufffde", "write")}


def test_cut_anywhere_never_raises():
    for case in CASES[::3]:
        for at in range(0, len(case.sql), 7):
            analyse(case.sql[:at], truncated=True)
            analyse(case.sql[:at], is_digest=True)


def test_ten_thousand_statements_in_ten_seconds():
    texts = [case.sql.replace("orders", f"orders_{n}") for n in range(40) for case in CASES][:10_000]
    started = time.perf_counter()
    for text in texts:
        analyse(text)
    assert time.perf_counter() - started < 10
