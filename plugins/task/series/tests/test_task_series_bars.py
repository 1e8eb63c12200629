"""Rows as steps, targets relative to their last value, and what a task on top may set."""

from __future__ import annotations

import json
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from trainkit.errors import UsageError
from trainkit.tables import read_tables
from trainkit_task_series.bars import Bars, weekday
from trainkit_task_series.grid import DAY
from trainkit_task_series.relative import centred
from trainkit_task_series.rows import Rows
from trainkit_task_series.task import SeriesTask

OPTIONS = {"context": 10, "horizon": 3, "model": "nlinear", "quantiles": (), "step": "row", "calendar": ()}


def trading_days(count: int, holidays: tuple[int, ...] = ()) -> list[date]:
    days = (date(2024, 1, 1) + timedelta(days=n) for n in range(3 * count))
    return [day for n, day in enumerate(day for day in days if day.weekday() < 5) if n not in holidays][:count]


@pytest.fixture
def prices(tmp_path: Path):
    def make(name: str = "a", days: list[date] | None = None, scale: float = 1.0, seed: int = 0) -> Path:
        days = days or trading_days(120)
        steps = np.random.default_rng(seed).normal(0, 0.01, len(days))
        closes = scale * 100 * np.exp(np.cumsum(steps))
        pl.DataFrame({"date": [str(day) for day in days], "close": closes}).write_csv(tmp_path / f"{name}.csv")
        return tmp_path

    return make


def fitted(data: Path, **options):
    task = SeriesTask(**{**OPTIONS, **options})
    splits = task.read(data, 0)
    task.fit(splits.train)
    return task, splits


class TestBars:
    def test_weekends_and_holidays_are_no_gaps(self, prices):
        task, splits = fitted(prices(days=trading_days(120, holidays=(30, 31))))
        panel = task.found.panel
        assert len(panel) == 120
        assert np.isfinite(panel.values).all()
        assert len(np.unique(panel.first)) == 1
        assert len(splits.train) + len(splits.val) + len(splits.test) > 100

    def test_a_distance_above_the_longest_gap_breaks_the_segment(self, prices):
        days = trading_days(160)
        days = days[:60] + days[90:]
        task, splits = fitted(prices(days=days))
        panel = task.found.panel
        assert len(np.unique(panel.first)) == 2
        for start in splits.train.starts.tolist():
            assert panel.first[start - 10] == panel.first[start + 2]
        assert any(finding.rule == "long gap" for finding in task.inspect(prices(days=days)).findings)

    def test_each_time_counts_once_and_the_last_row_of_it(self, prices):
        days = trading_days(100)
        task, _ = fitted(prices(days=sorted([*days, days[40]])))
        assert len(task.found.panel) == 100

    def test_times_go_on_over_weekends(self):
        times = np.array([np.datetime64(day, "us").astype(np.int64) for day in trading_days(10)])
        rows = Rows(("a",), np.zeros(10, np.int64), times, np.zeros((10, 1)), ((),))
        bars = Bars.of(rows, DAY)
        places = np.arange(-3, 14)
        found = bars.times(places, np.zeros(len(places), np.int64))
        assert np.array_equal(found[3:13], times)
        assert (np.diff(found) > 0).all()
        assert set(weekday(found).tolist()) <= set(range(5))
        assert bars.earlier(int(times[7]), 3) == times[4]
        assert bars.earlier(int(times[4]), -3) == times[7]
        assert bars.earlier(int(times[4]), 0) == times[4]

    def test_no_target_is_in_two_parts(self, prices):
        _, splits = fitted(prices(), purge=4)
        seen = [
            {row for start in part.starts.tolist() for row in range(start, start + 3)} for _, part in splits.items()
        ]
        assert not seen[0] & seen[1]
        assert not seen[1] & seen[2]
        assert min(seen[1]) - max(seen[0]) == 5

    def test_answers_name_the_next_trading_days(self, prices):
        folder = prices(days=trading_days(120))
        task, _ = fitted(folder)
        ends = task.inputs([folder])
        samples = ends.__getitems__([0])
        with torch.no_grad():
            answer = task.answers(task.build_model(), task.collate(samples), samples)[0]
        times = [date.fromisoformat(time[:10]) for time in json.loads(answer.files[".json"])["times"]]
        assert times == trading_days(123)[120:]


class TestRelative:
    def test_windows_of_any_level_look_alike(self, prices):
        prices("a", scale=1.0)
        task, splits = fitted(prices("b", scale=1000.0), relative=("close",))
        batch = splits.train.__getitems__(list(range(len(splits.train))))
        first = batch["series"] == 0
        assert torch.allclose(batch["past_values"][first], batch["past_values"][~first], atol=1e-3)
        assert (batch["past_values"][:, -1] == 0).all()
        restored = batch["future_values"] * batch["scale"][:, None] + batch["loc"][:, None]
        rows = splits.train.starts[:, None] + torch.arange(3)
        assert torch.allclose(restored.double(), torch.from_numpy(task.found.panel.values)[rows], rtol=1e-6)

    def test_the_future_of_a_window_does_not_move_its_scale(self, prices):
        data = prices()
        task, splits = fitted(data, relative=("close",))
        before = splits.test.__getitems__([0])
        task.found.panel.values[int(splits.test.starts[0]) :] *= 7
        task._scale()
        after = splits.test.__getitems__([0])
        for name in ("past_values", "loc", "scale"):
            assert torch.equal(before[name], after[name]), name
        assert not torch.equal(before["future_values"], after["future_values"])

    def test_scales_are_those_of_training_rows(self, prices):
        data = prices()
        task, _ = fitted(data, relative=("close",))
        values, count = task.found.panel.values[:, 0], int(0.7 * 120)
        moves = values[5:count] / values[: count - 5] - 1
        assert task.learned.scaling.scale[0, 0] == pytest.approx(np.sqrt(np.mean(moves**2)))

    def test_what_cannot_be_divided_by_keeps_the_level_of_its_series(self):
        values = torch.tensor([[[2.0], [0.0], [3.0]], [[0.0], [0.0], [3.0]]])
        measured = torch.tensor([[[True], [False], [True]], [[False], [False], [True]]])
        loc, scale, relative = torch.full((2, 1), 5.0), torch.full((2, 1), 0.1), torch.tensor([True])
        scaled, centre, spread = centred(values, measured, 2, loc, scale, relative)
        assert centre.flatten().tolist() == [2.0, 5.0]
        assert spread.flatten().tolist() == pytest.approx([0.2, 0.5])
        assert scaled[:, 2].flatten().tolist() == pytest.approx([5.0, -4.0])
        assert scaled[0, 1] == 0

    def test_its_state_brings_it_back(self, prices):
        data = prices()
        task, splits = fitted(data, relative=("close",))
        other = SeriesTask(**OPTIONS, relative=("close",))
        again = other.read(data, 0)
        other.load_state_dict(json.loads(json.dumps(task.state_dict())))
        for name, value in splits.val.__getitems__([3]).items():
            if isinstance(value, torch.Tensor):
                assert torch.equal(value, again.val.__getitems__([3])[name]), name

    def test_what_is_no_target_is_refused(self, prices):
        with pytest.raises(UsageError, match=r"task\.relative names open"):
            fitted(prices(), relative=("open",))


class TestOnTop:
    def test_tables_may_be_changed_before_they_are_series(self, prices):
        def doubled(paths):
            tables, findings = read_tables(paths)
            for table in tables:
                table.frame.insert_column(2, (table.frame["close"].cast(float) * 2).alias("twice"))
            return tables, findings

        task = SeriesTask(**OPTIONS)
        task.tables = doubled
        task.fit(task.read(prices(), 0).train)
        assert task.found.schema.targets == ("close", "twice")
        assert task.inputs([prices()]).__getitems__([0])[0]["past_values"].shape == (10, 2)

    def test_forecasts_keep_what_they_are_bound_to(self, prices):
        task, splits = fitted(prices(), model="dlinear", quantiles=(0.1, 0.5, 0.9))
        task.bounded = lambda values, _: values.clamp(max=90.0)
        batch = splits.val.__getitems__([0, 1])
        outputs = task.build_model()(batch["past_values"])
        found = task.predict(task.build_model(), batch, outputs)
        assert found["forecast"].max() <= 90
        assert found["forecast_quantiles"].max() <= 90
        assert found["truth"].max() > 90
