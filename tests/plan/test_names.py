"""Names of classes that only a program could tell apart, and characters that nobody sees."""

from __future__ import annotations

import unicodedata
from typing import Any

import pytest

from cgnrt import Generator
from cgnrt.errors import PlanError
from cgnrt.plan import Plan
from cgnrt.plan.names import alike, look, refused_character
from cgnrt.plan.schema import parse_manifest

INVISIBLE = [
    *("\u00ad", "\u034f", "\u061c", "\u115f", "\u1160", "\u17b4", "\u180e", "\u200b", "\u200e", "\u200f"),
    *("\u2028", "\u2029", "\u202a", "\u202e", "\u2060", "\u2064", "\u2066", "\u2069", "\u206f", "\u2800"),
    *("\u3164", "\ufeff", "\uffa0", "\ufff9", "\U0001d173", "\U000e0001", "\U000e0041"),
]


@pytest.mark.parametrize("character", [*INVISIBLE, "\0", "\x1b", "\x7f", "\x9b"], ids=ascii)
def test_invisible_characters_are_refused_in_every_string(parts: Any, character: str) -> None:
    for place in ("classes", "family", "training_data", "parity"):
        case = parts.copy()
        if place == "classes":
            case.manifest["mechanisms"]["shape"]["classes"][0] += character
        elif place == "parity":
            case.manifest["parity"] = {f"a{character}": 1}
        else:
            case.manifest[place] = f"a{character}b"
        message = case.refusal()
        assert "manifest string is " in message
        assert "expected text without control characters and such that cannot be seen" in message
        assert character not in message


@pytest.mark.parametrize("text", ["猫", "café", "Οδός", "слон", "می‌خواهم", "👩‍🔬", "❤️", "a b", "C:\\x"])
def test_names_of_all_scripts_are_taken(parts: Any, text: str) -> None:
    assert refused_character(text) is None
    parts.manifest["mechanisms"]["shape"]["classes"][0] = text
    with Plan.open(parts.save()) as plan:
        assert plan.mechanisms["shape"].classes[0] == text


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("cat", "c\u0430t"),  # Cyrillic a
        ("OIL", "\u039f\u0399L"),  # Greek capitals
        ("cat", "c\u200dat"),
        ("cat", "cat\ufe0f"),
        ("cat", "cat "),
        ("cat", "cat\u3000"),
        ("a cat", "a  cat"),
        ("a cat", "a\u00a0cat"),
        ("cat", "\uff43at"),  # full width
        ("file", "\ufb01le"),  # a ligature
        ("T-shirt", "T\u2010shirt"),
        ("jack-o'-lantern", "jack-o\u2019-lantern"),
        ("caf\u00e9", "c\u0430f\u00e9"),
    ],
    ids=ascii,
)
def test_names_that_look_the_same_are_refused(parts: Any, one: str, other: str) -> None:
    assert look(one) == look(other)
    assert alike(["x", one, "y", other]) == (one, other)
    parts.manifest["mechanisms"]["shape"]["classes"][:2] = [one, other]
    assert "which look the same, expected names that people can tell apart" in parts.refusal()


@pytest.mark.parametrize(
    ("one", "other"), [("cat", "Cat"), ("O", "0"), ("l", "1"), ("a", "á"), ("слон", "слоны"), ("x", "+")]
)
def test_names_that_people_can_tell_apart(one: str, other: str) -> None:
    assert alike([one, other]) is None


def test_decomposed_names_are_refused_and_found_by_either_form(parts: Any) -> None:
    composed = "caf\u00e9"
    decomposed = unicodedata.normalize("NFD", composed)
    classes = parts.manifest["mechanisms"]["shape"]["classes"]
    classes[0] = decomposed
    assert r"a list with 'cafe\u0301', expected Unicode's composed form" in parts.refusal()
    classes[0] = composed
    generator = Generator(parts.save())
    for text in (composed, decomposed):
        assert generator.sample(2, seed=0, do={"shape": text}).labels.shape.tolist() == [0, 0]


def test_as_many_names_as_a_plan_may_have_are_compared_in_no_time() -> None:
    names = [f"klass {k} é" for k in range(65_536)]
    assert alike(names) is None
    assert alike([*names, "klass 7 é"]) == ("klass 7 é", "klass 7 é")


def test_no_two_letters_of_ascii_look_the_same() -> None:
    letters = [chr(code) for code in range(33, 127)]
    assert [look(letter) for letter in letters] == letters


def test_the_error_of_a_double_name_stays(parts: Any) -> None:
    manifest = {**parts.manifest, "members": {}}
    manifest["mechanisms"]["shape"]["classes"] = ["a", "a", "b"]
    with pytest.raises(PlanError, match="a list with 'a' twice, expected unique names"):
        parse_manifest(manifest)
