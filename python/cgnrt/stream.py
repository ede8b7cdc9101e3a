"""`Stream`: batches for a loop, made ahead of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import TypeVar

from cgnrt import _core
from cgnrt._support.prefetch import Prefetch
from cgnrt.batch import Batch
from cgnrt.sampling import check_index, check_span, resolve_seed

T = TypeVar("T")

_MAX_INDEX = 2**63 - 1


class Stream(Iterator[Batch]):
    """Batches of consecutive samples of a stream, `Generator.stream`.

    On the CPU a background thread makes them, up to `prefetch` ahead; it starts with the first batch that is asked for.
    With `prefetch=0` there is no thread, nor on a GPU, where a batch is handed out when the next one is enqueued.
    Nothing else writes into a batch. With `prefetch=0` and a pool, several lie in one block of at most 16 MiB, or one
    batch, which is freed with the last of them. An exception is raised in place of its batch, and ends the stream.

    Leaving the context, or `close`, ends the thread and waits for it. So do, at the latest, garbage collection
    (without waiting) and the end of the interpreter.

    Attributes:
      seed: of the samples.
      position: number of the first sample of the next batch.
    """

    def __init__(
        self,
        batches: Callable[[int, int, int], Iterator[Batch]],
        seed: int | None,
        *,
        start: int,
        stop: int | None,
        prefetch: int,
    ) -> None:
        """`batches(seed, start, n)` makes the batches, or raises at once; with `prefetch` 0 there is no thread."""
        self.seed = resolve_seed(seed)
        self.position = check_index("start", start)
        self._make_batches = batches
        self._stop = _MAX_INDEX if stop is None else check_index("stop", stop)
        self._prefetch = prefetch
        self._made: Iterator[Batch] | None = None
        self._closed = False
        self._batches()  # checks the arguments now

    def __next__(self) -> Batch:
        if self._closed:
            raise StopIteration
        if self._made is None:
            batches = self._batches()
            self._made = Prefetch(batches, depth=self._prefetch) if self._prefetch else batches
        batch = next(self._made)
        self.position += len(batch)
        return batch

    def state_dict(self) -> dict[str, int]:
        """Where the stream is: for `load_state_dict`, or `stream(seed=state["seed"], start=state["position"])`."""
        return {"seed": self.seed, "position": self.position}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Continue where another stream was; `stop` stays as it is.

        Raises:
          TypeError, ValueError: it is not such a state.
        """
        if not isinstance(state, Mapping) or set(state) != {"seed", "position"}:
            raise ValueError(f"stream: state is {state!r}, expected what state_dict() gave.")
        seed, position = resolve_seed(state["seed"]), check_index("position", state["position"])
        self._end()
        self.seed, self.position = seed, position

    def close(self) -> None:
        """End the stream, and its thread once its batch is finished."""
        self._closed = True
        self._end()

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _end(self) -> None:
        made, self._made = self._made, None
        if isinstance(made, Prefetch):
            made.close()

    def _batches(self) -> Iterator[Batch]:
        count = max(0, self._stop - self.position)
        check_span(count, self.position)
        return self._make_batches(self.seed, self.position, count)


def on_torch_threads(made: Iterator[T]) -> Iterator[T]:
    """The same items, made on the threads that PyTorch trains on, where it is loaded.

    These keep their cores while they wait for the next operation, so that other threads would get none beside them.
    """
    while True:
        _core.use_torch_team(True)
        try:
            item = next(made)
        except StopIteration:
            return
        finally:
            _core.use_torch_team(False)
        yield item


def one_ahead(made: Iterator[Batch]) -> Iterator[Batch]:
    """The same batches, each returned when the next one is enqueued: a GPU makes it while this one is used."""
    waiting: list[Batch] = []
    for batch in made:
        waiting.append(batch)
        if len(waiting) > 1:
            yield waiting.pop(0)
    yield from waiting
