"""Generator: the same samples however they are asked for, and the same function as the plan's graphs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cgnrt import Batch, Generator, Noise
from cgnrt.render.host import HostDevice, roll_each

from .conftest import ENGINE_TOLERANCE


def assert_same(mine: Batch, its: Batch, rows: slice = slice(None)) -> None:
    for a, b in zip((*mine.labels, *mine.noise), (*its.labels, *its.noise), strict=True):
        np.testing.assert_array_equal(a[rows], b)
    np.testing.assert_allclose(mine.images[rows], its.images, atol=ENGINE_TOLERANCE)


def test_sample_i_does_not_depend_on_how_it_is_asked_for(golden_plan: Path, backend: str) -> None:
    whole = Generator(golden_plan, backend=backend).sample(301, seed=9, start=5)
    again = Generator(golden_plan, backend=backend, threads=1)
    assert_same(whole, again.sample(1, seed=9, start=5), slice(0, 1))
    assert_same(whole, again.sample(130, seed=9, start=105), slice(100, 230))
    picked = np.array([17, 5, 300, 17])
    assert_same(whole, again.sample(indices=picked, seed=9), picked - 5)  # type: ignore[arg-type]


def test_engines_agree(golden_plan: Path) -> None:
    batches = [Generator(golden_plan, backend=b).sample(50, seed=2) for b in ("openvino", "onnxruntime")]
    assert_same(*batches)


def test_images_are_the_composer_of_the_parts(gen: Generator) -> None:
    batch = gen.sample(20, seed=2, parts=True)
    expected = batch.mask * batch.foreground + (1 - batch.mask) * batch.background
    np.testing.assert_allclose(batch.images, expected, atol=1e-6)
    assert batch.mask.shape == (20, 1, 8, 8)
    assert batch.foreground.shape == (20, 3, 8, 8)
    assert batch.pre_mask is None


def test_parts_are_rolled_as_composed(gen: Generator) -> None:
    batch = gen.sample(6, seed=2, parts=True)
    still = batch.noise._replace(rolls=np.zeros((6, 2, 2), np.int32))
    flat = gen(*batch.labels, noise=still, seed=2, parts=True)
    assert batch.noise.rolls.any()
    for i in range(6):
        dy, dx = batch.noise.rolls[i, 1]
        np.testing.assert_allclose(
            np.roll(flat.background[i], (dy, dx), (1, 2)), batch.background[i], atol=ENGINE_TOLERANCE
        )


def test_roll_each_is_np_roll() -> None:
    rng = np.random.default_rng(0)
    pictures = rng.random((9, 3, 5, 7), np.float32)
    shifts = rng.integers(-20, 20, (9, 2)).astype(np.int32)
    expected = [np.roll(p, tuple(s), (1, 2)) for p, s in zip(pictures, shifts, strict=True)]
    np.testing.assert_array_equal(roll_each(pictures, shifts), expected)


def test_given_noise_with_one_label_changed_is_the_counterfactual(gen: Generator) -> None:
    fact = gen.sample(5, seed=8, parts=True)
    labels = fact.labels._replace(texture=(fact.labels.texture + 1) % 3)
    counterfactual = gen(*labels, noise=fact.noise, parts=True)
    np.testing.assert_allclose(counterfactual.mask, fact.mask, atol=ENGINE_TOLERANCE)
    np.testing.assert_allclose(counterfactual.background, fact.background, atol=ENGINE_TOLERANCE)
    assert (np.abs(counterfactual.foreground - fact.foreground).max(axis=(1, 2, 3)) > 1e-3).all()


def test_rolls_left_out_of_the_noise_are_drawn_from_the_seed(gen: Generator) -> None:
    fact = gen.sample(5, seed=8)
    again = gen(*fact.labels, noise=tuple(fact.noise)[:3], seed=8)
    np.testing.assert_array_equal(again.noise.rolls, fact.noise.rolls)
    np.testing.assert_allclose(again.images, fact.images, atol=ENGINE_TOLERANCE)


def test_a_call_is_sample_with_those_labels_set(gen: Generator) -> None:
    called = gen(shape=[1, 2], texture=gen.classes["texture"][0], seed=5, start=3)
    plain = gen.sample(2, seed=5, start=3)
    assert called.labels.shape.tolist() == [1, 2]
    assert called.labels.texture.tolist() == [0, 0]
    np.testing.assert_array_equal(called.labels.background, plain.labels.background)
    for mine, its in zip(called.noise, plain.noise, strict=True):
        np.testing.assert_array_equal(mine, its)


def test_labels_are_int64_in_a_named_tuple(gen: Generator) -> None:
    batch = gen.sample(3, seed=0)
    assert batch.labels._fields == ("shape", "texture", "background")
    assert all(column.dtype == np.int64 for column in batch.labels)
    assert batch.noise._fields == ("shape", "texture", "background", "rolls")
    assert isinstance(batch.noise, Noise)
    assert batch.noise.rolls.dtype == np.int32


@pytest.mark.parametrize("parts", [False, True])
@pytest.mark.parametrize("pool", [None, 4])
def test_no_samples_are_an_empty_batch(gen: Generator, parts: bool, pool: int | None) -> None:
    batch = gen.sample(0, seed=1, parts=parts, pool=pool)
    assert batch.images.shape == (0, 3, 8, 8)
    assert len(batch.labels.shape) == 0
    if parts:
        assert batch.mask.shape == (0, 1, 8, 8)


def test_images_can_be_written_where_the_caller_wants(gen: Generator) -> None:
    out = np.full((9, 3, 8, 8), np.nan, np.float32)
    batch = gen.sample(9, seed=1, out=out)
    assert batch.images is out
    np.testing.assert_array_equal(out, gen.sample(9, seed=1).images)


# Pools.


def test_pool_entries_are_stream_samples(gen: Generator) -> None:
    pooled = gen.sample(200, seed=6, pool=(7, 5, 3), parts=True)
    stream = gen.sample(7, seed=6, parts=True)
    assert pooled.index is not None
    assert pooled.index.shape == (200, 3)
    assert pooled.index.max(axis=0).tolist() == [6, 4, 2]
    np.testing.assert_allclose(pooled.mask, stream.mask[pooled.index[:, 0]], atol=ENGINE_TOLERANCE)
    np.testing.assert_array_equal(pooled.labels.texture, stream.labels.texture[pooled.index[:, 1]])
    np.testing.assert_array_equal(pooled.noise.background, stream.noise.background[pooled.index[:, 2]])
    expected = pooled.mask * pooled.foreground + (1 - pooled.mask) * pooled.background
    np.testing.assert_allclose(pooled.images, expected, atol=1e-6)


def test_pool_samples_have_their_own_rolls_and_do_not_depend_on_n_or_start(gen: Generator) -> None:
    whole = gen.sample(60, seed=6, pool=4)
    np.testing.assert_array_equal(whole.noise.rolls, gen.sample(60, seed=6).noise.rolls)
    part = gen.sample(10, seed=6, pool=4, start=30)
    np.testing.assert_array_equal(whole.images[30:40], part.images)


def test_a_pool_sample_can_be_made_again_from_its_noise(gen: Generator) -> None:
    pooled = gen.sample(12, seed=6, pool=4)
    np.testing.assert_allclose(
        gen(*pooled.labels, noise=pooled.noise).images, pooled.images, atol=ENGINE_TOLERANCE
    )


def test_a_pool_is_drawn_after_do(gen: Generator) -> None:
    batch = gen.sample(30, seed=6, pool=8, do={"shape": 1})
    assert (batch.labels.shape == 1).all()
    assert len(set(batch.labels.texture.tolist())) > 1


def test_the_last_pool_is_kept(gen: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    from cgnrt.render import pools

    gen.sample(4, seed=11, pool=4)
    monkeypatch.setattr(pools.Pool, "prepare", None)
    gen.sample(4, seed=11, start=4, pool=4)
    with pytest.raises(TypeError):
        gen.sample(4, seed=12, pool=4)


def test_a_dropped_pool_is_made_again(gen: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[str] = []
    run = HostDevice.run

    def spy(self: HostDevice, name: str, *inputs: Any) -> dict[str, np.ndarray]:
        runs.append(name)
        return run(self, name, *inputs)

    monkeypatch.setattr(HostDevice, "run", spy)
    gen.drop_pool()  # there is none yet
    for refresh in (None, 2):
        expected = gen.sample(4, seed=11, pool=4, refresh=refresh).images
        runs.clear()
        gen.sample(4, seed=11, pool=4, refresh=refresh)
        assert not runs
        gen.drop_pool()
        again = gen.sample(4, seed=11, pool=4, refresh=refresh).images
        assert runs == ["shape", "texture", "background"]
        np.testing.assert_array_equal(again, expected)


# Interpolation.


def test_interpolation_ends_at_the_two_samples(gen: Generator) -> None:
    frames = gen.interpolate(5, seed=3, start=10, end=20)
    ends = gen.sample(indices=[10, 20], seed=3)
    rolled = ends.noise._replace(rolls=ends.noise.rolls[[0, 0]])
    expected = gen(*ends.labels, noise=rolled).images
    np.testing.assert_allclose(frames.images[[0, -1]], expected, atol=ENGINE_TOLERANCE)
    steps = np.abs(np.diff(frames.images, axis=0)).max(axis=(1, 2, 3))
    assert (steps > 0).all()


def test_interpolation_says_how_far_it_is(demo_plan: Path) -> None:
    done: list[int] = []
    Generator(demo_plan).interpolate(300, seed=3, progress=done.append)  # several chunks
    assert len(done) > 1
    assert sum(done) == 300


def test_interpolation_moves_only_what_it_is_told_to(gen: Generator) -> None:
    frames = gen.interpolate(
        4, mechanisms="texture", texture=(0, gen.classes["texture"][2]), seed=3, parts=True
    )
    np.testing.assert_allclose(frames.mask, frames.mask[:1].repeat(4, 0), atol=ENGINE_TOLERANCE)
    np.testing.assert_allclose(frames.background, frames.background[:1].repeat(4, 0), atol=ENGINE_TOLERANCE)
    assert frames.labels.texture.tolist() == [0, 0, 2, 2]
    assert np.abs(frames.foreground[0] - frames.foreground[-1]).max() > 1e-3


def test_interpolation_stays_on_the_shell_of_gaussian_noise() -> None:
    from cgnrt.request.interpolation import slerp

    a, b = np.random.default_rng(0).standard_normal((2, 512)).astype(np.float32)
    path = slerp(a, b, np.linspace(0, 1, 9, dtype=np.float32)[:, None])
    np.testing.assert_allclose(path[[0, -1]], [a, b], atol=1e-5)
    assert np.linalg.norm(path, axis=1).min() > 0.95 * min(np.linalg.norm(a), np.linalg.norm(b))
