"""How long an audit of photos takes over the classifier's own work.

The audit asks an EfficientNet-Lite0 (random weights, whose cost is the same) about photos that are made here: discs
before stripes. Its forward passes alone, on as many images in batches of the same size, take their turn with it.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

import numpy as np
import torch
from report import median_ratio, print_table, summary, time_in_turns, write_json

from cgnrt import real
from cgnrt._support.machine import keep_freed_memory
from cgnrt_training.features.efficientnet_lite import EfficientNetLite

_KINDS = {"with places": 20, "without places": 6}  # of images of each photo
_MOST = 1.5


class _Classifier(torch.nn.Module):
    """The network, for images in [0, 1]."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.network = EfficientNetLite().fold().eval()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.network.logits(images * 2 - 1)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", type=int, default=1000)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="where to write the result")
    arguments = parser.parse_args()
    keep_freed_memory()  # as `cgnrt audit` does; otherwise new pages take half the time of both
    n, batch = arguments.photos, arguments.batch
    photos, masks = make_photos(n, arguments.size)
    labels = np.arange(n) % 10
    model = _Classifier()
    images = torch.rand(batch, 3, arguments.size, arguments.size)
    rows = []
    for title, kinds in _KINDS.items():
        audit = partial(
            real.audit, model, photos, masks, labels, batch_size=batch, places=kinds == 20, progress=False
        )
        times = time_in_turns(
            {"audit": audit, "forward": partial(forward, model, images, n, kinds)},
            rounds=arguments.rounds,
            warmup=0,
        )
        rows.append(
            {
                "images of each photo": title,
                "images": n * kinds,
                "audit_s": summary(times["audit"])["median_ms"] / 1e3,
                "forward_s": summary(times["forward"])["median_ms"] / 1e3,
                "ratio": median_ratio(times["audit"], times["forward"]),
                "at most": _MOST,
            }
        )
    print_table(f"Audit of {n} photos of {arguments.size} px, medians, and of ratios within a round", rows)
    write_json("audit", {**vars(arguments), "json": None, "rows": rows}, arguments.json)


@torch.no_grad()
def forward(model: torch.nn.Module, images: torch.Tensor, n: int, kinds: int) -> None:
    """The passes of an audit alone: whole batches, and at last what remains."""
    for first in range(0, n, len(images)):
        for _ in range(kinds):
            model(images[: n - first])


def make_photos(n: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """uint8 photos (n, size, size, 3) and masks (n, size, size)."""
    y, x = np.mgrid[:size, :size] / size
    photos = np.empty((n, size, size, 3), np.uint8)
    masks = np.empty((n, size, size), np.uint8)
    for k in range(n):
        inside = (y - 0.5) ** 2 + (x - 0.35 - k % 40 / 130) ** 2 < (0.16 + k % 30 / 300) ** 2
        stripes = (x * (200 + 40 * (k % 7)) + y * 90 * (k % 5)) % 64 * 3
        photos[k] = np.where(inside[..., None], (200, 40 + k % 200, 90), stripes[..., None] + (0, k % 60, 30))
        masks[k] = inside * np.uint8(255)
    return photos, masks


if __name__ == "__main__":
    main()
