"""`trainkit plan`, `trainkit evaluate` and the help texts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from trainkit.resulttable import measured
from trainkit.rundir import rows
from trainkit.testing import tiny

TINY = ("--task", f"{tiny.__file__}:TinyTask", "--callback", "no:tensorboard")
COMMANDS = ["run", "plan", "evaluate", "plugins", "completion"]


def test_a_plan_shows_stages_rates_settings_and_cost_and_writes_nothing(cli):
    done = cli("plan", *TINY, "--strategy", "phase2", "--set", "optimizer.lr=0.003")
    assert (done.code, done.err) == (0, "")
    assert list(Path().iterdir()) == []
    for text in ("24 train, 8 val, 8 test", 'strategy  "phase2"', "stages", "learning rate", "steps/epoch", "learns"):
        assert text in done.out
    peak = next(line for line in done.out.splitlines() if "│" in line).split()[0]
    assert 0.0027 < float(peak) <= 0.003
    assert "optimizer.lr = 0.003  (--set optimizer.lr)" in done.out
    assert "ms a step, measured here" in done.out
    assert "701 of 701 learn" in done.out
    assert [line.split()[0] for line in done.out.splitlines() if line.endswith("  *")] == ["easy", "medium", "all"]


def test_a_plan_as_json_agrees_with_the_run(cli):
    arguments = (*TINY, "--strategy", "baseline", "--epochs", 2)
    plan = json.loads(cli("plan", *arguments, "--json").out)
    done = json.loads(cli("run", *arguments, "--json").out)
    assert plan["stages"][-1]["last_step"] == done["steps"] == 4
    assert plan["cost"]["parameters"] == 701
    assert plan["cost"]["seconds"] > 0
    without = json.loads(cli("plan", *arguments, "--json", "--no-cost").out)
    assert "cost" not in without
    assert without["settings"]["loop.epochs"][-1] == {"value": 2, "origin": "--epochs", "reason": ""}


@pytest.mark.parametrize(
    ("key", "first", "others"),
    [
        ("loop.accumulate", "loop.accumulate = 1 from the default: Micro-batches of one optimizer step.", []),
        ("loop.epochs", "loop.epochs = 7 from --epochs", ["9 from $TRAINKIT_LOOP__EPOCHS", "8 from run.toml:2"]),
        ("optimizer.lr", "optimizer.lr = 0.5 from run.toml:6", ["from strategy baseline"]),
        ("optimizer.eps", "optimizer.eps = 1e-08 from the default", []),
        ("strategy.use", 'strategy.use = "baseline" from --strategy', []),
        ("loop.batch_size", "loop.batch_size = 2 from run.toml:3", ["from strategy baseline", "4 from task"]),
    ],
)  # fmt: skip
def test_why_tells_every_value_that_was_proposed(cli, monkeypatch, key, first, others):
    monkeypatch.setenv("TRAINKIT_LOOP__EPOCHS", "9")
    Path("run.toml").write_text("[loop]\nepochs = 8\nbatch_size = 2\n\n[optimizer]\nlr = 0.5\n")
    done = cli("plan", "run.toml", *TINY, "--strategy", "baseline", "--epochs", 7, "--why", key)
    assert (done.code, done.err) == (0, "")
    line, *rest = done.out.splitlines()
    assert line.startswith(first)
    for other in others:
        assert any(other in each for each in rest), done.out


def test_why_of_the_chosen_strategy_gives_the_range(cli):
    done = cli("plan", *TINY, "--why", "strategy.use")
    assert 'strategy.use = "phase1" from strategy auto: 24 training samples lie in its range' in done.out


def test_why_of_an_unknown_key_names_the_nearest(cli):
    done = cli("plan", *TINY, "--why", "optimizer.lrr")
    assert done.code == 2
    assert "did you mean 'optimizer.lr'?" in done.err


def test_evaluating_again_gives_the_logged_values(cli):
    done = cli("run", *TINY, "--epochs", 3, "--set", "optimizer.lr=0.02", "--metric", "token-accuracy", "--out", "mine")
    assert done.code == 0, done.err
    before = {path: path.stat().st_mtime_ns for path in Path("mine").rglob("*")}
    summary = json.loads(Path("mine/results.json").read_text())
    logged = {row["step"]: row for row in rows(Path("mine/metrics.jsonl")) if "val/loss" in row}
    best = json.loads(cli("evaluate", "mine", "--split", "val", "--json").out)
    last = json.loads(cli("evaluate", "mine", "--split", "val", "--checkpoint", "last", "--json").out)
    test = json.loads(cli("evaluate", "mine", "--json").out)
    assert best["val/loss"] == pytest.approx(summary["best"], abs=1e-6)
    for tag, value in best.items():
        assert value == pytest.approx(logged[summary["best_step"]][tag], abs=1e-6)
    for tag, value in last.items():
        assert value == pytest.approx(logged[summary["steps"]][tag], abs=1e-6)
    assert test == {tag: value for tag, value in summary["results"]["model"].items() if tag.startswith("test/")}
    assert {path: path.stat().st_mtime_ns for path in Path("mine").rglob("*")} == before
    plain = cli("evaluate", "mine")
    table = {line.split()[0]: line.split()[1:] for line in plain.out.splitlines()[1:] if line}
    assert plain.out.startswith("results (trivial baselines beside the model)")
    assert table["loss"] == [measured(test["test/loss"])]
    names = sorted(summary["results"].keys() - {"model"})
    assert len(table["token-accuracy"]) == 1 + len(names) > 1


def test_an_unknown_split_is_refused_with_those_there_are(cli):
    cli("run", *TINY, "--max-steps", 1, "--out", "mine")
    done = cli("evaluate", "mine", "--split", "dev")
    assert done.code == 2
    assert "train, val, test" in done.err


def test_show_works_for_every_installed_component(cli):
    installed = json.loads(cli("plugins", "--json").out)["installed"]
    assert len(installed) >= 14
    for entry in installed:
        done = cli("plugins", "show", f"{entry['kind']}/{entry['name']}")
        assert (done.code, done.err) == (0, ""), entry
        assert done.out.startswith(f"{entry['kind']}/{entry['name']}")


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS)], ids=["trainkit", *COMMANDS])
def test_help_fits_a_narrow_terminal_and_begins_with_examples(cli, monkeypatch, command):
    monkeypatch.setenv("COLUMNS", "80")
    done = cli(*command, "--help")
    assert (done.code, done.err) == (0, "")
    assert max(map(len, done.out.splitlines())) <= 80
    assert f"  {' '.join(['trainkit', *command])} " in done.out.partition("Options:")[0].partition("\n")[2]
    assert cli(*command, "-h").out == done.out
