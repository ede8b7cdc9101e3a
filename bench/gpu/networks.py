"""Three networks and what feeds them: run eagerly, as a CUDA graph or compiled, and compared with float32."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from gpu.results import NotRunError, Recorder, first_line, time_limit
from gpu.setting import Setting, tf32
from torch import Tensor, nn

from cgnrt_export.graph import EXAMPLE_BATCH, tidy, trace
from cgnrt_export.half import with_half_pictures
from cgnrt_export.inference import inference_form
from cgnrt_export.mechanism import MechanismModule
from cgnrt_export.rewrites import fold_constants, remove_no_ops

ORDER = ("shape", "texture", "background")
COMPILE_S = 170  # the three networks of a batch size
Case = Callable[[], Tensor]


@dataclass(frozen=True, eq=False)
class Family:
    """A CGN's mechanisms as they were trained, on the CPU, and how they are sampled.

    Attributes:
      size: height and width of the pictures.
      truncation: None: the family has no truncation, and each mechanism has noise of its own, else they share it.
    """

    mechanisms: Mapping[str, MechanismModule]
    size: int
    truncation: float | None = None

    def example(self) -> dict[str, Tensor]:
        """Inputs for tracing."""
        first = self.mechanisms["shape"]
        found = {
            "noise": torch.randn(EXAMPLE_BATCH, first.noise_size).clamp(-2, 2),
            "class_embedding": table_of(first)[:1].expand(EXAMPLE_BATCH, -1).clone(),
        }
        if self.truncation is not None:
            found["truncation"] = torch.full((EXAMPLE_BATCH, 1), self.truncation)
        return found


def table_of(mechanism: MechanismModule) -> Tensor:
    """Its class embeddings, a row each."""
    found = mechanism.embedding
    weight = found.weight if isinstance(found, nn.Embedding) else found
    return torch.as_tensor(weight).detach().float()


class Inputs:
    """What n counterfactuals are made from, at addresses that stay, so that a CUDA graph can read them."""

    def __init__(self, family: Family, n: int, device: torch.device) -> None:
        self._family = family
        self.n = n
        shared = family.truncation is not None
        z = family.mechanisms["shape"].noise_size
        self._noise = torch.zeros(1 if shared else len(ORDER), n, z, device=device)
        self._tables = [table_of(family.mechanisms[name]).to(device) for name in ORDER]
        self._embeddings = [torch.zeros(n, table.shape[1], device=device) for table in self._tables]
        self._truncation = [torch.full((n, 1), family.truncation, device=device)] if shared else []
        self.rolls: Tensor | None = None
        if any(mechanism.roll for mechanism in family.mechanisms.values()):
            self.rolls = torch.zeros(n, 2, 2, dtype=torch.int32, device=device)
        self.draw()

    def draw(self) -> None:
        """New noise, labels and rolls."""
        if self._truncation:
            nn.init.trunc_normal_(self._noise, a=-2, b=2)
            self._noise.mul_(self._family.truncation)
        else:
            self._noise.normal_()
        for table, embedding in zip(self._tables, self._embeddings, strict=True):
            labels = torch.randint(len(table), (self.n,), device=table.device)
            torch.index_select(table, 0, labels, out=embedding)
        if self.rolls is not None:
            self.rolls.random_(self._family.size)

    def of(self, name: str) -> tuple[Tensor, ...]:
        """A mechanism's arguments."""
        at = ORDER.index(name)
        return (self._noise[min(at, len(self._noise) - 1)], self._embeddings[at], *self._truncation)


class Networks:
    """The three networks on one batch's inputs."""

    def __init__(self, setting: Setting, inputs: Inputs, modules: Mapping[str, nn.Module], size: int) -> None:
        self._setting, self._inputs, self._modules = setting, inputs, modules
        self._out = torch.zeros(inputs.n, 3, size, size, dtype=torch.float16, device=setting.device)

    def pictures(self) -> tuple[Tensor, ...]:
        """Mask, foreground and background of the inputs as they are."""
        found = []
        with torch.no_grad():
            for name in ORDER:
                picture = self._modules[name](*self._inputs.of(name))
                found.append(picture[0] if isinstance(picture, tuple) else picture)
        return tuple(found)

    def images(self, pictures: Callable[[], Any]) -> Case:
        """New images in float16 at every call."""

        def call() -> Tensor:
            self._inputs.draw()
            return self.composed(pictures())

        return call

    def composed(self, pictures: tuple[Tensor, ...]) -> Tensor:
        found = [picture.float().contiguous() for picture in pictures]
        return self._setting.composed(*found, self._out, self._inputs.rolls)


class Halved(nn.Module):
    """A float16 module with float32 inputs and outputs."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module.half()

    def forward(self, *inputs: Tensor) -> Any:
        found = self.module(*(value.half() for value in inputs))
        return tuple(x.float() for x in found) if isinstance(found, tuple) else found.float()


@functools.cache
def needed(family: Family, device: torch.device) -> dict[str, nn.Module]:
    """The networks as they were trained, with spectral norm folded, in float16 throughout and channels last."""
    modules = {}
    for name, mechanism in family.mechanisms.items():
        traced = trace(mechanism.module, family.example())
        remove_no_ops(traced)
        fold_constants(traced)
        modules[name] = Halved(tidy(traced)).to(device, memory_format=torch.channels_last)
    return modules


@functools.cache
def rewritten(family: Family, device: torch.device) -> tuple[dict[str, nn.Module], int]:
    """Our inference forms in float16 with float32 vectors, channels last; and their multiply-adds for an image."""
    modules, macs = {}, 0
    for name, mechanism in family.mechanisms.items():
        form = inference_form(mechanism.module, family.example())
        macs += form.macs_after
        modules[name] = with_half_pictures(form.module).to(device, memory_format=torch.channels_last)
    return modules, macs


def compiled(
    setting: Setting, recorder: Recorder, what: str, modules: Mapping[str, nn.Module], inputs: Inputs
) -> dict[str, nn.Module] | None:
    """The networks through torch.compile, for the inputs' batch; None, with a row, where that fails."""
    begin = time.monotonic()
    try:
        with time_limit(COMPILE_S, "compiling"), torch.no_grad():
            found = {name: setting.compiled(module) for name, module in modules.items()}
            for name in ORDER:
                found[name](*inputs.of(name))
    except Exception as error:  # whatever its compilers raise: the other rows are still to come
        recorder.skipped(what, f"torch.compile: {first_line(error)}")
        return None
    recorder.row(f"{what}: compiling", seconds=time.monotonic() - begin)
    return found


def cases_of(
    setting: Setting,
    recorder: Recorder,
    what: str,
    variants: Mapping[str, Mapping[str, nn.Module] | None],
    inputs: Inputs,
    size: int,
    decibels: Callable[[Networks], float],
) -> dict[str, Case]:
    """What makes images, by name: each variant eagerly, and as a CUDA graph; what is too far from float32 is left out.

    Args:
      variants: modules by "eager" or "compiled".
    """
    cases: dict[str, Case] = {}
    for kind, modules in variants.items():
        if modules is None:
            continue
        networks = Networks(setting, inputs, modules, size)
        name = f"{what}, {kind}"
        try:
            level = decibels(networks)
            recorder.row(f"{name}: PSNR to float32", psnr_db=level)
            if level < setting.min_psnr:
                raise NotRunError(f"its images are less than {setting.min_psnr:g} dB from float32")
            if kind == "eager":
                cases[name] = networks.images(networks.pictures)
            cases[f"{name}, CUDA graph"] = networks.images(setting.captured(networks.pictures))
        except (NotRunError, RuntimeError) as error:
            recorder.skipped(name, first_line(error))
            setting.release()
    return cases


class Truth:
    """Images of the first of a batch's inputs by the trained modules in float32."""

    def __init__(self, setting: Setting, family: Family, inputs: Inputs, count: int) -> None:
        modules = {name: family.mechanisms[name].module.to(setting.device) for name in ORDER}
        self._count = min(count, inputs.n)
        found = []
        with torch.no_grad(), tf32(False):
            for name in ORDER:
                picture = modules[name](*(value[: self._count] for value in inputs.of(name)))
                found.append(picture[0] if isinstance(picture, tuple) else picture)
        self._images = _blend(found)

    def decibels(self, networks: Networks) -> float:
        """PSNR of the same images, before rolls."""
        found = _blend([picture[: self._count] for picture in networks.pictures()])
        return psnr(found, self._images)


def _blend(pictures: list[Tensor]) -> Tensor:
    mask, foreground, background = (picture.double() for picture in pictures)
    return mask * foreground + (1 - mask) * background


def psnr(found: Tensor, truth: Tensor) -> float:
    """Decibels for pictures in [-1, 1]; 0 if anything is NaN, 200 without an error."""
    error = float((found.double() - truth.double()).square().mean())
    if not math.isfinite(error):
        return 0.0
    return min(200.0, 10 * math.log10(4 / max(error, 1e-30)))
