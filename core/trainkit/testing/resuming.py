"""A run with callbacks that is stopped and goes on, beside the one that was left alone."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from trainkit.api import Request, resume, start
from trainkit.errors import ExitCode
from trainkit.hooks import hookimpl
from trainkit.live import Run
from trainkit.plan import Stage
from trainkit.rundir import rows
from trainkit.storage.tensorfile import read

from .component import same
from .tiny import tiny_request


class StopAt:
    """Do what a signal's handler does, once this many optimizer steps are done."""

    def __init__(self, step: int, number: int = signal.SIGUSR1) -> None:
        self.step, self.number = step, number

    @hookimpl
    def on_step(self, run: Run) -> None:
        """Stop when it is time."""
        if run.moment.step == self.step:
            run.signal = self.number


def assert_resumes(
    folder: Path,
    make: Callable[[], Sequence[object]],
    stops: Sequence[int],
    settings: Mapping[str, Any] | None = None,
    stages: Sequence[Stage] = (Stage(epochs=5),),
    **live: Any,
) -> Path:
    """Assert that a run that is stopped comes to the same weights, state and log, to the bit; return its folder.

    Args:
        folder: an empty one, for the runs.
        make: returns fresh callbacks.
        stops: the run is stopped after each of these optimizer steps, and resumed.
        settings: of the runs.
        stages: of the runs.
        live: live components of other kinds, as task=MyTask().
    """
    straight, broken = folder / "straight", folder / "broken"

    def request(out: Path) -> Request:
        return tiny_request({"out": str(out), **(settings or {})}, stages=stages, callbacks=make(), **live)

    assert start(request(straight)).status == "done"
    for number, step in enumerate([*stops, None]):
        fresh = request(broken)
        listeners = [] if step is None else [("stop", StopAt(step))]
        asked = Request((), fresh.live, fresh.registry, listeners, report=fresh.report)
        result = resume(broken, asked) if number else start(Request(fresh.layers, *_rest(asked)))
        assert result.exit_code is (ExitCode.DONE if step is None else ExitCode.STOPPED)
    assert same(saved(broken), saved(straight)), "weights, optimizer or state differ from those of the run left alone"
    assert logged(broken) == logged(straight), "the log differs from that of the run left alone"
    return straight


def _rest(request: Request) -> tuple[Any, ...]:
    return request.live, request.registry, request.listeners, request.report


def saved(out: Path) -> dict[str, Any]:
    """Return the tensors of a run's last checkpoint, by file and name."""
    newest = max((out / "checkpoints").glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    return {path.name: read(path) for path in sorted(newest.glob("*.safetensors"))}


def logged(out: Path) -> list[dict[str, Any]]:
    """Return the rows of a run's log without what the clock measured."""
    return [{tag: v for tag, v in row.items() if not tag.startswith("time/")} for row in rows(out / "metrics.jsonl")]
