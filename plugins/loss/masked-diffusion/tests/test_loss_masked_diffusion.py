from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional
from trainkit.errors import UsageError
from trainkit.likelihood import class_losses, pointer_losses
from trainkit.testing import LossConformance
from trainkit_loss_masked_diffusion.masked_diffusion import MaskedDiffusion, reveal_probability

STOP, IGNORED = 4, -100
# The derivative of the mask rate gives the weight: -alpha' / (1 - alpha).
SCHEDULES = {
    "linear": (lambda t: t, lambda t: 1 / t),
    "cosine": (lambda t: torch.sin(math.pi / 2 * t), lambda t: math.pi / 2 / torch.tan(math.pi / 2 * t)),
    "square": (lambda t: t**2, lambda t: 2 / t),
}
EMPTY_SLOT = 0


def example(samples: int = 6, slots: int = 5, classes: int = 7, seed: int = 0) -> dict[str, torch.Tensor]:
    """Return slots of samples of several lengths, some hidden, with up to two sources among four nodes."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, classes, (samples, slots), generator=generator)
    lengths = torch.tensor([5, 3, 1, 4, 2, 5])[:samples]
    labels[torch.arange(slots) >= lengths[:, None]] = IGNORED
    sources = torch.full((samples, slots, 3), IGNORED)
    chains = torch.randint(0, 3, (samples, slots), generator=generator)
    for sample in range(samples):
        for slot in range(slots):
            if labels[sample, slot] > 0:
                for k in range(int(chains[sample, slot])):
                    sources[sample, slot, k] = (sample + slot + k) % 3
                sources[sample, slot, chains[sample, slot]] = STOP
    mask_rate = torch.linspace(0.2, 1.0, samples)
    struct_mask = torch.ones(samples, STOP, dtype=torch.bool)
    struct_mask[::2, 3] = False
    masked = torch.rand(samples, slots, generator=generator) < 0.6
    masked[:, 0] = True
    return {
        "logits": torch.randn(samples, slots, classes, generator=generator),
        "labels": labels,
        "masked": masked,
        "mask_rate": mask_rate,
        "elbo_weight": 1 / mask_rate,
        "pointer_logits": torch.randn(samples, slots, 3, STOP + 1, generator=generator),
        "sources": sources,
        "struct_mask": struct_mask,
    }


def reference(values: dict[str, torch.Tensor], kind: str, smoothing: float, pad_weight: float = 0.1, steps: int = 100):
    """Return sum and count, slot by slot in plain numbers: a second way to write the definition."""
    total = count = 0.0
    values = {name: value.tolist() for name, value in values.items()}

    def cost(scores: list[float], target: int, allowed: list[bool]) -> float:
        shares = [math.exp(score) if ok else 0.0 for score, ok in zip(scores, allowed, strict=True)]
        logs = [math.log(share / sum(shares)) for share, ok in zip(shares, allowed, strict=True) if ok]
        own = math.log(shares[target] / sum(shares))
        return -(1 - smoothing) * own - smoothing * sum(logs) / len(logs)

    for b, row in enumerate(values["labels"]):
        rate = values["mask_rate"][b]
        factor = {"maskgit": 1.0, "mdlm": values["elbo_weight"][b], "d3pm": min(1, 1 / (rate * steps)) + 0.1}[kind]
        for n, label in enumerate(row):
            if label == IGNORED:
                continue
            weight = pad_weight if label == 0 else 1.0
            if kind != "maskgit" or values["masked"][b][n]:
                count += weight
            if not values["masked"][b][n]:
                continue
            loss = cost(values["logits"][b][n], label, [True] * 7)
            allowed = [*values["struct_mask"][b], True]
            pointers = [
                cost(values["pointer_logits"][b][n][k], source, allowed)
                for k, source in enumerate(values["sources"][b][n])
                if source != IGNORED
            ]
            loss += sum(pointers) / len(pointers) if pointers else 0.0
            total += weight * factor * loss
    return total, count


class Conformance(LossConformance):
    component = "masked-diffusion"

    def inputs(self):
        return example()


class TestMaskgit(Conformance):
    options = {"kind": "maskgit"}


class TestMdlm(Conformance):
    options = {"kind": "mdlm", "pad_weight": 1.0}


class TestD3pm(Conformance):
    options = {"kind": "d3pm", "joint": True}


class TestWithoutNoise(LossConformance):
    """Logits and labels alone: a left-to-right model."""

    component = "masked-diffusion"


@pytest.mark.parametrize("kind", ["maskgit", "mdlm", "d3pm"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("pad_weight", [0.1, 1.0, 0.0])
def test_equals_the_definition_written_slot_by_slot(kind, smoothing, pad_weight):
    values = example()
    output = MaskedDiffusion(kind, smoothing, pad_weight=pad_weight)(**values)
    total, count = reference(values, kind, smoothing, pad_weight)
    assert float(output.sum) == pytest.approx(total, rel=1e-5)
    assert float(output.count) == pytest.approx(count, rel=1e-6)


@pytest.mark.parametrize("kind", ["maskgit", "mdlm", "d3pm"])
def test_gradients_equal_finite_differences(kind):
    values = {
        name: value.double() if value.is_floating_point() else value for name, value in example(samples=2).items()
    }
    loss = MaskedDiffusion(kind, 0.1)
    leaves = [values["logits"].requires_grad_(), values["pointer_logits"].requires_grad_()]

    def mean(logits, pointer_logits):
        given = {**values, "logits": logits, "pointer_logits": pointer_logits}
        output = loss(**given)
        return output.sum / output.count

    assert torch.autograd.gradcheck(mean, leaves)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("with_pads", [False, True])
def test_an_even_predictor_has_the_bound_ln_v_whatever_the_schedule(schedule, with_pads):
    """2e5 draws of antithetic times, 16 slots, V = 8: ln 8 = 2.0794, give or take about 0.003 (a standard error)."""
    generator = torch.Generator().manual_seed(3)
    rate_at, weight_at = SCHEDULES[schedule]
    draws, slots, total, count = 20_000, 16, 0.0, 0.0
    labels = torch.full((draws, slots), 3)
    labels[:, 10:] = EMPTY_SLOT if with_pads else 4
    loss = MaskedDiffusion("mdlm", pointer_weight=0.0).eval()
    for _ in range(10):
        start = torch.rand((), generator=generator)
        times = 1e-3 + (1 - 1e-3) * ((start + torch.arange(draws)) / draws % 1.0)
        rate = rate_at(times)
        masked = torch.rand(draws, slots, generator=generator) < rate[:, None]
        output = loss(torch.zeros(1, 1, 8).expand(draws, slots, 8), labels, masked, rate, weight_at(times))
        total, count = total + float(output.sum), count + float(output.count)
    assert total / count == pytest.approx(math.log(8), abs=0.01)


def test_discrete_steps_of_an_even_predictor_add_up_to_ln_v():
    """Summed over all steps, in expectation over what is hidden, the divergence is ln V: exactly, by enumeration."""
    steps = 100
    rates = torch.arange(1, steps + 1) / steps
    assert float((steps * rates * reveal_probability(rates, steps)).mean()) == pytest.approx(1.0, abs=1e-6)
    # All slots hidden at rate t/T: what remains random is weighed by the rate itself.
    labels, masked = torch.ones(steps, 1, dtype=torch.long), torch.ones(steps, 1, dtype=torch.bool)
    output = MaskedDiffusion("d3pm", steps=steps).eval()(torch.zeros(steps, 1, 8), labels, masked, rates)
    per_step = torch.tensor([math.log(8) / t for t in range(1, steps + 1)])
    kl, count = output.parts["kl"]
    assert float(kl / count) == pytest.approx(float(per_step.mean()), rel=1e-5)
    assert float(output.sum / output.count) == pytest.approx(float(per_step.mean()) + 0.1 * math.log(8), rel=1e-5)


def test_divergence_of_a_reverse_step_is_that_of_its_two_categorical_distributions():
    """q(z_(t-1) | MASK, x0) and the prediction, written out over the classes and MASK, at step 7 of 20."""
    probabilities = torch.tensor([0.5, 0.2, 0.3])
    reveal = 1 / 7
    truth = torch.tensor([0.0, reveal, 0.0, 1 - reveal])
    predicted = torch.cat([reveal * probabilities, torch.tensor([1 - reveal])])
    expected = float(functional.kl_div(predicted.log(), truth, reduction="sum"))
    output = MaskedDiffusion("d3pm", steps=20, pad_id=-1).eval()(
        probabilities.log().view(1, 1, 3), torch.tensor([[1]]), torch.tensor([[True]]), torch.tensor([7 / 20])
    )
    assert float(output.parts["kl"][0]) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("rate", "expected"), [(1.0, 0.1), (0.5, 0.2), (0.1, 1.0), (0.03, 1.0), (0.0, 1.0)])
def test_a_step_uncovers_at_most_everything(rate, expected):
    assert float(reveal_probability(torch.tensor(rate), 10)) == pytest.approx(expected)


@pytest.mark.parametrize(("kind", "lacks"), [("mdlm", "elbo_weight"), ("d3pm", "mask_rate")])
def test_a_kind_that_weighs_by_the_noise_says_what_is_missing(kind, lacks):
    values = example()
    del values[lacks]
    with pytest.raises(UsageError, match=f"{kind} reads {lacks}") as caught:
        MaskedDiffusion(kind)(**values)
    assert "loss.kind=maskgit" in caught.value.render()


def test_smoothing_acts_in_training_on_hidden_slots_only():
    logits, labels = torch.tensor([[[2, 1, 0.5, -1]]] * 2), torch.tensor([[0], [0]])
    masked = torch.tensor([[True], [False]])
    loss = MaskedDiffusion(pad_id=-1, pointer_weight=0)
    output = loss(logits, labels, masked)
    assert (output.sum.item(), output.count.item()) == (pytest.approx(0.632682, abs=1e-6), 1)
    assert output.parts["nll"][0].item() == pytest.approx(0.495182, abs=1e-6)
    assert loss.eval()(logits, labels, masked).sum.item() == pytest.approx(0.495182, abs=1e-6)


@pytest.mark.parametrize(("kind", "expected"), [("maskgit", 0.1), ("mdlm", 0.0), ("d3pm", 0.0)])
def test_only_maskgit_is_smoothed_unless_told(kind, expected):
    assert MaskedDiffusion(kind).label_smoothing == expected
    assert MaskedDiffusion(kind, 0.2).label_smoothing == 0.2


def test_is_the_cross_entropy_of_pytorch_with_a_class_weight_for_pads():
    values = example()
    output = MaskedDiffusion(label_smoothing=0, pointer_weight=0, pad_weight=0.3).eval()(
        values["logits"], values["labels"], values["masked"]
    )
    targets = values["labels"].masked_fill(~values["masked"], IGNORED)
    weight = torch.tensor([0.3, 1, 1, 1, 1, 1, 1])
    expected = functional.cross_entropy(values["logits"].flatten(0, 1), targets.flatten(), weight)
    assert (output.sum / output.count).item() == pytest.approx(expected.item(), rel=1e-6)


def test_likelihood_is_plain_and_leaves_empty_slots_out():
    values = example()
    total, count = MaskedDiffusion("mdlm", 0.2)(**values).parts["nll"]
    chosen = values["masked"] & (values["labels"] > 0)
    expected = functional.cross_entropy(values["logits"][chosen], values["labels"][chosen], reduction="sum")
    assert float(total) == pytest.approx(float(expected), rel=1e-5)
    assert int(count) == int(chosen.sum())


@pytest.mark.parametrize("kind", ["maskgit", "mdlm", "d3pm"])
def test_nothing_hidden_is_an_exact_zero_with_a_graph(kind):
    values = example()
    values["masked"] = torch.zeros_like(values["masked"])
    logits = values["logits"].requires_grad_()
    output = MaskedDiffusion(kind)(**values)
    assert output.sum.item() == 0
    output.sum.backward()
    assert logits.grad.abs().sum() == 0
    assert torch.isfinite(output.per_sample).all()


def test_classes_that_are_ruled_out_take_no_share_of_the_smoothing():
    """Three classes and one that is impossible are three classes, whether it is ruled out by -inf or by -1e9."""
    three, labels = torch.tensor([[2.0, 1.0, 0.5]]), torch.tensor([1])
    expected, _ = class_losses(three, labels, 0.1)
    for out in (-torch.inf, -1e9, -65504.0):
        logits = torch.cat([three, torch.tensor([[out]])], 1).requires_grad_()
        losses, _ = class_losses(logits, labels, 0.1)
        assert losses.item() == pytest.approx(expected.item(), rel=1e-6)
        losses.sum().backward()
        assert torch.isfinite(logits.grad).all()
        assert logits.grad[0, 3] == 0


def test_pointers_are_a_mean_or_a_sum_over_sources_and_stop():
    """Even pointers over 4 positions cost ln 4 each; with one source and STOP the chain costs 2 ln 4."""
    logits = torch.zeros(1, 2, 3, 4)
    sources = torch.tensor([[[1, 3, IGNORED], [IGNORED] * 3]])
    assert pointer_losses(logits, sources).tolist() == [[pytest.approx(math.log(4)), 0]]
    assert pointer_losses(logits, sources, joint=True).tolist() == [[pytest.approx(2 * math.log(4)), 0]]
    # Two of the three nodes exist: three positions are possible, with smoothing and without.
    mask = torch.tensor([[True, True, False]])
    for smoothing in (0.0, 0.1):
        assert pointer_losses(logits, sources, mask, smoothing)[0, 0].item() == pytest.approx(math.log(3))


def test_layouts_without_sources_have_no_pointer_term():
    values = example()
    none = {**values, "pointer_logits": values["pointer_logits"][:, :, :0], "sources": values["sources"][:, :, :0]}
    assert MaskedDiffusion()(**none).terms["pointer"][0].item() == 0
    del values["pointer_logits"]
    output = MaskedDiffusion()(**values)
    assert list(output.inactive) == ["pointer", "geometry"]
    assert set(output.terms) == {"base"}
    assert list(MaskedDiffusion(pointer_weight=0, box_weight=0)(**values).inactive) == []


def test_boxes_of_hidden_slots_are_learned_by_their_mean_distance():
    values = example()
    labels, masked = values["labels"], values["masked"]
    truth, guess = torch.rand(*labels.shape, 4), torch.rand(*labels.shape, 4).requires_grad_()
    has_box = (labels > 0) & (torch.arange(labels.shape[1]) % 2 == 0)
    output = MaskedDiffusion(pad_weight=0.5).eval()(**values, boxes=truth, box_predictions=guess, box_mask=has_box)
    expected = sum(
        float((guess[b, n] - truth[b, n]).abs().mean().detach()) for b, n in (has_box & masked).nonzero().tolist()
    )
    total, count = output.terms["geometry"]
    assert total.item() == pytest.approx(expected, rel=1e-5)
    assert float(count) == float(output.count)
    output.sum.backward()
    assert (guess.grad[~(has_box & masked)] == 0).all(), "visible slots and those without a box teach nothing"
    assert "geometry" not in output.inactive


def test_terms_are_live_and_make_up_the_sum():
    values = example()
    values["pointer_logits"].requires_grad_()
    values["logits"].requires_grad_()
    output = MaskedDiffusion("mdlm", pointer_weight=0.5)(**values)
    (base, one), (pointer, other) = output.terms["base"], output.terms["pointer"]
    assert float(one) == float(other) == float(output.count)
    assert (base + 0.5 * pointer).item() == pytest.approx(output.sum.item(), rel=1e-6)
    (gradient,) = torch.autograd.grad(pointer, values["pointer_logits"])
    assert gradient.abs().sum() > 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_loss_under_autocast_is_that_of_fp32(dtype):
    values = example()
    half = {**values, "logits": values["logits"].to(dtype), "pointer_logits": values["pointer_logits"].to(dtype)}
    exact = {**half, "logits": half["logits"].float(), "pointer_logits": half["pointer_logits"].float()}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = MaskedDiffusion("mdlm")(**half)
    assert rough.sum.dtype == torch.float32
    assert rough.sum.item() == pytest.approx(MaskedDiffusion("mdlm")(**exact).sum.item(), rel=1e-6)


def test_shapes_that_do_not_match_are_refused():
    with pytest.raises(ValueError, match=r"logits \[2, 3, 4\] do not have the shape of labels \[2, 2\]"):
        MaskedDiffusion()(torch.zeros(2, 3, 4), torch.ones(2, 2, dtype=torch.long))
