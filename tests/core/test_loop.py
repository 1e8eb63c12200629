"""The loop: gradients by counts, order of events, stages, policies for what is not finite."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import chain
from typing import Any

import pytest
import torch
from torch import nn
from trainkit import hookimpl
from trainkit.contracts import LossOutput, reading
from trainkit.errors import Diverged, UsageError
from trainkit.live import Run
from trainkit.loop import train
from trainkit.plan import Selection, Stage
from trainkit.testing.tiny import TinyStrategy, TinyTask, tiny_run


class Heard:
    """Note every event, and copy the gradients of every step."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.gradients: list[list[torch.Tensor]] = []
        self.sample_ids: list[list[int]] = []
        self.rates: list[float] = []
        self.rows: list[dict[str, float]] = []

    @hookimpl
    def on_run_start(self) -> None:
        self.names.append("run")

    @hookimpl
    def on_stage_start(self, stage: Stage) -> None:
        self.names.append(f"stage {stage.name}")

    @hookimpl
    def on_epoch_start(self) -> None:
        self.names.append("epoch")

    @hookimpl
    def on_loss(self, run: Run, batch: dict[str, Any]) -> None:
        self.sample_ids.append(batch["sample_id"].tolist())

    @hookimpl
    def on_gradients(self, run: Run) -> None:
        self.gradients.append([p.grad.clone() for p in run.learnable.values() if p.grad is not None])

    @hookimpl
    def on_step(self, run: Run) -> None:
        self.names.append("step")
        self.rates.append(run.optimizer.param_groups[0]["lr"])

    @hookimpl
    def on_log(self, row: dict[str, float]) -> None:
        self.rows.append(dict(row))

    @hookimpl
    def before_evaluation(self, split: str) -> None:
        self.names.append(f"evaluate {split}")

    @hookimpl
    def on_epoch_end(self) -> None:
        self.names.append("epoch end")

    @hookimpl
    def on_stage_end(self, stage: Stage) -> None:
        self.names.append(f"stage {stage.name} end")


def weights(run: Run) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in run.model.named_parameters()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(("batch_size", "accumulate"), [(4, 4), (2, 8), (1, 16), (5, 3), (16, 1)])
@pytest.mark.parametrize("clip", [None, 0.05])
def test_accumulated_gradients_are_those_of_the_big_batch(batch_size: int, accumulate: int, clip: float | None) -> None:
    def gradients(size: int, windows: int) -> list[list[torch.Tensor]]:
        heard = Heard()
        task = TinyTask(samples=size * windows + 3, dropout=0.0)
        settings = {"loop.batch_size": size, "loop.accumulate": windows, "loop.clip": clip, "loop.max_steps": 2}
        train(tiny_run(settings, task=task, callbacks=[heard]))
        assert len(heard.gradients) == 2
        return heard.gradients

    for step, (split, whole) in enumerate(
        zip(gradients(batch_size, accumulate), gradients(batch_size * accumulate, 1), strict=True)
    ):
        scale = max(float(gradient.abs().max()) for gradient in whole)
        # The second step, the short last window, starts from weights that already differ in the last bit.
        bound = 1e-6 if step == 0 else 1e-5
        assert all(float((a - b).abs().max()) <= bound * scale for a, b in zip(split, whole, strict=True))


def test_a_mean_of_means_would_be_caught() -> None:
    class MeanOfMeans(nn.Module):
        def forward(self, logits: torch.Tensor, labels: torch.Tensor) -> LossOutput:
            return LossOutput(nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten()), 1)

    def gradient(size: int, windows: int) -> torch.Tensor:
        heard = Heard()
        settings = {"loop.batch_size": size, "loop.accumulate": windows, "loop.clip": None, "loop.max_steps": 1}
        train(tiny_run(settings, task=TinyTask(16, dropout=0.0), callbacks=[heard], loss=MeanOfMeans))
        return heard.gradients[0][0]

    assert float((gradient(4, 4) - gradient(16, 1)).abs().max()) > 1e-4


def test_events_come_in_their_order() -> None:
    heard = Heard()
    stages = [Stage(name="a", epochs=1), Stage(name="b", steps=2)]
    train(tiny_run({"loop.batch_size": 12}, callbacks=[heard], stages=stages))
    assert heard.names == [
        "run", "stage a", "epoch", "step", "step", "evaluate val", "epoch end", "stage a end",
        "stage b", "epoch", "step", "step", "evaluate val", "epoch end", "stage b end",
    ]  # fmt: skip


def test_every_epoch_sees_each_sample_once_in_another_order() -> None:
    heard = Heard()
    train(tiny_run({"loop.batch_size": 5}, callbacks=[heard], stages=[Stage(epochs=3)]))
    seen = [sample for ids in heard.sample_ids for sample in ids]
    epochs = [seen[i : i + 24] for i in range(0, 72, 24)]
    assert all(sorted(epoch) == list(range(24)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


def test_max_steps_cuts_and_epochs_scale_the_plan() -> None:
    stages = [Stage(name="a", epochs=2), Stage(name="b", epochs=3), Stage(name="c", epochs=5)]
    run = tiny_run({"loop.epochs": 5, "loop.batch_size": 24}, stages=stages)
    assert [planned.length.epochs for planned in run.stages] == [1, 2, 2]
    run = tiny_run({"loop.max_steps": 4, "loop.batch_size": 24}, stages=stages)
    train(run)
    assert run.moment.step == run.total_steps == 4
    assert [planned.length.steps for planned in run.stages] == [2, 2]


def test_stages_choose_samples_weights_and_rates() -> None:
    heard = Heard()
    stages = [
        Stage(name="easy", epochs=1, selection=Selection(easiest=0.5), trainable=("head.*",), lr_factor=2.0),
        Stage(name="all", epochs=1, lr_factor=0.5, restart_schedule=True),
    ]
    settings = {"loop.batch_size": 12, "optimizer.lr": 0.1, "scheduler.warmup": 0, "scheduler.floor": 1.0}
    run = tiny_run(settings, callbacks=[heard], stages=stages)
    before = weights(run)
    after_easy: dict[str, torch.Tensor] = {}

    class Copy:
        @hookimpl
        def on_stage_end(self, run: Run, stage: Stage) -> None:
            if stage.name == "easy":
                after_easy.update(weights(run))

    run = tiny_run(settings, callbacks=[heard, Copy()], stages=stages)
    train(run)
    assert heard.rates == pytest.approx([0.2, 0.05, 0.05])
    changed = {name for name in before if not torch.equal(before[name], after_easy[name])}
    assert changed == {"head.weight", "head.bias"}
    assert len(heard.sample_ids[0]) == 12
    lengths = [run.splits.train.difficulty[i] for i in heard.sample_ids[0]]
    assert max(lengths) <= sorted(run.splits.train.difficulty)[12]


def test_patterns_that_match_nothing_are_refused() -> None:
    with pytest.raises(UsageError, match="match no parameter"):
        train(tiny_run(stages=[Stage(epochs=1, trainable=("backbone.*",))]))


@pytest.mark.parametrize("accumulate", [1, 2, 3, 8])
def test_the_learning_rate_follows_optimizer_steps(accumulate: int) -> None:
    heard = Heard()
    settings = {"loop.batch_size": 2, "loop.accumulate": accumulate, "scheduler.warmup": 0, "scheduler.floor": 0.0}
    run = tiny_run(settings | {"optimizer.lr": 1.0}, callbacks=[heard])
    train(run)
    steps = run.total_steps
    assert steps == 2 * math.ceil(24 / (2 * accumulate)) == len(heard.rates)
    assert heard.rates == pytest.approx([0.5 * (1 + math.cos(math.pi * t / steps)) for t in range(steps)], abs=1e-12)


class PoisonedTask(TinyTask):
    """Make the loss NaN at a window by a label-independent trick: infinite weights in the head's input."""

    def __init__(self, poisoned: set[int]) -> None:
        super().__init__(dropout=0.0)
        self.poisoned = poisoned

    def build_model(self) -> nn.Module:
        model = super().build_model()
        calls = iter(range(10**9))
        forward = model.forward
        poisoned = self.poisoned

        def sometimes_nan(tokens: torch.Tensor) -> dict[str, torch.Tensor]:
            logits = forward(tokens)["logits"]
            return {"logits": logits * float("nan") if model.training and next(calls) in poisoned else logits}

        model.forward = sometimes_nan
        return model


def test_nan_stops_before_the_update() -> None:
    run = tiny_run({"loop.batch_size": 8}, task=PoisonedTask({2}))
    with pytest.raises(Diverged, match="step 3 is not finite") as caught:
        train(run)
    assert run.moment.step == 2
    healthy: list[dict[str, torch.Tensor]] = []

    class Copy:
        @hookimpl
        def on_step(self, run: Run) -> None:
            healthy.append(weights(run))

    train(tiny_run({"loop.batch_size": 8}, task=PoisonedTask(set()), callbacks=[Copy()]))
    assert same(weights(run), healthy[1])
    assert "samples 1-" in caught.value.where
    assert "embedding.weight" in caught.value.where
    assert caught.value.exit_code == 1


def test_nan_may_be_skipped_and_is_counted() -> None:
    heard = Heard()
    settings = {"loop.batch_size": 8, "loop.nan_policy": "skip", "loop.nan_patience": 3}
    run = tiny_run(settings, task=PoisonedTask({1, 2}), callbacks=[heard])
    train(run)
    assert (run.moment.step, run.moment.skipped, run.moment.skipped_total) == (4, 0, 2)
    assert run.scheduler is not None
    assert run.scheduler.last_epoch == 4
    with pytest.raises(Diverged):
        train(tiny_run(settings, task=PoisonedTask({1, 2, 3})))


def test_a_void_fused_step_leaves_weights_and_is_reported_with_the_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainkit.gradients.defers_check", lambda run: True)
    kept: list[dict[str, torch.Tensor]] = []

    class Copy:
        @hookimpl
        def on_gradients(self, run: Run) -> None:
            kept.append(weights(run))

        @hookimpl
        def on_step(self, run: Run) -> None:
            kept.append(weights(run))

    run = tiny_run({"loop.batch_size": 8, "loop.log_every_steps": 3}, task=PoisonedTask({1}), callbacks=[Copy()])
    with pytest.raises(Diverged):
        train(run)
    assert run.moment.step == 3
    assert not same(kept[0], kept[1]), "a finite step changes weights"
    assert same(kept[2], kept[3]), "the void step must not"


def test_deferred_and_immediate_checks_train_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = []
    for deferred in (False, True):
        monkeypatch.setattr("trainkit.gradients.defers_check", lambda run, deferred=deferred: deferred)
        run = tiny_run({"loop.batch_size": 3, "loop.accumulate": 2, "loop.clip": 0.1})
        train(run)
        runs.append(weights(run))
    for name in runs[0]:
        assert torch.allclose(runs[0][name], runs[1][name], rtol=1e-5, atol=1e-7)


def test_losses_with_parameters_learn_without_decay() -> None:
    class Weighted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.log_variance = nn.Parameter(torch.zeros(()))

        def forward(self, logits: torch.Tensor, labels: torch.Tensor) -> LossOutput:
            count = (labels != -100).sum()
            total = nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum")
            return LossOutput(total * torch.exp(-self.log_variance) + count * self.log_variance, count)

    run = tiny_run({"optimizer.lr": 0.01}, loss=Weighted)
    groups = {group["name"]: group for group in run.optimizer.param_groups}
    assert groups["loss"]["weight_decay"] == groups["no_decay"]["weight_decay"] == 0.0 < groups["decay"]["weight_decay"]
    train(run)
    assert float(run.loss.log_variance.detach()) > 0


def test_optimizers_are_given_names_and_embeddings_have_a_group_of_their_own() -> None:
    run = tiny_run()
    names = {group["name"]: group["param_names"] for group in run.optimizer.param_groups}
    assert names["embedding"] == ["embedding.weight"]
    assert sorted(chain.from_iterable(names.values())) == sorted(name for name, _ in run.model.named_parameters())
    by_name = dict(run.model.named_parameters())
    for group in run.optimizer.param_groups:
        assert all(by_name[n] is p for n, p in zip(group["param_names"], group["params"], strict=True))


def test_listeners_may_replace_a_loss_by_its_samples() -> None:
    class KeepFirst:
        """Back-propagate the first sample of each batch alone."""

        def __init__(self) -> None:
            self.per_sample: list[torch.Tensor] = []

        @hookimpl
        def on_loss(self, run: Run, batch: dict[str, Any], loss: LossOutput) -> LossOutput:
            assert loss.per_sample is not None
            self.per_sample.append(loss.per_sample)
            _, first = run.forward({k: v[:1] for k, v in batch.items()})
            return first

    keep = KeepFirst()
    run = tiny_run({"loop.batch_size": 4, "loop.max_steps": 1}, callbacks=[keep])
    train(run)
    assert keep.per_sample[0].shape == (4,)
    assert run.moment.step == 1


def test_second_order_listeners_get_extra_backward_passes() -> None:
    products: list[tuple[torch.Tensor, torch.Tensor]] = []

    class Curvature:
        """Compare a Hessian-vector product with finite differences of the gradient."""

        @hookimpl
        def on_step(self, run: Run) -> None:
            parameter = run.learnable["head.bias"]

            def gradient() -> torch.Tensor:
                _, loss = run.forward(run.batch)
                return torch.autograd.grad(loss.sum / loss.count, parameter, create_graph=True)[0]

            vector = torch.linspace(-1, 1, parameter.numel())
            exact = torch.autograd.grad(gradient() @ vector, parameter)[0]
            with torch.no_grad():
                parameter += 1e-2 * vector
            above = gradient().detach()
            with torch.no_grad():
                parameter -= 2e-2 * vector
            below = gradient().detach()
            with torch.no_grad():
                parameter += 1e-2 * vector
            products.append((exact, (above - below) / 2e-2))

    train(tiny_run({"loop.max_steps": 3}, task=TinyTask(dropout=0.0), callbacks=[Curvature()]))
    assert len(products) == 3
    for exact, approximate in products:
        assert torch.allclose(exact, approximate, atol=1e-4)


@pytest.mark.parametrize(
    "settings",
    [
        {"loop.log_every_steps": 1},
        {"loop.log_every_steps": 1000, "evaluate.every_epochs": None},
        {"evaluate.every_steps": 2},
        {"evaluate.batch_size": 3},
        {"loop.workers": 2},
        {"metric": ["token-accuracy"]},
    ],
)
def test_what_only_looks_changes_no_weight(settings: dict[str, Any]) -> None:
    plain, watched = tiny_run(), tiny_run(settings)
    train(plain)
    train(watched)
    assert same(weights(plain), weights(watched))


def test_another_seed_changes_weights() -> None:
    one, other = tiny_run(), tiny_run({"seed": 1})
    train(one)
    train(other)
    assert not same(weights(one), weights(other))


def test_bf16_trains_in_fp32_weights() -> None:
    run = tiny_run({"precision": "bf16", "optimizer.lr": 0.01}, stages=[Stage(epochs=30)])
    train(run)
    assert {parameter.dtype for parameter in run.model.parameters()} == {torch.float32}
    rows = tiny_losses(run)
    assert rows[-1] < 0.7 * rows[0]


def tiny_losses(run: Run) -> list[float]:
    """Return the loss of the first batches before and of the same batches after training."""
    fresh = tiny_run({"precision": run.settings.precision})
    found = []
    for one in (fresh, run):
        one.model.eval()
        batch = one.batch_maker()(0, torch.arange(24))
        _, loss = one.forward(batch)
        found.append(float(loss.sum.detach() / loss.count))
    return found


def test_fp16_needs_a_gpu() -> None:
    with pytest.raises(UsageError, match="fp16 needs a GPU"):
        tiny_run({"precision": "fp16"})


def test_gradient_checkpointing_is_refused_where_the_model_does_not_offer_it() -> None:
    with pytest.raises(UsageError, match="gradient_checkpointing"):
        tiny_run({"loop.gradient_checkpointing": True})


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # raised inside torch.compile itself
def test_a_compiled_model_trains_alike() -> None:
    plain = tiny_run({"loop.max_steps": 3}, task=TinyTask(dropout=0.0))
    compiled = tiny_run({"loop.max_steps": 3, "loop.compile": True}, task=TinyTask(dropout=0.0))
    train(plain)
    train(compiled)
    assert list(plain.model.state_dict()) == list(compiled.model.state_dict())
    for name, value in weights(plain).items():
        assert torch.allclose(value, weights(compiled)[name], rtol=1e-4, atol=1e-5)


def test_stopping_and_ending_a_stage_are_asked_for() -> None:
    def at(step: int, act: Callable[[Run], None]) -> object:
        class Ask:
            @hookimpl
            def on_step(self, run: Run) -> None:
                if run.moment.step == step:
                    act(run)

        return Ask()

    run = tiny_run(callbacks=[at(3, lambda run: run.stop("enough"))])
    train(run)
    assert (run.moment.step, run.stop_reason) == (3, "enough")
    heard = Heard()
    stages = [Stage(name="a", epochs=5), Stage(name="b", epochs=1)]
    run = tiny_run({"loop.batch_size": 12}, stages=stages, callbacks=[heard, at(3, lambda run: run.end_stage("flat"))])
    train(run)
    assert run.moment.step == 5
    assert heard.names.count("stage b") == 1


def test_a_stage_that_ends_after_the_last_one_changes_nothing() -> None:
    run = tiny_run({"loop.max_steps": 1})
    train(run)
    run.end_stage("too late")
    assert run.stage_reasons == []


def test_plain_torch_losses_and_tensor_outputs_are_understood() -> None:
    class Flat(nn.CrossEntropyLoss):
        def forward(self, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
            return super().forward(input.flatten(0, 1), target.flatten())

    run = tiny_run({"loop.max_steps": 2}, loss=reading(Flat, "logits", "labels"))
    train(run)
    assert run.moment.step == 2


def test_rows_hold_means_over_counts_rates_and_norms() -> None:
    heard = Heard()
    train(tiny_run({"loop.log_every_steps": 3, "loop.batch_size": 8, "optimizer.lr": 0.5}, callbacks=[heard]))
    rows = [row for row in heard.rows if "train/loss" in row]
    assert len(rows) == 2
    assert {"train/loss", "train/loss/nll", "train/learning_rate", "train/grad_norm", "time/elapsed"} <= set(rows[0])
    evaluations = [row for row in heard.rows if "val/loss" in row]
    assert len(evaluations) == 2


def test_a_plans_precision_and_model_take_effect() -> None:
    strategy = TinyStrategy([Stage(epochs=1)], {"precision": "bf16", "task.width": 24, "seed": 5})
    run = tiny_run(task=TinyTask, strategy=strategy)
    assert run.engine.precision == "bf16"
    assert run.learnable["head.weight"].shape[1] == 24
    asked = tiny_run({"seed": 5, "task.width": 24}, task=TinyTask)
    assert same(weights(run), weights(asked))
