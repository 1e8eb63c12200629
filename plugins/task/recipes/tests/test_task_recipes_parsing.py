"""From records to recipes: every field, heading and fault that real data has, each used or counted with a reason."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trainkit.errors import DataError
from trainkit.nested import built
from trainkit_task_recipes.cleaning import has_markup, tidy, without_markup
from trainkit_task_recipes.markdown import plain, recipe_of
from trainkit_task_recipes.recipe import Recipe, difficulty_of
from trainkit_task_recipes.schema import RecipeSchema, kind_of
from trainkit_task_recipes.task import BASE, RecipesTask
from trainkit_task_seq2seq.markdown import record_of
from trainkit_task_seq2seq.pairs import Columns, Unusable

DATA = Path(__file__).parent / "data" / "public-domain"
SHARED = Path(os.environ.get("TRAINKIT_DATA", Path(__file__).parents[5] / "shared" / "data")) / "recipes"
SOUP = {
    "title": "Soup",
    "ingredients": ["1 onion", "2 cups water"],
    "directions": ["Chop the onion.", "Boil it in water."],
}
TEXT = "Ingredients:\n- 1 onion\n- 2 cups water\n\nInstructions:\n1. Chop the onion.\n2. Boil it in water."


def schema():
    return RecipeSchema(built("metric", "recipe-quality"), Columns())


def pair(record):
    made = schema()
    made.look([record])
    return made.pair(record)


def from_file(name):
    return recipe_of((DATA / name).read_text(encoding="utf-8"), name.removesuffix(".md"))


def test_a_recipe_in_fields_becomes_a_prompt_and_a_text_with_headers():
    found = pair(SOUP)
    assert (found.input, found.target, found.id) == ("Soup", TEXT, "")
    assert found.quality == pytest.approx((1 + 1 + 0.66 + 1) / 4)
    assert found.difficulty == pytest.approx(2 / 6)
    # The directions are short: that is told.
    assert found.notes == (("short directions", "32 letters: used"),)


@pytest.mark.parametrize(
    "record",
    [
        {
            "Name": "Soup",
            "recipeIngredient": SOUP["ingredients"],
            "recipeInstructions": [{"text": s} for s in SOUP["directions"]],
        },
        {"title": "Soup", "ingredients": json.dumps(SOUP["ingredients"]), "directions": json.dumps(SOUP["directions"])},
        {"title": "Soup", "ingredients": "1 onion\n2 cups water", "steps": "1. Chop the onion.\n2. Boil it in water."},
        {
            "title": "<b>Soup</b>",
            "ingredients": ["* 1  onion ", "- 2 cups water"],
            "method": ["1) Chop the onion.", "Boil it in water."],
        },
    ],
)
def test_fields_of_other_names_and_forms_are_the_same_recipe(record):
    assert (pair(record).input, pair(record).target) == ("Soup", TEXT)


def test_texts_with_a_score_keep_it_and_others_are_judged():
    record = {"input": "Soup, please", "output": TEXT, "quality_score": 0.61}
    assert pair(record).quality == 0.61
    assert (pair(record).input, pair(record).target) == ("Soup, please", TEXT)
    assert pair(record).difficulty == pytest.approx(2 / 6)
    assert pair({**record, "n_ingredients": 12, "n_steps": 3}).difficulty == 2
    without = {"input": "Soup, please", "output": TEXT}
    assert pair(without).quality == pytest.approx((1 + 1 + 0.66 + 1) / 4)
    wrong = pair({**record, "quality_score": 61})
    assert wrong.quality == pair(without).quality
    assert wrong.notes == (("quality", "61 is not between 0 and 1: computed"),)


@pytest.mark.parametrize(
    ("record", "rule"),
    [
        ({**SOUP, "directions": []}, "no directions"),
        ({**SOUP, "directions": ["", "  "]}, "no directions"),
        ({**SOUP, "ingredients": [], "directions": []}, "no recipe"),
        ({**SOUP, "ingredients": None, "directions": None}, "no recipe"),
        ({**SOUP, "title": " "}, "no title"),
        ({**SOUP, "title": 7}, "no title"),
        ({**SOUP, "directions": 5}, "no directions"),
    ],
)
def test_what_teaches_nothing_is_refused_with_the_rule(record, rule):
    with pytest.raises(Unusable) as told:
        pair(record)
    assert told.value.rule == rule


def test_a_recipe_without_ingredients_is_used_and_told():
    found = pair({**SOUP, "ingredients": []})
    assert found.target == "Instructions:\n1. Chop the onion.\n2. Boil it in water."
    assert "no ingredients" in dict(found.notes)
    assert found.quality < 0.6


def test_records_that_are_no_recipes_are_refused_with_what_to_do():
    with pytest.raises(DataError, match="no recipes") as told:
        schema().look([{"a": 1, "b": 2}])
    assert "directions" in told.value.do
    assert schema().look([SOUP, {"a": "x"}]) == "recipes in fields"
    assert schema().look([SOUP, {"text": "x", "path": "a.md"}]) == "recipes in fields and Markdown"
    assert "'prompt'" in schema().look([{"prompt": "x", "output": "y"}])
    mixed = schema()
    mixed.look([SOUP, {"a": "x"}])
    with pytest.raises(Unusable, match="its fields are a"):
        mixed.pair({"a": "x"})


def test_a_prompt_needs_a_title_alone():
    assert schema().prompt({"title": "Soup", "ingredients": []}) == "Soup"
    assert schema().prompt(record_of("---\ntitle: Soup\n---\n", "soup.md")) == "Soup"
    with pytest.raises(Unusable, match="nothing to ask for"):
        schema().prompt({"title": "", "directions": ["x"]})


@pytest.mark.parametrize(
    ("dirty", "clean"),
    [
        ('1 tablespoon fresh <a href="">basil</a> leaves', "1 tablespoon fresh basil leaves"),
        ("jalape&ntilde;o and jalape&ntilede;o", "jalape\u00f1o and jalapeno"),
        ("12&endash;15 minutes", "12\u201315 minutes"),
        ("salt &amp; pepper, 350&deg;F", "salt & pepper, 350\u00b0F"),
        ("400&def;F", "400\u00b0F"),
        ("Roasted-Garlic Oilepi:recipelink</epi:recipelink>", "Roasted-Garlic Oil"),
        ("<special>Special equipment:</special> a wok<br/>", "Special equipment: a wok"),
        ('epi:recipeLink id="102487"<buttermilk corn="">/epi:recipeLink<, crumbled</buttermilk>', ", crumbled"),
    ],
)
def test_html_becomes_the_text_it_stands_for(dirty, clean):
    assert has_markup(dirty)
    assert tidy(without_markup(dirty)) == clean


@pytest.mark.parametrize("text", ["Salt & pepper", "bake < 5 minutes", "3 > 2", "AT&T; no: AT &T"])
def test_what_is_no_html_stays(text):
    assert without_markup(text) == text


@given(st.text(alphabet="ab<>/&;:# epi\u00e9", max_size=60))
def test_no_markup_is_left_after_cleaning_twice(text):
    once = without_markup(text)
    assert not has_markup(without_markup(once)) or has_markup(once)
    assert tidy(tidy(once)) == tidy(once)


def test_markdown_in_its_usual_form():
    found = from_file("aelplermagronen.md")
    assert len(found.ingredients) == 7
    assert found.ingredients[1] == "3 onions (medium size)"
    assert len(found.steps) == 10
    assert found.steps[0].startswith("Fry bacon cubes in pot")
    assert "\U0001f373" not in found.text


def test_headings_that_vary_are_known_by_their_words():
    found = from_file("modern-borscht.md")
    assert len(found.ingredients) == 18
    assert len(found.steps) == 18
    assert not any("quart pot" in line for line in (*found.ingredients, *found.steps))


@pytest.mark.parametrize(
    "name", sorted(path.name for path in DATA.glob("*.md") if path.stem not in ("README", "LICENSE"))
)
def test_every_real_file_is_a_recipe_of_clean_lines(name):
    found = from_file(name)
    assert found.ingredients
    assert found.steps
    for line in (*found.ingredients, *found.steps):
        assert line == line.strip()
        assert not line.startswith(("-", "#", "!["))
        assert "](" not in line
        assert "**" not in line


def test_lists_go_on_links_and_pictures_go_and_groups_stay():
    text = (
        "# Pie\n![Pie](/pix/pie.webp)\nNice.\n\n## Ingredients\n### Crust\n- 2 cups [flour](/flour)\n\nAs you like.\n"
        "### Empty\n### Filling:\n- **3** apples,\n  peeled\n\n## Directions\n1. Bake _it_ well\n   at 200 C.\n"
        "2. Serve \U0001f967\n\n## Notes\n- Hot"
    )
    assert recipe_of(text, "") == Recipe(
        "Pie", ("Crust:", "2 cups flour", "Filling:", "3 apples, peeled"), ("Bake it well at 200 C.", "Serve")
    )
    assert recipe_of("## Method\nBoil\nit.\n\nServe.", "Tea") == Recipe("Tea", (), ("Boil it.", "Serve."))
    assert plain("a * b _c_ d_e_f") == "a * b c d_e_f"


def test_groups_are_headings_and_do_not_count():
    recipe = Recipe("Pie", ("Crust:", "2 cups flour"), ("Bake",))
    assert recipe.text == "Ingredients:\nCrust:\n- 2 cups flour\n\nInstructions:\n1. Bake"
    assert recipe.difficulty == pytest.approx(1 / 6)


@pytest.mark.parametrize(
    ("ingredients", "steps", "bar"), [(6, 6, 1), (6, 2, 1), (7, 6, 2), (12, 12, 2), (3, 13, 9), (13, 1, 9)]
)
def test_easy_is_six_and_six_and_medium_twelve_and_twelve(ingredients, steps, bar):
    assert next(bar for bar in (1, 2, 9) if difficulty_of(ingredients, steps) <= bar) == bar


def test_a_written_recipe_reads_as_what_it_was_made_of():
    judge = built("metric", "recipe-quality")
    for path in DATA.glob("*.md"):
        if path.stem not in ("README", "LICENSE"):
            recipe = from_file(path.name)
            counted = sum(not line.endswith(":") for line in recipe.ingredients)
            assert judge.counts(recipe.text) == (counted, len(recipe.steps))


def test_a_record_is_markdown_only_by_text_and_path():
    assert kind_of({"text": "x", "path": "a.md"}) == "Markdown"
    assert kind_of({"text": "x"}) == "texts"
    assert kind_of({"text": "x", "path": "a.txt", "Directions": []}) == "recipes in fields"


def shared(name):
    path = SHARED / "recipes-json" / name
    if not path.exists():
        pytest.skip(f"the data set {name} is not in this checkout")
    return path


def test_every_irregular_record_is_used_or_counted_with_its_reason():
    path = shared("recipes-irregular.jsonl")
    task = RecipesTask({**BASE, "on_bad_sample": "skip", "max_bad_fraction": 1.0})
    found = task.inspect(path)
    rules = Counter(finding.rule for finding in found.findings)
    assert rules["no ingredients"] + rules["no recipe"] == 40
    assert rules["no directions"] + rules["no recipe"] == 23
    assert (rules["blank lines"], rules["short directions"], rules["HTML"]) == (11, 12, 28)
    # What is longer than the model's limit is cut, and told by the task below.
    assert sum(rules.values()) - rules["too long"] == 26 + 14 + 9 + 11 + 12 + 28
    splits = task.read(path, 0)
    assert sum(len(dataset) for _, dataset in splits.items()) + len(splits.skipped) == 100
    texts = [task.corpus.targets[row] for row in range(len(task.corpus))]
    assert not any(has_markup(text) for text in texts)
    with pytest.raises(DataError, match="23 of 100 records cannot be used"):
        RecipesTask().read(path, 0)


def test_real_records_have_the_difficulties_that_were_counted():
    path = shared("recipes-2k.jsonl")
    task = RecipesTask({**BASE, "val_share": 0.0})
    train = task.read(path, 0).train
    assert len(train) == 2000
    # The counts of the data's description are of raw lines; headings of groups are none here.
    assert abs(int((train.difficulty <= 1).sum()) - 506) <= 20
    assert abs(int((train.difficulty <= 2).sum()) - 1624) <= 20
    assert train.quality.min() >= 0.5
