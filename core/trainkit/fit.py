"""Whether parts fit: what is read must be given, and what is monitored must be measured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from .binding import Binding, bind_loss, bind_metric
from .errors import parts_do_not_fit, unknown_key
from .parts import Loader

if TYPE_CHECKING:
    from torch import nn

    from .config import Config
    from .contracts import Augmenter
    from .draft import Draft
    from .live import BoundMetric
    from .settings import RunSettings


def monitored(settings: RunSettings, metrics: Sequence[BoundMetric], draft: Draft) -> tuple[str, str]:
    """Return the monitored tag and whether it should fall ('min') or rise ('max')."""
    tag = settings.evaluate.monitor
    check_tag(tag, [bound.name for bound in metrics], draft.config, "evaluate.monitor")
    if settings.evaluate.mode != "auto":
        return tag, settings.evaluate.mode
    return tag, direction(tag, metrics)


def check_tag(tag: str, metrics: Iterable[str], config: Config, key: str) -> None:
    """Refuse a tag, which stands at a key of the config, that is neither of the loss nor of one of these metrics."""
    split, _, owner = tag.partition("/")
    names = list(metrics)
    if split != "val" or owner.partition("/")[0] not in ("loss", *names):
        known = ["val/loss", *(f"val/{name}" for name in names)]
        raise unknown_key(tag, known, f"{key}, {config.origin(key)}")


def direction(tag: str, metrics: Sequence[BoundMetric]) -> str:
    """Return whether the value of a tag should fall ('min'), as losses do, or rise ('max'), as its metric tells."""
    owner = tag.split("/")[1]
    rises = any(bound.name == owner and getattr(bound.metric, "higher_is_better", False) for bound in metrics)
    return "max" if rises else "min"


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
            live = Loader(draft.registry, {}).default(kind, name).build()
            reads = set(live.reads) if kind == "augmenter" else {value for _, value in binders[kind](live).required}
        except Exception:  # noqa: S112 - one that cannot be built with its defaults is no suggestion
            continue
        if reads <= gives:
            names.append(name)
    return names


def names_read(binding: Binding) -> set[str]:
    """Return every name that a call reads, needed or not."""
    return {value for _, value in (*binding.required, *binding.optional)}
