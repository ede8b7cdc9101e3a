"""Workers forked after the parent has used, and given up, engines: what torch's DataLoader does on Linux."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from .conftest import EnginePlan

# A process of its own, since whatever else holds an engine library open in this one would show, and so that a worker
# that waits for ever is an error instead of a test that does.
PROGRAM = """
import multiprocessing, sys, warnings
from concurrent.futures import ProcessPoolExecutor
import numpy as np
from cgnrt import Generator

warnings.filterwarnings("ignore", ".*use of fork", DeprecationWarning)
plan, backend, tolerance = sys.argv[1], sys.argv[2], float(sys.argv[3])
gen = Generator(plan, backend=backend, threads=2)
expected = [gen.sample(20, seed=1, start=start).images for start in (0, 20)]
# Engines that are given up leave idle thread pools, which a child would take for its own.
Generator(plan, backend=backend, threads=2).sample(3, seed=1)
with ProcessPoolExecutor(2, multiprocessing.get_context("fork")) as workers:
    found = [workers.submit(gen.sample, 20, seed=1, start=start) for start in (0, 20)]
    for mine, its in zip(expected, found):
        np.testing.assert_allclose(its.result().images, mine, atol=tolerance, rtol=0)
np.testing.assert_allclose(gen.sample(20, seed=1).images, expected[0], atol=tolerance, rtol=0)
print("the same on both sides")
"""


def test_forked_workers_and_their_parent_go_on(engine_plan: EnginePlan) -> None:
    arguments = [str(engine_plan.plan), engine_plan.backend, str(engine_plan.tolerance)]
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=90)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise
    assert process.returncode == 0, output
    assert "the same on both sides" in output
