"""The machine under a run: device, precision, threads, and batches on their way to it."""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from .errors import ResourceError, UsageError
from .heap import keep_heap
from .ranks.world import ALONE, World
from .startup import spare_compiler

Precision = Literal["fp32", "bf16", "fp16"]
_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Engine:
    """Hold where and how precisely a run computes."""

    device: torch.device
    precision: Precision
    world: World = ALONE

    @property
    def is_cuda(self) -> bool:
        """Return whether the device is a GPU."""
        return self.device.type == "cuda"

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """Return the context of forward passes and losses."""
        if self.precision == "fp32":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=_AUTOCAST[self.precision])

    def scaler(self) -> torch.amp.GradScaler | None:
        """Return a gradient scaler where the precision needs one: fp16."""
        return torch.amp.GradScaler(self.device.type) if self.precision == "fp16" else None

    def place(self, batch: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the batch on the device; what is no tensor stays as it is."""
        if not self.is_cuda:
            return batch
        return {k: v.to(self.device, non_blocking=True) if isinstance(v, torch.Tensor) else v for k, v in batch.items()}

    def synchronize(self) -> None:
        """Wait until the device has done what was asked of it."""
        if self.is_cuda:
            torch.cuda.synchronize(self.device)


def choose_device(name: str, world: World = ALONE) -> torch.device:
    """Return the device of a setting; raise ResourceError if the machine does not have it.

    Of several ranks on a machine each takes the GPU of its number.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    if not world.is_alone and device.type == "cuda":
        if ":" in name:
            raise UsageError(f"device {name} is one GPU, and {world.size} ranks need one each", do="take --device cuda")
        device = torch.device("cuda", world.local_rank)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ResourceError(
            f"device {name} is not there",
            why=f"PyTorch {torch.__version__} sees {torch.cuda.device_count()} CUDA devices",
            do="take --device cpu or --device auto",
        )
    return device


def half_precision(device: torch.device) -> Literal["bf16", "fp16"] | None:
    """Return the half precision in which a device is faster than in single precision, or None on a CPU."""
    if device.type != "cuda":
        return None
    return "bf16" if torch.cuda.is_bf16_supported() else "fp16"


def choose_precision(name: str, device: torch.device) -> Precision:
    """Return the precision of a setting; raise UsageError where the device does not offer it."""
    if name == "auto":
        return "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "fp32"
    if name == "fp16" and device.type == "cpu":
        raise UsageError(
            "precision: fp16 needs a GPU",
            why="a CPU has no arithmetic of this kind that trains",
            do="take --precision bf16 or --precision fp32",
        )
    assert name in ("fp32", "bf16", "fp16")
    return name  # type: ignore[return-value]


def start(
    device: str,
    precision: str,
    deterministic: bool,
    threads: int | None,
    *,
    keeps_heap: bool = False,
    world: World = ALONE,
) -> Engine:
    """Prepare the process for a run and return its engine."""
    spare_compiler()
    if keeps_heap:
        keep_heap()
    if threads is not None:
        torch.set_num_threads(threads)
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if deterministic != torch.are_deterministic_algorithms_enabled():
        # Asked only where it changes something: the call imports PyTorch's compiler, half as long as importing PyTorch.
        torch.use_deterministic_algorithms(deterministic)
    chosen = choose_device(device, world)
    return Engine(chosen, choose_precision(precision, chosen), world)


def device_name(device: torch.device) -> str:
    """Return the name of a GPU, or of the processor as the system tells it."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine() or "cpu"


def memory_bytes(device: torch.device) -> int | None:
    """Return the memory of the device in bytes, or None where the system does not tell."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None
