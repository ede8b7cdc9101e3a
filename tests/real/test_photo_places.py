"""`real.audit` by place: objects that are moved and scaled over their own backgrounds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from told_photos import SIDE, K, N, Told, ask, make_told, read_ground, read_object

from cgnrt.real.photo_audit.places import POSITIONS, SIZES, Places
from cgnrt.real.photos import read_masks

Array = np.ndarray[Any, Any]


@pytest.fixture(scope="module")
def told() -> Told:
    return make_told()


def stats_of(images: Array) -> tuple[Array, Array]:
    """The middle (n, 2), in pixels from the picture's, and the area of what is blue."""
    blue = images[:, 2].astype(np.float64)
    area = blue.sum((1, 2))
    y, x = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
    middle = np.stack([(blue * y).sum((1, 2)), (blue * x).sum((1, 2))], 1) / area[:, None]
    return middle, area


def test_objects_are_moved_and_scaled(told: Told) -> None:
    asked: list[Array] = []

    def remember(images: Array) -> Array:
        asked.append(images.copy())
        return np.zeros(len(images), np.int64)

    found = ask(told, remember, places=True, batch_size=N)
    assert len(asked) == 6 + len(POSITIONS) + len(SIZES) == 20
    own_middle, own_area = stats_of(told.images)
    for k, shown in enumerate(asked[6:15]):
        middle, area = stats_of(shown)
        row, column = divmod(k, 3)
        # Pixels are soft at the edge, so the middle is right to a part of a pixel.
        np.testing.assert_allclose(
            middle, np.tile([(row - 1) * SIDE / 3, (column - 1) * SIDE / 3], (N, 1)), atol=0.6
        )
        np.testing.assert_allclose(area, own_area / 9, rtol=0.2)
        assert (read_ground(shown) == told.labels).all()
    for size, shown in zip(SIZES, asked[15:], strict=True):
        middle, area = stats_of(shown)
        if size <= 1:
            np.testing.assert_allclose(middle, own_middle, atol=0.5)
            np.testing.assert_allclose(area, size * own_area, rtol=0.1)
        else:  # whole: nothing of it is outside the picture
            np.testing.assert_allclose(area, size * own_area, rtol=0.05)
    np.testing.assert_allclose(asked[15 + SIZES.index(1.0)], told.images, atol=1e-6)
    assert found.clipped == dict.fromkeys(SIZES, 0)


def test_a_classifier_that_looks_at_the_centre_alone(told: Told) -> None:
    def central(images: Array) -> Array:
        middle = images[:, :, SIDE // 3 : -SIDE // 3, SIDE // 3 : -SIDE // 3]
        return np.where(middle[:, 2].max((1, 2)) > 0.5, read_object(middle), K + 1)

    found = ask(told, central, places=True)
    assert {name: rate.value for name, rate in found.by_position.items()} == {
        name: float(name == "centre") for name in POSITIONS
    }
    assert found.centre_bias == 1
    anywhere = ask(told, places=True)
    assert anywhere.centre_bias == 0
    assert anywhere.size_bias == dict.fromkeys(SIZES, 1.0)


def test_a_classifier_that_sees_large_objects_alone(told: Told) -> None:
    def large(images: Array) -> Array:
        return np.where(stats_of(images)[1] > 0.8 * np.pi * 9.5**2, read_object(images), K + 1)

    sighted = lambda images: large(images) if images[:, 2].max() > 0 else np.zeros(len(images), int)  # noqa: E731
    found = ask(told, sighted, places=True)
    assert [rate.value for rate in found.by_size.values()] == [0, 0, 1, 1, 1]
    assert found.size_bias == {0.25: 0, 0.5: 0, 1.0: 1, 2.0: 1, 4.0: 1}
    assert found.centre_bias is None  # at a third of their size nothing is right
    blind = ask(told, lambda images: np.full(len(images), K + 1), places=True)
    assert blind.size_bias == {}


def test_objects_that_are_larger_than_the_picture_are_said(told: Told) -> None:
    wide = make_told(radius=13.5)
    found = ask(wide, places=True)
    assert found.clipped == {0.25: 0, 0.5: 0, 1.0: 0, 2.0: 0, 4.0: N}
    assert f"objects cut off at the picture's edge: {N} at x 4" in str(found)
    middle = Places(read_masks(wide.masks, N, (SIDE, SIDE), "test")).sized(4.0, np.arange(N))
    assert (middle[:, 2] == 2).all()
