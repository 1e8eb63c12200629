"""From a draft to live objects that were checked to fit: one Run."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import torch
from torch import nn

from .base import Base
from .binding import bind_forward, bind_loss, bind_metric
from .config import short_names
from .conformity import asked
from .contracts import ChecksRun, PartialWeights
from .draft import Draft
from .errors import UsageError
from .events import resolve
from .fit import check_fit, monitored, names_read
from .live import BoundMetric, Run
from .parts import Part
from .randomness import Purpose, seed_torch
from .ranks.sharding import check_shardable, shard
from .ranks.sharing import check_dense
from .rates import rate_factors, scaling, with_factors
from .rundir import RunDirectory
from .settings import RunSettings
from .tasks import lacking
from .weights import check_whole


def compose(draft: Draft, directory: RunDirectory | None = None, listeners: Iterable[tuple[str, object]] = ()) -> Run:
    """Return the run of a draft: everything built, checked to fit, on its device, at its beginning.

    Args:
        draft: what was planned.
        directory: where the run is recorded; None for a run that leaves nothing behind.
        listeners: further (label, object) pairs that hear events, as a progress display.

    Raises:
        UsageError: parts that do not fit, with the names of those that would; or one that refuses the run.
        PluginError: a component that raises when it is created, or misspells an event.
    """
    settings, task = draft.settings, draft.task
    model = draft.fresh_model()
    # What follows draws from a stream of its own, whether the model was built just now or before.
    seed_torch(settings.seed, Purpose.MODEL, 1)
    inner: dict[str, Any] = {}
    loss = draft.parts["loss"].build(inner)
    made = {name: part.build(inner) for name, part in draft.lists["metric"].items()}
    metrics = [BoundMetric(name, made[full], bind_metric(made[full])) for full, name in short_names(made).items()]
    augmenters = {name: part.build(inner) for name, part in draft.lists["augmenter"].items()}
    check_fit(draft, loss, metrics, augmenters)
    adapter = draft.parts["adapter"].build(inner)
    base = None if lacking(adapter, PartialWeights) else Base(model)
    built = {id(parameter) for parameter in model.parameters()}
    with asked(f"adapter {draft.config['adapter.use']}", "adapt the model"):
        model = adapter(model).to(draft.engine.device)
    loss.to(draft.engine.device)
    if settings.parallel == "fsdp" and not draft.engine.world.is_alone:
        shard(model, draft.engine.device, draft.engine.world)
    _apply_model_settings(model, settings)
    learnable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    callbacks = {name: part.build(inner) for name, part in draft.lists["callback"].items()}
    groups = with_factors(parameter_groups(learnable, loss, model), rate_factors(callbacks.values(), list(learnable)))
    optimizer = scaling(partial(draft.parts["optimizer"].build, inner), groups)
    components = {
        "loss": loss,
        "optimizer": optimizer,
        "adapter": adapter,
        **{f"augmenter {name}": augmenter for name, augmenter in augmenters.items()},
        **{f"metric {bound.name}": bound.metric for bound in metrics},
        **{f"callback {name}": callback for name, callback in callbacks.items()},
    }
    # The task hears an event before all others.
    hearers = [(f"task {draft.config['task.use']}", task), *components.items(), *inner.items(), *listeners]
    monitor, mode = monitored(settings, metrics, draft)
    loss_names = set(task.gives) if hasattr(task, "gives") else None
    run = Run(
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
        make_scheduler=partial(_make_scheduler, draft.parts["scheduler"], optimizer),
        metrics=metrics,
        augmenters=tuple(augmenters.values()),
        components=components,
        events=resolve(hearers),
        call_model=bind_forward(task, model),
        call_loss=bind_loss(loss) if loss_names is None else bind_loss(loss).given(loss_names),
        predicts=any(names_read(bound.update) & set(task.predicts) for bound in metrics),
        monitor=monitor,
        monitor_mode=mode,
        learnable=learnable,
        added=frozenset(name for name, parameter in learnable.items() if id(parameter) not in built),
        base_rates=[float(group["lr"]) for group in optimizer.param_groups],
        scaler=draft.engine.scaler(),
        directory=directory,
        base=base,
    )
    check_whole(run)
    check_dense(run)
    if run.is_sharded:
        check_shardable(run)
    for label, component in components.items():
        if isinstance(component, ChecksRun):
            with asked(label, "check the run"):
                component.check_run(run)
    return run


def _make_scheduler(part: Part, optimizer: torch.optim.Optimizer, steps: int) -> torch.optim.lr_scheduler.LRScheduler:
    with warnings.catch_warnings():
        # The draft has its warnings: the schedule was checked before the run began.
        warnings.simplefilter("ignore", UserWarning)
        scheduler: torch.optim.lr_scheduler.LRScheduler = part.build(optimizer=optimizer, total_steps=steps)
    return scheduler


def _apply_model_settings(model: nn.Module, settings: RunSettings) -> None:
    if settings.loop.gradient_checkpointing:
        enable: Callable[[], None] | None = getattr(model, "activation_checkpointing_enable", None) or getattr(
            model, "gradient_checkpointing_enable", None
        )
        if enable is None:
            raise UsageError(
                "loop.gradient_checkpointing: this model does not offer it",
                why=f"{type(model).__name__} has no method gradient_checkpointing_enable",
                do="leave the setting out, or take a smaller loop.batch_size with loop.accumulate",
            )
        enable()
        # transformers lets the embeddings ask for a gradient, which only reentrant checkpoints need: with adapters in
        # the decoder alone, all of the encoder would be computed backwards for nothing.
        if (spare := getattr(model, "disable_input_require_grads", None)) is not None:
            spare()
    if settings.loop.compile:
        model.compile()
    model.train()


def parameter_groups(
    learnable: Mapping[str, nn.Parameter], loss: nn.Module, model: nn.Module | None = None
) -> list[dict[str, Any]]:
    """Return the optimizer's groups, of (name, parameter) pairs: what decays, and what does not.

    Matrices decay; vectors (biases, gains) and parameters of the loss do not. Tables of embeddings decay as well, in a
    group of their own: an optimizer for hidden matrices has to tell them apart.

    Args:
        learnable: the parameters of the model that learn, by name.
        loss: may have parameters, which get the prefix "loss".
        model: where the embeddings are found; None: there are none.
    """
    tables = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding | nn.EmbeddingBag)} if model else ()
    named: dict[str, list[tuple[str, nn.Parameter]]] = {"decay": [], "embedding": [], "no_decay": [], "loss": []}
    for name, p in learnable.items():
        named["no_decay" if p.ndim < 2 else "embedding" if id(p) in tables else "decay"].append((name, p))
    named["loss"] = [(f"loss.{name}", p) for name, p in loss.named_parameters() if p.requires_grad]
    groups: list[dict[str, Any]] = [{"name": name, "params": pairs} for name, pairs in named.items() if pairs]
    if not groups:
        raise UsageError("nothing learns: no parameter has requires_grad", do="take another adapter, as --adapter full")
    return [group | ({"weight_decay": 0.0} if group["name"] in ("no_decay", "loss") else {}) for group in groups]
