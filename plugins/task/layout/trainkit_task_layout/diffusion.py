"""The masked-diffusion model: it hides slots of layouts and learns to uncover them, given the page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .encoder import Dropping, Memory, PageEncoder, pooled
from .experts import Experts, Route
from .fewshot import FewShot
from .noise import MaskSchedule, antithetic_times, elbo_weight, fixed_draws, mask_rate
from .slot_decoder import Canvas, SlotDecoder


class LayoutDiffusion(nn.Module):
    """Learn to uncover the slots of layouts, given screenshots and structures.

    Args:
        encoder: reads pages.
        decoder: uncovers slots.
        schedule: how the share of hidden slots follows the time.
        condition_dropout: probability that a training sample loses its whole condition, for guidance.
        part_dropout: probability that it loses only its picture, or only its structure.
        scales: sides, ascending, at which pictures are also read in training; none for the given size alone.
    """

    def __init__(
        self,
        encoder: PageEncoder,
        decoder: SlotDecoder,
        schedule: MaskSchedule = "cosine",
        condition_dropout: float = 0.1,
        part_dropout: float = 0.0,
        scales: tuple[int, ...] = (),
    ) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder
        self.props = nn.Linear(decoder.embed.embedding_dim, 3)
        self.schedule: MaskSchedule = schedule
        self.condition_dropout, self.part_dropout, self.scales = condition_dropout, part_dropout, scales
        self.experts: Experts | None = None
        self.few_shot: FewShot | None = None

    def gradient_checkpointing_enable(self) -> None:
        """Recompute each layer in the backward pass: less memory, the same gradient."""
        self.encoder.recompute = self.decoder.recompute = True

    def forward(
        self,
        labels: Tensor,
        slot_levels: Tensor,
        slot_paths: Tensor,
        tree_parent: Tensor,
        sources: Tensor | None = None,
        pixel_values: Tensor | None = None,
        struct_ids: Tensor | None = None,
        struct_classes: Tensor | None = None,
        depth: Tensor | None = None,
        sibling: Tensor | None = None,
        struct_mask: Tensor | None = None,
        struct_tokens: Tensor | None = None,
        struct_parent: Tensor | None = None,
        struct_end: Tensor | None = None,
        support_mask: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Hide slots at random and return predictions for all of them.

        Args:
            labels: [B, N] classes, -100 where there is no slot.
            slot_levels: [B, N] level of each slot, -1 where there is none.
            slot_paths: [B, N, P] rows of the table of places, -1 behind a path's end.
            tree_parent: [B, N] slot of the parent, -1 for roots.
            sources: [B, N, K] pointers to nodes, S for STOP, -100 ignored.
            pixel_values: [B, 3, H, W].
            struct_ids: [B, S] rows of the tags of the structure's nodes.
            struct_classes: [B, S, C] rows of their classes, 0 for none.
            depth: [B, S] level of each node.
            sibling: [B, S] place of each node among its siblings.
            struct_mask: [B, S] True where a node is real.
            struct_tokens: [B, S, T] tokens of the nodes' text, -1 behind their end.
            struct_parent: [B, S] parent of each node, -1 for the root.
            struct_end: [B, S] the node behind the last one of each subtree.
            support_mask: [B, n] the pictures of the support bank that a sample may look at.

        Returns:
            logits [B, N, C], masked [B, N], mask_rate [B], elbo_weight [B], props_logits [B, 3]; pointer_logits
            [B, N, K, S + 1], box_predictions [B, N, 4], visual_features and structural_features [B, d], scale_logits
            [B, R, N, C] where there is what they are made of.
        """
        batch, device = labels.shape[0], labels.device
        canvas = Canvas(labels, slot_levels, slot_paths, tree_parent, sources)
        if self.training:
            times, uniform = antithetic_times(batch, device), torch.rand(labels.shape, device=device)
        else:
            times, uniform = fixed_draws(labels)
        rate = mask_rate(times, self.schedule)
        hidden = (uniform < rate[:, None]) & (slot_levels >= 0)
        dropping = None
        if self.training and (self.condition_dropout or self.part_dropout):
            dropping = Dropping.drawn(batch, self.condition_dropout, self.part_dropout, device)
        structure = (struct_ids, struct_classes, depth, sibling, struct_mask, struct_tokens, struct_parent, struct_end)
        memory = self.encoder(batch, pixel_values, *structure, dropping)
        support = None if self.few_shot is None else self.few_shot(support_mask, dropping and dropping.whole)
        memory = memory if support is None else memory.supported(*support)
        route = self.route(rate)
        outputs = self.outputs(self.decoder(canvas, hidden, times, memory, route), memory, canvas)
        outputs |= {"masked": hidden, "mask_rate": rate, "elbo_weight": elbo_weight(times, self.schedule)}
        if self.training and self.scales and pixel_values is not None:
            scaled = []
            for side in self.scales:
                resized = F.interpolate(pixel_values, (side, side), mode="bilinear", antialias=True)
                memory = self.encoder(batch, resized, *structure, dropping)
                memory = memory if support is None else memory.supported(*support)
                scaled.append(self.decoder.score(self.decoder(canvas, hidden, times, memory, route)))
            outputs["scale_logits"] = torch.stack([*scaled, outputs["logits"]], dim=1)
        return outputs

    def read(
        self,
        batch: int,
        pixel_values: Tensor | None,
        structure: Sequence[Tensor | None],
        support_mask: Tensor | None = None,
        is_null: bool = False,
    ) -> Memory:
        """Return the memory of pages for generation: as they are, or what stands for none.

        Args:
            batch: number of pages.
            pixel_values: [B, 3, H, W].
            structure: the tensors of the structures, in the order of the encoder's parameters.
            support_mask: [B, n] the pictures of the support bank that a sample may look at.
            is_null: whether the whole condition is dropped.
        """
        dropping = Dropping.of_all(batch, self.decoder.bias.device) if is_null else None
        memory: Memory = self.encoder(batch, pixel_values, *structure, dropping)
        if self.few_shot is not None:
            memory = memory.supported(*self.few_shot(support_mask, dropping and dropping.whole))
        return memory

    def route(self, rates: Tensor) -> Route | None:
        """Return the way through the experts for shares of hidden slots [B]; None where the base decoder works."""
        return None if self.experts is None else self.experts.route(rates)

    def layers_at(self, rate: float) -> nn.ModuleList:
        """Return the decoder layers that work at a share of hidden slots."""
        layers = self.decoder.layers
        return layers if self.experts is None else self.experts.layers_at(rate, layers)

    def split_experts(self) -> None:
        """Let experts work from now on, each beginning as the base decoder is."""
        if self.experts is not None:
            self.experts.split(self.decoder.layers)

    def outputs(self, x: Tensor, memory: Memory, canvas: Canvas) -> dict[str, Any]:
        """Return what the heads make of decoded slots and of the page."""
        decoder = self.decoder
        found: dict[str, Any] = {"logits": decoder.score(x)}
        if decoder.pointers and memory.nodes.shape[1]:
            found["pointer_logits"] = decoder.point(x, memory, canvas)
        if hasattr(decoder, "box"):
            found["box_predictions"] = decoder.box(x).sigmoid()
        found["props_logits"] = self.props(pooled(memory.states, memory.state_mask))
        if memory.patches.shape[1] and memory.nodes.shape[1]:
            found["visual_features"] = pooled(memory.patches)
            found["structural_features"] = pooled(memory.nodes, memory.node_mask)
        return found
