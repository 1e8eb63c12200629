"""pix2code folders: NAME.png and NAME.gui pairs; the layout is in a small language, and there is no structure.

The pairs lie in the folder itself or in its all_data/; splits/{train,val,test}.txt beside them list names, one a line.
Without lists the pairs are divided by the hash of their layouts, so that equal pages stay together.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any

from trainkit.contracts import Splits
from trainkit.errors import DataError, printable

from .files import Fault, decode_image, read_bytes, read_text
from .splits import PARTS, Reading, content_hash, divide
from .tree import NAMELESS, Node, dump_tree, node

_TOKEN = re.compile(r"[a-z][a-z0-9-]*|[{},]")
_SPACE = re.compile(r"\s+")


def pairs_folder(root: Path) -> Path | None:
    """Return the folder that holds the pairs: `root`, its all_data/, or None."""
    return next((folder for folder in (root, root / "all_data") if any(folder.glob("*.gui"))), None)


def read_pix2code(root: Path, reading: Reading, size: int) -> Splits:
    """Return the splits of a pix2code folder; raise DataError for what cannot be used."""
    folder = pairs_folder(root)
    assert folder is not None
    read = partial(read_pair, folder, reading=reading, size=size)
    lists = root / "splits"
    if lists.is_dir():
        names = {part: read_names(lists / f"{part}.txt", reading) for part in PARTS}
        refuse_shared_names(names, lists)
        parts = {part: reading.collect(names[part], read) for part in PARTS}
    else:
        parts = divide(reading.collect(sorted(path.stem for path in folder.glob("*.gui")), read))
        reading.warnings.append("no splits/ lists: the pairs were divided 80/10/10 by the hash of their layouts")
    return reading.splits(parts, str(root))


def read_names(path: Path, reading: Reading) -> list[str]:
    """Return the names in a list, one a line; a missing list is empty."""
    if not path.exists():
        return []
    try:
        names = read_text(path, reading.root).split()
    except Fault as fault:
        raise DataError("a split list cannot be read", where=str(path), why=fault.reason) from None
    bad = next((name for name in names if Path(name).name != name), None)
    if bad is not None:
        raise DataError(
            f"'{printable(bad)}' is not the name of a pair", where=str(path), do="list names without folders"
        )
    return names


def refuse_shared_names(names: dict[str, list[str]], lists: Path) -> None:
    """Raise DataError if a name is listed twice."""
    seen: dict[str, str] = {}
    for part, listed in names.items():
        for name in listed:
            if name in seen:
                raise DataError(
                    f"'{printable(name)}' is listed in {seen[name]}.txt and in {part}.txt",
                    where=str(lists),
                    do="list every name once",
                )
            seen[name] = part


def read_pair(folder: Path, name: str, reading: Reading, size: int) -> dict[str, Any]:
    """Return the sample of a pair; raise Fault with the first reason why it cannot be used."""
    picture_path, gui_path = folder / f"{name}.png", folder / f"{name}.gui"
    picture = read_bytes(picture_path, reading.root)
    try:
        layout = parse_gui(read_text(gui_path, reading.root))
    except ValueError as error:
        raise Fault(gui_path, str(error)) from None
    image, _ = decode_image(picture, picture_path, size)
    return {
        "id": name,
        "image": image,
        "structure": None,
        "layout": layout,
        "props": {},
        "source": str(picture_path.relative_to(reading.root)),
        "hashes": {"screenshot": content_hash(picture), "layout": content_hash(dump_tree(layout).encode())},
    }


def parse_gui(text: str) -> Node:
    """Return the tree of a .gui text under a nameless root; raise ValueError with the reason.

    gui := item*, item := name [ '{' gui '}' ], items parted by space or comma.
    """
    root = node(NAMELESS)
    open_nodes, last = [root], None
    position = 0
    while position < len(text):
        if space := _SPACE.match(text, position):
            position = space.end()
            continue
        match = _TOKEN.match(text, position)
        if match is None:
            raise ValueError(f"character {position + 1}: '{text[position]}' is not part of the language")
        word, position = match[0], match.end()
        if word == "{":
            if last is None:
                raise ValueError(f"character {position}: '{{' without a name before it")
            open_nodes.append(last)
            last = None
        elif word == "}":
            if len(open_nodes) == 1:
                raise ValueError(f"character {position}: '}}' without '{{'")
            open_nodes.pop()
            last = None
        elif word == ",":
            last = None
        else:
            last = node(word)
            open_nodes[-1]["children"].append(last)
    if len(open_nodes) > 1:
        raise ValueError(f"{len(open_nodes) - 1} '{{' without '}}'")
    if not root["children"]:
        raise ValueError("an empty layout")
    return root
