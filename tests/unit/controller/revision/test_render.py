"""Rendering: what a model's children look like, whatever the user asked for."""

import copy
import hashlib
import json
import re

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from onnx_operator.api.conditions import Reason
from onnx_operator.api.contract import FetchPlan
from onnx_operator.api.report import MemoryEstimate
from onnx_operator.common import egress
from onnx_operator.controller.observation.admission import Demands
from onnx_operator.controller.revision.render import (
    RenderInput,
    render,
    uses_gpu,
    version_label,
)
from onnx_operator.controller.revision.warm_up import Kept
from onnx_operator.controller.settings.quantities import MEBIBYTE, parse_quantity
from onnx_operator.model.refusal import RefusedError
from tests.unit.controller.samples import (
    A100,
    DIGEST,
    T4,
    URI,
    certificate,
    files,
    many_files,
    pool,
    report,
    settings,
    spec,
)


def manifests(
    name="resnet50",
    namespace="default",
    megabytes=100,
    pool_=None,
    settings_=None,
    files_=None,
    scoring_=None,
    test_data=(),
    kept=None,
    flops=0,
    demands=None,
    memory=None,
    **fields,
):
    found = report(megabytes, flops=flops, **({"memory": memory} if memory else {}))
    inputs = RenderInput(
        name,
        namespace,
        spec(**fields),
        found,
        files_ or files(found),
        pool_ or pool("cpu"),
        settings_ or settings(),
        scoring_ or {},
        list(test_data),
        kept,
        demands,
    )
    return {m["kind"]: m for m in render(inputs)}


def pod_spec(**fields):
    return manifests(**fields)["Deployment"]["spec"]["template"]["spec"]


def server(**fields):
    return next(c for c in pod_spec(**fields)["containers"] if c["name"] == "server")


def fetch(**fields):
    return next(c for c in pod_spec(**fields)["initContainers"] if c["name"] == "fetch")


def in_container(text: str, variables: dict[str, str] | None = None) -> str:
    """What the kubelet makes of ``$(NAME)`` and ``$$`` in arguments and variables."""
    known = variables or {}
    return re.sub(
        r"\$(\$|\(([^)]*)\))?",
        lambda m: "$" if m[1] == "$" else (known.get(m[2], m[0]) if m[1] else "$"),
        text,
    )


def environment(**fields) -> dict[str, str]:
    """What fetch finds in its environment, as far as it does not come from a Secret."""
    known = {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}
    return {e["name"]: in_container(e["value"], known) for e in fetch(**fields)["env"] if "value" in e}


def plan(**fields) -> FetchPlan:
    return FetchPlan.from_variables(environment(**fields))


# --- names, labels, selectors: never to be changed --------------------------------------------------------------------


def test_a_model_has_a_deployment_a_service_and_a_disruption_budget_of_its_own_name():
    rendered = manifests()
    assert set(rendered) == {"Deployment", "Service", "PodDisruptionBudget"}
    for manifest in rendered.values():
        assert manifest["metadata"]["name"] == "resnet50"
        assert manifest["metadata"]["namespace"] == "default"


def test_the_selector_labels_are_model_and_track():
    deployment = manifests()["Deployment"]["spec"]
    expected = {"onnx-operator.dev/model": "resnet50", "onnx-operator.dev/track": "stable"}
    assert deployment["selector"]["matchLabels"] == expected
    assert expected.items() <= deployment["template"]["metadata"]["labels"].items()


def test_the_service_and_the_disruption_budget_cover_all_tracks():
    rendered = manifests()
    assert rendered["Service"]["spec"]["selector"] == {"onnx-operator.dev/model": "resnet50"}
    assert rendered["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == {"onnx-operator.dev/model": "resnet50"}


def test_children_never_carry_argo_cds_labels():
    for manifest in manifests().values():
        template = manifest["spec"].get("template", {}).get("metadata", {})
        labels = manifest["metadata"]["labels"] | template.get("labels", {})
        assert "app.kubernetes.io/instance" not in labels
        assert not [k for k in labels if "argocd" in k]
        assert "annotations" not in manifest["metadata"]


def test_the_disruption_budget_lets_broken_pods_be_evicted():
    budget = manifests()["PodDisruptionBudget"]["spec"]
    assert budget["maxUnavailable"] == 1
    assert budget["unhealthyPodEvictionPolicy"] == "AlwaysAllow"


def test_the_service_answers_http_on_port_80_and_grpc_on_8081():
    assert manifests()["Service"]["spec"]["ports"] == [
        {"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP", "appProtocol": "http"},
        {"name": "grpc", "port": 8081, "targetPort": "grpc", "protocol": "TCP", "appProtocol": "kubernetes.io/h2c"},
    ]


def test_an_update_never_takes_a_serving_pod_away_first():
    strategy = manifests()["Deployment"]["spec"]["strategy"]
    assert strategy["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}


@pytest.mark.parametrize("word", ["on", "off", "yes", "no", "true", "false", "null", "y", "n", "e1", "nan", "inf"])
def test_names_that_yaml_takes_for_something_else_stay_names(word):
    rendered = manifests(name=word, serviceAccountName=word)
    for manifest in rendered.values():
        assert manifest["metadata"]["name"] == word
    assert rendered["Deployment"]["spec"]["template"]["spec"]["serviceAccountName"] == word


@pytest.mark.parametrize("namespace", ["123", "0x1f", "1e3", "007", "2026-01-01", "on", "1-1"])
def test_namespaces_that_yaml_takes_for_something_else_stay_names(namespace):
    for manifest in manifests(namespace=namespace, serviceAccountName="1.5").values():
        assert manifest["metadata"]["namespace"] == namespace


# --- security ---------------------------------------------------------------------------------------------------------


def assert_restricted(pod):
    """The restricted Pod Security Standard (https://kubernetes.io/docs/concepts/security/pod-security-standards/)."""
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in pod["containers"] + pod["initContainers"]:
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert context["readOnlyRootFilesystem"] is True
        assert not context.get("privileged")
        assert not [p for p in container.get("ports", []) if "hostPort" in p]
    assert all("hostPath" not in v for v in pod["volumes"])


def test_pods_meet_the_restricted_pod_security_standard():
    assert_restricted(pod_spec())
    assert_restricted(pod_spec(runtime="GPU", pool_=pool(**T4)))


def test_pods_get_no_service_links_and_no_token():
    pod = pod_spec(serviceAccountName="models")
    assert pod["enableServiceLinks"] is False
    assert pod["automountServiceAccountToken"] is False
    assert pod["serviceAccountName"] == "models"


def test_without_a_service_account_the_namespaces_own_is_used():
    assert "serviceAccountName" not in pod_spec()


def test_only_fetch_sees_the_credentials():
    fields = {"model": {"uri": URI, "credentials": {"secretName": "models-read"}}}
    references = [e for e in fetch(**fields)["env"] if "secretKeyRef" in e.get("valueFrom", {})]
    assert [e["name"] for e in references] == ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"]
    assert {e["valueFrom"]["secretKeyRef"]["name"] for e in references} == {"models-read"}

    others = {k: v for k, v in pod_spec(**fields).items() if k != "initContainers"}
    assert "models-read" not in json.dumps(others)
    assert "AWS_" not in json.dumps(others)


def test_an_https_source_gets_the_variables_of_https():
    fields = {"model": {"uri": "https://h.example/m.onnx", "credentials": {"secretName": "s"}}}
    assert [e["name"] for e in fetch(**fields)["env"][1:5]] == [
        "HTTPS_BEARER_TOKEN",
        "HTTPS_USERNAME",
        "HTTPS_PASSWORD",
        "HTTPS_HOSTS",
    ]


@pytest.mark.parametrize(
    ("uri", "variable", "key"),
    [
        ("gs://models/m.onnx", "GOOGLE_SERVICE_ACCOUNT_KEY", "GOOGLE_SERVICE_ACCOUNT_KEY"),
        ("az://models/m.onnx", "AZURE_STORAGE_SAS_TOKEN", "AZURE_STORAGE_SAS_TOKEN"),
        ("https://a.blob.core.windows.net/c/m.onnx", "AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_ACCOUNT_KEY"),
        ("oci://registry.example/models/m:1", "DOCKERCONFIGJSON", ".dockerconfigjson"),
        ("hf://org/model", "HF_TOKEN", "HF_TOKEN"),
        ("models:/resnet50/7", "MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_TOKEN"),
        ("mlflow://0a1b/model/model.onnx", "AWS_SECRET_ACCESS_KEY", "AWS_SECRET_ACCESS_KEY"),
    ],
)
def test_each_store_gets_the_keys_of_its_own_kind_of_secret(uri, variable, key):
    env = fetch(model={"uri": uri, "credentials": {"secretName": "s"}})["env"]
    reference = next(e["valueFrom"]["secretKeyRef"] for e in env if e["name"] == variable)
    assert reference == {"name": "s", "key": key, "optional": True}


def test_without_credentials_fetch_sees_no_secret():
    assert "secretKeyRef" not in json.dumps(pod_spec())


def test_the_server_reads_the_model_and_cannot_change_it():
    mounts = {m["name"]: m for m in server()["volumeMounts"]}
    assert mounts["model"]["readOnly"] is True
    assert fetch()["volumeMounts"] == [{"name": "model", "mountPath": "/models"}]


# --- the pod ----------------------------------------------------------------------------------------------------------


def test_fetch_downloads_exactly_what_was_inspected():
    found = plan()
    assert found.uri == URI
    assert found.model == files()
    assert found.model.files[0].sha256 == DIGEST
    assert found.model.files[0].pin == report().source
    assert found.directory == "/models"
    assert found.workload_identity is False


@pytest.mark.parametrize(
    ("model", "path"),
    [
        ("resnet50.onnx", "/models/resnet50.onnx"),
        ("export/a b/$(HOME) $$.onnx", "/models/export/a b/$(HOME) $$.onnx"),
    ],
)
def test_the_server_loads_the_model_where_fetch_puts_it(model, path):
    args = server(files_=files(archive=True, model=model, unpacked_bytes=1))["args"]
    assert f"--model={path}" in [in_container(a, {"HOME": "/root"}) for a in args]


def test_hundreds_of_external_files_still_fit_the_environment_of_fetch():
    ca = {"caBundle": certificate() * 60}
    many = many_files(600)
    fields = {"files_": many, "settings_": settings(sources={"s3": ca})}
    variables = environment(**fields)
    assert len(variables) > 1
    # Linux takes 128 KiB of one variable: its name, the sign and the end are in it.
    assert all(len(name) + len(value.encode()) + 2 <= 128 * 1024 for name, value in variables.items())
    assert plan(**fields).model == many


def test_more_files_than_a_pod_can_be_told_of_are_too_large_and_counted():
    with pytest.raises(RefusedError) as caught:
        manifests(files_=many_files(5000))
    assert caught.value.refusal.reason is Reason.TOO_LARGE
    assert "5001 files" in caught.value.refusal.message
    assert "all_tensors_to_one_file" in caught.value.refusal.message


def test_fetch_reaches_the_store_by_the_platforms_settings():
    loaded = settings(sources={"s3": {"endpoint": "http://s3.storage:7070"}, "allowedNetworks": ["10.0.0.0/8"]})
    found = plan(settings_=loaded)
    assert found.sources.s3.endpoint == "http://s3.storage:7070"
    assert found.sources.allowed_networks == ["10.0.0.0/8"]


@pytest.mark.parametrize(
    "uri",
    [
        "https://h.example/a$$b.onnx",
        "https://h.example/$(KUBERNETES_SERVICE_HOST)/m.onnx",
        "https://h.example/$(NOT_THERE)/m.onnx",
        "https://h.example/$$(X)/$m.onnx",
        "https://h.example/\"quotes\"/\\back/%20'x'.onnx",
        "https://h.example/{{name}}/{%raw%}.onnx",
        "https://h.example/<&>.onnx",
        "https://h.example/modèle/漢字/🚀.onnx",
        "https://h.example/x: y.onnx".replace(" ", "\u00a0"),
    ],
)
def test_a_strange_address_reaches_fetch_as_it_was_written(uri):
    assert plan(model={"uri": uri}).uri == uri


@hypothesis_settings(deadline=None, max_examples=40)
@given(
    path=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30),
    version=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20),
)
def test_any_text_reaches_the_containers_as_it_was_written(path, version):
    fields = {"model": {"uri": f"https://h.example/{path}", "version": version}}
    assert plan(**fields).uri == fields["model"]["uri"]
    assert f"--version={version}" in [in_container(a) for a in server(**fields)["args"]]


def test_the_server_is_told_how_requests_share_a_run_and_what_a_fallback_means():
    batching = {"maxBatchSize": 16, "maxDelayMilliseconds": 0, "assumeIndependentRows": True}
    args = server(batching=batching, session={"onFallback": "Fail"})["args"]
    assert {"--max-batch-size=16", "--max-delay-milliseconds=0", "--on-fallback=Fail"} <= set(args)
    assert "--assume-independent-rows" in args
    assert "--assume-independent-rows" not in server(batching={"assumeIndependentRows": False})["args"]
    left_out = ("--max-", "--assume", "--on-fallback", "--script", "--page", "--cors")
    assert not [a for a in server()["args"] if a.startswith(left_out)]


def test_the_server_is_told_which_web_pages_may_ask():
    args = server(endpoint={"cors": {"allowOrigins": ["https://app.example.com", "*"]}})["args"]
    assert [a for a in args if "cors" in a] == [
        "--cors-allow-origin=https://app.example.com",
        "--cors-allow-origin=*",
    ]


def test_the_page_is_off_unless_the_platform_team_wants_it():
    assert "--page" in server(settings_=settings(page=True))["args"]


SCRIPT = {"score.py": "def init(): ...\n", "labels.txt": "$(HOME) $$ ü\n"}


def test_a_script_reaches_the_pod_as_it_was_written():
    fields = {"scoring": {"configMapName": "score"}, "scoring_": SCRIPT}
    assert plan(**fields).scoring == SCRIPT
    assert "--script=/scoring" in server(**fields)["args"]
    for container in (fetch(**fields), server(**fields)):
        assert "/scoring" in [m["mountPath"] for m in container["volumeMounts"]]


def test_requirements_are_installed_by_a_container_of_their_own_with_the_platforms_index():
    fields = {
        "scoring": {"script": "x", "requirements": ["pillow==11.0.0"]},
        "scoring_": SCRIPT,
        "settings_": settings(pip={"indexUrl": "http://pip.example/simple"}),
    }
    pod = pod_spec(**fields)
    (container,) = [c for c in pod["initContainers"] if c["name"] == "requirements"]
    assert container["args"] == ["install-requirements", "--target=/requirements", "--requirement=pillow==11.0.0"]
    assert container["env"] == [{"name": "PIP_INDEX_URL", "value": "http://pip.example/simple"}]
    assert "--requirements-directory=/requirements" in server(**fields)["args"]
    assert next(m for m in server(**fields)["volumeMounts"] if m["name"] == "requirements")["readOnly"] is True
    assert_restricted(pod)


def test_an_image_with_a_script_serves_and_the_platforms_image_fetches():
    fields = {"scoring": {"image": "registry.example/scored:1"}}
    assert server(**fields)["image"] == "registry.example/scored:1"
    assert fetch(**fields)["image"] != "registry.example/scored:1"
    assert "--script=/opt/scoring" in server(**fields)["args"]


def test_recorded_inputs_and_outputs_are_fetched_and_tested():
    names = ["test_data_set_0/input_0.pb", "test_data_set_0/output_0.pb"]
    data = [files(report()).files[0].model_copy(update={"name": name}) for name in names]
    fields = {"model": {"testData": "s3://models/resnet50/data"}, "test_data": data}
    found = plan(**fields).test_data
    assert found.files == data
    assert found.uri == "s3://models/resnet50/data/"
    assert "--test-data=/testdata" in server(**fields)["args"]


def test_the_server_is_told_the_model_and_its_options():
    args = server(
        model={"version": "7"}, session={"intraOpThreads": 2, "interOpThreads": 3, "executionProviders": ["CPU"]}
    )["args"]
    assert args[0] == "serve"
    assert set(args[1:]) == {
        "--model=/models/resnet50.onnx",
        "--name=resnet50",
        "--port=8080",
        "--grpc-port=8081",
        "--state-directory=/tmp",
        "--version=7",
        "--execution-provider=CPU",
        "--intra-op-threads=2",
        "--inter-op-threads=3",
    }


def test_ready_means_that_the_model_has_answered():
    container = server()
    assert container["startupProbe"]["exec"]["command"][:2] == ["onnx-server", "wait"]
    assert container["readinessProbe"]["httpGet"] == {"path": "/v2/health/ready", "port": "http"}
    assert container["livenessProbe"]["httpGet"] == {"path": "/v2/health/live", "port": "http"}


def test_traffic_drains_before_the_server_is_told_to_stop():
    assert server()["lifecycle"]["preStop"]["sleep"]["seconds"] < pod_spec()["terminationGracePeriodSeconds"]


@pytest.mark.parametrize("megabytes", [0.01, 100, 5000])
def test_the_model_fits_its_volume_which_is_bounded(megabytes):
    volume = next(v for v in pod_spec(megabytes=megabytes)["volumes"] if v["name"] == "model")
    limit = parse_quantity(volume["emptyDir"]["sizeLimit"])
    assert megabytes * MEBIBYTE < limit < megabytes * MEBIBYTE * 1.1 + 32 * MEBIBYTE


def test_an_archive_has_room_beside_what_it_holds():
    archive = files(archive=True, model="m/model.onnx", unpacked_bytes=300 * MEBIBYTE)
    volume = next(v for v in pod_spec(files_=archive)["volumes"] if v["name"] == "model")
    assert parse_quantity(volume["emptyDir"]["sizeLimit"]) > 400 * MEBIBYTE


def test_a_claim_is_mounted_read_only_where_fetch_and_nobody_else_sees_it():
    pod = pod_spec(model={"uri": "pvc://team.models-1/resnet/v1/model.onnx"})
    assert {"name": "source", "persistentVolumeClaim": {"claimName": "team.models-1", "readOnly": True}} in pod[
        "volumes"
    ]
    mounts = {c["name"]: c["volumeMounts"] for c in pod["initContainers"] + pod["containers"]}
    assert {"name": "source", "mountPath": "/source", "readOnly": True} in mounts["fetch"]
    assert all(m["name"] != "source" for m in mounts["server"])
    assert_restricted(pod)


def test_without_a_claim_nothing_but_the_model_is_mounted_in_fetch():
    assert "persistentVolumeClaim" not in json.dumps(pod_spec())


# --- whose identity ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "uri", ["s3://m/m.onnx", "gs://mod/m.onnx", "az://mod/m.onnx", "abfss://mod@acc.dfs.core.windows.net/m"]
)
def test_a_service_account_without_credentials_reads_by_its_own_identity(uri):
    fields = {"model": {"uri": uri.replace("//m/", "//models/")}, "serviceAccountName": "reader"}
    assert plan(**fields).workload_identity is True
    pod = pod_spec(**fields)
    assert pod["serviceAccountName"] == "reader"
    assert "secretKeyRef" not in json.dumps(pod)


@pytest.mark.parametrize(
    "fields",
    [
        {"serviceAccountName": "reader", "model": {"credentials": {"secretName": "s"}}},
        {"serviceAccountName": "reader", "model": {"uri": "https://h.example/m.onnx"}},
        {"serviceAccountName": "reader", "model": {"uri": "pvc://claim/m.onnx"}},
        {},
    ],
    ids=["credentials", "https", "pvc", "no service account"],
)
def test_otherwise_no_identity_is_used(fields):
    assert plan(**fields).workload_identity is False


def test_what_the_operators_identity_may_read_the_pods_read_by_theirs():
    allowed = settings(sources={"useOperatorIdentity": True})
    assert plan(settings_=allowed).workload_identity is True
    assert plan(settings_=allowed, model={"credentials": {"secretName": "s"}}).workload_identity is False


def test_an_identity_of_azure_or_aws_goes_to_fetch_alone():
    azure = manifests(model={"uri": "az://models/m.onnx"}, serviceAccountName="reader")["Deployment"]["spec"]
    assert azure["template"]["metadata"]["labels"]["azure.workload.identity/use"] == "true"
    assert azure["template"]["metadata"]["annotations"] == {"azure.workload.identity/skip-containers": "server"}
    assert "azure.workload.identity/use" not in azure["selector"]["matchLabels"]
    aws = manifests(serviceAccountName="reader")["Deployment"]["spec"]["template"]["metadata"]
    assert aws["annotations"] == {"eks.amazonaws.com/skip-containers": "server"}
    assert "annotations" not in manifests()["Deployment"]["spec"]["template"]["metadata"]


# --- the pod's volumes and times --------------------------------------------------------------------------------------


def test_every_volume_that_is_mounted_exists_and_is_bounded():
    pod = pod_spec()
    mounted = {m["name"] for c in pod["containers"] + pod["initContainers"] for m in c["volumeMounts"]}
    assert mounted == {v["name"] for v in pod["volumes"]}
    assert all("sizeLimit" in v["emptyDir"] for v in pod["volumes"])


def progress_deadline(**changes):
    return manifests(**changes)["Deployment"]["spec"]["progressDeadlineSeconds"]


def test_a_large_model_gets_the_time_to_download():
    assert progress_deadline(megabytes=20_000) - progress_deadline(megabytes=100) > 19_000 / 5


def test_one_probe_waits_for_the_whole_start_so_that_a_healthy_one_leaves_no_warning():
    probe = server()["startupProbe"]
    limit = next(each for each in probe["exec"]["command"] if each.startswith("--timeout="))
    # By itself it ends first, and says how far the server is.
    assert 0 < int(limit.removeprefix("--timeout=")) < probe["timeoutSeconds"]
    assert probe["failureThreshold"] == 1


@pytest.mark.parametrize("start", [{}, {"deadlineSeconds": 7200, "pullAllowanceSeconds": 1200}], ids=["default", "set"])
def test_no_rollout_is_given_up_while_its_pods_may_still_start(start):
    loaded = settings(start=start)
    probe = server(settings_=loaded)["startupProbe"]
    assert f"--timeout={loaded.start.deadline_seconds}" in probe["exec"]["command"]
    least = loaded.start.deadline_seconds + loaded.start.pull_allowance_seconds
    assert progress_deadline(settings_=loaded, megabytes=1) >= least
    # What the API server takes.
    assert progress_deadline(settings_=loaded, megabytes=1e6) < 2**31


def test_a_pod_template_that_lets_a_start_take_longer_gives_the_rollout_that_time_too():
    longer = {"exec": {"command": ["onnx-server", "wait", "--timeout=9000"]}, "timeoutSeconds": 9015}
    template = {"spec": {"containers": [{"name": "server", "startupProbe": longer}]}}
    assert progress_deadline(podTemplate=template) >= 9015 + settings().start.pull_allowance_seconds


@pytest.mark.parametrize(
    "probe",
    [{"timeoutSeconds": "9000"}, {"timeoutSeconds": -1}, {"timeoutSeconds": 10**30}, {"failureThreshold": 2**30}],
)
def test_a_probe_that_the_api_server_refuses_breaks_no_deadline(probe):
    template = {"spec": {"containers": [{"name": "server", "startupProbe": probe}]}}
    assert 0 < progress_deadline(podTemplate=template) < 2**31


def test_pull_secrets_and_policy_come_from_the_settings():
    loaded = settings(imagePullSecrets=["registry"], imagePullPolicy="Never")
    assert pod_spec(settings_=loaded)["imagePullSecrets"] == [{"name": "registry"}]
    assert server(settings_=loaded)["imagePullPolicy"] == "Never"
    assert "imagePullSecrets" not in pod_spec()


def test_a_version_is_the_users_word_else_the_digest_else_the_pin():
    pin = report(digest="").source.value
    assert version_label(spec(model={"version": "7"}), report()) == "7"
    assert version_label(spec(), report()) == DIGEST[:12]
    assert version_label(spec(), report(digest="")) == hashlib.sha256(pin.encode()).hexdigest()[:12]


# --- resources --------------------------------------------------------------------------------------------------------


def resources(**fields):
    return server(**fields)["resources"]


def test_memory_follows_the_model():
    found = resources(megabytes=1000)
    assert parse_quantity(found["requests"]["memory"]) == 1090 * MEBIBYTE
    assert parse_quantity(found["limits"]["memory"]) >= 1.5 * 1090 * MEBIBYTE


def test_a_node_is_shared_by_what_serving_takes_and_the_limit_has_room_for_loading():
    measured = MemoryEstimate(
        weights_bytes=98 * MEBIBYTE,
        activations_bytes=7 * MEBIBYTE,
        resident_bytes=311 * MEBIBYTE,
        serving_bytes=221 * MEBIBYTE,
    )
    found = manifests(memory=measured)["Deployment"]["spec"]["template"]["spec"]["containers"][0]["resources"]
    assert found["requests"]["memory"] == "221Mi"
    assert parse_quantity(found["limits"]["memory"]) >= 1.5 * 311 * MEBIBYTE


def test_a_tiny_model_still_gets_room_to_start():
    assert parse_quantity(resources(megabytes=0.001)["limits"]["memory"]) == 256 * MEBIBYTE


def test_what_the_user_asks_for_is_given():
    asked = {
        "requests": {"cpu": "2", "memory": "1Gi", "ephemeral-storage": "1Gi"},
        "limits": {"cpu": 4, "memory": "2Gi"},
    }
    assert resources(resources=asked) == asked


def test_a_limit_alone_is_also_the_request():
    found = resources(resources={"limits": {"memory": "150Mi", "cpu": "3"}})
    assert found["requests"]["memory"] == "150Mi"
    assert found["requests"]["cpu"] == "3"


def test_a_request_above_our_default_limit_raises_the_limit():
    assert resources(resources={"requests": {"memory": "8Gi"}})["limits"]["memory"] == "8Gi"


def test_a_request_below_our_default_limit_leaves_it():
    found = resources(resources={"requests": {"memory": "64Mi"}})
    assert parse_quantity(found["limits"]["memory"]) > 100 * MEBIBYTE
    assert found["requests"]["memory"] == "64Mi"


def test_a_model_asks_for_the_cpu_that_its_operations_take_and_a_small_one_for_little():
    asked = {flops: resources(flops=flops)["requests"]["cpu"] for flops in (2_000, 10**9, 2 * 10**9)}
    assert asked == {2_000: "140m", 10**9: "340m", 2 * 10**9: "540m"}
    assert resources(megabytes=0.01)["requests"]["cpu"] == "50m"


def test_a_large_model_asks_for_no_more_than_the_settings_allow():
    assert resources(flops=10**12)["requests"]["cpu"] == "1"
    large = settings(resources={"maxCpu": "4"})
    assert resources(flops=10**12, settings_=large)["requests"]["cpu"] == "4"


def test_the_platform_team_says_how_many_requests_a_pod_is_for():
    busy = settings(resources={"requestsPerSecond": 20})
    assert resources(flops=10**9, settings_=busy)["requests"]["cpu"] == "670m"
    quiet = pool("quiet", requestsPerSecond=2)
    assert resources(flops=10**9, settings_=busy, pool_=quiet)["requests"]["cpu"] == "70m"


def test_what_a_pod_measured_counts_more_than_what_was_estimated():
    assert resources(flops=10**9, kept=Kept(request_cpu_seconds=0.05))["requests"]["cpu"] == "510m"


def test_what_runs_on_a_gpu_does_not_count_as_work_of_the_cpu():
    assert resources(flops=10**12, runtime="GPU", pool_=pool(**T4))["requests"]["cpu"] == "250m"


def test_containers_before_the_server_get_what_it_gets_since_that_costs_nothing():
    asked = {
        "requests": {"cpu": "2", "memory": "1Gi", "ephemeral-storage": "1Gi"},
        "limits": {"cpu": 4, "memory": "2Gi"},
    }
    pod = pod_spec(resources=asked, scoring={"script": "s", "requirements": ["a==1"]}, scoring_={"score.py": "s"})
    assert [c["resources"] for c in pod["initContainers"]] == [asked, asked]


def test_a_guaranteed_pod_is_guaranteed_with_all_its_containers():
    asked = {"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "1", "memory": "1Gi"}}
    found = fetch(resources=asked)["resources"]
    assert (found["limits"], found["requests"] | asked["requests"]) == (asked["limits"], found["requests"])


def test_fetch_has_the_memory_that_a_download_takes():
    little = fetch(resources={"requests": {"memory": "32Mi"}, "limits": {"memory": "48Mi"}})["resources"]
    assert (little["requests"]["memory"], little["limits"]["memory"]) == ("64Mi", "256Mi")


def test_the_server_is_told_what_its_container_asks_for_after_all_changes():
    [told] = [e for e in server()["env"] if e["name"] == "ONNX_CPU_REQUEST"]
    assert told["valueFrom"] == {"resourceFieldRef": {"resource": "requests.cpu", "divisor": "1m"}}


def every(kind, **fields):
    """The requests or limits of all containers."""
    pod = pod_spec(**fields)
    return [c["resources"][kind] for c in pod["initContainers"] + pod["containers"]]


def test_pods_ask_for_the_disk_that_the_model_takes():
    asked = {parse_quantity(each["ephemeral-storage"]) for each in every("requests", megabytes=1000)}
    assert asked == {(1050 + 16 + 16) * MEBIBYTE}
    assert not any("ephemeral-storage" in each for each in every("limits", megabytes=1000))
    off = settings(resources={"ephemeralStorage": False})
    assert not any("ephemeral-storage" in each for each in every("requests", settings_=off))


def test_cpu_has_no_limit_unless_somebody_wants_one():
    assert not any("cpu" in each for each in every("limits"))
    assert [each["cpu"] for each in every("limits", demands=Demands(limits=["cpu"]))] == ["1", "1"]
    always = settings(resources={"limits": "Always"})
    for limits in every("limits", settings_=always, scoring={"script": "s", "requirements": ["a==1"]}):
        assert set(limits) == {"cpu", "memory", "ephemeral-storage"}


def test_what_a_limit_range_demands_is_met_by_all_containers():
    demands = Demands(
        minimum={"cpu": "100m", "memory": "128Mi"},
        maximum={"cpu": "750m", "memory": "400Mi"},
        ratio={"cpu": "4", "memory": "2"},
    )
    pod = pod_spec(demands=demands, megabytes=100, flops=10**12)
    for container in pod["initContainers"] + pod["containers"]:
        requests, limits = container["resources"]["requests"], container["resources"]["limits"]
        assert limits == {"cpu": "750m", "memory": limits["memory"]}
        assert parse_quantity("187500u") <= parse_quantity(requests["cpu"]) <= parse_quantity("750m")
        assert parse_quantity(requests["memory"]) <= parse_quantity(limits["memory"]) <= 400 * MEBIBYTE
        assert 2 * parse_quantity(requests["memory"]) >= parse_quantity(limits["memory"])


def test_memory_is_never_cut_below_what_the_model_is_estimated_to_take():
    found = resources(megabytes=1000, demands=Demands(maximum={"memory": "512Mi"}))
    assert parse_quantity(found["requests"]["memory"]) == 1090 * MEBIBYTE
    assert found["limits"] == resources(megabytes=1000)["limits"], "it would be refused all the same"


def test_a_model_that_takes_more_while_loading_is_not_killed_there_to_fit_the_namespace():
    memory = MemoryEstimate(
        weights_bytes=0, activations_bytes=0, resident_bytes=400 * MEBIBYTE, serving_bytes=200 * MEBIBYTE
    )
    tight, enough = (resources(memory=memory, demands=Demands(maximum={"memory": most})) for most in ("300Mi", "450Mi"))
    assert tight["limits"] == resources(memory=memory)["limits"], "it is refused, which tells more"
    assert enough["limits"]["memory"] == "450Mi"


def test_what_the_user_gave_is_not_changed_to_fit_the_namespace():
    asked = {"requests": {"cpu": "2", "memory": "1Gi"}, "limits": {"cpu": "4", "memory": "2Gi"}}
    demands = Demands(maximum={"cpu": "1", "memory": "512Mi"}, minimum={"cpu": "3"}, ratio={"memory": "1"})
    found = resources(resources=asked, demands=demands)
    assert {kind: {k: found[kind][k] for k in asked[kind]} for kind in asked} == asked


QUANTITIES = st.sampled_from(["100m", "1", "2", 1, 3, "64Mi", "1Gi", "16Gi", "1e3", "2k", ".5", "0.1"])
RESOURCES = st.dictionaries(st.sampled_from(["cpu", "memory", "ephemeral-storage", "nvidia.com/gpu"]), QUANTITIES)


@hypothesis_settings(deadline=None)
@given(requests=st.none() | RESOURCES, limits=st.none() | RESOURCES, gpu=st.booleans())
def test_our_defaults_never_contradict_what_the_user_gave(requests, limits, gpu):
    given_ = {k: v for k, v in (("requests", requests), ("limits", limits)) if v is not None}
    found = resources(resources=given_, **({"runtime": "GPU", "pool_": pool(**T4)} if gpu else {}))

    assert (limits or {}).items() <= found["limits"].items()
    assert (requests or {}).items() <= found["requests"].items()
    for name, limit in found["limits"].items():
        if name not in (limits or {}) or name not in (requests or {}):
            assert parse_quantity(found["requests"].get(name, limit)) <= parse_quantity(limit)


# --- GPU and CPU ------------------------------------------------------------------------------------------------------


def test_a_gpu_model_asks_for_the_pools_gpu_and_lands_only_there():
    fields = {"runtime": "GPU", "pool_": pool(**T4), "settings_": settings(pools=[T4])}
    pod = pod_spec(**fields)
    assert pod["nodeSelector"] == {"gpu": "t4"}
    assert pod["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    assert "affinity" not in pod
    assert server(**fields)["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert server(**fields)["resources"]["requests"]["nvidia.com/gpu"] == 1
    assert {c["image"] for c in pod["containers"] + pod["initContainers"]} == {T4["serverImage"]}
    assert "--execution-provider=CUDA" in server(**fields)["args"]
    assert "nvidia.com/gpu" not in json.dumps(fetch(**fields)["resources"])


def test_two_gpus_that_were_asked_for_as_a_request_are_also_the_limit():
    found = resources(runtime="GPU", pool_=pool(**T4), resources={"requests": {"nvidia.com/gpu": 2}})
    assert found["limits"]["nvidia.com/gpu"] == found["requests"]["nvidia.com/gpu"] == 2


def test_another_makers_gpu_has_its_own_name():
    amd = pool(**(T4 | {"gpuResource": "amd.com/gpu"}))
    found = resources(runtime="GPU", pool_=amd)
    assert found["limits"]["amd.com/gpu"] == 1
    assert "nvidia.com/gpu" not in found["limits"]


def test_a_cpu_model_keeps_off_the_nodes_of_gpu_pools():
    pod = pod_spec(settings_=settings(pools=[T4, A100]))
    terms = pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert {"key": "gpu", "operator": "NotIn", "values": ["a100", "t4"]} in terms[0]["matchExpressions"]
    assert "nvidia.com/gpu" not in json.dumps(server()["resources"])
    assert "tolerations" not in pod


def test_without_gpu_pools_a_cpu_model_runs_anywhere():
    assert "affinity" not in pod_spec()
    assert "nodeSelector" not in pod_spec()


def test_a_cpu_pools_selector_and_tolerations_are_used():
    general = {"name": "general", "nodeSelector": {"n": "g"}, "tolerations": [{"key": "k", "tolerationSeconds": 5}]}
    pod = pod_spec(pool_=pool(**general))
    assert pod["nodeSelector"] == {"n": "g"}
    assert pod["tolerations"] == [{"key": "k", "tolerationSeconds": 5}]


def test_a_model_on_a_gpu_pool_that_only_uses_the_cpu_is_not_watched_for_acceleration():
    assert uses_gpu(spec(runtime="GPU"))
    assert not uses_gpu(spec(runtime="GPU", session={"executionProviders": ["CPU"]}))
    assert not uses_gpu(spec())


# --- podTemplate: the last word ---------------------------------------------------------------------------------------


def template(pod=None, **metadata):
    return {"podTemplate": {k: v for k, v in (("metadata", metadata), ("spec", pod)) if v}}


def test_the_pod_template_is_merged_over_what_was_rendered():
    fields = template(
        {
            "priorityClassName": "high",
            "nodeSelector": {"zone": "b"},
            "containers": [
                {"name": "server", "env": [{"name": "A", "value": "1"}]},
                {"name": "proxy", "image": "proxy:1"},
            ],
            "volumes": [{"name": "cache", "emptyDir": {}}],
        },
        labels={"team": "vision"},
        annotations={"a": "b"},
    )
    rendered = manifests(**fields)["Deployment"]["spec"]["template"]
    pod = rendered["spec"]
    assert pod["priorityClassName"] == "high"
    assert pod["nodeSelector"] == {"zone": "b"}
    assert [c["name"] for c in pod["containers"]] == ["server", "proxy"]
    assert pod["containers"][0]["args"][0] == "serve"
    assert {"name": "A", "value": "1"} in pod["containers"][0]["env"]
    assert [v["name"] for v in pod["volumes"]] == ["model", "tmp", "cache"]
    assert rendered["metadata"]["labels"]["team"] == "vision"
    assert rendered["metadata"]["labels"]["onnx-operator.dev/model"] == "resnet50"
    assert rendered["metadata"]["annotations"] == {"a": "b"}


def test_the_pod_template_keeps_the_pools_tolerations():
    fields = {"runtime": "GPU", "pool_": pool(**T4)} | template({"tolerations": [{"key": "mine"}]})
    assert [t["key"] for t in pod_spec(**fields)["tolerations"]] == ["nvidia.com/gpu", "mine"]


def test_null_in_the_pod_template_removes_what_was_rendered():
    fields = template({"securityContext": {"fsGroup": None}, "containers": [{"name": "server", "livenessProbe": None}]})
    assert "fsGroup" not in pod_spec(**fields)["securityContext"]
    assert "livenessProbe" not in server(**fields)


@pytest.mark.parametrize("empty", [{}, {"spec": {}}, {"metadata": {}}, {"spec": {"containers": []}}])
def test_an_empty_pod_template_changes_nothing(empty):
    assert manifests(podTemplate=empty) == manifests()


@pytest.mark.parametrize(
    ("pod", "named"),
    [
        ({"volumes": [{"name": "model", "emptyDir": {}}]}, "spec.podTemplate.spec.volumes"),
        (
            {"containers": [{"name": "server", "volumeMounts": [{"name": "x", "mountPath": "/models"}]}]},
            "spec.podTemplate.spec.containers",
        ),
        (
            {"containers": [{"name": "side", "volumeMounts": [{"name": "x", "mountPath": "/models/"}]}]},
            "spec.podTemplate.spec.containers",
        ),
        (
            {"initContainers": [{"name": "fetch", "volumeMounts": [{"name": "x", "mountPath": "/models"}]}]},
            "spec.podTemplate.spec.initContainers",
        ),
    ],
)
def test_the_models_volume_cannot_be_changed(pod, named):
    with pytest.raises(RefusedError) as caught:
        manifests(**template(pod))
    assert caught.value.refusal.reason is Reason.POD_TEMPLATE_REJECTED
    assert named in caught.value.refusal.message


@pytest.mark.parametrize(
    "pod",
    [
        {"volumes": [{"$patch": "replace"}, {"name": "mine", "emptyDir": {}}]},
        {"containers": [{"name": "server", "$patch": "delete"}]},
        {"containers": [{"$patch": "replace"}, {"name": "mine", "image": "i"}]},
        {"initContainers": [{"name": "fetch", "$patch": "delete"}]},
        {"initContainers": None},
        {"containers": [{"name": "server", "volumeMounts": [{"$patch": "replace"}]}]},
        {"containers": [{"name": "server", "$patch": "replace", "image": "i"}]},
        {"$patch": "replace", "containers": [{"name": "server", "image": "i"}]},
    ],
)
def test_what_holds_the_model_cannot_be_taken_away(pod):
    with pytest.raises(RefusedError, match="cannot be taken away") as caught:
        manifests(**template(pod))
    assert caught.value.reason is Reason.POD_TEMPLATE_REJECTED


def test_a_scratch_volume_of_another_kind_and_a_probe_of_another_kind_leave_nothing_of_ours():
    claim = {"name": "tmp", "persistentVolumeClaim": {"claimName": "scratch"}}
    probe = {"exec": {"command": ["true"]}}
    fields = template({"volumes": [claim], "containers": [{"name": "server", "livenessProbe": probe}]})
    assert claim in pod_spec(**fields)["volumes"]
    assert "httpGet" not in server(**fields)["livenessProbe"]


def test_the_claim_of_the_source_cannot_be_exchanged():
    with pytest.raises(RefusedError, match="source") as caught:
        manifests(model={"uri": "pvc://claim/m.onnx"}, **template({"volumes": [{"name": "source", "emptyDir": {}}]}))
    assert caught.value.reason is Reason.POD_TEMPLATE_REJECTED
    assert manifests(**template({"volumes": [{"name": "source", "emptyDir": {}}]}))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.sampled_from(["", "model", "server", "/models"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["name", "containers", "initContainers", "volumes", "volumeMounts", "mountPath", "env", "ports", "x"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@hypothesis_settings(deadline=None, max_examples=200)
@given(
    pod=st.dictionaries(
        st.sampled_from(["containers", "initContainers", "volumes", "tolerations", "nodeSelector", "affinity"]),
        JSON,
        max_size=4,
    )
)
def test_nonsense_in_the_pod_template_is_refused_or_left_to_the_api_server(pod):
    before = copy.deepcopy(pod)
    try:
        rendered = manifests(**template(pod))
    except RefusedError as error:
        rendered = error.refusal.message
        named = error.reason is Reason.POD_TEMPLATE_REJECTED and "spec.podTemplate.spec" in rendered
    else:
        named = True
    assert named, rendered
    json.dumps(rendered)
    assert pod == before


# --- templates of the platform team -----------------------------------------------------------------------------------


def test_the_platform_team_can_replace_one_template(tmp_path):
    (tmp_path / "service.yaml.j2").write_text(
        "apiVersion: v1\nkind: Service\nmetadata: {name: {{ name | tojson }}, namespace: {{ namespace | tojson }}}\n"
        "spec: {clusterIP: None, selector: {{ service_selector | tojson }}}\n"
    )
    rendered = manifests(settings_=settings(templatesDirectory=str(tmp_path)))
    assert rendered["Service"]["spec"]["clusterIP"] == "None"
    assert rendered["Deployment"] == manifests()["Deployment"]


def test_an_empty_template_leaves_its_child_out(tmp_path):
    (tmp_path / "poddisruptionbudget.yaml.j2").write_text("{# none here #}")
    assert set(manifests(settings_=settings(templatesDirectory=str(tmp_path)))) == {"Deployment", "Service"}


# --- all of it --------------------------------------------------------------------------------------------------------

SPECS = st.fixed_dictionaries(
    {},
    optional={
        "replicas": st.integers(0, 1000),
        "suspend": st.booleans(),
        "serviceAccountName": st.sampled_from(["models", "123", "no"]),
        "resources": st.fixed_dictionaries({}, optional={"requests": RESOURCES, "limits": RESOURCES}),
        "session": st.fixed_dictionaries(
            {}, optional={"intraOpThreads": st.integers(1, 512), "interOpThreads": st.integers(1, 512)}
        ),
        "model": st.fixed_dictionaries(
            {},
            optional={
                "version": st.text(min_size=1, max_size=64),
                "tags": st.dictionaries(st.sampled_from(["team", "a.b"]), st.text(max_size=20)),
                "description": st.text(max_size=50),
                "credentials": st.just({"secretName": "s"}),
            },
        ),
    },
)
NAMES = st.from_regex(r"[a-z]([-a-z0-9]{0,50}[a-z0-9])?", fullmatch=True)


@hypothesis_settings(deadline=None, max_examples=60)
@given(fields=SPECS, name=NAMES, megabytes=st.floats(0.001, 20_000), pool_=st.sampled_from([T4, {"name": "cpu"}]))
def test_every_spec_gives_safe_manifests_of_the_same_shape(fields, name, megabytes, pool_):
    runtime = {"runtime": pool_.get("runtime", "CPU")}
    rendered = manifests(name=name, megabytes=megabytes, pool_=pool(**pool_), **(fields | runtime))

    again = manifests(name=name, megabytes=megabytes, pool_=pool(**pool_), **(fields | runtime))
    assert rendered == again
    deployment = rendered["Deployment"]["spec"]
    assert_restricted(deployment["template"]["spec"])
    assert deployment["selector"]["matchLabels"].items() <= deployment["template"]["metadata"]["labels"].items()
    assert "app.kubernetes.io/instance" not in json.dumps(rendered)


@pytest.mark.parametrize(
    "moment",
    [{"replicas": 7}, {"suspend": True}, {"model": {"tags": {"a": "b"}}}, {"model": {"description": "d"}}],
    ids=str,
)
def test_what_belongs_to_the_moment_is_not_in_the_manifests(moment):
    assert manifests(**moment) == manifests()


def test_proxies_and_authorities_are_named_and_not_held_so_that_a_change_rolls_nothing():
    loaded = settings(egress={"configMapName": "outside", "secretName": "outside-secret"})
    fields = {"settings_": loaded, "scoring": {"script": "x", "requirements": ["pillow==11.0.0"]}, "scoring_": SCRIPT}
    pod = pod_spec(**fields)
    (volume,) = [v for v in pod["volumes"] if v["name"] == "egress"]
    # Who may write ConfigMaps in the namespace is not believed: see the keys that go that way.
    assert volume["projected"]["sources"] == [{"secret": {"name": "outside-secret", "optional": True}}]
    mounts = {
        c["name"]: [m["mountPath"] for m in c["volumeMounts"] if m["name"] == "egress"]
        for c in [*pod["initContainers"], *pod["containers"]]
    }
    # The server asks nobody.
    assert mounts == {"fetch": [egress.DIRECTORY], "requirements": [egress.DIRECTORY], "server": []}
    for way_out in ({}, {"configMapName": "outside"}):
        assert "egress" not in {v["name"] for v in pod_spec(settings_=settings(egress=way_out))["volumes"]}


def test_a_user_that_is_left_to_the_platform_is_named_nowhere():
    pod = pod_spec(settings_=settings(runAsUser=None))
    assert pod["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    contexts = [c["securityContext"] for c in [*pod["initContainers"], *pod["containers"]]]
    assert not any({"runAsUser", "runAsGroup"} & set(each) for each in contexts)


def test_another_user_than_the_usual_one_owns_the_volumes_too():
    context = pod_spec(settings_=settings(runAsUser=1_000_680_000))["securityContext"]
    assert {context[key] for key in ("runAsUser", "runAsGroup", "fsGroup")} == {1_000_680_000}
