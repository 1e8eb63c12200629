"""A run's state as tensors and JSON, and back: what a checkpoint holds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .checkpoint import Checkpoint, Snapshot
from .contracts import Stateful
from .errors import CheckpointError
from .evaluation import switch_weights
from .ranks.sharding import by_name, cut_names, optimizer_state, whole
from .ranks.states import own_states, state_of_rank
from .storage.statetree import flatten, unflatten
from .weights import load_weights, saved_weights, small_files, weights_file

if TYPE_CHECKING:
    from .live import Run

EVALUATION_EVENTS = ("before_evaluation", "swap_weights_in")


def take_snapshot(run: Run) -> Snapshot:
    """Return the whole state of a run: weights, optimizer, schedule, counters, components, what the task learned.

    Where weights are averaged the average is in place: whoever loads the weights gets those to use.
    """
    weights, learned = saved_weights(run), run.optimizer.state_dict()
    if run.is_sharded:
        weights, learned = whole(weights), whole(learned)
    optimizer, optimizer_tensors = flatten(learned)
    state, state_tensors = flatten(_state(run))
    if run.metrics_file is not None:
        # The checkpoint counts on the rows up to its offset: a power cut must not take them.
        run.metrics_file.sync()
    base = {} if run.base is None else {"base": run.base.fingerprint}
    return Snapshot(
        step=run.moment.step,
        tensors={
            weights_file(run): weights,
            "optimizer.safetensors": optimizer_tensors,
            "state.safetensors": state_tensors,
        },
        documents={
            "optimizer.json": optimizer,
            "state.json": state,
            "task.json": run.task.state_dict(),
        },
        facts={
            "step": run.moment.step,
            "epoch": run.moment.epoch,
            "samples": run.moment.samples,
            "metrics_offset": run.metrics_file.offset if run.metrics_file is not None else 0,
            "data": run.splits.fingerprint,
            **base,
            **({} if run.world.is_alone else {"ranks": run.world.size}),
        },
        files=small_files(run),
    )


def restore(run: Run, checkpoint: Checkpoint, state: dict[str, Any]) -> None:
    """Put a checkpoint, of which `saved_state` gave the state, into a freshly composed run that has entered its stage.

    Raises:
        CheckpointError: the state is of other components, another model or other data.
    """
    check_data(run, checkpoint)
    load_weights(run, checkpoint, state)
    _restore_optimizer(run, checkpoint, state)
    if run.scheduler is not None:
        run.scheduler.load_state_dict(state["scheduler"])
    if run.scaler is not None:
        run.scaler.load_state_dict(state["scaler"])
    kept = stateful(run)
    if set(kept) != set(state["components"]):
        raise CheckpointError(
            "the components that keep state are not those of the checkpoint",
            why=f"checkpoint: {', '.join(state['components'])}; now: {', '.join(kept)}",
            do="resume with the components, and the versions, that the run was started with",
        )
    states = state_of_rank(run.world, state)
    if run.is_sharded:
        states = by_name(states, run.learnable)
    for label, component in kept.items():
        component.load_state_dict(states[label])
    switch_weights(run, training=True)
    run.moment.load_state_dict(state["moment"])
    if run.world.is_first:
        # What all ranks had gathered is rank 0's now.
        run.gathered.load_state_dict(state["gathered"])
    if "inactive" in state:
        run.inactive.load_state_dict(state["inactive"])
    run.best.load_state_dict(state["best"])
    run.stop_reason = state["stop_reason"]
    run.stage_reasons = state["stage_reasons"]


def check_data(run: Run, checkpoint: Checkpoint) -> None:
    """Raise CheckpointError if the run's data is not what the checkpoint was made from."""
    if checkpoint.facts.get("data") != run.splits.fingerprint:
        raise CheckpointError(
            "the data is not what the run was trained on",
            where=run.splits.source,
            why="its fingerprint differs from the one in the checkpoint",
            do="put the data back as it was, or start a new run",
        )


def restore_weights(run: Run, checkpoint: Checkpoint, state: dict[str, Any]) -> None:
    """Put into a run what an evaluation depends on: the weights, and the state of what takes part in an evaluation.

    That is the loss, a component that takes part in evaluations or swaps weights for them, and an optimizer that
    averages weights itself. What is in place are the weights that are evaluated.

    Raises:
        CheckpointError: the weights are of another model or of other data.
    """
    check_data(run, checkpoint)
    load_weights(run, checkpoint, state)
    if hasattr(run.optimizer, "eval"):
        _restore_optimizer(run, checkpoint, state)
    saved = by_name(state["components"], run.learnable) if run.is_sharded else state["components"]
    for label, component in stateful(run).items():
        takes_part = label == "loss" or any(hasattr(component, event) for event in EVALUATION_EVENTS)
        if label in saved and takes_part:
            component.load_state_dict(saved[label])


def _restore_optimizer(run: Run, checkpoint: Checkpoint, saved: dict[str, Any]) -> None:
    state = unflatten(checkpoint.document("optimizer.json"), checkpoint.tensors("optimizer.safetensors"))
    run.optimizer.load_state_dict(optimizer_state(run, state, saved.get("sharded")) if run.is_sharded else state)


def saved_state(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return all of a checkpoint's state but weights and optimizer: moment, schedule, components."""
    state: dict[str, Any] = unflatten(checkpoint.document("state.json"), checkpoint.tensors("state.safetensors"))
    return state


def _state(run: Run) -> dict[str, Any]:
    components = {label: component.state_dict() for label, component in stateful(run).items()}
    if run.is_sharded:
        components = whole(components)
    of_ranks = {} if run.world.is_alone else {"ranks": own_states(run.world, components)}
    return {
        "moment": run.moment.state_dict(),
        "best": run.best.state_dict(),
        "gathered": run.gathered.state_dict(run.world),
        "inactive": run.inactive.state_dict(),
        "scheduler": run.scheduler.state_dict() if run.scheduler is not None else {},
        "scaler": run.scaler.state_dict() if run.scaler is not None else {},
        "components": components,
        **of_ranks,
        **({"sharded": cut_names(run.optimizer.state_dict())} if run.is_sharded else {}),
        "stop_reason": run.stop_reason,
        "stage_reasons": run.stage_reasons,
        **({} if run.base is None else {"buffers": run.base.buffers()}),
    }


def stateful(run: Run) -> dict[str, Stateful]:
    """Return the components whose state is the checkpoint's business; a metric's is that of one evaluation."""
    return {
        label: component
        for label, component in run.components.items()
        if label != "optimizer" and not label.startswith("metric ") and isinstance(component, Stateful)
    }
