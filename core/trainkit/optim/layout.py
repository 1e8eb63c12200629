"""Which blocks a parameter group is stepped in, and how that follows from which parameters have gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import groupby

from torch import Tensor

from .blocks import PIECE, SMALL, AnyBlock, FlatBlock, ListBlock, WholeBlock, is_dense, may_move

State = tuple[int, list[Tensor]]
"""The steps a parameter has had, and its moments."""


class Layout:
    """Keep the blocks of one parameter group.

    A parameter joins a block when it first has a gradient, together with all that have had as many steps. One whose
    gradient is missing later leaves its block for one of its own, for good: each parameter moves at most once.

    Args:
        state_of: returns a parameter's steps and moments; fresh ones where it has none.
        publish: is told of each new block.
    """

    def __init__(self, state_of: Callable[[Tensor], State], publish: Callable[[AnyBlock], None]) -> None:
        self._state_of, self._publish = state_of, publish
        self.blocks: list[AnyBlock] = []
        self._waiting: list[Tensor] = []
        self._loose: set[Tensor] = set()
        self._known = 0

    def ready(self, params: list[Tensor]) -> list[AnyBlock]:
        """Return the blocks to step: together they hold every parameter that has a gradient."""
        if self._known != len(params):
            placed = {p for block in self.blocks for p in block.params}
            self._waiting = [p for p in params if p not in placed and p.numel()]
            self._known = len(params)
        ready, kept = [], []
        for block in self.blocks:
            missing = block.missing()
            if missing and len(block.params) > 1:
                self._loose.update(missing)
            if (missing and len(block.params) > 1) or not block.in_place():
                block.release()
                self._waiting += block.params
                continue
            kept.append(block)
            if not missing:
                ready.append(block)
        self.blocks = kept
        if arrived := [p for p in self._waiting if p.grad is not None]:
            here = set(arrived)
            self._waiting = [p for p in self._waiting if p not in here]
            new = self._built(arrived)
            self.blocks += new
            ready += [block for block in new if not block.missing()]
        return ready

    def release(self) -> None:
        """Give all parameters memory of their own again, and forget the blocks."""
        for block in self.blocks:
            block.release()
        self.blocks, self._waiting, self._known = [], [], 0

    def _built(self, params: list[Tensor]) -> list[AnyBlock]:
        states = {p: self._state_of(p) for p in params}
        blocks: list[AnyBlock] = []
        flat = [p for p in params if p.numel() < SMALL and p not in self._loose and may_move(p)]
        flat.sort(key=lambda p: (states[p][0], str(p.dtype), p.ndim, p.shape[1:], p.shape[:1]))
        listed = []
        for chosen in _chunks(flat, states):
            if len(chosen) > 1:
                moments = zip(*(states[p][1] for p in chosen), strict=True)
                blocks.append(FlatBlock(chosen, [list(row) for row in moments], states[chosen[0]][0]))
        placed = {p for block in blocks for p in block.params}
        for p in params:
            if p in placed:
                continue
            if is_dense(p) and all(m.is_contiguous() for m in states[p][1]):
                blocks.append(WholeBlock(p, states[p][1], states[p][0]))
            else:
                listed.append(p)
        blocks += [self._list_block(group, states) for group in _alike(listed, states, self._loose)]
        for block in blocks:
            self._publish(block)
        return blocks

    @staticmethod
    def _list_block(params: list[Tensor], states: dict[Tensor, State]) -> ListBlock:
        return ListBlock(
            params, [list(row) for row in zip(*(states[p][1] for p in params), strict=True)], states[params[0]][0]
        )


def _chunks(params: list[Tensor], states: dict[Tensor, State]) -> Iterable[list[Tensor]]:
    """Yield neighbours of one dtype and one number of steps that together fill a piece."""
    for _, alike in groupby(params, key=lambda p: (states[p][0], p.dtype)):
        chunk: list[Tensor] = []
        for p in alike:
            if chunk and sum(q.numel() for q in chunk) + p.numel() > PIECE:
                yield chunk
                chunk = []
            chunk.append(p)
        yield chunk


def _alike(params: list[Tensor], states: dict[Tensor, State], loose: set[Tensor]) -> Iterable[list[Tensor]]:
    """Yield lists of one device, dtype, class and number of steps; each loose parameter alone."""
    lists: dict[object, list[Tensor]] = {}
    for p in params:
        key = id(p) if p in loose else (p.device, p.dtype, type(p.data), states[p][0])
        lists.setdefault(key, []).append(p)
    return lists.values()
