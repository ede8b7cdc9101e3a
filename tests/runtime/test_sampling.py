"""The contract of the stream (docs/sampling.md), line by line, against a Philox written out here."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from cgnrt import Batch, Generator, Place, PlanError
from cgnrt.plan import Plan
from cgnrt.sampling import MECHANISMS, DrawOptions, MechanismDraws, Sampler

SEED = 0x1234_5678_9ABC_DEF0
DRAWS = DrawOptions(
    seed=SEED, labels="independent", do=(), classes=(), shared_noise=False, per_noise=1, hold="shape"
)


def philox(seed: int, index: int, slot: int, block: int) -> list[int]:
    """Philox 4x32-10 (Salmon et al., SC11): ten rounds on counter (index, slot, block), key = seed."""
    counter = [index & 0xFFFFFFFF, index >> 32 & 0xFFFFFFFF, slot, block]  # two's complement
    key = [seed & 0xFFFFFFFF, seed >> 32]
    for _ in range(10):
        left, right = 0xD2511F53 * counter[0], 0xCD9E8D57 * counter[2]
        counter = [
            right >> 32 ^ counter[1] ^ key[0],
            right & 0xFFFFFFFF,
            left >> 32 ^ counter[3] ^ key[1],
            left & 0xFFFFFFFF,
        ]
        key = [(key[0] + 0x9E3779B9) & 0xFFFFFFFF, (key[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return counter


def below(bound: int, word: int) -> int:
    return word * bound >> 32


@pytest.fixture
def sampler() -> Sampler:
    draws = {m: MechanismDraws(10, 6, "normal", m != "shape") for m in MECHANISMS}
    return Sampler(draws, (32, 24))


INDICES = np.array([0, 1, 7, 2**32 - 1, 2**32, 2**62, -1, -(2**63)], np.int64)


@pytest.mark.parametrize(("slot", "mechanism"), list(enumerate(MECHANISMS)))
def test_labels_are_the_high_half_of_a_product(sampler: Sampler, slot: int, mechanism: str) -> None:
    drawn = sampler.labels(DRAWS, mechanism, INDICES)
    assert drawn.dtype == np.int64
    assert drawn.tolist() == [below(10, philox(SEED, int(i), slot, 0)[0]) for i in INDICES]


def test_a_place_is_a_draw_of_slot_18(sampler: Sampler) -> None:
    place = Place(dy=(-0.25, 0.25), dx=(-0.5, 0), scale=(0.5, 1.5), flip=0.5)
    found = sampler.places(DRAWS, place.draws((32, 24)), INDICES)
    for row, index in zip(found, INDICES, strict=True):
        words = philox(SEED, int(index), 18, 0)
        scale = np.float32(0.5 + 1.0 * (words[2] / 2**32))
        flip = words[3] < 2**31
        assert row.tolist() == [-8 + below(17, words[0]), -12 + below(13, words[1]), scale, flip]


@pytest.mark.parametrize(("column", "slot"), [(0, 7), (1, 8)])
def test_rolls_have_a_slot_for_each_texture_mechanism(sampler: Sampler, column: int, slot: int) -> None:
    rolls = sampler.rolls(DRAWS, INDICES)
    words = [philox(SEED, int(i), slot, 0) for i in INDICES]
    assert rolls.dtype == np.int32
    assert rolls[:, column].tolist() == [[below(32, w[0]), below(24, w[1])] for w in words]


def test_rolls_are_zero_without_the_flag() -> None:
    draws = {m: MechanismDraws(10, 6, "normal", m == "texture") for m in MECHANISMS}
    rolls = Sampler(draws, (32, 32)).rolls(DRAWS, np.arange(50))
    assert not rolls[:, 1].any()
    assert rolls[:, 0].any()


def test_pool_picks_come_from_their_own_slot(sampler: Sampler) -> None:
    sizes = (5, 1, 900)
    picks = sampler.pool_picks(SEED, sizes, INDICES)
    words = [philox(SEED, int(i), 9, 0) for i in INDICES]
    assert picks.tolist() == [[below(k, w[c]) for c, k in enumerate(sizes)] for w in words]


def test_noise_is_a_monotone_function_of_the_words_of_its_slot(sampler: Sampler) -> None:
    many = np.arange(500, dtype=np.int64)
    for slot, mechanism in enumerate(MECHANISMS, start=3):
        noise = sampler.noise(DRAWS, mechanism, many)
        words = [[philox(SEED, int(i), slot, e // 4)[e % 4] for e in range(6)] for i in many]
        order = np.argsort(np.ravel(words))
        assert noise.dtype == np.float32
        assert (np.diff(noise.ravel()[order]) >= 0).all()


def test_no_option_moves_another_draw(gen: Generator) -> None:
    plain = gen.sample(40, seed=3)
    options: list[dict[str, object]] = [
        {"do": {"texture": 2}},
        {"labels": "shared"},
        {"classes": {"background": [0, 2]}},
        {"parts": True},
    ]
    for option in options:
        other = gen.sample(40, seed=3, **option)  # type: ignore[arg-type]
        for mine, its in zip(plain.noise, other.noise, strict=True):
            np.testing.assert_array_equal(mine, its)
        np.testing.assert_array_equal(plain.labels.shape, other.labels.shape)


def test_do_replaces_labels_only(gen: Generator) -> None:
    plain, done = gen.sample(40, seed=3), gen.sample(40, seed=3, do={"texture": 2})
    assert (done.labels.texture == 2).all()
    np.testing.assert_array_equal(plain.labels.background, done.labels.background)
    same = plain.labels.texture == 2
    assert same.any()
    assert not same.all()
    np.testing.assert_allclose(plain.images[same], done.images[same], atol=2e-5)
    assert (np.abs(plain.images[~same] - done.images[~same]).max(axis=(1, 2, 3)) > 1e-3).all()


def test_labels_are_drawn_independently_and_uniformly(gen: Generator) -> None:
    labels = gen.sample(9000, seed=1, pool=None, indices=None).labels
    cells = labels.shape * 9 + labels.texture * 3 + labels.background
    counts = np.bincount(cells, minlength=27)
    # Chi-squared with 26 degrees of freedom: 54 is the 0.999 quantile.
    assert ((counts - 9000 / 27) ** 2 / (9000 / 27)).sum() < 54


def test_shared_labels_are_one_draw(gen: Generator) -> None:
    labels = gen.sample(60, seed=1, labels="shared").labels
    np.testing.assert_array_equal(labels.shape, labels.texture)
    np.testing.assert_array_equal(labels.shape, labels.background)
    assert len(set(labels.shape.tolist())) == 3


def test_class_subsets_restrict_the_draw_to_indices_or_names(gen: Generator) -> None:
    name = gen.classes["texture"][1]
    batch = gen.sample(60, seed=1, classes={"texture": [name], "shape": [0, 2]})
    assert set(batch.labels.texture.tolist()) == {1}
    assert set(batch.labels.shape.tolist()) == {0, 2}
    assert set(batch.labels.background.tolist()) == {0, 1, 2}


def test_shared_noise_is_the_shapes(gen: Generator) -> None:
    plain, shared = gen.sample(8, seed=4), gen.sample(8, seed=4, shared_noise=True)
    np.testing.assert_array_equal(shared.noise.texture, shared.noise.shape)
    np.testing.assert_array_equal(shared.noise.background, plain.noise.shape)
    assert not np.array_equal(plain.noise.texture, plain.noise.shape)


@pytest.mark.parametrize("hold", ["shape", "all"])
def test_per_noise_groups_share_the_shape_and_on_request_all_noise(gen: Generator, hold: str) -> None:
    plain, grouped = gen.sample(12, seed=5), gen.sample(12, seed=5, per_noise=4, hold=hold)
    group = np.arange(12) // 4
    np.testing.assert_array_equal(grouped.labels.shape, plain.labels.shape[group])
    np.testing.assert_array_equal(grouped.labels.texture, plain.labels.texture)
    np.testing.assert_array_equal(grouped.noise.shape, plain.noise.shape[group])
    expected = group if hold == "all" else np.arange(12)
    np.testing.assert_array_equal(grouped.noise.texture, plain.noise.texture[expected])
    np.testing.assert_array_equal(grouped.noise.rolls, plain.noise.rolls[expected])


def test_shared_noise_in_groups_holds_all(gen: Generator) -> None:
    batch = gen.sample(8, seed=5, per_noise=4, shared_noise=True)
    np.testing.assert_array_equal(batch.noise.background[:4], batch.noise.background[:1].repeat(4, axis=0))


def test_a_seed_of_none_is_drawn_and_recorded(gen: Generator) -> None:
    first, second = gen.sample(4), gen.sample(4)
    assert first.seed != second.seed
    np.testing.assert_array_equal(gen.sample(4, seed=first.seed).noise.shape, first.noise.shape)


def test_a_plan_of_an_older_stream_is_refused(golden_plan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the next version of cgnrt will have it: the plan opens and says its version, and a generator refuses it."""
    for name, module in list(sys.modules.items()):
        if name.startswith("cgnrt.") and hasattr(module, "STREAM_VERSION"):
            monkeypatch.setattr(module, "STREAM_VERSION", 2)
    with Plan.open(golden_plan) as plan:
        assert plan.manifest.stream_version == 1
        assert plan.manifest.to_dict()["stream_version"] == 1
    with pytest.raises(PlanError, match=r"stream version is 1, expected 2\. Use the cgnrt that made it"):
        Generator(golden_plan)


def test_distinct_leaves_one_class_out_of_one_draw(sampler: Sampler) -> None:
    """Against the definition, for classes of a subset with one of them twice."""
    indices = np.arange(-40, 400)
    texture = sampler.labels(DRAWS, "texture", indices)
    options = DRAWS._replace(classes=(("background", (7, 2, 2, 9)),))
    found = sampler.labels(options, "background", indices, texture)
    for index, label, other in zip(indices.tolist(), found.tolist(), texture.tolist(), strict=True):
        left = [c for c in (2, 2, 7, 9) if c != other]
        assert label == left[below(len(left), philox(SEED, index, 2, 0)[0])]
    free = sampler.labels(DRAWS, "background", indices, np.full(len(indices), -1))
    assert free.tolist() == sampler.labels(DRAWS, "background", indices).tolist()
    with pytest.raises(ValueError, match="class 4 is the only one for background"):
        sampler.labels(DRAWS._replace(classes=(("background", (4, 4)),)), "background", indices, texture)


def test_distinct_moves_no_other_draw(demo_plan: Path) -> None:
    with Generator(demo_plan, threads=1) as gen:
        texture, background = (np.array(gen.classes[name]) for name in ("texture", "background"))

        def equal(batch: Batch) -> list[bool]:
            found: list[bool] = (
                texture[batch.labels.texture] == background[batch.labels.background]
            ).tolist()
            return found

        plain, apart = gen.sample(200, seed=3), gen.sample(200, seed=3, distinct=True)
        assert any(equal(plain))
        assert not any(equal(apart))
        for name in ("shape", "texture"):
            np.testing.assert_array_equal(getattr(apart.labels, name), getattr(plain.labels, name))
        for mine, its in zip(apart.noise, plain.noise, strict=True):
            np.testing.assert_array_equal(mine, its)
        some = gen.sample(indices=np.array([150, 3]), seed=3, distinct=True)
        np.testing.assert_array_equal(some.labels.background, apart.labels.background[[150, 3]])
        held = gen.sample(200, seed=3, distinct=True, do={"background": 4})
        assert not any(equal(held))
        np.testing.assert_array_equal(
            gen(background=[4] * 200, seed=3, distinct=True).labels.texture, held.labels.texture
        )
        stream = gen.stream(50, seed=3, stop=200, distinct=True)
        with stream:
            streamed = np.concatenate([np.asarray(batch.labels.background) for batch in stream])
        np.testing.assert_array_equal(streamed, apart.labels.background)
        for refused, options in [
            (
                "texture and background of sample 0 are both",
                {"do": {"texture": "lime", "background": "lime"}},
            ),
            ("distinct is on beside labels='shared'", {"labels": "shared"}),
            ("distinct is set beside a pool", {"pool": 4}),
        ]:
            with pytest.raises(ValueError, match=refused):
                gen.sample(2, distinct=True, **options)
        with pytest.raises(TypeError, match="distinct is 'yes', expected True or False"):
            gen.sample(2, distinct="yes")  # type: ignore[arg-type]
