"""What a namespace demands of pods is learned from how it refuses them, in the API server's words."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnx_operator.controller.observation.admission import RESOURCES, Demands, advice, demands_of

OURS = frozenset({"fetch", "server"})
FORBIDDEN = 'pods "resnet50-7d4-x2x" is forbidden: '
WORDS = {
    "quota on limits": (
        "failed quota: compute: must specify limits.cpu for: fetch,server; limits.memory for: fetch,server",
        Demands(limits=["cpu", "memory"]),
    ),
    "quota on one container": ("failed quota: q: must specify limits.cpu for: fetch", Demands(limits=["cpu"])),
    "quota on somebody else's container": ("failed quota: q: must specify limits.cpu for: proxy", Demands()),
    "quota that is full": (
        "exceeded quota: q, requested: limits.cpu=1, used: limits.cpu=4, limited: limits.cpu=4",
        Demands(),
    ),
    "greatest limit": (
        "maximum memory usage per Container is 512Mi, but limit is 540Mi",
        Demands(maximum={"memory": "512Mi"}),
    ),
    "greatest limit of the pod": (
        "maximum cpu usage per Pod is 1500m, but limit is 2",
        Demands(maximum={"cpu": "1500m"}),
    ),
    "greatest limit without one": (
        "maximum cpu usage per Container is 2.  No limit is specified",
        Demands(maximum={"cpu": "2"}),
    ),
    "least request": ("minimum cpu usage per Container is 100m, but request is 50m", Demands(minimum={"cpu": "100m"})),
    "ratio": (
        "[cpu max limit to request ratio per Container is 2, but provided ratio is 20.000000, "
        "minimum ephemeral-storage usage per Container is 1Gi, but request is 80Mi]",
        Demands(ratio={"cpu": "2"}, minimum={"ephemeral-storage": "1Gi"}),
    ),
    "claims of volumes": ("maximum storage usage per PersistentVolumeClaim is 2Gi, but request is 3Gi", Demands()),
    "something else": ('violates PodSecurity "restricted:latest"', Demands()),
    "nonsense": ("maximum cpu usage per Container is 1e, but limit is ..; ratio per Pod is -1, but", Demands()),
    "a ratio that cannot be": ("cpu max limit to request ratio per Pod is 0.1, but provided ratio is 2", Demands()),
}


@pytest.mark.parametrize("name", WORDS)
def test_demands_are_read_from_refusals(name):
    message, expected = WORDS[name]
    assert demands_of(FORBIDDEN + message, OURS) == expected


def test_a_limit_that_a_limit_range_put_below_the_request_wants_one_of_ours():
    message = (
        'Pod "m-1" is invalid: spec.containers[0].resources.requests: Invalid value: "1": must be less than or equal '
        "to cpu limit of 500m"
    )
    assert demands_of(message, OURS) == Demands(limits=["cpu"])


BOUND = "maximum cpu usage per Container is 100m, but limit is 1"


@pytest.mark.parametrize(
    "message",
    [
        f'admission webhook "policy.example" denied the request: {FORBIDDEN}{BOUND}',
        f"{FORBIDDEN}ValidatingAdmissionPolicy 'p' with binding 'b' denied request: {BOUND}",
        f'{FORBIDDEN}violates PodSecurity "restricted:latest": {BOUND}',
        f'Pod "m-1" is invalid: metadata.annotations: Invalid value: "{BOUND}": must be short',
        f"a\n{FORBIDDEN}{BOUND}",
        BOUND,
    ],
)
def test_words_that_others_write_demand_nothing(message):
    assert demands_of(FORBIDDEN + BOUND, OURS), "as the API server says it"
    assert demands_of(message, OURS) == Demands()


@pytest.mark.parametrize(
    "bound",
    [
        "minimum cpu usage per Container is 9007199254740992, but request is 50m",
        "minimum memory usage per Container is 8Pi, but request is 90Mi",
        "minimum ephemeral-storage usage per Pod is 1e30, but request is 90Mi",
        "maximum cpu usage per Container is 1n, but limit is 1",
        "maximum memory usage per Container is 1, but limit is 256Mi",
        "maximum memory usage per Container is 1e-999999999999, but limit is 256Mi",
    ],
)
def test_bounds_that_no_node_could_keep_are_not_taken_over(bound):
    assert demands_of(FORBIDDEN + bound, OURS) == Demands()


DEMANDS = st.builds(
    Demands,
    limits=st.lists(st.sampled_from(RESOURCES), unique=True).map(sorted),
    **{
        field: st.dictionaries(st.sampled_from(RESOURCES), st.sampled_from(["1", "2", "500m", "1500m", "1Gi", "3G"]))
        for field in ("minimum", "maximum")
    },
    ratio=st.dictionaries(st.sampled_from(RESOURCES), st.sampled_from(["1", "2.5", "3"])),
)


@given(DEMANDS, DEMANDS)
def test_what_was_learned_stays_so_that_refusals_never_take_turns(first, second):
    both = first.and_also(second)
    assert both.and_also(first) == both
    assert both.and_also(second) == both
    assert Demands.model_validate_json(both.model_dump_json()) == both
    assert not both or both.text()


@given(
    st.text(max_size=300)
    | st.builds(
        lambda q: f"maximum cpu usage per Pod is {q}, but", st.text(alphabet="0123456789eEkKmin.+-", max_size=30)
    )
)
def test_any_message_is_read_without_a_fault(message):
    demands_of(message, OURS)
    demands_of(FORBIDDEN + message, OURS)
    advice(message, OURS)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("quota that is full", "no room"),
        ("quota on somebody else's container", "container proxy is not the operator's"),
        ("greatest limit", "spec.resources"),
        ("something else", ""),
    ],
)
def test_a_refusal_that_stays_says_what_to_do(name, words):
    found = advice(WORDS[name][0], OURS)
    assert words in found if words else not found
