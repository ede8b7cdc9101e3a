"""Position and size of objects as factors: what is drawn, what sets them, and where they are told."""

from __future__ import annotations

import pickle
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from cgnrt import Audit, Generator, Place, SampleOptions, audit, compose
from cgnrt.request.place import read_place
from cgnrt.torch import CounterfactualDataset, PlacedSamples

from .conftest import ENGINE_TOLERANCE

PLACE = Place(dy=(-0.25, 0.25), dx=(-0.5, 0), scale=(0.5, 1.5), flip=0.5)
DRAWN: list[dict[str, Any]] = [{}, {"pool": 5}, {"pool": (4, 4, 2), "refresh": 2}]


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


@pytest.mark.filterwarnings("ignore:.*use of fork")
@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("size", [4, None])
def test_a_data_set_of_torch_places_its_objects(demo_plan: Path, workers: int, size: int | None) -> None:
    demo = Generator(demo_plan, backend="native", threads=1)
    data = CounterfactualDataset(demo, batch_size=size, seed=2, n=8, place=PLACE)
    found = list(DataLoader(data, batch_size=None if size else 4, num_workers=workers))
    assert [type(samples) for samples in found] == [PlacedSamples] * 2
    whole = demo.sample(8, seed=2, place=PLACE)
    for column, (name, expected) in enumerate(
        [("images", whole.images), ("indices", whole.indices), ("place", whole.place)]
    ):
        got = torch.cat([getattr(samples, name) for samples in found])
        assert got.dtype == [torch.float32, torch.int64, torch.float32][column]
        np.testing.assert_array_equal(got, expected)
    np.testing.assert_array_equal(torch.cat([samples.labels.shape for samples in found]), whole.labels.shape)
    again = pickle.loads(pickle.dumps(found[0]))
    np.testing.assert_array_equal(again.place, found[0].place)


def test_a_data_set_that_transforms_has_the_place_in_its_batches(gen: Generator) -> None:
    data = CounterfactualDataset(gen, 4, seed=2, n=8, place=PLACE, transform=lambda batch: batch.place)
    np.testing.assert_array_equal(torch.cat(list(data)), gen.sample(8, seed=2, place=PLACE).place)
    with pytest.raises(
        ValueError, match=r"dataset: place is given for each sample \(list\), expected a cgnrt.Place"
    ):
        CounterfactualDataset(gen, 4, place=[[0, 0, 1, 0]] * 4)


@pytest.mark.parametrize("options", DRAWN)
def test_a_batch_keeps_its_places_wherever_it_goes(gen: Generator, options: dict[str, Any]) -> None:
    batch = gen.sample(4, seed=2, place=PLACE, **options)
    assert ", seed=2, placed)" in repr(batch)
    for other in (batch.torch(), batch.to("cpu"), pickle.loads(pickle.dumps(batch)), batch.numpy()):
        np.testing.assert_array_equal(other.place, batch.place)
    assert isinstance(batch.to("cpu").place, torch.Tensor)
    assert batch.to("cpu").place.dtype == torch.float32


@pytest.mark.parametrize("backend", ["torch", "onnxruntime"])
@pytest.mark.parametrize("options", DRAWN)
def test_every_engine_puts_objects_in_the_same_places(
    golden_plan: Path, gen: Generator, backend: str, options: dict[str, Any]
) -> None:
    expected = gen.sample(6, seed=8, place=PLACE, **options)
    found = Generator(golden_plan, backend=backend, device="cpu").sample(6, seed=8, place=PLACE, **options)
    np.testing.assert_array_equal(found.place, expected.place)
    np.testing.assert_allclose(found.images, expected.images, atol=ENGINE_TOLERANCE)


@pytest.mark.parametrize("stored", ["golden_bank_plan", "golden_bank_streams_plan"])
@pytest.mark.parametrize("parts", [False, True])
@pytest.mark.parametrize("options", DRAWN)
def test_a_plan_of_banks_places_its_objects(
    request: pytest.FixtureRequest, stored: str, parts: bool, options: dict[str, Any]
) -> None:
    bank = Generator(request.getfixturevalue(stored), device="cpu")
    plain = bank.sample(7, seed=4, parts=True, **options)
    placed = bank.sample(7, seed=4, place=PLACE, parts=parts, **options)
    moved = compose(plain.mask, plain.foreground, plain.background, place=placed.place, clamp=(-1, 1))
    np.testing.assert_array_equal(placed.images, moved)
    np.testing.assert_array_equal(placed.background if parts else plain.background, plain.background)


def test_an_audit_puts_the_objects_of_all_kinds_in_the_same_places(telling: Generator) -> None:
    seen: list[np.ndarray] = []

    def classifier(images: np.ndarray) -> np.ndarray:
        seen.append(images)
        return np.zeros(len(images), np.int64)

    found = audit(classifier, telling, 6, seed=3, place=PLACE, progress=False)
    expected = telling.related(seed=3, indices=range(6), place=PLACE)
    (fact,) = expected.render([expected.labels])
    np.testing.assert_array_equal(seen[0], fact.images)
    assert found.place == PLACE
    assert Audit.from_json(found.to_json()) == found
    assert "objects placed by dy=-0.25:0.25,dx=-0.5:0,scale=0.5:1.5,flip=0.5, seed 3" in str(found)
    plain = audit(classifier, telling, 6, seed=3, progress=False)
    assert plain.place is None
    assert "place" not in plain.to_dict()
    with pytest.raises(ValueError, match="audit: place is given for each sample"):
        audit(classifier, telling, 6, place=fact.place)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"damaged .place is \{'dy': 1\}, expected an object of dy, dx"):
        Audit.from_dict(found.to_dict() | {"place": {"dy": 1}})


def test_a_path_moves_from_one_place_to_another(gen: Generator) -> None:
    ends = gen.sample(indices=[3, 9], seed=1, place=PLACE).place
    path = gen.interpolate(5, seed=1, start=3, end=9, place=PLACE, parts=True)
    steps = np.linspace(0, 1, 5, dtype=np.float32)[:, None]
    np.testing.assert_allclose(path.place[:, :3], ends[0, :3] * (1 - steps) + ends[1, :3] * steps, rtol=1e-6)
    np.testing.assert_array_equal(path.place[:, 3], ends[[0, 0, 1, 1, 1], 3])
    expected = path.mask * path.foreground + (np.float32(1) - path.mask) * path.background
    np.testing.assert_array_equal(path.images, expected.clip(-1, 1))
    still = gen.interpolate(5, mechanisms="texture", seed=1, start=3, end=9, place=PLACE)
    np.testing.assert_array_equal(still.place, ends[[0] * 5])
    alone = gen.interpolate(5, mechanisms="place", seed=1, start=3, end=9, place=ends)
    np.testing.assert_array_equal(alone.place, path.place)
    np.testing.assert_array_equal(alone.labels.shape, path.labels.shape[[0] * 5])
    assert gen.interpolate(2, seed=1).place is None
    with pytest.raises(
        ValueError, match="interpolate: mechanisms is 'place' without a place, expected place= beside"
    ):
        gen.interpolate(5, mechanisms="place", seed=1)


def test_places_are_read_as_they_are_written() -> None:
    for place in (PLACE, Place(), Place(scale=2), Place(dy=0.5, flip=1)):
        assert read_place([str(place)] if str(place) else []) in (place, None)
        assert Place.from_dict(place.to_dict()) == place
    assert read_place(["dx=-0.5:0, flip", "scale=0.5"]) == Place(dx=(-0.5, 0), flip=1, scale=0.5)
    assert read_place([]) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x=1", "sample: place has 'x', expected some of dy, dx, scale, flip. Did you mean 'dx'?"),
        ("", "sample: place has '', expected some of dy, dx, scale, flip."),
        ("dx=1,dx=2", "sample: place has dx twice, expected it once."),
        ("dx", "sample: place dx is '', expected a number or LOW:HIGH."),
        ("scale=1:2:3", "sample: place scale is '1:2:3', expected a number or LOW:HIGH."),
        ("scale=big", "sample: place scale is 'big', expected a number or LOW:HIGH."),
        ("flip=0:1", "sample: place flip is '0:1', expected a chance from 0 to 1."),
        ("scale=2:1", "sample: place scale is (2.0, 1.0), expected (low, high) with 0 <= low <= high"),
        ("dx=nan", "sample: place dx is nan, expected (low, high) with -4 <= low"),
    ],
)  # fmt: skip
def test_texts_that_are_no_place(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        read_place([text])


def test_places_given_back_are_taken(gen: Generator) -> None:
    batch = gen.sample(6, seed=4, place=PLACE)
    again = gen.sample(6, seed=4, place=batch.place.tolist())
    np.testing.assert_array_equal(again.images, batch.images)
    found = np.concatenate([b.images for b in gen.batches(6, 4, seed=4, place=batch.place)])
    np.testing.assert_array_equal(found, batch.images)
    bytes_before = np.frombuffer(b"." + batch.place.tobytes(), np.uint8)[1:]  # at no multiple of four
    np.testing.assert_array_equal(
        gen.sample(6, seed=4, place=bytes_before.view(np.float32).reshape(6, 4)).images, batch.images
    )
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
        ({"do": {"size": 1}}, "sample: do key is 'size', expected one of shape, texture, background, dy, dx, scale,"),
        ({"do": {"flop": 1}}, "Did you mean 'flip'?"),
    ],
)  # fmt: skip
def test_what_is_refused(gen: Generator, options: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=re.escape(message)):
        gen.sample(2, seed=0, **options)
