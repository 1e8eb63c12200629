"""trainkit trains PyTorch models from named parts.

The names below are loaded on first use: importing trainkit loads neither torch nor pydantic nor any plugin.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .api import ablate, evaluate, export, find_learning_rate, merge, predict, preview, resume, run, show, validate
    from .contracts import Answer, Finding, Inspection, LossOutput, Panel, Splits, reading
    from .errors import DataError, ExitCode, PluginError, TrainkitError, UsageError
    from .hooks import hookimpl
    from .metrics import SumMetric
    from .plan import Plan, Selection, Setting, Situation, Stage, Technique
    from .registry import Registry

__version__ = "0.1.0"

_HOMES = {
    "ablate": "api",
    "evaluate": "api",
    "export": "api",
    "find_learning_rate": "api",
    "merge": "api",
    "preview": "api",
    "resume": "api",
    "run": "api",
    "predict": "api",
    "show": "api",
    "validate": "api",
    "LossOutput": "contracts",
    "Panel": "contracts",
    "Inspection": "contracts",
    "Finding": "contracts",
    "Answer": "contracts",
    "Splits": "contracts",
    "reading": "contracts",
    "DataError": "errors",
    "ExitCode": "errors",
    "PluginError": "errors",
    "TrainkitError": "errors",
    "UsageError": "errors",
    "hookimpl": "hooks",
    "SumMetric": "metrics",
    "Plan": "plan",
    "Selection": "plan",
    "Setting": "plan",
    "Situation": "plan",
    "Stage": "plan",
    "Technique": "plan",
    "Registry": "registry",
}

__all__ = [
    "Answer",
    "DataError",
    "ExitCode",
    "Finding",
    "Inspection",
    "LossOutput",
    "Panel",
    "Plan",
    "PluginError",
    "Registry",
    "Selection",
    "Setting",
    "Situation",
    "Splits",
    "Stage",
    "SumMetric",
    "Technique",
    "TrainkitError",
    "UsageError",
    "__version__",
    "ablate",
    "evaluate",
    "export",
    "find_learning_rate",
    "hookimpl",
    "merge",
    "predict",
    "preview",
    "reading",
    "resume",
    "run",
    "show",
    "validate",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'trainkit' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module(f"trainkit.{_HOMES[name]}"), name)
