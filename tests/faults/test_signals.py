"""Real signals to real processes: a run ends at its next step, says how to go on, and goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from trainkit.checkpoint import Checkpoints
from trainkit.testing import tiny

PARTS = """
import os, time
from pathlib import Path
from trainkit import hookimpl
from trainkit.testing.tiny import TinyTask


class Slow:
    def __init__(self, seconds: float = 0.01):
        self.seconds = seconds

    @hookimpl
    def on_step(self, run):
        # Where the test looks for the step that is reached.
        Path("step").write_text(str(run.moment.step))
        time.sleep(self.seconds)


class SlowToRead(TinyTask):
    def read(self, data, seed):
        Path("step").write_text("1")
        time.sleep(30)


class Workers(TinyTask):
    def collate(self, samples):
        Path(f"worker-{os.getpid()}").touch()
        time.sleep(0.01)
        return super().collate(samples)
"""
TINY = ("--task", f"{tiny.__file__}:TinyTask", "--strategy", "baseline", "--callback", "no:tensorboard")
SLOW = (*TINY, "--epochs", "10", "--set", "loop.batch_size=4", "--callback", "./parts.py:Slow", "--out", "mine")


class Child:
    """Run the command line in a process of its own, and in a process group of its own.

    A fork of this process has PyTorch imported; what is under test begins after that.
    """

    def __init__(self, *arguments: str) -> None:
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            self._run(arguments)

    def _run(self, arguments: tuple[str, ...]) -> None:
        from trainkit_cli.main import main

        code = 99
        try:
            os.setsid()
            for stream, name in ((1, "out"), (2, "err")):
                os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), stream)
            sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w", buffering=1)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            torch.set_num_threads(1)
            main(list(arguments))
        except SystemExit as ended:
            code = int(ended.code or 0)
            sys.stdout.flush()
        finally:
            os._exit(code)

    def reach(self, step: int) -> None:
        """Wait until the run has reached a step."""
        self.wait_for(lambda: Path("step").exists() and int(Path("step").read_text() or 0) >= step)

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Wait until something holds, and fail if the process ends before."""
        deadline = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < deadline
            assert os.waitpid(self.pid, os.WNOHANG) == (0, 0), Path("err").read_text()
            time.sleep(0.002)

    def send(self, number: int) -> None:
        """Send a signal to the process."""
        os.kill(self.pid, number)

    def end(self) -> tuple[int, str]:
        """Wait for the end; return the exit code and what was written to standard error."""
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return code, Path("err").read_text() if Path("err").exists() else ""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in a folder of the test's own that holds the slow parts."""
    monkeypatch.chdir(tmp_path)
    Path("parts.py").write_text(PARTS)


def status() -> dict[str, object]:
    """Return the status file."""
    found: dict[str, object] = json.loads(Path("mine/status.json").read_text())
    return found


def newest() -> int:
    """Return the step of the newest valid checkpoint."""
    checkpoint = Checkpoints(Path("mine/checkpoints"), read_only=True).newest_valid()
    assert checkpoint is not None
    return checkpoint.step


@pytest.mark.parametrize(
    ("number", "code", "state"),
    [
        (signal.SIGINT, 130, "interrupted"),
        (signal.SIGTERM, 143, "interrupted"),
        (signal.SIGUSR1, 75, "stopped"),
        (signal.SIGHUP, 75, "stopped"),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_a_signal_ends_a_run_at_its_next_step_and_the_run_goes_on(number, code, state):
    child = Child("run", *SLOW)
    child.reach(20)
    child.send(number)
    asked = time.monotonic()
    ended, err = child.end()
    assert ended == code, err
    assert time.monotonic() - asked < 10
    assert err.splitlines()[-1] == "resume: trainkit run --resume mine"
    assert f"{state} at step" in err
    assert "Traceback" not in err
    step = status()["step"]
    assert 20 <= step < 60
    assert (status()["state"], status()["exit_code"]) == (state, code)
    assert newest() == step
    ended, err = Child("run", "--resume", "mine").end()
    assert ended == 0, err
    assert f"resumed at step {step}\n" in err
    ended, err = Child("run", *SLOW[:-1], "alone", "--set", "callback.Slow.seconds=0").end()
    assert ended == 0, err
    results = [json.loads(Path(name, "results.json").read_text()) for name in ("mine", "alone")]
    assert results[0]["steps"] == results[1]["steps"] == 60
    assert results[0]["results"] == results[1]["results"]


def test_a_second_interrupt_ends_at_once_and_leaves_the_last_checkpoint(tmp_path):
    child = Child("run", *SLOW, "--set", "callback.Slow.seconds=0.03", "--set", "checkpoint.every_steps=2")
    child.reach(6)
    child.send(signal.SIGINT)
    time.sleep(0.01)
    child.send(signal.SIGINT)
    code, err = child.end()
    assert code == 130
    assert "Traceback" not in err
    assert "resume: trainkit run --resume mine" in err
    assert status()["state"] == "interrupted"
    assert newest() >= 4
    assert Child("run", "--resume", "mine", "-q").end() == (0, "")


def test_many_interrupts_leave_no_traceback():
    child = Child("run", *SLOW)
    child.reach(10)
    for _ in range(20):
        try:
            child.send(signal.SIGINT)
        except ProcessLookupError:
            break
        time.sleep(0.001)
    code, err = child.end()
    assert code in (130, -signal.SIGINT)
    assert "Traceback" not in err


def test_an_interrupt_before_training_ends_without_a_word_and_without_a_directory():
    child = Child("run", *SLOW[2:], "--task", "./parts.py:SlowToRead")
    child.reach(1)
    child.send(signal.SIGINT)
    code, err = child.end()
    assert (code, err.strip()) == (130, "")
    assert not Path("mine").exists()


def test_an_interrupt_from_the_terminal_reaches_workers_too_and_harms_nothing():
    child = Child("run", *SLOW[2:], "--task", "./parts.py:Workers", "--set", "loop.workers=2")
    child.reach(8)
    os.killpg(child.pid, signal.SIGINT)
    code, err = child.end()
    assert code == 130, err
    assert "Traceback" not in err
    assert newest() == status()["step"]
    code, err = Child("run", "--resume", "mine", "--set", "loop.workers=0").end()
    assert code == 0, err


def test_a_killed_worker_is_said_and_the_run_goes_on_without():
    child = Child("run", *SLOW[2:], "--task", "./parts.py:Workers", "--set", "loop.workers=1")
    child.wait_for(lambda: len(list(Path().glob("worker-*"))) >= 1 and Path("step").exists())
    child.reach(8)
    (worker, *_) = sorted(Path().glob("worker-*"), key=lambda path: path.stat().st_mtime, reverse=True)
    os.kill(int(worker.name.removeprefix("worker-")), signal.SIGKILL)
    code, err = child.end()
    assert code == 7, err
    assert "a worker process that prepares batches was lost" in err
    assert "Traceback" not in err
    assert status()["state"] == "failed"
    code, err = Child("run", "--resume", "mine", "--set", "loop.workers=0").end()
    assert code == 0, err


def test_a_killed_run_gives_its_directory_back_even_if_its_workers_live_on():
    child = Child("run", *SLOW[2:], "--task", "./parts.py:Workers", "--set", "loop.workers=2")
    child.reach(8)
    child.send(signal.SIGKILL)
    assert child.end()[0] == -signal.SIGKILL
    code, err = Child("run", "--resume", "mine", "--set", "loop.workers=0").end()
    os.killpg(child.pid, signal.SIGKILL)
    assert code == 0, err


def test_a_second_process_is_refused_with_the_number_of_the_first():
    child = Child("run", *SLOW, "--set", "callback.Slow.seconds=0.5")
    child.reach(3)
    command = [sys.executable, "-m", "trainkit_cli", "run", "--resume", "mine"]
    second = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert second.returncode == 2
    assert second.stderr.startswith("error: another process is using this run directory\n  where: mine\n")
    assert f"process {child.pid} on " in second.stderr
    child.send(signal.SIGTERM)
    assert child.end()[0] == 143
