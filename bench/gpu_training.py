"""A ResNet-50's training step with half of each batch streamed, against the same from tensors on the device."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from gpu_contenders import chosen
from gpu_model import ready
from gpu_results import Recorder
from gpu_setting import Setting
from report import median_ratio
from torch import Tensor, nn

from cgnrt import Generator

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
RESIDENT = 4  # different batches that the peer takes in turn
STAGES = (3, 4, 6, 3)
POOLS = 2  # of a timed run
Step = tuple[Tensor, Tensor]  # images (n, 3, h, w), channels last, and labels (n,)


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions beside a shortcut (He et al., 2016); the stride is in the 3x3."""

    def __init__(self, inputs: int, inner: int, stride: int) -> None:
        super().__init__()
        outputs = 4 * inner
        self.branch = nn.Sequential(
            *(nn.Conv2d(inputs, inner, 1, bias=False), nn.BatchNorm2d(inner), nn.ReLU(inplace=True)),
            nn.Conv2d(inner, inner, 3, stride, 1, bias=False),
            *(nn.BatchNorm2d(inner), nn.ReLU(inplace=True)),
            *(nn.Conv2d(inner, outputs, 1, bias=False), nn.BatchNorm2d(outputs)),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or inputs != outputs:
            shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.shortcut = nn.Sequential(shortcut, nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.branch(x) + self.shortcut(x))


def resnet50(classes: int, width: int = 64) -> nn.Module:
    """ResNet-50: 25.6 million parameters at 1,000 classes."""
    layers: list[nn.Module] = [
        nn.Conv2d(3, width, 7, 2, 3, bias=False),
        *(nn.BatchNorm2d(width), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)),
    ]
    inputs = width
    for stage, blocks in enumerate(STAGES):
        inner = width << stage
        for block in range(blocks):
            layers.append(Bottleneck(inputs, inner, 2 if stage and not block else 1))
            inputs = 4 * inner
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, classes)]
    return nn.Sequential(*layers).to(memory_format=torch.channels_last)


def measure_training(setting: Setting, recorder: Recorder) -> None:
    """Seconds a step of both, in turn.

    A timed run of the stream takes new pools, from the first batch on, so that building every pool is in its time.
    """
    model = ready(setting)
    ours, _ = chosen(setting, model.plan, dtype="bfloat16", layout="NHWC", normalize=IMAGENET)
    height, width = ours.generator.resolution
    torch.backends.cudnn.benchmark = True
    size, steps = setting.sizes.train_batch, setting.sizes.train_steps
    classes = len(ours.generator.classes["shape"])
    draw = torch.Generator(setting.device).manual_seed(0)

    def images(n: int) -> Step:
        pixels = torch.randn(n, 3, height, width, device=setting.device, generator=draw)
        labels = torch.randint(classes, (n,), device=setting.device, generator=draw)
        return pixels.bfloat16().contiguous(memory_format=torch.channels_last), labels

    step = training_step(resnet50(classes, setting.sizes.width).to(setting.device))
    resident = itertools.cycle([images(size) for _ in range(RESIDENT)])
    real = itertools.cycle([images(size - size // 2) for _ in range(RESIDENT)])
    seeds = itertools.count(1)

    def run(batches: Iterator[Step]) -> None:
        for batch in itertools.islice(batches, steps):
            step(batch)

    cases: dict[str, Callable[[], object]] = {"on the device": lambda: run(resident)}
    for reuse in setting.sizes.train_reuse:
        entries = max(1, size // 2 * steps // reuse // POOLS)
        cases[f"streamed, reuse {reuse}"] = lambda entries=entries: run(
            mixed(real, ours.generator, size // 2, entries, steps // POOLS, seeds)
        )
    times = setting.turns(cases, limit_s=setting.budget.share(0.7, at_most=240), warmup=1, rounds=7)
    for name, seconds in times.items():
        rate = size * steps / statistics.median(seconds)
        each = [value / steps for value in seconds]
        ratio = median_ratio(seconds, times["on the device"])
        recorder.row(f"a step, {name}", each, rate=rate, unit="images/s", ratio=ratio)
    reuse = setting.sizes.train_reuse[0]
    slower = median_ratio(times[f"streamed, reuse {reuse}"], times["on the device"])
    note = f"{ours.name}, reuse {reuse}, {size // 2} of {size} images, {POOLS} pools a run"
    recorder.result("training", slower, note)


def mixed(
    real: Iterator[Step], generator: Generator, count: int, entries: int, steps: int, seeds: Iterator[int]
) -> Iterator[Step]:
    """Batches of real images on the device and `count` counterfactuals; a new pool after so many steps."""
    for seed in seeds:
        for batch in generator.batches(count * steps, count, seed, pool=entries):
            shared = batch.torch()
            images, labels = next(real)
            whole = (
                torch.cat([images, shared.images.permute(0, 3, 1, 2)]),
                torch.cat([labels, shared.labels.shape]),
            )
            # The generator's stream waits for what ours was given when memory goes back: the copy, not the step.
            del batch, shared
            yield whole


def training_step(model: nn.Module) -> Callable[[Step], None]:
    """SGD with momentum, bfloat16 by autocast."""
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)

    def step(batch: Step) -> None:
        images, labels = batch
        with torch.autocast(images.device.type, dtype=torch.bfloat16):
            loss = F.cross_entropy(model(images), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step
