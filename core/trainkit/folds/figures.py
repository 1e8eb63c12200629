"""Figures over folds: mean, standard deviation, and an interval for the mean."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

LEVEL = 0.95

Rows = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class Spread:
    """Hold a figure over folds.

    Args:
        values: of each fold in order; NaN where a fold has none.
        mean: of those that are finite; NaN without any.
        sd: their standard deviation, with n - 1 below; NaN for fewer than two.
        low: where the 95 % interval of the mean begins, by Student's t; NaN for fewer than two.
        high: where it ends.
    """

    values: tuple[float, ...]
    mean: float
    sd: float
    low: float
    high: float

    def document(self) -> dict[str, Any]:
        """Return it as JSON."""
        return asdict(self)


def spread(values: Sequence[float]) -> Spread:
    """Return mean, standard deviation and interval of a figure's values.

    The interval takes folds for independent. They share training samples, so it is somewhat too narrow (Bengio and
    Grandvalet, JMLR 5, 2004).
    """
    finite = [value for value in values if math.isfinite(value)]
    n = len(finite)
    mean = math.fsum(finite) / n if n else math.nan
    if n < 2:
        return Spread(tuple(values), mean, math.nan, math.nan, math.nan)
    sd = math.sqrt(math.fsum((value - mean) ** 2 for value in finite) / (n - 1))
    half = t_quantile(n - 1) * sd / math.sqrt(n)
    return Spread(tuple(values), mean, sd, mean - half, mean + half)


def spreads(results: Sequence[Rows]) -> dict[str, dict[str, Spread]]:
    """Return for the model and each baseline every figure over folds, by tag.

    Args:
        results: of each fold the final table.
    """
    found: dict[str, dict[str, Spread]] = {}
    for who in dict.fromkeys(name for rows in results for name in rows):
        mine = [rows.get(who, {}) for rows in results]
        tags = dict.fromkeys(tag for rows in mine for tag in rows)
        found[who] = {tag: spread([float(rows.get(tag, math.nan)) for rows in mine]) for tag in tags}
    return found


def t_share(t: float, freedom: int) -> float:
    """Return the probability that Student's t lies within -t and t (Abramowitz and Stegun, 26.7.3 and 26.7.4)."""
    angle = math.atan(t / math.sqrt(freedom))
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2
    total, term = 0.0, cosine if odd else 1.0
    for k in range(2 + odd, freedom + 1, 2):
        total += term
        term *= (k - 1) / k * cosine**2
    return 2 / math.pi * (angle + sine * total) if odd else sine * total


def t_quantile(freedom: int, level: float = LEVEL) -> float:
    """Return the t within which Student's t with so many degrees of freedom lies with probability `level`."""
    low, high = 0.0, 1.0
    while t_share(high, freedom) < level:
        high *= 2
    while high - low > 1e-12 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if t_share(middle, freedom) < level else (low, middle)
    return high
