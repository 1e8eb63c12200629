"""How many ranks a run asks for, and whether this process is one of so many."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from trainkit.config import Config, Layer, Value
from trainkit.engine import choose_device
from trainkit.errors import DataError, ResourceError, UsageError
from trainkit.settings import RunSettings, check_settings

from .world import World, joined

if TYPE_CHECKING:
    from trainkit.draft import Draft
    from trainkit.request import Request

ONE_DEVICE = "set --devices 1, or leave it out"


def different_number(asked: object, world: World) -> UsageError:
    """Build the answer to a number of devices that is not the number of processes that torchrun started."""
    return UsageError(
        f"{asked} devices are asked for, and torchrun has started {world.size} processes",
        where="devices",
        do=f"leave devices out, or start as many: torchrun --nproc-per-node {asked}",
    )


class SeveralRanks(UsageError):
    """A run on several devices was asked of one process; the command line then starts a process for each.

    Args:
        settings: of the run.
        ranks: how many it asks for.
    """

    def __init__(self, settings: RunSettings, ranks: int) -> None:
        self.settings, self.ranks = settings, ranks
        super().__init__(
            f"this run takes {ranks} devices, a process for each, and this is one process",
            where="devices",
            do=f"start it by 'trainkit run --devices {ranks}', or by 'torchrun --nproc-per-node {ranks}' as "
            "docs/ranks.md shows; or set devices to 1",
        )


def with_ranks(layers: Sequence[Layer], settings: RunSettings, world: World) -> list[Layer]:
    """Return what a user asked for with the number of ranks that there are; refuse another number than asked for."""
    if world.is_alone:
        check_number(settings)
        return list(layers)
    if settings.devices not in ("auto", world.size):
        raise different_number(settings.devices, world)
    return [*layers, {"devices": Value(world.size, "torchrun")}]


def join_again(config: Config, request: Request, world: World, stack: contextlib.ExitStack) -> None:
    """Let the ranks of a run that goes on speak to each other as long as a stack is open; there may be other ones."""
    if not world.is_alone:
        asked = [layer["devices"].value for layer in request.layers if "devices" in layer]
        if asked and asked[-1] not in ("auto", world.size):
            raise different_number(asked[-1], world)
        config.add({"devices": Value(world.size, "torchrun")})
    settings = check_settings(config)
    if world.is_alone:
        check_number(settings)
    stack.enter_context(joined(world, choose_device(settings.device, world), settings.rank_timeout))


def check_number(settings: RunSettings) -> None:
    """Raise SeveralRanks where one process does not do, or ResourceError where this machine has too few devices."""
    if settings.devices in ("auto", 1):
        return
    ranks = int(settings.devices)
    check_able(settings, ranks)
    if choose_device(settings.device).type == "cuda" and ranks > torch.cuda.device_count():
        raise ResourceError(
            f"{ranks} devices are asked for, and this machine has {torch.cuda.device_count()}",
            where="devices",
            do="take fewer; or start the run on each of several machines by torchrun, as docs/ranks.md shows",
        )
    raise SeveralRanks(settings, ranks)


def check_able(settings: RunSettings, ranks: int) -> None:
    """Refuse what several ranks cannot do, and a batch that would leave a rank without work."""
    if settings.folds is not None or settings.fold is not None:
        raise UsageError("folds are runs on one device each, so far", where=f"devices = {ranks}", do=ONE_DEVICE)
    if settings.lr_find:
        raise UsageError(
            "a learning rate is looked for on one device, so far",
            where=f"lr_find, and devices = {ranks}",
            do="run 'trainkit lr-find' first and set optimizer.lr to what it suggests",
        )
    if settings.loop.batch_size < ranks:
        raise UsageError(
            f"a batch of {settings.loop.batch_size} samples cannot be shared by {ranks} ranks",
            where="loop.batch_size, of all ranks together",
            do=f"set it to {ranks} at least, or take fewer devices",
        )


def check_shares(draft: Draft) -> None:
    """Refuse what several ranks cannot do, and ranks that do not see the same data."""
    world = draft.engine.world
    if world.is_alone:
        return
    check_able(draft.settings, world.size)
    seen = [draft.splits.fingerprint, draft.total_steps]
    if any(other != seen for other in world.everyones(seen)):
        raise DataError(
            "the ranks do not see the same data",
            where=draft.splits.source,
            why="their fingerprints of it, or the steps that follow from it, differ",
            do="give each machine the same copy",
        )
