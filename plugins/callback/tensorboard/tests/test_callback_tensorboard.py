from __future__ import annotations

import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
from trainkit.testing import CallbackConformance
from trainkit_callback_tensorboard.tensorboard import TensorBoard, settings_of


class TestTensorBoard(CallbackConformance):
    component = "tensorboard"


def fake_run(folder, step=0, resumed=False):
    config = SimpleNamespace(history={"optimizer.lr": [], "metric": []})
    values = {"optimizer.lr": 0.001, "metric": ["token-accuracy"]}
    config = type("Config", (), {"history": config.history, "__getitem__": lambda _, key: values[key]})()
    return SimpleNamespace(
        directory=SimpleNamespace(path=folder), moment=SimpleNamespace(step=step), resumed=resumed, config=config
    )


def written(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_rows_are_written_under_their_own_tags(tmp_path):
    board, run = TensorBoard(), fake_run(tmp_path)
    board.on_run_start(run)
    for step in (10, 20):
        run.moment.step = step
        board.on_log(run, {"train/loss": 1.0 / step, "train/learning_rate": 0.5, "val/token-accuracy": 0.25})
    board.on_run_end(run)
    assert written(tmp_path) == {
        "train/loss": [(10, pytest.approx(0.1)), (20, pytest.approx(0.05))],
        "train/learning_rate": [(10, 0.5), (20, 0.5)],
        "val/token-accuracy": [(10, 0.25), (20, 0.25)],
    }


def wait_for_the_next_second():
    """Event files are read in the order of their names: the second, then a number that sorts 10 before 9."""
    time.sleep(1 - time.time() % 1 + 0.05)


def test_a_resumed_run_purges_what_the_crash_left_behind(tmp_path):
    first, run = TensorBoard(), fake_run(tmp_path)
    first.on_run_start(run)
    for step in (10, 20, 30):
        run.moment.step = step
        first.on_log(run, {"train/loss": float(step)})
    first._writer.close()  # the process dies: no on_run_end
    wait_for_the_next_second()

    second, run = TensorBoard(), fake_run(tmp_path, step=20, resumed=True)
    second.on_run_start(run)
    for step in (30, 40):
        run.moment.step = step
        second.on_log(run, {"train/loss": step + 0.5})
    second.on_run_end(run)
    assert written(tmp_path) == {"train/loss": [(10, 10.0), (20, 20.0), (30, 30.5), (40, 40.5)]}


def test_settings_and_last_values_are_in_the_hparams_tab(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board, run = TensorBoard(), fake_run(tmp_path)
    board.on_log(run, {"val/loss": 2.0})
    board.on_log(run, {"val/loss": 1.0})
    board.on_run_end(run)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert {"_hparams_/experiment", "_hparams_/session_start_info"} <= set(events.PluginTagToContent("hparams"))
    assert settings_of(run) == {"optimizer.lr": 0.001, "metric": "['token-accuracy']"}


def test_pictures_are_written_under_their_tags_and_steps(tmp_path):
    from io import BytesIO

    from PIL import Image
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board, run = TensorBoard(), fake_run(tmp_path)
    pictures = np.random.default_rng(0).integers(0, 256, (2, 5, 7, 3), dtype=np.uint8)
    board.on_pictures(run, {"samples/augmentation": pictures[0]})
    run.moment.step = 20
    board.on_pictures(run, {"samples/one": pictures[1]})
    board.on_run_end(run)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    for tag, step, picture in (("samples/augmentation", 0, pictures[0]), ("samples/one", 20, pictures[1])):
        (event,) = events.Images(tag)
        assert event.step == step
        assert np.array_equal(np.asarray(Image.open(BytesIO(event.encoded_image_string))), picture)


def test_texts_are_written_as_they_are(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board, run = TensorBoard(), fake_run(tmp_path, step=7)
    board.on_texts(run, {"samples/prompt-1": "input: soup\n\nanswer: # Soup\n- *salt*"})
    board.on_run_end(run)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    (event,) = events.Tensors("samples/prompt-1/text_summary")
    shown = event.tensor_proto.string_val[0].decode()
    assert (event.step, shown) == (7, "    input: soup\n    \n    answer: # Soup\n    - *salt*")


def test_a_resumed_run_that_shows_a_picture_first_purges_all_the_same(tmp_path):
    first, run = TensorBoard(), fake_run(tmp_path)
    for step in (10, 20):
        run.moment.step = step
        first.on_log(run, {"train/loss": float(step)})
    first._writer.close()
    wait_for_the_next_second()

    second, run = TensorBoard(), fake_run(tmp_path, step=10, resumed=True)
    second.on_pictures(run, {"samples/one": np.zeros((2, 2, 3), np.uint8)})
    second.on_run_start(run)
    second.on_run_end(run)
    assert written(tmp_path) == {"train/loss": [(10, 10.0)]}


def test_a_run_without_rows_writes_nothing_and_one_without_a_directory_neither(tmp_path):
    board = TensorBoard()
    board.on_run_start(fake_run(tmp_path))
    board.on_run_end(fake_run(tmp_path))
    nowhere = fake_run(tmp_path)
    nowhere.directory = None
    board.on_log(nowhere, {"train/loss": 1.0})
    board.on_pictures(nowhere, {"samples/one": np.zeros((2, 2, 3), np.uint8)})
    board.on_texts(nowhere, {"samples/one": "a"})
    assert list(tmp_path.iterdir()) == []


def test_tensorboard_is_imported_with_the_first_row_only():
    code = (
        "import sys; from trainkit_callback_tensorboard.tensorboard import TensorBoard; TensorBoard(); "
        "sys.exit('tensorboard' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
