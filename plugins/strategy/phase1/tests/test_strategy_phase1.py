from __future__ import annotations

import pytest
from trainkit import Situation
from trainkit.budget import total_steps
from trainkit.testing import StrategyConformance
from trainkit_strategy_phase1.phase1 import Phase1, phase1_plan


class TestPhase1(StrategyConformance):
    component = "phase1"


def test_range():
    assert Phase1.samples == (0, 2000)


def test_full_recipe_on_an_accelerator():
    plan = phase1_plan(Situation(train_samples=35, device="cuda"))
    values = {key: setting.value for key, setting in plan.settings.items()}
    assert [stage.epochs for stage in plan.stages] == [100]
    assert values["loop.variants"] == 50
    assert values["loop.batch_size"] == 8
    assert values["optimizer.lr"] == 1e-4
    assert values["optimizer.weight_decay"] == 1e-4
    assert values["callback"] == ["tensorboard", "early-stopping"]
    assert values["callback.early-stopping.patience"] == 15
    assert (values["scheduler.start"], values["scheduler.floor"]) == (0.1, 0.01)
    assert plan.notes == ()


@pytest.mark.parametrize(
    ("samples", "epochs", "variants"),
    [(1, 85, 50), (35, 2, 50), (100, 1, 48), (1500, 1, 3), (2000, 1, 2)],
)
def test_cpu_limit_shrinks_epochs_first_then_variants(samples, epochs, variants):
    plan = phase1_plan(Situation(train_samples=samples))
    assert [stage.epochs for stage in plan.stages] == [epochs]
    assert plan.settings["loop.variants"].value == variants
    assert total_steps(plan.stages, samples, variants, 8) <= 600


def test_note_tells_the_full_recipe_and_how_to_get_it():
    plan = phase1_plan(Situation(train_samples=35))
    assert "2 of 100 epochs and 50 of 50 variants" in plan.notes[0]
    assert "21,900" in plan.notes[0]
    assert "--set strategy.cpu_steps=none" in plan.notes[0]
    full = phase1_plan(Situation(train_samples=35), cpu_steps=None)
    assert [stage.epochs for stage in full.stages] == [100]
    assert full.notes == ()


def test_short_run_takes_larger_steps_unless_told_otherwise():
    setting = phase1_plan(Situation(train_samples=35)).settings["optimizer.lr"]
    assert setting.value == 1e-3
    assert setting.reason.startswith("438 steps instead of 21,900")
    assert phase1_plan(Situation(train_samples=35), lr=2e-4).settings["optimizer.lr"].value == 2e-4
    assert phase1_plan(Situation(train_samples=35), cpu_steps=None).settings["optimizer.lr"].value == 1e-4


def test_short_run_is_evaluated_more_often():
    plan = phase1_plan(Situation(train_samples=35))
    assert plan.settings["evaluate.every_steps"].value == 43  # 438 steps
