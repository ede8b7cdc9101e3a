"""What a server says of its model: inputs, outputs, classes and limits."""

from __future__ import annotations

import json
from functools import cache
from importlib.metadata import version as package_version
from typing import Any

from cgnrt.generator import Generator
from cgnrt.plan import Plan
from cgnrt.sampling import MECHANISMS
from cgnrt.serve.limits import Limits
from cgnrt.serve.orders import INPUTS, PLACE_VALUES

VERSION = "1"  # of every model
EXTENSIONS = ("binary_tensor_data", "model_configuration", "parameters", "system_shared_memory")

# Datatype and shape of every input.
INPUT_TYPES: dict[str, tuple[str, tuple[int, ...]]] = {
    name: (
        {"seed": "UINT64", "truncation": "FP32"}.get(name, "INT64"),
        (1,) if name in ("count", "seed", "start", "end") else (-1,),
    )
    for name in INPUTS
} | {"place": ("FP32", (-1, PLACE_VALUES))}


@cache
def server_metadata() -> dict[str, Any]:
    """Name, version and extensions of the server."""
    return {"name": "cgnrt", "version": package_version("cgnrt"), "extensions": list(EXTENSIONS)}


def model_metadata(name: str, plan: Plan) -> dict[str, Any]:
    """Inputs and outputs; -1 is any size."""
    return {
        "name": name,
        "versions": [VERSION],
        "platform": "cgnrt",
        "inputs": [{"name": n, "datatype": t, "shape": list(s)} for n, (t, s) in INPUT_TYPES.items()],
        "outputs": [{"name": n, "datatype": t, "shape": list(s)} for n, (t, s) in output_types(plan).items()],
    }


def model_config(name: str, generator: Generator, limits: Limits) -> dict[str, Any]:
    """Triton's model configuration. Classes, resolution and limits are among its parameters, as JSON."""
    metadata = model_metadata(name, generator.plan)
    bounds = generator.plan.manifest.truncation
    facts = {
        "classes": {m: list(names) for m, names in generator.classes.items()},
        "resolution": list(generator.resolution),
        "range": list(generator.plan.mechanisms["texture"].spec.range),
        "truncation": None
        if bounds is None
        else {"minimum": bounds.minimum, "maximum": bounds.maximum, "default": bounds.default},
        "plan": generator.plan.digest,
        "follows": dict(generator.plan.following),
        "engine": {"backend": generator.backend, "precision": generator.precision},
        "limits": {"images": limits.images, "stream_images": limits.stream_images},
    }
    return {
        "name": name,
        "platform": "cgnrt",
        "backend": "cgnrt",
        "max_batch_size": 0,
        "input": [
            _config_entry(entry) | {"optional": entry["name"] != "count"} for entry in metadata["inputs"]
        ],
        "output": [_config_entry(entry) for entry in metadata["outputs"]],
        "parameters": {key: {"string_value": json.dumps(fact)} for key, fact in facts.items()},
        "model_transaction_policy": {"decoupled": False},
    }


def output_types(plan: Plan) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Datatype and shape of every output, -1 for the number of images."""
    height, width = plan.manifest.resolution
    parts = {
        spec.name: ("FP32", (-1, *(int(size) for size in spec.shape[1:])))
        for name in MECHANISMS
        for spec in plan.mechanisms[name].spec.outputs
    }
    images, place = ("UINT8", (-1, height, width, 3)), ("FP32", (-1, PLACE_VALUES))
    return {"images": images, "labels": ("INT64", (-1, 3)), **parts, "place": place}


def _config_entry(entry: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": entry["name"],
        "data_type": "TYPE_STRING" if entry["datatype"] == "BYTES" else f"TYPE_{entry['datatype']}",
        "dims": entry["shape"],
    }
