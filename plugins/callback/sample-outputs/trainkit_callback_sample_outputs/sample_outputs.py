"""Sample outputs: the same few samples and prompts, answered anew at each evaluation, as pictures or texts."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any

from pydantic import NonNegativeInt, PositiveInt
from trainkit import hookimpl
from trainkit.answering import answers_of, chosen, evaluated, random_states_kept, spread
from trainkit.contracts import Answers, Dataset, Pictures, Prompts
from trainkit.errors import UsageError
from trainkit.evaluation import evaluation_mode
from trainkit.reporting.answerfiles import Names
from trainkit.reporting.contactsheet import png, sheet
from trainkit.reporting.runpictures import FINAL_FOLDER, FOLDER, keep_pictures, step_folder
from trainkit.reporting.runtexts import is_text, keep_texts, text_of
from trainkit.showing import sample_rows, variant_draws
from trainkit.tasks import lacking

if TYPE_CHECKING:
    import numpy as np
    from trainkit.live import Run

AUGMENTATION = "augmentation"
VAL, FINAL = "val/", "final/"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Shown:
    """Hold what is shown, by plain name: pictures [H, W, 3] of bytes, and texts."""

    pictures: dict[str, np.ndarray[Any, Any]] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)


class SampleOutputs:
    """Show what the model makes of a few validation samples at each evaluation, and what augmentation makes of others.

    The samples are spread over the validation split, of each group of samples (as the windows of a series) one at
    least, and are the same each time; so is the random state in which they are answered. A task that answers texts is
    also asked its prompts. Each answer becomes a picture of the task's panels (input, truth, answer, ...), or a text
    where all of them are, in RUN/samples/step-STEP, and is announced to whoever shows such, as TensorBoard and the
    terminal. At the end the best weights answer samples of the test split, in RUN/samples/final. When the run begins,
    a contact sheet of training samples with their variants is written to RUN/samples/augmentation.png, if augmenters
    are in force and samples can be looked at.

    Training is not touched: weights, modes and random states are afterwards what they were, to the bit. A run without
    a directory, a task that does not answer and data without the split show nothing.

    Args:
        samples: how many samples are answered, and how many training samples are on the contact sheet.
        prompts: texts that are answered besides; those of the task if not given.
        groups: of how many groups there is a sample at least, even if these make it more samples.
        every: evaluations from one round of answers to the next; the first evaluation always has one.
        variants: variants of each training sample on the contact sheet; 0 for no sheet.
        seed: decides about whatever is drawn in an answer.
    """

    only_observes = True

    def __init__(
        self,
        samples: PositiveInt = 4,
        prompts: tuple[str, ...] | None = None,
        groups: PositiveInt = 12,
        every: PositiveInt = 1,
        variants: NonNegativeInt = 5,
        seed: NonNegativeInt = 0,
    ) -> None:
        self.samples, self.prompts = samples, prompts
        self.groups, self.every = groups, every
        self.variants, self.seed = variants, seed
        self.evaluations = 0
        self._has_told = False

    def check_run(self, run: Run) -> None:
        """Raise UsageError for prompts that the task cannot answer."""
        if self.prompts and lacking(run.task, Prompts):
            name = run.config["task.use"]
            raise UsageError(f"sample-outputs has prompts, and task {name} answers no texts", do="leave them out")

    @hookimpl
    def on_run_start(self, run: Run) -> None:
        """Show what augmentation does, and say so once if nothing else will be shown."""
        if run.directory is None:
            return
        if missing := lacking(run.task, Answers):
            name = run.config["task.use"]
            _log.warning("sample-outputs: task %s lacks %s: no answers are shown", name, ", ".join(missing))
        if not (run.directory.path / FOLDER / f"{AUGMENTATION}.png").exists():
            self._show_augmentation(run)

    def _show_augmentation(self, run: Run) -> None:
        if not run.augmenters or not self.variants or lacking(run.task, Pictures):
            return
        train = run.splits.train
        draws = list(islice(variant_draws(run.settings.loop.variants), self.variants))
        indices = spread(len(train), self.samples)
        _, rows = sample_rows(run.task, train, run.augmenters, run.settings.seed, indices, draws)
        self._show(run, Shown({AUGMENTATION: sheet(rows)}), "")

    @hookimpl
    def on_log(self, run: Run, row: Mapping[str, float]) -> None:
        """Answer the samples when the row of an evaluation, or that of the final results, is written.

        At that time whoever swapped weights for the evaluation has swapped them back, and can be asked to do so again:
        in the middle of `after_evaluation` it would depend on the order of callbacks whose weights answer.
        """
        # Of several ranks the first answers; where weights are cut into shards, the others have to hand theirs over.
        if (run.directory is None and not run.is_sharded) or lacking(run.task, Answers):
            return
        if any(tag.startswith(FINAL) for tag in row):
            self._show(run, self._answered(run, run.splits.test), FINAL_FOLDER)
        elif any(tag.startswith(VAL) for tag in row):
            self.evaluations += 1
            if (self.evaluations - 1) % self.every == 0:
                self._show(run, self._answered(run, run.splits.val), step_folder(run.moment.step))

    def rehearse(self, run: Run) -> None:
        """Answer and draw once as an evaluation will make it, and forget it: a forecast counts the time.

        The weights that are in place answer: to swap averaged ones in and out at another step than an evaluation's
        might change a bit of them.
        """
        if run.splits.val is None or lacking(run.task, Answers):
            return
        with random_states_kept(), evaluation_mode(run):
            shown = self._drawn(run, run.splits.val)
        # The file, and whoever hears of a picture and keeps it, as TensorBoard, have it compressed.
        for _ in range(1 + len(run.events.on_pictures)):
            for picture in shown.pictures.values():
                png(picture)

    def _answered(self, run: Run, split: Dataset | None) -> Shown:
        """Return the answers to samples of a split and to prompts; say once that not all groups are shown."""
        if split is not None:
            _, groups = chosen(split, self.samples, self.groups)
            if groups > self.groups and not self._has_told:
                self._has_told = True
                do = "--set callback.sample-outputs.groups=N shows more"
                _log.warning("sample-outputs: samples of %d of %d groups are shown; %s", self.groups, groups, do)
        with evaluated(run, FOLDER):
            return self._drawn(run, split) if run.directory is not None else Shown()

    def _drawn(self, run: Run, split: Dataset | None) -> Shown:
        """Return these answers, by the weights in place."""
        size, names, shown = run.settings.evaluate.batch_size or run.settings.loop.batch_size, Names(), Shown()
        for dataset, indices in self._asked(run, split):
            for answer in answers_of(run, run.task, dataset, indices, size, self.seed):
                if is_text(answer):
                    shown.texts[names(answer.name)] = text_of(answer)
                else:
                    shown.pictures[names(answer.name)] = sheet([(answer.name, answer.panels)])
        return shown

    def _asked(self, run: Run, split: Dataset | None) -> list[tuple[Dataset, Sequence[int]]]:
        """Return what is answered, as datasets and places in them: prompts first, as people know them."""
        found: list[tuple[Dataset, Sequence[int]]] = []
        texts = getattr(run.task, "example_prompts", ()) if self.prompts is None else self.prompts
        if texts and not lacking(run.task, Prompts):
            prompts = run.task.prompts(texts)
            found.append((prompts, range(len(prompts))))
        if split is not None:
            found.append((split, chosen(split, self.samples, self.groups)[0]))
        return found

    def _show(self, run: Run, shown: Shown, folder: str) -> None:
        if run.directory is None:
            return
        # Those of an evaluation are one picture over the steps; what the best weights answer stands by itself.
        place = f"{FOLDER}/{FINAL_FOLDER}" if folder == FINAL_FOLDER else FOLDER
        if shown.pictures:
            keep_pictures(run.directory.path, shown.pictures, folder)
            run.show({f"{place}/{name}": picture for name, picture in shown.pictures.items()})
        if shown.texts:
            keep_texts(run.directory.path, shown.texts, folder)
            run.show_texts({f"{place}/{name}": text for name, text in shown.texts.items()})

    def state_dict(self) -> dict[str, int]:
        """Return how many evaluations there were."""
        return {"evaluations": self.evaluations}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Take back what `state_dict` gave."""
        self.evaluations = int(state["evaluations"])
