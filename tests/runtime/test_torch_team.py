"""Streams without a thread: batches made on the threads that PyTorch's operations run on, several in one go."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cgnrt import Batch, Generator, Place, _core

OPTIONS: dict[str, Any] = {"pool": 20, "refresh": 2}


@pytest.fixture
def demo(demo_plan: Path) -> Generator:
    """The native engine, which computes each image by itself: to the last bit the same however it is asked for."""
    return Generator(demo_plan, backend="native", precision="fp32", threads=3)


def run(code: str, *arguments: object) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


PREPARE = """
import os, sys
import numpy as np, torch
from cgnrt import Generator

def threads():
    return len(os.listdir("/proc/self/task"))

torch.set_num_threads(2)
gen = Generator(sys.argv[1], backend="native", precision="fp32", threads=2)
options = dict(seed=4, stop=400, pool=20, refresh=2, prefetch=0)
torch.ones(1_000_000).add(1)  # starts PyTorch's threads
before = threads()
batches = list(gen.stream(40, **options))
"""


def test_a_stream_without_a_thread_starts_none_beside_pytorchs(demo_plan: Path) -> None:
    code = PREPARE + "print(threads() - before); gen.sample(40, seed=1); print(threads() - before)"
    assert run(code, demo_plan).split() == ["0", "1"]


def test_pytorchs_threads_stay_as_they_are_set(demo_plan: Path) -> None:
    """A generator of fewer threads does not end the others, and PyTorch computes with all of them afterwards."""
    code = PREPARE.replace("threads=2)", "threads=1)") + "print(torch.get_num_threads(), threads() - before)"
    assert run(code, demo_plan).split() == ["2", "0"]


def test_a_forked_process_has_threads_of_its_own(demo_plan: Path) -> None:
    code = PREPARE + (
        "pid = os.fork()\n"
        "if not pid:\n"
        "    again = list(gen.stream(40, **options))\n"
        "    same = all(np.array_equal(a.images, b.images) for a, b in zip(again, batches, strict=True))\n"
        "    os._exit(0 if same else 1)\n"
        "print(os.waitpid(pid, 0)[1])"
    )
    assert run("import warnings; warnings.simplefilter('ignore')\n" + code, demo_plan) == "0"


def test_pytorch_is_not_needed(demo_plan: Path) -> None:
    code = (
        "import sys\nfrom cgnrt import Generator\n"
        "gen = Generator(sys.argv[1], backend='native', precision='fp32', threads=2)\n"
        "print(sum(map(len, gen.stream(40, seed=4, stop=100, pool=20, refresh=2, prefetch=0))), 'torch' in sys.modules)"
    )
    assert run(code, demo_plan) == "100 False"


def test_samples_are_the_same_on_any_threads(demo: Generator) -> None:
    import torch

    torch.ones(1_000_000).add(1)
    expected = demo.sample(60, seed=4)
    _core.use_torch_team(True)
    try:
        found = demo.sample(60, seed=4)
    finally:
        _core.use_torch_team(False)
    np.testing.assert_array_equal(found.images, expected.images)


@pytest.mark.parametrize(
    "options", [OPTIONS, {"pool": 9}, {**OPTIONS, "parts": True, "place": Place(dx=(-0.2, 0.2))}]
)
def test_batches_made_in_one_go_are_single_batches(demo: Generator, options: dict[str, Any]) -> None:
    """Every field, of full batches and of the last one, which is short."""
    found = list(demo.stream(6, seed=4, start=5, stop=300, prefetch=0, **options))
    singly = list(demo.batches(295, 6, seed=4, start=5, **options))
    assert len(found) == len(singly) == 50
    for batch, expected in zip(found, singly, strict=True):
        assert_equal(batch, expected)
    assert not np.shares_memory(found[-1].images, found[-2].images)


def assert_equal(batch: Batch, expected: Batch) -> None:
    assert batch.seed == expected.seed
    names = ("images", "indices", "index", "place", "mask", "foreground", "background", "pre_mask")
    for name in names:
        found, wanted = getattr(batch, name), getattr(expected, name)
        assert (found is None) == (wanted is None)
        if wanted is not None:
            np.testing.assert_array_equal(found, wanted)
    for found, wanted in zip((*batch.labels, *batch.noise), (*expected.labels, *expected.noise), strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_an_exception_comes_where_its_batch_would(demo: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    render = demo._pipeline.renderer.render_pool

    def failing_render(where: np.ndarray, *rest: Any) -> Batch:
        if 47 in where:
            raise ZeroDivisionError("in the middle")
        return render(where, *rest)

    monkeypatch.setattr(demo._pipeline.renderer, "render_pool", failing_render)
    stream = demo.stream(4, seed=4, prefetch=0, **OPTIONS)
    found = [next(stream) for _ in range(11)]
    with pytest.raises(ZeroDivisionError, match="in the middle"):
        next(stream)
    assert stream.position == sum(map(len, found)) == 44


def test_a_stream_goes_on_from_the_middle_of_what_was_made(demo: Generator) -> None:
    whole = list(demo.stream(4, seed=4, stop=80, prefetch=0, **OPTIONS))
    stream = demo.stream(4, seed=4, stop=80, prefetch=0, **OPTIONS)
    for _ in range(5):  # of 1 + 2 + 4 that are made
        next(stream)
    state = stream.state_dict()
    assert state == {"seed": 4, "position": 20}
    stream.load_state_dict(state)
    for batch, expected in zip(stream, whole[5:], strict=True):
        assert_equal(batch, expected)


def test_large_batches_are_made_one_by_one(demo: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    render = demo._pipeline.renderer.render_pool

    def noted_render(where: np.ndarray, *rest: Any) -> Batch:
        sizes.append(len(where))
        return render(where, *rest)

    monkeypatch.setattr(demo._pipeline.renderer, "render_pool", noted_render)
    assert len(list(demo.stream(1000, seed=4, stop=4000, prefetch=0, **OPTIONS))) == 4
    assert sizes == [1000, 1000, 1000, 1000]  # 12 MB each
    sizes.clear()
    assert len(list(demo.stream(10, seed=4, stop=500, prefetch=0, **OPTIONS))) == 50
    assert sizes == [10, 20, 40, 80, 160, 160, 30]
