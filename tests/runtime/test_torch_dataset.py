"""`cgnrt.torch`: the same samples however many workers and ranks there are, in fork and spawn, resumed anywhere."""

from __future__ import annotations

import itertools
import os
import pickle
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader
from torchdata.stateful_dataloader import StatefulDataLoader

from cgnrt import Batch, Generator
from cgnrt.torch import CounterfactualDataset, Samples, mix
from cgnrt.torch.sharding import LoaderProcess, batch_numbers

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*use of fork"),
    pytest.mark.filterwarnings("ignore:This DataLoader will create"),  # more workers than cores
    pytest.mark.filterwarnings("ignore:'set_vital' is deprecated"),  # torchdata 0.11 calls it
]


@pytest.fixture
def demo(demo_plan: Path) -> Generator:
    """The native engine, which computes each image by itself: to the last bit the same however it is asked for."""
    return Generator(demo_plan, backend="native", precision="fp32")


def numbers(batches: Any) -> list[int]:
    return [int(i) for batch in batches for i in np.atleast_1d(batch.indices)]


def assert_samples(batches: list[Any], gen: Generator, seed: int = 0, **options: Any) -> None:
    for batch in batches:
        expected = gen.sample(indices=batch.indices.numpy(), seed=seed, **options)
        np.testing.assert_array_equal(batch.images.numpy(), expected.images)
        for column, label in zip(batch.labels, expected.labels, strict=True):
            np.testing.assert_array_equal(column.numpy(), label)


def loader(dataset: CounterfactualDataset, **options: Any) -> DataLoader[Any]:
    return DataLoader(dataset, batch_size=None, **options)


# What it yields.


def test_batches_pass_through_a_loader(demo: Generator) -> None:
    dataset = CounterfactualDataset(demo, 8, seed=3, n=20, start=5)
    found = list(loader(dataset))
    assert [type(batch) for batch in found] == [Samples] * 3
    assert len(dataset) == len(loader(dataset)) == 3
    assert numbers(found) == list(range(5, 25))
    assert_samples(found, demo, seed=3)
    assert found[0].images.dtype == torch.float32
    assert [column.dtype for column in found[0].labels] == [torch.int64] * 3


def test_samples_are_collated_by_the_loader(demo: Generator) -> None:
    dataset = CounterfactualDataset(demo, seed=3, n=150)
    assert len(dataset) == 150
    found = list(DataLoader(dataset, batch_size=40))
    assert [len(batch.images) for batch in found] == [40, 40, 40, 30]
    assert numbers(found) == list(range(150))
    assert_samples(found, demo, seed=3)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("mechanism", ["shape", "texture", "background"])
def test_pairs_of_images_and_one_label(demo: Generator, mechanism: str, workers: int) -> None:
    whole = demo.sample(20, seed=3)
    dataset = CounterfactualDataset(demo, 8, seed=3, n=20, label=mechanism)
    found = [(images, labels) for images, labels in loader(dataset, num_workers=workers)]
    assert [len(images) for images, _ in found] == [8, 8, 4]
    np.testing.assert_array_equal(torch.cat([images for images, _ in found]), whole.images)
    labels = torch.cat([labels for _, labels in found])
    assert labels.dtype == torch.int64
    np.testing.assert_array_equal(labels, getattr(whole.labels, mechanism))


def test_single_pairs_are_collated_by_the_loader(demo: Generator) -> None:
    whole = demo.sample(20, seed=3)
    for images, labels in DataLoader(CounterfactualDataset(demo, seed=3, n=20, label="shape"), batch_size=20):
        np.testing.assert_array_equal(images, whole.images)
        np.testing.assert_array_equal(labels, whole.labels.shape)


def test_the_path_of_a_plan_will_do(demo_plan: Path) -> None:
    for path in (demo_plan, str(demo_plan)):
        (batch,) = CounterfactualDataset(path, 4, n=4)
        np.testing.assert_array_equal(batch.labels.shape, Generator(demo_plan).sample(4, seed=0).labels.shape)


def test_labels_that_are_refused(demo: Generator) -> None:
    with pytest.raises(
        ValueError, match=r"label is 'shapes', expected one of shape, .* Did you mean 'shape'\?"
    ):
        CounterfactualDataset(demo, 4, label="shapes")
    with pytest.raises(ValueError, match="label and transform are given, expected one of them"):
        CounterfactualDataset(demo, 4, label="shape", transform=masks)
    real = [(torch.zeros(2, 3, 32, 32), torch.zeros(2, dtype=torch.int64))]
    with pytest.raises(ValueError, match=r"mix: counterfactual gives one label .* Leave out label="):
        next(iter(mix(real, CounterfactualDataset(demo, 4, label="shape"))))


def masks(batch: Batch) -> dict[str, Any]:
    return {"x": batch.images, "more": (batch.mask, batch.labels.texture)}


def test_what_is_yielded_is_the_callers_to_choose(demo: Generator) -> None:
    whole = demo.sample(10, seed=0, parts=True)
    batches = list(CounterfactualDataset(demo, 5, n=10, parts=True, transform=masks))
    np.testing.assert_array_equal(torch.cat([b["more"][0] for b in batches]), whole.mask)
    singles = list(CounterfactualDataset(demo, n=10, parts=True, transform=masks))
    assert [int(sample["more"][1]) for sample in singles] == whole.labels.texture.tolist()
    assert singles[0]["x"].shape == (3, 32, 32)
    with pytest.raises(TypeError, match="transform gave str, expected tensors"):
        next(iter(CounterfactualDataset(demo, n=10, transform=repr)))


def test_bfloat16_arrives(demo_plan: Path) -> None:
    gen = Generator(demo_plan, dtype="bfloat16")
    (batch,) = loader(CounterfactualDataset(gen, 4, n=4), num_workers=1)
    assert batch.images.dtype == torch.bfloat16


def test_epochs_are_new_samples(demo: Generator) -> None:
    dataset = CounterfactualDataset(demo, 8, n=20, start=2)
    assert numbers(dataset) == numbers(dataset) == list(range(2, 22))
    dataset.set_epoch(3)
    assert numbers(dataset) == list(range(62, 82))
    endless = CounterfactualDataset(demo, 8)
    endless.set_epoch(1)
    assert numbers(itertools.islice(endless, 2)) == list(range(2**40, 2**40 + 16))
    with pytest.raises(TypeError, match="n is None"):
        len(endless)


def test_an_iteration_that_is_left_leaves_no_thread(demo: Generator) -> None:
    def running() -> list[threading.Thread]:
        return [thread for thread in threading.enumerate() if thread.name == "cgnrt-prefetch"]

    for _ in zip(range(2), CounterfactualDataset(demo, 8), strict=False):
        pass
    for thread in running():
        thread.join(10)
    assert not running()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"batch_size": 0}, ValueError, "batch_size is 0"),
        ({"n": -1}, ValueError, "n is -1"),
        ({"seed": -1}, ValueError, "seed is -1"),
        ({"noise": None}, TypeError, "dataset: option is 'noise'"),
        ({"do": {"shape": 99}}, ValueError, r"do\['shape'\] is 99"),
        ({"refresh": 3}, ValueError, "refresh is 3 without a pool"),
    ],
)
def test_bad_arguments_are_told_at_once(
    demo: Generator, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        CounterfactualDataset(demo, **{"batch_size": 4, **options})


# Who takes what.


@pytest.mark.parametrize("count", [0, 1, 2, 7, 40])
@pytest.mark.parametrize("run", [None, 3])
def test_processes_take_every_batch_once(count: int, run: int | None) -> None:
    for ranks, workers in itertools.product((1, 2, 3), (1, 2, 5)):
        shares = [
            [list(batch_numbers(count, run, LoaderProcess(r, ranks, w, workers))) for w in range(workers)]
            for r in range(ranks)
        ]
        assert sorted(b for rank in shares for share in rank for b in share) == list(range(count))
        alone = [sorted(batch_numbers(count, run, LoaderProcess(r, ranks))) for r in range(ranks)]
        assert [sorted(itertools.chain(*rank)) for rank in shares] == alone  # whatever the workers
        assert max(map(len, alone)) - min(map(len, alone)) <= 1
        if run is not None:
            assert all(b - a == 1 for rank in shares for s in rank for a, b in itertools.pairwise(s))


def test_without_end_processes_take_runs_in_turn() -> None:
    places = [LoaderProcess(r, 2, w, 2) for r in range(2) for w in range(2)]
    for run in (None, 4):
        found = [list(itertools.islice(batch_numbers(None, run, place), 8)) for place in places]
        assert sorted(b for share in found for b in share) == list(range(32))
    assert found[1] == [8, 9, 10, 11, 24, 25, 26, 27]


@pytest.mark.parametrize("options", [{}, {"pool": 4, "refresh": 2}])
@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("workers", [0, 1, 3])
def test_an_epoch_is_the_same_samples(
    demo: Generator, monkeypatch: pytest.MonkeyPatch, workers: int, ranks: int, options: dict[str, Any]
) -> None:
    found, length = [], 0
    for rank in range(ranks):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", str(ranks))
        dataset = CounterfactualDataset(demo, 6, n=57, **options)
        batches = list(loader(dataset, num_workers=workers))
        assert len(batches) == len(dataset)
        length += len(dataset)
        found += batches
    assert length == 10
    assert sorted(numbers(found)) == list(range(57))
    assert_samples(found, demo, **options)
    if not options and ranks == 1:
        assert numbers(found) == list(range(57))  # in order, whatever the workers


def test_without_batches_ranks_know_how_many_samples(
    demo: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    found = []
    for rank in range(2):
        monkeypatch.setenv("RANK", str(rank))
        dataset = CounterfactualDataset(demo, n=130)  # blocks of 64: the last is short
        found.append([int(sample.indices) for sample in dataset])
        assert len(found[-1]) == len(dataset)
    assert sorted(found[0] + found[1]) == list(range(130))


def test_workers_may_be_spawned(demo: Generator) -> None:
    demo.sample(4, seed=0)
    options: dict[str, Any] = {"pool": 8, "refresh": 4}
    dataset = CounterfactualDataset(demo, 16, n=100, **options)
    found = list(loader(dataset, num_workers=2, multiprocessing_context="spawn"))
    assert sorted(numbers(found)) == list(range(100))
    assert_samples(found, demo, **options)


def test_workers_that_live_on_hear_of_the_epoch(demo: Generator) -> None:
    dataset = CounterfactualDataset(demo, 8, n=32)
    batches = loader(dataset, num_workers=2, persistent_workers=True)
    for epoch in (0, 2, 1):
        dataset.set_epoch(epoch)
        assert numbers(batches) == list(range(32 * epoch, 32 * epoch + 32))


def test_ranks_of_torch_distributed_need_no_telling(demo_plan: Path, tmp_path: Path) -> None:
    """Ranks that torch.multiprocessing made, which set no RANK, with spawned workers, which know no process group."""
    program = tmp_path / "ranks.py"
    program.write_text(
        "import sys, torch, torch.distributed as dist, torch.multiprocessing as mp\n"
        "from torch.utils.data import DataLoader\n"
        "from cgnrt import Generator\n"
        "from cgnrt.torch import CounterfactualDataset\n"
        "def main(rank, plan, store):\n"
        "    dist.init_process_group('gloo', f'file://{store}', rank=rank, world_size=2)\n"
        "    data = CounterfactualDataset(Generator(plan, threads=1), 5, n=33)\n"
        "    found = [b.indices for b in DataLoader(\n"
        "        data, batch_size=None, num_workers=1, multiprocessing_context='spawn')]\n"
        "    gathered = [None, None]\n"
        "    dist.all_gather_object(gathered, torch.cat(found).tolist())\n"
        "    if rank == 0: print(sorted(sum(gathered, [])) == list(range(33)), len(gathered[1]))\n"
        "    dist.destroy_process_group()\n"
        "if __name__ == '__main__': mp.spawn(main, sys.argv[1:], nprocs=2)\n"
    )
    clean = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE")}
    done = subprocess.run(
        [sys.executable, str(program), str(demo_plan), str(tmp_path / "store")],
        capture_output=True, text=True, check=False, env=clean,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == "True 15\n"


# Going on.


@pytest.mark.parametrize("size", [4, None])
@pytest.mark.parametrize("options", [{}, {"pool": 4, "refresh": 2}])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_stateful_loader_goes_on_where_it_was(
    demo: Generator, workers: int, options: dict[str, Any], size: int | None
) -> None:
    def make() -> Any:
        dataset = CounterfactualDataset(demo, size, n=42, **options)
        dataset.set_epoch(1)
        return StatefulDataLoader(dataset, batch_size=None if size else 4, num_workers=workers)

    whole = numbers(make())
    assert len(whole) == 42
    for taken in (0, 1, 5):
        first = make()
        found = numbers(itertools.islice(first, taken))
        second = make()
        if taken:
            state = pickle.loads(pickle.dumps(first.state_dict()))
            second.load_state_dict(state)
        assert found + numbers(second) == whole
    assert numbers(second) == whole  # the next pass is a whole one


def test_a_loop_without_workers_goes_on_by_the_data_set_alone(demo: Generator) -> None:
    dataset = CounterfactualDataset(demo, 8, n=40)
    found = numbers(itertools.islice(dataset, 2))
    again = CounterfactualDataset(demo, 8, n=40)
    again.load_state_dict(dataset.state_dict())
    assert again.state_dict() == dataset.state_dict()
    assert found + numbers(again) == list(range(40))
    for state, message in (
        ({"done": 1}, "state is"),
        ({**dataset.state_dict(), "seed": 5}, "state is of seed 5, expected 0"),
    ):
        with pytest.raises(ValueError, match=message):
            again.load_state_dict(state)
    again.load_state_dict({**dataset.state_dict(), "place": [0, 1, 0, 2]})
    with pytest.raises(ValueError, match=r"state is of .*\(0, 1, 0, 2\), expected \(0, 1, 0, 1\)"):
        iter(again)


# Mixing.


def real(n: int, size: int, label: int = 7) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return [
        (torch.full((min(size, n - k), 3, 32, 32), 9.0), torch.full((min(size, n - k),), label))
        for k in range(0, n, size)
    ]


def test_half_of_a_batch_is_real(demo: Generator) -> None:
    mixed = mix(real(20, 8), CounterfactualDataset(demo, 8, seed=3))
    assert len(mixed) == 3
    seen = 0
    for epoch in range(2):
        sizes = []
        for batch in mixed:
            half = len(batch.images) // 2
            assert batch.real.tolist() == [True] * half + [False] * half
            assert (batch.images[:half] == 9).all()
            expected = demo.sample(half, seed=3, start=seen)
            np.testing.assert_array_equal(batch.images[half:].numpy(), expected.images)
            for column, label in zip(batch.labels, expected.labels, strict=True):
                assert column.tolist() == [7] * half + label.tolist()
            seen += half
            sizes.append(half)
        assert sizes == [8, 8, 4], f"epoch {epoch}"
    assert seen == 40  # no counterfactual twice


@pytest.mark.parametrize(("share", "count"), [(0.25, 4), (0.75, 36), (0.01, 0)])
def test_other_shares_and_sources(demo: Generator, share: float, count: int) -> None:
    with demo.stream(5, seed=3) as stream:
        (batch,) = mix(real(12, 12), stream, share=share)
    assert (int(batch.real.sum()), int((~batch.real).sum())) == (12, count)
    np.testing.assert_array_equal(batch.images[12:].numpy(), demo.sample(count, seed=3).images)


def test_counterfactuals_begin_anew_when_they_end(demo: Generator) -> None:
    batches = list(mix(real(15, 5), CounterfactualDataset(demo, 4, seed=3, n=6)))
    images = torch.cat([batch.images[~batch.real] for batch in batches]).numpy()
    whole = demo.sample(6, seed=3).images
    np.testing.assert_array_equal(images, np.concatenate([whole, whole, whole])[:15])


def test_what_cannot_be_mixed(demo: Generator, demo_plan: Path) -> None:
    with pytest.raises(ValueError, match="share is 1, expected between"):
        mix([], [], share=1)
    with demo.stream(4, stop=4) as stream, pytest.raises(ValueError, match="has no more batches"):
        list(mix(real(8, 4), stream))
    small = [(torch.zeros(2, 3, 28, 28), torch.zeros(2, dtype=torch.int64))]
    with pytest.raises(
        ValueError, match=r"torch.float32 \(3, 32, 32\), expected torch.float32 \(3, 28, 28\)"
    ):
        list(mix(small, CounterfactualDataset(demo, 4)))
    whole_numbers = Generator(demo_plan, dtype="uint8")
    with pytest.raises(ValueError, match=r"are torch.uint8 .*, expected torch.float32"):
        list(mix(real(4, 4), CounterfactualDataset(whole_numbers, 4)))


def test_importing_cgnrt_leaves_torch_out() -> None:
    program = "import sys, cgnrt, cgnrt.stream; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_workers_take_their_part_of_the_cores(demo: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cgnrt.torch.dataset.available_cores", lambda: 8)
    asked: list[int | None] = []
    monkeypatch.setattr(
        "cgnrt.torch.dataset.get_worker_info", lambda: torch.utils.data._utils.worker.WorkerInfo(
            id=0, num_workers=3, seed=0, dataset=None
        )
    )  # fmt: skip
    with_threads = Generator.with_threads

    def spy(self: Generator, threads: int | None) -> Generator:
        asked.append(threads)
        return with_threads(self, threads)

    monkeypatch.setattr(Generator, "with_threads", spy)
    dataset = CounterfactualDataset(demo, 4, n=8)
    assert [len(list(dataset)), len(list(dataset))] == [1, 1]
    assert asked == [2]
    assert len(list(CounterfactualDataset(with_threads(demo, 1), 4, n=8))) == 1
    assert asked == [2]  # what is set is kept


def test_a_generator_on_a_gpu_needs_no_workers(demo: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Generator, "device", "cuda:0")
    with pytest.raises(ValueError, match="generator is on cuda:0 in a worker, expected num_workers=0"):
        list(loader(CounterfactualDataset(demo, 4, n=8), num_workers=1))
