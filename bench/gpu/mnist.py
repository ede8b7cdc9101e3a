"""MNIST counterfactuals, every image new: the eager networks, and our rewritten form in large batches."""

from __future__ import annotations

import torch
from gpu.networks import Case, Family, Inputs, Truth, cases_of, compiled, rewritten
from gpu.results import NotRunError, Recorder
from gpu.setting import Setting, tf32
from report import median_ratio
from torch import Tensor

from cgnrt_export.readers import mnist_mechanisms
from cgnrt_training.mnist.models import CGN, compose

CLASSES = [str(digit) for digit in range(10)]


def measure_mnist(setting: Setting, recorder: Recorder) -> None:
    """Images a second at batch 4,096 against the three networks as trained, eagerly, at batch 100."""
    cgn = random_cgn(setting.sizes.mnist_samples)
    family = Family(
        mnist_mechanisms(cgn, dict.fromkeys(("shape", "texture", "background"), CLASSES)), cgn.resolution
    )
    modules, _ = rewritten(family, setting.device)
    n, few = setting.sizes.mnist_batch, setting.sizes.mnist_eager
    inputs = Inputs(family, n, setting.device)
    variants = {"eager": modules, "compiled": compiled(setting, recorder, "compiled", modules, inputs)}
    setting.wait_for_turn(recorder)
    torch.backends.cudnn.benchmark = True
    truth = Truth(setting, family, inputs, setting.sizes.parity)
    cgn = cgn.to(setting.device)
    counts = {f"networks as trained, eager, batch {size}": size for size in (few, n)}
    cases: dict[str, Case] = {name: as_trained(cgn, size) for name, size in counts.items()}
    found = cases_of(
        setting, recorder, f"rewritten fp16, batch {n}", variants, inputs, family.size, truth.decibels
    )
    times = setting.turns(cases | found, limit_s=setting.budget.share(0.5, at_most=20), calls=3)
    each = {name: [t / counts.get(name, n) for t in seconds] for name, seconds in times.items()}
    eager, *_ = each.values()
    ratios = {name: median_ratio(eager, seconds) for name, seconds in each.items()}
    for name, seconds in times.items():
        recorder.row(name, seconds, count=counts.get(name, n), ratio=ratios[name])
    graphs = [name for name in found if "graph" in name]
    if not graphs:
        raise NotRunError("none of its graphs can be run; its rows say why")
    best = max(graphs, key=lambda name: ratios[name])
    recorder.result("mnist", ratios[best], best)


def random_cgn(samples: int) -> CGN:
    """Random weights, and the batch-norm statistics of a net that has seen data; on the CPU."""
    torch.manual_seed(0)
    cgn = CGN().train()
    with torch.no_grad():
        for _ in range(10):
            cgn(torch.randint(10, (samples,)))
    return cgn.eval()


def as_trained(cgn: CGN, n: int) -> Case:
    """A batch as PyTorch users make it, on the CGN's device."""
    device = cgn.label_emb.weight.device

    def call() -> Tensor:
        with torch.no_grad(), tf32(True):
            return compose(cgn(*torch.randint(10, (3, n), device=device)))

    return call
