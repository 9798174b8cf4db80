"""Specs: the YAML files by which DBAs declare what to archive, backfill, replicate or rehearse.

One file per spec, `include/specs/<room>/<name>.yaml` (DBOPS_SPECS_DIR replaces `include/specs`). Files are read with
a strict loader (duplicate keys refused, YAML 1.2 booleans and integers) and validated by a pydantic model that a room
derives from Spec.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dbops import include_dir

if TYPE_CHECKING:
    import yaml

SUFFIX = ".yaml"


class Spec(BaseModel):
    """What every spec has. Rooms add their fields; unknown keys are refused and a loaded spec cannot change."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(
        pattern=r"^[a-z0-9][a-z0-9_]*$",
        max_length=100,
        description="stem of the file, which says it already: lower case letters, digits, underscores",
    )
    enabled: bool = Field(default=False, description="false keeps the spec out of scheduled runs")
    description: str = Field(min_length=1, description="what this spec is for, in a sentence")
    owner: str = Field(min_length=1, description="team or person who answers for it")


class SpecError(ValueError):
    """A spec is unknown or wrong.

    The text has one line per error: file and line, field, offending value, what is allowed.
    """


S = TypeVar("S", bound=Spec)


def specs_dir(room: str) -> Path:
    """Folder of a room's specs."""
    return Path(os.environ.get("DBOPS_SPECS_DIR") or include_dir() / "specs") / room


def names(room: str) -> list[str]:
    """Names of the room's specs, sorted. A `.yml` file is an error, so that none is overlooked."""
    folder = specs_dir(room)
    if strays := sorted(path.name for path in folder.glob("*.yml")):
        raise SpecError("\n".join(f"{folder / stray}: spec files end in {SUFFIX}; rename it" for stray in strays))
    return sorted(path.stem for path in folder.glob(f"*{SUFFIX}"))


def load(room: str, name: str, model: type[S]) -> S:
    """Read and validate one spec. Raises SpecError."""
    if name not in (known := names(room)):
        listing = ", ".join(known) or "none"
        raise SpecError(f"{specs_dir(room)}: no spec named {name!r}; known specs: {listing}")
    return _read(specs_dir(room) / f"{name}{SUFFIX}", model)


def load_all(room: str, model: type[S], *, enabled_only: bool = False) -> list[S]:
    """Read and validate every spec of a room, also the disabled ones.

    Raises one SpecError with the errors of all files.
    """
    found, errors = [], []
    for name in names(room):
        try:
            found.append(_read(specs_dir(room) / f"{name}{SUFFIX}", model))
        except SpecError as error:
            errors.append(str(error))
    if errors:
        raise SpecError("\n".join(errors))
    return [spec for spec in found if spec.enabled or not enabled_only]


def _read(path: Path, model: type[S]) -> S:
    import yaml

    try:
        loader = _loader()(path.read_text(encoding="utf-8"))
        node = loader.get_single_node()
        data = loader.construct_document(node) if node else None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f":{mark.line + 1}" if mark else ""
        raise SpecError(f"{path}{where}: {error.problem or error.context}; correct the YAML") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SpecError(f"{path}: not UTF-8 YAML: {' '.join(str(error).split())}") from error
    if node is None or not isinstance(data, dict):
        raise SpecError(
            f"{path}: holds {type(data).__name__}; a spec is a mapping of fields, at least description and owner"
        )
    if (given := data.setdefault("name", path.stem)) != path.stem:
        raise SpecError(
            f"{path}:{_line(node, ('name',))}: name: {given!r} differs from the file name; "
            f"remove it or write {path.stem}"
        )
    try:
        return model.model_validate(data)
    except ValidationError as error:
        lines = [_explain(path, node, model, dict(detail)) for detail in error.errors(include_url=False)]
        raise SpecError("\n".join(lines)) from error


def _explain(path: Path, node: yaml.Node, model: type[BaseModel], detail: dict[str, Any]) -> str:
    location, value = _without_tags(model, detail["loc"]), detail["input"]
    fields = _fields(model, detail["loc"][:-1])
    hint = fields.get(str(location[-1]), "") if location else ""
    if isinstance(value, date):  # as the file has it, not as Python shows it
        value = value.isoformat()
    shown = repr(value) if len(repr(value)) <= 80 else f"{repr(value)[:77]}..."
    prefix = f"{path}:{_line(node, location)}: {'.'.join(map(str, location)) or 'spec'}"
    if detail["type"] == "missing":
        return f"{prefix}: missing; add it{f' ({hint})' if hint else ''}"
    if detail["type"] == "extra_forbidden":
        return f"{prefix}: unknown key with value {shown}; allowed here: {', '.join(fields) or 'none'}"
    message = " ".join(detail["msg"].removeprefix("Value error, ").split())
    return f"{prefix}: {shown} is not allowed: {message}{f' ({hint})' if hint else ''}"


def _line(node: yaml.Node, location: Sequence[int | str]) -> int:
    """Line of the deepest part of `location` that the file has (union members and defaults are not in it)."""
    import yaml

    for part in location:
        if isinstance(node, yaml.MappingNode):
            found = next(((key, value) for key, value in node.value if key.value == str(part)), None)
            if found:
                node = found[1] if isinstance(found[1], yaml.CollectionNode) and found[1].value else found[0]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
    return node.start_mark.line + 1


def _models(annotation: Any) -> Iterable[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models(argument)


def _deeper(models: Sequence[type[BaseModel]], part: int | str) -> tuple[list[type[BaseModel]], bool]:
    """The models that may stand one part further down a location, and whether that part only names a member of a union."""
    if found := [
        deeper
        for parent in models
        if part in parent.model_fields
        for deeper in _models(parent.model_fields[str(part)].annotation)
    ]:
        return found, False
    tagged = [each for each in models if len(models) > 1 and _has_tag(each, part)]
    return (tagged, True) if tagged else (list(models), False)  # indices and dict keys do not change the candidates


def _has_tag(model: type[BaseModel], part: int | str) -> bool:
    return any(
        get_origin(field.annotation) is Literal and part in get_args(field.annotation)
        for field in model.model_fields.values()
    )


def _without_tags(model: type[BaseModel], location: Sequence[int | str]) -> list[int | str]:
    """A location as the file has it: pydantic adds the tag of the member of a union that was chosen."""
    models: list[type[BaseModel]] = [model]
    found = []
    for part in location:
        models, is_tag = _deeper(models, part)
        if not is_tag:
            found.append(part)
    return found


def _fields(model: type[BaseModel], location: Sequence[int | str]) -> dict[str, str]:
    """Field names (with descriptions) of the models that may stand at `location`."""
    models: list[type[BaseModel]] = [model]
    for part in location:
        models, _ = _deeper(models, part)
    return {
        field.alias or name: field.description or ""
        for candidate in models
        for name, field in candidate.model_fields.items()
    }


@lru_cache(maxsize=1)
def _loader() -> type[yaml.SafeLoader]:
    import re

    import yaml

    class Loader(yaml.SafeLoader):
        """YAML 1.1 surprises removed: `22:30` is not 1350, `no` and `on` are text, a repeated key is an error."""

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            seen: set[Any] = set()
            for key_node, _ in node.value:
                key = self.construct_object(key_node, deep=True)
                if isinstance(key, (list, dict)):
                    raise yaml.constructor.ConstructorError(
                        None, None, "a key must be a plain value", key_node.start_mark
                    )
                if key in seen:
                    raise yaml.constructor.ConstructorError(None, None, f"duplicate key {key!r}", key_node.start_mark)
                seen.add(key)
            return super().construct_mapping(node, deep)

    dropped = {f"tag:yaml.org,2002:{kind}" for kind in ("bool", "int", "float")}
    Loader.yaml_implicit_resolvers = {
        first: [(tag, regexp) for tag, regexp in resolvers if tag not in dropped]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    Loader.add_implicit_resolver(
        "tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
    )
    Loader.add_implicit_resolver(
        "tag:yaml.org,2002:int", re.compile(r"^[-+]?(?:0|[1-9][0-9_]*)$"), list("-+0123456789")
    )
    number = re.compile(r"^[-+]?(?:[0-9][0-9_]*\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?$")
    Loader.add_implicit_resolver("tag:yaml.org,2002:float", number, list("-+.0123456789"))
    return Loader
