"""Settings of a task: only the keys that a spec declares are ours, and only they are compared.

DMS answers settings expanded with every default, and with keys that it does not take back. So the whole is never compared.
Source: DMS user guide, "Specifying task settings for AWS DMS tasks" (defaults: "Task settings example" and the pages of each group).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Settings = Mapping[str, Any]

DEFAULTS: dict[str, dict[str, Any]] = {
    "TargetMetadata": {
        "SupportLobs": True, "FullLobMode": False, "LimitedSizeLobMode": True, "LobMaxSize": 32, "InlineLobMaxSize": 0,
        "ParallelLoadThreads": 0, "ParallelLoadBufferSize": 0, "ParallelApplyThreads": 0, "BatchApplyEnabled": False,
    },
    "FullLoadSettings": {
        "TargetTablePrepMode": "DROP_AND_CREATE", "StopTaskCachedChangesApplied": False,
        "StopTaskCachedChangesNotApplied": False, "MaxFullLoadSubTasks": 8, "CommitRate": 10_000,
    },
    "Logging": {"EnableLogging": False},
    "ValidationSettings": {"EnableValidation": False},
    "ChangeProcessingDdlHandlingPolicy": {
        "HandleSourceTableDropped": True, "HandleSourceTableTruncated": True, "HandleSourceTableAltered": True,
    },
    "ErrorBehavior": {
        "DataErrorPolicy": "LOG_ERROR", "DataTruncationErrorPolicy": "LOG_ERROR",
        "DataErrorEscalationPolicy": "SUSPEND_TABLE", "DataErrorEscalationCount": 0,
        "TableErrorPolicy": "SUSPEND_TABLE", "TableErrorEscalationPolicy": "STOP_TASK", "TableErrorEscalationCount": 0,
        "RecoverableErrorCount": -1, "RecoverableErrorInterval": 5,
        "ApplyErrorDeletePolicy": "IGNORE_RECORD", "ApplyErrorInsertPolicy": "LOG_ERROR",
        "ApplyErrorUpdatePolicy": "LOG_ERROR", "ApplyErrorEscalationPolicy": "LOG_ERROR",
        "ApplyErrorEscalationCount": 0, "FailOnNoTablesCaptured": False,
    },
}  # fmt: skip
"""What holds for a key that nobody sets, as far as rules here ask for it; where pages of the guide differ, the unsafe one."""
READ_ONLY = (("Logging", "CloudWatchLogGroup"), ("Logging", "CloudWatchLogStream"))
"""Keys that AWS answers and refuses to take back."""
_IDS: dict[tuple[str, ...], str] = {("Logging", "LogComponents"): "Id"}
"""Lists whose elements are told apart by a key: an element that is not declared is not ours."""


class SettingsError(ValueError):
    """Settings that are not a JSON object, or that name a key which DMS does not take."""


@dataclass(frozen=True)
class Change:
    """One key that differs; values are JSON, `found` None when AWS has no such key."""

    path: str
    wanted: str
    found: str | None

    def __str__(self) -> str:
        return f"{self.path} becomes {self.wanted}, was {'not set' if self.found is None else self.found}"


def parse(settings: str | Settings | None) -> dict[str, Any]:
    """The settings as plain values; nothing at all is no setting. Raises SettingsError."""
    try:
        value = json.loads(settings or "{}") if isinstance(settings, str | None) else json.loads(json.dumps(settings))
    except (TypeError, ValueError) as error:
        raise SettingsError(f"settings are not JSON: {error}") from error
    if not isinstance(value, dict):
        raise SettingsError(f"settings are a {type(value).__name__}; expected an object of groups")
    return value


def declared(settings: str | Settings | None) -> dict[str, Any]:
    """The settings of a spec. Raises SettingsError for a group that is no group, and for a key that AWS only answers."""
    value = parse(settings)
    groups = {group: {} if content is None else content for group, content in value.items()}
    wrong = [
        f"{group} is {one!r}; expected a group of keys" for group, one in groups.items() if not isinstance(one, dict)
    ]
    given = {group: one for group, one in groups.items() if isinstance(one, dict)}
    wrong += [f"{group}.{key} is set by AWS; remove it" for group, key in READ_ONLY if key in given.get(group, {})]
    if wrong:
        raise SettingsError("\n".join(wrong))
    return value


def canonical(settings: str | Settings | None) -> str:
    """JSON that is equal for equal settings. Raises SettingsError."""
    return json.dumps(parse(settings), sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def diff(owned: Settings, found: str | Settings | None) -> tuple[Change, ...]:
    """Owned keys whose value AWS does not hold, in order. Raises SettingsError when AWS's cannot be read."""
    return tuple(sorted(_differences(owned, parse(found), ()), key=lambda change: change.path))


def merged(found: str | Settings | None, owned: Settings) -> dict[str, Any]:
    """What AWS holds with the owned keys over it, without what it does not take back: fit to be sent."""
    value = _over(parse(found), parse(owned), ())
    for group, key in READ_ONLY:
        if isinstance(value.get(group), dict):
            value[group].pop(key, None)
    return dict(value)


def effective(owned: Settings) -> dict[str, Any]:
    """The owned keys over the defaults: what a task that is made from them will do."""
    return dict(_over(DEFAULTS, parse(owned), ()))


def get(settings: Settings, path: str) -> Any:
    """Value of ``Group.Key``, None when there is none."""
    group, _, key = path.partition(".")
    return (settings.get(group) or {}).get(key)


def _differences(owned: Any, found: Any, path: tuple[str, ...]) -> Iterator[Change]:
    if isinstance(owned, Mapping):
        theirs = found if isinstance(found, Mapping) else {}
        for key, value in owned.items():
            if key in theirs or isinstance(value, Mapping):
                yield from _differences(value, theirs.get(key), (*path, key))
            else:
                yield Change(".".join((*path, key)), _json(value), None)
    elif (name := _IDS.get(path)) and isinstance(owned, list):
        theirs = {one.get(name): one for one in found or () if isinstance(one, Mapping)}
        for one in owned:
            yield from _differences(one, theirs.get(one[name]), (*path, str(one[name])))
    elif not _same(owned, found):
        yield Change(".".join(path), _json(owned), None if found is None else _json(found))


def _same(one: Any, other: Any) -> bool:
    return type(one) is type(other) and bool(one == other)


def _over(base: Any, top: Any, path: tuple[str, ...]) -> Any:
    if isinstance(base, Mapping) and isinstance(top, Mapping):
        both = {key: _over(base[key], top[key], (*path, key)) for key in base if key in top}
        return {**base, **top, **both}
    if (name := _IDS.get(path)) and isinstance(base, list) and isinstance(top, list):
        given = {one.get(name): one for one in top}
        kept = [{**one, **given.pop(one.get(name), {})} for one in base]
        return [*kept, *given.values()]
    return top


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False)
