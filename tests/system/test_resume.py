"""A run that is stopped at any moment and goes on is, to the bit, the run that was left alone."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest
import torch
from trainkit import hookimpl
from trainkit.api import Request, evaluate, resume, start
from trainkit.checkpoint import Checkpoints
from trainkit.errors import CheckpointError, DataError, ExitCode, PluginError, UsageError
from trainkit.rundir import rows
from trainkit.testing import tiny
from trainkit.testing.tiny import TinyTask, tiny_request
from trainkit.testing.tinyfiles import write_sequences

if TYPE_CHECKING:
    from trainkit.live import Run
    from trainkit.plan import Stage


def _load(name: str) -> ModuleType:
    """Return the module that the kill tests and these share: the run with everything in it that has state."""
    path = Path(__file__).parents[1] / "faults" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


kills = _load("kills")
LAST = 30
TINY = ("--task", f"{tiny.__file__}:TinyTask", "--strategy", "baseline", "--callback", "no:tensorboard")


class StopAt:
    """Do what a signal's handler does, the first time that an event comes at or after a step.

    Args:
        event: name of the event; 'window' is the middle of a window of micro-batches.
        step: optimizer steps done.
        number: the signal.
    """

    def __init__(self, event: str, step: int, number: int = signal.SIGUSR1) -> None:
        self.event, self.step, self.number = event, step, number
        self.micro_batches = 0

    def hear(self, event: str, run: Run) -> None:
        if event == self.event and run.moment.step >= self.step and run.signal is None:
            run.signal = self.number
            self.event = "over"

    @hookimpl
    def on_stage_start(self, run: Run, stage: Stage) -> None:
        self.hear("stage start", run)

    @hookimpl
    def on_epoch_start(self, run: Run) -> None:
        self.hear("epoch start", run)

    @hookimpl
    def on_loss(self, run: Run) -> None:
        self.micro_batches += 1
        if self.micro_batches % 2:
            self.hear("window", run)

    @hookimpl
    def on_gradients(self, run: Run) -> None:
        self.hear("gradients", run)

    @hookimpl
    def on_step(self, run: Run) -> None:
        self.hear("step", run)

    @hookimpl
    def on_log(self, run: Run, row: Mapping[str, float]) -> None:
        self.hear("row", run)

    @hookimpl
    def before_evaluation(self, run: Run, split: str) -> None:
        self.hear(f"evaluation of {split}", run)

    @hookimpl
    def after_evaluation(self, run: Run, split: str, results: Mapping[str, float]) -> None:
        best = run.best.value
        if split == "val" and results and (best is None or results["val/loss"] < best):
            self.hear("best", run)

    @hookimpl
    def on_checkpoint(self, run: Run) -> None:
        self.hear("checkpoint", run)

    @hookimpl
    def on_epoch_end(self, run: Run) -> None:
        self.hear("epoch end", run)

    @hookimpl
    def on_stage_end(self, run: Run, stage: Stage) -> None:
        self.hear("stage end", run)


def to_resume(asked: Request) -> Request:
    """Return the request that resumes what this one started: its live objects, none of its settings."""
    return Request((), asked.live, asked.registry, asked.listeners, report=asked.report)


def carried_out(out: Path, stops: list[StopAt], request: Callable[[Path], Request] = kills.request) -> int:
    """Carry out a run in a chain of processes that are stopped one after the other; return how many were stopped."""
    stopped = 0
    for number, stop in enumerate([*stops, None]):
        asked = request(out)
        if stop is not None:
            asked = dataclasses.replace(asked, listeners=[("stop", stop)])
        result = resume(out, to_resume(asked)) if number else start(asked)
        status = json.loads((out / "status.json").read_text())
        assert status["state"] == result.status
        assert status["exit_code"] == result.exit_code
        if result.status == "done":
            return stopped
        assert (result.status, result.exit_code) == ("stopped", ExitCode.STOPPED)
        assert status["step"] == result.summary["steps"]
        stopped += 1
    raise AssertionError(f"not done after {stopped} stops")


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return the state of the run that was left alone: its last checkpoint, its rows and its results."""
    out = tmp_path_factory.mktemp("reference") / "run"
    assert carried_out(out, []) == 0
    found: dict[str, Any] = kills.state_of(out)
    assert found["step"] == LAST
    return found


def test_the_reference_has_a_best_in_the_middle_and_two_stages(reference):
    values = [row["val/loss"] for row in reference["rows"] if "val/loss" in row]
    assert len(values) >= 6
    assert {row["step"] for row in reference["rows"]} >= {4, 7, 10, LAST}


@pytest.mark.parametrize(
    ("event", "steps"),
    [
        ("step", (1, 2, 3)),
        ("step", (5, 10, 20)),
        ("window", (0, 4, 15)),
        ("gradients", (2, 9, 29)),
        ("row", (4, 12, 28)),
        ("evaluation of val", (3, 7, 14)),
        ("evaluation of val", (5, 10, LAST)),
        ("evaluation of train", (LAST, LAST, LAST)),
        ("evaluation of test", (LAST, LAST, LAST)),
        ("best", (1, 8, 15)),
        ("checkpoint", (3, 9, 21)),
        ("epoch start", (0, 5, 20)),
        ("epoch end", (5, 10, LAST)),
        ("stage start", (0, 10)),
        ("stage end", (10, LAST)),
    ],
    ids=str,
)
def test_three_stops_change_nothing(tmp_path, reference, event, steps):
    out = tmp_path / "run"
    assert carried_out(out, [StopAt(event, step) for step in steps]) == len(steps)
    assert kills.state_of(out) == reference


def test_stops_of_different_kinds_in_one_run_change_nothing(tmp_path, reference):
    stops = [StopAt(*moment) for moment in (("window", 1), ("best", 4), ("stage end", 9), ("step", 20), ("row", 25))]
    assert carried_out(tmp_path / "run", stops) == 5
    assert kills.state_of(tmp_path / "run") == reference


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, ExitCode.TERMINATED), (signal.SIGINT, ExitCode.INTERRUPTED)]
)
def test_every_signal_ends_with_its_code_and_a_checkpoint_of_its_step(tmp_path, reference, number, code):
    out = tmp_path / "run"
    result = start(dataclasses.replace(kills.request(out), listeners=[("stop", StopAt("step", 8, number))]))
    assert (result.status, result.exit_code) == ("interrupted", code)
    assert Checkpoints(out / "checkpoints", read_only=True).newest_valid().step == 8
    assert carried_out_from(out) == "done"
    assert kills.state_of(out) == reference


def carried_out_from(out: Path, *layers: dict[str, Any]) -> str:
    """Resume the run with everything in it, to its end; return its status."""
    asked = to_resume(kills.request(out))
    return resume(out, dataclasses.replace(asked, layers=[tiny.layer_of(layer, "test") for layer in layers])).status


class SignalWhileReading(TinyTask):
    """Be stopped while the batch of a step is made: nothing is between that step and the one before."""

    def __init__(self, batch: int) -> None:
        super().__init__()
        self.batch, self.made, self.run = batch, 0, None

    def collate(self, samples: Any) -> Any:
        self.made += 1
        if self.made == self.batch and self.run is not None:
            self.run.signal = signal.SIGTERM
        return super().collate(samples)

    @hookimpl
    def on_run_start(self, run: Run) -> None:
        self.run = run


def test_a_signal_while_data_is_read_finds_the_last_step_saved(tmp_path):
    task = SignalWhileReading(4)
    asked = tiny_request({"out": str(tmp_path / "run"), "checkpoint.every_epochs": None}, task=task)
    result = start(dataclasses.replace(asked, listeners=[("task", task)]))
    assert (result.status, result.summary["steps"]) == ("interrupted", 3)
    assert Checkpoints(tmp_path / "run" / "checkpoints", read_only=True).newest_valid().step == 3


def test_a_second_resume_of_a_finished_run_says_so_and_changes_nothing(cli):
    asked = (*TINY, "--epochs", 2, "--metric", "token-accuracy", "--set", "optimizer.lr=0.05")
    first = cli("run", *asked, "--out", "mine")
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in Path("mine").rglob("*") if path.is_file()}
    before.pop(Path("mine/run.lock"))
    again = cli("run", "--resume", "mine")
    assert again.code == 0
    assert again.out == first.out
    assert again.err == "this run is done: nothing is left to train\n"
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in before} == before
    assert json.loads(cli("run", "--resume", "mine", "--json").out)["steps"] == 4
    assert cli("run", "--resume", "mine", "-q").out == ""


def test_a_resumed_finished_run_has_its_best_weights(tmp_path):
    asked = tiny_request({"out": str(tmp_path / "run"), "optimizer.lr": 0.05}, stages=[tiny.Stage(epochs=4)])
    first = start(asked)
    again = resume(tmp_path / "run", to_resume(asked))
    assert again.summary == first.summary
    for name, weight in first.model.state_dict().items():
        assert torch.equal(weight, again.model.state_dict()[name])


def early_stopping(out: Path) -> Request:
    """Return a run that early stopping ends: evaluated every two steps, at a rate that soon ruins it."""
    settings = {
        "out": str(out),
        "loop.batch_size": 4,
        "optimizer.lr": 0.5,
        "evaluate.every_steps": 2,
        "checkpoint.every_steps": 1,
        "callback": ["early-stopping"],
        "callback.early-stopping.patience": 5,
    }
    asked = tiny_request({}, stages=[tiny.Stage(epochs=40)])
    return dataclasses.replace(asked, layers=[*asked.layers, tiny.layer_of(settings, "test")])


def test_the_patience_of_early_stopping_survives_stops(tmp_path):
    assert carried_out(tmp_path / "alone", [], early_stopping) == 0
    alone = json.loads((tmp_path / "alone" / "results.json").read_text())
    assert "val/loss" in alone["stop_reason"]
    last = alone["steps"]
    stops = [StopAt("step", last - 7), StopAt("evaluation of val", last - 4), StopAt("step", last - 1)]
    # The reason to stop is saved by then; what an epoch ends with, an evaluation, is still to come.
    stops.append(StopAt("epoch end", last))
    assert carried_out(tmp_path / "stopped", stops, early_stopping) == 4
    stopped = json.loads((tmp_path / "stopped" / "results.json").read_text())
    for key in ("steps", "stop_reason", "best", "best_step", "results"):
        assert stopped[key] == alone[key], key


def test_workers_change_nothing_neither_from_the_start_nor_on_resume(tmp_path, reference):
    def with_workers(out: Path) -> Request:
        asked = kills.request(out)
        return dataclasses.replace(asked, layers=[*asked.layers, tiny.layer_of({"loop.workers": 2}, "test")])

    assert carried_out(tmp_path / "workers", [StopAt("window", 12)], with_workers) == 1
    assert kills.state_of(tmp_path / "workers") == reference
    start(dataclasses.replace(kills.request(tmp_path / "resumed"), listeners=[("stop", StopAt("step", 6))]))
    assert carried_out_from(tmp_path / "resumed", {"loop.workers": 2, "checkpoint.every_steps": 5}) == "done"
    states = [kills.state_of(tmp_path / "resumed"), reference]
    assert states[0]["files"] == states[1]["files"]
    assert states[0]["rows"] == states[1]["rows"]


def test_what_would_change_the_result_is_refused_by_name(cli):
    cli("run", *TINY, "--epochs", 4, "--seed", 3, "--out", "mine", "--set", "optimizer.lr=0.01", "--max-steps", 3)
    for arguments, key in (
        (("--seed", 4), "seed"),
        (("--set", "optimizer.lr=0.02"), "optimizer.lr"),
        (("--epochs", 5), "loop.epochs"),
        (("--metric", "token-accuracy"), "metric"),
        (("--callback", "early-stopping"), "callback"),
        (("--out", "other"), "out"),
    ):
        done = cli("run", "--resume", "mine", *arguments)
        assert done.code == 2, done
        assert done.err.startswith(f"error: {key} cannot change when a run resumes\n  where: {arguments[0]}"), done.err
        assert done.out == ""


def test_the_command_that_began_a_run_may_be_repeated_to_resume_it(cli, monkeypatch):
    monkeypatch.setenv("TRAINKIT_SEED", "1")
    monkeypatch.setenv("TRAINKIT_CALLBACK", "early-stopping")
    asked = (*TINY, "--epochs", 2, "--seed", 2, "--metric", "token-accuracy", "--out", "mine")
    assert cli("run", *asked).code == 0
    assert json.loads(Path("mine/resolved.json").read_text())["seed"][-1]["value"] == 2
    repeated = cli("run", *asked, "--resume", "mine")
    assert repeated.code == 0, repeated.err
    monkeypatch.setenv("TRAINKIT_SEED", "5")
    changed = cli("run", "--resume", "mine")
    assert changed.code == 2
    assert "where: $TRAINKIT_SEED" in changed.err


def stopped_run(out: Path, **arguments: Any) -> Request:
    """Stop a tiny run at its third step; return the request that resumes it."""
    settings = {"out": str(out), "loop.workers": 0} | arguments.pop("settings", {})
    asked = tiny_request(settings, **arguments)
    start(dataclasses.replace(asked, listeners=[("stop", StopAt("step", 3))]))
    return to_resume(asked)


def test_changed_data_is_refused(tmp_path):
    asked = stopped_run(tmp_path / "run")
    before = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    live = {**asked.live, "live:task": TinyTask(samples=25)}
    with pytest.raises(CheckpointError, match="the data is not what the run was trained on") as refused:
        resume(tmp_path / "run", dataclasses.replace(asked, live=live))
    assert refused.value.exit_code == 6
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == before
    assert resume(tmp_path / "run", asked).status == "done"


def test_moved_data_is_found_by_its_new_path(tmp_path):
    data = str(write_sequences(tmp_path / "data"))
    asked = stopped_run(tmp_path / "run", settings={"data": data, "loop.batch_size": 2})
    elsewhere = str((tmp_path / "data").rename(tmp_path / "elsewhere"))
    with pytest.raises(DataError, match="a file cannot be read"):
        resume(tmp_path / "run", asked)
    moved = dataclasses.replace(asked, layers=[tiny.layer_of({"data": elsewhere}, "--data")])
    assert resume(tmp_path / "run", moved).status == "done"


def test_a_component_that_is_gone_is_named(cli, tmp_path):
    Path("mine.py").write_text("class Mine:\n    pass\n")
    cli("run", *TINY, "--epochs", 1, "--callback", "./mine.py:Mine", "--out", "mine", "--max-steps", 1)
    Path("mine/status.json").write_text('{"state": "stopped"}')
    done = cli("run", "--resume", "mine", "-p", "no:adamw")
    assert done.code == 4
    assert "optimizer 'adamw' cannot be used: it is in the block list" in done.err
    Path("mine.py").unlink()
    done = cli("run", "--resume", "mine")
    assert done.code == 2
    assert "there is no file ./mine.py" in done.err


def test_a_resumed_run_needs_its_live_objects(tmp_path):
    stopped_run(tmp_path / "run")
    with pytest.raises((PluginError, UsageError), match="live:task"):
        resume(tmp_path / "run")


def test_a_state_of_other_components_is_refused(tmp_path):
    asked = stopped_run(tmp_path / "run", callbacks=[kills.Average()])
    live = {**asked.live, "live:callback0": object()}
    with pytest.raises(CheckpointError, match="components that keep state"):
        resume(tmp_path / "run", dataclasses.replace(asked, live=live))


class Averaged:
    """Evaluate the mean of the head's bias over all steps in place of the bias."""

    def __init__(self) -> None:
        self.steps, self.mean, self.kept = 0, torch.zeros(13), torch.zeros(13)

    @hookimpl
    def on_step(self, run: Run) -> None:
        self.steps += 1
        self.mean = self.mean.lerp(run.learnable["head.bias"].detach(), 1 / self.steps)

    @hookimpl
    def before_evaluation(self, run: Run) -> None:
        self.kept = run.learnable["head.bias"].detach().clone()
        run.learnable["head.bias"].data.copy_(self.mean)

    @hookimpl
    def after_evaluation(self, run: Run) -> None:
        run.learnable["head.bias"].data.copy_(self.kept)

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps, "mean": self.mean}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.steps, self.mean = state["steps"], state["mean"].clone()


def soon_ruined(out: Path, *callbacks: object) -> Request:
    """Return a run whose loss has a parameter of its own, and whose best weights are not its last."""
    settings = {"out": str(out), "optimizer.lr": 0.6, "evaluate.every_steps": 1}
    return tiny_request(settings, stages=[tiny.Stage(epochs=5)], loss=kills.Learned, callbacks=callbacks)


def test_averaged_weights_come_back_with_the_best_ones(tmp_path):
    asked = soon_ruined(tmp_path / "run", Averaged())
    done = start(asked).summary
    assert done["best_step"] < done["steps"]
    assert done["results"]["model"]["val/loss"] == done["best"]
    again = dataclasses.replace(to_resume(asked), live={**asked.live, "live:callback0": Averaged()})
    assert evaluate(tmp_path / "run", "val", again)["val/loss"] == done["best"]


def test_an_evaluation_takes_the_loss_as_it_was_at_the_best(tmp_path):
    asked = soon_ruined(tmp_path / "run")
    done = start(asked).summary
    assert done["best_step"] < done["steps"]
    assert done["results"]["model"]["val/loss"] == done["best"]
    again = to_resume(asked)
    assert evaluate(tmp_path / "run", "val", again)["val/loss"] == done["best"]
    other = dataclasses.replace(again, live={**again.live, "live:task": TinyTask(samples=25)})
    with pytest.raises(CheckpointError, match="the data is not what the run was trained on"):
        evaluate(tmp_path / "run", "val", other)


def test_rows_are_neither_lost_nor_doubled(tmp_path):
    out = tmp_path / "run"
    assert carried_out(out, [StopAt("step", 6), StopAt("row", 13), StopAt("evaluation of val", 20)]) == 3
    steps = [row["step"] for row in rows(out / "metrics.jsonl") if "train/loss" in row]
    assert steps == sorted(set(steps))
