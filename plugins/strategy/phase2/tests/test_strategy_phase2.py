from __future__ import annotations

import pytest
from trainkit import Plan, Situation, Technique
from trainkit.budget import total_steps
from trainkit.testing import StrategyConformance
from trainkit.testing.resuming import assert_resumes
from trainkit.testing.tiny import TinyTask
from trainkit_strategy_phase2.phase2 import Phase2, curriculum, phase2_plan, with_experts


class TestPhase2(StrategyConformance):
    component = "phase2"


EXPERTS = Technique(settings={"task.experts": 2}, strength="task.experts", trainable=("experts.*",))
SCALES = Technique(settings={"task.scales": [48, 80], "loss.use": "multi-scale-consistency", "loss.weight": 0.1})
MODALITY = Technique(settings={"loss.use": "modality-weighting", "loss.main.use": "multitask"})


def situation(samples: int = 5000, device: str = "cuda", **facts: object) -> Situation:
    told = {"has_augmenter": True, "has_difficulty": True}
    return Situation.model_validate({"train_samples": samples, "device": device, **told, **facts})


def values(plan: Plan) -> dict[str, object]:
    return {key: setting.value for key, setting in plan.settings.items()}


def test_range_begins_where_phase1_ends():
    assert Phase2.samples == (2001, 10000)


def test_full_recipe_on_an_accelerator():
    plan = phase2_plan(situation())
    assert [(stage.name, stage.epochs) for stage in plan.stages] == [("easy", 20), ("medium", 30), ("all", 50)]
    assert [stage.selection.easiest for stage in plan.stages] == [0.33, 0.67, 1.0]
    assert [stage.lr_factor for stage in plan.stages] == [1.0, 0.5, 0.1]
    assert all(stage.restart_schedule for stage in plan.stages)
    found = values(plan)
    assert (found["loop.batch_size"], found["loop.variants"], found["optimizer.lr"]) == (16, 10, 1e-3)
    assert found["scheduler.floor"] == 0.1
    assert found["callback.early-stopping.scope"] == "stage"
    assert found["callback.early-stopping.adaptive"] is True
    assert found["callback"] == ["tensorboard", "early-stopping", "data-dropout"]
    assert found["callback.data-dropout.target_saving"] == 0.2


def test_experts_learn_in_the_last_two_fifths():
    plan = phase2_plan(situation(techniques={"experts": EXPERTS}))
    lengths = [(stage.name, stage.epochs, stage.trainable) for stage in plan.stages]
    assert lengths == [
        ("easy", 20, ("*",)),
        ("medium", 30, ("*",)),
        ("all", 10, ("*",)),
        ("experts", 40, ("experts.*",)),
    ]
    assert plan.stages[-1].lr_factor == 0.1
    assert values(plan)["task.experts"] == 2


def test_a_last_stage_of_one_epoch_is_not_divided():
    stages = curriculum((5, 5, 1), (1.0, 1.0, 1.0), (1.0, 1.0, 1.0))
    assert with_experts(stages, ("experts.*",)) == stages
    plan = phase2_plan(situation(techniques={"experts": EXPERTS}), epochs=(5, 5, 1))
    assert "task.experts" not in values(plan)


def test_of_two_losses_the_later_one_counts_and_scales_stay():
    found = values(phase2_plan(situation(techniques={"multi-scale": SCALES, "modality-weighting": MODALITY})))
    assert (found["loss.use"], found["loss.main.use"]) == ("modality-weighting", "multitask")
    assert "loss.weight" not in found
    assert found["task.scales"] == [48, 80]
    alone = values(phase2_plan(situation(techniques={"multi-scale": SCALES})))
    assert (alone["loss.use"], alone["loss.weight"]) == ("multi-scale-consistency", 0.1)


@pytest.mark.parametrize("name", ["experts", "multi-scale", "modality-weighting", "data-dropout", "dropout"])
def test_techniques_can_be_left_out(name):
    offered = {
        "experts": EXPERTS,
        "multi-scale": SCALES,
        "modality-weighting": MODALITY,
        "dropout": Technique(settings={"task.dropout": 0.1}, strength="task.dropout"),
    }
    whole, less = (phase2_plan(situation(techniques=offered), without=names) for names in ((), (name,)))
    assert whole != less
    assert values(whole)["task.dropout"] == 0.3
    assert not any(f"left out: {name}" in note for note in less.notes)


def test_cpu_limit_keeps_the_proportions_of_stages():
    plan = phase2_plan(situation(35, "cpu"))
    epochs = [stage.epochs for stage in plan.stages]
    assert epochs == [3, 5, 8]
    assert values(plan)["loop.batch_size"] == 8
    assert total_steps(plan.stages, 35, 10, 8) <= 600
    assert "3+5+8 of 20+30+50 epochs" in plan.notes[0]


def test_short_run_has_one_schedule_and_no_stage_of_experts():
    offered = {"experts": EXPERTS, "multi-scale": SCALES, "modality-weighting": MODALITY}
    plan = phase2_plan(situation(35, "cpu", techniques=offered))
    assert [(stage.name, stage.lr_factor, stage.restart_schedule) for stage in plan.stages] == [
        ("easy", 1.0, False),
        ("medium", 1.0, False),
        ("all", 1.0, False),
    ]
    found = values(plan)
    assert {"task.experts", "task.scales", "loss.use"}.isdisjoint(found)
    assert (found["scheduler.warmup"], found["scheduler.floor"]) == (0.1, 0.01)
    assert any(note.startswith("left out: experts: a short run") for note in plan.notes)


def test_cpu_limit_never_leaves_a_stage_without_an_epoch():
    plan = phase2_plan(situation(10_000, "cpu"))
    assert [stage.epochs for stage in plan.stages] == [1, 1, 1]
    assert plan.settings["loop.variants"].value == 1
    assert values(plan)["augmenter"] == []


def test_without_difficulty_every_stage_takes_all_samples():
    plan = phase2_plan(situation(has_difficulty=False))
    assert [stage.selection.easiest for stage in plan.stages] == [1.0, 1.0, 1.0]
    assert "has no difficulty" in plan.notes[0]


def test_a_run_resumes_to_the_bit(tmp_path):
    straight = assert_resumes(
        tmp_path, list, [2, 6, 11], task=TinyTask, strategy=Phase2(epochs=(2, 2, 3), batch_size=4)
    )
    assert "target_saving = 0.2" in (straight / "resolved.toml").read_text()
