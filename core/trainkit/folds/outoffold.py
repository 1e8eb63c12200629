"""Out-of-fold rows: what a fold's model makes of the samples that it has not seen, one JSON object a sample."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from trainkit.answering import answers_of, evaluated, spread
from trainkit.contracts import SAMPLE_ID, Answers
from trainkit.data import BatchMaker
from trainkit.evaluation import batches, switch_weights
from trainkit.randomness import Purpose, seed_torch
from trainkit.storage import strict_json
from trainkit.tasks import lacking

from .fold import names_of

if TYPE_CHECKING:
    from trainkit.contracts import Dataset
    from trainkit.live import Run

MOST_ANSWERS = 50


def out_of_fold(run: Run, fold: int, dataset: Dataset) -> bytes:
    """Return the JSON lines of a fold: `id`, `fold`, `loss`, and `answer` where the task answers inputs.

    The loss is the mean over the sample by itself. Of more than 50 samples as many, evenly spread, are answered.

    Args:
        run: with the weights that are looked at.
        fold: its number.
        dataset: what it validates on.
    """
    with evaluated(run, "samples"):
        losses = _losses(run, dataset)
        answers = _answers(run, dataset)
    switch_weights(run, training=False)
    rows = [
        {"id": name, "fold": fold, "loss": loss} | ({"answer": answers[index]} if index in answers else {})
        for index, (name, loss) in enumerate(zip(names_of(dataset), losses, strict=True))
    ]
    return b"".join(strict_json.dumps(strict_json.without_special_numbers(row)).rstrip() + b"\n" for row in rows)


def _losses(run: Run, dataset: Dataset) -> list[float]:
    """Return the loss of each sample: as the loss tells it, else by batches of one."""
    # What is drawn must not depend on when in a run the question comes.
    seed_torch(run.settings.seed, Purpose.EVALUATION, 0)
    found = [float("nan")] * len(dataset)
    for batch in batches(run, dataset):
        loss = run.forward(batch)[1].per_sample
        if loss is None or len(loss) != len(batch[SAMPLE_ID]):
            break
        for row, value in zip(batch[SAMPLE_ID].tolist(), loss.tolist(), strict=True):
            found[row] = value
    else:
        return found
    seed_torch(run.settings.seed, Purpose.EVALUATION, 0)
    maker = BatchMaker(dataset, run.task.collate)
    for row in range(len(dataset)):
        loss_of_one = run.forward(run.engine.place(maker(0, torch.tensor([row]))))[1]
        count = float(loss_of_one.count)
        found[row] = float(loss_of_one.sum) / count if count else float("nan")
    return found


def _answers(run: Run, dataset: Dataset) -> dict[int, Any]:
    if lacking(run.task, Answers):
        return {}
    rows = spread(len(dataset), MOST_ANSWERS)
    size = run.settings.evaluate.batch_size or run.settings.loop.batch_size
    answers = answers_of(run, run.task, dataset, rows, size, run.settings.seed)
    return {row: answer.data for row, answer in zip(rows, answers, strict=True)}
