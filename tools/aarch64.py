"""The extension cross-compiled for 64-bit ARM, warnings as errors, and tests of it in an emulated process.

    python tools/aarch64.py --folder build/aarch64 tests/ops

On Debian, with g++-aarch64-linux-gnu and qemu-user-static installed. ARM's Python comes from Debian too, and its
packages from the package index; all of it goes into the folder, and nothing is installed.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TRIPLET = "aarch64-linux-gnu"
NEEDED = ("numpy", "pillow", "tqdm", "pytest", "hypothesis", "pybind11")
# A version that has no CUDA on ARM. pip asks for what torch needs on this machine, so that is named here.
TORCH = (
    "torch==2.6.*",
    "filelock",
    "fsspec",
    "jinja2",
    "markupsafe",
    "mpmath",
    "networkx",
    "sympy<2",
    "typing-extensions",
)


def run(*words: object, **environment: str) -> None:
    subprocess.run([str(word) for word in words], env=os.environ | environment, cwd=ROOT, check=True)


def fetch_python(folder: Path) -> Path:
    """A tree with ARM's Python and the libraries that it needs, made of Debian's packages."""
    tree, state = folder / "root", folder / "apt"
    if tree.exists():
        return tree
    shutil.rmtree(state, ignore_errors=True)
    for name in ("lists/partial", "cache/archives/partial"):
        (state / name).mkdir(parents=True)
    (state / "status").touch()
    settings = state / "settings"
    settings.write_text(
        f'APT::Architecture "arm64"; APT::Architectures {{"arm64";}}; Dir::State::Lists "{state}/lists";\n'
        f'Dir::State::status "{state}/status"; Dir::Cache "{state}/cache"; APT::Sandbox::User "root";\n'
        'APT::Install-Recommends "false";\n'
    )
    run("apt-get", "-qq", "update", APT_CONFIG=str(settings))
    wanted = ("python3-minimal", "libpython3-stdlib", "libpython3-dev", "libstdc++6")
    run("apt-get", "-qq", "--yes", "--download-only", "install", *wanted, APT_CONFIG=str(settings))
    unpacked = folder / "unpacking"
    shutil.rmtree(unpacked, ignore_errors=True)
    for package in sorted((state / "cache/archives").glob("*.deb")):
        run("dpkg-deb", "-x", package, unpacked)
    return unpacked.rename(tree)


def build(folder: Path, tree: Path, version: str) -> None:
    """`cgnrt` with its extension for ARM, in `folder/package`."""
    import pybind11

    run(
        "cmake", "-S", ROOT, "-B", folder / "cmake", "-G", "Ninja",
        "-DCMAKE_SYSTEM_NAME=Linux", "-DCMAKE_SYSTEM_PROCESSOR=aarch64",
        f"-DCMAKE_CXX_COMPILER={TRIPLET}-g++", "-DCGNRT_CUDA=OFF", "-DCGNRT_WERROR=ON",
        f"-Dpybind11_DIR={pybind11.get_cmake_dir()}", f"-DPython_EXECUTABLE={sys.executable}",
        f"-DPython_INCLUDE_DIR={tree}/usr/include/python{version}", f"-DCMAKE_CXX_FLAGS=-isystem {tree}/usr/include",
        f"-DPYTHON_MODULE_EXTENSION=.cpython-{version.replace('.', '')}-{TRIPLET}.so",
    )  # fmt: skip
    run("cmake", "--build", folder / "cmake")
    package = folder / "package"
    shutil.rmtree(package, ignore_errors=True)
    shutil.copytree(ROOT / "python", package, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    (built,) = (folder / "cmake").glob("_core*.so")
    shutil.copy(built, package / "cgnrt")


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Cross-compile for 64-bit ARM, and run tests in an emulator."
    )
    parser.add_argument("tests", nargs="*", help="what pytest runs; nothing: only compile")
    parser.add_argument("--folder", type=Path, default=ROOT / "build/aarch64", help="for all files")
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    tree = fetch_python(folder)
    (python,) = (path for path in (tree / "usr/bin").iterdir() if re.fullmatch(r"python3\.\d+", path.name))
    version = python.name.removeprefix("python")
    build(folder, tree, version)
    if not arguments.tests:
        return
    packages = folder / "packages"
    if not packages.exists():
        platform = ("--platform", "manylinux_2_28_aarch64", "--platform", "manylinux2014_aarch64")
        only = ("--only-binary", ":all:", "--python-version", version, "--implementation", "cp")
        pip = (sys.executable, "-m", "pip", "install", "-q", "--target", packages, *platform, *only)
        run(*pip, *NEEDED)
        run(*pip, "--no-deps", *TORCH)
    path = os.pathsep.join(map(str, (folder / "package", packages)))
    emulated = ("qemu-aarch64-static", "-L", tree, python)
    run(*emulated, "-c", "import cgnrt; print(cgnrt.build_info())", PYTHONPATH=path)
    run(*emulated, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments.tests, PYTHONPATH=path)


if __name__ == "__main__":
    main()
