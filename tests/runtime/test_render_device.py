"""A device of another kind: what a device supplies is enough for every kind of request.

Its arrays give nothing but a shape, a length and slices, so that whatever takes them for NumPy's fails.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cgnrt import Batch, Generator
from cgnrt.backends import Choice
from cgnrt.batch import DeviceColumns
from cgnrt.plan import MAX_BATCH, Plan
from cgnrt.render.device import DEVICES, Moves, RenderDevice, largest_chunk
from cgnrt.render.host import HostDevice
from cgnrt.render.pools import PoolLayout
from cgnrt.request.options import PixelFormat
from cgnrt.sampling import NoiseDraw


class Far:
    """Memory of the device."""

    def __init__(self, memory: np.ndarray) -> None:
        self.memory = memory
        self.shape = memory.shape

    def __len__(self) -> int:
        return len(self.memory)

    def __getitem__(self, part: slice) -> Far:
        if not isinstance(part, slice):
            raise TypeError(f"index is {part!r}, expected a slice")
        return Far(self.memory[part])


def near(value: Any) -> Any:
    """The memory behind arrays, which no one but the device sees."""
    if isinstance(value, Mapping):
        return {name: near(item) for name, item in value.items()}
    if value is not None and not isinstance(value, Far):
        raise TypeError(f"array is a {type(value).__name__}, expected one of the device")
    return None if value is None else value.memory


@dataclass(frozen=True, eq=False)
class FarColumns(DeviceColumns):
    def synchronize(self) -> None: ...

    def fetch(self, array: Far) -> np.ndarray:
        copied: np.ndarray = near(array).copy()
        return copied

    def order_before(self, out: Any) -> None: ...


class FarDevice(RenderDevice):
    """Computes as the CPU does, on memory that is not the host's."""

    free: int | None = None

    def __init__(self, plan: Plan, choice: Choice, threads: int | None) -> None:
        super().__init__(plan, choice, threads)
        self._host = HostDevice(plan, choice, threads)

    def free_bytes(self) -> int | None:
        return self.free

    def empty(self, shape: tuple[int, ...], dtype: str = "float32") -> Far:
        return Far(self._host.empty(shape, dtype))

    def upload(self, arrays: Sequence[np.ndarray]) -> list[Far]:
        return [Far(array.copy()) for array in arrays]

    def draw_noise(self, draw: NoiseDraw, seed: int, indices: np.ndarray, uploaded: Far) -> Far:
        np.testing.assert_array_equal(near(uploaded), indices)
        return Far(draw.draw(seed, indices))

    def scale_rows(self, rows: Far, factors: Far) -> Far:
        return Far(near(rows) * near(factors))

    def embedding(self, mechanism: str, labels: Far) -> Far:
        return Far(self._host.embedding(mechanism, near(labels)))

    def run(
        self, mechanism: str, inputs: Mapping[str, Far], into: Mapping[str, Far] | None = None
    ) -> dict[str, Far]:
        found = self._host.run(mechanism, near(inputs), near(into))
        return {name: Far(array) for name, array in found.items()}

    def put(self, source: Far, target: Far, rows: np.ndarray) -> None:
        self._host.put(near(source), near(target), rows)

    def compose(
        self,
        pixels: PixelFormat,
        pictures: Mapping[str, Far],
        index: Far | None,
        moves: Moves,
        images: Far,
    ) -> None:
        self._host.compose(pixels, near(pictures), near(index), Moves(*map(near, moves)), near(images))

    def keep(
        self,
        pictures: Mapping[str, Far],
        rows: np.ndarray | None,
        moves: Moves,
        parts: Mapping[str, Far],
    ) -> None:
        self._host.keep(near(pictures), rows, Moves(*map(near, moves)), near(parts))

    def hand_out(
        self, labels: Sequence[Far], indices: Far, index: Any, place: Any, pictures: Sequence[Far]
    ) -> FarColumns:
        shape, texture, background = labels
        return FarColumns((shape, texture, background), indices, index, place)


@pytest.fixture
def pair(demo_plan: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Generator, Generator]:
    """A generator on the device, and one on the host."""
    here = Generator(demo_plan, backend="native", device="cpu", threads=1)
    monkeypatch.setitem(DEVICES, "cpu", f"{__name__}:FarDevice")
    return Generator(demo_plan, backend="native", device="cpu", threads=1), here


def assert_same(there: Batch, here: Batch) -> None:
    columns = there.on_device
    if columns is None:
        raise AssertionError("on_device is None, expected the batch's columns")
    expected = [*here.labels, here.indices, here.index]
    for column, value in zip((*columns.labels, columns.indices, columns.index), expected, strict=True):
        np.testing.assert_array_equal(near(column), value)
    found = there.numpy()
    for name in ("images", "mask", "foreground", "background", "index", "seed"):
        np.testing.assert_array_equal(getattr(found, name), getattr(here, name))
    for column, value in zip((*found.labels, *found.noise), (*here.labels, *here.noise), strict=True):
        np.testing.assert_array_equal(column, value)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"parts": True, "start": 7},
        {"labels": "shared", "shared_noise": True},
        {"per_noise": 3, "do": {"texture": 2}},
        {"pool": (20, 3, 4), "parts": True},
        {"pool": (2, 3, 4), "refresh": 1},
        {"pool": 3, "refresh": 2, "parts": True},
    ],
    ids=str,
)
@pytest.mark.parametrize("n", [0, 300])
def test_samples_are_those_of_the_host(
    pair: tuple[Generator, Generator], options: dict[str, Any], n: int
) -> None:
    there, here = pair
    for _ in range(2):  # also from the kept pool
        assert_same(there.sample(n, 5, **options), here.sample(n, 5, **options))


def test_other_requests_are_those_of_the_host(pair: tuple[Generator, Generator]) -> None:
    there, here = pair
    noise = here.sample(3, 1).noise
    assert_same(there(shape=[1, 2, 3], noise=noise, seed=1), here(shape=[1, 2, 3], noise=noise, seed=1))
    assert_same(there.interpolate(4, seed=3, parts=True), here.interpolate(4, seed=3, parts=True))
    related = [g.related(seed=3, indices=[4, 9, 4]) for g in (there, here)]
    labels = [related[0].labels, related[0].shared_labels]
    for found, expected in zip(*(r.render(labels) for r in related), strict=True):
        assert_same(found, expected)
    assert_same(
        there.with_pixels("uint8", "NHWC").sample(3, 1), here.with_pixels("uint8", "NHWC").sample(3, 1)
    )


def test_memory_of_the_caller_is_written_to(pair: tuple[Generator, Generator]) -> None:
    there, here = pair
    out = Far(np.empty((2, 3, 32, 32), np.float32))
    assert there.sample(2, 1, out=out).images is out
    np.testing.assert_array_equal(out.memory, here.sample(2, 1).images)
    with pytest.raises(ValueError, match=r"out is \(2, 3, 32, 32\), expected shape \(3, 3, 32, 32\)"):
        there.sample(3, 1, out=out)


@pytest.mark.parametrize(
    ("free", "options", "message"),
    [
        (None, {}, "^no more$"),
        (10**6, {}, r"sample: 40 images need 491,520 bytes, and the networks' pictures 1,146,880; 1,000,000 are free"),
        (10**6, {"pool": 4}, r"the pools 114,688; 1,000,000 are free on cpu, which holds 72 images beside them"),
    ],
)  # fmt: skip
def test_what_does_not_fit_says_what_would(
    pair: tuple[Generator, Generator],
    monkeypatch: pytest.MonkeyPatch,
    free: int | None,
    options: dict[str, Any],
    message: str,
) -> None:
    there, here = pair

    def fail(*_: Any) -> None:
        raise MemoryError("no more")

    with monkeypatch.context() as patch:
        patch.setattr(FarDevice, "free", free)
        patch.setattr(FarDevice, "compose", fail)
        with pytest.raises(MemoryError, match=message):
            there.sample(40, 1, **options)
    assert_same(there.sample(4, 1, **options), here.sample(4, 1, **options))


def test_a_fixed_pool_holds_its_first_entries() -> None:
    layout = PoolLayout((6, 5, 4), None, 128)
    picks = np.array([[5, 0, 3]], np.int32)
    assert layout.rows == (6, 5, 4)
    assert layout.entries(picks, np.array([10**9])) is picks
    assert list(layout.parts(1000)) == [slice(0, 1000)]
    assert list(layout.parts(0)) == []


def test_an_engine_gets_no_more_images_than_sizes_were_checked_for() -> None:
    assert largest_chunk((8, 8), 8 * 8 * MAX_BATCH) == MAX_BATCH
    assert largest_chunk((1, 1), 2 * MAX_BATCH) == MAX_BATCH
    assert largest_chunk((8192, 8192)) == 1
