"""The task on its embedded sample, and what it proposes and writes."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
import trainkit
from trainkit import SumMetric
from trainkit.api import Request
from trainkit.data import BatchMaker, evaluation_batches
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
    assert (defaults["loss.label_smoothing"], defaults["loss.until"]) == (0.1, 0.5)
    bars = built("callback", "quality-threshold")
    curriculum = built("callback", by_name["curriculum"])
    epochs = [Epoch(number, 6 - number) for number in range(6)]
    assert [bars.bar(epoch) for epoch in epochs] == pytest.approx([0.5, 0.55, 0.6, 0.65, 0.7, 0.75])
    assert [curriculum.bar(epoch) for epoch in epochs] == [1, 1, 2, 2, float("inf"), float("inf")]
    # In a long run the stages are as many epochs long as in one of six; a short one still comes to all recipes.
    assert [curriculum.bar(Epoch(number, 60 - number)) for number in (1, 3, 4)] == [1, 2, float("inf")]
    assert [curriculum.bar(Epoch(number, 3 - number)) for number in range(3)] == [1, 2, float("inf")]
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
    check_evaluation_in_all_templates(tmp_path / "run", figures)


def check_evaluation_in_all_templates(run, figures):
    """Compare the figures with each other, and with those of the run."""
    assert not any("template-robustness" in tag for tag in figures)
    found = trainkit.evaluate(run, "val", settings={"task.asked_in": "all"})
    score = "val/template-robustness"
    by_template = {tag.rpartition("/")[2]: value for tag, value in found.items() if tag.startswith(f"{score}/perp")}
    whole = by_template.pop("perplexity")
    assert sorted(by_template) == sorted(BASE["templates"])
    assert found[score] == pytest.approx(min(by_template.values()) / max(by_template.values()), rel=1e-9)
    assert 0 < found[score] < 1
    # The targets are the same in each template: so the mean of the logarithms is that of all.
    mean = sum(map(math.log, by_template.values())) / len(by_template)
    assert math.log(whole) == pytest.approx(mean, rel=1e-6)
    assert found["val/perplexity"] == pytest.approx(whole, rel=1e-9)
    assert by_template["Create a recipe: {text}"] == pytest.approx(figures["val/perplexity"], rel=1e-5)
    # The same recipes are written as ever, in the first template.
    assert found["val/recipe-quality"] == figures["val/recipe-quality"]
    assert "val/template-robustness" not in trainkit.evaluate(run, "val")


@pytest.fixture(scope="module")
def learned():
    task = recipes(judged=3)
    splits = task.read(None, 0)
    task.fit(splits.train)
    return task, splits, task.build_model().eval()


def test_no_more_recipes_are_written_than_are_judged(learned):
    task, splits, model = learned
    maker, measured = BatchMaker(splits.train, task.collate), task.measured(splits.train, 6)
    batches = [maker(0, indices) for indices in evaluation_batches(measured, 2)]
    rows = [row for batch in batches for row in batch["sample_id"].tolist()]
    # Those that are written share batches; in either part the longest come first.
    by_length = lambda part: sorted(part, key=lambda row: -splits.train.lengths[row])  # noqa: E731
    assert rows == [*by_length(range(3)), *by_length(range(3, 6))]
    assert rows != [*range(6)]
    # Whichever batch comes first, and however often.
    for order in (batches, batches[::-1]):
        counts = {}
        for batch in order:
            found = task.predict(model, batch, {})
            assert len(found["texts"]) == len(found["references"]) == len(found["inputs"])
            counts[tuple(batch["sample_id"].tolist())] = len(found["texts"])
        assert [counts[tuple(batch["sample_id"].tolist())] for batch in batches] == [2, 1, 0]
    every = recipes(judged=None)
    every.load_state_dict(task.state_dict())
    assert [len(every.predict(model, batch, {})["texts"]) for batch in batches] == [2, 2, 2]
    assert set(every.predict(model, batches[0], {})) == every.predicts
    assert every.adjustable == task.adjustable >= {"judged", "asked_in"}


def test_baselines_are_judged_by_the_same_recipes_as_the_model(learned):
    task, splits, model = learned
    maker = BatchMaker(splits.train, task.collate)
    for indices in evaluation_batches(task.measured(splits.train, 6), 2):
        batch = maker(0, indices)
        written = task.predict(model, batch, {})
        for name in ("copy", "most-frequent"):
            found = task.baselines()[name](batch)
            assert {key: found[key] for key in ("references", "inputs")} == {
                key: written[key] for key in ("references", "inputs")
            }
            assert len(found["texts"]) == len(written["texts"])
        assert task.baselines()["copy"](batch)["texts"] == written["inputs"]
        # What needs no text to be written is measured on every sample.
        assert len(task.baselines()["token-frequencies"](batch)["logits"]) == len(batch["labels"])


class Counted(SumMetric):
    """Tell how many texts and references a metric is given."""

    def update(self, texts, references):
        self.add(texts=len(texts), references=len(references))

    def compute(self):
        return {"texts": self.total("texts"), "references": self.total("references")}


def test_the_table_sets_like_beside_like(tmp_path):
    settings = {f"task.{name}": value for name, value in SMALL.items()}
    settings |= {"task.judged": 2, "loop.epochs": 1, "out": str(tmp_path / "run"), "device": "cpu", "callback": "none"}
    trainkit.run(task="recipes", strategy="baseline", settings=settings, metric=[Counted])
    results = json.loads((tmp_path / "run" / "results.json").read_text(encoding="utf-8"))["results"]
    for who in ("model", "copy", "most-frequent"):
        for split in ("val", "test"):
            figures = {tag: value for tag, value in results[who].items() if tag.startswith(f"{split}/Counted")}
            assert set(figures.values()) == {2.0}, (who, figures)


def test_a_judge_that_does_not_score_a_text_is_refused():
    with pytest.raises(UsageError, match="does not score"):
        recipes(judge="perplexity")
