"""Compare the rows of tables whose load has ended, and keep what was found."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dbops import asking
from dbops.dms import account, control, reconcile, states
from dbops.dms.mappings import Table
from dbops.dms.reconcile import Comparison
from dbops.dms.spec import RELATIONAL, DmsSpec

if TYPE_CHECKING:
    from collections.abc import Callable

    from dbops.dms.control import Services


def due(services: Services, spec: DmsSpec) -> tuple[Table, ...]:
    """Tables whose load has ended since their rows were compared last, by the table's own times."""
    held = asking.ask(services.dms, account.one(spec))
    task = held.task(spec)
    if not task.arn:
        return ()
    return control.to_compare(services, spec, task, asking.ask(services.dms, states.statistics(task)))


def compare(
    services: Services,
    spec: DmsSpec,
    run: str,
    tables: tuple[Table, ...],
    client: Callable[[str], Any],
    endpoint: Any = None,
) -> tuple[Comparison, ...]:
    """Compare, one table after another; each is kept as soon as it is known, so a run that dies does not begin anew.

    Args:
        services: how servers and ledger are reached
        spec: of the task
        run: for the event log
        tables: of the source
        client: name of a service -> a boto3 client, for targets that are no MySQL
        endpoint: the target as AWS shows it, where the spec names an existing one
    """
    found = []
    with services.connect(spec.connection) as source:
        if spec.target_engine in RELATIONAL:
            if spec.target_connection is None:
                found = [_impossible(table) for table in tables]
                services.ledger.save_comparison(spec.name, found, services.now())
            else:
                with services.connect(spec.target_connection) as target:
                    found = _each(services, spec, run, tables, source, target, endpoint)
        else:
            target = client(spec.target_engine)
            found = _each(services, spec, run, tables, source, target, endpoint)
    return tuple(found)


def _impossible(table: Table) -> Comparison:
    return reconcile.not_comparable(
        table, "target_connection is empty: name the Airflow connection of the target in the spec"
    )


def _each(
    services: Services, spec: DmsSpec, run: str, tables: tuple[Table, ...], source: Any, target: Any, endpoint: Any
) -> list[Comparison]:
    found: list[Comparison] = []
    for table in tables:
        begun = services.now()
        (one,) = reconcile.compare(spec, [table], source=source, target=target, endpoint=endpoint)
        services.ledger.save_comparison(spec.name, [one], begun)
        text = f"{one.status} {one.reason}".rstrip()
        services.ledger.note(spec.name, run, "comparison", text, subject=str(table))
        found.append(one)
    return found


def text(one: Comparison) -> str:
    """A comparison in one line."""
    counts = f"{one.source_rows} rows at the source, {one.target_rows} at the target"
    classes = f"{one.missing} missing, {one.extra} extra, {one.differing} differing"
    sample = f"; {', '.join(one.sample[:3])}" if one.sample else ""
    return f"table {one.table}: {one.status}; {counts}; {classes}{sample}{f'; {one.reason}' if one.reason else ''}"
