"""Which layers stay in float32: on small networks in which that is plain to see, and through a plan."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from cgnrt import Plan
from cgnrt_export import MechanismModule, ParityReport, export_plan
from cgnrt_export.emulation import emulate, layers_of, round_bf16, round_int8
from cgnrt_export.inference import InferenceForm, count_macs, inference_form
from cgnrt_export.mechanism import check_mechanisms
from cgnrt_export.precision_plan import plan_precision

Make = Callable[..., dict[str, MechanismModule]]


class Delicate(nn.Module):
    """A linear layer whose result nearly cancels and is blown up again: bfloat16 leaves nothing of it.

    Two convolutions behind it do most of the work and forgive rounding.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(5, 4 * 4 * 4)
        self.wide = nn.Conv2d(4, 16, 3, padding=1)
        self.last = nn.Conv2d(16, channels, 3, padding=1)
        self.bounded = torch.sigmoid if channels == 1 else torch.tanh

    def forward(self, noise: Tensor, class_embedding: Tensor) -> Tensor:
        vector = 8 + 0.01 * torch.cat([noise, class_embedding], 1)
        x = 100 * (self.linear(vector) - self.linear(torch.full_like(vector, 8)))
        x = nn.functional.interpolate(x.unflatten(1, (4, 4, 4)), scale_factor=2, mode="bilinear")
        return self.bounded(4 * self.last(torch.relu(self.wide(x))))


def _modules() -> dict[str, nn.Module]:
    torch.manual_seed(0)
    return {"shape": Delicate(1), "texture": Delicate(3), "background": Delicate(3)}


def _forms(own: Make) -> tuple[dict, dict[str, InferenceForm]]:
    checked = check_mechanisms(own(**_modules()))
    return checked, {name: inference_form(m.module, m.example) for name, m in checked.items()}


def test_layers_and_their_work(own: Make) -> None:
    checked, forms = _forms(own)
    for name, form in forms.items():
        layers = layers_of(form.module)
        channels = 1 if name == "shape" else 3
        assert [layer.size for layer in layers.values()] == [1, 8, 8]
        # The linear layer runs twice.
        assert [layer.macs for layer in layers.values()] == [
            2 * 5 * 64,
            4 * 16 * 9 * 64,
            16 * channels * 9 * 64,
        ]
        one = [value[:1] for value in checked[name].example.values()]
        assert sum(layer.macs for layer in layers.values()) == count_macs(form.module, *one)


def test_work_of_transposed_convolutions() -> None:
    module = nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(4, 5, 3, padding=1))
    form = inference_form(module, {"x": torch.randn(3, 4, 6, 7)})
    (layer,) = layers_of(form.module).values()
    assert layer.macs == form.macs_after == 4 * 5 * 16 * 6 * 7


def test_emulated_layers_round_their_operands() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.ConvTranspose2d(4, 2, 4, stride=2))
    x = torch.randn(3, 3, 8, 8)
    form = inference_form(module, {"x": x})
    first, second = layers_of(form.module)
    before = {name: value.clone() for name, value in form.module.state_dict().items()}
    with torch.no_grad():
        got = emulate(form.module, {first: "bf16"})(x)
        conv, _, transposed = module
        expected = transposed(
            torch.relu(nn.functional.conv2d(round_bf16(x), round_bf16(conv.weight), conv.bias))
        )
        torch.testing.assert_close(got, expected, atol=1e-6, rtol=1e-6)
        assert (got - module(x)).abs().max() > 1e-4
        middle = torch.relu(conv(x))
        got = emulate(form.module, {second: "int8"})(x)
        scale = transposed.weight.abs().amax((0, 2, 3)) / 127
        steps = (transposed.weight / scale[None, :, None, None]).round()
        activation = middle.abs().max() / 127
        expected = nn.functional.conv_transpose2d(
            (middle / activation).round() * activation,
            steps * scale[None, :, None, None],
            transposed.bias,
            stride=2,
        )
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)
        assert torch.equal(emulate(form.module, {})(x), form.module(x))
    assert all(torch.equal(before[name], value) for name, value in form.module.state_dict().items())
    with pytest.raises(ValueError, match=r"layers are \['other'\], expected weights of layers"):
        emulate(form.module, {"other": "bf16"})


def test_int8_of_zeros() -> None:
    assert torch.equal(round_int8(torch.zeros(3)), torch.zeros(3))


def test_the_delicate_layer_stays(own: Make) -> None:
    checked, forms = _forms(own)
    plan = plan_precision(checked, forms, min_psnr=45, seed=0)
    for name, form in forms.items():
        linear = next(iter(layers_of(form.module)))
        assert plan.fp32_layers[name] == (linear,)
    assert set(plan.fp32_groups) == {"shape vectors", "texture vectors", "background vectors"}
    assert plan.psnr_db is not None
    assert plan.psnr_db >= 45
    assert plan.bf16_share > 0.9
    shares = [point.bf16_share for point in plan.frontier]
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (0, 1)
    assert plan.frontier[0].psnr_db is None
    assert plan.frontier[-1].psnr_db is not None
    assert plan.frontier[-1].psnr_db < 45
    # Eight bits are worse than bfloat16's eight with an exponent of their own for each number.
    assert plan.int8_psnr_db is not None
    assert plan.int8_psnr_db < plan.psnr_db


def test_the_floor_decides(own: Make) -> None:
    checked, forms = _forms(own)
    strict = plan_precision(checked, forms, min_psnr=200, seed=0)
    assert strict.bf16_share == 0
    assert strict.psnr_db is None
    assert strict.fp32_layers == {name: tuple(layers_of(form.module)) for name, form in forms.items()}
    lax = plan_precision(checked, forms, min_psnr=1, seed=0)
    assert lax.bf16_share == 1
    assert not any(lax.fp32_layers.values())
    assert lax.fp32_groups == ()
    assert "in fp32: none" in "\n".join(lax.lines())


def test_the_plan_keeps_it(own: Make, tmp_path: Path) -> None:
    path = tmp_path / "own.plan"
    report = export_plan(path, own(**_modules()), family="own", batch_sizes=(3,), min_psnr=45)
    assert report.precision_plan is not None
    with Plan.open(path) as plan:
        stored = plan.manifest.parity["precision_plan"]
        assert stored == json.loads(json.dumps(report.to_json()))["precision_plan"]
        for name, mechanism in plan.mechanisms.items():
            (layer,) = stored["fp32_layers"][name]
            # The name by which the graph's layer finds its weight.
            assert layer.encode() in bytes(mechanism.graph)
    assert "of the multiply-adds in bf16 keep" in report.table()
    assert "in fp32: shape vectors, texture vectors, background vectors" in report.table()


def test_without_a_floor_there_is_no_plan(exported: tuple[Path, ParityReport]) -> None:
    assert exported[1].precision_plan is None
    assert "precision_plan" not in exported[1].to_json()


@pytest.mark.parametrize("floor", [0, -3, float("nan"), float("inf")])
def test_a_floor_that_is_none(own: Make, tmp_path: Path, floor: float) -> None:
    with pytest.raises(ValueError, match=r"min_psnr is .*, expected decibels above 0, such as 35"):
        export_plan(tmp_path / "own.plan", own(), family="own", min_psnr=floor)
