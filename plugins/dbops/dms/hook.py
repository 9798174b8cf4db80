"""How tasks and triggers of the room reach AWS, the servers and the ledger of a spec, over Airflow connections."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime
from typing import Any

from dbops import asking, connections
from dbops.dms import places, states
from dbops.dms.canary import Reader
from dbops.dms.control import Services
from dbops.dms.ledger import Ledger
from dbops.dms.spec import DmsSpec
from dbops.dms.states import Endpoint


def utc_now() -> datetime:
    """The time in UTC."""
    return datetime.now(UTC)


def services(aws_connection: str, region: str | None) -> Services:
    """Services of one account and region."""
    return Services(
        dms=connections.audited(connections.aws_client("dms", aws_connection, region)),
        cloudwatch=connections.aws_client("cloudwatch", aws_connection, region),
        ledger=Ledger.open(connections.engine(connections.STORE)),
        connect=lambda conn_id: closing(open_mysql(conn_id)),
        now=utc_now,
    )


async def async_client(service: str, spec: DmsSpec) -> Any:
    """An aiobotocore client of the spec's account and region, as an asynchronous context."""
    from airflow.providers.amazon.aws.hooks.base_aws import AwsBaseHook

    hook = AwsBaseHook(aws_conn_id=spec.aws_connection, region_name=spec.region, client_type=service)
    return await hook.get_async_conn()


def canary_reader(spec: DmsSpec, since: datetime) -> Reader:
    """Looks for the canary at the target of a spec, in what was written since a moment."""
    from dbops.dms import canary

    return canary.reader(
        spec,
        since=since,
        now=utc_now,
        connect=open_mysql,
        client=lambda service: client(service, spec),
        endpoint=existing_target(spec),
    )


def open_mysql(conn_id: str) -> Any:
    """A connection of a MySQL server, without a default schema; the caller closes it."""
    return connections.mysql(conn_id, schema="")


def client(service: str, spec: DmsSpec) -> Any:
    """A boto3 client of the spec's account and region."""
    return connections.aws_client(service, spec.aws_connection, spec.region)


def existing_target(spec: DmsSpec) -> Endpoint | None:
    """The target as AWS shows it, where the spec says no more of it than its ARN."""
    target = spec.target
    if target.kind != "existing":
        return None
    found = asking.ask(client("dms", spec), states.endpoints())
    return next((one for one in found if one.arn == target.arn), None)


def stream_arn(spec: DmsSpec) -> str:
    """ARN of the stream that a spec's task writes to."""
    return places.needed(places.target_settings(spec, existing_target(spec)), "StreamArn", spec)
