"""The contract between the controller and the pods it renders: what it hands in, what they report back."""

import json
from collections.abc import Mapping
from enum import StrEnum
from typing import Self

from pydantic import Field

from onnx_operator.api.conditions import Reason
from onnx_operator.api.names import ENV_FETCH_PLAN
from onnx_operator.api.sources import ApiModel, ModelFiles, SourceFile, SourcePin, SourceSettings
from onnx_operator.api.warm_up import WarmUpInputs
from onnx_operator.common.text import visible_json
from onnx_operator.common.variables import MAX_VARIABLE_LENGTH, to_variables, variables_of

TERMINATION_MESSAGE_LIMIT = 2048
"""Bytes; the kubelet keeps 4096 of a container's termination message, a pod's containers share 12 KiB."""

MAX_INT64 = 2**63 - 1
"""The API server and Go's JSON take no larger number in a field of int64: what a pod says beyond it is no figure."""

MAX_PLAN_LENGTH = 4 * MAX_VARIABLE_LENGTH
"""Bytes. A revision and the pods hold it too, each in an object of at most 1.5 MiB (etcd)."""


class DataPlan(ApiModel):
    """Test inputs and outputs in the ONNX Model Zoo's layout, which ``fetch`` brings beside the model."""

    uri: str = Field(description="a folder; names of files are relative to where it lies")
    files: list[SourceFile]
    directory: str = Field(default="/testdata", description="folder that is filled")


class FetchPlan(ApiModel):
    """What the ``fetch`` container downloads: exactly the bytes that were inspected, or nothing."""

    uri: str
    model: ModelFiles
    directory: str = Field(description="folder that is filled; the model is at directory/model.model")
    workload_identity: bool = Field(default=False, description="whether the pod's own cloud identity reads the source")
    sources: SourceSettings = Field(default_factory=SourceSettings)
    test_data: DataPlan | None = Field(default=None, description="what the server tests the model with")
    scoring: dict[str, str] = Field(default_factory=dict, description="the scoring script's files, by name")
    scoring_directory: str = Field(default="/scoring", description="folder that they are written to")

    def to_variables(self) -> dict[str, str]:
        """Environment variables that hold the plan. Raises ValueError where it is longer than ``MAX_PLAN_LENGTH``."""
        text = json.dumps(self.model_dump(mode="json", by_alias=True), separators=(",", ":"))
        if len(text) > MAX_PLAN_LENGTH:
            raise ValueError(f"the plan takes {len(text)} bytes; expected at most {MAX_PLAN_LENGTH}")
        return to_variables(ENV_FETCH_PLAN, text)

    @classmethod
    def from_variables(cls, environment: Mapping[str, str]) -> Self:
        """The plan that variables hold. Raises pydantic's ValidationError (a ValueError) where they hold none."""
        return cls.model_validate_json("".join(environment[each] for each in variables_of(ENV_FETCH_PLAN, environment)))


class Phase(StrEnum):
    """How far a container had come; written before the phase begins, so that a kill still tells it."""

    DOWNLOADING = "Downloading"
    LOADING = "Loading"
    WARMING_UP = "WarmingUp"
    TESTING = "Testing"
    SERVING = "Serving"


class TerminationMessage(ApiModel):
    """What a container leaves in its termination log: at most ``TERMINATION_MESSAGE_LIMIT`` bytes of JSON.

    ``reason`` is absent while nothing has failed; otherwise it is ``DownloadFailed``, ``SourceChanged``,
    ``DigestMismatch`` or ``LoadFailed``.
    """

    phase: Phase
    reason: Reason | None = None
    message: str = ""
    observed: SourcePin | None = Field(default=None, description="with SourceChanged: what is there now")
    guessing: bool | None = Field(
        default=None, description="whether a made-up input runs: a kill is not the model's fault"
    )

    def to_json(self) -> str:
        """Encode, shortening ``message``, and if need be ``observed``, until the whole fits."""
        text, message, observed = self._encode(self.message, self.observed), self.message, self.observed
        while (excess := len(text.encode()) - TERMINATION_MESSAGE_LIMIT) > 0:
            if message:
                message = _cut(message, excess)
            elif observed and observed.value:
                observed = observed.model_copy(update={"value": _cut(observed.value, excess)})
            else:
                break
            text = self._encode(message, observed)
        return text

    def _encode(self, message: str, observed: SourcePin | None) -> str:
        shortened = self.model_copy(update={"message": message, "observed": observed})
        # kubectl describe prints it as it is.
        return visible_json(shortened.model_dump_json(by_alias=True, exclude_none=True))


def _cut(text: str, excess: int) -> str:
    # A character takes one to six bytes in JSON: cutting too few is seen in the next round.
    keep = len(text) - max(excess // 6, 1) - 1
    return text[:keep] + "…" if keep > 0 else ""


MAX_KILLS = 3
"""Of the server by made-up inputs: after as many its search is given up."""


class WarmUpFacts(ApiModel):
    """Whether the model has answered an input before it took traffic."""

    warmed: bool
    message: str = Field(default="", description="where the input came from, or what was tried in vain")
    inputs: WarmUpInputs | None = Field(default=None, description="the input, where it can be made anew")
    request_cpu_seconds: float | None = Field(
        default=None, description="CPU time that a run of one row takes, of all threads together"
    )


class StartFacts(ApiModel):
    """Facts of a good start: one line of JSON in the server's log, read once a revision."""

    event: str = "started"
    execution_providers: list[str] = Field(description="providers that run at least one node, ONNX Runtime's names")
    fallback_operators: list[str] = Field(default_factory=list, description="operators that run on the CPU")
    fallback_causes: list[str] = Field(default_factory=list, description="why, in ONNX Runtime's words")
    load_seconds: float
    warm_up_seconds: float
    warm_up: WarmUpFacts | None = Field(default=None, description="absent where a scoring script loads the model")
    resident_memory_bytes: int
    intra_op_threads: int | None = Field(default=None, description="threads within an operator, in each process")
    processes: int | None = Field(default=None, description="processes behind the port")
