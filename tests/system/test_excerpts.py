"""How the texts that a model writes are shown in a terminal while it trains."""

from __future__ import annotations

from trainkit.testing import tinytext
from trainkit_cli.excerpts import WIDTH, Excerpts, excerpt

TASK = ("--task", f"{tinytext.__file__}:TinyText", "--callback", "no:tensorboard", "--callback", "sample-outputs")


def test_the_first_lines_of_two_texts_at_most_every_ten_seconds():
    written, now = [], [100.0]
    excerpts = Excerpts(written.append, lambda: now[0])
    texts = {f"samples/{number}": f"input: {number}\n\nanswer: a\nb\nc\n" for number in range(5)}
    excerpts.tell(20, texts)
    shown = ["samples/0, step 20", "  input: 0", "  answer: a", "  b …"]
    assert written == [
        *shown,
        *(line.replace("0", "1", 1) if "2" not in line else "samples/1, step 20" for line in shown),
    ]
    now[0] += 9
    excerpts.tell(40, texts)
    assert len(written) == 8
    now[0] += 2
    excerpts.tell(60, {"samples/0": "short"})
    assert written[8:] == ["samples/0, step 60", "  short"]


def test_long_and_hostile_lines_fit_the_terminal():
    (line,) = excerpt("\x1b[2J" + "x" * 500)
    assert len(line) == WIDTH
    assert line.endswith("x…")
    assert "\x1b" not in line
    assert excerpt(" \n\n") == []


def test_a_run_shows_them_unless_it_is_quiet(cli):
    shown = cli("run", *TASK, "--epochs", 2, "--out", "run")
    assert shown.code == 0
    assert "samples/prompt-1, step " in shown.err
    assert "  input: cab\n  answer: " in shown.err
    quiet = cli("run", *TASK, "--epochs", 2, "--out", "quiet", "--quiet")
    assert (quiet.code, quiet.out, quiet.err) == (0, "", "")
