from __future__ import annotations

import pytest
import torch

from cgnrt.errors import CheckpointError
from cgnrt_training.mnist.config import RECIPES, reference
from cgnrt_training.mnist.teacher import Encoder, Segmenter, ShapeTeacher, draw, kl_divergence
from cgnrt_training.runs.state import State
from cgnrt_training.settings import load_toml, override


def test_encoder_sees_image_and_label() -> None:
    torch.manual_seed(0)
    encoder = Encoder(10, 8, width=4).eval()
    images = torch.randn(1, 3, 32, 32).expand(3, -1, -1, -1).clone()
    images[2] = -images[2]
    mean, log_variance = encoder(images, torch.tensor([0, 1, 0]))
    assert mean.shape == log_variance.shape == (3, 8)
    assert (mean[0] != mean[1]).any()
    assert (mean[0] != mean[2]).any()


def test_kl_divergence_in_nats() -> None:
    zeros = torch.zeros(5, 8)
    assert kl_divergence(zeros, zeros) == 0
    assert kl_divergence(zeros + 1, zeros).item() == pytest.approx(4)  # half a nat for each of the 8
    normal = torch.distributions.Normal
    expected = torch.distributions.kl_divergence(normal(0.3, 0.5), normal(0.0, 1.0)).item()
    log_variance = torch.full((5, 8), 0.25).log()
    assert kl_divergence(zeros + 0.3, log_variance).item() == pytest.approx(8 * expected, rel=1e-5)


def test_draw_has_the_mean_and_the_deviation() -> None:
    torch.manual_seed(0)
    drawn = draw(torch.full((4000, 4), 2.0), torch.full((4000, 4), 0.25).log())
    assert drawn.mean().item() == pytest.approx(2, abs=0.02)
    assert drawn.std().item() == pytest.approx(0.5, abs=0.02)


def test_segmenter_learns_textures_of_a_class() -> None:
    torch.manual_seed(0)
    segmenter = Segmenter(2, width=4)
    optimizer = torch.optim.Adam(segmenter.parameters(), 0.02)
    for _ in range(150):
        labels = torch.randint(2, (8,))
        masks = (torch.rand(8, 1, 4, 4) > 0.5).float().repeat_interleave(4, 2).repeat_interleave(4, 3)
        # Class 0 has light objects on dark, class 1 dark ones on light.
        images = torch.where(labels[:, None, None, None] == 0, masks, 1 - masks).expand(-1, 3, -1, -1) * 2 - 1
        loss = torch.nn.functional.binary_cross_entropy_with_logits(segmenter(images, labels), masks)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert ((segmenter(images, labels) > 0) == (masks > 0.5)).float().mean() > 0.95


def _teacher() -> ShapeTeacher:
    torch.manual_seed(0)
    return ShapeTeacher(override(reference("double-colored"), load_toml("fast", RECIPES)))


def test_losses_of_the_teacher() -> None:
    teacher = _teacher()
    real, labels = torch.rand(10, 3, 32, 32) * 2 - 1, torch.arange(10)
    u, kl = teacher.encode(real, labels)
    assert u.shape == (10, 32)
    assert kl > 0
    found = teacher.find(real, labels)
    assert torch.equal(found, teacher.segmenter(real, labels).sigmoid())
    exact = teacher.losses(found, kl, found)
    assert exact["reconstruction"] == 0
    assert exact["kl"] == teacher.weights.kl * kl
    inexact = teacher.losses((found + 0.1).requires_grad_(), kl, found)["reconstruction"]
    assert inexact.item() == pytest.approx(0.01 * teacher.weights.reconstruction, rel=1e-4)
    inexact.backward()
    assert all(p.grad is None for p in teacher.segmenter.parameters())


def test_knows_classes_whose_masks_are_sure() -> None:
    teacher = _teacher()
    real, labels = torch.zeros(4, 3, 32, 32), torch.tensor([0, 0, 1, 1])
    every = torch.arange(10)
    assert not teacher.knows(every).any()
    with torch.no_grad():
        for parameter in teacher.segmenter.parameters():
            parameter.zero_()
        # The first layer tells the classes apart: class 0 is sure that there is no object, class 1 is not.
        teacher.segmenter.convolutions[0].bias.fill_(1)  # type: ignore[union-attr, operator]
        teacher.segmenter.by_class[0].weight[1, :16] = -1  # type: ignore[index]
        teacher.segmenter.convolutions[1].weight[:, :, 1, 1] = 1  # type: ignore[index]
        teacher.segmenter.out.weight.fill_(-0.1)
    for _ in range(40):
        found = teacher.find(real, labels)
    assert found[0].max() < 0.01
    assert found[2].min() > 0.4
    assert teacher.knows(every).tolist() == [True] + [False] * 9
    assert teacher.doubt[2:].tolist() == [1.0] * 8  # of classes that no image has shown, nothing is known


def test_learning_changes_the_segmenter_alone() -> None:
    teacher = _teacher()
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    masks = torch.rand(10, 1, 32, 32, requires_grad=True)
    losses = teacher.learn(torch.rand(10, 3, 32, 32) * 2 - 1, masks, torch.arange(10))
    assert losses["segmenter"] > 0
    assert masks.grad is None
    assert {n.split(".")[0] for n, v in teacher.state_dict().items() if not torch.equal(v, before[n])} == {
        "segmenter"
    }


def test_state_goes_back_and_a_foreign_one_is_refused() -> None:
    teacher, other = _teacher(), _teacher()
    teacher.learn(torch.rand(10, 3, 32, 32), torch.rand(10, 1, 32, 32), torch.arange(10))
    content = State({"teacher": teacher.parts()}).to_dict()
    State({"teacher": other.parts()}).restore(content, "x")
    for name, value in teacher.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name
    with pytest.raises(
        CheckpointError, match="teacher is not what it was saved as, expected entries networks"
    ):
        State({"teacher": other.parts()}).restore(content | {"teacher": {}}, "x")
