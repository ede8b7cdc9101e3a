"""Generators on banks: the stream contract, and pictures composed as they lie in the file."""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cgnrt
from cgnrt.cli import main
from cgnrt.errors import PlanError
from cgnrt.plan import MECHANISMS, BankContents, Plan, write_bank


@pytest.fixture
def gen(golden_bank_plan: Path) -> cgnrt.Generator:
    return cgnrt.Generator(golden_bank_plan, device="cpu", dtype="uint8")


def composed(gen: cgnrt.Generator, batch: cgnrt.Batch) -> np.ndarray:
    """Eq. 2 of the entries that labels and noise pick, exactly, as bytes."""
    noise = batch.noise
    found = []
    for name, labels, u in zip(MECHANISMS, batch.labels, noise[:3], strict=True):
        bank = gen.plan.banks[name]
        found.append(bank.pictures[bank.entries(labels, u)].astype(np.int64))
    masks, foregrounds, backgrounds = found
    for pictures, shifts in ((foregrounds, noise.rolls[:, 0]), (backgrounds, noise.rolls[:, 1])):
        for i, (dy, dx) in enumerate(shifts.tolist()):
            pictures[i] = np.roll(pictures[i], (dy, dx), (1, 2))
    return ((2 * (masks * foregrounds + (255 - masks) * backgrounds) + 255) // 510).astype(np.uint8)


OPTIONS: list[dict[str, Any]] = [
    {},
    {"do": {"texture": "dots"}},
    {"classes": {"background": ["sea", "sand"]}},
    {"labels": "shared"},
    {"per_noise": 3},
    {"per_noise": 3, "hold": "all"},
    {"shared_noise": True},
    {"do": {"background": 1}, "distinct": True},
    {"distinct": True},
    {"pool": (5, 4, 3)},
    {"pool": 6, "refresh": 2},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_images_are_exactly_those_of_the_entries(gen: cgnrt.Generator, options: dict[str, Any]) -> None:
    batch = gen.sample(50, seed=3, **options)
    assert np.array_equal(batch.images, composed(gen, batch))
    assert np.array_equal(gen.sample(30, seed=3, start=20, **options).images, batch.images[20:])
    where = np.array([41, 7, 7, 0])
    assert np.array_equal(gen.sample(seed=3, indices=where, **options).images, batch.images[where])


def test_noise_is_the_first_word_of_its_slot(gen: cgnrt.Generator) -> None:
    noise = gen.sample(9, seed=5).noise
    for slot, name in enumerate(MECHANISMS, 3):
        words = getattr(noise, name)
        assert words.dtype == np.uint32
        assert np.array_equal(words[:, 0], cgnrt.ops.philox(5, np.arange(9), slot, 1)[:, 0])


def test_noise_given_back_with_another_label_is_an_entry_of_that_label(gen: cgnrt.Generator) -> None:
    fact = gen.sample(40, seed=1, parts=True)
    label = fact.labels._replace(texture=(fact.labels.texture + 1) % 3)
    other = gen(*label, noise=fact.noise, parts=True)
    assert np.array_equal(other.images, composed(gen, other))
    assert np.array_equal(other.mask, fact.mask)
    assert np.array_equal(other.background, fact.background)
    assert (other.foreground != fact.foreground).any()


def test_entries_are_drawn_by_their_weights(gen: cgnrt.Generator) -> None:
    batch = gen.sample(30_000, seed=0, do={"texture": 0})
    found = np.bincount(gen.plan.banks["texture"].entries(batch.labels.texture, batch.noise.texture))
    assert np.abs(found / 30_000 - np.array([1, 2, 3]) / 6).max() < 0.01


def test_parts_are_the_numbers_that_are_composed(gen: cgnrt.Generator) -> None:
    batch = gen.sample(8, seed=2, parts=True)
    assert batch.mask.dtype == np.float32
    assert (batch.mask.min(), batch.mask.max()) >= (0, 0)
    images = batch.mask * batch.foreground + (1 - batch.mask) * batch.background
    assert np.abs((images + 1) * 127.5 - batch.images).max() < 0.51


def test_streams_related_and_workers(gen: cgnrt.Generator) -> None:
    images = gen.sample(8, seed=4).images
    with gen.stream(4, seed=4, stop=8) as stream:
        assert np.array_equal(np.concatenate([batch.images for batch in stream]), images)
    related = gen.related(seed=4, indices=np.arange(8))
    (again,) = related.render([related.labels])
    assert np.array_equal(again.images, images)
    assert np.array_equal(pickle.loads(pickle.dumps(gen)).sample(8, seed=4).images, images)


def test_networks_and_banks_meet(golden_plan: Path, golden_bank_plan: Path, tmp_path: Path) -> None:
    with Plan.open(golden_plan) as graphs, Plan.open(golden_bank_plan) as banks:
        write_bank(tmp_path / "a.plan", shape=banks, texture=graphs, background=banks)
    mixed = cgnrt.Generator(tmp_path / "a.plan", device="cpu")
    network = cgnrt.Generator(golden_plan, device="cpu").sample(9, seed=1, parts=True)
    bank = cgnrt.Generator(golden_bank_plan, device="cpu").sample(9, seed=1, parts=True)
    found = mixed.sample(9, seed=1, parts=True)
    assert np.allclose(found.foreground, network.foreground, atol=1e-6)
    assert np.array_equal(found.mask, bank.mask)
    blended = found.mask * found.foreground + (1 - found.mask) * found.background
    assert np.allclose(found.images, blended, atol=1e-6)
    assert mixed.sample(20, seed=1, pool=4).images.shape == (20, 3, 8, 8)
    assert mixed.interpolate(3, mechanisms="texture", seed=1).images.shape == (3, 3, 8, 8)
    with pytest.raises(ValueError, match=r"interpolate: .* expected networks: shape is a bank of pictures"):
        mixed.interpolate(3)
    with pytest.raises(ValueError, match="shared_noise is on, expected one noise size and distribution"):
        mixed.sample(3, shared_noise=True)


@pytest.mark.parametrize(
    ("noise", "message"),
    [
        (np.zeros((4, 1), np.float32), "noise of shape is float32 (4, 1), expected uint32 (4, 1)"),
        (np.zeros(4, np.int64), "noise of shape is int64 (4,), expected uint32 (4, 1)"),
        (np.full((4, 1), -1), "noise of shape is -1..-1, expected what uint32 holds"),
        (np.full((4, 1), 2**32), "noise of shape is 4294967296..4294967296, expected what uint32 holds"),
    ],
)
def test_wrong_noise_is_refused(gen: cgnrt.Generator, noise: Any, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        gen.sample(4, noise=(noise, None, None))


def test_torch_devices_get_the_same_numbers(golden_bank_plan: Path, gen: cgnrt.Generator) -> None:
    other = cgnrt.Generator(golden_bank_plan, device="cpu", backend="torch", dtype="float32")
    own = cgnrt.Generator(golden_bank_plan, device="cpu", dtype="float32")
    for options in ({}, {"pool": 5}, {"pool": 5, "refresh": 2}):
        expected = own.sample(20, seed=3, **options).images
        assert np.array_equal(other.sample(20, seed=3, **options).images, expected)


def test_damaged_pictures_are_not_handed_out(tmp_path: Path) -> None:
    labels = np.array([0, 1])
    pictures = np.arange(2 * 3 * 64, dtype=np.uint8).reshape(2, 3, 8, 8)
    plan = tmp_path / "a.plan"
    write_bank(
        plan,
        shape=BankContents(pictures[:, :1].copy(), labels, ["a", "b"]),
        texture=BankContents(pictures, labels, ["a", "b"]),
        background=BankContents(pictures + 1, labels, ["a", "b"]),
    )
    raw = bytearray(plan.read_bytes())
    raw[raw.index(pictures.tobytes()) + 7] ^= 1
    plan.write_bytes(raw)
    gen = cgnrt.Generator(plan, device="cpu")
    with pytest.raises(PlanError, match=r"SHA-256 of chunk 0 of member 'banks/texture.pictures'"):
        gen.sample(4, seed=0)


def test_the_command_compares_every_picture(
    golden_bank_plan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", str(golden_bank_plan)]) == 0
    assert "10 members, as the manifest says" in capsys.readouterr().out
    with Plan.open(golden_bank_plan) as plan:
        pictures = bytes(plan.member("banks/texture.pictures"))
    raw = bytearray(golden_bank_plan.read_bytes())
    raw[raw.index(pictures)] ^= 1
    damaged = tmp_path / "damaged.plan"
    damaged.write_bytes(raw)
    assert main(["verify", str(damaged)]) == 1
    assert "SHA-256 of chunk 0 of member 'banks/texture.pictures' is" in capsys.readouterr().err


def test_inspect_shows_banks(golden_bank_plan: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(golden_bank_plan)]) == 0
    shown = capsys.readouterr().out
    assert "texture  (bank of 7 pictures, 1344 B)" in shown
    assert "1 .. 3 pictures, drawn by weights" in shown
    assert "make_golden.py: 7 (SHA-256 0000000000000000...), licence: MIT" in shown
