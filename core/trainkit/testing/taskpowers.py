"""Checks of what a task may do besides: inspect data, answer new inputs, show its samples."""

from __future__ import annotations

import copy
import hashlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from trainkit.answering import apart
from trainkit.contracts import (
    SAMPLE_ID,
    Answer,
    Answers,
    AsTrained,
    Dataset,
    Folds,
    Inspection,
    Inspects,
    Measures,
    Panel,
    Pictures,
    Prompts,
    Sample,
    Splits,
    Streams,
)
from trainkit.errors import DataError
from trainkit.folds.fold import names_of
from trainkit.tasks import lacking

from .component import ComponentConformance, NotChecked, raises, same

FEW = 3


class TaskPowers(ComponentConformance):
    """Check the optional powers of a task; one that lacks a power lacks all of it."""

    def written(self, folder: Path) -> Path:
        """Return a small data set without a fault, written below a folder; a task that inspects data gives this."""
        raise NotChecked("give written(folder): a small data set, for a task that inspects data or answers inputs")

    def input_paths(self, data: Path) -> list[Path]:
        """Return paths in the data set of `written` that the task can answer; a task that answers gives this."""
        raise NotChecked(f"give input_paths(data): what of {data} can be answered")

    def prompt_texts(self) -> list[str]:
        """Return two texts that the task can answer, where it answers texts; override it where these are none."""
        return ["a first text", "another one"]

    def read(self, seed: int = 0) -> tuple[Any, Splits]:
        """Return a fresh task that has read and learned its embedded sample, and the splits."""
        task = self.build()
        splits: Splits = task.read(None, seed)
        task.fit(splits.train)
        return task, splits

    def model(self, task: Any) -> nn.Module:
        """Return a fresh model, the same each time."""
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model: nn.Module = task.build_model()
        return model

    def has(self, power: type[Any]) -> bool:
        """Return whether the task has an optional power; half a power is a fault."""
        task = self.build()
        missing = lacking(task, power)
        members = {*getattr(power, "__annotations__", ()), *(name for name in vars(power) if name[0] != "_")}
        assert not missing or set(missing) == members, f"{power.__name__}: only {', '.join(missing)} is missing"
        return not missing

    def answered(self, task: Any, model: nn.Module, samples: Sequence[Any], seed: int = 0) -> Sequence[Answer]:
        """Return a model's answers to samples under a seed."""
        batch = {**task.collate(samples), SAMPLE_ID: torch.arange(len(samples))}
        with torch.random.fork_rng(), torch.no_grad():
            torch.manual_seed(seed)
            answers: Sequence[Answer] = task.answers(model.eval(), batch, samples)
        return answers

    def test_inspects_what_it_reads(self) -> None:
        """Of data without a fault it counts the samples that it reads, finds no fault, and changes nothing."""
        if not self.has(Inspects):
            return
        with tempfile.TemporaryDirectory() as folder:
            data = self.written(Path(folder) / "data")
            before = content(data)
            found: Inspection = self.build().inspect(data)
            assert content(data) == before, "looking at data changes it"
            read = {name: len(dataset) for name, dataset in self.build().read(data, 0).items()}
        assert dict(found.samples) == read
        assert [finding for finding in found.findings if finding.is_fault] == []
        assert found.source
        assert found.format

    def test_cuts_itself_into_folds(self) -> None:
        """A task that cuts itself validates each fold on other samples, all of them on none, and keeps the test."""
        if not self.has(Folds):
            return
        first, second, whole = (self._fold(fold) for fold in ("1/2", "2/2", "all"))
        assert "val" in first, "a fold has nothing to validate on"
        assert "val" in second, "a fold has nothing to validate on"
        assert "val" not in whole, "the fold 'all' validates on something"
        assert len(whole["train"]) > max(len(first["train"]), len(second["train"])), (
            "the fold 'all' has not all samples"
        )
        assert len({len(splits["test"]) if "test" in splits else 0 for splits in (first, second, whole)}) == 1
        if hasattr(first["val"], "ids"):
            twice = set(names_of(first["val"])) & set(names_of(second["val"]))
            assert not twice, f"validated on twice: {sorted(twice)[:3]}"

    def _fold(self, fold: str) -> dict[str, Dataset]:
        task = self.build(self.build().fold_options(fold))
        splits: Splits = task.read(None, 0)
        task.fit(splits.train)
        return dict(splits.items())

    def test_refuses_to_inspect_what_is_not_there(self) -> None:
        """Data that does not exist is a DataError."""
        if self.has(Inspects):
            with tempfile.TemporaryDirectory() as folder, raises(DataError):
                self.build().inspect(Path(folder) / "nowhere")

    def test_adjustable_options_exist(self) -> None:
        """What may change after training are options of the task, and the model's weights do not depend on them."""
        if self.has(Answers):
            adjustable = self.build().adjustable
            assert isinstance(adjustable, frozenset)
            assert adjustable <= self.option_names(), f"no options: {', '.join(adjustable - self.option_names())}"

    def test_refuses_inputs_that_are_not_there(self) -> None:
        """An input that does not exist is a DataError."""
        if self.has(Answers):
            task, _ = self.read()
            with tempfile.TemporaryDirectory() as folder, raises(DataError):
                task.inputs([Path(folder) / "nowhere"])

    def test_reads_inputs_without_its_data(self) -> None:
        """A task that knows nothing but its saved state reads inputs, and answers each of them."""
        if not self.has(Answers):
            return
        trained, _ = self.read()
        task = self.build()
        task.load_state_dict(json.loads(json.dumps(trained.state_dict())))
        with tempfile.TemporaryDirectory() as folder:
            inputs = task.inputs(self.input_paths(self.written(Path(folder) / "data")))
            assert len(inputs) > 0
            samples = samples_of(inputs, range(min(FEW, len(inputs))))
            check_answers(self.answered(task, self.model(task), samples), len(samples))

    def test_answers_follow_from_state_and_seed(self) -> None:
        """A fresh task with the saved state and the same weights gives the same answers under the same seed."""
        if not self.has(Answers):
            return
        task, splits = self.read()
        assert splits.val is not None
        samples = samples_of(splits.val, range(min(FEW, len(splits.val))))
        kept = copy.deepcopy(samples)
        first = self.answered(task, self.model(task), samples)
        check_answers(first, len(samples))
        assert all(same(one, other) for one, other in zip(samples, kept, strict=True)), "it changes samples"
        again = self.build()
        again.load_state_dict(json.loads(json.dumps(task.state_dict())))
        second = self.answered(again, self.model(again), samples)
        for one, other in zip(first, second, strict=True):
            assert (one.name, dict(one.files), one.data) == (other.name, dict(other.files), other.data)

    def test_answers_prompts_without_its_data(self) -> None:
        """A task that knows nothing but its saved state answers each of some texts, with a text where it streams."""
        if not self.has(Prompts):
            return
        trained, _ = self.read()
        task = self.build()
        task.load_state_dict(json.loads(json.dumps(trained.state_dict())))
        texts = [*self.prompt_texts(), *getattr(task, "example_prompts", ())]
        inputs = task.prompts(texts)
        assert len(inputs) == len(texts)
        answers = self.answered(task, self.model(task), samples_of(inputs, range(len(texts))))
        check_answers(answers, len(texts))
        assert all(isinstance(answer.text, str) for answer in answers)

    def test_streams_what_it_answers(self) -> None:
        """The pieces of a streamed answer make its text, and it is the answer that the same seed gives at once."""
        if not self.has(Streams):
            return
        task, _ = self.read()
        samples = samples_of(task.prompts(self.prompt_texts()[:1]), range(1))
        batch = {**task.collate(samples), SAMPLE_ID: torch.arange(1)}
        (expected,) = self.answered(task, self.model(task), samples)
        with torch.random.fork_rng(), torch.no_grad():
            torch.manual_seed(0)
            stream = task.stream(self.model(task).eval(), batch, samples)
            pieces: list[str] = []
            while True:
                try:
                    pieces.append(next(stream))
                except StopIteration as end:
                    answer = end.value
                    break
        assert isinstance(answer, Answer), "a stream returns the answer after its last piece"
        assert (answer.data, answer.text) == (expected.data, expected.text)
        assert "".join(pieces).strip() == answer.text.strip()

    def test_answers_as_before_when_it_no_longer_paces_itself(self) -> None:
        """Answers as long as the right ones are answers, too, and leave no trace in the task."""
        if not (self.has(AsTrained) and self.has(Answers)):
            return
        task, splits = self.read()
        assert splits.val is not None
        samples = samples_of(splits.val, range(min(FEW, len(splits.val))))
        before = self.answered(task, self.model(task), samples)
        with task.as_trained():
            check_answers(self.answered(task, self.model(task), samples), len(samples))
        after = self.answered(task, self.model(task), samples)
        assert [dict(answer.files) for answer in after] == [dict(answer.files) for answer in before]

    def test_measures_whole_samples(self) -> None:
        """What is measured of the first samples of a split makes batches, and each counts as often as the others."""
        if not self.has(Measures):
            return
        task, splits = self.read()
        assert splits.val is not None
        for count in (1, min(FEW, len(splits.val))):
            dataset = task.measured(splits.val, count)
            assert len(dataset) > 0
            assert len(dataset) % count == 0, f"of {count} samples {len(dataset)} are measured"
            items = dataset.__getitems__([*range(len(dataset))])
            batch = items if isinstance(items, Mapping) else task.collate(items)
            rows = {name: len(value) for name, value in batch.items() if isinstance(value, torch.Tensor)}
            assert set(rows.values()) == {len(dataset)}, rows

    def test_shows_its_samples(self) -> None:
        """A sample's picture is [H, W, 3] of bytes, the same each time, and the sample stays as it is."""
        if not self.has(Pictures):
            return
        task, splits = self.read()
        for split, dataset in splits.items():
            (sample,) = samples_of(dataset, range(1))
            kept = copy.deepcopy(sample)
            picture = task.picture(sample)
            check_picture(picture)
            assert same(picture, task.picture(sample)), f"another picture of the same {split} sample"
            assert same(sample, kept), f"it changes the {split} sample"


def samples_of(dataset: Dataset, indices: Sequence[int]) -> list[Sample]:
    """Return samples of a dataset, taken apart where it answers with a whole batch."""
    items = dataset.__getitems__(list(indices))
    return apart(items, len(indices)) if isinstance(items, Mapping) else list(items)


def check_answers(answers: Sequence[Answer], count: int) -> None:
    """Fail unless there is an answer for each sample, each with a name of its own, files, JSON, and fit panels."""
    assert len(answers) == count
    assert len({answer.name for answer in answers}) == count, "two answers have one name"
    for answer in answers:
        assert answer.files, f"{answer.name}: no file is written for it"
        assert all(suffix.startswith(".") for suffix in answer.files), f"suffixes begin with a dot: {[*answer.files]}"
        assert all(isinstance(content, str | bytes) for content in answer.files.values())
        json.dumps(answer.data, allow_nan=False)
        for panel in answer.panels:
            assert isinstance(panel, Panel)
            if not isinstance(panel.content, str):
                check_picture(panel.content)


def check_picture(picture: Any) -> None:
    """Fail unless something is a picture [H, W, 3] of bytes."""
    assert (str(picture.dtype), picture.ndim, picture.shape[-1]) == ("uint8", 3, 3), f"{picture.dtype} {picture.shape}"
    assert picture.size > 0


def content(folder: Path) -> Mapping[str, str]:
    """Return a hash of each file below a folder, by its path."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
