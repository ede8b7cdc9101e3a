"""A large request in bounded memory: one batch after the other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Protocol

import numpy as np

from cgnrt.batch import Batch
from cgnrt.request.options import SampleOptions
from cgnrt.request.resolver import Resolver
from cgnrt.sampling import check_index, check_span, resolve_indices


class Render(Protocol):
    """Makes the batch of the samples at stream indices `where`, int64 (n,)."""

    def __call__(self, options: SampleOptions, where: np.ndarray, /, *, noise: Any, out: Any) -> Batch: ...


def in_batches(
    render: Render,
    resolver: Resolver,
    options: SampleOptions,
    n: int | None,
    batch_size: int,
    *,
    start: int,
    indices: Any,
    noise: Any,
    out: Any,
) -> Iterator[Batch]:
    """`Generator.batches`, but for the check of what `out` is made of: checks now, renders when the iterator is asked.

    Where nothing has a row for each sample, memory does not grow with n.
    """
    size = check_batch_size(batch_size)
    where: np.ndarray | None = None
    if indices is None:
        count, first = check_span(n, start)
    else:
        where = resolve_indices(n, start, indices)
        count, first = len(where), 0
    options = resolver.check(options, count, noise=noise)
    given = None if noise is None else resolver.noise(noise, count)
    if out is not None and (not len(getattr(out, "shape", ())) or len(out) < min(size, count)):
        raise ValueError(
            f"sample: out is {getattr(out, 'shape', out)!r}, expected room for {min(size, count)} images."
        )
    truncation = np.asarray(options.truncation, np.float32) if np.ndim(options.truncation) else None
    if options.pool is not None:
        truncation = None  # one for all its entries

    def make(low: int, high: int) -> Batch:
        part = slice(low, high)
        return render(
            options if truncation is None else replace(options, truncation=truncation[part]),
            np.arange(first + low, first + high, dtype=np.int64) if where is None else where[part],
            noise=None if given is None else tuple(u if u is None else u[part] for u in given),
            out=None if out is None else out[: high - low],
        )

    return (make(low, min(low + size, count)) for low in range(0, count, size))


def check_batch_size(batch_size: object) -> int:
    """The number of samples in a batch.

    Raises:
      TypeError, ValueError: it is no integer of at least 1.
    """
    size = check_index("batch_size", batch_size)
    if not size:
        raise ValueError("sample: batch_size is 0, expected at least 1.")
    return size


def one_ahead(made: Iterator[Batch]) -> Iterator[Batch]:
    """The same batches, each handed out when the next one is under way: a GPU makes it while this one is used."""
    waiting: list[Batch] = []
    for batch in made:
        waiting.append(batch)
        if len(waiting) > 1:
            yield waiting.pop(0)
    yield from waiting
