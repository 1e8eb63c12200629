"""What `keep_heap` takes off a training step, and what memory it costs: processes with and without it in turn.

The steps are those of the Temporal Fusion Transformer in bench_tft.py (many temporaries of some megabytes) and of a
perceptron (small ones), batch 32, one thread. CPU time holds what the kernel spends on fresh pages; wall time does too,
but on a machine that does other work it says less. Ratios are medians of those of the pairs.

    python tests/benchmarks/bench_heap.py [PAIRS]
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import torch
from bench_tft import our_steps, status_kib
from trainkit.heap import keep_heap

WARM_UP = 5
STEPS = {"TFT, 1 target": 40, "TFT, 4 targets": 40, "perceptron": 2000}


def perceptron() -> Callable[[], float]:
    """Return a function that trains a perceptron of 0.2 million parameters for a step."""
    model = torch.nn.Sequential(torch.nn.Linear(64, 512), torch.nn.GELU(), torch.nn.Linear(512, 256))
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    batch = torch.randn(32, 64)

    def step() -> float:
        loss = model(batch).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()

    return step


def run(job: str, kept: bool) -> None:
    """Print wall and CPU milliseconds of a step, the peak of the resident memory in MiB, and page faults a step."""
    import resource

    torch.set_num_threads(1)
    torch.manual_seed(0)
    if kept and not keep_heap():
        raise SystemExit("the heap cannot be kept here: this needs glibc")
    step = perceptron() if job == "perceptron" else our_steps(int(job.split()[1]))
    for _ in range(WARM_UP):
        step()
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(STEPS[job]):
        step()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults
    count = STEPS[job]
    print(1e3 * wall / count, 1e3 * cpu / count, status_kib("VmHWM") / 1024, faults / count)


def measured(job: str, kept: bool) -> list[float]:
    """Return what a process of its own prints."""
    command = [sys.executable, __file__, "--one", job, str(int(kept))]
    return [float(word) for word in subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()]


def main(pairs: int) -> None:
    """Print a line a job: medians of both, and the median ratio of the pairs."""
    print(f"{'job':<16}{'':<6}{'wall ms':>9}{'CPU ms':>9}{'peak MiB':>10}{'faults':>9}")
    for job in STEPS:
        found = [(measured(job, False), measured(job, True)) for _ in range(pairs)]
        for place, name in enumerate(("as is", "kept")):
            columns = [statistics.median(pair[place][i] for pair in found) for i in range(4)]
            print(f"{job:<16}{name:<6}{columns[0]:9.2f}{columns[1]:9.2f}{columns[2]:10.0f}{columns[3]:9.0f}")
        ratios = [statistics.median(pair[1][i] / pair[0][i] for pair in found) for i in range(3)]
        print(f"{'':<16}{'ratio':<6}{ratios[0]:9.3f}{ratios[1]:9.3f}{ratios[2]:10.3f}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        run(sys.argv[2], sys.argv[3] == "1")
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
