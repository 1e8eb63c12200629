"""What is measured of a split, where a task says so, and metrics that come with an option changed after training."""

from __future__ import annotations

import pytest
from trainkit import SumMetric
from trainkit.api import Request, evaluate, predict, start
from trainkit.errors import UsageError
from trainkit.evaluation import evaluate as evaluated
from trainkit.evaluation import evaluate_baseline
from trainkit.folds.subset import Subset
from trainkit.rundir import RunDirectory
from trainkit.testing.tiny import TinyTask, tiny_request, tiny_run
from trainkit.testing.tinyfiles import write_sequences


class Twice(TinyTask):
    """Measure each sample twice, the first ones of a split in reverse order behind them."""

    def measured(self, dataset, count):
        return Subset([dataset], [(0, i) for i in [*range(count), *reversed(range(count))]])


class Rows(SumMetric):
    """Tell how many samples were measured."""

    def update(self, labels):
        self.add(rows=len(labels))

    def compute(self):
        return self.total("rows")


def test_losses_metrics_and_baselines_see_what_the_task_says():
    found = {}
    for task in (TinyTask(), Twice()):
        run = tiny_run({"evaluate.batch_size": 3}, task=task, metric=Rows())
        val = run.splits.val
        name = next(bound.name for bound in run.metrics)
        for what, rows in {
            "model": evaluated(run, "val", val),
            "limited": evaluated(run, "val", val, 3),
            "baseline": evaluate_baseline(run, "val", val, run.task.baselines()["zero"]),
        }.items():
            found[type(task), what] = rows[f"val/{name}"], rows.get("val/loss")
    assert [found[TinyTask, what][0] for what in ("model", "limited", "baseline")] == [8, 3, 8]
    assert [found[Twice, what][0] for what in ("model", "limited", "baseline")] == [16, 6, 16]
    for what in ("model", "limited"):
        assert found[Twice, what][1] == pytest.approx(found[TinyTask, what][1], rel=1e-6)


class Proposing(TinyTask):
    """Propose a metric for answers that are drawn sharply."""

    @property
    def defaults(self):
        metrics = ["token-accuracy"] if self.guidance > 1 else []
        return {**TinyTask.defaults, "metric": metrics}


@pytest.fixture
def trained(tmp_path):
    def train(**settings):
        settings |= {"out": str(tmp_path / "run"), "loop.epochs": 1}
        request = tiny_request({"task": f"{__file__}:Proposing", **settings})
        start(request)
        return tmp_path / "run", Request((), request.live, request.registry, report=request.report)

    return train


def tags(path, request, **settings):
    return {tag.partition("/")[2].partition("/")[0] for tag in evaluate(path, "val", request, settings=settings)}


def test_metrics_that_an_option_is_worth_come_with_it(trained):
    path, request = trained()
    assert tags(path, request) == {"loss"}
    assert tags(path, request, **{"task.guidance": 1.0}) == {"loss"}
    assert tags(path, request, **{"task.guidance": 2.0}) == {"loss", "token-accuracy"}
    # The run is what it was.
    assert RunDirectory.read(path).read_json("resolved.json")["metric"][-1]["value"] == []


def test_the_metrics_of_the_run_stay_and_none_comes_twice(trained):
    path, request = trained(metric=["token-accuracy", "perplexity"])
    assert tags(path, request, **{"task.guidance": 2.0}) == {"loss", "token-accuracy", "perplexity"}


def test_answers_are_not_measured(trained, tmp_path):
    path, request = trained()
    data = write_sequences(tmp_path / "data")
    found = predict(path, [data / "val.txt"], request, settings={"task.guidance": 2.0})
    assert found.items
    with pytest.raises(UsageError, match="cannot change after training"):
        evaluate(path, "val", request, settings={"task.width": 3})
