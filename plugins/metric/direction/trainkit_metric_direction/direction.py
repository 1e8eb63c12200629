"""Direction: whether forecasts of prices tell up from down, rank what rises most, and would have earned anything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor
from trainkit import SumMetric, UsageError

from .moves import ACTIONS, UNKNOWN, Zeros, actions_of, direction_sums, directions, returns
from .ranks import mean_correlation_by, rank_correlation
from .trading import max_drawdown, sharpe, traded

Floats = NDArray[np.float64]
Threshold = Annotated[float, Field(ge=0, lt=1)]
MOST_STEPS = 5
IGNORED_LABEL = -100
ROWS = "rows"
COLUMNS = ("series", "time", "measured", "position", "forecast", "realised", "action", "true_action")


class Direction:
    """Compute directional accuracy, F1 of actions, rank correlation, and what trading on forecasts would have earned.

    Rules are those of 6.6, for one step of the horizon. A move below a millionth of the last value is none: forecasts
    were scaled back in float32. Trading takes the side of each forecast, long or short, for `step` periods; of
    forecasts that overlap every `step`-th time is taken, so that returns are independent [reading]. Where a last value
    is not above 0 there are no returns, and what needs them is NaN. Rows are kept, not sums alone: ranks and
    drawdowns cannot be added up.

    Args:
        target: the target that is a price, by number from 0 or by name.
        step: the step of the horizon that is judged, from 1.
        zeros: a forecast of no move is 'wrong' where the truth moved; 'skip': no move on either side does not count.
        threshold: least rise to buy and fall to sell, as a share of the last value; holding is what lies between.
        cost_bps: cost of a change of position by 1, in hundredths of a per cent.
        periods: steps in a year, for the Sharpe ratio: 252 for days on which stocks are traded.
    """

    higher_is_better = True

    def __init__(
        self,
        target: NonNegativeInt | str = 0,
        step: PositiveInt = 1,
        zeros: Zeros = "wrong",
        threshold: Threshold = 0.005,
        cost_bps: NonNegativeFloat = 5.0,
        periods: PositiveFloat = 252.0,
    ) -> None:
        self.target, self.step, self.zeros = target, step, zeros
        self.threshold, self.cost_bps, self.periods = threshold, cost_bps, periods
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self._hits = SumMetric()
        self._rows: list[Tensor] = []
        self._seen = 0

    @property
    def sums(self) -> dict[str, Tensor]:
        """Return what `merge` takes: sums by step, and the rows."""
        return {**self._hits.sums, **({ROWS: torch.cat(self._rows)} if self._rows else {})}

    def merge(self, other: Mapping[str, Tensor]) -> None:
        """Add what was seen of another part of the data."""
        self._hits.merge({name: amount for name, amount in other.items() if name != ROWS})
        if ROWS in other:
            self._rows.append(other[ROWS])

    def update(
        self,
        forecast: Tensor,
        truth: Tensor,
        last_value: Tensor,
        truth_mask: Tensor | None = None,
        series: Tensor | None = None,
        start: Tensor | None = None,
        time: Tensor | None = None,
        actions: Tensor | None = None,
        action_labels: Tensor | None = None,
        target_names: Sequence[str] | None = None,
    ) -> None:
        """Add a batch, in original units.

        Args:
            forecast: [B, H, T].
            truth: [B, H, T].
            last_value: [B, T] the last value before the horizon.
            truth_mask: [B, H, T] True where the truth was measured; where it is not NaN if not given.
            series: [B] number of the series; one series if not given.
            start: [B] row of the first step in its series; the order of samples if not given.
            time: [B] the same as a moment that all series share; `start` if not given.
            actions: [B, H, 3] or [B, 3] logits of buy, hold, sell; from the forecast by `threshold` if not given.
            action_labels: [B, H] or [B], -100 where there is none; from the truth by `threshold` if not given.
            target_names: names of the T targets.
        """
        if forecast.shape != truth.shape or truth.ndim != 3:
            raise ValueError(f"forecast {list(forecast.shape)} and truth {list(truth.shape)} are to be [B, H, T]")
        place = self._place(truth.shape, target_names)
        values, facts, last = forecast[..., place], truth[..., place], last_value[..., place]
        measured = (~facts.isnan() if truth_mask is None else truth_mask[..., place]) & last.isfinite().unsqueeze(1)
        guess, fact = directions(values, last), directions(facts, last)
        self._hits.add(**direction_sums(guess, fact, measured, self.zeros))
        count, at = len(truth), self.step - 1
        order = torch.arange(self._seen, self._seen + count, device=truth.device) if start is None else start
        self._seen += count
        # A head with one action for a sample speaks of the next value.
        judged = 0 if actions is not None and actions.ndim == 2 else at
        there = measured[:, judged]
        columns = {
            "series": torch.zeros_like(order) if series is None else series,
            "time": order if time is None else time,
            "measured": measured[:, at],
            "position": guess[:, at],
            "forecast": returns(values[:, at], last),
            "realised": returns(facts[:, at], last),
            "action": _chosen(actions, judged, returns(values[:, judged], last), self.threshold),
            "true_action": _labelled(action_labels, judged, there, returns(facts[:, judged], last), self.threshold),
        }
        self._rows.append(torch.stack([columns[name].double() for name in COLUMNS], dim=1).detach())

    def compute(self) -> dict[str, float]:
        """Return `accuracy` first, then its baseline, actions, rank correlations, trading and accuracies by step."""
        rows = torch.cat(self._rows).cpu().numpy() if self._rows else np.empty((0, len(COLUMNS)))
        columns: dict[str, Floats] = dict(zip(COLUMNS, rows.T, strict=True))
        measured = columns["measured"] > 0
        return {
            **self._accuracy(self.step, baseline=True),
            **_actions(columns["action"], columns["true_action"]),
            **self._earned({name: column[measured] for name, column in columns.items()}),
            **self._by_step(),
        }

    def _accuracy(self, step: int, baseline: bool = False) -> dict[str, float]:
        sums = {name: float(amount[step - 1]) for name, amount in self._hits.sums.items()}
        counted = sums.get("counted") or UNKNOWN
        found = {"accuracy": sums.get("right", 0.0) / counted}
        if baseline:
            found["accuracy-baseline"] = max(sums.get(way, 0.0) for way in ("up", "flat", "down")) / counted
        return found

    def _by_step(self) -> dict[str, float]:
        steps = len(self._hits.sums["counted"]) if self._hits.sums else 1
        shown = range(1, min(steps, MOST_STEPS) + 1) if steps > 1 else ()
        return {f"accuracy/step-{step}": self._accuracy(step)["accuracy"] for step in shown}

    def _earned(self, rows: Mapping[str, Floats]) -> dict[str, float]:
        guess, fact, times = rows["forecast"], rows["realised"], rows["time"]
        names = ("rank-ic", "rank-ic-cross", "sharpe", "sharpe-gross", "sharpe-hold", "max-drawdown", "turnover")
        if not len(fact) or np.isnan(fact).any() or np.isnan(guess).any():
            return dict.fromkeys(names, UNKNOWN)
        periods = self.periods / self.step
        taken = np.isin(times, np.unique(times)[:: self.step])
        series, when, sides, moves = (column[taken] for column in (rows["series"], times, rows["position"], fact))
        net, turnover = traded(series, when, sides, moves, self.cost_bps)
        gross, _ = traded(series, when, sides, moves)
        hold, _ = traded(series, when, np.ones_like(sides), moves, self.cost_bps)
        return dict(
            zip(
                names,
                (
                    rank_correlation(guess, fact),
                    mean_correlation_by(times, guess, fact),
                    *(sharpe(portfolio, periods) for portfolio in (net, gross, hold)),
                    max_drawdown(net),
                    turnover,
                ),
                strict=True,
            )
        )

    def _place(self, shape: Sequence[int], names: Sequence[str] | None) -> int:
        _, steps, targets = shape
        if self.step > steps:
            raise UsageError(f"metric.direction.step: {self.step} is beyond the horizon of {steps} steps")
        known = list(names) if names is not None else [str(place) for place in range(targets)]
        if isinstance(self.target, str) and self.target in known:
            return known.index(self.target)
        if isinstance(self.target, int) and self.target < targets:
            return self.target
        raise UsageError(
            f"metric.direction.target: there is no target {self.target}", why=f"targets: {', '.join(known)}"
        )


def _chosen(actions: Tensor | None, step: int, forecast: Tensor, threshold: float) -> Tensor:
    if actions is None:
        return actions_of(forecast, threshold)
    return (actions if actions.ndim == 2 else actions[:, step]).argmax(-1).double()


def _labelled(labels: Tensor | None, step: int, there: Tensor, realised: Tensor, threshold: float) -> Tensor:
    if labels is None:
        return actions_of(realised, threshold).where(there, UNKNOWN)
    labels = labels if labels.ndim == 1 else labels[:, step]
    return labels.double().masked_fill(labels == IGNORED_LABEL, UNKNOWN)


def _actions(chosen: Floats, true: Floats) -> dict[str, float]:
    """Return accuracy, baseline and F1, the mean over the actions that were chosen or right at least once."""
    known = ~(np.isnan(chosen) | np.isnan(true))
    if not known.any():
        return dict.fromkeys(("action-accuracy", "action-baseline", "action-f1"), UNKNOWN)
    pairs = (chosen[known] * ACTIONS + true[known]).astype(np.int64)
    table = np.bincount(pairs, minlength=ACTIONS**2).reshape(ACTIONS, ACTIONS)
    right, either = np.diag(table), table.sum(0) + table.sum(1)
    return {
        "action-accuracy": float(right.sum() / table.sum()),
        "action-baseline": float(table.sum(0).max() / table.sum()),
        "action-f1": float((2 * right / either.clip(min=1))[either > 0].mean()),
    }
