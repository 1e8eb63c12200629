"""The conformance kit: one class for each kind of component, for the tests of any plugin, ours or a stranger's.

A plugin's test subclasses the class of its kind and names the component; pytest runs the checks::

    from trainkit.testing import OptimizerConformance


    class TestLion(OptimizerConformance):
        component = "lion"

`run_checks(kind, name)` runs the same checks without pytest, for `trainkit plugins check`.
"""

from __future__ import annotations

from .adapter import AdapterConformance
from .augmenter import AugmenterConformance
from .callback import CallbackConformance
from .checks import CheckResult, conformance_of, run_checks
from .component import ComponentConformance, NotChecked
from .loss import LossConformance
from .metric import MetricConformance
from .optimizer import OptimizerConformance
from .scheduler import SchedulerConformance
from .strategy import StrategyConformance
from .task import TaskConformance

__all__ = [
    "AdapterConformance",
    "AugmenterConformance",
    "CallbackConformance",
    "CheckResult",
    "ComponentConformance",
    "LossConformance",
    "MetricConformance",
    "NotChecked",
    "OptimizerConformance",
    "SchedulerConformance",
    "StrategyConformance",
    "TaskConformance",
    "conformance_of",
    "run_checks",
]
