"""A renewing pool on a device: pictures are copied to their slots there, in the order of the stream."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import zip_longest

import numpy as np

from cgnrt import cuda
from cgnrt.plan import Plan
from cgnrt.render.cuda.networks import CudaNetworks
from cgnrt.render.cuda.uploads import Uploads
from cgnrt.render.pools import PoolKey, Renewal, Slots, outputs_of
from cgnrt.sampling import MECHANISMS, Sampler


class CudaRenewingPool:
    """As `renewing.RenewingPool`, the pictures on a device.

    What was composed from a slot is on the stream before what writes it anew: nobody waits.
    """

    def __init__(
        self,
        key: PoolKey,
        renewal: Renewal,
        plan: Plan,
        networks: CudaNetworks,
        uploads: Uploads,
        stream: cuda.Stream,
        *,
        parts: bool,
    ) -> None:
        self.key = key
        self.renewal = renewal
        self._plan = plan
        self._networks = networks
        self._uploads = uploads
        self._stream = stream
        self._slots = {name: Slots(count) for name, count in zip(MECHANISMS, renewal.slots, strict=True)}
        self._outputs = {name: outputs_of(plan, name, parts) for name in MECHANISMS}
        self.pictures = {
            output: cuda.DeviceArray.empty((count, *shape), "float32", stream)
            for name, count in zip(MECHANISMS, renewal.slots, strict=True)
            for output, shape in self._outputs[name].items()
        }

    def has(self, *, parts: bool) -> bool:
        """Whether every picture is kept that is composed or, with `parts`, handed out."""
        return all(set(outputs_of(self._plan, m, parts)) <= set(kept) for m, kept in self._outputs.items())

    def index(
        self,
        entries: np.ndarray,
        indices: np.ndarray,
        sampler: Sampler,
        chunks: Callable[[int], Iterator[slice]],
    ) -> tuple[np.ndarray, cuda.DeviceArray]:
        """The slots, int32 (n, 3), of the entries that samples are composed from, on the host and on the device.

        Enqueues what makes the entries that are not held.
        """
        windows = self.renewal.windows(indices)
        places = {
            name: self._slots[name].place(wanted, window)
            for name, wanted, window in zip(MECHANISMS, entries.T, windows, strict=True)
        }
        slots = np.stack([places[name].index for name in MECHANISMS], axis=1)
        arrays = {"slots": slots}
        for name in MECHANISMS:
            missing = places[name].missing
            arrays[f"entries {name}"] = missing
            arrays[f"labels {name}"] = sampler.labels(self.key.options, name, missing)
            if self.key.truncation is not None:
                arrays[f"truncation {name}"] = np.full((len(missing), 1), self.key.truncation, np.float32)
        sent = self._uploads.send(arrays)
        # A chunk of every mechanism at once: they overlap, and hold no more than one chunk each beside the slots.
        for parts in zip_longest(*(chunks(len(places[name].missing)) for name in MECHANISMS)):
            started = {name: part for name, part in zip(MECHANISMS, parts, strict=True) if part is not None}
            made = {name: self._start(name, part, sent, sampler) for name, part in started.items()}
            self._networks.join()
            for name, part in started.items():
                self._copy(made[name], places[name].slots[part])
                self._slots[name].fill(places[name].slots[part], places[name].missing[part])
        return slots, sent["slots"]

    def _start(
        self, name: str, part: slice, sent: dict[str, cuda.DeviceArray], sampler: Sampler
    ) -> dict[str, cuda.DeviceArray]:
        draw = sampler.noise_draw(self.key.options, name)
        noise = draw.draw(self.key.options.seed, sent[f"entries {name}"][part], self._stream)
        truncation = None
        if self.key.truncation is not None:
            truncation = sent[f"truncation {name}"][part]
            noise = cuda.module().scale_rows(noise, truncation, stream=self._stream)
        table, labels = self._networks.tables[name], sent[f"labels {name}"][part]
        embedding = cuda.module().gather_rows(table, labels, stream=self._stream)
        found = self._networks.start(name, noise, embedding, truncation)
        return {output: found[output] for output in self._outputs[name]}

    def _copy(self, pictures: dict[str, cuda.DeviceArray], slots: np.ndarray) -> None:
        """Rows to their slots, consecutive ones at once."""
        ends = [*(np.flatnonzero(np.diff(slots) != 1) + 1).tolist(), len(slots)]
        for low, high in zip([0, *ends], ends, strict=False):
            first = int(slots[low])
            for output, array in pictures.items():
                target = self.pictures[output][first : first + high - low]
                cuda.module().copy(array[low:high], target, self._stream)
