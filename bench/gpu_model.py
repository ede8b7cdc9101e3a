"""The CGN of the ImageNet sections: weights made on the spot, and its plan."""

from __future__ import annotations

import importlib.util
import math
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import torch
from gpu_setting import EXPORT, Setting, need, tf32
from imagenet_peers import TRUNCATION, composite
from report import ROOT
from torch import Tensor

from cgnrt import Generator
from cgnrt._support.files import written_beside
from cgnrt.plan import Plan
from cgnrt_training.imagenet.biggan import BigGAN, BigGANConfig
from cgnrt_training.imagenet.cgn import CGN
from cgnrt_training.imagenet.u2net import FULL, U2Net

RESOLUTION = 256
Say = Callable[[str], object]


class Model(Protocol):
    """A CGN and its plan."""

    plan: Path

    def prepare(self, say: Say) -> None:
        """Make what is not there yet."""
        ...

    def cgn(self) -> CGN:
        """The torch modules that the plan was made from, on the CPU."""
        ...

    def macs(self) -> int:
        """Multiply-adds of a counterfactual by the rewritten graphs."""
        ...


class ImageNet:
    """Calibrated random weights of the true size, kept in a folder; some minutes to make."""

    def __init__(self, work: Path) -> None:
        self.plan = work / "imagenet.plan"
        self._weights = work / "imagenet.pt"

    def prepare(self, say: Say) -> None:
        if not self._weights.exists():
            from cgnrt_training.imagenet.calibrate import random_cgn

            self._weights.parent.mkdir(parents=True, exist_ok=True)
            model = random_cgn(RESOLUTION, seed=0, progress=say)
            with written_beside(self._weights, force=True) as beside:
                torch.save(model.state_dict(), beside)
        if not self.plan.exists():
            need(EXPORT)
            from cgnrt_export import export_plan
            from cgnrt_export.imagenet import FAMILY, NOISE_MODE, imagenet_mechanisms, truncation

            # Parity on the CPU is proved elsewhere; here on one image, since each takes seconds.
            export_plan(
                self.plan,
                imagenet_mechanisms(self.cgn()),
                family=FAMILY,
                noise_mode=NOISE_MODE,
                truncation=truncation(),
                precision="fp32",
                batch_sizes=(1,),
                progress=say,
            )

    def cgn(self) -> CGN:
        config = BigGANConfig.of_resolution(RESOLUTION)
        found = CGN(*(BigGAN(config) for _ in range(3)), u2net=U2Net(replace(FULL, align_corners=True)))
        found.load_state_dict(torch.load(self._weights, weights_only=True, map_location="cpu"))
        return found.eval()

    def macs(self) -> int:
        with Plan.open(self.plan, verify=False) as plan:
            reports = plan.manifest.parity["mechanisms"]
            return sum(int(report["macs_after"]) for report in reports.values())


class Small:
    """The tests' plan of 8 px with every kind of layer, for dry runs."""

    def __init__(self) -> None:
        self.plan = ROOT / "tests" / "runtime" / "golden" / "small_cgn.plan"

    def prepare(self, say: Say) -> None:
        say("nothing to make: the tests' small plan is taken")

    def cgn(self) -> CGN:
        maker = _load(self.plan.parent / "make_small_cgn.py")
        biggan = maker.make_biggan()
        head: Any = maker.make_modules(biggan)["shape"].u2net
        return CGN(biggan, biggan, biggan, head).eval()

    def macs(self) -> int:
        return 1_000_000


def ready(setting: Setting) -> Model:
    """The CGN that a setting measures, with nothing missing."""
    model: Model = Small() if setting.dry else ImageNet(setting.work)
    model.prepare(lambda line: print(line, file=sys.stderr))
    return model


def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"load '{path}': it is no Python module.")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def psnr_to_torch(generator: Generator, cgn: CGN, n: int) -> float:
    """Decibels of a Generator's images in [-1, 1] to the torch modules in float32 on their own device."""
    batch = generator.sample(n, seed=1, truncation=TRUNCATION)
    noise = [torch.from_numpy(u) for u in batch.noise[:3]]
    with tf32(False):
        truth = composite(cgn, batch.labels, noise, TRUNCATION)
    return psnr(batch.torch().images, truth)


def psnr(found: Tensor, truth: Tensor) -> float:
    """Decibels for pictures in [-1, 1]; 0 if anything is NaN, 200 without an error."""
    error = float((found.double() - truth.double()).square().mean())
    if not math.isfinite(error):
        return 0.0
    return min(200.0, 10 * math.log10(4 / max(error, 1e-30)))
