"""The wheels that users install: what is in them, and that they work outside the source tree."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = [
    ROOT,
    ROOT / "core",
    ROOT / "cli",
    *(path.parent for path in sorted(ROOT.glob("plugins/*/*/pyproject.toml"))),
]

# One worker builds and installs once; the others have better things to do.
pytestmark = pytest.mark.xdist_group("wheels")


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Build the wheel of every distribution, and return them by name."""
    folder = tmp_path_factory.mktemp("wheels")
    built = [
        Path(path)
        for source in FOLDERS
        for path in WheelBuilder(str(source)).build(directory=str(folder), versions=["standard"])
    ]
    return {path.name.split("-")[0].replace("_", "-"): path for path in built}


@pytest.fixture(scope="module")
def installed(wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the wheels into a fresh environment that sees third-party packages, and return its folder.

    The packages of others are seen through links, one for each: a link to their whole folder would show the editable
    installations too, and with them the source tree.
    """
    environment = tmp_path_factory.mktemp("environment")
    venv.create(environment, with_pip=False, symlinks=True)
    third_party = tmp_path_factory.mktemp("third-party")
    for site in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
        for entry in Path(site).iterdir():
            if "trainkit" not in entry.name and entry.suffix != ".pth" and entry.name != "__pycache__":
                (third_party / entry.name).symlink_to(entry)
    pip = [sys.executable, "-m", "pip", "--python", str(environment / "bin/python"), "--disable-pip-version-check"]
    subprocess.run(
        [*pip, "install", "--quiet", "--no-deps", "--no-index", *map(str, wheels.values())], check=True, timeout=120
    )
    (site,) = environment.glob("lib/python*/site-packages")
    (site / "third-party.pth").write_text(f"{third_party}\n")
    return environment


@pytest.fixture
def outside(installed: Path, tmp_path: Path) -> dict[str, object]:
    """Return the keywords that run a command of the fresh environment, outside the source tree and its settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    path = f"{installed / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return {
        "cwd": tmp_path,
        "env": {**kept, "PATH": path, "COLUMNS": "120"},
        "capture_output": True,
        "text": True,
        "timeout": 150,
    }


def run(command: list[str], outside: dict[str, object]) -> subprocess.CompletedProcess[str]:
    done: subprocess.CompletedProcess[str] = subprocess.run(command, **outside)  # type: ignore[call-overload]
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done


def test_every_wheel_says_what_it_is(wheels: dict[str, Path]) -> None:
    assert len(wheels) == len(FOLDERS)
    for name, path in wheels.items():
        with zipfile.ZipFile(path) as wheel:
            (metadata,) = (member for member in wheel.namelist() if member.endswith(".dist-info/METADATA"))
            fields = Parser().parsestr(wheel.read(metadata).decode())
        assert fields["Name"] == name
        assert fields["License-Expression"] == "Apache-2.0", name
        assert fields["Summary"], name
        assert "3.11" in fields["Requires-Python"], name


def test_wheels_hold_their_package_and_nothing_else(wheels: dict[str, Path]) -> None:
    for name, path in wheels.items():
        package = "trainkit" if name == "trainkit-core" else name.replace("-", "_")
        members = zipfile.ZipFile(path).namelist()
        strangers = [m for m in members if not m.startswith(f"{package}/") and ".dist-info/" not in m]
        assert strangers == [], name
        assert [m for m in members if "/tests/" in m or m.endswith((".pyc", ".pth"))] == [], name
        if name != "trainkit":
            assert f"{package}/__init__.py" in members, name


def test_wheels_carry_every_source_file(wheels: dict[str, Path]) -> None:
    for folder in FOLDERS[1:]:
        (package,) = folder.glob("trainkit*/__init__.py")
        sources = {str(path.relative_to(folder)) for path in package.parent.rglob("*.py")}
        name = "trainkit-core" if folder.name == "core" else package.parent.name.replace("_", "-")
        assert sources <= set(zipfile.ZipFile(wheels[name]).namelist()), name


def test_core_carries_the_catalogue_and_its_types(wheels: dict[str, Path]) -> None:
    with zipfile.ZipFile(wheels["trainkit-core"]) as wheel:
        assert wheel.read("trainkit/registry.toml") == (ROOT / "registry.toml").read_bytes()
        assert "trainkit/py.typed" in wheel.namelist()


def test_root_carries_the_license(wheels: dict[str, Path]) -> None:
    with zipfile.ZipFile(wheels["trainkit"]) as wheel:
        (license_file,) = (member for member in wheel.namelist() if member.endswith("licenses/LICENSE"))
        assert wheel.read(license_file) == (ROOT / "LICENSE").read_bytes()


def test_requirements_are_met_by_the_wheels_and_the_pinned_packages(installed: Path) -> None:
    pip = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        str(installed / "bin/python"),
        "--disable-pip-version-check",
        "check",
    ]
    done = subprocess.run(pip, capture_output=True, text=True, timeout=60)
    assert [line for line in done.stdout.splitlines() if line.startswith("trainkit")] == []
    assert done.returncode == 0, done.stdout + done.stderr


def test_code_comes_from_the_wheels(installed: Path, outside: dict[str, object]) -> None:
    code = (
        "import trainkit, trainkit_cli as c, trainkit_task_layout as t; print(*(m.__file__ for m in (trainkit, c, t)))"
    )
    files = run(["python", "-c", code], outside).stdout.split()
    assert len(files) == 3
    assert all(Path(file).is_relative_to(installed) for file in files)


def test_version(wheels: dict[str, Path], outside: dict[str, object]) -> None:
    version = wheels["trainkit"].name.split("-")[1]
    assert version in run(["trainkit", "--version"], outside).stdout


def test_every_plugin_is_listed_as_ok(wheels: dict[str, Path], outside: dict[str, object]) -> None:
    listing = json.loads(run(["trainkit", "plugins", "--json"], outside).stdout)
    rows = listing["installed"] if isinstance(listing, dict) else listing
    status = {row["distribution"]: row["status"] for row in rows}
    assert status == dict.fromkeys(sorted(set(wheels) - {"trainkit", "trainkit-core", "trainkit-cli"}), "ok")


def test_run_on_the_embedded_sample(outside: dict[str, object], tmp_path: Path) -> None:
    short = ["--max-steps", "2", "--batch-size", "2", "--device", "cpu", "--set", "threads=1"]
    answer = json.loads(run(["trainkit", "run", *short, "--out", "first", "--json", "--quiet"], outside).stdout)
    assert answer
    assert json.loads((tmp_path / "first/status.json").read_text())["state"] == "done"
    assert list((tmp_path / "first/checkpoints").glob("checkpoint-*/model.safetensors"))
