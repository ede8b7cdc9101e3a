"""From a folder of photos to a CGN whose shape has a head trained on them, one command after the other."""

from __future__ import annotations

from pathlib import Path

import natural_nets
import numpy as np
import pytest
import torch
from PIL import Image

from cgnrt.errors import CheckpointError
from cgnrt_export import read_checkpoint
from cgnrt_training import cli
from cgnrt_training.checkpoints import load_tensors
from cgnrt_training.checkpoints import save as save_checkpoint
from cgnrt_training.imagenet.cgn import CGN
from cgnrt_training.imagenet.checkpoints import describe, load_cgn, load_head, save_biggan, save_cgn
from cgnrt_training.natural.checkpoints import load_natural
from cgnrt_training.saliency.files import load_saliency
from cgnrt_training.saliency.model import SaliencyNet

TINY = ["--set", "train.width=2", "--set", "train.batch_size=4", "--threads", "1"]


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 photos of two classes, 12 of them in `val`, packed with their masks."""
    folder = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(0)
    for split in ("train", "val"):
        for name, colour in (("red", (230, 30, 30)), ("blue", (30, 30, 230))):
            for k in range(6):
                picture = random.integers(0, 60, (36, 36, 3)).astype(np.uint8)
                mask = np.zeros((36, 36), np.uint8)
                top, left = random.integers(4, 16, 2)
                mask[top : top + 14, left : left + 12] = 255
                picture[mask > 0] = colour
                for kind, pixels in (("images", picture), ("masks", mask)):
                    path = folder / kind / split / name / f"{k}.png"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    Image.fromarray(pixels).save(path)
    words = ["--images", str(folder / "images"), "--masks", str(folder / "masks"), "--size", "32"]
    assert cli.main(["photos", *words, "--output", str(folder / "pack")]) == 0
    return folder / "pack"


@pytest.fixture(scope="module")
def run(pack: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two steps."""
    output = tmp_path_factory.mktemp("saliency") / "run"
    words = ["--photos", str(pack), "--output", str(output), "--steps", "2", *TINY]
    assert cli.main(["saliency", *words]) == 0
    return output


def test_the_command_trains_and_goes_on(
    run: Path, pack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert {path.name for path in run.iterdir()} >= {"saliency.pt", "resume.pt", "config.json", "sheet.png"}
    words = ["saliency", "--photos", str(pack), "--output", str(run)]
    assert cli.main(words) == 2
    assert "the folder already has a run" in capsys.readouterr().err
    assert cli.main([*words, "--resume", "--set", "loss.overlap=2"]) == 2
    assert "settings are changed: loss.overlap" in capsys.readouterr().err
    assert cli.main([*words, "--resume", "--steps", "3"]) == 0
    captured = capsys.readouterr()
    assert captured.out == f"{run / 'saliency.pt'}\n"
    assert "step 3: binary" in captured.err
    assert load_tensors(run / "saliency.pt")["step"] == 3
    assert cli.main(["saliency", "--photos", str(tmp_path), "--output", str(tmp_path / "run"), *TINY]) == 1
    assert "expected a finished pack" in capsys.readouterr().err


def test_a_cgn_trains_with_the_head(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_biggan(natural_nets.cgan(0), tmp_path / "biggan")
    output = tmp_path / "cgn"
    given = [
        "--biggan",
        str(tmp_path / "biggan"),
        "--u2net",
        str(run / "saliency.pt"),
        "--output",
        str(output),
    ]
    small = ["loss.perceptual=0", "loss.texture=0", "train.pseudo_batch=2", "log.sheet_samples=1"]
    sets = [word for setting in small for word in ("--set", setting)]
    assert cli.main(["imagenet", *given, "--steps", "1", *sets]) == 0
    assert "u2net: 0.0 M parameters: head of f_shape and judge of f_bg" in capsys.readouterr().err
    loaded = load_natural(output / "cgn.pt")
    head = loaded.model.u2net
    assert isinstance(head, SaliencyNet)
    assert loaded.sources["u2net"]["name"] == "saliency.pt"
    # The head is as it was: it judges and is not trained. Its masks are those of the shape mechanism.
    image = torch.rand(2, 3, 32, 32) * 2 - 1
    with torch.no_grad():
        assert torch.equal(head(image), load_saliency(run / "saliency.pt")(image))
    module = read_checkpoint(output / "cgn.pt").mechanisms["shape"].module
    noise, labels, truncation = torch.randn(2, natural_nets.NOISE), torch.arange(2), torch.ones(2, 1)
    with torch.no_grad():
        mask, _ = module(noise, loaded.model.f_shape.embedding_table[labels], truncation)
        parts = loaded.model(labels, labels, labels, noise=noise, truncation=truncation)
    torch.testing.assert_close(mask, parts.mask, rtol=0, atol=0)
    assert cli.main(["imagenet", "--output", str(output), "--resume", "--steps", "2"]) == 0


def test_a_cgn_with_the_head_as_one_state_dict(run: Path, tmp_path: Path) -> None:
    head = load_head(run / "saliency.pt")
    biggan = natural_nets.cgan(0)
    cgn = CGN(biggan, biggan, biggan, head)
    save_cgn(cgn, tmp_path / "cgn.pth")
    loaded = load_cgn(tmp_path / "cgn.pth")
    assert isinstance(loaded.u2net, SaliencyNet)
    for key, value in cgn.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value), key


def test_heads_that_are_refused(run: Path, tmp_path: Path) -> None:
    content = load_tensors(run / "saliency.pt")
    assert describe(content) == "a saliency head"
    with pytest.raises(CheckpointError, match="content is a saliency head, expected a U2-Net-p"):
        load_head(run / "saliency.pt", kind="u2netp")
    assert isinstance(load_head(run / "saliency.pt", kind="u2net"), SaliencyNet)
    save_checkpoint(content | {"format_version": 9}, tmp_path / "newer.pt")
    with pytest.raises(CheckpointError, match=r"format version is 9, expected 1\.\.1"):
        load_head(tmp_path / "newer.pt")
