"""Downloads: fetched by Maven once, checked, and in the cache either whole or not at all."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
import zipfile
from pathlib import Path

import pytest

from lab import artifacts, config
from lab.config import Artifact, LabError, Libraries

CONTENT = b"content of the artifact"
TOOL = Artifact("org.example:tool:1.0", hashlib.sha256(CONTENT).hexdigest(), "tool-1.0")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DBOPS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def mvn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for Maven, which counts its calls; give it the lines of the script."""
    script = tmp_path / "bin" / "mvn"
    script.parent.mkdir()
    monkeypatch.setenv("PATH", f"{script.parent}{os.pathsep}{os.environ['PATH']}")
    script.write_text(
        "#!/bin/sh\n"
        f"echo \"$@\" >>'{script.parent}/calls'\n"
        'for argument; do case "$argument" in -DoutputDirectory=*) folder="${argument#*=}";; esac; done\n'
        f"printf %s '{CONTENT.decode()}' >\"$folder/tool-1.0.jar\"\n"
    )
    script.chmod(0o755)
    return script


def test_fetch_asks_maven_once(mvn: Path, cache: Path) -> None:
    path = artifacts.fetch(TOOL)
    assert path.read_bytes() == CONTENT
    assert artifacts.fetch(TOOL) == path
    (call,) = (mvn.parent / "calls").read_text().splitlines()
    assert call.startswith("-q -B dependency:copy -Dartifact=org.example:tool:1.0 -DoutputDirectory=")


def test_wrong_checksum_is_refused_and_not_kept(mvn: Path, cache: Path) -> None:
    with pytest.raises(LabError, match=f"org.example:tool:1.0 must have {'0' * 64}"):
        artifacts.fetch(Artifact(TOOL.coordinates, "0" * 64, TOOL.unpacked))
    assert not [*(cache / "download").iterdir()]


def test_a_download_that_was_changed_later_is_refused(mvn: Path) -> None:
    artifacts.fetch(TOOL).write_bytes(b"changed")
    with pytest.raises(LabError, match=r"has sha256 .* delete it and run `python -m lab setup` again"):
        artifacts.fetch(TOOL)


def test_failing_maven_shows_its_command_and_output(mvn: Path, cache: Path) -> None:
    mvn.write_text("#!/bin/sh\necho 'Could not resolve artifact'; exit 1\n")
    with pytest.raises(LabError, match=r"(?s)dependency:copy -Dartifact=org.example:tool:1.0` failed:\n.*not resolve"):
        artifacts.fetch(TOOL)
    assert not [*(cache / "download").iterdir()]


def test_missing_maven_names_the_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LabError, match=r"tool-1.0.jar is fetched with Maven: run `apt-get install -y maven`"):
        artifacts.fetch(TOOL)


def test_missing_library_names_the_package() -> None:
    artifacts.require_library("libc.so.6", "libc6")
    with pytest.raises(LabError, match=r"mysqld needs libnothing.so.1: run `apt-get install -y libnothing1`"):
        artifacts.require_library("libnothing.so.1", "libnothing1")


LIBRARIES = Libraries(
    ("org.example:tool:1.0", "org.example:other:2.0"),
    hashlib.sha256(f"{TOOL.sha256}  tool-1.0.jar\n".encode()).hexdigest(),
    "tools",
)


def test_libraries_are_copied_by_maven_once_into_a_folder(mvn: Path, cache: Path) -> None:
    mvn.write_text(mvn.read_text().replace("printf", 'mkdir -p "$folder"; cp pom.xml "$(dirname "$0")"; printf'))
    folder = artifacts.libraries(LIBRARIES)
    assert [file.name for file in folder.iterdir()] == ["tool-1.0.jar"]
    assert artifacts.libraries(LIBRARIES) == folder == cache / "tools"
    (call,) = (mvn.parent / "calls").read_text().splitlines()
    assert call.startswith("-q -B dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory=")
    pom = (mvn.parent / "pom.xml").read_text()
    assert "<groupId>org.example</groupId><artifactId>other</artifactId><version>2.0</version>" in pom


@pytest.mark.parametrize("script", ["printf changed", 'cp "$0" "$folder/added.jar"; printf'])
def test_a_library_that_is_changed_or_added_is_refused_and_nothing_is_kept(script: str, mvn: Path, cache: Path) -> None:
    mvn.write_text(mvn.read_text().replace("printf", f'mkdir -p "$folder"; {script}'))
    with pytest.raises(
        LabError, match=rf"(?s)org.example:tool:1.0, .* must have {LIBRARIES.sha256}; the files:.*\.jar"
    ):
        artifacts.libraries(LIBRARIES)
    assert not [*cache.iterdir()]


def tarball(*members: tuple[str, bytes | str]) -> bytes:
    """Files (bytes) and hard links (names of their targets)."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            if isinstance(content, str):
                info.type, info.linkname = tarfile.LNKTYPE, content
            else:
                info.size = len(content)
            tar.addfile(info, io.BytesIO(content) if isinstance(content, bytes) else None)
    return buffer.getvalue()


def put(cache: Path, name: str, content: bytes) -> Artifact:
    (cache / "download").mkdir(parents=True)
    (cache / "download" / name).write_bytes(content)
    packaging = ":tar.gz" if name.endswith(".tar.gz") else ""
    return Artifact(f"org.example:tool:1.0{packaging}", hashlib.sha256(content).hexdigest(), "tool-1.0")


def test_mysql_is_unpacked_from_the_tarball_in_the_jar(cache: Path) -> None:
    jar = io.BytesIO()
    with zipfile.ZipFile(jar, "w") as file:
        file.writestr(artifacts.MYSQL_TARBALL, tarball(("bin/mysqld", b"elf")))
    folder = artifacts.unpacked(put(cache, "tool-1.0.jar", jar.getvalue()))
    assert (folder / "bin" / "mysqld").read_bytes() == b"elf"


def test_trino_is_unpacked_without_its_top_folder_and_with_its_hard_links(cache: Path) -> None:
    content = tarball(("trino-1/lib/a.jar", b"a"), ("trino-1/plugin/x/a.jar", "trino-1/lib/a.jar"))
    folder = artifacts.unpacked(put(cache, "tool-1.0.tar.gz", content))
    assert (folder / "plugin" / "x" / "a.jar").samefile(folder / "lib" / "a.jar")


def test_broken_unpacking_leaves_nothing_that_looks_unpacked(cache: Path) -> None:
    with pytest.raises(EOFError):
        artifacts.unpacked(put(cache, "tool-1.0.tar.gz", tarball(("t/a", os.urandom(100_000)))[:50_000]))
    assert [entry.name for entry in cache.iterdir()] == ["download"]


def test_real_artifacts_are_pinned_by_checksum() -> None:
    assert len({artifact.filename for artifact in config.ARTIFACTS}) == len(config.ARTIFACTS)
    assert all(len(bytes.fromhex(artifact.sha256)) == 32 for artifact in (*config.ARTIFACTS, config.DYNAMODB))
