"""The project's own promises: the CMake switch, the extras, the help without torch."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import cgnrt


def test_build_info_tells_how_the_extension_was_built() -> None:
    info = cgnrt.build_info()
    assert info["version"] == cgnrt.__version__
    assert info["compiler"]
    cuda = info["cuda"]
    assert cuda is None or {"runtime", "driver", "devices", "architectures"} <= set(cuda)


def test_versions_agree(root: Path) -> None:
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    assert project["version"] == cgnrt.__version__


def test_extras_keep_the_two_builds_of_onnxruntime_apart(root: Path) -> None:
    extras = tomllib.loads((root / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for needed in ("cpu", "gpu", "tensorrt", "tensorrt-rtx", "train", "export", "serve", "ray", "test"):
        assert extras[needed]
    for name, packages in extras.items():
        assert not any(p.startswith("onnxruntime") for p in packages) or name in ("cpu", "gpu")


def test_import_is_light_and_complete() -> None:
    code = (
        "import sys, cgnrt\n"
        "heavy = {'torch', 'openvino', 'onnxruntime', 'onnx', 'tensorrt', 'cgnrt.auditing.run'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "assert set(cgnrt.__all__) <= set(dir(cgnrt))\n"
        "assert all(getattr(cgnrt, name) for name in cgnrt.__all__)\n"
        "try:\n    cgnrt.nothing\nexcept AttributeError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "module 'cgnrt' has no attribute 'nothing'\n"


@pytest.mark.parametrize("command", ["cgnrt.cli", "cgnrt_training.cli", "cgnrt_export.cli"])
def test_help_works_without_torch(command: str) -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        f"import {command} as cli\n"
        "try:\n    cli.main(['--help'])\nexcept SystemExit as stop:\n    assert not stop.code, stop.code\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "usage" in done.stdout


def test_cuda_on_without_a_compiler_fails_hard(root: Path, tmp_path: Path) -> None:
    import pybind11

    command = [
        sys.executable,
        "-m",
        "cmake",
        "-S",
        root,
        "-B",
        tmp_path,
        "-DCGNRT_CUDA=ON",
        f"-DPython_EXECUTABLE={sys.executable}",
        f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
        "-DSKBUILD_PROJECT_NAME=cgnrt",
        "-DSKBUILD_PROJECT_VERSION=0.1.0",
    ]
    environment = {**os.environ, "CUDACXX": "/nonexistent/nvcc"}
    done = subprocess.run(
        [str(c) for c in command], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert "CGNRT_CUDA" in done.stderr
