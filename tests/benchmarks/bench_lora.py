"""What an adapter saves and costs at the shape of T5-small: full fine-tuning, peft, and trainkit, side by side.

Random weights, batches of 8 x (128 + 128) tokens, float32, AdamW, clipping, LoRA of rank 16 beside q and v. Counted are
parameters, the bytes of a checkpoint's weights and of the optimizer's state; timed are steps, in one process, in turn;
measured is the peak of memory of a process over that after its imports: once with an allocator that gives back every
block of 64 kB and more, which shows what is really held, and once as the system has it.

    python tests/benchmarks/bench_lora.py [ROUNDS] [THREADS]
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from baretask import BareTask
from torch import Tensor, nn
from torch.nn import functional
from trainkit.compose import compose
from trainkit.config import layer_of
from trainkit.contracts import Splits
from trainkit.data import TensorData
from trainkit.draft import make_draft
from trainkit.exporting import merged_model
from trainkit.live import Run
from trainkit.loop import enter_stage, train_step
from trainkit.registry import Registry
from trainkit.storage import tensorfile
from trainkit.weights import saved_weights

BATCH, LENGTH, RATE, VOCABULARY = 8, 128, 1e-4, 32_128
CONTESTANTS = ("full", "peft", "trainkit full", "trainkit lora")
ALLOCATOR = "MALLOC_MMAP_THRESHOLD_"
Step = Callable[[], None]


def make_model() -> nn.Module:
    """Return a T5 of the shape of T5-small, with random weights."""
    from transformers import T5Config, T5ForConditionalGeneration

    torch.manual_seed(0)
    model: nn.Module = T5ForConditionalGeneration(T5Config(decoder_start_token_id=0, vocab_size=VOCABULARY))
    return model


def make_batch() -> dict[str, Tensor]:
    """Return one batch of random tokens."""
    torch.manual_seed(1)
    shape = (BATCH, LENGTH)
    return {name: torch.randint(3, VOCABULARY, shape) for name in ("input_ids", "decoder_input_ids", "labels")}


class TextTask(BareTask):
    """Run the T5 as the task seq2seq does."""

    def forward(self, model: nn.Module, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return the logits."""
        given = {name: batch[name] for name in ("input_ids", "decoder_input_ids")}
        return {"logits": model(**given, use_cache=False)["logits"]}


def by_hand(model: nn.Module) -> tuple[Step, torch.optim.Optimizer]:
    """Return the step of a hand-written loop, and its optimizer."""
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=RATE, fused=True)
    batch = make_batch()
    model.train()

    def step() -> None:
        given = {name: batch[name] for name in ("input_ids", "decoder_input_ids")}
        logits = model(**given, use_cache=False).logits
        functional.cross_entropy(logits.flatten(0, 1), batch["labels"].flatten()).backward()
        nn.utils.clip_grad_norm_(learning, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step, optimizer


def by_peft() -> tuple[Step, torch.optim.Optimizer]:
    """Return the step of a hand-written loop on peft's model."""
    import peft

    config = peft.LoraConfig(r=16, lora_alpha=32, lora_dropout=0.1, target_modules=["q", "v"], task_type="SEQ_2_SEQ_LM")
    return by_hand(peft.get_peft_model(make_model(), config))


def make_run(adapter: str) -> Run:
    """Return a run of trainkit on the one batch."""

    def splits() -> Splits:
        return Splits(TensorData(make_batch()), source="random tokens")

    return begun(TextTask(splits, make_model, "input_ids", "decoder_input_ids", "labels", "logits"), adapter, BATCH)


def begun(task: BareTask, adapter: str, batch_size: int, **options: Any) -> Run:
    """Return a run of trainkit at its beginning.

    Args:
        task: what it trains.
        adapter: by its name.
        batch_size: samples in a batch.
        options: of the adapter.
    """
    settings = {
        "task": "live:task",
        "strategy": "baseline",
        "loss": "cross-entropy",
        "optimizer": "adamw",
        "optimizer.lr": RATE,
        "adapter": adapter,
        **{f"adapter.{name}": value for name, value in options.items()},
        "loop.batch_size": batch_size,
        "device": "cpu",
        "threads": torch.get_num_threads(),
        # It sets what the environment asks of the allocator anew.
        "keep_heap": ALLOCATOR not in os.environ,
        "evaluate.every_epochs": None,
    }
    run = compose(make_draft([layer_of(settings, "benchmark")], Registry(), {"live:task": task}))
    enter_stage(run, run.stages[0])
    return run


def by_trainkit(run: Run) -> tuple[Step, torch.optim.Optimizer]:
    """Return the step of trainkit's loop."""
    batch = {**make_batch(), "sample_id": torch.arange(BATCH)}
    return partial(train_step, run, [batch]), run.optimizer


def contestant(name: str) -> tuple[Step, torch.optim.Optimizer]:
    """Return the step of a contestant, by its name."""
    if name == "full":
        return by_hand(make_model())
    if name == "peft":
        return by_peft()
    return by_trainkit(make_run(name.removeprefix("trainkit ")))


def state_bytes(optimizer: torch.optim.Optimizer) -> int:
    """Return the bytes that an optimizer keeps."""
    held = (value for state in optimizer.state.values() for value in state.values() if isinstance(value, Tensor))
    return sum(tensor.numel() * tensor.element_size() for tensor in held)


def sizes() -> None:
    """Print what is counted: parameters, and bytes of the weights in a checkpoint."""
    counts = {}
    with tempfile.TemporaryDirectory() as folder:
        for adapter in ("full", "lora"):
            run = make_run(adapter)
            learning = sum(parameter.numel() for parameter in run.learnable.values())
            size, _ = tensorfile.write(Path(folder) / adapter, saved_weights(run))
            counts[adapter] = learning, size
            if adapter == "lora":
                # What was learned is nothing yet; what is proven is that nothing else is left of the adapter.
                assert sum(p.numel() for p in merged_model(run).parameters()) == counts["full"][0]
    (all_learning, whole), (learning, part) = counts["full"], counts["lora"]
    print(f"trainable parameters  {all_learning:>13,}  {learning:>11,}  {learning / all_learning:.2%} of them")
    print(f"checkpoint's weights  {whole:>13,}  {part:>11,}  {1 - part / whole:.2%} smaller")


def times(rounds: int) -> None:
    """Print the medians of steps, and ratios round by round; print the bytes of the optimizers' states."""
    steps = {name: contestant(name) for name in CONTESTANTS}
    wall: dict[str, list[float]] = {name: [] for name in steps}
    busy: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds + 1):
        for name, (step, _optimizer) in steps.items():
            began, worked = time.perf_counter(), time.process_time()
            step()
            wall[name].append(time.perf_counter() - began)
            busy[name].append(time.process_time() - worked)
    states = {name: state_bytes(optimizer) for name, (_step, optimizer) in steps.items()}
    share = 1 - states["trainkit lora"] / states["full"]
    print(f"optimizer's state     {states['full']:>13,}  {states['trainkit lora']:>11,}  {share:.2%} smaller")
    print("\nmedians of rounds; the ratios are those of processor time, round by round")
    print(f"{'a step':<16}{'processor s':>12}{'wall s':>8}{'of full':>9}{'of peft':>9}")
    for name in steps:
        ratios = [
            statistics.median(a / b for a, b in zip(busy[name][1:], busy[other][1:], strict=True))
            for other in ("full", "peft")
        ]
        medians = [statistics.median(found[name][1:]) for found in (busy, wall)]
        print(f"{name:<16}{medians[0]:>12.2f}{medians[1]:>8.2f}{ratios[0]:>9.2f}{ratios[1]:>9.2f}")


def resident(field: str) -> float:
    """Return a field of this process's memory in MiB: VmRSS now, VmHWM at most."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def peak(name: str, steps: int) -> None:
    """Print the peak of memory of some steps of one contestant over that after its imports, in MiB."""
    import transformers

    transformers.logging.set_verbosity_error()
    if name == "peft":
        import peft

        assert peft.__version__
    before = resident("VmRSS")
    step, _optimizer = contestant(name)
    # The peak of building, in which PyTorch draws random weights, is none of a step.
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    for _ in range(steps):
        step()
    print(resident("VmHWM") - before)


def peaks(threads: int) -> None:
    """Print the peaks of all contestants, each in a process of its own."""
    print(f"\n{'peak, MiB':<16}{'held':>9}{'of full':>9}{'resident':>10}{'of full':>9}")
    first: list[float] = []
    for name in CONTESTANTS:
        found = []
        for extra in ({ALLOCATOR: "65536"}, {}):
            command = [sys.executable, "-W", "ignore", __file__, "--peak", name, str(threads)]
            done = subprocess.run(command, env=os.environ | extra, capture_output=True, text=True, check=True)
            found.append(float(done.stdout.split()[-1]))
        first = first or found
        ratios = [mine / full for mine, full in zip(found, first, strict=True)]
        print(f"{name:<16}{found[0]:>9.0f}{ratios[0]:>9.2f}{found[1]:>10.0f}{ratios[1]:>9.2f}", flush=True)


def main() -> None:
    """Print all of it."""
    warnings.simplefilter("ignore", FutureWarning)
    if sys.argv[1:2] == ["--peak"]:
        torch.set_num_threads(int(sys.argv[3]))
        peak(sys.argv[2], steps=2)
        return
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    threads = int(sys.argv[2]) if len(sys.argv) > 2 else 2
    torch.set_num_threads(threads)
    print(f"T5-small's shape, {BATCH} x ({LENGTH} + {LENGTH}) tokens, torch {torch.__version__}, {threads} threads")
    sizes()
    times(rounds)
    peaks(threads)


if __name__ == "__main__":
    main()
