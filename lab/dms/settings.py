"""Task settings: what DMS adds to the ones that are given. It answers with all of them, so an answer never equals what was sent."""

from __future__ import annotations

import copy
import json
from typing import Any

from lab.config import LabError

DEFAULTS: dict[str, Any] = {
    "TargetMetadata": {
        "TargetSchema": "",
        "SupportLobs": True,
        "FullLobMode": False,
        "LobChunkSize": 64,
        "LimitedSizeLobMode": True,
        "LobMaxSize": 32,
        "InlineLobMaxSize": 0,
        "BatchApplyEnabled": False,
        "ParallelLoadThreads": 0,
        "ParallelLoadBufferSize": 0,
        "ParallelApplyThreads": 0,
        "ParallelApplyBufferSize": 0,
        "TaskRecoveryTableEnabled": False,
    },
    "FullLoadSettings": {
        "TargetTablePrepMode": "DO_NOTHING",
        "CreatePkAfterFullLoad": False,
        "StopTaskCachedChangesApplied": False,
        "StopTaskCachedChangesNotApplied": False,
        "MaxFullLoadSubTasks": 8,
        "TransactionConsistencyTimeout": 600,
        "CommitRate": 10000,
    },
    "Logging": {"EnableLogging": False, "LogComponents": []},
    "ControlTablesSettings": {
        "ControlSchema": "awsdms_control",
        "HistoryTimeslotInMinutes": 5,
        "HistoryTableEnabled": False,
        "SuspendedTablesTableEnabled": False,
        "StatusTableEnabled": False,
    },
    "StreamBufferSettings": {"StreamBufferCount": 3, "StreamBufferSizeInMB": 8, "CtrlStreamBufferSizeInMB": 5},
    "ChangeProcessingDdlHandlingPolicy": {
        "HandleSourceTableDropped": True,
        "HandleSourceTableTruncated": True,
        "HandleSourceTableAltered": True,
    },
    "ErrorBehavior": {
        "DataErrorPolicy": "LOG_ERROR",
        "DataTruncationErrorPolicy": "LOG_ERROR",
        "DataErrorEscalationPolicy": "SUSPEND_TABLE",
        "DataErrorEscalationCount": 0,
        "TableErrorPolicy": "SUSPEND_TABLE",
        "TableErrorEscalationPolicy": "STOP_TASK",
        "TableErrorEscalationCount": 0,
        "RecoverableErrorCount": -1,
        "RecoverableErrorInterval": 5,
        "RecoverableErrorThrottling": True,
        "RecoverableErrorThrottlingMax": 1800,
        "ApplyErrorDeletePolicy": "IGNORE_RECORD",
        "ApplyErrorInsertPolicy": "LOG_ERROR",
        "ApplyErrorUpdatePolicy": "LOG_ERROR",
        "ApplyErrorEscalationPolicy": "LOG_ERROR",
        "ApplyErrorEscalationCount": 0,
        "FullLoadIgnoreConflicts": True,
        "FailOnTransactionConsistencyBreached": False,
        "FailOnNoTablesCaptured": False,
    },
    "ChangeProcessingTuning": {
        "BatchApplyPreserveTransaction": True,
        "BatchApplyTimeoutMin": 1,
        "BatchApplyTimeoutMax": 30,
        "BatchApplyMemoryLimit": 500,
        "BatchSplitSize": 0,
        "MinTransactionSize": 1000,
        "CommitTimeout": 1,
        "MemoryLimitTotal": 1024,
        "MemoryKeepTime": 60,
        "StatementCacheSize": 50,
    },
    "ValidationSettings": {"EnableValidation": False, "ThreadCount": 5, "FailureMaxCount": 10000},
    "BeforeImageSettings": None,
    "CharacterSetSettings": None,
    "FailTaskWhenCleanTaskResourceFailed": False,
    "LoopbackPreventionSettings": None,
    "PostProcessingRules": None,
    "TTSettings": None,
}


def expanded(text: str | None, over: dict[str, Any] | None = None) -> dict[str, Any]:
    """The whole settings of a task.

    Args:
        text: what the caller gave
        over: what the task had before; DMS's defaults for a new one

    Raises:
        LabError: DMS would refuse the text
    """
    try:
        given = json.loads(text) if text else {}
    except ValueError as error:
        raise LabError(f"Invalid task settings JSON: {error}") from error
    if not isinstance(given, dict):
        raise LabError("Invalid task settings JSON: not an object")
    full: dict[str, Any] = copy.deepcopy(over or DEFAULTS)
    for section, values in given.items():
        if section not in full:
            raise LabError(f"Invalid task settings JSON: {section} is not a known section")
        if isinstance(values, dict) and isinstance(full.get(section), dict):
            full[section].update(values)
        else:
            full[section] = values
    return full
