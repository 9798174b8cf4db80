"""Trials of raw texts: which are tried, and where."""

from __future__ import annotations

from typing import Any

from dbops.inventory import upgrade
from dbops.inventory.access import Plan
from dbops.inventory.fingerprint import fingerprint
from dbops.inventory.logs import Entry, aggregate
from dbops.inventory.model import Instance, Sighting, Snapshot
from dbops.inventory.trials import run
from dbops.inventory.upgrade import Finding
from tests.inventory import shop


def sighting(source: Any, text: str, **over: Any) -> Sighting:
    return Sighting(source, text, text, **{"schema": "shop", **over})


def snapshot_of(*sightings: Sighting) -> Snapshot:
    return Snapshot(Instance("writer", "5.7.22", "uuid", shop.NOW, False, {}), shop.NOW, sightings, {}, 0, 0, 0, ())


def no_plan(text: str, schema: str | None) -> Plan | None:
    return None


def by_rules(text: str, schema: str | None) -> list[Finding]:
    return upgrade.check(text)


def test_each_spelling_of_a_statement_is_tried() -> None:
    """8.0 takes `rank` and not rank; the fingerprint is one."""
    entries = [
        Entry(shop.NOW, 1, "app", "h", "shop", text, "query", 1.0, 0.0, 1, 1)
        for text in ("SELECT `rank` FROM t", "SELECT `rank` FROM t", "SELECT rank FROM t", "SELECT RANK FROM t")
    ]
    (logged,) = aggregate(entries, source="slow_log")
    (trial,) = run(snapshot_of(logged), set(), no_plan, by_rules).values()
    assert {f.severity for f in trial.findings} == {"breaks"}
    seen = (sighting("sample", "SELECT `groups` FROM t"), sighting("history", "SELECT groups FROM t"))
    (trial,) = run(snapshot_of(*seen), set(), no_plan, by_rules).values()
    assert {f.severity for f in trial.findings} == {"breaks"}


def test_blanks_and_values_are_no_spelling_and_there_is_an_end_to_them() -> None:
    told: list[str] = []

    def check(text: str, schema: str | None) -> list[Finding]:
        told.append(text)
        return []

    name = "abcdefgh"
    capitals = [f"SELECT {name[:n]}{name[n:].upper()} FROM t WHERE b = {n}" for n in range(8)]
    run(
        snapshot_of(*(sighting("history", text) for text in (capitals[0], capitals[0].replace(" ", "\n "), *capitals))),
        set(),
        no_plan,
        check,
    )
    assert told == capitals[:4]


def test_prepared_statements_and_statements_in_another_schema_than_the_log_says_are_tried() -> None:
    asked: list[tuple[str, str | None]] = []

    def check(text: str, schema: str | None) -> list[Finding]:
        asked.append((text, schema))
        return []

    seen = (
        sighting("prepared", "SELECT a AS rank FROM t WHERE b = ?", executions=5),
        Sighting("digest", "d", "SELECT `c` FROM `u` WHERE `d` = ?", schema="other", is_digest=True, executions=1),
        sighting("slow_log", "SELECT c FROM u WHERE d = 1", executions=1),  # of the entry before it
    )
    assert run(snapshot_of(*seen), set(), no_plan, check).keys() == {
        (fingerprint("SELECT a AS rank FROM t WHERE b = ?"), "shop"),
        (fingerprint("SELECT c FROM u WHERE d = 1"), "other"),
    }
    assert asked == [("SELECT c FROM u WHERE d = 1", "other"), ("SELECT a AS rank FROM t WHERE b = ?", "shop")]


def test_what_only_the_slow_log_shows_may_have_been_refused_by_the_old_server_too() -> None:
    def check(text: str, schema: str | None) -> list[Finding]:
        return [
            Finding("server", "breaks", "1064: You have an error", "fix", "server"),
            Finding("r", "changes", "e", "fix"),
        ]

    refused, ran = "SELECT a FROM t WHERE b = 'O'Brien'", "SELECT a AS rank FROM t"
    found = run(
        snapshot_of(
            sighting("slow_log", refused, executions=1), sighting("slow_log", ran, executions=1),
            sighting("digest", "SELECT `a` AS `rank` FROM `t`", is_digest=True, executions=1),
        ), set(), no_plan, check,
    )  # fmt: skip
    said = {key[0]: [f.evidence for f in trial.findings] for key, trial in found.items()}
    assert said == {
        fingerprint(refused): [
            "1064: You have an error (only the slow log shows it: 5.7 may have refused it, too)",
            "e",
        ],
        fingerprint(ran): ["1064: You have an error", "e"],
    }
