"""Read and write the weight files of the ImageNet CGN as their users have them.

Five kinds: the folder of a BigGAN-deep (`config.json`, `pytorch_model.bin`), or its weights alone; a U2-Net
(`u2net.pth`, `u2netp.pth`, or with batch norms folded into the convolutions); the small network in its place that
`cgnrt-train saliency` makes; and the authors' `cgn.pth`. Every key and shape is checked, and nothing in a file is run.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from cgnrt.errors import CheckpointError

from ..checkpoints import check_format, has_memory, load_state, load_weights, save
from ..saliency.files import LABEL, build_saliency, has_saliency, is_saliency, network_of
from .biggan import BLOCKS, BigGAN, BigGANConfig
from .cgn import CGN, Head
from .config_json import WEIGHTS, parse_config, read_config, write_config
from .u2net import U2Net
from .u2net_files import infer_u2net, is_folded_names, official_names

Kind = Literal["imagenet-cgn", "biggan", "u2net", "saliency"]
U2NetKind = Literal["u2net", "u2netp"]

CGAN_FORMAT, CGAN_VERSION = "cgnrt-cgan", 1  # of `cgan.pt`, which `cgnrt-train cgan` leaves

_MECHANISMS = ("f_shape", "f_text", "f_bg")
_MARKS: Mapping[Kind, tuple[str, ...]] = {
    "imagenet-cgn": tuple(f"{name}.generator." for name in _MECHANISMS),
    "biggan": ("generator.", "embeddings.weight"),
    "u2net": ("stage1.", "stage6.", "side1."),
}
_NAMES: Mapping[U2NetKind, str] = {"u2net": "U2-Net", "u2netp": "U2-Net-p"}


def identify(content: Any) -> Kind | None:
    """What kind of file `content` is from, by its keys; None if it is another file.

    Here and below, `content` is what `load_weights` gives: without wrappers.
    """
    if not isinstance(content, Mapping):
        return None
    if is_saliency(content):
        return "saliency"
    if content.get("format") == CGAN_FORMAT:
        return "biggan"
    keys = [key for key in content if isinstance(key, str)]
    for kind, marks in _MARKS.items():
        if any(key.startswith(marks) for key in keys):
            return kind
    return "u2net" if is_folded_names(keys) else None


def load_biggan(path: str | os.PathLike[str], *, resolution: int | None = None) -> BigGAN:
    """Load a BigGAN-deep: Hugging Face's folder, a file of its weights alone, or `cgan.pt` of `cgnrt-train cgan`.

    Args:
      resolution: refuse another than this.
    Raises:
      CheckpointError: a file is missing, damaged or of another model, a key is missing, unknown or of another shape,
        or `config.json` and weights, or `resolution`, disagree.
    """
    path = Path(path)
    config = read_config(path) if path.is_dir() else None
    file = path / WEIGHTS if path.is_dir() else path
    return build_biggan(load_weights(file), os.fspath(file), config=config, resolution=resolution)


def load_u2net(
    path: str | os.PathLike[str], *, kind: U2NetKind | None = None, align_corners: bool = False
) -> U2Net:
    """Load a U2-Net or U2-Net-p, with batch norms or with these folded into the convolutions.

    Args:
      kind: refuse another than this.
      align_corners: see `U2NetConfig`; the CGN's is True.
    Raises:
      CheckpointError: as `load_biggan`.
    """
    return build_u2net(load_weights(path), os.fspath(path), kind=kind, align_corners=align_corners)


def load_head(path: str | os.PathLike[str], *, kind: U2NetKind | None = None) -> Head:
    """Load the head of a shape mechanism: a U2-Net as the CGN has it, or what `cgnrt-train saliency` made.

    Args:
      kind: of U2-Nets, refuse another than this. The small network takes the place of the larger one.
    Raises:
      CheckpointError: as `load_biggan`.
    """
    content, subject = load_weights(path), os.fspath(path)
    if kind != "u2netp" and is_saliency(content):
        return build_saliency(content, subject)
    return build_u2net(content, subject, kind=kind, align_corners=True)


def load_cgn(
    path: str | os.PathLike[str],
    *,
    resolution: int | None = None,
    u2net: Head | None = None,
    training_parts: bool = False,
) -> CGN:
    """Load the authors' `cgn.pth`: one state dict, whose resolution its shapes tell.

    Args:
      resolution: refuse another than this.
      u2net: what to take for a head if the file has none.
      training_parts: keep the unconstrained BigGAN, if the file has it.
    Raises:
      CheckpointError: as `load_biggan`.
    """
    return build_cgn(
        load_weights(path),
        os.fspath(path),
        resolution=resolution,
        u2net=u2net,
        training_parts=training_parts,
    )


def build_biggan(
    content: Any, subject: str, *, config: BigGANConfig | None = None, resolution: int | None = None
) -> BigGAN:
    """As `load_biggan`, from what was in the file `subject`; `config` is what its folder says."""
    if config is None and isinstance(content, Mapping) and "format" in content:
        check_format(content, CGAN_FORMAT, CGAN_VERSION, subject)
        config, content = parse_config(content.get("biggan"), Path(subject)), content.get("model")
    state = _state(content, subject, "biggan", "a BigGAN-deep")
    if config is None:
        found = _infer_biggan(state, "", subject)
    else:
        _agree(config, state, subject)
        found = config
    if resolution is not None and found.resolution != resolution:
        raise CheckpointError(
            f"load '{subject}': resolution is {found.resolution}, expected {resolution}. Give another checkpoint."
        )
    model = BigGAN(found)
    load_state(model, state, subject)
    return model.eval()


def build_u2net(
    content: Any, subject: str, *, kind: U2NetKind | None = None, align_corners: bool = False
) -> U2Net:
    """As `load_u2net`, from what was in the file `subject`."""
    wanted = "a U2-Net" if kind is None else f"a {_NAMES[kind]}"
    state = official_names(_state(content, subject, "u2net", wanted))
    config, found = infer_u2net(state, "", align_corners=align_corners)
    if kind is not None and found != _NAMES[kind]:
        raise CheckpointError(
            f"load '{subject}': content is a {found}, expected {wanted}. Name it as what it is, or give another file."
        )
    model = U2Net(config)
    load_state(model, _with_counters(model, state), subject)
    return model.eval()


def build_cgn(
    content: Any,
    subject: str,
    *,
    config: BigGANConfig | None = None,
    resolution: int | None = None,
    u2net: Head | None = None,
    training_parts: bool = False,
) -> CGN:
    """As `load_cgn`, from what was in the file `subject`; `config` is what it says of its BigGANs."""
    state = _state(content, subject, "imagenet-cgn", "an ImageNet CGN")
    parts = [name for name in (*_MECHANISMS, "biggan_GT") if _has(state, name)]
    if missing := [name for name in _MECHANISMS if name not in parts]:
        raise CheckpointError(
            f"load '{subject}': parts missing are {', '.join(missing)}, expected {', '.join(_MECHANISMS)}. "
            "Check that it is a checkpoint of the whole CGN."
        )
    if config is None:
        configs = {name: _infer_biggan(state, f"{name}.", subject) for name in parts}
    else:
        for name in parts:
            _agree(config, state, subject, f"{name}.")
        configs = dict.fromkeys(parts, config)
    first = configs["f_shape"]
    for name, each in configs.items():
        if each.resolution != first.resolution:
            raise CheckpointError(
                f"load '{subject}': {name} is of {each.resolution} px, expected {first.resolution} as f_shape is. "
                "Take all parts from one CGN."
            )
    if resolution is not None and first.resolution != resolution:
        raise CheckpointError(
            f"load '{subject}': resolution is {first.resolution}, expected {resolution}. Give another checkpoint."
        )
    if _has(state, "u2net"):
        head = _head_in(state, "u2net.")
    elif u2net is None:
        raise CheckpointError(
            f"load '{subject}': part 'u2net' is missing, expected one for the masks. Give its file too: --u2net FILE"
        )
    else:
        head = u2net
        state |= {f"u2net.{key}": value for key, value in u2net.state_dict().items()}
    model = CGN(**{name: BigGAN(each) for name, each in configs.items()}, u2net=head)
    load_state(model, _with_counters(model, state), subject)
    if not training_parts:
        model.biggan_GT = None
    return model.eval()


def _head_in(state: Mapping[str, Any], prefix: str) -> Head:
    """A new head of the kind and size that tensors under a prefix have, not yet with their values."""
    if has_saliency(state, prefix):
        return network_of(state, prefix)
    return U2Net(infer_u2net(state, prefix, align_corners=True)[0])


def save_biggan(model: BigGAN, folder: str | os.PathLike[str]) -> None:
    """Write a BigGAN as Hugging Face's folder; it is made if need be."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_config(model.config, folder)
    save(model.state_dict(), folder / WEIGHTS)


def save_u2net(model: U2Net, path: str | os.PathLike[str]) -> None:
    """Write a U2-Net under the official key names."""
    save(model.state_dict(), path)


def save_cgn(model: CGN, path: str | os.PathLike[str]) -> None:
    """Write a CGN as the authors' `cgn.pth`, with the unconstrained BigGAN if it has one."""
    save(model.state_dict(), path)


def _state(content: Any, subject: str, kind: Kind, wanted: str) -> dict[str, Any]:
    """A state dict of this kind; an error says what else the content is."""
    if not isinstance(content, Mapping):
        raise CheckpointError(
            f"load '{subject}': content is {type(content).__name__}, expected {wanted}: named tensors. "
            "Check that it is a state dict."
        )
    if (found := identify(content)) != kind:
        raise CheckpointError(
            f"load '{subject}': content is {describe(content)}, expected {wanted}. Give another file"
            f"{_HINTS.get((found, kind), '')}."
        )
    return dict(content)


_HINTS: dict[tuple[Kind | None, Kind], str] = {
    ("u2net", "biggan"): ", and this one as --u2net",
    ("saliency", "biggan"): ", and this one as --u2net",
    ("imagenet-cgn", "biggan"): ", or load it as a CGN",
    ("biggan", "imagenet-cgn"): ", or load it as a BigGAN",
}


def describe(content: Any) -> str:
    """What the content of a file is, for messages."""
    kind = identify(content)
    if kind is None:
        if not isinstance(content, Mapping):
            return f"a {type(content).__name__}"
        keys = ", ".join(f"'{str(key)[:60]}'" for key in list(content)[:3])
        return f"no model of the ImageNet CGN (its keys begin with {keys})" if keys else "an empty dict"
    if kind == "saliency":
        return f"a {LABEL}"
    if kind == "u2net":
        return f"a {infer_u2net(official_names(content), '', align_corners=False)[1]}"
    state = content.get("model") if "format" in content else content
    resolution = None
    if isinstance(state, Mapping):
        resolution = _resolution(state, "" if kind == "biggan" else "f_shape.")
    if kind == "biggan":
        return f"a BigGAN-deep-{resolution}" if resolution else "a BigGAN"
    return f"an ImageNet CGN of {resolution} px" if resolution else "an ImageNet CGN"


def _has(state: Mapping[str, Any], part: str) -> bool:
    return any(isinstance(key, str) and key.startswith(f"{part}.") for key in state)


def _resolution(state: Mapping[Any, Any], prefix: str) -> int | None:
    """The published resolution that has as many layers."""
    layers = _layers(state, prefix)
    return next((size for size, blocks in BLOCKS.items() if len(blocks) + 1 == layers), None)


def _layers(state: Mapping[Any, Any], prefix: str) -> int:
    start = f"{prefix}generator.layers."
    numbers = {
        key[len(start) :].partition(".")[0] for key in state if isinstance(key, str) and key.startswith(start)
    }
    return 1 + max((int(number) for number in numbers if number.isdecimal() and len(number) < 6), default=-1)


def _infer_biggan(state: Mapping[str, Any], prefix: str, subject: str) -> BigGANConfig:
    """The size of the BigGAN that has these tensors."""
    resolution = _resolution(state, prefix)
    if resolution is None:
        expected = ", ".join(f"{len(blocks) + 1} ({size} px)" for size, blocks in BLOCKS.items())
        raise CheckpointError(
            f"load '{subject}': number of {prefix}generator.layers is {_layers(state, prefix)}, expected {expected}. "
            "Check that it is a BigGAN-deep."
        )
    sizes = _sizes(state, prefix)
    if sizes.get("channel_width", 4) % 4 or sizes.get("n_stats", 2) < 2:
        raise CheckpointError(
            f"load '{subject}': sizes of {prefix}generator are {sizes}, expected a channel_width that is a multiple "
            "of 4 and n_stats >= 2. Check that it is a BigGAN-deep."
        )
    return BigGANConfig.of_resolution(resolution, **sizes)


def _sizes(state: Mapping[str, Any], prefix: str) -> dict[str, int]:
    """What shapes say of a BigGAN's size, by the fields of `BigGANConfig`, as far as tensors are there."""
    sizes: dict[str, int] = {}
    for field, key, axis in (
        ("channel_width", "generator.conv_to_rgb.weight_orig", 0),
        ("num_classes", "embeddings.weight", 1),
        ("z_dim", "embeddings.weight", 0),
        ("n_stats", "generator.bn.running_means", 0),
    ):
        tensor = state.get(prefix + key)
        if (
            isinstance(tensor, Tensor)
            and has_memory(tensor)
            and tensor.dim() > axis
            and 0 not in tensor.shape
        ):
            sizes[field] = tensor.shape[axis]
    return sizes


def _agree(config: BigGANConfig, state: Mapping[str, Any], subject: str, prefix: str = "") -> None:
    """Check that the weights are of the size that their folder says, before memory of that size is asked for."""
    layers = len(config.blocks) + (config.attention < len(config.blocks))
    found = {"number of layers": _layers(state, prefix), **_sizes(state, prefix)}
    for field, has in found.items():
        said = layers if field == "number of layers" else getattr(config, field)
        if said != has:
            published = _resolution(state, prefix) if field == "number of layers" else None
            which = f" (BigGAN-deep-{published})" if published else ""
            raise CheckpointError(
                f"load '{subject}': {field} of the weights is {has}{which}, expected {said} as config.json says. "
                "Take both from one model."
            )


def _with_counters(model: torch.nn.Module, state: Mapping[str, Any]) -> dict[str, Any]:
    """With the batch norms' counters of batches, which older files lack and nothing here needs."""
    return {
        key: value for key, value in model.state_dict().items() if key.endswith(".num_batches_tracked")
    } | dict(state)
