"""Starting the ranks of a run on this machine: by PyTorch's elastic agent, as torchrun does, and telling their end."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import tempfile
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainkit.errors import ExitCode, RanksError
from trainkit.signals import EXIT_CODES

from .failure import LATE, LAUNCHED, Failure, failures

if TYPE_CHECKING:
    from .asked import SeveralRanks

MOST_GRACE_SECONDS = 60
ENDED_BY_SIGNAL = 128


def launch(command: Sequence[str], asked: SeveralRanks) -> int:
    """Run a command in a process for each rank, on this machine; return its exit code.

    A signal to this process ends all ranks, with the run's state saved. If one of them dies, the others end, too.

    Args:
        command: of `python -m trainkit_cli`.
        asked: how many ranks, and the settings of their run.

    Raises:
        RanksError: a rank was lost, or did not answer.
    """
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, launch_agent

    # What went wrong is told below, once, and in our words.
    for name in [name for name in logging.Logger.manager.loggerDict if name.startswith("torch.distributed.elastic")]:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    threads = max(1, (os.cpu_count() or 1) // asked.ranks)
    with (
        _environment({"OMP_NUM_THREADS": str(threads), **os.environ, LAUNCHED: "1"}),
        tempfile.TemporaryDirectory(prefix="trainkit-ranks-") as folder,
    ):
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=asked.ranks,
            run_id=uuid.uuid4().hex,
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            local_addr="localhost",
            max_restarts=0,
            logs_specs=DefaultLogsSpecs(log_dir=folder),
            signals_to_handle=",".join(number.name for number in EXIT_CODES),
            shutdown_timeout=int(min(MOST_GRACE_SECONDS, asked.settings.rank_timeout)),
        )
        try:
            launch_agent(config, sys.executable, ["-m", "trainkit_cli", *command])
        except SignalException as heard:
            return told(failures(Path(folder)), {}, EXIT_CODES.get(heard.sigval, ExitCode.TERMINATED))
        except ChildFailedError as failed:
            return told(failures(Path(folder)), failed.failures, ExitCode.RANKS)
        return int(ExitCode.DONE)


@contextlib.contextmanager
def _environment(environment: Mapping[str, str]) -> Iterator[None]:
    """Let processes that are started have an environment."""
    before = dict(os.environ)
    os.environ.update(environment)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def told(found: Sequence[Failure], processes: dict[int, Any], otherwise: int) -> int:
    """Return the exit code of the first cause, and tell it; a rank that missed another one is no cause."""
    # A rank that did not answer is ended by the agent: that is no cause either.
    if causes := [failure for failure in found if failure.code != ExitCode.RANKS or LATE in failure.text]:
        print(causes[0].text, file=sys.stderr)
        return causes[0].code
    if lost := lost_rank(processes.items()):
        raise lost
    if ends := [process.exitcode for process in processes.values() if process.exitcode in set(EXIT_CODES.values())]:
        return int(ends[0])
    if found:
        print(found[0].text, file=sys.stderr)
        return found[0].code
    if codes := [process.exitcode for process in processes.values()]:
        return int(codes[0])
    return int(otherwise)


def lost_rank(processes: Iterable[tuple[int, Any]]) -> RanksError | None:
    """Return the message of a rank that a signal ended, or None."""
    for rank, process in processes:
        if process.exitcode < 0:
            return RanksError(
                f"rank {rank} (process {process.pid}) was ended by {process.signal_name()}, and the others with it",
                why="an operating system that is short of memory ends processes so, by SIGKILL"
                if process.signal_name() == "SIGKILL"
                else "",
                do="go on from the newest checkpoint: trainkit run --resume RUN_DIR",
            )
    return None
