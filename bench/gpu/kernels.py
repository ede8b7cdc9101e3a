"""The card's own rates, and the ops against them and against torch."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from gpu.results import Recorder
from gpu.setting import Setting, matrix_product
from ops import GRID_CASES, object_masks, torch_patch_grid
from report import median_ratio
from torch import Tensor

from cgnrt import ops

CALLS = 10  # of an op timed together
HEADLINE = "paper-blended"  # of patch_grid's cases
NORMALIZE = {"scale": [2.2, 2.2, 2.3], "bias": [0.1, 0.2, 0.4], "clamp": (-1.0, 1.0)}
WRONG = "its images differ from those of the CPU's op"


def measure_kernels(setting: Setting, recorder: Recorder) -> None:
    """The card's copy and matrix rates, and compose, patch_grid and noise against them and against torch."""
    setting.wait_for_turn(recorder)
    setting.need_kernels()
    measure_device(setting, recorder)
    measure_compose(setting, recorder)
    measure_patch_grid(setting, recorder)
    measure_noise(setting, recorder)


def measure_device(setting: Setting, recorder: Recorder) -> None:
    """Copy bandwidth, read and written, and the rate of a large float16 matrix product on random data."""
    count = setting.sizes.copy_bytes // 2
    source = torch.randint(256, (count,), dtype=torch.uint8, device=setting.device)
    target = torch.empty_like(source)
    times = setting.turns({"copy": lambda: target.copy_(source)}, limit_s=3, calls=CALLS)["copy"]
    note = f"{2 * count:,} bytes read and written"
    recorder.row("torch copy_", times, count=2 * count / 1e9, unit="GB/s", note=note)
    times = setting.turns({"product": matrix_product(setting)}, limit_s=3, calls=CALLS)["product"]
    size = setting.sizes.product
    recorder.row(
        "float16 matrix product",
        times,
        count=size**3 / 1e12,
        unit="T multiply-adds/s",
        note=f"{size}^3, random data",
    )


class Composition:
    """One call of compose on the device.

    Args:
      pools: entries of masks, foregrounds and backgrounds; None takes every entry of pools as long as the batch once,
        in an order of its own, so that nothing is read twice.
      case: keys as in the tests' table: size, input, output, layout, scale, bias, clamp, rolls.
    """

    def __init__(self, setting: Setting, n: int, case: dict[str, Any], pools: Sequence[int] | None) -> None:
        c, h, w = case["size"]
        self.n, self._stream = n, setting.stream
        self.dtype: str = case.get("output", "float32")
        given = case.get("input", "float32")
        sources = [getattr(torch, dtype) for dtype in ([given] * 3 if isinstance(given, str) else given)]
        draw = torch.Generator(setting.device).manual_seed(0)

        def filled(entries: int, channels: int, source: torch.dtype) -> Tensor:
            drawn = torch.rand(entries, channels, h, w, device=setting.device, generator=draw)
            return (drawn.mul_(255) if source == torch.uint8 else drawn).to(source)

        def picks(entries: int) -> Tensor:
            if pools is None:
                return torch.randperm(entries, device=setting.device, generator=draw)
            return torch.randint(entries, (n,), device=setting.device, generator=draw)

        sizes = (n, n, n) if pools is None else tuple(pools)
        self.pools = tuple(map(filled, sizes, (1, c, c), sources))
        self.index = torch.stack([picks(size) for size in sizes], dim=1).int()
        self.options = {key: case[key] for key in ("layout", "scale", "bias", "clamp") if key in case}
        self.options["dtype"] = self.dtype
        self.rolls = None
        if case.get("rolls"):
            self.rolls = torch.randint(
                max(h, w), (n, 2, 2), dtype=torch.int32, device=setting.device, generator=draw
            )
        shape = (n, c, h, w) if case.get("layout", "NCHW") == "NCHW" else (n, h, w, c)
        self.out = torch.zeros(shape, dtype=getattr(torch, self.dtype), device=setting.device)
        pixel_bytes = sources[0].itemsize + c * (
            sources[1].itemsize + sources[2].itemsize + self.out.itemsize
        )
        self.bytes = n * h * w * pixel_bytes

    def __call__(self) -> object:
        return ops.compose(
            *self.pools, self.index, rolls=self.rolls, out=self.out, stream=self._stream, **self.options
        )

    def differs(self, count: int = 3) -> bool:
        """Whether some of the images differ in a bit from those that the CPU's op makes."""
        self.out.zero_()
        self()
        where = self.index[:count].long()
        parts = [pool[where[:, k]].cpu() for k, pool in enumerate(self.pools)]
        rolls = None if self.rolls is None else self.rolls[:count].cpu()
        expected = torch.zeros_like(self.out[:count], device="cpu")
        ops.compose(*parts, rolls=rolls, out=expected, **self.options)
        return not torch.equal(self.out[:count].cpu(), expected)


def measure_compose(setting: Setting, recorder: Recorder) -> None:
    """Bytes read and written over those of a copy of as many, in the same rounds."""
    n, side = setting.sizes.compose
    base: dict[str, Any] = {"size": [3, side, side], "output": "float16", "clamp": (-1.0, 1.0)}
    share = compose_row(setting, recorder, "compose, float16 out", n, base)
    if share is not None:
        recorder.result("compose", share, f"float32 pools of {n:,} entries, each read once")
    variants: dict[str, dict[str, Any]] = {
        "mean and std, bfloat16 out, NHWC": base | NORMALIZE | {"layout": "NHWC", "output": "bfloat16"},
        "float16 pools and out": base | {"input": "float16"},
        "uint8 pools and out": base | {"input": "uint8", "output": "uint8", "scale": 127.5, "bias": 127.5},
        "uint8 masks": base | {"input": ["uint8", "float32", "float32"]},
        "uint8 out": base | {"output": "uint8", "scale": 127.5, "bias": 127.5},
        "float32 out": base | {"output": "float32"},
        "float16 out, rolled": base | {"rolls": True},
    }
    for name, case in variants.items():
        compose_row(setting, recorder, f"compose, {name}", n, case)
    eighth = max(1, n // 8)
    compose_row(setting, recorder, f"compose, pools of {eighth}", n, base, pools=(eighth,) * 3)


def compose_row(
    setting: Setting,
    recorder: Recorder,
    name: str,
    n: int,
    case: dict[str, Any],
    *,
    pools: Sequence[int] | None = None,
) -> float | None:
    """Measure one case and give its share of the copy rate; None where the images are wrong, which is not timed."""
    composition = Composition(setting, n, case, pools)
    if composition.differs():
        recorder.skipped(name, WRONG)
        return None
    source = torch.randint(256, (composition.bytes // 2,), dtype=torch.uint8, device=setting.device)
    target = torch.empty_like(source)
    times = setting.turns({"ours": composition, "copy": lambda: target.copy_(source)}, limit_s=2, calls=CALLS)
    share = median_ratio(times["copy"], times["ours"])
    note = f"n {n:,}, " + ("each entry once" if pools is None else f"pools of {pools[0]}, drawn at random")
    recorder.row(name, times["ours"], count=composition.bytes / 1e9, unit="GB/s", ratio=share, note=note)
    return share


def measure_patch_grid(setting: Setting, recorder: Recorder) -> None:
    """Patch grids stored, blended, and blended to bytes, against the same steps in torch; ratio is torch to ours."""
    for case in json.loads(GRID_CASES.read_text()):
        if "bench" not in case:
            continue
        name, n = f"patch_grid, {case['name']}", setting.sizes.patch_grid[0]
        grids = Grids(setting, case)
        if grids.differs():
            recorder.skipped(name, WRONG)
            continue
        times = setting.turns({"ours": grids, "torch": grids.in_torch()}, limit_s=3, calls=3, warmup=3)
        ratio = median_ratio(times["torch"], times["ours"])
        recorder.row(name, times["ours"], count=n, ratio=ratio, note=f"n {n}, against torch eager")
        if case["name"] == HEADLINE:
            recorder.result("patch_grid", ratio, f"fused blend of {n} images to float32, torch eager")


def measure_noise(setting: Setting, recorder: Recorder) -> None:
    """Numbers a second, beside torch's own; ratio is torch to ours."""
    n, size = setting.sizes.noise
    indices = torch.arange(n, device=setting.device)
    out = torch.zeros(n, size, device=setting.device)
    cases: dict[str, Callable[[], object]] = {
        kind: lambda kind=kind: getattr(ops, kind)(7, indices, 0, size, out=out, stream=setting.stream)
        for kind in ("normal", "truncated_normal")
    }
    cases["torch normal_"] = out.normal_
    times = setting.turns(cases, limit_s=4, calls=CALLS)
    for name, seconds in times.items():
        ratio = median_ratio(times["torch normal_"], seconds)
        recorder.row(f"noise, {name}", seconds, count=n * size / 1e9, unit="G numbers/s", ratio=ratio)


class Grids:
    """One call of patch_grid on the device, with the sizes of the paper."""

    def __init__(self, setting: Setting, case: dict[str, Any]) -> None:
        n, source, side = setting.sizes.patch_grid
        rng = np.random.default_rng(0)
        draw = torch.Generator(setting.device).manual_seed(0)

        def filled(channels: int, size: int) -> Tensor:
            return torch.rand(n, channels, size, size, device=setting.device, generator=draw)

        self._stream, self._size = setting.stream, (side, side)
        self._masks = torch.from_numpy(object_masks(rng, n, source, source)).to(setting.device)
        self._images = filled(3, source)
        self._picks = torch.from_numpy(rng.integers(0, 100, (n, 36)).astype(np.int32)).to(setting.device)
        self._over = (filled(1, side), filled(3, side)) if "over" in case else None
        self._form = {key: case[key] for key in ("scale", "bias", "clamp") if key in case}
        self._form["dtype"] = case.get("output", "float32")
        dtype = getattr(torch, self._form["dtype"])
        self._out = torch.zeros(n, 3, side, side, dtype=dtype, device=setting.device)

    def __call__(self) -> object:
        return self._run(
            self._masks, self._images, self._picks, self._over, out=self._out, stream=self._stream
        )

    def _run(self, masks: Any, images: Any, picks: Any, over: Any, **where: Any) -> object:
        return ops.patch_grid(masks, images, picks, size=self._size, over=over, **where, **self._form)

    def in_torch(self) -> Callable[[], object]:
        """The same steps by torch."""
        return torch_patch_grid(self._masks, self._images, self._picks, self._size, self._over, self._form)

    def differs(self, count: int = 2) -> bool:
        """As `Composition.differs`."""
        self()
        expected = torch.zeros_like(self._out[:count], device="cpu")
        given = [x[:count].cpu() for x in (self._masks, self._images, self._picks)]
        over = None if self._over is None else tuple(x[:count].cpu() for x in self._over)
        self._run(*given, over, out=expected)
        return not torch.equal(self._out[:count].cpu(), expected)
