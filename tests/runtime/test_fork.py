"""Forked workers, which torch's DataLoader makes on Linux: they and their parent go on, whatever its threads do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cgnrt import banks
from cgnrt._support import forking
from cgnrt._support.forking import ForkLock
from cgnrt.backends import load_engine
from cgnrt.errors import BackendError
from cgnrt.plan import Plan

from .conftest import EnginePlan

pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")

# Processes of their own, since whatever else holds an engine library open in this one would show, and so that a worker
# that waits for ever is an error instead of a test that does.

IDLE_PARENT = """
import multiprocessing, sys, warnings
from concurrent.futures import ProcessPoolExecutor
import numpy as np
from cgnrt import Generator

warnings.filterwarnings("ignore", ".*use of fork", DeprecationWarning)
plan, backend, tolerance = sys.argv[1], sys.argv[2], float(sys.argv[3])
gen = Generator(plan, backend=backend, threads=2)
expected = [gen.sample(20, seed=1, start=start).images for start in (0, 20)]
# Engines that are given up leave idle thread pools, which a child would take for its own.
Generator(plan, backend=backend, threads=2).sample(3, seed=1)
with ProcessPoolExecutor(2, multiprocessing.get_context("fork")) as workers:
    found = [workers.submit(gen.sample, 20, seed=1, start=start) for start in (0, 20)]
    for mine, its in zip(expected, found):
        np.testing.assert_allclose(its.result().images, mine, atol=tolerance, rtol=0)
np.testing.assert_allclose(gen.sample(20, seed=1).images, expected[0], atol=tolerance, rtol=0)
print("the same on both sides")
"""

# The workers fork while threads run the engines: that of a stream, and one of the user's own.
BUSY_PARENT = """
import sys, threading, warnings
import numpy as np
from torch.utils.data import DataLoader
from cgnrt import Generator
from cgnrt.torch import CounterfactualDataset

warnings.filterwarnings("ignore", ".*use of fork", DeprecationWarning)
plan, backend, tolerance = sys.argv[1], sys.argv[2], float(sys.argv[3])
gen = Generator(plan, backend=backend, threads=2)
stop = threading.Event()

def use():
    with Generator(plan, backend=backend, threads=2).stream(64, seed=3) as batches:
        for batch in batches:
            if stop.is_set():
                return

thread = threading.Thread(target=use)
thread.start()
data = CounterfactualDataset(gen, batch_size=16, seed=1, n=64)
with gen.stream(64, seed=2) as batches:
    next(batches)
    for _ in range(3):
        loader = DataLoader(data, batch_size=None, num_workers=2, multiprocessing_context="fork")
        loaded = np.concatenate([batch.images.numpy() for batch in loader])
        expected = gen.sample(64, seed=1).images
        np.testing.assert_allclose(loaded, expected, atol=tolerance, rtol=0)
        next(batches)
stop.set()
thread.join()
print("the same on both sides")
"""

MASKS_IN_A_THREAD = """
import multiprocessing, os, sys, threading, warnings
from concurrent.futures import ProcessPoolExecutor
import numpy as np
from cgnrt.real import Saliency

warnings.filterwarnings("ignore", ".*use of fork", DeprecationWarning)
plan, backend = sys.argv[1:]
find = Saliency(plan, backend=backend, threads=2)
photos = np.random.default_rng(0).integers(0, 256, (16, 3, 64, 64)).astype(np.uint8)
expected = find(photos)
stop = threading.Event()

def use():
    while not stop.is_set():
        find(photos)

threads = [threading.Thread(target=use) for _ in range(2)]
for thread in threads:
    thread.start()
for _ in range(3):
    with ProcessPoolExecutor(2, multiprocessing.get_context("fork")) as workers:
        for found in [workers.submit(find, photos) for _ in range(2)]:
            np.testing.assert_allclose(found.result(), expected, atol=1e-6)
stop.set()
for thread in threads:
    thread.join()
print("the same on both sides")
"""


def run(program: str, *arguments: object) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=120)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise
    assert process.returncode == 0, output
    assert "the same on both sides" in output


@pytest.mark.parametrize("program", [IDLE_PARENT, BUSY_PARENT], ids=["idle", "busy"])
def test_forked_workers_and_their_parent_go_on(program: str, engine_plan: EnginePlan) -> None:
    run(program, engine_plan.plan, engine_plan.backend, engine_plan.tolerance)


@pytest.mark.parametrize("backend", ["native", "openvino", "onnxruntime"])
def test_masks_in_workers_forked_while_threads_find_masks(backend: str, golden_saliency_plan: Path) -> None:
    run(MASKS_IN_A_THREAD, golden_saliency_plan, backend)


# The decoding threads are the standard library's, whose own lock every fork takes.
DECODING_IN_A_THREAD = """
import os, sys, threading, time, warnings
from cgnrt import Generator

warnings.filterwarnings("ignore", ".*use of fork", DeprecationWarning)
gen = Generator(sys.argv[1], device="cpu", threads=2, bank_cache_bytes=0)
expected = gen.sample(64, seed=1).images
stop = threading.Event()

def use():
    while not stop.is_set():
        gen.sample(64, seed=1)

thread = threading.Thread(target=use)
thread.start()
for _ in range(10):
    child = os.fork()
    if child == 0:
        os._exit(0 if (gen.sample(64, seed=1).images == expected).all() else 1)
    assert os.waitpid(child, 0)[1] == 0
stop.set()
thread.join()
print("the same on both sides")
"""


def test_forks_while_a_thread_decodes_pictures(demo_plan: Path, tmp_path: Path) -> None:
    banks.from_plan(tmp_path / "webp.plan", demo_plan, 200, seed=5, store="webp")
    run(DECODING_IN_A_THREAD, tmp_path / "webp.plan")


# OpenVINO's pool lives as long as a thread that computed with it: see whether it is gone at a fork.
NO_ENGINE_THREADS = """
import os, sys
import numpy as np
from cgnrt._support.forking import before_fork
from cgnrt.real import Saliency

threads, found = lambda: set(os.listdir("/proc/self/task")), []
find = Saliency(sys.argv[1], backend="openvino", threads=2)
photos = np.random.default_rng(0).integers(0, 256, (1, 3, 64, 64)).astype(np.uint8)
find(photos)
before_fork(lambda: found.append(threads()))  # after the engine's own
for _ in range(4):
    find(photos)
    assert len(threads()) > 1
    os.fork() or os._exit(0)
assert all(len(now) == 1 for now in found[1:]), found  # at the first fork numpy's threads end, too
print("the same on both sides")
"""


def test_no_thread_of_openvino_is_there_at_a_fork(golden_saliency_plan: Path) -> None:
    run(NO_ENGINE_THREADS, golden_saliency_plan)


def in_a_child(check: Callable[[], bool]) -> bool:
    """Whether a function is true in a forked child, which has 30 seconds."""
    child = os.fork()
    if child == 0:
        signal.alarm(30)
        os._exit(0 if check() else 1)
    return os.waitpid(child, 0)[1] == 0


def hold(lock: ForkLock, then: Callable[[], None] = lambda: None) -> threading.Thread:
    """A thread that takes a lock, calls `then`, and keeps the lock for a while."""
    taken = threading.Event()

    def work() -> None:
        with lock:
            taken.set()
            time.sleep(0.2)
            then()

    thread = threading.Thread(target=work)
    thread.start()
    taken.wait()
    return thread


def free(lock: ForkLock) -> bool:
    with lock:
        return True


def test_a_fork_waits_for_locks() -> None:
    lock = ForkLock()
    done: list[int] = []
    thread = hold(lock, lambda: done.append(1))
    assert in_a_child(lambda: free(lock) and done == [1])
    assert free(lock)
    thread.join()


def test_a_fork_gives_way_to_a_thread_that_takes_a_second_lock() -> None:
    """And does not hold one of the two while it waits for the other."""
    locks = [ForkLock() for _ in range(8)]
    thread = hold(locks[3], lambda: [free(other) for other in locks].clear())
    assert in_a_child(lambda: all(map(free, locks)))
    thread.join()


def test_a_thread_may_fork_with_a_lock_of_its_own() -> None:
    lock = ForkLock()
    with lock:
        assert in_a_child(lambda: free(lock))
    assert free(lock)


def test_forks_of_several_threads() -> None:
    lock = ForkLock()
    results: list[bool] = []
    threads = [
        threading.Thread(target=lambda: results.append(in_a_child(lambda: free(lock)))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True] * 4


def test_locks_that_other_threads_make_and_drop_meanwhile() -> None:
    end = threading.Event()
    locks = [ForkLock() for _ in range(2000)]

    def make() -> None:
        while not end.is_set():
            ForkLock()

    thread = threading.Thread(target=make)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        thread.start()
        for _ in range(200):
            assert len(forking._every_lock()) >= len(locks)
    finally:
        end.set()
        thread.join()
        sys.setswitchinterval(interval)


def test_a_lock_that_is_never_given_back_delays_a_fork_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forking, "_PATIENCE_S", 0.1)
    lock, other, end = ForkLock(), ForkLock(), threading.Event()
    thread = hold(lock, lambda: [end.wait()].clear())
    assert in_a_child(lambda: free(other))
    end.set()
    thread.join()


def test_a_property_that_another_thread_is_computing() -> None:
    begun = threading.Event()

    class Slow:
        @forking.cached_property
        def value(self) -> int:
            begun.set()
            time.sleep(0.2)
            return 5

    slow = Slow()
    thread = threading.Thread(target=lambda: slow.value)
    thread.start()
    begun.wait()
    assert in_a_child(lambda: slow.value == 5)
    thread.join()


def test_a_progress_bar_of_another_thread() -> None:
    from tqdm import tqdm
    from tqdm.std import TqdmDefaultWriteLock

    tqdm.get_lock()
    begun = threading.Event()

    def write() -> None:
        with TqdmDefaultWriteLock.th_lock:
            begun.set()
            time.sleep(0.2)

    def show() -> bool:
        with TqdmDefaultWriteLock.th_lock:
            return True

    thread = threading.Thread(target=write)
    thread.start()
    begun.wait()
    assert in_a_child(show)
    thread.join()


def test_an_engine_without_threads_in_the_child_refuses(golden_plan: Path) -> None:
    """ONNX Runtime's would wait for threads that stayed in the parent."""
    with Plan.open(golden_plan) as plan:
        engine = load_engine(plan.mechanisms["shape"], backend="onnxruntime")

    def refused() -> bool:
        try:
            engine.run({})
        except BackendError as error:
            return "belongs to process" in str(error) and "Load an engine in each process." in str(error)
        return False

    assert in_a_child(refused)
