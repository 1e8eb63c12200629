from __future__ import annotations

import pytest
from trainkit import Plan, Situation, Technique
from trainkit.budget import total_steps
from trainkit.testing import StrategyConformance
from trainkit.testing.resuming import assert_resumes
from trainkit.testing.tiny import TinyTask
from trainkit_strategy_phase1.phase1 import Phase1, phase1_plan


class TestPhase1(StrategyConformance):
    component = "phase1"


OFFERED = {
    "few-shot": Technique(settings={"task.support": 5}, strength="task.support"),
    "unfreezing": Technique(settings={"callback.unfreezing.groups": ["backbone.*", "*"]}),
    "variance-aware": Technique(settings={"loss.use": "variance-aware", "loss.main.use": "element-combination"}),
    "dropout": Technique(settings={"task.dropout": 0.1}, strength="task.dropout"),
}


def situation(samples: int = 35, device: str = "cuda", **facts: object) -> Situation:
    return Situation.model_validate({"train_samples": samples, "device": device, "has_augmenter": True, **facts})


def values(plan: Plan) -> dict[str, object]:
    return {key: setting.value for key, setting in plan.settings.items()}


def test_range():
    assert Phase1.samples == (0, 2000)


def test_full_recipe_on_an_accelerator():
    plan = phase1_plan(situation(), without=tuple(OFFERED))
    found = values(plan)
    assert [stage.epochs for stage in plan.stages] == [100]
    assert found["loop.variants"] == 50
    assert found["loop.batch_size"] == 8
    assert found["optimizer.lr"] == 1e-4
    assert found["optimizer.weight_decay"] == 1e-4
    assert found["callback"] == ["tensorboard", "early-stopping"]
    assert found["callback.early-stopping.patience"] == 15
    assert (found["scheduler.start"], found["scheduler.floor"]) == (0.1, 0.01)
    assert plan.notes == ("one split of so few samples says little: --folds 5 tells how much results vary",)


def test_proposes_folds_where_there_are_none():
    proposed = "one split of so few samples says little: --folds 5 tells how much results vary"
    assert proposed in phase1_plan(situation()).notes
    assert proposed not in phase1_plan(situation(folds=3)).notes


def test_takes_what_the_task_offers():
    plan = phase1_plan(situation(techniques=OFFERED))
    found = values(plan)
    assert found["task.support"] == 5
    assert found["task.dropout"] == 0.4
    assert (found["loss.use"], found["loss.main.use"]) == ("variance-aware", "element-combination")
    assert found["callback"] == ["tensorboard", "early-stopping", "unfreezing"]
    assert found["callback.unfreezing.groups"] == ["backbone.*", "*"]
    assert len(plan.notes) == 1


def test_dropout_has_a_limit():
    offered = {"dropout": Technique(settings={"task.dropout": 0.2}, strength="task.dropout")}
    assert values(phase1_plan(situation(techniques=offered)))["task.dropout"] == 0.5


def test_tells_what_the_task_cannot_use_and_why():
    offered = OFFERED | {"unfreezing": Technique(lacking="no pretrained backbone is given")}
    plan = phase1_plan(situation(techniques=offered), without=("few-shot",))
    assert "unfreezing" not in values(plan)["callback"]
    assert "left out: unfreezing: no pretrained backbone is given" in plan.notes
    assert not any("few-shot" in note for note in plan.notes)
    bare = phase1_plan(situation())
    assert "left out: few-shot, unfreezing, variance-aware, dropout: the task offers none of them" in bare.notes


def test_without_an_augmenter_an_epoch_draws_each_sample_once():
    plan = phase1_plan(situation(has_augmenter=False))
    assert values(plan)["loop.variants"] == 1
    assert any(note.startswith("left out: 50 variants: nothing augments") for note in plan.notes)


def test_is_scaled_for_a_task_that_usually_takes_other_batches_and_rates():
    found = values(phase1_plan(situation(defaults={"loop.batch_size": 32, "optimizer.lr": 1e-2})))
    assert found["loop.batch_size"] == 16
    assert found["optimizer.lr"] == pytest.approx(1e-3)
    assert values(phase1_plan(situation(defaults={"loop.batch_size": 32}), batch_size=8))["loop.batch_size"] == 8


@pytest.mark.parametrize(
    ("samples", "epochs", "variants"),
    [(1, 85, 50), (35, 2, 50), (100, 46, 1), (1500, 3, 1), (2000, 2, 1)],
)
def test_cpu_limit_shrinks_epochs_first_then_variants(samples, epochs, variants):
    plan = phase1_plan(situation(samples, "cpu"))
    assert [stage.epochs for stage in plan.stages] == [epochs]
    assert plan.settings["loop.variants"].value == variants
    assert total_steps(plan.stages, samples, variants, 8) <= 600


def test_short_run_that_draws_a_sample_seldom_does_not_augment():
    plan = phase1_plan(situation(1000, "cpu", techniques=OFFERED))
    assert values(plan)["augmenter"] == []
    assert "augmenter" not in values(phase1_plan(situation(35, "cpu")))
    assert "augmenter" not in values(phase1_plan(situation(1000)))
    assert {"task.support", "task.dropout", "loss.use"}.isdisjoint(values(plan))
    assert "unfreezing" in values(plan)["callback"]
    assert any(note.startswith("left out: few-shot: a short run") for note in plan.notes)


def test_note_tells_the_full_recipe_and_how_to_get_it():
    plan = phase1_plan(situation(35, "cpu"))
    assert "2 of 100 epochs, to stay near 600" in plan.notes[0]
    fewer = phase1_plan(situation(1000, "cpu", has_augmenter=True))
    assert "4 of 100 epochs and 1 of 50 variants, to stay near 600" in fewer.notes[0]
    assert "21,900" in plan.notes[0]
    assert "--set strategy.cpu_steps=none" in plan.notes[0]
    full = phase1_plan(situation(35, "cpu"), cpu_steps=None)
    assert [stage.epochs for stage in full.stages] == [100]
    assert not any("no accelerator" in note for note in full.notes)


def test_few_steps_are_large_unless_told_otherwise():
    setting = phase1_plan(situation(35, "cpu")).settings["optimizer.lr"]
    assert setting.value == 1e-3
    assert setting.reason.startswith("438 steps instead of 21,900")
    assert phase1_plan(situation(35, "cpu"), lr=2e-4).settings["optimizer.lr"].value == 2e-4
    assert phase1_plan(situation(35, "cpu"), cpu_steps=None).settings["optimizer.lr"].value == 1e-4
    assert phase1_plan(situation(has_augmenter=False)).settings["optimizer.lr"].value == 1e-3


def test_short_run_is_evaluated_more_often():
    plan = phase1_plan(situation(35, "cpu"))
    assert plan.settings["evaluate.every_steps"].value == 43  # 438 steps


def test_a_run_resumes_to_the_bit(tmp_path):
    straight = assert_resumes(tmp_path, list, [2, 5], task=TinyTask, strategy=Phase1(epochs=2))
    assert "patience = 15" in (straight / "resolved.toml").read_text()
