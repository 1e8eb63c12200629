"""Boxes, looks and the spread of predictions: known values, naive references, and where gradients go."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from trainkit_loss_multitask.aesthetics import aesthetic_losses, alignment, ancestors, overlap
from trainkit_loss_multitask.boxes import box_losses, generalised_iou, iou
from trainkit_loss_multitask.pages import (
    class_counts,
    divergence,
    flag_counts,
    mean_prediction,
    positive_weights,
    property_losses,
)

THREE = torch.tensor([[[0.25, 0.25, 0.5, 0.5], [0.5, 0.5, 0.5, 0.5], [0.8, 0.2, 0.2, 0.2]]])
HALVES = torch.tensor([[[0.5, 0.25, 1.0, 0.5], [0.5, 0.75, 1.0, 0.5]]])
BOXES = torch.rand(4, 7, 4, generator=torch.Generator().manual_seed(0))
REAL = torch.tensor([[1, 0, 1, 1, 0, 1, 1], [1] * 7, [0, 1, 0, 0, 0, 0, 0], [0] * 7]).bool()
PARENTS = torch.tensor(
    [[-1, 0, 0, 2, 3, -1, 5], [-1, 0, 1, 2, 0, 4, 4], [-1, 0, 0, 0, 0, 0, 0], [-1, -1, -1, -1, -1, -1, -1]]
)


def every_pair(boxes: torch.Tensor) -> torch.Tensor:
    return ~torch.eye(boxes.shape[1], dtype=torch.bool).unsqueeze(0)


def test_iou_has_the_known_value():
    assert float(iou(THREE[0, 0], THREE[0, 1])) == pytest.approx(0.1428571)
    assert float(iou(THREE[0, 0], THREE[0, 0])) == pytest.approx(1.0)
    assert float(iou(HALVES[0, 0], HALVES[0, 1])) == 0.0


def test_generalised_iou_tells_how_far_apart_boxes_are():
    """Two unit squares with a unit gap: their hull of 3 holds a third that belongs to neither."""
    square, far, touching = (torch.tensor([x, 0.5, 1.0, 1.0]) for x in (0.5, 2.5, 1.5))
    assert float(generalised_iou(square, far)) == pytest.approx(-1 / 3)
    assert float(generalised_iou(square, touching)) == pytest.approx(0.0)
    assert float(generalised_iou(THREE[0, 0], THREE[0, 1])) == pytest.approx(0.0625 / 0.4375 - 0.125 / 0.5625)


@pytest.mark.parametrize(
    ("kind", "first"),
    [("mse", 2 * 0.1**2 / 4), ("l1+iou", 0.2 / 4 + 1 - 0.09 / 0.16), ("l1+giou", 0.2 / 4 + 1 - 0.09 / 0.16)],
)
def test_losses_of_boxes_are_means_over_real_slots(kind, first):
    """The first prediction is 0.3 wide inside a truth of 0.4; the second is right; the third is no box at all."""
    boxes = torch.tensor([[[0.4, 0.4, 0.4, 0.4], [0.5, 0.5, 0.2, 0.2], [float("nan")] * 4]])
    predictions = torch.tensor([[[0.4, 0.4, 0.3, 0.3], [0.5, 0.5, 0.2, 0.2], [0.9, 0.9, 0.9, 0.9]]])
    predictions.requires_grad_()
    losses = box_losses(predictions, boxes, torch.tensor([[True, True, False]]), kind)
    assert losses.tolist() == pytest.approx([first / 2], abs=1e-6)
    losses.sum().backward()
    assert torch.isfinite(predictions.grad).all()
    assert predictions.grad[0, 0].abs().sum() > 0
    assert predictions.grad[0, 2].abs().sum() == 0


def test_ancestors_are_those_of_a_naive_walk():
    found = ancestors(PARENTS)
    for sample, slot in itertools.product(range(4), range(7)):
        above, parent = set(), int(PARENTS[sample, slot])
        while parent >= 0:
            above.add(parent)
            parent = int(PARENTS[sample, parent])
        assert set(found[sample, slot].nonzero().flatten().tolist()) == above


def test_a_circle_of_parents_comes_to_an_end():
    assert ancestors(torch.tensor([[1, 0]])).tolist() == [[[True, True], [True, True]]]


def test_overlap_has_the_known_value():
    """Only the first two boxes share more than a tenth: twice (1/7 - 0.1) over six ordered pairs."""
    assert overlap(THREE, every_pair(THREE)).tolist() == pytest.approx([2 * (1 / 7 - 0.1) / 6])
    assert overlap(HALVES, every_pair(HALVES)).tolist() == [0.0]
    assert overlap(HALVES[:, :1], every_pair(HALVES[:, :1])).tolist() == [0.0]


def test_alignment_has_the_known_value_as_the_minimum_hardens():
    assert alignment(THREE, torch.ones(1, 3).bool(), 1e-5).tolist() == pytest.approx([0.0883685], abs=1e-6)
    assert alignment(HALVES, torch.ones(1, 2).bool(), 1e-5).tolist() == pytest.approx([0.0], abs=1e-6)
    assert alignment(HALVES, torch.tensor([[True, False]])).tolist() == [0.0]


def naive_minimum(boxes: np.ndarray, real: np.ndarray) -> float:
    """Return the metric of 6.3 by loops."""
    chosen = boxes[real]
    lines = [(x - w / 2, x, x + w / 2, y - h / 2, y, y + h / 2) for x, y, w, h in chosen]
    if len(lines) < 2:
        return 0.0
    costs = [
        -math.log(
            1 - min(abs(a - b) for j, other in enumerate(lines) if j != i for a, b in zip(own, other, strict=True))
        )
        for i, own in enumerate(lines)
    ]
    return sum(costs) / len(costs)


def test_alignment_is_near_the_hard_minimum_and_never_below():
    naive = [naive_minimum(boxes.numpy(), real.numpy()) for boxes, real in zip(BOXES, REAL, strict=True)]
    assert alignment(BOXES, REAL, 1e-5).tolist() == pytest.approx(naive, abs=1e-4)
    soft = alignment(BOXES, REAL).tolist()
    assert all(low <= high <= low + 0.02 for low, high in zip(naive, soft, strict=True))
    assert soft[0] > naive[0]


def test_looks_leave_out_empty_slots_and_ancestors():
    """As many boxes as the fullest page has are compared; the rest, and pairs of a node and its ancestor, are not."""
    expected = []
    for boxes, real, parents in zip(BOXES, REAL, PARENTS, strict=True):
        above = ancestors(parents.unsqueeze(0))[0]
        slots = [int(slot) for slot in real.nonzero().flatten()]
        pairs = [(i, j) for i in slots for j in slots if i != j and not above[i, j] and not above[j, i]]
        excess = [max(0.0, float(iou(boxes[i], boxes[j])) - 0.1) for i, j in pairs]
        aligned = alignment(boxes[real].unsqueeze(0), torch.ones(1, len(slots)).bool()) if slots else torch.zeros(1)
        expected.append(sum(excess) / max(len(pairs), 1) + float(aligned[0]))
    assert aesthetic_losses(BOXES, REAL, PARENTS).tolist() == pytest.approx(expected, abs=1e-6)
    flat = aesthetic_losses(BOXES, REAL)
    assert float(flat[1]) != pytest.approx(expected[1], abs=1e-4), "without parents every pair counts"


def test_looks_matter_where_little_is_hidden():
    whole = aesthetic_losses(BOXES, REAL, PARENTS)
    rates = torch.tensor([0.25, 1.0, 0.5, 0.5])
    assert torch.allclose(aesthetic_losses(BOXES, REAL, PARENTS, rates), whole * (1 - rates))


def test_looks_give_gradients_to_real_boxes_only():
    boxes = BOXES.clone().requires_grad_()
    aesthetic_losses(boxes, REAL, PARENTS).sum().backward()
    assert torch.isfinite(boxes.grad).all()
    assert boxes.grad[~REAL].abs().sum() == 0
    assert boxes.grad[0][REAL[0]].abs().sum() > 0
    assert boxes.grad[2].abs().sum() == 0, "an element that is alone cannot look better"


def test_looks_agree_with_finite_differences():
    boxes = BOXES[:2].double().requires_grad_()
    assert torch.autograd.gradcheck(lambda b: aesthetic_losses(b, REAL[:2], PARENTS[:2]), [boxes], eps=1e-7, atol=1e-4)


def test_diversity_has_the_known_values():
    skewed, even = torch.tensor([0.7, 0.1, 0.1, 0.1]), torch.full((4,), 0.25)
    assert float(divergence(skewed, torch.zeros(4), "uniform")) == pytest.approx(0.445846, abs=1e-6)
    assert float(divergence(even, torch.tensor([9, 0, 0, 0]), "uniform")) == pytest.approx(0.0, abs=1e-6)
    counts = torch.tensor([699_999, 99_999, 99_999, 99_999])
    assert float(divergence(skewed, counts)) == pytest.approx(0.0, abs=1e-6)
    expected = sum(p * math.log(p / q) for p, q in zip((0.25,) * 4, (0.7, 0.1, 0.1, 0.1), strict=True))
    assert float(divergence(even, counts)) == pytest.approx(expected, abs=1e-6)
    assert float(divergence(torch.zeros(4), counts)) == 0.0


def test_the_mean_prediction_is_of_real_positions():
    logits = torch.tensor([[[0.7, 0.3], [0.1, 0.9], [0.5, 0.5]]]).log()
    assert mean_prediction(logits, torch.tensor([[True, True, False]])).tolist() == pytest.approx([0.4, 0.6])
    assert mean_prediction(logits, torch.zeros(1, 3).bool()).tolist() == [0.0, 0.0]


def test_labels_and_flags_are_counted():
    labels = torch.tensor([[0, 2, -100], [2, 2, 1]])
    assert class_counts(labels, labels > 0, 4).tolist() == [0, 1, 3, 0]
    assert flag_counts(torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0]])).tolist() == [[1, 2], [2, 1]]


def test_rare_flags_weigh_as_much_as_they_are_rare():
    counts = torch.tensor([[89, 0, 99_999], [9, 9, 0]])
    assert positive_weights(counts).tolist() == pytest.approx([9.0, 0.1, 100.0])
    assert positive_weights(torch.zeros(2, 3)).tolist() == [1.0, 1.0, 1.0]


def test_properties_are_the_mean_over_flags():
    logits, flags = torch.tensor([[0.5, -1.0], [2.0, 0.0]]), torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    p, w = logits.sigmoid(), torch.tensor([3.0, 0.5])
    expected = -(w * flags * p.log() + (1 - flags) * (1 - p).log()).mean(1)
    assert torch.allclose(property_losses(logits, flags, w), expected)
    assert not torch.allclose(property_losses(logits, flags), expected)
