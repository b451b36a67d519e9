"""The interface gate: what is held, what is let through, and in which words."""

import json
import re
from dataclasses import replace

import pytest

from onnx_operator.api.onnxmodel import OnnxModelSpec
from onnx_operator.api.report import TensorSpec, shorten
from onnx_operator.controller.revision.revisions import NOTE_GOOD, Revision, RevisionData, noted, pod_spec
from onnx_operator.controller.rollout.gate import base, held
from onnx_operator.controller.rollout.history import History
from onnx_operator.controller.status.status import MAX_MESSAGE
from tests.unit.controller.samples import report, spec

OLD, NEW = "0123456789ab", "ba9876543210"
SCRIPT = {"scoring": {"script": "def init(): ..."}}

BEFORE, MADE = "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"


def tensor(name, shape=(-1, 4), datatype="FP32") -> TensorSpec:
    return TensorSpec(name=name, datatype=datatype, shape=list(shape))


def found(inputs=None, outputs=None, **changes):
    told = {"inputs": inputs or [tensor("x")], "outputs": outputs or [tensor("y")]}
    return report().model_copy(update=told | changes)


def revision(number=1, *, good=True, interface=OLD, seen=None, **fields) -> Revision:
    asked = spec(**fields)
    data = RevisionData(spec=pod_spec(asked), report=seen or found(), interface=interface, pool="cpu", manifests=[])
    return noted(Revision(f"m-{number}", number, data), {NOTE_GOOD: "true"} if good else {})


def verdict(new, old=None, interface=NEW, name="m", namespace="default", **fields):
    cause = held(name, namespace, spec(**fields), old or revision(), new, interface)
    return cause.message if cause else None


@pytest.mark.parametrize(
    ("new", "words"),
    [
        (found(outputs=[tensor("embedding")]), 'output "y" is gone'),
        (found(inputs=[tensor("image")]), 'input "x" is gone'),
        (found(inputs=[tensor("x"), tensor("mask")]), 'input "mask" (FP32 [-1, 4]) is new'),
        (found(inputs=[tensor("x", datatype="FP16")]), 'input "x" was FP32, is FP16'),
        (found(inputs=[tensor("x", (1, 4))]), 'input "x" had the shape [-1, 4], has [1, 4]'),
        (found(outputs=[tensor("y", (-1, -1))]), 'output "y" had the shape [-1, 4], has [-1, -1]'),
    ],
)
def test_what_would_break_callers_is_held_and_the_message_says_what_and_how_to_let_it_through(new, words):
    message = verdict(new)
    assert words in message
    patch = re.search(r"kubectl patch onnxmodel m -n default --type=merge -p '(.*)'$", message)[1]
    asked = spec(**json.loads(patch)["spec"])
    assert asked.rollout.accept_interface == NEW
    assert held("m", "default", asked, revision(), new, NEW) is None


@pytest.mark.parametrize(
    "new",
    [
        found(),
        found(outputs=[tensor("y"), tensor("score")]),
        found(inputs=[tensor("x", (-1, -1))]),
        found(outputs=[tensor("y", (8, 4))]),
        found(inputs=[tensor("x", ("batch", 4))]),
    ],
)
def test_what_takes_more_or_promises_more_is_no_break(new):
    assert verdict(new) is None


def test_a_first_version_is_never_held():
    assert held("m", "default", spec(), None, found(outputs=[tensor("z")]), NEW) is None


def test_any_interface_or_exactly_this_one_may_be_let_through():
    broken = found(outputs=[tensor("z")])
    assert verdict(broken, rollout={"acceptInterface": "Any"}) is None
    assert verdict(broken, rollout={"acceptInterface": NEW}) is None
    message = verdict(broken, rollout={"acceptInterface": OLD})
    assert f"acceptInterface is {OLD}, which is another" in message
    assert f'"acceptInterface":"{NEW}"' in message


def test_of_reports_that_are_cut_the_hash_of_all_tensors_decides():
    cut = found(truncated=True)
    old = revision(seen=cut)
    assert verdict(cut, old, interface=OLD) is None
    assert "more may differ than is listed" in verdict(cut, old)


def test_between_scripts_their_owner_alone_knows_but_a_change_from_or_to_one_is_a_break():
    scripted = revision(**SCRIPT)
    other = found(outputs=[tensor("z")])
    assert verdict(other, scripted, **SCRIPT) is None
    assert "the scoring script, which answers /score, is gone" in verdict(found(), scripted, interface=OLD)
    assert "inference by the Open Inference Protocol is gone" in verdict(found(), interface=OLD, **SCRIPT)


def test_the_patch_fits_the_message_however_much_differs_and_whatever_tensors_are_called():
    evil = [tensor(f'\u202e"\\\n{n}' * 9) for n in range(60)]
    message = verdict(found(inputs=evil), name="m" * 52, namespace="n" * 63, rollout={"acceptInterface": OLD})
    assert shorten(message, MAX_MESSAGE) == message
    assert message.endswith(f'{{"acceptInterface":"{NEW}"}}}}}}\'')


def test_callers_rely_on_the_applied_revision_or_where_it_never_served_on_the_last_that_did():
    one, two, three = revision(1), revision(2), revision(3, good=False)
    known = History((one, two, three))
    assert base(known, "m-1", MADE) == one
    assert base(known, "m-3", MADE) == two
    assert base(known, "", MADE) == two
    assert base(History((three,)), "m-3", MADE) is None


@pytest.mark.parametrize("value", ["any", "", "0123456789AB", "0123", OLD + "0", None])
def test_what_is_no_hash_lets_nothing_through(value):
    given = {"model": {"uri": "https://models.example.com/m.onnx"}, "rollout": {"acceptInterface": value}}
    if value is None:
        assert OnnxModelSpec.model_validate(given).rollout.accept_interface is None
    else:
        with pytest.raises(ValueError, match="acceptInterface"):
            OnnxModelSpec.model_validate(given)


def test_what_an_earlier_model_of_the_name_left_behind_binds_nobody_unless_it_runs():
    old, own = replace(revision(1), created=BEFORE), replace(revision(2, good=False), created=MADE)
    known = History((old, own))
    assert base(known, "", MADE) is None
    assert base(known, "m-2", MADE) is None
    assert base(known, "m-1", MADE) == old
