"""Every first-party component that is installed is put through the conformance kit by its own tests."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from trainkit.registry import Registry
from trainkit.testing import conformance_of

ROOT = Path(__file__).resolve().parents[1]
FIRST_PARTY = {
    (path.parent.name, path.name) for path in ROOT.glob("plugins/*/*") if (path / "pyproject.toml").is_file()
}
INSTALLED = sorted({(e.kind, e.name) for e in Registry().entries() if (e.kind, e.name) in FIRST_PARTY})


def conformance_classes(folder: Path) -> set[tuple[str, str]]:
    """Return (base class, component) of every class in a folder's tests that pytest collects and names a component."""
    found = set()
    for path in sorted(folder.glob("test_*.py")):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and node.name.startswith("Test"):
                bases = {base.id if isinstance(base, ast.Name) else getattr(base, "attr", "") for base in node.bases}
                found |= {(base, name) for base in bases for name in components_named(node)}
    return found


def components_named(node: ast.ClassDef) -> list[str]:
    """Return the value of `component` in a class body."""
    return [
        statement.value.value
        for statement in node.body
        if isinstance(statement, ast.Assign)
        and isinstance(statement.targets[0], ast.Name)
        and statement.targets[0].id == "component"
        and isinstance(statement.value, ast.Constant)
    ]


def test_the_sweep_finds_all_that_is_in_the_repository():
    assert FIRST_PARTY, "no plugin folder was found"
    assert set(INSTALLED) == FIRST_PARTY, f"not installed: {sorted(FIRST_PARTY - set(INSTALLED))}; run 'make install'"


@pytest.mark.parametrize(("kind", "name"), INSTALLED, ids=["/".join(pair) for pair in INSTALLED])
def test_component_is_put_through_the_kit(kind, name):
    base = conformance_of(kind).__name__
    classes = conformance_classes(ROOT / "plugins" / kind / name / "tests")
    assert (base, name) in classes, f'write a class Test... ({base}) with component = "{name}"'


@pytest.mark.parametrize(("kind", "name"), INSTALLED, ids=["/".join(pair) for pair in INSTALLED])
def test_readme_explains_every_option(kind, name):
    text = (ROOT / "plugins" / kind / name / "README.md").read_text()
    missing = [row.name for row in Registry().load(kind, name).describe() if f"`{row.name}`" not in text]
    assert not missing, f"README.md does not explain {', '.join(missing)}"


def test_the_sweep_sees_a_class_that_is_missing(tmp_path):
    (tmp_path / "test_one.py").write_text("class TestIt(LossConformance):\n    component = 'one'\n")
    (tmp_path / "test_two.py").write_text("class Two(LossConformance):\n    component = 'two'\n")
    assert conformance_classes(tmp_path) == {("LossConformance", "one")}
