"""The conformance kit finds the faults it is there for: each kind's typical ones, one at a time."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from trainkit import LossOutput, Plan, Setting, Stage, SumMetric, hookimpl
from trainkit.component import Component
from trainkit.testing import (
    AdapterConformance,
    AugmenterConformance,
    CallbackConformance,
    LossConformance,
    MetricConformance,
    NotChecked,
    OptimizerConformance,
    SchedulerConformance,
    StrategyConformance,
    conformance_of,
    run_checks,
)
from trainkit.testing.component import plain, raises, same


def of(base, target, **attributes):
    """Return a conformance object for a class that no distribution offers."""

    def load(self):
        return Component(self.kind, "mine", target)

    return type("Checked", (base,), {"component": "mine", "load": load, **attributes})()


def failing(checked, *, among=None):
    """Return the names of the checks that fail."""
    names = [name for name in dir(checked) if name.startswith("test_")]
    # These need an installed distribution; they are checked on the real components.
    names = [n for n in names if n not in ("test_is_found_by_name", "test_naming_it_imports_nothing_heavy")]
    found = set()
    for name in among or names:
        try:
            getattr(checked, name)()
        except NotChecked:
            raise
        except Exception:
            found.add(name)
    return found


class Descent(torch.optim.Optimizer):
    """Go downhill.

    Args:
        params: parameters.
        lr: learning rate.
    """

    def __init__(self, params, lr: float = 1e-3):
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    if p.grad.is_sparse:
                        raise RuntimeError("sparse gradients are refused")
                    self.move(group, p)

    def move(self, group, p):
        p -= group["lr"] * p.grad


class Uphill(Descent):
    def move(self, group, p):
        p += group["lr"] * p.grad


class Momentum(Descent):
    def move(self, group, p):
        state = self.state[p]
        state["m"] = state.get("m", torch.zeros_like(p)).lerp(p.grad, 0.1)
        p -= group["lr"] * state["m"]


class Forgetful(Momentum):
    def state_dict(self):
        return {**super().state_dict(), "state": {}}


class OneRate(Descent):
    def move(self, group, p):
        p -= self.param_groups[-1]["lr"] * p.grad


CHEAP = [
    "test_groups_have_their_own_learning_rates",
    "test_groups_have_their_own_weight_decay",
    "test_keeps_dtypes",
    "test_minimises_a_parabola",
    "test_refuses_sparse_gradients",
    "test_resumes_to_the_bit",
    "test_skips_what_has_no_gradient",
    "test_state_is_plain",
]


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (Descent, set()),
        (Momentum, set()),
        (Uphill, {"test_minimises_a_parabola"}),
        (Forgetful, {"test_resumes_to_the_bit"}),
        (OneRate, {"test_groups_have_their_own_learning_rates"}),
    ],
)
def test_faults_of_optimizers(target, expected):
    assert failing(of(OptimizerConformance, target, steps=200), among=CHEAP) == expected


def test_options_without_a_word_of_help_and_a_class_without_a_docstring_are_found():
    class Silent(Descent):
        def __init__(self, params, lr: float = 1e-3, mystery: int = 0):
            super().__init__(params, lr)

    Silent.__doc__ = None
    found = failing(
        of(OptimizerConformance, Silent), among=["test_options_are_few_and_explained", "test_says_what_it_is"]
    )
    assert found == {"test_options_are_few_and_explained", "test_says_what_it_is"}


class Decay(torch.optim.lr_scheduler.LRScheduler):
    """Lower the rate by a tenth each step."""

    def __init__(self, optimizer, total_steps):
        super().__init__(optimizer)

    def get_lr(self):
        return [base * 0.9**self.last_epoch for base in self.base_lrs]


class Absolute(Decay):
    """Give each group the same rate."""

    def get_lr(self):
        return [0.9**self.last_epoch for _ in self.base_lrs]


class Negative(Decay):
    """Fall below 0."""

    def get_lr(self):
        return [base * (1 - self.last_epoch / 10) for base in self.base_lrs]


class Wasteful(Decay):
    """Begin at 0."""

    def get_lr(self):
        return [base * min(1, self.last_epoch / 10) for base in self.base_lrs]


class Amnesiac(Decay):
    """Save nothing."""

    def state_dict(self):
        return {}


class Late(Decay):
    """Remember the rates it began with."""

    def get_lr(self):
        self.first = getattr(self, "first", self.base_lrs)
        return [rate * 0.9**self.last_epoch for rate in self.first]


class Recursive(Decay):
    """Go from each rate to the next one."""

    def get_lr(self):
        rates = [group["lr"] for group in self.optimizer.param_groups]
        return rates if self.last_epoch == 0 else [0.9 * rate for rate in rates]


class Endless(Decay):
    """Warm up for however long.

    Args:
        warmup: steps of the rise.
    """

    def __init__(self, optimizer, total_steps, warmup: int = 5):
        self.warmup = warmup
        super().__init__(optimizer, total_steps)

    def get_lr(self):
        return [base * min(1, (self.last_epoch + 1) / self.warmup) for base in self.base_lrs]


class Deaf(Decay):
    """Wait for a metric and let the step decide."""

    requires_metric = True


class Secretive(Decay):
    """Hear evaluations without telling."""

    @hookimpl
    def after_evaluation(self, results):
        assert results


class Patient(Decay):
    """Lower the rate by half after each evaluation."""

    requires_metric = True

    def __init__(self, optimizer, total_steps):
        self.heard = 0
        super().__init__(optimizer, total_steps)

    @hookimpl
    def after_evaluation(self, run, split, results):
        assert (run.moment.step, split, results) == (0, "val", {"val/loss": 1.0})
        self.heard += 1
        self._last_lr = self.get_lr()
        for group, rate in zip(self.optimizer.param_groups, self._last_lr, strict=True):
            group["lr"] = rate

    def get_lr(self):
        return [base * 0.5**self.heard for base in self.base_lrs]


class Forgiving(Patient):
    """Forget what was heard."""

    def load_state_dict(self, state_dict):
        super().load_state_dict({**state_dict, "heard": 0})


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (Decay, set()),
        (Absolute, {"test_keeps_the_ratios_of_groups", "test_follows_new_base_rates"}),
        (Negative, {"test_rates_are_never_negative"}),
        (Wasteful, {"test_does_not_waste_the_first_step", "test_takes_the_shortest_trainings"}),
        (Amnesiac, {"test_resumes_to_the_bit"}),
        (Recursive, set()),
        (Late, {"test_follows_new_base_rates"}),
        (Endless, {"test_refuses_a_warmup_that_fills_the_training"}),
        (Deaf, {"test_reacts_to_what_it_waits_for"}),
        (Secretive, {"test_reacts_to_what_it_waits_for"}),
        (Patient, set()),
        (Forgiving, {"test_resumes_to_the_bit"}),
    ],
)
def test_faults_of_schedulers(target, expected):
    assert failing(of(SchedulerConformance, target)) == expected


class Likelihood(torch.nn.Module):
    """Measure likelihood."""

    def forward(self, logits, labels):
        real = labels != -100
        chosen = logits.float().log_softmax(-1).gather(-1, labels.clamp(min=0).unsqueeze(-1)).squeeze(-1)
        losses = -chosen.masked_fill(~real, 0.0)
        lengths = real.sum(1)
        return self.answer(losses, real.sum(), losses.detach().sum(1) / lengths.clamp(min=1))

    def answer(self, losses, count, per_sample):
        return LossOutput(losses.sum(), count, parts={"nll": (losses.detach().sum(), count)}, per_sample=per_sample)


class Mean(Likelihood):
    """Give a mean for a sum."""

    def answer(self, losses, count, per_sample):
        return LossOutput(losses.sum() / count, count)


class Attached(Likelihood):
    """Keep the graph alive in its parts."""

    def answer(self, losses, count, per_sample):
        return LossOutput(losses.sum(), count, parts={"nll": (losses.sum(), count)}, per_sample=per_sample)


class PadCounting(Likelihood):
    """Take padding for class 0."""

    def forward(self, logits, labels):
        chosen = logits.float().log_softmax(-1).gather(-1, labels.clamp(min=0).unsqueeze(-1)).squeeze(-1)
        return LossOutput(-chosen.sum(), labels.numel())


class Dead(Likelihood):
    """Cut the gradient off."""

    def forward(self, logits, labels):
        return super().forward(logits.detach(), labels)


class Drifting(Likelihood):
    """Count calls in evaluation too, and forget the count."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def answer(self, losses, count, per_sample):
        self.calls += 1
        return LossOutput(losses.sum() * self.calls, count)


class Destructive(Likelihood):
    """Change its inputs."""

    def forward(self, logits, labels):
        output = super().forward(logits, labels.clone())
        labels[labels == -100] = 0
        return output


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (Likelihood, set()),
        (Mean, {"test_parts_of_a_batch_add_up", "test_nothing_real_is_an_exact_zero"}),
        (Attached, {"test_gives_a_finite_sum_and_a_count"}),
        (PadCounting, {"test_ignored_positions_change_nothing", "test_nothing_real_is_an_exact_zero"}),
        (Drifting, {"test_state_continues", "test_evaluation_leaves_it_as_it_is"}),
    ],
)
def test_faults_of_losses(target, expected):
    assert failing(of(LossConformance, target)) == expected


def test_a_loss_without_a_gradient_and_one_that_changes_its_inputs_are_found():
    assert "test_gradient_reaches_every_prediction" in failing(of(LossConformance, Dead))
    assert "test_inputs_are_left_whole" in failing(of(LossConformance, Destructive))


def test_a_loss_that_reads_something_unknown_is_not_checked_but_told():
    class Other(torch.nn.Module):
        """Read something else."""

        def forward(self, waveforms):
            return LossOutput(waveforms.sum(), 1)

    with pytest.raises(NotChecked, match=r"give inputs\(\): the loss reads waveforms"):
        of(LossConformance, Other).test_inputs_are_left_whole()


class Share(SumMetric):
    """Compute the share of right answers."""

    def update(self, predictions, labels):
        self.add(right=(predictions == labels).sum(), all=labels.numel())

    def compute(self):
        return self.ratio("right", "all")


class AverageOfAverages(Share):
    """Average over batches."""

    def update(self, predictions, labels):
        self.add(right=(predictions == labels).float().mean(), all=1)


class Optimist(Share):
    """Say 1 when nothing was seen."""

    def compute(self):
        return self.ratio("right", "all") if self.sums else 1.0


class Sticky(Share):
    """Never forget."""

    def reset(self):
        self.kept = True


PREDICTIONS, LABELS = torch.tensor([[1, 2], [3, 4], [5, 6]]), torch.tensor([[1, 2], [3, 0], [0, 0]])
CASES = [({"predictions": PREDICTIONS, "labels": LABELS}, 0.5)]
RAGGED = {"predictions": [torch.tensor([1]), torch.ones(3)], "labels": [torch.tensor([1]), torch.zeros(3)]}


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (Share, set()),
        (Optimist, {"test_nothing_seen_is_not_a_number"}),
        (Sticky, {"test_reset_forgets"}),
    ],
)
def test_faults_of_metrics(target, expected):
    assert failing(of(MetricConformance, target, cases=CASES)) == expected


def test_an_average_of_averages_is_found_where_samples_differ_in_length():
    class ByList(AverageOfAverages):
        """Average over batches of ragged samples."""

        def update(self, predictions, labels):
            super().update(torch.cat(list(predictions)), torch.cat(list(labels)))

    checked = of(MetricConformance, ByList, cases=[(RAGGED, 0.25)])
    assert failing(checked) == {"test_parts_merge_to_the_whole", "test_sums_merge_across_ranks"}


def test_a_metric_without_known_values_is_not_checked_but_told():
    with pytest.raises(NotChecked, match="give cases"):
        of(MetricConformance, Share).test_known_values()


class Noise:
    """Add noise."""

    reads = frozenset({"x"})

    def __call__(self, sample, generator):
        return {**sample, "x": sample["x"] + generator.normal(size=3)}


class InPlace(Noise):
    """Change the sample that goes in."""

    def __call__(self, sample, generator):
        sample["x"] += generator.normal(size=3)
        return dict(sample)


class GlobalNoise(Noise):
    """Draw from the global generator."""

    def __call__(self, sample, generator):
        return {**sample, "x": sample["x"] + random.random()}


class Idle(Noise):
    """Do nothing."""

    def __call__(self, sample, generator):
        return dict(sample)


class Losing(Noise):
    """Lose a key."""

    def __call__(self, sample, generator):
        return {"x": sample["x"] + generator.normal(size=3)}


def augmenter(target):
    def samples(self):
        return [{"x": np.arange(3.0), "y": 1}, {"x": np.ones(3), "y": 0}]

    checked = of(AugmenterConformance, target, samples=samples)
    # Of its own checks, those that need no task; the real augmenters are checked with theirs.
    return failing(checked, among=[n for n in vars(AugmenterConformance) if n.startswith("test_") and "task" not in n])


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (Noise, set()),
        (Idle, {"test_does_something"}),
        (Losing, {"test_keeps_the_keys"}),
        (GlobalNoise, {"test_generator_decides_alone", "test_leaves_global_randomness_alone"}),
    ],
)
def test_faults_of_augmenters(target, expected):
    assert augmenter(target) == expected


def test_an_augmenter_that_changes_its_input_is_found():
    assert "test_input_stays_whole" in augmenter(InPlace)


class HeadOnly:
    """Let the last layer learn."""

    def __call__(self, model):
        model.requires_grad_(False)
        model[-1].requires_grad_(True)
        return model


class Frozen:
    """Let nothing learn."""

    def __call__(self, model):
        return model.requires_grad_(False)


class Reshaping:
    """Cut the output."""

    def __call__(self, model):
        return torch.nn.Sequential(model, torch.nn.Linear(4, 2))


def test_faults_of_adapters():
    assert failing(of(AdapterConformance, HeadOnly)) == set()
    assert failing(of(AdapterConformance, Frozen)) == {"test_something_learns", "test_only_what_learns_moves"}
    assert "test_outputs_keep_their_shape" in failing(of(AdapterConformance, Reshaping))


class Listener:
    """Count steps."""

    def __init__(self):
        self.steps = 0

    @hookimpl
    def on_step(self, run):
        self.steps += 1

    def state_dict(self):
        return {"steps": self.steps}

    def load_state_dict(self, state):
        self.steps = state["steps"]


class Unmarked:
    """Forget the marker."""

    def on_step(self, run):
        """Hear nothing."""


class Misspelt:
    """Hear an event that does not exist."""

    @hookimpl
    def on_stepp(self, run):
        """Hear nothing."""


class Opaque(Listener):
    """Save an object."""

    def state_dict(self):
        return {"self": self}


def test_faults_of_callbacks():
    assert failing(of(CallbackConformance, Listener)) == set()
    assert failing(of(CallbackConformance, Unmarked)) == {"test_hears_events_that_exist"}
    assert failing(of(CallbackConformance, Misspelt)) == {"test_hears_events_that_exist"}
    assert "test_state_is_plain" in failing(of(CallbackConformance, Opaque))


class Simple:
    """Plan one epoch."""

    samples = (1, 100)
    settings: dict[str, Setting] = {"loop.batch_size": Setting(value=4, reason="small on purpose")}

    def plan(self, situation):
        return Plan(strategy="mine", stages=(Stage(epochs=1),), settings=self.settings)


def planning(**settings):
    return type("Planning", (Simple,), {"__doc__": "Plan.", "settings": settings})


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (Simple, set()),
        (planning(**{"loop.batchsize": Setting(value=4, reason="a misspelt key")}), {"test_settings_exist"}),
        (planning(**{"loop.batch_size": Setting(value=-1, reason="a wrong value")}), {"test_settings_exist"}),
        (planning(**{"optimizer.lr": Setting(value=1.0, reason="names no optimizer")}), {"test_settings_exist"}),
        (planning(**{"loop.batch_size": Setting(value=4, reason="")}), {"test_settings_have_reasons"}),
    ],
)
def test_faults_of_strategies(target, expected):
    assert failing(of(StrategyConformance, target)) == expected


def test_a_strategy_that_changes_its_mind_is_found():
    class Moody(Simple):
        """Plan longer each time."""

        asked = 0

        def plan(self, situation):
            type(self).asked += 1
            return Plan(strategy="mine", stages=(Stage(epochs=self.asked),))

    assert "test_is_a_function_of_the_situation" in failing(of(StrategyConformance, Moody))


def test_replacing_a_check_needs_a_reason():
    with pytest.raises(TypeError, match=r"Quiet\.test_known_values replaces a check of the kit"):

        class Quiet(MetricConformance):
            def test_known_values(self):
                pass

    class Excused(MetricConformance):
        @pytest.mark.xfail(reason="its value depends on the machine")
        def test_known_values(self):
            raise AssertionError

    assert Excused.kind == "metric"


def test_every_kind_has_a_class():
    from trainkit.hooks import KINDS

    assert [conformance_of(kind).kind for kind in KINDS] == list(KINDS)


def test_checks_run_without_pytest_and_tell_what_only_tests_can_know():
    results = {result.name: result for result in run_checks("scheduler", "cosine")}
    assert results["resumes_to_the_bit"].outcome == "passed"
    assert results["resumes_to_the_bit"].about.startswith("Its state in a fresh scheduler")
    assert {result.outcome for result in results.values()} == {"passed"}
    metric = {result.name: result for result in run_checks("metric", "token-accuracy")}
    assert metric["known_values"].outcome == "not checked"
    assert "give cases" in metric["known_values"].message


def test_a_component_that_is_not_installed_fails_every_check_with_the_message_of_the_registry():
    results = run_checks("optimizer", "no-such-optimizer")
    assert {result.outcome for result in results} == {"failed"}
    assert "no optimizer named 'no-such-optimizer'" in results[0].message


def test_helpers():
    assert plain({"a": [1, 2.0, "b", None, torch.zeros(1)], 3: (True,)})
    assert not plain({"a": object()})
    assert same({"a": [torch.tensor([1.0, torch.nan])]}, {"a": [torch.tensor([1.0, torch.nan])]})
    assert not same(torch.zeros(2), torch.zeros(2, dtype=torch.float64))
    assert not same({"a": 1}, {"b": 1})
    assert not same([1, 2], [1])
    with raises(ValueError):
        raise ValueError
    with pytest.raises(AssertionError, match="nothing was raised"), raises(ValueError):
        pass
