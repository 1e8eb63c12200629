"""The task on its embedded sample: what it promises, in each of its models, and figures beside the baselines."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import torch
from trainkit.binding import bind_model
from trainkit.errors import UsageError
from trainkit.testing import TaskConformance
from trainkit_task_series.reading import SAMPLE
from trainkit_task_series.task import SeriesTask

SMALL = {"context": 48, "horizon": 12, "hidden": 16, "heads": 2, "dropout": 0.0}


class TestSeriesConformance(TaskConformance):
    component = "series"
    options = SMALL
    # Columns, splits, windows and a model are set here; flat names spare the user a level of nesting.
    most_options = 32

    def written(self, folder):
        folder.mkdir()
        pl.read_csv(SAMPLE, infer_schema=False).head(400).write_csv(folder / "servers.csv")
        return folder

    def input_paths(self, data):
        return [data / "servers.csv"]


class TestSeriesLinearConformance(TestSeriesConformance):
    options = {**SMALL, "model": "dlinear", "quantiles": (), "statics": ("series",)}
    overfit_lr = 1e-2


class TestSeriesAsinhConformance(TestSeriesConformance):
    options = {**SMALL, "scaling": "asinh", "season_skip": False}


@pytest.fixture(scope="module")
def fitted():
    task = SeriesTask(**SMALL, eval_stride=12)
    splits = task.read(None, 0)
    task.fit(splits.train)
    return task, splits


def batch_of(dataset, count):
    return dataset.__getitems__(list(range(count)))


def test_predictions_are_in_original_units(fitted):
    task, splits = fitted
    table = pl.read_csv(SAMPLE, try_parse_dates=True)
    batch = batch_of(splits.test, 4)
    outputs = bind_model(task.build_model().eval())(batch)
    found = task.predict(None, batch, outputs)
    for sample in range(4):
        name = task.learned.scaling.names[int(batch["series"][sample])]
        start = np.datetime64(int(batch["start_time"][sample]), "us")
        mine = table.filter(pl.col("machine") == name)
        times = mine["time"].to_numpy().astype("datetime64[us]")
        first = int(np.searchsorted(times, start))
        truth = mine[first : first + 12].select("cpu", "memory", "disk", "network").to_numpy()
        assert np.allclose(found["truth"][sample], truth, rtol=1e-4, atol=1e-2)
        before = mine[first - 1].select("cpu", "memory", "disk", "network").to_numpy()[0]
        assert np.allclose(found["last_value"][sample], before, rtol=1e-4, atol=1e-2)
    assert found["forecast"].shape == (4, 12, 4)
    assert found["forecast_quantiles"].shape == (4, 12, 4, 7)
    middle = outputs["quantile_levels"].tolist().index(0.5)
    assert torch.equal(found["forecast"], found["forecast_quantiles"][..., middle])


def test_baselines_say_one_value_at_every_level(fitted):
    task, splits = fitted
    batch = batch_of(splits.val, 3)
    baselines = task.baselines()
    assert list(baselines) == ["persistence", "seasonal-naive"]
    found = baselines["persistence"](batch)
    assert torch.equal(found["forecast"], found["last_value"][:, None].expand(-1, 12, -1))
    assert torch.equal(found["forecast_quantiles"], found["forecast"][..., None].expand(-1, -1, -1, 7))
    # The season of the sample is a day of 48 steps: the whole context.
    season = baselines["seasonal-naive"](batch)["forecast"]
    past = batch["past_values"][:, :12] * batch["scale"][:, None] + batch["loc"][:, None]
    assert torch.allclose(season, past)


def test_state_names_all_that_new_data_needs(fitted):
    task, _ = fitted
    state = task.state_dict()
    assert state["schema"]["targets"] == ["cpu", "memory", "disk", "network"]
    assert state["step"] == 30 * 60 * 1_000_000
    assert state["season"] == 48
    assert state["scaling"]["names"] == ["machine-89", "machine-267", "machine-413"]


def test_names_of_windows_tell_series_and_time(fitted):
    _, splits = fitted
    assert splits.train.ids[0] == "machine-89 at 2013-07-01T22:00:00"


def test_known_ahead_reaches_the_model_and_the_future_does_not(fitted):
    task, splits = fitted
    model = task.build_model().eval()
    batch = batch_of(splits.val, 2)
    outputs = bind_model(model)(batch)["quantiles"]
    changed = {**batch, "future_values": batch["future_values"] + 5}
    assert torch.equal(bind_model(model)(changed)["quantiles"], outputs)
    other = {**batch, "future_time_features": batch["future_time_features"].flip(1)}
    assert not torch.equal(bind_model(model)(other)["quantiles"], outputs)


def test_forecasts_are_told_with_what_counted(fitted):
    task, splits = fitted
    model = task.build_model().eval()
    batch = batch_of(splits.val, 1)
    sample = {name: value[0] if isinstance(value, torch.Tensor) else value for name, value in batch.items()}
    with torch.no_grad():
        (answer,) = task.answers(model, batch, [sample])
    assert set(answer.files) == {".csv", ".json", ".parquet", ".html", ".png"}
    assert [panel.title for panel in answer.panels][-2:] == ["attention", "weights of variables"]
    weights = answer.data["variable_weights"]
    assert sum(weights["past"].values()) == pytest.approx(1, abs=1e-4)
    assert list(weights["future"])[-1] == "distance"
    assert answer.files[".png"].startswith(b"\x89PNG")
    assert "://" not in answer.files[".html"]


def test_the_weights_of_a_season_skip_have_names():
    task = SeriesTask(**SMALL, season_skip=True)
    splits = task.read(None, 0)
    task.fit(splits.train)
    batch = batch_of(splits.val, 1)
    sample = {name: value[0] if isinstance(value, torch.Tensor) else value for name, value in batch.items()}
    with torch.no_grad():
        (answer,) = task.answers(task.build_model().eval(), batch, [sample])
    targets = ["cpu", "memory", "disk", "network"]
    assert list(answer.data["variable_weights"]["future"])[:4] == [f"{name} a season before" for name in targets]


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"quantiles": ()}, "tft forecasts quantiles"),
        ({"quantiles": (0.9, 0.1)}, "must ascend"),
        ({"hidden": 30, "heads": 4}, "multiple of task.heads"),
        ({"season": 500}, "longer than task.context"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, match):
    with pytest.raises(UsageError, match=match):
        SeriesTask(**options)
