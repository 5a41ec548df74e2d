"""Counters of a server in the format of Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

# Seconds of an answer: the bundled model needs tenths of a second on a CPU.
_SECONDS = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_BATCHES = (1, 2, 4, 8, 16)


class Metrics:
    """Counters of one server, in a registry of their own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "maskfree_requests",
            "Requests by route, method and status.",
            ("route", "method", "status"),
            registry=self._registry,
        )
        self.seconds = Histogram(
            "maskfree_request_seconds",
            "Time from a request's first byte to the end of its answer.",
            ("route",),
            buckets=_SECONDS,
            registry=self._registry,
        )
        self.photos = Counter(
            "maskfree_photos", "Photos scored, by model.", ("model",), registry=self._registry
        )
        self.batch = Histogram(
            "maskfree_batch_photos",
            "Photos of a forward pass.",
            buckets=_BATCHES,
            registry=self._registry,
        )
        self.waiting = Gauge(
            "maskfree_waiting_photos", "Photos in the queue and at work.", registry=self._registry
        )
        self.open = Gauge(
            "maskfree_open_requests", "Requests not answered yet.", registry=self._registry
        )

    def text(self) -> bytes:
        """Write all counters.

        Returns:
            Text in the format that Prometheus reads.
        """
        return generate_latest(self._registry)
