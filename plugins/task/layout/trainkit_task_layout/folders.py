"""Sample folders: train/, val/ and test/ with one folder per sample, or the sample folders alone.

A sample folder holds screenshot.png (or .jpg, .webp), structure.json and layout.json, and may hold boxes.json: for each
node of the structure in pre-order its box [centre x, centre y, width, height] as shares of the screenshot.
[reading: 8.1 leaves the file of the boxes open]
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from .files import Attempts, Fault, read_text
from .geometry import Box
from .pictures import find_picture
from .reading import Reading
from .samples import Page, page_sample, seen_picture
from .splits import DIVIDED, PARTS, Parts, divide
from .tree import Invalid, Pairs, layout_of, parse_json, structure_of

SCREENSHOT, STRUCTURE, LAYOUT, BOXES = "screenshot", "structure.json", "layout.json", "boxes.json"
FILES = (f"{SCREENSHOT}.png", STRUCTURE, LAYOUT)
EXAMPLE = "example.json"
T = TypeVar("T")


def read_folders(root: Path, reading: Reading, size: int) -> Parts:
    """Return the samples of a folder of sample folders, by part."""
    read = partial(read_sample, reading=reading, size=size)
    if any((root / part).is_dir() for part in PARTS):
        for part in PARTS:
            if (root / part).is_dir() and not subfolders(root / part):
                reading.remark("empty split", root / part, "the folder is there, and no sample in it")
        return {part: reading.collect(subfolders(root / part), read) for part in PARTS}
    reading.remark("splits", root, f"no train/, val/ and test/ folders: {DIVIDED}")
    return divide(reading.collect(subfolders(root), read))


def subfolders(folder: Path) -> list[Path]:
    """Return the folders in a folder, in the order of their names; hidden ones do not count."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and path.name[0] != ".") if folder.is_dir() else []


def sample_folders(root: Path) -> Iterator[Path]:
    """Yield the folders in which samples may stand: those of the root, and those of its parts."""
    for folder in (root, *(root / part for part in PARTS)):
        yield from subfolders(folder)


def holds_folders(root: Path) -> bool:
    """Return whether there is a sample folder; one with an example.json and no trees of its own is another format."""
    return any(_is_sample(folder) for folder in sample_folders(root))


def read_sample(folder: Path, reading: Reading, size: int) -> dict[str, Any]:
    """Return the sample of a folder; raise BadSample with all reasons why it cannot be used."""
    tries = Attempts()
    picture = tries(seen_picture, folder, SCREENSHOT, reading, size)
    paths = (folder / STRUCTURE, folder / LAYOUT)
    values = [tries(read_json, path, reading.root) for path in paths]
    if is_layout(values[0]) and not is_layout(values[1]):
        values.reverse()
        reading.remark("swapped", folder, "structure.json and layout.json were swapped; read as meant")
    structure = tries(tree_in, structure_of, values[0], paths[0]) if values[0] is not None else None
    found = tries(tree_in, layout_of, values[1], paths[1]) if values[1] is not None else None
    boxes = tries(boxes_beside, folder, reading.root)
    tries.settle()
    assert picture is not None
    assert structure is not None
    assert found is not None
    name = str(folder.relative_to(reading.root))
    page = Page(name, folder, picture, structure, found[0], paths[1], found[1], boxes, folder / BOXES)
    return page_sample(page, reading, size)


def read_json(path: Path, root: Path) -> Any:
    """Return the JSON value in a file; raise Fault with the reason."""
    return tree_in(parse_json, read_text(path, root), path)


def tree_in(parse: Callable[[Any], T], value: Any, path: Path) -> T:
    """Return what a parser makes of a value; raise Fault in place of Invalid."""
    try:
        return parse(value)
    except Invalid as broken:
        raise Fault(path, str(broken), broken.rule) from None


def is_layout(value: Any) -> bool:
    """Return whether a JSON value looks like a layout: its root is a section made of something."""
    while isinstance(value, Pairs) and value and value[0][0] == "structure" and isinstance(value[0][1], Pairs):
        value = value[0][1]
    return isinstance(value, Pairs) and len(value) == 1 and value[0][0].startswith("section@")


def boxes_beside(folder: Path, root: Path) -> list[Box] | None:
    """Return the boxes of a folder's boxes.json, or None where there is none; raise Fault with the reason."""
    path = folder / BOXES
    if not (path.exists() or path.is_symlink()):
        return None
    boxes = read_json(path, root)
    expected = Fault(path, "expected a list of [centre x, centre y, width, height]", "boxes")
    if not isinstance(boxes, list) or isinstance(boxes, Pairs):
        raise expected
    read: list[Box] = []
    for number, box in enumerate(boxes):
        if not isinstance(box, list) or len(box) != 4 or not all(type(side) in (int, float) for side in box):
            raise expected
        if not all(0 <= side <= 1 for side in box):
            raise Fault(path, f"box {number + 1} is not made of shares between 0 and 1: {box}", "boxes")
        read.append((float(box[0]), float(box[1]), float(box[2]), float(box[3])))
    return read


def _is_sample(folder: Path) -> bool:
    if any((folder / name).exists() for name in (STRUCTURE, LAYOUT)):
        return True
    return find_picture(folder, SCREENSHOT)[0].exists() and not (folder / EXAMPLE).exists()
