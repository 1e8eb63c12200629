"""The training loop.

Read aloud::

    for each stage of the plan:
        for each epoch of the stage:
            for each window of micro-batches:
                for each micro-batch: forward, loss, backward
                normalise by the counts of the whole window, check that all is finite, clip, step, schedule
                (on several ranks: each takes its share of a micro-batch, and gradients and counts are summed)
                log, evaluate and save when it is due
            evaluate and save when it is due

All of it can stop after any window and go on from a checkpoint as if nothing had happened.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .data import Draws, EpochBatches, alike, draw, select, windows
from .errors import Diverged, UsageError
from .evaluation import Interrupted
from .gradients import WindowCount, finish_gradients, is_nothing, pool
from .live import Run, set_trainable
from .randomness import Purpose, seed_torch
from .ranks.agreement import agree
from .ranks.sharding import idle_pass, nothing_of
from .routine import at_epoch_end, at_step, divergence_report, flush_log, save
from .schedule import set_base_rates
from .stages import PlannedStage, schedule_span

if TYPE_CHECKING:
    from .contracts import Batch, LossOutput


def train(run: Run) -> None:
    """Train until the plan is done, somebody asks to stop, or a signal arrives; `run` tells which.

    Raises:
        Diverged: a gradient is not finite; weights and optimizer are as before the step.
    """
    for hear in run.events.on_run_start:
        hear(run)
    try:
        while run.moment.stage < len(run.stages) and (must_close(run) or not run.halted):
            train_stage(run, run.stages[run.moment.stage])
    except Interrupted:
        # The step is done, its evaluation is not: the checkpoint says so, and the resumed run begins with it.
        save(run)
    else:
        if run.signal is not None and run.moment.step:
            # A signal that came between a step and the next, as while data was read, finds that step not saved.
            save(run)
        flush_log(run)


def train_stage(run: Run, planned: PlannedStage) -> None:
    """Train one stage, from wherever the moment stands in it."""
    if not run.moment.stage_started:
        enter_stage(run, planned)
        for hear in run.events.on_stage_start:
            hear(run, planned.stage)
        run.moment.stage_started = True
    while must_close(run) or not (stage_is_over(run, planned) or run.halted):
        train_epoch(run, planned)
    if stage_is_over(run, planned) and run.signal is None:
        leave_stage(run, planned)


def enter_stage(run: Run, planned: PlannedStage) -> None:
    """Set what learns, and at which rates, in a stage; on resume this runs before the saved state is loaded."""
    moment, stage = run.moment, planned.stage
    if not moment.stage_started:
        moment.stage_step, moment.stage_epoch, moment.stage_ended = moment.step, moment.epoch, False
    set_trainable(run, stage.trainable)
    rates = [rate * stage.lr_factor for rate in run.base_rates]
    begins, steps = schedule_span(run.stages, moment.stage)
    if begins or run.scheduler is None:
        for group, rate in zip(run.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
            group.pop("initial_lr", None)
        run.follow(run.make_scheduler(steps))
    else:
        set_base_rates(run.scheduler, rates)


def must_close(run: Run) -> bool:
    """Return whether an epoch has begun: only a signal leaves it open, and then the resumed run closes it."""
    return run.moment.epoch_started and run.signal is None


def stage_is_over(run: Run, planned: PlannedStage) -> bool:
    """Return whether a stage has had its length, in steps or in epochs."""
    moment = run.moment
    if moment.stage_ended or moment.step - moment.stage_step >= planned.length.steps:
        return True
    return planned.stage.epochs is not None and moment.epoch - moment.stage_epoch >= planned.length.epochs


def leave_stage(run: Run, planned: PlannedStage) -> None:
    """Announce the end of a stage and move on to the next."""
    for hear in run.events.on_stage_end:
        hear(run, planned.stage)
    run.moment.stage += 1
    run.moment.stage_started = False


def train_epoch(run: Run, planned: PlannedStage) -> None:
    """Train one epoch, from wherever the moment stands in it, and close it unless a signal arrived."""
    moment, loop = run.moment, run.settings.loop
    if not moment.epoch_started:
        for hear in run.events.on_epoch_start:
            hear(run)
        moment.epoch_started = True
    agree(run)
    draws, share = admitted_draws(run, planned), (run.world.rank, run.world.size)
    batches = EpochBatches(run.batch_maker(), draws, moment.epoch, loop.batch_size, share)
    if moment.windows:
        at_step(run)
    stream = run.workers.stream(batches, moment.windows * loop.accumulate, run.engine.is_cuda)
    for window in windows(stream, loop.accumulate):
        if run.halted or stage_is_over(run, planned):
            break
        train_step(run, window)
        at_step(run)
    if run.signal is None:
        at_epoch_end(run, last=run.stop_reason != "" or is_last(run, planned))


def is_last(run: Run, planned: PlannedStage) -> bool:
    """Return whether this epoch ends the last stage."""
    ends = planned.stage.epochs is not None and run.moment.epoch + 1 - run.moment.stage_epoch >= planned.length.epochs
    return run.moment.stage == len(run.stages) - 1 and (ends or stage_is_over(run, planned))


def admitted_draws(run: Run, planned: PlannedStage) -> Draws:
    """Return the draws of this epoch: the stage's selection, narrowed by whoever hears `select_samples`."""
    seed, epoch, loop = run.settings.seed, run.moment.epoch, run.settings.loop
    indices = select(planned.stage.selection, run.splits.train, seed, epoch)
    for narrow in run.events.select_samples:
        answer = narrow(run, indices)
        indices = indices if answer is None else list(answer)
    if not indices:
        raise UsageError(
            f"no sample is admitted in epoch {epoch + 1}",
            why=f"the stage '{planned.stage.name}' and the callbacks that select samples leave none together",
            do="admit more: a wider selection of the stage, or other options of these callbacks",
        )
    draws = draw(indices, loop.variants, seed, epoch)
    return alike(draws, run.splits.train, loop.batch_size, loop.buckets, seed, epoch)


def train_step(run: Run, window: list[dict[str, Any]]) -> None:
    """Do one optimizer step over a window of micro-batches; skip it, or raise Diverged, if a gradient is not finite.

    A window of which nothing is to be learned is passed over: it is no step.
    """
    moment, events = run.moment, run.events
    seed_torch(run.settings.seed, Purpose.STEP, moment.window, *run.world.words)
    learned, correction = backward(run, window)
    moment.windows += 1
    moment.window += 1
    if not learned:
        return
    norm, finite = finish_gradients(run, correction)
    if not finite:
        skip_step(run, window, norm)
        return
    run.gathered.norms.append(norm)
    for hear in events.on_gradients:
        hear(run, norm)
    if run.scaler is not None:
        run.scaler.step(run.optimizer)
        run.scaler.update()
    else:
        run.optimizer.step()
    moment.step += 1
    moment.skipped = 0
    moment.progress = min(1.0, moment.step / run.total_steps)
    for hear in events.on_step:
        hear(run)
    if run.scheduler is not None:
        run.scheduler.step()
    run.optimizer.zero_grad(set_to_none=True)


def backward(run: Run, window: list[dict[str, Any]]) -> tuple[bool, Any]:
    """Run the micro-batches of a window forward and backward; return whether anything is to be learned, and a factor.

    Each loss sum is divided by a guess of the window's count, so that fp16 stays in range; the factor turns the guess
    into the true count of all micro-batches, and becomes part of the clipping factor. A micro-batch whose loss has the
    count 0, a plain number, has no backward pass.
    """
    count = WindowCount(run.world, run.engine.device, len(window))
    samples = 0
    for cpu_batch in window:
        loss = learned_from(run, cpu_batch) if cpu_batch else idle_pass(run)
        samples += len(cpu_batch.get("sample_id", ()))
        guess = count.add(0 if loss is None else loss.count)
        if loss is None or (is_nothing(loss.count) and not run.is_sharded):
            continue
        scaled = loss.sum / guess
        (scaled if run.scaler is None else run.scaler.scale(scaled)).backward()
        run.gathered.add_loss(loss)
    return pool(run, count.learned, samples), count.correction()


def learned_from(run: Run, cpu_batch: dict[str, Any]) -> LossOutput:
    """Return the loss of a micro-batch after its forward pass, as whoever hears `on_loss` leaves it."""
    batch: Batch = run.engine.place(cpu_batch)
    outputs, loss = run.forward(batch)
    run.inactive.note("train", dict.fromkeys(loss.inactive, 1))
    own = loss
    for hear in run.events.on_loss:
        loss = hear(run, batch, loss, outputs) or loss
    if run.is_sharded and is_nothing(loss.count):
        loss = nothing_of(own)
    run.moment.samples += len(batch["sample_id"])
    run.batch = batch
    return loss


def skip_step(run: Run, window: list[dict[str, Any]], norm: float) -> None:
    """Leave weights, schedule and counters as they are; raise Diverged where the policy does not allow to go on."""
    run.moment.skipped += 1
    run.moment.skipped_total += 1
    report = divergence_report(run, window, norm)
    run.optimizer.zero_grad(set_to_none=True)
    if run.scaler is not None:
        # A scale that was too large is no divergence: the scaler lowers it and the next step goes on.
        run.scaler.step(run.optimizer)
        run.scaler.update()
        if run.moment.skipped < run.settings.loop.nan_patience:
            return
    if run.settings.loop.nan_policy == "stop" or run.moment.skipped >= run.settings.loop.nan_patience:
        raise Diverged(**report)
