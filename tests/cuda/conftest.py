"""The emulated device: `cgnrt._cuda` built for the host (emulator/README.md), in the place of the real one."""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pybind11
import pytest
from compose_cases import CASES, ComposeCase

from cgnrt import cuda

ROOT = Path(__file__).parents[2]
EMULATOR = Path(__file__).parent / "emulator"


def _digest() -> str:
    """Of everything that the build reads: an old build is never taken for a new one."""
    found = hashlib.sha256(f"{sys.version} {pybind11.__version__}".encode())
    for folder in (ROOT / "csrc", EMULATOR, ROOT / "cmake"):
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                found.update(str(path.relative_to(ROOT)).encode() + path.read_bytes())
    return found.hexdigest()[:16]


def _cmake(*arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "cmake", *arguments], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.fail(f"the emulated device does not build:\n{done.stdout}{done.stderr}", pytrace=False)


@pytest.fixture(scope="session")
def emulated_module() -> ModuleType:
    """`cgnrt._cuda` for the emulated device, built once for the sources as they are."""
    build = ROOT / "build" / "emulated"
    build.mkdir(parents=True, exist_ok=True)
    stamp = build / "digest"
    digest = _digest()
    with (build / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several processes may share out the tests
        if not stamp.exists() or stamp.read_text() != digest:
            _cmake(
                *("-S", str(EMULATOR), "-B", str(build), "-G", "Ninja"),
                f"-DPython_EXECUTABLE={sys.executable}",
                f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
            )
            _cmake("--build", str(build))
            stamp.write_text(digest)
    (library,) = build.glob("_cuda*.so")
    # pybind11 knows a module by its name, and would give the one that nvcc built for this one, or this for that.
    spec = importlib.util.spec_from_file_location("emulated._cuda", library)
    if spec is None or spec.loader is None:
        pytest.fail(f"{library} is not an extension module")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def emulated(emulated_module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The emulated device as cgnrt's CUDA device, with two GPUs of 1 GiB."""
    monkeypatch.setitem(sys.modules, "cgnrt._cuda", emulated_module)
    emulated_module.emulator_configure()
    yield emulated_module
    emulated_module.emulator_configure()


@pytest.fixture(params=["emulated", pytest.param("real", marks=pytest.mark.gpu)])
def device_module(request: pytest.FixtureRequest) -> ModuleType:
    """`cgnrt._cuda`: for the emulated device everywhere, and as nvcc built it where there is a GPU."""
    if request.param == "real":
        return cuda.module()
    module: ModuleType = request.getfixturevalue("emulated")
    return module


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Warnings are not errors on a card, where other versions of torch, CuPy and JAX than ours may be installed."""
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.filterwarnings("default"))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "compose_case" in metafunc.fixturenames:
        cases = [ComposeCase(case) for case in CASES]
        metafunc.parametrize("compose_case", cases, ids=[case["name"] for case in CASES])
