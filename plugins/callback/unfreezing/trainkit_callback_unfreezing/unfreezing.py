"""Progressive unfreezing: the top of a model learns first, lower parts join in later and at smaller rates."""

from __future__ import annotations

import fnmatch
import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

from pydantic import Field, PositiveInt
from trainkit import UsageError, hookimpl
from trainkit.narrowing import epoch_of

if TYPE_CHECKING:
    from torch import nn
    from trainkit.contracts import Batch, LossOutput
    from trainkit.live import Run
    from trainkit.outline import Course

_log = logging.getLogger(__name__)


def part_of(name: str) -> str:
    """Return the top-level part of a model to which a parameter belongs."""
    return name.partition(".")[0]


def grouped(names: Sequence[str], patterns: Sequence[str]) -> dict[str, int]:
    """Return the number of the group of each parameter, 0 the lowest.

    Args:
        names: of parameters, in the order of the model.
        patterns: one for each group, from the input to the output, as in `fnmatch`; the first that matches counts. A
            parameter that none matches is of the highest group. Without patterns each top-level part is a group.
    """
    if not patterns:
        parts = list(dict.fromkeys(map(part_of, names)))
        return {name: parts.index(part_of(name)) for name in names}
    found = {}
    for name in names:
        matching = (place for place, pattern in enumerate(patterns) if fnmatch.fnmatchcase(name, pattern))
        found[name] = next(matching, len(patterns) - 1)
    return found


def discriminative(groups: int, factor: float) -> list[float]:
    """Return the factor on the learning rate of each group: 1 for the highest, each other that above it / factor."""
    return [factor ** (place - groups + 1) for place in range(groups)]


def first_learning(epoch: int, every: int, groups: int) -> int:
    """Return the lowest group that learns in an epoch, counted from 0: the top epoch // every + 1 groups do."""
    return max(0, groups - 1 - epoch // every)


class Unfreezing:
    """Let the highest group of parameters learn first and one more below it from epoch to epoch.

    The learning rate of a group is that of the group above it divided by `factor`, so lower parts change less. The
    optimizer is built once, over all groups: what its moments hold stays. What is fixed has no gradient, and modules
    that are fixed as a whole are in evaluation mode, so that their dropout is off and their running statistics stay.
    What a stage of the plan keeps fixed stays fixed, and what an adapter added to the model always learns. Where the
    loss depends on nothing in the highest group, as on a head for something else, the group below learns from the start
    as well [reading].

    Args:
        groups: patterns of parameter names, one for each group, from the input to the output, as in `fnmatch`; without
            them the top-level parts of the model, in its order. What none matches is of the highest group.
        every: epochs from one group to the next.
        factor: by how much the learning rate falls from a group to the one below; 1 for one rate.

    Source: Howard and Ruder 2018, arXiv 1801.06146 [paper].
    """

    def __init__(
        self,
        groups: tuple[str, ...] = (),
        every: PositiveInt = 1,
        factor: Annotated[float, Field(ge=1)] = 2.6,
    ) -> None:
        self.groups, self.every, self.factor = tuple(groups), every, factor
        self.passed_over = 0

    def rate_factors(self, names: Sequence[str]) -> Mapping[str, float]:
        """Return the factor on the learning rate of each parameter; raise UsageError for a pattern without any."""
        numbers = self._numbers(names)
        factors = discriminative(max(numbers.values()) + 1, self.factor)
        return {name: factors[number] for name, number in numbers.items()}

    def _numbers(self, names: Sequence[str]) -> dict[str, int]:
        for pattern in self.groups:
            if not fnmatch.filter(names, pattern):
                parts = ", ".join(dict.fromkeys(map(part_of, names)))
                raise UsageError(
                    f"no parameter that learns matches the group '{pattern}'",
                    where="callback.unfreezing.groups",
                    why=f"top-level parts of the model: {parts}",
                )
        return grouped(names, self.groups)

    def outline(self, course: Course) -> list[tuple[int, str]]:
        """Return the step from which each group learns, the highest first."""
        names = list(self.groups) or [group.name for group in course.groups]
        epochs = range(0, len(course.epoch_ends), self.every)
        joining = zip(epochs, reversed(names), strict=False)
        return [(course.first_step(epoch), f"{'+ ' if epoch else ''}{name}") for epoch, name in joining]

    @hookimpl
    def on_run_start(self, run: Run) -> None:
        """Take up an epoch that has begun; say which parts will not learn in a run this short."""
        numbers, epochs = self._numbers(list(run.learnable)), epoch_of(run).total
        lowest = first_learning(epochs - 1, self.every, max(numbers.values()) + 1)
        if never := dict.fromkeys(part_of(name) for name, number in numbers.items() if number < lowest):
            _log.warning("unfreezing: in %d epochs these never learn: %s", epochs, ", ".join(never))
        if run.moment.epoch_started:
            self._apply(run)

    @hookimpl
    def on_epoch_start(self, run: Run) -> None:
        """Let the groups of this epoch learn, and no others."""
        self._apply(run)
        run.record("unfreezing/learning", sum(p.numel() for p in run.learnable.values() if p.requires_grad))

    @hookimpl(tryfirst=True)
    def on_loss(self, run: Run, batch: Batch, loss: LossOutput) -> LossOutput | None:
        """Pass over the highest groups where the loss depends on none of them, as on a head for something else.

        Then the group below them learns from the start, and the answer is the loss of the same batch with it.
        """
        if loss.sum.requires_grad:
            return None
        numbers = self._numbers(list(run.learnable))
        while self._lowest(run, numbers) > 0:
            self.passed_over += 1
            self._apply(run)
            found = run.forward(batch)[1]
            if found.sum.requires_grad:
                over = max(numbers.values()) - self.passed_over
                names = dict.fromkeys(part_of(name) for name, number in numbers.items() if number > over)
                _log.warning("unfreezing: the loss does not depend on %s: what is below learns first", ", ".join(names))
                return found
        raise UsageError(
            f"the loss does not depend on what learns in epoch {run.moment.epoch + 1}",
            where="callback unfreezing",
            why="it does not depend on anything of the model that may learn",
            do="look at what the stage trains, and at what the loss reads",
        )

    @hookimpl
    def after_evaluation(self, run: Run) -> None:
        """Put what is fixed back into evaluation mode, which an evaluation's end left."""
        rest(run.model)

    def _lowest(self, run: Run, numbers: Mapping[str, int]) -> int:
        return first_learning(run.moment.epoch, self.every, max(numbers.values()) + 1 - self.passed_over)

    def _apply(self, run: Run) -> None:
        numbers = self._numbers(list(run.learnable))
        lowest = self._lowest(run, numbers)
        trainable = run.stages[run.moment.stage].stage.trainable
        for name, parameter in run.learnable.items():
            in_stage = any(fnmatch.fnmatchcase(name, pattern) for pattern in trainable)
            parameter.requires_grad_(name in run.added or (in_stage and numbers[name] >= lowest))
        if not any(parameter.requires_grad for parameter in run.learnable.values()):
            raise UsageError(
                f"nothing learns in epoch {run.moment.epoch + 1}",
                where="callback unfreezing",
                why=f"the stage lets {', '.join(trainable)} learn, which unfreezing still keeps fixed",
                do="leave one of the two out, or give groups whose last one the stage trains",
            )
        run.model.train()
        rest(run.model)

    def state_dict(self) -> dict[str, int]:
        """Return how many of the highest groups are passed over."""
        return {"passed_over": self.passed_over}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Take back what `state_dict` gave."""
        self.passed_over = int(state["passed_over"])


def rest(module: nn.Module) -> None:
    """Put the outermost modules with parameters none of which learns into evaluation mode."""
    for child in module.children():
        parameters = list(child.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            child.eval()
        else:
            rest(child)
