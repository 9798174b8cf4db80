"""Write docs/dags.md from the DAGs' own documentation.

    python tools/dag_docs.py           # write
    python tools/dag_docs.py --check   # exit 1 when docs/dags.md is not what would be written

A DAG's doc_md is its manual; this page puts all of them in one place for people who have no Airflow at hand.
"""

from __future__ import annotations

import argparse
import difflib
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "dags.md"
HEADER = """\
# DAGs

Written by `make docs` from the DAGs' `doc_md`; change it there.

| DAG | Schedule | Tags | What it does |
| --- | --- | --- | --- |
"""


def load() -> list[Any]:
    """The DAGs of dags/, by id.

    Raises SystemExit with every import error when a DAG file cannot be imported.
    """
    from airflow.dag_processing.dagbag import DagBag

    bag = DagBag(dag_folder=str(ROOT / "dags"))
    if bag.import_errors:
        sys.exit("\n".join(f"{file}:\n{error}" for file, error in sorted(bag.import_errors.items())))
    return [bag.dags[dag_id] for dag_id in sorted(bag.dags)]


def page(dags: list[Any]) -> str:
    """The whole page; a DAG's own headings move below the heading of its section."""
    rows, sections = [], []
    for dag in dags:
        summary = (dag.description or "").replace("|", "\\|")
        tags = ", ".join(f"`{tag}`" for tag in sorted(dag.tags))
        rows.append(f"| [`{dag.dag_id}`](#{dag.dag_id}) | {schedule(dag)} | {tags} | {summary} |\n")
        sections.append(f"\n## {dag.dag_id}\n\n{lower_headings(dag.doc_md or '')}\n")
    return HEADER + "".join(rows) + "".join(sections)


def schedule(dag: Any) -> str:
    """A cron expression as it stands in the DAG file, or `manual`."""
    return "manual" if dag.schedule is None else f"`{dag.schedule}`"


def lower_headings(markdown: str) -> str:
    """Move every heading outside code blocks down by two levels."""
    lines, in_code = [], False
    for line in markdown.strip().splitlines():
        in_code ^= line.lstrip().startswith("```")
        lines.append(f"##{line}" if line.startswith("#") and not in_code else line.rstrip())
    return "\n".join(lines)


def main() -> int:
    """Write the page, or compare it."""
    parser = argparse.ArgumentParser(description="Write docs/dags.md from the DAGs' doc_md.")
    parser.add_argument("--check", action="store_true", help="exit 1 when docs/dags.md is not what would be written")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dbops-docs-") as home:
        # Before Airflow is imported: it reads its settings then. No connection and no database is needed to parse.
        os.environ.update(
            AIRFLOW_HOME=home,
            AIRFLOW__CORE__DAGS_FOLDER=str(ROOT / "dags"),
            AIRFLOW__CORE__PLUGINS_FOLDER=str(ROOT / "plugins"),
            AIRFLOW__CORE__LOAD_EXAMPLES="False",
            AIRFLOW__LOGGING__LOGGING_LEVEL="WARNING",
        )
        sys.path.insert(0, str(ROOT / "plugins"))
        wanted = page(load())
    if not arguments.check:
        PAGE.parent.mkdir(exist_ok=True)
        PAGE.write_text(wanted)
        return 0
    given = PAGE.read_text() if PAGE.exists() else ""
    sys.stdout.writelines(
        difflib.unified_diff(given.splitlines(True), wanted.splitlines(True), str(PAGE.relative_to(ROOT)), "make docs")
    )
    if given != wanted:
        sys.exit(f"{PAGE.relative_to(ROOT)} is out of date: run make docs")
    return 0


if __name__ == "__main__":
    sys.exit(main())
