"""ImageNet counterfactuals on a card: against the eager loop, against torch.compile, and from a pool."""

from __future__ import annotations

import dataclasses
import itertools
import statistics
from collections.abc import Callable
from typing import Any

import torch
from gpu_contenders import FORM, Best, best_of_ours, check_level, chosen, opened, scan
from gpu_model import Model, psnr_to_torch, ready
from gpu_ops import matrix_product
from gpu_results import NotRunError, Recorder
from gpu_setting import REFERENCE, Setting, need, tf32
from imagenet_peers import Peers
from report import median_ratio

from cgnrt import Generator
from cgnrt_training.imagenet.cgn import CGN

BOUND = (
    0.85  # of the copy rate: from there composing counts as bound by bandwidth, as the compose measure has it
)


def measure_imagenet(setting: Setting, recorder: Recorder) -> None:
    """Find the best batch of the loop and of ours, then time the two in turn, and the card's matrix product."""
    model = ready(setting)
    cgn = model.cgn().to(setting.device)
    torch.backends.cudnn.benchmark = True
    cases: dict[str, Callable[[], object]] = {"product": matrix_product(setting)}
    loop: Best | None = None
    try:
        peers = peers_of(setting, cgn)
        with tf32(True):
            loop = scan(setting, recorder, "eager loop", peers.reference, setting.sizes.reference_batches)
        cases["loop"] = lambda batch=loop.batch: peers.reference(batch)
    except NotRunError as reason:
        recorder.skipped("eager loop", reason)
        recorder.not_run("imagenet", f"the eager loop: {reason}")
    setting.release()
    choice = best_of_ours(
        setting,
        recorder,
        model.plan,
        setting.sizes.imagenet_batches,
        lambda contender: psnr_to_torch(contender.generator, cgn, setting.sizes.parity),
        precisions=setting.precisions,
        counting=setting.low,
    )
    recorder.fact("chosen", dataclasses.asdict(choice))
    ours = opened(setting, model.plan, choice.engine, choice.precision, **FORM)
    new = ours.new()
    cases["ours"] = lambda: new(choice.batch)
    with tf32(True):
        times = setting.turns(cases, limit_s=setting.budget.share(0.8, at_most=90))
    note = f"{ours.name}, batch {choice.batch}"
    if loop is not None:
        ratio = median_ratio(times["loop"], times["ours"]) * choice.batch / loop.batch
        recorder.row(f"{note}, in turn with the loop", times["ours"], ratio=ratio)
        recorder.result("imagenet", ratio, f"{note}; the loop at batch {loop.batch}")
    recorder.result("matrix_rate", matrix_share(setting, model, choice.batch, times), note)


def peers_of(setting: Setting, cgn: CGN) -> Peers:
    """The peers on the device.

    Raises:
      NotRunError: a package of theirs is not installed.
    """
    need(REFERENCE)
    try:
        return Peers(cgn, device=setting.device)
    except ModuleNotFoundError as error:
        raise NotRunError(f"{error.name} not installed") from error


def matrix_share(setting: Setting, model: Model, batch: int, times: dict[str, list[float]]) -> float:
    """Multiply-adds a second of ours over those of the product."""
    work = model.macs() * batch / setting.sizes.product**3
    return work * median_ratio(times["product"], times["ours"])


def measure_compiled(setting: Setting, recorder: Recorder) -> None:
    """Three BigGANs and a U2-Net as one compiled function: bf16, channels last, spectral norm folded."""
    need(REFERENCE if setting.dry else (*REFERENCE, "triton"))  # before what takes minutes
    model = ready(setting)
    cgn = model.cgn().to(setting.device)
    ours, _ = chosen(setting, model.plan, **FORM)
    decibels = psnr_to_torch(ours.generator, cgn, setting.sizes.parity)
    recorder.row(f"{ours.name}, PSNR", figures={"psnr_db": decibels})
    check_level(setting, decibels)
    batch = setting.sizes.compiled_batch
    torch.backends.cudnn.benchmark = True
    needed = peers_of(setting, cgn).needed_through(setting.compile)
    needed(batch)  # compiles, for minutes
    new = ours.new()
    times = setting.turns(
        {"ours": lambda: new(batch), "compiled": lambda: needed(batch)},
        limit_s=setting.budget.share(0.8, at_most=60),
    )
    for name, what in (("compiled", "torch.compile max-autotune bf16"), ("ours", ours.name)):
        rate = batch / statistics.median(times[name])
        recorder.row(what, times[name], rate=rate, unit="images/s", note=f"batch {batch}")
    ratio = median_ratio(times["compiled"], times["ours"])
    recorder.result("compiled", ratio, f"{ours.name}, both at batch {batch}")


def measure_pool(setting: Setting, recorder: Recorder) -> None:
    """Images a second from a new pool against new images, and composing from a kept pool against a copy."""
    model = ready(setting)
    ours, _ = chosen(setting, model.plan, **FORM)
    entries, reuse = setting.sizes.pool
    n = entries * reuse
    new = ours.new()
    seeds = itertools.count(1)
    times = setting.turns(
        {
            "reuse 1": lambda: new(entries),
            "pool": lambda: ours.generator.sample(n, seed=next(seeds), pool=entries).torch(),
        },
        limit_s=setting.budget.share(0.4, at_most=60),
    )
    note = f"{ours.name}, {entries} entries"
    for name, what, count in (("reuse 1", "reuse 1", entries), ("pool", f"reuse {reuse}", n)):
        rate = count / statistics.median(times[name])
        recorder.row(what, times[name], rate=rate, unit="images/s", note=note)
    ratio = reuse * median_ratio(times["reuse 1"], times["pool"])
    share = kept_pool(setting, recorder, ours.generator, entries, n)
    words = f"bandwidth-bound: composing from a kept pool at {BOUND} of the copy rate or more"
    recorder.result("pool", ratio, f"{note}; {words}", aim_met=share >= BOUND)


def kept_pool(setting: Setting, recorder: Recorder, generator: Generator, entries: int, n: int) -> float:
    """Bytes a second of composing alone, over those of a copy of as many."""
    height, width = generator.resolution
    count = n * height * width * (7 * 4 + 3 * 2)  # float32 pictures in, float16 images out
    source = torch.randint(256, (count // 2,), dtype=torch.uint8, device=setting.device)
    target = torch.empty_like(source)
    cases: dict[str, Any] = {
        "kept": lambda: generator.sample(n, seed=0, pool=entries).torch(),
        "copy": lambda: target.copy_(source),
    }
    times = setting.turns(cases, limit_s=setting.budget.share(0.4, at_most=30), calls=3)
    share = median_ratio(times["copy"], times["kept"])
    rate = count / statistics.median(times["kept"]) / 1e9
    recorder.row("a kept pool", times["kept"], rate=rate, unit="GB/s", ratio=share, note=f"n {n:,}")
    return share
