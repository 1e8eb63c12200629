"""The numeric checks of 5.2, and what happens to the trees."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trainkit_augmenter_screenshot.colour import LUMA, colour_matrix, mean_luma, page_colour
from trainkit_augmenter_screenshot.draws import PROBABILITIES, Changes, draw, ranges_of
from trainkit_augmenter_screenshot.geometry import matrix_of, moved_boxes, perspective
from trainkit_augmenter_screenshot.screenshot import ScreenshotAugmenter
from trainkit_augmenter_screenshot.trees import moved_and_pruned, moved_in_place, walk


def shares(x0, y0, x1, y1, side=100):
    return [(x0 + x1) / 2 / side, (y0 + y1) / 2 / side, (x1 - x0) / side, (y1 - y0) / side]


def edges(box, side=100):
    x, y, width, height = (side * value for value in box)
    return [x - width / 2, y - height / 2, x + width / 2, y + height / 2]


def tree(key, *children, box=None, **attributes):
    return {"key": key, "children": list(children), "attributes": attributes | ({"box": box} if box else {})}


def boxes_in(root):
    return {node["key"]: node["attributes"].get("box") for node in walk(root)}


# --- geometry


def test_a_quarter_turn_moves_a_box_as_the_reference_says():
    matrix = matrix_of(Changes(rotation=90.0), 100, 100)
    (box,), (kept,) = moved_boxes(np.array([shares(20, 40, 40, 60)]), matrix, 100, 100)
    assert edges(box) == pytest.approx([40, 60, 60, 80])
    assert kept
    boxes = np.array([shares(20, 40, 40, 60), shares(5, 10, 30, 90)])
    turned = boxes
    for _ in range(4):
        turned, _ = moved_boxes(turned, matrix, 100, 100)
    assert turned == pytest.approx(boxes, abs=1e-12)


@pytest.mark.parametrize(("degrees", "growth"), [(2, 1.0698), (5, 1.1736), (10, 1.3420), (15, 1.5), (45, 2.0)])
def test_the_hull_of_a_square_grows_as_the_reference_says(degrees, growth):
    matrix = matrix_of(Changes(rotation=float(degrees)), 100, 100)
    (box,), _ = moved_boxes(np.array([shares(40, 40, 60, 60)]), matrix, 100, 100)
    assert box[2] * box[3] / 0.04 == pytest.approx(growth, abs=5e-5)


@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 2, 3, 4]))
def test_there_and_back_moves_nothing_and_nothing_is_mirrored(seed, phase):
    certain = {**PROBABILITIES, "spatial": 1.0, "perspective": 1.0, "corners": 1.0}
    matrix = matrix_of(draw(ranges_of(phase), certain, (512,), np.random.default_rng(seed)), 512, 400)
    corners = np.array([[0, 0, 1], [512, 0, 1], [512, 400, 1], [0, 400, 1.0]]).T
    there = matrix @ corners
    back = np.linalg.inv(matrix) @ (there / there[2])
    assert np.abs(back / back[2] - corners).max() < 1e-6
    assert (there[2] > 0).all()
    x, y = (there / there[2])[:2]
    area = 0.5 * (x * np.roll(y, -1) - np.roll(x, -1) * y).sum()
    assert area > 0, "the corners keep their sense of rotation"


def test_the_perspective_moves_the_corners_inwards_by_their_shifts():
    shifts = (0.05, 0.1, 0.07, 0.12, 0.15, 0.05, 0.1, 0.06)
    matrix = perspective(shifts, 200, 100)
    corners = np.array([[0, 0, 1], [200, 0, 1], [200, 100, 1], [0, 100, 1.0]]).T
    moved = matrix @ corners
    places = (moved[:2] / moved[2]).T
    assert places == pytest.approx(np.array([[10, 10], [186, 12], [170, 95], [20, 94]]))


def test_order_is_centre_scale_rotate_shift():
    matrix = matrix_of(Changes(rotation=90.0, scale=2.0, shift=(0.1, 0.0)), 100, 100)
    # 10 to the right of the centre: twice as far, turned upwards, then 10 to the right.
    assert matrix @ [60, 50, 1] == pytest.approx([60, 30, 1])


@pytest.mark.parametrize(
    ("box", "shift", "kept"),
    [
        (shares(0, 0, 20, 20), -0.13, True),  # 7 of 20 are left: 0.35
        (shares(0, 0, 20, 20), -0.15, False),  # 5 of 20: 0.25
        (shares(0, 40, 4, 60), -0.019, True),  # 2.1 pixels are left
        (shares(0, 40, 4, 60), -0.021, False),  # 1.9 pixels are left
        (shares(50, 50, 50, 60), 0.01, False),  # no area
    ],
)
def test_what_is_hardly_seen_is_lost(box, shift, kept):
    matrix = matrix_of(Changes(shift=(shift, 0.0)), 100, 100)
    (moved,), (is_kept,) = moved_boxes(np.array([box]), matrix, 100, 100)
    assert is_kept == kept
    assert edges(moved)[0] >= -1e-9


def test_no_boxes_are_no_boxes():
    moved, kept = moved_boxes(np.zeros((0, 4)), np.eye(3), 10, 10)
    assert moved.shape == (0, 4)
    assert kept.shape == (0,)


# --- trees


LEFT = matrix_of(Changes(shift=(-0.5, 0.0)), 100, 100)


def test_a_lost_part_of_a_layout_goes_with_its_subtree_and_numbers_close_up():
    layout = tree(
        "section@a",
        tree("column@b", tree("text@c", box=shares(5, 5, 30, 30)), box=shares(0, 0, 40, 50)),
        tree("column$1@d", tree("text@e", box=shares(60, 5, 80, 30)), box=shares(55, 0, 90, 50)),
        tree("column$2", tree("text@f", box=shares(60, 55, 80, 80))),
        tree("grid@g", tree("text@h", box=shares(5, 55, 30, 80))),
        box=shares(0, 0, 100, 100),
    )
    result = moved_and_pruned(layout, LEFT, 100, 100)
    assert [node["key"] for node in walk(result)] == ["section@a", "column@d", "text@e", "column$1", "text@f"]
    assert edges(boxes_in(result)["text@e"]) == pytest.approx([10, 5, 30, 30])
    assert "box" not in result["children"][1]["attributes"]


def test_a_layout_of_which_nothing_is_left_is_none():
    part = tree("text", box=shares(5, 5, 30, 30))
    assert moved_and_pruned(tree("", part), LEFT, 100, 100) is None
    assert moved_and_pruned(part, LEFT, 100, 100) is None


def test_a_lost_node_of_the_structure_stays_without_its_box_and_without_those_below():
    structure = tree(
        "div.a",
        tree("div.b", tree("p.c", box=shares(60, 5, 80, 30), text="go"), box=shares(0, 0, 40, 50)),
        tree("p.d", box=shares(60, 40, 80, 60), src="x"),
        box=shares(0, 0, 100, 100),
    )
    result = moved_in_place(structure, LEFT, 100, 100)
    assert [node["key"] for node in walk(result)] == [node["key"] for node in walk(structure)]
    boxes = boxes_in(result)
    assert boxes["div.b"] is None
    assert boxes["p.c"] is None
    assert edges(boxes["p.d"]) == pytest.approx([10, 40, 30, 60])
    assert result["children"][0]["children"][0]["attributes"] == {"text": "go"}
    assert result["children"][1]["attributes"]["src"] == "x"


def test_a_layout_keeps_its_parts_where_a_structure_still_has_them():
    image = np.full((100, 100, 3), 200, np.uint8)
    structure = tree("div.a", tree("p.b", box=shares(5, 5, 30, 30)), tree("p.c", box=shares(60, 60, 80, 85)))
    parts = tree("text@p.b", box=shares(5, 5, 30, 30)), tree("text@p.c", box=shares(60, 60, 80, 85))
    layout = tree("section@div.a", *parts)
    ranges = {"shift": (-0.29, -0.29), "scale": (1.0, 1.0), "rotation": (0.0, 0.0)}
    augment = ScreenshotAugmenter(ranges=ranges, probabilities={"spatial": 1.0, "perspective": 0.0})
    both = {"image": image, "structure": structure, "layout": layout}
    result = augment(both, np.random.default_rng(0))
    assert [node["key"] for node in walk(result["layout"])] == ["section@div.a", "text@p.b", "text@p.c"]
    for tree_name in ("structure", "layout"):
        lost, kept = result[tree_name]["children"]
        assert "box" not in lost["attributes"]
        assert edges(kept["attributes"]["box"]) == pytest.approx([31, 31, 51, 56])
    alone = augment({**both, "structure": None}, np.random.default_rng(0))
    assert [node["key"] for node in walk(alone["layout"])] == ["section@div.a", "text@p.c"]


@st.composite
def boxed_trees(draw_):
    """Nested boxes; some nodes have none, some children reach out of their parents."""
    number = iter(range(1000))

    def make(depth):
        x, y = draw_(st.floats(0.1, 0.9)), draw_(st.floats(0.1, 0.9))
        width, height = draw_(st.floats(0.0, 0.2)), draw_(st.floats(0.0, 0.2))
        box = [x, y, width, height] if draw_(st.integers(0, 4)) else None
        children = [make(depth + 1) for _ in range(draw_(st.integers(0, 3 if depth < 3 else 0)))]
        return tree(f"column${next(number)}", *children, box=box)

    return make(0)


@given(boxed_trees(), st.integers(0, 2**32 - 1))
@settings(deadline=None)
def test_boxes_stay_in_the_picture_and_parents_hold_their_children(root, seed):
    matrix = matrix_of(draw(ranges_of(1), PROBABILITIES, (512,), np.random.default_rng(seed)), 300, 300)
    for move in (moved_in_place, moved_and_pruned):
        result = move(root, matrix, 300, 300)
        for node in walk(result) if result else ():
            box = node["attributes"].get("box")
            if box is None:
                continue
            x0, y0, x1, y1 = edges(box, 1)
            assert min(x0, y0) >= -1e-9
            assert max(x1, y1) <= 1 + 1e-9
            assert min(box[2:]) * 300 >= 2 - 1e-6
            for below in walk(node):
                if (inner := below["attributes"].get("box")) is not None:
                    assert np.all(np.array(edges(inner, 1)[:2]) >= np.array([x0, y0]) - 1e-9)
                    assert np.all(np.array(edges(inner, 1)[2:]) <= np.array([x1, y1]) + 1e-9)


def test_rotation_is_small_where_there_are_boxes():
    image = np.zeros((64, 64, 3), dtype=np.uint8)
    only = {"spatial": 1.0, "colour": 0.0, "resolution": 0.0, "degradation": 0.0, "perspective": 0.0}
    still = {"scale": (1.0, 1.0), "shift": (0.0, 0.0)}
    boxed = {"image": image, "structure": None, "layout": tree("image", box=[0.5, 0.5, 0.5, 0.5])}
    sides = []
    for seed in range(60):
        augment = ScreenshotAugmenter(ranges=still, probabilities=only)
        box = augment(boxed, np.random.default_rng(seed))["layout"]["attributes"]["box"]
        sides.append(box[2] / 0.5)
    most = np.cos(np.deg2rad(5)) + np.sin(np.deg2rad(5))
    assert 0.97 * most < max(sides) <= most + 1e-9


def test_geometry_that_would_lose_the_whole_layout_is_left_out():
    away = {"shift": (0.9, 0.9)}
    sample = {
        "image": np.full((64, 64, 3), 200, np.uint8),
        "structure": tree("div", box=[0.5, 0.5, 0.5, 0.5]),
        "layout": tree("image", box=[0.5, 0.5, 0.5, 0.5]),
    }
    augment = ScreenshotAugmenter(ranges=away, probabilities={"spatial": 1.0, "colour": 1.0, "perspective": 0.0})
    result, groups = augment.changes(sample, np.random.default_rng(0))
    assert result["layout"] == sample["layout"]
    assert result["structure"] == sample["structure"]
    assert "spatial" not in groups
    assert "colour" in groups


def test_boxes_that_do_not_move_are_not_touched():
    augment = ScreenshotAugmenter(probabilities={"spatial": 0.0, "colour": 1.0, "perspective": 0.0})
    sample = {"image": np.full((64, 64, 3), 200, np.uint8), "structure": None, "layout": tree("image", box=[0.5] * 4)}
    assert augment(sample, np.random.default_rng(0))["layout"] is sample["layout"]


# --- colour


def coloured(pixel, image_mean=100.0, **changes):
    matrix = colour_matrix(Changes(**changes), image_mean)
    return matrix[:, :3] @ pixel + matrix[:, 3]


def test_colours_change_as_they_are_defined():
    pixel = np.array([200.0, 100.0, 50.0])
    luma = LUMA @ pixel
    assert coloured(pixel, brightness=1.2) == pytest.approx(1.2 * pixel)
    assert coloured(pixel, contrast=0.8) == pytest.approx(0.8 * pixel + 0.2 * 100)
    assert coloured(pixel, saturation=0.0) == pytest.approx(np.full(3, luma))
    assert coloured(pixel, saturation=1.1) == pytest.approx(luma + 1.1 * (pixel - luma))
    assert coloured(pixel, brightness=1.2, contrast=0.8) == pytest.approx(0.96 * pixel + 0.2 * 120)


@given(st.floats(-0.5, 0.5))
def test_a_turn_of_the_hue_keeps_luma_and_greys(hue):
    pixel = np.array([200.0, 100.0, 50.0])
    if hue:
        assert LUMA @ coloured(pixel, hue=hue) == pytest.approx(LUMA @ pixel)
        assert coloured(np.full(3, 77.0), hue=hue) == pytest.approx(np.full(3, 77.0))
    third = coloured(coloured(coloured(pixel, hue=1 / 3), hue=1 / 3), hue=1 / 3)
    assert third == pytest.approx(pixel)


def test_a_positive_turn_leads_from_red_towards_yellow():
    red = np.array([200.0, 40.0, 40.0])
    there, back = coloured(red, hue=0.05), coloured(red, hue=-0.05)
    assert there[1] > there[2]
    assert back[1] < back[2]


def test_no_change_of_colour_is_no_matrix():
    assert colour_matrix(Changes(rotation=3.0), 100.0) is None


def test_mean_luma_and_page_colour():
    image = np.zeros((8, 8, 3), dtype=np.uint8)
    image[..., 1] = 100
    assert mean_luma(image) == pytest.approx(58.7)
    image[2:6, 2:6] = 255
    assert page_colour(image) == (0, 100, 0)
