"""Generators on banks of WebP and JPEG streams: decoded in threads, kept while there is room."""

from __future__ import annotations

import os
import pickle
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cgnrt
from cgnrt.cli import main
from cgnrt.errors import PlanError
from cgnrt.plan import Bank, BankContents, Plan, write_bank

SIZE, COUNT = 16, 12
MASK_BYTES, PICTURE_BYTES = SIZE * SIZE, 3 * SIZE * SIZE
WHOLE = COUNT * (MASK_BYTES + 2 * PICTURE_BYTES)
LABELS = np.arange(COUNT) % 3
CLASSES = ["cat", "dog", "hen"]


def contents(channels: int) -> BankContents:
    pictures = np.random.default_rng(channels).integers(0, 256, (COUNT, channels, SIZE, SIZE), np.uint8)
    return BankContents(pictures, LABELS, CLASSES)


def write(path: Path, **options: Any) -> Path:
    write_bank(path, shape=contents(1), texture=contents(3), background=contents(3), **options)
    return path


@pytest.fixture
def raw(tmp_path: Path) -> cgnrt.Generator:
    return cgnrt.Generator(write(tmp_path / "raw.plan"), device="cpu", dtype="uint8")


@pytest.fixture
def streams(tmp_path: Path) -> Path:
    return write(tmp_path / "webp.plan", store="webp")


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> Counter[tuple[str, int]]:
    """How often each entry was decoded."""
    found: Counter[tuple[str, int]] = Counter()
    decode = Bank.decode

    def count(self: Bank, entry: int, out: np.ndarray) -> None:
        found[self.name, entry] += 1
        decode(self, entry, out)

    monkeypatch.setattr(Bank, "decode", count)
    return found


OPTIONS: list[dict[str, Any]] = [
    {},
    {"do": {"texture": "dog"}},
    {"per_noise": 3},
    {"distinct": True},
    {"pool": (5, 4, 3)},
    {"pool": 6, "refresh": 2},
    {"parts": True},
]


@pytest.mark.parametrize("cache", [0, 700, WHOLE // 3, WHOLE])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_lossless_streams_give_the_bytes_of_the_raw_bank(
    raw: cgnrt.Generator, streams: Path, options: dict[str, Any], cache: int
) -> None:
    with cgnrt.Generator(streams, device="cpu", dtype="uint8", bank_cache_bytes=cache) as gen:
        for seed in (3, 4):
            expected, found = raw.sample(50, seed=seed, **options), gen.sample(50, seed=seed, **options)
            assert np.array_equal(found.images, expected.images)
            if options.get("distinct"):
                assert (expected.labels.texture != expected.labels.background).all()
            where = np.array([41, 7, 7, 0])
            assert np.array_equal(
                gen.sample(seed=seed, indices=where, **options).images, expected.images[where]
            )
        if options.get("parts"):
            assert np.array_equal(found.foreground, expected.foreground)


def test_every_entry_is_decoded_once_while_there_is_room(
    streams: Path, decoded: Counter[tuple[str, int]]
) -> None:
    with cgnrt.Generator(streams, device="cpu", bank_cache_bytes=WHOLE) as gen:
        for start in range(0, 600, 100):
            gen.sample(100, seed=1, start=start)
        assert len(decoded) == 3 * COUNT
        assert set(decoded.values()) == {1}
        gen.with_pixels("uint8", "NHWC").sample(100, seed=2)
        related = gen.related(seed=1, indices=np.arange(40))
        related.render([related.labels, related.shared_labels])
        assert set(decoded.values()) == {1}


def test_without_room_pictures_are_decoded_again_and_memory_stays(
    streams: Path, decoded: Counter[tuple[str, int]]
) -> None:
    with cgnrt.Generator(streams, device="cpu", bank_cache_bytes=WHOLE // 2) as gen:
        for start in range(0, 40, 4):
            gen.sample(4, seed=1, start=start)
        kept = gen._pipeline.renderer._banks._kept
        assert sum(part.pictures.nbytes for part in kept.values()) <= WHOLE // 2
        assert max(decoded.values()) > 1
    assert not kept


def test_a_pool_keeps_its_pictures_decoded(streams: Path, decoded: Counter[tuple[str, int]]) -> None:
    with cgnrt.Generator(streams, device="cpu", bank_cache_bytes=0) as gen:
        gen.sample(100, seed=1, pool=4)
        before = decoded.total()
        gen.sample(100, seed=1, start=100, pool=4)
        assert decoded.total() == before
        pool = gen._pipeline.renderer._pool
        assert pool is not None
        assert {pictures.dtype.name for pictures in pool.pictures.values()} == {"uint8"}


def test_several_threads_ask_one_generator(raw: cgnrt.Generator, streams: Path) -> None:
    expected = raw.sample(40, seed=5).images
    with cgnrt.Generator(streams, device="cpu", dtype="uint8", threads=2, bank_cache_bytes=WHOLE // 3) as gen:
        found: list[np.ndarray] = []

        def ask() -> None:
            for _ in range(10):
                found.append(gen.sample(40, seed=5).images)

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(found) == 40
        assert all(np.array_equal(images, expected) for images in found)


def test_forked_and_pickled_generators_decode_too(raw: cgnrt.Generator, streams: Path) -> None:
    expected = raw.sample(40, seed=5).images
    with cgnrt.Generator(streams, device="cpu", dtype="uint8", bank_cache_bytes=12345) as gen:
        assert np.array_equal(gen.sample(40, seed=5).images, expected)
        again = pickle.loads(pickle.dumps(gen))
        assert again._pipeline.options.bank_cache_bytes == 12345
        assert np.array_equal(again.sample(40, seed=5).images, expected)
        child = os.fork()
        if child == 0:
            os._exit(0 if np.array_equal(gen.sample(40, seed=5).images, expected) else 1)
        assert os.waitpid(child, 0)[1] == 0


def test_torch_devices_get_the_same_numbers(streams: Path) -> None:
    with cgnrt.Generator(streams, device="cpu", bank_cache_bytes=0) as own:
        for options in ({}, {"pool": 5}, {"pool": 5, "refresh": 2}):
            expected = own.sample(20, seed=3, **options).images
            other = cgnrt.Generator(streams, device="cpu", backend="torch", bank_cache_bytes=WHOLE)
            assert np.array_equal(other.sample(20, seed=3, **options).images, expected)


@pytest.mark.parametrize("store", ["webp", "raw"])
def test_the_error_of_a_damaged_piece_names_the_plan(tmp_path: Path, store: str) -> None:
    path = write(tmp_path / "a.plan", store=store)
    with Plan.open(path) as plan:
        pictures = bytes(plan.member("banks/texture.pictures"))
    raw = bytearray(path.read_bytes())
    raw[raw.index(pictures) + len(pictures) // 2] ^= 1
    path.write_bytes(raw)
    with cgnrt.Generator(path, device="cpu") as gen:
        message = (
            r"read '.*a\.plan': mechanism 'texture': SHA-256 of chunk 0 of member 'banks/texture.pictures'"
        )
        for options in ({}, {"pool": 3}):
            with pytest.raises(PlanError, match=message):
                gen.sample(4, seed=0, **options)


@pytest.mark.parametrize("wrong", [-1, 1.5, "1 GB", True])
def test_a_wrong_cache_is_refused(streams: Path, wrong: Any) -> None:
    with pytest.raises(ValueError, match=r"load: bank_cache_bytes is .*, expected an int of 0 or more"):
        cgnrt.Generator(streams, device="cpu", bank_cache_bytes=wrong)


def test_commands_show_them(streams: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["inspect", str(streams)]) == 0
    assert "foreground (n, 3, 16, 16) float32, stored as webp" in capsys.readouterr().out
    assert main(["verify", str(streams)]) == 0
    assert main(["sheet", str(streams), "-n", "3", "-o", str(tmp_path / "a.png")]) == 0


def test_the_golden_plan_of_streams(golden_bank_streams_plan: Path, golden_bank_plan: Path) -> None:
    with cgnrt.Generator(golden_bank_streams_plan, device="cpu") as gen, Plan.open(golden_bank_plan) as raw:
        for name in ("shape", "texture"):
            found = gen.plan.banks[name].read(np.arange(7))
            assert np.array_equal(found, raw.banks[name].pictures)
        batch = gen.sample(20, seed=1)
        assert np.array_equal(batch.labels.shape, batch.labels.texture)
