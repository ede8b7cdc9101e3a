"""Inference requests for the fuzzers of both transports: most parts good, some wrong, bytes changed."""

from __future__ import annotations

import random
from typing import Any

NAMES = (
    "count",
    "seed",
    "start",
    "shape",
    "texture",
    "background",
    "truncation",
    "pool",
    "coumt",
    "",
    "\x00",
)
DATATYPES = (
    "INT64",
    "INT32",
    "UINT64",
    "UINT8",
    "FP32",
    "FP16",
    "FP64",
    "BOOL",
    "BYTES",
    "BF16",
    "",
    "int64",
)
VALUES: tuple[Any, ...] = (
    *(0, 1, -1, 2, 3, 9, 10, 64, 2**31, 2**63 - 1, 2**63, 2**64, -(2**63), 10**30, 0.5, -0.5, 1e308),
    *(
        True,
        False,
        None,
        "",
        "lime",
        "\ud800",
        "\x00",
        "../../etc/passwd",
        "x" * 300,
        [],
        [1],
        [[1], [2]],
        {},
    ),
)


def infer_message(rng: random.Random) -> dict[str, Any]:
    """The JSON of an inference request, most of it good."""
    inputs = [tensor(rng) for _ in range(rng.choice((0, 0, 0, 1, 2)))]
    message: dict[str, Any] = {"inputs": inputs, "parameters": {}}
    if rng.random() < 0.8:
        message["parameters"]["count"] = rng.choice((1, 2, 3)) if rng.random() < 0.8 else rng.choice(VALUES)
    for name in rng.sample(("dtype", "layout", "timeout", "binary_data_output", "seed", "texture"), 2):
        if rng.random() < 0.3:
            good = {"dtype": "float32", "layout": "NCHW", "binary_data_output": True, "texture": "lime"}
            message["parameters"][name] = good.get(name, 7) if rng.random() < 0.5 else rng.choice(VALUES)
    if rng.random() < 0.3:
        names = ("images", "labels", "mask", "foreground", "background", "pre_mask", "", "seed")
        message["outputs"] = [
            {"name": rng.choice(names), "parameters": {"binary_data": rng.choice((True, False, 3))}}
            for _ in range(rng.choice((0, 1, 2)))
        ]
    if rng.random() < 0.05:
        message[rng.choice(("id", "inputs", "outputs", "parameters"))] = rng.choice(VALUES)
    return message


def tensor(rng: random.Random) -> dict[str, Any]:
    """An input's JSON."""
    found: dict[str, Any] = {"name": rng.choice(NAMES), "datatype": rng.choice(DATATYPES), "shape": [1]}
    if rng.random() < 0.7:
        found["data"] = [rng.choice(VALUES[:10])]
    if rng.random() < 0.2:
        sizes = (0, 8, 5, -1, 10**12)
        found["parameters"] = {rng.choice(("binary_data_size", "shared_memory_byte_size")): rng.choice(sizes)}
    if rng.random() < 0.2:
        found[rng.choice(("name", "datatype", "shape", "data"))] = rng.choice(VALUES)
    if rng.random() < 0.1:
        found["shape"] = [rng.choice((0, 1, 2, 3, 64, -1, 2**40, 2**70)) for _ in range(rng.randrange(5))]
    return found


def mutate(body: bytes, rng: random.Random) -> bytes:
    """Some bytes flipped, cut or doubled."""
    found = bytearray(body)
    for _ in range(rng.choice((1, 1, 2, 8))):
        at = rng.randrange(len(found) + 1)
        kind = rng.randrange(4)
        if kind == 0 and at < len(found):
            found[at] = rng.randrange(256)
        elif kind == 1:
            del found[at : at + rng.randrange(20)]
        elif kind == 2:
            found[at:at] = found[at : at + rng.randrange(20)]
        else:
            found[at:at] = bytes([rng.randrange(256)])
    return bytes(found)
