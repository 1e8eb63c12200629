"""Text overlap against brute force, against counts by hand, and at the size of a real training set."""

from __future__ import annotations

import math
import time
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trainkit import UsageError
from trainkit.errors import DataError
from trainkit.testing import MetricConformance
from trainkit_metric_text_overlap.corpus import Corpus, covered, suffix_array, words_of
from trainkit_metric_text_overlap.text_overlap import TextOverlap, grams_of


class TestTextOverlapConformance(MetricConformance):
    component = "text-overlap"
    cases = (
        (
            {"texts": ["a b a b", "c"]},
            {"longest": math.nan, "copy-rate": math.nan, "distinct-1": 3 / 5, "distinct-2": 2 / 3},
        ),
    )


class Texts:
    def __init__(self, texts, as_batch=False):
        self.texts, self.as_batch, self.reads = texts, as_batch, 0

    def __len__(self):
        return len(self.texts)

    def __getitems__(self, indices):
        self.reads += 1
        chosen = [self.texts[i] for i in indices]
        return {"target": chosen} if self.as_batch else [{"target": text} for text in chosen]


def run_on(train, keys=("input", "target")):
    return SimpleNamespace(task=SimpleNamespace(sample_keys=frozenset(keys)), splits=SimpleNamespace(train=train))


def measured(train, texts, **options):
    metric = TextOverlap(**options)
    metric.check_run(run_on(Texts(train)))
    metric.update(texts)
    return metric.compute()


def brute(train, text):
    """For each word of a text: the longest stretch from there on that stands in a training text, by looking."""
    known = [words_of(one) for one in train]
    words = words_of(text)

    def stands(part):
        return any(part == one[i : i + len(part)] for one in known for i in range(len(one)))

    return [
        max((n for n in range(len(words) - i + 1) if n and stands(words[i : i + n])), default=0)
        for i in range(len(words))
    ]


texts = st.lists(st.sampled_from("abcd"), max_size=12).map(" ".join)


@given(st.lists(texts, max_size=5), st.lists(texts, max_size=4))
@settings(deadline=None)
def test_matches_are_those_of_brute_force(train, asked):
    found = Corpus(train).matches([words_of(text) for text in asked])
    assert [list(part) for part in found] == [brute(train, text) for text in asked]


@given(st.lists(st.integers(0, 3), min_size=1, max_size=40))
def test_suffixes_are_in_order(symbols):
    order = suffix_array(np.asarray(symbols))
    assert list(order) == sorted(range(len(symbols)), key=lambda start: symbols[start:])


@given(st.lists(texts, min_size=1, max_size=4), texts, st.integers(1, 5))
@settings(deadline=None)
def test_covered_words_are_those_of_brute_force(train, text, least):
    matches = brute(train, text)
    inside = {j for i, length in enumerate(matches) if length >= least for j in range(i, i + length)}
    assert covered(np.asarray(matches, dtype=np.int64), least) == len(inside)


def test_figures_by_hand():
    train = ["Mix the flour, and bake it.", "Boil the eggs"]
    found = measured(train, ["mix THE flour and serve", "boil it", "unheard of"], least=3)
    assert found["longest"] == pytest.approx((4 + 1 + 0) / 3)
    assert found["longest-max"] == 4
    assert found["copy-rate"] == pytest.approx(4 / 9)
    assert found["distinct-1"] == 1.0


def test_a_copy_is_a_copy_and_nothing_reaches_into_the_next_text():
    train = ["one two three", "four five six"]
    assert measured(train, train, least=3)["copy-rate"] == 1.0
    assert measured(train, ["two three four five"])["longest"] == 2
    assert measured(train, ["three four"], least=2)["copy-rate"] == 0.0


def test_the_same_text_again_and_again_is_not_distinct():
    found = measured(["x"], ["a b c d"] * 10)
    assert [found[f"distinct-{n}"] for n in (1, 2, 3)] == [0.1, 0.1, 0.1]
    assert measured(["x"], ["a a a a"])["distinct-2"] == pytest.approx(1 / 3)


def test_empty_texts_share_nothing_and_have_no_rate():
    found = measured(["a"], ["", "..."])
    assert found["longest"] == 0
    assert math.isnan(found["copy-rate"])
    assert math.isnan(found["distinct-1"])


def test_training_texts_are_read_once_and_only_when_a_text_comes():
    train = Texts(["a b c"])
    metric = TextOverlap()
    metric.check_run(run_on(train))
    assert train.reads == 0
    for _ in range(2):
        metric.reset()
        metric.update(["a b"])
        assert metric.compute()["longest"] == 2
    assert train.reads == 1


def test_another_run_has_other_training_texts():
    metric = TextOverlap()
    for train, longest in ((["a b"], 2), (["b a"], 1)):
        metric.check_run(run_on(Texts(train, as_batch=True)))
        metric.reset()
        metric.update(["a b"])
        assert metric.compute()["longest"] == longest


def test_of_too_many_training_texts_some_are_looked_at(caplog):
    metric = TextOverlap(most=2)
    metric.check_run(run_on(Texts(["a", "b", "c", "d"])))
    metric.update(["a", "b", "c", "d"])
    assert metric.compute()["longest"] == 0.5
    assert "of 4 training texts 2 are looked at" in caplog.text


def test_training_texts_that_are_gone_leave_the_rest_of_the_figures(caplog):
    class Gone(Texts):
        def __getitems__(self, indices):
            raise DataError("the data is gone")

    metric = TextOverlap()
    metric.check_run(run_on(Gone(["a b"])))
    for _ in range(2):
        metric.update(["a b"])
    found = metric.compute()
    assert math.isnan(found["longest"])
    assert math.isnan(found["copy-rate"])
    assert found["distinct-1"] == 0.5
    assert caplog.text.count("cannot be read") == 1


def test_parts_of_ranks_merge():
    parts = [TextOverlap(least=2) for _ in range(2)]
    for metric, text in zip(parts, ("a b c", "c d"), strict=True):
        metric.check_run(run_on(Texts(["a b c", "d"])))
        metric.update([text])
    parts[0].merge(parts[1].sums)
    found = parts[0].compute()
    assert (found["longest"], found["longest-max"], found["copy-rate"]) == (2, 3, 0.6)
    assert found["distinct-1"] == 0.8


def test_samples_without_the_text_are_refused():
    with pytest.raises(UsageError, match="reads 'target'"):
        TextOverlap().check_run(run_on(Texts([]), keys=("image",)))


def test_hashes_of_n_grams_are_the_same_in_any_process():
    assert grams_of(["a", "b"], 2).tolist() == [2952434739088078779]
    assert grams_of(["a"], 2).tolist() == []


def test_ten_thousand_texts_take_seconds():
    rng = np.random.default_rng(0)
    vocabulary = np.asarray([f"w{i}" for i in range(5000)])
    weights = 1 / np.arange(1, 5001)
    train = [" ".join(rng.choice(vocabulary, 100, p=weights / weights.sum())) for _ in range(10_000)]
    started = time.process_time()
    found = measured(train, [*train[:200], *(text[: len(text) // 2] for text in train[:200])])
    assert found["longest-max"] == 100
    assert time.process_time() - started < 20
