"""What can only be tried with a raw text: MySQL's plan, and the upgrade check. Done while a snapshot has the text, kept without values."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Any

from dbops.inventory import access, parse, resolve, upgrade
from dbops.inventory import text as sqltext
from dbops.inventory.access import Plan, PlanTable
from dbops.inventory.fingerprint import fingerprint
from dbops.inventory.model import Catalog, Sighting, Snapshot
from dbops.inventory.recording import placed
from dbops.inventory.upgrade import Finding

RAW = ("slow_log", "general_log", "sample", "history", "prepared")
"""Sources whose text is as the client sent it, best first; that of a prepared statement has no values."""
MAX_SPELLINGS = 4
"""So many texts of one statement are tried: the fingerprint leaves out what 8.0 minds, such as quotes around ``rank``."""
Key = tuple[str, str]
"""(fingerprint, default schema or '')."""


@dataclass(frozen=True)
class Trial:
    """Of one statement: its plan where one was to be had, and what an upgrade would break."""

    plan: Plan | None
    findings: tuple[Finding, ...]

    def document(self) -> dict[str, Any]:
        """As JSON-compatible data."""
        return {"plan": asdict(self.plan) if self.plan else None, "findings": [asdict(f) for f in self.findings]}

    @classmethod
    def of(cls, plan: dict[str, Any] | None, findings: list[dict[str, Any]]) -> Trial:
        """From what :meth:`document` gave."""
        tables = tuple(_plan_table(t) for t in (plan or {}).get("tables", ()))
        return cls(Plan(tables) if plan else None, tuple(Finding(**f) for f in findings))


def _plan_table(stored: dict[str, Any]) -> PlanTable:
    values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in stored.items()}
    return PlanTable(**values)


def run(
    snapshot: Snapshot,
    known: Collection[Key],
    explain: Callable[[str, str | None], Plan | None],
    check: Callable[[str, str | None], list[Finding]],
    tried: dict[Key, Trial] | None = None,
) -> dict[Key, Trial]:
    """Try every statement of the snapshot that has a raw text and is not in `known`, in each spelling once.

    Args:
        snapshot: with raw texts
        known: statements that were tried before
        explain: (text, schema) -> plan or None
        check: (text, schema) -> findings
        tried: filled one by one, so that what was tried is there when an error breaks off the rest
    """
    tried = {} if tried is None else tried
    ran: set[str] = set()
    for key, texts in _raw(snapshot).items():
        if key not in known and key not in tried:
            schema = key[1] or None
            plans = (explain(text, schema) for text in texts)
            plan = next((plan for plan in plans if plan), None)
            findings = dict.fromkeys(_masked(f) for text in texts for f in check(text, schema))
            if any(f.by == "server" and f.severity == "breaks" for f in findings):
                ran = ran or _ran(snapshot)
                findings = dict.fromkeys(f if key[0] in ran else _perhaps_refused(f) for f in findings)
            tried[key] = Trial(plan and Plan(plan.tables), tuple(findings))
    return tried


def _ran(snapshot: Snapshot) -> set[str]:
    """Fingerprints of what MySQL has parsed: shown by another source than the slow log, which keeps what was refused, too."""
    return {
        fingerprint(s.text, is_digest=s.is_digest, truncated=s.truncated)
        for s in snapshot.sightings
        if s.source != "slow_log"
    }


def _perhaps_refused(finding: Finding) -> Finding:
    if finding.by == "rule" or finding.severity != "breaks":
        return finding
    return replace(finding, evidence=f"{finding.evidence} (only the slow log shows it: 5.7 may have refused it, too)")


def checker(conn: Any | None) -> Callable[[str, str | None], list[Finding]]:
    """The upgrade check on an 8.0 server, or by rules alone when there is none.

    A statement over which the connection is lost (too long for max_allowed_packet, a crash of that release) is ``not checked``, so that
    it does not stand before the rest again the next time; the one after it raises MySQLdb.Error.
    """
    if conn is None:
        return lambda text, schema: upgrade.check(text)

    def check(text: str, schema: str | None) -> list[Finding]:
        import MySQLdb

        conn.ping()  # what was lost before is not this statement's doing
        try:
            return upgrade.check_on_server(conn, text, schema=schema)
        except MySQLdb.Error as error:
            why = f"the connection was lost: {error.args[0]}: {error.args[-1]}"
            lost = Finding("server", "not checked", why, "try it by hand on a server of that release", "server")
            return [lost, *upgrade.check(text)]

    return check


def if_harmless(
    explain: Callable[[str, str | None], Plan | None], definitions: Catalog
) -> Callable[[str, str | None], Plan | None]:
    """`explain`, but None for a statement that calls a stored function, or that goes over a view.

    MySQL may run a function to make its plan. Before 5.7.36 our EXPLAIN over a view would get the digest of the view's body, and so theirs.
    """
    functions = {p.name.lower() for p in definitions.programs if p.kind == "function"}

    def explain_tables(text: str, schema: str | None) -> Plan | None:
        if any(t.text.strip("`").lower() in functions for t in sqltext.code_tokens(text)):
            return None
        uses, _, _ = resolve.resolve(parse.analyse(text), schema, definitions)
        return None if any("view " in use.via for use in uses) else explain(text, schema)

    return explain_tables


class Explainer:
    """EXPLAIN of SELECTs on the instance that showed them; what it sends is counted and can be told from the workload.

    The session is read only, and the schema is chosen by the protocol, not by USE, so that no statement of ours joins those of the
    workload.

    Args:
        connect: opens a connection in autocommit
        timeout_ms: limit for one SELECT
    """

    def __init__(self, connect: Callable[[], Any], *, timeout_ms: int = 5000) -> None:
        self.sent = 0
        self.own: list[Sighting] = []
        """Our EXPLAINs, for the history to leave out."""
        self._connect, self._timeout_ms = connect, timeout_ms
        self._conn: Any = None

    def __enter__(self) -> Explainer:
        return self

    def __exit__(self, *exc: object) -> None:
        with suppress(Exception):
            if self._conn is not None:
                self._conn.close()

    def __call__(self, text: str, schema: str | None) -> Plan | None:
        """The plan, or None where there is none: another kind of statement, a missing table or privilege, a connection that it cost.

        Raises MySQLdb.Error when no session is to be had.
        """
        import MySQLdb

        if not access.explainable(text):
            return None
        statement = f"EXPLAIN FORMAT=JSON {text}"
        conn = self._session()
        try:
            if schema:
                conn.select_db(schema)
            self._send(conn, statement)
            self.own.append(
                Sighting("history", f"own:{fingerprint(statement)}:{schema or ''}", statement, schema=schema, own=True)
            )
            found = conn.store_result().fetch_row()
        except MySQLdb.Error as error:
            if error.args[0] in access.CONNECTION_LOST:
                self._conn = None  # the next statement has a new one
            return None
        return access.read_plan(json.loads(found[0][0]))

    def _session(self) -> Any:
        if self._conn is None:
            conn = self._connect()
            # In one statement, which no application sends: the history must not take theirs for ours. 5.7.12 only knows the old name.
            mode = "tx_read_only" if conn.get_server_info().startswith("5.") else "transaction_read_only"
            self._send(conn, f"SET SESSION max_execution_time = {self._timeout_ms}, SESSION {mode} = 1")
            self._conn = conn  # not before: nothing is explained without the limit
        return self._conn

    def _send(self, conn: Any, statement: str) -> None:
        self.sent += 1
        conn.query(f"{sqltext.own_comment()} {statement}".encode(errors="replace"))


def _raw(snapshot: Snapshot) -> dict[Key, list[str]]:
    """The texts to try, those of the best source first, in the schema that :func:`recording.placed` finds."""
    found = [s for s in placed(snapshot).sightings if s.source in RAW and not (s.own or s.truncated or s.program)]
    texts: dict[Key, dict[str, str]] = {}
    for s in sorted(found, key=lambda s: RAW.index(s.source)):
        for text in (s.text, *s.spellings):
            spellings = texts.setdefault((fingerprint(text), s.schema or ""), {})
            if len(spellings) < MAX_SPELLINGS:
                spellings.setdefault(" ".join(sqltext.mask_literals(text).split()), text)
    return {key: [*spellings.values()] for key, spellings in texts.items()}


def _masked(finding: Finding) -> Finding:
    code, colon, message = finding.evidence.partition(": ")  # of a server's message the number is no value
    if finding.by == "server" and colon and code.isdecimal():
        return replace(finding, evidence=f"{code}: {sqltext.mask_literals(message)}")
    return replace(finding, evidence=sqltext.mask_literals(finding.evidence))
