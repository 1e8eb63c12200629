"""What a run can spare at its start."""

from __future__ import annotations

import torch

_MARKED_METHODS = ("add_param_group", "zero_grad", "state_dict", "load_state_dict")


def spare_compiler() -> None:
    """Keep PyTorch from importing its compiler for a run that compiles no optimizer.

    Four methods of `torch.optim.Optimizer` import `torch._dynamo` when they are first called, only to mark themselves
    as not to be compiled: more than half as much work again as importing PyTorch. The mark is an attribute of the plain
    function (`torch/_compile.py` of PyTorch 2.13); it is set here to the function itself. Where PyTorch does it in
    another way, nothing is done, and nothing breaks.
    """
    for name in _MARKED_METHODS:
        plain = getattr(getattr(torch.optim.Optimizer, name), "__wrapped__", None)
        if plain is not None and getattr(plain, "__dynamo_disable", None) is None:
            setattr(plain, "__dynamo_disable", plain)
