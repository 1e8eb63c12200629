"""Sizes of the model, by name."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from trainkit.errors import UsageError

from .canvas import PLACES

PresetName = Literal["tiny", "micro", "small", "medium", "large"]


@dataclass(frozen=True)
class Size:
    """Hold the sizes of a model.

    Args:
        width: features of a position.
        heads: attention heads.
        encoder_layers: layers that read.
        decoder_layers: layers that write.
        patch: side of a patch in pixels.
        places: rows of the table of places.
        structure_words: rows of the table of tags and classes; 0 for as many as the data needs.
        layout_words: rows of the table of layout classes; 0 for as many as the data needs.
    """

    width: int
    heads: int
    encoder_layers: int
    decoder_layers: int
    patch: int
    places: int = 128
    structure_words: int = 0
    layout_words: int = 0


# micro to large are those of the algorithm reference 7.1; tiny is ours, for some minutes on a laptop.
PRESETS: dict[str, Size] = {
    "tiny": Size(128, 4, 2, 3, 16),
    "micro": Size(128, 4, 6, 8, 32, 128, 2000, 512),
    "small": Size(256, 8, 5, 6, 16, 256, 4000, 1024),
    "medium": Size(384, 12, 5, 6, 16, 256, 6000, 2048),
    "large": Size(512, 8, 6, 5, 16, 512, 10000, 4096),
}


def size_of(
    preset: PresetName,
    width: int | None,
    heads: int | None,
    encoder_layers: int | None,
    decoder_layers: int | None,
    patch: int | None,
) -> Size:
    """Return a preset with the given sizes in place of its own; raise UsageError where they do not divide."""
    own = {
        "width": width,
        "heads": heads,
        "encoder_layers": encoder_layers,
        "decoder_layers": decoder_layers,
        "patch": patch,
    }
    size = replace(PRESETS[preset], **{name: value for name, value in own.items() if value is not None})
    if size.width % (4 * size.heads):
        raise UsageError(f"task.width = {size.width} is not a multiple of 4 * task.heads = {4 * size.heads}")
    assert size.places % PLACES == 0
    return size


def parameter_count(size: Size) -> int:
    """Return the parameters of the flat form with patches, by the formula of 7.1.

    Embeddings and heads of pointers and boxes come on top of it.
    """
    d, patch = size.width, size.patch
    encoder = size.encoder_layers * (12 * d * d + 13 * d) + 2 * d
    decoder = size.decoder_layers * (16 * d * d + 19 * d)
    inputs = 3 * patch * patch * d + d + (size.structure_words + 32 + 64 + 2) * d
    time = 256 * d + d + d * d + d + 6 * d * d + 6 * d
    heads = size.layout_words * d + size.places * d + 2 * d + size.layout_words + 3 * d + 3 + 2 * d
    return encoder + decoder + inputs + time + heads
