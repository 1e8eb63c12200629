from __future__ import annotations

import copy
import logging
import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch.nn import functional
from trainkit.likelihood import class_losses, pointer_losses
from trainkit.loop import train
from trainkit.testing import LossConformance
from trainkit.testing.tiny import VOCABULARY, TinyTask, tiny_run
from trainkit_loss_element_combination.element_combination import ElementCombination
from trainkit_loss_element_combination.terms import (
    alignment,
    context_losses,
    count_pairs,
    entropy_of_mean,
    squared_logits,
    transition_costs,
)

STOP, IGNORED, PAD = 4, -100, 0
SLOTWISE = {"align_weight": 0.0, "context_weight": 0.0}


def example(samples: int = 6, slots: int = 5, classes: int = 7, seed: int = 0) -> dict[str, torch.Tensor]:
    """Return trees of several sizes with up to two sources a slot, some slots hidden, and features of each sample."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(1, classes, (samples, slots), generator=generator)
    labels[:, 4] = PAD
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
    struct_mask = torch.ones(samples, STOP, dtype=torch.bool)
    struct_mask[::2, 3] = False
    masked = torch.rand(samples, slots, generator=generator) < 0.6
    masked[:, 0] = True
    return {
        "logits": torch.randn(samples, slots, classes, generator=generator),
        "labels": labels,
        "pointer_logits": torch.randn(samples, slots, 3, STOP + 1, generator=generator),
        "sources": sources,
        "struct_mask": struct_mask,
        "masked": masked,
        "tree_parent": torch.tensor([-1, 0, 0, 1, 1]).expand(samples, slots).contiguous(),
        "visual_features": torch.randn(samples, 8, generator=generator),
        "structural_features": torch.randn(samples, 8, generator=generator),
    }


class Conformance(LossConformance):
    component = "element-combination"

    def inputs(self):
        return example()

    def predictions(self, values: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        wanted = {"logits", "pointer_logits", "visual_features", "structural_features"}
        return {name: value for name, value in values.items() if name in wanted}


class TestElementCombination(Conformance):
    decomposes = False


class TestCosineEntropy(Conformance):
    options = {"align": "cosine_entropy", "joint": True}
    decomposes = False


class TestTermsOfSlots(Conformance):
    options = {**SLOTWISE, "l2_weight": 0.01}

    def inputs(self):
        return {name: value for name, value in example().items() if not name.endswith("features")}


class TestFlat(LossConformance):
    """Logits and labels alone."""

    component = "element-combination"
    options = {"mode": "flat", **SLOTWISE, "pad_id": -1}


class TestElementCombinationByDefault(LossConformance):
    component = "element-combination"


def with_pairs(loss: ElementCombination, values: dict[str, torch.Tensor]) -> ElementCombination:
    """Let a loss count the pairs of a batch, as one step of a loop does."""
    loss(**values)
    loss.keep()
    loss.advance()
    return loss


def reference(values: dict[str, torch.Tensor], smoothing: float, joint: bool, pad_weight: float) -> dict[str, float]:
    """Return the sums of the terms and their count, slot by slot in plain numbers: a second way to write them."""
    v = {name: value.tolist() for name, value in values.items()}
    classes = len(v["logits"][0][0])
    terms = dict.fromkeys(("base", "pointer", "l2", "context", "count"), 0.0)

    def shares(scores: list[float]) -> list[float]:
        total = sum(math.exp(score) for score in scores)
        return [math.exp(score) / total for score in scores]

    def cost(scores: list[float], target: int) -> float:
        logs = [math.log(share) for share in shares(scores)]
        return -(1 - smoothing) * logs[target] - smoothing * sum(logs) / len(logs)

    seen: dict[int, dict[int, int]] = {parent: {} for parent in range(classes + 1)}
    for labels, parents in zip(v["labels"], v["tree_parent"], strict=True):
        for label, parent in zip(labels, parents, strict=True):
            if label not in (IGNORED, PAD):
                row = seen[classes if parent < 0 else labels[parent]]
                row[label] = row.get(label, 0) + 1
    costs = [
        [-math.log((row.get(child, 0) + 1) / (sum(row.values()) + classes)) for child in range(classes)]
        for row in seen.values()
    ]
    highest = max(map(max, costs))
    for b, labels in enumerate(v["labels"]):
        predicted = [shares(scores) for scores in v["logits"][b]]
        for n, label in enumerate(labels):
            if label == IGNORED or not v["masked"][b][n]:
                continue
            weight = pad_weight if label == PAD else 1.0
            terms["count"] += weight
            terms["base"] += weight * cost(v["logits"][b][n], label)
            terms["l2"] += weight * sum(score**2 for score in v["logits"][b][n]) / classes
            pointers = []
            for k, source in enumerate(v["sources"][b][n]):
                if source != IGNORED:
                    allowed = [i for i in range(STOP + 1) if i == STOP or v["struct_mask"][b][i]]
                    scores = [v["pointer_logits"][b][n][k][i] for i in allowed]
                    pointers.append(cost(scores, allowed.index(source)))
            if pointers:
                terms["pointer"] += weight * (sum(pointers) if joint else sum(pointers) / len(pointers))
            if label == PAD:
                continue
            parent = v["tree_parent"][b][n]
            if parent < 0:
                above = {classes: 1.0}
            elif v["masked"][b][parent]:
                above = dict(enumerate(predicted[parent]))
            else:
                above = {labels[parent]: 1.0}
            terms["context"] += sum(
                share * costs[row][child] / highest * predicted[n][child]
                for row, share in above.items()
                for child in range(classes)
            )
    return terms


@pytest.mark.parametrize("joint", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_equals_the_definition_written_slot_by_slot(joint, smoothing):
    values = example()
    loss = with_pairs(ElementCombination(joint=joint, label_smoothing=smoothing, pad_weight=0.3), values)
    output = loss(**values)
    expected = reference(values, smoothing, joint, 0.3)
    assert float(output.count) == pytest.approx(expected["count"], rel=1e-6)
    for name in ("base", "pointer", "l2", "context"):
        assert float(output.terms[name][0]) == pytest.approx(expected[name], rel=1e-5), name
    weighed = sum(output.weights[name] * float(total) for name, (total, _) in output.terms.items())
    assert float(output.sum) == pytest.approx(weighed, rel=1e-6)
    assert output.weights == {"base": 1.0, "pointer": 1.0, "align": 0.1, "l2": 1e-4, "context": 0.05}


def test_even_logits_cost_what_the_reference_says():
    """Cb = 4, S + 1 = 4, K = 1, no smoothing: normalised 2 ln 4, joint 3 ln 4."""
    logits, labels = torch.zeros(1, 1, 4), torch.tensor([[2]])
    pointer_logits, sources = torch.zeros(1, 1, 2, 4), torch.tensor([[[1, 3]]])
    for joint, expected in ((False, 2.772589), (True, 4.158883)):
        output = ElementCombination(joint=joint, label_smoothing=0)(logits, labels, pointer_logits, sources)
        assert (output.sum / output.count).item() == pytest.approx(expected, abs=1e-6)


def test_contrast_of_identity_similarity():
    assert alignment(torch.eye(2), torch.eye(2), 1.0).item() == pytest.approx(0.313262, abs=1e-6)


def test_contrast_is_symmetric_and_blind_to_length():
    values = example()
    visual, structural = values["visual_features"], values["structural_features"]
    one = alignment(visual, structural).item()
    assert alignment(structural, 3 * visual).item() == pytest.approx(one, rel=1e-5)
    similarity = functional.cosine_similarity(visual[:, None], structural[None], dim=-1) / 0.07
    rows = -similarity.log_softmax(1).diagonal().mean()
    columns = -similarity.log_softmax(0).diagonal().mean()
    assert one == pytest.approx(((rows + columns) / 2).item(), rel=1e-5)


@pytest.mark.parametrize(("align", "expected"), [("infonce", 1 - 0.6), ("cosine", 1 - 0.6), ("cosine_entropy", None)])
def test_alignment_of_one_sample_alone(align, expected):
    """Nothing contrasts: the agreement itself is left. The third form is the cosine times the entropy, with a minus."""
    features = {"visual_features": torch.tensor([[2.0, 0]]), "structural_features": torch.tensor([[3.0, 4]])}
    logits, labels = torch.tensor([[[0.7, 0.1, 0.1, 0.1]]]).log(), torch.tensor([[2]])
    total, count = ElementCombination(align=align)(logits, labels, **features).terms["align"]
    entropy = -(0.7 * math.log(0.7) + 0.3 * math.log(0.1))
    assert float(total / count) == pytest.approx(-0.6 * entropy if expected is None else expected, rel=1e-5)


def test_entropy_is_that_of_the_mean_prediction():
    sure = torch.eye(4).unsqueeze(0)
    assert entropy_of_mean(sure, torch.ones(1, 4)).item() == pytest.approx(math.log(4))
    assert entropy_of_mean(sure, torch.tensor([[1.0, 1, 0, 0]])).item() == pytest.approx(math.log(2))
    assert entropy_of_mean(sure, torch.zeros(1, 4)).item() == 0


def test_alignment_is_a_mean_over_the_batch_whatever_its_slots():
    values = example()
    total, count = ElementCombination()(**values).terms["align"]
    expected = alignment(values["visual_features"], values["structural_features"])
    assert float(total / count) == pytest.approx(float(expected), rel=1e-6)


def test_squared_logits_do_not_grow_with_the_batch():
    logits = torch.tensor([[[1.0, -2.0, 3.0, -torch.inf]]])
    assert squared_logits(logits).item() == pytest.approx(14 / 3)
    assert squared_logits(logits.expand(8, 5, 4)).mean().item() == pytest.approx(14 / 3)


def test_context_is_zero_where_nothing_costs():
    values = example()
    args = (values["logits"].softmax(-1), values["labels"], values["tree_parent"])
    assert context_losses(*args, torch.zeros(8, 7)).abs().sum() == 0


def test_context_before_anything_was_counted_prefers_nothing():
    logits = example()["logits"].requires_grad_()
    output = ElementCombination()(**{**example(), "logits": logits})
    (gradient,) = torch.autograd.grad(output.terms["context"][0], logits)
    assert gradient.abs().max() < 1e-6


def test_costs_are_scaled_negative_log_likelihoods():
    """Two classes: 2 and 0 children in a class never seen otherwise, so (3/4, 1/4) against (1/2, 1/2)."""
    costs = transition_costs(torch.tensor([[2, 0], [0, 0], [0, 0]]))
    assert costs.max() == 1
    assert costs[0].tolist() == pytest.approx([math.log(4 / 3) / math.log(4), 1])
    assert costs[1].tolist() == pytest.approx([0.5, 0.5])
    assert torch.equal(transition_costs(torch.zeros(4, 3)), torch.ones(4, 3))


def test_pairs_are_those_of_elements():
    labels = torch.tensor([[1, 2, 2, PAD, 3], [2, IGNORED, IGNORED, IGNORED, IGNORED]])
    parents = torch.tensor([[-1, 0, 0, 1, 2], [-1] * 5])
    counts = count_pairs(labels, parents, PAD, 4)
    assert {(a, b): int(counts[a, b]) for a, b in counts.nonzero().tolist()} == {
        (1, 2): 2,
        (2, 3): 1,
        (4, 1): 1,
        (4, 2): 1,
    }


def test_a_visible_parent_is_known():
    """Its prediction has no effect where it is not hidden, and has one where it is."""
    values = example()
    loss = with_pairs(ElementCombination(), values)
    values["masked"] = torch.tensor([False, True, True, True, True]).expand(6, 5)
    other = {**values, "logits": values["logits"].clone()}
    other["logits"][:, 0] += torch.tensor([5.0, 0, 0, 0, 0, 0, 0])
    assert loss(**values).terms["context"][0] == loss(**other).terms["context"][0]
    hidden = torch.ones(6, 5, dtype=torch.bool)
    values["masked"], other["masked"] = hidden, hidden
    assert loss(**values).terms["context"][0] != loss(**other).terms["context"][0]


def test_pairs_are_counted_once_a_step_and_kept():
    values = example()
    once = count_pairs(values["labels"], values["tree_parent"], PAD, 7)
    loss = ElementCombination()
    for window in range(2):
        for _ in range(3):
            loss(**values)  # not of the step, as a forward pass for a curvature
            loss(**values)
            loss.keep(window)
        loss.advance()
    assert torch.equal(loss.pairs, 6 * once)
    loss.eval()(**values)
    loss.keep(2)
    loss.advance()
    assert torch.equal(loss.pairs, 6 * once)
    fresh = ElementCombination()
    fresh.load_state_dict(copy.deepcopy(loss.state_dict()))
    assert torch.equal(fresh.pairs, 6 * once)
    assert torch.equal(fresh.eval()(**values).sum, loss(**values).sum)


class Trees(TinyTask):
    """The tiny task with its tokens as a chain: each hangs on the one before."""

    gives = TinyTask.gives | {"tree_parent"}

    def collate(self, samples: Any) -> Any:
        batch = super().collate(samples)
        rows, slots = batch["labels"].shape
        return {**batch, "tree_parent": torch.arange(-1, slots - 1).expand(rows, slots).contiguous()}


def test_a_run_counts_the_pairs_of_its_training_data(caplog):
    """Two epochs, also with accumulation; evaluation adds nothing."""
    task = Trees()
    batch = task.collate(list(task.read(None, 0).train.__getitems__(list(range(24)))))
    expected = 2 * count_pairs(batch["labels"], batch["tree_parent"], PAD, VOCABULARY)
    settings = {"loss.use": "element-combination", "loop.accumulate": 3, "loop.batch_size": 2}
    run = tiny_run(settings, task=task)
    with caplog.at_level(logging.WARNING):
        train(run)
    assert torch.equal(run.loss.pairs, expected)
    assert "micro-batch" in caplog.text


def test_gradients_equal_finite_differences():
    values = {
        name: value.double() if value.is_floating_point() else value for name, value in example(samples=2).items()
    }
    loss = with_pairs(ElementCombination(l2_weight=0.01, context_weight=0.5, temperature=1.0), values)
    names = ("logits", "pointer_logits", "visual_features", "structural_features")
    leaves = [values[name].clone().requires_grad_() for name in names]

    def mean(*given):
        output = loss(**{**values, **dict(zip(names, given, strict=True))})
        return output.sum / output.count

    assert torch.autograd.gradcheck(mean, leaves)


def test_terms_that_lack_their_inputs_are_named():
    values = example()
    output = ElementCombination()(values["logits"], values["labels"])
    assert list(output.inactive) == ["pointer", "align", "context"]
    assert set(output.terms) == {"base", "l2"}
    assert set(output.parts) == {"base", "l2", "nll"}
    assert list(ElementCombination(mode="flat", **SLOTWISE)(values["logits"], values["labels"]).inactive) == []


def test_flat_mode_has_no_pointers():
    output = ElementCombination(mode="flat", label_smoothing=0, pad_id=-1, **SLOTWISE, l2_weight=0)(**example())
    values = example()
    targets = values["labels"].masked_fill(~values["masked"], IGNORED)
    expected = functional.cross_entropy(values["logits"].flatten(0, 1), targets.flatten())
    assert set(output.terms) == {"base"}
    assert (output.sum / output.count).item() == pytest.approx(expected.item(), rel=1e-6)


def test_smoothing_is_over_valid_pointers_only_and_in_training_only():
    """Two of three nodes exist: the target is .9 + .1/3 on its node and .1/3 on each of the two others."""
    pointer_logits, sources = torch.tensor([[[[1.0, 2.0, 9.0, 0.5]]]]), torch.tensor([[[1]]])
    struct_mask = torch.tensor([[True, True, False]])
    target = torch.tensor([0.1 / 3, 0.9 + 0.1 / 3, 0.1 / 3])
    expected = -(target * torch.tensor([1.0, 2.0, 0.5]).log_softmax(0)).sum()
    found = pointer_losses(pointer_logits, sources, struct_mask, 0.1)
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)
    values = example()
    plain = ElementCombination(label_smoothing=0)(**values)
    assert torch.equal(ElementCombination().eval()(**values).sum, plain.sum)
    assert not torch.equal(ElementCombination()(**values).sum, plain.sum)


def test_published_value_of_smoothing():
    losses, likelihoods = class_losses(torch.tensor([[2, 1, 0.5, -1]]), torch.tensor([0]), 0.1)
    assert (losses.item(), likelihoods.item()) == (pytest.approx(0.632682, abs=1e-6), pytest.approx(0.495182, abs=1e-6))


def test_likelihood_is_plain_and_leaves_empty_slots_out():
    values = example()
    total, count = ElementCombination()(**values).parts["nll"]
    chosen = values["masked"] & (values["labels"] > PAD)
    expected = functional.cross_entropy(values["logits"][chosen], values["labels"][chosen], reduction="sum")
    assert float(total) == pytest.approx(float(expected), rel=1e-5)
    assert int(count) == int(chosen.sum())


@pytest.mark.parametrize("align", ["infonce", "cosine", "cosine_entropy"])
def test_nothing_hidden_is_an_exact_zero_with_a_graph(align):
    values = example()
    loss = with_pairs(ElementCombination(align=align), values)
    values["masked"] = torch.zeros_like(values["masked"])
    leaves = [values[name].requires_grad_() for name in ("logits", "pointer_logits", "visual_features")]
    output = loss(**values)
    assert (output.sum.item(), float(output.count)) == (0, 0)
    output.sum.backward()
    assert all(leaf.grad.abs().sum() == 0 for leaf in leaves)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_loss_under_autocast_is_that_of_fp32(dtype):
    """Also the products of features over a small temperature, and of predictions with costs."""
    values = example()
    half = {name: value.to(dtype) if value.is_floating_point() else value for name, value in values.items()}
    exact = {name: value.float() if value.is_floating_point() else value for name, value in half.items()}
    loss = with_pairs(ElementCombination(context_weight=1.0), values)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = loss(**half)
    for name, (total, _) in loss(**exact).terms.items():
        assert rough.terms[name][0].dtype == torch.float32
        assert rough.terms[name][0].item() == pytest.approx(total.item(), rel=1e-6), name
