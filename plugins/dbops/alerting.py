"""Alerts to a DBA through one SNS topic, which fans out to mail, Slack or a pager.

The topic's ARN is the extra `dbops_sns_topic_arn` of the AWS connection. An alert that could not be sent is logged
with the marker DBOPS_ALERT_UNSENT and never changes the outcome of a task. DAG files import this module, so the
Amazon provider is imported only when an alert is sent.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk import BaseNotifier

from dbops import connections

log = logging.getLogger(__name__)

UNSENT = "DBOPS_ALERT_UNSENT"
TOPIC_EXTRA = "dbops_sns_topic_arn"
MAX_SUBJECT = 100  # SNS: ASCII characters, no line breaks
MAX_MESSAGE = 20_000  # characters: SNS allows 256 KiB of JSON, where one character may take 12 bytes (two \\u escapes)
MAX_FIELD = 4_000  # characters of one field: a traceback in an exception text should not hide the rest

DEFAULT_HAPPENED = "Not stated by the task; its log tells how far it came."
DEFAULT_SAFE_NEXT = (
    "Read the log. Tasks resume from durable state: once the cause is gone, clear the failed task to go on."
)


class Explained(Exception):
    """A failure that tells the reader of the alert what to do.

    what       the failure in a sentence
    happened   what had been done when it struck
    safe_next  what is safe to do now
    target     table, cluster or endpoint concerned
    Any other exception may carry the attributes happened, safe_next and target instead; causes are searched too.
    """

    def __init__(self, what: str, *, happened: str = "", safe_next: str = "", target: str = "") -> None:
        super().__init__(what)
        self.happened = happened
        self.safe_next = safe_next
        self.target = target


class SnsAlert(BaseNotifier):
    """Callback that composes the alert from the context. One instance may be shared by every task.

    There are no template fields: the provider's SnsNotifier renders its templates in place (a second failing task
    would send the text of the first), needs a DAG object that `airflow dags test` does not have for DAG callbacks,
    and loses the alert when a template names something the context lacks.
    """

    def __init__(
        self,
        severity: str = "ERROR",
        event: str = "failed",
        aws_conn_id: str = connections.AWS,
        context: Any = None,
    ) -> None:
        super().__init__(context=context)
        self.severity = severity
        self.event = event
        self.aws_conn_id = aws_conn_id

    def __call__(self, *args: Any) -> None:
        """Send the alert for a context; never raises."""
        self.notify(args[0] if args and isinstance(args[0], Mapping) else {})

    def notify(self, context: Any) -> None:
        """Compose and publish; whatever goes wrong is logged."""
        try:
            subject, message, attributes = compose(context, self.severity, self.event)
        except Exception as error:
            log.exception("alert could not be composed")
            subject, attributes = f"a run {self.event}", {}
            message = f"This alert could not be composed ({type(error).__name__}). Look for failed runs in Airflow."
        notify(self.severity, subject, message, self.aws_conn_id, attributes=attributes)

    async def async_notify(self, context: Any) -> None:
        """The same for a DeadlineAlert, which awaits its callback in the triggerer."""
        from asgiref.sync import sync_to_async

        await sync_to_async(self.notify)(context)


def default_args(**overrides: Any) -> dict[str, Any]:
    """default_args of every DAG: owner, retries, a time limit and the alert.

    A given on_failure_callback runs after the alert.
    """
    extra_callbacks = overrides.pop("on_failure_callback", None) or []
    if not isinstance(extra_callbacks, (list, tuple)):
        extra_callbacks = [extra_callbacks]
    return {
        "owner": "dba",
        "retries": 2,  # after [core] default_task_retry_delay of the deployment
        "execution_timeout": timedelta(hours=2),
        "on_failure_callback": [SnsAlert(), *extra_callbacks],
        **overrides,
    }


def dag_failure_callback() -> SnsAlert:
    """on_failure_callback of a DAG: one message per failed run, also when a worker died and no task callback ran."""
    return SnsAlert(severity="ERROR", event="run failed")


def approval_notifier() -> SnsAlert:
    """For the `notifiers` of an approval task: asks for the decision and gives the link to it."""
    return SnsAlert(severity="APPROVAL", event="waits for approval")


def notify(
    severity: str,
    subject: str,
    message: str,
    aws_conn_id: str = connections.AWS,
    *,
    attributes: Mapping[str, str] | None = None,
) -> bool:
    """Publish a message to the alert topic. Returns whether SNS took it; never raises."""
    subject = _subject(f"[dbops {severity}] {mask(subject)}")
    try:
        topic = connections.extra(aws_conn_id).get(TOPIC_EXTRA)
        if not topic:
            log.warning("%s: connection %r has no extra %r; subject: %s", UNSENT, aws_conn_id, TOPIC_EXTRA, subject)
            return False
        from airflow.providers.amazon.aws.hooks.sns import SnsHook
        from botocore.config import Config

        region = topic.split(":")[3] if topic.count(":") >= 5 else None
        # a callback holds a worker slot: give up after half a minute, not after botocore's five minutes
        config = Config(connect_timeout=5, read_timeout=5, retries={"mode": "standard", "max_attempts": 3})
        SnsHook(aws_conn_id=aws_conn_id, region_name=region, config=config).publish_to_target(
            target_arn=topic,
            message=_cut(mask(message), MAX_MESSAGE),
            subject=subject,
            message_attributes={"severity": severity, **{k: v for k, v in (attributes or {}).items() if v}},
        )
    except Exception as error:
        # no traceback: it may hold request parameters
        log.error("%s: %s: %s; subject: %s", UNSENT, type(error).__name__, mask(str(error)), subject)
        return False
    return True


def compose(context: Mapping[str, Any], severity: str, event: str) -> tuple[str, str, dict[str, str]]:
    """Subject, text and message attributes of the alert for a task or DAG callback context."""
    ti = context.get("ti") or context.get("task_instance")
    dag_run = context.get("dag_run")
    dag_id = _first(
        getattr(dag_run, "dag_id", None),
        getattr(ti, "dag_id", None),
        getattr(context.get("dag"), "dag_id", None),
        "unknown",
    )
    run_id = _first(context.get("run_id"), getattr(dag_run, "run_id", None), getattr(ti, "run_id", None), "unknown")
    task_id = getattr(ti, "task_id", None)
    map_index = getattr(ti, "map_index", None)
    exception = context.get("exception")
    deadline = context.get("deadline")
    what = _text(exception) or str(context.get("reason") or "") or (f"deadline passed: {deadline}" if deadline else "")
    fields = {
        "Severity": severity,
        "DAG": dag_id,
        "Task": f"{task_id}[{map_index}]" if isinstance(map_index, int) and map_index >= 0 else task_id,
        "Try": getattr(ti, "try_number", None) or None,
        "Run": run_id,
        "Target": _explained(exception, "target") or _target(context),
        "What": what,
        "Already happened": _explained(exception, "happened")
        or (DEFAULT_HAPPENED if exception or context.get("reason") else None),
        "Safe to do now": _explained(exception, "safe_next")
        or (DEFAULT_SAFE_NEXT if exception or context.get("reason") else None),
        "Log": _log_url(ti, dag_id, run_id),
        "Approve": _approve_url(context),
        "Time": datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC"),
    }
    lines = [
        f"{name + ':':<18}{_cut(mask(str(value)), MAX_FIELD)}"
        for name, value in fields.items()
        if value is not None and value != ""
    ]
    subject = f"{dag_id}{f'.{task_id}' if task_id else ''} {event}{f': {what}' if what else ''}"
    return subject, "\n".join(lines), {"dag_id": str(dag_id), "task_id": str(task_id or "")}


_SENSITIVE = (
    r"passw(?:or)?d|passphrase|pwd|secret(?:[_ -]?access)?(?:[_ -]?key)?|token|signature|credential"
    r"|(?:access|api|private)[_-]?key(?:[_-]?id)?"
)
_SECRET_NAME = re.compile(_SENSITIVE, re.IGNORECASE)
_SECRETS = [
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL), "***"),
    (re.compile(r"(://[^\s:/@]*:)[^\s@]+@"), r"\1***@"),
    (
        re.compile(
            r"(\bIDENTIFIED\s+(?:WITH\s+\S+\s+)?(?:BY|AS)\s+(?:PASSWORD\s+)?)('(?:[^'\\]|\\.|'')*'|\"[^\"]*\")",
            re.IGNORECASE,
        ),
        r"\1'***'",
    ),
    (re.compile(r"(\bBearer\s+)[^\s,;\"']+", re.IGNORECASE), r"\1***"),
    # "(using password: YES)" of MySQL error 1045 says something and stays
    (
        re.compile(
            rf"((?:{_SENSITIVE})[\w-]*\\?[\"']?\s*(?:=>|[=:])\s*)(?!YES\)|NO\))(\\?\"[^\"]*\"|'[^']*'|[^\s,;&)}}\]]+)",
            re.IGNORECASE,
        ),
        r"\1***",
    ),
    (re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"), "***"),
    (re.compile(r"\beyJ[\w-]+\.[\w-]+\.[\w-]*"), "***"),
]


def mask(value: Any) -> Any:
    """`value` with passwords, keys and tokens replaced by ***: what Airflow knows as secret and what looks like one.

    Works on text, and on dicts and lists of text (there a password-like key hides its whole value).
    """
    if isinstance(value, Mapping):
        return {k: "***" if v and _SECRET_NAME.search(str(k)) else mask(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [mask(item) for item in value]
    if not isinstance(value, str):
        return value
    from airflow.providers.common.compat.sdk import redact

    text = str(redact(value))
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    return text


def _causes(exception: Any) -> Iterator[BaseException]:
    seen: set[int] = set()
    while isinstance(exception, BaseException) and id(exception) not in seen:
        seen.add(id(exception))
        yield exception
        exception = exception.__cause__ or exception.__context__


def _explained(exception: Any, attribute: str) -> str:
    for cause in _causes(exception):
        value = getattr(cause, attribute, None)
        if isinstance(value, str) and value:
            return value
    return ""


def _text(exception: Any) -> str:
    if exception is None or isinstance(exception, Explained):
        return str(exception or "")
    return f"{type(exception).__name__}: {exception}" if isinstance(exception, BaseException) else str(exception)


def _target(context: Mapping[str, Any]) -> str:
    """What the run's parameters name as its target, when the exception does not."""
    params = context.get("params") or getattr(context.get("dag_run"), "conf", None) or {}
    for name in ("target", "table", "cluster", "spec"):
        try:
            value = params.get(name)
        except Exception:  # params validate on access and may refuse
            value = None
        if value:
            return f"{value} (parameter {name})"
    return ""


def _log_url(ti: Any, dag_id: str, run_id: str) -> str:
    url = getattr(ti, "log_url", None)
    if isinstance(url, str) and url:
        return url
    from urllib.parse import quote

    from airflow.sdk.configuration import conf

    base_url = conf.get("api", "base_url", fallback="") or "http://localhost:8080"
    return f"{base_url.rstrip('/')}/dags/{quote(str(dag_id))}/runs/{quote(str(run_id))}"


def _approve_url(context: Mapping[str, Any]) -> str:
    from airflow.sdk.configuration import conf

    link = getattr(context.get("task"), "generate_link_to_ui", None)
    if not callable(link):
        return ""
    base_url = conf.get("api", "base_url", fallback="") or "http://localhost:8080"
    return str(link(task_instance=context["ti"], base_url=base_url))


def _first(*values: Any) -> str:
    return next(str(value) for value in values if value)


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[:limit]} ... ({len(text) - limit} more characters)"


def _subject(text: str) -> str:
    ascii_text = " ".join(text.split()).encode("ascii", "replace").decode()
    printable = re.sub(r"[^\x20-\x7e]", "?", ascii_text)
    return printable if len(printable) <= MAX_SUBJECT else f"{printable[: MAX_SUBJECT - 3]}..."
