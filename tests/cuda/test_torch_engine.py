"""The torch engine between cgnrt's own kernels: on the emulated device, whose streams are lazy, and on a card."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from cgnrt import Generator, cuda
from cgnrt.backends import EngineOptions, Setup, choose, load_engine
from cgnrt.backends.base import Device
from cgnrt.backends.torch.backend import TorchBackend
from cgnrt.plan import Plan

from .test_onnxruntime import batch, on_device


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_run_is_in_the_streams_order(precision: str, emulated: ModuleType, demo_plan: Path) -> None:
    with Plan.open(demo_plan) as plan:
        mechanism = plan.mechanisms["texture"]
        setup = Setup(Device("cuda", 1), precision, options=EngineOptions(batches=(3,)))
        stream = emulated.Stream(1)
        engine = TorchBackend().examine(mechanism, setup).load(2, stream)
        reference = load_engine(mechanism, backend="onnxruntime")
        for n in (3, 1, 5):
            inputs = batch(mechanism, n)
            target = emulated.DeviceArray.empty((n, 3, 32, 32), "float32", stream)
            after = emulated.DeviceArray.empty((n, 3, 32, 32), "float32", stream)
            outputs: Any = {"foreground": target}
            assert engine.run(on_device(emulated, inputs, stream), outputs, stream) == outputs
            emulated.copy(target, after, stream)
            expected = reference.run(inputs)["foreground"]
            np.testing.assert_allclose(after.numpy(), expected, atol=1e-5 if precision == "fp32" else 2e-2)
        with pytest.raises(TypeError, match="run 'texture': outputs is None, expected one on cuda:1"):
            engine.run(on_device(emulated, batch(mechanism, 1), stream), None, stream)


@pytest.mark.usefixtures("emulated")
def test_a_generator_composes_by_our_kernels(demo_plan: Path) -> None:
    gen = Generator(demo_plan, backend="torch", device="cuda:1", precision="fp32")
    here = Generator(demo_plan, backend="torch", device="cpu", precision="fp32")
    for options in ({"parts": True}, {"pool": 3, "refresh": 2}):
        found, expected = gen.sample(20, 1, **options), here.sample(20, 1, **options)
        assert isinstance(found.images, cuda.DeviceArray)
        np.testing.assert_allclose(found.numpy().images, expected.images, atol=4e-5)
    assert gen.cuda_stream.device == 1


@pytest.mark.usefixtures("emulated")
def test_where_there_are_kernels_others_are_tried_before_it(demo_plan: Path) -> None:
    choice = choose("'x'", device="cuda", backend="torch")
    assert (choice.backend.name, str(choice.device)) == ("torch", "cuda:0")


# On a card. PSNR of the composite to float32, as the networks round it.


@pytest.fixture
def generators(demo_plan: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes generators on cuda:0: with our kernels or without them."""
    if request.param == "torch alone":
        monkeypatch.setattr(cuda, "refusal", lambda index=0: "not used in this test")

    def make(**options: Any) -> Generator:
        return Generator(demo_plan, backend="torch", device="cuda", **options)

    return make


@pytest.mark.gpu
@pytest.mark.parametrize("generators", ["our kernels", "torch alone"], indirect=True)
@pytest.mark.parametrize(
    ("options", "floor"),
    [
        ({"precision": "fp32"}, 80),
        ({"precision": "fp32", "tf32": True}, 50),
        ({"precision": "fp16"}, 55),
        ({"precision": "bf16"}, 40),
        ({"precision": "fp16", "engine_batches": (50, 20)}, 55),
    ],
)
def test_images_on_a_card(generators: Any, options: dict[str, Any], floor: float, demo_plan: Path) -> None:
    gen = generators(**options)
    here = Generator(demo_plan, precision="fp32", device="cpu")
    for n in (50, 20, 7, 50):
        found = gen.sample(n, n).torch()
        assert found.images.device.type == found.labels.shape.device.type == "cuda"
        error = np.square(found.images.cpu().numpy().astype(np.float64) - here.sample(n, n).images).mean()
        assert 10 * np.log10(4 / error) >= floor


@pytest.mark.gpu
@pytest.mark.parametrize("generators", ["torch alone"], indirect=True)
def test_streams_and_pools_on_a_card(generators: Any) -> None:
    gen = generators(precision="fp32")
    expected = gen.sample(64, 1, pool=8).numpy().images
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    with torch.cuda.stream(side):
        images = gen.sample(64, 1, pool=8).torch().images
        doubled = images * 2
    side.synchronize()
    np.testing.assert_array_equal(doubled.cpu().numpy(), expected * 2)
