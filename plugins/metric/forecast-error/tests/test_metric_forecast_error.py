"""Forecast errors against published values, the definitions written out in numpy, and missing values."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from trainkit import UsageError
from trainkit.testing import MetricConformance
from trainkit_metric_forecast_error.figures import figures_of
from trainkit_metric_forecast_error.forecast_error import ForecastError

LEVELS = (0.1, 0.5, 0.9)
TRUTH, FORECAST, TRAIN = (10.0, 12.0, 8.0, 15.0), (11.0, 10.0, 8.0, 18.0), (5.0, 7.0, 6.0, 9.0, 8.0)
LOW, HIGH = (9.0, 11.0, 7.0, 16.0), (12.0, 13.0, 9.0, 20.0)


def column(values):
    """Return values as one sample of one target [1, H, 1]."""
    return torch.tensor(values)[None, :, None]


def batch(samples=5, steps=6, targets=3):
    """Return a batch with everything in it, and some of it missing."""
    rng = torch.Generator().manual_seed(0)
    shape = (samples, steps, targets)
    truth = 10 + 3 * torch.randn(shape, generator=rng)
    quantiles = truth.unsqueeze(-1) + torch.randn(*shape, 3, generator=rng)
    return {
        "forecast": quantiles[..., 1],
        "truth": truth,
        "truth_mask": torch.rand(shape, generator=rng) < 0.8,
        "forecast_quantiles": quantiles,
        "quantile_levels": torch.tensor(LEVELS),
        "season_error": torch.rand(samples, targets, generator=rng) + 0.5,
        "scale": torch.rand(samples, targets, generator=rng) + 0.5,
        "target_names": ("cpu", "memory", "disk"),
    }


def by_definition(values):
    """Return the figures of flat numpy arrays of what was measured."""
    mask = values["truth_mask"].numpy()
    y, f = (values[name].double().numpy()[mask] for name in ("truth", "forecast"))
    units, scales = (
        np.broadcast_to(values[name].double().numpy()[:, None], mask.shape)[mask] for name in ("season_error", "scale")
    )
    q = values["forecast_quantiles"].double().numpy()[mask]
    e = y - f
    misses = [y - q[:, place] for place in range(3)]
    costs = [np.where(miss >= 0, level * miss, (level - 1) * miss) for level, miss in zip(LEVELS, misses, strict=True)]
    below, above = np.maximum(q[:, 0] - y, 0), np.maximum(y - q[:, 2], 0)
    return {
        "mae": np.mean(abs(e)),
        "rmse": np.sqrt(np.mean(e**2)),
        "smape": np.mean(2 * abs(e) / (abs(y) + abs(f))),
        "mape": np.mean(abs(e / y)),
        "wape": abs(e).sum() / abs(y).sum(),
        "mase": np.mean(abs(e) / units),
        "mase-share": 1.0,
        "scaled-mae": np.mean(abs(e) / scales),
        "scaled-mse": np.mean((e / scales) ** 2),
        "pinball": np.mean(costs),
        "crps": 2 * np.mean(costs),
        "q-risk": 2 * np.sum(costs) / 3 / abs(y).sum(),
        **{f"q-risk-{level}": 2 * cost.sum() / abs(y).sum() for level, cost in zip(LEVELS, costs, strict=True)},
        "coverage": np.mean((q[:, 0] <= y) & (y <= q[:, 2])),
        "width": np.mean(q[:, 2] - q[:, 0]),
        "winkler": np.mean(q[:, 2] - q[:, 0] + 2 / 0.2 * (below + above)),
        "crossing": np.mean(np.diff(q, axis=1) < 0),
    }


def part(values, steps=slice(None), targets=slice(None)):
    """Return the batch cut to steps and targets."""
    names = ("forecast", "truth", "truth_mask", "forecast_quantiles")
    found = {name: values[name][:, steps, targets] for name in names}
    found |= {name: values[name][:, targets] for name in ("season_error", "scale")}
    return {**found, "quantile_levels": values["quantile_levels"]}


def computed(values, **options):
    metric = ForecastError(**options)
    metric.update(**values)
    return metric.compute()


class TestForecastError(MetricConformance):
    component = "forecast-error"
    cases = (
        (batch(), by_definition(batch())),
        ({"forecast": torch.tensor([[[1.0]], [[5.0]]]), "truth": torch.tensor([[[2.0]], [[math.nan]]])}, {"mae": 1.0}),
    )


def of_series(numbers, count=4, **options):
    """Return the batch of a sample for each of these series."""
    names = tuple(f"machine-{number}" for number in range(count))
    return {**batch(samples=len(numbers), **options), "series": torch.tensor(numbers), "series_names": names}


class TestForecastErrorBySeries(MetricConformance):
    component = "forecast-error"
    cases = ((of_series([2, 0, 2, 1, 0]), by_definition(of_series([2, 0, 2, 1, 0]))),)


class TestForecastErrorOfABand(MetricConformance):
    component = "forecast-error"
    options = {"main": "winkler", "interval": (0.1, 0.5), "steps": (2,), "target_figures": ("wape",)}
    cases = ((batch(), {"mae": by_definition(batch())["mae"]}),)


def test_published_values_of_point_forecasts():
    found = computed(
        {
            "forecast": column(FORECAST),
            "truth": column(TRUTH),
            "season_error": torch.tensor([[np.abs(np.diff(TRAIN)).mean()]]),
        }
    )
    expected = {"mae": 1.5, "rmse": 1.870829, "smape": 0.114719, "mape": 0.116667, "mase": 0.857143, "wape": 0.133333}
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-6)


def test_published_values_of_intervals():
    found = computed(
        {
            "forecast": column(FORECAST),
            "truth": column(TRUTH),
            "forecast_quantiles": torch.stack([column(LOW), column(HIGH)], dim=-1),
            "quantile_levels": torch.tensor([0.1, 0.9]),
        }
    )
    assert found["coverage"] == 0.75
    assert found["winkler"] == pytest.approx(5.25, abs=1e-9)
    assert found["width"] == 2.75


def test_published_values_of_quantiles():
    quantiles = torch.tensor([[0.5, 1, 2], [1, 2.5, 3], [2, 2, 2.5]])[None, :, None]
    found = computed(
        {
            "forecast": quantiles[..., 1],
            "truth": column((1.0, 2.0, 3.0)),
            "forecast_quantiles": quantiles,
            "quantile_levels": torch.tensor(LEVELS),
        }
    )
    assert found["pinball"] == pytest.approx(0.183333, abs=1e-6)
    assert [found[f"q-risk-{level}"] for level in LEVELS] == pytest.approx([0.083333, 0.25, 0.216667], abs=1e-6)
    assert found["q-risk"] == pytest.approx(np.mean([0.083333, 0.25, 0.216667]), abs=1e-6)
    assert found["crossing"] == 0.0


def test_each_target_and_each_step_by_definition():
    values = batch()
    found = computed(values, steps=(1, 4))
    for place, name in enumerate(values["target_names"]):
        alone = by_definition(part(values, targets=slice(place, place + 1)))
        for figure in ("mase", "mae", "rmse", "pinball", "coverage"):
            assert found[f"{figure}/{name}"] == pytest.approx(alone[figure], rel=1e-6)
    for step in (1, 4):
        alone = by_definition(part(values, steps=slice(step - 1, step)))
        assert found[f"mae/step-{step}"] == pytest.approx(alone["mae"], rel=1e-6)
    assert "mae/step-2" not in found


def test_every_cell_can_be_asked_for():
    values, metric = batch(), ForecastError()
    metric.update(**values)
    alone = by_definition(part(values, slice(2, 3), slice(1, 2)))
    assert metric.figures(step=3, target=1) == pytest.approx(alone, rel=1e-6)


def test_each_series_by_definition():
    values = of_series([2, 0, 2, 1, 0])
    found = computed(values)
    metric = ForecastError()
    metric.update(**values)
    by_sample = ("forecast", "truth", "truth_mask", "forecast_quantiles", "season_error", "scale")
    for number in (0, 1, 2):
        mine = values["series"] == number
        alone = by_definition({name: values[name][mine] for name in by_sample})
        for figure in ("mase", "mae", "crps", "coverage"):
            assert found[f"{figure}/series/machine-{number}"] == pytest.approx(alone[figure], rel=1e-6)
        assert metric.figures(series=number) == pytest.approx(alone, rel=1e-6)
    # A series without a window in the split has no row.
    assert not any(name.endswith("machine-3") for name in found)
    second = {name: values[name][values["series"] == 2] for name in by_sample}
    cell = by_definition(part(values | second, targets=slice(1, 2)))
    assert metric.figures(series=2, target=1) == pytest.approx(cell, rel=1e-6)


def test_series_change_no_other_row():
    values = of_series([2, 0, 2, 1, 0])
    found = computed(values)
    plain = computed(values, series_figures=())
    assert plain == {name: value for name, value in found.items() if "/series/" not in name}
    assert plain == computed({name: value for name, value in values.items() if name != "series_names"})
    assert not any("/series/" in name for name in computed({**values, "series": torch.zeros(5, dtype=torch.long)}))


def test_of_many_series_the_worst_are_told(caplog):
    values = of_series(list(range(40)), count=40)
    metric = ForecastError()
    metric.update(**values)
    found = metric.compute()
    by_mase = sorted(range(40), key=lambda number: -metric.figures(series=number)["mase"])
    shown = [name for name in found if name.startswith("mase/series/")]
    assert shown == [f"mase/series/machine-{number}" for number in by_mase[:3]]
    metric.compute()
    assert caplog.messages == ["forecast-error: of 40 series the 3 worst by mase have rows of their own"]
    assert sum(name.startswith("mase/series/") for name in computed(of_series(list(range(32)), count=32))) == 32


def test_the_worst_coverage_is_the_lowest():
    values = of_series(list(range(40)), count=40)
    metric = ForecastError(main="coverage")
    metric.update(**values)
    shown = [name for name in metric.compute() if name.startswith("coverage/series/")]
    lowest = min(range(40), key=lambda number: metric.figures(series=number)["coverage"])
    assert shown[0] == f"coverage/series/machine-{lowest}"


def test_names_of_rows_never_collide():
    values = batch() | {"target_names": ("a/b", "a_b", "step-6")}
    found = computed(values)
    assert [name for name in found if name.startswith("rmse/")] == ["rmse/a_b", "rmse/a_b_", "rmse/step-6_"]
    assert found["mae/step-6"] == computed(batch())["mae/step-6"]


def test_a_step_of_a_series_is_not_kept():
    metric = ForecastError()
    metric.update(**of_series([0, 1]))
    with pytest.raises(ValueError, match="not told apart by series"):
        metric.figures(step=1, series=0)


def test_steps_are_spread_over_the_horizon():
    values = batch(steps=96)
    shown = [name.partition("-")[2] for name in computed(values) if name.startswith("mae/step-")]
    assert shown == ["1", "24", "48", "72", "96"]
    assert [name for name in computed(batch(steps=2)) if "step-" in name] == [
        "mase/step-1", "mae/step-1", "mase/step-2", "mae/step-2",
    ]  # fmt: skip


def test_the_main_figure_comes_first_and_is_there_even_if_it_cannot_be_told():
    values = batch()
    assert next(iter(computed(values))) == "mase"
    assert next(iter(computed(values, main="crps"))) == "crps"
    bare = computed({"forecast": values["forecast"], "truth": values["truth"]})
    assert next(iter(bare)) == "mase"
    assert math.isnan(bare["mase"])
    assert {name.partition("/")[0] for name in bare} == {"mase", "mae", "rmse", "smape", "mape", "wape"}
    assert {"mae/0", "rmse/2", "mae/step-6"} < set(bare)


def test_what_was_not_measured_is_nowhere():
    values = batch()
    broken = {**values, "truth": values["truth"].masked_fill(~values["truth_mask"], math.nan)}
    other = {**values, "truth": values["truth"].masked_fill(~values["truth_mask"], 1e9)}
    assert computed(broken) == computed(other) == computed(values)
    unmasked = {name: value for name, value in broken.items() if name != "truth_mask"}
    assert computed(unmasked) == computed(values)


def test_a_series_that_never_moved_has_no_mase_and_is_told_of():
    values = batch()
    values["season_error"][0] = 0.0
    found, mask = computed(values), values["truth_mask"]
    later = ("forecast", "truth", "truth_mask", "forecast_quantiles", "season_error", "scale")
    rest = by_definition({name: values[name][1:] for name in later})
    assert found["mase"] == pytest.approx(rest["mase"], rel=1e-6)
    assert found["mase-share"] == pytest.approx(float(mask[1:].sum() / mask.sum()))


def test_zeros_on_both_sides_are_no_error():
    found = computed({"forecast": torch.zeros(2, 3, 1), "truth": torch.zeros(2, 3, 1)})
    assert found["smape"] == found["mae"] == 0.0
    assert math.isnan(found["mape"])
    assert math.isnan(found["wape"])


def test_a_forecast_that_is_not_a_number_is_no_good_forecast():
    values = batch()
    values["forecast"] = values["forecast"].clone()
    values["forecast"][:, 0] = math.nan
    found = computed(values)
    assert all(math.isnan(found[name]) for name in ("mase", "mae", "rmse", "smape", "wape", "scaled-mse"))


def test_large_values_keep_their_digits():
    truth = torch.full((1000, 4, 1), 2.0**33)
    assert computed({"forecast": truth + 2**10, "truth": truth})["mae"] == 2**10


def test_a_band_that_is_not_forecast_is_refused():
    with pytest.raises(UsageError, match=r"0\.2 and 0\.8 are not both forecast"):
        computed(batch(), interval=(0.2, 0.8))
    with pytest.raises(UsageError, match="lower level first"):
        ForecastError(interval=(0.9, 0.1))


def test_steps_beyond_the_horizon_are_refused():
    with pytest.raises(UsageError, match="7 is beyond the horizon of 6 steps"):
        computed(batch(), steps=(7,))


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"are to be \[B, H, T\]"):
        ForecastError().update(torch.zeros(2, 3), torch.zeros(2, 3))


def test_nothing_summed_has_no_figures():
    assert all(math.isnan(value) for value in figures_of({}).values())
