from __future__ import annotations

from pathlib import Path

import pytest
import torch
from wrapped import WRAPPED

from cgnrt.errors import CheckpointError
from cgnrt_training.features.squeezenet import SqueezeNetFeatures
from cgnrt_training.mnist.losses import (
    StyleLoss,
    adversarial,
    binary_entropy,
    border,
    mask_interval,
    total_variation,
)


def test_adversarial() -> None:
    scores = torch.tensor([1.0, 0.0])
    assert adversarial(scores, real=True) == 0.5
    assert adversarial(torch.ones(3), real=True) == 0
    assert adversarial(torch.zeros(3), real=False) == 0


def test_binary_entropy_in_bits() -> None:
    assert binary_entropy(torch.full((2, 1, 4, 4), 0.5)) == 1
    assert binary_entropy(torch.full((2, 1, 4, 4), 1e-4)) < 0.002
    assert binary_entropy(torch.tensor([0.25])) == pytest.approx(0.811278, abs=1e-6)


@pytest.mark.parametrize(("mean", "loss"), [(0.5, 0.0), (0.1, 0.0), (0.04, 0.06), (0.95, 0.05)])
def test_mask_interval(mean: float, loss: float) -> None:
    assert mask_interval(torch.full((3, 1, 8, 8), mean), 0.1, 0.9).item() == pytest.approx(loss, abs=1e-6)


def test_border_sees_only_the_outermost_pixels() -> None:
    mask = torch.ones(2, 1, 8, 8)
    assert border(mask) == 1
    mask[:, :, 2:-2, 2:-2] = 0
    assert border(mask) == 1
    inside = 1 - mask
    assert border(inside) == 0
    inside[..., 0] = 1  # one of the two columns at the left; of the others' rows one pixel in eight
    assert border(inside).item() == pytest.approx((0.5 + 2 / 8) / 4)


def test_total_variation() -> None:
    assert total_variation(torch.ones(1, 1, 4, 4)) == 0
    checkers = (torch.arange(4)[:, None] + torch.arange(4)) % 2
    assert total_variation(checkers[None, None].float()) == 2
    halves = torch.tensor([0.0, 0.0, 1.0, 1.0]).expand(1, 1, 4, 4)
    assert total_variation(halves).item() == pytest.approx(1 / 3)


@pytest.fixture
def squeezenet(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    state = {key: tensor.half() for key, tensor in SqueezeNetFeatures().state_dict().items()}
    state |= {
        "classifier.1.weight": torch.zeros(1000, 512, 1, 1).half(),
        "classifier.1.bias": torch.zeros(1000),
    }
    torch.save(state, tmp_path / "squeezenet.pth")
    return tmp_path / "squeezenet.pth"


def test_features_are_torchvisions(squeezenet: Path) -> None:
    model = SqueezeNetFeatures.load(squeezenet)
    keys = list(model.state_dict())
    assert len(keys) == 50
    assert keys[0] == "features.0.weight"
    assert keys[-1] == "features.12.expand3x3.bias"
    maps = model(torch.zeros(2, 3, 64, 64))
    assert [tuple(m.shape) for m in maps] == [
        (2, 64, 31, 31),
        (2, 128, 15, 15),
        (2, 256, 7, 7),
        (2, 512, 3, 3),
    ]
    assert all(m.min() >= 0 for m in maps)
    assert not any(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("form", WRAPPED)
def test_features_as_training_scripts_save_them(form: str, squeezenet: Path, tmp_path: Path) -> None:
    torch.save(WRAPPED[form](torch.load(squeezenet)), tmp_path / "wrapped.pth")
    expected, found = (
        SqueezeNetFeatures.load(p).state_dict() for p in (squeezenet, tmp_path / "wrapped.pth")
    )
    assert all(torch.equal(found[key], tensor) for key, tensor in expected.items())


def test_style_loss(squeezenet: Path) -> None:
    loss = StyleLoss(squeezenet, (1.0, 0.5, 0.0, 0.0))
    assert loss.features.depth == 2  # what is not needed is not computed
    torch.manual_seed(0)
    images, targets = torch.rand(2, 3, 32, 32, requires_grad=True), torch.rand(2, 3, 32, 32)
    assert loss(targets, targets) == 0
    value = loss(images, targets)
    assert value > 0
    value.backward()
    assert images.grad is not None
    assert images.grad.abs().max() > 0


def test_foreign_weights_are_refused(tmp_path: Path) -> None:
    torch.save({"conv.weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(
        CheckpointError, match=r"missing keys are 'features.0.weight'.*unknown keys are 'conv.weight'"
    ):
        StyleLoss(tmp_path / "other.pth", (1.0, 0.0, 0.0, 0.0))
