"""Weight files of the ImageNet CGN: each kind written and read back, and everything else."""

from __future__ import annotations

import copy
import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_pretrained_biggan import BigGAN as Reference
from torch import Tensor, nn
from wrapped import WRAPPED

from cgnrt.errors import CheckpointError
from cgnrt_training.imagenet.biggan import BigGAN, BigGANConfig
from cgnrt_training.imagenet.cgn import CGN
from cgnrt_training.imagenet.checkpoints import (
    build_biggan,
    build_cgn,
    build_u2net,
    describe,
    load_biggan,
    load_cgn,
    load_u2net,
    save_biggan,
    save_cgn,
    save_u2net,
)
from cgnrt_training.imagenet.u2net import FULL, SMALL, U2Net

CONFIG = BigGANConfig.of_resolution(128, channel_width=4, num_classes=6)
HEAD = replace(FULL.narrowed(1 / 32), align_corners=True)
State = dict[str, Tensor]


@pytest.fixture(scope="module")
def cgn() -> CGN:
    torch.manual_seed(0)
    return CGN(BigGAN(CONFIG), BigGAN(CONFIG), BigGAN(CONFIG), U2Net(HEAD), BigGAN(CONFIG)).eval()


@pytest.fixture
def state(cgn: CGN) -> State:
    return dict(cgn.state_dict())


@pytest.fixture
def folder(cgn: CGN, tmp_path: Path) -> Path:
    save_biggan(cgn.f_text, tmp_path / "biggan-deep-128")
    return tmp_path / "biggan-deep-128"


def _same(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    found = model.state_dict()
    assert set(found) == set(state)
    for key, tensor in state.items():
        assert torch.equal(found[key], tensor), key


def _part(state: State, name: str) -> State:
    return {key.removeprefix(f"{name}."): value for key, value in state.items() if key.startswith(f"{name}.")}


def _edit(folder: Path, **changed: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))


def test_a_biggan_folder_round_trip(cgn: CGN, folder: Path) -> None:
    model = load_biggan(folder)
    _same(model, cgn.f_text.state_dict())
    assert model.config == CONFIG
    assert not model.training
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "pytorch_model.bin"]


def test_the_library_reads_our_folder(cgn: CGN, folder: Path) -> None:
    theirs = Reference.from_pretrained(str(folder))
    _same(theirs, cgn.f_text.state_dict())


def test_the_folder_decides_what_shapes_do_not_say(folder: Path, tmp_path: Path) -> None:
    _edit(folder, eps=1e-3)
    assert load_biggan(folder).config.eps == 1e-3
    blocks = ((False, 16, 8), (True, 8, 4), (True, 4, 2), (True, 2, 1))
    own = BigGAN(BigGANConfig(blocks, channel_width=4, num_classes=2, z_dim=6, attention=2))
    save_biggan(own, tmp_path / "own")
    model = load_biggan(tmp_path / "own", resolution=32)
    _same(model, own.state_dict())
    assert model.config == own.config


def test_a_biggan_file_alone(cgn: CGN, tmp_path: Path) -> None:
    torch.save(cgn.f_bg.state_dict(), tmp_path / "biggan128.pth")
    _same(load_biggan(tmp_path / "biggan128.pth"), cgn.f_bg.state_dict())


@pytest.mark.parametrize("form", WRAPPED)
def test_weights_as_training_scripts_save_them(form: str, cgn: CGN, state: State, tmp_path: Path) -> None:
    def save(weights: State) -> Path:
        torch.save(WRAPPED[form](weights), tmp_path / "x.pth")
        return tmp_path / "x.pth"

    _same(load_biggan(save(cgn.f_bg.state_dict())), cgn.f_bg.state_dict())
    _same(load_cgn(save(state), training_parts=True), state)
    small = U2Net(SMALL).state_dict()
    _same(load_u2net(save(small)), small)
    folded = _folded(U2Net(SMALL))
    _same(load_u2net(save(_renamed(folded)), kind="u2netp"), folded)


def test_a_cgn_round_trip(cgn: CGN, state: State, tmp_path: Path) -> None:
    save_cgn(cgn, tmp_path / "cgn.pth")
    model = load_cgn(tmp_path / "cgn.pth", resolution=128, training_parts=True)
    _same(model, state)
    assert model.u2net.config == HEAD
    assert not model.training


def test_a_cgn_without_the_training_parts(state: State) -> None:
    model = build_cgn(state, "cgn.pth")
    assert model.biggan_GT is None
    light = {key: value for key, value in state.items() if not key.startswith("biggan_GT.")}
    _same(model, light)
    _same(build_cgn(light, "cgn.pth", training_parts=True), light)


def test_a_cgn_without_a_head(cgn: CGN, state: State) -> None:
    without = {key: value for key, value in state.items() if not key.startswith("u2net.")}
    with pytest.raises(CheckpointError, match=r"load 'x\.pth': part 'u2net' is missing.*--u2net FILE"):
        build_cgn(without, "x.pth")
    _same(build_cgn(without, "x.pth", u2net=copy.deepcopy(cgn.u2net), training_parts=True), state)


def test_a_u2net_round_trip(tmp_path: Path) -> None:
    for kind, config in (("u2netp", SMALL), (None, HEAD)):
        model = U2Net(config)
        save_u2net(model, tmp_path / "u2net.pth")
        loaded = load_u2net(tmp_path / "u2net.pth", kind=kind, align_corners=config.align_corners)
        _same(loaded, model.state_dict())
        assert loaded.config == config


def test_older_u2net_files_lack_the_counters_of_batches() -> None:
    state = U2Net(SMALL).state_dict()
    older = {k: v.half() for k, v in state.items() if not k.endswith("num_batches_tracked")}
    model = build_u2net(older, "u2netp.pth", kind="u2netp")
    weight = model.get_parameter("stage1.rebnconvin.conv_s1.weight")
    assert weight.dtype == torch.float32
    assert torch.equal(weight, state["stage1.rebnconvin.conv_s1.weight"].half().float())


def _folded(model: U2Net) -> State:
    """Batch norms folded into the convolutions, under the official names."""
    state = model.state_dict()
    folded: State = {}
    for key, value in state.items():
        block, _, kind = key.rpartition(".conv_s1.")
        if ".bn_s1." in key:
            continue
        if not block:
            folded[key] = value
            continue
        norm = {k: state[f"{block}.bn_s1.{k}"] for k in ("weight", "bias", "running_mean", "running_var")}
        scale = norm["weight"] / torch.sqrt(norm["running_var"] + 1e-5)
        if kind == "weight":
            folded[key] = value * scale[:, None, None, None]
        else:
            folded[key] = (value - norm["running_mean"]) * scale + norm["bias"]
    return folded


def _renamed(state: State) -> State:
    """The names that folded weights go by, as `st.0.enc.1.conv.weight` for stage1.rebnconv2."""
    renamed = {}
    for key, value in state.items():
        stage, _, rest = key.partition(".")
        if found := re.fullmatch(r"stage(\d)(d?)", stage):
            number, decodes = int(found[1]), bool(found[2])
            depth = (7, 6, 5, 4, 4, 4)[number - 1]
            inner, kind = rest.split(".conv_s1.")
            step = inner.removeprefix("rebnconv")
            short = number >= 5  # RSU-4F
            if step == "in":
                name = "cin"
            elif step.endswith("d"):
                name = f"{'d' if short else 'dec'}.{depth - 1 - int(step[:-1])}"
            elif int(step) == depth and not short:
                name = "bot"
            else:
                name = f"{'e' if short else 'enc'}.{int(step) - 1}"
            renamed[f"{f'sd.{5 - number}' if decodes else f'st.{number - 1}'}.{name}.conv.{kind}"] = value
        elif found := re.fullmatch(r"side(\d)", stage):
            renamed[f"side.{int(found[1]) - 1}.{rest}"] = value
        else:
            renamed[f"out.{rest}"] = value
    return renamed


@pytest.mark.parametrize("rename", [dict, _renamed])
def test_folded_u2nets(rename: Callable[[State], State]) -> None:
    torch.manual_seed(0)
    model = U2Net(SMALL).eval()
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.running_mean.normal_(std=0.1)
            norm.running_var.uniform_(0.2, 1)
    folded = rename(_folded(model))
    assert len(folded) == 238
    loaded = build_u2net(folded, "u2netp-folded.pth", kind="u2netp")
    assert loaded.config.folded
    image = torch.randn(2, 3, 48, 48)
    with torch.no_grad():
        expected = model(image)
        assert expected.std() > 1e-3
        torch.testing.assert_close(loaded(image), expected, rtol=0, atol=1e-4)


def test_missing_unknown_and_misshapen_keys_are_named(state: State) -> None:
    key = "f_bg.generator.layers.3.bn_1.running_vars"
    without = {k: v for k, v in state.items() if k != key}
    with pytest.raises(CheckpointError, match=rf"missing keys are '{re.escape(key)}'"):
        build_cgn(without, "cgn.pth")
    with pytest.raises(CheckpointError, match=r"unknown keys are 'f_bg\.generator\.extra'"):
        build_cgn(state | {"f_bg.generator.extra": torch.ones(1)}, "cgn.pth")
    with pytest.raises(CheckpointError, match=r"'f_bg.*running_vars' is \(51, 3\), expected \(51, 16\)"):
        build_cgn(state | {key: torch.ones(51, 3)}, "cgn.pth")
    with pytest.raises(CheckpointError, match=r"running_vars' has values that are not finite"):
        build_cgn(state | {key: torch.full((51, 16), float("nan"))}, "cgn.pth")
    with pytest.raises(CheckpointError, match=r"missing keys are 'biggan_GT\.embeddings\.weight'"):
        build_cgn({k: v for k, v in state.items() if k != "biggan_GT.embeddings.weight"}, "cgn.pth")
    with pytest.raises(CheckpointError, match=r"missing keys are 'u2net\.side4\.bias'"):
        build_cgn({k: v for k, v in state.items() if k != "u2net.side4.bias"}, "cgn.pth")
    biggan = _part(state, "f_text")
    del biggan["generator.conv_to_rgb.weight_v"]
    with pytest.raises(CheckpointError, match=r"missing keys are 'generator\.conv_to_rgb\.weight_v'"):
        build_biggan(biggan, "biggan.pth")


def test_a_cgn_with_a_part_missing_or_of_another_resolution(state: State) -> None:
    with pytest.raises(CheckpointError, match="parts missing are f_text, expected f_shape, f_text, f_bg"):
        build_cgn({k: v for k, v in state.items() if not k.startswith("f_text.")}, "cgn.pth")
    other = BigGAN(replace(CONFIG, blocks=BigGANConfig().blocks)).state_dict()
    mixed = {k: v for k, v in state.items() if not k.startswith("f_bg.")}
    mixed |= {f"f_bg.{key}": value for key, value in other.items()}
    with pytest.raises(CheckpointError, match="f_bg is of 256 px, expected 128 as f_shape is"):
        build_cgn(mixed, "cgn.pth")


def test_another_resolution_than_asked_for(state: State, folder: Path) -> None:
    with pytest.raises(CheckpointError, match=r"load 'cgn\.pth': resolution is 128, expected 256"):
        build_cgn(state, "cgn.pth", resolution=256)
    with pytest.raises(CheckpointError, match="resolution is 128, expected 512"):
        load_biggan(folder, resolution=512)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"output_dim": 256}, "output_dim is 256, expected 128, as its layers have it"),
        ({"channel_width": 8}, "channel_width of the weights is 4, expected 8 as config.json says"),
        ({"channel_width": 6}, "channel_width is 6, expected a multiple of 4"),
        ({"num_classes": True}, r"num_classes is true, expected a whole number in 1\.\.1000000"),
        ({"num_classes": 10**9}, r"num_classes is 1000000000, expected a whole number in 1\.\.1000000"),
        ({"n_stats": 1}, "n_stats is 1, expected at least 2"),
        ({"class_embed_dim": 64}, "class_embed_dim is 64, expected 128, as z_dim"),
        (
            {"attention_layer_position": 4},
            r"missing keys are 'generator\.layers\.4\.gamma'",
        ),
        ({"eps": 2}, "eps is 2, expected a number between 0 and 1"),
        ({"layers": "many"}, 'layers is "many", expected a list of'),
        (
            {"layers": [[False, 16, 16], [True, 8, 8]]},
            r"layers\[1\] is \[true, 8, 8\], expected 16 channels in",
        ),
        ({"layers": [[1, 16, 16]]}, r"layers\[0\] is \[1, 16, 16\], expected \[true or false"),
        ({"layers": [[False, 16, 12]]}, "expected as many channels out as in, or half of them"),
        ({"layers": [[True, 16, 16]] * 20}, "expected at most 10 that up-sample"),
    ],
)
def test_a_config_that_is_not_the_weights(folder: Path, changed: dict[str, Any], message: str) -> None:
    _edit(folder, **changed)
    with pytest.raises(CheckpointError, match=message):
        load_biggan(folder)


def test_weights_of_another_resolution_than_the_config(cgn: CGN, folder: Path) -> None:
    save_biggan(BigGAN(replace(CONFIG, blocks=BigGANConfig().blocks)), folder.parent / "other")
    (folder.parent / "other" / "config.json").rename(folder / "config.json")
    with pytest.raises(
        CheckpointError, match=r"number of layers of the weights is 11 \(BigGAN-deep-128\), expected 13"
    ):
        load_biggan(folder)


def test_a_damaged_folder(folder: Path, tmp_path: Path) -> None:
    path = folder / "config.json"
    for content, message in (
        (b"{", "content is not JSON"),
        (b"[]", r"content is \[\], expected an object"),
        (b"{}", r"channel_width is null, expected a whole number in 1\.\.4096"),
        (b" " * 200_000, "content is not JSON .more than 100000 bytes"),
        (b"\xff", "content is not JSON"),
        (b"[" * 50_000, "content is not JSON"),
    ):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=message):
            load_biggan(folder)
    path.unlink()
    with pytest.raises(CheckpointError, match=r"config\.json is unreadable .No such file"):
        load_biggan(folder)
    with pytest.raises(CheckpointError, match="No such file"):
        load_biggan(tmp_path / "nowhere")


def test_one_kind_where_another_is_named(state: State, folder: Path) -> None:
    small = U2Net(SMALL).state_dict()
    with torch.device("meta"):
        shapes = U2Net(FULL).state_dict()
    full = {key: torch.zeros(value.shape, dtype=value.dtype) for key, value in shapes.items()}
    biggan = _part(state, "f_text")
    for build, content, message in (
        (lambda c: build_u2net(c, "f", kind="u2netp"), full, "content is a U2-Net, expected a U2-Net-p"),
        (lambda c: build_u2net(c, "f", kind="u2net"), small, "content is a U2-Net-p, expected a U2-Net"),
        (lambda c: build_u2net(c, "f", kind="u2net"), _part(state, "u2net"), "a U2-Net of other widths, exp"),
        (lambda c: build_u2net(c, "f", kind="u2netp"), biggan, "is a BigGAN-deep-128, expected a U2-Net-p"),
        (lambda c: build_biggan(c, "f"), small, "is a U2-Net-p, expected a BigGAN-deep.*as --u2net"),
        (lambda c: build_biggan(c, "f"), state, "is an ImageNet CGN of 128 px, expected a BigGAN-deep"),
        (lambda c: build_cgn(c, "f"), biggan, "is a BigGAN-deep-128, expected an ImageNet CGN"),
        (lambda c: build_cgn(c, "f"), nn.Linear(1, 1).state_dict(), "begin with 'weight', 'bias'"),
        (lambda c: build_cgn(c, "f"), {}, "is an empty dict, expected an ImageNet CGN"),
        (lambda c: build_cgn(c, "f"), [1], "content is list, expected an ImageNet CGN: named tensors"),
    ):
        with pytest.raises(CheckpointError, match=message):
            build(content)
    assert describe(5) == "a int"


def test_other_shapes_than_any_biggan_deep(state: State) -> None:
    biggan = _part(state, "f_text")
    fewer = {k: v for k, v in biggan.items() if not k.startswith("generator.layers.10.")}
    with pytest.raises(
        CheckpointError,
        match=r"generator\.layers is 10, expected 7 \(32 px\), 9 \(64 px\), 11 \(128 px\), 13",
    ):
        build_biggan(fewer, "f")
    with pytest.raises(CheckpointError, match=r"sizes of generator are .*'channel_width': 6.*multiple of 4"):
        build_biggan(biggan | {"generator.conv_to_rgb.weight_orig": torch.ones(6, 6, 3, 3)}, "f")
    # A shape without memory behind it asks for no memory.
    huge = torch.ones(1, 1).expand(128, 10**12)
    with pytest.raises(CheckpointError, match=r"'embeddings\.weight' is \(128, 1000000000000\)"):
        build_biggan(biggan | {"embeddings.weight": huge}, "f")


def test_weights_in_another_memory_format(state: State) -> None:
    small = U2Net(SMALL.narrowed(0.25)).state_dict()
    for build, given in ((build_u2net, small), (build_biggan, _part(state, "f_text"))):
        last = {k: v.to(memory_format=torch.channels_last) if v.dim() == 4 else v for k, v in given.items()}
        assert any(not value.is_contiguous() for value in last.values())
        for key, value in build(last, "f").state_dict().items():
            assert torch.equal(value, given[key]), key


def test_doubled_keys(state: State, tmp_path: Path) -> None:
    key = "f_bg.embeddings.weight"
    torch.save(state | {f"module.{key}": state[key]}, tmp_path / "cgn.pth")
    with pytest.raises(CheckpointError, match="keys occur twice, with and without module or _orig_mod"):
        load_cgn(tmp_path / "cgn.pth")


class _Code:
    def __reduce__(self) -> Any:
        return os.mkdir, ("ran",)


def test_code_in_a_file_is_not_run(state: State, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    torch.save({"f_text.generator.x": _Code()}, "pytorch_model.bin")
    for load in (load_biggan, load_cgn, load_u2net):
        with pytest.raises(CheckpointError, match="code or foreign classes"):
            load(folder if load is load_biggan else "pytorch_model.bin")
    assert not Path("ran").exists()
