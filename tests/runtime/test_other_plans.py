"""Plans unlike the MNIST CGN's: truncation as an input, a pre-mask, inputs that nothing reads, other ranges."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cgnrt import Generator
from cgnrt_export import MechanismModule, export_plan


class Painted(nn.Module):
    """A picture whose every pixel says what went in: the first noise value, or the truncation."""

    def __init__(self, channels: int, reads: str) -> None:
        super().__init__()
        self.reads = reads
        self.register_buffer("canvas", torch.ones(1, channels, 8, 8))

    def forward(self, noise: Tensor, class_embedding: Tensor, truncation: Tensor) -> Tensor:
        values = {"noise": noise[:, :1] / 4 + 0.5, "truncation": truncation, "class": class_embedding[:, :1]}
        return self.canvas * values[self.reads][:, :, None, None]


@pytest.fixture(scope="module")
def truncated_plan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plans") / "truncated.plan"
    table = torch.linspace(0, 1, 3)[:, None]
    mechanisms = {
        name: MechanismModule(
            Painted(1 if name == "shape" else 3, reads),
            table,
            ["low", "middle", "high"],
            noise_size=5,
            noise_distribution="truncated_normal",
            range=(0, 1),
        )
        for name, reads in (("shape", "noise"), ("texture", "truncation"), ("background", "class"))
    }
    limits = {"minimum": 0.02, "maximum": 1.0, "default": 0.5}
    export_plan(path, mechanisms, family="painted", noise_mode="shared", truncation=limits)
    return path


def test_truncation_scales_the_noise_and_is_an_input(truncated_plan: Path, backend: str) -> None:
    gen = Generator(truncated_plan, backend=backend, precision="fp32", range=(0, 1))
    batch = gen.sample(6, seed=1, truncation=[0.1, 0.2, 0.4, 0.5, 0.9, 1.0], parts=True)
    factor = np.array([0.1, 0.2, 0.4, 0.5, 0.9, 1.0], np.float32)
    np.testing.assert_allclose(batch.foreground[:, 0, 0, 0], factor, atol=1e-6)
    np.testing.assert_allclose(batch.mask[:, 0, 3, 3], batch.noise.shape[:, 0] * factor / 4 + 0.5, atol=1e-6)
    np.testing.assert_allclose(batch.background[:, 2, 5, 5], batch.labels.background / 2, atol=1e-6)
    expected = batch.mask * batch.foreground + (1 - batch.mask) * batch.background
    np.testing.assert_allclose(batch.images, expected, atol=1e-6)
    assert not batch.noise.rolls.any()


def test_truncation_has_a_default_and_limits(truncated_plan: Path) -> None:
    gen = Generator(truncated_plan)
    assert np.allclose(gen.sample(2, seed=1, parts=True).foreground, 0.5)
    assert np.allclose(gen.sample(2, seed=1, parts=True, pool=2, truncation=0.25).foreground, 0.25)
    with pytest.raises(ValueError, match=r"truncation is 1\.5, expected 0\.02\.\.1\.0"):
        gen.sample(1, truncation=1.5)
    with pytest.raises(ValueError, match=r"truncation has shape \(3,\), expected a number or \(2,\)"):
        gen.sample(2, truncation=[0.5, 0.5, 0.5])


def test_the_plans_noise_mode_is_the_default(truncated_plan: Path) -> None:
    gen = Generator(truncated_plan)
    shared = gen.sample(3, seed=1).noise
    np.testing.assert_array_equal(shared.shape, shared.texture)
    own = gen.sample(3, seed=1, shared_noise=False).noise
    assert not np.array_equal(own.shape, own.texture)
    assert np.abs(shared.shape).max() <= 2


def test_a_plan_in_zero_to_one_maps_to_the_wanted_range(truncated_plan: Path) -> None:
    zero_one = Generator(truncated_plan, range=(0, 1)).sample(4, seed=1).images
    np.testing.assert_allclose(
        Generator(truncated_plan).sample(4, seed=1).images, zero_one * 2 - 1, atol=1e-6
    )


def test_truncation_of_requests_that_are_rendered_together(truncated_plan: Path) -> None:
    gen = Generator(truncated_plan)
    requests = [gen.prepare(n=2, seed=1, truncation=0.5), gen.prepare(n=3, seed=2)]
    alone = (gen.sample(2, 1, truncation=0.5), gen.sample(3, 2))
    for batch, expected in zip(gen.render(requests), alone, strict=True):
        np.testing.assert_allclose(batch.images, expected.images, atol=1e-5)
