from __future__ import annotations

import math
from itertools import combinations

import pytest
import torch
from torch import nn
from trainkit import LossOutput
from trainkit.binding import bind_loss
from trainkit.errors import UsageError
from trainkit.registry import Registry
from trainkit.testing import LossConformance
from trainkit_loss_multi_scale_consistency.agreement import disagreement, distance
from trainkit_loss_multi_scale_consistency.multi_scale_consistency import MultiScaleConsistency

IGNORED = -100
EVEN, SKEWED = torch.tensor([0.5, 0.5]).log(), torch.tensor([0.9, 0.1]).log()


def example(samples: int = 6, scales: int = 3, slots: int = 5, classes: int = 7) -> dict[str, torch.Tensor]:
    """Return predictions of the same slots at several resolutions; the last resolution is the model's answer."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, classes, (samples, slots), generator=generator)
    labels[0, 0] = 0  # an empty slot, and hidden
    lengths = torch.tensor([5, 3, 1, 4, 2, 5])[:samples]
    labels[torch.arange(slots) >= lengths[:, None]] = IGNORED
    masked = torch.rand(samples, slots, generator=generator) < 0.6
    masked[:, 0] = True
    return {
        "logits": torch.randn(samples, slots, classes, generator=generator),
        "labels": labels,
        "masked": masked,
        "scale_logits": torch.randn(samples, scales, slots, classes, generator=generator),
    }


class Conformance(LossConformance):
    component = "multi-scale-consistency"

    def inputs(self):
        return example()


class TestConsistency(Conformance):
    """Empty slots weigh less in this main loss, so the counts are not those of the term."""

    options = {"main": {"use": "masked-diffusion", "pad_weight": 0.1}}
    decomposes = False


class TestOverSlots(Conformance):
    options = {"distance": "js"}


class TestAroundCrossEntropy(Conformance):
    options = {"main": "cross-entropy", "distance": "kl", "pairs": "adjacent", "weight": 1.0}

    def inputs(self):
        return {name: value for name, value in example().items() if name != "masked"}


class TestWithoutScales(LossConformance):
    component = "multi-scale-consistency"


@pytest.mark.parametrize(("kind", "expected"), [("mse", 0.16), ("js", 0.101749), ("kl", 0.878890)])
def test_published_values(kind, expected):
    assert distance(EVEN, SKEWED, kind).item() == pytest.approx(expected, abs=1e-6)
    assert distance(SKEWED, EVEN, kind).item() == pytest.approx(expected, abs=1e-6)
    assert distance(SKEWED, SKEWED, kind).item() == pytest.approx(0, abs=1e-7)


@pytest.mark.parametrize("kind", ["mse", "js", "kl"])
@pytest.mark.parametrize("pairs", ["all", "adjacent"])
def test_equals_the_definition_written_in_loops(kind, pairs):
    values = example()
    p = values["scale_logits"].double().softmax(-1).tolist()

    def apart(one, other):
        if kind == "mse":
            return sum((a - b) ** 2 for a, b in zip(one, other, strict=True)) / len(one)

        def kl(x, y):
            return sum(a * math.log(a / b) for a, b in zip(x, y, strict=True))

        if kind == "kl":
            return kl(one, other) + kl(other, one)
        middle = [(a + b) / 2 for a, b in zip(one, other, strict=True)]
        return (kl(one, middle) + kl(other, middle)) / 2

    chosen = [(i, j) for i, j in combinations(range(3), 2) if pairs == "all" or j == i + 1]
    terms = [
        sum(apart(p[b][i][n], p[b][j][n]) for i, j in chosen) / len(chosen)
        for b in range(6)
        for n in range(5)
        if values["labels"][b, n] != IGNORED and values["masked"][b, n]
    ]
    loss = MultiScaleConsistency("masked-diffusion", kind, pairs, weight=0.3)
    output = loss(**values)
    total, count = output.terms["consistency"]
    assert float(total / count) == pytest.approx(sum(terms) / len(terms), rel=1e-5)
    main = loss.main(**{name: value for name, value in values.items() if name != "scale_logits"})
    assert output.sum.item() == pytest.approx(main.sum.item() + 0.3 * total.item(), rel=1e-6)
    assert float(output.count) == float(main.count)


@pytest.mark.parametrize("kind", ["mse", "js"])
@pytest.mark.parametrize("pairs", ["all", "adjacent"])
def test_gradients_equal_finite_differences(kind, pairs):
    logits = example(samples=2, slots=2)["scale_logits"].double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: disagreement(x, kind, pairs), logits)


def test_kl_teaches_the_lower_resolution_only():
    logits = example()["scale_logits"].double().requires_grad_()
    (gradient,) = torch.autograd.grad(disagreement(logits, "kl").sum(), logits)
    assert gradient[:, 2].abs().sum() == 0
    assert (gradient[:, :2].abs().sum((0, 2, 3)) > 0).all()
    # With the higher one held fixed, the lower one's gradient is that of the plain function.
    high = logits[:, 2].detach().log_softmax(-1)
    low = logits[:, 0].detach().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: distance(x.log_softmax(-1), high, "kl"), low)


@pytest.mark.parametrize("scales", [0, 1])
def test_fewer_than_two_scales_are_an_exact_zero(scales):
    values = example(scales=scales)
    loss = MultiScaleConsistency()
    main = loss.main(**{name: value for name, value in values.items() if name != "scale_logits"})
    nothing = disagreement(values["scale_logits"])
    assert nothing.abs().sum() == 0
    assert (nothing.device, nothing.shape) == (values["logits"].device, values["labels"].shape)
    for given in (values, {name: value for name, value in values.items() if name != "scale_logits"}):
        output = loss(**given)
        assert torch.equal(output.sum, main.sum)
        assert "consistency" not in output.parts
        assert "consistency" in output.inactive
    assert "consistency" not in loss.eval()(**values).inactive


def test_device_is_that_of_the_predictions():
    nothing = disagreement(torch.empty(2, 1, 3, 4, device="meta"))
    assert nothing.device.type == "meta"


def test_a_weight_of_zero_switches_it_off():
    values = example()
    loss = MultiScaleConsistency(weight=0)
    assert "scale_logits" not in loss.reads_optional
    output = loss(**values)
    assert "consistency" not in {*output.terms, *output.parts, *output.inactive}


@pytest.mark.parametrize("kind", ["mse", "js", "kl"])
def test_classes_that_are_ruled_out_do_no_harm(kind):
    logits = example()["scale_logits"]
    logits[..., 0], expected = -torch.inf, disagreement(logits[..., 1:], kind)
    logits = logits.requires_grad_()
    found = disagreement(logits, kind)
    assert torch.allclose(found, expected * (6 / 7 if kind == "mse" else 1), atol=1e-6)
    found.sum().backward()
    assert torch.isfinite(logits.grad).all()


def test_reads_what_its_main_loss_reads():
    assert bind_loss(MultiScaleConsistency("cross-entropy")).missing({"logits"}) == {"labels"}
    loss = MultiScaleConsistency()
    assert loss.reads == ("logits", "labels")
    assert {"scale_logits", "masked", "elbo_weight", "pointer_logits"} <= set(loss.reads_optional)


def test_terms_parts_and_missing_terms_of_the_main_loss_are_passed_on():
    output = MultiScaleConsistency({"use": "masked-diffusion", "pointer_weight": 0.5})(**example())
    assert set(output.terms) == {"base", "consistency"}
    assert {"base", "nll", "consistency"} == set(output.parts)
    assert output.weights == {"base": 1.0, "consistency": 0.2}
    assert list(output.inactive) == ["pointer", "geometry"]


def test_a_main_loss_without_terms_or_losses_of_samples_serves_too():
    class Plain(nn.Module):
        def forward(self, logits):
            return LossOutput(logits.square().sum(), len(logits))

    output = MultiScaleConsistency(Plain())(**example())
    assert set(output.terms) == {"main", "consistency"}
    assert output.per_sample is None
    assert set(MultiScaleConsistency(Plain())(logits=example()["logits"]).terms) == {"main"}


def test_options_of_the_main_loss_are_checked():
    component = Registry().load("loss", "multi-scale-consistency")
    assert component.build(component.validate({"main": "cross-entropy"})).main.label_smoothing == 0
    with pytest.raises(UsageError, match="no_such"):
        MultiScaleConsistency({"use": "masked-diffusion", "no_such": 1})


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_loss_under_autocast_is_that_of_fp32(dtype):
    values = example()
    half = {name: value.to(dtype) if value.is_floating_point() else value for name, value in values.items()}
    exact = {name: value.float() if value.is_floating_point() else value for name, value in half.items()}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = MultiScaleConsistency()(**half)
    assert rough.sum.dtype == torch.float32
    assert rough.sum.item() == pytest.approx(MultiScaleConsistency()(**exact).sum.item(), rel=1e-6)
