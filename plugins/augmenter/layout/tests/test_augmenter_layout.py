"""One draw for both, compatible pairs only, and identity where a rule would break."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trainkit.registry import Registry
from trainkit.testing import AugmenterConformance
from trainkit_augmenter_layout.layout import LayoutAugmenter, are_compatible
from trainkit_augmenter_layout.rules import fault_of, has_boxes

BOX = [0.5, 0.5, 0.4, 0.4]


class TestLayoutConformance(AugmenterConformance):
    component = "layout"


def tree(key, *children, **attributes):
    return {"key": key, "children": list(children), "attributes": attributes}


def sample_of(box=None, side=32):
    boxed = {"box": box} if box else {}
    return {
        "id": "s",
        "image": np.full((side, side, 3), 200, dtype=np.uint8),
        "structure": tree("div.a", tree("p.b", **boxed), tree("p.c"), tree("p.d"), tree("p.e")),
        "layout": tree("section@div.a", tree("paragraph@p.b"), tree("paragraph@p.c"), tree("paragraph@p.d")),
    }


class Says:
    """Set a key to a number of the generator's, and tell the names it is told to."""

    reads = frozenset({"image"})

    def __init__(self, key, *names, draws=1):
        self.key, self.names, self.draws = key, frozenset(names), draws

    def changes(self, sample, generator):
        value = generator.random(self.draws)[0]
        return {**sample, self.key: value}, self.names

    def __call__(self, sample, generator):
        return self.changes(sample, generator)[0]


class Mute:
    """Do the same and tell nothing."""

    reads = frozenset({"image"})

    def __init__(self, key):
        self.key = key

    def __call__(self, sample, generator):
        return {**sample, self.key: generator.random()}


class Replaces:
    """Put a tree in the place of one of the sample's."""

    reads = frozenset({"layout"})

    def __init__(self, **trees):
        self.trees = trees

    def __call__(self, sample, generator):
        return {**sample, **self.trees}


def results(structure, screenshot, sample, count=60):
    augment = LayoutAugmenter(screenshot=screenshot, structure=structure)
    return [augment(sample, np.random.default_rng(seed)) for seed in range(count)]


@pytest.mark.parametrize(
    ("edits", "moves", "boxed", "together"),
    [
        ({"substitute", "wrap"}, {"spatial", "colour"}, False, True),
        ({"reorder"}, {"colour", "degradation"}, False, True),
        ({"reorder"}, {"spatial"}, False, False),
        ({"drop", "wrap"}, {"spatial", "colour"}, False, False),
        ({"drop"}, {"spatial"}, True, True),
        ({"unknown"}, {"spatial"}, False, False),
        ({"unknown"}, {"unknown"}, True, True),
        (set(), {"spatial"}, False, True),
    ],
)
def test_which_pairs_go_together(edits, moves, boxed, together):
    assert are_compatible(frozenset(edits), frozenset(moves), boxed) is together


def test_pairs_that_do_not_go_together_are_taken_one_at_a_time():
    made = [{"one", "two"} & set(r) for r in results(Says("one", "reorder"), Says("two", "spatial"), sample_of())]
    assert {frozenset(keys) for keys in made} == {frozenset({"one"}), frozenset({"two"})}
    boxed = results(Says("one", "reorder"), Says("two", "spatial"), sample_of(BOX), count=10)
    assert all({"one", "two"} <= set(result) for result in boxed)
    harmless = results(Says("one", "wrap"), Says("two", "spatial"), sample_of(), count=10)
    assert all({"one", "two"} <= set(result) for result in harmless)


def test_augmenters_that_tell_nothing_are_not_mixed_without_boxes():
    made = [{"one", "two"} & set(r) for r in results(Mute("one"), Mute("two"), sample_of())]
    assert {frozenset(keys) for keys in made} == {frozenset({"one"}), frozenset({"two"})}


def test_how_much_one_draws_does_not_change_the_other():
    few, many = (results(Says("one", draws=n), Says("two"), sample_of(), count=3) for n in (1, 1000))
    assert [r["two"] for r in few] == [r["two"] for r in many]
    assert all(r["one"] != r["two"] for r in few)
    assert len({r["two"] for r in few}) == 3


@pytest.mark.parametrize(
    ("trees", "fault"),
    [
        ({"layout": tree("")}, "empty"),
        ({"layout": tree("section@div.z")}, "div.z"),
        ({"layout": tree("section@div.a", tree("button@p.b"), tree("button@p.b"))}, "button@p.b"),
        ({"layout": tree("section@p.b@div.a")}, "section@p.b@div.a"),
        ({"structure": tree("div.a", tree("p.b"), tree("p.c"))}, "paragraph@p.d"),
        ({"layout": tree("section@div.a", box=[0.5, 1.5, 0.1, 0.1])}, "leaves the picture"),
    ],
)
def test_a_result_that_breaks_a_rule_is_not_taken(trees, fault):
    sample = sample_of()
    assert fault in fault_of({**sample, **trees})
    assert results(Replaces(**trees), Says("two"), sample, count=1)[0] is sample
    assert results(Says("one"), Replaces(**trees), sample, count=1)[0] is sample


def test_what_keeps_the_rules_is_no_fault():
    assert fault_of(sample_of(BOX)) == ""
    page = tree("div.a['d:flex']", tree("div.b", tree("p")), tree("div.b", tree("p")), tree("p.x['x:@y']"))
    layout = tree(
        "", tree("wrapper@div.b@p"), tree("wrapper@div.a@div.b", tree("text@p")), tree("column", tree("t@p.x"))
    )
    assert fault_of({"structure": page, "layout": layout}) == ""
    assert fault_of({"structure": None, "layout": tree("", tree("row"))}) == ""
    assert has_boxes(sample_of(BOX))
    assert not has_boxes(sample_of())
    assert not has_boxes({"structure": None, "layout": tree("row")})


@given(st.integers(0, 2**32 - 1), st.booleans(), st.booleans(), st.booleans())
@settings(deadline=None, max_examples=60)
def test_real_pairs_keep_the_rules_and_leave_their_input_whole(seed, boxed, with_image, with_structure):
    sample = sample_of(BOX if boxed else None)
    if not with_image:
        sample["image"] = None
    if not with_structure:
        sample["structure"] = None
    whole = copy.deepcopy(sample)
    augment = LayoutAugmenter(
        screenshot={"use": "screenshot", "backend": "torch"},
        structure={"use": "structure", "drop": 1.0, "drop_node": 0.3, "reorder": 0.5},
    )
    (result, names), (again, _) = (augment.changes(sample, np.random.default_rng(seed)) for _ in range(2))
    assert fault_of(result) == ""
    assert (result["structure"], result["layout"]) == (again["structure"], again["layout"])
    assert np.array_equal(result["image"], again["image"])
    assert (sample["structure"], sample["layout"]) == (whole["structure"], whole["layout"])
    assert np.array_equal(sample["image"], whole["image"])
    if not boxed:
        assert not ({"drop", "reorder"} & names and "spatial" in names)
    if not with_image:
        assert result["image"] is None
    if not with_structure:
        assert result["structure"] is None
        assert not {"drop", "reorder", "wrap"} & names


def test_both_are_found_by_name_and_take_options():
    component = Registry().load("augmenter", "layout")
    options = {"screenshot": {"use": "screenshot", "phase": 4}, "structure": {"use": "structure", "wrap": 1.0}}
    augment = component.build(component.validate(options))
    assert augment.screenshot.ranges["rotation"] == (-2, 2)
    assert augment.structure.probabilities["wrap"] == 1.0
