"""The example plugin of the site is a whole distribution: installed from its wheel it is found, passes and trains."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

ROOT = Path(__file__).resolve().parents[2]
PLUGIN = ROOT / "docs/example-plugin"
PAGE = ROOT / "docs/writing-a-plugin.md"

pytestmark = [pytest.mark.docs, pytest.mark.xdist_group("example-plugin")]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder into which the plugin is installed as pip would: the content of its wheel."""
    wheels, site = tmp_path_factory.mktemp("wheels"), tmp_path_factory.mktemp("site")
    for wheel in WheelBuilder(str(PLUGIN)).build(directory=str(wheels), versions=["standard"]):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(site)
    return site


def call(site: Path, folder: Path, *arguments: str) -> str:
    """Run a module in a process that sees the installed plugin, and return what it prints."""
    environment = {**os.environ, "PYTHONPATH": str(site), "TRAINKIT_THREADS": "1"}
    command = [sys.executable, "-m", *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_it_is_listed_like_any_other(installed: Path, tmp_path: Path) -> None:
    listed = json.loads(call(installed, tmp_path, "trainkit_cli", "plugins", "--json"))["installed"]
    (entry,) = (entry for entry in listed if entry["name"] == "focal")
    assert (entry["kind"], entry["distribution"], entry["status"]) == ("loss", "trainkit-loss-focal", "ok")


def test_its_own_tests_pass(installed: Path, tmp_path: Path) -> None:
    said = call(installed, tmp_path, "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(PLUGIN), str(PLUGIN))
    assert "passed" in said


def test_it_trains(installed: Path, tmp_path: Path) -> None:
    run = ["run", "--loss", "focal", "--set", "loss.gamma=1.5", "--max-steps", "2", "--batch-size", "2"]
    said = call(installed, tmp_path, "trainkit_cli", *run, "--set", "evaluate.final=false", "--json")
    assert json.loads(said)["steps"] == 2


def test_the_page_shows_the_files_as_they_are() -> None:
    page = PAGE.read_text(encoding="utf-8")
    shown = [path for path in PLUGIN.rglob("*") if path.suffix in (".py", ".toml") and "__pycache__" not in path.parts]
    assert len(shown) == 4
    for path in shown:
        language = "toml" if path.suffix == ".toml" else "python"
        block = f'```{language} title="{path.relative_to(PLUGIN)}"\n{path.read_text(encoding="utf-8")}```\n'
        assert block in page, f"{PAGE.name} does not show {path.relative_to(PLUGIN)} as it is"
