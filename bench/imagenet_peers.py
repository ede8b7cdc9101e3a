"""What a user would pick instead of cgnrt for an ImageNet CGN: PyTorch, and engine libraries on graphs as exported."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cgnrt_export.graph import trace
from cgnrt_export.onnx_writer import write_onnx
from cgnrt_export.rewrites.constants import fold_constants
from cgnrt_training.imagenet.biggan import BigGAN
from cgnrt_training.imagenet.cgn import CGN, MASK_RANGE
from cgnrt_training.imagenet.checkpoints import load_cgn

TRUNCATION = 0.5
INPUTS = ("noise", "class_embedding", "truncation")


def reference_biggan(model: BigGAN) -> nn.Module:
    """pytorch-pretrained-biggan's module with the same weights."""
    from pytorch_pretrained_biggan import BigGAN as ReferenceBigGAN
    from pytorch_pretrained_biggan import BigGANConfig as ReferenceConfig

    config = model.config
    reference = ReferenceBigGAN(
        ReferenceConfig(
            output_dim=config.resolution,
            z_dim=config.z_dim,
            class_embed_dim=config.z_dim,
            channel_width=config.channel_width,
            num_classes=config.num_classes,
            layers=[list(block) for block in config.blocks],
            attention_layer_position=config.attention,
            eps=config.eps,
            n_stats=config.n_stats,
        )
    )
    reference.load_state_dict(model.state_dict())
    return reference.eval()


class Peers:
    """`reference` and `needed` are (a) and (b) of bench/imagenet.py; `optional` has the torch peers of (c).

    Args:
      compiled: make them.
    """

    def __init__(self, cgn: CGN, *, compiled: bool = False) -> None:
        models = (cgn.f_shape, cgn.f_text, cgn.f_bg)
        self._generators: list[Any] = [reference_biggan(model) for model in models]
        self._u2net = cgn.u2net
        self._sizes = cgn.f_shape.config.z_dim, cgn.f_shape.config.num_classes
        self._random = torch.Generator().manual_seed(0)
        self.optional: dict[str, Callable[[int], object]] = {}
        if compiled:
            modules = [torch.compile(module) for module in self._generators]
            head = torch.compile(self._u2net)
            self.optional["torch.compile fp32"] = lambda n: self._draw(n, modules, head)

    def reference(self, n: int) -> Tensor:
        """With the unconstrained BigGAN and the background's saliency, as the authors' forward has them."""
        noise, labels = self._inputs(n)
        with torch.no_grad():
            self._generators[0](noise, labels[0], TRUNCATION)
            image, background = self._compose(noise, labels, self._generators, self._u2net)
            self._u2net(background)
        return image

    def needed(self, n: int) -> Tensor:
        return self._draw(n, self._generators, self._u2net)

    def _draw(self, n: int, modules: Sequence[Any], head: Any) -> Tensor:
        noise, labels = self._inputs(n)
        with torch.no_grad():
            return self._compose(noise, labels, modules, head)[0]

    def _inputs(self, n: int) -> tuple[Tensor, Tensor]:
        """Truncated noise (n, z), and one-hot labels (3, n, classes)."""
        size, classes = self._sizes
        noise = torch.empty(n, size)
        nn.init.trunc_normal_(noise, a=-2, b=2, generator=self._random)
        labels = torch.randint(classes, (3, n), generator=self._random)
        return noise * TRUNCATION, nn.functional.one_hot(labels, classes).float()

    @staticmethod
    def _compose(noise: Tensor, labels: Tensor, modules: Sequence[Any], head: Any) -> tuple[Tensor, Tensor]:
        pre_mask, foreground, background = (
            module(noise, label, TRUNCATION) for module, label in zip(modules, labels, strict=True)
        )
        mask = head(pre_mask).clamp(*MASK_RANGE)
        return mask * foreground + (1 - mask) * background, background


def as_exported(cgn: CGN) -> dict[str, Callable[[int], object]]:
    """ONNX Runtime and OpenVINO on graphs without rewrites, all cores, fp32."""
    import onnxruntime
    import openvino

    names = {"shape": ["mask", "pre_mask"], "texture": ["foreground"], "background": ["background"]}
    example = {
        "noise": torch.zeros(3, 128),
        "class_embedding": torch.zeros(3, 128),
        "truncation": torch.full((3, 1), 0.5),
    }
    sessions, requests = [], []
    core = openvino.Core()
    modules = cgn.mechanisms()
    for name in ("shape", "texture"):  # the background's graph is the texture's with other numbers
        module = modules[name]
        traced = trace(module, example)
        fold_constants(traced)
        with tempfile.TemporaryDirectory() as folder:
            onnx = write_onnx(traced, example, names[name], weights_name="weights")
            path = Path(folder) / "graph.onnx"
            path.write_bytes(onnx.graph)
            (Path(folder) / "weights").write_bytes(onnx.weights or b"")
            sessions.append(onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]))
            compiled = core.compile_model(core.read_model(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
            requests.append(compiled.create_infer_request())
    sessions.append(sessions[1])
    requests.append(requests[1])
    random = np.random.default_rng(0)

    def inputs(n: int) -> list[dict[str, np.ndarray]]:
        noise = random.standard_normal((n, 128)).clip(-2, 2).astype(np.float32) * TRUNCATION
        tables = (cgn.f_shape, cgn.f_text, cgn.f_bg)
        return [
            {
                "noise": noise,
                "class_embedding": table.embedding_table.detach()[random.integers(1000, size=n)].numpy(),
                "truncation": np.full((n, 1), TRUNCATION, np.float32),
            }
            for table in tables
        ]

    def blend(mask: np.ndarray, foreground: np.ndarray, background: np.ndarray) -> np.ndarray:
        return mask * foreground + (1 - mask) * background

    def run_onnxruntime(n: int) -> object:
        pairs = zip(sessions, inputs(n), strict=True)
        return blend(*(session.run(None, given)[0] for session, given in pairs))

    def run_openvino(n: int) -> object:
        pictures = []
        for request, given in zip(requests, inputs(n), strict=True):
            request.infer(given, share_inputs=True)
            pictures.append(request.get_output_tensor(0).data.copy())
        return blend(*pictures)

    return {"ONNX Runtime as exported fp32": run_onnxruntime, "OpenVINO as exported fp32": run_openvino}


def composite(cgn: CGN, labels: Sequence[np.ndarray], noise: Sequence[Tensor], truncation: float) -> Tensor:
    """The counterfactuals that the torch modules draw for these labels and this noise (before truncation)."""
    indices = [torch.from_numpy(label) for label in labels]
    with torch.no_grad():
        parts = cgn(
            *indices,
            noise=torch.stack([u * truncation for u in noise], dim=1),
            truncation=torch.full((len(noise[0]), 1), truncation),
        )
        return parts.mask * parts.foreground + (1 - parts.mask) * parts.background


def first_image(checkpoint: str) -> None:
    """Load a CGN as a PyTorch user does, and draw one image with what is needed for it."""
    cgn = load_cgn(checkpoint).eval()
    zeros = torch.zeros(1, dtype=torch.int64)
    with torch.no_grad():
        cgn(zeros, zeros, zeros, noise=torch.zeros(1, 128), truncation=torch.full((1, 1), TRUNCATION))
