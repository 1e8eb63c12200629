"""What an hour of a device costs, from a table that users can edit."""

from __future__ import annotations

import datetime
import fnmatch
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field, NonNegativeFloat, ValidationError

from trainkit.errors import UsageError, printable
from trainkit.loader.health import home
from trainkit.plan import Record

FILE = "prices.toml"
SHIPPED = Path(__file__).with_name(FILE)
MAX_BYTES = 1_000_000

Text = Annotated[str, Field(min_length=1, max_length=200)]


class Price(Record):
    """Say what an hour of a device costs.

    Args:
        device: pattern of the device's name, as in `fnmatch`; upper and lower case are the same.
        per_hour: money for one device and one hour.
        currency: of it, as USD.
        source: where the price was read.
        date: when.
    """

    device: Text
    per_hour: NonNegativeFloat
    currency: Text
    source: str = ""
    date: datetime.date | None = None

    def amount(self, seconds: float, devices: int = 1) -> float:
        """Return the money for so many seconds of so many devices."""
        return self.per_hour * devices * seconds / 3600

    def basis(self) -> str:
        """Return what an amount by this price rests on."""
        said = [f"{self.per_hour:g} {self.currency} an hour", self.source, self.date.isoformat() if self.date else ""]
        return ", ".join(part for part in said if part)


def price_table(path: Path | None = None) -> tuple[Price, ...]:
    """Return the prices in force, first match first: those of a file, the user's own, then those that come along.

    Args:
        path: a price table that goes before all; the user's own, prices.toml where trainkit remembers things, need not
            be there.

    Raises:
        UsageError: a table cannot be read, or is none.
    """
    own = own_table()
    files = [path] if path is not None else []
    files += [own] if own.is_file() else []
    return tuple(price for file in (*files, SHIPPED) for price in read_prices(file))


def own_table() -> Path:
    """Return where a user's own prices are looked for."""
    return Path(home()) / FILE


def read_prices(path: Path) -> list[Price]:
    """Return the prices of a TOML file; raise UsageError if it is none."""
    do = f"see {SHIPPED} for the form of a price table"
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UsageError(f"price table is larger than {MAX_BYTES} bytes", where=str(path), do=do)
        tables = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise UsageError(f"no price table {path}", do="check the path, or leave --prices out") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError("price table cannot be read", where=str(path), why=printable(str(error)), do=do) from None
    listed = tables.get("price")
    if not isinstance(listed, list) or set(tables) != {"price"}:
        raise UsageError("price table holds something else than [[price]] tables", where=str(path), do=do)
    prices = []
    for number, table in enumerate(listed, 1):
        try:
            prices.append(Price.model_validate(table))
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(map(str, first["loc"])) or "the table"
            raise UsageError(
                f"price table: {key}: {first['msg'].lower()}", where=f"{path}, [[price]] number {number}", do=do
            ) from None
    return prices


def price_of(device: str, prices: Sequence[Price]) -> Price | None:
    """Return the first price whose pattern matches a device's name, or None."""
    name = device.lower()
    return next((price for price in prices if fnmatch.fnmatchcase(name, price.device.lower())), None)
