"""What the networks read, on the device: noise drawn there, labels and what else the host knows sent in one copy."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from cgnrt import cuda
from cgnrt.render.cuda.uploads import Uploads
from cgnrt.request import Request
from cgnrt.sampling import MECHANISMS


class RequestInputs:
    """The inputs of one request, sent once and cut into chunks by views.

    Attributes:
      labels, indices: int64 (n,) each, on the device.
    """

    def __init__(
        self,
        request: Request,
        uploads: Uploads,
        stream: cuda.Stream,
        *,
        has_rolls: bool = True,
        embeddings: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        self._stream = stream
        self._options = request.options
        self._draws = {
            name: request.sampler.noise_draw(request.options, name)
            for name, given in zip(MECHANISMS, request.given[:3], strict=True)
            if given is None
        }
        arrays = {"indices": request.indices}
        for name, labels, given in zip(MECHANISMS, request.labels, request.given[:3], strict=True):
            arrays[f"label {name}"] = np.asarray(labels, np.int64)
            if given is not None:
                arrays[f"noise {name}"] = given
            if embeddings is not None:
                arrays[f"embedding {name}"] = np.asarray(embeddings[name], np.float32)
        for draw in self._draws.values():
            arrays[f"group {draw.group}"] = draw.indices(request.indices)
        if request.truncation is not None:
            arrays["truncation"] = request.truncation
        rolls = request.rolls()
        if has_rolls or rolls.any():
            arrays["rolls"] = rolls
        self._arrays = uploads.send(arrays)
        shape, texture, background = (self._arrays[f"label {name}"] for name in MECHANISMS)
        self.labels = (shape, texture, background)
        self.indices = self._arrays["indices"]

    def rolls(self, part: slice) -> cuda.DeviceArray | None:
        """(n, 2, 2) int32 of some of the samples, or None: nothing is rolled."""
        return self._part("rolls", part)

    def truncation(self, part: slice) -> cuda.DeviceArray | None:
        """(n, 1) float32 of some of the samples, or None: the plan has none."""
        return self._part("truncation", part)

    def noise(self, part: slice) -> dict[str, cuda.DeviceArray]:
        """What each mechanism reads, (n, z) float32 after truncation; shared noise is one array."""
        found: dict[object, cuda.DeviceArray] = {}
        noise = {}
        truncation = self.truncation(part)
        for name in MECHANISMS:
            draw = self._draws.get(name)
            key: object = draw or name
            if key not in found:
                if draw is None:
                    drawn = self._arrays[f"noise {name}"][part]
                else:
                    drawn = draw.draw(
                        self._options.seed, self._arrays[f"group {draw.group}"][part], self._stream
                    )
                if truncation is not None:
                    drawn = cuda.module().scale_rows(drawn, truncation, stream=self._stream)
                found[key] = drawn
            noise[name] = found[key]
        return noise

    def embedding(self, name: str, table: cuda.DeviceArray, part: slice) -> cuda.DeviceArray:
        """(n, e) float32 of one mechanism."""
        given = self._part(f"embedding {name}", part)
        if given is not None:
            return given
        labels = self._arrays[f"label {name}"][part]
        looked_up: cuda.DeviceArray = cuda.module().gather_rows(table, labels, stream=self._stream)
        return looked_up

    def _part(self, name: str, part: slice) -> cuda.DeviceArray | None:
        array = self._arrays.get(name)
        return None if array is None else array[part]
