"""What the tests of the ops share: the table of cases, and references in plain NumPy."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from cgnrt import _core

HERE = Path(__file__).parent
CASES: list[dict[str, Any]] = json.loads((HERE / "compose_cases.json").read_text())
IMPLEMENTATIONS: list[str] = ["reference", *_core.build_info()["cpu"]["isas"]]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "case" in metafunc.fixturenames:
        metafunc.parametrize("case", CASES, ids=[case["name"] for case in CASES])
    if "implementation" in metafunc.fixturenames:
        metafunc.parametrize("implementation", IMPLEMENTATIONS)


class ComposeCase:
    """The arrays of one case, its keyword arguments, and the batch as NumPy computes it."""

    def __init__(self, case: dict[str, Any]) -> None:
        rng = np.random.default_rng([len(case["name"]), *case["name"].encode()])
        c, h, w = case["size"]
        pools = case["pools"]
        dtype = np.dtype(case.get("input", "float32"))
        self.masks = rng.random((pools[0], 1, h, w)).astype(dtype)
        self.foregrounds = rng.uniform(-1, 1, (pools[1], c, h, w)).astype(dtype)
        self.backgrounds = rng.uniform(-1, 1, (pools[2], c, h, w)).astype(dtype)
        n = case.get("n", pools[0])
        self.index: npt.NDArray[np.int32] | None = None
        if "n" in case:
            self.index = np.stack([rng.integers(0, pool, n) for pool in pools], axis=1).astype(np.int32)
        self.rolls: npt.NDArray[np.int32] | None = None
        if case.get("rolls"):
            self.rolls = rng.integers(-(2**31), 2**31, (n, 2, 2)).astype(np.int32)
            # Offsets that are easily got wrong: none, one of the two, whole vectors, the extremes.
            corners = [[0, 0], [1, 0], [0, 1], [0, 8], [8, 16], [h, w], [h - 1, w - 1], [-1, -1]]
            picks = rng.integers(0, len(corners), (n, 2))
            use = rng.random((n, 2)) < 0.4
            self.rolls[use] = np.array(corners, np.int32)[picks][use]
            self.rolls[0, 0] = [2**31 - 1, -(2**31)]
        self.options: dict[str, Any] = {
            "dtype": case.get("output", "float32"),
            "layout": case.get("layout", "NCHW"),
            "scale": case.get("scale"),
            "bias": case.get("bias"),
            "clamp": tuple(case["clamp"]) if "clamp" in case else None,
        }

    @property
    def pools(self) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]:
        return self.masks, self.foregrounds, self.backgrounds

    def run(self, **options: Any) -> npt.NDArray[Any]:
        """The compiled op on this case."""
        result: npt.NDArray[Any] = _core.compose(
            *self.pools, self.index, rolls=self.rolls, **self.options, **options
        )
        return result

    def expected(self) -> npt.NDArray[Any]:
        """The batch in NumPy, in the order that the op promises."""
        m, f, b = (pool.astype(np.float32) for pool in self.pools)
        if self.index is not None:
            m, f, b = m[self.index[:, 0]], f[self.index[:, 1]], b[self.index[:, 2]]
        if self.rolls is not None:
            f, b = f.copy(), b.copy()
            h, w = m.shape[2:]
            for i, offsets in enumerate(self.rolls.astype(np.int64) % np.array([h, w])):
                f[i] = np.roll(f[i], offsets[0], axis=(1, 2))
                b[i] = np.roll(b[i], offsets[1], axis=(1, 2))
        x = m * f + (np.float32(1) - m) * b
        if self.options["clamp"] is not None:
            x = np.clip(x, *np.float32(self.options["clamp"]))
        for option, operate in (("scale", np.multiply), ("bias", np.add)):
            if self.options[option] is not None:
                x = operate(x, np.asarray(self.options[option], np.float32).reshape(-1, 1, 1))
        if self.options["layout"] == "NHWC":
            x = x.transpose(0, 2, 3, 1)
        return cast(np.ascontiguousarray(x), self.options["dtype"])


def cast(x: npt.NDArray[np.float32], dtype: str) -> npt.NDArray[Any]:
    """Float32 without NaNs to an output dtype; bfloat16 as bits."""
    if dtype == "uint8":
        return np.clip(np.rint(x), 0, 255).astype(np.uint8)
    if dtype == "bfloat16":
        bits = x.view(np.uint32)
        return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    return x.astype(dtype)


@pytest.fixture
def compose_case(case: dict[str, Any]) -> ComposeCase:
    return ComposeCase(case)


@pytest.fixture(scope="session")
def noise_reference() -> ModuleType:
    spec = importlib.util.spec_from_file_location("noise_reference", HERE / "noise_reference.py")
    if spec is None or spec.loader is None:
        raise RuntimeError("noise_reference.py is missing")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
