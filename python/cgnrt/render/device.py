"""What a device supplies to the renderer."""

from __future__ import annotations

import importlib
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np

from cgnrt import cuda
from cgnrt._support.forking import ForkLock
from cgnrt.backends import Choice, Engine
from cgnrt.batch import DeviceColumns
from cgnrt.plan import MAX_BATCH, MECHANISMS, PICTURES, PRE_MASK, Bank, Mechanism, Plan
from cgnrt.plan.bank import widen
from cgnrt.request.options import PixelFormat
from cgnrt.sampling import NoiseDraw

# The classes of devices, imported when they are chosen: sampling on the CPU loads no CUDA code. "torch" is any device
# that this build has no kernels for.
DEVICES: dict[str, str] = {
    "cpu": "cgnrt.render.host:HostDevice",
    "cuda": "cgnrt.render.cuda:CudaDevice",
    "torch": "cgnrt.render.torch:TorchDevice",
}

# More than some 64 pictures of 32 x 32 at once made no engine faster on a CPU, and the activations of twice as many
# stay in the last-level cache. Larger pictures get fewer per chunk.
CACHED_PIXELS = 128 * 32 * 32

# The column of a pool index that picks each output, and the row of a sample's rolls that shifts it.
COLUMNS = {PICTURES[name]: column for column, name in enumerate(MECHANISMS)} | {PRE_MASK: 0}
ROLLS = {PICTURES["texture"]: 0, PICTURES["background"]: 1}


class Moves(NamedTuple):
    """What moves the pictures of samples, before the blend, on the device: None moves nothing.

    Attributes:
      rolls: int32 (n, 2, 2), by `ROLLS`.
      place: float32 (n, 4), of mask and foreground, after the roll.
    """

    rolls: Any = None
    place: Any = None

    @classmethod
    def of(cls, uploaded: Uploaded, rolls: Any, place: Any, part: slice) -> Moves:
        """Those of some of the samples, of host arrays."""
        return cls(*(None if array is None else uploaded[array][part] for array in (rolls, place)))


# The pictures that a place moves.
PLACED = (PICTURES["shape"], PICTURES["texture"])


class RenderDevice(ABC):
    """Where a renderer works: opened once in each process, with the three networks of the plan.

    An *array* is whatever this device computes with: it has `shape`, `len()` and slices along the first axis, which
    are views. Host arrays are NumPy's. Methods may return before their work is done, if later work sees its result.

    Attributes:
      chunk_pixels: pictures of this many pixels are made at once.
      composes_banks: whether `compose` and `keep` take a bank's bytes as they lie in the file, with host rows.
      ahead: how batches are made before they are asked for: by a "thread", or by enqueuing them on a "stream" of the
        device's own; None: batches are made only when they are asked for.
      stream: the stream that orders the work; None on a device without one.
      lock: held while a chunk is made: what engines return, and the entries of pools, must not change meanwhile. A
        device whose engines take several callers at once may have another `turn` where no pool is used.
    """

    chunk_pixels: ClassVar[int] = CACHED_PIXELS
    composes_banks: ClassVar[bool] = False
    ahead: ClassVar[Literal["thread", "stream"] | None] = "thread"

    def __init__(self, plan: Plan, choice: Choice, threads: int | None) -> None:
        """Prepare for a plan. A device that is always available may load the engines at the first `run`.

        Raises:
          BackendError: the device cannot be used, or an engine refuses its graph.
        """
        self.lock = ForkLock()
        self.stream: Any = None

    # What most devices leave as it is.

    @property
    def largest_batch(self) -> int | None:
        """The most samples that `run` takes; None: any number."""
        return None

    def chunks(self, n: int, resolution: tuple[int, int]) -> Iterator[slice]:
        """Cut n samples into slices of nearly one size, none of more pixels than are made at once."""
        largest = largest_chunk(resolution, self.chunk_pixels)
        if self.largest_batch is not None:
            largest = min(largest, self.largest_batch)
        count = -(-n // largest)
        for k in range(count):
            yield slice(n * k // count, n * (k + 1) // count)

    def call(self) -> AbstractContextManager[None]:
        """A context around everything that one request does on the device."""
        return nullcontext()

    def free_bytes(self) -> int | None:
        """Memory that is free once unused blocks are given back; None if it is not known."""
        return None

    def turn(self) -> AbstractContextManager[None]:
        """A context around the networks' runs for one chunk, and the use of what they return."""
        return self.lock

    def join(self) -> None:  # noqa: B027
        """Let later work see what `run` has started. Nothing to do where `run` returns when it is done."""

    def shown(self, pixels: PixelFormat, images: Any) -> Any:
        """Images as the batch has them."""
        return images

    def hand_out(
        self, labels: Sequence[Any], indices: Any, index: Any, place: Any, pictures: Sequence[Any]
    ) -> DeviceColumns | None:
        """A finished batch's columns on the device, which make `Batch.numpy` and `Batch.torch` work; None on the CPU.

        Args:
          labels: three int64 arrays (n,).  indices: int64 (n,).  index: (n, 3), or None without a pool.
          place: float32 (n, 4), or None.
          pictures: images and parts of the batch.
        """
        return None

    def uploaded(self, arrays: Iterable[np.ndarray | None]) -> Uploaded:
        """Host arrays and their copies on the device, made in one upload; an entry that is None is skipped."""
        here = {id(array): array for array in arrays if array is not None}
        return Uploaded(here, self.upload(list(here.values())))

    def bank_pictures(self, name: str, pictures: np.ndarray) -> dict[str, Any]:
        """uint8 pictures of a bank as float32 (n, c, h, w) by output name: widened on the host and uploaded."""
        (uploaded,) = self.upload([widen(pictures)])
        return {PICTURES[name]: uploaded}

    # What every device supplies.

    @abstractmethod
    def empty(self, shape: tuple[int, ...], dtype: str = "float32") -> Any:
        """New memory; dtype is "float32" or that of a `PixelFormat`."""

    @abstractmethod
    def upload(self, arrays: Sequence[np.ndarray]) -> list[Any]:
        """Copies of small host arrays on the device. The host's may not change afterwards."""

    @abstractmethod
    def draw_noise(self, draw: NoiseDraw, seed: int, indices: np.ndarray, uploaded: Any) -> Any:
        """Noise, float32 (n, draw.size), bit-equal to `draw.draw` on the host.

        Args:
          indices: int64 (n,), what `draw.indices` gave; `uploaded` is the same on the device.
        """

    @abstractmethod
    def scale_rows(self, rows: Any, factors: Any) -> Any:
        """rows * factors: float32 (n, z) and (n, 1)."""

    @abstractmethod
    def embedding(self, mechanism: str, labels: Any) -> Any:
        """Rows of a mechanism's class embedding table, float32 (n, e), for int64 labels (n,)."""

    @abstractmethod
    def run(
        self, mechanism: str, inputs: Mapping[str, Any], into: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Run one network: every named output, float32 (n, c, h, w), good after `join` until its next run.

        Args:
          inputs: every named input of the manifest.
          into: memory for outputs, by name; the device chooses that of the others.
        """

    @abstractmethod
    def put(self, source: Any, target: Any, rows: np.ndarray) -> None:
        """target[rows] = source."""

    @abstractmethod
    def compose(
        self,
        pixels: PixelFormat,
        pictures: Mapping[str, Any],
        index: Any | None,
        moves: Moves,
        images: Any,
    ) -> None:
        """Move, blend, scale, cast and lay out (Eq. 2), as `cgnrt.ops.compose` does.

        Args:
          pictures: "mask" (M, 1, h, w), "foreground" (F, 3, h, w) and "background" (B, 3, h, w), float32.
          index: (n, 3) int32 rows of them; None pairs them in order.
          images: where the images go: memory of `empty`, or a caller's.
        Raises:
          ValueError, TypeError: a caller's memory has another device or dtype.
        """

    @abstractmethod
    def keep(
        self,
        pictures: Mapping[str, Any],
        rows: np.ndarray | None,
        moves: Moves,
        parts: Mapping[str, Any],
    ) -> None:
        """Copy pictures into `parts`, those that are composed as they are then: rolled and placed.

        Args:
          rows: (n, 3) host rows of the pictures, by `COLUMNS`; None takes them in order.
          parts: (n, c, h, w) float32, by output name.
        """


class Opening:
    """The device of one or several renderers, opened on first use in each process.

    Engines do not survive a fork: their worker threads stay behind in the parent.
    """

    def __init__(self, plan: Plan, choice: Choice, threads: int | None) -> None:
        kind = choice.device.kind
        if kind not in DEVICES or (kind == "cuda" and cuda.refusal(choice.device.index) is not None):
            kind = "torch"
        module, _, name = DEVICES[kind].partition(":")
        self.kind: type[RenderDevice] = getattr(importlib.import_module(module), name)
        self.name = str(choice.device)
        self._arguments = plan, choice, threads
        self._opened: tuple[int, RenderDevice] | None = None
        self._closed = False
        self._lock = ForkLock()

    def device(self) -> RenderDevice:
        """The device of this process.

        Raises:
          ValueError: it was closed.
        """
        opened, pid = self._opened, os.getpid()
        if opened is not None and opened[0] == pid:
            return opened[1]
        with self._lock:
            if self._closed:
                raise ValueError(
                    "sample: the generator is closed, expected an open one. Make another Generator."
                )
            if self._opened is None or self._opened[0] != pid:
                self._opened = pid, self.kind(*self._arguments)
            return self._opened[1]

    def close(self) -> None:
        """Let go of the device and its engines. Calls that run in other threads still end well."""
        with self._lock:
            self._opened, self._closed = None, True


class Uploaded:
    """Host arrays and their copies on the device. `uploaded[array]` is the copy of an array."""

    def __init__(self, here: dict[int, np.ndarray], there: Sequence[Any]) -> None:
        self._here = here  # keeps them alive: their ids are the keys
        self._there = dict(zip(here, there, strict=True))

    def __getitem__(self, array: np.ndarray) -> Any:
        return self._there[id(array)]


def load_engines(plan: Plan, load: Callable[[str], Engine]) -> dict[str, Engine]:
    """The engines of a plan's mechanisms; `load` makes one by its mechanism's name."""
    engines = {}
    for name in plan.networks:
        engines[name] = load(name)
        # An engine that keeps reading the plan gets its pages back; one with a copy of its own frees them.
        plan.release_pages()
    return engines


def largest_batch(engines: Mapping[str, Engine]) -> int | None:
    """The most samples that all of the engines take; None: any number."""
    limits = (getattr(engine, "largest_batch", None) for engine in engines.values())
    return min((limit for limit in limits if limit is not None), default=None)


def compose_pictures(
    compose: Callable[..., Any],
    pixels: PixelFormat,
    pictures: Mapping[str, Any],
    index: Any | None,
    moves: Moves,
    images: Any,
    **where: Any,
) -> None:
    """Call an op with the signature of `cgnrt.ops.compose`; all but `where` is as for `RenderDevice.compose`."""
    masks, foregrounds, backgrounds = (pictures[PICTURES[name]] for name in MECHANISMS)
    compose(
        masks,
        foregrounds,
        backgrounds,
        index,
        **moves._asdict(),
        out=images,
        **pixels.compose_options,
        **where,
    )


def compose_placed_part(
    compose: Callable[..., Any],
    ends: Any,
    black: Any,
    name: str,
    picture: Any,
    index: Any,
    moves: Moves,
    part: Any,
    **where: Any,
) -> None:
    """Write the placed mask or foreground to `part`: the composer blends it over black through a mask of one.

    Args:
      ends: masks of zero and of one, (2, 1, h, w).  black: (1, c, h, w) zeros.
      index: as `placed_rows` has it, on the device.
    """
    if name == PICTURES["shape"]:  # m * 1 + (1 - m) * 0
        compose(picture, ends, ends, index, place=moves.place, out=part, **where)
    else:
        compose(ends, picture, black, index, rolls=moves.rolls, place=moves.place, out=part, **where)


def placed_rows(name: str, taken: np.ndarray) -> np.ndarray:
    """The index of `compose_placed_part` for rows of a picture, (n, 3)."""
    one, zero = np.ones_like(taken), np.zeros_like(taken)
    return np.stack([taken, one, zero] if name == PICTURES["shape"] else [one, taken, zero], axis=1)


def output_shapes(mechanism: Mechanism | Bank) -> dict[str, tuple[int, ...]]:
    """Name and shape (c, h, w) of a mechanism's outputs."""
    return {spec.name: tuple(int(size) for size in spec.shape[1:]) for spec in mechanism.spec.outputs}


def largest_chunk(resolution: tuple[int, int], pixels: int = CACHED_PIXELS) -> int:
    """How many samples a chunk has at most: no more than the sizes in a plan's graphs were checked for."""
    return min(MAX_BATCH, max(1, pixels // (resolution[0] * resolution[1])))
