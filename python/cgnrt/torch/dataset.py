"""A stream of counterfactuals as a torch data set."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from cgnrt._support.machine import available_cores
from cgnrt._support.prefetch import Prefetch
from cgnrt._support.suggest import did_you_mean
from cgnrt.batch import Batch
from cgnrt.generator import Generator
from cgnrt.pipeline import check_batch_size
from cgnrt.request.options import SampleOptions
from cgnrt.request.place import require_drawn
from cgnrt.sampling import MECHANISMS, Labels, check_index, check_span
from cgnrt.stream import on_torch_threads, one_ahead
from cgnrt.torch import transport
from cgnrt.torch.epochs import Epochs, Position
from cgnrt.torch.samples import Pairs, PlacedSamples, Samples, samples_of
from cgnrt.torch.sharding import LoaderProcess, batch_numbers, run_length

_BLOCK = 64  # samples that are made at once where single ones are handed out
_EPOCH = 2**40  # samples between the epochs of a data set without end


class CounterfactualDataset(IterableDataset[Any]):
    """A stream of counterfactuals for a `DataLoader`.

    Args:
      generator: a Generator, or the path of a plan for one without options. Spawned workers open it by its path and
        options; each has engines of its own and its part of the cores.
      batch_size: of the batches that are yielded, for `DataLoader(dataset, batch_size=None)`, which passes them on as
        they are: with a batch size of its own the loader would make batches of batches. None yields single samples.
      seed: of the stream.
      n: samples in an epoch; None is without end.
      start: number of the first sample.
      label: "shape", "texture" or "background": yields `Pairs`, which unpack as `images, labels`; not with `transform`.
      transform: makes what is yielded from a `Batch` of tensors, in the process that makes the batch; by default
        `Samples`, or with `place` `PlacedSamples`. It has to pickle for spawned workers.
      prefetch: as for `Generator.stream`, but batches are made one by one; it has no effect in workers.
      options: of `Generator.sample`, such as `pool`, `refresh` and `place`; not `indices`, `noise` and `out`.
    Raises:
      TypeError, ValueError: as `sample`, and at once.

    Ranks (of torch.distributed, else of torchrun's RANK and WORLD_SIZE) and workers take whole batches by their
    numbers: an epoch has the same samples for any number of ranks and workers. Without `refresh` the loader of a rank
    gives the batches of its rank in order (every world-size-th of the stream). With `refresh` each worker takes long
    runs of batches, because workers do not share pool entries. If the number of batches is not a multiple of the
    number of ranks, some ranks get one batch more.

    `state_dict` and `load_state_dict` are for torchdata's `StatefulDataLoader`, or, without workers, for a loop.
    """

    def __init__(
        self,
        generator: Generator | str | os.PathLike[str],
        batch_size: int | None = None,
        seed: int = 0,
        *,
        n: int | None = None,
        start: int = 0,
        label: str | None = None,
        transform: Callable[[Batch], Any] | None = None,
        prefetch: int = 2,
        **options: Any,
    ) -> None:
        if not isinstance(generator, Generator):
            generator = Generator(generator)
        asked = SampleOptions.collect("dataset", {"seed": seed, **options})
        require_drawn("dataset", asked.place)
        self._options = generator.check(asked)
        self.generator = generator
        self.batch_size = batch_size
        self._size = _BLOCK if batch_size is None else check_batch_size(batch_size)
        self._n = None if n is None else check_index("n", n)
        self._start = check_index("start", start)
        check_span(self._n or 0, self._start)
        self._transform = transform
        self._label = None if label is None else _check_label(label, transform)
        self._prefetch = check_index("prefetch", prefetch)
        self._run = run_length(self._options, self._size)
        self._epochs = Epochs()
        self._rank: tuple[int, int] | None = None
        self._own: tuple[int, Generator] | None = None
        self._position: Position | None = None  # of the last iteration
        self._resumed: Position | None = None  # where the next one begins
        self._said: int | None = None  # what `set_epoch` said before a state was loaded

    @property
    def seed(self) -> int:
        """The seed of the stream."""
        return self._options.drawn_seed

    def set_epoch(self, epoch: int) -> None:
        """Which samples the next iteration has: epoch e those from `start + e * n`, all of them new.

        Without end (`n=None`) epochs are 2**40 samples apart. Reaches workers that live on, too. After a state was
        loaded, another epoch than the state's begins at its first sample.
        """
        check_span(self._n or 0, self._start + check_index("epoch", epoch) * (self._n or _EPOCH))
        self._epochs.say(epoch)
        if self._position is not None and self._position.epoch != epoch:
            self._position = self._resumed = None

    def __len__(self) -> int:
        """What this rank yields in an epoch: batches, or samples without a batch size."""
        if self._n is None:
            raise TypeError(
                "dataset: n is None, expected a number of samples: an endless data set has no length."
            )
        count = -(-self._n // self._size)
        rank, ranks = self._find_rank()
        numbers = batch_numbers(count, self._run, LoaderProcess(rank, ranks))
        if not isinstance(numbers, range):
            raise TypeError("dataset: batches have no end.")
        if self.batch_size is not None:
            return len(numbers)
        last = len(numbers) > 0 and numbers[-1] == count - 1
        return len(numbers) * self._size - (count * self._size - self._n if last else 0)

    def __iter__(self) -> Iterator[Any]:
        process = self._find_process()
        resumed, self._resumed = self._resumed, None
        said, self._said = self._said, None
        if resumed is not None:
            found, expected = resumed.place.numbers, process.numbers
            # A worker takes the part that its state is of: see `Epochs.take_turns`.
            if (*found[:2], found[3]) != (*expected[:2], expected[3]):
                raise ValueError(
                    f"dataset: state is of (rank, ranks, worker, workers) {found}, expected {expected}. "
                    "Resume with the same number of ranks and workers."
                )
        # A worker whose part has ended has no more, while other workers go on.
        if resumed is None or (resumed.ended and get_worker_info() is None):
            resumed = Position(self._epochs.next if resumed is None else resumed.epoch, process)
        self._epochs.heed()
        self._position = resumed
        return _Iteration(self, replace(resumed), said)

    def state_dict(self) -> dict[str, Any]:
        """The position of the last iteration in this process; the beginning of the epoch if `set_epoch` was later."""
        position = self._position or Position(self._epochs.next, self._find_process())
        return position.to_dict(self.seed)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Let the next iteration continue from a state; the iterations after it start from the beginning.

        What is said last holds, this or `set_epoch`. But a `StatefulDataLoader` calls this only when it is iterated: an
        epoch that was set before then, and was not iterated yet, holds if it is not the state's.

        Raises:
          ValueError: the state has another seed, or is not from `state_dict`.
        """
        resumed = Position.from_dict(state, self.seed)
        check_span(self._n or 0, self._start + check_index("epoch", resumed.epoch) * (self._n or _EPOCH))
        said = self._epochs.said()
        if get_worker_info() is not None and said is not None and said != resumed.epoch:
            resumed = Position(said, self._epochs.take_turns(resumed))
        else:
            self._epochs.resume(resumed.epoch)
        self._resumed, self._position, self._said = resumed, replace(resumed), said

    def __getstate__(self) -> dict[str, Any]:
        # A spawned worker has no torch.distributed to ask for its rank.
        rank = self._find_rank() if _has_ranks() else None
        return {**self.__dict__, "_rank": rank, "_own": None}

    def _iterate(self, position: Position) -> Iterator[Any]:
        process = position.place
        begin = self._start + position.epoch * (self._n or _EPOCH)
        count = None if self._n is None else -(-self._n // self._size)
        skipped, within = (position.done, 0) if self.batch_size else divmod(position.done, self._size)
        numbers = itertools.islice(batch_numbers(count, self._run, process), skipped, None)
        generator = self._generator_of(process)

        outbox = _Outbox(generator) if self._sends_batches() else None
        transform = self._transform or (samples_of if outbox is None else outbox.samples_of)

        def samples() -> Iterator[Batch]:
            for number in numbers:
                low = number * self._size
                size = self._size if self._n is None else min(self._size, self._n - low)
                out = None if outbox is None else outbox.images(size)
                yield generator.sample(size, start=begin + low, out=out, **self._options)

        def finish(batch: Batch) -> tuple[int, Any]:
            found = transform(batch.torch())
            if self._label is not None:
                label: Any = found.labels[self._label]
                found = Pairs(found.images, label)
            return len(batch), found

        made: Iterator[tuple[int, Any]]
        if generator.device != "cpu":
            # `finish` comes last: it makes torch's stream wait for the batch, which must not happen earlier.
            made = map(finish, one_ahead(samples()))
        elif get_worker_info() is not None:  # the loader lets workers work ahead
            made = map(finish, samples())
        elif self._prefetch:
            made = Prefetch(map(finish, samples()), depth=self._prefetch)
        else:
            made = on_torch_threads(map(finish, samples()))
        for length, item in made:
            if self.batch_size is not None:
                self._advance(position)
                yield item
                continue
            for k in range(within, length):
                self._advance(position)
                yield row(item, k)
            within = 0
        position.ended = True
        self._position = replace(position)

    def _advance(self, position: Position) -> None:
        position.done += 1
        self._position = replace(position)

    def _sends_batches(self) -> bool:
        """Whether the batches go to another process unchanged."""
        return get_worker_info() is not None and self.batch_size is not None and self._transform is None

    def _generator_of(self, process: LoaderProcess) -> Generator:
        """The generator; in a worker, one that uses its part of the cores."""
        if get_worker_info() is None:
            return self.generator
        if self.generator.device != "cpu":
            raise ValueError(
                f"dataset: generator is on {self.generator.device} in a worker, expected num_workers=0: batches stay "
                "on the device and need no worker."
            )
        if self.generator.threads is not None:
            return self.generator
        if self._own is None or self._own[0] != os.getpid():
            sharing = process.workers * int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
            self._own = os.getpid(), self.generator.with_threads(max(1, available_cores() // sharing))
        return self._own[1]

    def _find_process(self) -> LoaderProcess:
        rank, ranks = self._find_rank()
        worker = get_worker_info()
        if worker is None:
            return LoaderProcess(rank, ranks)
        return LoaderProcess(rank, ranks, worker.id, worker.num_workers)

    def _find_rank(self) -> tuple[int, int]:
        """The rank of this process, and the number of ranks."""
        if _has_ranks():
            return torch.distributed.get_rank(), torch.distributed.get_world_size()
        if self._rank is not None:
            return self._rank
        return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


class _Iteration(Iterator[Any]):
    """An iteration of a data set.

    A `StatefulDataLoader` loads a state into the data set, iterates it, and loads the state of the iteration: that is
    how a loader is told from a user, who loads only the first.

    Args:
      said: the epoch that `set_epoch` had said when a state was loaded, if no iteration had followed the call.
    """

    def __init__(self, dataset: CounterfactualDataset, position: Position, said: int | None) -> None:
        self._dataset = dataset
        self._position = position
        self._said = said
        self._items: Iterator[Any] | None = None

    def __next__(self) -> Any:
        if self._items is None:
            if get_worker_info() is None:
                self._begin_anew(self._dataset._epochs.said())  # since the iteration was made
            self._items = self._dataset._iterate(self._position)
        return next(self._items)

    def state_dict(self) -> dict[str, Any]:
        return self._position.to_dict(self._dataset.seed)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._begin_anew(self._said)

    def _begin_anew(self, epoch: int | None) -> None:
        if epoch is None or epoch == self._position.epoch:
            return
        self._dataset.set_epoch(epoch)
        self._dataset._epochs.heed()
        self._position = Position(epoch, self._position.place)
        self._dataset._position = replace(self._position)


def _check_label(label: Any, transform: object) -> int:
    """Which of the labels it is."""
    if label not in MECHANISMS:
        raise ValueError(
            f"dataset: label is {label!r}, expected one of {', '.join(MECHANISMS)}.{did_you_mean(label, MECHANISMS)}"
        )
    if transform is not None:
        raise ValueError("dataset: label and transform are given, expected one of them.")
    return MECHANISMS.index(label)


def _has_ranks() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


class _Outbox:
    """Shared memory for images: a worker composes into it, and the consumer of the loader reads it."""

    def __init__(self, generator: Generator) -> None:
        self._shape = generator.image_shape
        self._dtype: torch.dtype = getattr(torch, generator.dtype)
        self._columns = self._place = torch.empty(0)

    def images(self, n: int) -> Tensor:
        """Memory for n images, with room for their labels, indices and places beside them."""
        images, self._columns, self._place = transport.outbox().room(
            [((n, *self._shape), self._dtype), ((4, n), torch.int64), ((n, 4), torch.float32)]
        )
        return images

    def samples_of(self, batch: Batch) -> Samples | PlacedSamples:
        """As `samples.samples_of`, for the images of the last call of `images`."""
        columns = self._columns
        for column, values in zip(columns, (*batch.labels, batch.indices), strict=True):
            column.copy_(torch.as_tensor(values))
        columns_of_labels: Any = columns[:3]
        labels = Labels(*columns_of_labels)
        if batch.place is None:
            return Samples(batch.images, labels, columns[3])
        self._place.copy_(torch.as_tensor(batch.place))
        return PlacedSamples(batch.images, labels, columns[3], self._place)


def row(item: Any, key: Any) -> Any:
    """The samples at `key` of a tensor, or of all tensors in a tuple, list or mapping."""
    if isinstance(item, Tensor):
        return item[key]
    if isinstance(item, Mapping):
        return {name: row(value, key) for name, value in item.items()}
    if isinstance(item, tuple) and hasattr(item, "_fields"):
        return type(item)(*(row(value, key) for value in item))
    if isinstance(item, tuple | list):
        return type(item)(row(value, key) for value in item)
    raise TypeError(
        f"dataset: transform gave {type(item).__name__}, expected tensors, in tuples or mappings, to take samples from."
    )
