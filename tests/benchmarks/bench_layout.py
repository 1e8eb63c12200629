"""What the layout domain costs in the default run: making batches beside training on them, and generating layouts.

    python tests/benchmarks/bench_layout.py [ROUNDS]

Batches are made as a run makes them: augmented by the task's default augmenter at the default size, then collated.
Generation is that of `trainkit predict`: 125 sections, the default steps, guidance 7.5, both decoding orders.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch
from trainkit.api import preview
from trainkit.compose import compose
from trainkit.registry import Registry

PAGES = 125
BATCH = 8


def seconds(work, rounds: int) -> float:
    work()
    found = []
    for _ in range(rounds):
        started = time.perf_counter()
        work()
        found.append(time.perf_counter() - started)
    return statistics.median(found)


def batch_against_step(rounds: int) -> None:
    run = compose(preview(settings={"loop.batch_size": BATCH}))
    maker = run.batch_maker()
    samples, variants = torch.arange(BATCH), torch.arange(1, BATCH + 1)

    def step() -> None:
        _, loss = run.forward(batch)
        (loss.sum / loss.count).backward()
        run.optimizer.step()
        run.optimizer.zero_grad()

    batch = maker(1, samples, variants)
    made, stepped = seconds(lambda: maker(1, samples, variants), rounds), seconds(step, rounds)
    share = made / (made + stepped)
    print(f"default run, batches of {BATCH}: {1e3 * made:.1f} ms to make one, {1e3 * stepped:.1f} ms for its step")
    print(f"  share of the data: {share:.1%} (goal: below 10 %)")


def generation(order: str) -> None:
    task = Registry().load("task", "layout").build({"order": order})
    task.fit(task.read(None, 0).train)
    from importlib import import_module

    sections = import_module(type(task).__module__.rpartition(".")[0] + ".sections")
    with tempfile.TemporaryDirectory() as folder:
        sections.write_sections(Path(folder), PAGES, seed=1)
        dataset = task.inputs(sorted(Path(folder).glob("*/*")))
    model = task.build_model().eval()
    started = time.perf_counter()
    for first in range(0, PAGES, 25):
        samples = dataset.__getitems__(list(range(first, min(PAGES, first + 25))))
        task.answers(model, task.collate(samples), samples)
    print(f"{order}: {PAGES} sections generated in {time.perf_counter() - started:.1f} s (goal: at most 60 s)")


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    torch.manual_seed(0)
    batch_against_step(rounds)
    for order in ("diffusion", "left-to-right"):
        generation(order)


if __name__ == "__main__":
    main()
