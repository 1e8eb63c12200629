"""Where training through an adapter is two or three times as fast: at the shape of T5-small, beside full fine-tuning.

As bench_lora.py has it: random weights, float32, AdamW, clipping, LoRA of rank 16 beside q and v, in trainkit's loop.
Here the adapters stand in the decoder alone, or in its last block alone, so that nothing of the encoder is kept for a
backward pass; its outputs are computed in every step, or taken from memory (cached: what a cache is worth at most); and
a larger batch takes the memory that is free. Timed are steps, in one process, in turn; measured is what a process holds
at most over that after its imports, with an allocator that gives back every block.

    python tests/benchmarks/bench_lora_faster.py [ROUNDS]
"""

from __future__ import annotations

import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Mapping
from dataclasses import astuple, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from baretask import BareTask
from bench_lora import ALLOCATOR, VOCABULARY, Step, begun, make_model, resident
from torch import Tensor, nn
from trainkit.contracts import Splits
from trainkit.data import TensorData
from trainkit.live import Run
from trainkit.loop import train_step

WIDTH = 512
TARGETS = {
    "lora": [],
    "decoder": ["decoder.*.q", "decoder.*.v"],
    "last block": ["decoder.block.5.*.q", "decoder.block.5.*.v"],
}
# Tokens of input and target; samples of a batch, and of one that takes no more than full fine-tuning of the first.
SHAPES = ((128, 128, 8, 16), (512, 64, 4, 16))


@dataclass(frozen=True)
class Case:
    """Say what trains on which batches: full, or one of TARGETS; tokens of input and target, samples, a cache."""

    adapter: str
    input: int
    target: int
    batch: int
    cached: bool = False

    @property
    def label(self) -> str:
        """Return its row's name."""
        return f"{self.adapter}{', cached' if self.cached else ''}"


def cases(input: int, target: int, batch: int, larger: int) -> list[Case]:
    """Return what is compared at one shape, full fine-tuning first, the larger batch last."""
    plain = [Case(adapter, input, target, batch) for adapter in ("full", *TARGETS)]
    cached = [replace(case, cached=True) for case in plain[2:]]
    return [*plain, *cached, replace(plain[2], batch=larger)]


class EncodedTask(BareTask):
    """Run the T5, without its encoder where a batch has the outputs of that."""

    def forward(self, model: nn.Module, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return the logits, and note whether a graph is kept of the encoder."""
        encoded = batch.get("encoded")
        source = {"input_ids": batch["input_ids"]} if encoded is None else {"encoder_outputs": (encoded,)}
        outputs = model(**source, decoder_input_ids=batch["decoder_input_ids"], use_cache=False)
        self.graph_below = outputs.encoder_last_hidden_state.requires_grad
        return {"logits": outputs.logits}


def make_batch(case: Case) -> dict[str, Tensor]:
    """Return a batch of random tokens, and of random outputs of the encoder where these are cached."""
    torch.manual_seed(1)
    batch = {"input_ids": torch.randint(3, VOCABULARY, (case.batch, case.input))}
    if case.cached:
        batch["encoded"] = torch.randn(case.batch, case.input, WIDTH)
    return batch | {n: torch.randint(3, VOCABULARY, (case.batch, case.target)) for n in ("decoder_input_ids", "labels")}


def make_run(case: Case) -> Run:
    """Return a run of trainkit at its beginning."""

    def splits() -> Splits:
        return Splits(TensorData(make_batch(case)), source="random tokens")

    task = EncodedTask(splits, make_model, "input_ids", "decoder_input_ids", "encoded", "labels", "logits")
    if targets := TARGETS.get(case.adapter):
        return begun(task, "lora", case.batch, targets=targets)
    return begun(task, case.adapter, case.batch)


def make_step(case: Case) -> Step:
    """Return the step of trainkit's loop, after it has shown where the graph begins."""
    run = make_run(case)
    batch = {**make_batch(case), "sample_id": torch.arange(case.batch)}
    step = partial(train_step, run, [batch])
    step()
    assert run.task.graph_below == (case.adapter in ("full", "lora")), "something is kept of a frozen encoder"
    return step


def times(found: list[Case], rounds: int) -> dict[Case, list[float]]:
    """Return the processor seconds of a step of each case, round by round."""
    steps = {case: make_step(case) for case in found}
    busy: dict[Case, list[float]] = {case: [] for case in steps}
    for _ in range(rounds):
        for case, step in steps.items():
            began = time.process_time()
            step()
            busy[case].append(time.process_time() - began)
    return busy


def held(case: Case) -> float:
    """Return the most memory, in MiB, that a step in this process takes over what it holds now."""
    before = resident("VmRSS")
    step = make_step(case)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    step()
    return resident("VmHWM") - before


def peaks(found: list[Case]) -> dict[Case, float]:
    """Return what each case holds at most; the allocator's environment counts from the start of a process."""
    command = [sys.executable, "-W", "ignore", __file__, "--peaks", json.dumps([astuple(case) for case in found])]
    done = subprocess.run(command, env=os.environ | {ALLOCATOR: "65536"}, capture_output=True, text=True, check=True)
    return dict(zip(found, json.loads(done.stdout.splitlines()[-1]), strict=True))


def print_peaks(found: list[Case]) -> None:
    """Print what each case holds at most, each in a process of its own, which is forked when imports are done."""
    with multiprocessing.get_context("fork").Pool(1, maxtasksperchild=1) as pool:
        print(json.dumps(pool.map(held, found, chunksize=1)))


def compare(input: int, target: int, batch: int, larger: int, rounds: int) -> None:
    """Print the table of one shape."""
    found = cases(input, target, batch, larger)
    full, memory = found[0], peaks(found)
    busy = times(found, rounds)
    print(f"\ninput {input}, target {target}")
    heads = ("", "batch", "a step, s", "a sample, s", "of full", "times", "held, MiB", "of full")
    print("| " + " | ".join(heads) + " |\n" + "|" + " --- |" * len(heads))
    for case, seconds in busy.items():
        share = statistics.median(
            (mine / case.batch) / (theirs / full.batch) for mine, theirs in zip(seconds, busy[full], strict=True)
        )
        step = statistics.median(seconds)
        cells = (
            case.label, case.batch, f"{step:.2f}", f"{step / case.batch:.3f}", f"{share:.2f}", f"{1 / share:.1f}",
            f"{memory[case]:,.0f}", f"{memory[case] / memory[full]:.2f}",
        )  # fmt: skip
        print("| " + " | ".join(map(str, cells)) + " |", flush=True)


def main() -> None:
    """Print a table for short inputs, and one for long ones."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    import transformers

    transformers.logging.set_verbosity_error()
    if sys.argv[1:2] == ["--peaks"]:
        print_peaks([Case(*fields) for fields in json.loads(sys.argv[2])])
        return
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    print(f"T5-small's shape, torch {torch.__version__}, 1 thread; shares are those of a sample's processor time")
    for shape in SHAPES:
        compare(*shape, rounds)


if __name__ == "__main__":
    main()
