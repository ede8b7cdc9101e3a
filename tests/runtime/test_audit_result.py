"""The result of an audit: its rates, as JSON, as a table and as a plot."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import cgnrt
from cgnrt import Audit, Generator, MissingDependencyError
from cgnrt.auditing.rates import ByMechanism, Rate, wilson

from .telling_plan import K, N, shape_of, texture_of


@pytest.mark.parametrize(
    ("count", "n", "expected"),
    # Published examples: 0 and 1 of 10, 15 of 148 (Newcombe, 1998: 0.0624 to 0.1605), all of 10.
    [(0, 10, (0, 0.2775)), (1, 10, (0.0179, 0.4042)), (15, 148, (0.0624, 0.1605)), (10, 10, (0.7225, 1))],
)
def test_wilson(count: int, n: int, expected: tuple[float, float]) -> None:
    assert wilson(count, n, 0.95) == pytest.approx(expected, abs=6e-5)


def test_wilson_contains_the_rate() -> None:
    for n in (1, 3, 7, 10_000):
        for count in {0, 1, n // 2, n}:
            low, high = wilson(count, n, 0.95)
            assert 0 <= low <= count / n <= high <= 1
    assert wilson(0, 0, 0.95) == (0, 1)


def test_json_is_the_audit(telling: Generator) -> None:
    found = cgnrt.audit(shape_of, telling, 5)  # few enough that a class may not come
    assert Audit.from_json(found.to_json()) == found
    content = json.loads(found.to_json())
    assert content["follows"]["shape"] == {
        "count": 5,
        "n": 5,
        "low": found.follows.shape.low,
        "high": 1,
        "value": 1,
    }
    assert content["chance"] == pytest.approx(1 / K)
    for later in ("distinct", "masks", "classifier"):  # which older files do not have
        del content[later]
    assert Audit.from_dict(content) == found
    assert found.classifier == "shape_of"
    unseen = Rate.of(0, 0, 0.95)
    assert math.isnan(unseen.value)
    assert str(unseen) == "none"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("format"), "format is not 'cgnrt-audit'"),
        (lambda c: c.update(format_version=2), "format version is 2, expected 1. Upgrade"),
        (lambda c: c.pop("shared"), "content is damaged .*shared"),
        (lambda c: c["follows"]["shape"].update(count=7), "content is damaged .*a rate is"),
        (lambda c: c["by_class"].pop(), "content is damaged .*by_class"),
        (lambda c: c.update(n="5"), "content is damaged .*n is '5'"),
        (lambda c: c.update(classes=[1, 2, 3]), "content is damaged .*classes"),
        (lambda c: c.update(distinct=1), "content is damaged .*distinct is 1"),
        (lambda c: c["masks"]["by_class"].pop(), "content is damaged .*by_class of the masks"),
        (lambda c: c["masks"].pop("shown"), "content is damaged .*shown"),
    ],
)
def test_content_that_is_no_audit(
    telling: Generator, change: Callable[[dict[str, Any]], Any], message: str
) -> None:
    content = cgnrt.audit(shape_of, telling, 5, mask_classifier=lambda m: np.zeros(len(m), int)).to_dict()
    change(content)
    with pytest.raises(ValueError, match=f"^read audit: {message}"):
        Audit.from_dict(content)
    with pytest.raises(ValueError, match=r"^read audit: content is not JSON"):
        Audit.from_json("{")


def test_the_table(telling: Generator) -> None:
    text = str(cgnrt.audit(texture_of, telling, N))
    rows = {line.split()[0]: line for line in text.splitlines() if line.startswith("  ")}
    assert rows["texture"].count("100.0 %") == 3
    assert rows["chance"].split() == ["chance", "33.3", "%"]
    assert "where all labels agree, accuracy is 100.0 % (" in text


def test_the_table_of_many_classes_shows_the_lowest() -> None:
    one = Rate.of(1, 2, 0.95)
    three = ByMechanism(one, one, one)
    rates = tuple(Rate.of(i, 20, 0.95) for i in range(20))
    found = Audit("a.plan", "0" * 64, 2, 0, 0.95, tuple(map(str, range(20))), three, three, three, one, rates)
    assert "shape followed, lowest 10 of 20:\n  0: 0.0 %" in str(found)
    assert "  10: " not in str(found)


def test_the_plot(telling: Generator, tmp_path: Path) -> None:
    target = tmp_path / "audit.png"
    found = cgnrt.audit(texture_of, telling, N)
    found.plot(target)
    with Image.open(target) as image:
        assert image.format == "PNG"
        pixels = np.asarray(image.convert("RGB")).astype(int)
    assert (np.abs(pixels - (0x1B, 0x6C, 0xA8)).max(axis=2) < 8).sum() > 1000  # bars of `follows`
    with pytest.raises(cgnrt.CgnrtError, match="the file exists"):
        found.plot(target)
    found.plot(target, force=True)
    with pytest.raises(ValueError, match=r"expected a name that ends in \.png"):
        found.plot(tmp_path / "audit.pdf")
    assert [p.name for p in tmp_path.iterdir()] == ["audit.png"]


def test_matplotlib_is_missing(telling: Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "matplotlib.figure", raising=False)
    with pytest.raises(MissingDependencyError, match=r"Run: pip install 'cgnrt\[plot\]'"):
        cgnrt.audit(shape_of, telling, 10).plot(tmp_path / "audit.png")
    assert not list(tmp_path.iterdir())
