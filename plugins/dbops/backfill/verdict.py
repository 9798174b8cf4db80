"""What a run knows of a backfill when it ends, and the verdict on that.

Every verdict is fail-closed: a chunk that nobody finished, a row without an outcome, a direction that was not read, a count that is unknown
is no OK. What AWS and MySQL have said is in the reasons as it came: who shows them masks it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, get_args

from dbops.backfill.charts import Sample
from dbops.backfill.estimate import Estimate
from dbops.backfill.findings import Finding
from dbops.backfill.preflight import TypeRow
from dbops.backfill.records import (
    FAILING,
    Chunk,
    Class,
    Compared,
    Difference,
    Event,
    Plan,
    Rejected,
    Tally,
    Verification,
)
from dbops.backfill.spec import BackfillSpec
from dbops.backfill.target import TargetFacts
from dbops.reports import Verdict

CLASSES: tuple[str, ...] = get_args(Class)
MEANING: Mapping[str, str] = {
    "equal": "same content, same version",
    "target_newer": "the store has a newer write, which came by another way",
    "source_newer": "MySQL has a newer row, and the store did not get it in the time to drain: dual write and stream have both lost it",
    "missing": "the row has no item: not copied, or removed by somebody outside of the rules",
    "extra": "the item lives, its row is gone: a delete was lost, or a row was raised from the dead",
    "converter": "one version, two contents: somebody converts differently, or wrote without raising the version",
    "unversioned": "the item has no version, or one of another kind: somebody writes outside of the rules",
    "ahead": "the item's version stays above the row's, so it hides the row: the version of a row went down",
}
"""What each class says."""
REPAIR: Mapping[str, str] = {
    "source_newer": "a run with `copy: false, repair: true` writes it under the condition; then find which writer lost it",
    "missing": "a run with `copy: false, repair: true` writes it under the condition",
    "extra": "see that the stream delivers; then a run with `copy: false, repair: true, bury_extra: true` writes a tombstone in its place",
    "converter": "repair writes nothing here, as no version is newer: find the writer, correct it, raise the version of these rows. "
    "In a joined view there may be none: versions were drawn in another order than commits",
    "unversioned": "find the writer that leaves out the version; correct it, then write these items again under a version",
    "ahead": "find what lowered the version (a key inserted again from 1, a joined row deleted); raise it above the item's in MySQL",
}
"""What to do about it."""
_CHANGED = frozenset({"newer", "overtaken"})


@dataclass(frozen=True)
class Standing:
    """What a run knows of one spec when it ends; None or empty where it did not ask."""

    spec: BackfillSpec
    plan: Plan | None = None
    findings: tuple[Finding, ...] = ()
    """Of the preflight."""
    types: tuple[TypeRow, ...] = ()
    facts: TargetFacts | None = None
    estimate: Estimate | None = None
    approved_by: str | None = None
    """Who approved this very plan."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """Chunks of the plan by state."""
    tally: Tally = field(default_factory=Tally)
    chunks: tuple[Chunk, ...] = ()
    held: str = ""
    """Why the copy ended early on purpose: a pause, the window, a limit."""
    rejects: tuple[Rejected, ...] = ()
    reject_count: int | None = None
    """None: not counted, which is not 0."""
    verification: Verification | None = None
    parts: tuple[Compared, ...] = ()
    """Of the verification: chunks, segments of the store, strata of a sample."""
    differences: tuple[Difference, ...] = ()
    difference_count: int | None = None
    samples: tuple[Sample, ...] = ()
    events: tuple[Event, ...] = ()
    """Oldest first."""
    kept_by: Mapping[str, int] = field(default_factory=dict)
    """Of a roll-back: why items stay (`roll_back.RolledBack`)."""
    swept: int = 0
    """Of a roll-back: items removed whose row has gone since, so that no chunk counts them."""

    @property
    def done(self) -> int:
        """Chunks that are done."""
        return self.counts.get("done", 0)

    @property
    def refusals(self) -> list[Finding]:
        """What stands against it."""
        return [one for one in self.findings if one.stops]

    @property
    def warnings(self) -> list[Finding]:
        """What a person should know."""
        return [one for one in self.findings if not one.stops]

    @property
    def spent_usd(self) -> float | None:
        """What the copy cost by the write units that it used, at the estimate's price: reads are in the proportion of the estimate.

        An import uses none: it costs by its bytes, so by the rows that were staged.
        """
        if self.estimate is None or not self.estimate.units:
            return None
        if self.spec.engine == "import":
            return self.estimate.usd * (self.tally.written + self.tally.buried) / self.estimate.rows
        return self.estimate.usd * self.tally.units / (self.estimate.units * self.estimate.index_factor)

    @property
    def removed(self) -> int:
        """Of a roll-back: items that are gone."""
        return sum(one.removed for one in self.chunks) + self.swept

    @property
    def kept(self) -> int:
        """Of a roll-back: items that stay."""
        return sum(one.kept for one in self.chunks)


def judge(of: Standing, *, dry_run: bool = False) -> tuple[Verdict, list[str]]:
    """The verdict on a run, and its reasons, never none.

    FAILED: something is wrong, unfinished or unknown; REFUSED: it must not begin, or waits for an approval; DRY_RUN: nothing was written;
    WARNING: it is right, and a person should look; OK: every row has its item, proven in both directions.
    """
    if against := _against(of):
        return Verdict.REFUSED, against
    if dry_run:
        told = ["dry run: nothing was written to the store"]
        return Verdict.DRY_RUN, [*told, *(f"warning: {one.id}: {one.text}" for one in of.warnings)]
    doubts = _doubts(of)
    if wrong := _wrong(of):
        return Verdict.FAILED, [*wrong, *doubts]
    if doubts:
        return Verdict.WARNING, doubts
    return Verdict.OK, [
        f"all {of.plan.rows if of.plan else 0:,} rows are in the store or superseded there; compared in both directions, nothing differs"
    ]


def _against(of: Standing) -> list[str]:
    found = [f"refused: {one.id}: {one.text}; {one.fix}" for one in of.refusals]
    limits, estimate = of.spec.limits, of.estimate
    if estimate is None:
        return (
            found
            if of.plan is not None
            else [*found, "refused: there is no estimate, so the budget is not known to hold"]
        )
    if not estimate.hours <= limits.max_hours:  # NaN is over every limit
        found.append(
            f"refused: it would take {estimate.hours:,.1f} h, limits.max_hours is {limits.max_hours:g} "
            f"(limited by {estimate.limited_by}); raise what limits it, or max_hours"
        )
    if not estimate.usd <= limits.budget_usd and not of.approved_by:
        found.append(
            f"approval: it would cost {estimate.usd:,.2f} USD, limits.budget_usd is {limits.budget_usd:g}; "
            "approve this plan, or raise the budget"
        )
    return found


def _wrong(of: Standing) -> list[str]:
    if of.plan is None:
        return ["there is no plan: nothing was copied"]
    if of.plan.state in ("rolled_back", "abandoned"):
        return [f"plan {of.plan.plan_id} is {of.plan.state.replace('_', ' ')}: the store is not complete"]
    unfinished = [] if of.held else _unfinished(of, of.plan)
    return [
        *unfinished,
        *_accounts(of),
        *_rejects_wrong(of),
        *([] if unfinished or of.held else _unproven(of, of.plan)),
    ]


def _unfinished(of: Standing, plan: Plan) -> list[str]:
    if of.done == plan.chunks and sum(of.counts.values()) == plan.chunks:
        if of.spec.engine == "import" and plan.state in ("planned", "copying"):
            return [
                f"plan {plan.plan_id}: every chunk is staged, and the table is not imported: do what the task import_table says"
            ]
        return []
    states = ", ".join(f"{number:,} {state}" for state, number in sorted(of.counts.items())) or "none counted"
    return [
        f"plan {plan.plan_id} is unfinished: of {plan.chunks:,} chunks {states}; the next run goes on from its checkpoints"
    ]


def _accounts(of: Standing) -> list[str]:
    """Every row that was read has one outcome."""
    tally = of.tally
    told = (
        tally.written + tally.buried + tally.equal + tally.newer + tally.tombstones + tally.unversioned + tally.rejected
    )
    if told == tally.read:
        return []
    return [
        f"the journal counts {tally.read:,} rows read and {told:,} outcomes: rows are unaccounted for; copy these chunks again"
    ]


def _rejects_wrong(of: Standing) -> list[str]:
    allowed = of.spec.rejects
    if of.reject_count is None:
        return ["the rejected rows were not counted"]
    count = max(of.reject_count, len(of.rejects))
    if count and allowed.policy == "stop":
        return [f"{counted(count, 'row')} cannot be an item, and rejects.policy is stop"]
    if count > allowed.max_rows:
        return [
            f"{counted(count, 'row')} cannot be an item, rejects.max_rows is {allowed.max_rows:,}; the table has keys and reasons"
        ]
    return []


def _unproven(of: Standing, plan: Plan) -> list[str]:
    """What is missing for a proof, and what the proof has found."""
    proof = of.verification
    if proof is None:
        return ["the copy is done and was not verified: run again with copy: false"]
    if proof.ended_at is None:
        return ["the verification did not come to its end: clear the tasks that are red, or run again with copy: false"]
    found = _differing(proof)
    parts = {one.part for one in of.parts if one.direction == "forward"}
    if proof.mode == "full" and of.parts and len(parts) < plan.chunks:
        found.append(
            f"{len(parts):,} of {plan.chunks:,} chunks were compared: clear the tasks that are red, or run again with copy: false"
        )
    last = max((chunk.done_at for chunk in of.chunks if chunk.done_at is not None), default=None)
    if last is not None and proof.began_at < last:
        found.append(
            f"chunks were written after the verification began at {proof.began_at:%Y-%m-%d %H:%M:%S}: verify again"
        )
    if not _total(_rows(proof)) and plan.rows > (of.reject_count or 0):
        found.append("the verification compared no row")
    if of.spec.verify.reverse and "reverse" not in proof.counts:
        found.append(
            "verify.reverse is set, and the store was not read against MySQL: items without a row would not be noticed"
        )
    found += _sample_too_small(of, plan, proof)
    if not found and proof.verdict != "clean":
        found.append(
            f"the verification ended as {proof.verdict or 'unknown'}, not as clean: see its parts, and run again with copy: false"
        )
    if not found and plan.state != "verified" and not _is_sample_for_full(of, proof):
        found.append(f"the verification is clean, but the plan is {plan.state}: the run did not close it")
    return found


def _differing(proof: Verification) -> list[str]:
    found = []
    for what, counts in (("row", _rows(proof)), ("item", proof.counts.get("reverse"))):
        for name, number in sorted((counts or {}).items()):
            if number and fails(name):
                found.append(f"{counted(number, what)} {name}: {MEANING.get(name, 'a class that nobody here knows')}")
    return found


def _sample_too_small(of: Standing, plan: Plan, proof: Verification) -> list[str]:
    wanted, mode = of.spec.verify, str(proof.mode)
    if mode == "full":
        return []
    if mode != "sample":
        return [f"verification of mode {mode!r} is unknown"]
    asked, compared = min(wanted.sample_rows, plan.rows - (of.reject_count or 0)), _total(_rows(proof))
    found = [f"the sample has {compared:,} rows of {asked:,} that were asked for"] if compared < asked else []
    return found if proof.bound is not None else [*found, "the sample states no bound"]


def _doubts(of: Standing) -> list[str]:
    found = []
    if of.estimate is None:
        found.append("there is no estimate, so the cost was not compared with the budget")
    if of.held:
        found.append(
            f"the copy stopped on purpose at {of.done:,} of {of.plan.chunks if of.plan else 0:,} chunks: {of.held}"
        )
    found += [f"warning: {one.id}: {one.text}" for one in of.warnings]
    if of.reject_count:
        found.append(
            f"{counted(of.reject_count, 'row')} cannot be an item and stayed in MySQL only (allowed: {of.spec.rejects.max_rows:,})"
        )
    if of.tally.unversioned:
        found.append(
            f"{of.tally.unversioned:,} items without version were met and left as they were: somebody writes outside of the rules"
        )
    found += _weak_proof(of)
    if (
        of.estimate is not None
        and of.spent_usd is not None
        and of.spent_usd > of.spec.limits.budget_usd
        and not of.approved_by
    ):
        found.append(f"it cost {of.spent_usd:,.2f} USD, limits.budget_usd is {of.spec.limits.budget_usd:g}")
    return found


def _weak_proof(of: Standing) -> list[str]:
    proof = of.verification
    if proof is None or of.held:
        return []
    found = []
    if not of.spec.verify.reverse and "reverse" not in proof.counts:
        found.append("verify.reverse is off: items whose row is gone would not be noticed")
    if _is_sample_for_full(of, proof):
        found.append("verify.mode is full, and only a sample was compared: the plan is not verified by it")
    if proof.mode == "sample" and proof.bound is not None:
        found.append(
            f"a sample of {_total(_rows(proof)):,} rows: with 95 % confidence at most "
            f"{proof.bound:.3g} of all rows are wrong, which is no proof of none"
        )
    return found


def _is_sample_for_full(of: Standing, proof: Verification) -> bool:
    return proof.mode == "sample" and of.spec.verify.mode == "full"


def _rows(proof: Verification) -> Mapping[Any, int]:
    """Rows by class: all of them, or those of the sample."""
    return proof.counts.get("sample" if proof.mode == "sample" else "forward") or {}


def _total(counts: Mapping[Any, int] | None) -> int:
    return sum((counts or {}).values())


def judge_roll_back(of: Standing, *, dry_run: bool = False) -> tuple[Verdict, list[str]]:
    """The verdict on a roll-back, and its reasons, never none. OK: every chunk is rolled back, and no item of the plan is left."""
    if of.plan is None:
        return Verdict.FAILED, ["there is no plan to roll back"]
    if against := [f"refused: {one.id}: {one.text}; {one.fix}" for one in of.refusals]:
        return Verdict.REFUSED, against
    if dry_run:
        return Verdict.DRY_RUN, [
            f"dry run: at most {of.tally.written:,} items bear the stamp {of.plan.stamp}; those that are unchanged would be removed"
        ]
    back, chunks = of.counts.get("rolled_back", 0), of.plan.chunks
    if back != chunks or sum(of.counts.values()) != chunks:
        return Verdict.FAILED, [
            f"{back:,} of {chunks:,} chunks are rolled back; clear the task roll_back, which goes on"
        ]
    if of.plan.state != "rolled_back":
        return Verdict.FAILED, [
            f"every chunk is rolled back, but the plan is {of.plan.state}: the run did not close it"
        ]
    told = f"{of.removed:,} items removed; {of.kept:,} stay, because others have written them or they are tombstones"
    if changed := sum(number for why, number in of.kept_by.items() if why in _CHANGED):
        return Verdict.WARNING, [
            f"{changed:,} items stay though they bear the stamp: the store has changes that MySQL has not",
            told,
        ]
    return Verdict.OK, [told]


def fails(name: str) -> bool:
    """Whether a class is against the plan; one that nobody here knows is."""
    return name in FAILING or name not in CLASSES


def counted(number: int, what: str) -> str:
    """A number of things, for a sentence."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"
