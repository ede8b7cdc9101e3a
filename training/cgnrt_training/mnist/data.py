"""The MNIST variants of App. A.2, made on the fly from the original IDX files.

Everything random about an image is a function of (seed, index), so that a batch is the same whatever came
before it and training can be resumed at any step.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageColor

from cgnrt._support.pictures import PictureError, has_suffix, read_picture
from cgnrt._support.suggest import did_you_mean

from .config import N_CLASSES as N_CLASSES
from .config import VARIANTS
from .idx import read_idx

RESOLUTION = 32
N_TRAIN = 50_000  # of the 60,000 training digits; the test domain takes the rest, as the authors' code does
BINARISE_ABOVE = 0.1

# Kim et al. (2019), as used by the paper: RGB means of the object's colour, variance 0.02 on [0, 1].
COLORED = {
    "crimson": (220, 20, 60),
    "teal": (0, 128, 128),
    "lemon": (253, 233, 16),
    "cerulean": (0, 149, 182),
    "tangerine": (237, 145, 33),
    "purple": (145, 30, 188),
    "turquoise": (70, 240, 240),
    "pink": (250, 197, 187),
    "pear": (210, 245, 60),
    "maroon": (128, 0, 0),
}
COLORED_SIGMA = 0.02**0.5
# The authors' palette: class i has colour i behind it and colour i - 6 on it, standard deviation 0.01.
PALETTE = {
    "darkgreen": "darkgreen",
    "darkblue": "darkblue",
    "maroon": "#b03060",
    "orangered": "orangered",
    "yellow": "yellow",
    "burlywood": "burlywood",
    "lime": "lime",
    "aqua": "aqua",
    "fuchsia": "fuchsia",
    "cornflower": "#6495ed",
}
DOUBLE_SIGMA = 0.01
TEXTURE_SIZE = 150
TEXTURE_PAD = 3

Domain = Literal["train", "test"]
Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Batch:
    """Images with the labels of their three cues; in the train domain the three are equal."""

    images: Floats  # (n, 3, 32, 32) in [-1, 1]
    labels: Ints  # (n,) the digit: the shape's class
    texture: Ints  # (n,) the class whose colour or texture the digit has
    background: Ints  # (n,) likewise of the background


@dataclass(frozen=True)
class Textures:
    """Pictures whose crops fill object and background, one a class."""

    object: NDArray[np.uint8]  # (10, side, side, 3)
    background: NDArray[np.uint8]
    object_names: list[str]
    background_names: list[str]


class VariantMnist:
    """One MNIST variant in one domain.

    Args:
      variant: "colored", "double-colored" or "wildlife".
      data: the folder with the IDX files `train-images-idx3-ubyte[.gz]` and `train-labels-idx1-ubyte[.gz]`.
      domain: "train" is train[:50000] with cues that follow the label, "test" train[50000:] with random cues.
      seed: with the index, decides all that is random about an image.
      textures: wildlife only: a folder with `object/` and `background/`, ten pictures each, whose file names
        start with the digit.
      correlation: the share of images whose cues follow the label; the others' are uniformly random. By
        default 1 in the train domain and 0 in the test domain.
    Raises:
      ValueError: a file is missing or damaged, or an argument is not as above.
    """

    def __init__(
        self,
        variant: str,
        data: str | os.PathLike[str],
        *,
        domain: Domain = "train",
        seed: int = 0,
        textures: str | os.PathLike[str] | None = None,
        correlation: float | None = None,
    ) -> None:
        if variant not in VARIANTS:
            raise ValueError(
                f"load data: variant is '{variant}', expected one of {', '.join(VARIANTS)}."
                f"{did_you_mean(variant, VARIANTS)}"
            )
        if domain not in ("train", "test"):
            raise ValueError(f"load data: domain is '{domain}', expected train or test.")
        if correlation is None:
            correlation = 1.0 if domain == "train" else 0.0
        if not 0 <= correlation <= 1:
            raise ValueError(f"load data: correlation is {correlation}, expected in [0, 1].")
        self.variant = variant
        self.domain = domain
        self.seed = seed
        self.correlation = correlation
        self.textures: Textures | None = None
        if variant == "wildlife":
            if textures is None:
                raise ValueError(
                    "load data: textures is not given, expected a folder with object/ and background/ for "
                    "variant wildlife. Pass --textures DIR."
                )
            self.textures = load_textures(textures)
        digits, labels = load_digits(data)
        split = slice(None, N_TRAIN) if domain == "train" else slice(N_TRAIN, None)
        self.labels = labels[split]
        if not len(self.labels):
            raise ValueError(
                f"load data '{data}': {domain} split is empty ({len(labels)} digits), expected more than "
                f"{N_TRAIN} for the test domain and at least one for the train domain. Check the files."
            )
        self.digits = _binarise(digits[split])

    def __len__(self) -> int:
        """Digits in the split. Indices go on beyond: index i is digit i % len with cues of its own."""
        return len(self.labels)

    @property
    def class_names(self) -> dict[str, list[str]]:
        """Names of the ten classes of each mechanism, unique within it."""
        digits = [str(digit) for digit in range(N_CLASSES)]
        if self.textures is not None:
            return {
                "shape": digits,
                "texture": self.textures.object_names,
                "background": self.textures.background_names,
            }
        if self.variant == "colored":  # the background is black for all
            return {"shape": digits, "texture": list(COLORED), "background": [f"black {d}" for d in digits]}
        names = list(PALETTE)
        return {"shape": digits, "texture": [names[i - 6] for i in range(N_CLASSES)], "background": names}

    def batch(self, indices: NDArray[np.integer] | Sequence[int]) -> Batch:
        """The images at `indices`, any non-negative integers, in their order.

        Raises:
          ValueError: an index is negative.
        """
        index = np.asarray(indices, dtype=np.int64).reshape(-1)
        if len(index) and index.min() < 0:
            raise ValueError(f"load data: index is {index.min()}, expected >= 0.")
        digit = index % len(self)
        labels = self.labels[digit]
        texture = self._cue(index, labels, slot=0)
        background = self._cue(index, labels, slot=4)
        front = self._fill(index, texture, front=True)
        back = self._fill(index, background, front=False)
        mask = self.digits[digit][:, None, :, :]
        return Batch(np.where(mask, front, back) * np.float32(2) - np.float32(1), labels, texture, background)

    def fills(self, indices: NDArray[np.integer] | Sequence[int], cue: int, *, front: bool) -> Floats:
        """What objects (`front`) or what is behind them is filled with, whole: (n, 3, 32, 32) in [-1, 1].

        Of the images at `indices`, if their cue were this class.
        """
        index = np.asarray(indices, dtype=np.int64).reshape(-1)
        filled = self._fill(index, np.full(len(index), cue), front=front) * np.float32(2) - np.float32(1)
        return np.ascontiguousarray(np.broadcast_to(filled, (len(index), 3, RESOLUTION, RESOLUTION)))

    def _cue(self, index: Ints, labels: Ints, slot: int) -> Ints:
        follows = uniform(self.seed, index, slot) < self.correlation
        drawn = (uniform(self.seed, index, slot + 1) * N_CLASSES).astype(np.int64)
        return np.where(follows, labels, drawn)

    def _fill(self, index: Ints, cue: Ints, *, front: bool) -> Floats:
        """(n, 3, 1 or 32, 1 or 32) in [0, 1]: what the digit, or what is behind it, is filled with."""
        n = len(index)
        slot = 8 if front else 16
        if self.textures is not None:
            source = self.textures.object if front else self.textures.background
            room = source.shape[1] - RESOLUTION + 1
            y = (uniform(self.seed, index, slot) * room).astype(np.int64)[:, None] + np.arange(RESOLUTION)
            x = (uniform(self.seed, index, slot + 1) * room).astype(np.int64)[:, None] + np.arange(RESOLUTION)
            crops = source[cue[:, None, None], y[:, :, None], x[:, None, :]]
            pixels: Floats = crops.transpose(0, 3, 1, 2).astype(np.float32)
            return pixels / np.float32(255)
        if self.variant == "colored":
            if not front:
                return np.zeros((n, 3, 1, 1), np.float32)
            colours, sigma = _COLORED_RGB[cue], COLORED_SIGMA
        else:
            colours, sigma = _PALETTE_RGB[cue - 6 if front else cue], DOUBLE_SIGMA
        noise = np.stack([normal(self.seed, index, slot + 2 * channel) for channel in range(3)], axis=1)
        return np.clip(colours + sigma * noise, 0, 1).astype(np.float32)[:, :, None, None]


_COLORED_RGB = np.array(list(COLORED.values()), np.float64) / 255
_PALETTE_RGB = np.array([ImageColor.getrgb(colour)[:3] for colour in PALETTE.values()], np.float64) / 255


def load_digits(folder: str | os.PathLike[str], part: str = "train") -> tuple[NDArray[np.uint8], Ints]:
    """The digits of a folder of IDX files.

    Args:
      part: "train" or "t10k", how the file names start.
    Returns:
      (n, 28, 28) uint8 images and (n,) int64 labels.
    Raises:
      ValueError: a file is missing or damaged, or the two do not fit together.
    """
    images_path, labels_path = (
        _find(Path(folder), f"{part}-{kind}-ubyte") for kind in ("images-idx3", "labels-idx1")
    )
    images, labels = read_idx(images_path, axes=3), read_idx(labels_path, axes=1)
    if images.shape[1:] != (28, 28):
        raise ValueError(f"load '{images_path}': image size is {images.shape[1:]}, expected (28, 28).")
    if len(images) != len(labels):
        raise ValueError(
            f"load '{labels_path}': label count is {len(labels)}, expected {len(images)} as in "
            f"'{images_path.name}'. Take both from one source."
        )
    if len(labels) and labels.max() >= N_CLASSES:
        raise ValueError(f"load '{labels_path}': label is {labels.max()}, expected 0..9. Get the file again.")
    return images, labels.astype(np.int64)


def _find(folder: Path, name: str) -> Path:
    for candidate in (folder / name, folder / f"{name}.gz"):
        if candidate.is_file():
            return candidate
    raise ValueError(
        f"load data '{folder}': file '{name}' is missing, expected it or '{name}.gz'. "
        f"Put the four original MNIST files there."
    )


def _binarise(digits: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """(n, 28, 28) -> (n, 32, 32): nearest neighbour, then above 0.1 of the full range."""
    source = np.arange(RESOLUTION) * digits.shape[1] // RESOLUTION
    return digits[:, source[:, None], source[None, :]] > BINARISE_ABOVE * 255


def load_textures(folder: str | os.PathLike[str]) -> Textures:
    """Ten object and ten background pictures: resized (nearest) to 150 px, reflected by 3 at the border.

    Raises:
      ValueError: a class is missing or doubled, or a picture does not decode.
    """
    arrays, names = [], []
    for kind in ("object", "background"):
        paths = _textures_by_class(Path(folder) / kind)
        arrays.append(np.stack([_read_texture(path) for path in paths]))
        stems = [path.stem.partition("_")[2] or path.stem for path in paths]
        names.append(stems if len(set(stems)) == len(stems) else [path.stem for path in paths])
    return Textures(arrays[0], arrays[1], names[0], names[1])


def _textures_by_class(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise ValueError(
            f"load textures '{folder}': folder is missing, expected ten pictures. Check --textures."
        )
    found: dict[int, Path] = {}
    for path in sorted(folder.iterdir()):
        if not has_suffix(path) or path.name.startswith("."):
            continue
        prefix = path.stem.partition("_")[0]
        if len(prefix) != 1 or prefix not in "0123456789":
            raise ValueError(
                f"load textures '{path}': file name starts with '{prefix}', expected the class, 0..9, "
                f"and '_'. Rename it."
            )
        if int(prefix) in found:
            raise ValueError(
                f"load textures '{folder}': class {prefix} is present twice ('{found[int(prefix)].name}', "
                f"'{path.name}'), expected one picture a class. Remove one."
            )
        found[int(prefix)] = path
    if missing := [str(digit) for digit in range(N_CLASSES) if digit not in found]:
        raise ValueError(
            f"load textures '{folder}': classes {', '.join(missing)} are missing, expected one picture for "
            f"each of 0..9. Add them."
        )
    return [found[digit] for digit in range(N_CLASSES)]


def _read_texture(path: Path) -> NDArray[np.uint8]:
    try:
        picture = read_picture(path, "RGB").image
    except PictureError as error:
        raise ValueError(f"load textures '{path}': content does not decode: {error}") from error
    resized = picture.resize((TEXTURE_SIZE, TEXTURE_SIZE), Image.Resampling.NEAREST)
    pad = TEXTURE_PAD
    return np.pad(np.asarray(resized), ((pad, pad), (pad, pad), (0, 0)), mode="reflect")


def uniform(seed: int, index: Ints, slot: int) -> NDArray[np.float64]:
    """(n,) values in [0, 1), a hash (SplitMix64) of seed, slot and index."""
    key = _mix(np.array([seed % 2**64], np.uint64))
    key = _mix(key + np.uint64((slot + 1) * 0xD1B54A32D192ED03 % 2**64))
    bits = _mix(key + index.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15))
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def normal(seed: int, index: Ints, slot: int) -> NDArray[np.float64]:
    """(n,) standard normal values (Box-Muller) from slots `slot` and `slot + 1`."""
    radius = np.sqrt(-2 * np.log1p(-uniform(seed, index, slot)))
    values: NDArray[np.float64] = radius * np.cos(2 * np.pi * uniform(seed, index, slot + 1))
    return values


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
