"""`cgn.pt` of a natural-image CGN's run: what `cgnrt-export` reads."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cgnrt.errors import CheckpointError

from ..checkpoints import check_format, load_own, load_state, settings_in, shown
from ..imagenet.checkpoints import build_cgn
from ..imagenet.config_json import parse_config, to_json
from ..runs.sources import without_paths
from ..settings import to_dict
from .config import Config
from .model import NaturalCGN
from .refine import Refiner

FORMAT = "cgnrt-natural-cgn"
FORMAT_VERSION = 1

_REFINER = "refiner."


@dataclass(frozen=True)
class NaturalCheckpoint:
    """A trained CGN in evaluation mode, and what is known about it."""

    model: NaturalCGN
    config: Config
    step: int  # updates that it was trained for
    sources: dict[str, dict[str, str]]  # name and sha256 of the files that it was made from, by option


def about(config: Config, cgn: NaturalCGN, sources: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    """What a checkpoint says of itself, beside step and weights."""
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "config": to_dict(config),
        "biggan": to_json(cgn.f_shape.config),
        "sources": without_paths(sources),
    }


def load_natural(path: str | os.PathLike[str]) -> NaturalCheckpoint:
    """Load `cgn.pt` or `resume.pt` of a run.

    Raises:
      CheckpointError: the file is unreadable, damaged, of another kind or a newer version, or its weights do not fit.
    """
    return build_natural(load_own(path, FORMAT, FORMAT_VERSION), os.fspath(path))


def build_natural(content: Mapping[str, Any], subject: str) -> NaturalCheckpoint:
    """As `load_natural`, from what was in the file `subject`."""
    check_format(content, FORMAT, FORMAT_VERSION, subject)
    config = settings_in(content, Config, subject)
    step, sources = content.get("step"), content.get("sources")
    if type(step) is not int or step < 0:
        raise CheckpointError(
            f"load '{subject}': step is {shown(step)}, expected a whole number. Train again."
        )
    if not isinstance(sources, dict) or not all(_is_source(value) for value in sources.values()):
        raise CheckpointError(
            f"load '{subject}': sources are {shown(sources)}, expected name and sha256 of each file. Train again."
        )
    state = content.get("model")
    if not isinstance(state, Mapping):
        raise CheckpointError(
            f"load '{subject}': model is {shown(state)}, expected named tensors. Train again."
        )
    plain = {key: value for key, value in state.items() if not str(key).startswith(_REFINER)}
    cgn = build_cgn(plain, subject, config=parse_config(content.get("biggan"), Path(subject)))
    refiner = None
    if config.train.refine:
        refiner = Refiner(config.train.refine_width)
        load_state(
            refiner,
            {k.removeprefix(_REFINER): value for k, value in state.items() if k.startswith(_REFINER)},
            subject,
        )
    elif len(plain) < len(state):
        raise CheckpointError(
            f"load '{subject}': there is a refinement network, but train.refine is off. Train again."
        )
    model = NaturalCGN(cgn.f_shape, cgn.f_text, cgn.f_bg, cgn.u2net, refiner)
    return NaturalCheckpoint(model.eval(), config, step, sources)


def _is_source(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(value.get(key), str) for key in ("name", "sha256"))
