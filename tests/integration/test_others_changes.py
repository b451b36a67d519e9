"""What somebody else changes on a model's children: undone where it is the operator's, otherwise told in the status."""

import json

import pytest

from onnx_operator.api import names
from onnx_operator.controller.cluster.kinds import DEPLOYMENT
from onnx_operator.controller.rollout.contest import AT_ONCE, Contests
from tests.security.desk import Desk


async def rolled_out(desk: Desk, **fields):
    await desk.write(**fields)
    operator = await desk.operator()
    await operator.settle(desk.namespace, "m")
    return operator


def edit(desk: Desk, change: dict, kind: str = "deployment") -> None:
    """As ``kubectl edit`` does: by another field manager, which so owns what it sets."""
    patch = json.dumps(change)
    desk.kubectl("patch", kind, "m", "--type=strategic", "--field-manager=kubectl-edit", f"--patch={patch}")


def of_server(**fields) -> dict:
    return {"spec": {"template": {"spec": {"containers": [{"name": "server", **fields}]}}}}


LEFT = {
    "command": (of_server(command=["sleep", "9"]), "container server: command"),
    "host's network": ({"spec": {"template": {"spec": {"hostNetwork": True}}}}, "hostNetwork true"),
    "node": ({"spec": {"template": {"spec": {"nodeName": "n"}}}}, "nodeName"),
    "user": (of_server(securityContext={"runAsUser": 1000}), "securityContext.runAsUser 1000"),
    "paused": ({"spec": {"paused": True}}, "paused true"),
}


@pytest.mark.parametrize(("change", "named"), LEFT.values(), ids=LEFT)
async def test_what_is_not_ours_is_left_and_named_and_costs_no_further_write(desk, change, named):
    operator = await rolled_out(desk)
    edit(desk, change)
    changed = await desk.deployment()
    await operator.settle(desk.namespace, "m")
    outdated = (await desk.conditions())["Outdated"]
    assert outdated["reason"] == "Altered"
    assert named in outdated["message"]
    for _ in range(2):
        await operator.settle(desk.namespace, "m")
    assert await desk.deployment() == changed

    # What is ours beside it is restored all the same.
    edit(desk, of_server(image="evil"))
    await operator.settle(desk.namespace, "m")
    server = (await desk.deployment())["spec"]["template"]["spec"]["containers"][0]
    assert server["image"] == "localhost/onnx-server:1"


def replace(desk: Desk, kind: str, change) -> None:
    """As a client does that reads an object, changes it and writes it back."""
    found = json.loads(desk.kubectl("get", kind, "m", "--output=json"))
    change(found["spec"])
    desk.kubectl("replace", "--filename=-", input=json.dumps(found))


async def test_a_port_of_which_somebody_changes_the_number_gets_it_back(desk):
    """It keeps its name, which no other port may have meanwhile."""
    operator = await rolled_out(desk)
    ports = json.loads(desk.kubectl("get", "service", "m", "--output=json"))["spec"]["ports"]
    for _ in range(2):
        replace(desk, "service", lambda spec: spec["ports"][0].update(port=8888))
        await operator.settle(desk.namespace, "m")
        assert json.loads(desk.kubectl("get", "service", "m", "--output=json"))["spec"]["ports"] == ports
    replace(desk, "service", lambda spec: spec["ports"].append({"name": "mine", "port": 9999, "protocol": "TCP"}))
    replace(desk, "service", lambda spec: spec["ports"][0].update(port=8888))
    await operator.settle(desk.namespace, "m")
    found = json.loads(desk.kubectl("get", "service", "m", "--output=json"))["spec"]["ports"]
    assert {port["port"] for port in found} == {port["port"] for port in ports} | {9999}, "theirs stays"
    assert (await desk.conditions())["Ready"]["reason"] != "CreationFailed"


async def test_a_containers_port_of_which_somebody_changes_the_number_gets_it_back(desk):
    operator = await rolled_out(desk)
    before = (await desk.deployment())["spec"]["template"]["spec"]["containers"][0]["ports"]

    def change(spec) -> None:
        spec["template"]["spec"]["containers"][0]["ports"][0]["containerPort"] = 9090
        spec["template"]["spec"]["containers"].append({"name": "sidecar", "image": "localhost/sidecar:1"})

    replace(desk, "deployment", change)
    await operator.settle(desk.namespace, "m")
    containers = (await desk.deployment())["spec"]["template"]["spec"]["containers"]
    assert {c["name"] for c in containers} == {"server", "sidecar"}
    server = next(c for c in containers if c["name"] == "server")
    assert sorted(server["ports"], key=lambda p: p["name"]) == sorted(before, key=lambda p: p["name"])


async def test_once_it_is_taken_away_nothing_is_told_any_more(desk):
    operator = await rolled_out(desk)
    edit(desk, of_server(command=["sleep", "9"]))
    await operator.settle(desk.namespace, "m")
    assert "Outdated" in await desk.reasons()
    edit(desk, of_server(command=None))
    await operator.settle(desk.namespace, "m")
    assert "Outdated" not in await desk.reasons()


async def test_a_command_of_the_owners_own_is_not_told(desk):
    await rolled_out(desk, podTemplate={"spec": {"containers": [{"name": "server", "command": ["onnx-server"]}]}})
    assert "Outdated" not in await desk.reasons()


async def test_a_sidecar_and_a_restart_are_not_told(desk):
    operator = await rolled_out(desk)
    desk.kubectl("rollout", "restart", "deployment/m")
    edit(desk, {"spec": {"template": {"spec": {"containers": [{"name": "mesh", "image": "i", "command": ["x"]}]}}}})
    before = await desk.deployment()
    await operator.settle(desk.namespace, "m")
    assert "Outdated" not in await desk.reasons()
    assert await desk.deployment() == before


async def test_a_service_that_selects_fewer_pods_is_repaired(desk):
    operator = await rolled_out(desk)
    edit(desk, {"spec": {"selector": {"app": "other"}}}, kind="service")
    await operator.settle(desk.namespace, "m")
    service = json.loads(desk.kubectl("get", "service", "m", "-o", "json"))
    assert service["spec"]["selector"] == {names.LABEL_MODEL: "m"}


async def test_a_paused_deployment_says_why_an_update_does_not_come(desk):
    operator = await rolled_out(desk)
    desk.kubectl("rollout", "pause", "deployment/m", "--field-manager=kubectl-rollout")
    await desk.write(session={"intraOpThreads": 2})
    await operator.settle(desk.namespace, "m")
    conditions = await desk.conditions()
    assert conditions["Progressing"]["reason"] == "RolloutPaused"
    assert "kubectl rollout resume deployment/m" in conditions["Progressing"]["message"]
    assert conditions["Ready"]["status"] == "False"
    desk.kubectl("rollout", "resume", "deployment/m")
    await operator.settle(desk.namespace, "m")
    assert (await desk.reasons())["Progressing"] != "RolloutPaused"


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


async def test_somebody_who_scales_the_deployment_again_and_again_is_named_and_not_fought(desk):
    operator, clock = await rolled_out(desk), Clock()
    operator.reconciler._contests = Contests(clock)

    async def scaled_to(replicas: int) -> int:
        desk.kubectl("scale", "deployment", "m", f"--replicas={replicas}")
        await operator.settle(desk.namespace, "m")
        return (await desk.deployment())["spec"]["replicas"]

    for _ in range(AT_ONCE):
        assert await scaled_to(5) == 1, "it was tried by hand, and is undone"
    assert await scaled_to(5) == 5
    outdated = (await desk.conditions())["Outdated"]
    assert outdated["reason"] == "ScaledByOthers"
    assert "kubectl through /scale scales the Deployment to 5" in outdated["message"]
    before = (await desk.deployment())["metadata"]["resourceVersion"]
    for _ in range(3):
        await operator.settle(desk.namespace, "m")
    assert (await desk.deployment())["metadata"]["resourceVersion"] == before

    # The owner's own word counts at once.
    await desk.write(replicas=3)
    await operator.settle(desk.namespace, "m")
    assert (await desk.deployment())["spec"]["replicas"] == 3
    assert "Outdated" not in await desk.reasons()

    assert await scaled_to(5) == 5
    clock.now += 31
    await operator.settle(desk.namespace, "m")
    assert (await desk.kube.get(DEPLOYMENT, desk.namespace, "m"))["spec"]["replicas"] == 3
