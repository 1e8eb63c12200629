"""The files by which peft loads an adapter: what its config says, and how its weights are named."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .layer import LoRALinear

if TYPE_CHECKING:
    from torch import Tensor, nn

CONFIG_FILE, WEIGHTS_FILE = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."


def named_weights(layers: Mapping[str, LoRALinear], modules: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """Return the weights of an adapter under peft's names; they are the live ones.

    Args:
        layers: the adapted layers by name.
        modules: those that learn whole, by name.
    """
    found: dict[str, Tensor] = {}
    for name, layer in layers.items():
        found[f"{PREFIX}{name}.lora_A.weight"] = layer.lora_A
        found[f"{PREFIX}{name}.lora_B.weight"] = layer.lora_B
        if layer.magnitude is not None:
            found[f"{PREFIX}{name}.lora_magnitude_vector"] = layer.magnitude
    for name, module in modules.items():
        found |= {f"{PREFIX}{name}.{key}": tensor for key, tensor in module.state_dict(keep_vars=True).items()}
    return found


def config_text(
    model: nn.Module,
    targets: Sequence[str],
    modules: Sequence[str],
    r: int,
    alpha: float,
    dropout: float,
    *,
    rslora: bool,
    dora: bool,
) -> str:
    """Return adapter_config.json: the fields that peft needs to put the same matrices beside the same layers."""
    config: Any = getattr(model, "config", None)
    fields = {
        "peft_type": "LORA",
        "task_type": task_type(model),
        "base_model_name_or_path": getattr(config, "name_or_path", None) or None,
        "inference_mode": True,
        "r": r,
        "lora_alpha": alpha,
        "lora_dropout": dropout,
        "use_rslora": rslora,
        "use_dora": dora,
        "bias": "none",
        "fan_in_fan_out": False,
        "target_modules": list(targets),
        "modules_to_save": list(modules) or None,
    }
    return json.dumps(fields, indent=1) + "\n"


def task_type(model: nn.Module) -> str | None:
    """Return what peft calls the task of a Hugging Face model, or None."""
    if not hasattr(model, "prepare_inputs_for_generation"):
        return None
    return "SEQ_2_SEQ_LM" if getattr(getattr(model, "config", None), "is_encoder_decoder", False) else "CAUSAL_LM"
