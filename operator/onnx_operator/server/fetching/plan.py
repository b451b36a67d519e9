"""What ``fetch`` is told by its environment."""

from collections.abc import Mapping, MutableMapping

from pydantic import ValidationError

from onnx_operator.api.conditions import Reason
from onnx_operator.api.contract import CREDENTIAL_VARIABLES, FetchPlan, scheme_of
from onnx_operator.api.names import ENV_FETCH_PLAN
from onnx_operator.api.sources import SourcePin

WORK_FOLDER = ".onnx-operator-fetch"
"""In the model's folder: what is under way, and what a restart of the container must know."""
_IDENTITY_VARIABLES = frozenset({"AZURE_CLIENT_ID", "AZURE_TENANT_ID"})
"""Names of credentials that Azure's webhook also gives to workload identities; they are no secrets."""


class FetchError(Exception):
    """The planned files could not be brought. ``reason`` is DownloadFailed, SourceChanged or DigestMismatch."""

    def __init__(self, reason: Reason, message: str, observed: SourcePin | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.observed = observed


def take_credentials(environment: MutableMapping[str, str]) -> dict[str, str]:
    """Remove all credential variables from ``environment``; return those of the plan's scheme.

    Nothing that runs afterwards, libraries included, finds them by looking around.
    """
    try:
        plan = FetchPlan.from_variables(environment)
    except ValueError:
        plan = None
    kept = _IDENTITY_VARIABLES if plan and plan.workload_identity else frozenset()
    known = {name for names in CREDENTIAL_VARIABLES.values() for name in names} - kept
    found = {name: environment.pop(name) for name in known if name in environment}
    counted = CREDENTIAL_VARIABLES.get(scheme_of(plan.uri), ()) if plan else ()
    return {name: found[name] for name in counted if name in found}


def read_plan(environment: Mapping[str, str]) -> FetchPlan:
    """The plan in the environment, which stays in its folder. Raises :class:`FetchError`."""
    if not environment.get(ENV_FETCH_PLAN):
        raise FetchError(Reason.DOWNLOAD_FAILED, f"{ENV_FETCH_PLAN} is not set")
    try:
        plan = FetchPlan.from_variables(environment)
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise FetchError(Reason.DOWNLOAD_FAILED, f"{ENV_FETCH_PLAN} is not a fetch plan: {faults}") from None
    _check(plan)
    return plan


def _check(plan: FetchPlan) -> None:
    # Whoever made it: nothing is written outside.
    from onnx_operator.model.sources.base import is_confined

    names = [file.name for file in plan.model.files]
    for name in (*names, plan.model.model):
        if not is_confined(name) or name.partition("/")[0] == WORK_FOLDER:
            raise FetchError(Reason.DOWNLOAD_FAILED, f"the plan's file {name!r} leads out of the model's folder")
    if len(set(names)) != len(names):
        raise FetchError(Reason.DOWNLOAD_FAILED, "the plan names a file twice")
    if (len(names) != 1) if plan.model.archive else (plan.model.model not in names):
        expected = "one archive" if plan.model.archive else f"the model {plan.model.model!r} among its files"
        raise FetchError(Reason.DOWNLOAD_FAILED, f"the plan must name {expected}; it names {names}")
