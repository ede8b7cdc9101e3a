"""ImageNet checkpoints become plans that draw what the torch CGN draws."""

from __future__ import annotations

import copy
import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from wrapped import WRAPPED

from cgnrt import Generator, Plan
from cgnrt.errors import CheckpointError
from cgnrt_export import ExportError, MechanismModule, export_plan, read_checkpoint
from cgnrt_export.cli import main
from cgnrt_export.inference import inference_form
from cgnrt_export.mechanism import check_mechanisms
from cgnrt_export.pre_mask import Picture, check_pre_mask, picture_form
from cgnrt_training.imagenet.biggan import BigGAN, BigGANConfig
from cgnrt_training.imagenet.calibrate import random_biggan, random_u2net
from cgnrt_training.imagenet.cgn import CGN, compose
from cgnrt_training.imagenet.checkpoints import save_biggan, save_cgn, save_u2net
from cgnrt_training.imagenet.u2net import FULL, SMALL, U2Net

# A third of the blocks of the published one: rewriting and tracing take minutes for that.
BLOCKS = ((True, 16, 8), (True, 8, 4), (True, 4, 2), (False, 2, 1))
SHAPES = BigGANConfig.of_resolution(128, channel_width=4, num_classes=5)
HEAD = replace(FULL.narrowed(1 / 64), align_corners=True)


def _cgn(config: BigGANConfig, seed: int = 0) -> CGN:
    torch.manual_seed(seed)
    return CGN(BigGAN(config), BigGAN(config), BigGAN(config), U2Net(HEAD)).eval()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    cgn = _cgn(SHAPES)
    save_cgn(cgn, folder / "cgn.pth")
    save_biggan(cgn.f_text, folder / "biggan-deep-128")
    torch.save(cgn.f_text.state_dict(), folder / "biggan128.pth")
    save_u2net(U2Net(SMALL), folder / "u2netp.pth")
    return folder


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_authors_checkpoint(files: Path) -> None:
    checkpoint = read_checkpoint(files / "cgn.pth", resolution=128)
    assert checkpoint.family == "imagenet-cgn"
    assert checkpoint.noise_mode == "shared"
    assert checkpoint.truncation == {"minimum": 0.02, "maximum": 1.0, "default": 0.5}
    assert checkpoint.sources == ({"name": "cgn.pth", "sha256": _digest(files / "cgn.pth")},)
    assert checkpoint.note is None
    cgn = _cgn(SHAPES)
    noise, truncation = torch.randn(2, 128) * 0.5, torch.tensor([[0.5], [0.14]])
    labels = torch.tensor([4, 0])
    with torch.no_grad():
        parts = cgn(labels, labels, labels, noise=noise, truncation=truncation)
        for name, expected in (
            ("shape", (parts.mask, parts.pre_mask)),
            ("texture", parts.foreground),
            ("background", parts.background),
        ):
            mechanism = checkpoint.mechanisms[name]
            assert (mechanism.noise_size, mechanism.noise_distribution) == (128, "truncated_normal")
            assert list(mechanism.classes) == ["0", "1", "2", "3", "4"]
            assert not mechanism.roll
            got = mechanism.module(noise, mechanism.embedding[labels], truncation)
            torch.testing.assert_close(got, expected, rtol=0, atol=0)
            names = [key for key, _ in mechanism.module.named_parameters()]
            assert not [key for key in names if "biggan_GT" in key or "embeddings" in key]


GIVEN = torch.randn(1, 128), torch.randn(1, 128), torch.tensor([[0.3]])


def _pictures(folder: Path) -> list[Tensor]:
    """Those of the mechanisms in `cgn.pth`, and in `biggan128.pth` and `u2netp.pth`."""
    read = (
        read_checkpoint(folder / "cgn.pth"),
        read_checkpoint(folder / "biggan128.pth", u2netp=folder / "u2netp.pth"),
    )
    with torch.no_grad():
        return [picture for found in read for m in found.mechanisms.values() for picture in m.module(*GIVEN)]


@pytest.fixture(scope="module")
def pictures(files: Path) -> list[Tensor]:
    return _pictures(files)


@pytest.mark.parametrize("form", ["DataParallel", "torch.compile", "Lightning", "nested"])
def test_weights_as_training_scripts_save_them(
    form: str, files: Path, pictures: list[Tensor], tmp_path: Path
) -> None:
    for name in ("cgn.pth", "biggan128.pth", "u2netp.pth"):
        torch.save(WRAPPED[form](torch.load(files / name)), tmp_path / name)
    for found, expected in zip(_pictures(tmp_path), pictures, strict=True):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("source", ["biggan-deep-128", "biggan128.pth"])
def test_a_biggan_and_a_u2net_begin_a_cgn(files: Path, source: str) -> None:
    checkpoint = read_checkpoint(files / source, u2netp=files / "u2netp.pth")
    assert checkpoint.note is not None
    assert "this one BigGAN" in checkpoint.note
    names = [entry["name"] for entry in checkpoint.sources]
    folder = ["config.json", "pytorch_model.bin"]
    assert names == [*(folder if source == "biggan-deep-128" else [source]), "u2netp.pth"]
    assert checkpoint.sources[-1]["sha256"] == _digest(files / "u2netp.pth")
    mechanisms = checkpoint.mechanisms
    given = torch.randn(1, 128), torch.randn(1, 128), torch.tensor([[0.3]])
    with torch.no_grad():
        _, pre_mask = mechanisms["shape"].module(*given)
        assert torch.equal(pre_mask, mechanisms["texture"].module(*given))
    head: Any = mechanisms["shape"].module.u2net
    assert head.config.align_corners, "as the CGN's authors have it"


def test_a_thousand_classes_have_names(tmp_path: Path) -> None:
    config = BigGANConfig(BLOCKS, channel_width=4)
    save_biggan(BigGAN(config), tmp_path / "biggan")
    save_u2net(U2Net(SMALL), tmp_path / "u2netp.pth")
    mechanisms = read_checkpoint(tmp_path / "biggan", u2netp=tmp_path / "u2netp.pth").mechanisms
    for mechanism in mechanisms.values():
        assert mechanism.classes[385] == "Indian elephant"
        assert mechanism.embedding.shape == (1000, 128)


def test_what_does_not_go_together(files: Path, authors_checkpoint: Path) -> None:
    head = files / "u2netp.pth"
    with pytest.raises(CheckpointError, match=r"a BigGAN-deep-128 alone, expected a U2-Net with it.*--u2net"):
        read_checkpoint(files / "biggan-deep-128")
    with pytest.raises(CheckpointError, match="content is a U2-Net-p, expected a U2-Net"):
        read_checkpoint(files / "biggan-deep-128", u2net=head)
    with pytest.raises(
        CheckpointError, match=r"a U2-Net-p, expected a CGN or a BigGAN-deep\. Give it as --u2n"
    ):
        read_checkpoint(head)
    with pytest.raises(ValueError, match="--u2netp is given, but the checkpoint has its own"):
        read_checkpoint(files / "cgn.pth", u2netp=head)
    with pytest.raises(ValueError, match="u2net and u2netp are given, expected one of them"):
        read_checkpoint(files / "biggan-deep-128", u2net=head, u2netp=head)
    with pytest.raises(CheckpointError, match="resolution is 128, expected 256"):
        read_checkpoint(files / "cgn.pth", resolution=256)
    with pytest.raises(CheckpointError, match="resolution is 128, expected 256"):
        read_checkpoint(files / "biggan-deep-128", u2netp=head, resolution=256)
    with pytest.raises(ValueError, match="variant is 'colored', but this is an ImageNet"):
        read_checkpoint(files / "cgn.pth", variant="colored")
    for more in ({"u2netp": head}, {"resolution": 256}):
        with pytest.raises(ValueError, match="is given, expected it with an ImageNet checkpoint"):
            read_checkpoint(authors_checkpoint, **more)  # type: ignore[arg-type]
    with pytest.raises(CheckpointError, match="Is a directory"):
        read_checkpoint(files)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, CGN]:
    """A calibrated CGN of few layers as a checkpoint, exported by the command: (folder, plan, model)."""
    folder = tmp_path_factory.mktemp("small")
    config = BigGANConfig(BLOCKS, channel_width=4, num_classes=6)
    generator = torch.Generator().manual_seed(3)
    biggan = random_biggan(config, generator)
    with torch.no_grad():
        noise, embedding = (torch.randn(4, 128, generator=generator) for _ in range(2))
        images = biggan(noise, embedding, torch.ones(4, 1))
    # The small U2-Net's structure is that of the full one.
    head = random_u2net(SMALL, generator, images)
    save_biggan(biggan, folder / "biggan")
    save_u2net(head, folder / "u2netp.pth")
    plan = folder / "cgn.plan"
    command = [folder / "biggan", "--u2netp", folder / "u2netp.pth", "-o", plan, "--precision", "fp32"]
    assert main([str(word) for word in command]) == 0
    from cgnrt_training.imagenet.checkpoints import load_u2net

    aligned = load_u2net(folder / "u2netp.pth", align_corners=True)
    return folder, plan, CGN(biggan, biggan, biggan, aligned).eval()


def test_the_plan_says_what_it_is(small: tuple[Path, Path, CGN]) -> None:
    with Plan.open(small[1]) as plan:
        manifest = plan.manifest
    assert manifest.family == "imagenet-cgn"
    assert manifest.noise_mode == "shared"
    assert manifest.truncation is not None
    assert (manifest.truncation.minimum, manifest.truncation.maximum) == (0.02, 1.0)
    outputs = {
        name: [(output.name, output.shape) for output in mechanism.outputs]
        for name, mechanism in manifest.mechanisms.items()
    }
    assert outputs == {
        "shape": [("mask", ("n", 1, 32, 32)), ("pre_mask", ("n", 3, 32, 32))],
        "texture": [("foreground", ("n", 3, 32, 32))],
        "background": [("background", ("n", 3, 32, 32))],
    }
    inputs = [tensor.name for tensor in manifest.mechanisms["shape"].inputs]
    assert inputs == ["noise", "class_embedding", "truncation"]
    assert manifest.mechanisms["shape"].noise.distribution == "truncated_normal"


@pytest.mark.parametrize("truncation", [0.14, 0.37, 1.0])
def test_the_runtime_draws_what_torch_draws(small: tuple[Path, Path, CGN], truncation: float) -> None:
    _, plan, cgn = small
    batch = Generator(plan).sample(5, seed=2, parts=True, truncation=truncation)
    noise = torch.from_numpy(np.asarray(batch.noise.shape)) * truncation
    assert noise.abs().max() <= 2 * truncation
    labels = [torch.from_numpy(np.asarray(getattr(batch.labels, name)).astype(np.int64)) for name in _LABELS]
    factor = torch.full((5, 1), truncation)
    with torch.no_grad():
        parts = cgn(*labels, noise=noise, truncation=factor)
        exact = copy.deepcopy(cgn).double()(*labels, noise=noise.double(), truncation=factor.double())
    found = (batch.mask, batch.pre_mask, batch.foreground, batch.background, batch.images)
    pairs = zip(found, (*parts, compose(parts)), (*exact, compose(exact)), strict=True)
    # U2-Net amplifies what its pre-mask differs by, in torch as in an engine, and the composite shows its mask: 3e-4 is
    # usual there.
    floors = (1e-3, 1e-4, 1e-4, 1e-4, 1e-3)
    for (got, right, truth), floor in zip(pairs, floors, strict=True):
        # A few dozen layers of float32, in another order. The export's rule: as far as torch's own float32 is from
        # float64, four times.
        tolerance = max(floor, 4 * float((right - truth).abs().max()))
        assert tolerance < 5e-3
        np.testing.assert_allclose(got, right.numpy(), rtol=0, atol=tolerance)


_LABELS = ("shape", "texture", "background")


class Twice(nn.Module):
    """A shape mechanism with a picture before its mask."""

    def __init__(self, change: Any = lambda mask, pre_mask: (mask, pre_mask)) -> None:
        super().__init__()
        self.layer = nn.Linear(5, 3 * 8 * 8)
        self.change = change

    def forward(self, noise: Tensor, class_embedding: Tensor) -> Any:
        pre_mask = self.layer(torch.cat([noise, class_embedding], 1)).unflatten(1, (3, 8, 8))
        return self.change(torch.sigmoid(pre_mask[:, :1]), pre_mask)


def test_own_modules_may_give_a_pre_mask(own: Any, tmp_path: Path) -> None:
    given = own(shape=Twice())
    export_plan(tmp_path / "own.plan", given, family="own", precision="fp32", batch_sizes=(2,))
    batch = Generator(tmp_path / "own.plan").sample(7, seed=0, parts=True)
    assert batch.pre_mask.shape == (7, 3, 8, 8)
    np.testing.assert_allclose(1 / (1 + np.exp(-batch.pre_mask[:, :1])), batch.mask, atol=1e-5)

    checked = check_mechanisms(given)["shape"]
    other = Twice(lambda mask, pre_mask: (mask, pre_mask + 0.1)).eval()
    other.load_state_dict(given["shape"].module.state_dict())
    with Plan.open(tmp_path / "own.plan") as plan:
        shape = plan.mechanisms["shape"]
        check_pre_mask(shape, checked, checked.module)
        with pytest.raises(
            ExportError, match=r"largest fp32 error of the pre-mask by \w+ is 0\.1, expected at"
        ):
            check_pre_mask(shape, checked, other)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda m, p: (m, p, p), TypeError, "output is a tuple of 3, expected one tensor, or a tuple of two"),
        (lambda m, p: {"mask": m}, TypeError, "output is a dict, expected one tensor, or a tuple of two"),
        (lambda m, p: (m, 3), TypeError, "output is a tuple of 2, expected one tensor, or a tuple of two"),
        (lambda m, p: (m, p[:, :2]), ValueError, r"pre_mask is \(3, 2, 8, 8\), expected \(3, 1 or 3, 8, 8\)"),
        (lambda m, p: (m, p[..., :4]), ValueError, r"pre_mask is \(3, 3, 8, 4\), expected \(3, 1 or 3, 8, 8"),
        (lambda m, p: (m, p.double()), ValueError, r"pre_mask is torch\.float64, expected torch\.float32"),
        (lambda m, p: (m, p / 0), ValueError, "pre_mask has NaN or infinite values"),
        (lambda m, p: (m, p + torch.rand_like(p)), ValueError, "two calls with the same inputs differ"),
    ],
)
def test_pre_masks_that_are_none(own: Any, change: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"export mechanism 'shape': {message}"):
        check_mechanisms(own(shape=Twice(change)))


def test_only_the_shape_has_one(own: Any) -> None:
    given: dict[str, MechanismModule] = own(texture=Twice())
    with pytest.raises(TypeError, match="'texture': output is a tuple, expected one tensor"):
        check_mechanisms(given)


def test_the_picture_alone(own: Any) -> None:
    checked = check_mechanisms(own(shape=Twice()))["shape"]
    form = inference_form(checked.module, checked.example)
    inputs = tuple(checked.example.values())
    alone, both = picture_form(form), form.module(*inputs)
    assert torch.equal(alone.module(*inputs), both[0])
    assert torch.equal(Picture(form.module)(*inputs), both[0])
    assert alone.macs_after == form.macs_after
