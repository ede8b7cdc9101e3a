"""U2-Net's weights as a plan: against torch, by every engine, from photo to mask."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from wrapped import WRAPPED

from cgnrt import CheckpointError
from cgnrt.plan import SaliencyPlan
from cgnrt.real import Saliency
from cgnrt_export import ExportError, SaliencyReport, export_saliency
from cgnrt_export.cli import main
from cgnrt_export.saliency_reader import export_finder, finds_objects
from cgnrt_training.imagenet.checkpoints import save_u2net
from cgnrt_training.imagenet.u2net import SMALL, ResidualU, Stage, U2Net

SIZE = (64, 48)  # odd sides on the way down: 3 x 2 pixels at stage 6


class OneStage(nn.Module):
    """One stage of a U2-Net and a head: whatever a U2-Net is made of, in a tenth of the time to trace one."""

    def __init__(self) -> None:
        super().__init__()
        self.stage = ResidualU(5, 3, Stage(3, 4), dilated=False, config=SMALL)
        self.inner = ResidualU(4, 4, Stage(3, 4), dilated=True, config=SMALL)
        self.head = nn.Conv2d(4, 1, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.inner(self.stage(image))).sigmoid()


def as_trained(model: nn.Module) -> nn.Module:
    """With batch norm statistics as after training."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.7, 1.3)
            nn.init.normal_(module.bias, std=0.2)
            module.running_mean.normal_(std=0.2)
            module.running_var.uniform_(0.5, 1.5)
    return model.eval()


def small_u2net() -> U2Net:
    """U2-Net-p of few channels."""
    torch.manual_seed(0)
    model = U2Net(SMALL.narrowed(0.125))
    as_trained(model)
    return model


@dataclass(frozen=True)
class Exported:
    plan: Path
    model: nn.Module
    report: SaliencyReport


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    torch.manual_seed(0)
    plan, model = tmp_path_factory.mktemp("saliency") / "stage.plan", as_trained(OneStage())
    report = export_saliency(
        plan,
        model,
        family="one stage",
        resolution=SIZE,
        precision="fp32",
        sources=[{"name": "x", "sha256": "0" * 64}],
    )
    return Exported(plan, model, report)


def test_the_plan_and_its_report(exported: Exported) -> None:
    with SaliencyPlan.open(exported.plan) as plan:
        spec, manifest = plan.network.spec, plan.manifest
        assert (manifest.resolution, manifest.family, manifest.precision) == (SIZE, "one stage", "fp32")
        assert (spec.divide_by, spec.stretch) == ("maximum", True)
        assert (spec.mean, spec.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
        assert manifest.parity == json.loads(json.dumps(exported.report.to_json()))
        assert manifest.sources == ({"name": "x", "sha256": "0" * 64},)
    measures = {m.measured: m.max_abs_error for m in exported.report.measures if m.precision == "fp32"}
    assert {"openvino", "onnxruntime"} <= set(measures)
    assert max(measures.values()) < 1e-4


@pytest.mark.extended  # tracing a whole U2-Net takes most of a minute
def test_a_weight_file_by_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cgnrt_export.saliency_reader.RESOLUTION", SIZE)
    weights, target, model = tmp_path / "mine.pth", tmp_path / "mine.plan", small_u2net()
    save_u2net(model, weights)
    assert main([str(weights), "-o", str(target), "--precision", "fp32", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)["report"]
    assert max(m["max_abs_error"] for m in report["measures"] if m["precision"] == "fp32") < 1e-4
    saliency = Saliency(target, threads=1)
    assert (saliency.plan.manifest.family, saliency.plan.manifest.resolution) == ("u2net", SIZE)
    assert saliency.plan.manifest.sources == (
        {"name": "mine.pth", "sha256": hashlib.sha256(weights.read_bytes()).hexdigest()},
    )
    photos = np.random.default_rng(0).integers(0, 256, (2, *SIZE, 3)).astype(np.uint8)
    for photo, mask in zip(photos, saliency(photos), strict=True):
        np.testing.assert_allclose(mask[0], mask_by_torch(model, photo), rtol=0, atol=1e-3)


def mask_by_torch(model: nn.Module, photo: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The official code's steps around the torch module, for a photo (h, w, 3)."""
    planes = [Image.fromarray(photo[..., c].astype(np.float32)) for c in range(3)]
    small = np.stack([np.asarray(p.resize(SIZE[::-1], Image.Resampling.BILINEAR)) for p in planes])
    scaled = torch.from_numpy(small / small.max())
    mean, std = (torch.tensor(v)[:, None, None] for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    with torch.no_grad():
        found = model(((scaled - mean) / std)[None])[0, 0]
    assert found.max() - found.min() > 0.01  # a mask that tells something apart
    stretched = Image.fromarray(((found - found.min()) / (found.max() - found.min())).numpy())
    resized = stretched.resize((photo.shape[1], photo.shape[0]), Image.Resampling.BILINEAR)
    return np.asarray(resized).clip(0, 1)


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_masks_of_photos_equal_torch(exported: Exported, backend: str) -> None:
    rng = np.random.default_rng(0)
    noise = [Image.fromarray(rng.integers(0, 256, (6, 8, 3)).astype(np.uint8)) for _ in range(3)]
    photos = np.stack([np.asarray(image.resize((90, 70))) for image in noise])
    masks = Saliency(exported.plan, backend=backend, threads=1)(photos)
    for photo, mask in zip(photos, masks, strict=True):
        np.testing.assert_allclose(mask[0], mask_by_torch(exported.model, photo), rtol=0, atol=1e-3)


def test_the_command_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights, target = tmp_path / "mine.pth", tmp_path / "mine.plan"
    save_u2net(small_u2net(), weights)
    assert finds_objects(weights)
    target.write_bytes(b"mine")
    for options, message in [
        ([], "the file exists, expected a new one. Pass --force to replace it."),
        (
            ["--force", "--variant", "colored"],
            "variant is 'colored', but a saliency network has no variants",
        ),
        (["--force", "--precision", "fp16"], "precision is 'fp16', expected one of auto, fp32, bf16"),
    ]:
        assert main([str(weights), "-o", str(target), *options]) == 1
        assert message in capsys.readouterr().err
    assert target.read_bytes() == b"mine"


@pytest.mark.parametrize("form", WRAPPED)
def test_a_u2net_is_recognised_as_training_scripts_save_it(form: str, tmp_path: Path) -> None:
    torch.save(WRAPPED[form](small_u2net().state_dict()), tmp_path / "u2net.pth")
    assert finds_objects(tmp_path / "u2net.pth")


def test_other_files_are_not_taken_for_a_u2net(authors_checkpoint: Path, tmp_path: Path) -> None:
    assert not finds_objects(authors_checkpoint)
    assert not finds_objects(tmp_path / "missing.pth")
    broken = tmp_path / "broken.pth"
    broken.write_bytes(b"x" * 100)
    with pytest.raises(CheckpointError, match="content is"):
        finds_objects(broken)
    state = small_u2net().state_dict()
    del state["stage3.rebnconv2.conv_s1.weight"]
    torch.save(state, tmp_path / "cut.pth")
    with pytest.raises(CheckpointError, match=r"missing keys .*stage3\.rebnconv2\.conv_s1\.weight"):
        export_finder(tmp_path / "cut.pth", tmp_path / "cut.plan")
    assert not (tmp_path / "cut.plan").exists()


class Small(nn.Module):
    """A network of the user's own, with its own preprocessing."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 1, 1)
        )

    def forward(self, image: Tensor) -> Tensor:
        return self.layers(image).sigmoid()


def test_a_network_of_ones_own(tmp_path: Path) -> None:
    module = Small().eval()
    report = export_saliency(
        tmp_path / "own.plan",
        module,
        family="own",
        resolution=(16, 24),
        divide_by="range",
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.25, 1),
        stretch=False,
        precision="fp32",
    )
    assert report.rewrites["batch norms folded"] == 1
    assert "4 random photos, seed 0; default precision: fp32" in report.table()
    photos = np.random.default_rng(0).integers(0, 256, (2, 3, 16, 24)).astype(np.uint8)
    scaled = (torch.from_numpy(photos) / 255 - 0.5) / torch.tensor([0.5, 0.25, 1])[:, None, None]
    with torch.no_grad():
        expected = module(scaled).numpy()
    np.testing.assert_allclose(
        Saliency(tmp_path / "own.plan", threads=1)(photos), expected, rtol=0, atol=1e-5
    )


class Tells(nn.Module):
    """What differs from its own ONNX form: NaN, by a value that overflows."""

    def forward(self, image: Tensor) -> Tensor:
        return (image.mean(1, keepdim=True) * 1e38 * 1e38).sin()


def test_a_network_that_gives_nan_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"the largest fp32 error by \w+ is nan, expected at most 0\.0001"):
        export_saliency(tmp_path / "x.plan", Tells(), family="x", resolution=(8, 8), precision="fp32")
    assert list(tmp_path.iterdir()) == []


class Inner(nn.Module):
    """A branch that depends on values."""

    def forward(self, image: Tensor) -> Tensor:
        return image[:, :1] if bool(image.sum() > 0) else image[:, 1:2]


def test_a_network_that_cannot_be_traced_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"torch\.export cannot trace it"):
        export_saliency(tmp_path / "x.plan", Inner(), family="x", resolution=(8, 8))
    with pytest.raises(ValueError, match="precision is 'int8', expected one of auto, fp32, bf16"):
        export_saliency(tmp_path / "x.plan", Inner(), family="x", precision="int8")
    assert list(tmp_path.iterdir()) == []
