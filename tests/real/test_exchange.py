"""`Exchange`: photos checked once, for many batches."""

from __future__ import annotations

import pickle
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from cgnrt import real
from cgnrt.real import donors, parts, swap
from cgnrt.sampling import donor_picks

if TYPE_CHECKING:
    from conftest import Photos

SMALL = {"working_size": 64, "patch": 7}
Array = np.ndarray[Any, Any]


def test_batches_are_those_of_counterfactuals(photos: Photos) -> None:
    labels = np.array([0, 1, 0, 1, 1])
    exchange = real.Exchange(photos.images, photos.masks, labels=labels, donors="other", **SMALL)
    assert len(exchange) == 5
    for start in (0, 7, 3):
        expected = real.counterfactuals(
            photos.images, photos.masks, seed=2, n=6, start=start, labels=labels, donors="other", **SMALL
        )
        found = exchange(seed=2, n=6, start=start)
        np.testing.assert_array_equal(found.images, expected.images)
        np.testing.assert_array_equal(found.index, expected.index)
        assert found.labels is not None
        np.testing.assert_array_equal(found.labels.texture, labels[found.index[:, 1]])
    assert len(exchange(n=0)) == 0


def test_each_photo_is_worked_on_once(photos: Photos, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its rectangle is found, its object filled in and it is scaled in one batch of all that are made."""
    counts = {"free_rectangle": 0, "fill_from": 0, "resize": 0}

    def counted(owner: Any, name: str, size: Any = lambda *a: 1) -> None:
        real_function = getattr(owner, name)

        def call(*arguments: Any, **options: Any) -> Any:
            counts[name] += size(*arguments)
            return real_function(*arguments, **options)

        monkeypatch.setattr(owner, name, call)

    counted(parts, "free_rectangle")
    counted(parts, "fill_from")
    counted(parts.ops, "resize", lambda pictures, *_: len(pictures))
    exchange = real.Exchange(photos.images, photos.masks, **SMALL)
    for start in range(0, 60, 6):
        exchange(seed=0, n=6, start=start)
    assert counts == {"free_rectangle": 5, "fill_from": 5, "resize": 10}  # masks and photos


def test_what_is_kept_is_bounded(photos: Photos, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = real.counterfactuals(photos.images, photos.masks, seed=0, n=40, **SMALL).images
    size = 3 * 72 * 96 * 4
    monkeypatch.setattr(parts, "_KEPT_BYTES", 2 * size)
    monkeypatch.setattr(swap, "_CHUNK_PIXELS", 4 * 72 * 96)
    exchange = real.Exchange(photos.images, photos.masks, **SMALL)
    np.testing.assert_array_equal(exchange(seed=0, n=40).images, expected)
    for kept in (exchange._parts._grounds, exchange._parts._working):
        assert 0 < kept._bytes <= 2 * size
        assert kept._bytes == sum(array.nbytes for array in kept._arrays.values())


def test_photos_are_not_copied(photos: Photos) -> None:
    exchange = real.Exchange(photos.images, photos.masks)
    assert np.shares_memory(exchange._parts.pictures.planes, photos.images)
    assert np.shares_memory(exchange._parts.masks.planes, photos.masks)


def test_threads_and_pickling(photos: Photos) -> None:
    exchange = real.Exchange(photos.images, photos.masks, **SMALL)
    expected = [exchange(seed=1, n=10, start=10 * k).images for k in range(4)]
    again = pickle.loads(pickle.dumps(exchange))
    found: dict[int, Array] = {}
    threads = [
        threading.Thread(target=lambda k=k: found.update({k: again(seed=1, n=10, start=10 * k).images}))
        for k in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for k, images in enumerate(expected):
        np.testing.assert_array_equal(found[k], images)


@pytest.mark.parametrize("kind", donors.DONORS)
@pytest.mark.parametrize("seed", range(4))
def test_donors_in_order_beginning_with_the_next_photo(kind: str, seed: int) -> None:
    """By trying every photo, as it is written down."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(7, 40))
    labels = rng.permutation(np.concatenate([[9, 9, -4, -4, 0, 0], rng.choice([9, -4, 0], n - 6)]))
    where = rng.integers(0, 1000, 200)
    found = donors.Donors(n, labels, kind).index(where, seed, ("texture", "background"))
    for i, row in zip(where, found, strict=True):
        shape = i % n
        others = [(shape + 1 + k) % n for k in range(n - 1)]
        if kind != "any":
            others = [k for k in others if (labels[k] == labels[shape]) == (kind == "same")]
        picks = [donor_picks(seed, np.array([i]), part, len(others))[0] for part in donors.PARTS]
        assert row.tolist() == [shape, others[picks[0]], others[picks[1]]]


def test_photos_of_one_size_of_many(photos: Photos) -> None:
    """More photos than one chunk uses, and a chunk that uses one photo alone."""
    images, masks = (np.concatenate([array] * 20) for array in (photos.images, photos.masks))
    exchange = real.Exchange(images, masks, swap="background")
    whole = exchange(seed=3, n=100)
    for i in (0, 57, 99):
        np.testing.assert_array_equal(exchange(seed=3, n=1, start=i).images[0], whole.images[i])
