"""Position and size of objects as factors: what is drawn, what sets them, and where they are told."""

from __future__ import annotations

import pickle
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from cgnrt import Generator, Place, SampleOptions, compose
from cgnrt.torch import CounterfactualDataset

PLACE = Place(dy=(-0.25, 0.25), dx=(-0.5, 0), scale=(0.5, 1.5), flip=0.5)
DRAWN: list[dict[str, Any]] = [{}, {"pool": 5}, {"pool": (4, 3, 2), "refresh": 2}]


@pytest.mark.parametrize("options", [{}, {"per_noise": 3}])
def test_it_moves_no_other_draw(gen: Generator, options: dict[str, Any]) -> None:
    plain, placed = gen.sample(12, seed=3, **options), gen.sample(12, seed=3, place=PLACE, **options)
    for found, expected in ((placed.labels, plain.labels), (placed.noise, plain.noise)):
        for column, drawn in zip(found, expected, strict=True):
            np.testing.assert_array_equal(column, drawn)
    assert plain.place is None
    assert not np.array_equal(placed.images, plain.images)


def test_to_fix_one_factor_moves_no_other(gen: Generator) -> None:
    drawn = gen.sample(20, seed=1, place=PLACE).place
    height, width = gen.resolution
    for column, (name, value, expected) in enumerate(
        [("dy", 0.25, height / 4), ("dx", -0.5, -width / 2), ("scale", 2, 2), ("flip", True, 1)]
    ):
        fixed = gen.sample(20, seed=1, place=replace(PLACE, **{name: value})).place
        by_do = gen.sample(20, seed=1, place=PLACE, do={name: value, "texture": 0})
        others = [k for k in range(4) if k != column]
        np.testing.assert_array_equal(fixed[:, others], drawn[:, others])
        assert (fixed[:, column] == expected).all()
        np.testing.assert_array_equal(by_do.place, fixed)
        assert not by_do.labels.texture.any()
    np.testing.assert_array_equal(gen.sample(2, do={"scale": 0.5}).place, [[0, 0, 0.5, 0]] * 2)


def test_groups_keep_their_place_when_all_is_held(gen: Generator) -> None:
    apart = gen.sample(6, seed=0, place=PLACE, per_noise=3).place
    held = gen.sample(6, seed=0, place=PLACE, per_noise=3, hold="all").place
    assert len(np.unique(apart, axis=0)) == 6
    assert (held[:3] == held[0]).all()
    assert (held[3:] == held[3]).all()
    np.testing.assert_array_equal(held[[0, 3]], apart[:2])


@pytest.mark.parametrize("options", DRAWN)
def test_images_are_their_parts(gen: Generator, options: dict[str, Any]) -> None:
    batch = gen.sample(9, seed=5, place=PLACE, parts=True, **options)
    plain = gen.sample(9, seed=5, parts=True, **options)
    expected = batch.mask * batch.foreground + (np.float32(1) - batch.mask) * batch.background
    np.testing.assert_array_equal(batch.images, expected.clip(-1, 1))
    np.testing.assert_array_equal(batch.background, plain.background)
    moved = compose(plain.mask, plain.foreground, plain.background, place=batch.place, clamp=(-1, 1))
    np.testing.assert_array_equal(batch.images, moved)


@pytest.mark.parametrize("options", DRAWN)
def test_batches_and_streams_have_the_places_of_one_call(gen: Generator, options: dict[str, Any]) -> None:
    whole = gen.sample(10, seed=2, start=3, place=PLACE, **options)
    for batches in (
        gen.batches(10, 4, seed=2, start=3, place=PLACE, **options),
        gen.stream(4, seed=2, start=3, stop=13, place=PLACE, **options),
    ):
        found = list(batches)
        np.testing.assert_array_equal(np.concatenate([batch.place for batch in found]), whole.place)
        np.testing.assert_array_equal(np.concatenate([batch.images for batch in found]), whole.images)


def test_a_data_set_of_torch_places_its_objects(gen: Generator) -> None:
    data = CounterfactualDataset(gen, batch_size=4, seed=2, n=8, place=PLACE)
    found = torch.cat([samples.images for samples in data]).numpy()
    np.testing.assert_array_equal(found, gen.sample(8, seed=2, place=PLACE).images)


def test_places_given_back_are_taken(gen: Generator) -> None:
    batch = gen.sample(6, seed=4, place=PLACE)
    again = gen.sample(6, seed=4, place=batch.place.tolist())
    np.testing.assert_array_equal(again.images, batch.images)
    found = np.concatenate([b.images for b in gen.batches(6, 4, seed=4, place=batch.place)])
    np.testing.assert_array_equal(found, batch.images)
    called = gen(*batch.labels, noise=batch.noise, place=batch.place)
    np.testing.assert_array_equal(called.images, batch.images)
    related = gen.related(seed=4, indices=range(6), place=batch.place)
    (fact,) = related.render([related.labels])
    np.testing.assert_array_equal(fact.images, batch.images)
    np.testing.assert_array_equal(fact.place, batch.place)
    np.testing.assert_array_equal(batch.torch().place.numpy(), batch.place)


def test_requests_of_a_server_may_differ_in_their_places(gen: Generator) -> None:
    requests = [gen.prepare(seed=1, n=2), gen.prepare(seed=2, n=3, place=PLACE)]
    still, placed = gen.render(requests)
    np.testing.assert_array_equal(placed.images, gen.sample(3, seed=2, place=PLACE).images)
    np.testing.assert_array_equal(still.images, gen.sample(2, seed=1).images)
    assert still.place is None


def test_places_are_values() -> None:
    options = SampleOptions(seed=1, do={"dx": 0.5, "texture": 1}, place=PLACE)
    assert options.place == replace(PLACE, dx=0.5)
    assert options.do == {"texture": 1}
    assert pickle.loads(pickle.dumps(options)) == options
    assert Place(dy=1) == Place(dy=(1.0, 1.0))
    assert SampleOptions(place=Place(), do={"flip": 1}).place == Place(flip=True)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"dy": (0.5, 0.25)}, "sample: place dy is (0.5, 0.25), expected (low, high) with -4 <= low <= high <= 4."),
        ({"dx": 5}, "sample: place dx is 5, expected (low, high) with -4 <= low"),
        ({"dx": (0, 1, 2)}, "sample: place dx is (0, 1, 2), expected (low, high) or a number."),
        ({"scale": 0}, "sample: place scale is 0, expected numbers above 0."),
        ({"scale": (1, 17)}, "sample: place scale is (1, 17), expected (low, high) with 0 <= low <= high <= 16."),
        ({"scale": float("nan")}, "sample: place scale is nan, expected (low, high) with"),
        ({"flip": 1.5}, "sample: place flip is 1.5, expected a chance from 0 to 1."),
        ({"dy": "left"}, "sample: place dy is 'left', expected numbers."),
        ({"flip": None}, "sample: place flip is None, expected numbers."),
    ],
)  # fmt: skip
def test_what_no_place_can_be(fields: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=re.escape(message)):
        Place(**fields)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"place": "left"}, "sample: place is 'left', expected an array"),
        ({"place": [[0, 0, 1, 0]]}, "sample: place is int64 (1, 4), expected a cgnrt.Place, or float32 (2, 4)"),
        ({"place": [[0, 0, 1, 0], [0, 0, 0, 1]]}, "place[1] is (0.0, 0.0, 0.0, 1.0), expected (dy, dx,"),
        ({"place": [[0, 0, 1, 0]] * 2, "do": {"dx": 1}}, "do['dx'] is set beside a place for each sample,"),
        ({"do": {"dx": 9}}, "sample: place dx is 9, expected"),
        ({"do": {"size": 1}}, "sample: do key is 'size', expected one of shape, texture, background"),
    ],
)  # fmt: skip
def test_what_is_refused(gen: Generator, options: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=re.escape(message)):
        gen.sample(2, seed=0, **options)
