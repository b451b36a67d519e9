"""What ``/metrics`` tells.

The figures of requests are plain numbers in memory that the processes of a server share: counting one costs a
tenth of what a client library's locks and labels do, and any process can tell for all.
"""

import mmap
import os
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from onnx_operator.common.cgroups import memory_used

SECONDS = (0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
SIZES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0)
SCORING = ("rest", "score", "grpc")
PROTOCOLS = (*SCORING, "other")
"""``other`` are health, metadata, metrics and the page."""
HTTP_CODES = (200, 304, 400, 401, 403, 404, 405, 408, 413, 414, 415, 417, 421, 429, 431, 499, 500, 502, 503, 504)
GRPC_CODES = (
    *("OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "UNIMPLEMENTED"),
    *("RESOURCE_EXHAUSTED", "INTERNAL", "UNAVAILABLE", "UNAUTHENTICATED"),
)
CODES = (*map(str, HTTP_CODES), *GRPC_CODES, "other")

STARTED = {
    "model_load_seconds": "Time to load the model.",
    "model_warm_up_seconds": "Time of the warm-up inferences.",
    "proof_contradicted": "1 where the warm-up saw rows meet that are proven not to: requests then share no run.",
    "golden_tests": "Data sets that the model has answered as expected.",
    "request_memory_bytes": "Memory that the requests of one process may take.",
    "memory_limit_bytes": "The container's memory limit; absent without one.",
}
"""Figures that only the start knows, and what they are."""
INFO_LABELS = ("model", "version", "execution_providers")

_CODE = {code: index for index, code in enumerate(CODES)}
_HTTP_CODE = {code: _CODE[str(code)] for code in HTTP_CODES}
_PROTOCOL = {protocol: index for index, protocol in enumerate(PROTOCOLS)}
_HISTOGRAM = len(SECONDS) + 2
"""Slots of one: its buckets, that without an end, and the sum."""

_REQUESTS = 0
_LATENCY = _REQUESTS + len(PROTOCOLS) * len(CODES)
_QUEUE = _LATENCY + len(PROTOCOLS) * _HISTOGRAM
_BATCH = _QUEUE + _HISTOGRAM
_ROWS = _BATCH + len(SIZES) + 2
_REJECTED = _ROWS + 1
_IN_FLIGHT = _REJECTED + 1
_WAITING = _IN_FLIGHT + 1
_SLOTS = _WAITING + 1


@dataclass(frozen=True)
class Scored:
    """Scoring requests of all protocols and processes since the start."""

    answered: int
    failed: int
    seconds: float
    """What all of them took together."""
    runs: int
    rows: int
    waited: float
    """Seconds that the oldest requests of all runs had waited, together."""


class Metrics(Collector):
    """The figures of one process of a server, and with them the sum over all.

    ``memory`` is shared by the processes and has :func:`memory_size`; ``number`` says which one this is.
    Nothing here is locked: a process counts on one thread, its event loop's.
    """

    content_type = CONTENT_TYPE_LATEST

    def __init__(self, memory: mmap.mmap | None = None, number: int = 0) -> None:
        whole = memoryview(memory or mmap.mmap(-1, memory_size(1))).cast("d")
        self._rows = [whole[at : at + _SLOTS] for at in range(0, len(whole) - _SLOTS + 1, _SLOTS)]
        self._own = self._rows[number]
        self.ready: Callable[[], float] = lambda: 0.0
        self.memory_used: Callable[[], int | None] = memory_used
        self._started: dict[str, float] = {}
        self.info: dict[str, str] = {}
        """The values of :data:`INFO_LABELS`; empty before they are known."""
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.registry.register(self)

    def observe(self, protocol: str, code: int | str, seconds: float) -> None:
        """Count an answer. ``code`` is an HTTP status or the name of a gRPC one."""
        number = _PROTOCOL[protocol]
        index = _HTTP_CODE.get(code) if isinstance(code, int) else _CODE.get(code)
        own = self._own
        own[_REQUESTS + number * len(CODES) + (len(CODES) - 1 if index is None else index)] += 1
        at = _LATENCY + number * _HISTOGRAM
        own[at + bisect_left(SECONDS, seconds)] += 1
        own[at + _HISTOGRAM - 1] += seconds

    def run(self, requests: int, rows: int, waited: float) -> None:
        """Count a run of the model: its requests, its rows, and the seconds that the oldest request had waited."""
        own = self._own
        own[_QUEUE + bisect_left(SECONDS, waited)] += 1
        own[_QUEUE + _HISTOGRAM - 1] += waited
        own[_BATCH + bisect_left(SIZES, requests)] += 1
        own[_BATCH + len(SIZES) + 1] += requests
        own[_ROWS] += rows

    def enter(self) -> None:
        """A scoring request was let in."""
        self._own[_IN_FLIGHT] += 1

    def leave(self) -> None:
        """It has its answer."""
        self._own[_IN_FLIGHT] -= 1

    def reject(self) -> None:
        """A scoring request was turned away by a full queue."""
        self._own[_REJECTED] += 1

    def set_waiting(self, waiting: int) -> None:
        """How many inferences of this process have not begun."""
        self._own[_WAITING] = waiting

    def forget(self, number: int) -> None:
        """A process has ended: nothing is in flight there any more. What it counted stays."""
        row = self._rows[number]
        row[_IN_FLIGHT] = row[_WAITING] = 0

    def set(self, name: str, value: float) -> None:
        """Tell a figure of the start, one of :data:`STARTED`."""
        self._started[name] = value

    def render(self) -> bytes:
        """Write all metrics in Prometheus's text format."""
        return generate_latest(self.registry)

    def scored(self) -> Scored:
        """Sum over the processes."""
        total = [sum(row[slot] for row in self._rows) for slot in range(_SLOTS)]
        answered = failed = seconds = 0.0
        for number in range(len(SCORING)):
            codes = total[_REQUESTS + number * len(CODES) :][: len(CODES)]
            good = codes[_HTTP_CODE[200]] + codes[_CODE["OK"]]
            answered += good
            failed += sum(codes) - good
            seconds += total[_LATENCY + (number + 1) * _HISTOGRAM - 1]
        runs = sum(total[_QUEUE : _QUEUE + _HISTOGRAM - 1])
        waited = total[_QUEUE + _HISTOGRAM - 1]
        return Scored(int(answered), int(failed), seconds, int(runs), int(total[_ROWS]), waited)

    def collect(self) -> Iterator[Metric]:
        """Sum over the processes."""
        total = [sum(row[slot] for row in self._rows) for slot in range(_SLOTS)]
        requests = CounterMetricFamily("onnx_server_requests", "Answered requests.", labels=["protocol", "code"])
        latency = HistogramMetricFamily(
            "onnx_server_request_duration_seconds",
            "Time from a request's head to its answer.",
            labels=["protocol"],
        )
        for number, protocol in enumerate(PROTOCOLS):
            for index, code in enumerate(CODES):
                if count := total[_REQUESTS + number * len(CODES) + index]:
                    requests.add_metric([protocol, code], count)
            at = _LATENCY + number * _HISTOGRAM
            latency.add_metric([protocol], *_histogram(total[at : at + _HISTOGRAM], SECONDS))
        yield requests
        yield latency
        queue = HistogramMetricFamily("onnx_server_queue_seconds", "Time that a run's oldest request had waited.")
        queue.add_metric([], *_histogram(total[_QUEUE : _QUEUE + _HISTOGRAM], SECONDS))
        yield queue
        batch = HistogramMetricFamily("onnx_server_batch_requests", "Requests that one run of the model answered.")
        batch.add_metric([], *_histogram(total[_BATCH : _BATCH + len(SIZES) + 2], SIZES))
        yield batch
        yield CounterMetricFamily("onnx_server_rows", "Rows that the model has computed.", total[_ROWS])
        yield CounterMetricFamily(
            "onnx_server_requests_rejected", "Scoring requests turned away by a full queue.", total[_REJECTED]
        )
        yield GaugeMetricFamily(
            "onnx_server_requests_in_flight",
            "Scoring requests being answered or waiting.",
            total[_IN_FLIGHT],
        )
        yield GaugeMetricFamily("onnx_server_requests_waiting", "Inferences that have not begun.", total[_WAITING])
        yield GaugeMetricFamily("onnx_server_ready", "1 while new requests should come here.", self.ready())
        if (used := self.memory_used()) is not None:
            yield GaugeMetricFamily(
                "onnx_server_memory_used_bytes",
                "Memory of the container that counts against its limit and cannot be given back.",
                used,
            )
        for name, value in self._started.items():
            yield GaugeMetricFamily(f"onnx_server_{name}", STARTED[name], value)
        if self.info:
            info = GaugeMetricFamily(
                "onnx_server_model_info",
                "Always 1; tells the model and the execution providers that run it.",
                labels=INFO_LABELS,
            )
            info.add_metric([self.info[label] for label in INFO_LABELS], 1)
            yield info


def memory_size(processes: int) -> int:
    """Bytes that the figures of so many processes take."""
    page = os.sysconf("SC_PAGESIZE")
    return -(-processes * _SLOTS * 8 // page) * page


def _histogram(slots: Sequence[float], bounds: Sequence[float]) -> tuple[list[tuple[str, float]], float]:
    buckets: list[tuple[str, float]] = []
    count = 0.0
    for bound, number in zip((*map(str, bounds), "+Inf"), slots, strict=False):
        count += number
        buckets.append((bound, count))
    return buckets, slots[len(bounds) + 1]
