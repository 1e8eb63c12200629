"""What cross-validation will carry out: a run for each fold, then one on all samples; sizes, steps and seconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from trainkit.config import Config, Layer, layer_of
from trainkit.costs.ahead import ahead
from trainkit.draft import read_splits
from trainkit.moment import Moment
from trainkit.narrowing import narrowing_callbacks
from trainkit.stages import plan_stages, with_overrides
from trainkit.tasks import build_task

from .fold import Fold, cut, cuts_itself, fold_layer, identity_warning, lengths, names_of, read_fold

if TYPE_CHECKING:
    from trainkit.costs.cost import Cost
    from trainkit.draft import Draft

FOLDS, FINAL = "folds", "final"
ORIGIN = "folds"


@dataclass(frozen=True)
class PlannedFold:
    """Hold one of the runs of a cross-validation.

    Args:
        fold: what it validates on; all samples for the last one, which validates on none.
        samples: how many it has, by split.
        steps: optimizer steps of the plan on them; the last one may end sooner.
        settings: what sets it apart from the other ones, by dotted key.
        validates_on: names of the samples, where the core cut them.
    """

    fold: Fold
    samples: Mapping[str, int]
    steps: int
    settings: Mapping[str, Any]
    validates_on: Sequence[str] = field(default=(), repr=False)

    @property
    def is_final(self) -> bool:
        """Return whether it trains on all samples."""
        return self.fold.count == 1

    @property
    def folder(self) -> str:
        """Return where it is below the run directory."""
        return FINAL if self.is_final else f"{FOLDS}/{self.fold.number}"

    @property
    def name(self) -> str:
        """Return what it is called in messages."""
        return FINAL if self.is_final else f"fold {self.fold}"

    def layer(self) -> Layer:
        """Return its settings as a layer."""
        return layer_of(self.settings, ORIGIN)

    def document(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {
            "fold": str(self.fold),
            "directory": self.folder,
            "samples": dict(self.samples),
            "steps": self.steps,
            "settings": dict(self.settings),
            "validates_on": list(self.validates_on),
        }

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> PlannedFold:
        """Return what `document` gave."""
        fold = Fold.of(document["fold"])
        known = {name: document[name] for name in ("samples", "steps", "settings", "validates_on")}
        return cls(fold, **known)


@dataclass(frozen=True)
class FoldPlan:
    """Hold all runs of a cross-validation, in their order.

    Args:
        folds: the runs.
        warnings: what a user should know about the cut.
    """

    folds: Sequence[PlannedFold]
    warnings: Sequence[str] = ()

    def seconds(self, draft: Draft, cost: Cost) -> float:
        """Return a forecast of all runs together from the measured cost of the one that a draft plans.

        A fold that is over answers its validation samples once more.
        """
        found = 0.0
        for planned in self.folds:
            left = ahead(draft.stages, Moment(), draft.settings.evaluate, planned.samples)
            looked_at = left.samples + planned.samples.get("val", 0)
            found += planned.steps * cost.seconds_per_step + cost.saving
            found += looked_at * cost.seconds_per_sample + left.rounds * cost.seconds_per_evaluation
        return found


def plan_folds(draft: Draft, live: Mapping[str, Any] | None = None) -> FoldPlan:
    """Return what the cross-validation of a draft will carry out; a task that cuts itself reads each fold.

    Args:
        draft: of the run as a whole, with `folds` in its settings.
        live: objects that stand for names in its config.

    Raises:
        DataError: there are fewer samples than folds, or a fold has too few.
    """
    settings = draft.settings
    count = settings.folds or 1
    wanted = [*(Fold(number, count) for number in range(1, count + 1)), *([Fold(1, 1)] if settings.refit else [])]
    stages = with_overrides(draft.plan, draft.config).stages
    narrowing = narrowing_callbacks(draft.lists["callback"].items())
    own = cuts_itself(draft.task)
    made = None if own else cut(draft.splits, count, settings.seed)
    planned = []
    for fold in wanted:
        layer = fold_layer(draft.task, fold, ORIGIN)
        if made is None:
            task = build_task(with_layer(draft.config, layer), draft.registry, live or {})
            splits = read_fold(read_splits(task, settings), str(fold), task, settings.seed)
        else:
            splits = made.of(fold)
        steps = plan_stages(stages, settings, splits.train, narrowing)[-1].last_step
        names = names_of(splits.val) if made is not None and splits.val is not None else ()
        own_settings = {key: value.value for key, value in layer.items()}
        planned.append(PlannedFold(fold, lengths(splits), steps, own_settings, names))
    return FoldPlan(planned, identity_warning(made.identical) if made is not None else ())


def with_layer(config: Config, layer: Layer) -> Config:
    """Return a copy of a config with a layer on top."""
    copy = Config.from_document(config.document())
    copy.add(layer)
    return copy
