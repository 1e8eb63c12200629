"""Which format a data folder has, and its reader. Two formats at once are refused: nothing is guessed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

from trainkit.contracts import Splits
from trainkit.errors import DataError

from .boxsets import box_lists, read_boxsets
from .envelope import holds_envelopes, read_envelopes
from .folders import holds_folders, read_folders
from .pix2code import pairs_folder, read_pix2code
from .reading import Reading
from .splits import BadSamples, Parts, no_samples

Format = Literal["auto", "folders", "envelope", "pix2code", "boxes"]


class Reader(NamedTuple):
    """Hold a format: what it looks like, in words; whether a folder has it; how it is read."""

    looks: str
    fits: Callable[[Path], bool]
    read: Callable[[Path, Reading, int], Parts]


READERS: dict[str, Reader] = {
    "folders": Reader("sample folders with structure.json and layout.json", holds_folders, read_folders),
    "envelope": Reader("example.json files with dataset_config.yaml", holds_envelopes, read_envelopes),
    "pix2code": Reader("pairs NAME.png and NAME.gui", lambda root: pairs_folder(root) is not None, read_pix2code),
    "boxes": Reader("JSON lists of elements with boxes", lambda root: bool(box_lists(root)), read_boxsets),
}


def read_data(
    data: Path, size: int, on_bad_sample: BadSamples, max_bad_fraction: float, format: Format = "auto"
) -> Splits:
    """Return the splits of a data folder; raise DataError with the place and what to do.

    Args:
        data: the folder.
        size: side of the square, in pixels, into which pictures are fitted.
        on_bad_sample: stop at samples that cannot be used, or skip them.
        max_bad_fraction: share of bad samples up to which 'skip' goes on.
        format: the format of the data; 'auto' takes the only one that fits.
    """
    reading = Reading(data_folder(data), on_bad_sample, max_bad_fraction)
    _, parts = read_parts(reading, size, format)
    return reading.splits(parts)


def read_parts(reading: Reading, size: int, format: Format) -> tuple[str, Parts]:
    """Return the format of a folder and its samples by part; faults and remarks are left in `reading`."""
    try:
        name = detect(reading.root) if format == "auto" else checked(reading.root, format)
        return name, READERS[name].read(reading.root, reading, size)
    except PermissionError as error:
        place = str(error.filename or reading.root)
        do = f"make it readable: chmod -R u+rX {place}"
        raise DataError("a folder cannot be read", where=place, why="permission denied", do=do) from None


def data_folder(data: Path) -> Path:
    """Return the folder with all links resolved; raise DataError if it is none."""
    if not data.exists():
        raise DataError("the data folder does not exist", where=str(data), do="name another one with --data FOLDER")
    if not data.is_dir():
        raise DataError("the data is not a folder", where=str(data), do="name the folder that holds the samples")
    return data.resolve()


def detect(root: Path) -> str:
    """Return the only format that a folder has; raise DataError if it has none or several."""
    found = fitting(root)
    if not found:
        raise no_samples(root)
    if len(found) > 1:
        raise DataError(
            f"the data has {len(found)} formats at once: {' and '.join(found)}",
            where=str(root),
            why="\n".join(f"{name}: {READERS[name].looks}" for name in found),
            do=f"choose one by --set task.format={found[0]}, or move the other one to a folder of its own",
        )
    return found[0]


def checked(root: Path, format: Format) -> str:
    """Return the wanted format; raise DataError if the folder does not have it."""
    if not READERS[format].fits(root):
        found = fitting(root)
        raise DataError(
            f"the data does not have the format '{format}': {READERS[format].looks}",
            where=str(root),
            why=f"found: {', '.join(found) or 'none of ' + ', '.join(READERS)}",
            do=f"leave it out, or write --set task.format={found[0]}" if found else "name another folder with --data",
        )
    return format


def fitting(root: Path) -> list[str]:
    """Return the names of all formats that a folder has."""
    return [name for name, reader in READERS.items() if reader.fits(root)]
