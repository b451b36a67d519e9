"""What Argo CD shows of a model, by scripts that run in a real Lua with what Argo CD gives them."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from onnx_operator.api.conditions import Reason
from onnx_operator.api.onnxmodel import OnnxModelSpec, OnnxModelStatus, Started
from onnx_operator.api.reasons import REASONS
from onnx_operator.api.report import InspectionResult, Refusal
from onnx_operator.api.sources import SourcePin
from onnx_operator.controller.observation.observe import Cause, Observation, PodState, observe
from onnx_operator.controller.reconcile import inspection_key
from onnx_operator.controller.revision.revisions import pod_spec
from onnx_operator.controller.status.hands_off import PAUSED, hands_off_status
from onnx_operator.controller.status.status import compute_status
from tests.tools.argocd import ACTIONS, CASES, KIND, config_map, files, model, ready, recorded
from tests.unit.controller.samples import ROLLED_OUT, deployment, pod, report, spec
from tests.unit.controller.situations import EXCEEDED, NEW, ONE, T1, revision, situation
from tests.unit.deploy.luakit import run

ROOT = Path(__file__).resolve().parents[3]
SCRIPTS = ROOT / KIND
HEALTH = (SCRIPTS / "health.lua").read_text()
TESTS = yaml.safe_load((SCRIPTS / "health_test.yaml").read_text())["tests"]


def health(found: dict[str, Any]) -> str:
    return run(HEALTH, found)["status"]


def told(changes: dict[str, Any]) -> dict[str, Any]:
    """The object that the operator leaves behind in a situation."""
    if cause := changes.get("hands_off"):
        return model(hands_off_status(cause, spec(), 5, NO_PODS, OnnxModelStatus(), T1))
    return model(compute_status(situation(**changes), OnnxModelStatus(), T1), changes.get("spec"))


@pytest.mark.parametrize("case", TESTS, ids=lambda case: case["inputPath"])
def test_the_recorded_cases_are_shown_as_they_say(case):
    found = yaml.safe_load((SCRIPTS / case["inputPath"]).read_text())
    assert run(HEALTH, found) == case["healthStatus"]


@pytest.mark.parametrize("name", CASES)
def test_the_recorded_cases_are_what_the_product_says_today(name):
    assert yaml.safe_load((SCRIPTS / f"testdata/{name}.yaml").read_text()) == recorded(CASES[name])


def test_there_is_no_case_that_is_not_generated():
    expected = {path for path in files(ROOT) if path.parent.name == "testdata"}
    assert set(SCRIPTS.rglob("testdata/*.yaml")) == expected
    assert {case["inputPath"] for case in TESTS} == {f"testdata/{name}.yaml" for name in CASES}


# --- every reason -----------------------------------------------------------------------------------------------------


def refused(reason: Reason) -> dict[str, Any]:
    refusal = Refusal(reason=reason, message="why", retriable=reason is Reason.SOURCE_UNREACHABLE)
    return {"result": InspectionResult(outcome="Refused", refusal=refusal), "refusal": refusal}


def failing(reason: Reason) -> dict[str, Any]:
    """A pod of the first version is not ready, for this reason."""
    pod = PodState("pod", ONE.name, ready=False, terminating=False, cause=Cause(reason, "why"))
    return {"observation": Observation(deployment=deployment(), pods=(pod,))}


def held_up(reason: Reason) -> dict[str, Any]:
    return {"cause": Cause(reason, "why"), "observation": Observation()}


HELD_BACK = deployment()
HELD_BACK["spec"]["paused"] = True
HELD_BACK["status"]["updatedReplicas"] = 0
GPU = revision(1, spec=pod_spec(spec(runtime="GPU")))


def started(*providers: str, **facts: Any) -> dict[str, Any]:
    told_ = Started(revision=GPU.name, execution_providers=list(providers), resident_memory_bytes=1, **facts)
    return {"spec": spec(runtime="GPU"), "current": GPU, "revisions": (GPU,), "started": told_}


UNPINNED = report(source=SourcePin(kind="None", value="sha256:ab"))
NO_PODS = observe(deployment(wanted=0), [])
SCALING = {
    "spec": spec(replicas=2),
    "observation": observe(deployment(ready=1, conditions=ROLLED_OUT), [pod(ready=True)]),
}

JUDGED: dict[Reason, tuple[str, dict[str, Any]]] = {
    # The model serves: what else is said of it is for its own conditions.
    Reason.INSPECTED: ("Healthy", {}),
    Reason.NOT_REPRODUCIBLE: (
        "Healthy",
        {"result": InspectionResult(outcome="Accepted", source=UNPINNED.source, report=UNPINNED)},
    ),
    Reason.COMPLETE: ("Healthy", {}),
    Reason.MINIMUM_REPLICAS_READY: ("Healthy", {}),
    Reason.SCALING: ("Healthy", SCALING),
    Reason.SCALED_TO_ZERO: ("Healthy", {"spec": spec(replicas=0), "observation": NO_PODS}),
    Reason.ON_GPU: ("Healthy", started("CUDAExecutionProvider")),
    Reason.FALLBACK_TO_CPU: ("Healthy", started("CPUExecutionProvider")),
    Reason.NOT_REPORTED: ("Healthy", started() | {"started": None}),
    Reason.WARMED: ("Healthy", started("CUDAExecutionProvider", warmed=True)),
    Reason.NO_INPUT_FOUND: ("Healthy", started("CUDAExecutionProvider", warmed=False)),
    Reason.SETTINGS_CHANGED: ("Healthy", {"outdated": Cause(Reason.SETTINGS_CHANGED, "why")}),
    Reason.NOT_SEALED: ("Healthy", {"outdated": Cause(Reason.NOT_SEALED, "why")}),
    Reason.ALTERED: ("Healthy", {"outdated": Cause(Reason.ALTERED, "why")}),
    Reason.SCALED_BY_OTHERS: ("Healthy", {"outdated": Cause(Reason.SCALED_BY_OTHERS, "why")}),
    # Nobody has to do anything yet.
    Reason.INSPECTING: ("Progressing", NEW | {"result": None, "inspecting": True}),
    Reason.SOURCE_CHANGED: ("Progressing", {"result": None, "inspecting": True, "source_changed": True}),
    Reason.SOURCE_UNREACHABLE: ("Progressing", NEW | refused(Reason.SOURCE_UNREACHABLE)),
    Reason.NO_REPLICAS_READY: ("Progressing", {"observation": observe(deployment(), [])}),
    Reason.ROLLING_OUT: ("Progressing", {"observation": observe(deployment(), [])}),
    Reason.DOWNLOADING: ("Progressing", failing(Reason.DOWNLOADING)),
    Reason.LOADING: ("Progressing", failing(Reason.LOADING)),
    Reason.UNSCHEDULABLE: ("Progressing", failing(Reason.UNSCHEDULABLE)),
    Reason.QUOTA_EXCEEDED: ("Progressing", failing(Reason.QUOTA_EXCEEDED)),
    Reason.IMAGE_PULL_FAILED: ("Progressing", failing(Reason.IMAGE_PULL_FAILED)),
    Reason.DOWNLOAD_FAILED: ("Progressing", failing(Reason.DOWNLOAD_FAILED)),
    Reason.CREATION_FAILED: ("Progressing", held_up(Reason.CREATION_FAILED)),
    Reason.API_UNAVAILABLE: ("Progressing", held_up(Reason.API_UNAVAILABLE)),
    Reason.KILLED_WHILE_SERVING: ("Progressing", failing(Reason.KILLED_WHILE_SERVING)),
    Reason.RESTARTING: ("Progressing", failing(Reason.RESTARTING)),
    Reason.ROLLOUT_PAUSED: ("Progressing", {"observation": observe(HELD_BACK, [])}),
    Reason.PAUSED: ("Suspended", {"hands_off": PAUSED}),
    Reason.SUSPENDED: ("Suspended", {"spec": spec(suspend=True), "observation": NO_PODS}),
    # Somebody has to do something.
    Reason.SOURCE_NOT_FOUND: ("Degraded", NEW | refused(Reason.SOURCE_NOT_FOUND)),
    Reason.SOURCE_UNAUTHORIZED: ("Degraded", NEW | refused(Reason.SOURCE_UNAUTHORIZED)),
    Reason.SOURCE_REFUSED: ("Degraded", NEW | refused(Reason.SOURCE_REFUSED)),
    Reason.CREDENTIALS_NOT_FOUND: ("Degraded", NEW | refused(Reason.CREDENTIALS_NOT_FOUND)),
    Reason.DIGEST_MISMATCH: ("Degraded", NEW | refused(Reason.DIGEST_MISMATCH)),
    Reason.SIGNATURE_INVALID: ("Degraded", NEW | refused(Reason.SIGNATURE_INVALID)),
    Reason.NOT_ONNX: ("Degraded", NEW | refused(Reason.NOT_ONNX)),
    Reason.CORRUPT: ("Degraded", refused(Reason.CORRUPT)),
    Reason.UNSUPPORTED_IR_VERSION: ("Degraded", refused(Reason.UNSUPPORTED_IR_VERSION)),
    Reason.UNSUPPORTED_OPSET: ("Degraded", refused(Reason.UNSUPPORTED_OPSET)),
    Reason.UNKNOWN_OPERATOR: ("Degraded", refused(Reason.UNKNOWN_OPERATOR)),
    Reason.INVALID_GRAPH: ("Degraded", refused(Reason.INVALID_GRAPH)),
    Reason.EXTERNAL_DATA_MISSING: ("Degraded", refused(Reason.EXTERNAL_DATA_MISSING)),
    Reason.TOO_LARGE: ("Degraded", refused(Reason.TOO_LARGE)),
    Reason.NO_MATCHING_POOL: ("Degraded", refused(Reason.NO_MATCHING_POOL)),
    Reason.POD_TEMPLATE_REJECTED: ("Degraded", refused(Reason.POD_TEMPLATE_REJECTED)),
    Reason.SCORING_REJECTED: ("Degraded", refused(Reason.SCORING_REJECTED)),
    Reason.OUT_OF_MEMORY: ("Degraded", failing(Reason.OUT_OF_MEMORY)),
    Reason.LOAD_FAILED: ("Degraded", failing(Reason.LOAD_FAILED)),
    Reason.TEST_FAILED: ("Degraded", failing(Reason.TEST_FAILED)),
    Reason.CRASH_LOOP: ("Degraded", failing(Reason.CRASH_LOOP)),
    Reason.UNRESPONSIVE: ("Degraded", failing(Reason.UNRESPONSIVE)),
    Reason.NODE_LOST: ("Degraded", failing(Reason.NODE_LOST)),
    Reason.INTERFACE_CHANGED: ("Degraded", failing(Reason.INTERFACE_CHANGED)),
    Reason.ROLLED_BACK: ("Degraded", {"withheld": Cause(Reason.ROLLED_BACK, "why")}),
    Reason.SOURCE_HELD: ("Degraded", {"withheld": Cause(Reason.SOURCE_HELD, "why")}),
    Reason.NEWER_VERSION: ("Degraded", {"hands_off": Cause(Reason.NEWER_VERSION, "why")}),
    Reason.NAME_CONFLICT: ("Degraded", held_up(Reason.NAME_CONFLICT)),
    Reason.DEADLINE_EXCEEDED: (
        "Degraded",
        {"observation": observe(deployment(conditions=EXCEEDED), [])},
    ),
}


def test_no_reason_is_without_a_judgement():
    assert set(Reason) - set(JUDGED) == set(), "say how Argo CD is to show a model for this reason"


@pytest.mark.parametrize("reason", JUDGED)
def test_a_model_is_shown_as_its_reason_deserves(reason):
    expected, changes = JUDGED[reason]
    found = told(changes)
    assert reason in {condition["reason"] for condition in found["status"]["conditions"]}
    assert health(found) == expected


@pytest.mark.parametrize("reason", JUDGED)
def test_what_is_stalled_is_degraded_and_what_is_ready_is_healthy(reason):
    found = told(JUDGED[reason][1])
    true = {c["type"] for c in found["status"]["conditions"] if c["status"] == "True"}
    assert (health(found) == "Degraded") == ("Stalled" in true)
    assert (health(found) == "Healthy") == ("Ready" in true)
    assert (health(found) == "Progressing") == ("Reconciling" in true)


@pytest.mark.parametrize("reason", [r for r in JUDGED if REASONS[r].verdict])
def test_the_operators_own_words_reach_argo_cd(reason):
    found = told(JUDGED[reason][1])
    assert run(HEALTH, found)["message"] == f"{reason}: {ready(found)['message']}"
    assert "why" in ready(found)["message"]


def test_a_model_is_not_healthy_before_the_operator_has_seen_what_was_applied():
    found = told({})
    found["metadata"]["generation"] += 1
    assert health(found) == "Progressing"


@pytest.mark.parametrize("status", [{}, {"conditions": []}, {"conditions": [{"type": "Available", "status": "True"}]}])
def test_a_status_that_says_little_is_no_error(status):
    found = model(None) | {"status": status}
    assert health(found) == "Progressing"


# --- actions ----------------------------------------------------------------------------------------------------------

ACTION_TESTS = yaml.safe_load((SCRIPTS / "actions/action_test.yaml").read_text())


@pytest.mark.parametrize("case", ACTION_TESTS["discoveryTests"], ids=lambda case: case["inputPath"])
def test_the_actions_that_make_sense_are_offered(case):
    found = yaml.safe_load((SCRIPTS / "actions" / case["inputPath"]).read_text())
    offered = run((SCRIPTS / "actions/discovery.lua").read_text(), found)
    assert [{"name": name} | offered[name] for name in ACTIONS] == case["result"]
    assert set(offered) == set(ACTIONS) == {path.parent.name for path in SCRIPTS.rglob("action.lua")}


@pytest.mark.parametrize("case", ACTION_TESTS["actionTests"], ids=lambda case: f"{case['action']}-{case['inputPath']}")
def test_an_action_changes_what_it_should_and_nothing_else(case):
    before, after = (
        yaml.safe_load((SCRIPTS / "actions" / case[path]).read_text()) for path in ("inputPath", "expectedOutputPath")
    )
    assert run((SCRIPTS / "actions" / case["action"] / "action.lua").read_text(), before) == after


def acted(action: str) -> dict[str, Any]:
    return run((SCRIPTS / f"actions/{action}/action.lua").read_text(), model(None))


@pytest.mark.parametrize("action", ACTIONS)
def test_what_an_action_changed_has_the_promised_effect(action):
    before, after = model(None), acted(action)
    wanted = [OnnxModelSpec.model_validate(found["spec"]) for found in (before, after)]
    looked_at_again = inspection_key(wanted[0], before) != inspection_key(wanted[1], after)
    other_pods = pod_spec(wanted[0]) != pod_spec(wanted[1])
    suspended = bool(wanted[1].suspend)
    assert (action == "refresh", action == "rollout-now", action == "suspend") == (
        *(looked_at_again, other_pods, suspended),
    )


def test_every_action_has_a_test():
    assert {case["action"] for case in ACTION_TESTS["actionTests"]} == set(ACTIONS)


# --- what goes into argocd-cm -----------------------------------------------------------------------------------------


def test_the_config_map_for_argo_cd_holds_the_tested_scripts():
    data = yaml.safe_load(config_map(ROOT))["data"]
    assert data["resource.customizations.health.onnx-operator.dev_OnnxModel"] == HEALTH
    actions = yaml.safe_load(data["resource.customizations.actions.onnx-operator.dev_OnnxModel"])
    assert actions["discovery.lua"] == (SCRIPTS / "actions/discovery.lua").read_text()
    assert {d["name"]: d["action.lua"] for d in actions["definitions"]} == {
        name: (SCRIPTS / "actions" / name / "action.lua").read_text() for name in ACTIONS
    }
