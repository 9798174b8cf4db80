"""Endpoints as a spec declares them, in the words of the DMS API; a secret is only ever an ARN."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from dbops.dms.spec import Declared, KinesisEndpoint, MySqlEndpoint, S3Endpoint
from dbops.dms.states import Endpoint

Side = Literal["source", "target"]
GROUPS = {
    "mysql": "MySQLSettings", "aurora": "MySQLSettings", "mariadb": "MySQLSettings", "dynamodb": "DynamoDbSettings",
    "kinesis": "KinesisSettings", "s3": "S3Settings",
}  # fmt: skip
"""Group of settings of each engine in CreateEndpoint and DescribeEndpoints."""


@dataclass(frozen=True)
class Change:
    """One value that differs; both sides are JSON, `found` None when AWS has none."""

    path: str
    wanted: str
    found: str | None

    def __str__(self) -> str:
        return f"{self.path} becomes {self.wanted}, was {'not set' if self.found is None else self.found}"


def settings(declared: Declared) -> dict[str, Any]:
    """Settings of the endpoint's engine, those that the spec decides."""
    if isinstance(declared, MySqlEndpoint):
        own = {"SecretsManagerSecretId": declared.secret_arn, "SecretsManagerAccessRoleArn": declared.secret_role_arn}
        return {**declared.settings, **own}
    role = {"ServiceAccessRoleArn": declared.role_arn}
    if isinstance(declared, KinesisEndpoint):
        return {
            **role,
            "StreamArn": declared.stream_arn,
            "MessageFormat": "json-unformatted",
            "IncludeTransactionDetails": declared.include_transaction_details,
            "IncludeNullAndEmpty": declared.include_null_and_empty,
            "IncludeControlDetails": declared.include_control_details,
            "IncludeTableAlterOperations": declared.include_table_alter_operations,
            "PartitionIncludeSchemaTable": declared.partition_include_schema_table,
            "UseLargeIntegerValue": declared.use_large_integer_value,
        }
    if isinstance(declared, S3Endpoint):
        folder = {"BucketFolder": declared.folder} if declared.folder else {}
        return {**declared.settings, **role, "BucketName": declared.bucket, **folder}
    return role


def arguments(declared: Declared, side: Side) -> dict[str, Any]:
    """Arguments of CreateEndpoint; ModifyEndpoint takes the same with the ARN."""
    found: dict[str, Any] = {
        "EndpointIdentifier": declared.identifier,
        "EndpointType": side,
        "EngineName": declared.kind,
        GROUPS[declared.kind]: settings(declared),
    }
    if isinstance(declared, MySqlEndpoint):
        found["SslMode"] = declared.ssl_mode
        if declared.certificate_arn:
            found["CertificateArn"] = declared.certificate_arn
    return found


def diff(declared: Declared, side: Side, found: Endpoint) -> tuple[Change, ...]:
    """Values that the spec decides and AWS holds otherwise. Side and engine cannot be changed at an endpoint that exists."""
    held: Mapping[str, Any] = {
        **dict(found.settings),
        "EndpointType": found.side,
        "EngineName": found.engine,
        "SslMode": found.ssl_mode,
        "CertificateArn": found.certificate_arn,
    }
    flat = arguments(declared, side)
    wanted = {**flat.pop(GROUPS[declared.kind]), **flat}
    wanted.pop("EndpointIdentifier")
    return tuple(
        Change(key, json.dumps(value), json.dumps(held[key], default=str) if held.get(key) is not None else None)
        for key, value in sorted(wanted.items())
        if not _same(value, held.get(key))
    )


def fixed(changes: tuple[Change, ...]) -> tuple[Change, ...]:
    """Changes that AWS makes at no endpoint that exists."""
    return tuple(change for change in changes if change.path in ("EndpointType", "EngineName"))


def _same(wanted: Any, held: Any) -> bool:
    """AWS answers enumerations in its own case, and leaves out what is false."""
    if isinstance(wanted, str) and isinstance(held, str):
        return wanted == held or wanted.lower().replace("_", "-") == held.lower().replace("_", "-")
    return bool(wanted == held) or (wanted is False and held is None)
