from __future__ import annotations

from trainkit import Situation
from trainkit.budget import total_steps
from trainkit.testing import StrategyConformance
from trainkit_strategy_phase2.phase2 import Phase2, phase2_plan


class TestPhase2(StrategyConformance):
    component = "phase2"


def test_range_begins_where_phase1_ends():
    assert Phase2.samples == (2001, 10000)


def test_full_recipe_on_an_accelerator():
    plan = phase2_plan(Situation(train_samples=5000, device="cuda", has_difficulty=True))
    assert [(stage.name, stage.epochs) for stage in plan.stages] == [("easy", 20), ("medium", 30), ("all", 50)]
    assert [stage.selection.easiest for stage in plan.stages] == [0.33, 0.67, 1.0]
    assert [stage.lr_factor for stage in plan.stages] == [1.0, 0.5, 0.1]
    assert all(stage.restart_schedule for stage in plan.stages)
    values = {key: setting.value for key, setting in plan.settings.items()}
    assert (values["loop.batch_size"], values["loop.variants"], values["optimizer.lr"]) == (16, 10, 1e-3)
    assert values["scheduler.floor"] == 0.1
    assert values["callback.early-stopping.scope"] == "stage"
    assert plan.notes == ()


def test_cpu_limit_keeps_the_proportions_of_stages():
    plan = phase2_plan(Situation(train_samples=35, has_difficulty=True))
    epochs = [stage.epochs for stage in plan.stages]
    assert epochs == [7, 10, 17]
    assert total_steps(plan.stages, 35, 10, 16) <= 600
    assert "7+10+17 of 20+30+50 epochs" in plan.notes[0]


def test_cpu_limit_never_leaves_a_stage_without_an_epoch():
    plan = phase2_plan(Situation(train_samples=10_000, has_difficulty=True))
    assert [stage.epochs for stage in plan.stages] == [1, 1, 1]
    assert plan.settings["loop.variants"].value == 1


def test_without_difficulty_every_stage_takes_all_samples():
    plan = phase2_plan(Situation(train_samples=5000, device="cuda"))
    assert [stage.selection.easiest for stage in plan.stages] == [1.0, 1.0, 1.0]
    assert "has no difficulty" in plan.notes[0]
