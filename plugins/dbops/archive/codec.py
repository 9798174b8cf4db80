"""How each MySQL type travels: one canonical text that MySQL sends, Arrow decodes, and MySQL, Trino and we hash.

For every column there are five faces: the SQL that gives its canonical text in MySQL, the Arrow type in which that text is parsed, the
step that makes the archived Arrow array, the Iceberg type, and the Trino expression that gives the same canonical text from the
archived value. Because the text that is transported is the text that is hashed, the exporter can checksum what it received without
another query, and any loss on the way to Parquet shows up when Trino hashes what it reads.

The text of a row is the columns' texts joined by ``|``, NULL as ``N``. Text and binary columns are hexadecimal, so neither character
can occur in a value, '' differs from NULL, and no collation or connection character set is involved. Long values (LOB, JSON, geometry,
wide VARCHAR) come last in the text, as their MD5, since MySQL turns a CONCAT above max_allowed_packet into NULL; the export sends
them beside the short columns' text and the MD5s are taken here, so MySQL renders each value once and what is hashed is what arrived.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from dbops.mysql import Column, Table
from dbops.sql import ident, ident_trino

if TYPE_CHECKING:
    import pyarrow as pa
    from pyiceberg.types import IcebergType

INTEGERS = {"tinyint": 3, "smallint": 5, "mediumint": 8, "int": 10, "bigint": 20}
TEXTS = {"char", "varchar", "enum", "set"}
LONG_TEXTS = {"tinytext", "text", "mediumtext", "longtext", "json"}
BINARIES = {"binary", "varbinary"}
LONG_BINARIES = {"tinyblob", "blob", "mediumblob", "longblob"}
GEOMETRIES = {
    "geometry", "point", "linestring", "polygon", "multipoint", "multilinestring", "multipolygon", "geometrycollection",
    "geomcollection",
}  # fmt: skip
DATES = {"date", "datetime", "timestamp"}
MAX_DECIMAL_PRECISION = 38  # of Iceberg, Trino and Arrow's decimal128

# A VARCHAR wider than this is sent beside the row text: 65,535 bytes would be 131,070 hexadecimal digits in every row.
_WIDE_TEXT_OCTETS = 1024

Form = Literal["plain", "hex_text", "hex_binary", "ieee754", "utc", "long_text", "long_binary"]


class UnknownType(ValueError):
    """The column's type has no exact form in the archive."""


@dataclass(frozen=True)
class Codec:
    """The five faces of one column. ``payload_sql`` is set when the value travels beside the row text."""

    name: str
    mysql_text: str
    trino_text: str
    arrow: str
    form: Form
    payload_sql: str | None = None
    nullable: bool = True

    @property
    def is_long(self) -> bool:
        """Whether the value travels beside the row text and stands in it as its MD5."""
        return self.payload_sql is not None

    @property
    def arrow_type(self) -> pa.DataType:
        """The archived Arrow type."""
        return arrow_type(self.arrow)

    @property
    def wire_type(self) -> pa.DataType:
        """The Arrow type that the canonical text is parsed as."""
        import pyarrow as pa

        if self.form == "plain":
            return self.arrow_type
        return pa.timestamp("us") if self.form == "utc" else pa.string()

    @property
    def iceberg_type(self) -> IcebergType:
        """The Iceberg type of the archived column."""
        return iceberg_type(self.arrow)

    def decode(self, wire: pa.Array) -> pa.Array:
        """The archived array from the parsed texts of a short column."""
        match self.form:
            case "utc":
                return wire.cast(self.arrow_type)
            case "hex_text" | "hex_binary":
                return _unhex(wire, self.arrow_type)
            case "ieee754":
                return _doubles(wire).cast(self.arrow_type)
            case _:
                return wire

    def decode_long(self, values: Sequence[bytes | None]) -> pa.Array:
        """The archived array from the values of a long column."""
        import pyarrow as pa

        return pa.array(values, pa.binary()).cast(self.arrow_type)


def arrow_type(name: str) -> pa.DataType:
    """The Arrow type of a short name: int32, int64, decimal(p,s), float32, float64, date32, timestamp, timestamptz, string, binary."""
    import pyarrow as pa

    if name.startswith("decimal("):
        precision, scale = (int(v) for v in name[8:-1].split(","))
        return pa.decimal128(precision, scale)
    return {
        "int32": pa.int32(),
        "int64": pa.int64(),
        "float32": pa.float32(),
        "float64": pa.float64(),
        "date32": pa.date32(),
        "timestamp": pa.timestamp("us"),
        "timestamptz": pa.timestamp("us", tz="UTC"),
        "string": pa.string(),
        "binary": pa.binary(),
    }[name]


def iceberg_type(name: str) -> IcebergType:
    """The Iceberg type of the same short name."""
    from pyiceberg import types

    if name.startswith("decimal("):
        precision, scale = (int(v) for v in name[8:-1].split(","))
        return types.DecimalType(precision, scale)
    return {
        "int32": types.IntegerType(),
        "int64": types.LongType(),
        "float32": types.FloatType(),
        "float64": types.DoubleType(),
        "date32": types.DateType(),
        "timestamp": types.TimestampType(),
        "timestamptz": types.TimestamptzType(),
        "string": types.StringType(),
        "binary": types.BinaryType(),
    }[name]


def codec_for(column: Column, *, zero_dates_as_text: bool = False, lossy_as_binary: bool = False) -> Codec:
    """The codec of a column. Raises UnknownType, with what can be done, for a type that has no exact form."""
    found = _codec_for(column, zero_dates_as_text=zero_dates_as_text, lossy_as_binary=lossy_as_binary)
    return replace(found, nullable=column.nullable)


def _codec_for(column: Column, *, zero_dates_as_text: bool, lossy_as_binary: bool) -> Codec:
    c, t, kind = ident(column.name), ident_trino(column.name), column.data_type
    if kind in INTEGERS or kind in ("year", "bit", "decimal"):
        return _number(column, c, t)
    if kind in ("float", "double"):
        # IEEE 754 bits, since the text of a FLOAT keeps 6 digits only. POINT is the one function that shows the bits.
        bits = f"SUBSTR(HEX(POINT({c}, 0)), 19, 16)"
        trino = f"to_hex(reverse(to_ieee754_64(CAST({t} AS double))))"
        return Codec(column.name, bits, trino, "float32" if kind == "float" else "float64", "ieee754")
    if kind in DATES:
        return _date(column, c, t, as_text=zero_dates_as_text)
    if kind == "time":
        return Codec(column.name, f"CAST(CAST({c} AS TIME(6)) AS CHAR)", t, "string", "plain")
    if kind in TEXTS | LONG_TEXTS:
        return _text(column, c, t, as_binary=lossy_as_binary)
    if kind in BINARIES:
        if (column.max_octets or 0) > _WIDE_TEXT_OCTETS:
            return _long(column.name, c, t, binary=True)
        return Codec(column.name, f"HEX({c})", f"to_hex({t})", "binary", "hex_binary")
    if kind in LONG_BINARIES | GEOMETRIES:
        return _long(column.name, c, t, binary=True)
    raise UnknownType(
        f"type {column.column_type} has no exact archived form; convert the column, or move it to a table that is not archived"
    )


def codecs(table: Table, *, zero_dates_as_text: Sequence[str] = (), lossy_as_binary: Sequence[str] = ()) -> list[Codec]:
    """The codecs of all columns of a table in order. Raises UnknownType naming the first column that has none."""
    as_text, as_binary = {n.lower() for n in zero_dates_as_text}, {n.lower() for n in lossy_as_binary}
    found = []
    for column in table.columns:
        try:
            found.append(
                codec_for(
                    column,
                    zero_dates_as_text=column.name.lower() in as_text,
                    lossy_as_binary=column.name.lower() in as_binary,
                )
            )
        except UnknownType as error:
            raise UnknownType(f"{table.full_name}.{column.name}: {error}") from error
    return found


def hash_order(columns: Sequence[Codec]) -> list[Codec]:
    """The order in which columns stand in the row text: short ones, then long ones."""
    return [c for c in columns if not c.is_long] + [c for c in columns if c.is_long]


def mysql_row_text(columns: Sequence[Codec]) -> str:
    """SQL of the canonical text of a row in MySQL."""
    return _mysql_text(hash_order(columns))


def mysql_short_text(columns: Sequence[Codec]) -> str:
    """SQL of the part of the canonical text that the export sends: the short columns, never empty because a key is short."""
    return _mysql_text([c for c in columns if not c.is_long])


def _mysql_text(columns: Sequence[Codec]) -> str:
    texts = (f"IFNULL({c.mysql_text}, 'N')" if c.nullable else c.mysql_text for c in columns)
    return f"CONCAT_WS('|', {', '.join(texts)})"


def append_long(texts: Sequence[bytes], payloads: Sequence[Sequence[bytes | None]]) -> list[bytes]:
    """Complete the texts of rows by the MD5s of their long values (one sequence a column, in order)."""
    md5 = hashlib.md5
    for values in payloads:
        ends = [b"|N" if v is None else b"|" + md5(v, usedforsecurity=False).hexdigest().encode() for v in values]
        texts = [text + end for text, end in zip(texts, ends, strict=True)]
    return list(texts)


def trino_row_text(columns: Sequence[Codec]) -> str:
    """SQL of the same text in Trino (array_join, because concat_ws takes 126 values at most)."""
    texts = (f"coalesce({c.trino_text}, 'N')" for c in hash_order(columns))
    return f"array_join(ARRAY[{', '.join(texts)}], '|')"


def _number(column: Column, c: str, t: str) -> Codec:
    # `+ 0` undoes ZEROFILL, which CAST alone would keep, and turns BIT and YEAR into numbers.
    plain = column.data_type not in ("bit", "year") and "zerofill" not in column.column_type.lower()
    text, trino = f"CAST({c}{'' if plain else ' + 0'} AS CHAR)", f"CAST({t} AS varchar)"
    if column.data_type == "decimal":
        precision, scale = column.numeric_precision or 10, column.numeric_scale or 0
        if precision > MAX_DECIMAL_PRECISION:
            return Codec(column.name, f"CAST({c} AS CHAR)", t, "string", "plain")
        return Codec(column.name, text, trino, f"decimal({precision},{scale})", "plain")
    if column.data_type == "bit" or (column.data_type == "bigint" and column.unsigned):
        return Codec(column.name, text, trino, "decimal(20,0)", "plain")
    wide = column.data_type == "bigint" or (column.data_type == "int" and column.unsigned)
    return Codec(column.name, text, trino, "int64" if wide else "int32", "plain")


def _date(column: Column, c: str, t: str, *, as_text: bool) -> Codec:
    if column.data_type == "date":
        text = f"CAST({c} AS CHAR)"
        return Codec(column.name, text, t, "string", "plain") if as_text else Codec(
            column.name, text, f"CAST({t} AS varchar)", "date32", "plain"
        )  # fmt: skip
    text = f"CAST(CAST({c} AS DATETIME(6)) AS CHAR)"
    if as_text:
        return Codec(column.name, text, t, "string", "plain")
    if column.data_type == "datetime":
        return Codec(column.name, text, f"CAST(CAST({t} AS timestamp(6)) AS varchar)", "timestamp", "plain")
    utc = f"CAST(CAST({t} AT TIME ZONE 'UTC' AS timestamp(6)) AS varchar)"
    return Codec(column.name, text, utc, "timestamptz", "utc")


def _text(column: Column, c: str, t: str, *, as_binary: bool) -> Codec:
    if as_binary:
        return _long(column.name, f"CAST({c} AS BINARY)", t, binary=True)
    if column.data_type in LONG_TEXTS or (column.max_octets or 0) > _WIDE_TEXT_OCTETS:
        return _long(column.name, c, t, binary=False)
    return Codec(column.name, f"HEX(CONVERT({c} USING utf8mb4))", f"to_hex(to_utf8({t}))", "string", "hex_text")


def _long(name: str, c: str, t: str, *, binary: bool) -> Codec:
    value = c if binary else f"CONVERT({c} USING utf8mb4)"
    trino = f"lower(to_hex(md5({t if binary else f'to_utf8({t})'})))"
    form: Form = "long_binary" if binary else "long_text"
    return Codec(name, f"MD5({value})", trino, "binary" if binary else "string", form, f"CAST({value} AS BINARY)")


def _text_buffers(wire: pa.Array) -> tuple[Any, memoryview]:
    """Offsets (from the array's start) and bytes of a string array."""
    import numpy as np

    offsets = np.frombuffer(wire.buffers()[1], dtype=np.int32, count=len(wire) + 1, offset=wire.offset * 4)
    data = wire.buffers()[2]
    return offsets, memoryview(data)[offsets[0] : offsets[-1]] if data is not None else memoryview(b"")


def _validity(wire: pa.Array) -> pa.Buffer | None:
    """The validity bitmap of an array that starts at offset 0."""
    return None if wire.null_count == 0 else wire.buffers()[0]


def _unhex(wire: pa.Array, to: pa.DataType) -> pa.Array:
    """Decode hexadecimal text of a whole column at once: the offsets are halved, the digits decoded in one call."""
    import numpy as np
    import pyarrow as pa

    if wire.offset:  # the bitmap of a slice does not start at a byte
        wire = pa.concat_arrays([wire])
    offsets, digits = _text_buffers(wire)
    halved = ((offsets - offsets[0]) // 2).astype(np.int32)
    data = bytes.fromhex(str(digits, "ascii"))
    buffers = [_validity(wire), pa.py_buffer(halved), pa.py_buffer(data)]
    return pa.Array.from_buffers(to, len(wire), buffers, null_count=wire.null_count)


def _doubles(wire: pa.Array) -> pa.Array:
    """Decode columns of 16 hexadecimal digits (little-endian IEEE 754) into float64."""
    import numpy as np
    import pyarrow as pa

    filled = wire.fill_null("0" * 16)
    _, digits = _text_buffers(filled)
    values = np.frombuffer(bytes.fromhex(str(digits, "ascii")), dtype="<f8")
    return pa.array(values, mask=np.asarray(wire.is_null()) if wire.null_count else None)
