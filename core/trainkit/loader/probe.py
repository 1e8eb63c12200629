"""Try a plugin in a process of its own: one that exits, hangs or crashes takes only that process along."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any, NamedTuple

from trainkit.discovery import Entry

from . import health

LIMIT_SECONDS = 20.0
CHECKS_LIMIT_SECONDS = 300.0
SLOW_SECONDS = 5.0
KEPT_OUTPUT = 2000


class Probe(NamedTuple):
    """Tell how a plugin did.

    Args:
        entry: the plugin.
        fault: phase and cause of its failure; '' if it works.
        seconds: how long importing it took, of the whole process where it did not end by itself.
        printed: bytes it wrote to standard output or standard error while it was imported.
        traceback: where it failed, if it raised.
    """

    entry: Entry
    fault: str
    seconds: float = 0.0
    printed: int = 0
    traceback: str = ""


class Check(NamedTuple):
    """Tell the outcome of one check of the conformance kit: passed, failed or 'not checked', and why."""

    name: str
    outcome: str
    message: str
    about: str


class _Ended(NamedTuple):
    """Hold what a child process left: its answer, or how it ended without one."""

    answer: Any
    fault: str
    seconds: float
    printed: int
    output: str


def probe(entry: Entry, limit_seconds: float = LIMIT_SECONDS) -> Probe:
    """Import a plugin, ask its hook and read its options in a child process, and remember the result for listings.

    Args:
        entry: the plugin; one whose status already tells that it cannot be loaded is not tried.
        limit_seconds: time after which the process is killed.
    """
    if entry.status not in ("ok", "conflict", "broken"):
        return Probe(entry, f"{entry.status}: {entry.reason}")
    ended = _in_child(["load", entry.kind, entry.name, entry.module], limit_seconds)
    if ended.answer is None:
        result = Probe(entry, f"import: {ended.fault}", ended.seconds, ended.printed, ended.output)
    else:
        result = Probe(entry, printed=ended.printed, **ended.answer)
    if result.fault:
        health.remember(entry, result.fault)
    else:
        health.forget(entry)
    return result


def conformance(entry: Entry, limit_seconds: float = CHECKS_LIMIT_SECONDS) -> list[Check]:
    """Run the checks of the conformance kit on a component in a child process.

    Args:
        entry: the plugin, which must load.
        limit_seconds: time after which the process is killed; that is then the one check, and it failed.
    """
    ended = _in_child(["conform", entry.kind, entry.name], limit_seconds)
    if ended.answer is None:
        return [
            Check("conformance", "failed", f"{ended.fault}\n{ended.output}".strip(), "The checks run to their end.")
        ]
    return [Check(**check) for check in ended.answer]


def _in_child(arguments: list[str], limit_seconds: float) -> _Ended:
    # -P: what lies in the current folder must not stand in for an installed module.
    command = [sys.executable, "-P", "-X", "faulthandler", "-m", "trainkit.loader.probe"]
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="trainkit-") as folder:
        answer, output = Path(folder, "answer.json"), Path(folder, "output")
        # A file takes any amount of output, and nobody waits for its end, unlike a pipe.
        with output.open("wb") as stream:
            process = subprocess.Popen(  # noqa: S603 - our own module; the plugin's name is an argument, not a command
                [*command, str(answer), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                start_new_session=True,
            )
            fault = _wait(process, limit_seconds)
        seconds, printed = time.perf_counter() - started, output.stat().st_size
        if not fault and answer.exists():
            return _Ended(json.loads(answer.read_text(encoding="utf-8")), "", seconds, printed, "")
        text = output.read_text(encoding="utf-8", errors="replace")[-KEPT_OUTPUT:]
        return _Ended(None, fault or f"it {_ending(process.returncode)}", seconds, printed, text)


def _wait(process: subprocess.Popen[bytes], limit_seconds: float) -> str:
    """Wait for the end of a process, or kill it at the limit and return that as its fault."""
    try:
        process.wait(limit_seconds)
        return ""
    except subprocess.TimeoutExpired:
        _kill(process)
        return f"it did not end within {limit_seconds:g} s"
    except BaseException:
        _kill(process)
        raise


def _kill(process: subprocess.Popen[bytes]) -> None:
    # The whole group: what the plugin started must not stay behind.
    if hasattr(os, "killpg"):
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.wait()


def _ending(code: int) -> str:
    if code >= 0:
        return f"ended the process with exit code {code}"
    return f"crashed the process ({signal.Signals(-code).name})"


def main(answer: str, what: str, *arguments: str) -> None:
    """Do what the child process is for and write the answer, as JSON, to a file.

    Args:
        answer: path of that file.
        what: 'load' or 'conform'.
        arguments: what `load` and `conform` take.
    """
    found: object = load(*arguments) if what == "load" else conform(*arguments)
    Path(answer).write_text(json.dumps(found), encoding="utf-8")


def load(kind: str, name: str, module: str) -> dict[str, Any]:
    """Load a plugin in this process and return fault, seconds and traceback."""
    from trainkit.component import Component

    from .loading import LoadError, checked, load_target

    fault = trace = ""
    started = time.perf_counter()
    try:
        target = load_target(kind, module)
        seconds = time.perf_counter() - started
        checked("validate", Component(kind, name, target).describe)
    except LoadError as error:
        seconds, fault = time.perf_counter() - started, f"{error.phase}: {error.cause}"
        trace = "".join(traceback.format_exception(error.__cause__)) if error.__cause__ else ""
    return {"fault": fault, "seconds": seconds, "traceback": trace}


def conform(kind: str, name: str) -> list[dict[str, Any]]:
    """Run the conformance kit on a component in this process and return the outcome of each check."""
    from dataclasses import asdict

    from trainkit.testing import run_checks

    return [asdict(result) for result in run_checks(kind, name)]


if __name__ == "__main__":
    main(*sys.argv[1:])
