"""What fast optimizers are built from; each optimizer itself is a plugin. Works without a run: plain torch optimizers.

An optimizer that treats every element alike subclasses `ElementwiseOptimizer`; one that also scales the update of each
tensor by norms subclasses `ScaledOptimizer`; any other one subclasses `Optimizer`, which checks groups and gradients,
and keeps the precision of a loaded state.
"""

from .base import Optimizer as Optimizer
from .checks import OptimizerError as OptimizerError
from .elementwise import ElementwiseOptimizer as ElementwiseOptimizer
from .scaled import ScaledOptimizer as ScaledOptimizer
