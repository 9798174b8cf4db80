"""Specs of backfills, and tables as information_schema describes them."""

from __future__ import annotations

from typing import Any

from dbops.backfill import query, source
from dbops.backfill.source import Source
from dbops.backfill.spec import BackfillSpec
from dbops.mysql import Column, Index, Table

RIDES = """
SELECT r.id, r.status, r.price, m.full_name AS member, GREATEST(r.version, COALESCE(m.version, 0)) AS version, r.is_deleted
FROM shop.rides AS r
LEFT JOIN shop.members AS m ON m.id = r.member_id
WHERE {chunk}
"""
PLAIN = "SELECT r.id, r.status, r.version FROM shop.rides AS r WHERE {chunk}"


def declared(sql: str = PLAIN, **more: Any) -> BackfillSpec:
    """A spec over shop.rides; `more` replaces whole fields, and `view` and `version` parts of them."""
    view = {"sql": sql, "table": "shop.rides", "alias": "r", **more.pop("view", {})}
    version = {"column": "version", "scope": "shared" if "JOIN" in sql else "row", **more.pop("version", {})}
    return BackfillSpec.model_validate(
        {
            "name": "rides",
            "description": "rides as items",
            "owner": "dba",
            "view": view,
            "version": version,
            "target": {"kind": "dynamodb", "table": "rides", "key": {"pk": "RIDE#{id}"}},
            "live": {"since": "2026-01-01T00:00:00Z", "applications": ["shop"], "stream": "Kinesis"},
            **more,
        }
    )


def column(
    name: str, column_type: str, *, nullable: bool = False, charset: str | None = None, scale: int = 0
) -> Column:
    """A column as information_schema describes it."""
    kind = column_type.split("(")[0].split(" ")[0]
    return Column(name, kind, column_type, nullable=nullable, charset=charset, numeric_scale=scale)


def table(name: str, *columns: Column, key: tuple[str, ...] = ("id",)) -> Table:
    """An InnoDB table of the schema shop."""
    index = Index("PRIMARY", key, unique=True, nullable=False, has_prefix=False, index_type="BTREE")
    return Table("shop", name, "InnoDB", 1000, 1 << 20, 0, 0, 100, columns, (index,))


TABLES = {
    "shop.rides": table(
        "rides",
        column("id", "bigint(20) unsigned"),
        column("tenant", "varchar(20)", charset="utf8mb4"),
        column("member_id", "bigint(20) unsigned", nullable=True),
        column("status", "enum('booked','finished')"),
        column("price", "decimal(10,2)", nullable=True, scale=2),
        column("rating", "float", nullable=True),
        column("area", "polygon", nullable=True),
        column("version", "bigint(20)"),
        column("text_version", "char(20)", charset="ascii"),
        column("loose_version", "bigint(20)", nullable=True),
        column("updated_at", "timestamp(6)"),
        column("is_deleted", "tinyint(1)"),
        column("note", "varchar(200)", nullable=True, charset="utf8mb4"),
    ),
    "shop.members": table(
        "members",
        column("id", "bigint(20) unsigned"),
        column("full_name", "varchar(100)", charset="utf8mb4"),
        column("version", "bigint(20)"),
    ),
    "shop.parts": table(
        "parts",
        column("ride_id", "bigint(20) unsigned"),
        column("code", "varchar(10)", charset="latin1"),
        column("version", "bigint(20)"),
        key=("ride_id", "code"),
    ),
}


def built(spec: BackfillSpec) -> Source:
    """The source of a spec over :data:`TABLES`."""
    form = query.parse(spec.view)
    return source.build(spec, form, {each.alias: TABLES[f"{each.schema}.{each.table}"] for each in form.tables})
