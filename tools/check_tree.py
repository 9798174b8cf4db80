"""Find what must not be in the tree: hosts of package registries, absolute paths of a machine, test files of one name.

A registry's host ties the project to one network, so clients find their registry in their own configuration; a path of
one machine works nowhere else. pytest names a test module after its file alone, so two files of one name stop a whole
run, and only that: each passes on its own. `make lint` and the tests run this over every file that git tracks or would
add.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# In pieces, so that this file does not contain what it looks for.
REGISTRY_HOSTS = [
    ("pypi", "org"),
    ("pythonhosted", "org"),
    ("maven", "org"),
    ("repo", "maven", "apache", "org"),
    ("mvnrepository", "com"),
    ("sonatype", "org"),
    ("deb", "debian", "org"),
    ("security", "debian", "org"),
    ("archive", "ubuntu", "com"),
    ("npmjs", "org"),
    ("npmjs", "com"),
    ("crates", "io"),
    ("proxy", "golang", "org"),
    ("ghcr", "io"),
    ("quay", "io"),
    ("gcr", "io"),
    ("public", "ecr", "aws"),
]
PATHS = [
    r"/(?:root)/",
    r"/home/(?!airflow\b)\w",  # the home folder of the official Airflow image is the same everywhere
    r"/(?:Users)/\w",
    r"[A-Z]:\\(?:Users)\\",
    re.escape(f"{ROOT}/"),
]
FORBIDDEN = re.compile("|".join([rf"\b{re.escape('.'.join(host))}\b" for host in REGISTRY_HOSTS] + PATHS))


def tracked(root: Path = ROOT) -> list[Path]:
    """Files that git tracks or would add, without those deleted in the work tree."""
    # A clone may belong to another user, as in a container.
    command = ["git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout
    return sorted({root / name for name in listed.split("\0") if name and (root / name).is_file()})


def findings(files: list[Path], root: Path = ROOT) -> Iterator[str]:
    """One line per forbidden word: file, line number and the word."""
    for file in files:
        data = file.read_bytes()
        if b"\0" in data:
            continue
        for number, line in enumerate(data.decode("utf-8", "replace").splitlines(), 1):
            for match in FORBIDDEN.finditer(line):
                yield f"{file.relative_to(root)}:{number}: {match.group()}"


def namesakes(files: list[Path], root: Path = ROOT) -> Iterator[str]:
    """One line per name that several test files have: the files."""
    by_name: dict[str, list[str]] = {}
    for file in files:
        if file.name.startswith("test_") and file.suffix == ".py":
            by_name.setdefault(file.name, []).append(str(file.relative_to(root)))
    yield from (" ".join(group) for group in by_name.values() if len(group) > 1)


def main() -> int:
    """Print every finding; the exit code is 1 when there is one."""
    files = tracked()
    if words := list(findings(files)):
        print(*words, sep="\n")
        print("Leave registry hosts to the clients' own configuration, and make paths relative or configurable.")
    if groups := list(namesakes(files)):
        print(*groups, sep="\n")
        print("pytest imports a test file by its name alone: give each its own.")
    return int(bool(words or groups))


if __name__ == "__main__":
    sys.exit(main())
