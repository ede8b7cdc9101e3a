"""What `cgnrt inspect` prints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cgnrt.cli.inspect import describe, to_json
from cgnrt.plan import Plan


def test_describe_names_everything(golden_plan: Path) -> None:
    with Plan.open(golden_plan) as plan:
        text = describe(plan)
        for expected in [
            plan.digest,
            "golden",
            "8 x 8 px",
            "independent",
            "fp32",
            "cgnrt 0.1.0",
            "make_golden.py (SHA-256 0000000000000000...)",
            "shape  (graph 466 B, weights 2048 B)",
            "noise (n, 4) float32, class_embedding (n, 3) float32",
            "foreground (n, 3, 8, 8) float32",
            "-1 .. 1, rolled at random on a torus",
            "4 x normal",
            "3: disc, square, cross",
            "fp32.mask: max_abs 0",
            "members (10, 20.0 kB)",
            "mechanisms/background.embedding",
        ]:
            assert expected in text


def test_json_is_json(golden_plan: Path) -> None:
    with Plan.open(golden_plan) as plan:
        value = json.loads(json.dumps(to_json(plan)))
        assert value["digest"] == plan.digest
        assert value["manifest"] == plan.manifest.to_dict()
        assert value["size"] == 19999
        assert value["weights"]["shape"] == [
            {"name": "weight", "dtype": "float32", "shape": [64, 7], "bytes": 1792, "stored": "float32"},
            {"name": "bias", "dtype": "float32", "shape": [64], "bytes": 256, "stored": "float32"},
        ]


def test_long_things_are_cut(parts: Any) -> None:
    classes = [f"class number {index}" for index in range(1000)]
    shape = parts.manifest["mechanisms"]["shape"]
    shape["classes"] = classes
    shape["embedding"]["shape"] = [1000, 3]
    parts.members["mechanisms/shape.embedding"] = bytes(12000)
    parts.manifest["training_data"] = "MNIST"
    parts.manifest["truncation"] = {"minimum": 0.02, "maximum": 1, "default": 0.5}
    parts.manifest["parity"] = {
        "composite": [{"precision": "bf16", "psnr_db": 55.123456, "max": None}],
        "batches": [1, 2],
        "mechanisms": {
            "shape": {
                "measures": [
                    {"precision": "fp32", "measured": "native", "max_abs_error": 1e-6, "psnr_db": 120.5}
                ]
            }
        },
        "many": {f"k{index}": {"x": index} for index in range(60)},
    }
    with Plan.open(parts.save()) as plan:
        lines = describe(plan).splitlines()
    text = "\n".join(lines)
    assert "1000: class number 0, class number 1" in text
    assert "and 990 more" in text
    assert "0.02 .. 1, default 0.5" in text
    assert "  composite: precision bf16, psnr_db 55.12, max -" in lines
    assert "  batches: 1, 2" in lines
    assert "  shape: fp32 by native, max error 1e-06, PSNR 120.5 dB" in lines
    assert "... (the whole report: --json)" in text
    assert max(map(len, lines)) < 160
    assert len(lines) < 80


def test_an_empty_report(parts: Any) -> None:
    parts.manifest["parity"] = {}
    with Plan.open(parts.save()) as plan:
        assert "  not measured" in describe(plan).splitlines()
