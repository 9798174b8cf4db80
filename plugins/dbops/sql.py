"""Render the SQL files of include/sql: Jinja with strict undefined names and quoting filters.

Filters:
  ident        one MySQL identifier in back-quotes; a list or tuple gives dotted parts: `("carshare", "trips") | ident`
  ident_trino  the same for Trino, in double quotes
  lit          a MySQL literal: text, number, bytes, date or NULL (for sessions whose sql_mode lacks
  NO_BACKSLASH_ESCAPES, as ours) lit_trino    a Trino literal
Values that the driver can bind should be bound; the filters are for what cannot be (names, statements shown to people).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dbops import include_dir

if TYPE_CHECKING:
    from jinja2 import Environment

_MYSQL_ESCAPES = str.maketrans(
    {"\\": "\\\\", "'": "\\'", '"': '\\"', "\0": "\\0", "\n": "\\n", "\r": "\\r", "\x1a": "\\Z"}
)


class SqlError(ValueError):
    """A SQL file is missing, uses a value that was not given, or a value cannot be quoted."""


def render(name: str, **values: Any) -> str:
    """The text of include/sql/<name>.sql with `values`.

    Raises SqlError for an unknown file, an undefined name and a value that cannot be quoted.
    """
    from jinja2 import TemplateNotFound, TemplateSyntaxError, UndefinedError

    file = f"{name}.sql"
    folder = include_dir() / "sql"
    try:
        return _environment(folder).get_template(file).render(**values).strip()
    except TemplateNotFound as error:
        raise SqlError(
            f"{folder / str(error.name)}: no such SQL file in DBOPS_INCLUDE_DIR or include/ of the repository"
        ) from error
    except TemplateSyntaxError as error:
        raise SqlError(f"{error.filename or folder / file}:{error.lineno}: {error.message}") from error
    except UndefinedError as error:
        raise SqlError(f"{folder / file}: {error}; pass it to render({name!r}, ...)") from error


def ident(value: str | Sequence[str]) -> str:
    """Quote a MySQL identifier (1 to 64 characters); several parts are joined by dots."""
    return _parts(value, "`", 64)


def ident_trino(value: str | Sequence[str]) -> str:
    """Quote a Trino identifier; several parts are joined by dots."""
    return _parts(value, '"', 128)


def lit(value: Any) -> str:
    """A MySQL literal for None, bool, int, Decimal, str, bytes, date or datetime.

    Aware datetimes are converted to UTC, the time zone of our sessions.
    """
    return _literal(value, lambda text: text.translate(_MYSQL_ESCAPES), typed_dates=False)


def lit_trino(value: Any) -> str:
    """A Trino literal for the same types; dates become DATE '...' and TIMESTAMP '...'."""
    return _literal(value, lambda text: text.replace("'", "''"), typed_dates=True)


@lru_cache(maxsize=4)
def _environment(folder: Path) -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(folder),
        undefined=StrictUndefined,
        autoescape=False,  # noqa: S701 - SQL is not HTML; the filters quote
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"ident": ident, "ident_trino": ident_trino, "lit": lit, "lit_trino": lit_trino}
    return environment


def _parts(value: str | Sequence[str], quote: str, limit: int) -> str:
    parts = [value] if isinstance(value, str) else list(value)
    for part in parts:
        if not isinstance(part, str) or not 0 < len(part) <= limit or "\0" in part:
            raise SqlError(f"{part!r} is not an identifier: expected text of 1 to {limit} characters without NUL")
    if not parts:
        raise SqlError("no identifier given: expected at least one part")
    return ".".join(f"{quote}{part.replace(quote, quote * 2)}{quote}" for part in parts)


def _literal(value: Any, escape: Callable[[str], str], *, typed_dates: bool) -> str:
    match value:
        case None:
            return "NULL"
        case bool():
            return "TRUE" if value else "FALSE"
        case int():
            return str(value)
        case Decimal() if value.is_finite():
            return f"{value:f}"
        case str():
            return f"'{escape(value)}'"
        case bytes():
            return f"X'{value.hex()}'"
        case datetime():
            naive = value.astimezone(UTC).replace(tzinfo=None) if value.tzinfo else value
            return f"{'TIMESTAMP ' if typed_dates else ''}'{naive.isoformat(sep=' ')}'"
        case date():
            return f"{'DATE ' if typed_dates else ''}'{value.isoformat()}'"
    kind = type(value).__name__
    raise SqlError(
        f"{value!r} of type {kind} has no SQL literal; allowed: None, bool, int, Decimal, str, bytes, date, datetime"
    )
