"""The folder of the model that an adapter was put on: no power cut leaves it half, and what is wrong is said."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from trainkit.base import Base, fingerprint_of, places_of
from trainkit.errors import CheckpointError, PluginError, ResourceError
from trainkit.storage.basefolder import hash_of, load_base, recorded_hash, write_base
from trainkit.storage.filesystem import FileSystem


def _load_model() -> ModuleType:
    path = Path(__file__).with_name("crashmodel.py")
    spec = importlib.util.spec_from_file_location("crashmodel_of_base", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["crashmodel_of_base"] = module
    spec.loader.exec_module(module)
    return module


crashmodel = _load_model()
NEEDED = ["file model.safetensors", "file config.json", "file base.json", "folder temporary", "folder root"]
WEIGHTS = {"weight": torch.tensor([1.0, 2.0, 3.0])}


class Recorder(crashmodel.Recorder):  # type: ignore[name-defined, misc]
    """Call the folder in which the base lies the root."""

    def fsync_folder(self, path: Path) -> None:
        if path == self.root:
            FileSystem.fsync_folder(self, path)
            self._sync("fsync_folder", ".", "folder root")
        else:
            super().fsync_folder(path)


def record(folder: Path, dropped: str = "") -> Any:
    folder.mkdir()
    files = Recorder(folder, dropped)
    write_base(folder / "base", WEIGHTS, {"config.json": b"{}"}, files)
    files.note("confirmed", 1)
    return files


def lost(crash: Any, folder: Path) -> str:
    """Return what a crash lost, or ''."""
    crashmodel.materialise(crash.tree, folder)
    base = folder / "base"
    if not base.exists():
        return "it was confirmed, and is not there" if crash.confirmed >= 0 else ""
    target = {"weight": torch.zeros(3)}
    try:
        load_base(base, target)
        document = (base / "config.json").read_bytes()
    except (CheckpointError, OSError) as error:
        return f"it is in sight and cannot be used: {error}"
    whole = torch.equal(target["weight"], WEIGHTS["weight"]) and document == b"{}"
    return "" if whole else "it does not hold what was written"


def losses(files: Any, folder: Path) -> list[str]:
    crashes = enumerate(crashmodel.crashes(files.calls))
    return [lost(crash, folder / f"crash-{number}") for number, crash in crashes]


def test_no_power_cut_leaves_half_a_base(tmp_path: Path) -> None:
    files = record(tmp_path / "run")
    found = losses(files, tmp_path)
    assert len(found) > 50
    assert not any(found)
    assert sorted(files.roles) == sorted(NEEDED)


@pytest.mark.parametrize("dropped", NEEDED)
def test_every_fsync_is_needed(tmp_path: Path, dropped: str) -> None:
    files = record(tmp_path / "run", dropped)
    assert dropped not in files.roles
    assert any(losses(files, tmp_path))


def test_the_hash_is_that_of_the_file(tmp_path: Path) -> None:
    found = write_base(tmp_path / "base", WEIGHTS, {})
    assert found == hashlib.sha256((tmp_path / "base/model.safetensors").read_bytes()).hexdigest()
    assert found == recorded_hash(tmp_path / "base") == load_base(tmp_path / "base", {"weight": torch.zeros(3)})
    assert found == hash_of(WEIGHTS)


def test_a_model_has_the_fingerprint_that_its_base_will_have(tmp_path: Path) -> None:
    base = Base(tied())
    base.keep(tmp_path / "base", dict)
    assert base.fingerprint == fingerprint_of(tied())
    with torch.no_grad():
        (other := tied())[2].bias.add_(1)
    assert fingerprint_of(other) != base.fingerprint


def test_what_a_killed_process_left_is_written_over(tmp_path: Path) -> None:
    (tmp_path / ".tmp-base").mkdir()
    (tmp_path / ".tmp-base/model.safetensors").write_bytes(b"half")
    write_base(tmp_path / "base", WEIGHTS, {})
    assert [path.name for path in tmp_path.iterdir()] == ["base"]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"format": 2, "sha256": "x"}', b'{"format": 1, "sha256": 5}'])
def test_a_record_that_is_none_is_refused(tmp_path: Path, content: bytes) -> None:
    write_base(tmp_path / "base", WEIGHTS, {})
    (tmp_path / "base/base.json").write_bytes(content)
    with pytest.raises(CheckpointError, match="a base model cannot be used"):
        recorded_hash(tmp_path / "base")


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    write_base(tmp_path / "elsewhere", WEIGHTS, {})
    write_base(tmp_path / "base", WEIGHTS, {})
    (tmp_path / "base/model.safetensors").unlink()
    (tmp_path / "base/model.safetensors").symlink_to(tmp_path / "elsewhere/model.safetensors")
    with pytest.raises(CheckpointError, match="a file cannot be read") as caught:
        load_base(tmp_path / "base", {"weight": torch.zeros(3)})
    assert caught.value.why == "it is a link"


def test_another_shape_is_refused(tmp_path: Path) -> None:
    write_base(tmp_path / "base", WEIGHTS, {})
    with pytest.raises(CheckpointError, match="the saved tensors do not fit: 0 of 1 do"):
        load_base(tmp_path / "base", {"weight": torch.zeros(4)})


def tied() -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(5, 3), nn.BatchNorm1d(3), nn.Linear(3, 5))
    model[2].weight = model[0].weight
    return model


def test_weights_keep_their_names_and_stay_those_of_the_model() -> None:
    model = tied()
    base = Base(model)
    inner = model[2]
    model[2] = nn.Sequential(inner)
    with torch.no_grad():
        inner.bias.fill_(7)
    assert list(base.weights()) == list(tied().state_dict())
    assert bool((base.weights()["2.bias"] == 7).all())
    assert set(base.buffers()) == {"1.running_mean", "1.running_var", "1.num_batches_tracked"}


def test_what_changes_while_it_is_written_is_copied_before(tmp_path: Path) -> None:
    model = tied().requires_grad_(False)
    model[2].bias.requires_grad_(True)
    base = Base(model)
    expected = {name: tensor.clone() for name, tensor in model.state_dict().items()}

    def documents() -> dict[str, bytes]:
        return {"config.json": b"{}"}

    base.keep(tmp_path / "base", documents)
    with torch.no_grad():
        model[2].bias.add_(1)
        model[1].running_mean.add_(1)
    assert base.fingerprint == recorded_hash(tmp_path / "base")
    found = load_file(tmp_path / "base/model.safetensors")
    assert "2.weight" not in found
    assert all(torch.equal(found[name], expected[name]) for name in found)
    again = Base(tied())
    again.keep(tmp_path / "base", documents)
    assert again.fingerprint == base.fingerprint


def test_a_disk_that_refuses_is_told_to_who_needs_the_base(tmp_path: Path) -> None:
    class Full(FileSystem):
        def write(self, descriptor: int, data: memoryview) -> int:
            raise OSError(28, "No space left on device")

    base = Base(tied(), Full())
    base.keep(tmp_path / "base", dict)
    with pytest.raises(ResourceError, match="a file cannot be written"):
        _ = base.fingerprint
    assert list(tmp_path.iterdir()) == []


def test_an_adapter_of_another_base_is_refused(tmp_path: Path) -> None:
    write_base(tmp_path / "base", WEIGHTS, {})
    base = Base(nn.Linear(3, 1, bias=False))
    with pytest.raises(CheckpointError, match="this adapter belongs to another base model") as caught:
        base.load(tmp_path / "base", "0" * 64)
    assert "000000000000..." in caught.value.why
    assert json.loads((tmp_path / "base/base.json").read_text())["sha256"][:12] in caught.value.why


def test_a_state_that_is_no_tensor_is_refused() -> None:
    class Strange(nn.Linear):
        def get_extra_state(self) -> torch.Tensor:
            return torch.zeros(1)

    with pytest.raises(PluginError, match="cannot be stored apart from an adapter's") as caught:
        places_of(Strange(2, 2))
    assert "_extra_state" in caught.value.why
