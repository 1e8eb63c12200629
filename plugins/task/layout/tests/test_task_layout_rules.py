"""Every rule of a layout, each with a sample made to break it; places, order and quality of what keeps them."""

from __future__ import annotations

import json

import numpy as np
import pytest
from trainkit.errors import DataError
from trainkit_task_layout.dataset import LayoutDataset
from trainkit_task_layout.detect import read_data
from trainkit_task_layout.geometry import (
    corners,
    fit_to_square,
    from_corners,
    hull,
    inside_page,
    reading_order,
    with_layout_boxes,
)
from trainkit_task_layout.quality import coverage, quality
from trainkit_task_layout.rules import BASES, check_layout, check_props, out_of_order
from trainkit_task_layout.samples import place_boxes
from trainkit_task_layout.sections import layout_of, props_of, random_section, write_sections
from trainkit_task_layout.tree import MAX_TREE, Invalid, node, parse_layout, parse_structure, walk


@pytest.fixture
def folder(tmp_path):
    write_sections(tmp_path / "data", count=10)
    return tmp_path / "data"


def read(data, **options):
    settings = {"on_bad_sample": "stop", "max_bad_fraction": 0.01, **options}
    return read_data(data, 64, **settings)


def refused(data):
    with pytest.raises(DataError) as caught:
        read(data)
    return str(caught.value)


STRUCTURE = '{"section.a": {"div.b": {"p": "words", "p": "more"}, "img.c": {"src": "x.jpg"}}}'
GOOD = '{"section@section.a": {"wrapper@div.b": {"paragraph@p": "", "paragraph@p": {}}, "image@img.c": ""}}'

# What is broken -> (structure, layout, what the message says).
BROKEN = {
    "unknown base": (STRUCTURE, '{"section@section.a": {"paragaph@p": ""}}', "did you mean 'paragraph'?"),
    "far from any base": (
        STRUCTURE,
        '{"section@section.a": {"qqq@p": ""}}',
        "'qqq' in 'qqq@p' is not a base (there are section,",
    ),
    "no source": (STRUCTURE, '{"section@section.a": {"paragraph": ""}}', "write paragraph@SOURCE"),
    "unknown source": (
        STRUCTURE,
        '{"section@section.a": {"paragraph@p.z": ""}}',
        "the source 'p.z' is not in the structure",
    ),
    "a source too often": (
        STRUCTURE,
        '{"section@section.a": {"image@img.c": "", "icon@img.c": ""}}',
        "'img.c' is used more often",
    ),
    "no chain": (STRUCTURE, '{"section@section.a@p": ""}', "not a chain of parent and child"),
    "a leaf with words": (
        STRUCTURE,
        '{"section@section.a": {"paragraph@p": "words"}}',
        'holds a text; expected "" or {}',
    ),
    "a leaf with a number": (
        STRUCTURE,
        '{"section@section.a": {"paragraph@p": 7}}',
        'holds a number; expected "" or {}',
    ),
    "a leaf with null": (STRUCTURE, '{"section@section.a": {"paragraph@p": null}}', 'holds null; expected "" or {}'),
    "two roots": (STRUCTURE, '{"section@section.a": "", "section@div.b": ""}', "expected one root, found 2"),
    "no root": (STRUCTURE, "{}", "expected one root, found 0"),
    "a text": (STRUCTURE, '"section"', "expected an object, found a text"),
    "only properties": (STRUCTURE, '{"props": {}}', "expected an object, found null"),
    "two trees": (STRUCTURE, '{"structure": {"section@div.b": ""}, "structure": {}}', "'structure' stands twice"),
    "no number": (STRUCTURE, '{"section@section.a": {"column$x": ""}}', "'column$x' is not a layout key"),
    "unknown property": (
        STRUCTURE,
        f'{{"structure": {GOOD}, "props": {{"bx": "p"}}}}',
        "'bx' is not a page property: bi, bo, bv",
    ),
    "property of nothing": (
        STRUCTURE,
        f'{{"structure": {GOOD}, "props": {{"bi": "p.z"}}}}',
        "bi (background image) names 'p.z'",
    ),
    "property is a list": (
        STRUCTURE,
        f'{{"structure": {GOOD}, "props": {{"bi": []}}}}',
        '"props" must be an object of texts',
    ),
    "NaN": (STRUCTURE, '{"section@section.a": NaN}', "NaN is not JSON"),
    "endless number": ('{"section.a": 1e999}', GOOD, "holds a number; expected an object or a text"),
    "a long number": ('{"section.a": ' + "9" * 5000 + "}", GOOD, "structure.json: "),
    "a list as tree": ('{"section.a": ["p"]}', GOOD, "holds a list; expected an object or a text"),
    "too deep": ('{"div":' * 101 + '""' + "}" * 101, GOOD, "nested deeper than 100 levels"),
    "far too deep": (STRUCTURE, '{"a":' * 100_000, "nested deeper than 100 levels"),
    "too large": ('{"div": {' + '"p": "", ' * MAX_TREE + '"p": ""}}', GOOD, "a tree has at most 5000"),
    "half a file": (STRUCTURE, GOOD[:40], "layout.json: "),
}


@pytest.mark.parametrize("rule", BROKEN)
def test_a_broken_rule_names_the_file_and_what_is_wrong(folder, rule):
    structure, layout, reason = BROKEN[rule]
    target = folder / "train" / "section-0002"
    (target / "boxes.json").unlink()
    (target / "structure.json").write_text(structure)
    (target / "layout.json").write_text(layout)
    message = refused(folder)
    assert "1 of 10 samples cannot be used" in message
    assert reason in message
    assert "train/section-0002/" in message
    splits = read(folder, on_bad_sample="skip", max_bad_fraction=0.1)
    assert len(splits.train) == 6
    assert reason.split(": ")[-1] in splits.skipped[0][1]


def test_the_good_one_of_them_is_read(folder):
    target = folder / "train" / "section-0002"
    (target / "boxes.json").unlink()
    (target / "structure.json").write_text(STRUCTURE)
    (target / "layout.json").write_text(f'{{"structure": {GOOD}, "props": {{"bi": "img.c"}}}}')
    sample = read(folder).train[2]
    assert [current["key"] for current in walk(sample["layout"])] == [
        "section@section.a", "wrapper@div.b", "paragraph@p", "paragraph@p", "image@img.c",
    ]  # fmt: skip
    assert sample["props"] == {"bi": "img.c"}
    assert sample["quality"] == 1.0
    assert not any(current["attributes"] for current in walk(sample["layout"]))


def test_there_are_23_bases():
    assert len(BASES) == len(set(BASES)) == 23


@pytest.mark.parametrize("key", ["column", "column$1", "column$7", "freedom", "freedom$1", "column$1@p", "qr@p"])
def test_columns_and_free_areas_may_stand_without_sources(key):
    check_layout(node("section@p", [node(key)]))


@pytest.mark.parametrize("base", sorted(set(BASES) - {"column", "freedom"}))
def test_all_other_bases_need_a_source(base):
    check_layout(node(f"{base}@div"))
    with pytest.raises(Invalid, match="names no source") as caught:
        check_layout(node(f"{base}$1"))
    assert caught.value.rule == "sources"


def test_sources_and_properties_are_compared_without_annotations(folder):
    target = folder / "train" / "section-0002"
    (target / "boxes.json").unlink()
    structure = STRUCTURE.replace("div.b", "div.b['d:flex']['col:3']").replace("img.c", "img.c['zIndex:2']")
    (target / "structure.json").write_text(structure)
    layout = GOOD.replace("@div.b", "@div.b['d:grid']")
    (target / "layout.json").write_text(f'{{"structure": {layout}, "props": {{"bi": "img.c"}}}}')
    sample = read(folder).train[2]
    assert sample["layout"]["children"][0]["key"] == "wrapper@div.b"


def test_generated_sections_keep_every_rule():
    seen = set()
    for seed in range(200):
        structure = random_section(np.random.default_rng(seed))
        layout, props = layout_of(structure), props_of(structure)
        check_layout(layout)
        check_props(props, structure)
        seen |= set(props)
    assert seen == {"bi", "bo", "bv"}


# --- boxes ----------------------------------------------------------------------------------------------------------


def test_boxes_of_layout_nodes_are_those_of_their_sources():
    structure = parse_structure('{"div.a": {"div.b": {"p": "", "p": ""}, "img": ""}}')
    boxes = [(0.5, 0.5, 1, 1), (0.3, 0.5, 0.5, 0.8), (0.3, 0.3, 0.4, 0.2), (0.3, 0.7, 0.4, 0.2), (0.8, 0.5, 0.2, 0.2)]
    placed = place_boxes(structure, boxes, (100, 100), None)
    layout, _ = parse_layout(
        '{"section@div.a@div.b": {"column": {"paragraph@p": "", "paragraph@p": ""}, "image@img": ""}}'
    )
    found = with_layout_boxes(layout, placed, [(0, 1), (), (2,), (3,), (4,)])
    held = {current["key"]: current["attributes"]["box"] for current in walk(found)}
    # A chain is as large as its outermost node, a node without sources as what it holds.
    assert held["section@div.a@div.b"] == pytest.approx([0.5, 0.5, 1, 1])
    assert held["column"] == pytest.approx([0.3, 0.5, 0.4, 0.6])
    assert held["image@img"] == pytest.approx([0.8, 0.5, 0.2, 0.2])
    assert all("box" not in current["attributes"] for tree in (structure, layout) for current in walk(tree))
    assert with_layout_boxes(layout, structure, [(0, 1), (), (2,), (3,), (4,)]) is layout


def test_boxes_of_read_samples_are_shares_of_the_square(folder):
    for sample in read(folder).train.samples:
        root = sample["structure"]["attributes"]["box"]
        width, height = sample["size"]
        assert corners(root)[0] == pytest.approx(0, abs=1e-4)
        assert corners(root)[2] == pytest.approx(width / max(width, height), abs=1e-4)
        assert sample["layout"]["attributes"]["box"] == pytest.approx(root, abs=1e-9)
        assert all("box" in current["attributes"] for current in walk(sample["layout"]))


def test_boxes_belong_to_the_fingerprint(folder):
    before = read(folder).fingerprint
    path = folder / "train" / "section-0000" / "boxes.json"
    boxes = json.loads(path.read_text())
    boxes[-1][2] *= 0.5
    path.write_text(json.dumps(boxes))
    assert read(folder).fingerprint != before


def test_corners_and_hulls():
    assert corners((0.5, 0.4, 0.2, 0.4)) == pytest.approx((0.4, 0.2, 0.6, 0.6))
    assert from_corners(*corners((0.5, 0.4, 0.2, 0.4))) == pytest.approx((0.5, 0.4, 0.2, 0.4))
    assert hull([(0.1, 0.1, 0.2, 0.2), (0.8, 0.5, 0.2, 0.2)]) == pytest.approx((0.45, 0.3, 0.9, 0.6))
    assert fit_to_square((0.5, 0.5, 1, 1), (200, 100)) == [0.5, 0.25, 1, 0.5]


@pytest.mark.parametrize(
    ("edges", "fits"),
    [
        ((0, 0, 1, 1), True),
        ((-0.0005, 0, 1.0005, 1), True),
        ((-0.01, 0, 1, 1), False),
        ((0.5, 0, 0.5, 1), False),
        ((0, 0, float("nan"), 1), False),
        ((0, 0, float("inf"), 1), False),
    ],
)
def test_only_boxes_on_the_page_count(edges, fits):
    box = inside_page(*edges)
    assert (box is not None) == fits
    assert box is None or box == pytest.approx((0.5, 0.5, 1, 1))


# --- order ----------------------------------------------------------------------------------------------------------


def test_reading_order_goes_by_rows():
    boxes = [(0.8, 0.12, 0.1, 0.1), (0.2, 0.1, 0.1, 0.1), (0.5, 0.9, 0.1, 0.1), (0.5, 0.11, 0.1, 0.1)]
    assert reading_order(boxes) == [1, 3, 0, 2]
    assert reading_order([]) == []


def test_a_tall_picture_does_not_swallow_the_lines_beside_it():
    picture, first, second = (0.75, 0.5, 0.4, 0.8), (0.2, 0.2, 0.3, 0.1), (0.2, 0.8, 0.3, 0.1)
    assert reading_order([second, first, picture]) == [2, 1, 0]
    beside = (0.2, 0.5, 0.3, 0.7)
    assert reading_order([picture, beside]) == [1, 0]


def test_children_out_of_order_are_remarked(folder):
    target = folder / "train" / "section-0002"
    (target / "boxes.json").unlink()
    (target / "structure.json").write_text(STRUCTURE)
    (target / "layout.json").write_text('{"section@section.a": {"image@img.c": "", "column": {"paragraph@p": ""}}}')
    splits = read(folder)
    assert splits.warnings == (
        "train/section-0002/layout.json: the children of 'section@section.a' do not stand in reading order",
    )
    assert splits.train.quality[2] == pytest.approx(2 / 3 * 0.5)


def test_boxes_decide_about_the_order_where_there_are_any():
    left, right = {"box": [0.2, 0.5, 0.2, 0.2]}, {"box": [0.8, 0.5, 0.2, 0.2]}
    layout = node("section@a", [node("image@b", [], right), node("image@c", [], left)])
    assert out_of_order(layout, [(0,), (1,), (2,)]) == ["section@a"]
    layout["children"].reverse()
    assert out_of_order(layout, [(0,), (2,), (1,)]) == []


# --- quality --------------------------------------------------------------------------------------------------------


def test_coverage_counts_leaves_that_the_layout_accounts_for():
    structure = parse_structure('{"div": {"ul": {"li": "", "li": ""}, "p": "", "span.deco": "", "i": ""}}')
    layout, _ = parse_layout('{"section@div": {"list@ul": "", "paragraph@p": ""}}')
    # Both li through the list, and p; not the span, not the i.
    assert coverage(structure, layout, [(0,), (1,), (4,)]) == pytest.approx(3 / 5)
    assert quality(structure, layout, [(0,), (1,), (4,)], (200, 100), 256) == pytest.approx(3 / 5 * 200 / 256)
    assert quality(structure, layout, [(0,), (1,), (4,)], (1000, 100), 256, disordered=1) == 0.0
    assert quality(None, layout, (), None, 256) == 1.0


def test_quality_of_a_data_set_lies_between_0_and_1(folder):
    splits = read(folder)
    for _, part in splits.items():
        assert len(part.quality) == len(part)
        assert all(0 < value <= 1 for value in part.quality)
    assert min(splits.train.quality) < max(splits.train.quality)
    assert LayoutDataset([{"id": "a", "layout": node("section@div")}]).quality == [1.0]
