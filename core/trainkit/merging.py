"""Working an adapter into its model, and the proof of it: outputs merged, unmerged and of the base, on real batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .base import FOLDER
from .binding import bind_forward
from .contracts import Batch, Merges, Summarises
from .errors import RunFailed, UsageError
from .evaluation import batches
from .exporting import Exported, base_model, check_free, merged_model, write_model
from .live import as_mapping
from .measuring import on_own_data
from .modelpath import model_path
from .randomness import Purpose, seed_torch
from .rundir import RunDirectory
from .tasks import lacking

if TYPE_CHECKING:
    from .live import Run
    from .request import Request

BATCHES = 4
# Of the largest output; merging rounds each weight once.
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 1e-2}
Outputs = list[dict[str, Tensor]]


@dataclass(frozen=True)
class Merging:
    """Hold what merging came to.

    Args:
        step: the optimizer step of the checkpoint.
        split: of which data the batches are.
        samples: how many samples were compared.
        largest: the largest output, as a measure of the differences.
        merged: the largest difference between merged and unmerged outputs.
        learned: the largest difference between the outputs with the adapter and those of the base.
        adapter: what the adapter tells of itself.
        exported: what was written, or None.
    """

    step: int
    split: str
    samples: int
    largest: float
    merged: float
    learned: float
    adapter: Mapping[str, Any]
    exported: Exported | None = None

    def document(self) -> dict[str, Any]:
        """Return all of it as JSON."""
        return {
            "step": self.step,
            "split": self.split,
            "samples": self.samples,
            "largest_output": self.largest,
            "merged_minus_unmerged": self.merged,
            "adapted_minus_base": self.learned,
            "adapter": dict(self.adapter),
            "exported": None if self.exported is None else self.exported.document(),
        }


def merging(path: Path, to: Path | None, checkpoint: str, request: Request) -> Merging:
    """Merge the adapter of a run, compare on batches of its data, and write the merged model if a folder is named.

    Args:
        path: the run directory.
        to: a folder that is new or empty, or None to compare only.
        checkpoint: 'best', 'last' for the newest one, or the name of one, as 'checkpoint-120'.
        request: registry, live objects, reporter.

    Raises:
        UsageError: there is no adapter to merge, or it changes nothing.
        RunFailed: the merged model answers otherwise; nothing is written.
    """
    if to is not None:
        check_free(to)
    directory = RunDirectory.read(model_path(path))
    run, split, dataset = _loaded(directory, checkpoint, request)
    adapter = run.components["adapter"]
    if run.base is None or lacking(adapter, Merges):
        raise UsageError(
            f"adapter {run.config['adapter.use']} leaves nothing to merge",
            where=str(path),
            why="the checkpoints of this run hold the whole model",
            do=f"trainkit export {path} --to DIR",
        )
    facts = dict(adapter.summary()) if isinstance(adapter, Summarises) else {}
    seen = list(islice(batches(run, dataset), BATCHES))
    adapted = _outputs(run, run.model, seen)
    base = _outputs(run, base_model(run, run.model, directory.path / FOLDER, run.base.fingerprint), seen)
    learned = difference(adapted, base)
    if not learned:
        raise UsageError(
            "the adapter changes nothing: with it and without it the outputs are the same",
            where=str(path),
            why="the adapter tells: " + (", ".join(f"{name} {value}" for name, value in facts.items()) or "nothing"),
            do="train longer, or at a higher optimizer.lr",
        )
    model = merged_model(run)
    merged, largest = difference(_outputs(run, model, seen), adapted), _largest(adapted)
    if not merged <= TOLERANCE.get(next(model.parameters()).dtype, TOLERANCE[torch.float32]) * largest:
        raise RunFailed(
            "the merged model answers otherwise than the adapted one",
            where=str(path),
            why=f"largest difference of outputs: {merged:.3g}, of outputs up to {largest:.3g}",
            do="report it as a fault of the adapter; nothing was written",
        )
    samples = sum(len(batch["sample_id"]) for batch in seen)
    written = None if to is None else write_model(run, model, to)
    return Merging(run.moment.step, split, samples, largest, merged, learned, facts, written)


def _loaded(directory: RunDirectory, checkpoint: str, request: Request) -> tuple[Run, str, Any]:
    """Return the run with its weights, and the split on which to compare: the one that decided about the best."""
    samples = directory.read_json("plan.json").get("data", {}).get("samples", {})
    split = "val" if samples.get("val") else "train"
    run, dataset = on_own_data(directory, split, checkpoint, (), "cpu", request)
    return run, split, dataset


@torch.no_grad()
def _outputs(run: Run, model: nn.Module, seen: list[Batch]) -> Outputs:
    """Return what a model computes for batches: every tensor of numbers that it answers with."""
    call: Callable[[Batch], Any] = bind_forward(run.task, model)
    model.eval()
    found: Outputs = []
    for number, batch in enumerate(seen):
        seed_torch(run.settings.seed, Purpose.EVALUATION, number)
        answer = as_mapping(call(batch))
        found.append({n: v.clone() for n, v in answer.items() if isinstance(v, Tensor) and v.is_floating_point()})
    return found


def difference(some: Outputs, others: Outputs) -> float:
    """Return the largest absolute difference between the outputs of two models; NaN where one is not a number."""
    pairs = [(a[name], b[name]) for a, b in zip(some, others, strict=True) for name in a]
    return float(torch.stack([(one.double() - other.double()).abs().max() for one, other in pairs]).max())


def _largest(outputs: Outputs) -> float:
    return float(torch.stack([tensor.double().abs().max() for found in outputs for tensor in found.values()]).max())
