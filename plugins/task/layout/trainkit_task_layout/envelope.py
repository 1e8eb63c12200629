"""Envelopes: one example.json per sample, and a manifest dataset_config.yaml that says which sample is in which split.

example.json: {"id", "screenshot": {"path", "width", "height"}, "structure": {"type": "HTMLObject", "data": tree},
"layout": {"type": "SectionLayout", "data": {"structure": tree}, "props": {...}}}. It lies in a folder of its own, below
the data folder or below a folder in it; paths are relative to that folder, or else to the data folder. A boxes.json
beside it is read as in sample folders.  [reading: 8.1 leaves the places open]
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from .files import Attempts, Fault
from .folders import BOXES, EXAMPLE, boxes_beside, is_layout, read_json, subfolders, tree_in
from .manifest import MANIFEST, read_manifest
from .pictures import Picture, read_picture
from .reading import Reading
from .samples import Page, page_sample
from .splits import DIVIDED, PARTS, Parts, divide
from .tree import Node, fields, layout_of, name_of, props_of, structure_of

HTML, SECTION = "HTMLObject", "SectionLayout"


@dataclass(frozen=True, slots=True)
class Envelope:
    """Hold an example.json as it was read: its id, its content, or the fault that keeps it from being read."""

    id: str
    path: Path
    content: dict[str, Any]
    fault: Fault | None = None


def example_folders(root: Path) -> Iterator[Path]:
    """Yield the folders that hold an example.json, one or two levels below the root."""
    for folder in subfolders(root):
        for candidate in (folder, *subfolders(folder)):
            if (candidate / EXAMPLE).exists():
                yield candidate


def holds_envelopes(root: Path) -> bool:
    """Return whether there is a manifest or an example.json."""
    return (root / MANIFEST).exists() or any(example_folders(root))


def read_envelopes(root: Path, reading: Reading, size: int) -> Parts:
    """Return the samples of a folder of envelopes, by part; raise DataError for a manifest that cannot be meant."""
    read = partial(read_envelope, reading=reading, size=size)
    envelopes = [open_envelope(folder / EXAMPLE, root) for folder in example_folders(root)]
    if (root / MANIFEST).exists():
        listed = read_manifest(root / MANIFEST, root)
        chosen = _choose(envelopes, listed, reading)
    elif any((root / part).is_dir() for part in PARTS):
        reading.remark("splits", root, f"no {MANIFEST}: the folders train/, val/ and test/ are the splits")
        chosen = {part: [each for each in envelopes if each.path.is_relative_to(root / part)] for part in PARTS}
    else:
        reading.remark("splits", root, f"no {MANIFEST}: {DIVIDED}")
        return divide(reading.collect(envelopes, read))
    return {part: reading.collect(chosen[part], read) for part in PARTS}


def open_envelope(path: Path, root: Path) -> Envelope:
    """Return what an example.json holds; a broken one has the name of its folder as its id."""
    try:
        content = tree_in(fields, read_json(path, root), path)
        name = tree_in(lambda held: name_of(held.get("id"), '"id"'), content, path)
        return Envelope(name, path, content)
    except Fault as fault:
        return Envelope(path.parent.name, path, {}, fault)


def read_envelope(envelope: Envelope, reading: Reading, size: int) -> dict[str, Any]:
    """Return the sample of an envelope; raise BadSample with all reasons why it cannot be used."""
    if envelope.fault is not None:
        raise envelope.fault
    path, content, tries = envelope.path, envelope.content, Attempts()
    picture = tries(screenshot_in, content.get("screenshot"), path, reading, size)
    html, section = content.get("structure"), content.get("layout")
    if _holds_layout(html) and not _holds_layout(section):
        html, section = section, html
        reading.remark("swapped", path, '"structure" and "layout" were swapped; read as meant')
    else:
        tries(_expect_type, html, "structure", HTML, path)
        tries(_expect_type, section, "layout", SECTION, path)
    structure = tries(tree_in, structure_in, html, path)
    found = tries(tree_in, layout_in, section, path)
    boxes = tries(boxes_beside, path.parent, reading.root)
    tries.settle()
    assert picture is not None
    assert structure is not None
    assert found is not None
    page = Page(envelope.id, path.parent, picture, structure, found[0], path, found[1], boxes, path.parent / BOXES)
    return page_sample(page, reading, size)


def _choose(envelopes: list[Envelope], listed: dict[str, list[str]], reading: Reading) -> dict[str, list[Any]]:
    """Return the envelopes of each part in the order of the manifest; remember what does not match it."""
    manifest = reading.root / MANIFEST
    by_id: dict[str, Envelope] = {}
    for each in envelopes:
        if each.id in by_id:
            first = reading.place(by_id[each.id].path)
            by_id[each.id] = Envelope(each.id, each.path, {}, Fault(each.path, f"the id of {first} again", "id"))
        else:
            by_id[each.id] = each
    wanted = {name for names in listed.values() for name in names}
    for name, each in by_id.items():
        if name not in wanted:
            reading.remark("not listed", each.path, f"{MANIFEST} names '{name}' in no split: left out")
    for part, names in listed.items():
        if not names:
            reading.remark("empty split", manifest, f"no sample is listed in '{part}'")
    missing = {
        name: Envelope(name, manifest, {}, Fault(manifest, f"no {EXAMPLE} has the id '{name}'", "manifest"))
        for name in wanted - set(by_id)
    }
    return {part: [by_id.get(name) or missing[name] for name in names] for part, names in listed.items()}


def screenshot_in(value: Any, path: Path, reading: Reading, size: int) -> Picture:
    named = tree_in(lambda item: fields(item, '"screenshot"'), value, path)
    where = named.get("path")
    if not isinstance(where, str) or not where:
        raise Fault(path, '"screenshot" needs a "path"', "screenshot")
    beside = path.parent / where
    picture_path = beside if beside.exists() or not (reading.root / where).exists() else reading.root / where
    picture = read_picture(picture_path, reading.root, size)
    for text in picture.remarks:
        reading.remark("picture", picture_path, text)
    told = tuple(named.get(side, real) for side, real in zip(("width", "height"), picture.size, strict=True))
    if told != picture.size:
        is_size = f"{picture.size[0]} x {picture.size[1]}"
        raise Fault(path, f'"screenshot" tells {told[0]} x {told[1]} pixels, the picture has {is_size}', "size")
    return picture


def _holds_layout(value: Any) -> bool:
    return isinstance(value, list) and any(name == "data" and is_layout(item) for name, item in value)


def _expect_type(value: Any, name: str, expected: str, path: Path) -> None:
    found = tree_in(lambda item: fields(item, f'"{name}"'), value, path).get("type")
    if found != expected:
        raise Fault(path, f'"{name}" has the type {found!r}; expected "{expected}"', "type")


def structure_in(value: Any) -> Node:
    return structure_of(fields(value, '"structure"').get("data"))


def layout_in(value: Any) -> tuple[Node, dict[str, str]]:
    held = fields(value, '"layout"')
    layout, props = layout_of(held.get("data"))
    return layout, {**props, **props_of(held.get("props"))}
