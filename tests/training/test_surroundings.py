from __future__ import annotations

import pytest
import torch

from cgnrt_training.mnist.config import RECIPES, reference
from cgnrt_training.mnist.models import CGN
from cgnrt_training.mnist.surroundings import WIDTH, BackgroundTeacher, behind, match_borders, surroundings
from cgnrt_training.settings import load_toml, override


def _teacher() -> BackgroundTeacher:
    torch.manual_seed(0)
    return BackgroundTeacher(override(reference("wildlife"), load_toml("fast", RECIPES)))


def test_surroundings_hold_no_object() -> None:
    seen = surroundings(torch.rand(2, 3, 32, 32))
    assert seen.shape == (1, 1, 32, 32)
    assert (seen[..., WIDTH:-WIDTH, WIDTH:-WIDTH] == 0).all()
    assert seen.sum() == 32 * 32 - (32 - 2 * WIDTH) ** 2


def test_behind_objects_nothing_is_seen_and_both_share_a_hole() -> None:
    found, masks = torch.zeros(2, 1, 8, 8), torch.zeros(2, 1, 8, 8, requires_grad=True)
    found[0, 0, 2, 2] = 1
    with torch.no_grad():
        masks[0, 0, 5, 6] = 0.9
        masks[1, 0, 0, 0] = 0.1  # too faint to hide anything
    seen = behind(found, masks)
    expected = torch.ones(2, 1, 8, 8)
    expected[0, 0, 1:4, 1:4] = expected[0, 0, 4:7, 5:8] = 0
    assert torch.equal(seen, expected)
    assert not seen.requires_grad


def test_teaches_backgrounds_by_what_is_seen_alone() -> None:
    teacher = _teacher()
    backgrounds = torch.rand(10, 3, 32, 32, requires_grad=True)
    seen = surroundings(backgrounds)
    loss = teacher.losses(backgrounds, torch.arange(10), seen)["surroundings"]
    loss.backward()
    assert backgrounds.grad is not None
    assert (backgrounds.grad[..., WIDTH:-WIDTH, WIDTH:-WIDTH] == 0).all()
    assert (backgrounds.grad[..., :WIDTH] != 0).any()
    assert all(p.grad is None for p in teacher.judge.parameters())


def test_learns_to_tell_real_backgrounds() -> None:
    teacher = _teacher()
    labels = torch.arange(10)
    real, fake = torch.full((10, 3, 32, 32), 0.5), torch.full((20, 3, 32, 32), -0.5)
    seen = surroundings(real)
    both = (real, labels, seen), (fake, labels.repeat(2), seen)  # more of those that are drawn
    first = teacher.learn(*both)
    for _ in range(20):
        last = teacher.learn(*both)
    assert sum(last.values()) < sum(first.values()) / 2


def test_backgrounds_start_in_the_colours_of_the_border() -> None:
    torch.manual_seed(0)
    cgn = CGN(10, 8, 4).train()
    images = torch.rand(20, 3, 32, 32)  # objects of other colours
    border = surroundings(images) > 0
    colours = torch.tensor([-1.0, 0.5, 0.0])[:, None, None] + torch.randn(20, 3, 1, 1) * torch.tensor(
        [0.0, 0.0, 0.3]
    ).reshape(3, 1, 1)
    images = torch.where(border, colours.expand_as(images).clamp(-1, 1), images)
    match_borders(cgn, images)
    background = cgn(torch.randint(10, (40,))).background
    deviation, mean = torch.std_mean(background, dim=(0, 2, 3))
    assert mean.tolist() == pytest.approx([-0.99, 0.5, 0.0], abs=0.1)
    assert deviation.tolist() == pytest.approx([0.0, 0.05, 0.3], abs=0.06)
