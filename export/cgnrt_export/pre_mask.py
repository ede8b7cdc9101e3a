"""The second output of a shape mechanism: its picture before the saliency head (Fig. 2).

Parity is measured on pictures, of which every mechanism has one; here that one is singled out, and the other checked.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from cgnrt.backends import backends_for, load_engine, supports
from cgnrt.plan import PRE_MASK, Mechanism
from cgnrt_export.errors import ExportError
from cgnrt_export.inference import InferenceForm
from cgnrt_export.mechanism import CheckedMechanism

TOLERANCE = 1e-3  # of the pre-mask's largest value, in fp32; it is looked at, never composed


class Picture(nn.Module):
    """A module's first output alone."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *inputs: Tensor) -> Tensor:
        output: Any = self.module(*inputs)
        picture: Tensor = output if isinstance(output, Tensor) else output[0]
        return picture


def picture_form(form: InferenceForm) -> InferenceForm:
    """A form whose module gives its first output alone; it shares the other's weights."""
    graph = fx.Graph()
    values = graph.graph_copy(form.module.graph, {})
    if not isinstance(values, tuple | list):
        return form
    graph.output(values[0])
    return replace(form, module=fx.GraphModule(form.module, graph))


def check_pre_mask(written: Mechanism, mechanism: CheckedMechanism, reference: nn.Module) -> None:
    """Compare the written shape's pre-mask in fp32 with the module's, if it has one, by the first engine that runs it.

    Raises:
      ExportError: they differ by more than `TOLERANCE`.
    """
    if PRE_MASK not in mechanism.outputs:
        return
    backend = next(e.name for e in backends_for("cpu") if supports(e.name, "fp32", networks=[written]))
    engine = load_engine(written, backend=backend, precision="fp32")
    got = engine.run({name: value.numpy() for name, value in mechanism.example.items()})[PRE_MASK]
    with torch.no_grad():
        expected = reference(*mechanism.example.values())[1].numpy()
    allowed = TOLERANCE * max(1.0, float(np.abs(expected).max()))
    difference = float(np.abs(got - expected).max())
    if not difference <= allowed:
        raise ExportError(
            f"the largest fp32 error of the pre-mask by {backend} is {difference:.3g}, expected at most {allowed:.3g} "
            "against torch. Nothing was written."
        )
