"""What is optional about a layout model: support pages, experts, pretrained backbones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from trainkit.contracts import Sample
from trainkit.errors import UsageError

from .backbones import Reader, TextBackbone, VisualBackbone
from .batch import structure_row
from .diffusion import LayoutDiffusion
from .encoder import Stem
from .experts import Experts
from .fewshot import FewShot, SupportUse
from .presets import Size
from .pretrained import TEXT, VISUAL, Backbone, read_backbone
from .support import Support, support_side

LONGEST_TEXT = 32


class Powers:
    """Hold the optional powers of a layout model, and what they learned from training data.

    Args:
        size: of the model.
        stem: how support pictures become patches.
        dropout: share of features dropped in training.
        sides: of the screenshots in pixels, that of the samples first.
        support: most support pictures of a page; 0 for none.
        support_use: how the decoder uses them.
        experts: how many experts; 1 for none.
        expert_budget: share of the base decoder's cost that the expert of few hidden slots may have.
        folders: of the backbones 'visual' and 'text'; None for none.
    """

    def __init__(
        self,
        size: Size,
        stem: Stem,
        dropout: float,
        sides: Sequence[int],
        support: int,
        support_use: SupportUse,
        experts: int,
        expert_budget: float,
        folders: Mapping[str, str | None],
    ) -> None:
        self.size, self.stem, self.dropout, self.sides = size, stem, dropout, sides
        self.support_use, self.experts, self.expert_budget = support_use, experts, expert_budget
        self.support = Support(support, support_side(sides[0], size.patch)) if support else None
        self.folders = {name: folder for name, folder in folders.items() if folder is not None}
        self.backbones: dict[str, Backbone] = {}
        self._reader: Reader | None = None

    def fit(self, samples: Sequence[Sample]) -> None:
        """Learn the support pages; read what the backbones are made of, unless a run's state told already."""
        if self.support is not None:
            self.support.fit(samples)
        for name, folder in self.folders.items():
            if name not in self.backbones:
                self.backbones[name] = read_backbone(
                    f"task.{name}_backbone", folder, VISUAL if name == "visual" else TEXT
                )
        has = {"visual": any(s["image"] is not None for s in samples)}
        has["text"] = any(s["structure"] is not None for s in samples)
        for name in self.folders:
            if not has[name]:
                raise UsageError(
                    f"task.{name}_backbone has nothing to look at",
                    why=f"the training pages have no {'screenshots' if name == 'visual' else 'structures'}",
                    do="leave the option out",
                )
        self._check_sides()

    def _check_sides(self) -> None:
        if visual := self.backbones.get("visual"):
            for side in self.sides:
                if side % visual.patch:
                    raise UsageError(
                        f"task.image_size and task.scales: {side} is not a multiple of {visual.patch}",
                        why=f"the patches of task.visual_backbone have {visual.patch} pixels",
                    )

    @property
    def inputs(self) -> frozenset[str]:
        """Return the names of what a batch has besides."""
        names = {"support_mask"} if self.support is not None else set()
        names |= {"struct_tokens"} if "text" in self.folders else set()
        return frozenset(names)

    def rows(self, samples: Sequence[Sample], nodes: int) -> dict[str, Tensor]:
        """Return what a batch has besides; `nodes` is the number of structure nodes of its longest structure."""
        found = {} if self.support is None else {"support_mask": self.support.mask(samples)}
        if "text" in self.backbones and nodes:
            found["struct_tokens"] = self._tokens().tokens([texts_of(sample) for sample in samples], nodes)
        return found

    def _tokens(self) -> Reader:
        if self._reader is None:
            self._reader = Reader(self.backbones["text"].tokenizer, LONGEST_TEXT)
        return self._reader

    def encoder_parts(self) -> dict[str, nn.Module]:
        """Return the parts of an encoder that backbones replace or add, by the names of its parameters."""
        kinds = {"visual": VisualBackbone, "text": TextBackbone}
        return {name: kinds[name](backbone, self.size.width) for name, backbone in self.backbones.items()}

    def attach(self, model: nn.Module) -> None:
        """Give a fresh model its experts and its support."""
        if not isinstance(model, LayoutDiffusion):
            return
        if self.experts > 1:
            model.experts = Experts(model.decoder.layers, self.experts, self.expert_budget)
        if self.support is not None:
            model.few_shot = FewShot(
                self.support.pictures(),
                self.support.most,
                self.support_use,
                self.size.width,
                self.size.heads,
                self.size.patch,
                self.stem,
                self.dropout,
            )

    def state_dict(self) -> dict[str, Any]:
        """Return what was learned, as JSON."""
        return {
            "support": None if self.support is None else self.support.state_dict(),
            "backbones": {name: backbone.state_dict() for name, backbone in self.backbones.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave; a model built from it has weights of chance until a checkpoint's come."""
        if self.support is not None:
            self.support.load_state_dict(state["support"])
        self.backbones = {name: Backbone.restored(backbone) for name, backbone in state["backbones"].items()}
        self._reader = None


def texts_of(sample: Sample) -> list[str]:
    """Return the text of each structure node: tag, classes and annotations as words, without their marks."""
    row = structure_row(sample["structure"])
    return [
        " ".join([tag, *(word.strip(".[]'") for word in words if word[0] != "=")])
        for tag, words in zip(row.tags, row.words, strict=True)
    ]
