from __future__ import annotations

import pytest
import torch

from cgnrt_training.mnist.models import CGN
from cgnrt_training.mnist.surroundings import WIDTH, behind, match_borders, surroundings


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
