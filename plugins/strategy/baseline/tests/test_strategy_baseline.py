from __future__ import annotations

from trainkit import Situation
from trainkit.testing import StrategyConformance
from trainkit_strategy_baseline.baseline import Baseline, baseline_plan


class TestBaseline(StrategyConformance):
    component = "baseline"


def test_is_chosen_by_name_only():
    assert Baseline.samples is None


def test_full_recipe_on_an_accelerator():
    plan = baseline_plan(Situation(train_samples=100_000, device="cuda"))
    assert [stage.epochs for stage in plan.stages] == [20]
    assert plan.notes == ()


def test_cpu_limit_shortens_the_training_and_says_so():
    plan = baseline_plan(Situation(train_samples=1500))  # 94 steps an epoch
    assert [stage.epochs for stage in plan.stages] == [6]
    assert "6 of 20 epochs" in plan.notes[0]
    assert "1,880" in plan.notes[0]
    assert "--set strategy.cpu_steps=none" in plan.notes[0]
    assert baseline_plan(Situation(train_samples=1500), cpu_steps=None).stages[0].epochs == 20


def test_takes_the_optimizer_and_the_rate_that_the_task_proposes():
    usual = baseline_plan(Situation(train_samples=100)).settings
    assert (usual["optimizer.use"].value, usual["optimizer.lr"].value) == ("adamw", 1e-3)
    own = Situation(train_samples=100, defaults={"optimizer.use": "adafactor", "optimizer.lr": 0.05})
    assert baseline_plan(own).settings["optimizer.use"].value == "adafactor"
    assert baseline_plan(own).settings["optimizer.lr"].value == 0.05
    assert baseline_plan(own, lr=2e-4).settings["optimizer.lr"].value == 2e-4
