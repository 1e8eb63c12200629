"""Options, determinism, identities, and both backends on painted pictures."""

from __future__ import annotations

import copy
import pickle
import sys
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from trainkit.errors import DataError, UsageError
from trainkit.registry import Registry
from trainkit.testing import AugmenterConformance
from trainkit_augmenter_screenshot.draws import PROBABILITIES, RESOLUTIONS, Chance, Changes, draw, ranges_of
from trainkit_augmenter_screenshot.geometry import matrix_of, moved_boxes
from trainkit_augmenter_screenshot.noise import STEPS, Noise
from trainkit_augmenter_screenshot.recipe import line, recipe, working_size
from trainkit_augmenter_screenshot.screenshot import ScreenshotAugmenter
from trainkit_augmenter_screenshot.torch_only import render as torch_render

try:
    import cv2
    from trainkit_augmenter_screenshot.opencv import render as opencv_render
except ImportError:
    RENDERERS = {"torch": torch_render}
else:
    RENDERERS = {"torch": torch_render, "opencv": opencv_render}

needs_opencv = pytest.mark.skipif("opencv" not in RENDERERS, reason="needs opencv-python-headless")
each_backend = pytest.mark.parametrize("backend", RENDERERS)
EVERY = dict.fromkeys(get_args(Chance), 1.0)
NEVER = dict.fromkeys(get_args(Chance), 0.0)
WHITE = (255, 255, 255)


class TestScreenshotConformance(AugmenterConformance):
    component = "screenshot"


def page(side=96, seed=0):
    """Return a smooth random picture with hard-edged blocks."""
    rng = np.random.default_rng(seed)
    image = np.full((side, side, 3), (240, 236, 230), dtype=np.uint8)
    for _ in range(8):
        x, y = rng.integers(4, side - 24, 2)
        image[y : y + rng.integers(4, 20), x : x + rng.integers(4, 20)] = rng.integers(0, 256, 3)
    return image


def sample_of(image, *boxes):
    parts = [{"key": "image", "children": [], "attributes": {"box": list(box)}} for box in boxes]
    whole = {"key": "" if boxes else "image", "children": parts, "attributes": {}}
    return {"id": "s", "image": image, "structure": None, "layout": whole}


def rendered(backend, image, changes, fill=WHITE, noise=None):
    height, width = image.shape[:2]
    matrix = matrix_of(changes, width, height) if changes.moves else None
    return RENDERERS[backend](image, recipe(image, changes, matrix, fill, noise, 255 * changes.noise / STEPS))


# --- draws


@pytest.mark.parametrize("phase", [1, 2, 3, 4])
def test_every_draw_lies_in_its_range_and_fills_it(phase):
    ranges = ranges_of(phase)
    drawn = [draw(ranges, EVERY, RESOLUTIONS[phase], np.random.default_rng(i)) for i in range(400)]
    values = {
        "rotation": [d.rotation for d in drawn],
        "scale": [d.scale for d in drawn],
        "shift": [s for d in drawn for s in d.shift],
        "brightness": [d.brightness for d in drawn],
        "contrast": [d.contrast for d in drawn],
        "saturation": [d.saturation for d in drawn],
        "hue": [d.hue for d in drawn],
        "noise": [d.noise for d in drawn],
        "blur": [d.blur for d in drawn],
        "motion": [d.motion[0] for d in drawn],
        "corners": [c for d in drawn for c in d.corners],
    }
    assert set(values) == set(ranges)
    for name, (low, high) in ranges.items():
        assert low <= min(values[name]) < low + 0.05 * (high - low)
        assert high - 0.05 * (high - low) < max(values[name]) <= high
    assert {d.resolution for d in drawn} == set(RESOLUTIONS[phase])


def test_the_ranges_are_those_of_the_table():
    assert ranges_of(1)["rotation"] == (-15, 15)
    assert ranges_of(1)["brightness"] == (0.7, 1.3)
    assert ranges_of(2)["scale"] == (0.9, 1.1)
    assert ranges_of(3)["saturation"] == (0.98, 1.02)
    assert ranges_of(4)["shift"] == (-0.01, 0.01)
    assert ranges_of(4)["corners"] == (0.05, 0.15)


def test_groups_happen_as_often_as_the_table_says():
    count = 4000
    drawn = [draw(ranges_of(1), PROBABILITIES, (256,), np.random.default_rng(i)) for i in range(count)]
    expected = {
        "rotation": 0.8,
        "brightness": 0.9,
        "hue": 0.9 * 0.5,
        "resolution": 0.7,
        "noise": 0.4 * 0.3,
        "blur": 0.4 * 0.2,
        "corners": 0.5 * 0.3,
    }
    nothing = Changes()
    for name, share in expected.items():
        found = sum(getattr(d, name) != getattr(nothing, name) for d in drawn) / count
        assert found == pytest.approx(share, abs=4 * (share * (1 - share) / count) ** 0.5), name
    motion = sum(d.motion != nothing.motion for d in drawn) / count
    assert motion == pytest.approx(0.08, abs=0.018)


def test_one_probability_changes_nothing_else_that_is_drawn():
    with_all = draw(ranges_of(1), EVERY, (256,), np.random.default_rng(3))
    without = draw(ranges_of(1), {**EVERY, "spatial": 0.0}, (256,), np.random.default_rng(3))
    assert with_all.brightness == without.brightness
    assert with_all.corners == without.corners
    assert (without.rotation, without.scale, without.shift) == (0.0, 1.0, (0.0, 0.0))


# --- options


def test_options_are_read_by_dotted_names():
    component = Registry().load("augmenter", "screenshot")
    augment = component.build(component.validate({"phase": 3, "ranges.rotation": [-1, 1], "probabilities.hue": 0.0}))
    assert augment.ranges["rotation"] == (-1, 1)
    assert augment.ranges["scale"] == (0.95, 1.05)
    assert augment.probabilities["hue"] == 0
    assert augment.resolutions == (512, 768)
    for wrong in ({"ranges.rotaton": [-1, 1]}, {"probabilities.hue": 2.0}, {"phase": 5}, {"resolutions": []}):
        with pytest.raises(UsageError):
            component.validate(wrong)


@pytest.mark.parametrize(
    "ranges", [{"scale": (0, 1)}, {"scale": (1.2, 0.8)}, {"corners": (0.1, 0.6)}, {"brightness": (0, 1)}]
)
def test_ranges_that_would_spoil_pictures_are_refused(ranges):
    with pytest.raises(UsageError, match=f"ranges.{next(iter(ranges))} = "):
        ScreenshotAugmenter(ranges=ranges)


def test_without_opencv_pytorch_serves(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    monkeypatch.delitem(sys.modules, "trainkit_augmenter_screenshot.opencv", raising=False)
    assert ScreenshotAugmenter().render.__module__.endswith("torch_only")
    with pytest.raises(UsageError, match="pip install"):
        ScreenshotAugmenter(backend="opencv")


def test_an_augmenter_can_be_sent_to_a_worker():
    augment = ScreenshotAugmenter(probabilities=EVERY)
    copied = pickle.loads(pickle.dumps(augment))
    one, other = (a(sample_of(page()), np.random.default_rng(1))["image"] for a in (augment, copied))
    assert np.array_equal(one, other)


# --- what passes, and what does not


def test_a_sample_without_a_picture_passes_unchanged():
    sample = {**sample_of(page()), "image": None}
    assert ScreenshotAugmenter(probabilities=EVERY)(sample, np.random.default_rng(0)) is sample


@pytest.mark.parametrize(
    "image", [np.zeros((8, 8, 3), np.float32), np.zeros((8, 8), np.uint8), np.zeros((8, 8, 4), np.uint8)]
)
def test_other_pictures_are_refused(image):
    with pytest.raises(DataError, match="bytes"):
        ScreenshotAugmenter()(sample_of(image), np.random.default_rng(0))


@each_backend
@given(st.integers(0, 2**32 - 1), st.booleans())
@settings(deadline=None, max_examples=25)
def test_the_generator_decides_alone_and_inputs_stay_whole(backend, seed, exact):
    image = page()
    image.setflags(write=False)
    sample = sample_of(image, (0.5, 0.5, 0.4, 0.3))
    before = copy.deepcopy(sample)
    states = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    options = {"probabilities": EVERY, "backend": backend, "exact_noise": exact, "resolutions": (48, 72)}
    one, other = (ScreenshotAugmenter(**options)(sample, np.random.default_rng(seed)) for _ in range(2))
    assert np.array_equal(one["image"], other["image"])
    assert one["layout"] == other["layout"]
    assert one["image"].dtype == np.uint8
    assert one["image"].shape == image.shape
    assert np.array_equal(before["image"], sample["image"])
    assert before["layout"] == sample["layout"]
    assert np.array_equal(states[0], np.random.get_state()[1])  # noqa: NPY002
    assert torch.equal(states[1], torch.get_rng_state())


# --- identities


IDENTITIES = {
    "rotation": (0, 0), "scale": (1, 1), "shift": (0, 0), "brightness": (1, 1), "contrast": (1, 1),
    "saturation": (1, 1), "hue": (0, 0), "noise": (0, 0), "blur": (0, 0), "motion": (1, 1), "corners": (0, 0),
}  # fmt: skip


@each_backend
def test_factors_of_one_return_the_picture_bit_for_bit(backend):
    augment = ScreenshotAugmenter(ranges=IDENTITIES, probabilities=EVERY, resolutions=(96, 128), backend=backend)
    sample = sample_of(page(96), (0.5, 0.5, 0.4, 0.3))
    for seed in range(10):
        result, groups = augment.changes(sample, np.random.default_rng(seed))
        assert result is sample
        assert groups == frozenset()


@pytest.mark.parametrize(("resolution", "size"), [(0, None), (64, None), (65, None), (32, (32, 16)), (1, (1, 1))])
def test_a_working_resolution_at_or_above_the_picture_is_the_identity(resolution, size):
    assert working_size(64, 32, resolution) == size


@each_backend
def test_geometry_alone_is_reported_and_leaves_colours(backend):
    augment = ScreenshotAugmenter(probabilities={**NEVER, "spatial": 1}, backend=backend)
    _, groups = augment.changes(sample_of(page()), np.random.default_rng(0))
    assert groups == {"spatial"}
    plain = np.full((64, 64, 3), (10, 200, 30), dtype=np.uint8)
    assert np.array_equal(augment(sample_of(plain), np.random.default_rng(0))["image"], plain)


# --- painted rectangles


@each_backend
@given(
    st.floats(-40, 40), st.floats(0.7, 1.3), st.floats(-0.1, 0.1), st.floats(-0.1, 0.1),
    st.lists(st.floats(0, 0.15), min_size=8, max_size=8), st.sampled_from([0, 100, 150, 120]),
)  # fmt: skip
@settings(deadline=None, max_examples=40)
def test_a_painted_rectangle_lands_where_its_box_does(backend, rotation, scale, x, y, corners, resolution):
    image = np.full((200, 200, 3), 255, dtype=np.uint8)
    image[80:120, 60:130] = 0
    changes = Changes(rotation, scale, (x, y), tuple(corners), resolution=resolution)
    result = rendered(backend, image, changes)
    boxes = np.array([[95 / 200, 100 / 200, 70 / 200, 40 / 200]])
    (box,), _ = moved_boxes(boxes, matrix_of(changes, 200, 200), 200, 200)
    rows, columns = np.nonzero(result[..., 0] < 128)
    found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    centre, half = box[:2] * 200, box[2:] * 100
    # A sharp corner has less than half a pixel of black in it: its last pixels are grey.
    assert np.concatenate([centre - half, centre + half]) == pytest.approx(found, abs=2.5 if resolution else 2.0)


@each_backend
def test_half_pixels_are_right(backend):
    image = np.zeros((64, 64, 3), dtype=np.uint8)
    image[:, 32:] = 200
    same = rendered(backend, image, Changes(scale=2.0))
    assert np.array_equal(same[:, :31], image[:, :31])
    assert np.array_equal(same[:, 33:], image[:, 33:])
    assert same[0, 31, 0] + same[0, 32, 0] == pytest.approx(200, abs=2)
    moved = rendered(backend, image, Changes(shift=(4 / 64, 0.0)), fill=(0, 0, 0))
    assert np.array_equal(moved[:, 4:], image[:, :-4])


@each_backend
def test_a_quarter_turn_is_exact_and_counter_clockwise(backend):
    image = page(64)
    assert np.abs(rendered(backend, image, Changes(rotation=90.0)).astype(int) - np.rot90(image)).max() <= 1


@each_backend
def test_what_comes_in_is_page_or_white_and_never_black(backend):
    image = np.full((64, 64, 3), (30, 90, 200), dtype=np.uint8)
    image[16:48, 16:48] = 128
    shifted = {"ranges": {"shift": (0.5, 0.5), "rotation": (0, 0), "scale": (1, 1)}, "backend": backend}
    only = {**NEVER, "spatial": 1}
    by_border = ScreenshotAugmenter(probabilities=only, **shifted)(sample_of(image), np.random.default_rng(0))["image"]
    assert (by_border[:30] == (30, 90, 200)).all()
    white = ScreenshotAugmenter(probabilities=only, fill="white", **shifted)
    assert (white(sample_of(image), np.random.default_rng(0))["image"][:30] == 255).all()


@each_backend
def test_scaling_down_shows_no_aliases(backend):
    stripes = np.zeros((96, 96, 3), dtype=np.uint8)
    stripes[:, ::2] = 255
    for resolution in (48, 64, 72):
        inner = rendered(backend, stripes, Changes(resolution=resolution))[8:-8, 8:-8].astype(float)
        assert inner.mean() == pytest.approx(127.5, abs=3)
        assert inner.std() < 80, "the finest stripes blur to grey; without antialiasing they stay black and white"


# --- both backends


ALIKE = {
    "rotation": (Changes(rotation=11.0, scale=0.9, shift=(0.05, -0.03)), 1.0, 60),
    "perspective": (Changes(corners=(0.05, 0.1, 0.07, 0.12, 0.15, 0.05, 0.1, 0.06)), 1.0, 60),
    "colour": (Changes(brightness=1.2, contrast=0.85, saturation=1.1, hue=0.04), 0.6, 1),
    "blur": (Changes(blur=1.1), 0.6, 3),
    "motion": (Changes(motion=(7.0, 0.6)), 0.6, 1),
    "half": (Changes(resolution=48), 1.5, 60),
    "three quarters": (Changes(resolution=72), 3.0, 60),
    "half, turned": (Changes(rotation=-8.0, resolution=48), 2.0, 60),
}


@needs_opencv
@pytest.mark.parametrize("name", ALIKE)
def test_the_backends_make_the_same_picture(name):
    changes, mean, most = ALIKE[name]
    image = page(96)
    one, other = (rendered(backend, image, changes, (240, 236, 230)).astype(int) for backend in RENDERERS)
    assert np.abs(one - other).mean() <= mean
    assert np.abs(one - other).max() <= most
    assert np.abs(one - image).mean() > 2 * np.abs(one - other).mean()


@needs_opencv
def test_the_backends_add_the_same_noise():
    image = page(96)
    noise = Noise()(image.size, np.random.default_rng(0)).reshape(image.shape)
    one, other = (rendered(backend, image, Changes(noise=0.03), noise=noise).astype(int) for backend in RENDERERS)
    assert np.abs(one - other).max() <= 1


@needs_opencv
def test_opencv_keeps_to_one_thread_and_gives_the_others_back():
    before = cv2.getNumThreads()
    cv2.setNumThreads(2)
    try:
        ScreenshotAugmenter(probabilities=EVERY, backend="opencv")(sample_of(page()), np.random.default_rng(0))
        assert cv2.getNumThreads() == 2
    finally:
        cv2.setNumThreads(before)


# --- noise and lines


@pytest.mark.parametrize("exact", [False, True])
def test_noise_is_normal(exact):
    noise = Noise(exact)
    values = (np.concatenate([noise(100_000, np.random.default_rng(i)) for i in range(4)]) - 128.0) / STEPS
    assert values.mean() == pytest.approx(0, abs=0.01)
    assert values.std() == pytest.approx(1, abs=0.01)
    assert (np.abs(values) > 1.96).mean() == pytest.approx(0.05, abs=0.005)
    assert (np.abs(values) > 3.0).mean() == pytest.approx(0.0027, abs=0.0006)
    assert ((values**4).mean() / (values**2).mean() ** 2) == pytest.approx(3, abs=0.08)


def test_exact_noise_is_drawn_anew_and_pooled_noise_is_the_same_for_any_size():
    small, large = Noise(), Noise()
    large(500_000, np.random.default_rng(1))
    assert np.array_equal(small(1000, np.random.default_rng(0)), large(1000, np.random.default_rng(0)))
    fresh = Noise(exact=True)
    one, other = fresh(1000, np.random.default_rng(0)), fresh(1000, np.random.default_rng(1))
    assert abs(np.corrcoef(one, other)[0, 1]) < 0.15


@each_backend
def test_noise_has_the_deviation_that_was_drawn(backend):
    image = np.full((128, 128, 3), 120, dtype=np.uint8)
    noise = Noise()(image.size, np.random.default_rng(0)).reshape(image.shape)
    for deviation in (0.01, 0.03):
        result = rendered(backend, image, Changes(noise=deviation), noise=noise)
        rounding = 1 / 12
        assert result.astype(float).std() == pytest.approx((255**2 * deviation**2 + rounding) ** 0.5, rel=0.03)
        assert result.mean() == pytest.approx(120, abs=0.1)


@pytest.mark.parametrize("length", [3, 5, 7, 9])
def test_a_line_is_centred_and_as_long_as_it_says(length):
    for angle in np.linspace(0, np.pi, 13):
        pixels = line(length, angle)
        assert sorted(pixels) == sorted((-x, -y) for x, y in pixels)
        assert len(set(pixels)) == len(pixels)
        (x0, y0), (x1, y1) = pixels[0], pixels[-1]
        assert np.hypot(x1 - x0, y1 - y0) + 1 == pytest.approx(length, abs=1.5)
    assert line(1.0, 0.3) == []


@each_backend
def test_blurring_keeps_the_mean_and_the_edges_of_the_picture(backend):
    image = page(96)
    for changes in (Changes(blur=1.5), Changes(motion=(9.0, 0.7))):
        result = rendered(backend, image, changes).astype(float)
        assert result.mean() == pytest.approx(image.mean(), abs=1.0)
        assert result.std() < image.std()
        assert (result[0, :3] == image[0, :3]).all(), "the plain border stays plain"
