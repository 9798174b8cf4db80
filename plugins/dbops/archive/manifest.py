"""The manifest of a finished plan: an object beside the lake that proves the archive without the source server.

It holds what the ledger knows: the source's DDL, the predicate, how every column was archived, each file with its SHA-256, and for each
chunk the checksum of the rows that left MySQL, with the Trino statement that computes it. Written once (If-None-Match), never changed.
It lies outside the table's location, where ``remove_orphan_files`` would delete it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any
from urllib.parse import urlsplit

from dbops.archive import checksum, codec, lake
from dbops.archive.checksum import Checksum
from dbops.archive.export import CHUNK_COLUMN
from dbops.archive.ledger import File, Plan

VERSION = 1


def uri(warehouse: str, plan: Plan) -> str:
    """Where the manifest of a plan belongs."""
    _, namespace, table = plan.lake
    return f"{warehouse.rstrip('/')}/_dbops/manifests/{namespace}.{table}/{plan.plan_id}.json"


def document(
    plan: Plan, files: Sequence[File], chunks: Mapping[int, Checksum], closed_at: str, *, lost: str = ""
) -> dict[str, Any]:
    """The manifest as JSON-compatible data.

    `chunks` are the checksums of the deleted rows; closed_at is ISO 8601, UTC; `lost` says which of the rows are no longer in the lake.
    """
    described = asdict(plan)
    for name in ("cutoff", "created_at"):
        described[name] = described[name].isoformat()
    return {
        "manifest_version": VERSION,
        "plan": {name: value for name, value in described.items() if name != "state"},
        "closed_at": closed_at,
        "files": [asdict(f) for f in files],
        **({"lost": lost} if lost else {}),
        "deleted_rows": {str(number): _figures(found) for number, found in sorted(chunks.items())},
        "checksum_statement": checksum.trino_statement(
            plan.lake,
            codec.trino_row_text(plan.codecs),
            lake.plan_filter(plan.plan_id),
            snapshot_id=None,
            group_by=(CHUNK_COLUMN,),
        ),
    }


def _figures(found: Checksum) -> dict[str, str]:
    # As text: a sum of 60-bit numbers and an unsigned 64-bit XOR exceed what many JSON readers keep exactly.
    return {"n": str(found.n), "nh": str(found.nh), "s": str(found.s), "x": str(found.x)}


def write(s3: Any, target: str, content: Mapping[str, Any]) -> bool:
    """Write the manifest unless it exists; returns whether this call wrote it. Raises what S3 raises otherwise."""
    where = urlsplit(target)
    try:
        s3.put_object(
            Bucket=where.netloc,
            Key=where.path.lstrip("/"),
            Body=json.dumps(content, indent=1, sort_keys=True).encode(),
            ContentType="application/json",
            IfNoneMatch="*",
        )
    except s3.exceptions.ClientError as error:
        if error.response["Error"]["Code"] in ("PreconditionFailed", "412"):
            return False
        raise
    return True
