"""What the metrics tell of each model, by name: few series a model, and none of one that is gone."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from onnx_operator.api.conditions import ConditionStatus, ConditionType, Reason
from onnx_operator.api.onnxmodel import Condition
from onnx_operator.api.reasons import REASONS

_SUMMARIES = frozenset({ConditionType.READY, ConditionType.RECONCILING, ConditionType.STALLED})
"""They repeat what another condition says."""


@dataclass(frozen=True)
class _State:
    ready: bool
    reason: str
    wanted: int
    serving: int
    troubles: tuple[tuple[str, str], ...]


class ModelStates(Collector):
    """The state of each model as its status tells it; only the replica that leads looks at models."""

    def __init__(self) -> None:
        self._states: dict[tuple[str, str], _State] = {}

    def observe(self, model: tuple[str, str], conditions: Iterable[Condition], wanted: int, ready: int) -> None:
        """The model (namespace and name) has these conditions, and so many replicas of those wanted are ready."""
        found = {condition.type: condition for condition in conditions}
        summary = found[ConditionType.READY]
        self._states[model] = _State(
            summary.status == ConditionStatus.TRUE, summary.reason, wanted, ready, tuple(_troubles(found.values()))
        )

    def forget(self, model: tuple[str, str]) -> None:
        """The model is gone."""
        self._states.pop(model, None)

    def collect(self) -> Iterator[Metric]:
        """The gauges of all models."""
        labels = ["namespace", "name"]
        ready = GaugeMetricFamily(
            "onnx_operator_model_ready",
            "1 where the model is Ready, else 0; `reason` is the one of that condition now",
            labels=[*labels, "reason"],
        )
        wanted = GaugeMetricFamily(
            "onnx_operator_model_replicas", "Replicas that are wanted; 0 for a suspended model", labels=labels
        )
        serving = GaugeMetricFamily("onnx_operator_model_ready_replicas", "Replicas that are ready", labels=labels)
        trouble = GaugeMetricFamily(
            "onnx_operator_model_trouble",
            "1 for each condition of a model whose reason is a warning; what is as it should be is not listed",
            labels=[*labels, "condition", "reason"],
        )
        # Scraped from another thread.
        for model, state in list(self._states.items()):
            names = list(model)
            ready.add_metric([*names, state.reason], float(state.ready))
            wanted.add_metric(names, state.wanted)
            serving.add_metric(names, state.serving)
            for condition, reason in state.troubles:
                trouble.add_metric([*names, condition, reason], 1)
        yield from (ready, wanted, serving, trouble)


def _troubles(conditions: Iterable[Condition]) -> Iterator[tuple[str, str]]:
    for condition in conditions:
        # A status may hold reasons of another version of the operator.
        known = condition.reason in set(Reason)
        if condition.type not in _SUMMARIES and known and REASONS[Reason(condition.reason)].warning:
            yield condition.type, condition.reason
