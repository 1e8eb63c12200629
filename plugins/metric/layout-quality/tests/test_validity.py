"""Validity: the grammar of keys, and room for sources, against a search of all assignments."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trainkit_metric_layout_quality.trees import ILL_FORMED, nodes_of, parse
from trainkit_metric_layout_quality.validity import have_room, is_valid, known_sources


def node(key, *children):
    return {"key": key, "children": list(children), "attributes": {}}


PAGE = node("section.a['d:flex']", node("div", node("div", node("p"))), node("div", node("p"), node("h1")))


def valid(layout, structure=PAGE, bases=(), sourceless=("column", "freedom")):
    return is_valid(nodes_of(layout), None if structure is None else nodes_of(structure), bases, sourceless)


@pytest.mark.parametrize(
    ("key", "base", "sources", "well_formed"),
    [
        ("column", "column", (), True),
        ("column$1", "column", (), True),
        ("btn-green", "btn-green", (), True),
        ("wrapper@div.class1@div.class2", "wrapper", ("div.class1", "div.class2"), True),
        ("image$2@img.w-1/2.md:hidden['col:6']", "image", ("img.w-1/2.md:hidden",), True),
        ("grid@div['url:a@b']", "grid", ("div",), True),
        ("", ILL_FORMED, (), False),
        ("@div", ILL_FORMED, ("div",), False),
        ("Grid", ILL_FORMED, (), False),
        ("grid$@div", ILL_FORMED, ("div",), False),
        ("grid$x", ILL_FORMED, (), False),
        ("{", ILL_FORMED, (), False),
        ("grid@", "grid", ("",), False),
        ("grid@div@", "grid", ("div", ""), False),
        ("grid@.box", "grid", (".box",), False),
        ("grid@div..box", "grid", ("div..box",), False),
        ("grid@7", "grid", ("7",), False),
    ],
)
def test_keys(key, base, sources, well_formed):
    found = parse(key)
    assert (found.base, found.sources, found.well_formed) == (base, sources, well_formed)


@pytest.mark.parametrize(
    ("layout", "expected"),
    [
        (node("section@section.a", node("text@p"), node("heading@h1")), True),
        (node("section@section.a@div@div", node("text@p")), True),
        (node("section@section.a", node("column$1", node("text@p")), node("freedom$1")), True),
        (node("", node("text@p"), node("text@p")), True),
        (node(""), False),  # nothing
        (node("section@section.a", node("text")), False),  # a base that needs a source
        (node("section@section.a", node("text@h2")), False),  # not in the structure
        (node("section@section.a@p"), False),  # not parent and child
        (node("section@div@section.a"), False),  # the wrong way round
        (node("", node("heading@h1"), node("heading@h1")), False),  # used twice
        (node("", node("a@div@div"), node("b@div@div")), False),  # there is one such chain
        (node("", node("a@section.a"), node("b@section.a@div")), False),  # a node in two keys
        (node("section@section.a", node("")), False),  # a nameless node that is no root
    ],
)
def test_rules_with_a_structure(layout, expected):
    assert valid(layout) is expected


def test_rules_without_a_structure_are_the_grammar_alone():
    assert valid(node("", node("row", node("btn-green"))), structure=None)
    assert valid(node("text@h2", node("text@h2")), structure=None)
    assert not valid(node("row", node("<unk>")), structure=None)


def test_bases_may_be_limited_and_freed_from_sources():
    layout = node("section@section.a", node("text@p"))
    assert valid(layout, bases=("section", "text"))
    assert not valid(layout, bases=("section",))
    assert valid(node("section", node("text")), sourceless=("section", "text"))
    assert not valid(node("column"), sourceless=())


def test_which_of_equal_names_is_meant_does_not_matter():
    # 'div' must not take the only div that has an h1, though it comes first.
    assert valid(node("", node("a@div"), node("b@div@h1"), node("c@div@p")), PAGE)
    # 'a@b' and 'b@c' both fit into one branch, but must share it out.
    page = node("r", node("a", node("b", node("c"))), node("a", node("b")))
    assert have_room([("a", "b"), ("b", "c")], nodes_of(page))
    assert not have_room([("a", "b"), ("a", "b"), ("b", "c")], nodes_of(page))


def test_known_sources_are_counted_one_by_one():
    layout = nodes_of(node("section@section.a['d:grid']@span", node("text@p"), node("text@p"), node("text@p")))
    assert known_sources(layout, nodes_of(PAGE)) == (4, 5)
    assert known_sources(nodes_of(node("")), nodes_of(PAGE)) == (0, 0)


def by_search(chains, structure):
    """Say by trying everything whether the chains find nodes of their own."""
    paths = []
    for chain in chains:
        found = []
        for path in itertools.product(range(len(structure.keys)), repeat=len(chain)):
            named = all(structure.keys[i] == name for i, name in zip(path, chain, strict=True))
            if named and all(structure.parents[b] == a for a, b in itertools.pairwise(path)):
                found.append(path)
        paths.append(found)
    return any(
        len({i for path in choice for i in path}) == sum(map(len, choice)) for choice in itertools.product(*paths)
    )


pages = st.recursive(
    st.sampled_from("ab").map(node),
    lambda inner: st.builds(lambda key, below: node(key, *below), st.sampled_from("ab"), st.lists(inner, max_size=3)),
    max_leaves=6,
)
chains_of_names = st.lists(st.lists(st.sampled_from("ab"), min_size=1, max_size=3).map(tuple), min_size=1, max_size=4)


@given(pages, chains_of_names)
def test_room_is_found_exactly_where_there_is_some(page, chains):
    structure = nodes_of(page)
    if len(structure.keys) <= 8:
        assert have_room(chains, structure) is by_search(chains, structure)


def test_many_equal_names_are_decided_at_once():
    page = node("div", *(node("div", node("div")) for _ in range(40)))
    assert have_room([("div", "div")] * 40, nodes_of(page))
    assert have_room([("div", "div")] * 40 + [("div",)], nodes_of(page))
    assert not have_room([("div", "div")] * 41, nodes_of(page))
    assert not have_room([("div",)] * 82, nodes_of(page))
