"""The steps of a recipe by PyTorch, for where OpenCV is not installed: floats within, bytes at both ends."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from .recipe import Recipe, resampling


@torch.no_grad()
def render(image: np.ndarray, recipe: Recipe) -> np.ndarray:
    """Return the picture [H, W, 3] of bytes that a recipe makes; the input is only read."""
    height, width = image.shape[:2]
    # A copy: PyTorch warns of arrays that must not be written to.
    planes = torch.tensor(image).permute(2, 0, 1)[None]
    if recipe.size is not None:
        small = recipe.size[::-1]
        planes = functional.interpolate(planes, small, mode="bilinear", antialias=True, align_corners=False)
    picture = planes.to(torch.float32, memory_format=torch.contiguous_format)
    fill = torch.tensor(recipe.fill, dtype=torch.float32)
    colour = torch.eye(3, 4) if recipe.colour is None else torch.from_numpy(recipe.colour).to(torch.float32)
    offset = colour[:, 3]
    if recipe.matrix is not None:
        # Zero is what the resampling finds outside: let zero be the fill, until the colours are set.
        picture = picture.sub_(fill[:, None, None])
        picture = functional.grid_sample(picture, _grid(recipe, width, height), align_corners=False)
        offset = offset + colour[:, :3] @ fill
    elif recipe.size is not None:
        picture = functional.interpolate(picture, (height, width), mode="bilinear", align_corners=False)
    if recipe.blur:
        picture = _blurred(picture, recipe.blur)
    if recipe.line:
        weights = [1 / len(recipe.line)] * len(recipe.line)
        picture = _weighted(picture, recipe.line, weights)
    if recipe.noise is not None:
        offset = offset - 128 * recipe.noise_gain
    flat = torch.addmm(offset[:, None], colour[:, :3], picture.view(3, -1))
    pixels = flat.t().contiguous().view(height, width, 3)
    if recipe.noise is not None:
        pixels.add_(torch.tensor(recipe.noise), alpha=recipe.noise_gain)
    result: np.ndarray = pixels.round_().clamp_(0, 255).to(torch.uint8).numpy()
    return result


def _grid(recipe: Recipe, width: int, height: int) -> Tensor:
    """Return [1, H, W, 2]: where each new pixel comes from, in -1 to 1 over the (scaled down) picture."""
    back = np.linalg.inv(resampling(recipe, width, height))
    small_width, small_height = recipe.size or (width, height)
    to_unit = np.array([[2 / small_width, 0, -1], [0, 2 / small_height, -1], [0, 0, 1]])
    (a, b, c), (d, e, f), (g, h, i) = (to_unit @ back).tolist()
    x, y = torch.arange(width) + 0.5, (torch.arange(height) + 0.5)[:, None]
    grid = torch.empty(1, height, width, 2)
    torch.add(a * x + c, b * y, out=grid[0, :, :, 0])
    torch.add(d * x + f, e * y, out=grid[0, :, :, 1])
    if g or h:
        grid.div_((g * x + i + h * y)[..., None])
    return grid


def _blurred(picture: Tensor, deviation: float) -> Tensor:
    reach = round(3 * deviation)
    bell = [math.exp(-0.5 * (i / deviation) ** 2) for i in range(-reach, reach + 1)]
    weights = [value / sum(bell) for value in bell]
    steps = range(-reach, reach + 1)
    return _weighted(_weighted(picture, [(i, 0) for i in steps], weights), [(0, i) for i in steps], weights)


def _weighted(picture: Tensor, offsets: list[tuple[int, int]], weights: list[float]) -> Tensor:
    """Return the weighted mean over neighbours: shifted sums, which are far faster here than a convolution."""
    x_reach, y_reach = (max(abs(place[axis]) for place in offsets) for axis in (0, 1))
    height, width = picture.shape[2:]
    padded = functional.pad(picture, (x_reach, x_reach, y_reach, y_reach), mode="replicate")
    total = torch.zeros_like(picture)
    for (x, y), weight in zip(offsets, weights, strict=True):
        top, left = y_reach + y, x_reach + x
        total.add_(padded[:, :, top : top + height, left : left + width], alpha=weight)
    return total
