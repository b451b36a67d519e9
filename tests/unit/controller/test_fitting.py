"""Pods are made to fit what their namespace demands, whatever fails on the way."""

import contextlib
from dataclasses import replace

import pytest

from onnx_operator.api.conditions import Reason
from onnx_operator.api.report import InspectionResult
from onnx_operator.controller.cluster.answers import ApiError
from onnx_operator.controller.cluster.queue import KeyedQueue
from onnx_operator.controller.observation.admission import Demands
from onnx_operator.controller.observation.observe import Cause, Observation
from onnx_operator.controller.revision.seal import Trust
from onnx_operator.controller.rollout.children import Children, ChildrenError
from onnx_operator.controller.rollout.deciding import Deciding
from onnx_operator.controller.rollout.history import History
from tests.unit.controller.samples import files, report, spec
from tests.unit.controller.test_conclusions import revision

MODEL = {"metadata": {"namespace": "n", "name": "m", "uid": "u"}}
WANTED = Demands(limits=["cpu"])
ACCEPTED = InspectionResult(
    outcome="Accepted", source=report().source, report=report(), interface="face", files=files()
)
CURRENT = revision()
REFUSED = Observation(
    deployment={"spec": {"template": {"metadata": {"labels": {"onnx-operator.dev/revision": CURRENT.name}}}}},
    demands=WANTED,
)
DEPLOYMENT = {"kind": "Deployment", "metadata": {"name": "m"}, "spec": {"template": {"spec": {}}}}
FITTING = CURRENT.data.model_copy(update={"demands": WANTED, "manifests": [DEPLOYMENT]})


class Revisions:
    """Stands for the API server: what it answers to each try to make a revision, in turn."""

    def __init__(self, *answers):
        self.answers, self.tries = list(answers), 0

    async def data(self, *_):
        self.tries += 1
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def store(self, _model, data, _inspection, _known, confirm):
        await confirm()
        return replace(CURRENT, name="m-2", number=2, data=data, trust=Trust.SEALED)


def deciding(revisions):
    return Deciding(None, revisions, KeyedQueue())


async def there() -> None:
    """The model is still there."""


async def fit(made):
    known, children = History((CURRENT,)), Children((), (), ())
    return await made._fitted(MODEL, spec(), "key", ACCEPTED, {}, known, children, REFUSED, CURRENT, there)


async def test_a_revision_that_meets_the_demands_is_stored():
    assert (await fit(deciding(Revisions(FITTING)))).data.demands == WANTED


@pytest.mark.parametrize(
    "failure",
    [
        ApiError(500, "InternalError", "etcdserver: request timed out"),
        ChildrenError(Cause(Reason.QUOTA_EXCEEDED, "exceeded quota: count/controllerrevisions.apps=9")),
    ],
)
async def test_what_failed_once_on_the_way_is_tried_again(failure):
    made = deciding(Revisions(failure, FITTING))
    with contextlib.suppress(ApiError):
        assert await fit(made) is None
    assert (await fit(made)).data.demands == WANTED


async def test_where_nothing_can_be_changed_the_api_server_is_asked_once():
    revisions = Revisions(CURRENT.data, CURRENT.data)
    made = deciding(revisions)
    assert await fit(made) is None
    assert await fit(made) is None
    assert revisions.tries == 1
