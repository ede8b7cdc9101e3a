"""Class names from the plan, everywhere a label is taken; close matches for a misspelt one."""

from __future__ import annotations

import difflib
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cgnrt import Generator
from cgnrt.request.labels import close_names
from cgnrt.request.resolver import ClassNames
from cgnrt.sampling import MECHANISMS

from .conftest import NAMES


@pytest.fixture(scope="module")
def thousand(imagenet_like: Path) -> Generator:
    return Generator(imagenet_like)


def test_names_stand_for_their_indices(thousand: Generator) -> None:
    elephant, cock = NAMES.index("Indian elephant"), NAMES.index("cock")
    assert (
        thousand.sample(3, seed=1, do={"texture": "Indian elephant"}).labels.texture.tolist()
        == [elephant] * 3
    )
    assert thousand(shape="cock").labels.shape.tolist() == [cock]
    assert thousand(shape=["cock", "Indian elephant"]).labels.shape.tolist() == [cock, elephant]
    subset = thousand.sample(40, seed=1, classes={"background": ["cock", "great white shark, man-eater"]})
    assert set(subset.labels.background) == {cock, NAMES.index("great white shark, man-eater")}
    frames = thousand.interpolate(2, shape=("cock", "Indian elephant"), texture="jay")
    assert frames.labels.shape.tolist() == [cock, elephant]
    assert frames.labels.texture.tolist() == [NAMES.index("jay")] * 2


@pytest.mark.parametrize(
    ("ask", "field"),
    [
        (lambda gen, name: gen.sample(1, do={"texture": name}), r"do\['texture'\]"),
        (lambda gen, name: gen.sample(1, classes={"shape": ["jay", name]}), r"classes\['shape'\]\[1\]"),
        (lambda gen, name: gen(background=name), "background"),
        (lambda gen, name: gen(shape=["jay", name]), r"shape\[1\]"),
        (lambda gen, name: gen(shape=np.array(["jay", name])), r"shape\[1\]"),
        (lambda gen, name: gen.interpolate(2, shape=("jay", name)), r"shape\[1\]"),
        (lambda gen, name: gen.interpolate(2, texture=name), "texture"),
        (lambda gen, name: gen.batches(5, 2, do={"shape": name}), r"do\['shape'\]"),
    ],
)
def test_a_name_in_other_letters_is_an_error_that_names_the_right_one(
    thousand: Generator, ask: Callable[[Generator, str], Any], field: str
) -> None:
    with pytest.raises(
        ValueError,
        match=rf": {field} is 'indian_elephant', expected one of .* Did you mean 'Indian elephant'",
    ):
        ask(thousand, "indian_elephant")


@pytest.mark.parametrize(
    ("written", "first"),
    [
        ("Cock", "cock"),
        ("INDIAN ELEPHANT", "Indian elephant"),
        ("  indian-elephant ", "Indian elephant"),
        ("T shirt", "t-shirt"),
        ("king pengiun", "king penguin"),
        ("penguin", "king penguin"),
        ("crane", "crane (bird)"),
        ("emperor penguin king penguin", "king penguin"),
        ("great white shark", "great white shark, man-eater"),
        ("geyzer", "geyser"),
        ("class 99", "class 99"),
    ],
)
def test_the_closest_name_comes_first(written: str, first: str) -> None:
    assert close_names(written, NAMES)[0] == first


def test_all_names_of_a_word_are_suggested() -> None:
    assert close_names("elephant", NAMES) == ["African elephant", "Indian elephant"]
    assert len(close_names("class 1000", NAMES)) == 3


@pytest.mark.parametrize("written", ["", "_", "zzzzzzzz", "??"])
def test_nothing_is_suggested_for_nothing_alike(thousand: Generator, written: str) -> None:
    assert close_names(written, NAMES) == []
    with pytest.raises(ValueError, match=r"expected one of 1000 class names\. See: cgnrt inspect --classes"):
        thousand.sample(1, do={"shape": written})


def test_a_long_name_is_answered_soon() -> None:
    """As soon as one waits for nothing, whatever was pasted there."""
    begin = time.process_time()
    close_names("Indian elephant, " * 1000, NAMES)
    assert time.process_time() - begin < 1


def test_among_very_many_names_few_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"{kind} {i:05d}" for kind in ("wading bird", "thing", "Indian elephant") for i in range(20_000)]
    original, compared = difflib.get_close_matches, []

    def count(word: str, possibilities: Sequence[str], **options: Any) -> list[str]:
        compared.append(len(possibilities))
        assert len(word) <= 200
        return original(word, possibilities, **options)

    monkeypatch.setattr(difflib, "get_close_matches", count)
    assert close_names("thing_00042", names)[0] == "thing 00042"
    assert close_names("thimg 00042", names)[0] == "thing 00042"
    assert close_names("elephant", names) == [f"Indian elephant {i:05d}" for i in range(3)]
    assert close_names("x" * 1_000_000, names) == []
    assert max(compared) <= 1000


def test_a_long_name_is_cut_in_the_message() -> None:
    names = ClassNames(dict.fromkeys(MECHANISMS, ("cat", "dog")))
    with pytest.raises(ValueError, match=r"shape is 'a\u0301") as caught:
        names.index("shape", "shape", "a\u0301\u0323" * 500_000)
    assert len(str(caught.value)) < 2000
