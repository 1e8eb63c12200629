"""Read files of a data folder without trusting them: regular files only, none outside the folder, none too large."""

from __future__ import annotations

import stat
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

MAX_BYTES = 64 * 2**20
MAX_PIXELS = 50_000_000
MIN_STD = 2.0
FORMATS = ("PNG", "JPEG", "WEBP")
Pixels = np.ndarray[tuple[int, int, int], np.dtype[np.uint8]]


class Fault(Exception):
    """Say why a file, and so its sample, cannot be used."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(reason)
        self.path, self.reason = path, reason


def read_bytes(path: Path, root: Path) -> bytes:
    """Return the content of a regular file inside `root`; raise Fault with the reason."""
    try:
        target = path.resolve(strict=True)
        status = target.stat()
        if not target.is_relative_to(root):
            raise Fault(path, "a link that leads out of the data folder")
        if not stat.S_ISREG(status.st_mode):
            raise Fault(path, "not a regular file")
        if status.st_size > MAX_BYTES:
            raise Fault(path, f"{status.st_size / 2**20:.0f} MiB; at most {MAX_BYTES // 2**20} MiB are read")
        return target.read_bytes()
    except FileNotFoundError:
        raise Fault(path, "missing") from None
    # Path.resolve tells of a loop of links by RuntimeError before Python 3.13.
    except (OSError, RuntimeError) as error:
        raise Fault(path, getattr(error, "strerror", None) or "a loop of links") from None


def read_text(path: Path, root: Path) -> str:
    """Return the content of a UTF-8 file inside `root`; raise Fault with the reason."""
    try:
        return read_bytes(path, root).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Fault(path, f"not UTF-8 (byte {error.start})") from None


def decode_image(content: bytes, path: Path, size: int) -> tuple[Pixels, tuple[int, int]]:
    """Return a picture of [size, size, 3] and the picture's own (width, height).

    The aspect ratio is kept: the picture is scaled to fit, stands at the top left, and white fills the rest.

    Raises:
        Fault: not a PNG, JPEG or WEBP, damaged, too large, or blank.
    """
    try:
        # Decompression bombs are refused by the header, before any pixel is decoded.
        with Image.open(BytesIO(content), formats=FORMATS) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise Fault(path, f"{width} x {height} pixels; at most {MAX_PIXELS // 10**6} million are decoded")
            picture = _rgb(image)
    except Fault:
        raise
    except Image.DecompressionBombError:
        raise Fault(path, f"more than {MAX_PIXELS // 10**6} million pixels") from None
    # Decoders raise whatever a damaged file leads them to: OSError, ValueError, SyntaxError, struct.error, ...
    except Exception as error:
        raise Fault(path, f"not a readable {', '.join(FORMATS)} picture ({type(error).__name__})") from None
    square = letterbox(picture, size)
    if float(np.asarray(picture, dtype=np.float32).std()) < MIN_STD:
        raise Fault(path, "a blank picture")
    return square, picture.size


def letterbox(picture: Image.Image, size: int) -> Pixels:
    """Return the picture scaled to fit a white square of [size, size, 3], at the top left."""
    scale = size / max(picture.size)
    width, height = (max(1, round(side * scale)) for side in picture.size)
    square = np.full((size, size, 3), 255, dtype=np.uint8)
    if (width, height) != picture.size:
        picture = picture.resize((width, height), Image.Resampling.BOX if scale < 1 else Image.Resampling.BILINEAR)
    square[:height, :width] = np.asarray(picture)
    return square


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
