"""All rewrites together on small ImageNet CGNs, in float64, and what they save at full size."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import fx

from cgnrt_export.inference import InferenceForm, inference_form
from cgnrt_training.imagenet.biggan import BigGAN, BigGANConfig
from cgnrt_training.imagenet.cgn import PictureMechanism, ShapeMechanism
from cgnrt_training.imagenet.u2net import FULL, U2Net

Calls = Callable[[fx.GraphModule], list[str]]

# A few thousand sums behind one another, in a network that amplifies rounding; float32 would be off by 1e-5.
TOLERANCE = 1e-9


def _small_biggan() -> BigGAN:
    """Every kind of block and attention at few channels, with statistics and factors that do something."""
    torch.manual_seed(0)
    # Two up-samplings: 16 px.
    blocks = ((False, 16, 8), (True, 8, 4), (False, 4, 2), (True, 2, 1))
    config = BigGANConfig(blocks=blocks, channel_width=4, z_dim=5, num_classes=3, attention=1)
    model = BigGAN(config)
    for name, value in (*model.named_parameters(), *model.named_buffers()):
        if name.endswith("running_vars"):
            value.data.uniform_(0.5, 2)
        elif name.endswith("running_means") or (name.endswith("bias") and value.dim() == 1):
            value.data.normal_(std=0.2)
        elif name.endswith("gamma"):
            value.data.fill_(0.7)
        elif name.endswith("weight_orig") and value.dim() == 4:
            # A few power iterations: the norm by which the weight is divided is then a real one.
            module = model.get_submodule(name.rpartition(".")[0])
            for _ in range(5):
                module.train().weight()
    return model.double().eval()


def _inputs() -> dict[str, torch.Tensor]:
    # On the grid of statistics, on it but at a neighbouring row, between, and at the upper end.
    truncation = torch.tensor([[0.5], [0.14], [0.37], [1.0]])
    return {
        "noise": (torch.randn(4, 5).clamp(-2, 2) * truncation).double(),
        "class_embedding": torch.randn(4, 5).double(),
        "truncation": truncation.double(),
    }


def _form(module: torch.nn.Module, inputs: dict[str, torch.Tensor]) -> InferenceForm:
    form = inference_form(module, inputs)
    for n in (1, 4):
        given = [value[:n] for value in inputs.values()]
        with torch.no_grad():
            torch.testing.assert_close(form.module(*given), module(*given), atol=TOLERANCE, rtol=TOLERANCE)
    return form


def test_biggan(calls: Calls) -> None:
    biggan = _small_biggan()
    form = _form(PictureMechanism(biggan).eval(), _inputs())
    names = calls(form.module)
    # Spectral norm is gone, one linear layer and two look-ups are left, and one chain of arithmetic.
    assert names.count("linear") == 1
    assert names.count("embedding") == 2
    assert not {"mv", "dot", "ones_like"} & set(names)
    assert names.count("rsqrt") == 1
    norms = 4 * 4 + 1
    assert names.count("slice") <= 2 * norms + 10
    assert names.count("conv_transpose2d") == 2
    assert form.rewrites["convolutions cut to the channels read"] == 1
    assert form.rewrites["linear layers merged"] == 1 + 2 * 16
    assert form.rewrites["look-ups merged"] == 4 * norms
    assert form.rewrites["factors folded"] == 1
    assert form.macs_after < form.macs_before


def test_u2net_behind_biggan(calls: Calls) -> None:
    torch.manual_seed(1)
    biggan = _small_biggan()
    u2net = U2Net(FULL.narrowed(1 / 16)).double().eval()
    for name, value in u2net.named_buffers():
        if name.endswith("running_var"):
            value.uniform_(0.5, 2)
        elif name.endswith("running_mean"):
            value.normal_(std=0.2)
    form = _form(ShapeMechanism(biggan, u2net).eval(), _inputs())
    names = calls(form.module)
    assert "batch_norm" not in names
    assert form.rewrites["batch norms folded"] == 112
    assert form.rewrites["1x1 convolutions folded"] == 6
    # 112 of U2-Net and its six side outputs; the fusing one is folded into these.
    assert sum(name == "conv2d" for name in names) == 118 + _convolutions(biggan) - 2
    assert form.macs_after < form.macs_before


def _convolutions(biggan: BigGAN) -> int:
    return sum(name.endswith("weight_orig") and value.dim() == 4 for name, value in biggan.named_parameters())
