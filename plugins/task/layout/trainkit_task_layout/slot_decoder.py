"""Decode slots: from a page and partly hidden slots to states, classes, sources and boxes of all slots."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .canvas import PAD_CLASS
from .encoder import Memory
from .experts import Route, through
from .layers import ANCESTORS, EXTENT, PLACE_WAVES, Attention, DropPath, Feedforward, rising, sin_cos
from .relations import RelationBias, relate

TIME_FEATURES = 256
TIME_SCALE = 1000.0
IMPOSSIBLE = -1e4


@dataclass(slots=True)
class Canvas:
    """Hold slots as tensors.

    Args:
        labels: [B, N] classes; below 0 where there is no slot.
        levels: [B, N] level of each slot, -1 where there is none.
        paths: [B, N, P] rows of the table of places along the way from the root, -1 behind its end.
        parents: [B, N] slot of the parent, -1 for roots.
        sources: [B, N, K] pointers, or None where the data has no structures.
    """

    labels: Tensor
    levels: Tensor
    paths: Tensor
    parents: Tensor
    sources: Tensor | None = None


@dataclass(slots=True)
class View:
    """Hold what a decoder layer looks at: the attention mask among slots, the memory, keys and values of it."""

    mask: Tensor
    memory: Memory
    time: Tensor
    relations: Tensor | None = None

    def rows(self, index: Tensor) -> View:
        """Return what some of the samples look at."""
        relations = None if self.relations is None else self.relations[index]
        return View(self.mask[index], self.memory.rows(index), self.time[index], relations)


class SlotLayer(nn.Module):
    """Mix slots, look at the page, mix features; scaled, shifted and gated by the time (adaLN-single).

    Norms carry no gains: the table and the shared projection of the time replace them [paper 2310.00426].
    """

    def __init__(self, width: int, heads: int, dropout: float, drop_path: float, has_relations: bool = False) -> None:
        super().__init__()
        self.relation = RelationBias(heads) if has_relations else None
        self.slots, self.page = Attention(width, heads, dropout), Attention(width, heads, dropout)
        self.feedforward = Feedforward(width)
        self.table = nn.Parameter(torch.zeros(6, width))
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.drop, self.drop_path = nn.Dropout(dropout), DropPath(drop_path)

    def forward(self, x: Tensor, view: View) -> Tensor:
        shift, scale, gate, shift_late, scale_late, gate_late = (view.time + self.table[:, None]).unbind(-3)
        y = self.norm(x) * (1 + scale) + shift
        mixed = self.slots(y, self.slots.keys_values(y), view.mask)
        x = x + gate * self.drop_path(self.drop(mixed))
        seen = self.page(self.norm(x), self.page.keys_values(view.memory.placed), self._page_mask(view))
        x = x + self.drop_path(self.drop(seen))
        y = self.norm(x) * (1 + scale_late) + shift_late
        return x + gate_late * self.drop_path(self.drop(self.feedforward(y)))

    def _page_mask(self, view: View) -> Tensor | None:
        """Return what keeps slots from padding and draws them to related nodes."""
        if self.relation is None or view.relations is None or view.memory.mask is None:
            return view.memory.mask
        nodes = view.memory.nodes.shape[1]
        before = view.memory.states.shape[1] - nodes
        behind = view.memory.placed.shape[1] - before - nodes
        bias = F.pad(self.relation(view.relations), (before, behind))
        return bias.masked_fill(~view.memory.mask, -torch.inf)


class SlotDecoder(nn.Module):
    """Decode slots: each once as it is (clean) and once as the noise leaves it, level by level.

    A hidden slot sees the slots of its own level as the noise leaves them, and those of the levels above as they are;
    so one pass trains every level under the very conditions of generation, where a level begins when the one above is
    known.  [block diffusion, paper 2503.09573, with the levels of the tree as blocks: reading]

    Args:
        width: features of a slot.
        heads: attention heads.
        layers: decoder layers.
        classes: rows of the table of classes; the last one is MASK.
        places: rows of the table of places, a multiple of 16.
        known_classes: classes that can be predicted, the first rows; all but MASK if 0.
        pointers: most sources of a slot; 0 for the flat form without pointers.
        has_boxes: whether boxes are predicted.
        dropout: share of features dropped in training.
        drop_path: stochastic depth at the last layer, rising linearly from 0.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        layers: int,
        classes: int,
        places: int,
        known_classes: int = 0,
        pointers: int = 0,
        has_boxes: bool = False,
        dropout: float = 0.0,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.known_classes, self.mask_class, self.pointers = known_classes or classes - 1, classes - 1, pointers
        self.embed = nn.Embedding(classes, width)
        self.place = nn.Embedding(places, width)
        self.time = nn.Sequential(nn.Linear(TIME_FEATURES, width), nn.SiLU(), nn.Linear(width, width))
        self.modulation = nn.Linear(width, 6 * width)
        self.layers = nn.ModuleList(
            SlotLayer(width, heads, dropout, rate, pointers > 0) for rate in rising(drop_path, layers)
        )
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.table = nn.Parameter(torch.zeros(2, width))
        self.bias = nn.Parameter(torch.zeros(classes))
        self.drop = nn.Dropout(dropout)
        if pointers:
            self.embed_pointer = nn.Linear(width, width)
            self.pointer_query, self.pointer_key = nn.Linear(width, width), nn.Linear(width, width)
            self.rank = nn.Parameter(torch.randn(pointers, width) * 0.02)
            self.stop = nn.Linear(width, 1)
            self.relation = RelationBias(pointers)
        if has_boxes:
            self.box = nn.Linear(width, 4)
        nn.init.normal_(self.embed.weight, std=width**-0.5)
        nn.init.normal_(self.place.weight, std=width**-0.5)
        # Gates begin at 0, so that every layer begins as the identity [paper 2212.09748].
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)
        self.recompute = False

    def embed_slots(self, classes: Tensor, canvas: Canvas, memory: Memory, visible: Tensor) -> Tensor:
        """Return [B, N, d]: class, address, the parent's class and, where a slot is visible, its sources.

        Args:
            classes: [B, N] MASK where a slot is hidden.
            canvas: what is known of the slots.
            memory: the page.
            visible: [B, N] whose sources are shown.
        """
        x = self.embed(classes)
        rows = self.place(canvas.paths.clamp(min=0)) * (canvas.paths >= 0)[..., None]
        # The parent's class in a place of its own: shifted by a third of the features, it is no neighbour of the class.
        of_parent = self.embed(canvas.labels.clamp(min=0).gather(1, canvas.parents.clamp(min=0)))
        of_parent = of_parent.roll(x.shape[-1] // 3, dims=-1) * (canvas.parents >= 0)[..., None]
        x = x + rows.sum(dim=2) + of_parent + relative_places(canvas, x.shape[-1]).to(x)
        if self.pointers and canvas.sources is not None and memory.nodes.shape[1]:
            x = x + self._pointed(canvas.sources, memory) * visible[..., None]
            above = self._pointed(canvas.sources, memory).gather(
                1, canvas.parents.clamp(min=0)[..., None].expand(-1, -1, x.shape[-1])
            )
            x = x + above.roll(x.shape[-1] // 3, dims=-1) * (canvas.parents >= 0)[..., None]
        return x

    def _pointed(self, sources: Tensor, memory: Memory) -> Tensor:
        """Return the sum of the nodes that each slot is made of, [B, N, d]."""
        nodes = self.embed_pointer(memory.nodes)
        real = (sources >= 0) & (sources < nodes.shape[1])
        batch, slots, most = sources.shape
        index = sources.clamp(0, nodes.shape[1] - 1).view(batch, slots * most, 1).expand(-1, -1, nodes.shape[2])
        picked = nodes.gather(1, index).view(batch, slots, most, -1)
        return (picked * real[..., None]).sum(dim=2)

    def modulations(self, times: Tensor) -> Tensor:
        """Return the shared part of the scales, shifts and gates for times [...]: [..., 6, d]."""
        return self.modulation(F.silu(self.time_features(times))).unflatten(-1, (6, -1))

    def time_features(self, times: Tensor) -> Tensor:
        """Return the embedded times [..., d]."""
        half = TIME_FEATURES // 2
        frequencies = torch.exp(torch.arange(half, device=times.device) * (-9.210340371976184 / half))
        angles = times[..., None].float() * TIME_SCALE * frequencies
        out: Tensor = self.time(torch.cat([angles.sin(), angles.cos()], dim=-1).to(self.bias.dtype))
        return out

    def forward(
        self, canvas: Canvas, hidden: Tensor, times: Tensor, memory: Memory, route: Route | None = None
    ) -> Tensor:
        """Return the states [B, N, d] of the noised slots.

        Args:
            canvas: the slots with their true classes.
            hidden: [B, N] bool, the slots that the noise hides.
            times: [B] of the noise.
            memory: the page.
            route: the way through experts; None for the decoder's own layers.
        """
        real = canvas.levels >= 0
        classes = canvas.labels.clamp(min=PAD_CLASS)
        clean = self.embed_slots(classes, canvas, memory, real)
        noised = self.embed_slots(classes.masked_fill(hidden, self.mask_class), canvas, memory, real & ~hidden)
        slots = noised.shape[1]
        time = self.modulations(torch.stack([torch.zeros_like(times), times], dim=1))
        time = time.repeat_interleave(slots, dim=1).transpose(1, 2)
        x = self._through(
            torch.cat([clean, noised], dim=1),
            View(level_mask(canvas.levels), memory, time, self._twice(canvas, memory)),
            route,
        )
        return self._finished(x[:, slots:], times)

    def _twice(self, canvas: Canvas, memory: Memory) -> Tensor | None:
        relations = self.relations(canvas, memory)
        return None if relations is None else torch.cat([relations, relations], dim=2)

    def relations(self, canvas: Canvas, memory: Memory) -> Tensor | None:
        """Return how nodes relate to slots, [B, 4, N, S]; None where there is nothing to point to."""
        is_known = self.pointers and canvas.sources is not None and memory.tree is not None and memory.nodes.shape[1]
        return relate(canvas, memory) if is_known else None

    def denoise(
        self,
        canvas: Canvas,
        hidden: Tensor,
        active: Tensor,
        times: Tensor,
        memory: Memory,
        route: Route | None = None,
    ) -> Tensor:
        """Return the states [B, N, d] of slots in generation: those of the active level are noised, those above clean.

        Args:
            canvas: the slots made so far.
            hidden: [B, N] bool, slots not yet uncovered; only active ones.
            active: [B, N] bool, the slots of the level that is being made.
            times: [B] of the noise.
            memory: the page.
            route: the way through experts; None for the decoder's own layers.
        """
        real = canvas.levels >= 0
        classes = canvas.labels.clamp(min=PAD_CLASS).masked_fill(hidden, self.mask_class)
        x = self.embed_slots(classes, canvas, memory, real & ~hidden)
        time = self.modulations(torch.stack([torch.zeros_like(times), times], dim=1))
        time = time.gather(1, active.long()[..., None, None].expand(-1, -1, 6, x.shape[-1])).transpose(1, 2)
        query, key = canvas.levels[:, :, None], canvas.levels[:, None]
        mask = ((key <= query) & (key >= 0)) | torch.eye(x.shape[1], dtype=torch.bool, device=x.device)
        return self._finished(
            self._through(x, View(mask[:, None], memory, time, self.relations(canvas, memory)), route), times
        )

    def _through(self, x: Tensor, view: View, route: Route | None) -> Tensor:
        x = self.drop(x)
        if view.memory.film is not None:
            view = replace(view, time=view.time + view.memory.film)
        return through(self.layers, x, view, self.recompute) if route is None else route(x, view, self.recompute)

    def _finished(self, x: Tensor, times: Tensor) -> Tensor:
        shift, scale = (self.table[:, None] + self.time_features(times)[:, None, None]).unbind(1)
        return self.norm(x) * (1 + scale) + shift

    def score(self, x: Tensor) -> Tensor:
        """Return the logits of the known classes, [B, N, C]; the table is tied to the embedding."""
        known = self.known_classes
        return F.linear(x, self.embed.weight[:known], self.bias[:known])

    def point(self, x: Tensor, memory: Memory, canvas: Canvas) -> Tensor:
        """Return the logits of the sources, [B, N, K, S + 1], STOP last."""
        queries = self.pointer_query(x)[:, :, None] + self.rank
        keys = self.pointer_key(memory.nodes)
        scores = torch.einsum("bnkd,bsd->bnks", queries, keys) * x.shape[-1] ** -0.5
        relations = self.relations(canvas, memory)
        if relations is not None:
            scores = scores + self.relation(relations).transpose(1, 2)
        scores = scores.masked_fill(~memory.node_mask[:, None, None], IMPOSSIBLE)
        return torch.cat([scores, self.stop(queries)], dim=-1)


def relative_places(canvas: Canvas, width: int) -> Tensor:
    """Return embeddings [B, N, width] of where the nearest ancestors stand among their siblings.

    The third of four children stands at 2.5 / 4. Columns of a grid mostly share its width evenly, so this is about
    where a node is to be found in the picture. A slot's own share is unknown while its siblings are.
    """
    same = (canvas.parents[:, :, None] == canvas.parents[:, None]) & (
        canvas.levels[:, :, None] == canvas.levels[:, None]
    )
    filled = same & (canvas.labels > PAD_CLASS)[:, None]
    before = filled.tril(-1).sum(dim=2)
    places = (before + 0.5) / filled.sum(dim=2).clamp(min=1) * EXTENT
    each = width // ANCESTORS // 2 * 2
    ancestor, parts = canvas.parents, []
    for _ in range(ANCESTORS):
        known = ancestor >= 0
        here = ancestor.clamp(min=0)
        parts.append(sin_cos(places.gather(1, here), each, PLACE_WAVES) * known[..., None])
        ancestor = torch.where(known, canvas.parents.gather(1, here), -1)
    return F.pad(torch.cat(parts, dim=-1), (0, width - each * ANCESTORS))


def level_mask(levels: Tensor) -> Tensor:
    """Return who may look at whom among [clean; noised] slots, [B, 1, 2N, 2N] bool.

    Clean slots look at clean ones of their level and above; noised ones at clean ones of the levels above and at noised
    ones of their own. What is no slot looks at itself alone, so that no row is empty.
    """
    query, key = levels[:, :, None], levels[:, None]
    real = (query >= 0) & (key >= 0)
    itself = torch.eye(levels.shape[1], dtype=torch.bool, device=levels.device)
    upper = torch.cat([(real & (key <= query)) | itself, torch.zeros_like(real)], dim=2)
    lower = torch.cat([real & (key < query), (real & (key == query)) | itself], dim=2)
    return torch.cat([upper, lower], dim=1)[:, None]
