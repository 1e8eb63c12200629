"""Noise and scale of windows: their sizes, what they leave alone, and candles that stay possible."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from trainkit import Splits, UsageError
from trainkit.data import BatchMaker, TensorData
from trainkit.randomness import variant_generator
from trainkit.testing import AugmenterConformance
from trainkit_augmenter_series_jitter.series_jitter import SeriesJitter

PAST, FUTURE = 24, 6
OHLCV = (0, 1, 2, 3, 4)
MASKS = {"past_values": "past_observed_mask", "future_values": "future_observed_mask"}


def windows(samples=8, targets=5, seed=0):
    """Return a batch of candles: open, high, low, close, volume, each scaled by a loc and a scale of its own."""
    rng = np.random.default_rng(seed)
    steps = PAST + FUTURE
    close = 50 * np.exp(np.cumsum(rng.normal(0, 0.02, (samples, steps)), axis=1))
    opened = close * np.exp(rng.normal(0, 0.01, close.shape))
    high = np.maximum(opened, close) * np.exp(rng.exponential(0.005, close.shape) * rng.integers(0, 2, close.shape))
    low = np.minimum(opened, close) * np.exp(-rng.exponential(0.005, close.shape) * rng.integers(0, 2, close.shape))
    volume = rng.exponential(1e6, close.shape) * rng.integers(0, 2, close.shape)
    values = np.stack([opened, high, low, close, volume], axis=-1)[..., :targets]
    loc = np.median(values, axis=1) * rng.uniform(0.7, 1.3, (samples, targets))
    scale = values.std(axis=1) * rng.uniform(0.5, 2, loc.shape)
    scaled = torch.tensor((values - loc[:, None]) / scale[:, None], dtype=torch.float32)
    observed = torch.tensor(rng.random(scaled.shape) < 0.9)
    return {
        "past_values": scaled[:, :PAST],
        "future_values": scaled[:, PAST:],
        "past_observed_mask": observed[:, :PAST],
        "future_observed_mask": observed[:, PAST:],
        "past_covariates": torch.tensor(rng.normal(size=(samples, PAST, 2)), dtype=torch.float32),
        "past_time_features": torch.tensor(rng.normal(size=(samples, PAST, 3)), dtype=torch.float32),
        "loc": torch.tensor(loc, dtype=torch.float32),
        "scale": torch.tensor(scale, dtype=torch.float32),
    }


def samples_of(batch):
    return [{name: value[i] for name, value in batch.items()} for i in range(len(batch["loc"]))]


def generators(count, seed=0):
    return [variant_generator(seed, 1, i, 1) for i in range(count)]


def in_units(batch, name):
    return batch[name].double() * batch["scale"].double()[:, None] + batch["loc"].double()[:, None]


class Forecasts:
    """Be as much of a task as augmenters see."""

    def read(self, data, seed):
        items = samples_of(windows(seed=seed))
        return Splits(SimpleNamespace(__getitems__=lambda rows: [items[i] for i in rows], __len__=lambda: len(items)))

    def fit(self, train):
        self.fitted = True

    def collate(self, samples):
        return {name: torch.stack([sample[name] for sample in samples]) for name in samples[0]}


class OfForecasts:
    """Check on windows of candles, as no task of series need be installed."""

    def built_task(self):
        return Forecasts()

    def samples(self):
        return samples_of(windows(4))


class TestSeriesJitter(OfForecasts, AugmenterConformance):
    component = "series-jitter"


class TestSeriesJitterOfCandles(OfForecasts, AugmenterConformance):
    component = "series-jitter"
    options = {"ohlc": OHLCV, "pivot": "zero"}


def factors_of(count, seed=0):
    """Return the factors that these generators draw: the first number of each."""
    return torch.tensor([generator.uniform(0.98, 1.02) for generator in generators(count, seed)]).view(-1, 1, 1)


def test_one_factor_for_past_and_future():
    batch, factors = windows(), factors_of(8)
    found = SeriesJitter(probability=0.0).augment_batch(batch, generators(8))
    for name, mask in MASKS.items():
        wanted = torch.where(batch[mask], batch[name] * factors, batch[name])
        assert torch.allclose(found[name], wanted.float(), rtol=1e-6)
    assert torch.allclose(found["past_covariates"], (batch["past_covariates"] * factors).float(), rtol=1e-6)
    assert len(set(factors.flatten().tolist())) == 8


def test_about_zero_values_are_multiplied_in_their_own_units():
    batch, factors = windows(), factors_of(8)
    found = SeriesJitter(probability=0.0, pivot="zero").augment_batch(batch, generators(8))
    for name, mask in MASKS.items():
        before = in_units(batch, name)
        wanted = torch.where(batch[mask], before * factors, before)
        assert torch.allclose(in_units(found, name)[..., :4], wanted[..., :4], rtol=1e-6)
        assert torch.allclose(in_units(found, name)[..., 4], wanted[..., 4], atol=2.0), "of millions"
    assert torch.equal(found["past_covariates"], batch["past_covariates"])


def test_noise_has_the_size_it_is_given_and_the_future_has_none():
    batch = windows(400)
    found = SeriesJitter(probability=1.0, scale=(1.0, 1.0)).augment_batch(batch, generators(400))
    noise = (found["past_values"] - batch["past_values"])[batch["past_observed_mask"]]
    assert float(noise.std()) == pytest.approx(0.001, rel=0.05)
    assert float(noise.mean()) == pytest.approx(0.0, abs=5e-5)
    assert float((found["past_covariates"] - batch["past_covariates"]).std()) == pytest.approx(0.001, rel=0.05)
    assert torch.equal(found["future_values"], batch["future_values"])


def test_noise_is_clipped():
    batch = windows()
    found = SeriesJitter(probability=1.0, noise=0.1, scale=(1.0, 1.0)).augment_batch(batch, generators(8))
    noise = (found["past_values"] - batch["past_values"]).abs()
    assert float(noise.max()) == pytest.approx(0.02, abs=1e-6)


def test_half_of_the_windows_have_noise():
    batch = windows(400)
    found = SeriesJitter(scale=(1.0, 1.0)).augment_batch(batch, generators(400))
    noisy = (found["past_values"] != batch["past_values"]).flatten(1).any(1).double().mean()
    assert float(noisy) == pytest.approx(0.5, abs=0.1)


def test_nothing_to_do_is_nothing_done():
    batch = windows()
    found = SeriesJitter(probability=0.0, scale=(1.0, 1.0), ohlc=OHLCV).augment_batch(batch, generators(8))
    assert all(torch.allclose(found[name], batch[name], atol=1e-5) for name in MASKS), "candles, up to rounding"
    assert all(found[name] is batch[name] for name in batch.keys() - MASKS.keys() - {"past_covariates"})


def test_what_was_not_measured_or_is_known_stays():
    batch = windows()
    for name, mask in MASKS.items():
        batch[name] = batch[name].masked_fill(~batch[mask], float("nan"))
    found = SeriesJitter(probability=1.0).augment_batch(batch, generators(8))
    assert found.keys() == batch.keys()
    for name in ("past_values", "future_values"):
        assert torch.equal(found[name].isnan(), batch[name].isnan())
    for name in ("past_time_features", "loc", "scale", "past_observed_mask", "future_observed_mask"):
        assert found[name] is batch[name]


def test_time_is_never_shuffled():
    """Every value stays nearest to what it was made of: a window of steps far apart keeps their order."""
    batch = windows()
    batch["past_values"] = torch.arange(PAST).float()[None, :, None].expand(8, PAST, 5).clone()
    batch["past_observed_mask"] = torch.ones(8, PAST, 5, dtype=torch.bool)
    found = SeriesJitter(probability=1.0).augment_batch(batch, generators(8))
    assert (found["past_values"].diff(dim=1) > 0.9).all()


@pytest.mark.parametrize("options", [{}, {"pivot": "zero"}, {"ohlc": OHLCV}, {"ohlc": (0, 1, 2, 3), "pivot": "zero"}])
def test_a_batch_is_changed_as_its_samples_are_to_the_bit(options):
    batch, augment = windows(), SeriesJitter(probability=0.7, **options)
    rows, variants = torch.tensor([5, 2, 2, 7]), torch.tensor([1, 0, 3, 2])
    whole = BatchMaker(TensorData(batch), None, [augment], seed=4)(2, rows, variants)
    for place, (row, variant) in enumerate(zip(rows.tolist(), variants.tolist(), strict=True)):
        sample = {name: value[row] for name, value in batch.items()}
        alone = augment(sample, variant_generator(4, 2, row, variant)) if variant else sample
        assert all(torch.equal(whole[name][place], alone[name]) for name in sample)


def test_arrays_of_numpy_come_back_as_such():
    sample = {name: value.numpy() for name, value in samples_of(windows())[0].items()}
    found = SeriesJitter(ohlc=OHLCV)(sample, variant_generator(0, 0, 0, 1))
    assert all(isinstance(value, np.ndarray) and value.dtype == sample[name].dtype for name, value in found.items())
    tensors = SeriesJitter(ohlc=OHLCV)(samples_of(windows())[0], variant_generator(0, 0, 0, 1))
    assert np.array_equal(found["past_values"], tensors["past_values"].numpy())


@given(st.integers(0, 10_000), st.sampled_from(["loc", "zero"]), st.floats(0.001, 1.0))
@settings(deadline=None, max_examples=40)
def test_candles_stay_possible(seed, pivot, noise):
    batch = windows(seed=seed)
    augment = SeriesJitter(probability=1.0, noise=noise, clip=noise * 3, pivot=pivot, ohlc=OHLCV)
    found = augment.augment_batch(batch, generators(8, seed))
    for name, mask in MASKS.items():
        whole = batch[mask][..., :4].all(-1)
        opened, high, low, close, volume = (column[whole] for column in in_units(found, name).unbind(-1))
        # Values go back into float32: as exact as 8.2 asks for.
        assert (high >= torch.maximum(opened, close) * (1 - 1e-6)).all()
        assert (low <= torch.minimum(opened, close) * (1 + 1e-6)).all()
        assert (low > 0).all()
        assert (volume[batch[mask][..., 4][whole]] >= -1).all(), "a millionth of the mean volume"


def test_without_the_columns_noise_does_break_candles():
    batch = windows(50)
    found = in_units(
        SeriesJitter(probability=1.0, noise=0.1, clip=1.0).augment_batch(batch, generators(50)), "past_values"
    )
    assert (found[..., 1] < found[..., 3] * (1 - 1e-6)).any(), "else the test above would prove nothing"


def test_a_window_whose_price_would_fall_below_zero_is_left_as_it_is():
    batch = windows(2)
    batch["past_observed_mask"] |= True
    batch["past_values"][0, 3, 2] = (0.001 - batch["loc"][0, 2]) / batch["scale"][0, 2]
    augment = SeriesJitter(probability=1.0, noise=10.0, clip=100.0, ohlc=OHLCV)
    changed = 0
    for seed in range(10):
        found = augment.augment_batch(batch, generators(2, seed))
        assert (in_units(found, "past_values")[..., :4] > 0).all()
        inputs = ("past_values", "future_values", "past_covariates")
        same = [torch.equal(found[name][0], batch[name][0]) for name in inputs]
        assert all(same) or not any(same)
        changed += not all(same)
    assert changed < 10


def test_a_constant_series_stays_near_where_it_was():
    """Its scale may be 1 and its loc in the billions: about zero it would leap."""
    batch = {name: torch.zeros(1, 4, 1) for name in ("past_values", "future_values")}
    batch |= {"loc": torch.full((1, 1), 8e9), "scale": torch.ones(1, 1)}
    assert float(SeriesJitter().augment_batch(batch, generators(1))["past_values"].abs().max()) <= 0.02
    assert float(SeriesJitter(pivot="zero").augment_batch(batch, generators(1))["past_values"].abs().max()) > 1e6


def test_units_are_needed_only_where_they_are_used():
    assert SeriesJitter().reads == {"past_values", "future_values"}
    assert SeriesJitter(pivot="zero").reads == SeriesJitter(ohlc=OHLCV).reads == {
        "past_values", "future_values", "loc", "scale",
    }  # fmt: skip


def test_options_that_cannot_be_are_refused():
    with pytest.raises(UsageError, match="are no columns of open, high, low, close"):
        SeriesJitter(ohlc=(0, 1, 2))
    with pytest.raises(UsageError, match="are no columns"):
        SeriesJitter(ohlc=(0, 1, 1, 2))
    with pytest.raises(UsageError, match="is no range"):
        SeriesJitter(scale=(1.02, 0.98))
    with pytest.raises(UsageError, match="there is no target 4"):
        SeriesJitter(ohlc=OHLCV).augment_batch(windows(2, targets=4), generators(2))


@pytest.mark.parametrize("options", [{"pivot": "zero"}, {"ohlc": OHLCV}])
def test_values_bent_by_asinh_are_refused_where_units_are_needed(options):
    bent = windows(2) | {"asinh_mask": torch.ones(2, len(OHLCV), dtype=torch.bool)}
    with pytest.raises(UsageError, match="scaled by asinh"):
        SeriesJitter(**options).augment_batch(bent, generators(2))
    with pytest.raises(UsageError, match="scaled by asinh"):
        SeriesJitter(**options)({name: value[0] for name, value in bent.items()}, generators(1)[0])
    linear = bent | {"asinh_mask": torch.zeros(2, len(OHLCV), dtype=torch.bool)}
    SeriesJitter(**options).augment_batch(linear, generators(2))
    SeriesJitter().augment_batch(bent, generators(2))
