"""Sample folders: train/, val/ and test/ with one folder per sample, or the sample folders alone.

A sample folder holds screenshot.png, structure.json and layout.json, and may hold boxes.json: for each node of the
structure in pre-order its box [centre x, centre y, width, height] as shares of the screenshot.
[reading: 8.1 leaves the file of the boxes open]
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from trainkit.contracts import Splits

from .alignment import align
from .files import Fault, decode_image, read_bytes, read_text
from .splits import PARTS, Reading, content_hash, divide
from .tree import Node, dump_tree, parse_layout, parse_structure, walk

FILES = ("screenshot.png", "structure.json", "layout.json")
BOXES = "boxes.json"
Box = tuple[float, float, float, float]


def read_folders(root: Path, reading: Reading, size: int) -> Splits:
    """Return the splits of a folder of sample folders; raise DataError for what cannot be used."""
    read = partial(read_sample, reading=reading, size=size)
    if any((root / part).is_dir() for part in PARTS):
        parts = {part: reading.collect(subfolders(root / part), read) for part in PARTS}
    else:
        parts = divide(reading.collect(subfolders(root), read))
        reading.warnings.append("no train/, val/ and test/ folders: the samples were divided 80/10/10 by their hash")
    return reading.splits(parts, str(root))


def subfolders(folder: Path) -> list[Path]:
    """Return the folders in a folder, in the order of their names; hidden ones do not count."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and path.name[0] != ".") if folder.is_dir() else []


def holds_samples(folder: Path) -> bool:
    """Return whether a folder in this folder holds one of the files of a sample."""
    return any((sub / name).exists() for sub in subfolders(folder) for name in FILES)


def read_sample(folder: Path, reading: Reading, size: int) -> dict[str, Any]:
    """Return the sample of a folder; raise Fault with the first reason why it cannot be used."""
    root = reading.root
    picture_path, structure_path, layout_path = (folder / name for name in FILES)
    picture = read_bytes(picture_path, root)
    texts = [read_text(structure_path, root), read_text(layout_path, root)]
    if _is_layout(texts[0]) and not _is_layout(texts[1]):
        texts.reverse()
        reading.warnings.append(
            f"{folder.relative_to(root)}: structure.json and layout.json were swapped; read as meant"
        )
    try:
        structure = parse_structure(texts[0])
    except ValueError as error:
        raise Fault(structure_path, str(error)) from None
    try:
        layout, props = parse_layout(texts[1])
        align(structure, layout)
    except ValueError as error:
        raise Fault(layout_path, str(error)) from None
    image, picture_size = decode_image(picture, picture_path, size)
    if (folder / BOXES).exists():
        place_boxes(structure, read_boxes(folder / BOXES, root), picture_size, folder / BOXES)
    return {
        "id": str(folder.relative_to(root)),
        "image": image,
        "structure": structure,
        "layout": layout,
        "props": props,
        "source": str(folder.relative_to(root)),
        "hashes": {
            "screenshot": content_hash(picture),
            "structure": content_hash(dump_tree(structure).encode()),
            "layout": content_hash(dump_tree(layout).encode()),
        },
    }


def read_boxes(path: Path, root: Path) -> list[Box]:
    """Return the boxes of a boxes.json; raise Fault with the reason."""
    try:
        boxes = json.loads(read_text(path, root))
        read = [(float(x), float(y), float(width), float(height)) for x, y, width, height in boxes]
    except (ValueError, TypeError, RecursionError):
        raise Fault(path, "expected a list of [centre x, centre y, width, height]") from None
    if not all(0 <= value <= 1 for box in read for value in box):
        raise Fault(path, "a box is not made of shares between 0 and 1")
    return read


def place_boxes(structure: Node, boxes: Sequence[Box], picture_size: tuple[int, int], path: Path) -> None:
    """Put the boxes on the nodes as attribute 'box', as shares of the square into which the picture was fitted."""
    nodes = list(walk(structure))
    if len(nodes) != len(boxes):
        raise Fault(path, f"{len(boxes)} boxes for {len(nodes)} nodes of the structure")
    wide, high = (side / max(picture_size) for side in picture_size)
    for current, (x, y, width, height) in zip(nodes, boxes, strict=True):
        current["attributes"]["box"] = [x * wide, y * high, width * wide, height * high]


def _is_layout(text: str) -> bool:
    """Return whether a text looks like a layout: its root is a section made of something."""
    try:
        return parse_layout(text)[0]["key"].startswith("section@")
    except ValueError:
        return False
