"""Few-shot conditioning: classes of pages, the support bank, the set encoder, and what a model makes of it."""

from __future__ import annotations

import inspect
import json

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from trainkit.errors import UsageError
from trainkit_task_layout.clusters import Classes, k_means, signature
from trainkit_task_layout.fewshot import FewShot
from trainkit_task_layout.order_diffusion import STRUCTURE_INPUTS
from trainkit_task_layout.support import Support, as_png, from_png, support_side
from trainkit_task_layout.task import LayoutTask

SMALL = {"width": 32, "heads": 2, "encoder_layers": 1, "decoder_layers": 2, "dropout": 0.0, "image_size": 64}


@pytest.fixture(scope="module")
def splits():
    return LayoutTask(**SMALL).read(None, seed=0)


def taken_of(model, batch):
    """Return what the model takes from a batch."""
    return {name: batch[name] for name in inspect.signature(model.forward).parameters if name in batch}


def made(splits, **options):
    task = LayoutTask(**{**SMALL, "support": 4, **options})
    task.fit(splits.train)
    torch.manual_seed(0)
    model = task.build_model()
    batch = task.collate(splits.train.__getitems__(list(range(8))))
    return task, model, batch, taken_of(model, batch)


def bank_of(count: int, side: int = 32, most: int = 3, **options) -> FewShot:
    torch.manual_seed(0)
    pictures = torch.randint(0, 256, (count, side, side, 3), dtype=torch.uint8)
    given = {"use": "cross-attention", "width": 32, "heads": 2, "patch": 16, "stem": "patch", "dropout": 0.0}
    return FewShot(pictures, most, **{**given, **options}).eval()


def test_k_means_finds_what_lies_apart_the_same_way_each_time():
    noise = np.random.default_rng(0)
    middles = np.array([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    points = np.concatenate([middle + noise.normal(0, 0.5, (20, 2)) for middle in middles])
    found = k_means(points, 3)
    expected = np.array([points[20 * i : 20 * i + 20].mean(axis=0) for i in range(3)])
    assert np.allclose(sorted(found.tolist()), sorted(expected.tolist()))
    assert np.array_equal(found, k_means(points, 3))


def test_k_means_makes_no_more_groups_than_there_are_points():
    assert k_means(np.ones((5, 2)), 4).tolist() == [[1.0, 1.0]]


def test_a_signature_knows_nothing_of_the_layout(splits):
    sample = splits.train[0]
    tags = ("div", "section")
    other = {**sample, "layout": splits.train[1]["layout"]}
    assert np.array_equal(signature(sample, tags), signature(other, tags))
    assert not np.array_equal(signature(sample, tags), signature(splits.train[1], tags))
    without = {**sample, "structure": None}
    assert not np.array_equal(signature(without, ()), signature(splits.train[1], ()))
    assert not signature(without, tags).any()


def test_classes_survive_json(splits):
    classes = Classes.learned(splits.train.samples, 3)
    again = Classes(**json.loads(json.dumps(classes.state_dict())))
    for sample in splits.test.samples:
        assert np.array_equal(classes.distances(sample), again.distances(sample))
    assert {int(classes.distances(sample).argmin()) for sample in splits.train.samples} == {0, 1, 2}


def test_the_bank_is_of_training_pages_and_nobody_supports_himself(splits):
    support = Support(4, 64)
    support.fit(splits.train.samples)
    ids = {supporter.id for supporter in support.bank}
    assert ids <= set(splits.train.ids)
    assert not ids & {*splits.val.ids, *splits.test.ids}
    members = [sample for sample in splits.train.samples if sample["id"] in ids]
    for sample in members:
        augmented = {**sample, "image": 255 - sample["image"]}
        renamed = {**sample, "id": "the same page under another name"}
        for one in (sample, augmented, renamed):
            (row,) = support.mask([one])
            assert sample["id"] not in {s.id for s, allowed in zip(support.bank, row, strict=True) if allowed}
            assert row.any()


def test_a_page_is_supported_by_its_class(splits):
    support = Support(4, 64)
    support.fit(splits.train.samples)
    assert len({supporter.group for supporter in support.bank}) > 1
    for sample in splits.test.samples:
        group = int(support.classes.distances(sample).argmin())
        (row,) = support.mask([sample])
        allowed = [s.group for s, one in zip(support.bank, row, strict=True) if one]
        assert set(allowed) == {group}


def test_pages_that_are_the_same_are_in_the_bank_once(splits):
    support = Support(2, 64)
    samples = splits.train.samples[:4]
    support.fit([*samples, {**samples[0], "id": "copy"}])
    assert len(support.bank) == 4


def test_pictures_survive_json_and_the_side_is_a_multiple_of_the_patch(splits):
    image = splits.train[0]["image"]
    assert np.array_equal(from_png(as_png(image, 64)), image)
    assert from_png(as_png(image, 32)).shape == (32, 32, 3)
    assert support_side(256, 16) == 128
    assert support_side(96, 32) == 96
    assert support_side(512, 48) == 96


def test_order_of_the_support_does_not_matter():
    few = bank_of(6)
    shares = torch.tensor([[1 / 3, 1 / 3, 0, 1 / 3, 0, 0], [0, 0.5, 0, 0, 0.5, 0]])
    before = few.context(shares)
    order = torch.tensor([4, 2, 0, 5, 1, 3])
    few.pictures = few.pictures[order]
    torch.testing.assert_close(few.context(shares[:, order]), before, atol=1e-6, rtol=0)
    assert (before[0] - before[1]).abs().max() > 1e-2


def test_the_context_is_the_mean_over_the_support_place_by_place():
    few = bank_of(3)
    alone = few.context(torch.eye(3))
    together = few.context(torch.full((1, 3), 1 / 3))
    torch.testing.assert_close(together[0], alone.mean(dim=0), atol=1e-5, rtol=0)


def test_draws_stay_within_what_is_allowed_and_vary_in_training_alone():
    few = bank_of(12, most=5)
    allowed = torch.zeros(3, 12, dtype=torch.bool)
    allowed[0, :9], allowed[1, 4:7] = True, True
    shares = few.draw(allowed)
    assert (shares > 0).sum(dim=1).tolist() == [5, 3, 0]
    assert torch.equal(shares, few.draw(allowed))
    few.train()
    sizes = set()
    for seed in range(40):
        torch.manual_seed(seed)
        drawn = few.draw(allowed)
        assert not (drawn > 0)[~allowed].any()
        torch.testing.assert_close(drawn.sum(dim=1), torch.tensor([1.0, 1.0, 0.0]))
        sizes.add(int((drawn[0] > 0).sum()))
    assert sizes == {2, 3, 4, 5}


def test_no_support_is_the_learned_null():
    few = bank_of(3)
    found = few.context(torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]]), torch.tensor([False, False, True]))
    null = few.null.expand(4, -1)
    assert torch.equal(found[0], null)
    assert torch.equal(found[2], null)
    assert not torch.equal(found[1], null)


def test_support_of_none_is_the_model_without(splits):
    _, plain, _, taken = made(splits, support=0)
    _, model, _, _ = made(splits)
    assert plain.few_shot is None
    assert set(model.state_dict()) - set(plain.state_dict()) == {
        f"few_shot.{name}" for name in model.few_shot.state_dict()
    }
    for name, value in plain.state_dict().items():
        assert torch.equal(value, model.state_dict()[name]), "what both have begins the same"
    assert "support_mask" not in taken


@pytest.mark.parametrize("use", ["cross-attention", "film"])
def test_the_decoder_looks_at_the_support(splits, use):
    _, model, _, taken = made(splits, support_use=use)
    model.eval()
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    before = model(**taken)
    model.few_shot.pictures = 255 - model.few_shot.pictures
    after = model(**taken)
    assert (after["logits"] - before["logits"]).abs().max() > 1e-3
    for name in ("props_logits", "visual_features", "structural_features"):
        assert torch.equal(after[name], before[name]), "what is said of the page itself is of the page alone"


def test_film_begins_without_effect(splits):
    _, plain, _, taken = made(splits, support=0)
    _, model, _, supported = made(splits, support_use="film")
    before, after = plain.eval()(**taken)["logits"], model.eval()(**supported)["logits"]
    torch.testing.assert_close(after, before, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("use", ["cross-attention", "film"])
def test_every_part_of_the_set_encoder_learns(splits, use):
    _, model, batch, taken = made(splits, support_use=use, condition_dropout=0.5)
    for parameter in model.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    F.cross_entropy(model(**taken)["logits"].flatten(0, 1), batch["labels"].flatten()).backward()
    assert [name for name, p in model.few_shot.named_parameters() if p.grad is None] == []


def test_the_null_condition_hides_the_support(splits):
    _, model, batch, taken = made(splits)
    model.eval()
    structure = [batch.get(name) for name in STRUCTURE_INPUTS]
    null = model.read(8, taken["pixel_values"], structure, taken["support_mask"], is_null=True)
    cells = model.few_shot.cells
    assert torch.equal(null.placed[:, -cells:], model.few_shot.null.expand(8, cells, -1))
    known = model.read(8, taken["pixel_values"], structure, taken["support_mask"])
    assert known.placed.shape == null.placed.shape
    assert known.mask.shape[-1] == known.placed.shape[1]
    assert known.patches.shape[1] + known.nodes.shape[1] == known.states.shape[1] == known.placed.shape[1] - cells


@pytest.mark.parametrize("use", ["cross-attention", "film"])
def test_company_does_not_matter(splits, use):
    task, model, _, _ = made(splits, support_use=use)
    model.eval()
    both = task.collate(splits.train.__getitems__([3, 17]))
    alone = task.collate(splits.train.__getitems__([3]))
    found = [model(**taken_of(model, one))["logits"] for one in (both, alone)]
    slots = found[1].shape[1]
    torch.testing.assert_close(found[0][:1, :slots], found[1], atol=1e-4, rtol=1e-4)


def test_a_task_keeps_its_promises_and_its_state(splits):
    task, model, batch, taken = made(splits, steps=1)
    assert set(batch) <= task.gives
    state = json.loads(json.dumps(task.state_dict()))
    again = LayoutTask(**SMALL, support=4, steps=1)
    again.load_state_dict(state)
    assert again.state_dict() == task.state_dict()
    other = again.build_model().eval()
    other.load_state_dict(model.state_dict())
    assert torch.equal(other.few_shot.pictures, model.few_shot.pictures)
    assert torch.equal(other(**taken)["logits"], model.eval()(**taken)["logits"])
    samples = splits.test.samples[:2]
    unseen = again.collate(samples)
    assert torch.equal(unseen["support_mask"], task.collate(samples)["support_mask"])
    assert len(again.predict(other, unseen, {})["predicted_layouts"]) == 2


def test_pages_without_screenshots_cannot_be_supported(splits):
    task = LayoutTask(**SMALL, support=2)

    class Blind:
        def __len__(self):
            return 4

        def __getitems__(self, indices):
            return [{**splits.train[i], "image": None, "hashes": {}} for i in indices]

    with pytest.raises(UsageError, match="screenshots"):
        task.fit(Blind())


def test_support_belongs_to_diffusion():
    with pytest.raises(UsageError, match="support"):
        LayoutTask(order="left-to-right", support=2)
