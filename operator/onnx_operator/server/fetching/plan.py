"""What ``fetch`` is told by its environment."""

from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from onnx_operator.api.conditions import Reason
from onnx_operator.api.contract import FetchPlan
from onnx_operator.api.names import ENV_FETCH_PLAN
from onnx_operator.api.schemes import ALL_CREDENTIALS, credential_names
from onnx_operator.api.sources import SourceFile, SourcePin

WORK_FOLDER = ".onnx-operator-fetch"
"""In the model's folder: what is under way, and what a restart of the container must know."""
_IDENTITY_VARIABLES = frozenset({"AZURE_CLIENT_ID", "AZURE_TENANT_ID"})
"""Names of credentials that Azure's webhook also gives to workload identities; they are no secrets."""


@dataclass(frozen=True)
class Part:
    """Files of one URI that belong together: the model's, or its test data."""

    what: str
    uri: str
    directory: str
    files: Sequence[SourceFile]
    entry: str = ""
    """The model's path in the folder; test data has none."""
    archive: bool = False
    unpacked_bytes: int = 0
    folders: Sequence[str] = ()
    """Empty ones that must be there, too."""

    @property
    def size_bytes(self) -> int:
        """Bytes to be fetched."""
        return sum(file.size_bytes for file in self.files)

    @property
    def downloading(self) -> str:
        """What the log calls its progress."""
        return "downloading" if self.entry else f"downloading {self.what}"


def parts_of(plan: FetchPlan) -> list[Part]:
    """The model and, where the plan has some, its test data."""
    model, data = plan.model, plan.test_data
    what = (model.files, model.model, model.archive, model.unpacked_bytes, model.folders)
    parts = [Part("the model", plan.uri, plan.directory, *what)]
    return parts + ([Part("the test data", data.uri, data.directory, data.files)] if data else [])


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
    known = ALL_CREDENTIALS - kept
    found = {name: environment.pop(name) for name in known if name in environment}
    counted = [name for part in (parts_of(plan) if plan else ()) for name in credentials_for(part.uri, found)]
    return {name: found[name] for name in counted}


def credentials_for(uri: str, credentials: Mapping[str, str]) -> dict[str, str]:
    """Those of ``credentials`` that a URI's scheme has a use for."""
    return {name: credentials[name] for name in credential_names(uri) if name in credentials}


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

    for part in parts_of(plan):
        names = [file.name for file in part.files]
        for name in (*names, *part.folders, part.entry) if part.entry else names:
            if not is_confined(name) or name.partition("/")[0] == WORK_FOLDER:
                folder = "the model's folder" if part.entry else "the folder of the test data"
                raise FetchError(Reason.DOWNLOAD_FAILED, f"the plan's file {name!r} leads out of {folder}")
        if len(set(names)) != len(names):
            raise FetchError(Reason.DOWNLOAD_FAILED, "the plan names a file twice")
    names = [file.name for file in plan.model.files]
    if (len(names) != 1) if plan.model.archive else (plan.model.model not in names):
        expected = "one archive" if plan.model.archive else f"the model {plan.model.model!r} among its files"
        raise FetchError(Reason.DOWNLOAD_FAILED, f"the plan must name {expected}; it names {names}")
    if any("/" in name or not is_confined(name) for name in plan.scoring):
        raise FetchError(Reason.DOWNLOAD_FAILED, f"the plan's scoring files {sorted(plan.scoring)} are not file names")
    if plan.test_data and Path(plan.test_data.directory) == Path(plan.directory):
        raise FetchError(Reason.DOWNLOAD_FAILED, "the plan puts the test data into the model's folder")
