"""Which format a data folder has, and its reader."""

from __future__ import annotations

from pathlib import Path

from trainkit.contracts import Splits
from trainkit.errors import DataError

from .folders import holds_samples, read_folders
from .pix2code import pairs_folder, read_pix2code
from .splits import PARTS, BadSamples, Reading, no_samples


def read_data(data: Path, size: int, on_bad_sample: BadSamples, max_bad_fraction: float) -> Splits:
    """Return the splits of a data folder of either format; raise DataError with the place and what to do."""
    if not data.exists():
        raise DataError("the data folder does not exist", where=str(data), do="name another one with --data FOLDER")
    if not data.is_dir():
        raise DataError("the data is not a folder", where=str(data), do="name the folder that holds the samples")
    root = data.resolve()
    reading = Reading(root, on_bad_sample, max_bad_fraction)
    try:
        if any(holds_samples(folder) for folder in (root, *(root / part for part in PARTS))):
            return read_folders(root, reading, size)
        if pairs_folder(root) is not None:
            return read_pix2code(root, reading, size)
    except PermissionError as error:
        place = str(error.filename or root)
        do = f"make it readable: chmod -R u+rX {place}"
        raise DataError("a folder cannot be read", where=place, why="permission denied", do=do) from None
    raise no_samples(root)
