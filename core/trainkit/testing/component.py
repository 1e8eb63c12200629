"""What holds for a component of any kind, and what the classes of all kinds share."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, ClassVar

from trainkit.errors import UsageError
from trainkit.parts import Loader, described
from trainkit.registry import Registry

if TYPE_CHECKING:
    from trainkit.component import Component

HEAVY_MODULES = ("numpy", "peft", "PIL", "pydantic", "tensorboard", "torch", "transformers")


class NotChecked(Exception):
    """Say that a check cannot be made until the subclass gives what only it can know, as known values."""


class ComponentConformance:
    """Check what every component keeps; the classes of the kinds add their own checks.

    Attributes:
        kind: set by the class of the kind.
        component: the component's name.
        options: options to check it with, where the defaults are not what is to be checked.
        most_options: how many options it may have; more than ten need a reason beside the number.
    """

    kind: ClassVar[str] = ""
    component: ClassVar[str] = ""
    options: ClassVar[Mapping[str, Any]] = {}
    most_options: ClassVar[int] = 10

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        if "kind" in vars(cls):
            return
        # Overriding a check silently switches it off: it has to be an expected failure that gives its reason.
        for name, method in vars(cls).items():
            if name.startswith("test_") and hasattr(super(cls, cls), name) and not _has_reason(method):
                raise TypeError(f"{cls.__name__}.{name} replaces a check of the kit: mark it xfail and give a reason")

    def load(self) -> Component:
        """Return the component, found by its name."""
        return Registry().load(self.kind, self.component)

    def build(self, extra: Mapping[str, Any] | None = None, **runtime: Any) -> Any:
        """Return a fresh object: with `options`, `extra` options on top, and what the core passes in itself."""
        return Loader(Registry(), {}).checked(self.load(), {**self.options, **(extra or {})}).build(**runtime)

    def option_names(self) -> set[str]:
        """Return the names of the component's options, and of those that stand beside them."""
        return {row.name for row in described(self.load(), Registry())}

    def test_is_found_by_name(self) -> None:
        """Its entry point makes it known under its name."""
        assert self.component in Registry().names(self.kind)
        assert self.load().target is not None

    def test_naming_it_imports_nothing_heavy(self) -> None:
        """Its plugin module imports in a fresh interpreter without any heavy library."""
        code = f"import sys, {self._module()}; print(*[m for m in {HEAVY_MODULES!r} if m in sys.modules])"
        command = [sys.executable, "-W", "error", "-c", code]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own interpreter
        assert done.returncode == 0, done.stderr
        assert done.stdout.split() == [], f"importing {self._module()} imports {done.stdout.strip()}"

    def test_options_are_valid_as_they_are(self) -> None:
        """Its defaults, and the options under test, pass its own validation."""
        part = Loader(Registry(), {}).checked(self.load(), dict(self.options))
        assert set(part.options).union(*(inner.options for inner in part.inner())) >= set(self.options)

    def test_options_refuse_what_they_do_not_know(self) -> None:
        """A misspelt option is refused before anything is built."""
        component = self.load()
        with raises(UsageError):
            Loader(Registry(), {}).checked(component, {**self.options, "no_such_option": 1})

    def test_options_are_few_and_explained(self) -> None:
        """It has at most 10 options (or `most_options`), and the docstring says what each one means."""
        rows = self.load().describe()
        assert len(rows) <= self.most_options, f"{len(rows)} options are too many to choose from"
        mute = [row.name for row in rows if not row.help]
        assert not mute, f"the docstring's Args do not explain {', '.join(mute)}"

    def test_says_what_it_is(self) -> None:
        """It has a docstring that begins with one sentence."""
        text = (self.load().target.__doc__ or "").strip()
        assert re.search(r"\w[.:](\s|$)", text.partition("\n\n")[0]), "the docstring begins with one sentence"

    def _module(self) -> str:
        for entry_point in entry_points(group=f"trainkit.{self.kind}", name=self.component):
            return entry_point.module
        raise NotChecked(f"{self.load().name} has no entry point: it comes from a file")


def _has_reason(method: Any) -> bool:
    return any(mark.name == "xfail" and mark.kwargs.get("reason") for mark in getattr(method, "pytestmark", ()))


@contextlib.contextmanager
def raises(*expected: type[Exception]) -> Iterator[None]:
    """Fail unless the block raises one of these."""
    try:
        yield
    except expected:
        return
    raise AssertionError(f"nothing was raised, {' or '.join(e.__name__ for e in expected)} was expected")


def plain(value: Any) -> bool:
    """Say whether a state can be stored as JSON and tensors: no objects, so nothing to unpickle."""
    import torch

    if isinstance(value, Mapping):
        return all(isinstance(key, str | int) and plain(item) for key, item in value.items())
    if isinstance(value, list | tuple):
        return all(map(plain, value))
    return value is None or isinstance(value, bool | int | float | str | torch.Tensor)


def same(one: Any, other: Any) -> bool:
    """Say whether two nested values are equal to the bit, NaN equal to NaN."""
    import torch

    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        equal = one.shape == other.shape and one.dtype == other.dtype
        return equal and bool(torch.equal(torch.nan_to_num(one), torch.nan_to_num(other)))
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if hasattr(one, "__array__") and hasattr(other, "__array__"):
        import numpy as np

        return bool(np.array_equal(np.asarray(one), np.asarray(other), equal_nan=np.asarray(one).dtype.kind == "f"))
    return bool(one == other) or (one != one and other != other)
