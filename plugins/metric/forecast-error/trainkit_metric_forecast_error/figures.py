"""From sums to figures: ratios, taken once everything is summed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

Figure = Literal[
    "mae", "rmse", "smape", "mape", "wape", "mase", "scaled-mae", "scaled-mse",
    "pinball", "crps", "q-risk", "coverage", "width", "winkler", "crossing",
]  # fmt: skip


def ratio(part: float, whole: float) -> float:
    """Return part / whole; NaN where the whole is nothing."""
    return part / whole if whole else float("nan")


def figures_of(sums: Mapping[str, float]) -> dict[str, float]:
    """Return every figure that the sums are there for; those of the point forecast always, NaN if need be."""
    s = {"count": 0.0, "error": 0.0, "square": 0.0, "level": 0.0, "symmetric": 0.0, "relative": 0.0}
    s |= {"relative_count": 0.0, **sums}
    count = s["count"]
    found = {
        "mae": ratio(s["error"], count),
        "rmse": math.sqrt(ratio(s["square"], count)),
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


def _of_quantiles(s: Mapping[str, float]) -> dict[str, float]:
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
