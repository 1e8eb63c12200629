"""The manifest of envelopes: dataset_config.yaml with {splits: {train: [ID, ...], val: [...], test: [...]}}."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from trainkit.errors import DataError, did_you_mean, printable

from .files import Fault, read_text
from .splits import PARTS
from .tree import Invalid

MANIFEST = "dataset_config.yaml"


def read_manifest(path: Path, root: Path) -> dict[str, list[str]]:
    """Return the ids of each split, as they are written; raise DataError with the reason.

    Only the nodes of the YAML are looked at and no object is made of them: '007' stays '007', and a key that stands
    twice is seen.
    """
    try:
        document = yaml.compose(read_text(path, root), Loader=yaml.SafeLoader)
        splits = _mapping(_mapping(document, "the file").get("splits"), "'splits'")
        unknown = next((name for name in splits if name not in PARTS), None)
        if unknown is not None:
            raise Invalid("manifest", f"'{unknown}' is not a split: {', '.join(PARTS)}{did_you_mean(unknown, PARTS)}")
        ids = {part: _texts(splits.get(part), part) for part in PARTS}
        _once(ids)
    except (Fault, Invalid, yaml.YAMLError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise DataError(
            "the manifest cannot be read",
            where=str(path),
            why=printable(reason),
            do="write it as: splits: {train: [ID, ...], val: [ID, ...], test: [ID, ...]}",
        ) from None
    return ids


def _mapping(node: Any, what: str) -> dict[str, yaml.Node]:
    if not isinstance(node, yaml.MappingNode):
        raise Invalid("manifest", f"expected {what} to be a mapping")
    found: dict[str, yaml.Node] = {}
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode) or key.value in found:
            raise Invalid("manifest", f"line {key.start_mark.line + 1}: a key that stands twice or is not a text")
        found[key.value] = value
    return found


def _texts(node: yaml.Node | None, part: str) -> list[str]:
    if node is None:
        return []
    items = node.value if isinstance(node, yaml.SequenceNode) else [node]
    if not all(isinstance(item, yaml.ScalarNode) and item.value for item in items):
        raise Invalid("manifest", f"line {node.start_mark.line + 1}: expected '{part}' to be a list of ids")
    if not isinstance(node, yaml.SequenceNode):
        raise Invalid("manifest", f"line {node.start_mark.line + 1}: expected '{part}' to be a list of ids")
    return [item.value for item in items]


def _once(ids: dict[str, list[str]]) -> None:
    seen: dict[str, str] = {}
    for part, names in ids.items():
        for name in names:
            if name in seen:
                raise Invalid("manifest", f"'{name}' is listed in {seen[name]} and in {part}")
            seen[name] = part
