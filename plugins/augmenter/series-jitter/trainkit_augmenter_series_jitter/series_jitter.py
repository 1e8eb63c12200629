"""The augmenter 'series-jitter': a window of series with a little noise, and a little larger or smaller."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat
from torch import Tensor
from trainkit import UsageError
from trainkit.contracts import Batch, Sample

from .candles import Candles

Probability = Annotated[float, Field(ge=0, le=1)]
Pivot = Literal["loc", "zero"]
Columns = Annotated[tuple[NonNegativeInt, ...], Field(max_length=5)]
TARGETS = {"past_values": "past_observed_mask", "future_values": "future_observed_mask"}
COVARIATES = "past_covariates"
BENT = "asinh_mask"
CANDLE_SIZES = (0, 4, 5)


class SeriesJitter:
    """Scale a window of series, inputs and targets alike, and add noise to its inputs.

    Rules are those of 5.5. One factor is drawn for a window, and multiplies its past and its future; with a probability
    noise is added to the past. Nothing moves in time, no window takes from another, what was not measured and what is
    known of the future stays as it is.

    In scaled units a value is multiplied as it is, so that distances from `loc` grow or shrink [reading]; a window that
    was scaled by its own last price then still ends where it ended. With `pivot` zero it is the value in original
    units that is multiplied, scaled * factor + (factor - 1) * loc / scale: take it where `loc` is not much larger
    than `scale`, or the window leaves its range. Covariates have no `loc` and are not scaled then.

    Args:
        probability: probability of noise in a window.
        noise: standard deviation of the noise, in scaled units.
        clip: largest size of the noise, in scaled units.
        scale: range that the factor of a window is drawn from, evenly.
        pivot: what does not move when a window is scaled: `loc`, or zero in original units.
        ohlc: places of open, high, low, close among the targets, and of volume if there is one: high stays on top, low
            at the bottom, volume at least 0. A window whose prices would not stay above 0 is left as it is.
    """

    reads = frozenset(TARGETS)

    def __init__(
        self,
        probability: Probability = 0.5,
        noise: NonNegativeFloat = 0.001,
        clip: PositiveFloat = 0.02,
        scale: tuple[PositiveFloat, PositiveFloat] = (0.98, 1.02),
        pivot: Pivot = "loc",
        ohlc: Columns = (),
    ) -> None:
        if scale[0] > scale[1]:
            raise UsageError(f"augmenter.series-jitter.scale: {list(scale)} is no range", do="give the lower end first")
        if len(ohlc) not in CANDLE_SIZES or len(set(ohlc)) < len(ohlc):
            raise UsageError(
                f"augmenter.series-jitter.ohlc: {list(ohlc)} are no columns of open, high, low, close",
                do="give 4 different numbers, or 5 with volume",
            )
        self.probability, self.noise, self.clip = probability, noise, clip
        self.scale, self.pivot, self.ohlc = scale, pivot, ohlc
        if pivot == "zero" or ohlc:
            self.reads = frozenset({*TARGETS, "loc", "scale"})

    def __call__(self, sample: Sample, generator: np.random.Generator) -> Sample:
        """Return a changed copy of the sample; equal generators give equal copies. Arrays may be of NumPy, too."""
        touched = {*TARGETS, *TARGETS.values(), COVARIATES, "loc", "scale", BENT} & sample.keys()
        batch = self.augment_batch({name: torch.as_tensor(sample[name])[None] for name in touched}, [generator])
        changed = {name: batch[name][0] for name in (*TARGETS, COVARIATES) if name in touched}
        return {**sample, **{name: _like(sample[name], value) for name, value in changed.items()}}

    def augment_batch(self, batch: Batch, generators: Sequence[np.random.Generator | None]) -> Batch:
        """Return a batch in which each sample is changed as a call with its generator would change it."""
        self._check_scaling(batch)
        past = batch["past_values"]
        shapes = {"past_values": past.shape[1:]}
        if COVARIATES in batch:
            shapes[COVARIATES] = batch[COVARIATES].shape[1:]
        factors, noise = self._drawn(generators, shapes)
        result: dict[str, Any] = {**batch}
        for name in TARGETS:
            result[name] = self._scaled(batch, name, factors)
        if COVARIATES in batch:
            by = factors if self.pivot == "loc" else torch.ones_like(factors)
            result[COVARIATES] = batch[COVARIATES] * by.view(-1, 1, 1).to(batch[COVARIATES].dtype)
        for name, amount in noise.items():
            result[name] = result[name] + amount.to(result[name].dtype)
        drawn = torch.tensor([generator is not None for generator in generators])
        return self._allowed(batch, result, drawn)

    def _check_scaling(self, batch: Batch) -> None:
        # Units are needed there, and those of bent values are not scaled * scale + loc.
        if (self.pivot == "zero" or self.ohlc) and BENT in batch and bool(batch[BENT].any()):
            raise UsageError(
                "augmenter.series-jitter: values are scaled by asinh, and pivot = zero and ohlc need linear scales",
                do="--set task.scaling=robust, or pivot = loc without ohlc",
            )

    def _drawn(
        self, generators: Sequence[np.random.Generator | None], shapes: Mapping[str, Sequence[int]]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the factor of each window [B], and the noise of its inputs by name."""
        factors = np.ones(len(generators))
        noise = {name: np.zeros((len(generators), *shape), np.float32) for name, shape in shapes.items()}
        for place, generator in enumerate(generators):
            if generator is None:
                continue
            factors[place] = generator.uniform(*self.scale)
            if generator.random() < self.probability and self.noise:
                for amounts in noise.values():
                    drawn = generator.standard_normal(amounts.shape[1:], dtype=np.float32)
                    amounts[place] = (self.noise * drawn).clip(-self.clip, self.clip)
        return torch.from_numpy(factors), {name: torch.from_numpy(amounts) for name, amounts in noise.items()}

    def _scaled(self, batch: Batch, name: str, factors: Tensor) -> Tensor:
        values: Tensor = batch[name]
        by = factors.view(-1, 1, 1)
        if self.pivot == "loc":
            return values * by.to(values.dtype)
        level: Tensor = batch["loc"].double() / batch["scale"].double()
        return (values.double() * by + (by - 1) * level.unsqueeze(1)).to(values.dtype)

    def _allowed(self, batch: Batch, result: dict[str, Any], drawn: Tensor) -> dict[str, Any]:
        """Return the result with candles possible, and with all that must not change as it was."""
        candles = self._candles(batch)
        for name, mask in TARGETS.items():
            if candles is not None:
                result[name] = candles.repaired(result[name], batch.get(mask))
                drawn = drawn & candles.are_positive(result[name], batch.get(mask))
            if mask in batch:
                result[name] = torch.where(batch[mask], result[name], batch[name])
        for name in (*TARGETS, COVARIATES):
            if name in batch:
                result[name] = torch.where(drawn.view(-1, 1, 1), result[name], batch[name])
        return result

    def _candles(self, batch: Batch) -> Candles | None:
        if not self.ohlc:
            return None
        targets = batch["past_values"].shape[-1]
        if max(self.ohlc) >= targets:
            raise UsageError(
                f"augmenter.series-jitter.ohlc: there is no target {max(self.ohlc)}", why=f"there are {targets}"
            )
        return Candles(self.ohlc, batch["loc"], batch["scale"])


def _like(original: Any, value: Tensor) -> Any:
    return value if isinstance(original, Tensor) else value.numpy()
