"""One naming chain: kind and name give folder, distribution, package, entry point; versions move in lockstep."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from trainkit import __version__
from trainkit.hooks import KINDS

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = sorted(path for path in ROOT.glob("plugins/*/*") if path.is_dir() and path.name != "__pycache__")
NAMES = [f"{path.parent.name}/{path.name}" for path in FOLDERS]
LINES_OF_A_PYPROJECT = 20

each_plugin = pytest.mark.parametrize("folder", FOLDERS, ids=NAMES)


def project(folder: Path) -> dict:
    return tomllib.loads((folder / "pyproject.toml").read_text())


def package(folder: Path) -> str:
    return f"trainkit_{folder.parent.name}_{folder.name}".replace("-", "_")


def lockstep() -> str:
    """Return what a plugin needs of the core: at least this minor version, below the next major one."""
    major, minor = __version__.split(".")[:2]
    return f"trainkit-core>={major}.{minor},<{int(major) + 1}"


def test_there_are_plugins_of_every_kind():
    assert {path.parent.name for path in FOLDERS} == set(KINDS)


@each_plugin
def test_folder_names_kind_and_component(folder):
    assert folder.parent.name in KINDS
    assert re.fullmatch(r"[a-z][a-z0-9-]*", folder.name)


@each_plugin
def test_distribution_package_and_entry_point_follow_from_the_folder(folder):
    kind, name = folder.parent.name, folder.name
    settings = project(folder)
    assert settings["project"]["name"] == f"trainkit-{kind}-{name}"
    assert settings["project"]["entry-points"] == {f"trainkit.{kind}": {name: package(folder)}}
    assert (folder / package(folder) / "__init__.py").is_file()
    packages = [path.name for path in folder.iterdir() if (path / "__init__.py").is_file() and path.name != "tests"]
    assert packages == [package(folder)]


@each_plugin
def test_hook_is_the_hook_of_the_kind(folder):
    source = (folder / package(folder) / "__init__.py").read_text()
    assert f"def trainkit_{folder.parent.name}(" in source


@each_plugin
def test_readme_and_tests_are_where_they_belong(folder):
    kind, name = folder.parent.name, folder.name.replace("-", "_")
    title, _, text = (folder / "README.md").read_text().partition("\n")
    assert title.startswith("# ")
    assert folder.name in title
    assert text.strip()
    assert (folder / "tests" / f"test_{kind}_{name}.py").is_file()


@each_plugin
def test_versions_move_in_lockstep(folder):
    settings = project(folder)["project"]
    assert settings["version"] == __version__
    assert lockstep() in settings["dependencies"]
    assert settings["requires-python"] == project(ROOT)["project"]["requires-python"]


@each_plugin
def test_a_plugin_has_facts_and_no_settings_of_tools(folder):
    settings = project(folder)
    assert set(settings) == {"build-system", "project"}
    assert len((folder / "pyproject.toml").read_text().splitlines()) <= LINES_OF_A_PYPROJECT
    assert 10 <= len(settings["project"]["description"]) <= 100
    assert not settings["project"]["description"].endswith(".")


@pytest.mark.parametrize("folder", ["core", "cli", "."])
def test_core_and_command_line_share_the_version(folder):
    settings = project(ROOT / folder)["project"]
    assert settings["version"] == __version__
