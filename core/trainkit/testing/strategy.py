"""Checks of strategies: a plan for every situation in their range, made of settings that exist."""

from __future__ import annotations

import math
from collections.abc import Iterator

from trainkit.config import default_layer, layer_of, merged
from trainkit.kinds import LIST_KINDS, ONE_KINDS
from trainkit.parts import Loader
from trainkit.plan import ParameterGroup, Plan, Situation, Technique
from trainkit.registry import Registry
from trainkit.settings import check_settings

from .component import ComponentConformance

LARGEST = 10_000_000
TECHNIQUES = (
    "few-shot", "unfreezing", "variance-aware", "dropout", "experts", "modality-weighting", "multi-scale", "guidance",
    "label-smoothing", "stochastic-depth", "feature-noise", "dynamic-weighting",
)  # fmt: skip


class StrategyConformance(ComponentConformance):
    """Check a strategy."""

    kind = "strategy"

    def situations(self) -> Iterator[Situation]:
        """Yield situations over the range of samples: with and without a GPU, with a task that offers all or nothing.

        A task that offers all has difficulty, quality, an augmenter, a batch size of its own and every technique, by
        options `task.TECHNIQUE`.
        """
        low, high = self.build().samples or (1, LARGEST)
        high = LARGEST if high is None else high
        powers = [2**k for k in range(int(math.log2(LARGEST)) + 1)]
        counts = sorted({max(low, 1), low + 1, (low + high) // 2, high, *(n for n in powers if low <= n <= high)})
        techniques = {
            name: Technique(settings={f"task.{name}": 0.1}, strength=f"task.{name}", trainable=(f"{name}.*",))
            for name in TECHNIQUES
        }
        groups = (ParameterGroup(name="encoder", parameters=80_000), ParameterGroup(name="head", parameters=20_000))
        for samples in (n for n in counts if low <= n <= high):
            for device in ("cpu", "cuda"):
                for told in (False, True):
                    yield Situation(
                        train_samples=samples,
                        val_samples=max(1, samples // 10),
                        device=device,
                        cores=2,
                        parameter_groups=groups,
                        has_difficulty=told,
                        has_quality=told,
                        half_precision="bf16" if device == "cuda" else None,
                        has_augmenter=told,
                        defaults={"loop.batch_size": 32} if told else {},
                        techniques=techniques if told else {},
                    )

    def plans(self) -> Iterator[Plan]:
        """Yield a fresh strategy's plan for each situation."""
        strategy = self.build()
        for situation in self.situations():
            plan = strategy.plan(situation)
            assert isinstance(plan, Plan), f"a Plan is expected, not {type(plan).__name__}"
            yield plan

    def test_range_is_a_range(self) -> None:
        """`samples` is None or (smallest, largest), on the class itself, so that auto can ask without building it."""
        samples = self.load().target.samples
        assert samples is None or (samples[0] >= 0 and (samples[1] is None or samples[0] <= samples[1]))
        assert samples == self.build().samples

    def test_plans_every_situation_of_its_range(self) -> None:
        """For every number of samples in its range there is a plan under its own name; stages differ in name."""
        for plan in self.plans():
            assert plan.strategy == self.component
            names = [stage.name for stage in plan.stages]
            assert len(set(names)) == len(names), f"two stages share a name: {names}"

    def test_is_a_function_of_the_situation(self) -> None:
        """Asked twice, it answers the same."""
        assert list(self.plans()) == list(self.plans())

    def test_plan_survives_json(self) -> None:
        """The plan comes back from JSON as it was."""
        for plan in self.plans():
            stored = Plan.model_validate_json(plan.model_dump_json())
            assert stored.model_dump(mode="json") == plan.model_dump(mode="json")

    def test_settings_have_reasons(self) -> None:
        """Each setting says why."""
        for plan in self.plans():
            mute = [key for key, setting in plan.settings.items() if len(setting.reason.split()) < 2]
            assert not mute, f"no reason for {', '.join(mute)}"

    def test_settings_exist(self) -> None:
        """Every setting is one of the run's, or an option of a component that the plan names; its value is valid."""
        loader = Loader(Registry(), {})
        for plan in self.plans():
            proposed = layer_of({key: setting.value for key, setting in plan.settings.items()}, "plan")
            config = merged([default_layer(), proposed])
            check_settings(config)
            config.check_lists()
            for kind in ONE_KINDS:
                # The options of a task are those that its techniques name.
                if config.options(kind) and kind != "task":
                    assert f"{kind}.use" in proposed, f"the plan sets {kind} options but names no {kind}"
                    loader.part(kind, config)
            for kind in LIST_KINDS:
                loader.listed(kind, config)

    def test_chooses_no_strategy_and_no_task(self) -> None:
        """A plan neither names a strategy nor a task, which were chosen before it was asked, nor sets their options.

        Options of the task that a technique of the situation names are what it may set.
        """
        offered = {f"task.{name}" for name in TECHNIQUES}
        for plan in self.plans():
            keys = {key for key in plan.settings if key.partition(".")[0] in ("strategy", "task")}
            assert keys <= offered, f"no technique of the situation names {', '.join(sorted(keys - offered))}"
