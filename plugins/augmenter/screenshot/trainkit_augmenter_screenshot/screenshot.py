"""The augmenter 'screenshot': the same page under another camera, light and screen."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, PositiveInt
from trainkit.contracts import Sample
from trainkit.errors import DataError, UsageError

from .colour import page_colour
from .draws import PROBABILITIES, RESOLUTIONS, Chance, Changes, Interval, Phase, Range, draw, fault_of, ranges_of
from .geometry import matrix_of
from .noise import STEPS, Noise
from .recipe import Recipe, recipe
from .trees import has_boxes, moved_and_pruned, moved_in_place

Probability = Annotated[float, Field(ge=0, le=1)]
WHITE = (255, 255, 255)


class ScreenshotAugmenter:
    """Change the screenshot of a sample, and move the boxes of its elements along.

    Transforms, ranges and probabilities are those of table 5.1, boxes follow by the rules of 5.2. All geometry is one
    homography and one resampling, all colour one matrix; the order is resolution, geometry, blur, colour, noise. A
    picture is never mirrored, as left and right are part of the layout. A sample without a picture passes unchanged.
    Geometry that would move every box out of the picture is left out.

    Args:
        phase: whose ranges of 5.1 are taken; 1 (few samples) varies most, 4 least.
        ranges: [lowest, highest] by name, in place of the phase's: rotation (degrees), scale, shift (share of a side),
            brightness, contrast, saturation, hue (share of a turn), noise (share of the full range), blur (pixels),
            motion (pixels), corners (share of a side).
        probabilities: in place of the table's, by name: the groups spatial, colour, resolution, degradation and
            perspective, and within them hue, noise, blur, motion and corners.
        resolutions: longest sides in pixels from which a picture is scaled up again, in place of the phase's; those
            not below the picture's own change nothing.
        fill: colour of what comes in from outside: the median of the picture's border, or white.
        box_rotation: largest rotation in degrees of a sample with boxes: hulls grow as they turn.
        exact_noise: draw noise anew for each variant instead of cutting it from a pool.
        backend: what moves the pixels; 'auto' is OpenCV where it is installed, and otherwise PyTorch.
    """

    reads = frozenset({"image"})

    def __init__(
        self,
        phase: Phase = 1,
        ranges: Mapping[Range, Interval] | None = None,
        probabilities: Mapping[Chance, Probability] | None = None,
        resolutions: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] | None = None,
        fill: Literal["border", "white"] = "border",
        box_rotation: Annotated[float, Field(ge=0, le=180)] = 5.0,
        exact_noise: bool = False,
        backend: Literal["auto", "opencv", "torch"] = "auto",
    ) -> None:
        self.ranges = {**ranges_of(phase), **(ranges or {})}
        if fault := fault_of(self.ranges):
            raise UsageError(f"augmenter screenshot: ranges.{fault}")
        self.probabilities = {**PROBABILITIES, **(probabilities or {})}
        self.resolutions = resolutions or RESOLUTIONS[phase]
        self.fill, self.box_rotation = fill, box_rotation
        self.noise = Noise(exact_noise)
        self.render = _renderer(backend)

    def __call__(self, sample: Sample, generator: np.random.Generator) -> Sample:
        """Return a changed copy of the sample; equal generators give equal copies."""
        return self.changes(sample, generator)[0]

    def changes(self, sample: Sample, generator: np.random.Generator) -> tuple[Sample, frozenset[str]]:
        """Return what a call returns, and which groups of changes were made: for augmenters that combine others."""
        image = sample["image"]
        if image is None:
            return sample, frozenset()
        _check(image, sample)
        boxed = [name for name in ("structure", "layout") if has_boxes(sample.get(name))]
        ranges = self.ranges
        if boxed:
            low, high = (min(max(end, -self.box_rotation), self.box_rotation) for end in ranges["rotation"])
            ranges = {**ranges, "rotation": (low, high)}
        changes = draw(ranges, self.probabilities, self.resolutions, generator)
        height, width = image.shape[:2]
        matrix = matrix_of(changes, width, height) if changes.moves else None
        trees = _moved(sample, boxed, matrix, width, height)
        if trees is None:
            matrix, trees = None, {}
        steps = self._recipe(image, changes, matrix, generator)
        if steps.is_empty:
            return sample, frozenset()
        return {**sample, **trees, "image": self.render(image, steps)}, _groups(steps)

    def _recipe(
        self, image: np.ndarray, changes: Changes, matrix: np.ndarray | None, generator: np.random.Generator
    ) -> Recipe:
        fill = page_colour(image) if matrix is not None and self.fill == "border" else WHITE
        noise = self.noise(image.size, generator).reshape(image.shape) if changes.noise else None
        return recipe(image, changes, matrix, fill, noise, 255 * changes.noise / STEPS)


def _moved(
    sample: Sample, boxed: list[str], matrix: np.ndarray | None, width: int, height: int
) -> dict[str, Any] | None:
    """Return the trees whose boxes move, or None where a tree would keep none of them."""
    if matrix is None:
        return {}
    # A layout that names nodes of a structure keeps what the structure keeps.
    move = {"structure": moved_in_place, "layout": moved_in_place if sample.get("structure") else moved_and_pruned}
    trees = {name: move[name](sample[name], matrix, width, height) for name in boxed}
    return None if any(tree is None for tree in trees.values()) else trees


def _groups(steps: Recipe) -> frozenset[str]:
    made = {
        "spatial": steps.matrix is not None,
        "resolution": steps.size is not None,
        "colour": steps.colour is not None,
        "degradation": bool(steps.blur or steps.line or steps.noise is not None),
    }
    return frozenset(name for name, is_made in made.items() if is_made)


def _check(image: np.ndarray, sample: Sample) -> None:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise DataError(
            f"{sample.get('id', 'a sample')}: the picture is {image.dtype} {list(image.shape)}",
            why="the augmenter 'screenshot' changes pictures of bytes [height, width, 3]",
        )


def _renderer(backend: str) -> Callable[[np.ndarray, Recipe], np.ndarray]:
    if backend != "torch":
        try:
            from .opencv import render
        except ImportError as error:
            if backend == "opencv":
                raise UsageError(
                    "augmenter screenshot: backend = 'opencv', but OpenCV cannot be loaded",
                    why=str(error),
                    do="pip install 'trainkit-augmenter-screenshot[fast]', or take backend 'torch'",
                ) from None
        else:
            return render
    from .torch_only import render as render_by_torch

    return render_by_torch
