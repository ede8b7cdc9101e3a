"""Plans taken apart, changed and put together again: hostile ones too, with right hashes."""

from __future__ import annotations

import copy
import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx
import pytest

from cgnrt.errors import PlanError
from cgnrt.plan import open_any
from cgnrt.plan.archive import archive_layout

PICTURES = {"shape": "mask", "texture": "foreground", "background": "background"}


def lay_out(members: dict[str, bytes]) -> bytes:
    """The archive with these members, whatever is in them."""
    headers, ending = archive_layout([(name, memoryview(data)) for name, data in members.items()])
    pieces = [
        piece for header, data in zip(headers, members.values(), strict=True) for piece in (header, data)
    ]
    return b"".join([*pieces, ending])


@dataclass
class Parts:
    """A plan in pieces. `pack` puts them together with right sizes, hashes and CRCs, and checks nothing."""

    manifest: dict[str, Any]
    members: dict[str, bytes]
    folder: Path
    files: int = field(default=0)

    def copy(self) -> Parts:
        return copy.deepcopy(self)

    def pack(self) -> bytes:
        manifest = copy.deepcopy(self.manifest)
        manifest["members"] = {
            name: {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            for name, data in self.members.items()
        }
        return lay_out({"manifest.json": json.dumps(manifest).encode(), **self.members})

    def save(self, raw: bytes | None = None) -> Path:
        self.files += 1
        path = self.folder / f"case{self.files}.plan"
        path.write_bytes(self.pack() if raw is None else raw)
        return path

    def refusal(self, raw: bytes | None = None, *, verify: bool = True) -> str:
        """The message with which the plan is refused."""
        path = self.save(raw)
        with pytest.raises(PlanError) as caught:
            open_any(path, verify=verify)
        message = str(caught.value)
        assert message.startswith(f"load '{path}': ")
        return message

    def graph(self, mechanism: str = "shape") -> onnx.ModelProto:
        return onnx.ModelProto.FromString(self.members[f"mechanisms/{mechanism}.onnx"])

    def set_graph(self, model: onnx.ModelProto | bytes, mechanism: str = "shape") -> Parts:
        raw = model if isinstance(model, bytes) else model.SerializeToString()
        self.members[f"mechanisms/{mechanism}.onnx"] = raw
        return self

    def refuses_graph(self, model: onnx.ModelProto | bytes, message: str) -> None:
        """The plan with this graph is refused with these words, whether hashes are compared or not."""
        self.set_graph(model)
        for verify in (True, False):
            found = self.refusal(verify=verify)
            assert "mechanism 'shape': graph: " in found
            assert re.search(message, found), found

    def inline(self, mechanism: str = "shape") -> onnx.ModelProto:
        """The mechanism's graph with its weights inside; the weights member is taken out."""
        model = self.graph(mechanism)
        weights = self.members.pop(f"mechanisms/{mechanism}.weights")
        self.manifest["mechanisms"][mechanism]["weights"] = None
        for tensor in model.graph.initializer:
            pairs = {pair.key: pair.value for pair in tensor.external_data}
            if pairs:
                start = int(pairs["offset"])
                tensor.raw_data = weights[start : start + int(pairs["length"])]
                tensor.ClearField("external_data")
                tensor.ClearField("data_location")
        return model


def taken_apart(path: Path, folder: Path) -> Parts:
    """A plan of any kind in pieces."""
    with open_any(path) as plan:
        manifest = plan.manifest.to_dict()
        members = {name: bytes(plan.member(name)) for name in plan.members}
    del manifest["members"]
    return Parts(manifest, members, folder)


@pytest.fixture
def parts(golden_plan: Path, tmp_path: Path) -> Parts:
    """The golden plan in pieces."""
    return taken_apart(golden_plan, tmp_path)


@pytest.fixture
def half_parts(golden_half_plan: Path, tmp_path: Path) -> Parts:
    """The golden plan with weights in half precision in pieces."""
    return taken_apart(golden_half_plan, tmp_path)


@pytest.fixture
def saliency_parts(golden_saliency_plan: Path, tmp_path: Path) -> Parts:
    """The golden plan of kind "saliency" in pieces."""
    return taken_apart(golden_saliency_plan, tmp_path)


@pytest.fixture
def pack_members() -> Callable[[dict[str, bytes]], bytes]:
    return lay_out
