"""Layout quality as a metric: what is counted, what is NaN, and the trap of predicting nothing."""

from __future__ import annotations

import math

import pytest
from trainkit.binding import bind_metric
from trainkit.registry import Registry
from trainkit.testing import MetricConformance
from trainkit_metric_layout_quality.layout_quality import LayoutQuality

NOTHING = {"key": "", "children": [], "attributes": {}}
A, B, C = (0.25, 0.25, 0.5, 0.5), (0.5, 0.5, 0.5, 0.5), (0.8, 0.2, 0.2, 0.2)
GEOMETRY = (
    "element-iou", "max-iou", "alignment", "alignment-target", "overlap", "overlap-target", "overlap-iou",
)  # fmt: skip


def node(key, *children, box=None):
    return {"key": key, "children": list(children), "attributes": {} if box is None else {"box": list(box)}}


PAGE = node(
    "section.hero['d:flex']",
    node("div.inner", node("h1"), node("a.btn['col:2']"), node("a.btn")),
)
TRUE = node("section@section.hero@div.inner", node("heading@h1"), node("button@a.btn"), node("button@a.btn"))
FLAT = node("", node("image", box=A), node("text", box=B), node("text", box=C))


class TestLayoutQualityConformance(MetricConformance):
    component = "layout-quality"
    cases = (
        (
            {
                # Right; one renamed, with a source that is not there, and one missing; nothing at all.
                "predicted_layouts": [
                    TRUE,
                    node("section@section.hero@div.inner", node("heading@h2"), node("button@a.btn")),
                    NOTHING,
                ],
                "target_layouts": [TRUE, TRUE, TRUE],
                "structures": [PAGE, PAGE, PAGE],
            },
            {
                "tree-similarity": (1 + 1 / 2 + 0) / 3,
                "valid-tree-rate": 1 / 3,
                "source-validity": (5 + 3) / (5 + 4),
                **dict.fromkeys(GEOMETRY, math.nan),
            },
        ),
        (
            {
                "predicted_layouts": [FLAT, node("", node("text", box=A), node("text", box=B)), NOTHING],
                "target_layouts": [FLAT, node("", node("text", box=B), node("text", box=A)), FLAT],
            },
            {
                "tree-similarity": (1 + 1 + 0) / 3,
                "valid-tree-rate": 2 / 3,
                "source-validity": math.nan,
                "element-iou": 2 / 3,
                "max-iou": 2 / 3,
                "alignment": (0.2651055 / 3 - math.log(0.75)) / 2,
                "alignment-target": (0.2651055 / 3 - math.log(0.75) + 0.2651055 / 3) / 3,
                "overlap": (0.5725 / 3 + 0.25) / 2,
                "overlap-target": (0.5725 / 3 + 0.25 + 0.5725 / 3) / 3,
                # A and B share 1/7 in both layouts; B and C share .0025 of .2875, as C lies .05 into B on either side.
                "overlap-iou": (1 / 7 + 0.0025 / 0.2875 + 1 / 7) / 3,
            },
        ),
    )


class TestLayoutQualityOfBasesConformance(MetricConformance):
    component = "layout-quality"
    options = {"level": "base", "bases": ("grid", "column"), "sourceless": ("column",)}
    cases = (
        (
            {
                "predicted_layouts": [node("grid@div", node("column$1")), node("row@div"), node("grid@a")],
                "target_layouts": [node("grid", node("column$1"))] * 3,
                "structures": [node("div")] * 3,
            },
            {"tree-similarity": (1 + 0 + 1 / 2) / 3, "valid-tree-rate": 1 / 3, "source-validity": 2 / 3},
        ),
    )


def computed(predicted, target, structures=None, **options):
    metric = LayoutQuality(**options)
    metric.update(predicted, target, structures)
    return metric.compute()


def test_trap_predicting_nothing_scores_nothing():
    results = computed([NOTHING] * 2, [TRUE] * 2, [PAGE] * 2)
    assert (results["tree-similarity"], results["valid-tree-rate"]) == (0.0, 0.0)
    assert math.isnan(results["source-validity"]), "no source was predicted"
    assert results["fd_handcrafted"] > 1


def test_trap_predicting_nothing_has_no_geometry_to_praise():
    results = computed([NOTHING], [FLAT])
    assert (results["element-iou"], results["max-iou"]) == (0.0, 0.0)
    assert math.isnan(results["alignment"])
    assert math.isnan(results["overlap"])
    assert results["overlap-target"] == pytest.approx(0.5725 / 3)


def test_nodes_without_boxes_make_geometry_undefined_not_bad():
    plain = node("", node("image"), node("text"))
    results = computed([plain], [FLAT])
    assert math.isnan(results["element-iou"])
    assert math.isnan(results["max-iou"])
    assert results["tree-similarity"] == pytest.approx(2 / 3)


def test_only_nodes_with_boxes_take_part():
    mixed = node("", node("image", box=A), node("text"), node("text", box=B))
    assert computed([mixed], [mixed])["overlap"] == pytest.approx(0.25)


def test_what_is_nested_neither_overlaps_nor_aligns():
    nested = node("section", node("grid", node("image", box=A), box=(0.25, 0.25, 0.5, 0.5)), box=(0.5, 0.5, 1, 1))
    results = computed([nested], [nested])
    assert (results["overlap"], results["alignment"]) == (0.0, 0.0)
    assert math.isnan(results["overlap-iou"])
    side_by_side = node("section", node("image", box=A), node("image", box=B), box=(0.5, 0.5, 1, 1))
    assert computed([side_by_side], [side_by_side])["overlap"] == pytest.approx((0.25 + 0.25) / 3)


def test_no_overlap_is_no_mean_of_overlaps():
    halves = node("", node("a", box=(0.5, 0.25, 1, 0.5)), node("b", box=(0.5, 0.75, 1, 0.5)))
    results = computed([halves], [halves])
    assert (results["overlap"], results["alignment"]) == (0.0, 0.0)
    assert math.isnan(results["overlap-iou"])


def test_layouts_in_another_order_are_the_same_set():
    one, other = (node("", node("text", box=box)) for box in (A, C))
    results = computed([one, other], [other, one])
    assert results["max-iou"] == pytest.approx(1)
    assert results["element-iou"] == pytest.approx(0)
    assert results["fd_handcrafted"] == pytest.approx(0, abs=1e-6)


def test_one_layout_has_no_covariance():
    assert math.isnan(computed([TRUE], [TRUE])["fd_handcrafted"])
    assert computed([TRUE] * 2, [TRUE] * 2)["fd_handcrafted"] == pytest.approx(0, abs=1e-6)


def test_annotations_do_not_count():
    marked = node("section@section.hero['d:grid']@div.inner", node("heading@h1['col:3']"))
    plain = node("section@section.hero@div.inner", node("heading@h1"))
    results = computed([marked], [plain], [PAGE])
    assert (results["tree-similarity"], results["valid-tree-rate"], results["source-validity"]) == (1.0, 1.0, 1.0)


def test_level_base_compares_what_nodes_are():
    other = node("section@section.hero", node("heading@h1"), node("button@h1"), node("button$2@a.btn"))
    assert computed([other], [TRUE], level="base")["tree-similarity"] == 1.0
    assert computed([other], [TRUE])["tree-similarity"] == pytest.approx(1 / 4)


def test_samples_without_a_structure_among_others_have_no_source_to_judge():
    predicted = [node("heading@h1"), node("heading@h9")]
    results = computed(predicted, predicted, [PAGE, None])
    assert results["source-validity"] == 1.0
    assert results["valid-tree-rate"] == 1.0


def test_two_empty_layouts_are_no_tree_to_compare():
    results = computed([NOTHING], [NOTHING])
    assert math.isnan(results["tree-similarity"])
    assert results["valid-tree-rate"] == 0.0


def test_a_part_alone_is_the_tree_of_that_part():
    assert computed([node("", TRUE)], [TRUE])["tree-similarity"] == 1.0


def test_structures_are_read_only_where_they_are_given():
    binding = bind_metric(LayoutQuality())
    assert binding.missing({"predicted_layouts", "target_layouts"}) == set()
    assert [name for _, name in binding.optional] == ["structures"]


def test_samples_must_pair_up():
    with pytest.raises(ValueError, match="shorter"):
        LayoutQuality().update([TRUE], [])


def test_the_true_layouts_of_the_embedded_sample_are_perfect():
    splits = Registry().load("task", "layout").build({}).read(None, 0)
    samples = splits.test.__getitems__(list(range(len(splits.test))))
    layouts, structures = ([sample[name] for sample in samples] for name in ("layout", "structure"))
    results = computed(layouts, layouts, structures)
    assert len(samples) == 10
    assert [results[name] for name in ("tree-similarity", "valid-tree-rate", "source-validity")] == [1.0, 1.0, 1.0]
    shifted = computed(layouts[1:] + layouts[:1], layouts, structures)
    assert shifted["tree-similarity"] < 0.5
    assert shifted["valid-tree-rate"] < 0.5
