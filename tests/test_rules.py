"""The rules of the house, read off the syntax trees of the core, the command line and every plugin.

Run as a script, it lists what is longer than the house likes: signs to look at, not faults.
"""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted(
    path
    for folder in (ROOT / "core/trainkit", ROOT / "cli/trainkit_cli", *ROOT.glob("plugins/*/*/trainkit_*"))
    for path in folder.rglob("*.py")
)
PLUGIN_PACKAGES = {path.name for path in ROOT.glob("plugins/*/*/trainkit_*") if path.is_dir()}

BANNED_MODULES = {"pickle", "_pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
BANNED_CALLS = {"eval", "exec", "torch.load", "torch.save", "yaml.load", "os.system", "os.popen"}
BANNED_METHODS = {"extractall"}
BANNED_KEYWORDS = {"shell", "allow_pickle"}
UNFINISHED = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")
LIGHT_IN_PLUGIN = {"__future__", "typing", "collections.abc", "trainkit"}

GUIDE_LINES, GUIDE_PARAMETERS = 250, 10

Findings = Iterator[tuple[int, str]]


def dotted(node: ast.expr) -> str:
    """Return 'a.b.c' of a name or an attribute of names, and '' of anything else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{owner}.{node.attr}" if (owner := dotted(node.value)) else ""
    return ""


def imported_modules(node: ast.AST) -> list[str]:
    """Return the absolute modules that an import statement names, and [] for anything else."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
        return [node.module]
    return []


def dangerous(tree: ast.Module) -> Findings:
    """Find what runs code out of data: pickles, eval and exec, shells, archives that write anywhere."""
    for node in ast.walk(tree):
        for module in imported_modules(node):
            if module.split(".")[0] in BANNED_MODULES:
                yield node.lineno, f"imports {module}"
        if not isinstance(node, ast.Call):
            continue
        if (name := dotted(node.func)) in BANNED_CALLS:
            yield node.lineno, f"calls {name}"
        if isinstance(node.func, ast.Attribute) and node.func.attr in BANNED_METHODS:
            yield node.lineno, f"calls .{node.func.attr}"
        for keyword in node.keywords:
            if keyword.arg in BANNED_KEYWORDS and not (
                isinstance(keyword.value, ast.Constant) and keyword.value.value is False
            ):
                yield node.lineno, f"passes {keyword.arg}="


def unfinished(tree: ast.Module) -> Findings:
    """Find functions without a body. Protocols, overloads, abstract methods and hook specifications have none."""
    bodiless: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and any("Protocol" in dotted(getattr(b, "value", b)) for b in node.bases):
            bodiless.update(ast.walk(node))
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or node in bodiless:
            continue
        if {dotted(d).split(".")[-1] for d in node.decorator_list} & {"hookspec", "abstractmethod", "overload"}:
            continue
        rest = node.body[1:] if ast.get_docstring(node) is not None else node.body
        if not rest and isinstance(node.returns, ast.Constant):
            continue  # documented, and typed to answer with None: doing nothing is what it is for
        if all(_says_nothing(statement) for statement in rest):
            yield node.lineno, f"{node.name} has no body"


def _says_nothing(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.Raise):
        raised = statement.exc.func if isinstance(statement.exc, ast.Call) else statement.exc
        return raised is not None and dotted(raised) == "NotImplementedError"
    return isinstance(statement, ast.Pass) or (
        isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant) and statement.value.value is ...
    )


def side_effects(tree: ast.Module) -> Findings:
    """Find what an import would do besides defining names, and functions that write module variables."""
    for statement in tree.body:
        if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
            yield statement.lineno, f"calls {dotted(statement.value.func)} when imported"
        targets = statement.targets if isinstance(statement, ast.Assign) else []
        if any(isinstance(target, ast.Subscript | ast.Attribute) for target in targets):
            yield statement.lineno, "writes into another object when imported"
    for node in ast.walk(tree):
        if isinstance(node, ast.Global):
            yield node.lineno, f"global {', '.join(node.names)}"


def undocumented(tree: ast.Module) -> Findings:
    """Find a module that does not say what it is for."""
    if tree.body and not ast.get_docstring(tree):
        yield 1, "no module docstring"


def asks_class_of_task(tree: ast.Module) -> Findings:
    """Find isinstance on a task: from Python 3.12 on it is blind to the powers that a derived task has of its base."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and dotted(node.func) == "isinstance":
            asked = dotted(node.args[0])
            if asked.rpartition(".")[2].lstrip("_") == "task":
                yield node.lineno, f"isinstance({asked}, ...); trainkit.tasks.lacking tells"


def foreign_packages(tree: ast.Module, allowed: set[str]) -> Findings:
    """Find first-party packages named in an import, at any depth, or in a string, that are not the file's to know."""
    for node in ast.walk(tree):
        names = imported_modules(node)
        if (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and node.value.partition(".")[0].isidentifier()
        ):
            names = [node.value] if node.value.partition(".")[0] in PLUGIN_PACKAGES else []
        for name in names:
            package = name.partition(".")[0]
            if package.startswith("trainkit_") and package not in allowed:
                yield node.lineno, f"knows {package}"


def heavy_in_plugin(tree: ast.Module) -> Findings:
    """Find imports that every listing would pay for: a plugin's module loads its component inside its hook."""
    for statement in tree.body:
        modules = imported_modules(statement)
        if isinstance(statement, ast.ImportFrom) and statement.level:
            modules = ["." + (statement.module or "")]
        for module in modules:
            if module not in LIGHT_IN_PLUGIN:
                yield statement.lineno, f"imports {module} at module level"
        if "trainkit" in modules and {alias.name for alias in getattr(statement, "names", [])} != {"hookimpl"}:
            yield statement.lineno, "imports more than hookimpl from trainkit at module level"


def sweep(check: Callable[[ast.Module], Findings], paths: list[Path] = SOURCES) -> list[str]:
    """Return the findings of a check in these files as 'file:line: finding'."""
    assert paths, "nothing to look at"
    return [
        f"{path.relative_to(ROOT)}:{line}: {finding}"
        for path in paths
        for line, finding in check(ast.parse(path.read_text(encoding="utf-8")))
    ]


EXAMPLES = [
    (dangerous, "import pickle", True),
    (dangerous, "from joblib import load", True),
    (dangerous, "torch.load(path)", True),
    (dangerous, "eval(text)", True),
    (dangerous, "model.eval()", False),
    (dangerous, "subprocess.run(text, shell=True)", True),
    (dangerous, "subprocess.run(words, shell=False)", False),
    (dangerous, "tar.extractall(folder)", True),
    (dangerous, "np.load(path, allow_pickle=True)", True),
    (unfinished, "def f():\n    pass", True),
    (unfinished, "def f():\n    'Say.'\n    ...", True),
    (unfinished, "def f() -> int:\n    'Say.'", True),
    (unfinished, "def f() -> None:\n    'Say.'", False),
    (unfinished, "def f() -> None:\n    'Say.'\n    pass", True),
    (unfinished, "def f():\n    raise NotImplementedError('later')", True),
    (unfinished, "@hookspec\ndef f():\n    'Say.'", False),
    (unfinished, "class P(Protocol):\n    def f(self): ...", False),
    (unfinished, "def f():\n    return None", False),
    (side_effects, "torch.manual_seed(0)", True),
    (side_effects, "os.environ['A'] = '1'", True),
    (side_effects, "def f():\n    global a\n    a = 1", True),
    (side_effects, "TABLE = dict(a=1)", False),
    (undocumented, "import os", True),
    (undocumented, "'''Say.'''\nimport os", False),
    (asks_class_of_task, "isinstance(run.task, Prompts)", True),
    (asks_class_of_task, "isinstance(task, Prompts)", True),
    (asks_class_of_task, "isinstance(model, Module) or lacking(task, Prompts)", False),
    (heavy_in_plugin, "import torch", True),
    (heavy_in_plugin, "from .lion import Lion", True),
    (heavy_in_plugin, "from trainkit import SumMetric, hookimpl", True),
    (heavy_in_plugin, "from trainkit import hookimpl\ndef f():\n    import torch", False),
]


@pytest.mark.parametrize(("check", "source", "found"), EXAMPLES, ids=lambda value: getattr(value, "__name__", None))
def test_every_check_finds_what_it_is_for(check: Callable[[ast.Module], Findings], source: str, found: bool) -> None:
    assert bool(list(check(ast.parse(source)))) is found


@pytest.mark.parametrize("check", [dangerous, unfinished, undocumented, asks_class_of_task])
def test_sources_keep_the_rule(check: Callable[[ast.Module], Findings]) -> None:
    assert sweep(check) == []


def test_imports_have_no_side_effect() -> None:
    assert sweep(side_effects, [path for path in SOURCES if path.name != "__main__.py"]) == []


def test_plugin_modules_are_light() -> None:
    modules = [path for path in SOURCES if path.name == "__init__.py" and path.parent.name in PLUGIN_PACKAGES]
    assert len(modules) == len(PLUGIN_PACKAGES)
    assert sweep(heavy_in_plugin, modules) == []


def test_nobody_imports_a_plugin() -> None:
    found = []
    for path in SOURCES:
        home = path.relative_to(ROOT).parts
        own = home[3] if home[0] == "plugins" else home[1]
        known = {own, *base_packages(ROOT.joinpath(*home[:3]))} if home[:2] == ("plugins", "task") else {own}
        found += sweep(lambda tree, known=known: foreign_packages(tree, known), [path])
    assert found == []


def base_packages(home: Path) -> set[str]:
    """Return the packages of the tasks that a task's distribution needs: it stands on one, and speaks its words."""
    needs = tomllib.loads((home / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    names = (re.match(r"[\w-]+", need) for need in needs)
    return {name[0].replace("-", "_") for name in names if name and name[0].startswith("trainkit-task-")}


def test_nothing_is_left_for_later() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in [*SOURCES, *ROOT.glob("plugins/*/*/README.md"), *ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if UNFINISHED.search(line)
    ]
    assert found == []


def test_ruff_and_import_linter_agree_on_what_is_light() -> None:
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    (pattern,) = (p for p, rules in tools["ruff"]["lint"]["per-file-ignores"].items() if rules == ["TID253"])
    (contract,) = (c for c in tools["importlinter"]["contracts"] if c["name"].startswith("The light modules"))
    in_ruff = re.search(r"core/trainkit/\{([^}]*)\}", pattern)
    assert in_ruff is not None
    assert {f"trainkit.{name.replace('/', '.')}" for name in in_ruff[1].split(",")} - {"trainkit.__init__"} == set(
        contract["source_modules"]
    )
    assert set(tools["ruff"]["lint"]["flake8-tidy-imports"]["banned-module-level-imports"]) == set(
        contract["forbidden_modules"]
    )


def main() -> None:
    """Print the files and constructors that are longer than the guide."""
    for path in SOURCES:
        text = path.read_text(encoding="utf-8")
        if (lines := len(text.splitlines())) > GUIDE_LINES:
            print(f"worth a look: {path.relative_to(ROOT)} has {lines} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef) and node.name == "__init__":
                count = len(node.args.posonlyargs + node.args.args + node.args.kwonlyargs) - 1
                if count > GUIDE_PARAMETERS:
                    print(f"worth a look: {path.relative_to(ROOT)}:{node.lineno} has {count} parameters")


if __name__ == "__main__":
    main()
