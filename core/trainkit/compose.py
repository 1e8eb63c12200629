"""From a draft to live objects that were checked to fit: one Run."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .binding import Binding, bind_loss, bind_metric, bind_model
from .contracts import SAMPLE_ID, Augmenter, Batch, LossOutput, Outputs, Splits, Task
from .data import BatchMaker
from .draft import Draft, PlannedStage
from .engine import Engine
from .errors import UsageError, parts_do_not_fit, unknown_key
from .evaluation import Interrupted
from .events import EventLists, resolve
from .moment import Moment
from .plan import Plan
from .randomness import Purpose, seed_torch
from .record import Forecast, Gathered
from .settings import RunSettings

if TYPE_CHECKING:
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
class Best:
    """Hold the best value of the monitored tag and the step it was seen at."""

    value: float | None = None
    step: int = -1


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
    call_model: Binding
    call_loss: Binding
    predicts: bool
    monitor: str
    monitor_mode: str
    learnable: dict[str, nn.Parameter]
    base_rates: list[float]
    scheduler: torch.optim.lr_scheduler.LRScheduler | None = None
    scaler: torch.amp.GradScaler | None = None
    directory: RunDirectory | None = None
    checkpoints: Checkpoints | None = None
    metrics_file: MetricsFile | None = None
    moment: Moment = field(default_factory=Moment)
    gathered: Gathered = field(default_factory=Gathered)
    forecast: Forecast = field(default_factory=Forecast)
    best: Best = field(default_factory=Best)
    batch: Batch | None = None
    stop_reason: str = ""
    stage_reasons: list[str] = field(default_factory=list)
    signal: int | None = None
    resumed: bool = False

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
        """Ask the stage to end after this step; the next one begins."""
        self.stage_reasons.append(f"{self.stages[self.moment.stage].stage.name}: {reason}")
        self.moment.stage_ended = True

    def record(self, tag: str, value: Tensor | float) -> None:
        """Put a scalar into the next row of the training log."""
        self.gathered.extra[tag] = value.detach() if isinstance(value, Tensor) else value

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


def compose(draft: Draft, directory: RunDirectory | None = None, listeners: Iterable[tuple[str, object]] = ()) -> Run:
    """Return the run of a draft: everything built, checked to fit, on its device, at its beginning.

    Args:
        draft: what was planned.
        directory: where the run is recorded; None for a run that leaves nothing behind.
        listeners: further (label, object) pairs that hear events, as a progress display.

    Raises:
        UsageError: parts that do not fit; the message names those that would.
        PluginError: a component that raises when it is created, or misspells an event.
    """
    settings, task = draft.settings, draft.task
    seed_torch(settings.seed, Purpose.MODEL)
    loss = draft.parts["loss"].build()
    metrics = [BoundMetric(n, m, bind_metric(m)) for n, m in ((n, p.build()) for n, p in draft.lists["metric"].items())]
    augmenters = {name: part.build() for name, part in draft.lists["augmenter"].items()}
    check_fit(draft, loss, metrics, augmenters)
    adapter = draft.parts["adapter"].build()
    model: nn.Module = adapter(task.build_model()).to(draft.engine.device)
    loss.to(draft.engine.device)
    _apply_model_settings(model, settings)
    learnable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    optimizer = draft.parts["optimizer"].build(params=parameter_groups(learnable, loss))
    callbacks = {name: part.build() for name, part in draft.lists["callback"].items()}
    components = {
        "loss": loss,
        "optimizer": optimizer,
        "adapter": adapter,
        **{f"augmenter {name}": augmenter for name, augmenter in augmenters.items()},
        **{f"metric {bound.name}": bound.metric for bound in metrics},
        **{f"callback {name}": callback for name, callback in callbacks.items()},
    }
    monitor, mode = monitored(settings, metrics, draft)
    loss_names = set(task.gives) if hasattr(task, "gives") else None
    return Run(
        config=draft.config,
        settings=settings,
        plan=draft.plan,
        stages=draft.stages,
        engine=draft.engine,
        task=task,
        splits=draft.splits,
        model=model,
        loss=loss,
        optimizer=optimizer,
        make_scheduler=lambda steps: draft.parts["scheduler"].build(optimizer=optimizer, total_steps=steps),
        metrics=metrics,
        augmenters=tuple(augmenters.values()),
        components=components,
        events=resolve([*components.items(), *listeners]),
        call_model=bind_model(model),
        call_loss=bind_loss(loss) if loss_names is None else bind_loss(loss).given(loss_names),
        predicts=any(_reads(bound.update) & set(task.predicts) for bound in metrics),
        monitor=monitor,
        monitor_mode=mode,
        learnable=learnable,
        base_rates=[float(group["lr"]) for group in optimizer.param_groups],
        scaler=draft.engine.scaler(),
        directory=directory,
    )


def _apply_model_settings(model: nn.Module, settings: RunSettings) -> None:
    if settings.loop.gradient_checkpointing:
        enable: Callable[[], None] | None = getattr(model, "gradient_checkpointing_enable", None)
        if enable is None:
            raise UsageError(
                "loop.gradient_checkpointing: this model does not offer it",
                why=f"{type(model).__name__} has no method gradient_checkpointing_enable",
                do="leave the setting out, or take a smaller loop.batch_size with loop.accumulate",
            )
        enable()
    if settings.loop.compile:
        model.compile()
    model.train()


def parameter_groups(learnable: Mapping[str, nn.Parameter], loss: nn.Module) -> list[dict[str, Any]]:
    """Return the optimizer's groups: matrices decay; vectors (biases, gains) and parameters of the loss do not."""
    groups: list[dict[str, Any]] = [
        {"name": "decay", "params": [p for p in learnable.values() if p.ndim >= 2]},
        {"name": "no_decay", "params": [p for p in learnable.values() if p.ndim < 2], "weight_decay": 0.0},
        {"name": "loss", "params": [p for p in loss.parameters() if p.requires_grad], "weight_decay": 0.0},
    ]
    filled = [group for group in groups if group["params"]]
    if not filled:
        raise UsageError("nothing learns: no parameter has requires_grad", do="take another adapter, as --adapter full")
    return filled


def set_trainable(run: Run, patterns: Sequence[str]) -> None:
    """Let exactly the learnable parameters learn whose names match a pattern; raise UsageError if none does."""
    matched = {n for n in run.learnable if any(fnmatch.fnmatchcase(n, pattern) for pattern in patterns)}
    if not matched:
        raise UsageError(
            f"trainable patterns {', '.join(patterns)} match no parameter",
            why="top-level parts of the model: " + ", ".join(dict.fromkeys(n.partition(".")[0] for n in run.learnable)),
        )
    for name, parameter in run.learnable.items():
        parameter.requires_grad_(name in matched)


def monitored(settings: RunSettings, metrics: Sequence[BoundMetric], draft: Draft) -> tuple[str, str]:
    """Return the monitored tag and whether it should fall ('min') or rise ('max')."""
    tag = settings.evaluate.monitor
    split, _, name = tag.partition("/")
    by_name = {bound.name: bound.metric for bound in metrics}
    owner = name.partition("/")[0]
    if split != "val" or (owner != "loss" and owner not in by_name):
        known = ["val/loss", *(f"val/{metric}" for metric in by_name)]
        raise unknown_key(tag, known, f"evaluate.monitor, {draft.config.origin('evaluate.monitor')}")
    if settings.evaluate.mode != "auto":
        return tag, settings.evaluate.mode
    rises = owner != "loss" and getattr(by_name[owner], "higher_is_better", False)
    return tag, "max" if rises else "min"


def check_fit(
    draft: Draft, loss: nn.Module, metrics: Sequence[BoundMetric], augmenters: Mapping[str, Augmenter]
) -> None:
    """Refuse parts that read what the task does not give; name those of the kind that would fit."""
    task, name = draft.task, f"task {draft.config['task.use']}"
    if not hasattr(task, "gives"):
        return
    loss_gives = set(task.gives) - set(task.predicts)
    readers = [("loss", draft.config["loss.use"], bind_loss(loss), loss_gives)]
    readers += [("metric", bound.name, bound.update, set(task.gives)) for bound in metrics]
    for kind, reader, binding, gives in readers:
        if missing := binding.missing(gives):
            raise parts_do_not_fit(f"{kind} {reader}", missing, name, gives, fitting(draft, kind, gives))
    for reader, augmenter in augmenters.items():
        reads = set(getattr(augmenter, "reads", ()))
        if missing := reads - set(task.sample_keys):
            keys = set(task.sample_keys)
            raise parts_do_not_fit(f"augmenter {reader}", missing, name, keys, fitting(draft, "augmenter", keys))


def fitting(draft: Draft, kind: str, gives: set[str]) -> list[str]:
    """Return the installed components of a kind that read no more than is given. Only a refusal asks for this."""
    binders = {"loss": bind_loss, "metric": bind_metric}
    names = []
    for name in draft.registry.names(kind):
        try:
            live = draft.registry.load(kind, name).build({})
            reads = set(live.reads) if kind == "augmenter" else {value for _, value in binders[kind](live).required}
        except Exception:  # noqa: S112 - one that cannot be built with its defaults is no suggestion
            continue
        if reads <= gives:
            names.append(name)
    return names


def _reads(binding: Binding) -> set[str]:
    return {value for _, value in (*binding.required, *binding.optional)}
