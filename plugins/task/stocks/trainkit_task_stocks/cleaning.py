"""Cleaning of bars: every rule asked, what breaks it dropped, repaired or refused, and all of it told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import polars as pl
from trainkit.errors import DataError
from trainkit.tables import counted, listed

from .bars import PRICES, Bars, Flags, Numbers, Remark
from .faults import find_faults
from .mending import Fault, mended, scaled, shown
from .repair import MOST_FILLED, fill, widened
from .rules import broken, duplicate_time, gap, jump, missing_bars, stale

Policy = Literal["repair", "drop", "raise"]
BAR_RULES = {
    "not a number": "a price or the volume is missing or no number",
    "not above 0": "a price is 0 or less",
    "high below open or close": "the high is below the open or the close",
    "low above open or close": "the low is above the open or the close",
    "high below low": "the high is below the low",
    "negative volume": "the volume is below 0",
}
MISSING_RULES = ("not a number", "not above 0", "negative volume")
MOST_PASSES = 5
LEFT_OUT = "left out"
ABOUT_EQUAL = 0.01


@dataclass(frozen=True)
class Limits:
    """Hold the thresholds of rules.

    Args:
        gap: most bars that may be missing without a remark.
        stale: most bars without range, volume and change of price without a remark.
        sigmas: robust deviations above which a return is a jump.
        filled: most missing bars in a row that are filled.
    """

    gap: int = 5
    stale: int = 5
    sigmas: float = 8.0
    filled: int = MOST_FILLED


def clean(
    bars: Sequence[Bars], policy: Policy = "repair", limits: Limits | None = None
) -> tuple[list[Bars], list[Remark]]:
    """Return bars that keep every rule, and what was found and done, each row of it.

    Args:
        bars: as `read_bars` returns them, in order of time.
        policy: 'repair' mends what can be mended and leaves out the rest, 'drop' leaves out every row with a fault,
            'raise' refuses them. Jumps, stale runs and gaps are told and stay under each.
        limits: thresholds.

    Raises:
        DataError: rows have faults and the policy is 'raise'; or no row is left.
    """
    limits = limits or Limits()
    kept, remarks = without_twins(bars)
    kept, said = without_rivals(kept)
    remarks += said
    cleaned = []
    for some in kept:
        result, said = clean_symbol(some, "drop" if policy == "raise" else policy, limits)
        remarks += said
        if len(result):
            cleaned.append(result)
        else:
            text = f"{some.symbol} has no usable row among {len(some)}"
            remarks.append(Remark("no usable row", some.name, text, LEFT_OUT, (), some.header_lines))
    if policy == "raise":
        refuse(remarks)
    if not cleaned:
        first = next((remark for remark in remarks if remark.is_fault), None)
        raise DataError(
            "there is no usable row",
            where=listed([some.name for some in bars]),
            why=first.finding().text if first else "",
            do="look at the file, or take another",
        )
    return cleaned, remarks


def refuse(remarks: Sequence[Remark]) -> None:
    """Raise DataError if there is a fault, with the first place and the count of each rule."""
    faults = [remark for remark in remarks if remark.is_fault]
    if not faults:
        return
    rows = {(fault.name, row) for fault in faults for row in fault.rows}
    files = {fault.name for fault in faults}
    rules = {rule: sum(len(r.rows) for r in faults if r.rule == rule) for rule in dict.fromkeys(r.rule for r in faults)}
    raise DataError(
        f"{counted(len(rows), 'row')} of {counted(len(files), 'file')} break the rules" if rows else faults[0].text,
        where=faults[0].place,
        why=f"{faults[0].text}; in all: " + ", ".join(f"{rule} {count or ''}".strip() for rule, count in rules.items()),
        do="mend them, or let them be mended or left out: --set task.policy=repair or drop",
    )


def without_twins(bars: Sequence[Bars]) -> tuple[list[Bars], list[Remark]]:
    """Return bars without those whose times and prices are all those of others before them, and what was left out."""
    seen: dict[bytes, Bars] = {}
    kept, remarks = [], []
    for some in bars:
        prices = some.prices()
        key = some.times().tobytes() + np.nan_to_num(prices, nan=-1.0).tobytes()
        twin = seen.setdefault(key, some)
        usable = prices[np.isfinite(prices).all(axis=1), 3]
        if twin is some or len(np.unique(usable)) < 2:
            kept.append(some)
            continue
        text = (
            f"{some.symbol} has the prices of {twin.symbol} in {twin.name}, all {len(some)} rows: one of them is wrong"
        )
        remarks.append(Remark("same prices", some.name, text, f"{some.symbol} {LEFT_OUT}", (), some.header_lines))
    return kept, remarks


def without_rivals(bars: Sequence[Bars]) -> tuple[list[Bars], list[Remark]]:
    """Return bars without those of a symbol that contradict more bars of it in another file, and what was left out."""
    longest: dict[str, Bars] = {}
    for some in bars:
        if some.symbol not in longest or len(some) > len(longest[some.symbol]):
            longest[some.symbol] = some
    kept, remarks = [], []
    for some in bars:
        other = longest[some.symbol]
        days, mine, theirs = np.intersect1d(some.times(), other.times(), return_indices=True)
        with np.errstate(divide="ignore", invalid="ignore"):
            apart = np.abs(some.prices()[mine, 3] / other.prices()[theirs, 3] - 1) > ABOUT_EQUAL
        if some is other or not apart.any():
            kept.append(some)
            continue
        text = f"the closes of {some.symbol} in {other.name} are others on {int(apart.sum())} of {len(days)} days"
        remarks.append(Remark("two sources", some.name, text, LEFT_OUT, (), some.header_lines))
    return kept, remarks


@dataclass
class _Notes:
    """Gather remarks about one file."""

    bars: Bars
    said: list[Remark] = field(default_factory=list)

    def add(self, rule: str, where: Flags, bars: Bars, text: str, done: str = "", *, is_fault: bool = True) -> None:
        if where.any():
            self.said.append(Remark(rule, bars.name, text, done, bars.rows(where), bars.header_lines, is_fault))


def clean_symbol(bars: Bars, policy: Literal["repair", "drop"], limits: Limits) -> tuple[Bars, list[Remark]]:
    """Return the bars of one symbol that keep every rule, and what was found and done."""
    notes = _Notes(bars)
    repeated = duplicate_time(bars.times())
    notes.add("duplicate time", repeated, bars, "a later row has the same time", f"{LEFT_OUT}, the last one kept")
    bars = bars.where(~repeated)
    for _ in range(MOST_PASSES):
        before = len(notes.said)
        bars = _repaired(bars, limits, notes) if policy == "repair" else _dropped(bars, notes)
        if len(notes.said) == before:
            break
    _flag(bars, limits, notes)
    return bars, notes.said


def _positive(prices: Numbers) -> Numbers:
    with np.errstate(invalid="ignore"):
        return np.where(np.isfinite(prices) & (prices > 0), prices, np.nan)


def _splits(bars: Bars) -> Numbers | None:
    return bars.frame["splits"].to_numpy().astype(np.float64) if "splits" in bars.frame.columns else None


def _rows_of(fault: Fault, count: int) -> Flags:
    where = np.zeros(count, bool)
    where[fault.first : fault.last] = True
    return where


def _dropped(bars: Bars, notes: _Notes) -> Bars:
    prices, volume = bars.prices(), bars.volume()
    bad = np.zeros(len(bars), bool)
    for fault in find_faults(_positive(prices), volume, _splits(bars)):
        where = _rows_of(fault, len(bars))
        notes.add(fault.rule, where, bars, fault.why, LEFT_OUT)
        bad |= where
    for rule, where in broken(prices, volume).items():
        notes.add(rule, where & ~bad, bars, BAR_RULES[rule], LEFT_OUT)
    bad |= np.any(list(broken(prices, volume).values()), axis=0)
    return bars.where(~bad)


def _repaired(bars: Bars, limits: Limits, notes: _Notes) -> Bars:
    prices, volume = bars.prices(), bars.volume()
    missing = {rule: where for rule, where in broken(prices, volume).items() if rule in MISSING_RULES}
    prices = _positive(prices)
    volume = np.where(np.isfinite(volume) & (volume >= 0), volume, np.nan)
    adjusted = bars.frame["adj_close"].to_numpy().astype(np.float64) if "adj_close" in bars.frame.columns else None
    for fault in find_faults(prices, volume, _splits(bars)):
        where = _rows_of(fault, len(bars))
        if fault.ratio is None:
            missing[f"{fault.rule}: {fault.why}"] = where
        else:
            notes.add(fault.rule, where, bars, fault.why, _deed(fault))
        if adjusted is not None and fault.ratio is not None and len(fault.columns) == len(PRICES):
            adjusted = _adjusted(adjusted, prices[:, 3], fault)
        prices, volume = mended(prices, volume, fault)
    prices, volume, left_out = fill(prices, volume, limits.filled)
    for rule, where in missing.items():
        name, _, why = rule.partition(": ")
        text = why or BAR_RULES[name]
        notes.add(name, where & ~left_out, bars, text, "filled forward")
        notes.add(name, where & left_out, bars, text, f"{LEFT_OUT}: more than {limits.filled} in a row, or none before")
    for rule, where in broken(prices, volume).items():
        if rule not in MISSING_RULES:
            notes.add(rule, where & ~left_out, bars, BAR_RULES[rule], "widened to hold them")
    prices = widened(prices)
    columns = [pl.Series(name, prices[:, n]) for n, name in enumerate(PRICES)]
    columns.append(pl.Series("volume", volume))
    if adjusted is not None:
        columns.append(pl.Series("adj_close", adjusted))
    return bars.with_columns(columns).where(~left_out)


def _deed(fault: Fault) -> str:
    assert fault.ratio is not None
    columns = "prices" if len(fault.columns) == len(PRICES) else PRICES[fault.columns[0]]
    also = ", volume by the inverse" if fault.with_volume else ""
    return f"{columns} multiplied by {shown(1 / fault.ratio).removeprefix('x')}{also}"


def _adjusted(adjusted: Numbers, close: Numbers, fault: Fault) -> Numbers:
    """Return adjusted closes with those of a fault brought along, where they are off by the same ratio."""
    assert fault.ratio is not None
    rows = slice(fault.first, fault.last)
    with np.errstate(divide="ignore", invalid="ignore"):
        factor = np.log(adjusted / close)
    inside = factor[rows][np.isfinite(factor[rows])]
    beside = np.concatenate([factor[max(0, fault.first - 5) : fault.first], factor[fault.last : fault.last + 5]])
    beside = beside[np.isfinite(beside)]
    away = float(np.median(inside) - np.median(beside)) if len(inside) and len(beside) else 0.0
    if abs(away) > 0.5 * abs(float(np.log(fault.ratio))):
        return adjusted
    moved = adjusted.copy()
    moved[rows] = scaled(moved[rows], fault.ratio)
    return moved


def _flag(bars: Bars, limits: Limits, notes: _Notes) -> None:
    if not len(bars):
        return
    prices, volume, times = bars.prices(), bars.volume(), bars.times()
    most = int(missing_bars(times).max())
    text = f"more than {limits.gap} bars are missing before it, {most} at most"
    notes.add("gap", gap(times, limits.gap), bars, text, "a break for windows", is_fault=False)
    still = stale(prices[:, 1], prices[:, 2], prices[:, 3], volume, limits.stale)
    text = f"more than {limits.stale} bars without range, volume and change of price"
    notes.add("stale", still, bars, text, "kept", is_fault=False)
    text = f"a return above {limits.sigmas:g} robust deviations"
    notes.add("jump", jump(prices[:, 3], limits.sigmas), bars, text, "kept", is_fault=False)
