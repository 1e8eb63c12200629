"""Cross-validation: a run for each fold and one on all samples, resumable between and inside of them."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from trainkit import hookimpl
from trainkit.api import Request, evaluate, predict, resume, run, start
from trainkit.checkpoint import Checkpoints
from trainkit.contracts import LossOutput, Splits
from trainkit.draft import make_draft
from trainkit.errors import CheckpointError, DataError, ExitCode, UsageError
from trainkit.folds.outoffold import out_of_fold
from trainkit.folds.plan import plan_folds
from trainkit.plan import Stage
from trainkit.rundir import rows
from trainkit.testing import tiny
from trainkit.testing.tiny import TinyTask, tiny_request, tiny_run
from trainkit.testing.tinyfiles import write_sequences

if TYPE_CHECKING:
    from trainkit.live import Run

SETTINGS: Mapping[str, Any] = {
    "folds": 5,
    "metric": ["token-accuracy"],
    "optimizer.lr": 0.02,
    "checkpoint.every_steps": 2,
    "loop.log_every_steps": 3,
}
TINY = ("--task", f"{tiny.__file__}:TinyTask", "--strategy", "baseline", "--callback", "none")


class Counter:
    """Keep state over a run: a fold that began with another one's would show it."""

    def __init__(self) -> None:
        self.steps = 0

    @hookimpl
    def on_step(self, run: Run) -> None:
        self.steps += 1
        run.record("counted", torch.tensor(float(self.steps)))

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.steps = state["steps"]


class Stop:
    """Do what a signal's handler does, or die, at a step of one of the runs."""

    def __init__(self, name: str, step: int, *, dies: bool = False) -> None:
        self.name, self.step, self.dies = name, step, dies

    @hookimpl
    def on_step(self, run: Run) -> None:
        assert run.part_of is not None
        if (run.part_of.name, run.moment.step) == (self.name, self.step):
            if self.dies:
                os.kill(os.getpid(), signal.SIGKILL)
            run.signal = signal.SIGTERM


def request(out: Path, **settings: Any) -> Request:
    return tiny_request({**SETTINGS, "out": str(out), **settings}, stages=(Stage(epochs=2),), callbacks=[Counter()])


def to_resume(asked: Request, *listeners: object) -> Request:
    return replace(asked, layers=(), listeners=[(f"stop {i}", each) for i, each in enumerate(listeners)])


def state_of(out: Path) -> dict[str, Any]:
    """Return everything that must be equal to the bit: the last checkpoints, the rows, and what it all came to."""
    found: dict[str, Any] = {"out-of-fold": (out / "out-of-fold.jsonl").read_bytes()}
    for path in [*sorted((out / "folds").iterdir()), out / "final"]:
        checkpoint = Checkpoints(path / "checkpoints", read_only=True).newest_valid()
        assert checkpoint is not None
        for name in ("model.safetensors", "optimizer.safetensors", "state.safetensors"):
            tensors = {key: value.numpy().tobytes() for key, value in checkpoint.tensors(name).items()}
            found[f"{path.name}/{name}"] = tensors
        found[f"{path.name}/state"] = checkpoint.document("state.json")
        kept = [{k: v for k, v in row.items() if not k.startswith("time/")} for row in rows(path / "metrics.jsonl")]
        found[f"{path.name}/rows"] = kept
    results = json.loads((out / "results.json").read_text())
    return found | {name: results[name] for name in ("results", "figures", "best", "best_step", "steps")}


def carried_out(asked: Request, out: Path) -> None:
    """Carry out or go on with a run in a process of its own, which may die."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            torch.set_num_threads(1)
            (resume(out, asked) if (out / "plan.json").exists() else start(asked))
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("reference") / "run"
    done = start(request(out))
    assert (done.status, done.exit_code) == ("done", ExitCode.DONE)
    return out


def test_each_fold_is_a_complete_run_and_the_last_one_has_all_samples(reference):
    record = json.loads((reference / "folds.json").read_text())
    assert [each["fold"] for each in record["runs"]] == ["1/5", "2/5", "3/5", "4/5", "5/5", "all"]
    # 24 and 8 samples are 32: folds of 7, 7, 6, 6, 6.
    assert [each["samples"].get("val") for each in record["runs"]] == [7, 7, 6, 6, 6, None]
    assert record["runs"][-1]["samples"] == {"train": 32, "test": 8}
    ids = [name for each in record["runs"] for name in each["validates_on"]]
    assert len(ids) == len(set(ids)) == 32
    for each in record["runs"]:
        folder = reference / each["directory"]
        for name in ("config.toml", "plan.json", "metrics.jsonl", "results.json", "report.html", "README.md"):
            assert (folder / name).is_file(), folder / name
        assert json.loads((folder / "status.json").read_text())["state"] == "done"
        assert json.loads((folder / "plan.json").read_text())["data"]["samples"] == each["samples"]


def test_every_fold_begins_anew(reference):
    counted = []
    for path in [*sorted((reference / "folds").iterdir()), reference / "final"]:
        steps = json.loads((path / "results.json").read_text())["steps"]
        (last,) = [row["counted"] for row in rows(path / "metrics.jsonl") if "counted" in row][-1:]
        counted.append((last, steps))
    assert all(last == steps for last, steps in counted), counted
    weights = [
        Checkpoints(reference / "folds" / str(number) / "checkpoints", read_only=True).newest_valid()
        for number in (1, 2)
    ]
    first, second = (each.tensors("model.safetensors")["head.weight"] for each in weights if each is not None)
    assert not torch.equal(first, second)


def test_figures_are_those_of_the_folds(reference):
    results = json.loads((reference / "results.json").read_text())
    each = [json.loads((reference / "folds" / str(n) / "results.json").read_text()) for n in range(1, 6)]
    losses = torch.tensor([one["results"]["model"]["val/loss"] for one in each], dtype=torch.float64)
    figure = results["figures"]["model"]["val/loss"]
    assert figure["values"] == losses.tolist()
    assert figure["mean"] == pytest.approx(losses.mean().item())
    assert figure["sd"] == pytest.approx(losses.std().item())
    assert figure["low"] < figure["mean"] < figure["high"]
    assert results["results"]["model"]["val/loss"] == figure["mean"]
    final = json.loads((reference / "final" / "results.json").read_text())
    assert results["results"]["model"]["test/loss"] == final["results"]["model"]["test/loss"]
    best = [one["best_step"] for one in each]
    assert final["steps"] == round(sum(best) / 5)
    assert results["steps"] == sum(one["steps"] for one in each) + final["steps"]


def test_every_sample_has_one_out_of_fold_row_by_a_model_that_has_not_seen_it(reference):
    found = [json.loads(line) for line in (reference / "out-of-fold.jsonl").read_text().splitlines()]
    record = json.loads((reference / "folds.json").read_text())
    assert {(row["id"], row["fold"]) for row in found} == {
        (name, number) for number, each in enumerate(record["runs"], 1) for name in each["validates_on"]
    }
    assert len(found) == 32
    # The mean loss of a sample weighs tokens: put together by tokens, they are the loss of the fold.
    task = TinyTask()
    splits = task.read(None, 0)
    tokens = {
        name: len(sequence)
        for part in (splits.train, splits.val)
        for name, sequence in zip(part.ids, part.sequences, strict=True)
    }
    for number in range(1, 6):
        mine = [row for row in found if row["fold"] == number]
        total = sum(row["loss"] * tokens[row["id"]] for row in mine) / sum(tokens[row["id"]] for row in mine)
        results = json.loads((reference / "folds" / str(number) / "results.json").read_text())
        assert total == pytest.approx(results["results"]["model"]["val/loss"], rel=1e-4)
    assert all(len(row["answer"]["labels"]) == tokens[row["id"]] for row in found)


def test_a_row_belongs_to_its_sample_in_whatever_order_samples_are_looked_at():
    run = tiny_run({"loop.batch_size": 4})
    dataset = run.splits.val
    in_order = [json.loads(line) for line in out_of_fold(run, 1, dataset).splitlines()]
    dataset.lengths = [len(sequence) for sequence in dataset.sequences]
    assert dataset.lengths != sorted(dataset.lengths, reverse=True)
    found = [json.loads(line) for line in out_of_fold(run, 1, dataset).splitlines()]
    assert [row["id"] for row in found] == dataset.ids
    assert [row["loss"] for row in found] == pytest.approx([row["loss"] for row in in_order], rel=1e-5)


def test_report_and_card_have_the_table_by_fold(reference):
    page, card = (reference / "report.html").read_text(), (reference / "README.md").read_text()
    assert "<h2>Folds</h2>" in page
    assert "val/loss by fold" in page
    assert "## Folds" in card
    assert "mean of the best of 5 folds, sd " in card
    assert "95 % interval" in card
    assert "| fold 5/5 | 26 | 6 |" in card
    assert "| final | 32 |" in card
    assert "final/checkpoints/checkpoint-" in card
    assert json.loads((reference / "status.json").read_text())["state"] == "done"


@pytest.mark.parametrize("stops", [[("fold 3/5", 5)], [("fold 1/5", 1), ("fold 4/5", 13), ("final", 3)]])
def test_stopped_inside_folds_and_resumed_it_is_the_one_left_alone(reference, tmp_path, stops):
    out = tmp_path / "run"
    asked = request(out)
    for number, (name, step) in enumerate(stops):
        stop = Stop(name, step)
        done = resume(out, to_resume(asked, stop)) if number else start(replace(asked, listeners=[("stop", stop)]))
        assert (done.status, done.exit_code) == ("interrupted", ExitCode.TERMINATED)
        status = json.loads((out / "status.json").read_text())
        assert (status["state"], status["exit_code"]) == ("interrupted", 143)
        assert "runs done" in status["reason"]
    untouched = {path: path.stat().st_mtime_ns for path in (out / "folds" / "1").rglob("*") if path.is_file()}
    assert resume(out, to_resume(asked)).status == "done"
    assert state_of(out) == state_of(reference)
    if len(stops) == 1:
        assert {path: path.stat().st_mtime_ns for path in untouched} == untouched


def test_killed_inside_fold_3_of_5_and_resumed_it_is_the_one_left_alone(reference, tmp_path):
    out = tmp_path / "run"
    asked = request(out)
    carried_out(replace(asked, listeners=[("kill", Stop("fold 3/5", 5, dies=True))]), out)
    assert sorted(path.name for path in (out / "folds").iterdir()) == ["1", "2", "3"]
    assert resume(out, to_resume(asked)).status == "done"
    assert state_of(out) == state_of(reference)


def test_what_a_kill_between_two_files_left_is_made_again(reference, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(reference, out)
    (out / "folds" / "2" / "out-of-fold.jsonl").unlink()
    (out / "out-of-fold.jsonl").unlink()
    # The last run was killed before its documents were written.
    shutil.rmtree(out / "final")
    (out / "final").mkdir()
    (out / "final" / "status.json").write_text('{"state": "new"}')
    (out / "status.json").write_text('{"state": "running"}')
    assert resume(out, to_resume(request(out))).status == "done"
    assert state_of(out) == state_of(reference)


def test_a_run_that_is_done_is_not_done_again(reference, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(reference, out)
    told: list[str] = []
    done = resume(out, replace(to_resume(request(out), Stop("final", 1), Stop("fold 1/5", 1)), report=told.append))
    assert done.status == "done"
    assert told == ["this run is done: nothing is left to train"]
    assert done.summary["results"] == json.loads((reference / "results.json").read_text())["results"]


def test_the_model_of_a_cross_validation_is_the_final_one(reference, tmp_path):
    asked = to_resume(request(tmp_path / "none"))
    whole, final = (evaluate(path, request=asked) for path in (reference, reference / "final"))
    assert whole == final
    logged = json.loads((reference / "results.json").read_text())["results"]["model"]
    assert whole["test/loss"] == pytest.approx(logged["test/loss"])
    assert evaluate(reference / "folds" / "2", "val", asked)["val/loss"] > 0
    (tmp_path / "inputs.txt").write_text("1 2 3\n4 5\n")
    answered = predict(reference, [tmp_path / "inputs.txt"], asked, out=tmp_path / "answers")
    assert [len(item.data["labels"]) for item in answered.items] == [3, 2]


def test_without_refit_there_is_no_final_model(tmp_path):
    out = tmp_path / "run"
    done = start(request(out, folds=2, refit=False, **{"loop.max_steps": 2}))
    assert done.status == "done"
    assert sorted(path.name for path in out.iterdir() if path.is_dir()) == ["folds"]
    assert done.model is not None
    with pytest.raises(CheckpointError, match="no final model"):
        evaluate(out, request=to_resume(request(out)))


def test_one_fold_alone_is_the_run_of_that_fold(reference, tmp_path):
    alone = start(request(tmp_path / "alone", folds=None, fold="2/5"))
    there = json.loads((reference / "folds" / "2" / "results.json").read_text())
    assert alone.summary["results"] == there["results"]


def test_a_task_that_cuts_itself_is_asked_for_each_fold(tmp_path):
    class Cutting(TinyTask):
        def __init__(self, samples: int = 12, fold: str = "") -> None:
            super().__init__(samples)
            self.fold = fold

        def fold_options(self, fold: str) -> dict[str, Any]:
            return {"fold": fold}

        def read(self, data: Path | None, seed: int) -> Splits:
            splits = super().read(data, seed)
            return replace(splits, val=None) if self.fold == "all" else replace(splits, source=f"cut {self.fold}")

    asked = request(tmp_path / "run", folds=2, **{"loop.max_steps": 2})
    done = start(replace(asked, live={**asked.live, "live:task": Cutting}))
    assert done.status == "done"
    sources = [json.loads((tmp_path / "run" / "folds" / n / "plan.json").read_text())["data"] for n in "12"]
    assert [each["source"] for each in sources] == ["cut 1/2", "cut 2/2"]
    assert [each["samples"] for each in sources] == [{"train": 12, "val": 4}] * 2
    final = json.loads((tmp_path / "run" / "final" / "plan.json").read_text())["data"]["samples"]
    assert final == {"train": 12, "test": 4}


def test_a_loss_without_losses_of_samples_is_asked_sample_by_sample(tmp_path):
    class Sums(torch.nn.Module):
        def forward(self, logits: torch.Tensor, labels: torch.Tensor) -> LossOutput:
            total = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum")
            return LossOutput(total, (labels != -100).sum())

    settings = {**SETTINGS, "folds": 2, "loop.max_steps": 2, "refit": False}
    start(tiny_request({**settings, "out": str(tmp_path / "own")}, loss=Sums))
    start(tiny_request({**settings, "out": str(tmp_path / "told")}))
    own, told = (
        [json.loads(line)["loss"] for line in (tmp_path / name / "out-of-fold.jsonl").read_text().splitlines()]
        for name in ("own", "told")
    )
    assert own == pytest.approx(told, rel=1e-5)


def test_a_plan_by_a_strategy_may_ask_for_folds_and_the_user_may_refuse(tmp_path):
    class Folding(tiny.TinyStrategy):
        def __init__(self) -> None:
            super().__init__((Stage(steps=1),), {"folds": 2})

    done = run(task=TinyTask(), strategy=Folding(), callback="none", settings={"out": str(tmp_path / "a")})
    assert done.summary["folds"] == 2
    plain = run(
        task=TinyTask(), strategy=Folding(), callback="none", settings={"out": str(tmp_path / "b"), "folds": None}
    )
    assert "folds" not in plain.summary


def test_folds_that_cannot_be_are_refused_before_anything_is_written(tmp_path):
    out = tmp_path / "run"
    with pytest.raises(DataError, match="40 folds need 40 samples at least, and training and validation have 32"):
        start(request(out, folds=40))
    with pytest.raises(UsageError, match="greater than or equal to 2"):
        start(request(out, folds=1))
    with pytest.raises(UsageError, match="there is no fold '7/5'"):
        start(request(out, folds=None, fold="7/5"))
    with pytest.raises(UsageError, match="contradict each other"):
        start(request(out, fold="1/5"))
    with pytest.raises(UsageError, match=r"plateau waits for val/loss(.|\n)*refit=false"):
        start(request(out, scheduler="plateau"))
    locked = replace(request(out), live={**request(out).live, "live:callback0": (lambda: (yield))()})
    with pytest.raises(UsageError, match="cannot be copied"):
        start(locked)
    assert not out.exists()


def test_damage_to_the_record_is_told(reference, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(reference, out)
    (out / "folds.json").write_text('{"runs": [{"fold": "9/5"}]}')
    with pytest.raises(CheckpointError, match="damaged"):
        resume(out, to_resume(request(out)))


def test_the_end_is_forecast_over_all_runs(reference):
    asked = request(reference.parent / "unused")
    draft = make_draft(asked.layers, asked.registry, asked.live)
    planned = plan_folds(draft, asked.live)
    assert [each.steps for each in planned.folds] == [14, 14, 14, 14, 14, 16]


def test_the_command_line_shows_progress_and_results_as_one(cli):
    done = cli(
        "run", *TINY, "--folds", 2, "--epochs", 1, "--batch-size", 4, "--out", "mine", "--set", "loop.log_every_steps=1"
    )
    assert done.code == 0, done.err
    assert "fold=1/2 step=1/4" in done.err
    assert "final: 32 training samples" in done.err
    assert "fold 2/2: done at step 4/4" in done.err
    lines = done.out.splitlines()
    assert lines[0].startswith("validation by fold")
    assert any(line.split()[:4] == ["mean", "sd", "95", "%"] for line in lines)
    assert "mean of the best of 2 folds" in done.out
    assert "test by the final model" in done.out
    document = json.loads(cli("evaluate", "mine", "--json").out)
    assert document["test/loss"] > 0
    again = cli("run", "--resume", "mine", "--json")
    assert json.loads(again.out)["folds"] == 2
    Path("data").mkdir()
    write_sequences(Path("data"))
    found = cli("run", *TINY, "--folds", 2, "--data", "data", "--epochs", 1, "-q", "--out", "theirs")
    assert found.code == 0, found.err
