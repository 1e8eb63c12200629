from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cross_entropy
from trainkit.testing import LossConformance
from trainkit_loss_focal.focal import focal


class TestFocal(LossConformance):
    component = "focal"


def test_gamma_0_is_cross_entropy() -> None:
    logits, labels = torch.randn(4, 3, 7), torch.randint(0, 7, (4, 3))
    expected = cross_entropy(logits.flatten(0, 1), labels.flatten())
    assert focal(logits, labels, 0.0).mean().item() == pytest.approx(expected.item(), rel=1e-5)


def test_closed_form() -> None:
    """Of two equal logits each has p = 1/2, so the loss is (1/2)^2 ln 2."""
    assert focal(torch.zeros(1, 2), torch.tensor([0])).item() == pytest.approx(0.25 * 0.693147, rel=1e-5)
