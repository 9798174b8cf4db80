"""
### s3_archive_restore

Brings archived rows back from the lake into a scratch table on the source server and proves them equal. Live rows are never touched;
keys that are live as well are listed as conflicts.

| parameter | meaning |
|---|---|
| `spec` | name of the archive spec |
| `plan_id` | one plan; empty = every plan of the spec that deleted rows, each into its own scratch table |
| `chunks` | chunk numbers of that plan (`dbops_archive.archive_chunk`); empty = all |
| `column`, `from`, `to` | half-open range `from <= column < to` on an integer, decimal, date or time column instead of chunks |

Example: `{"spec": "positions", "column": "recorded_at", "from": "2026-01-01", "to": "2026-02-01"}`

Only rows that left MySQL are restored, whatever the state of the plan; the source table need not exist any more.

The scratch table is `<restore_schema>.<table>_r<hash of the run>_<n>`, and its comment begins with `dbops restore of`; a cleared task makes
it anew, and no other table is ever replaced. Whole chunks are compared with the
checksums of the ledger, which were taken when the rows were deleted; any selection is compared with what Trino reads now.

### If this fails at 3 am

- Live rows were not touched, whatever failed. Nothing needs to be done before the morning.
- "not equal": do not use the scratch table. The report shows which plan; compare it with the lake and tell the owner of the data. A plan
  that was closed with `accept_loss` is never equal to the ledger: `dbops_archive.archive_event` (stage `loss`) says what is missing.
- Anything else: clear the task; it makes the scratch table anew. Drop scratch tables that nobody needs.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from airflow.sdk import DAG, Param

from dbops import alerting, specs
from dbops.archive import operators as archive

with DAG(
    dag_id="s3_archive_restore",
    description="Archived rows back into a scratch table, proven equal",
    doc_md=__doc__,
    schedule=None,
    start_date=datetime(2026, 1, 1),
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=timedelta(hours=20),
    default_args=alerting.default_args(execution_timeout=timedelta(hours=12)),
    on_failure_callback=alerting.dag_failure_callback(),
    tags=["archive", "mysql", "s3", "trino", "restore"],
    params={
        # Not required by the form: a DAG-level callback builds its context without conf, and would fail for want of a value.
        "spec": Param(None, type=["string", "null"], title="Spec (required)", examples=specs.names("archive")),
        "plan_id": Param(
            None, type=["string", "null"], title="Plan", description="Empty: every plan of the spec that deleted rows"
        ),
        "chunks": Param(
            [], type="array", items={"type": "integer", "minimum": 0}, title="Chunks", description="Empty: all"
        ),
        "column": Param(None, type=["string", "null"], title="Column of a range"),
        "from": Param(None, type=["string", "null"], title="From (inclusive)"),
        "to": Param(None, type=["string", "null"], title="To (exclusive)"),
    },
) as dag:
    archive.RestoreOperator(task_id="restore")
