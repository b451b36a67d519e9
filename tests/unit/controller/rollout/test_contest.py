"""Somebody else's scaling is undone, and ever less often where they go on."""

import copy

from onnx_operator.controller.rollout.contest import AT_ONCE, OVER_SECONDS, Contests, only_scaled, scalers

DEPLOYMENT = {
    "metadata": {"name": "m", "annotations": {"onnx-operator.dev/applied-hash": "h"}},
    "spec": {"replicas": 1, "template": {"spec": {"containers": [{"name": "server", "image": "i"}]}}},
}


def live(**spec):
    found = copy.deepcopy(DEPLOYMENT)
    found["spec"] |= spec
    return found


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


def test_only_replicas_that_somebody_else_changed_are_contested():
    assert only_scaled(live(replicas=5), DEPLOYMENT)
    assert not only_scaled(live(), DEPLOYMENT)
    assert not only_scaled(live(replicas=5, template={}), DEPLOYMENT)
    # The model asks for other replicas now: what was applied is another manifest.
    asked = {**DEPLOYMENT, "metadata": {"name": "m", "annotations": {"onnx-operator.dev/applied-hash": "new"}}}
    assert not only_scaled(live(replicas=5), asked)


def test_a_change_by_hand_is_undone_at_once_and_an_autoscalers_ever_later():
    clock = Clock()
    contests = Contests(clock)
    for _ in range(AT_ONCE):
        assert contests.wait("u") == 0
        contests.restored("u")
    waits = []
    for _ in range(8):
        wait = contests.wait("u")
        waits.append(wait)
        clock.now += wait
        assert contests.wait("u") == 0
        contests.restored("u")
    assert waits == sorted(waits)
    assert (waits[0], waits[-1]) == (30, 600)
    assert contests.wait("another") == 0


def test_a_contest_that_is_over_is_forgotten():
    clock = Clock()
    contests = Contests(clock)
    for _ in range(5):
        contests.restored("u")
    clock.now += OVER_SECONDS + 1
    assert contests.wait("u") == 0
    contests.restored("u")
    assert contests.wait("u") == 0
    for _ in range(5):
        contests.restored("u")
    contests.forget("u")
    assert contests.wait("u") == 0


def test_who_scales_is_read_from_the_managed_fields():
    def entry(manager, fields, **more):
        return {"manager": manager, "fieldsV1": {"f:spec": fields}, **more}

    managed = [
        entry("onnx-operator", {"f:replicas": {}}),
        entry("kube-controller-manager", {"f:replicas": {}}, subresource="scale"),
        entry("kubectl-edit", {"f:template": {}}),
    ]
    assert scalers({"metadata": {"managedFields": managed}}) == "kube-controller-manager through /scale"
    for odd in (None, [], [None, 3, {"manager": 1}], [{"manager": "x", "fieldsV1": {"f:spec": []}}]):
        assert scalers({"metadata": {"managedFields": odd}}) == ""
