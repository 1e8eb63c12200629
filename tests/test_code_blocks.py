"""The code blocks of README.md and of every page of docs/ are executed, page by page, each page in a folder of its own.

```sh                 each line that calls trainkit is run and must end well; make, pip and git lines are for people
```python             run as a script
```LANGUAGE file=NAME  written into the folder, for the blocks after it
```text               shown, not executed
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md"))]
FOR_PEOPLE = {"make", "pip", "git", "cd"}
# The commands stand on the pages as people type them; these settings make them short.
SHORT = {
    "TRAINKIT_LOOP__MAX_STEPS": "2",
    "TRAINKIT_LOOP__BATCH_SIZE": "2",
    "TRAINKIT_EVALUATE__FINAL": "false",
    "TRAINKIT_THREADS": "1",
}


class Block(NamedTuple):
    language: str
    file: str
    text: str
    line: int


def blocks(page: str) -> list[Block]:
    """Return the fenced blocks of a page, in order."""
    pattern = re.compile(r"^```(\w*)(?: +file=(\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
    return [Block(m[1], m[2] or "", m[3], page.count("\n", 0, m.start()) + 1) for m in pattern.finditer(page)]


def commands(block: Block, folder: Path) -> list[list[str]]:
    """Return what a block asks to run, after writing the file that it asks to write."""
    if block.file:
        (folder / block.file).write_text(block.text, encoding="utf-8")
        return []
    if block.language == "python":
        return [[sys.executable, "-c", block.text]]
    assert block.language in {"sh", "text"}, f"line {block.line}: a block of '{block.language}' cannot be executed"
    lines = block.text.replace("\\\n", " ").splitlines() if block.language == "sh" else []
    calls = [words for line in lines if (words := shlex.split(line, comments=True)) and words[0] not in FOR_PEOPLE]
    assert all(words[0] == "trainkit" for words in calls), f"line {block.line}: only trainkit is run"
    return [[sys.executable, "-m", "trainkit_cli", *words[1:]] for words in calls]


@pytest.mark.docs
@pytest.mark.timeout(600)
@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_code_blocks_do_what_the_page_says(page: Path, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "tests/data/pix2code-web", tmp_path / "my-data")
    for block in blocks(page.read_text(encoding="utf-8")):
        for command in commands(block, tmp_path):
            done = subprocess.run(
                command, cwd=tmp_path, env={**os.environ, **SHORT}, capture_output=True, text=True, timeout=150
            )
            assert done.returncode == 0, f"{page.name}:{block.line}: {command[2:]}\n{done.stdout}\n{done.stderr}"


def test_blocks_are_found_and_understood(tmp_path: Path) -> None:
    page = (
        "a\n```toml file=a.toml\nx = 1\n```\n\n```sh\nmake run\ntrainkit plan --set a=1  # why\n```\n```text\n>\n```\n"
    )
    found = blocks(page)
    assert [(block.language, block.file, block.line) for block in found] == [
        ("toml", "a.toml", 2),
        ("sh", "", 6),
        ("text", "", 10),
    ]
    assert [commands(block, tmp_path) for block in found] == [
        [],
        [[sys.executable, "-m", "trainkit_cli", "plan", "--set", "a=1"]],
        [],
    ]
    assert (tmp_path / "a.toml").read_text() == "x = 1\n"
    with pytest.raises(AssertionError, match="only trainkit is run"):
        commands(Block("sh", "", "rm -r x\n", 1), tmp_path)
    with pytest.raises(AssertionError, match="cannot be executed"):
        commands(Block("rust", "", "", 1), tmp_path)


def test_readme_has_commands_and_a_component() -> None:
    found = blocks((ROOT / "README.md").read_text(encoding="utf-8"))
    assert sum(block.text.count("\ntrainkit ") + block.text.startswith("trainkit ") for block in found) >= 3
    assert [block.file for block in found if block.file] == ["focal.py"]


def test_links_inside_the_repository_lead_somewhere() -> None:
    targets = {
        (page, target.partition("#")[0])
        for page in [*PAGES, *ROOT.glob("*.md"), *ROOT.glob("plugins/*/*/README.md")]
        for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
        if "://" not in target and not target.startswith(("#", "mailto:"))
    }
    assert targets
    assert [
        f"{page.relative_to(ROOT)}: {target}" for page, target in targets if not (page.parent / target).exists()
    ] == []
