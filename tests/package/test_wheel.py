"""sdist -> wheel -> a fresh environment away from the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest


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


def test_the_wheel_has_three_packages_and_the_extension(wheel: Path, root: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    assert f"cgnrt/_core{suffix}" in names
    assert "cgnrt/_core.pyi" in names
    assert "cgnrt_training/mnist/configs/fast.toml" in names
    assert "cgnrt_training/imagenet/classes.txt" in names
    assert {"cgnrt/sheets/DejaVuSans.ttf", "cgnrt/sheets/LICENSE_DEJAVU"} <= names
    page = {f"cgnrt/serve/ui/{p.name}" for p in (root / "python/cgnrt/serve/ui").iterdir()}
    assert "cgnrt/serve/ui/index.html" in page
    assert page <= names
    assert {"cgnrt/serve/open_inference.binpb", "cgnrt/serve/open_inference.proto"} <= names
    for package, source in (
        ("cgnrt", "python/cgnrt"),
        ("cgnrt_training", "training/cgnrt_training"),
        ("cgnrt_export", "export/cgnrt_export"),
    ):
        assert f"{package}/py.typed" in names
        expected = {
            f"{package}/{p.relative_to(root / source).as_posix()}" for p in (root / source).rglob("*.py")
        }
        assert expected <= names, f"missing: {sorted(expected - names)}"
    top = {name.partition("/")[0] for name in names}
    assert {name for name in top if not name.endswith(".dist-info")} == {
        "cgnrt",
        "cgnrt_training",
        "cgnrt_export",
    }


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
    run(home / "bin" / "cgnrt", "sheet", demo_plan, "-n", "2", "-o", "sheet.png", cwd=tmp_path)
    assert (tmp_path / "sheet.png").stat().st_size > 1000
    for command in ("cgnrt-train", "cgnrt-export"):
        assert "usage" in run(home / "bin" / command, "--help", cwd=tmp_path)

    asked = [home / "bin" / "cgnrt", "sample", demo_plan, "-n", "1", "-o", "a.npz", "--device", "cuda"]
    refused = subprocess.run([*map(str, asked)], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert refused.returncode == 1
    assert "this build of cgnrt has no CUDA kernels. Put CUDA's nvcc on the PATH" in refused.stderr
    assert "Traceback" not in refused.stderr
