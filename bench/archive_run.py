"""One s3_archive run in one process: the functions that the DAG's operators call, in their order, each timed.

Started by bench.archive in the lab's Airflow environment; reads its arguments as JSON from stdin, prints a JSON object.
"""

from __future__ import annotations

import datetime as dt
import json
import sys
import time
from contextlib import closing, suppress
from typing import Any

from bench import measure, source
from dbops.archive import operators, steps
from dbops.archive.ledger import SCHEMA, Ledger
from dbops.archive.spec import ArchiveSpec


def spec() -> ArchiveSpec:
    """The spec that is shipped for carshare.positions, over the bench's copy of the table."""
    from dbops import specs

    shipped = specs.load("archive", "positions", ArchiveSpec)
    return shipped.model_copy(update={"name": source.TABLE, "table": source.TABLE})


def run(now: dt.datetime) -> dict[str, Any]:
    """Plan, export, publish, verify, purge."""
    archived = spec()
    services = operators.build_services(archived, run="bench/archive")
    stages: list[dict[str, Any]] = []
    # The DAG's first task; it also brings in every library, whose load time is not what is compared.
    refusals = steps.check(services, archived, purging=True)
    assert not refusals, [*map(str, refusals)]
    with closing(services.source()) as conn:
        left_over = Ledger(conn).open_plan(archived.full_name)
    if left_over:  # of a bench that was broken off
        forget(left_over.plan_id)
    cpu = time.process_time()

    def timed(stage: str, work: Any) -> Any:
        began = time.monotonic()
        result = work()
        stages.append({"stage": stage, "seconds": time.monotonic() - began, "peak_rss_mb": measure.peak_rss_mb()})
        return result

    planned = timed("plan", lambda: steps.make_plan(services, archived, now, dry_run=False, abandon_open=True))
    assert planned.plan is not None, [*map(str, planned.refusals), *planned.notes]
    plan_id, spans = planned.plan.plan_id, steps.groups(planned.chunks)
    timed("export", lambda: [steps.export_group(services, archived, plan_id, span) for span in spans])
    timed("publish", lambda: steps.publish_plan(services, plan_id))
    timed("verify", lambda: [steps.verify_group(services, plan_id, span) for span in spans])
    purged = timed(
        "purge",
        lambda: [steps.purge_group(services, archived, plan_id, span, confirm=archived.full_name) for span in spans],
    )
    client_cpu = time.process_time() - cpu
    found = steps.reconcile(services, plan_id)
    return {
        "plan_id": plan_id,
        "rows": planned.rows,
        "purged": sum(moved.rows for moved, _ in purged),
        "changed": sum(len(outcome.changed) for _, outcome in purged),
        "transactions": sum(outcome.transactions for _, outcome in purged),
        "lake_rows": found.lake_rows,
        "parquet_bytes": found.file_bytes,
        "problems": found.problems,
        "closed": found.closed,
        "stages": stages,
        "client_cpu_s": client_cpu,
    }


def forget(plan_id: str) -> None:
    """Remove what a run left in the lake and in the ledger."""
    from urllib.parse import urlsplit

    from pyiceberg.exceptions import NoSuchTableError

    services = operators.build_services(spec(), run="bench/archive")
    catalog, name = services.catalog(), (spec().target.namespace, spec().target_table)
    warehouse = urlsplit(str(catalog.properties["warehouse"]))
    root = warehouse.path.strip("/")
    prefixes = [f"{root}/_dbops/manifests/{'.'.join(name)}/"]
    with suppress(NoSuchTableError):
        prefixes.append(urlsplit(catalog.load_table(name).location()).path.strip("/") + "/")
        catalog.drop_table(name)
    s3 = services.s3()
    for prefix in prefixes:
        for page in s3.get_paginator("list_objects_v2").paginate(Bucket=warehouse.netloc, Prefix=prefix):
            if keys := [{"Key": entry["Key"]} for entry in page.get("Contents", ())]:
                s3.delete_objects(Bucket=warehouse.netloc, Delete={"Objects": keys, "Quiet": True})
    conn = services.source()
    with conn.cursor() as cursor:
        for table in ("refusal", "event", "batch", "file", "chunk", "plan"):
            cursor.execute(f"DELETE FROM {SCHEMA}.archive_{table} WHERE plan_id = %s", (plan_id,))
    conn.close()


def main() -> None:
    """Run, clean up, print."""
    arguments = json.load(sys.stdin)
    result = run(dt.datetime.fromisoformat(arguments["now"]))
    forget(result["plan_id"])
    print(json.dumps(result))


if __name__ == "__main__":
    main()
