from __future__ import annotations

from textwrap import dedent
from typing import Annotated, Literal

import pytest
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from dbops import specs
from dbops.guardrails import Window
from dbops.specs import Spec, SpecError


class Batch(BaseModel):
    model_config = ConfigDict(extra="forbid")
    rows: int = Field(ge=1, le=10_000, description="rows per DELETE")


class Bucket(BaseModel):
    model_config = ConfigDict(extra="forbid")
    kind: Literal["bucket"]
    key: str = Field(description="prefix of the objects")


class Stream(BaseModel):
    model_config = ConfigDict(extra="forbid")
    kind: Literal["stream"]
    key: int = Field(description="number of the shard")
    since: AwareDatetime | None = Field(default=None, description="first record")


class TableSpec(Spec):
    table: str
    to: list[Annotated[Bucket | Stream, Field(discriminator="kind")]] = Field(default_factory=list)
    batch: Batch = Batch(rows=1000)
    steps: tuple[Batch, ...] = ()
    window: Window | None = None


GOOD = """
enabled: true
description: trips
owner: dba
table: carshare.trips
batch: {rows: 500}
window: {start: 22:30, end: 06:00, timezone: Europe/Berlin}
"""


@pytest.fixture
def write(tmp_path, monkeypatch):
    monkeypatch.setenv("DBOPS_SPECS_DIR", str(tmp_path))
    (tmp_path / "archive").mkdir()

    def put(name: str, text: str) -> None:
        (tmp_path / "archive" / name).write_text(dedent(text))

    return put


def load(name: str = "trips") -> TableSpec:
    return specs.load("archive", name, TableSpec)


def error_lines(name: str = "trips") -> list[str]:
    with pytest.raises(SpecError) as caught:
        load(name)
    return str(caught.value).splitlines()


def test_load(write):
    write("trips.yaml", GOOD)
    spec = load()
    assert (spec.name, spec.enabled, spec.batch.rows, spec.table) == ("trips", True, 500, "carshare.trips")
    assert spec.window == Window(start="22:30", end="06:00", timezone="Europe/Berlin")
    with pytest.raises(ValueError, match="frozen"):
        spec.table = "x"


def test_every_error_has_its_own_line_with_file_line_field_value_and_what_is_allowed(write, tmp_path):
    write(
        "trips.yaml",
        "owner: dba\ntable: t\nbatch:\n  rows: 0\n  row: 5\nsteps:\n  - rows: 1\n  - rows: many\nwindw: x\n",
    )
    file = tmp_path / "archive" / "trips.yaml"
    assert error_lines() == [
        f"{file}:1: description: missing; add it (what this spec is for, in a sentence)",
        f"{file}:4: batch.rows: 0 is not allowed: Input should be greater than or equal to 1 (rows per DELETE)",
        f"{file}:5: batch.row: unknown key with value 5; allowed here: rows",
        f"{file}:8: steps.1.rows: 'many' is not allowed: Input should be a valid integer, "
        "unable to parse string as an integer (rows per DELETE)",
        f"{file}:9: windw: unknown key with value 'x'; allowed here: "
        "name, enabled, description, owner, table, to, batch, steps, window",
    ]


def test_errors_in_a_union_name_the_field_of_the_file_and_what_its_kind_allows(write, tmp_path):
    write(
        "trips.yaml",
        GOOD
        + "to:\n  - {kind: bucket, keys: a}\n  - {kind: stream, key: a}\n  - {kind: stream, key: 1, since: 2026-11-30}\n",
    )
    file = tmp_path / "archive" / "trips.yaml"
    assert error_lines() == [
        f"{file}:9: to.0.key: missing; add it (prefix of the objects)",
        f"{file}:9: to.0.keys: unknown key with value 'a'; allowed here: kind, key",
        f"{file}:10: to.1.key: 'a' is not allowed: Input should be a valid integer, unable to parse string as an integer "
        "(number of the shard)",
        f"{file}:11: to.2.since: '2026-11-30' is not allowed: Input should have timezone info (first record)",
    ]


def test_errors_of_validators(write):
    write("trips.yaml", GOOD.replace("Europe/Berlin", "Berlin"))
    (line,) = error_lines()
    assert "window.timezone: 'Berlin' is not allowed: expected an IANA time zone" in line


def test_unknown_name_lists_the_known_ones(write):
    write("trips.yaml", GOOD)
    write("cars.yaml", GOOD)
    (line,) = error_lines("trip")
    assert line.endswith("no spec named 'trip'; known specs: cars, trips")
    (line,) = error_lines("../archive/trips")
    assert "no spec named" in line


def test_yaml_syntax_error_has_file_and_line(write, tmp_path):
    write("trips.yaml", "owner: dba\ntable: [a\nbatch: 1\n")
    (line,) = error_lines()
    assert line.startswith(f"{tmp_path}/archive/trips.yaml:3: ")


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("owner: a\ntable: t\nowner: b\n", ":3: duplicate key 'owner'"),
        ("batch:\n  rows: 1\n  rows: 2\n", ":3: duplicate key 'rows'"),
    ],
)
def test_duplicate_keys_are_refused(write, text, where):
    write("trips.yaml", text)
    (line,) = error_lines()
    assert where in line


@pytest.mark.parametrize("text", ["", "- a\n", "text\n"])
def test_a_file_that_is_no_mapping(write, text):
    write("trips.yaml", text)
    (line,) = error_lines()
    assert "a spec is a mapping" in line


def test_name_must_be_the_file_name(write):
    write("trips.yaml", GOOD + "name: trips\n")
    assert load().name == "trips"
    write("trips.yaml", GOOD + "name: cars\n")
    (line,) = error_lines()
    assert "name: 'cars' differs from the file name" in line


def test_yaml_1_1_surprises_are_gone(write):
    class Loose(Spec):
        country: str
        at: str
        code: int
        size: float

    write("loose.yaml", "description: d\nowner: o\ncountry: no\nat: 22:30\ncode: 1_000\nsize: 1e3\n")
    spec = specs.load("archive", "loose", Loose)
    assert (spec.country, spec.at, spec.code, spec.size) == ("no", "22:30", 1000, 1000.0)


def test_load_all(write):
    write("b.yaml", GOOD)
    write("a.yaml", GOOD.replace("enabled: true", "enabled: false"))
    assert [spec.name for spec in specs.load_all("archive", TableSpec)] == ["a", "b"]
    assert [spec.name for spec in specs.load_all("archive", TableSpec, enabled_only=True)] == ["b"]
    write("a.yaml", "owner: x\ndescription: d\n")
    write("c.yaml", "owner: x\ndescription: d\n")
    with pytest.raises(SpecError) as caught:
        specs.load_all("archive", TableSpec, enabled_only=True)
    assert [line.partition(": ")[0].rsplit("/", 1)[1] for line in str(caught.value).splitlines()] == [
        "a.yaml:1",
        "c.yaml:1",
    ]


def test_a_yml_file_is_not_overlooked(write):
    write("trips.yml", GOOD)
    with pytest.raises(SpecError, match=r"trips\.yml: spec files end in \.yaml; rename it"):
        specs.names("archive")


def test_a_room_without_specs_has_none(write):
    assert specs.names("backfill") == []
