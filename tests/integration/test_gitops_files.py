"""What lies in ``deploy/`` for Argo CD, Flux and Kustomize, tried on a real API server."""

import json
from pathlib import Path

import pytest
import yaml

from tests.tools.argocd import ACTIONS, KIND
from tests.unit.deploy.luakit import merge_patch, run

pytestmark = pytest.mark.usefixtures("crd")

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / KIND / "actions"
MODEL = {
    "apiVersion": "onnx-operator.dev/v1alpha1",
    "kind": "OnnxModel",
    "metadata": {"name": "resnet50"},
    "spec": {
        "model": {"uri": "s3://models/resnet50.onnx"},
        "resources": {"requests": {"cpu": 0.5}},
        "podTemplate": {"spec": {"nodeSelector": {}, "tolerations": []}},
    },
}


def act(apiserver, namespace, action):
    """As Argo CD acts: the script's change of the live object, sent as a merge patch."""
    before = apiserver.get("onnx", "resnet50", namespace)
    patch = merge_patch(before, run((SCRIPTS / action / "action.lua").read_text(), before))
    apiserver.kubectl(
        "patch", "onnx/resnet50", f"--namespace={namespace}", "--type=merge", f"--patch={json.dumps(patch)}"
    )
    return before, apiserver.get("onnx", "resnet50", namespace)


@pytest.fixture
def applied(apiserver, namespace):
    apiserver.kubectl("apply", "--server-side", f"--namespace={namespace}", "-f", "-", input=yaml.safe_dump(MODEL))


def without(found, *annotations):
    spec = json.loads(json.dumps(found["spec"]))
    metadata = spec["podTemplate"].get("metadata", {})
    for annotation in annotations:
        metadata["annotations"].pop(annotation)
    return spec


@pytest.mark.usefixtures("applied")
def test_suspend_and_resume_leave_the_spec_as_it_was(apiserver, namespace):
    before, suspended = act(apiserver, namespace, "suspend")
    assert suspended["spec"] == before["spec"] | {"suspend": True}
    _, resumed = act(apiserver, namespace, "resume")
    assert resumed["spec"] == before["spec"]


@pytest.mark.usefixtures("applied")
def test_refresh_changes_an_annotation_each_time_and_no_spec(apiserver, namespace):
    before, once = act(apiserver, namespace, "refresh")
    _, twice = act(apiserver, namespace, "refresh")
    values = [found["metadata"].get("annotations", {}).get("onnx-operator.dev/refresh") for found in (once, twice)]
    assert all(values)
    assert values[0] != values[1]
    assert twice["spec"] == before["spec"]
    assert twice["metadata"]["generation"] == before["metadata"]["generation"]


@pytest.mark.usefixtures("applied")
def test_rollout_now_changes_an_annotation_of_the_pods_each_time(apiserver, namespace):
    before, once = act(apiserver, namespace, "rollout-now")
    _, twice = act(apiserver, namespace, "rollout-now")
    key = "onnx-operator.dev/rollout"
    values = [found["spec"]["podTemplate"]["metadata"]["annotations"][key] for found in (once, twice)]
    assert values[0] != values[1]
    assert twice["spec"]["podTemplate"]["spec"] == before["spec"]["podTemplate"]["spec"]


@pytest.mark.usefixtures("applied")
@pytest.mark.parametrize("action", ACTIONS)
def test_what_an_action_changed_is_no_difference_from_git(apiserver, namespace, action):
    if action == "resume":
        act(apiserver, namespace, "suspend")
    act(apiserver, namespace, action)
    done = apiserver.run_kubectl(
        *("diff", "--server-side", f"--namespace={namespace}", "-f", "-"), input=yaml.safe_dump(MODEL), check=False
    )
    assert done.returncode == 0, done.stdout


def test_the_snippet_adds_to_what_argocd_cm_holds(apiserver, namespace):
    own = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "argocd-cm"}, "data": {"url": "https://a"}}
    apiserver.kubectl("apply", f"--namespace={namespace}", "-f", "-", input=yaml.safe_dump(own))
    apiserver.kubectl(
        *("patch", "configmap", "argocd-cm", f"--namespace={namespace}", "--type=merge"),
        f"--patch-file={ROOT / 'deploy/argocd/argocd-cm.yaml'}",
    )
    assert set(apiserver.get("configmap", "argocd-cm", namespace)["data"]) == {
        "url",
        "resource.customizations.health.onnx-operator.dev_OnnxModel",
        "resource.customizations.actions.onnx-operator.dev_OnnxModel",
    }


KINDS_OF_THE_CLUSTER = {"OnnxModel", "Ingress", "HorizontalPodAutoscaler", "ConfigMap", "Namespace"}


def examples():
    for path in sorted(ROOT.glob("deploy/*/examples/*.yaml")):
        for document in yaml.safe_load_all(path.read_text()):
            if document["kind"] in KINDS_OF_THE_CLUSTER:
                yield pytest.param(document, id=f"{path.name}-{document['kind']}")


@pytest.mark.parametrize("manifest", [*examples()])
def test_the_examples_are_taken_by_the_api_server(apiserver, namespace, manifest):
    done = apiserver.run_kubectl(
        *("apply", "--server-side", "--dry-run=server", f"--namespace={namespace}", "-f", "-"),
        input=yaml.safe_dump(manifest),
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_a_patch_of_kustomize_changes_one_variable_and_keeps_the_other_containers(apiserver, namespace):
    built = apiserver.kubectl("kustomize", str(ROOT / "deploy/kustomize/production"))
    manifest = yaml.safe_load(built)
    server, proxy = manifest["spec"]["podTemplate"]["spec"]["containers"]
    assert server["name"] == "server"
    assert {v["name"]: v["value"] for v in server["env"]} == {"TZ": "UTC", "LOG_TARGET": "production"}
    assert proxy == {"name": "proxy", "image": "registry.example.com/proxy:1.4"}
    manifest["metadata"]["namespace"] = namespace
    apiserver.kubectl("apply", "--server-side", "-f", "-", input=yaml.safe_dump(manifest))
