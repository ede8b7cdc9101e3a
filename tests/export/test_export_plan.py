"""From modules to a verified plan, through the file and the engines."""

from __future__ import annotations

import json
import resource
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cgnrt import Plan
from cgnrt.backends import backends_for, load_engine
from cgnrt.errors import BackendError, CgnrtError
from cgnrt.plan import Mechanism
from cgnrt_export import ExportError, MechanismModule, ParityReport, export_plan, read_checkpoint, runners
from cgnrt_export.parity import AUTO_PSNR_DB, FP32_TOLERANCE
from cgnrt_training.mnist.models import CGN

Make = Callable[..., dict[str, MechanismModule]]
Exported = tuple[Path, ParityReport]


def worst_psnr(report: ParityReport, precision: str) -> float:
    """The lowest PSNR of the composite at a precision."""
    return min(m.psnr_db for m in report.composite if m.precision == precision and m.psnr_db is not None)


def test_the_manifest(exported: Exported) -> None:
    path, report = exported
    with Plan.open(path) as plan:
        manifest = plan.manifest
        assert manifest.family == "mnist-cgn"
        assert manifest.resolution == (32, 32)
        assert manifest.noise_mode == "independent"
        assert manifest.precision == report.precision
        assert manifest.parity == json.loads(json.dumps(report.to_json()))
        assert manifest.sources[0]["name"] == "ckp.pth"
        assert manifest.exported_by.startswith("cgnrt ")
        spec = manifest.mechanisms["texture"]
        assert [(tensor.name, tensor.shape) for tensor in spec.inputs] == [
            ("noise", ("n", 6)),
            ("class_embedding", ("n", 4)),
        ]
        assert [(tensor.name, tensor.shape) for tensor in spec.outputs] == [("foreground", ("n", 3, 32, 32))]
        assert (spec.range, spec.roll, manifest.mechanisms["shape"].roll) == ((-1, 1), True, False)
        # The three mechanisms share one embedding, which is stored once.
        assert len({mechanism.embedding.member for mechanism in manifest.mechanisms.values()}) == 1


@pytest.mark.parametrize("backend", ["native", "openvino", "onnxruntime"])
def test_the_plan_computes_what_the_checkpoint_computes(
    exported: Exported, small_cgn: CGN, backend: str
) -> None:
    labels, noise = torch.tensor([0, 3, 2, 1, 3]), torch.randn(5, 3, 6)
    parts = small_cgn(labels, noise=noise, shifts=torch.zeros(5, 2, 2, dtype=torch.int64))
    with Plan.open(exported[0]) as plan:
        for k, (name, mechanism) in enumerate(plan.mechanisms.items()):
            engine = load_engine(mechanism, backend=backend)
            inputs = {
                "noise": np.ascontiguousarray(noise[:, k].numpy()),
                "class_embedding": mechanism.embedding[labels.numpy()],
            }
            got = engine.run(inputs)[mechanism.spec.outputs[0].name]
            # Rounding in another order, amplified by three instance norms.
            np.testing.assert_allclose(got, parts[k].detach().numpy(), atol=FP32_TOLERANCE, err_msg=name)


@pytest.mark.parametrize("backend", ["native", "openvino", "onnxruntime", "torch"])
def test_seamless_textures_on_every_backend(seamless_plan: tuple[Path, CGN], backend: str) -> None:
    """Circular padding has no operator in ONNX's opset 18: the graph computes it, and the native engine reads that."""
    path, cgn = seamless_plan
    labels, noise = torch.tensor([0, 3, 2, 1, 3]), torch.randn(5, 3, 6)
    parts = cgn(labels, noise=noise, shifts=torch.zeros(5, 2, 2, dtype=torch.int64))
    with Plan.open(path) as plan:
        for k, name in enumerate(("texture", "background"), 1):
            mechanism = plan.mechanisms[name]
            inputs = {
                "noise": np.ascontiguousarray(noise[:, k].numpy()),
                "class_embedding": mechanism.embedding[labels.numpy()],
            }
            got = load_engine(mechanism, backend=backend).run(inputs)[mechanism.spec.outputs[0].name]
            np.testing.assert_allclose(
                np.asarray(got), parts[k].detach().numpy(), atol=FP32_TOLERANCE, err_msg=name
            )


def test_the_report(exported: Exported) -> None:
    report = exported[1]
    assert set(report.engines) == {entry.name for entry in backends_for("cpu")}
    assert report.batch_sizes == (1, 7)
    assert report.to_json()["samples"] == 8
    assert report.mechanisms["texture"].rewrites["up-samplings merged"] == 2
    assert report.mechanisms["texture"].rewrites["batch norms folded"] == 3
    for mechanism in report.mechanisms.values():
        assert mechanism.macs_after < mechanism.macs_before
        assert mechanism.torch_error_float64 is not None
    for measures in [*(m.measures for m in report.mechanisms.values()), report.composite]:
        assert {m.measured for m in measures if m.precision == "fp32"} == set(report.engines)
        assert all(m.max_abs_error <= FP32_TOLERANCE for m in measures if m.precision == "fp32")
        bf16 = [m for m in measures if m.precision == "bf16"]
        assert bf16
        assert all(1e-4 < m.max_abs_error < 1 for m in bf16), "bfloat16 rounds to three digits"
    fast = worst_psnr(report, "bf16")
    assert report.precision == ("bf16" if fast >= AUTO_PSNR_DB else "fp32")
    assert "40 dB" in report.reason


def test_the_table(exported: Exported) -> None:
    table = exported[1].table()
    for text in (
        "MMAC as trained",
        "3 batch norms folded",
        "composite",
        "PSNR dB",
        "8 samples",
        "default precision",
    ):
        assert text in table


def test_bf16_is_measured_where_it_runs_and_emulated_where_it_does_not(
    exported: Exported, monkeypatch: pytest.MonkeyPatch, authors_checkpoint: Path, tmp_path: Path
) -> None:
    monkeypatch.setattr(runners, "supports", lambda backend, precision, **_: precision == "fp32")
    mechanisms = read_checkpoint(authors_checkpoint).mechanisms
    report = export_plan(tmp_path / "a.plan", mechanisms, family="f", precision="fp16", batch_sizes=(2,))
    measured = {m.precision: m.measured for m in report.composite}
    assert measured["bf16"] == "emulated: bfloat16 layers"
    assert measured["fp16"] == "emulated: torch float16"
    assert report.precision == "fp16"
    assert report.batch_sizes == (2, 2), "every class has a sample"
    assert report.reason == f"asked for; {worst_psnr(report, 'fp16'):.1f} dB"
    # Of two exports all members have the same bytes.
    with Plan.open(tmp_path / "a.plan") as one, Plan.open(exported[0]) as other:
        assert one.manifest.members == other.manifest.members


def test_own_modules_with_truncation(own: Make, tmp_path: Path) -> None:
    class Truncated(nn.Module):
        def __init__(self, module: nn.Module) -> None:
            super().__init__()
            self.module = module

        def forward(self, noise: Tensor, class_embedding: Tensor, truncation: Tensor) -> Tensor:
            return self.module(noise / truncation, class_embedding) * truncation[:, :, None, None]

    given = own()
    mechanisms = {
        name: MechanismModule(
            Truncated(m.module), m.embedding, m.classes, m.noise_size, noise_distribution="truncated_normal"
        )
        for name, m in given.items()
    }
    path = tmp_path / "own.plan"
    path.write_bytes(b"an older one")
    limits = {"minimum": 0.1, "maximum": 1.0, "default": 0.5}
    export_plan(
        path,
        mechanisms,
        force=True,
        family="own",
        noise_mode="shared",
        truncation=limits,
        training_data="none",
        precision="fp32",
        batch_sizes=(3,),
    )
    with Plan.open(path) as plan:
        assert plan.manifest.noise_mode == "shared"
        assert plan.manifest.truncation.default == 0.5
        assert plan.manifest.precision == "fp32"
        assert [tensor.name for tensor in plan.manifest.mechanisms["shape"].inputs][-1] == "truncation"
        assert len({m.embedding.member for m in plan.manifest.mechanisms.values()}) == 3


def test_a_plan_that_differs_from_its_reference_is_not_written(own: Make, tmp_path: Path) -> None:
    path = tmp_path / "own.plan"
    path.write_bytes(b"precious")
    reference = own()["texture"].module
    with torch.no_grad():
        reference.layer.bias += 0.01
    with pytest.raises(
        ExportError,
        match=r"export '.*own\.plan': the largest fp32 error of the texture by [a-z]+ is 0\.0\d+, "
        r"expected at most 0\.0001 against torch",
    ):
        export_plan(path, own(), family="own", reference={"texture": reference}, force=True, batch_sizes=(3,))
    assert path.read_bytes() == b"precious"
    assert list(tmp_path.iterdir()) == [path]


def test_modules_that_have_no_onnx_form(own: Make, tmp_path: Path) -> None:
    class Unknown(nn.Module):
        def forward(self, noise: Tensor, class_embedding: Tensor) -> Tensor:
            return torch.special.bessel_j0(noise)[:, :, None, None].expand(-1, 3, 8, 8)

    class Branching(nn.Module):
        def forward(self, noise: Tensor, class_embedding: Tensor) -> Tensor:
            shade = 0.5 if noise.abs().sum() > 0 else 0.4
            return torch.full((noise.shape[0], 3, 8, 8), shade)

    class Counting(nn.Module):
        def forward(self, noise: Tensor, class_embedding: Tensor) -> Tensor:
            return torch.tanh(noise[:1, :, None, None]).expand(len(noise), 3, 8, 8) * 0

    with pytest.raises(
        ExportError, match=r"export mechanism 'texture': it cannot be written as ONNX.*bessel_j0"
    ):
        export_plan(tmp_path / "own.plan", own(texture=Unknown()), family="own")
    with pytest.raises(
        ExportError, match=r"mechanism 'background': torch\.export cannot trace it: .*data-dependent"
    ):
        export_plan(tmp_path / "own.plan", own(background=Branching()), family="own")
    with pytest.raises(
        ExportError, match=r"cannot trace it: .*take the batch size as x\.shape\[0\], not as len\(x\)"
    ):
        export_plan(tmp_path / "own.plan", own(shape={}, texture=Counting()), family="own")
    assert not list(tmp_path.iterdir())


def test_an_engine_that_fails(own: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(mechanism: Mechanism, **_: str) -> None:
        raise BackendError(f"load mechanism '{mechanism.name}': it is too large.")

    monkeypatch.setattr(runners, "load_engine", refuse)
    with pytest.raises(
        ExportError,
        match=r"openvino does not run it: load mechanism 'shape': it is too large\. Nothing was written\.",
    ):
        export_plan(tmp_path / "own.plan", own(), family="own", batch_sizes=(3,))
    assert not list(tmp_path.iterdir())


def test_arguments(own: Make, tmp_path: Path) -> None:
    path = tmp_path / "own.plan"
    with pytest.raises(ValueError, match="precision is 'int8', expected one of auto, fp32, bf16, fp16"):
        export_plan(path, own(), family="own", precision="int8")
    with pytest.raises(ValueError, match="noise_mode is 'common', expected 'independent' or 'shared'"):
        export_plan(path, own(), family="own", noise_mode="common")
    with pytest.raises(ValueError, match=r"reference has \['pattern'\], expected names of mechanisms"):
        export_plan(path, own(), family="own", reference={"pattern": nn.Identity()})
    assert not list(tmp_path.iterdir())


def test_an_existing_file_is_kept(own: Make, tmp_path: Path) -> None:
    path = tmp_path / "own.plan"
    path.write_bytes(b"precious")
    with pytest.raises(CgnrtError, match=r"the file exists, expected a new one\. Pass --force to replace it"):
        export_plan(path, own(), family="own")
    assert path.read_bytes() == b"precious"


def test_a_full_disk(own: Make, tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill_disk(message: str) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))

    try:
        with pytest.raises(CgnrtError, match="File too large"):
            export_plan(tmp_path / "own.plan", own(), family="own", progress=fill_disk)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.iterdir())
