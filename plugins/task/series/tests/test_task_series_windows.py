"""Grid, parts, windows and scales: nothing crosses a gap, and nothing of the future leaks."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pytest
import torch
from trainkit.errors import UsageError
from trainkit_task_series.calendar import calendar_features, usual_calendar
from trainkit_task_series.forecasts import unscaled
from trainkit_task_series.grid import DAY, Grid
from trainkit_task_series.scaling import location_and_scale, season_error
from trainkit_task_series.splitting import Part, windows_of
from trainkit_task_series.task import SeriesTask
from trainkit_task_series.windows import strided

BEGIN = dt.datetime(2026, 1, 1)


def at(i):
    return (BEGIN + dt.timedelta(minutes=5 * i)).isoformat()


def fitted(path, **options):
    task = SeriesTask(**{"context": 60, "horizon": 5, **options})
    splits = task.read(path, 0)
    task.fit(splits.train)
    return task, splits


def test_hundred_rows_give_36_windows(csv):
    task, _ = fitted(csv(rows=100))
    panel = task.found.panel
    assert len(windows_of(panel, Part("all", ((0, np.iinfo(np.int64).max),)), 60, 5, 1, 1)) == 36


def test_windows_are_what_indexing_gives(csv):
    task, splits = fitted(csv(value=lambda i: "" if i % 11 == 3 else str(i)))
    panel, learned = task.found.panel, task.learned
    index = [0, 7, 31]
    batch = splits.train.__getitems__(index)
    for place, start in enumerate(splits.train.starts[index].tolist()):
        raw = panel.values[start - 60 : start + 5, 0]
        scaled = np.where(np.isfinite(raw), (raw - learned.scaling.loc[0, 0]) / learned.scaling.scale[0, 0], 0.0)
        both = torch.cat([batch["past_values"], batch["future_values"]], dim=1)[place, :, 0]
        mask = torch.cat([batch["past_observed_mask"], batch["future_observed_mask"]], dim=1)[place, :, 0]
        assert np.allclose(both, scaled.astype(np.float32))
        assert np.array_equal(mask, np.isfinite(raw))
        assert int(batch["start"][place]) == start
        assert int(batch["start_time"][place]) == panel.times[start]


def test_strided_windows_copy_nothing_but_themselves():
    rows = torch.arange(20.0).view(10, 2)
    assert strided(rows, torch.tensor([0, 6]), 4).tolist() == [rows[0:4].tolist(), rows[6:10].tolist()]


def test_no_window_crosses_a_long_gap_or_the_border_of_series(csv, tmp_path):
    first = csv(time=lambda i: at(i + 40 * (i >= 200)), rows=400).read_text()
    (tmp_path / "two").mkdir()
    for name in ("x", "y"):
        (tmp_path / "two" / f"{name}.csv").write_text(first)
    task, splits = fitted(tmp_path / "two", max_gap=12)
    panel = task.found.panel
    assert len(np.unique(panel.first)) == 4
    for _, part in splits.items():
        for start in part.starts.tolist():
            times = panel.times[start - 60 : start + 5]
            assert set(np.diff(times)) == {panel.grid.step}
            assert len(set(panel.series[start - 60 : start + 5])) == 1


def test_short_gaps_are_missing_values(csv):
    task, splits = fitted(csv(time=lambda i: at(i + 4 * (i >= 200))))
    assert len(task.found.panel) == 404
    assert np.isnan(task.found.panel.values[200:204]).all()
    mask = torch.cat([splits.train.__getitems__([i])["future_observed_mask"] for i in range(len(splits.train))])
    # A window whose horizon has nothing measured would teach nothing.
    assert mask.flatten(1).any(1).all()


@pytest.mark.parametrize("options", [{}, {"purge": 7}, {"split": (0.5, 0.25, 0.25)}, {"eval_stride": 5}])
def test_no_target_is_in_two_parts_and_none_of_training_after_the_cut(csv, options):
    task, splits = fitted(csv(), **options)
    targets = {
        name: {row for start in part.starts.tolist() for row in range(start, start + 5)}
        for name, part in splits.items()
    }
    assert set(targets) == {"train", "val", "test"}
    assert not targets["train"] & targets["val"]
    assert not targets["val"] & targets["test"]
    gap = options.get("purge", 0)
    assert min(targets["val"]) - max(targets["train"]) == 1 + gap
    assert task.found.parts[0].end == task.found.parts[1].begin - gap * task.found.panel.grid.step


def test_cuts_are_times_and_a_third_one_ends_the_test(csv):
    task, splits = fitted(csv(), cuts=(at(250), at(300), at(350)))
    begins = {name: int(part.starts[0]) for name, part in splits.items()}
    assert begins == {"train": 60, "val": 250, "test": 300}
    assert int(splits.test.starts[-1]) == 345
    assert task.found.parts[2].end == task.found.panel.times[350]
    for cuts in ((at(300), at(250)), (at(3),), ("soon", at(9))):
        with pytest.raises(UsageError, match=r"task\.cuts"):
            fitted(csv(), cuts=cuts)
    with pytest.raises(UsageError, match="sum to 1"):
        fitted(csv(), split=(0.5, 0.1, 0.1))


def test_strides_leave_out_windows_from_the_first_on(csv):
    _, every = fitted(csv())
    _, third = fitted(csv(), stride=3)
    assert third.train.starts.tolist() == every.train.starts.tolist()[::3]
    assert third.val.starts.tolist() == every.val.starts.tolist()


def test_scales_do_not_know_the_future(csv):
    plain, _ = fitted(csv())
    spoiled, _ = fitted(csv(value=lambda i: "1e6" if i >= 280 else f"{(i * 7) % 13 + i / 100:.3f}"))
    assert np.array_equal(plain.learned.scaling.loc, spoiled.learned.scaling.loc)
    assert np.array_equal(plain.learned.scaling.scale, spoiled.learned.scaling.scale)
    assert np.array_equal(plain.learned.scaling.season_error, spoiled.learned.scaling.season_error)


def test_scaling_is_undone_exactly(csv):
    for scaling in ("standard", "robust", "none"):
        task, splits = fitted(csv(), scaling=scaling)
        batch = splits.test.__getitems__([0])
        restored = batch["future_values"] * batch["scale"][:, None] + batch["loc"][:, None]
        start = int(splits.test.starts[0])
        assert np.allclose(restored[0], task.found.panel.values[start : start + 5], rtol=1e-6, atol=1e-6)


def heavy(i):
    """Return a load of about 10 that bursts to thousands, with gaps."""
    return "" if i % 17 == 4 else f"{4000 + i if i % 50 == 9 else 10 + (i * 7) % 13:.3f}"


def test_asinh_bends_heavy_tails_and_is_undone_in_original_units(csv):
    task, splits = fitted(csv(value=heavy), scaling="asinh")
    robust, _ = fitted(csv(value=heavy), scaling="robust")
    assert np.array_equal(task.learned.scaling.loc, robust.learned.scaling.loc)
    assert np.array_equal(task.learned.scaling.scale, robust.learned.scaling.scale)
    batch = splits.test.__getitems__([0, 30])
    loc, scale = batch["loc"][:, None], batch["scale"][:, None]
    for place, start in enumerate(splits.test.starts[[0, 30]].tolist()):
        raw = torch.from_numpy(task.found.panel.values[start : start + 5])
        mask = batch["future_observed_mask"][place]
        bent = ((raw - loc[place]) / scale[place]).asinh()
        assert torch.allclose(batch["future_values"][place][mask].double(), bent[mask], atol=1e-6)
        assert torch.allclose(unscaled(batch["future_values"], batch)[place][mask].double(), raw[mask], rtol=1e-5)
    assert splits.train.store.rows.abs().max() < 8 < robust.found.windows["train"].store.rows.abs().max()


def test_asinh_changes_no_baseline_and_keeps_the_order_of_quantiles(csv):
    batches = {}
    for scaling in ("asinh", "standard"):
        task, splits = fitted(csv(value=heavy), scaling=scaling)
        batch = splits.test.__getitems__([0, 7])
        batches[scaling] = task.baselines()["persistence"](batch)["forecast"]
    assert torch.allclose(batches["asinh"], batches["standard"], rtol=1e-4)
    task, splits = fitted(csv(value=heavy), scaling="asinh")
    batch = splits.test.__getitems__([0])
    wild = torch.linspace(-200, 200, 7).expand(1, 5, 1, 7)
    found = unscaled(wild, batch)
    assert found.isfinite().all(), "beyond what a float holds, were it not limited"
    assert (found.diff(dim=-1) >= 0).all()


def test_a_state_tells_how_its_scales_are_meant(csv):
    task, _ = fitted(csv(value=heavy), scaling="asinh")
    assert "asinh_mask" in task.sample_keys
    again = SeriesTask(context=60, horizon=5)
    again.load_state_dict(task.state_dict())
    other = again.inputs([csv(value=heavy)]).windows.__getitems__([0])
    assert other["asinh_mask"].tolist() == [[True]]
    plain, windows = fitted(csv(value=heavy))
    assert "asinh_mask" not in plain.sample_keys | set(windows.train.__getitems__([0]))


def test_robust_scale_of_the_specification():
    values = np.array([1.0, 2, 3, 4, 100, np.nan])[:, None]
    loc, scale = location_and_scale(values, "robust")
    assert (loc[0], scale[0]) == (3, 2)
    assert ((values[:5, 0] - loc) / scale).tolist() == [-1, -0.5, 0, 0.5, 48.5]


def test_what_does_not_move_has_scale_1():
    for method in ("standard", "robust"):
        assert location_and_scale(np.full((9, 1), 7.1), method)[1].tolist() == [1.0]
    # No spread in the middle: the deviation takes its place.
    values = np.array([0.0] * 9 + [10])[:, None]
    assert location_and_scale(values, "robust")[1][0] == values.std()


def test_season_error_is_that_of_the_naive_forecast():
    values = np.array([5.0, 7, 6, 9, 8])[:, None]
    assert season_error(values, np.arange(1, 5), 1)[0] == pytest.approx(1.75)
    assert season_error(values, np.arange(2, 5), 2)[0] == pytest.approx((1 + 2 + 2) / 3)
    assert np.isnan(season_error(values, np.arange(0), 1))[0]


def test_times_go_to_the_nearest_place_of_the_grid():
    grid, series = Grid(300, np.array([0, 17])), np.array([1, 1, 1, 0])
    assert grid.places(np.array([17, 166, 168, 316]), series).tolist() == [0, 0, 1, 1]
    assert grid.times(np.array([0, 2]), np.array([1, 0])).tolist() == [17, 600]


def test_each_series_keeps_the_minutes_of_its_own_clock(csv, tmp_path):
    (tmp_path / "two").mkdir()
    for name, shift in (("x", 0), ("y", 2)):
        rows = csv(time=lambda i, shift=shift: (BEGIN + dt.timedelta(minutes=5 * i + shift)).isoformat())
        (tmp_path / "two" / f"{name}.csv").write_text(rows.read_text())
    found = fitted(tmp_path / "two")[0].found
    assert found.findings == ()
    assert found.panel.grid.phases.tolist() == [0, 120_000_000]


def test_times_that_wander_are_brought_to_round_ones(csv):
    found = fitted(csv(time=lambda i: (BEGIN + dt.timedelta(seconds=300 * i + i // 10)).isoformat()))[0].found
    assert found.findings[0].text == "390 of 400 times off the grid, by 39 seconds at most: moved to it"
    assert set(found.panel.times % 300_000_000) == {0}


def test_calendar_tells_the_clock():
    saturday_noon = np.array([np.datetime64("2026-11-21T12:00", "us").astype(np.int64)])
    (features,) = calendar_features(saturday_noon, ("hour", "weekday", "month", "weekend"))
    angle = [2 * np.pi * 12 / 24, 2 * np.pi * 5 / 7, 2 * np.pi * 10 / 12]
    expected = [x for turn in angle for x in (np.sin(turn), np.cos(turn))] + [1.0]
    assert np.allclose(features, expected, atol=1e-6)
    assert calendar_features(saturday_noon, ()).shape == (1, 0)
    assert usual_calendar(DAY // 24) == ("hour", "weekday")
    assert usual_calendar(DAY) == ("weekday", "month")
    assert usual_calendar(7 * DAY) == ("month",)
