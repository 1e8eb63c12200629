"""New pages to be answered: pictures, sample folders, folders of either; the truth need not be there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from trainkit.errors import DataError, printable

from .alignment import align
from .dataset import LayoutDataset
from .envelope import layout_in, open_envelope, screenshot_in, structure_in
from .files import Fault, read_text
from .folders import EXAMPLE, tree_in
from .pictures import SUFFIXES, Picture, find_picture, read_picture
from .pix2code import parse_gui
from .reading import BadSamples, Reading
from .tree import NAMELESS, Node, node, parse_layout, parse_structure

MOST_NAMED = 20
SCREENSHOT, STRUCTURE, LAYOUT, GUI = "screenshot", "structure.json", "layout.json", ".gui"


def read_inputs(paths: Sequence[Path], size: int, on_bad_sample: BadSamples = "stop") -> LayoutDataset:
    """Return the pages in files and folders, in the order of the paths; raise DataError with the place.

    A page is a picture (beside it may lie the true NAME.gui), a folder with screenshot.png and, where they are known,
    structure.json and layout.json, or a folder with example.json. A folder of pages stands for all of them.

    Args:
        paths: files and folders.
        size: side of the square into which screenshots are fitted.
        on_bad_sample: stop at pages that cannot be read, or leave them out, which is told.
    """
    samples, faults = [], []
    for given in paths:
        path = Path(given)
        if not path.exists():
            raise DataError("there is no such input", where=printable(str(path)), do="name a picture or a folder")
        pages = list(_pages(path))
        if not pages:
            raise DataError(
                "no page was found",
                where=printable(str(path)),
                why=f"a page is a picture ({', '.join(SUFFIXES)}), or a folder with {SCREENSHOT}.png or {EXAMPLE}",
                do="name a page, or a folder that holds pages itself: folders below its pages are not searched",
            )
        for page in pages:
            try:
                samples.append(_read(page, size))
            except Fault as fault:
                faults.append(fault)
    if faults and (on_bad_sample == "stop" or not samples):
        raise _unreadable(faults, len(faults) + len(samples))
    left_out = [printable(f"left out: {fault.path}: {fault.reason}") for fault in faults]
    return LayoutDataset(_with_own_names(samples), warnings=left_out)


def _unreadable(faults: Sequence[Fault], pages: int) -> DataError:
    """Build the answer to pages that cannot be read: all of them at once, so that they are repaired at once."""
    them = "it" if len(faults) == 1 else "them"
    reasons = [f"{fault.path}: {fault.reason}" for fault in faults[:MOST_NAMED]]
    more = [f"... and {len(faults) - MOST_NAMED} more"] if len(faults) > MOST_NAMED else []
    return DataError(
        "an input cannot be read" if len(faults) == 1 else f"{len(faults)} of {pages} inputs cannot be read",
        where=printable(str(faults[0].path)) if len(faults) == 1 else "",
        why=printable(faults[0].reason if len(faults) == 1 else "\n".join([*reasons, *more])),
        do=f"repair or remove {them}, or leave {them} out by --on-bad-sample skip",
    )


def _pages(path: Path) -> Iterator[Path]:
    if path.is_file() or _is_page(path):
        yield path
    else:
        for inner in sorted(path.iterdir()):
            is_picture = inner.is_file() and inner.suffix.lower() in SUFFIXES
            if is_picture or (inner.is_dir() and _is_page(inner)):
                yield inner


def _is_page(folder: Path) -> bool:
    return (folder / EXAMPLE).exists() or _screenshot(folder) is not None


def _screenshot(folder: Path) -> Path | None:
    found, _ = find_picture(folder, SCREENSHOT)
    return found if found.exists() else None


def _read(page: Path, size: int) -> dict[str, Any]:
    page = page.resolve()
    if (page / EXAMPLE).exists():
        return _enveloped(page / EXAMPLE, size)
    folder = page if page.is_dir() else page.parent
    picture_path = _screenshot(page) if page.is_dir() else page
    assert picture_path is not None
    picture = read_picture(picture_path, folder, size)
    structure, layout, props = None, None, {}
    if page.is_dir():
        if (page / STRUCTURE).exists():
            structure = _parsed(page / STRUCTURE, folder, parse_structure)
        if (page / LAYOUT).exists():
            layout, props = _parsed(page / LAYOUT, folder, parse_layout)
    elif page.with_suffix(GUI).exists():
        layout = _parsed(page.with_suffix(GUI), folder, parse_gui)
    name = page.name if page.is_dir() else page.stem
    return _page(name, picture, structure, layout, props, picture_path)


def _enveloped(path: Path, size: int) -> dict[str, Any]:
    """Return the page of an example.json; its structure and layout need not be there."""
    envelope = open_envelope(path, path.parent)
    if envelope.fault is not None:
        raise envelope.fault
    picture = screenshot_in(envelope.content.get("screenshot"), path, Reading(path.parent), size)
    html, section = (envelope.content.get(name) for name in ("structure", "layout"))
    structure = None if html is None else tree_in(structure_in, html, path)
    layout, props = (None, {}) if section is None else tree_in(layout_in, section, path)
    return _page(envelope.id, picture, structure, layout, props, path)


def _page(
    name: str, picture: Picture, structure: Node | None, layout: Node | None, props: dict[str, str], source: Path
) -> dict[str, Any]:
    if structure is not None and layout is not None:
        try:
            align(structure, layout)
        except ValueError as error:
            raise Fault(source, f"the layout does not fit the structure: {error}", "source") from None
    return {
        "id": name,
        "image": picture.square,
        "size": picture.size,
        "structure": structure,
        "layout": node(NAMELESS) if layout is None else layout,
        "is_known": layout is not None,
        "props": props,
        "source": str(source),
        "hashes": {"screenshot": picture.hash},
    }


def _parsed(path: Path, root: Path, parse: Any) -> Any:
    try:
        return parse(read_text(path, root))
    except ValueError as error:
        raise Fault(path, str(error), "layout") from None


def _with_own_names(samples: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the samples with a number behind names that several have."""
    seen: dict[str, int] = {}
    named = []
    for sample in samples:
        name = sample["id"]
        seen[name] = seen.get(name, 0) + 1
        named.append(sample if seen[name] == 1 else {**sample, "id": f"{name}-{seen[name]}"})
    return named
