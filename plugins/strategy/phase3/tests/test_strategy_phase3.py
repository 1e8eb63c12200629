from __future__ import annotations

from trainkit import Plan, Situation, Technique
from trainkit.testing import StrategyConformance
from trainkit.testing.resuming import assert_resumes
from trainkit.testing.tiny import TinyTask
from trainkit_strategy_phase3.phase3 import Phase3, phase3_plan


class TestPhase3(StrategyConformance):
    component = "phase3"


OFFERED = {
    "guidance": Technique(settings={"task.guidance": 7.5, "task.condition_dropout": 0.1}, strength="task.guidance"),
    "label-smoothing": Technique(
        settings={"loss.use": "cross-entropy", "loss.label_smoothing": 0.0}, strength="loss.label_smoothing"
    ),
    "stochastic-depth": Technique(settings={"task.drop_path": 0.1}, strength="task.drop_path"),
    "feature-noise": Technique(settings={"task.feature_noise": 0.01}, strength="task.feature_noise"),
    "dropout": Technique(settings={"task.dropout": 0.1}, strength="task.dropout"),
}


def situation(samples: int = 50_000, device: str = "cuda", **facts: object) -> Situation:
    half = "bf16" if device == "cuda" else None
    return Situation.model_validate({"train_samples": samples, "device": device, "half_precision": half, **facts})


def values(plan: Plan) -> dict[str, object]:
    return {key: setting.value for key, setting in plan.settings.items()}


def test_range_begins_where_phase2_ends():
    assert Phase3.samples == (10_001, 100_000)


def test_full_recipe_on_an_accelerator():
    plan = phase3_plan(situation(techniques=OFFERED))
    found = values(plan)
    assert [stage.epochs for stage in plan.stages] == [50]
    assert (found["loop.batch_size"], found["loop.variants"], found["optimizer.lr"]) == (128, 1, 1e-4)
    assert (found["optimizer.weight_decay"], found["scheduler.floor"]) == (1e-2, 0.01)
    assert found["precision"] == "bf16"
    assert (found["task.guidance"], found["task.condition_dropout"]) == (7.5, 0.1)
    assert (found["loss.use"], found["loss.label_smoothing"]) == ("cross-entropy", 0.1)
    assert (found["task.drop_path"], found["task.feature_noise"], found["task.dropout"]) == (0.1, 0.01, 0.2)
    assert plan.notes == ("left out: data parallelism: there is one device",)


def test_warmup_is_a_twentieth_of_the_steps_and_10_000_at_most():
    assert values(phase3_plan(situation(50_000)))["scheduler.warmup"] == 0.05  # 975 of 19,550 steps
    assert values(phase3_plan(situation(100_000), batch_size=16))["scheduler.warmup"] == 10_000  # of 312,500 steps


def test_several_devices_share_the_batch():
    plan = phase3_plan(situation(devices=4))
    assert (values(plan)["devices"], values(plan)["loop.batch_size"]) == (4, 128)
    assert plan.settings["devices"].reason == "there are several: each takes 32 samples of every batch"
    assert not any("parallelism" in note for note in plan.notes)
    assert values(phase3_plan(situation(devices=4), batch_size=3))["devices"] == 3


def test_cpu_takes_single_precision_and_regularises_less():
    plan = phase3_plan(situation(20_000, "cpu", techniques=OFFERED))
    found = values(plan)
    assert [stage.epochs for stage in plan.stages] == [3]  # of 157 steps
    assert "precision" not in found
    assert {"task.drop_path", "task.feature_noise", "task.dropout"}.isdisjoint(found)
    assert found["task.guidance"] == 7.5
    assert found["optimizer.lr"] == 1e-3
    assert "left out: half precision: this cpu is not faster in it" in plan.notes
    regularisers = "stochastic-depth, feature-noise, dropout"
    assert f"left out: {regularisers}: a short run sees each sample too seldom to overfit" in plan.notes


def test_what_the_user_leaves_out_is_not_noted():
    plan = phase3_plan(situation(), without=("guidance", "dropout"))
    assert "left out: label-smoothing, stochastic-depth, feature-noise: the task offers none of them" in plan.notes


def test_a_run_resumes_to_the_bit(tmp_path):
    straight = assert_resumes(tmp_path, list, [1, 3], task=TinyTask, strategy=Phase3(epochs=4, batch_size=8))
    assert "label_smoothing = 0.1" in (straight / "resolved.toml").read_text()
