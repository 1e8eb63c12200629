from __future__ import annotations

import logging
import math
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from trainkit import UsageError, hookimpl
from trainkit.api import start
from trainkit.contracts import LossOutput
from trainkit.plan import Stage
from trainkit.rundir import rows
from trainkit.testing import CallbackConformance
from trainkit.testing.component import same
from trainkit.testing.resuming import assert_resumes
from trainkit.testing.tiny import TinyTask, tiny_request
from trainkit_callback_gradient_noise.gradient_noise import GradientNoise, add_noise, deviation_at


class TestGradientNoise(CallbackConformance):
    component = "gradient-noise"


def fake_run(*gradients, step=0, seed=0, clip=1.0):
    run = SimpleNamespace(learnable={}, moment=SimpleNamespace(step=step), settings=SimpleNamespace(seed=seed), rows={})
    run.settings.loop = SimpleNamespace(clip=clip)
    run.engine = SimpleNamespace(device=torch.device("cpu"))
    run.record = run.rows.__setitem__
    for place, gradient in enumerate(gradients):
        weight = nn.Parameter(torch.zeros(gradient.shape if gradient is not None else 1))
        weight.grad = None if gradient is None else gradient.clone()
        run.learnable[f"weight {place}"] = weight
    return run


def noised(callback, run):
    """Return the noise that a callback adds to the gradients of a run."""
    before = [weight.grad.clone() for weight in run.learnable.values() if weight.grad is not None]
    callback.on_gradients(run)
    after = [weight.grad for weight in run.learnable.values() if weight.grad is not None]
    return [b - a for a, b in zip(before, after, strict=True)]


def test_variance_fades_as_published():
    found = [deviation_at(t, 0.3, 0.55) ** 2 for t in (0, 10, 100, 1000, 10_000, 30_000)]
    assert found == pytest.approx([0.3, 0.0802335, 0.0237, 0.00671247, 0.00189277, 0.00103442], rel=2e-4)
    assert [deviation_at(t, 1.0, 0.0) for t in (0, 99)] == [1, 1]


@pytest.mark.parametrize(("scale", "factor"), [("absolute", 1.0), ("relative", 4.0), ("row", 4.0)])
def test_noise_is_normal_with_that_deviation(scale, factor):
    gradient = torch.full((400, 500), -4.0)
    (noise,) = noised(GradientNoise(scale=scale), fake_run(gradient, step=10))
    deviation = factor * math.sqrt(0.0802335)
    assert float(noise.std()) == pytest.approx(deviation, rel=0.01)
    assert abs(float(noise.mean())) < 4 * deviation / math.sqrt(noise.numel())
    assert float((noise.abs() < deviation).float().mean()) == pytest.approx(0.6827, abs=0.005)
    assert float((noise.abs() > 2 * deviation).float().mean()) == pytest.approx(0.0455, abs=0.003)


def test_relative_noise_follows_each_tensors_own_size():
    large, small = noised(
        GradientNoise(scale="relative"), fake_run(torch.full((20_000,), 100.0), torch.full((20_000,), 1e-3))
    )
    assert float(large.std() / small.std()) == pytest.approx(1e5, rel=0.02)
    (none,) = noised(GradientNoise(), fake_run(torch.zeros(7)))
    assert torch.equal(none, torch.zeros(7))


def test_noise_of_a_row_follows_the_rows_own_size():
    gradient = torch.ones(3, 100, 200) * torch.tensor([100.0, 1e-3, 0.0])[:, None, None]
    (noise,) = noised(GradientNoise(), fake_run(gradient, step=10))
    large, small, none = noise.unbind()
    assert float(large.std()) == pytest.approx(100 * math.sqrt(0.0802335), rel=0.02)
    assert float(small.std()) == pytest.approx(1e-3 * math.sqrt(0.0802335), rel=0.02)
    assert not none.any()
    (whole,) = noised(GradientNoise(scale="relative"), fake_run(gradient, step=10))
    assert float(whole[2].std()) == pytest.approx(100 * math.sqrt(0.0802335 / 3), rel=0.02)
    (vector,) = noised(GradientNoise(), fake_run(torch.full((20_000,), 4.0), step=10))
    assert float(vector.std()) == pytest.approx(4 * math.sqrt(0.0802335), rel=0.02)


def test_noise_is_a_function_of_seed_step_and_place_alone():
    gradient = torch.ones(64)
    first, second = noised(GradientNoise(), fake_run(gradient, gradient))
    assert not torch.equal(first, second)
    (again,) = noised(GradientNoise(), fake_run(None, gradient))
    assert torch.equal(again, second)
    torch.manual_seed(123)
    before = torch.get_rng_state()
    assert torch.equal(noised(GradientNoise(), fake_run(gradient))[0], first)
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(noised(GradientNoise(), fake_run(gradient, step=1))[0], first)
    assert not torch.equal(noised(GradientNoise(), fake_run(gradient, seed=1))[0], first)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("scale", ["row", "relative", "absolute"])
def test_any_precision(dtype, scale):
    gradient = torch.ones(2, 5_000, dtype=dtype)
    add_noise(gradient, 0.5, torch.Generator().manual_seed(1), scale)
    assert gradient.dtype == dtype
    assert float(gradient.double().std()) == pytest.approx(0.5, rel=0.03)


class Heard:
    """Note norms of the gradients, before clipping and as the optimizer finds them."""

    def __init__(self):
        self.norms = []

    @hookimpl
    def on_gradients(self, run, norm):
        now = torch.stack([weight.grad.norm() for weight in run.learnable.values()]).norm()
        self.norms.append((float(norm), float(now)))


def asked(out, *callbacks, settings=None, **arguments):
    """Return the request of five epochs of six steps."""
    arguments.setdefault("stages", [Stage(epochs=5)])
    return tiny_request(
        {"out": str(out), "loop.log_every_steps": 1, **(settings or {})}, callbacks=callbacks, **arguments
    )


def saved(out, step=30, name="model.safetensors"):
    return load_file(out / "checkpoints" / f"checkpoint-{step}" / name)


def test_noise_comes_after_clipping_and_is_logged(tmp_path):
    heard = Heard()
    settings = {"loop.clip": 1e-3, "loop.max_steps": 2}
    noise = GradientNoise(eta=1.0, scale="absolute")
    start(asked(tmp_path / "run", noise, heard, settings=settings))
    weights = sum(tensor.numel() for tensor in saved(tmp_path / "run", 2).values())
    assert heard.norms[0][1] == pytest.approx(math.sqrt(weights), rel=0.1)
    assert [row["train/gradient_noise"] for row in rows(tmp_path / "run" / "metrics.jsonl") if "train/loss" in row] == [
        pytest.approx(1.0),
        pytest.approx(2 ** (-0.55 / 2)),
    ]


def test_a_step_of_several_micro_batches_gets_noise_once(tmp_path):
    heard = Heard()
    settings = {"loop.clip": 1e-3, "loop.max_steps": 1, "loop.accumulate": 3}
    start(asked(tmp_path / "run", GradientNoise(eta=1.0, scale="absolute"), heard, settings=settings))
    weights = sum(tensor.numel() for tensor in saved(tmp_path / "run", 1).values())
    assert heard.norms[0][1] == pytest.approx(math.sqrt(weights), rel=0.1)


def test_two_epochs_and_three_are_five_to_the_bit(tmp_path):
    straight = assert_resumes(tmp_path, lambda: [GradientNoise()], [12])
    start(asked(tmp_path / "plain"))
    assert not same(saved(tmp_path / "plain"), saved(straight))


def test_skipped_updates_do_not_move_it_on(tmp_path):
    class Ruin:
        @hookimpl
        def on_loss(self, run, loss):
            return LossOutput(loss.sum * float("nan"), loss.count) if run.moment.window == 1 else None

    settings = {"loop.nan_policy": "skip"}
    start(asked(tmp_path / "run", GradientNoise(), Ruin(), settings=settings, stages=[Stage(epochs=1)]))
    found = [
        row["train/gradient_noise"] for row in rows(tmp_path / "run" / "metrics.jsonl") if "train/gradient_noise" in row
    ]
    assert found == pytest.approx([deviation_at(t, 0.3, 0.55) for t in range(5)])


def test_it_is_refused_beside_sparse_gradients(tmp_path):
    class Sparse(TinyTask):
        def build_model(self):
            model = super().build_model()
            model.embedding.sparse = True
            return model

    with pytest.raises(UsageError, match="gradient-noise and the sparse gradients of embedding exclude each other"):
        start(asked(tmp_path / "run", GradientNoise(), task=Sparse()))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("scale", "clip", "warned"), [("absolute", 1.0, True), ("absolute", None, False), ("relative", 1.0, False)]
)
def test_absolute_noise_that_drowns_clipped_gradients_is_warned_of(caplog, scale, clip, warned):
    run = fake_run(torch.zeros(4_718_592), clip=clip)
    with caplog.at_level(logging.WARNING):
        GradientNoise(scale=scale).on_run_start(run)
    assert ("on 4718592 weights has a norm of 1.19e+03" in caplog.text) is warned
