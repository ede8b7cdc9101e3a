"""Three torch modules of your own become a plan, and the plan becomes counterfactual pictures.

    python examples/own_modules.py            # writes own_modules.plan and own_modules.png here
    python examples/own_modules.py FOLDER

Any three modules will do: `forward(noise, class_embedding) -> picture`, whatever happens inside. The three
here are built differently on purpose: the shape is a formula, the foreground a convolutional decoder, the
background a residual network in functional style. Their weights are not trained; the formula and the colours
in the class embeddings are enough to see which label does what.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import cgnrt
from cgnrt.sheets import contact_sheet
from cgnrt_export import MechanismModule, export_plan

SIZE = 64


class Silhouette(nn.Module):
    """A mask from a formula: |x|^p + |y / a|^p < r^p, moved, scaled and turned by the noise.

    The class embedding is (p, a, angle). There is nothing in it that the exporter could rewrite.
    """

    def __init__(self) -> None:
        super().__init__()
        axis = torch.linspace(-1, 1, SIZE)
        self.register_buffer("y", axis.reshape(1, SIZE, 1))
        self.register_buffer("x", axis.reshape(1, 1, SIZE))

    def forward(self, noise: Tensor, class_embedding: Tensor) -> Tensor:
        wobble = torch.tanh(noise)[:, :, None, None]  # (n, 4, 1, 1)
        power, aspect, angle = (class_embedding[:, k, None, None] for k in range(3))
        x, y = self.x - 0.2 * wobble[:, 0], self.y - 0.2 * wobble[:, 1]
        turn = angle + 0.3 * wobble[:, 2]
        u = (torch.cos(turn) * x + torch.sin(turn) * y).abs() + 1e-3
        v = (torch.cos(turn) * y - torch.sin(turn) * x).abs() / aspect + 1e-3
        distance = (u**power + v**power) ** (1 / power) / (0.55 + 0.15 * wobble[:, 3])
        return torch.sigmoid(20 * (1 - distance)).unsqueeze(1)


class Decoder(nn.Module):
    """A foreground from the usual decoder: three batch norms to fold, two up-samplings to merge."""

    def __init__(self, noise_size: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(noise_size, 32 * 16 * 16),
            nn.Unflatten(1, (32, 16, 16)),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(32, 24, 3, padding=1, bias=False),
            nn.BatchNorm2d(24),
            nn.ReLU(),
            nn.Dropout(0.1),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(24, 16, 3, padding=1, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Conv2d(16, 3, 3, padding=1),
            nn.BatchNorm2d(3),
        )

    def forward(self, noise: Tensor, class_embedding: Tensor) -> Tensor:
        return torch.tanh(class_embedding[:, :, None, None] + 0.3 * self.layers(noise))


class ResidualBackground(nn.Module):
    """A background in functional style. The exporter sees the calls, not the modules, and rewrites these."""

    def __init__(self, noise_size: int, channels: int = 16) -> None:
        super().__init__()
        self.start = nn.Linear(noise_size, channels * 8 * 8)
        self.blocks = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in range(3))
        self.shortcuts = nn.ModuleList(nn.Conv2d(channels, channels, 1) for _ in range(3))
        self.to_rgb = nn.utils.parametrizations.spectral_norm(nn.Conv2d(channels, 3, 1))

    def forward(self, noise: Tensor, class_embedding: Tensor) -> Tensor:
        h = self.start(noise).unflatten(1, (-1, 8, 8))
        for block, shortcut in zip(self.blocks, self.shortcuts, strict=True):
            wide = F.interpolate(shortcut(h), scale_factor=2)
            h = wide + block(F.interpolate(F.leaky_relu(h, 0.2), scale_factor=2))
        return torch.tanh(class_embedding[:, :, None, None] + self.to_rgb(h))


COLOURS = {"red": (1, -1, -1), "green": (-1, 0.6, -1), "blue": (-1, -0.5, 1), "gold": (1, 0.5, -1)}
COLOURS |= {"white": (1, 1, 1), "black": (-1, -1, -1), "sky": (0, 0.5, 1), "grass": (-0.5, 0.3, -0.8)}
COLOURS |= {"sand": (0.7, 0.4, 0), "violet": (0.3, -1, 0.8)}
SHAPES = {
    "disc": (2, 1, 0),
    "square": (8, 1, 0),
    "diamond": (1, 1, 0),
    "bar": (8, 0.35, 0.8),
    "star": (0.6, 1, 0),
}
TEXTURES = ("red", "green", "blue", "gold", "white")
BACKGROUNDS = ("black", "sky", "grass", "sand", "violet")


def make_mechanisms() -> dict[str, MechanismModule]:
    """The three mechanisms with their classes; noise sizes and class embeddings may differ."""
    torch.manual_seed(0)
    decoder, background = Decoder(noise_size=12), ResidualBackground(noise_size=20)
    with torch.no_grad():
        # Stands for training: the batch norms see some data.
        for _ in range(5):
            decoder(torch.randn(8, 12), torch.zeros(8, 3))
            background(torch.randn(8, 20), torch.zeros(8, 3))
    colours = {name: torch.tensor(rgb) for name, rgb in COLOURS.items()}
    return {
        "shape": MechanismModule(
            Silhouette(),
            torch.tensor([list(map(float, numbers)) for numbers in SHAPES.values()]),
            tuple(SHAPES),
            4,
        ),
        "texture": MechanismModule(
            decoder, torch.stack([colours[name].float() for name in TEXTURES]), TEXTURES, noise_size=12
        ),
        "background": MechanismModule(
            background,
            torch.stack([colours[name].float() for name in BACKGROUNDS]),
            BACKGROUNDS,
            noise_size=20,
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, nargs="?", default=Path("."))
    folder: Path = parser.parse_args().folder

    report = export_plan(folder / "own_modules.plan", make_mechanisms(), family="silhouettes", force=True)
    print(report.table())

    generator = cgnrt.Generator(folder / "own_modules.plan", dtype="uint8", layout="NHWC")
    batch = generator.sample(10, seed=1, parts=True)
    contact_sheet(batch, generator.classes).save(folder / "own_modules.png")
    red = generator.sample(10, seed=1, do={"texture": "red"})  # the same pictures, all red: an intervention
    print(f"{len(batch)} counterfactuals, and {len(red)} with do(texture = red), on a {generator!r}")


if __name__ == "__main__":
    main()
