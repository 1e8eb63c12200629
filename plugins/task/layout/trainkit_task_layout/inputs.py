"""New pages to be answered: pictures, sample folders, folders of either; the truth need not be there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from trainkit.errors import DataError, printable

from .dataset import LayoutDataset
from .files import Fault, read_text
from .pictures import SUFFIXES, find_picture, read_picture
from .pix2code import parse_gui
from .tree import NAMELESS, node, parse_layout, parse_structure

SCREENSHOT, STRUCTURE, LAYOUT, GUI = "screenshot", "structure.json", "layout.json", ".gui"


def read_inputs(paths: Sequence[Path], size: int) -> LayoutDataset:
    """Return the pages in files and folders, in the order of the paths; raise DataError with the place.

    A page is a picture (beside it may lie the true NAME.gui), or a folder with screenshot.png and, where they are
    known, structure.json and layout.json. A folder of pages stands for all of them.

    Args:
        paths: files and folders.
        size: side of the square into which screenshots are fitted.
    """
    samples = []
    for given in paths:
        path = Path(given)
        if not path.exists():
            raise DataError("there is no such input", where=printable(str(path)), do="name a picture or a folder")
        pages = list(_pages(path))
        if not pages:
            raise DataError(
                "no page was found",
                where=printable(str(path)),
                why=f"a page is a picture ({', '.join(SUFFIXES)}), or a folder with {SCREENSHOT}.png",
            )
        for page in pages:
            try:
                samples.append(_read(page, size))
            except Fault as fault:
                raise DataError(
                    "an input cannot be read", where=printable(str(fault.path)), why=printable(fault.reason)
                ) from None
    return LayoutDataset(_with_own_names(samples))


def _pages(path: Path) -> Iterator[Path]:
    if path.is_file() or _screenshot(path) is not None:
        yield path
    else:
        for inner in sorted(path.iterdir()):
            if (inner.is_dir() and _screenshot(inner) is not None) or (
                inner.is_file() and inner.suffix.lower() in SUFFIXES
            ):
                yield inner


def _screenshot(folder: Path) -> Path | None:
    found, _ = find_picture(folder, SCREENSHOT)
    return found if found.exists() else None


def _read(page: Path, size: int) -> dict[str, Any]:
    page = page.resolve()
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
    return {
        "id": page.name if page.is_dir() else page.stem,
        "image": picture.square,
        "size": picture.size,
        "structure": structure,
        "layout": node(NAMELESS) if layout is None else layout,
        "is_known": layout is not None,
        "props": props,
        "source": str(picture_path),
        "hashes": {},
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
