"""The commands of README and docs run as they stand, only with small numbers, or are listed here with a reason.

The commands of a page run one after the other in one folder, which has the checkout's plans, eight drawn photos with
masks, a plan that finds their objects, and two functions to audit.
"""

from __future__ import annotations

import itertools
import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from page_commands import PAGES, ROOT, commands
from PIL import Image

import cgnrt.cli
import cgnrt_export.cli
import cgnrt_training.cli

pytestmark = pytest.mark.extended

MAIN: dict[str, Callable[[list[str]], int]] = {
    "cgnrt": cgnrt.cli.main,
    "cgnrt-export": cgnrt_export.cli.main,
    "cgnrt-train": cgnrt_training.cli.main,
}
NUMBERS = {"-n": 20, "--frames": 3, "--steps": 1}
ADDED = {"bench": ["--seconds", "0.02", "--batch", "8"]}
# Commands that cost minutes with these numbers, and run nevertheless.
RUN = (
    "cgnrt-train imagenet-random .*--resolution 64 .*",
    "cgnrt-train imagenet --biggan standins/.*",
    r"cgnrt-export (runs/try/cgn\.pt|cgn\.pth -o cgn\.plan --precision) .*",
    "cgnrt-export plans/.*",
)
NOT_RUN = {
    "cgnrt audit .*--(in9|cue-conflict) .*": "published sets that are not in the checkout; tests/real draws small ones",
    "cgnrt audit .* mine:.*": "a classifier that a page trains; tests/training asks one",
    "cgnrt serve .*": "runs until it is stopped; tests/serve",
    "cgnrt generate .*--engine ray.*": "a cluster; tests/shards/test_ray.py",
    r"cgnrt (sample|sheet) (own|cgn)\.plan .*": "a plan that takes hours, or ImageNet's; tests/runtime has a small one",
    "cgnrt-export .*": "weights that are not in the checkout; tests/export makes small ones of each kind",
    "cgnrt-train .*": "data that are not in the checkout, or hours; tests/training runs each job with small settings",
}
MODULE = """
import numpy as np

def classify(images):  # (n, 3, 32, 32) in [-1, 1]
    return (images.mean(axis=(1, 2, 3)) > 0).astype(int)

def model(images):  # (n, 3, h, w) in [0, 1]
    return (images[:, 0].mean(axis=(1, 2)) > images[:, 2].mean(axis=(1, 2))).astype(int)
"""


@pytest.fixture(scope="module")
def saliency_plan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plan that takes what is bright for the object, in place of U2-Net."""
    import torch

    from cgnrt_export import export_saliency

    class Bright(torch.nn.Module):
        def forward(self, photos: torch.Tensor) -> torch.Tensor:
            return torch.sigmoid(20 * (photos.mean(1, keepdim=True) - 0.5))

    path = tmp_path_factory.mktemp("saliency") / "u2netp.plan"
    export_saliency(path, Bright(), family="bright", resolution=(64, 64), precision="fp32", stretch=False)
    return path


@pytest.fixture
def folder(saliency_plan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "plans").mkdir()
    for plan in (ROOT / "plans").glob("*.plan"):
        (tmp_path / "plans" / plan.name).symlink_to(plan)
    (tmp_path / "u2netp.plan").symlink_to(saliency_plan)
    (tmp_path / "my_module.py").write_text(MODULE)
    (tmp_path / "labels.json").write_text('{"cat": 0, "dog": 1}')
    rows, columns = np.mgrid[:96, :96]
    for number in range(8):
        kind, colour = ("cat", (255, 230, 200)) if number % 2 else ("dog", (200, 230, 255))
        disc = (rows - 40 - 2 * number) ** 2 + (columns - 44) ** 2 < 24**2
        photo = np.where(disc[..., None], colour, np.stack([rows, columns, rows // 2], -1)).astype(np.uint8)
        for name, picture in (("photos", photo), ("masks", disc.astype(np.uint8) * 255)):
            (tmp_path / name / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(tmp_path / name / kind / f"{number}.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "my_module", raising=False)
    return tmp_path


def reason(words: list[str]) -> str | None:
    """Why a command is not run; None: it is."""
    line = " ".join(words)
    if any(re.fullmatch(pattern, line) for pattern in RUN):
        return None
    return next((why for pattern, why in NOT_RUN.items() if re.fullmatch(pattern, line)), None)


def small(words: list[str]) -> list[str]:
    """The arguments of a command, with small numbers."""
    arguments = words[1:]
    for place, word in enumerate(arguments[:-1]):
        if word in NUMBERS:
            arguments[place + 1] = str(min(NUMBERS[word], int(arguments[place + 1])))
    return arguments + ADDED.get(arguments[0], [])


@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if any(reason(words) is None for words in commands(page.read_text()))],
    ids=lambda page: page.name,
)
@pytest.mark.usefixtures("folder")
def test_commands_run(page: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for words in commands(page.read_text()):
        if reason(words) is None:
            if words[:2] == ["cgnrt", "example"]:
                Path("plans/double-colored.plan").unlink()  # which it writes
            # A page writes the same file twice to show two ways.
            again = ["--force"] if any(Path(word).is_file() for word in written(words)) else []
            assert MAIN[words[0]](small(words) + again) == 0, f"{' '.join(words)}\n{capfd.readouterr().err}"


def written(words: list[str]) -> list[str]:
    """The files that a command's options name as its results."""
    return [word for option, word in itertools.pairwise(words) if option in ("-o", "--plot", "--sheet")]


def test_every_reason_is_that_of_a_command() -> None:
    left_out = {reason(words) for page in PAGES for words in commands(page.read_text())} - {None}
    assert left_out == set(NOT_RUN.values())
