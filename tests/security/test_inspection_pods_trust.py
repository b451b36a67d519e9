"""An inspection pod gives its author no right, and its report reaches no further than its own model."""

import json
import time

import pytest

from onnx_operator.api.capabilities import load_capabilities
from onnx_operator.api.conditions import Reason
from onnx_operator.api.onnxmodel import OnnxModelSpec
from onnx_operator.api.reasons import VERDICTS
from onnx_operator.api.report import (
    MAX_REPORT_BYTES,
    Capabilities,
    InspectionRequest,
    InspectionResult,
    Refusal,
)
from onnx_operator.api.sources import SourceFile, SourcePin
from onnx_operator.controller.cluster.owners import is_controlled_by, owner_reference
from onnx_operator.controller.inspection.pod import altered, inspection_pod, pod_request
from onnx_operator.controller.revision.permissions import forbidden
from onnx_operator.inspector.once import report_line
from onnx_operator.inspector.report import ReportError, find_report
from onnx_operator.model.inspection.testdata import MAX_TEST_DATA_BYTES
from onnx_operator.model.refusal import RefusedError
from onnx_operator.model.sources.base import is_confined
from tests.security.fuzzing import mutated
from tests.unit.controller.samples import files, report, settings

MODEL = {"metadata": {"name": "m", "namespace": "tenant", "uid": "uid-1"}}
VOLUME = {"model": {"uri": "pvc://claim/m.onnx"}}
CLOUD = {"model": {"uri": "s3://bucket/m.onnx"}, "serviceAccountName": "ml"}
EVERYTHING = {
    "securityContext": {
        "runAsNonRoot": False,
        "seccompProfile": {"type": "Unconfined"},
        "appArmorProfile": {"type": "Unconfined"},
        "seLinuxOptions": {"type": "spc_t"},
        "sysctls": [{"name": "net.ipv4.ip_unprivileged_port_start", "value": "0"}],
        "windowsOptions": {"hostProcess": True},
        "fsGroup": 4711,
    },
    "hostNetwork": True,
    "hostPID": True,
    "hostIPC": True,
    "hostUsers": True,
    "shareProcessNamespace": True,
    "automountServiceAccountToken": True,
    "serviceAccountName": "admin",
    "serviceAccount": "admin",
    "nodeName": "control-plane",
    "priorityClassName": "system-node-critical",
    "runtimeClassName": "none",
    "schedulerName": "mine",
    "hostAliases": [{"ip": "6.6.6.6", "hostnames": ["s3.amazonaws.com"]}],
    "dnsPolicy": "None",
    "dnsConfig": {"nameservers": ["6.6.6.6"]},
    "setHostnameAsFQDN": True,
    "hostname": "other",
    "affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "x"}]}},
    "containers": [{"name": "inspect", "image": "evil", "securityContext": {"privileged": True}}],
    "initContainers": [{"name": "evil", "image": "evil"}],
    "ephemeralContainers": [{"name": "evil", "image": "evil"}],
    "volumes": [{"name": "tmp", "hostPath": {"path": "/"}}],
    "activeDeadlineSeconds": 10**9,
    "restartPolicy": "Always",
}


def spec(pod=None, **fields) -> OnnxModelSpec:
    return OnnxModelSpec.model_validate(fields | ({"podTemplate": {"spec": pod}} if pod is not None else {}))


def made(wanted: OnnxModelSpec, **changes) -> dict:
    loaded = settings(inspectorImage="registry.example/onnx-operator:1", **changes)
    asked = InspectionRequest(uri=wanted.model.uri, capabilities=load_capabilities())
    return inspection_pod(MODEL, wanted, "key", pod_request(wanted, asked), loaded)


def assert_restricted(pod: dict) -> None:
    """The fields of the *restricted* Pod Security Standard, and what it says nothing of."""
    given = pod["spec"]
    security = given["securityContext"]
    assert security["runAsNonRoot"] is True
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert security["runAsUser"] > 0
    assert security["runAsGroup"] > 0
    assert security["fsGroup"] > 0
    assert 0 not in security.get("supplementalGroups", [])
    assert set(security) <= {
        *("runAsNonRoot", "runAsUser", "runAsGroup", "fsGroup", "supplementalGroups", "seccompProfile"),
        *("fsGroupChangePolicy", "supplementalGroupsPolicy"),
    }
    (container,) = given["containers"]
    assert container["image"] == "registry.example/onnx-operator:1"
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert set(given) <= {
        *("restartPolicy", "activeDeadlineSeconds", "terminationGracePeriodSeconds", "enableServiceLinks"),
        *("automountServiceAccountToken", "serviceAccountName", "securityContext", "imagePullSecrets"),
        *("nodeSelector", "tolerations", "affinity", "containers", "volumes"),
    }
    assert set(given.get("affinity", {})) <= {"nodeAffinity"}
    assert given["automountServiceAccountToken"] is False
    assert given["restartPolicy"] == "Never"
    assert given["activeDeadlineSeconds"] < 10**6
    assert all(set(v) - {"name"} <= {"emptyDir", "persistentVolumeClaim"} for v in given["volumes"])


@pytest.mark.parametrize("source", [VOLUME, CLOUD], ids=["volume", "cloud identity"])
def test_a_forbidden_pod_template_is_refused_before_any_pod_is_made(source) -> None:
    loaded = settings(allowPodTemplate=False)
    refusal = forbidden(spec(EVERYTHING, **source), "tenant", loaded)
    assert refusal is not None
    assert refusal.reason is Reason.POD_TEMPLATE_REJECTED
    assert "allowPodTemplate" in refusal.message
    assert forbidden(spec(**source), "tenant", loaded) is None


@pytest.mark.parametrize(
    ("fields", "loaded", "reason", "words"),
    [
        (
            {"model": {"uri": "s3://b/m"}, "scoring": {"script": "x"}},
            {"allowScoring": False},
            Reason.SCORING_REJECTED,
            "allowScoring",
        ),
        (
            {"model": {"uri": "s3://b/m", "credentials": {"secretName": "s"}}},
            {"allowCredentials": False},
            Reason.SOURCE_REFUSED,
            "allowCredentials",
        ),
        (VOLUME, {"allowInspectionPods": False}, Reason.SOURCE_REFUSED, "allowInspectionPods"),
        (CLOUD, {"allowInspectionPods": False}, Reason.SOURCE_REFUSED, "allowInspectionPods"),
        (VOLUME | {"nodePool": "none"}, {}, Reason.NO_MATCHING_POOL, "spec.nodePool"),
        (
            VOLUME | {"nodePool": "theirs"},
            {"pools": [{"name": "theirs", "allowedNamespaces": ["other"]}]},
            Reason.NO_MATCHING_POOL,
            "not open to namespace",
        ),
        (
            VOLUME,
            {"pools": [{"name": "theirs", "allowedNamespaces": ["other"]}]},
            Reason.NO_MATCHING_POOL,
            "not open to namespace",
        ),
    ],
)
def test_what_the_settings_forbid_is_refused_before_anything_is_read(fields, loaded, reason, words) -> None:
    refusal = forbidden(spec(**fields), "tenant", settings(**loaded))
    assert refusal is not None
    assert refusal.reason is reason
    assert words in refusal.message
    assert not refusal.retriable


@pytest.mark.parametrize("source", [VOLUME, CLOUD], ids=["volume", "cloud identity"])
def test_an_inspection_pod_is_restricted_whatever_the_template_says(source) -> None:
    pod = made(spec(EVERYTHING, **source))
    assert_restricted(pod)
    assert pod["spec"]["securityContext"]["fsGroup"] == 4711
    assert pod["spec"].get("serviceAccountName") in (None, "ml")


@pytest.mark.parametrize(
    ("pod", "field"),
    [
        ({"securityContext": {"runAsUser": 0}}, "securityContext.runAsUser"),
        ({"securityContext": {"runAsUser": "0"}}, "securityContext.runAsUser"),
        ({"securityContext": {"runAsUser": True}}, "securityContext.runAsUser"),
        ({"securityContext": {"runAsGroup": 0}}, "securityContext.runAsGroup"),
        ({"securityContext": {"fsGroup": 0}}, "securityContext.fsGroup"),
        ({"securityContext": {"fsGroup": -1}}, "securityContext.fsGroup"),
        ({"securityContext": {"supplementalGroups": [5, 0]}}, "securityContext.supplementalGroups[1]"),
        ({"securityContext": "root"}, "securityContext"),
        ({"tolerations": [{"operator": "Anything"}]}, "tolerations[0]"),
        ({"nodeSelector": {"a": 1}}, "nodeSelector"),
        ({"nodeSelector": ["a"]}, "nodeSelector"),
        ({"imagePullSecrets": ["a"]}, "imagePullSecrets[0]"),
        ({"imagePullSecrets": [{"name": "../x"}]}, "imagePullSecrets[0]"),
        ({"affinity": {"nodeAffinity": []}}, "affinity.nodeAffinity"),
    ],
)
def test_a_value_that_no_inspection_gets_is_refused_by_the_name_of_its_field(pod, field) -> None:
    refusal = forbidden(spec(pod, **VOLUME), "tenant", settings())
    assert refusal is not None
    assert refusal.reason is Reason.POD_TEMPLATE_REJECTED
    assert refusal.message.startswith(f"spec.podTemplate.spec.{field}: ")
    # Whose source the operator reads itself: the template is for the pods that serve alone.
    assert forbidden(spec(pod, model={"uri": "s3://b/m"}), "tenant", settings()) is None


def test_where_it_may_run_and_as_whom_it_reads_is_still_the_authors_choice() -> None:
    wanted = {
        "securityContext": {"runAsUser": 1000, "runAsGroup": 1001, "fsGroup": 1002, "supplementalGroups": [1003]},
        "tolerations": [{"key": "team", "operator": "Exists"}],
        "nodeSelector": {"disk": "near"},
        "affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}},
        "imagePullSecrets": [{"name": "pull"}],
    }
    pod = made(spec(wanted, **VOLUME))
    assert_restricted(pod)
    assert pod["spec"]["securityContext"] | wanted["securityContext"] == pod["spec"]["securityContext"]
    assert wanted["tolerations"][0] in pod["spec"]["tolerations"]
    assert pod["spec"]["nodeSelector"]["disk"] == "near"
    assert {"name": "pull"} in pod["spec"]["imagePullSecrets"]


VALUES = [0, -1, 1, 10**30, 0.0, True, None, "0", "", "RuntimeDefault", "Unconfined", [], [0], {}, {"name": "x"}]


@pytest.mark.fuzz
def test_no_template_makes_an_inspection_pod_that_is_not_restricted(fuzz) -> None:
    """Any value in any field, also within those that are taken."""
    for rng in fuzz(600):
        pod: dict = {}
        for name in rng.sample(sorted(EVERYTHING), rng.randint(0, 8)):
            pod[name] = EVERYTHING[name] if rng.random() < 0.5 else rng.choice(VALUES)
        names = (
            "runAsUser",
            "runAsGroup",
            "fsGroup",
            "supplementalGroups",
            "runAsNonRoot",
            "seccompProfile",
            "sysctls",
        )
        if rng.random() < 0.8:
            pod["securityContext"] = {name: rng.choice(VALUES) for name in rng.sample(names, rng.randint(0, 4))}
        for name in ("tolerations", "nodeSelector", "affinity", "imagePullSecrets"):
            if rng.random() < 0.3:
                pod[name] = rng.choice([*VALUES, [rng.choice(VALUES)], {"nodeAffinity": rng.choice(VALUES)}])
        wanted = spec(pod, **VOLUME)
        refusal = forbidden(wanted, "tenant", settings())
        if refusal is None:
            assert_restricted(made(wanted))
        else:
            assert refusal.reason is Reason.POD_TEMPLATE_REJECTED
            with pytest.raises(RefusedError) as caught:
                made(wanted)
            assert caught.value.reason is Reason.POD_TEMPLATE_REJECTED


def test_a_pod_that_somebody_changed_while_it_ran_is_not_listened_to() -> None:
    pod = made(spec(**VOLUME))
    running = json.loads(json.dumps(pod))
    running["spec"]["nodeName"] = "node-1"
    running["status"] = {"containerStatuses": [{"name": "inspect", "restartCount": 0}]}
    assert altered(pod, running) == ""
    changes = {
        "spec.containers": {"containers": [pod["spec"]["containers"][0] | {"image": "evil"}]},
        "spec.ephemeralContainers": {"ephemeralContainers": [{"name": "evil", "image": "evil"}]},
        "spec.activeDeadlineSeconds": {"activeDeadlineSeconds": 1},
        "spec.tolerations": {"tolerations": [{"operator": "Exists"}]},
    }
    for field, change in changes.items():
        assert altered(pod, running | {"spec": running["spec"] | change}) == field
    # The image was changed, and changed back.
    again = {"containerStatuses": [{"name": "inspect", "restartCount": 1}]}
    assert altered(pod, running | {"status": again}) == "status.restartCount"


@pytest.mark.parametrize(
    "change",
    [
        {"controller": False},
        {"uid": "u2"},
        {"name": "n"},
        {"kind": "Deployment"},
        {"apiVersion": "onnx-operator.dev.evil.example/v1alpha1"},
        {"apiVersion": None},
    ],
)
def test_an_object_belongs_to_a_model_only_as_its_controllers_own(change) -> None:
    def claiming(reference, namespace="tenant"):
        return {"metadata": {"namespace": namespace, "ownerReferences": [reference]}}

    owner = owner_reference(MODEL)
    assert is_controlled_by(claiming(owner), MODEL)
    assert not is_controlled_by(claiming(owner, "other"), MODEL)
    assert not is_controlled_by(claiming(owner | change), MODEL)


CAPABILITIES = Capabilities(onnx_runtime_version="1.32.0", ir_version=14, opsets={"ai.onnx": 28}, operators={})
LARGEST = 1 << 30
PIN = SourcePin(kind="Immutable", value="1")
ACCEPTED = InspectionResult(
    outcome="Accepted", source=report().source, report=report(), interface="0123456789ab", files=files()
)
TESTED = ACCEPTED.model_copy(
    update={"test_data": [SourceFile(name="test_data_set_0/input_0.pb", pin=PIN, size_bytes=10)]}
)
REFUSED = InspectionResult(outcome="Refused", refusal=Refusal(reason=Reason.NOT_ONNX, message="It is a zip."))


def request(**fields) -> InspectionRequest:
    return InspectionRequest(uri="s3://b/m.onnx", capabilities=CAPABILITIES, **fields)


def assert_harmless(result: InspectionResult, asked: InspectionRequest) -> None:
    """What the operator goes on with: as small as an honest report, and of this model alone."""
    numbers = [file.size_bytes for file in result.test_data]
    if result.report:
        assert len(result.report.model_dump_json(by_alias=True)) <= 2 * MAX_REPORT_BYTES
        texts = [result.report.producer, *result.report.notes, *(t.name for t in result.report.inputs)]
        assert all(text.isprintable() for text in texts)
        numbers += [result.report.size_bytes, result.report.memory.resident_bytes, result.report.files]
    if result.outcome == "Refused":
        assert result.refusal is not None
        assert result.refusal.reason in VERDICTS
        assert len(result.refusal.message) < 3000
        assert result.files is None
        return
    assert result.files is not None
    assert not any(not is_confined(file.name) for file in [*result.files.files, *result.test_data])
    assert is_confined(result.files.model)
    assert result.files.size_bytes <= LARGEST
    assert result.files.unpacked_bytes <= LARGEST
    assert sum(file.size_bytes for file in result.test_data) <= MAX_TEST_DATA_BYTES
    assert asked.test_data or not result.test_data
    assert all(0 <= number < 2**63 for number in numbers)
    assert not asked.sha256 or result.files.files[0].sha256 == asked.sha256


@pytest.mark.parametrize(
    "file",
    [
        {"name": "../../etc/passwd"},
        {"name": "/etc/passwd"},
        {"name": "score.py"},
        {"name": "test_data_set_0/../x.pb"},
        {"size_bytes": 10**15},
        {"size_bytes": -1},
        {"sha256": "x"},
        {"pin": SourcePin(kind="Immutable", value="\x1b[31m")},
    ],
)
def test_a_forged_report_cannot_say_what_is_fetched_beside_the_model(file) -> None:
    forged = TESTED.model_copy(update={"test_data": [TESTED.test_data[0].model_copy(update=file)]})
    with pytest.raises(ReportError):
        find_report(report_line(forged), request(test_data="s3://b/test"), LARGEST)


@pytest.mark.parametrize("which", ["files", "test data"])
def test_a_list_of_files_that_no_pod_could_be_told_of_is_not_kept(which) -> None:
    """Results stay in the controller's memory for as long as their models are there, all tenants' together."""
    if which == "files":
        many = [SourceFile(name=f"w/{n}", pin=PIN, size_bytes=1) for n in range(6000)]
        forged = ACCEPTED.model_copy(
            update={"files": ACCEPTED.files.model_copy(update={"files": many, "model": "w/0"})}
        )
    else:
        long = SourcePin(kind="Immutable", value="x" * 500)
        names = [f"test_data_set_{n}/{k}_{m}.pb" for n in range(16) for k in ("input", "output") for m in range(40)]
        many = [SourceFile(name=name, pin=long, size_bytes=1) for name in names]
        forged = ACCEPTED.model_copy(update={"test_data": many})
    found = find_report(report_line(forged), request(test_data="s3://b/test"), LARGEST)
    assert (found.outcome, found.refusal.reason) == ("Refused", Reason.TOO_LARGE)
    assert found.files is None
    assert not found.test_data
    assert len(found.model_dump_json()) < 20_000


def test_test_data_that_nobody_asked_for_is_none() -> None:
    assert find_report(report_line(TESTED), request(test_data="s3://b/test"), LARGEST) == TESTED
    with pytest.raises(ReportError, match="testData"):
        find_report(report_line(TESTED), request(), LARGEST)
    twice = TESTED.model_copy(update={"test_data": TESTED.test_data * 2})
    with pytest.raises(ReportError, match="testData"):
        find_report(report_line(twice), request(test_data="s3://b/test"), LARGEST)


EVIL = ["../x", "/x", "\x1b[31m", "\u202e", "\ud800", "x" * 5000, "", 0, -1, 10**30, 1e400, float("nan"), True, None]
EVIL += [[], {}, [[]] * 2000, {"a": {"a": {}}}, "s3://other/m", "sha256:" + "0" * 64]


def _places(value: object, path: tuple = ()) -> list[tuple]:
    if isinstance(value, dict):
        return [path, *(place for key in value for place in _places(value[key], (*path, key)))]
    if isinstance(value, list):
        return [path, *(place for n, each in enumerate(value) for place in _places(each, (*path, n)))]
    return [path]


def _put(value: object, path: tuple, new: object) -> object:
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)  # type: ignore[call-overload]
    copy[path[0]] = _put(copy[path[0]], path[1:], new)
    return copy


@pytest.mark.fuzz
def test_no_report_makes_the_operator_do_more_than_an_honest_one(fuzz) -> None:
    """Values exchanged within an honest report, bytes changed, and logs of many lines and marks."""
    asked = [request(), request(test_data="s3://b/test"), request(sha256="0" * 64)]
    honest = [json.loads(report_line(each)) for each in (ACCEPTED, TESTED, REFUSED)]
    for rng in fuzz(1000):
        document = rng.choice(honest)
        for _ in range(rng.randint(1, 3)):
            document = _put(document, rng.choice(_places(document)), rng.choice(EVIL))  # type: ignore[assignment]
        line = json.dumps(document)
        if rng.random() < 0.4:
            line = mutated(rng, line.encode()).decode(errors="replace")
        noise = [
            '{"event": "inspected"}',
            '{"inspected"',
            "[" * 3000,
            "\x85",
            "\u2028",
            report_line(REFUSED),
            "{" * 500,
        ]
        lines = [*rng.choices(noise, k=rng.randint(0, 5)), line]
        rng.shuffle(lines)
        for each in asked:
            try:
                result = find_report("\n".join(lines), each, LARGEST)
            except ReportError:
                continue
            assert_harmless(result, each)


def test_what_is_wrong_with_a_report_is_told_in_few_words() -> None:
    document = json.loads(report_line(ACCEPTED))
    document["report"]["opsets"] = {"k" * 500_000 + "\x1b[2J": "no number"}
    with pytest.raises(ReportError) as caught:
        find_report(json.dumps(document), request(), LARGEST)
    assert len(str(caught.value)) < 400
    assert str(caught.value).isprintable()


def test_a_log_as_long_as_may_be_is_read_in_one_go() -> None:
    """A guard against hanging, not a measurement: the operator's loop does this for all tenants."""
    many = '{"event": "inspected", "x": ' + "[" * 50_000 + "\n"
    began = time.monotonic()
    with pytest.raises(ReportError):
        find_report(many * 25, request(), LARGEST)
    with pytest.raises(ReportError):
        find_report(
            '{"event": "inspected", "outcome": "Refused", "files": ' + "1" * (1 << 20) + "}", request(), LARGEST
        )
    assert time.monotonic() - began < 10
