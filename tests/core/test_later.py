"""Panels and files that are made when somebody looks at them."""

from __future__ import annotations

from trainkit.contracts import Answer, Panel
from trainkit.later import LateFiles, LatePanels


def test_panels_are_drawn_once_and_not_before_somebody_looks():
    drawn = []

    def draw():
        drawn.append(1)
        return [Panel("one", "first"), Panel("two", "second")]

    answer = Answer("a", {}, {}, LatePanels(draw))
    assert not drawn
    assert [panel.title for panel in answer.panels] == ["one", "two"]
    assert (len(answer.panels), answer.panels[-1].content, len(answer.panels[:1])) == (2, "second", 1)
    assert len(drawn) == 1


def test_files_are_named_without_being_made():
    made = []

    def content(suffix):
        made.append(suffix)
        return suffix * 2

    files = LateFiles({".a": lambda: content(".a"), ".b": lambda: content(".b")})
    assert (list(files), len(files), ".b" in files, made) == ([".a", ".b"], 2, True, [])
    assert files[".a"] == ".a.a"
