"""The pod that inspects in a model's namespace: what it may, where it lands, and what keeps it from starting."""

import pytest

from onnx_operator.api import names
from onnx_operator.api.conditions import Reason
from onnx_operator.api.report import Capabilities, InspectionRequest
from onnx_operator.common import egress
from onnx_operator.controller.cluster.answers import ApiError
from onnx_operator.controller.inspection.pod import PATIENCE, inspection_pod, pod_name, pod_request, start_cause
from onnx_operator.controller.inspection.pods import MAX_LESSONS, InspectionPods
from onnx_operator.controller.observation.admission import Demands
from onnx_operator.controller.revision.fetching import needs_pod
from onnx_operator.controller.revision.render import TemplateError
from onnx_operator.inspector.once import take_request
from tests.unit.controller.samples import A100, T4, certificate, settings, spec

CAPABILITIES = Capabilities(onnx_runtime_version="1.32.0", ir_version=14, opsets={"ai.onnx": 28}, operators={})
MODEL = {"metadata": {"name": "resnet50", "namespace": "vision", "uid": "uid-1"}}
VOLUME = "pvc://models/a/b.onnx"
IMAGE = "registry.example/onnx-operator:1.0"


def settings_(**fields):
    return settings(inspectorImage=IMAGE, **fields)


def request_for(wanted, loaded, **fields):
    asked = InspectionRequest(
        uri=wanted.model.uri, sources=loaded.sources, capabilities=CAPABILITIES, tenant="vision", **fields
    )
    return pod_request(wanted, asked)


def made(wanted=None, loaded=None, key="key", model=MODEL, demands=None, **fields):
    wanted = wanted or spec(model={"uri": VOLUME})
    loaded = loaded or settings_()
    return inspection_pod(model, wanted, key, request_for(wanted, loaded, **fields), loaded, demands)


def request_in(pod):
    (container,) = pod["spec"]["containers"]
    return take_request({e["name"]: e["value"] for e in container["env"]})


@pytest.mark.parametrize(
    ("fields", "loaded", "needed"),
    [
        ({"model": {"uri": VOLUME}}, {}, True),
        ({"model": {"uri": VOLUME}}, {"sources": {"useOperatorIdentity": True}}, True),
        ({"model": {"uri": "s3://b/m.onnx"}, "serviceAccountName": "ml"}, {}, True),
        ({"model": {"uri": "gs://bucket/m.onnx"}, "serviceAccountName": "ml"}, {}, True),
        ({"model": {"uri": "az://models/m.onnx"}, "serviceAccountName": "ml"}, {}, True),
        (
            {"model": {"uri": "s3://b/m.onnx"}, "serviceAccountName": "ml"},
            {"sources": {"useOperatorIdentity": True}},
            False,
        ),
        ({"model": {"uri": "s3://b/m.onnx"}}, {}, False),
        (
            {"model": {"uri": "s3://b/m.onnx", "credentials": {"secretName": "s"}}, "serviceAccountName": "ml"},
            {},
            False,
        ),
        ({"model": {"uri": "https://example.com/m.onnx"}, "serviceAccountName": "ml"}, {}, False),
    ],
)
def test_a_pod_inspects_only_what_only_the_models_own_pods_can_read(fields, loaded, needed):
    assert needs_pod(spec(**fields), settings(**loaded)) is needed


def test_the_same_inspection_has_the_same_pod_and_another_one_another():
    assert pod_name(MODEL, "key") == pod_name(MODEL, "key")
    successor = {"metadata": MODEL["metadata"] | {"uid": "uid-2"}}
    assert len({pod_name(MODEL, "key"), pod_name(MODEL, "refreshed"), pod_name(successor, "key")}) == 3


def test_a_name_as_long_as_it_may_be_still_gives_a_pod_a_host_name():
    longest = {"metadata": MODEL["metadata"] | {"name": "a" * 42 + "-" + "b" * 9}}
    assert len(pod_name(longest, "key")) <= 63
    assert "--" not in pod_name(longest, "key")


def test_the_pod_belongs_to_the_model_and_takes_no_traffic():
    metadata = made()["metadata"]
    assert metadata["namespace"] == "vision"
    (owner,) = metadata["ownerReferences"]
    assert (owner["kind"], owner["name"], owner["uid"]) == ("OnnxModel", "resnet50", "uid-1")
    assert metadata["labels"][names.LABEL_INSPECTION] == "resnet50"
    assert not {names.LABEL_MODEL, names.LABEL_TRACK, names.LABEL_REVISION} & set(metadata["labels"])


def test_the_pod_is_restricted_and_holds_no_token():
    pod = made()["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False
    assert pod["restartPolicy"] == "Never"
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    (container,) = pod["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["image"] == IMAGE
    assert set(container["resources"]["limits"]) == {"memory"}


def test_it_reads_the_claim_and_cannot_write_to_it():
    pod = made()["spec"]
    claim = next(v for v in pod["volumes"] if v["name"] == "source")
    assert claim["persistentVolumeClaim"] == {"claimName": "models", "readOnly": True}
    mount = next(m for m in pod["containers"][0]["volumeMounts"] if m["name"] == "source")
    assert mount == {"name": "source", "mountPath": names.SOURCE_DIRECTORY, "readOnly": True}
    assert f"--root={names.SOURCE_DIRECTORY}" in pod["containers"][0]["args"]
    assert request_in(made()).workload_identity is False


def test_it_has_the_models_identity_and_no_volume_where_a_store_knows_the_service_account():
    pod = made(spec(model={"uri": "az://models/m.onnx"}, serviceAccountName="ml"))
    assert pod["spec"]["serviceAccountName"] == "ml"
    assert pod["metadata"]["labels"]["azure.workload.identity/use"] == "true"
    assert [v["name"] for v in pod["spec"]["volumes"]] == ["tmp"]
    assert request_in(pod).workload_identity is True


def test_the_request_arrives_whole_although_it_is_longer_than_a_variable_may_be():
    many = certificate() * (60_000 // len(certificate()))
    loaded = settings_(sources={"s3": {"caBundle": many}}, signatures={"certificateAuthorities": many})
    wanted = spec(model={"uri": "s3://b/$(HOME)/$$/m.onnx"}, serviceAccountName="ml")
    pod = made(wanted, loaded, signatures=loaded.signatures)
    env = pod["spec"]["containers"][0]["env"]
    assert len(env) > 1
    assert all(len(e["value"]) < 128 * 1024 for e in env)
    # As the kubelet hands it on.
    asked = take_request({e["name"]: e["value"].replace("$$", "$") for e in env})
    assert asked.uri == "s3://b/$(HOME)/$$/m.onnx"
    assert asked.sources.s3.ca_bundle == loaded.sources.s3.ca_bundle
    assert asked.signatures.certificate_authorities == loaded.signatures.certificate_authorities


def test_settings_of_other_stores_stay_with_the_operator():
    loaded = settings_(sources={"s3": {"endpoint": "https://s3.example"}, "hf": {"endpoint": "https://hf.example"}})
    assert "example" not in made(loaded=loaded)["spec"]["containers"][0]["env"][0]["value"]


def test_credentials_never_go_into_a_pod():
    with pytest.raises(ValueError, match="credentials"):
        made(credentials={"AWS_SECRET_ACCESS_KEY": "very-secret"})


def test_it_stays_off_gpu_nodes_even_for_a_gpu_model():
    pod = made(spec(model={"uri": VOLUME}, runtime="GPU"), settings_(pools=[T4, A100]))["spec"]
    terms = pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert terms[0]["matchExpressions"][0]["operator"] == "NotIn"
    assert "nodeSelector" not in pod


def test_it_goes_to_the_pool_that_the_model_names_without_asking_for_its_devices():
    pod = made(spec(model={"uri": VOLUME}, runtime="GPU", nodePool="t4"), settings_(pools=[T4, A100]))["spec"]
    assert pod["nodeSelector"] == T4["nodeSelector"]
    assert pod["tolerations"] == T4["tolerations"]
    assert "affinity" not in pod
    assert set(pod["containers"][0]["resources"]["requests"]) == {"cpu", "memory", "ephemeral-storage"}


def test_it_gets_what_the_namespace_demands_and_what_the_user_says_of_cpu():
    def resources(demands=None, **fields):
        pod = made(spec(model={"uri": VOLUME}, **fields), demands=demands)
        return pod["spec"]["containers"][0]["resources"]

    assert "cpu" not in resources()["limits"]
    assert resources(Demands(limits=["cpu"]))["limits"]["cpu"] == "1"
    assert resources(Demands(maximum={"memory": "1Gi"}))["limits"]["memory"] == "1Gi"
    asked = {"requests": {"cpu": "200m", "memory": "8Gi"}, "limits": {"cpu": "400m", "memory": "16Gi"}}
    found = resources(resources=asked)
    assert (found["requests"]["cpu"], found["limits"]["cpu"]) == ("200m", "400m")
    assert (found["requests"]["memory"], found["limits"]["memory"]) == ("192Mi", "1536Mi"), "those are the server's"
    small = resources(resources={"limits": {"memory": "600Mi"}})
    assert small["limits"]["memory"] == "600Mi"


def test_a_pool_that_is_closed_to_the_namespace_is_not_entered():
    pod = made(spec(model={"uri": VOLUME}, runtime="GPU", nodePool="a100"), settings_(pools=[T4, A100]))["spec"]
    assert "nodeSelector" not in pod
    assert "affinity" in pod


def test_what_the_pod_template_says_of_users_and_nodes_holds_for_the_inspection_and_nothing_else():
    wanted = spec(
        model={"uri": VOLUME},
        podTemplate={
            "spec": {
                "securityContext": {"supplementalGroups": [1000]},
                "tolerations": [{"key": "team", "operator": "Exists"}],
                "containers": [{"name": "server", "env": [{"name": "A", "value": "b"}]}],
                "initContainers": [{"name": "more", "image": "anything"}],
                "hostNetwork": True,
            }
        },
    )
    pod = made(wanted)["spec"]
    assert pod["securityContext"]["supplementalGroups"] == [1000]
    assert pod["securityContext"]["runAsUser"] == 65532
    assert pod["tolerations"] == [{"key": "team", "operator": "Exists"}]
    assert [c["name"] for c in pod["containers"]] == ["inspect"]
    assert not {"initContainers", "hostNetwork"} & set(pod)


def test_its_time_and_its_images_come_from_the_settings():
    loaded = settings_(inspection={"timeoutSeconds": 90.5}, imagePullSecrets=["pull"], imagePullPolicy="Always")
    pod = made(loaded=loaded)["spec"]
    assert pod["activeDeadlineSeconds"] == 91
    assert pod["imagePullSecrets"] == [{"name": "pull"}]
    assert pod["containers"][0]["imagePullPolicy"] == "Always"


def test_a_platform_team_may_replace_the_template_but_not_by_nothing(tmp_path):
    file = tmp_path / "inspection_pod.yaml.j2"
    own = (
        "{apiVersion: v1, kind: Pod, metadata: {name: {{ name }}, namespace: {{ namespace }}}, spec: {hostIPC: false}}"
    )
    file.write_text(own)
    assert made(loaded=settings_(templatesDirectory=str(tmp_path)))["spec"] == {"hostIPC": False}
    file = tmp_path / "other" / "inspection_pod.yaml.j2"
    file.parent.mkdir()
    file.write_text("")
    with pytest.raises(TemplateError, match="inspection_pod"):
        made(loaded=settings_(templatesDirectory=str(file.parent)))


def stuck(*, waiting=None, unschedulable=None):
    status = {"phase": "Pending", "conditions": []}
    if unschedulable:
        condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": unschedulable}
        status["conditions"].append(condition)
    if waiting:
        status["containerStatuses"] = [{"name": "inspect", "image": IMAGE, "state": {"waiting": waiting}}]
    return made() | {"status": status}


def test_a_claim_that_does_not_exist_is_named():
    message = '0/3 nodes are available: persistentvolumeclaim "models" not found. not found'
    found = start_cause(stuck(unschedulable=message), "models")
    assert found is not None
    assert found.reason is Reason.SOURCE_NOT_FOUND
    assert "'models' in namespace 'vision'" in found.message
    assert found.patience < PATIENCE[Reason.UNSCHEDULABLE]


@pytest.mark.parametrize(
    ("pod", "words"),
    [
        (stuck(unschedulable="0/3 nodes are available: 3 Insufficient cpu."), "Insufficient cpu"),
        (stuck(unschedulable="pod has unbound immediate PersistentVolumeClaims"), "unbound immediate"),
        (stuck(waiting={"reason": "ImagePullBackOff", "message": "denied"}), "cannot be pulled: denied"),
        (stuck(waiting={"reason": "CreateContainerError", "message": "no such user"}), "no such user"),
    ],
)
def test_what_keeps_the_pod_from_starting_is_told_in_its_own_words(pod, words):
    found = start_cause(pod, "models")
    assert found is not None
    assert found.reason is Reason.SOURCE_UNREACHABLE
    assert words in found.message


def test_a_pod_that_is_on_its_way_has_no_cause_to_tell():
    assert start_cause(stuck(waiting={"reason": "ContainerCreating"}), "models") is None
    assert start_cause(stuck(), "models") is None


class EverMore:
    """An API server whose namespace asks for more each time."""

    asked = 0

    async def list(self, *_):
        return []

    async def create(self, _kind, _manifest):
        self.asked += 1
        least = f"{self.asked + 100}m"
        message = f'pods "p" is forbidden: minimum cpu usage per Container is {least}, but request is 50m'
        raise ApiError(403, "Forbidden", message)


async def test_a_namespace_that_asks_for_more_each_time_is_not_followed_for_ever():
    kube, wanted, loaded = EverMore(), spec(model={"uri": VOLUME}), settings_()
    result = await InspectionPods(kube, loaded).inspect(MODEL, wanted, "key", request_for(wanted, loaded))
    assert kube.asked == MAX_LESSONS + 1
    assert "minimum cpu usage" in result.refusal.message
    assert result.refusal.retriable


def test_its_user_and_its_way_out_are_those_of_the_settings():
    pod = made(loaded=settings_(runAsUser=None, egress={"configMapName": "no", "secretName": "outside"}))["spec"]
    assert pod["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    (volume,) = [v for v in pod["volumes"] if v["name"] == "egress"]
    assert volume["projected"]["sources"] == [{"secret": {"name": "outside", "optional": True}}]
    assert {"name": "egress", "mountPath": egress.DIRECTORY, "readOnly": True} in pod["containers"][0]["volumeMounts"]
