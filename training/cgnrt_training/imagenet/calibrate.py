"""Random weights that behave as trained ones do, where trained ones cannot be had: for tests, benchmarks, a first try.

A net with random weights and the statistics of no data lets its activations die out or explode: its pictures are
flat, its speed suffers from denormal numbers, its rounding errors mean nothing. So weights are drawn orthogonal, and
then every batch norm gets the statistics that its inputs really have, for each truncation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .biggan import BatchNorm, BigGAN, BigGANConfig, GenBlock, SelfAttention
from .cgn import CGN
from .spectral import SpectralConv2d, SpectralLinear
from .statistics import Rows
from .u2net import FULL, ResidualU, U2Net, U2NetConfig

Progress = Callable[[str], None]

# Rows of statistics that are measured; those between are interpolated.
_MEASURED = (1, 5, 12, 25, 38, 50)
# Samples by the height of a layer's input: a channel needs some hundred values for its statistics.
_SAMPLES = {4: 32, 8: 16}
_FEWEST = 8
_CROP = 24  # pixels of larger pictures: enough of each sample, and a fraction of the work
_MASK_SAMPLES = 4
# How weak most directions are of layers that make scales and shifts, which so stay near 1 and 0, and of those that end
# a residual block, which so adds to its input rather than replaces it. Without it rounding errors grow hundredfold.
_MODULATION_TAIL = 0.2
_RESIDUAL_TAIL = 0.35
# Of convolution kernels, around a binomial low-pass.
_ROUGHNESS = 0.8
_MASK_ROUGHNESS = 1.5
# Of U2-Net's batch norms: mostly above the kink of ReLU, its hundred layers amplify rounding errors less.
_SHIFT = 1.0
_CONTRAST = 0.6  # standard deviation before tanh
_MASK_CONTRAST = 2.5  # of the mask's logits: both ends are reached


def random_cgn(
    resolution: int,
    seed: int = 0,
    channel_width: int = 128,
    *,
    num_classes: int = 1000,
    u2net: U2NetConfig | None = None,
    progress: Progress = lambda message: None,
    device: torch.device | None = None,
) -> CGN:
    """A CGN with random, calibrated weights in evaluation mode, on the CPU; the same for the same arguments.

    Args:
      resolution: 128, 256 or 512.
      channel_width: of each BigGAN; the published ones have 128.
      u2net: the size of U2-Net; None is the full one, or as much narrower as `channel_width`. Corners are aligned.
      progress: called with a line for each step.
      device: what the batch norms are calibrated on; None is the CPU. Weights are drawn alike for all, statistics
        differ by rounding.
    Raises:
      ValueError: there is no BigGAN-deep of this resolution, or channel_width is not a positive multiple of 4.
    """
    if channel_width < 4 or channel_width % 4:
        raise ValueError(f"build CGN: channel_width is {channel_width}, expected a positive multiple of 4.")
    config = BigGANConfig.of_resolution(resolution, channel_width=channel_width, num_classes=num_classes)
    generator = torch.Generator().manual_seed(seed)
    mechanisms = {}
    for name in ("f_shape", "f_text", "f_bg"):
        progress(f"draw and calibrate {name}")
        mechanisms[name] = random_biggan(config, generator, device)
    progress("draw and calibrate u2net")
    size = u2net or (FULL if channel_width == 128 else FULL.narrowed(channel_width / 128))
    size = replace(size, align_corners=True)
    head = random_u2net(size, generator, draw_pictures(mechanisms["f_shape"], generator))
    return CGN(**mechanisms, u2net=head).eval().cpu()


def random_biggan(
    config: BigGANConfig, generator: torch.Generator, device: torch.device | None = None
) -> BigGAN:
    """A BigGAN-deep with random weights and the statistics of its own activations, in evaluation mode.

    Args:
      device: what it is calibrated on, and then lies on; None is the CPU.
    """
    model = BigGAN(config)
    with torch.no_grad():
        for name, module in model.named_modules():
            if isinstance(module, SpectralConv2d | SpectralLinear):
                _draw_weight(module, _tail(name), generator)
        # A class weighs as much as noise of truncation 0.5.
        model.embeddings.weight.normal_(std=0.5, generator=generator)
        for module in model.modules():
            if isinstance(module, SelfAttention):
                module.gamma.fill_(0.5)
        _calibrate_biggan(model.to(device), generator)
    return model.eval()


def random_u2net(
    config: U2NetConfig, generator: torch.Generator, images: Tensor, *, inner_gain: float = 1.0
) -> U2Net:
    """A U2-Net with random weights and the statistics that `images` (n, 3, h, w) give; its masks have both ends.

    It ends up where the images lie.

    Args:
      inner_gain: on what the U of each stage adds to the stage's input. A small one makes a smooth function of the
        picture, through which a generator can be trained.
    """
    model = U2Net(config).eval()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                channels = torch.randn(module.weight.shape[:2], generator=generator)
                kernels = _smooth_kernels(module.weight, _MASK_ROUGHNESS, generator)
                module.weight.copy_(channels[:, :, None, None] * kernels[:, None])
                module.weight.mul_((2 / channels.shape[1]) ** 0.5)
                if module.bias is not None:
                    module.bias.normal_(std=0.1, generator=generator)
            elif isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.8, 1.2, generator=generator)
                module.bias.normal_(_SHIFT, 0.1, generator=generator)
        for module in model.modules():
            if isinstance(module, ResidualU):
                module.scale_inner(inner_gain)
        # A side output is a small difference of large features: without its mean it loses less by rounding.
        sides = {getattr(model, f"side{k}"): 1.0 for k in range(1, 7)}
        contrasts = sides | {model.outconv: _MASK_CONTRAST}
        with (
            _before([m for m in model.modules() if isinstance(m, nn.BatchNorm2d)], _take_statistics),
            _after(list(contrasts), lambda conv, output: _normalise(conv, output, contrasts[conv])),
        ):
            model.to(images.device)(images)
    return model


def _tail(name: str) -> float:
    """`_draw_weight`'s argument for a layer of the generator."""
    if name.endswith((".scale", ".offset")):
        return _MODULATION_TAIL
    # What the first block adds to is the small projection of the noise.
    return _RESIDUAL_TAIL if name.endswith(".conv_3") and ".layers.0." not in name else 1


def _draw_weight(layer: SpectralConv2d | SpectralLinear, tail: float, generator: torch.Generator) -> None:
    """A random weight, times a factor that spectral norm takes out again.

    Args:
      tail: of its singular values but the largest, which is 1. Below 1 the layer answers weakly to most inputs.
    """
    rows, columns = layer.weight_orig.shape[:2]
    rank = min(rows, columns)
    left = _orthonormal(rows, rank, generator)
    right = _orthonormal(columns, rank, generator) if tail < 1 or rows < columns else torch.eye(rank)
    values = torch.full((rank,), tail)
    values[0] = 1
    matrix = (left * values) @ right.t()
    # Rows stay orthogonal under any kernel of length 1. Wide kernels stand where there are not more rows than columns.
    kernels = _smooth_kernels(layer.weight_orig, _ROUGHNESS, generator)
    matrix = (matrix[:, :, None] * kernels.flatten(1)[:, None]).flatten(1)
    u = left[:, 0]
    v = F.normalize(matrix.t() @ u, dim=0)
    factor = 0.5 + torch.rand(1, generator=generator)
    layer.weight_orig.copy_((factor * matrix).view_as(layer.weight_orig))
    layer.weight_u.copy_(u)
    layer.weight_v.copy_(v)
    if layer.bias is not None:
        layer.bias.normal_(std=0.1, generator=generator)


def _smooth_kernels(weight: Tensor, roughness: float, generator: torch.Generator) -> Tensor:
    """A kernel of length 1 for each row of a weight, low-pass as most of a trained net's are; (rows, k, k)."""
    size = weight.shape[2] if weight.dim() == 4 else 1
    binomial = torch.tensor([1.0, 2.0, 1.0]) if size == 3 else torch.ones(size)
    noise = torch.randn(len(weight), size, size, generator=generator)
    kernels = (
        binomial[:, None] * binomial * (1 + roughness * noise) if size > 1 else torch.ones(len(weight), 1, 1)
    )
    unit: Tensor = kernels / kernels.flatten(1).norm(dim=1)[:, None, None]
    return unit


def _orthonormal(rows: int, columns: int, generator: torch.Generator) -> Tensor:
    """A (rows, columns) matrix, rows >= columns, of orthonormal columns, uniformly drawn."""
    q, r = torch.linalg.qr(torch.randn(rows, columns, generator=generator))
    uniform: Tensor = q * torch.sign(torch.diagonal(r))
    return uniform


def _calibrate_biggan(model: BigGAN, generator: torch.Generator) -> None:
    """Give every batch norm the mean and variance of its inputs, one layer after the other, for each truncation."""
    net = model.generator
    steps = model.config.n_stats - 1
    measured = _measured(steps)
    norms = [module for module in net.modules() if isinstance(module, BatchNorm)]
    noise = truncated_normal(_SAMPLES[4], model.config.z_dim, generator)
    labels = torch.randint(model.config.num_classes, (len(noise),), generator=generator)
    device = model.embedding_table.device
    noise, labels = noise.to(device), labels.to(device)
    logits = torch.empty(0)
    with _before(norms, _take_row):
        for k in measured:
            rows = _row(k, noise)
            condition = torch.cat([noise * k / steps, model.embedding_table[labels]], dim=1)
            x = net.start(condition)
            for layer in net.layers:
                x = x[: _SAMPLES.get(x.shape[2], _FEWEST)]
                n = len(x)
                x = layer(x, rows.head(n), condition[:n]) if isinstance(layer, GenBlock) else layer(x)
                x = _crop(x)
            x = F.relu(net.bn(x, rows.head(len(x)), condition[: len(x)]))
            if k == measured[len(measured) // 2]:
                # Without its bias; only three of its channels become the picture.
                logits = F.conv2d(x, net.conv_to_rgb.weight()[:3], padding=1)
    _fill(norms, measured)
    # Spectral norm fixes the scale of conv_to_rgb; the batch norm before it sets the contrast.
    factor = _CONTRAST / logits.std()
    net.bn.weight.mul_(factor)
    if net.conv_to_rgb.bias is not None:
        net.conv_to_rgb.bias[:3] -= logits.mean((0, 2, 3)) * factor


@torch.no_grad()
def calibrate(model: BigGAN, samples: int, generator: torch.Generator) -> None:
    """Give a trained BigGAN's batch norms the statistics of whole pictures, one layer after the other.

    Args:
      model: ends up in evaluation mode.
      samples: of random classes, for each truncation that is measured; statistics between these are interpolated.
      generator: of the CPU.
    """
    net = model.eval().generator
    norms = [module for module in net.modules() if isinstance(module, BatchNorm)]
    noise = truncated_normal(samples, model.config.z_dim, generator)
    labels = torch.randint(model.config.num_classes, (samples,), generator=generator)
    device = model.embedding_table.device
    noise, embeddings = noise.to(device), model.embedding_table[labels.to(device)]
    steps = model.config.n_stats - 1
    measured = _measured(steps)
    with _before(norms, _take_row):
        for k in measured:
            net.draw(torch.cat([noise * k / steps, embeddings], dim=1), _row(k, noise))
    _fill(norms, measured)


def _measured(steps: int) -> list[int]:
    return sorted({max(1, round(k * steps / 50)) for k in _MEASURED})


def _row(k: int, like: Tensor) -> Rows:
    """Statistics number k for every sample."""
    row = torch.full((len(like),), k, device=like.device)
    return Rows(row, row, torch.ones(len(like), 1, device=like.device))


def _fill(norms: list[BatchNorm], measured: list[int]) -> None:
    for norm in norms:
        _interpolate(norm.running_means, measured)
        _interpolate(norm.running_vars, measured)


def _crop(x: Tensor) -> Tensor:
    height = x.shape[2]
    start = max(0, height - _CROP) // 2
    return x[:, :, start : start + _CROP, start : start + _CROP]


def _take_row(norm: nn.Module, args: Any) -> None:
    x, rows, _ = args
    k = int(rows.first[0])
    variance, mean = torch.var_mean(x, (0, 2, 3), correction=0)
    norm.running_means[k] = mean  # type: ignore[operator]
    norm.running_vars[k] = variance  # type: ignore[operator]


def _take_statistics(norm: nn.Module, args: Any) -> None:
    variance, mean = torch.var_mean(args[0], (0, 2, 3), correction=0)
    norm.running_mean.copy_(mean)  # type: ignore[operator]
    norm.running_var.copy_(variance)  # type: ignore[operator]


def _interpolate(table: Tensor, measured: list[int]) -> None:
    """Fill the rows between and beyond those that were measured."""
    table[: measured[0]] = table[measured[0]]
    table[measured[-1] :] = table[measured[-1]].clone()
    for low, high in pairwise(measured):
        for k in range(low + 1, high):
            table[k] = torch.lerp(table[low], table[high], (k - low) / (high - low))


def _normalise(conv: Any, output: Tensor, contrast: float) -> Tensor:
    """Scale a convolution so that its output has a median of 0 and, within a sample, this deviation; returns that."""
    within = output.flatten(1).std(dim=1, correction=0).mean()
    # A side output of one pixel differs between samples only.
    factor = contrast / (within if within > 0 else output.std())
    middle = output.median()
    conv.weight.mul_(factor)
    conv.bias.sub_(middle).mul_(factor)
    return (output - middle) * factor


def draw_pictures(model: BigGAN, generator: torch.Generator) -> Tensor:
    """Pictures at several truncations."""
    truncation = torch.linspace(0.3, 1, _MASK_SAMPLES)[:, None]
    noise = truncated_normal(_MASK_SAMPLES, model.config.z_dim, generator) * truncation
    labels = torch.randint(model.config.num_classes, (_MASK_SAMPLES,), generator=generator)
    with torch.no_grad():
        embeddings = model.embedding_table
        device = embeddings.device
        drawn: Tensor = model(noise.to(device), embeddings[labels.to(device)], truncation.to(device))
    return drawn


def truncated_normal(n: int, size: int, generator: torch.Generator) -> Tensor:
    """Standard normal noise within [-2, 2], by rejection; (n, size)."""
    drawn = torch.randn(n, size, generator=generator)
    while bool((outside := drawn.abs() > 2).any()):
        drawn[outside] = torch.randn(int(outside.sum()), generator=generator)
    return drawn


@contextmanager
def _before(modules: list[Any], hook: Callable[[nn.Module, Any], None]) -> Iterator[None]:
    """Call `hook(module, arguments)` before each of the modules runs."""
    with _removed([module.register_forward_pre_hook(hook) for module in modules]):
        yield


@contextmanager
def _after(modules: list[Any], hook: Callable[[nn.Module, Tensor], Tensor]) -> Iterator[None]:
    """Take `hook(module, output)` for each module's output."""
    with _removed([m.register_forward_hook(lambda module, _, output: hook(module, output)) for m in modules]):
        yield


@contextmanager
def _removed(handles: list[Any]) -> Iterator[None]:
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
