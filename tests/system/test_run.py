"""`trainkit run` as a user types it."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import pytest
from trainkit.rundir import rows
from trainkit.storage import strict_json
from trainkit.testing import tiny

TASK = ("--task", f"{tiny.__file__}:TinyTask", "--callback", "no:tensorboard")
TINY = (*TASK, "--strategy", "baseline", "--epochs", "2")
CHATTY = """
from trainkit import hookimpl

class Chatty:
    @hookimpl
    def on_step(self, run):
        print("from a component")

class Vague:
    higher_is_better = True
    def update(self, labels): pass
    def compute(self): return {"part": float("nan")}
    def reset(self): pass
"""


def only_run() -> Path:
    """Return the one directory under runs/."""
    (found,) = Path("runs").iterdir()
    return found


def resolved(directory: Path | str) -> dict[str, Any]:
    """Return the values in force of a run, by key."""
    document = json.loads((Path(directory) / "resolved.json").read_text())
    return {key: values[-1]["value"] for key, values in document.items()}


@pytest.mark.parametrize(
    ("arguments", "strategy"),
    [((), "phase1"), (("--strategy", "phase2", "--loss", "multitask"), "phase2")],
    ids=["no arguments", "phase2 multitask"],
)
def test_the_embedded_sample_ends_in_a_table_beside_the_baselines(cli, arguments, strategy):
    done = cli("run", *arguments, "--max-steps", 3, "--set", "evaluate.train_samples=5")
    assert done.code == 0, done.err
    head, *lines = done.out.splitlines()
    assert head.startswith("results (best checkpoint; trivial baselines beside it)")
    # What is wider than the terminal goes on in a block below, with the same first column.
    baselines = {"all-pad", "majority", "usual"}
    assert [name for line in lines for name in line.split() if baselines.issuperset(line.split())] == sorted(baselines)
    assert lines[1].split()[:3] == ["train", "val", "test"]
    table = {line.split()[0]: line.split()[1:] for line in reversed(lines[2:-1]) if line}
    assert {"loss", "token-accuracy", "element-f1"} <= set(table)
    assert all(0 <= float(cell) <= 1 for cell in table["token-accuracy"])
    assert float(table["loss"][0]) > 0
    directory = only_run()
    assert lines[-1] == f"run directory: {directory}"
    assert directory.name.startswith("layout-")
    assert f"strategy {strategy}" in done.err
    assert "3/3" in done.err
    assert json.loads((directory / "status.json").read_text())["state"] == "done"
    assert {path.name for path in directory.iterdir()} >= {
        "README.md", "checkpoints", "config.toml", "environment.json", "metrics.jsonl", "plan.json", "report.html",
        "resolved.toml", "results.json", "tensorboard",
    }  # fmt: skip


def test_json_is_one_strict_object_and_alone_on_standard_output(cli, tmp_path):
    Path("mine.py").write_text(CHATTY)
    done = cli("run", *TINY, "--callback", "./mine.py:Chatty", "--metric", "./mine.py:Vague", "--json")
    assert done.code == 0, done.err
    assert done.out.count("\n") == 1
    document = strict_json.loads(done.out)
    assert document["status"] == "done"
    assert document["steps"] == 4
    assert Path(document["directory"]) == only_run()
    assert document["results"]["model"]["test/Vague"] == "nan"
    assert done.err.count("from a component") == 4


def test_quiet_says_nothing_at_all(cli):
    done = cli("run", *TINY, "--loss", "multitask", "--quiet")
    assert (done.code, done.out, done.err) == (0, "", "")
    done = cli("run", *TINY, "--out", "other", "--json", "-q")
    assert (done.code, done.err) == (0, "")
    assert json.loads(done.out)["steps"] == 4


def test_what_was_asked_for_goes_by_file_then_environment_then_flags(cli, monkeypatch):
    Path("run.toml").write_text(
        f"""
        seed = 1
        name = "from-file"
        task = "{tiny.__file__}:TinyTask"
        strategy = "baseline"
        callback = "no:tensorboard"
        [loop]
        epochs = 4
        batch_size = 6
        clip = 0.5
        [optimizer]
        lr = 0.02
        [[metric]]
        use = "token-accuracy"
        """
    )
    monkeypatch.setenv("TRAINKIT_LOOP__EPOCHS", "3")
    monkeypatch.setenv("TRAINKIT_LOOP__BATCH_SIZE", "8")
    monkeypatch.setenv("TRAINKIT_OPTIMIZER__WEIGHT_DECAY", "0.1")
    done = cli("run", "run.toml", "--set", "loop.epochs=1", "--epochs", "2", "--set", "loop.accumulate=2")
    assert done.code == 0, done.err
    directory = only_run()
    assert directory.name.startswith("from-file-")
    found = resolved(directory)
    assert found["seed"] == 1
    assert found["loop.epochs"] == 2
    assert found["loop.batch_size"] == 8
    assert (found["loop.clip"], found["loop.accumulate"]) == (0.5, 2)
    assert (found["optimizer.lr"], found["optimizer.weight_decay"]) == (0.02, 0.1)
    assert found["metric"] == ["token-accuracy"]
    assert "token-accuracy" in done.out
    # 24 samples in micro-batches of 8, two of them a step: 2 steps an epoch.
    assert json.loads((directory / "results.json").read_text())["steps"] == 4


def test_set_gives_options_to_the_component_that_a_flag_names(cli):
    named = "adamw@trainkit-optimizer-adamw"
    done = cli("run", *TINY, "--set", "optimizer.lr=0.0625", "--optimizer", named, "--set", "task.samples=9")
    assert done.code == 0, done.err
    assert resolved(only_run())["optimizer.lr"] == 0.0625
    assert "9 training samples" in done.err
    rates = [row["train/learning_rate"] for row in rows(only_run() / "metrics.jsonl") if "train/learning_rate" in row]
    assert max(rates) <= 0.0625
    assert max(rates) > 0.01


def test_an_object_of_a_file_goes_by_its_own_name(cli):
    Path("mine.py").write_text(
        "from trainkit import hookimpl\n"
        "class Stop:\n"
        "    def __init__(self, at: int = 1):\n"
        "        self.at = at\n"
        "    @hookimpl\n"
        "    def on_step(self, run):\n"
        "        if run.moment.step == self.at:\n"
        "            run.stop('enough')\n"
    )
    done = cli("run", *TINY, "--callback", "./mine.py:Stop", "--set", "callback.Stop.at=3", "--json")
    assert done.code == 0, done.err
    assert (json.loads(done.out)["steps"], json.loads(done.out)["stop_reason"]) == (3, "enough")
    why = cli("plan", *TINY, "--callback", "./mine.py:Stop", "--set", "callback.Stop.at=x", "--no-cost")
    assert why.code == 2
    assert "where: --set callback.Stop.at" in why.err


def test_options_of_a_callback_that_is_not_in_the_list_are_refused(cli):
    done = cli("run", *TINY, "--callback", "early-stopping", "--set", "callback.early-stoping.patience=2")
    assert done.code == 2
    assert "this run has no callback 'early-stoping'" in done.err


def test_a_written_config_runs_again_to_the_same_weights(cli):
    first = cli("run", *TINY, "--set", "optimizer.lr=0.01", "--out", "first", "--metric", "token-accuracy")
    again = cli("run", "first/config.toml", "--out", "again")
    full = cli("run", "first/resolved.toml", "--out", "full")
    assert (first.code, again.code, full.code) == (0, 0, 0), again.err + full.err
    tables = [json.loads(Path(name, "results.json").read_text())["results"] for name in ("first", "again", "full")]
    assert tables[0] == tables[1] == tables[2]


def test_names_come_from_the_task_and_never_hold_its_path(cli):
    assert cli("run", *TINY).code == 0
    assert only_run().name.startswith("TinyTask-")


def test_runs_that_begin_at_the_same_time_have_directories_of_their_own(cli, tmp_path):
    children = []
    for _ in range(4):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                from trainkit.api import start

                start(tiny.tiny_request({"loop.max_steps": 1}))
                code = 0
            finally:
                os._exit(code)
        children.append(child)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * 4
    states = [json.loads((path / "status.json").read_text())["state"] for path in Path("runs").iterdir()]
    assert states == ["done"] * 4


def test_a_run_directory_is_never_written_over(cli):
    assert cli("run", *TINY, "--out", "mine").code == 0
    before = {path: path.stat().st_mtime_ns for path in Path("mine").rglob("*")}
    again = cli("run", *TINY, "--out", "mine")
    assert again.code == 2
    assert "the run directory is not empty" in again.err
    assert "--resume mine" in again.err
    assert {path: path.stat().st_mtime_ns for path in Path("mine").rglob("*")} == before


def test_a_task_without_validation_keeps_its_last_weights(cli):
    Path("mine.py").write_text(
        "from trainkit import Splits\n"
        "from trainkit.testing.tiny import TinyTask\n"
        "class Task(TinyTask):\n"
        "    def read(self, data, seed):\n"
        "        splits = super().read(data, seed)\n"
        "        return Splits(splits.train, None, None, 'no others', splits.fingerprint)\n"
    )
    done = cli("run", *TINY, "--task", "./mine.py:Task", "--out", "mine")
    assert done.code == 0, done.err
    assert done.out.startswith("results (last weights; trivial baselines beside it)")
    assert "val" not in done.out.splitlines()[1]
    assert cli("run", "--resume", "mine").code == 0


def test_a_batch_larger_than_the_data_and_a_window_longer_than_an_epoch_are_one_step(cli):
    done = cli("run", *TINY, "--batch-size", 1000, "--set", "loop.accumulate=50", "--json")
    assert json.loads(done.out)["steps"] == 2


def test_one_sample_is_enough_to_try(cli):
    done = cli("run", *TINY, "--set", "task.samples=1", "--json")
    document = json.loads(done.out)
    assert document["steps"] == 2
    assert math.isfinite(document["best"])
