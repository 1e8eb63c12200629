from __future__ import annotations

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
from trainkit import UsageError, hookimpl
from trainkit.api import start
from trainkit.narrowing import Epoch
from trainkit.plan import Stage
from trainkit.rundir import rows
from trainkit.testing import CallbackConformance
from trainkit.testing.resuming import assert_resumes
from trainkit.testing.seen import Seen
from trainkit.testing.tiny import TinyTask, tiny_request
from trainkit_callback_quality_threshold.quality_threshold import QualityThreshold, good_enough, linear, stepped

# A quality of 0, .05, ... .85, and two that are unknown.
SCORED = SimpleNamespace(quality=[i / 20 for i in range(18)] + [None, float("nan")])


class Unscored(TinyTask):
    def read(self, data, seed):
        splits = super().read(data, seed)
        del splits.train.quality
        return splits


def trained(out, *callbacks, epochs=6, settings=None, task=None):
    seen, asked = Seen(), {"out": str(out), "loop.log_every_steps": 1, **(settings or {})}
    result = start(tiny_request(asked, stages=[Stage(epochs=epochs)], callbacks=[*callbacks, seen], task=task))
    return seen, result.summary


class TestQualityThreshold(CallbackConformance):
    component = "quality-threshold"


def test_the_bar_of_each_epoch():
    assert [stepped(e, 0.5, 0.75, 0.05) for e in range(8)] == pytest.approx(
        [0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.75, 0.75]
    )
    assert [linear(e, 6, 0.5, 0.75) for e in range(6)] == pytest.approx([0.5, 0.55, 0.6, 0.65, 0.7, 0.75])
    assert linear(0, 1, 0.5, 0.75) == 0.5
    rising = QualityThreshold(mode="linear", start=0.2, end=0.8)
    assert [rising.bar(Epoch(e, 4 - e)) for e in range(4)] == pytest.approx([0.2, 0.4, 0.6, 0.8])


def test_a_score_at_the_bar_is_admitted_whatever_the_rounding():
    quality = np.array([0.5, 0.55, 0.6, 0.65, 0.7, 0.75])
    assert [len(good_enough(np.arange(6), quality, stepped(e, 0.5, 0.75, 0.05), 1)) for e in range(6)] == [
        6,
        5,
        4,
        3,
        2,
        1,
    ]


def test_too_few_are_made_up_by_the_best():
    quality = np.array([0.1, 0.9, 0.3, 0.8])
    assert good_enough(np.arange(4), quality, 0.85, 3).tolist() == [1, 2, 3]
    assert good_enough(np.array([0, 2]), quality, 0.85, 3).tolist() == [0, 2]


def test_samples_without_a_quality_are_kept_or_dropped():
    keep, drop = QualityThreshold(min_samples=1), QualityThreshold(missing="drop", min_samples=1)
    assert keep.admit(np.arange(20), SCORED, Epoch(0, 9)).tolist() == list(range(10, 20))
    assert drop.admit(np.arange(20), SCORED, Epoch(0, 9)).tolist() == list(range(10, 18))


def test_a_run_admits_ever_better_samples_and_is_as_long_as_planned(tmp_path):
    seen, summary = trained(tmp_path / "run", QualityThreshold())
    good = [sum(1 - i / 24 >= bar - 1e-9 for i in range(24)) for bar in (0.5, 0.55, 0.6, 0.65, 0.7, 0.75)]
    assert [len(epoch) for epoch in seen.epochs] == good
    assert good[0] > good[-1]
    assert summary["steps"] == sum(-(-count // 4) for count in good)
    log = [row for row in rows(tmp_path / "run" / "metrics.jsonl") if "quality-threshold/bar" in row]
    assert [row["quality-threshold/bar"] for row in log] == pytest.approx([0.5, 0.55, 0.6, 0.65, 0.7, 0.75])
    assert [row["quality-threshold/admitted"] for row in log] == good


def test_it_selects_before_others_whatever_the_order(tmp_path):
    class Largest:
        """Admits the half with the larger numbers of what it is asked about."""

        @hookimpl
        def select_samples(self, indices):
            return indices[len(indices) // 2 :]

    drawn = []
    for callbacks in itertools.permutations([QualityThreshold(), Largest()]):
        seen, _ = trained(tmp_path / str(len(drawn)), *callbacks, epochs=1)
        drawn.append(set(seen.epochs[0]))
    assert drawn[0] == drawn[1] == set(range(6, 13))


def test_too_few_are_told_once(tmp_path, caplog):
    seen, _ = trained(tmp_path / "run", QualityThreshold(start=0.99, end=0.99, min_samples=7), epochs=2)
    assert [sorted(epoch) for epoch in seen.epochs] == [list(range(7))] * 2
    assert caplog.text.count("too few samples have a quality of 0.99; the best 7 are taken") == 1


def test_data_without_quality_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(UsageError, match="needs the quality of samples"):
        trained(tmp_path / "run", QualityThreshold(), task=Unscored())
    assert not (tmp_path / "run").exists()


def test_a_bar_that_falls_is_refused():
    with pytest.raises(UsageError, match=r"cannot rise from 0\.8 to 0\.75"):
        QualityThreshold(start=0.8)


def test_two_and_three_epochs_are_five(tmp_path):
    assert_resumes(tmp_path, lambda: [QualityThreshold()], [2, 5], {"optimizer.lr": 0.02})
