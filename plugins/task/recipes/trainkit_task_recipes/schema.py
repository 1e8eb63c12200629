"""Records as pairs of a prompt and a recipe: fields of any usual name, Markdown, or two texts."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from trainkit.errors import DataError
from trainkit.tables import counted
from trainkit_task_seq2seq.pairs import Columns, Pair, Unusable, number_of

from .cleaning import has_markup, tidy, without_markup
from .markdown import recipe_of
from .recipe import Recipe, difficulty_of, unmarked

Record = Mapping[str, Any]
Notes = tuple[tuple[str, str], ...]
TITLES = ("title", "name", "recipe_name", "dish")
INGREDIENTS = ("ingredients", "recipeingredient", "ingredient_lines", "ingredient")
STEPS = ("directions", "instructions", "steps", "recipeinstructions", "method", "preparation")
QUALITY = ("quality_score", "quality")
FEWEST_LETTERS = 40
MARKDOWN = (".md", ".markdown")


class Judge(Protocol):
    """Tell the quality of a text, and what it holds: the part of a metric of recipes that is needed."""

    def scores(self, text: str) -> Mapping[str, float]:
        """Return figures of a text; the first is its quality."""
        ...

    def counts(self, text: str) -> tuple[int, int]:
        """Return the numbers of ingredients and steps of a text."""
        ...


class RecipeSchema:
    """Make pairs of records that are recipes in fields, Markdown files, or an input with an output.

    The prompt of a recipe is its title. A record without directions teaches nothing and is unusable; one without
    ingredients is used, and its quality tells.

    Args:
        judge: tells the quality of a recipe where the record does not.
        columns: finds input and output of other records.
    """

    def __init__(self, judge: Judge, columns: Columns) -> None:
        self.judge, self.columns = judge, columns

    def look(self, records: Sequence[Record]) -> str:
        """Say what the records are; raise DataError if they are no recipes and have no two texts."""
        kinds = list(dict.fromkeys(kind_of(record) for record in records))
        if "texts" not in kinds:
            return " and ".join(kinds)
        try:
            found = self.columns.look([record for record in records if kind_of(record) == "texts"])
        except DataError as error:
            if len(kinds) > 1:
                return " and ".join(kind for kind in kinds if kind != "texts")
            do = f"name the fields {TITLES[0]}, {INGREDIENTS[0]} and {STEPS[0]}; or: {error.do}"
            raise DataError("the records are no recipes", where=error.where, why=error.why, do=do) from None
        return " and ".join(found if kind == "texts" else kind for kind in kinds)

    def pair(self, record: Record) -> Pair:
        """Return the pair of a record; raise Unusable."""
        kind = kind_of(record)
        if kind == "texts":
            return self._of_texts(record)
        recipe, notes = _of_markdown(record) if kind == "Markdown" else _of_fields(record)
        if not recipe.steps and not recipe.ingredients:
            raise Unusable("no recipe", "it has neither ingredients nor directions")
        if not recipe.steps:
            raise Unusable("no directions", "it says what goes in, and not what to do with it")
        if not recipe.title:
            raise Unusable("no title", "there is nothing to ask for")
        if not recipe.ingredients:
            notes = (*notes, ("no ingredients", "used with its directions alone"))
        if (letters := sum(map(len, recipe.steps))) < FEWEST_LETTERS:
            notes = (*notes, ("short directions", f"{letters} letters: used"))
        quality, notes = self._quality(record, recipe.text, notes)
        return Pair(recipe.title, recipe.text, _id(record), quality, recipe.difficulty, notes)

    def prompt(self, record: Record) -> str:
        """Return what a record asks for; raise Unusable."""
        kind = kind_of(record)
        if kind == "texts":
            found: str = self.columns.prompt(record)
            return found
        title = _of_markdown(record)[0].title if kind == "Markdown" else tidy(without_markup(_text(record, TITLES)))
        if not title:
            raise Unusable("no title", "there is nothing to ask for")
        return title

    def _of_texts(self, record: Record) -> Pair:
        if self.columns.input is None or self.columns.target is None:
            raise Unusable("no recipe", f"its fields are {', '.join(map(str, record)) or 'none'}")
        pair = self.columns.pair(record)
        quality, notes = self._quality(record, pair.target, pair.notes)
        ingredients, steps = (number_of(_value(record, (name,))) for name in ("n_ingredients", "n_steps"))
        if ingredients is None or steps is None:
            ingredients, steps = self.judge.counts(pair.target)
        difficulty = difficulty_of(int(ingredients), int(steps)) if pair.difficulty is None else pair.difficulty
        return replace(pair, quality=quality, difficulty=difficulty, notes=notes)

    def _quality(self, record: Record, text: str, notes: Notes) -> tuple[float, Notes]:
        given = number_of(_value(record, QUALITY))
        if given is not None and 0 <= given <= 1:
            return given, notes
        if given is not None:
            notes = (*notes, ("quality", f"{given:g} is not between 0 and 1: computed"))
        return next(iter(self.judge.scores(text).values())), notes

    def state_dict(self) -> dict[str, Any]:
        """Return the columns of records with two texts."""
        found: dict[str, Any] = self.columns.state_dict()
        return found

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        self.columns.load_state_dict(state)


def kind_of(record: Record) -> str:
    """Return what a record is: Markdown, a recipe in fields, or texts."""
    if isinstance(record.get("text"), str) and str(record.get("path", "")).lower().endswith(MARKDOWN):
        return "Markdown"
    names = {str(name).lower() for name in record}
    return "recipes in fields" if names & {*INGREDIENTS, *STEPS} else "texts"


def _of_markdown(record: Record) -> tuple[Recipe, Notes]:
    recipe = recipe_of(record["text"], str(record.get("title", "")))
    return _repaired(recipe.title, recipe.ingredients, recipe.steps)


def _of_fields(record: Record) -> tuple[Recipe, Notes]:
    return _repaired(_text(record, TITLES), _lines(record, INGREDIENTS), _lines(record, STEPS))


def _repaired(title: str, ingredients: Iterable[str], steps: Iterable[str]) -> tuple[Recipe, Notes]:
    """Return a recipe of tidy lines, and what was repaired."""
    lines = [title, *ingredients, *steps]
    notes: list[tuple[str, str]] = []
    if dirty := sum(map(has_markup, lines)):
        notes.append(("HTML", f"{dirty} of {len(lines)} lines with HTML: removed"))
    if blank := sum(not line.strip() for line in lines[1:]):
        notes.append(("blank lines", f"{counted(blank, 'blank line')}: left out"))

    def cleaned(some: Iterable[str]) -> tuple[str, ...]:
        return unmarked([tidied for line in some if (tidied := tidy(without_markup(line)))])

    return Recipe(tidy(without_markup(title)), cleaned(ingredients), cleaned(steps)), tuple(notes)


def _value(record: Record, names: Sequence[str]) -> Any:
    """Return the first of a record's fields of these names, in any case, that is there."""
    by_name = {str(name).lower(): value for name, value in record.items() if value is not None}
    return next((by_name[name] for name in names if name in by_name), None)


def _text(record: Record, names: Sequence[str]) -> str:
    value = _value(record, names)
    return value if isinstance(value, str) else ""


def _lines(record: Record, names: Sequence[str]) -> list[str]:
    """Return the lines of a field: a list of texts (or of schema.org's steps), such a list as JSON, or one text."""
    value = _value(record, names)
    if isinstance(value, str):
        value = _unpacked(value)
    if not isinstance(value, list):
        return []
    texts = [item.get("text") if isinstance(item, Mapping) else item for item in value]
    return [part for text in texts if isinstance(text, str) for part in (text.splitlines() or [""])]


def _unpacked(text: str) -> Any:
    if text.lstrip().startswith("["):
        try:
            return json.loads(text)
        except ValueError:
            pass
    return [text]


def _id(record: Record) -> str:
    for name in ("id", "url", "path"):
        if isinstance(value := record.get(name), str | int) and not isinstance(value, bool) and value != "":
            return str(value)
    return ""
