"""Prompts in other words: what may change, what never does, on real recipes of the public domain."""

from __future__ import annotations

import re
from collections import Counter
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trainkit import UsageError
from trainkit.nested import built
from trainkit.registry import Registry
from trainkit.templates import stripped
from trainkit.testing import AugmenterConformance
from trainkit_augmenter_recipe_text.recipe_text import RecipeText
from trainkit_augmenter_recipe_text.wording import (
    MARK,
    TEMPLATES,
    TIPS,
    VERBS,
    in_template,
    like,
    paraphrased,
    with_tip,
)

NUMBER = re.compile(r"[\d\u00bc-\u00be\u2150-\u215e]+")
UNIT = re.compile(r"\b(?:cups?|tb?sp|tablespoons?|teaspoons?|oz|ounces?|lbs?|k?g|m?l|cloves?|cans?)\b", re.IGNORECASE)
WORD = re.compile(r"\w+")
REPLACING = {word for words in VERBS.values() for choice in words for word in choice.split()}
seeds = st.integers(0, 2**32 - 1)


class TestRecipeTextConformance(AugmenterConformance):
    component = "recipe-text"
    task = "recipes"
    options = {"probability": 1.0}


def always(count):
    return count - 1


@cache
def recipes():
    """Return the samples of the embedded sample of the task 'recipes': real recipes of the public domain."""
    train = Registry().load("task", "recipes").build({}).read(None, 0).train
    return tuple(train.__getitems__(list(range(len(train)))))


@cache
def scores(text):
    return built("metric", "recipe-quality").scores(text)


def augmented(sample, seed, **options):
    return RecipeText(**{"probability": 1.0, **options})(sample, np.random.default_rng(seed))


@given(st.data(), seeds)
@settings(deadline=None)
def test_only_the_input_changes_and_it_still_asks_for_the_same(data, seed):
    sample = data.draw(st.sampled_from(recipes()))
    changed = augmented(sample, seed)
    assert {name: value for name, value in changed.items() if name != "input"} == {
        name: value for name, value in sample.items() if name != "input"
    }
    asked = stripped(changed["input"].partition(f" {MARK}")[0], TEMPLATES).rstrip(".")
    assert asked == stripped(sample["input"], TEMPLATES).rstrip(".") or set(WORD.findall(asked.lower())) & REPLACING
    assert sum(changed["input"].startswith(template.partition("{")[0]) for template in TEMPLATES[:-1]) <= 1


@given(st.data(), seeds)
@settings(deadline=None)
def test_a_changed_target_keeps_numbers_units_ingredients_sections_and_quality(data, seed):
    sample = data.draw(st.sampled_from(recipes()))
    changed = augmented(sample, seed, target=True, tip=0.2)
    before, after = sample["target"], changed["target"]
    for pattern in (NUMBER, UNIT):
        assert Counter(pattern.findall(after)) == Counter(pattern.findall(before))
    assert after.partition("Instructions:")[0] == before.partition("Instructions:")[0]
    has_tip = MARK in after and MARK not in before
    assert len(after.splitlines()) == len(before.rstrip().splitlines()) + has_tip
    assert all(scores(after)[figure] >= value for figure, value in scores(before).items())


@given(st.data(), seeds)
@settings(deadline=None)
def test_verbs_alone_are_replaced_one_a_sentence_at_most(data, seed):
    text = data.draw(st.sampled_from(recipes()))["target"]
    generator = np.random.default_rng(seed)
    changed = paraphrased(text, lambda count: int(generator.integers(count)))
    for old, new in zip(re.split(r"(?<=[.!?;])\s|\n", text), re.split(r"(?<=[.!?;])\s|\n", changed), strict=True):
        gone = Counter(WORD.findall(old.lower())) - Counter(WORD.findall(new.lower()))
        come = Counter(WORD.findall(new.lower())) - Counter(WORD.findall(old.lower()))
        assert gone.total() <= 1
        assert set(gone) <= set(VERBS)
        assert set(come) <= REPLACING
        assert re.sub(r"\w", "", old).replace(" ", "") == re.sub(r"\w", "", new).replace(" ", "")


def test_real_recipes_do_change():
    samples = recipes()
    changed = [paraphrased(sample["target"], always) != sample["target"] for sample in samples]
    assert sum(changed) > len(samples) / 4
    kept = [augmented(sample, seed, target=True, tip=0.0) for seed, sample in enumerate(samples)]
    assert any(new["target"] != old["target"] for new, old in zip(kept, samples, strict=True))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Mix the flour.", "Stir together the flour."),
        ("MIX the flour", "STIR TOGETHER the flour"),
        ("- Add 2 eggs; mix well. Heat it!", "- Include 2 eggs; stir together well. Warm it!"),
        ("Peel and chop the onions, then cook them.", "Peel and mince the onions, then cook them."),
        ("Wait, then add ½ cup milk", "Wait, then include ½ cup milk"),
        ("1. Cook rice\n2. Cook beans", "1. Make rice\n2. Make beans"),
    ],
)
def test_orders_are_reworded(text, expected):
    assert paraphrased(text, always) == expected


@pytest.mark.parametrize(
    "text",
    [
        "1 package cake mix", "over medium heat until done", "Fry the pork chop", "Chop Suey", "Cook time is long",
        "Heat is bad", "Mixing bowl", "Remix the song", "add-ins", "Add-ins for all", "Mix", "Mix in the eggs",
        "Reduce heat and wait", "a mix and match meal", "Heat source and heat level",
        "Ingredients:\nadd 2 eggs\nSteps:\nWait",
    ],
)  # fmt: skip
def test_things_stay(text):
    assert paraphrased(text, always) == text


def test_templates_never_nest_and_no_words_are_lost():
    for outer in TEMPLATES:
        for inner in TEMPLATES:
            text = inner.replace("{text}", "Apple pie")
            assert in_template(text, outer) == outer.replace("{text}", "Apple pie")
    assert stripped("recipe for: RECIPE FOR: x", TEMPLATES) == "x"
    assert stripped("Recipe for:", TEMPLATES) == "Recipe for:"
    assert stripped("Recipe for: ", TEMPLATES) == "Recipe for: "


def test_a_tip_is_one_and_at_the_end():
    assert with_tip("Apple pie", TIPS[0]) == f"Apple pie. {TIPS[0]}"
    assert with_tip("Bake it! ", TIPS[0]) == f"Bake it! {TIPS[0]}"
    assert with_tip("a\nb\n", TIPS[1]) == f"a\nb\n{TIPS[1]}"
    assert with_tip(with_tip("a", TIPS[0]), TIPS[1]) == with_tip("a", TIPS[0])
    steps = "Ingredients:\n1 egg\nSteps:\nBoil"
    assert all(scores(f"{steps}\n{tip}")["instruction_quality"] == 1.0 for tip in TIPS)
    assert not any(NUMBER.search(tip) or UNIT.search(tip) for tip in TIPS)


def test_case_is_kept():
    assert [like("warm", word) for word in ("heat", "Heat", "HEAT", "A")] == ["warm", "Warm", "WARM", "Warm"]


def test_a_third_is_changed_and_the_ways_have_their_shares():
    sample = {"input": "Chop the onions", "target": "x"}
    draws = 4000
    augment = RecipeText(templates=("Say: {text}",))
    counts = Counter(augment(sample, np.random.default_rng(seed))["input"] for seed in range(draws))
    assert counts["Say: Chop the onions"] == pytest.approx(draws * 0.3 * 0.9 / 3, rel=0.15)
    verbs = sum(count for text, count in counts.items() if text.split()[0] in ("Dice", "Cut", "Mince"))
    assert verbs == pytest.approx(draws * 0.3 * 0.9 / 3 / 2, rel=0.2)
    assert sum(count for text, count in counts.items() if MARK in text) == pytest.approx(draws * 0.03, rel=0.3)


def test_a_sample_that_is_not_changed_is_the_sample():
    sample = {"input": "x", "target": "y"}
    assert RecipeText(probability=0.0)(sample, np.random.default_rng(0)) is sample
    assert augmented({"input": "Mix all", "target": None}, 3, target=True)["target"] is None


def test_it_reads_the_target_only_if_it_changes_it():
    assert RecipeText().reads == {"input"}
    assert RecipeText(target=True).reads == {"input", "target"}


@pytest.mark.parametrize("templates", [("Recipe",), ("{text} and {text}",)])
def test_a_template_without_the_text_is_refused(templates):
    with pytest.raises(UsageError, match="once"):
        RecipeText(templates=templates)


def test_a_judge_that_does_not_score_a_text_is_refused():
    with pytest.raises(UsageError, match="does not score"):
        RecipeText(target=True, judge="token-accuracy")
