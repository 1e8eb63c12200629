"""The task 'layout': a section's layout from its screenshot and its structure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn
from trainkit.contracts import IGNORED_LABEL, Batch, Outputs, Sample, Splits
from trainkit.errors import UsageError

from .batch import pad, structure_row, words_of
from .dataset import LayoutDataset
from .detect import read_data
from .linear import delinearise, elements
from .model import LayoutModel
from .sections import write_sections
from .splits import BadSamples
from .tree import Node, structure_words, walk
from .vocabulary import PAD_ID, Vocabulary

EMBEDDED = "embedded sample: 50 sections"
ELEMENT_LEVELS = ("base", "key", "path")
STRUCTURE_INPUTS = ("struct_ids", "struct_classes", "depth", "sibling", "struct_mask")
Elements = dict[str, list[str]]


class LayoutTask:
    """Learn to write the layout of a page section from its screenshot and, where there is one, its structure.

    Args:
        image_size: side of the square, in pixels, into which screenshots are fitted.
        patch: side of a patch of the picture in pixels; image_size must be a multiple of it.
        width: features of a position of the model.
        heads: attention heads; width must be a multiple of four times this number.
        encoder_layers: layers that read screenshot and structure.
        decoder_layers: layers that write the layout.
        dropout: share of features dropped in training.
        max_length: most words of a linearised layout; longer ones are cut at subtree borders.
        on_bad_sample: stop at samples that cannot be used, or skip them.
        max_bad_fraction: share of bad samples up to which 'skip' goes on.
    """

    gives = frozenset(
        {"pixel_values", "labels", "logits", "predictions", "predicted_elements", "target_elements", *STRUCTURE_INPUTS}
    )
    predicts = frozenset({"predictions", "predicted_elements", "target_elements"})
    sample_keys = frozenset({"id", "image", "structure", "layout", "props", "source"})
    defaults: Mapping[str, Any] = {
        "loss.use": "cross-entropy",
        "metric": ["token-accuracy", "element-f1"],
        "augmenter": ["structure"],
        "evaluate.monitor": "val/loss",
    }

    def __init__(
        self,
        image_size: PositiveInt = 128,
        patch: PositiveInt = 16,
        width: PositiveInt = 96,
        heads: PositiveInt = 4,
        encoder_layers: PositiveInt = 3,
        decoder_layers: PositiveInt = 2,
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1,
        max_length: Annotated[int, Field(ge=8)] = 256,
        on_bad_sample: BadSamples = "stop",
        max_bad_fraction: Annotated[float, Field(ge=0, le=1)] = 0.01,
    ) -> None:
        if image_size % patch:
            raise UsageError(f"task.image_size = {image_size} is not a multiple of task.patch = {patch}")
        if width % (4 * heads):
            raise UsageError(f"task.width = {width} is not a multiple of 4 * task.heads = {4 * heads}")
        self.image_size, self.max_length = image_size, max_length
        self.on_bad_sample, self.max_bad_fraction = on_bad_sample, max_bad_fraction
        self._model_options = {
            "image_size": image_size,
            "patch": patch,
            "width": width,
            "heads": heads,
            "encoder_layers": encoder_layers,
            "decoder_layers": decoder_layers,
            "dropout": dropout,
            "max_length": max_length,
        }
        self.vocabulary = Vocabulary(())
        self.longest = 0
        self.usual_word = PAD_ID
        self.usual_elements: Elements = {level: [] for level in ELEMENT_LEVELS}

    def read(self, data: Path | None, seed: int) -> Splits:
        """Read and check the data, or write and read the embedded sample; `seed` changes neither.

        Raises:
            DataError: there is nothing to read, or it cannot be used.
        """
        if data is None:
            with TemporaryDirectory(prefix="trainkit-layout-") as folder:
                write_sections(Path(folder))
                splits = self._read(Path(folder))
            return Splits(splits.train, splits.val, splits.test, EMBEDDED, splits.fingerprint, splits.warnings)
        return self._read(Path(data))

    def _read(self, data: Path) -> Splits:
        splits = read_data(data, self.image_size, self.on_bad_sample, self.max_bad_fraction)
        cut_short = sum(
            len(words_of(sample, 10**9, 10**9)) > len(words_of(sample, self.max_length))
            for _, part in splits.items()
            if isinstance(part, LayoutDataset)
            for sample in part.samples
        )
        if not cut_short:
            return splits
        warning = f"{cut_short} layouts do not fit task.max_length = {self.max_length} words: cut at subtree borders"
        return Splits(
            splits.train, splits.val, splits.test, splits.source, splits.fingerprint, (*splits.warnings, warning)
        )

    def fit(self, train: Any) -> None:
        """Learn the words, the longest layout and the usual answers from the training split."""
        samples: Sequence[Sample] = train.__getitems__(list(range(len(train))))
        layouts = [words_of(sample, self.max_length) for sample in samples]
        tags = {
            structure_words(current["key"])[0] for s in samples if s["structure"] for current in walk(s["structure"])
        }
        words = {word for layout in layouts for word in layout if word[0] != "@"}
        self.vocabulary = Vocabulary(tags | words)
        self.longest = max(len(layout) for layout in layouts)
        counts = Counter(word for layout in layouts for word in layout)
        self.usual_word = self.vocabulary.encode([min(counts, key=lambda word: (-counts[word], word))])[0]
        found = [elements(delinearise(layout)) for layout in layouts]
        self.usual_elements = {level: usual([each[level] for each in found]) for level in ELEMENT_LEVELS}

    def build_model(self) -> nn.Module:
        """Return a fresh model for the fitted vocabulary."""
        return LayoutModel(len(self.vocabulary.words), self.vocabulary.pointers, **self._model_options)

    def collate(self, samples: Sequence[Sample]) -> Batch:
        """Return the batch: pixel_values [B, 3, H, W] in [-1, 1], labels [B, L], the structure where all have one."""
        images = np.stack([sample["image"] for sample in samples])
        pixels = torch.from_numpy(images).permute(0, 3, 1, 2).to(torch.float32).contiguous().div_(127.5).sub_(1.0)
        labels = [self.vocabulary.encode(words_of(sample, self.max_length)) for sample in samples]
        batch = {"pixel_values": pixels, "labels": pad(labels, IGNORED_LABEL)}
        if all(sample["structure"] is not None for sample in samples):
            batch |= self._collate_structures([sample["structure"] for sample in samples])
        return batch

    def _collate_structures(self, structures: Sequence[Node]) -> dict[str, Tensor]:
        rows = [structure_row(structure) for structure in structures]
        ids = pad([self.vocabulary.encode(row.tags) for row in rows], PAD_ID)
        most = max(max(map(len, row.classes)) for row in rows)
        classes = torch.zeros(*ids.shape, max(1, most), dtype=torch.long)
        for i, row in enumerate(rows):
            classes[i, : len(row.classes), :most] = pad(row.classes, 0, most)
        lengths = torch.tensor([len(row.tags) for row in rows])
        return {
            "struct_ids": ids,
            "struct_classes": classes,
            "depth": pad([row.depths for row in rows], 0),
            "sibling": pad([row.siblings for row in rows], 0),
            "struct_mask": torch.arange(ids.shape[1])[None] < lengths[:, None],
        }

    @torch.no_grad()
    def predict(self, model: nn.Module, batch: Batch, outputs: Outputs) -> Mapping[str, Any]:
        """Return the layouts that the model writes by itself, one most likely word after the other.

        `outputs` come from the right words before each position and are therefore not looked at.
        """
        structure = {name: batch[name] for name in STRUCTURE_INPUTS if name in batch}
        memory = model.encode(batch["pixel_values"], **structure)  # type: ignore[operator]
        # Nothing in training is longer than `longest`; a quarter more leaves room, and an end to those who never stop.
        written = model.generate(memory, self.longest + self.longest // 4 + 1)  # type: ignore[operator]
        labels = batch["labels"]
        predictions = torch.full_like(labels, PAD_ID)
        length = min(labels.shape[1], written.shape[1])
        predictions[:, :length] = written[:, :length]
        return {
            "predictions": predictions,
            "predicted_elements": self._elements(written),
            "target_elements": self._elements(labels),
        }

    def _elements(self, ids: Tensor) -> list[Elements]:
        return [elements(delinearise(self.vocabulary.decode(row))) for row in ids.tolist()]

    def baselines(self) -> Mapping[str, Callable[[Batch], Mapping[str, Any]]]:
        """Return the predictors that know nothing of the sample: 'all-pad', and 'majority' from the training split."""

        def all_pad(batch: Batch) -> Mapping[str, Any]:
            return self._constant(batch, PAD_ID, {level: [] for level in ELEMENT_LEVELS})

        def majority(batch: Batch) -> Mapping[str, Any]:
            return self._constant(batch, self.usual_word, self.usual_elements)

        return {"all-pad": all_pad, "majority": majority}

    def _constant(self, batch: Batch, word: int, found: Elements) -> Mapping[str, Any]:
        labels = batch["labels"]
        return {
            "predictions": torch.where(labels == IGNORED_LABEL, PAD_ID, word),
            "predicted_elements": [found] * len(labels),
            "target_elements": self._elements(labels),
        }

    def state_dict(self) -> dict[str, Any]:
        """Return what `fit` learned, as JSON."""
        return {
            "vocabulary": self.vocabulary.state_dict(),
            "longest": self.longest,
            "usual_word": self.usual_word,
            "usual_elements": self.usual_elements,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        self.vocabulary = Vocabulary(**state["vocabulary"])
        self.longest, self.usual_word = state["longest"], state["usual_word"]
        self.usual_elements = {level: list(state["usual_elements"][level]) for level in ELEMENT_LEVELS}


def usual(found: Sequence[Sequence[str]]) -> list[str]:
    """Return the multiset that most samples agree on: the k-th copy of an element that more than half of them have.

    Where they agree on nothing, the element that most of them have stands alone: a baseline that predicts nothing is no
    majority.
    """
    copies = Counter((item, copy) for each in found for item, count in Counter(each).items() for copy in range(count))
    agreed = sorted(item for (item, _), samples in copies.items() if 2 * samples > len(found))
    most_common = min(copies, key=lambda item: (-copies[item], item), default=None)
    return agreed or ([most_common[0]] if most_common else [])
