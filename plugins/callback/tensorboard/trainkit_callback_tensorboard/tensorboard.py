"""TensorBoard event files beside metrics.jsonl: the same rows, the same tags, pictures and texts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import PositiveInt
from trainkit import hookimpl

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from torch.utils.tensorboard import SummaryWriter
    from trainkit.live import Run

FOLDER = "tensorboard"
JUDGED = ("val/", "final/")


class TensorBoard:
    """Write every row of the run as scalars under its own tags, against the optimizer step, every picture and text.

    A resumed run continues the same curves: what an earlier attempt wrote beyond the step of the checkpoint is purged.
    At the end the run's settings and its last validation and final values appear in the HParams tab.

    Args:
        flush_seconds: longest time for which written rows may stay in memory.
    """

    only_observes = True

    def __init__(self, flush_seconds: PositiveInt = 30) -> None:
        self.flush_seconds = flush_seconds
        self._writer: SummaryWriter | None = None
        self._purge_step: int | None = None
        self._judged: dict[str, float] = {}

    @hookimpl
    def on_run_start(self, run: Run) -> None:
        """Note from which step on older rows are void."""
        self._purge_step = purge_step(run)

    @hookimpl
    def on_log(self, run: Run, row: Mapping[str, float]) -> None:
        """Write a row; a run that leaves nothing behind has no directory to write to."""
        if run.directory is None:
            return
        writer = self._open(run, run.directory.path / FOLDER)
        for tag, value in row.items():
            writer.add_scalar(tag, value, run.moment.step)
        self._judged |= {tag: value for tag, value in row.items() if tag.startswith(JUDGED)}

    @hookimpl
    def on_pictures(self, run: Run, pictures: Mapping[str, np.ndarray[Any, Any]]) -> None:
        """Write pictures under their tags."""
        if run.directory is None:
            return
        writer = self._open(run, run.directory.path / FOLDER)
        for tag, picture in pictures.items():
            writer.add_image(tag, picture, run.moment.step, dataformats="HWC")

    @hookimpl
    def on_texts(self, run: Run, texts: Mapping[str, str]) -> None:
        """Write texts under their tags, line by line as they are: TensorBoard reads Markdown."""
        if run.directory is None:
            return
        writer = self._open(run, run.directory.path / FOLDER)
        for tag, text in texts.items():
            writer.add_text(tag, "\n".join(f"    {line}" for line in text.splitlines()), run.moment.step)

    @hookimpl
    def on_run_end(self, run: Run) -> None:
        """Write the settings beside the last validation and final values, and close the file."""
        if self._writer is None:
            return
        self._write_settings(self._writer, run)
        self._writer.close()
        self._writer = None

    def _open(self, run: Run, folder: Path) -> SummaryWriter:
        # Importing TensorBoard takes about as long as importing torch: only a run that writes a row pays for it.
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            # Another callback may show pictures at the start of the run, before this one hears of it.
            purged = self._purge_step if self._purge_step is not None else purge_step(run)
            self._writer = SummaryWriter(str(folder), purge_step=purged, flush_secs=self.flush_seconds)
        return self._writer

    def _write_settings(self, writer: SummaryWriter, run: Run) -> None:
        from torch.utils.tensorboard.summary import hparams

        # The writer's own add_hparams would start a second run in a subfolder; these three records belong to this one.
        for summary in hparams(settings_of(run), self._judged):
            writer.file_writer.add_summary(summary)


def purge_step(run: Run) -> int | None:
    """Return the step from which on what an earlier attempt wrote is void, None for a new run.

    Rows of the checkpoint's own step were written before it; TensorBoard purges from the given step on.
    """
    return run.moment.step + 1 if run.resumed else None


def settings_of(run: Run) -> dict[str, Any]:
    """Return the run's settings by dotted key, as the scalars and texts that the HParams tab can show."""
    scalars = (bool, int, float, str)
    settings = {key: run.config[key] for key in run.config.history}
    return {key: value if isinstance(value, scalars) else str(value) for key, value in settings.items()}
