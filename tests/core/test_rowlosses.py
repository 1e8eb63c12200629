"""Losses of rows are the same in chunks as in one piece, and so are their gradients."""

from __future__ import annotations

import pytest
import torch
from trainkit.rowlosses import chunked, plain


def compared(logits, labels, smoothing, dtype=torch.float64):
    """Return loss, likelihood and gradient in chunks, and by PyTorch's own operations in another precision."""
    found = []
    for function, precision in ((chunked, logits.dtype), (plain, dtype)):
        leaf = logits.detach().to(precision).requires_grad_()
        losses, likelihood = function(leaf, labels, smoothing)
        (losses * torch.linspace(0.5, 2, len(labels))).sum().backward()
        found.append((losses.detach(), likelihood.detach(), leaf.grad))
    return found


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize(("precision", "near"), [(torch.float32, 1e-6), (torch.bfloat16, 4e-3), (torch.float16, 5e-4)])
def test_chunks_change_nothing(smoothing, precision, near, monkeypatch):
    monkeypatch.setattr("trainkit.rowlosses.CPU_ELEMENTS", 100)
    torch.manual_seed(0)
    logits = (4 * torch.randn(17, 31)).to(precision)
    labels = torch.randint(0, 31, (17,)).masked_fill(torch.arange(17) % 5 == 3, -100)
    ours, theirs = compared(logits, labels, smoothing)
    assert ours[0].dtype == torch.float32
    assert ours[2].dtype == precision
    for mine, right, least in zip(ours, theirs, (1e-6, 1e-6, near), strict=True):
        torch.testing.assert_close(mine.double(), right.double(), rtol=least, atol=least / 10)
    assert (ours[2][labels == -100] == 0).all()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_gradients_of_first_and_second_order_are_right(smoothing, monkeypatch):
    monkeypatch.setattr("trainkit.rowlosses.CPU_ELEMENTS", 12)
    torch.manual_seed(0)
    logits = torch.randn(6, 5, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0, 4, -100, 2, 2, 1])
    loss = lambda some: chunked(some, labels, smoothing)[0]  # noqa: E731
    assert torch.autograd.gradcheck(loss, (logits,))
    assert torch.autograd.gradgradcheck(loss, (logits,))


def test_what_is_nearly_certain_keeps_its_small_loss():
    logits = torch.tensor([[100.0, 90.0, 0.0]], requires_grad=True)
    losses, _ = chunked(logits, torch.tensor([0]), 0.0)
    assert losses.item() == pytest.approx(4.539890e-05, rel=3e-3)
    losses.sum().backward()
    assert logits.grad[0].tolist() == pytest.approx([-4.539787e-05, 4.539787e-05, 0], rel=3e-3)


def test_no_label_and_no_row_give_zero():
    logits = torch.randn(3, 4, requires_grad=True)
    losses, likelihood = chunked(logits, torch.full((3,), -100), 0.1)
    losses.sum().backward()
    assert losses.tolist() == likelihood.tolist() == [0, 0, 0]
    assert not logits.grad.any()
    assert [len(each) for each in chunked(torch.empty(0, 4), torch.empty(0, dtype=torch.long), 0.1)] == [0, 0]


def test_a_label_that_is_no_class_is_refused():
    for label in (-1, 4):
        with pytest.raises((IndexError, RuntimeError), match="out of bounds"):
            chunked(torch.zeros(1, 4), torch.tensor([label]), 0.0)
