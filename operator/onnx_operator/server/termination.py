"""The container's termination message: why it ended, readable by the controller after it is gone."""

import logging
import os
from pathlib import Path

from onnx_operator.api.conditions import Reason
from onnx_operator.api.contract import Phase, TerminationMessage
from onnx_operator.api.names import TERMINATION_LOG
from onnx_operator.api.sources import SourcePin

ENV_TERMINATION_LOG = "ONNX_TERMINATION_LOG"
"""Where to write instead of the kubelet's default path."""
MAX_READ_BYTES = 4096
"""What the kubelet reads of it (Kubernetes documentation, "Determine the Reason for Pod Failure")."""

logger = logging.getLogger(__name__)


class TerminationLog:
    """Rewrites the termination message as the container proceeds.

    Outside a pod (the default path does not exist) nothing is written: the message only serves the kubelet.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._phase = Phase.LOADING

    @classmethod
    def from_environment(cls) -> "TerminationLog":
        """Take the path from ``ONNX_TERMINATION_LOG``, or the kubelet's default where that exists."""
        chosen = os.environ.get(ENV_TERMINATION_LOG)
        if chosen:
            return cls(Path(chosen))
        default = Path(TERMINATION_LOG)
        return cls(default if default.exists() else None)

    def enter(self, phase: Phase) -> None:
        """Record that ``phase`` begins; a kill from now on tells it."""
        self._phase = phase
        self._write(TerminationMessage(phase=phase))

    def guess(self, guessing: bool) -> None:
        """Record whether a made-up input runs: a kill meanwhile is no fault of the model's."""
        self._write(TerminationMessage(phase=self._phase, guessing=guessing or None))

    def fail(self, reason: Reason, message: str, observed: SourcePin | None = None) -> None:
        """Record why the current phase failed."""
        self._write(TerminationMessage(phase=self._phase, reason=reason, message=message, observed=observed))

    def _write(self, message: TerminationMessage) -> None:
        if self._path is None:
            return
        try:
            _rewrite(self._path, message.to_json().encode())
        except OSError as error:
            logger.warning("cannot write the termination message: %s", error)


def _rewrite(path: Path, message: bytes) -> None:
    """Write in place, so that a kill at any moment leaves a whole message.

    The kubelet mounts this very file, so that a rename would leave it empty; and a file that is emptied first loses
    the phase where the kill comes before the text. JSON may end in blanks: they cover what was longer before.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        before = os.fstat(descriptor).st_size
        if before > MAX_READ_BYTES:
            os.ftruncate(descriptor, 0)
            before = 0
        os.pwrite(descriptor, message.ljust(before), 0)
        os.ftruncate(descriptor, len(message))
    finally:
        os.close(descriptor)
