"""A ResNet-50's training step with half of each batch streamed, against the same from tensors on the device."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F
from gpu.networks import Inputs
from gpu.results import Recorder
from gpu.setting import Setting
from report import median_ratio
from torch import Tensor, nn

from cgnrt import ops

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
RESIDENT = 4  # different batches that the peer takes in turn
STAGES = (3, 4, 6, 3)
CLASSES = 1000
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


def measure_training(
    setting: Setting, recorder: Recorder, inputs: Inputs, pictures: Callable[[], Sequence[Tensor]], size: int
) -> None:
    """Seconds a step of both, in turn. Building the pool is in the time of the stream.

    Args:
      pictures: masks, foregrounds and backgrounds of `inputs`, at the same addresses each time.
      size: height and width of the pictures.
    """
    torch.backends.cudnn.benchmark = True
    n, steps, reuse = setting.sizes.train_batch, setting.sizes.train_steps, setting.sizes.reuse
    draw = torch.Generator(setting.device).manual_seed(0)

    def images(count: int) -> Step:
        pixels = torch.randn(count, 3, size, size, device=setting.device, generator=draw)
        labels = torch.randint(CLASSES, (count,), device=setting.device, generator=draw)
        return pixels.bfloat16().contiguous(memory_format=torch.channels_last), labels

    step = training_step(resnet50(CLASSES, setting.sizes.width).to(setting.device))
    resident = itertools.cycle([images(n) for _ in range(RESIDENT)])
    real = itertools.cycle([images(n - n // 2) for _ in range(RESIDENT)])
    stream = Streamed(setting, inputs, pictures, size, count=n // 2)

    def run(batches: Iterator[Step]) -> None:
        for batch in itertools.islice(batches, steps):
            step(batch)

    cases: dict[str, Callable[[], object]] = {
        "on the device": lambda: run(resident),
        f"streamed, reuse {reuse}": lambda: run(stream.batches(real, entries=n // 2 * steps // reuse)),
    }
    times = setting.turns(cases, limit_s=setting.budget.share(0.7, at_most=30), warmup=1, rounds=7)
    here = times["on the device"]
    for name, seconds in times.items():
        each = [value / steps for value in seconds]
        recorder.row(f"ResNet-50 step, {name}", each, count=n, ratio=median_ratio(seconds, here))
    note = f"reuse {reuse}, {n // 2} of {n} images streamed, bf16 by autocast"
    recorder.result("training", median_ratio(times[f"streamed, reuse {reuse}"], here), note)


class Streamed:
    """Counterfactuals composed from a pool that the networks fill, in the form in which the classifier takes them."""

    def __init__(
        self,
        setting: Setting,
        inputs: Inputs,
        pictures: Callable[[], Sequence[Tensor]],
        size: int,
        *,
        count: int,
    ) -> None:
        self._setting, self._inputs, self._pictures = setting, inputs, pictures
        self._out = torch.zeros(count, size, size, 3, dtype=torch.bfloat16, device=setting.device)
        mean, std = torch.tensor(IMAGENET).double()
        self._form = {
            "dtype": "bfloat16",
            "layout": "NHWC",
            "scale": (0.5 / std).tolist(),
            "bias": ((0.5 - mean) / std).tolist(),
            "clamp": (-1.0, 1.0),
        }

    def batches(self, real: Iterator[Step], entries: int) -> Iterator[Step]:
        """Batches of real images and counterfactuals, of a new pool with so many entries for each mechanism."""
        pools = self._pools(max(1, entries))
        for images, labels in real:
            count = len(self._out)
            index = torch.randint(len(pools[0]), (count, 3), dtype=torch.int32, device=self._setting.device)
            ops.compose(*pools, index, out=self._out, stream=self._setting.stream, **self._form)
            made = torch.randint(CLASSES, (count,), device=self._setting.device)
            yield torch.cat([images, self._out.permute(0, 3, 1, 2)]), torch.cat([labels, made])

    def _pools(self, entries: int) -> list[Tensor]:
        parts: list[list[Tensor]] = [[], [], []]
        for _ in range(-(-entries // self._inputs.n)):
            self._inputs.draw()
            for part, picture in zip(parts, self._pictures(), strict=True):
                part.append(picture.clone(memory_format=torch.contiguous_format))
        return [torch.cat(part) for part in parts]


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
