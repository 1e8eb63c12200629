"""No power cut loses a confirmed checkpoint or leaves a broken one in sight; and every fsync is needed for that."""

from __future__ import annotations

import importlib.util
import itertools
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from trainkit.best import Ranked, ranked
from trainkit.checkpoint import Checkpoints, Snapshot
from trainkit.errors import TrainkitError
from trainkit.storage import bestrecord


def _load_model() -> ModuleType:
    path = Path(__file__).with_name("crashmodel.py")
    spec = importlib.util.spec_from_file_location("crashmodel", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["crashmodel"] = module
    spec.loader.exec_module(module)
    return module


crashmodel = _load_model()

NEEDED = [
    "folder root",
    "file model.safetensors",
    "file state.json",
    "file manifest.json",
    "folder temporary",
    "folder checkpoints after checkpoint",
    "file best.json",
    "folder checkpoints after best.json",
]


def record(folder: Path, *, background: bool, dropped: str = "", keep_best: int = 1) -> Any:
    """Save four times, with two bests among them, and return the recorder."""
    folder.mkdir()
    files = crashmodel.Recorder(folder, dropped)
    checkpoints = Checkpoints(folder / "checkpoints", keep_best=keep_best, files=files)
    ranking: tuple[Ranked, ...] = ()
    for step in (1, 2, 3, 4):
        tensors = {"model.safetensors": {"weight": torch.full((3,), float(step))}}
        checkpoints.save(Snapshot(step, tensors, {"state.json": {"step": step}}), background=background)
        # In the background the mark would fall anywhere in the save; here the trace is to be the same every time.
        for checkpoint in checkpoints.wait():
            files.note("confirmed", checkpoint.step)
        if step in (1, 3):
            ranking = ranked(ranking, Ranked(step, 1.0 / step), keep_best, "min")
            checkpoints.mark_best(ranking)
            checkpoints.close()
            files.note("best", step)
    return files


def loss(crash: Any, folder: Path) -> str:
    """Recover from a crash by the real rule and return what was lost, or ''."""
    crashmodel.materialise(crash.tree, folder)
    lines: list[str] = []
    checkpoints = Checkpoints(folder / "checkpoints")
    found = checkpoints.newest_valid(lines.append)
    if lines:
        return f"a broken checkpoint was in sight: {lines}"
    if crash.confirmed >= 0 and (found is None or found.step < crash.confirmed):
        return f"step {crash.confirmed} was confirmed, but {found} is the newest"
    if found is not None:
        held = found.tensors("model.safetensors")["weight"].tolist()
        if held != [float(found.step)] * 3 or found.document("state.json") != {"step": found.step}:
            return f"{found} does not hold what was saved"
    try:
        best = checkpoints.best()
    except TrainkitError as error:
        return f"the best checkpoint cannot be used: {error}"
    if crash.best >= 0 and (best is None or best.step < crash.best):
        return f"step {crash.best} was the best, but {best} is named"
    if best is not None:
        for entry in bestrecord.read(folder / "checkpoints" / "best.json"):
            if entry.value != 1.0 / entry.step:
                return f"step {entry.step} is named with the value {entry.value}"
            try:
                checkpoints.of(entry.step)
            except TrainkitError as error:
                return f"checkpoint-{entry.step} is among the best and cannot be used: {error}"
    return ""


def losses(files: Any, folder: Path) -> Iterator[tuple[Any, str]]:
    """Yield every crash with what it lost."""
    for number, crash in enumerate(crashmodel.crashes(files.calls)):
        yield crash, loss(crash, folder / f"crash-{number}")


@pytest.mark.parametrize(("background", "keep_best"), [(False, 1), (True, 1), (False, 2)])
def test_no_crash_loses_what_was_confirmed(tmp_path: Path, background: bool, keep_best: int) -> None:
    files = record(tmp_path / "run", background=background, keep_best=keep_best)
    states = 0
    for crash, lost in losses(files, tmp_path):
        states += 1
        assert not lost, f"after call {crash.calls} of {len(files.calls)}, {files.calls[crash.calls - 1][:2]}: {lost}"
    assert states > 200
    assert sorted(files.roles) == sorted(NEEDED)


@pytest.mark.parametrize("dropped", NEEDED)
def test_every_fsync_is_needed(tmp_path: Path, dropped: str) -> None:
    files = record(tmp_path / "run", background=False, dropped=dropped)
    assert dropped not in files.roles
    assert any(lost for _, lost in losses(files, tmp_path))


def test_the_trace_is_that_of_real_saves(tmp_path: Path) -> None:
    files = record(tmp_path / "run", background=False)
    kinds = {kind for kind, _, _ in files.calls}
    assert kinds == {"mkdir", "create", "write", "fsync", "fsync_folder", "rename", "unlink", "confirmed", "best"}
    left = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert left == ["best.json", "checkpoint-3", "checkpoint-4"]
    final = max(crashmodel.crashes(files.calls), key=lambda crash: crash.calls).tree
    assert set(left) <= set(itertools.chain(final["checkpoints"]))
