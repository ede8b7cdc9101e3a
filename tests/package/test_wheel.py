"""sdist -> wheel -> a fresh environment away from the checkout."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest
from wheel_checks import problems


def run(*command: object, cwd: Path) -> str:
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
    # What a machine without nvcc builds, compiled fast: the loops for one instruction set, all else without optimising.
    environment["SKBUILD_CMAKE_DEFINE"] = "CGNRT_CUDA=OFF;CGNRT_PORTABLE=ON;CMAKE_CXX_FLAGS_RELEASE=-O0"
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def built(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist and the wheel that was built from it."""
    folder = tmp_path_factory.mktemp("dist")
    # The tools come from this environment, so that nothing is downloaded.
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, root, cwd=folder)
    return folder


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (found,) = built.glob("*.whl")
    return found


def test_the_sdist_is_complete_and_no_more(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for needed in ("CMakeLists.txt", "pyproject.toml", "README.md", "LICENSE", "python/cgnrt/_core.pyi"):
        assert needed in names
    assert any(name.startswith("csrc/ops/") for name in names)
    assert not [name for name in names if name.startswith((".venv", "out/", "build/", "runs/"))]


def test_the_wheel_is_complete_and_no_more(wheel: Path, root: Path) -> None:
    assert problems(wheel, root, cuda=False) == []
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert f"cgnrt/_core{sysconfig.get_config_var('EXT_SUFFIX')}" in names
    # What `make wheel` checks by lists that it makes of the same folders.
    assert {"cgnrt/ops.py", "cgnrt_training/cli/mnist.py", "cgnrt_export/rewrites/__init__.py"} <= names


def test_what_is_wrong_with_a_wheel_is_found(wheel: Path, root: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "cgnrt-0.1.0-cp311-cp311-manylinux_2_36_x86_64.whl"
    with zipfile.ZipFile(wheel) as whole, zipfile.ZipFile(damaged, "w") as archive:
        for name in whole.namelist():
            if name not in ("cgnrt/ops.py", "cgnrt/sheets/DejaVuSans.ttf") and not name.endswith("/NOTICE"):
                archive.writestr(name, whole.read(name))
        archive.writestr("cgnrt/notes.txt", "")
        archive.writestr("cgnrt/large.bin", bytes(16_000_000))
    found = problems(damaged, root, cuda=True)
    assert [sentence for sentence in found if "cgnrt/" in sentence] == [
        "cgnrt/ops.py is missing.",
        "cgnrt/sheets/DejaVuSans.ttf is missing.",
        "cgnrt/large.bin does not belong into it.",
        "cgnrt/notes.txt does not belong into it.",
    ]
    assert "it needs glibc 2.36, expected at most 2.34." in found
    assert "the licence NOTICE is missing." in found
    assert "CUDA kernels are missing." in found
    assert any(
        re.fullmatch(r"the wheel has \d+\.\d MB, expected at most 15\.", sentence) for sentence in found
    )


def test_the_wheel_runs_away_from_the_checkout(wheel: Path, demo_plan: Path, tmp_path: Path) -> None:
    """Dependencies come from this environment by a .pth file, which leaves its own cgnrt out."""
    home = tmp_path / "venv"
    venv.create(home, with_pip=False)
    python = home / "bin" / "python"
    run(
        sys.executable,
        "-m",
        "pip",
        "--python",
        python,
        "install",
        "--no-deps",
        "--no-index",
        wheel,
        cwd=tmp_path,
    )
    (packages,) = (home / "lib").glob("python*/site-packages")
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")

    where = run(
        python, "-c", "import cgnrt, cgnrt._core; print(cgnrt.__file__, cgnrt._core.__file__)", cwd=tmp_path
    )
    assert all(str(home.resolve()) in str(Path(path).resolve()) for path in where.split())
    assert "cgnrt 0." in run(home / "bin" / "cgnrt", "--version", cwd=tmp_path)
    run(home / "bin" / "cgnrt", "example", cwd=tmp_path)
    assert (tmp_path / "plans/double-colored.plan").read_bytes() == demo_plan.read_bytes()
    run(
        home / "bin" / "cgnrt",
        "sheet",
        "plans/double-colored.plan",
        "-n",
        "2",
        "-o",
        "sheet.png",
        cwd=tmp_path,
    )
    assert (tmp_path / "sheet.png").stat().st_size > 1000
    for command in ("cgnrt-train", "cgnrt-export"):
        assert "usage" in run(home / "bin" / command, "--help", cwd=tmp_path)

    asked = [home / "bin" / "cgnrt", "sample", demo_plan, "-n", "1", "-o", "a.npz", "--device", "cuda"]
    refused = subprocess.run([*map(str, asked)], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert refused.returncode == 1
    assert "this build of cgnrt has no CUDA kernels. Put CUDA's nvcc on the PATH" in refused.stderr
    assert "Traceback" not in refused.stderr
