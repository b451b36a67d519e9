"""The contract between the controller and the pods it renders: what it hands in, what they report back."""

from enum import StrEnum

from pydantic import Field

from onnx_operator.api.conditions import Reason
from onnx_operator.api.sources import ApiModel, SourcePin, SourceSettings

TERMINATION_MESSAGE_LIMIT = 2048
"""Bytes; the kubelet keeps 4096 of a container's termination message, a pod's containers share 12 KiB."""

CREDENTIAL_VARIABLES: dict[str, tuple[str, ...]] = {
    "s3": ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"),
    "https": ("HTTPS_BEARER_TOKEN", "HTTPS_USERNAME", "HTTPS_PASSWORD"),
}
"""Keys of a credentials Secret that count, by URI scheme. No other key of the Secret is ever read."""


class FetchPlan(ApiModel):
    """What the ``fetch`` container downloads: exactly the bytes that were inspected, or nothing."""

    uri: str
    pin: SourcePin
    sha256: str = Field(description="hex digest of the inspected bytes")
    size_bytes: int
    destination: str
    sources: SourceSettings = Field(default_factory=SourceSettings)


class Phase(StrEnum):
    """How far a container had come; written before the phase begins, so that a kill still tells it."""

    DOWNLOADING = "Downloading"
    LOADING = "Loading"
    WARMING_UP = "WarmingUp"
    SERVING = "Serving"


class TerminationMessage(ApiModel):
    """What a container leaves in its termination log: at most ``TERMINATION_MESSAGE_LIMIT`` bytes of JSON.

    ``reason`` is absent while nothing has failed (``DownloadFailed``, ``SourceChanged``, ``LoadFailed`` otherwise).
    """

    phase: Phase
    reason: Reason | None = None
    message: str = ""
    observed: SourcePin | None = Field(default=None, description="with SourceChanged: what is there now")

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
        return shortened.model_dump_json(by_alias=True, exclude_none=True)


def _cut(text: str, excess: int) -> str:
    # A character takes one to six bytes in JSON: cutting too few is seen in the next round.
    keep = len(text) - max(excess // 6, 1) - 1
    return text[:keep] + "…" if keep > 0 else ""


class StartFacts(ApiModel):
    """Facts of a good start: one line of JSON in the server's log, read once a revision."""

    event: str = "started"
    execution_providers: list[str] = Field(description="providers that run at least one node, ONNX Runtime's names")
    fallback_operators: list[str] = Field(default_factory=list, description="operators that run on the CPU")
    load_seconds: float
    warm_up_seconds: float
    resident_memory_bytes: int
