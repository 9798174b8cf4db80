"""``python -m bench readers``: ways to read a MySQL table into Arrow and Parquet, all with the same result; and which of them have TLS."""

from __future__ import annotations

import datetime as dt
import json
import sys
from typing import Any

from bench import measure, source
from bench.measure import median, table
from lab import config, env
from lab.config import LabError

READERS = (
    "dbops",
    "dbops, no checksum",
    "mysqlclient cells",
    "connectorx",
    "connectorx, MD5 in MySQL",
    "connectorx, dbops text",
)
MEASURED = ("rows", "seconds", "cpu_s", "mysqld_cpu_s", "peak_rss_mb", "others_cpu_s")
TLS_SERVER = "mysql80"
CIPHER = (
    "SELECT CAST(variable_value AS CHAR) AS v FROM performance_schema.session_status WHERE variable_name = 'Ssl_cipher'"
)
TLS_OPTIONS = ("", "?ssl-mode=REQUIRED")


def bench(rows: int, rounds: int, workers: tuple[int, ...]) -> dict[str, Any]:
    """Each reader in a process of its own, `rounds` times in turn, with each number of connections."""
    now = dt.datetime.now(dt.UTC)
    print(
        f"\n== readers: {rows:,} rows of {source.FULL_NAME} on {source.SERVER}"
        f" -> Arrow -> Parquet in memory, {rounds} rounds ==",
        flush=True,
    )
    seeded = min(rows, 1_000_000)
    source.ensure_seed(seeded)
    try:
        source.make(rows, seeded, now)
        runs = [
            _run(reader, count) | {"round": number}
            for number in range(rounds)
            for count in workers
            for reader in (READERS if number % 2 == 0 else READERS[::-1])
        ]
    finally:
        source.drop()
    if len(digests := {r["digest"] for r in runs}) != 1:
        raise LabError(f"the readers do not agree on the content: {digests}")
    tls = tls_of_readers()
    _print(runs, workers, tls)
    return {"runs": runs, "tls": tls}


def _run(reader: str, workers: int) -> dict[str, Any]:
    with measure.cpu_account() as cpu:
        arguments = json.dumps({"reader": reader, "workers": workers})
        child = measure.run_child([sys.executable, "-m", "bench.reader_run"], text=arguments)
    found = json.loads(child.output.splitlines()[-1])
    others = cpu.machine - sum(cpu.services.values()) - child.cpu_s
    return {
        **found,
        "reader": reader,
        "workers": workers,
        "mysqld_cpu_s": cpu.services[source.SERVER],
        "others_cpu_s": others,
    }


def tls_of_readers() -> list[dict[str, str]]:
    """What each client answers when it is told to insist on TLS and then asked for its cipher ('' = plain text)."""
    import connectorx as cx

    from bench.reader_run import url

    found = [
        {
            "client": "connectorx",
            "asked with": options or "nothing",
            "cipher": cx.read_sql(url(TLS_SERVER, options), CIPHER, return_type="arrow").to_pydict()["v"][0],
        }
        for options in TLS_OPTIONS
    ]
    return found + [
        {"client": "dbops", "asked with": json.dumps(extra) if extra else "nothing", "cipher": _product_cipher(extra)}
        for extra in ({}, {"ssl_mode": "REQUIRED"})
    ]


def _product_cipher(extra: dict[str, str]) -> str:
    """The product's own connection function, in the lab's environment, with `extra` in the connection's extra."""
    connection = env.connections()[TLS_SERVER]
    merged = {**connection["extra"], **extra}  # type: ignore[dict-item]
    code = (
        f"from dbops import connections, mysql; print('=' + mysql.scalar(connections.mysql('bench_tls'), {CIPHER!r}))"
    )
    variables = {"AIRFLOW_CONN_BENCH_TLS": json.dumps({**connection, "extra": merged})}
    return (
        measure.run_child([sys.executable, "-c", code], variables=variables).output.splitlines()[-1].removeprefix("=")
    )


def _print(runs: list[dict[str, Any]], workers: tuple[int, ...], tls: list[dict[str, str]]) -> None:
    lines = []
    for count in workers:
        for reader in READERS:
            mine = [r for r in runs if r["reader"] == reader and r["workers"] == count]
            mid = {key: median([r[key] for r in mine]) for key in MEASURED}
            lines.append([
                reader, count, mid["rows"] / mid["seconds"], mid["seconds"], measure.spread([r["seconds"] for r in mine]), mid["cpu_s"],
                mid["mysqld_cpu_s"], int(mid["peak_rss_mb"]), mid["others_cpu_s"],
            ])  # fmt: skip
    print("\nMedians; all readers gave the same Parquet content (SHA-256 of the rows read back):")
    print(table(
        ["reader", "connections", "rows/s", "seconds", "", "client CPU s", "mysqld CPU s", "peak RSS MB", "others CPU s"], lines
    ))  # fmt: skip
    print(f"\nTLS on {config.MYSQL_SERVERS[TLS_SERVER].version}: Ssl_cipher of the session (empty = not encrypted):")
    print(
        table(
            ["client", "asked with", "Ssl_cipher"],
            [[t["client"], t["asked with"], t["cipher"] or "(empty)"] for t in tls],
        )
    )
