"""A policy of the cluster that denies what a model needs: told as the policy's word, and asked again."""

import asyncio

import pytest

from tests.integration.working import at_work, conditions, serve, told, until

WORDS = "deployments of this team wait for approval"


class Policy:
    """A real ValidatingAdmissionPolicy over the objects of one namespace."""

    def __init__(self, cluster, namespace):
        self.cluster, self.namespace, self.name = cluster, namespace, f"approval-{namespace}"

    async def deny(self, resource="deployments", group="apps", reason=None):
        """Have it deny all of them; returns once it does."""
        rule = {"apiGroups": [group], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"]}
        validation = {"expression": "false", "message": WORDS} | ({"reason": reason} if reason else {})
        policy = {
            "failurePolicy": "Fail",
            "matchConstraints": {"resourceRules": [{**rule, "resources": [resource]}]},
            "validations": [validation],
        }
        selector = {"matchLabels": {"kubernetes.io/metadata.name": self.namespace}}
        binding = {
            "policyName": self.name,
            "validationActions": ["Deny"],
            "matchResources": {"namespaceSelector": selector},
        }
        for kind, spec in (("ValidatingAdmissionPolicy", policy), ("ValidatingAdmissionPolicyBinding", binding)):
            head = {"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": self.name}}
            await asyncio.to_thread(self.cluster.apply, {**head, "spec": spec})
        await until(lambda: asyncio.to_thread(self.is_heeded, resource))

    def is_heeded(self, resource):
        make = {
            "deployments": ("create", "deployment", "probe", "--image=i"),
            "services": ("create", "service", "clusterip", "probe", "--tcp=80"),
            "pods": ("run", "probe", "--image=i"),
        }[resource]
        ended = self.cluster.run_kubectl(*make, f"--namespace={self.namespace}", "--dry-run=server", check=False)
        return WORDS in ended.stderr

    def lift(self):
        for kind in ("validatingadmissionpolicybinding", "validatingadmissionpolicy"):
            self.cluster.kubectl("delete", kind, self.name, "--ignore-not-found")


@pytest.fixture
def policy(desk):
    made = Policy(desk.cluster, desk.namespace)
    yield made
    made.lift()


TEMPLATE = {"podTemplate": {"metadata": {"labels": {"team": "vision"}}}}


@pytest.mark.parametrize("reason", [None, "Forbidden", "RequestEntityTooLarge"])
async def test_a_denial_is_the_policys_and_not_the_users_and_ends_with_it(desk, policy, reason):
    await policy.deny(reason=reason)
    async with at_work(await desk.operator()):
        await desk.write(**TEMPLATE)
        found = await told(desk, "Progressing", "CreationFailed")
        assert policy.name in found["message"]
        assert WORDS in found["message"]
        assert "admission" in found["message"]
        seen = await conditions(desk)
        assert (seen["ModelValid"]["status"], seen["ModelValid"]["reason"]) == ("True", "Inspected")
        assert "Stalled" not in seen
        policy.lift()
        # Nothing of the model changes: the policy is asked again.
        await until(desk.deployment)


async def test_a_denied_update_leaves_what_serves_and_is_made_when_the_policy_ends(desk, policy):
    async with at_work(await desk.operator()):
        await desk.write()
        await serve(desk)
        await policy.deny()
        await desk.write(**TEMPLATE)
        await told(desk, "Ready", "CreationFailed")
        assert (await conditions(desk))["Available"]["status"] == "True"
        policy.lift()

        async def updated():
            labels = (await desk.deployment())["spec"]["template"]["metadata"]["labels"]
            return labels.get("team") == "vision"

        await until(updated)


async def test_a_denial_of_the_pod_that_inspects_says_nothing_of_the_model(desk, policy):
    await policy.deny("pods", "")
    async with at_work(await desk.operator(inspectorImage="registry.example/onnx-operator:1")):
        await desk.write(model={"uri": "pvc://models/m.onnx"})
        found = await told(desk, "ModelValid", "CreationFailed")
        assert found["status"] == "Unknown"
        assert WORDS in found["message"]


async def test_a_mistake_of_the_users_is_still_his(desk):
    async with at_work(await desk.operator()):
        await desk.write(podTemplate={"spec": {"nodeSelectr": {"a": "b"}}})
        await told(desk, "ModelValid", "PodTemplateRejected")
