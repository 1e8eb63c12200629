"""The decoding order 'left-to-right': a layout as words, each after those before it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from trainkit.binding import bind_model
from trainkit.contracts import IGNORED_LABEL, Batch, Sample

from .alignment import align
from .attention import Looks, watched
from .autoregressive import LayoutWriter, kind_of
from .batch import pad
from .canvas import PLACES
from .encoder import PageEncoder
from .layers import ANCESTORS
from .linear import CLOSE, OPEN, cut, delinearise, linearise
from .order_diffusion import STRUCTURE_INPUTS, pointed, split_pointers
from .presets import Size
from .sampler import Sampling
from .tree import NAMELESS, Node, node, walk
from .vocabulary import MAX_NODES, PAD_ID, Vocabulary


class WordOrder:
    """Turn layouts into words, and what a model writes into layouts.

    Args:
        size: of the model.
        max_length: most words; longer layouts are cut at subtree borders.
        dropout: share of features dropped in training.
    """

    def __init__(self, size: Size, max_length: int, dropout: float) -> None:
        self.size, self.max_length, self.dropout = size, max_length, dropout
        self.vocabulary = Vocabulary(())
        self.siblings: dict[str, float] = {}
        self.longest = 0

    def fit(self, samples: Sequence[Sample]) -> None:
        """Learn the words and the longest layout."""
        layouts = [self.words_of(sample) for sample in samples]
        self.vocabulary = Vocabulary({word for layout in layouts for word in layout if word[0] != "@"})
        self.longest = max(len(layout) for layout in layouts)
        self.siblings = usual_siblings(sample["layout"] for sample in samples)

    def gives(self, has_pictures: bool, has_structures: bool) -> tuple[frozenset[str], frozenset[str]]:
        """Return the names of the targets in a batch and of the model's outputs."""
        return frozenset({"labels", "word_paths", "word_places"}), frozenset({"logits"})

    @property
    def longest_allowed(self) -> str:
        """Return the limit on the length of a layout, in words."""
        return f"task.max_length = {self.max_length} words"

    def build(self, encoder: PageEncoder) -> nn.Module:
        """Return a fresh model."""
        words, size = self.vocabulary.words, self.size
        return LayoutWriter(
            encoder, len(words), self.vocabulary.pointers, [kind_of(word, i) for i, word in enumerate(words)],
            [self.siblings.get(word, 1.0) for word in words],
            size.width, size.heads, size.decoder_layers, size.places, self.max_length, self.dropout,
        )  # fmt: skip

    def words_of(self, sample: Sample, max_length: int | None = None) -> list[str]:
        """Return the words of a sample's layout, cut to what the model can read and write."""
        max_length = max_length or self.max_length
        layout, structure = sample["layout"], sample["structure"]
        sources = align(structure, layout) if structure is not None else [()] * sum(1 for _ in walk(layout))
        words = linearise(layout, sources)
        if len(words) <= max_length and all(i < MAX_NODES for chain in sources for i in chain):
            return words
        return linearise(*cut(layout, sources, max_length, MAX_NODES))

    def is_cut(self, sample: Sample) -> bool:
        """Return whether a layout does not fit."""
        return len(self.words_of(sample, 10**9)) > len(self.words_of(sample))

    def target_tree(self, sample: Sample) -> Node:
        """Return the true layout in the form in which predictions are compared: keys with pointers."""
        layout, structure = sample["layout"], sample["structure"]
        return layout if structure is None else pointed(layout, iter(align(structure, layout)))

    def targets(self, samples: Sequence[Sample], nodes: int) -> dict[str, Tensor]:
        """Return labels [B, L], and where in the tree each word stands: word_paths, word_places."""
        return self.as_batch([self.words_of(sample) for sample in samples])

    def as_batch(self, rows: Sequence[Sequence[str]]) -> dict[str, Tensor]:
        """Return words as tensors."""
        labels = pad([self.vocabulary.encode(row) for row in rows], IGNORED_LABEL)
        levels = self.size.places // PLACES
        paths, places = torch.full((*labels.shape, levels), -1), torch.full((*labels.shape, ANCESTORS), -1.0)
        for i, row in enumerate(rows):
            along, shares = trail_of(row, levels, self.siblings)
            paths[i, : len(row)], places[i, : len(row)] = torch.tensor(along), torch.tensor(shares)
        return {"labels": labels, "word_paths": paths, "word_places": places}

    @torch.no_grad()
    def write(self, model: LayoutWriter, batch: Batch, sampling: Sampling) -> list[Node]:
        """Return the layouts that the model writes by itself."""
        return [delinearise(self.vocabulary.decode(row)) for row in self._ids(model, batch, sampling).tolist()]

    def _ids(self, model: LayoutWriter, batch: Batch, sampling: Sampling) -> Tensor:
        structure = [batch.get(name) for name in STRUCTURE_INPUTS]
        memory = model.encoder(len(batch["layouts"]), batch.get("pixel_values"), *structure)
        if sampling.is_told and "labels" in batch:
            told = batch["labels"].clamp(min=PAD_ID)
            return model.generate(memory, told.shape[1], sampling.temperature, told)
        # Nothing in training is longer than `longest`; a quarter more leaves room, and an end to those who never stop.
        return model.generate(memory, self.longest + self.longest // 4 + 1, sampling.temperature)

    @torch.no_grad()
    def look(self, model: LayoutWriter, batch: Batch, layouts: Sequence[Node]) -> list[Looks]:
        """Return where on the screenshot the model looks for each node of layouts that it generated."""
        rows = [words_of_pointed(layout)[: self.max_length] for layout in layouts]
        device = next(model.parameters()).device
        targets = {name: tensor.to(device) for name, tensor in self.as_batch(rows).items()}
        with watched(model.decoder[-1].memory) as seen:
            bind_model(model)({**batch, **targets})
        nodes = batch["struct_ids"].shape[1] if "struct_ids" in batch else 0
        maps = seen[0][:, :, : seen[0].shape[2] - nodes].cpu()
        return [
            [(word, maps[i, place]) for place, word in enumerate(row) if word[0] not in "<{}@$"]
            for i, row in enumerate(rows)
        ]

    def aligned(self, layouts: Sequence[Node], batch: Batch) -> Tensor:
        """Return the words of layouts at the positions of the labels, [B, L]; PAD behind their end."""
        predictions = torch.full_like(batch["labels"], PAD_ID)
        for i, layout in enumerate(layouts):
            is_something = layout["key"] != NAMELESS or layout["children"]
            found = words_of_pointed(layout) if is_something else []
            words = self.vocabulary.encode(found)[: predictions.shape[1]]
            predictions[i, : len(words)] = torch.tensor(words)
        return predictions

    def state_dict(self) -> dict[str, Any]:
        """Return what was learned, as JSON."""
        return {"words": list(self.vocabulary.words), "longest": self.longest, "siblings": self.siblings}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        self.vocabulary, self.longest = Vocabulary(state["words"]), state["longest"]
        self.siblings = dict(state["siblings"])


def words_of_pointed(layout: Node) -> list[str]:
    """Return the words of a layout whose keys hold pointers."""
    return linearise(*split_pointers(layout))


def usual_siblings(layouts: Iterable[Node]) -> dict[str, float]:
    """Return for each base (and each number) how many children the parent of such a node has, on average."""
    counts: dict[str, list[int]] = {}
    for layout in layouts:
        for parent in walk(layout if layout["key"] == NAMELESS else node(NAMELESS, [layout])):
            for child in parent["children"]:
                base = child["key"].partition("@")[0].partition("$")[0]
                counts.setdefault(base, []).append(len(parent["children"]))
    return {base: round(sum(found) / len(found), 4) for base, found in sorted(counts.items())}


def trail_of(
    words: Sequence[str], levels: int, siblings: Mapping[str, float]
) -> tuple[list[list[int]], list[list[float]]]:
    """Return for each word where it stands before it is written: what `Trail` tells, without a model.

    Args:
        words: of a layout.
        levels: levels that are told apart.
        siblings: usual number of children of a base's parent.

    Returns:
        The rows of the table of places along the way, [len(words), levels], and the shares, [len(words), 3].
    """
    counts, shares, depth = [0] * levels, [0.0] * levels, 0
    rows, places = [], []
    for word in words:
        rows.append(
            [level * PLACES + min(counts[level], PLACES - 1) if level <= depth else -1 for level in range(levels)]
        )
        above = [depth - 1 - i for i in range(ANCESTORS)]
        places.append([shares[min(level, levels - 1)] if level >= 0 else -1.0 for level in above])
        here = min(depth, levels - 1)
        if word == OPEN:
            depth += 1
            counts[min(depth, levels - 1)] = 0
        elif word == CLOSE:
            depth = max(0, depth - 1)
        elif word[0] not in "<@$":
            shares[here] = (counts[here] + 0.5) / siblings.get(word, 1.0)
            counts[here] += 1
    return rows, places
