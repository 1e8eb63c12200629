from __future__ import annotations

import json
import logging
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from trainkit import hookimpl
from trainkit.api import resume, start
from trainkit.errors import RunFailed
from trainkit.rundir import rows
from trainkit.testing import CallbackConformance, tiny
from trainkit.testing.tiny import tiny_request
from trainkit_callback_wandb.identity import run_id
from trainkit_callback_wandb.naming import renamed

pytest.importorskip("wandb", reason="the package wandb is not installed: pip install 'trainkit[wandb]'")

from trainkit_callback_wandb.wandb import WeightsAndBiases

SETTINGS = {"loop.epochs": 2, "loop.log_every_steps": 3}
KEY = "k" * 40


@pytest.fixture(autouse=True)
def own_surroundings(tmp_path_factory, monkeypatch):
    """Keep what wandb remembers in a folder of the test's own, and the user's login out of it."""
    home = tmp_path_factory.mktemp("home")
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    for name in ("WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(home))
    monkeypatch.setenv("NETRC", str(home / "netrc"))
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")


class TestWeightsAndBiases(CallbackConformance):
    component = "wandb"


class Shows:
    """Show a picture and texts at every step that is logged."""

    @hookimpl
    def on_log(self, run, row):
        if "train/loss" in row:
            run.show({"samples/one": np.full((4, 6, 3), 200, np.uint8)})
            run.show_texts({"samples/prompt-1": "input: soup\n\nanswer: <b>salt"})


class ShowsEarly:
    """Show a picture when the run begins, as a contact sheet of training samples."""

    @hookimpl
    def on_run_start(self, run):
        run.show({"samples/augmentation": np.zeros((2, 3, 3), np.uint8)})


class Stopper:
    """Send a signal after a step."""

    @hookimpl
    def on_step(self, run):
        if run.moment.step == 4:
            signal.raise_signal(signal.SIGTERM)


def train(folder: Path, *callbacks: object, **settings: object):
    """Train the tiny task with these callbacks; return its request."""
    asked = tiny_request(SETTINGS | {"out": str(folder)} | settings, callbacks=callbacks)
    start(asked)
    return asked


def attempts(folder: Path) -> list[Path]:
    return sorted(folder.glob("wandb/offline-run-*/run-*.wandb"))


def records(path: Path):
    """Yield the records of a file of wandb: a log in blocks of 32 KiB, as LevelDB writes it, of protocol buffers."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, place, parts = path.read_bytes(), 7, b""
    assert content[:4] in (b":W&B", b""), "it has a head, or nothing yet"
    while place + 7 <= len(content):
        left = 32768 - place % 32768
        if left < 7:
            place += left
            continue
        _, length, kind = struct.unpack("<IHB", content[place : place + 7])
        parts += content[place + 7 : place + 7 + length]
        if not kind or place + 7 + length > len(content):
            # What follows is empty, or is being written.
            return
        place += 7 + length
        if kind in (1, 4):
            yield Record.FromString(parts)
            parts = b""


def ended(path: Path) -> list[Any]:
    """Return the records of a run that is finished: the process of wandb writes the last of them a moment later."""
    until = time.monotonic() + 30
    while not (found := list(records(path))) or all(r.WhichOneof("record_type") != "exit" for r in found):
        assert time.monotonic() < until, "the wandb run was not finished"
        time.sleep(0.05)
    return found


def merged(items: Iterable[Any]) -> dict[str, Any]:
    """Return the items of a record as a mapping; a value that is a mapping itself comes entry by entry."""
    values: dict[str, Any] = {}
    for item in items:
        name, *inner = [item.key] if item.key else item.nested_key
        value = json.loads(item.value_json)
        if inner:
            values.setdefault(name, {})[inner[0]] = value
        else:
            values[name] = value
    return values


class Written:
    """Hold what one attempt wrote, as wandb's own format tells it."""

    def __init__(self, path: Path) -> None:
        found = ended(path)
        self.run = next(record.run for record in found if record.WhichOneof("record_type") == "run")
        self.config = {item.key: json.loads(item.value_json) for item in self.run.config.update}
        self.rows = [merged(r.history.item) for r in found if r.WhichOneof("record_type") == "history"]
        self.summary: dict[str, Any] = {}
        for record in found:
            if record.WhichOneof("record_type") == "summary":
                self.summary |= merged(record.summary.update)
        self.exit_codes = [r.exit.exit_code for r in found if r.WhichOneof("record_type") == "exit"]
        self.step_metric = {
            r.metric.glob_name or r.metric.name: r.metric.step_metric
            for r in found
            if r.WhichOneof("record_type") == "metric"
        }

    def values(self, tag: str) -> list[tuple[int, float]]:
        return [(row["step"], row[tag]) for row in self.rows if tag in row]


def test_what_is_recorded_is_there_offline_under_the_same_tags(tmp_path):
    train(tmp_path / "run", WeightsAndBiases(project="mine", tags=("a", "b")), Shows(), **{"optimizer.lr": 0.002})
    (path,) = attempts(tmp_path / "run")
    written = Written(path)
    logged = list(rows(tmp_path / "run" / "metrics.jsonl"))
    for tag in ("train/loss", "train/learning_rate", "val/loss"):
        expected = [(row["step"], row[tag]) for row in logged if tag in row]
        assert expected
        assert written.values(tag) == expected
    assert written.step_metric == {"step": "", "*": "step"}
    assert (written.run.project, written.run.display_name, list(written.run.tags)) == ("mine", "run", ["a", "b"])
    assert written.config["optimizer.lr"] == 0.002
    assert (written.summary["status"], written.exit_codes) == ("done", [0])
    assert written.summary["best"] == min(value for _, value in written.values("val/loss"))
    assert written.summary["best_step"] in {step for step, _ in written.values("val/loss")}


def test_pictures_and_texts_are_files_of_the_wandb_run(tmp_path):
    from PIL import Image

    train(tmp_path / "run", ShowsEarly(), Shows(), WeightsAndBiases())
    (path,) = attempts(tmp_path / "run")
    written = Written(path)
    (_, picture), *_ = written.values("samples/one")
    assert (picture["_type"], picture["width"], picture["height"]) == ("image-file", 6, 4)
    with Image.open(path.parent / "files" / picture["path"]) as image:
        assert np.asarray(image).tolist() == np.full((4, 6, 3), 200).tolist()
    assert [step for step, _ in written.values("samples/augmentation")] == [0]
    (step, page), *_ = written.values("samples/prompt-1")
    assert (step, page["_type"]) == (3, "html-file")
    shown = (path.parent / "files" / page["path"]).read_text()
    assert shown == "<pre>input: soup\n\nanswer: &lt;b&gt;salt</pre>"


def test_wandb_itself_finds_the_run(tmp_path):
    train(tmp_path / "run", WeightsAndBiases())
    (path,) = attempts(tmp_path / "run")
    command = [sys.executable, "-m", "wandb", "sync", "--dry-run", str(path.parent)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert "Would sync 1 run" in done.stdout + done.stderr
    assert path.name in done.stdout + done.stderr


def test_a_resumed_run_goes_on_with_the_same_wandb_run(tmp_path):
    asked = train(tmp_path / "run", WeightsAndBiases(), Stopper())
    asked.live["live:callback0"], asked.live["live:callback1"] = WeightsAndBiases(), Shows()
    resume(tmp_path / "run", asked)
    # Both may have begun in the same second: what they wrote then has one folder name after the other.
    first, second = map(Written, attempts(tmp_path / "run"))
    assert first.run.run_id == second.run.run_id == run_id(tmp_path / "run")
    assert (first.exit_codes, second.exit_codes) == ([1], [0])
    assert max(step for step, _ in first.values("train/loss")) <= 4
    assert [step for step, _ in second.values("train/loss")][-1] == 12
    assert first.summary["status"] == "interrupted"


def test_the_runs_of_a_cross_validation_are_one_group(tmp_path):
    from trainkit.api import run

    settings = {"out": str(tmp_path / "whole"), "loop.epochs": 1, "device": "cpu"}
    parts = ["no:tensorboard", "wandb"]
    run(task=f"{tiny.__file__}:TinyTask", strategy="baseline", callback=parts, folds=2, settings=settings)
    found = [Written(path).run for path in sorted((tmp_path / "whole").rglob("offline-run-*/run-*.wandb"))]
    assert {each.run_group for each in found} == {"whole"}
    assert sorted(each.display_name for each in found) == ["whole final", "whole fold 1/2", "whole fold 2/2"]
    assert len({each.run_id for each in found}) == 3


def test_a_run_that_fails_is_finished_as_failed(tmp_path):
    class Broken:
        @hookimpl
        def on_step(self, run):
            if run.moment.step == 5:
                raise RuntimeError("broken")

    with pytest.raises(RunFailed):
        train(tmp_path / "run", WeightsAndBiases(), Broken())
    written = Written(*attempts(tmp_path / "run"))
    assert (written.summary["status"], written.exit_codes) == ("failed", [1])
    assert written.values("train/loss")


def test_nothing_is_written_about_machine_code_and_keys(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    train(tmp_path / "run", WeightsAndBiases())
    folder = attempts(tmp_path / "run")[0].parent
    names = {path.name for path in folder.rglob("*") if path.is_file()}
    assert not {"wandb-metadata.json", "requirements.txt", "diff.patch"} & names
    files = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert len(files) > 10
    assert [path for path in files if KEY.encode() in path.read_bytes()] == []


@pytest.mark.parametrize("how", ["option", "environment"])
def test_disabled_writes_nothing(tmp_path, monkeypatch, how):
    if how == "environment":
        monkeypatch.setenv("WANDB_MODE", "disabled")
    train(tmp_path / "run", WeightsAndBiases(mode="disabled" if how == "option" else None))
    assert not (tmp_path / "run" / "wandb").exists()


@pytest.mark.parametrize("key", [None, KEY])
def test_online_without_login_or_server_is_recorded_offline_and_said(tmp_path, monkeypatch, caplog, key):
    import wandb

    # What the environment says is read once, when the service of wandb begins.
    wandb.teardown()
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    if key is not None:
        monkeypatch.setenv("WANDB_API_KEY", key)
    with caplog.at_level(logging.WARNING, "trainkit_callback_wandb"):
        train(tmp_path / "run", WeightsAndBiases(mode="online", timeout=2.0))
    (said,) = [record.getMessage() for record in caplog.records if record.name.startswith("trainkit_callback_wandb")]
    assert said.startswith("wandb: not online (")
    assert ("wandb login" in said) == (key is None)
    (path,) = attempts(tmp_path / "run")
    assert Written(path).exit_codes == [0]


def test_a_failure_of_wandb_is_told_once_and_the_run_goes_on(tmp_path, caplog):
    callback = WeightsAndBiases()

    class Breaker:
        @hookimpl
        def on_epoch_start(self, run):
            if run.moment.step == 0:
                callback._writer.finish()
                callback._writer = SimpleNamespace(log=self.log)

        def log(self, row):
            raise ConnectionError("the service\nhas gone")

    with caplog.at_level(logging.WARNING, "trainkit_callback_wandb"):
        train(tmp_path / "run", callback, Breaker())
    said = [record.getMessage() for record in caplog.records if record.name.startswith("trainkit_callback_wandb")]
    assert said == ["wandb: ConnectionError: the service; nothing more is written to it"]
    assert json.loads((tmp_path / "run" / "status.json").read_text())["state"] == "done"


def test_a_run_without_a_directory_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    nowhere = SimpleNamespace(directory=None)
    callback = WeightsAndBiases()
    callback.on_epoch_start(nowhere)
    callback.on_log(nowhere, {"train/loss": 1.0})
    callback.on_run_end(nowhere, "done")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("style", "names"),
    [
        ("trainkit", ["train/loss", "val/loss/nll", "time/eta"]),
        ("hf", ["train/loss", "eval/loss/nll", "time/eta"]),
        ("flat", ["train_loss", "val_loss_nll", "time_eta"]),
    ],
)
def test_names_of_other_tools(style, names):
    assert [renamed(tag, style) for tag in ("train/loss", "val/loss/nll", "time/eta")] == names


def test_a_style_is_used_for_rows(tmp_path):
    train(tmp_path / "run", WeightsAndBiases(metric_style="flat"))
    written = Written(*attempts(tmp_path / "run"))
    assert written.values("val_loss")
    assert not written.values("val/loss")


def test_an_id_is_drawn_once_and_again_only_where_it_was_damaged(tmp_path):
    drawn = run_id(tmp_path)
    assert run_id(tmp_path) == drawn
    assert run_id(tmp_path / "other") != drawn
    (tmp_path / "wandb" / "trainkit-run.json").write_text('{"id": "../../x"}')
    assert run_id(tmp_path) not in (drawn, "../../x")


def test_wandb_is_imported_with_the_run_only():
    code = (
        "import sys; from trainkit_callback_wandb.wandb import WeightsAndBiases; WeightsAndBiases(); "
        "sys.exit('wandb' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
