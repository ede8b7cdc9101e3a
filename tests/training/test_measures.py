"""Seams and coverage, against their definitions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from cgnrt_training.features.squeezenet import SqueezeNetFeatures
from cgnrt_training.mnist.data import VariantMnist
from cgnrt_training.mnist.measures import VISIBLE, coverage, measure_textures, nearest, seam_ratio
from cgnrt_training.mnist.models import CGN


def test_a_seam_is_measured_against_neighbours_elsewhere() -> None:
    ramp = (
        torch.arange(8.0).repeat(2, 3, 8, 1) / 10
    )  # steps of 0.1 across; 0.7 from the last column to the first
    # Down, nothing changes.
    expected = ((0.7 + 0) / 2 + VISIBLE) / ((0.1 + 0) / 2 + VISIBLE)
    assert seam_ratio(ramp) == pytest.approx(expected, rel=1e-4)
    assert seam_ratio(ramp.transpose(2, 3)) == pytest.approx(expected, rel=1e-4)
    assert seam_ratio(torch.full((2, 3, 8, 8), -1.0)) == 1
    torch.manual_seed(0)
    assert seam_ratio(torch.randn(50, 3, 8, 8)) == pytest.approx(1, abs=0.05)


def _rolls(picture: Tensor) -> Tensor:
    h, w = picture.shape[1:]
    return torch.stack([picture.roll((dy, dx), (1, 2)) for dy in range(h) for dx in range(w)])


def test_nearest_is_the_best_of_all_rolls() -> None:
    torch.manual_seed(0)
    real, others = torch.rand(3, 3, 8, 6) * 2 - 1, torch.rand(5, 3, 8, 6) * 2 - 1
    others[4] = real[2].roll((3, 5), (1, 2))
    found = nearest(real, others)
    expected = [min(((_rolls(o) - r) ** 2).mean((1, 2, 3)).min().sqrt().item() for o in others) for r in real]
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-3)
    assert found[2] < 1e-3


def test_nearest_by_features_is_the_best_of_all_rolls() -> None:
    torch.manual_seed(0)
    features = SqueezeNetFeatures(1)
    real, others = torch.rand(2, 3, 8, 8) * 2 - 1, torch.rand(3, 3, 8, 8) * 2 - 1

    def view(pictures: Tensor) -> Tensor:
        return torch.nn.functional.normalize(features(pictures, 1)[0], dim=1)

    expected = []
    for picture in view(real):
        # Where a real picture has no pixels beyond its sides, neither has a rolled one.
        distances = [((view(_rolls(other)) - picture) ** 2).sum(1).mean((1, 2)).min() for other in others]
        expected.append(torch.stack(distances).min().sqrt().item())
    np.testing.assert_allclose(nearest(real, others, features).numpy(), expected, atol=1e-3)


def test_coverage_of_all_and_of_one_picture() -> None:
    torch.manual_seed(0)
    real, other = torch.rand(6, 3, 8, 8), torch.rand(40, 3, 8, 8)
    assert coverage(real, other, other) == pytest.approx(1)
    assert coverage(real, other[:1], other) > 1.05
    assert coverage(real, real.roll((2, 2), (2, 3)), other) < 0.01


def test_measures_of_a_training_leave_it_alone(mnist: Path, textures: Path) -> None:
    data = VariantMnist("wildlife", mnist, textures=textures)
    cgn = CGN(channels=4).train()
    state = torch.random.get_rng_state()
    found = measure_textures(cgn, data, samples=8)
    assert torch.equal(state, torch.random.get_rng_state())
    assert cgn.training
    assert list(found) == [
        "seam_texture",
        "coverage_texture_pixels",
        "seam_background",
        "coverage_background_pixels",
    ]
    assert found == measure_textures(cgn, data, samples=8)
    by_features = measure_textures(cgn, data, SqueezeNetFeatures(1), samples=8)
    assert {"coverage_texture", "coverage_background"} < set(by_features)


def test_fills_are_what_images_are_made_of(mnist: Path, textures: Path) -> None:
    data = VariantMnist("wildlife", mnist, textures=textures)
    images = data.batch(range(20))
    for index in range(20):
        label = int(images.labels[index])
        front, back = (data.fills([index], label, front=front)[0] for front in (True, False))
        mask = data.digits[index][None]
        np.testing.assert_array_equal(images.images[index], np.where(mask, front, back))
    flat = VariantMnist("colored", mnist).fills(range(3), 2, front=False)
    assert flat.shape == (3, 3, 32, 32)
    assert (flat == -1).all()
