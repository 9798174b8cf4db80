"""``upgrade-prechecks.log``: what Aurora checks on the old version before it upgrades, as far as SQL can ask it.

Form and ids are those of Aurora's log ("Upgrade prechecks descriptions reference" of its user guide). Checks that only Aurora's own engine
could make are listed as passed.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from lab.rds.server import Server

LOG = "upgrade-prechecks.log"
WORDS = (
    "ADMIN", "CUBE", "CUME_DIST", "DENSE_RANK", "EMPTY", "EXCEPT", "FIRST_VALUE", "FUNCTION", "GROUPING", "GROUPS",
    "JSON_TABLE", "LAG", "LAST_VALUE", "LATERAL", "LEAD", "NTH_VALUE", "NTILE", "OF", "OVER", "PERCENT_RANK", "PERSIST",
    "RANK", "RECURSIVE", "ROW", "ROWS", "ROW_NUMBER", "SYSTEM", "WINDOW",
)  # fmt: skip
_WORDS = ", ".join(f"'{word}'" for word in WORDS)
_DICTIONARY = (
    "'catalogs', 'character_sets', 'collations', 'columns', 'dd_properties', 'foreign_keys', 'indexes', 'routines', "
    "'schemata', 'tables', 'tablespaces', 'triggers', 'view_routine_usage', 'view_table_usage'"
)
_GEOMETRY = "'geometry', 'point', 'linestring', 'polygon', 'multipoint', 'multilinestring', 'multipolygon', 'geometrycollection'"
_REMOVED = "PASSWORD|ENCRYPT|DES_ENCRYPT|DES_DECRYPT|ENCODE|DECODE|GLENGTH|AsText|AsBinary"


@dataclass(frozen=True)
class Check:
    """A check of the log: the rows of `view` that meet `condition` have the problem."""

    name: str
    level: str
    problem: str
    view: str  # of information_schema, and how a row of it is named
    condition: str

    @property
    def query(self) -> str:
        named = ", ".join(VIEWS[self.view])
        schema = VIEWS[self.view][0]
        ours = (
            f"{schema} NOT IN ('mysql', 'sys', 'performance_schema', 'information_schema') AND "
            if len(VIEWS[self.view]) > 1
            else ""
        )
        return f"SELECT CONCAT_WS('.', {named}) FROM information_schema.{self.view} WHERE {ours}({self.condition})"


VIEWS = {
    "columns": ("table_schema", "table_name", "column_name"),
    "tables": ("table_schema", "table_name"),
    "partitions": ("table_schema", "table_name"),
    "statistics": ("table_schema", "table_name", "index_name"),
    "triggers": ("trigger_schema", "trigger_name"),
    "routines": ("routine_schema", "routine_name"),
    "events": ("event_schema", "event_name"),
    "innodb_sys_foreign": ("id",),
    "innodb_trx": ("trx_id",),
    "innodb_sys_tables": ("name",),
}
CHECKS = (
    Check("checkTableMysqlSchema", "Error", "is a table of the data dictionary of 8.0", "innodb_sys_tables",
          f"name LIKE 'mysql/%%' AND SUBSTRING(name, 7) IN ({_DICTIONARY})"),
    Check("columnsWhichCannotHaveDefaultsCheck", "Error", "has a default", "columns",
          "data_type IN ('blob', 'text', 'longblob', 'longtext', 'geometry', 'json') AND column_default <> ''"),
    Check("enumSetElementLengthCheck", "Error", "has an element of more than 255 characters", "columns",
          "data_type IN ('enum', 'set') AND column_type REGEXP '[^'']{255}[^'']'"),
    Check("foreignKeyLengthCheck", "Error", "has a name of more than 64 characters", "innodb_sys_foreign",
          "CHAR_LENGTH(SUBSTRING_INDEX(id, '/', -1)) > 64"),
    Check("getTriggersWithNullDefiner", "Error", "has no definer", "triggers", "IFNULL(definer, '') = ''"),
    Check("getEventsWithNullDefiner", "Error", "has no definer", "events", "IFNULL(definer, '') = ''"),
    Check("groupByAscSyntaxCheck", "Error", "has GROUP BY ... ASC or DESC", "routines",
          "routine_definition REGEXP 'GROUP +BY[^;()]* (ASC|DESC)' AND routine_definition NOT REGEXP 'ORDER +BY'"),
    Check("mysqlInvalid57NamesCheck", "Error", "ends with a space", "tables",
          "table_name LIKE '%% ' OR table_schema LIKE '%% '"),
    Check("nonNativePartitioningCheck", "Error", "is partitioned by another engine than InnoDB", "tables",
          "create_options LIKE '%%partitioned%%' AND engine NOT IN ('InnoDB', 'NDB')"),
    Check("partitionedTablesInSharedTablespaces", "Error", "has partitions in a shared tablespace", "partitions",
          "partition_name IS NOT NULL AND tablespace_name NOT IN ('', 'innodb_file_per_table')"),
    Check("removedFunctionsCheck", "Error", "uses a function that was removed", "routines",
          f"routine_definition REGEXP '[^a-z_]({_REMOVED}) *[(]'"),
    Check("auroraUpgradeCheckForIncompleteXATransactions", "Error", "is a prepared XA transaction", "innodb_trx",
          "trx_state = 'PREPARED'"),
    Check("auroraUpgradeCheckForPrefixIndexOnGeometryColumns", "Error", "is a prefix index on a geometry column", "statistics",
          "sub_part IS NOT NULL AND index_type <> 'SPATIAL' AND EXISTS (SELECT * FROM information_schema.columns c "
          "WHERE c.table_schema = statistics.table_schema AND c.table_name = statistics.table_name "
          f"AND c.column_name = statistics.column_name AND c.data_type IN ({_GEOMETRY}))"),
    Check("auroraUpgradeCheckForViewColumnNameLength", "Error", "has more than 64 characters", "columns",
          "CHAR_LENGTH(column_name) > 64"),
    Check("reservedKeywordsCheck", "Warning", "is a reserved word in 8.0", "columns",
          f"UPPER(column_name) IN ({_WORDS}) OR UPPER(table_name) IN ({_WORDS})"),
    Check("utf8mb3Check", "Warning", "has the character set utf8mb3", "columns", "character_set_name IN ('utf8', 'utf8mb3')"),
    Check("zeroDatesCheck", "Warning", "has a zero date as default", "columns",
          "data_type IN ('date', 'datetime', 'timestamp') AND column_default LIKE '0000-00-00%%'"),
    Check("mysqlDollarSignNameCheck", "Warning", "begins with a dollar sign", "columns",
          "column_name LIKE '$%%' OR table_name LIKE '$%%'"),
    Check("auroraUpgradeCheckForUncommittedRowModifications", "Warning", "has changed more than 10000 rows", "innodb_trx",
          "trx_rows_modified > 10000"),
)  # fmt: skip
# Of Aurora's own engine, or not to be asked by SQL.
PASSED = (
    "oldTemporalCheck", "circularDirectoryCheck", "depreciatedSyntaxCheck", "engineMixupCheck", "getDuplicateTriggers",
    "getMismatchedMetadata", "getValueOfVariablelower_case_table_names", "mysqlEmptyDotTableSyntaxCheck",
    "mysqlIndexTooLargeCheck", "mysqlOrphanedRoutinesCheck", "mysqlSchemaCheck", "schemaInconsistencyCheck",
    "auroraCheckDDLRecovery", "auroraCheckRdsUpgradePrechecksTable", "auroraFODUpgradeCheck",
    "auroraGetDanglingFulltextIndex", "auroraUpgradeCheckForInstanceLimit", "auroraUpgradeCheckForInternalUsers",
    "auroraUpgradeCheckForMasterUser", "auroraUpgradeCheckForRollbackSegmentHistoryLength", "defaultAuthenticationPlugin",
)  # fmt: skip


def check(server: Server, old: str, new: str) -> dict[str, Any]:
    """Run the checks on a server of the old version; the content of the log."""
    performed = [_performed(server, each) for each in CHECKS]
    performed += [{"id": each, "title": each, "status": "OK", "detectedProblems": []} for each in PASSED]
    levels = [problem["level"] for each in performed for problem in each["detectedProblems"]]
    counts = {level: levels.count(level) for level in ("Error", "Warning", "Notice")}
    return {
        "serverAddress": "/tmp%2Fmysql.sock",
        "serverVersion": server.value("@@version"),
        "targetVersion": new.split(".mysql_aurora.")[0],
        "auroraServerVersion": old.split("mysql_aurora.")[-1],
        "auroraTargetVersion": new.split("mysql_aurora.")[-1],
        "outfilePath": "/rdsdbdata/tmp/PreChecker.log",
        "checksPerformed": performed,
        "errorCount": counts["Error"],
        "warningCount": counts["Warning"],
        "noticeCount": counts["Notice"],
        "Summary": _summary(counts),
    }


def text(content: dict[str, Any]) -> str:
    return json.dumps(content, indent=2) + "\n"


def errors(content: dict[str, Any]) -> str:
    """The checks that found errors, in words; "" when the upgrade may go on."""
    failed = [
        f"{each['id']}: {problem['dbObject']} {problem['description']}"
        for each in content["checksPerformed"]
        for problem in each["detectedProblems"]
        if problem["level"] == "Error"
    ]
    return "; ".join(failed)


def _performed(server: Server, check: Check) -> dict[str, Any]:
    found = server.sql(check.query, ())
    problems = [{"level": check.level, "dbObject": thing, "description": check.problem} for (thing,) in found]
    return {"id": check.name, "title": check.name, "status": "OK", "detectedProblems": problems}


def _summary(counts: dict[str, int]) -> str:
    if counts["Error"]:
        return f"{counts['Error']} errors were found. Please correct these issues before upgrading to avoid compatibility issues."
    if counts["Warning"] + counts["Notice"]:
        return (
            "No fatal errors were found that would prevent a MySQL 8 upgrade, but some potential issues were detected."
        )
    return "No known compatibility errors or issues were found."
