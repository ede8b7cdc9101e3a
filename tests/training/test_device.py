"""Training on a device: every job through a device that is not there, and what is refused."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import natural_nets
import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from cgnrt import Generator
from cgnrt.errors import BackendError
from cgnrt_training import cli, device
from cgnrt_training.checkpoints import load_tensors
from cgnrt_training.classifier import sources
from cgnrt_training.classifier import train as classifier_loop
from cgnrt_training.classifier.config import ClassifierConfig
from cgnrt_training.classifier.sources import Inputs
from cgnrt_training.classifier.train import train as train_classifier
from cgnrt_training.features.squeezenet import SqueezeNetFeatures
from cgnrt_training.imagenet.calibrate import random_cgn
from cgnrt_training.mnist.config import RECIPES, reference
from cgnrt_training.mnist.data import VariantMnist
from cgnrt_training.mnist.gan import GanConfig, load_gan, train_gan
from cgnrt_training.mnist.train import train
from cgnrt_training.mnist.vae import VaeConfig, train_vae
from cgnrt_training.natural.train import train as train_natural
from cgnrt_training.settings import load_toml, override

CUDA = torch.device("cuda", 0)

_MOVES = {
    *(Tensor.to, Tensor.copy_, Tensor.__setitem__, Tensor.data.__set__, Tensor.grad.__set__),
    torch._has_compatible_shallow_copy_type,
}
_VIEWS_OF_THE_HOST = {Tensor.numpy, Tensor.__array__}


class MixedDevicesError(AssertionError):
    """A call that a GPU refuses."""


class Shadow(TorchFunctionMode):
    """A CUDA device that is not there: its tensors lie in the host's memory, but may not be mixed with the CPU's.

    While it is entered, whatever asks torch for "cuda" gets memory of the host that is remembered as the device's. A
    call with tensors of both, the NumPy view of a device's tensor and a generator of the other device are errors, as
    they are on a GPU. Values are the CPU's own, so that a whole job runs and can be compared with its run on the CPU.
    """

    def __init__(self) -> None:
        super().__init__()
        self._storages: dict[int, Any] = {}  # kept, so that no address is used again
        self.calls = 0  # with tensors of the device

    def holds(self, tensor: Tensor) -> bool:
        """Whether a tensor is the device's."""
        return tensor.untyped_storage()._cdata in self._storages

    def _keep(self, found: Any) -> Any:
        for tensor in tree_leaves(found):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                self._storages[storage._cdata] = storage
        return found

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        # A deep copy's second argument holds all copies so far.
        given = args[:1] if func == Tensor.__deepcopy__ else (args, kwargs)
        tensors = [leaf for leaf in tree_leaves(given) if isinstance(leaf, Tensor)]
        ours = [tensor for tensor in tensors if self.holds(tensor)]
        self.calls += bool(ours)
        if func == Tensor.device.__get__:
            return CUDA if ours else func(*args, **kwargs)
        if func == Tensor.cpu:
            return args[0].clone() if ours else args[0]
        if ours and func in _VIEWS_OF_THE_HOST:
            raise MixedDevicesError("the device's memory has no NumPy view")
        if func == Tensor.to:
            return self._moved(func, args, kwargs, bool(ours))
        if ours and func not in _MOVES:
            mixed = [tensor for tensor in tensors if tensor.dim() and not self.holds(tensor)]
            # A device's tensor may be indexed by the CPU's.
            if mixed and not (func == Tensor.__getitem__ and self.holds(args[0])):
                raise MixedDevicesError(f"{func} with tensors of both devices")
        elif func == Tensor.__getitem__ and ours:
            raise MixedDevicesError("the CPU's tensor indexed by the device's")
        made_here = self._takes_device(kwargs)
        if made_here and kwargs.get("generator") is not None:
            raise MixedDevicesError(f"{func} on the device with the CPU's generator")
        found = func(*args, **kwargs)
        if func in (Tensor.copy_, Tensor.__setitem__) and not self.holds(args[0]):
            return found
        return self._keep(found) if ours or made_here else found

    def _takes_device(self, kwargs: dict[str, Any]) -> bool:
        """Whether a call asks for the device; it then gets the host."""
        if (device := kwargs.get("device")) is None or torch.device(device).type != "cuda":
            return False
        kwargs["device"] = torch.device("cpu")
        return True

    def _moved(self, func: Any, args: Any, kwargs: dict[str, Any], from_here: bool) -> Any:
        source, *rest = args
        named = [a for a in rest if isinstance(a, str | torch.device)] + [kwargs.get("device")]
        asked = next((torch.device(a) for a in named if a is not None), None)
        to_here = from_here if asked is None else asked.type == "cuda"
        rest = [torch.device("cpu") if isinstance(a, str | torch.device) else a for a in rest]
        self._takes_device(kwargs)
        found = func(source, *rest, **kwargs)
        if to_here == from_here:
            return self._keep(found) if to_here else found
        return self._keep(found.clone()) if to_here else found.clone()


@pytest.fixture
def shadow(monkeypatch: pytest.MonkeyPatch) -> Iterator[Shadow]:
    """Entered around what is to run on the device; nothing of the device may be saved."""
    mode = Shadow()
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: torch.get_rng_state())
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: torch.set_rng_state(state))
    saved = torch.save

    def save(content: Any, *args: Any) -> None:
        tensors = [leaf for leaf in tree_leaves(content) if isinstance(leaf, torch.Tensor)]
        assert not any(mode.holds(tensor) for tensor in tensors)
        saved(content, *args)

    monkeypatch.setattr(torch, "save", save)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield mode
    torch.set_num_threads(threads)
    assert mode.calls > 50


def same(one: Path, other: Path) -> None:
    """Two files hold the same tensors."""
    left, right = (tree_leaves(load_tensors(path)["model"]) for path in (one, other))
    assert len(left) == len(right) > 4
    for a, b in zip(left, right, strict=True):
        assert torch.equal(a, b)


def test_the_shadow_tells_devices_apart() -> None:
    here = torch.ones(2)
    with Shadow() as mode:
        there = here.to("cuda")
        assert (there.device, here.device.type) == (CUDA, "cpu")
        assert mode.holds(there * 2 + torch.zeros(2, device="cuda"))
        assert not mode.holds(there.cpu())
        assert mode.holds(torch.nn.Linear(2, 2).to("cuda").weight)
        with pytest.raises(MixedDevicesError):
            there + here
        with pytest.raises(MixedDevicesError):
            there.numpy()
        with pytest.raises(MixedDevicesError):
            here[torch.zeros(1, dtype=torch.int64, device="cuda")]
        with pytest.raises(MixedDevicesError):
            torch.randn(3, generator=torch.Generator(), device="cuda")


@pytest.mark.parametrize("recipe", ["fast", "reference"])
def test_cgn(recipe: str, mnist: Path, tmp_path: Path, shadow: Shadow) -> None:
    config = reference("double-colored")
    if recipe == "fast":
        config = override(config, load_toml("fast", RECIPES))
    config = override(
        config,
        {
            "model": {"channels": 4, "noise_size": 4},
            "loss": {"perceptual": [0.1, 0, 0, 0]},
            "train": {"steps": 3, "batch_size": 8, "teach_from": 1, "ema": 0.9, "texture_reuse": 2},
            "log": {"scalars_every": 1, "samples_every": 2, "checkpoint_every": 2},
        },
    )
    data = VariantMnist("double-colored", mnist)
    weights = tmp_path / "squeezenet.pth"
    torch.save(SqueezeNetFeatures().state_dict(), weights)
    how: dict[str, Any] = {"perceptual_weights": weights, "log": io.StringIO()}
    expected = train(config, data, tmp_path / "cpu", **how)
    with shadow:
        found = train(config, data, tmp_path / "cuda", device=CUDA, **how)
        same(expected, found)
        # And on, from there and from the CPU.
        longer = override(config, {"train": {"steps": 4}})
        found = train(longer, data, tmp_path / "cuda", device=CUDA, resume=True, **how)
    expected = train(longer, data, tmp_path / "cpu", resume=True, **how)
    same(expected, found)
    assert "rng_device" in load_tensors(tmp_path / "cuda" / "resume.pt")
    assert "rng_device" not in load_tensors(tmp_path / "cpu" / "resume.pt")
    train(override(config, {"train": {"steps": 5}}), data, tmp_path / "cuda", resume=True, **how)


def test_natural(tmp_path: Path, shadow: Shadow) -> None:
    config = natural_nets.config(
        train={"updates": 1, "pseudo_batch": 1, "refine": True}, log={"sheet_samples": 1}
    )
    how: dict[str, Any] = {"log": io.StringIO()}
    expected = train_natural(config, natural_nets.networks(), tmp_path / "cpu", **how)
    with shadow:
        found = train_natural(config, natural_nets.networks(), tmp_path / "cuda", device=CUDA, **how)
    same(expected, found)


def test_gan(mnist: Path, tmp_path: Path, shadow: Shadow) -> None:
    config = GanConfig("colored", noise_size=4, channels=4, disc_width=8, steps=2, batch_size=4)
    data = VariantMnist("colored", mnist)
    expected = train_gan(config, data, tmp_path / "cpu", log=io.StringIO())
    more = replace(config, steps=3)
    with shadow:
        found = train_gan(config, data, tmp_path / "cuda", log=io.StringIO(), device=CUDA)
        same(expected, found)
        train_gan(more, data, tmp_path / "cuda", log=io.StringIO(), device=CUDA, resume=True)
        gan = load_gan(found)
        gan.generator.to(CUDA)
        images, labels = gan.sample(3, torch.Generator().manual_seed(1))
        assert shadow.holds(images)
        assert shadow.holds(labels)
        assert shadow.holds(gan.sample(0)[0])
    train_gan(more, data, tmp_path / "cpu", log=io.StringIO(), resume=True)
    same(tmp_path / "cpu" / "gan.pt", tmp_path / "cuda" / "gan.pt")


def test_vae(mnist: Path, tmp_path: Path, shadow: Shadow) -> None:
    config = VaeConfig(hidden=8, steps=2, batch_size=4)
    data = VariantMnist("colored", mnist)
    expected = train_vae(config, data, tmp_path / "cpu", log=io.StringIO())
    with shadow:
        found = train_vae(config, data, tmp_path / "cuda", log=io.StringIO(), device=CUDA)
        same(expected, found)
        more = replace(config, steps=3)
        train_vae(more, data, tmp_path / "cuda", log=io.StringIO(), device=CUDA, resume=True)


@pytest.mark.parametrize("row", ["original+cgn", "irm-2", "lntl"])
def test_classifier(
    row: str, mnist: Path, demo_plan: Path, tmp_path: Path, shadow: Shadow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(classifier_loop, "N_HELD_OUT", 16)
    asked: list[tuple[str, str]] = []

    def open_here(plan: Path, *, device: str, backend: str = "auto", threads: int | None = None) -> Generator:
        """On the CPU, since no engine knows the shadow; `test_classifier_sources.py` has a device that torch knows."""
        asked.append((device, backend))
        return Generator(plan, device="cpu", threads=1)

    monkeypatch.setattr(sources, "Generator", open_here)
    config = ClassifierConfig(row, "double-colored", steps=2, batch_size=12, irm_start=0.0)
    inputs = Inputs(mnist, plan=demo_plan)
    _, expected = train_classifier(config, inputs, tmp_path / "cpu", log=io.StringIO())
    with shadow:
        model, found = train_classifier(config, inputs, tmp_path / "cuda", log=io.StringIO(), device=CUDA)
        assert not any(shadow.holds(parameter) for parameter in model.parameters())
    opened = 2 if row == "original+cgn" else 1  # for training, and for measuring
    assert asked == [("cpu", "auto")] * opened + [("cuda:0", "torch")] * opened
    same(tmp_path / "cpu" / "classifier.pt", tmp_path / "cuda" / "classifier.pt")
    assert {**found, "seconds": 0} == {**expected, "seconds": 0}


def test_random_imagenet_cgn(shadow: Shadow) -> None:
    expected = random_cgn(128, seed=5, channel_width=4, num_classes=7).state_dict()
    with shadow:
        found = random_cgn(128, seed=5, channel_width=4, num_classes=7, device=CUDA).state_dict()
        assert not any(shadow.holds(tensor) for tensor in found.values())
    assert all(torch.equal(expected[name], found[name]) for name in expected)


# What is refused.


@pytest.mark.parametrize(
    ("job", "options"),
    [
        ("mnist", ["--variant", "colored"]),
        ("classifier", ["--row", "original", "--variant", "colored"]),
        ("gan", ["--variant", "colored"]),
        ("fig6", []),
        ("table2", ["--rows", "original"]),
        ("fig7", ["--variant", "colored", "--plan", "x.plan"]),
        ("table5", ["--plan", "x.plan"]),
        ("imagenet-random", []),
    ],
)
def test_jobs_refuse_cuda_before_any_work(
    job: str, options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    output = tmp_path / "run"
    data = [] if job == "imagenet-random" else ["--data", str(tmp_path / "missing")]
    arguments = [job, *options, *data, "--output", str(output)]
    assert cli.main([*arguments, "--device", "cuda"]) == cli.FAILED
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith("cgnrt-train: train: device is cuda, expected one that torch can use: torch 2.")
    assert cli.main([*arguments, "--device", "gpu"]) == cli.USAGE
    assert "device is 'gpu', expected cpu, cuda or cuda:<index>" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_each_reason_has_its_next_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert device.open_device("cuda") == CUDA
    assert device.open_device("cuda:1") == torch.device("cuda", 1)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    with pytest.raises(
        BackendError, match=r"device is cuda:2, .*: there are 2 devices\. Take cuda:0 to cuda:1\."
    ):
        device.open_device("cuda:2")

    def no_driver() -> bool:
        warnings.warn("CUDA initialization: the driver is too old\n(found 11000)", stacklevel=1)
        return False

    monkeypatch.setattr(torch.cuda, "is_available", no_driver)
    with pytest.raises(BackendError, match=r"no driver \(CUDA initialization: the driver is too old \(found"):
        device.open_device("cuda")
    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(
        BackendError, match=r"is built without CUDA\. Install a build with it, or leave --device"
    ):
        device.open_device("cuda")


def test_the_device_reaches_the_jobs(
    mnist: Path, tmp_path: Path, demo_plan: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    seen: list[torch.device] = []

    def stop(*_: Any, device: torch.device, **__: Any) -> None:
        seen.append(device)
        raise ValueError("reached")

    for target in (
        "mnist.train.train",
        "mnist.gan.train_gan",
        "classifier.train.train",
        "experiments.fig6.train_vae",
        "imagenet.calibrate.random_cgn",
    ):
        monkeypatch.setattr(f"cgnrt_training.{target}", stop)
    data = ["--data", str(mnist)]
    plan = ["--plan", str(demo_plan)]
    cells = ["--jobs", "0", "--seeds", "1"]
    jobs = [
        ["mnist", "--variant", "colored", *data],
        ["gan", "--variant", "colored", *data],
        ["classifier", "--row", "original", "--variant", "colored", *data],
        ["fig6", *data],
        ["imagenet-random"],
        ["table2", "--rows", "original", "--variant", "colored", *data, *cells],
        ["fig7", "--variant", "colored", *data, *plan, *cells, "--per-noise", "none", "--reuse", "none"],
        ["table5", *data, *plan, *cells],
    ]
    for number, job in enumerate(jobs):
        seen.clear()
        assert cli.main([*job, "--output", str(tmp_path / str(number)), "--device", "cuda:1"]) != cli.OK
        assert set(seen) == {torch.device("cuda", 1)}, job
