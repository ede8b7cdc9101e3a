"""docs/models.md: the sizes and classes of the plans are as it says, and no plan is left out."""

from __future__ import annotations

import re
from pathlib import Path

from cgnrt import Plan


def test_the_table_of_plans_is_true(root: Path) -> None:
    page = (root / "docs/models.md").read_text()
    rows = re.findall(r"^\| `(\S+\.plan)` \|[^|]+\| (\d+) px, (\d+) classes, ([\d.]+) MB \|", page, re.M)
    assert sorted(name for name, *_ in rows) == sorted(path.name for path in (root / "plans").glob("*.plan"))
    for name, side, classes, megabytes in rows:
        path = root / "plans" / name
        with Plan.open(path) as plan:
            assert plan.manifest.resolution == (int(side), int(side))
            assert {len(mechanism.classes) for mechanism in plan.mechanisms.values()} == {int(classes)}
        assert round(path.stat().st_size / 1e6, 1) == float(megabytes)
