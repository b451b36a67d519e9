"""Which revisions may be applied, and which one is left running."""

import pytest

from onnx_operator.controller.revision.revisions import Revision, RevisionData, pod_spec, with_revision_label
from onnx_operator.controller.revision.seal import Trust
from onnx_operator.controller.rollout.history import history, predates_seals, settings_cause
from tests.unit.controller.samples import T4, files, report, settings, spec

TEMPLATE = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "server", "image": "i"}]}}
MANIFESTS = [
    {"kind": "Deployment", "metadata": {"name": "m"}, "spec": {"replicas": 1, "template": TEMPLATE}},
    {"kind": "Service", "metadata": {"name": "m"}, "spec": {"ports": [{"port": 80}]}},
]


def revision(number=1, trust=Trust.SEALED, created="2026-01-01T00:00:00Z", inputs="", **changes) -> Revision:
    values = {
        "spec": pod_spec(spec()),
        "report": report(),
        "files": files(),
        "interface": "f",
        "pool": "cpu",
        "manifests": MANIFESTS,
    }
    data = RevisionData(**(values | changes))
    return Revision(f"m-{number}", number, data, trust=trust, created=created, inputs=inputs)


def test_what_carries_no_seal_counts_for_nothing_unless_it_runs():
    own, forged = revision(1), revision(2**60, Trust.FOREIGN)
    found = history([own, forged], running="m-1")
    assert (found.newest, found.held, found.current, found.next_number) == (own, None, own, 2)


def test_what_runs_without_a_seal_is_left_running():
    own, foreign = revision(1), revision(2, Trust.FOREIGN)
    found = history([own, foreign], running="m-2")
    assert (found.newest, found.held, found.current) == (own, foreign, foreign)


@pytest.mark.parametrize("trust", [Trust.SEALED, Trust.AGED])
def test_a_seal_of_either_key_will_do(trust):
    assert history([revision(1, trust)], running="m-1").newest.trust is trust


SINCE = "2026-02-01T00:00:00Z"


def live(revision_: Revision, **changes):
    labelled = {m["kind"]: m for m in with_revision_label(revision_.data.manifests, revision_.name)}
    return {**labelled, **changes}


def test_what_ran_before_there_were_seals_goes_on_being_the_operators():
    found = revision(trust=Trust.UNSEALED)
    assert predates_seals(found, SINCE, live(found))
    scaled = live(found)
    scaled["Deployment"] = {**scaled["Deployment"], "spec": {**scaled["Deployment"]["spec"], "replicas": 9}}
    assert predates_seals(found, SINCE, scaled)


@pytest.mark.parametrize(
    ("found", "changes"),
    [
        (revision(trust=Trust.FOREIGN), {}),
        (revision(trust=Trust.UNSEALED, created=SINCE), {}),
        (revision(trust=Trust.UNSEALED, created="2026-03-01T00:00:00Z"), {}),
        (revision(trust=Trust.UNSEALED, created=""), {}),
        (revision(2**40, trust=Trust.UNSEALED), {}),
        (revision(trust=Trust.UNSEALED), {"Service": {"spec": {"ports": [{"port": 81}]}}}),
        (revision(trust=Trust.UNSEALED), {"Deployment": {"spec": {"template": TEMPLATE}}}),
        (revision(trust=Trust.UNSEALED), {"PodDisruptionBudget": {"spec": {}}}),
        (revision(trust=Trust.UNSEALED, manifests=[*MANIFESTS, MANIFESTS[1]]), {}),
        (revision(trust=Trust.UNSEALED, manifests=MANIFESTS[1:]), {}),
    ],
    ids=[
        "sealed by somebody",
        "made with the key",
        "made after the key",
        "of no known time",
        "of a number that leaves no room",
        "its Service is another",
        "its pods are others",
        "a child that it does not know",
        "a child twice",
        "no Deployment",
    ],
)
def test_nothing_else_is_taken_for_older_than_the_seals(found, changes):
    assert not predates_seals(found, SINCE, live(found, **changes))


@pytest.mark.parametrize(
    ("found", "asked", "given"),
    [
        (revision(spec=pod_spec(spec(podTemplate={"spec": {"hostPID": True}}))), {}, {"allowPodTemplate": False}),
        (revision(spec=pod_spec(spec(scoring={"script": "x"}))), {}, {"allowScoring": False}),
        (revision(pool="gone"), {}, {}),
        (revision(pool="t4"), {}, {"pools": [{**T4, "allowedNamespaces": ["elsewhere"]}]}),
        # The first alpha did not keep the spec: that of the model counts.
        (revision(inputs="x"), {"podTemplate": {"spec": {"hostPID": True}}}, {"allowPodTemplate": False}),
    ],
    ids=["pod template", "script", "pool gone", "pool closed", "of the first alpha"],
)
def test_what_the_settings_forbid_by_now_is_not_applied_however_well_it_is_sealed(found, asked, given):
    assert settings_cause(found, spec(**asked), "tenant", settings(**given))


def test_what_the_settings_allow_is_applied():
    assert settings_cause(revision(), spec(), "tenant", settings()) is None
    assert settings_cause(revision(pool="t4"), spec(), "tenant", settings(pools=[T4])) is None
