"""Photos packed for training: once read, scaled and cropped, then memory-mapped arrays.

A pack is a folder with `train.images.npy`, `train.labels.npy`, `train.masks.npy`, the same of `val`, and `photos.json`,
which comes last: without it the pack is not finished. `writing.py` fills it.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from cgnrt._support.reading import read_text
from cgnrt._support.terminal import say
from cgnrt.errors import CgnrtError

from .folder import scan_photos
from .masks import MaskSource
from .writing import ABOUT, FORMAT, FORMAT_VERSION, Writer, settings_of

# A mask that covers less of its photo than this shows no object. Such photos stay in the pack and are photos for a
# cGAN like any other, but nothing is to learn from them about masks.
SMALLEST_SHARE = 0.01


@dataclass(frozen=True, eq=False)
class Photos:
    """The photos of one split. The arrays are mapped from files: read-only, read when they are used.

    Attributes:
      images: (n, 3, size, size) uint8.
      labels: (n,) int64, indices of `classes`.
      masks: (n, size, size) uint8, where 255 is the object; None if the pack has no masks.
      classes: the names, as the folders are called.
      size: side of the pictures in pixels.
      fingerprint: of the files that the pack is made of; another one if they were changed and packed again.
    """

    images: np.ndarray
    labels: np.ndarray
    masks: np.ndarray | None
    classes: tuple[str, ...]
    size: int
    fingerprint: str

    def __len__(self) -> int:
        return len(self.images)

    def with_object(self) -> np.ndarray:
        """Indices, int64, of the photos whose mask covers at least `SMALLEST_SHARE` of them.

        Raises:
          ValueError: the pack has no masks, or no photo has an object.
        """
        if self.masks is None:
            raise ValueError(
                "photos: masks are missing, expected a pack with masks. Pack with --saliency or --masks."
            )
        shares = np.array([mask.mean() for mask in self.masks]) / 255
        found = np.flatnonzero(shares >= SMALLEST_SHARE)
        if not len(found):
            raise ValueError(
                f"photos: the largest object covers {shares.max():.2%} of its photo, expected at least "
                f"{SMALLEST_SHARE:.0%} in some photo. Look at the photos, or give masks of your own with --masks."
            )
        return found


def pack_photos(
    images: Path,
    output: Path,
    size: int,
    masks: MaskSource | None = None,
    *,
    force: bool = False,
    log: TextIO | None = None,
) -> Path:
    """Pack a folder of photos. The same call again goes on where a stopped one was, or finds all done.

    A photo's shorter side is scaled to `size`, and its middle square is kept. Photos that are broken or smaller are
    left out; the log and `photos.json` name them.

    Args:
      images: see `folder.scan_photos`.
      output: the folder of the pack.
      size: side of the pictures in pixels.
      masks: where masks come from; None for none.
      force: replace a pack of other photos, size or masks.
    Returns:
      `output`.
    Raises:
      ValueError: `scan_photos` or the masks refuse the folder, a class has too few usable photos, no photo has an
        object, or `output` has a pack of other photos, size or masks and `force` is off.
      CgnrtError: the pack cannot be written; what is done stays.
    """
    log = log or sys.stderr
    if size < 1:
        raise ValueError(f"photos: size is {size}, expected at least 1.")
    folder = scan_photos(images)
    if masks is not None:
        masks.prepare(folder)
    settings = settings_of(folder, size, masks)
    if folder.others:
        say(f"photos: {len(folder.others)} files are not called like pictures, and are not read", log)
    if (output / ABOUT).exists() and not force:
        _check_same(output, read_about(output), settings)
    else:
        with Writer(output, folder, settings, force=force, log=log) as writer:
            writer.fill(masks)
            writer.finish()
    for split in folder.splits:
        photos = open_photos(output, split)
        usable = "" if photos.masks is None else f", {len(photos.with_object()):,} of them with an object"
        say(f"photos: '{output}' has {len(photos):,} in {split}{usable}", log)
    return output


def open_photos(folder: str | os.PathLike[str], split: str = "train") -> Photos:
    """The photos of a pack.

    Args:
      folder: what `pack_photos` wrote.
      split: "train" or "val".
    Raises:
      CgnrtError: there is no finished pack, or it is damaged.
      ValueError: the pack does not have this split.
    """
    folder = Path(folder)
    about = read_about(folder)
    if split not in about["splits"]:
        raise ValueError(
            f"photos '{folder}': split is {split!r}, expected one of {', '.join(about['splits'])}. "
            f"Pack a folder that has '{split}'."
        )
    size, n = about["size"], len(about["splits"][split]["names"])
    shapes: dict[str, tuple[tuple[int, ...], type]] = {
        "images": ((n, 3, size, size), np.uint8),
        "labels": ((n,), np.int64),
    }
    if about["masks"] is not None:
        shapes["masks"] = ((n, size, size), np.uint8)
    arrays = {}
    for name, (shape, dtype) in shapes.items():
        path = folder / f"{split}.{name}.npy"
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise CgnrtError(
                f"photos '{path}': file is unreadable ({error}), expected an array. Pack again with --force."
            ) from error
        if array.shape != shape or array.dtype != dtype:
            raise CgnrtError(
                f"photos '{path}': array is {array.dtype} {array.shape}, expected {np.dtype(dtype)} {shape}. "
                "Pack again with --force."
            )
        arrays[name] = array
    return Photos(
        arrays["images"],
        arrays["labels"],
        arrays.get("masks"),
        tuple(about["classes"]),
        size,
        about["fingerprint"],
    )


def read_about(folder: Path) -> dict[str, Any]:
    """What `photos.json` says.

    Raises:
      CgnrtError: it is missing, damaged or newer.
    """
    path = folder / ABOUT
    try:
        found = json.loads(read_text(path))
    except OSError as error:
        raise CgnrtError(
            f"photos '{folder}': {ABOUT} is unreadable ({error.strerror or error}), expected a finished pack. "
            "Pack with: cgnrt-train photos"
        ) from error
    except ValueError as error:
        raise _damaged(path, str(error)) from error
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise _damaged(path, "it is not a pack's")
    if found.get("format_version") != FORMAT_VERSION:
        raise CgnrtError(
            f"photos '{path}': format version is {found.get('format_version')!r}, expected {FORMAT_VERSION}. "
            "Upgrade cgnrt, or pack again with --force."
        )
    try:
        well = (
            type(found["size"]) is int
            and all(isinstance(name, str) for name in [found["fingerprint"], *found["classes"]])
            and all(isinstance(split["names"], list) for split in found["splits"].values())
            and (found["masks"] is None or isinstance(found["masks"], dict))
        )
    except (KeyError, TypeError, AttributeError):
        well = False
    if not well:
        raise _damaged(path, "entries are missing or of another type")
    return found


def _check_same(output: Path, about: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Refuse a finished pack of something else.

    Raises:
      ValueError: naming what differs.
    """
    differ = [name for name, value in settings.items() if about.get(name) != value]
    if differ:
        raise ValueError(
            f"photos '{output}': {', '.join(differ)} of the pack differ from those asked for, expected the same. "
            "Use --force to replace it, or another folder."
        )


def _damaged(path: Path, why: str) -> CgnrtError:
    return CgnrtError(f"photos '{path}': content is damaged ({why}). Pack again with --force.")
