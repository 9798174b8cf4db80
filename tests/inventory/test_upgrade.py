"""The rules of the 8.0 check on text; tests/lab/test_inventory_upgrade.py asks real servers about the same probes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbops.inventory import text as sqltext
from dbops.inventory import upgrade
from tests.inventory.upgrade_probes import PROBES


def breaking(text: str, **how: bool) -> set[str]:
    return {f.rule for f in upgrade.check(text, **how) if f.severity == "breaks"}


def severities(text: str, **how: bool) -> set[str]:
    return {f.severity for f in upgrade.check(text, **how)}


@pytest.mark.parametrize(("probe", "breaks"), PROBES)
def test_rules_agree_with_the_probes(probe: str, breaks: bool) -> None:
    assert bool(breaking(probe)) is breaks, upgrade.check(probe)


@pytest.mark.parametrize(
    "text",
    [
        # what only 8.0 knows is not a break: an 8.0 server may be the source
        "WITH RECURSIVE n AS (SELECT 1 AS x UNION ALL SELECT x + 1 FROM n WHERE x < 5) SELECT x FROM n",
        "SELECT RANK() OVER (ORDER BY a), LAG(a, 1) OVER w FROM t WINDOW w AS (ORDER BY id)",
        "SELECT FIRST_VALUE(a) OVER (ORDER BY b ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS f FROM t",
        "SELECT SUM(a) OVER (ORDER BY b ROWS 2 PRECEDING) FROM t",
        "SELECT * FROM t, LATERAL (SELECT 1) AS x",
        "SELECT * FROM JSON_TABLE('[1]', '$[*]' COLUMNS (a INT PATH '$' NULL ON EMPTY)) AS j",
        "SELECT a, GROUPING(a) FROM t GROUP BY a WITH ROLLUP",
        "SELECT * FROM t FOR UPDATE OF t SKIP LOCKED",
        "SET PERSIST max_connections = 10",
        "(SELECT 1) EXCEPT (SELECT 2)",
        "SELECT /*!80000 RANK() OVER (ORDER BY a) , */ id FROM t",
        # and what 5.7 knows
        "CREATE TRIGGER g BEFORE INSERT ON t FOR EACH ROW SET NEW.a = 1",
        "SHOW CREATE FUNCTION f",
        "GRANT EXECUTE ON FUNCTION shop.f TO 'u'@'%'",
        "SELECT * FROM t PARTITION (p0)",
        "CALL rank_all()",
        "SELECT ranks.`rank`, ranks.rank FROM ranks",
        "",
        "?",
        "'unterminated rank",
    ],
)
def test_no_false_alarm(text: str) -> None:
    assert breaking(text) == set()


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("SELECT rank(1)", "reserved word"),  # a stored function of that name
        ("SELECT a FROM t ORDER BY rank DESC", "reserved word"),
        ("SELECT /*!50700 rank */ FROM scores", "reserved word"),
        ("CREATE TABLE x (`rank` INT, lead INT)", "reserved word"),
        ("ALTER TABLE t ADD COLUMN groups INT", "reserved word"),
        ("SELECT (SELECT a FROM t GROUP BY a DESC LIMIT 1)", "GROUP BY direction"),
        ("SELECT a FROM t GROUP BY FIELD(a, 1, 2) DESC", "GROUP BY direction"),
        ("INSERT INTO t SELECT area(g) FROM geo", "removed function"),
        ("SELECT `area` (g) FROM geo", "removed function"),
        ("ALTER TABLE t ENGINE MyISAM PARTITION BY KEY (id)", "partitioning without InnoDB"),
        ("SET @@session.tx_isolation = 'SERIALIZABLE'", "removed variable"),
        ("select @@TX_ISOLATION", "removed variable"),
        ("DESC EXTENDED SELECT 1", "EXPLAIN variant"),
        ("USE information_schema", ""),
    ],
)
def test_more_that_breaks(text: str, rule: str) -> None:
    assert breaking(text) == ({rule} if rule else set())


@pytest.mark.parametrize(
    ("digest", "severity"),
    [
        ("SELECT `id` AS `rank` FROM `t` ", "needs raw text"),
        ("SELECT `rank` FROM `scores` ", "needs raw text"),
        ("SELECT `s` . `rank` FROM `scores` `s` ", None),
        ("SELECT FUNCTION FROM `scores` ", "breaks"),  # a keyword of 5.7: bare in the digest, so it was not quoted
        ("SELECT `function` FROM `scores` ", None),
        ("SELECT `area` (`g`) FROM `geo` ", "breaks"),
        ("INSERT INTO `contains` (`id`) VALUES (?) ", None),
        ("SELECT `a` FROM `t` GROUP BY `a` DESC ", "breaks"),
        ("SET `sql_mode` = ? ", "needs raw text"),
        ("SET `tx_isolation` = ? ", "breaks"),
        ("SELECT @@SESSION . `tx_isolation` ", "breaks"),
        ("SELECT `id` FROM `t` WHERE `b` RLIKE ? ", "needs raw text"),
        ("SELECT `lock_id` FROM `information_schema` . `innodb_locks` ", "breaks"),
        ("SELECT SQL_CACHE `id` FROM `t` ", "breaks"),
        ("SELECT `id` FROM `t` WHERE `id` IN (...) ", None),
        ("SHOW VARIABLES LIKE ? ", "needs raw text"),
        ("SHOW VARIABLES ", None),
        ("SHOW TABLES LIKE ? ", None),
    ],
)
def test_digest_says_what_only_the_raw_text_can_tell(digest: str, severity: str | None) -> None:
    assert severities(digest, is_digest=True) - {"changes", "deprecated"} == ({severity} if severity else set())


@pytest.mark.parametrize(
    ("text", "severity"),
    [
        ("SELECT rank FROM t", "breaks"),
        ("SET sql_mode = 'NO_AUTO_CREATE_USER'", "needs raw text"),
        ("SELECT a FROM t WHERE b REGEXP '[[:<:]]a'", "needs raw text"),
        ("SELECT a FROM t WHERE b = '[[:<:]]a'", None),
        ("SHOW VARIABLES WHERE Variable_name = 'tx_isolation' OR Variable_name = 'port'", "needs raw text"),
    ],
)
def test_masked_text_has_names_but_no_literals(text: str, severity: str | None) -> None:
    assert severities(sqltext.mask_literals(text), masked=True) == ({severity} if severity else set())


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("SELECT SQL_CALC_FOUND_ROWS id FROM t", "SQL_CALC_FOUND_ROWS"),
        ("SELECT FOUND_ROWS()", "FOUND_ROWS"),
        ("INSERT INTO t (a) VALUES (1) ON DUPLICATE KEY UPDATE a = VALUES(a)", "VALUES() in an upsert"),
        ("SELECT 1 FROM t WHERE a && b", "operator"),
        ("SELECT 1 FROM t WHERE a || b", "operator"),
        ("SELECT BINARY b FROM t", "BINARY operator"),
        ("SET NAMES utf8", "character set utf8"),
        ("CREATE TABLE x (a VARCHAR(9)) CHARACTER SET utf8", "character set utf8"),
    ],
)
def test_what_will_not_last_is_a_warning(text: str, rule: str) -> None:
    assert [(f.rule, f.severity) for f in upgrade.check(text)] == [(rule, "deprecated")]


@pytest.mark.parametrize(
    ("text", "changes"),
    [
        ("SELECT a FROM t GROUP BY a", True),
        ("SELECT a FROM t GROUP BY a ORDER BY a", False),
        ("SELECT a FROM t GROUP BY a HAVING COUNT(*) > 1 ORDER BY NULL", False),
        ("SELECT a FROM t GROUP BY a HAVING a IN (SELECT b FROM u ORDER BY b)", True),
        ("SELECT * FROM (SELECT a FROM t GROUP BY a) AS s ORDER BY a", True),
        ("SHOW VARIABLES LIKE 'tx_isolation'", True),
        ("SHOW VARIABLES LIKE 'version'", False),
    ],
)
def test_what_changes_silently(text: str, changes: bool) -> None:
    assert ("changes" in severities(text)) is changes
    assert breaking(text) == set()


def test_evidence_has_no_literals_and_every_finding_a_fix() -> None:
    for probe, _ in PROBES:
        for finding in upgrade.check(probe):
            assert finding.fix
            assert "car" not in finding.evidence
            assert "STRICT_TRANS_TABLES" not in finding.evidence


def test_a_word_of_a_later_release_counts_from_there() -> None:
    text = "SELECT intersect.id FROM t AS intersect"
    assert [f.rule for f in upgrade.check(text, target=(8, 0, 30))] == []
    assert {f.rule for f in upgrade.check(text)} == {"reserved word"}


@given(st.text(max_size=200), st.booleans(), st.booleans())
def test_never_fails(text: str, is_digest: bool, masked: bool) -> None:
    upgrade.check(text, is_digest=is_digest, masked=masked)


@given(st.sampled_from([p for p, _ in PROBES]), st.integers(0, 120))
def test_never_fails_on_text_that_was_cut(probe: str, length: int) -> None:
    upgrade.check(probe[:length])
    upgrade.check(probe[:length], is_digest=True)


@given(st.sampled_from(sorted(upgrade.RESERVED)))
def test_a_quoted_or_qualified_name_never_breaks(word: str) -> None:
    for text in (
        f"SELECT `{word}` FROM t",
        f"SELECT t.{word} FROM t",
        f"SELECT '{word}'",
        f"SELECT @{word} := 1",
        f"SELECT 1 -- {word}",
    ):
        assert breaking(text) == set(), text
    for text in (
        f"SELECT 1 AS {word}", f"SELECT {word} FROM t", f"UPDATE t SET {word} = 1", f"INSERT INTO t (a, {word}) VALUES (1, 2)",
        f"SELECT * FROM t AS {word}", f"SELECT * FROM {word}", f"CREATE TABLE {word} (id INT)", f"CREATE TABLE x ({word} INT)",
    ):  # fmt: skip
        assert breaking(text) == {"reserved word"}, text
