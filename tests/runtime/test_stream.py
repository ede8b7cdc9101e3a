"""`Generator.stream`: the samples of `batches`, made ahead, and a thread that is gone when it should be."""

from __future__ import annotations

import contextlib
import gc
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cgnrt import Batch, Generator
from cgnrt._support.prefetch import Prefetch
from cgnrt.stream import Stream


@pytest.fixture
def demo(demo_plan: Path) -> Generator:
    """The native engine, which computes each image by itself: to the last bit the same however it is asked for."""
    return Generator(demo_plan, backend="native", precision="fp32")


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "cgnrt-prefetch"]


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    yield
    assert wait_until(lambda: not threads())


def wait_until(done: Callable[[], bool]) -> bool:
    end = time.monotonic() + 10
    while not done():
        if time.monotonic() > end:
            return False
        time.sleep(0.005)
    return True


def assert_same(parts: list[Batch], whole: Batch) -> None:
    np.testing.assert_array_equal(np.concatenate([part.images for part in parts]), whole.images)
    np.testing.assert_array_equal(np.concatenate([part.indices for part in parts]), whole.indices)
    assert {part.seed for part in parts} == {whole.seed}


@pytest.mark.parametrize("prefetch", [0, 1, 2, 5])
@pytest.mark.parametrize("options", [{}, {"pool": 3, "refresh": 2, "parts": True}, {"do": {"shape": 4}}])
def test_a_stream_is_its_samples(demo: Generator, prefetch: int, options: dict[str, Any]) -> None:
    with demo.stream(7, seed=4, start=3, stop=30, prefetch=prefetch, **options) as stream:
        found = list(stream)
        assert list(stream) == []
    assert [len(batch) for batch in found] == [7, 7, 7, 6]
    assert_same(found, demo.sample(27, seed=4, start=3, **options))


def test_without_stop_it_has_no_end(demo: Generator) -> None:
    with demo.stream(2, pool=2, refresh=8) as stream:
        found = [next(stream) for _ in range(100)]
        assert stream.position == 200
    assert_same(found, demo.sample(200, seed=stream.seed, pool=2, refresh=8))
    assert list(stream) == []  # closed


def test_it_goes_on_where_it_was(demo: Generator) -> None:
    whole = demo.sample(40, seed=4)
    with demo.stream(5, seed=4, stop=40) as stream:
        found = [next(stream), next(stream)]
        state = stream.state_dict()
    assert state == {"seed": 4, "position": 10}
    with demo.stream(5, stop=40) as again:
        next(again)
        again.load_state_dict(state)
        assert_same([*found, *again], whole)
    with demo.stream(10, state["seed"], start=state["position"], stop=40) as other:
        assert_same([*found, *other], whole)


def test_batches_belong_to_their_receiver(demo: Generator) -> None:
    with demo.stream(4, seed=4, stop=40, pool=3, refresh=2) as stream:
        found = list(stream)
        kept = [batch.images.copy() for batch in found]
        found[0].images[...] = 0
    assert not any(np.shares_memory(found[0].images, other.images) for other in found[1:])
    for batch, copy in zip(found[1:], kept[1:], strict=True):
        np.testing.assert_array_equal(batch.images, copy)


@pytest.mark.parametrize("prefetch", [1, 3])
def test_no_more_is_made_ahead_than_asked_for(prefetch: int) -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for k in range(100):
            made.append(k)
            yield k

    with Prefetch(items(), depth=prefetch) as stream:
        for taken in range(5):
            assert wait_until(lambda: len(made) >= taken + prefetch)  # noqa: B023
            time.sleep(0.02)
            assert len(made) == taken + prefetch
            assert next(stream) == taken


def test_an_exception_arrives_with_its_traceback(demo: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    render = demo._pipeline.renderer.render

    def failing_render(request: Any, *rest: Any) -> Batch:
        if request.indices[0] == 4:
            raise ZeroDivisionError("in the middle")
        return render(request, *rest)

    monkeypatch.setattr(demo._pipeline.renderer, "render", failing_render)
    with demo.stream(2, seed=4) as stream:
        found = [next(stream), next(stream)]
        with pytest.raises(ZeroDivisionError, match="in the middle") as caught:
            next(stream)
        assert "failing_render" in [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
        assert list(stream) == []  # it has ended
        assert not threads()
    assert stream.position == sum(len(batch) for batch in found) == 4


def test_bad_arguments_are_told_at_once(demo: Generator) -> None:
    bad: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({"batch_size": 0}, ValueError, "batch_size is 0"),
        ({"start": -1}, ValueError, "start is -1"),
        ({"stop": 2.5}, TypeError, r"stop is 2\.5"),
        ({"prefetch": -1}, ValueError, "prefetch is -1"),
        ({"indices": [1]}, TypeError, "option is 'indices'"),
        ({"noise": None}, TypeError, "option is 'noise'"),
        ({"do": {"shape": 10}}, ValueError, r"do\['shape'\] is 10"),
        ({"pool": 2, "refresh": 0}, ValueError, "refresh is 0"),
        ({"seed": -4}, ValueError, "seed is -4"),
    ]
    for options, error, message in bad:
        with pytest.raises(error, match=message):
            demo.stream(**{"batch_size": 2, "seed": 0, **options})
    with demo.stream(2, seed=0) as stream, pytest.raises(ValueError, match="state is"):
        stream.load_state_dict({"seed": 1})


def test_an_empty_stream_is_empty(demo: Generator) -> None:
    for start, stop in ((0, 0), (9, 4)):
        with demo.stream(4, seed=1, start=start, stop=stop) as stream:
            assert list(stream) == []


def test_the_last_indices_are_reached(demo: Generator) -> None:
    with demo.stream(4, seed=1, start=2**63 - 7) as stream:
        assert [len(batch) for batch in stream] == [4, 2]


# How a stream ends.


def test_leaving_in_the_middle_ends_the_thread(demo: Generator) -> None:
    with contextlib.suppress(KeyError), demo.stream(64, seed=1) as stream:
        next(stream)
        assert threads()
        raise KeyError
    assert not threads()
    stream.close()


def test_a_dropped_stream_ends_its_thread(demo: Generator) -> None:
    stream: Stream | None = demo.stream(4, seed=1)
    assert stream is not None
    next(stream)
    assert threads()
    stream = None
    gc.collect()
    assert wait_until(lambda: not threads())


def test_a_dropped_stream_in_a_cycle_ends_its_thread(demo: Generator) -> None:
    class Loop:
        def __init__(self) -> None:
            self.stream, self.me = demo.stream(4, seed=1), self
            next(self.stream)

    Loop()
    gc.collect()
    assert wait_until(lambda: not threads())


def test_closing_wakes_a_consumer_that_waits() -> None:
    go = threading.Event()

    def items() -> Iterator[int]:
        go.wait(10)
        yield 1

    stream = Prefetch(items(), depth=1)
    waiting = threading.Thread(target=lambda: got.extend(stream))
    got: list[int] = []
    waiting.start()
    closing = threading.Thread(target=stream.close)
    closing.start()
    waiting.join(5)
    assert not waiting.is_alive()
    go.set()
    closing.join(5)
    assert got == []


EXIT = """
import sys
from cgnrt import Generator
gen = Generator(sys.argv[1], threads=1)
stream = gen.stream(512, seed=0, prefetch=8)
next(stream)
if sys.argv[2] == "raise":
    raise KeyError("mine")
if sys.argv[2] == "thread":
    import threading
    threading.Thread(target=lambda: [next(stream) for _ in range(3)]).start()
print("last line")
"""


@pytest.mark.parametrize("how", ["return", "raise", "thread"])
def test_the_interpreter_ends_in_the_middle_of_a_batch(demo_plan: Path, how: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", EXIT, str(demo_plan), how],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if how == "raise":
        assert done.returncode == 1
        assert done.stderr.strip().endswith("KeyError: 'mine'")
    else:
        assert (done.returncode, done.stdout, done.stderr) == (0, "last line\n", "")


FORK = """
import os, sys, warnings
import numpy as np
from cgnrt import Generator
warnings.filterwarnings("ignore", ".*use of fork", DeprecationWarning)
gen = Generator(sys.argv[1], threads=1)
stream = gen.stream(64, seed=0, pool=8, refresh=4)
first = next(stream).images
pid = os.fork()
if not pid:
    try:
        next(stream)
    except RuntimeError as error:
        assert "Make a stream in each process" in str(error), error
        del stream
        with gen.stream(64, seed=0, pool=8, refresh=4) as mine:
            np.testing.assert_array_equal(next(mine).images, first)
        print("the child's own", flush=True)
        os._exit(0)
    os._exit(1)
assert os.waitpid(pid, 0)[1] == 0
next(stream)
print("the parent goes on")
"""


def test_a_forked_process_needs_a_stream_of_its_own(demo_plan: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORK, str(demo_plan)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout, done.stderr) == ("the child's own\nthe parent goes on\n", "")


def test_many_streams_of_one_generator_take_turns(demo: Generator) -> None:
    expected = [demo.sample(60, seed=seed, pool=4, refresh=1).images for seed in range(3)]
    streams = [demo.stream(20, seed=seed, stop=60, pool=4, refresh=1) for seed in range(3)]
    found = [[batch.images for batch in batches] for batches in zip(*streams, strict=True)]
    for k, images in enumerate(expected):
        np.testing.assert_array_equal(np.concatenate([batches[k] for batches in found]), images)


def test_memory_stays_flat(demo_plan: Path) -> None:
    """Thousands of batches, by the peak of the process: a leak of a batch in a hundred would show."""
    program = (
        "import sys, resource\nfrom cgnrt import Generator\n"
        "gen = Generator(sys.argv[1], threads=1, backend='native')\n"
        "peaks = []\n"
        "with gen.stream(64, seed=0, pool=32, refresh=256) as stream:\n"
        "    for k, _ in zip(range(3000), stream):\n"
        "        if k in (300, 2999): peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
        "print(peaks[1] - peaks[0])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(demo_plan)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert int(done.stdout) < 15_000  # kB; the batches themselves are 2.3 GB
