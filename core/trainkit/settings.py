"""The settings that belong to no component: how long, how much, where, how often."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveFloat, PositiveInt, ValidationError

from .config import Config
from .errors import unknown_key, wrong_value
from .hooks import KINDS


class Section(BaseModel):
    """Refuse unknown keys; never change after validation."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class LoopSettings(Section):
    """Length and shape of the training loop."""

    epochs: PositiveInt | None = None
    """Length in epochs over all stages; stages keep their proportions."""
    max_steps: PositiveInt | None = None
    """The run ends at this optimizer step at the latest."""
    batch_size: PositiveInt = 16
    """Samples of one micro-batch."""
    accumulate: PositiveInt = 1
    """Micro-batches of one optimizer step."""
    variants: PositiveInt = 1
    """How often an epoch draws each sample; all but variant 0 are augmented."""
    buckets: NonNegativeInt = 100
    """Batches that are sorted by length together, where samples have lengths; 0: lengths are mixed in a batch."""
    clip: PositiveFloat | None = 1.0
    """Largest global gradient norm; 'none' to switch off."""
    nan_policy: Literal["stop", "skip"] = "stop"
    """What happens when a gradient is not finite: stop before the update, or skip the update and count it."""
    nan_patience: PositiveInt = 10
    """Skipped updates in a row that end the run under nan_policy = skip."""
    compile: bool = False
    """Compile the model by torch.compile."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    workers: NonNegativeInt | Literal["auto"] = "auto"
    """Processes that prepare batches; auto: none, unless waiting for batches takes long and some turn out faster."""
    log_every_steps: PositiveInt | None = 10
    """Optimizer steps between two rows of training values."""
    log_every_epochs: PositiveInt | None = None
    """Epochs between two rows of training values, in addition to the steps."""


class EvaluateSettings(Section):
    """When and on what the model is evaluated."""

    every_epochs: PositiveInt | None = 1
    """Epochs between two evaluations of the validation split."""
    every_steps: PositiveInt | None = None
    """Optimizer steps between two evaluations, in addition to the epochs."""
    batch_size: PositiveInt | None = None
    """Samples of an evaluation batch; loop.batch_size if not set."""
    monitor: str = "val/loss"
    """The value that decides about the best checkpoint."""
    mode: Literal["auto", "min", "max"] = "auto"
    """Whether the monitored value should fall or rise; auto asks the metric."""
    train_samples: NonNegativeInt = 1000
    """How many training samples the final table looks at; the first ones."""
    final: bool = True
    """Evaluate the best checkpoint on every split, beside the baselines, when training ends."""


class CheckpointSettings(Section):
    """When checkpoints are written and how many stay."""

    every_epochs: PositiveInt | None = 1
    """Epochs between two checkpoints."""
    every_steps: PositiveInt | None = None
    """Optimizer steps between two checkpoints, in addition to the epochs."""
    keep: Annotated[int, Field(ge=2)] = 2
    """How many of the newest checkpoints stay, beside the best."""
    keep_best: PositiveInt = 1
    """How many of the best checkpoints by evaluate.monitor stay, beside the newest."""
    background: bool = True
    """Write in the background while training goes on."""


class RunSettings(Section):
    """Everything about a run that is not a component."""

    data: str | None = None
    """Folder or file of the data; the task's embedded sample if not set."""
    seed: NonNegativeInt = 0
    """Decides about weights, order, augmentation and dropout."""
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$")] = "auto"
    """auto, cpu, cuda or cuda:N."""
    devices: PositiveInt | Literal["auto"] = "auto"
    """How many devices share each batch, a process (rank) for each; auto: as many as torchrun started, else one."""
    parallel: Literal["ddp", "fsdp"] = "ddp"
    """What several ranks hold: ddp, all weights each; fsdp, a shard each of weights, gradients and optimizer state."""
    rank_timeout: PositiveFloat = 600.0
    """Seconds that a rank waits for the others before it gives them up."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Arithmetic of forward and backward passes; auto is bf16 on a GPU that has it, fp32 elsewhere."""
    deterministic: bool = False
    """Use deterministic algorithms only, so that a GPU repeats itself to the bit."""
    threads: PositiveInt | None = None
    """CPU threads of an operation; PyTorch's choice if not set."""
    keep_heap: bool = True
    """Keep freed memory for what is allocated next, on Linux with glibc: less CPU time; holds for the whole process."""
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")] | None = None
    """Name of the run, the start of its directory's name; the task's name if not set."""
    out: str | None = None
    """The run directory; a new one under runs/ if not set."""
    folds: Annotated[int, Field(ge=2)] | None = None
    """Cross-validate by so many folds of the training and validation samples: a run for each, in folds/ of this one."""
    refit: bool = True
    """After the folds, train once more on all of these samples, in final/, as long as the folds took to their best."""
    fold: Annotated[str, Field(pattern=r"^(all|[0-9]+/[0-9]+)$")] | None = None
    """Run on one fold alone, as 2/5: the second of five; all: on training and validation samples together."""
    lr_find: bool = False
    """Test learning rates before training and take what is found for optimizer.lr, as 'trainkit lr-find' suggests."""
    loop: LoopSettings = LoopSettings()
    evaluate: EvaluateSettings = EvaluateSettings()
    checkpoint: CheckpointSettings = CheckpointSettings()


SECTIONS: dict[str, type[Section]] = {
    "loop": LoopSettings,
    "evaluate": EvaluateSettings,
    "checkpoint": CheckpointSettings,
}


def setting_keys() -> list[str]:
    """Return the dotted keys of all settings."""
    own = [name for name in RunSettings.model_fields if name not in SECTIONS]
    return own + [f"{section}.{name}" for section, model in SECTIONS.items() for name in model.model_fields]


def describe_settings() -> list[tuple[str, object, str]]:
    """Return (dotted key, default, help) of every setting."""
    rows = []
    for key in setting_keys():
        section, _, name = key.rpartition(".")
        field = (SECTIONS[section] if section else RunSettings).model_fields[name]
        rows.append((key, field.default, field.description or ""))
    return rows


def check_settings(config: Config) -> RunSettings:
    """Return the settings of a config; raise UsageError with place, value, what is allowed and the nearest name."""
    known = setting_keys()
    for key in config:
        kind = key.partition(".")[0]
        if kind not in KINDS and kind != "stages" and key not in known:
            raise unknown_key(key, [*known, *KINDS], config.origin(key))
    try:
        return RunSettings.model_validate(config.settings())
    except ValidationError as error:
        faults = error.errors()
        # Where a setting has alternatives, each has a fault, and its place one part more.
        depth = 2 if faults[0]["loc"][0] in SECTIONS else 1
        place = faults[0]["loc"][:depth]
        key = ".".join(map(str, place))
        expected = ", or ".join(f["msg"][:1].lower() + f["msg"][1:] for f in faults if f["loc"][:depth] == place)
        raise wrong_value(key, faults[0]["input"], expected, config.origin(key)) from None
