"""Changes into a Kinesis stream: one JSON record for one row, at least once, in the shape that DMS gives it."""

from __future__ import annotations

import datetime as dt
import json
import re
from decimal import Decimal
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from lab.dms.source import Change, Column, LostError, Transaction
from lab.dms.targets import Loaded, Mapped, Row

RECORDS = 500  # of one PutRecords
EXACT_DIGITS = 16  # a BIGINT of more is written in scientific notation, and so rounded
TYPES = {
    "tinyint": "INT8", "smallint": "INT16", "mediumint": "INT32", "int": "INT32", "bigint": "INT64", "decimal": "NUMERIC",
    "float": "REAL4", "double": "REAL8", "date": "DATE", "datetime": "DATETIME", "timestamp": "DATETIME", "time": "STRING",
    "year": "INT16", "bit": "BOOLEAN", "binary": "BYTES", "varbinary": "BYTES", "blob": "BLOB",
}  # fmt: skip
PLACE = re.compile(r"\$\{([^}]+)\}")


NUMBER = "\0number "  # marks a text that goes into the JSON as it is, without quotes


class KinesisTarget:
    """A stream as the target of one task."""

    batch = 500

    def __init__(
        self, client: Any, settings: dict[str, Any], task: str, before_image: dict[str, Any] | None = None
    ) -> None:
        """A target that has sent nothing yet.

        Args:
            client: of Kinesis
            settings: KinesisSettings of the endpoint
            task: its identifier
            before_image: BeforeImageSettings of the task
        """
        self.client, self.settings, self.task = client, settings, task
        self.image = before_image if before_image and before_image.get("EnableBeforeImage") else None
        self.transaction = Transaction()
        self.pending: list[dict[str, Any]] = []
        self.numbers, self.previous = 0, (0, 0)

    def prepare(self, mapped: Mapped, mode: str) -> None:
        self._control(mapped, "drop-table" if mode == "DROP_AND_CREATE" else "")
        self._control(mapped, "create-table")
        self.commit()

    def load(self, mapped: Mapped, rows: list[Row]) -> Loaded:
        for row in rows:
            self._record(mapped, "load", row, None, {})
        self.commit()
        return Loaded(len(rows))

    def begin(self, transaction: Transaction) -> None:
        self.transaction, self.numbers = transaction, 0

    def apply(self, mapped: Mapped, change: Change, before: Row | None, after: Row | None, tolerant: bool) -> None:
        self.numbers += 1
        identity = self.transaction.number
        details: dict[str, Any] = {"transaction-id": identity}
        if self.settings.get("IncludeTransactionDetails"):
            details["transaction-record-id"] = self.numbers
            if self.previous[0]:
                details["prev-transaction-id"], details["prev-transaction-record-id"] = self.previous
            committed = dt.datetime.fromtimestamp(self.transaction.committed_s, dt.UTC)
            details["commit-timestamp"] = committed.strftime("%Y-%m-%dT%H:%M:%S.000000Z")
            place = change.position
            details["stream-position"] = f"{place}:-1:{place.offset}:{identity}:{self.transaction.end}"
        self.previous = (identity, self.numbers)
        row = after if after is not None else before
        assert row is not None
        self._record(mapped, change.kind, row, before if change.kind == "update" else None, details)

    def ddl(self, mapped: Mapped, kind: str, statement: str) -> None:
        operation = {"alter": "change-columns", "drop": "drop-table", "truncate": "truncate-table"}.get(kind)
        if operation and self.settings.get("IncludeTableAlterOperations"):
            self._control(mapped, operation)

    def commit(self) -> None:
        while self.pending:
            batch, self.pending = self.pending[:RECORDS], self.pending[RECORDS:]
            try:
                answer = self.client.put_records(StreamARN=self.settings["StreamArn"], Records=batch)
            except (BotoCoreError, ClientError) as error:
                raise LostError(f"Failed to put records to {self.settings['StreamArn']}: {error}") from error
            if answer["FailedRecordCount"]:
                raise LostError(f"{answer['FailedRecordCount']} records were not put: {self.settings['StreamArn']}")

    def exception(self, mapped: Mapped, statement: str, error: str) -> None:
        self._put(
            "awsdms_apply_exceptions", {"metadata": self._metadata("control", "create-table", "task-id", self.task)}
        )

    def _record(self, mapped: Mapped, operation: str, row: Row, before: Row | None, details: dict[str, Any]) -> None:
        kind, value = self._partition(mapped, row, details)
        metadata = self._metadata("data", operation, kind, value)
        metadata |= {"schema-name": mapped.names.schema, "table-name": mapped.names.table, **details}
        record: dict[str, Any] = {"data": self._data(mapped, row), "metadata": metadata}
        if before is not None and self.image is not None:
            record[self.image.get("FieldName") or "before-image"] = self._before(mapped, before, row, self.image)
        self._put(value, record)

    def _before(self, mapped: Mapped, before: Row, row: Row, image: dict[str, Any]) -> dict[str, Any]:
        """What the filter lets through of the columns that the change has changed."""
        chosen = image.get("ColumnFilter", "pk-only")
        lobs = {mapped.names.columns.get(column.name) for column in mapped.table.columns if column.is_lob}
        names = {name for name in before if before[name] != row[name]} - (set() if chosen == "all" else lobs)
        if chosen == "pk-only":
            names &= set(mapped.key)
        return {name: value for name, value in self._data(mapped, before).items() if name in names}

    def _partition(self, mapped: Mapped, row: Row, details: dict[str, Any]) -> tuple[str, str]:
        given = (mapped.rule or {}).get("mapping-parameters", {})
        kind = given.get("partition-key-type", "schema-table")
        prefix = f"{mapped.names.schema}.{mapped.names.table}"
        if kind == "primary-key":
            own = ".".join(str(row[name]) for name in mapped.key) or prefix
            return kind, f"{prefix}.{own}" if self.settings.get("PartitionIncludeSchemaTable") else own
        if kind == "transaction-id":
            return kind, str(details.get("transaction-id", prefix))
        if kind == "attribute-name":
            return kind, PLACE.sub(lambda found: str(row.get(found[1])), str(given.get("partition-key-name", "")))
        return kind, str(given.get("value", "constant")) if kind == "constant" else prefix

    def _metadata(self, record: str, operation: str, kind: str, value: str) -> dict[str, Any]:
        now = dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        made = {"timestamp": now, "record-type": record, "operation": operation, "partition-key-type": kind}
        if self.settings.get("IncludePartitionValue"):
            made["partition-key-value"] = value
        return made

    def _data(self, mapped: Mapped, row: Row) -> dict[str, Any]:
        columns = {mapped.names.columns.get(each.name): each for each in mapped.table.columns}
        keep_null = self.settings.get("IncludeNullAndEmpty")
        return {name: self._value(columns[name], v) for name, v in row.items() if v is not None or keep_null}

    def _value(self, column: Column, value: Any) -> Any:
        if value is None:
            return None
        if isinstance(value, bytes):
            return value.hex() if self.settings.get("NoHexPrefix") else f"0x{value.hex()}"
        if column.data_type in {"datetime", "timestamp"}:
            return f"{value.replace(' ', 'T')}Z"
        if (
            isinstance(value, int)
            and len(str(abs(value))) > EXACT_DIGITS
            and not self.settings.get("UseLargeIntegerValue")
        ):
            return NUMBER + f"{Decimal(value):.15E}".replace("E+", "E")
        return NUMBER + str(value) if isinstance(value, Decimal) else value

    def _control(self, mapped: Mapped, operation: str) -> None:
        """A control record, which is sent only when the endpoint asks for it."""
        if not operation or not (
            self.settings.get("IncludeControlDetails") or self.settings.get("IncludeTableAlterOperations")
        ):
            return
        metadata = self._metadata("control", operation, "task-id", self.task)
        metadata |= {"schema-name": mapped.names.schema, "table-name": mapped.names.table}
        record: dict[str, Any] = {"control": {}, "metadata": metadata}
        if self.settings.get("IncludeControlDetails") and operation != "drop-table":
            columns = {
                mapped.names.columns[column.name]: {
                    "type": TYPES.get(column.data_type, "CLOB" if column.is_lob else "STRING"),
                    "nullable": column.name not in mapped.table.key,
                }
                for column in mapped.table.columns
                if column.name in mapped.names.columns
            }
            record["control"] = {"table-def": {"columns": columns, "primary-key": mapped.key}}
        self._put(self.task, record)

    def _put(self, partition: str, record: dict[str, Any]) -> None:
        text = re.sub(r'"\\u0000number ([^"]*)"', r"\1", json.dumps(record, ensure_ascii=False))
        if self.settings.get("MessageFormat") == "json-unformatted":
            text += "\n"
        self.pending.append({"Data": text.encode(), "PartitionKey": partition[:256] or " "})
