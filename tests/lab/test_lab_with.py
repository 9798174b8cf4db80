"""`tools/with-lab` leaves labs as it found them, and ends with the status of its command. A stand-in plays `python -m lab`."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from conftest import ROOT

STAND_IN = """#!/bin/bash
# beside N | status | up | down; what it is asked goes to a file, and the lab of number 0 is up when the file "up-0" is there
case "$3" in
  beside) echo "export NUMBER=$4" ;;
  status) [ -e "$FOLDER/up-$NUMBER" ] ;;
  *) echo "$3 $NUMBER" >>"$FOLDER/asked"; [ "$3 $NUMBER" != "$FAILS" ] ;;
esac
"""


def run(folder: Path, *command: str, **environment: str) -> tuple[int, list[str]]:
    """Exit status, and what the lab was told."""
    python = folder / "python"
    python.write_text(STAND_IN)
    python.chmod(0o755)
    inherited = {name: value for name, value in os.environ.items() if name != "LABS"}
    done = subprocess.run(
        [ROOT / "tools" / "with-lab", python, *command],
        env={**inherited, "FOLDER": str(folder), "FAILS": "", **environment}, check=False,
    )  # fmt: skip
    return done.returncode, (folder / "asked").read_text().splitlines()


@pytest.mark.parametrize(("command", "status"), [("exit 0", 0), ("exit 7", 7)])
def test_every_lab_that_it_started_is_down_again(tmp_path: Path, command: str, status: int) -> None:
    assert run(tmp_path, "bash", "-c", command, LABS="2") == (status, ["up 0", "up 1", "down 0", "down 1"])


def test_a_lab_that_was_up_stays_up(tmp_path: Path) -> None:
    (tmp_path / "up-0").touch()
    assert run(tmp_path, "true", LABS="2") == (0, ["up 0", "up 1", "down 1"])


def test_without_a_number_there_is_one_lab(tmp_path: Path) -> None:
    assert run(tmp_path, "true") == (0, ["up 0", "down 0"])


def test_a_lab_that_does_not_come_up_ends_the_others_and_nothing_runs(tmp_path: Path) -> None:
    status, asked = run(tmp_path, "touch", str(tmp_path / "ran"), LABS="2", FAILS="up 1")
    assert status != 0
    assert asked == ["up 0", "up 1", "down 0", "down 1"]
    assert not (tmp_path / "ran").exists()
