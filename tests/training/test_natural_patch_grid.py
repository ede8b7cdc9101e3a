"""The texture loss's target (App. C.2) against torch, and against what a patch grid must be."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cgnrt.sampling import patch_picks
from cgnrt_training.natural.config import PatchConfig
from cgnrt_training.natural.patch_grid import patch_grid, patch_sides

SEED = 3
SMALL = PatchConfig(resolution=32, patch=5, top=20, smallest=3)
INDICES = np.array([7, 1 << 40])


@pytest.fixture
def scene() -> tuple[Tensor, Tensor]:
    """Masks with a blob each, and pictures whose every pixel is another colour."""
    torch.manual_seed(0)
    y, x = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    centres = torch.tensor([[10.0, 12.0], [20.0, 18.0]])
    distance = (y - centres[:, 0, None, None]) ** 2 + (x - centres[:, 1, None, None]) ** 2
    return torch.exp(-distance / 60)[:, None], torch.rand(2, 3, 32, 32) * 2 - 1


def ranked(mask: Tensor, patch: int, top: int) -> list[tuple[int, int]]:
    """Corners of the windows with the highest mean, the highest first."""
    means = F.avg_pool2d(mask[None].double(), patch, 1)[0, 0]
    order = means.flatten().argsort(descending=True, stable=True)[:top]
    return [divmod(int(k), means.shape[1]) for k in order]


def expected_grids(masks: Tensor, pictures: Tensor, config: PatchConfig, size: int) -> Tensor:
    """Windows cut one by one and scaled by torch."""
    picks = patch_picks(SEED, INDICES, top=config.top, grid=config.grid)
    side = config.patch
    grids = []
    for mask, picture, pick in zip(masks, pictures, picks, strict=True):
        windows = ranked(mask, side, config.top)
        rows = [
            torch.cat([picture[:, y : y + side, x : x + side] for y, x in (windows[k] for k in row)], 2)
            for row in pick.reshape(config.grid, config.grid)
        ]
        grids.append(torch.cat(rows, 1))
    return F.interpolate(torch.stack(grids), size=(size, size), mode="bicubic", align_corners=False)


@pytest.mark.parametrize("resolution", [32, 24, 40])
def test_every_cell_is_one_window_of_the_top(scene: tuple[Tensor, Tensor], resolution: int) -> None:
    """Of mask and picture, which are first scaled as torch does."""
    config = replace(SMALL, resolution=resolution)
    found = patch_grid(*scene, config, SEED, INDICES)
    small = [
        F.interpolate(t, size=(resolution, resolution), mode="bicubic", align_corners=False) for t in scene
    ]
    expected = expected_grids(small[0].clamp(0, 1), small[1], config, 32)
    # Bicubic weights sum in another order; of two scalings the errors add up.
    torch.testing.assert_close(found, expected, rtol=0, atol=4e-6)


def test_cells_are_copies_where_nothing_is_scaled(scene: tuple[Tensor, Tensor]) -> None:
    masks, pictures = (F.pad(t, (0, -2, 0, -2)) for t in scene)  # 30 px: 6 x 6 windows of 5 px
    config = replace(SMALL, resolution=30)
    found = patch_grid(masks, pictures, config, SEED, INDICES)
    assert torch.equal(found, expected_grids(masks, pictures, config, 30))


def test_windows_are_uniform_over_the_top(scene: tuple[Tensor, Tensor]) -> None:
    """Chi-square over the 100 windows; the draws are a fixed stream, so the test is deterministic."""
    picks = patch_picks(SEED, np.arange(1000), top=100, grid=6)
    counts = np.bincount(picks.ravel(), minlength=100)
    expected = picks.size / 100
    chi_square = ((counts - expected) ** 2 / expected).sum()
    assert 60 < chi_square < 150, "of 99 degrees of freedom: 0.1 % beyond on either side"
    positions = ((np.corrcoef(picks.T) - np.eye(36)) ** 2).mean()
    assert positions < 0.002, "cells are independent: squared correlations of 1,000 draws are near 0.001"


def test_no_gradient_leads_into_it(scene: tuple[Tensor, Tensor]) -> None:
    masks, pictures = (t.requires_grad_() for t in scene)
    grids = patch_grid(masks, pictures, SMALL, SEED, INDICES)
    assert not grids.requires_grad


def test_it_is_a_function_of_seed_and_index_alone(scene: tuple[Tensor, Tensor]) -> None:
    masks, pictures = scene
    both = patch_grid(masks, pictures, SMALL, SEED, INDICES)
    second = patch_grid(masks[1:], pictures[1:], SMALL, SEED, INDICES[1:])
    assert torch.equal(both[1:], second)
    assert not torch.equal(patch_grid(masks[1:], pictures[1:], SMALL, SEED + 1, INDICES[1:]), second)


def test_patches_by_object_size(scene: tuple[Tensor, Tensor]) -> None:
    """App. F: a quarter of the area takes half of the side, and four times as many patches."""
    config = replace(SMALL, patch=6, by_object=True)
    shares = torch.tensor([0.9, 0.3, 0.075, 0.001]).reshape(4, 1, 1, 1).expand(4, 1, 8, 8)
    assert patch_sides(shares, config).tolist() == [6, 6, 3, 3]
    assert patch_sides(shares, replace(config, by_object=False)).tolist() == [6] * 4
    masks, pictures = scene
    masks = torch.cat([masks[:1], (masks[1:] * 4).clamp(0, 1)])
    small, large = patch_sides(masks, config)
    assert small < large
    mixed = patch_grid(masks, pictures, config, SEED, INDICES)
    alone = patch_grid(
        masks[:1],
        pictures[:1],
        replace(config, by_object=False, patch=int(small), grid=round(36 / small)),
        SEED,
        INDICES[:1],
    )
    assert torch.equal(mixed[:1], alone)


def test_not_a_number_is_left_for_the_losses_to_report(scene: tuple[Tensor, Tensor]) -> None:
    masks, pictures = scene
    pictures[0, 0] = torch.nan
    assert patch_grid(masks * torch.nan, pictures, SMALL, SEED, INDICES).isnan().any()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_dtypes_come_back_as_they_went_in(scene: tuple[Tensor, Tensor], dtype: torch.dtype) -> None:
    masks, pictures = scene
    found = patch_grid(masks.to(dtype), pictures.to(dtype), SMALL, SEED, INDICES)
    assert found.dtype == dtype
    expected = patch_grid(masks.to(dtype).float(), pictures.to(dtype).float(), SMALL, SEED, INDICES)
    assert torch.equal(found, expected.to(dtype))
