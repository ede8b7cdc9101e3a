"""The CPU as a render device: arrays are NumPy's, engines run when they are called."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from cgnrt import ops
from cgnrt._support.forking import ForkLock
from cgnrt._support.memory import FreedBlocks
from cgnrt.backends import Choice, Engine
from cgnrt.backends.base import check_outputs
from cgnrt.batch import BFloat16Array
from cgnrt.plan import Plan
from cgnrt.plan.bank import widen
from cgnrt.render.device import (
    COLUMNS,
    PLACED,
    ROLLS,
    Moves,
    RenderDevice,
    Uploaded,
    compose_pictures,
    compose_placed_part,
    load_engines,
    output_shapes,
    placed_rows,
)
from cgnrt.request.options import PixelFormat
from cgnrt.sampling import NoiseDraw


class HostDevice(RenderDevice):
    """NumPy, the CPU engines of a plan, and the vectorised composer. bfloat16 images are their uint16 bits."""

    composes_banks = True

    def __init__(self, plan: Plan, choice: Choice, threads: int | None) -> None:
        super().__init__(plan, choice, threads)
        self._plan = plan
        self._choice = choice
        self._threads = threads
        self._tables = {name: network.embedding for name, network in plan.networks.items()}
        self._shapes = {name: output_shapes(network) for name, network in plan.networks.items()}
        self._engines: dict[str, Engine] = {}
        self._memory = FreedBlocks()
        self._turns = threading.local()  # `lock`: a thread's own

    def turn(self) -> AbstractContextManager[None]:
        if not all(getattr(engine, "reentrant", False) for engine in self._opened().values()):
            return self.lock
        if not hasattr(self._turns, "lock"):
            self._turns.lock = ForkLock()  # a fork waits for the turn's end, other threads do not
        own: ForkLock = self._turns.lock
        return own

    def empty(self, shape: tuple[int, ...], dtype: str = "float32") -> np.ndarray:
        return self._memory.empty(shape, np.uint16 if dtype == "bfloat16" else dtype)

    def shown(self, pixels: PixelFormat, images: Any) -> Any:
        bits = pixels.dtype == "bfloat16" and isinstance(images, np.ndarray)
        return BFloat16Array(images) if bits else images

    def upload(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        return list(arrays)

    def uploaded(self, arrays: Iterable[np.ndarray | None]) -> Uploaded:
        return _IN_PLACE

    def draw_noise(self, draw: NoiseDraw, seed: int, indices: np.ndarray, uploaded: Any) -> Any:
        return draw.draw(seed, indices)

    def scale_rows(self, rows: np.ndarray, factors: np.ndarray) -> np.ndarray:
        scaled: np.ndarray = rows * factors
        return scaled

    def embedding(self, mechanism: str, labels: np.ndarray) -> np.ndarray:
        rows: np.ndarray = self._tables[mechanism][labels]
        return rows

    def run(
        self, mechanism: str, inputs: Mapping[str, Any], into: Mapping[str, Any] | None = None
    ) -> dict[str, np.ndarray]:
        found = self._opened()[mechanism].run(inputs, into)
        n = len(inputs["noise"])
        shapes = {name: (n, *shape) for name, shape in self._shapes[mechanism].items()}
        check_outputs(f"run mechanism '{mechanism}'", found, shapes)
        return found

    def put(self, source: np.ndarray, target: np.ndarray, rows: np.ndarray) -> None:
        target[rows] = source

    def compose(
        self,
        pixels: PixelFormat,
        pictures: Mapping[str, np.ndarray],
        index: np.ndarray | None,
        moves: Moves,
        images: Any,
    ) -> None:
        compose_pictures(ops.compose, pixels, pictures, index, moves, images, threads=self._threads or 0)

    def keep(
        self,
        pictures: Mapping[str, np.ndarray],
        rows: np.ndarray | None,
        moves: Moves,
        parts: Mapping[str, np.ndarray],
    ) -> None:
        for name, part in parts.items():
            if moves.place is not None and name in PLACED:
                self._place(name, pictures[name], rows, moves, part)
                continue
            picture = pictures[name] if rows is None else pictures[name][rows[:, COLUMNS[name]]]
            if picture.dtype == np.uint8:
                picture = widen(picture)
            if moves.rolls is not None and name in ROLLS:
                picture = roll_each(picture, moves.rolls[:, ROLLS[name]])
            part[...] = picture

    def _place(
        self, name: str, picture: np.ndarray, rows: np.ndarray | None, moves: Moves, part: np.ndarray
    ) -> None:
        taken = np.arange(len(part)) if rows is None else rows[:, COLUMNS[name]].astype(np.int64)
        ends = np.stack([np.full((1, *part.shape[2:]), end, np.float32) for end in (0, 1)])
        black = np.zeros((1, *part.shape[1:]), np.float32)
        index = placed_rows(name, taken)
        compose_placed_part(
            ops.compose, ends, black, name, picture, index, moves, part, threads=self._threads or 0
        )

    def _opened(self) -> dict[str, Engine]:
        """The engines, loaded for the first run: to check a request must start no threads, as the process may fork."""
        if not self._engines:
            with self.lock:
                if not self._engines:
                    self._engines = load_engines(
                        self._plan, lambda name: self._choice.load(name, self._threads)
                    )
        return self._engines


class _InPlace(Uploaded):
    """Every array is where it is needed."""

    def __getitem__(self, array: np.ndarray) -> np.ndarray:
        return array


_IN_PLACE = _InPlace({}, [])


def roll_each(pictures: np.ndarray, shifts: np.ndarray) -> np.ndarray:
    """Shift picture i of (n, c, h, w) cyclically by `shifts[i]` = (dy, dx)."""
    n, _, height, width = pictures.shape
    rows = (np.arange(height) - shifts[:, :1]) % height
    columns = (np.arange(width) - shifts[:, 1:]) % width
    rolled: np.ndarray = pictures[np.arange(n)[:, None, None], :, rows[:, :, None], columns[:, None, :]]
    return rolled.transpose(0, 3, 1, 2)
