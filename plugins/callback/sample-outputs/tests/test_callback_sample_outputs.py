from __future__ import annotations

import logging
import signal

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from trainkit import hookimpl
from trainkit.api import resume, start
from trainkit.errors import UsageError
from trainkit.reporting.runpictures import figures, newest_pictures
from trainkit.rundir import rows
from trainkit.showing import sample_rows
from trainkit.testing import CallbackConformance
from trainkit.testing.tiny import TinyTask, tiny_request
from trainkit.testing.tinytext import TinyText
from trainkit_callback_sample_outputs.sample_outputs import SampleOutputs

SETTINGS = {"loop.epochs": 3, "loop.max_steps": 18, "loop.log_every_steps": 1}


class TestSampleOutputs(CallbackConformance):
    component = "sample-outputs"

    def used(self):
        callback = self.build()
        callback.evaluations = 3
        return callback


class Shift:
    """Shift tokens by random amounts."""

    reads = frozenset({"tokens"})

    def __call__(self, sample, generator):
        return {**sample, "tokens": (sample["tokens"] + generator.integers(0, 5, len(sample["tokens"]))) % 13}


class Heard:
    """Note what a run shows and evaluates."""

    def __init__(self):
        self.pictures, self.texts, self.splits = [], [], []

    @hookimpl
    def on_pictures(self, run, pictures):
        self.pictures.append((run.moment.step, sorted(pictures)))

    @hookimpl
    def on_texts(self, run, texts):
        self.texts.append((run.moment.step, dict(texts)))

    @hookimpl
    def before_evaluation(self, split):
        self.splits.append(split)


class Grouped(TinyTask):
    """Has groups of samples in validation: 6 samples of the first, one of each of the others."""

    def read(self, data, seed):
        splits = super().read(data, seed)
        splits.val.groups = [0, 0, 0, 0, 0, 0, 3, 5]
        return splits


class Stopper:
    """Send a signal after a step."""

    @hookimpl
    def on_step(self, run):
        if run.moment.step == 8:
            signal.raise_signal(signal.SIGTERM)


def trained(folder, *callbacks, settings=None, task=None, augmenter=None):
    """Train on the tiny task and return its request."""
    out = {"out": str(folder)}
    given = {} if augmenter is None else {"augmenter": augmenter}
    asked = tiny_request(SETTINGS | out | (settings or {}), callbacks=callbacks, task=task, **given)
    start(asked)
    return asked


def weights(folder, step=18):
    return load_file(folder / "checkpoints" / f"checkpoint-{step}" / "model.safetensors")


def losses(folder):
    return [{k: v for k, v in row.items() if k[:4] != "time"} for row in rows(folder / "metrics.jsonl")]


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one) and one.keys() == other.keys()


def test_the_same_samples_are_answered_at_each_evaluation(tmp_path):
    heard = Heard()
    trained(tmp_path / "run", SampleOutputs(samples=3), heard)
    names = ["samples/2-0", "samples/2-2", "samples/2-5"]
    best = ["samples/final/3-0", "samples/final/3-2", "samples/final/3-5"]
    assert heard.pictures == [(6, names), (12, names), (18, names), (18, best)]
    assert heard.splits[:6] == ["val", "samples"] * 3
    assert heard.splits[-1] == "samples"
    for step in (6, 12, 18):
        folder = tmp_path / "run" / "samples" / f"step-{step:06d}"
        assert sorted(path.name for path in folder.iterdir()) == ["2-0.png", "2-2.png", "2-5.png"]
        with Image.open(folder / "2-0.png") as picture:
            assert (picture.format, picture.mode) == ("PNG", "RGB")
    assert not (tmp_path / "run" / "samples" / "augmentation.png").exists()


@pytest.mark.parametrize(("every", "steps"), [(2, [6, 18]), (3, [6]), (1, [6, 12, 18])])
def test_every_so_many_evaluations(tmp_path, every, steps):
    heard = Heard()
    trained(tmp_path / "run", SampleOutputs(every=every), heard)
    assert [step for step, _ in heard.pictures] == [*steps, 18]


def test_training_is_not_touched_and_a_resumed_run_shows_the_same(tmp_path):
    trained(tmp_path / "plain")
    trained(tmp_path / "shown", SampleOutputs(every=2))
    assert same(weights(tmp_path / "plain"), weights(tmp_path / "shown"))
    assert losses(tmp_path / "plain") == losses(tmp_path / "shown")
    asked = trained(tmp_path / "stopped", SampleOutputs(every=2), Stopper())
    assert not (tmp_path / "stopped" / "samples" / "step-000018").exists()
    asked.live["live:callback0"], asked.live["live:callback1"] = SampleOutputs(every=2), Heard()
    resume(tmp_path / "stopped", asked)
    assert same(weights(tmp_path / "plain"), weights(tmp_path / "stopped"))
    assert [step for step, _ in asked.live["live:callback1"].pictures] == [18, 18]
    one, other = (tmp_path / run / "samples" / "step-000018" / "2-0.png" for run in ("shown", "stopped"))
    assert one.read_bytes() == other.read_bytes()


def test_modes_and_random_states_are_as_before(tmp_path):
    class Watch:
        def __init__(self):
            self.before, self.after = None, None

        def state(self, run):
            return run.model.training, run.loss.training, torch.get_rng_state().tolist(), torch.is_grad_enabled()

        @hookimpl
        def on_log(self, run, row):
            if "val/loss" in row and self.before is None:
                torch.manual_seed(99)
                self.before = self.state(run)
            elif "val/loss" in row:
                self.after = self.after or self.state(run)

    first, last = Watch(), Watch()
    last.before = ()
    trained(tmp_path / "run", first, SampleOutputs(), last)
    assert first.before == last.after
    assert first.before[:2] == (True, True)


@pytest.mark.parametrize("place", [0, 1])
def test_averaged_weights_answer_wherever_their_callback_stands(tmp_path, place):
    class Sevens:
        """Stands for an average of weights that always answers 7."""

        inside = False

        @hookimpl
        def before_evaluation(self, run):
            assert not self.inside, "weights were swapped in twice"
            self.inside = True
            self.kept = {name: value.clone() for name, value in run.model.state_dict().items()}
            with torch.no_grad():
                for parameter in run.model.parameters():
                    parameter.zero_()
                run.model.head.bias[7] = 99.0

        @hookimpl
        def after_evaluation(self, run):
            self.inside = False
            run.model.load_state_dict(self.kept)

    class Watched(TinyTask):
        labels = set()

        def answers(self, model, batch, samples):
            found = super().answers(model, batch, samples)
            self.labels.update(label for answer in found for label in answer.data["labels"])
            return found

    callbacks = [SampleOutputs()]
    callbacks.insert(place, Sevens())
    task = Watched()
    task.labels = set()
    trained(tmp_path / "run", *callbacks, task=task)
    assert task.labels == {7}
    trained(tmp_path / "plain", Sevens())
    assert same(weights(tmp_path / "plain"), weights(tmp_path / "run"))


def test_the_contact_sheet_shows_what_the_run_will_train_on(tmp_path):
    heard = Heard()
    callback = SampleOutputs(samples=2, variants=3)
    trained(tmp_path / "run", callback, heard, augmenter=Shift(), settings={"seed": 4, "loop.variants": 2})
    assert heard.pictures[0] == (0, ["samples/augmentation"])
    from trainkit.reporting.contactsheet import sheet

    task = TinyTask()
    draws = [(0, 1), (1, 1), (2, 1)]
    _, expected = sample_rows(task, task.read(None, 4).train, [Shift()], 4, [0, 12], draws)
    with Image.open(tmp_path / "run" / "samples" / "augmentation.png") as picture:
        assert np.array_equal(np.asarray(picture), sheet(expected))
    trained(tmp_path / "without", SampleOutputs(variants=0), augmenter=Shift())
    assert not (tmp_path / "without" / "samples" / "augmentation.png").exists()


def test_a_task_that_does_not_answer_is_named_once(tmp_path, caplog):
    class Mute:
        def __init__(self):
            self.task = TinyTask()

        def __getattr__(self, name):
            if name in ("answers", "picture"):
                raise AttributeError(name)
            return getattr(self.task, name)

    with caplog.at_level(logging.WARNING):
        trained(tmp_path / "run", SampleOutputs(), task=Mute(), augmenter=Shift())
    said = [record.getMessage() for record in caplog.records if record.name.startswith("trainkit_callback_sample")]
    assert said == ["sample-outputs: task live:task lacks answers: no answers are shown"]
    assert not (tmp_path / "run" / "samples").exists()


def test_the_report_shows_the_newest_pictures(tmp_path):
    trained(tmp_path / "run", SampleOutputs(samples=2), augmenter=Shift())
    titles = [title for title, _ in newest_pictures(tmp_path / "run")]
    assert titles == ["augmentation", "3-0, best weights", "3-4, best weights"]
    page = (tmp_path / "run" / "report.html").read_text()
    assert page.count("<img") == 3
    assert figures(newest_pictures(tmp_path / "run")) in page
    assert "img-src data:" in page
    (tmp_path / "run" / "samples" / "final" / "3-0.png").write_bytes(b"x" * 9_000_000)
    assert len(newest_pictures(tmp_path / "run")) == 2
    for path in (tmp_path / "run" / "samples" / "final").iterdir():
        path.unlink()
    titles = [title for title, _ in newest_pictures(tmp_path / "run")]
    assert titles == ["augmentation", "2-0, step 18", "2-4, step 18"]
    assert newest_pictures(tmp_path) == []


def test_each_group_of_samples_is_shown(tmp_path, caplog):
    heard = Heard()
    trained(tmp_path / "run", SampleOutputs(samples=1), heard, task=Grouped())
    assert [name for step, name in heard.pictures if step == 6] == [["samples/2-3", "samples/2-6", "samples/2-7"]]
    assert not caplog.records
    few = Heard()
    trained(tmp_path / "few", SampleOutputs(samples=1, groups=2), few, task=Grouped())
    assert [name for step, name in few.pictures if step == 6] == [["samples/2-3", "samples/2-6"]]
    told = [record.getMessage() for record in caplog.records if "groups" in record.getMessage()]
    do = "--set callback.sample-outputs.groups=N shows more"
    assert told == [f"sample-outputs: samples of 2 of 3 groups are shown; {do}"]


def test_the_best_weights_answer_at_the_end_and_are_left_as_they_are_used(tmp_path):
    class Modes:
        """Stands for an optimizer that averages weights: notes the last mode that it was put in."""

        def __init__(self, optimizer):
            self.mode = None
            optimizer.train, optimizer.eval = (
                lambda: setattr(self, "mode", "train"),
                lambda: setattr(self, "mode", "eval"),
            )

    class Watch:
        @hookimpl
        def on_run_start(self, run):
            self.modes = Modes(run.optimizer)

    watch = Watch()
    trained(tmp_path / "run", SampleOutputs(), watch)
    assert watch.modes.mode == "eval"
    assert (tmp_path / "run" / "samples" / "final").is_dir()


def test_texts_are_kept_as_texts_and_prompts_come_first(tmp_path):
    heard = Heard()
    trained(tmp_path / "run", SampleOutputs(samples=1), heard, task=TinyText())
    assert heard.pictures == []
    assert [(step, list(texts)) for step, texts in heard.texts] == [
        *((step, ["samples/prompt-1", "samples/prompt-2", "samples/2-0"]) for step in (6, 12, 18)),
        (18, ["samples/final/prompt-1", "samples/final/prompt-2", "samples/final/3-0"]),
    ]
    _, texts = heard.texts[0]
    first, answer, *_ = texts["samples/prompt-1"].split("\n\n")
    assert first == "input: cab"
    assert answer.startswith("answer: ")
    kept = tmp_path / "run" / "samples" / "step-000006"
    assert {path.name: path.read_text() for path in kept.iterdir()} == {
        f"{tag.rpartition('/')[2]}.txt": text for tag, text in texts.items()
    }
    page = (tmp_path / "run" / "report.html").read_text()
    assert page.count("<pre>") == 3
    assert "prompt-1, best weights" in page


@pytest.mark.parametrize(("prompts", "names"), [(("dig", "a", "bad"), ["prompt-1", "prompt-2", "prompt-3"]), ((), [])])
def test_prompts_can_be_given(tmp_path, prompts, names):
    heard = Heard()
    trained(tmp_path / "run", SampleOutputs(samples=1, prompts=prompts), heard, task=TinyText())
    assert list(heard.texts[0][1]) == [*(f"samples/{name}" for name in names), "samples/2-0"]


def test_prompts_leave_training_as_it_is(tmp_path):
    trained(tmp_path / "plain", task=TinyText())
    trained(tmp_path / "shown", SampleOutputs(), task=TinyText())
    assert same(weights(tmp_path / "plain"), weights(tmp_path / "shown"))
    assert losses(tmp_path / "plain") == losses(tmp_path / "shown")


def test_prompts_for_a_task_that_answers_no_texts_are_refused(tmp_path):
    with pytest.raises(UsageError, match="sample-outputs has prompts, and task live:task answers no texts"):
        trained(tmp_path / "run", SampleOutputs(prompts=("cab",)))
    assert not (tmp_path / "run").exists()
