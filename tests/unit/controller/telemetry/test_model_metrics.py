"""What the metrics tell of a model by its name."""

from prometheus_client import CollectorRegistry, generate_latest

from onnx_operator.api.conditions import ConditionStatus, Reason
from onnx_operator.api.onnxmodel import Condition
from onnx_operator.controller.telemetry.models import ModelStates

TRUE, FALSE, UNKNOWN = ConditionStatus.TRUE, ConditionStatus.FALSE, ConditionStatus.UNKNOWN
MODEL = ("team-a", "churn")


def _condition(kind: str, status: ConditionStatus, reason: str) -> Condition:
    time = "2026-01-01T00:00:00Z"
    return Condition(
        type=kind, status=status, reason=reason, message="", last_transition_time=time, observed_generation=1
    )


SERVES = [
    _condition("Ready", TRUE, Reason.COMPLETE),
    _condition("ModelValid", TRUE, Reason.INSPECTED),
    _condition("Progressing", FALSE, Reason.COMPLETE),
    _condition("Available", TRUE, Reason.MINIMUM_REPLICAS_READY),
]
REFUSED_UPDATE = [
    _condition("Ready", FALSE, Reason.SIGNATURE_INVALID),
    _condition("ModelValid", FALSE, Reason.SIGNATURE_INVALID),
    _condition("Available", TRUE, Reason.MINIMUM_REPLICAS_READY),
    _condition("Stalled", TRUE, Reason.SIGNATURE_INVALID),
]


def _told(states: ModelStates) -> set[str]:
    registry = CollectorRegistry()
    registry.register(states)
    return {line for line in generate_latest(registry).decode().splitlines() if not line.startswith("#")}


def test_a_model_that_serves_is_ready_by_name_and_has_no_trouble() -> None:
    states = ModelStates()
    states.observe(MODEL, SERVES, wanted=3, ready=3)
    assert _told(states) == {
        'onnx_operator_model_ready{name="churn",namespace="team-a",reason="Complete"} 1.0',
        'onnx_operator_model_replicas{name="churn",namespace="team-a"} 3.0',
        'onnx_operator_model_ready_replicas{name="churn",namespace="team-a"} 3.0',
    }


def test_a_refused_update_is_told_once_with_its_reason_while_the_old_revision_serves() -> None:
    states = ModelStates()
    states.observe(MODEL, SERVES, wanted=1, ready=1)
    states.observe(MODEL, REFUSED_UPDATE, wanted=1, ready=1)
    told = _told(states)
    assert [line for line in told if "_ready{" in line] == [
        'onnx_operator_model_ready{name="churn",namespace="team-a",reason="SignatureInvalid"} 0.0'
    ]
    (trouble,) = [line for line in told if "_trouble" in line]
    assert 'condition="ModelValid"' in trouble
    assert 'reason="SignatureInvalid"} 1.0' in trouble


def test_nothing_is_told_of_a_model_that_is_gone() -> None:
    states = ModelStates()
    states.observe(MODEL, REFUSED_UPDATE, wanted=1, ready=1)
    states.observe(("team-b", "churn"), SERVES, wanted=1, ready=1)
    states.forget(MODEL)
    states.forget(("team-a", "never-seen"))
    assert not [line for line in _told(states) if "team-a" in line]
    assert [line for line in _told(states) if "team-b" in line]


def test_a_reason_of_another_version_is_no_trouble_that_anybody_could_look_up() -> None:
    states = ModelStates()
    states.observe(MODEL, [*SERVES, _condition("ModelValid", FALSE, "FromTheFuture")], wanted=1, ready=1)
    assert not [line for line in _told(states) if "_trouble" in line]
