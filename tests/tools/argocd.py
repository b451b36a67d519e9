"""Test cases of what ``deploy/argocd`` teaches Argo CD, made from statuses that the product's own code makes.

The folder has the form of Argo CD's own ``resource_customizations``, so that its tests run on it as they are.
"""

import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from onnx_operator.api import names
from onnx_operator.api.conditions import Reason
from onnx_operator.api.onnxmodel import OnnxModelSpec, OnnxModelStatus
from onnx_operator.api.report import InspectionResult, Refusal
from onnx_operator.controller.observation.observe import Cause, Observation, observe
from onnx_operator.controller.status.status import compute_status
from tests.unit.controller.samples import FETCHED, deployment, pod, spec, waiting
from tests.unit.controller.situations import (
    EXCEEDED,
    FAILING,
    NEW,
    REFUSAL,
    REFUSED,
    T1,
    UNREACHABLE,
    UNSCHEDULABLE,
    first,
    situation,
    updating,
)

FOLDER = Path("deploy/argocd")
KIND = FOLDER / "resource_customizations" / names.GROUP / names.KIND
ACTIONS = ("suspend", "resume", "refresh", "rollout-now")
RESOURCE_VERSION = "48213"
Object = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """A state of a model, and how Argo CD is to show it."""

    health: str
    changes: dict[str, Any] = field(default_factory=dict)
    """Of the situation, where there is a status."""
    seen: bool = True
    """Whether the operator has seen it at all."""
    generation: int = 5
    message: str = ""
    """What Argo CD says; the operator's own words where empty."""


def _refused(reason: Reason, message: str) -> dict[str, Any]:
    refusal = Refusal(reason=reason, message=message, retriable=reason is Reason.SOURCE_UNREACHABLE)
    return {"result": InspectionResult(outcome="Refused", refusal=refusal), "refusal": refusal}


CASES = {
    "not_seen": Case("Progressing", seen=False, message="Waiting for onnx-operator to look at the model"),
    "next_generation": Case("Progressing", generation=6, message="Waiting for onnx-operator to see generation 6"),
    "inspecting": Case("Progressing", NEW | {"result": None, "inspecting": True}),
    "rolling_out": Case("Progressing", first()),
    "rolling_out_update": Case("Progressing", updating(fetch=FETCHED)),
    "unschedulable": Case("Progressing", first(**UNSCHEDULABLE)),
    "source_unreachable": Case(
        "Progressing",
        NEW | {"result": InspectionResult(outcome="Refused", refusal=UNREACHABLE), "refusal": UNREACHABLE},
    ),
    "complete": Case("Healthy"),
    "left_as_it_is": Case(
        "Healthy", {"outdated": Cause(Reason.SETTINGS_CHANGED, "spec.nodePool: no pool is called t4")}
    ),
    "scaled_to_zero": Case("Healthy", {"spec": spec(replicas=0), "observation": observe(deployment(wanted=0), [])}),
    "suspended": Case("Suspended", {"spec": spec(suspend=True), "observation": observe(deployment(wanted=0), [])}),
    "refused": Case("Degraded", NEW | {"result": REFUSED, "refusal": REFUSAL}),
    "refused_update": Case("Degraded", {"result": REFUSED, "refusal": REFUSAL}),
    "credentials_not_found": Case(
        "Degraded", NEW | _refused(Reason.CREDENTIALS_NOT_FOUND, "the Secret models-read does not exist")
    ),
    "out_of_memory": Case(
        "Degraded", first(fetch=FETCHED, server=waiting("CrashLoopBackOff", exitCode=137, reason="OOMKilled"))
    ),
    "update_cannot_load": Case("Degraded", updating(**FAILING)),
    "name_conflict": Case(
        "Degraded",
        {"cause": Cause(Reason.NAME_CONFLICT, "a Service resnet50 exists already"), "observation": Observation()},
    ),
    "deadline_exceeded": Case(
        "Degraded", {"observation": observe(deployment(conditions=EXCEEDED), [pod(**UNSCHEDULABLE)])}
    ),
}


def model(status: OnnxModelStatus | None, wanted: OnnxModelSpec | None = None, generation: int = 5) -> Object:
    """An OnnxModel as the API server shows it."""
    found: Object = {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "metadata": {
            "name": "resnet50",
            "namespace": "default",
            "generation": generation,
            "resourceVersion": RESOURCE_VERSION,
        },
        "spec": (wanted or spec()).model_dump(mode="json", by_alias=True, exclude_none=True),
    }
    if status:
        found["status"] = status.model_dump(mode="json", by_alias=True, exclude_none=True)
    return found


def recorded(case: Case) -> Object:
    """The object of a case."""
    if not case.seen:
        return model(None, generation=1)
    status = compute_status(situation(**case.changes), OnnxModelStatus(), T1)
    return model(status, case.changes.get("spec"), case.generation)


def ready(found: Object) -> Object:
    """The condition Ready."""
    return next(c for c in found["status"]["conditions"] if c["type"] == "Ready")


def _health_test() -> Object:
    tests = []
    for name, case in CASES.items():
        message = case.message
        if not message:
            told = ready(recorded(case))
            message = f"{told['reason']}: {told['message']}"
        tests.append(
            {"healthStatus": {"status": case.health, "message": message}, "inputPath": f"testdata/{name}.yaml"}
        )
    return {"tests": tests}


def _changed(found: Object, **changes: Any) -> Object:
    copied = copy.deepcopy(found)
    for part, values in changes.items():
        copied[part] |= values
    return copied


def _action_objects() -> dict[str, Object]:
    """Models before and after each action, by name of the file."""
    after = f"after-{RESOURCE_VERSION}"
    small = model(None)
    template = {"metadata": {"labels": {"team": "vision"}}, "spec": {"nodeSelector": {}, "tolerations": []}}
    templated = model(None, spec(resources={"limits": {"cpu": 2}}, pod_template=template))
    noted = _changed(small, metadata={"annotations": {names.ANNOTATION_REFRESH: "monday", "team": "vision"}})
    rollout = {"annotations": {f"{names.GROUP}/rollout": after}}
    return {
        "model": small,
        "model-suspended": _changed(small, spec={"suspend": True}),
        "model-refreshed": _changed(small, metadata={"annotations": {names.ANNOTATION_REFRESH: after}}),
        "model-noted": noted,
        "model-noted-refreshed": _changed(
            noted, metadata={"annotations": {names.ANNOTATION_REFRESH: after, "team": "vision"}}
        ),
        "model-rolled-out": _changed(small, spec={"podTemplate": {"metadata": rollout}}),
        "model-templated": templated,
        "model-templated-rolled-out": _changed(
            templated, spec={"podTemplate": template | {"metadata": template["metadata"] | rollout}}
        ),
    }


class _Readable(yaml.SafeDumper):
    """Texts of several lines as they are."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Readable.add_representer(str, _text)


def _yaml(content: Any) -> str:
    return str(yaml.dump(content, Dumper=_Readable, sort_keys=False, width=110, allow_unicode=True))


def config_map(root: Path) -> str:
    """What ``argocd-cm`` is to hold, made from the Lua files."""
    kind = f"{names.GROUP}_{names.KIND}"
    scripts = root / KIND / "actions"
    actions = {
        "discovery.lua": (scripts / "discovery.lua").read_text(),
        "definitions": [{"name": name, "action.lua": (scripts / name / "action.lua").read_text()} for name in ACTIONS],
    }
    return (
        "# Generated by `make generate` from the files in resource_customizations. Adds to what argocd-cm holds:\n"
        "# kubectl patch configmap argocd-cm --namespace argocd --type=merge --patch-file argocd-cm.yaml\n"
    ) + _yaml(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "argocd-cm"},
            "data": {
                f"resource.customizations.health.{kind}": (root / KIND / "health.lua").read_text(),
                f"resource.customizations.actions.{kind}": _yaml(actions),
            },
        }
    )


def files(root: Path) -> dict[Path, str]:
    """Content of the generated files."""
    kind = root / KIND
    made = {kind / "health_test.yaml": _yaml(_health_test()), root / FOLDER / "argocd-cm.yaml": config_map(root)}
    for name, case in CASES.items():
        made[kind / "testdata" / f"{name}.yaml"] = _yaml(recorded(case))
    for name, found in _action_objects().items():
        made[kind / "actions/testdata" / f"{name}.yaml"] = _yaml(found)
    return made
