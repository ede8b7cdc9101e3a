"""Generators on photos that keep their objects (Mixed-Rand): the texture follows the shape in all that is drawn."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import serving

import cgnrt
from cgnrt.cli import main
from cgnrt.plan import BankContents, Plan, write_bank
from cgnrt.sampling import Labels
from cgnrt.serve.protocol import ServeError
from cgnrt.serve.service import Service

CLASSES = ["cat", "dog", "hen"]
LABELS = np.array([0, 0, 0, 1, 2, 2, 1])


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    """Seven photos: mask k is 10 k everywhere, and the object's pixels are 10 k, too."""
    values = np.arange(7, dtype=np.uint8)[:, None, None, None] * 10
    masks, objects = (
        np.broadcast_to(values, (7, 1, 8, 8)).copy(),
        np.broadcast_to(values, (7, 3, 8, 8)).copy(),
    )
    weights = np.array([1, 2, 3, 1, 1, 5, 1])
    write_bank(
        tmp_path / "photos.plan",
        shape=BankContents(masks, LABELS, CLASSES, weights=weights),
        texture=BankContents(objects, LABELS, CLASSES, follows="shape"),
        background=BankContents(objects + 1, LABELS, CLASSES),
    )
    return tmp_path / "photos.plan"


@pytest.fixture
def gen(plan: Path) -> Iterator[cgnrt.Generator]:
    with cgnrt.Generator(plan, device="cpu", dtype="uint8") as opened:
        yield opened


OPTIONS: list[dict[str, Any]] = [
    {},
    {"do": {"shape": "dog"}},
    {"do": {"background": 1}},
    {"classes": {"shape": ["hen", "cat"]}},
    {"labels": "shared"},
    {"per_noise": 3},
    {"per_noise": 3, "hold": "all"},
    {"per_noise": 2, "labels": "shared"},
    {"shared_noise": True},
    {"distinct": True},
    {"distinct": True, "do": {"background": "cat"}},
    {"distinct": True, "do": {"shape": "cat"}},
    {"pool": (5, 5, 3)},
    {"pool": 6, "refresh": 2},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_every_object_keeps_its_own_pixels(gen: cgnrt.Generator, options: dict[str, Any]) -> None:
    batch = gen.sample(60, seed=3, parts=True, **options)
    mask = np.rint(batch.mask[:, 0, 0, 0] * 255)
    assert np.array_equal(np.rint((batch.foreground[:, :, 0, 0] + 1) * 127.5), np.stack([mask] * 3, axis=1))
    assert np.array_equal(batch.labels.texture, batch.labels.shape)
    assert np.array_equal(batch.noise.texture, batch.noise.shape)
    if options.get("distinct"):
        assert (batch.labels.background != batch.labels.shape).all()
    where = np.array([41, 7, 7, 0])
    again = gen.sample(seed=3, indices=where, **options)
    assert np.array_equal(again.images, batch.images[where])
    with gen.stream(20, seed=3, stop=60, **options) as stream:
        assert np.array_equal(np.concatenate([part.images for part in stream]), batch.images)


def test_the_shape_and_background_draw_as_without_it(
    gen: cgnrt.Generator, plan: Path, tmp_path: Path
) -> None:
    with Plan.open(plan) as opened:
        own = BankContents(opened.banks["texture"].pictures, opened.banks["texture"].labels, CLASSES)
        write_bank(tmp_path / "free.plan", shape=opened, texture=own, background=opened)
    with cgnrt.Generator(tmp_path / "free.plan", device="cpu") as free:
        mine, its = gen.sample(50, seed=1, parts=True), free.sample(50, seed=1, parts=True)
    for name in ("mask", "background"):
        assert np.array_equal(getattr(mine, name), getattr(its, name))
    assert (mine.labels.texture != its.labels.texture).any()


def test_a_batch_given_back_is_itself_and_another_shape_brings_its_pixels(gen: cgnrt.Generator) -> None:
    fact = gen.sample(40, seed=1)
    assert np.array_equal(gen(*fact.labels, noise=fact.noise).images, fact.images)
    noise = (fact.noise.shape, None, fact.noise.background, fact.noise.rolls)
    assert np.array_equal(
        gen(shape=fact.labels.shape, background=fact.labels.background, noise=noise).images, fact.images
    )
    assert np.array_equal(gen("dog", "dog", 0, noise=fact.noise).labels.texture, np.full(40, 1))
    prepared = [gen.prepare("cat", seed=k) for k in (1, 2)]
    together = gen.render(prepared)
    for batch, k in zip(together, (1, 2), strict=True):
        assert np.array_equal(batch.images, gen("cat", seed=k).images)
    related = gen.related(seed=1, indices=np.arange(40))
    other = Labels(np.zeros(40, np.int64), np.zeros(40, np.int64), fact.labels.background)
    (moved,) = related.render([other])
    assert np.array_equal(
        moved.images, gen("cat", background=fact.labels.background, noise=fact.noise).images
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"do": {"texture": "cat"}}, r"sample: do\['texture'\] must not be set: texture follows shape"),
        (
            {"classes": {"texture": ["cat"]}},
            r"sample: classes\['texture'\] must not be set: .* Set classes\['shape'\]",
        ),
        ({"pool": (4, 5, 6)}, r"sample: pool is \(4, 5, 6\), expected one size for shape and texture"),
        (
            {"noise": (None, np.zeros((4, 1), np.uint32), None)},
            r"noise of texture is given, expected None or that of",
        ),
        (
            {"noise": (np.ones((4, 1), np.uint32), np.zeros((4, 1), np.uint32), None)},
            r"noise of texture is given, expected None or that of shape",
        ),
        (
            {"distinct": True, "do": {"shape": 1, "background": 1}},
            r"texture and background of sample 0 are both 'dog'",
        ),
    ],
)
def test_what_would_part_texture_and_shape_is_refused(
    gen: cgnrt.Generator, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        gen.sample(4, seed=0, **options)


def test_other_labels_of_texture_are_refused(gen: cgnrt.Generator) -> None:
    message = (
        "sample: texture is given, expected the labels of shape, which it follows in this plan. Leave it out."
    )
    for labels in ((None, "cat"), ("dog", "cat"), ([0, 1], [0, 2]), ("dog", [1, 2])):
        with pytest.raises(ValueError, match=message):
            gen(*labels)
    related = gen.related(seed=0, indices=[0])
    with pytest.raises(ValueError, match=r"render: labels\[0\] of texture are others than those of shape"):
        related.render([Labels(*np.array([[0], [1], [0]]))])
    with pytest.raises(
        ValueError, match="interpolate: texture is 'cat', expected that of shape, which texture follows"
    ):
        gen.interpolate(2, mechanisms="background", texture="cat")


def test_a_server_draws_it_and_says_what_follows(plan: Path, gen: cgnrt.Generator) -> None:
    async def ask() -> None:
        service = Service(serving.generator(plan), "v2")
        try:
            facts = service.config("v2")["parameters"]
            assert json.loads(facts["follows"]["string_value"]) == {"texture": "shape"}
            given = [serving.tensor("count", 4), serving.tensor("seed", 7), serving.tensor("shape", 2)]
            made = serving.arrays(await service.infer(serving.request(*given)))
            assert np.array_equal(
                made["images"].transpose(0, 3, 1, 2), gen.sample(4, seed=7, do={"shape": 2}).images
            )
            assert (made["labels"][:, :2] == 2).all()
            both = serving.arrays(await service.infer(serving.request(*given, serving.tensor("texture", 2))))
            assert np.array_equal(both["images"], made["images"])
            for wrong in ([*given, serving.tensor("texture", 1)], [given[0], serving.tensor("texture", 1)]):
                with pytest.raises(ServeError, match="texture is given, expected the labels of shape"):
                    await service.infer(serving.request(*wrong))
        finally:
            await service.close()

    asyncio.run(ask())


def test_a_sheet_an_audit_and_inspect(
    plan: Path, gen: cgnrt.Generator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for kind in ("contact", "mechanisms"):
        assert main(["sheet", str(plan), "-o", str(tmp_path / f"{kind}.png"), "--kind", kind]) == 0
        assert (tmp_path / f"{kind}.png").stat().st_size > 0
    assert main(["inspect", str(plan)]) == 0
    assert "follows     shape: the same entry, and its label" in capsys.readouterr().out

    def by_background(images: np.ndarray) -> np.ndarray:
        return np.zeros(len(images), np.int64)

    with cgnrt.Generator(plan, device="cpu") as opened:
        found = cgnrt.audit(by_background, opened, 30)
    assert found.follows.shape == found.follows.texture


def test_data_sets_have_it_too(plan: Path, gen: cgnrt.Generator, tmp_path: Path) -> None:
    from cgnrt.torch import CounterfactualDataset

    batch = next(iter(CounterfactualDataset(str(plan), 8, seed=3, prefetch=0)))
    assert np.array_equal(batch.labels.texture, batch.labels.shape)
    folder = tmp_path / "shards"
    assert main(["generate", str(plan), "-o", str(folder), "-n", "20", "--format", "npz", "--seed", "3"]) == 0
    (shard,) = folder.glob("*.npz")
    with np.load(shard) as stored:
        assert np.array_equal(stored["labels_texture"], stored["labels_shape"])
        assert np.array_equal(stored["images"].transpose(0, 3, 1, 2), gen.sample(20, seed=3).images)
