"""Merging a pod template, and telling what is ours from what others added."""

import copy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_operator.controller.revision.merge import contains, project, strategic_merge

POD = {
    "containers": [
        {
            "name": "server",
            "image": "i:1",
            "args": ["serve"],
            "ports": [{"containerPort": 8080, "name": "http", "protocol": "TCP"}],
            "volumeMounts": [{"name": "model", "mountPath": "/models"}],
            "resources": {"limits": {"memory": "1Gi"}},
        }
    ],
    "tolerations": [{"key": "gpu", "operator": "Exists"}],
    "nodeSelector": {"gpu": "t4"},
}


def next_key(value):
    return next(iter(value))


def merged(patch):
    return strategic_merge(POD, patch)


def test_maps_merge_by_key():
    assert merged({"nodeSelector": {"zone": "b"}})["nodeSelector"] == {"gpu": "t4", "zone": "b"}


def test_a_container_merges_by_name():
    result = merged({"containers": [{"name": "server", "resources": {"limits": {"cpu": "2"}}}]})
    server = result["containers"][0]
    assert len(result["containers"]) == 1
    assert server["image"] == "i:1"
    assert server["resources"]["limits"] == {"memory": "1Gi", "cpu": "2"}


def test_another_container_comes_after_ours():
    result = merged({"containers": [{"name": "proxy", "image": "p"}]})
    assert [c["name"] for c in result["containers"]] == ["server", "proxy"]


def test_variables_merge_by_name():
    first = merged({"containers": [{"name": "server", "env": [{"name": "A", "value": "1"}]}]})
    second = strategic_merge(
        first, {"containers": [{"name": "server", "env": [{"name": "A", "value": "2"}, {"name": "B", "value": "3"}]}]}
    )
    assert second["containers"][0]["env"] == [{"name": "A", "value": "2"}, {"name": "B", "value": "3"}]


def test_arguments_are_replaced_whole():
    assert merged({"containers": [{"name": "server", "args": ["x"]}]})["containers"][0]["args"] == ["x"]


def test_null_removes():
    result = merged({"nodeSelector": None, "containers": [{"name": "server", "resources": {"limits": None}}]})
    assert "nodeSelector" not in result
    assert result["containers"][0]["resources"] == {}


def test_tolerations_add_up():
    mine = {"key": "mine", "operator": "Exists"}
    assert merged({"tolerations": [mine, POD["tolerations"][0]]})["tolerations"] == [*POD["tolerations"], mine]


def test_udp_and_tcp_on_the_same_port_stay_two_ports():
    ports = [{"containerPort": 53, "protocol": "TCP"}, {"containerPort": 53, "protocol": "UDP"}]
    assert merged({"containers": [{"name": "server", "ports": ports}]})["containers"][0]["ports"][1:] == ports
    assert strategic_merge({"ports": ports}, {"ports": ports})["ports"] == ports


def test_two_spread_rules_over_the_same_topology_stay_two():
    rules = [
        {"topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule", "maxSkew": 2},
        {"topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway", "maxSkew": 1},
    ]
    assert merged({"topologySpreadConstraints": rules})["topologySpreadConstraints"] == rules
    assert contains({"topologySpreadConstraints": rules}, {"topologySpreadConstraints": rules})
    assert project({"topologySpreadConstraints": rules}, {"topologySpreadConstraints": rules}) == {
        "topologySpreadConstraints": rules
    }


def test_a_port_without_a_protocol_is_a_tcp_port():
    ports = strategic_merge(
        {"ports": [{"containerPort": 80, "protocol": "TCP"}]}, {"ports": [{"containerPort": 80, "name": "web"}]}
    )["ports"]
    assert ports == [{"containerPort": 80, "protocol": "TCP", "name": "web"}]


# --- another kind -----------------------------------------------------------------------------------------------------

VOLUMES = {"volumes": [{"name": "tmp", "emptyDir": {"sizeLimit": "64Mi"}}, {"name": "model", "emptyDir": {}}]}


def test_a_volume_of_another_kind_takes_the_place_of_ours():
    claim = {"name": "tmp", "persistentVolumeClaim": {"claimName": "scratch"}}
    assert strategic_merge(VOLUMES, {"volumes": [claim]}) == {"volumes": [claim, VOLUMES["volumes"][1]]}


def test_a_volume_of_the_same_kind_keeps_what_is_not_named():
    patch = {"volumes": [{"name": "tmp", "emptyDir": {"medium": "Memory"}}]}
    assert strategic_merge(VOLUMES, patch)["volumes"][0]["emptyDir"] == {"sizeLimit": "64Mi", "medium": "Memory"}


def test_a_volume_that_is_only_named_stays():
    assert strategic_merge(VOLUMES, {"volumes": [{"name": "tmp"}]}) == VOLUMES


@pytest.mark.parametrize("probe", ["startupProbe", "readinessProbe", "livenessProbe"])
@pytest.mark.parametrize(
    "kind", [{"exec": {"command": ["true"]}}, {"tcpSocket": {"port": 8080}}, {"grpc": {"port": 8081}}], ids=next_key
)
def test_a_probe_of_another_kind_takes_the_place_of_ours(probe, kind):
    ours = {probe: {"httpGet": {"path": "/", "port": "http"}, "periodSeconds": 5}}
    assert strategic_merge(ours, {probe: kind}) == {probe: {**kind, "periodSeconds": 5}}


def test_a_hook_of_another_kind_takes_the_place_of_ours():
    ours = {"lifecycle": {"preStop": {"sleep": {"seconds": 5}}}}
    theirs = {"lifecycle": {"preStop": {"exec": {"command": ["sleep", "9"]}}}}
    assert strategic_merge(ours, theirs) == theirs


def test_a_variable_from_elsewhere_takes_the_place_of_its_value():
    ours = {"env": [{"name": "A", "value": "1"}, {"name": "B", "valueFrom": {"fieldRef": {"fieldPath": "x"}}}]}
    theirs = {
        "env": [
            {"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
            {"name": "B", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
        ]
    }
    assert strategic_merge(ours, theirs) == theirs


def test_what_kubectl_patch_understands_is_understood():
    pod = {"containers": [{"name": "server", "image": "i"}, {"name": "side", "image": "s", "env": [{"name": "A"}]}]}
    gone = {"containers": [{"name": "side", "$patch": "delete"}]}
    assert strategic_merge(pod, gone) == {"containers": pod["containers"][:1]}
    assert strategic_merge(pod, {"containers": [{"$patch": "replace"}, {"name": "x"}]}) == {
        "containers": [{"name": "x"}]
    }
    other = {"containers": [{"name": "side", "$patch": "replace", "image": "t"}]}
    assert strategic_merge(pod, other)["containers"][1] == {"name": "side", "image": "t"}
    kept = {"containers": [{"name": "side", "$retainKeys": ["name", "image"], "image": "t"}]}
    assert strategic_merge(pod, kept)["containers"][1] == {"name": "side", "image": "t"}


def test_what_is_no_directive_is_left_for_the_api_server_to_name():
    assert strategic_merge({}, {"$patch": "remove", "$retainKeys": "x"}) == {"$patch": "remove", "$retainKeys": "x"}


# --- what is ours, and what others added ------------------------------------------------------------------------------


def test_additions_of_others_are_no_difference():
    live = copy.deepcopy(POD)
    live["containers"].insert(0, {"name": "injected"})
    live["containers"][1]["env"] = [{"name": "INJECTED", "value": "1"}]
    live["tolerations"].append({"key": "not-ready"})
    live["dnsPolicy"] = "ClusterFirst"
    assert contains(live, POD)


@pytest.mark.parametrize(
    "change",
    [
        lambda pod: pod["containers"][0].update(image="i:2"),
        lambda pod: pod["containers"][0].pop("image"),
        lambda pod: pod["containers"].clear(),
        lambda pod: pod["containers"][0]["args"].append("--more"),
        lambda pod: pod["containers"][0]["args"].clear(),
        lambda pod: pod["containers"][0]["ports"].clear(),
        lambda pod: pod["tolerations"].clear(),
        lambda pod: pod.pop("nodeSelector"),
        lambda pod: pod.update(containers=None),
        lambda pod: pod["nodeSelector"].update(gpu="a100"),
        lambda pod: pod["nodeSelector"].update(zone="b"),
    ],
)
def test_a_hand_edit_is_a_difference(change):
    live = copy.deepcopy(POD)
    change(live)
    assert not contains(live, POD)


def test_udp_and_tcp_on_the_same_port_are_no_difference():
    service = {"ports": [{"port": 53, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}]}
    container = {"ports": [{"containerPort": 53, "protocol": "UDP"}, {"containerPort": 53, "protocol": "TCP"}]}
    for item in (service, container):
        assert contains(copy.deepcopy(item), item)
        assert project(copy.deepcopy(item), item) == item


def test_a_selector_has_one_owner():
    """Another label in it selects other pods, or none."""
    service = {"selector": {"app": "a"}}
    assert contains({"selector": {"app": "a"}}, service)
    assert not contains({"selector": {"app": "a", "track": "x"}}, service)
    budget = {"selector": {"matchLabels": {"app": "a"}}}
    assert not contains({"selector": {"matchLabels": {"app": "a", "b": "c"}}}, budget)
    # What was there when it was made is kept, whoever added it.
    assert project({"selector": {"app": "a", "track": "x"}}, service) == {"selector": {"app": "a", "track": "x"}}


def test_true_is_not_one():
    assert not contains({"a": True}, {"a": 1})


def test_what_the_server_drops_is_not_wanted():
    desired = {"env": [], "nodeSelector": {}, "image": "i", "resources": {"limits": {"cpu": 0.5}}}
    live = {"image": "i", "resources": {"limits": {"cpu": "500m"}}, "dnsPolicy": "ClusterFirst"}
    assert project(live, desired) == {"image": "i", "resources": {"limits": {"cpu": "500m"}}}


SCALARS = st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from(["", "a", "b"])
NAMED = st.lists(
    st.fixed_dictionaries({"name": st.sampled_from("pqr")}, optional={"value": SCALARS}),
    max_size=3,
    unique_by=lambda item: item["name"],
)
FIELDS = st.sampled_from(
    ["containers", "env", "args", "tolerations", "x", "y", "volumes", "selector", "livenessProbe", "exec", "httpGet"]
)
TREES = st.recursive(
    SCALARS,
    lambda inner: st.dictionaries(FIELDS, inner | NAMED, max_size=4) | st.lists(inner, max_size=3),
    max_leaves=15,
)
MAPS = st.dictionaries(FIELDS, TREES | NAMED, max_size=4)


def without_nulls(value):
    if isinstance(value, dict):
        return {k: without_nulls(v) for k, v in value.items() if v is not None}
    return [without_nulls(v) for v in value] if isinstance(value, list) else value


@settings(deadline=None)
@given(base=MAPS, patch=MAPS)
def test_merging_changes_neither_side(base, patch):
    before = copy.deepcopy((base, patch))
    result = strategic_merge(base, patch)
    assert (base, patch) == before
    assert isinstance(result, dict)


@settings(deadline=None)
@given(base=MAPS, patch=MAPS)
def test_merging_the_same_patch_again_changes_nothing(base, patch):
    once = strategic_merge(base, patch)
    assert strategic_merge(once, patch) == once


@settings(deadline=None)
@given(base=MAPS)
def test_an_empty_patch_changes_nothing(base):
    assert strategic_merge(base, {}) == base


@settings(deadline=None)
@given(live=MAPS, desired=MAPS)
def test_what_was_taken_from_the_live_object_is_in_it(live, desired):
    assert contains(live, project(live, desired))


@settings(deadline=None)
@given(value=MAPS)
def test_every_object_holds_itself(value):
    assert contains(value, value)
    assert project(value, value) == value


@settings(deadline=None)
@given(live=MAPS, desired=MAPS)
def test_projecting_changes_neither_side(live, desired):
    before = copy.deepcopy((live, desired))
    once = project(live, desired)
    assert (live, desired) == before
    assert project(live, once) == once


@settings(deadline=None)
@given(base=MAPS, patch=MAPS.map(without_nulls))
def test_what_was_laid_over_is_there(base, patch):
    assert contains(strategic_merge(base, patch), patch)
