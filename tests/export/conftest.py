"""Small modules and checkpoints for the exporter's tests."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

from cgnrt_export import MechanismModule, ParityReport, export_plan
from cgnrt_export.graph import trace
from cgnrt_training.mnist.models import CGN, TexturePadding

Mechanisms = dict[str, MechanismModule]


@pytest.fixture(autouse=True, scope="session")
def operators_once() -> Iterator[None]:
    """torch reads all of its operators anew for every graph, which takes half of the time of a small export."""
    from torch._export import utils
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            ONNXRegistry, "from_torchlib", staticmethod(functools.cache(ONNXRegistry.from_torchlib))
        )
        patch.setattr(utils, "_materialize_cpp_cia_ops", functools.cache(utils._materialize_cpp_cia_ops))
        yield


def _small_cgn(padding: TexturePadding = "zeros") -> CGN:
    """A CGN of few channels with biases and batch norm statistics as after training."""
    torch.manual_seed(0)
    model = CGN(4, 6, 4, 32, init="normal", gain=0.3, texture_padding=padding)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.3)
            module.running_mean.normal_(std=0.3)
            module.running_var.uniform_(0.5, 2)
        elif isinstance(module, nn.Linear | nn.Conv2d) and module.bias is not None:
            nn.init.normal_(module.bias, std=0.3)
    return model.eval()


class Linear(nn.Module):
    """The smallest mechanism: one linear layer and a squashing function."""

    def __init__(self, channels: int, squash: Callable[[Tensor], Tensor] = torch.tanh, size: int = 8) -> None:
        super().__init__()
        self.layer = nn.Linear(5, channels * size * size)
        self.shape = (channels, size, size)
        self.squash = squash

    def forward(self, noise: Tensor, class_embedding: Tensor) -> Tensor:
        return self.squash(self.layer(torch.cat([noise, class_embedding], 1)).unflatten(1, self.shape))


def _settle(module: nn.Module) -> nn.Module:
    """Float64, eval mode, and batch norms that do something."""
    torch.manual_seed(0)
    for norm in module.modules():
        if isinstance(norm, nn.modules.batchnorm._BatchNorm):
            if norm.affine:
                nn.init.uniform_(norm.weight, -2, 2)
                nn.init.normal_(norm.bias)
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.1, 3)
    return module.double().eval()


def _rewritten(
    rewrite: Callable[[fx.GraphModule], int],
    module: nn.Module,
    *shape: int,
    times: int,
    inputs: dict[str, Tensor] | None = None,
    tolerance: float = 1e-12,
) -> fx.GraphModule:
    """Apply one rewrite, and check how often it was and that the function is the same.

    The tolerance fits sums of some hundred products of numbers near 1 in float64: a few units in the 15th digit.
    Rounding in float32 (1e-7) or a wrong tap (1e-1) would show.
    """
    module = _settle(module)
    before = copy.deepcopy(module.state_dict())
    inputs = inputs or {"x": torch.randn(3, *shape, dtype=torch.float64)}
    traced = trace(module, inputs)
    assert rewrite(traced) == times
    traced.graph.lint()
    traced.recompile()
    for n in (1, 3):
        given = [value[:n].clone() for value in inputs.values()]
        got, expected = traced(*given), module(*given)
        torch.testing.assert_close(got, expected, atol=tolerance, rtol=tolerance)
    after = module.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before), "the user's module was changed"
    return traced


@pytest.fixture(scope="session")
def settle() -> Callable[[nn.Module], nn.Module]:
    return _settle


@pytest.fixture(scope="session")
def rewritten() -> Callable[..., fx.GraphModule]:
    return _rewritten


@pytest.fixture(scope="session")
def calls() -> Callable[[fx.GraphModule], list[str]]:
    """The names of a graph's ATen calls in order."""

    def names(module: fx.GraphModule) -> list[str]:
        return [
            node.target._schema.name.removeprefix("aten::")
            for node in module.graph.nodes
            if hasattr(node.target, "_schema")
        ]

    return names


@pytest.fixture
def small_cgn() -> CGN:
    return _small_cgn()


@pytest.fixture(scope="session")
def authors_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bare state dict under the authors' key names."""
    path = tmp_path_factory.mktemp("checkpoint") / "ckp.pth"
    torch.save(_small_cgn().state_dict(), path)
    return path


@pytest.fixture
def own() -> Callable[..., Mechanisms]:
    """Mechanisms of a user's own; keywords replace a mechanism's module or, as a dict, its fields."""

    def make(**replaced: Any) -> Mechanisms:
        torch.manual_seed(1)
        mechanisms = {}
        for name, module in (
            ("shape", Linear(1, torch.sigmoid)),
            ("texture", Linear(3)),
            ("background", Linear(3)),
        ):
            fields = {
                "module": module,
                "embedding": torch.randn(3, 2),
                "classes": ["a", "b", "c"],
                "noise_size": 3,
            }
            given = replaced.get(name, {})
            fields |= given if isinstance(given, dict) else {"module": given}
            mechanisms[name] = MechanismModule(**fields)
        return mechanisms

    return make


@pytest.fixture(scope="session")
def exported(authors_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ParityReport]:
    """The small CGN, read from its file and exported once for all tests."""
    from cgnrt_export import read_checkpoint

    path = tmp_path_factory.mktemp("plan") / "cgn.plan"
    checkpoint = read_checkpoint(authors_checkpoint)
    report = export_plan(
        path, checkpoint.mechanisms, family=checkpoint.family, sources=checkpoint.sources, batch_sizes=(1, 7)
    )
    return path, report


@pytest.fixture(scope="session")
def seamless_plan(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, CGN]:
    """A plan of a CGN whose textures pad with the opposite side, and the CGN."""
    from cgnrt_export import read_checkpoint

    folder = tmp_path_factory.mktemp("seamless")
    model = _small_cgn("circular")
    names = {name: [f"{name} {k}" for k in range(4)] for name in ("shape", "texture", "background")}
    content = {
        "format": "cgnrt-mnist-cgn",
        "format_version": 1,
        "model": model.state_dict(),
        "config": {"model": {"texture_padding": "circular"}},
        "class_names": names,
    }
    torch.save(content, folder / "cgn.pt")
    checkpoint = read_checkpoint(folder / "cgn.pt")
    export_plan(folder / "cgn.plan", checkpoint.mechanisms, family=checkpoint.family, batch_sizes=(1, 7))
    return folder / "cgn.plan", model
