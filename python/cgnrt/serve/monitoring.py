"""What a server counts: metrics in Prometheus' text format."""

from __future__ import annotations

from collections.abc import Callable

from cgnrt.serve import serve_extra

with serve_extra("prometheus_client"):
    import prometheus_client as prometheus

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_IMAGES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)


class Metrics:
    """What a server counts. Label values are a fixed few: none comes from a request."""

    def __init__(self) -> None:
        prometheus.disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series beside each
        self.registry = prometheus.CollectorRegistry()
        self.requests = prometheus.Counter(
            "cgnrt_requests_total",
            "Inference requests, by how they ended.",
            ["outcome"],
            registry=self.registry,
        )
        self.images = prometheus.Counter("cgnrt_images_total", "Images in answers.", registry=self.registry)
        self.closed = prometheus.Counter(
            "cgnrt_closed_connections_total",
            "HTTP connections that the server closed: for room, because a head was slow or an answer unread.",
            ["reason"],
            registry=self.registry,
        )
        for reason in ("room", "slow", "unread"):
            self.closed.labels(reason)
        self.latency = self._histogram(
            "cgnrt_request_seconds", "From a request to its answer, for answered requests.", _SECONDS
        )
        self.batch = self._histogram("cgnrt_batch_images", "Images in one engine call.", _IMAGES)
        self.merged = self._histogram("cgnrt_batch_requests", "Requests in one engine call.", _IMAGES[:8])

    def gauge(self, name: str, text: str, read: Callable[[], float]) -> None:
        """Show the value of `read` at the time of a scrape."""
        prometheus.Gauge(name, text, registry=self.registry).set_function(read)

    def text(self) -> bytes:
        """All metrics, as Prometheus scrapes them."""
        found: bytes = prometheus.generate_latest(self.registry)
        return found

    def _histogram(self, name: str, text: str, bounds: tuple[float, ...]) -> prometheus.Histogram:
        return prometheus.Histogram(name, text, buckets=bounds, registry=self.registry)
