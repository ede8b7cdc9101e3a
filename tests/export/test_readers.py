"""Checkpoints: the authors' form and ours, and everything that is neither."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from wrapped import WRAPPED

from cgnrt.errors import CheckpointError
from cgnrt_export import read_checkpoint
from cgnrt_training.mnist.models import CGN


def _ours(model: CGN, **changed: Any) -> dict[str, Any]:
    names = {name: [f"{name} {k}" for k in range(4)] for name in ("shape", "texture", "background")}
    return {
        "format": "cgnrt-mnist-cgn",
        "format_version": 1,
        "model": model.state_dict(),
        "config": {"channels": 4},
        "step": 12,
        "variant": "wildlife",
        "class_names": names,
        "training_data": "made up",
    } | changed


@pytest.fixture
def save(tmp_path: Path) -> Any:
    def write(content: Any, name: str = "ckp.pth") -> Path:
        torch.save(content, tmp_path / name)
        return tmp_path / name

    return write


def test_the_authors_form(authors_checkpoint: Path, small_cgn: CGN) -> None:
    checkpoint = read_checkpoint(authors_checkpoint)
    assert checkpoint.family == "mnist-cgn"
    digest = hashlib.sha256(authors_checkpoint.read_bytes()).hexdigest()
    assert checkpoint.sources == ({"name": "ckp.pth", "sha256": digest},)
    assert [(m.noise_size, list(m.classes), m.roll) for m in checkpoint.mechanisms.values()] == [
        (6, ["0", "1", "2", "3"], False),
        (6, ["0", "1", "2", "3"], True),
        (6, ["0", "1", "2", "3"], True),
    ]
    assert checkpoint.note is not None
    assert "--variant" in checkpoint.note

    labels = torch.tensor([3, 0])
    noise = torch.randn(2, 3, 6)
    parts = small_cgn(labels, noise=noise, shifts=torch.zeros(2, 2, 2, dtype=torch.int64))
    for k, mechanism in enumerate(checkpoint.mechanisms.values()):
        picture = mechanism.module(noise[:, k], mechanism.embedding(labels))
        assert torch.equal(picture, parts[k])


@pytest.mark.parametrize("form", WRAPPED)
def test_weights_as_training_scripts_save_them(form: str, save: Any, small_cgn: CGN) -> None:
    found = read_checkpoint(save(WRAPPED[form](small_cgn.state_dict())))
    expected = read_checkpoint(save(small_cgn.state_dict()))
    noise, labels = torch.randn(2, 6), torch.tensor([3, 0])
    for a, b in zip(found.mechanisms.values(), expected.mechanisms.values(), strict=True):
        pictures = [m.module(noise, m.embedding(labels)) for m in (a, b)]
        assert torch.equal(*pictures)


def test_our_own_form(save: Any, small_cgn: CGN) -> None:
    checkpoint = read_checkpoint(save(_ours(small_cgn), "cgn.pt"))
    assert checkpoint.training_data == "made up"
    assert checkpoint.sources[0] | {"sha256": ""} == {
        "name": "cgn.pt",
        "sha256": "",
        "variant": "wildlife",
        "step": "12",
    }
    assert list(checkpoint.mechanisms["texture"].classes)[:2] == ["texture 0", "texture 1"]
    assert checkpoint.note is None


def test_a_variant_names_the_classes(save: Any) -> None:
    path = save(CGN(channels=2, resolution=8).state_dict())
    for variant, texture, background in (
        ("double-colored", "yellow", "darkgreen"),
        ("colored", "crimson", "black 0"),
        ("wildlife", "0", "0"),
    ):
        mechanisms = read_checkpoint(path, variant=variant).mechanisms
        assert mechanisms["shape"].classes[0] == "0"
        assert mechanisms["texture"].classes[0] == texture
        assert mechanisms["background"].classes[0] == background
        assert all(len(set(mechanism.classes)) == 10 for mechanism in mechanisms.values())


def test_another_variant_than_the_checkpoints_own(save: Any, small_cgn: CGN) -> None:
    path = save(_ours(small_cgn))
    assert read_checkpoint(path, variant="wildlife").mechanisms
    with pytest.raises(ValueError, match="variant is 'colored', expected 'wildlife', as the checkpoint says"):
        read_checkpoint(path, variant="colored")
    with pytest.raises(
        ValueError, match="variant is 'grey', expected one of colored, double-colored, wildlife"
    ):
        read_checkpoint(path, variant="grey")


def test_missing_extra_and_misshapen_tensors_are_named(save: Any, small_cgn: CGN) -> None:
    state = small_cgn.state_dict()
    without = {key: value for key, value in state.items() if key != "f_text1.4.running_var"}
    with pytest.raises(CheckpointError, match=r"f_text1\.4\.running_var"):
        read_checkpoint(save(without))
    with pytest.raises(CheckpointError, match=r"f_shape\.99\.weight"):
        read_checkpoint(save(state | {"f_shape.99.weight": torch.ones(1)}))
    with pytest.raises(CheckpointError, match=r"f_text2\.10\.bias.*\(7,\).*\(3,\)"):
        read_checkpoint(save(state | {"f_text2.10.bias": torch.ones(7)}))
    with pytest.raises(CheckpointError, match=r"f_text2\.10\.bias.*not finite"):
        read_checkpoint(save(state | {"f_text2.10.bias": torch.full((3,), float("inf"))}))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"class_names": {}},
            "class_names is an empty dict, expected a dict of exactly shape, texture, backg",
        ),
        ({"config": "abc"}, "config is 'abc', expected a dict"),
        ({"variant": 3}, "variant is 3, expected one of colored"),
        ({"training_data": ["x"]}, "training_data is a list, expected a text"),
        ({"step": 1.5}, r"step is 1\.5, expected an int"),
    ],
)
def test_what_a_checkpoint_says_of_itself_is_checked(
    save: Any, small_cgn: CGN, changed: dict[str, Any], message: str
) -> None:
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(save(_ours(small_cgn, **changed)))


def test_a_checkpoint_of_another_model(save: Any) -> None:
    with pytest.raises(
        CheckpointError, match=r"missing keys are 'label_emb\.weight'.*unknown keys are 'weight', 'bias'"
    ):
        read_checkpoint(save(torch.nn.Linear(2, 3).state_dict()))
    with pytest.raises(CheckpointError, match="content is list, expected a state dict"):
        read_checkpoint(save([torch.ones(1)]))


def test_another_format_or_version(save: Any, small_cgn: CGN) -> None:
    with pytest.raises(CheckpointError, match="format is 'other', expected 'cgnrt-mnist-cgn'"):
        read_checkpoint(save(_ours(small_cgn, format="other")))
    with pytest.raises(CheckpointError, match=r"format version is 9, expected 1\.\.1\. Upgrade cgnrt"):
        read_checkpoint(save(_ours(small_cgn, format_version=9)))


class _Code:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.marker),)


def test_code_in_a_pickle_is_not_run(save: Any, tmp_path: Path, small_cgn: CGN) -> None:
    marker = tmp_path / "ran"
    path = save(small_cgn.state_dict() | {"label_emb.weight": _Code(marker)})
    with pytest.raises(CheckpointError, match="code or foreign classes"):
        read_checkpoint(path)
    assert not marker.exists()


def test_no_checkpoint_at_all(tmp_path: Path, authors_checkpoint: Path) -> None:
    path = tmp_path / "ckp.pth"
    with pytest.raises(CheckpointError, match="No such file"):
        read_checkpoint(path)
    path.write_bytes(b"")
    with pytest.raises(CheckpointError, match="file is empty"):
        read_checkpoint(path)
    path.write_bytes(authors_checkpoint.read_bytes()[:2000])
    with pytest.raises(CheckpointError, match="damaged or no torch checkpoint"):
        read_checkpoint(path)
    path.write_bytes(b"PK\x03\x04 a plan perhaps")
    with pytest.raises(CheckpointError, match="damaged or no torch checkpoint"):
        read_checkpoint(path)
    with pytest.raises(CheckpointError, match="Is a directory"):
        read_checkpoint(tmp_path)
