"""Schedulers from the command line: drawn, refused and told of before anything is spent, resumed to the bit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from trainkit.registry import Registry
from trainkit.rundir import rows
from trainkit.testing import tiny

TINY = ("--task", f"{tiny.__file__}:TinyTask", "--callback", "no:tensorboard", "--strategy", "baseline")
PLAN = ("plan", *TINY, "--no-cost", "--epochs", 20)
NAMES = Registry().names("scheduler")

ALONE = """
import torch

class Alone(torch.optim.SGD):
    '''Set the rates itself.

    Args:
        lr: learning rate.
    '''

    takes_scheduler = False

    def __init__(self, params, lr: float = 0.1):
        super().__init__(params, lr)

def late(optimizer):
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: float(step > 20))
"""


def columns(plan: str) -> list[float]:
    """Return the heights of a plan's drawing of the rate, in eighths of a line."""
    lines = plan.splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("  rate")) + 1
    bars = [line.partition("│")[2] for line in lines[first : first + 6]]
    width = max(map(len, bars))
    bars = [bar.ljust(width) for bar in bars]
    return [sum(" ▁▂▃▄▅▆▇█".index(bar[i]) for bar in bars) for i in range(len(bars[0]))]


def test_there_are_schedulers_to_look_at():
    assert len(NAMES) >= 9


@pytest.mark.parametrize("name", NAMES)
def test_a_plan_draws_every_scheduler(cli, name):
    done = cli(*PLAN, "--scheduler", name)
    assert (done.code, done.err) == (0, "")
    heights = columns(done.out)
    assert max(heights) == 48
    flat = {"constant", "plateau"}
    assert (len(set(heights)) == 1) == (name in flat)
    assert ("rate      │as long as val/loss improves" in done.out) == (name == "plateau")


@pytest.mark.parametrize("command", ["plan", "run"])
@pytest.mark.parametrize("name", [name for name in NAMES if name != "plateau"])
def test_a_warmup_that_fills_the_training_is_refused(cli, command, name):
    done = cli(command, *TINY, "--scheduler", name, "--max-steps", 4, "--set", "scheduler.warmup=4")
    assert (done.code, done.out) == (2, "")
    assert "the warm-up of 4 steps leaves none of the 4 steps of the training" in done.err
    assert "where: scheduler.warmup, --set scheduler.warmup" in done.err
    assert list(Path().iterdir()) == []


def test_a_rate_of_0_on_many_steps_is_told_in_plan_and_run(cli):
    Path("parts.py").write_text(ALONE)
    told = "the learning rate is 0 on 52% of the steps, which learn nothing"
    asked = (*TINY, "--epochs", 20, "--scheduler", "./parts.py:late")
    assert told in " ".join(cli("plan", *asked, "--no-cost").out.split())
    done = cli("run", *asked, "--out", "mine", "--json")
    assert done.code == 0
    assert json.loads(Path("mine/plan.json").read_text())["warnings"][0].startswith(told)
    assert told not in cli(*PLAN, "--scheduler", "linear", "--set", "scheduler.start=0").out


def test_an_optimizer_that_takes_no_scheduler(cli):
    Path("parts.py").write_text(ALONE)
    asked = (*TINY, "--optimizer", "./parts.py:Alone")
    why = cli("plan", *asked, "--why", "scheduler.use").out.splitlines()
    assert why[0].startswith(
        'scheduler.use = "constant" from optimizer ./parts.py:Alone: its attribute takes_scheduler'
    )
    assert why[1].startswith('  instead of "cosine" from strategy baseline')
    assert len(set(columns(cli("plan", *asked, "--no-cost").out))) == 1
    refused = cli("run", *asked, "--scheduler", "linear", "--out", "mine")
    assert refused.code == 2
    for text in ("takes no scheduler (got linear)", "where: scheduler.use, --scheduler", "do:    --scheduler constant"):
        assert text in refused.err
    assert not Path("mine").exists()
    assert cli("run", *asked, "--epochs", 2, "--out", "mine", "-q", "--set", "loop.log_every_steps=1").code == 0
    found = list(rows(Path("mine/metrics.jsonl")))
    assert {row["train/learning_rate"] for row in found if "train/loss" in row} == {0.1}
    assert json.loads(Path("mine/resolved.json").read_text())["scheduler.use"][-1]["value"] == "constant"
