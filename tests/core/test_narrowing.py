"""Callbacks that admit fewer samples: order, intersection, and the steps that a plan counts."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
from trainkit import UsageError, hookimpl
from trainkit.api import start
from trainkit.draft import make_draft
from trainkit.narrowing import Epoch, admitted_by, epoch_of, epochs_left
from trainkit.plan import Selection, Stage
from trainkit.registry import Registry
from trainkit.stages import PlannedStage
from trainkit.testing.tiny import TinyData, tiny_request, tiny_run

SAMPLES, BATCH = 24, 4


class Share:
    """Admits the first samples: as many as the epoch before it, times a share."""

    def __init__(self, share: float, last: int = 0) -> None:
        self.share, self.last = share, last

    def admit(self, indices: Any, train: Any, epoch: Epoch) -> Any:
        return indices if epoch.left <= self.last else indices[: max(1, int(self.share**epoch.number * len(indices)))]

    @hookimpl
    def select_samples(self, run: Any, indices: Any) -> Any:
        return admitted_by(self, run, indices)


class Heard:
    """Notes the samples of each epoch, and the epochs that are left."""

    def __init__(self) -> None:
        self.epochs: list[list[int]] = []
        self.left: list[int] = []

    @hookimpl
    def on_epoch_start(self, run: Any) -> None:
        self.epochs.append([])
        self.left.append(epoch_of(run).left)

    @hookimpl
    def on_loss(self, batch: Any) -> None:
        self.epochs[-1] += batch["sample_id"].tolist()


def planned(
    stages: list[Stage], callbacks: list[Any], settings: dict[str, Any] | None = None
) -> tuple[PlannedStage, ...]:
    request = tiny_request(settings, stages=stages, callbacks=callbacks)
    return make_draft(request.layers, request.registry, request.live).stages


def lengths(stages: tuple[PlannedStage, ...]) -> list[tuple[int, int]]:
    return [(each.length.steps, each.length.epochs) for each in stages]


def test_a_stage_of_epochs_has_fewer_steps() -> None:
    assert lengths(planned([Stage(epochs=4)], [Share(0.5)])) == [(6 + 3 + 2 + 1, 4)]
    assert lengths(planned([Stage(epochs=4)], [Share(0.5, last=1)])) == [(6 + 3 + 2 + 6, 4)]
    assert lengths(planned([Stage(epochs=4)], [])) == [(24, 4)]


def test_one_that_counts_is_not_asked_for_samples() -> None:
    class Counted(Share):
        def admit(self, indices: Any, train: Any, epoch: Epoch) -> Any:
            raise AssertionError

        def count(self, samples: int, epoch: Epoch) -> int:
            return samples // 2 if epoch.number else samples

    assert lengths(planned([Stage(epochs=2)], [Counted(0.5)])) == [(6 + 3, 2)]


def test_a_stage_of_steps_has_more_epochs() -> None:
    assert lengths(planned([Stage(steps=12)], [Share(0.5)])) == [(12, 4)]


def test_stages_follow_one_another_and_the_last_epochs_are_those_of_the_plan() -> None:
    stages = [
        Stage(name="easy", epochs=2, selection=Selection(easiest=0.5)),
        Stage(name="all", epochs=2, restart_schedule=True),
    ]
    assert lengths(planned(stages, [Share(0.5, last=1)])) == [(3 + 2, 2), (2 + 6, 2)]


def test_a_random_fraction_and_variants_and_accumulation_count_too() -> None:
    stages = [Stage(epochs=2, selection=Selection(fraction=0.5))]
    assert lengths(planned(stages, [Share(0.5)], {"loop.variants": 2, "loop.accumulate": 2})) == [(3 + 2, 2)]


@pytest.mark.parametrize("steps", [5, 8, 11])
def test_max_steps_cuts_what_is_left_of_it(steps: int) -> None:
    stages = planned([Stage(epochs=2), Stage(name="more", epochs=2)], [Share(0.5)], {"loop.max_steps": steps})
    assert stages[-1].last_step == steps


@pytest.mark.parametrize(
    "stages",
    [[Stage(epochs=4)], [Stage(steps=14)], [Stage(epochs=2), Stage(name="b", steps=5), Stage(name="c", epochs=1)]],
)
def test_a_run_is_as_long_as_planned(stages: list[Stage], tmp_path: Path) -> None:
    heard = Heard()
    request = tiny_request({"out": str(tmp_path / "run")}, stages=stages, callbacks=[Share(0.7, last=1), heard])
    expected = make_draft(request.layers, request.registry, request.live)
    summary = start(request).summary
    assert summary["steps"] == expected.total_steps
    assert summary["epochs"] == sum(stage.length.epochs for stage in expected.stages)
    assert heard.left[-1] == 1


def test_epochs_left_counts_from_where_a_run_is() -> None:
    run = tiny_run(stages=[Stage(epochs=3), Stage(name="steps", steps=8)])
    assert epochs_left(run.stages, run.moment) == 3 + 2
    run.moment.stage_started, run.moment.epoch = True, 2
    assert epochs_left(run.stages, run.moment) == 1 + 2
    run.moment.stage, run.moment.epoch, run.moment.stage_epoch = 1, 3, 3
    run.moment.step, run.moment.stage_step = 25, 18
    assert epochs_left(run.stages, run.moment) == 1
    run.moment.stage = 2
    assert epochs_left(run.stages, run.moment) == 1


def test_quality_curriculum_and_dropout_intersect_and_then_drop_whatever_the_order(tmp_path: Path) -> None:
    registry = Registry()
    quality = registry.load("callback", "quality-threshold").target
    curriculum = registry.load("callback", "curriculum").target
    dropout = registry.load("callback", "data-dropout").target
    data = TinyData(SAMPLES, 1)
    ranked = {
        index: rank for rank, index in enumerate(sorted(range(SAMPLES), key=lambda i: (data.difficulty[i], i)), 1)
    }
    both = {i for i in range(SAMPLES) if data.quality[i] >= 0.3 and ranked[i] / SAMPLES <= 0.6}
    drawn: list[list[list[int]]] = []
    for order in itertools.permutations(range(3)):
        heard = Heard()
        made = [
            quality(start=0.3, end=0.3),
            curriculum(mode="staged", bars=(0.6,), ends=(0.9,)),
            dropout(gamma=0.5, revision=0),
        ]
        out = tmp_path / "".join(map(str, order))
        request = tiny_request(
            {"out": str(out)}, stages=[Stage(epochs=2)], callbacks=[*(made[i] for i in order), heard]
        )
        steps = make_draft(request.layers, request.registry, request.live).total_steps
        assert start(request).summary["steps"] == steps
        drawn.append(heard.epochs)
    assert set(drawn[0][0]) == both
    assert set(drawn[0][1]) < both
    assert len(drawn[0][1]) == len(both) // 2
    assert all(epochs == drawn[0] for epochs in drawn)


def test_nothing_admitted_is_an_error_that_says_where(tmp_path: Path) -> None:
    class Nothing:
        @hookimpl
        def select_samples(self) -> list[int]:
            return []

    request = tiny_request({"out": str(tmp_path / "run")}, callbacks=[Nothing()])
    with pytest.raises(UsageError, match=r"(?s)no sample is admitted in epoch 1.*stage 'train'"):
        start(request)
