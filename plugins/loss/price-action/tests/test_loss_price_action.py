"""The loss of prices and actions against the formula of its two parts, and where values or labels are missing."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional
from trainkit.testing import LossConformance
from trainkit_loss_price_action.price_action import PriceAction

torch.manual_seed(0)
PRICES, TRUTH = torch.randn(4, 5, 6), torch.randn(4, 5, 6)
ACTIONS, LABELS = torch.randn(4, 5, 3), torch.randint(0, 3, (4, 5))


class TestPriceAction(LossConformance):
    component = "price-action"


class TestPriceActionOfPricesAlone(LossConformance):
    component = "price-action"
    options = {"action_weight": 2.0}


@pytest.mark.parametrize("weight", [0.0, 0.5, 2.0])
def test_it_is_the_formula_where_nothing_is_missing(weight):
    output = PriceAction(weight)(PRICES, ACTIONS, TRUTH, LABELS)
    chosen = functional.cross_entropy(ACTIONS.flatten(0, 1), LABELS.flatten())
    expected = functional.mse_loss(PRICES, TRUTH) + weight * chosen
    assert float(output.sum / output.count) == pytest.approx(float(expected), rel=1e-6)
    assert float(output.parts["price"][0] / output.parts["price"][1]) == pytest.approx(
        float(functional.mse_loss(PRICES, TRUTH)), rel=1e-6
    )
    assert float(output.parts["action"][0] / output.parts["action"][1]) == pytest.approx(float(chosen), rel=1e-6)


def test_one_action_for_a_sample_is_about_the_next_close():
    output = PriceAction(1.0)(TRUTH, ACTIONS[:, 0], TRUTH, LABELS)
    expected = functional.cross_entropy(ACTIONS[:, 0], LABELS[:, 0])
    assert float(output.sum / output.count) == pytest.approx(float(expected), rel=1e-6)
    same = PriceAction(1.0)(TRUTH, ACTIONS[:, 0], TRUTH, LABELS[:, 0])
    assert float(same.sum) == float(output.sum)


def test_terms_make_up_the_whole():
    output = PriceAction()(PRICES, ACTIONS, TRUTH, LABELS)
    total = sum(weight * output.terms[name][0] for name, weight in (("price", 1.0), ("action", 0.5)))
    assert float(total) == pytest.approx(float(output.sum), rel=1e-6)


def test_a_sample_without_labels_still_has_prices():
    labels = LABELS.clone()
    labels[1] = -100
    output = PriceAction()(PRICES, ACTIONS, TRUTH, labels)
    prices = (PRICES - TRUTH).square().flatten(1).mean(1)
    assert float(output.count) == 4
    assert float(output.per_sample[1]) == pytest.approx(float(prices[1]), rel=1e-6)


def test_labels_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"actions \[4, 5, 3\] do not fit action_labels \[4, 4\]"):
        PriceAction()(PRICES, ACTIONS, TRUTH, LABELS[:, :4])
    with pytest.raises(ValueError, match="differ in shape"):
        PriceAction()(PRICES[:, :4], ACTIONS, TRUTH, LABELS)
