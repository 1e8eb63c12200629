"""The code blocks of README.md, of every page of docs/ and of every plugin's README are executed.

Each page has a folder of its own, in which `my-data` and `pages` hold real samples. Blocks follow one another as on the
page; several commands in a block too.

    ```sh                       each line that calls trainkit is run as below and must end well; PEOPLE type the others
    ```toml                     a config: drafted by `trainkit plan`
    ```python                   run as a script
    ```LANGUAGE title="NAME"    written into the folder, for the blocks after it; a config is drafted as well
    ```text                     shown, not executed
    indented, in a plugin's README: as sh

What the page says, and what the test does to keep it short:

    trainkit run, in Python too     as it stands, with the settings SHORT
    trainkit run, plugin's README   trainkit plan --no-cost with the same arguments: its own tests train it
    trainkit plan                   with --no-cost, except for --why; without SHORT
    any other command               as it stands
"""

from __future__ import annotations

import json
import os
import re
import runpy
import shlex
import shutil
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import pytest
from trainkit_cli.main import main

ROOT = Path(__file__).resolve().parents[2]
CARDS = sorted(ROOT.glob("plugins/*/*/README.md"))
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md")), *CARDS]
PEOPLE = {"cd", "git", "kill", "make", "pip", "pytest", "python", "tensorboard", "tree"}
DATA = ("my-data", "pages")
SHORT = {
    "TRAINKIT_LOOP__MAX_STEPS": "2",
    "TRAINKIT_LOOP__BATCH_SIZE": "2",
    "TRAINKIT_EVALUATE__FINAL": "false",
    "TRAINKIT_THREADS": "1",
}
FENCE = re.compile(r'^```(\w*)(?: +(?:file=(\S+)|title="([^"]+)"))?\n(.*?)^```$', re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"(?:^ {4}trainkit .*\n)+", re.MULTILINE)


class Block(NamedTuple):
    language: str
    file: str
    text: str
    line: int


def blocks(page: str) -> list[Block]:
    """Return the fenced blocks of a page, in order."""
    return [Block(m[1], m[2] or m[3] or "", m[4], page.count("\n", 0, m.start()) + 1) for m in FENCE.finditer(page)]


def card_blocks(page: str) -> list[Block]:
    """Return the fenced blocks of a plugin's README, and its indented commands."""
    indented = [Block("sh", "", m[0], page.count("\n", 0, m.start()) + 1) for m in INDENTED.finditer(page)]
    return sorted([*blocks(page), *indented], key=lambda block: block.line)


def commands(block: Block, *, is_card: bool = False) -> list[list[str]]:
    """Return the arguments of the trainkit calls that a block asks for, shortened."""
    name = Path(block.file).name
    if block.language == "toml" and name != "pyproject.toml":
        return [["plan", name or "config.toml", "--no-cost"]]
    if block.language != "sh":
        return []
    lines = block.text.replace("\\\n", " ").splitlines()
    calls = [words for line in lines if (words := shlex.split(line, comments=True)) and words[0] not in PEOPLE]
    assert all(words[0] == "trainkit" for words in calls), f"line {block.line}: only trainkit is run"
    return [shortened(words[1:], is_card) for words in calls]


def shortened(arguments: list[str], is_card: bool) -> list[str]:
    """Return arguments that take less time and fail for the same reasons."""
    if is_card and arguments[:1] == ["run"]:
        arguments = ["plan", *arguments[1:]]
    if arguments[:1] == ["plan"] and "--why" not in arguments:
        return [*arguments, "--no-cost"]
    return arguments


def execute(block: Block, folder: Path, *, is_card: bool = False) -> None:
    """Do what a block asks for, in a folder that is the current one."""
    assert block.language in {"sh", "toml", "python", "json", "text"}, f"line {block.line}: '{block.language}'?"
    if block.language == "json":
        json.loads(block.text)
    if block.file or block.language == "toml":
        target = folder / (block.file or "config.toml")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(block.text, encoding="utf-8")
    elif block.language == "python":
        script = folder / f"block_{block.line}.py"
        script.write_text(block.text, encoding="utf-8")
        with mock.patch.dict(os.environ, SHORT):
            runpy.run_path(str(script), run_name="__main__")
    for arguments in commands(block, is_card=is_card):
        code, said = call(arguments)
        assert code == 0, f"line {block.line}: trainkit {shlex.join(arguments)} ended with {code}\n{said}"


def call(arguments: list[str]) -> tuple[object, str]:
    """Run trainkit in this process; return its exit code and what it printed."""
    said = StringIO()
    settings = {} if arguments[0] == "plan" else SHORT
    with (
        mock.patch.dict(os.environ, settings),
        redirect_stdout(said),
        redirect_stderr(said),
        pytest.raises(SystemExit) as ended,
    ):
        main(arguments)
    return ended.value.code, said.getvalue()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with samples, made the current one."""
    for name in DATA:
        shutil.copytree(ROOT / "tests/data/pix2code-web", tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.docs
@pytest.mark.timeout(300)
@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_code_blocks_do_what_the_page_says(page: Path, folder: Path) -> None:
    text, is_card = page.read_text(encoding="utf-8"), page in CARDS
    assert text.count("```") == 2 * len(blocks(text)), "a fence is not closed, or has another form"
    for block in card_blocks(text) if is_card else blocks(text):
        execute(block, folder, is_card=is_card)


def test_blocks_are_found() -> None:
    page = 'a\n```toml title="a.toml"\nx = 1\n```\n\n```sh\nmake run\n```\n```text\n>\n```\n    trainkit run\n'
    assert [(block.language, block.file, block.line) for block in card_blocks(page)] == [
        ("toml", "a.toml", 2),
        ("sh", "", 6),
        ("text", "", 9),
        ("sh", "", 12),
    ]


@pytest.mark.parametrize(
    ("block", "is_card", "expected"),
    [
        (
            Block("sh", "", "make run\ntrainkit plan --set a=1  # why\n", 1),
            False,
            [["plan", "--set", "a=1", "--no-cost"]],
        ),
        (Block("sh", "", "trainkit plan --why seed\n", 1), False, [["plan", "--why", "seed"]]),
        (Block("sh", "", "trainkit run --loss \\\n  x\n", 1), False, [["run", "--loss", "x"]]),
        (Block("sh", "", "trainkit run --loss x\n", 1), True, [["plan", "--loss", "x", "--no-cost"]]),
        (Block("toml", "", "seed = 1\n", 1), False, [["plan", "config.toml", "--no-cost"]]),
        (Block("toml", "x/pyproject.toml", "", 1), False, []),
        (Block("text", "", "trainkit run\n", 1), False, []),
    ],
)
def test_blocks_are_understood(block: Block, is_card: bool, expected: list[list[str]]) -> None:
    assert commands(block, is_card=is_card) == expected


@pytest.mark.parametrize(
    ("block", "fault"),
    [
        (Block("sh", "", "rm -r x\n", 1), "only trainkit is run"),
        (Block("rust", "", "", 1), "rust"),
        (Block("sh", "", "trainkit plan --loss no-such-loss\n", 7), "line 7: .* ended with 4"),
        (Block("toml", "", "no_such_key = 1\n", 1), "ended with 2"),
    ],
)
def test_blocks_that_are_wrong_fail(block: Block, fault: str, folder: Path) -> None:
    with pytest.raises(AssertionError, match=fault):
        execute(block, folder)


def test_readme_has_commands_and_a_component() -> None:
    found = blocks((ROOT / "README.md").read_text(encoding="utf-8"))
    assert sum(block.text.count("\ntrainkit ") + block.text.startswith("trainkit ") for block in found) >= 3
    assert [block.file for block in found if block.file] == ["focal.py"]


def test_links_inside_the_repository_lead_somewhere() -> None:
    targets = {
        (page, target.partition("#")[0])
        for page in [*PAGES, *ROOT.glob("*.md")]
        for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
        if "://" not in target and not target.startswith(("#", "mailto:"))
    }
    assert targets
    assert [
        f"{page.relative_to(ROOT)}: {target}" for page, target in targets if not (page.parent / target).exists()
    ] == []
