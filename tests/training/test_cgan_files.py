"""`cgan.pt`: what it says of itself, half precision, and what is refused; statistics of trained BigGANs."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import cgan_runs
import natural_nets
import pytest
import torch

from cgnrt.errors import CheckpointError
from cgnrt_export.imagenet import imagenet_mechanisms
from cgnrt_export.readers import read_checkpoint
from cgnrt_training.cgan.train import train
from cgnrt_training.checkpoints import load_tensors
from cgnrt_training.imagenet.biggan import BatchNorm
from cgnrt_training.imagenet.calibrate import calibrate, truncated_normal
from cgnrt_training.imagenet.checkpoints import load_biggan, load_cgn, save_u2net
from cgnrt_training.imagenet.classes import names_of
from cgnrt_training.imagenet.u2net import SMALL, U2Net
from cgnrt_training.natural.checkpoints import about, build_natural
from cgnrt_training.natural.model import NaturalCGN


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a run leaves in `cgan.pt`."""
    config = cgan_runs.config(encoder={"share": 0.0}, train={"images": 8}, log={"weights": "fp16"})
    path = train(config, cgan_runs.inputs(), tmp_path_factory.mktemp("run"), log=io.StringIO())
    loaded: dict[str, Any] = load_tensors(path)
    return loaded


def test_the_file_says_what_it_is(content: dict[str, Any], tmp_path: Path) -> None:
    assert (content["format"], content["format_version"], content["step"]) == ("cgnrt-cgan", 1, 1)
    assert content["biggan"]["class_names"] == ["red", "green", "blue"]
    assert content["sources"] == {"photos": {"name": "pack", "sha256": "0" * 64}}
    assert content["config"]["generator"]["width"] == 4
    halves = {name: value.dtype == torch.float16 for name, value in content["model"].items()}
    assert halves["generator.gen_z.weight_orig"]
    assert not halves["generator.bn.running_vars"]
    torch.save(content, tmp_path / "cgan.pt")
    model = load_biggan(tmp_path / "cgan.pt")
    assert {p.dtype for p in model.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "cgnrt-mnist-gan"}, "format is 'cgnrt-mnist-gan', expected 'cgnrt-cgan'"),
        ({"format_version": 2}, r"format version is 2, expected 1\.\.1\. Upgrade"),
        ({"biggan": None}, "content is null, expected an object with a BigGAN-deep's sizes"),
        ({"model": None}, "content is NoneType, expected a BigGAN-deep"),
        ({"names": ["red", "red", "blue"]}, "class_names is .*, expected 3 different names"),
        ({"names": ["red", "green"]}, "class_names is .*, expected 3 different names"),
        (
            {"names": ["red", "green", 5]},
            "class_names is .*, expected a list of texts of 1 to 200 characters",
        ),
        (
            {"names": ["red", "green", ""]},
            "class_names is .*, expected a list of texts of 1 to 200 characters",
        ),
        ({"names": "red"}, "class_names is .*, expected a list of texts of 1 to 200 characters"),
    ],
)
def test_damaged_files_are_refused(
    content: dict[str, Any], changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    changes = dict(changes)
    if "names" in changes:
        changes["biggan"] = content["biggan"] | {"class_names": changes.pop("names")}
    torch.save(content | changes, tmp_path / "cgan.pt")
    with pytest.raises(CheckpointError, match=message):
        load_biggan(tmp_path / "cgan.pt")


def test_statistics_are_those_of_the_model_s_own_pictures() -> None:
    model = natural_nets.cgan(0).train()
    generator = torch.Generator().manual_seed(5)
    calibrate(model, 16, generator)
    assert not model.training
    drawn = torch.Generator().manual_seed(5)
    noise = truncated_normal(16, natural_nets.NOISE, drawn)
    labels = torch.randint(natural_nets.CLASSES, (16,), generator=drawn)
    table, ones = model.embedding_table, torch.ones(16, 1)
    norms = [module for module in model.modules() if isinstance(module, BatchNorm)]
    for truncation in (0.1, 0.5, 1.0):
        with torch.no_grad():
            expected = model(noise * truncation, table[labels], ones * truncation)
            for norm in norms:
                norm.training = True  # the statistics of this very batch
            found = model(noise * truncation, table[labels], ones * truncation)
            for norm in norms:
                norm.training = False
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    norm = norms[3]
    between = (norm.running_means[25] + norm.running_means[38]) / 2
    nearby = (norm.running_means[31] + norm.running_means[32]) / 2
    torch.testing.assert_close(nearby, between, rtol=1e-4, atol=1e-5)


def test_the_names_of_classes_go_into_a_cgn_and_its_plan() -> None:
    networks = natural_nets.networks()
    names = ("a", "b", "c", "d", "e")
    networks.teacher.config = replace(networks.teacher.config, class_names=names)
    cgn = NaturalCGN.of_teacher(networks.teacher, networks.saliency)
    state = {name: tensor.clone() for name, tensor in cgn.state_dict().items()}
    content = about(natural_nets.config(), cgn, natural_nets.SOURCES) | {"step": 0, "model": state}
    loaded = build_natural(content, "cgn.pt").model
    assert [mechanism.classes for mechanism in imagenet_mechanisms(loaded).values()] == [names] * 3
    networks.teacher.config = replace(networks.teacher.config, class_names=())
    assert names_of(networks.teacher.config) == ("0", "1", "2", "3", "4")


def test_a_cgan_s_file_is_exported_with_a_head(content: dict[str, Any], tmp_path: Path) -> None:
    torch.save(content, tmp_path / "cgan.pt")
    save_u2net(U2Net(SMALL), tmp_path / "u2netp.pth")
    with pytest.raises(CheckpointError, match="content is a BigGAN-deep-32 alone, expected a U2-Net with it"):
        read_checkpoint(tmp_path / "cgan.pt")
    read = read_checkpoint(tmp_path / "cgan.pt", u2netp=tmp_path / "u2netp.pth")
    assert read.mechanisms["texture"].classes == ("red", "green", "blue")
    with pytest.raises(CheckpointError, match="content is a BigGAN-deep-32, expected an ImageNet CGN"):
        load_cgn(tmp_path / "cgan.pt")
