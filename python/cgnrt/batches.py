"""A large request in bounded memory: one batch after the other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from cgnrt.batch import Batch
from cgnrt.request.requests import check_noise, check_truncation
from cgnrt.sampling import Sampler, check_index, check_span, resolve_indices, resolve_seed

if TYPE_CHECKING:
    from cgnrt.generator import Generator


def batches(
    generator: Generator,
    sampler: Sampler,
    n: int | None,
    batch_size: int,
    seed: int | None,
    *,
    start: int,
    indices: Any,
    noise: Any,
    truncation: Any,
    out: Any,
    **options: Any,
) -> Iterator[Batch]:
    """`Generator.batches`: checks everything now, renders when the iterator is asked."""
    size = check_index("batch_size", batch_size)
    if not size:
        raise ValueError("sample: batch_size is 0, expected at least 1.")
    where: np.ndarray | None = None
    if indices is None:
        count, first = check_span(n, start)
    else:
        where = resolve_indices(n, start, indices)
        count, first = len(where), 0
    seed = resolve_seed(seed)
    if options.get("pool") is None and np.ndim(truncation):
        check_truncation(generator.plan.manifest.truncation, truncation, count)
        truncation = np.asarray(truncation, np.float32)
    given = None if noise is None else check_noise(sampler, noise, count)
    if out is not None and (not len(getattr(out, "shape", ())) or len(out) < min(size, count)):
        raise ValueError(
            f"sample: out is {getattr(out, 'shape', out)!r}, expected room for {min(size, count)} images."
        )

    def sample(low: int, high: int) -> Batch:
        per_sample = isinstance(truncation, np.ndarray) and truncation.ndim == 1
        if where is None:
            span: dict[str, Any] = {"n": high - low, "start": first + low}
        else:
            span = {"indices": where[low:high]}
        return generator.sample(
            seed=seed,
            noise=None if given is None else tuple(u if u is None else u[low:high] for u in given),
            truncation=truncation[low:high] if per_sample else truncation,
            out=None if out is None else out[: high - low],
            **span,
            **options,
        )

    sample(0, 0)  # draws nothing and runs nothing, and checks all options
    lows = range(0, count, size)
    made = (sample(low, min(low + size, count)) for low in lows)
    return made if generator.device == "cpu" or out is not None else one_ahead(made)


def one_ahead(made: Iterator[Batch]) -> Iterator[Batch]:
    """The same batches, each handed out when the next one is under way: a GPU makes it while this one is used."""
    waiting: list[Batch] = []
    for batch in made:
        waiting.append(batch)
        if len(waiting) > 1:
            yield waiting.pop(0)
    yield from waiting
