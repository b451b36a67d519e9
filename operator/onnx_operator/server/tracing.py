"""Spans of requests for OpenTelemetry, where its packages are installed and an endpoint is named.

Named by the standard variables (https://opentelemetry.io/docs/specs/otel/protocol/exporter/):
``OTEL_EXPORTER_OTLP_ENDPOINT`` or ``OTEL_EXPORTER_OTLP_TRACES_ENDPOINT``, ``OTEL_SERVICE_NAME``.
"""

import logging
import os
import time
from typing import Any

from onnx_operator import __version__
from onnx_operator.server.dataplane.admission import Answered
from onnx_operator.server.metrics import SCORING

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

    def record(self, answered: Answered) -> None:
        """Record a request that has been answered."""
        if answered.protocol not in SCORING:
            return
        from opentelemetry.trace import SpanKind, Status, StatusCode

        headers = answered.headers()
        carrier = {name: headers[name] for name in ("traceparent", "tracestate") if name in headers}
        # It may have had its answer a while ago.
        end = time.time_ns() - int((time.monotonic() - answered.started - answered.seconds) * 1e9)
        span: Any = self._tracer.start_span(
            answered.method if answered.path is None else f"{answered.method} {answered.path}",
            context=self._propagator.extract(carrier),
            kind=SpanKind.SERVER,
            start_time=end - int(answered.seconds * 1e9),
            attributes=self._attributes | _attributes(answered),
        )
        if answered.failed:
            span.set_status(Status(StatusCode.ERROR))
        span.end(end)

    def close(self) -> None:
        """Send what has not been sent."""
        self._provider.shutdown()


def _attributes(answered: Answered) -> dict[str, Any]:
    """By the semantic conventions for HTTP and for gRPC: https://opentelemetry.io/docs/specs/semconv/."""
    if answered.path is None:
        return {
            "rpc.system.name": "grpc",
            "rpc.method": answered.method,
            "rpc.response.status_code": answered.code,
        }
    return {
        "http.request.method": answered.method,
        "url.path": answered.path,
        "http.response.status_code": answered.code,
    }


def tracer(model: str, version: str) -> Tracer | None:
    """A tracer, where the environment asks for one. A missing package is said once, and is no reason not to serve."""
    if not any(os.environ.get(name) for name in _VARIABLES):
        return None
    try:
        return Tracer(model, version)
    except ImportError:
        logger.warning("traces are asked for, but the packages are missing; install onnx-operator[otel]")
        return None
