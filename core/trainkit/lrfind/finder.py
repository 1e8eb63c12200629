"""The learning-rate finder: a range test on a run, which is left as it was."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from trainkit.baserate import base_rate, check_can_find
from trainkit.blame import told
from trainkit.compose import compose
from trainkit.data import EpochBatches, windows
from trainkit.errors import Diverged, UsageError
from trainkit.live import set_trainable
from trainkit.loop import admitted_draws, train_step
from trainkit.signals import heard
from trainkit.unchanged import unchanged

from .rangetest import AXES, FEWEST_STEPS, HIGH, LOW, RULES, STEPS, Axis, RangeTest, Rule, averages, has_exploded, rates

if TYPE_CHECKING:
    from trainkit.draft import Draft
    from trainkit.live import Run
    from trainkit.stages import PlannedStage

Tested = Callable[[int, float, float], None]


@dataclass(frozen=True)
class Search:
    """Hold what is asked of a range test.

    Args:
        low: the smallest rate, above 0.
        high: the largest rate.
        steps: how many rates, an optimizer step each; 13 at least, as the first 10 and the last do not count.
        rule: which suggestion counts: steepest, valley or minimum.
        axis: log or linear: by which the steepest slope is meant.

    Raises:
        UsageError: one of them is out of its range.
    """

    low: float = LOW
    high: float = HIGH
    steps: int = STEPS
    rule: Rule = "steepest"
    axis: Axis = "log"

    def __post_init__(self) -> None:
        if not (math.isfinite(self.high) and 0 < self.low < self.high):
            raise UsageError(
                f"the rates of a range test go up from a smallest above 0 (got {self.low:g} to {self.high:g})",
                do=f"take --min and --max as {LOW:g} and {HIGH:g}, which are the defaults",
            )
        if self.steps < FEWEST_STEPS:
            raise UsageError(
                f"a range test needs {FEWEST_STEPS} steps at least (got {self.steps})",
                why="the first 10 and the last do not count, and a slope has two ends",
                do=f"take {STEPS}, which is the default",
            )
        for name, given, allowed in (("rule", self.rule, RULES), ("axis", self.axis, AXES)):
            if given not in allowed:
                raise UsageError(
                    f"there is no {name} '{given}' in a range test", why=f"there are: {', '.join(allowed)}"
                )


def find(run: Run, search: Search | None = None, tested: Tested | None = None) -> RangeTest:
    """Test rates on a run from its first steps on, and leave the run as it was, to the bit.

    Each rate is that of `optimizer.lr` for one optimizer step: parameter groups keep their ratios to it, and the stage
    its factor. Accumulation, clipping and the scaling of gradients are those of the run; there is no scheduler, no
    evaluation and no checkpoint. The task and all components hear the events of training. Take a run without callbacks,
    as `without_callbacks` gives, where they are not to hear, or change, what is tested.

    Args:
        run: a composed run.
        search: which rates.
        tested: hears the number, the rate and the loss of each step.

    Raises:
        UsageError: a rate has no meaning for this optimizer or in this plan.
        PluginError: a component cannot be put back as it was.
    """
    base = base_rate(run)
    with unchanged(run):
        return _tested(run, base, search or Search(), tested)


def without_callbacks(draft: Draft) -> Draft:
    """Return a draft of the same run without callbacks: what shows, stops, averages or disturbs is not tested."""
    return replace(draft, spare_model=draft.fresh_model(), lists={**draft.lists, "callback": {}})


def find_in(draft: Draft, search: Search | None = None, tested: Tested | None = None) -> RangeTest:
    """Return the range test of a draft, on a run of its own; a signal ends it at the next step.

    Raises:
        UsageError: see `find`.
    """
    check_can_find(draft)
    run = compose(without_callbacks(draft))
    with told(run), heard(run):
        return find(run, search, tested)


def _tested(run: Run, base: float, search: Search, tested: Tested | None) -> RangeTest:
    planned = run.stages[0]
    run.scheduler = None
    run.moment.stage = 0
    set_trainable(run, planned.stage.trainable)
    factors = [rate / base * planned.stage.lr_factor for rate in run.base_rates]
    stream = _stream(run, planned)
    losses: list[float] = []
    planned_rates = rates(search.low, search.high, search.steps)
    ended = ""
    for number, rate in enumerate(planned_rates):
        for group, factor in zip(run.optimizer.param_groups, factors, strict=True):
            group["lr"] = rate * factor
        losses.append(_loss_of_step(run, stream))
        if tested is not None:
            tested(number, rate, losses[-1])
        if ended := _end(run, losses):
            break
    done = tuple(planned_rates[: len(losses)])
    return RangeTest(done, tuple(losses), search.rule, search.axis, ended, run.signal)


def _end(run: Run, losses: list[float]) -> str:
    """Return why a test is over, or '' where it goes on."""
    if run.signal is not None:
        return "interrupted"
    if not math.isfinite(losses[-1]):
        return "not finite"
    return "exploded" if has_exploded(averages(losses)) else ""


def _stream(run: Run, planned: PlannedStage) -> Iterator[list[dict[str, Any]]]:
    """Yield windows of micro-batches as training would draw them, epoch after epoch."""
    loop = run.settings.loop
    for hear in run.events.on_run_start:
        hear(run)
    for hear in run.events.on_stage_start:
        hear(run, planned.stage)
    while True:
        for hear in run.events.on_epoch_start:
            hear(run)
        draws = admitted_draws(run, planned)
        batches = EpochBatches(run.batch_maker(), draws, run.moment.epoch, loop.batch_size)
        yield from windows(run.workers.stream(batches, 0, run.engine.is_cuda), loop.accumulate)
        for hear in run.events.on_epoch_end:
            hear(run)
        run.moment.epoch += 1


def _loss_of_step(run: Run, stream: Iterator[list[dict[str, Any]]]) -> float:
    """Return the mean loss of the next step, before its update; NaN where the loss or a gradient is not finite.

    A step that was skipped because the scale of fp16 gradients was too large says nothing about the rate: the next
    window takes its place.
    """
    while True:
        run.gathered.begin_anew()
        before = run.moment.step
        try:
            train_step(run, next(stream))
        except Diverged:
            return math.nan
        loss = run.gathered.losses.means("train")["train/loss"]
        if not (math.isfinite(loss) and all(math.isfinite(float(norm)) for norm in run.gathered.norms)):
            return math.nan
        if run.moment.step > before:
            return loss
        if run.scaler is None:
            return math.nan
