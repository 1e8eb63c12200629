"""Nested state as JSON plus named tensors, and back: exact, without pickle.

JSON has no tuples, no NaN and no keys but strings. What it lacks is written as an object with one key that starts with
a dollar sign: {"$tensor": NAME}, {"$array": NAME}, {"$numpy": [DTYPE, VALUE]}, {"$tuple": [...]}, {"$float": "nan"}
and {"$dict": [[KEY, VALUE], ...]}, the last one also for dictionaries whose own keys start so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainkit.errors import CheckpointError, RunFailed

MAX_DEPTH = 30
MAX_BITS = 2048


def flatten(state: Any, prefix: str = "") -> tuple[Any, dict[str, Tensor]]:
    """Split nested state into a JSON value and the tensors it refers to.

    Args:
        state: dicts (keys: strings, ints, floats, bools, None), lists, tuples, numbers, strings, None, tensors, and
            NumPy numbers and arrays, nested. Tensors are not copied.
        prefix: put before the name of every tensor.

    Returns:
        The JSON value, and the tensors by name: the path that leads to each, joined by dots.

    Raises:
        RunFailed: something in the state cannot be stored; the message names its path.
    """
    tensors: dict[str, Tensor] = {}
    document = _Flattener(tensors).value(state, [prefix] if prefix else [], 0)
    return document, tensors


def unflatten(document: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Return the state that `flatten` split.

    Raises:
        CheckpointError: the document is not of this form, or refers to a tensor that is not there.
    """
    try:
        return _rebuild(document, tensors, 0)
    except (KeyError, TypeError, ValueError, IndexError, RuntimeError, OverflowError) as error:
        raise CheckpointError("a saved state cannot be rebuilt", why=f"{type(error).__name__}: {error}") from error


class _Flattener:
    def __init__(self, tensors: dict[str, Tensor]) -> None:
        self.tensors = tensors

    def value(self, value: Any, path: list[str], depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise _unstorable(path, f"it nests deeper than {MAX_DEPTH} levels, or refers to itself")
        kind = type(value)
        if value is None or kind in (bool, str):
            return value
        if kind is int:
            return _bounded(value, path)
        if kind is float:
            return value if math.isfinite(value) else {"$float": repr(value)}
        if isinstance(value, Tensor):
            return {"$tensor": self._name(value.detach(), path)}
        if isinstance(value, Mapping):
            return self._mapping(value, path, depth)
        if kind in (list, tuple):
            items = [self.value(item, [*path, str(i)], depth + 1) for i, item in enumerate(value)]
            return items if kind is list else {"$tuple": items}
        if isinstance(value, np.ndarray):
            return self._array(value, path)
        if isinstance(value, np.generic):
            return {"$numpy": [value.dtype.str, self.value(_number(value, path), path, depth + 1)]}
        raise _unstorable(path, f"it is of the type {kind.__module__}.{kind.__qualname__}")

    def _mapping(self, value: Mapping[Any, Any], path: list[str], depth: int) -> Any:
        for key in value:
            if key is not None and type(key) not in (str, int, float, bool):
                raise _unstorable(path, f"one of its keys is of the type {type(key).__qualname__}")
        if all(type(key) is str and not key.startswith("$") for key in value):
            return {key: self.value(item, [*path, key], depth + 1) for key, item in value.items()}
        pairs = [
            [self.value(key, path, depth + 1), self.value(item, [*path, str(key)], depth + 1)]
            for key, item in value.items()
        ]
        return {"$dict": pairs}

    def _array(self, value: np.ndarray[Any, Any], path: list[str]) -> Any:
        if value.dtype.kind not in "biufc":
            raise _unstorable(path, f"it is an array of {value.dtype}")
        native = np.ascontiguousarray(value, dtype=value.dtype.newbyteorder("=")).reshape(value.shape)
        try:
            # A copy: the tensor of a read-only array would warn, and the state may go on changing.
            tensor = torch.from_numpy(native.copy())
        except TypeError as error:
            raise _unstorable(path, f"it is an array of {value.dtype}") from error
        return {"$array": self._name(tensor, path)}

    def _name(self, tensor: Tensor, path: list[str]) -> str:
        name = base = ".".join(path) or "value"
        # {"a.b": ...} and {"a": {"b": ...}} would meet.
        number = 1
        while name in self.tensors:
            number += 1
            name = f"{base}~{number}"
        self.tensors[name] = tensor
        return name


def _bounded(value: int, path: list[str]) -> int:
    if value.bit_length() > MAX_BITS:
        raise _unstorable(path, f"it is an integer of {value.bit_length()} bits")
    return value


def _number(value: np.generic, path: list[str]) -> bool | int | float:
    if value.dtype.kind not in "biuf" or value.dtype.itemsize > 8:
        raise _unstorable(path, f"it is a NumPy value of the type {value.dtype}")
    number: bool | int | float = value.item()
    return number


def _unstorable(path: list[str], why: str) -> RunFailed:
    return RunFailed(
        "a part of the run's state cannot be saved",
        where=".".join(path) or "the state itself",
        why=why,
        do="let state_dict return dicts, lists, tuples, numbers, strings and tensors only",
    )


def _rebuild(value: Any, tensors: Mapping[str, Tensor], depth: int) -> Any:
    if depth > 3 * MAX_DEPTH + 3:
        raise ValueError("nested too deeply")
    if isinstance(value, list):
        return [_rebuild(item, tensors, depth + 1) for item in value]
    if not isinstance(value, dict):
        return value
    tag = next(iter(value), "")
    if not tag.startswith("$"):
        return {key: _rebuild(item, tensors, depth + 1) for key, item in value.items()}
    if len(value) != 1:
        raise ValueError(f"{tag} is not alone in its object")
    return _special(tag, value[tag], tensors, depth)


def _special(tag: str, content: Any, tensors: Mapping[str, Tensor], depth: int) -> Any:
    match tag:
        case "$tensor":
            return tensors[content]
        case "$array":
            return tensors[content].numpy()
        case "$float":
            if content not in ("nan", "inf", "-inf"):
                raise ValueError(f"{content!r} is not a special number")
            return float(content)
        case "$tuple":
            return tuple(_rebuild(list(content), tensors, depth + 1))
        case "$numpy":
            dtype, number = content
            if np.dtype(dtype).kind not in "biuf":
                raise ValueError(f"{dtype!r} is not a number's type")
            return np.dtype(dtype).type(_rebuild(number, tensors, depth + 1))
        case "$dict":
            return dict(_rebuild(list(content), tensors, depth + 1))
        case _:
            raise ValueError(f"{tag!r} is unknown")
