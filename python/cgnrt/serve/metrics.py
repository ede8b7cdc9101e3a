"""Counters, gauges and histograms in Prometheus' text format."""

from __future__ import annotations

import bisect
import threading
from collections.abc import Callable, Sequence

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_IMAGES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)


class Counter:
    """A number for each value of its labels, which are a fixed few: nothing from a request becomes one."""

    def __init__(self, name: str, text: str, labels: Sequence[str] = ()) -> None:
        self._name, self._text, self._labels = name, text, tuple(labels)
        self._values: dict[tuple[str, ...], float] = {} if labels else {(): 0}
        self._lock = threading.Lock()

    def add(self, *labels: str, by: float = 1) -> None:
        with self._lock:
            self._values[labels] = self._values.get(labels, 0) + by

    def value(self, *labels: str) -> float:
        """What was counted so far."""
        return self._values.get(labels, 0)

    def lines(self) -> list[str]:
        with self._lock:
            values = sorted(self._values.items())
        found = [f"# HELP {self._name} {self._text}", f"# TYPE {self._name} counter"]
        for labels, value in values:
            pairs = ",".join(f'{key}="{text}"' for key, text in zip(self._labels, labels, strict=True))
            found.append(f"{self._name}{{{pairs}}} {value:g}" if pairs else f"{self._name} {value:.17g}")
        return found


class Gauge:
    """A number that is asked for when it is read."""

    def __init__(self, name: str, text: str, read: Callable[[], float]) -> None:
        self._name, self._text, self._read = name, text, read

    def lines(self) -> list[str]:
        return [
            f"# HELP {self._name} {self._text}",
            f"# TYPE {self._name} gauge",
            f"{self._name} {self._read():.17g}",
        ]


class Histogram:
    """How many values were at most each bound."""

    def __init__(self, name: str, text: str, bounds: Sequence[float]) -> None:
        self._name, self._text, self._bounds = name, text, tuple(bounds)
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0
        self._lock = threading.Lock()

    def add(self, value: float) -> None:
        with self._lock:
            self._counts[bisect.bisect_left(self._bounds, value)] += 1
            self._sum += value

    def lines(self) -> list[str]:
        with self._lock:
            counts, total = list(self._counts), self._sum
        found = [f"# HELP {self._name} {self._text}", f"# TYPE {self._name} histogram"]
        below = 0
        for bound, count in zip((*map(repr, self._bounds), "+Inf"), counts, strict=True):
            below += count
            found.append(f'{self._name}_bucket{{le="{bound}"}} {below}')
        return [*found, f"{self._name}_sum {total:.17g}", f"{self._name}_count {below}"]


class Metrics:
    """What a server counts."""

    def __init__(self) -> None:
        self.requests = Counter(
            "cgnrt_requests_total", "Inference requests, by how they ended.", ("outcome",)
        )
        self.images = Counter("cgnrt_images_total", "Images in answers.")
        self.latency = Histogram(
            "cgnrt_request_seconds", "From a request to its answer, of those that were answered.", _SECONDS
        )
        self.batch = Histogram("cgnrt_batch_images", "Images in one engine call.", _IMAGES)
        self.merged = Histogram("cgnrt_batch_requests", "Requests in one engine call.", _IMAGES[:8])
        self._gauges: list[Gauge] = []

    def gauge(self, name: str, text: str, read: Callable[[], float]) -> None:
        """Show what `read` gives."""
        self._gauges.append(Gauge(name, text, read))

    def text(self) -> str:
        """All of it, as Prometheus scrapes it."""
        parts: list[Counter | Gauge | Histogram] = [
            self.requests,
            self.images,
            self.latency,
            self.batch,
            self.merged,
            *self._gauges,
        ]
        return "\n".join(line for part in parts for line in part.lines()) + "\n"
