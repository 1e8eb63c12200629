"""What PyTorch tells about the GPU of a run. Nothing here waits for the work on it."""

from __future__ import annotations

import torch

GIB = 2**30


def gpu_values(device: torch.device) -> dict[str, float]:
    """Return how much of the GPU's memory is in use by anyone, and by this process now and at most, by tag."""
    free, total = torch.cuda.mem_get_info(device)
    return {
        "system/gpu_memory_percent": 100 * (1 - free / total),
        "system/gpu_memory_gib": torch.cuda.memory_allocated(device) / GIB,
        "system/gpu_peak_memory_gib": torch.cuda.max_memory_allocated(device) / GIB,
    }


def driver_values(device: torch.device) -> dict[str, float]:
    """Return what the driver tells through NVIDIA's library, by tag; raise ModuleNotFoundError where that is not there.

    The share of time in which the GPU worked is that of the last second or less, as the driver measures it.
    """
    return {
        "system/gpu_percent": float(torch.cuda.utilization(device)),
        "system/gpu_celsius": float(torch.cuda.temperature(device)),
        "system/gpu_watts": torch.cuda.power_draw(device) / 1000,
    }
