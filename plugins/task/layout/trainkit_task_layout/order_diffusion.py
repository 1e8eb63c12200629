"""The decoding order 'diffusion': all slots of a level at once, uncovered in a few steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn
from trainkit.contracts import IGNORED_LABEL, Batch, Sample

from .alignment import align
from .attention import Looks, watched
from .batch import pad
from .canvas import PAD_CLASS, PLACES, Grammar, Slots, address, class_of, learn, place, tree_of
from .diffusion import LayoutDiffusion
from .encoder import Memory, PageEncoder
from .presets import Size
from .sampler import Sampling, generate
from .slot_decoder import Canvas, SlotDecoder
from .tree import Node, walk
from .vocabulary import MAX_NODES

NODE_INPUTS = ("struct_ids", "struct_classes", "depth", "sibling", "struct_mask", "struct_parent", "struct_end")
# In the order of the encoder's parameters.
STRUCTURE_INPUTS = (*NODE_INPUTS[:5], "struct_tokens", *NODE_INPUTS[5:])


class DiffusionOrder:
    """Turn layouts into slots, and what a model uncovers into layouts.

    Args:
        size: of the model.
        most_slots: longer layouts are cut at subtree borders.
        is_flat: whether a class is a whole key, instead of base, number and sources apart.
        options: further options of the model, as `LayoutDiffusion` and `SlotDecoder` take them.
    """

    outputs = frozenset({"logits", "masked", "mask_rate", "elbo_weight", "props_logits"})

    def __init__(
        self, size: Size, most_slots: int, is_flat: bool, dropout: float, drop_path: float, noise: Mapping[str, Any]
    ) -> None:
        self.size, self.most_slots, self.is_flat = size, most_slots, is_flat
        self.dropout, self.drop_path, self.noise = dropout, drop_path, noise
        self.grammar = Grammar()
        self.has_boxes = False

    def fit(self, samples: Sequence[Sample]) -> None:
        """Learn classes and shapes of trees."""
        self.grammar = learn((sample["layout"] for sample in samples), self.is_flat)
        if not any(sample["structure"] for sample in samples):
            self.grammar = Grammar(**{**asdict(self.grammar), "pointers": 0})
        self.has_boxes = any("box" in part["attributes"] for sample in samples for part in walk(sample["layout"]))

    def gives(self, has_pictures: bool, has_structures: bool) -> tuple[frozenset[str], frozenset[str]]:
        """Return the names of the targets in a batch and of the model's outputs."""
        targets = {"labels", "slot_levels", "slot_paths", "tree_parent"}
        outputs = set(self.outputs)
        if self.points and has_structures:
            targets.add("sources")
            outputs.add("pointer_logits")
        if self.has_boxes:
            targets |= {"boxes", "box_mask"}
            outputs.add("box_predictions")
        if has_pictures and has_structures:
            outputs |= {"visual_features", "structural_features"}
        if self.noise.get("scales"):
            outputs.add("scale_logits")
        return frozenset(targets), frozenset(outputs)

    @property
    def longest_allowed(self) -> str:
        """Return the limit on the length of a layout, in words."""
        return f"task.max_length = {self.most_slots} slots, or the shapes of training layouts"

    @property
    def points(self) -> int:
        """Return the most sources of a slot."""
        return 0 if self.grammar.is_flat else self.grammar.pointers

    def build(self, encoder: PageEncoder) -> nn.Module:
        """Return a fresh model."""
        size, known = self.size, len(self.grammar.classes)
        decoder = SlotDecoder(
            size.width, size.heads, size.decoder_layers, max(size.layout_words, known + 1), size.places, known,
            self.points, self.has_boxes, self.dropout, self.drop_path,
        )  # fmt: skip
        return LayoutDiffusion(encoder, decoder, **self.noise)

    def slots_of(self, sample: Sample) -> Slots:
        """Return the slots of a sample's layout."""
        layout, structure = sample["layout"], sample["structure"]
        sources = align(structure, layout) if structure is not None else [()] * sum(1 for _ in walk(layout))
        return place(layout, sources, self.grammar, self.most_slots, MAX_NODES)

    def is_cut(self, sample: Sample) -> bool:
        """Return whether a layout does not fit."""
        return self.slots_of(sample).is_cut

    def target_tree(self, sample: Sample) -> Node:
        """Return the true layout in the form in which predictions are compared: keys with pointers, or as they are."""
        layout, structure = sample["layout"], sample["structure"]
        if structure is None or self.is_flat:
            return layout
        return pointed(layout, iter(align(structure, layout)))

    def targets(self, samples: Sequence[Sample], nodes: int) -> dict[str, Tensor]:
        """Return the targets of a batch; `nodes` is the number of structure nodes of its longest structure."""
        return self.as_batch([self.slots_of(sample) for sample in samples], nodes)

    def as_batch(self, rows: Sequence[Slots], nodes: int) -> dict[str, Tensor]:
        """Return slots as tensors."""
        depth = max(1, *(len(path) for row in rows for path in row.paths))
        batch = {
            "labels": pad([row.labels for row in rows], IGNORED_LABEL),
            "slot_levels": pad([row.levels for row in rows], -1),
            "tree_parent": pad([row.parents for row in rows], -1),
        }
        count = batch["labels"].shape[1]
        table_levels = self.size.places // PLACES
        paths = torch.full((len(rows), count, depth), -1)
        for i, row in enumerate(rows):
            paths[i, : len(row.paths)] = pad([address(path, table_levels) for path in row.paths], -1, depth)
        batch["slot_paths"] = paths
        if self.points and nodes:
            batch["sources"] = self._sources(rows, count, nodes)
        if self.has_boxes:
            batch["boxes"], batch["box_mask"] = _boxes(rows, count)
        return batch

    def _sources(self, rows: Sequence[Slots], count: int, stop: int) -> Tensor:
        sources = torch.full((len(rows), count, self.points), IGNORED_LABEL)
        for i, row in enumerate(rows):
            for slot, (chain, part) in enumerate(zip(row.sources, row.nodes, strict=True)):
                if part is not None:
                    told = [*chain, stop][: self.points]
                    sources[i, slot, : len(told)] = torch.tensor(told)
        return sources

    def _reader(self, model: LayoutDiffusion, batch: Batch) -> Callable[[bool], Memory]:
        count, pictures = len(batch["layouts"]), batch.get("pixel_values")
        structure = [batch.get(name) for name in STRUCTURE_INPUTS]

        def read(is_null: bool) -> Memory:
            return model.read(count, pictures, structure, batch.get("support_mask"), is_null)

        return read

    @torch.no_grad()
    def write(self, model: LayoutDiffusion, batch: Batch, sampling: Sampling) -> list[Node]:
        """Return the layouts that the model generates; keys hold pointers where there are structures."""
        count, read = len(batch["layouts"]), self._reader(model, batch)
        known = (batch["labels"], batch["slot_levels"]) if sampling.is_told and "labels" in batch else None
        made = generate(model, read, self.grammar, self.most_slots, sampling, batch.get("struct_parent"), known)
        classes, parents, sources = made.classes.tolist(), made.parents.tolist(), made.sources.tolist()
        boxes = None if made.boxes is None else made.boxes.tolist()
        return [
            tree_of(
                [self.grammar.classes[label] if label > PAD_CLASS else "" for label in classes[i]],
                parents[i],
                [tuple(source for source in chain if source >= 0) for chain in sources[i]],
                None if boxes is None else boxes[i],
            )
            for i in range(count)
        ]

    @torch.no_grad()
    def look(self, model: LayoutDiffusion, batch: Batch, layouts: Sequence[Node]) -> list[Looks]:
        """Return where on the screenshot the model looks for each node of layouts that it generated."""
        bare = [split_pointers(layout) for layout in layouts]
        rows = [place(layout, chains, self.grammar, self.most_slots) for layout, chains in bare]
        memory = self._reader(model, batch)(False)
        targets = {name: tensor.to(memory.states.device) for name, tensor in self.as_batch(rows, 0).items()}
        sources = self._sources(rows, targets["labels"].shape[1], memory.nodes.shape[1]).to(memory.states.device)
        canvas = Canvas(*(targets[name] for name in ("labels", "slot_levels", "slot_paths", "tree_parent")), sources)
        nothing = torch.zeros_like(targets["labels"], dtype=torch.bool)
        times = torch.zeros(len(rows), device=memory.states.device)
        with watched(model.layers_at(0.0)[-1].page) as seen:
            model.decoder.denoise(canvas, nothing, nothing, times, memory, model.route(times))
        maps = seen[0][:, :, : memory.patches.shape[1]].cpu()
        return [
            [(part["key"].split("@")[0], maps[i, slot]) for slot, part in enumerate(row.nodes) if part is not None]
            for i, row in enumerate(rows)
        ]

    def aligned(self, layouts: Sequence[Node], batch: Batch) -> Tensor:
        """Return the class that layouts have at the address of each target slot, [B, N]; PAD where there is none."""
        numbers = {name: i for i, name in enumerate(self.grammar.classes)}
        predictions = torch.full_like(batch["labels"], PAD_CLASS)
        table_levels = self.size.places // PLACES
        for i, layout in enumerate(layouts):
            found: dict[tuple[int, ...], int] = {}
            self._note(layout["children"] if not layout["key"] else [layout], (), numbers, found, table_levels)
            for slot, path in enumerate(batch["slot_paths"][i].tolist()):
                predictions[i, slot] = found.get(tuple(row for row in path if row >= 0), PAD_CLASS)
        return predictions

    def _note(
        self,
        parts: Sequence[Node],
        above: tuple[int, ...],
        numbers: Mapping[str, int],
        found: dict[tuple[int, ...], int],
        table_levels: int,
    ) -> None:
        for step, part in enumerate(parts):
            path = (*above, step)
            found[tuple(address(path, table_levels))] = numbers.get(class_of(part["key"], self.is_flat), PAD_CLASS)
            self._note(part["children"], path, numbers, found, table_levels)

    def state_dict(self) -> dict[str, Any]:
        """Return what was learned, as JSON."""
        return {"grammar": asdict(self.grammar), "has_boxes": self.has_boxes}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        learned = dict(state["grammar"])
        learned["classes"], learned["children"] = tuple(learned["classes"]), tuple(learned["children"])
        self.grammar, self.has_boxes = Grammar(**learned), state["has_boxes"]


def pointed(layout: Node, sources: Any) -> Node:
    """Return the layout with pointers in place of names; `sources` yields those of its nodes in pre-order."""
    key = class_of(layout["key"], is_flat=False) + "".join(f"@{i}" for i in next(sources))
    return {**layout, "key": key, "children": [pointed(child, sources) for child in layout["children"]]}


def split_pointers(layout: Node) -> tuple[Node, list[tuple[int, ...]]]:
    """Return a layout whose keys hold pointers without them, and the pointers of its nodes in pre-order."""
    chains = [tuple(int(i) for i in part["key"].split("@")[1:] if i.isdigit()) for part in walk(layout)]
    if not any(chains):
        return layout, chains
    return pointed(layout, iter([()] * len(chains))), chains


def _boxes(rows: Sequence[Slots], count: int) -> tuple[Tensor, Tensor]:
    boxes, mask = torch.zeros(len(rows), count, 4), torch.zeros(len(rows), count, dtype=torch.bool)
    for i, row in enumerate(rows):
        for slot, part in enumerate(row.nodes):
            if part is not None and "box" in part["attributes"]:
                boxes[i, slot], mask[i, slot] = torch.tensor(part["attributes"]["box"]), True
    return boxes, mask
