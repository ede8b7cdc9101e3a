"""The training loop of a natural-image CGN: exact sums, what changes, stops and goes on."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import natural_nets
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from cgnrt.errors import CheckpointError
from cgnrt_training.checkpoints import load_tensors
from cgnrt_training.imagenet.cgn import MASK_RANGE, compose
from cgnrt_training.natural import losses
from cgnrt_training.natural import train as loop
from cgnrt_training.natural.checkpoints import load_natural
from cgnrt_training.natural.config import RECIPES, Config
from cgnrt_training.natural.draws import draw
from cgnrt_training.natural.model import MECHANISMS, NaturalCGN
from cgnrt_training.natural.monitor import Clock, collapse
from cgnrt_training.natural.networks import Networks
from cgnrt_training.natural.patch_grid import patch_grid
from cgnrt_training.natural.refine import Refiner
from cgnrt_training.natural.sheet import over_training, sheet
from cgnrt_training.natural.train import Run, train
from cgnrt_training.runs.loop import LossError
from cgnrt_training.runs.pictures import Sheet, save_png
from cgnrt_training.runs.processes import Processes
from cgnrt_training.settings import load_toml, override

CPU = torch.device("cpu")


def double(networks: Networks) -> Networks:
    for module in (networks.teacher, networks.saliency, networks.features):
        assert module is not None
        module.double()
    return networks


def run_of(config: Config, networks: Networks) -> Run:
    return Run(config, networks, Path("run"), CPU, Processes())


def gradients(module: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad for name, p in module.named_parameters() if p.grad is not None}


def whole_loss(run: Run, n: int) -> Tensor:
    """The mean over samples 0..n-1 of Eq. 4, in one batch and one graph."""
    config, teacher = run.config, run.teacher
    indices = np.arange(n)
    labels, noise, truncation = draw(
        config.train.seed, indices, classes=5, noise_size=8, truncation=1.0, device=CPU
    )
    noise, truncation = noise.double(), truncation.double()
    target = teacher(noise, teacher.embedding_table[labels], truncation)
    parts = run.cgn(labels, labels, labels, noise=noise, truncation=truncation)
    picture = compose(parts)
    features = run.objective.features
    assert features is not None

    def style(a: Tensor, b: Tensor) -> Tensor:
        return losses.style(features(a), features(b), (1.0, 1.0, 1.0, 1.0), config.perceptual)

    grid = patch_grid(parts.mask, picture, config.patches, config.train.seed, indices)
    mean = parts.mask.mean((1, 2, 3))
    m = parts.mask
    return (
        100 * (picture - target).abs().mean()
        + 5 * style(picture, target).mean()
        - 300 * (m * m.log2() + (1 - m) * (1 - m).log2()).mean()
        + 500 * ((0.1 - mean).clamp(min=0) + (mean - 0.9).clamp(min=0)).mean()
        + 5 * style(parts.foreground, grid).mean()
        + 2000 * run.objective.saliency(parts.background).mean()
    )


@pytest.mark.parametrize("micro_batch", [1, 3])
def test_summed_gradients_are_n_times_the_batch_means(micro_batch: int) -> None:
    n = 4
    config = natural_nets.config(train={"pseudo_batch": n, "micro_batch": micro_batch})
    run = run_of(config, double(natural_nets.networks()))
    with torch.no_grad():  # else the reconstruction starts at 0, where it has no gradient
        for p in run.cgn.f_bg.parameters():
            p.mul_(1.03)
    while run.state.values["samples"] < n:
        run.accumulate()
    found = gradients(run.cgn)
    run.optimizer.zero_grad()
    loss = whole_loss(run, n)
    (n * loss).backward()
    expected = gradients(run.cgn)
    assert found.keys() == expected.keys()
    assert not any(name.startswith("u2net") for name in found)
    for name, gradient in expected.items():
        # The patch grid, a target, is float32: a mask that is rounded the other way moves it by 1e-7.
        scale = gradient.abs().max().item()
        torch.testing.assert_close(found[name], gradient, rtol=0, atol=1e-7 * scale + 1e-12, msg=name)
    assert run.state.values["losses"].sum().item() == pytest.approx(n * loss.item(), rel=1e-9)


def test_mechanisms_change_and_the_networks_of_others_do_not(tmp_path: Path) -> None:
    networks = natural_nets.networks()
    assert networks.features is not None
    others = {"cgan": networks.teacher, "head": networks.saliency, "features": networks.features}
    before = {n: {k: v.clone() for k, v in m.state_dict().items()} for n, m in others.items()}
    path = train(natural_nets.config(train={"refine": True}), networks, tmp_path, log=io.StringIO())
    for name, module in others.items():
        assert all(torch.equal(v, before[name][k]) for k, v in module.state_dict().items()), name
    trained = load_natural(path)
    assert trained.step == 2
    assert trained.sources == natural_nets.SOURCES
    start = before["cgan"]
    for name in MECHANISMS.values():
        after = trained.model.get_submodule(name).state_dict()
        same = {key for key, value in after.items() if torch.equal(value, start[key])}
        assert {key for key in same if "running_" not in key} == set(), f"all of {name} trains"
        assert {key for key in after if "running_" in key} <= same, "statistics are stored ones"
    assert all(torch.equal(v, before["head"][k]) for k, v in trained.model.u2net.state_dict().items())
    assert trained.model.refiner is not None
    assert trained.model.refiner.conv_2.weight.abs().sum() > 0


def test_class_embeddings_may_stay(tmp_path: Path) -> None:
    config = natural_nets.config(train={"updates": 1, "train_embeddings": False})
    trained = load_natural(train(config, natural_nets.networks(), tmp_path, log=io.StringIO())).model
    for name in MECHANISMS.values():
        table = trained.get_submodule(name).embeddings.weight
        assert torch.equal(table, natural_nets.cgan(0).embeddings.weight)


@pytest.mark.parametrize(("when", "iterations"), [("off", 0), ("update", 2), ("micro-batch", 6)])
def test_when_power_iteration_runs(monkeypatch: pytest.MonkeyPatch, when: str, iterations: int) -> None:
    count = []
    monkeypatch.setattr(loop, "power_iterate", count.append)
    config = natural_nets.config(
        train={"power_iteration": when, "pseudo_batch": 5, "micro_batch": 2},
        loss={"background": 0, "texture": 0},
    )
    run = run_of(config, natural_nets.networks())
    for _ in range(2):
        for _ in range(3):
            run.accumulate()
        run.update()
    assert len(count) == 3 * iterations, "once for each mechanism"
    assert run.state.values["samples"] == 0


class KilledError(Exception):
    pass


STOPPED = natural_nets.config(train={"ema": 0.9, "refine": True}, log={"checkpoint_every": 2})


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nobody stops."""
    return train(STOPPED, natural_nets.networks(), tmp_path_factory.mktemp("whole"), log=io.StringIO()).parent


@pytest.mark.parametrize("calls", [1, 3, 6])
def test_a_run_that_was_stopped_goes_on_to_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: Path, calls: int
) -> None:
    """Before the first checkpoint, in the middle of a pseudo-batch, and in the second."""
    left = [calls]
    accumulate = Run.accumulate

    def killed(run: Run) -> None:
        if not left[0]:
            raise KilledError
        left[0] -= 1
        accumulate(run)

    monkeypatch.setattr(Run, "accumulate", killed)
    with pytest.raises(KilledError):
        train(STOPPED, natural_nets.networks(), tmp_path, log=io.StringIO())
    monkeypatch.setattr(Run, "accumulate", accumulate)
    log = io.StringIO()
    train(STOPPED, natural_nets.networks(), tmp_path, resume=True, log=log)
    assert f"at step {calls // 4}" in log.getvalue()
    for name in ("resume.pt", "cgn.pt"):
        assert_same(load_tensors(whole / name), load_tensors(tmp_path / name))
    for name in ("scalars.jsonl", "over-training.png"):
        assert (whole / name).read_bytes() == (tmp_path / name).read_bytes()


def assert_same(a: Any, b: Any) -> None:
    assert type(a) is type(b)
    if isinstance(a, Tensor):
        assert torch.equal(a, b)
    elif isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_same(a[key], b[key])
    elif isinstance(a, list):
        assert len(a) == len(b)
        for left, right in zip(a, b, strict=True):
            assert_same(left, right)
    else:
        assert a == b


@pytest.mark.parametrize(("other", "part"), [("f_bg", "f_text"), ("f_text", "f_bg")])
def test_collapse_by_construction(other: str, part: str) -> None:
    """Where one mechanism draws the cGAN's picture and the other cannot, L1 alone gives it the whole picture."""
    alone = dict.fromkeys(("perceptual", "binary", "mask", "texture", "background"), 0.0)
    config = natural_nets.config(
        loss=alone,
        train={"pseudo_batch": 8, "micro_batch": 8},
        optimizer={"lr_shape": 2e-3, "lr_texture": 1e-12, "lr_background": 1e-12},
    )
    run = run_of(config, natural_nets.networks())
    run.cgn.get_submodule(other).load_state_dict(natural_nets.cgan(9).state_dict())
    found: list[dict[str, float]] = []
    while len(found) < 40 and not (found and collapse(found[-1]["mu_mask"], config.loss.tau)):
        run.accumulate()
        found.append(run.update())
    mu = found[-1]["mu_mask"]
    assert mu > 0.9 if part == "f_text" else mu < 0.1
    assert 0.2 < found[0]["mu_mask"] < 0.8
    assert found[-1]["l1"] < found[0]["l1"] / 2
    message = collapse(mu, config.loss.tau)
    assert message is not None
    assert f"expected 0.1..0.9: the masks have collapsed, {part} draws the whole picture" in message


def test_a_collapse_is_reported_with_what_to_try(tmp_path: Path) -> None:
    """The masks begin at a mean of 0.585, outside of such a narrow interval."""
    log = io.StringIO()
    config = natural_nets.config(train={"updates": 1, "pseudo_batch": 1}, loss={"tau": 0.499})
    train(config, natural_nets.networks(), tmp_path, log=log)
    assert "expected 0.499..0.501: the masks have collapsed" in log.getvalue()
    assert "Start anew with a higher loss.mask or loss." in log.getvalue()


@pytest.mark.parametrize(
    ("mu", "fires"), [(0.05, True), (0.1, False), (0.5, False), (0.9, False), (0.95, True)]
)
def test_collapse_is_outside_of_the_interval(mu: float, fires: bool) -> None:
    assert bool(collapse(mu, 0.1)) == fires


ALONE = {
    "l1": 100.0,
    "perceptual": 1e5,
    "binary": 300.0,
    "mask": 500.0,
    "texture": 1e5,
    "background": 2000.0,
    "residue": 2000.0,
}


@pytest.mark.parametrize("term", list(ALONE))
def test_each_loss_falls_when_it_is_the_only_one(term: str) -> None:
    """On the same samples before and after four updates."""
    weights = dict.fromkeys(ALONE, 0.0) | {term: ALONE[term]}
    rates = dict.fromkeys(("lr_shape", "lr_texture", "lr_background"), 1e-4)
    config = natural_nets.config(
        loss=weights | {"tau": 0.45}, train={"pseudo_batch": 4, "micro_batch": 4}, optimizer=rates
    )
    run = run_of(config, natural_nets.networks())
    if term in ("l1", "perceptual"):  # which start at 0, as every mechanism is the cGAN
        run.cgn.f_bg.load_state_dict(natural_nets.cgan(9).state_dict())
    found = []
    for _ in range(5):
        run.accumulate()
        found.append(run.state.values["losses"].sum().item())
        run.update()
        run.state.step = 0  # the same samples again
    assert found[-1] < 0.9 * found[0]


def test_settings_of_the_authors_code_run() -> None:
    config = override(natural_nets.config(), load_toml("authors-code", RECIPES))
    run = run_of(config, natural_nets.networks())
    run.accumulate()
    values = run.state.values["losses"]
    assert values.isfinite().all()


def test_bf16_and_channels_last(tmp_path: Path) -> None:
    """Close to fp32, and finite where bf16 rounds a mask to 0 and 1."""
    found = []
    for train_settings in ({}, {"precision": "bf16", "channels_last": True}):
        config = natural_nets.config(train={"pseudo_batch": 2, "micro_batch": 2} | train_settings)
        run = run_of(config, natural_nets.networks())
        run.accumulate()
        found.append(run)
    exact, half = (run.state.values["losses"] for run in found)
    assert half.isfinite().all()
    torch.testing.assert_close(half[2:], exact[2:], rtol=0.05, atol=0.05)
    for name, gradient in gradients(found[1].cgn).items():
        assert gradient.dtype == torch.float32
        assert gradient.isfinite().all(), name
    assert MASK_RANGE[1] != torch.tensor(MASK_RANGE[1]).bfloat16().item() == 1.0


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = natural_nets.config(train={"updates": 5}, loss={"background": 0.0, "texture": 0.0})
    binary, calls = losses.binary, [0]

    def broken(mask: Tensor) -> Tensor:
        calls[0] += 1
        return binary(mask) * (torch.nan if calls[0] > 6 else 1.0)

    monkeypatch.setattr(losses, "binary", broken)
    with pytest.raises(
        LossError, match=r"loss binary is not finite at step 1, expected a number\. The last checkpoint"
    ):
        train(config, natural_nets.networks(), tmp_path, log=io.StringIO())
    kept = load_tensors(tmp_path / "resume.pt")
    assert kept["step"] == 1
    assert all(value.isfinite().all() for value in kept["model"].values())
    assert load_natural(tmp_path / "cgn.pt").step == 1


def test_folders_that_are_refused(tmp_path: Path) -> None:
    config = natural_nets.config(train={"updates": 1, "pseudo_batch": 1})
    train(config, natural_nets.networks(), tmp_path, log=io.StringIO())
    with pytest.raises(ValueError, match=r"the folder already has a run\. Use --resume, --force or another"):
        train(config, natural_nets.networks(), tmp_path)
    other = replace(config, loss=replace(config.loss, l1=1.0))
    with pytest.raises(
        ValueError, match=r"settings are changed: loss.l1 \(100.0 -> 1.0\), expected the run's own"
    ):
        train(other, natural_nets.networks(), tmp_path, resume=True)
    files = replace(natural_nets.networks(), sources={"biggan": {"name": "new", "sha256": "1" * 64}})
    with pytest.raises(
        ValueError, match="--biggan 'new' is another file, expected the one that the run began with"
    ):
        train(config, files, tmp_path, resume=True)
    (tmp_path / "sources.json").write_text("[")
    with pytest.raises(CheckpointError, match=r"sources\.json is unreadable .*, expected the run's files"):
        train(config, files, tmp_path, resume=True)


def test_a_run_anew_shows_no_sheets_of_the_old_one(tmp_path: Path) -> None:
    log = {"checkpoint_every": 100, "sheet_samples": 2}
    long = natural_nets.config(train={"updates": 3, "pseudo_batch": 1}, log=log)
    train(long, natural_nets.networks(), tmp_path, log=io.StringIO())
    short = override(long, {"train": {"updates": 1}})
    train(short, natural_nets.networks(), tmp_path, force=True, log=io.StringIO())
    sheets = sorted(path.name for path in (tmp_path / "samples").iterdir())
    assert sheets == ["step-000000.png", "step-000001.png"]
    with Image.open(tmp_path / "over-training.png") as picture:
        assert picture.width - _caption_width("background") == 2 * 2 * 32 + 4


def _caption_width(longest: str) -> int:
    return Sheet([torch.zeros(3, 32, 32)], side=[longest]).drawn(1).shape[1] - 32


def test_sheets() -> None:
    networks = natural_nets.networks()
    cgn = NaturalCGN.of_teacher(networks.teacher, networks.saliency)
    how: dict[str, Any] = {"seed": 0, "truncation": 0.5, "device": CPU}
    drawn = sheet(cgn, networks.teacher, 3, **how)
    assert drawn.side == ("cGAN", "pre-mask", "mask", "foreground", "background", "composite")
    assert len(drawn.head) == 3
    picture = drawn.picture
    assert picture.shape == (3, 6 * 32, 3 * 32)
    assert picture.min() >= 0
    assert picture.max() <= 1
    rows = picture.unflatten(1, (6, 32)).unbind(1)
    for row in (rows[1], rows[3], rows[4]):
        torch.testing.assert_close(row, rows[0], msg="every mechanism starts as the cGAN")
    torch.testing.assert_close(rows[5], rows[0])
    assert not torch.equal(rows[2], rows[0])
    refined = NaturalCGN.of_teacher(networks.teacher, networks.saliency, Refiner(8))
    drawn = sheet(refined, networks.teacher, 3, **how)
    assert drawn.picture.shape == (3, 7 * 32, 3 * 32)
    assert drawn.side[-1] == "refined"


def test_a_sheet_shows_all_classes_alike() -> None:
    networks = natural_nets.networks()
    cgn = NaturalCGN.of_teacher(networks.teacher, networks.saliency)
    rows: list[int] = []

    def seen(_: Any, inputs: tuple[torch.Tensor, ...]) -> None:
        table = networks.teacher.embedding_table
        rows.append(int((table - inputs[1]).abs().sum(1).argmin()))

    networks.teacher.register_forward_pre_hook(seen)
    sheet(cgn, networks.teacher, 2 * natural_nets.CLASSES, seed=0, truncation=0.5, device=CPU)
    assert rows == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]


def test_a_sheet_over_training_takes_eight_moments(tmp_path: Path) -> None:
    paths, teacher = [], natural_nets.networks().teacher
    for k in range(20):
        first = torch.full((3, 2 * 32, 32), 10 * k / 255)
        drawn = Sheet([first, first + 5 / 255], side=["cGAN", "pre-mask"], head=["a", "b"])
        paths.append(tmp_path / f"{k:02d}.png")
        save_png(drawn, paths[-1], zoom=1)
    joined = over_training(paths, teacher, 2)
    assert joined.side == ("cGAN", "pre-mask")
    assert joined.picture.shape == (3, 2 * 32, 2 * 8 * 32 + 4)
    levels = (joined.picture[0, -1] * 255).round().int().tolist()
    earlier, later = levels[: 8 * 32], levels[8 * 32 + 4 :]
    assert earlier[::32] == [10 * k for k in (0, 3, 5, 8, 11, 14, 16, 19)]
    assert later == [value + 5 for value in earlier]
    assert levels[8 * 32 : 8 * 32 + 4] == [255] * 4


def test_time_is_told_once() -> None:
    log = io.StringIO()
    clock = Clock(4000, 12000, log)
    for _ in range(9):
        clock.tick(1)
    assert log.getvalue().count("time: ") == 1
