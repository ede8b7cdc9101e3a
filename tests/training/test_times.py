"""How long things take, as a log says it."""

from __future__ import annotations

import io

from cgnrt_training.runs.times import Estimate, shown


def test_times_are_shown_in_their_unit() -> None:
    assert [shown(s) for s in (3.21, 150, 7300, 200_000)] == ["3.21 s", "2.5 min", "2.0 h", "2.3 days"]


def test_the_rest_is_estimated_once() -> None:
    log = io.StringIO()
    estimate = Estimate(100, "photos", log, after_s=0)
    estimate.add(40)
    assert log.getvalue() == ""  # the first ones are slower than the others
    for _ in range(3):
        estimate.add(10)
    assert log.getvalue().startswith("time: ")
    assert log.getvalue().endswith(" for 50 more photos\n")
    for count in (100, 0):  # nothing is left, or nobody listens
        quiet = io.StringIO()
        estimate = Estimate(100, "photos", quiet if count else None, after_s=0)
        estimate.add(50)
        estimate.add(count // 2)
        assert quiet.getvalue() == ""
