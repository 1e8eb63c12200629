from __future__ import annotations

import pytest
import torch
from torch import nn
from trainkit import UsageError, hookimpl
from trainkit.api import start
from trainkit.evaluation import evaluate
from trainkit.plan import Stage
from trainkit.registry import Registry
from trainkit.rundir import rows
from trainkit.testing import CallbackConformance
from trainkit.testing.resuming import assert_resumes
from trainkit.testing.tiny import TinyTask, tiny_request, tiny_run
from trainkit_callback_unfreezing.unfreezing import Unfreezing, discriminative, first_learning, grouped, rest

NAMES = ("embedding.weight", "mix.0.weight", "mix.0.bias", "head.weight", "head.bias")


class Heard:
    """Notes which parts have gradients at each step, and how much each part was moved by it."""

    def __init__(self):
        self.learning, self.moved, self.modes, self.before = [], [], [], {}

    @hookimpl
    def on_gradients(self, run):
        self.learning.append({name.partition(".")[0] for name, p in run.learnable.items() if p.grad is not None})
        self.before = {name: p.detach().clone() for name, p in run.learnable.items()}
        self.modes.append((run.model.mix.training, run.model.mix[2].training))

    @hookimpl
    def on_step(self, run):
        moved = {n.partition(".")[0] for n, p in run.learnable.items() if not torch.equal(p, self.before[n])}
        self.moved.append(moved)


def trained(out, *callbacks, epochs=3, stages=None, settings=None, **live):
    heard, asked = Heard(), {"out": str(out), "loop.log_every_epochs": 1, **(settings or {})}
    stages = stages or [Stage(epochs=epochs)]
    start(tiny_request(asked, stages=stages, callbacks=[*callbacks, heard], **live))
    return heard


class TestUnfreezing(CallbackConformance):
    component = "unfreezing"


def test_rates_of_four_groups():
    rates = [1e-3 * factor for factor in discriminative(4, 2.6)]
    assert rates == pytest.approx([5.68958e-5, 1.47929e-4, 3.84615e-4, 1e-3], rel=1e-5)


def test_one_more_group_an_epoch():
    assert [first_learning(epoch, 1, 4) for epoch in range(6)] == [3, 2, 1, 0, 0, 0]
    assert [first_learning(epoch, 2, 3) for epoch in range(6)] == [2, 2, 1, 1, 0, 0]


def test_groups_are_the_parts_of_the_model_or_those_of_patterns():
    assert list(grouped(NAMES, ()).values()) == [0, 1, 1, 2, 2]
    assert list(grouped(NAMES, ("embedding.*", "mix.*")).values()) == [0, 1, 1, 1, 1]
    assert list(grouped(NAMES, ("*.weight", "*")).values()) == [0, 0, 1, 0, 1]


def test_a_slanted_triangular_rate_is_the_linear_scheduler():
    target = Registry().load("scheduler", "linear").target
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.01)
    scheduler = target(optimizer, total_steps=100, warmup=0.1, start=1 / 32, floor=1 / 32)
    rates = {}
    for step in range(101):
        rates[step] = optimizer.param_groups[0]["lr"]
        scheduler.optimizer.step()
        scheduler.step()
    expected = {0: 3.125e-4, 10: 0.01, 55: 0.00515625, 100: 3.125e-4}
    assert {step: rates[step] for step in expected} == pytest.approx(expected)


def test_parts_join_in_from_the_top_at_their_rates(tmp_path):
    heard = trained(tmp_path / "run", Unfreezing(), settings={"optimizer.lr": 0.01, "scheduler.use": "constant"})
    steps = len(heard.learning) // 3
    expected = [{"head"}] * steps + [{"head", "mix"}] * steps + [{"head", "mix", "embedding"}] * steps
    assert heard.learning == heard.moved == expected
    assert heard.modes == [(False, False)] * steps + [(True, True)] * 2 * steps
    log = [row for row in rows(tmp_path / "run" / "metrics.jsonl") if "unfreezing/learning" in row]
    counts = {"embedding": 13 * 16, "mix": 16 * 17, "head": 13 * 17}
    assert [row["unfreezing/learning"] for row in log] == [
        counts["head"], counts["head"] + counts["mix"], sum(counts.values())
    ]  # fmt: skip


def test_the_optimizer_has_a_group_for_each_rate():
    run = tiny_run({"optimizer.lr": 0.01, "optimizer.weight_decay": 0.1}, callbacks=[Unfreezing(factor=2)])
    found = {(g["name"], round(g["lr"], 6), g["weight_decay"], len(g["params"])) for g in run.optimizer.param_groups}
    assert found == {
        ("decay", 0.01, 0.1, 1), ("decay", 0.005, 0.1, 1), ("embedding", 0.0025, 0.1, 1),
        ("no_decay", 0.01, 0.0, 1), ("no_decay", 0.005, 0.0, 1),
    }  # fmt: skip
    assert run.base_rates[0] == 0.01
    assert [group["name"] for group in tiny_run(callbacks=[Unfreezing(factor=1)]).optimizer.param_groups] == [
        "decay", "embedding", "no_decay"
    ]  # fmt: skip


def test_schedules_keep_the_ratio_of_the_rates(tmp_path):
    seen = []

    class Rates:
        @hookimpl
        def on_step(self, run):
            seen.append({group["lr"] for group in run.optimizer.param_groups})

    trained(tmp_path / "run", Unfreezing(factor=2), Rates(), settings={"scheduler.use": "cosine"})
    for rates in seen:
        low, middle, high = sorted(rates)
        assert (middle / low, high / middle) == pytest.approx((2, 2))
    assert max(seen[-1]) < 0.3 * max(max(rates) for rates in seen)


def test_what_is_fixed_as_a_whole_rests_and_evaluations_do_not_wake_it():
    model = nn.Sequential(nn.Sequential(nn.BatchNorm1d(2), nn.Dropout()), nn.Dropout(), nn.Linear(2, 2))
    model[0].requires_grad_(requires_grad=False)
    rest(model)
    assert [module.training for module in (model[0], model[0][0], model[0][1], model[1], model[2])] == [
        False, False, False, True, True
    ]  # fmt: skip
    run = tiny_run(callbacks=[Unfreezing()])
    for hear in run.events.on_epoch_start:
        hear(run)
    evaluate(run, "val", run.splits.val)
    assert (run.model.training, run.model.mix[2].training, run.model.head.training) == (True, False, True)


def test_what_a_stage_keeps_fixed_stays_fixed(tmp_path):
    heard = trained(tmp_path / "run", Unfreezing(), stages=[Stage(epochs=3, trainable=("head.*", "mix.*"))])
    assert heard.learning[-1] == {"head", "mix"}


def test_a_stage_of_which_nothing_learns_is_an_error(tmp_path):
    with pytest.raises(UsageError, match=r"(?s)nothing learns in epoch 1.*lets embedding\.\* learn"):
        trained(tmp_path / "run", Unfreezing(), stages=[Stage(epochs=3, trainable=("embedding.*",))])


class Aside(TinyTask):
    """A task whose model ends with two parts on which the loss does not depend."""

    def build_model(self):
        model = super().build_model()
        model.aside, model.beside = nn.Linear(2, 2), nn.Linear(2, 2)
        return model


def test_a_top_that_is_not_in_the_loss_is_passed_over(tmp_path, caplog):
    heard = trained(tmp_path / "run", Unfreezing(), task=Aside())
    assert [heard.learning[step] for step in (0, 6, 12)] == [{"head"}, {"mix", "head"}, {"embedding", "mix", "head"}]
    assert caplog.text.count("the loss does not depend on aside, beside") == 1
    heard = trained(tmp_path / "named", Unfreezing(groups=("embedding.*", "*")), task=Aside())
    assert heard.learning[0] == {"mix", "head"}


def test_what_is_passed_over_stays_so_to_the_bit(tmp_path):
    assert_resumes(tmp_path, lambda: [Unfreezing()], [3, 8], {"optimizer.lr": 0.02}, task=Aside)


def test_a_loss_that_depends_on_nothing_that_may_learn_is_an_error(tmp_path):
    stages = [Stage(epochs=3, trainable=("aside.*", "beside.*"))]
    with pytest.raises(UsageError, match="does not depend on what learns in epoch 1"):
        trained(tmp_path / "run", Unfreezing(), stages=stages, task=Aside())


def test_a_group_without_parameters_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(UsageError, match=r"(?s)matches the group 'encoder\.\*'.*embedding, mix, head"):
        trained(tmp_path / "run", Unfreezing(groups=("encoder.*", "head.*")))
    assert not (tmp_path / "run").exists()


def test_parts_that_never_learn_are_told(tmp_path, caplog):
    trained(tmp_path / "run", Unfreezing(), epochs=2)
    assert "in 2 epochs these never learn: embedding" in caplog.text


@pytest.mark.parametrize("stops", [[6, 14], [4]])
def test_two_and_three_epochs_are_five(stops, tmp_path):
    settings = {"optimizer.lr": 0.02, "evaluate.every_steps": 4}
    assert_resumes(tmp_path, lambda: [Unfreezing(every=2 if len(stops) == 1 else 1)], stops, settings)
