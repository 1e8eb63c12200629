"""What a variant of a screenshot costs: trainkit beside albumentations, kornia and Pillow, in one process, one thread.

Fifty variants of a 512 x 512 screenshot with 20 boxes, bytes in and bytes out, the transforms and ranges of phase 1, in
two settings: with the probabilities of phase 1, and with every transform in every variant. The contestants take turns;
times are those of the processor, which a busy machine changes little; ratios are medians over the rounds. What is not
installed is left out.

    python tests/benchmarks/bench_augment.py [ROUNDS]

The peers are no dependencies of the project. To have them beside it, and out of its way:

    pip install --target peers --no-deps albumentations==2.0.8 albucore==0.0.24 stringzilla simsimd scipy \
        kornia==0.9.0 kornia_rs
    PYTHONPATH=peers python tests/benchmarks/bench_augment.py
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from torch.nn import functional
from trainkit.randomness import variant_generator
from trainkit.registry import Registry

SIDE, VARIANTS, BOXES = 512, 50, 20
RESOLUTIONS = (256, 384, 512, 768, 1024)
DRAWN = {
    "spatial": 0.8, "colour": 0.9, "hue": 0.5, "resolution": 0.7, "degradation": 0.4, "noise": 0.3, "blur": 0.2,
    "motion": 0.2, "perspective": 0.5, "corners": 0.3,
}  # fmt: skip
SETTINGS = {"probabilities of phase 1": DRAWN, "every transform": dict.fromkeys(DRAWN, 1.0)}
POOLED, FRESH, TORCH = "trainkit, OpenCV", "trainkit, OpenCV, fresh noise", "trainkit, PyTorch alone"
ALBUMENTATIONS, KORNIA, PILLOW = "albumentations", "kornia", "Pillow and NumPy"
GOALS = (
    (POOLED, ALBUMENTATIONS, 3.0),
    (FRESH, ALBUMENTATIONS, 1.7),
    (POOLED, PILLOW, 5.0),
    (POOLED, KORNIA, 10.0),
    (TORCH, PILLOW, 1.4),
)
Contestant = Callable[[int], object]


def screenshot() -> np.ndarray:
    """Return a page of [512, 512, 3] bytes: a header, cards, lines of text, a picture."""
    rng = np.random.default_rng(0)
    page = np.full((SIDE, SIDE, 3), 250, dtype=np.uint8)
    page[:48] = (40, 60, 90)
    for top in range(80, SIDE - 120, 140):
        for left in range(20, SIDE - 140, 160):
            page[top : top + 120, left : left + 140] = rng.integers(180, 256, 3)
            for row in range(top + 70, top + 110, 8):
                page[row : row + 3, left + 10 : left + int(rng.integers(40, 130))] = 60
            page[top + 8 : top + 60, left + 10 : left + 130] = rng.integers(0, 256, (52, 120, 3))
    return page


def boxes() -> np.ndarray:
    """Return [20, 4] boxes x0, y0, x1, y1 in pixels."""
    rng = np.random.default_rng(1)
    low = rng.uniform(0.05, 0.7, (BOXES, 2))
    return SIDE * np.concatenate([low, low + rng.uniform(0.05, 0.25, (BOXES, 2))], axis=1)


def sample_of(image: np.ndarray, places: np.ndarray) -> dict[str, Any]:
    """Return the sample of a layout of 20 parts with boxes."""
    centres, sides = (places[:, :2] + places[:, 2:]) / 2 / SIDE, (places[:, 2:] - places[:, :2]) / SIDE
    parts = [
        {"key": "image", "children": [], "attributes": {"box": box}}
        for box in np.concatenate([centres, sides], axis=1).tolist()
    ]
    return {"image": image, "structure": None, "layout": {"key": "", "children": parts, "attributes": {}}}


def by_trainkit(sample: Mapping[str, Any], probabilities: Mapping[str, float], **options: Any) -> Contestant:
    """Return the augmenter 'screenshot', loaded by name as a run does it."""
    component = Registry().load("augmenter", "screenshot")
    augment = component.build(component.validate({"probabilities": probabilities, **options}))
    return lambda number: augment(sample, variant_generator(0, 0, 0, number))


def by_albumentations(image: np.ndarray, places: np.ndarray, chances: Mapping[str, float]) -> Contestant:
    """Return the same set by albumentations; its boxes are clipped and dropped below 30 % visibility, too."""
    import albumentations as album
    import cv2

    cv2.setNumThreads(1)
    degraded = chances["degradation"]
    smooth = {"upscale": cv2.INTER_LINEAR, "downscale": cv2.INTER_AREA}
    # OpenCV's own way to make a picture smaller and up again; at its own size or above nothing is to be done.
    sizes = [
        album.Downscale(scale_range=(side / SIDE, side / SIDE), interpolation_pair=smooth, p=1)
        if side < SIDE
        else album.NoOp(p=1)
        for side in RESOLUTIONS
    ]
    pipeline = album.Compose(
        [
            album.OneOf(sizes, p=chances["resolution"]),
            album.Affine(
                scale=(0.8, 1.2), rotate=(-5, 5), translate_percent=(-0.1, 0.1), fill=250, p=chances["spatial"]
            ),
            album.Perspective(scale=(0.05, 0.15), fill=250, p=chances["perspective"] * chances["corners"]),
            album.GaussianBlur(blur_limit=0, sigma_limit=(0.5, 1.5), p=degraded * chances["blur"]),
            album.MotionBlur(blur_limit=(3, 9), p=degraded * chances["motion"]),
            album.ColorJitter((0.7, 1.3), (0.8, 1.2), (0.9, 1.1), (0, 0), p=chances["colour"]),
            album.HueSaturationValue(9, 0, 0, p=chances["colour"] * chances["hue"]),
            album.GaussNoise(std_range=(0.01, 0.03), p=degraded * chances["noise"]),
        ],
        bbox_params=album.BboxParams(format="pascal_voc", min_visibility=0.3, label_fields=["labels"]),
        seed=0,
    )
    labels = list(range(BOXES))
    return lambda number: pipeline(image=image, bboxes=places, labels=labels)


def by_kornia(image: np.ndarray, places: np.ndarray, chances: Mapping[str, float]) -> Contestant:
    """Return the same set by kornia, one picture at a time, which it does faster than a batch."""
    import kornia.augmentation as kornia

    degraded = chances["degradation"]
    pipeline = kornia.AugmentationSequential(
        kornia.RandomAffine(5, (0.1, 0.1), (0.8, 1.2), p=chances["spatial"]),
        kornia.RandomPerspective(0.3, p=chances["perspective"] * chances["corners"]),
        kornia.RandomGaussianBlur((7, 7), (0.5, 1.5), p=degraded * chances["blur"]),
        kornia.RandomMotionBlur((3, 9), 180.0, 0.0, p=degraded * chances["motion"]),
        kornia.ColorJitter(0.3, 0.2, 0.1, 0.0, p=chances["colour"]),
        kornia.RandomHue((-0.05, 0.05), p=chances["colour"] * chances["hue"]),
        kornia.RandomGaussianNoise(0.0, 0.02, p=degraded * chances["noise"]),
        data_keys=["input", "bbox_xyxy"],
    )
    corners = torch.from_numpy(places).float()[None]

    def contestant(number: int) -> object:
        rng = np.random.default_rng(number)
        planes = torch.from_numpy(image).permute(2, 0, 1)[None].float().div(255)
        side = int(rng.choice(RESOLUTIONS)) if rng.random() < chances["resolution"] else SIDE
        if side < SIDE:
            planes = functional.interpolate(planes, (side, side), mode="bilinear", antialias=True)
            planes = functional.interpolate(planes, (SIDE, SIDE), mode="bilinear")
        moved, moved_boxes = pipeline(planes, corners)
        pixels = moved[0].clamp(0, 1).mul(255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
        return pixels, moved_boxes

    return contestant


def by_pillow(image: np.ndarray, places: np.ndarray, chances: Mapping[str, float]) -> Contestant:
    """Return the same set by Pillow, and by NumPy where Pillow has nothing: noise, motion blur, hue, boxes."""
    from PIL import Image, ImageEnhance, ImageFilter

    fill = (250, 250, 250)

    def contestant(number: int) -> object:
        rng = np.random.default_rng(number)

        def happens(*names: str) -> bool:
            return bool(rng.random() < np.prod([chances[name] for name in names]))

        picture = Image.fromarray(image)
        if happens("resolution") and (side := int(rng.choice(RESOLUTIONS))) < SIDE:
            picture = picture.resize((side, side), Image.Resampling.BOX)
            picture = picture.resize((SIDE, SIDE), Image.Resampling.BILINEAR)
        forward = np.eye(3)
        if happens("spatial"):
            matrix = affine(rng.uniform(-5, 5), rng.uniform(0.8, 1.2), rng.uniform(-0.1, 0.1, 2) * SIDE)
            back = np.linalg.inv(matrix)[:2].ravel()
            way = Image.Transform.AFFINE
            picture = picture.transform(picture.size, way, back, Image.Resampling.BILINEAR, fillcolor=fill)
            forward = matrix
        if happens("perspective", "corners"):
            matrix = homography(rng.uniform(0.05, 0.15, (4, 2)) * SIDE)
            back = np.linalg.inv(matrix)
            back = (back / back[2, 2]).ravel()[:8]
            way = Image.Transform.PERSPECTIVE
            picture = picture.transform(picture.size, way, back, Image.Resampling.BILINEAR, fillcolor=fill)
            forward = matrix @ forward
        if happens("degradation", "blur"):
            picture = picture.filter(ImageFilter.GaussianBlur(rng.uniform(0.5, 1.5)))
        if happens("degradation", "motion"):
            picture = Image.fromarray(smeared(np.asarray(picture), int(rng.integers(1, 5)), rng.uniform(0, np.pi)))
        if happens("colour"):
            picture = ImageEnhance.Brightness(picture).enhance(rng.uniform(0.7, 1.3))
            picture = ImageEnhance.Contrast(picture).enhance(rng.uniform(0.8, 1.2))
            picture = ImageEnhance.Color(picture).enhance(rng.uniform(0.9, 1.1))
            if rng.random() < chances["hue"]:
                hsv = np.array(picture.convert("HSV"))
                hsv[..., 0] += np.uint8(int(rng.uniform(-0.05, 0.05) * 255) % 256)
                picture = Image.fromarray(hsv, "HSV").convert("RGB")
        pixels = np.asarray(picture)
        if happens("degradation", "noise"):
            noise = rng.standard_normal(pixels.shape, dtype=np.float32) * np.float32(255 * rng.uniform(0.01, 0.03))
            pixels = np.clip(np.rint(pixels + noise), 0, 255).astype(np.uint8)
        return pixels, moved(places, forward)

    return contestant


def affine(degrees: float, scale: float, shift: np.ndarray) -> np.ndarray:
    """Return the forward matrix about the centre."""
    angle, middle = np.deg2rad(degrees), SIDE / 2
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    linear = np.array([[cos, sin], [-sin, cos]])
    matrix = np.eye(3)
    matrix[:2, :2], matrix[:2, 2] = linear, middle + shift - linear @ [middle, middle]
    return matrix


def homography(shifts: np.ndarray) -> np.ndarray:
    """Return the forward matrix that moves the four corners inwards by [4, 2] pixels."""
    old = np.array([[0, 0], [SIDE, 0], [SIDE, SIDE], [0, SIDE]], dtype=np.float64)
    new = old + shifts * np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]])
    rows, right = [], []
    for (x, y), (u, v) in zip(old, new, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        right += [u, v]
    return np.append(np.linalg.solve(np.array(rows), np.array(right)), 1).reshape(3, 3)


def moved(places: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Return the hulls of the boxes [N, 4] after a transform, clipped."""
    x0, y0, x1, y1 = places.T
    corners = np.stack([[x0, y0], [x1, y0], [x1, y1], [x0, y1]]).transpose(0, 2, 1)
    whole = np.concatenate([corners, np.ones((*corners.shape[:2], 1))], axis=2) @ matrix.T
    flat = whole[..., :2] / whole[..., 2:]
    return np.concatenate([flat.min(0), flat.max(0)], axis=1).clip(0, SIDE)


def smeared(pixels: np.ndarray, half: int, angle: float) -> np.ndarray:
    """Return the mean along a line of 2 half + 1 pixels."""
    padded = np.pad(pixels, ((half, half), (half, half), (0, 0)), mode="edge")
    total = np.zeros(pixels.shape, dtype=np.uint16)
    for step in range(-half, half + 1):
        top, left = half + round(step * np.sin(angle)), half + round(step * np.cos(angle))
        total += padded[top : top + SIDE, left : left + SIDE]
    return (total // (2 * half + 1)).astype(np.uint8)


def contestants(chances: Mapping[str, float]) -> dict[str, Contestant]:
    """Return everyone who is installed."""
    image, places = screenshot(), boxes()
    sample = sample_of(image, places)
    found: dict[str, Contestant] = {}
    if find_spec("cv2"):
        found[POOLED] = by_trainkit(sample, chances, backend="opencv")
        found[FRESH] = by_trainkit(sample, chances, backend="opencv", exact_noise=True)
    found[TORCH] = by_trainkit(sample, chances, backend="torch")
    peers = {"albumentations": (ALBUMENTATIONS, by_albumentations), "kornia": (KORNIA, by_kornia)}
    for package, (name, make) in {**peers, "PIL": (PILLOW, by_pillow)}.items():
        if find_spec(package):
            found[name] = make(image, places, chances)
    return found


def milliseconds(contestant: Contestant) -> float:
    """Return the processor's time for a variant, over fifty of them."""
    started = time.process_time()
    for number in range(1, VARIANTS + 1):
        contestant(number)
    return 1000 * (time.process_time() - started) / VARIANTS


def main() -> int:
    """Measure, print a table for each setting, and return 1 if a goal is missed."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    torch.set_num_threads(1)
    names = {"albumentations": ALBUMENTATIONS, "kornia": KORNIA, "opencv-python-headless": "OpenCV", "pillow": "Pillow"}
    modules = {"opencv-python-headless": "cv2", "pillow": "PIL"}
    here = [package for package in names if find_spec(modules.get(package, package))]
    print(f"{VARIANTS} variants of {SIDE} x {SIDE} with {BOXES} boxes, {rounds} rounds, one thread")
    print(", ".join(f"{names[package]} {version(package)}" for package in here), f"torch {torch.__version__}", sep=", ")
    print(f"left out, as not installed: {', '.join(names[package] for package in names if package not in here) or '-'}")
    missed = 0
    for setting, chances in SETTINGS.items():
        field = contestants(chances)
        times: dict[str, list[float]] = {name: [] for name in field}
        for number in range(rounds + 1):
            for name, contestant in field.items():
                spent = milliseconds(contestant)
                # The first round fills pools and caches.
                if number:
                    times[name].append(spent)
        print(f"\n{setting:<32}{'ms a variant':>14}{'variants/s':>12}")
        for name, spent in times.items():
            print(f"  {name:<30}{statistics.median(spent):>14.2f}{1000 / statistics.median(spent):>12.0f}")
        for ours, theirs, goal in GOALS:
            if ours in times and theirs in times:
                ratio = statistics.median(b / a for a, b in zip(times[ours], times[theirs], strict=True))
                missed += ratio < goal
                verdict = "reached" if ratio >= goal else "MISSED"
                print(f"  {ours} against {theirs}: {ratio:.1f}x as fast, goal {goal}x, {verdict}")
    return int(missed > 0)


if __name__ == "__main__":
    raise SystemExit(main())
