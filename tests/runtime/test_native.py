"""The native engine against the engine libraries, on graphs of its kind, on every instruction set of this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from cgnrt import BackendError, Generator, _core, build_info
from cgnrt.backends import load_engine
from cgnrt.plan import Plan

# fp32 sums in another order, through instance norms that scale what is left of differences.
TOLERANCE = 5e-5


@pytest.mark.parametrize("isa", build_info()["cpu"]["isas"])
@pytest.mark.parametrize("n", [1, 2, 13])
@pytest.mark.parametrize(
    ("channels", "size", "outs"),
    [(4, (8, 8), 3), (7, (8, 16), 1), (8, (16, 8), 5), (13, (8, 24), 4), (64, (8, 8), 32)],
)
def test_layers_are_torchs(isa: str, n: int, channels: int, size: tuple[int, int], outs: int) -> None:
    """Up-sampling and a convolution, instance norm, leaky ReLU, a plain convolution, tanh, clip."""
    torch.manual_seed(channels)
    linear = nn.Linear(6, channels * size[0] * size[1])
    up = nn.Conv2d(channels, outs, 3, padding=1)
    conv = nn.Conv2d(outs, 3, 3, padding=1)
    with torch.no_grad():
        a, b = torch.randn(n, 4), torch.randn(n, 2)
        x = linear(torch.cat([a, b], 1)).view(n, channels, *size)
        x = nn.functional.instance_norm(x)
        x = nn.functional.leaky_relu(up(nn.functional.interpolate(x, scale_factor=2)), 0.2)
        expected = torch.tanh(conv(x)).clamp(-0.5, 0.25)
        layers: list[dict[str, Any]] = [
            {
                "kind": "instance_norm",
                "weight": np.ones(channels, np.float32),
                "bias": np.zeros(channels, np.float32),
                "epsilon": 1e-5,
            },
            {"kind": "up_conv", "weight": transposed(up.weight), "bias": up.bias.numpy(), "slope": 0.2},
            {"kind": "conv3", "weight": conv.weight.numpy(), "bias": conv.bias.numpy()},
            {"kind": "tanh"},
            {"kind": "clip", "low": -0.5, "high": 0.25},
        ]
        weights = linear.weight.numpy(), linear.bias.numpy()
    engine = _core.SmallGenerator([4, 2], *weights, [channels, *size], layers, isa=isa)
    for threads in (1, 3):
        found = engine.run([a.numpy(), b.numpy()], threads=threads)
        np.testing.assert_allclose(found, expected.numpy(), atol=TOLERANCE)


@pytest.mark.parametrize("isa", build_info()["cpu"]["isas"])
@pytest.mark.parametrize(("channels", "size", "outs"), [(4, (8, 8), 3), (13, (8, 24), 4), (64, (8, 8), 32)])
def test_layers_on_a_torus_are_torchs(isa: str, channels: int, size: tuple[int, int], outs: int) -> None:
    """Both convolutions with the opposite side as their border, behind a layer in place and behind each other."""
    torch.manual_seed(channels)
    linear = nn.Linear(6, channels * size[0] * size[1])
    up = nn.Conv2d(channels, outs, 3, padding=1, padding_mode="circular")
    conv = nn.Conv2d(outs, 3, 3, padding=1, padding_mode="circular")
    last = nn.Conv2d(3, 3, 3, padding=1)
    with torch.no_grad():
        inputs = torch.randn(7, 6)
        x = nn.functional.leaky_relu(linear(inputs).view(7, channels, *size), 0.1)
        x = nn.functional.leaky_relu(up(nn.functional.interpolate(x, scale_factor=2)), 0.2)
        expected = last(torch.tanh(conv(x)))
        layers: list[dict[str, Any]] = [
            {"kind": "leaky_relu", "slope": 0.1},
            {
                "kind": "up_conv",
                "weight": transposed(up.weight),
                "bias": up.bias.numpy(),
                "slope": 0.2,
                "wrap": True,
            },
            {"kind": "conv3", "weight": conv.weight.numpy(), "bias": conv.bias.numpy(), "wrap": True},
            {"kind": "tanh"},
            {"kind": "conv3", "weight": last.weight.numpy(), "bias": last.bias.numpy(), "wrap": False},
        ]
        weights = linear.weight.numpy(), linear.bias.numpy()
    engine = _core.SmallGenerator([6], *weights, [channels, *size], layers, isa=isa)
    np.testing.assert_allclose(engine.run([inputs.numpy()]), expected.numpy(), atol=TOLERANCE)


def transposed(weight: torch.Tensor) -> np.ndarray:
    """The 4x4 transposed convolution of a 3x3 one behind nearest x2 up-sampling, tap by tap."""
    reads = {0: [2], 1: [1, 2], 2: [0, 1], 3: [0]}
    out = np.zeros((weight.shape[1], weight.shape[0], 4, 4), np.float32)
    for y, rows in reads.items():
        for x, columns in reads.items():
            out[:, :, y, x] = weight.numpy()[:, :, rows][:, :, :, columns].sum((2, 3)).T
    return out


def test_the_demo_plan_runs_natively_and_as_the_libraries_run_it(demo_plan: Path, backend: str) -> None:
    native = Generator(demo_plan, backend="native")
    assert native.backend == "native"
    mine, its = (
        g.sample(60, seed=1, parts=True)
        for g in (native, Generator(demo_plan, backend=backend, precision="fp32"))
    )
    for name in ("mask", "foreground", "background", "images"):
        np.testing.assert_allclose(getattr(mine, name), getattr(its, name), atol=1e-4)


def test_samples_do_not_depend_on_batch_or_threads(demo_plan: Path) -> None:
    """An image is computed on one thread in one order: pixels are equal to the last bit."""
    whole = Generator(demo_plan, backend="native").sample(61, seed=1).images
    alone = Generator(demo_plan, backend="native", threads=1).sample(1, seed=1, start=40).images
    np.testing.assert_array_equal(whole[40:41], alone)


def test_another_graph_is_refused_by_name(golden_plan: Path) -> None:
    with pytest.raises(
        BackendError,
        match=r"fp32 on native: mechanism 'shape': the native engine for small generators does not support operator",
    ):
        Generator(golden_plan, backend="native")
    with Plan.open(golden_plan) as plan, pytest.raises(BackendError, match="does not support"):
        load_engine(plan.mechanisms["shape"], backend="native")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shape": [1, 8, 12]}, r"picture is 1 x 8 x 12, expected a width divisible by 8"),
        ({"shape": [1, 8]}, r"engine shape: length is 2, expected 3"),
        ({"shape": [2, 8, 8]}, r"engine linear: weight is 64 numbers, expected 128"),
        ({"shape": [1 << 20, 8, 8]}, r"expected sizes from 1 to 4096"),
        ({"input_widths": [0]}, r"engine inputs: width is 0, expected 1 or more"),
        ({"bias": np.zeros(3, np.float32)}, r"engine linear: bias is 3 numbers, expected 64"),
        ({"weight": np.zeros(64)}, r"engine linear weight: dtype is float64, expected float32"),
        (
            {
                "layers": [
                    {"kind": "conv3", "weight": np.zeros(8, np.float32), "bias": np.zeros(1, np.float32)}
                ]
            },
            r"engine layer 0: weight is 8 numbers, expected 9",
        ),
        ({"layers": [{"kind": "pool"}]}, r"engine layer 0 kind: kind is 'pool', expected one of 'up_conv'"),
        ({"isa": "mmx"}, r"implementation is 'mmx'"),
    ],
)
def test_bad_networks(change: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {
        "input_widths": [1],
        "weight": np.zeros((64, 1), np.float32),
        "bias": np.zeros(64, np.float32),
        "shape": [1, 8, 8],
        "layers": [],
    }
    with pytest.raises(ValueError, match=message):
        _core.SmallGenerator(**{**arguments, **change})


def test_bad_inputs() -> None:
    engine = _core.SmallGenerator(
        [1], np.zeros((64, 1), np.float32), np.arange(64, dtype=np.float32), [1, 8, 8], []
    )
    one = np.zeros((1, 1), np.float32)
    np.testing.assert_array_equal(engine.run([one]).ravel(), np.arange(64))
    assert engine.run([one[:0]]).shape == (0, 1, 8, 8)
    for bad, message in (
        ([], r"engine inputs: count is 0, expected 1"),
        ([one.astype(float)], r"engine input 0: dtype is float64, expected float32"),
        ([np.zeros((2, 3), np.float32)], r"engine input 0: shape is \(2, 3\), expected \(2, 1\)"),
    ):
        with pytest.raises(ValueError, match=message):
            engine.run(bad)
    with pytest.raises(ValueError, match=r"engine out: shape"):
        engine.run([one], out=np.zeros((2, 1, 8, 8), np.float32))
