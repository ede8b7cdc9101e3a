"""Makes the golden plans of the current format version: 8 x 8 pixels, networks of one layer.

One of each kind, one of a CGN whose weights are stored in half precision, and two of CGNs of banks.

    python tests/plan/golden/make_golden.py FOLDER

Needs the onnx package. Everything is fixed, so that the same bytes come out on every machine. The plans of a
version are never made again once that version is released: they show that old files stay readable.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper

from cgnrt.plan import BankContents, BankSource, write_plan

SIZE, NOISE, EMBEDDING = 8, 4, 3
CLASSES = {
    "shape": ["disc", "square", "cross"],
    "texture": ["stripes", "dots", "plain"],
    "background": ["sea", "sky", "sand"],
}
PICTURES = {"shape": ("mask", 1), "texture": ("foreground", 3), "background": ("background", 3)}


def numbers(count: int, salt: int) -> np.ndarray:
    """Numbers in [-1, 1) that look random and are the same everywhere (a multiplicative hash)."""
    words = (np.arange(count, dtype=np.uint64) + np.uint64(1 + 1000 * salt)) * np.uint64(2654435761)
    return ((words % np.uint64(1 << 32)) / np.float64(1 << 31) - 1).astype("<f4")


def external(name: str, array: np.ndarray, blob: bytearray, location: str) -> TensorProto:
    """An initializer whose bytes are appended to `blob` at the next multiple of 64."""
    blob += bytes(-len(blob) % 64)
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=array.shape)
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", len(blob)), ("length", array.nbytes)):
        tensor.external_data.add(key=key, value=str(value))
    blob += array.tobytes()
    return tensor


def in_half(weights: bytes, start: int) -> bytes:
    """The weights as they are stored, with the numbers from byte `start` on as float16."""
    return weights[:start] + np.frombuffer(weights[start:], "<f4").astype("<f2").tobytes()


def make_mechanism(name: str, salt: int, half: bool) -> tuple[bytes, bytes, dict[str, object] | None]:
    """Graph, weights member and storage: picture = activation(Gemm([noise, class_embedding])) as (n, c, 8, 8)."""
    picture, channels = PICTURES[name]
    pixels = channels * SIZE * SIZE
    blob = bytearray()
    weight = (1.5 * numbers((NOISE + EMBEDDING) * pixels, salt)).reshape(pixels, NOISE + EMBEDDING)
    bias = 0.5 * numbers(pixels, salt + 10)
    arrays = {"weight": weight.astype("<f4"), "bias": bias.astype("<f4")}
    order = ("bias", "weight") if half else ("weight", "bias")
    initializers = [
        *(external(key, arrays[key], blob, f"{name}.weights") for key in order),
        helper.make_tensor("picture_shape", TensorProto.INT64, [4], [-1, channels, SIZE, SIZE]),
    ]
    nodes = [
        helper.make_node("Concat", ["noise", "class_embedding"], ["joined"], axis=1),
        helper.make_node("Gemm", ["joined", "weight", "bias"], ["flat"], transB=1),
        helper.make_node("Reshape", ["flat", "picture_shape"], ["logits"]),
        helper.make_node("Sigmoid" if name == "shape" else "Tanh", ["logits"], [picture]),
    ]
    graph = helper.make_graph(
        nodes,
        name,
        [
            helper.make_tensor_value_info("noise", TensorProto.FLOAT, ["n", NOISE]),
            helper.make_tensor_value_info("class_embedding", TensorProto.FLOAT, ["n", EMBEDDING]),
        ],
        [helper.make_tensor_value_info(picture, TensorProto.FLOAT, ["n", channels, SIZE, SIZE])],
        initializers,
    )
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    raw = model.SerializeToString(deterministic=True)
    if not half:
        return raw, bytes(blob), None
    start = len(blob) - arrays["weight"].nbytes
    return raw, in_half(bytes(blob), start), {"dtype": "float16", "offset": start}


def make_plan(half: bool = False) -> tuple[dict[str, object], dict[str, bytes]]:
    """Manifest (without members) and members of the golden plan of a CGN, with three classes."""
    members: dict[str, bytes] = {}
    mechanisms: dict[str, object] = {}
    for salt, (name, (picture, channels)) in enumerate(PICTURES.items(), 1):
        graph, weights, storage = make_mechanism(name, salt, half)
        stem = f"mechanisms/{name}"
        table = numbers(len(CLASSES[name]) * EMBEDDING, salt + 20)
        members |= {f"{stem}.onnx": graph, f"{stem}.weights": weights, f"{stem}.embedding": table.tobytes()}
        mechanisms[name] = {
            "kind": "graph",
            "graph": f"{stem}.onnx",
            "weights": f"{stem}.weights",
            "storage": storage,
            "embedding": {"member": f"{stem}.embedding", "shape": [len(CLASSES[name]), EMBEDDING]},
            "classes": CLASSES[name],
            "noise": {"size": NOISE, "distribution": "normal"},
            "inputs": [
                {"name": "noise", "shape": ["n", NOISE], "dtype": "float32"},
                {"name": "class_embedding", "shape": ["n", EMBEDDING], "dtype": "float32"},
            ],
            "outputs": [{"name": picture, "shape": ["n", channels, SIZE, SIZE], "dtype": "float32"}],
            "range": [0, 1] if name == "shape" else [-1, 1],
            "roll": name != "shape",
        }
    manifest = {
        "format_version": 4,
        "kind": "cgn",
        "stream_version": 1,
        "family": "golden",
        "exported_by": "cgnrt 0.1.0",
        "resolution": [SIZE, SIZE],
        "noise_mode": "independent",
        "truncation": None,
        "precision": "fp32",
        "mechanisms": mechanisms,
        "sources": [{"name": "make_golden.py", "sha256": "0" * 64}],
        "training_data": None,
        "parity": {"fp32": {"mask": {"max_abs": 0.0}}},
    }
    return manifest, members


def make_bank_plan(streams: bool = False) -> tuple[dict[str, object], dict[str, bytes]]:
    """Manifest (without members) and members of the golden plan of banks: 7 pictures each; textures have weights.

    With `streams` shapes and textures are lossless WebP, and textures follow the shapes; backgrounds are JPEG. Pillow
    makes their bytes: another version may make others.
    """
    manifest, _ = make_plan()
    mechanisms: dict[str, object] = {}
    members: dict[str, bytes] = {}
    labels = np.array([0, 0, 0, 1, 2, 2, 2])
    for salt, (name, (_, channels)) in enumerate(PICTURES.items(), 1):
        values = numbers(labels.size * channels * SIZE * SIZE, salt + 50)
        contents = BankContents(
            ((values + 1) * 128).astype(np.uint8).reshape(-1, channels, SIZE, SIZE),
            labels,
            CLASSES["shape" if streams else name],
            weights=np.array([1, 2, 3, 4, 0, 5, 1]) if name == "texture" and not streams else None,
            roll=name != "shape" and not streams,
            follows="shape" if name == "texture" and streams else None,
            sources=[BankSource("make_golden.py", labels.size, "0" * 64, "MIT")],
        )
        store = ("jpeg" if name == "background" else "webp") if streams else "raw"
        mechanisms[name], added = contents.members(name, store, 90 if store == "jpeg" else None)
        members |= {member: bytes(data) for member, data in added.items()}
    return {**manifest, "mechanisms": mechanisms}, members


def make_saliency_plan() -> tuple[dict[str, object], dict[str, bytes]]:
    """Manifest (without members) and members of the golden plan of kind "saliency": a sigmoid of one convolution."""
    blob = bytearray()
    weight = (0.5 * numbers(27, 40)).reshape(1, 3, 3, 3).astype("<f4")
    initializers = [external("weight", weight, blob, "saliency.weights")]
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["image", "weight"], ["logits"], pads=[1, 1, 1, 1]),
            helper.make_node("Sigmoid", ["logits"], ["mask"]),
        ],
        "saliency",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, SIZE, SIZE])],
        [helper.make_tensor_value_info("mask", TensorProto.FLOAT, ["n", 1, SIZE, SIZE])],
        initializers,
    )
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    manifest = {
        "format_version": 4,
        "kind": "saliency",
        "family": "golden",
        "exported_by": "cgnrt 0.1.0",
        "resolution": [SIZE, SIZE],
        "precision": "fp32",
        "saliency": {
            "graph": "mechanisms/saliency.onnx",
            "weights": "mechanisms/saliency.weights",
            "storage": None,
            "inputs": [{"name": "image", "shape": ["n", 3, SIZE, SIZE], "dtype": "float32"}],
            "outputs": [{"name": "mask", "shape": ["n", 1, SIZE, SIZE], "dtype": "float32"}],
            "divide_by": "maximum",
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
            "stretch": True,
        },
        "sources": [{"name": "make_golden.py", "sha256": "0" * 64}],
        "training_data": None,
        "parity": {"fp32": {"mask": {"max_abs": 0.0}}},
    }
    members = {
        "mechanisms/saliency.onnx": model.SerializeToString(deterministic=True),
        "mechanisms/saliency.weights": bytes(blob),
    }
    return manifest, members


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    print(write_plan(folder / "v4.plan", *make_plan()))
    print(write_plan(folder / "v4-half.plan", *make_plan(half=True)))
    print(write_plan(folder / "v4-saliency.plan", *make_saliency_plan()))
    print(write_plan(folder / "v4-bank.plan", *make_bank_plan()))
    print(write_plan(folder / "v4-bank-streams.plan", *make_bank_plan(streams=True)))
