"""Pools on a device: the networks run once an entry, the composer once an image, and no picture leaves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from cgnrt import cuda
from cgnrt.plan import Plan
from cgnrt.render.cuda.networks import CudaNetworks
from cgnrt.render.cuda.uploads import Uploads
from cgnrt.render.pools import PoolKey, outputs_of
from cgnrt.sampling import MECHANISMS, Labels, Sampler


@dataclass(frozen=True)
class CudaPool:
    """As `pools.Pool`, the pictures on a device; labels are the host's."""

    key: PoolKey
    pictures: dict[str, cuda.DeviceArray]
    labels: Labels

    def has(self, plan: Plan, *, parts: bool) -> bool:
        """Whether every picture is here that is composed or, with `parts`, handed out."""
        return all(set(outputs_of(plan, name, parts)) <= set(self.pictures) for name in MECHANISMS)


def build_pool(
    key: PoolKey,
    plan: Plan,
    sampler: Sampler,
    networks: CudaNetworks,
    uploads: Uploads,
    stream: cuda.Stream,
    chunks: Callable[[int], Iterator[slice]],
    *,
    parts: bool,
    kept: dict[str, cuda.DeviceArray],
) -> CudaPool:
    """Run each mechanism for the entries of its pool; arguments as `pools.Pool.build` has them."""
    pictures = dict(kept)
    labels = []
    for name, size in zip(MECHANISMS, key.sizes, strict=True):
        entries = np.arange(size, dtype=np.int64)
        found = sampler.labels(key.options, name, entries)
        labels.append(found)
        wanted = outputs_of(plan, name, parts)
        if set(wanted) <= set(pictures):
            continue
        arrays = {
            output: cuda.DeviceArray.empty((size, *shape), "float32", stream)
            for output, shape in wanted.items()
        }
        draw = sampler.noise_draw(key.options, name)
        columns = {"indices": draw.indices(entries), "labels": found}
        if key.truncation is not None:
            columns["truncation"] = np.full((size, 1), key.truncation, np.float32)
        sent = uploads.send(columns)
        for part in chunks(size):
            noise = draw.draw(key.options.seed, sent["indices"][part], stream)
            truncation = sent["truncation"][part] if "truncation" in sent else None
            if truncation is not None:
                noise = cuda.module().scale_rows(noise, truncation, stream=stream)
            embedding = cuda.module().gather_rows(networks.tables[name], sent["labels"][part], stream=stream)
            into = {output: array[part] for output, array in arrays.items()}
            networks.start(name, noise, embedding, truncation, into)
        networks.join()
        pictures |= arrays
    return CudaPool(key, pictures, Labels(*labels))
