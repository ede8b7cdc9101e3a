"""Scores: judges by ImageNet's classes or a linear probe, LPIPS, and the command."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import cgan_runs
import natural_nets
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from cgnrt.errors import CheckpointError
from cgnrt_training import cli
from cgnrt_training.cgan.train import train
from cgnrt_training.features.squeezenet import SqueezeNetFeatures
from cgnrt_training.imagenet.biggan import BigGAN
from cgnrt_training.imagenet.checkpoints import save_biggan, save_u2net
from cgnrt_training.imagenet.classes import class_names
from cgnrt_training.natural import checkpoints, draws
from cgnrt_training.natural.model import NaturalCGN
from cgnrt_training.natural.pictures import classes_of, draw, load_model
from cgnrt_training.natural.scores import measure as table1_scores
from cgnrt_training.photos.writing import ABOUT
from cgnrt_training.scoring.judge import Judge, accuracy, indices_of, parse_classes
from cgnrt_training.scoring.lpips import Lpips, diversity
from cgnrt_training.scoring.measure import Scores
from cgnrt_training.scoring.pictures import choose

CHANNELS = (64, 128, 256, 384, 384, 512, 512)


def images(n: int = 4) -> Tensor:
    return torch.rand(n, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1


def squeezenet_and_lpips(folder: Path) -> tuple[Path, Path]:
    """Random weights of both in the published forms."""
    torch.manual_seed(0)
    torch.save(SqueezeNetFeatures().state_dict(), folder / "squeezenet.pth")
    linear = {f"lin{k}.model.1.weight": torch.rand(1, c, 1, 1) for k, c in enumerate(CHANNELS)}
    torch.save(linear, folder / "squeeze.pth")
    return folder / "squeezenet.pth", folder / "squeeze.pth"


def test_classes_are_found_by_name() -> None:
    assert indices_of(["tench", "English_springer", "gas-pump"]) == [0, 217, 571]
    assert indices_of(["tench", "unicorn"]) is None
    assert parse_classes("0, English springer,571", 3) == [0, 217, 571]
    with pytest.raises(
        ValueError, match="class is 'unicorn', expected an index or a name of ImageNet's 1,000"
    ):
        parse_classes("unicorn", 1)
    with pytest.raises(ValueError, match="2 classes are given, expected 3, one for each class"):
        parse_classes("1,2", 3)


def test_a_judge_of_some_classes_has_their_logits() -> None:
    network = cgan_runs.network(64)
    judge = Judge.of_indices(network, [7, 3])
    assert judge.label == f"ImageNet's {class_names()[7]}, {class_names()[3]}"
    side = network.size.resolution
    scaled = F.interpolate(images(), (side, side), mode="bicubic", antialias=True).clamp(-1, 1)
    expected = network.logits(scaled)[:, [7, 3]].double().softmax(1)
    torch.testing.assert_close(judge.probabilities(images()), expected, rtol=1e-4, atol=1e-5)
    assert Judge.of_names(network, ["unicorn"]).probabilities(images()).shape == (4, 1000)
    named = Judge.of_names(network, ["stingray", "tiger_shark"])
    assert named.label == "ImageNet's stingray, tiger shark"
    for indices, shown in (([1000], "1000"), ([4, 4], "4, 4")):
        with pytest.raises(ValueError, match=f"classes are {shown}, expected different indices in 0..999"):
            Judge.of_indices(network, indices)


def test_a_judge_learns_classes_from_photos() -> None:
    photos = cgan_runs.photos()
    judge = Judge.of_photos(cgan_runs.network(64), *choose(photos, 12), 3)
    assert judge.label == "a linear probe of 12 photos"
    pictures = choose(photos, 12)
    assert accuracy(judge.probabilities(pictures.images), pictures.labels) == 1


def test_photos_are_chosen_class_by_class() -> None:
    pictures = choose(cgan_runs.photos(), 7)
    assert torch.bincount(pictures.labels).tolist() == [3, 2, 2]
    assert len(choose(cgan_runs.photos(), 100).labels) == 18
    assert len(torch.unique(choose(cgan_runs.photos(), 100).images.flatten(1), dim=0)) == 18


def test_lpips_by_its_definition(tmp_path: Path) -> None:
    squeezenet, linear = squeezenet_and_lpips(tmp_path)
    a, b = images(), images().flip(0)
    weights = torch.load(linear, weights_only=True)
    net = SqueezeNetFeatures.load(squeezenet)
    expected = torch.zeros(4)
    x, y = ((image + 1) / 2 - net.mean for image in (a, b))
    x, y = x / net.std, y / net.std
    taps = [1, 4, 7, 9, 10, 11, 12]  # ReLU, then fire modules: as the published code slices SqueezeNet
    for k, layer in enumerate(net.features):
        x, y = layer(x), layer(y)
        if k in taps:
            distance = (x / x.norm(dim=1, keepdim=True) - y / y.norm(dim=1, keepdim=True)).square()
            expected += (distance * weights[f"lin{taps.index(k)}.model.1.weight"]).sum(1).mean((1, 2))
    lpips = Lpips(squeezenet, linear)
    torch.testing.assert_close(lpips(a, b), expected, rtol=1e-4, atol=1e-5)
    assert lpips(a, a).abs().max() == 0
    assert lpips(a[:0], b[:0]).shape == (0,)


def test_diversity_is_within_classes(tmp_path: Path) -> None:
    lpips = Lpips(*squeezenet_and_lpips(tmp_path))
    pictures = images(2).repeat_interleave(2, 0)
    labels = torch.tensor([0, 0, 1, 1])
    assert diversity(lpips, pictures, labels) == pytest.approx(0, abs=1e-6)
    assert diversity(lpips, pictures, labels.roll(1)) > 0.01
    with pytest.raises(ValueError, match="no class has two pictures"):
        diversity(lpips, pictures[:2], labels[1:3])


def test_other_files_are_no_lpips(tmp_path: Path) -> None:
    squeezenet, linear = squeezenet_and_lpips(tmp_path)
    with pytest.raises(CheckpointError, match=r"missing keys are 'lin0\.model\.1\.weight'"):
        Lpips(squeezenet, squeezenet)
    with pytest.raises(CheckpointError, match="missing keys are"):
        Lpips(linear, linear)


def test_diversity_is_a_share_of_the_photos() -> None:
    assert Scores(3, lpips=0.2, lpips_photos=0.5).to_dict() == {
        "samples": 3,
        "lpips": 0.2,
        "lpips_photos": 0.5,
        "diversity": 0.4,
    }
    assert Scores(3, lpips=0.2).diversity is None


def test_a_cgn_draws_with_shared_labels() -> None:
    networks = natural_nets.networks()
    cgn = NaturalCGN.of_teacher(networks.teacher, networks.saliency)
    pictures = draw(cgn, 7, seed=0, truncation=0.5)
    assert pictures.labels.tolist() == [0, 1, 2, 3, 4, 0, 1]
    assert (pictures.images.shape, pictures.images.dtype) == ((7, 3, 32, 32), torch.uint8)
    assert classes_of(cgn) == ("0", "1", "2", "3", "4")
    whole = draw(networks.teacher, 40, seed=0, truncation=0.5).images
    part = draw(networks.teacher, 7, seed=0, truncation=0.5).images
    assert (whole[:7].int() - part.int()).abs().max() <= 1  # rounding depends on the batch


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    """A pack of the photos of `cgan_runs`, by the command."""
    photos = cgan_runs.photos()
    for number, (image, label) in enumerate(zip(photos.images, photos.labels, strict=True)):
        folder = tmp_path / "photos" / photos.classes[label]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0))).save(folder / f"{number}.png")
    output = tmp_path / "pack"
    assert (
        cli.main(["photos", "--images", str(tmp_path / "photos"), "--size", "32", "--output", str(output)])
        == 0
    )
    assert (output / ABOUT).is_file()
    return output


def test_the_commands(pack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    squeezenet, linear = squeezenet_and_lpips(tmp_path)
    judge = tmp_path / "judge.pth"
    torch.save(cgan_runs.network().state_dict(), judge)
    run = tmp_path / "run"
    small = ["generator.width=4", "generator.z_dim=8", "features.size=32", "discriminator.channels=8"]
    small += ["probe.samples=18", "probe.steps=5", "train.batch=8", "log.checkpoint_every=8"]
    small += ["log.calibrate_samples=8", "log.sheet_samples=2", "log.score_samples=6"]
    command = [
        "cgan",
        "--photos",
        str(pack),
        "--features",
        str(judge),
        "--judge",
        str(judge),
        "--output",
        str(run),
    ]
    command += [word for text in small for word in ("--set", text)]
    assert cli.main([*command, "--images", "8"]) == 0
    out = capsys.readouterr()
    assert out.out.splitlines()[-1] == str(run / "cgan.pt")
    assert "judge: EfficientNet-Lite0, a linear probe of 18 photos" in out.err
    scalars = json.loads((run / "scalars.jsonl").read_text().splitlines()[-1])
    assert 0 <= scalars["accuracy"] <= 1
    assert scalars["inception_score"] >= 1
    # Photos and network are those that the run began with.
    assert cli.main(["cgan", "--resume", "--output", str(run), "--images", "16"]) == 0
    capsys.readouterr()

    how = ["--samples", "6", "--squeezenet", str(squeezenet), "--lpips", str(linear)]
    how += ["--judge", str(judge), "--judge-classes", "0,1,2"]
    assert cli.main(["score", str(run / "cgan.pt"), "--photos", str(pack), *how]) == 0
    of_cgan = json.loads(capsys.readouterr().out)
    assert set(of_cgan) == {"samples", "accuracy", "inception_score", "lpips", "lpips_photos", "diversity"}
    assert cli.main(["score", str(pack), *how]) == 0
    of_photos = json.loads(capsys.readouterr().out)
    assert of_photos["lpips"] == of_photos["lpips_photos"] == of_cgan["lpips_photos"]
    assert of_photos["diversity"] == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "--judge and --lpips are missing, expected one of them"),
        (["--lpips", "x"], "one of --squeezenet and --lpips is missing, expected both"),
        (["--judge", "x", "--samples", "0"], "--samples is 0, expected >= 1"),
        (["--judge", "x", "--truncation", "2"], r"--truncation is 2, expected 0\.02\.\.1"),
        (["--judge", "x", "--seed", "-1"], r"--seed is -1, expected 0\.\."),
    ],
)
def test_wrong_words_are_refused(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["score", "cgan.pt", *words]) == 2
    assert re.search(message, capsys.readouterr().err)


def test_a_judge_without_classes_asks_for_photos(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    judge = tmp_path / "judge.pth"
    torch.save(cgan_runs.network().state_dict(), judge)
    path = train(
        cgan_runs.config(encoder={"share": 0.0}, train={"images": 8}),
        cgan_runs.inputs(),
        tmp_path / "run",
        log=io.StringIO(),
    )
    assert cli.main(["score", str(path), "--judge", str(judge)]) == 2
    assert "ImageNet has no classes of these names, expected --photos" in capsys.readouterr().err


def test_table_1_says_how_many_classes_are_right_where_the_judge_has_the_same() -> None:
    teacher = natural_nets.cgan(0)
    how: dict[str, Any] = {"samples": 5, "seed": 0, "truncation": 1.0}
    judge = Judge.of_indices(cgan_runs.network(32), [0, 1, 2, 3, 4])
    labels, noise, truncation = draws.given(
        0, draws.held_out(5), np.arange(5), noise_size=8, truncation=1.0, device=torch.device("cpu")
    )
    with torch.no_grad():
        pictures = teacher(noise, teacher.embedding_table[labels], truncation)
    expected = accuracy(judge.probabilities(pictures), labels)
    assert table1_scores(None, teacher, judge, **how).accuracy == expected
    assert table1_scores(None, teacher, Judge(cgan_runs.network(32)), **how).accuracy is None


def test_every_kind_of_file_is_loaded(tmp_path: Path) -> None:
    networks = natural_nets.networks()
    cgn = NaturalCGN.of_teacher(networks.teacher, networks.saliency)
    about = checkpoints.about(natural_nets.config(), cgn, natural_nets.SOURCES)
    torch.save(about | {"step": 3, "model": cgn.state_dict()}, tmp_path / "cgn.pt")
    save_biggan(networks.teacher, tmp_path / "biggan")
    torch.save(networks.teacher.state_dict(), tmp_path / "biggan.pth")
    assert isinstance(load_model(tmp_path / "cgn.pt"), NaturalCGN)
    for name in ("biggan", "biggan.pth"):
        assert isinstance(load_model(tmp_path / name), BigGAN)
    save_u2net(networks.saliency, tmp_path / "u2net.pth")
    with pytest.raises(CheckpointError, match=r"content is a U2-Net .*, expected a BigGAN-deep"):
        load_model(tmp_path / "u2net.pth")
