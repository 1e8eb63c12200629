"""Components that fail while a run is under way are named, the run is marked as failed, and goes on once they work."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from trainkit.testing import tiny

TINY = (
    "--task", f"{tiny.__file__}:TinyTask", "--strategy", "baseline", "--epochs", "4",
    "--callback", "no:tensorboard", "--set", "checkpoint.every_steps=1", "--out", "mine",
)  # fmt: skip

PARTS = """
import errno, os
import torch
from torch import nn
from trainkit import LossOutput, hookimpl
from trainkit.testing.tiny import TinyTask

calls = 0

def helper():
    {fault}

def act(at=3):
    global calls
    calls += 1
    if calls == at:
        helper()

class Callback:
    @hookimpl
    def on_step(self, run):
        act()

class Gradients:
    @hookimpl
    def on_gradients(self, run, norm):
        act()

class AtTheEnd:
    @hookimpl
    def on_run_end(self, run, status):
        if status == "done":
            helper()

class Loss(nn.Module):
    def forward(self, logits, labels):
        if self.training:
            act()
        return LossOutput(nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum"), 1)

class Optimizer(torch.optim.SGD):
    def __init__(self, params, lr: float = 0.1):
        super().__init__(params, lr)

    def step(self, closure=None):
        act()
        return super().step(closure)

def scheduler(optimizer, total_steps):
    class Scheduler(torch.optim.lr_scheduler.LambdaLR):
        def step(self, epoch=None):
            if self.optimizer.state:  # a run's: to draw and to check the rates, nothing learns
                act()
            super().step(epoch)
    return Scheduler(optimizer, lambda step: 1.0)

class Metric:
    higher_is_better = True
    def update(self, labels):
        act()
    def compute(self):
        return 1.0
    def reset(self):
        pass

class Augmenter:
    reads = frozenset({{"tokens"}})
    def __call__(self, sample, generator):
        act()
        return sample

class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.head = nn.Embedding(13, 8), nn.Linear(8, 13)

    def forward(self, tokens):
        if self.training:
            act()
        return self.head(self.embedding(tokens))

class Task(TinyTask):
    def build_model(self):
        return Model()

class Collating(TinyTask):
    def collate(self, samples):
        act()
        return super().collate(samples)
"""


def write(fault: str) -> None:
    """Write the parts, all of which have a fault: a statement that is executed once, at a later call."""
    Path("parts.py").write_text(PARTS.format(fault=fault))


def status() -> dict[str, object]:
    """Return the status file."""
    found: dict[str, object] = json.loads(Path("mine/status.json").read_text())
    return found


@pytest.mark.parametrize(
    ("arguments", "label"),
    [
        (("--callback", "./parts.py:Callback"), "callback ./parts.py:Callback"),
        (("--callback", "./parts.py:Gradients"), "callback ./parts.py:Gradients"),
        (("--loss", "./parts.py:Loss"), "loss ./parts.py:Loss"),
        (("--optimizer", "./parts.py:Optimizer"), "optimizer ./parts.py:Optimizer"),
        (("--scheduler", "./parts.py:scheduler"), "scheduler ./parts.py:scheduler"),
        (("--metric", "./parts.py:Metric"), "metric Metric"),
        (("--augmenter", "./parts.py:Augmenter"), "augmenter ./parts.py:Augmenter"),
        (("--task", "./parts.py:Task"), "the model"),
        (("--task", "./parts.py:Collating"), "task ./parts.py:Collating"),
    ],
    ids=["callback", "gradients", "loss", "optimizer", "scheduler", "metric", "augmenter", "model", "task"],
)
def test_who_raised_is_named_and_the_run_goes_on_after_the_repair(cli, arguments, label):
    write("raise ValueError('not \\x1b[31mtoday')")
    done = cli("run", *TINY, *arguments)
    assert done.code == 1, done
    message = done.err[done.err.index("error: ") :]
    assert message.startswith(f"error: {label} raised ValueError "), message
    assert "not \N{REPLACEMENT CHARACTER}[31mtoday" in message
    assert "in helper" in message
    assert "go on: trainkit run --resume mine" in message
    assert "Traceback" not in done.err
    assert done.out == ""
    assert (status()["state"], status()["exit_code"]) == ("failed", 1)
    assert str(status()["reason"]).startswith(f"{label} raised ValueError")
    write("pass")
    again = cli("run", "--resume", "mine", "--json")
    assert again.code == 0, again.err
    assert json.loads(again.out)["steps"] == 8
    assert status()["state"] == "done"


@pytest.mark.parametrize(
    ("fault", "code", "texts"),
    [
        ("raise SystemExit(0)", 1, ["callback ./parts.py:Callback raised SystemExit after step 3: 0"]),
        ("raise RecursionError('deep')", 1, ["raised RecursionError"]),
        ("raise KeyError('missing')", 1, ["raised KeyError after step 3: missing"]),
        ("raise torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 2 GiB')", 7,
         ["out of memory after step 3, with micro-batches of 16", "Tried to allocate 2 GiB",
          "--set loop.batch_size=8 --set loop.accumulate=2", "--precision bf16", "gradient_checkpointing"]),
        ("raise MemoryError", 7, ["out of memory"]),
        ("raise OSError(errno.ENOSPC, 'No space left on device', 'a/b')", 7,
         ["a file cannot be written", "where: a/b", "No space left on device", "free space", "--resume"]),
        ("raise OSError(errno.EROFS, 'Read-only file system')", 7, ["where: mine", "make the file system writable"]),
        ("raise FileNotFoundError(2, 'No such file', 'x')", 1, ["raised FileNotFoundError"]),
    ],
    ids=["exit", "recursion", "key", "gpu-memory", "memory", "full", "read-only", "file"],
)  # fmt: skip
def test_how_a_component_fails_decides_about_the_exit_code(cli, fault, code, texts):
    write(fault)
    done = cli("run", *TINY, "--callback", "./parts.py:Callback")
    assert done.code == code, done
    for text in texts:
        assert text in done.err, done.err
    assert "Traceback" not in done.err
    assert "fault of trainkit" not in done.err
    assert (status()["state"], status()["exit_code"], status()["step"]) == ("failed", code, 3)
    write("pass")
    assert cli("run", "--resume", "mine", "-q").code == 0


def test_a_component_that_fails_at_the_end_fails_the_run(cli):
    write("raise ValueError('last words')")
    done = cli("run", *TINY, "--callback", "./parts.py:AtTheEnd")
    assert done.code == 1
    assert "callback ./parts.py:AtTheEnd raised ValueError after step 8: last words" in done.err
    assert status()["state"] == "failed"
    write("pass")
    assert cli("run", "--resume", "mine").code == 0


def test_a_component_that_fails_in_a_worker_is_placed(cli):
    write("raise ValueError('in a worker')")
    done = cli("run", *TINY, "--augmenter", "./parts.py:Augmenter", "--set", "loop.workers=1")
    assert done.code == 1, done
    assert "a worker process that prepares batches raised ValueError after step 2: in a worker" in done.err
    assert "parts.py:" in done.err
    assert "Traceback" not in done.err


def test_failures_of_a_plan_and_of_an_evaluation_are_told_the_same_way(cli):
    write("pass")
    assert cli("run", *TINY, "--loss", "./parts.py:Loss", "--metric", "./parts.py:Metric").code == 0
    write("raise ValueError('later')")
    plan = cli("plan", *TINY[:-2], "--loss", "./parts.py:Loss")
    assert (plan.code, plan.out) == (1, "")
    assert "loss ./parts.py:Loss raised ValueError" in plan.err
    Path("parts.py").write_text(Path("parts.py").read_text().replace("def act(at=3):", "def act(at=1):"))
    evaluation = cli("evaluate", "mine")
    assert evaluation.code == 1
    assert "metric Metric raised ValueError" in evaluation.err


@pytest.mark.parametrize(
    "kind", ["task", "strategy", "loss", "augmenter", "optimizer", "scheduler", "metric", "adapter"]
)
def test_objects_that_are_not_of_their_kind_are_refused_before_anything_is_written(cli, kind):
    Path("parts.py").write_text("class Thing:\n    defaults = {}\n    def __init__(self, *args, **kwargs): pass\n")
    done = cli("run", *TINY, f"--{kind}", "./parts.py:Thing")
    assert not Path("mine").exists()
    assert done.code == 4, done
    assert f"{kind} './parts.py:Thing' cannot be used" in done.err
    assert "missing: " in done.err


@pytest.mark.parametrize("command", ["plan", "run"])
def test_a_scheduler_that_fails_on_the_way_is_refused_before_anything_is_written(cli, command):
    Path("parts.py").write_text(
        "from torch.optim.lr_scheduler import LambdaLR\n"
        "def halves(optimizer):\n    return LambdaLR(optimizer, lambda step: 1 / (5 - step))\n"
    )
    done = cli(command, *(TINY if command == "run" else TINY[:-2]), "--scheduler", "./parts.py:halves")
    assert (done.code, done.out) == (4, "")
    assert "scheduler ./parts.py:halves failed when it was asked to give its learning rates" in done.err
    assert "ZeroDivisionError" in done.err
    assert not Path("mine").exists()


@pytest.mark.parametrize(
    ("code", "texts"),
    [
        ("raise ImportError('no such library')", ["ImportError: no such library", "parts.py, line 1"]),
        ("import sys; sys.exit(0)", ["SystemExit"]),
        ("def f(:", ["SyntaxError"]),
        ("class Other: pass", ["no object 'Thing'", "it defines: Other"]),
    ],
)
def test_files_that_cannot_be_imported(cli, code, texts):
    Path("parts.py").write_text(code)
    done = cli("run", *TINY, "--loss", "./parts.py:Thing")
    assert done.code == (2 if "Other" in code else 4)
    for text in texts:
        assert text in done.err
    assert not Path("mine").exists()


@pytest.mark.parametrize(
    ("method", "text"),
    [
        ("def read(self, data, seed): raise ZeroDivisionError('no data')", "the task failed when it was asked to read"),
        ("def fit(self, train): raise ZeroDivisionError('no fit')", "asked to fit"),
        ("def build_model(self): raise ZeroDivisionError('no model')", "asked to build its model"),
    ],
)
def test_a_task_that_fails_before_training_is_named(cli, method, text):
    Path("parts.py").write_text(f"from trainkit.testing.tiny import TinyTask\nclass Task(TinyTask):\n    {method}\n")
    done = cli("run", *TINY, "--task", "./parts.py:Task")
    assert done.code == 4
    assert text in done.err
    assert "ZeroDivisionError: no" in done.err
    assert not Path("mine").exists()


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_a_split_without_samples_is_refused(cli, split):
    Path("parts.py").write_text(
        "import dataclasses\n"
        "from trainkit.testing.tiny import TinyData, TinyTask\n"
        "class Task(TinyTask):\n"
        "    def read(self, data, seed):\n"
        f"        return dataclasses.replace(super().read(data, seed), {split}=TinyData(0, 1))\n"
    )
    done = cli("run", *TINY, "--task", "./parts.py:Task")
    assert done.code == 5
    assert f"the {split} split has no samples" in done.err
    assert not Path("mine").exists()


@pytest.mark.parametrize(
    ("answer", "text"),
    [("None", "metric Metric computes None"), ("'much'", "computes 'much'"), ("[1, 2]", "computes [1, 2]")],
)
def test_a_metric_that_computes_no_number(cli, answer, text):
    write("pass")
    Path("parts.py").write_text(Path("parts.py").read_text().replace("return 1.0", f"return {answer}"))
    done = cli("run", *TINY, "--metric", "./parts.py:Metric")
    assert done.code == 1
    assert text in done.err


def test_a_loss_that_is_not_finite_stops_before_the_update(cli):
    Path("parts.py").write_text(
        "from torch import nn\n"
        "class Loss(nn.Module):\n"
        "    calls = 0\n"
        "    def forward(self, logits, labels):\n"
        "        self.calls += self.training\n"
        "        loss = nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())\n"
        "        return loss * float('nan') if self.calls == 4 else loss\n"
    )
    done = cli("run", *TINY, "--loss", "./parts.py:Loss", "--set", "loop.nan_policy=stop")
    assert done.code == 1
    assert "is not finite" in done.err
    assert "the update was not applied; the last checkpoint is of step 3" in done.err
    assert "samples 1-" in done.err
    assert "optimizer.lr" in done.err
    assert status()["state"] == "failed"


def test_what_is_installed_but_not_named_changes_nothing(cli, monkeypatch, tmp_path):
    alone = json.loads(cli("run", *TINY, "--json").out)
    for name, code in (("exits", "import os; os._exit(9)"), ("hangs", "while True: pass"), ("raises", "1 / 0")):
        folder = tmp_path / "site" / f"fake_{name}-1.0.dist-info"
        folder.mkdir(parents=True)
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: fake-{name}\nVersion: 1.0\n")
        (folder / "entry_points.txt").write_text(f"[trainkit.loss]\n{name} = fake_{name}\n")
        (tmp_path / "site" / f"fake_{name}.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    listed = cli("plugins", "--kind", "loss")
    assert all(f"fake-{name}" in listed.out for name in ("exits", "hangs", "raises"))
    together = cli("run", *TINY[:-1], "together", "--json")
    assert together.code == 0, together.err
    assert json.loads(together.out)["results"] == alone["results"]
    named = cli("run", *TINY[:-1], "named", "--loss", "raises")
    assert named.code == 4
    assert "loss 'raises' cannot be used: it failed in the phase 'import'" in named.err
    assert "fake-raises 1.0" in named.err
    assert not Path("named").exists()


def test_a_disk_that_refuses_what_an_observer_writes(cli, monkeypatch):
    from torch.utils.tensorboard import SummaryWriter

    def refuse(*arguments: object, **named: object) -> None:
        raise OSError(28, "No space left on device", "mine/tensorboard/events")

    with monkeypatch.context() as patched:
        patched.setattr(SummaryWriter, "add_scalar", refuse)
        arguments = [argument for argument in TINY if argument not in ("--callback", "no:tensorboard")]
        done = cli("run", *arguments, "--set", "loop.log_every_steps=3")
    assert done.code == 7, done
    assert "where: mine/tensorboard/events" in done.err
    again = cli("run", "--resume", "mine")
    assert again.code == 0, again.err


def test_a_path_with_a_space_is_quoted_where_it_is_to_be_typed(cli):
    write("raise ValueError")
    done = cli("run", *TINY[:-1], "my run", "--callback", "./parts.py:Callback")
    assert "trainkit run --resume 'my run'" in done.err
