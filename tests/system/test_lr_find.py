"""`trainkit lr-find`, and `--set lr_find=true`, as a user types them."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from trainkit.testing import tiny

TASK = ("--task", f"{tiny.__file__}:TinyTask", "--callback", "no:tensorboard", "--set", "task.samples=64")
TINY = (*TASK, "--strategy", "baseline", "--epochs", "2")
SLOW = """
import time
from trainkit import hookimpl
from trainkit.testing.tiny import TinyTask

class Slow(TinyTask):
    @hookimpl
    def on_step(self, run):
        print("step", flush=True)
        time.sleep(0.05)
"""
FREE = """
import torch

class Free(torch.optim.SGD):
    takes_rate = False
    def __init__(self, params, lr: float = 1.0):
        super().__init__(params, lr=lr)
"""
FLAT = """
from torch import nn
from trainkit import LossOutput

class Flat(nn.Module):
    def forward(self, logits):
        return LossOutput(logits.sum() * 0.0 + 2.0 * len(logits), len(logits))
"""


def test_it_prints_three_suggestions_draws_and_writes_record_and_plot(cli):
    done = cli("lr-find", *TINY, "--seed", 3, "-p", "no:tensorboard")
    assert done.code == 0, done.err
    record = json.loads(Path("runs/lr-find/1/lr_find.json").read_text())
    assert Path("runs/lr-find/1/lr_find.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in Path("runs").rglob("*")) == ["1", "lr-find", "lr_find.json", "lr_find.png"]
    lines = done.out.splitlines()
    assert lines[0] == "training loss over learning rate"
    assert "▲" in done.out
    printed = {line[2:].split()[0]: line for line in lines if line[2:].split()[:1] and line[:2] in ("* ", "  ")}
    for rule, rate in record["suggestions"].items():
        assert f"{rate:g}" in printed[rule]
    assert printed["steepest"].startswith("* ")
    assert record["run"] == {**record["run"], "optimizer": "adamw", "seed": 3, "configured": 0.001}
    assert "step=10 lr=" in done.err
    use = lines[-1].removeprefix("use it: trainkit ")
    arguments = shlex.split(use)
    assert arguments[-1] == f"optimizer.lr={record['suggestion']:g}"
    again = cli(*arguments, "--max-steps", 1)
    assert again.code == 0, again.err
    quiet = cli("lr-find", *TINY, "-q", "--steps", 30)
    assert "step=" not in quiet.err
    assert "over learning rate" not in quiet.out
    assert "steepest" in quiet.out
    assert Path("runs/lr-find/2/lr_find.json").exists()


def test_the_command_that_takes_a_rate_does_not_test_again(cli):
    done = cli("lr-find", *TINY, "--set", "lr_find=true", "-q")
    use = shlex.split(done.out.splitlines()[-1].removeprefix("use it: trainkit "))
    again = cli(*use, "--out", "mine")
    assert again.code == 0, again.err
    assert not Path("mine/lr_find.json").exists()


def test_json_is_one_object_and_alone_on_standard_output(cli):
    done = cli("lr-find", *TINY, "--json", "-q", "--rule", "valley", "--axis", "linear", "--out", "mine", "--steps", 50)
    assert (done.code, done.err) == (0, "")
    document = json.loads(done.out)
    assert done.out.count("\n") == 1
    assert document["suggestion"] == document["suggestions"]["valley"]
    assert (document["rule"], document["axis"], len(document["rates"])) == ("valley", "linear", 50)
    assert document["files"] == ["mine/lr_find.json", "mine/lr_find.png"]
    kept = json.loads(Path("mine/lr_find.json").read_text())
    assert kept == {key: value for key, value in document.items() if key != "files"}


def test_it_tests_the_rates_it_is_asked_to(cli):
    done = cli("lr-find", *TINY, "--min", "1e-5", "--max", "1e-3", "--steps", 21, "--json")
    rates = json.loads(done.out)["rates"]
    assert (rates[0], rates[10], rates[-1]) == pytest.approx((1e-5, 1e-4, 1e-3))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--min", "-1"), "go up from a smallest above 0"),
        (("--min", "1", "--max", "0.1"), "go up from a smallest above 0"),
        (("--min", "small"), "Invalid value for '--min'"),
        (("--steps", "5"), "needs 13 steps at least"),
        (("--rule", "best"), "Invalid value for '--rule'"),
        (("--axis", "square"), "Invalid value for '--axis'"),
        (("--out", "full"), "the folder for output is not empty"),
        (("--optimizer", "./free.py:Free"), "takes no learning rate from outside"),
        (("--resume", "runs/x"), "No such option"),
        (("--set", "optimizer.lrr=1"), "did you mean 'optimizer.lr'"),
    ],
)
def test_a_wrong_request_is_refused_and_leaves_nothing(cli, arguments, message):
    Path("free.py").write_text(FREE)
    Path("full").mkdir()
    Path("full/file").write_text("")
    done = cli("lr-find", *TINY, *arguments)
    assert done.code == 2, done.err
    assert message in done.err
    assert done.out == ""
    assert not Path("runs").exists()


def test_without_a_suggestion_it_says_why_by_its_exit_code_too(cli):
    Path("flat.py").write_text(FLAT)
    done = cli("lr-find", *TINY, "--loss", "./flat.py:Flat")
    assert done.code == 1
    assert done.out.count("the loss does not fall") == 3
    assert "use it" not in done.out
    assert Path("runs/lr-find/1/lr_find.png").exists()
    document = json.loads(cli("lr-find", *TINY, "--loss", "./flat.py:Flat", "--json").out)
    assert document["suggestion"] is None


def test_a_plan_says_that_rates_are_tested_first_and_counts_the_steps(cli):
    done = cli("plan", *TINY, "--set", "lr_find=true")
    assert "lr_find: rates are tested first" in done.out
    plan = json.loads(cli("plan", *TINY, "--set", "lr_find=true", "--json").out)
    steps = plan["stages"][-1]["last_step"] + 100
    assert plan["cost"]["seconds"] >= plan["cost"]["seconds_per_step"] * steps
    Path("free.py").write_text(FREE)
    refused = cli("plan", *TINY, "--set", "lr_find=true", "--optimizer", "./free.py:Free")
    assert (refused.code, "takes no learning rate" in refused.err) == (2, True)


def test_a_run_with_lr_find_takes_what_the_command_suggests(cli):
    suggestion = json.loads(cli("lr-find", *TINY, "--json", "-q").out)["suggestion"]
    done = cli("run", *TINY, "--set", "lr_find=true", "--out", "mine")
    assert done.code == 0, done.err
    assert f"lr_find: optimizer.lr = {suggestion:g} instead of 0.001: where the loss fell fastest" in done.err
    assert f"{suggestion:g}" in Path("mine/resolved.toml").read_text()
    assert Path("mine/lr_find.png").exists()
    again = cli("run", "mine/resolved.toml", "--out", "again")
    assert again.code == 0, again.err
    assert not Path("again/lr_find.json").exists()
    results = [json.loads(Path(name, "results.json").read_text())["results"] for name in ("mine", "again")]
    assert results[0] == results[1]
    quiet = cli("run", *TINY, "--set", "lr_find=true", "--quiet")
    assert (quiet.code, quiet.out, quiet.err) == (0, "", "")


def test_an_interrupt_ends_it_with_what_was_measured(tmp_path):
    (tmp_path / "slow.py").write_text(SLOW)
    command = [sys.executable, "-m", "trainkit_cli", "lr-find", *TASK[2:], "--task", "./slow.py:Slow"]
    with subprocess.Popen(
        [*command, "--strategy", "baseline", "--out", "mine"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    ) as process:
        assert process.stdout is not None
        for _ in range(14):
            assert process.stdout.readline() == "step\n"
        time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert "it was interrupted" in err
    assert "steepest" in out
    assert 14 <= len(json.loads((tmp_path / "mine/lr_find.json").read_text())["rates"]) < 100
