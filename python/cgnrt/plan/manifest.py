"""What `manifest.json` says, as immutable records. `schema.py` makes them from JSON and checks them.

Most are named tuples: Python makes their classes faster than dataclasses when a process starts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from cgnrt.plan.limits import FORMAT_VERSION, STREAM_VERSION

NoiseMode = Literal["independent", "shared"]
Precision = Literal["fp32", "bf16", "fp16"]
Distribution = Literal["normal", "truncated_normal", "entry"]
Store = Literal["raw", "webp", "jpeg"]
DivideBy = Literal["maximum", "range"]


class TensorSpec(NamedTuple):
    """A named input or output of a graph; the first dimension is `"n"`, the batch."""

    name: str
    shape: tuple[int | str, ...]
    dtype: str = "float32"


class NoiseSpec(NamedTuple):
    """A mechanism's noise u: `size` numbers an image, drawn from `distribution`; "entry" is a bank's 32-bit integer."""

    size: int
    distribution: Distribution = "normal"


class EmbeddingSpec(NamedTuple):
    """Where the class embedding table lies: little-endian float32, row-major, `shape` = (classes, e)."""

    member: str
    shape: tuple[int, int]


class HalfStorage(NamedTuple):
    """A weights member whose bytes from `offset` on are float16 that stand for float32."""

    offset: int


class MechanismSpec(NamedTuple):
    """One mechanism: f_shape, f_text or f_bg (paper Sec. 3)."""

    graph: str  # member with the ONNX graph
    weights: str | None  # member with its external weights
    embedding: EmbeddingSpec
    classes: tuple[str, ...]  # class i is row i of the embedding table
    noise: NoiseSpec
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]  # the picture first
    range: tuple[float, float]  # of the picture's values
    roll: bool  # the runtime rolls the picture on a torus (MNIST texture shuffle)
    storage: HalfStorage | None = None  # None: the weights are stored in full


@dataclass(frozen=True)
class BankSource:
    """Where pictures of a bank come from: `count` of them, a SHA-256 (hex), and a licence or None."""

    name: str
    count: int
    sha256: str
    licence: str | None = None


@dataclass(frozen=True)
class BankSpec:
    """A mechanism that is pictures: the noise picks one of the label's class. Members lie under `banks/`."""

    pictures: str  # member with the pictures: uint8 (count, c, h, w), or streams one after the other
    hashes: str  # member with the SHA-256 of each chunk of the pictures
    labels: (
        str | None
    )  # member with the class of each picture, rising: int32; None where it follows another bank
    weights: str | None  # member with the weight of each picture: uint32
    count: int
    classes: tuple[str, ...]
    roll: bool
    sources: tuple[BankSource, ...]
    outputs: tuple[
        TensorSpec, ...
    ]  # the picture, as it is composed; known from the mechanism and the resolution
    store: Store = "raw"
    index: str | None = (
        None  # member with the place of each stream: uint64 (count + 1,); None for raw pictures
    )
    follows: str | None = None  # the mechanism whose entry, with its label, is drawn here too

    @property
    def noise(self) -> NoiseSpec:
        return NoiseSpec(1, "entry")

    @property
    def range(self) -> tuple[float, float]:
        """What the bytes 0 and 255 stand for."""
        return (0.0, 1.0) if self.outputs[0].shape[1] == 1 else (-1.0, 1.0)


class Truncation(NamedTuple):
    """The factor that scales truncated noise: allowed range and default."""

    minimum: float
    maximum: float
    default: float


class MemberSpec(NamedTuple):
    """Size in bytes and SHA-256 (lower-case hex) of a member."""

    size: int
    sha256: str


class CgnManifest(NamedTuple):
    """`manifest.json` of kind "cgn"; `docs/plan-format.md` explains each field."""

    family: str
    exported_by: str
    resolution: tuple[int, int]  # (height, width) in pixels
    mechanisms: Mapping[str, MechanismSpec | BankSpec]
    noise_mode: NoiseMode = "independent"
    truncation: Truncation | None = None
    precision: Precision = "fp32"
    sources: tuple[Mapping[str, str], ...] = ()
    training_data: str | None = None
    members: Mapping[str, MemberSpec] = MappingProxyType({})
    parity: Mapping[str, Any] = MappingProxyType({})
    format_version: int = FORMAT_VERSION
    stream_version: int = STREAM_VERSION

    @property
    def kind(self) -> str:
        """What the plan is: three mechanisms of a CGN."""
        return "cgn"

    def to_dict(self) -> dict[str, Any]:
        """The manifest as JSON values, keys in the order of the specification."""
        truncation = self.truncation
        return {
            "format_version": self.format_version,
            **({"kind": self.kind} if self.format_version > 1 else {}),
            "stream_version": self.stream_version,
            "family": self.family,
            "exported_by": self.exported_by,
            "resolution": list(self.resolution),
            "noise_mode": self.noise_mode,
            "truncation": truncation
            and {
                "minimum": truncation.minimum,
                "maximum": truncation.maximum,
                "default": truncation.default,
            },
            "precision": self.precision,
            "mechanisms": {
                name: _mechanism_dict(spec, self.format_version) for name, spec in self.mechanisms.items()
            },
            **_common(self),
        }


class SaliencySpec(NamedTuple):
    """A network that finds the object of a photo, and how photos go in and masks come out.

    A photo's pixels are divided by `divide_by`, then `mean` is subtracted and the result divided by `std`, for each
    of red, green and blue.
    """

    graph: str
    weights: str | None
    inputs: tuple[TensorSpec, ...]  # image ("n", 3, height, width)
    outputs: tuple[TensorSpec, ...]  # mask ("n", 1, height, width)
    divide_by: DivideBy  # "maximum": the largest value of the resized photo; "range": 255, or 1 of floats
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    stretch: bool  # the mask's smallest value becomes 0, its largest 1
    storage: HalfStorage | None = None


class SaliencyManifest(NamedTuple):
    """`manifest.json` of kind "saliency": one network, no classes, no noise."""

    family: str
    exported_by: str
    resolution: tuple[int, int]
    saliency: SaliencySpec
    precision: Precision = "fp32"
    sources: tuple[Mapping[str, str], ...] = ()
    training_data: str | None = None
    members: Mapping[str, MemberSpec] = MappingProxyType({})
    parity: Mapping[str, Any] = MappingProxyType({})
    format_version: int = FORMAT_VERSION

    @property
    def kind(self) -> str:
        """What the plan is: a network that finds objects."""
        return "saliency"

    def to_dict(self) -> dict[str, Any]:
        """The manifest as JSON values, keys in the order of the specification."""
        spec = self.saliency
        return {
            "format_version": self.format_version,
            "kind": self.kind,
            "family": self.family,
            "exported_by": self.exported_by,
            "resolution": list(self.resolution),
            "precision": self.precision,
            "saliency": {
                **_files(spec, self.format_version),
                "inputs": [_tensor_dict(tensor) for tensor in spec.inputs],
                "outputs": [_tensor_dict(tensor) for tensor in spec.outputs],
                "divide_by": spec.divide_by,
                "mean": list(spec.mean),
                "std": list(spec.std),
                "stretch": spec.stretch,
            },
            **_common(self),
        }


def _common(manifest: CgnManifest | SaliencyManifest) -> dict[str, Any]:
    """The fields that end every manifest."""
    return {
        "sources": [dict(source) for source in manifest.sources],
        "training_data": manifest.training_data,
        "members": {
            name: {"size": spec.size, "sha256": spec.sha256} for name, spec in manifest.members.items()
        },
        "parity": dict(manifest.parity),
    }


def _files(spec: MechanismSpec | SaliencySpec, format_version: int) -> dict[str, Any]:
    """Where a network lies; before version 3, weights were always stored in full."""
    files: dict[str, Any] = {"graph": spec.graph, "weights": spec.weights}
    if format_version >= 3:
        half = spec.storage
        files["storage"] = half and {"dtype": "float16", "offset": half.offset}
    return files


def _mechanism_dict(spec: MechanismSpec | BankSpec, format_version: int) -> dict[str, Any]:
    if isinstance(spec, BankSpec):
        return {
            "kind": "bank",
            "pictures": spec.pictures,
            "hashes": spec.hashes,
            "index": spec.index,
            "labels": spec.labels,
            "weights": spec.weights,
            "count": spec.count,
            "store": spec.store,
            "follows": spec.follows,
            "classes": list(spec.classes),
            "roll": spec.roll,
            "sources": [asdict(source) for source in spec.sources],
        }
    return {
        **({"kind": "graph"} if format_version >= 4 else {}),
        **_files(spec, format_version),
        "embedding": {"member": spec.embedding.member, "shape": list(spec.embedding.shape)},
        "classes": list(spec.classes),
        "noise": {"size": spec.noise.size, "distribution": spec.noise.distribution},
        "inputs": [_tensor_dict(tensor) for tensor in spec.inputs],
        "outputs": [_tensor_dict(tensor) for tensor in spec.outputs],
        "range": list(spec.range),
        "roll": spec.roll,
    }


def _tensor_dict(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "shape": list(spec.shape), "dtype": spec.dtype}
