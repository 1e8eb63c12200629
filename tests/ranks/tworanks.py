"""Ranks for tests: forks of this process, in which PyTorch is imported, that speak to each other over gloo."""

from __future__ import annotations

import json
import os
import socket
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from trainkit.api import Request, start
from trainkit.live import Run
from trainkit.ranks.world import joined, world_of
from trainkit.testing.tiny import TinyTask, tiny_request

LIMIT_SECONDS = 60


def on_ranks(work: Callable[[], Any], ranks: int = 2, limit: float | None = None) -> list[Any]:
    """Return what each of several ranks answers, as JSON, or None of one that is gone.

    An exception is {"error": its class, "text": its message}. With a limit in seconds, one that stands still is ended
    then; without one it is a fault.
    """
    with socket.socket() as free, tempfile.TemporaryDirectory() as folder:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        sys.stdout.flush()
        sys.stderr.flush()
        processes = [_forked(work, rank, ranks, port, Path(folder)) for rank in range(ranks)]
        _wait(processes, limit)
        files = [Path(folder) / str(rank) for rank in range(ranks)]
        return [json.loads(file.read_text()) if file.exists() else None for file in files]


def _forked(work: Callable[[], Any], rank: int, ranks: int, port: int, folder: Path) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks)}
        os.environ |= {"LOCAL_WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        torch.set_num_threads(1)
        try:
            answer = work()
        except Exception as error:
            traceback.print_exc()
            answer = {"error": type(error).__name__, "text": str(error)}
        (folder / str(rank)).write_text(json.dumps(answer))
    finally:
        sys.stderr.flush()
        os._exit(0)


def _wait(processes: list[int], limit: float | None) -> None:
    deadline = time.monotonic() + (limit or LIMIT_SECONDS)
    left = list(processes)
    while len(left) > (limit is not None) and time.monotonic() < deadline:
        left = [pid for pid in left if os.waitpid(pid, os.WNOHANG) == (0, 0)]
        time.sleep(0.005)
    for pid in left:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
    assert limit or not left, f"ranks did not end within {LIMIT_SECONDS} s"


def speaking_ranks(work: Callable[[Any], Any], ranks: int = 2) -> list[Any]:
    """Return what each rank answers that can speak to the others; it is given its world."""

    def answer() -> Any:
        world = world_of(os.environ)
        with joined(world, torch.device("cpu"), 30.0):
            return work(world)

    return on_ranks(answer, ranks)


class Last:
    """Keep the run that it hears of."""

    run: Run

    def on_run_start(self, run: Run) -> None:
        """Keep it."""
        self.run = run


def request(settings: Mapping[str, Any], **arguments: Any) -> Request:
    """Return the request of a tiny run whose dropout, which differs by rank, is off."""
    task = arguments.pop("task", None) or TinyTask(samples=arguments.pop("samples", 21), dropout=0.0)
    usual = {"loop.batch_size": 5, "optimizer.use": "sgd", "optimizer.lr": 0.05, "loop.workers": 0}
    return tiny_request(usual | dict(settings), task=task, **arguments)


def trained(asked: Request) -> dict[str, Any]:
    """Return how a run ended, and the weights and results that it came to."""
    result = start(asked)
    weights = {name: value.flatten().tolist() for name, value in result.model.state_dict().items()}
    facts = {name: result.summary[name] for name in ("steps", "samples", "epochs", "stop_reason", "best_step")}
    results = result.summary["results"].get("model", {})
    return {"status": result.status, "code": int(result.exit_code), "weights": weights, "results": results, **facts}


def furthest(one: Mapping[str, list[float]], other: Mapping[str, list[float]]) -> float:
    """Return the largest difference between two sets of weights."""
    assert one.keys() == other.keys()
    return max(abs(a - b) for name in one for a, b in zip(one[name], other[name], strict=True))
