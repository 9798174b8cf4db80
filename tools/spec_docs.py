"""Write the reference of an archive spec's fields into docs/archive.md, from the pydantic models.

    python tools/spec_docs.py           # write
    python tools/spec_docs.py --check   # exit 1 when docs/archive.md is not what would be written

Only the part between the two markers is written; the rest of the page is prose.
"""

from __future__ import annotations

import argparse
import sys
import types
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "archive.md"
BEGIN = "<!-- fields: begin; written by tools/spec_docs.py -->"
END = "<!-- fields: end -->"
LIMITS = {
    "ge": "at least {}",
    "gt": "more than {}",
    "le": "at most {}",
    "lt": "less than {}",
    "pattern": "matches `{}`",
}


def reference() -> str:
    """Markdown tables: the spec's own fields first, then each nested model, in the order in which they are met."""
    from dbops.archive.spec import ArchiveSpec

    parts, waiting, seen = [], [("", ArchiveSpec)], set()
    while waiting:
        path, model = waiting.pop(0)
        if model in seen:
            continue
        seen.add(model)
        parts.append(_table(path, model))
        waiting += [(f"{path}{name}.", nested) for name, nested in _nested(model)]
    return "\n".join(parts)


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
        for annotation in (field.annotation, *get_args(field.annotation)):
            if hasattr(annotation, "model_fields"):
                suffix = "[]" if get_origin(field.annotation) is list else ""
                found.append((f"{field.alias or name}{suffix}", annotation))
    return found


def page(given: str) -> str:
    """The page with the part between the markers written anew. Raises SystemExit when a marker is missing."""
    head, begin, rest = given.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        sys.exit(f"{PAGE.relative_to(ROOT)} needs the lines {BEGIN!r} and {END!r}, between which the fields go")
    return f"{head}{BEGIN}\n\n{reference()}\n{END}{tail}"


def main() -> int:
    """Write the page, or compare it."""
    parser = argparse.ArgumentParser(description="Write the spec's fields into docs/archive.md.")
    parser.add_argument("--check", action="store_true", help="exit 1 when docs/archive.md is not what would be written")
    arguments = parser.parse_args()
    sys.path.insert(0, str(ROOT / "plugins"))
    given = PAGE.read_text()
    wanted = page(given)
    if arguments.check and given != wanted:
        sys.exit(f"{PAGE.relative_to(ROOT)} is out of date: run python tools/spec_docs.py")
    if not arguments.check:
        PAGE.write_text(wanted)
    return 0


if __name__ == "__main__":
    sys.exit(main())
