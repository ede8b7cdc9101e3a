from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import onnx
import pytest
from onnx import TensorProto, helper

from cgnrt import Generator
from cgnrt.plan import write_plan

from .telling_plan import write_telling_plan

# Chunks of different sizes take different kernels in the engines: fp32 sums in another order.
ENGINE_TOLERANCE = 2e-5


class EnginePlan(NamedTuple):
    """An engine and a plan that it runs; `tolerance` between two of its runs, split into other batches."""

    backend: str
    plan: Path
    tolerance: float


@pytest.fixture(scope="session")
def gen(golden_plan: Path) -> Generator:
    return Generator(golden_plan)


@pytest.fixture(params=["openvino", "onnxruntime", "torch"])
def backend(request: pytest.FixtureRequest) -> str:
    """The engine libraries, which run every plan."""
    return str(request.param)


@pytest.fixture(params=["native", "openvino", "onnxruntime", "torch"])
def engine_plan(request: pytest.FixtureRequest, golden_plan: Path, demo_plan: Path) -> EnginePlan:
    """Every engine; the native one has no layers for the golden plan and computes each image by itself."""
    if request.param == "native":
        return EnginePlan("native", demo_plan, 0)
    return EnginePlan(str(request.param), golden_plan, ENGINE_TOLERANCE)


@pytest.fixture(scope="session")
def make_golden(golden_plan: Path) -> ModuleType:
    """The script behind the golden plan, for plans like it."""
    spec = importlib.util.spec_from_file_location("make_golden", golden_plan.parent / "make_golden.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def telling(make_golden: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Generator:
    """A generator of images that tell their labels."""
    path = tmp_path_factory.mktemp("telling") / "telling.plan"
    return Generator(write_telling_plan(make_golden, path), threads=1)


# Names as ImageNet has them, and some that are hard to write or to read.
NAMES = [
    *("cock", "jay", "crane (bird)", "African elephant", "Indian elephant", "king penguin", "t-shirt"),
    *(
        "great white shark, man-eater",
        "Entlebucher mountain dog of the Swiss canton of Lucerne",
        "café",
        "geyser",
    ),
]
NAMES += [f"class {k}" for k in range(1000 - len(NAMES))]


@pytest.fixture(scope="session")
def imagenet_like(make_golden: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The golden plan with what an ImageNet plan has: 1,000 classes, truncation, shared noise, a pre-mask, no roll."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(make_golden, "CLASSES", dict.fromkeys(make_golden.CLASSES, NAMES))
        manifest, members = make_golden.make_plan()
    manifest |= {
        "noise_mode": "shared",
        "truncation": {"minimum": 0.02, "maximum": 1.0, "default": 1.0},
    }
    for mechanism in manifest["mechanisms"].values():
        mechanism["noise"]["distribution"] = "truncated_normal"
        mechanism["roll"] = False
    # The logits of the mask, as the picture that the saliency head reads.
    model = onnx.load_model_from_string(members["mechanisms/shape.onnx"])
    model.graph.initializer.append(
        helper.make_tensor("factor", TensorProto.FLOAT, [1, 3, 1, 1], [0.5, 0.3, -0.4])
    )
    model.graph.node.append(helper.make_node("Mul", ["logits", "factor"], ["pre_mask"]))
    model.graph.output.append(helper.make_tensor_value_info("pre_mask", TensorProto.FLOAT, ["n", 3, 8, 8]))
    members["mechanisms/shape.onnx"] = model.SerializeToString(deterministic=True)
    manifest["mechanisms"]["shape"]["outputs"].append(
        {"name": "pre_mask", "shape": ["n", 3, 8, 8], "dtype": "float32"}
    )
    path = tmp_path_factory.mktemp("plans") / "imagenet_like.plan"
    write_plan(path, manifest, members)
    return path
