"""``python -m bench inventory``: the log reader against pt-query-digest on the same log, and the analysis of ten thousand digests."""

from __future__ import annotations

import json
import random
import re
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import measure, slow_log
from bench.measure import median, table
from lab.config import LabError

OURS, PT = "query_inventory", "pt-query-digest"
TARGET_RATIO = 5.0
DIGESTS, DIGEST_LIMIT_S = 10_000, 10.0
DIGEST_SERVER = "mysql80"
NOTHING = "(none)"

# pt-query-digest's own function, called for every event; it must give the classes of the report, which is checked.
PT_EACH = """do {
  $main::dbops_qr ||= QueryRewriter->new(QueryParser => QueryParser->new());
  my $class = $main::dbops_qr->fingerprint($event->{arg});
  $class =~ s/[ \\t\\r\\n]+/ /g;
  print "$class\\n";
  1
}"""


def bench(entries: int, pairs: int) -> dict[str, Any]:
    """Measure `pairs` alternating pairs on one log, compare what the tools hold for one statement, analyse digests; print all of it."""
    with tempfile.TemporaryDirectory(prefix="bench-inventory-") as folder:
        log = Path(folder) / "slow.log"
        shapes = slow_log.write(log, entries)
        print(
            f"\n== inventory: a slow log of {entries:,} entries, {log.stat().st_size / 1e6:.0f} MB, {shapes:,} different statements;"
            f" {pairs} pairs, alternating ==",
            flush=True,
        )
        runs: list[dict[str, Any]] = []
        for pair in range(pairs):
            for run in (run_ours, run_pt) if pair % 2 == 0 else (run_pt, run_ours):
                runs.append(run(log, entries) | {"pair": pair})
                print(
                    f"{runs[-1]['tool']:<16}{runs[-1]['seconds']:>7.2f} s  RSS {runs[-1]['peak_rss_mb']} MB", flush=True
                )
        _print_runs(runs, entries)
        agreement = compare(log, Path(folder), entries)
        _print_agreement(agreement)
        analysed = run_analyse(Path(folder))
        _print_analysed(analysed)
    return {"entries": entries, "shapes": shapes, "runs": runs, "agreement": agreement, "analysed": analysed}


def run_ours(log: Path, entries: int) -> dict[str, Any]:
    """The product; seconds are those of reading, fingerprinting and adding up, without the start of Python."""
    child = _child({"what": "aggregate", "log": str(log)})
    found = json.loads(child.output.splitlines()[-1])
    if found["entries"] != entries or found["executions"] + found["admin"] != entries or found["gaps"]:
        raise LabError(f"{OURS} did not read the log that was written ({entries} entries): {found}")
    return {
        **found,
        "tool": OURS,
        "whole_s": child.seconds,
        "whole_cpu_s": child.cpu_s,
        "peak_rss_mb": child.peak_rss_mb,
    }


def run_pt(log: Path, entries: int) -> dict[str, Any]:
    """pt-query-digest with every class in its report; seconds are those of the process."""
    child = measure.run_child([PT, "--limit", "100%", str(log)])
    if f"{entries / 1000:.2f}k total" not in child.output and entries >= 1000:
        raise LabError(f"{PT} did not read {entries} entries:\n{child.output[:1000]}")
    return {
        "tool": PT,
        "seconds": child.seconds,
        "whole_s": child.seconds,
        "whole_cpu_s": child.cpu_s,
        "peak_rss_mb": child.peak_rss_mb,
    }


def _child(arguments: Mapping[str, Any]) -> measure.Child:
    return measure.run_child([sys.executable, "-m", "bench.inventory_run"], text=json.dumps(arguments))


# -- one statement for both tools? --------------------------------------------------------------------------------------------


@dataclass
class Edge:
    """What both tools say of the same entries: our normalised statement, pt's class, how many entries, one text."""

    ours: str
    theirs: str
    text: str
    entries: int = 0


@dataclass
class Agreement:
    """How the two divisions of one log relate."""

    ours: int
    theirs: int
    same: int
    """Classes with exactly the same entries in both."""
    same_entries: int
    split: dict[str, list[int]] = field(default_factory=lambda: defaultdict(lambda: [0, 0]))
    """Cause -> [classes that pt-query-digest has more, entries in them]."""
    merged: dict[str, list[int]] = field(default_factory=lambda: defaultdict(lambda: [0, 0]))
    """Cause -> [classes that we have more, entries in them]."""
    examples: dict[str, list[str]] = field(default_factory=dict)


def compare(log: Path, folder: Path, entries: int) -> dict[str, Any]:
    """Bring both tools' classes together entry by entry and explain every difference."""
    each = folder / "each.jsonl"
    _child({"what": "each", "log": str(log), "to": str(each)})
    theirs = pt_classes(log)
    with each.open() as lines:
        edges: dict[tuple[str, str], Edge] = {}
        for number, line in enumerate(lines):
            _, normal, text = json.loads(line)
            edges.setdefault((normal, theirs[number]), Edge(normal, theirs[number], text)).entries += 1
    if len(theirs) != entries or sum(edge.entries for edge in edges.values()) != entries:
        raise LabError(f"{entries} entries, but {PT} gave {len(theirs)} classes and we {number + 1}")
    reported = json.loads(measure.run_child([PT, "--limit", "100%", "--output", "json", str(log)]).output)["classes"]
    if (mine := len(set(theirs))) != len(reported):
        raise LabError(f"{PT} reports {len(reported)} classes, but its function gives {mine}")
    return vars(explain(list(edges.values()), folder))


def pt_classes(log: Path) -> list[str]:
    """pt-query-digest's class of every entry, in the log's order."""
    return measure.run_child([PT, "--no-report", "--filter", PT_EACH, str(log)]).output.split("\n")[:-1]


def explain(edges: list[Edge], folder: Path) -> Agreement:
    """Count the classes that agree, and give every other one a cause."""
    of_ours, of_theirs = _by(edges, lambda e: e.ours), _by(edges, lambda e: e.theirs)
    one = [e for e in edges if len(of_ours[e.ours]) == 1 and len(of_theirs[e.theirs]) == 1]
    found = Agreement(len(of_ours), len(of_theirs), len(one), sum(e.entries for e in one))
    pairs = [(most, other) for group in of_ours.values() for most, *others in [_ranked(group)] for other in others]
    for (_, other), cause in zip(pairs, _causes_of_split(pairs, folder), strict=True):
        _count(found, found.split, cause, other)
    for group in of_theirs.values():
        most, *others = _ranked(group)
        for other in others:
            _count(found, found.merged, _cause_of_merge(most, other), other)
    return found


def _by(edges: Iterable[Edge], key: Callable[[Edge], str]) -> dict[str, list[Edge]]:
    groups: dict[str, list[Edge]] = defaultdict(list)
    for edge in edges:
        groups[key(edge)].append(edge)
    return groups


def _ranked(group: list[Edge]) -> list[Edge]:
    return sorted(group, key=lambda e: (-e.entries, e.ours, e.theirs))


def _count(found: Agreement, causes: dict[str, list[int]], cause: str, edge: Edge) -> None:
    causes[cause][0] += 1
    causes[cause][1] += edge.entries
    found.examples.setdefault(cause, [edge.text[:300], edge.theirs[:300], edge.ours[:300]])


_STRING = re.compile(r"""(`[^`]*`|/\*.*?\*/|--\s[^\n]*)|'(?:[^'\\]|\\.|'')*'|"(?:[^"\\]|\\.|"")*\"""", re.DOTALL)


def _plain_strings(text: str) -> str:
    """Every string replaced by 'x'."""
    return _STRING.sub(lambda match: match[1] or "'x'", text)


# A cause is a change of the text after which pt-query-digest itself holds the two for one statement.
SPLITS: tuple[tuple[str, Callable[[str], str]], ...] = (
    ("names in back-quotes are other names for pt", lambda text: text.replace("`", "")),
    ("pt misreads a string ('' or \\ or a comment sign or the other quote in it)", _plain_strings),
    ("both: back-quotes, and a misread string", lambda text: _plain_strings(text.replace("`", ""))),
    (
        "pt keeps the blank that a comment leaves behind",
        lambda text: re.sub(r"\s*/\*.*?\*/\s*$", "", text, flags=re.DOTALL),
    ),
)
# A cause is a change of our normalised statement after which the two are one.
MERGES: tuple[tuple[str, Callable[[str], str]], ...] = (
    ("pt takes digits in names for values", lambda normal: re.sub(r"\d+", "?", normal)),
    ("pt drops the arguments of CALL", lambda normal: re.sub(r"^(call \S+) .*", r"\1", normal)),
    (
        "pt drops what follows the first row of a multi-row INSERT",
        lambda normal: re.sub(r"^(insert .*? values \( .*? \)).*", r"\1", normal),
    ),
    ("pt drops ASC", lambda normal: re.sub(r" asc\b", "", normal)),
    ("pt takes TRUE and FALSE for values", lambda normal: re.sub(r"\b(?:true|false)\b", "?", normal)),
)


def _causes_of_split(pairs: list[tuple[Edge, Edge]], folder: Path) -> list[str]:
    """pt-query-digest is asked about the changed texts of all pairs at once."""
    texts = [change(edge.text) for pair in pairs for _, change in SPLITS for edge in pair]
    asked = folder / "changed.log"
    with asked.open("w") as file:
        for text in texts:
            file.write(
                "# Time: 2026-07-01T00:00:00.000000Z\n# User@Host: a[a] @  [10.0.0.1]  Id: 1\n"
                "# Query_time: 0.000001  Lock_time: 0.000000 Rows_sent: 0  Rows_examined: 0\nSET timestamp=1782864000;\n"
                + text
                + ";\n"
            )
    answers = iter(pt_classes(asked)) if texts else iter(())
    causes = []
    for _ in pairs:
        same = [(name, next(answers) == next(answers)) for name, _ in SPLITS]
        causes.append(next((name for name, equal in same if equal), NOTHING))
    return causes


def _cause_of_merge(most: Edge, other: Edge) -> str:
    return next((name for name, change in MERGES if change(most.ours) == change(other.ours)), NOTHING)


# -- ten thousand digests -----------------------------------------------------------------------------------------------------


def run_analyse(folder: Path) -> dict[str, Any]:
    """Digest texts as MySQL 8.0 itself prints them, each different, through the parser."""
    path = folder / "digests.txt"
    path.write_text("\n".join(digests(DIGESTS)))
    child = _child({"what": "analyse", "digests": str(path)})
    return {**json.loads(child.output.splitlines()[-1]), "peak_rss_mb": child.peak_rss_mb}


def digests(count: int) -> list[str]:
    """So many different digest texts, by STATEMENT_DIGEST_TEXT of the lab's MySQL 8.0."""
    from lab import mysql

    rng, found, number = random.Random(7), dict[str, None](), 0
    repeated = [make(rng) for make in slow_log.statements()]
    texts = [text for text in repeated if not text.startswith("#")]
    with closing(mysql.root_connection(DIGEST_SERVER, "mysql")) as conn, conn.cursor() as cursor:
        while len(found) < count:
            text = texts.pop() if texts else slow_log.once(rng, number)
            cursor.execute("SELECT STATEMENT_DIGEST_TEXT(%s)", (text,))
            found[cursor.fetchone()[0]] = None
            number += 1
    return [*found]


# -- printing -----------------------------------------------------------------------------------------------------------------


def _print_runs(runs: list[dict[str, Any]], entries: int) -> None:
    by_tool = {tool: [r for r in runs if r["tool"] == tool] for tool in (OURS, PT)}

    def mid(tool: str, what: str) -> float:
        return median([r[what] for r in by_tool[tool]])

    print("\nMedians (smallest-largest); 'process' is the whole process with the start of its interpreter:")
    print(table(
        ["tool", "seconds", "", "entries/s", "process s", "CPU s", "peak RSS MB"],
        [[t, mid(t, "seconds"), measure.spread([r["seconds"] for r in by_tool[t]]), entries / mid(t, "seconds"), mid(t, "whole_s"),
          mid(t, "whole_cpu_s"), int(mid(t, "peak_rss_mb"))] for t in by_tool],
    ))  # fmt: skip
    for what, of in (("seconds", "entries/s"), ("whole_s", "whole processes"), ("whole_cpu_s", "CPU seconds")):
        ratios = [theirs[what] / ours[what] for ours, theirs in zip(by_tool[OURS], by_tool[PT], strict=True)]
        target = (
            f"; target {TARGET_RATIO}: {'reached' if median(ratios) >= TARGET_RATIO else 'not reached'}"
            if what == "seconds"
            else ""
        )
        print(f"ratio of {of}, {OURS} : {PT} = {median(ratios):.2f} (pairs {measure.spread(ratios)}){target}")


def _print_agreement(found: Mapping[str, Any]) -> None:
    print(
        f"\nDifferent statements: {found['ours']:,} for {OURS}, {found['theirs']:,} for {PT};"
        f" {found['same']:,} with exactly the same entries ({found['same_entries']:,} entries). The rest by cause:"
    )
    for title, causes in (
        ("one of ours is several of pt's", found["split"]),
        ("one of pt's is several of ours", found["merged"]),
    ):
        rows = [[name, classes, entries] for name, (classes, entries) in sorted(causes.items())]
        print(table([title, "classes more", "entries"], rows or [["(nowhere)", 0, 0]]))
    if NOTHING in found["split"] or NOTHING in found["merged"]:
        raise LabError("a difference has no documented cause:\n" + "\n".join(found["examples"][NOTHING]))


def _print_analysed(found: Mapping[str, Any]) -> None:
    print(
        f"\n{found['digests']:,} different digests of MySQL 8.0 analysed in {found['seconds']:.2f} s"
        f" ({found['digests'] / found['seconds']:,.0f}/s, RSS {found['peak_rss_mb']} MB); limit {DIGEST_LIMIT_S} s:"
        f" {'kept' if found['seconds'] < DIGEST_LIMIT_S else 'EXCEEDED'}; {dict(Counter(found['methods']).most_common())}"
    )
