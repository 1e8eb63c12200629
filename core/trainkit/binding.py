"""Call by what is read: a function's parameters, or its `reads`, name the values it wants of a batch and outputs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
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


def bind(function: Callable[..., Any], signature_of: Callable[..., Any], reads: Iterable[str] | None = None) -> Binding:
    """Return the binding of a function.

    Args:
        function: what is called, as a loss module.
        signature_of: what carries the parameters, as the module's forward.
        reads: the names read, in the order of the parameters, where they are not the parameters' own names.
    """
    parameters = [
        p for p in inspect.signature(signature_of).parameters.values() if p.kind in _NAMED and p.name != "self"
    ]
    if reads is not None:
        pairs = tuple((parameter.name, name) for parameter, name in zip(parameters, reads, strict=False))
        return Binding(function, pairs, ())
    required = tuple((p.name, p.name) for p in parameters if p.default is inspect.Parameter.empty)
    optional = tuple((p.name, p.name) for p in parameters if p.default is not inspect.Parameter.empty)
    return Binding(function, required, optional)


def bind_loss(loss: Any) -> Binding:
    """Bind a loss by the parameters of its forward."""
    return bind(loss, loss.forward if hasattr(loss, "forward") else loss, getattr(loss, "reads", None))


def bind_metric(metric: Any) -> Binding:
    """Bind a metric by the parameters of its update."""
    return bind(metric.update, metric.update, getattr(metric, "reads", None))


def bind_model(model: Any) -> Binding:
    """Bind a model by the parameters of its forward: it takes from a batch what it names."""
    return bind(model, model.forward)
