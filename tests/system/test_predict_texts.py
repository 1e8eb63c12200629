"""`trainkit predict` for tasks that answer texts: prompts as arguments, in files and on standard input."""

from __future__ import annotations

import io
import json
import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import trainkit
from trainkit.errors import DataError
from trainkit.prompts import lines_of
from trainkit.storage import strict_json
from trainkit.testing import tiny, tinytext

TASK = f"{tinytext.__file__}:TinyText"
SHARP = ("--guidance", 1e6)
STRANGE = """
from trainkit.testing.tinytext import TinyText

class Silent(TinyText):
    def stream(self, model, batch, samples):
        yield "half"

class Colourful(TinyText):
    def stream(self, model, batch, samples):
        answer = super().answers(model, batch, samples)[0]
        yield "\\x1b[31mred"
        return answer

class Noisy(TinyText):
    def answers(self, model, batch, samples):
        print("from a component")
        return super().answers(model, batch, samples)
"""


def train(out: Path, task: str) -> None:
    settings = {"out": str(out), "loop.epochs": 8, "device": "cpu"}
    trainkit.run(task=task, strategy="baseline", callback="no:tensorboard", settings=settings)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return a run on texts, and one on a task that answers files alone."""
    folder = tmp_path_factory.mktemp("trained")
    train(folder / "texts", TASK)
    train(folder / "files", f"{tiny.__file__}:TinyTask")
    return {"texts": folder / "texts", "files": folder / "files"}


@pytest.fixture
def run(cli: object, trained: dict[str, Path]) -> Path:
    """Return a copy of the run on texts in the test's own folder."""
    shutil.copytree(trained["texts"], "run")
    return Path("run")


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch):
    """Return a function that puts bytes on standard input."""
    return lambda content: monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))


def task_of(run: Path, name: str) -> None:
    """Put another task into the record of a run."""
    Path("strange.py").write_text(STRANGE)
    for file in ("resolved.json", "components.json"):
        path = run / file
        path.write_text(path.read_text().replace(TASK, f"./strange.py:{name}"))


def answers(done) -> list[dict[str, str]]:
    assert done.code == 0, done.err
    return [strict_json.loads(line)["data"] for line in done.out.splitlines()]


def test_prompts_are_arguments_and_their_texts_are_shown(cli, run):
    done = cli("predict", run, "cab", "mild", *SHARP)
    assert done.code == 0, done.err
    first, text, empty, second, *_ = done.out.splitlines()
    assert (first, empty) == ("prompt-1  run/predictions/1/prompt-1.txt", "")
    assert second == "prompt-2  run/predictions/1/prompt-2.txt"
    assert Path("run/predictions/1/prompt-1.txt").read_text() == f"{text}\n"
    assert len(text) == len("cab")


def test_files_prompts_and_standard_input_are_answered_in_their_order(cli, run, typed):
    Path("prompts.txt").write_text("abba\nhad\n")
    typed(b"\xef\xbb\xbfmad\r\n\n  \nlack\n")
    done = cli("predict", run, "prompts.txt", "cab", "-", "mild", "prompts.txt", "--jsonl")
    given = [answer["input"] for answer in answers(done)]
    assert given == ["abba", "had", "cab", "mad", "lack", "mild", "abba", "had"]
    assert done.err == "warning: 2 empty lines of standard input left out\n"
    assert len(list(Path("run/predictions/1").iterdir())) == len(given)


def test_lines_of_json_are_alone_on_standard_output(cli, run):
    task_of(run, "Noisy")
    done = cli("predict", run, "cab", "dig", "--jsonl", "--batch-size", 1, "--out", "answers")
    items = [strict_json.loads(line) for line in done.out.splitlines()]
    assert [item["files"] for item in items] == [["answers/prompt-1.txt"], ["answers/prompt-2.txt"]]
    assert [set(item["data"]) for item in items] == [{"input", "text"}] * 2
    assert "from a component" in done.err
    document = strict_json.loads(cli("predict", run, "cab", "dig", "--json", "--batch-size", 1).out)
    assert [item["data"] for item in document["answers"]] == [item["data"] for item in items]


def test_one_seed_gives_one_answer_however_it_is_asked_for(cli, run, typed):
    typed(b"cabbage")
    ways = [("cabbage",), ("-",)]
    found = [answers(cli("predict", run, *way, "--jsonl", "--seed", 3)) for way in ways]
    assert found[0] == found[1]
    assert found[0] != answers(cli("predict", run, "cabbage", "--jsonl", "--seed", 4))


def test_python_takes_prompts_too(run):
    texts = [item.text for item in trainkit.predict(run, ["cab", "dig"]).items]
    assert [len(text) for text in texts] == [3, 3]
    with pytest.raises(DataError, match="there is no such input"):
        trainkit.predict(run, [Path("cab")])


def on_a_terminal(*arguments: str) -> tuple[int, str]:
    """Return the exit code of the command and what it writes to a terminal."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "trainkit_cli", "predict", *arguments]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=theirs, stderr=subprocess.PIPE) as process:
        os.close(theirs)
        shown = b""
        while True:
            try:
                piece = os.read(ours, 65536)
            except OSError:
                break
            if not piece:
                break
            shown += piece
        code = process.wait()
    os.close(ours)
    return code, shown.decode().replace("\r\n", "\n")


def test_a_single_answer_grows_on_a_terminal_and_is_what_would_be_written(cli, run):
    code, shown = on_a_terminal("run", "cabbage", "--seed", "3")
    assert code == 0
    text = Path("run/predictions/1/prompt-1.txt").read_text()
    assert shown.startswith(f"{text}\nprompt-1  run/predictions/1/prompt-1.txt\n1 in run/predictions/1, ")
    assert shown.count(text) == 1
    assert answers(cli("predict", run, "cabbage", "--seed", 3, "--jsonl"))[0]["text"] == text.strip()


def test_pieces_cannot_repaint_the_terminal(cli, run):
    task_of(run, "Colourful")
    code, shown = on_a_terminal("run", "cab")
    assert code == 0
    assert "\x1b" not in shown
    assert "[31mred" in shown


def test_several_answers_and_lines_of_json_do_not_grow(cli, run):
    task_of(run, "Silent")
    assert on_a_terminal("run", "cab", "dig")[0] == 0
    code, shown = on_a_terminal("run", "cab", "--jsonl")
    assert (code, "half" in shown) == (0, False)
    assert json.loads(shown)["data"]["input"] == "cab"


def test_a_stream_without_an_answer_is_the_fault_of_the_task(cli, run):
    task_of(run, "Silent")
    assert on_a_terminal("run", "cab")[0] == 4


@pytest.mark.parametrize(
    ("arguments", "content", "code", "message"),
    [
        (["", "cab"], b"", 5, "a prompt is empty"),
        (["  "], b"", 5, "a prompt is empty"),
        (["promts.txt"], b"", 5, "there is no such input\n  where: promts.txt"),
        (["./cab"], b"", 5, "there is no such input"),
        (["CAB"], b"", 5, "a prompt cannot be read\n  where: prompt 1"),
        (["-"], b"", 5, "there is nothing on standard input"),
        (["-"], b"\n \n", 5, "there is nothing on standard input"),
        (["-"], b"cab\n\x89PNG\xff", 5, "byte 5 of 9 is not UTF-8"),
        (["-"], b"cab\0", 5, "standard input is no text"),
        (["-", "-"], b"cab", 2, "standard input is named twice"),
        (["cab", "--json", "--jsonl"], b"", 2, "--json beside --jsonl"),
        (["cab", "--set", "task.temprature=1"], b"", 2, "lets change: task.guidance, task.on_bad_sample"),
    ],
)
def test_bad_inputs_end_in_one_message(cli, run, typed, arguments, content, code, message):
    typed(content)
    done = cli("predict", run, *arguments)
    assert (done.code, done.out) == (code, "")
    assert message in done.err
    assert not Path("run/predictions").exists()


@pytest.mark.parametrize("given", ["a prompt", "nowhere", "-", "nowhere.txt"])
def test_a_task_that_answers_files_alone_says_so(cli, trained, typed, given):
    typed(b"1 2 3\n")
    done = cli("predict", trained["files"], given)
    assert (done.code, done.out) == (5, "")
    assert f"there is no such input\n  where: {given}" in done.err
    assert ("answers no texts" in done.err) == (given != "nowhere.txt")


def test_lines_end_as_systems_end_them():
    assert lines_of(b"a\r\nb\rc d\n\ne") == (["a", "b", "c d", "e"], 1)
    assert lines_of("a\u2028b\x0bc".encode()) == (["a\u2028b\x0bc"], 0)
