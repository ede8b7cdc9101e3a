"""What a U2-Net's state dict says of its size, and the other names that its tensors go by."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from ..checkpoints import has_memory
from .u2net import FULL, SMALL, Stage, U2NetConfig

# A form in which U2-Net-p is passed on: batch norms folded, stages numbered from 0, decoders from the deepest.
_FOLDED = re.compile(r"(st|sd)\.([0-5])\.(cin|bot|enc|dec|e|d)(?:\.(\d))?\.conv\.(weight|bias)")
_FOLDED_OUTPUT = re.compile(r"(?:side\.([0-5])|out)\.(weight|bias)")


def is_folded_names(keys: Iterable[str]) -> bool:
    """Whether these are keys of the folded form."""
    return any(_FOLDED.fullmatch(key) for key in keys)


def official_names(state: Mapping[str, Any]) -> dict[str, Any]:
    """The same tensors under the official names; keys that are not of the folded form stay as they are."""
    if not is_folded_names(key for key in state if isinstance(key, str)):
        return dict(state)
    return {_official(key) if isinstance(key, str) else key: value for key, value in state.items()}


def _official(key: str) -> str:
    if found := _FOLDED_OUTPUT.fullmatch(key):
        name = "outconv" if found[1] is None else f"side{int(found[1]) + 1}"
        return f"{name}.{found[2]}"
    found = _FOLDED.fullmatch(key)
    if not found:
        return key
    side, stage, part, number, kind = found.groups()
    name = f"stage{int(stage) + 1}" if side == "st" else f"stage{5 - int(stage)}d"
    # Convolutions from the deepest up; stages of depth 7, 6, 5, 4, 4, 4.
    level = int(stage) if side == "st" else 4 - int(stage)
    depth = max(4, 7 - level)
    if part == "cin":
        inner = "rebnconvin"
    elif part == "bot":
        inner = f"rebnconv{depth}"
    elif part in ("enc", "e"):
        inner = f"rebnconv{int(number or 0) + 1}"
    else:
        inner = f"rebnconv{depth - 1 - int(number or 0)}d"
    return f"{name}.{inner}.conv_s1.{kind}"


def infer_u2net(state: Mapping[str, Any], prefix: str, *, align_corners: bool) -> tuple[U2NetConfig, str]:
    """The size of the U2-Net that has these tensors, under their official names, and what it is called.

    Where tensors are missing it is the nearest known size, so that loading names them.
    """

    def channels(key: str) -> int | None:
        tensor = state.get(f"{prefix}{key}.conv_s1.weight")
        usable = isinstance(tensor, Tensor) and tensor.dim() == 4 and has_memory(tensor)
        return int(tensor.shape[0]) if usable and isinstance(tensor, Tensor) else None

    def stages(names: list[str], known: tuple[Stage, ...]) -> tuple[Stage, ...]:
        return tuple(
            Stage(channels(f"{name}.rebnconv1") or stage.inner, channels(f"{name}.rebnconvin") or stage.out)
            for name, stage in zip(names, known, strict=True)
        )

    nearest = SMALL if channels("stage6.rebnconvin") == SMALL.encoder[5].out else FULL
    has_norms = any(isinstance(key, str) and ".bn_s1." in key and key.startswith(prefix) for key in state)
    config = replace(
        nearest,
        encoder=stages([f"stage{k}" for k in range(1, 7)], nearest.encoder),
        decoder=stages([f"stage{k}d" for k in range(1, 6)], nearest.decoder),
        align_corners=align_corners,
        folded=not has_norms,
    )
    for known, name in ((FULL, "U2-Net"), (SMALL, "U2-Net-p")):
        if (config.encoder, config.decoder) == (known.encoder, known.decoder):
            return config, name
    return config, "U2-Net of other widths"
