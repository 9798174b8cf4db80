"""What is probed beside the writer: the reader endpoint of a cluster that has readers, and where blue's name leads."""

from __future__ import annotations

import json

import pytest

from dbops.blue_green import blue, results
from dbops.blue_green.recording import SECOND, Attempt, Recording

CLUSTER = {
    "DBClusterIdentifier": "c", "DbClusterResourceId": "cluster-1", "DBClusterArn": "arn:aws:rds:r:1:cluster:c", "Endpoint": "c.example",
    "ReaderEndpoint": "c-ro.example", "Port": 3306, "EngineVersion": "5.7", "DBClusterParameterGroup": "g",
}  # fmt: skip


def member(name: str, is_writer: bool) -> dict[str, object]:
    return {
        "DBInstanceIdentifier": name, "DbiResourceId": f"db-{name}", "DBInstanceArn": f"arn:aws:rds:r:1:db:{name}",
        "Endpoint": {"Address": f"{name}.example", "Port": 3306}, "IsWriter": is_writer,
    }  # fmt: skip


@pytest.mark.parametrize(("names", "reader"), [(("w",), None), (("w", "r"), ("c-ro.example", 3306))])
def test_a_cluster_has_a_reader_endpoint_worth_probing_when_it_has_readers(
    names: tuple[str, ...], reader: object
) -> None:
    side = blue.to_side({**CLUSTER, "Members": [member(name, name == "w") for name in names]}, True)
    assert side.reader == reader
    assert blue.side(json.loads(json.dumps(side.document()))) == side


def test_a_name_that_leads_elsewhere_is_told_once_for_each_change() -> None:
    servers = ["10.0.0.1", "10.0.0.1", None, "10.0.0.2", "10.0.0.2"]
    looks = tuple(Attempt(n, n * SECOND, None, n * SECOND + 1, 0 if s else -1, s) for n, s in enumerate(servers))
    seen = Recording(
        "r",
        SECOND,
        {"blue_resolve": looks},
        {"blue_resolve": "resolve"},
        ((0, "attempt 1"), (3 * SECOND, "after")),
        {},
        0,
        True,
    )
    assert [(a["phase"], a["address"]) for a in results.addresses(seen)] == [
        ("attempt 1", "10.0.0.1"), ("attempt 1", ""), ("after", "10.0.0.2"),
    ]  # fmt: skip
