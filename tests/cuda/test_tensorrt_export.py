"""`cgnrt-export --tensorrt`: engines into a plan, with stand-ins for the card; what they compute is the typed graph."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from cgnrt import BackendError, CgnrtError, cuda
from cgnrt.backends.tensorrt import library as packages
from cgnrt.backends.tensorrt.ready import list_ready
from cgnrt.backends.typed import typed_graph
from cgnrt.plan import MECHANISMS, Mechanism, Plan
from cgnrt_export import ExportError, add_engines, tensorrt_engines
from cgnrt_export.cli import main

from .tensorrt_fakes import FakeApi, FakeCuda, FakeStream

PLAN = Path(__file__).parents[2] / "plans" / "colored.plan"
IMAGENET_LIKE = Path(__file__).parents[2] / "tests" / "runtime" / "golden" / "small_cgn.plan"


class Card:
    """A card whose engines compute what the float16 graphs do, plus `noise`."""

    def __init__(self) -> None:
        self.noise = 0.0
        self.built: list[tuple[str, str, str]] = []
        self._mechanisms: dict[str, Mechanism] = {}

    def build(self, mechanism: Mechanism, precision: str, batches: Any, *rest: Any, **named: Any) -> bytes:
        self.built.append((mechanism.name, precision, str(batches)))
        self._mechanisms[mechanism.name] = mechanism
        inputs, outputs = (
            ",".join(s.name for s in of) for of in (mechanism.spec.inputs, mechanism.spec.outputs)
        )
        return f"{mechanism.name}:{inputs}:{outputs}:{batches}".encode()

    def compute(self, name: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        mechanism = self._mechanisms[name]
        graph, weights = typed_graph(mechanism, "fp16")
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        if weights is not None:
            location = str(mechanism.spec.weights).rpartition("/")[2]
            buffer = np.frombuffer(weights, np.uint8)
            options.add_external_initializers_from_files_in_memory([location], [buffer], [buffer.nbytes])
        session = onnxruntime.InferenceSession(graph, options)
        names = [spec.name for spec in mechanism.spec.outputs]
        made = session.run(names, dict(inputs))
        return {name: values + np.float32(self.noise) for name, values in zip(names, made, strict=True)}


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Card:
    made = Card()
    fake = FakeCuda()
    real = packages.load()
    api = FakeApi(real, made.compute, FakeStream())
    monkeypatch.setenv("CGNRT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(cuda, "refusal", lambda index=0: None)
    monkeypatch.setattr(cuda, "info", lambda: {"emulated": False})
    monkeypatch.setattr(cuda, "module", lambda: fake)
    monkeypatch.setattr(packages, "load", lambda: replace(real, name="tensorrt", version="11.4.1.2", api=api))
    monkeypatch.setattr(tensorrt_engines, "build_engine", made.build)
    return made


@pytest.mark.parametrize("source", [PLAN, IMAGENET_LIKE], ids=lambda path: path.stem)
def test_a_plan_gets_engines_and_what_they_cost(source: Path, card: Card, tmp_path: Path) -> None:
    output = tmp_path / "engines.plan"
    report = add_engines(source, output, precision="fp16", batches=(1, 4, 40), seed=3)
    assert card.built == [(name, "fp16", "1,4,40") for name in MECHANISMS]
    assert report.samples == 33
    assert all((m["psnr_db"] or 100) > 60 for m in report.measures.values())
    assert list(report.measures) == [*MECHANISMS, "composite"]
    with Plan.open(source) as before, Plan.open(output) as plan:
        (ready,) = list_ready(plan)
        assert ready.parity == json.loads(json.dumps(report.parity()))
        assert bytes(plan.member(ready.member("shape"))).startswith(b"shape:noise,class_embedding")
        # Nothing else changed.
        names = set(before.members)
        assert set(plan.members) - names == {ready.member(n) for n in MECHANISMS} | {
            f"{ready.folder}/engines.json"
        }
        assert all(before.manifest.members[name] == plan.manifest.members[name] for name in names)
        assert before.manifest.parity == plan.manifest.parity
    assert "fp16 engines for batches of 1,4,40: tensorrt 11.4.1.2 on NVIDIA H100" in report.table()
    assert report.to_json()["target"]["architecture"] == "sm_90"


def test_engines_of_others_stay_and_its_own_are_replaced(card: Card, tmp_path: Path) -> None:
    plan = tmp_path / "cgn.plan"
    shutil.copy(PLAN, plan)
    add_engines(plan, plan, precision="fp16", batches=[2], force=True)
    add_engines(plan, plan, precision="fp32", batches=[2], force=True)
    add_engines(plan, plan, precision="fp16", batches=[4], force=True)
    with Plan.open(plan) as opened:
        assert sorted((r.precision, r.batches.maximum) for r in list_ready(opened)) == [
            ("fp16", 4),
            ("fp32", 2),
        ]
    assert [path.name for path in tmp_path.glob("*.plan*")] == ["cgn.plan"]


def test_the_precision_is_the_plan_s(card: Card, tmp_path: Path) -> None:
    add_engines(PLAN, tmp_path / "engines.plan", batches=[2])
    assert {precision for _, precision, _ in card.built} == {"bf16"}


@pytest.mark.parametrize(
    ("noise", "words"),
    [
        (0.1, r"PSNR of the composite in fp16 is \d\d\.\d dB against float32, expected at least 30"),
        (np.nan, "pictures have values that are not finite, expected numbers.*Choose bf16 or fp32"),
    ],
)
def test_engines_that_draw_something_else_are_not_stored(
    noise: float, words: str, card: Card, tmp_path: Path
) -> None:
    card.noise = noise
    with pytest.raises(ExportError, match=words):
        add_engines(PLAN, tmp_path / "engines.plan", precision="fp16", batches=[2])
    assert list(tmp_path.glob("*plan*")) == []


def test_a_name_that_is_taken_is_refused_before_the_work(card: Card, tmp_path: Path) -> None:
    output = tmp_path / "engines.plan"
    output.write_text("something")
    with pytest.raises(CgnrtError, match="the file exists"):
        add_engines(PLAN, output, precision="fp16")
    with pytest.raises(ValueError, match="expected one to three sizes"):
        add_engines(PLAN, tmp_path / "new.plan", batches=[4, 1])
    assert card.built == []


def test_without_a_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "refusal", lambda index=0: f"there is no cuda:{index}, only cuda:0")
    words = "build engines: device is cuda:1, expected one for TensorRT: there is no cuda:1, only cuda:0."
    with pytest.raises(BackendError, match=words):
        add_engines(PLAN, tmp_path / "engines.plan", device="cuda:1")
    with pytest.raises(
        BackendError, match="device is cpu, expected one for TensorRT: it runs on CUDA devices"
    ):
        add_engines(PLAN, tmp_path / "engines.plan", device="cpu")


# The command.


def test_the_command(card: Card, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "engines.plan"
    line = [str(PLAN), "-o", str(output), "--tensorrt", "--precision", "fp16", "--batch", "1,4"]
    assert main([*line, "--json"]) == 0
    shown, said = capsys.readouterr()
    result = json.loads(shown)
    assert (result["plan"], result["size"]) == (str(output), output.stat().st_size)
    assert result["engines"]["batches"] == [1, 4, 4]
    assert "build the fp16 engine of background" in said
    assert main(line) == 1
    assert "the file exists" in capsys.readouterr().err
    assert main([*line, "--force"]) == 0
    assert f"wrote {output}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "it is a plan already, expected a checkpoint. Pass --tensorrt to add engines"),
        (["--batch", "1,2"], "--batch is given, expected it with --tensorrt alone."),
        (["--device", "cuda:0"], "--device is given, expected it with --tensorrt alone."),
        (["--tensorrt", "--min-psnr", "35"], "--min-psnr is given, expected it for checkpoints alone."),
        (["--tensorrt", "--device", "tpu"], "device is 'tpu', expected"),
        (["--tensorrt", "--batch", "3,2,1"], "batch is [3, 2, 1], expected one to three sizes"),
    ],
)
def test_what_does_not_go_together_is_one_line(
    options: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(PLAN), "-o", str(tmp_path / "x.plan"), *options]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line
    assert list(tmp_path.iterdir()) == []


def test_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([str(PLAN), "-o", str(tmp_path / "x.plan"), "--tensorrt", "--batch", "many"])
    assert stop.value.code == 2
    assert "batch is 'many', expected numbers such as 1,32,128" in capsys.readouterr().err


def test_a_machine_without_a_gpu_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuda, "info", lambda: {"driver": None, "runtime": "13.0", "devices": 0})
    assert main([str(PLAN), "-o", str(tmp_path / "x.plan"), "--tensorrt"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(
        "cgnrt-export: build engines: device is cuda:0, expected one for TensorRT: no NVIDIA driver"
    )
