"""MNIST counterfactuals on a card, every image new, against the eager loop on the same card."""

from __future__ import annotations

import statistics
from collections.abc import Callable

import torch
from generator import eager_batch, random_cgn
from gpu_contenders import FORM, Contender, best_of_ours, opened
from gpu_model import psnr
from gpu_results import Recorder
from gpu_setting import Setting, tf32
from report import ROOT, median_ratio

from cgnrt_training.mnist.models import CGN, compose

PLAN = ROOT / "plans" / "double-colored.plan"


def measure_mnist(setting: Setting, recorder: Recorder) -> None:
    """The loop: three networks as trained, once an image, batch 100, no_grad, images left on the card."""
    cgn = random_cgn(8 if setting.dry else 256).to(setting.device)
    torch.backends.cudnn.benchmark = True
    peers = {f"eager loop, batch {n}": (eager_batch(cgn, n), n) for n in setting.sizes.mnist_eager}
    (loop, batch) = next(iter(peers.values()))
    peers[f"the authors' loop, batch {batch}"] = (authors_loop(cgn, batch), batch)
    with tf32(True):
        for name, (call, n) in peers.items():
            times = setting.turns({"call": call}, limit_s=10, calls=3)["call"]
            recorder.row(name, times, rate=n / statistics.median(times), unit="images/s")
    truths: dict[str, torch.Tensor] = {}

    def decibels(contender: Contender) -> float:
        """To the same engine's float32, whose turn is first."""
        images = contender.generator.sample(setting.sizes.mnist_parity, seed=1).torch().images
        return psnr(images, truths.setdefault(contender.engine, images))

    sizes = setting.sizes.mnist_batches
    order = sorted(setting.precisions, key=lambda precision: precision != "fp32")
    choice = best_of_ours(setting, recorder, PLAN, sizes, decibels, precisions=order, counting=order)
    ours = opened(setting, PLAN, choice.engine, choice.precision, **FORM)
    new = ours.new()
    with tf32(True):
        times = setting.turns(
            {"ours": lambda: new(choice.batch), "loop": loop},
            limit_s=setting.budget.share(0.5, at_most=30),
            calls=3,
        )
    ratio = median_ratio(times["loop"], times["ours"]) * choice.batch / batch
    note = f"{ours.name}, batch {choice.batch}; the loop at batch {batch}"
    recorder.row("ours in turn with the loop", times["ours"], ratio=ratio, note=note)
    recorder.result("mnist", ratio, note)


def authors_loop(cgn: CGN, n: int) -> Callable[[], object]:
    """As the authors' script: masks of one pass, the rest of a second, gradients on, images to the host."""
    device = cgn.label_emb.weight.device

    def labels() -> torch.Tensor:
        return torch.randint(10, (n,), device=device)

    def run() -> object:
        shapes = labels()
        masks = cgn(shapes).mask
        parts = cgn(shapes, labels(), labels())
        return compose(parts._replace(mask=masks)).detach().cpu()

    return run
