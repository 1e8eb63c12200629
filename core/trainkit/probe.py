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
from typing import NamedTuple

from . import health
from .discovery import Entry

LIMIT_SECONDS = 20.0
SLOW_SECONDS = 5.0


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


def probe(entry: Entry, limit_seconds: float = LIMIT_SECONDS) -> Probe:
    """Import a plugin, ask its hook and read its options in a child process, and remember the result for listings.

    Args:
        entry: the plugin; one whose status already tells that it cannot be loaded is not tried.
        limit_seconds: time after which the process is killed.
    """
    if entry.status not in ("ok", "conflict", "broken"):
        return Probe(entry, f"{entry.status}: {entry.reason}")
    with tempfile.TemporaryDirectory(prefix="trainkit-") as folder:
        result = _run(entry, Path(folder), limit_seconds)
    if result.fault:
        health.remember(entry, result.fault)
    else:
        health.forget(entry)
    return result


def _run(entry: Entry, folder: Path, limit_seconds: float) -> Probe:
    answer, output = folder / "answer.json", folder / "output"
    # -P: what lies in the current folder must not stand in for an installed module.
    command = [sys.executable, "-P", "-X", "faulthandler", "-m", "trainkit.probe", *entry[:3], str(answer)]
    started = time.perf_counter()
    # A file takes any amount of output, and nobody waits for its end, unlike a pipe.
    with output.open("wb") as stream:
        process = subprocess.Popen(  # noqa: S603 - our own module; the plugin's name is an argument, not a command
            command, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, start_new_session=True
        )
        try:
            code = process.wait(limit_seconds)
        except subprocess.TimeoutExpired:
            _kill(process)
            fault = f"import: it did not end within {limit_seconds:g} s"
            return Probe(entry, fault, time.perf_counter() - started, output.stat().st_size)
    seconds, printed = time.perf_counter() - started, output.stat().st_size
    if not answer.exists():
        return Probe(entry, f"import: it {_ending(code)}", seconds, printed, output.read_text(errors="replace")[-2000:])
    found = json.loads(answer.read_text(encoding="utf-8"))
    return Probe(entry, found["fault"], found["seconds"], printed, found["traceback"])


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


def main(kind: str, name: str, module: str, answer: str) -> None:
    """Load one plugin and write how it did, as JSON, to the file `answer`: what the child process does."""
    from .component import Component
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
    Path(answer).write_text(json.dumps({"fault": fault, "seconds": seconds, "traceback": trace}), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
