"""`trainkit plan`, `trainkit evaluate` and the help texts."""

from __future__ import annotations

import json
import re
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
    on_one_line = " ".join(done.out.split())
    for text in (
        "24 train, 8 val, 8 test",
        "strategy phase2 (--strategy: meant for 2,001 to 10,000 training samples, there are 24)",
        "timeline",
        "steps/epoch",
        "learns",
    ):
        assert text in on_one_line
    peak = next(line for line in done.out.splitlines() if "e-0" in line and "│" in line).split()[0]
    assert 0.0027 < float(peak) <= 0.003
    told = done.out[done.out.index("settings that are not defaults") :]
    assert re.search(r"  --set optimizer.lr\n    optimizer.lr = 0.003$", told, re.MULTILINE)
    assert re.search(r"about \d+:\d\d:\d\d: \d+\.\d ms a step.*measured here", on_one_line)
    assert "701 of 701 learn" in done.out
    names = [line.split()[0] for line in done.out.splitlines() if line.endswith("  all weights")]
    assert names == ["easy", "medium", "all"]


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_plan_fits_the_terminal(cli, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("TRAINKIT_HOME", "home")
    for arguments in ((), ("--diff", "baseline", "phase2")):
        done = cli("plan", *TINY, "--strategy", "phase2", "--no-cost", *arguments)
        # Tables and paths are as wide as they are.
        lines = [line for line in done.out.splitlines() if not re.search("all weights$|samples/epoch|TinyTask", line)]
        assert [line for line in lines if len(line) > width] == []
        assert max(map(len, done.out.splitlines())) > 0.8 * width


def test_a_difference_tells_what_differs_and_nothing_else(cli):
    done = cli("plan", *TINY, "--diff", "baseline", "phase2")
    assert (done.code, done.err) == (0, "")
    assert done.out == cli("plan", *TINY, "--diff", "baseline", "phase2").out
    rows = [line.split() for line in done.out.splitlines()]
    assert ["optimizer.weight_decay", "0.01", "0.001"] in rows
    assert "optimizer.lr" not in done.out
    assert "loop.clip" not in done.out
    found = json.loads(cli("plan", *TINY, "--diff", "baseline", "phase2", "--json").out)
    decay = found["settings"]["optimizer.weight_decay"]
    assert (decay["left"]["value"], decay["right"]["value"]) == (0.01, 0.001)
    assert decay["left"]["reason"] != decay["right"]["reason"] != ""
    assert [stage["name"] for stage in found["stages"]["right"]] == ["easy", "medium", "all"]
    assert len(found["stages"]["left"]) == 1
    same = json.loads(cli("plan", *TINY, "--diff", "phase2", "phase2", "--json").out)
    assert (same["settings"], same["stages"]) == ({}, {})


def test_files_and_run_directories_can_be_compared(cli):
    Path("fast.toml").write_text("[optimizer]\nlr = 0.5\n")
    ran = cli("run", *TINY, "--strategy", "baseline", "--max-steps", 2, "--set", "optimizer.lr=0.02", "--out", "mine")
    assert ran.code == 0, ran.err
    arguments = ("plan", *TINY, "--strategy", "baseline", "--max-steps", 2, "--json", "--diff", "mine", "fast.toml")
    found = json.loads(cli(*arguments).out)
    assert set(found["settings"]) == {"optimizer.lr"}
    sides = found["settings"]["optimizer.lr"]
    assert (sides["left"]["value"], sides["left"]["origin"]) == (0.02, "--set optimizer.lr")
    assert (sides["right"]["value"], sides["right"]["origin"]) == (0.5, "fast.toml:2")
    assert found["stages"] == {}
    missing = cli("plan", *TINY, "--diff", "baseline", "phase22")
    assert missing.code == 4
    assert "did you mean" in missing.err


def test_a_price_comes_from_the_first_table_that_knows_the_device(cli):
    Path("mine.toml").write_text('[[price]]\ndevice = "*"\nper_hour = 3600\ncurrency = "EUR"\nsource = "our bill"\n')
    arguments = ("plan", *TINY, "--epochs", 1)
    done = cli(*arguments, "--prices", "mine.toml", "--json")
    cost = json.loads(done.out)["cost"]
    assert cost["amount"] == pytest.approx(cost["seconds"])
    assert (cost["price"]["currency"], cost["price"]["source"]) == ("EUR", "our bill")
    shown = " ".join(cli(*arguments, "--prices", "mine.toml").out.split())
    assert "EUR" in shown
    assert "3600 EUR an hour, our bill" in shown
    without = cli(*arguments)
    assert "none known for" in without.out
    assert "prices.toml" in without.out
    gone = cli(*arguments, "--prices", "none.toml")
    assert (gone.code, "no price table none.toml" in gone.err) == (2, True)


def test_callbacks_tell_what_they_will_do_when(cli, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    named = [word for name in ("unfreezing", "ema", "quality-threshold") for word in ("--callback", name)]
    arguments = ("plan", *TINY, "--strategy", "baseline", "--epochs", 6, "--batch-size", 2, "--no-cost", *named)
    done = cli(*arguments)
    assert (done.code, done.err) == (0, "")
    lines = {line.split()[0]: line.partition("│")[2] for line in done.out.splitlines() if "│" in line}
    assert re.fullmatch(r"├head +├\+ mix +├\+ embedding *", lines["unfreezing"])
    assert re.fullmatch(r"├decay 0.1 +├decay 0.\d+ +├decay 0.\d+ *", lines["ema"])
    tracks = {track["name"]: track for track in json.loads(cli(*arguments, "--json").out)["outline"]}
    assert [text for _, text in tracks["unfreezing"]["marks"]] == ["head", "+ mix", "+ embedding"]
    # Quality falls from 1 to 0 by sample: a rising threshold admits fewer of them.
    shares = [share for _, share in tracks["samples"]["levels"]]
    assert len(shares) == 6
    assert shares == sorted(shares, reverse=True)
    assert shares[0] > shares[-1]
    assert len(tracks["evaluated"]["marks"]) >= 6


def test_folds_are_part_of_a_plan(cli):
    done = cli("plan", *TINY, "--strategy", "baseline", "--epochs", 2, "--folds", 4)
    assert (done.code, done.err) == (0, "")
    sizes = [line.split() for line in done.out.splitlines() if line.startswith("  fold ")]
    assert [row[1] for row in sizes] == ["1/4", "2/4", "3/4", "4/4"]
    assert all(int(row[2]) + int(row[3]) == 32 for row in sizes)
    assert "all runs" in done.out


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


@pytest.mark.parametrize("strategy", ["baseline", "phase1", "phase2", "phase3", "phase4"])
def test_a_rate_that_a_task_proposes_for_its_optimizer_is_not_anothers(cli, strategy):
    asked = ("plan", "--task", "seq2seq", "--set", "task.size=micro", "--strategy", strategy)
    assert cli(*asked, "--why", "optimizer.use").out.startswith(
        f'optimizer.use = "adafactor" from strategy {strategy}: the task\'s own choice'
    )
    own, usual = (
        float(cli(*asked, *named, "--why", "optimizer.lr").out.split()[2]) for named in ((), ("--optimizer", "adamw"))
    )
    assert own == pytest.approx(50 * usual)
    again = cli(*asked, "--optimizer", "adafactor", "--why", "optimizer.lr").out
    assert float(again.split()[2]) == own
