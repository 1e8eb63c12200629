"""Lossless linearisation: tree -> words -> tree.

Pre-order; a node's key becomes its base, its number ('$1') and a pointer ('@7') for each source; the children of a
node stand between '{' and '}'. Pointers are indices into the pre-order structure, so that a compound key never seen
before is made of words that were.  [reading: 8.1 asks for pre-order with depth or brackets]
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .alignment import pre_order_keys
from .tree import NAMELESS, Node, node, parse_target_key, without_annotations

OPEN, CLOSE, END = "{", "}", "<end>"


def linearise(layout: Node, sources: Sequence[tuple[int, ...]]) -> list[str]:
    """Return the words of a layout, END last; `sources` are the pointers of each node in pre-order."""
    words: list[str] = []
    pointers = iter(sources)

    def visit(current: Node) -> None:
        words.extend(_key_words(current, next(pointers)))
        if current["children"]:
            words.append(OPEN)
            for child in current["children"]:
                visit(child)
            words.append(CLOSE)

    visit(layout)
    return [*words, END]


def delinearise(words: Iterable[str]) -> Node:
    """Return the tree of any sequence of words; its keys hold pointers. What cannot be read is left out.

    Total on purpose: a model may write anything. A layout with one root gives that root, all else a nameless one.
    """
    root = node(NAMELESS)
    open_nodes = [root]
    last: Node | None = None
    words = list(words)
    for word in words:
        if word == END:
            break
        if word == OPEN:
            open_nodes.append(last if last is not None else open_nodes[-1])
            last = None
        elif word == CLOSE:
            if len(open_nodes) > 1:
                last = open_nodes.pop()
                last = None if last is root else last
        elif word[0] in "@$":
            # A key has one number, before its sources.
            is_late = word[0] == "$" and last is not None and ("$" in last["key"] or "@" in last["key"])
            if last is not None and not last["children"] and not is_late:
                last["key"] += word
        elif word[0] != "<":
            last = node(word)
            open_nodes[-1]["children"].append(last)
    one_root = len(root["children"]) == 1 and words[0] != OPEN
    return root["children"][0] if one_root else root


def name_sources(layout: Node, structure: Node | None) -> Node:
    """Return the layout with the names of structure nodes in place of pointers; unknown pointers are left out."""
    names = [without_annotations(key) for key in pre_order_keys(structure)] if structure else []

    def rename(current: Node) -> Node:
        base, *pointers = current["key"].split("@")
        kept = [names[int(i)] for i in pointers if int(i) < len(names)]
        return node("@".join([base, *kept]), [rename(child) for child in current["children"]], current["attributes"])

    return rename(layout)


def written(layout: Node) -> list[str]:
    """Return a layout as it is written: keys, '{' and '}' around children, ',' between two leaves.

    It is the language of pix2code, its white space left out.
    """
    found: list[str] = [layout["key"]] if layout["key"] != NAMELESS else []
    if layout["children"]:
        inner: list[str] = []
        for before, child in zip([None, *layout["children"]], layout["children"], strict=False):
            if before is not None and not before["children"] and not child["children"]:
                inner.append(",")
            inner += written(child)
        found = [*found, OPEN, *inner, CLOSE] if found else inner
    return found


def cut(layout: Node, sources: Sequence[tuple[int, ...]], room: int, nodes: int) -> tuple[Node, list[tuple[int, ...]]]:
    """Return the layout cut at subtree borders, in reading order, to `room` words and to the first `nodes` sources.

    A node that does not fit is left out with its subtree; what follows it may still fit.
    """
    kept_sources: list[tuple[int, ...]] = []
    left = room - 1  # END
    position = 0

    def visit(current: Node, brackets: int) -> Node | None:
        nonlocal left, position
        pointers = sources[position]
        position += 1
        need = len(_key_words(current, pointers)) + brackets
        if need > left or any(i >= nodes for i in pointers):
            position += len(pre_order_keys(current)) - 1
            return None
        left -= need
        kept_sources.append(pointers)
        children: list[Node] = []
        for child in current["children"]:
            # The first child that stays also pays for the brackets around them all.
            kept = visit(child, 0 if children else 2)
            if kept is not None:
                children.append(kept)
        return node(current["key"], children, current["attributes"])

    kept = visit(layout, 0)
    return (node(NAMELESS), [()]) if kept is None else (kept, kept_sources)


def elements(layout: Node) -> dict[str, list[str]]:
    """Return the multisets that element F1 compares: bases, keys, and paths of keys from the root."""
    found: dict[str, list[str]] = {"base": [], "key": [], "path": []}

    def visit(current: Node, path: str) -> None:
        key = current["key"]
        if key != NAMELESS:
            path = f"{path}/{key}"
            found["base"].append(key.split("@")[0].split("$")[0])
            found["key"].append(key)
            found["path"].append(path)
        for child in current["children"]:
            visit(child, path)

    visit(layout, "")
    return found


def _key_words(current: Node, pointers: tuple[int, ...]) -> list[str]:
    if current["key"] == NAMELESS:
        return []
    key = parse_target_key(current["key"])
    return [key.base, *([key.number] if key.number else []), *(f"@{i}" for i in pointers)]
