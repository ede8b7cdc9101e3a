"""The options of docs/sampling.md through a Generator: names and indices, groups, the ends of the number ranges."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from cgnrt import Batch, Generator
from cgnrt.plan import write_plan
from cgnrt.render.pools import Pool

from .test_sampling import below, philox


def assert_equal(mine: Batch, its: Batch) -> None:
    for a, b in zip((*mine.labels, *mine.noise), (*its.labels, *its.noise), strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(mine.indices, its.indices)
    np.testing.assert_array_equal(mine.images, its.images)


# An int is an index, a str a class name.


@pytest.fixture(scope="module")
def numbered(make_golden: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Generator:
    """The golden plan with shapes named by numbers that are not their indices."""
    manifest, members = make_golden.make_plan()
    manifest["mechanisms"]["shape"]["classes"] = ["2", "0", "1"]
    path = tmp_path_factory.mktemp("plans") / "numbered.plan"
    write_plan(path, manifest, members)
    return Generator(path)


def test_do_by_name_is_do_by_index(gen: Generator) -> None:
    for index, name in enumerate(gen.classes["texture"]):
        assert_equal(
            gen.sample(9, seed=4, do={"texture": name}), gen.sample(9, seed=4, do={"texture": index})
        )


@pytest.mark.parametrize(("label", "index"), [("2", 0), (2, 2), (np.int64(2), 2), ("0", 1), (0, 0)])
def test_a_number_is_a_name_as_a_str_and_an_index_as_an_int(
    numbered: Generator, label: Any, index: int
) -> None:
    batches = [
        numbered.sample(3, seed=4, do={"shape": label}),
        numbered.sample(3, seed=4, classes={"shape": [label]}),
        numbered(shape=label, seed=4, n=3),
        numbered(shape=[label] * 3, seed=4),
        numbered(shape=np.array([label] * 3), seed=4),
    ]
    for batch in batches:
        assert batch.labels.shape.tolist() == [index] * 3


def test_names_are_never_read_as_indices(demo_plan: Path) -> None:
    demo = Generator(demo_plan)
    assert demo.classes["shape"] == tuple("0123456789")
    by_name, by_index = (demo.sample(2, seed=1, do={"shape": label}) for label in ("3", 3))
    assert_equal(by_name, by_index)
    with pytest.raises(ValueError, match=r"do\['texture'\] is '3', expected one of 10 class names"):
        demo.sample(2, seed=1, do={"texture": "3"})


# Any sample, by its number.


def test_a_call_takes_indices(gen: Generator) -> None:
    where = [7, 0, 7, 31]
    called = gen(texture=[2, 1, 0, 2], indices=where, seed=5)
    plain = gen.sample(indices=where, seed=5)
    assert called.indices.tolist() == where
    assert called.labels.texture.tolist() == [2, 1, 0, 2]
    np.testing.assert_array_equal(called.labels.shape, plain.labels.shape)
    for mine, its in zip(called.noise, plain.noise, strict=True):
        np.testing.assert_array_equal(mine, its)
    assert_equal(gen(indices=where, seed=5), plain)
    assert_equal(
        gen(background=1, indices=where, seed=5), gen.sample(indices=where, seed=5, do={"background": 1})
    )


def test_a_call_compares_the_indices_with_its_labels(gen: Generator) -> None:
    with pytest.raises(ValueError, match=r"lengths are \{'shape': 2, 'indices': 3\}, expected one for all"):
        gen(shape=[0, 1], indices=[1, 2, 3])


@pytest.mark.parametrize("seed", [0, 2**64 - 1])
def test_both_ends_of_seeds_and_indices(gen: Generator, seed: int) -> None:
    where = np.array([-1, -(2**63), 2**63 - 1, 0, -5], np.int64)
    batch = gen.sample(indices=where, seed=seed)
    assert batch.seed == seed
    np.testing.assert_array_equal(batch.indices, where)
    height, width = gen.resolution
    for slot, labels in enumerate(batch.labels):
        assert labels.tolist() == [below(3, philox(seed, int(i), slot, 0)[0]) for i in where]
    for column, slot in enumerate((7, 8)):
        words = [philox(seed, int(i), slot, 0) for i in where]
        assert batch.noise.rolls[:, column].tolist() == [
            [below(height, w[0]), below(width, w[1])] for w in words
        ]
    pooled = gen.sample(indices=where, seed=seed, pool=(7, 5, 3))
    assert pooled.index is not None
    words = [philox(seed, int(i), 9, 0) for i in where]
    assert pooled.index.tolist() == [[below(k, w[c]) for c, k in enumerate((7, 5, 3))] for w in words]


def test_a_negative_index_is_a_sample_of_its_own(gen: Generator) -> None:
    negative, positive = (gen.sample(indices=where, seed=1) for where in ([-2, -1], [2, 1]))
    assert (negative.noise.shape != positive.noise.shape).any(axis=1).all()
    np.testing.assert_array_equal(gen.sample(indices=[-1], seed=1).noise.shape, negative.noise.shape[1:])


# Groups.


def test_groups_with_shared_labels_share_all_three(gen: Generator) -> None:
    plain = gen.sample(24, seed=5)
    grouped = gen.sample(24, seed=5, per_noise=4, labels="shared")
    group = np.arange(24) // 4
    for labels in grouped.labels:
        np.testing.assert_array_equal(labels, plain.labels.shape[group])
    np.testing.assert_array_equal(grouped.noise.shape, plain.noise.shape[group])
    np.testing.assert_array_equal(grouped.noise.texture, plain.noise.texture)
    np.testing.assert_array_equal(grouped.noise.rolls, plain.noise.rolls)


def test_groups_do_not_depend_on_where_a_batch_starts(gen: Generator) -> None:
    whole = gen.sample(24, seed=5, per_noise=5)
    part = gen.sample(9, seed=5, per_noise=5, start=7)
    np.testing.assert_array_equal(part.labels.shape, whole.labels.shape[7:16])
    np.testing.assert_array_equal(part.noise.shape, whole.noise.shape[7:16])


def test_groups_of_negative_indices_round_down(gen: Generator) -> None:
    noise = gen.sample(indices=[-5, -4, -3, -2, -1, 0, 1, 2, 3, 4], seed=5, per_noise=4).noise.shape
    _, groups = np.unique(noise, axis=0, return_inverse=True)
    sizes = [len(set(groups[rows])) for rows in (slice(1, 5), slice(5, 9))]
    assert sizes == [1, 1]
    assert len(set(groups.tolist())) == 4


# The pool that is kept.


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The keys of the pools that were built."""
    keys: list[Any] = []
    prepare = Pool.prepare

    def counted(self: Pool, *rest: Any, **options: Any) -> None:
        keys.append(self.key)
        prepare(self, *rest, **options)

    monkeypatch.setattr(Pool, "prepare", counted)
    return keys


KEPT: dict[str, Any] = {"seed": 6, "do": {"texture": 1}, "classes": {"shape": [0, 2]}, "pool": (4, 3, 2)}


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 7},
        {"do": {"texture": 2}},
        {"do": None},
        {"classes": {"shape": [2, 0]}},
        {"classes": None},
        {"shared_noise": True},
        {"pool": (4, 3, 3)},
        {"pool": 4},
    ],
    ids=str,
)
def test_what_a_pool_depends_on_builds_another(
    golden_plan: Path, builds: list[Any], change: dict[str, Any]
) -> None:
    gen = Generator(golden_plan)
    gen.sample(20, **KEPT)
    changed = gen.sample(20, **{**KEPT, **change})
    assert len(builds) == 2
    assert_equal(changed, Generator(golden_plan).sample(20, **{**KEPT, **change}))
    gen.sample(20, **KEPT)
    assert len(builds) == 4  # only the last is kept


@pytest.mark.parametrize(
    "change",
    [
        {"start": 100},
        {"n": 5},
        {"n": None, "indices": [-1, 4]},
        {"parts": True},
        {"do": {"texture": "dots"}},
        {"seed": np.int64(6)},
        {"pool": np.array([4, 3, 2])},
        {"shared_noise": False},
    ],
    ids=str,
)
def test_what_a_pool_does_not_depend_on_keeps_it(
    golden_plan: Path, builds: list[Any], change: dict[str, Any]
) -> None:
    gen = Generator(golden_plan)
    gen.sample(20, **KEPT)
    changed = gen.sample(**{"n": 20, **KEPT, **change})
    assert len(builds) == 1
    assert_equal(changed, Generator(golden_plan).sample(**{"n": 20, **KEPT, **change}))
