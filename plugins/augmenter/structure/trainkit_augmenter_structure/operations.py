"""The edits: each changes a page and its layout together, and answers whether it changed anything.

None of them needs to be right in every case: what follows checks that names still lead to the nodes they led to.
"""

from __future__ import annotations

import re
from itertools import pairwise

import numpy as np

from .linked import Element, Linked, Target

SYNONYMS = (
    ("container", "wrapper", "holder"),
    ("header", "top", "banner"),
    ("footer", "bottom"),
    ("nav", "menu"),
    ("sidebar", "aside"),
    ("main", "primary"),
    ("grid", "columns"),
    ("button", "btn"),
    ("image", "img", "picture"),
)
GROUPS = {word: group for group in SYNONYMS for word in group}
# Longest text of each placeholder, in characters.
PLACEHOLDERS = ((10, "[TEXT]"), (40, "[CONTENT]"), (100, "[PLACEHOLDER]"))
LONG_PLACEHOLDER = "[DATA]"
LONGEST_RUN = 4
CLASS_SHARE = 0.5
_CLASS = re.compile(r"\.([^\s.@$\[\]'\"]+)")


def reorder(pair: Linked, rng: np.random.Generator) -> bool:
    """Permute the children of one page node; the layout follows in reading order."""
    parents = [element for element in pair.page.walk() if len(element.children) > 1]
    if not parents or not _sort(pair, change=False):
        return False
    parent = parents[int(rng.integers(len(parents)))]
    before = list(parent.children)
    parent.children = [before[i] for i in rng.permutation(len(before))]
    return parent.children != before and _sort(pair, change=True)


def substitute(pair: Linked, rng: np.random.Generator) -> bool:
    """Replace classes by synonyms, each everywhere in the page; two different classes never become equal."""
    classes = sorted({name for element in pair.page.walk() for name in _CLASS.findall(element.name)})
    taken, new_names = set(classes), {}
    for name in classes:
        choices = [other for other in GROUPS.get(name, ()) if other not in taken]
        if choices and rng.random() < CLASS_SHARE:
            new_names[name] = choices[int(rng.integers(len(choices)))]
            taken.add(new_names[name])
    for element in pair.page.walk() if new_names else ():
        plain = element.name
        renamed = _CLASS.sub(lambda match: "." + new_names.get(match[1], match[1]), plain)
        element.key = renamed + element.key[len(plain) :]
    return bool(new_names)


def wrap(pair: Linked, rng: np.random.Generator) -> bool:
    """Put a new div.wrapper-k around one to four consecutive siblings; the layout does not name it."""
    parents = [element for element in pair.page.walk() if element.children]
    if not parents:
        return False
    parent = parents[int(rng.integers(len(parents)))]
    start = int(rng.integers(len(parent.children)))
    end = start + 1 + int(rng.integers(min(LONGEST_RUN, len(parent.children) - start)))
    names = {element.name for element in pair.page.walk()}
    number = next(k for k in range(1, len(names) + 2) if f"div.wrapper-{k}" not in names)
    run = parent.children[start:end]
    parent.children[start:end] = [Element(f"div.wrapper-{number}", run, _hull(run))]
    return True


def _hull(elements: list[Element]) -> dict[str, list[float]]:
    """Return the attribute 'box' around the boxes of elements, or nothing where one of them has none."""
    boxes = [element.attributes.get("box") for element in elements]
    if not all(boxes):
        return {}
    left, top = (min(box[axis] - box[axis + 2] / 2 for box in boxes) for axis in (0, 1))
    right, bottom = (max(box[axis] + box[axis + 2] / 2 for box in boxes) for axis in (0, 1))
    return {"box": [(left + right) / 2, (top + bottom) / 2, right - left, bottom - top]}


def flatten(pair: Linked, rng: np.random.Generator) -> bool:
    """Collapse two page nodes, of which one is the other's only child, where the layout merges exactly these two."""
    places = [
        (target, i)
        for target in pair.layout.walk()
        for i, (outer, inner) in enumerate(pairwise(target.sources))
        if len(outer.children) == 1 and inner.children
    ]
    if not places:
        return False
    target, i = places[int(rng.integers(len(places)))]
    outer, inner = target.sources[i : i + 2]
    outer.children = inner.children
    del target.sources[i + 1]
    return True


def placeholder(pair: Linked, rng: np.random.Generator) -> bool:
    """Replace every text by a word for its length."""
    texts = [element for element in pair.page.walk() if element.attributes.get("text")]
    for element in texts:
        length = len(element.attributes["text"])
        element.attributes["text"] = next((word for most, word in PLACEHOLDERS if length <= most), LONG_PLACEHOLDER)
    return bool(texts)


def drop(pair: Linked, rng: np.random.Generator, share: float) -> bool:
    """Drop page nodes with their subtrees, and the layout nodes that are made of nothing else.

    Layout nodes whose children are all gone go, too; numbered siblings are numbered anew.
    """
    gone: set[int] = set()
    elements = list(pair.page.walk())
    chosen = rng.random(len(elements)) < share
    for element, is_chosen in zip(elements[1:], chosen[1:], strict=True):
        if is_chosen:
            gone.update(id(inner) for inner in element.walk())
    if not gone:
        return False
    for element in elements:
        element.children = [child for child in element.children if id(child) not in gone]
    named = [target for target in pair.layout.walk() if target.sources]
    stays = bool(pair.page.children) and _prune(pair.layout, gone)
    kept = {id(target) for target in pair.layout.walk()}
    return stays and all(target.sources for target in named if id(target) in kept)


def _prune(target: Target, gone: set[int]) -> bool:
    """Drop what is made of nothing any more; return whether the target itself stays."""
    stems = [child.stem for child in target.children]
    had_children, had_sources = bool(target.children), bool(target.sources)
    target.sources = [source for source in target.sources if id(source) not in gone]
    target.children = [child for child in target.children if _prune(child, gone)]
    renumber(target.children, stems)
    lost = had_sources and not target.sources
    return bool(target.children) if had_children else not lost


def renumber(children: list[Target], stems: list[str]) -> None:
    """Give numbered siblings ('column', 'column$1', ...) the first of the old stems of their base, in order."""
    stock: dict[str, list[str]] = {}
    for stem in sorted(stems, key=lambda stem: int(stem.partition("$")[2] or -1)):
        stock.setdefault(stem.partition("$")[0], []).append(stem)
    for child in children:
        child.stem = stock[child.stem.partition("$")[0]].pop(0)


def _sort(pair: Linked, change: bool) -> bool:
    """Put the layout into the reading order of the page, or only look; return whether it can be (or is) in order."""
    position = {id(element): i for i, element in enumerate(pair.page.walk())}

    def first(target: Target) -> int | None:
        places = [position[id(source)] for inner in target.walk() for source in inner.sources]
        return min(places, default=None)

    for target in pair.layout.walk():
        keyed = [(first(child), child) for child in target.children]
        if len(keyed) < 2:
            continue
        if any(place is None for place, _ in keyed):
            return False
        ordered = [child for _, child in sorted(keyed, key=lambda item: item[0] or 0)]
        if change:
            stems = [child.stem for child in target.children]
            target.children = ordered
            renumber(target.children, stems)
        elif ordered != target.children:
            return False
    return True
