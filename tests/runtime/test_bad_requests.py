"""Every bad argument is a clear error that names what was found and what was expected."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cgnrt import Generator

U = np.zeros((2, 4), np.float32)


@pytest.mark.parametrize(
    ("error", "options", "message"),
    [
        (ValueError, {"n": -1}, r"n is -1, expected 0 or more"),
        (TypeError, {"n": 2.5}, r"n is 2\.5, expected an int"),
        (TypeError, {"n": None}, r"n is None, expected an int"),
        (TypeError, {"n": True}, r"n is True, expected an int"),
        (ValueError, {"n": 1, "start": -3}, r"start is -3, expected 0 or more"),
        (ValueError, {"n": 5, "start": 2**63 - 2}, r"start \+ n is .*, expected at most 2\*\*63 - 1"),
        (ValueError, {"n": 1, "seed": -1}, r"seed is -1, expected 0\.\.2\*\*64 - 1"),
        (TypeError, {"n": 1, "seed": "x"}, r"seed is 'x', expected an int or None"),
        (TypeError, {"indices": [0.5]}, r"indices are float64 \(1,\), expected one dimension of int64"),
        (ValueError, {"indices": [1, 2], "n": 3}, r"n is 3 beside 2 indices, expected one of the two"),
        (
            ValueError,
            {"n": 1, "do": {"textur": 1}},
            r"do key is 'textur', expected .* Did you mean 'texture'\?",
        ),
        (ValueError, {"n": 1, "do": {"texture": 3}}, r"do\['texture'\] is 3, expected 0\.\.2"),
        (ValueError, {"n": 1, "do": {"texture": -1}}, r"do\['texture'\] is -1, expected 0\.\.2"),
        (TypeError, {"n": 1, "do": {"texture": 1.0}}, r"do\['texture'\] is 1\.0, expected a class index"),
        (
            ValueError,
            {"n": 1, "do": {"texture": "zzz"}},
            r"do\['texture'\] is 'zzz', expected one of 3 class names",
        ),
        (ValueError, {"n": 1, "labels": "both"}, r"labels is 'both', expected 'independent' or 'shared'"),
        (ValueError, {"n": 1, "hold": "none"}, r"hold is 'none', expected 'shape' or 'all'"),
        (ValueError, {"n": 1, "per_noise": 0}, r"per_noise is 0, expected an int of at least 1"),
        (ValueError, {"n": 1, "classes": {"shape": []}}, r"classes\['shape'\] is \[\], expected a sequence"),
        (
            ValueError,
            {"n": 1, "classes": {"shape": [0, 9]}},
            r"classes\['shape'\]\[1\] is 9, expected 0\.\.2",
        ),
        (
            ValueError,
            {"n": 1, "classes": {"shape": [0]}, "labels": "shared"},
            r"labels is 'shared', expected",
        ),
        (ValueError, {"n": 1, "pool": (0, 1, 1)}, r"pool is \(0, 1, 1\), expected three sizes of at least 1"),
        (ValueError, {"n": 1, "pool": (1, 1)}, r"pool is \(1, 1\), expected three sizes"),
        (ValueError, {"n": 1, "pool": 4, "per_noise": 2}, r"per_noise is set beside a pool"),
        (ValueError, {"n": 1, "pool": 4, "labels": "shared"}, r"labels='shared' is set beside a pool"),
        (ValueError, {"n": 2, "pool": 4, "noise": (U, U, U)}, r"noise is set beside a pool"),
        (
            ValueError,
            {"n": 1, "truncation": 0.5},
            r"truncation is given, but this plan has no truncation",
        ),
        (
            ValueError,
            {"n": 3, "noise": (U, U, U)},
            r"noise of shape is float32 \(2, 4\), expected float32 \(3, 4\)",
        ),
        (ValueError, {"n": 2, "noise": (U, U)}, r"noise has 2 parts, expected 3 or 4"),
        (
            ValueError,
            {"n": 2, "noise": (U, U * np.nan, U)},
            r"noise of texture has values that are not finite",
        ),
        (
            ValueError,
            {"n": 2, "noise": (U, U, U.astype(float) + 1e300)},
            r"noise of background has values that are not finite",
        ),
        (TypeError, {"n": 2, "noise": 5}, r"noise is 5, expected \(shape, texture, background\[, rolls\]\)"),
        (
            ValueError,
            {"n": 2, "noise": (U, U, U, np.full((2, 2, 2), 2**32 + 5))},
            r"expected what int32 holds",
        ),
        (ValueError, {"n": 1, "pool": 1.5}, r"pool is 1\.5, expected three sizes"),
        (TypeError, {"n": 1, "do": 5}, r"do is 5, expected a mapping"),
        (TypeError, {"n": 1, "classes": {"shape": 5}}, r"classes\['shape'\] is 5, expected a sequence"),
        (ValueError, {"n": 2, "noise": (U, U, U.astype(int))}, r"noise of background is int64"),
        (
            ValueError,
            {"n": 2, "noise": (U, U, U, np.zeros((2, 2)))},
            r"rolls are float64 \(2, 2\), expected int32",
        ),
        (
            ValueError,
            {"n": 2, "out": np.zeros((3, 3, 8, 8), np.float32)},
            r"out is \(3, 3, 8, 8\), expected shape",
        ),
    ],
)
def test_sample(gen: Generator, error: type[Exception], options: dict[str, Any], message: str) -> None:
    with pytest.raises(error, match=message):
        gen.sample(**{"seed": 0, **options})


@pytest.mark.parametrize(
    ("error", "options", "message"),
    [
        (ValueError, {"shape": [0, 1], "texture": [0]}, r"lengths are .*, expected one for all"),
        (ValueError, {"shape": [0, 7]}, r"shape\[1\] is 7, expected 0\.\.2"),
        (ValueError, {"shape": 12}, r"sample: shape is 12, expected 0\.\.2"),
        (TypeError, {"n": [1]}, r"n is \[1\], expected an int"),
        (TypeError, {"noise": 5}, r"noise is 5, expected"),
        (TypeError, {"indices": 5}, r"indices are int64 \(\), expected one dimension"),
        (TypeError, {"texture": np.array([0.0, 1.0])}, r"texture is float64 \(2,\), expected one dimension"),
        (TypeError, {"texture": np.zeros((1, 2), int)}, r"texture is int64 \(1, 2\), expected one dimension"),
        (TypeError, {"shape": [0], "pool": 3}, r"option is 'pool', expected one of"),
        (TypeError, {"shape": [None]}, r"shape\[0\] is None, expected a class index"),
    ],
)
def test_call(gen: Generator, error: type[Exception], options: dict[str, Any], message: str) -> None:
    with pytest.raises(error, match=message):
        gen(seed=0, **options)


def test_a_misspelt_class_name_gets_close_matches(gen: Generator) -> None:
    name = gen.classes["shape"][0]
    with pytest.raises(ValueError, match=rf"is '{name}x', expected one of .* Did you mean '{name}'"):
        gen.sample(1, do={"shape": name + "x"})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"frames": 1}, r"frames is 1, expected an int of at least 2"),
        ({"frames": 3, "mechanisms": "colour"}, r"mechanisms is 'colour', expected 'all' or some of"),
        ({"frames": 3, "shape": (0, 1, 2)}, r"shape has 3 labels, expected \(from, to\) or one"),
        ({"frames": 3, "shape": (0, 5)}, r"shape\[1\] is 5, expected 0\.\.2"),
        ({"frames": 3, "mechanisms": 5}, r"mechanisms is 5, expected 'all' or some of"),
        ({"frames": 3, "start": -5}, r"start is -5, expected 0 or more"),
    ],
)
def test_interpolate(gen: Generator, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        gen.interpolate(**options)


def test_an_error_leaves_the_batch_before_as_it_was(gen: Generator) -> None:
    batch = gen.sample(4, seed=1)
    before = batch.images.copy()
    with pytest.raises(ValueError, match="do key"):
        gen.sample(4, seed=2, do={"x": 1})
    gen.sample(4, seed=3)
    np.testing.assert_array_equal(batch.images, before)
