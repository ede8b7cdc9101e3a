"""The module in its process: what it imports, what it says of its build, and forks."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pybind11
import pytest

from cgnrt import ops

CSRC = Path(__file__).parents[2] / "csrc"


def run(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_build_info() -> None:
    info = ops.build_info()
    assert info["version"]
    assert info["compiler"].split()[0] in {"gcc", "clang"}
    cpu = info["cpu"]
    assert cpu["isa"] == cpu["isas"][0]
    assert cpu["isas"][-1] == "baseline"
    assert cpu["cpus"] >= 1
    assert all(isinstance(feature, str) for feature in cpu["features"])
    if info["cuda"] is not None:
        assert info["cuda"]["architectures"]
        assert float(info["cuda"]["runtime"]) >= 11


def test_the_module_needs_numpy_alone() -> None:
    loaded = run(
        "import sys, cgnrt._core as core; core.build_info()\n"
        "print([name for name in ('torch', 'onnxruntime', 'openvino') if name in sys.modules])"
    )
    assert loaded.strip() == "[]"


FORK = """
import os, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # Python's word on forks of processes with threads
import numpy as np
from cgnrt import ops
m, f, b = (np.random.default_rng(0).random((256, c, 32, 32), dtype=np.float32) for c in (1, 3, 3))
expected = ops.compose(m, f, b, threads=4)
for _ in range(5):
    child = os.fork()
    if child == 0:
        good = all(np.array_equal(ops.compose(m, f, b, threads=4), expected) for _ in range(3))
        grandchild = os.fork()
        if grandchild == 0:
            os._exit(0 if np.array_equal(ops.compose(m, f, b, threads=2), expected) else 1)
        good = good and os.waitpid(grandchild, 0)[1] == 0
        os._exit(0 if good else 1)
    print(os.waitpid(child, 0)[1], np.array_equal(ops.compose(m, f, b, threads=4), expected))
"""


def test_forked_children_compute_and_do_not_hang() -> None:
    assert run(FORK).split() == ["0", "True"] * 5


FORK_WHILE_BUSY = """
import os, threading, warnings
warnings.simplefilter("ignore", DeprecationWarning)
import numpy as np
from cgnrt import ops
m, f, b = (np.random.default_rng(0).random((256, c, 32, 32), dtype=np.float32) for c in (1, 3, 3))
expected = ops.compose(m, f, b, threads=2)
stop = threading.Event()
def work():
    while not stop.is_set():
        ops.compose(m, f, b, threads=2)
worker = threading.Thread(target=work)
worker.start()
results = []
for _ in range(10):
    child = os.fork()
    if child == 0:
        os._exit(0 if np.array_equal(ops.compose(m, f, b, threads=2), expected) else 1)
    results.append(os.waitpid(child, 0)[1])
stop.set()
worker.join()
print(results)
"""


def test_forks_while_another_thread_has_the_pool() -> None:
    assert run(FORK_WHILE_BUSY).strip() == str([0] * 10)


@pytest.mark.parametrize(
    "source", ["ops/compose_kernel.cc", "ops/noise_kernel.cc", "bindings/core_copy.cc", "common/cpu.cc"]
)
def test_the_portable_build_has_no_intrinsics(source: str) -> None:
    """What other machines compile: the plain loops, without any x86 header."""
    compiler = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
    assert compiler, "a C++17 compiler is needed, as for building"
    command = [
        compiler,
        "-std=c++17",
        "-E",
        "-DCGNRT_PORTABLE",
        "-DCGNRT_ISA=baseline",
        *(f"-I{folder}" for folder in (CSRC, sysconfig.get_path("include"), pybind11.get_include())),
        str(CSRC / source),
    ]
    lines = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    assert "immintrin.h" not in lines
    assert "emmintrin.h" not in lines
