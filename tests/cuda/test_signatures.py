"""`cgnrt._cuda` and its stub have the same names, parameters and defaults."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

from stubs import differences

import cgnrt


def test_the_stub_is_that_of_the_module(device_module: ModuleType) -> None:
    assert differences(device_module, Path(cgnrt.__file__).parent / "_cuda.pyi") == []
