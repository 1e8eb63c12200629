"""From picture files of any kind to one square of bytes, or one clear reason why not."""

from __future__ import annotations

import math
import warnings
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

from .files import Fault, content_hash, read_bytes

MAX_PIXELS = 50_000_000
MIN_STD = 2.0
SUFFIXES = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
FORMATS = ("PNG", "JPEG", "WEBP")
RULE = "picture"
Pixels = np.ndarray[tuple[int, int, int], np.dtype[np.uint8]]


class Picture(NamedTuple):
    """Hold a picture as a square [size, size, 3], its own (width, height), a hash of its file, and remarks on it."""

    square: Pixels
    size: tuple[int, int]
    hash: str
    remarks: tuple[str, ...] = ()


def find_picture(folder: Path, stem: str) -> tuple[Path, list[Path]]:
    """Return the path of a picture, .png where there is none at all, and further ones that are passed over."""
    found = [path for path in (folder / f"{stem}{suffix}" for suffix in SUFFIXES) if path.is_symlink() or path.exists()]
    return (found[0], found[1:]) if found else (folder / f"{stem}.png", [])


def read_picture(path: Path, root: Path, size: int) -> Picture:
    """Return the picture in a file inside `root`; raise Fault with the reason."""
    return decode_image(read_bytes(path, root), path, size)


def decode_image(content: bytes, path: Path, size: int) -> Picture:
    """Return a picture that is scaled to fit a white square of [size, size, 3] and stands at its top left.

    Palettes, grey, CMYK and 16 bits become RGB, transparency becomes white, a turned camera is turned back, and of an
    animation the first frame is taken.

    Raises:
        Fault: empty, not a PNG, JPEG or WEBP, damaged, too large, or blank.
    """
    if not content:
        raise Fault(path, "an empty picture file (0 bytes)", RULE)
    with warnings.catch_warnings():
        # Pillow warns of odd metadata, and of what is a little too large; the limit here is lower still.
        warnings.simplefilter("ignore")
        picture, remarks = _decoded(content, path)
    deviation = spread(picture)
    if deviation < MIN_STD:
        reason = (
            f"a blank picture: its values have a standard deviation of {deviation:.2g}, at least {MIN_STD:g} is asked"
        )
        raise Fault(path, reason, "blank picture")
    return Picture(letterbox(picture, size), picture.size, content_hash(content), remarks)


def _decoded(content: bytes, path: Path) -> tuple[Image.Image, tuple[str, ...]]:
    try:
        image = Image.open(BytesIO(content), formats=FORMATS)
    except Image.DecompressionBombError:
        raise Fault(path, f"more than {MAX_PIXELS // 10**6} million pixels; scale the picture down", RULE) from None
    # Decoders raise whatever a damaged file leads them to: OSError, ValueError, SyntaxError, struct.error, ...
    except Exception:
        raise Fault(path, f"not a readable {', '.join(FORMATS)} picture", RULE) from None
    with image:
        width, height = image.size
        # Judged by the header, before any pixel is decoded.
        if width * height > MAX_PIXELS:
            limit = f"at most {MAX_PIXELS // 10**6} million are decoded; scale the picture down"
            raise Fault(path, f"{width} x {height} pixels; {limit}", RULE)
        try:
            return _rgb(image), _remarks(image, path)
        except Exception as error:
            reason = f"a truncated or damaged {image.format} picture ({type(error).__name__})"
            raise Fault(path, reason, RULE) from None


def letterbox(picture: Image.Image, size: int) -> Pixels:
    """Return the picture scaled to fit a white square of [size, size, 3], at the top left."""
    scale = size / max(picture.size)
    width, height = (max(1, round(side * scale)) for side in picture.size)
    square = np.full((size, size, 3), 255, dtype=np.uint8)
    if (width, height) != picture.size:
        picture = picture.resize((width, height), Image.Resampling.BOX if scale < 1 else Image.Resampling.BILINEAR)
    square[:height, :width] = np.asarray(picture)
    return square


def spread(picture: Image.Image) -> float:
    """Return the standard deviation of all values of a picture, 0 to 255, from counts: no copy as floats is made."""
    counts = np.array(picture.histogram(), dtype=np.float64).reshape(-1, 256).sum(0)
    values = np.arange(256)
    mean = counts @ values / counts.sum()
    return math.sqrt(counts @ (values - mean) ** 2 / counts.sum())


def _remarks(image: Image.Image, path: Path) -> tuple[str, ...]:
    remarks = []
    # A camera's JPEG with a second picture inside is called MPO.
    kind = "JPEG" if image.format == "MPO" else str(image.format)
    if SUFFIXES.get(path.suffix.lower()) != kind:
        remarks.append(f"the file is a {kind} picture whatever its name says; read as such")
    if getattr(image, "n_frames", 1) > 1:
        remarks.append("an animation: its first frame was taken")
    return tuple(remarks)


def _rgb(image: Image.Image) -> Image.Image:
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        # 16 bits to 8: convert("RGB") would clip instead of scale.
        return Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        layer = image.convert("RGBA")
        page = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(page, layer).convert("RGB")
    return image.convert("RGB")
