"""What the distributions need: this version of each other, no plugin another plugin, and only what is pinned."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
PLUGINS = sorted(path.parent for path in ROOT.glob("plugins/*/*/pyproject.toml"))
FOLDERS = [ROOT, ROOT / "core", ROOT / "cli", *PLUGINS]


def project(folder: Path) -> dict[str, Any]:
    table: dict[str, Any] = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return table


def requirements(folder: Path) -> list[Requirement]:
    return [Requirement(text) for text in project(folder)["dependencies"]]


BASES = {
    "recipes": ("trainkit-task-seq2seq",),
    "servers": ("trainkit-task-series",),
    "stocks": ("trainkit-task-series",),
}


def extras() -> list[Requirement]:
    return [Requirement(text) for extra in project(ROOT)["optional-dependencies"].values() for text in extra]


def first_party(wanted: list[Requirement]) -> set[str]:
    return {requirement.name for requirement in wanted if requirement.name.startswith("trainkit")}


def test_first_party_ranges_hold_this_version_and_not_the_next_major() -> None:
    version = Version(project(ROOT)["version"])
    needs = [(folder, need) for folder in FOLDERS for need in requirements(folder) if need.name.startswith("trainkit")]
    assert len(needs) >= 2 * len(PLUGINS)
    for folder, need in needs:
        assert version in need.specifier, f"{folder.name}: {need}"
        assert Version(f"{version.major + 1}.0") not in need.specifier, f"{folder.name}: {need}"


def test_plugins_and_command_line_need_the_core_alone() -> None:
    """A task that stands on another, which it finds by name, also needs that one's distribution."""
    assert {folder.name: first_party(requirements(folder)) for folder in [ROOT / "cli", *PLUGINS]} == {
        folder.name: {"trainkit-core", *BASES.get(folder.name, ())} for folder in [ROOT / "cli", *PLUGINS]
    }
    assert first_party(requirements(ROOT / "core")) == set()


def test_every_distribution_comes_with_trainkit_or_with_an_extra() -> None:
    assert first_party([*requirements(ROOT), *extras()]) == {project(folder)["name"] for folder in FOLDERS[1:]}


def test_every_distribution_has_the_same_license() -> None:
    assert {project(folder)["license"] for folder in FOLDERS} == {"Apache-2.0"}


def test_constraints_pin_whatever_is_needed() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    versions = {canonicalize_name(pin.name): str(pin.specifier).removeprefix("==") for pin in pins}
    assert len(versions) == len(pins), "a name is pinned twice"
    assert [pin for pin in pins if not re.fullmatch(r"==[\w.]+", str(pin.specifier))] == []
    for need in [*extras(), *(need for folder in FOLDERS for need in requirements(folder))]:
        if not need.name.startswith("trainkit"):
            name = canonicalize_name(need.name)
            assert name in versions, f"{name} is not in constraints.txt"
            assert need.specifier.contains(versions[name]), f"{need}: constraints.txt has {versions[name]}"
