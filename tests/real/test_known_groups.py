"""Which group an answer of ImageNet's classes belongs to."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from cgnrt.real.known_sets.groups import (
    CUE_CONFLICT,
    IN9,
    NONE,
    by_highest_class,
    by_mean_probability,
    probabilities,
)

from .conftest import CATEGORIES, GROUPS

Array = np.ndarray[Any, Any]


def name(row: int) -> str:
    return f"picture {row}"


def test_the_groups_of_imagenet_9() -> None:
    assert IN9.names == GROUPS
    assert [len(members) for members in IN9.members] == [116, 52, 42, 36, 35, 27, 26, 20, 16]
    assert int((IN9.of_class != NONE).sum()) == 370  # so none is in two groups
    # tench, cock, box turtle, Arctic fox, tabby, monarch, accordion, ambulance, macaque, airliner
    picked = [IN9.of_class[k] for k in (0, 7, 37, 279, 281, 323, 401, 407, 373, 404)]
    assert picked == [8, 1, 3, 4, NONE, 5, 6, 2, 7, NONE]


def test_the_categories_of_cue_conflict() -> None:
    assert CUE_CONFLICT.names == CATEGORIES
    sizes = dict(zip(CUE_CONFLICT.names, map(len, CUE_CONFLICT.members), strict=True))
    assert sizes["bird"] == 49
    assert sizes["dog"] == 109
    assert sum(sizes.values()) == int((CUE_CONFLICT.of_class != NONE).sum()) == 207
    members = dict(zip(CUE_CONFLICT.names, CUE_CONFLICT.members, strict=True))
    assert members["bear"] == (294, 295, 296, 297)
    assert members["truck"] == (555, 569, 656, 675, 717, 734, 864, 867)
    assert members["oven"] == (766,)


def test_the_group_of_the_highest_class() -> None:
    scores = np.zeros((3, 1000), np.float32)
    scores[[0, 1, 2], [207, 281, 0]] = 1
    assert by_highest_class(IN9, scores, name).tolist() == [0, NONE, 8]
    assert by_highest_class(IN9, np.array([207, 281, 0]), name).tolist() == [0, NONE, 8]
    # Many classes of a group that are each below another one's do not outweigh it.
    scores[0] = 0
    scores[0, 151:269], scores[0, 404] = 0.9, 1
    assert by_highest_class(IN9, scores[:1], name).tolist() == [NONE]


def slow_mean(scores: Array) -> list[int]:
    """The category of the highest mean probability, by plain loops."""
    found = []
    for row in scores.astype(np.float64):
        powers = [math.exp(value) for value in row]
        whole = sum(powers)
        means = [sum(powers[k] for k in members) / whole / len(members) for members in CUE_CONFLICT.members]
        found.append(means.index(max(means)))
    return found


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64])
def test_the_category_of_the_highest_mean_probability(dtype: Any) -> None:
    scores = np.random.default_rng(0).normal(0, 2, (20, 1000)).astype(dtype)
    found = by_mean_probability(CUE_CONFLICT, scores, name).tolist()
    assert found == slow_mean(scores)
    highest = CUE_CONFLICT.of_class[scores.argmax(axis=1)]
    assert found != highest.tolist()  # another rule than ImageNet-9's
    # The same for probabilities, which are not put through a softmax again.
    given = np.exp(scores.astype(np.float64))
    given = (given / given.sum(axis=1, keepdims=True)).astype(dtype)
    assert by_mean_probability(CUE_CONFLICT, given, name).tolist() == found
    logs = np.log(np.maximum(given, np.finfo(dtype).tiny).astype(np.float64))
    assert by_mean_probability(CUE_CONFLICT, logs, name).tolist() == found


def test_probabilities_are_told_row_by_row() -> None:
    scores = np.array([[0.25, 0.75], [0.25, -0.75], [3.0, 1.0], [1000.0, 0.0]])
    found = probabilities(scores)
    assert found[0].tolist() == [0.25, 0.75]
    np.testing.assert_allclose(found[1, 0], 1 / (1 + np.exp(-1)), rtol=1e-12)  # rounding of an exponential
    np.testing.assert_allclose(found[2, 0], 1 / (1 + np.exp(-2)), rtol=1e-12)
    assert found[3].tolist() == [1, 0]


def test_the_first_of_equal_categories() -> None:
    scores = np.zeros((1, 1000))
    scores[0, [499, 404, 766]] = 5  # knife, airplane, oven
    assert by_mean_probability(CUE_CONFLICT, scores, name).tolist() == [0]


def test_logits_without_end_are_refused() -> None:
    scores = np.zeros((3, 1000))
    scores[1, 5] = np.inf
    with pytest.raises(ValueError, match=r"logits of the classifier for picture 1 are inf, expected numbers"):
        by_mean_probability(CUE_CONFLICT, scores, name)


def test_labels_have_no_mean() -> None:
    with pytest.raises(ValueError, match=r"answer of the classifier is labels of 1000 classes.*classes=16"):
        by_mean_probability(CUE_CONFLICT, np.array([1, 2]), name)
