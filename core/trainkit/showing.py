"""Samples to look at before training: as they are, and as the augmenters of a run change them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from .answering import sample_of, spread
from .conformity import asked
from .contracts import Augmenter, Dataset, Panel, Pictures, Sample
from .data import BatchMaker
from .draft import make_draft
from .errors import UsageError
from .reporting.contactsheet import Picture, Row, png, sheet
from .storage.filesystem import disk_error
from .tasks import require

if TYPE_CHECKING:
    from .request import Request


@dataclass(frozen=True)
class Sheet:
    """Hold a contact sheet.

    Args:
        picture: [H, W, 3] of bytes.
        samples: the samples that it shows, by name.
        augmenters: the names of the augmenters that made variants.
    """

    picture: Picture
    samples: tuple[str, ...]
    augmenters: tuple[str, ...]

    def save(self, path: str | Path) -> Path:
        """Write it as a PNG file, in place of an older one, and return the path; raise UsageError for a folder."""
        path = Path(path).expanduser()
        if path.is_dir():
            raise UsageError(
                "a picture cannot be written in place of a folder",
                where=str(path),
                do=f"name a file, as --out {path / 'contact-sheet.png'}",
            )
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(png(self.picture))
        except OSError as error:
            raise disk_error(error, path) from error
        return path


def contact_sheet(request: Request, samples: int, variants: int) -> Sheet:
    """Return a contact sheet of the training samples of a run that is only planned.

    Args:
        request: what would be asked of the run.
        samples: how many samples, spread over the training split.
        variants: how many variants beside each; 0 for none.
    """
    if samples < 1 or variants < 0:
        raise UsageError(f"{samples} samples with {variants} variants cannot be shown", why="at least 1 and 0 can")
    draft = make_draft(request.layers, request.registry, request.live)
    require(draft.task, Pictures, draft.config["task.use"])
    parts = draft.lists["augmenter"] if variants else {}
    if variants and not parts:
        raise UsageError("no augmenter is in force", do="name one by --augmenter, or look at the samples as they are")
    augmenters = [part.build() for part in parts.values()]
    draws = list(islice(variant_draws(draft.settings.loop.variants), variants))
    names, rows = sample_rows(
        draft.task, draft.splits.train, augmenters, draft.settings.seed, spread(len(draft.splits.train), samples), draws
    )
    return Sheet(sheet(rows), tuple(names), tuple(parts))


def variant_draws(variants: int) -> Iterator[tuple[int, int]]:
    """Yield the (epoch, variant) pairs under which a run sees a sample augmented, in their order.

    Args:
        variants: how often an epoch draws each sample; with one, the epoch's number is the variant.
    """
    epoch = 0
    while True:
        numbers: Sequence[int] = range(variants) if variants > 1 else (epoch,)
        yield from ((epoch, number) for number in numbers if number > 0)
        epoch += 1


def sample_rows(
    task: Any,
    dataset: Dataset,
    augmenters: Sequence[Augmenter],
    seed: int,
    indices: Sequence[int],
    draws: Sequence[tuple[int, int]],
) -> tuple[list[str], list[Row]]:
    """Return the names of samples and the rows of their sheet: each as it is, then the variants of these draws.

    A variant whose picture does not differ is titled so: an augmenter may change what the picture does not show.
    """
    names: list[str] = []
    rows: list[Row] = []
    for index in indices:
        plain = _drawn(dataset, (), seed, index, 0, 0)
        picture = _picture(task, plain)
        panels = [Panel("as it is", picture)]
        for epoch, variant in draws:
            with asked("an augmenter", "vary a sample"):
                varied = _drawn(dataset, augmenters, seed, index, epoch, variant)
            seen = _picture(task, varied)
            same = ", looks the same" if np.array_equal(seen, picture) else ""
            panels.append(Panel(f"epoch {epoch + 1}, variant {variant}{same}", seen))
        names.append(sample_name(dataset, index))
        rows.append((names[-1], panels))
    return names, rows


def _drawn(
    dataset: Dataset, augmenters: Sequence[Augmenter], seed: int, index: int, epoch: int, variant: int
) -> Sample:
    """Return a sample as a run draws it, by the very code that makes its batches."""
    maker = BatchMaker(dataset, lambda samples: {"samples": list(samples)}, augmenters, seed)
    batch = maker(epoch, torch.tensor([index]), torch.tensor([variant]))
    if "samples" in batch:
        sample: Sample = batch["samples"][0]
        return sample
    return sample_of(batch, 0)


def _picture(task: Any, sample: Sample) -> Picture:
    with asked("the task", "show a sample"):
        picture: Picture = task.picture(sample)
    return picture


def sample_name(dataset: Dataset, index: int) -> str:
    """Return the name of a sample: its id where the dataset has ids, else its number."""
    ids: Sequence[Any] | None = getattr(dataset, "ids", None)
    return str(ids[index]) if ids is not None else str(index)
