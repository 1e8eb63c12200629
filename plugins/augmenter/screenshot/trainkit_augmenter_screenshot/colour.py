"""Colour: brightness, contrast, saturation and hue as one matrix."""

from __future__ import annotations

import math

import numpy as np

from .draws import Changes

LUMA = np.array([0.299, 0.587, 0.114])
# Red, green and blue to luma and two axes of chroma (YIQ, Rec. 601).
_YIQ = np.array([LUMA, [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
_GREY = np.outer(np.ones(3), LUMA)
# From red towards yellow and green, as the hue of HSV grows.
_QUARTER_TURN = np.linalg.inv(_YIQ) @ np.array([[0.0, 0, 0], [0, 0, 1], [0, -1, 0]]) @ _YIQ


def colour_matrix(changes: Changes, mean_luma: float) -> np.ndarray | None:
    """Return the [3, 4] matrix from old to new red, green and blue (0 to 255), or None where nothing changes.

    Brightness multiplies, contrast moves away from the mean luma of the (brightened) picture, saturation away from the
    luma of each pixel, hue turns the chroma at constant luma. Nothing is clipped before the last of them. [reading: the
    hue is turned in YIQ, where this is linear, not in HSV]
    """
    brightness, contrast, saturation, hue = changes.brightness, changes.contrast, changes.saturation, changes.hue
    if (brightness, contrast, saturation, hue) == (1, 1, 1, 0):
        return None
    angle = 2 * math.pi * hue
    chroma = math.cos(angle) * (np.eye(3) - _GREY) + math.sin(angle) * _QUARTER_TURN
    matrix = brightness * contrast * (_GREY + saturation * chroma)
    offset = (1 - contrast) * brightness * mean_luma
    return np.concatenate([matrix, np.full((3, 1), offset)], axis=1)


def mean_luma(image: np.ndarray) -> float:
    """Return the mean luma, from 0 to 255, of every fourth row of a picture [H, W, 3] of bytes."""
    rows = image[::4]
    columns = rows.reshape(len(rows), -1).sum(0, dtype=np.uint32)
    return float(columns.reshape(-1, 3).sum(0) @ LUMA) / (len(rows) * image.shape[1])


def page_colour(image: np.ndarray) -> tuple[int, int, int]:
    """Return the median colour of the outermost pixels of a picture, channel by channel."""
    border = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
    middle = len(border) // 2
    red, green, blue = np.partition(border, middle, axis=0)[middle].tolist()
    return red, green, blue
