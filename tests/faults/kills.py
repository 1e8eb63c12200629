"""Kill runs at random moments of training and saving, resume them, and compare with a run that was left alone.

    python tests/faults/kills.py [KILLS] [SEED]

Each trial is a chain: start, SIGKILL at a random time, resume, SIGKILL, ... until the run ends. Afterwards weights,
optimizer, schedule, state of components, counters and every row of metrics.jsonl must equal the reference to the bit.
Prints one JSON object and exits with 1 if anything was lost.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from trainkit import hookimpl
from trainkit.api import Request, resume, start
from trainkit.checkpoint import Checkpoints
from trainkit.contracts import LossOutput
from trainkit.live import Run
from trainkit.plan import Selection, Stage
from trainkit.rundir import rows
from trainkit.storage import bestrecord
from trainkit.testing.tiny import TinyTask, tiny_request

STAGES = (
    Stage(name="easy", epochs=2, selection=Selection(easiest=0.6, fraction=0.8), trainable=("head.*", "mix.*")),
    Stage(name="all", epochs=2, lr_factor=0.5, restart_schedule=True),
)
SETTINGS = {
    "loop.batch_size": 3,
    "loop.accumulate": 2,
    "loop.variants": 2,
    "loop.log_every_steps": 4,
    "evaluate.every_steps": 7,
    "checkpoint.every_steps": 3,
    "checkpoint.keep_best": 2,
    "metric": ["token-accuracy"],
    "optimizer.lr": 0.02,
}


class Shift:
    """Augment: shift every token by a random amount."""

    reads = frozenset({"tokens"})

    def __call__(self, sample: Mapping[str, Any], generator: np.random.Generator) -> dict[str, Any]:
        return {"tokens": (sample["tokens"] + generator.integers(0, 5, len(sample["tokens"]))) % 13}


class Learned(nn.Module):
    """A loss with a parameter and with state."""

    def __init__(self) -> None:
        super().__init__()
        self.log_variance = nn.Parameter(torch.zeros(()))
        self.register_buffer("seen", torch.zeros((), dtype=torch.long))

    def forward(self, logits: torch.Tensor, labels: torch.Tensor) -> LossOutput:
        count = (labels != -100).sum()
        if self.training:
            self.seen += count
        nll = nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum")
        total = nll * torch.exp(-self.log_variance) + count * self.log_variance
        return LossOutput(
            total, count, parts={"nll": (nll.detach(), count)}, weights={"nll": torch.exp(-self.log_variance)}
        )


class Average:
    """Keep a moving average of the head: a callback with tensors and a counter in its state."""

    def __init__(self) -> None:
        self.updates = 0
        self.average = torch.zeros(13)

    @hookimpl
    def on_step(self, run: Run) -> None:
        self.updates += 1
        self.average = self.average.lerp(run.learnable["head.bias"].detach(), 0.1)
        run.record("average/norm", self.average.norm())

    def state_dict(self) -> dict[str, Any]:
        return {"updates": self.updates, "average": self.average}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.updates, self.average = state["updates"], state["average"].clone()


def request(out: Path) -> Request:
    """Return the request of the run under test."""
    return tiny_request(
        SETTINGS | {"out": str(out)},
        stages=STAGES,
        task=TinyTask(samples=30),
        callbacks=[Average()],
        loss=Learned,
        augmenter=Shift,
    )


def carry_out(out: Path) -> None:
    """Start the run, or resume it if it was started."""
    asked = request(out)
    if (out / "plan.json").exists():
        resume(out, Request((), asked.live, asked.registry, report=asked.report))
    else:
        start(asked)


def state_of(out: Path) -> dict[str, Any]:
    """Return everything that must be equal to the bit: the last checkpoint's content and the rows, time left out."""
    checkpoints = Checkpoints(out / "checkpoints", read_only=True)
    checkpoint = checkpoints.newest_valid()
    assert checkpoint is not None
    best = bestrecord.read(out / "checkpoints" / "best.json")
    assert {checkpoints.of(entry.step).step for entry in best} == {entry.step for entry in best}
    files = {name: {k: v.numpy().tobytes() for k, v in checkpoint.tensors(name).items()} for name in (
        "model.safetensors", "optimizer.safetensors", "state.safetensors")}  # fmt: skip
    documents = {name: checkpoint.document(name) for name in ("optimizer.json", "state.json", "task.json")}
    found = [{k: v for k, v in row.items() if not k.startswith("time/")} for row in rows(out / "metrics.jsonl")]
    results = json.loads((out / "results.json").read_text())
    return {
        "files": files,
        "documents": documents,
        "rows": found,
        "step": checkpoint.step,
        "best": [list(entry) for entry in best],
        "results": results["results"],
    }


def differences(one: Any, other: Any, place: str = "") -> list[str]:
    """Return the places at which two states differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        keys = one.keys() | other.keys()
        return [d for key in sorted(keys) for d in differences(one.get(key), other.get(key), f"{place}/{key}")]
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        return [d for i, pair in enumerate(zip(one, other, strict=True)) for d in differences(*pair, f"{place}/{i}")]
    return [] if one == other else [f"{place}: {str(one)[:60]} != {str(other)[:60]}"]


def killed_after(seconds: float, out: Path, log: Path) -> int:
    """Carry out the run in a child and kill it after some seconds; return -9 if it was killed, else its exit code."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            torch.set_num_threads(1)
            carry_out(out)
            code = 0
        except BaseException:
            log.write_text(traceback.format_exc())
        finally:
            os._exit(code)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def chain(out: Path, log: Path, draw: random.Random, duration: float, limit: int) -> tuple[int, str]:
    """Start, kill and resume a run until it ends; return the kills and what went wrong, or ''."""
    kills = 0
    while True:
        seconds = draw.uniform(0.02, duration) if kills < limit else 600.0
        code = killed_after(seconds, out, log)
        if code == 0:
            return kills, ""
        if code != -signal.SIGKILL:
            return kills, log.read_text() if log.exists() else f"exit code {code}"
        kills += 1
        if out.exists() and not (out / "plan.json").exists():
            # Killed before the run was on record: nothing is lost, and the user starts it again in another directory.
            out = out.with_name(out.name + "x")
            out.parent.mkdir(exist_ok=True)


def main() -> int:
    """Kill until enough were killed; print the account."""
    kills_wanted = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    torch.set_num_threads(1)
    draw = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        started = time.monotonic()
        assert killed_after(600, Path(folder) / "reference", Path(folder) / "log") == 0, (
            Path(folder) / "log"
        ).read_text()
        duration = time.monotonic() - started
        reference = state_of(Path(folder) / "reference")
        account: dict[str, Any] = {
            "kills": 0,
            "runs": 0,
            "lost": 0,
            "unequal": 0,
            "seconds_of_a_run": round(duration, 2),
        }
        while account["kills"] < kills_wanted:
            out = Path(folder) / f"run-{account['runs']}" / "run"
            out.parent.mkdir()
            kills, fault = chain(out, Path(folder) / "log", draw, duration, min(6, kills_wanted - account["kills"]))
            account["kills"] += kills
            account["runs"] += 1
            if fault:
                account["lost"] += 1
                account.setdefault("faults", []).append(fault)
                continue
            found = state_of(next(path.parent for path in out.parent.rglob("results.json")))
            if found != reference:
                account["unequal"] += 1
                account.setdefault("differences", []).append(differences(reference, found))
        print(json.dumps(account | {"steps": reference["step"], "seed": seed}))
    return int(account["lost"] + account["unequal"] > 0)


if __name__ == "__main__":
    sys.exit(main())
