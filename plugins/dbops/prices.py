"""Dated price files under ``include/prices``: prices come from a file that a person answers for, never from code or from AWS."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Generic, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from dbops import include_dir

STALE_DAYS = 180


class PriceError(ValueError):
    """A price is missing or the file is wrong; the text names file, field and fix."""


class Strict(BaseModel):
    """Of a price file: unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


R = TypeVar("R", bound=Strict)


class PriceFile(Strict, Generic[R]):
    """Prices by region. ``verified`` is set by whoever compared them with AWS's list on ``as_of``."""

    as_of: date
    verified: bool
    currency: str
    regions: dict[str, R]


P = TypeVar("P", bound=PriceFile)  # type: ignore[type-arg]


def load(name: str, model: type[P], path: Path | None = None) -> P:
    """Read ``include/prices/<name>.yaml``, or another file. Raises PriceError."""
    import yaml

    file = path or include_dir() / "prices" / f"{name}.yaml"
    try:
        return model.model_validate(yaml.safe_load(file.read_text(encoding="utf-8")))
    except OSError as error:
        raise PriceError(f"{file}: {error.strerror}; put the price file there") from error
    except (yaml.YAMLError, ValidationError) as error:
        raise PriceError(f"{file}: {error}; correct the price file") from error


def of_region(name: str, prices: PriceFile[R], region: str) -> R:
    """The prices of a region. Raises PriceError, which names the file to complete."""
    found = prices.regions.get(region)
    if found is None:
        known = ", ".join(prices.regions)
        raise PriceError(f"no prices of region {region!r} (known: {known}); add it to include/prices/{name}.yaml")
    return found


def doubts(prices: PriceFile[R], today: date | None) -> list[str]:
    """What to doubt of a file: nobody has compared it with AWS's list, or it is old."""
    found = [] if prices.verified else ["nobody has compared the price file with AWS's list"]
    if today is not None and (age := (today - prices.as_of).days) > STALE_DAYS:
        found.append(f"prices are {age} days old (as of {prices.as_of})")
    return found
