from __future__ import annotations

from trainkit import Plan, Situation, Technique
from trainkit.testing import StrategyConformance
from trainkit.testing.resuming import assert_resumes
from trainkit.testing.tiny import TinyTask
from trainkit_strategy_phase4.phase4 import Phase4, phase4_plan


class TestPhase4(StrategyConformance):
    component = "phase4"


WEIGHTING = Technique(settings={"loss.use": "multitask", "loss.weighting": "uncertainty"})


def situation(samples: int = 1_000_000, device: str = "cuda", **facts: object) -> Situation:
    half = "bf16" if device == "cuda" else None
    return Situation.model_validate({"train_samples": samples, "device": device, "half_precision": half, **facts})


def values(plan: Plan) -> dict[str, object]:
    return {key: setting.value for key, setting in plan.settings.items()}


def test_range_has_no_end():
    assert Phase4.samples == (100_001, None)


def test_full_recipe_on_an_accelerator():
    plan = phase4_plan(situation(techniques={"dynamic-weighting": WEIGHTING}))
    found = values(plan)
    assert [stage.epochs for stage in plan.stages] == [30]
    assert (found["loop.batch_size"], found["loop.accumulate"], found["loop.clip"]) == (256, 4, 1.0)
    assert found["optimizer.lr"] == 4e-4
    assert found["scheduler.floor"] == 0.001
    assert found["precision"] == "bf16"
    assert found["callback"] == ["tensorboard", "early-stopping", "ema"]
    assert found["callback.ema.decay"] == 0.9999
    assert (found["callback.early-stopping.patience"], found["callback.early-stopping.min_delta"]) == (10, 1e-4)
    assert (found["loss.use"], found["loss.weighting"]) == ("multitask", "uncertainty")
    assert any(note.startswith("left out: data parallelism: there is one device") for note in plan.notes)
    assert "devices" not in found
    assert "left out: guidance: the task offers none" in plan.notes


def test_the_rate_follows_the_effective_batch():
    assert values(phase4_plan(situation(), accumulate=2))["optimizer.lr"] == 2e-4
    assert values(phase4_plan(situation(), batch_size=128))["optimizer.lr"] == 2e-4
    # A task that usually takes twice the batch has a batch of 512 where others have 256, at the same rate.
    twice = values(phase4_plan(situation(defaults={"loop.batch_size": 32})))
    assert (twice["loop.batch_size"], twice["optimizer.lr"]) == (512, 4e-4)


def test_warmup_is_a_twentieth_of_the_steps_and_10_000_at_most():
    assert values(phase4_plan(situation()))["scheduler.warmup"] == 0.05  # 1,465 of 29,310 steps
    assert values(phase4_plan(situation(10_000_000)))["scheduler.warmup"] == 10_000  # of 292,980 steps


def test_ema_can_be_left_out():
    found = values(phase4_plan(situation(), without=("ema",)))
    assert found["callback"] == ["tensorboard", "early-stopping"]
    assert "callback.ema.decay" not in found


def test_several_devices_take_the_place_of_micro_batches():
    plans = {devices: phase4_plan(situation(devices=devices)) for devices in (1, 2, 3, 4, 8)}
    keys = ("loop.batch_size", "loop.accumulate", "devices")
    assert {devices: tuple(values(plan).get(key) for key in keys) for devices, plan in plans.items()} == {
        1: (256, 4, None), 2: (512, 2, 2), 3: (512, 2, 3), 4: (1024, 1, 4), 8: (1024, 1, 8),
    }  # fmt: skip
    assert plans[8].settings["devices"].reason == "there are several: each takes 128 samples of every batch"
    assert plans[3].settings["devices"].reason == "there are several: each takes 170 or 171 samples of every batch"
    assert len({values(plan)["optimizer.lr"] for plan in plans.values()}) == 1
    assert not any("parallelism" in note for note in plans[2].notes)


def test_cpu_limit_counts_whole_optimizer_steps():
    plan = phase4_plan(situation(200_000, "cpu"))
    assert [stage.epochs for stage in plan.stages] == [3]  # of 196 steps of 1,024 samples
    assert "precision" not in values(plan)


def test_a_run_resumes_to_the_bit(tmp_path):
    straight = assert_resumes(
        tmp_path, list, [1, 3], task=TinyTask, strategy=Phase4(epochs=4, batch_size=4, accumulate=2)
    )
    assert "decay = 0.9999" in (straight / "resolved.toml").read_text()
