"""Ordered trees as plain data, their JSON form, and the grammar of their keys.

A node is a dict {"key": str, "children": [node, ...], "attributes": {name: value}}. Children are a list, not a dict:
two equal buttons under one parent are legal and must not collapse.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

Node = dict[str, Any]


class Invalid(ValueError):
    """Say which rule a text, a tree or a key breaks, and how."""

    def __init__(self, rule: str, reason: str) -> None:
        super().__init__(reason)
        self.rule = rule


ATTRIBUTES = frozenset({"text", "src", "href", "svg"})
MAX_DEPTH = 100
# Far more than a section has; matching names to nodes takes a time that grows with the square.
MAX_TREE = 5000
# A page that is only a list of parts (pix2code) hangs under a root without a name.
NAMELESS = ""

_ANNOTATION = r"\['[^'\[\]]*'\]"
_SOURCE = rf"[A-Za-z][\w-]*(?:\.[^\s.@$\[\]'\"]+)*(?:{_ANNOTATION})*"
SOURCE_KEY = re.compile(_SOURCE)
TARGET_KEY = re.compile(rf"(?P<base>[a-z][\w-]*)(?P<number>\$\d+)?(?P<sources>(?:@{_SOURCE})*)")
_NEXT_SOURCE = re.compile(rf"@({_SOURCE})")
_ANNOTATIONS = re.compile(_ANNOTATION)
_WORDS = re.compile(rf"\.[^\s.@$\[\]'\"]+|{_ANNOTATION}")


@dataclass(frozen=True, slots=True)
class TargetKey:
    """Hold the parts of a target key: base ('$' number)? ('@' source)*."""

    base: str
    number: str
    sources: tuple[str, ...]

    def __str__(self) -> str:
        return self.base + self.number + "".join(f"@{source}" for source in self.sources)


def node(key: str, children: list[Node] | None = None, attributes: dict[str, Any] | None = None) -> Node:
    """Return a node."""
    return {"key": key, "children": children or [], "attributes": attributes or {}}


def walk(root: Node) -> Iterator[Node]:
    """Yield the nodes in pre-order."""
    stack = [root]
    while stack:
        current = stack.pop()
        yield current
        stack.extend(reversed(current["children"]))


def depth(root: Node) -> int:
    """Return the number of levels."""
    return 1 + max((depth(child) for child in root["children"]), default=0)


def without_annotations(key: str) -> str:
    """Return a structure key without its ['name:value'] parts: the form in which sources are compared."""
    return _ANNOTATIONS.sub("", key)


def structure_words(key: str) -> tuple[str, list[str]]:
    """Return the tag of a structure key, and its classes and annotations as written."""
    words = _WORDS.findall(key)
    return key[: len(key) - sum(map(len, words))], words


def parse_target_key(key: str) -> TargetKey:
    """Return the parts of a target key, its sources without annotations; raise Invalid outside the grammar."""
    match = TARGET_KEY.fullmatch(key)
    if match is None:
        raise Invalid("key", f"'{key}' is not a layout key: base('$'number)?('@'source)*")
    sources = tuple(without_annotations(source) for source in _NEXT_SOURCE.findall(match["sources"]))
    return TargetKey(match["base"], match["number"] or "", sources)


class Pairs(list[tuple[str, Any]]):
    """Be a JSON object with its order and its duplicate keys."""


def parse_json(text: str) -> Any:
    """Return a JSON value, its objects as Pairs; raise Invalid for what is not JSON (NaN is not)."""
    try:
        return json.loads(text, object_pairs_hook=Pairs, parse_constant=_refuse)
    except RecursionError:
        raise Invalid("depth", f"nested deeper than {MAX_DEPTH} levels") from None
    except ValueError as error:
        raise Invalid("JSON", str(error)) from None


def fields(value: Any, what: str = "the file") -> dict[str, Any]:
    """Return an object whose keys are names and therefore stand once; raise Invalid for anything else."""
    if not isinstance(value, Pairs):
        raise Invalid("tree", f"expected an object for {what}, found {type_name(value)}")
    found = dict(value)
    twice = next((name for i, (name, _) in enumerate(value) if name in dict(value[:i])), None)
    if twice is not None:
        raise Invalid("JSON", f"'{twice}' stands twice in {what}")
    return found


def name_of(value: Any, what: str) -> str:
    """Return an id as text; raise Invalid unless it is a text or a whole number that can be printed."""
    if not isinstance(value, str | int) or isinstance(value, bool) or not str(value).isprintable() or value == "":
        found = "one that cannot be printed" if isinstance(value, str) else type_name(value)
        raise Invalid("id", f"{what} must be a text, found {found}")
    return str(value)


def parse_structure(text: str) -> Node:
    """Return the tree of a structure.json; raise Invalid with the reason."""
    return structure_of(parse_json(text))


def parse_layout(text: str) -> tuple[Node, dict[str, str]]:
    """Return the tree and the page properties of a layout.json: a bare tree, or {"structure": tree, "props": {...}}."""
    return layout_of(parse_json(text))


def structure_of(value: Any) -> Node:
    """Return the structure that a JSON value holds; raise Invalid with the reason."""
    return _root(value, _structure_node)


def layout_of(value: Any) -> tuple[Node, dict[str, str]]:
    """Return the layout and the page properties that a JSON value holds; raise Invalid with the reason."""
    if isinstance(value, Pairs) and value and {name for name, _ in value} <= {"structure", "props"}:
        envelope = fields(value)
        return _root(envelope.get("structure"), _layout_node), props_of(envelope.get("props"))
    return _root(value, _layout_node), {}


def props_of(value: Any) -> dict[str, str]:
    """Return page properties, none for None; raise Invalid unless they are an object of texts."""
    props = {} if value is None else fields(value, "props")
    if not all(isinstance(item, str) for item in props.values()):
        raise Invalid("props", '"props" must be an object of texts')
    return props


def dump_tree(root: Node) -> str:
    """Return the JSON text that the parsers read; equal sibling keys are written twice."""
    return "{" + _dump_pair(root) + "}"


def _dump_pair(current: Node) -> str:
    inner = [
        f"{json.dumps(name)}: {json.dumps(value)}"
        for name, value in current["attributes"].items()
        if name in ATTRIBUTES
    ]
    inner += [_dump_pair(child) for child in current["children"]]
    return f"{json.dumps(current['key'])}: " + ("{" + ", ".join(inner) + "}" if inner else '""')


def _root(value: Any, parse: Any) -> Node:
    if not isinstance(value, Pairs):
        raise Invalid("tree", f"expected an object, found {type_name(value)}")
    if len(value) != 1:
        raise Invalid("tree", f"expected one root, found {len(value)}")
    root: Node = parse(*value[0], 1)
    count = sum(1 for _ in walk(root))
    if count > MAX_TREE:
        raise Invalid("size", f"{count} nodes; a tree has at most {MAX_TREE}")
    return root


def _structure_node(key: str, value: Any, level: int) -> Node:
    _check_key(key, SOURCE_KEY, "a structure key: tag(.class)*(['name:value'])*", level)
    if isinstance(value, str):
        return node(key, [], {"text": value} if value else {})
    if not isinstance(value, Pairs):
        raise Invalid("leaf", f"'{key}' holds {type_name(value)}; expected an object or a text")
    attributes = {name: item for name, item in value if name in ATTRIBUTES and isinstance(item, str)}
    children = [
        _structure_node(name, item, level + 1)
        for name, item in value
        if not (name in ATTRIBUTES and isinstance(item, str))
    ]
    return node(key, children, attributes)


def _layout_node(key: str, value: Any, level: int) -> Node:
    _check_key(key, TARGET_KEY, "a layout key: base('$'number)?('@'source)*", level)
    name = str(parse_target_key(key))
    if value == "":
        return node(name)
    if not isinstance(value, Pairs):
        raise Invalid("leaf", f"the leaf '{key}' holds {type_name(value)}; expected \"\" or {{}}")
    return node(name, [_layout_node(child, item, level + 1) for child, item in value])


def _check_key(key: str, grammar: re.Pattern[str], what: str, level: int) -> None:
    if level > MAX_DEPTH:
        raise Invalid("depth", f"nested deeper than {MAX_DEPTH} levels")
    if not key.isprintable() or grammar.fullmatch(key) is None:
        raise Invalid("key", f"'{key}' is not {what}")


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def type_name(value: Any) -> str:
    """Return what a JSON value is, for messages."""
    if isinstance(value, Pairs):
        return "an object"
    return {list: "a list", str: "a text", bool: "a truth value", type(None): "null"}.get(type(value), "a number")
