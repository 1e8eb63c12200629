"""Parts inside parts: an option that takes another component, as a loss that weighs the terms of a loss.

A component says so by the type of the option, and makes the inner one itself::

    class Weighted(nn.Module):
        def __init__(self, main: InnerLoss = "cross-entropy", weight: PositiveFloat = 1.0) -> None:
            super().__init__()
            self.main = built("loss", main)
            self.reads, self.reads_optional = reads_of(self.main)

        def forward(self, **values: Tensor) -> LossOutput:
            output = call(self.main, values)
            ...

In a run the core has made the inner one already: its name and options are keys of the config, `loss.main.use` and
`loss.main.label_smoothing`, checked before anything is built.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .binding import bind_loss
from .inner import BaseTask as BaseTask
from .inner import Inner as Inner
from .inner import InnerLoss as InnerLoss

if TYPE_CHECKING:
    from .contracts import LossOutput

NAME = "use"


def built(kind: str, spec: Any, **runtime: Any) -> Any:
    """Return the live object that an option stands for.

    Args:
        kind: kind of the inner component.
        spec: a live object, which is returned as it is; a class or a factory, which is called; a name; or a table
            {"use": name, option: value, ...}. Names and options are looked up among what is installed.
        runtime: what the core passes in for this kind, as `params` for an optimizer.

    Raises:
        PluginError: nothing has the name, its plugin fails, or what it makes cannot serve as one of this kind.
        UsageError: the table has no name, or an option is unknown or has a wrong value.
    """
    from .component import component_from_object
    from .errors import UsageError
    from .parts import Loader
    from .registry import Registry

    options: dict[str, Any] = {}
    if isinstance(spec, Mapping):
        options = {key: value for key, value in spec.items() if key != NAME}
        if NAME not in spec:
            raise UsageError(f"an inner {kind} needs a name", do=f'write {NAME} = "NAME" beside its options')
        spec = spec[NAME]
    component = Registry().load(kind, spec) if isinstance(spec, str) else component_from_object(kind, spec)
    return Loader(Registry(), {}).checked(component, options).build(**runtime)


def reads_of(loss: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names that a loss reads: those it cannot do without, and those it takes when they are there."""
    binding = bind_loss(loss)
    return tuple(name for _, name in binding.required), tuple(name for _, name in binding.optional)


def call(loss: Any, values: Mapping[str, Any]) -> LossOutput:
    """Return what a loss answers to those of the values that it reads.

    A scalar is taken as the mean over the samples, as everywhere; their number is the length of the first value read.
    """
    from .contracts import SAMPLE_ID
    from .live import as_loss

    binding = bind_loss(loss)
    first = next((values[name] for _, name in (*binding.required, *binding.optional) if name in values), ())
    return as_loss(binding(values), {SAMPLE_ID: values.get(SAMPLE_ID, first)})
