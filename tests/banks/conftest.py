"""What runs that are stopped leave, and how they go on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cgnrt.banks import unfinished

Stop = Callable[[int], None]


@pytest.fixture
def stop_after(monkeypatch: pytest.MonkeyPatch) -> Stop:
    """Let the next run be interrupted after so many calls of `Unfinished.add`."""

    def stop(calls: int) -> None:
        add = unfinished.Unfinished.add
        count = 0

        def counted(self: Any, *arguments: Any) -> None:
            nonlocal count
            if count == calls:
                monkeypatch.setattr(unfinished.Unfinished, "add", add)
                raise KeyboardInterrupt
            count += 1
            add(self, *arguments)

        monkeypatch.setattr(unfinished.Unfinished, "add", counted)

    return stop


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


SIZE = (72, 96)  # height, width of the photos


def photo(k: int) -> tuple[np.ndarray, np.ndarray]:
    """A photo, uint8 (h, w, 3), of a striped disc, and its mask, uint8 (h, w)."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    inside = (y - 36) ** 2 + (x - 40 - 2 * k) ** 2 < 20**2
    stripes = 40 * (x % 8 < 4) + 3 * k
    image = np.where(inside[..., None], (200, 60, 90), (20, 120, 40 + k)) + stripes[..., None]
    return np.minimum(image, 255).astype(np.uint8), (inside * 255).astype(np.uint8)


@pytest.fixture
def album(tmp_path: Path) -> tuple[Path, Path]:
    """Folders of photos and of their masks: five of a cat, four of a dog; cat 3 has no object."""
    photos, masks = tmp_path / "photos", tmp_path / "masks"
    for k in range(9):
        name = Path("cat" if k < 5 else "dog") / f"{k}.png"
        image, mask = photo(k)
        for folder, pixels in ((photos, image), (masks, mask * (k != 3))):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / name)
    (photos / "notes.txt").write_text("no photo")
    return photos, masks
