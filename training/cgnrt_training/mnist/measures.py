"""How good a CGN's textures are: seams where they are rolled, and how much of what there is to draw they cover.

Both look at pictures alone, and nothing here is trained on.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..features.maps import FeatureMaps
from .config import N_CLASSES
from .data import VariantMnist
from .models import CGN

VISIBLE = 2 / 255  # a level of 8 bits on [-1, 1]: smaller differences show no line


def seam_ratio(pictures: Tensor) -> float:
    """How much more the two sides that a roll joins differ than neighbours do elsewhere; 1 shows no seam.

    The mean absolute difference of the first and the last column, and of the first and the last row, over that of
    neighbouring columns and rows. A level of 8 bits is added to both, so that black on black has none.

    Args:
      pictures: (n, 3, h, w) in [-1, 1], not rolled.
    """
    across, elsewhere = [], []
    for axis in (2, 3):
        last = pictures.shape[axis] - 1
        steps = (pictures.roll(-1, axis) - pictures).abs().mean((0, 1, 5 - axis))
        across.append(steps[last])
        elsewhere.append(steps[:last].mean())
    seam, rest = (float(torch.stack(found).mean()) for found in (across, elsewhere))
    return (seam + VISIBLE) / (rest + VISIBLE)


@torch.no_grad()
def nearest(real: Tensor, others: Tensor, features: FeatureMaps | None = None) -> Tensor:
    """The distance of each picture to the nearest of others, each in its best roll.

    Args:
      real: (m, 3, h, w) in [-1, 1], even h and w.
      others: (k, 3, h, w); all of their h w rolls are compared.
      features: whose first map is compared, with every place's channels scaled to length 1 as in LPIPS; it must have
        a window of 3 and a stride of 2 (SqueezeNet 1.1). Without it, pixels.
    Returns:
      (m,) root mean squared distances.
    """
    if features is None:
        return _nearest_on_torus(real, others, torch.ones_like(real[:1, :1])).clamp(min=0).sqrt()
    views = _first_map(features, real)
    room = [(size + 1) // 2 for size in real.shape[2:]]
    missing = [size - found for size, found in zip(room, views.shape[2:], strict=True)]
    inside = torch.ones_like(views[:1, :1])
    pads = (0, missing[1], 0, missing[0])
    views, inside = (F.pad(value, pads) for value in (views, inside))
    found = [
        _nearest_on_torus(views, _first_map(features, _extended(others.roll((-dy, -dx), (2, 3)))), inside)
        for dy in (0, 1)
        for dx in (0, 1)
    ]
    return torch.stack(found).amin(0).clamp(min=0).sqrt()


def coverage(real: Tensor, drawn: Tensor, other: Tensor, features: FeatureMaps | None = None) -> float:
    """The mean distance of real pictures to the nearest that was drawn, over that to the nearest other real one.

    1 is as near as other real pictures are; a generator that draws one picture again and again is far above. `drawn`
    and `other` should be as many. See `nearest`.
    """
    mean = [float(nearest(real, pictures, features).mean()) for pictures in (drawn, other)]
    return mean[0] / max(mean[1], 1e-6)


@torch.no_grad()
def measure_textures(
    cgn: CGN, data: VariantMnist, features: FeatureMaps | None = None, samples: int = 40
) -> dict[str, float]:
    """Means over the classes, for the curves of a training: a small form of what `cgnrt-train evaluate` measures.

    Args:
      features: on the CGN's device.
    Returns:
      seam_texture, seam_background; coverage_texture and coverage_background, whose names end with _pixels where these
      were compared.
    """
    was_training = cgn.training
    cgn.eval()
    generator = torch.Generator().manual_seed(0)
    device = cgn.label_emb.weight.device
    still = torch.zeros(samples, 2, 2, dtype=torch.int64, device=device)
    found: dict[str, list[float]] = {}
    for label in range(N_CLASSES):
        parts = cgn(torch.full((samples,), label, device=device), generator=generator, shifts=still)
        for name, drawn in (("texture", parts.foreground), ("background", parts.background)):
            front = name == "texture"
            pictures = [
                torch.from_numpy(data.fills(range(start, start + count), label, front=front)).to(device)
                for start, count in ((0, samples // 4), (len(data), samples))
            ]
            kind = "" if features is not None else "_pixels"
            found.setdefault(f"seam_{name}", []).append(seam_ratio(drawn))
            value = coverage(pictures[0], drawn, pictures[1], features)
            found.setdefault(f"coverage_{name}{kind}", []).append(value)
    cgn.train(was_training)
    return {name: sum(values) / len(values) for name, values in found.items()}


def _first_map(features: FeatureMaps, pictures: Tensor) -> Tensor:
    return F.normalize(features(pictures, 1)[0], dim=1, eps=1e-6)


def _extended(pictures: Tensor) -> Tensor:
    """Pictures on a torus, with the pixels that a window of 3 needs beyond the last."""
    return F.pad(pictures, (0, 1, 0, 1), mode="circular")


def _nearest_on_torus(real: Tensor, others: Tensor, inside: Tensor) -> Tensor:
    """Mean squared distances (m,) to the nearest of others in its best roll, over the places that are `inside`.

    Args:
      real: (m, c, h, w), 0 where not inside.
      others: (k, c, h, w), which are rolled.
      inside: (1, 1, h, w) of 0 and 1.
    """
    h, w = real.shape[2:]
    spectrum = torch.fft.rfft2(others).conj()
    # Sums over the places inside of real * rolled and of rolled^2, for all rolls at once.
    powers = torch.fft.rfft2(others.square().sum(1, keepdim=True)).conj() * torch.fft.rfft2(inside)
    squares = torch.fft.irfft2(powers, (h, w))[:, 0]
    transposed = spectrum.permute(2, 3, 1, 0).contiguous()  # (h, w', c, k)
    best = []
    for start in range(0, len(real), 16):
        some = real[start : start + 16]
        product = torch.fft.rfft2(some).permute(2, 3, 0, 1) @ transposed
        both = torch.fft.irfft2(product.permute(2, 3, 0, 1), (h, w))
        distances = some.square().sum((1, 2, 3))[:, None, None, None] + squares - 2 * both
        best.append(distances.flatten(1).amin(1))
    return torch.cat(best) / (inside.sum() * (real.shape[1] if inside.sum() == h * w else 1))
