"""Random inputs, and every way to compute the three pictures from them: torch, the engines, emulation."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from cgnrt import ops
from cgnrt.backends import backends_for, load_engine, supports
from cgnrt.plan import MECHANISMS, Mechanism
from cgnrt_export.emulation import emulate, layers_of
from cgnrt_export.inference import InferenceForm
from cgnrt_export.mechanism import CheckedMechanism

# Fastest first. Half-precision floats overflow where bfloat16 does not, and no CPU engine gains by them.
AUTO_PRECISIONS = ("bf16",)
_PRECISIONS = ("fp32", "bf16", "fp16")

Floats = NDArray[np.floating]
Pictures = dict[str, Floats]
_Module = TypeVar("_Module", bound=nn.Module)


@dataclass(frozen=True)
class Inputs:
    """One batch: inputs of each mechanism by name, and the rolls of foreground and background (n, 2, 2)."""

    mechanisms: Mapping[str, Mapping[str, Tensor]]
    rolls: NDArray[np.int32]


Run = Callable[[Sequence[Inputs]], list[Pictures]]


@dataclass(frozen=True)
class Runner:
    """One way to compute the three pictures of each batch.

    Attributes:
      precision: "fp32", "bf16" or "fp16".
      measured: the engine's name, or "emulated: ...".
      run: one mechanism after the other, so that one at a time is in memory; raises BackendError where an engine
        refuses a graph.
    """

    precision: str
    measured: str
    run: Run


def draw_inputs(
    mechanisms: Mapping[str, CheckedMechanism],
    batch_sizes: Sequence[int],
    seed: int,
    truncation: tuple[float, float] | None = None,
) -> Iterator[Inputs]:
    """Random noise, rolls and truncation; each mechanism's classes in an order of its own, all in turn.

    Every sample has a truncation of its own; the first has the largest one of the interval, the last the smallest.
    """
    generator = np.random.default_rng(seed)
    total = sum(batch_sizes)
    h, w = mechanisms["shape"].resolution
    labels = {
        name: np.concatenate(
            [generator.permutation(len(m.classes)) for _ in range(-(-total // len(m.classes)))]
        )[:total]
        for name, m in mechanisms.items()
    }
    start = 0
    for n in batch_sizes:
        inputs = {}
        for name, mechanism in mechanisms.items():
            noise = generator.standard_normal((n, mechanism.noise_size))
            while mechanism.noise_distribution == "truncated_normal" and (outside := np.abs(noise) > 2).any():
                noise[outside] = generator.standard_normal(int(outside.sum()))
            given = {
                "noise": torch.from_numpy(noise.astype(np.float32)),
                "class_embedding": mechanism.embedding[torch.from_numpy(labels[name][start : start + n])],
            }
            if truncation is not None:
                drawn = generator.uniform(*truncation, (n, 1))
                if start + n == total:
                    drawn[-1] = truncation[0]
                if start == 0:
                    drawn[0] = truncation[1]
                factor = torch.from_numpy(drawn.astype(np.float32))
                given |= {"noise": given["noise"] * factor, "truncation": factor}
            inputs[name] = given
        rolls = generator.integers(0, (h, w), (n, 2, 2)).astype(np.int32)
        for position, name in enumerate(("texture", "background")):
            if not mechanisms[name].roll:
                rolls[:, position] = 0
        yield Inputs(inputs, rolls)
        start += n


def composite(pictures: Pictures, rolls: NDArray[np.int32]) -> Floats:
    """The composer's picture of a batch (Eq. 2), as the runtime computes it; float32 (n, 3, h, w)."""
    parts = (np.ascontiguousarray(pictures[name], np.float32) for name in MECHANISMS)
    return np.asarray(ops.compose(*parts, rolls=rolls))


def composite_float64(pictures: Pictures, rolls: NDArray[np.int32]) -> Floats:
    """The same in float64 arithmetic of NumPy's."""
    mask = pictures["shape"]
    composed: Floats = mask * _rolled(pictures["texture"], rolls[:, 0])
    composed += (1 - mask) * _rolled(pictures["background"], rolls[:, 1])
    return composed


def _rolled(pictures: Floats, shifts: NDArray[np.int32]) -> Floats:
    return np.stack([np.roll(p, shift, (1, 2)) for p, shift in zip(pictures, shifts.tolist(), strict=True)])


# A sample of more pixels takes seconds and a gigabyte, not milliseconds.
_LARGE = 128 * 128
_LARGE_BATCH_SIZES = (1, 3)


def is_large(resolution: tuple[int, int]) -> bool:
    """Whether pictures are too large for more than a few samples."""
    return resolution[0] * resolution[1] >= _LARGE


def choose_batch_sizes(
    asked: Sequence[int] | None, usual: Sequence[int], resolution: tuple[int, int], classes: int
) -> tuple[int, ...]:
    """What was asked for, or as many samples as the size of the pictures allows; all classes if they are small."""
    if asked is None:
        asked = _LARGE_BATCH_SIZES if is_large(resolution) else usual
    return tuple(asked) if is_large(resolution) else cover(asked, classes)


def cover(batch_sizes: Sequence[int], classes: int) -> tuple[int, ...]:
    """The batch sizes, the last repeated until there is a sample for each class, for 256 of them at most."""
    sizes = list(batch_sizes)
    while sum(sizes) < min(classes, 256):
        sizes.append(sizes[-1])
    return tuple(sizes)


def runners(
    networks: Mapping[str, Mechanism], forms: Mapping[str, InferenceForm], asked: str
) -> Iterator[Runner]:
    """Every installed engine at every precision that it has on this machine, fp32 first.

    A precision that no engine has here is emulated with the inference forms in torch, if it may become the plan's
    default: `auto` considers it, or it is the one `asked` for. bfloat16 is emulated as engines have it: operands of
    layers rounded, sums in float32. (In torch itself it is two hundred times slower where the processor lacks it.)
    """
    for precision in _PRECISIONS:
        native = _engines(networks, precision)
        for name in native:
            yield _engine_runner(networks, name, precision)
        if not native and (precision == asked or precision in AUTO_PRECISIONS):
            if precision == "bf16":
                yield Runner(
                    precision,
                    "emulated: bfloat16 layers",
                    functools.partial(_run_emulated, forms, _bf16, torch.float32),
                )
            else:
                yield Runner(
                    precision,
                    "emulated: torch float16",
                    functools.partial(_run_emulated, forms, _fp16, torch.float16),
                )


def fp32_engines(networks: Mapping[str, Mechanism]) -> Iterator[Runner]:
    """Every installed engine in fp32."""
    for name in _engines(networks, "fp32"):
        yield _engine_runner(networks, name, "fp32")


def _engines(networks: Mapping[str, Mechanism], precision: str) -> list[str]:
    names = [entry.name for entry in backends_for("cpu")]
    return [name for name in names if supports(name, precision, networks=list(networks.values()))]


def _engine_runner(networks: Mapping[str, Mechanism], name: str, precision: str) -> Runner:
    return Runner(precision, name, functools.partial(_run_engines, networks, name, precision))


def _run_engines(
    networks: Mapping[str, Mechanism], backend: str, precision: str, batches: Sequence[Inputs]
) -> list[Pictures]:
    pictures: list[Pictures] = [{} for _ in batches]
    for name, mechanism in networks.items():
        engine = load_engine(mechanism, backend=backend, precision=precision)
        output = mechanism.spec.outputs[0].name
        for found, inputs in zip(pictures, batches, strict=True):
            # A copy: what an engine gives is its own, until its next run.
            found[name] = engine.run(_numpy(inputs.mechanisms[name]))[output].copy()
        del engine
    return pictures


def _run_emulated(
    forms: Mapping[str, InferenceForm],
    convert: Callable[[fx.GraphModule], nn.Module],
    dtype: torch.dtype,
    batches: Sequence[Inputs],
) -> list[Pictures]:
    return run_in_turn({name: form.module for name, form in forms.items()}, convert, batches, dtype)


def _bf16(module: fx.GraphModule) -> nn.Module:
    return emulate(module, dict.fromkeys(layers_of(module), "bf16"))


def _fp16(module: fx.GraphModule) -> nn.Module:
    return copy.deepcopy(module).half()


def _numpy(tensors: Mapping[str, Tensor]) -> dict[str, NDArray[np.float32]]:
    return {name: tensor.numpy() for name, tensor in tensors.items()}


def run_in_turn(
    modules: Mapping[str, _Module],
    convert: Callable[[_Module], nn.Module],
    batches: Sequence[Inputs],
    dtype: torch.dtype,
) -> list[Pictures]:
    """The pictures of each batch by converted copies of modules, one copy at a time."""
    pictures: list[Pictures] = [{} for _ in batches]
    for name, module in modules.items():
        converted = {name: convert(module)}
        for found, inputs in zip(pictures, batches, strict=True):
            found |= run_torch(converted, inputs, dtype)
    return pictures


def run_torch(modules: Mapping[str, nn.Module], inputs: Inputs, dtype: torch.dtype) -> Pictures:
    """The pictures by torch modules of this dtype; float64 from float64, else float32."""
    result = torch.float64 if dtype is torch.float64 else torch.float32
    with torch.no_grad():
        return {
            name: module(*(value.to(dtype) for value in inputs.mechanisms[name].values())).to(result).numpy()
            for name, module in modules.items()
        }
