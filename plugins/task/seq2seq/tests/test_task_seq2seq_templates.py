"""What is measured: in the first template, or in each, and what the figures of that are by hand."""

from __future__ import annotations

import math

import pytest
import torch
from trainkit.data import BatchMaker, evaluation_batches
from trainkit.errors import UsageError
from trainkit.folds.subset import Subset
from trainkit.nested import built
from trainkit.templates import rendered
from trainkit_task_seq2seq.task import Seq2SeqTask

TEMPLATES = ("Date: {text}", "{text}", "Write {text} in digits")
MICRO = {"size": "micro", "vocab_size": 300, "max_new_tokens": 4, "templates": TEMPLATES}
COUNT = 5


@pytest.fixture(scope="module")
def ready():
    task = Seq2SeqTask(**MICRO, asked_in="all")
    splits = task.read(None, 0)
    task.fit(splits.train)
    torch.manual_seed(0)
    return task, splits, task.build_model().eval()


def samples_of(dataset):
    return dataset.__getitems__([*range(len(dataset))])


def figures(task, model, dataset, batch_size):
    """Return what metrics make of a dataset, batch by batch."""
    maker = BatchMaker(dataset, task.collate)
    metrics = [built("metric", name) for name in task.defaults["metric"]]
    with torch.no_grad():
        for indices in evaluation_batches(dataset, batch_size):
            batch = maker(0, indices)
            values = {**batch, **task.forward(model, batch)}
            metrics[0].update(values["logits"], values["labels"])
            metrics[1].update(values["logits"], values["labels"], values["templates"])
    return [metric.compute() for metric in metrics]


def nats_by_hand(task, model, split, template):
    """Return likelihood and tokens of the first samples in a template, by transformers' own loss, one by one."""
    nats = tokens = 0
    for row in split.rows[:COUNT].tolist():
        asked = task.tokens.tokenizer(rendered(template, split.corpus.inputs[row]), return_tensors="pt")
        labels = task.tokens.tokenizer(split.corpus.targets[row], return_tensors="pt")["input_ids"]
        with torch.no_grad():
            loss = model(input_ids=asked["input_ids"], attention_mask=asked["attention_mask"], labels=labels).loss
        nats, tokens = nats + loss.item() * labels.numel(), tokens + labels.numel()
    return nats, tokens


def test_the_score_is_that_of_a_computation_by_hand(ready):
    task, splits, model = ready
    assert task.defaults["metric"] == ["perplexity", "template-robustness"]
    by_hand = {template: nats_by_hand(task, model, splits.val, template) for template in TEMPLATES}
    perplexities = {template: math.exp(nats / tokens) for template, (nats, tokens) in by_hand.items()}
    whole = math.exp(sum(nats for nats, _ in by_hand.values()) / sum(tokens for _, tokens in by_hand.values()))
    plain, found = figures(task, model, task.measured(splits.val, COUNT), batch_size=4)
    assert found["robustness"] == pytest.approx(min(perplexities.values()) / max(perplexities.values()), rel=1e-5)
    assert found["robustness"] < 1
    assert found["perplexity"] == pytest.approx(whole, rel=1e-5)
    assert plain["perplexity"] == pytest.approx(whole, rel=1e-5)
    for template, value in perplexities.items():
        assert found[f"perplexity/{template}"] == pytest.approx(value, rel=1e-5)


def test_every_sample_is_measured_once_in_each_template(ready):
    task, splits, _ = ready
    samples = samples_of(task.measured(splits.val, COUNT))
    first = splits.val.__getitems__([*range(COUNT)])
    assert len(samples) == COUNT * len(TEMPLATES)
    # Those of the first template come first, so that the first samples are those of any evaluation.
    assert [each["input"] for each in samples[:COUNT]] == [each["input"] for each in first]
    for place, sample in enumerate(samples):
        original, template = first[place % COUNT], TEMPLATES[place // COUNT]
        assert sample["template"] == template
        assert sample["input"] == rendered(template, original["input"].removeprefix("Date: "))
        assert (sample["id"], sample["target"]) == (original["id"], original["target"])
        # Its tokens were made once, with all others.
        assert sample["encoded"].input_ids.tolist() == task.tokens.tokenizer(sample["input"])["input_ids"]


def test_in_the_first_template_a_split_is_measured_as_it_is():
    task = Seq2SeqTask(**MICRO)
    splits = task.read(None, 0)
    task.fit(splits.train)
    assert task.defaults["metric"] == ["perplexity"]
    measured = task.measured(splits.val, COUNT)
    assert [each["input"] for each in samples_of(measured)] == [
        each["input"] for each in splits.val.__getitems__([*range(COUNT)])
    ]


def test_a_split_and_what_is_trained_stay_what_they_are(ready):
    _, splits, _ = ready
    other = Seq2SeqTask(**MICRO).read(None, 0)
    assert [len(split) for _, split in splits.items()] == [len(split) for _, split in other.items()]
    assert {sample["template"] for sample in splits.val.__getitems__([0, 1])} == {TEMPLATES[0]}
    draws = [[each["input"] for each in one.train.drawn([0, 1, 2], [4, 5, 6])] for one in (splits, other)]
    assert draws[0] == draws[1]


def test_samples_of_a_fold_are_asked_in_all(ready):
    task, splits, _ = ready
    fold = Subset.joined([splits.train, splits.val]).of([3, len(splits.train) + 1])
    samples = samples_of(task.measured(fold, 2))
    assert [sample["template"] for sample in samples] == [template for template in TEMPLATES for _ in range(2)]
    assert {sample["id"] for sample in samples} == {fold.ids[0], fold.ids[1]}
    assert task.measured(fold, 2).lengths.tolist() == [*fold.lengths[:2]] * len(TEMPLATES)


def test_other_data_is_asked_in_all(ready, jsonl):
    task, _, model = ready
    dataset = task.whole(jsonl([{"input": f"{day} May 2026", "target": f"2026-05-{day}"} for day in range(10, 14)]))
    _, found = figures(task, model, task.measured(dataset, len(dataset)), batch_size=3)
    assert 0 < found["robustness"] < 1
    assert len(found) == 2 + len(TEMPLATES)


def test_one_template_is_nothing_to_compare():
    with pytest.raises(UsageError, match=r"task\.asked_in = all, and there is one template"):
        Seq2SeqTask(asked_in="all")
