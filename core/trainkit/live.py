"""A run's live objects: what events receive, and what the loop works on."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .base import Base
from .best import Best
from .binding import Binding
from .contracts import SAMPLE_ID, Augmenter, Batch, LossOutput, Outputs, Splits, Task
from .costs.forecast import Forecast
from .data import BatchMaker
from .engine import Engine
from .errors import UsageError
from .evaluation import Interrupted
from .events import EventLists, resolve
from .moment import Moment
from .partof import PartOf
from .plan import Plan
from .ranks.agreement import Ears
from .ranks.world import World
from .record import Gathered, InactiveTerms
from .settings import RunSettings
from .signals import Stoppable
from .stages import PlannedStage
from .workers import Workers

if TYPE_CHECKING:
    import numpy as np

    from .checkpoint import Checkpoints
    from .config import Config
    from .rundir import MetricsFile, RunDirectory


@dataclass(frozen=True, slots=True)
class BoundMetric:
    """Hold a metric, its name and how its update is called."""

    name: str
    metric: Any
    update: Binding


@dataclass
class Run:
    """Hold everything live about a run. Events receive it; components may read all of it."""

    config: Config
    settings: RunSettings
    plan: Plan
    stages: tuple[PlannedStage, ...]
    engine: Engine
    task: Task
    splits: Splits
    model: nn.Module
    loss: nn.Module
    optimizer: torch.optim.Optimizer
    make_scheduler: Callable[[int], torch.optim.lr_scheduler.LRScheduler]
    metrics: list[BoundMetric]
    augmenters: Sequence[Augmenter]
    components: dict[str, Any]
    events: EventLists
    call_model: Callable[[Batch], Any]
    call_loss: Binding
    predicts: bool
    monitor: str
    monitor_mode: str
    learnable: dict[str, nn.Parameter]
    added: frozenset[str]
    base_rates: list[float]
    scheduler: torch.optim.lr_scheduler.LRScheduler | None = None
    scaler: torch.amp.GradScaler | None = None
    directory: RunDirectory | None = None
    checkpoints: Checkpoints | None = None
    metrics_file: MetricsFile | None = None
    moment: Moment = field(default_factory=Moment)
    gathered: Gathered = field(default_factory=Gathered)
    inactive: InactiveTerms = field(default_factory=InactiveTerms)
    forecast: Forecast = field(default_factory=Forecast)
    best: Best = field(default_factory=Best)
    workers: Workers = field(init=False)
    batch: Batch | None = None
    stop_reason: str = ""
    stage_reasons: list[str] = field(default_factory=list)
    signal: int | None = None
    resumed: bool = False
    part_of: PartOf | None = None
    base: Base | None = None
    files: dict[str, bytes] | None = None

    def __post_init__(self) -> None:
        self._lasting = self.events
        # Several ranks hear signals one by one, and heed them together.
        self.ears: Stoppable = self if self.world.is_alone else Ears()
        self.workers = Workers(self.settings.loop.workers)

    def follow(self, scheduler: torch.optim.lr_scheduler.LRScheduler) -> None:
        """Let a scheduler set the learning rates from now on, and hear events, in place of the one before."""
        self.scheduler = scheduler
        label = f"scheduler {self.config['scheduler.use']}"
        self.events = self._lasting.followed_by(resolve([(label, scheduler)]))

    @property
    def world(self) -> World:
        """Return which rank this process is, and of how many."""
        return self.engine.world

    @property
    def is_sharded(self) -> bool:
        """Return whether each rank holds a shard of the weights: then all must run the model equally often."""
        return self.settings.parallel == "fsdp" and not self.world.is_alone

    @property
    def total_steps(self) -> int:
        """Return the number of optimizer steps of the whole plan."""
        return self.stages[-1].last_step

    def forward(self, batch: Batch) -> tuple[Outputs, LossOutput]:
        """Return the model's outputs as a mapping and the loss of a batch that is on the device."""
        if self.engine.precision == "fp32":
            return self._forward(batch)
        with self.engine.autocast():
            return self._forward(batch)

    def _forward(self, batch: Batch) -> tuple[Outputs, LossOutput]:
        outputs = as_mapping(self.call_model(batch))
        return outputs, as_loss(self.call_loss({**batch, **outputs}), batch)

    def batch_maker(self) -> BatchMaker:
        """Return what turns draws of the training split into batches."""
        return BatchMaker(self.splits.train, self.task.collate, self.augmenters, self.settings.seed)

    def stop(self, reason: str) -> None:
        """Ask the run to end after this step; it counts as done."""
        self.stop_reason = self.stop_reason or reason

    def end_stage(self, reason: str) -> None:
        """Ask the stage to end after this step; the next one begins. After the last stage nothing is left to end."""
        if self.moment.stage < len(self.stages):
            self.stage_reasons.append(f"{self.stages[self.moment.stage].stage.name}: {reason}")
            self.moment.stage_ended = True

    def record(self, tag: str, value: Tensor | float) -> None:
        """Put a scalar into the next row of the training log."""
        self.gathered.extra[tag] = value.detach() if isinstance(value, Tensor) else value

    def show(self, pictures: Mapping[str, np.ndarray[Any, Any]]) -> None:
        """Announce pictures [H, W, 3] of bytes by tag to all who show or keep them."""
        for hear in self.events.on_pictures:
            hear(self, pictures)

    def show_texts(self, texts: Mapping[str, str]) -> None:
        """Announce texts by tag to all who show or keep them."""
        for hear in self.events.on_texts:
            hear(self, texts)

    def check_signal_in_evaluation(self) -> None:
        """Leave an evaluation when a signal arrived."""
        if self.signal is not None:
            raise Interrupted

    @property
    def halted(self) -> bool:
        """Return whether the run is to end at the next step."""
        return bool(self.stop_reason) or self.signal is not None


def as_mapping(outputs: Any) -> Outputs:
    """Return a model's answer as a mapping: a ModelOutput or dict as it is, a tensor or a tuple's first as logits."""
    if isinstance(outputs, Mapping):
        return outputs
    if isinstance(outputs, Tensor):
        return {"logits": outputs}
    if isinstance(outputs, tuple | list) and outputs and isinstance(outputs[0], Tensor):
        return {"logits": outputs[0]}
    raise UsageError(
        f"the model answers with {type(outputs).__name__}",
        why="a mapping, a tensor, or a tuple that begins with a tensor is understood",
    )


def as_loss(loss: Any, batch: Batch) -> LossOutput:
    """Return a loss's answer as a LossOutput; a scalar tensor is taken as the mean over the samples of the batch."""
    if isinstance(loss, LossOutput):
        return loss
    if isinstance(loss, Tensor) and loss.ndim == 0:
        count = len(batch[SAMPLE_ID])
        return LossOutput(loss * count, count)
    raise UsageError(
        f"the loss answers with {type(loss).__name__}",
        why="a LossOutput, or a scalar tensor that is the mean over the batch, is understood",
    )


def set_trainable(run: Run, patterns: Sequence[str]) -> None:
    """Let exactly the learnable parameters learn whose names match a pattern; raise UsageError if none does.

    What an adapter added to the model always learns: there is nothing in it that could be kept.
    """
    matched = {n for n in run.learnable if any(fnmatch.fnmatchcase(n, pattern) for pattern in patterns)} | run.added
    if not matched:
        raise UsageError(
            f"trainable patterns {', '.join(patterns)} match no parameter",
            why="top-level parts of the model: " + ", ".join(dict.fromkeys(n.partition(".")[0] for n in run.learnable)),
        )
    for name, parameter in run.learnable.items():
        parameter.requires_grad_(name in matched)
