"""The ops of a compiled module, whose signatures have no defaults, with the defaults of `cgnrt.ops`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any

from cgnrt import _core, ops


class ModuleOps:
    """`ModuleOps(module).compose(...)` is `module.compose(...)`; `implementation` and `streams` are passed on."""

    def __init__(self, module: ModuleType) -> None:
        self._module = module

    def __getattr__(self, name: str) -> Callable[..., Any]:
        op, signature = getattr(self._module, name), inspect.signature(getattr(ops, name))

        def call(*arguments: Any, **options: Any) -> Any:
            more = {key: options.pop(key) for key in ("implementation", "streams") if key in options}
            given = signature.bind(*arguments, **options)
            given.apply_defaults()
            return op(*given.args, **given.kwargs, **more)

        return call


core = ModuleOps(_core)
