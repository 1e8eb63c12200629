"""Normal noise in bytes: a byte n stands for (n - 128) / STEPS standard deviations."""

from __future__ import annotations

from functools import cached_property

import numpy as np

STEPS = 30
POOL_SEED = 20
# Places in the pool at which a picture's noise may begin.
OFFSETS = 2**20


class Noise:
    """Give normal noise, cut from a pool at a random place, or drawn anew for each picture.

    Args:
        exact: draw anew.
    """

    def __init__(self, exact: bool = False) -> None:
        self.exact = exact
        self._pool = np.empty(0, dtype=np.uint8)

    @cached_property
    def _table(self) -> np.ndarray:
        """Return the noise of each 16-bit number: the inverse normal distribution at 65536 points."""
        import torch

        points = (torch.arange(65536, dtype=torch.float64) + 0.5) / 65536
        deviations: np.ndarray = torch.special.ndtri(points).numpy()
        # 65536 points reach 4.3 deviations; 127 / 30 = 4.2 lose two in 10^5 of them to the last step.
        return np.clip(np.rint(128 + STEPS * deviations), 0, 255).astype(np.uint8)

    def __call__(self, count: int, generator: np.random.Generator) -> np.ndarray:
        """Return [count] bytes of noise; the generator decides alone."""
        if self.exact:
            return self._drawn(count, int(generator.integers(2**63)))
        if len(self._pool) < count + OFFSETS:
            # The same numbers in every process, and the same first numbers for any size.
            self._pool = self._drawn(count + OFFSETS, POOL_SEED)
        start = int(generator.integers(OFFSETS))
        return self._pool[start : start + count]

    def _drawn(self, count: int, seed: int) -> np.ndarray:
        # Four 16-bit numbers of each 64-bit one, and a table: seven times as fast as drawing normal numbers.
        words = np.random.SFC64(seed).random_raw(-(-count // 4)).view(np.uint16)[:count]
        # 'clip' is only faster: every 16-bit number is in the table.
        return np.take(self._table, words, mode="clip")
