"""Questions to AWS that are written once and asked through a boto3 client or, in a trigger, through an aiobotocore one.

A question is a generator: it yields (name of the client's method, its arguments), receives the answer, or the error of the call thrown into
it, and returns what it found. :func:`ask` and :func:`ask_async` drive it; nothing here imports a client.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, TypeVar

T = TypeVar("T")
Call = tuple[str, dict[str, Any]]
Question = Generator[Call, dict[str, Any], T]

_CLIENTS = frozenset({"boto3", "botocore", "aiobotocore"})
_LONG = 500
# Faults that AWS gives before it does anything; every other failed call may have been carried out.
_THROTTLED = frozenset({
    "Throttling", "ThrottlingException", "ThrottledException", "RequestThrottled", "RequestThrottledException",
    "RequestLimitExceeded", "TooManyRequestsException", "SlowDown", "PriorRequestNotComplete", "BandwidthLimitExceeded",
})  # fmt: skip


def ask(client: Any, question: Question[T]) -> T:
    """Drive a question with a boto3 client. Whatever the question does not catch is raised."""
    try:
        call = next(question)
        while True:
            operation, arguments = call
            try:
                answer = getattr(client, operation)(**arguments)
            except Exception as error:
                call = question.throw(error)
            else:
                call = question.send(answer)
    except StopIteration as end:
        return end.value


async def ask_async(client: Any, question: Question[T]) -> T:
    """Drive the same question with an aiobotocore client."""
    try:
        call = next(question)
        while True:
            operation, arguments = call
            try:
                answer = await getattr(client, operation)(**arguments)
            except Exception as error:
                call = question.throw(error)
            else:
                call = question.send(answer)
    except StopIteration as end:
        return end.value


def pages(operation: str, key: str, **arguments: Any) -> Question[list[dict[str, Any]]]:
    """Every row of a listing call of RDS or DMS, over all its pages."""
    found: list[dict[str, Any]] = []
    marker: str | None = None
    while True:
        answer = yield operation, {**arguments, **({"Marker": marker} if marker else {})}
        found += answer.get(key) or []
        if not (marker := answer.get("Marker")):
            return found


def is_failure(error: BaseException) -> bool:
    """Whether a call to AWS failed with it (refused, throttled, no network), as opposed to a mistake in our own code."""
    return isinstance(error, OSError) or any(kind.__module__.split(".")[0] in _CLIENTS for kind in type(error).__mro__)


def code(error: BaseException) -> str:
    """The fault's code as the service names it; the exception's name when the service did not answer."""
    answer = getattr(error, "response", None) or {}
    return str((answer.get("Error") or {}).get("Code") or type(error).__name__)


def is_missing(error: BaseException) -> bool:
    """Whether AWS says that the thing asked for does not exist."""
    said = code(error).removesuffix("Fault")
    # Exceptions that are not the service's have such names, too: AirflowNotFoundException is a connection that nobody defined.
    return said.endswith("NotFound") or (said.endswith("NotFoundException") and is_failure(error))


def is_throttled(error: BaseException) -> bool:
    """Whether AWS turned the call away because there are too many; it did nothing then."""
    return code(error) in _THROTTLED


def status(error: BaseException) -> int:
    """HTTP status of the answer; 0 when there was none."""
    answer = getattr(error, "response", None) or {}
    return int((answer.get("ResponseMetadata") or {}).get("HTTPStatusCode") or 0)


def retries(error: BaseException) -> int:
    """How often the client repeated the call by itself before it gave this answer."""
    answer = getattr(error, "response", None) or {}
    return int((answer.get("ResponseMetadata") or {}).get("RetryAttempts") or 0)


def request_id(answer: dict[str, Any]) -> str:
    """AWS's id of a call, for the audit; "" when the answer has none."""
    return str((answer.get("ResponseMetadata") or {}).get("RequestId") or "")


def text(error: BaseException) -> str:
    """The failure in one line: code and message, with AWS's request id where there is one."""
    answer = getattr(error, "response", None) or {}
    message = " ".join(str((answer.get("Error") or {}).get("Message") or error).split())
    message = message if len(message) <= _LONG else f"{message[:_LONG]}..."  # a proxy may answer with a page of HTML
    asked = f" (request {found})" if (found := request_id(answer)) else ""
    return f"{code(error)}: {message}{asked}"
