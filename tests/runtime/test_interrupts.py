"""Ctrl-C is answered soon, whatever was asked for: compiled code is called for bounded pieces of work."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cgnrt import Generator, ops, sampling
from cgnrt.render.pools import PoolLayout
from cgnrt.request.resolver import check_truncation
from cgnrt.sampling import resolve_indices

MAIN = "import sys; from cgnrt.cli import main; print('begun', flush=True); sys.exit(main(sys.argv[1:]))"
MANY = "3000000000"


@pytest.mark.parametrize(
    "options",
    [
        ["sample", "PLAN", "-n", MANY, "-o", "OUT/x.npz"],
        ["sample", "PLAN", "-n", MANY, "-o", "OUT/x.npz", "--pool", "64"],
        ["sample", "PLAN", "-n", MANY, "-o", "OUT/x.npz", "--truncation", "0.5"],
        ["sheet", "PLAN", "-n", MANY, "-o", "OUT/x.png"],
        ["audit", "PLAN", "-n", MANY, "--", "classifier:zeros"],
        ["generate", "PLAN", "-n", MANY, "-o", "OUT/set", "--processes", "1"],
        ["generate", "PLAN", "-n", str(2**63 - 1), "-o", "OUT/set", "--processes", "2"],
    ],
    ids=lambda options: " ".join(options[:1] + options[6:]),
)
def test_a_command(
    imagenet_like: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, options: list[str]
) -> None:
    here = tmp_path_factory.mktemp("here")
    (here / "classifier.py").write_text(
        "import numpy\ndef zeros(images): return numpy.zeros(len(images), int)\n"
    )
    given = [text.replace("PLAN", str(imagenet_like)).replace("OUT", str(tmp_path)) for text in options]
    process = subprocess.Popen(
        [sys.executable, "-c", MAIN, *given],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=here,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        time.sleep(3)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=15)  # a long allocation takes minutes
    finally:
        process.kill()
    assert process.returncode == 1, errors
    assert "interrupted" in errors
    assert [path.name for path in tmp_path.iterdir()] in ([], ["set"])


@pytest.mark.parametrize(
    "ask",
    [
        lambda gen: gen.sample(10**9, seed=0),
        lambda gen: gen.sample(10**9, seed=0, pool=64),
        lambda gen: gen.sample(2**62, seed=0),
        lambda gen: gen(texture=3, n=10**9, seed=0),
        lambda gen: gen.sample(10, seed=0, pool=2**31 - 1),
    ],
)
def test_more_images_than_the_memory_holds(
    demo_plan: Path, ask: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused before anything is drawn for them."""
    drawn: list[int] = []
    integers = ops.integers

    def counted(seed: int, indices: Any, *arguments: Any, **options: Any) -> Any:
        drawn.append(len(indices))
        return integers(seed, indices, *arguments, **options)

    monkeypatch.setattr(ops, "integers", counted)
    with pytest.raises(MemoryError):
        ask(Generator(demo_plan))
    assert sum(drawn) < 1000


def test_draws_in_steps_are_the_same(gen: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    def draw() -> list[np.ndarray]:
        batch = gen.sample(100, seed=3, start=7, per_noise=3)
        pooled = gen.sample(100, seed=3, pool=(5, 6, 7))
        return [*batch.labels, *batch.noise, batch.indices, *pooled.labels, pooled.index, *pooled.noise]

    expected = draw()
    monkeypatch.setattr(sampling, "_DRAWN_AT_ONCE", 17)
    for found, wanted in zip(draw(), expected, strict=True):
        np.testing.assert_array_equal(found, wanted)
        assert found.dtype == wanted.dtype
    assert resolve_indices(100, 5, None).tolist() == list(range(5, 105))


def test_no_call_draws_or_composes_more_than_a_piece(
    demo_plan: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gen = Generator(demo_plan, dtype="uint8")
    sizes: dict[str, list[int]] = {}

    def watch(name: str, size: Any) -> None:
        op = getattr(ops, name)

        def call(*arguments: Any, **options: Any) -> Any:
            sizes.setdefault(name, []).append(size(*arguments))
            return op(*arguments, **options)

        monkeypatch.setattr(ops, name, call)

    watch("integers", lambda seed, indices, slot, bound, size=1: len(indices) * size)
    watch("compose", lambda masks, f, b, index=None: len(masks if index is None else index))
    watch("normal", lambda seed, indices, slot, size: len(indices) * size)
    monkeypatch.setattr(sampling, "_DRAWN_AT_ONCE", 1 << 12)
    gen.sample(40_000, seed=0, pool=8)
    assert max(sizes["integers"]) <= 1 << 12
    assert max(sizes["normal"]) <= 1 << 12
    assert max(sizes["compose"]) <= 1 << 14


def test_a_renewing_pool_is_composed_in_pieces_too() -> None:
    parts = list(PoolLayout((4, 4, 4), 2**62, 64).parts(10**6))
    assert max(part.stop - part.start for part in parts) <= 1 << 14
    assert (parts[0].start, parts[-1].stop) == (0, 10**6)


def test_one_truncation_for_all_is_checked_without_an_array(imagenet_like: Path) -> None:
    gen = Generator(imagenet_like)
    gen.batches(3_000_000_000, 64, seed=0, truncation=0.5)  # 12 GB otherwise
    with pytest.raises(ValueError, match="truncation is 5"):
        gen.batches(3_000_000_000, 64, seed=0, truncation=5)
    bounds = gen.plan.manifest.truncation
    with pytest.raises(ValueError, match="truncation is 5"):
        check_truncation(bounds, 5, 0)
