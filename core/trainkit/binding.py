"""Call by what is read: a function's parameters, or its `reads`, name the values it wants of a batch and outputs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


@dataclass(frozen=True, slots=True)
class Binding:
    """Hold which value goes to which parameter of a function.

    Args:
        function: what is called.
        required: (parameter, value) names without which it cannot be called.
        optional: (parameter, value) names that are passed when they are there.
    """

    function: Callable[..., Any]
    required: tuple[tuple[str, str], ...]
    optional: tuple[tuple[str, str], ...]

    def missing(self, given: Iterable[str]) -> set[str]:
        """Return the names that are read but not given."""
        return {value for _, value in self.required} - set(given)

    def given(self, names: Iterable[str]) -> Binding:
        """Return this binding cut to what is given, so that a call looks nothing up in vain."""
        names = set(names)
        return Binding(self.function, self.required, tuple(pair for pair in self.optional if pair[1] in names))

    def __call__(self, values: Mapping[str, Any]) -> Any:
        arguments = {parameter: values[name] for parameter, name in self.required}
        for parameter, name in self.optional:
            if name in values:
                arguments[parameter] = values[name]
        return self.function(**arguments)


def bind(
    function: Callable[..., Any],
    signature_of: Callable[..., Any],
    reads: Iterable[str] | None = None,
    reads_optional: Iterable[str] = (),
) -> Binding:
    """Return the binding of a function.

    Args:
        function: what is called, as a loss module.
        signature_of: what carries the parameters, as the module's forward.
        reads: the names read, in the order of the parameters, where they are not the parameters' own names. A function
            that takes any keyword (`**values`) gets each of them under its own name.
        reads_optional: further names that a function of any keyword takes when they are there.
    """
    shown = inspect.signature(signature_of).parameters.values()
    parameters = [p for p in shown if p.kind in _NAMED and p.name != "self"]
    if reads is not None and any(p.kind is inspect.Parameter.VAR_KEYWORD for p in shown):
        needed = tuple(dict.fromkeys([*reads, *(p.name for p in parameters if p.default is inspect.Parameter.empty)]))
        own = (p.name for p in parameters if p.default is not inspect.Parameter.empty)
        wanted = (name for name in dict.fromkeys([*own, *reads_optional]) if name not in needed)
        return Binding(function, tuple((name, name) for name in needed), tuple((name, name) for name in wanted))
    if reads is not None:
        pairs = tuple((parameter.name, name) for parameter, name in zip(parameters, reads, strict=False))
        return Binding(function, pairs, ())
    required = tuple((p.name, p.name) for p in parameters if p.default is inspect.Parameter.empty)
    optional = tuple((p.name, p.name) for p in parameters if p.default is not inspect.Parameter.empty)
    return Binding(function, required, optional)


def bind_loss(loss: Any) -> Binding:
    """Bind a loss by the parameters of its forward."""
    signature_of = loss.forward if hasattr(loss, "forward") else loss
    return bind(loss, signature_of, getattr(loss, "reads", None), getattr(loss, "reads_optional", ()))


def bind_metric(metric: Any) -> Binding:
    """Bind a metric by the parameters of its update."""
    return bind(metric.update, metric.update, getattr(metric, "reads", None))


def bind_model(model: Any) -> Binding:
    """Bind a model by the parameters of its forward: it takes from a batch what it names."""
    return bind(model, model.forward)


def bind_forward(task: Any, model: Any) -> Callable[[Mapping[str, Any]], Any]:
    """Return what runs a model on a batch: the task where it has the power Forwards, else the model's parameters."""
    forward = getattr(task, "forward", None)
    return bind_model(model) if forward is None else partial(forward, model)
