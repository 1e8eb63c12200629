"""Dynamic weights: known values, naive references over random histories, exact resume."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn
from trainkit import UsageError
from trainkit_loss_multitask.gradnorm import RATE, GradNorm, last_shared, pull
from trainkit_loss_multitask.weighting import EpochAverages, Uncertainty, Variation, cost, epoch_weights, precision

NAMES = ("diff", "element", "props")
ROWS = np.random.default_rng(5).uniform(0.5, 3, (12, 3))


def sums(row: object, count: float = 4.0) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Return the sums of terms with these means; NaN is a term that was not there."""
    pairs = {}
    for name, mean in zip(NAMES, row, strict=True):
        there = 0.0 if math.isnan(mean) else count
        pairs[name] = (torch.tensor(0.0 if math.isnan(mean) else mean * count), torch.tensor(there))
    return pairs


def numbers(factors: dict[str, torch.Tensor | float]) -> list[float]:
    return [float(factor) for factor in factors.values()]


def test_log_variances_have_the_published_values():
    """L = (2, 0.5), s = 0: the form exp(-s) L + s sums to 2.5, half of it to 1.25; at s = ln L to 2 and 1."""
    losses = torch.tensor([2.0, 0.5])
    for s, whole in ((torch.zeros(2), 2.5), (losses.log(), 2.0)):
        assert float((torch.exp(-s) * losses + s).sum()) == pytest.approx(whole)
        half = precision(s, "regression") * losses + cost(s, "regression")
        assert float(half.sum()) == pytest.approx(whole / 2)


@pytest.mark.parametrize(
    ("kind", "rest"),
    [
        ("regression", lambda loss: math.log(loss)),
        ("classification", lambda loss: math.log(2 * loss)),
        # exp(-s) L = sigmoid(s): with x = exp(s), x^2 - L x - L = 0.
        ("non-negative", lambda loss: math.log((loss + math.sqrt(loss**2 + 4 * loss)) / 2)),
    ],
)
def test_log_variances_rest_where_their_form_is_least(kind, rest):
    for loss in (0.5, 2.0):
        s = torch.tensor(rest(loss), requires_grad=True)
        (precision(s, kind) * loss + cost(s, kind)).backward()
        assert s.grad.item() == pytest.approx(0.0, abs=1e-6)


def test_the_non_negative_form_never_falls_below_zero():
    s = torch.linspace(-5, 5, 101)
    assert float((precision(s, "non-negative") * 1e-6 + cost(s, "non-negative")).min()) > 0
    assert float((precision(s, "regression") * 1e-6 + cost(s, "regression")).min()) < 0


def test_log_variances_are_parameters_held_in_bounds():
    weighting = Uncertainty(NAMES, dict.fromkeys(NAMES, "classification"))
    assert {name for name, _ in weighting.named_parameters()} == {f"log_variances.{name}" for name in NAMES}
    with torch.no_grad():
        weighting.log_variances["diff"].fill_(9.0)
        assert numbers(weighting.factors(["diff", "props"])) == pytest.approx([math.exp(-5), 1.0])
        weighting.advance({})
    assert weighting.log_variances["diff"].item() == 5.0
    assert weighting.regulariser(["diff", "props"]).item() == 2.5


def test_epoch_averages_have_the_known_values():
    assert epoch_weights(torch.tensor([0.5, 0.9])).tolist() == pytest.approx([0.900332, 1.099668], abs=1e-6)


def test_epoch_averages_agree_with_a_naive_history():
    weighting = EpochAverages(NAMES)
    epochs = ROWS.reshape(4, 3, 3)
    for index, epoch in enumerate(epochs):
        means = epochs[:index].mean(1)
        ratio = means[-1] / means[-2] if index >= 2 else np.ones(3)
        expected = 3 * np.exp(ratio / 2) / np.exp(ratio / 2).sum()
        for row in epoch:
            assert numbers(weighting.factors(NAMES)) == pytest.approx(list(expected), rel=1e-5)
            weighting.advance(sums(row))
        weighting.end_epoch()
    assert weighting.steps.tolist() == [0, 0, 0]


def test_a_term_that_comes_later_has_the_ratio_of_one_for_two_epochs():
    weighting = EpochAverages(NAMES)
    for epoch in range(3):
        weighting.advance(sums((4.0 / 2**epoch, 1.0, float("nan") if epoch == 0 else 9.0 - epoch)))
        weighting.end_epoch()
    # props were seen in the last two epochs only, diff halves each time.
    expected = epoch_weights(torch.tensor([0.5, 1.0, 7.0 / 8.0]))
    assert numbers(weighting.factors(NAMES)) == pytest.approx(expected.tolist())
    weighting = EpochAverages(NAMES)
    for epoch in range(2):
        weighting.advance(sums((4.0 / 2**epoch, 1.0, float("nan") if epoch == 0 else 8.0)))
        weighting.end_epoch()
    assert numbers(weighting.factors(NAMES)) == pytest.approx(epoch_weights(torch.tensor([0.5, 1.0, 1.0])).tolist())
    assert numbers(weighting.factors(["props"])) == [1.0]


def test_variation_agrees_with_a_naive_history():
    weighting = Variation(NAMES)
    assert numbers(weighting.factors(NAMES)) == [1.0, 1.0, 1.0]
    for row in ROWS:
        weighting.advance(sums(row))
    ratios = np.array([row / (ROWS[:t].mean(0) if t else row) for t, row in enumerate(ROWS)])
    expected = ratios.std(0) / ratios.mean(0)
    assert numbers(weighting.factors(NAMES)) == pytest.approx(list(3 * expected / expected.sum()), rel=1e-5)
    two = expected[:2]
    assert numbers(weighting.factors(NAMES[:2])) == pytest.approx(list(2 * two / two.sum()), rel=1e-5)


def test_variation_has_the_published_weights():
    weighting = Variation(NAMES)
    for first, second in ((1.0, 10.0), (0.8, 9.0), (0.9, 11.0), (0.7, 10.0)):
        weighting.advance(sums((first, second, float("nan"))))
    halves = [factor / 2 for factor in numbers(weighting.factors(NAMES[:2]))]
    assert halves == pytest.approx([0.565287, 0.434713], abs=1e-6)
    assert weighting.count.tolist() == [4, 4, 0]


class Shared(nn.Module):
    """Give three terms that share a trunk; the heads are their own."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.first, self.trunk = nn.Linear(4, 6), nn.Linear(6, 5)
        self.heads = nn.ModuleList(nn.Linear(5, 1) for _ in NAMES)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        hidden = self.trunk(self.first(x).tanh()).tanh()
        return {
            n: s * head(hidden).square().mean() for n, s, head in zip(NAMES, (1.0, 5.0, 0.1), self.heads, strict=True)
        }


X = torch.randn(8, 4, generator=torch.Generator().manual_seed(1))


def test_the_last_shared_layer_is_found():
    model = Shared()
    parameters = list(model.named_parameters())
    terms = model(X)
    assert parameters[last_shared(parameters, terms)][0] == "trunk.weight"
    assert parameters[last_shared(parameters, {"props": terms["props"]})][0] == "heads.2.weight"
    for parameter in model.trunk.parameters():
        parameter.requires_grad_(False)
    assert parameters[last_shared(parameters, model(X))][0] == "first.weight"


def test_terms_that_share_nothing_are_refused():
    one, other = Shared(), Shared()
    terms = {"diff": one(X)["diff"], "element": other(X)["element"]}
    parameters = [*one.named_parameters(prefix="one"), *other.named_parameters(prefix="other")]
    with pytest.raises(UsageError, match="no layer of the model is shared by the terms diff, element"):
        last_shared(parameters, terms)


def test_equal_norms_and_paces_pull_nowhere():
    assert pull(torch.full((3,), 2.0), torch.ones(3), torch.full((3,), 0.7)).tolist() == [0.0, 0.0, 0.0]


def naive_pull(model: Shared, weights: torch.Tensor, first: torch.Tensor) -> torch.Tensor:
    """Return the gradient of L_grad by differentiating through the gradient norms themselves."""
    weights = weights.clone().requires_grad_()
    terms = list(model(X).values())
    grads = [
        torch.autograd.grad(w * term, model.trunk.weight, create_graph=True)[0]
        for w, term in zip(weights, terms, strict=True)
    ]
    norms = torch.stack([g.norm() for g in grads])
    ratios = torch.stack([term.detach() for term in terms]) / first
    target = (norms.mean() * (ratios / ratios.mean()) ** 1.5).detach()
    return torch.autograd.grad((norms - target).abs().sum(), weights)[0]


def test_the_pull_is_the_gradient_of_the_published_loss():
    model, weights = Shared(), torch.tensor([0.5, 1.2, 1.3])
    first = torch.tensor([0.2, 1.0, 0.02])
    terms = model(X)
    norms = torch.stack(
        [torch.autograd.grad(t, model.trunk.weight, retain_graph=True)[0].norm() for t in terms.values()]
    )
    ratios = torch.stack(list(terms.values())).detach() / first
    assert torch.allclose(pull(norms, weights, ratios), naive_pull(model, weights, first), rtol=1e-4)


def step(weighting: GradNorm, model: Shared, window: int, measured: int = 1) -> dict[str, torch.Tensor]:
    for _ in range(measured):
        terms = model(X)
        weighting.remember(terms)
        weighting.measure(model, window)
    weighting.advance({name: (term.detach() * 4, torch.tensor(4.0)) for name, term in terms.items()})
    return terms


def test_weights_move_against_the_pull_and_keep_their_sum():
    model, weighting = Shared(), GradNorm(NAMES)
    terms = step(weighting, model, 0)
    first = torch.stack(list(terms.values())).detach()
    assert torch.allclose(weighting.first, first)
    norms = torch.stack(
        [torch.autograd.grad(t, model.trunk.weight, retain_graph=True)[0].norm() for t in terms.values()]
    )
    moved = 1 - RATE * naive_pull(model, torch.ones(3), first) / norms.mean()
    assert torch.allclose(weighting.weights, moved * 3 / moved.sum(), rtol=1e-4)
    for window in range(1, 30):
        step(weighting, model, window)
    assert float(weighting.weights.sum()) == pytest.approx(3.0, rel=1e-5)
    sizes = weighting.weights * norms
    assert float(sizes.max() / sizes.min()) < float(norms.max() / norms.min()) / 2


def test_norms_are_measured_once_a_step():
    model, once, often = Shared(), GradNorm(NAMES), GradNorm(NAMES)
    step(once, model, 0)
    calls = []
    grad = torch.autograd.grad
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.autograd, "grad", lambda *a, **k: calls.append(1) or grad(*a, **k))
        step(often, model, 0, measured=3)
    assert len(calls) == 6, "three to find the layer, three to measure"
    assert torch.equal(once.weights, often.weights)


def test_a_term_that_is_away_keeps_its_weight():
    model, weighting = Shared(), GradNorm(NAMES)
    step(weighting, model, 0)
    before = weighting.weights.clone()
    terms = {name: term for name, term in model(X).items() if name != "props"}
    weighting.remember(terms)
    weighting.measure(model, 1)
    weighting.advance(sums((*(t.item() for t in terms.values()), float("nan"))))
    assert float(weighting.weights[2]) == float(before[2])
    assert not torch.equal(weighting.weights, before)
    assert float(weighting.weights.sum()) == pytest.approx(3.0, rel=1e-5)
    assert sum(numbers(weighting.factors(NAMES[:2]))) == pytest.approx(2.0)


@pytest.mark.parametrize("weighting", [EpochAverages, Variation, GradNorm])
def test_state_resumes_to_the_bit(weighting):
    model, one = Shared(), weighting(NAMES)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)

    def train(weighed: nn.Module, window: int) -> list[float]:
        factors = numbers(weighed.factors(NAMES))
        terms = model(X)
        if isinstance(weighed, GradNorm):
            weighed.remember(terms)
            weighed.measure(model, window)
        weighed.advance({name: (term.detach(), torch.tensor(1.0)) for name, term in terms.items()})
        if window % 3 == 2:
            weighed.end_epoch()
        return factors

    for window in range(7):
        train(one, window)
        sum(model(X).values()).backward()
        optimizer.step()
    other = weighting(NAMES)
    other.load_state_dict(copy.deepcopy(one.state_dict()))
    for window in range(7, 14):
        assert train(one, window) == train(other, window)
        sum(model(X).values()).backward()
        optimizer.step()
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())
    assert numbers(one.factors(NAMES)) != [1.0, 1.0, 1.0]
