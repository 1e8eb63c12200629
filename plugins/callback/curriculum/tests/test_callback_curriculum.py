from __future__ import annotations

import math

import numpy as np
import pytest
from trainkit import UsageError
from trainkit.api import start
from trainkit.draft import make_draft
from trainkit.narrowing import Epoch
from trainkit.plan import Selection, Stage
from trainkit.testing import CallbackConformance
from trainkit.testing.resuming import assert_resumes
from trainkit.testing.seen import Seen
from trainkit.testing.tiny import TinyData, TinyTask, tiny_request
from trainkit_callback_curriculum.curriculum import Curriculum, competence, easiest, least, ranks, stage_of

# A hundred samples, the last the easiest.
SCORED = TinyData(100, 1)
SCORED.difficulty = [float(100 - i) for i in range(100)]


def trained(out, *callbacks, epochs=10, stages=None, settings=None, task=None):
    seen = Seen()
    asked = {"out": str(out), "scheduler.warmup": 0.0, **(settings or {})}
    stages = stages or [Stage(epochs=epochs)]
    result = start(tiny_request(asked, stages=stages, callbacks=[*callbacks, seen], task=task))
    return seen, result.summary


class TestCurriculum(CallbackConformance):
    component = "curriculum"


@pytest.mark.parametrize(
    ("time", "share"), [(0, 0.01), (10, 0.31637), (25, 0.500075), (50, 0.707142), (100, 1), (150, 1)]
)
def test_competence(time, share):
    assert competence(time, 100) == pytest.approx(share, abs=5e-6)


def test_competence_of_other_powers():
    assert competence(50, 100, start=0.1, power=1) == pytest.approx(0.55)
    assert competence(10, 100, power=4) > competence(10, 100) > competence(10, 100, power=1)


def test_ranks_are_shares_and_ties_go_to_the_first():
    assert ranks([3.0, 1.0, 3.0, 2.0]).tolist() == [0.75, 0.25, 1.0, 0.5]


def test_stage_of_the_run():
    assert [stage_of(epoch, 100, (0.2, 0.5)) for epoch in (0, 19, 20, 49, 50, 90)] == [0, 0, 1, 1, 2, 2]


def test_stages_end_by_their_latest_epochs_in_long_runs_and_by_shares_in_short_ones():
    shares, latest = (1 / 3, 2 / 3), (2, 4)
    assert [stage_of(epoch, 6, shares, latest) for epoch in range(6)] == [0, 0, 1, 1, 2, 2]
    assert [stage_of(epoch, 60, shares, latest) for epoch in (0, 1, 2, 3, 4, 20, 59)] == [0, 0, 1, 1, 2, 2, 2]
    assert [stage_of(epoch, 3, shares, latest) for epoch in range(3)] == [0, 1, 2]


def test_fewer_than_a_batch_are_made_up_by_the_easiest():
    measure = ranks(SCORED.difficulty)
    assert easiest(np.arange(100), measure, 0.03, 2).tolist() == [97, 98, 99]
    assert easiest(np.arange(100), measure, 0.03, 5).tolist() == [95, 96, 97, 98, 99]
    assert easiest(np.arange(50), measure, 0.03, 5).tolist() == [45, 46, 47, 48, 49]
    assert easiest(np.arange(3), measure, 0.03, 5).tolist() == [0, 1, 2]
    assert (least(8, 100), least(8, 5000)) == (8, 50)


def test_bars_of_a_run():
    competent, staged = Curriculum(), Curriculum(mode="staged")
    assert [competent.bar(Epoch(e, 20 - e)) for e in (0, 1, 10, 15)] == pytest.approx([0.01, competence(1, 10), 1, 1])
    assert [staged.bar(Epoch(e, 10 - e)) for e in range(6)] == [0.33, 0.33, 0.67, 0.67, 0.67, math.inf]


def test_staged_by_difficulty_admits_up_to_the_bar():
    callback = Curriculum(mode="staged", bars=(5, 15), ends=(0.2, 0.5), by="difficulty")
    admitted = [callback.admit(np.arange(100), SCORED, Epoch(e, 10 - e)) for e in (0, 2, 5)]
    assert [len(indices) for indices in admitted] == [5, 15, 100]
    assert admitted[0].tolist() == [95, 96, 97, 98, 99]


def test_a_run_admits_ever_harder_samples_and_is_as_long_as_planned(tmp_path):
    seen, summary = trained(tmp_path / "run", Curriculum(start=0.2))
    data = TinyData(24, 1)
    order = ranks(data.difficulty)
    sizes = [len(epoch) for epoch in seen.epochs]
    expected = [max(4, sum(order <= competence(e, 5, 0.2) + 1e-12)) for e in range(10)]
    assert sizes == expected
    assert sizes[0] == 4
    assert sizes[5:] == [24] * 5
    assert all(set(before) <= set(after) for before, after in zip(seen.epochs[:5], seen.epochs[1:6], strict=True))
    assert summary["steps"] == sum(-(-size // 4) for size in sizes)
    assert seen.rates[-1] < 0.05 * seen.rates[0]


def test_the_plan_tells_the_steps_of_short_epochs():
    request = tiny_request({}, stages=[Stage(epochs=10)], callbacks=[Curriculum(start=0.2)])
    draft = make_draft(request.layers, request.registry, request.live)
    assert draft.stages[0].length.epochs == 10
    assert draft.total_steps < 60 == 10 * draft.stages[0].length.steps_per_epoch


def test_it_intersects_with_what_the_plan_selects(tmp_path):
    stage = Stage(epochs=2, selection=Selection(min_quality=0.5))
    seen, _ = trained(tmp_path / "run", Curriculum(mode="staged", bars=(0.5,), ends=(0.5,)), stages=[stage])
    data = TinyData(24, 1)
    good = {i for i in range(24) if data.quality[i] >= 0.5}
    easy = {i for i in range(24) if ranks(data.difficulty)[i] <= 0.5}
    assert set(seen.epochs[0]) == good & easy
    assert set(seen.epochs[1]) == good


def test_too_few_are_told_once(tmp_path, caplog):
    trained(tmp_path / "run", Curriculum(), epochs=4)
    assert caplog.text.count("fewer samples than a batch are as easy as it asks for; the easiest 4 are taken") == 1


def test_an_empty_first_stage_is_refused_before_anything_is_written(tmp_path):
    staged = Curriculum(mode="staged", bars=(1, 5), ends=(0.2, 0.5), by="difficulty")
    with pytest.raises(UsageError, match=r"(?s)first stage of the curriculum is empty.*from 2 to 8"):
        trained(tmp_path / "run", staged)
    assert not (tmp_path / "run").exists()


def test_data_without_difficulty_is_refused_before_anything_is_written(tmp_path):
    class Plain(TinyTask):
        def read(self, data, seed):
            splits = super().read(data, seed)
            splits.train.difficulty = None
            return splits

    with pytest.raises(UsageError, match="needs to know how difficult samples are"):
        trained(tmp_path / "run", Curriculum(), task=Plain())
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bars": (0.5,), "ends": (0.2, 0.5)}, "an end for each bar"),
        ({"bars": (0.5, 0.4)}, "must ascend"),
        ({"ends": (0.5, 0.5)}, "must ascend"),
        ({"latest": (4, 2)}, "must ascend"),
        ({"latest": (4,)}, "each end of a curriculum has a latest epoch"),
        ({"bars": (5, 15)}, "bars by rank are shares"),
    ],
)
def test_options_that_make_no_curriculum(options, message):
    with pytest.raises(UsageError, match=message):
        Curriculum(mode="staged", **options)


@pytest.mark.parametrize("options", [{"start": 0.3}, {"mode": "staged"}])
def test_two_and_three_epochs_are_five(options, tmp_path):
    assert_resumes(tmp_path, lambda: [Curriculum(**options)], [5, 9], {"optimizer.lr": 0.02})


def test_max_steps_cuts_a_run_of_short_epochs_at_its_steps(tmp_path):
    seen, summary = trained(tmp_path / "run", Curriculum(start=0.2), settings={"loop.max_steps": 9})
    assert summary["steps"] == len(seen.rates) == 9
    assert len(seen.epochs[0]) == 4
