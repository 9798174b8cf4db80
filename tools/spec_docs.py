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
ARCHIVE, INVENTORY, BLUE_GREEN = (ROOT / "docs" / f"{page}.md" for page in ("archive", "inventory", "blue_green"))
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
    from dbops.inventory.spec import InventorySpec

    return {"fields": fields(InventorySpec), "rules": rules()}


def checks() -> str:
    """Checks of the preflight of a rehearsal: those through the API, then those by SQL."""
    from dbops.blue_green import control, preflight

    lines = ["| id | asked | when it finds something | fix |", "| --- | --- | --- | --- |"]
    for asked, found in (("API", control.CHECKS), ("SQL", preflight.CHECKS)):
        lines.extend(
            f"| `{each.id}` | {asked} | {each.level} | {each.fix.replace('|', chr(92) + '|')} |" for each in found
        )
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
    title = f"#### `{path.rstrip('.')}`\n\n" if path else ""
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
    return f"`{text or ('[]' if value == [] else value)}`"


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
        return " or ".join("null" if a is type(None) else _type(a) for a in arguments)
    if origin is list:
        return f"list of {_type(arguments[0])}"
    names = {str: "text", int: "integer", float: "number", bool: "true or false"}
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
    for path in (ARCHIVE, INVENTORY, BLUE_GREEN):
        given = path.read_text()
        wanted = page(path, given)
        if arguments.check and given != wanted:
            sys.exit(f"{path.relative_to(ROOT)} is out of date: run python tools/spec_docs.py")
        if not arguments.check:
            path.write_text(wanted)
    return 0


if __name__ == "__main__":
    sys.exit(main())
