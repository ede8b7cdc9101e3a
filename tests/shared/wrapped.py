"""The forms in which training scripts save the weights of a model."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

State = dict[str, Any]


def _prefixed(prefix: str, state: State) -> State:
    return {f"{prefix}{key}": value for key, value in state.items()}


def _inner(state: State) -> State:
    """As where a part of the model was wrapped: after the first dot of every key."""
    return {key.replace(".", "._orig_mod.module.", 1): value for key, value in state.items()}


WRAPPED: dict[str, Callable[[State], Any]] = {
    "DataParallel": lambda state: _prefixed("module.", state),
    "torch.compile": lambda state: _prefixed("_orig_mod.", state),
    "both": lambda state: _prefixed("module._orig_mod.", state),
    "a part": _inner,
    "state_dict": lambda state: {"epoch": 3, "state_dict": OrderedDict(state), "optimizer": {"state": {}}},
    "model": lambda state: {"model": state, "step": 3},
    "model_state_dict": lambda state: {"model_state_dict": _prefixed("module.", state)},
    "Lightning": lambda state: {"state_dict": _prefixed("model.", state), "global_step": 7},
    "nested": lambda state: {"model": {"state_dict": _prefixed("_orig_mod.", state)}},
}
