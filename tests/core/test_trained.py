"""A trained run without its data: it is read only if somebody asks for a sample, and is that of the run or refused."""

from __future__ import annotations

import shutil

import pytest
import trainkit
from trainkit.api import Request
from trainkit.errors import DataError
from trainkit.rundir import RunDirectory
from trainkit.testing import tiny
from trainkit.testing.tiny import TinyTask
from trainkit.testing.tinyfiles import write_sequences
from trainkit.trained import load_trained


@pytest.fixture
def finished(tmp_path):
    """Return a run on data that is there."""
    write_sequences(tmp_path / "data")
    settings = {"data": str(tmp_path / "data"), "out": str(tmp_path / "run"), "loop.epochs": 1, "device": "cpu"}
    task = f"{tiny.__file__}:TinyTask"
    # Callbacks that select samples by what the data tells of them must not ask for it, or the model could not answer.
    callbacks = ["no:tensorboard", "curriculum", "quality-threshold"]
    trainkit.run(task=task, strategy="baseline", callback=callbacks, settings=settings)
    return tmp_path


def loaded(path, **settings):
    return load_trained(RunDirectory.read(path / "run"), None, (), "last", None, Request(**settings)).run


def test_the_splits_of_a_trained_run_are_its_own(finished):
    splits = loaded(finished).splits
    own = TinyTask().read(finished / "data", 0)
    assert [name for name, _ in splits.items()] == ["train", "val", "test"]
    for (_, unread), (_, dataset) in zip(splits.items(), own.items(), strict=True):
        indices = list(range(len(dataset)))
        assert len(unread) == len(dataset)
        found, wanted = unread.__getitems__(indices), dataset.__getitems__(indices)
        assert [sample["id"] for sample in found] == [sample["id"] for sample in wanted]
        assert all(list(a["tokens"]) == list(b["tokens"]) for a, b in zip(found, wanted, strict=True))


def test_data_that_is_gone_or_another_is_told_only_to_who_asks(finished):
    shutil.move(finished / "data", finished / "moved")
    splits = loaded(finished).splits
    assert len(splits.train) > 0
    with pytest.raises(DataError):
        splits.train.__getitems__([0])
    shutil.copytree(finished / "moved", finished / "data")
    with (finished / "data" / "train.txt").open("a") as file:
        file.write("1 2 3\n")
    with pytest.raises(DataError, match="not what the run was trained on"):
        loaded(finished).splits.train.__getitems__([0])
