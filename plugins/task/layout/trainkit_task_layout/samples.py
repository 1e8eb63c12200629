"""One sample from its parts: held against each other, measured, and with its hashes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .alignment import align
from .files import Attempts, Fault, content_hash
from .geometry import Box, fit_to_square, with_layout_boxes
from .pictures import Picture, find_picture, read_picture
from .quality import quality
from .reading import Reading
from .rules import check_layout, check_props, out_of_order
from .tree import Invalid, Node, dump_tree, walk


@dataclass(frozen=True)
class Page:
    """Hold the parts of a sample with a structure, as they were read.

    Args:
        id: name of the sample.
        folder: where it stands.
        picture: the screenshot.
        structure: the tree that the layout is made of.
        layout: the tree to learn.
        layout_path: the file of the layout, for messages.
        props: the page properties.
        boxes: a box on the picture for each node of the structure in pre-order, or None.
        boxes_path: the file of the boxes, for messages.
    """

    id: str
    folder: Path
    picture: Picture
    structure: Node
    layout: Node
    layout_path: Path
    props: dict[str, str] = field(default_factory=dict)
    boxes: Sequence[Box] | None = None
    boxes_path: Path | None = None


def page_sample(page: Page, reading: Reading, size: int) -> dict[str, Any]:
    """Return the sample of a page; raise BadSample with every rule of a layout that it breaks."""
    tries = Attempts()
    structure, layout = page.structure, page.layout
    if page.boxes is not None and page.boxes_path is not None:
        structure = tries(place_boxes, structure, page.boxes, page.picture.size, page.boxes_path) or structure
    tries(_kept, page.layout_path, check_layout, layout)
    tries(_kept, page.layout_path, check_props, page.props, structure)
    sources = tries(_kept, page.layout_path, align, structure, layout)
    tries.settle()
    assert sources is not None
    layout = with_layout_boxes(layout, structure, sources)
    disordered = out_of_order(layout, sources)
    if disordered:
        text = f"the children of '{disordered[0]}' do not stand in reading order"
        more = f" (nor those of {len(disordered) - 1} other nodes)" if len(disordered) > 1 else ""
        reading.remark("order", page.layout_path, text + more)
    hashes = {"structure": content_hash(dump_tree(structure).encode())}
    hashes |= {"boxes": _json_hash(page.boxes)} if page.boxes is not None else {}
    hashes |= {"props": _json_hash(page.props)} if page.props else {}
    return {
        **sample_of(page.id, str(page.folder.relative_to(reading.root)), page.picture, layout, hashes),
        "structure": structure,
        "props": page.props,
        "quality": quality(structure, layout, sources, page.picture.size, size, len(disordered)),
    }


def sample_of(
    name: str, source: str, picture: Picture | None, layout: Node, hashes: dict[str, str] | None = None
) -> dict[str, Any]:
    """Return a sample without a structure; `hashes` are those of further content."""
    of_picture = {"screenshot": picture.hash} if picture is not None else {}
    return {
        "id": name,
        "image": picture.square if picture is not None else None,
        "size": picture.size if picture is not None else None,
        "structure": None,
        "layout": layout,
        "props": {},
        "source": source,
        "quality": 1.0,
        "hashes": {**of_picture, "layout": content_hash(dump_tree(layout).encode()), **(hashes or {})},
    }


def seen_picture(folder: Path, stem: str, reading: Reading, size: int) -> Picture:
    """Return the picture of this stem in a folder, with remarks on what is odd about it; raise Fault."""
    path, others = find_picture(folder, stem)
    picture = read_picture(path, reading.root, size)
    for text in picture.remarks:
        reading.remark("picture", path, text)
    for other in others:
        reading.remark("picture", other, f"not looked at: {path.name} is the screenshot")
    return picture


def place_boxes(structure: Node, boxes: Sequence[Box], picture_size: tuple[int, int], path: Path) -> Node:
    """Return the structure with attribute 'box' on its nodes: shares of the square into which the picture was fitted.

    Raises:
        Fault: there is not one box for each node.
    """
    count = sum(1 for _ in walk(structure))
    if count != len(boxes):
        raise Fault(path, f"{len(boxes)} boxes for {count} nodes of the structure", "boxes")
    left = iter(boxes)

    def placed(current: Node) -> Node:
        attributes = {**current["attributes"], "box": fit_to_square(next(left), picture_size)}
        return {**current, "attributes": attributes, "children": [placed(child) for child in current["children"]]}

    return placed(structure)


def _kept(path: Path, check: Any, *args: Any) -> Any:
    try:
        return check(*args)
    except Invalid as broken:
        raise Fault(path, str(broken), broken.rule) from None


def _json_hash(value: Any) -> str:
    return content_hash(json.dumps(value).encode())
