"""Where the masks of photos come from: a folder with the same names, or a network that finds objects."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from cgnrt._support.pictures import Picture, PictureError, has_suffix
from cgnrt.real import Saliency
from cgnrt.real.files import read_mask, square

from .folder import Entry, PhotoFolder, fingerprint, shortened


class MaskSource(Protocol):
    """Gives the masks of photos."""

    def prepare(self, photos: PhotoFolder) -> None:
        """Check, before any work, that there will be a mask for every photo.

        Raises:
          ValueError: a photo has no mask.
        """
        ...

    def about(self) -> dict[str, str]:
        """What the masks are from: "kind", and a "digest" that changes if they do. After `prepare`."""
        ...

    def look(self, entry: Entry, picture: Picture, size: int) -> np.ndarray:
        """What `masks` needs of a photo, which is then let go.

        Raises:
          ValueError: the photo's mask is unreadable, or does not fit.
        """
        ...

    def masks(self, seen: Sequence[np.ndarray], size: int) -> np.ndarray:
        """Masks of the middle squares of at least one photo, (n, size, size) uint8, where 255 is the object."""
        ...


class MaskFolder:
    """Masks from a folder of the photos' layout: the mask of `train/cat/1.jpg` is `train/cat/1.png`.

    It may have the suffix of any picture, after the photo's own or in its place.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_dir():
            raise ValueError(f"masks '{path}': folder is missing, expected one with masks. Check the path.")
        self.path = path
        self._masks: dict[Path, Path] = {}  # by the photo

    def about(self) -> dict[str, str]:
        named = ((mask.relative_to(self.path).as_posix(), mask) for mask in self._masks.values())
        return {"kind": "folder", "digest": fingerprint(named)}

    def prepare(self, photos: PhotoFolder) -> None:
        if self.path.samefile(photos.path):
            raise ValueError(f"masks '{self.path}': folder is that of the photos, expected another one.")
        missing: list[Path] = []
        unused: list[Path] = []
        for split, entries in photos.splits.items():
            known = _masks_by_name(self.path / photos.parts[split].relative_to(photos.path))
            for entry in entries:
                name = Path(entry.name)
                found = known.pop(name, None) or known.pop(name.with_suffix(""), None)
                if found is None:
                    missing.append(entry.path)
                elif len(found) > 1:
                    raise ValueError(
                        f"masks '{self.path}': masks of photo '{split}/{entry.name}' are {shortened(found)}, "
                        "expected one. Remove the others."
                    )
                else:
                    self._masks[entry.path] = found[0]
            unused += [path for paths in known.values() for path in paths]
        if missing:
            raise ValueError(
                f"masks '{self.path}': masks of {len(missing)} photos are missing, expected one for each photo: "
                f"{shortened(missing)}. Add them, or find all masks with --saliency."
            )
        if unused:
            raise ValueError(
                f"masks '{self.path}': photos of {len(unused)} masks are missing, expected one for each mask: "
                f"{shortened(unused)}. Remove these masks."
            )

    def look(self, entry: Entry, picture: Picture, size: int) -> np.ndarray:
        try:
            return read_mask(self._masks[entry.path], picture, size, Image.Resampling.BOX)
        except PictureError as error:
            raise ValueError(f"photo '{entry.path}': {error}") from error

    def masks(self, seen: Sequence[np.ndarray], size: int) -> np.ndarray:
        return np.stack(seen)


class FoundMasks:
    """Masks by a plan of kind "saliency", found at its own resolution and scaled down by the mean of each box."""

    def __init__(self, saliency: Saliency) -> None:
        self._saliency = saliency

    def about(self) -> dict[str, str]:
        return {"kind": "saliency", "digest": self._saliency.plan.digest}

    def prepare(self, photos: PhotoFolder) -> None:
        pass

    def look(self, entry: Entry, picture: Picture, size: int) -> np.ndarray:
        return square(picture, max(self._saliency.plan.manifest.resolution))

    def masks(self, seen: Sequence[np.ndarray], size: int) -> np.ndarray:
        planes = [
            np.asarray(Image.fromarray(mask[0]).resize((size, size), Image.Resampling.BOX))
            for mask in self._saliency(np.stack(seen))
        ]
        found: np.ndarray = np.rint(np.stack(planes) * 255).astype(np.uint8)
        return found


def _masks_by_name(folder: Path) -> dict[Path, list[Path]]:
    """The pictures in a folder's folders, by their path in it without the suffix."""
    found: dict[Path, list[Path]] = {}
    for path in sorted(folder.glob("*/**/*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if has_suffix(path) and not hidden and path.is_file():
            found.setdefault(path.relative_to(folder).with_suffix(""), []).append(path)
    return found
