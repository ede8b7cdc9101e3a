"""Masks of photos, by a plan of a network that finds objects: U2-Net or U2-Net-p (Qin et al., 2020)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from cgnrt._support.forking import ForkLock
from cgnrt._support.values import check_threads
from cgnrt.backends import choose
from cgnrt.backends.base import Device, Engine, check_outputs
from cgnrt.errors import BackendError
from cgnrt.plan import SaliencyPlan, SaliencySpec
from cgnrt.real.photos import Pictures, read_pictures

_CHUNK = 4  # photos in one call of the network


class Saliency:
    """Finds the object of each photo.

    As in the network's official code, a photo is resized to the plan's resolution (320 x 320; bilinear, with a filter
    if it shrinks), divided by its largest value, and normalised by ImageNet's mean and standard deviation. The mask is
    stretched to 0..1 and resized back. The plan says which of these steps its network needs.

    Args:
      path: a plan that `cgnrt-export u2netp.pth` wrote.
      backend: as for `Generator`; one that runs on the CPU.
      device: "auto" or "cpu"; photos are in the host's memory.
      precision: "auto", "fp32" or "bf16".
      threads: of the engine; None means all cores.
    Raises:
      PlanError: the file is not a plan of such a network.
      MissingDependencyError, BackendError: no engine can run the plan with these options.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        backend: str = "auto",
        device: str = "auto",
        precision: str = "auto",
        threads: int | None = None,
    ) -> None:
        threads = check_threads(threads)
        if device != "auto" and Device.parse(device).kind != "cpu":
            raise BackendError(
                f"load '{path}': device is {device}, expected 'auto' or 'cpu'. Photos are masked on the CPU."
            )
        self.plan = SaliencyPlan.open(path)
        self._absolute = str(Path(path).absolute())  # worker processes may have another current folder
        self._options: dict[str, Any] = {
            "backend": backend,
            "device": device,
            "precision": precision,
            "threads": threads,
        }
        self._choice = choose(
            f"'{path}'",
            backend=backend,
            device="cpu",
            precision=precision,
            default_precision=self.plan.manifest.precision,
            networks=[self.plan.network],
        )
        self._threads = threads
        self._lock = ForkLock()  # engines take one caller at a time
        self._engine: Engine | None = None
        self._pid = 0

    @property
    def backend(self) -> str:
        """The engine library in use."""
        return self._choice.backend.name

    @property
    def precision(self) -> str:
        """The precision in use."""
        return self._choice.precision

    def __repr__(self) -> str:
        return (
            f"Saliency({self.plan.path!r}, backend={self.backend!r}, precision={self.precision!r}: "
            f"{self._choice.reason})"
        )

    def __call__(self, images: Any) -> np.ndarray:
        """Masks of photos.

        Args:
          images: (n, 3, h, w) or (n, h, w, 3), uint8 or floats in [0, 1].
        Returns:
          (n, 1, h, w) float32 in [0, 1]. A mask is 0 everywhere if the network finds no difference between pixels.
        Raises:
          TypeError, ValueError: images are not as above, or a pixel is NaN.
          BackendError: the engine failed.
        """
        pictures = read_pictures(images, "saliency")
        masks = np.empty((len(pictures), 1, *pictures.size), np.float32)
        for first in range(0, len(masks), _CHUNK):
            part = slice(first, first + _CHUNK)
            inputs = self.prepare(pictures, part)
            with self._lock:
                self.plan.check_unchanged()
                outputs = self._open().run({"image": inputs})
                check_outputs("saliency", outputs, {"mask": (len(inputs), 1, *inputs.shape[2:])})
                found = outputs["mask"]
                self.plan.check_unchanged()
                for at, mask in enumerate(found, first):
                    masks[at, 0] = self.finish(mask[0], pictures.size)
        return masks

    def prepare(self, pictures: Pictures, part: slice) -> np.ndarray:
        """The network's input for some of the photos: (n, 3, h, w) float32."""
        spec: SaliencySpec = self.plan.network.spec
        size = self.plan.manifest.resolution
        photos = pictures.pixels(part)
        inputs = np.empty((len(photos), 3, *size), np.float32)
        for at, photo in enumerate(photos):
            for channel, plane in enumerate(photo):
                inputs[at, channel] = _resized(plane, size)
            # The largest value of a black photo is 0.
            largest = float(inputs[at].max()) if spec.divide_by == "maximum" else pictures.range[1]
            inputs[at] /= largest if largest > 0 else 1.0
        mean, std = (np.array(values, np.float32)[:, None, None] for values in (spec.mean, spec.std))
        inputs -= mean
        inputs /= std
        return inputs

    def finish(self, mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """A mask of the network, (h, w), stretched and resized to a photo's size."""
        if self.plan.network.spec.stretch:
            low, high = float(mask.min()), float(mask.max())
            mask = (mask - low) / (high - low) if high > low else np.zeros_like(mask)
        resized: np.ndarray = np.clip(_resized(mask, size), 0, 1)
        return resized

    def _open(self) -> Engine:
        # A forked process opens a new engine: the old one's worker threads exist only in the parent.
        if self._engine is None or self._pid != os.getpid():
            self._engine = self._choice.load(self.plan.network.name, self._threads)
            self._pid = os.getpid()
        return self._engine

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (self._absolute, self.plan.digest, self._options)


def _resized(plane: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(h, w) float32, bilinear."""
    if plane.shape == size:
        return plane
    image = Image.fromarray(np.ascontiguousarray(plane, np.float32))
    return np.asarray(image.resize((size[1], size[0]), Image.Resampling.BILINEAR))


def _reopen(path: str, digest: str, options: dict[str, Any]) -> Saliency:
    saliency = Saliency(path, **options)
    saliency.plan.check_digest(digest, "this object was made")
    return saliency
