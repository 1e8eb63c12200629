"""Time from typing a command to its answer, beside `python -c pass`, with many distributions installed.

    python tests/benchmarks/bench_startup.py [--rounds 20]

Whole processes in turn, medians over the rounds, ratios to the first row of each table.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

PLUGINS, OTHERS = 50, 300
BY_IMPORTLIB = """
from importlib.metadata import entry_points
for group in entry_points().groups:
    for point in entry_points(group=group):
        point.dist.name
"""
# The first torch.optim optimizer of a process imports torch._dynamo: no run by hand is without it.
ONE_STEP = """
import torch
model = torch.nn.Linear(2, 2)
optimizer = torch.optim.AdamW(model.parameters(), fused=True)
model(torch.ones(1, 2)).sum().backward()
optimizer.step()
"""
FIRST_STEP = """
import os
from trainkit import hookimpl

class FirstStep:
    @hookimpl
    def on_step(self, run):
        os._exit(0)
"""
KINDS = ("loss", "optimizer", "metric", "callback", "augmenter")


def write_distributions(folder: Path, plugins: int = PLUGINS, others: int = OTHERS) -> None:
    """Write the metadata of `plugins` plugin distributions and `others` distributions of other programs."""
    for number in range(plugins):
        kind = KINDS[number % len(KINDS)]
        package = f"trainkit_{kind}_fake{number}"
        entry_points = f"[trainkit.{kind}]\nfake{number} = {package}\n"
        write_distribution(folder, package, f"A fake {kind}", entry_points, ["trainkit-core>=0.1,<1"])
        (folder / f"{package}.py").write_text('raise RuntimeError("a listing imports no plugin")\n')
    for number in range(others):
        entry_points = f"[console_scripts]\nother{number} = other{number}:main\n" if number % 3 == 0 else ""
        write_distribution(folder, f"other{number}", "Something else", entry_points, ["numpy>=1.26"])


def write_distribution(folder: Path, package: str, summary: str, entry_points: str, requires: Sequence[str]) -> None:
    """Write the metadata folder of one distribution, with a description as long as real ones have."""
    place = folder / f"{package}-1.0.dist-info"
    place.mkdir()
    lines = ["Metadata-Version: 2.4", f"Name: {package.replace('_', '-')}", "Version: 1.0", f"Summary: {summary}"]
    lines += [f"Requires-Dist: {requirement}" for requirement in requires]
    (place / "METADATA").write_text("\n".join([*lines, "", "A line of the description.\n" * 200]))
    if entry_points:
        (place / "entry_points.txt").write_text(entry_points)


def seconds(command: Sequence[str], environment: Mapping[str, str]) -> float:
    """Return how long a process takes; it must succeed."""
    started = time.perf_counter()
    subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - started


def measure(
    commands: Mapping[str, Sequence[str]], rounds: int, environment: Mapping[str, str], clean: Path | None = None
) -> dict[str, list[float]]:
    """Return the seconds of each command, all of them in turn in each round; one round before that is not counted.

    Args:
        commands: command lines by name.
        rounds: how often each is timed.
        environment: variables of the processes.
        clean: a folder that is removed after each command.
    """
    times: dict[str, list[float]] = {name: [] for name in commands}
    for turn in range(rounds + 1):
        for name, command in commands.items():
            taken = seconds(command, environment)
            if clean is not None:
                shutil.rmtree(clean, ignore_errors=True)
            if turn:
                times[name].append(taken)
    return times


def print_table(title: str, times: Mapping[str, list[float]]) -> None:
    """Print medians, and medians of the ratios of each round to the first row."""
    base = next(iter(times.values()))
    print(f"\n{title}\n{'':<38}{'ms':>8}{'ratio':>8}")
    for name, taken in times.items():
        ratio = statistics.median(one / other for one, other in zip(taken, base, strict=True))
        print(f"{name:<38}{statistics.median(taken) * 1e3:>8.1f}{ratio:>8.2f}")


def bench_listing(rounds: int) -> dict[str, list[float]]:
    """Time the commands that only look, with all the distributions installed."""
    python, command = sys.executable, str(Path(sys.executable).with_name("trainkit"))
    with tempfile.TemporaryDirectory() as folder:
        write_distributions(Path(folder))
        environment = {**os.environ, "PYTHONPATH": folder, "TRAINKIT_HOME": f"{folder}/home"}
        commands = {
            "python -c pass": [python, "-c", "pass"],
            "python -c 'import click'": [python, "-c", "import click"],
            "trainkit --version": [command, "--version"],
            "trainkit --help": [command, "--help"],
            "trainkit plugins": [command, "plugins"],
            "trainkit plugins --json": [command, "plugins", "--json"],
            "importlib.metadata, names only": [python, "-c", BY_IMPORTLIB],
        }
        return measure(commands, rounds, environment)


def bench_first_step(rounds: int) -> dict[str, list[float]]:
    """Time a run on the embedded sample from typing the command to its first optimizer step, beside `import torch`."""
    python, command = sys.executable, str(Path(sys.executable).with_name("trainkit"))
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "first_step.py").write_text(FIRST_STEP)
        run = [command, "run", "--quiet", "--out", f"{folder}/run", "--callback", f"{folder}/first_step.py:FirstStep"]
        environment = {**os.environ, "TRAINKIT_HOME": f"{folder}/home"}
        commands = {
            "python -c 'import torch'": [python, "-c", "import torch"],
            "import torch, one step of AdamW": [python, "-c", ONE_STEP],
            "trainkit run, to its first step": [*run, "--callback", "no:tensorboard"],
            "the same with TensorBoard": run,
        }
        return measure(commands, rounds, environment, clean=Path(folder) / "run")


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description="Time from typing a command to its answer.")
    parser.add_argument("--rounds", type=int, default=20)
    rounds = parser.parse_args().rounds
    print_table(f"listing, {PLUGINS} plugin distributions and {OTHERS} others", bench_listing(rounds))
    print_table("training", bench_first_step(max(3, rounds // 3)))


if __name__ == "__main__":
    main()
