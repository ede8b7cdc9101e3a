"""Pools with `refresh`: what their samples are, whatever is asked for and when, and what it costs."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cgnrt import Batch, Generator, ops
from cgnrt.render.host import HostDevice
from cgnrt.render.pools import PoolLayout, Slots
from cgnrt.sampling import MECHANISMS

POOL = (6, 5, 4)


@pytest.fixture
def demo(demo_plan: Path) -> Generator:
    """The native engine, which computes each image by itself: to the last bit the same however it is asked for."""
    return Generator(demo_plan, backend="native", precision="fp32")


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How many entries the networks have made since the test began."""
    made = dict.fromkeys(MECHANISMS, 0)
    run = HostDevice.run

    def count(
        self: HostDevice, name: str, inputs: dict[str, np.ndarray], *rest: Any
    ) -> dict[str, np.ndarray]:
        made[name] += len(inputs["noise"])
        return run(self, name, inputs, *rest)

    monkeypatch.setattr(HostDevice, "run", count)
    return made


def by_hand(
    gen: Generator, indices: list[int], sizes: tuple[int, ...], refresh: int, **options: Any
) -> np.ndarray:
    """The definition, one sample after the other: entry e is what stream sample e draws for its mechanism."""
    images = []
    for i in indices:
        picks = ops.integers(3, np.array([i]), 9, sizes, 3)[0]
        entries = [i // refresh + int(pick) for pick in picks]
        drawn = [gen.sample(indices=[e], seed=3, parts=True, **options) for e in entries]
        labels = [getattr(batch.labels, name) for batch, name in zip(drawn, MECHANISMS, strict=True)]
        noise = [getattr(batch.noise, name) for batch, name in zip(drawn, MECHANISMS, strict=True)]
        rolls = gen.sample(indices=[i], seed=3).noise.rolls
        images.append(gen(*labels, noise=(*noise, rolls)).images[0])
    return np.stack(images)


def assert_same(parts: list[Batch], whole: Batch) -> None:
    for name in ("images", "indices", "index", "mask", "foreground", "background"):
        if getattr(whole, name) is not None:
            found = np.concatenate([getattr(part, name) for part in parts])
            np.testing.assert_array_equal(found, getattr(whole, name))
    for column, expected in zip(
        zip(*(part.labels for part in parts), strict=True), whole.labels, strict=True
    ):
        np.testing.assert_array_equal(np.concatenate(column), expected)


@pytest.mark.parametrize(
    ("sizes", "refresh", "options"),
    [
        (POOL, 3, {}),
        ((1, 1, 1), 1, {}),
        ((2, 9, 1), 1, {"do": {"texture": 3}}),
        ((3, 3, 3), 2, {"classes": {"shape": [1, 4]}, "shared_noise": True}),
        ((4, 4, 4), 10**9, {}),
    ],
)
def test_samples_are_composed_from_entries_of_the_stream(
    demo: Generator, sizes: tuple[int, int, int], refresh: int, options: dict[str, Any]
) -> None:
    batch = demo.sample(12, seed=3, start=5, pool=sizes, refresh=refresh, **options)
    np.testing.assert_array_equal(batch.images, by_hand(demo, [*range(5, 17)], sizes, refresh, **options))
    again = demo(*batch.labels, noise=batch.noise)
    np.testing.assert_array_equal(batch.images, again.images)


def test_index_has_the_entries_numbers(demo: Generator) -> None:
    batch = demo.sample(40, seed=3, pool=POOL, refresh=8, start=80)
    assert batch.index is not None
    assert batch.index.dtype == np.int64
    offsets = batch.index - (batch.indices // 8)[:, None]
    assert (offsets >= 0).all()
    assert (offsets < POOL).all()
    np.testing.assert_array_equal(offsets, ops.integers(3, batch.indices, 9, POOL, 3))
    np.testing.assert_array_equal(
        batch.labels.texture, demo.sample(indices=batch.index[:, 1].copy(), seed=3).labels.texture
    )


def test_without_refresh_a_pool_is_what_it_was(demo: Generator) -> None:
    fixed = demo.sample(9, seed=3, pool=POOL)
    assert fixed.index is not None
    assert fixed.index.dtype == np.int32
    renewed = demo.sample(9, seed=3, pool=POOL, refresh=2**62)
    np.testing.assert_array_equal(fixed.images, renewed.images)


@pytest.mark.parametrize("batch_size", [1, 7, 64, 400])
def test_samples_do_not_hang_on_the_batch(demo: Generator, batch_size: int) -> None:
    options: dict[str, Any] = {"seed": 3, "pool": POOL, "refresh": 2, "parts": True}
    whole = demo.sample(300, **options)
    demo.sample(3, seed=4, pool=2)  # another pool in between
    assert_same(list(demo.batches(300, batch_size, **options)), whole)
    order = np.random.default_rng(0).permutation(300)
    shuffled = demo.sample(indices=order, **options)
    np.testing.assert_array_equal(shuffled.images, whole.images[order])


def test_any_indices_are_samples(demo: Generator) -> None:
    indices = [-1, -2, -17, 0, 5, 10**15, 2**40, -(2**40), 5]
    batch = demo.sample(indices=indices, seed=3, pool=POOL, refresh=3)
    np.testing.assert_array_equal(batch.images, by_hand(demo, indices, POOL, 3))
    ends = demo.sample(
        indices=[2**63 - 1, -(2**63)], seed=3, pool=2, refresh=1
    )  # entries count as their 64 bits
    np.testing.assert_array_equal(demo(*ends.labels, noise=ends.noise).images, ends.images)


def test_networks_run_once_for_refresh_images(demo: Generator, runs: dict[str, int]) -> None:
    for batch in demo.batches(4000, 50, seed=3, pool=20, refresh=4):
        assert len(batch)
    entries = 4000 // 4 + 20
    for made in runs.values():  # some entries are never picked: about e^-4 of them
        assert 0.95 * entries < made <= entries


def test_large_requests_make_no_entry_twice(demo: Generator, runs: dict[str, int]) -> None:
    demo.sample(3000, seed=3, pool=(5, 40, 3), refresh=1)
    for made, size in zip(runs.values(), (5, 40, 3), strict=True):
        assert made <= 3000 + size
    before = dict(runs)
    demo.sample(4, seed=3, pool=(5, 40, 3), refresh=1, start=2996)
    assert runs == before  # the last entries are still there


def test_memory_is_bounded(demo: Generator) -> None:
    demo.sample(1, seed=3, pool=POOL, refresh=1)
    pool = demo._pipeline.renderer._pool
    assert pool is not None
    held = {name: array.shape[0] for name, array in pool.pictures.items()}
    assert held == {"mask": 6 + 64, "foreground": 5 + 64, "background": 4 + 64}
    for _ in demo.batches(1000, 100, seed=3, pool=POOL, refresh=1):
        pass
    assert demo._pipeline.renderer._pool is pool
    assert all(len(slots) <= 70 for slots in pool._slots.values())  # type: ignore[union-attr]


def test_a_failing_network_leaves_the_generator_usable(
    demo: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = Generator(demo.plan.path, backend="native", precision="fp32").sample(
        300, seed=3, pool=8, refresh=1
    )
    run = HostDevice.run
    failing = itertools.cycle([False, False, True])

    def fail(self: HostDevice, *arguments: Any) -> Any:
        if next(failing):
            raise RuntimeError("no")
        return run(self, *arguments)

    monkeypatch.setattr(HostDevice, "run", fail)
    images = np.empty_like(expected.images)
    for low in range(0, 300, 30):
        for _ in range(10):
            try:
                batch = demo.sample(30, seed=3, start=low, pool=8, refresh=1)
                break
            except RuntimeError:
                continue
        images[low : low + 30] = batch.images
    np.testing.assert_array_equal(images, expected.images)


def test_no_samples(demo: Generator, runs: dict[str, int]) -> None:
    batch = demo.sample(0, seed=3, pool=POOL, refresh=2, parts=True)
    assert batch.images.shape == (0, 3, 32, 32)
    assert batch.index is not None
    assert batch.index.shape == (0, 3)
    assert batch.mask.shape == (0, 1, 32, 32)
    assert sum(runs.values()) == 0


def test_truncation_and_pre_masks(imagenet_like: Path) -> None:
    gen = Generator(imagenet_like)
    options: dict[str, Any] = {"seed": 3, "pool": 3, "refresh": 2, "truncation": 0.4}
    images = gen.sample(5, **options).images
    batch = gen.sample(5, **options, parts=True)  # the kept pool has no pre-masks
    np.testing.assert_allclose(batch.images, images, atol=2e-4)
    again = gen(*batch.labels, noise=batch.noise, truncation=0.4, parts=True)
    np.testing.assert_allclose(batch.pre_mask, again.pre_mask, atol=2e-4)
    np.testing.assert_allclose(batch.images, again.images, atol=2e-4)


@pytest.mark.filterwarnings("ignore:.*use of fork")
def test_forked_children_have_entries_of_their_own(demo: Generator) -> None:
    options: dict[str, Any] = {"seed": 3, "pool": POOL, "refresh": 2}
    expected = demo.sample(20, start=20, **options).images
    demo.sample(20, **options)
    pid = os.fork()
    if not pid:
        same = np.array_equal(demo.sample(20, start=20, **options).images, expected)
        os._exit(0 if same else 1)
    assert os.waitpid(pid, 0)[1] == 0
    np.testing.assert_array_equal(demo.sample(20, start=20, **options).images, expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pool": 3, "refresh": 0}, r"refresh is 0, expected an int of at least 1"),
        ({"pool": 3, "refresh": True}, r"refresh is True, expected"),
        ({"pool": 3, "refresh": 1.5}, r"refresh is 1\.5, expected"),
        ({"refresh": 4}, r"refresh is 4 without a pool, expected pool="),
        ({"pool": 3, "refresh": 4, "labels": "shared"}, r"labels='shared' is set beside a pool"),
    ],
)
def test_bad_arguments(demo: Generator, options: dict[str, Any], message: str) -> None:
    for call in (demo.sample, lambda n, **kw: demo.batches(n, 2, **kw)):
        with pytest.raises(ValueError, match=message):
            call(4, seed=1, **options)


def naive_slots(entries: Iterator[list[int]], count: int) -> None:
    """Drives `Slots` as a pool does, and looks at every promise."""
    slots, memory = Slots(count), np.full(count, -1, np.int64)
    for wanted in entries:
        places = slots.place(np.array(wanted), (min(wanted), max(wanted) + 1))
        assert len(set(places.slots.tolist())) == len(places.missing)
        memory[places.slots] = places.missing
        slots.fill(places.slots, places.missing)
        assert memory[places.index].tolist() == wanted


def test_slots_hold_what_was_asked_for_last() -> None:
    random = np.random.default_rng(1)
    naive_slots((random.integers(0, 30, 8).tolist() for _ in range(200)), 8)
    naive_slots((random.integers(k // 2, k // 2 + 20, 5).tolist() for k in range(200)), 25)


def test_entries_to_come_stay() -> None:
    """Of consecutive samples, however they are cut, every entry is made at most once."""
    random = np.random.default_rng(2)
    for refresh, sizes, chunk in ((1, (9, 5, 7), 4), (3, (20, 20, 20), 2), (16, (1, 2, 3), 128)):
        layout = PoolLayout(sizes, refresh, chunk)
        slots, made, at = [Slots(count) for count in layout.rows], [[], [], []], 0
        while at < 600:
            n = int(random.integers(1, 90))
            indices = np.arange(at, at + n)
            entries = layout.entries(random.integers(0, sizes, (n, 3)), indices)
            for part in layout.parts(n):
                for k, window in enumerate(layout.windows(indices[part])):
                    places = slots[k].place(entries[part][:, k], window)
                    slots[k].fill(places.slots, places.missing)
                    made[k] += places.missing.tolist()
            at += n
        assert all(len(each) == len(set(each)) for each in made)
