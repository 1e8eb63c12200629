"""Answers to what is unknown: short, and with what was most likely meant."""

from __future__ import annotations

import pytest
from trainkit.errors import listed, unknown_key

SETTINGS = ["strategy.use", "strategy.lr", "optimizer.use", "optimizer.lr", "task.width", "seed", "out"]
SECTIONS = "optimizer, out, seed, strategy, task; most of them with .OPTION"


@pytest.mark.parametrize(
    ("key", "meant", "allowed"),
    [
        ("strategy", "; did you mean 'strategy.use'?", "strategy.lr, strategy.use"),
        ("task", "", "task.width"),
        ("optimizer.l", "; did you mean 'optimizer.lr'?", "optimizer.lr, optimizer.use"),
        ("optimzer.lr", "; did you mean 'optimizer.lr'?", SECTIONS),
        ("sed", "; did you mean 'seed'?", SECTIONS),
        ("xyz", "", SECTIONS),
    ],
)
def test_an_unknown_key_is_answered_with_its_section_or_with_all_sections(key, meant, allowed):
    answer = unknown_key(key, SETTINGS, "--set")
    assert answer.what == f"unknown setting '{key}'{meant}"
    assert answer.why == f"allowed here: {allowed}"
    assert answer.where == "--set"


def test_of_many_names_the_first_ones_are_told_and_how_many_more_there_are():
    assert listed([]) == ""
    assert listed(["a", 2, "c"]) == "a, 2, c"
    assert listed(iter("abcdefg")) == "a, b, c and 4 more"
    assert listed("abcdefg", 6) == "a, b, c, d, e, f and 1 more"
