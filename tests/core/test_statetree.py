"""Nested state survives the way through JSON and tensors, type for type; what cannot is named by its path."""

from __future__ import annotations

import collections
import enum
import json
import math
import random
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trainkit.errors import CheckpointError, RunFailed
from trainkit.storage import strict_json
from trainkit.storage.statetree import flatten, unflatten


def through(state: Any) -> Any:
    """Return the state after a way through the bytes of a JSON file."""
    document, tensors = flatten(state)
    return unflatten(strict_json.loads(strict_json.dumps(document)), tensors)


def same(a: Any, b: Any) -> bool:
    """Compare with types, NaN and the sign of zero."""
    if type(a) is not type(b):
        return False
    if isinstance(a, torch.Tensor | np.ndarray):
        return bool(a.dtype == b.dtype and a.shape == b.shape and (a == b).all())
    if isinstance(a, dict):
        return list(map(repr, a)) == list(map(repr, b)) and all(map(same, a.values(), b.values()))
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return repr(a) == repr(b)


KEYS = st.one_of(st.text(max_size=4), st.sampled_from(["$tensor", "$", "a.b"]), st.integers(), st.booleans(), st.none())
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(st.characters(codec=None), max_size=6),
    st.sampled_from([torch.ones(2), torch.tensor(3), np.float32(1.5), np.int64(-4), np.bool_(True), np.arange(3)]),
)
STATES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.lists(inner, max_size=4).map(tuple), st.dictionaries(KEYS, inner, max_size=4)
    ),
    max_leaves=20,
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(STATES)
def test_every_state_comes_back(state: Any) -> None:
    assert same(through(state), state)


def test_real_states_come_back() -> None:
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=torch.tensor(1e-3), betas=(0.9, 0.95))
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    python, numpy = random.Random(3), np.random.default_rng(3)
    philox = np.random.Generator(np.random.Philox(key=5))
    state = {
        "optimizer": optimizer.state_dict(),
        "python": python.getstate(),
        "numpy": numpy.bit_generator.state,
        "philox": philox.bit_generator.state,
        "torch": torch.get_rng_state(),
        "best": -math.inf,
    }
    found = through(state)
    assert same(found, state)
    optimizer.load_state_dict(found["optimizer"])
    again = np.random.Generator(np.random.Philox())
    again.bit_generator.state = found["philox"]
    assert again.random() == philox.random()
    fresh = random.Random()
    fresh.setstate(found["python"])
    assert fresh.random() == python.random()


def test_the_names_of_tensors_are_their_paths() -> None:
    one, two = torch.ones(1), torch.zeros(1)
    document, tensors = flatten({"state": {0: {"exp_avg": one}}, "a": {"b": two}, "a.b": one}, "optimizer")
    assert set(tensors) == {"optimizer.state.0.exp_avg", "optimizer.a.b", "optimizer.a.b~2"}
    assert document["a"]["b"] == {"$tensor": "optimizer.a.b"}
    assert flatten(one)[1].keys() == {"value"}


def test_plain_values_stay_plain_json() -> None:
    plain = {"step": 3, "names": ["a", None, True], "nested": {"lr": 0.1}}
    assert flatten(plain) == (plain, {})


def test_mappings_become_dicts_and_parameters_tensors() -> None:
    parameter = torch.nn.Parameter(torch.ones(2))
    found = through(collections.OrderedDict(a=collections.defaultdict(int, b=1), w=parameter))
    assert type(found) is dict
    assert type(found["a"]) is dict
    assert not found["w"].requires_grad


class Colour(enum.IntEnum):
    RED = 1


Point = collections.namedtuple("Point", "x y")


@pytest.mark.parametrize(
    "value",
    [
        lambda: 1,
        {1, 2},
        b"bytes",
        object(),
        Colour.RED,
        Point(1, 2),
        2**5000,
        1j,
        np.array(["text"]),
        np.datetime64("2020-01-01"),
        {(1, 2): 3},
        torch.float32,
    ],
)
def test_what_cannot_be_stored_is_named(value: Any) -> None:
    with pytest.raises(RunFailed, match="cannot be saved") as caught:
        flatten({"callback": [{"memory": value}]}, "state")
    assert caught.value.where == "state.callback.0.memory"


def test_a_state_that_holds_itself_is_refused() -> None:
    state: dict[str, Any] = {}
    state["self"] = state
    with pytest.raises(RunFailed, match="refers to itself"):
        flatten(state)


@pytest.mark.parametrize(
    "document",
    [
        {"$tensor": "missing"},
        {"$tensor": ["x"]},
        {"$tensor": "x", "more": 1},
        {"$float": "1e5"},
        {"$float": ["nan"]},
        {"$tuple": 3},
        {"$numpy": ["O", 1]},
        {"$numpy": ["<f4"]},
        {"$numpy": ["nonsense", 1]},
        {"$dict": [[1]]},
        {"$dict": [[[1], 2]]},
        {"$class": "os.system"},
        {"$array": "bf16"},
    ],
)
def test_documents_that_flatten_never_wrote_are_refused(document: Any) -> None:
    with pytest.raises(CheckpointError):
        unflatten({"a": [document]}, {"x": torch.ones(1), "bf16": torch.ones(1, dtype=torch.bfloat16)})


def test_a_deep_document_is_refused() -> None:
    document: Any = 1
    for _ in range(500):
        document = [document]
    with pytest.raises(CheckpointError, match="deep"):
        unflatten(document, {})


class TestStrictJson:
    @pytest.mark.parametrize(
        "text",
        [
            b'{"a": 1, "a": 2}',
            b'{"a": {"b": 1, "b": 1}}',
            b"NaN",
            b"[-Infinity]",
            b"1e999",
            b"9" * 5000,
            b"[" * 100_000,
            b'{"a":' * 5000,
            b"\xff",
            b"\xef\xbb\xbf{}",
            b"",
            b"{} {}",
            b"[1,]",
            b"'a'",
        ],
    )
    def test_what_json_lets_pass_is_refused(self, text: bytes) -> None:
        with pytest.raises(ValueError, match=r"\A[^\n]+\Z"):
            strict_json.loads(text)

    def test_brackets_in_strings_are_not_depth(self) -> None:
        value = {"a": '[[[["\\' * 100, "b": "{" * 500}
        assert strict_json.loads(json.dumps(value)) == value
        with pytest.raises(ValueError, match="Unterminated"):
            strict_json.loads('"' + "[" * 200)

    def test_the_limit_is_exact(self) -> None:
        assert strict_json.loads("[" * 5 + "]" * 5, max_depth=5) == [[[[[]]]]]
        with pytest.raises(ValueError, match="deeper than 4"):
            strict_json.loads("[" * 5 + "]" * 5, max_depth=4)

    @settings(max_examples=100, deadline=None)
    @given(
        st.recursive(st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text(), st.lists)
    )
    def test_what_is_written_is_read(self, value: Any) -> None:
        assert strict_json.loads(strict_json.dumps(value)) == value

    def test_special_numbers_become_words(self) -> None:
        value = {"a": [math.nan, (math.inf, -math.inf, 1.5)], "b": np.float64("nan")}
        assert strict_json.without_special_numbers(value) == {"a": ["nan", ["inf", "-inf", 1.5]], "b": "nan"}
