"""Makes a small ImageNet-like plan, as cgnrt-export writes its mechanisms, and what torch makes of its inputs.

    python tests/runtime/golden/make_small_cgn.py OUTPUT.plan OUTPUT.npz

Every kind of layer at few channels and 8 px: BigGAN's blocks with and without up-sampling, self-attention, a small
U-Net as the shape mechanism's head. Tracing and conversion take a minute, and tests a second. Make it again when the
inference form changes.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import torch
from torch import nn

from cgnrt.plan import write_plan
from cgnrt_export.inference import inference_form
from cgnrt_export.onnx_writer import write_onnx
from cgnrt_training.imagenet.biggan import BigGAN, BigGANConfig
from cgnrt_training.imagenet.calibrate import random_biggan
from cgnrt_training.imagenet.cgn import PictureMechanism, ShapeMechanism
from cgnrt_training.imagenet.u2net import FULL, ResidualU, Stage

SIZE, CLASSES, NOISE, SEED = 8, 3, 6, 0


class Head(nn.Module):
    """One of the small U-Nets that U2-Net is made of, and its last layers."""

    def __init__(self) -> None:
        super().__init__()
        self.stage = ResidualU(4, 3, Stage(8, 16), dilated=False, config=FULL)
        self.side = nn.Conv2d(16, 1, 3, padding=1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(self.side(self.stage(image)))


def make_biggan() -> BigGAN:
    """Blocks that drop channels, one of which doubles the size, and attention."""
    blocks = ((False, 16, 8), (True, 8, 4), (False, 4, 2), (False, 2, 1))
    config = BigGANConfig(
        blocks=blocks, channel_width=4, z_dim=NOISE, num_classes=CLASSES, attention=2, n_stats=11
    )
    return random_biggan(config, torch.Generator().manual_seed(SEED))


def make_modules(biggan: BigGAN) -> dict[str, nn.Module]:
    torch.manual_seed(SEED)
    head: Any = Head()
    for module in head.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.2)
            module.running_var.uniform_(0.5, 2)
    head.side.weight.data *= 10
    picture = PictureMechanism(biggan).eval()
    return {"shape": ShapeMechanism(biggan, head).eval(), "texture": picture, "background": picture}


def inputs_of(n: int) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(n)
    # On the grid of statistics, between two of its rows, and at its end.
    truncation = torch.tensor([[0.5], [0.37], [1.0]])[:n]
    noise = torch.randn(n, NOISE, generator=draw).clamp(-2, 2) * truncation
    return {
        "noise": noise,
        "class_embedding": torch.randn(n, NOISE, generator=draw),
        "truncation": truncation,
    }


def make_plan(path: str, modules: dict[str, nn.Module], biggan: BigGAN) -> None:
    names = {"shape": ["mask", "pre_mask"], "texture": ["foreground"], "background": ["background"]}
    members: dict[str, bytes] = {
        "mechanisms/all.embedding": biggan.embedding_table.detach().numpy().tobytes()
    }
    mechanisms = {}
    example = inputs_of(2)
    forms = {kind: inference_form(modules[kind], example) for kind in ("shape", "texture")}
    for name, outputs in names.items():
        form = forms["shape" if name == "shape" else "texture"]
        made = write_onnx(form.module, example, outputs, weights_name=f"{name}.weights")
        members |= {f"mechanisms/{name}.onnx": made.graph, f"mechanisms/{name}.weights": made.weights or b""}
        mechanisms[name] = {
            "graph": f"mechanisms/{name}.onnx",
            "weights": f"mechanisms/{name}.weights",
            "embedding": {"member": "mechanisms/all.embedding", "shape": [CLASSES, NOISE]},
            "classes": [str(k) for k in range(CLASSES)],
            "noise": {"size": NOISE, "distribution": "truncated_normal"},
            "inputs": [
                {"name": key, "shape": ["n", value.shape[1]], "dtype": "float32"}
                for key, value in example.items()
            ],
            "outputs": [
                {
                    "name": output,
                    "shape": ["n", 1 if output == "mask" else 3, SIZE, SIZE],
                    "dtype": "float32",
                }
                for output in outputs
            ],
            "range": [0, 1] if name == "shape" else [-1, 1],
            "roll": False,
        }
    manifest = {
        "format_version": 1,
        "stream_version": 1,
        "family": "small-cgn",
        "exported_by": "cgnrt 0.1.0",
        "resolution": [SIZE, SIZE],
        "noise_mode": "shared",
        "truncation": {"minimum": 0.02, "maximum": 1.0, "default": 0.5},
        "precision": "fp32",
        "mechanisms": mechanisms,
        "sources": [],
        "training_data": None,
        "parity": {"fp32": {"mask": {"max_abs": 0.0}}},
    }
    write_plan(path, manifest, members)


def main(plan: str, pictures: str) -> None:
    biggan = make_biggan()
    modules = make_modules(biggan)
    make_plan(plan, modules, biggan)
    inputs = inputs_of(3)
    with torch.no_grad():
        mask, pre_mask = modules["shape"](*inputs.values())
        foreground = modules["texture"](*inputs.values())
    outputs = {"mask": mask, "pre_mask": pre_mask, "foreground": foreground, "background": foreground}
    arrays: dict[str, Any] = {name: value.numpy() for name, value in {**inputs, **outputs}.items()}
    np.savez(pictures, **arrays)


if __name__ == "__main__":
    main(*sys.argv[1:])
