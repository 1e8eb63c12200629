"""pix2code folders: NAME.png and NAME.gui pairs; the layout is in a small language, and there is no structure.

The pairs lie in the folder itself or in its all_data/; splits/{train,val,test}.txt beside them list names, one a line.
Without lists the pairs are divided by the hash of their layouts, so that equal pages stay together.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any

from trainkit.errors import DataError, printable

from .files import Attempts, Fault, read_text
from .quality import quality
from .reading import Reading
from .samples import sample_of, seen_picture
from .splits import DIVIDED, PARTS, Parts, divide
from .tree import NAMELESS, Invalid, Node, node

_TOKEN = re.compile(r"[a-z][a-z0-9-]*|[{},]")
_SPACE = re.compile(r"\s+")


def pairs_folder(root: Path) -> Path | None:
    """Return the folder that holds the pairs: `root`, its all_data/, or None."""
    return next((folder for folder in (root, root / "all_data") if any(folder.glob("*.gui"))), None)


def read_pix2code(root: Path, reading: Reading, size: int) -> Parts:
    """Return the samples of a pix2code folder, by part; raise DataError for lists that cannot be meant."""
    folder = pairs_folder(root)
    if folder is None:
        return {part: [] for part in PARTS}
    read = partial(read_pair, folder, reading=reading, size=size)
    lists = root / "splits"
    present = sorted(path.stem for path in folder.glob("*.gui"))
    if not lists.is_dir():
        reading.remark("splits", root, f"no splits/ lists: {DIVIDED}")
        return divide(reading.collect(present, read))
    names = {part: read_names(lists / f"{part}.txt", reading) for part in PARTS}
    refuse_shared_names(names, lists)
    for part, listed in names.items():
        if not listed and (lists / f"{part}.txt").exists():
            reading.remark("empty split", lists / f"{part}.txt", "the list is there, and no name in it")
    unlisted = sorted(set(present) - {name for listed in names.values() for name in listed})
    for name in unlisted:
        reading.remark("not listed", folder / f"{name}.gui", "no list in splits/ names it: left out")
    return {part: reading.collect(listed, read) for part, listed in names.items()}


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
    """Return the sample of a pair; raise BadSample with all reasons why it cannot be used."""
    tries = Attempts()
    picture = tries(seen_picture, folder, name, reading, size)
    layout = tries(read_gui, folder / f"{name}.gui", reading.root)
    tries.settle()
    assert picture is not None
    assert layout is not None
    sample = sample_of(name, str((folder / f"{name}.gui").relative_to(reading.root)), picture, layout)
    return {**sample, "quality": quality(None, layout, (), picture.size, size)}


def read_gui(path: Path, root: Path) -> Node:
    """Return the layout in a .gui file; raise Fault with the reason."""
    try:
        return parse_gui(read_text(path, root))
    except Invalid as broken:
        raise Fault(path, str(broken), broken.rule) from None


def parse_gui(text: str) -> Node:
    """Return the tree of a .gui text under a nameless root; raise Invalid with the reason.

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
            raise Invalid("DSL", f"character {position + 1}: '{text[position]}' is not part of the language")
        word, position = match[0], match.end()
        if word == "{":
            if last is None:
                raise Invalid("DSL", f"character {position}: '{{' without a name before it")
            open_nodes.append(last)
            last = None
        elif word == "}":
            if len(open_nodes) == 1:
                raise Invalid("DSL", f"character {position}: '}}' without '{{'")
            open_nodes.pop()
            last = None
        elif word == ",":
            last = None
        else:
            last = node(word)
            open_nodes[-1]["children"].append(last)
    if len(open_nodes) > 1:
        raise Invalid("DSL", f"{len(open_nodes) - 1} '{{' without '}}'")
    if not root["children"]:
        raise Invalid("DSL", "an empty layout")
    return root
