"""Generate layouts: level after level of slots, uncovered from the most certain to the least, with guidance."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .canvas import PAD_CLASS, PLACES, UNKNOWN_CLASS, Grammar
from .diffusion import LayoutDiffusion
from .encoder import Memory
from .noise import drawn, guidance_at, guided, least_certain, mask_rate, still_hidden, time_of
from .slot_decoder import IMPOSSIBLE, Canvas

Reader = Callable[[bool], Memory]


@dataclass(frozen=True)
class Sampling:
    """Say how layouts are generated.

    Args:
        steps: most steps in which the slots of a level are uncovered.
        guidance: classifier-free guidance; 1 for none.
        is_ramp: whether the guidance rises over the steps of a level.
        temperature: of the classes and of the order in which slots are uncovered; 0 takes the most likely.
        is_told: whether the right answers of a batch, where it has them, take the place of what the model writes: that
            takes as long as it will once the model has learned.
    """

    steps: int = 8
    guidance: float = 1.0
    is_ramp: bool = False
    temperature: float = 0.0
    is_told: bool = False


@dataclass(slots=True)
class Generated:
    """Hold generated slots: classes [B, N] (-1 for no slot), parents, sources [B, N, K] (-1: none), boxes or None."""

    classes: Tensor
    parents: Tensor
    sources: Tensor
    boxes: Tensor | None


def generate(
    model: LayoutDiffusion,
    read: Reader,
    grammar: Grammar,
    limit: int,
    sampling: Sampling,
    relations: Tensor | None,
    known: tuple[Tensor, Tensor] | None = None,
) -> Generated:
    """Return the slots that the model uncovers.

    Args:
        model: in evaluation mode.
        read: returns the memory of the pages, or, asked with True, that of the null condition.
        grammar: how many children a node of a class can have.
        limit: most slots of a layout; levels that do not fit are not begun.
        sampling: steps, guidance, temperature.
        relations: [B, S] the parent of each structure node, -1 for the root; None without structures.
        known: classes and levels of the right slots, [B, N] each, that take the place of what is uncovered.
    """
    memory = read(False)
    memories = [memory] if sampling.guidance == 1 else [memory, read(True)]
    children = torch.tensor(grammar.children, device=memory.states.device)
    table_levels = model.decoder.place.num_embeddings // PLACES
    canvas = _roots(memory, grammar, model.decoder.pointers, table_levels)
    used = torch.zeros_like(memory.node_mask)
    boxes = None
    for level in range(grammar.levels):
        canvas, used, found = _uncover(model, canvas, level, memories, sampling, used, relations)
        boxes = _with_level(boxes, found, canvas.levels == level)
        if known is not None:
            canvas = _told(canvas, level, *known)
        if level + 1 == grammar.levels:
            break
        grown = _grow(canvas, level, children, limit, table_levels)
        if grown is None:
            break
        canvas = grown
    sources = canvas.sources
    assert sources is not None
    return Generated(canvas.labels.where(canvas.levels >= 0, -1), canvas.parents, sources, boxes)


def _with_level(boxes: Tensor | None, found: Tensor | None, active: Tensor) -> Tensor | None:
    """Return the boxes with those of the slots of a level, for which they were found while the level was made."""
    if boxes is None or found is None:
        return found
    grown = torch.nn.functional.pad(boxes, (0, 0, 0, found.shape[1] - boxes.shape[1]))
    return torch.where(active[..., None], found, grown)


def _told(canvas: Canvas, level: int, labels: Tensor, levels: Tensor) -> Canvas:
    """Return the canvas with these classes in the slots of a level, where it has as many of them."""
    active, right = canvas.levels == level, levels == level
    if not torch.equal(active.sum(1), right.sum(1)):
        return canvas
    filled = canvas.labels.clone()
    filled[active] = labels[right]
    return replace(canvas, labels=filled)


def _roots(memory: Memory, grammar: Grammar, pointers: int, table_levels: int) -> Canvas:
    batch, device = memory.states.shape[0], memory.states.device
    levels = torch.zeros(batch, grammar.roots, dtype=torch.long, device=device)
    places = torch.arange(grammar.roots, device=device).clamp(max=PLACES - 1)
    return Canvas(
        labels=torch.full_like(levels, PAD_CLASS),
        levels=levels,
        paths=places.expand(batch, -1)[..., None].contiguous(),
        parents=torch.full_like(levels, -1),
        sources=torch.full((batch, grammar.roots, pointers), -1, device=device),
    )


def _grow(canvas: Canvas, level: int, children: Tensor, limit: int, table_levels: int) -> Canvas | None:
    """Return the canvas with the slots of the next level, or None where no node can have children or none fit."""
    real = canvas.levels == level
    counts = children[canvas.labels.clamp(min=0)] * real
    ends = counts.cumsum(1)
    # A parent whose children no longer fit stays without; those before it keep theirs.
    counts = counts * (ends + (canvas.levels >= 0).sum(1, keepdim=True) <= limit)
    ends = counts.cumsum(1)
    totals = ends[:, -1]
    most = int(totals.max())
    if most == 0:
        return None
    number = torch.arange(most, device=totals.device).expand(len(totals), -1).contiguous()
    exists = number < totals[:, None]
    parent = torch.searchsorted(ends, number, right=True).clamp(max=canvas.labels.shape[1] - 1)
    place = number - (ends.gather(1, parent) - counts.gather(1, parent))
    row = min(level + 1, table_levels - 1) * PLACES + place.clamp(max=PLACES - 1)
    width = canvas.paths.shape[2]
    paths = torch.cat([canvas.paths.gather(1, parent[..., None].expand(-1, -1, width)), row[..., None]], dim=2)
    assert canvas.sources is not None
    return Canvas(
        labels=torch.cat([canvas.labels, torch.full_like(number, PAD_CLASS)], dim=1),
        levels=torch.cat([canvas.levels, torch.where(exists, level + 1, -1)], dim=1),
        paths=torch.cat([_widened(canvas.paths), paths], dim=1),
        parents=torch.cat([canvas.parents, torch.where(exists, parent, -1)], dim=1),
        sources=torch.cat([canvas.sources, canvas.sources.new_full((*number.shape, canvas.sources.shape[2]), -1)], 1),
    )


def _widened(paths: Tensor) -> Tensor:
    return torch.nn.functional.pad(paths, (0, 1), value=-1)


def _uncover(
    model: LayoutDiffusion,
    canvas: Canvas,
    level: int,
    memories: list[Memory],
    sampling: Sampling,
    used: Tensor,
    relations: Tensor | None,
) -> tuple[Canvas, Tensor, Tensor | None]:
    """Return the canvas with the slots of a level filled, the structure nodes used so far, and the boxes."""
    active = canvas.levels == level
    hidden, totals = active, active.sum(1)
    boxes = None
    for step in range(1, sampling.steps + 1):
        remaining = still_hidden(totals, step, sampling.steps)
        if step < sampling.steps and bool((remaining >= hidden.sum(1)).all()):
            continue
        times = time_of((hidden.sum(1) / totals.clamp(min=1)).float(), model.schedule)
        scale = guidance_at(sampling.guidance, step, sampling.steps, sampling.is_ramp)
        scores, pointers, boxes = _scores(model, canvas, hidden, active, times, memories, scale)
        # Nobody writes what training did not name.
        scores[..., UNKNOWN_CLASS] = -torch.inf
        chosen, certainty = drawn(scores.log_softmax(-1), sampling.temperature)
        left = least_certain(certainty, hidden, remaining, sampling.temperature, 1 - step / sampling.steps)
        fresh = hidden & ~left
        labels = torch.where(fresh, chosen, canvas.labels)
        sources = canvas.sources
        if pointers is not None and sources is not None and relations is not None:
            sources, used = _chains(pointers, fresh & (labels > UNKNOWN_CLASS), certainty, sources, used, relations)
        canvas, hidden = replace(canvas, labels=labels, sources=sources), left
    return canvas, used, boxes


def _scores(
    model: LayoutDiffusion,
    canvas: Canvas,
    hidden: Tensor,
    active: Tensor,
    times: Tensor,
    memories: list[Memory],
    scale: float,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Return classes' and pointers' log-probabilities, guided where there is a null memory, and boxes."""
    found = []
    route = model.route(mask_rate(times, model.schedule))
    for memory in memories:
        x = model.decoder.denoise(canvas, hidden, active, times, memory, route)
        found.append(model.outputs(x, memory, canvas))
    given = found[0]
    scores, pointers = given["logits"].float(), given.get("pointer_logits")
    if len(found) > 1:
        scores = guided(scores, found[1]["logits"].float(), scale)
        if pointers is not None:
            pointers = guided(pointers.float(), found[1]["pointer_logits"].float(), scale)
    return scores, pointers, given.get("box_predictions")


def _chains(
    pointers: Tensor, fresh: Tensor, certainty: Tensor, sources: Tensor, used: Tensor, relations: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the sources with those of fresh slots filled in, and the nodes used.

    Sources of a slot are a chain of parent and child; a node is used once, and goes to the slot that is most certain
    of it.  [reading: rule (3) of 8.1 as a constraint of decoding]
    """
    batch, _, most, choices = pointers.shape
    stop = choices - 1
    log_probabilities = pointers.float().log_softmax(-1)
    open_slots, previous = fresh, None
    for rank in range(most):
        scores = log_probabilities[:, :, rank].clone()
        scores[..., :stop].masked_fill_(used[:, None], IMPOSSIBLE)
        if previous is not None:
            child_of = relations[:, None] == previous[..., None]
            scores[..., :stop].masked_fill_(~child_of, IMPOSSIBLE)
        best = scores.max(dim=-1)
        target = best.indices.masked_fill(~open_slots, stop)
        target = _unique(target, best.values, stop)
        sources[:, :, rank] = torch.where(fresh & (target < stop), target, sources[:, :, rank])
        taken = torch.zeros(batch, choices, dtype=torch.bool, device=used.device)
        taken.scatter_(1, target, True)
        used = used | taken[:, :stop]
        open_slots = open_slots & (target < stop)
        previous = target.where(open_slots, -2)
    return sources, used


def _unique(target: Tensor, scores: Tensor, stop: int) -> Tensor:
    """Return the targets with every node left to the slot that scores it highest; the others stop."""
    order = scores.argsort(dim=1, descending=True)
    ranked = target.gather(1, order)
    same = ranked[:, :, None] == ranked[:, None]
    earlier = torch.ones(same.shape[1:], dtype=torch.bool, device=same.device).tril(-1)
    again = (same & earlier).any(dim=2)
    ranked = ranked.masked_fill(again, stop)
    return torch.empty_like(target).scatter_(1, order, ranked)
