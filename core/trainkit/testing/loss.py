"""Checks of losses: a sum and a count that add up, gradients where they belong, and nothing from ignored positions."""

from __future__ import annotations

import copy
import math
from collections.abc import Collection, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from trainkit.binding import bind_loss
from trainkit.contracts import IGNORED_LABEL, LossOutput
from trainkit.errors import UsageError

from .component import ComponentConformance, NotChecked, plain, same
from .lossinputs import SAMPLES, loss_inputs
from .seriesinputs import SHARED

PREDICTIONS = frozenset({"quantiles", "point", "prices", "actions"})
# By mask of what was measured, or labels: the predictions that they belong to.
MEASURED = {"future_observed_mask": ("quantiles", "point", "prices"), "action_labels": ("actions",)}


class LossConformance(ComponentConformance):
    """Check a loss.

    Attributes:
        decomposes: whether the loss of a batch is the sum of the losses of its samples; contrastive terms do not.
        ignores_labels: whether it leaves out `labels` that are -100, or what was not measured.
        given: what `inputs` has of what the loss can do without; all that it cannot do without is there.
    """

    kind = "loss"
    decomposes: ClassVar[bool] = True
    ignores_labels: ClassVar[bool] = True
    given: ClassVar[Collection[str]] = ("logits", "labels", "props_logits", "props", "future_observed_mask")

    def inputs(self) -> dict[str, Tensor]:
        """Return a batch and outputs of 6 samples of different lengths, as far as the loss reads them."""
        values = loss_inputs()
        binding = bind_loss(self.loss())
        if missing := binding.missing(values):
            raise NotChecked(f"give inputs(): the loss reads {', '.join(sorted(missing))}")
        read = {name for _, name in binding.required} | {name for _, name in binding.optional if name in self.given}
        return {name: value for name, value in values.items() if name in read}

    def loss(self) -> nn.Module:
        """Return a fresh loss, in training mode."""
        loss: nn.Module = self.build()
        return loss.train()

    def call(self, loss: nn.Module, values: Mapping[str, Tensor]) -> LossOutput:
        """Return what the loss answers to the values that it reads."""
        answer = bind_loss(loss)(values)
        assert isinstance(answer, LossOutput), f"a LossOutput is expected, not {type(answer).__name__}"
        return answer

    def predictions(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return those values that a model makes and gradients have to reach: logits and the like, else features."""
        made = (n for n in values if n in PREDICTIONS or n.endswith(("logits", "_predictions")))
        outputs = {name: values[name] for name in made}
        return outputs or {name: value for name, value in values.items() if name.endswith("_features")}

    def gradients(self, values: Mapping[str, Tensor], *, loss: nn.Module | None = None) -> dict[str, Tensor]:
        """Return the gradient of the mean loss with respect to each prediction."""
        leaves = {name: value.clone().requires_grad_() for name, value in self.predictions(values).items()}
        output = self.call(loss or self.loss(), {**values, **leaves})
        (output.sum / torch.as_tensor(output.count).clamp(min=1)).backward()
        return {name: leaf.grad for name, leaf in leaves.items() if leaf.grad is not None}

    def test_is_a_module(self) -> None:
        """It is an nn.Module, so its parameters and buffers are trained, moved and saved."""
        assert isinstance(self.build(), nn.Module)

    def test_gives_a_finite_sum_and_a_count(self) -> None:
        """The sum is a finite scalar with a gradient, the count is positive, parts are detached pairs."""
        values = self.inputs()
        leaves = {name: value.clone().requires_grad_() for name, value in self.predictions(values).items()}
        output = self.call(self.loss(), {**values, **leaves})
        assert output.sum.ndim == 0
        assert output.sum.requires_grad
        assert math.isfinite(float(output.sum.detach()))
        assert float(output.count) > 0
        for name, (total, count) in output.parts.items():
            assert not total.requires_grad, f"part {name} keeps the graph alive"
            assert math.isfinite(float(total)), f"part {name}"
            assert float(count) > 0, f"part {name}"
        assert not any(isinstance(weight, Tensor) and weight.requires_grad for weight in output.weights.values())

    def test_terms_are_live(self) -> None:
        """Each term that it tells is a finite scalar with a gradient, over a positive count."""
        values = self.inputs()
        leaves = {name: value.clone().requires_grad_() for name, value in self.predictions(values).items()}
        for name, (total, count) in self.call(self.loss(), {**values, **leaves}).terms.items():
            assert total.ndim == 0, f"term {name}"
            assert total.requires_grad, f"term {name} has lost its graph: nothing can weigh it"
            assert math.isfinite(float(total.detach())), f"term {name}"
            assert float(count) > 0, f"term {name}"

    def test_what_is_missing_is_said(self) -> None:
        """A term that the batch cannot give is named inactive, and is neither among the terms nor a part of 0."""
        values = self.inputs()
        whole = self.call(self.loss(), values)
        optional = [name for _, name in bind_loss(self.loss()).optional if name in values]
        for left_out in (None, *optional):
            case = f"without {left_out}" if left_out else "with all inputs"
            try:
                output = self.call(self.loss(), {name: value for name, value in values.items() if name != left_out})
            except UsageError:
                assert left_out, "it refuses a batch that has all it reads"
                continue  # an option makes this input needed, and a refusal says so
            assert not isinstance(output.inactive, str), "inactive is a collection of names"
            assert all(isinstance(name, str) for name in output.inactive), case
            inactive = set(output.inactive)
            assert not inactive & (output.parts.keys() | output.terms.keys()), f"{case}: both computed and inactive"
            gone = whole.terms.keys() - output.terms.keys()
            assert gone <= inactive, f"{case}: {', '.join(sorted(gone - inactive))} vanished in silence"
            if whole.parts.keys() - output.parts.keys():
                assert inactive, f"{case}: parts vanished in silence"
            shared = output.parts.keys() & whole.parts.keys()
            zeros = {name for name in shared if float(output.parts[name][0]) == 0 != float(whole.parts[name][0])}
            assert not zeros, f"{case}: {', '.join(sorted(zeros))} became a silent 0"

    def test_gradient_reaches_every_prediction(self) -> None:
        """Every prediction gets a finite gradient that is not all 0."""
        values = self.inputs()
        gradients = self.gradients(values)
        assert gradients.keys() == self.predictions(values).keys()
        assert gradients, "no input is a prediction: override predictions()"
        for name, gradient in gradients.items():
            assert torch.isfinite(gradient).all(), name
            assert gradient.abs().sum() > 0, name

    def test_following_the_gradient_lowers_it(self) -> None:
        """A small step against the gradient makes the loss smaller."""
        values = self.inputs()
        gradients = self.gradients(values)
        moved = {name: value - 0.01 * gradients[name] for name, value in self.predictions(values).items()}
        assert self.call(self.loss(), {**values, **moved}).sum < self.call(self.loss(), values).sum

    def left_out(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return, for each prediction that has positions without a truth, where they are: [B, ...] bool."""
        at: dict[str, Tensor] = {}
        if "labels" in values:
            ignored = values["labels"] == IGNORED_LABEL
            at = dict.fromkeys(("logits", "pointer_logits", "box_predictions"), ignored)
            # Over scales the slots come second, and every scale leaves out the same.
            if (scales := values.get("scale_logits")) is not None:
                at["scale_logits"] = ignored.unsqueeze(1).expand(scales.shape[:-1])
        for name in MEASURED.keys() & values.keys():
            missing = ~values[name] if values[name].dtype == torch.bool else values[name] == IGNORED_LABEL
            at |= dict.fromkeys(MEASURED[name], missing)
        return {name: left_out for name, left_out in at.items() if name in self.predictions(values)}

    def emptied(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the values with every label ignored and nothing measured."""
        empty = dict(values)
        for name in ({"labels"} | MEASURED.keys()) & values.keys():
            nothing = False if values[name].dtype == torch.bool else IGNORED_LABEL
            empty[name] = torch.full_like(values[name], nothing)
        return empty

    def test_ignored_positions_change_nothing(self) -> None:
        """Other predictions where there is no truth give the same loss to the bit, and no gradient arrives there."""
        values = self.inputs()
        if not self.ignores_labels:
            assert "labels" not in values, "a loss that reads labels leaves out those that are -100"
            return
        at = self.left_out(values)
        assert at, "a loss that reads labels reads what a model says of them"
        moved = {
            name: values[name] + 3.0 * left_out.reshape(*left_out.shape, *[1] * (values[name].ndim - left_out.ndim))
            for name, left_out in at.items()
        }
        one, other = self.call(self.loss(), values), self.call(self.loss(), {**values, **moved})
        assert same(one.sum, other.sum)
        assert same(torch.as_tensor(one.count), torch.as_tensor(other.count))
        gradients = self.gradients(values)
        for name, left_out in at.items():
            assert gradients[name][left_out].abs().sum() == 0, name

    def test_nothing_real_is_an_exact_zero(self) -> None:
        """A batch in which there is no truth at all gives a sum of 0 and gradients of 0, never NaN."""
        values = self.inputs()
        if not self.ignores_labels:
            assert "labels" not in values
            return
        empty = self.emptied(values)
        assert float(self.call(self.loss(), empty).sum.detach()) == 0
        assert float(self.call(self.loss(), empty).count) == 0
        for gradient in self.gradients(empty).values():
            assert gradient.abs().sum() == 0

    def test_parts_of_a_batch_add_up(self) -> None:
        """Counts of parts of a batch add up; if the loss decomposes, so do sums and gradients, to 1e-6."""
        values = self.inputs()
        parts = [rows_of(values, rows) for rows in (slice(0, 1), slice(1, 4), slice(4, 6))]
        whole = self.call(self.loss(), values)
        outputs = [self.call(self.loss(), part) for part in parts]
        assert math.isclose(sum(float(o.count) for o in outputs), float(whole.count), rel_tol=1e-6)
        total = sum(float(output.sum.detach()) for output in outputs)
        assert math.isclose(total, float(whole.sum.detach()), rel_tol=1e-5) == self.decomposes
        if self.decomposes:
            for name, gradient in self.gradients(values).items():
                pieces = [self.gradients(p)[name] * float(o.count) for p, o in zip(parts, outputs, strict=True)]
                assert torch.allclose(torch.cat(pieces) / float(whole.count), gradient, atol=1e-6)

    def test_losses_of_samples_are_means(self) -> None:
        """Where it tells losses of samples, each is the mean over that sample alone, and none carries a gradient."""
        values = self.inputs()
        per_sample = self.call(self.loss(), values).per_sample
        if per_sample is None:
            return
        assert per_sample.shape == (SAMPLES,)
        assert not per_sample.requires_grad
        if self.decomposes:
            for sample in range(SAMPLES):
                alone = self.call(self.loss(), rows_of(values, slice(sample, sample + 1)))
                mean = float(alone.sum.detach()) / max(float(alone.count), 1.0)
                assert math.isclose(float(per_sample[sample]), mean, rel_tol=1e-5, abs_tol=1e-6)

    def test_half_precision_is_widened(self) -> None:
        """Logits in bf16 or fp16 give the loss of their rounded values in fp32, not less exact than that."""
        values = self.inputs()
        for dtype in (torch.bfloat16, torch.float16):
            half = {name: value.to(dtype) for name, value in self.predictions(values).items()}
            exact = self.call(self.loss(), {**values, **{name: value.float() for name, value in half.items()}})
            rough = self.call(self.loss(), {**values, **half})
            assert math.isclose(float(rough.sum.detach()), float(exact.sum.detach()), rel_tol=1e-5), dtype

    def test_state_continues(self) -> None:
        """Its state in a fresh loss gives the same next value to the bit, and is plain."""
        values = self.inputs()
        first = self.loss()
        for _ in range(3):
            self.call(first, values)
        state = copy.deepcopy(first.state_dict())
        assert plain(dict(state))
        second = self.loss()
        second.load_state_dict(state)
        assert same(self.call(second, values).sum.detach(), self.call(first, values).sum.detach())

    def test_evaluation_leaves_it_as_it_is(self) -> None:
        """In evaluation mode it repeats itself and its state does not change."""
        values = self.inputs()
        loss = self.loss()
        self.call(loss, values)
        loss.eval()
        before = copy.deepcopy(loss.state_dict())
        assert same(self.call(loss, values).sum.detach(), self.call(loss, values).sum.detach())
        assert same(dict(before), dict(loss.state_dict()))

    def test_inputs_are_left_whole(self) -> None:
        """It changes none of its inputs."""
        values = self.inputs()
        before: dict[str, Any] = {name: value.clone() for name, value in values.items()}
        self.call(self.loss(), values)
        assert same(before, values)


def rows_of(values: Mapping[str, Tensor], rows: slice) -> dict[str, Tensor]:
    """Return the values of some samples; what belongs to no sample is as it is."""
    return {name: value if name in SHARED else value[rows] for name, value in values.items()}
