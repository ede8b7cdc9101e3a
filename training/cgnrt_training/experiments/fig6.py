"""Fig. 6 (App. A.1): the latent space of a beta-VAE on colored MNIST, as a picture and in numbers.

The paper's claim is that its axes are not colour and shape: both vary when one latent is traversed. The numbers need
nothing but the train domain: a decoded picture's colour is named by the nearest class colour, its digit by the nearest
masks of the train domain, in which colour plays no part.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import torch
from torch import Tensor

from ..mnist.data import COLORED, N_CLASSES, VariantMnist
from ..mnist.vae import Vae, VaeConfig, kl_by_latent, load_vae, train_vae
from ..settings import to_dict
from . import cells, plots
from .tables import markdown

REACH = 2.5  # a traversal goes from -REACH to REACH, where 99 % of the prior lies
POINTS = 21  # of a traversal
ACTIVE_NATS = 0.1  # a latent with less KL than this carries nothing
INK = 0.5  # of the brightest pixel: above it a pixel is the digit's; decoded strokes are dim where they are unsure
NEIGHBOURS = 5
N_REFERENCES = 5000  # masks of the train domain that digits are named by
N_IMAGES = 200  # images whose codes traversals go through
KINDS = ("colour", "digit", "both", "colour_alone", "digit_alone")


class Namer:
    """Names the colour and the digit of pictures, each without regard to the other.

    Args:
      references: (m, 3, 32, 32) in [-1, 1] with labels (m,): colored MNIST of the train domain. Their masks are what a
        digit is compared with; their colours are not used.
    """

    def __init__(self, references: Tensor, labels: Tensor) -> None:
        self.masks = _mask(references).flatten(1)
        self.labels = labels
        self.colours = torch.tensor(list(COLORED.values())) / 255.0

    def colour(self, pictures: Tensor) -> Tensor:
        """(n, 3, 32, 32) in [-1, 1] -> (n,): the class whose colour is nearest to the mean colour of the digit."""
        mask = _mask(pictures)[:, None]
        ink = ((pictures / 2 + 0.5) * mask).sum((2, 3)) / mask.sum((2, 3)).clamp(min=1)
        return torch.cdist(ink, self.colours).argmin(1)

    def digit(self, pictures: Tensor) -> Tensor:
        """(n, 3, 32, 32) in [-1, 1] -> (n,): the most frequent label among the nearest masks."""
        distances = torch.cdist(_mask(pictures).flatten(1), self.masks)
        near = self.labels[distances.topk(min(NEIGHBOURS, len(self.masks)), largest=False).indices]
        votes = torch.nn.functional.one_hot(near, N_CLASSES).sum(1)
        return votes.argmax(1)


def _mask(pictures: Tensor) -> Tensor:
    """(n, 3, h, w) in [-1, 1] -> (n, h, w) of 0 and 1: where there is ink, whatever its colour."""
    value = pictures.amax(1) / 2 + 0.5
    return (value > INK * value.amax((1, 2), keepdim=True)).float()


@torch.no_grad()
def traverse(vae: Vae, codes: Tensor, latent: int) -> Tensor:
    """Decode every code with one latent going from -REACH to REACH: (n, latents) -> (n, POINTS, 3, 32, 32)."""
    moved = codes[:, None].repeat(1, POINTS, 1)
    moved[:, :, latent] = torch.linspace(-REACH, REACH, POINTS)
    return vae.decode(moved.flatten(0, 1)).reshape(len(codes), POINTS, 3, 32, 32)


def changes(colours: Tensor, digits: Tensor) -> dict[str, float]:
    """Of all pairs of two points of one traversal, the shares that differ in colour, in digit, in both or in one alone.

    Along an axis that is colour alone, `both` and `digit_alone` are 0; along one that is shape alone, `both` and
    `colour_alone` are.

    Args:
      colours, digits: (n, points) names along n traversals.
    """
    first, second = torch.triu_indices(colours.shape[1], colours.shape[1], offset=1)
    colour, digit = (names[:, first] != names[:, second] for names in (colours, digits))
    found = (colour, digit, colour & digit, colour & ~digit, digit & ~colour)
    return {kind: float(share.float().mean()) for kind, share in zip(KINDS, found, strict=True)}


@torch.no_grad()
def measure(vae: Vae, data: VariantMnist, seed: int = 0) -> dict[str, Any]:
    """What the axes of a trained VAE's latent space are.

    Args:
      data: colored MNIST's train domain.
    Returns:
      `axes` (for each latent `kl`, `active` and the shares of `changes`), `images` that were traversed, `agreement` of
      colour and digit of pictures decoded from the prior, `agreement_of_data` by the same measure.
    """
    n = min(N_REFERENCES, len(data))
    references = data.batch(list(range(n)))
    namer = Namer(torch.from_numpy(references.images), torch.from_numpy(references.labels))
    own = range(n, min(n + 1000, len(data))) if len(data) > n else range(n)  # not the references themselves
    batch = data.batch(list(own))
    images = torch.from_numpy(batch.images)
    mean, log_variance = vae.encode(images)
    kl = kl_by_latent(mean, log_variance)
    axes = []
    for latent in range(vae.latents):
        axis: dict[str, Any] = {"kl": round(float(kl[latent]), 4), "active": float(kl[latent]) > ACTIVE_NATS}
        if axis["active"]:
            pictures = traverse(vae, mean[:N_IMAGES], latent).flatten(0, 1)
            names = [name(pictures).reshape(-1, POINTS) for name in (namer.colour, namer.digit)]
            axis |= {kind: round(share, 4) for kind, share in changes(*names).items()}
        axes.append(axis)
    generator = torch.Generator().manual_seed(seed)
    drawn = vae.decode(torch.randn(1000, vae.latents, generator=generator))
    return {
        "axes": axes,
        "images": len(mean[:N_IMAGES]),
        "agreement": _agreement(namer, drawn),
        "agreement_of_data": _agreement(namer, images),
    }


def _agreement(namer: Namer, pictures: Tensor) -> float:
    return round(float((namer.colour(pictures) == namer.digit(pictures)).float().mean()), 4)


@dataclass(frozen=True)
class Fig6:
    """What is to be run."""

    data: Path
    output: Path
    config: VaeConfig
    resume: bool = False
    force: bool = False
    device: torch.device | None = None
    command: Sequence[str] = ("fig6",)


def run(options: Fig6, log: TextIO | None = None) -> Path:
    """Train, measure, then write `fig6.json`, `fig6.md` and `fig6.png`.

    Returns:
      The path of the JSON file; its results are `{number of latents: what measure() gives}`.
    Raises:
      ValueError, CgnrtError: as `train_vae`.
    """
    log = log or sys.stderr
    config = options.config
    data = VariantMnist(config.variant, options.data, seed=config.seed)
    with cells.timed(options.output):
        path = train_vae(
            config,
            data,
            options.output,
            resume=options.resume,
            force=options.force,
            log=log,
            device=options.device,
        )
    vae, config = load_vae(path)
    results = {str(config.latents): measure(vae, data)}
    settings = {key: value for key, value in to_dict(config).items() if key != "seed"}
    written = cells.write_experiment(
        options.output,
        "fig6",
        results,
        table(results),
        settings=settings,
        seeds=[config.seed],
        command=options.command,
    )
    draw(vae, data, options.output / "fig6.png")
    return written


def table(results: Mapping[str, Any]) -> str:
    """The measures as Markdown."""
    parts = []
    for latents, found in results.items():
        lines = [["latent", "KL, nats", *(f"{kind.replace('_', ' ')}, %" for kind in KINDS)]]
        for k, axis in enumerate(found["axes"]):
            shares = [f"{100 * axis[kind]:.1f}" if axis["active"] else "" for kind in KINDS]
            lines.append([str(k + 1), f"{axis['kl']:.2f}", *shares])
        parts.append(
            f"{latents} latents, traversals of {found['images']} images; pairs of their pictures that differ in\n\n"
            f"{markdown(lines)}\n\n"
            f"Colour and digit of pictures from the prior belong together in {100 * found['agreement']:.1f} %, of the "
            f"data in {100 * found['agreement_of_data']:.1f} %."
        )
    return "\n\n".join(parts)


@torch.no_grad()
def draw(vae: Vae, data: VariantMnist, path: Path) -> None:
    """Samples of the data, the codes of 2,000 images by class, and traversals of the two latents that carry most."""
    batch = data.batch(list(range(min(2000, len(data)))))
    images, labels = torch.from_numpy(batch.images), torch.from_numpy(batch.labels)
    mean, log_variance = vae.encode(images)
    first, second = _two_largest(kl_by_latent(mean, log_variance))
    drawn = plots.figure(11, 4.2)
    left, middle, right = drawn.subplots(1, 3)
    left.imshow(_tiled(_samples(images, labels)))
    left.set_title("train domain", fontsize=10)

    colours = [tuple(channel / 255 for channel in colour) for colour in COLORED.values()]
    for digit in range(N_CLASSES):
        of_class = mean[labels == digit]
        middle.scatter(of_class[:, first], of_class[:, second], s=4, color=colours[digit], linewidths=0)
        if len(of_class):
            x, y = of_class[:, first].median(), of_class[:, second].median()
            middle.text(x, y, str(digit), ha="center", va="center", fontsize=9, weight="bold")
    middle.set(xlabel=f"latent {first + 1}", ylabel=f"latent {second + 1}", facecolor="#f4f4f4")
    middle.set_aspect("equal", adjustable="datalim")  # a square, also where one latent hardly varies yet
    middle.set_box_aspect(1)
    middle.set_title("codes by class, in its colour", fontsize=10)

    side = torch.linspace(-2, 2, 11)
    codes = torch.zeros(11, 11, vae.latents)
    if first != second:
        codes[..., second] = side.flip(0)[:, None]
    codes[..., first] = side[None, :]
    right.imshow(_tiled(vae.decode(codes.flatten(0, 1)).reshape(11, 11, 3, 32, 32)))
    right.set_title(f"latents {first + 1} (right) and {second + 1} (up), -2 to 2", fontsize=10)
    for panel in (left, right):
        panel.set_axis_off()
    plots.save(drawn, path, palette=True)


def _two_largest(kl: Tensor) -> tuple[int, int]:
    order = kl.argsort(descending=True).tolist()
    first, second = (order * 2)[:2]
    return min(first, second), max(first, second)


def _samples(images: Tensor, labels: Tensor) -> Tensor:
    """(10, 10, 3, 32, 32): ten of each class, a column each; fewer where there are fewer."""
    grid = -torch.ones(10, N_CLASSES, 3, 32, 32)
    for digit in range(N_CLASSES):
        chosen = images[labels == digit][:10]
        grid[: len(chosen), digit] = chosen
    return grid


def _tiled(pictures: Tensor) -> Any:
    """(rows, columns, 3, h, w) in [-1, 1] -> (rows * h, columns * w, 3) in [0, 1]."""
    rows, columns, _, h, w = pictures.shape
    picture = pictures.permute(0, 3, 1, 4, 2).reshape(rows * h, columns * w, 3)
    return (picture.clamp(-1, 1) / 2 + 0.5).numpy()
