"""What is wrong with a request ends in one clear message and exit code 2 or 4, before anything is written."""

from __future__ import annotations

from pathlib import Path

import pytest
from trainkit.testing import tiny

TINY = ("--task", f"{tiny.__file__}:TinyTask", "--strategy", "baseline", "--callback", "no:tensorboard")


def refused(done, code: int, *texts: str) -> None:
    """Check that a command was refused with one message that says what, where or why, and what to do."""
    assert done.code == code, done
    assert done.out == ""
    assert "Traceback" not in done.err
    assert "fault of trainkit" not in done.err
    assert done.err.startswith("error: ")
    assert done.err.count("error: ") == 1
    assert any(f"\n  {label}" in done.err for label in ("where:", "why:", "do:"))
    for text in texts:
        assert text in done.err, done.err
    assert not Path("runs").exists()
    assert not Path("mine").exists()


@pytest.mark.parametrize(
    ("kind", "name", "text"),
    [
        ("strategy", "phase9", "no strategy named 'phase9'; did you mean 'phase"),
        ("task", "layuot", "no task named 'layuot'; did you mean 'layout'?"),
        ("loss", "crossentropy", "did you mean 'cross-entropy'?"),
        ("augmenter", "structur", "did you mean 'structure'?"),
        ("optimizer", "adam-w", "did you mean 'adamw'?"),
        ("scheduler", "cosinus", "did you mean 'cosine'?"),
        ("metric", "f1-element", "no metric named 'f1-element'"),
        ("adapter", "fulll", "did you mean 'full'?"),
        ("callback", "early-stoping", "did you mean 'early-stopping'?"),
    ],
)
def test_unknown_components(cli, kind, name, text):
    for command in ("run", "plan"):
        refused(cli(command, f"--{kind}", name), 4, text, f"trainkit plugins --kind {kind}")


@pytest.mark.parametrize(
    ("assignment", "texts"),
    [
        ("optimizer.lrr=1", ["'optimizer.lrr'", "did you mean", "--set optimizer.lrr"]),
        ("task.sampels=3", ["did you mean", "samples"]),
        ("loop.epoch=3", ["unknown setting 'loop.epoch'; did you mean 'loop.epochs'?", "--set loop.epoch"]),
        ("lop.epochs=3", ["did you mean 'loop.epochs'?"]),
        ("speed=11", ["unknown setting 'speed'"]),
        ("loop=3", ["unknown setting 'loop'"]),
        ("stages.first.epochs=3", ["unknown setting 'stages.first.epochs'"]),
        ("callback.tensorboard.colour=1", ["this run has no callback 'tensorboard'"]),
        ("loop.epochs=many", ["loop.epochs", "integer", "'many'", "--set loop.epochs"]),
        ("loop.epochs=0", ["greater than 0", "(got 0)"]),
        ("loop.epochs=-3", ["greater than 0"]),
        ("loop.epochs=1.5", ["integer"]),
        ("loop.epochs=[1]", ["integer"]),
        ("loop.max_steps=1e400", ["loop.max_steps"]),
        ("loop.clip=-1", ["greater than 0"]),
        ("loop.nan_policy=ignore", ["'stop' or 'skip'"]),
        ("checkpoint.keep=1", ["greater than or equal to 2"]),
        ("checkpoint.background=perhaps", ["boolean"]),
        ("seed=-1", ["greater than or equal to 0"]),
        ("optimizer.lr=fast", ["optimizer.lr", "number"]),
        ("optimizer.lr=-1", ["greater than 0"]),
        ("optimizer.lr=nan", ["optimizer.lr"]),
        ("optimizer.betas=[0.9]", ["optimizer.betas"]),
        ("task.samples=none", ["task.samples"]),
        ("precision=fp8", ["precision"]),
        ("device=tpu", ["device"]),
        ("name=../../up", ["name"]),
        ("evaluate.monitor=val/f2", ["unknown setting 'val/f2'", "val/loss"]),
        ("metric.token-accuracy.x=1", ["this run has no metric 'token-accuracy'", "add --metric token-accuracy"]),
        ("optimizer=3", ["optimizer"]),
        ("nothing", ["a key and a value are needed"]),
        ("=3", ["a key and a value are needed"]),
    ],
)  # fmt: skip
def test_unknown_keys_and_wrong_values(cli, assignment, texts):
    refused(cli("run", *TINY, "--set", assignment), 2, *texts)


def test_flags_with_wrong_values_are_named_as_flags(cli):
    refused(cli("run", *TINY, "--epochs", "x"), 2, "where: --epochs")
    refused(cli("run", *TINY, "--batch-size", "0"), 2, "where: --batch-size")
    refused(cli("run", *TINY, "--precision", "fp16", "--device", "cpu"), 2, "fp16 needs a GPU")


def test_a_device_that_is_not_there_is_a_matter_of_resources(cli):
    refused(cli("run", *TINY, "--device", "cuda:97"), 7, "device cuda:97 is not there", "--device cpu")


def test_variables_with_unknown_names_are_refused_by_their_name(cli, monkeypatch):
    monkeypatch.setenv("TRAINKIT_LOOP__EPOCH", "3")
    refused(cli("run", *TINY), 2, "where: $TRAINKIT_LOOP__EPOCH", "did you mean 'loop.epochs'?")


@pytest.mark.parametrize(
    ("content", "texts"),
    [
        (b"seed = ", ["not valid TOML", "run.toml"]),
        (b"seed = 1\nseed = 2\n", ["not valid TOML", "line 2"]),
        (b"\xff\xfe\x00", ["run.toml"]),
        (b"seed = 1\nspeed = 2\n", ["unknown setting 'speed'", "where: run.toml:2"]),
        (b"[optimizer]\nuse = 'adamw'\nlr = 'x'\n", ["optimizer.lr", "where: run.toml:3"]),
        (b"[optimiser]\nlr = 1\n", ["did you mean 'optimizer'?", "where: run.toml:2"]),
        (b"[[metric]]\nlevel = 'key'\n", ["a table of metric needs a name"]),
        (b"loss = 'cros-entropy'\n", ["did you mean 'cross-entropy'?"]),
        (b"a = " + b"[" * 5000 + b"]" * 5000, ["nests"]),
        (b"seed = " + b"9" * 5000, ["not valid TOML"]),
        (b"#" * 1_000_001, ["larger than 1000000 bytes"]),
        (b"name = \"a\\u001b[31mb\"\n", ["name", "[A-Za-z0-9]", "'a\\x1b[31mb'"]),
        (b'"\\u001b[31m" = 1\n', ["unknown setting '\N{REPLACEMENT CHARACTER}[31m'"]),
    ],
    ids=range(13),
)  # fmt: skip
def test_config_files(cli, content, texts):
    Path("run.toml").write_bytes(content)
    done = cli("run", "run.toml", *TINY)
    refused(done, 4 if b"cros-" in content else 2, *texts)
    assert "\x1b" not in done.err


def test_a_config_file_that_is_not_there(cli):
    refused(cli("run", "rnu.toml"), 2, "no config file rnu.toml")


def test_parts_that_do_not_fit_name_those_that_would(cli):
    refused(cli("run", *TINY, "--metric", "element-f1", "--out", "mine"), 2, "does not fit", "token-accuracy")
    refused(cli("run", *TINY, "--augmenter", "structure"), 2, "augmenter structure does not fit")


def test_callbacks_that_were_never_there_cannot_be_taken_away(cli):
    refused(cli("run", *TINY, "--callback", "no:early-stopping"), 2, "no 'early-stopping' to take away")


@pytest.mark.parametrize(
    "arguments",
    [
        ("--epoch-s", "3"), ("--epochs",), ("a.toml", "b.toml"), ("-p", "tensorboard"), (".",), ("--resume",),
    ],
    ids=str,
)  # fmt: skip
def test_what_the_parser_refuses(cli, arguments):
    done = cli("run", *arguments)
    assert done.code == 2
    assert done.out == ""
    assert "Error: " in done.err
    assert "Traceback" not in done.err
    assert list(Path().iterdir()) == []


def test_a_run_directory_in_the_way(cli):
    Path("file").write_text("")
    Path("full").mkdir()
    Path("full/thing").write_text("")
    refused(cli("run", *TINY, "--out", "file"), 2, "is no folder")
    refused(cli("run", *TINY, "--out", "full"), 2, "is not empty")
    refused(cli("run", *TINY, "--out", "file/below"), 7, "a file cannot be written")
    assert [path.name for path in Path("full").iterdir()] == ["thing"]


def test_an_empty_folder_may_be_the_run_directory(cli):
    Path("empty").mkdir()
    assert cli("run", *TINY, "--epochs", 1, "--out", "empty").code == 0


PARTS = """
from trainkit import UsageError
from trainkit.testing.tiny import TinyTask

class Choosy(TinyTask):
    def check_plan(self, plan):
        if not any(stage.trainable == ("head.*",) for stage in plan.stages):
            raise UsageError("the head needs a stage of its own", do="--set stages.train.trainable=...")
"""


def test_a_task_refuses_a_plan_before_anything_is_written(cli):
    Path("parts.py").write_text(PARTS)
    arguments = (*TINY[2:], "--task", "./parts.py:Choosy", "--out", "mine", "--max-steps", "2")
    for command in ("run", "plan"):
        given = arguments if command == "run" else arguments[:-4]
        refused(cli(command, *given), 2, "the head needs a stage of its own")
    done = cli("run", *arguments, "--set", 'stages.train.trainable=["head.*"]')
    assert done.code == 0, done.err


def test_the_last_line_of_a_run_tells_its_last_epoch(cli, monkeypatch):
    monkeypatch.setattr("trainkit_cli.progress.SECONDS_BETWEEN_LINES", 0.0)
    done = cli("run", *TINY, "--epochs", "2", "--set", "loop.log_every_steps=1")
    epochs = [word.partition("=")[2] for word in done.err.split() if word.startswith("epoch=")]
    assert (epochs[0], epochs[-1], set(epochs)) == ("1", "2", {"1", "2"}), done.err
