"""From files to a CGN's plan: what is taken from where, what is refused, one command after the other."""

from __future__ import annotations

import io
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import natural_nets
import numpy as np
import pytest
import torch
from torch import Tensor

from cgnrt.errors import CheckpointError
from cgnrt_export import read_checkpoint
from cgnrt_training import checkpoints, cli
from cgnrt_training.checkpoints import load_tensors
from cgnrt_training.features.squeezenet import SqueezeNetFeatures
from cgnrt_training.natural.checkpoints import load_natural
from cgnrt_training.natural.config import Config
from cgnrt_training.natural.networks import Files, load_networks
from cgnrt_training.natural.stand_ins import write_stand_ins
from cgnrt_training.natural.train import Run, train
from cgnrt_training.runs.processes import Processes
from cgnrt_training.settings import override

SMALL = ["--set", "train.pseudo_batch=2", "--set", "log.sheet_samples=1", "--set", "log.checkpoint_every=1"]
RATES = ["--set", "patches.resolution=32", "--set", "patches.patch=5"]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the documented command writes."""
    folder = tmp_path_factory.mktemp("files") / "stand-ins"
    sizes = ["--resolution", "32", "--channel-width", "4", "--classes", "3"]
    assert cli.main(["imagenet-random", "--files", *sizes, "-o", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def run(files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one update."""
    output = tmp_path_factory.mktemp("run") / "run"
    assert (
        cli.main(["imagenet", *options(files), "--output", str(output), "--steps", "1", *SMALL, *RATES]) == 0
    )
    return output


def options(files: Path) -> list[str]:
    named = {"biggan": "biggan", "u2net": "u2net.pth", "vgg": "vgg16_bn.pth"}
    return [word for option, name in named.items() for word in (f"--{option}", str(files / name))]


def test_stand_ins_are_the_same_for_the_same_arguments(files: Path, tmp_path: Path) -> None:
    again = write_stand_ins(tmp_path, 32, channel_width=4, num_classes=3)
    for name in ("biggan/pytorch_model.bin", "u2net.pth", "vgg16_bn.pth"):
        one, two = load_tensors(files / name), load_tensors(again / name)
        assert one.keys() == two.keys()
        assert all(torch.equal(one[key], two[key]) for key in one), name
    with pytest.raises(ValueError, match="channel_width is 6, expected a positive multiple of 4"):
        write_stand_ins(tmp_path, 32, channel_width=6)


def given(files: Path, **others: Path | None) -> Files:
    return Files(
        **{"biggan": files / "biggan", "u2net": files / "u2net.pth", "vgg": files / "vgg16_bn.pth"} | others
    )


def test_the_log_says_what_was_taken_from_where(files: Path) -> None:
    log = io.StringIO()
    networks = load_networks(given(files), Config(), log)
    lines = log.getvalue().splitlines()
    assert lines[0].startswith("biggan: BigGAN-deep-32, 3 classes, ")
    assert lines[0].endswith("cGAN and start of f_shape, f_text, f_bg")
    assert f"from '{files / 'biggan'}', sha256 {networks.sources['biggan']['sha256'][:16]}" in lines[1]
    assert "head of f_shape and judge of f_bg, never trained" in lines[2]
    assert lines[4] == "vgg: VGG16 with batch norm of width 2, not 64: a stand-in, 4 maps: style losses"
    assert networks.features is not None
    authors = override(Config(), {"perceptual": {"reconstruction": [1, 0, 0, 0], "texture": [0, 1, 1, 0]}})
    found = load_networks(given(files), authors, None).features
    assert found is not None
    assert found.depth == 3
    off = override(Config(), {"loss": {"perceptual": 0, "texture": 0}})
    assert load_networks(given(files, vgg=None), off, None).features is None


def test_squeezenet_in_vgg16s_place(files: Path, tmp_path: Path) -> None:
    torch.save(SqueezeNetFeatures().state_dict(), tmp_path / "squeeze.pth")
    networks = load_networks(given(files, vgg=None, features=tmp_path / "squeeze.pth"), Config(), None)
    assert networks.features is not None
    assert networks.features.label == "SqueezeNet 1.1"
    with pytest.raises(CheckpointError, match=r"content is a SqueezeNet 1\.1, expected a VGG16"):
        load_networks(given(files, vgg=tmp_path / "squeeze.pth"), Config(), None)


def changed(path: Path, target: Path, **tensors: Tensor | None) -> Path:
    state = load_tensors(path)
    for key, value in tensors.items():
        name = key.replace("__", ".")
        if value is None:
            del state[name]
        else:
            state[name] = value
    target.parent.mkdir(parents=True, exist_ok=True)
    torch.save(state, target)
    return target


def test_files_that_are_refused(files: Path, tmp_path: Path) -> None:
    weights = files / "biggan" / "pytorch_model.bin"
    folder = tmp_path / "biggan"
    folder.mkdir()
    (folder / "config.json").write_text((files / "biggan" / "config.json").read_text())
    changed(weights, folder / "pytorch_model.bin", embeddings__weight=None)
    extra = changed(files / "u2net.pth", tmp_path / "u2net.pth", stage7=torch.zeros(1))
    for others, message in (
        ({"biggan": folder}, "missing keys are 'embeddings.weight'"),
        ({"biggan": files / "u2net.pth"}, "content is a U2-Net of other widths, expected a BigGAN-deep"),
        ({"biggan": tmp_path / "none"}, "file is unreadable"),
        ({"u2net": extra}, "unknown keys are 'stage7'"),
        (
            {"u2net": files / "vgg16_bn.pth"},
            "content is .*model of the ImageNet CGN .*, expected a U2-Net",
        ),
        ({"vgg": files / "u2net.pth"}, "content is another network .*, expected a VGG16"),
    ):
        with pytest.raises(CheckpointError, match=message):
            load_networks(given(files, **others), Config(), None)
    with pytest.raises(CheckpointError, match="resolution is 32, expected 256"):
        load_networks(given(files), Config(), None, resolution=256)
    with pytest.raises(ValueError, match="--vgg is missing, expected a VGG16 for the style losses"):
        load_networks(given(files, vgg=None), Config(), None)
    with pytest.raises(ValueError, match="--vgg and --features are given, expected one of them"):
        load_networks(given(files, features=extra), Config(), None)


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["--biggan", "DIR"], 2, "--u2net is missing, expected it for a new run"),
        (["--set", "loss.l3=1"], 2, "key is 'loss.l3'"),
        (["--config", "authors"], 2, "Did you mean authors-code?"),
        (["--resume"], 1, "config.json is unreadable"),
        (["--device", "tpu"], 2, "device is 'tpu', expected cpu, cuda or cuda:<index>"),
    ],
)
def test_wrong_commands(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], status: int, message: str
) -> None:
    assert cli.main(["imagenet", "--output", str(tmp_path / "run"), *words]) == status
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_run_and_its_plan(run: Path, files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = read_checkpoint(run / "cgn.pt", resolution=32)
    assert checkpoint.family == "imagenet-cgn"
    assert checkpoint.noise_mode == "shared"
    assert checkpoint.training_data == "no pictures: what biggan draws"
    assert checkpoint.sources[0]["step"] == "1"
    assert [source["name"] for source in checkpoint.sources] == [
        "cgn.pt",
        "biggan",
        "u2net.pth",
        "vgg16_bn.pth",
    ]
    assert tuple(checkpoint.mechanisms["texture"].classes) == ("0", "1", "2")
    loaded = load_natural(run / "cgn.pt")
    module = checkpoint.mechanisms["background"].module
    noise, truncation = torch.zeros(1, 128), torch.ones(1, 1)
    embedding = loaded.model.f_bg.embedding_table[:1]
    torch.testing.assert_close(
        module(noise, embedding, truncation), loaded.model.f_bg(noise, embedding, truncation)
    )
    # --resume needs no files: the run remembers them.
    assert cli.main(["imagenet", "--output", str(run), "--resume"]) == 0
    captured = capsys.readouterr()
    assert captured.out == f"{run / 'cgn.pt'}\n"
    assert f"from '{(files / 'u2net.pth').resolve()}'" in captured.err
    torch.save(SqueezeNetFeatures().state_dict(), files / "squeeze.pth")
    assert (
        cli.main(["imagenet", "--output", str(run), "--resume", "--features", str(files / "squeeze.pth")])
        == 1
    )
    assert (
        "--features 'squeeze.pth' is another file, expected the one that the run" in capsys.readouterr().err
    )
    assert cli.main(["imagenet", *options(files), "--output", str(run), *SMALL]) == 2
    assert "the folder already has a run" in capsys.readouterr().err


def test_what_the_cgan_was_trained_on_goes_into_the_plan(run: Path, tmp_path: Path) -> None:
    content = load_tensors(run / "cgn.pt")
    content["config"]["log"]["training_data"] = "300 photos of 2 classes"
    checkpoints.save(content, tmp_path / "cgn.pt")
    assert read_checkpoint(tmp_path / "cgn.pt").training_data == "300 photos of 2 classes"
    with pytest.raises(ValueError, match=r"log\.training_data is 'xxx.*, expected at most 4096 characters"):
        override(Config(), {"log": {"training_data": 4097 * "x"}})


def test_checkpoints_that_are_refused(run: Path, tmp_path: Path) -> None:
    content = load_tensors(run / "cgn.pt")
    model = content["model"]
    for changes, message in (
        ({"format_version": 2}, r"format version is 2, expected 1\.\.1"),
        ({"step": -1}, "step is -1, expected a whole number"),
        ({"sources": {"biggan": "x"}}, "sources are a dict of .*, expected name and sha256"),
        ({"model": 3}, "model is 3, expected named tensors"),
        ({"biggan": {}}, "channel_width is null, expected a whole number"),
        (
            {"biggan": content["biggan"] | {"channel_width": 8}},
            "channel_width of the weights is 4, expected 8",
        ),
        ({"config": {"loss": {"l3": 1}}}, "settings are damaged"),
        ({"model": {k: v for k, v in model.items() if "f_bg" not in k}}, "parts missing are f_bg"),
        ({"model": model | {"refiner.conv_0.weight": torch.zeros(1)}}, "there is a refinement network"),
        ({"config": {"train": {"refine": True}}}, "missing keys are 'conv_0.weight'"),
    ):
        checkpoints.save(content | changes, tmp_path / "cgn.pt")
        with pytest.raises(CheckpointError, match=message):
            load_natural(tmp_path / "cgn.pt")


def test_export_refuses_by_name_what_a_plan_cannot_have(run: Path, files: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="u2net is given, but the checkpoint is a whole CGN"):
        read_checkpoint(run / "cgn.pt", u2net=files / "u2net.pth")
    with pytest.raises(CheckpointError, match="resolution is 32, expected 256"):
        read_checkpoint(run / "cgn.pt", resolution=256)
    output = tmp_path / "refined"
    command = ["imagenet", *options(files), "--output", str(output), "--steps", "1", *SMALL, *RATES]
    assert cli.main([*command, "--set", "train.refine=true"]) == 0
    with pytest.raises(CheckpointError, match="a refinement network is not supported in a plan"):
        read_checkpoint(output / "cgn.pt")


def test_a_full_disk_keeps_the_last_checkpoint(
    run: Path,
    files: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = tmp_path / "run"
    command = ["imagenet", "--output", str(output), "--steps", "2"]
    save, calls = torch.save, [0]

    def full(content: object, file: object) -> None:
        calls[0] += 1
        if calls[0] > 4:
            raise RuntimeError("[enforce fail at inline_container.cc:595] . unexpected pos 64 vs 0")
        save(content, file)

    monkeypatch.setattr(torch, "save", full)
    assert cli.main([*command, *options(files), *SMALL, *RATES]) == 1
    assert "expected a writable disk with room. Free some space and resume." in capsys.readouterr().err
    kept = load_tensors(output / "resume.pt")
    assert (kept["step"], kept["samples"]) == (1, 0)
    monkeypatch.setattr(torch, "save", save)
    assert cli.main([*command, "--resume"]) == 0
    assert load_natural(output / "cgn.pt").step == 2


TWO = """
import sys
from pathlib import Path
import torch
from cgnrt_training.runs.processes import open_processes
from test_natural_files import work

torch.set_num_threads(1)
with open_processes(torch.device("cpu")) as processes:
    work(Path(sys.argv[1]), processes)
"""


def work(folder: Path, processes: Processes) -> None:
    """Two runs of one update each, and the gradients in the middle of another."""
    for name, more in (("whole", {}), ("micro-batches", {"power_iteration": "micro-batch"})):
        train_settings = {"updates": 1, "pseudo_batch": 6} | more
        config = natural_nets.config(train=train_settings, log={"checkpoint_every": 4, "sheet_samples": 1})
        train(config, natural_nets.networks(), folder / name, processes=processes, log=io.StringIO())
    run = Run(natural_nets.config(), natural_nets.networks(), folder, processes.device, processes)
    while run.state.values["samples"] < 2:
        run.accumulate()
    run.gather()
    if processes.first:
        torch.save(run.state.to_dict(), folder / "middle.pt")


def test_two_processes_do_what_one_does(tmp_path: Path, root: Path) -> None:
    """Over gloo: gradients, losses and weights to 1e-6."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    paths = [
        Path(__file__).parent,
        *(root / name for name in ("tests/shared", "python", "training", "export")),
    ]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(map(str, paths)),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": "2",
    }
    one, two = tmp_path / "one", tmp_path / "two"
    two.mkdir()
    started = [
        subprocess.Popen(
            [sys.executable, "-c", TWO, str(two)],
            env=environment | {"RANK": rank, "LOCAL_RANK": rank},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in ("0", "1")
    ]
    one.mkdir()
    try:
        work(one, Processes())
        said = [process.communicate(timeout=300)[1] for process in started]
    finally:
        for process in started:
            process.kill()
    assert [process.returncode for process in started] == [0, 0], said
    for name in ("whole", "micro-batches"):
        a, b = (load_tensors(folder / name / "resume.pt") for folder in (one, two))
        assert a["step"] == b["step"] == 1
        assert distance(a["model"], b["model"]) < 1e-6
        losses = [json.loads((folder / name / "scalars.jsonl").read_text()) for folder in (one, two)]
        assert losses[0] == pytest.approx(losses[1], rel=1e-6, abs=2e-6)
    a, b = (load_tensors(folder / "middle.pt") for folder in (one, two))
    assert a["samples"] == b["samples"] == 2
    assert a["gradients"].keys() == b["gradients"].keys()
    assert distance(a["gradients"], b["gradients"]) < 1e-6
    torch.testing.assert_close(a["losses"], b["losses"], rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(a["masks"], b["masks"], rtol=1e-6, atol=1e-9)


def distance(one: dict[str, Tensor], two: dict[str, Tensor]) -> float:
    """Of all tensors together, relative to their length."""
    a, b = (np.concatenate([t.double().numpy().ravel() for t in state.values()]) for state in (one, two))
    return float(np.linalg.norm(a - b) / np.linalg.norm(a))
