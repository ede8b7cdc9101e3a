"""`SampleOptions` and `Generator.check`: options are checked once, whole, and without rendering."""

from __future__ import annotations

import inspect
import pickle
from dataclasses import FrozenInstanceError, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cgnrt import Generator, shards
from cgnrt.request.options import SampleOptions

NAMES = [field.name for field in fields(SampleOptions)]
SET: dict[str, Any] = {
    "seed": 7,
    "do": {"texture": 1},
    "classes": {"shape": [0, 2], "background": [1]},
    "pool": (4, 3, 2),
    "refresh": 5,
    "parts": True,
}


@pytest.mark.parametrize("function", [Generator.sample, shards.generate])
def test_defaults_are_those_of_the_class(function: Any) -> None:
    parameters = inspect.signature(function).parameters
    shared = [name for name in NAMES if name in parameters and name != "seed"]
    assert len(shared) > 5
    for name in shared:
        assert parameters[name].default == getattr(SampleOptions(), name)


def test_sample_takes_every_option() -> None:
    assert set(NAMES) <= set(inspect.signature(Generator.sample).parameters)


def test_it_unpacks_into_a_call(gen: Generator) -> None:
    options = SampleOptions(**SET)
    assert dict(**options) == SET | {
        "labels": "independent",
        "shared_noise": None,
        "distinct": False,
        "per_noise": 1,
        "hold": "shape",
        "truncation": None,
        "place": None,
    }
    found, expected = gen.sample(9, **options), gen.sample(9, **SET)
    np.testing.assert_array_equal(found.images, expected.images)
    np.testing.assert_array_equal(found.mask, expected.mask)
    for batch in gen.batches(9, 9, **options):
        np.testing.assert_array_equal(batch.images, expected.images)


def test_it_is_a_value() -> None:
    options = SampleOptions(**SET)
    assert pickle.loads(pickle.dumps(options)) == options == SampleOptions(**SET) != SampleOptions()
    with pytest.raises(FrozenInstanceError):
        options.seed = 4  # type: ignore[misc]


def test_numbers_are_held_as_python_has_them() -> None:
    options = SampleOptions(
        seed=np.int64(3),  # type: ignore[arg-type]
        pool=np.array([4, 3, 2]),  # type: ignore[arg-type]
        refresh=np.int32(2),  # type: ignore[arg-type]
    )
    assert options == SampleOptions(seed=3, pool=(4, 3, 2), refresh=2)
    assert SampleOptions(pool=4).pool_sizes == (4, 4, 4)


@pytest.mark.parametrize(
    ("error", "options", "message"),
    [
        (ValueError, {"labels": "both"}, r"labels is 'both', expected 'independent' or 'shared'"),
        (ValueError, {"hold": "none"}, r"hold is 'none', expected 'shape' or 'all'"),
        (ValueError, {"per_noise": True}, r"per_noise is True, expected an int of at least 1"),
        (TypeError, {"seed": 1.0}, r"seed is 1\.0, expected an int or None"),
        (TypeError, {"do": 5}, r"do is 5, expected a mapping from mechanisms to classes"),
        (ValueError, {"classes": {"shap": [1]}}, r"classes key is 'shap', .* Did you mean 'shape'\?"),
        (ValueError, {"pool": (1, 2)}, r"pool is \(1, 2\), expected three sizes of at least 1"),
        (ValueError, {"refresh": 3}, r"refresh is 3 without a pool, expected pool=\(M, F, B\) beside it"),
        (ValueError, {"pool": 1, "refresh": 0}, r"refresh is 0, expected an int of at least 1, or None"),
        (ValueError, {"pool": 1, "per_noise": 2}, r"per_noise is set beside a pool"),
        (ValueError, {"pool": 1, "labels": "shared"}, r"labels='shared' is set beside a pool"),
    ],
)
def test_it_checks_itself(error: type[Exception], options: dict[str, Any], message: str) -> None:
    with pytest.raises(error, match=message):
        SampleOptions(**options)


def test_an_unknown_option_names_the_known_ones() -> None:
    with pytest.raises(
        TypeError, match=r"stream: option is 'colour', expected one of classes, distinct, do, hold, labels"
    ):
        SampleOptions.collect("stream", {"colour": 1})


@pytest.fixture
def closed(golden_plan: Path, monkeypatch: pytest.MonkeyPatch) -> Generator:
    """A generator that cannot open an engine."""
    generator = Generator(golden_plan)

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("an engine was opened")

    monkeypatch.setattr(type(generator._pipeline.choice), "load", refuse)
    with pytest.raises(AssertionError, match="an engine was opened"):
        generator.sample(1)
    return generator


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"do": {"texture": 3}}, r"do\['texture'\] is 3, expected 0\.\.2"),
        ({"classes": {"shape": []}}, r"classes\['shape'\] is \[\], expected a sequence"),
        ({"classes": {"shape": [0]}, "labels": "shared"}, r"labels is 'shared', expected the same classes"),
        ({"truncation": 0.5}, r"truncation is given, but this plan has no truncation"),
        ({"truncation": 0.5, "pool": 3}, r"truncation is given, but this plan has no truncation"),
    ],
)
def test_a_check_tells_what_is_wrong(closed: Generator, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        closed.check(SampleOptions(**options))


def test_a_check_opens_no_engine(closed: Generator) -> None:
    closed.check(SampleOptions(pool=(4, 3, 2), refresh=5, do={"shape": 0}))
    closed.batches(10, 4, pool=3)
    closed.stream(4, pool=3).close()
    closed.prepare(shape=[0, 1])


def test_a_check_fills_in_what_was_left_open(gen: Generator, imagenet_like: Path) -> None:
    name = gen.classes["texture"][2]
    options = gen.check(SampleOptions(do={"texture": name}, classes={"shape": np.array([2, 0])}))  # type: ignore[dict-item]
    assert options == replace(
        SampleOptions(do={"texture": 2}, classes={"shape": (2, 0)}, shared_noise=False), seed=options.seed
    )
    assert gen.check(options) == options
    np.testing.assert_array_equal(gen.sample(5, **options).images, gen.sample(5, **options).images)
    filled = Generator(imagenet_like).check(SampleOptions(seed=1))
    assert (filled.truncation, filled.shared_noise) == (1.0, True)


def test_a_truncation_for_each_sample_is_checked_against_their_number(imagenet_like: Path) -> None:
    generator = Generator(imagenet_like)
    options = SampleOptions(truncation=[0.5, 0.6, 0.7])
    generator.check(options, 3)
    for n in (0, 2):
        with pytest.raises(ValueError, match=rf"truncation has shape \(3,\), expected a number or \({n},\)"):
            generator.check(options, n)
