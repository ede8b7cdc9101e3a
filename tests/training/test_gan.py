from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from cgnrt.errors import CheckpointError
from cgnrt_training import cli
from cgnrt_training.checkpoints import load_tensors
from cgnrt_training.checkpoints import save as save_checkpoint
from cgnrt_training.mnist import gan
from cgnrt_training.mnist.data import VariantMnist
from cgnrt_training.mnist.gan import GanConfig, Generator, load_gan, train_gan
from cgnrt_training.mnist.models import CGN
from cgnrt_training.runs.loop import LossError

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def one_thread():
    """Bit-equal sums want one number of threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


TINY = GanConfig(
    "colored", noise_size=4, channels=4, disc_width=8, steps=4, batch_size=4, checkpoint_every=2, ema=0.9
)


def quiet(config: GanConfig, data: VariantMnist, output: Path, **how: bool) -> Path:
    return train_gan(config, data, output, log=io.StringIO(), **how)


def test_run_folder_and_samples(mnist: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    path = quiet(TINY, VariantMnist("colored", mnist), output)
    assert path == output / "gan.pt"
    assert {p.name for p in output.iterdir()} == {
        *("gan.pt", "resume.pt", "config.json", "scalars.jsonl", "samples.png")
    }
    assert json.loads((output / "config.json").read_text())["channels"] == 4
    with Image.open(output / "samples.png") as picture:
        assert picture.width == 2 * 320
        assert picture.height > 2 * 320  # with captions above

    trained = load_gan(path)
    assert (trained.config, trained.step) == (TINY, 4)
    images, labels = trained.sample(300, torch.Generator().manual_seed(3))
    assert (images.shape, images.dtype) == ((300, 3, 32, 32), torch.float32)
    assert float(images.abs().max()) <= 1
    assert labels.dtype == torch.int64
    assert set(labels.tolist()) == set(range(10))
    again, _ = trained.sample(300, torch.Generator().manual_seed(3))
    assert torch.equal(images, again)
    assert not torch.equal(images, trained.sample(300)[0])
    assert [len(part) for part in trained.sample(0)] == [0, 0]
    with pytest.raises(ValueError, match="n is -1, expected >= 0"):
        trained.sample(-1)


def test_resumed_run_is_the_same(mnist: Path, tmp_path: Path) -> None:
    data = VariantMnist("colored", mnist)
    whole = load_tensors(quiet(TINY, data, tmp_path / "whole"))
    check = gan.check_losses

    def stop_at_step_3(losses, step, output):
        if step == 3:
            raise KeyboardInterrupt
        return check(losses, step, output)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gan, "check_losses", stop_at_step_3)
        with pytest.raises(KeyboardInterrupt):
            quiet(TINY, data, tmp_path / "parts")
    assert load_gan(tmp_path / "parts" / "gan.pt").step == 2
    parts = load_tensors(quiet(TINY, data, tmp_path / "parts", resume=True))
    for name, tensor in whole["model"].items():
        assert torch.equal(tensor, parts["model"][name]), name


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("step", "7", "step is '7'"),
        ("optimizer_g", {"state": {}}, "optimizer_g is of another run"),
        ("rng", torch.zeros(3), "rng is of another run"),
    ],
)
def test_foreign_resume_state_is_refused(
    mnist: Path, tmp_path: Path, key: str, value: object, message: str
) -> None:
    data = VariantMnist("colored", mnist)
    path = quiet(replace(TINY, steps=1), data, tmp_path).with_name("resume.pt")
    torch.save(load_tensors(path) | {key: value}, path)
    with pytest.raises(CheckpointError, match=message):
        quiet(TINY, data, tmp_path, resume=True)


def test_stops_at_nan_and_keeps_the_checkpoint(
    mnist: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adversarial = gan.adversarial
    calls = 0

    def broken(scores: torch.Tensor, *, real: bool) -> torch.Tensor:
        nonlocal calls
        calls += 1
        return adversarial(scores, real=real) * (torch.nan if calls == 8 else 1)  # d_real of the third step

    monkeypatch.setattr(gan, "adversarial", broken)
    with pytest.raises(LossError, match="loss d_real is not finite at step 2"):
        quiet(TINY, VariantMnist("colored", mnist), tmp_path / "run")
    assert load_gan(tmp_path / "run" / "gan.pt").step == 2


def test_wildlife_and_its_discriminator(mnist: Path, textures: Path, tmp_path: Path) -> None:
    data = VariantMnist("wildlife", mnist, textures=textures)
    config = replace(TINY, variant="wildlife", steps=1)
    assert load_gan(quiet(config, data, tmp_path / "run")).step == 1


def test_learns_the_colours_of_its_label(mnist: Path, tmp_path: Path) -> None:
    data = VariantMnist("double-colored", mnist)
    batch = data.batch(list(range(len(data))))
    real = torch.from_numpy(batch.images).mean((2, 3))
    wanted = torch.stack([real[torch.from_numpy(batch.labels) == k].mean(0) for k in range(10)])
    config = replace(
        TINY, variant="double-colored", channels=8, disc_width=32, steps=60, batch_size=16, lr_generator=1e-2
    )
    trained = load_gan(quiet(config, data, tmp_path / "run"))
    images, labels = trained.sample(200, torch.Generator().manual_seed(0))
    drawn = torch.stack([images[labels == k].mean((0, 2, 3)) for k in range(10)])
    # Drawing the mean colour for every label leaves the variance between classes as the error.
    assert (drawn - wanted).square().mean() < 0.8 * (wanted - wanted.mean(0)).square().mean()


def test_size_is_that_of_a_cgn() -> None:
    config = GanConfig("wildlife")
    sizes = [
        sum(p.numel() for p in net.parameters())
        for net in (Generator(config.noise_size, config.channels), CGN())
    ]
    assert 0.8 < sizes[0] / sizes[1] < 1.2


def test_sub_pixel_convolution_draws_every_pixel() -> None:
    """Pixels of one 2 x 2 block come from weights of their own."""
    net = Generator(4, 4).eval()
    pictures = net(torch.randn(2, 4), torch.tensor([1, 2]))
    block = F.pixel_unshuffle(pictures[:, :1], 2)[0, :, 3, 3]
    assert len(set(block.tolist())) == 4


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"variant": "grey"}, "variant is 'grey', expected one of colored"),
        ({"steps": 0}, "steps is 0, expected a number > 0"),
        ({"lr_generator": float("nan")}, "lr_generator is nan"),
        ({"batch_size": 1}, "batch_size is 1, expected >= 2"),
    ],
)
def test_rejects_settings(changed: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(TINY, **changed)


def test_rejects_other_files_and_folders(mnist: Path, tmp_path: Path) -> None:
    data = VariantMnist("colored", mnist)
    output = tmp_path / "run"
    config = replace(TINY, steps=1)
    path = quiet(config, data, output)
    with pytest.raises(ValueError, match="the folder already has a run"):
        quiet(config, data, output)
    with pytest.raises(ValueError, match=r"settings are changed: seed \(0 -> 1\)"):
        quiet(replace(config, seed=1), data, output, resume=True)
    with pytest.raises(ValueError, match="data are colored/test, expected colored/train"):
        quiet(config, VariantMnist("colored", mnist, domain="test"), tmp_path / "other")

    content = load_tensors(path)
    for changed, message in (
        ({"format": "other"}, "format is 'other', expected 'cgnrt-mnist-gan'"),
        ({"format_version": 2}, r"format version is 2, expected 1\.\.1"),
        ({"config": {"steps": 4}}, "settings are damaged .*expected a table with variant"),
        (
            {"config": content["config"] | {"steps": -1}},
            "settings are damaged .*steps is -1, expected a number > 0",
        ),
        ({"model": {}}, "missing keys"),
    ):
        save_checkpoint(content | changed, tmp_path / "bad.pt")
        with pytest.raises(CheckpointError, match=message):
            load_gan(tmp_path / "bad.pt")
    (output / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="content is damaged"):
        quiet(config, data, output, resume=True)


def test_command(mnist: Path, tmp_path: Path, capsys) -> None:
    words = ["gan", "--variant", "colored", "--data", str(mnist), "--output", str(tmp_path / "run")]
    words += [word for key in ("channels=4", "disc_width=8", "batch_size=4") for word in ("--set", key)]
    assert cli.main([*words, "--steps", "1", "--threads", "1"]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'run' / 'gan.pt'}\n"
    assert cli.main([*words, "--steps", "1"]) == 2
    assert "Use --resume, --force" in capsys.readouterr().err
    assert cli.main([*words, "--steps", "0"]) == 2
    assert cli.main([*words, "--steps", "2", "--resume"]) == 0
    resume = [*words[:1], *words[3:], "--resume"]  # the variant is the run's own
    assert cli.main([*resume, "--set", "seed=1"]) == 2
    assert "settings are changed: seed (0 -> 1)" in capsys.readouterr().err
    assert cli.main([*resume, "--steps", "3"]) == 0
    assert load_gan(tmp_path / "run" / "gan.pt").step == 3
