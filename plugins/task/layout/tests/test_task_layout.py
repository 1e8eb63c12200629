"""The task on its embedded sample: data, batches, model, predictions, baselines."""

from __future__ import annotations

import json

import pytest
import torch
from torch.nn import functional as F
from trainkit.errors import UsageError
from trainkit.testing import TaskConformance
from trainkit_task_layout.task import LayoutTask, usual


class TestLayoutConformance(TaskConformance):
    component = "layout"


@pytest.fixture(scope="module")
def fitted():
    task = LayoutTask(width=32, heads=2, encoder_layers=1, decoder_layers=1, dropout=0.0, image_size=64)
    splits = task.read(None, seed=0)
    task.fit(splits.train)
    return task, splits


@pytest.fixture
def small(fitted):
    task, splits = fitted
    torch.manual_seed(0)
    return task, splits, task.build_model()


def test_embedded_sample_has_50_sections_whatever_the_seed(fitted):
    task, splits = fitted
    assert [(name, len(part)) for name, part in splits.items()] == [("train", 35), ("val", 5), ("test", 10)]
    assert task.read(None, seed=7).fingerprint == splits.fingerprint
    assert splits.warnings == ()


def test_difficulty_is_standardised_on_the_training_split(fitted):
    _, splits = fitted
    difficulties = torch.tensor(splits.train.difficulty)
    assert difficulties.mean().abs() < 1e-6
    assert len(splits.test.difficulty) == 10
    hardest = splits.train.samples[int(difficulties.argmax())]
    easiest = splits.train.samples[int(difficulties.argmin())]
    assert json.dumps(hardest["layout"]).count('"key"') > json.dumps(easiest["layout"]).count('"key"')


def test_batch_has_the_promised_shapes_and_names(small):
    task, splits, _ = small
    batch = task.collate(splits.train.__getitems__([0, 1, 2]))
    assert set(batch) | task.predicts | {"logits"} == task.gives
    assert batch["pixel_values"].shape == (3, 3, 64, 64)
    assert batch["pixel_values"].min() >= -1
    assert batch["pixel_values"].max() == 1
    nodes = batch["struct_mask"].shape
    assert all(batch[name].shape == nodes for name in ("struct_ids", "depth", "sibling"))
    assert batch["struct_classes"].shape[:2] == nodes
    ends = (batch["labels"] == 2).sum(dim=1)
    assert ends.tolist() == [1, 1, 1]


def test_padding_changes_neither_loss_nor_predictions(small):
    task, splits, model = small
    model.eval()
    shortest = min(range(35), key=lambda i: len(splits.train[i]["layout"]["children"]))
    longest = max(range(35), key=lambda i: len(str(splits.train[i]["structure"])))
    alone = task.collate(splits.train.__getitems__([shortest]))
    both = task.collate(splits.train.__getitems__([shortest, longest]))
    assert both["struct_mask"].shape[1] > alone["struct_mask"].shape[1]
    length = alone["labels"].shape[1]
    torch.testing.assert_close(model(**both)["logits"][:1, :length], model(**alone)["logits"], atol=1e-5, rtol=1e-4)
    written = [task.predict(model, batch, {})["predicted_elements"][0] for batch in (alone, both)]
    assert written[0] == written[1]


def test_decoding_with_the_cache_equals_decoding_without(small):
    task, splits, model = small
    model.eval()
    batch = task.collate(splits.val.__getitems__([0, 1, 2]))
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    memory = model.encode(**inputs)
    written = model.generate(memory, 24)
    allowed = model._allowed(memory)
    prefix = torch.zeros(3, 0, dtype=torch.long)
    for position in range(written.shape[1]):
        asked = torch.cat([prefix, torch.zeros(3, 1, dtype=torch.long)], dim=1)
        logits = model(labels=asked, **inputs)["logits"][:, -1:].masked_fill(~allowed, float("-inf"))
        still = ~(prefix == 2).any(dim=1)
        assert torch.equal(logits.argmax(-1)[still, 0], written[still, position])
        prefix = torch.cat([prefix, written[:, position : position + 1]], dim=1)


def test_logits_are_causal_in_the_labels(small):
    task, splits, model = small
    model.eval()
    batch = dict(task.collate(splits.val.__getitems__([0, 1])))
    before = model(**batch)["logits"]
    changed = batch["labels"].clone()
    changed[:, 5] = 3
    after = model(**{**batch, "labels": changed})["logits"]
    torch.testing.assert_close(before[:, :6], after[:, :6])
    assert not torch.allclose(before[:, 6:], after[:, 6:])


def test_model_learns_four_samples_by_heart_and_writes_them_freely(fitted):
    _, splits = fitted
    task = LayoutTask(width=64, heads=4, encoder_layers=1, decoder_layers=1, dropout=0.0, image_size=64)
    task.fit(splits.train)
    torch.manual_seed(0)
    model = task.build_model()
    batch = task.collate(splits.train.__getitems__([0, 1, 2, 3]))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(150):
        loss = F.cross_entropy(model(**batch)["logits"].flatten(0, 1), batch["labels"].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    predicted = task.predict(model, batch, {})
    real = batch["labels"] != -100
    assert (predicted["predictions"] == batch["labels"])[real].float().mean() > 0.99
    assert predicted["predicted_elements"] == predicted["target_elements"]


def test_every_parameter_gets_a_gradient(small):
    task, splits, model = small
    batch = task.collate(splits.train.__getitems__(list(range(8))))
    F.cross_entropy(model(**batch)["logits"].flatten(0, 1), batch["labels"].flatten()).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


def test_recomputed_layers_give_the_same_gradient(small):
    task, splits, model = small
    batch = task.collate(splits.train.__getitems__(list(range(4))))
    gradients = []
    for _ in range(2):
        model.zero_grad()
        F.cross_entropy(model(**batch)["logits"].flatten(0, 1), batch["labels"].flatten()).backward()
        gradients.append([p.grad.clone() for p in model.parameters()])
        model.gradient_checkpointing_enable()
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))


def test_baselines_answer_every_name_that_predict_gives(small):
    task, splits, _ = small
    batch = task.collate(splits.test.__getitems__([0, 1]))
    answers = {name: baseline(batch) for name, baseline in task.baselines().items()}
    assert set(answers) == {"all-pad", "majority"}
    for answer in answers.values():
        assert set(answer) == task.predicts
        assert answer["predictions"].shape == batch["labels"].shape
        assert len(answer["predicted_elements"]) == 2
    assert answers["all-pad"]["predictions"].abs().sum() == 0
    assert (answers["majority"]["predictions"] == batch["labels"]).any()
    assert "section" in answers["majority"]["predicted_elements"][0]["base"]


def test_usual_elements_are_those_that_more_than_half_have():
    assert usual([["a", "b", "b"], ["a", "b"], ["a", "c", "b", "b"]]) == ["a", "b", "b"]
    assert usual([["b"], ["a"], ["c", "b"], ["d"]]) == ["b"], "nothing is had by more than half: the most common one"
    assert usual([[], []]) == []


def test_state_survives_json(fitted):
    task, splits = fitted
    other = LayoutTask(width=32, heads=2, encoder_layers=1, decoder_layers=1, dropout=0.0, image_size=64)
    other.load_state_dict(json.loads(json.dumps(task.state_dict())))
    assert other.state_dict() == task.state_dict()
    samples = splits.test.__getitems__([0, 1])
    assert torch.equal(other.collate(samples)["labels"], task.collate(samples)["labels"])
    model = task.build_model()
    other.build_model().load_state_dict(model.state_dict())


@pytest.mark.parametrize("options", [{"image_size": 100, "patch": 16}, {"width": 36, "heads": 4}])
def test_sizes_that_do_not_divide_are_refused(options):
    with pytest.raises(UsageError, match="multiple"):
        LayoutTask(**options)
