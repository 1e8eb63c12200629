"""From a config to a plan: names are loaded, options checked, data read, the strategy asked. Nothing is trained yet."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from pydantic import ValidationError

from . import engine as engines
from .config import LIST_KINDS, ONE_KINDS, Config, Layer, Value, default_layer, layer_of
from .errors import PluginError, UsageError, unknown_key, wrong_value
from .plan import ParameterGroup, Plan, Selection, Situation, Stage, StageLength, admitted, stage_length
from .settings import RunSettings, check_settings

if TYPE_CHECKING:
    from .component import Component
    from .contracts import Dataset, Splits, Task
    from .registry import Registry

FALLBACK_STRATEGY = "baseline"


@dataclass(frozen=True)
class Part:
    """Hold a loaded component with its checked options."""

    component: Component
    options: dict[str, Any]

    def build(self, **runtime: Any) -> Any:
        """Return the live object."""
        return self.component.build(self.options, **runtime)


@dataclass(frozen=True)
class PlannedStage:
    """Hold a stage with its length on this data."""

    stage: Stage
    length: StageLength
    first_step: int
    first_epoch: int

    @property
    def last_step(self) -> int:
        """Return the step at which the stage is over."""
        return self.first_step + self.length.steps


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

    @property
    def total_steps(self) -> int:
        """Return the number of optimizer steps of the whole run."""
        return self.stages[-1].last_step


def make_draft(user: Sequence[Layer], registry: Registry, live: Mapping[str, Any] | None = None) -> Draft:
    """Return the draft of a run.

    Args:
        user: what the user asked for, lowest layer first; the defaults, the task's and the strategy's go below.
        registry: where names become components.
        live: objects that stand for names in the layers, by the name they have there.

    Raises:
        TrainkitError: whatever is wrong with the request, the plugins or the data.
    """
    loader = _Loader(registry, live or {})
    below = [default_layer()]
    config = merged([*below, *user])
    task_part = loader.part("task", config)
    task: Task = task_part.build()
    below.append(layer_of(task.defaults, f"task {config['task.use']}"))
    config = merged([*below, *user])
    settings = check_settings(config)
    engine = engines.start(settings.device, settings.precision, settings.deterministic, settings.threads)
    splits = _read(task, settings)
    situation = _situation(task, splits, engine)
    choice = _chosen_strategy(loader, config, situation)
    config.history["strategy.use"].append(choice)
    plan: Plan = loader.part("strategy", config).build().plan(situation)
    config = merged([*below, _layer_of_plan(plan, f"strategy {choice.value}"), *user])
    config.history["strategy.use"].append(choice)
    settings = check_settings(config)
    if loader.part("task", config).options != task_part.options:
        task = loader.part("task", config).build()
        splits = _read(task, settings)
    return _draft(config, settings, loader, engine, task, splits, situation, plan)


def restore_draft(config: Config, plan: Plan, registry: Registry, live: Mapping[str, Any] | None = None) -> Draft:
    """Return the draft of a run that exists: its config and plan stand, nobody is asked again."""
    loader = _Loader(registry, live or {})
    settings = check_settings(config)
    engine = engines.start(settings.device, settings.precision, settings.deterministic, settings.threads)
    task: Task = loader.part("task", config).build()
    splits = _read(task, settings)
    return _draft(config, settings, loader, engine, task, splits, _situation(task, splits, engine), plan)


def _draft(
    config: Config,
    settings: RunSettings,
    loader: _Loader,
    engine: engines.Engine,
    task: Task,
    splits: Splits,
    situation: Situation,
    plan: Plan,
) -> Draft:
    config.check_lists()
    parts = {kind: loader.part(kind, config) for kind in ONE_KINDS}
    lists = {kind: loader.listed(kind, config) for kind in LIST_KINDS}
    stages = plan_stages(_overridden(plan, config).stages, settings, splits.train)
    return Draft(config, settings, engine, task, splits, situation, plan, stages, parts, lists, loader.registry)


@dataclass(frozen=True)
class _Loader:
    registry: Registry
    live: Mapping[str, Any]

    def part(self, kind: str, config: Config) -> Part:
        """Load the only component of a kind and check its options."""
        component = self.load(kind, config[f"{kind}.use"])
        return Part(component, component.validate(config.options(kind), partial(_origin, config, kind)))

    def listed(self, kind: str, config: Config) -> dict[str, Part]:
        """Load the components of a list kind and check their options."""
        found = {}
        for name in config.listed(kind):
            component = self.load(kind, name)
            options = config.options(kind, name)
            origin = partial(_origin, config, f"{kind}.{name}")
            found[name] = Part(component, component.validate(options, origin))
        return found

    def load(self, kind: str, name: Any) -> Component:
        """Load a component by name, or the live object that has this name."""
        if not isinstance(name, str):
            raise UsageError(f"{kind}: a name is needed (got {name!r})", do=f"trainkit plugins --kind {kind}")
        return self.registry.load(kind, self.live.get(name, name))


def _origin(config: Config, prefix: str, option: str) -> str:
    return config.origin(f"{prefix}.{option}")


def merged(layers: Sequence[Layer]) -> Config:
    """Return the config of layers, lowest first."""
    config = Config()
    for layer in layers:
        config.add(layer)
    return config


def _read(task: Task, settings: RunSettings) -> Splits:
    path = Path(settings.data).expanduser() if settings.data is not None else None
    splits = task.read(path, settings.seed)
    task.fit(splits.train)
    return splits


def _situation(task: Task, splits: Splits, engine: engines.Engine) -> Situation:
    return Situation(
        train_samples=len(splits.train),
        val_samples=len(splits.val) if splits.val is not None else 0,
        test_samples=len(splits.test) if splits.test is not None else 0,
        device=engine.device.type,
        devices=torch.cuda.device_count() if engine.is_cuda else 1,
        cores=os.cpu_count() or 1,
        memory_bytes=engines.memory_bytes(engine.device),
        parameter_groups=_parameter_groups(task),
        has_difficulty=getattr(splits.train, "difficulty", None) is not None,
        has_quality=getattr(splits.train, "quality", None) is not None,
    )


def _parameter_groups(task: Task) -> tuple[ParameterGroup, ...]:
    # On the meta device a model has shapes but no weights: counting costs no memory.
    with torch.device("meta"):
        model = task.build_model()
    counts: dict[str, int] = {}
    for name, parameter in model.named_parameters():
        part = name.partition(".")[0]
        counts[part] = counts.get(part, 0) + parameter.numel()
    return tuple(ParameterGroup(name=name, parameters=count) for name, count in counts.items())


def _chosen_strategy(loader: _Loader, config: Config, situation: Situation) -> Value:
    if config["strategy.use"] != "auto":
        return config.history["strategy.use"][-1]
    name, reason = choose_strategy(loader, situation.train_samples)
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


def choose_strategy(loader: _Loader, samples: int) -> tuple[str, str]:
    """Return the installed strategy whose range holds this many samples (of several the narrowest), and the reason."""
    fitting = []
    for name in loader.registry.names("strategy"):
        try:
            target = loader.load("strategy", name).target
        except PluginError:
            # A strategy that nobody named and that does not load is no reason to stop; 'trainkit plugins' shows it.
            continue
        if (span := getattr(target, "samples", None)) is not None and _holds(span, samples):
            fitting.append((math.inf if span[1] is None else span[1] - span[0], name, span))
    if not fitting:
        return FALLBACK_STRATEGY, f"no installed strategy declares a range that holds {samples} training samples"
    fitting.sort()
    width, name, span = fitting[0]
    if len(fitting) > 1 and fitting[1][0] == width:
        raise UsageError(
            f"strategies {name} and {fitting[1][1]} both declare the range {_range_text(span)}",
            do=f"choose one: --strategy {name}",
        )
    return name, f"{samples} training samples lie in its range, {_range_text(span)}"


def _holds(span: tuple[int, int | None], samples: int) -> bool:
    return span[0] <= samples and (span[1] is None or samples <= span[1])


def _range_text(span: tuple[int, int | None]) -> str:
    return f"{span[0]:,} and more" if span[1] is None else f"{span[0]:,} to {span[1]:,}"


def _overridden(plan: Plan, config: Config) -> Plan:
    """Return the plan with the user's `stages.NAME.key` in place of the strategy's."""
    stages = {stage.name: stage for stage in plan.stages}
    for key in config:
        first, _, rest = key.partition(".")
        if first != "stages":
            continue
        name, _, option = rest.partition(".")
        if name not in stages:
            raise unknown_key(key, [f"stages.{stage}" for stage in stages], config.origin(key))
        if option not in Stage.model_fields and not option.startswith("selection."):
            raise unknown_key(key, [f"stages.{name}.{field}" for field in Stage.model_fields], config.origin(key))
        stages[name] = _changed(stages[name], option, config[key], key, config.origin(key))
    return plan.model_copy(update={"stages": tuple(stages.values())})


def _changed(stage: Stage, option: str, value: Any, key: str, origin: str) -> Stage:
    data = stage.model_dump()
    if option.startswith("selection."):
        data["selection"][option.partition(".")[2]] = value
    else:
        data[option] = value
    if option in ("epochs", "steps") and value is not None:
        data["steps" if option == "epochs" else "epochs"] = None
    try:
        return Stage.model_validate(data)
    except ValidationError as error:
        raise wrong_value(key, value, error.errors()[0]["msg"].lower(), origin) from None


def plan_stages(stages: tuple[Stage, ...], settings: RunSettings, train: Dataset) -> tuple[PlannedStage, ...]:
    """Return the stages with their lengths: scaled to loop.epochs, cut at loop.max_steps."""
    loop = settings.loop
    if loop.epochs is not None:
        stages = scale_epochs(stages, loop.epochs)
    quality = getattr(train, "quality", None)
    planned: list[PlannedStage] = []
    step = epoch = 0
    for stage in stages:
        samples = admitted(_known(stage.selection, train), len(train), quality)
        length = stage_length(stage, samples, loop.variants, loop.batch_size, loop.accumulate)
        if loop.max_steps is not None and step + length.steps > loop.max_steps:
            steps = loop.max_steps - step
            length = length.model_copy(update={"steps": steps, "epochs": math.ceil(steps / length.steps_per_epoch)})
        if length.steps > 0:
            planned.append(PlannedStage(stage, length, step, epoch))
        step, epoch = step + length.steps, epoch + length.epochs
    return tuple(planned)


def _known(selection: Selection, train: Dataset) -> Selection:
    """Return the selection without what the data cannot tell."""
    without: dict[str, Any] = {}
    if getattr(train, "difficulty", None) is None:
        without["easiest"] = 1.0
    if getattr(train, "quality", None) is None:
        without["min_quality"] = None
    return selection.model_copy(update=without)


def scale_epochs(stages: tuple[Stage, ...], epochs: int) -> tuple[Stage, ...]:
    """Return stages that together last `epochs` epochs, each in proportion; one that rounds to nothing falls out."""
    lengths = [stage.epochs or 0 for stage in stages]
    total = sum(lengths)
    if total == 0:
        return tuple(stage.model_copy(update={"steps": None, "epochs": epochs}) for stage in stages[:1])
    scaled, done = [], 0
    for stage, end in zip(stages, (sum(lengths[: i + 1]) for i in range(len(lengths))), strict=True):
        share = math.floor(end * epochs / total + 0.5) - done
        done += share
        if share > 0:
            scaled.append(stage.model_copy(update={"epochs": share, "steps": None}))
    return tuple(scaled)
