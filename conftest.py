"""Make PyTorch's warnings the same in every test, whichever of them runs first."""

from __future__ import annotations

import torch

# PyTorch gives most warnings once a process: a test that fails on one would pass behind another that met it before.
torch.set_warn_always(True)
