"""Generators cross process borders: pickled, spawned, and shared by threads (forked: test_fork.py)."""

from __future__ import annotations

import multiprocessing
import pickle
import shutil
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from cgnrt import Generator, Plan, PlanError

from .conftest import EnginePlan


def draw(generator: Generator, start: int) -> np.ndarray:
    images: np.ndarray = generator.sample(20, seed=1, start=start).images
    return images


def test_pickles_as_path_digest_and_options(golden_plan: Path) -> None:
    gen = Generator(golden_plan, dtype="uint8", layout="NHWC", backend="onnxruntime")
    again = pickle.loads(pickle.dumps(gen))
    assert len(pickle.dumps(gen)) < 1000
    assert again.backend == "onnxruntime"
    np.testing.assert_array_equal(draw(gen, 0), draw(again, 0))


def test_an_open_plan_is_not_read_again(golden_plan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Plan.open(golden_plan) as plan:
        monkeypatch.setattr(Plan, "open", None)
        gen = Generator(plan)
        assert gen.plan is plan
        images = gen.sample(2, seed=1).images
        monkeypatch.undo()
        again = pickle.loads(pickle.dumps(gen))  # another process opens it by its path
        np.testing.assert_array_equal(again.sample(2, seed=1).images, images)


def test_a_plan_exchanged_behind_a_pickle_is_an_error(
    golden_plan: Path, demo_plan: Path, tmp_path: Path
) -> None:
    plan = tmp_path / "cgn.plan"
    shutil.copy(golden_plan, plan)
    pickled = pickle.dumps(Generator(plan))
    plan.unlink()
    shutil.copy(demo_plan, plan)
    with pytest.raises(PlanError, match=r"digest is .* The file was replaced"):
        pickle.loads(pickled)


@pytest.mark.parametrize("pool", [None, 3])
def test_batches_pickle_without_the_pool_behind_them(golden_plan: Path, pool: int | None) -> None:
    batch = Generator(golden_plan).sample(5, seed=1, pool=pool)
    again = pickle.loads(pickle.dumps(batch))
    np.testing.assert_array_equal(again.images, batch.images)
    np.testing.assert_array_equal(again.noise.texture, batch.noise.texture)
    assert len(pickle.dumps(batch)) < 2 * batch.images.nbytes + 4000


def test_works_in_spawned_workers(engine_plan: EnginePlan) -> None:
    gen = Generator(engine_plan.plan, backend=engine_plan.backend)
    expected = draw(gen, 0), draw(gen, 20)
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as workers:
        found = [workers.submit(gen.sample, 20, seed=1, start=start) for start in (0, 20)]
        for mine, its in zip(expected, found, strict=True):
            np.testing.assert_allclose(
                its.result(timeout=60).images, mine, atol=engine_plan.tolerance, rtol=0
            )


def test_threads_take_turns(engine_plan: EnginePlan) -> None:
    gen = Generator(engine_plan.plan, backend=engine_plan.backend)
    expected = [draw(gen, start) for start in range(0, 400, 20)]
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda start: draw(gen, start), range(0, 400, 20)))
    np.testing.assert_allclose(found, expected, atol=engine_plan.tolerance, rtol=0)


def test_openvino_does_not_call_home() -> None:
    """Its telemetry forks the process from a thread, which a server's other threads do not survive."""
    code = (
        "import sys\n"
        "from cgnrt.backends import BACKENDS\n"
        "assert BACKENDS['openvino'].version()\n"
        "assert 'openvino' in sys.modules\n"
        "assert 'openvino_telemetry' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
