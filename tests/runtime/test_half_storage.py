"""Every engine gives the same pictures from weights in half precision as from the same numbers stored in full."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from cgnrt import Generator
from cgnrt.plan import Plan, write_plan


@pytest.fixture
def full_plan(golden_half_plan: Path, tmp_path: Path) -> Path:
    """The plan with weights in half precision, widened and stored in full."""
    with Plan.open(golden_half_plan) as plan:
        members = {name: bytes(plan.member(name)) for name in plan.members}
        manifest = plan.manifest.to_dict()
        for name, mechanism in plan.mechanisms.items():
            members[f"mechanisms/{name}.weights"] = bytes(mechanism.weights or b"")
            manifest["mechanisms"][name]["storage"] = None
        write_plan(tmp_path / "full.plan", manifest, members)
    return tmp_path / "full.plan"


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino", "torch"])
def test_pictures_are_those_of_the_widened_weights(
    backend: str, golden_half_plan: Path, golden_plan: Path, full_plan: Path
) -> None:
    pictures = [
        Generator(path, backend=backend, device="cpu", precision="fp32", threads=1).sample(9, seed=3).images
        for path in (golden_half_plan, full_plan, golden_plan)
    ]
    assert np.array_equal(pictures[0], pictures[1])
    assert not np.array_equal(pictures[0], pictures[2])
    assert np.abs(pictures[0] - pictures[2]).max() < 1e-2


def test_other_processes_widen_for_themselves(golden_half_plan: Path, full_plan: Path) -> None:
    gen = Generator(golden_half_plan, backend="openvino", threads=1)
    expected = Generator(full_plan, backend="openvino", threads=1).sample(4, seed=1).images
    assert np.array_equal(pickle.loads(pickle.dumps(gen)).sample(4, seed=1).images, expected)
    assert np.array_equal(gen.sample(4, seed=1).images, expected)
    child = os.fork()
    if child == 0:
        os._exit(0 if np.array_equal(gen.sample(4, seed=1).images, expected) else 3)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
