"""Reports: one model -> HTML with charts, a JSON document, an S3 object, a row in the store, a link in the UI.

The HTML needs no network and no JavaScript, follows the reader's light or dark theme, prints well and escapes every
value.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import urlsplit

from airflow.sdk import BaseOperatorLink
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, field_validator, model_validator

from dbops.alerting import mask

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey
    from jinja2 import Environment

    from dbops.store import Store

log = logging.getLogger(__name__)

REPORT_ID_KEY = "dbops_report_id"
TEMPLATES = Path(__file__).parent / "templates"


class Verdict(StrEnum):
    """What a run concludes. REFUSED: a guardrail stopped it. DRY_RUN: nothing was changed."""

    OK = "OK"
    WARNING = "WARNING"
    FAILED = "FAILED"
    REFUSED = "REFUSED"
    DRY_RUN = "DRY_RUN"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Figure(_Part):
    """A headline number, already formatted with its unit."""

    label: str
    value: str
    note: str = ""


class Table(_Part):
    """Rows of plain values.

    Numbers get thousands separators, columns of numbers are right-aligned, None shows as a dash. With a `file` all rows are
    also written as CSV beside the report; the page says how many of them it does not show.
    """

    kind: Literal["table"] = "table"
    title: str
    columns: list[str]
    rows: list[list[Any]]
    note: str = ""
    file: str = Field(default="", pattern=r"^[a-z0-9_]*$", description="stem of the CSV file")
    shown: int | None = Field(default=None, ge=0, description="rows on the page; needs `file`, so that none is lost")

    @model_validator(mode="after")
    def _rectangular(self) -> Table:
        if self.shown is not None and not self.file:
            raise ValueError(f"table {self.title!r}: shown is {self.shown} without a file for the other rows; name one")
        for number, row in enumerate(self.rows):
            if len(row) != len(self.columns):
                raise ValueError(
                    f"table {self.title!r}: row {number} has {len(row)} values for {len(self.columns)} columns"
                )
        return self


class Chart(_Part):
    """A Vega-Lite chart with its data inside: `alt.Chart(...).to_dict()`. Data by URL is not fetched.

    Give times without a zone (they are shown as they are) or with `alt.Scale(type="utc")`; others follow the worker's
    zone.
    """

    kind: Literal["chart"] = "chart"
    title: str
    vega: dict[str, Any]
    note: str = ""


class Text(_Part):
    """Prose; blank lines separate paragraphs."""

    kind: Literal["text"] = "text"
    title: str
    body: str


class Code(_Part):
    """A statement or listing, collapsed until opened."""

    kind: Literal["code"] = "code"
    title: str
    language: str = "sql"
    body: str


Section = Annotated[Table | Chart | Text | Code, Field(discriminator="kind")]


class Report(_Part):
    """What a run tells its readers.

    `spec` is empty for runs without one; values of password-like parameters are masked.
    """

    title: str
    dag_id: str
    run_id: str
    spec: str = ""
    verdict: Verdict
    reasons: list[str] = []
    figures: list[Figure] = []
    sections: list[Section] = []
    parameters: dict[str, Any] = {}
    versions: dict[str, str] = {}
    provenance: str
    generated_at: AwareDatetime = Field(default_factory=lambda: datetime.now(UTC))

    @field_validator("parameters")
    @classmethod
    def _masked(cls, parameters: dict[str, Any]) -> dict[str, Any]:
        return dict(mask(parameters))

    def document(self) -> dict[str, Any]:
        """The report as JSON-compatible data (NaN and infinity become null)."""
        return dict(json.loads(self.model_dump_json(fallback=str)))


@dataclass(frozen=True)
class PublishedReport:
    """Where a report went. `s3_uri` is empty when no folder was given."""

    report_id: int
    s3_uri: str


def render_html(report: Report) -> str:
    """The report as one HTML file."""
    drawn = {number: _svg(part, number) for number, part in enumerate(report.sections) if isinstance(part, Chart)}
    numeric = {number: _numeric_columns(part) for number, part in enumerate(report.sections) if isinstance(part, Table)}
    return environment().get_template("report.html").render(report=report, charts=drawn, numeric=numeric)


def publish(report: Report, *, s3_client: Any, uri: str, store: Store) -> PublishedReport:
    """Write `<uri>/<dag_id>/<spec>/<run_id>.html`, `.json` and a `.<file>.csv` a table to S3, and the report to the store.

    Repeating it replaces all of them.

    `uri` is `s3://bucket/prefix`; with an empty one only the store is written. Raises ValueError for another scheme,
    and what the S3 client or the database raises.
    """
    html = render_html(report)
    s3_uri = ""
    if uri:
        bucket, prefix = _split(uri)
        stem = "/".join(
            filter(None, [prefix, *(_safe(part) for part in (report.dag_id, report.spec, report.run_id) if part)])
        )
        document = json.dumps(report.document(), ensure_ascii=False, indent=1)
        files = [("json", document, "application/json"), ("html", html, "text/html; charset=utf-8")]
        files += [
            (f"{part.file}.csv", _csv(part), "text/csv; charset=utf-8")
            for part in report.sections
            if isinstance(part, Table) and part.file
        ]
        for suffix, body, kind in files:
            s3_client.put_object(Bucket=bucket, Key=f"{stem}.{suffix}", Body=body.encode("utf-8"), ContentType=kind)
        s3_uri = f"s3://{bucket}/{stem}.html"
    report_id = store.save_report(report, html, s3_uri)
    log.info("report %s: %s %s", report_id, report.verdict.value, s3_uri)
    return PublishedReport(report_id, s3_uri)


class ReportLink(BaseOperatorLink):
    """Button "dbops report" on tasks that pushed XCom `dbops_report_id`; opens the report page of the plugin."""

    name = "dbops report"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Path of the report page, empty when the task has pushed no report id."""
        from airflow.providers.common.compat.sdk import XCom
        from airflow.sdk.configuration import conf

        report_id = XCom.get_value(ti_key=ti_key, key=REPORT_ID_KEY)
        # path only: the browser keeps the host by which the reader reached Airflow; base_url adds the sub-path of a
        # deployment
        base_path = urlsplit(conf.get("api", "base_url", fallback="") or "").path.rstrip("/")
        return f"{base_path}/dbops/report/{report_id}" if report_id else ""


@lru_cache(maxsize=1)
def environment() -> Environment:
    """The Jinja environment of reports and pages: everything is escaped, undefined names are errors."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    result = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    result.filters["cell"] = _cell
    return result


def _cell(value: Any) -> str:
    match value:
        case None:
            return "–"  # noqa: RUF001 - a dash is meant
        case bool():
            return "yes" if value else "no"
        case int():
            return f"{value:,}"
        case float():
            return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
        case Decimal():
            return f"{value:,f}"
        case datetime():
            return f"{value:%Y-%m-%d %H:%M:%S}{' UTC' if value.tzinfo == UTC else ''}"
        case bytes():
            return f"0x{value.hex()}"
        case dict() | list():
            return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)


_NUMBER = re.compile(r"[-+]?[\d.,]*\d\s*(%|[kKMGT]?i?B|ms|s|min|h|d|rows(/s)?|[kKMGT]?B/s)?")


def _csv(table: Table) -> str:
    """Every row. A text that a spreadsheet would run as a formula gets an apostrophe before it (OWASP, CSV injection)."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(table.columns)
    for row in table.rows:
        writer.writerow(
            [f"'{v}" if isinstance(v, str) and v.startswith(("=", "+", "-", "@", "\t", "\r")) else v for v in row]
        )
    return out.getvalue()


def _numeric_columns(table: Table) -> list[bool]:
    """Which columns hold numbers only."""
    return [_all_numbers([row[i] for row in table.rows]) for i in range(len(table.columns))]


def _all_numbers(values: Sequence[Any]) -> bool:
    present = [value for value in values if value is not None and value != ""]
    return bool(present) and all(
        (isinstance(value, (int, float, Decimal)) and not isinstance(value, bool))
        or (isinstance(value, str) and _NUMBER.fullmatch(value) is not None)
        for value in present
    )


# Colours that keep their contrast on white and on near-black; text and lines take the page's own colour.
_INK = {"labelColor": "currentColor", "titleColor": "currentColor"}
_CHART_CONFIG: dict[str, Any] = {
    "background": None,
    "font": "system-ui, 'Segoe UI', 'DejaVu Sans', sans-serif",
    "view": {"stroke": None, "continuousWidth": 860, "continuousHeight": 240, "discreteHeight": {"step": 24}},
    "axis": {
        **_INK,
        "domainColor": "currentColor",
        "domainOpacity": 0.35,
        "tickColor": "currentColor",
        "tickOpacity": 0.35,
        "gridColor": "currentColor",
        "gridOpacity": 0.12,
        "labelFontSize": 11,
        "titleFontSize": 11,
        "titleFontWeight": 500,
        "labelLimit": 260,
    },
    "axisX": {"grid": False},
    "legend": {
        **_INK,
        "orient": "top",
        "symbolStrokeWidth": 2,
        "labelFontSize": 11,
        "titleFontSize": 11,
        "titleFontWeight": 500,
    },
    "header": _INK,
    "title": {"color": "currentColor", "subtitleColor": "currentColor"},
    "text": {"color": "currentColor"},
    "rule": {"color": "currentColor"},
    "mark": {"color": "#3d7fc1"},
    "bar": {"cornerRadiusEnd": 2},
    "line": {"strokeWidth": 2},
    "range": {
        "category": ["#3d7fc1", "#d98a2b", "#2a9d86", "#c9594a", "#8a6fc0", "#7d8794", "#b5912c", "#4fa3c7"],
    },
}
_SVG = "http://www.w3.org/2000/svg"
_SVG_TAGS = {
    "svg",
    "g",
    "path",
    "line",
    "rect",
    "circle",
    "ellipse",
    "polygon",
    "polyline",
    "text",
    "tspan",
    "title",
    "desc",
    "defs",
}
_SVG_TAGS |= {"clipPath", "linearGradient", "radialGradient", "stop"}


def _svg(chart: Chart, number: int) -> str:
    """The chart as inline SVG. One that cannot be drawn leaves a note: it must not cost the reader the whole report."""
    import vl_convert
    from markupsafe import escape

    spec = {key: value for key, value in chart.vega.items() if key != "background"}
    spec["config"] = _merged(
        _CHART_CONFIG, {k: v for k, v in (chart.vega.get("config") or {}).items() if k != "background"}
    )
    if "view" in spec["config"]:  # Altair writes its default view size (300x300) into every chart's config
        spec["config"]["view"] |= _CHART_CONFIG["view"]
    try:
        drawn = vl_convert.vegalite_to_svg(spec, allowed_base_urls=[])
        return _clean_svg(drawn, f"chart{number}", chart.title)
    except Exception as error:
        log.warning("chart %r could not be drawn", chart.title, exc_info=True)
        cause = " ".join(str(error).splitlines()[:2]) or type(error).__name__
        return f'<p class="note">This chart could not be drawn. {escape(cause)}</p>'


def _clean_svg(svg: str, prefix: str, title: str) -> str:
    """Keep drawing elements only (no scripts, links, images, foreign content) and make ids unique in the page."""
    from xml.etree import ElementTree

    ElementTree.register_namespace("", _SVG)
    root = ElementTree.fromstring(svg)  # noqa: S314 - drawn a moment ago by vl-convert
    _keep_drawing(root)
    for element in root.iter():
        for key, value in list(element.attrib.items()):
            name = key.rpartition("}")[2].lower()
            if (
                name.startswith("on")
                or name in {"href", "style"}
                or ("url(" in value and not value.startswith("url(#"))
            ):
                del element.attrib[key]
            elif name == "id":
                element.set(key, f"{prefix}-{value}")
            elif value.startswith("url(#"):
                element.set(key, value.replace("url(#", f"url(#{prefix}-", 1))
    root.set("role", "img")
    root.set("aria-label", title)
    return ElementTree.tostring(root, encoding="unicode")


def _keep_drawing(parent: Element) -> None:
    for child in list(parent):
        _keep_drawing(child)
        tag = str(child.tag).removeprefix(f"{{{_SVG}}}")
        if tag in _SVG_TAGS:
            continue
        position = list(parent).index(child)
        parent[position : position + 1] = (
            list(child) if tag == "a" else []
        )  # what a link wraps is drawn without the link


def _merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    result = dict(base)
    for key, value in over.items():
        result[key] = (
            _merged(result[key], value) if isinstance(value, dict) and isinstance(result.get(key), dict) else value
        )
    return result


def _split(uri: str) -> tuple[str, str]:
    parts = urlsplit(uri)
    if parts.scheme != "s3" or not parts.netloc:
        raise ValueError(
            f"report folder {uri!r} is not an S3 address; "
            "expected s3://bucket/prefix (extra 'reports_s3_uri' of the store connection)"
        )
    return parts.netloc, parts.path.strip("/")


def _safe(name: str) -> str:
    """`name` for an S3 key. What is replaced is told apart by a short hash, so two run ids never share a file."""
    safe = re.sub(r"[^A-Za-z0-9._=-]", "_", name)
    return (
        safe if safe == name and name not in {".", ".."} else f"{safe}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    )
