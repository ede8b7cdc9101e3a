"""What the rules work out for random nodes is what ONNX Runtime and OpenVINO make of them."""

from __future__ import annotations

import os

import pytest
from engine_sizes import compare_in_processes
from random_nodes import GENERATORS

from cgnrt.plan.onnx.rules import RULES


def test_every_operator_is_drawn() -> None:
    assert sorted(GENERATORS) == sorted(RULES)


def test_some_random_nodes_of_every_operator() -> None:
    report = compare_in_processes(0, 6, processes=1)
    assert report.drawn == 6 * len(RULES)
    assert report.wrong == []
    assert sum(report.accepted.values()) > report.drawn // 2
    for engine in ("ONNX Runtime", "OpenVINO"):
        assert report.compared[engine] > report.drawn // 2


@pytest.mark.extended
@pytest.mark.parametrize("part", range(10))
def test_a_hundred_thousand_random_nodes(part: int) -> None:
    count = -(-10_000 // len(RULES))
    report = compare_in_processes(1_000_000 * (part + 1), count, len(os.sched_getaffinity(0)))
    assert report.drawn >= 10_000
    assert report.wrong == []
    assert sorted(report.accepted) == sorted(RULES)  # of every operator
    for engine in ("ONNX Runtime", "OpenVINO"):
        assert report.compared[engine] > report.drawn // 2
