"""`write_bank`: a plan from arrays of pictures, or from mechanisms of other plans."""

from __future__ import annotations

import hashlib
import itertools
import mmap
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from cgnrt import _core
from cgnrt._support.machine import available_cores
from cgnrt._support.suggest import did_you_mean
from cgnrt._support.values import is_int
from cgnrt.plan.bank import Bank, chunk_hashes
from cgnrt.plan.bank_streams import STREAMS, encode_stream
from cgnrt.plan.limits import MAX_ENTRIES, MECHANISMS
from cgnrt.plan.manifest import BankSource, CgnManifest, MechanismSpec, NoiseMode
from cgnrt.plan.reader import Plan
from cgnrt.plan.writer import write_plan

_IN_MEMORY_BYTES = 256 << 20  # of pictures in another order; more go to a temporary file
_ROLES = ("pictures", "hashes", "index", "labels", "weights")
_ENCODED_AT_ONCE = 256  # pictures
_WEIGHTS = 1 << 31  # what float weights of the heaviest class add up to, about


@dataclass(frozen=True)
class BankContents:
    """The pictures of one mechanism.

    Args:
      pictures: uint8 (n, c, h, w), C-contiguous, such as a memory-mapped file: masks have one channel, 255 where the
        object is; foregrounds and backgrounds have three, red, green, blue.
      labels: (n,) integers, the class of each picture. Each class has at least one. Pictures that do not lie class by
        class are sorted into a copy.
      classes: the class names.
      weights: (n,) how often each is drawn within its class: integers that are kept as they are, or floats >= 0, which
        are rounded to about nine digits. None: all alike.
      roll: whether the runtime shifts each drawn picture cyclically (the MNIST CGN's texture shuffle).
      sources: where the pictures come from.
      follows: "shape", for textures: picture i is the object of mask i, and whenever that mask is drawn, so is this
        picture. `labels` and `classes` are then the shape's, and neither weights nor roll may be given.
    Raises:
      TypeError, ValueError: an argument is not as above.
    """

    pictures: np.ndarray
    labels: np.ndarray
    classes: Sequence[str]
    weights: np.ndarray | None = None
    roll: bool = False
    sources: Sequence[BankSource] = ()
    follows: str | None = None

    def __post_init__(self) -> None:
        if self.follows not in (None, "shape"):
            raise ValueError(f"write bank: follows is {self.follows!r}, expected 'shape' or None.")
        if self.follows is not None and (self.weights is not None or self.roll):
            given = "roll" if self.roll else "weights"
            raise ValueError(
                f"write bank: {given} is given beside follows={self.follows!r}, expected one of the two: the shape "
                "decides what is drawn."
            )
        pictures = self.pictures
        if not isinstance(pictures, np.ndarray) or pictures.dtype != np.uint8 or pictures.ndim != 4:
            found = f"{getattr(pictures, 'dtype', type(pictures).__name__)} {getattr(pictures, 'shape', '')}"
            raise TypeError(f"write bank: pictures are {found}, expected uint8 (n, c, h, w).")
        if pictures.shape[1] not in (1, 3) or 0 in pictures.shape or len(pictures) > MAX_ENTRIES:
            raise ValueError(
                f"write bank: pictures have shape {pictures.shape}, expected 1..{MAX_ENTRIES} of 1 or 3 channels."
            )
        labels = np.asarray(self.labels)
        if labels.shape != (len(pictures),) or labels.dtype.kind not in "iu":
            raise ValueError(
                f"write bank: labels are {labels.dtype} {labels.shape}, expected integers ({len(pictures)},)."
            )
        if labels.min() < 0 or labels.max() >= len(self.classes):
            raise ValueError(
                f"write bank: labels are {labels.min()}..{labels.max()}, expected 0..{len(self.classes) - 1}."
            )
        empty = np.flatnonzero(np.bincount(labels, minlength=len(self.classes)) == 0)
        if empty.size:
            raise ValueError(
                f"write bank: class {self.classes[empty[0]]!r} has no picture, expected at least one. Leave the class "
                "out, or add a picture of it."
            )
        object.__setattr__(self, "labels", labels.astype(np.int64))
        object.__setattr__(self, "weights", None if self.weights is None else self._integer_weights())

    def _integer_weights(self) -> np.ndarray:
        weights = np.asarray(self.weights)
        if weights.shape != (len(self.pictures),) or weights.dtype.kind not in "iuf":
            raise ValueError(
                f"write bank: weights are {weights.dtype} {weights.shape}, expected numbers ({len(self.pictures)},)."
            )
        if not (weights >= 0).all() or not np.isfinite(weights).all():
            raise ValueError("write bank: a weight is negative or not finite, expected numbers of 0 or more.")
        sums = np.bincount(self.labels, weights.astype(np.float64), len(self.classes))
        if not sums.all():
            name = self.classes[int(np.flatnonzero(sums == 0)[0])]
            raise ValueError(
                f"write bank: the weights of class {name!r} are all 0, expected one that is not."
            )
        if weights.dtype.kind == "f":
            weights = np.rint(weights.astype(np.float64) / sums[self.labels] * _WEIGHTS)
        elif sums.max() > 0xFFFF_FFFF:
            raise ValueError(
                f"write bank: the weights of a class add up to {sums.max():.0f}, expected at most 4294967295."
            )
        return weights.astype("<u4")

    def members(
        self, name: str, store: str = "raw", quality: int | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """The mechanism's entry in a manifest, and its members; `store` and `quality` as for `write_bank`."""
        rising = not (np.diff(self.labels) < 0).any()
        order = slice(None) if rising else np.argsort(self.labels, kind="stable")
        if store != "raw" and self.pictures.shape[1] == 1:
            store, quality = "webp", None  # a mask that is a little wrong everywhere shows at its borders
        stem, roles = f"banks/{name}", ["pictures", "hashes"]
        members: dict[str, Any] = {}
        if store == "raw":
            pictures = np.ascontiguousarray(self.pictures) if rising else _sorted(self.pictures, order)
            data = pictures.data.cast("B")
        else:
            rows = np.arange(len(self.pictures))[order]
            data, index = _streams((self.pictures[row] for row in rows.tolist()), store, quality)
            members[f"{stem}.index"] = index
            roles.append("index")
        members |= {f"{stem}.pictures": data, f"{stem}.hashes": chunk_hashes(data)}
        if self.follows is None:
            members[f"{stem}.labels"] = self.labels[order].astype("<i4")
            roles.append("labels")
        if self.weights is not None:
            members[f"{stem}.weights"] = np.ascontiguousarray(self.weights[order])
        spec = {
            "kind": "bank",
            "index": None,
            "labels": None,
            **{role: f"{stem}.{role}" for role in roles},
            "weights": None if self.weights is None else f"{stem}.weights",
            "count": len(self.pictures),
            "store": store,
            "follows": self.follows,
            "classes": list(self.classes),
            "roll": self.roll,
            "sources": [asdict(source) for source in self.sources],
        }
        return spec, members


def write_bank(
    path: str | os.PathLike[str],
    *,
    shape: BankContents | Plan,
    texture: BankContents | Plan,
    background: BankContents | Plan,
    family: str = "bank",
    noise_mode: NoiseMode | None = None,
    store: str = "raw",
    quality: int | None = None,
    training_data: str | None = None,
    sources: Sequence[Mapping[str, str]] = (),
    force: bool = False,
) -> str:
    """Write a plan whose mechanisms are pictures, or mechanisms of other plans.

    Args:
      path: the plan to make.
      shape, texture, background: pictures, or an open plan, whose mechanism of this name is taken over, be it a network
        or a bank.
      family, training_data, sources: information in the manifest; a plan that gives a mechanism is added to `sources`.
      noise_mode: "shared": one integer picks the entries of all three, which have the same number in their class; None
        is "independent".
      store: how given pictures are stored: "raw", which is composed from the file as it lies there, or as "webp" or
        "jpeg" streams, which take less of the disk and are decoded when they are used. Masks are then lossless WebP.
      quality: 0..100 of lossy WebP (None is lossless), 1..100 of JPEG (None is 95).
      force: replace an existing file.
    Returns:
      The plan's digest.
    Raises:
      PlanError: the target exists, the disk is full, or the parts do not make a plan (another size or value range).
      ValueError: a mechanism's pictures do not have its channels, sizes differ, or a texture that follows the shape
        does not belong to it.
    """
    given = dict(zip(MECHANISMS, (shape, texture, background), strict=True))
    resolutions = {name: _resolution(part) for name, part in given.items()}
    if len(set(resolutions.values())) > 1:
        found = ", ".join(f"{height} x {width} for {name}" for name, (height, width) in resolutions.items())
        raise ValueError(f"write bank: sizes are {found}, expected one. Resize the pictures.")
    check_store(store, quality)
    _check_following(given)
    mechanisms: dict[str, Any] = {}
    members: dict[str, Any] = {}
    plans: dict[str, Plan] = {}
    for name, part in given.items():
        if isinstance(part, Plan):
            plans[part.digest] = part
            spec, added = _taken_over(name, part)
        else:
            channels = 1 if name == "shape" else 3
            if part.pictures.shape[1] != channels:
                raise ValueError(
                    f"write bank: pictures of {name} have {part.pictures.shape[1]} channels, expected {channels}."
                )
            spec, added = part.members(name, store, quality)
        if clash := members.keys() & added.keys():
            raise ValueError(
                f"write bank: two plans have a member {min(clash)!r}, expected names that differ."
            )
        mechanisms[name] = spec
        members |= added
    truncations = {plan.manifest.truncation for plan in plans.values() if plan.networks}
    truncations.discard(None)
    if len(truncations) > 1:
        raise ValueError("write bank: the plans' ranges of truncation differ, expected one. Use other plans.")
    precisions = {plan.manifest.precision for plan in plans.values() if plan.networks}
    manifest = CgnManifest(
        family=family,
        exported_by=f"cgnrt {_core.build_info()['version']}",
        resolution=resolutions["shape"],
        mechanisms={},
        noise_mode=noise_mode or "independent",
        truncation=next(iter(truncations), None),
        precision=precisions.pop() if len(precisions) == 1 else "fp32",
        sources=(
            *sources,
            *({"name": plan.manifest.family, "sha256": digest} for digest, plan in plans.items()),
        ),
        training_data=training_data,
    )
    return write_plan(path, {**manifest.to_dict(), "mechanisms": mechanisms}, members, force=force)


def source_hash(pictures: np.ndarray) -> str:
    """SHA-256 (hex) of pictures, for a `BankSource` of arrays."""
    return hashlib.sha256(np.ascontiguousarray(pictures).data).hexdigest()


def check_store(store: str, quality: int | None) -> None:
    """Refuse what no pictures can be stored as; see `write_bank`."""
    if store not in ("raw", *STREAMS):
        rule = " or ".join(map(repr, ("raw", *STREAMS)))
        raise ValueError(f"write bank: store is {store!r}, expected {rule}.{did_you_mean(store, STREAMS)}")
    if quality is None:
        return
    if store == "raw":
        raise ValueError("write bank: quality is given for raw pictures. Give store='webp' or 'jpeg', too.")
    from cgnrt._support.encode import QUALITY_BOUNDS

    low, high = QUALITY_BOUNDS[store]
    if not is_int(quality) or not low <= quality <= high:
        raise ValueError(f"write bank: quality is {quality!r}, expected {low}..{high} for {store}.")


def _streams(
    pictures: Iterator[np.ndarray], store: str, quality: int | None
) -> tuple[memoryview, np.ndarray]:
    """Pictures as streams one after the other, in a temporary file without a name, and their index."""
    import tempfile  # programs that only read plans start faster
    from concurrent.futures import ThreadPoolExecutor

    ends = [0]
    with tempfile.TemporaryFile() as file, ThreadPoolExecutor(available_cores()) as threads:
        # `map` of an executor starts all at once: so many streams would be held in memory.
        while part := list(itertools.islice(pictures, _ENCODED_AT_ONCE)):
            for stream in threads.map(lambda picture: encode_stream(picture, store, quality), part):
                file.write(stream)
                ends.append(ends[-1] + len(stream))
        file.flush()
        mapping = mmap.mmap(file.fileno(), ends[-1], access=mmap.ACCESS_READ)
    return memoryview(mapping), np.array(ends, "<u8")


def _check_following(given: Mapping[str, BankContents | Plan]) -> None:
    """Refuse pictures that follow a shape which is not theirs."""
    for name, part in given.items():
        if isinstance(part, Plan):
            if (leader := part.following.get(name)) is None:
                continue
            other = given[leader]
            if not isinstance(other, Plan) or other.digest != part.digest:
                raise ValueError(
                    f"write bank: {name} of '{part.path}' follows {leader}, expected {leader} of the same plan. "
                    f"Give this plan for {leader}, too."
                )
        elif part.follows is not None:
            if name != "texture":
                raise ValueError(
                    f"write bank: follows is {part.follows!r} for {name}, expected it for texture only."
                )
            labels, classes = _labels_of(given["shape"])
            found = part.labels if isinstance(given["shape"], BankContents) else np.sort(part.labels)
            if not np.array_equal(found, labels) or tuple(part.classes) != classes:
                raise ValueError(
                    "write bank: texture follows shape, expected pictures with the shape's labels and classes, one "
                    "for each mask."
                )


def _labels_of(part: BankContents | Plan) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels, in the order of the pictures, and class names of a shape that a texture follows."""
    if isinstance(part, BankContents):
        return np.asarray(part.labels), tuple(part.classes)
    bank = part.mechanisms["shape"]
    if not isinstance(bank, Bank):
        raise ValueError(
            f"write bank: texture follows shape, which is a network in '{part.path}', expected a bank."
        )
    return bank.labels, bank.classes


def _resolution(part: BankContents | Plan) -> tuple[int, int]:
    if isinstance(part, Plan):
        return part.manifest.resolution
    return part.pictures.shape[2], part.pictures.shape[3]


def _taken_over(name: str, plan: Plan) -> tuple[dict[str, Any], dict[str, Any]]:
    """A mechanism of a plan under its own names, so that those of several plans do not meet."""
    mechanism = plan.mechanisms[name]
    found = plan.manifest._replace(format_version=4).to_dict()["mechanisms"][name]
    if isinstance(mechanism, Bank):
        mechanism.verify()
        roles = [role for role in _ROLES if found[role] is not None]
        members = {f"banks/{name}.{role}": plan.member(found[role]) for role in roles}
        return {**found, **{role: f"banks/{name}.{role}" for role in roles}}, members
    spec: MechanismSpec = mechanism.spec
    stem = spec.graph.removesuffix(".onnx")  # which the graph has as the place of its weights
    members = {spec.graph: plan.member(spec.graph)}
    if spec.weights is not None:
        members[spec.weights] = plan.member(spec.weights)
    table = f"{stem}.embedding"
    members[table] = plan.member(spec.embedding.member)
    return {**found, "embedding": {**found["embedding"], "member": table}}, members


def _sorted(pictures: np.ndarray, order: Any) -> np.ndarray:
    """The pictures in another order, in memory or in a temporary file without a name."""
    if pictures.nbytes <= _IN_MEMORY_BYTES:
        copied: np.ndarray = pictures[order]
        return copied
    import tempfile

    with tempfile.TemporaryFile() as file:
        mapped = np.memmap(file, np.uint8, "w+", shape=pictures.shape)
    for row, source in enumerate(order.tolist()):
        mapped[row] = pictures[source]
    return mapped
