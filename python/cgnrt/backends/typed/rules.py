"""Which operators of a graph compute in half precision, and which stay float32.

Pictures are half, from the first convolution on; what needs range or digits stays float32: vectors (noise, embeddings,
statistics of batch norms and what is computed from them, a thousandth of the work), normalisations, softmax, and the
activation that makes an output.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Container, Iterable, Sequence

import numpy as np

_LARGEST = {"fp16": 65504.0, "bf16": 3.3895313892515355e38}
_SMALLEST = {"fp16": 2.0**-24, "bf16": 2.0**-133}
# What passes pictures on, and does so in the type that the pictures have.
_FOLLOWERS = """
    Abs Add AveragePool Clip Concat DepthToSpace Elu Expand Flatten Gather GlobalMaxPool HardSigmoid HardSwish Identity
    LeakyRelu Max MaxPool Min Mul Neg PRelu Pad Relu Reshape Resize Selu Sigmoid Slice SpaceToDepth Split Squeeze Sub
    Tanh Tile Transpose Unsqueeze Where
"""
# The activations that make an output: in half, a mask's bound of 0.9999 would be 1.
_ACTIVATIONS = ("Clip", "HardSigmoid", "Sigmoid", "Tanh")


def fits_half(array: np.ndarray, precision: str) -> bool:
    """Whether half holds a float32 constant: it does not overflow, nor become zeros altogether."""
    largest = float(np.abs(array).max(initial=0.0))
    # Half of the smallest number is rounded to zero.
    lost = 0 < largest <= _SMALLEST[precision] / 2
    return largest <= _LARGEST[precision] and not lost


def late_activations(
    nodes: Iterable[tuple[str, Sequence[str], Sequence[str]]], outputs: Iterable[str]
) -> frozenset[str]:
    """Results of the activations that make an output, also in a chain.

    Args:
      nodes: operator, inputs and outputs of each, the last one first.
      outputs: of the graph.
    """
    late: set[str] = set()
    leads = set(outputs)
    for operator, inputs, made in nodes:
        if operator in _ACTIVATIONS and leads.intersection(made):
            late.update(made)
            leads.add(inputs[0])
    return frozenset(late)


class HalfRules:
    """Decides for one node after the other, in the order of the graph.

    Args:
      layers: operators that compute in half by themselves, as matrix units do.
      shape_of: sizes of a value, as far as they are known; a size that depends on the batch may be a name.
      is_float: whether a value is a float, in half or not.
      constants: names of those.
      fit: whether half holds all constants among these values.
      fp32_layers: names of weights whose layers stay float32.
      late: see `late_activations`.

    Attributes:
      half: names of the values that are made in half.
    """

    def __init__(
        self,
        layers: Collection[str],
        *,
        shape_of: Callable[[str], Sequence[int | str]],
        is_float: Callable[[str], bool],
        constants: Container[str],
        fit: Callable[[Iterable[str]], bool],
        fp32_layers: frozenset[str],
        late: frozenset[str],
    ) -> None:
        self.half: set[str] = set()
        self._layers = layers
        self._shape_of = shape_of
        self._is_float = is_float
        self._constants = constants
        self._fit = fit
        self._fp32_layers = fp32_layers
        self._late = late

    def is_half(self, operator: str, inputs: Sequence[str], outputs: Sequence[str]) -> bool:
        """Whether a node computes in half; the float values that it makes then belong into `half`."""
        if not self._fit(inputs) or self._late.intersection(outputs):
            return False
        if operator in self._layers:
            vector = max(len(self._shape_of(name)) for name in inputs[:2]) == 2
            return not vector and self._fp32_layers.isdisjoint(inputs)
        if operator not in _FOLLOWERS.split():
            return False
        values = [name for name in inputs if name not in self._constants and self._is_float(name)]
        pictures = [name for name in values if self._is_picture(name)] or values
        # Where half meets float32: pictures become half as soon as one of them is, vectors stay as they are.
        agree = any if pictures is not values else all
        return bool(pictures) and agree(name in self.half for name in pictures)

    def _is_picture(self, name: str) -> bool:
        shape = self._shape_of(name)
        return len(shape) > 2 and math.prod(d if isinstance(d, int) else 2 for d in shape[2:]) > 1
