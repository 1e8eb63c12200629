"""Measure checkpoints of a 25M-parameter model with AdamW state against torch.save and torch.load, side by side.

Both sides give the same guarantees: every byte hashed, files and folders fsynced, one atomic rename. Loading is
measured in a new process each time, as it happens when a run resumes, and ours verifies every hash first. Run it as
`python tests/benchmarks/bench_checkpoint.py [ROUNDS]`; it prints medians, spreads and ratios, and ends with 1 if a goal
is missed.
"""

from __future__ import annotations

import json
import mmap
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import xxhash
from trainkit.checkpoint import Checkpoint, Checkpoints, Snapshot
from trainkit.storage.statetree import flatten

GOALS = (
    ("save", "trainkit save", "torch.save", 0.75),
    ("pause of a background save", "trainkit pause", "torch.save", 0.15),
    ("resume", "trainkit resume", "torch.load", 0.25),
)


def build() -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    """Return a transformer of 25.2M parameters and an optimizer that has stepped."""
    layer = torch.nn.TransformerEncoderLayer(512, 8, 2048, batch_first=True)
    model = torch.nn.TransformerEncoder(layer, 8, enable_nested_tensor=False)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    optimizer.zero_grad()
    return model, optimizer


def save_by_torch(folder: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Save with torch.save and the guarantees of a trainkit checkpoint."""
    temporary, final = folder / "temporary.pt", folder / "checkpoint.pt"
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, temporary)
    with temporary.open("r+b") as file:
        with mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as content:
            digest = xxhash.xxh3_128_hexdigest(content)
        os.fsync(file.fileno())
    with (folder / "checkpoint.hash").open("w") as file:
        file.write(digest)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(final)
    descriptor = os.open(folder, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def snapshot(step: int, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> Snapshot:
    """Return what a run saves."""
    document, tensors = flatten(optimizer.state_dict())
    return Snapshot(
        step, {"model.safetensors": model.state_dict(), "optimizer.safetensors": tensors}, {"optimizer.json": document}
    )


def resume(checkpoints: Checkpoints, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> Checkpoint:
    """Find, verify and load the newest checkpoint into the tensors that are there."""
    checkpoint = checkpoints.newest_valid()
    assert checkpoint is not None
    checkpoint.load_into("model.safetensors", model.state_dict())
    checkpoint.document("optimizer.json")
    checkpoint.load_into("optimizer.safetensors", flatten(optimizer.state_dict())[1])
    return checkpoint


def timed(action: Callable[[], Any]) -> float:
    """Return how many milliseconds an action takes."""
    started = time.perf_counter()
    action()
    return 1000 * (time.perf_counter() - started)


def measure_loads(folder: Path, ours_first: bool) -> dict[str, float]:
    """Return the milliseconds of both ways to load; to be called in a new process, as a resume is one."""
    model, optimizer = build()
    checkpoints = Checkpoints(folder / "checkpoints")
    ways: dict[str, Callable[[], Any]] = {
        "torch.load": lambda: torch.load(folder / "checkpoint.pt", weights_only=True),
        "trainkit resume": lambda: resume(checkpoints, model, optimizer),
    }
    names = sorted(ways, reverse=ours_first)
    return {name: timed(ways[name]) for name in names}


def loads_of_new_process(folder: Path, ours_first: bool) -> dict[str, float]:
    """Return what `measure_loads` measures in a process of its own."""
    command = [sys.executable, __file__, "--load", str(folder), str(int(ours_first))]
    answer: dict[str, float] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return answer


def measure(folder: Path, rounds: int) -> dict[str, list[float]]:
    """Return the milliseconds of each contestant in each round; the contestants take turns."""
    torch.manual_seed(0)
    model, optimizer = build()
    checkpoints = Checkpoints(folder / "checkpoints")
    times: dict[str, list[float]] = {}
    for number in range(rounds + 1):
        shots = [snapshot(2 * number + i, model, optimizer) for i in range(2)]
        found = {
            "torch.save": timed(lambda: save_by_torch(folder, model, optimizer)),
            "trainkit save": timed(lambda shot=shots[0]: checkpoints.save(shot)),
            "trainkit tidying": timed(checkpoints.wait),
            "trainkit pause": timed(lambda shot=shots[1]: checkpoints.save(shot, background=True)),
            "trainkit rest": timed(checkpoints.wait),
        }
        # The first round allocates the kept buffers and warms everything up.
        if number:
            found |= loads_of_new_process(folder, ours_first=number % 2 == 0)
            for name, milliseconds in found.items():
                times.setdefault(name, []).append(milliseconds)
    return times


def main() -> int:
    """Measure, print a table, and return 1 if a goal is missed."""
    if sys.argv[1:2] == ["--load"]:
        print(json.dumps(measure_loads(Path(sys.argv[2]), bool(int(sys.argv[3])))))
        return 0
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    with tempfile.TemporaryDirectory(dir=".") as name:
        times = measure(Path(name), rounds)
    print(f"25.2M parameters with AdamW state (303 MB), {rounds} rounds, {torch.get_num_threads()} threads; ms")
    for name, values in times.items():
        print(f"  {name:<18}{statistics.median(values):8.1f}   ({min(values):.1f} to {max(values):.1f})")
    missed = 0
    for label, ours, theirs, goal in GOALS:
        ratio = statistics.median(times[ours]) / statistics.median(times[theirs])
        missed += ratio > goal
        print(f"  {label}: {ratio:.3f}x of {theirs}, goal {goal}x, {'reached' if ratio <= goal else 'MISSED'}")
    return int(missed > 0)


if __name__ == "__main__":
    raise SystemExit(main())
