"""The networks of a plan, in place in the mapped file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from cgnrt.errors import EXPORT_AGAIN, PlanError, refuse, within
from cgnrt.plan.limits import MAX_GRAPH_BYTES
from cgnrt.plan.manifest import MechanismSpec, SaliencySpec
from cgnrt.plan.onnx.graph import validate_graph
from cgnrt.plan.onnx.model import Model
from cgnrt.plan.weights import Weights


@dataclass(frozen=True, slots=True)
class Network:
    """A network of a plan: its members, in place in the mapped file.

    Attributes:
      name: a mechanism's, or `saliency`.
      spec: its entry in the manifest.
      graph: the ONNX graph, read-only.
      model: the same, parsed.
      external: its external weights as they are stored; None where the graph has none.
    """

    name: str
    spec: MechanismSpec | SaliencySpec
    graph: memoryview
    model: Model = field(repr=False)
    external: Weights | None = field(repr=False)

    @property
    def weights(self) -> memoryview | None:
        """The external weights, read-only, aligned to 64 bytes; None where the graph has none.

        Those that are stored in half precision are widened at the first call, into memory that lives as long as a view
        of it, or until the plan's `release_pages`.
        """
        return None if self.external is None else self.external.view()


@dataclass(frozen=True, slots=True)
class Mechanism(Network):
    """One of the three mechanisms of a CGN.

    Attributes:
      name: `shape`, `texture` or `background`.
      embedding: (classes, e) float32, a read-only view.
    """

    spec: MechanismSpec
    embedding: np.ndarray

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names; class i is row i of `embedding`."""
        return self.spec.classes


@dataclass(frozen=True, slots=True)
class SaliencyNetwork(Network):
    """The network of a plan of kind "saliency"."""

    spec: SaliencySpec


def load_graph(
    spec: MechanismSpec | SaliencySpec, members: Mapping[str, memoryview]
) -> tuple[memoryview, Model, Weights | None]:
    """A network's graph, as it is and parsed, checked, and its weights."""
    graph = members[spec.graph]
    if graph.nbytes > MAX_GRAPH_BYTES:
        raise refuse("graph size", f"{graph.nbytes} bytes", f"<= {MAX_GRAPH_BYTES}")
    weights = None
    if spec.weights is not None:
        weights = Weights(members[spec.weights], None if spec.storage is None else spec.storage.offset)
    location = spec.weights.rpartition("/")[2] if spec.weights is not None else None
    try:
        model = validate_graph(
            graph, inputs=spec.inputs, outputs=spec.outputs, location=location, weights=weights
        )
    except PlanError as error:
        raise within("graph", error) from None
    if weights is not None:
        weights.check_finite()
    return graph, model, weights


def load_mechanism(name: str, spec: MechanismSpec, members: Mapping[str, memoryview]) -> Mechanism:
    loaded = load_graph(spec, members)
    # The schema has compared the table's size with its shape.
    table = np.frombuffer(members[spec.embedding.member], dtype="<f4").reshape(spec.embedding.shape)
    if not np.isfinite(table).all():
        raise refuse("embedding", "a table with NaN or infinity", "finite numbers", EXPORT_AGAIN)
    return Mechanism(name, spec, *loaded, table)
