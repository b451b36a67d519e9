"""A model's children in a real API server: applied once, restored when changed, otherwise left alone."""

import asyncio
import json
from dataclasses import replace

import pytest

from onnx_operator.api import names
from onnx_operator.api.conditions import Reason
from onnx_operator.api.onnxmodel import Condition, OnnxModelSpec
from onnx_operator.controller.cluster.answers import ApiError
from onnx_operator.controller.cluster.kinds import (
    CONTROLLER_REVISION,
    DEPLOYMENT,
    EVENT,
    ONNX_MODEL,
    POD_DISRUPTION_BUDGET,
    SERVICE,
)
from onnx_operator.controller.cluster.kube import Kube
from onnx_operator.controller.cluster.owners import owner_reference
from onnx_operator.controller.cluster.sight import Sight
from onnx_operator.controller.cluster.store import Store
from onnx_operator.controller.cluster.times import micro_time
from onnx_operator.controller.revision.render import RenderInput, render
from onnx_operator.controller.revision.revisions import (
    HISTORY,
    Revision,
    RevisionData,
    controller_revision,
    decode,
    new_revision,
    pod_spec,
)
from onnx_operator.controller.revision.seal import Key, Sealer, Trust
from onnx_operator.controller.rollout.children import (
    ChildrenError,
    apply_children,
    canonical,
    check_names,
    desired_children,
    list_children,
    prune,
    prune_revisions,
)
from onnx_operator.controller.rollout.shapes import shapes
from onnx_operator.controller.status.events import event_for
from tests.integration.sights import caught_up, following
from tests.unit.controller.samples import T4, files, many_files, pool, report, settings

SEALER = Sealer(Key.new())


def own_revision(item, model):
    return decode(item, model["metadata"]["name"], model["metadata"]["namespace"], SEALER)


pytestmark = pytest.mark.usefixtures("crd")


@pytest.fixture
async def kube(apiserver):
    connection = await Kube.connect(str(apiserver.kubeconfig))
    yield connection
    await connection.close()


class Desk:
    """A model, and what the controller does for it, one step at a time."""

    def __init__(self, kube, cluster, namespace, store):
        self.kube = kube
        self.store = store
        self.cluster = cluster
        self.namespace = namespace
        self.model = {}
        self.files = files()

    async def write(self, name="resnet50", **spec):
        manifest = {
            "apiVersion": names.API_VERSION,
            "kind": names.KIND,
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": {"model": {"uri": "s3://models/resnet50.onnx"} | spec.pop("model", {}), **spec},
        }
        self.model = await self.kube.apply(ONNX_MODEL, manifest, manager="user")
        return self.model

    @property
    def name(self):
        return self.model["metadata"]["name"]

    @property
    def spec(self):
        return OnnxModelSpec.model_validate(self.model["spec"])

    def rendered(self, **settings_):
        gpu = self.spec.runtime == "GPU"
        loaded = settings(pools=[T4], **settings_)
        chosen = pool(**T4) if gpu else pool("cpu")
        return render(RenderInput(self.name, self.namespace, self.spec, report(), self.files, chosen, loaded))

    async def revision(self, **changes) -> Revision:
        values = {
            "spec": pod_spec(self.spec),
            "report": report(version="abc"),
            "files": self.files,
            "interface": "face",
            "pool": "cpu",
            "manifests": await canonical(self.kube, self.rendered(), f"{self.name}-0000000000"),
        }
        return new_revision(self.name, 1, RevisionData(**(values | changes)), "key")

    async def keep(self, revision: Revision) -> None:
        manifest = controller_revision(revision, self.name, self.namespace, SEALER)
        manifest["metadata"]["ownerReferences"] = [owner_reference(self.model)]
        await self.kube.apply(CONTROLLER_REVISION, manifest)

    async def kept(self) -> list[Revision]:
        """The revisions as they are read back; when each was made is the API server's business."""
        found = sorted((await self.children()).revisions, key=lambda r: r.number)
        return [replace(r, created="") for r in found]

    async def children(self):
        if self.store:
            await caught_up(self.kube, self.store, self.namespace)
        return await list_children(
            Sight(self.kube, self.store), self.model, lambda item: own_revision(item, self.model)
        )

    async def step(self, revision: Revision) -> None:
        """What reconciling does with a revision."""
        children = await self.children()
        desired = desired_children(self.model, self.spec, revision)
        await check_names(self.kube, self.model, desired, children)
        await apply_children(self.kube, desired, children, self.confirm)
        await prune(self.kube, desired, children)

    async def confirm(self) -> None:
        await Sight(self.kube).confirm(self.model)

    async def versions(self):
        return {o["kind"]: o["metadata"]["resourceVersion"] for o in (await self.children()).owned}

    async def get(self, kind, name=None):
        return await self.kube.get(kind, self.namespace, name or self.name)

    def kubectl(self, *args, **kwargs):
        return self.cluster.kubectl(*args, f"--namespace={self.namespace}", **kwargs)

    def patch(self, kind, change, style="strategic"):
        self.kubectl("patch", kind, self.name, f"--type={style}", f"--patch={json.dumps(change)}")


@pytest.fixture(params=["asking", "following"])
async def desk(request, kube, apiserver, namespace):
    """Whether the API server is asked for what there is, or has told it before, makes no difference."""
    if request.param == "asking":
        yield Desk(kube, apiserver, namespace, None)
        return
    store = Store(shapes(own_revision))
    async with following(kube, store, namespace):
        yield Desk(kube, apiserver, namespace, store)


# --- nothing is written twice -----------------------------------------------------------------------------------------

SPECS = {
    "smallest": {},
    "many replicas, tags": {"replicas": 7, "model": {"tags": {"team": "vision"}, "description": "d", "version": "7"}},
    "suspended": {"suspend": True},
    "quantities in other words": {
        "resources": {"requests": {"cpu": "1000m", "memory": "1024Mi"}, "limits": {"cpu": "1.0", "memory": "2048Mi"}}
    },
    "whole numbers": {"resources": {"limits": {"cpu": 2, "memory": 1073741824}}},
    "half a processor": {"resources": {"requests": {"cpu": "0.5"}}},
    "gpu": {"runtime": "GPU", "session": {"executionProviders": ["CUDA"]}},
    "credentials and threads": {
        "model": {"credentials": {"secretName": "s"}},
        "session": {"intraOpThreads": 2},
        "serviceAccountName": "models",
    },
    "sidecar with everything": {
        "podTemplate": {
            "metadata": {"labels": {"team": "vision"}, "annotations": {"a": "b"}},
            "spec": {
                "priorityClassName": "",
                "nodeSelector": {},
                "tolerations": [],
                "hostAliases": [],
                "dnsConfig": {},
                "terminationGracePeriodSeconds": 60,
                "containers": [
                    {
                        "name": "server",
                        "env": [{"name": "A", "value": "1"}, {"name": "B", "value": ""}, {"name": "C"}],
                        "resources": {"limits": {"cpu": 0.5, "memory": "1024Mi"}},
                        "volumeMounts": [{"name": "cache", "mountPath": "/cache"}],
                    },
                    {
                        "name": "side",
                        "image": "side:1",
                        "resources": {},
                        "securityContext": {},
                        "env": [],
                        "ports": [
                            {"containerPort": 53, "protocol": "TCP", "name": "dns"},
                            {"containerPort": 53, "protocol": "UDP", "name": "dns-udp"},
                        ],
                    },
                ],
                "initContainers": [{"name": "first", "image": "first:1", "restartPolicy": "Always"}],
                "volumes": [
                    {"name": "cache", "emptyDir": {}},
                    {"name": "sized", "emptyDir": {"sizeLimit": "1024Mi"}},
                    {"name": "secret", "secret": {"secretName": "s"}},
                ],
                "topologySpreadConstraints": [
                    {
                        "maxSkew": 1,
                        "topologyKey": "zone",
                        "whenUnsatisfiable": when,
                        "labelSelector": {"matchLabels": {"a": "b"}},
                    }
                    for when in ("DoNotSchedule", "ScheduleAnyway")
                ],
            },
        }
    },
    "volume, probes, hook and variable of another kind": {
        "podTemplate": {
            "spec": {
                "containers": [
                    {
                        "name": "server",
                        "livenessProbe": {"exec": {"command": ["true"]}},
                        "startupProbe": {"grpc": {"port": 8081}},
                        "lifecycle": {"preStop": {"exec": {"command": ["sleep", "5"]}}},
                        "env": [
                            {"name": "ONNX_CPU_REQUEST", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}
                        ],
                    }
                ],
                "volumes": [{"name": "tmp", "persistentVolumeClaim": {"claimName": "scratch"}}],
            }
        }
    },
    "claim": {"model": {"uri": "pvc://models/resnet50.onnx"}},
    "identity of Azure": {"model": {"uri": "az://models/resnet50.onnx"}, "serviceAccountName": "reader"},
    "registry": {"model": {"uri": "oci://registry.example/m:1", "credentials": {"secretName": "pull"}}},
    "nulls and empty objects": {
        "podTemplate": {"spec": {"affinity": None, "containers": [{"name": "server", "livenessProbe": None}]}}
    },
}


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
async def test_a_second_look_writes_nothing(desk, spec):
    await desk.write(**spec)
    revision = await desk.revision()
    await desk.step(revision)
    first = await desk.versions()
    assert set(first) == {"Deployment", "Service", "PodDisruptionBudget"}

    await desk.step(revision)
    assert await desk.versions() == first

    # Also when the operator starts anew and renders again what it finds.
    again = await desk.revision()
    assert again == revision
    await desk.step(again)
    assert await desk.versions() == first


async def test_a_model_of_many_files_is_kept_whole(desk):
    await desk.write()
    desk.files = many_files(1200)
    revision = await desk.revision()
    await desk.keep(revision)
    await desk.step(revision)
    assert await desk.kept() == [revision]
    first = await desk.versions()
    await desk.step(revision)
    assert await desk.versions() == first


async def test_a_revision_read_back_from_the_api_server_is_the_same(desk):
    await desk.write(**SPECS["sidecar with everything"])
    revision = await desk.revision()
    await desk.keep(revision)
    assert await desk.kept() == [revision]


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
async def test_comparing_makes_no_call_that_writes(desk, spec, monkeypatch):
    await desk.write(**spec)
    revision = await desk.revision()
    await desk.step(revision)

    async def refuse(*args, **kwargs):
        raise AssertionError(f"a write: {args}")

    monkeypatch.setattr(desk.kube, "apply", refuse)
    monkeypatch.setattr(desk.kube, "delete", refuse)
    await desk.step(revision)


async def test_children_belong_to_their_model(desk):
    await desk.write()
    await desk.step(await desk.revision())
    for kind in (DEPLOYMENT, SERVICE, POD_DISRUPTION_BUDGET):
        (reference,) = (await desk.get(kind))["metadata"]["ownerReferences"]
        assert reference["uid"] == desk.model["metadata"]["uid"]
        assert reference["controller"] is True


# --- hand edits -------------------------------------------------------------------------------------------------------

EDITS = {
    "replicas": ("deployment", {"spec": {"replicas": 9}}),
    "image": ("deployment", {"spec": {"template": {"spec": {"containers": [{"name": "server", "image": "evil"}]}}}}),
    "token": ("deployment", {"spec": {"template": {"spec": {"automountServiceAccountToken": True}}}}),
    "root": ("deployment", {"spec": {"template": {"spec": {"securityContext": {"runAsNonRoot": False}}}}}),
    "strategy": ("deployment", {"spec": {"strategy": {"rollingUpdate": {"maxUnavailable": 1}}}}),
    "label": ("deployment", {"metadata": {"labels": {names.LABEL_MODEL: None}}}),
    "owner": ("deployment", {"metadata": {"ownerReferences": None}}),
    "selector of the service": ("service", {"spec": {"selector": {names.LABEL_MODEL: "other"}}}),
    "port of the service": ("service", {"spec": {"ports": [{"port": 80, "targetPort": 9999}]}}),
    "more in the selector of the service": ("service", {"spec": {"selector": {"app": "other"}}}),
    "budget": ("poddisruptionbudget", {"spec": {"maxUnavailable": 0}}),
}


@pytest.mark.parametrize(("kind", "change"), EDITS.values(), ids=EDITS)
async def test_a_hand_edit_of_what_is_ours_is_undone(desk, kind, change):
    await desk.write()
    revision = await desk.revision()
    await desk.step(revision)
    before = {k: await desk.get(k) for k in (DEPLOYMENT, SERVICE, POD_DISRUPTION_BUDGET)}

    desk.patch(kind, change, style="merge" if "metadata" in change else "strategic")
    await desk.step(revision)

    for k, old in before.items():
        new = await desk.get(k)
        assert new["spec"] == old["spec"]
        assert new["metadata"]["labels"] == old["metadata"]["labels"]
        assert new["metadata"]["ownerReferences"] == old["metadata"]["ownerReferences"]


async def test_a_deleted_child_comes_back(desk):
    await desk.write()
    revision = await desk.revision()
    await desk.step(revision)
    desk.kubectl("delete", "service", desk.name)
    await desk.step(revision)
    assert await desk.get(SERVICE)


ADDITIONS = {
    "rollout restart": lambda desk: desk.kubectl("rollout", "restart", f"deployment/{desk.name}"),
    "injected sidecar": lambda desk: desk.patch(
        "deployment", {"spec": {"template": {"spec": {"containers": [{"name": "mesh", "image": "mesh:1"}]}}}}
    ),
    "injected variable": lambda desk: desk.patch(
        "deployment",
        {"spec": {"template": {"spec": {"containers": [{"name": "server", "env": [{"name": "X", "value": "1"}]}]}}}},
    ),
    "label": lambda desk: desk.kubectl("label", "deployment", desk.name, "cost-centre=7"),
    "annotation": lambda desk: desk.kubectl("annotate", "service", desk.name, "dns=x"),
    "second owner": lambda desk: desk.patch(
        "service",
        {
            "metadata": {
                "ownerReferences": [
                    owner_reference(desk.model),
                    {
                        "apiVersion": "v1",
                        "kind": "ConfigMap",
                        "name": "x",
                        "uid": "00000000-0000-0000-0000-000000000000",
                    },
                ]
            }
        },
        style="merge",
    ),
    "another port": lambda desk: desk.patch(
        "service", {"spec": {"ports": [{"name": "extra", "port": 81, "targetPort": 8080}]}}
    ),
}


@pytest.mark.parametrize("add", ADDITIONS.values(), ids=ADDITIONS)
async def test_what_others_add_stays_and_causes_no_write(desk, add):
    await desk.write()
    revision = await desk.revision()
    await desk.step(revision)
    await asyncio.to_thread(add, desk)
    added = await desk.versions()

    await desk.step(revision)
    assert await desk.versions() == added


async def test_what_others_added_survives_an_update(desk):
    await desk.write()
    await desk.step(await desk.revision())
    await asyncio.to_thread(ADDITIONS["injected sidecar"], desk)
    await asyncio.to_thread(ADDITIONS["label"], desk)

    await desk.write(session={"intraOpThreads": 3})
    await desk.step(await desk.revision())

    live = await desk.get(DEPLOYMENT)
    containers = {c["name"]: c for c in live["spec"]["template"]["spec"]["containers"]}
    assert "mesh" in containers
    assert "--intra-op-threads=3" in containers["server"]["args"]
    assert live["metadata"]["labels"]["cost-centre"] == "7"


async def test_a_tag_that_is_taken_away_goes_from_the_children(desk):
    await desk.write(model={"tags": {"team": "vision", "tier": "gold"}})
    revision = await desk.revision()
    await desk.step(revision)
    assert (await desk.get(SERVICE))["metadata"]["annotations"]["tags.onnx-operator.dev/tier"] == "gold"

    await desk.write(model={"tags": {"team": "vision"}})
    await desk.step(revision)
    for kind in (DEPLOYMENT, SERVICE, POD_DISRUPTION_BUDGET):
        annotations = (await desk.get(kind))["metadata"]["annotations"]
        assert annotations["tags.onnx-operator.dev/team"] == "vision"
        assert "tags.onnx-operator.dev/tier" not in annotations


async def test_what_the_pod_template_no_longer_says_goes_from_the_deployment(desk):
    await desk.write(**SPECS["sidecar with everything"])
    await desk.step(await desk.revision())
    await desk.write()
    await desk.step(await desk.revision())
    pod = (await desk.get(DEPLOYMENT))["spec"]["template"]["spec"]
    assert [c["name"] for c in pod["containers"]] == ["server"]
    assert [e["name"] for e in pod["containers"][0]["env"]] == [names.ENV_CPU_REQUEST]


# --- what the API server refuses --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pod", "named"),
    [
        ({"nodeSelectr": {"a": "b"}}, "nodeSelectr"),
        ({"containers": [{"name": "server", "imag": "x"}]}, "imag"),
        ({"containers": [{"name": "side"}]}, "image"),
        ({"containers": [{"image": "no-name"}]}, "name"),
        ({"restartPolicy": "Never"}, "restartPolicy"),
        ({"containers": "x"}, "containers"),
        ({"priority": "high"}, "priority"),
        ({"containers": [{"name": "server", "volumeMounts": [{"name": "no", "mountPath": "/x"}]}]}, "volumeMounts"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_mistake_in_the_pod_template_is_named_before_anything_is_written(desk, pod, named):
    await desk.write(podTemplate={"spec": pod})
    with pytest.raises(Exception, match=named) as caught:
        await desk.revision()
    assert getattr(caught.value, "invalid", True)
    assert (await desk.children()).owned == ()


async def test_a_second_pod_template_mistake_leaves_the_running_deployment_alone(desk):
    await desk.write()
    await desk.step(await desk.revision())
    before = await desk.versions()
    await desk.write(podTemplate={"spec": {"nodeSelectr": {"a": "b"}}})
    with pytest.raises(ApiError, match="nodeSelectr"):
        await desk.revision()
    assert await desk.versions() == before


async def test_requests_above_limits_are_refused_by_name(desk):
    await desk.write(resources={"requests": {"memory": "2Gi"}, "limits": {"memory": "1Gi"}})
    with pytest.raises(ApiError, match="memory limit") as caught:
        await desk.revision()
    assert caught.value.invalid


# --- names ------------------------------------------------------------------------------------------------------------

FOREIGN_SERVICE = {"spec": {"ports": [{"port": 1234}], "selector": {"app": "other"}}}


async def test_a_service_of_somebody_else_is_left_alone_and_named(desk):
    await desk.write()
    foreign = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": desk.name, "namespace": desk.namespace},
        **FOREIGN_SERVICE,
    }
    before = await desk.kube.apply(SERVICE, foreign, manager="other")
    with pytest.raises(ChildrenError) as caught:
        await check_names(desk.kube, desk.model, desk.rendered(), await desk.children())
    assert caught.value.cause.reason is Reason.NAME_CONFLICT
    assert "Service 'resnet50'" in caught.value.cause.message
    after = await desk.get(SERVICE)
    assert after["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]
    assert (await desk.children()).owned == ()


async def test_a_child_of_another_controller_is_not_taken_over(desk):
    await desk.write()
    other = owner_reference(desk.model) | {"uid": "11111111-1111-1111-1111-111111111111", "kind": "Other"}
    foreign = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": desk.name,
            "namespace": desk.namespace,
            "labels": {names.LABEL_MODEL: desk.name},
            "ownerReferences": [other],
        },
        **FOREIGN_SERVICE,
    }
    await desk.kube.apply(SERVICE, foreign, manager="other")
    with pytest.raises(ChildrenError, match="does not belong to this model"):
        await check_names(desk.kube, desk.model, desk.rendered(), await desk.children())


async def test_children_that_an_earlier_model_of_the_name_left_behind_are_taken_over(desk):
    await desk.write()
    await desk.step(await desk.revision())
    pods_selector = (await desk.get(DEPLOYMENT))["spec"]["selector"]
    desk.kubectl("delete", "onnxmodel", desk.name)
    for kind in ("deployment", "service", "poddisruptionbudget"):
        # What the garbage collector does with --cascade=orphan.
        desk.patch(kind, {"metadata": {"ownerReferences": None}}, style="merge")
    uid = (await desk.get(DEPLOYMENT))["metadata"]["uid"]

    await desk.write()
    await desk.step(await desk.revision())

    live = await desk.get(DEPLOYMENT)
    assert live["metadata"]["uid"] == uid, "the same Deployment, so its pods went on"
    assert live["spec"]["selector"] == pods_selector
    assert [r["uid"] for r in live["metadata"]["ownerReferences"]] == [desk.model["metadata"]["uid"]]


@pytest.mark.parametrize("name", ["on", "null", "a" * 52])
async def test_a_model_of_a_strange_name_has_its_children(desk, name):
    await desk.write(name=name)
    await desk.step(await desk.revision())
    assert (await desk.get(DEPLOYMENT))["metadata"]["name"] == name


def replica_set(deployment, **changes):
    """What the pods of a Deployment are controlled by."""
    return {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "name": f"{deployment}-5d4f9",
        "uid": "22222222-2222-2222-2222-222222222222",
        "controller": True,
    } | changes


# --- what counts as a child -------------------------------------------------------------------------------------------


def claimed(desk, name, owners):
    return {
        "name": name,
        "namespace": desk.namespace,
        "labels": {names.LABEL_MODEL: desk.name},
        "ownerReferences": owners,
    }


async def test_only_what_this_very_model_controls_is_its_child(desk):
    """Neither the label counts, nor an owner that does not control, nor one of another UID, name or kind."""
    await desk.write()
    own = owner_reference(desk.model)
    other = "11111111-1111-1111-1111-111111111111"
    references = {
        "labelled": [],
        "mentioned": [own | {"controller": False}],
        "of-another-uid": [own | {"uid": other}],
        "of-another-name": [own | {"name": "bert"}],
        "of-another-kind": [own | {"kind": "Other"}],
        "of-another-group": [own | {"apiVersion": "example.com/v1"}],
        "controlled": [own],
    }
    for name, owners in references.items():
        metadata = claimed(desk, name, owners)
        await desk.kube.apply(SERVICE, {"apiVersion": "v1", "kind": "Service", "metadata": metadata, **FOREIGN_SERVICE})
    assert [o["metadata"]["name"] for o in (await desk.children()).owned] == ["controlled"]


async def test_pods_of_a_replica_set_of_the_models_deployment_are_looked_at_and_no_others(desk):
    await desk.write()
    references = {
        "real": [replica_set(desk.name)],
        "labelled": [],
        "of-the-model": [owner_reference(desk.model)],
        "not-controlled": [replica_set(desk.name, controller=False)],
        "of-another-deployment": [replica_set(f"{desk.name}-2")],
        "of-a-job": [replica_set(desk.name, kind="Job", apiVersion="batch/v1")],
        "of-no-name": [replica_set(desk.name, name=desk.name)],
    }
    for name, owners in references.items():
        metadata = claimed(desk, name, owners)
        spec = {"containers": [{"name": "c", "image": "i", "env": [{"name": "A", "value": "x" * 1000}]}]}
        desk.cluster.apply({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
    (pod,) = (await desk.children()).pods
    assert pod["metadata"]["name"] == "real"
    assert "x" * 1000 not in json.dumps(pod), "nor is more kept of it than is looked at"


# --- pruning ----------------------------------------------------------------------------------------------------------


async def test_only_what_is_ours_and_no_longer_wanted_is_deleted(desk):
    await desk.write()
    revision = await desk.revision()
    await desk.step(revision)
    labels = {names.LABEL_MODEL: desk.name}
    common = {"namespace": desk.namespace, "labels": labels}
    mine = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": common | {"name": "old-child", "ownerReferences": [owner_reference(desk.model)]},
        **FOREIGN_SERVICE,
    }
    theirs = {"apiVersion": "v1", "kind": "Service", "metadata": common | {"name": "theirs"}, **FOREIGN_SERVICE}
    await desk.kube.apply(SERVICE, mine)
    await desk.kube.apply(SERVICE, theirs, manager="other")

    await desk.step(revision)

    assert await desk.get(SERVICE, "old-child") is None
    assert await desk.get(SERVICE, "theirs")
    assert await desk.get(SERVICE)


async def test_a_child_that_a_new_revision_leaves_out_goes(desk):
    await desk.write()
    revision = await desk.revision()
    await desk.step(revision)
    fewer = [m for m in revision.data.manifests if m["kind"] != "PodDisruptionBudget"]
    await desk.step(await desk.revision(manifests=fewer))
    assert await desk.get(POD_DISRUPTION_BUDGET) is None
    assert await desk.get(DEPLOYMENT)


async def test_revisions_beyond_the_history_go_and_those_in_use_stay(desk):
    await desk.write()
    base = await desk.revision()
    revisions = []
    for number in range(1, HISTORY + 5):
        data = base.data.model_copy(update={"interface": f"i{number}"})
        revisions.append(new_revision(desk.name, number, data, "key"))
        await desk.keep(revisions[-1])
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "still-there",
            "namespace": desk.namespace,
            "labels": {names.LABEL_MODEL: desk.name, names.LABEL_REVISION: revisions[0].name},
            "ownerReferences": [replica_set(desk.name)],
        },
        "spec": {"containers": [{"name": "c", "image": "i"}]},
    }
    desk.cluster.apply(pod)
    current = revisions[-1]

    children = await desk.children()
    await prune_revisions(desk.kube, desk.namespace, await desk.kept(), current, children)

    kept = [r.number for r in await desk.kept()]
    newest = [r.number for r in revisions[-HISTORY - 1 : -1]]
    assert kept == [1, *newest, current.number], "with a pod; the last five; the current one"


async def test_going_back_to_an_earlier_model_gives_its_revision_a_new_number(desk):
    await desk.write()
    first = await desk.revision()
    await desk.keep(first)
    await desk.keep(replace(first, number=3))
    assert [(r.number, r.trust) for r in await desk.kept()] == [(3, Trust.SEALED)]


# --- events -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("message", ["0/3 nodes are available", "", "é" * 2000, "🚀\x00\x01" * 300], ids=len)
async def test_the_api_server_takes_our_events_once(desk, message):
    await desk.write()
    condition = Condition(
        type="Progressing",
        status="True",
        reason="Unschedulable",
        message=message[:2048],
        last_transition_time=micro_time(),
        observed_generation=1,
    )
    await desk.kube.create(EVENT, event_for(desk.model, condition, "operator-0", micro_time()))
    with pytest.raises(ApiError) as caught:
        await desk.kube.create(EVENT, event_for(desk.model, condition, "operator-0", micro_time()))
    assert caught.value.reason == "AlreadyExists"
    told = await asyncio.to_thread(desk.kubectl, "describe", "onnxmodel", desk.name)
    assert "Unschedulable" in told
