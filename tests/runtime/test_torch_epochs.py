"""Epochs of `cgnrt.torch` after a resume: what is said last holds, `set_epoch` or a loaded state."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch.utils.data import DataLoader
from torchdata.stateful_dataloader import StatefulDataLoader

from cgnrt import Generator
from cgnrt.torch import CounterfactualDataset

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*use of fork"),
    pytest.mark.filterwarnings("ignore:This DataLoader will create"),  # more workers than cores
    pytest.mark.filterwarnings("ignore:'set_vital' is deprecated"),  # torchdata 0.11 calls it
]

N = 42


@pytest.fixture
def demo(demo_plan: Path) -> Generator:
    return Generator(demo_plan, backend="native", precision="fp32")


def numbers(batches: Any) -> list[int]:
    return [int(i) for batch in batches for i in np.atleast_1d(batch.indices)]


def epoch(e: int) -> list[int]:
    return list(range(N * e, N * e + N))


class Run:
    """A data set and its loader, as a program makes them when it starts."""

    def __init__(
        self, demo: Generator, size: int | None, workers: int, options: dict[str, Any], **loading: Any
    ) -> None:
        self.data = CounterfactualDataset(demo, size, n=N, **options)
        self.loader: StatefulDataLoader[Any] = StatefulDataLoader(
            self.data, batch_size=None if size else 4, num_workers=workers, **loading
        )

    def take(self, count: int | None = None) -> list[int]:
        return numbers(itertools.islice(self.loader, count))


CASES = pytest.mark.parametrize(
    ("size", "workers", "options"),
    [
        (4, 0, {}),
        (4, 2, {}),
        (4, 3, {}),
        (None, 0, {}),
        (None, 2, {}),
        (4, 0, {"pool": 4, "refresh": 2}),
        (4, 2, {"pool": 4, "refresh": 2}),
        (None, 2, {"pool": 4, "refresh": 2}),
    ],
)


@CASES
def test_the_epoch_after_a_resumed_one_is_new(
    demo: Generator, size: int | None, workers: int, options: dict[str, Any]
) -> None:
    first = Run(demo, size, workers, options)
    first.data.set_epoch(0)
    assert sorted(first.take()) == epoch(0)
    state = json.loads(json.dumps(first.loader.state_dict()))
    second = Run(demo, size, workers, options)
    second.loader.load_state_dict(state)
    second.data.set_epoch(1)
    assert sorted(second.take()) == epoch(1)
    second.data.set_epoch(2)
    assert sorted(second.take()) == epoch(2)


@CASES
@pytest.mark.parametrize("taken", [1, 2, 5])
def test_an_epoch_set_after_a_state_begins_at_its_first_sample(
    demo: Generator, size: int | None, workers: int, options: dict[str, Any], taken: int
) -> None:
    plain = Run(demo, size, workers, options)
    plain.data.set_epoch(1)
    whole = plain.take()  # in the loader's order
    assert sorted(whole) == epoch(1)

    first = Run(demo, size, workers, options)
    first.take(taken)
    second = Run(demo, size, workers, options)
    second.loader.load_state_dict(first.loader.state_dict())
    second.data.set_epoch(1)
    found = second.take(taken)
    third = Run(
        demo, size, workers, options
    )  # stopped again, in an epoch whose first batch is another worker's
    third.loader.load_state_dict(second.loader.state_dict())
    assert found + third.take() == whole
    third.data.set_epoch(2)
    assert sorted(third.take()) == epoch(2)


@pytest.mark.parametrize("workers", [0, 2])
def test_two_epochs_are_skipped_one_after_the_other(demo: Generator, workers: int) -> None:
    state = None
    for e in range(3):
        run = Run(demo, 4, workers, {})
        if state is not None:
            run.loader.load_state_dict(state)
        run.data.set_epoch(e)
        assert run.take(3) == epoch(e)[:12]
        state = run.loader.state_dict()


@pytest.mark.parametrize("workers", [0, 2])
def test_the_state_of_the_same_epoch_goes_on(demo: Generator, workers: int) -> None:
    first = Run(demo, 4, workers, {})
    first.data.set_epoch(1)
    found = first.take(3)
    second = Run(demo, 4, workers, {})
    second.loader.load_state_dict(first.loader.state_dict())
    second.data.set_epoch(1)
    assert found + second.take() == epoch(1)


@pytest.mark.parametrize(("workers", "persistent"), [(0, False), (2, False), (2, True)])
def test_a_loader_that_is_taken_back_goes_back(demo: Generator, workers: int, persistent: bool) -> None:
    """The same objects: the epoch of the state is loaded after epochs that were iterated."""
    run = Run(demo, 4, workers, {}, persistent_workers=persistent)
    found = run.take(3)
    state = run.loader.state_dict()
    for e in (1, 2):
        run.data.set_epoch(e)
        assert run.take() == epoch(e)
    run.loader.load_state_dict(state)
    assert found + run.take() == epoch(0)
    assert run.take() == epoch(0)  # a whole one, of the epoch that was loaded
    run.loader.load_state_dict(state)
    run.data.set_epoch(2)
    assert run.take() == epoch(2)


def test_spawned_workers_hear_of_it(demo: Generator) -> None:
    first, second = (Run(demo, 8, 2, {}, multiprocessing_context="spawn") for _ in range(2))
    first.take(1)
    second.loader.load_state_dict(first.loader.state_dict())
    second.data.set_epoch(1)
    assert second.take() == epoch(1)


@pytest.mark.parametrize("size", [8, None])
def test_without_a_loader(demo: Generator, size: int | None) -> None:
    def make() -> CounterfactualDataset:
        return CounterfactualDataset(demo, size, n=N)

    first, second = make(), make()
    first.set_epoch(0)
    assert numbers(first) == epoch(0)
    second.load_state_dict(first.state_dict())
    second.set_epoch(1)
    assert numbers(second) == epoch(1)
    second.load_state_dict(first.state_dict())
    assert numbers(second) == epoch(0)  # the next after one that has ended: a whole one

    middle = make()
    begun = numbers(itertools.islice(middle, 2))
    state = middle.state_dict()
    for e, expected in ((1, epoch(1)), (0, epoch(0)[len(begun) :])):
        second.load_state_dict(state)
        second.set_epoch(e)
        assert numbers(second) == expected
    second.set_epoch(1)
    second.load_state_dict(state)  # said last
    assert numbers(second) == epoch(0)[len(begun) :]
    second.load_state_dict(state)
    second.set_epoch(1)
    second.set_epoch(0)
    assert numbers(second) == epoch(0)


def test_the_state_after_set_epoch_is_the_beginning_of_that_epoch(demo: Generator) -> None:
    data, other = (CounterfactualDataset(demo, 8, n=N) for _ in range(2))
    numbers(data)
    data.set_epoch(1)
    other.load_state_dict(data.state_dict())
    assert numbers(other) == epoch(1)
    iteration = iter(data)
    begun = numbers(itertools.islice(iteration, 2))
    data.set_epoch(2)
    assert data.state_dict()["epoch"] == 2
    begun += numbers(itertools.islice(iteration, 1))  # still of epoch 1
    other.load_state_dict(data.state_dict())
    assert begun + numbers(other) == epoch(1)


def test_the_state_of_a_loader_that_was_not_iterated(demo: Generator) -> None:
    first, second = Run(demo, 8, 0, {}), Run(demo, 8, 0, {})
    first.take(2)
    second.loader.load_state_dict(first.loader.state_dict())
    second.loader.state_dict()  # makes the iteration already
    second.data.set_epoch(1)
    assert second.take() == epoch(1)


def test_an_iteration_hears_of_an_epoch_that_is_set_before_its_first_batch(demo: Generator) -> None:
    data = CounterfactualDataset(demo, 8, n=N)
    iteration = iter(DataLoader(data, batch_size=None))
    data.set_epoch(1)
    assert numbers(iteration) == epoch(1)
