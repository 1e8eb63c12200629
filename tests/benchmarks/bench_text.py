"""Text to text: tokens of the cache beside tokenising in the collate, padding, and steps beside transformers' trainer.

    python tests/benchmarks/bench_text.py FILE.jsonl [ROUNDS]

FILE holds pairs; with --recipes it holds recipes. One thread; what is compared takes turns in one process, and the
time is that of the processor, so that other work on the machine counts little. Without accelerate, which transformers'
trainer needs, trainkit's steps are measured alone.

- `tokens`: all batches of the training split, in order, 8 samples each: from mapped token arrays as the task collates
  them, and by the same tokenizer of transformers called in the collate.
- `padding`: the share of places in an epoch's batches that is padding, inputs and targets together.
- `steps`: the same T5, pairs, AdamW, constant rate, clipping and micro-batch size, trained by trainkit's loop and by
  Seq2SeqTrainer on the same tokens. Batches of mixed lengths on both sides, then trainkit's batches of like length.
  `real tokens` are those that are not padding, so that the length of what was drawn does not count.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from trainkit.compose import compose
from trainkit.config import layer_of
from trainkit.data import alike, draw, evaluation_batches
from trainkit.draft import make_draft
from trainkit.loop import train
from trainkit.nested import built
from trainkit.registry import Registry

BATCH, STEPS, RATE, BUCKETS = 8, 8, 1e-3, 100
NARROWING = ["quality-threshold", "curriculum", "gradient-noise"]


def processor_seconds(work: Callable[[], Any]) -> float:
    """Return the processor time of some work."""
    started = time.process_time()
    work()
    return time.process_time() - started


def bench_tokens(task: Any, train_split: Any, rounds: int) -> None:
    """Print what a pass over all batches costs with cached tokens and by tokenising in the collate."""
    parts = [list(range(i, min(i + BATCH, len(train_split)))) for i in range(0, len(train_split), BATCH)]
    tokenizer = task.tokens.tokenizer
    limits = {"padding": True, "truncation": True, "return_tensors": "pt"}

    def cached() -> None:
        for indices in parts:
            task.collate(train_split.__getitems__(indices))

    def tokenised() -> None:
        for indices in parts:
            samples = train_split.__getitems__(indices)
            tokenizer([sample["input"] for sample in samples], max_length=task.limits.input, **limits)
            tokenizer(text_target=[sample["target"] for sample in samples], max_length=task.limits.target, **limits)

    times = [(processor_seconds(cached), processor_seconds(tokenised)) for _ in range(rounds)]
    ours, theirs = (statistics.median(column) for column in zip(*times, strict=True))
    ratio = statistics.median(b / a for a, b in times)
    count, ours, theirs = len(train_split), 1e3 * ours, 1e3 * theirs
    print(f"tokens   {count} samples: {ours:.1f} ms cached, {theirs:.1f} ms tokenised: {ratio:.0f}x")


def bench_padding(task: Any, train_split: Any) -> None:
    """Print the share of padding with and without batches of like length, in training and evaluation."""
    found = task.corpus.encodings
    columns = [flat.lengths[train_split.rows] for flat in (found.inputs[0], found.targets)]
    real = sum(int(column.sum()) for column in columns)

    def share(parts: Iterable[Tensor]) -> float:
        places = sum(len(rows) * int(column[rows.numpy()].max()) for rows in parts for column in columns)
        return 1 - real / places

    for size in (8, 16, 32):
        drawn = draw(range(len(train_split)), 1, 0, 0)
        mixed, like = (alike(drawn, train_split, size, buckets, 0, 0).samples.split(size) for buckets in (0, BUCKETS))
        sorted_ = evaluation_batches(train_split, size)
        shown = f"{share(mixed):.1%} mixed, {share(like):.1%} of like length, {share(sorted_):.1%} in an evaluation"
        print(f"padding  batches of {size}: {shown}")


@dataclass
class Speed:
    """Hold what a contestant did."""

    samples: int
    tokens: int
    seconds: float


def by_trainkit(task: Any, data: Path, buckets: int) -> Speed:
    """Train some steps by trainkit's loop, with nothing switched on that the other side lacks."""
    is_recipes = hasattr(task, "base")
    off = {
        "metric": ["perplexity", *(["recipe-quality", "text-overlap"] if is_recipes else [])],
        "augmenter": ["recipe-text"] if is_recipes else [],
        "callback": ["tensorboard", "sample-outputs", *(NARROWING if is_recipes else [])],
    }
    settings = {
        "task": "live:task", "data": str(data), "strategy": "baseline", "optimizer": "adamw", "optimizer.lr": RATE,
        "optimizer.weight_decay": 0.0, "scheduler": "constant", "loss.label_smoothing": 0.0, "loop.batch_size": BATCH,
        "loop.buckets": buckets, "loop.max_steps": STEPS, "loop.epochs": 100, "evaluate.every_epochs": None,
        "evaluate.final": False, "loop.workers": 0, "device": "cpu",
        **{kind: [f"no:{name}" for name in names] for kind, names in off.items()},
    }  # fmt: skip
    run = compose(make_draft([layer_of(settings, "benchmark")], Registry(), {"live:task": task}))
    assert not any(name.startswith(("callback", "augmenter")) for name in run.components), [*run.components]
    seen = {"samples": 0, "tokens": 0}
    forward = run.call_model

    def counted(batch: Any) -> Any:
        # What is tried out on validation samples for a forecast takes time, and is no step.
        if run.model.training:
            seen["samples"] += len(batch["labels"])
            seen["tokens"] += int((batch["labels"] != -100).sum() + batch["attention_mask"].sum())
        return forward(batch)

    run.call_model = counted
    seconds = processor_seconds(lambda: train(run))
    assert run.moment.step == STEPS
    return Speed(**seen, seconds=seconds)


class Rows(torch.utils.data.Dataset):
    """Be the same tokens as a data set of transformers."""

    def __init__(self, task: Any, train_split: Any) -> None:
        found = task.corpus.encodings
        self.rows = [
            {"input_ids": found.inputs[0][row].astype(int).tolist(), "labels": found.targets[row].astype(int).tolist()}
            for row in train_split.rows.tolist()
        ]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, list[int]]:
        return self.rows[index]


def by_transformers(task: Any, rows: Rows) -> Speed:
    """Train as many steps by Seq2SeqTrainer."""
    from transformers import DataCollatorForSeq2Seq, Seq2SeqTrainer, Seq2SeqTrainingArguments

    torch.manual_seed(0)
    model = task.build_model()
    padding = DataCollatorForSeq2Seq(task.tokens.tokenizer, model=model)
    seen = {"samples": 0, "tokens": 0}

    def collate(some: list[Any]) -> Any:
        batch = padding(some)
        seen["samples"] += len(some)
        seen["tokens"] += int((batch["labels"] != -100).sum() + batch["attention_mask"].sum())
        return batch

    with tempfile.TemporaryDirectory() as folder:
        arguments = Seq2SeqTrainingArguments(
            output_dir=folder, per_device_train_batch_size=BATCH, max_steps=STEPS, learning_rate=RATE,
            lr_scheduler_type="constant", max_grad_norm=1.0, weight_decay=0.0, report_to=[], save_strategy="no",
            logging_strategy="no", disable_tqdm=True, use_cpu=True, dataloader_num_workers=0,
            dataloader_pin_memory=False,
        )  # fmt: skip
        trainer = Seq2SeqTrainer(model=model, args=arguments, train_dataset=rows, data_collator=collate)
        seconds = processor_seconds(trainer.train)
    # It collates a batch ahead, which is not trained on.
    share = STEPS * BATCH / seen["samples"]
    return Speed(STEPS * BATCH, round(seen["tokens"] * share), seconds)


def bench_steps(task: Any, data: Path, train_split: Any, rounds: int) -> None:
    """Print steps and real tokens a second of each, and the ratios of the rounds."""
    contestants: dict[str, Callable[[], Speed]] = {}
    if importlib.util.find_spec("accelerate") is not None:
        rows = Rows(task, train_split)
        contestants["Seq2SeqTrainer"] = lambda: by_transformers(task, rows)
    contestants["trainkit, mixed lengths"] = lambda: by_trainkit(task, data, 0)
    contestants["trainkit, like lengths"] = lambda: by_trainkit(task, data, BUCKETS)
    found: dict[str, list[Speed]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, contestant in contestants.items():
            found[name].append(contestant())
    first = next(iter(found.values()))
    millions = sum(p.numel() for p in task.build_model().parameters()) / 1e6
    print(f"steps    {rounds} rounds of {STEPS} steps, batches of {BATCH}, a T5 of {millions:.1f}M")
    print(f"{'':<9}{'':<26}{'steps/s':>9}{'ratio':>8}{'real tokens/s':>15}{'ratio':>8}{'real tokens':>13}")
    for name, speeds in found.items():
        steps = statistics.median(STEPS / each.seconds for each in speeds)
        tokens = statistics.median(each.tokens / each.seconds for each in speeds)
        pairs = list(zip(speeds, first, strict=True))
        faster = statistics.median(b.seconds / a.seconds for a, b in pairs)
        more = statistics.median((a.tokens / a.seconds) / (b.tokens / b.seconds) for a, b in pairs)
        count = np.mean([each.tokens for each in speeds])
        print(f"{'':<9}{name:<26}{steps:>9.2f}{faster:>8.2f}{tokens:>15,.0f}{more:>8.2f}{count:>13,.0f}")


def main() -> None:
    """Measure all three."""
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("rounds", type=int, nargs="?", default=3)
    parser.add_argument("--recipes", action="store_true")
    parser.add_argument("--size", default="tiny")
    given = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    name = "recipes" if given.recipes else "seq2seq"
    options = {"size": given.size, "templates": ("{text}",), "dropout": 0.1, "val_share": 0.0}
    task: Any = built("task", {"use": name, **options})
    splits = task.read(given.data, 0)
    task.fit(splits.train)
    print(f"{given.data.name}: {splits.source.partition(';')[2].strip()}; torch {torch.__version__}, one thread")
    bench_tokens(task, splits.train, given.rounds)
    bench_padding(task, splits.train)
    bench_steps(task, given.data, splits.train, given.rounds)


if __name__ == "__main__":
    main()
