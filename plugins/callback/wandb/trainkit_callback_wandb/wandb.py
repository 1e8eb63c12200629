"""A Weights & Biases run beside metrics.jsonl: the same rows, pictures, texts and settings."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import PositiveFloat
from trainkit import hookimpl
from trainkit.errors import printable

from .identity import FOLDER, run_id
from .naming import Style, renamed

if TYPE_CHECKING:
    import numpy as np
    from trainkit.live import Run

Action = Callable[[Any], None]
Mode = Literal["offline", "online", "disabled"]
MODES = ("offline", "online", "disabled")
FAILED = ("failed", "interrupted")
STEP = "step"
# What wandb finds out about machine, user, code and command line by itself stays here; so does its watch over the
# hardware, for which there is the callback system-monitor.
QUIET: Mapping[str, Any] = {
    "console": "off",
    "silent": True,
    "disable_git": True,
    "disable_code": True,
    "save_code": False,
    "x_disable_meta": True,
    "x_disable_machine_info": True,
    "x_disable_stats": True,
    "x_save_requirements": False,
}
_log = logging.getLogger(__name__)


class WeightsAndBiases:
    """Write every row of the run under its own tags against the optimizer step, pictures, texts and settings.

    Nothing leaves the machine unless `mode` or WANDB_MODE is 'online': what is recorded in RUN/wandb can be sent later
    by `wandb sync`. A resumed run goes on with the same wandb run. If wandb fails, the run is told once and goes on
    without it; if its server cannot be reached when the run begins, it is recorded offline.

    Args:
        mode: offline, online, or disabled; WANDB_MODE if not given, and offline without it.
        project: the project that the run belongs to.
        entity: user or team; that of the login if not given.
        tags: words by which runs are found.
        metric_style: names of metrics: 'trainkit' (val/loss), 'hf' (eval/loss) or 'flat' (val_loss).
        timeout: seconds to wait for the server when the run begins.
    """

    only_observes = True

    def __init__(
        self,
        mode: Mode | None = None,
        project: str = "trainkit",
        entity: str | None = None,
        tags: tuple[str, ...] = (),
        metric_style: Style = "trainkit",
        timeout: PositiveFloat = 30.0,
    ) -> None:
        self.mode, self.project, self.entity, self.tags = mode, project, entity, tags
        self.metric_style, self.timeout = metric_style, timeout
        self._writer: Any = None
        self._is_off = False
        self._early: list[Action] = []

    @hookimpl
    def on_epoch_start(self, run: Run) -> None:
        """Begin the wandb run, or go on with it, if that was not done: by now all is known about the run."""
        if self._writer is None:
            self._guarded(run, lambda writer: None)

    @hookimpl
    def on_log(self, run: Run, row: Mapping[str, float]) -> None:
        """Write a row."""
        named = {renamed(tag, self.metric_style): value for tag, value in row.items()}
        self._guarded(run, lambda writer: writer.log({STEP: run.moment.step, **named}))

    @hookimpl
    def on_pictures(self, run: Run, pictures: Mapping[str, np.ndarray[Any, Any]]) -> None:
        """Write pictures under their tags."""
        step = run.moment.step

        def write(writer: Any) -> None:
            import wandb

            writer.log({STEP: step} | {tag: wandb.Image(picture) for tag, picture in pictures.items()})

        self._shown(run, write)

    @hookimpl
    def on_texts(self, run: Run, texts: Mapping[str, str]) -> None:
        """Write texts under their tags, letter by letter as they are."""
        step = run.moment.step

        def write(writer: Any) -> None:
            import wandb

            # A table of wandb would also be an artifact, which is kept outside of the run directory until it is sent.
            pages = {
                tag: wandb.Html(f"<pre>{escape(printable(text))}</pre>", inject=False) for tag, text in texts.items()
            }
            writer.log({STEP: step} | pages)

        self._shown(run, write)

    @hookimpl
    def on_run_end(self, run: Run, status: str) -> None:
        """Write how the run ended and what was best, and close the wandb run."""
        if self._writer is None:
            return

        def finish(writer: Any) -> None:
            writer.summary["status"] = status
            if run.best.value is not None:
                writer.summary["best"] = run.best.value
                writer.summary["best_step"] = run.best.step
            writer.finish(exit_code=int(status in FAILED))

        self._guarded(run, finish)
        self._writer = None

    def _shown(self, run: Run, action: Action) -> None:
        """Write what a component shows; what it shows before the wandb run has begun waits for that."""
        if self._writer is not None:
            self._guarded(run, action)
        elif not self._is_off and run.directory is not None:
            self._early.append(action)

    def _guarded(self, run: Run, action: Action) -> None:
        """Do something with the wandb run; whatever fails there is told once, and nothing more is tried."""
        if self._is_off or run.directory is None:
            return
        try:
            if self._writer is None:
                self._writer = self._begun(run, run.directory.path)
                action = _one_after_the_other([*self._early, action])
                self._early = []
            if self._writer is not None:
                action(self._writer)
        except Exception as error:
            self._is_off = True
            _log.warning("wandb: %s: %s; nothing more is written to it", type(error).__name__, _first_line(error))

    def _begun(self, run: Run, directory: Path) -> Any:
        mode = self.mode or _mode_of_environment()
        if mode == "disabled":
            self._is_off = True
            return None
        import wandb

        if mode == "online":
            try:
                if not wandb.login(prompt=False, verify=False):
                    raise PermissionError("there are no credentials: wandb login")
                return self._init(run, directory, mode)
            except Exception as error:
                why = f"{type(error).__name__}: {_first_line(error)}"
                _log.warning("wandb: not online (%s); recorded in %s, for wandb sync", why, directory / FOLDER)
                # Its service still holds the id of the run that did not come to be.
                wandb.teardown()
        return self._init(run, directory, "offline")

    def _init(self, run: Run, directory: Path, mode: Mode) -> Any:
        import wandb

        known = wandb.Settings.model_fields
        settings = {name: value for name, value in QUIET.items() if name in known} | {"init_timeout": self.timeout}
        whole = run.part_of.directory.resolve().name if run.part_of is not None else None
        writer = wandb.init(
            project=self.project,
            entity=self.entity,
            id=run_id(directory),
            name=f"{whole} {run.part_of.name}" if run.part_of is not None else directory.resolve().name,
            group=whole,
            tags=list(self.tags),
            config=settings_of(run),
            dir=str(directory),
            mode=mode,
            # What is offline cannot ask whether the run is there: wandb sync joins what has one id.
            resume="allow" if mode == "online" else None,
            reinit="create_new",
            settings=wandb.Settings(**settings),
        )
        writer.define_metric(STEP, hidden=True)
        writer.define_metric("*", step_metric=STEP)
        return writer


def settings_of(run: Run) -> dict[str, Any]:
    """Return the run's settings by dotted key, as JSON; what is no JSON as text."""
    scalars = (bool, int, float, str, type(None))
    found = {key: run.config[key] for key in run.config.history}
    return {key: value if isinstance(value, scalars) else str(value) for key, value in found.items()}


def _one_after_the_other(actions: Sequence[Action]) -> Action:
    def act(writer: Any) -> None:
        for action in actions:
            action(writer)

    return act


def _mode_of_environment() -> Mode:
    wanted = os.environ.get("WANDB_MODE", "").lower()
    return wanted if wanted in MODES else "offline"


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0][:300]
