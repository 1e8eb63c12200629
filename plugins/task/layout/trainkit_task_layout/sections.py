"""The embedded sample: random sections of web pages, written in the very format of real data.

A section is a random HTML-like tree. Its screenshot is drawn from the tree, and its layout follows from the tree by
fixed rules: chains of single children merge into one key, decoration is left out, thin wrappers give way to their
children. What a div.media holds (picture, film or map) is seen in the screenshot alone. Some sections have a picture or
a film behind everything, or an overlay: these are page properties (bi, bv, bo) and not part of the layout.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from .drawing import BACKGROUNDS, WIDTH, boxes_of, draw, is_row, shape
from .files import content_hash
from .folders import BOXES, FILES
from .splits import PARTS
from .tree import Node, dump_tree, node, walk, without_annotations

BASES = {
    "h1": "heading", "h2": "heading", "h3": "heading", "p": "paragraph", "blockquote": "paragraph", "a": "button",
    "button": "button", "i": "icon", "img": "image", "ul": "list", "hr": "divider", "gallery": "gallery",
    "slider": "carousel", "accordion": "accordion", "tabs": "tab", "counter": "counter",
}  # fmt: skip
DECORATION = ("deco", "overlay", *BACKGROUNDS)
PROPERTIES = {"backdrop": "bi", "overlay": "bo", "film": "bv"}
SHARES = {"train": 0.7, "val": 0.1, "test": 0.2}


def write_sections(folder: Path, count: int = 50, seed: int = 0) -> None:
    """Write `count` sections into train/, val/ and test/ of a folder (70/10/20): the same ones for the same seed.

    No two sections have the same layout or the same screenshot, so that none answers for another.
    """
    held_out = {part: round(SHARES[part] * count) for part in PARTS[1:]}
    parts = ["train"] * (count - sum(held_out.values())) + [
        part for part, size in held_out.items() for _ in range(size)
    ]
    seen: set[str] = set()
    attempt = 0
    for number, part in enumerate(parts):
        while True:
            structure = random_section(np.random.default_rng([seed, attempt]))
            attempt += 1
            marks = {dump_tree(layout_of(structure)), _looks(structure)}
            if not marks & seen:
                break
        seen |= marks
        write_sample(folder / part / f"section-{number:04d}", structure)


def _looks(structure: Node) -> str:
    return content_hash(draw(structure, *boxes_of(structure)).tobytes())


def write_sample(folder: Path, structure: Node) -> None:
    """Write a section as a sample folder."""
    folder.mkdir(parents=True)
    boxes, height = boxes_of(structure)
    shares = [
        [round((x0 + x1) / 2 / WIDTH, 5), round(min(1.0, (y0 + y1) / 2 / height), 5), round((x1 - x0) / WIDTH, 5),
         round(min(1.0, (y1 - y0) / height), 5)]
        for x0, y0, x1, y1 in boxes
    ]  # fmt: skip
    screenshot, structure_file, layout_file = (folder / name for name in FILES)
    draw(structure, boxes, height).save(screenshot, compress_level=1)
    structure_file.write_text(dump_tree(structure), encoding="utf-8")
    layout, props = dump_tree(layout_of(structure)), props_of(structure)
    whole = f'{{"structure": {layout}, "props": {json.dumps(props)}}}' if props else layout
    layout_file.write_text(whole, encoding="utf-8")
    (folder / BOXES).write_text(json.dumps(shares), encoding="utf-8")


def layout_of(structure: Node) -> Node:
    """Return the layout that belongs to a structure, by the rules of this sample."""
    chain, children = _chain(structure)
    return node(_key("section", chain), _parts(children))


def props_of(structure: Node) -> dict[str, str]:
    """Return the page properties of a structure: the key of the first backdrop, overlay and film in it."""
    found: dict[str, str] = {}
    for current in walk(structure):
        if shape(current) in PROPERTIES:
            found.setdefault(PROPERTIES[shape(current)], without_annotations(current["key"]))
    return dict(sorted(found.items()))


def _parts(children: list[Node]) -> list[Node]:
    parts: list[Node] = []
    for child in children:
        look = shape(child)
        if look in DECORATION:
            continue
        if "wrapper-" in child["key"]:
            parts += _parts(child["children"])
        elif look == "media":
            base = {"mp4": "video", "map": "map"}.get(child["attributes"]["src"].rpartition(".")[2], "image")
            parts.append(node(_key(base, [child])))
        elif look in BASES:
            # The label in a button is one thing with it; what a gallery or a list holds is not looked at.
            label = child["children"] if look in ("a", "button") else []
            parts.append(node(_key(BASES[look], [child, *label])))
        elif is_row(child):
            columns = [
                node(_key(f"column${i}" if i else "column", _chain(cell)[0]), _parts(_chain(cell)[1]))
                for i, cell in enumerate(child["children"])
            ]
            parts.append(node(_key("grid", [child]), columns))
        else:
            chain, inner = _chain(child)
            parts.append(node(_key("wrapper", chain), _parts(inner)))
    return parts


def _chain(start: Node) -> tuple[list[Node], list[Node]]:
    """Return a node and the boxes that are its only descendants level by level, and what is inside the last one."""
    chain = [start]
    while len(chain[-1]["children"]) == 1 and _is_box(chain[-1]["children"][0]):
        chain.append(chain[-1]["children"][0])
    return chain, chain[-1]["children"]


def _is_box(candidate: Node) -> bool:
    thin = "wrapper-" in candidate["key"]
    return shape(candidate) == "div" and not is_row(candidate) and bool(candidate["children"]) and not thin


def _key(base: str, sources: list[Node]) -> str:
    return "@".join([base, *(without_annotations(source["key"]) for source in sources)])


class _Author:
    """Make up sections; every choice comes from one generator."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng

    def chance(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)

    def choose(self, *options: str) -> str:
        return options[int(self.rng.integers(len(options)))]

    def between(self, low: int, high: int) -> int:
        return int(self.rng.integers(low, high + 1))

    def section(self) -> Node:
        root = self.choose("section.hero", "section.features", "section.about", "div.block", "section.contact")
        parts = self.intro() if self.chance(0.7) else []
        for _ in range(self.between(1, 2)):
            parts += [self.row()] if self.chance(0.6) else [self.group()] if self.chance(0.4) else [self.single()]
        if self.chance(0.3):
            parts.insert(self.between(0, len(parts)), node(self.choose("span.deco", "div.overlay")))
        if len(parts) > 2 and self.chance(0.25):
            first = self.between(0, len(parts) - 2)
            parts[first : first + 2] = [node(f"div.wrapper-{self.between(1, 9)}", parts[first : first + 2])]
        for box in reversed(["div.container", "div.inner"][: self.between(0, 2)]):
            parts = [node(box, parts)]
        return node(root, parts)

    def intro(self) -> list[Node]:
        parts = [self.text(self.choose("h1.title", "h2.title", "h2"), 3)]
        parts += [self.text("p.lead", 12)] if self.chance(0.6) else []
        return parts + ([self.button()] if self.chance(0.4) else [])

    def row(self) -> Node:
        count = self.between(2, 4)
        kinds = [self.choose("icon", "image", "heading", "media")] + (["heading"] if self.chance(0.5) else [])
        kinds += [self.choose("paragraph", "button", "counter")] if self.chance(0.7) else []
        cell = self.choose("div.col", "div.card", "div.cell")
        boxed = self.chance(0.3)
        columns = []
        for _ in range(count):
            parts = [self.item(kind) for kind in kinds]
            columns.append(node(cell, [node("div.pad", parts)] if boxed else parts))
        return node(self.choose("div.row['d:flex']", "div.grid['d:grid']", "div.columns['d:flex']"), columns)

    def group(self) -> Node:
        parts = [self.item(self.choose("heading", "paragraph", "button", "image")) for _ in range(self.between(2, 3))]
        inner = [node("div.pad", parts)] if self.chance(0.4) else parts
        return node(self.choose("div.box['bg:1']", "div.panel"), inner)

    def single(self) -> Node:
        return self.item(
            self.choose("media", "list", "divider", "gallery", "slider", "accordion", "tabs", "quote", "image")
        )

    def item(self, kind: str) -> Node:
        match kind:
            case "heading":
                return self.text(self.choose("h2", "h3", "h3.title"), 2)
            case "paragraph":
                return self.text("p", 10)
            case "quote":
                return self.text("blockquote", 10)
            case "button":
                return self.button()
            case "icon":
                return node("i.icon", [], {"svg": "<svg/>"})
            case "image":
                return node(self.choose("img.photo", "img"), [], {"src": "photo.jpg"})
            case "media":
                return node("div.media", [], {"src": self.choose("photo.jpg", "film.mp4", "place.map")})
            case "list":
                return node("ul.list", [self.text("li.item", 2) for _ in range(self.between(2, 4))])
            case "divider":
                return node("hr")
            case "gallery":
                return node(
                    "div.gallery", [node("img.thumb", [], {"src": "thumb.jpg"}) for _ in range(self.between(2, 4))]
                )
            case "counter":
                return self.text("span.counter", 1)
            case _:
                return node(f"div.{kind}", [self.text("div.entry", 2) for _ in range(self.between(2, 3))])

    def button(self) -> Node:
        label = [self.text("span.label", 1)] if self.chance(0.4) else []
        return node(self.choose("a.btn", "button.btn"), label, {} if label else {"text": "Go"})

    def backdrop(self) -> Node:
        if self.chance(0.5):
            return node("img.backdrop", [], {"src": "backdrop.jpg"})
        return node("video.film", [], {"src": "film.mp4"})

    def text(self, key: str, words: int) -> Node:
        some = ("open", "light", "new", "maker", "river", "studio", "plain", "every", "north", "field")
        return node(key, [], {"text": " ".join(self.choose(*some) for _ in range(words))})


def random_section(rng: np.random.Generator) -> Node:
    """Return the structure of a random section."""
    while True:
        author = _Author(rng)
        structure = author.section()
        if author.chance(0.3):
            structure["children"].insert(0, author.backdrop())
        if 6 <= sum(1 for _ in walk(structure)) <= 32 and layout_of(structure)["children"]:
            return structure
