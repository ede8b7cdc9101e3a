"""Encoders of what fills objects and backgrounds."""

from __future__ import annotations

import pytest
import torch

from cgnrt_training.mnist.config import RECIPES, reference
from cgnrt_training.mnist.fills import FillTeacher, inner_weights, where_seen
from cgnrt_training.mnist.models import CGN
from cgnrt_training.settings import load_toml, override

KNOWN = torch.ones(4, dtype=torch.bool)


def _teacher() -> FillTeacher:
    torch.manual_seed(0)
    return FillTeacher(override(reference("wildlife"), load_toml("fast", RECIPES)))


def _found() -> torch.Tensor:
    found = torch.zeros(4, 1, 32, 32)
    found[:, :, 8:24, 12:20] = 1
    return found


def test_a_pixel_between_object_and_background_belongs_to_neither() -> None:
    front, back = where_seen(_found())
    assert torch.equal(front, _found())
    assert (front + back)[0, 0, 7, 12] == 0
    assert back[0, 0, 6, 12] == 1
    assert int(back[0].sum()) == 32 * 32 - 18 * 10


def test_the_sides_of_a_picture_weigh_less() -> None:
    weights = inner_weights(torch.zeros(1, 3, 32, 16))
    assert weights.shape == (1, 1, 32, 16)
    assert weights[0, 0, 16].tolist() == pytest.approx([0.2, 0.4, 0.6, 0.8, *[1.0] * 8, 0.8, 0.6, 0.4, 0.2])
    assert weights[0, 0, 0, 8].item() == pytest.approx(0.2)


def test_losses_are_of_what_is_seen() -> None:
    teacher = _teacher()
    real = torch.rand(4, 3, 32, 32) * 2 - 1
    found = _found()
    front, back = where_seen(found)
    noise, kl = teacher.encode(real, torch.arange(4), found)
    assert [u.shape for u in noise] == [(4, 32), (4, 32)]
    # Whatever is drawn where the image does not show it.
    fills = real * front + 5 * (1 - front), real * back - 5 * (1 - back)
    exact = teacher.losses(fills, kl, real, found, KNOWN)
    assert exact["fills"].item() == pytest.approx(0, abs=1e-6)
    assert exact["fills_kl"].item() == pytest.approx(teacher.weights.fills_kl * kl.item())
    wrong = teacher.losses((fills[0], fills[1] + 0.5), kl, real, found, KNOWN)
    assert wrong["fills"].item() == pytest.approx(0.5 * teacher.weights.fills, rel=0.01)


def test_images_whose_masks_are_not_trusted_say_nothing() -> None:
    teacher = _teacher()
    real, known = torch.rand(4, 3, 32, 32), torch.tensor([True, True, False, False])
    fills = real.clone(), real.clone()
    for picture in fills:
        picture[2:] += 1
    found = teacher.losses(fills, torch.tensor(0.0), real, _found(), known)
    assert found["fills"] == 0


def test_nothing_is_seen_of_an_image_whose_mask_is_full() -> None:
    teacher = _teacher()
    real, full = torch.rand(4, 3, 32, 32), torch.ones(4, 1, 32, 32)
    found = teacher.losses((real + 1, real + 1), torch.tensor(0.0), real, full, KNOWN)
    assert torch.isfinite(found["fills"])


def test_two_backgrounds_of_a_class_are_told_apart() -> None:
    """What the adversarial loss alone does not ask for: each real image can be drawn."""
    teacher = _teacher()
    cgn = CGN(10, 32, 4, init="normal", gain=0.1, texture_padding="circular")
    real = torch.tensor([-0.8, 0.8]).repeat(8)[:, None, None, None].expand(16, 3, 32, 32)
    labels = torch.zeros(16, dtype=torch.int64)
    found = _found()[:1].expand(16, 1, 32, 32)
    optimizer = torch.optim.Adam([*cgn.parameters(), *teacher.parameters()], 0.01)
    for _ in range(40):
        (u_front, u_back), kl = teacher.encode(real, labels, found)
        fills = cgn.draw_fills((u_front, labels), (u_back, labels))
        loss = torch.stack(list(teacher.losses(fills, kl, real, found, KNOWN.repeat(4)).values())).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    levels = fills[1].mean((1, 2, 3))
    assert (levels[1::2] - levels[::2]).min() > 0.8
