"""Where a model looks: the weights of an attention layer, and a picture of them."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from trainkit.reporting.contactsheet import clipped

from .layers import Attention

# For each node its base and the weights of the patches, [P].
Looks = list[tuple[str, Tensor]]
# A sheet shrinks three columns to half of their width: the bases below are still read there.
TILE, COLUMNS, MOST_TILES, LABEL = 200, 3, 12, 22
CAPTION = LABEL + 8
HEAT = np.array([230, 40, 20], dtype=np.float32)


@contextlib.contextmanager
def watched(attention: Attention) -> Iterator[list[Tensor]]:
    """Collect the weights of each call of an attention layer, [B, N, M], the mean over its heads."""
    seen: list[Tensor] = []

    def hear(module: Any, inputs: tuple[Any, ...]) -> None:
        x, (keys, _), mask = (*inputs, None)[:3]
        query = module.query(x).view(*x.shape[:2], module.heads, -1).transpose(1, 2)
        scores = query @ keys.transpose(-1, -2) / math.sqrt(query.shape[-1])
        if mask is not None:
            scores = scores.masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else scores + mask
        seen.append(scores.softmax(-1).mean(dim=1).float())

    handle = attention.register_forward_pre_hook(hear)
    try:
        yield seen
    finally:
        handle.remove()


def picture_of_looks(image: np.ndarray, looks: Looks) -> np.ndarray | None:
    """Return a sheet of the screenshot, once for each base, with where the model looked for it in red.

    Args:
        image: the screenshot, [S, S, 3] of bytes.
        looks: base and weights [P] of each node; those of one base are added up.
    """
    by_base: dict[str, Tensor] = {}
    for base, weights in looks:
        by_base[base] = by_base.get(base, torch.zeros_like(weights)) + weights
    if not by_base or not next(iter(by_base.values())).numel():
        return None
    shown = list(by_base.items())[:MOST_TILES]
    rows = -(-len(shown) // COLUMNS)
    sheet = Image.new("RGB", (min(COLUMNS, len(shown)) * TILE, rows * (TILE + CAPTION)), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(LABEL)
    for number, (base, weights) in enumerate(shown):
        left, top = number % COLUMNS * TILE, number // COLUMNS * (TILE + CAPTION)
        sheet.paste(_tile(image, weights), (left, top))
        pen.text((left + 4, top + TILE + 2), clipped(base, TILE - 8, LABEL), fill=(20, 20, 20), font=font)
    return np.asarray(sheet)


def _tile(image: np.ndarray, weights: Tensor) -> Image.Image:
    side = math.isqrt(weights.numel())
    grid = (weights / weights.max().clamp(min=1e-9)).view(side, side).numpy()
    heat = Image.fromarray((grid * 255).astype(np.uint8)).resize((TILE, TILE), Image.Resampling.BILINEAR)
    share = np.asarray(heat, dtype=np.float32)[..., None] / 255 * 0.75
    page = np.asarray(Image.fromarray(image).resize((TILE, TILE)), dtype=np.float32)
    return Image.fromarray((page * (1 - share) + HEAT * share).astype(np.uint8))
