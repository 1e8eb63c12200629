"""All windows of other data, seen by what a task learned before."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from trainkit.errors import DataError
from trainkit_task_series.task import SeriesTask

SIZE = {"context": 24, "horizon": 6, "model": "nlinear", "quantiles": (0.1, 0.5, 0.9), "season": 12}


def learned(path):
    task = SeriesTask(**SIZE)
    splits = task.read(path, 0)
    task.fit(splits.train)
    return task, splits


def copy_of(task):
    """Return a task that has the state of another one and has read nothing."""
    other = SeriesTask(**SIZE)
    other.load_state_dict(task.state_dict())
    return other


def batch_of(windows):
    return windows.__getitems__(list(range(len(windows))))


def test_every_window_is_there_and_seen_as_in_the_run(csv):
    task, splits = learned(csv())
    windows = copy_of(task).whole(csv())
    assert len(windows) == 400 - 30 + 1
    whole, test = batch_of(windows), batch_of(splits.test)
    assert list(windows.warnings) == []
    for name in ("past_values", "future_values", "loc", "scale", "season_error"):
        assert torch.equal(whole[name][-len(splits.test) :], test[name]), name
    assert whole["series_names"] == ("a",)


def test_nothing_is_learned_from_other_data(csv):
    task, _ = learned(csv())
    before = task.state_dict()
    shifted = batch_of(task.whole(csv(rows=60, value=lambda i: str(1000 + i))))
    assert task.state_dict() == before
    assert shifted["past_values"].min() > 100


def test_a_new_series_is_scaled_by_the_past_of_its_first_window(csv):
    task, _ = learned(csv())
    values = [float((i * 5) % 11) for i in range(90)]
    windows = task.whole(csv(rows=90, name="new.csv", value=lambda i: str(values[i])))
    assert list(windows.warnings) == ["new: training did not know this series"]
    batch = batch_of(windows)
    assert batch["loc"][0].item() == pytest.approx(np.mean(values[:24]), rel=1e-6)
    assert batch["scale"][0].item() == pytest.approx(np.std(values[:24]), rel=1e-6)
    later = np.abs(np.array(values[12:]) - np.array(values[:-12])).mean()
    assert batch["season_error"][0].item() == pytest.approx(later, rel=1e-6)
    # What comes later changes neither scale nor past.
    values[40:] = [1e6] * 50
    changed = batch_of(task.whole(csv(rows=90, name="new.csv", value=lambda i: str(values[i]))))
    assert torch.equal(changed["past_values"][0], batch["past_values"][0])


def test_data_without_a_window_is_refused(csv):
    task, _ = learned(csv())
    with pytest.raises(DataError, match=r"no window") as caught:
        task.whole(csv(rows=29))
    assert "30 steps (task.context 24 and task.horizon 6)" in caught.value.why
