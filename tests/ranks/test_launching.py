"""`trainkit run --devices 2`: one command, two processes, one message, and an exit code that tells the cause."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import pytest
import torch
from trainkit.checkpoint import Checkpoints
from trainkit.errors import RanksError, ResourceError
from trainkit.ranks import asked
from trainkit.ranks.asked import check_number
from trainkit.ranks.failure import GONE, LATE, LAUNCHED, Failure, failures, tell_launcher
from trainkit.ranks.launching import told
from trainkit.settings import RunSettings
from trainkit.testing import tiny

pytestmark = [
    pytest.mark.xdist_group("ranks"),
    pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="this PyTorch has no gloo"),
]
PARTS = """
import os, time
from pathlib import Path
from trainkit import hookimpl


class Slow:
    @hookimpl
    def on_step(self, run):
        Path(f"rank-{run.world.rank}").write_text(f"{run.moment.step} {os.getpid()}")
        time.sleep(0.02)
"""
TINY = (
    "--task",
    f"{tiny.__file__}:TinyTask",
    "--strategy",
    "baseline",
    "--callback",
    "no:tensorboard",
    "--out",
    "mine",
)
TINY = (*TINY, "--set", "loop.batch_size=4")
LONG = (*TINY, "--epochs", "400", "--callback", "./parts.py:Slow", "--set", "checkpoint.every_steps=5")


class Launched:
    """Run a command in a process of its own."""

    all: ClassVar[list[Launched]] = []

    def __init__(self, *command: str) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        )
        self.all.append(self)

    def rank(self, number: int, step: int = 1) -> int:
        """Return the process of a rank once it has reached a step."""
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.process.communicate()
            words = Path(f"rank-{number}").read_text().split() if Path(f"rank-{number}").exists() else []
            if len(words) == 2 and int(words[0]) >= step:
                return int(words[1])
            time.sleep(0.02)
        raise AssertionError("no rank got there")

    def kill(self) -> None:
        """End it and its ranks at once, if they are there."""
        for pid in [int(note.read_text().split()[1]) for note in Path().glob("rank-*")]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.kill()
        self.process.communicate()

    def end(self) -> tuple[int, str, str]:
        """Wait for the end; return the exit code, standard output and standard error."""
        out, err = self.process.communicate(timeout=90)
        return self.process.returncode, out, err


def trainkit(*arguments: str) -> Launched:
    """Run the command line."""
    return Launched(sys.executable, "-m", "trainkit_cli", *arguments)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Work in a folder of the test's own, and leave no rank behind."""
    monkeypatch.chdir(tmp_path)
    Path("parts.py").write_text(PARTS)
    yield
    left = [note for note in Path().glob("rank-*") if not is_gone(int(note.read_text().split()[1]))]
    for launched in Launched.all:
        launched.kill()
    Launched.all.clear()
    assert not left, f"{left} are left behind"


def is_gone(pid: int) -> bool:
    """Return whether a process has ended, within some seconds."""
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


def newest() -> int:
    """Return the step of the newest valid checkpoint."""
    checkpoint = Checkpoints(Path("mine/checkpoints"), read_only=True).newest_valid()
    assert checkpoint is not None
    return checkpoint.step


def test_one_command_trains_on_two_ranks_and_prints_one_result():
    code, out, err = trainkit("run", *TINY, "--epochs", "2", "--devices", "2", "--json").end()
    assert code == 0, err
    facts = json.loads(out)
    assert (facts["steps"], facts["samples"]) == (12, 48)
    assert err.count("12 steps on cpu") == 1
    assert "Warning" not in err


def test_torchrun_starts_the_same_run():
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    code, out, err = Launched(*torchrun, "-m", "trainkit_cli", "run", *TINY, "--epochs", "1", "--json").end()
    assert code == 0, err
    assert json.loads(out)["steps"] == 6


def test_sigterm_ends_all_ranks_with_their_state_saved():
    run = trainkit("run", *LONG, "--devices", "2", "--quiet")
    run.rank(1, step=7)
    run.process.send_signal(signal.SIGTERM)
    code, _, err = run.end()
    assert (code, err) == (143, "")
    status = json.loads(Path("mine/status.json").read_text())
    assert (status["state"], status["exit_code"], status["step"]) == ("interrupted", 143, newest())
    assert newest() >= 7


def test_a_rank_that_is_killed_ends_the_others_with_one_message():
    run = trainkit("run", *LONG, "--devices", "2", "--quiet")
    pid = run.rank(1, step=7)
    os.kill(pid, signal.SIGKILL)
    began = time.monotonic()
    code, _, err = run.end()
    assert time.monotonic() - began < 30
    assert code == 8
    assert err.startswith(f"error: rank 1 (process {pid}) was ended by SIGKILL, and the others with it\n")
    assert err.count("error:") == 1
    assert "Traceback" not in err
    assert newest() >= 5


def test_the_cause_is_told_and_not_what_follows_from_it(capsys):
    gone, late = Failure(1.0, 0, f"error: {GONE}", 8), Failure(1.5, 0, f"error: {LATE}", 8)
    own = Failure(2.0, 1, "error: callback mine raised ValueError", 1)
    killed = {1: SimpleNamespace(exitcode=-9, pid=17, signal_name=lambda: "SIGKILL")}
    ended = {0: SimpleNamespace(exitcode=75, pid=16)}
    assert (told([gone, own], killed, 8), capsys.readouterr().err) == (1, "error: callback mine raised ValueError\n")
    assert (told([late], killed, 8), capsys.readouterr().err) == (8, f"error: {LATE}\n")
    assert (told([gone], {}, 8), capsys.readouterr().err) == (8, f"error: {GONE}\n")
    assert (told([], ended, 8), told([], {}, 143), capsys.readouterr().err) == (75, 143, "")
    with pytest.raises(RanksError, match=r"rank 1 \(process 17\) was ended by SIGKILL"):
        told([gone], killed, 8)


def test_a_rank_writes_its_failure_for_whoever_started_it(tmp_path):
    file = tmp_path / "0" / "error.json"
    file.parent.mkdir()
    assert not tell_launcher({"RANK": "1"}, "error: x", 5)
    assert not tell_launcher({"RANK": "1", "TORCHELASTIC_ERROR_FILE": str(file)}, "error: x", 5)
    assert tell_launcher({"RANK": "1", "TORCHELASTIC_ERROR_FILE": str(file), LAUNCHED: "1"}, "error: y", 6)
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "error.json").write_text("{")
    assert [failure[1:] for failure in failures(tmp_path)] == [(1, "error: y", 6)]


def test_more_gpus_than_there_are_is_refused_before_anything_is_started(monkeypatch):
    monkeypatch.setattr(asked, "choose_device", lambda name: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ResourceError, match="3 devices are asked for, and this machine has 2"):
        check_number(RunSettings(devices=3))
