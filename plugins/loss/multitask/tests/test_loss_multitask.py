from __future__ import annotations

import copy
import dataclasses
import math
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn
from trainkit import LossOutput, Stage, UsageError, hookimpl
from trainkit.api import resume, start
from trainkit.binding import bind_loss
from trainkit.nested import built
from trainkit.testing import LossConformance, tiny
from trainkit_loss_multitask.aesthetics import aesthetic_losses
from trainkit_loss_multitask.boxes import box_losses
from trainkit_loss_multitask.multitask import Multitask
from trainkit_loss_multitask.terms import WEIGHTS, curriculum_stage

LOGITS = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(1))
LABELS = torch.tensor([[0, 1, 2, -100], [3, 4, -100, -100], [0, 0, 0, 1]])
PROPS_LOGITS, PROPS = torch.tensor([[0.5, -1.0], [2.0, 0.0], [-0.3, 0.1]]), torch.tensor([[1.0, 0], [1, 1], [0, 0]])
TOKENS = {"logits": LOGITS, "labels": LABELS, "props_logits": PROPS_LOGITS, "props": PROPS}
DECOMPOSING = {"div": 0.0, "aes": 0.0, "align": 0.0}


class Agreement(nn.Module):
    """Be a loss of several resolutions: the mean square between neighbours, in nats of nothing."""

    def forward(self, scale_logits: Tensor, labels: Tensor) -> LossOutput:
        p = scale_logits.float().softmax(-1)
        real = labels != -100
        losses = (p[:, 1:] - p[:, :-1]).square().mean((1, 3)) * real
        return LossOutput(losses.sum(), real.sum())


def slots(samples: int = 6) -> dict[str, Tensor]:
    """Return a batch and outputs of the layout task, with all that it can give."""
    generator = torch.Generator().manual_seed(4)

    def normal(*shape: int) -> Tensor:
        return torch.randn(samples, *shape, generator=generator)

    labels = torch.randint(0, 7, (samples, 5), generator=generator)
    labels[:, 0] = 3
    for sample, length in enumerate((5, 3, 2, 4, 2, 5)):
        labels[sample, length:] = -100
    elements = labels > 0
    sources = torch.randint(0, 4, (samples, 5, 2), generator=generator)
    sources[..., 1] = 3
    masked = torch.rand(samples, 5, generator=generator) < 0.6
    masked[:, 0] = True
    parents = torch.tensor([-1, 0, 0, 1, 1]).expand(samples, 5)
    return {
        "logits": normal(5, 7),
        "labels": labels,
        "masked": masked & (labels != -100),
        "mask_rate": torch.full((samples,), 0.6),
        "elbo_weight": torch.full((samples,), 1 / 0.6),
        "sources": sources.masked_fill(~elements.unsqueeze(-1), -100),
        "pointer_logits": normal(5, 2, 4),
        "struct_mask": torch.ones(samples, 3, dtype=torch.bool),
        "tree_parent": parents,
        "boxes": 0.2 + 0.3 * torch.rand(samples, 5, 4, generator=generator),
        "box_mask": elements,
        "box_predictions": 0.2 + 0.3 * torch.rand(samples, 5, 4, generator=generator),
        "props": torch.randint(0, 2, (samples, 3), generator=generator).float(),
        "props_logits": normal(3),
        "visual_features": normal(8),
        "structural_features": normal(8),
        "scale_logits": normal(3, 5, 7),
    }


class TestTokens(LossConformance):
    component = "multitask"
    options: ClassVar = {"consistency": Agreement()}
    decomposes = False


class TestTokensThatDecompose(LossConformance):
    component = "multitask"
    options: ClassVar = {
        "consistency": Agreement(),
        "weights": {"div": 0.0},
        "tokens": {"use": "cross-entropy", "label_smoothing": 0.1},
    }


class _Slots(LossConformance):
    component = "multitask"
    options: ClassVar = {"consistency": Agreement()}
    decomposes = False

    def inputs(self):
        return slots()

    def predictions(self, values):
        names = ("logits", "_predictions", "_features")
        return {name: value for name, value in values.items() if name.endswith(names)}


class TestSlots(_Slots):
    pass


class TestSlotsUncertainty(_Slots):
    options: ClassVar = {**_Slots.options, "weighting": "uncertainty"}


class TestSlotsDwa(_Slots):
    options: ClassVar = {**_Slots.options, "weighting": "dwa", "diversity": "uniform", "geometry": "mse"}


class TestSlotsCov(_Slots):
    options: ClassVar = {**_Slots.options, "weighting": "cov"}


class TestSlotsGradNorm(_Slots):
    options: ClassVar = {**_Slots.options, "weighting": "gradnorm"}


class TestEveryDefault(_Slots):
    options: ClassVar = {}


def multitask(**options: object) -> Multitask:
    return Multitask(**{"consistency": Agreement(), **options})


def means(output: LossOutput) -> dict[str, float]:
    return {name: float(total) / float(count) for name, (total, count) in output.parts.items() if "/" not in name}


def step(loss: Multitask, *batches: dict[str, Tensor]) -> LossOutput:
    for batch in batches:
        output = loss(**batch)
        loss.keep(0)
    loss.advance()
    return output


def test_total_is_the_weighted_sum_of_all_terms():
    output = multitask()(**slots())
    found = means(output)
    assert set(found) == set(WEIGHTS) - {"tokens"} == set(output.terms)
    assert output.weights == {name: WEIGHTS[name] for name in found}
    assert output.inactive == ()
    assert int(output.count) == int((slots()["labels"] != -100).sum())
    expected = sum(WEIGHTS[name] * mean for name, mean in found.items())
    assert float(output.sum / output.count) == pytest.approx(expected, rel=1e-5)


def test_terms_are_those_of_the_losses_they_come_from():
    values = slots()
    found = means(multitask()(**values))
    lengths = (values["labels"] != -100).sum(1)

    def alone(spec: object) -> LossOutput:
        loss = built("loss", spec)
        return bind_loss(loss)({name: values[name] for name in values})

    diff, element = alone({"use": "masked-diffusion", "box_weight": 0.0}), alone("element-combination")
    assert found["diff"] == pytest.approx(float(diff.sum / diff.count), rel=1e-5)
    aligned = float(element.terms["align"][0] / element.count)
    assert found["align"] == pytest.approx(aligned, rel=1e-5)
    whole = float(element.sum / element.count)
    assert found["element"] == pytest.approx(whole - element.weights["align"] * aligned, rel=1e-4)
    boxes = (values["box_predictions"], values["boxes"], values["box_mask"])
    geometry = box_losses(*boxes, "l1+giou")
    assert found["geom"] == pytest.approx(float((geometry * lengths).sum() / lengths.sum()), rel=1e-5)
    looks = aesthetic_losses(boxes[0], boxes[2], values["tree_parent"], values["mask_rate"])
    assert found["aes"] == pytest.approx(float((looks * lengths).sum() / lengths.sum()), rel=1e-5)


def test_consistency_is_the_term_alone_of_a_loss_that_adds_it_to_another():
    values = slots()
    output = Multitask()(**values)
    whole = built("loss", "multi-scale-consistency")
    total, count = bind_loss(whole)(values).terms["consistency"]
    assert means(output)["consistency"] == pytest.approx(float(total / count), rel=1e-6)
    assert not any(name.startswith("consistency/") for name in output.parts)
    one = {**values, "scale_logits": values["scale_logits"][:, :1]}
    output = Multitask()(**one)
    assert output.inactive == ("consistency",)
    assert "consistency" not in output.parts


def test_diversity_leaves_out_empty_slots():
    values = slots()
    real = values["labels"] > 0
    mean = values["logits"].softmax(-1)[real].mean(0)
    loss = multitask()
    expected = math.log(7) + float((mean * mean.log()).sum())
    assert means(loss(**values))["div"] == pytest.approx(expected, rel=1e-5)
    step(loss, values)
    assert loss.counts.labels.tolist() == [int((values["labels"] == c).sum()) if c else 0 for c in range(7)]
    marginal = (loss.counts.labels + 1) / (loss.counts.labels + 1).sum()
    expected = float((mean * (mean / marginal).log()).sum())
    assert means(loss(**values))["div"] == pytest.approx(expected, rel=1e-5)
    uniform = step(multitask(diversity="uniform"), values, values)
    assert means(uniform)["div"] == pytest.approx(math.log(7) + float((mean * mean.log()).sum()), rel=1e-5)


def test_tokens_stand_in_where_nothing_is_said_of_slots():
    output = multitask()(**TOKENS)
    assert set(means(output)) == {"tokens", "props", "div"}
    assert set(output.inactive) == {"diff", "element", "geom", "aes", "align", "consistency"}
    expected = nn.functional.cross_entropy(LOGITS.flatten(0, 1), LABELS.flatten())
    assert means(output)["tokens"] == pytest.approx(float(expected), rel=1e-6)
    assert float(output.parts["tokens/nll"][0]) == pytest.approx(9 * float(expected), rel=1e-6)


def test_terms_without_inputs_are_named_and_never_zero():
    for name in ("box_predictions", "props", "scale_logits", "visual_features", "masked"):
        values = slots()
        del values[name]
        output = multitask()(**values)
        missing = {
            "box_predictions": {"geom", "aes"},
            "props": {"props"},
            "scale_logits": {"consistency"},
            "visual_features": {"align"},
            "masked": {"diff"},
        }[name]
        assert set(output.inactive) == missing
        assert not missing & (set(output.parts) | set(output.weights))


def test_parts_of_inner_losses_that_are_missing_are_named_too():
    values = slots()
    del values["pointer_logits"]
    assert set(multitask()(**values).inactive) == {"diff/pointer", "element/pointer"}


def test_none_is_as_good_as_absent():
    values = slots()
    without = {name: value for name, value in values.items() if name != "props"}
    assert float(multitask()(**{**values, "props": None}).sum) == float(multitask()(**without).sum)


def test_weights_are_set_by_term_and_zero_switches_off():
    loss = multitask(weights={"element": 0, "align": 0, "consistency": 0, "geom": 2.0})
    output = loss(**slots())
    assert set(loss.inner) == {"diffusion", "tokens"}
    assert set(output.terms) == {"diff", "geom", "props", "aes", "div"}
    assert output.weights["geom"] == 2.0
    assert output.inactive == ()


def test_without_an_own_alignment_elements_keep_theirs():
    values = slots()
    element = bind_loss(built("loss", "element-combination"))(values)
    output = multitask(weights={"align": 0})(**values)
    assert means(output)["element"] == pytest.approx(float(element.sum / element.count), rel=1e-5)
    assert "element/align" in output.parts


def test_a_dynamic_element_loss_keeps_its_alignment_and_allows_no_second_weighting():
    inner = {"use": "variance-aware", "window": 2}
    values = slots()
    output = multitask(element=inner)(**values)
    alone = bind_loss(built("loss", inner))(values)
    assert means(output)["element"] == pytest.approx(float(alone.sum / alone.count), rel=1e-5)
    assert "align" not in output.terms
    with pytest.raises(UsageError, match="cannot weigh element dynamically"):
        multitask(element=inner, weighting="cov")


def test_nothing_to_learn_from_is_refused():
    with pytest.raises(UsageError, match="nothing to learn from"):
        multitask(weights={"tokens": 0, "div": 0, "props": 0})(**TOKENS)


def test_flags_are_weighed_by_those_seen_in_training_only():
    loss = multitask()
    plain = means(loss(**TOKENS))["props"]
    step(loss, TOKENS)
    assert loss.counts.flags.tolist() == [[1, 2], [2, 1]]
    weight = torch.tensor([(1 + 1) / (2 + 1), (2 + 1) / (1 + 1)])
    lengths = (LABELS != -100).sum(1)
    losses = nn.functional.binary_cross_entropy_with_logits(PROPS_LOGITS, PROPS, pos_weight=weight, reduction="none")
    expected = float((losses.mean(1) * lengths).sum() / 9)
    assert means(loss(**TOKENS))["props"] == pytest.approx(expected, rel=1e-6)
    assert means(loss.eval()(**TOKENS))["props"] == pytest.approx(plain, rel=1e-6)


def test_learned_weights_make_the_training_total():
    loss = multitask(weighting="uncertainty", kinds={"props": "non-negative"})
    s = {"tokens": 1.0, "diff": 0.5, "element": 9.0, "geom": -1.0, "props": 2.0}
    with torch.no_grad():
        for name, value in s.items():
            loss.weighting.log_variances[name].fill_(value)
    output = loss(**slots())
    factors = {"diff": math.exp(-0.5), "element": math.exp(-5), "geom": 0.5 * math.e, "props": 0.5 * math.exp(-2)}
    expected = {name: WEIGHTS[name] * factors.get(name, 1.0) for name in output.terms}
    assert {name: float(weight) for name, weight in output.weights.items()} == pytest.approx(expected)
    costs = 0.5 * (0.5 + 5 - 1 + math.log(1 + math.exp(2)))
    total = sum(expected[name] * mean for name, mean in means(output).items()) + costs
    assert float((output.sum / output.count).detach()) == pytest.approx(total, rel=1e-5)
    (output.sum / output.count).backward()
    assert all(loss.weighting.log_variances[name].grad.abs() > 0 for name in ("diff", "geom", "props"))
    assert loss.weighting.log_variances["tokens"].grad is None


@pytest.mark.parametrize("weighting", ["uncertainty", "dwa", "cov", "gradnorm"])
def test_evaluation_uses_the_fixed_weights_and_every_stage_s_terms(weighting):
    values = slots()
    loss = multitask(weighting=weighting)
    loss.stage = 1
    for _ in range(3):
        step(loss, values, slots())
        loss.end_epoch()
    output = loss.eval()(**values)
    assert output.weights == {name: WEIGHTS[name] for name in WEIGHTS if name not in ("tokens", "consistency")}
    assert output.inactive == ()
    del values["scale_logits"]
    assert loss(**values).inactive == (), "consistency is a matter of training"


def test_evaluation_changes_nothing_that_is_kept():
    loss = multitask(weighting="cov")
    step(loss, slots())
    before = copy.deepcopy(loss.state_dict())
    step(loss.eval(), slots())
    assert all(torch.equal(value, before[name]) for name, value in loss.state_dict().items())


@pytest.mark.parametrize(
    ("stages", "expected"), [(1, [3]), (2, [2, 3]), (3, [1, 2, 3]), (4, [1, 2, 3, 3]), (5, [1, 2, 3, 3, 3])]
)
def test_a_plan_ends_with_every_term_whatever_its_number_of_stages(stages, expected):
    assert [curriculum_stage(index, stages) for index in range(stages)] == expected


def run_in(stage: int, stages: int = 3) -> SimpleNamespace:
    return SimpleNamespace(moment=SimpleNamespace(stage=stage), stages=[None] * stages)


def test_terms_come_in_with_their_stages():
    loss, values = multitask(), slots()
    first = {"diff", "element", "geom", "align"}
    for stage, expected in enumerate((first, first | {"aes", "props"}, set(WEIGHTS) - {"tokens"})):
        loss.on_stage_start(run_in(stage))
        output = loss(**values)
        assert set(output.terms) == expected
        assert output.inactive == ()
        assert {name for name, weight in output.weights.items() if weight == 0} == set(WEIGHTS) - {"tokens"} - expected
    resumed = multitask()
    resumed.on_run_start(run_in(1))
    assert set(resumed(**values).terms) == first | {"aes", "props"}
    always = multitask(curriculum=False)
    always.on_stage_start(run_in(0))
    assert set(always(**values).terms) == set(WEIGHTS) - {"tokens"}


def test_micro_batches_of_a_step_are_one_value():
    values = slots()
    halves = [{name: value[rows] for name, value in values.items()} for rows in (slice(0, 2), slice(2, 6))]
    element = {"use": "element-combination", "align_weight": 0.0}
    one, two = (multitask(weighting="cov", weights=DECOMPOSING, element=element) for _ in range(2))
    step(one, values)
    step(two, *halves)
    assert two.weighting.count.tolist() == [0, 1, 1, 1, 1]
    assert torch.allclose(one.weighting.loss_mean, two.weighting.loss_mean, rtol=1e-5)
    assert torch.equal(one.counts.labels, two.counts.labels)
    assert torch.equal(one.counts.flags, two.counts.flags)


def test_terms_that_count_labels_do_not_feel_accumulation():
    whole = multitask(weights=DECOMPOSING)(**TOKENS)
    parts = [
        multitask(weights=DECOMPOSING)(**{name: value[rows] for name, value in TOKENS.items()})
        for rows in (slice(0, 1), slice(1, 3))
    ]
    assert float(whole.sum) == pytest.approx(sum(float(part.sum) for part in parts), rel=1e-6)


@pytest.mark.parametrize("weighting", ["fixed", "uncertainty", "dwa", "cov"])
def test_state_resumes_to_the_bit(weighting):
    def batch(seed: int) -> dict[str, Tensor]:
        noise = torch.randn(6, 5, 7, generator=torch.Generator().manual_seed(seed))
        return {**slots(), "logits": slots()["logits"] + noise}

    one, other = multitask(weighting=weighting), multitask(weighting=weighting)
    for seed in range(6):
        step(one, batch(seed))
        if seed % 2:
            one.end_epoch()
    other.load_state_dict(copy.deepcopy(one.state_dict()))
    for seed in range(6, 10):
        assert torch.equal(step(one, batch(seed)).sum, step(other, batch(seed)).sum)
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())


class FlaggedModel(tiny.TinyModel):
    """Predict two flags of a sequence beside its labels."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__(width, dropout)
        self.flags = nn.Linear(width, 2)

    def forward(self, tokens: Tensor) -> dict[str, Tensor]:
        hidden = self.mix(self.embedding(tokens))
        return {"logits": self.head(hidden), "props_logits": self.flags(hidden.mean(1))}


class FlaggedTask(tiny.TinyTask):
    """Learn of the tiny task's sequences also whether they begin low, and whether they are long."""

    gives = tiny.TinyTask.gives | {"props", "props_logits"}

    def build_model(self) -> nn.Module:
        return FlaggedModel(self.width, self.dropout)

    def collate(self, samples):
        rows = [(sample["tokens"][0] < 6, len(sample["tokens"]) > 5) for sample in samples]
        return {**super().collate(samples), "props": torch.tensor(rows).float()}


class Stop:
    """Do what a signal does, after a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    @hookimpl
    def on_step(self, run) -> None:
        if run.moment.step == self.step:
            run.signal = signal.SIGUSR1


def trained(path: Path, weighting: str, stop: int | None) -> Multitask:
    """Return the loss of a run of four epochs of six steps, stopped and resumed if asked."""
    settings = {"out": str(path), "loop.accumulate": 2, "loop.batch_size": 2, "optimizer.lr": 0.02}
    stages = (Stage(name="first", epochs=1), Stage(name="second", epochs=2), Stage(name="third", epochs=1))
    for attempt in range(1 if stop is None else 2):
        loss = multitask(weighting=weighting)
        asked = tiny.tiny_request(settings, stages=stages, task=FlaggedTask(), loss=loss)
        if stop is not None and not attempt:
            result = start(dataclasses.replace(asked, listeners=[("stop", Stop(stop))]))
            assert result.status == "stopped"
        elif attempt:
            result = resume(path, dataclasses.replace(asked, layers=()))
        else:
            result = start(asked)
    assert result.status == "done"
    return loss


@pytest.mark.parametrize("weighting", ["uncertainty", "dwa", "gradnorm", "cov"])
def test_a_run_with_dynamic_weights_resumes_to_the_bit(weighting, tmp_path):
    whole = trained(tmp_path / "whole", weighting, None)
    state = whole.state_dict()
    for stop in (9, 15):
        resumed = trained(tmp_path / f"stopped at {stop}", weighting, stop)
        found = resumed.state_dict()
        assert all(torch.equal(value, found[name]) for name, value in state.items())
    assert int(state["counts.labels"].sum()) > 0
    if weighting != "uncertainty":
        factors = whole.weighting.factors(["tokens", "props"])
        assert sum(float(factor) for factor in factors.values()) == pytest.approx(2.0, rel=1e-5)
        assert float(factors["tokens"]) != 1.0
    else:
        assert float(whole.weighting.log_variances["tokens"].detach()) != 0.0


def test_gradnorm_finds_the_layer_that_tokens_and_flags_share(tmp_path):
    loss = trained(tmp_path / "run", "gradnorm", None)
    names = [name for name, _ in FlaggedModel(16, 0.1).named_parameters()]
    assert names[int(loss.weighting.layer)] == "mix.0.weight"


def test_a_general_task_trains_with_what_it_has():
    loss = multitask()
    run = tiny.tiny_run({"loop.epochs": 1}, loss=loss)
    from trainkit.loop import train

    train(run)
    assert run.moment.step == 6
    assert run.gathered.losses.by_name == {} or set(run.gathered.losses.by_name) >= {"", "tokens", "div"}
    assert int(loss.counts.labels.sum()) == sum(len(sequence) for sequence in run.splits.train.sequences)
