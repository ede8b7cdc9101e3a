"""`cgnrt.ops`, the compiled module and its stub have the same names, parameters and defaults."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
from stubs import differences, parameters_of

import cgnrt
from cgnrt import _core, ops

FOR_TESTS = ["implementation='auto'", "streams=None"]
OPS = [name for name in ops.__all__ if FOR_TESTS[0] in parameters_of(getattr(_core, name))]


def test_the_ops_are_found() -> None:
    assert {"compose", "patch_grid", "resize", "normal", "truncated_normal", "integers", "philox"} <= set(OPS)


def test_the_stub_is_that_of_the_module() -> None:
    assert differences(_core, Path(cgnrt.__file__).parent / "_core.pyi") == []


@pytest.mark.parametrize("name", OPS)
def test_an_op_has_the_parameters_of_the_public_function(name: str) -> None:
    """In the same order, and without its defaults: they stand in one place."""
    expected = list(inspect.signature(getattr(ops, name)).parameters)
    assert [p for p in parameters_of(getattr(_core, name)) if p not in FOR_TESTS] == expected


def test_differences_are_found(tmp_path: Path) -> None:
    stub = tmp_path / "_core.pyi"
    stub.write_text(
        (Path(cgnrt.__file__).parent / "_core.pyi")
        .read_text()
        .replace("def build_info(", "def build_information(")
        .replace("threads: int = 0, streams: bool", "threads: int = 1, streams: bool")
        .replace("def output_shape", "def result_shape")
    )
    found = "\n".join(differences(_core, stub))
    for name in ("build_info: only in the module", "build_information: only in _core.pyi", "copy: ['source'"):
        assert name in found
    assert "SmallGenerator.output_shape" in found
    assert "SmallGenerator.result_shape" in found
