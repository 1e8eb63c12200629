"""What the layout task makes of techniques of training, as far as its options and its data allow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from trainkit import Technique

FEW_SHOT, FEATURE_NOISE, DROP_PATH, SMOOTHING = 5, 0.01, 0.1, 0.1
GUIDANCE, CONDITION_DROPOUT = 7.5, 0.1
EXPERTS = 2
# Sides of 256 and 512 beside pictures of 768 pixels, in the algorithm reference.
SCALES = (1 / 3, 2 / 3)


def smaller_sides(side: int, patch: int) -> list[int]:
    """Return the sides, multiples of a patch, nearest to a third and two thirds of a picture's."""
    sides = {patch * max(1, round(side * share / patch)) for share in SCALES}
    return sorted(smaller for smaller in sides if smaller < side)


def techniques(
    *,
    is_diffusion: bool,
    has_pictures: bool,
    has_structures: bool,
    dropout: float,
    side: int,
    patch: int,
    backbones: Sequence[str],
) -> Mapping[str, Technique]:
    """Return what can be used, and why the rest cannot.

    Args:
        is_diffusion: whether layouts are decoded by masked diffusion.
        has_pictures: whether pages have screenshots.
        has_structures: whether pages have structures.
        dropout: the task's own.
        side: of pictures in pixels.
        patch: side of a patch.
        backbones: which pretrained backbones are given: 'visual', 'text'.
    """
    left_to_right = "" if is_diffusion else "it belongs to task.order = diffusion"
    without_pictures = "" if has_pictures else "the pages have no screenshots"
    one_input = "" if has_pictures and has_structures else "nothing to align: it takes screenshots and structures"
    sides = smaller_sides(side, patch)
    no_scales = "" if sides else f"pictures of {side} pixels have no smaller side"
    if "visual" in backbones:
        no_scales = "task.visual_backbone decides about the sides of pictures"
    smoothed = {"loss.use": "multitask", "loss.diffusion.label_smoothing": SMOOTHING}
    if not is_diffusion:
        smoothed = {"loss.use": "cross-entropy", "loss.label_smoothing": SMOOTHING}
    found = {
        "dropout": Technique(settings={"task.dropout": dropout}, strength="task.dropout"),
        "stochastic-depth": _one("task.drop_path", DROP_PATH),
        "feature-noise": _one("task.feature_noise", FEATURE_NOISE),
        "few-shot": _one("task.support", FEW_SHOT, left_to_right or without_pictures),
        "guidance": Technique(
            settings={"task.guidance": GUIDANCE, "task.condition_dropout": CONDITION_DROPOUT},
            strength="task.guidance",
            lacking=left_to_right,
        ),
        "experts": Technique(
            settings={"task.experts": EXPERTS},
            strength="task.experts",
            trainable=("experts.*",),
            lacking=left_to_right,
        ),
        "multi-scale": Technique(
            settings={"task.scales": sides, "loss.use": "multi-scale-consistency"},
            lacking=left_to_right or without_pictures or no_scales,
        ),
        "multitask": Technique(settings={"loss.use": "multitask"}, lacking=left_to_right),
        "label-smoothing": Technique(settings=smoothed, strength=list(smoothed)[-1]),
        "variance-aware": Technique(
            settings={"loss.use": "variance-aware", "loss.main.use": "element-combination"},
            lacking=left_to_right or one_input,
        ),
        "modality-weighting": Technique(
            settings={"loss.use": "modality-weighting", "loss.main.use": "multitask", "loss.from_stage": 3},
            lacking=left_to_right,
        ),
        "dynamic-weighting": Technique(
            settings={"loss.use": "multitask", "loss.weighting": "uncertainty"}, lacking=left_to_right
        ),
        "unfreezing": Technique(
            settings={"callback.unfreezing.groups": [f"encoder.{name}.*" for name in sorted(backbones)] + ["*"]},
            lacking="" if backbones else "no pretrained backbone is given (task.visual_backbone, task.text_backbone)",
        ),
    }
    return {
        name: Technique(lacking=technique.lacking) if technique.lacking else technique
        for name, technique in found.items()
    }


def _one(key: str, value: float, lacking: str = "") -> Technique:
    return Technique(settings={key: value}, strength=key, lacking=lacking)
