"""The callback that averages weights: it follows every step, and swaps the average in where weights are used."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, PositiveFloat
from trainkit import UsageError, hookimpl
from trainkit.evaluation import evaluation_mode, results_of
from trainkit.routine import write_row

from .average import Average, copy_all, decay_at

if TYPE_CHECKING:
    from torch import Tensor
    from trainkit.live import Run
    from trainkit.outline import Course

VAL, RAW = "val", "raw"
# More than this of the initial weights in the last average, and it says more about them than about training.
MOST_INITIAL = 0.1
_log = logging.getLogger(__name__)


class EMA:
    """Evaluate, save and return an exponential moving average of the weights, while training goes on without it.

    After each applied update t = 0, 1, ... the average is moved on: average <- d average + (1 - d) weights, with
    d = min(decay, (1 + t) / (10 + t)). It is in place in every evaluation, so that the best checkpoint is the one with
    the best average, in `model.safetensors` of every checkpoint, and in the model that a run returns. The trained
    weights are kept in the checkpoint's state, and a resumed run goes on with them to the bit.

    Averaged are the weights that learn, a weight that is unfrozen later from a copy at that moment on. Buffers, as the
    running averages of batch norms, are those of the trained model [reading: copied, not averaged]. The average is held
    in fp32. Source: Polyak averaging with the warm-up of TensorFlow's ExponentialMovingAverage.

    Args:
        decay: largest share of the old average that an update keeps.
        warmup: let that share rise with the updates, so that the initial weights are soon forgotten.
        power: let it rise as 1 - (1 + t / gamma)^-power instead; 2/3 for long, 3/4 for short training.
        gamma: updates after which that curve is at 1 - 2^-power.
        log_raw: evaluate the trained weights as well at each validation, under the tags raw/val/...
    """

    def __init__(
        self,
        decay: Annotated[float, Field(ge=0, lt=1)] = 0.9999,
        warmup: bool = True,
        power: PositiveFloat | None = None,
        gamma: PositiveFloat = 1.0,
        log_raw: bool = False,
    ) -> None:
        if power is not None and not warmup:
            raise UsageError(
                "ema has a power of its warm-up, and no warm-up",
                where="callback.ema.power",
                do="leave power out, or set callback.ema.warmup=true",
            )
        self.decay, self.warmup, self.power, self.gamma = decay, warmup, power, gamma
        self.log_raw = log_raw
        self._average = Average()
        # While the average is in the model: the weights that are trained, by name. Gradients are not there then, so
        # this second copy does not make the peak of memory higher.
        self._trained: dict[str, Tensor] = {}
        self._raw: dict[str, float] = {}

    def outline(self, course: Course) -> list[tuple[int, str]]:
        """Return the decay at the begin, after a quarter and after half of the steps."""
        steps = dict.fromkeys((0, course.total_steps // 4, course.total_steps // 2))
        found = [(t, decay_at(t, self.decay, warmup=self.warmup, power=self.power, gamma=self.gamma)) for t in steps]
        return [(step, f"decay {decay:.4g}") for step, decay in found]

    def check_run(self, run: Run) -> None:
        """Refuse a run whose optimizer averages weights itself."""
        if hasattr(run.optimizer, "eval") and hasattr(run.optimizer, "train"):
            name = run.config["optimizer.use"]
            raise UsageError(
                f"callback ema and optimizer {name} both average the weights",
                where="callback",
                do=f"leave out one of them: --callback no:ema, or another optimizer than {name}",
            )

    @hookimpl
    def on_run_start(self, run: Run) -> None:
        """Warn where training is too short for the average to forget the initial weights."""
        left = self.decay**run.total_steps
        if not self.warmup and left > MOST_INITIAL:
            _log.warning(
                "ema: without a warm-up, %.0f %% of the average are the initial weights still after all %d steps; "
                "set callback.ema.warmup=true, or callback.ema.decay=%.4g",
                100 * left,
                run.total_steps,
                max(0.0, 1 - 7 / run.total_steps),
            )

    @hookimpl
    def on_gradients(self, run: Run) -> None:
        """Begin to average what begins to learn, before its first update."""
        self._average.follow({name: weight for name, weight in run.learnable.items() if weight.requires_grad})

    @hookimpl
    def on_step(self, run: Run) -> None:
        """Move the average on."""
        share = decay_at(run.moment.step - 1, self.decay, warmup=self.warmup, power=self.power, gamma=self.gamma)
        self._average.update(run.learnable, share)

    @hookimpl
    def swap_weights_in(self, run: Run) -> None:
        """Put the average into the model and keep the trained weights."""
        if self._trained:
            return
        self._trained = {name: run.learnable[name].detach().clone() for name in self._average.tensors}
        self._average.write_into(run.learnable)

    @hookimpl
    def swap_weights_out(self, run: Run) -> None:
        """Put the trained weights back."""
        weights = {name: run.learnable[name] for name in self._trained}
        # A checkpoint holds an average once: of one that the model holds exactly there is none in the state.
        self._average.follow(weights)
        copy_all(weights, self._trained)
        self._trained = {}

    @hookimpl
    def before_evaluation(self, run: Run, split: str) -> None:
        """Evaluate the trained weights, if they are to be logged; nobody has heard anything of this validation yet."""
        self._raw = {}
        training = run.metrics_file is not None and run.moment.stage < len(run.stages)
        if not self.log_raw or split != VAL or not training or run.splits.val is None:
            return
        started = time.perf_counter()
        with evaluation_mode(run):
            found = results_of(run, VAL, run.splits.val, None)
        self._raw = {f"{RAW}/{tag}": value for tag, value in found.items()}
        run.forecast.evaluated(time.perf_counter() - started, is_new=False)

    @hookimpl
    def after_evaluation(self, run: Run, results: Mapping[str, float]) -> None:
        """Log what the trained weights came to, unless the evaluation failed."""
        if self._raw and results:
            write_row(run, self._raw)
        self._raw = {}

    def state_dict(self) -> dict[str, Any]:
        """Return the trained weights while the average is in the model, and the averages that the model cannot hold."""
        exact = {name: weight.dtype for name, weight in self._trained.items()}
        averages = self._average.tensors.items()
        return {
            "trained": dict(self._trained),
            "average": {name: average for name, average in averages if exact.get(name) != average.dtype},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave; the averages that it left out are in the model."""
        self._trained = dict(state["trained"])
        self._average.tensors = dict(state["average"])
