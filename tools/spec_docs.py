"""Write what the code declares (fields of specs, rules of advice) into docs/*.md.

    python tools/spec_docs.py           # write
    python tools/spec_docs.py --check   # exit 1 when a page is not what would be written

Only the parts between two markers are written; the rest of a page is prose.
"""

from __future__ import annotations

import argparse
import sys
import types
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

ROOT = Path(__file__).resolve().parent.parent
ARCHIVE, INVENTORY, BLUE_GREEN, DMS, BACKFILL = (
    ROOT / "docs" / f"{page}.md" for page in ("archive", "inventory", "blue_green", "dms", "backfill")
)
BEGIN = "<!-- {}: begin; written by tools/spec_docs.py -->"
END = "<!-- {}: end -->"
LIMITS = {
    "ge": "at least {}",
    "gt": "more than {}",
    "le": "at most {}",
    "lt": "less than {}",
    "pattern": "matches `{}`",
}


def parts(page: Path) -> dict[str, str]:
    """Name of a part -> Markdown, for one page."""
    if page == ARCHIVE:
        from dbops.archive.spec import ArchiveSpec

        return {"fields": fields(ArchiveSpec)}
    if page == BLUE_GREEN:
        from dbops.blue_green.spec import RehearsalSpec

        return {"fields": fields(RehearsalSpec), "checks": checks()}
    if page == DMS:
        from dbops.dms.spec import DmsSpec

        return {"fields": fields(DmsSpec), "decisions": decisions(), "failures": failures(), "lint": lint()}
    if page == BACKFILL:
        from dbops.backfill.spec import BackfillSpec

        return {"fields": fields(BackfillSpec), "classes": classes()}
    from dbops.inventory.spec import InventorySpec

    return {"fields": fields(InventorySpec), "rules": rules()}


def classes() -> str:
    """What a row and its item may be to each other, and what to do then."""
    from dbops.backfill.records import FAILING
    from dbops.backfill.verdict import MEANING, REPAIR

    lines = ["| class | meaning | fails | what to do |", "| --- | --- | --- | --- |"]
    for name, meaning in MEANING.items():
        lines.append(f"| `{name}` | {meaning} | {'yes' if name in FAILING else 'no'} | {REPAIR.get(name, '')} |")
    return "\n".join(lines) + "\n"


def checks() -> str:
    """Checks of the preflight of a rehearsal: those through the API, then those by SQL."""
    from dbops.blue_green import control, preflight

    lines = ["| id | asked | when it finds something | fix |", "| --- | --- | --- | --- |"]
    for asked, found in (("API", control.CHECKS), ("SQL", preflight.CHECKS)):
        lines.extend(
            f"| `{each.id}` | {asked} | {each.level} | {each.fix.replace('|', chr(92) + '|')} |" for each in found
        )
    return "\n".join(lines) + "\n"


# What the table of decisions shows: the situation, and how it differs from a task that runs with every table complete.
SITUATIONS: list[tuple[str, dict[str, Any]]] = [
    ("it runs, every table is complete", {}),
    ("it runs and loads", {"tables": "loading"}),
    ("it runs without tables that failed", {"tables": "failed"}),
    ("the same, and what made them fail has to be repaired first", {"tables": "failed", "hindrance": "fix_first"}),
    ("it runs without tables that failed, and a load empties protected tables", {"tables": "failed", "empties": True}),
    ("every table says complete, rows differ", {"tables": "differ"}),
    ("all that failed is in quarantine", {"tables": "quarantined"}),
    ("it runs, the states of its tables are unknown", {"tables": "unknown"}),
    ("it was never started", {"status": "ready", "has_run": False, "position": "none", "tables": "unknown"}),
    (
        "it was never started, and a load empties protected tables",
        {"status": "ready", "has_run": False, "position": "none", "tables": "unknown", "empties": True},
    ),
    (
        "it is new, and a task before it has loaded the target",
        {"status": "ready", "has_run": False, "tables": "unknown"},
    ),
    (
        "it is new, follows changes only, and the source has the log of its position",
        {"status": "ready", "has_run": False, "tables": "unknown", "task_type": "cdc"},
    ),
    ("it stopped by an error, the source has its log", {"status": "stopped", "stop_reason": "RECOVERABLE_ERROR"}),
    ("the same, too often without progress", {"status": "stopped", "stop_reason": "RECOVERABLE_ERROR", "may_restart": False}),
    ("it failed, the source has purged its log", {"status": "failed", "stop_reason": "FATAL_ERROR", "position": "purged"}),
    (
        "the same, and the whole new load is approved",
        {"status": "failed", "stop_reason": "FATAL_ERROR", "position": "purged", "approved": True},
    ),
    ("it failed, nobody knows whether the source has its log", {"status": "failed", "stop_reason": "FATAL_ERROR", "position": "unknown"}),
    ("it stopped where it was told to", {"status": "stopped", "stop_reason": "STOPPED_AT_COMMIT_TIME"}),
    ("it stopped, because its instance is full", {"status": "stopped", "stop_reason": "STOPPED_DUE_TO_LOW_DISK"}),
    ("it stopped within its load", {"status": "stopped", "stop_reason": "RECOVERABLE_ERROR", "load_finished": False, "position": "none"}),
    ("a full load stopped before every table was complete", {
        "status": "stopped", "stop_reason": "RECOVERABLE_ERROR", "task_type": "full-load", "tables": "loading", "load_finished": False,
    }),
    ("a full load has finished, every table is complete", {
        "status": "stopped", "stop_reason": "FULL_LOAD_ONLY_FINISHED", "task_type": "full-load",
    }),
    ("a full load has finished, rows differ", {
        "status": "stopped", "stop_reason": "FULL_LOAD_ONLY_FINISHED", "task_type": "full-load", "tables": "differ",
    }),
    ("the spec says `wanted: stopped`, it stands", {"status": "stopped", "wanted_stopped": True}),
    ("it is on its way (creating, starting, modifying ...)", {"status": "starting"}),
    ("AWS says a status that is not known", {"status": "unknown"}),
]  # fmt: skip
SYMPTOMS = {
    "table_error": "the task is running, a table is in Table error, or AWS counts tables with errors",
    "rows_absent": "rows are missing, and FullLoadErrorRows or awsdms_apply_exceptions counts them",
    "load_cut_short": "the load ended well, and the target has fewer rows",
    "lob_cut": "a long value is cut; the log warns of it",
    "binlog_purged": "it cannot go on: could not find first log file",
    "cdc_settings": "changes are not read: the message names a binlog setting",
    "bad_event": "it stopped at a bad event",
    "endless_restart": "it restarts again and again, or stopped with RECOVERABLE_ERROR",
    "instance_full": "storage-full, low memory, low disk",
    "nothing_migrated": "it runs and has no table",
    "duplicate_rows": "the target has more rows, or a key twice",
    "connection": "it stands, and an endpoint cannot be reached or refuses the login",
}
"""What a DBA sees of each kind of failure."""
HINDRANCES = {
    "none": "goes on, as the decision says",
    "fix_first": "waits until a person has repaired it",
    "from_beginning": "proposes a whole new load, with an approval",
}


def decisions() -> str:
    """What is decided in each situation, by the function that decides, for the wish `ensure`."""
    from dbops.dms.decision import Known, decide

    usual: dict[str, Any] = {
        "wish": "ensure", "task_type": "full-load-and-cdc", "is_serverless": False, "wanted_stopped": False, "status": "running",
        "has_run": True, "stop_reason": "", "load_finished": True, "position": "covered", "tables": "complete", "hindrance": "none",
        "may_restart": True, "empties": False, "approved": False,
    }  # fmt: skip
    lines = ["| situation | decision | with an approval | next step for a person |", "| --- | --- | --- | --- |"]
    for situation, given in SITUATIONS:
        found = decide(Known(**{**usual, **given}))
        proposed = f"`{found.proposed}`" if found.proposed else ""
        lines.append(f"| {situation} | `{found.action}` | {proposed} | {found.next_step} |")
    return "\n".join(lines) + "\n"


def failures() -> str:
    """What is recognised, and what is to be done about it."""
    from dbops.dms.failures import ADVICE

    lines = ["| symptom | the report says | do | the task |", "| --- | --- | --- | --- |"]
    for kind, advice in ADVICE.items():
        lines.append(
            f"| {SYMPTOMS[kind]} | `{kind}`: {advice.cause} | {advice.action} | {HINDRANCES[advice.hindrance]} |"
        )
    return "\n".join(lines) + "\n"


def lint() -> str:
    """Rules of the linter for settings and mappings, errors first."""
    from dbops.dms.lint import RULES

    lines = ["| id | level | why it matters | fix |", "| --- | --- | --- | --- |"]
    ordered = sorted(RULES, key=lambda one: one.level)
    lines.extend(f"| `{rule.id}` | {rule.level} | {rule.reason} | {rule.fix} |" for rule in ordered)
    return "\n".join(lines) + "\n"


def rules() -> str:
    """The rules by which the inventory advises a store, in the order in which they are tried."""
    from dbops.inventory.fit import RULES

    lines = ["| store | advised when all of this holds | what speaks against it |", "| --- | --- | --- |"]
    for rule in RULES:
        needed = "; ".join(_requirement(r) for r in rule.requirements) or "no other rule holds"
        lines.append(f"| `{rule.store}` | {needed} | {rule.counter} |")
    return "\n".join(lines) + "\n"


def _requirement(requirement: Any) -> str:
    if requirement.unit == "":
        return requirement.name
    bound, value = (
        ("at least", requirement.at_least) if requirement.at_least is not None else ("at most", requirement.at_most)
    )
    return f"{requirement.name}: {bound} {value:,} {requirement.unit}"


def fields(root: Any) -> str:
    """Markdown tables: the spec's own fields first, then each nested model, in the order in which they are met."""
    written, waiting, seen = [], [("", root)], set()
    while waiting:
        path, model = waiting.pop(0)
        if model in seen:
            continue
        seen.add(model)
        written.append(_table(path, model))
        waiting += [(f"{path}{name}.", nested) for name, nested in _nested(model)]
    return "\n".join(written)


def _table(path: str, model: Any) -> str:
    tags = [
        get_args(field.annotation) for field in model.model_fields.values() if get_origin(field.annotation) is Literal
    ]
    member = next((f": `{tag[0]}`" for tag in tags if len(tag) == 1), "")  # of a union
    title = f"#### `{path.rstrip('.')}`{member}\n\n" if path else ""
    lines = [f"{title}| field | type | default | meaning |", "| --- | --- | --- | --- |"]
    for name, field in model.model_fields.items():
        key = field.alias or name
        meaning = (field.description or "").replace("|", "\\|").replace("<", "\\<")
        if limits := _limits(field.metadata):
            meaning = f"{meaning}; {limits}" if meaning else limits
        lines.append(f"| `{path}{key}` | {_type(field.annotation)} | {_default(field)} | {meaning} |")
    return "\n".join(lines) + "\n"


def _default(field: Any) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if hasattr(type(value), "model_fields"):
        return "see below"
    text = {None: "null", True: "true", False: "false"}.get(value) if isinstance(value, bool | None) else None
    return f"`{text or {'[]': '[]', '()': '[]', '': chr(34) * 2}.get(str(value), value)}`"


def _limits(metadata: list[Any]) -> str:
    found = []
    for item in metadata:
        for name, text in LIMITS.items():
            value = getattr(item, name, None)
            if value is not None and value != r"^[A-Za-z0-9_$]+$":  # MySQL names need no explanation
                shown = f"{value:,}" if isinstance(value, int) else str(value).replace("|", "\\|")
                found.append(text.format(shown))
    return ", ".join(found)


def _type(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type(arguments[0])
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in arguments)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys("null" if a is type(None) else _type(a) for a in arguments))
    if origin in (list, tuple):
        return f"list of {_type(arguments[0])}"
    from pydantic import AwareDatetime

    names = {str: "text", int: "integer", float: "number", bool: "true or false", AwareDatetime: "time with zone"}
    return names.get(annotation) or "mapping"


def _nested(model: Any) -> list[tuple[str, Any]]:
    found = []
    for name, field in model.model_fields.items():
        suffix = "[]" if get_origin(field.annotation) is list else ""
        found += [(f"{field.alias or name}{suffix}", nested) for nested in _models(field.annotation)]
    return found


def _models(annotation: Any) -> list[Any]:
    """Models that an annotation names, at any depth."""
    if hasattr(annotation, "model_fields"):
        return [annotation]
    return [model for argument in get_args(annotation) for model in _models(argument)]


def page(path: Path, given: str) -> str:
    """The page with its parts written anew. Raises SystemExit when a marker is missing."""
    for name, text in parts(path).items():
        begin, end = BEGIN.format(name), END.format(name)
        head, found, rest = given.partition(begin)
        _, closed, tail = rest.partition(end)
        if not found or not closed:
            sys.exit(f"{path.relative_to(ROOT)} needs the lines {begin!r} and {end!r}, between which the {name} go")
        given = f"{head}{begin}\n\n{text}\n{end}{tail}"
    return given


def main() -> int:
    """Write the pages, or compare them."""
    parser = argparse.ArgumentParser(description="Write what the code declares into docs/*.md.")
    parser.add_argument("--check", action="store_true", help="exit 1 when a page is not what would be written")
    arguments = parser.parse_args()
    sys.path.insert(0, str(ROOT / "plugins"))
    for path in (ARCHIVE, INVENTORY, BLUE_GREEN, DMS, BACKFILL):
        given = path.read_text()
        wanted = page(path, given)
        if arguments.check and given != wanted:
            sys.exit(f"{path.relative_to(ROOT)} is out of date: run python tools/spec_docs.py")
        if not arguments.check:
            path.write_text(wanted)
    return 0


if __name__ == "__main__":
    sys.exit(main())
