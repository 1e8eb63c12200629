"""The kit's checks of losses of several terms: what is missing is said, what is told is live."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from trainkit import LossOutput
from trainkit.component import Component
from trainkit.nested import call, reads_of
from trainkit.testing import LossConformance
from trainkit.testing.lossinputs import EMPTY_SLOT, IMPOSSIBLE, NODES, loss_inputs
from trainkit.testing.seriesinputs import SHARED

BOXES = ("boxes", "box_mask", "box_predictions")


def of(target, **attributes):
    """Return the checks of a class that no distribution offers."""
    attributes["load"] = lambda self: Component("loss", "mine", target)
    return type("Checked", (LossConformance,), {"component": "mine", **attributes})()


def failing(checked):
    """Return the names of the checks of losses that fail."""
    found = set()
    for name in (name for name in vars(LossConformance) if name.startswith("test_")):
        try:
            getattr(checked, name)()
        except (AssertionError, RuntimeError):
            found.add(name)
    return found


class WithBoxes(nn.Module):
    """Add squares of the boxes' errors to the likelihood."""

    def forward(self, logits, labels, boxes=None, box_mask=None, box_predictions=None):
        real = labels != -100
        chosen = logits.float().log_softmax(-1).gather(-1, labels.clamp(min=0).unsqueeze(-1)).squeeze(-1)
        sums = {"nll": -chosen.masked_fill(~real, 0.0).sum()}
        if boxes is not None and box_mask is not None and box_predictions is not None:
            sums["geometry"] = (
                (box_predictions.float() - boxes).square().mean(-1) * self.counted(box_mask & real)
            ).sum()
        return self.answer(sums, real.sum())

    def counted(self, real):
        return real

    def answer(self, sums, count):
        return LossOutput(
            sum(sums.values()),
            count,
            parts={name: (total.detach(), count) for name, total in sums.items()},
            terms={name: (total, count) for name, total in sums.items()},
            inactive=[name for name in ("nll", "geometry") if name not in sums],
        )


class Silent(WithBoxes):
    """Say nothing of what is missing."""

    def answer(self, sums, count):
        output = super().answer(sums, count)
        return LossOutput(output.sum, count, output.parts, terms=output.terms)


class Zero(WithBoxes):
    """Give 0 for what is missing."""

    def answer(self, sums, count):
        return super().answer({"geometry": 0.0 * sums["nll"], **sums}, count)


class Contradicting(WithBoxes):
    """Miss what is there."""

    def answer(self, sums, count):
        output = super().answer(sums, count)
        return LossOutput(output.sum, count, output.parts, terms=output.terms, inactive=["geometry"])


class OneWord(WithBoxes):
    """Give a word for a collection of words."""

    def answer(self, sums, count):
        output = super().answer(sums, count)
        return LossOutput(
            output.sum, count, output.parts, terms=output.terms, inactive="" if "geometry" in sums else "geometry"
        )


class Cut(WithBoxes):
    """Give terms that nothing can weigh."""

    def answer(self, sums, count):
        output = super().answer(sums, count)
        terms = {name: (total.detach(), count) for name, (total, count) in output.terms.items()}
        return LossOutput(output.sum, count, output.parts, terms=terms, inactive=output.inactive)


class Everywhere(WithBoxes):
    """Measure boxes where there is no slot."""

    def counted(self, real):
        return torch.ones_like(real)


class Wrapping(nn.Module):
    """Halve another loss."""

    def __init__(self):
        super().__init__()
        self.main = WithBoxes()
        self.reads, self.reads_optional = reads_of(self.main)

    def forward(self, **values):
        inner = call(self.main, values)
        return LossOutput(0.5 * inner.sum, inner.count, inner.parts, terms=inner.terms, inactive=inner.inactive)


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (WithBoxes, set()),
        (Wrapping, set()),
        (Silent, {"test_what_is_missing_is_said"}),
        (Zero, {"test_what_is_missing_is_said"}),
        (Contradicting, {"test_what_is_missing_is_said"}),
        (OneWord, {"test_what_is_missing_is_said"}),
        (Cut, {"test_terms_are_live"}),
        (Everywhere, {"test_ignored_positions_change_nothing", "test_nothing_real_is_an_exact_zero"}),
    ],
)
def test_faults_of_losses_of_several_terms(target, expected):
    assert failing(of(target, given=BOXES)) == expected


class Forecasts(nn.Module):
    """Be the squared error of point forecasts that were measured."""

    def forward(self, point, future_values, future_observed_mask):
        measured = self.measured(future_observed_mask)
        truth = future_values.nan_to_num() * future_observed_mask
        return LossOutput(((point.float() - truth).square() * measured).sum(), measured.sum())

    def measured(self, mask):
        return mask


class Unmeasured(Forecasts):
    """Take what is missing for 0."""

    def measured(self, mask):
        return torch.ones_like(mask)


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (Forecasts, set()),
        (Unmeasured, {"test_ignored_positions_change_nothing", "test_nothing_real_is_an_exact_zero"}),
    ],
)
def test_faults_of_losses_of_forecasts(target, expected):
    assert failing(of(target)) == expected


def test_what_is_needed_is_there_and_of_the_rest_what_the_class_asks_for():
    class Needs(nn.Module):
        """Need features, and take boxes."""

        def forward(self, visual_features, boxes=None, labels=None):
            return LossOutput(visual_features.sum(), 1)

    assert of(Needs).inputs().keys() == {"visual_features", "labels"}
    assert of(Needs, given=("boxes",)).inputs().keys() == {"visual_features", "boxes"}
    assert of(Needs).predictions(loss_inputs()).keys() == {
        "logits", "props_logits", "pointer_logits", "scale_logits", "box_predictions",
        "quantiles", "point", "prices", "actions",
    }  # fmt: skip
    assert of(Needs).predictions(of(Needs).inputs()).keys() == {"visual_features"}


def test_the_values_of_the_kit_agree_with_each_other():
    values = loss_inputs()
    labels, sources = values["labels"], values["sources"]
    assert {EMPTY_SLOT, -100} <= set(labels.flatten().tolist())
    filled = (labels != -100) & (labels != EMPTY_SLOT)
    assert (sources[~filled] == -100).all()
    assert ((sources == NODES).sum(-1) == filled).all(), "each filled slot's sources end in one stop sign"
    reached = values["pointer_logits"].gather(-1, sources.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    assert (reached[sources != -100] > IMPOSSIBLE).all()
    assert (values["pointer_logits"] == IMPOSSIBLE).any()
    assert not values["masked"][labels == -100].any()
    assert ((values["mask_rate"] > 0) & (values["mask_rate"] <= 1)).all()
    assert torch.allclose(values["elbo_weight"] * values["mask_rate"], torch.ones(6))
    assert not values["box_mask"][~filled].any()
    parents = values["tree_parent"]
    assert (parents < torch.arange(5)).all()
    assert filled.gather(1, parents.clamp(min=0))[parents >= 0].all()
    assert torch.equal(values["scale_logits"][:, -1], values["logits"])
    observed, levels = values["future_observed_mask"], values["quantile_levels"]
    assert torch.equal(values["future_values"].isfinite(), observed)
    assert not observed[2].any()
    assert observed.any(0).any(0).all(), "each target was measured somewhere"
    assert values["quantiles"].shape == (*observed.shape, len(levels))
    assert (levels.diff() > 0).all()
    assert {0, 1, 2, -100} == set(values["action_labels"].flatten().tolist())
    assert all(len(value) == 6 for name, value in values.items() if name not in SHARED)
