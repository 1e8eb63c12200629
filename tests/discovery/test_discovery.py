from __future__ import annotations

import sys
import zipfile
from importlib.metadata import entry_points

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.specifiers import SpecifierSet
from trainkit import discovery
from trainkit.discovery import Entry, discover
from trainkit.kinds import KINDS, group
from trainkit.loader.metadata import normalised, satisfies


def states(entries):
    return [(entry.name, entry.status, entry.reason) for entry in entries]


def test_an_entry_tells_what_the_metadata_says(site):
    site.install("fake-loss", "loss", "huber", version="2.1")
    assert site.entries() == [Entry("loss", "huber", "fake_loss", "fake-loss", "2.1", "A loss", "ok", "")]


def test_entries_are_sorted_by_kind_then_name(site):
    for distribution, kind, name in (
        ("d", "callback", "a"),
        ("c", "loss", "z"),
        ("b", "loss", "b"),
        ("a", "strategy", "y"),
    ):
        site.install(f"fake-{distribution}", kind, name)
    assert [(e.kind, e.name) for e in site.entries()] == [
        ("strategy", "y"),
        ("loss", "b"),
        ("loss", "z"),
        ("callback", "a"),
    ]


def test_one_distribution_may_offer_several_components(site):
    losses = "[trainkit.loss]\none = fake_many.a\ntwo = fake_many.b:plugin\n"
    points = f"[console_scripts]\nx = y:z\n\n{losses}[trainkit.metric]\nf = fake_many\n"
    site.install("fake-many", entry_points=points)
    assert [(e.kind, e.name, e.module, e.status) for e in site.entries()] == [
        ("loss", "one", "fake_many.a", "ok"),
        ("loss", "two", "fake_many.b:plugin", "ok"),
        ("metric", "f", "fake_many", "ok"),
    ]


def test_one_name_in_two_distributions_is_a_conflict_that_names_the_other(site):
    site.install("fake-first", name="same")
    site.install("fake-second", name="same", version="3")
    assert states(site.entries()) == [
        ("same", "conflict", "also in fake-second 3"),
        ("same", "conflict", "also in fake-first 1.0"),
    ]


def test_an_unusable_distribution_does_not_contend_for_a_name(site):
    site.install("fake-first", name="same")
    site.install("fake-second", name="same", requires="trainkit-core>=99")
    assert [entry.status for entry in site.entries()] == ["ok", "incompatible"]


def test_a_distribution_for_another_core_is_incompatible(site):
    site.install("fake-new", requires="trainkit-core>=99")
    assert states(site.entries()) == [("ok", "incompatible", "it needs trainkit-core>=99, and 0.1.0 is installed")]


def test_a_requirement_of_an_extra_does_not_count(site):
    site.install("fake-extra", requires='trainkit-core>=99; extra == "later"')
    assert [entry.status for entry in site.entries()] == ["ok"]


@pytest.mark.parametrize("metadata", [None, b"\xff\xfe\x00", "no headers here", "Name: only-a-name\n"])
def test_missing_or_damaged_metadata_is_unreadable(site, metadata):
    site.install("fake-damaged", metadata=metadata)
    assert states(site.entries()) == [("ok", "unreadable", "METADATA is missing or damaged")]


def test_a_description_may_be_damaged(site):
    site.install("fake-plain", metadata=b"Name: fake-plain\r\nVersion: 1.0\r\n\r\n\xff\xff Name: other")
    assert [(e.distribution, e.status) for e in site.entries()] == [("fake-plain", "ok")]


def test_a_module_that_is_gone_is_missing(site):
    module = site.install("fake-half")
    (site.folder / module).rename(site.folder / "elsewhere")
    assert states(site.entries()) == [("ok", "missing", "its module fake_half is not on the path")]


@pytest.mark.parametrize("name", ["../../x", "two words", "Upper", "9lives", "\x1b[31mred", "-x", "a/b", "ünïcode"])
def test_a_hostile_name_is_shown_without_its_control_characters(site, name):
    site.install("fake-hostile", name=name)
    (entry,) = site.entries()
    assert entry.status == "invalid name"
    assert entry.name == name.replace("\x1b", "\N{REPLACEMENT CHARACTER}")


def test_control_characters_in_version_and_summary_are_replaced(site):
    site.install("fake-red", metadata="Name: fake-red\nVersion: 1\x1b[0m\nSummary: \x1b]0;title\x07\n")
    (entry,) = site.entries()
    assert entry.version.isprintable()
    assert entry.summary.isprintable()


def test_a_misspelt_group_is_shown_with_the_kind_that_was_meant(site):
    site.install("fake-typo", entry_points="[trainkit.optimiser]\nlion = fake_typo\n")
    assert states(site.entries()) == [
        ("lion", "invalid name", "there is no kind 'optimiser'; did you mean 'optimizer'?")
    ]


@pytest.mark.parametrize(
    "line", ["lion", "lion =", "lion = not a module", "lion = a..b", "lion = a:b:c", "lion = ; import os"]
)
def test_a_line_that_names_no_module_is_unreadable(site, line):
    site.install("fake-line", entry_points=f"[trainkit.loss]\n{line}\n")
    assert states(site.entries()) == [("lion", "unreadable", "its line in entry_points.txt does not name a module")]


def test_entry_points_that_are_no_text_do_not_raise(site):
    site.install("fake-bytes")
    (site.folder / "fake_bytes-1.0.dist-info" / "entry_points.txt").write_bytes(b"[trainkit.loss]\n\xff\xfe = \x00\n")
    (entry,) = site.entries()
    assert entry.status == "invalid name"


def test_a_plugin_whose_entry_points_cannot_be_read_is_not_hidden(site):
    place = site.folder / "trainkit_loss_locked-1.0.dist-info"
    (place / "entry_points.txt").mkdir(parents=True)
    assert [(e.kind, e.distribution, e.status, e.reason) for e in site.entries()] == [
        ("?", "trainkit-loss-locked", "unreadable", "entry_points.txt cannot be read")
    ]


def test_the_first_of_two_folders_with_one_distribution_counts(site, tmp_path):
    site.install("fake-twice", version="1.0")
    (tmp_path / "later").mkdir()
    type(site)(tmp_path / "later").install("Fake.Twice", version="2.0", name="other")
    found = discover([str(site.folder), str(tmp_path / "later"), str(site.folder), str(tmp_path / "absent")])
    assert [(e.name, e.version) for e in found] == [("ok", "1.0")]


def test_egg_info_is_read_too(site):
    place = site.folder / "fake_egg.egg-info"
    place.mkdir()
    (place / "entry_points.txt").write_text("[trainkit.loss]\negg = fake_egg\n")
    (place / "PKG-INFO").write_text("Name: fake-egg\nVersion: 4\n")
    (site.folder / "fake_egg.py").write_text("")
    assert site.entries() == [Entry("loss", "egg", "fake_egg", "fake-egg", "4")]


def test_a_zip_on_the_path_is_read_by_importlib(tmp_path):
    archive = tmp_path / "plugins.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("fake_zip-1.0.dist-info/entry_points.txt", "[trainkit.loss]\nzipped = fake_zip\n")
        file.writestr("fake_zip-1.0.dist-info/METADATA", "Name: fake-zip\nVersion: 1.0\n")
    assert discover([str(archive)]) == [Entry("loss", "zipped", "fake_zip", "fake-zip", "1.0")]


def test_a_finder_that_brings_its_own_distributions_is_asked(site, monkeypatch):
    site.install("fake-folder", name="from-folder")

    class Brought:
        def read_text(self, name):
            texts = {
                "entry_points.txt": "[trainkit.loss]\nbrought = fake_brought\n",
                "METADATA": "Name: fake-brought\nVersion: 1\n",
            }
            return texts.get(name)

    class Unreadable:
        def read_text(self, name):
            raise ValueError("no")

    class Finder:
        @staticmethod
        def find_spec(name, path=None, target=None):
            return None

        @staticmethod
        def find_distributions(context=None):
            return [Unreadable(), Brought()]

    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, Finder()])
    assert {"from-folder", "brought"} <= {entry.name for entry in discover()}


def test_the_scan_finds_what_importlib_finds():
    slow = {(p.group, p.name, p.value, p.dist.name) for kind in KINDS for p in entry_points(group=group(kind))}
    assert slow
    assert {(group(e.kind), e.name, e.module, e.distribution) for e in discover()} == slow


def test_listing_does_not_import(site):
    site.install("fake-loud", code="raise SystemExit('imported')")
    site.registry().entries()
    assert "fake_loud" not in sys.modules


numbers = st.lists(st.integers(0, 3), min_size=1, max_size=3).map(lambda parts: ".".join(map(str, parts)))
clauses = st.tuples(st.sampled_from([">=", "<=", ">", "<", "==", "!="]), numbers).map("".join)


@given(version=numbers, specifier=st.lists(clauses, max_size=3).map(",".join))
def test_ranges_agree_with_packaging(version, specifier):
    assert satisfies(version, specifier) == SpecifierSet(specifier).contains(version)


@pytest.mark.parametrize(
    ("specifier", "holds"),
    [
        ("~=0.1", True),
        ("~=0.1.2", False),
        ("==0.1.*", True),
        ("!=0.1.*", False),
        ("==0.2.*", False),
        ("", True),
        ("nonsense", True),
    ],
)
def test_ranges_with_tilde_and_star(specifier, holds):
    assert satisfies("0.1.0", specifier) is holds


@given(st.text("aB1-_.", max_size=12))
def test_names_are_normalised_as_indexes_do(name):
    import re

    assert normalised(name) == re.sub(r"[-_.]+", "-", name).lower()


def test_no_kind_is_unknown_to_the_order():
    assert [discovery._order(kind)[0] for kind in KINDS] == list(range(len(KINDS)))
