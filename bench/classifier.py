"""A classifier's training step with counterfactuals streamed, against the same tensors already in memory.

Three networks: our CNN of Table 2 (1.7 MMAC an image forward), the CNN of the CGN's authors (8.4) and CIFAR's ResNet-20
(41), batch 128, of which half or two thirds (as in Table 2) are counterfactuals, the rest real images made on the fly
by the same background thread. A round times every case for as many steps as a pool serves, so that building it is part
of the time; the cases take turns.
"""

from __future__ import annotations

import argparse
import itertools
import os
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
import torch.nn.functional as F
from report import ROOT, median_ratio, print_table, summary, write_json
from torch import Tensor, nn

from cgnrt import Generator
from cgnrt._support.prefetch import Prefetch
from cgnrt._support.terminal import progress_bar
from cgnrt_training.classifier.model import Classifier
from cgnrt_training.classifier.sources import Batches, Counterfactuals, RealImages, StepBatch
from cgnrt_training.mnist.data import VariantMnist

BATCH = 128
WARM = 4  # steps before the clock starts


class Residual(nn.Module):
    """Two convolutions beside a shortcut (He et al., 2016)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.stride, self.grow = stride, outputs - inputs
        self.branch = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Shortcut without weights: strided, with zeros for the new channels."""
        shortcut = x[:, :, :: self.stride, :: self.stride]
        if self.grow:
            shortcut = F.pad(shortcut, (0, 0, 0, 0, self.grow // 2, self.grow // 2))
        return torch.relu(self.branch(x) + shortcut)


def resnet20() -> nn.Module:
    """ResNet-20 for 32 x 32 pictures: three stages of three blocks, 16, 32, 64 channels."""
    layers: list[nn.Module] = [
        nn.Conv2d(3, 16, 3, 1, 1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(inplace=True),
    ]
    inputs = 16
    for outputs in (16, 32, 64):
        for block in range(3):
            layers.append(Residual(inputs, outputs, 2 if block == 0 and outputs > 16 else 1))
            inputs = outputs
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)]
    return nn.Sequential(*layers).to(memory_format=torch.channels_last)


def authors_cnn() -> nn.Module:
    """What the CGN's authors train on their counterfactuals: 67,760 parameters."""
    layers = [
        nn.BatchNorm2d(3),
        nn.Conv2d(3, 32, 5, padding=2),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 2, 1),
        nn.Conv2d(32, 32, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(32, 64, 3, 2, 1),
        nn.ReLU(inplace=True),
        nn.Conv2d(64, 64, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.AvgPool2d(7),
        nn.Flatten(),
        nn.Linear(64, 10),
    ]
    return nn.Sequential(*layers).to(memory_format=torch.channels_last)


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "cnn": Classifier,
    "cgn-authors": authors_cnn,
    "resnet-20": resnet20,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--plan", type=Path, default=ROOT / "plans" / "double-colored.plan")
    parser.add_argument("--data", type=Path, required=True, help="the MNIST IDX files")
    parser.add_argument("--variant", default="double-colored")
    parser.add_argument("--textures", type=Path, help="for wildlife")
    parser.add_argument(
        "--threads", type=int, nargs="+", default=[1], help="of torch; the stream has one of its own"
    )
    parser.add_argument("--reuse", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--networks", nargs="+", choices=tuple(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument(
        "--steps", type=int, default=64, help="steps a case and round; a quarter for resnet-20"
    )
    parser.add_argument("--json", type=Path, help="where to write the result")
    arguments = parser.parse_args()

    data = VariantMnist(arguments.variant, arguments.data, textures=arguments.textures)
    cases = [
        (threads, network, count)
        for threads in arguments.threads
        for network in arguments.networks
        for count in (BATCH // 2, BATCH * 2 // 3)
    ]
    rows = []
    with progress_bar(len(cases) * arguments.rounds, unit="round") as bar:
        for threads, network, count in cases:
            torch.set_num_threads(threads)
            steps = arguments.steps if network == "cnn" else max(8, arguments.steps // 4)
            times = measure(
                NETWORKS[network](),
                arguments.plan,
                data,
                count,
                steps,
                arguments.reuse,
                arguments.rounds,
                bar,
            )
            rows += [
                {
                    "network": network,
                    "torch threads": threads,
                    "counterfactuals": f"{count} of {BATCH}",
                    "case": name,
                    **summary(seconds),
                    "to memory": median_ratio(seconds, times["memory"]),
                }
                for name, seconds in times.items()
            ]
    print_table(
        "A training step, ms, and its ratio to tensors in memory (median of ratios within a round)", rows
    )
    write_json(
        "classifier",
        {"variant": arguments.variant, "rounds": arguments.rounds, "steps": arguments.steps, "rows": rows},
        arguments.json,
    )


def measure(
    model: nn.Module,
    plan: Path,
    data: VariantMnist,
    count: int,
    steps: int,
    reuses: Iterable[int],
    rounds: int,
    bar: Any,
) -> dict[str, list[float]]:
    """Seconds a step, by case and round."""
    optimizer = torch.optim.Adam(model.parameters(), 1e-3, fused=True)
    generator = Generator(plan, threads=1)
    kept = list(map(batches(generator, data, count, steps, 1, seed=0), range(16)))

    def step(batch: StepBatch) -> None:
        loss = F.cross_entropy(model(batch.images), batch.labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    def seconds(found: Iterator[StepBatch]) -> float:
        for _ in range(WARM):
            step(next(found))
        begin = time.perf_counter()
        for _ in range(steps):
            step(next(found))
        return (time.perf_counter() - begin) / steps

    times: dict[str, list[float]] = {"memory": []} | {f"streamed, reuse {reuse}": [] for reuse in reuses}
    for turn in range(rounds + 1):  # the first warms up
        found = {"memory": seconds(kept[k % len(kept)] for k in range(WARM + steps))}
        for reuse in reuses:
            make = batches(generator, data, count, steps, reuse, seed=turn + 1)
            # The queue is as full at the end as at the start, so that the time is that of a long run.
            with Prefetch(map(make, itertools.count()), depth=16) as stream:
                found[f"streamed, reuse {reuse}"] = seconds(stream)
        if turn:
            for name, value in found.items():
                times[name].append(value)
            bar.update()
    return times


def batches(
    generator: Generator, data: VariantMnist, count: int, steps: int, reuse: int, seed: int
) -> Batches:
    """Real images and counterfactuals; with a pool, one that serves as many steps as are timed."""
    stream = Counterfactuals(
        generator,
        size=10**9,
        draws=10**6,
        reuse=reuse,
        entries=max(1, count * steps // reuse),
        seed=seed,
    )
    return Batches([(RealImages(data, seed), BATCH - count), (stream, count)])


if __name__ == "__main__":
    main()
