"""New series through a trained task: the steps after their end."""

from __future__ import annotations

import datetime as dt
import io
import json

import numpy as np
import polars as pl
import pytest
import torch
from trainkit.contracts import SAMPLE_ID
from trainkit.errors import DataError
from trainkit_task_series.naive import Persistence
from trainkit_task_series.task import SeriesTask

BEGIN = dt.datetime(2026, 1, 1)
SIZE = {"context": 24, "horizon": 6, "model": "nlinear", "quantiles": (0.1, 0.5, 0.9)}


def at(i):
    return (BEGIN + dt.timedelta(minutes=5 * i)).isoformat()


def trained(path, **options):
    task = SeriesTask(**SIZE, **options)
    splits = task.read(path, 0)
    task.fit(splits.train)
    return task


def answered(task, path, model=None):
    ends = task.inputs([path])
    samples = ends.__getitems__(list(range(len(ends))))
    torch.manual_seed(0)
    batch = {**task.collate(samples), SAMPLE_ID: torch.arange(len(samples))}
    with torch.no_grad():
        return task.answers((model or task.build_model()).eval(), batch, samples)


def test_the_forecast_begins_one_step_after_the_last_measured_value(csv):
    task = trained(csv())
    (answer,) = answered(task, csv(rows=100))
    assert answer.name == "a"
    assert answer.data["start"] == at(100)
    table = pl.read_csv(io.StringIO(answer.files[".csv"]))
    assert table.columns == ["series", "time", "target", "forecast", "q0.1", "q0.5", "q0.9"]
    assert table["series"].unique().to_list() == ["a"]
    assert table["time"].to_list() == [at(100 + i) for i in range(6)]
    assert table["q0.1"].is_between(-1e9, table["q0.9"]).all()
    packed = pl.read_parquet(io.BytesIO(answer.files[".parquet"]))
    assert np.allclose(packed["forecast"], table["forecast"])
    assert packed["time"].dtype == pl.Datetime("us")
    told = json.loads(answer.files[".json"])["targets"]["load"]["forecast"]
    assert np.array_equal(np.array(told, np.float32), packed["forecast"].to_numpy())


def test_forecasts_are_in_original_units(csv):
    task = trained(csv(), scaling="robust")
    task.forecaster = type(task.forecaster)(**{**vars(task.forecaster), "quantiles": ()})
    (answer,) = answered(task, csv(rows=100, value=lambda i: "4.25"), Persistence(6))
    assert answer.data["targets"]["load"]["forecast"] == pytest.approx([4.25] * 6, rel=1e-6)


def test_a_series_that_training_did_not_know_is_scaled_by_itself_and_says_so(csv):
    task = trained(csv())
    (known,) = answered(task, csv())
    (unknown,) = answered(task, csv(name="b.csv", value=lambda i: str(1000 + i % 7)))
    assert "note" not in known.data
    assert "scaled by its own past" in unknown.data["note"]
    assert min(unknown.data["targets"]["load"]["forecast"]) > 900


def test_a_short_past_and_gaps_count_as_missing(csv):
    task = trained(csv())
    ends = task.inputs([csv(rows=10, time=lambda i: at(i + 5 * (i >= 8)))])
    (sample,) = ends.__getitems__([0])
    assert sample["past_observed_mask"].flatten().tolist() == [False] * 9 + [True] * 8 + [False] * 5 + [True] * 2
    assert not sample["future_observed_mask"].any()
    assert sample["past_values"].isfinite().all()


def test_what_is_known_ahead_has_to_be_there(csv, tmp_path):
    def write(name, rows, planned):
        lines = [f"{at(i)},{i % 7 if i < rows else ''},{(i % 3) if i < planned else ''}" for i in range(rows + 6)]
        path = tmp_path / name
        path.write_text("\n".join(["time,load,plan", *lines]))
        return path

    task = trained(write("a.csv", 300, 306), targets=("load",), known=("plan",))
    (answer,) = answered(task, write("b.csv", 100, 106))
    assert answer.data["start"] == at(100)
    (sample,) = task.inputs([write("b.csv", 100, 106)]).__getitems__([0])
    scaled = sample["future_time_features"][:, 0]
    assert torch.allclose(scaled[:3], scaled[3:])
    assert len(set(scaled.tolist())) == 3
    with pytest.raises(DataError, match="column 'plan' has to be known ahead"):
        task.inputs([write("c.csv", 100, 103)])


def test_inputs_need_the_columns_of_training(csv, tmp_path):
    task = trained(csv())
    with pytest.raises(DataError, match="no column 'load'"):
        task.inputs([csv(head="time,cpu")])
    with pytest.raises(DataError, match="no target that was measured"):
        task.inputs([csv(value=lambda i: "")])


def test_times_and_series_may_be_called_otherwise_in_other_data(csv, tmp_path):
    task = SeriesTask(context=20, horizon=3, model="nlinear", quantiles=())
    task.fit(task.read(csv(), 0).train)
    (tmp_path / "other").mkdir()
    other = csv(name="other/b.csv", head="Timestamp,load")
    ends = task.inputs([other])
    assert ends.__getitems__([0])[0]["name"] == "b"
    assert any("time 'Timestamp', and 'time' in training" in warning for warning in task.whole(other).warnings)
    with pytest.raises(DataError, match="there is no column 'load'"):
        task.inputs([csv(name="other/c.csv", head="Timestamp,weight")])
