"""How long an audit of photos takes over the classifier's own work.

The audit asks an EfficientNet-Lite0 about photos: those of --images and --masks, or discs before stripes that are made
here. Its weights are those of --weights, or random, whose cost is the same. Its forward passes alone, on as many images
in batches of the same size, take their turn with it.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from report import host_seconds, median_ratio, print_table, summary, time_in_turns, write_json

from cgnrt import real
from cgnrt._support.machine import keep_freed_memory
from cgnrt.real.files import find_photos, pair_masks, read_mask, read_photo
from cgnrt_training.features.efficientnet_lite import EfficientNetLite
from cgnrt_training.features.files import load_classifier

_KINDS = {"with places": 20, "without places": 6}  # of images of each photo
_MOST = 1.5


class _Classifier(torch.nn.Module):
    """The network, for images in [0, 1]."""

    def __init__(self, weights: Path | None) -> None:
        super().__init__()
        torch.manual_seed(0)
        network = EfficientNetLite() if weights is None else load_classifier(weights)
        self.network = network.fold().eval()

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
    parser.add_argument("--images", type=Path, help="a folder of photos, with a sub-folder for each class")
    parser.add_argument("--masks", type=Path, help="their masks")
    parser.add_argument("--weights", type=Path, help="of an EfficientNet-Lite0")
    parser.add_argument("-n", type=int, help="images of each kind (one for each photo)")
    parser.add_argument(
        "--kinds", choices=("both", *_KINDS), default="both", help="which images are asked about"
    )
    parser.add_argument(
        "--processor-time",
        action="store_true",
        help="count processor time: on one core it is what the clock would say with nothing beside it",
    )
    parser.add_argument(
        "--default-memory", action="store_true", help="leave the C library's settings as they are"
    )
    parser.add_argument("--json", type=Path, help="where to write the result")
    arguments = parser.parse_args()
    if not arguments.default_memory:
        keep_freed_memory()  # as `cgnrt audit` does; otherwise new pages take half the time of both
    batch = arguments.batch
    if arguments.images is None:
        photos, masks = make_photos(arguments.photos, arguments.size)
        labels = np.arange(len(photos)) % 10
    else:
        photos, masks, labels = read_photos(
            arguments.images, arguments.masks, arguments.photos, arguments.size
        )
    n = arguments.n or len(photos)
    model = _Classifier(arguments.weights)
    images = torch.rand(batch, 3, arguments.size, arguments.size)
    seconds = processor_seconds if arguments.processor_time else host_seconds
    rows = []
    for title, kinds in _KINDS.items():
        if arguments.kinds not in ("both", title):
            continue
        audit = partial(
            real.audit,
            model,
            photos,
            masks,
            labels,
            n=n,
            batch_size=batch,
            places=kinds == 20,
            progress=False,
        )
        times = time_in_turns(
            {"audit": audit, "forward": partial(forward, model, images, n, kinds)},
            rounds=arguments.rounds,
            warmup=0,
            seconds=seconds,
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
    print_table(
        f"Audit of {len(photos)} photos of {arguments.size} px, medians, and of ratios within a round", rows
    )
    write_json("audit", {**{k: str(v) for k, v in vars(arguments).items()}, "rows": rows}, arguments.json)


def processor_seconds(call: Callable[[], object]) -> float:
    """Seconds of processor time that all threads spend in a call."""
    begin = time.process_time()
    call()
    return time.process_time() - begin


@torch.no_grad()
def forward(model: torch.nn.Module, images: torch.Tensor, n: int, kinds: int) -> None:
    """The passes of an audit alone: whole batches, and at last what remains."""
    for first in range(0, n, len(images)):
        for _ in range(kinds):
            model(images[: n - first])


def read_photos(
    folder: Path, masks: Path, count: int, size: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The first usable photos of a folder, taking its classes in turn, with masks and labels."""
    found = find_photos([folder])
    classes = sorted(set(found.classes))
    turns: dict[str, int] = dict.fromkeys(classes, 0)
    order = []
    for k, name in enumerate(found.classes):
        order.append((turns[name], name, k))
        turns[name] += 1
    paired = pair_masks(found.photos, masks)
    pictures, planes, labels = [], [], []
    for _, name, k in sorted(order):
        pixels, picture = read_photo(found.photos[k], size)
        mask = read_mask(paired[k], picture, size)
        if real.usable(mask[None]).all():
            pictures.append(pixels)
            planes.append(mask)
            labels.append(classes.index(name))
        if len(labels) == count:
            break
    return np.stack(pictures), np.stack(planes), np.array(labels)


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
