"""What a live object must have to serve as a component of its kind, and whose fault it is where it fails at work."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from .errors import PluginError, TrainkitError
from .loader.guard import cause_of

NEEDED: dict[str, tuple[str, ...]] = {
    "strategy": ("plan",),
    "task": (
        "defaults", "predicts", "read", "fit", "build_model", "collate", "predict", "baselines", "state_dict",
        "load_state_dict",
    ),
    "loss": ("__call__", "parameters", "state_dict"),
    "augmenter": ("__call__",),
    "optimizer": ("param_groups", "step", "zero_grad", "state_dict", "load_state_dict"),
    "scheduler": ("step", "state_dict", "load_state_dict"),
    "metric": ("update", "compute", "reset"),
    "adapter": ("__call__",),
    "callback": (),
}  # fmt: skip


def check_conformity(kind: str, name: str, made: object) -> None:
    """Raise PluginError, naming what is missing, for an object that cannot serve as a component of its kind."""
    missing = [attribute for attribute in NEEDED[kind] if not hasattr(made, attribute)]
    if missing:
        raise PluginError(
            f"{kind} '{name}' cannot be used: it makes an object of {type(made).__name__}, which is no {kind}",
            why=f"a {kind} needs {', '.join(NEEDED[kind])}; missing: {', '.join(missing)}",
            do=f"trainkit plugins check {kind}/{name}" if "/" not in name and ":" not in name else "correct it",
        )


@contextlib.contextmanager
def asked(label: str, question: str) -> Iterator[None]:
    """Turn what a component raises outside of training, as while it reads data, into a PluginError that names it."""
    try:
        yield
    except (TrainkitError, MemoryError):
        raise
    except (Exception, SystemExit) as error:
        raise PluginError(
            f"{label} failed when it was asked to {question}", why=cause_of(error), do="correct it, or choose another"
        ) from error
