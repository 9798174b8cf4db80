"""Tasks of the simulated DMS from MySQL 5.7 to MySQL 8.0: full load, changes, and what survives a kill."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lab import dms_kit
from tests.lab.dms_kit import Dms

pytestmark = pytest.mark.lab

TYPES = """CREATE TABLE {s}.t (
  id BIGINT UNSIGNED PRIMARY KEY AUTO_INCREMENT, i INT, tu TINYINT UNSIGNED, m MEDIUMINT, d DECIMAL(30,10), f FLOAT, g DOUBLE,
  c CHAR(10), v VARCHAR(100), l VARCHAR(20) CHARACTER SET latin1, x TEXT, b BLOB, vb VARBINARY(20), fb BINARY(8), e ENUM('a','b''c'),
  z SET('x','y','z'), dt DATETIME(6), ts TIMESTAMP NULL, da DATE, ti TIME(3), y YEAR, bt BIT(12), j JSON)"""
ROW = (
    "INSERT INTO {s}.t VALUES ({id}, -5, 255, -8388608, 12345678901234567890.0123456789, 0.1, 1e-300, 'pad', 'zwölf €', "
    "'Grüße', REPEAT('x', 100), x'00ff10', x'', x'01', 'b''c', 'x,z', '2024-02-29 23:59:59.123456', '2024-03-31 02:30:00', "
    "'0000-00-00', '-838:59:59.000', 1901, b'101010101010', '{{\"k\": [1, \"ü\", null], \"aa\": {{\"b\": 1.5}}}}')"
)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dms]:
    with dms_kit.account(tmp_path_factory.mktemp("dms")) as made:
        yield made


def test_a_full_load_and_the_changes_after_it_end_in_the_same_rows(lab: Dms) -> None:
    schema = lab.schema(TYPES)
    lab.write(
        "SET sql_mode = ''", ROW.format(s=schema, id=18446744073709551000), f"INSERT INTO {schema}.t (i) VALUES (NULL)"
    )
    task = lab.task(schema)
    lab.run(task)
    lab.replicating(task)
    assert lab.differences(schema, "t") == []
    lab.write(
        "SET sql_mode = ''",
        ROW.format(s=schema, id=7),
        f"UPDATE {schema}.t SET v = 'changed', z = '', f = 16777217, dt = '0000-00-00' WHERE id = 18446744073709551000",
        f"INSERT INTO {schema}.t (i, e) VALUES (1, ''), (2, 'a')",
        f"UPDATE {schema}.t SET id = id + 100 WHERE i = 2",
        f"DELETE FROM {schema}.t WHERE i IS NULL",
    )
    lab.until(lambda: lab.differences(schema, "t") == [])
    table = lab.table(task)
    assert (table["TableState"], table["FullLoadRows"], table["Inserts"]) == ("Table completed", 2, 3)
    assert (table["AppliedInserts"], table["AppliedUpdates"], table["AppliedDeletes"]) == (3, 2, 1)
    stopped = lab.stop(task)
    assert (stopped["Status"], stopped["StopReason"]) == ("stopped", "Stop Reason NORMAL")
    assert stopped["RecoveryCheckpoint"].startswith("checkpoint:V1#")
