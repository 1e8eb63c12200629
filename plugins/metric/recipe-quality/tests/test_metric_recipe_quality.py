"""Recipe quality against figures by hand: quantities, verbs, headers, single lines, and real recipes."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trainkit.testing import MetricConformance
from trainkit_metric_recipe_quality.quantities import has_quantity
from trainkit_metric_recipe_quality.recipe_quality import PARTS, RecipeQuality, scores_of
from trainkit_metric_recipe_quality.sections import sections_of
from trainkit_metric_recipe_quality.verbs import VERBS, has_action, inflected

DOUGH = (
    "Ingredients:\n- 2 cups flour\n- 1 tsp salt\n\n"
    "Instructions:\n1. Mix flour and salt\n2. Add water gradually\n3. Knead for 10 minutes"
)
SHORT = "Ingredients:\nflour\n"


class TestRecipeQualityConformance(MetricConformance):
    component = "recipe-quality"
    cases = (
        ({"texts": [DOUGH]}, {"overall_quality": 1.0, **dict.fromkeys(PARTS, 1.0)}),
        (
            {"texts": [DOUGH, SHORT, ""]},
            {
                "ingredient_coherence": 1 / 3,
                "instruction_quality": 1 / 3,
                "completeness": (1 + 0.33) / 3,
                "format_correctness": (1 + 0.5) / 3,
                "overall_quality": (1 + (0 + 0 + 0.33 + 0.5) / 4) / 3,
            },
        ),
    )


def test_the_check_of_the_reference_is_all_ones():
    assert len(DOUGH) == 124
    assert set(scores_of(DOUGH).values()) == {1.0}


def test_one_text_is_scored_and_counted():
    assert RecipeQuality().scores(DOUGH) == scores_of(DOUGH)
    assert RecipeQuality().counts(DOUGH) == (2, 3)


def test_without_the_verb_of_a_step_quality_falls_to_two_thirds():
    assert scores_of(DOUGH.replace("Knead", "Wait"))["instruction_quality"] == pytest.approx(2 / 3)


def test_nothing_on_a_side_scores_nothing():
    assert scores_of("") == dict.fromkeys(("overall_quality", *PARTS), 0.0)
    assert scores_of("Ingredients:\n\nSteps:\n")["format_correctness"] == 1.0
    assert scores_of("Ingredients:\n\nSteps:\n")["completeness"] == 0.0
    assert scores_of("Ingredients:\nflour")["ingredient_coherence"] == 0.0


@pytest.mark.parametrize(("length", "score"), [(99, 0.66), (100, 1.0), (2000, 1.0), (2001, 0.66)])
def test_length_counts_from_100_to_2000_characters(length, score):
    text = "Ingredients:\n1 egg\nSteps:\nBoil "
    assert scores_of(text + "x" * (length - len(text)))["completeness"] == score


QUANTITIES = [
    *("2 cups flour", "1 tsp salt", "3 eggs", "1.5 kg beef", "0,5 l milk", ".5 oz gin", "1/2 cup cream"),
    *("1 1/2 cups rice", "1-1/2 cups rice", "½ cup oats", "1½ cups oats", "1 ½ cups oats", "⅓ cup oil"),
    *("2-3 cloves garlic", "2 – 3 carrots", "2 to 3 carrots", "1/2-3/4 cup milk", "200g sugar", "200 g sugar"),
    *("4 Tablespoons butter", "1 oz. rum", "1 (28 ounce) can tomatoes", "~150g (1/3 lb) bacon"),
    *("400g (15 oz) macaroni", "2 (8 ounce) packages cheese", "2-inch piece of ginger", "1 9-inch pie crust"),
    *("1 pinch salt", "12 slices äpfel", "1⁄2 cup oil"),
]
NO_QUANTITIES = [
    *("flour", "salt to taste", "a pinch of salt", "2 cups", "1/2", "2-3", "100%", "12cups", ""),
    *("salt 1 tsp", "1 kg", "- 2 cups flour"),
]


@pytest.mark.parametrize("item", QUANTITIES)
def test_a_quantity_is_a_number_perhaps_a_unit_and_a_word(item):
    assert has_quantity(item)


@pytest.mark.parametrize("item", NO_QUANTITIES)
def test_without_number_or_word_there_is_no_quantity(item):
    assert not has_quantity(item)


UNIT_WORDS = ("cup", "tbsp", "tsp", "tablespoon", "teaspoon", "ounce", "lb", "pound", "clove", "can", "slice")


@pytest.mark.parametrize(
    "unit", [*UNIT_WORDS, *(f"{word}s" for word in UNIT_WORDS), "oz", "kg", "g", "ml", "l", "pinches"]
)
def test_a_unit_alone_is_no_ingredient(unit):
    assert has_quantity(f"2 {unit} salt")
    assert has_quantity(f"2 {unit.upper()} salt")
    assert has_quantity(f"2{unit} salt")
    assert not has_quantity(f"2 {unit}")


@pytest.mark.parametrize("bullet", ["- ", "* ", "• ", "+ ", "1. ", "12) ", "- [ ] ", "-", "– ", "  - "])
def test_bullets_and_list_numbers_are_no_part_of_an_item(bullet):
    assert sections_of(f"Ingredients\n{bullet}flour\n{bullet}2 eggs").ingredients == ("flour", "2 eggs")


def test_a_list_number_is_no_quantity():
    assert scores_of("Ingredients\n1. flour\n2. 3 eggs")["ingredient_coherence"] == 0.5
    assert sections_of("Ingredients\n1.5 cups milk\n2 eggs").ingredients == ("1.5 cups milk", "2 eggs")


@pytest.mark.parametrize(
    "header",
    [
        "Ingredients",
        "ingredients:",
        "INGREDIENTS",
        "# Ingredients",
        "## Ingredients ##",
        "**Ingredients:**",
        " __Ingredients__",
    ],
)
def test_headers_are_whole_lines_with_or_without_decoration(header):
    assert sections_of(f"{header}\n1 egg").headers == {"ingredients"}


@pytest.mark.parametrize("header", ["Instructions", "Directions:", "## steps"])
def test_steps_have_three_headers(header):
    assert sections_of(f"{header}\nBoil.").steps == ("Boil.",)


@pytest.mark.parametrize(
    "line",
    ["Mix all ingredients", "Ingredients you need", "Special ingredients:", "Ingredients: 2 eggs", "step", "Step 1:"],
)
def test_a_line_that_mentions_a_header_is_none(line):
    found = sections_of(f"Title\n{line}\n1 egg")
    assert not found.headers
    assert found == sections_of("")


def test_a_step_that_mentions_ingredients_stays_a_step():
    found = sections_of("Ingredients\n2 eggs\nSteps\n1. Mix ingredients\n2. Ingredients and steps are done")
    assert found.steps == ("Mix ingredients", "Ingredients and steps are done")


def test_other_headings_are_no_lines():
    text = "# Pie\nNice.\n## Ingredients\n### Crust\n2 cups oat\nFor the filling:\n3 figs\n## Steps\nBake.\n# Notes\nA"
    assert sections_of(text) == sections_of("Ingredients\n2 cups oat\n3 figs\nSteps\nBake.")


def test_a_colon_does_not_hide_a_line():
    found = sections_of("Ingredients\n2 eggs:\nSteps\nMix the following:\nThen:\nBake")
    assert found.ingredients == ("2 eggs:",)
    assert found.steps == ("Mix the following:", "Bake")


SINGLE_LINES = [
    (
        "Ingredients: - 2 cups flour - 1 tsp salt "
        "Instructions: 1. Mix flour and salt 2. Add water gradually 3. Knead for 10 minutes"
    ),
    "Ingredients 2 cups flour Instructions 1. Mix flour 2. Add water 3. Knead",
    "ingredients: 2 cups flour steps: 1) Mix all ingredients 2) Add 3. water 3) Knead",
    "**Ingredients:** * 2 cups flour **Directions:** Mix Ingredients.",
]


@pytest.mark.parametrize("text", SINGLE_LINES)
def test_a_single_line_is_split_at_header_words(text):
    found = sections_of(text)
    assert found.headers == {"ingredients", "steps"}
    assert scores_of(text)["instruction_quality"] == 1.0
    assert scores_of(text)["ingredient_coherence"] == 1.0


def test_a_single_line_is_split_at_numbers_in_order_and_bullets():
    found = sections_of(SINGLE_LINES[0])
    assert found == sections_of(DOUGH)
    found = sections_of("Ingredients: 2 - 3 eggs - flour Steps: 1. Bake at 35. Then wait for 10. minutes. 2. Cool.")
    assert found.ingredients == ("2 - 3 eggs", "flour")
    assert found.steps == ("Bake at 35. Then wait for 10. minutes.", "Cool.")


@pytest.mark.parametrize("text", ["Mix the Ingredients in a bowl.", "These are steps to take", "1. Mix 2. Bake"])
def test_a_single_line_without_headers_has_no_sections(text):
    assert sections_of(text) == sections_of("")


@pytest.mark.parametrize(
    ("verb", "forms"),
    [
        ("mix", {"mix", "mixes", "mixed", "mixing"}),
        ("stir", {"stir", "stirs", "stirred", "stirring"}),
        ("bake", {"bake", "bakes", "baked", "baking"}),
        ("fry", {"fry", "fries", "fried", "frying"}),
        ("season", {"season", "seasons", "seasoned", "seasoning"}),
        ("heat", {"heat", "heats", "heated", "heating"}),
        ("whisk", {"whisk", "whisks", "whisked", "whisking"}),
        ("saute", {"saute", "sautes", "sauteed", "sauteing"}),
        ("add", {"add", "adds", "added", "adding"}),
        ("drain", {"drain", "drains", "drained", "draining"}),
    ],
)
def test_verbs_are_inflected_as_usual(verb, forms):
    assert set(inflected(verb)) == forms


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_is_found_in_every_case_and_form(verb):
    assert all(has_action(f"Then {form.upper()}.") for form in inflected(verb))
    assert not has_action(f"x{verb} {verb}y")


@pytest.mark.parametrize("step", ["Sauté the onions", "SAUTÉED onions", "sautéing", "Pre-heat: heat", "Stir-fry"])
def test_accents_and_hyphens_do_not_hide_a_verb(step):
    assert has_action(step)


@pytest.mark.parametrize("step", ["Wait for an hour", "A mixture", "Saltfish", "Refry", "addition", ""])
def test_a_word_within_a_word_is_no_verb(step):
    assert not has_action(step)


@given(st.text(max_size=300))
def test_scores_stay_in_bounds_whatever_the_text(text):
    found = scores_of(text)
    assert all(0 <= value <= 1 for value in found.values())
    assert found["overall_quality"] == pytest.approx(sum(found[part] for part in PARTS) / 4)


@given(st.lists(st.sampled_from([DOUGH, SHORT, *SINGLE_LINES]), min_size=1, max_size=5))
def test_the_figures_are_means_over_texts(texts):
    metric = RecipeQuality()
    metric.update(texts)
    wanted = [scores_of(text) for text in texts]
    for name, value in metric.compute().items():
        assert value == pytest.approx(math.fsum(scores[name] for scores in wanted) / len(wanted))


def test_a_validation_is_logged_under_the_names_of_the_reference():
    rows: list[dict[str, float]] = []
    run = SimpleNamespace(
        metrics_file=None,
        moment=SimpleNamespace(step=5, epoch=1, evaluated_step=-1),
        events=SimpleNamespace(on_log=[lambda run, row: rows.append(row)]),
    )
    metric = RecipeQuality()
    metric.update([DOUGH])
    metric.after_evaluation(run, "train", {"train/loss": 1.0})
    metric.after_evaluation(run, "val", {})
    assert not rows
    metric.after_evaluation(run, "val", {"val/loss": 1.0})
    assert rows == [{f"recipe/{name}": 1.0 for name in ("overall_quality", *PARTS)}]
    run.moment.evaluated_step = 5
    metric.after_evaluation(run, "val", {"val/loss": 1.0})
    assert len(rows) == 1
