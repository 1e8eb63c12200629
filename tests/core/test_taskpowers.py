"""The conformance kit finds faults in what a task may do besides, one at a time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from trainkit.component import Component
from trainkit.contracts import Finding, Panel
from trainkit.folds.subset import Subset
from trainkit.testing import NotChecked, TaskConformance
from trainkit.testing.tiny import TinyData, TinyTask
from trainkit.testing.tinyfiles import write_sequences
from trainkit.testing.tinytext import TinyText

POWERS = [
    "test_inspects_what_it_reads",
    "test_refuses_to_inspect_what_is_not_there",
    "test_adjustable_options_exist",
    "test_refuses_inputs_that_are_not_there",
    "test_reads_inputs_without_its_data",
    "test_answers_follow_from_state_and_seed",
    "test_measures_whole_samples",
    "test_answers_prompts_without_its_data",
    "test_streams_what_it_answers",
    "test_shows_its_samples",
]


def of(target, **attributes):
    """Return the conformance object of a task that no distribution offers."""

    def load(self):
        return Component("task", "mine", target)

    given = {
        "component": "mine",
        "load": load,
        "written": lambda self, folder: write_sequences(folder),
        "input_paths": lambda self, data: [data / "val.txt"],
    }
    return type("Checked", (TaskConformance,), given | attributes)()


def failing(checked, names=POWERS):
    """Return the checks that fail."""
    found = []
    for name in names:
        try:
            getattr(checked, name)()
        except NotChecked:
            raise
        except Exception:
            found.append(name)
    return found


def without(*members):
    """Return a task that lacks these members."""

    class Lacking:
        """Be a tiny task without some members."""

        def __init__(self):
            self.task = TinyTask()

        def __getattr__(self, name):
            if name in members:
                raise AttributeError(name)
            return getattr(self.task, name)

    return Lacking


def test_the_tiny_task_keeps_all_of_it():
    others = [name for name in dir(TaskConformance) if name.startswith("test_") and name not in POWERS]
    others = [n for n in others if n not in ("test_is_found_by_name", "test_naming_it_imports_nothing_heavy")]
    assert len(others) > 10
    assert failing(of(TinyTask, overfit_steps=100, overfit_lr=0.03), [*POWERS, *others]) == []


def test_a_task_without_powers_is_in_order_and_half_a_power_is_not():
    assert failing(of(without("inspect", "inputs", "answers", "adjustable", "picture"), written=None)) == []
    assert failing(of(without("inputs"))) == POWERS[2:6]


def test_what_only_its_own_tests_can_give_is_asked_for():
    written, paths = TaskConformance.written, TaskConformance.input_paths
    with pytest.raises(NotChecked, match="give written"):
        of(TinyTask, written=written).test_inspects_what_it_reads()
    with pytest.raises(NotChecked, match="give input_paths"):
        of(TinyTask, input_paths=paths).test_reads_inputs_without_its_data()


class Miscounting(TinyTask):
    def inspect(self, data):
        found = super().inspect(data)
        return replace(found, samples={**found.samples, "val": 99})


class Alarming(TinyTask):
    def inspect(self, data):
        return replace(super().inspect(data), findings=[Finding("rule", "place", "text")])


class Meddling(TinyTask):
    def inspect(self, data):
        (data / "train.txt").write_text((data / "train.txt").read_text() + "1 2\n")
        return super().inspect(data)


class Lenient(TinyTask):
    def inputs(self, paths):
        return TinyData(3, 1)


class Calm(TinyTask):
    def inspect(self, data):
        data = data if data.exists() else write_sequences(data)
        return super().inspect(data)


class Boundless(TinyTask):
    adjustable = frozenset({"guidance", "temperature"})


class Needy(TinyTask):
    def read(self, data, seed):
        self.factor = 3
        return super().read(data, seed)

    def answers(self, model, batch, samples):
        return super().answers(model, batch, samples) if self.factor else []


class Moody(TinyTask):
    def answers(self, model, batch, samples):
        torch.manual_seed(int(np.random.default_rng().integers(2**31)))
        return super().answers(model, batch, samples)


class Nameless(TinyTask):
    def _answer(self, sample, labels):
        return replace(super()._answer(sample, labels), name="answer")


class Fileless(TinyTask):
    def _answer(self, sample, labels):
        return replace(super()._answer(sample, labels), files={})


class Garish(TinyTask):
    def _answer(self, sample, labels):
        return replace(super()._answer(sample, labels), panels=[Panel("x", np.zeros((3, 3)))])


class Short(TinyTask):
    def answers(self, model, batch, samples):
        return super().answers(model, batch, samples)[1:]


class Rough(TinyTask):
    def picture(self, sample):
        sample["tokens"] = sample["tokens"][:1]
        return super().picture(sample)


class Uneven(TinyTask):
    def measured(self, dataset, count):
        return Subset([dataset], [(0, i) for i in [*range(count), *range(count - 1)]])


class Grey(TinyTask):
    def picture(self, sample):
        return super().picture(sample)[..., 0]


ANSWERS = ["test_reads_inputs_without_its_data", "test_answers_follow_from_state_and_seed"]


@pytest.mark.parametrize(
    ("task", "checks"),
    [
        (Miscounting, POWERS[:1]),
        (Alarming, POWERS[:1]),
        (Meddling, POWERS[:2]),
        (Calm, POWERS[1:2]),
        (Boundless, ["test_adjustable_options_exist"]),
        (Lenient, ["test_refuses_inputs_that_are_not_there"]),
        (Needy, ANSWERS),
        (Moody, ANSWERS[1:]),
        (Nameless, ANSWERS),
        (Fileless, ANSWERS),
        (Garish, ANSWERS),
        (Short, ANSWERS),
        (Rough, ["test_answers_follow_from_state_and_seed", "test_shows_its_samples"]),
        (Uneven, ["test_measures_whole_samples"]),
        (Grey, [*ANSWERS, "test_shows_its_samples"]),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_each_fault_is_found(task, checks):
    assert failing(of(task)) == checks


def text_task(target):
    """Return the conformance object of a task that answers texts."""

    def input_paths(self, data):
        (data / "prompts.txt").write_text("cab\nabbabel\n")
        return [data / "prompts.txt"]

    return of(target, input_paths=input_paths, prompt_texts=lambda self: ["cabbage", "had"])


class Forgetful(TinyText):
    def prompts(self, texts):
        return super().prompts(texts[:1])


class Strict(TinyText):
    example_prompts = ("Xylophone",)


class Mute(TinyText):
    def stream(self, model, batch, samples):
        yield super().answers(model, batch, samples)[0].text


class Rambling(TinyText):
    def stream(self, model, batch, samples):
        yield "and so on"
        return super().answers(model, batch, samples)[0]


class Redrawing(TinyText):
    def stream(self, model, batch, samples):
        torch.rand(1)
        answer = super().answers(model, batch, samples)[0]
        yield answer.text
        return answer


@pytest.mark.parametrize(
    ("target", "fault"),
    [(TinyText, None), (Forgetful, -3), (Strict, -3), (Mute, -2), (Rambling, -2), (Redrawing, -2)],
)
def test_faults_of_tasks_that_answer_texts_are_found(target, fault):
    assert failing(text_task(target)) == ([] if fault is None else [POWERS[fault]])
