"""Aurora's log of prechecks is read whole, and laid beside our own results."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dbops.blue_green import prechecks, preflight
from dbops.blue_green.prechecks import PrechecksError
from dbops.blue_green.preflight import Result, Verdict
from tests.blue_green.fake_rds import AwsError


def check(name: str, *problems: tuple[str, str], status: str = "OK") -> dict[str, Any]:
    detected = [{"level": level, "dbObject": thing, "description": " because "} for level, thing in problems]
    return {"id": name, "title": f"title of {name}", "status": status, "detectedProblems": detected}


def log(*checks: dict[str, Any]) -> str:
    return json.dumps({
        "serverAddress": "/tmp%2Fmysql.sock", "serverVersion": "5.7.12", "targetVersion": "8.0.36", "auroraServerVersion": "2.11.4",
        "auroraTargetVersion": "3.08.2", "checksPerformed": list(checks), "errorCount": 1, "warningCount": 0, "noticeCount": 0,
        "Summary": "1 errors were found.",
    }, indent=2)  # fmt: skip


def ours(name: str, verdict: Verdict, *objects: str, note: str = "") -> Result:
    return Result(name, verdict, tuple((thing, "detail") for thing in objects), "fix", note)


class Files:
    """An instance whose log comes in portions."""

    def __init__(self, text: str, size: int = 100, name: str = "upgrade-prechecks.log") -> None:
        self.text, self.size, self.name = text, size, name
        self.asked: list[str] = []

    def describe_db_log_files(self, **given: str) -> dict[str, Any]:
        assert given == {"DBInstanceIdentifier": "green-1", "FilenameContains": "upgrade-prechecks"}
        old = {"LogFileName": "upgrade-prechecks.log.old", "LastWritten": 1}
        return {"DescribeDBLogFiles": [{"LogFileName": self.name, "LastWritten": 2}, old]}

    def download_db_log_file_portion(self, **given: str) -> dict[str, Any]:
        assert given["LogFileName"] == self.name
        self.asked.append(given["Marker"])
        begin = int(given["Marker"])
        end = begin + self.size
        return {
            "LogFileData": self.text[begin:end],
            "Marker": str(end),
            "AdditionalDataPending": end < len(self.text),
        }


def test_every_portion_of_the_newest_log_is_read() -> None:
    text = log(check("oldTemporalCheck", ("Error", "shop.t.a")))
    files = Files(text)
    assert prechecks.download(files, "green-1") == text
    assert files.asked == [str(begin) for begin in range(0, len(text), 100)]


def test_a_log_that_is_not_there_or_does_not_end_is_said() -> None:
    class None_(Files):
        def download_db_log_file_portion(self, **_: str) -> dict[str, Any]:
            raise AwsError("DBLogFileNotFoundFault")

    class Endless(Files):
        def download_db_log_file_portion(self, **given: str) -> dict[str, Any]:
            return {"LogFileData": "x", "Marker": given["Marker"], "AdditionalDataPending": True}

    class Throttled(Files):
        def download_db_log_file_portion(self, **_: str) -> dict[str, Any]:
            raise AwsError("Throttling")

    with pytest.raises(PrechecksError, match="only a major upgrade leaves one"):
        prechecks.download(None_(""), "green-1")
    with pytest.raises(PrechecksError, match="does not go on after marker '0'"):
        prechecks.download(Endless(""), "green-1")
    with pytest.raises(AwsError, match="Throttling"):
        prechecks.download(Throttled(""), "green-1")


def test_the_log_as_values() -> None:
    found = prechecks.parse("\n" + log(
        check("oldTemporalCheck", ("Error", "shop.t.a"), ("Warning", "shop.t.b")), check("utf8mb3"),
        check("engineMixupCheck", status="ERROR"), {"id": "defaultAuthenticationPlugin", "title": "no status"},
    ))  # fmt: skip
    assert (found.source_version, found.target_version) == ("2.11.4", "3.08.2")
    assert [(c.id, c.level, c.is_failed) for c in found.checks] == [
        ("oldTemporalCheck", "Error", False),
        ("utf8mb3", "", False),
        ("engineMixupCheck", "", True),
        ("defaultAuthenticationPlugin", "", False),
    ]
    assert found.checks[0].problems[0] == prechecks.Problem("Error", "shop.t.a", "because")
    assert [c.id for c in found.errors] == ["oldTemporalCheck", "engineMixupCheck"]


@pytest.mark.parametrize(
    "text",
    ["", "no json", '{"checksPerformed": [', "{}", '{"checksPerformed": [{"title": "x"}]}', '{"checksPerformed": [1]}'],
)
def test_another_text_is_refused(text: str) -> None:
    with pytest.raises(PrechecksError, match="not as documented"):
        prechecks.parse(text)


@pytest.mark.parametrize(
    ("aurora", "expected"),
    [
        ("oldTemporalCheck", "oldTemporal"),
        ("reservedKeywordsCheck", "reservedKeywords"),
        ("utf8mb3", "utf8mb3"),
        ("mysqlSchema", "mysqlSchema"),
        ("mysqlSchemaCheck", "mysqlSchema"),
        ("groupbyAscSyntaxCheck", "groupbyAscSyntax"),
        ("depreciatedSyntaxCheck", "depreciatedSyntaxCheck"),
        ("mysqlEmptyDotTableSyntaxCheck", "emptyDotTableSyntax"),
        ("mysqlIndexTooLargeCheck", "indexTooLarge"),
        ("mysqlDollarSignNameCheck", "dollarSignName"),
        ("auroraGetDanglingFulltextIndex", "auroraGetDanglingFulltextIndex"),
        ("auroraUpgradeCheckForViewColumnNameLength", "viewColumnNameLength"),
        ("getTriggersWithNullDefiner", "nullDefiner"),
        ("enumSetElementLenghtCheck", "enumSetElementLength"),
        ("sqlModeFlagCheck", "obsoleteSqlModeFlags"),
        ("circularDirectory", "circularDirectory"),
        ("auroraFODUpgradeCheck", ""),
        ("checkTableOutput", ""),
        ("somethingNew", ""),
    ],
)
def test_ids_of_aurora_are_those_of_ours(aurora: str, expected: str) -> None:
    assert prechecks.our_id(aurora) == expected


def test_every_alias_leads_to_a_check_of_ours() -> None:
    assert {prechecks.our_id(name) for name in prechecks._OURS} <= {each.id for each in preflight.CHECKS}


def differences(text: str, *results: Result) -> list[tuple[Any, ...]]:
    found = prechecks.compare(prechecks.parse(text), results)
    return [(d.seen_by, d.aurora, d.ours, d.level, d.is_surprise) for d in found]


def test_agreement_and_each_way_to_differ() -> None:
    text = log(
        check("oldTemporalCheck", ("Error", "shop.t.a")), check("zeroDatesCheck"), check("utf8mb3", ("Warning", "shop.t.a")),
        check("engineMixupCheck", ("Error", "shop.m")), check("auroraFODUpgradeCheck", ("Error", "shop.f")), check("circularDirectory"),
    )  # fmt: skip
    assert differences(
        text,
        ours("oldTemporal", "error", "shop.t.a"),
        ours("zeroDates", "warning", "shop.d.d"),
        ours("utf8mb3", "ok"),
        ours("engineMixup", "ok"),
        ours("circularDirectory", "ok"),
        ours("noPrimaryKey", "warning", "shop.k"),
        ours("schemaTmp", "ok"),
    ) == [
        ("not asked by us", "auroraFODUpgradeCheck", "", "Error", True),
        ("Aurora only", "engineMixupCheck", "engineMixup", "Error", True),
        ("Aurora only", "utf8mb3", "utf8mb3", "Warning", False),
        ("both", "oldTemporalCheck", "oldTemporal", "Error", False),
        ("us only", "zeroDatesCheck", "zeroDates", "warning", False),
        ("not asked by Aurora", "", "noPrimaryKey", "warning", False),
    ]


def test_objects_are_compared_across_their_spellings() -> None:
    text = log(check("utf8mb3", ("Warning", "shop.t.a"), ("Warning", "shop.t.b"), ("Warning", "shop.u.a")))
    (found,) = prechecks.compare(prechecks.parse(text), [ours("utf8mb3", "notice", "shop.t", "shop.tt")])
    assert (found.both, found.only_aurora, found.only_ours) == (("shop.t.a", "shop.t.b"), ("shop.u.a",), ("shop.tt",))
    text = log(check("removedFunctionsCheck", ("Error", "shop.Old")))
    (found,) = prechecks.compare(prechecks.parse(text), [ours("removedFunctions", "warning", "procedure shop.old")])
    assert (found.both, found.only_aurora, found.only_ours) == (("shop.Old",), (), ())


def test_a_schema_of_aurora_is_the_trigger_in_it_of_ours() -> None:
    text = log(check("getDuplicateTriggers", ("Error", "shop")))
    (found,) = prechecks.compare(prechecks.parse(text), [ours("getDuplicateTriggers", "error", "shop.twice")])
    assert (found.both, found.only_aurora, found.only_ours) == (("shop",), (), ())


def test_what_stops_the_upgrade_unseen_comes_first() -> None:
    text = log(check("aaa", ("Warning", "shop")), check("zzz", ("Error", "shop")))
    assert [d.aurora for d in prechecks.compare(prechecks.parse(text), [])] == ["zzz", "aaa"]


def test_two_checks_of_aurora_may_be_one_of_ours() -> None:
    text = log(
        check("getEventsWithNullDefiner", ("Error", "shop.e")), check("getTriggersWithNullDefiner", ("Error", "shop.t"))
    )
    (found,) = prechecks.compare(
        prechecks.parse(text), [ours("nullDefiner", "error", "event shop.e", "trigger shop.t")]
    )
    assert (found.seen_by, found.both) == ("both", ("shop.e", "shop.t"))


def test_what_was_overridden_was_seen() -> None:
    text = log(check("schemaInconsistencyCheck", ("Error", "shop.t")))
    (found,) = prechecks.compare(prechecks.parse(text), [ours("schemaInconsistency", "overridden", "shop.t")])
    assert (found.seen_by, found.is_surprise) == ("both", False)


def test_a_check_that_failed_on_either_side_is_no_agreement() -> None:
    (found,) = prechecks.compare(
        prechecks.parse(log(check("zeroDatesCheck", status="ERROR"))), [ours("zeroDates", "ok")]
    )
    assert (found.seen_by, found.level, found.note) == (
        "Aurora only",
        "Error",
        "Aurora could not carry out zeroDatesCheck",
    )
    text = log(check("oldTemporalCheck", ("Error", "shop.t.a")), check("zeroDatesCheck"))
    (found,) = prechecks.compare(
        prechecks.parse(text), [ours("oldTemporal", "unknown", note="denied"), ours("zeroDates", "unknown")]
    )
    assert (found.seen_by, found.note, found.is_surprise) == ("not asked by us", "ours is unknown: denied", True)
