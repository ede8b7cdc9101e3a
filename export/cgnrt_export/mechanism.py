"""A user's own torch modules as mechanisms, and the checks that they can be."""

from __future__ import annotations

import copy
import math
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from cgnrt._support.values import refuse_masked
from cgnrt.plan import MECHANISMS, PICTURES, PRE_MASK
from cgnrt.plan.names import alike
from cgnrt_export.causes import first_cause
from cgnrt_export.graph import EXAMPLE_BATCH

CHANNELS = {"shape": 1, "texture": 3, "background": 3}
# Of the width of a mechanism's range. Outputs may pass their range by rounding; a sample alone and in a batch
# differs by the order of sums, which normalisation layers amplify.
RANGE_TOLERANCE = 1e-4
BATCH_TOLERANCE = 1e-3


@dataclass(frozen=True)
class MechanismModule:
    """One mechanism of a CGN as a torch module (Sec. 3): f_shape, f_text or f_bg.

    Attributes:
      module: `forward(noise, class_embedding) -> picture`, with noise (n, noise_size), class_embedding (n, e)
        and the picture (n, 1, h, w) of the shape (a mask) or (n, 3, h, w), all float32 and for any n >= 1. A
        plan with truncation passes a third argument, truncation (n, 1). The shape's may return (mask, pre_mask),
        its picture before the saliency head of Fig. 2, (n, 1 or 3, h, w), too. Exported as it is in eval mode;
        never changed.
      embedding: (classes, e), the row that stands for each class; a tensor, an `nn.Embedding` or an array.
      classes: a unique name for each row of `embedding`.
      noise_size: z.
      noise_distribution: "normal", or "truncated_normal" on [-2, 2].
      range: of the picture's values; None is (0, 1) for the shape and (-1, 1) for the others.
      roll: whether the runtime rolls each picture by a random offset on a torus (the texture shuffle of Sec.
        3.1).
    """

    module: nn.Module
    embedding: Any
    classes: Sequence[str]
    noise_size: int
    noise_distribution: Literal["normal", "truncated_normal"] = "normal"
    range: tuple[float, float] | None = None
    roll: bool = False


@dataclass(frozen=True)
class CheckedMechanism:
    """A mechanism that passed: its own copy of the module on the CPU, float32, in eval mode."""

    name: str
    module: nn.Module
    embedding: Tensor  # (classes, e) float32
    classes: tuple[str, ...]
    noise_size: int
    noise_distribution: Literal["normal", "truncated_normal"]
    range: tuple[float, float]
    roll: bool
    resolution: tuple[int, int]
    example: Mapping[str, Tensor]  # inputs by name, in call order, EXAMPLE_BATCH rows
    outputs: Mapping[str, int]  # channels of each output by its name, in order, the picture first

    @property
    def picture(self) -> str:
        """The name of the graph's output."""
        return PICTURES[self.name]


def check_mechanisms(
    mechanisms: Mapping[str, MechanismModule], *, shared_noise: bool = False, truncation: float | None = None
) -> dict[str, CheckedMechanism]:
    """Check a user's mechanisms, alone and together, by what they say and by running them.

    Args:
      mechanisms: by name: shape, texture and background.
      shared_noise: whether all mechanisms take the same noise.
      truncation: the value to try the modules with, where the plan has truncation.
    Raises:
      TypeError, ValueError: the message names the mechanism, what it is and what is expected.
    """
    if sorted(mechanisms) != sorted(MECHANISMS):
        raise ValueError(
            f"export: mechanisms are {', '.join(map(repr, mechanisms)) or 'missing'}, expected exactly "
            f"{', '.join(map(repr, MECHANISMS))}."
        )
    checked = {name: _check(name, mechanisms[name], truncation) for name in MECHANISMS}
    if shared_noise and len({(m.noise_size, m.noise_distribution) for m in checked.values()}) > 1:
        found = ", ".join(f"{name} {m.noise_size} {m.noise_distribution}" for name, m in checked.items())
        raise ValueError(f"export: noise is {found}, expected one for all mechanisms, since it is shared.")
    sizes = {name: mechanism.resolution for name, mechanism in checked.items()}
    if len(set(sizes.values())) > 1:
        found = ", ".join(f"{name} {h} x {w}" for name, (h, w) in sizes.items())
        raise ValueError(f"export: resolution is {found}, expected one for all mechanisms.")
    if checked["texture"].range != checked["background"].range:
        raise ValueError(
            f"export: range is {checked['texture'].range} for the texture and {checked['background'].range} "
            "for the background, expected one for both. They are blended as they are."
        )
    return checked


def convert_module(module: nn.Module) -> nn.Module:
    """A copy of a module on the CPU, in float32 and eval mode."""
    return copy.deepcopy(module).cpu().float().eval().requires_grad_(False)


def _check(name: str, given: MechanismModule, truncation: float | None) -> CheckedMechanism:
    subject = f"export mechanism '{name}'"
    if not isinstance(given, MechanismModule):
        raise TypeError(f"{subject}: it is a {type(given).__name__}, expected a MechanismModule.")
    if not isinstance(given.module, nn.Module):
        raise TypeError(f"{subject}: module is a {type(given.module).__name__}, expected a torch.nn.Module.")
    embedding = _check_embedding(subject, given.embedding)
    classes = _check_classes(subject, given.classes, len(embedding))
    size = given.noise_size
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise ValueError(f"{subject}: noise_size is {size!r}, expected an int of at least 1.")
    if given.noise_distribution not in ("normal", "truncated_normal"):
        raise ValueError(
            f"{subject}: noise_distribution is {given.noise_distribution!r}, "
            "expected 'normal' or 'truncated_normal'."
        )
    interval = _check_range(subject, name, given.range)
    try:
        module = convert_module(given.module)
    except Exception as error:
        raise ValueError(
            f"{subject}: copying the module gave {first_cause(error)}, expected one for copy.deepcopy."
        ) from error
    example = _example(embedding, size, truncation)
    pictures = _run(subject, name, module, example)
    _check_picture(subject, name, pictures[0], interval)
    if len(pictures) > 1:
        _check_pre_mask(subject, pictures)
    _check_repeatable(subject, name, module, example, pictures, interval)
    return CheckedMechanism(
        name=name,
        module=module,
        embedding=embedding,
        classes=classes,
        noise_size=size,
        noise_distribution=given.noise_distribution,
        range=interval,
        roll=bool(given.roll),
        resolution=(pictures[0].shape[2], pictures[0].shape[3]),
        example=example,
        outputs={
            output: picture.shape[1]
            for output, picture in zip((PICTURES[name], PRE_MASK), pictures, strict=False)
        },
    )


def _check_embedding(subject: str, embedding: Any) -> Tensor:
    weight = embedding.weight if isinstance(embedding, nn.Embedding) else embedding
    try:
        table = torch.as_tensor(weight).detach().cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(
            f"{subject}: embedding is a {type(embedding).__name__}, expected a tensor."
        ) from error
    if table.dim() != 2 or 0 in table.shape or not table.is_floating_point():
        raise ValueError(
            f"{subject}: embedding is {table.dtype} {tuple(table.shape)}, expected floats (classes, e)."
        )
    if not bool(torch.isfinite(table).all()):
        raise ValueError(f"{subject}: embedding has NaN or infinite values, expected finite ones.")
    return table.to(torch.float32, copy=True).contiguous()


def _check_classes(subject: str, classes: Any, rows: int) -> tuple[str, ...]:
    if isinstance(classes, np.ndarray) and classes.ndim == 1:
        refuse_masked(subject, classes=classes)
        classes = classes.tolist()
    if not isinstance(classes, list | tuple):
        raise TypeError(f"{subject}: classes is a {type(classes).__name__}, expected a sequence of names.")
    for position, label in enumerate(classes):
        if not isinstance(label, str) or not label:
            raise ValueError(f"{subject}: classes[{position}] is {label!r}, expected a name.")
    names = tuple(unicodedata.normalize("NFC", label) for label in classes)  # the form that plans have
    if (pair := alike(names)) is not None:
        one, other = pair
        found = f"{one!r} twice" if one == other else f"{one!a} and {other!a}, which look the same"
        raise ValueError(f"{subject}: classes has {found}, expected unique names.")
    if len(names) != rows:
        raise ValueError(
            f"{subject}: classes has {len(names)} names, expected {rows}, one for each row of the embedding."
        )
    return names


def _check_range(subject: str, name: str, given: Any) -> tuple[float, float]:
    default = (0.0, 1.0) if name == "shape" else (-1.0, 1.0)
    if given is None:
        return default
    try:
        if isinstance(given, str | bytes):
            raise TypeError("not numbers")
        low, high = (float(bound) for bound in given)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{subject}: range is {given!r}, expected (low, high).") from error
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(
            f"{subject}: range is {given!r}, expected finite numbers (low, high) with low < high."
        )
    if name == "shape" and not 0 <= low < high <= 1:
        raise ValueError(f"{subject}: range is {given!r}, expected within (0, 1): it is a mask.")
    return low, high


def _example(embedding: Tensor, noise_size: int, truncation: float | None) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    example = {
        # Within [-2, 2], so that it is at home under either distribution.
        "noise": torch.randn(EXAMPLE_BATCH, noise_size, generator=generator).clamp(-2, 2),
        "class_embedding": embedding[torch.arange(EXAMPLE_BATCH) % len(embedding)],
    }
    if truncation is not None:
        example["noise"] = example["noise"] * truncation
        example["truncation"] = torch.full((EXAMPLE_BATCH, 1), truncation)
    return example


def _run(subject: str, name: str, module: nn.Module, inputs: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
    """The module's pictures: one, or the shape's mask and pre-mask."""
    shapes = ", ".join(f"{key} {tuple(value.shape)}" for key, value in inputs.items())
    try:
        with torch.no_grad():
            output = module(*(value.clone() for value in inputs.values()))
    except Exception as error:
        raise ValueError(
            f"{subject}: calling it with {shapes} gave {first_cause(error)}, expected a picture from "
            f"({', '.join(inputs)}) for any batch size. Wrap it in a module that takes these."
        ) from error
    if isinstance(output, Tensor):
        return (output,)
    if name != "shape":
        raise TypeError(
            f"{subject}: output is a {type(output).__name__}, expected one tensor. Return the picture alone."
        )
    if not (isinstance(output, tuple) and len(output) == 2 and all(isinstance(o, Tensor) for o in output)):
        size = f" of {len(output)}" if isinstance(output, tuple | list) else ""
        raise TypeError(
            f"{subject}: output is a {type(output).__name__}{size}, expected one tensor, or a tuple of two: "
            "(mask, pre_mask). Return the mask alone, or these two."
        )
    return output


def _check_pre_mask(subject: str, pictures: tuple[Tensor, ...]) -> None:
    mask, pre_mask = pictures
    n, _, h, w = mask.shape
    if tuple(pre_mask.shape) not in ((n, 1, h, w), (n, 3, h, w)):
        raise ValueError(
            f"{subject}: pre_mask is {tuple(pre_mask.shape)}, expected ({n}, 1 or 3, {h}, {w}), a picture of the "
            "mask's size."
        )
    if pre_mask.dtype != torch.float32:
        raise ValueError(
            f"{subject}: pre_mask is {pre_mask.dtype}, expected torch.float32 from float32 inputs."
        )
    if not bool(torch.isfinite(pre_mask).all()):
        raise ValueError(
            f"{subject}: pre_mask has NaN or infinite values, expected finite ones. Check its weights."
        )


def _check_picture(subject: str, name: str, picture: Tensor, interval: tuple[float, float]) -> None:
    channels = CHANNELS[name]
    shape = tuple(picture.shape)
    if len(shape) != 4 or shape[:2] != (EXAMPLE_BATCH, channels) or 0 in shape:
        what = "a mask has one channel" if channels == 1 else "a picture has three"
        raise ValueError(
            f"{subject}: output shape is {shape} for a batch of {EXAMPLE_BATCH}, expected "
            f"({EXAMPLE_BATCH}, {channels}, h, w): {what}."
        )
    if picture.dtype != torch.float32:
        raise ValueError(f"{subject}: output is {picture.dtype}, expected torch.float32 from float32 inputs.")
    if not bool(torch.isfinite(picture).all()):
        raise ValueError(
            f"{subject}: output has NaN or infinite values, expected finite ones. Check its weights."
        )
    low, high = interval
    slack = RANGE_TOLERANCE * (high - low)
    lowest, highest = float(picture.min()), float(picture.max())
    if lowest < low - slack or highest > high + slack:
        raise ValueError(
            f"{subject}: output values are {lowest:.4g} to {highest:.4g}, expected within "
            f"[{low:g}, {high:g}]. End the module with a bounded layer, or pass its range."
        )


def _check_repeatable(
    subject: str,
    name: str,
    module: nn.Module,
    example: Mapping[str, Tensor],
    pictures: tuple[Tensor, ...],
    interval: tuple[float, float],
) -> None:
    one = {key: value[:1] for key, value in example.items()}  # a sample of a large network takes seconds
    found = _run(subject, name, module, one)
    for single, again in zip(found, _run(subject, name, module, one), strict=True):
        if not torch.equal(single, again):
            difference = float((single - again).abs().max())
            raise ValueError(
                f"{subject}: two calls with the same inputs differ by {difference:.3g}, expected the same output "
                "in eval mode. Draw no random numbers inside, and switch dropout off in eval mode "
                "(F.dropout(..., training=self.training))."
            )
    picture, alone = pictures[0], found[0]
    if alone.shape != picture[:1].shape:
        raise ValueError(
            f"{subject}: output shape is {tuple(alone.shape)} for a batch of 1, expected "
            f"{tuple(picture[:1].shape)}. Let no size inside depend on the batch."
        )
    difference = float((alone - picture[:1]).abs().max())
    if difference > BATCH_TOLERANCE * (interval[1] - interval[0]):
        raise ValueError(
            f"{subject}: a sample's picture differs by {difference:.3g} alone and in a batch of "
            f"{EXAMPLE_BATCH}, expected each to depend on its own inputs only. Use no statistics over "
            "the batch (batch norm with track_running_stats=False or training=True)."
        )
