"""U2-Net against the published sizes and a plain transcription of its figure."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cgnrt_training.imagenet.u2net import FULL, SMALL, U2Net, U2NetConfig


@pytest.mark.parametrize(("config", "count"), [(FULL, 44_009_869), (SMALL, 1_131_181)])
def test_parameters_of_the_published_models(config: U2NetConfig, count: int) -> None:
    with torch.device("meta"):
        assert sum(p.numel() for p in U2Net(config).parameters()) == count


def test_key_names_are_the_official_ones() -> None:
    with torch.device("meta"):
        state = U2Net(FULL).state_dict()
    blocks = []
    for stage, depth in (("1", 7), ("2", 6), ("3", 5), ("4", 4), ("5", 4)):
        for name in (f"stage{stage}", f"stage{stage}d"):
            blocks += [f"{name}.rebnconv{k}" for k in ["in", *range(1, depth + 1)]]
            blocks += [f"{name}.rebnconv{k}d" for k in range(1, depth)]
    blocks += [f"stage6.rebnconv{k}" for k in ("in", 1, 2, 3, 4, "1d", "2d", "3d")]
    norms = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    expected = {f"{block}.conv_s1.{kind}" for block in blocks for kind in ("weight", "bias")}
    expected |= {f"{block}.bn_s1.{kind}" for block in blocks for kind in norms}
    ends = [*(f"side{k}" for k in range(1, 7)), "outconv"]
    expected |= {f"{end}.{kind}" for end in ends for kind in ("weight", "bias")}
    assert set(state) == expected
    for key, shape in (
        ("stage1.rebnconvin.conv_s1.weight", (64, 3, 3, 3)),
        ("stage5d.rebnconvin.conv_s1.weight", (512, 1024, 3, 3)),
        ("stage1d.rebnconv1d.conv_s1.weight", (64, 32, 3, 3)),
        ("side3.weight", (1, 128, 3, 3)),
        ("outconv.weight", (1, 6, 1, 1)),
    ):
        assert state[key].shape == shape


class _Plain:
    """U2-Net written out from the paper's Fig. 5, as functions of the state dict alone."""

    def __init__(self, state: dict[str, Tensor], align_corners: bool) -> None:
        self.state = state
        self.align = align_corners

    def conv(self, x: Tensor, name: str, dilation: int = 1) -> Tensor:
        def read(part: str, kind: str) -> Tensor:
            return self.state[f"{name}.{part}.{kind}"]

        y = F.conv2d(
            x, read("conv_s1", "weight"), read("conv_s1", "bias"), padding=dilation, dilation=dilation
        )
        mean, variance = read("bn_s1", "running_mean"), read("bn_s1", "running_var")
        scale = read("bn_s1", "weight") / torch.sqrt(variance + 1e-5)
        y = (y - mean[:, None, None]) * scale[:, None, None] + read("bn_s1", "bias")[:, None, None]
        return y.clamp(min=0)

    def up(self, x: Tensor, like: Tensor) -> Tensor:
        return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=self.align)

    def rsu(self, x: Tensor, name: str, depth: int) -> Tensor:
        x = self.conv(x, f"{name}.rebnconvin")
        e = {1: self.conv(x, f"{name}.rebnconv1")}
        for k in range(2, depth):
            e[k] = self.conv(F.max_pool2d(e[k - 1], 2, ceil_mode=True), f"{name}.rebnconv{k}")
        bottom = self.conv(e[depth - 1], f"{name}.rebnconv{depth}", dilation=2)
        d = self.conv(torch.cat([bottom, e[depth - 1]], 1), f"{name}.rebnconv{depth - 1}d")
        for k in range(depth - 2, 0, -1):
            d = self.conv(torch.cat([self.up(d, e[k]), e[k]], 1), f"{name}.rebnconv{k}d")
        return d + x

    def rsu_4f(self, x: Tensor, name: str) -> Tensor:
        x = self.conv(x, f"{name}.rebnconvin")
        e1 = self.conv(x, f"{name}.rebnconv1", 1)
        e2 = self.conv(e1, f"{name}.rebnconv2", 2)
        e3 = self.conv(e2, f"{name}.rebnconv3", 4)
        e4 = self.conv(e3, f"{name}.rebnconv4", 8)
        d3 = self.conv(torch.cat([e4, e3], 1), f"{name}.rebnconv3d", 4)
        d2 = self.conv(torch.cat([d3, e2], 1), f"{name}.rebnconv2d", 2)
        return self.conv(torch.cat([d2, e1], 1), f"{name}.rebnconv1d", 1) + x

    def __call__(self, image: Tensor) -> list[Tensor]:
        def pool(x: Tensor) -> Tensor:
            return F.max_pool2d(x, 2, ceil_mode=True)

        s1 = self.rsu(image, "stage1", 7)
        s2 = self.rsu(pool(s1), "stage2", 6)
        s3 = self.rsu(pool(s2), "stage3", 5)
        s4 = self.rsu(pool(s3), "stage4", 4)
        s5 = self.rsu_4f(pool(s4), "stage5")
        s6 = self.rsu_4f(pool(s5), "stage6")
        d5 = self.rsu_4f(torch.cat([self.up(s6, s5), s5], 1), "stage5d")
        d4 = self.rsu(torch.cat([self.up(d5, s4), s4], 1), "stage4d", 4)
        d3 = self.rsu(torch.cat([self.up(d4, s3), s3], 1), "stage3d", 5)
        d2 = self.rsu(torch.cat([self.up(d3, s2), s2], 1), "stage2d", 6)
        d1 = self.rsu(torch.cat([self.up(d2, s1), s1], 1), "stage1d", 7)
        sides = []
        for k, feature in enumerate((d1, d2, d3, d4, d5, s6), 1):
            side = F.conv2d(feature, self.state[f"side{k}.weight"], self.state[f"side{k}.bias"], padding=1)
            sides.append(self.up(side, image))
        fused = F.conv2d(torch.cat(sides, 1), self.state["outconv.weight"], self.state["outconv.bias"])
        return [1 / (1 + torch.exp(-each)) for each in (fused, *sides)]


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("size", [(64, 64), (50, 77)])  # the second is odd on every level
def test_masks_are_those_of_a_plain_transcription(align_corners: bool, size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    config = replace(FULL.narrowed(1 / 16), align_corners=align_corners)
    model = U2Net(config).double().eval()
    for norm in model.modules():
        if isinstance(norm, torch.nn.BatchNorm2d):
            norm.running_mean.normal_(std=0.3)
            norm.running_var.uniform_(0.05, 0.5)
            torch.nn.init.uniform_(norm.weight, 0.5, 1.5)
            torch.nn.init.normal_(norm.bias, std=0.5)
    image = torch.randn(2, 3, *size, dtype=torch.float64)
    with torch.no_grad():
        got = model.side_outputs(image)
        expected = _Plain(model.state_dict(), align_corners)(image)
        # Some hundred layers of float64 sums in another order.
        for one, other in zip(got, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-11)
        assert torch.equal(model(image), got[0])
    assert got[0].std() > 1e-3, "flat: nothing is compared"
    assert got[0].shape == (2, 1, *size)


def test_corners_make_a_difference() -> None:
    torch.manual_seed(0)
    plain = U2Net(SMALL.narrowed(1 / 8)).eval()
    aligned = U2Net(replace(plain.config, align_corners=True)).eval()
    aligned.load_state_dict(plain.state_dict())
    image = torch.randn(1, 3, 32, 32)
    assert (plain(image) - aligned(image)).abs().max() > 1e-4
