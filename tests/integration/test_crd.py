"""The CRD in a real API server: what it lets in, what it refuses at once, and in which words."""

import copy
import json

import pytest
import yaml

from onnx_operator.api.onnxmodel import OnnxModelSpec

URI = "s3://models/resnet50.onnx"
SHA = "0123456789abcdef" * 4


pytestmark = pytest.mark.usefixtures("crd")


def model(name="resnet50", **spec):
    uri = {"uri": URI} | spec.pop("model", {})
    return {
        "apiVersion": "onnx-operator.dev/v1alpha1",
        "kind": "OnnxModel",
        "metadata": {"name": name},
        "spec": {"model": uri, **spec},
    }


def attempt(apiserver, namespace, manifest, *flags):
    """`kubectl apply` as a user runs it (strict validation is its default), and all that it printed."""
    done = apiserver.run_kubectl(
        "apply", "--filename=-", f"--namespace={namespace}", *flags, input=yaml.safe_dump(manifest), check=False
    )
    return done.returncode, done.stdout + done.stderr


def accepted(apiserver, namespace, manifest, *flags):
    code, output = attempt(apiserver, namespace, manifest, *flags)
    assert code == 0, output
    return apiserver.get("onnxmodel", manifest["metadata"]["name"], namespace)


# --- the smallest manifest --------------------------------------------------------------------------------------------


def test_the_crd_is_served_without_complaints(apiserver):
    conditions = apiserver.get("crd", "onnxmodels.onnx-operator.dev")["status"]["conditions"]
    found = {c["type"]: (c["status"], c.get("message")) for c in conditions}
    assert found["Established"][0] == "True"
    assert found["NamesAccepted"][0] == "True"
    assert "NonStructuralSchema" not in found, found.get("NonStructuralSchema")


def test_the_smallest_manifest_is_accepted_and_gets_only_its_replicas(apiserver, namespace):
    stored = accepted(apiserver, namespace, model())
    assert stored["spec"] == {"model": {"uri": URI}, "replicas": 1}
    assert "status" not in stored


def test_scale_works_on_the_smallest_manifest(apiserver, namespace):
    accepted(apiserver, namespace, model())
    path = f"/apis/onnx-operator.dev/v1alpha1/namespaces/{namespace}/onnxmodels/resnet50/scale"

    scale = json.loads(apiserver.kubectl("get", "--raw", path))
    assert scale["spec"]["replicas"] == 1

    apiserver.kubectl("scale", "onnx/resnet50", "--replicas=3", f"--namespace={namespace}")
    assert apiserver.get("onnx", "resnet50", namespace)["spec"]["replicas"] == 3


def test_an_autoscaler_can_target_the_smallest_manifest(apiserver, namespace):
    accepted(apiserver, namespace, model())
    apiserver.kubectl("autoscale", "onnx/resnet50", "--min=1", "--max=3", "--cpu=50%", f"--namespace={namespace}")
    target = apiserver.list("hpa", namespace)[0]["spec"]["scaleTargetRef"]
    assert (target["kind"], target["apiVersion"]) == ("OnnxModel", "onnx-operator.dev/v1alpha1")


FULL = model(
    model={
        "sha256": SHA,
        "credentials": {"secretName": "models-read"},
        "version": "7",
        "tags": {"team": "vision", "a.b-c_d": ""},
        "description": "ImageNet classifier",
    },
    runtime="GPU",
    nodePool="t4",
    replicas=2,
    resources={"requests": {"cpu": "1000m", "memory": "1024Mi"}, "limits": {"cpu": 2, "memory": "1.5Gi"}},
    session={"executionProviders": ["TensorRT", "CUDA"], "intraOpThreads": 2, "interOpThreads": 1},
    serviceAccountName="models",
    podTemplate={
        "metadata": {"labels": {"team": "vision"}, "annotations": {"a": "b"}},
        "spec": {
            "priorityClassName": "high",
            "containers": [{"name": "server", "env": [{"name": "A", "value": "1"}]}, {"name": "side", "image": "i"}],
            "nodeSelector": {},
        },
    },
    suspend=False,
)


@pytest.mark.parametrize("manifest", [model(), FULL], ids=["smallest", "full"])
@pytest.mark.parametrize("flags", [(), ("--server-side",)], ids=["client-side", "server-side"])
def test_the_same_manifest_applied_again_changes_nothing(apiserver, namespace, manifest, flags):
    first = accepted(apiserver, namespace, manifest, *flags)["metadata"]
    second = accepted(apiserver, namespace, manifest, *flags)["metadata"]
    assert (second["resourceVersion"], second["generation"]) == (first["resourceVersion"], first["generation"])

    difference = apiserver.run_kubectl(
        "diff", "--filename=-", f"--namespace={namespace}", *flags, input=yaml.safe_dump(manifest), check=False
    )
    assert difference.returncode == 0, difference.stdout


def test_what_the_user_wrote_is_stored_as_it_was_written(apiserver, namespace):
    assert accepted(apiserver, namespace, FULL)["spec"] == FULL["spec"]


CLIENT_SIDE, SERVER_SIDE = (), ("--server-side",)
HOW = pytest.mark.parametrize("flags", [CLIENT_SIDE, SERVER_SIDE], ids=["client-side", "server-side"])


@HOW
@pytest.mark.parametrize("cpu", [0.05, 0.5, 1.0, 1, "500m", 1.5e-3, 2**40])
def test_a_quantity_may_be_written_without_quotes_as_in_a_deployment(apiserver, namespace, cpu, flags):
    amounts = {"requests": {"cpu": cpu}, "limits": {"cpu": cpu}}
    container = {"name": "c", "image": "i", "resources": amounts}
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [container]}}
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "d"},
        "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template},
    }
    code, output = attempt(apiserver, namespace, deployment, *flags, "--dry-run=server")
    assert code == 0, output
    stored = accepted(apiserver, namespace, model(resources=amounts), *flags)
    assert stored["spec"]["resources"] == amounts
    again = accepted(apiserver, namespace, model(resources=amounts), *flags)
    assert again["metadata"]["resourceVersion"] == stored["metadata"]["resourceVersion"]


OPTIONAL = (
    *("runtime", "nodePool", "replicas", "resources", "session", "batching", "warmUp", "scoring", "endpoint"),
    *("serviceAccountName", "podTemplate", "suspend"),
)
NULLS = dict.fromkeys(OPTIONAL)


@HOW
def test_a_value_that_helm_leaves_unset_is_as_if_it_were_not_there(apiserver, namespace, flags):
    unset = {"sha256": None, "credentials": None, "testData": None, "version": None, "tags": None, "description": None}
    stored = accepted(apiserver, namespace, model(model=unset, **NULLS), *flags)
    meant = OnnxModelSpec.model_validate(stored["spec"])
    assert meant == OnnxModelSpec.model_validate(model()["spec"])
    again = accepted(apiserver, namespace, model(model=unset, **NULLS), *flags)
    assert again["metadata"]["generation"] == stored["metadata"]["generation"] == 1


@HOW
@pytest.mark.parametrize("path", ["resources.requests", "resources.limits.cpu", "session.executionProviders"])
def test_an_unset_value_deeper_down_is_too(apiserver, namespace, flags, path):
    spec: dict = {}
    *parents, last = path.split(".")
    inner = spec
    for parent in parents:
        inner = inner.setdefault(parent, {})
    inner[last] = None
    stored = accepted(apiserver, namespace, model(**spec), *flags)
    OnnxModelSpec.model_validate(stored["spec"])


def test_a_misspelt_field_is_refused_by_server_side_apply_whatever_the_client_checks(apiserver, namespace):
    code, output = attempt(apiserver, namespace, model(nodePol="t4"), "--server-side", "--validate=ignore")
    assert code != 0
    assert "nodePol" in output
    # What Argo CD's client-side apply does: the field is dropped in silence, and is missing for ever.
    code, output = attempt(apiserver, namespace, model(nodePol="t4"), "--validate=ignore")
    assert code == 0, output
    assert "nodePol" not in apiserver.get("onnx", "resnet50", namespace)["spec"]


@HOW
def test_replicas_that_git_leaves_out_are_the_autoscalers(apiserver, namespace, flags):
    accepted(apiserver, namespace, model(), *flags)
    apiserver.kubectl("scale", "onnx/resnet50", "--replicas=3", f"--namespace={namespace}")
    later = accepted(apiserver, namespace, model(model={"version": "2"}), *flags)
    assert later["spec"]["replicas"] == 3


@HOW
def test_a_model_that_an_action_suspended_stays_so_when_git_is_applied_again(apiserver, namespace, flags):
    accepted(apiserver, namespace, model(), *flags)
    patch = json.dumps({"spec": {"suspend": True}})
    apiserver.kubectl("patch", "onnx/resnet50", f"--namespace={namespace}", "--type=merge", f"--patch={patch}")
    assert accepted(apiserver, namespace, model(), *flags)["spec"]["suspend"] is True
    assert (
        accepted(apiserver, namespace, model(suspend=False), *flags, *(["--force-conflicts"] if flags else []))["spec"][
            "suspend"
        ]
        is False
    )


def write_status(apiserver, namespace, status):
    apiserver.kubectl(
        "patch",
        "onnx/resnet50",
        f"--namespace={namespace}",
        "--subresource=status",
        "--type=merge",
        f"--patch={json.dumps({'status': status})}",
    )


def test_a_status_write_leaves_the_generation_alone(apiserver, namespace):
    before = accepted(apiserver, namespace, model())
    write_status(apiserver, namespace, {"replicas": 1})
    after = apiserver.get("onnx", "resnet50", namespace)
    assert after["metadata"]["generation"] == before["metadata"]["generation"]
    assert after["spec"] == before["spec"]


def test_columns_tell_the_state(apiserver, namespace):
    accepted(apiserver, namespace, model())
    status = {
        "conditions": [
            {
                "type": "Ready",
                "status": "False",
                "reason": "Unschedulable",
                "message": "0/3 nodes",
                "lastTransitionTime": "2026-01-01T00:00:00.123456Z",
                "observedGeneration": 1,
            }
        ],
        "runtime": "CPU",
        "readyReplicas": 0,
        "url": "http://resnet50.x.svc",
    }
    write_status(apiserver, namespace, status)
    head, row = apiserver.kubectl("get", "onnx", f"--namespace={namespace}").splitlines()
    assert head.split() == ["NAME", "READY", "REASON", "REPLICAS", "RUNTIME", "MODEL", "URL", "AGE"]
    assert row.split()[:5] == ["resnet50", "False", "Unschedulable", "0", "CPU"]


@pytest.mark.parametrize(
    ("path", "word"),
    [
        ("spec.model", "credentials"),
        ("spec.model.uri", "https://HOST/PATH"),
        ("spec.model.uri", "models:/NAME@ALIAS"),
        ("spec.model.credentials.secretName", ".dockerconfigjson"),
        ("spec.session.executionProviders", "preference"),
        ("spec.podTemplate.spec", "PodSpec"),
        ("status.conditions", "lastTransitionTime"),
    ],
)
def test_kubectl_explain_knows_the_fields(apiserver, path, word):
    assert word in apiserver.kubectl("explain", f"onnxmodel.{path}")


# --- accepted ---------------------------------------------------------------------------------------------------------

GOOD = {
    "inline script": model(
        scoring={"script": "def run(raw_data): return raw_data", "requirements": ["pillow==11.0.0"]}
    ),
    "script of a config map": model(scoring={"configMapName": "score", "requirements": ["a.b-c[x,y]==1.0+cpu"]}),
    "entry script in a folder": model(scoring={"image": "registry.example.com/s:1", "entryScript": "src/score.py"}),
    "image with a script": model(scoring={"image": "registry.example.com/scored@sha256:" + "a" * 64}),
    "batching": model(batching={"maxBatchSize": 16, "maxDelayMilliseconds": 0}),
    "warm-up": model(
        warmUp={
            "shapes": {"audio": [1, 16000], "sr": []},
            "values": {"speed": [1.0, 2], "n": [-(2**62)]},
            "texts": {"color": ["red", ""]},
        }
    ),
    "pages that may ask": model(
        endpoint={"cors": {"allowOrigins": ["https://app.example.com", "http://localhost:3000", "http://[::1]:81"]}}
    ),
    "any page may ask": model(endpoint={"cors": {"allowOrigins": ["*"]}}),
    "test data": model(model={"testData": "s3://models/resnet50/test_data_set_0"}),
    "no fallback": model(runtime="GPU", session={"onFallback": "Fail"}),
    "shortest name": model("a"),
    "longest name": model("a" * 52),
    "https": model(model={"uri": "https://models.example.com:8443/a/b.onnx"}),
    "presigned https": model(model={"uri": "https://h.example/m.onnx?X-Amz-Date=1&X-Amz-Signature=a%2Fb"}),
    "http, which the settings decide about": model(model={"uri": "http://store.models.svc:9000/m.onnx"}),
    "test data without TLS": model(model={"testData": "http://store.models.svc/t"}),
    "https to an address": model(model={"uri": "https://10.0.0.7/m.onnx"}),
    "deep key": model(model={"uri": "s3://my.bucket-1/a/b+c.onnx"}),
    "key to the letter": model(model={"uri": "s3://models/team 1#/50%20?+ä/my model (1).onnx"}),
    "blob to the letter": model(model={"uri": "az://models/team 1#/m?.onnx"}),
    "hf file to the letter": model(model={"uri": "hf://org/repo@v1/a b#c?.onnx"}),
    "mlflow name with a blank": model(model={"uri": "models:/My model/1"}),
    "mlflow file to the letter": model(model={"uri": "mlflow://0a1b/extra files/m#1.onnx"}),
    "pvc path to the letter": model(model={"uri": "pvc://c/my models/m#1.onnx"}),
    "prefix": model(model={"uri": "s3://models/resnet50/v7/"}),
    "folder": model(model={"uri": "s3://models/resnet50"}),
    "archive": model(model={"uri": "https://h.example/zoo/resnet50.tar.gz"}),
    "gs": model(model={"uri": "gs://my_bucket.example.com/a/b.onnx"}),
    "az": model(model={"uri": "az://models/a/b.onnx"}),
    "az root": model(model={"uri": "az://$root/b.onnx"}),
    "abfss": model(model={"uri": "abfss://models@account1.dfs.core.windows.net/a/b.onnx"}),
    "abfss in another cloud": model(model={"uri": "abfss://models@account1.dfs.core.usgovcloudapi.net/a/"}),
    "oci": model(model={"uri": "oci://registry.example.com/team/resnet50"}),
    "oci tag": model(model={"uri": "oci://localhost:5000/resnet50:v1.0_a"}),
    "oci digest": model(model={"uri": f"oci://ghcr.io/a/b__c/d-e.f@sha256:{SHA}"}),
    "oci tag and digest": model(model={"uri": f"oci://ghcr.io/a/b:v1@sha256:{SHA}"}),
    "hf": model(model={"uri": "hf://onnx-community/ResNet-50_v1.5"}),
    "hf file": model(model={"uri": "hf://onnx-community/resnet/onnx/model_fp16.onnx"}),
    "hf revision": model(model={"uri": "hf://org/repo@refs%2Fpr%2F1/onnx/"}),
    "hf commit": model(model={"uri": "hf://org/repo@0123abcd"}),
    "mlflow": model(model={"uri": "mlflow://0123456789abcdef0123456789abcdef/model"}),
    "mlflow file": model(model={"uri": "mlflow://0a1b/model/model.onnx"}),
    "mlflow version": model(model={"uri": "models:/resnet50/12"}),
    "mlflow latest": model(model={"uri": "models:/resnet50/latest"}),
    "mlflow stage": model(model={"uri": "models:/resnet50/Production"}),
    "mlflow logged model": model(model={"uri": "models:/m-0123456789abcdef0123456789abcdef"}),
    "mlflow alias": model(model={"uri": "models:/resnet50@champion"}),
    "pvc": model(model={"uri": "pvc://team.models-1/resnet50/model.onnx"}),
    "pvc folder": model(model={"uri": "pvc://c/resnet50/"}),
    "longest uri": model(model={"uri": "s3://models/" + "m" * 2036}),
    "no replicas": model(replicas=0),
    "a thousand replicas": model(replicas=1000),
    "CPU provider on CPU": model(session={"executionProviders": ["CPU"]}),
    "GPU providers on GPU": model(runtime="GPU", session={"executionProviders": ["CUDA", "CPU"]}),
    "empty objects": model(resources={}, session={}, podTemplate={}),
    "whole and fractional quantities": model(resources={"limits": {"cpu": 1, "memory": "0.5Gi", "x.io/y": "1e3"}}),
    "sidecar": model(podTemplate={"spec": {"containers": [{"name": "side", "image": "i"}]}}),
    "unicode words": model(model={"version": "v1-é", "description": "Erkennt Bäume 🌲"}),
}


@pytest.mark.parametrize("manifest", GOOD.values(), ids=GOOD)
def test_what_is_right_is_accepted(apiserver, manifest):
    code, output = attempt(apiserver, "default", manifest, "--dry-run=server")
    assert code == 0, output


# --- refused ----------------------------------------------------------------------------------------------------------


def uri(value):
    return model(model={"uri": value})


def without_uri():
    manifest = copy.deepcopy(model())
    del manifest["spec"]["model"]["uri"]
    return manifest


BAD = {
    "two scripts": (model(scoring={"script": "x", "configMapName": "score"}), "exactly one of configMapName, script"),
    "warm-up beyond all memory": (model(warmUp={"shapes": {"x": [1, 2**31]}}), "spec.warmUp.shapes.x[1]"),
    "warm-up of a negative size": (model(warmUp={"shapes": {"x": [-1]}}), "spec.warmUp.shapes.x[0]"),
    "warm-up by texts among numbers": (model(warmUp={"values": {"x": [1, "red"]}}), "must be of type number"),
    "warm-up by nothing": (model(warmUp={"values": {"x": []}}), "spec.warmUp.values.x"),
    "warm-up by lists": (model(warmUp={"values": {"x": [[1]]}}), "spec.warmUp.values.x[0]"),
    "warm-up of many inputs": (
        model(warmUp={"shapes": {f"x{n}": [1] for n in range(513)}}),
        "must have at most 512",
    ),
    "no script": (model(scoring={"requirements": ["a==1"]}), "exactly one of configMapName, script"),
    "entry script above": (
        model(scoring={"image": "i", "entryScript": "../score.py"}),
        "spec.scoring.entryScript",
    ),
    "entry script of a text": (model(scoring={"script": "x", "entryScript": "a.py"}), "script is the whole script"),
    "image with requirements": (model(scoring={"image": "i", "requirements": ["a==1"]}), "brings its own packages"),
    "unpinned requirement": (
        model(scoring={"script": "x", "requirements": ["pillow"]}),
        "spec.scoring.requirements[0]",
    ),
    "option as requirement": (
        model(scoring={"script": "x", "requirements": ["--pre"]}),
        "spec.scoring.requirements[0]",
    ),
    "page with a path": (
        model(endpoint={"cors": {"allowOrigins": ["https://app.example.com/"]}}),
        "spec.endpoint.cors.allowOrigins[0]",
    ),
    "page without scheme": (
        model(endpoint={"cors": {"allowOrigins": ["app.example.com"]}}),
        "spec.endpoint.cors.allowOrigins[0]",
    ),
    "no page": (model(endpoint={"cors": {"allowOrigins": []}}), "spec.endpoint.cors.allowOrigins"),
    "empty batch": (model(batching={"maxBatchSize": 0}), "spec.batching.maxBatchSize"),
    "endless delay": (model(batching={"maxDelayMilliseconds": 1001}), "spec.batching.maxDelayMilliseconds"),
    "test data in a claim": (model(model={"testData": "pvc://claim/data"}), "must be a folder"),
    "fallback on the CPU": (model(session={"onFallback": "Fail"}), "onFallback: Fail needs runtime: GPU"),
    "unknown fallback": (model(runtime="GPU", session={"onFallback": "Maybe"}), "spec.session.onFallback"),
    # name → manifest, the field that must be named
    "no spec": ({k: v for k, v in model().items() if k != "spec"}, "spec"),
    "no model": (model() | {"spec": {}}, "spec.model"),
    "no uri": (without_uri(), "spec.model.uri"),
    "empty uri": (uri(""), "spec.model.uri"),
    "uri a number": (uri(5), "spec.model.uri"),
    "uri null": (uri(None), "spec.model.uri"),
    "ftp": (uri("ftp://host/m.onnx"), "spec.model.uri"),
    "http without a host": (uri("http:///m.onnx"), "spec.model.uri"),
    "file": (uri("file:///etc/passwd"), "spec.model.uri"),
    "bucket of gs in capitals": (uri("gs://Bucket/m.onnx"), "spec.model.uri"),
    "gs without key": (uri("gs://bucket"), "spec.model.uri"),
    "container in capitals": (uri("az://Models/m.onnx"), "spec.model.uri"),
    "abfss to another host": (uri("abfss://models@store.example.com/m.onnx"), "spec.model.uri"),
    "container with two hyphens": (uri("az://a--b/m.onnx"), "spec.model.uri"),
    "abfss without account": (uri("abfss://models/m.onnx"), "spec.model.uri"),
    "oci without repository": (uri("oci://registry.example.com"), "spec.model.uri"),
    "oci in capitals": (uri("oci://registry.example.com/Team/m"), "spec.model.uri"),
    "oci with a user": (uri("oci://me@registry.example.com/m"), "spec.model.uri"),
    "oci short digest": (uri("oci://registry.example.com/m@sha256:abc"), "spec.model.uri"),
    "oci empty tag": (uri("oci://registry.example.com/m:"), "spec.model.uri"),
    "hf without repository": (uri("hf://org"), "spec.model.uri"),
    "hf empty revision": (uri("hf://org/repo@"), "spec.model.uri"),
    "mlflow without path": (uri("mlflow://0a1b"), "spec.model.uri"),
    "models with two slashes": (uri("models://resnet50/1"), "spec.model.uri"),
    "models without version": (uri("models:/resnet50"), "spec.model.uri"),
    "models with a stage and more": (uri("models:/resnet50/Production/x"), "spec.model.uri"),
    "models with half a number": (uri("models:/resnet50/1a"), "spec.model.uri"),
    "pvc without path": (uri("pvc://claim"), "spec.model.uri"),
    "claim in capitals": (uri("pvc://Claim/m.onnx"), "spec.model.uri"),
    "second address in the first": (uri("ftp://h/https://host/m.onnx"), "spec.model.uri"),
    "no scheme": (uri("models/m.onnx"), "spec.model.uri"),
    "bucket without key": (uri("s3://bucket"), "spec.model.uri"),
    "bucket in capitals": (uri("s3://Bucket/m.onnx"), "spec.model.uri"),
    "user in the address": (uri("https://user:pass@host/m.onnx"), "spec.model.uri"),
    "fragment": (uri("https://host/m.onnx#part"), "spec.model.uri"),
    "space": (uri("https://host/my model.onnx"), "spec.model.uri"),
    "newline": (uri("https://host/m.onnx\n"), "spec.model.uri"),
    "key that ends with a space": (uri("s3://models/m.onnx "), "spec.model.uri"),
    "key that begins with a space": (uri("s3://models/ m.onnx"), "spec.model.uri"),
    "key with a newline": (uri("s3://models/m\n.onnx"), "spec.model.uri"),
    "key with a tab": (uri("gs://models/a\tm.onnx"), "spec.model.uri"),
    "claim's path with a newline": (uri("pvc://c/m.onnx\n"), "spec.model.uri"),
    "hf path with a newline": (uri("hf://org/repo/m\n.onnx"), "spec.model.uri"),
    "mlflow name that ends with a space": (uri("models:/My model /1"), "spec.model.uri"),
    "host alone": (uri("https://host"), "spec.model.uri"),
    "very long uri": (uri("https://host/" + "m" * 2048), "spec.model.uri"),
    "short sha256": (model(model={"sha256": SHA[:-1]}), "spec.model.sha256"),
    "capital sha256": (model(model={"sha256": SHA.upper()}), "spec.model.sha256"),
    "prefixed sha256": (model(model={"sha256": f"sha256:{SHA}"}), "spec.model.sha256"),
    "credentials a string": (model(model={"credentials": "secret"}), "spec.model.credentials"),
    "credentials without name": (model(model={"credentials": {}}), "spec.model.credentials.secretName"),
    "secret with capitals": (model(model={"credentials": {"secretName": "S"}}), "spec.model.credentials.secretName"),
    "credentials with a key": (
        model(model={"credentials": {"secretName": "s", "key": "k"}}),
        "spec.model.credentials.key",
    ),
    "version a number": (model(model={"version": 7}), "spec.model.version"),
    "empty version": (model(model={"version": ""}), "spec.model.version"),
    "long version": (model(model={"version": "v" * 65}), "spec.model.version"),
    "tag a number": (model(model={"tags": {"a": 1}}), "spec.model.tags.a"),
    "tag with a slash": (model(model={"tags": {"a/b": "c"}}), "spec.model.tags"),
    "too many tags": (model(model={"tags": {f"t{i}": "" for i in range(33)}}), "spec.model.tags"),
    "long description": (model(model={"description": "d" * 1025}), "spec.model.description"),
    "unknown in model": (model(model={"url": "x"}), "spec.model.url"),
    "unknown in spec": (model(replica=1), "spec.replica"),
    "unknown at the top": (model() | {"sepc": {}}, "sepc"),
    "field of later": (model(autoscaling={"minReplicas": 1}), "spec.autoscaling"),
    "runtime TPU": (model(runtime="TPU"), "spec.runtime"),
    "runtime in small letters": (model(runtime="gpu"), "spec.runtime"),
    "pool with capitals": (model(nodePool="T4"), "spec.nodePool"),
    "empty pool": (model(nodePool=""), "spec.nodePool"),
    "replicas -1": (model(replicas=-1), "spec.replicas"),
    "replicas 1001": (model(replicas=1001), "spec.replicas"),
    "replicas two": (model(replicas="two"), "spec.replicas"),
    "replicas 1.5": (model(replicas=1.5), "spec.replicas"),
    "resources a list": (model(resources=[]), "spec.resources"),
    "quantity in words": (model(resources={"limits": {"cpu": "two"}}), "spec.resources.limits.cpu"),
    "negative quantity": (model(resources={"limits": {"cpu": "-1"}}), "spec.resources.limits.cpu"),
    "quantity in GB": (model(resources={"requests": {"memory": "1GB"}}), "spec.resources.requests.memory"),
    "negative number": (model(resources={"limits": {"cpu": -1}}), "spec.resources.limits.cpu"),
    "negative fraction": (model(resources={"limits": {"cpu": -0.5}}), "spec.resources.limits.cpu"),
    "quantity yes": (model(resources={"limits": {"cpu": True}}), "spec.resources.limits.cpu"),
    "quantity a list": (model(resources={"limits": {"cpu": [1]}}), "spec.resources.limits.cpu"),
    "quantity an empty list": (model(resources={"limits": {"cpu": []}}), "spec.resources.limits.cpu"),
    "quantity an object": (model(resources={"limits": {"cpu": {"value": 1}}}), "spec.resources.limits.cpu"),
    "quantity an empty object": (model(resources={"limits": {"cpu": {}}}), "spec.resources.limits.cpu"),
    "empty quantity": (model(resources={"limits": {"cpu": ""}}), "spec.resources.limits.cpu"),
    "claims": (model(resources={"claims": []}), "spec.resources.claims"),
    "unknown provider": (model(session={"executionProviders": ["ROCM"]}), "spec.session.executionProviders[0]"),
    "no provider": (model(session={"executionProviders": []}), "spec.session.executionProviders"),
    "the same provider twice": (
        model(session={"executionProviders": ["CPU", "CPU"]}),
        "spec.session.executionProviders[1]",
    ),
    "GPU provider by default on CPU": (
        model(session={"executionProviders": ["CUDA"]}),
        "spec.session.executionProviders",
    ),
    "GPU provider on CPU": (
        model(runtime="CPU", session={"executionProviders": ["CPU", "TensorRT"]}),
        "spec.session.executionProviders",
    ),
    "no threads": (model(session={"intraOpThreads": 0}), "spec.session.intraOpThreads"),
    "many threads": (model(session={"interOpThreads": 513}), "spec.session.interOpThreads"),
    "unknown in session": (model(session={"threads": 1}), "spec.session.threads"),
    "service account with capitals": (model(serviceAccountName="Models"), "spec.serviceAccountName"),
    "pod template a string": (model(podTemplate="x"), "spec.podTemplate"),
    "pod spec a list": (model(podTemplate={"spec": []}), "spec.podTemplate.spec"),
    "pod template with a kind": (model(podTemplate={"kind": "Pod"}), "spec.podTemplate.kind"),
    "selector labels": (
        model(podTemplate={"metadata": {"labels": {"onnx-operator.dev/model": "other"}}}),
        "spec.podTemplate.metadata.labels",
    ),
    "track label": (
        model(podTemplate={"metadata": {"labels": {"onnx-operator.dev/track": "canary"}}}),
        "spec.podTemplate.metadata.labels",
    ),
    "pods' name": (model(podTemplate={"metadata": {"name": "x"}}), "spec.podTemplate.metadata.name"),
    "label a number": (model(podTemplate={"metadata": {"labels": {"a": 1}}}), "spec.podTemplate.metadata.labels.a"),
    "suspend in words": (model(suspend="yes"), "spec.suspend"),
    "name too long": (model("a" * 53), "metadata.name"),
    "name with a dot": (model("a.b"), "metadata.name"),
    "name in capitals": (model("Resnet"), "metadata.name"),
    "name that begins with a digit": (model("1a"), "metadata.name"),
    "name that ends with a hyphen": (model("a-"), "metadata.name"),
}


@pytest.mark.parametrize(("manifest", "field"), BAD.values(), ids=BAD)
def test_what_is_wrong_is_refused_at_once_and_named(apiserver, manifest, field):
    code, output = attempt(apiserver, "default", manifest, "--dry-run=server")
    assert code != 0, f"accepted: {output}"
    assert field in output or field.replace("spec.", ".spec.", 1) in output, output


def test_a_wrong_address_is_told_what_a_right_one_looks_like(apiserver, namespace):
    _, output = attempt(apiserver, namespace, uri("ftp://host/m.onnx"))
    assert "s3://models/resnet50.onnx" in output


def test_a_gpu_provider_without_a_gpu_is_told_what_to_set(apiserver, namespace):
    _, output = attempt(apiserver, namespace, model(session={"executionProviders": ["CUDA"]}))
    assert "runtime: GPU" in output


@pytest.mark.parametrize("replicas", [-1, 1001])
def test_scale_keeps_the_bounds_too(apiserver, namespace, replicas):
    accepted(apiserver, namespace, model())
    done = apiserver.run_kubectl(
        "scale", "onnx/resnet50", f"--replicas={replicas}", f"--namespace={namespace}", check=False
    )
    assert done.returncode != 0
    assert apiserver.get("onnx", "resnet50", namespace)["spec"]["replicas"] == 1


# --- how updates move -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "rollout",
    [
        {"maxSurge": 1, "maxUnavailable": 0, "progressDeadlineSeconds": 3600},
        {"maxSurge": "25%", "maxUnavailable": "10%"},
        {"maxSurge": 0},
        {"maxSurge": "0%", "maxUnavailable": 1},
        {},
    ],
)
def test_how_updates_move_is_said_as_for_a_deployment(apiserver, namespace, rollout):
    stored = accepted(apiserver, namespace, model(rollout=rollout))
    assert stored["spec"]["rollout"] == rollout


@pytest.mark.parametrize(
    "rollout",
    [
        {"maxSurge": 0, "maxUnavailable": 0},
        {"maxSurge": "0%", "maxUnavailable": 0},
        {"maxSurge": "0%", "maxUnavailable": "0%"},
    ],
)
def test_an_update_that_could_not_move_is_refused_and_both_fields_are_named(apiserver, namespace, rollout):
    code, output = attempt(apiserver, namespace, model(rollout=rollout))
    assert code != 0
    assert "maxSurge and maxUnavailable must not both be 0" in output


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("maxSurge", -1),
        ("maxSurge", "1"),
        ("maxSurge", "101%"),
        ("maxSurge", 1.5),
        ("maxUnavailable", "many"),
        ("maxUnavailable", True),
        ("progressDeadlineSeconds", 0),
        ("progressDeadlineSeconds", "1h"),
    ],
)
def test_what_is_no_number_of_pods_or_seconds_is_refused_by_its_name(apiserver, namespace, field, value):
    code, output = attempt(apiserver, namespace, model(rollout={field: value}))
    assert code != 0
    assert f"spec.rollout.{field}" in output
