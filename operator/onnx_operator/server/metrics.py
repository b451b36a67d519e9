"""What ``/metrics`` tells, in a registry of its own."""

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """The server's metrics. ``route`` is a route's pattern, never a path that callers choose."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        # A second series beside every counter, for nothing that a dashboard shows.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.requests = Counter("onnx_server_requests", "Answered requests.", ["route", "code"], registry=self.registry)
        self.latency = Histogram(
            "onnx_server_request_duration_seconds",
            "Time from a request's head to the end of its answer.",
            ["route"],
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self.in_flight = Gauge(
            "onnx_server_requests_in_flight",
            "Scoring requests being answered or waiting.",
            registry=self.registry,
        )
        self.rejected = Counter(
            "onnx_server_requests_rejected",
            "Scoring requests turned away by a full queue.",
            registry=self.registry,
        )
        self.load_seconds = Gauge("onnx_server_model_load_seconds", "Time to load the model.", registry=self.registry)
        self.warm_up_seconds = Gauge(
            "onnx_server_model_warm_up_seconds", "Time of the warm-up inference.", registry=self.registry
        )
        self.ready = Gauge("onnx_server_ready", "1 while new requests should come here.", registry=self.registry)
        self.model_info = Gauge(
            "onnx_server_model_info",
            "Always 1; tells the model and the execution providers that run it.",
            ["model", "version", "execution_providers"],
            registry=self.registry,
        )

    def render(self) -> bytes:
        """Write all metrics in Prometheus's text format."""
        return generate_latest(self.registry)
