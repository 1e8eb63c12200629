"""`trainkit predict`, and what may change about a trained run, as a user types it."""

from __future__ import annotations

import json
import os
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
import trainkit
from trainkit import hookimpl
from trainkit.api import Request, predict, start
from trainkit.errors import CheckpointError
from trainkit.storage import strict_json
from trainkit.testing import tiny
from trainkit.testing.tiny import TinyTask, tiny_request
from trainkit.testing.tinyfiles import write_sequences

TASK = ("--task", f"{tiny.__file__}:TinyTask", "--callback", "no:tensorboard")
STRANGE = """
import json
from trainkit import Answer, Panel
from trainkit.testing.tiny import TinyTask

class Silent(TinyTask):
    answers = property()

class Unruly(TinyTask):
    def answers(self, model, batch, samples):
        print("from a component")
        name = "../<b>Up</b>"
        return [Answer(name, {"/../x.json": "{}"}, {"at": i}, [Panel("<i>t</i>", "<s>")]) for i in range(len(samples))]

class Short(TinyTask):
    def answers(self, model, batch, samples):
        return super().answers(model, batch, samples)[1:]

class Failing(TinyTask):
    def answers(self, model, batch, samples):
        raise KeyError("left out")
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run on data that is there no more, and beside it inputs."""
    folder = tmp_path_factory.mktemp("trained")
    write_sequences(folder / "data")
    settings = {"data": str(folder / "data"), "out": str(folder / "run"), "loop.epochs": 3, "loop.batch_size": 6}
    done = trainkit.run(
        task=f"{tiny.__file__}:TinyTask",
        strategy="baseline",
        metric="token-accuracy",
        callback="no:tensorboard",
        settings={**settings, "device": "cpu", "evaluate.monitor": "val/token-accuracy"},
    )
    assert done.summary["steps"] == 6
    shutil.move(folder / "data", folder / "moved")
    return folder


def best_step(run: Path) -> int:
    """Return the step of a run's best checkpoint."""
    return int(json.loads((run / "results.json").read_text())["best_step"])


@pytest.fixture
def run(cli: object, trained: Path) -> Path:
    """Return a copy of the run in the test's own folder; the inputs are in 'moved'."""
    shutil.copytree(trained / "run", "run")
    shutil.copytree(trained / "moved", "moved")
    return Path("run")


class Elements(HTMLParser):
    """Note tags, attributes and texts of a page."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(page.read_text())

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.texts.append(data)


def test_answers_are_written_without_the_training_data(cli, run):
    done = cli("predict", run, "moved/test.txt", "moved/val.txt")
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert lines[0] == "test-1  run/predictions/1/test-1.json"
    assert lines[-1] == f"8 in run/predictions/1, by the checkpoint of step {best_step(run)}"
    assert json.loads(Path("run/predictions/1/val-4.json").read_text()).keys() == {"labels"}
    assert len(list(Path("run/predictions/1").iterdir())) == 8
    assert cli("predict", run, "moved/test.txt").out.splitlines()[-1].startswith("4 in run/predictions/2")


def test_the_weights_are_those_of_the_checkpoint(cli, run):
    sharp = cli("predict", run, "moved/test.txt", "--guidance", 1e6, "--json")
    from safetensors.torch import load_file

    task = TinyTask()
    model = task.build_model().eval()
    model.load_state_dict(load_file(f"run/checkpoints/checkpoint-{best_step(run)}/model.safetensors"))
    data = task.inputs([Path("moved/test.txt")])
    with torch.no_grad():
        likeliest = [model(torch.tensor(tokens)[None])["logits"][0].argmax(-1).tolist() for tokens in data.sequences]
    assert [answer["data"]["labels"] for answer in strict_json.loads(sharp.out)["answers"]] == likeliest


def test_seed_and_guidance_decide_and_the_batch_size_of_one_seed_is_part_of_it(cli, run):
    def labels(*arguments):
        done = cli("predict", run, "moved/train.txt", "--json", *arguments)
        assert done.code == 0, done.err
        return [answer["data"]["labels"] for answer in strict_json.loads(done.out)["answers"]]

    assert labels() == labels("--seed", 0)
    assert labels() != labels("--seed", 1)
    assert labels("--guidance", 1e6) == labels("--set", "task.guidance=1e6", "--seed", 1, "--batch-size", 5)


def test_json_is_alone_on_standard_output_and_names_are_made_safe(cli, run):
    Path("strange.py").write_text(STRANGE)
    resolve_task(run, "./strange.py:Unruly")
    done = cli("predict", run, "moved/test.txt", "--json", "--open", "--out", "deep/er")
    assert done.code == 0, done.err
    assert done.out.count("\n") == 1
    assert "from a component" in done.err
    document = strict_json.loads(done.out)
    assert [answer["data"] for answer in document["answers"]] == [{"at": i} for i in range(4)]
    assert sorted(path.name for path in Path("deep/er").iterdir()) == [
        "b-Up-b-..-x.json", "b-Up-b-2-..-x.json", "b-Up-b-3-..-x.json", "b-Up-b-4-..-x.json", "index.html",
    ]  # fmt: skip
    assert document["page"] == "deep/er/index.html"
    page = Elements(Path("deep/er/index.html"))
    assert not {"b", "i", "s", "script"} & {tag for tag, _ in page.tags}
    assert {"<s>", "<i>t</i>", "../<b>Up</b>"} <= set(page.texts)


def resolve_task(run: Path, name: str) -> None:
    """Put another task into the record of a run."""
    text = (run / "resolved.json").read_text()
    (run / "resolved.json").write_text(text.replace(f"{tiny.__file__}:TinyTask", name))


def test_the_page_holds_its_pictures_and_asks_nobody_for_anything(cli, run, monkeypatch):
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    done = cli("predict", run, "moved/test.txt", "--open")
    assert done.code == 0
    page = Path("run/predictions/1/index.html")
    assert done.err == f"open it in a browser: {page.resolve()}\n"
    elements = Elements(page)
    images = [attributes for tag, attributes in elements.tags if tag == "img"]
    assert len(images) == 8
    assert all(re.match(r"data:image/png;base64,iVBOR", str(image["src"])) for image in images)
    policies = [a.get("content") for _, a in elements.tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert policies == ["default-src 'none'; style-src 'unsafe-inline'; img-src data:"]
    assert "http" not in page.read_text().replace("http-equiv", "")
    said = f"task TinyTask · checkpoint of step {best_step(run)} · seed 0 · 4 answers"
    assert {"test-1", "input", "truth", "answer", said} <= set(elements.texts)


def test_where_there_is_a_display_the_page_is_opened(cli, run, monkeypatch):
    opened = []
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr("webbrowser.open", lambda url: opened.append(url) or True)
    done = cli("predict", run, "moved/test.txt", "--open")
    assert (done.code, done.err) == (0, "")
    assert opened == [Path("run/predictions/1/index.html").resolve().as_uri()]


def test_what_is_wrong_is_told_and_leaves_nothing_behind(cli, run):
    Path("strange.py").write_text(STRANGE)
    Path("wrong.txt").write_text("1 99\n")
    Path("empty.txt").write_text("")
    Path("full").mkdir()
    Path("full/mine").write_text("")
    for arguments, code, text in [
        (("nope.txt",), 5, "there is no such input\n  where: nope.txt"),
        (("wrong.txt",), 5, "wrong.txt:1"),
        (("empty.txt",), 5, "there is nothing to answer"),
        (("moved",), 5, "a file cannot be read"),
        (("moved/test.txt", "--set", "task.width=9"), 2, "lets change: task.guidance"),
        (("moved/test.txt", "--set", "loop.epochs=9"), 2, "loop.epochs cannot change after training"),
        (("moved/test.txt", "--guidance", "-1"), 2, "task.guidance: should be greater than 0"),
        (("moved/test.txt", "--out", "full"), 2, "the folder for output is not empty"),
        (("moved/test.txt", "--out", "wrong.txt"), 2, "the place for output is no folder"),
        (("moved/test.txt", "--batch-size", "0"), 2, "--batch-size"),
        (("moved/test.txt", "--device", "cuda:77"), 7, "device cuda:77 is not there"),
    ]:
        done = cli("predict", run, *arguments)
        assert done.code == code, done
        assert text in done.err
        assert "Traceback" not in done.err
    assert not (run / "predictions").exists()
    assert cli("predict", "elsewhere", "moved/test.txt").code == 6
    assert Path("full/mine").read_text() == ""


@pytest.mark.parametrize(
    ("task", "code", "text"),
    [
        ("Silent", 2, "task Silent cannot answer new inputs\n  why:   it lacks answers"),
        ("Short", 4, "the task gives 3 answers to 4 samples"),
        ("Failing", 1, "raised KeyError after step"),
    ],
)
def test_a_task_that_does_not_answer_is_named(cli, run, task, code, text):
    Path("strange.py").write_text(STRANGE)
    resolve_task(run, f"./strange.py:{task}")
    done = cli("predict", run, "moved/test.txt")
    assert done.code == code
    assert text in done.err


def test_a_damaged_checkpoint_is_not_used(cli, run):
    best = run / "checkpoints" / f"checkpoint-{best_step(run)}"
    (best / "task.json").write_text('{"vocabulary": 7}')
    done = cli("predict", run, "moved/test.txt")
    assert done.code == 6
    assert "--checkpoint last" in done.err


def test_any_checkpoint_answers_by_its_name(cli, run):
    steps = sorted(int(path.name.partition("-")[2]) for path in (run / "checkpoints").glob("checkpoint-*"))
    assert len(steps) >= 2
    for step in steps:
        done = cli("predict", run, "moved/test.txt", "--checkpoint", f"checkpoint-{step}")
        assert done.out.splitlines()[-1].endswith(f"by the checkpoint of step {step}"), done.err
    refused = cli("predict", run, "moved/test.txt", "--checkpoint", "checkpoint-7")
    assert refused.code == 2
    assert "there is no checkpoint 'checkpoint-7'" in refused.err
    assert f"checkpoint-{steps[0]}, checkpoint-{steps[1]}" in refused.err


def test_a_task_that_has_changed_since_is_told(tmp_path, trained):
    class Other(TinyTask):
        def load_state_dict(self, state):
            raise ValueError("another vocabulary")

    live = {f"{tiny.__file__}:TinyTask": Other}
    with pytest.raises(CheckpointError, match=r"does not fit the task(.|\n)*another vocabulary"):
        predict(trained / "run", [trained / "moved/test.txt"], Request(live=live), out=tmp_path / "out")


def test_averaged_weights_answer(tmp_path):
    class Average:
        """Stands for an average of weights: it is zero, and in force while the model is evaluated."""

        def __init__(self):
            self.heard = []

        @hookimpl
        def before_evaluation(self, run, split):
            self.heard.append(split)
            self.kept = {name: value.clone() for name, value in run.model.state_dict().items()}
            with torch.no_grad():
                for parameter in run.model.parameters():
                    parameter.zero_()
                run.model.head.bias[7] = 99.0

        @hookimpl
        def after_evaluation(self, run):
            run.model.load_state_dict(self.kept)

    average = Average()
    asked = tiny_request({"out": str(tmp_path / "run"), "loop.max_steps": 2}, callbacks=[average])
    start(asked)
    average.heard.clear()
    inputs = write_sequences(tmp_path / "data") / "test.txt"
    done = trainkit.predict(tmp_path / "run", [inputs], Request(live=asked.live), out=tmp_path / "answers", page=True)
    assert average.heard == ["inputs"]
    assert {label for item in done.items for label in item.data["labels"]} == {7}
    assert (done.step, done.page) == (2, tmp_path / "answers/index.html")
    assert os.listdir(tmp_path / "answers") != []


def test_the_task_hears_events_and_an_options_value_reaches_it(tmp_path):
    class Listening(TinyTask):
        """Stands for a task that prepares itself for an evaluation."""

        heard = []

        @hookimpl
        def before_evaluation(self, split):
            self.heard.append((split, self.guidance))

    asked = tiny_request({"out": str(tmp_path / "run"), "loop.max_steps": 2}, task=Listening)
    start(asked)
    Listening.heard.clear()
    inputs = write_sequences(tmp_path / "data") / "test.txt"
    settings = {"task.guidance": 2.5}
    trainkit.predict(tmp_path / "run", [inputs], Request(live=asked.live), settings=settings, out=tmp_path / "out")
    assert Listening.heard == [("inputs", 2.5)]


def test_all_of_other_data_is_measured_by_what_was_learned(cli, run):
    for split in ("train", "val", "test"):
        Path("other").mkdir(exist_ok=True)
        shutil.copy(Path("moved") / f"{split}.txt", Path("other") / f"{split}.txt")
    whole = strict_json.loads(cli("evaluate", run, "--data", "other", "--json").out)
    assert {tag.partition("/")[0] for tag in whole} == {"all"}
    assert {"all/loss", "all/token-accuracy"} < set(whole)
    # The same sequences in other splits are the same data.
    for one, other in (("train", "test"), ("val", "train"), ("test", "val")):
        shutil.copy(Path("moved") / f"{one}.txt", Path("other") / f"{other}.txt")
    again = strict_json.loads(cli("evaluate", run, "--data", "other", "--json").out)
    assert again == {tag: pytest.approx(value, abs=1e-6) for tag, value in whole.items()}
    table = cli("evaluate", run, "--data", "other").out
    assert "all" in table.splitlines()[2].split()
    refused = cli("evaluate", run, "--data", "other", "--split", "val")
    assert (refused.code, "error: --split val beside --data" in refused.err) == (2, True)
    assert cli("evaluate", run, "--data", "nowhere").code == 5


def test_samples_that_cannot_be_used_are_left_out_on_request(cli, run):
    with (Path("moved") / "test.txt").open("a") as file:
        file.write("3 99 x\n")
    place = f"test.txt:{len((Path('moved') / 'test.txt').read_text().splitlines())}"
    for arguments in (("evaluate", run, "--data", "moved"), ("predict", run, "moved/test.txt", "--out", "out")):
        refused = cli(*arguments)
        assert (refused.code, place in refused.err) == (5, True), refused.err
        done = cli(*arguments, "--on-bad-sample", "skip")
        assert done.code == 0, done.err
        assert "warning: " in done.err


def test_evaluate_takes_what_may_change_after_training(cli, run, trained):
    shutil.copytree("moved", trained / "data")
    try:
        plain = cli("evaluate", run, "--json")
        changed = cli("evaluate", run, "--guidance", 3, "--set", "task.guidance=2", "--device", "cpu", "--json")
        refused = cli("evaluate", run, "--set", "task.dropout=0.5")
    finally:
        shutil.rmtree(trained / "data")
    assert plain.code == changed.code == 0, (plain, changed)
    assert strict_json.loads(plain.out) == strict_json.loads(changed.out), "guidance changes answers, not the loss"
    assert refused.code == 2
    assert "task.dropout cannot change after training\n  where: --set task.dropout" in refused.err
