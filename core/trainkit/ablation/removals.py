"""What an ablation leaves out of a run, one part at a time, and what stands in its place; and what it cannot leave out.

A part's null is the least that a run can have in its place: of a list, as augmenters, its absence; of the other kinds
the component that `config.NULLS` names, with its defaults; of stages a single one of as many steps.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trainkit.binding import bind_loss
from trainkit.config import (
    DEFAULTS,
    NOTHING,
    NULLS,
    USE,
    Config,
    Layer,
    Value,
    default_layer,
    layer_of,
    merged,
    short_name,
    short_names,
)
from trainkit.errors import UsageError, did_you_mean
from trainkit.parts import Loader, Part
from trainkit.plan import Plan, Selection, Stage

if TYPE_CHECKING:
    from trainkit.draft import Draft

ORIGIN = "ablation"
STAGES = "stages"
LOSS, OPTIMIZER = "loss", "optimizer"


@dataclass(frozen=True)
class Removal:
    """Hold a run that lacks one part.

    Args:
        label: the part: its kind, of a list its kind and name, or 'stages'.
        component: what the run has there.
        null: what stands in its place.
        config: the settings of the run without it.
        plan: its plan.
    """

    label: str
    component: str
    null: str
    config: Config
    plan: Plan

    @property
    def replaces_loss(self) -> bool:
        """Return whether its losses are measured by another loss than those of the full run."""
        return self.label == LOSS


Kept = dict[str, str]


def removals_of(draft: Draft, live: Mapping[str, Any]) -> tuple[list[Removal], Kept]:
    """Return every run that lacks one part, and the reason for each part that stays.

    Args:
        draft: of the full run.
        live: objects that stand for names in its config.
    """
    found: list[Removal] = []
    kept: Kept = {"task": "it says what is learned"}
    for label, answer in (*_ones(draft, live), *_listed(draft), _stages(draft)):
        if isinstance(answer, Removal):
            found.append(answer)
        else:
            kept[label] = answer
    metrics = short_names(draft.config.listed("metric"))
    return found, kept | {f"metric/{name}": "it measures, and changes nothing" for name in metrics.values()}


def chosen(found: Sequence[Removal], kept: Mapping[str, str], only: Sequence[str]) -> list[Removal]:
    """Return those removals that a user asks for, by label or kind; all of them where nothing is asked for.

    Raises:
        UsageError: a name is that of no part of the run, or of one that stays; or nothing can be left out.
    """
    if not found:
        raise UsageError("there is nothing to ablate", why=in_words(kept), do="ablate a run with other parts")
    known = [*(removal.label for removal in found), *kept]
    for name in only:
        if any(_is_named(removal.label, name) for removal in found):
            continue
        reasons = {label: reason for label, reason in kept.items() if _is_named(label, name)}
        if reasons:
            raise UsageError(f"{name} cannot be ablated", where="--only", why=in_words(reasons))
        raise UsageError(
            f"this run has no part named '{name}'{did_you_mean(name, known)}",
            where="--only",
            why=f"it has {', '.join(known)}",
        )
    return [removal for removal in found if not only or any(_is_named(removal.label, name) for name in only)]


def in_words(kept: Mapping[str, str]) -> str:
    """Return parts that stay with their reasons, as one text."""
    return "; ".join(f"{label}: {reason}" for label, reason in kept.items())


def _is_named(label: str, name: str) -> bool:
    return name in (label, label.partition("/")[0])


def _ones(draft: Draft, live: Mapping[str, Any]) -> Iterator[tuple[str, Removal | str]]:
    loader = Loader(draft.registry, live)
    for kind in NULLS:
        part, named = draft.parts[kind], short_name(str(draft.config[kind + USE]))
        null, given = _null(draft, loader, kind)
        if null is None:
            yield kind, f"neither {NULLS[kind]} nor the task's default fits the task"
        elif null.component.name == part.component.name and (kind == OPTIMIZER or null.options == part.options):
            yield kind, f"{named} is what others are held against"
        else:
            layer = layer_of(given, ORIGIN)
            config = _changed(draft.config, layer, without=kind)
            plain = "plain " if null.component.name == part.component.name else ""
            yield kind, Removal(kind, named, f"{plain}{given[kind + USE]}", config, draft.plan)


def _null(draft: Draft, loader: Loader, kind: str) -> tuple[Part | None, dict[str, Any]]:
    """Return the part that stands for nothing of a kind, and its settings; no part where none fits."""
    if kind == OPTIMIZER:
        given = _proposed(draft, kind)
        return _part(loader, kind, given), given
    candidates = [{kind + USE: NULLS[kind]}]
    if kind == LOSS:
        defaults = {key: value for key, value in draft.situation.defaults.items() if key.startswith(f"{LOSS}.")}
        candidates += [{LOSS + USE: DEFAULTS[LOSS + USE]} | defaults]
    for given in candidates:
        part = _part(loader, kind, given)
        if kind != LOSS or _fits(draft, part):
            return part, given
    return None, {}


def _part(loader: Loader, kind: str, given: Mapping[str, Any]) -> Part:
    return loader.part(kind, merged([layer_of(given, ORIGIN)]))


def _proposed(draft: Draft, kind: str) -> dict[str, Any]:
    """Return the null of a kind with the options that task and strategy propose for it: a rate has no null."""
    settings = {key: setting.value for key, setting in draft.plan.settings.items()}
    below = merged([default_layer(), layer_of(draft.situation.defaults, ""), layer_of(settings, "")])
    name = NULLS[kind]
    options = below.options(kind) if below[kind + USE] == name else {}
    return {kind + USE: name} | {f"{kind}.{option}": value for option, value in options.items()}


def _fits(draft: Draft, loss: Part) -> bool:
    """Return whether the task gives what a loss reads; one that does not say what it gives fits all."""
    if not hasattr(draft.task, "gives"):
        return True
    return not bind_loss(loss.build()).missing(set(draft.task.gives) - set(draft.task.predicts))


def _listed(draft: Draft) -> Iterator[tuple[str, Removal | str]]:
    for kind in ("augmenter", "callback"):
        for full, name in short_names(draft.lists[kind]).items():
            label = f"{kind}/{name}"
            # A component says so itself; what it says is checked by the conformance tests of its kind.
            if kind == "callback" and getattr(draft.lists[kind][full].build(), "only_observes", False):
                yield label, "it observes, and changes nothing"
                continue
            rest = [other for other in draft.lists[kind] if other != full]
            layer = {kind: Value([NOTHING, *rest], ORIGIN)}
            yield label, Removal(label, name, "nothing", _changed(draft.config, layer), draft.plan)


def _stages(draft: Draft) -> tuple[str, Removal | str]:
    stages = [planned.stage for planned in draft.stages]
    if len(stages) == 1 and _is_plain(stages[0]):
        return STAGES, "there is one alone, of all samples and weights"
    # As many steps as all stages together have, so that none of the two learns for longer.
    plan = draft.plan.model_copy(update={"stages": (Stage(steps=draft.total_steps),)})
    layer = {"loop.epochs": Value(None, ORIGIN, "the one stage has its length in steps")}
    names = ", ".join(stage.name for stage in stages)
    return STAGES, Removal(STAGES, names, "one stage", _changed(draft.config, layer, without=STAGES), plan)


def _is_plain(stage: Stage) -> bool:
    return (stage.selection, stage.trainable, stage.lr_factor) == (Selection(), ("*",), 1.0)


def _changed(config: Config, layer: Layer, without: str = "") -> Config:
    """Return a copy of a config with a layer on top, and without what stood below a name."""
    copy = Config.from_document(config.document())
    for key in [key for key in copy.history if without and key.startswith(f"{without}.")]:
        del copy.history[key]
    copy.add(layer)
    return copy
