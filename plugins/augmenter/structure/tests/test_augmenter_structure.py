"""The invariants of every edit, on random pages whose layouts refer to them by name."""

from __future__ import annotations

import copy
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trainkit.testing import AugmenterConformance
from trainkit_augmenter_structure import operations
from trainkit_augmenter_structure.linked import link
from trainkit_augmenter_structure.structure import MAX_DEPTH, StructureAugmenter, edited

NONE = {"reorder": 0.0, "substitute": 0.0, "wrap": 0.0, "flatten": 0.0, "placeholder": 0.0, "drop": 0.0}
KEYS = [
    "div",
    "div.container",
    "div.grid['d:grid']",
    "div.columns",
    "a.btn",
    "a.button",
    "p",
    "h2.title",
    "div.wrapper-1",
]


class TestStructureConformance(AugmenterConformance):
    component = "structure"


def tree(key, *children, **attributes):
    return {"key": key, "children": list(children), "attributes": attributes}


def walk(root):
    yield root
    for child in root["children"]:
        yield from walk(child)


def leaves(root):
    return [node["key"] for node in walk(root) if not node["children"]]


def parent_links(root):
    return Counter((node["key"], child["key"]) for node in walk(root) for child in node["children"])


def is_valid(page, layout):
    return link(page, layout) is not None


@st.composite
def any_pages(draw):
    """A random page, and a layout made of it by merging single chains and leaving nodes out."""
    texts = st.sampled_from(["go", "a longer text than that", "x" * 50, "y" * 200])

    def page(depth):
        children = [page(depth + 1) for _ in range(draw(st.integers(0, 3 if depth < 4 else 0)))]
        attributes = {} if children else {"text": draw(texts)}
        return tree(draw(st.sampled_from(KEYS)), *children, **attributes)

    def layout(node, number):
        names = [node["key"].split("[")[0]]
        while len(node["children"]) == 1 and draw(st.booleans()):
            node = node["children"][0]
            names.append(node["key"].split("[")[0])
        kept = [child for child in node["children"] if draw(st.integers(0, 3))]
        base = draw(st.sampled_from(["part", "column"]))
        stem = f"{base}${number}" if base == "column" and number else base
        return tree("@".join([stem, *names]), *(layout(child, i) for i, child in enumerate(kept)))

    root = page(0)
    return root, layout(root, 0)


def pages():
    return any_pages().filter(lambda pair: is_valid(*pair))


seeds = st.integers(0, 2**32 - 1)


def augmented(pair, seed, **probabilities):
    augmenter = StructureAugmenter(**{**NONE, "drop_node": 0.3, **probabilities})
    sample = {"id": "s", "structure": pair[0], "layout": pair[1], "other": object()}
    result = augmenter(sample, np.random.default_rng(seed))
    assert result["other"] is sample["other"]
    return result["structure"], result["layout"]


@given(pages(), seeds)
@settings(deadline=None)
def test_every_result_is_valid_reproducible_and_leaves_its_input_whole(pair, seed):
    whole = copy.deepcopy(pair)
    everything = dict.fromkeys(NONE, 1.0)
    first, second = (augmented(pair, seed, **everything) for _ in range(2))
    assert first == second
    assert pair == whole
    assert is_valid(*first)


@given(pages(), seeds)
@settings(deadline=None)
def test_reorder_keeps_nodes_and_parents(pair, seed):
    page, layout = augmented(pair, seed, reorder=1.0)
    assert parent_links(page) == parent_links(pair[0])
    without_numbers = [
        Counter(node["key"].replace("$1", "").replace("$2", "") for node in walk(t)) for t in (layout, pair[1])
    ]
    assert without_numbers[0] == without_numbers[1]


@given(pages(), seeds)
@settings(deadline=None)
def test_substitution_is_a_bijection_that_keeps_the_shape(pair, seed):
    page, layout = augmented(pair, seed, substitute=1.0)
    pairs = [(old["key"], new["key"]) for old, new in zip(walk(pair[0]), walk(page), strict=True)]
    assert len({old for old, _ in pairs}) == len({new for _, new in pairs}) == len(set(pairs))
    assert [key.split(".")[0] for key, _ in pairs] == [key.split(".")[0] for _, key in pairs]
    assert [key.partition("[")[2] for key, _ in pairs] == [key.partition("[")[2] for _, key in pairs]
    counts = [[len(node["children"]) for node in walk(t)] for t in (layout, pair[1])]
    assert counts[0] == counts[1]


@given(pages(), seeds)
@settings(deadline=None)
def test_wrapping_can_be_undone_and_stays_shallow(pair, seed):
    page, layout = augmented(pair, seed, wrap=1.0)
    assert layout == pair[1]
    old = Counter(node["key"] for node in walk(pair[0]))
    added = Counter(node["key"] for node in walk(page)) - old

    def without(node):
        children = [without(child) for child in node["children"]]
        flat = [
            g
            for c, raw in zip(children, node["children"], strict=True)
            for g in (c["children"] if raw["key"] in added else [c])
        ]
        return {**node, "children": flat}

    assert sum(added.values()) <= 1
    assert without(page) == pair[0]
    assert link(page, layout).page.depth() <= MAX_DEPTH


@given(pages(), seeds)
@settings(deadline=None)
def test_flattening_keeps_leaves_and_their_order(pair, seed):
    page, layout = augmented(pair, seed, flatten=1.0)
    assert leaves(page) == leaves(pair[0])
    lost = sum(1 for _ in walk(pair[0])) - sum(1 for _ in walk(page))
    sources = [sum(node["key"].count("@") for node in walk(t)) for t in (pair[1], layout)]
    assert lost == sources[0] - sources[1]
    assert lost in (0, 1)


@given(pages(), seeds)
@settings(deadline=None)
def test_placeholders_change_texts_alone(pair, seed):
    page, layout = augmented(pair, seed, placeholder=1.0)
    assert layout == pair[1]
    assert [node["key"] for node in walk(page)] == [node["key"] for node in walk(pair[0])]
    texts = {node["attributes"].get("text", "[TEXT]") for node in walk(page)}
    assert texts <= {"[TEXT]", "[CONTENT]", "[PLACEHOLDER]", "[DATA]"}


@given(pages(), seeds)
@settings(deadline=None)
def test_dropping_leaves_no_dangling_source_and_no_gap_in_numbers(pair, seed):
    page, layout = augmented(pair, seed, drop=1.0)
    assert page["key"] == pair[0]["key"]
    assert not parent_links(page) - parent_links(pair[0])
    assert page["children"] or page == pair[0]
    names = Counter(node["key"].split("[")[0] for node in walk(page))
    cited = Counter(name for node in walk(layout) for name in node["key"].split("@")[1:])
    assert not cited - names


def test_dropping_numbers_columns_anew_and_prunes_empty_groups():
    page = tree("div.a", tree("div.row", tree("i.x", tree("p")), tree("i.y", tree("p"))), tree("div.z", tree("p.q")))
    layout = tree(
        "section@div.a",
        tree("grid@div.row", tree("column@i.x", tree("text@p")), tree("column$1@i.y", tree("text@p"))),
        tree("wrapper@div.z", tree("text@p.q")),
    )
    pair = link(page, layout)
    chosen = np.array([0, 0, 1, 0, 0, 0, 0, 1])

    class Draws:
        def random(self, count):
            return 1.0 - chosen[:count]

    assert operations.drop(pair, Draws(), share=0.5)
    assert [node["key"] for node in walk(pair.layout.tree())] == [
        "section@div.a",
        "grid@div.row",
        "column@i.y",
        "text@p",
    ]


def test_flattening_shortens_the_key_that_merged_the_nodes():
    page = tree("div.a", tree("div.b", tree("p"), tree("p")))
    layout = tree("section@div.a@div.b", tree("text@p"), tree("text@p"))
    result = edited(page, layout, operations.flatten, np.random.default_rng(0))
    assert result == (tree("div.a", tree("p"), tree("p")), tree("section@div.a", tree("text@p"), tree("text@p")))


def test_substitution_rewrites_the_sources_and_never_merges_classes():
    page = tree("nav.menu", tree("a.btn['d:flex']"), tree("a.button"))
    layout = tree("section@nav.menu", tree("button@a.btn"), tree("button@a.button"))
    seen = set()
    for seed in range(20):
        new_page, new_layout = augmented((page, layout), seed, substitute=1.0)
        assert new_layout["key"] == "section@" + new_page["key"]
        assert [child["key"] for child in new_page["children"]] == ["a.btn['d:flex']", "a.button"], (
            "both names are taken"
        )
        seen.add(new_page["key"])
    assert seen == {"nav.menu", "nav.nav"}


def test_reordering_moves_the_layout_with_the_page():
    page = tree("div.a", tree("p.x"), tree("p.y"), tree("p.z"))
    layout = tree("section@div.a", tree("column@p.x"), tree("column$1@p.y"), tree("column$2@p.z"))
    orders = set()
    for seed in range(20):
        new_page, new_layout = augmented((page, layout), seed, reorder=1.0)
        keys = [child["key"] for child in new_layout["children"]]
        assert [key.split("@")[1] for key in keys] == [child["key"] for child in new_page["children"]]
        assert [key.split("@")[0] for key in keys] == ["column", "column$1", "column$2"]
        orders.add(tuple(keys))
    assert len(orders) > 2


def test_a_wrapper_between_merged_nodes_is_not_made():
    page = tree("div.a", tree("div.b"))
    layout = tree("section@div.a@div.b")
    assert all(augmented((page, layout), seed, wrap=1.0) == (page, layout) for seed in range(5))


def test_by_default_only_samples_without_a_picture_are_reordered():
    augmenter = StructureAugmenter(**{name: 0.0 for name in NONE if name != "reorder"})
    page = tree("div.a", tree("p.x"), tree("p.y"), tree("p.z"))
    layout = tree("section@div.a", tree("text@p.x"), tree("text@p.y"), tree("text@p.z"))
    changed = {"with": 0, "without": 0}
    for seed in range(300):
        for name, image in (("with", np.zeros((2, 2, 3), np.uint8)), ("without", None)):
            sample = {"structure": page, "layout": layout, "image": image}
            result, made = augmenter.changes(sample, np.random.default_rng(seed))
            assert (result["structure"] != page) == (made == {"reorder"})
            changed[name] += bool(made)
    assert changed["with"] == 0
    # Of the six orders of three children one is the old one.
    assert changed["without"] / 300 == pytest.approx(0.6 * 5 / 6, abs=0.12)


def test_a_wrapper_has_the_hull_of_what_it_wraps_as_its_box():
    page = tree("div.a", tree("p.x", box=[0.2, 0.2, 0.2, 0.1]), tree("p.y", box=[0.5, 0.4, 0.2, 0.2]))
    seen = set()
    for seed in range(60):
        new_page, _ = augmented((page, tree("section@div.a")), seed, wrap=1.0)
        for node in walk(new_page):
            if node["key"].startswith("div.wrapper"):
                seen.add((len(node["children"]), *np.round(node["attributes"]["box"], 9).tolist()))
    assert seen == {(1, 0.2, 0.2, 0.2, 0.1), (1, 0.5, 0.4, 0.2, 0.2), (2, 0.35, 0.325, 0.5, 0.35)}
    bare = tree("div.a", tree("p.x", box=[0.2, 0.2, 0.2, 0.1]), tree("p.y"))
    for seed in range(20):
        wrapper = next(
            n for n in walk(augmented((bare, tree("section@div.a")), seed, wrap=1.0)[0]) if "wrap" in n["key"]
        )
        assert ("box" in wrapper["attributes"]) == all("box" in child["attributes"] for child in wrapper["children"])


@given(pages(), seeds)
@settings(deadline=None)
def test_what_was_made_is_told_by_name(pair, seed):
    augmenter = StructureAugmenter(**dict.fromkeys(NONE, 0.5), drop_node=0.3)
    sample = {"structure": pair[0], "layout": pair[1]}
    result, made = augmenter.changes(sample, np.random.default_rng(seed))
    assert made <= set(NONE)
    assert bool(made) or result == sample
    assert augmenter(sample, np.random.default_rng(seed)) == result


def test_samples_without_a_structure_pass_unchanged():
    sample = {"structure": None, "layout": tree("page")}
    assert StructureAugmenter()(sample, np.random.default_rng(0)) is sample


def test_the_embedded_sections_stay_valid_for_the_task():
    sections = pytest.importorskip(
        "trainkit_task_layout.sections", reason="needs trainkit-task-layout for its sections"
    )
    from trainkit_task_layout.alignment import align

    augmenter = StructureAugmenter(reorder=0.5, drop=0.5)
    changed = 0
    for seed in range(40):
        structure = sections.random_section(np.random.default_rng(seed))
        sample = {"structure": structure, "layout": sections.layout_of(structure)}
        assert link(structure, sample["layout"]).links() == [
            list(chain) for chain in align(structure, sample["layout"])
        ]
        result = augmenter(sample, np.random.default_rng(seed))
        align(result["structure"], result["layout"])
        changed += result["layout"] != sample["layout"]
    assert changed > 5
