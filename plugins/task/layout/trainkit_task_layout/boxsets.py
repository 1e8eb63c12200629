"""Box sets: JSON lists of pictures or screens with the boxes of their elements; there is no tree and no structure.

- Sketch2Code: entries {"id", "width", "height", "regions": [{"tagName", "left", "top", "width", "height"}]}; its
  picture is images/ID.png (or .jpg, .webp).
- RICO Semantics: entries {"screen_id", "screen_elements": [{"label", "xmin", "ymin", "xmax", "ymax"}]}; no pictures.

All numbers are shares of the picture or screen. Every *.json of the folder that is a list is read; if one of them is
train.json, then train.json, val.json and test.json are the splits.  [reading]

The layout has a root without a name and one child per element, in reading order (`geometry.reading_order`). Its key is
the label in lower case joined by hyphens: 'CheckBox' is `check-box`, 'ICON_THREE_BARS:MENU' is `icon-three-bars--menu`
(a colon becomes two hyphens). Attribute 'label' keeps the label as it was, and attribute 'box' is [centre x, centre y,
width, height] as shares of the square into which a picture was fitted, or of the screen where there is no picture.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from trainkit.errors import DataError, printable

from .files import Attempts, Fault, content_hash, read_text
from .geometry import Box, fit_to_square, inside_page, reading_order
from .pictures import Picture
from .quality import quality
from .reading import Reading
from .samples import sample_of, seen_picture
from .splits import DIVIDED, PARTS, Parts, divide
from .tree import MAX_TREE, NAMELESS, Invalid, Node, fields, name_of, node, parse_json, type_name

IMAGES = "images"
REGIONS, SCREEN = "regions", "screen_elements"
_KEY = re.compile(r"[a-z][a-z0-9]*(?:--?[a-z0-9]+)*")
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


class Entry(NamedTuple):
    """Hold one entry of a list, where it stands, and its place for messages."""

    value: Any
    path: Path
    number: int


def box_lists(root: Path) -> list[Path]:
    """Return the *.json files of a folder that hold a list."""
    return [path for path in sorted(root.glob("*.json")) if _starts_a_list(path)]


def read_boxsets(root: Path, reading: Reading, size: int) -> Parts:
    """Return the samples of a folder of box lists, by part; raise DataError for a file that is no such list."""
    reader = _Reader(reading, size)
    lists = {path.stem: path for path in box_lists(root)}
    if "train" in lists:
        for name in sorted(set(lists) - set(PARTS)):
            reading.remark("not listed", lists[name], "left out: train.json, val.json and test.json are the splits")
        entries = {part: _entries(lists[part], root) if part in lists else [] for part in PARTS}
        parts = {part: reading.collect(reader.full(entries[part]), reader.read) for part in PARTS}
    else:
        reading.remark("splits", root, f"no train.json: {DIVIDED}")
        found = [entry for path in lists.values() for entry in _entries(path, root)]
        parts = divide(reading.collect(reader.full(found), reader.read))
    reader.tell()
    return parts


class _Reader:
    """Read entries; remember the empty ones, and which key stands for which label."""

    def __init__(self, reading: Reading, size: int) -> None:
        self.reading, self.size = reading, size
        self.labels: dict[str, str] = {}
        self.names: set[str] = set()
        self.empty: list[Entry] = []

    def full(self, entries: list[Entry]) -> Iterator[Entry]:
        """Yield the entries that are not empty."""
        for entry in entries:
            held = dict(entry.value) if isinstance(entry.value, list) and not _is_plain(entry.value) else {}
            if held.get(REGIONS, held.get(SCREEN)) == []:
                self.empty.append(entry)
            else:
                yield entry

    def tell(self) -> None:
        """Remark how many entries were left out because there is nothing on them."""
        if self.empty:
            path, first = self.empty[0].path, self.empty[0].number
            text = f"{len(self.empty)} entries have no elements and were left out (the first is entry {first})"
            self.reading.remark("empty", path, text)

    def read(self, entry: Entry) -> dict[str, Any]:
        """Return the sample of an entry; raise Fault or BadSample with the reasons why it cannot be used."""
        try:
            held = fields(entry.value, "an entry")
            name = name_of(held.get("id", held.get("screen_id")), '"id" or "screen_id"')
            if name in self.names:
                raise Invalid("id", f"the id '{name}' stands twice")
            self.names.add(name)
            elements = [self.element(item) for item in _list(held)]
        except Invalid as broken:
            raise Fault(entry.path, f"entry {entry.number}: {broken}", broken.rule) from None
        picture = self.picture(name, held, entry) if REGIONS in held else None
        order = reading_order([box for _, box in elements])
        children = [self.child(*elements[i], picture) for i in order]
        layout = node(NAMELESS, children)
        root = self.reading.root
        place = self._images / name if picture is not None else f"{entry.path.relative_to(root)}, entry {entry.number}"
        source = str(place.relative_to(root) if isinstance(place, Path) else place)
        sample = sample_of(name, source, picture, layout, _hashes(children, picture))
        return {**sample, "quality": quality(None, layout, (), picture.size if picture else None, self.size)}

    @property
    def _images(self) -> Path:
        return self.reading.root / IMAGES

    def element(self, value: Any) -> tuple[str, Box]:
        """Return the label and the box of an element; raise Invalid with the reason."""
        held = fields(value, "an element")
        label = held.get("tagName", held.get("label"))
        if not isinstance(label, str):
            raise Invalid("label", f'"tagName" or "label" must be a text, found {type_name(label)}')
        key = key_of(label)
        if self.labels.setdefault(key, label) != label:
            raise Invalid("label", f"'{label}' and '{self.labels[key]}' would both be the key '{key}'")
        names = ("left", "top", "width", "height") if "left" in held else ("xmin", "ymin", "xmax", "ymax")
        sides = [held.get(name) for name in names]
        if not all(type(side) in (int, float) for side in sides):
            raise Invalid("boxes", f"'{label}': expected numbers for {', '.join(names)}")
        left, top, third, fourth = (float(side) for side in sides)  # type: ignore[arg-type]
        right, bottom = (left + third, top + fourth) if names[0] == "left" else (third, fourth)
        box = inside_page(left, top, right, bottom)
        if box is None:
            edges = ", ".join(f"{side:g}" for side in (left, top, right, bottom))
            raise Invalid("boxes", f"'{label}': left, top, right, bottom = {edges} is no box between 0 and 1")
        return label, box

    def picture(self, name: str, held: dict[str, Any], entry: Entry) -> Picture:
        """Return the picture of an entry; raise BadSample if it cannot be used or has another size than recorded."""
        tries = Attempts()
        if Path(name).name != name:
            raise Fault(entry.path, f"entry {entry.number}: '{name}' is not the name of a picture", "id")
        picture = tries(seen_picture, self._images, name, self.reading, self.size)
        tries.settle()
        assert picture is not None
        told = (held.get("width", picture.size[0]), held.get("height", picture.size[1]))
        if told != picture.size:
            real = f"{picture.size[0]} x {picture.size[1]}"
            reason = f"entry {entry.number}: {told[0]} x {told[1]} pixels are recorded, {IMAGES}/{name} has {real}"
            raise Fault(entry.path, reason, "size")
        return picture

    def child(self, label: str, box: Box, picture: Picture | None) -> Node:
        """Return the node of an element."""
        placed = list(box) if picture is None else fit_to_square(box, picture.size)
        return node(key_of(label), [], {"label": label, "box": placed})


def key_of(label: str) -> str:
    """Return a label in the grammar of keys: lower case, words joined by hyphens; raise Invalid if it has none.

    The hump of 'CheckBox', an underscore and a space become a hyphen, a colon becomes two.
    """
    key = re.sub(r"\s*:\s*", "--", re.sub(r"[_\s-]+", "-", _HUMP.sub("-", label.strip()))).lower()
    if _KEY.fullmatch(key) is None:
        raise Invalid("label", f"'{label}' cannot be written as a key of letters, digits and hyphens")
    return key


def _entries(path: Path, root: Path) -> list[Entry]:
    try:
        value = parse_json(read_text(path, root))
        if not _is_plain(value):
            raise Invalid("tree", f"expected a list, found {type_name(value)}")
    except (Fault, Invalid) as error:
        raise DataError(
            "a list of boxes cannot be read",
            where=str(path),
            why=printable(str(error)),
            do="repair the file: a list of {id, regions} or of {screen_id, screen_elements}",
        ) from None
    return [Entry(item, path, number) for number, item in enumerate(value, 1)]


def _list(held: dict[str, Any]) -> list[Any]:
    items = held.get(REGIONS, held.get(SCREEN))
    if not _is_plain(items):
        raise Invalid("tree", f'expected a list "{REGIONS}" or "{SCREEN}", found {type_name(items)}')
    if len(items) > MAX_TREE:
        raise Invalid("size", f"{len(items)} elements; at most {MAX_TREE} are read")
    return list(items)


def _is_plain(value: Any) -> bool:
    """Return whether a value is a JSON list: objects are lists of pairs, of a type of their own."""
    return type(value) is list


def _hashes(children: list[Node], picture: Picture | None) -> dict[str, str]:
    """Return the hashes of boxes: exact, and, as that of the layout, to a hundredth of the page, for division."""
    near = [(child["key"], *(round(side, 2) for side in child["attributes"]["box"])) for child in children]
    exact = [(child["key"], *child["attributes"]["box"]) for child in children]
    return {"layout": content_hash(repr(near).encode()), "boxes": content_hash(repr(exact).encode())}


def _starts_a_list(path: Path) -> bool:
    try:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            return file.read(4096).lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"["
    except OSError:
        return False
