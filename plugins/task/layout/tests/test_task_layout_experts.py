"""Experts: who works at which share of hidden slots, what the split changes, and runs of two stages."""

from __future__ import annotations

import inspect
import signal
from dataclasses import replace
from itertools import chain, pairwise

import pytest
import torch
from torch import nn
from trainkit import hookimpl
from trainkit.api import resume, start
from trainkit.errors import UsageError
from trainkit.plan import Plan, Stage
from trainkit.testing.tiny import tiny_request
from trainkit_task_layout.experts import Experts, budgets, depths, group_of, only_experts_learn
from trainkit_task_layout.noise import mask_rate
from trainkit_task_layout.task import LayoutTask

SMALL = {"width": 32, "heads": 2, "encoder_layers": 1, "decoder_layers": 3, "dropout": 0.0, "image_size": 64}


@pytest.fixture(scope="module")
def splits():
    return LayoutTask(**SMALL).read(None, seed=0)


def taken_of(model, batch):
    """Return what the model takes from a batch."""
    return {name: batch[name] for name in inspect.signature(model.forward).parameters if name in batch}


def made(splits, **options):
    task = LayoutTask(**{**SMALL, "guidance": 1.0, **options})
    task.fit(splits.train)
    torch.manual_seed(0)
    model = task.build_model()
    for parameter in model.decoder.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    batch = task.collate(splits.train.__getitems__(list(range(8))))
    return task, model, batch, taken_of(model, batch)


def test_budgets_and_depths_are_those_of_the_reference():
    assert budgets(4, 0.6) == pytest.approx([0.7, 0.8, 0.9, 1.0])
    assert sum(budgets(4, 0.4667)) / 4 == pytest.approx(0.8, abs=1e-4)
    assert depths(10, 4, 0.6) == [7, 8, 9, 10]
    assert depths(6, 2, 0.6) == [5, 6]
    assert depths(3, 4, 1.0) == [3, 3, 3, 3]


def test_groups_divide_the_shares_of_hidden_slots_evenly():
    assert group_of(torch.tensor([0.0, 0.2, 0.25, 0.26, 0.5, 0.51, 1.0]), 4).tolist() == [0, 0, 0, 1, 1, 2, 3]


def test_one_expert_is_the_model_without_experts(splits):
    _, model, _, _ = made(splits)
    assert model.experts is None
    assert not [name for name in model.state_dict() if "experts" in name]


def test_before_the_split_experts_change_nothing(splits):
    _, plain, _, taken = made(splits)
    _, model, _, _ = made(splits, experts=2)
    model.load_state_dict(plain.state_dict(), strict=False)
    assert torch.equal(model.eval()(**taken)["logits"], plain.eval()(**taken)["logits"])


def test_experts_that_equal_the_base_give_what_the_base_gives(splits):
    task, model, batch, taken = made(splits, experts=4, expert_budget=1.0)
    model.eval()
    before, written = model(**taken), task.predict(model, batch, {})["predictions"]
    model.split_experts()
    after, again = model(**taken), task.predict(model, batch, {})["predictions"]
    torch.testing.assert_close(after["logits"], before["logits"], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(after["pointer_logits"], before["pointer_logits"], atol=1e-5, rtol=1e-5)
    assert torch.equal(written, again)


def test_a_second_split_keeps_what_experts_have_learned(splits):
    _, model, _, _ = made(splits, experts=2)
    model.split_experts()
    first = next(model.experts.groups[0].parameters())
    first.data += 1
    learned = first.clone()
    model.split_experts()
    assert torch.equal(first, learned)


def test_every_draw_of_training_passes_the_expert_of_its_interval(splits):
    task, model, _, taken = made(splits, experts=4)
    model.split_experts()
    model.train()
    seen: list[list[float]] = [[] for _ in range(4)]
    for number, expert in enumerate(model.experts.groups):
        # What a layer is given holds the times; their embedding is known, so the time is found again.
        expert[0].register_forward_pre_hook(
            lambda _, given, number=number: seen[number].extend(_times(model, given[1].time, taken["labels"].shape[1]))
        )
    drawn = []
    for _ in range(12):
        drawn += model(**taken)["mask_rate"].tolist()
    assert sorted(chain.from_iterable(seen)) == pytest.approx(sorted(drawn), abs=2e-3)
    for number, rates in enumerate(seen):
        assert rates
        assert min(rates) > number / 4 - 2e-3
        assert max(rates) < (number + 1) / 4 + 2e-3
    assert [len(expert) for expert in model.experts.groups] == depths(3, 4, 0.6)
    del task


def _times(model: nn.Module, modulations: torch.Tensor, slots: int) -> list[float]:
    """Return the shares of hidden slots that belong to the modulations [B, 6, 2N, d] of noised slots."""
    grid = torch.linspace(0, 1, 2001)
    known = model.decoder.modulations(grid).flatten(1)
    here = modulations[:, :, slots].flatten(1)
    times = grid[torch.cdist(here.detach(), known.detach()).argmin(dim=1)]
    return mask_rate(times, model.schedule).tolist()


def test_gradients_reach_only_the_experts_that_work(splits):
    _, model, _, taken = made(splits, experts=2)
    experts = {name for name, _ in model.named_parameters() if name.startswith("experts.")}
    assert experts
    model(**taken)["logits"].sum().backward()
    assert all(p.grad is None for name, p in model.named_parameters() if name in experts)
    model.zero_grad(set_to_none=True)
    model.split_experts()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in experts)
    model.train()
    torch.manual_seed(0)
    model(**taken)["logits"].sum().backward()
    assert all(p.grad is not None for name, p in model.named_parameters() if name in experts)
    assert all(p.grad is None for name, p in model.named_parameters() if name not in experts)


def test_only_a_stage_of_experts_alone_splits(splits):
    assert only_experts_learn(["experts.*"])
    assert only_experts_learn(["experts.groups.0.*", "experts.groups.1.*"])
    assert not only_experts_learn(["*"])
    assert not only_experts_learn(["experts.*", "encoder.*"])
    task, model, _, _ = made(splits, experts=2)

    class Live:
        def __init__(self) -> None:
            self.model = nn.Sequential(model)

    task.on_stage_start(Live(), Stage(name="base", steps=1))
    assert not model.experts.is_split
    task.on_stage_start(Live(), Stage(name="experts", steps=1, trainable=("experts.*",)))
    assert model.experts.is_split
    for own, base in zip(model.experts.groups[1], model.decoder.layers, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(own.parameters(), base.parameters(), strict=True))


def test_a_state_remembers_the_split(splits):
    _, model, _, taken = made(splits, experts=2)
    _, other, _, _ = made(splits, experts=2)
    model.split_experts()
    other.load_state_dict(model.state_dict())
    assert other.experts.is_split
    assert torch.equal(other.eval()(**taken)["logits"], model.eval()(**taken)["logits"])


def test_experts_that_no_stage_would_train_are_refused():
    def started(experts, *stages):
        LayoutTask(experts=experts).check_plan(Plan(strategy="phase2", stages=stages))

    base, own = Stage(name="base", steps=1), Stage(name="own", steps=1, trainable=("experts.*",))
    with pytest.raises(UsageError, match=r"needs a stage in which the experts alone learn") as refused:
        started(2, base, Stage(name="last", steps=1, trainable=("*",)))
    assert """--set 'stages.last.trainable=["experts.*"]'""" in str(refused.value)
    started(2, base, own)
    started(1, base)


def test_experts_belong_to_diffusion():
    with pytest.raises(UsageError, match="experts"):
        LayoutTask(order="left-to-right", experts=2)


def test_samples_find_their_experts_whatever_their_company():
    torch.manual_seed(0)
    layers = nn.ModuleList(_Scaled() for _ in range(2))
    experts = Experts(layers, 2, 1.0)
    experts.split(layers)
    for expert, factor in zip(experts.groups, (2.0, 3.0), strict=True):
        for layer in expert:
            layer.factor.data.fill_(factor)
    rates, x = torch.tensor([0.9, 0.1, 0.4, 0.6]), torch.ones(4, 1, 1)
    route = experts.route(rates)
    assert route(x, _View(), False).flatten().tolist() == [9.0, 4.0, 4.0, 9.0]


class _Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.ones(()))

    def forward(self, x, view):
        del view
        return x * self.factor


class _View:
    def rows(self, index):
        del index
        return self


STAGES = (
    Stage(name="base", steps=2),
    Stage(name="experts", steps=3, trainable=("experts.*",), lr_factor=0.1, restart_schedule=True),
)


class Watch:
    """Keep the weights of every step, and ask the run to stop after some steps, as a signal does."""

    def __init__(self, last: int | None = None) -> None:
        self.kept: list[dict[str, torch.Tensor]] = []
        self.last = last

    @hookimpl
    def on_step(self, run):
        self.kept.append({name: value.clone() for name, value in run.model.state_dict().items()})
        if run.moment.step == self.last:
            run.signal = signal.SIGUSR1


def asked(out, watch: Watch):
    settings = {"out": str(out), "loop.batch_size": 16, "metric": ["token-accuracy"], "augmenter": []}
    task = LayoutTask(**SMALL, experts=2, guidance=1.0, steps=1)
    return tiny_request(settings, task=task, stages=STAGES, callbacks=[watch])


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    watch = Watch()
    assert start(asked(tmp_path_factory.mktemp("runs") / "whole", watch)).status == "done"
    return watch.kept


def test_a_run_of_two_stages_trains_the_base_and_then_the_experts(whole):
    changed = [{name for name in one if not torch.equal(one[name], other[name])} for one, other in pairwise(whole)]
    assert len(whole) == 5
    assert not any(name.startswith("experts.") for name in changed[0])
    assert any(name.startswith("decoder.layers") for name in changed[0])
    for later in changed[2:]:
        assert any(name.startswith("experts.groups.1") for name in later)
        assert all(name.startswith("experts.groups") for name in later)
    assert [bool(weights["experts.is_split"]) for weights in whole] == [False, False, True, True, True]


@pytest.mark.parametrize("last", [1, 2, 3])
def test_a_run_that_is_stopped_around_the_split_goes_on_as_if_it_had_not_been(whole, tmp_path, last):
    first = Watch(last)
    assert start(asked(tmp_path / "run", first)).status != "done"
    second = Watch()
    assert resume(tmp_path / "run", replace(asked(tmp_path / "run", second), layers=[])).status == "done"
    kept = first.kept + second.kept
    assert len(kept) == len(whole)
    for one, other in zip(kept, whole, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)
