"""ImageNet-256 counterfactuals: the authors' loop, the needed work in float16, and our rewritten form."""

from __future__ import annotations

import functools
import statistics
import sys
from collections.abc import Callable, Mapping
from typing import Any

import torch
from gpu.networks import Case, Family, Inputs, Networks, Truth, cases_of, compiled, needed, rewritten
from gpu.results import Recorder
from gpu.setting import Setting, matrix_product, tf32
from gpu.training import measure_training
from report import median_ratio
from torch import Tensor, nn

from cgnrt_export.imagenet import imagenet_mechanisms
from cgnrt_training.imagenet.biggan import BigGANConfig
from cgnrt_training.imagenet.calibrate import random_biggan, random_cgn
from cgnrt_training.imagenet.cgn import CGN, compose

RESOLUTION = 256
TRUNCATION = 0.5


def measure_imagenet(setting: Setting, recorder: Recorder) -> None:
    """Our rewritten form against the authors' loop, at the larger batch, and a ResNet-50 that is fed from it."""
    family, modules = measure_rewritten(setting, recorder)
    inputs = Inputs(family, setting.batch, setting.device)
    networks = Networks(setting, inputs, modules, family.size)
    measure_training(setting, recorder, inputs, setting.captured(networks.pictures), family.size)


def measure_rewritten(setting: Setting, recorder: Recorder) -> tuple[Family, dict[str, nn.Module]]:
    """Our rewritten form against the authors' loop, in float16 with float32 vectors, channels last."""
    cgn = make_cgn(setting)
    family = family_of(cgn)
    modules, macs = rewritten(family, setting.device)
    times = measure_forms(setting, recorder, cgn, family, "rewritten fp16", modules)
    target = "compiled" if any("compiled" in name for name in times) else "CUDA graph"
    ours = {name: seconds for name, seconds in times.items() if target in name}
    if ours:
        name = min(ours, key=lambda name: statistics.median(ours[name]))
        note = f"{name}, batch {setting.batch}; {macs / 1e9:.0f} G multiply-adds an image"
        recorder.result("imagenet", median_ratio(times["authors' loop"], ours[name]), note)
        share = macs * setting.batch / setting.sizes.product**3
        recorder.result("matrix_rate", share * median_ratio(times["product"], ours[name]), note)
    return family, modules


def measure_needed(setting: Setting, recorder: Recorder) -> None:
    """Three BigGANs and a U2-Net as trained, with spectral norm folded, in float16 throughout, channels last."""
    cgn = make_cgn(setting)
    family = family_of(cgn)
    modules = needed(family, setting.device)
    measure_forms(setting, recorder, cgn, family, "needed work fp16", modules)


def measure_forms(
    setting: Setting,
    recorder: Recorder,
    cgn: CGN,
    family: Family,
    what: str,
    modules: Mapping[str, nn.Module],
) -> dict[str, list[float]]:
    """Seconds of the authors' loop, of a matrix product, and of every variant that can be run; a row for each."""
    inputs = Inputs(family, setting.batch, setting.device)
    variants = {
        "eager": modules,
        "compiled": compiled(setting, recorder, f"{what}, compiled", modules, inputs),
    }
    setting.wait_for_turn(recorder)
    torch.backends.cudnn.benchmark = True
    truth = Truth(setting, family, inputs, setting.sizes.parity)
    cases: dict[str, Callable[[], Any]] = {
        "product": matrix_product(setting),
        "authors' loop": authors_loop(cgn.to(setting.device), inputs),
    }
    cases |= cases_of(setting, recorder, what, variants, inputs, family.size, truth.decibels)
    times = setting.turns(cases, limit_s=setting.budget.share(0.5, at_most=25), rounds=9)
    for name, seconds in times.items():
        if name != "product":
            ratio = median_ratio(times["authors' loop"], seconds)
            recorder.row(f"{name}, batch {setting.batch}", seconds, count=setting.batch, ratio=ratio)
    return times


@functools.cache
def family_of(cgn: CGN) -> Family:
    return Family(imagenet_mechanisms(cgn), cgn.resolution, TRUNCATION)


def make_cgn(setting: Setting) -> CGN:
    """Calibrated random weights of the true size, on the CPU; for a dry run a CGN of 8 px."""
    if setting.dry:
        return small_cgn()
    torch.backends.cudnn.benchmark = False  # each size of the calibration comes once
    return random_cgn(RESOLUTION, device=setting.device, progress=lambda line: print(line, file=sys.stderr))


@functools.cache
def small_cgn() -> CGN:
    """One BigGAN for all mechanisms, with every kind of block, and a layer in the place of the U2-Net."""
    blocks = ((False, 16, 8), (True, 8, 4), (False, 4, 2), (False, 2, 1))
    config = BigGANConfig(blocks=blocks, channel_width=4, z_dim=6, num_classes=3, attention=2, n_stats=11)
    biggan = random_biggan(config, torch.Generator().manual_seed(0))
    head: Any = nn.Sequential(nn.Conv2d(3, 1, 3, padding=1), nn.Sigmoid())
    return CGN(biggan, biggan, biggan, head).eval()


def authors_loop(cgn: CGN, inputs: Inputs) -> Case:
    """What the authors' forward runs for a batch: four BigGANs and two U2-Nets, spectral norm in every layer.

    By the modules of cgnrt-train, which compute what theirs do: pytorch-pretrained-biggan need not be installed.
    """

    def call() -> Tensor:
        inputs.draw()
        noise, _, truncation = inputs.of("shape")
        labels = torch.randint(cgn.f_shape.config.num_classes, (3, inputs.n), device=noise.device)
        with torch.no_grad(), tf32(True):
            cgn.f_shape(noise, cgn.f_shape.embedding_table[labels[0]], truncation)  # the unconstrained one
            parts = cgn(*labels, noise=noise, truncation=truncation)
            cgn.u2net(parts.background)
            return compose(parts)

    return call
