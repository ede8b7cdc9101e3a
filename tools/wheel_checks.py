"""What a wheel of cgnrt has to be: its members, size, licences, and the oldest system that it runs on."""

from __future__ import annotations

import re
import zipfile
from email.parser import BytesParser
from pathlib import Path

MAX_MEGABYTES = 15
NEWEST_GLIBC = (2, 34)
PACKAGES = {
    "cgnrt": "python/cgnrt",
    "cgnrt_training": "training/cgnrt_training",
    "cgnrt_export": "export/cgnrt_export",
}
LICENCES = {"LICENSE", "NOTICE", "LICENSE_DEJAVU"}
# Members that are neither Python files nor named by a package's own files.
NEEDED = {
    "cgnrt/_core.pyi",
    "cgnrt/examples/double-colored.plan",
    "cgnrt/serve/open_inference.binpb",
    "cgnrt/serve/open_inference.proto",
    "cgnrt/serve/ui/index.html",
    "cgnrt/sheets/DejaVuSans.ttf",
    "cgnrt/sheets/LICENSE_DEJAVU",
    "cgnrt_training/imagenet/classes.txt",
    "cgnrt_training/mnist/configs/fast.toml",
}


def problems(wheel: Path, root: Path, *, cuda: bool | None = None) -> list[str]:
    """What is wrong with a wheel, in sentences; an empty list if nothing is.

    Args:
      cuda: whether it must have the CUDA kernels (or must not); None: either.
    """
    found = []
    size = wheel.stat().st_size / 1e6
    if size > MAX_MEGABYTES:
        found.append(f"the wheel has {size:.1f} MB, expected at most {MAX_MEGABYTES}.")
    glibc = re.search(r"manylinux_(\d+)_(\d+)", wheel.name)
    if glibc and (int(glibc[1]), int(glibc[2])) > NEWEST_GLIBC:
        found.append(f"it needs glibc {glibc[1]}.{glibc[2]}, expected at most 2.34.")
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if not name.endswith("/")}
        (about,) = [name for name in names if name.endswith(".dist-info/METADATA")]
        licences = BytesParser().parsebytes(archive.read(about)).get_all("License-File", [])
        home = about.removesuffix("METADATA") + "licenses/"
        found += [f"the licence {name} is missing." for name in licences if home + name not in names]
    if {Path(name).name for name in licences} != LICENCES:
        found.append(f"its licences are {sorted(licences)}, expected {sorted(LICENCES)}.")
    expected = NEEDED | {f"{package}/py.typed" for package in PACKAGES}
    for package, folder in PACKAGES.items():
        source = root / folder
        kinds = {path for kind in ("*.py", "*.pyi", "*.toml", "*.txt") for path in source.rglob(kind)}
        kinds |= {path for path in source.glob("serve/ui/*") if path.is_file()}
        expected |= {f"{package}/{path.relative_to(source).as_posix()}" for path in kinds}
    found += [f"{name} is missing." for name in sorted(expected - names)]
    modules = {name for name in names if re.fullmatch(r"cgnrt/_(core|cuda)\.[\w.-]+\.so", name)}
    if not any("_core" in name for name in modules):
        found.append("the extension module cgnrt._core is missing.")
    if cuda is not None and any("_cuda" in name for name in modules) != cuda:
        found.append(f"CUDA kernels are {'missing' if cuda else 'inside'}.")
    extra = {name for name in names - expected - modules if ".dist-info/" not in name}
    found += [f"{name} does not belong into it." for name in sorted(extra)]
    return found
