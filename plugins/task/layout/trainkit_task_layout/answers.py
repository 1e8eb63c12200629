"""What a model says of a page, as files and as something to look at."""

from __future__ import annotations

import json
from pathlib import PurePath
from typing import Any

import numpy as np
from trainkit.contracts import Answer, Panel, Sample

from .linear import written
from .looks import dsl, outline, with_boxes
from .tree import NAMELESS, Node, dump_tree, node, walk


def answer(sample: Sample, layout: Node, writes_dsl: bool, attention: np.ndarray | None = None) -> Answer:
    """Return the answer to a sample.

    Args:
        sample: with the true layout, or None in its place.
        layout: what the model generated.
        writes_dsl: whether the layout is also written in the language of pix2code.
        attention: a picture of where the model looked, if it is known.
    """
    truth = sample["layout"] if sample.get("is_known", True) else None
    tree = layout if layout["key"] != NAMELESS else node("layout", layout["children"])
    files = {".json": dump_tree(tree) + "\n"}
    if _has_boxes(layout):
        files[".boxes.json"] = json.dumps(plain(tree)) + "\n"
    if writes_dsl:
        files[".gui"] = dsl(layout)
    return Answer(
        name=PurePath(str(sample["id"])).as_posix().replace("/", "-"),
        files=files,
        data=_data(sample, layout, tree, truth),
        panels=_panels(sample, layout, truth, attention),
    )


def _data(sample: Sample, layout: Node, tree: Node, truth: Node | None) -> dict[str, Any]:
    data: dict[str, Any] = {"source": str(sample["source"]), "layout": plain(tree)}
    if truth is not None:
        data["is_right"] = written(layout) == written(truth)
    return data


def plain(part: Node) -> dict[str, Any]:
    """Return a tree as JSON objects with key, box where there is one, and children."""
    box = part["attributes"].get("box")
    where = {} if box is None else {"box": [round(float(side), 5) for side in box]}
    return {"key": part["key"], **where, "children": [plain(child) for child in part["children"]]}


def _panels(sample: Sample, layout: Node, truth: Node | None, attention: np.ndarray | None) -> list[Panel]:
    panels = [Panel("screenshot", with_boxes(sample["image"], None))] if sample["image"] is not None else []
    if truth is not None:
        panels.append(Panel("truth", outline(truth)))
        if _has_boxes(truth):
            panels.append(Panel("truth: boxes", with_boxes(sample["image"], truth)))
    panels.append(Panel("prediction", outline(layout)))
    if _has_boxes(layout):
        panels.append(Panel("prediction: boxes", with_boxes(sample["image"], layout)))
    if attention is not None:
        panels.append(Panel("attention", attention))
    return panels


def _has_boxes(layout: Node) -> bool:
    return any("box" in part["attributes"] for part in walk(layout))
