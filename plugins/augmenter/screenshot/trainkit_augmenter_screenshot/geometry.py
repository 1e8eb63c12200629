"""Places: one matrix for all geometry, and what it does to boxes.

Coordinates are continuous, x to the right and y down: a picture covers [0, width] x [0, height], and the centre of its
first pixel is (0.5, 0.5). Matrices lead forward, from the old place to the new one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from .draws import Changes

Array = np.ndarray
MIN_VISIBLE = 0.3
MIN_SIDE = 2.0


def matrix_of(changes: Changes, width: int, height: int) -> Array:
    """Return the 3x3 matrix of rotation, scale, shift and perspective, in pixels [5.2].

    T(centre + shift) R(rotation) S(scale) T(-centre), then the homography that moves the four corners inwards.
    [reading: inwards, so that no part of a page is lost to the perspective]
    """
    angle, (x, y) = math.radians(changes.rotation), (width / 2, height / 2)
    cos, sin = changes.scale * math.cos(angle), changes.scale * math.sin(angle)
    to_x, to_y = x + changes.shift[0] * width, y + changes.shift[1] * height
    # Counter-clockwise on a screen whose y axis points down.
    matrix = np.array([[cos, sin, to_x - cos * x - sin * y], [-sin, cos, to_y + sin * x - cos * y], [0.0, 0.0, 1.0]])
    return perspective(changes.corners, width, height) @ matrix if any(changes.corners) else matrix


def perspective(corners: Sequence[float], width: int, height: int) -> Array:
    """Return the homography that moves the corners of a picture inwards by these shares of its sides.

    Args:
        corners: (x, y) of the corners top left, top right, bottom right, bottom left.
        width: in pixels.
        height: in pixels.
    """
    ax, ay, bx, by, cx, cy, dx, dy = corners
    x0, y0, x1, y1, x2, y2, x3, y3 = ax, ay, 1 - bx, by, 1 - cx, 1 - cy, dx, 1 - dy
    # The projective map of the unit square onto a quadrilateral, in closed form [Heckbert 1989].
    sx, sy = x0 - x1 + x2 - x3, y0 - y1 + y2 - y3
    ux, uy, vx, vy = x1 - x2, y1 - y2, x3 - x2, y3 - y2
    area = ux * vy - vx * uy
    g, h = (sx * vy - vx * sy) / area, (ux * sy - sx * uy) / area
    unit = np.array([[x1 - x0 + g * x1, x3 - x0 + h * x3, x0], [y1 - y0 + g * y1, y3 - y0 + h * y3, y0], [g, h, 1.0]])
    sides = np.array([width, height, 1.0])
    return sides[:, None] * unit / sides


def moved_boxes(boxes: Array, matrix: Array, width: int, height: int) -> tuple[Array, Array]:
    """Return boxes after the transform, and which of them can still be seen [5.2].

    Each is the axis-aligned hull of its four corners, clipped to the picture. It counts as lost if less than 0.3 of the
    hull is left, or a side is shorter than 2 pixels.

    Args:
        boxes: [N, 4] centre x, centre y, width and height, as shares of the picture.
        matrix: the forward matrix, in pixels.
        width: of the picture in pixels.
        height: of the picture in pixels.

    Returns:
        the boxes [N, 4] in the same form, and [N] whether each is kept.
    """
    sides = np.array([width, height], dtype=np.float64)
    centres, halves = boxes[:, None, :2] * sides, boxes[:, None, 2:] * sides / 2
    corners = centres + halves * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
    moved = corners @ matrix[:2, :2].T + matrix[:2, 2]
    depth = corners @ matrix[2, :2] + matrix[2, 2]
    moved /= depth[..., None]
    low, high = moved.min(1), moved.max(1)
    inside_low, inside_high = np.clip(low, 0, sides), np.clip(high, 0, sides)
    whole, seen = np.prod(high - low, axis=1), np.prod(inside_high - inside_low, axis=1)
    kept = (seen >= MIN_VISIBLE * whole) & ((inside_high - inside_low) >= MIN_SIDE).all(1) & (depth > 0).all(1)
    return np.concatenate([(inside_low + inside_high) / 2, inside_high - inside_low], axis=1) / np.tile(sides, 2), kept
