"""CGNs whose shape has a saliency head, and the head alone: their plans draw what torch draws, by every engine."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import saliency_nets
import torch
from torch import Tensor, nn

from cgnrt import Plan
from cgnrt.backends import load_engine
from cgnrt.errors import CheckpointError
from cgnrt.real import Saliency
from cgnrt_export import ParityReport, export_plan, read_checkpoint
from cgnrt_export.cli import main
from cgnrt_export.saliency_reader import finds_objects
from cgnrt_training.checkpoints import save
from cgnrt_training.imagenet.biggan import BigGANConfig
from cgnrt_training.imagenet.calibrate import random_biggan
from cgnrt_training.imagenet.checkpoints import save_biggan
from cgnrt_training.natural import checkpoints
from cgnrt_training.natural.config import Config
from cgnrt_training.natural.model import NaturalCGN

SIZE, CLASSES = 16, 6
BLOCKS = ((True, 16, 8), (True, 8, 4), (False, 4, 2), (False, 2, 1))  # few layers


class Picture(nn.Module):
    """The smallest texture or background."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(256, 3 * SIZE * SIZE)

    def forward(self, noise: Tensor, class_embedding: Tensor, truncation: Tensor) -> Tensor:
        drawn = self.layer(torch.cat([noise, class_embedding], dim=1)).unflatten(1, (3, SIZE, SIZE))
        return torch.tanh(drawn)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A natural CGN's `cgn.pt`, and the files that it began from."""
    folder = tmp_path_factory.mktemp("head")
    config = BigGANConfig(BLOCKS, channel_width=4, num_classes=CLASSES)
    biggan = random_biggan(config, torch.Generator().manual_seed(3))
    cgn = NaturalCGN.of_teacher(biggan, saliency_nets.head())
    about = checkpoints.about(Config(), cgn, {"u2net": {"name": "saliency.pt", "sha256": "0" * 64}})
    save({**about, "step": 1, "model": cgn.state_dict()}, folder / "cgn.pt")
    save_biggan(biggan, folder / "biggan")
    saliency_nets.write(folder / "saliency.pt")
    return folder


@pytest.fixture(scope="module")
def exported(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ParityReport]:
    """Its shape as a plan; tracing three BigGANs takes three times as long."""
    plan = tmp_path_factory.mktemp("plan") / "cgn.plan"
    torch.manual_seed(0)
    mechanisms = read_checkpoint(folder / "cgn.pt").mechanisms
    mechanisms |= {name: replace(mechanisms[name], module=Picture()) for name in ("texture", "background")}
    report = export_plan(
        plan,
        mechanisms,
        family="imagenet-cgn",
        truncation={"minimum": 0.02, "maximum": 1.0, "default": 0.5},
        precision="fp32",
        batch_sizes=(3,),
    )
    return plan, report


def test_the_plan_was_proven_and_rewritten(exported: tuple[Path, ParityReport]) -> None:
    found = exported[1].mechanisms["shape"]
    errors = {m.measured: m.max_abs_error for m in found.measures if m.precision == "fp32"}
    assert {"onnxruntime", "openvino"} <= set(errors)
    assert max(errors.values()) < 1e-4
    assert found.macs_after < found.macs_before
    assert found.rewrites["up-samplings merged"] == 2


@pytest.mark.parametrize("backend", ["native", "onnxruntime", "openvino", "torch"])
def test_every_engine_draws_what_torch_draws(
    folder: Path, exported: tuple[Path, ParityReport], backend: str
) -> None:
    cgn = checkpoints.load_natural(folder / "cgn.pt").model
    noise = torch.randn(5, 128, generator=torch.Generator().manual_seed(4)).clamp(-2, 2) * 0.5
    labels, truncation = torch.arange(5), torch.full((5, 1), 0.5)
    with torch.no_grad():
        parts = cgn(labels, labels, labels, noise=noise, truncation=truncation)
    assert float(parts.mask.std()) > 0.02  # masks that tell something apart
    inputs = {
        "noise": noise,
        "class_embedding": cgn.f_shape.embedding_table[labels],
        "truncation": truncation,
    }
    with Plan.open(exported[0]) as plan:
        engine = load_engine(plan.mechanisms["shape"], backend=backend, precision="fp32")
        found = engine.run({name: value.detach().numpy() for name, value in inputs.items()})
    np.testing.assert_allclose(found["mask"], parts.mask.numpy(), rtol=0, atol=1e-4)
    np.testing.assert_allclose(found["pre_mask"], parts.pre_mask.numpy(), rtol=0, atol=1e-4)


def test_a_head_begins_a_cgn_with_a_biggan(folder: Path) -> None:
    checkpoint = read_checkpoint(folder / "biggan", u2net=folder / "saliency.pt")
    assert checkpoint.sources[-1]["name"] == "saliency.pt"
    given = torch.randn(1, 128), torch.randn(1, 128), torch.tensor([[0.3]])
    with torch.no_grad():
        mask, pre_mask = checkpoint.mechanisms["shape"].module(*given)
        torch.testing.assert_close(mask, saliency_nets.head()(pre_mask).clamp(1e-4, 0.9999))
    with pytest.raises(CheckpointError, match="content is a saliency head, expected a U2-Net-p"):
        read_checkpoint(folder / "biggan", u2netp=folder / "saliency.pt")
    with pytest.raises(
        CheckpointError, match=r"content is a saliency head, expected a CGN or a BigGAN-deep\. "
    ):
        read_checkpoint(folder / "saliency.pt")
    with pytest.raises(ValueError, match="u2net is given, but the checkpoint is a whole CGN"):
        read_checkpoint(folder / "cgn.pt", u2net=folder / "saliency.pt")


def test_the_head_alone_masks_photos(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = folder / "saliency.plan"
    assert finds_objects(folder / "saliency.pt")
    assert main([str(folder / "saliency.pt"), "-o", str(plan), "--precision", "fp32", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)["report"]
    assert max(m["max_abs_error"] for m in report["measures"] if m["precision"] == "fp32") < 1e-4
    size = saliency_nets.SIZE
    photos = np.random.default_rng(0).integers(0, 256, (3, size, size, 3)).astype(np.uint8)
    images = torch.from_numpy(photos).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.no_grad():
        expected = saliency_nets.head()(images).numpy()
    saliency = Saliency(plan, threads=1)
    assert (saliency.plan.manifest.family, saliency.plan.manifest.resolution) == (
        "saliency-head",
        (size, size),
    )
    np.testing.assert_allclose(saliency(photos), expected, rtol=0, atol=1e-4)
    assert saliency(np.zeros((1, 90, 70, 3), np.uint8)).shape == (1, 1, 90, 70)
