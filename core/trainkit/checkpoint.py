"""Checkpoints: folders of safetensors and JSON that are found again whole, whatever ended the run.

How one is written is told in commit.py, how one is read in saved.py. Only when it is durable is it reported, best.json
written, and what is no longer needed removed. tests/core/test_checkpoint_crash.py replays every state that a power cut
can leave behind and shows that no confirmed checkpoint is lost.
"""

from __future__ import annotations

import errno
import re
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from .best import Ranked, Ranking
from .errors import CheckpointError, ResourceError
from .storage import bestrecord
from .storage.commit import Buffers, Snapshot, check_snapshot, rendered, size_of, write_checkpoint
from .storage.filesystem import (
    SYSTEM,
    TEMPORARY,
    FileSystem,
    disk_error,
    remove_tree,
    replace_file,
    size_text,
)
from .storage.saved import Checkpoint

__all__ = ["Checkpoint", "Checkpoints", "Snapshot", "retained"]

BEST = "best.json"
_FOLDER = re.compile(r"checkpoint-(0|[1-9][0-9]{0,17})")
Report = Callable[[str], None]


class Checkpoints:
    """Write, find and retain the checkpoints of one folder.

    The run directory's lock keeps other processes out, and one thread calls the methods.

    Args:
        folder: where they lie; made at the first save.
        keep: how many of the newest stay, at least 2; those that `mark_best` names stay too.
        keep_best: how many those will be, at most.
        files: the file system.
        read_only: change nothing while looking for a checkpoint, as when another process may be training.
    """

    def __init__(
        self, folder: Path, *, keep: int = 2, keep_best: int = 1, files: FileSystem = SYSTEM, read_only: bool = False
    ) -> None:
        self.folder, self.files, self.read_only = folder, files, read_only
        self.keep, self.keep_best = max(keep, 2), keep_best
        self._intact: set[int] = set()
        self._best: Ranking = ()
        self._prepared = False
        self._report: Report = _say_nothing
        self._outcomes: deque[Checkpoint | Exception] = deque()
        self._buffers = Buffers()
        self._writer: threading.Thread | None = None
        # Marks of the best are made by the caller and settled by whoever writes; the lock hands them over.
        self._handover = threading.Lock()
        self._marks: dict[int, Ranking] = {}
        self._writing = False

    def save(self, snapshot: Snapshot, *, background: bool = False) -> None:
        """Write a checkpoint; `finished` and `wait` tell when it is durable.

        Args:
            snapshot: what to write. Once this returns, its tensors may change.
            background: copy the tensors into buffers that are kept for the next time, and write from a thread. If not,
                the checkpoint is durable on return; only what it makes superfluous is removed from a thread. A save
                that is still under way is waited for first, and its failure raised here.

        Raises:
            RunFailed: a weight is not finite, or something cannot be stored; from a thread, `finished` raises it.
            ResourceError: the disk is full, read-only or broken. Older checkpoints are untouched.
            CheckpointError: there is a checkpoint of this step already.
        """
        self.close()
        documents = {**rendered(snapshot.documents), **snapshot.files}
        self._prepare(snapshot, documents)
        if background:
            held = replace(snapshot, tensors=self._buffers.hold(snapshot.tensors))
            self._start(partial(self._write, held, documents))
        else:
            self._write(snapshot, documents)
            self._start(_do_nothing)

    def finished(self) -> list[Checkpoint]:
        """Return the checkpoints that became durable since the last question; raise what the writer met."""
        done: list[Checkpoint] = []
        while self._outcomes:
            outcome = self._outcomes[0]
            if isinstance(outcome, Exception):
                if done:
                    break
                self._outcomes.popleft()
                raise outcome
            done.append(outcome)
            self._outcomes.popleft()
        return done

    def wait(self) -> list[Checkpoint]:
        """Wait for the save under way, then answer as `finished` does."""
        self._join()
        return self.finished()

    def close(self) -> None:
        """Wait for the save under way, and raise what it met."""
        self._join()
        for outcome in list(self._outcomes):
            if isinstance(outcome, Exception):
                self._outcomes.remove(outcome)
                raise outcome

    def mark_best(self, ranking: Sequence[Ranked]) -> None:
        """Name the best checkpoints, durably: on return, or with the save under way.

        Args:
            ranking: their steps and monitored values, the best first; none leaves what is named. If there is no
                checkpoint of the newest step yet, they are named as soon as there is.
        """
        if not ranking:
            return
        step = max(entry.step for entry in ranking)
        with self._handover:
            self._marks.pop(step, None)
            self._marks[step] = tuple(ranking)
            if self._writing:
                return
        with self._refusals(self.folder / BEST):
            self._settle()

    def best(self) -> Checkpoint | None:
        """Return the checkpoint that best.json names first, verified, or None if none was named.

        Raises:
            CheckpointError: best.json or the checkpoint it names is damaged or missing.
        """
        self._join()
        ranking = self._named()
        return self.of(ranking[0].step) if ranking else None

    def of(self, step: int) -> Checkpoint:
        """Return the checkpoint of a step, verified.

        Raises:
            CheckpointError: it is damaged or missing.
        """
        checkpoint = Checkpoint(self.folder / f"checkpoint-{step}")
        checkpoint.verify()
        return checkpoint

    def steps(self) -> set[int]:
        """Return the steps of all checkpoints that are there, unverified."""
        if not self.folder.is_dir():
            return set()
        return {int(match[1]) for name in self.files.listdir(self.folder) if (match := _FOLDER.fullmatch(name))}

    def newest_valid(self, report: Report | None = None) -> Checkpoint | None:
        """Return the newest checkpoint whose every hash is right, or None.

        What is damaged is renamed to *.corrupt, and what interrupted saves left is removed.

        Args:
            report: called with one line for each thing that is damaged, now or when a later save finds it.
        """
        self._join()
        self._report = report or _say_nothing
        with self._refusals(self.folder):
            self._tidy()
            for step in sorted(self.steps(), reverse=True):
                checkpoint = self._examine(step)
                if checkpoint is not None:
                    return checkpoint
        return None

    def _prepare(self, snapshot: Snapshot, documents: Mapping[str, bytes]) -> None:
        """Make the folder and check, once, that there is room for all the checkpoints that will stay."""
        final = self.folder / f"checkpoint-{snapshot.step}"
        if final.exists():
            do = "resume from it, or start a new run"
            raise CheckpointError(f"there is a checkpoint of step {snapshot.step} already", where=str(final), do=do)
        if self._prepared:
            return
        with self._refusals(self.folder):
            if not self.folder.is_dir():
                self.files.mkdir(self.folder)
            # Also if it was there: whoever made it may have been killed before this.
            self.files.fsync_folder(self.folder.parent)
            size = size_of(snapshot, documents)
            # The newest, the best if they are older, and the one being written.
            most = self.keep + self.keep_best + 1
            needed = size * max(1, most - len(self.steps()))
            free = self.files.free_bytes(self.folder)
        if free < needed:
            raise ResourceError(
                "the disk has no room for the run's checkpoints",
                where=str(self.folder),
                why=f"needed: {size_text(needed)} (up to {most} checkpoints of {size_text(size)} at a time), "
                f"free: {size_text(free)}",
                do="free space on this disk, or choose a folder on another one by --out",
            )
        self._best = self._named()
        self._prepared = True

    def _start(self, write: Callable[[], None]) -> None:
        """Write from a thread, then see to the best and to what is no longer needed."""
        self._writing = True
        self._writer = threading.Thread(target=self._write_and_settle, args=(write,), name="checkpoint-writer")
        self._writer.start()

    def _write_and_settle(self, write: Callable[[], None]) -> None:
        try:
            write()
            with self._refusals(self.folder):
                settled = False
                while not settled:
                    self._settle()
                    self._retain()
                    # From here on marks are the caller's to settle, unless one came in while this was removing.
                    with self._handover:
                        settled = not self._durable_marks()
                        self._writing = not settled
        except Exception as error:  # raised by the thread that asks next
            self._outcomes.append(error)
        finally:
            with self._handover:
                self._writing = False

    def _write(self, snapshot: Snapshot, documents: Mapping[str, bytes]) -> None:
        check_snapshot(snapshot)
        write = partial(write_checkpoint, self.folder, snapshot, documents, self.files)
        with self._refusals(self.folder / f"checkpoint-{snapshot.step}", size_of(snapshot, documents)):
            try:
                path = write()
            except OSError as error:
                # A failed fsync says nothing about a second one of the same file, so everything is written anew.
                if error.errno != errno.EIO:
                    raise
                path = write()
        self._intact.add(snapshot.step)
        self._outcomes.append(Checkpoint(path))

    def _durable_marks(self) -> list[int]:
        return [step for step in self._marks if (self.folder / f"checkpoint-{step}").is_dir()]

    def _settle(self) -> None:
        """Name those of the latest mark whose newest checkpoint is durable the best."""
        with self._handover:
            durable = self._durable_marks()
            if not durable:
                return
            step = durable[-1]
            marked = self._marks[step]
            # Older marks are overtaken, whether their checkpoints exist or not.
            while next(iter(self._marks)) != step:
                del self._marks[next(iter(self._marks))]
            del self._marks[step]
        there = self.steps()
        # One that was set aside since it was marked has no name any more.
        self._name(tuple(entry for entry in marked if entry.step in there))

    def _retain(self) -> None:
        """Remove what retention does not name, after making sure that what stays for it is whole."""
        intact: set[int] = set()
        for step in sorted(self.steps(), reverse=True):
            if len(intact) < self.keep and (step in self._intact or self._examine(step) is not None):
                intact.add(step)
        older = {step for step in self.steps() if step < min(intact)}
        best = [entry.step for entry in self._best]
        for step in sorted(older - retained(intact | older, best, self.keep)):
            self._intact.discard(step)
            # One rename takes it out of sight; half a checkpoint would look like a damaged one.
            going = self.folder / f"{TEMPORARY}removed-{step}"
            self.files.rename(self.folder / f"checkpoint-{step}", going)
            remove_tree(self.files, going)

    def _named(self) -> Ranking:
        path = self.folder / BEST
        return bestrecord.read(path) if path.exists() else ()

    def _name(self, ranking: Ranking) -> None:
        replace_file(self.files, self.folder / BEST, bestrecord.rendered(ranking))
        self._best = ranking

    def _examine(self, step: int) -> Checkpoint | None:
        """Return the checkpoint of this step if it is whole; otherwise set it aside and say so."""
        path = self.folder / f"checkpoint-{step}"
        try:
            checkpoint = Checkpoint(path)
            checkpoint.verify()
        except CheckpointError as error:
            self._set_aside(path, f"{Path(error.where).relative_to(self.folder)}: {error.why}")
            if not self.read_only:
                self._forget(step)
            return None
        self._intact.add(step)
        return checkpoint

    def _forget(self, step: int) -> None:
        """Take a checkpoint that was set aside from those that best.json names."""
        named = self._named()
        left = tuple(entry for entry in named if entry.step != step)
        if left == named:
            return
        if left:
            self._name(left)
            self._report(f"checkpoint-{step} was among the best: {BEST} names checkpoint-{left[0].step} first now")
        else:
            self._set_aside(self.folder / BEST, f"it names checkpoint-{step}")
            self._best = ()

    def _tidy(self) -> None:
        """Remove what interrupted saves left, and set a damaged best.json aside."""
        if self.folder.is_dir() and not self.read_only:
            for name in self.files.listdir(self.folder):
                if name.startswith(TEMPORARY):
                    remove_tree(self.files, self.folder / name)
            try:
                self._named()
            except CheckpointError as error:
                self._set_aside(self.folder / BEST, f"{BEST}: {error.what}")

    def _set_aside(self, path: Path, why: str) -> None:
        line = f"{path.name} is damaged and not used ({why})"
        if not self.read_only:
            name = f"{path.name}.corrupt"
            number = 1
            while (self.folder / name).exists():
                number += 1
                name = f"{path.name}.corrupt-{number}"
            self.files.rename(path, self.folder / name)
            self.files.fsync_folder(self.folder)
            line += f"; it is now {name}"
        self._report(line)

    def _join(self) -> None:
        if self._writer is not None:
            self._writer.join()
            self._writer = None

    @contextmanager
    def _refusals(self, path: Path, needed: int | None = None) -> Iterator[None]:
        """Turn what the operating system refuses into a ResourceError."""
        try:
            yield
        except OSError as error:
            raise disk_error(error, path, self.files, needed) from error


def retained(steps: Iterable[int], best: Iterable[int], keep: int) -> set[int]:
    """Return the steps whose checkpoints stay: the newest `keep`, never fewer than two, and the best.

    Args:
        steps: those of all valid checkpoints.
        best: the steps of the best ones, as far as they were named.
        keep: how many of the newest stay.
    """
    steps = set(steps)
    return set(sorted(steps)[-max(keep, 2) :]) | (steps & set(best))


def _say_nothing(line: str) -> None:
    """Take a report and tell nobody."""


def _do_nothing() -> None:
    """The checkpoint is written already."""
