"""A generator as a context: what is freed at its end, and what is still there."""

from __future__ import annotations

import gc
import pickle
import weakref
from pathlib import Path

import numpy as np
import pytest

from cgnrt import Generator, Plan


def test_the_context_closes_the_generator(golden_plan: Path) -> None:
    expected = Generator(golden_plan).sample(4, seed=1)
    with Generator(golden_plan) as gen:
        batch = gen.sample(4, seed=1, parts=True)
        pooled = gen.sample(4, seed=1, pool=2)
    np.testing.assert_array_equal(batch.images, expected.images)
    assert len(batch) == len(pooled) == 4
    for call in (
        lambda: gen.sample(4),
        lambda: gen.sample(4, seed=1, pool=2),
        lambda: gen(shape=[1]),
        lambda: gen.interpolate(2),
        lambda: next(gen.batches(4, 2)),
    ):
        with pytest.raises(ValueError, match="is closed"):
            call()
    with pytest.raises(ValueError, match=r"sample: the generator is closed, .* Make another Generator\."):
        gen.sample(4)
    gen.close()  # nothing more


def test_an_error_inside_goes_through(golden_plan: Path) -> None:
    with pytest.raises(KeyError), Generator(golden_plan) as gen:
        raise KeyError
    with pytest.raises(ValueError, match="is closed"):
        gen.sample(1)


def test_the_engines_are_freed(golden_plan: Path) -> None:
    gen = Generator(golden_plan)
    gen.sample(1, seed=0, pool=2)
    device = weakref.ref(gen._pipeline.renderer._opening.device())
    gen.close()
    gc.collect()
    assert device() is None


def test_a_plan_of_the_callers_stays_open(golden_plan: Path) -> None:
    with Plan.open(golden_plan) as plan:
        with Generator(plan):
            pass
        assert set(plan.mechanisms) == {"shape", "texture", "background"}
        assert len(Generator(plan).sample(2)) == 2
    with Generator(golden_plan) as gen:
        own = gen.plan
    with pytest.raises(ValueError, match="is closed"):
        _ = own.mechanisms


def test_other_forms_by_the_same_engines_are_closed_too(golden_plan: Path) -> None:
    gen = Generator(golden_plan)
    other = gen.with_pixels("uint8", "NHWC")
    gen.close()
    with pytest.raises(ValueError, match="is closed"):
        other.sample(1)


def test_a_closed_generator_pickles_as_an_open_one(golden_plan: Path) -> None:
    gen = Generator(golden_plan)
    gen.close()
    assert len(pickle.loads(pickle.dumps(gen)).sample(2)) == 2
