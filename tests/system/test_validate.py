"""`trainkit validate` as a user types it."""

from __future__ import annotations

from pathlib import Path

import pytest
import trainkit
from trainkit.storage import strict_json
from trainkit.testing import tiny
from trainkit.testing.tiny import TinyTask
from trainkit.testing.tinyfiles import write_sequences

TASK = ("--task", f"{tiny.__file__}:TinyTask")
PLAIN = """
from trainkit.testing.tiny import TinyTask


class Reader:
    def __getattr__(self, name):
        if name == "inspect":
            raise AttributeError(name)
        return getattr(self.task, name)
    def __init__(self, on_bad_sample: str = "stop"):
        self.task = TinyTask(on_bad_sample=on_bad_sample)
"""


@pytest.fixture
def data(cli: object) -> Path:
    """Return data with seven lines that are wrong and one that is there twice."""
    folder = write_sequences(Path("pages"))
    lines = (folder / "train.txt").read_text()
    (folder / "train.txt").write_text(lines + "1 x\n" * 6 + "\n" + lines.splitlines()[0] + "\n")
    return folder


def test_data_without_a_fault_ends_well(cli):
    done = cli("validate", write_sequences(Path("pages")), *TASK)
    assert done.code == 0, done.err
    assert "samples           12 train, 4 val, 4 test" in done.out
    assert "format            sequences, one a line" in done.out
    assert "longest sequence  7" in done.out
    assert "no faults" in done.out


def test_findings_are_grouped_by_rule_counted_and_placed(cli, data):
    done = cli("validate", data, *TASK)
    assert done.code == 5
    assert done.err == ""
    assert "faults: 7\n  not a sequence (7)\n    train.txt:13: 'x' is no number below 13\n" in done.out
    assert "train.txt:17" in done.out
    assert "train.txt:18" not in done.out
    assert "    and 2 more; --all shows them\n" in done.out
    assert "remarks: 1\n  duplicate (1)\n    train.txt:20: the same as line 1\n" in done.out
    everything = cli("validate", data, *TASK, "--all")
    assert everything.code == 5
    assert "train.txt:19: the line is empty" in everything.out
    assert "more; --all" not in everything.out


def test_remarks_are_no_faults(cli):
    folder = write_sequences(Path("pages"))
    (folder / "val.txt").write_text("1 2\n1 2\n")
    done = cli("validate", folder, *TASK)
    assert done.code == 0
    assert "no faults" in done.out
    assert "remarks: 1" in done.out


def test_json_is_one_strict_object(cli, data):
    done = cli("validate", data, *TASK, "--json")
    document = strict_json.loads(done.out)
    assert (done.code, done.out.count("\n")) == (5, 1)
    assert document["samples"] == {"train": 13, "val": 4, "test": 4}
    assert (document["faults"], document["remarks"], len(document["findings"])) == (7, 1, 8)
    assert document["findings"][0] == {
        "rule": "not a sequence",
        "place": "train.txt:13",
        "text": "'x' is no number below 13",
        "is_fault": True,
    }


def test_a_task_that_cannot_inspect_is_asked_to_read(cli, data):
    Path("plain.py").write_text(PLAIN)
    done = cli("validate", data, "--task", "./plain.py:Reader")
    assert done.code == 5
    assert done.err.startswith("error: 7 lines cannot be used\n  where: train.txt:13\n")
    skipped = cli("validate", data, "--task", "./plain.py:Reader", "--on-bad-sample", "skip")
    assert skipped.code == 5
    assert "samples  13 train, 4 val, 4 test" in skipped.out
    assert "  skipped (7)\n    train.txt:13: 'x' is no number below 13" in skipped.out
    assert "  warning (1)\n    7 lines were skipped" in skipped.out


def test_what_is_wrong_with_the_request_is_told(cli, data):
    for arguments, code, text in [
        (("no/such/folder", *TASK), 5, "there is no such file or folder"),
        ((data, *TASK, "--set", "optimizer.lr=1"), 2, "optimizer.lr has no bearing on the data"),
        ((data, *TASK, "--set", "task.widht=1"), 2, "did you mean 'task.width'?"),
        ((data, *TASK, "--on-bad-sample", "maybe"), 2, "--on-bad-sample"),
        ((data, "--task", "no-such-task"), 4, "no task named 'no-such-task'"),
    ]:
        done = cli("validate", *arguments)
        assert (done.code, done.out) == (code, ""), done
        assert text in done.err


def test_settings_of_the_environment_that_are_not_the_tasks_are_left_alone(cli, data, monkeypatch):
    monkeypatch.setenv("TRAINKIT_LOOP__EPOCHS", "3")
    assert cli("validate", data, *TASK).code == 5


def test_python_gets_the_inspection(data):
    found = trainkit.validate(data, task=TinyTask(), settings={})
    assert found.samples == TinyTask().inspect(data).samples
    assert sum(finding.is_fault for finding in found.findings) == 7
    with pytest.raises(trainkit.DataError, match="no such file or folder"):
        trainkit.validate("nowhere", task=TinyTask())
