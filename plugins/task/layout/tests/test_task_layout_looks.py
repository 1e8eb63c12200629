"""Pictures for people: labels that can be read, and stay where they can be seen."""

from __future__ import annotations

import numpy as np
import torch
from trainkit.reporting.contactsheet import CELL, fitted
from trainkit_task_layout.attention import TILE, picture_of_looks
from trainkit_task_layout.looks import COLOURS, LABEL, SIDE, colour_of, free_place, with_boxes
from trainkit_task_layout.tree import node

PAGE = (100, 50)


def coloured(picture):
    """Return rows and columns of all pixels of a label's colour."""
    return np.nonzero(np.isin(picture.reshape(-1, 3) @ [65536, 256, 1], CODES).reshape(picture.shape[:2]))


CODES = [red * 65536 + green * 256 + blue for red, green, blue in COLOURS]


def test_a_label_lies_where_it_should_if_the_place_is_free():
    assert free_place((10, 5), (30, 10), PAGE, []) == (10, 5, 40, 15)
    assert free_place((10, 5), (30, 10), PAGE, [(10, 15, 40, 25), (40, 5, 60, 15)]) == (10, 5, 40, 15)


def test_a_label_at_an_edge_is_moved_into_the_picture():
    assert free_place((90, 45), (30, 10), PAGE, []) == (70, 40, 100, 50)
    assert free_place((-5, -5), (30, 10), PAGE, []) == (0, 0, 30, 10)


def test_a_label_goes_beside_those_that_are_taken_and_is_left_out_where_nothing_is_free():
    taken = [(35.0, 0.0, 60.0, 12.0), (8.0, 3.0, 30.0, 13.0)]
    assert free_place((10, 5), (30, 10), PAGE, taken) == (61, 5, 91, 15)
    assert free_place((10, 5), (50, 10), PAGE, taken) is None
    assert free_place((0, 0), (101, 10), PAGE, []) is None


def test_the_base_of_a_box_at_the_right_edge_is_written_whole():
    def drawn(base, x):
        box = [x, 0.5, 0.02, 0.02]
        return with_boxes(None, node("", [node(base, [], {"box": box})]))

    rows, columns = coloured(drawn("icon-magnifying-glass--search", 0.98))
    whole_rows, whole_columns = coloured(drawn("icon-magnifying-glass--search", 0.2))
    assert columns.max() < SIDE
    assert np.ptp(columns) >= 0.95 * np.ptp(whole_columns) - 0.02 * SIDE
    assert np.ptp(rows) >= LABEL - 5
    assert np.ptp(whole_rows) >= LABEL - 5


def test_no_label_hides_a_small_box():
    box = [0.3, 0.3, 0.02, 0.02]
    neighbour = [0.29, 0.3, 0.02, 0.02]
    for parts in ([box], [neighbour, box], [[0.35, 0.3, 0.2, 0.1], box], [[0.99, 0.99, 0.02, 0.02]]):
        layout = node("", [node("icon-three-bars--menu", [], {"box": part}) for part in parts])
        picture = with_boxes(None, layout)
        x, y, wide, high = np.array(parts[-1]) * SIDE
        left, top = round(x - wide / 2), round(y - high / 2)
        edge = picture[top : top + 2, left : left + int(wide) - 1].reshape(-1, 3)
        assert all(tuple(pixel) == colour_of("icon-three-bars--menu") for pixel in edge)


def test_bases_below_pictures_of_attention_are_read_in_a_sheet():
    image = np.full((32, 32, 3), 90, dtype=np.uint8)
    looks = [(base, torch.eye(4).flatten()) for base in ("heading", "icon-magnifying-glass--search", "map", "heading")]
    sheet = picture_of_looks(image, looks)
    assert sheet.shape[1] == 3 * TILE
    cell = np.asarray(fitted(sheet))
    assert cell.shape[1] == CELL
    for column in range(3):
        left = column * CELL // 3
        caption = cell[CELL // 3 + 1 :, left : left + CELL // 3]
        dark = np.nonzero((caption < 120).all(-1))
        assert np.ptp(dark[0]) >= 7, "a base is at least eight pixels high"
        assert dark[1].max() < CELL // 3 - 1, "and ends within its picture"
    assert picture_of_looks(image, []) is None
