"""Draw a generated section: where its nodes stand, and what a visitor would see there."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from PIL import Image, ImageDraw

from .tree import Node, structure_words, walk

WIDTH = 480
MARGIN, GAP = 12, 8
INK, GREY, PALE, ACCENT = (40, 44, 52), (150, 155, 165), (236, 239, 244), (54, 107, 214)
PixelBox = tuple[float, float, float, float]
Draw = ImageDraw.ImageDraw

# Heights of what is seen, in pixels of a page that is WIDTH wide.
HEIGHTS = {
    "h1": 26, "h2": 20, "h3": 14, "p": 30, "blockquote": 36, "a": 22, "button": 22, "i": 22, "img": 70, "ul": 46,
    "hr": 6, "media": 80, "gallery": 60, "slider": 84, "accordion": 60, "tabs": 56, "counter": 34, "deco": 4,
    "overlay": 2,
}  # fmt: skip
# What lies behind everything in its parent takes no room of its own.
BACKGROUNDS = ("backdrop", "film")


def shape(node: Node) -> str:
    """Return how a node is drawn: the class that has a look, or else the tag."""
    tag, words = structure_words(node["key"])
    return next((word[1:] for word in words if word[1:] in HEIGHTS or word[1:] in BACKGROUNDS), tag)


def is_row(node: Node) -> bool:
    """Return whether a node's children stand side by side."""
    return "['d:flex']" in node["key"] or "['d:grid']" in node["key"]


def boxes_of(structure: Node) -> tuple[list[PixelBox], int]:
    """Return the pixel boxes (left, top, right, bottom) in pre-order, and the height of the page."""
    boxes: dict[int, PixelBox] = {}

    def place(node: Node, left: float, top: float, width: float) -> float:
        inner_left, inner_width, bottom = left, width, top
        children = node["children"]
        if shape(node) in HEIGHTS:
            bottom = top + HEIGHTS[shape(node)]
            _place_inside(node, (left, top, left + width, bottom), boxes)
        elif is_row(node) and children:
            each = (width - GAP * (len(children) - 1)) / len(children)
            bottom = max(place(child, left + i * (each + GAP), top, each) for i, child in enumerate(children))
            for child in children:
                boxes[id(child)] = (*boxes[id(child)][:3], bottom)
        else:
            inner_left, inner_width, bottom = left + MARGIN / 2, width - MARGIN, top + MARGIN / 2
            behind = [child for child in children if shape(child) in BACKGROUNDS]
            before = [child for child in children if shape(child) not in BACKGROUNDS]
            for child in before:
                bottom = place(child, inner_left, bottom, inner_width) + GAP
            bottom += MARGIN / 2 - (GAP if before else 0)
            for child in behind:
                _place_inside(child, (left, top, left + width, bottom), boxes)
        boxes[id(node)] = (left, top, left + width, bottom)
        return bottom

    height = place(structure, 0, 0, WIDTH)
    return [boxes[id(node)] for node in walk(structure)], max(96, round(height))


def draw(structure: Node, boxes: list[PixelBox], height: int) -> Image.Image:
    """Return the picture of a section."""
    image = Image.new("RGB", (WIDTH, height), "white")
    pen = ImageDraw.Draw(image)
    hidden: set[int] = set()
    for node, box in zip(walk(structure), boxes, strict=True):
        if id(node) in hidden:
            continue
        look = shape(node)
        if look in _LOOKS or look == "media":
            hidden.update(id(inner) for inner in walk(node))
            _LOOKS[_media_look(node) if look == "media" else look](pen, box)
        elif "card" in node["key"] or "['bg:1']" in node["key"]:
            pen.rectangle(box, fill=(247, 248, 251), outline=PALE)
    return image


def _place_inside(node: Node, box: PixelBox, boxes: dict[int, PixelBox]) -> None:
    for inner in walk(node):
        boxes[id(inner)] = box


def _media_look(node: Node) -> str:
    source = str(node["attributes"].get("src", ""))
    return {"mp4": "video", "map": "map"}.get(source.rpartition(".")[2], "img")


def _lines(
    count: int, thickness: float, colour: tuple[int, int, int], share: float = 0.9
) -> Callable[[Draw, PixelBox], None]:
    def look(pen: Draw, box: PixelBox) -> None:
        left, top, right, bottom = box
        step = (bottom - top) / count
        for i in range(count):
            end = left + (right - left) * (share if i < count - 1 or count == 1 else share * 0.6)
            middle = top + (i + 0.5) * step
            pen.rectangle((left, middle - thickness / 2, end, middle + thickness / 2), fill=colour)

    return look


def _button(pen: Draw, box: PixelBox) -> None:
    left, top, right, bottom = box
    pen.rounded_rectangle((left, top, min(right, left + 90), bottom), radius=6, fill=ACCENT)


def _icon(pen: Draw, box: PixelBox) -> None:
    left, top, _, bottom = box
    pen.ellipse((left, top, left + bottom - top, bottom), fill=(232, 151, 44))


def _photo(pen: Draw, box: PixelBox) -> None:
    left, top, right, bottom = box
    pen.rectangle(box, fill=(173, 205, 235))
    pen.polygon([(left, bottom), ((left + right) / 2, (top + bottom) / 2), (right, bottom)], fill=(96, 140, 110))


def _video(pen: Draw, box: PixelBox) -> None:
    left, top, right, bottom = box
    x, y, r = (left + right) / 2, (top + bottom) / 2, (bottom - top) / 4
    pen.rectangle(box, fill=(28, 28, 34))
    pen.polygon([(x - r, y - r), (x - r, y + r), (x + r, y)], fill="white")


def _backdrop(pen: Draw, box: PixelBox) -> None:
    left, top, right, bottom = box
    pen.rectangle(box, fill=(224, 236, 246))
    pen.polygon([(left, bottom), (left + (right - left) * 0.7, top), (right, bottom)], fill=(212, 228, 216))


def _film(pen: Draw, box: PixelBox) -> None:
    left, top, right, bottom = box
    pen.rectangle(box, fill=(228, 222, 238))
    for i in range(int((right - left) / 24)):
        for y in (top + 2, bottom - 6):
            pen.rectangle((left + 24 * i + 8, y, left + 24 * i + 16, y + 4), fill=(198, 188, 214))


def _map(pen: Draw, box: PixelBox) -> None:
    left, top, right, bottom = box
    pen.rectangle(box, fill=(220, 232, 200))
    for share in (0.25, 0.6, 0.85):
        x, y = left + share * (right - left), top + share * (bottom - top)
        pen.line((x, top, x, bottom), fill="white", width=4)
        pen.line((left, y, right, y), fill=(246, 214, 120), width=4)


def _cells(columns: int, rows: int) -> Callable[[Draw, PixelBox], None]:
    def look(pen: Draw, box: PixelBox) -> None:
        for cell in _grid(box, columns, rows):
            pen.rectangle(cell, fill=(188, 196, 214), outline=GREY)

    return look


def _grid(box: PixelBox, columns: int, rows: int) -> Iterator[PixelBox]:
    left, top, right, bottom = box
    width, height = (right - left) / columns, (bottom - top) / rows
    for row in range(rows):
        for column in range(columns):
            x, y = left + column * width, top + row * height
            yield x, y, x + width - 4, y + height - 4


_LOOKS: dict[str, Callable[[Draw, PixelBox], None]] = {
    "h1": _lines(1, 16, INK, 0.8),
    "h2": _lines(1, 12, INK, 0.65),
    "h3": _lines(1, 8, INK, 0.6),
    "p": _lines(3, 3, GREY),
    "blockquote": _lines(3, 3, (120, 90, 160), 0.8),
    "ul": _lines(4, 4, (90, 120, 130), 0.5),
    "a": _button,
    "button": _button,
    "i": _icon,
    "img": _photo,
    "video": _video,
    "map": _map,
    "hr": _lines(1, 2, GREY, 1.0),
    "gallery": _cells(4, 1),
    "slider": _cells(1, 1),
    "accordion": _cells(1, 3),
    "tabs": _cells(3, 1),
    "counter": _lines(1, 20, (54, 160, 110), 0.3),
    "deco": _lines(1, 1, PALE, 0.3),
    "overlay": _lines(1, 1, PALE, 0.3),
    "backdrop": _backdrop,
    "film": _film,
}
