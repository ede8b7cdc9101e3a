"""The judge of masks alone."""

from __future__ import annotations

import torch

from cgnrt_training.mnist.config import RECIPES, reference
from cgnrt_training.mnist.mask_judge import MaskTeacher
from cgnrt_training.settings import load_toml, override


def _teacher() -> MaskTeacher:
    torch.manual_seed(0)
    return MaskTeacher(override(reference("wildlife"), load_toml("fast", RECIPES)))


def bars(labels: torch.Tensor) -> torch.Tensor:
    """Masks whose bar's place is the label."""
    masks = torch.zeros(len(labels), 1, 32, 32)
    for mask, label in zip(masks, labels.tolist(), strict=True):
        mask[:, 6:26, 3 * label + 1 : 3 * label + 4] = 1
    return masks


def test_learns_what_masks_of_a_label_look_like() -> None:
    teacher = _teacher()
    labels = torch.arange(10).repeat(4)
    empty = torch.full((40, 1, 32, 32), 0.2)
    for _ in range(60):
        found = teacher.learn(bars(labels), labels, empty, labels)
    assert set(found) == {"mask_real", "mask_fake", "mask_classifier"}
    teacher.eval()
    right, wrong = (teacher.losses(bars(labels), shown) for shown in (labels, (labels + 5) % 10))
    assert right["mask_label"] < wrong["mask_label"] / 4
    assert right["mask_judge"] < teacher.losses(empty, labels)["mask_judge"] / 2


def test_gradients_reach_the_masks_and_not_the_judge() -> None:
    teacher = _teacher()
    masks = torch.rand(10, 1, 32, 32, requires_grad=True)
    losses = teacher.losses(masks, torch.arange(10))
    torch.stack(list(losses.values())).sum().backward()
    assert masks.grad is not None
    assert masks.grad.abs().sum() > 0
    assert all(p.grad is None for p in teacher.net.parameters())
    masks.grad = None
    teacher.learn(masks.detach(), torch.arange(10), masks, torch.arange(10))
    assert masks.grad is None


def test_weights_scale_the_losses() -> None:
    config = override(reference("wildlife"), load_toml("fast", RECIPES))
    silent = MaskTeacher(override(config, {"loss": {"mask_label": 0.0, "mask_judge": 0.0}}))
    losses = silent.losses(torch.rand(10, 1, 32, 32), torch.arange(10))
    assert [float(value) for value in losses.values()] == [0.0, 0.0]


def test_without_masks_to_be_trusted_nothing_is_judged() -> None:
    teacher = _teacher()
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    masks, labels = torch.rand(10, 1, 32, 32), torch.arange(10)
    assert teacher.losses(masks[:0], labels[:0]) == {}
    assert teacher.learn(masks[:0], labels[:0], masks, labels) == {}
    assert teacher.learn(masks, labels, masks[:0], labels[:0]) == {}
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
