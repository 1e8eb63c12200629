"""Trees, keys, alignment and linearisation: nothing collapses, nothing is lost."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trainkit_task_layout.alignment import align
from trainkit_task_layout.linear import cut, delinearise, elements, linearise, name_sources
from trainkit_task_layout.sections import layout_of, random_section
from trainkit_task_layout.tree import (
    NAMELESS,
    dump_tree,
    node,
    parse_layout,
    parse_structure,
    parse_target_key,
    structure_words,
    walk,
)
from trainkit_task_layout.vocabulary import UNKNOWN_ID, Tags, Vocabulary

KEYS = ["div", "div.a", "div.a['d:flex']", "div.a.b['col:3']['zIndex:2']", "p", "a.btn", "h1.title"]


@st.composite
def structures(draw, depth=0):
    children = [draw(structures(depth=depth + 1)) for _ in range(draw(st.integers(0, 3 if depth < 3 else 0)))]
    attributes = {"text": draw(st.text(max_size=5))} if draw(st.booleans()) else {}
    return node(draw(st.sampled_from(KEYS)), children, attributes)


@st.composite
def layouts(draw, depth=0):
    children = [draw(layouts(depth=depth + 1)) for _ in range(draw(st.integers(0, 3 if depth < 3 else 0)))]
    number = draw(st.sampled_from(["", "$1", "$12"]))
    return node(draw(st.sampled_from(["grid", "column", "heading", "btn-active"])) + number, children)


def sources_for(layout, draw):
    return [tuple(draw(st.lists(st.integers(0, 30), max_size=3))) for _ in walk(layout)]


def with_pointers(layout, sources):
    pointers = iter(sources)

    def pointed(current):
        key = current["key"] + "".join(f"@{i}" for i in next(pointers))
        return node(key, [pointed(child) for child in current["children"]])

    return pointed(layout)


@given(structures())
@settings(deadline=None)
def test_structure_json_round_trip(structure):
    assert dump_tree(parse_structure(dump_tree(structure))) == dump_tree(structure)


def test_equal_siblings_do_not_collapse():
    tree = parse_structure('{"div": {"a.btn": {"text": "x"}, "a.btn": {"text": "y"}, "p": ""}}')
    assert [child["key"] for child in tree["children"]] == ["a.btn", "a.btn", "p"]
    assert [child["attributes"] for child in tree["children"]] == [{"text": "x"}, {"text": "y"}, {}]


def test_an_attribute_name_with_an_object_is_a_node():
    tree = parse_structure('{"div": {"svg": {"p": "hello"}, "text": "note"}}')
    assert [current["key"] for current in walk(tree)] == ["div", "svg", "p"]
    assert tree["attributes"] == {"text": "note"}


@given(layouts(), st.data())
@settings(deadline=None)
def test_linearisation_round_trip(layout, data):
    sources = sources_for(layout, data.draw)
    words = linearise(layout, sources)
    assert delinearise(words) == with_pointers(layout, sources)
    assert words[-1] == "<end>"


@given(st.lists(layouts(), max_size=3))
def test_linearisation_round_trip_of_pages_without_a_root(parts):
    page = node(NAMELESS, parts)
    assert delinearise(linearise(page, [()] * sum(1 for _ in walk(page)))) == page


@given(st.lists(st.sampled_from(["{", "}", "grid", "@3", "$1", "<unk>", "<pad>", "<end>"])))
def test_any_words_give_a_tree(words):
    tree = delinearise(words)
    assert len(elements(tree)["path"]) <= words.count("grid")


def test_round_trip_through_names_and_ids():
    for seed in range(30):
        structure = random_section(np.random.default_rng(seed))
        layout = layout_of(structure)
        words = linearise(layout, align(structure, layout))
        vocabulary = Vocabulary(word for word in words if word[0] != "@")
        assert vocabulary.decode(vocabulary.encode(words)) == words
        assert name_sources(delinearise(words), structure) == layout


@given(layouts(), st.data())
@settings(deadline=None)
def test_cutting_keeps_a_top_part_that_fits(layout, data):
    sources = sources_for(layout, data.draw)
    room = data.draw(st.integers(2, 40))
    kept, kept_sources = cut(layout, sources, room, nodes=20)
    words = linearise(kept, kept_sources)
    assert len(words) <= room
    assert all(i < 20 for chain in kept_sources for i in chain)
    if len(linearise(layout, sources)) <= room and all(i < 20 for chain in sources for i in chain):
        assert (kept, kept_sources) == (layout, sources)
    whole = elements(with_pointers(layout, sources))["path"]
    assert not set(elements(with_pointers(kept, kept_sources))["path"]) - set(whole)


def test_elements_at_three_levels():
    layout = node("section@0@1", [node("column", [node("button@2")]), node("column$1", [node("button@2")])])
    assert elements(layout) == {
        "base": ["section", "column", "button", "column", "button"],
        "key": ["section@0@1", "column", "button@2", "column$1", "button@2"],
        "path": [
            "/section@0@1",
            "/section@0@1/column",
            "/section@0@1/column/button@2",
            "/section@0@1/column$1",
            "/section@0@1/column$1/button@2",
        ],
    }


def test_equal_names_are_taken_in_order_below_the_ancestor():
    structure = node("div", [node("p"), node("ul", [node("p"), node("p")]), node("p")])
    layout = node("section@div", [node("list@ul", [node("text@p"), node("text@p")]), node("text@p"), node("text@p")])
    assert align(structure, layout) == [(0,), (2,), (3,), (4,), (1,), (5,)]


def test_a_chain_backs_out_of_a_wrong_start():
    structure = node("div", [node("a", [node("i")]), node("a", [node("b")])])
    assert align(structure, node("x@a@b")) == [(3, 4)]


@pytest.mark.parametrize(
    ("layout", "reason"),
    [
        (node("section@div.z"), "'div.z' is not in the structure"),
        (node("section@div", [node("text@p"), node("text@p")]), "'p' is used more often"),
        (node("section@div@i"), "not a chain of parent and child"),
    ],
)
def test_sources_that_do_not_fit_are_named(layout, reason):
    structure = node("div", [node("p", [node("i")])])
    with pytest.raises(ValueError, match=reason):
        align(structure, layout)


def test_target_keys_come_apart_and_lose_annotations():
    key = parse_target_key("column$2@div.a['d:flex']@p")
    assert (key.base, key.number, key.sources) == ("column", "$2", ("div.a", "p"))
    assert str(key) == "column$2@div.a@p"
    assert structure_words("div.a.b['d:flex']") == ("div", [".a", ".b", "['d:flex']"])


@pytest.mark.parametrize("key", ["", "@div", "grid$@div", "grid@", "Grid", "grid@div..a", "grid@di v"])
def test_keys_outside_the_grammar_are_refused(key):
    with pytest.raises(ValueError, match="not a layout key"):
        parse_target_key(key)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[1, 2]", "expected an object, found a list"),
        ('{"div": "", "p": ""}', "expected one root, found 2"),
        ("{}", "expected one root, found 0"),
        ('{"div": 3}', "holds a number"),
        ('{"di v": ""}', "not a structure key"),
        ('{"div": NaN}', "NaN is not JSON"),
        ('{"div": ', "Expecting value"),
        ('{"div":' * 200 + '""' + "}" * 200, "nested deeper than 100"),
        ('{"div":' * 200_000, "nested deeper than 100"),
        ('{"div\\u0007": ""}', "not a structure key"),
    ],
)
def test_structures_that_cannot_be_read_say_why(text, reason):
    with pytest.raises(ValueError, match=reason):
        parse_structure(text)


def test_layouts_come_bare_or_with_properties():
    bare = parse_layout('{"section@div": {"text@p": "", "text@p": {}}}')
    assert bare == (node("section@div", [node("text@p"), node("text@p")]), {})
    wrapped = parse_layout('{"structure": {"section@div": ""}, "props": {"bi": "img.a"}}')
    assert wrapped == (node("section@div"), {"bi": "img.a"})
    with pytest.raises(ValueError, match=r'expected "" or \{\}'):
        parse_layout('{"section@div": "words"}')


def test_vocabulary_order_and_unknown_words():
    vocabulary = Vocabulary(["zebra", "ant", "ant", "{"], pointers=3)
    assert vocabulary.words == ("<pad>", "<unk>", "<end>", "{", "}", "ant", "zebra")
    assert len(vocabulary) == 11
    assert vocabulary.encode(["ant", "@2", "<mask>", "@3", "bee"]) == [5, 9, 10, UNKNOWN_ID, UNKNOWN_ID]


def test_tags_are_numbered_and_every_class_has_a_row():
    tags = Tags(["p", "div", "p"])
    assert tags.encode(["div", "p", "nav"]) == [2, 3, UNKNOWN_ID]
    assert tags.hashed([".btn", ".btn"]) == Tags(["p", "div"]).hashed([".btn"]) * 2
    rows = Tags(["div"], rows=20).hashed([f".class-{i}" for i in range(500)])
    assert (min(rows), max(rows)) == (3, 19)
