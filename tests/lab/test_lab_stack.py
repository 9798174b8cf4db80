"""The order in which the lab comes up, and what it forgets with a new, empty S3."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from lab import __main__ as cli
from lab import airflow, artifacts, aws, config, mysql, processes, stack, trino
from lab.rds import plane


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, aws: str) -> list[str]:
    """What `up` did, with an empty simulated AWS and no other service; mysql80 takes longest to start."""
    done: list[str] = []

    def provision(server: config.MySQLServer) -> None:
        if server is config.MYSQL80:
            time.sleep(0.2)
        done.append(f"provision {server.name}")

    monkeypatch.setenv("LAB_HOME", str(tmp_path))
    monkeypatch.setenv("LAB_AWS_PORT", aws.rpartition(":")[2])
    monkeypatch.setattr(artifacts, "setup", lambda: None)
    monkeypatch.setattr(airflow, "provision", lambda: None)
    monkeypatch.setattr(processes, "start", lambda service: done.append(f"start {service.name}"))
    monkeypatch.setattr(mysql, "provision", provision)
    monkeypatch.setattr(mysql, "recreate_schema", lambda name, schema: done.append(f"empty {name}.{schema}") or True)
    monkeypatch.setattr(trino, "iceberg_catalog", lambda: done.append("catalog tables"))
    return done


def test_trino_waits_for_the_tables_of_its_catalog(steps: list[str]) -> None:
    stack.up()
    assert steps.index("provision mysql80") < steps.index("catalog tables") < steps.index("start trino")


def test_a_new_account_empties_what_described_the_lost_lake_once(
    steps: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    stack.up()
    emptied = {"empty mysql80.icecat", "empty mysql57.dbops_archive", "empty mysql80.dbops_archive"}
    assert {step for step in steps if step.startswith("empty")} == emptied
    assert "emptied mysql80.icecat, mysql57.dbops_archive, mysql80.dbops_archive" in capsys.readouterr().out
    assert aws.is_provisioned()
    steps.clear()
    stack.up()
    assert not [step for step in steps if step.startswith("empty")]


def test_an_up_that_dies_before_the_lake_is_forgotten_forgets_it_next_time(
    steps: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as broken:
        broken.setattr(mysql, "recreate_schema", lambda name, schema: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            stack.up()
    stack.up()
    assert "empty mysql57.dbops_archive" in steps


def test_status_shows_every_service_and_fails_when_one_is_down(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LAB_HOME", str(tmp_path))
    assert cli.main(["status"]) == 1
    lines = capsys.readouterr().out.splitlines()[1:]
    assert [line.split()[0] for line in lines] == list(config.SERVICES)
    assert all(line.endswith("no") for line in lines)


def test_report_copies_the_newest_html(steps: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["report"]) == 1
    assert "run `python -m lab up`" in capsys.readouterr().err
    aws.provision()
    assert cli.main(["report"]) == 1
    assert "holds no *.html" in capsys.readouterr().err
    s3 = aws.client("s3")
    for key in ("b/old.html", "a/new.html", "newest.json"):
        s3.put_object(Bucket=config.REPORTS_BUCKET, Key=key, Body=key.encode())
    objects = aws.client("s3").list_objects_v2(Bucket=config.REPORTS_BUCKET)["Contents"]
    newest = max((o for o in objects if o["Key"].endswith("html")), key=lambda o: o["LastModified"])["Key"]
    assert cli.main(["report"]) == 0
    path = Path(capsys.readouterr().out.strip())
    assert path.parent == config.home() / "reports"
    assert path.read_text() == newest


def test_reset_deletes_the_labs_own_state_and_nothing_else(steps: list[str]) -> None:
    for name in ("mysql57/data", "trino/etc", "photos"):
        (config.home() / name).mkdir(parents=True)
    stack.reset()
    assert {entry.name for entry in config.home().iterdir()} == {"env", "lock", "photos"}
    assert "start mysql57" in steps


def test_down_ends_the_databases_of_an_rds_that_had_to_be_killed(
    steps: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        plane, "end_servers_below", lambda folder: steps.append(f"end {folder.relative_to(config.home())}")
    )
    stack.down()
    assert steps == ["end rds"]


def test_the_aws_service_is_the_one_with_databases(steps: list[str]) -> None:
    argv = aws.service().prepare()
    assert argv[1:3] == ["-m", "lab.rds"]
    assert argv[-2:] == ["--folder", str(config.home() / "rds")]
