"""Batches from a loader's workers: in memory that is used again, and never while somebody has it."""

from __future__ import annotations

import gc
import os
import pickle
from collections.abc import Iterator
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset

from cgnrt import Generator
from cgnrt.torch import CounterfactualDataset, Samples, transport

pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork")


@pytest.fixture
def demo(demo_plan: Path) -> Generator:
    return Generator(demo_plan, backend="native", precision="fp32", threads=1)


def made_in_a_slot(outbox: transport.Outbox, value: float) -> Samples:
    images, columns = outbox.room([((2, 3), torch.float32), ((4, 2), torch.int64)])
    images.fill_(value)
    columns.fill_(int(value))
    return Samples(images, tuple(columns[:3]), columns[3])  # type: ignore[arg-type]


def hand_over(samples: Samples) -> Samples:
    found: Samples = pickle.loads(bytes(ForkingPickler.dumps(samples)))
    return found


def test_memory_is_used_again_once_the_consumer_has_dropped_it() -> None:
    outbox = transport.Outbox()
    places = set()
    for value in range(20):
        sent = made_in_a_slot(outbox, value)
        got = hand_over(sent)
        del sent
        assert (got.images == value).all()
        assert (got.indices == value).all()
        assert [bool((column == value).all()) for column in got.labels] == [True] * 3
        places.add(got.images.data_ptr())
        del got
    assert len(places) == 1
    assert len(outbox._slots) == 1


def test_memory_is_not_used_again_while_any_tensor_is_there() -> None:
    outbox = transport.Outbox()
    kept = [hand_over(made_in_a_slot(outbox, value)) for value in range(5)]
    rest = kept[3].labels[1]
    view = kept[1].images[1:]
    del kept[1], kept[2]  # of 1 and 3 parts are left
    for value in range(10, 20):
        hand_over(made_in_a_slot(outbox, value))
    assert [float(batch.images[0, 0]) for batch in kept] == [0, 2, 4]
    assert rest.tolist() == [3, 3]
    assert view.tolist() == [[1.0, 1.0, 1.0]]
    assert len(outbox._slots) == 6


def test_the_sender_may_hold_on_to_what_it_sent() -> None:
    outbox = transport.Outbox()
    mine = made_in_a_slot(outbox, 1)
    hand_over(mine)
    others = [made_in_a_slot(outbox, value) for value in (2, 3)]
    assert (mine.images == 1).all()
    addresses = [sample.images.data_ptr() for sample in (mine, *others)]
    assert len(set(addresses)) == 3
    del mine, others
    again = made_in_a_slot(outbox, 4)
    assert again.images.data_ptr() in addresses
    assert hand_over(again).images[0, 0] == 4


def test_what_is_never_sent_is_free_again() -> None:
    outbox = transport.Outbox()
    for value in range(5):
        made_in_a_slot(outbox, value)
    assert len(outbox._slots) == 1


def test_a_fork_gives_nothing_back() -> None:
    outbox = transport.Outbox()
    batch: Samples | None = hand_over(made_in_a_slot(outbox, 7))
    pid = os.fork()
    if not pid:
        batch = None
        gc.collect()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    made_in_a_slot(outbox, 8)
    assert batch is not None
    assert (batch.images == 7).all()


def test_tensors_of_anywhere_else_go_as_tensors_do() -> None:
    outbox = transport.Outbox()
    sample = made_in_a_slot(outbox, 1)
    changed = sample._replace(images=sample.images + 1)
    for samples in (changed, Samples(torch.ones(2), (torch.ones(1),) * 3, torch.ones(1))):  # type: ignore[arg-type]
        assert transport.send([samples.images, *samples.labels, samples.indices]) is None
    assert (hand_over(changed).images == 2).all()


def test_a_batch_for_another_process_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="a batch of process 1 was sent to another process"):
        transport.receive(("nobody's", 1), 0, None, [])


def test_a_long_run_maps_few_slots(demo: Generator) -> None:
    dataset = CounterfactualDataset(demo, 16, n=16 * 200, pool=4, refresh=50)
    places: set[int] = set()
    for batch in DataLoader(dataset, batch_size=None, num_workers=2):
        places.add(batch.images.data_ptr())
    assert len(places) <= 2 * 8
    mapped = len(transport._known)
    for _ in range(3):
        assert len(list(DataLoader(dataset, batch_size=None, num_workers=1))) == 200
    assert len(transport._known) <= mapped + 1  # those of workers that have ended are forgotten


class Halved(IterableDataset[Any]):
    """What a user's own data set makes of ours, in the worker."""

    def __init__(self, inner: CounterfactualDataset) -> None:
        self.inner = inner

    def __iter__(self) -> Iterator[Any]:
        for batch in self.inner:
            yield {"x": batch.images[::2], "y": batch.labels.shape[::2]}


def test_other_data_sets_may_wrap_it(demo: Generator) -> None:
    wrapped = Halved(CounterfactualDataset(demo, 16, seed=3, n=16 * 40))
    found = list(DataLoader(wrapped, batch_size=None, num_workers=1))
    whole = demo.sample(16 * 40, seed=3)
    np.testing.assert_array_equal(torch.cat([batch["x"] for batch in found]), whole.images[::2])
    assert torch.cat([batch["y"] for batch in found]).tolist() == whole.labels.shape[::2].tolist()


class Pairs(IterableDataset[Any]):
    """Two of ours in one worker."""

    def __init__(self, *inner: CounterfactualDataset) -> None:
        self.inner = inner

    def __iter__(self) -> Iterator[Any]:
        return iter(zip(*self.inner, strict=True))


def test_two_data_sets_of_one_worker_do_not_mix(demo: Generator) -> None:
    pairs = Pairs(*(CounterfactualDataset(demo, 8, seed=seed, n=8 * 30) for seed in (1, 2)))
    for k, pair in enumerate(DataLoader(pairs, batch_size=None, num_workers=1)):
        for seed, batch in enumerate(pair, 1):
            expected = demo.sample(8, seed=seed, start=8 * k)
            np.testing.assert_array_equal(batch.images, expected.images)
            assert batch.labels.shape.tolist() == expected.labels.shape.tolist()


def test_epochs_of_lasting_workers_map_no_more(demo: Generator) -> None:
    dataset = CounterfactualDataset(demo, 8, n=8 * 40, pool=4, refresh=50)
    loader = DataLoader(dataset, batch_size=None, num_workers=1, persistent_workers=True)
    mapped = []
    for _ in range(5):
        assert sum(len(batch.images) for batch in loader) == 8 * 40
        mapped.append(sum(map(len, transport._known.values())))
    assert max(mapped) <= mapped[0] + 3
