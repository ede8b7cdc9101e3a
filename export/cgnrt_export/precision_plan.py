"""Which layers of a CGN may be bfloat16 without the composite falling below a PSNR, and what each share costs.

Rounding errors of layers are nearly independent, so their squares add up: each group of layers is measured alone,
groups are ordered by error per multiply-add, and as many as hold the floor go to bfloat16. What counts in the end is
measured with all of them at once, on samples that had no part in the choice.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from cgnrt_export.emulation import Layer, Precision, emulate, layers_of
from cgnrt_export.inference import InferenceForm
from cgnrt_export.mechanism import CheckedMechanism
from cgnrt_export.report import FrontierPoint, PrecisionPlan
from cgnrt_export.runners import Floats, Inputs, composite, draw_inputs, is_large, run_torch

_SAMPLES = 8  # to choose by, and as many again to verify; of large pictures fewer
_LARGE_SAMPLES = 2
_TRIES = 6  # further groups that are tried once the first one in order breaks the floor


@dataclass(frozen=True)
class _Group:
    """Layers that are chosen together: those of one mechanism at one resolution.

    Attributes:
      error: mean square of the composite's error with these layers alone in bfloat16.
    """

    mechanism: str
    label: str
    layers: tuple[str, ...]
    macs: int
    error: float = 0.0


def plan_precision(
    mechanisms: Mapping[str, CheckedMechanism],
    forms: Mapping[str, InferenceForm],
    *,
    min_psnr: float,
    seed: int,
    truncation: tuple[float, float] | None = None,
    progress: Callable[[str], None] = lambda message: None,
) -> PrecisionPlan:
    """Find the layers that stay in float32.

    Args:
      mechanisms, forms: what the plan is written from.
      min_psnr: the floor in dB above 0, of the composite against float32.
      seed: of the random inputs; those of the parity report are others.
      truncation: (minimum, maximum) to draw from, where the plan has it.
    """
    large = is_large(mechanisms["shape"].resolution)
    n = _LARGE_SAMPLES if large else _SAMPLES
    alone, together, held_out = draw_inputs(mechanisms, (1 if large else n, n, n), seed + 1, truncation)
    groups = _measure(_Trial(mechanisms, forms, alone), _groups(forms), progress)
    trial = _Trial(mechanisms, forms, together)
    order = sorted(groups, key=lambda group: group.error / max(group.macs, 1))
    total = sum(group.macs for group in groups)
    frontier: dict[int, FrontierPoint] = {}

    def measure(count: int) -> float:
        """The PSNR with the first groups in order in bfloat16."""
        if count not in frontier:
            psnr = trial.psnr(order[:count])
            share = sum(group.macs for group in order[:count]) / total
            progress(f"precision plan: {share:.0%} of the multiply-adds in bf16: {psnr:.1f} dB")
            frontier[count] = FrontierPoint(round(share, 4), None if psnr == math.inf else round(psnr, 2))
        point = frontier[count].psnr_db
        return math.inf if point is None else point

    for count in {len(order) * quarter // 4 for quarter in range(5)}:
        measure(count)
    low, high = 0, len(order)
    if measure(high) >= min_psnr:
        low = high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if measure(middle) >= min_psnr else (low, middle)
    chosen = list(order[:low])
    for group in order[low + 1 :][:_TRIES]:
        allowed = trial.width**2 / 10 ** (min_psnr / 10)
        fits = sum(member.error for member in (*chosen, group)) <= allowed
        if fits and trial.psnr([*chosen, group]) >= min_psnr:
            chosen.append(group)
    check = _Trial(mechanisms, forms, held_out)
    progress("precision plan: verify on other samples")
    while (verified := check.psnr(chosen)) < min_psnr:
        progress(f"precision plan: {verified:.1f} dB on other samples: one group less")
        chosen.remove(max(chosen, key=lambda group: group.error))
    int8 = check.psnr(chosen, "int8") if chosen else math.inf
    in_bf16 = {(group.mechanism, layer) for group in chosen for layer in group.layers}
    return PrecisionPlan(
        min_psnr_db=min_psnr,
        psnr_db=None if verified == math.inf else round(verified, 2),
        bf16_share=round(sum(group.macs for group in chosen) / total, 4),
        fp32_layers={
            name: tuple(layer for layer in layers_of(form.module) if (name, layer) not in in_bf16)
            for name, form in forms.items()
        },
        fp32_groups=tuple(f"{group.mechanism} {group.label}" for group in groups if group not in chosen),
        frontier=tuple(frontier[count] for count in sorted(frontier)),
        int8_psnr_db=None if int8 == math.inf else round(int8, 2),
        samples=n,
    )


def _groups(forms: Mapping[str, InferenceForm]) -> list[_Group]:
    """The layers of each mechanism by the size of their results.

    Behind the first fall in size begins another part: a generator's sizes rise, and a saliency head follows it.
    """
    groups = []
    for name, form in forms.items():
        stages: dict[tuple[str, int], list[Layer]] = {}
        part, largest = "", 0
        for layer in layers_of(form.module).values():
            if layer.size < largest:
                part = "head "
            largest = max(largest, layer.size)
            stages.setdefault((part, layer.size), []).append(layer)
        for (part, size), layers in stages.items():
            label = f"{part}{size} px" if size > 1 else f"{part}vectors"
            weights = tuple(layer.weight for layer in layers)
            groups.append(_Group(name, label, weights, sum(layer.macs for layer in layers)))
    return groups


def _measure(trial: _Trial, groups: Sequence[_Group], progress: Callable[[str], None]) -> list[_Group]:
    measured = []
    for position, group in enumerate(groups):
        progress(f"precision plan: {position + 1} of {len(groups)}, {group.mechanism} {group.label}")
        error = trial.mean_square([group])
        measured.append(_Group(group.mechanism, group.label, group.layers, group.macs, error))
    return measured


class _Trial:
    """Composites of one batch, with some layers in a lower precision, against those in float32."""

    def __init__(
        self, mechanisms: Mapping[str, CheckedMechanism], forms: Mapping[str, InferenceForm], inputs: Inputs
    ) -> None:
        low, high = mechanisms["texture"].range
        self.width = high - low
        self._forms = forms
        self._inputs = inputs
        modules = {name: form.module for name, form in forms.items()}
        self._exact = run_torch(modules, inputs, torch.float32)
        self._composite = composite(self._exact, inputs.rolls).astype(np.float64)
        self._known: dict[tuple[str, frozenset[str], str], Floats] = {}

    def mean_square(self, groups: Sequence[_Group], precision: Precision = "bf16") -> float:
        """The composite's mean square error with these groups in a lower precision."""
        pictures = {
            name: self._picture(
                name, frozenset(layer for g in groups if g.mechanism == name for layer in g.layers), precision
            )
            for name in self._forms
        }
        got = composite(pictures, self._inputs.rolls)
        return float(np.square(got - self._composite).mean())

    def psnr(self, groups: Sequence[_Group], precision: Precision = "bf16") -> float:
        """The same in decibels; infinite where nothing differs."""
        error = self.mean_square(groups, precision)
        if math.isnan(error):
            return -math.inf
        return 10 * math.log10(self.width**2 / error) if error else math.inf

    def _picture(self, name: str, layers: frozenset[str], precision: Precision) -> Floats:
        if not layers:
            return self._exact[name]
        key = (name, layers, precision)
        if key not in self._known:
            emulated = {name: emulate(self._forms[name].module, dict.fromkeys(layers, precision))}
            self._known[key] = run_torch(emulated, self._inputs, torch.float32)[name]
        return self._known[key]
