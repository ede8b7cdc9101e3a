"""The server's benchmark, short: nonsense over both transports, and more requests than it can answer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest


@pytest.mark.parametrize("n", [200, pytest.param(3000, marks=pytest.mark.extended)])
def test_fuzzed_requests_are_refused_and_hurt_nobody(
    module: Callable[[str], ModuleType], demo_plan: Path, n: int
) -> None:
    rows = module("serve_fuzz").fuzz(demo_plan, n, seed=n)
    assert [row["transport"] for row in rows] == ["http", "grpc"]
    for row in rows:
        assert row["server errors"] == 0
        assert row["answered"] > n / 50
        assert row["refused"] > n / 2


@pytest.mark.extended
def test_too_many_requests(module: Callable[[str], ModuleType], demo_plan: Path) -> None:
    (row,) = module("serve_overload").overload(demo_plan, 64, seconds=4)
    assert row["wrong"] == 0
    assert row["accepted"] > 0
    assert row["refused at once"] > 0
    assert row["MB, last third"] < 1.2 * row["MB, first third"]
