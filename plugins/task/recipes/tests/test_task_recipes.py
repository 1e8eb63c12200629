"""The task on its embedded sample, and what it proposes and writes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import trainkit
from trainkit.api import Request
from trainkit.errors import UsageError
from trainkit.narrowing import Epoch
from trainkit.nested import built
from trainkit.testing import TaskConformance
from trainkit_task_recipes.task import BASE, PROMPTS, SAMPLE, RecipesTask

SMALL = {"size": "micro", "max_new_tokens": 12, "dropout": 0.0, "max_target": 96}
DATA = Path(__file__).parent / "data" / "public-domain"


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class TestRecipesConformance(TaskConformance):
    component = "recipes"
    options = SMALL

    def written(self, folder):
        folder.mkdir()
        lines = SAMPLE.read_text(encoding="utf-8").splitlines()[:24]
        for number, line in enumerate(lines):
            (folder / f"{number:02}.md").write_text(json.loads(line)["text"], encoding="utf-8")
        return folder

    def input_paths(self, data):
        return [data / "00.md", data / "01.md"]


def recipes(**options) -> RecipesTask:
    own = {name: options.pop(name) for name in ("judge", "judged") if name in options}
    return RecipesTask({**BASE, **SMALL, **options}, **own)


def test_the_embedded_sample_is_sixty_recipes_of_the_public_domain():
    splits = recipes().read(None, 0)
    assert sum(len(dataset) for _, dataset in splits.items()) == 60
    assert splits.warnings == []
    assert (SAMPLE.parent / "LICENSE").read_text(encoding="utf-8").startswith("This is free and unencumbered software")
    (sample,) = splits.train.__getitems__([0])
    assert sample["input"].startswith("Create a recipe: ")
    assert sample["target"].startswith("Ingredients:\n")
    assert "\n\nInstructions:\n1. " in sample["target"]


def test_training_asks_in_all_formats_and_validation_in_one():
    splits = recipes().read(None, 0)
    drawn = splits.train.drawn([0] * 7, range(7))
    assert len({sample["input"] for sample in drawn}) == 7
    assert {sample["input"].partition(":")[0] for sample in splits.val.__getitems__([0, 1])} == {"Create a recipe"}


def test_it_proposes_the_techniques_with_their_schedules():
    defaults = recipes().defaults
    by_name = {one["use"] if isinstance(one, dict) else one: one for one in defaults["callback"]}
    assert set(by_name) == {"sample-outputs", "quality-threshold", "curriculum", "gradient-noise"}
    assert defaults["loss.label_smoothing"] == 0.1
    bars = built("callback", "quality-threshold")
    curriculum = built("callback", by_name["curriculum"])
    epochs = [Epoch(number, 6 - number) for number in range(6)]
    assert [bars.bar(epoch) for epoch in epochs] == pytest.approx([0.5, 0.55, 0.6, 0.65, 0.7, 0.75])
    assert [curriculum.bar(epoch) for epoch in epochs] == [1, 1, 2, 2, float("inf"), float("inf")]
    assert built("callback", "gradient-noise").eta == 0.3


def test_a_run_writes_judges_and_shows_recipes(tmp_path):
    settings = {f"task.{name}": value for name, value in SMALL.items()}
    settings |= {"task.judged": 2, "loop.epochs": 1, "out": str(tmp_path / "run"), "device": "cpu"}
    trainkit.run(task="recipes", strategy="baseline", settings=settings)
    results = json.loads((tmp_path / "run" / "results.json").read_text(encoding="utf-8"))
    figures = results["results"]["model"]
    assert {"val/perplexity", "val/recipe-quality", "val/text-overlap", "test/recipe-quality/completeness"} <= set(
        figures
    )
    assert 0 <= figures["val/recipe-quality"] <= 1
    shown = [path.read_text(encoding="utf-8") for path in (tmp_path / "run" / "samples").rglob("*.txt")]
    assert all(any(prompt in text for text in shown) for prompt in PROMPTS)
    trainkit.predict(tmp_path / "run", ["Plum cake"], Request(), out=tmp_path / "out")
    assert list((tmp_path / "out").rglob("*.json"))


def test_no_more_recipes_are_written_than_are_judged():
    task = recipes(judged=3)
    splits = task.read(None, 0)
    task.fit(splits.train)
    model = task.build_model().eval()
    batch = task.collate(splits.train.__getitems__([0, 1]))
    for _ in range(2):
        task.before_evaluation()
        counts = []
        for _ in range(3):
            found = task.predict(model, batch, {})
            assert len(found["texts"]) == len(found["references"]) == len(found["inputs"])
            counts.append(len(found["texts"]))
        assert counts == [2, 1, 0]
    assert len(recipes(judged=None).adjustable) == len(task.adjustable)
    every = recipes(judged=None)
    every.load_state_dict(task.state_dict())
    assert [len(every.predict(model, batch, {})["texts"]) for _ in range(2)] == [2, 2]
    assert set(every.predict(model, batch, {})) == every.predicts


def test_a_judge_that_does_not_score_a_text_is_refused():
    with pytest.raises(UsageError, match="does not score"):
        recipes(judge="perplexity")
