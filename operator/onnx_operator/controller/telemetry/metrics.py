"""The operator's own metrics, in a registry of their own."""

from collections import Counter as Tally
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from onnx_operator.controller.telemetry.models import ModelStates

REGISTRY = CollectorRegistry()
ProcessCollector(registry=REGISTRY)

RECONCILES = Counter("onnx_operator_reconciles", "Models looked at, by result", ["result"], registry=REGISTRY)
for _result in ("ok", "error"):
    # From the start, so that the first is an increase.
    RECONCILES.labels(result=_result)
RECONCILE_SECONDS = Histogram("onnx_operator_reconcile_seconds", "Time of one reconciliation", registry=REGISTRY)
QUEUE_DEPTH = Gauge("onnx_operator_queue_depth", "Models that wait to be reconciled", registry=REGISTRY)
INSPECTIONS = Counter(
    "onnx_operator_inspections", "Inspections, by the reason they ended with", ["reason"], registry=REGISTRY
)
API_WRITES = Counter("onnx_operator_api_writes", "Writes to the API server", ["kind", "verb"], registry=REGISTRY)
EVENTS = Counter(
    "onnx_operator_events",
    "Events posted, by type and reason; Warning KilledWhileServing is a pod that requests have killed",
    ["type", "reason"],
    registry=REGISTRY,
)
MODELS = Gauge("onnx_operator_models", "OnnxModels, by their Ready condition", ["ready", "reason"], registry=REGISTRY)
NOT_FOLLOWED = Gauge(
    "onnx_operator_not_followed",
    "1 while objects of a kind, of a namespace where the settings name them, can be neither listed nor watched",
    ["kind", "namespace"],
    registry=REGISTRY,
)
LEADER = Gauge("onnx_operator_leader", "1 while this replica holds the Lease", registry=REGISTRY)
LEASE_FAILURES = Counter(
    "onnx_operator_lease_failures",
    "Attempts to take or renew the Lease that the API server did not answer, or refused",
    registry=REGISTRY,
)


class InspectorTally(Collector):
    """What the inspector counts, as it told last: counters that begin anew when it does."""

    def __init__(self) -> None:
        self._forbidden_calls = self._exceeded_limits = 0

    def update(self, *, forbidden_calls: int, exceeded_limits: int) -> None:
        """The inspector counts so many now."""
        self._forbidden_calls, self._exceeded_limits = forbidden_calls, exceeded_limits

    def collect(self) -> Iterator[Metric]:
        """The counters."""
        yield CounterMetricFamily(
            "onnx_operator_inspector_forbidden_calls",
            "Parsing children that were ended because of a system call: a call that our list lacks, or an attack",
            value=self._forbidden_calls,
        )
        yield CounterMetricFamily(
            "onnx_operator_inspector_exceeded_limits",
            "Parsing children that were ended because ONNX Runtime took more to load a structure than they may",
            value=self._exceeded_limits,
        )


INSPECTOR = InspectorTally()
REGISTRY.register(INSPECTOR)


MODEL_STATES = ModelStates()
REGISTRY.register(MODEL_STATES)


class ModelTally:
    """Keeps ``onnx_operator_models`` in step with the statuses that were seen."""

    def __init__(self) -> None:
        self._seen: dict[tuple[str, str], tuple[str, str]] = {}

    def observe(self, model: tuple[str, str], ready: str, reason: str) -> None:
        """The model's Ready condition is this now."""
        if self._seen.get(model) != (ready, reason):
            self._seen[model] = (ready, reason)
            self._publish()

    def forget(self, model: tuple[str, str]) -> None:
        """The model is gone."""
        if self._seen.pop(model, None):
            self._publish()

    def _publish(self) -> None:
        MODELS.clear()
        for (ready, reason), count in Tally(self._seen.values()).items():
            MODELS.labels(ready=ready, reason=reason).set(count)
