"""Others may add to children what they like; what changes the model's pods is named."""

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnx_operator.api.conditions import Reason
from onnx_operator.controller.rollout.alterations import MAX_TOLD, altered
from tests.unit.controller.samples import Object

SERVER = {"name": "server", "image": "i", "args": ["serve"], "securityContext": {"capabilities": {"drop": ["ALL"]}}}
DEPLOYMENT = {
    "kind": "Deployment",
    "metadata": {"name": "m"},
    "spec": {"replicas": 1, "template": {"metadata": {}, "spec": {"containers": [SERVER], "initContainers": []}}},
}
SERVICE = {"kind": "Service", "metadata": {"name": "m"}, "spec": {"ports": [{"port": 80}]}}


def told(change, desired=DEPLOYMENT) -> str:
    live = {"Deployment": copy.deepcopy(DEPLOYMENT), "Service": copy.deepcopy(SERVICE)}
    change(live)
    cause = altered([desired, SERVICE], lambda kind, _: live.get(kind))
    assert cause is None or cause.reason is Reason.ALTERED
    return cause.message if cause else ""


def pod(live) -> Object:
    return live["Deployment"]["spec"]["template"]["spec"]


CHANGES = {
    "container server: command": lambda live: pod(live)["containers"][0].update(command=["sleep", "9"]),
    "container server: workingDir": lambda live: pod(live)["containers"][0].update(workingDir="/x"),
    "container server: securityContext.runAsUser": lambda live: pod(live)["containers"][0]["securityContext"].update(
        runAsUser=1
    ),
    "container server: capabilities.add": lambda live: pod(live)["containers"][0]["securityContext"][
        "capabilities"
    ].update(add=["NET_ADMIN"]),
    "container server: lifecycle.postStart": lambda live: pod(live)["containers"][0].update(
        lifecycle={"postStart": {"exec": {"command": ["x"]}}}
    ),
    "hostNetwork true": lambda live: pod(live).update(hostNetwork=True),
    "hostPID": lambda live: pod(live).update(hostPID=True),
    "nodeName": lambda live: pod(live).update(nodeName="n1"),
    "paused true": lambda live: live["Deployment"]["spec"].update(paused=True),
    "Service: publishNotReadyAddresses": lambda live: live["Service"]["spec"].update(publishNotReadyAddresses=True),
}


@pytest.mark.parametrize("named", CHANGES)
def test_what_changes_the_pods_is_named(named):
    assert named in told(CHANGES[named])


HARMLESS = {
    "nothing": lambda live: None,
    "a sidecar with a command": lambda live: pod(live)["containers"].insert(0, {"name": "mesh", "command": ["x"]}),
    "a restart": lambda live: live["Deployment"]["spec"]["template"]["metadata"].update(annotations={"a": "b"}),
    "a variable": lambda live: pod(live)["containers"][0].update(env=[{"name": "A"}]),
    "what says nothing": lambda live: pod(live).update(hostNetwork=False, nodeName=""),
    "no Deployment": lambda live: live.pop("Deployment"),
}


@pytest.mark.parametrize("change", HARMLESS.values(), ids=HARMLESS)
def test_what_others_may_add_is_not_told(change):
    assert told(change) == ""


def test_what_the_pod_template_asks_for_is_not_told():
    desired = copy.deepcopy(DEPLOYMENT)
    desired["spec"]["template"]["spec"] |= {"hostNetwork": True}
    desired["spec"]["template"]["spec"]["containers"][0]["command"] = ["mine"]

    def change(live):
        live["Deployment"] = copy.deepcopy(desired)

    assert told(change, desired) == ""


def test_a_long_value_and_many_fields_are_cut():
    def change(live):
        pod(live)["containers"][0]["command"] = ["x" * 5000]
        pod(live)["containers"][0]["securityContext"] |= {f"f{n}": n + 1 for n in range(50)}

    message = told(change)
    assert len(message) < 1500
    assert f"and {51 - MAX_TOLD} more" in message


@given(
    junk=st.recursive(
        st.none() | st.integers() | st.text(max_size=3),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["spec", "template", "containers", "name", "securityContext", "capabilities"]), inner
            )
        ),
        max_leaves=12,
    )
)
def test_whatever_a_child_holds_is_looked_at(junk):
    live = {"kind": "Deployment", "metadata": {"name": "m"}, "spec": junk}
    altered([DEPLOYMENT], lambda *_: live)
