"""Engines that lie ready in a plan: which there are, and which fits.

`engines/<library>-<version>/<architecture>-<card>/<precision>/` holds `<mechanism>.engine` for the three mechanisms and
`engines.json`, which says what they were built from. They are native code. Nothing here runs them; the backend does if
the user trusts the plan's engines.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cgnrt.backends.tensorrt.target import Batches, Target, graph_digest
from cgnrt.errors import PlanError, show
from cgnrt.plan import MECHANISMS, Network, Plan
from cgnrt.plan.fields import parse_json

FORMAT = 1
_INFO = "engines.json"
_FIELDS = (
    "format",
    "library",
    "version",
    "architecture",
    "device",
    "precision",
    "batches",
    "graphs",
    "parity",
)


class UnfitError(Exception):
    """A plan's engines cannot be used here. The message continues a sentence that begins with "the plan has"."""


@dataclass(frozen=True)
class ReadyEngines:
    """Three engines of one precision for one target.

    Attributes:
      graphs: the digest of the graph that each was built from, by mechanism.
      parity: PSNR in dB against float32 by picture, measured on the card; None if there is no difference.
    """

    target: Target
    precision: str
    batches: Batches
    graphs: Mapping[str, str]
    parity: Mapping[str, Any] = field(default_factory=dict)

    @property
    def folder(self) -> str:
        return f"{self.target.folder}/{self.precision}"

    def member(self, mechanism: str) -> str:
        """The name of a mechanism's engine in the plan."""
        return f"{self.folder}/{mechanism}.engine"

    def to_json(self) -> dict[str, Any]:
        """What `engines.json` says."""
        return {
            "format": FORMAT,
            "library": self.target.library,
            "version": self.target.version,
            "architecture": self.target.architecture,
            "device": self.target.device,
            "precision": self.precision,
            "batches": list(self.batches.sizes),
            "graphs": dict(self.graphs),
            "parity": dict(self.parity),
        }

    def members(self, engines: Mapping[str, bytes]) -> dict[str, bytes]:
        """The members that go into a plan."""
        described = {f"{self.folder}/{_INFO}": (json.dumps(self.to_json(), indent=1) + "\n").encode()}
        return described | {self.member(name): data for name, data in engines.items()}


def list_ready(plan: Plan) -> list[ReadyEngines]:
    """Every set of engines in a plan that is described.

    Raises:
      PlanError: a description is not one.
    """
    return [
        _parse(name, bytes(plan.member(name)))
        for name in plan.members
        if name.startswith("engines/") and name.endswith(f"/{_INFO}")
    ]


def find_ready(
    plan: Plan, mechanisms: Sequence[Network], precision: str, target: Target, batches: Batches | None
) -> ReadyEngines:
    """The plan's engines for a target.

    Args:
      plan: open.
      mechanisms: what they must have been built from.
      precision: exactly this one.
      target: exactly this library version, architecture and card.
      batches: what they must at least run; None takes them as they are.
    Raises:
      UnfitError: no engine of the plan fits.
    """
    try:
        found = list_ready(plan)
    except PlanError as error:
        raise UnfitError(f"engines that are not described as they should be: {error}") from error
    if not found:
        raise UnfitError("no ready engines")
    fitting = [ready for ready in found if ready.target == target]
    if not fitting:
        raise UnfitError(f"engines for {_those(str(ready.target) for ready in found)}; this is {target}")
    by_precision = {ready.precision: ready for ready in fitting}
    if precision not in by_precision:
        raise UnfitError(f"engines for this card in {_those(by_precision)}, not in {precision}")
    ready = by_precision[precision]
    if batches is not None and not ready.batches.covers(batches):
        raise UnfitError(
            f"engines for batches of {ready.batches.minimum}..{ready.batches.maximum}, not of "
            f"{batches.minimum}..{batches.maximum}"
        )
    for mechanism in mechanisms:
        if ready.member(mechanism.name) not in plan.members:
            raise UnfitError(f"no engine of mechanism '{mechanism.name}' for this card")
        if ready.graphs.get(mechanism.name) != graph_digest(mechanism):
            raise UnfitError(f"an engine of another graph than its own for mechanism '{mechanism.name}'")
    return ready


def _those(words: Any) -> str:
    return " and ".join(dict.fromkeys(words))


def _parse(name: str, raw: bytes) -> ReadyEngines:
    def refusal(what: str) -> PlanError:
        return PlanError(f"member '{name}': {what}. Build the engines again with cgnrt-export --tensorrt.")

    try:
        value = parse_json(raw)
    except PlanError as error:
        raise refusal(f"it is not JSON that a plan may hold ({error})") from error
    if not isinstance(value, dict) or sorted(value) != sorted(_FIELDS):
        raise refusal(f"fields are not {', '.join(_FIELDS)}")
    if value["format"] != FORMAT:
        raise refusal(f"format is {show(value['format'])}, expected {FORMAT}")
    if not all(isinstance(value[key], str) for key in _FIELDS[1:6]):
        raise refusal(f"{', '.join(_FIELDS[1:6])} are not all strings")
    graphs, parity, batches = value["graphs"], value["parity"], value["batches"]
    if not isinstance(graphs, dict) or sorted(graphs) != sorted(MECHANISMS) or not isinstance(parity, dict):
        raise refusal("graphs are not a digest for each mechanism, or parity is not an object")
    try:
        profile = Batches.of(batches if isinstance(batches, list) and len(batches) == 3 else [])
    except ValueError as error:
        raise refusal(f"batches are {show(batches)}, expected three sizes in ascending order") from error
    target = Target(value["library"], value["version"], value["architecture"], value["device"])
    ready = ReadyEngines(target, value["precision"], profile, graphs, parity)
    if name != f"{ready.folder}/{_INFO}":
        raise refusal(f"it describes '{ready.folder}', expected the folder that it lies in")
    return ready
