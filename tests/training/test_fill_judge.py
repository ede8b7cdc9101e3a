"""Discriminators of one texture mechanism each."""

from __future__ import annotations

import torch

from cgnrt_training.mnist.config import RECIPES, reference
from cgnrt_training.mnist.fill_judge import FillJudge, one_of_label
from cgnrt_training.mnist.surroundings import WIDTH, surroundings
from cgnrt_training.settings import load_toml, override


def _judge() -> FillJudge:
    torch.manual_seed(0)
    return FillJudge(override(reference("wildlife"), load_toml("fast", RECIPES)), "surroundings", 1.0)


def test_textures_are_judged_by_what_is_seen_alone() -> None:
    judge = _judge()
    pictures = torch.rand(10, 3, 32, 32, requires_grad=True)
    seen = surroundings(pictures)
    loss = judge.losses(pictures, torch.arange(10), seen)["surroundings"]
    loss.backward()
    assert pictures.grad is not None
    assert (pictures.grad[..., WIDTH:-WIDTH, WIDTH:-WIDTH] == 0).all()
    assert (pictures.grad[..., :WIDTH] != 0).any()
    assert all(p.grad is None for p in judge.judge.parameters())


def test_learns_to_tell_real_textures() -> None:
    judge = _judge()
    labels = torch.arange(10)
    real, fake = torch.full((10, 3, 32, 32), 0.5), torch.full((20, 3, 32, 32), -0.5)
    seen = surroundings(real)
    both = (real, labels, seen), (fake, labels.repeat(2), seen)  # more of those that are drawn
    first = judge.learn(*both)
    for _ in range(20):
        last = judge.learn(*both)
    assert sum(last.values()) < sum(first.values()) / 2


def test_a_mask_is_borrowed_from_a_real_image_of_the_same_label() -> None:
    torch.manual_seed(0)
    labels, wanted = torch.tensor([3, 7, 3, 1]), torch.tensor([7, 2, 3, 3, 3, 3, 3, 3, 1])
    found, places = one_of_label(labels, wanted)
    assert found.tolist() == [True, False, *[True] * 7]
    assert torch.equal(labels[places], wanted[found])
    assert set(places[1:-1].tolist()) == {0, 2}  # any of them


def test_no_mask_is_borrowed_where_no_label_is_there() -> None:
    found, places = one_of_label(torch.tensor([1]), torch.tensor([2, 3]))
    assert not found.any()
    assert len(places) == 0
