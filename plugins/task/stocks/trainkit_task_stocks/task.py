"""The task 'stocks': series whose rows are bars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import polars as pl
from pydantic import Field
from torch import Tensor, nn
from trainkit import Technique
from trainkit.binding import bind_model
from trainkit.contracts import Answer, Batch, Dataset, Finding, Inspection, Sample, Splits
from trainkit.derived import BaseTask, DerivedTask
from trainkit.errors import UsageError
from trainkit.tables import Table, read_tables

from .actions import WithActions, with_actions
from .bars import PRICES, Bars
from .cleaning import Limits, Policy, clean
from .columns import read_bars
from .days import DateFormat
from .features import COLUMNS, DEFAULT, OF_A_BAR, check_indicators, with_indicators
from .rules import gap
from .transformer import StockTransformer

SAMPLE = Path(__file__).parent / "sample" / "prices.csv.gz"
EMBEDDED = "embedded sample: six stocks, 2013 to 2018"
BASE = {
    "use": "series",
    "step": "row",
    "max_gap": 8,
    "context": 60,
    "horizon": 5,
    "season": 5,
    "calendar": (),
    "model": "nlinear",
    "quantiles": (),
}
SIZES: Mapping[str, Mapping[str, int]] = {
    "small": {"width": 64, "heads": 4, "layers": 2, "feedforward": 256},
    "full": {},
}
Threshold = Annotated[float, Field(gt=0, lt=1)]
Dropout = Annotated[float, Field(ge=0, lt=1)]
Size = Literal["small", "full"]


class StocksTask(DerivedTask):
    """Forecast the next bars of stocks, and whether to buy, hold or sell, from daily prices of any spelling.

    Files are checked bar by bar and mended, indicators are added, and prices are seen relative to the last one. Every
    option of the task below is one of this task, too. Targets are the five columns of bars and all indicators; where
    `targets` names others, what is not named is an input.

    Args:
        base: the task below, which forecasts series.
        policy: what happens to rows that break a rule: mended, left out, or refused.
        indicators: of each bar; they are inputs, and forecast like prices.
        forecaster: transformer: prices and actions; series: what `model` names, as tft with `quantiles`.
        size: of the transformer: small, of 0.1 million parameters; full, of 25.5 million.
        dropout: share of features dropped in training.
        causal: whether a bar of the transformer sees only itself and earlier ones.
        threshold: least move of the next close to buy or sell, as a share of the last one.
    """

    def __init__(
        self,
        base: BaseTask = BASE,
        policy: Policy = "repair",
        indicators: tuple[str, ...] = DEFAULT,
        forecaster: Literal["transformer", "series"] = "transformer",
        size: Size = "small",
        dropout: Dropout = 0.15,
        causal: bool = False,
        threshold: Threshold = 0.005,
    ) -> None:
        super().__init__(base)
        check_indicators(indicators)
        self.policy: Policy = policy
        self.indicators, self.threshold = indicators, threshold
        self.forecasts_actions = forecaster == "transformer"
        self.size: Size = size
        self.dropout, self.causal = dropout, causal
        asked = self.base.reading.schema
        targets = asked.targets or (*COLUMNS, *indicators)
        if self.forecasts_actions and "close" not in targets:
            raise UsageError(
                f"task.targets = {list(targets)} lacks the close",
                why="an action is about the next close",
                do="name it, too, or --set task.forecaster=series",
            )
        inputs = () if asked.targets == () else tuple(name for name in (*indicators, *OF_A_BAR) if name not in targets)
        schema = replace(asked, time="time", series="symbol", targets=targets, observed=asked.observed or inputs)
        self.base.reading = replace(self.base.reading, schema=schema)
        self.base.relative = tuple(name for name in targets if name in COLUMNS)
        self.base.tables = self.tables
        self.base.bounded = bounded
        self.base.sample, self.base.embedded = SAMPLE, EMBEDDED

    @property
    def defaults(self) -> Mapping[str, Any]:
        """Return the settings that this task proposes."""
        metrics = ["forecast-error", {"use": "direction", "target": "close"}]
        loss = {"loss.use": "price-action"} if self.forecasts_actions else {}
        return {**self.base.defaults, **loss, "metric": metrics}

    @property
    def techniques(self) -> Mapping[str, Technique]:
        """Return what strategies may ask of this task: what its base offers, with the dropout of its own model."""
        found: Mapping[str, Technique] = self.base.techniques
        if not self.forecasts_actions:
            return found
        return {**found, "dropout": Technique(settings={"task.dropout": self.dropout}, strength="task.dropout")}

    @property
    def sample_keys(self) -> frozenset[str]:
        """Return the names in a sample."""
        keys: frozenset[str] = self.base.sample_keys
        return keys | {"action_labels"}

    @property
    def gives(self) -> frozenset[str]:
        """Return the names in a batch, in outputs and in predictions."""
        names: frozenset[str] = self.base.gives | {"action_labels"}
        return names | {"prices", "actions"} if self.forecasts_actions else names

    def tables(self, paths: Sequence[Path]) -> tuple[list[Table], list[Finding]]:
        """Read bars, clean them, and add indicators."""
        return self._cleaned(paths, self.policy)

    def _cleaned(self, paths: Sequence[Path], policy: Policy) -> tuple[list[Table], list[Finding]]:
        tables, findings = read_tables(paths)
        times = self.base.reading.times
        bars, read = read_bars(tables, DateFormat(times.pattern, times.zone))
        kept, cleaned = clean(bars, policy)
        names = [name for name in self.base.reading.schema.numbers if name not in COLUMNS]
        made = [table_of(some, names) for some in kept]
        return made, [*findings, *(remark.finding() for remark in (*read, *cleaned))]

    def inspect(self, data: Path) -> Inspection:
        """Look at data and tell all that is wrong with it, whatever the policy."""
        self.base.tables = lambda paths: self._cleaned(paths, "drop" if self.policy == "drop" else "repair")
        try:
            found: Inspection = self.base.inspect(data)
        finally:
            self.base.tables = self.tables
        return replace(found, format="daily prices")

    def read(self, data: Path | None, seed: int) -> Splits:
        """Read, check and mend the data, or the embedded sample; `seed` changes nothing.

        Raises:
            DataError: there is nothing to read, it cannot be used, or it breaks rules and the policy is to refuse.
        """
        splits: Splits = self.base.read(data, seed)
        parts = {name: self._with_actions(part) for name, part in splits.items()}
        return replace(splits, train=parts["train"], val=parts.get("val"), test=parts.get("test"))

    def whole(self, data: Path) -> Dataset:
        """Return every window of some data, seen by what was learned before."""
        return self._with_actions(self.base.whole(data))

    def _with_actions(self, windows: Dataset) -> Dataset:
        targets = self.base.reading.schema.targets
        return WithActions(windows, targets.index("close"), self.threshold) if "close" in targets else windows

    def fit(self, train: Any) -> None:
        """Learn scales from the rows of training."""
        self.base.fit(train.windows if isinstance(train, WithActions) else train)

    def build_model(self) -> nn.Module:
        """Return a fresh model for what was learned."""
        if not self.forecasts_actions:
            other: nn.Module = self.base.build_model()
            return other
        layout = self.base.learned.layout
        targets = None if layout.width == layout.targets else layout.targets
        return StockTransformer(layout.width, self.base.horizon, targets, self.dropout, self.causal, **SIZES[self.size])

    def answers(self, model: nn.Module, batch: Batch, samples: Sequence[Sample]) -> list[Answer]:
        """Return for each sample the next bars, as tables and plots, and the odds of each action."""
        outputs = bind_model(model)({**batch, "output_attentions": True})
        answers: list[Answer] = self.base.answered(batch, outputs, samples)
        return with_actions(answers, outputs["actions"]) if self.forecasts_actions else answers


def table_of(bars: Bars, indicators: Sequence[str]) -> Table:
    """Return cleaned bars with their indicators as a table; rows that indicators cannot tell of yet are left out."""
    begins = gap(bars.times(), Limits().gap) if len(bars) else np.zeros(0, bool)
    frame = with_indicators(bars.frame, indicators, begins.tolist())
    known = pl.all_horizontal(pl.col(name).is_finite() for name in indicators) if indicators else pl.lit(value=True)
    frame = frame.filter(known).with_columns(symbol=pl.lit(bars.symbol))
    return Table(bars.name, frame.select("time", "symbol", *COLUMNS, *indicators), 0)


def bounded(values: Tensor, batch: Batch) -> Tensor:
    """Return forecasts [B, H, T] or [B, H, T, Q] of bars that can be: none below 0, high and low around the others.

    Quantiles of high and low need not lie around those of the others: only forecasts themselves are brought together.
    """
    names = list(batch["target_names"])
    places = [names.index(name) for name in COLUMNS if name in names]
    values = values.clone()
    values[:, :, places] = values[:, :, places].clamp(min=0)
    if values.ndim == 3 and set(PRICES) <= set(names):
        prices = values[:, :, [names.index(name) for name in PRICES]]
        values[:, :, names.index("high")] = prices.amax(-1)
        values[:, :, names.index("low")] = prices.amin(-1)
    return values
