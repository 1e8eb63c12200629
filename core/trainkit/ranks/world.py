"""Who a process is among the ranks of a run, and how ranks tell each other things: as tensors and JSON, never pickles.

A run of one process is a world of size 1: every answer is then the question, and nothing is waited for.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch

from trainkit.errors import RanksError, UsageError, printable

from .failure import GONE, LATE

if TYPE_CHECKING:
    from torch import Tensor

VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class World:
    """Say which rank this process is, and of how many.

    Args:
        rank: its number; rank 0 writes the run directory and talks to the user.
        size: how many ranks there are.
        local_rank: its number on this machine, which is that of its GPU.
        local_size: how many ranks this machine has.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1

    @property
    def is_first(self) -> bool:
        """Return whether this is rank 0."""
        return self.rank == 0

    @property
    def is_alone(self) -> bool:
        """Return whether there is no other rank."""
        return self.size == 1

    @property
    def words(self) -> tuple[int, ...]:
        """Return what sets this rank's random draws apart; rank 0 draws as a process alone does."""
        return (self.rank,) if self.rank else ()

    def sum(self, value: Tensor) -> Tensor:
        """Return the sum of a tensor over all ranks; it is on the same device and of the same shape on each."""
        if self.is_alone:
            return value
        total = value.clone()
        with speaking():
            torch.distributed.all_reduce(total)
        return total

    def table(self, numbers: Sequence[float]) -> list[list[float]]:
        """Return what every rank says, in their order; as many numbers on each."""
        if self.is_alone:
            return [list(numbers)]
        own = torch.tensor(numbers, dtype=torch.float64)
        return [list(map(float, row)) for row in self._gathered(own)]

    def everyones(self, value: Any) -> list[Any]:
        """Return what every rank says, in their order: JSON values, with numbers that are not finite."""
        return [json.loads(text) for text in self.everyones_bytes(json.dumps(value).encode())]

    def everyones_bytes(self, content: bytes) -> list[bytes]:
        """Return the bytes of every rank, in their order."""
        if self.is_alone:
            return [content]
        lengths = [int(row[0]) for row in self.table([len(content)])]
        longest = max(lengths)
        own = torch.zeros(longest, dtype=torch.uint8)
        own[: len(content)] = torch.frombuffer(bytearray(content), dtype=torch.uint8) if content else own[:0]
        rows = self._gathered(own)
        return [bytes(row[:length].numpy()) for row, length in zip(rows, lengths, strict=True)]

    def _gathered(self, own: Tensor) -> list[Tensor]:
        rows = [torch.empty_like(own) for _ in range(self.size)]
        with speaking():
            torch.distributed.all_gather(rows, own)
        return rows

    def firsts(self, value: Any) -> Any:
        """Return what rank 0 says, on every rank; a value of another rank is not looked at."""
        return value if self.is_alone else self.everyones(value if self.is_first else None)[0]


ALONE = World()


def world_of(environment: Mapping[str, str]) -> World:
    """Return the world that torchrun describes in environment variables; that of one process where it does not.

    Raises:
        UsageError: a variable of torchrun is missing, or is no number.
    """
    if "RANK" not in environment or "WORLD_SIZE" not in environment:
        return ALONE
    if missing := [name for name in VARIABLES if name not in environment]:
        raise UsageError(
            f"the environment has RANK and WORLD_SIZE, but not {', '.join(missing)}",
            why="torchrun, which starts ranks, sets all of them",
            do="start the run by 'trainkit run --devices N' or by torchrun; else unset RANK and WORLD_SIZE",
        )
    try:
        rank, size, local_rank = (int(environment[name]) for name in VARIABLES[:3])
        local_size = int(environment.get("LOCAL_WORLD_SIZE", size))
    except ValueError:
        found = ", ".join(f"{name}={printable(environment[name])}" for name in VARIABLES[:3])
        raise UsageError("the variables of torchrun are no numbers", where=found, do="unset them") from None
    return World(rank, size, local_rank, local_size)


def is_first(environment: Mapping[str, str]) -> bool:
    """Return whether a process is the one that talks to the user, without importing what ranks need."""
    return environment.get("RANK", "0") == "0"


@contextlib.contextmanager
def joined(world: World, device: torch.device, seconds: float) -> Iterator[None]:
    """Let the ranks of a world speak to each other within the block: over gloo, and over NCCL between GPUs.

    Args:
        world: which rank this is; its variables of torchrun say where the others are.
        device: where this rank computes.
        seconds: how long a rank waits for the others before it gives them up.
    """
    if world.is_alone or torch.distributed.is_initialized():
        yield
        return
    backend = "gloo"
    if device.type == "cuda":
        torch.cuda.set_device(device)
        backend = "cpu:gloo,cuda:nccl"
    with speaking():
        torch.distributed.init_process_group(backend, timeout=timedelta(seconds=seconds))
    try:
        yield
    finally:
        torch.distributed.destroy_process_group()


@contextlib.contextmanager
def speaking() -> Iterator[None]:
    """Raise RanksError where the other ranks cannot be reached."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, OSError) as error:
        said = (printable(str(error)).strip().splitlines() or [type(error).__name__])[0]
        is_late = any(word in said.lower() for word in ("timed out", "timeout"))
        raise RanksError(
            LATE if is_late else GONE,
            why=said,
            do="go on from the newest checkpoint: trainkit run --resume RUN_DIR"
            + ("; if ranks may be as slow as that, raise rank_timeout" if is_late else ""),
        ) from error
