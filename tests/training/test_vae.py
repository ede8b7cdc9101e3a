from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from cgnrt.errors import CheckpointError
from cgnrt_training import cli
from cgnrt_training.checkpoints import load_tensors
from cgnrt_training.checkpoints import save as save_checkpoint
from cgnrt_training.experiments import fig6
from cgnrt_training.mnist import vae
from cgnrt_training.mnist.data import COLORED, VariantMnist
from cgnrt_training.mnist.vae import Vae, VaeConfig, kl_by_latent, load_vae, train_vae
from cgnrt_training.runs.loop import LossError

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def one_thread():
    """Bit-equal sums want one number of threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


TINY = VaeConfig(hidden=8, steps=4, batch_size=4, checkpoint_every=2)


def quiet(config: VaeConfig, data: VariantMnist, output: Path, **how: bool) -> Path:
    return train_vae(config, data, output, log=io.StringIO(), **how)


def bars(colours: list[tuple[int, int, int]], places: list[int]) -> torch.Tensor:
    """Pictures of a bar in a colour at a place, as the test digits are."""
    pictures = -torch.ones(len(colours), 3, 32, 32)
    for picture, colour, place in zip(pictures, colours, places, strict=True):
        picture[:, 6:26, 2 * place + 4 : 2 * place + 8] = torch.tensor(colour)[:, None, None] / 127.5 - 1
    return pictures


def test_kl_is_that_of_torch() -> None:
    mean, log_variance = torch.randn(5, 3), torch.randn(5, 3)
    posterior = torch.distributions.Normal(mean, (0.5 * log_variance).exp())
    expected = torch.distributions.kl_divergence(posterior, torch.distributions.Normal(0, 1)).mean(0)
    torch.testing.assert_close(kl_by_latent(mean, log_variance), expected)


def test_learns_and_resumes_to_the_same_bits(mnist: Path, tmp_path: Path) -> None:
    data = VariantMnist("colored", mnist)
    whole = load_tensors(quiet(TINY, data, tmp_path / "whole"))
    assert whole["step"] == 4
    check = vae.check_losses

    def stop_at_step_3(losses, step, output):
        if step == 3:
            raise KeyboardInterrupt
        return check(losses, step, output)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vae, "check_losses", stop_at_step_3)
        with pytest.raises(KeyboardInterrupt):
            quiet(TINY, data, tmp_path / "parts")
    assert load_tensors(tmp_path / "parts" / "vae.pt")["step"] == 2
    parts = load_tensors(quiet(TINY, data, tmp_path / "parts", resume=True))
    for name, tensor in whole["model"].items():
        assert torch.equal(tensor, parts["model"][name]), name


def test_reconstructs_better_than_the_mean_picture(mnist: Path, tmp_path: Path) -> None:
    data = VariantMnist("colored", mnist)
    config = VaeConfig(hidden=64, steps=300, batch_size=16, beta=0.1, lr=5e-3)
    model, _ = load_vae(quiet(config, data, tmp_path))
    images = torch.from_numpy(data.batch(list(range(40))).images)
    with torch.no_grad():
        error = (model.decode(model.encode(images)[0]) - images).square().mean()
    assert error < 0.7 * (images - images.mean(0)).square().mean()


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("step", -1, "step is -1"),
        ("optimizer", {"state": {}}, "optimizer is of another run"),
        ("rng", torch.zeros(3), "rng is of another run"),
    ],
)
def test_foreign_resume_state_is_refused(
    mnist: Path, tmp_path: Path, key: str, value: object, message: str
) -> None:
    data = VariantMnist("colored", mnist)
    path = quiet(replace(TINY, steps=1), data, tmp_path)
    torch.save(load_tensors(path) | {key: value}, path)
    with pytest.raises(CheckpointError, match=message):
        quiet(TINY, data, tmp_path, resume=True)


def test_stops_at_nan(mnist: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vae, "kl_by_latent", lambda mean, log_variance: mean.sum(0) * torch.nan)
    with pytest.raises(LossError, match="loss kl is not finite at step 0"):
        quiet(TINY, VariantMnist("colored", mnist), tmp_path / "run")


def test_rejections(mnist: Path, tmp_path: Path) -> None:
    data = VariantMnist("colored", mnist)
    with pytest.raises(ValueError, match="latents is 0, expected a number > 0"):
        replace(TINY, latents=0)
    with pytest.raises(ValueError, match="variant is 'grey'"):
        replace(TINY, variant="grey")
    with pytest.raises(ValueError, match="data are colored/train, expected wildlife/train"):
        quiet(replace(TINY, variant="wildlife"), data, tmp_path / "run")
    path = quiet(replace(TINY, steps=1), data, tmp_path / "run")
    with pytest.raises(ValueError, match="the folder already has a run"):
        quiet(TINY, data, tmp_path / "run")
    save_checkpoint(load_tensors(path) | {"format": "other"}, path)
    with pytest.raises(CheckpointError, match="format is 'other', expected 'cgnrt-mnist-vae'"):
        load_vae(path)


def test_names_colour_and_digit_each_for_itself() -> None:
    palette = list(COLORED.values())
    references = bars(palette * fig6.NEIGHBOURS, list(range(10)) * fig6.NEIGHBOURS)
    namer = fig6.Namer(references, torch.arange(10).repeat(fig6.NEIGHBOURS))
    pictures = bars([palette[3], palette[7], palette[0]], [0, 5, 9])
    assert namer.colour(pictures).tolist() == [3, 7, 0]
    assert namer.digit(pictures).tolist() == [0, 5, 9]


def test_changes_counts_pairs() -> None:
    colours = torch.tensor([[1, 1, 2], [1, 1, 1], [1, 3, 1], [5, 5, 5]])
    digits = torch.tensor([[4, 4, 4], [4, 6, 4], [4, 4, 5], [0, 0, 0]])
    # Of four times three pairs: rows 0 and 2 have two pairs of two colours, rows 1 and 2 of two digits; one is both.
    expected = {"colour": 4, "digit": 4, "both": 1, "colour_alone": 3, "digit_alone": 3}
    assert fig6.changes(colours, digits) == pytest.approx({kind: n / 12 for kind, n in expected.items()})


def test_traversal_moves_one_latent() -> None:
    model = Vae(3, 8).eval()
    codes = torch.randn(2, 3)
    pictures = fig6.traverse(model, codes, 1)
    assert pictures.shape == (2, fig6.POINTS, 3, 32, 32)
    codes[:, 1] = -fig6.REACH
    torch.testing.assert_close(pictures[:, 0], model.decode(codes).detach())


def test_command_writes_json_table_and_plot(
    mnist: Path, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fig6, "ACTIVE_NATS", 0.0)
    output = tmp_path / "run"
    words = ["fig6", "--data", str(mnist), "--output", str(output), "--threads", "1", "--steps", "2"]
    assert cli.main([*words, "--latents", "3"]) == 0
    assert capsys.readouterr().out == f"{output / 'fig6.json'}\n"
    record = json.loads((output / "fig6.json").read_text())
    found = record["results"]["3"]
    assert len(found["axes"]) == 3
    assert all(0 <= axis[kind] <= 1 for axis in found["axes"] for kind in fig6.KINDS)
    assert found["agreement_of_data"] >= 0.7  # their colours vary around the class colour
    assert (record["seeds"], record["settings"]["latents"]) == ([0], 3)
    assert "3 latents, traversals of" in (output / "fig6.md").read_text()
    with Image.open(output / "fig6.png") as picture:
        assert min(picture.size) > 200
    assert cli.main([*words, "--latents", "3"]) == 2
    assert "Use --resume, --force" in capsys.readouterr().err
    assert cli.main([*words, "--latents", "3", "--resume"]) == 0
    assert cli.main([*words, "--latents", "0"]) == 2


def test_one_latent_is_drawn_too(mnist: Path, tmp_path: Path) -> None:
    fig6.draw(Vae(1, 4).eval(), VariantMnist("colored", mnist), tmp_path / "one.png")
    assert (tmp_path / "one.png").stat().st_size > 0
