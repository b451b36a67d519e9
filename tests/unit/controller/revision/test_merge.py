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


# --- what is ours, and what others added ------------------------------------------------------------------------------


def test_additions_of_others_are_no_difference():
    live = copy.deepcopy(POD)
    live["containers"].insert(0, {"name": "injected"})
    live["containers"][1]["env"] = [{"name": "INJECTED", "value": "1"}]
    live["nodeSelector"]["extra"] = "label"
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
FIELDS = st.sampled_from(["containers", "env", "args", "tolerations", "x", "y", "volumes"])
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
