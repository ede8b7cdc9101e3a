from __future__ import annotations

import pytest
import torch

from cgnrt_training.mnist.config import RECIPES, reference
from cgnrt_training.mnist.models import CGN
from cgnrt_training.mnist.surroundings import WIDTH, BackgroundTeacher, match_borders, surroundings
from cgnrt_training.settings import load_toml, override


def _teacher() -> BackgroundTeacher:
    torch.manual_seed(0)
    return BackgroundTeacher(override(reference("wildlife"), load_toml("fast", RECIPES)))


def test_surroundings_hold_no_object() -> None:
    images = torch.rand(2, 3, 32, 32) + 0.1
    kept = surroundings(images)
    assert (kept[..., WIDTH:-WIDTH, WIDTH:-WIDTH] == 0).all()
    for side in (
        (slice(None), slice(WIDTH)),
        (slice(None), slice(-WIDTH, None)),
        (slice(WIDTH), slice(None)),
        (slice(-WIDTH, None), slice(None)),
    ):
        assert torch.equal(kept[(..., *side)], images[(..., *side)])


def test_teaches_backgrounds_by_their_border_alone() -> None:
    teacher = _teacher()
    backgrounds = torch.rand(10, 3, 32, 32, requires_grad=True)
    loss = teacher.losses(backgrounds, torch.arange(10))["surroundings"]
    loss.backward()
    assert backgrounds.grad is not None
    assert (backgrounds.grad[..., WIDTH:-WIDTH, WIDTH:-WIDTH] == 0).all()
    assert (backgrounds.grad[..., :WIDTH] != 0).any()
    assert all(p.grad is None for p in teacher.judge.parameters())


def test_learns_to_tell_real_borders() -> None:
    teacher = _teacher()
    labels = torch.arange(10)
    real, fake = torch.full((10, 3, 32, 32), 0.5), torch.full((10, 3, 32, 32), -0.5)
    first = teacher.learn(real, labels, fake, labels)
    for _ in range(20):
        last = teacher.learn(real, labels, fake, labels)
    assert sum(last.values()) < sum(first.values()) / 2


def test_backgrounds_start_in_the_colours_of_the_border() -> None:
    torch.manual_seed(0)
    cgn = CGN(10, 8, 4).train()
    images = torch.rand(20, 3, 32, 32)  # objects of other colours
    border = surroundings(torch.ones_like(images)) > 0
    colours = torch.tensor([-1.0, 0.5, 0.0])[:, None, None] + torch.randn(20, 3, 1, 1) * torch.tensor(
        [0.0, 0.0, 0.3]
    ).reshape(3, 1, 1)
    images = torch.where(border, colours.expand_as(images).clamp(-1, 1), images)
    match_borders(cgn, images)
    background = cgn(torch.randint(10, (40,))).background
    deviation, mean = torch.std_mean(background, dim=(0, 2, 3))
    assert mean.tolist() == pytest.approx([-0.99, 0.5, 0.0], abs=0.1)
    assert deviation.tolist() == pytest.approx([0.0, 0.05, 0.3], abs=0.06)
