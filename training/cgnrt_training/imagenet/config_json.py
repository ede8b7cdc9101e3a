"""`config.json` of a BigGAN-deep's folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cgnrt._support.files import written_beside
from cgnrt._support.reading import open_file
from cgnrt.errors import CheckpointError

from .biggan import START, BigGANConfig

CONFIG, WEIGHTS = "config.json", "pytorch_model.bin"

_MOST_BYTES = 100_000
_WHOLE = {  # field of the file: of BigGANConfig, largest
    "channel_width": ("channel_width", 4096),
    "num_classes": ("num_classes", 1_000_000),
    "z_dim": ("z_dim", 4096),
    "attention_layer_position": ("attention", 64),
    "n_stats": ("n_stats", 10_001),
}


def read_config(folder: Path) -> BigGANConfig:
    """The size that a folder's `config.json` says.

    Raises:
      CheckpointError: it is missing, no JSON, lacks a field, or says what cannot be.
    """
    path = folder / CONFIG
    try:
        with open_file(path) as file:
            content = file.read(_MOST_BYTES + 1)
        if len(content) > _MOST_BYTES:
            raise ValueError(f"more than {_MOST_BYTES} bytes")
        given = json.loads(content)
    except OSError as error:
        raise CheckpointError(
            f"load '{folder}': {CONFIG} is unreadable ({error.strerror or error}), expected a BigGAN-deep's folder "
            f"with {CONFIG} and {WEIGHTS}. Check the path."
        ) from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(
            f"load '{path}': content is not JSON ({str(error)[:100]}), expected a BigGAN-deep's sizes. Get it again."
        ) from error
    return parse_config(given, path)


def parse_config(given: Any, path: Path) -> BigGANConfig:
    """The size that the content of `config.json` says; `path` is for errors.

    Raises:
      CheckpointError: it lacks a field, or says what cannot be.
    """
    if not isinstance(given, dict):
        raise _refuse(path, "content", given, "an object with a BigGAN-deep's sizes")
    sizes: dict[str, Any] = {}
    for field, (name, largest) in _WHOLE.items():
        sizes[name] = value = given.get(field)
        if type(value) is not int or not 1 <= value <= largest:
            raise _refuse(path, field, value, f"a whole number in 1..{largest}")
    if sizes["channel_width"] % 4:
        raise _refuse(path, "channel_width", sizes["channel_width"], "a multiple of 4")
    if sizes["n_stats"] < 2:
        raise _refuse(path, "n_stats", sizes["n_stats"], "at least 2")
    if given.get("class_embed_dim") != sizes["z_dim"]:
        raise _refuse(path, "class_embed_dim", given.get("class_embed_dim"), f"{sizes['z_dim']}, as z_dim")
    eps = given.get("eps")
    if type(eps) is not float or not 0 < eps < 1:
        raise _refuse(path, "eps", eps, "a number between 0 and 1")
    names = _class_names(path, given.get("class_names", []), sizes["num_classes"])
    config = BigGANConfig(blocks=_blocks(path, given.get("layers")), eps=eps, class_names=names, **sizes)
    if given.get("output_dim") != config.resolution:
        raise _refuse(
            path, "output_dim", given.get("output_dim"), f"{config.resolution}, as its layers have it"
        )
    return config


def write_config(config: BigGANConfig, folder: Path) -> None:
    """Write `config.json` as Hugging Face's is."""
    text = json.dumps(to_json(config), indent=2, sort_keys=True) + "\n"
    with written_beside(folder / CONFIG, force=True) as beside:
        beside.write_text(text, encoding="utf-8")


def to_json(config: BigGANConfig) -> dict[str, Any]:
    """The content of `config.json`, which `parse_config` reads."""
    names = {"class_names": list(config.class_names)} if config.class_names else {}
    return names | {
        "output_dim": config.resolution,
        "z_dim": config.z_dim,
        "class_embed_dim": config.z_dim,
        "channel_width": config.channel_width,
        "num_classes": config.num_classes,
        "layers": [list(block) for block in config.blocks],
        "attention_layer_position": config.attention,
        "eps": config.eps,
        "n_stats": config.n_stats,
    }


def _class_names(path: Path, names: Any, classes: int) -> tuple[str, ...]:
    """The names of the classes, which Hugging Face's files lack and ours have."""
    if names == []:
        return ()
    if not (
        isinstance(names, list) and all(isinstance(name, str) and 0 < len(name) <= 200 for name in names)
    ):
        raise _refuse(path, "class_names", names, "a list of texts of 1 to 200 characters")
    if len(set(names)) != len(names) or len(names) != classes:
        raise _refuse(path, "class_names", names, f"{classes} different names, as num_classes says")
    return tuple(names)


def _blocks(path: Path, layers: Any) -> tuple[tuple[bool, int, int], ...]:
    if not isinstance(layers, list) or not 1 <= len(layers) <= 64:
        raise _refuse(path, "layers", layers, "a list of [up-sample?, channels in, channels out]")
    blocks: list[tuple[bool, int, int]] = []
    for number, layer in enumerate(layers):
        field = f"layers[{number}]"
        if not (
            isinstance(layer, list)
            and len(layer) == 3
            and type(layer[0]) is bool
            and all(type(size) is int and 1 <= size <= 64 for size in layer[1:])
        ):
            raise _refuse(path, field, layer, "[true or false, 1..64, 1..64]")
        up_sample, c_in, c_out = layer
        before = blocks[-1][2] if blocks else 16
        if c_in != before:
            raise _refuse(path, field, layer, f"{before} channels in, as the layer before has out")
        if c_out not in (c_in, c_in // 2):
            raise _refuse(path, field, layer, "as many channels out as in, or half of them")
        blocks.append((up_sample, c_in, c_out))
    if START << sum(up for up, _, _ in blocks) > 4096:
        raise _refuse(path, "layers", layers, "at most 10 that up-sample")
    return tuple(blocks)


def _refuse(path: Path, field: str, got: Any, rule: str) -> CheckpointError:
    text = json.dumps(got)
    shown = text if len(text) <= 80 else text[:77] + "..."
    return CheckpointError(
        f"load '{path}': {field} is {shown}, expected {rule}. Take the file that came with the weights."
    )
