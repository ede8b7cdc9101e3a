"""The training of a cGAN: what changes, stops and goes on, and what it leaves."""

from __future__ import annotations

import io
import json
from pathlib import Path

import cgan_runs
import numpy as np
import pytest
import torch
from cgan_runs import SOURCES
from PIL import Image

from cgnrt_training.cgan.run import Run
from cgnrt_training.cgan.train import train
from cgnrt_training.checkpoints import load_tensors
from cgnrt_training.imagenet.checkpoints import load_biggan
from cgnrt_training.runs.loop import LossError

CPU = torch.device("cpu")
AT_ONCE: dict[str, object] = {"diversity": [1, 0, 0]}
TERMS = ("discriminator", "generator", "classify", "perceptual", "thumbnail", "divergence")


def test_a_run_leaves_a_biggan_that_others_load(tmp_path: Path) -> None:
    log = io.StringIO()
    path = train(cgan_runs.config(), cgan_runs.inputs(), tmp_path, log=log)
    assert path == tmp_path / "cgan.pt"
    model = load_biggan(path, resolution=32)
    assert model.config.class_names == ("red", "green", "blue")
    assert (model.config.channel_width, model.config.z_dim) == (4, 8)
    lines = [json.loads(line) for line in (tmp_path / "scalars.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2]
    assert set(lines[0]) == {"step", *TERMS}
    assert "classifier: " in log.getvalue()
    sheets = sorted(p.name for p in (tmp_path / "samples").iterdir())
    assert sheets == ["images-00000008.png", "images-00000016.png"]
    with Image.open(tmp_path / "samples" / sheets[0]) as sheet:
        assert sheet.width > 2 * 32  # names of the classes
        assert sheet.height == 3 * 32
    with Image.open(tmp_path / "reconstructions.png") as sheet:
        assert sheet.height > 3 * 32  # "photo" and "drawn"
        photo = np.asarray(sheet)[-64:-32, -64:-32].transpose(2, 0, 1)
    assert np.abs(photo.astype(int) - cgan_runs.photos().images[6]).max() <= 1


@pytest.mark.parametrize("kind", ["projected", "plain"])
def test_a_resumed_run_has_the_same_bits(tmp_path: Path, kind: str) -> None:
    kinds = {"discriminator": {"kind": kind}}
    half = cgan_runs.config(**kinds, optimizer={"decay": 0.0}, train={"images": 8})
    config = cgan_runs.config(**kinds, optimizer={"decay": 0.0})
    whole = train(config, cgan_runs.inputs(), tmp_path / "whole", log=io.StringIO())
    train(half, cgan_runs.inputs(), tmp_path / "parts", log=io.StringIO())
    torch.manual_seed(99)  # what else draws random numbers meanwhile does not matter
    parts = train(config, cgan_runs.inputs(), tmp_path / "parts", log=io.StringIO(), resume=True)
    for name in ("cgan.pt", "resume.pt"):
        _assert_equal(load_tensors(whole.with_name(name)), load_tensors(parts.with_name(name)))


def _assert_equal(a: object, b: object) -> None:
    assert type(a) is type(b)
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        assert torch.equal(a, b)
    elif isinstance(a, dict) and isinstance(b, dict):
        assert a.keys() == b.keys()
        for key in a:
            _assert_equal(a[key], b[key])
    elif isinstance(a, list | tuple) and isinstance(b, list | tuple):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            _assert_equal(x, y)
    else:
        assert a == b


def test_a_finished_run_looks_at_no_photo_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = train(cgan_runs.config(), cgan_runs.inputs(), tmp_path, log=io.StringIO())
    before = path.read_bytes()
    monkeypatch.setattr(Run, "prepare", lambda *_: pytest.fail("the photos are looked at"))
    assert train(cgan_runs.config(), cgan_runs.inputs(), tmp_path, log=io.StringIO(), resume=True) == path
    assert path.read_bytes() == before


def test_both_players_change_and_the_frozen_network_does_not() -> None:
    run = Run(cgan_runs.config(loss={"diversity": 1.0}, ramp=AT_ONCE), cgan_runs.inputs(), CPU)
    run.prepare(io.StringIO())
    assert run.features is not None
    players = (run.generator, run.discriminator)
    before = [{k: v.clone() for k, v in m.state_dict().items()} for m in (*players, run.features)]
    losses = run.step()
    assert set(losses) == {*TERMS, "diversity"}
    for module, old in zip(players, before, strict=False):
        for name, parameter in module.named_parameters():
            # No gradient: the attention while its gamma is 0, the bias while all scores lie within the hinges.
            if "snconv1x1" not in name and not name.endswith("out.bias"):
                assert not torch.equal(parameter, old[name]), name
    frozen = run.features.state_dict()
    assert all(torch.equal(value, before[2][name]) for name, value in frozen.items())


def test_what_may_change_when_a_run_is_resumed(tmp_path: Path) -> None:
    plain = cgan_runs.config(encoder={"share": 0.0}, train={"images": 8})
    train(plain, cgan_runs.inputs(), tmp_path, log=io.StringIO())
    longer = cgan_runs.config(encoder={"share": 0.0}, loss={"diversity": 1.0, "classify": 0.5}, ramp=AT_ONCE)
    train(longer, cgan_runs.inputs(), tmp_path, log=io.StringIO(), resume=True)
    last = json.loads((tmp_path / "scalars.jsonl").read_text().splitlines()[-1])
    assert (last["step"], "diversity" in last) == (2, True)
    other = cgan_runs.config(encoder={"share": 0.0}, generator={"width": 8})
    with pytest.raises(ValueError, match=r"settings are changed: generator\.width \(4 -> 8\)"):
        train(other, cgan_runs.inputs(), tmp_path, log=io.StringIO(), resume=True)
    sources = {"photos": SOURCES["photos"] | {"sha256": "1" * 64}}
    with pytest.raises(
        ValueError, match="--photos 'pack' is another file, expected the one that the run began with"
    ):
        train(longer, cgan_runs.inputs(sources=sources), tmp_path, log=io.StringIO(), resume=True)
    with pytest.raises(ValueError, match="the folder already has a run"):
        train(longer, cgan_runs.inputs(), tmp_path, log=io.StringIO())


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path) -> None:
    config = cgan_runs.config(encoder={"share": 0.0}, optimizer={"lr_generator": 1e38}, train={"images": 80})
    with pytest.raises(LossError, match="is not finite at step"):
        train(config, cgan_runs.inputs(), tmp_path, log=io.StringIO())
