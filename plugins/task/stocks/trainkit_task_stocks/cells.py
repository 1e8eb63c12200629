"""Cells as numbers: currency signs, separators of thousands, decimal commas, and 1.2M understood."""

from __future__ import annotations

import polars as pl

EMPTY = ("", "-", "--", ".", "na", "n/a", "nan", "null", "none", "#n/a")
UNITS = {"k": 1e3, "m": 1e6, "b": 1e9, "t": 1e12}
# A sign or three letters (USD, GBp) may stand before or after.
SIGNS = "$€£¥₹₩₽"
NUMBER = rf"[+-]?[{SIGNS}]?\s*[\d.,'\s]*\d[\d.,'\s]*[KkMmBbTt]?"
CURRENCY = rf"^(?:[A-Za-z]{{3}}|[{SIGNS}R])?\s*({NUMBER})\s*(?:[A-Za-z]{{3}}|[{SIGNS}])?$"
POINTS = r"^[+-]?\d{1,3}(\.\d{3})+$"
THOUSANDS = r"^[+-]?\d{1,3}(,\d{3})+(\.\d*)?$"


def is_filled(cells: pl.Series) -> pl.Series:
    """Return where something is written."""
    if cells.dtype != pl.String:
        return cells.is_not_null()
    return cells.is_not_null() & ~cells.str.strip_chars().str.to_lowercase().is_in(EMPTY)


def to_numbers(cells: pl.Series, comma_is_decimal: bool = False) -> tuple[pl.Series, pl.Series]:
    """Return cells as Float64, null where they are none, and where the way they are written had to be undone.

    Args:
        cells: text, or numbers of any type.
        comma_is_decimal: whether '1.234,5' means 1234.5.
    """
    plain = pl.Series(cells.name, [False] * len(cells), dtype=pl.Boolean)
    if cells.dtype != pl.String:
        return cells.cast(pl.Float64, strict=False), plain
    direct = cells.cast(pl.Float64, strict=False)
    if not direct.null_count() and not comma_is_decimal:
        return direct, plain
    written = direct.is_null() & is_filled(cells)
    if comma_is_decimal:
        written |= cells.str.contains(POINTS).fill_null(value=False)
    if not written.any():
        return direct, plain
    bare = cells.str.extract(CURRENCY, 1).str.replace_all(rf"[\s'{SIGNS}]", "")
    if comma_is_decimal:
        bare = bare.str.replace_all(".", "", literal=True).str.replace(",", ".", literal=True)
    else:
        bare = pl.select(
            pl.when(bare.str.contains(THOUSANDS)).then(bare.str.replace_all(",", "", literal=True)).otherwise(bare)
        ).to_series()
    unit = bare.str.extract(r"([KkMmBbTt])$", 1).str.to_lowercase()
    factor = unit.replace_strict(UNITS, default=1.0, return_dtype=pl.Float64)
    understood = bare.str.replace(r"[KkMmBbTt]$", "").cast(pl.Float64, strict=False) * factor
    numbers = pl.select(pl.when(written).then(understood).otherwise(direct)).to_series().alias(cells.name)
    return numbers, written & numbers.is_not_null()


def has_decimal_commas(columns: list[pl.Series]) -> bool:
    """Return whether commas in columns of prices stand before decimals: as '12,5', never as '1,234.5'."""
    texts = [column for column in columns if column.dtype == pl.String]
    decimal = any(text.str.contains(r"^\D{0,4}\d+(\.\d{3})*,(\d{1,2}|\d{4,})\D{0,4}$").any() for text in texts)
    return decimal and not any(text.str.contains(r",.*\.").any() for text in texts)
