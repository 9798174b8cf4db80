"""Aurora's own prechecks of a major upgrade, which it leaves in ``upgrade-prechecks.log`` of green, beside the results of our preflight.

What Aurora saw and we did not is a gap of the preflight: in production it would have come to light only in the upgrade itself.
Source: Aurora user guide, "Major version upgrade prechecks" and "Precheck descriptions reference".
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from dbops.blue_green import resources
from dbops.blue_green.preflight import CHECKS, Result

LOG = "upgrade-prechecks.log"
SeenBy = Literal["both", "Aurora only", "us only", "not asked by us", "not asked by Aurora"]

# Ids of Aurora that do not come to ours by leaving out prefixes and "Check".
_OURS = {
    "auroraUpgradeCheckForFtsSpaceIdZero": "fulltextInSystemTablespace",
    "auroraUpgradeCheckForIncompleteXATransactions": "preparedXa",
    "auroraUpgradeCheckForPrefixIndexOnGeometryColumns": "geometryPrefixIndex",
    "auroraUpgradeCheckForRollbackSegmentHistoryLength": "historyLength",
    "auroraUpgradeCheckForSpecialCharactersInProcedures": "specialCharacters",
    "auroraUpgradeCheckForSysSchemaObjectTypeMismatch": "sysSchemaObjects",
    "auroraUpgradeCheckForUncommittedRowModifications": "uncommittedRows",
    "enumSetElementLenghtCheck": "enumSetElementLength",
    "getEventsWithNullDefiner": "nullDefiner",
    "getTriggersWithNullDefiner": "nullDefiner",
    "getValueOfVariablelower_case_table_names": "lowerCaseNames",
    "maxdbFlagCheck": "maxdbSqlModeFlags",
    "mysqlOrphanedRoutinesCheck": "orphanedObjects",
    "partitionedTablesInSharedTablespaceCheck": "partitionedTablesInSharedTablespaces",
    "sqlModeFlagCheck": "obsoleteSqlModeFlags",
}
_AFFIXES = re.compile(r"^(auroraUpgradeCheckFor|auroraUpgradeCheck|aurora|mysql)|Check$")
# "procedure shop.old" and "column shop.t.a" of ours are "shop.old" and "shop.t.a" of Aurora.
_KIND = re.compile(r"^(schema|table|column|routine|procedure|function|trigger|event|view) ")


class PrechecksError(RuntimeError):
    """The log is missing or cannot be read."""


@dataclass(frozen=True)
class Problem:
    """One object that a precheck holds against the upgrade; ``level`` is Error, Warning or Notice."""

    level: str
    object: str
    description: str


@dataclass(frozen=True)
class Precheck:
    """One precheck. A ``status`` other than OK (or none) says that the precheck itself failed, not that it found something."""

    id: str
    title: str
    status: str
    problems: tuple[Problem, ...]

    @property
    def is_failed(self) -> bool:
        """It could not be carried out."""
        return self.status not in ("OK", "")

    @property
    def level(self) -> str:
        """The worst level of its problems, or ""."""
        found = {problem.level for problem in self.problems}
        return next((level for level in ("Error", "Warning", "Notice") if level in found), "")


@dataclass(frozen=True)
class Prechecks:
    """The whole log."""

    source_version: str
    target_version: str
    checks: tuple[Precheck, ...]

    @property
    def errors(self) -> tuple[Precheck, ...]:
        """Prechecks that stop the upgrade: with a problem of level Error, or not carried out."""
        return tuple(check for check in self.checks if check.is_failed or check.level == "Error")


@dataclass(frozen=True)
class Difference:
    """One subject on which Aurora or we have something to say. ``aurora`` and ``ours`` are ids, "" when the side has no such check."""

    seen_by: SeenBy
    aurora: str
    ours: str
    level: str
    """Aurora's level, or our verdict where Aurora saw nothing."""
    both: tuple[str, ...] = ()
    only_aurora: tuple[str, ...] = ()
    only_ours: tuple[str, ...] = ()
    note: str = ""

    @property
    def is_surprise(self) -> bool:
        """It stops the upgrade, and we had not seen it."""
        return self.level == "Error" and self.seen_by in ("Aurora only", "not asked by us")


def download(rds: Any, instance: str) -> str:
    """Text of the newest log of green's writer, all portions of it.

    Args:
        rds: client
        instance: identifier of the instance

    Raises:
        PrechecksError: there is no such log (no major upgrade took place there), or it does not end
    """
    listed = resources.pages(
        rds,
        "describe_db_log_files",
        "DescribeDBLogFiles",
        DBInstanceIdentifier=instance,
        FilenameContains="upgrade-prechecks",
    )
    files = sorted(listed, key=lambda each: int(each.get("LastWritten") or 0))
    name = files[-1]["LogFileName"] if files else LOG
    text, marker = [], "0"
    while True:
        try:
            portion = rds.download_db_log_file_portion(DBInstanceIdentifier=instance, LogFileName=name, Marker=marker)
        except Exception as error:
            if not resources.is_not_found(error):
                raise
            raise PrechecksError(f"instance {instance} has no {name}; only a major upgrade leaves one") from error
        text.append(portion.get("LogFileData") or "")
        if not portion.get("AdditionalDataPending"):
            return "".join(text)
        if portion.get("Marker") in (None, "", marker):
            raise PrechecksError(f"{name} of {instance} does not go on after marker {marker!r}; read it in the console")
        marker = portion["Marker"]


def parse(text: str) -> Prechecks:
    """The log as values. Raises PrechecksError when it is not the JSON that Aurora documents."""
    try:
        document, _ = json.JSONDecoder().raw_decode(text, text.index("{"))
        listed = document["checksPerformed"]
        checks = tuple(
            Precheck(
                str(check["id"]),
                str(check.get("title") or ""),
                str(check.get("status") or ""),
                tuple(
                    Problem(
                        str(problem.get("level") or "Error"),
                        str(problem.get("dbObject") or ""),
                        str(problem.get("description") or "").strip(),
                    )
                    for problem in check.get("detectedProblems") or ()
                ),
            )
            for check in listed
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise PrechecksError(
            f"{LOG} is not as documented ({type(error).__name__}: {error}); it begins {text[:80]!r}"
        ) from error
    target = document.get("auroraTargetVersion") or document.get("targetVersion") or ""
    return Prechecks(
        str(document.get("auroraServerVersion") or document.get("serverVersion") or ""), str(target), checks
    )


def our_id(aurora_id: str) -> str:
    """Our check on the same subject, or ""."""
    if aurora_id in _OURS:
        return _OURS[aurora_id]
    return {_bare(check.id): check.id for check in CHECKS}.get(_bare(aurora_id), "")


def compare(prechecks: Prechecks, ours: Iterable[Result]) -> list[Difference]:
    """Where Aurora's prechecks and our results agree and differ; subjects on which both are silent are left out.

    Order: surprises first, then what both saw, then the rest.
    """
    results = {result.id: result for result in ours}
    asked: dict[str, list[Precheck]] = {}
    for check in prechecks.checks:
        asked.setdefault(our_id(check.id) or f"?{check.id}", []).append(check)
    found = [_difference(subject, checks, results.get(subject)) for subject, checks in asked.items()]
    found += [
        Difference("not asked by Aurora", "", result.id, result.verdict, only_ours=_objects(result))
        for result in results.values()
        if result.id not in asked and _saw(result)
    ]
    rank = {"Aurora only": 1, "not asked by us": 1, "both": 2, "us only": 3, "not asked by Aurora": 4}
    told = [each for each in found if each is not None]
    return sorted(told, key=lambda each: (not each.is_surprise, rank[each.seen_by], each.aurora or each.ours))


def _difference(subject: str, checks: list[Precheck], result: Result | None) -> Difference | None:
    problems = [problem for check in checks for problem in check.problems]
    failed = [check for check in checks if check.is_failed]
    ids, note = ", ".join(check.id for check in checks), ""
    if failed:
        note = f"Aurora could not carry out {', '.join(check.id for check in failed)}"
    level = (
        "Error"
        if failed
        else next((lv for lv in ("Error", "Warning", "Notice") if lv in {p.level for p in problems}), "")
    )
    theirs = tuple(dict.fromkeys(problem.object for problem in problems))
    if result is None or result.verdict in ("unknown", "not applicable"):
        note = "; ".join(filter(None, (note, f"ours is {result.verdict}: {result.note}" if result else "")))
        seen: SeenBy = "not asked by us"
        name = result.id if result else ("" if subject.startswith("?") else subject)
        return Difference(seen, ids, name, level, only_aurora=theirs, note=note) if level else None
    if not level and not _saw(result):
        return None
    names = _objects(result)
    both = tuple(name for name in theirs if any(_same(name, other) for other in names))
    seen = "us only" if not level else "both" if _saw(result) else "Aurora only"
    return Difference(
        seen,
        ids,
        result.id,
        level or result.verdict,
        both,
        tuple(name for name in theirs if name not in both),
        tuple(name for name in names if not any(_same(other, name) for other in theirs)),
        note,
    )


def _saw(result: Result) -> bool:
    return bool(result.objects)


def _objects(result: Result) -> tuple[str, ...]:
    return tuple(dict.fromkeys(_KIND.sub("", name) for name, _ in result.objects))


def _same(one: str, other: str) -> bool:
    """The same object, or one that contains the other: Aurora names a column where we name its table, or a schema for its triggers."""
    a, b = one.replace("`", "").lower(), other.replace("`", "").lower()
    return f"{a}.".startswith(f"{b}.") or f"{b}.".startswith(f"{a}.")


def _bare(check_id: str) -> str:
    return _AFFIXES.sub("", check_id).lower()
