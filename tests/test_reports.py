from __future__ import annotations

import csv
import json
import re
from datetime import UTC, datetime
from decimal import Decimal
from html.parser import HTMLParser

import altair as alt
import pytest
import sqlalchemy as sa
from conftest import REGION
from pydantic import ValidationError

from dbops import connections, reports
from dbops.reports import Chart, Code, Figure, Report, ReportLink, Table, Text, Verdict
from dbops.store import Store

AT = datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)
EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>"


def bar_chart(*labels: str, **encoding) -> dict:
    values = [{"table": label, "rows": 10 * (number + 1)} for number, label in enumerate(labels)]
    return alt.Chart(alt.Data(values=values)).mark_bar().encode(x="rows:Q", y="table:N", **encoding).to_dict()


def report(**changes) -> Report:
    fields = {
        "title": "Archive of trips",
        "dag_id": "s3_archive",
        "run_id": "manual__2026-05-04T03:00:00+00:00",
        "spec": "trips",
        "verdict": Verdict.OK,
        "provenance": "real AWS",
        "generated_at": AT,
    }
    return Report(**{**fields, **changes})


class Page(HTMLParser):
    """Elements, attributes and text of a page, as a browser would see them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data):
        self.text += data


def assert_harmless(html: str) -> Page:
    page = Page(html)
    assert not {"script", "img", "iframe", "object", "embed", "link", "image", "use", "foreignobject", "form"} & set(
        page.tags
    )
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert not [value for name, value in page.attributes if name in {"href", "src", "xlink:href"}]
    assert not re.search(r"url\((?!#)", html)
    assert "@import" not in html
    return page


def test_every_value_is_escaped():
    hostile = report(
        title=EVIL,
        dag_id=EVIL,
        run_id=EVIL,
        spec=EVIL,
        verdict=Verdict.WARNING,
        reasons=[EVIL],
        figures=[Figure(label=EVIL, value=EVIL, note=EVIL)],
        sections=[
            Table(title=EVIL, columns=[EVIL], rows=[[EVIL], [{"k": EVIL}], [[EVIL]]], note=EVIL),
            Chart(title=EVIL, vega=bar_chart(EVIL, "x", tooltip="table:N", color="table:N"), note=EVIL),
            Text(title=EVIL, body=EVIL),
            Code(title=EVIL, language=EVIL, body=EVIL),
        ],
        parameters={EVIL: EVIL, "nested": {EVIL: [EVIL]}},
        versions={EVIL: EVIL},
        provenance=EVIL,
    )
    page = assert_harmless(reports.render_html(hostile))
    assert page.text.count("<script>alert(1)</script>") >= 20


def test_charts_cannot_bring_links_images_or_network():
    def bars(url: str) -> alt.Chart:
        return alt.Chart(alt.Data(values=[{"u": url, "v": 1}])).mark_bar()

    linked = bars("https://example.com/x").encode(x="v:Q", href="u:N").to_dict()
    script = bars("javascript:alert(1)").encode(x="v:Q", href="u:N").to_dict()
    image = bars("http://127.0.0.1:9/x.png").mark_image().encode(x="v:Q", url="u:N").to_dict()
    encoding = {"x": {"field": "v", "type": "quantitative"}}
    remote = {"data": {"url": "http://127.0.0.1:9/data.json"}, "mark": "bar", "encoding": encoding}
    titled = {**bar_chart("a"), "title": EVIL, "description": EVIL, "usermeta": {"x": EVIL}}
    for vega in (linked, script, image, remote, titled):
        page = assert_harmless(reports.render_html(report(sections=[Chart(title="c", vega=vega)])))
        assert "could not be drawn" in page.text or "svg" in page.tags
    assert "<path" in reports._svg(Chart(title="c", vega=titled), 0)


@pytest.mark.parametrize(
    "element",
    [
        "<script>x</script>",
        '<a href="javascript:x"><rect id="r"/></a>',
        '<image href="http://h/x.png"/>',
        '<foreignObject><body xmlns="http://www.w3.org/1999/xhtml" onload="x"/></foreignObject>',
        '<rect onclick="x" style="background:url(http://h)" fill="url(http://h/x)"/>',
        '<use href="http://h/x.svg#a"/>',
        "<style>@import url(http://h)</style>",
        '<g><a xlink:href="javascript:x" xmlns:xlink="http://www.w3.org/1999/xlink"><script>x</script></a></g>',
    ],
)
def test_only_drawing_elements_pass(element):
    svg = f'<svg xmlns="http://www.w3.org/2000/svg">{element}<path d="M0,0"/></svg>'
    cleaned = reports._clean_svg(svg, "p", EVIL)
    page = assert_harmless(cleaned)
    assert "path" in page.tags
    assert not {"a", "style", "body"} & set(page.tags)


def test_a_chart_that_cannot_be_drawn_leaves_a_note():
    html = reports.render_html(
        report(sections=[Chart(title="broken", vega={"mark": EVIL}), Text(title="after", body="still here")])
    )
    page = assert_harmless(html)
    assert "This chart could not be drawn" in page.text
    assert "still here" in page.text


def test_charts_have_text_follow_the_theme_and_do_not_share_ids():
    clipped = (
        alt.Chart(alt.Data(values=[{"x": n, "y": n * n} for n in range(9)]))
        .mark_line(clip=True)
        .encode(x="x:Q", y="y:Q")
        .to_dict()
    )
    html = reports.render_html(
        report(sections=[Chart(title="a", vega=bar_chart("trips", "cars")), *[Chart(title="c", vega=clipped)] * 2])
    )
    page = Page(html)
    assert "trips" in page.text
    assert ("fill", "currentColor") in page.attributes
    ids = [value for name, value in page.attributes if name == "id"]
    assert ids
    assert len(ids) == len(set(ids))
    assert set(re.findall(r"url\(#([^)]+)\)", html)) <= set(ids)
    assert 'fill="white"' not in html


def test_tables_align_and_format_numbers():
    rows = [
        ["trips", 1234567, Decimal("1234.50"), 0.123456, None, True, "12.5 MiB"],
        ["cars", 7, Decimal(1), 12345.6, 3, False, "1 MiB"],
    ]
    html = reports.render_html(report(sections=[Table(title="t", columns=list("abcdefg"), rows=rows)]))
    for number in ("1,234,567", "1,234.50", "0.1235", "\u2013", "12,346", "12.5 MiB"):
        assert f'<td class="num">{number}</td>' in html
    assert "<td>trips</td>" in html
    assert "<td>yes</td>" in html
    assert "No rows." in reports.render_html(report(sections=[Table(title="t", columns=["a"], rows=[])]))


def test_a_row_of_another_width_is_refused():
    with pytest.raises(ValidationError, match="row 1 has 1 values for 2 columns"):
        Table(title="t", columns=["a", "b"], rows=[[1, 2], [1]])


@pytest.mark.parametrize("verdict", list(Verdict))
def test_the_banner_shows_the_verdict_and_its_reasons(verdict):
    page = Page(reports.render_html(report(verdict=verdict, reasons=["replica lag was unknown"])))
    assert ("class", f"verdict {verdict.value}") in page.attributes
    assert "replica lag was unknown" in page.text


def test_the_page_is_self_contained_printable_and_has_both_themes():
    html = reports.render_html(report(parameters={"dry_run": False}, versions={"MySQL": "8.0.15"}))
    assert "prefers-color-scheme: dark" in html
    assert "@media print" in html
    assert "http://" not in html
    assert "https://" not in html
    assert ("class", "mono") in Page(html).attributes


def test_passwords_in_parameters_are_masked():
    masked = report(
        parameters={
            "password": "pw1",
            "nested": {"aws_secret_access_key": "pw2"},
            "uri": "mysql://u:pw3@h/db",
            "table": "trips",
        }
    )
    text = reports.render_html(masked) + json.dumps(masked.document())
    assert not [secret for secret in ("pw1", "pw2", "pw3") if secret in text]
    assert masked.parameters["table"] == "trips"


def test_a_time_without_zone_is_refused():
    with pytest.raises(ValidationError):
        report(generated_at=datetime(2026, 1, 1))


def test_publish_writes_html_and_json_and_the_store(aws, tmp_path):
    s3 = connections.aws_client("s3")
    s3.create_bucket(Bucket="dbops-reports", CreateBucketConfiguration={"LocationConstraint": REGION})
    store = Store(sa.create_engine(f"sqlite:///{tmp_path}/s.db"))
    store.migrate()
    first = reports.publish(report(), s3_client=s3, uri="s3://dbops-reports/base/", store=store)
    again = reports.publish(report(title="Second"), s3_client=s3, uri="s3://dbops-reports/base", store=store)
    assert first == again
    keys = [entry["Key"] for entry in s3.list_objects_v2(Bucket="dbops-reports")["Contents"]]
    assert len(keys) == 2
    assert re.fullmatch(r"base/s3_archive/trips/manual__2026-05-04T03_00_00_00_00-[0-9a-f]{8}\.html", keys[0])
    assert first.s3_uri == f"s3://dbops-reports/{keys[0]}"
    html, document = (s3.get_object(Bucket="dbops-reports", Key=key) for key in keys)
    assert html["ContentType"] == "text/html; charset=utf-8"
    assert html["Body"].read().decode() == store.report_html(first.report_id)
    assert json.loads(document["Body"].read()) == store.latest("s3_archive").document
    assert Report.model_validate(store.latest("s3_archive").document).title == "Second"


def test_a_table_with_a_file_shows_some_rows_and_writes_all_of_them(aws, tmp_path):
    s3 = connections.aws_client("s3")
    s3.create_bucket(Bucket="dbops-reports", CreateBucketConfiguration={"LocationConstraint": REGION})
    store = Store(sa.create_engine(f"sqlite:///{tmp_path}/s.db"))
    store.migrate()
    rows = [[n, 'a "quoted" word, and a comma' if n == 2 else "=1+1" if n == 3 else None] for n in range(5)]
    long = report(sections=[Table(title="t", columns=["n", "v"], rows=rows, file="all_rows", shown=2)])
    page = Page(reports.render_html(long))
    assert "2 of 5 rows are shown" in page.text
    assert page.tags.count("tr") == 3
    published = reports.publish(long, s3_client=s3, uri="s3://dbops-reports", store=store)
    key = published.s3_uri.removeprefix("s3://dbops-reports/").removesuffix("html") + "all_rows.csv"
    text = s3.get_object(Bucket="dbops-reports", Key=key)["Body"].read().decode()
    assert list(csv.reader(text.splitlines())) == [
        ["n", "v"], ["0", ""], ["1", ""], ["2", 'a "quoted" word, and a comma'], ["3", "'=1+1"], ["4", ""],
    ]  # fmt: skip


def test_a_table_may_not_hide_rows_without_a_file():
    with pytest.raises(ValidationError, match="shown is 2 without a file"):
        Table(title="t", columns=["n"], rows=[[1], [2], [3]], shown=2)


def test_publish_without_a_folder_writes_the_store_only(tmp_path):
    store = Store(sa.create_engine(f"sqlite:///{tmp_path}/s.db"))
    store.migrate()
    published = reports.publish(report(spec=""), s3_client=None, uri="", store=store)
    assert published.s3_uri == ""
    assert store.latest("s3_archive", "").report_id == published.report_id


@pytest.mark.parametrize("uri", ["/var/reports", "s3:///x", "https://bucket/x"])
def test_publish_refuses_another_kind_of_folder(uri):
    with pytest.raises(ValueError, match="expected s3://bucket/prefix"):
        reports.publish(report(), s3_client=None, uri=uri, store=None)


def test_names_that_need_replacing_never_share_a_file():
    names = ["a:b", "a_b", "a/b", "a b", "..", "_.."]
    assert len({reports._safe(name) for name in names}) == len(names)
    assert all(re.fullmatch(r"[A-Za-z0-9._=-]+", reports._safe(name)) and reports._safe(name) != ".." for name in names)


def test_the_link_opens_the_report_that_the_task_pushed(run_dag):
    from airflow.models.xcom import XComModel
    from airflow.sdk import DAG, BaseOperator
    from airflow.utils.session import create_session
    from sqlalchemy import select

    class Reporter(BaseOperator):
        operator_extra_links = (ReportLink(),)

        def execute(self, context):
            context["ti"].xcom_push(key=reports.REPORT_ID_KEY, value=42)

    with DAG("t_report_link", schedule=None) as dag:
        Reporter(task_id="reporter")
    assert run_dag(dag).state == "success"
    query = select(XComModel.value).where(XComModel.dag_id == "t_report_link", XComModel.key == ReportLink().xcom_key)
    with create_session() as session:
        (stored,) = session.scalars(query).all()
    assert stored == "/dbops/report/42"
