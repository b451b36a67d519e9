"""Spans of requests for OpenTelemetry, where its packages are installed and an endpoint is named.

Named by the standard variables (https://opentelemetry.io/docs/specs/otel/protocol/exporter/):
``OTEL_EXPORTER_OTLP_ENDPOINT`` or ``OTEL_EXPORTER_OTLP_TRACES_ENDPOINT``, ``OTEL_SERVICE_NAME``.
"""

import logging
import os
import time
from typing import Any

from onnx_operator import __version__
from onnx_operator.server.http.connection import Exchange

logger = logging.getLogger(__name__)

_VARIABLES = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


class Tracer:
    """Makes a span of each answered scoring request, as a child of the caller's."""

    def __init__(self, model: str, version: str) -> None:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        named = {} if os.environ.get("OTEL_SERVICE_NAME") else {"service.name": model}
        self._provider = TracerProvider(resource=Resource.create(named))
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("onnx_operator.server", __version__)
        self._propagator = TraceContextTextMapPropagator()
        self._attributes = {"gen_ai.request.model": model, "onnx.model.version": version}

    def finished(self, exchange: Exchange, status: int) -> None:
        """Record a request that has been answered."""
        if exchange.route is None or not exchange.route.scoring:
            return
        from opentelemetry.trace import SpanKind, Status, StatusCode

        carrier = {
            name.decode("latin-1"): value.decode("latin-1")
            for name, value in exchange.headers.items()
            if name in (b"traceparent", b"tracestate")
        }
        end = time.time_ns()
        seconds = time.monotonic() - exchange.started
        path = exchange.path[:200].decode("latin-1")
        span: Any = self._tracer.start_span(
            f"{exchange.method.decode('latin-1')} {path}",
            context=self._propagator.extract(carrier),
            kind=SpanKind.SERVER,
            start_time=end - int(seconds * 1e9),
            attributes=self._attributes
            | {
                "http.request.method": exchange.method.decode("latin-1"),
                "url.path": path,
                "http.response.status_code": status,
            },
        )
        if status >= 500:
            span.set_status(Status(StatusCode.ERROR))
        span.end(end)

    def close(self) -> None:
        """Send what has not been sent."""
        self._provider.shutdown()


def tracer(model: str, version: str) -> Tracer | None:
    """A tracer, where the environment asks for one. A missing package is said once, and is no reason not to serve."""
    if not any(os.environ.get(name) for name in _VARIABLES):
        return None
    try:
        return Tracer(model, version)
    except ImportError:
        logger.warning("traces are asked for, but the packages are missing; install onnx-operator[otel]")
        return None
