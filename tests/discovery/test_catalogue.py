from __future__ import annotations

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trainkit import catalogue
from trainkit.catalogue import Offer
from trainkit.errors import UsageError

PYPROJECT = """[project]
name = "trainkit-{kind}-{name}"
version = "{version}"
description = "A {kind}"

[project.entry-points."trainkit.{kind}"]
{name} = "trainkit_{kind}_{name}"
"""


def write_plugin(root, kind, name, version="0.1.0", text=PYPROJECT):
    folder = root / "plugins" / kind / name
    folder.mkdir(parents=True)
    (folder / "pyproject.toml").write_text(text.format(kind=kind, name=name, version=version))


def test_the_catalogue_of_this_repository_is_current(repository):
    catalogue.check(repository)
    offers = catalogue.read_catalogue()
    assert offers == catalogue.collect(repository)
    assert ("adamw", "trainkit-optimizer-adamw") in catalogue.available("optimizer", offers)


def test_write_then_check(tmp_path):
    write_plugin(tmp_path, "loss", "dice")
    write_plugin(tmp_path, "strategy", "long", version="1.2.0")
    path = catalogue.write(tmp_path)
    assert catalogue.read_catalogue(path) == [
        Offer("strategy", "long", "trainkit-strategy-long", "A strategy", 1, "stable"),
        Offer("loss", "dice", "trainkit-loss-dice", "A loss", 1, "beta"),
    ]
    catalogue.check(tmp_path)


def test_drift_is_refused(tmp_path):
    write_plugin(tmp_path, "loss", "dice")
    catalogue.write(tmp_path)
    write_plugin(tmp_path, "loss", "focal")
    with pytest.raises(UsageError, match="has drifted"):
        catalogue.check(tmp_path)


@pytest.mark.parametrize(
    ("kind", "text", "said"),
    [
        ("loss", PYPROJECT.replace("{name} =", "other ="), "it does not offer the loss 'x', which its folder names"),
        ("los", PYPROJECT, "it does not offer the los 'x', which its folder names"),
        ("loss", "[project", "a plugin folder has no usable pyproject.toml"),
        ("loss", '[project]\nname = "x"', "it does not offer the loss 'x', which its folder names"),
    ],
)
def test_a_folder_that_does_not_keep_the_naming_is_refused(tmp_path, kind, text, said):
    folder = tmp_path / "plugins" / kind / "x"
    folder.mkdir(parents=True)
    (folder / "pyproject.toml").write_text(
        text.replace("{kind}", kind).replace("{name}", "x").replace("{version}", "1")
    )
    with pytest.raises(UsageError) as caught:
        catalogue.write(tmp_path)
    assert caught.value.what == said
    assert caught.value.where == str(folder / "pyproject.toml")


def test_a_root_without_plugins_is_refused(tmp_path):
    with pytest.raises(UsageError, match="no plugin folders"):
        catalogue.write(tmp_path)


words = st.text(st.characters(exclude_categories=["C", "Z"]) | st.sampled_from(' "\\=[]#'), max_size=30)


@given(st.lists(st.builds(Offer, words, words, words, words, st.integers(0, 9), words), min_size=1, max_size=3))
def test_the_small_parser_reads_what_a_toml_parser_reads(offers):
    text = catalogue.render(offers)
    assert catalogue.parse(text) == offers
    assert [Offer(**table) for table in tomllib.loads(text)["component"]] == offers


def test_control_characters_do_not_enter_the_catalogue():
    with pytest.raises(UsageError, match="no control characters"):
        catalogue.render([Offer("loss", "x", "d", "two\nlines", 1, "beta")])


@pytest.mark.parametrize("text", ["[[component]]\nkind = 3", '[[component]]\nstrange = "x"', "\x00"])
def test_a_damaged_catalogue_only_takes_hints_away(tmp_path, text):
    (tmp_path / "registry.toml").write_text(text)
    assert catalogue.read_catalogue(tmp_path / "registry.toml") == []
    assert catalogue.read_catalogue(tmp_path / "absent.toml") == []


def test_the_generator_runs_as_a_module(tmp_path, capsys):
    write_plugin(tmp_path, "loss", "dice")
    assert catalogue.main(["check", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("error: the catalogue has drifted from the plugin folders\n")
    assert catalogue.main(["write", str(tmp_path)]) == 0
    assert catalogue.main(["check", str(tmp_path)]) == 0
    assert catalogue.main([]) == 2
    assert capsys.readouterr().err == "usage: python -m trainkit.catalogue write|check ROOT\n"
