"""Which photo gives what, and the pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from cgnrt import ops, real
from cgnrt.real import fill_object
from cgnrt.sampling import patch_picks

if TYPE_CHECKING:
    from conftest import Photos

OBJECT, GROUND = (36, 28), (4, 90)  # pixels of all photos
SMALL = {"working_size": 64, "patch": 7}


@pytest.mark.parametrize("swap", ["texture", "background", ("texture", "background")])
def test_parts_come_from_the_photos_that_the_index_names(photos: Photos, swap: Any) -> None:
    batch = real.counterfactuals(photos.images, photos.masks, seed=1, n=20, swap=swap, **SMALL)
    assert batch.images.shape == (20, 72, 96, 3)
    assert batch.images.dtype == np.uint8
    np.testing.assert_array_equal(batch.index[:, 0], np.arange(20) % 5)
    assert photos.donors(batch.images, OBJECT) == batch.index[:, 1].tolist()
    assert photos.donors(batch.images, GROUND) == batch.index[:, 2].tolist()
    for column, part in enumerate(("texture", "background"), 1):
        same = batch.index[:, column] == batch.index[:, 0]
        assert not same.any() if part in swap else same.all()
        if part in swap:
            assert len(set(batch.index[:, column])) == 5


def test_a_swapped_background_has_no_object_left(photos: Photos) -> None:
    """The donor's disc lies where the shape is not, once the shape's mask is moved aside."""
    moved = np.roll(photos.masks, 40, axis=3)
    shifted = np.roll(photos.images, 40, axis=2)
    images = np.concatenate([photos.images[:1], shifted[1:]])
    masks = np.concatenate([photos.masks[:1], moved[1:]])
    batch = real.counterfactuals(images, masks, seed=0, n=1, swap="background")
    outside = masks[0, 0] == 0
    assert batch.images[0, outside, 0].max() < 30  # no disc's red


def test_an_object_that_stays_is_the_photos_own(photos: Photos) -> None:
    batch = real.counterfactuals(photos.images, photos.masks, seed=3, swap="background")
    inside = photos.masks[:, 0] == 1
    np.testing.assert_array_equal(batch.images[inside], photos.images[inside])


def test_a_ground_that_stays_is_the_photos_own(photos: Photos) -> None:
    batch = real.counterfactuals(photos.images, photos.masks, seed=3, swap="texture", **SMALL)
    outside = photos.masks[:, 0] == 0
    np.testing.assert_array_equal(batch.images[outside], photos.images[outside])


def test_against_the_same_steps_in_torch() -> None:
    """Soft masks, random photos, floats: every step of App. C.2 and Eq. 2."""
    rng = np.random.default_rng(0)
    images = rng.random((4, 3, 80, 80), dtype=np.float32)
    y, x = np.mgrid[:80, :80]
    masks = np.stack([1 / (1 + np.exp(((y - 30 - 3 * i) ** 2 + (x - 40) ** 2 - 300) / 60)) for i in range(4)])
    masks = masks.astype(np.float32)
    batch = real.counterfactuals(images, masks, seed=7, n=6, start=2)
    picks = patch_picks(7, batch.indices)
    for k, (shape, texture, background) in enumerate(batch.index):
        small = F.interpolate(torch.from_numpy(images[texture, None]), size=(128, 128), mode="bicubic").clamp(
            0, 1
        )
        # Ours, whose parity tests/ops has: windows that are a rounding apart must rank alike.
        small_mask = torch.from_numpy(ops.resize(masks[texture, None, None], 128, clamp=(0, 1)))
        means = F.avg_pool2d(small_mask.double(), 15, stride=1).flatten()
        order = means.sort(descending=True, stable=True).indices[:100]
        grid = torch.zeros(1, 3, 90, 90)
        for cell, pick in enumerate(picks[k]):
            top, left = divmod(int(order[pick]), 114)
            row, column = divmod(cell, 6)
            patch = small[0, :, top : top + 15, left : left + 15]
            grid[0, :, 15 * row : 15 * row + 15, 15 * column : 15 * column + 15] = patch
        texture_picture = F.interpolate(grid, size=(80, 80), mode="bicubic")[0].numpy()
        ground = fill_object(images[background], masks[background])
        mask = masks[shape]
        expected = np.clip(mask * texture_picture + (1 - mask) * ground, 0, 1)
        # Places of the scaling in float32: see tests/ops.
        np.testing.assert_allclose(batch.images[k], expected, rtol=0, atol=1e-4)


def test_samples_are_a_function_of_seed_and_index(photos: Photos) -> None:
    def make(**options: Any) -> real.Counterfactuals:
        return real.counterfactuals(photos.images, photos.masks, **{"seed": 5, **SMALL, **options})

    whole = make(n=30)
    part = make(indices=np.array([17, 3, 29]))
    np.testing.assert_array_equal(part.images, whole.images[[17, 3, 29]])
    np.testing.assert_array_equal(part.index, whole.index[[17, 3, 29]])
    np.testing.assert_array_equal(make(n=4, start=9).images, whole.images[9:13])
    np.testing.assert_array_equal(make(n=30, threads=1).images, whole.images)
    assert (make(n=30, seed=6).index != whole.index).any()
    assert (whole.images[0] != whole.images[5]).any()  # the same shape again, other parts
    # No option moves another part's draw.
    np.testing.assert_array_equal(make(n=30, swap="background").index[:, 2], whole.index[:, 2])
    np.testing.assert_array_equal(make(n=30, swap="texture").index[:, 1], whole.index[:, 1])
    assert (whole.index[:, 1] != whole.index[:, 2]).any()


def test_a_drawn_seed_is_told(photos: Photos) -> None:
    batch = real.counterfactuals(photos.images, photos.masks, n=3, **SMALL)
    again = real.counterfactuals(photos.images, photos.masks, seed=batch.seed, n=3, **SMALL)
    np.testing.assert_array_equal(batch.images, again.images)


def test_every_form_of_photos_and_masks_gives_the_same(photos: Photos) -> None:
    expected = real.counterfactuals(photos.images, photos.masks, seed=0, **SMALL)
    planar = np.ascontiguousarray(photos.images.transpose(0, 3, 1, 2))
    for images, masks in [
        (planar, photos.masks),
        (planar, photos.masks[:, 0]),
        (torch.from_numpy(planar), torch.from_numpy(photos.masks)),
        (planar, photos.masks[:, 0, :, :, None]),
        (planar, photos.masks > 0),
        (planar, (photos.masks * 255).astype(np.uint8)),
        (planar, photos.masks.astype(np.float64)),
    ]:
        got = real.counterfactuals(images, masks, seed=0, **SMALL)
        np.testing.assert_array_equal(got.images, expected.images.transpose(0, 3, 1, 2))
    for low, high in ((0.0, 1.0), (-1.0, 1.0), (0.0, 255.0)):
        floats = planar.astype(np.float32) / 255 * (high - low) + low
        got = real.counterfactuals(floats, photos.masks, seed=0, range=(low, high), **SMALL)
        assert got.images.dtype == np.float32
        assert low <= got.images.min() <= got.images.max() <= high
        as_bytes = (got.images - low) / (high - low) * 255
        np.testing.assert_allclose(as_bytes, expected.images.transpose(0, 3, 1, 2), atol=0.51)


def test_labels_and_donors(photos: Photos) -> None:
    labels = np.array([0, 1, 0, 1, 1])
    for donors in ("same", "other", "any"):
        batch = real.counterfactuals(
            photos.images, photos.masks, seed=2, n=60, labels=labels, donors=donors, **SMALL
        )
        assert batch.labels is not None
        np.testing.assert_array_equal(np.stack(batch.labels, 1), labels[batch.index])
        alike = batch.labels.shape == batch.labels.background
        assert (batch.index[:, 0] != batch.index[:, 2]).all()
        assert {"same": alike.all(), "other": not alike.any(), "any": 0 < alike.sum() < 60}[donors]
    assert real.counterfactuals(photos.images, photos.masks, seed=2, n=1, **SMALL).labels is None


def test_chunks_change_nothing(photos: Photos, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = real.counterfactuals(photos.images, photos.masks, seed=0, n=11, **SMALL)
    monkeypatch.setattr("cgnrt.real.swap._CHUNK_PIXELS", 3 * 72 * 96)
    np.testing.assert_array_equal(
        real.counterfactuals(photos.images, photos.masks, seed=0, n=11, **SMALL).images, whole.images
    )


def test_none_at_all(photos: Photos) -> None:
    batch = real.counterfactuals(photos.images, photos.masks, seed=0, n=0)
    assert (batch.images.shape, batch.index.shape, len(batch)) == ((0, 72, 96, 3), (0, 3), 0)
    nothing = real.counterfactuals(photos.images[:0], photos.masks[:0], seed=0)
    assert nothing.images.shape == (0, 72, 96, 3)


def test_usable(photos: Photos) -> None:
    masks = photos.masks.copy()
    masks[1] = 0
    masks[3] = 1
    assert real.usable(masks).tolist() == [True, False, True, False, True]
    assert (
        real.usable(masks[:, 0]).tolist()
        == real.usable((masks[:, 0, :, :, None] * 255).astype(np.uint8)).tolist()
    )


def with_pixel(array: np.ndarray[Any, Any], at: tuple[int, ...], value: float) -> np.ndarray[Any, Any]:
    changed = array.astype(np.float32)
    changed[at] = value
    return changed


def test_bad_arguments(photos: Photos) -> None:
    images, masks = photos.images, photos.masks
    floats = images / np.float32(255)
    empty, full = with_pixel(masks, (2,), 0.4), with_pixel(masks, (1,), 1)
    for changes, message in [
        (
            {"images": images.astype(np.int32)},
            "counterfactuals images: dtype is int32, expected uint8 or floats.",
        ),
        (
            {"masks": masks.astype(np.int64)},
            "counterfactuals masks: dtype is int64, expected floats, bool or uint8.",
        ),
        (
            {"images": images[..., :2]},
            "counterfactuals images: shape is (5, 72, 96, 2), expected (n, 3, h, w) or",
        ),
        ({"images": images[0]}, "counterfactuals images: shape is (72, 96, 3), expected"),
        (
            {"masks": masks[:, :, :71]},
            "counterfactuals masks: shape is (5, 1, 71, 96), expected (5, 1, 72, 96) or",
        ),
        ({"masks": masks[:4]}, "counterfactuals masks: shape is (4, 1, 72, 96), expected (5, 1, 72, 96)"),
        (
            {"images": with_pixel(floats, (1, 2, 3, 0), np.nan)},
            "counterfactuals images: images[1, 2, 3, 0] is nan, expected 0..1. Pass range=(low, high)",
        ),
        ({"images": floats * 2}, "counterfactuals images: images[0, 15, 24, 0] is 1.56863, expected 0..1."),
        (
            {"range": (0, 1)},
            "counterfactuals range: range is (0, 1), expected (0, 255), since images are uint8.",
        ),
        ({"images": floats, "range": (1, 0)}, "counterfactuals range: range is (1, 0), expected (low, high)"),
        (
            {"masks": with_pixel(masks, (4, 0, 1, 2), np.nan)},
            "counterfactuals masks: masks[4, 0, 1, 2] is nan, expected 0..1. Scale them",
        ),
        (
            {"masks": with_pixel(masks, (4, 0, 1, 2), -0.5)},
            "counterfactuals masks: masks[4, 0, 1, 2] is -0.5",
        ),
        (
            {"masks": empty},
            "counterfactuals masks: the maximum of masks[2] is 0.4, expected an object (at least 0.5).",
        ),
        (
            {"masks": (masks > 0).astype(np.uint8)},
            "counterfactuals masks: the maximum of masks[0] is 0.00392, expected an object",
        ),
        (
            {"masks": full},
            "counterfactuals masks: the background of masks[1] is too small, expected a rectangle",
        ),
        ({"swap": "shape"}, "counterfactuals: swap is 'shape', expected 'texture', 'background' or both."),
        ({"swap": ()}, "counterfactuals: swap is (), expected"),
        (
            {"labels": [0, 1]},
            "counterfactuals: labels are int64 (2,), expected integers (5,), one for each photo.",
        ),
        (
            {"donors": "same"},
            "counterfactuals: labels are None, expected (N,) integers, since donors is 'same'.",
        ),
        ({"donors": "all"}, "counterfactuals: donors is 'all', expected one of any, same, other."),
        (
            {"donors": "same", "labels": [0, 1, 0, 1, 2]},
            "counterfactuals: photo 4 has no donor among 5 photos. Add another photo of its label.",
        ),
        (
            {"images": images[:1], "masks": masks[:1]},
            "counterfactuals: photo 0 has no donor among 1 photos. Add another photo.",
        ),
        (
            {"images": images[:0], "masks": masks[:0], "n": 3},
            "counterfactuals: number of images is 0, expected at least 2 for 3 samples",
        ),
        ({"indices": np.array([-1])}, "counterfactuals: smallest index is -1, expected at least 0."),
        ({"seed": -1}, "sample: seed is -1"),
        ({"patch": 129}, "patch_grid patch: patch is 129, expected 1..128 (within a mask)."),
        ({"top": 10**6}, "patch_grid top: top is 1000000, expected 1..12996"),
    ]:
        arguments = {"images": images, "masks": masks, "seed": 0} | changes
        with pytest.raises((ValueError, TypeError)) as caught:
            real.counterfactuals(**arguments)
        assert str(caught.value).startswith(message)
    # Without swapped backgrounds a full mask does no harm.
    real.counterfactuals(images, full, seed=0, swap="texture", **SMALL)


def test_the_fused_blend_is_compose_of_a_stored_grid(photos: Photos) -> None:
    batch = real.counterfactuals(photos.images, photos.masks, seed=0, n=4, swap="texture", **SMALL)
    pixels = np.ascontiguousarray(photos.images.transpose(0, 3, 1, 2), np.float32)
    small = ops.resize(pixels, 64, clamp=(0, 255))
    small_masks = ops.resize(photos.masks, 64, clamp=(0, 1))
    sources = np.ascontiguousarray(batch.index[:, 1:2])
    grids = ops.patch_grid(small_masks, small, patch_picks(0, batch.indices), sources, size=(72, 96), patch=7)
    order = np.arange(4)
    expected = ops.compose(
        photos.masks,
        grids,
        pixels,
        np.stack([order, order, order], 1),
        clamp=(0, 255),
        dtype="uint8",
        layout="NHWC",
    )
    np.testing.assert_array_equal(batch.images, expected)
