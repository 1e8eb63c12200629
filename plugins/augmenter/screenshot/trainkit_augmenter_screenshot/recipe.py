"""What is done to the pixels of one variant, as plain numbers that either backend carries out."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .colour import colour_matrix, mean_luma
from .draws import Changes

Colour = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Recipe:
    """Hold the steps for one picture, in their order; a step that is None or 0 is left out.

    Args:
        size: (width, height) to which the picture is scaled down first.
        matrix: forward matrix [3, 3] in pixels of the whole picture, applied while it is brought back to its size.
        fill: colour of what comes into the picture from outside.
        blur: standard deviation of the Gaussian blur.
        line: [(x, y), ...] offsets in pixels over which each pixel is averaged.
        colour: [3, 4] matrix from old to new red, green and blue.
        noise: bytes [H, W, 3], see noise.py.
        noise_gain: grey levels for each step of the noise.
    """

    size: tuple[int, int] | None
    matrix: np.ndarray | None
    fill: Colour
    blur: float
    line: list[tuple[int, int]]
    colour: np.ndarray | None
    noise: np.ndarray | None
    noise_gain: float

    @property
    def is_empty(self) -> bool:
        """Return whether the picture stays as it is."""
        return (
            self.size is None
            and self.matrix is None
            and not self.blur
            and not self.line
            and self.colour is None
            and self.noise is None
        )


def recipe(
    image: np.ndarray, changes: Changes, matrix: np.ndarray | None, fill: Colour, noise: np.ndarray | None, gain: float
) -> Recipe:
    """Return the steps that make these changes to a picture [H, W, 3] of bytes."""
    height, width = image.shape[:2]
    colours = (changes.brightness, changes.contrast, changes.saturation, changes.hue) != (1, 1, 1, 0)
    return Recipe(
        size=working_size(width, height, changes.resolution),
        matrix=matrix,
        fill=fill,
        blur=changes.blur,
        line=line(*changes.motion),
        colour=colour_matrix(changes, mean_luma(image)) if colours else None,
        noise=noise,
        noise_gain=gain,
    )


def working_size(width: int, height: int, resolution: int) -> tuple[int, int] | None:
    """Return (width, height) with the longest side at a resolution, or None where the picture is not larger."""
    longest = max(width, height)
    if not 0 < resolution < longest:
        return None
    return max(1, round(width * resolution / longest)), max(1, round(height * resolution / longest))


def line(length: float, angle: float) -> list[tuple[int, int]]:
    """Return the pixels of a line through the origin; none where the line is a single pixel.

    Args:
        length: in pixels, rounded to the nearest odd number.
        angle: in radians.
    """
    half = int(length / 2)
    x, y = half * math.cos(angle), half * math.sin(angle)
    steps = round(max(abs(x), abs(y)))
    return [(round(x * i / steps), round(y * i / steps)) for i in range(-steps, steps + 1)] if steps else []


def resampling(recipe: Recipe, width: int, height: int) -> np.ndarray:
    """Return the forward matrix from the (scaled down) picture to the new one: one resampling does both."""
    matrix = np.eye(3) if recipe.matrix is None else recipe.matrix
    small_width, small_height = recipe.size or (width, height)
    return matrix * np.array([width / small_width, height / small_height, 1.0])
