"""From sums to figures: ratios, taken once everything is summed, of as many cells as there are at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Figure = Literal[
    "mae", "rmse", "smape", "mape", "wape", "mase", "scaled-mae", "scaled-mse",
    "pinball", "crps", "q-risk", "coverage", "width", "winkler", "crossing",
]  # fmt: skip
Values = NDArray[np.float64]

OF_POINTS = ("count", "error", "square", "level", "symmetric", "relative", "relative_count")


def ratio(part: ArrayLike, whole: ArrayLike) -> Values:
    """Return part / whole; NaN where the whole is nothing."""
    parts, wholes = np.asarray(part, np.float64), np.asarray(whole, np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        found: Values = np.divide(parts, wholes, out=np.full(wholes.shape, np.nan), where=wholes != 0)
    return found


def figures_of(sums: Mapping[str, ArrayLike]) -> dict[str, Values]:
    """Return every figure that the sums are there for; those of the point forecast always, NaN if need be.

    Args:
        sums: by name, of any one shape; figures have the same.
    """
    s = {name: np.zeros(()) for name in OF_POINTS} | {name: np.asarray(amount) for name, amount in sums.items()}
    count = s["count"]
    found = {
        "mae": ratio(s["error"], count),
        "rmse": np.sqrt(ratio(s["square"], count)),
        "smape": ratio(s["symmetric"], count),
        "mape": ratio(s["relative"], s["relative_count"]),
        "wape": ratio(s["error"], s["level"]),
    }
    if "seasonal" in s:
        found["mase"] = ratio(s["seasonal"], s["seasonal_count"])
        found["mase-share"] = ratio(s["seasonal_count"], count)
    if "scaled" in s:
        found |= {"scaled-mae": ratio(s["scaled"], count), "scaled-mse": ratio(s["scaled_square"], count)}
    return found | _of_quantiles(s)


def _of_quantiles(s: Mapping[str, Values]) -> dict[str, Values]:
    costs = {name.removeprefix("pinball "): cost for name, cost in s.items() if name.startswith("pinball ")}
    if not costs:
        return {}
    count, level_sum, mean = s["quantile_count"], s["quantile_level"], sum(costs.values()) / len(costs)
    found = {
        "pinball": ratio(mean, count),
        "crps": ratio(2 * mean, count),
        "q-risk": ratio(2 * mean, level_sum),
        **{f"q-risk-{level}": ratio(2 * cost, level_sum) for level, cost in costs.items()},
    }
    if "covered" in s:
        found |= {
            "coverage": ratio(s["covered"], count),
            "width": ratio(s["width"], count),
            "winkler": ratio(s["winkler"], count),
        }
    if len(costs) > 1:
        found["crossing"] = ratio(s["crossed"], count * (len(costs) - 1))
    return found
