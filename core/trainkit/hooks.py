"""The hook specifications: one per kind of component, one per event of a run. The contract, on one page.

A plugin is a module with one implementation of the hook of its kind::

    from trainkit import hookimpl

    @hookimpl
    def trainkit_optimizer():
        from .lion import Lion      # heavy imports stay inside: naming the component pays for them, listing does not
        return Lion

The hook answers with a *target*: a class or a factory. Its keyword parameters are the component's options. What the
core passes in itself is not an option; the table RUNTIME_PARAMETERS says what that is for each kind.

Any live component may also implement any event. The order of events in a run::

    on_run_start
      on_stage_start
        on_epoch_start, select_samples
          on_loss              each micro-batch, before its backward pass
          on_gradients         once a step: unscaled, normalised and clipped
          on_step              optimizer and scheduler have stepped; run.moment.step counts this step
          on_log               at the logging interval
          before_evaluation, swap_weights_in, swap_weights_out, after_evaluation
          on_pictures, on_texts  when a component shows something
          on_checkpoint        the checkpoint is durable; weights were swapped in and out when it was taken
        on_epoch_end
      on_stage_end
    on_run_end
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pluggy

from .kinds import KINDS as KINDS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import numpy as np
    from torch import Tensor

    from .contracts import Batch, LossOutput, Outputs
    from .live import Run
    from .plan import Stage

PROJECT = "trainkit"
API_VERSION = 1
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)

RUNTIME_PARAMETERS: dict[str, tuple[str, ...]] = {
    "strategy": (),
    "task": (),
    "loss": (),
    "augmenter": (),
    "optimizer": ("params",),
    "scheduler": ("optimizer", "total_steps"),
    "metric": (),
    "adapter": (),
    "callback": (),
}


class KindHooks:
    """Name the hook of every kind. Each answers with a target: a class, or a factory that returns an object."""

    @hookspec
    def trainkit_strategy(self) -> Callable[..., Any]:
        """Return a strategy: `plan(situation) -> Plan`, and `samples`, the range of training samples it suits."""
        raise NotImplementedError

    @hookspec
    def trainkit_task(self) -> Callable[..., Any]:
        """Return a task: what is learned. It reads data, builds the model, makes batches and predictions."""
        raise NotImplementedError

    @hookspec
    def trainkit_loss(self) -> Callable[..., Any]:
        """Return a loss: an `nn.Module` whose forward parameters name what it reads and which returns a LossOutput."""
        raise NotImplementedError

    @hookspec
    def trainkit_augmenter(self) -> Callable[..., Any]:
        """Return an augmenter: called with (sample, generator), it returns a sample and leaves its input whole."""
        raise NotImplementedError

    @hookspec
    def trainkit_optimizer(self) -> Callable[..., Any]:
        """Return a `torch.optim.Optimizer`; the core passes `params`.

        What it makes may have two attributes, both True where they are not there: `takes_scheduler`, whether learning
        rates may change from outside (if not, the run takes the scheduler that leaves them alone), and `takes_rate`,
        whether `lr` means a learning rate, so that a range test has a meaning.
        """
        raise NotImplementedError

    @hookspec
    def trainkit_scheduler(self) -> Callable[..., Any]:
        """Return a `torch.optim.lr_scheduler.LRScheduler`; the core passes `optimizer` and `total_steps`.

        What it makes hears events as long as its schedule lasts. With an attribute `requires_metric` that is True it
        waits for validations, of the tag in its `monitor` if it has one: a run without them is refused. One that
        restarts has an attribute `cycle`, the number of the cycle to which the next step belongs.
        """
        raise NotImplementedError

    @hookspec
    def trainkit_metric(self) -> Callable[..., Any]:
        """Return a metric: `update`, whose parameters name what it reads, `compute` and `reset`."""
        raise NotImplementedError

    @hookspec
    def trainkit_adapter(self) -> Callable[..., Any]:
        """Return an adapter: called with the model, it returns the model with the weights to learn marked."""
        raise NotImplementedError

    @hookspec
    def trainkit_callback(self) -> Callable[..., Any]:
        """Return a callback: any object that implements events.

        What it makes may have an attribute `only_observes` that is True: with and without it a run comes to the same,
        to the bit. An ablation then does not leave it out.
        """
        raise NotImplementedError


class Events:
    """Name the events of a run. An implementation may take fewer arguments than its specification."""

    @hookspec
    def on_run_start(self, run: Run) -> None:
        """Hear that everything is built and, on resume, restored."""

    @hookspec
    def on_stage_start(self, run: Run, stage: Stage) -> None:
        """Hear that a stage begins (not heard again when a run resumes inside it)."""

    @hookspec
    def on_epoch_start(self, run: Run) -> None:
        """Hear that an epoch begins (not heard again when a run resumes inside it)."""

    @hookspec
    def select_samples(self, run: Run, indices: Sequence[int]) -> Sequence[int] | None:
        """Answer with the samples admitted in this epoch, a subset in the same order, or None for all of them.

        Must be a pure function of the arguments and of saved state: a resumed epoch asks again.
        """
        raise NotImplementedError

    @hookspec
    def on_loss(self, run: Run, batch: Batch, loss: LossOutput, outputs: Outputs) -> LossOutput | None:
        """Hear a micro-batch's loss before its backward pass; answer with another LossOutput to replace it.

        `outputs` are the model's. One with the count 0 says that nothing of the micro-batch is to be learned.
        """
        raise NotImplementedError

    @hookspec
    def on_gradients(self, run: Run, norm: Tensor) -> None:
        """Hear that the gradients are final; they may be changed in place. `norm` is the norm before clipping."""

    @hookspec
    def on_step(self, run: Run) -> None:
        """Hear that an update was applied; `run.batch` is the last micro-batch, `run.forward(batch)` runs the model."""

    @hookspec
    def on_log(self, run: Run, row: Mapping[str, float]) -> None:
        """Hear the scalars of a logging interval or an evaluation, by tag, as they are written to metrics.jsonl."""

    @hookspec
    def before_evaluation(self, run: Run, split: str) -> None:
        """Hear that an evaluation begins; the weights in place are still those that are trained.

        `split` is train, val or test; or samples or inputs, where a model only answers and nothing is measured.
        """

    @hookspec
    def swap_weights_in(self, run: Run) -> None:
        """Put the weights in place that are to be evaluated and saved, as an average of those that were trained.

        A checkpoint is taken while they are in place: `model.safetensors` holds them, and the trained ones belong into
        the component's `state_dict`. May be heard when they are in place already.
        """

    @hookspec
    def swap_weights_out(self, run: Run) -> None:
        """Put the weights back that are trained, to the bit; also heard after `load_state_dict` when a run resumes.

        The model then holds what `swap_weights_in` had put in place when the checkpoint was taken. May be heard when
        the trained weights are in place already.
        """

    @hookspec
    def after_evaluation(self, run: Run, split: str, results: Mapping[str, float]) -> None:
        """Hear an evaluation's end, also when it failed (`results` is then empty); trained weights are in place."""

    @hookspec
    def on_pictures(self, run: Run, pictures: Mapping[str, np.ndarray[Any, Any]]) -> None:
        """Hear of pictures [H, W, 3] of bytes by tag, as 'samples/NAME'; `run.show(pictures)` announces them."""

    @hookspec
    def on_texts(self, run: Run, texts: Mapping[str, str]) -> None:
        """Hear of texts by tag, as 'samples/NAME'; `run.show_texts(texts)` announces them."""

    @hookspec
    def on_checkpoint(self, run: Run, path: Path) -> None:
        """Hear that a checkpoint is durable."""

    @hookspec
    def on_epoch_end(self, run: Run) -> None:
        """Hear that every sample of the epoch was seen."""

    @hookspec
    def on_stage_end(self, run: Run, stage: Stage) -> None:
        """Hear that a stage is over."""

    @hookspec
    def on_run_end(self, run: Run, status: str) -> None:
        """Hear the end of the run, whatever its status: done, stopped, failed, interrupted."""


def hook_name(kind: str) -> str:
    """Return the name of the hook of a kind."""
    return f"trainkit_{kind}"
