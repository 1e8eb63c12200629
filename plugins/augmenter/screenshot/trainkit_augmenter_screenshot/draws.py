"""What is drawn for one variant: ranges and probabilities of table 5.1, and the numbers that come out of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

Interval = tuple[float, float]
Range = Literal[
    "rotation", "scale", "shift", "brightness", "contrast", "saturation", "hue", "noise", "blur", "motion", "corners"
]
Chance = Literal[
    "spatial", "colour", "hue", "resolution", "degradation", "noise", "blur", "motion", "perspective", "corners"
]
Phase = Literal[1, 2, 3, 4]

COMMON: Mapping[Range, Interval] = {
    "hue": (-0.05, 0.05),
    "noise": (0.01, 0.03),
    "blur": (0.5, 1.5),
    "motion": (3, 9),
    "corners": (0.05, 0.15),
}
# Largest rotation in degrees, then largest change of scale, shift, brightness, contrast and saturation.
BY_PHASE: Mapping[Phase, tuple[float, ...]] = {
    1: (15, 0.2, 0.10, 0.3, 0.2, 0.10),
    2: (10, 0.1, 0.05, 0.2, 0.1, 0.05),
    3: (5, 0.05, 0.02, 0.1, 0.05, 0.02),
    4: (2, 0.02, 0.01, 0.05, 0.02, 0.01),
}
RESOLUTIONS: Mapping[Phase, tuple[int, ...]] = {
    1: (256, 384, 512, 768, 1024),
    2: (384, 512, 768),
    3: (512, 768),
    4: (512,),
}
PROBABILITIES: Mapping[Chance, float] = {
    "spatial": 0.8,
    "colour": 0.9,
    "hue": 0.5,
    "resolution": 0.7,
    "degradation": 0.4,
    "noise": 0.3,
    "blur": 0.2,
    "motion": 0.2,
    "perspective": 0.5,
    "corners": 0.3,
}
# What a range may hold at most: beyond, a picture would be mirrored, black, empty or turned inside out.
BOUNDS: Mapping[Range, Interval] = {
    "rotation": (-180, 180),
    "scale": (0.1, 10),
    "shift": (-1, 1),
    "brightness": (0.05, 10),
    "contrast": (0.05, 10),
    "saturation": (0, 10),
    "hue": (-0.5, 0.5),
    "noise": (0, 0.5),
    "blur": (0, 20),
    "motion": (1, 99),
    "corners": (0, 0.4),
}
_NUMBERS = 31


@dataclass(frozen=True, slots=True)
class Changes:
    """Hold what happens to one variant; the defaults change nothing.

    Args:
        rotation: degrees, counter-clockwise.
        scale: factor.
        shift: (x, y) as shares of width and height.
        corners: (x, y) shifts inwards of the corners top left, top right, bottom right, bottom left, as shares.
        brightness: factor.
        contrast: factor.
        saturation: factor.
        hue: share of a full turn.
        resolution: longest side in pixels from which the picture is scaled up again; 0: as it is.
        blur: standard deviation of the Gaussian blur in pixels.
        motion: (length in pixels, angle in radians) of the line along which the picture is smeared.
        noise: standard deviation of the noise, as a share of the full range.
    """

    rotation: float = 0.0
    scale: float = 1.0
    shift: tuple[float, float] = (0.0, 0.0)
    corners: tuple[float, ...] = ()
    brightness: float = 1.0
    contrast: float = 1.0
    saturation: float = 1.0
    hue: float = 0.0
    resolution: int = 0
    blur: float = 0.0
    motion: tuple[float, float] = (1.0, 0.0)
    noise: float = 0.0

    @property
    def moves(self) -> bool:
        """Return whether anything changes its place."""
        return bool(self.rotation or self.scale != 1 or any(self.shift) or any(self.corners))


def ranges_of(phase: Phase) -> dict[Range, Interval]:
    """Return the ranges of a phase [5.1]."""
    degrees, *changes = BY_PHASE[phase]
    scale, shift, brightness, contrast, saturation = changes
    return {
        "rotation": (-degrees, degrees),
        "scale": (1 - scale, 1 + scale),
        "shift": (-shift, shift),
        "brightness": (1 - brightness, 1 + brightness),
        "contrast": (1 - contrast, 1 + contrast),
        "saturation": (1 - saturation, 1 + saturation),
        **COMMON,
    }


def fault_of(ranges: Mapping[Range, Interval]) -> str:
    """Return what is wrong with ranges, or ''."""
    for name, (low, high) in ranges.items():
        least, most = BOUNDS[name]
        if not least <= low <= high <= most:
            return f"{name} = [{low:g}, {high:g}]: expected [lowest, highest] between {least:g} and {most:g}"
    return ""


def draw(
    ranges: Mapping[Range, Interval],
    probabilities: Mapping[Chance, float],
    resolutions: Sequence[int],
    generator: np.random.Generator,
) -> Changes:
    """Return what happens to a variant: groups are drawn first, then the changes within them, each on its own.

    Always takes the same count of numbers from the generator, so that one option does not change what others draw.
    [reading: the table does not say whether the changes of a group exclude each other]
    """
    numbers = iter(generator.random(_NUMBERS).tolist())
    happens = {name: next(numbers) < probabilities[name] for name in get_args(Chance)}

    def within(name: Range) -> float:
        low, high = ranges[name]
        return low + (high - low) * next(numbers)

    rotation, scale, shift = within("rotation"), within("scale"), (within("shift"), within("shift"))
    brightness, contrast, saturation, hue = (
        within("brightness"), within("contrast"), within("saturation"), within("hue")
    )  # fmt: skip
    resolution = resolutions[int(next(numbers) * len(resolutions))]
    noise, blur, motion = within("noise"), within("blur"), (within("motion"), np.pi * next(numbers))
    corners = tuple(within("corners") for _ in range(8))
    spatial, colour, degraded = happens["spatial"], happens["colour"], happens["degradation"]
    return Changes(
        rotation if spatial else 0.0,
        scale if spatial else 1.0,
        shift if spatial else (0.0, 0.0),
        corners if happens["perspective"] and happens["corners"] else (),
        brightness if colour else 1.0,
        contrast if colour else 1.0,
        saturation if colour else 1.0,
        hue if colour and happens["hue"] else 0.0,
        resolution if happens["resolution"] else 0,
        blur if degraded and happens["blur"] else 0.0,
        motion if degraded and happens["motion"] else (1.0, 0.0),
        noise if degraded and happens["noise"] else 0.0,
    )
