"""Settings: only what is declared is compared, and what is sent back is what AWS takes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbops.dms import settings
from dbops.dms.settings import Change, SettingsError

OWNED = {
    "ErrorBehavior": {"DataTruncationErrorPolicy": "STOP_TASK", "RecoverableErrorCount": 20},
    "Logging": {"EnableLogging": True, "LogComponents": [{"Id": "TARGET_APPLY", "Severity": "LOGGER_SEVERITY_DEBUG"}]},
}
FOUND = {
    "Logging": {
        "EnableLogging": True, "CloudWatchLogGroup": "dms-tasks-x", "CloudWatchLogStream": "dms-task-y",
        "LogComponents": [{"Id": "SORTER", "Severity": "LOGGER_SEVERITY_DEFAULT"}, {
            "Id": "TARGET_APPLY", "Severity": "LOGGER_SEVERITY_DEFAULT"}],
    },
    "ErrorBehavior": {"DataTruncationErrorPolicy": "LOG_ERROR", "RecoverableErrorCount": 20, "TableErrorPolicy": "SUSPEND_TABLE"},
    "PostProcessingRules": None,
}  # fmt: skip


def test_only_declared_keys_are_compared() -> None:
    assert settings.diff(OWNED, json.dumps(FOUND)) == (
        Change("ErrorBehavior.DataTruncationErrorPolicy", '"STOP_TASK"', '"LOG_ERROR"'),
        Change("Logging.LogComponents.TARGET_APPLY.Severity", '"LOGGER_SEVERITY_DEBUG"', '"LOGGER_SEVERITY_DEFAULT"'),
    )
    assert settings.diff({}, FOUND) == ()


def test_a_key_that_aws_has_not_is_a_difference_and_one_is_not_true() -> None:
    (missing,) = settings.diff({"FullLoadSettings": {"CommitRate": 5}}, FOUND)
    assert str(missing) == "FullLoadSettings.CommitRate becomes 5, was not set"
    assert settings.diff({"Logging": {"EnableLogging": 1}}, FOUND)
    assert settings.diff({"Logging": {"EnableLogging": True}}, None)


def test_what_is_sent_keeps_the_rest_and_leaves_out_what_aws_sets() -> None:
    sent = settings.merged(FOUND, OWNED)
    assert settings.diff(OWNED, sent) == ()
    assert sent["ErrorBehavior"]["TableErrorPolicy"] == "SUSPEND_TABLE"
    assert not {"CloudWatchLogGroup", "CloudWatchLogStream"} & sent["Logging"].keys()
    assert [one["Id"] for one in sent["Logging"]["LogComponents"]] == ["SORTER", "TARGET_APPLY"]
    assert FOUND["Logging"]["CloudWatchLogGroup"] == "dms-tasks-x"  # type: ignore[index]


def test_what_nobody_sets_is_the_default() -> None:
    whole = settings.effective({"ErrorBehavior": {"DataErrorPolicy": "STOP_TASK"}})
    assert settings.get(whole, "ErrorBehavior.DataErrorPolicy") == "STOP_TASK"
    assert settings.get(whole, "ErrorBehavior.RecoverableErrorCount") == -1
    assert settings.get(whole, "TargetMetadata.LobMaxSize") == 32
    assert settings.get(whole, "Nothing.Here") is None
    assert settings.DEFAULTS["ErrorBehavior"]["DataErrorPolicy"] == "LOG_ERROR"


@pytest.mark.parametrize(
    ("given_", "word"),
    [("[]", "list"), ("{", "not JSON"), ({"a": object()}, "not JSON"), ({"Logging": 3}, "a group"),
     ({"Logging": {"CloudWatchLogGroup": "x"}}, "set by AWS")],
)  # fmt: skip
def test_what_is_no_setting_is_refused(given_: Any, word: str) -> None:
    with pytest.raises(SettingsError, match=word):
        settings.declared(given_)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)
GROUPS = st.dictionaries(st.sampled_from("abc"), st.dictionaries(st.sampled_from("abc"), JSON, max_size=3), max_size=3)


@given(GROUPS, GROUPS)
def test_after_what_is_sent_nothing_differs(owned: dict[str, Any], found: dict[str, Any]) -> None:
    sent = settings.merged(found, owned)
    assert [change for change in settings.diff(owned, sent) if change.wanted != "null"] == []
    assert settings.canonical(sent) == settings.canonical(json.dumps(sent))
