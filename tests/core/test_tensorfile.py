"""Tensor files: exact, aligned, readable by safetensors itself; damaged ones are refused in words."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path

import pytest
import torch
import xxhash
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from trainkit.errors import CheckpointError, RunFailed
from trainkit.storage import tensorfile
from trainkit.storage.together import copy_tensors, together


def filled(dtype: torch.dtype, *shape: int) -> Tensor:
    if dtype is torch.bool:
        return torch.randint(0, 2, shape).bool()
    if dtype.is_floating_point or dtype.is_complex:
        return torch.randn(*shape).to(dtype)
    return torch.randint(0, 100, shape).to(dtype)


def same(a: Tensor, b: Tensor) -> bool:
    """Compare bits, so that NaN equals itself and -0 differs from 0."""
    first, second = (t.detach().contiguous().reshape(-1).view(torch.uint8) for t in (a, b))
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(first, second)


def test_every_element_type_comes_back_and_safetensors_agrees(tmp_path: Path) -> None:
    path = tmp_path / "t.safetensors"
    tensors = {str(dtype): filled(dtype, 3, 5) for dtype in tensorfile.CODES}
    tensors |= {"scalar": torch.tensor(3.5), "empty": torch.empty(0, 4), "special": torch.tensor([float("nan"), -0.0])}
    size, digest = tensorfile.write(path, tensors)
    assert size == path.stat().st_size
    assert digest == xxhash.xxh3_128_hexdigest(path.read_bytes())
    for found in (tensorfile.read(path), load_file(path)):
        assert found.keys() == tensors.keys()
        assert all(same(found[name], tensor) for name, tensor in tensors.items())
    with safe_open(path, framework="pt") as file:
        assert file.metadata() == {"format": "pt"}


def test_tensors_begin_at_multiples_of_their_element_size(tmp_path: Path) -> None:
    path = tmp_path / "t.safetensors"
    tensors = {f"{i}": filled(dtype, 3) for i, dtype in enumerate(tensorfile.CODES)}
    tensorfile.write(path, tensors)
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    assert (8 + length) % 8 == 0
    header = json.loads(content[8 : 8 + length])
    for name, tensor in tensors.items():
        assert header[name]["data_offsets"][0] % tensor.element_size() == 0


def test_any_strides_are_saved_by_value(tmp_path: Path) -> None:
    path = tmp_path / "t.safetensors"
    base = torch.randn(4, 6, 2, 2)
    tensors = {
        "transposed": base.transpose(0, 1),
        "strided": base[::2, 1::3],
        "expanded": torch.randn(1, 3).expand(5, 3),
        "channels_last": base.to(memory_format=torch.channels_last),
        "conjugate": torch.randn(3, dtype=torch.complex64).conj(),
    }
    tensorfile.write(path, tensors)
    found = tensorfile.read(path)
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())


def test_tied_tensors_are_stored_once_and_tied_again(tmp_path: Path) -> None:
    path = tmp_path / "t.safetensors"
    weight = torch.randn(1000)
    tensors = {"a": weight, "b": weight, "c": weight.view(1000), "half": weight[:500], "other": weight.clone()}
    tensorfile.write(path, tensors)
    assert path.stat().st_size < 4 * 2500 + 1000
    found = tensorfile.read(path)
    assert found["a"].data_ptr() == found["b"].data_ptr() == found["c"].data_ptr()
    assert found["half"].data_ptr() != found["a"].data_ptr()
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())
    targets = {name: torch.zeros_like(tensor) for name, tensor in tensors.items()}
    tensorfile.load_into(path, targets)
    assert all(torch.equal(targets[name], tensor) for name, tensor in tensors.items())


def test_loading_fills_parameters_in_place(tmp_path: Path) -> None:
    path = tmp_path / "t.safetensors"
    source, target = torch.nn.Linear(300, 200), torch.nn.Linear(300, 200)
    tensorfile.write(path, source.state_dict())
    address = target.weight.data_ptr()
    tensorfile.load_into(path, dict(target.named_parameters()))
    assert target.weight.data_ptr() == address
    assert torch.equal(target.weight, source.weight)


def test_what_does_not_fit_is_named_and_nothing_is_changed(tmp_path: Path) -> None:
    path = tmp_path / "t.safetensors"
    tensorfile.write(path, {"a": torch.ones(3), "b": torch.ones(3), "old": torch.ones(1), "d": torch.ones(2)})
    targets = {
        "a": torch.zeros(3),
        "b": torch.zeros(4),
        "new": torch.zeros(1),
        "d": torch.zeros(2, dtype=torch.float64),
    }
    with pytest.raises(CheckpointError, match="1 of 4") as caught:
        tensorfile.load_into(path, targets)
    assert caught.value.why.splitlines() == [
        "missing in the file: new",
        "unexpected in the file: old",
        "other shapes: b is F32[3], needed F32[4], d is F32[2], needed F64[2]",
    ]
    assert not any(tensor.any() for tensor in targets.values())


def test_a_tensor_the_format_lacks_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunFailed) as caught:
        tensorfile.write(tmp_path / "t", {"x.y": torch.zeros(2, dtype=torch.complex128)})
    assert caught.value.where == "x.y"
    with pytest.raises(RunFailed):
        tensorfile.write(tmp_path / "t", {"s": torch.eye(3).to_sparse()})


def head(header: object, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(dtype: str = "F32", shape: object = (1,), offsets: object = (0, 4)) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


HOSTILE = {
    "empty": b"",
    "cut length": b"\x10\0\0",
    "length of the universe": b"\xff" * 8 + b"{}",
    "length past the end": struct.pack("<Q", 1000) + b"{}",
    "header of 99 MB": struct.pack("<Q", 99 * 2**20) + b"{}",
    "zip": b"PK\x03\x04" + bytes(100),
    "pickle": b"\x80\x04\x95\x05\0\0\0\0\0\0\0}\x94." + bytes(40),
    "no JSON": head(b"hello"),
    "not UTF-8": head(b'{"\xff": 1}'),
    "list": head([1]),
    "deep": head(b"[" * 100_000),
    "no dtype": head({"a": {"shape": [1], "data_offsets": [0, 4]}}, bytes(4)),
    "unknown dtype": head({"a": entry("OBJECT")}, bytes(4)),
    "cut data": head({"a": entry()}, bytes(3)),
    "more data": head({"a": entry()}, bytes(5)),
    "overflow": head({"a": entry(shape=[2**32, 2**32])}, bytes(4)),
    "negative shape": head({"a": entry(shape=[-1])}, bytes(4)),
    "overlap": head({"a": entry(), "b": entry()}, bytes(4)),
    "gap": head({"a": entry(offsets=[4, 8])}, bytes(8)),
    "reversed": head({"a": entry(offsets=[4, 0])}, bytes(4)),
    "alias of nothing": head({"__metadata__": {"trainkit.aliases": '{"b": "x"}'}, "a": entry()}, bytes(4)),
    "alias of itself": head({"__metadata__": {"trainkit.aliases": '{"a": "a"}'}, "a": entry()}, bytes(4)),
    "alias to a list": head({"__metadata__": {"trainkit.aliases": '{"b": ["a"]}'}, "a": entry()}, bytes(4)),
    "aliases that are no JSON": head({"__metadata__": {"trainkit.aliases": "x"}, "a": entry()}, bytes(4)),
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "t.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        tensorfile.read(path)
    assert caught.value.where == str(path)
    assert len(caught.value.why) < 400
    with pytest.raises(CheckpointError):
        tensorfile.load_into(path, {"a": torch.zeros(1)})


def test_links_pipes_and_folders_are_refused(tmp_path: Path) -> None:
    tensorfile.write(tmp_path / "real", {"a": torch.ones(1)})
    (tmp_path / "link").symlink_to(tmp_path / "real")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name in ("link", "pipe", "folder", "missing", "/dev/zero"):
        with pytest.raises(CheckpointError, match="cannot be read"):
            tensorfile.read(tmp_path / name)


def test_copies_are_exact_whatever_the_sizes() -> None:
    sizes = (0, 1, 7, 2**20 + 3, 5 * 2**20 + 1)
    for dtype in (torch.float32, torch.bfloat16, torch.uint8, torch.bool):
        sources = [filled(dtype, size) for size in sizes] + [filled(dtype, 6, 4).t()]
        targets = [torch.zeros_like(source) for source in sources]
        copy_tensors(zip(targets, sources, strict=True))
        assert all(same(target, source) for target, source in zip(targets, sources, strict=True))


def test_copies_leave_gradients_and_versions_alone() -> None:
    parameter = torch.nn.Parameter(torch.zeros(10))
    copy_tensors([(parameter, torch.ones(10))])
    assert parameter.requires_grad
    assert parameter.grad_fn is None
    assert parameter.eq(1).all()


def test_together_keeps_the_order_and_raises_what_was_raised() -> None:
    assert together(lambda x: x * x, list(range(50)), threads=3) == [x * x for x in range(50)]
    assert together(str, []) == []

    def fail(x: int) -> int:
        if x == 7:
            raise ValueError("seven")
        return x

    with pytest.raises(ValueError, match="seven"):
        together(fail, list(range(20)), threads=3)


def test_files_of_the_library_are_read(tmp_path: Path) -> None:
    path = tmp_path / "t.safetensors"
    tensors = {"odd": filled(torch.uint8, 3), "b": filled(torch.float64, 2, 2), "none": torch.empty(0, 3)}
    save_file(tensors, path, metadata={"format": "pt", "more": "text"})
    found = tensorfile.read(path)
    assert all(same(found[name], tensor) for name, tensor in tensors.items())
