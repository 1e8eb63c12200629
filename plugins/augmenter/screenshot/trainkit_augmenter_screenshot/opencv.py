"""The steps of a recipe by OpenCV: bytes from end to end."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import cv2
import numpy as np

from .recipe import Recipe, resampling

# OpenCV counts from the centre of the first pixel, the matrices from its corner.
_TO_CORNER = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
_TO_CENTRE = np.array([[1, 0, -0.5], [0, 1, -0.5], [0, 0, 1]])
_EDGE = cv2.BORDER_REPLICATE


def render(image: np.ndarray, recipe: Recipe) -> np.ndarray:
    """Return the picture [H, W, 3] of bytes that a recipe makes; the input is only read."""
    with _one_thread():
        return _rendered(image, recipe)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Keep OpenCV to one thread: pictures are small, and workers would fight for the cores."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)


def _rendered(image: np.ndarray, recipe: Recipe) -> np.ndarray:
    height, width = image.shape[:2]
    picture = image
    if recipe.size is not None:
        picture = _scaled_down(picture, recipe.size)
    if recipe.matrix is not None:
        matrix = _TO_CENTRE @ resampling(recipe, width, height) @ _TO_CORNER
        # With four channels the resampling takes half the time of three.
        four = cv2.cvtColor(picture, cv2.COLOR_RGB2RGBA)
        four = cv2.warpPerspective(
            four,
            matrix,
            (width, height),
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=(*recipe.fill, 0),
        )
        picture = cv2.cvtColor(four, cv2.COLOR_RGBA2RGB)
    elif recipe.size is not None:
        picture = cv2.resize(picture, (width, height), interpolation=cv2.INTER_LINEAR)
    if recipe.blur:
        side = 2 * round(3 * recipe.blur) + 1
        picture = cv2.GaussianBlur(picture, (side, side), recipe.blur, borderType=_EDGE)
    if recipe.line:
        picture = cv2.filter2D(picture, -1, _kernel(recipe.line), borderType=_EDGE)
    if recipe.colour is not None:
        picture = cv2.transform(picture, recipe.colour)
    if recipe.noise is not None:
        gain = recipe.noise_gain
        picture = cv2.addWeighted(picture, 1.0, recipe.noise, gain, -128 * gain)
    return np.asarray(picture)


def _scaled_down(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return a smaller picture without aliases: means of whole pixels, or blurred and then interpolated."""
    ratio = max(picture.shape[1] / size[0], picture.shape[0] / size[1])
    if ratio == round(ratio):
        return cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    # Means over fractions of pixels take three times as long as this.
    deviation = 0.5 * math.sqrt(ratio**2 - 1)
    side = 2 * math.ceil(2 * deviation) + 1
    smooth = cv2.GaussianBlur(picture, (side, side), deviation, borderType=_EDGE)
    return cv2.resize(smooth, size, interpolation=cv2.INTER_LINEAR)


def _kernel(line: list[tuple[int, int]]) -> np.ndarray:
    reach = max(max(abs(x), abs(y)) for x, y in line)
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1), dtype=np.float32)
    for x, y in line:
        kernel[y + reach, x + reach] += 1 / len(line)
    return kernel
