"""The torch backend on the CPU: against the networks as trained in eager torch, and against the native engine.

- MNIST CGN, random weights: `gen.sample(800)` against the three networks and the composer, batch 100;
- ImageNet CGN, 128 px, calibrated random weights, batch 4: `gen.sample(4)` against (b) of bench/imagenet.py, the three
  BigGANs of pytorch-pretrained-biggan and the one U2-Net that an image needs. Its export comes first, for minutes;
  --checkpoint and --plan take finished files;
- U2-Net-p of full size, 320 px, random weights: the largest difference of its masks to the module's, and its time.

All in float32, in turns, medians of ratios within a round.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
from pathlib import Path
from typing import Any

import imagenet
import numpy as np
import torch
from generator import BATCH, eager_process
from generator import prepare as prepare_mnist
from imagenet_peers import Peers
from report import median_ratio, print_table, summary, time_in_turns, write_json
from torch import nn

from cgnrt import Generator
from cgnrt.backends import load_engine
from cgnrt.plan import SaliencyPlan
from cgnrt_export import export_saliency
from cgnrt_training.imagenet.checkpoints import load_cgn
from cgnrt_training.imagenet.u2net import SMALL, U2Net

SECTIONS = ("mnist", "imagenet", "u2net")
IMAGES = {"mnist": 800, "imagenet": 4}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", type=Path, help="a cgn.pth; calibrated random weights otherwise")
    parser.add_argument("--plan", type=Path, help="the plan made from it; exported anew otherwise")
    parser.add_argument("--resolution", type=int, default=128, help="of random weights (128)")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=SECTIONS, help="some of the three")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path, help="where to write the result")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows: list[dict[str, Any]] = []
        masks: list[dict[str, Any]] = []
        if "mnist" in arguments.only:
            rows += mnist(folder, arguments.rounds)
        if "imagenet" in arguments.only:
            rows += natural(*imagenet.prepare(folder, arguments), arguments.rounds)
        if "u2net" in arguments.only:
            masks = u2net(folder, arguments.rounds)
    for title, found in (("Counterfactuals on the CPU", rows), ("U2-Net-p, a photo of 320 px", masks)):
        if found:
            print_table(title, found)
    write_json("torch_backend", {"rounds": arguments.rounds, "rows": rows, "masks": masks}, arguments.json)


def mnist(folder: Path, rounds: int) -> list[dict[str, Any]]:
    plan, checkpoint = prepare_mnist(folder, None)
    with eager_process(checkpoint) as eager:
        cases = {"eager": (eager, BATCH), **samplers(plan, IMAGES["mnist"])}
        times = time_in_turns({name: call for name, (call, _) in cases.items()}, rounds=rounds)
    return table("MNIST", times, {name: count for name, (_, count) in cases.items()})


def natural(checkpoint: Path, plan: Path, rounds: int) -> list[dict[str, Any]]:
    peers, n = Peers(load_cgn(checkpoint).eval()), IMAGES["imagenet"]
    cases = {"eager": (lambda: peers.needed(n), n), **samplers(plan, n)}
    times = time_in_turns({name: call for name, (call, _) in cases.items()}, rounds=rounds, warmup=1)
    return table("ImageNet", times, {name: count for name, (_, count) in cases.items()})


def samplers(plan: Path, n: int) -> dict[str, Any]:
    """A call of each backend for n new samples, and n."""
    starts = itertools.count(0, n)
    found = {}
    for backend in ("torch", "native"):
        gen = Generator(plan, backend=backend, device="cpu", precision="fp32")
        found[backend] = (lambda gen=gen: gen.sample(n, seed=0, start=next(starts)), n)
    return found


def table(network: str, times: dict[str, list[float]], count: dict[str, int]) -> list[dict[str, Any]]:
    each = {name: [t / count[name] for t in seconds] for name, seconds in times.items()}
    return [
        {
            "network": network,
            "by": name,
            "ms an image": summary(seconds)["median_ms"],
            "x eager": median_ratio(each["eager"], seconds),
        }
        for name, seconds in each.items()
    ]


def u2net(folder: Path, rounds: int) -> list[dict[str, Any]]:
    torch.manual_seed(0)
    model = U2Net(SMALL)
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d):  # as after a training
            nn.init.uniform_(part.weight, 0.7, 1.3)
            nn.init.normal_(part.bias, std=0.2)
            part.running_mean.normal_(std=0.2)
            part.running_var.uniform_(0.1, 0.3)  # so small that masks are not flat
    model.eval()
    path = folder / "u2netp.plan"
    export_saliency(path, model, family="u2netp", stretch=False)
    with SaliencyPlan.open(path) as plan:
        size = plan.manifest.resolution
        photos = np.random.default_rng(0).random((1, 3, *size), dtype=np.float32)
        engines = {
            name: load_engine(plan.network, backend=name, precision="fp32") for name in ("torch", "native")
        }
        masks = {name: np.array(engine.run({"image": photos})["mask"]) for name, engine in engines.items()}
        cases = {
            name: lambda engine=engine: engine.run({"image": photos}) for name, engine in engines.items()
        }
        times = time_in_turns(cases, rounds=rounds)
    with torch.no_grad():
        trained = model(torch.from_numpy(photos)).numpy()
    return [
        {
            "by": name,
            "ms": summary(seconds)["median_ms"],
            "largest difference to torch as trained": float(np.abs(masks[name] - trained).max()),
            "mask": f"{masks[name].min():.2f} to {masks[name].max():.2f}",
        }
        for name, seconds in times.items()
    ]


if __name__ == "__main__":
    main()
