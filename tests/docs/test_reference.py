"""The reference pages are what the code says, and the site leads to every page."""

from __future__ import annotations

import importlib.util
import inspect
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
from trainkit.errors import ExitCode
from trainkit.hooks import Events, KindHooks
from trainkit.kinds import KINDS
from trainkit.settings import setting_keys

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    """Return docs/generate.py as a module."""
    spec = importlib.util.spec_from_file_location("docs_generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def read(page: str) -> str:
    return (DOCS / page).read_text(encoding="utf-8")


def test_reference_is_what_the_code_says(generate: ModuleType) -> None:
    assert generate.drifted() == [], "run: python docs/generate.py write"


def test_drift_is_seen(generate: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generate, "REFERENCE", tmp_path)
    monkeypatch.setattr(generate, "PAGES", {"settings.md": generate.settings_page})
    assert generate.main(["check"]) == 1
    assert generate.main(["write"]) == 0
    assert generate.main(["check"]) == 0
    (tmp_path / "settings.md").write_text("older")
    assert generate.main(["check"]) == 1


def test_usage_is_told(generate: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert generate.main([]) == 2
    assert "write|check" in capsys.readouterr().err


@pytest.mark.parametrize("owner", [KindHooks, Events])
def test_every_hook_has_a_heading_with_its_exact_arguments(owner: type) -> None:
    functions = [function for name, function in vars(owner).items() if not name.startswith("_")]
    assert functions
    for function in functions:
        arguments = ", ".join(name for name in inspect.signature(function).parameters if name != "self")
        assert f"\n### `{function.__name__}({arguments})`\n" in read("reference/hooks.md")


def test_every_setting_is_explained() -> None:
    missing = [key for key in setting_keys() if f"| `{key}` |" not in read("reference/settings.md")]
    assert missing == []


def test_every_kind_has_a_page() -> None:
    assert {path.stem for path in (DOCS / "kinds").glob("*.md")} == set(KINDS)


def test_the_table_of_exit_codes_is_complete() -> None:
    rows = re.findall(r"^\| (\d+) \| `(\w+)` \|", read("runs.md"), re.MULTILINE)
    assert {int(code): name for code, name in rows} == {int(code): code.name for code in ExitCode}


def test_the_order_of_events_is_the_one_of_the_hooks() -> None:
    names = [name for name in vars(Events) if not name.startswith("_")]
    drawing = read("loop.md").partition("```text\n")[2].partition("```")[0]
    assert [name for name in re.findall(r"\w+", drawing) if name in names] == names


def test_the_site_leads_to_every_page() -> None:
    in_menu = re.findall(r"(\S+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE)
    pages = [str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md") if "example-plugin" not in path.parts]
    assert sorted(in_menu) == sorted(pages)
