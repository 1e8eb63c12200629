"""From a config to a plan: names are loaded, options checked, data read, the strategy asked. Nothing is trained yet."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from . import engine as engines
from .baserate import check_can_find
from .choice import choose_strategy, fitting, leave_rates_alone, named_strategy
from .config import Config, Layer, Value, default_layer, layer_of, merged
from .conformity import asked
from .contracts import ChecksPlan
from .curve import check_schedule, probe_optimizer
from .errors import DataError
from .folds.fold import Fold, layer_of_fold, read_fold
from .kinds import LIST_KINDS, ONE_KINDS
from .narrowing import narrowing_callbacks
from .parts import Loader, Part
from .plan import ParameterGroup, Plan, Situation
from .randomness import Purpose, seed_torch
from .ranks.world import ALONE, World
from .settings import RunSettings, check_settings
from .stages import PlannedStage, plan_stages, with_overrides
from .tasks import lacking
from .techniques import offered

if TYPE_CHECKING:
    from torch import nn

    from .contracts import Splits, Task
    from .registry import Registry


@dataclass
class Draft:
    """Hold everything that is known before anything is built."""

    config: Config
    settings: RunSettings
    engine: engines.Engine
    task: Task
    splits: Splits
    situation: Situation
    plan: Plan
    stages: tuple[PlannedStage, ...]
    parts: dict[str, Part]
    lists: dict[str, dict[str, Part]]
    registry: Registry
    spare_model: nn.Module | None = None
    warnings: tuple[str, ...] = ()

    def fresh_model(self) -> nn.Module:
        """Return a model with the weights of the seed: the one that was built for counting, or a new one."""
        model, self.spare_model = self.spare_model, None
        return model if model is not None else _build_model(self.task, self.settings)

    def outer_parts(self) -> list[Part]:
        """Return the parts that the config names by kind; what is inside of them is theirs."""
        return [*self.parts.values(), *(part for parts in self.lists.values() for part in parts.values())]

    @property
    def total_steps(self) -> int:
        """Return the number of optimizer steps of the whole run."""
        return self.stages[-1].last_step


def make_draft(
    user: Sequence[Layer], registry: Registry, live: Mapping[str, Any] | None = None, world: World = ALONE
) -> Draft:
    """Return the draft of a run.

    Args:
        user: what the user asked for, lowest layer first; the defaults, the task's and the strategy's go below.
        registry: where names become components.
        live: objects that stand for names in the layers, by the name they have there.
        world: which rank this process is.

    Raises:
        TrainkitError: whatever is wrong with the request, the plugins or the data.
    """
    loader = Loader(registry, live or {})
    below = [default_layer()]
    config = merged([*below, *user])
    task_part = loader.part("task", config)
    task: Task = task_part.build()
    # What the task and the strategy propose for the task's options is meant for this task, not for the default one.
    below[0]["task.use"] = config.history["task.use"][-1]
    below.append(fitting(layer_of(task.defaults, f"task {config['task.use']}"), config))
    config = merged([*below, *user])
    settings = check_settings(config)
    if settings.fold is not None:
        below.append(layer_of_fold(task, config, user))
        config = merged([*below, *user])
        task_part = loader.part("task", config)
        task = task_part.build()
    engine = _start(settings, world)
    splits = _read(task, settings)
    model = _build_model(task, settings)
    situation = _situation(splits, engine, model, task_part, task, config)
    choice = _chosen_strategy(loader, config, situation)
    config.choose("strategy", choice)
    strategy = loader.part("strategy", config).build()
    with asked(f"strategy {choice.value}", "plan"):
        plan: Plan = strategy.plan(situation)
    config = merged([*below, _layer_of_plan(plan, f"strategy {choice.value}"), *user])
    config.choose("strategy", choice)
    if settings.fold is not None and config.get("folds") is not None:
        config.add({"folds": Value(None, f"fold {settings.fold}", "a run on one fold alone has no folds")})
    first_seed, settings = settings.seed, check_settings(config)
    # The plan may ask for another precision, another size of model, another seed.
    engine = _start(settings, world)
    new_task_part = loader.part("task", config)
    if (new_task_part.options, settings.seed) != (task_part.options, first_seed):
        task = new_task_part.build()
        splits = _read(task, settings)
        model = _build_model(task, settings)
    if not getattr(probe_optimizer(loader.part("optimizer", config)), "takes_scheduler", True):
        leave_rates_alone(config, user)
    draft = _draft(config, settings, loader, engine, task, splits, situation, plan, model)
    _check_plan(task, with_overrides(plan, config), config)
    draft.warnings = tuple(check_schedule(draft))
    if draft.settings.lr_find:
        check_can_find(draft)
    return draft


def _check_plan(task: Any, plan: Plan, config: Config) -> None:
    if not lacking(task, ChecksPlan):
        with asked(f"task {config['task.use']}", "check the plan"):
            task.check_plan(plan)


def restore_draft(
    config: Config, plan: Plan, registry: Registry, live: Mapping[str, Any] | None = None, world: World = ALONE
) -> Draft:
    """Return the draft of a run that exists: its config and plan stand, nobody is asked again."""
    loader = Loader(registry, live or {})
    settings = check_settings(config)
    engine = _start(settings, world)
    task_part = loader.part("task", config)
    task: Task = task_part.build()
    splits = _read(task, settings)
    model = _build_model(task, settings)
    situation = _situation(splits, engine, model, task_part, task, config)
    return _draft(config, settings, loader, engine, task, splits, situation, plan, model)


def _draft(
    config: Config,
    settings: RunSettings,
    loader: Loader,
    engine: engines.Engine,
    task: Task,
    splits: Splits,
    situation: Situation,
    plan: Plan,
    model: nn.Module,
) -> Draft:
    config.check_lists()
    parts = {kind: loader.part(kind, config) for kind in ONE_KINDS}
    lists = {kind: loader.listed(kind, config) for kind in LIST_KINDS}
    # Of data that is not read nobody can tell which samples are admitted; nothing is trained on it.
    is_read = getattr(splits.train, "is_read", True)
    narrowing = narrowing_callbacks(lists["callback"].items()) if is_read else []
    stages = plan_stages(with_overrides(plan, config).stages, settings, splits.train, narrowing)
    return Draft(config, settings, engine, task, splits, situation, plan, stages, parts, lists, loader.registry, model)


def _start(settings: RunSettings, world: World) -> engines.Engine:
    return engines.start(
        settings.device,
        settings.precision,
        settings.deterministic,
        settings.threads,
        keeps_heap=settings.keep_heap,
        world=world,
    )


def _read(task: Task, settings: RunSettings) -> Splits:
    splits = read_fold(read_splits(task, settings), settings.fold, task, settings.seed)
    with asked("the task", "fit the training data"):
        task.fit(splits.train)
    return splits


def read_splits(task: Task, settings: RunSettings) -> Splits:
    """Return what a task reads, before it is cut into folds; raise DataError for a split without samples."""
    path = Path(settings.data).expanduser() if settings.data is not None else None
    with asked("the task", "read the data"):
        splits = task.read(path, settings.seed)
    for name, dataset in splits.items():
        if len(dataset) == 0:
            raise DataError(f"the {name} split has no samples", where=splits.source or settings.data or "")
    return splits


def _build_model(task: Task, settings: RunSettings) -> nn.Module:
    seed_torch(settings.seed, Purpose.MODEL)
    with asked("the task", "build its model"):
        return task.build_model()


def _situation(
    splits: Splits, engine: engines.Engine, model: nn.Module, task_part: Part, task: Task, config: Config
) -> Situation:
    return Situation(
        train_samples=len(splits.train),
        val_samples=len(splits.val) if splits.val is not None else 0,
        test_samples=len(splits.test) if splits.test is not None else 0,
        device=engine.device.type,
        devices=_devices(engine, config),
        half_precision=engines.half_precision(engine.device),
        cores=os.cpu_count() or 1,
        memory_bytes=engines.memory_bytes(engine.device),
        parameter_groups=_parameter_groups(model),
        has_difficulty=getattr(splits.train, "difficulty", None) is not None,
        has_quality=getattr(splits.train, "quality", None) is not None,
        has_augmenter=bool(config.listed("augmenter")),
        folds=Fold.of(config["fold"]).count if config.get("fold") is not None else config.get("folds"),
        defaults={key: value.value for key, value in fitting(layer_of(task.defaults, "task"), config).items()},
        techniques=offered(task, is_built=task_part.component.is_live),
    )


def _devices(engine: engines.Engine, config: Config) -> int:
    """Return how many devices a run may take: those that are asked for or were started, else all there are."""
    asked = config.get("devices", "auto")
    if asked != "auto":
        return int(asked)
    if not engine.world.is_alone or not engine.is_cuda or ":" in config.get("device", "auto"):
        return engine.world.size
    return torch.cuda.device_count()


def _parameter_groups(model: nn.Module) -> tuple[ParameterGroup, ...]:
    counts: dict[str, int] = {}
    for name, parameter in model.named_parameters():
        part = name.partition(".")[0]
        counts[part] = counts.get(part, 0) + parameter.numel()
    return tuple(ParameterGroup(name=name, parameters=count) for name, count in counts.items())


def _chosen_strategy(loader: Loader, config: Config, situation: Situation) -> Value:
    if config["strategy.use"] != "auto":
        span = getattr(loader.load("strategy", config["strategy.use"]).target, "samples", None)
        return named_strategy(config.history["strategy.use"][-1], span, situation.train_samples)
    names = loader.registry.names("strategy")
    name, reason = choose_strategy(names, partial(loader.load, "strategy"), situation.train_samples)
    return Value(name, "strategy auto", reason)


def _layer_of_plan(plan: Plan, origin: str) -> Layer:
    layer = {}
    for key, setting in plan.settings.items():
        for flat, value in layer_of({key: setting.value}, origin).items():
            layer[flat] = Value(value.value, origin, setting.reason)
    for stage in plan.stages:
        for key, value in stage.model_dump(exclude={"name", "selection"}, exclude_defaults=True).items():
            layer[f"stages.{stage.name}.{key}"] = Value(value, origin)
        for key, value in stage.selection.model_dump(exclude_defaults=True).items():
            layer[f"stages.{stage.name}.selection.{key}"] = Value(value, origin)
    return layer
