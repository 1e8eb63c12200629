"""What is to be answered: prompts of files, and what becomes of records that cannot be used."""

from __future__ import annotations

import json

import pytest
from trainkit import DataError
from trainkit_task_seq2seq.inputs import read_inputs
from trainkit_task_seq2seq.pairs import Columns
from trainkit_task_seq2seq.reading import Policy

SKIP = Policy("skip", 0.5)


def read(*paths, policy=None):
    return read_inputs(paths, Columns("question", "answer"), policy or Policy())


@pytest.fixture
def records(tmp_path):
    """Return a file of three records, the second of which has no question."""
    rows = [{"id": "a", "question": "one?", "answer": "1"}, {"answer": "2"}, {"question": "three?", "answer": "3"}]
    path = tmp_path / "records.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_lines_and_records_are_read_in_their_order_under_names_of_their_own(tmp_path):
    lines, cells = tmp_path / "prompts.txt", tmp_path / "cells.csv"
    lines.write_bytes("\ufeffsoup\r\n\r\nbread\n".encode())
    cells.write_text("question,answer\nwhy?,so\n")
    found, warnings = read(lines, cells, lines)
    assert found == [
        ("prompts-1", "soup"), ("prompts-3", "bread"), ("cells.csv:2", "why?"), ("prompts-1#2", "soup"),
        ("prompts-3#2", "bread"),
    ]  # fmt: skip
    assert warnings == []


def test_a_record_that_cannot_be_used_stops_unless_it_is_left_out(records):
    with pytest.raises(DataError, match="1 of 3 records cannot be used") as stopped:
        read(records)
    assert "records.jsonl:2: " in stopped.value.why
    assert "task.on_bad_sample=skip" in stopped.value.do
    found, warnings = read(records, policy=SKIP)
    assert found == [("a", "one?"), ("records.jsonl:3", "three?")]
    assert warnings[0] == "1 of 3 records cannot be used and were left out:"
    with pytest.raises(DataError, match=r"more than task.max_bad_fraction = 0.2 allows"):
        read(records, policy=Policy("skip", 0.2))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.txt", b"\n \n", "there is nothing to answer"),
        ("empty.jsonl", b"", "there is nothing to answer"),
        ("binary.txt", b"\x89PNG\xff", "is not written in UTF-8"),
        ("page.pdf", b"%PDF", "the file has no prompts"),
        ("broken.jsonl", b'{"question": \n', "1 of 1 records cannot be used"),
    ],
)
def test_files_without_prompts_are_refused(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        read(tmp_path / name)


def test_nothing_is_left_where_every_record_is_left_out(tmp_path):
    (tmp_path / "broken.jsonl").write_bytes(b"{\n")
    with pytest.raises(DataError, match="there is nothing to answer"):
        read(tmp_path / "broken.jsonl", policy=Policy("skip", 1.0))


def test_a_path_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DataError, match="there is no such file or folder"):
        read(tmp_path / "nowhere.jsonl")
